"""The trainings of ``budget``: their trajectories, the losses they reach, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from experiments.report import arms, trainings, words
from experiments.report.colours import Look, gradient_looks
from experiments.report.frames import Frames
from experiments.report.trainings import Estimate

COSTS = ("work", "seconds", "peak")
"""What reaching a loss costs, by column: evaluations, seconds, bytes at most."""

ALL, HALF, ONE = "which all reach", "which half of them reach", "which one reaches"
LEVELS = (ALL, HALF, ONE)
"""The losses that are asked for, the easiest first."""

# Two losses nearer than this, relative, are one.
_SAME = 0.005


@dataclass(frozen=True)
class Case:
    """A model on its data, trained with every gradient from the same starts.

    Attributes
    ----------
    name
        Model and data.
    measure
        ``accuracy`` or ``perplexity``, what is told beside the loss; empty if neither.
    runs
        One row a run (:func:`experiments.report.trainings.runs`), with its ``arm``.
    curves
        One row a run and evaluation on the test split, in order: arm, seed, run_id, step, loss,
        work, seconds, peak.
    budgets
        Points of the losses and measures by fixed evaluations at test time (``x``, ``y``).
    levels
        The losses asked for, by name.
    """

    name: str
    measure: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    budgets: pd.DataFrame
    levels: Mapping[str, float]

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The runs that completed."""
        found: pd.DataFrame = self.runs[self.runs["completed"]]
        return found

    @cached_property
    def arms(self) -> list[str]:
        """The gradients, in the order of their first run."""
        return list(dict.fromkeys(self.runs["arm"]))

    @cached_property
    def reached(self) -> pd.DataFrame:
        """One row a level and run: what it cost to reach it, NaN where it was not."""
        rows = []
        for (arm, seed, run), here in self.curves.groupby(["arm", "seed", "run_id"], sort=False):
            for level, loss in self.levels.items():
                about = {"level": level, "loss": loss, "arm": arm, "seed": seed, "run_id": run}
                rows.append(about | passage(here, loss))
        return pd.DataFrame(rows, columns=["level", "loss", "arm", "seed", "run_id", *COSTS])

    def ranking(self, level: str, cost: str) -> Ranking | None:
        """Return who reaches a level at the least cost, and who is not apart from it."""
        rows = self.reached[self.reached["level"] == level]
        groups = {str(arm): here for arm, here in rows.groupby("arm", sort=False)}
        whole = {arm: here for arm, here in groups.items() if here[cost].notna().all()}
        if not whole:
            return None
        value = {arm: _geometric(here[cost]) for arm, here in whole.items()}
        best = min(value, key=lambda arm: value[arm].value)
        ratios = {
            arm: trainings.ratio(here, whole[best], cost)
            for arm, here in whole.items()
            if arm != best
        }
        some = [
            arm for arm, here in groups.items() if arm not in whole and here[cost].notna().any()
        ]
        never = [arm for arm, here in groups.items() if here[cost].isna().all()]
        return Ranking(best, value, ratios, tuple(some), tuple(never))


@dataclass(frozen=True)
class Ranking:
    """Who reaches a loss at which cost.

    Attributes
    ----------
    best
        The gradient of the least mean cost.
    value
        The geometric mean over the seeds, of the gradients that reach the loss in all of them.
    ratios
        How many times the best one's cost each other one's is, seed by seed.
    some, never
        Gradients that reach the loss at some seeds only, and at none.
    """

    best: str
    value: Mapping[str, Estimate]
    ratios: Mapping[str, Estimate]
    some: Sequence[str]
    never: Sequence[str]

    @property
    def tied(self) -> list[str]:
        """Those whose interval of the ratio to the best one holds 1, or that have none."""
        return [arm for arm, ratio in self.ratios.items() if not ratio.low > 1]

    @property
    def beaten(self) -> list[str]:
        """Those that cost more, beyond their interval; the nearest first."""
        found = [arm for arm, ratio in self.ratios.items() if ratio.low > 1]
        return sorted(found, key=lambda arm: self.ratios[arm].value)


def _geometric(values: pd.Series) -> Estimate:
    found = trainings.mean(np.log(values.to_numpy(float)))
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.number)


def cases(frames: Frames) -> list[Case]:
    """Return the cases of the runs, in the order of their first one."""
    runs = trainings.runs(frames)
    runs["arm"] = arms.named(runs, _arm)
    names = ["test.loss", "train.loss", "train.work", "train.seconds", "train.peak_bytes"]
    names += ["budget.loss", "budget.accuracy", "budget.perplexity"]
    points = trainings.series(frames, runs, *names)
    return [
        _case(str(name), here, points[points["case"] == name])
        for name, here in runs.groupby("case", sort=False)
    ]


