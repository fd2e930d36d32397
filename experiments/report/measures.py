"""Medians and ranges over runs, and which of several things is the least: shared by all pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.report.frames import as_mapping

# The worst first: a group is called by its worst member.
_SEVERITY = (
    "FAILURE",
    "LINEAR_SOLVE_FAILED",
    "NONFINITE",
    "DIVERGED",
    "STALLED",
    "MAX_SECONDS",
    "MAX_EVALUATIONS",
    "SUCCESS",
)


def severity(retcode: object) -> int:
    """Return how bad a retcode is, 0 the worst; an unknown one is as bad as any."""
    return _SEVERITY.index(str(retcode)) if str(retcode) in _SEVERITY else 0


def summarise(points: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Return one row a group: medians over its runs with their range, and how its solves ended.

    Parameters
    ----------
    points
        Rows of :attr:`Frames.points`.
    by
        Columns that make a group; groups come in the order of their first row.
    values
        Numeric columns. Each gives ``value`` (median), ``value_lo`` and ``value_hi`` (range).

    Returns
    -------
    pandas.DataFrame
        With ``runs`` (ids), ``number`` (of points), ``met_number``, ``met`` (all of them),
        ``retcode`` (the worst), ``codes`` (samples by retcode) and ``message`` (of the worst).
    """
    numbers = pd.DataFrame({v: pd.to_numeric(points[v], errors="coerce") for v in values})
    groups = numbers.groupby([points[key] for key in by], sort=False, dropna=False)
    ends = {"": groups.median(), "_lo": groups.min(), "_hi": groups.max()}
    frame = pd.DataFrame({f"{v}{end}": found[v] for v in values for end, found in ends.items()})
    rows = []
    for _, group in points.groupby(list(by), sort=False, dropna=False):
        worst = min(range(len(group)), key=lambda i: severity(group["retcode"].iloc[i]))
        row: dict[str, Any] = {
            "runs": sorted({int(run) for run in group["run_id"]}),
            "number": len(group),
            "met_number": int(group["met"].sum()),
            "met": bool(group["met"].all()),
            "retcode": group["retcode"].iloc[worst],
            "codes": codes(group),
            "message": group["message"].iloc[worst],
        }
        rows.append(row)
    more = ["runs", "number", "met_number", "met", "retcode", "codes", "message"]
    ended = pd.DataFrame(rows, columns=more).astype({"met": bool})
    return frame.reset_index().join(ended)


def codes(group: pd.DataFrame) -> dict[str, float]:
    """Return how many samples ended with each retcode, the worst last."""
    total: Counter[str] = Counter()
    for cell, worst in zip(group["retcodes"], group["retcode"], strict=True):
        counted = as_mapping(cell) or ({str(worst): 1} if isinstance(worst, str) else {})
        total.update({str(name): number for name, number in counted.items()})
    return dict(sorted(total.items(), key=lambda item: -severity(item[0])))


def per_seed(points: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return one row a group and seed: the median of ``value`` and the interval it was seen in.

    The interval holds the quartiles of repeated timings where there are some.
    """
    frame = points[[*by, "seed", value]].copy()
    frame["value"] = pd.to_numeric(frame[value], errors="coerce")
    for end, quartile in (("low", f"{value}_q1"), ("high", f"{value}_q3")):
        bound = points[quartile] if quartile in points else frame["value"]
        frame[end] = pd.to_numeric(bound, errors="coerce").fillna(frame["value"])
    frame = frame.dropna(subset=["value"])
    # Runs without a seed are told apart from every other seed, and grouped together.
    frame["seed"] = frame["seed"].fillna(-1)
    grouped = frame.groupby([*by, "seed"], sort=False, dropna=False)
    return grouped.agg(
        value=("value", "median"), low=("low", "min"), high=("high", "max")
    ).reset_index()


@dataclass(frozen=True)
class Best:
    """The least of some things: their names, the least first, and its median over the seeds.

    ``names`` holds more than one when the spread does not separate them.
    """

    names: tuple[str, ...]
    value: float
    seeds: int
    medians: Mapping[str, float]


def least(measured: pd.DataFrame, name: str) -> Best | None:
    """Return which ``name`` has the least value, and which others the spread does not separate.

    One thing beats another when its interval lies below the other's at every seed that both have
    (over all seeds, if they share none): the seeds are the same problems, so they are compared one
    by one.

    Parameters
    ----------
    measured
        As :func:`per_seed` returns it, for one situation.
    name
        The column of the names.
    """
    if measured.empty:
        return None
    medians = measured.groupby(name, sort=False)["value"].median()
    first = str(medians.idxmin())
    best = measured[measured[name] == first].set_index("seed")
    tied = [first]
    for other in medians.sort_values(kind="stable").index:
        if other == first:
            continue
        rival = measured[measured[name] == other].set_index("seed")
        shared = best.index.intersection(rival.index)
        if len(shared):
            beaten = bool((best.loc[shared, "high"] < rival.loc[shared, "low"]).all())
        else:
            beaten = bool(best["high"].max() < rival["low"].min())
        if not beaten:
            tied.append(str(other))
    return Best(
        tuple(tied),
        float(medians[first]),
        len(best),
        {str(k): float(v) for k, v in medians.items()},
    )
