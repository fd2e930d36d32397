"""What the runs of ``training`` left in the store, as tidy frames: shared by all pages about them.

:func:`runs` gives one row a run, with what was trained and what came out; :func:`series` the points
that it logged on the way; :func:`mean` and :func:`ratio` say a number with its interval over seeds.
A study that is half done has missing cells, nothing else: no function here raises for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from markupsafe import Markup

from experiments.report import sections, words
from experiments.report.blocks import Column, Prose, Section, Table
from experiments.report.frames import Frames
from experiments.report.words import listed, plural, sentence, strong

__all__ = [
    "EQUILIBRIUM", "EXPLICIT", "FEW", "RESULTS", "TIED", "Estimate", "along", "as_aimed",
    "definitions", "depth_of", "failures", "grouped", "interpolated", "is_probe", "kind_of",
    "labelled", "mean", "missing_runs", "network", "overview", "ratio", "runs", "seeds_of",
    "series", "smoothed", "three", "unpaired",
]  # fmt: skip

EQUILIBRIUM, TIED, EXPLICIT = "equilibrium", "tied", "explicit"
"""The kinds of networks: solved; so many evaluations of one layer; layers of their own."""

RESULTS = (
    "loss", "accuracy", "perplexity", "train_loss", "evaluations", "products", "converged",
    "test_evaluations", "step_seconds", "inference_seconds", "seconds", "work", "peak_bytes",
    "layer_peak_bytes", "parameters", "cell_parameters", "steps", "seconds_to_target",
    "work_to_target", "entropy_rate",
)  # fmt: skip
"""What a run may return; what it did not is NaN."""

FEW = 3
"""Fewer seeds than this give no interval worth the name; it is said how many there are."""

_CONFIDENCE = 0.95


# One row a run ----------------------------------------------------------------------------------


def kind_of(config: Mapping[str, Any]) -> str:
    """Return whether a run trained an equilibrium, tied layers or layers of their own.

    Parameters
    ----------
    config
        With dotted keys, as :meth:`Frames.configs` gives it.
    """
    if config.get("model.layers") is not None or config.get("model.name") == "revnet":
        return EXPLICIT
    if config.get("model.depth") is not None or config.get("model.name") == "universal_transformer":
        return TIED
    through = config.get("gradient.name") in ("unrolled", "checkpointed", "reversible")
    return TIED if through and config.get("fixed_budget") else EQUILIBRIUM


def depth_of(config: Mapping[str, Any]) -> float:
    """Return the number of layers of a tied or explicit network, NaN for an equilibrium."""
    kind = kind_of(config)
    if kind == EQUILIBRIUM:
        return math.nan
    for key in ("model.layers", "model.depth", "model.blocks"):
        if isinstance(depth := config.get(key), int):
            return float(depth)
    budget = config.get("max_evaluations")
    return float(budget) if kind == TIED and isinstance(budget, int) else math.nan


def runs(frames: Frames) -> pd.DataFrame:
    """Return one row a run of ``training``, those that did not complete too.

    Returns
    -------
    pandas.DataFrame
        ``run_id``, ``status``, ``trial``, ``seed``, ``completed``; of the config ``model``,
        ``data``, ``case`` (model on data), ``kind`` (see :func:`kind_of`), ``depth``, ``solver``,
        ``gradient``, ``regularised``, ``warm_start``, ``config`` (all of it, with dotted keys); and
        the columns of :data:`RESULTS`, NaN for a run without a result (it failed, or goes on).
    """
    configs, results = frames.configs(), frames.results()
    rows: list[dict[str, Any]] = []
    for _, run in frames.runs.iterrows():
        number = int(run["id"])
        config = configs[number]
        found = results.get(number, {})
        model, data = str(config.get("model.name") or "?"), config.get("data.name")
        row: dict[str, Any] = {
            "run_id": number,
            "status": run["status"],
            "completed": run["status"] == "COMPLETED",
            "trial": run["trial"],
            "seed": float("nan") if words.missing(run["seed"]) else float(run["seed"]),
            "model": model,
            "data": data or "",
            "case": f"{model} on {data}" if data else model,
            "kind": kind_of(config),
            "depth": depth_of(config),
            "solver": str(config.get("solver.name") or ""),
            "gradient": str(config.get("gradient.name") or ""),
            "regularised": bool(config.get("regularisation.weight")),
            "warm_start": bool(config.get("warm_start")),
            "config": config,
        }
        row |= {name: _number(found.get(name)) for name in RESULTS}
        rows.append(row)
    columns = [
        "run_id", "status", "completed", "trial", "seed", "model", "data", "case", "kind", "depth",
        "solver", "gradient", "regularised", "warm_start", "config", *RESULTS,
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys([*RESULTS, "depth", "seed"], float))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def seeds_of(rows: pd.DataFrame) -> int:
    """Return how many seeds there are among the rows."""
    return int(rows["seed"].nunique())


def is_probe(config: Mapping[str, Any]) -> bool:
    """Whether a training is so short that it measures memory, and no loss.

    Parameters
    ----------
    config
        With dotted keys.
    """
    steps = config.get("steps")
    return isinstance(steps, int) and steps <= _PROBE


_PROBE = 5


def as_aimed(config: Mapping[str, Any]) -> bool:
    """Whether an equilibrium is solved as the memory aims say: Anderson(6), GMRES restarted at 12.

    Without preconditioner, whose basis would be kept until the backward.
    """
    return (
        config.get("solver.name") == "anderson"
        and config.get("solver.window") == 6
        and config.get("gradient.name") == "implicit"
        and config.get("gradient.solver.name", "gmres") == "gmres"
        and config.get("gradient.solver.restart") == 12
        and not config.get("gradient.precondition")
    )


# Numbers with their intervals -------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with the 95 % interval of Student's t; NaN where nothing is known.

    Attributes
    ----------
    value
        The mean, or the geometric mean of ratios.
    low, high
        The interval; NaN with one seed.
    number
        Of seeds.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    number: int = 0

    @property
    def known(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(self.value)

    @property
    def certain(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def at_most(self, target: float) -> bool | None:
        """Return whether the value is at or below a target; None where it is not known."""
        return self.value <= target if self.known else None

    def interval(self, write: Callable[[float], str] = words.digits) -> str:
        """Return ``3.1 to 3.32``, or ``–`` where there is no width."""
        ends = [write(self.low), write(self.high)] if self.certain else []
        return "\u00a0to\u00a0".join(ends) if len(set(ends)) > 1 else "–"

    def text(self, write: Callable[[float], str] = words.digits, *, seeds: bool = False) -> str:
        """Return ``3.21 (3.1 to 3.32)``, or the value alone where there is no width.

        Parameters
        ----------
        write
            How a number is written.
        seeds
            Whether to say of how many seeds: ``3.21 (3.1 to 3.32, 3 seeds)``.
        """
        if not self.known:
            return "–"
        value, low, high = write(self.value), write(self.low), write(self.high)
        inside = [f"{low} to {high}"] if self.certain and (low, high) != (value, value) else []
        inside += [plural(self.number, "seed")] if seeds else []
        return f"{value} ({', '.join(inside)})" if inside else value


def three(value: float) -> str:
    """Return a ratio near 1 with three decimals: ``0.139``."""
    return f"{value:.3f}" if value < 10 else words.digits(value)


def mean(values: Iterable[float]) -> Estimate:
    """Return the mean of one number a seed; what is not finite is left out."""
    found = np.array([v for v in values if math.isfinite(v)], dtype=float)
    if not len(found):
        return Estimate(math.nan)
    middle = float(found.mean())
    if len(found) < 2:
        return Estimate(middle, number=len(found))
    half = _quantile(len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Estimate(middle, middle - half, middle + half, len(found))


def ratio(top: pd.DataFrame, bottom: pd.DataFrame, column: str) -> Estimate:
    """Return how many times the bottom's ``column`` the top's is, paired by seed.

    Both saw the same data in the same order at one seed, so that the ratio is taken seed by seed:
    the geometric mean, with the interval of the logarithms. Without a common seed it is the ratio
    of the means, without an interval; that is also right for bytes, which no seed changes.

    Parameters
    ----------
    top, bottom
        Rows of :func:`runs`; several of one seed count as their mean.
    column
        A positive number.
    """
    above, below = (rows.groupby("seed")[column].mean().dropna() for rows in (top, bottom))
    above, below = above[above > 0], below[below > 0]
    shared = above.index.intersection(below.index)
    if not len(shared):
        both = len(above) and len(below)
        return Estimate(float(above.mean() / below.mean()) if both else math.nan)
    logs = mean(np.log(above[shared].to_numpy(float) / below[shared].to_numpy(float)))
    return _exponential(logs)


def unpaired(top: Iterable[float], bottom: Iterable[float]) -> Estimate:
    """Return the ratio of geometric means of positive numbers that share no seeds (Welch)."""
    above, below = (
        np.log([v for v in values if math.isfinite(v) and v > 0]) for values in (top, bottom)
    )
    if not len(above) or not len(below):
        return Estimate(math.nan)
    value, number = float(above.mean() - below.mean()), min(len(above), len(below))
    if number < 2:
        return _exponential(Estimate(value, number=number))
    parts = [v.var(ddof=1) / len(v) for v in (above, below)]
    freedom = _welch(parts, [len(above), len(below)])
    half = _quantile(freedom) * math.sqrt(sum(parts))
    return _exponential(Estimate(value, value - half, value + half, number))


def _welch(parts: Sequence[float], numbers: Sequence[int]) -> float:
    below = sum(p**2 / (n - 1) for p, n in zip(parts, numbers, strict=True))
    return float(sum(parts) ** 2 / below) if below > 0 else float(sum(numbers) - len(numbers))


def _exponential(logs: Estimate) -> Estimate:
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.number)


def _quantile(freedom: float) -> float:
    return float(scipy.stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom))


def grouped(rows: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Return one row a group: means over the seeds, ``value``, ``value_lo`` and ``value_hi``.

    Groups come in the order of their first row, with ``seeds`` (number of those with a result),
    ``started`` (of runs), ``runs`` (ids) and ``met`` (whether all its runs completed).
    """
    made = []
    for key, group in rows.groupby(list(by), sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(by, key, strict=True))
        for value in values:
            found = mean(group[value])
            row |= {value: found.value, f"{value}_lo": found.low, f"{value}_hi": found.high}
        row["seeds"] = int(group.loc[group["completed"], "seed"].nunique())
        row["started"] = len(group)
        row["runs"] = sorted(int(run) for run in group["run_id"])
        row["met"] = bool(group["completed"].all())
        made.append(row)
    ends = [f"{v}{end}" for v in values for end in ("", "_lo", "_hi")]
    return pd.DataFrame(made, columns=[*by, *ends, "seeds", "started", "runs", "met"])