def _case(name: str, runs: pd.DataFrame, points: pd.DataFrame) -> Case:
    known = [m for m in ("accuracy", "perplexity") if runs[m].notna().any()]
    # One that goes on has not yet said what it reaches; one that diverged has.
    curves = _curves(points[points["status"].isin(["COMPLETED", "DIVERGED"])])
    budgets = points[points["name"].str.startswith("budget.")]
    budgets = budgets.assign(x=budgets["step"], y=budgets["value"])
    measure = known[0] if known else ""
    return Case(name, measure, runs, curves, budgets, levels(curves))


def _curves(points: pd.DataFrame) -> pd.DataFrame:
    columns = {"train.work": "work", "train.seconds": "seconds", "train.peak_bytes": "peak"}
    keys = ["arm", "seed", "run_id", "step"]
    found = points[points["name"] == "test.loss"][[*keys, "value"]]
    found = found.rename(columns={"value": "loss"}).reset_index(drop=True)
    for name, column in columns.items():
        along = trainings.along(points, "test.loss", name)
        own = along[["run_id", "step", "x"]].rename(columns={"x": column})
        found = found.merge(own, on=["run_id", "step"], how="left")
    found = found.sort_values(["run_id", "step"], kind="stable")
    # The first record comes before the memory of a step is known.
    peak = found.groupby("run_id")["peak"].transform("max")
    return found.assign(peak=peak).reset_index(drop=True)


def _arm(config: Mapping[str, object]) -> str:
    parts = [str(config.get("gradient.name") or "none")]
    if config.get("gradient.precondition"):
        parts.append("preconditioned")
    if config.get("reltol") == "auto":
        parts.append("reltol auto")
    return " · ".join(parts)


def looks(found: Sequence[Case]) -> dict[str, Look]:
    """Return a look for each gradient of all cases."""
    names = list(dict.fromkeys(arm for case in found for arm in case.arms))
    shapes = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
    made = gradient_looks(names)
    return {
        name: Look(look.colour, look.dash, shapes[turn % len(shapes)])
        for turn, (name, look) in enumerate(made.items())
    }


def passage(curve: pd.DataFrame, loss: float) -> dict[str, float]:
    """Return what it cost until the loss was first at or below this one, NaN if it never was.

    Between two evaluations on the test split the loss is taken to fall in a straight line; the
    memory is that of a step, whenever it is reached.
    """
    values = curve["loss"].to_numpy(float)
    below = np.flatnonzero(values <= loss)
    if not len(below):
        return dict.fromkeys(COSTS, math.nan)
    k = int(below[0])
    found = {"peak": float(curve["peak"].max())}
    for cost in ("work", "seconds"):
        spent = curve[cost].to_numpy(float)
        found[cost] = float(spent[k])
        if k and math.isfinite(values[k - 1]):
            share = (values[k - 1] - loss) / (values[k - 1] - values[k])
            found[cost] = float(spent[k - 1] + share * (spent[k] - spent[k - 1]))
    return found


def levels(curves: pd.DataFrame) -> dict[str, float]:
    """Return the least loss that all gradients, half of them, and one of them reach in every seed.

    Rounded upwards to three digits, so that what is written is what is asked for. One that is as
    good as another is left out, and so is one that a run starts below.
    """
    best = curves.groupby(["arm", "seed"], sort=False)["loss"].min()
    worst = best.groupby("arm", sort=False).max().dropna().sort_values().to_numpy(float)
    worst = worst[np.isfinite(worst)]
    if not len(worst):
        return {}
    start = float(curves.groupby("run_id")["loss"].first().min())
    ranks = {ALL: len(worst) - 1, HALF: math.ceil(len(worst) / 2) - 1, ONE: 0}
    found: dict[str, float] = {}
    for name, rank in ranks.items():
        loss = up(float(worst[rank]))
        near = any(abs(loss - other) <= _SAME * abs(other) for other in found.values())
        if loss < start and not near:
            found[name] = loss
    return found


def up(value: float, digits: int = 3) -> float:
    """Return a positive number rounded upwards to so many digits."""
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.{digits + 3}g}")


def cost_text(cost: str, value: float) -> str:
    """Return a cost as the reader says it."""
    if math.isnan(value):
        return "–"
    if cost == "work":
        return words.count(round(float(f"{value:.3g}")))
    return words.seconds(value) if cost == "seconds" else words.size(value)
