"""The measurements of ``limit``, problem by problem, as all its sections use them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from experiments.report import words
from experiments.report.colours import Look, variant_looks
from experiments.report.frames import Frames, as_mapping
from experiments.report.measures import summarise

DEFAULT = "fallback"  # what ``solver=None`` means

_MEASURED = ("evaluations", "products", "work", "limit", "radius")


@dataclass(frozen=True)
class Family:
    """The runs on one problem, in one or several settings of it.

    Attributes
    ----------
    name
        The problem's name.
    points
        One row a solve. Besides the columns of :attr:`Frames.points`: ``setting`` (the options in
        which the runs differ), ``limit``, ``radius``, ``products`` (with the Jacobian), ``work``
        (evaluations, a product as two), ``score`` (work / limit; infinite where the solve failed)
        and ``spent`` (the same, for failed solves what they spent in vain).
    looks
        Of every solver on the page.
    """

    name: str
    points: pd.DataFrame
    looks: Mapping[str, Look]

    @cached_property
    def settings(self) -> list[str]:
        """The settings, in the order of their names."""
        return sorted({str(s) for s in self.points["setting"]}, key=_natural)

    @cached_property
    def reltol(self) -> float:
        """The tolerance at which most settings were measured, the tightest of those."""
        found = self.points.groupby("reltol")["setting"].nunique()
        return float(found.index[found == found.max()].min())

    @cached_property
    def at(self) -> pd.DataFrame:
        """The solves to that tolerance."""
        return self.points[self.points["reltol"] == self.reltol]

    @cached_property
    def by_solver(self) -> pd.DataFrame:
        """One row a setting and solver, at that tolerance."""
        return scored(self.at, ["setting", "solver"], self)

    @cached_property
    def overall(self) -> pd.DataFrame:
        """One row a solver: how near it comes over all settings, the nearest first.

        ``mean`` is the geometric mean of its medians, infinite where one of them failed; solvers
        that failed in fewer runs come first.
        """
        rows = []
        for solver, here in self.by_solver.groupby("solver", sort=False):
            medians = here["score"].to_numpy(float)
            with np.errstate(divide="ignore"):
                mean = float(np.exp(np.log(medians).mean())) if len(medians) else math.nan
            rows.append(
                {
                    "solver": solver,
                    "settings": len(here),
                    "number": int(here["number"].sum()),
                    "failed": int(here["failed"].sum()),
                    "mean": mean,
                    "low": float(medians.min()),
                    "high": float(medians.max()),
                }
            )
        frame = pd.DataFrame(rows)
        frame = frame.assign(missing=frame["settings"] < len(self.settings))
        return frame.sort_values(["missing", "failed", "mean"], kind="stable", ignore_index=True)

    @cached_property
    def curves(self) -> list[str]:
        """The settings that were measured at three tolerances or more."""
        found = self.points.groupby("setting")["reltol"].nunique()
        return [setting for setting in self.settings if found[setting] >= 3]

    def curve(self, setting: str) -> pd.DataFrame:
        """Return one row a solver and tolerance, in a setting."""
        here = self.points[self.points["setting"] == setting]
        return scored(here, ["solver", "reltol"], self)

    def option(self, setting: str, name: str) -> Any:
        """Return an option of the problem in a setting, or ``None``."""
        rows = self.points.loc[self.points["setting"] == setting, "problem_options"]
        return as_mapping(rows.iloc[0]).get(name)

    def said(self, setting: str) -> str:
        """Return a setting as a reader says it: ``one_sided, radius 0.9``."""
        text = re.sub(r"\bspectrum=", "", setting)
        return text.replace("=", " ")


def scored(points: pd.DataFrame, by: Sequence[str], family: Family) -> pd.DataFrame:
    """Return :func:`summarise` with the score: a failed solve counts as infinitely far.

    ``score``, ``score_lo`` and ``score_hi`` are median and range, ``failed`` how many solves did,
    ``score_text`` all of it in words.
    """
    frame = summarise(points, by, [*_MEASURED, "spent"])
    groups = [group for _, group in points.groupby(list(by), sort=False, dropna=False)]
    for end, measure in (("", np.median), ("_lo", np.min), ("_hi", np.max)):
        frame[f"score{end}"] = [float(measure(g["score"].to_numpy(float))) for g in groups]
    frame["failed"] = frame["number"] - frame["met_number"]
    frame["failed_text"] = [
        f"{f} of {n}" if f else "–" for f, n in zip(frame["failed"], frame["number"], strict=True)
    ]
    frame["score_text"] = [
        score_text(*ends)
        for ends in zip(frame["score"], frame["score_lo"], frame["score_hi"], strict=True)
    ]
    order = {name: position for position, name in enumerate(family.looks)}
    frame["_order"] = frame["solver"].map(order)
    keys = ["_order"]
    if "setting" in by:
        places = {name: position for position, name in enumerate(family.settings)}
        frame["_place"] = frame["setting"].map(places)
        keys = ["_place", "_order"]
    frame = frame.sort_values(keys, kind="stable", ignore_index=True)
    return frame.drop(columns=keys)


def score_text(middle: float, low: float, high: float) -> str:
    """Return median and range: ``1.04 (1.02–1.05)``, ``1.14 (1.07–failed)``, ``failed``."""
    ends = [number(value) for value in (low, high)]
    if ends[0] == ends[1]:
        return ends[0]
    return f"{number(middle)} ({ends[0]}–{ends[1]})"


def number(score: float) -> str:
    """Return a score with two decimals, three digits from ten on."""
    if math.isnan(score):
        return "–"
    if math.isinf(score):
        return "failed"
    return f"{score:.2f}" if score < 10 else words.digits(score)


def foreign(name: str) -> bool:
    """Whether a solver is another library's."""
    return name.startswith(("scipy_", "torch", "xitorch"))


def _natural(text: str) -> list[tuple[int, float, str]]:
    parts = re.split(r"(\d+\.?\d*)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts)]


def families(frames: Frames) -> list[Family]:
    """Return the problems of the selected runs, in the order in which they were first measured."""
    points = frames.points.copy()
    extra = [as_mapping(value) for value in points["extra"]]
    for name in ("limit", "radius", "equivalents"):
        points[name] = pd.to_numeric(
            pd.Series([found.get(name) for found in extra], index=points.index, dtype=object),
            errors="coerce",
        )
    points["problem_options"] = [found.get("problem") for found in extra]
    points["products"] = points["jvps"].fillna(0) + points["vjps"].fillna(0)
    points["work"] = points["equivalents"].fillna(points["evaluations"])
    points["spent"] = points["work"] / points["limit"]
    # Without a limit there is no score either, whether or not the solve converged.
    points["score"] = points["spent"].where(points["met"] | points["limit"].isna(), math.inf)
    # What keeps everything has no window.
    points["solver"] = [str(n).replace("window=None", "window=all") for n in points["solver"]]
    points["family"] = [str(case).split(" (", maxsplit=1)[0] for case in points["case"]]
    points["setting"] = [_setting(str(case)) for case in points["case"]]
    found = variant_looks(sorted(set(points["solver"]), key=_natural))
    return [
        Family(str(name), group.reset_index(drop=True), found)
        for name, group in points.groupby("family", sort=False)
    ]


def _setting(case: str) -> str:
    _, bracket, rest = case.partition(" (")
    return rest.removesuffix(")") if bracket else case