# On the way -------------------------------------------------------------------------------------


def series(frames: Frames, rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the points of these series, with the columns of their runs.

    Parameters
    ----------
    frames
        Where they are read.
    rows
        Rows of :func:`runs`, with whatever columns the page has added.
    names
        Such as ``train.loss``; of none, all are read.

    Returns
    -------
    pandas.DataFrame
        ``name``, ``step``, ``value``, and the columns of ``rows`` but for the results.
    """
    own = [c for c in rows.columns if c not in RESULTS and c not in ("name", "step", "value")]
    if rows.empty:
        return pd.DataFrame(columns=["name", "step", "value", *own])
    points = frames.series(*names).dropna(subset=["step"])
    # A resumed run logs a step again; the newest is what the weights went through.
    points = points.drop_duplicates(["run_id", "name", "step"], keep="last")
    return points.merge(rows[own], on="run_id", how="inner")


def along(points: pd.DataFrame, y: str, x: str) -> pd.DataFrame:
    """Return one series against another: a row where ``y`` was logged, with ``x`` as it was then.

    Parameters
    ----------
    points
        Rows of :func:`series` that hold both.
    y, x
        Such as ``test.loss`` against ``train.seconds``, ``train.work`` or ``step``. An ``x`` that
        was logged at other steps is interpolated between them.

    Returns
    -------
    pandas.DataFrame
        The rows of ``y``, with ``x`` and ``y`` as columns of these names.
    """
    made = []
    for run, group in points.groupby("run_id", sort=False):
        del run
        own = group[group["name"] == y].sort_values("step")
        if x == "step":
            at = own["step"].to_numpy(float)
        else:
            other = group[group["name"] == x].sort_values("step")
            if own.empty or other.empty:
                continue
            at = np.interp(own["step"], other["step"], other["value"])
        made.append(own.assign(x=at, y=own["value"]))
    empty = points.iloc[:0].assign(x=pd.Series(dtype=float), y=pd.Series(dtype=float))
    return pd.concat(made, ignore_index=True) if made else empty


def smoothed(points: pd.DataFrame, share: float = 0.1) -> pd.DataFrame:
    """Return points whose ``y`` is the mean over the last ``share`` of its run's points."""

    def trailing(values: pd.Series) -> pd.Series:
        return values.rolling(max(1, round(share * len(values))), min_periods=1).mean()

    return points.assign(y=points.groupby("run_id", sort=False)["y"].transform(trailing))


def interpolated(
    points: pd.DataFrame, by: Sequence[str], *, number: int = 80, log: bool = False
) -> pd.DataFrame:
    """Return the mean curve of each group over its seeds, with its interval.

    Parameters
    ----------
    points
        Rows of :func:`along`, with ``x`` and ``y``.
    by
        Columns that make a group.
    number
        Of points, where the seeds do not share their x; else at these.
    log
        Whether the points are spread evenly in log x.

    Returns
    -------
    pandas.DataFrame
        The columns of ``by``, ``x``, ``y`` (mean), ``low``, ``high``, ``seeds`` and ``runs``. A
        group of one seed has the curve itself, with ``low`` and ``high`` missing. A curve ends
        where its first seed ends.
    """
    made = []
    for key, group in points.groupby(list(by), sort=False, dropna=False):
        lines = [
            (line["x"].to_numpy(float), line["y"].to_numpy(float))
            for _, line in group.sort_values("x", kind="stable").groupby("run_id", sort=False)
            if len(line)
        ]
        grid = _grid(lines, number, log=log)
        values = np.array([np.interp(grid, x, y) for x, y in lines])
        found = [mean(column) for column in values.T]
        ids = sorted({int(run) for run in group["run_id"]})
        made.append(
            pd.DataFrame(
                {
                    **dict(zip(by, key, strict=True)),
                    "x": grid,
                    "y": [e.value for e in found],
                    "low": [e.low for e in found],
                    "high": [e.high for e in found],
                    "seeds": len(lines),
                    "runs": [ids] * len(grid),
                }
            )
        )
    columns = [*by, "x", "y", "low", "high", "seeds", "runs"]
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=columns)


