"""The measurements of ``theory``, as all its sections use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.report import words
from experiments.report.frames import Frames, as_mapping

_CONFIG = ("depth", "width", "gain", "activation", "contraction", "second", "radius", "train_steps")
FOUND = (
    "radius", "norm", "step_rate", "gradient_rate", "step_last", "gradient_last", "layers",
)  # fmt: skip
PARTS = ("first", "second", "joint")


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes
    ----------
    runs
        One row a completed run: its config, ``claim`` and ``label`` (what it varies).
    series, gradients, solves
        The rows of the store, with the columns of ``runs``.
    """

    runs: pd.DataFrame
    series: pd.DataFrame
    gradients: pd.DataFrame
    solves: pd.DataFrame

    def of(self, claim: str) -> Found:
        """Return what was measured of one claim."""

        def kept(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["claim"] == claim]

        return Found(*(kept(f) for f in (self.runs, self.series, self.gradients, self.solves)))

    def curves(self, name: str) -> pd.DataFrame:
        """Return the points of a series."""
        return self.series[self.series["name"] == name]


def theory(frames: Frames) -> Found:
    """Return what was measured in the completed runs."""
    done = frames.runs[frames.runs["status"] == "COMPLETED"]
    rows = []
    for run, seed, model in zip(done["id"], done["seed"], done["model"], strict=True):
        config = frames.store.config(int(run))
        row = {name: config.get(name) for name in _CONFIG}
        rows.append(
            {"run_id": int(run), "seed": seed, "model": model, "claim": config.get("claim"), **row}
        )
    runs = pd.DataFrame(rows, columns=["run_id", "seed", "model", "claim", *_CONFIG])
    runs["radius"] = pd.to_numeric(runs["radius"])
    runs["label"] = [_label(row) for _, row in runs.iterrows()]
    low, high = (int(v) for v in (frames.runs["id"].min(), frames.runs["id"].max()))
    series = frames.store.series(f"id >= {low} and id <= {high}")
    gradients = frames.store.gradients(f"run_id >= {low} and run_id <= {high}")
    extra = [as_mapping(value) for value in gradients["extra"]]
    gradients = gradients[["run_id", "gradient", "rel_err", "state_err", "products"]].copy()
    gradients["layers"] = _column(extra, "depth", gradients.index)
    points = frames.points
    extra = [as_mapping(value) for value in points["extra"]]
    solves = pd.DataFrame(
        {
            "run_id": points["run_id"],
            "solver": points["solver_name"],
            "evaluations": points["evaluations"],
            "met": points["met"],
        }
    )
    # The config of these runs names no solver; the rows do.
    solves["solver"] = _solvers(frames, low, high).reindex(points["solve_id"]).to_numpy()
    solves["part"] = pd.Series([e.get("part") for e in extra], solves.index, dtype=object)
    for name in FOUND:
        solves[f"found_{name}"] = _column(extra, name, solves.index)

    def joined(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.merge(runs, on="run_id", how="inner", suffixes=("", "_run"))

    return Found(
        runs, joined(series[["run_id", "name", "step", "value"]]), joined(gradients), joined(solves)
    )


def _column(extra: Sequence[Mapping[str, Any]], name: str, index: pd.Index) -> pd.Series:
    """Return what stands beside rows under a name, as numbers."""
    return pd.to_numeric(pd.Series([e.get(name) for e in extra], index, dtype=object))


def _solvers(frames: Frames, low: int, high: int) -> pd.Series:
    rows = frames.store.solves(f"run_id >= {low} and run_id <= {high}")
    return pd.Series(rows["solver"].to_numpy(), index=rows["solve_id"])


def _label(row: pd.Series) -> str:
    """Return what a run varies, beside its seed."""
    claim = row["claim"]
    if claim == "universality":
        return f"{row['activation']}, {row['depth']:.0f} layers, gain {row['gain']:g}"
    if claim == "stacking":
        return f"norms {row['contraction']:g} and {row['second']:g}"
    if claim == "injection":
        return f"norm {row['contraction']:g}"
    trained = ", trained" if (row["train_steps"] or 0) > 0 else ""
    asked = "" if words.missing(row["radius"]) else f", ρ = {row['radius']:g}"
    return f"{row['model']}{trained}{asked}"


def layers(found: Found) -> pd.DataFrame:
    """Return the errors of the blocks, with the number of each one's layer."""
    rows = found.series[found.series["name"].str.startswith("layer ")]
    return rows.assign(layer=[int(str(name).removeprefix("layer ")) for name in rows["name"]])


def pairs(found: Found) -> pd.DataFrame:
    """Return a row a run and solver that solved both ways, with their evaluations and radii."""
    rows = found.solves[found.solves["met"]].dropna(subset=["part"])
    keys = ["run_id", "label", "solver"]
    made = pd.DataFrame(columns=keys)
    for part in PARTS:
        here = rows[rows["part"] == part][[*keys, "evaluations", "found_radius"]]
        here = here.set_axis([*keys, f"evaluations_{part}", f"radius_{part}"], axis=1)
        made = here if made.empty else made.merge(here, on=keys, how="inner")
    return made
