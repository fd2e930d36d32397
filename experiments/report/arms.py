"""What the trainings of a case differ in, as names of the arms of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.report import words

__all__ = ["ELSEWHERE", "named", "over_seeds", "value_text"]

ELSEWHERE = frozenset(
    {
        "seed", "device", "threads", "data_sha256", "trace", "budgets", "measure_memory",
        "measure_radius", "record_every", "evaluate_every", "eval_batches", "checkpoint_every",
        "keep_checkpoint",
    }
)  # fmt: skip
"""Keys of a config that tell no arms apart: of a run, of a machine, of what is measured beside."""


def named(
    runs: pd.DataFrame, own: Callable[[Mapping[str, Any]], str], told: Sequence[str] = ()
) -> list[str]:
    """Return each run's name, with the settings in which runs of that name differ in one case.

    Parameters
    ----------
    runs
        Rows of :func:`experiments.report.trainings.runs`.
    own
        The name that a flat config gives by itself.
    told
        Keys and starts of keys (``regularisation.``) that the name tells already.
    """
    names = [own(config) for config in runs["config"]]
    keys = list(zip(runs["case"], names, strict=True))
    seen: dict[tuple[str, str], dict[str, set[str]]] = {}
    for key, config in zip(keys, runs["config"], strict=True):
        for option, value in config.items():
            seen.setdefault(key, {}).setdefault(option, set()).add(repr(value))
    labels = []
    for key, config in zip(keys, runs["config"], strict=True):
        differs = [
            f"{_short(option)}={value_text(config[option])}"
            for option, values in sorted(seen[key].items())
            if len(values) > 1
            and option not in ELSEWHERE
            and not option.startswith(tuple(told) or ("\0",))
            and option in config
        ]
        labels.append(f"{key[1]} ({', '.join(differs)})" if differs else key[1])
    return labels


def _short(option: str) -> str:
    for part in ("model.", "solver.", "gradient."):
        option = option.removeprefix(part)
    return option.removesuffix(".name")


def value_text(value: object) -> str:
    """Return an option's value as a name has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return words.tolerance(value) if value and abs(value) < 0.01 else f"{value:g}"
    return str(value)


def over_seeds(points: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each group at each x, with ``low`` and ``high``, its range over the seeds.

    For quantities that have bounds, and of which a band of confidence over few seeds would go
    beyond them.

    Parameters
    ----------
    points
        Rows of :func:`experiments.report.trainings.along`, logged at the same steps by all seeds.
    by
        Columns that make a group.
    """
    groups = points.groupby([*by, "x"], sort=False)
    frame = groups.agg(
        y=("y", "mean"), low=("y", "min"), high=("y", "max"), seeds=("run_id", "nunique")
    )
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted({int(run) for run in ids}))
    frame.loc[frame["seeds"] < 2, ["low", "high"]] = float("nan")
    return frame.reset_index()