def _grid(lines: Sequence[tuple[Any, Any]], number: int, *, log: bool) -> Any:
    first = lines[0][0]
    if all(len(x) == len(first) and np.array_equal(x, first) for x, _ in lines):
        return first
    low, high = max(float(x[0]) for x, _ in lines), min(float(x[-1]) for x, _ in lines)
    if high <= low:  # seeds that have nothing in common: one of them is shown
        return first
    if log and low <= 0:
        low = min(float(x[x > 0][0]) for x, _ in lines if (x > 0).any())
    return np.geomspace(low, high, number) if log else np.linspace(low, high, number)


# What every page about trainings says -----------------------------------------------------------


def overview(frames: Frames) -> list[Markup]:
    """Return how many runs there are, how they ended, where, when, and with which seeds."""
    said = sections.overview(frames)
    done = frames.runs[frames.runs["status"] == "COMPLETED"]
    seeds = sorted({int(s) for s in done["seed"].dropna()})
    if len(seeds) > 1:
        said.append(
            sentence(
                "Intervals are of 95 %, over the seeds {} (Student's t); ratios are taken seed by"
                " seed.",
                listed([str(seed) for seed in seeds]),
            )
        )
    elif seeds:
        said.append(sentence("One seed only ({}): numbers here have no intervals.", str(seeds[0])))
    return said


