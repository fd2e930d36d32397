"""What runs have in common and in what they differ: differences, replicates, ranks, paired tests.

All of it works on frames that ``db/queries.py`` reads, and on nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from db.encode import clean
from db.errors import StoreError, closest
from db.views import VIEWS

__all__ = ["FACTS", "PAIRED", "compare", "diff", "leaves", "replicates", "single"]

# What two rows must share to be a pair: everything about the task, nothing about how it was solved.
PAIRED = (
    "experiment", "study", "model", "problem", "seed", "reltol", "outer_step", "phase", "name",
)  # fmt: skip
FACTS = ("run", "environment", "code")  # what ``diff`` compares beside the config
NUMERIC = ("integer", "number", "boolean")


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested data under dotted keys; a list is one leaf."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= leaves(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: value} if prefix else {}


def diff(facts: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """The keys in which runs differ, a column a run; ``facts`` are nested data by run number.

    What a run does not have is None. Keys of the config come first, each kind by name.
    """
    flat = {number: leaves(of_run) for number, of_run in facts.items()}
    keys = sorted({key for of_run in flat.values() for key in of_run}, key=_place)
    # By their text: nan is then nan, 1 is not 1.0 and True is not 1.
    differing = [
        key for key in keys if len({repr(of_run.get(key)) for of_run in flat.values()}) > 1
    ]
    return pd.DataFrame(
        {
            number: pd.Series([of_run.get(key) for key in differing], dtype="object")
            for number, of_run in flat.items()
        }
    ).set_axis(pd.Index(differing, name="key"), axis=0)


def _place(key: str) -> tuple[int, str]:
    kind = key.partition(".")[0]
    return FACTS.index(kind) + 1 if kind in FACTS else 0, key


def single(frame: pd.DataFrame, column: str, view: str) -> "pd.Series[Any]":
    """A numeric column of a view as float64; StoreError if it is none."""
    _known(frame, [column], view)
    if not pd.api.types.is_numeric_dtype(frame[column]):
        numeric = {c.name for c in VIEWS[view].columns.values() if c.type in NUMERIC}
        raise StoreError(f"{column!r} of {view} is no number: {closest(column, numeric)}")
    return frame[column].astype("float64")


def replicates(
    frame: pd.DataFrame, value: str, by: Sequence[str], view: str, confidence: float
) -> pd.DataFrame:
    """Mean, spread and interval of a column over the seeds of each group."""
    from scipy import stats  # takes longer to import than all else takes to read

    if not 0 < confidence < 1:
        raise StoreError(f"confidence = {confidence}: expected a number between 0 and 1")
    _known(frame, by, view)
    numbers = single(frame, value, view)
    rows = []
    for key, group in frame.assign(**{value: numbers}).groupby(list(by), dropna=False, sort=False):
        # Several rows of one seed are no independent replicates: their mean is one.
        seeds = group.groupby("seed", dropna=False)[value].mean().dropna()
        n, mean = len(seeds), float(seeds.mean()) if len(seeds) else np.nan
        spread = float(seeds.std(ddof=1)) if n > 1 else np.nan
        half = (
            float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / n**0.5 if n > 1 else np.nan
        )
        rows.append(
            dict(zip(by, key, strict=True))
            | {
                "n": n,
                "mean": mean,
                "std": spread,
                "low": mean - half,
                "high": mean + half,
                "least": float(seeds.min()) if n else np.nan,
                "largest": float(seeds.max()) if n else np.nan,
                "missing": int(group[value].isna().sum()),
            }
        )
    columns = [*by, "n", "mean", "std", "low", "high", "least", "largest", "missing"]
    return pd.DataFrame(rows, columns=columns)


def compare(
    frame: pd.DataFrame,
    value: str,
    sides: tuple[str, str],
    *,
    key: str,
    view: str,
    confidence: float,
) -> pd.DataFrame:
    """A paired comparison of ``value`` between the rows of two values of ``key``, by model.

    Pairs share all of ``PAIRED`` that the view has. The ratio is the geometric mean of left over
    right with the t interval of its logarithm; ``p`` is Wilcoxon's signed-rank test; ``effect`` the
    matched-pairs rank-biserial correlation, −1 where left is less in every pair and 1 where it is
    more in every one (D. Kerby, Compr. Psychol. 3, 2014).
    """
    if not 0 < confidence < 1:
        raise StoreError(f"confidence = {confidence}: expected a number between 0 and 1")
    _known(frame, [key], view)
    numbers = single(frame, value, view)
    there = frame.assign(**{value: numbers})
    sides = clean(sides[0]), clean(sides[1])
    for name in sides:
        if not (there[key].astype("string") == name).any():
            known = {str(v) for v in there[key].dropna().unique()}
            raise StoreError(f"no row has {key}={name}: {closest(name, known)}")
    pairing = [column for column in PAIRED if column in there.columns and column != key]
    both = [
        there[there[key].astype("string") == name].groupby(pairing, dropna=False)[value].mean()
        for name in sides
    ]
    pairs = pd.concat(both, axis=1, keys=["left", "right"], join="inner").reset_index()
    groups = [("all", pairs)]
    if "model" in pairs.columns and pairs["model"].nunique() > 1:
        groups += [(str(model), rows) for model, rows in pairs.groupby("model")]
    made = [{"model": name, **_paired(rows, confidence)} for name, rows in groups]
    return pd.DataFrame(made)


def _paired(pairs: pd.DataFrame, confidence: float) -> dict[str, Any]:
    from scipy import stats

    whole = pairs.dropna(subset=["left", "right"])
    a, b = whole["left"].to_numpy(), whole["right"].to_numpy()
    n, difference = len(whole), a - b
    found: dict[str, Any] = {
        "pairs": n,
        "missing": len(pairs) - n,
        "left": float(a.mean()) if n else np.nan,
        "right": float(b.mean()) if n else np.nan,
        "less": int((difference < 0).sum()),
        "more": int((difference > 0).sum()),
        "ratio": np.nan,
        "ratio_low": np.nan,
        "ratio_high": np.nan,
        "p": np.nan,
        "effect": np.nan,
    }
    if n and (a > 0).all() and (b > 0).all():
        logs = np.log(a / b)
        half = np.nan
        if n > 1:
            half = stats.t.ppf((1 + confidence) / 2, n - 1) * logs.std(ddof=1) / n**0.5
        found["ratio"] = float(np.exp(logs.mean()))
        found["ratio_low"] = float(np.exp(logs.mean() - half))
        found["ratio_high"] = float(np.exp(logs.mean() + half))
    moved = difference[difference != 0]
    if len(moved):
        ranks = stats.rankdata(np.abs(moved))
        found["effect"] = float((np.sign(moved) * ranks).sum() / ranks.sum())
        found["p"] = float(stats.wilcoxon(moved).pvalue)
    elif n:
        found["effect"], found["p"] = 0.0, 1.0
    return found


def _known(frame: pd.DataFrame, columns: Sequence[str], view: str) -> None:
    for column in columns:
        if column not in frame.columns:
            raise StoreError(
                f"{view} has no column {column!r}: {closest(column, VIEWS[view].columns)}"
            )
