"""The rows of ``problems`` start by start, and what is counted from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from experiments.intervals import wilson
from experiments.report import labels
from experiments.report.colours import Look, variant_looks
from experiments.report.frames import Frames, as_mapping

_STARTS = (
    "run_id",
    "case",
    "solver",
    "seed",
    "start",
    "collection",
    "traps",
    "dim",
    "roots",
    "met",
    "retcode",
    "evaluations",
    "products",
    "equivalents",
    "seconds",
    "residual",
    "root",
    "distance",
    "claimed",
    "own_claimed",
    "own_met",
)


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes
    ----------
    starts
        One row a problem (``case``), solver and start. ``start`` 0 is the standard one;
        ``collection`` is ``standard`` for the problems of the published list.
    broken
        One row a run that gave no result: ``run_id``, ``case``, ``solver`` and ``status``.
    looks
        Of every solver.
    """

    starts: pd.DataFrame
    broken: pd.DataFrame
    looks: Mapping[str, Look]

    @cached_property
    def solvers(self) -> list[str]:
        """The solvers, in the order of their looks."""
        there = {*self.starts["solver"], *self.broken["solver"]}
        return [name for name in self.looks if name in there]

    @cached_property
    def problems(self) -> list[str]:
        """The problems: those of the standard list first, in the order of their first run."""
        first = self.starts.drop_duplicates("case")
        standard = first["collection"] == "standard"
        return [*first.loc[standard, "case"], *first.loc[~standard, "case"]]

    @cached_property
    def standard(self) -> pd.DataFrame:
        """The standard starts of the standard problems, one row a problem and solver."""
        rows = self.starts[(self.starts["start"] == 0) & (self.starts["collection"] == "standard")]
        return rows.drop_duplicates(["case", "solver"]).reset_index(drop=True)

    @cached_property
    def listed(self) -> int:
        """The number of standard problems."""
        return int(self.standard["case"].nunique())

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a problem and solver: successes of starts, interval, work, and the failure."""
        rows = []
        for (case, solver), group in self.starts.groupby(["case", "solver"], sort=False):
            low, high = wilson(int(group["met"].sum()), len(group))
            solved = group[group["met"]]
            codes = Counter(group.loc[~group["met"], "retcode"])
            rows.append(
                {
                    "case": case,
                    "solver": solver,
                    "starts": len(group),
                    "successes": len(solved),
                    "share": len(solved) / len(group),
                    "low": low,
                    "high": high,
                    "standard_met": bool(group.loc[group["start"] == 0, "met"].all()),
                    "evaluations": solved["evaluations"].median(),
                    "equivalents": solved["equivalents"].median(),
                    "failure": codes.most_common(1)[0][0] if codes else None,
                    "codes": dict(codes),
                    "false_successes": int(false_successes(group).sum()),
                    "runs": sorted({int(run) for run in group["run_id"]}),
                }
            )
        columns = None if rows else ["case", "solver", "starts", "successes", "share", "failure"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def by_solver(self) -> pd.DataFrame:
        """One row a solver, the one that solves the largest share of its starts first."""
        rows = []
        for solver, group in self.starts.groupby("solver", sort=False):
            solved = group[group["met"]]
            low, high = wilson(len(solved), len(group))
            standard = self.standard[self.standard["solver"] == solver]
            false = group[false_successes(group)]
            rows.append(
                {
                    "solver": solver,
                    "standard": int(standard["met"].sum()),
                    "standard_total": len(standard),
                    "problems": group["case"].nunique(),
                    "starts": len(group),
                    "successes": len(solved),
                    "share": len(solved) / len(group),
                    "low": low,
                    "high": high,
                    "evaluations": solved["evaluations"].median(),
                    "equivalents": solved["equivalents"].median(),
                    "seconds": group["seconds"].median(),
                    "claims": int(claims(group).sum()),
                    "false_successes": len(false),
                    "false_standard": int((false["start"] == 0).sum()),
                    "runs": sorted({int(run) for run in group["run_id"]}),
                }
            )
        frame = pd.DataFrame(rows)
        if frame.empty:
            return frame
        order = ["share", "standard", "equivalents"]
        return frame.sort_values(order, ascending=[False, False, True], kind="stable").reset_index(
            drop=True
        )

    def work(self, quantity: str) -> pd.DataFrame:
        """Return ``quantity`` by problem and start (rows) and solver; NaN where not solved."""
        solved = self.starts[self.starts["met"]]
        by = ["case", "seed", "start"]
        table = solved.pivot_table(index=by, columns="solver", values=quantity, aggfunc="median")
        every = pd.MultiIndex.from_frame(self.starts[by].drop_duplicates())
        # A problem that nobody solved stays: everybody failed there.
        return table.reindex(index=every, columns=[n for n in self.solvers if n in self.measured])

    @cached_property
    def measured(self) -> set[str]:
        """The solvers that gave a result at all."""
        return set(self.starts["solver"])

    def problem_of(self, run_ids: pd.Series) -> pd.Series:
        """Return the problem of each run, missing where it is unknown."""
        rows = pd.concat([self.starts[["run_id", "case"]], self.broken[["run_id", "case"]]])
        known = dict(zip(rows["run_id"], rows["case"], strict=True))
        problems: pd.Series = run_ids.map(known)
        return problems


def false_successes(starts: pd.DataFrame) -> pd.Series:
    """Return which starts the solver's library takes for solved, and our test does not.

    Either as it was run here, or by itself with its own settings where that was tried.
    """
    # None is neither true nor false.
    here = starts["claimed"].eq(True) & ~starts["met"]
    alone = starts["own_claimed"].eq(True) & starts["own_met"].eq(False)
    found: pd.Series = here | alone
    return found


def claims(starts: pd.DataFrame) -> pd.Series:
    """Return at which starts a library said of itself whether it succeeded."""
    found: pd.Series = starts["claimed"].notna() | starts["own_claimed"].notna()
    return found


def results(frames: Frames) -> Results:
    """Return the selected runs start by start."""
    rows: list[dict[str, Any]] = []
    for point in frames.points.to_dict("records"):
        extra = as_mapping(point["extra"])
        every = extra.get("per_sample") or []
        about = {
            "run_id": int(point["run_id"]),
            "case": point["case"],
            "solver": point["solver"],
            "seed": point["seed"],
            "collection": extra.get("collection", "other"),
            "traps": ", ".join(extra.get("traps") or ()),
            "dim": extra.get("dim", point["dim"]),
            "roots": extra.get("roots", 0),
            "seconds": point["seconds"] / max(len(every), 1),
        }
        for number, start in enumerate(every):
            work = start["evaluations"] + start["products"]
            own = {f"own_{key}": said for key, said in (start.get("own") or {}).items()}
            rows.append({**about, **start, **own, "start": number, "equivalents": work})
    starts = pd.DataFrame(rows, columns=list(_STARTS))
    starts = starts.astype(
        {"met": bool, "claimed": object, "own_claimed": object, "own_met": object}
    )
    numbers = ["evaluations", "products", "equivalents", "seconds", "residual", "distance", "dim"]
    starts[numbers] = starts[numbers].astype("float64")
    starts["seed"] = starts["seed"].astype("float64").fillna(-1)
    broken = _broken(frames, set(starts["run_id"]))
    return Results(starts, broken, variant_looks([*starts["solver"], *broken["solver"]]))


def _broken(frames: Frames, measured: set[int]) -> pd.DataFrame:
    """Return the runs without a result; what they were of stands in their configs alone."""
    lost = frames.runs[~frames.runs["id"].isin(measured)]
    rows = []
    if len(lost):
        configs = {
            int(run): labels.flat(frames.store.config(int(run))) for run in frames.runs["id"]
        }
        cases, solvers = labels.case_labels(configs, {}), labels.solver_labels(configs)
        for run, status in zip(lost["id"], lost["status"], strict=True):
            rows.append((int(run), cases[int(run)], solvers[int(run)], str(status)))
    return pd.DataFrame(rows, columns=["run_id", "case", "solver", "status"])


def share_at(work: pd.DataFrame, limit: float) -> pd.Series:
    """Return for each solver the share of rows of ``work`` within ``limit``; NaN is beyond any."""
    within: pd.Series = (work <= limit).sum() / max(len(work), 1)
    return within


def ratios(work: pd.DataFrame) -> pd.DataFrame:
    """Return ``work`` over the least of each row: the performance ratios of Dolan and Moré."""
    least = work.min(axis=1).replace(0, np.nan)
    return work.div(least, axis=0)