def missing_runs(what: str, study: str) -> Markup:
    """Return what to say where rows are missing: what is, and what to run."""
    return sentence(
        "No run here has {} yet: <code>deq study {}</code> makes what is missing.", what, study
    )


def failures(frames: Frames) -> Section:
    """Return the trainings that did not end well, with the sentence of each, and what to do.

    Solves that stop at their budget are part of training; shares of those that converge are among
    the results, and no failure of a run.
    """
    rows = []
    ended = frames.runs[frames.runs["status"] != "COMPLETED"]
    by = ["status", "fail_type", "fail_message", "model", "solver", "gradient"]
    for key, group in ended.groupby(by, sort=False, dropna=False):
        status, kind, message, model, solver, gradient = (
            None if words.missing(part) else str(part) for part in key
        )
        why = message or kind or _WHY.get(str(status), "no sentence was recorded")
        if kind and message and status == "FAILED":
            why = f"{kind}: {message}"
        ids = sorted(int(run) for run in group["id"])
        rows.append(
            {
                "what": _ENDED.get(str(status), str(status).lower()),
                "which": " · ".join(part for part in (model, solver, gradient) if part),
                "times": len(group),
                "why": why,
                "run_text": words.run_list(ids).removeprefix("runs ").removeprefix("run "),
                "runs": ids,
            }
        )
    if not rows:
        return Section("What failed", [Prose([Markup("Nothing: every training completed.")])])
    frame = pd.DataFrame(rows)
    columns = (
        Column("what", "what happened"),
        Column("which", "training"),
        Column("times", "how often", "count"),
        Column("why", "why"),
        Column("run_text", "runs"),
    )
    text = Markup(
        "They are left out of every number above. <code>deq runs show RUN</code> prints a run;"
        " <code>deq resume RUN</code> goes on with an interrupted one."
    )
    return Section("What failed", [Table("failures", "What failed, and why", text, columns, frame)])


_ENDED = {
    "FAILED": "run failed",
    "INTERRUPTED": "interrupted",
    "RUNNING": "still running",
    "QUEUED": "queued",
    "DIVERGED": "diverged",
}
_WHY = {
    "INTERRUPTED": "stopped by hand; its checkpoint is kept",
    "RUNNING": "it goes on, or its process was killed",
}


def definitions() -> list[Markup]:
    """Return what the words of the pages about trainings mean."""
    return [
        Markup(
            "<b>Evaluations</b>: calls of f by the forward solve of a step. <b>Products</b>: those"
            " with the transposed Jacobian in its backward; where a gradient goes through the"
            " iterations, the evaluations that its backward costs. <b>Work</b>: both, from the"
            " first step on, pre-training included."
        ),
        Markup(
            "<b>Peak</b>: the most bytes at once in one training step beyond what was there before"
            " it: parameters, their gradients and the optimiser's state are left out, the solver's"
            " history is not. Counted storage by storage on the CPU; on CUDA the caching"
            " allocator's count."
        ),
        Markup(
            "<b>Seconds</b>: of training steps alone, without evaluations and checkpoints; of"
            " inference, the median of a test batch."
        ),
        sentence(
            "{}: on the test split, after the last step. Perplexity is the exponential of the"
            " loss, in nats a token.",
            strong("Loss"),
        ),
    ]


# Names ------------------------------------------------------------------------------------------


def network(config: Mapping[str, Any]) -> str:
    """Return what was trained, in a few words: ``DEQ``, ``16 tied layers, checkpointed``."""
    kind, depth = kind_of(config), depth_of(config)
    if kind == EQUILIBRIUM:
        return "DEQ, regularised" if config.get("regularisation.weight") else "DEQ"
    number = 0 if math.isnan(depth) else int(depth)
    if config.get("model.name") == "revnet":
        return plural(number, "reversible block") if number else "reversible blocks"
    how = _HOW.get(str(config.get("gradient.name")), "")
    noun = "tied layer" if kind == TIED else "untied layer"
    return f"{plural(number, noun) if number else noun + 's'}{how}"


_HOW = {"checkpointed": ", checkpointed", "reversible": ", run back"}


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with ``network`` (see :func:`network`) and ``label``.

    The label is the network, with those options beside it in which trainings of one network on one
    case differ, seeds apart.
    """
    rows = rows.copy()
    rows["network"] = [network(config) for config in rows["config"]]
    rows["label"] = rows["network"]
    for _, group in rows.groupby(["case", "network"], sort=False):
        configs = list(group["config"])
        keys = [key for key in dict.fromkeys(k for c in configs for k in c) if _tells(key, group)]
        keys = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
        keys.sort(key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
        for index, config in zip(group.index, configs, strict=True):
            said = [_option(key, config[key]) for key in keys if config.get(key) is not None]
            if said:
                rows.loc[index, "label"] = f"{rows.loc[index, 'network']} ({', '.join(said)})"
    return rows


_FIRST = ("solver.name", "gradient.name", "gradient.precondition")
_NEVER = ("seed", "data_sha256", "device", "threads", "measure_memory", "record_every")


def _tells(key: str, group: pd.DataFrame) -> bool:
    ignored = group["kind"].iloc[0] != EQUILIBRIUM and key.startswith(("solver.", "gradient."))
    return key not in _NEVER and not ignored


def _option(key: str, value: object) -> str:
    if key.endswith(".name"):
        return str(value)
    short = key.rsplit(".", maxsplit=1)[-1]
    if isinstance(value, bool):
        return short if value else f"no {short}"
    return f"{short}={value:g}" if isinstance(value, float) else f"{short}={value}"
