"""The measurements of ``overhead``, as all its sections use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from experiments.report import words
from experiments.report.colours import Look, variant_looks
from experiments.report.frames import Frames, as_mapping

PEER = "torchdeq_"
KINDS = {
    "checked": "tolerance checked",
    "fixed": "fixed budget",
    "direct": "called directly",
}
# Seconds over the bare evaluations, by (batch, dim, hidden) of the two-layer cell on two cores of a
# CPU, and on a GPU of any cell.
_AIMS: Mapping[tuple[int, int, int], Mapping[str, float]] = {
    (32, 256, 256): {"anderson": 2.5, "broyden": 3.2},
    (32, 4096, 1024): {"anderson": 1.08, "broyden": 1.30},
    (64, 16384, 256): {"anderson": 1.22, "broyden": 1.95},
}
_GPU_AIMS = {"anderson": 1.10, "broyden": 1.25}
# An overhead below this is noise.
_LEAST = 1e-3

_EXTRA = (
    "measure", "contender", "kind", "cell", "mode", "variant", "flag",
    "ratio", "ratio_q1", "ratio_q3", "bare_seconds", "launches", "reads", "saved", "difference",
)  # fmt: skip
_TEXT = {"measure", "contender", "kind", "cell", "mode", "variant", "flag"}


@dataclass(frozen=True)
class Timings:
    """Everything that was timed.

    Attributes
    ----------
    solves
        One row a situation (cell, mode, device), contender and kind: the medians over its runs.
        ``ratio``, ``ratio_q1`` and ``ratio_q3`` are seconds over those of the bare loop;
        ``flag`` says why a row does not count, else it is empty.
    freezing
        One row a situation and solver: with and without leaving out finished samples.
    looks
        Of every contender.
    """

    solves: pd.DataFrame
    freezing: pd.DataFrame
    looks: Mapping[str, Look]

    @cached_property
    def situations(self) -> list[str]:
        """The situations, in the order of their measurement."""
        return list(dict.fromkeys(str(s) for s in self.solves["situation"]))

    @cached_property
    def fair(self) -> pd.DataFrame:
        """The rows of equal work."""
        return self.solves[self.solves["flag"] == ""]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row a situation, solver of ours and kind, with torchdeq's beside it.

        ``peer`` and ``peer_ratio`` are torchdeq's; ``share`` is our part above 1 over theirs.
        """
        ours = self.fair[self.fair["kind"] != "direct"].copy()
        theirs = self.fair[self.fair["kind"] == "direct"]
        known = theirs.set_index(["situation", "solver_name"])
        known = known[~known.index.duplicated()]
        keys = [(s, PEER + n) for s, n in zip(ours["situation"], ours["solver_name"], strict=True)]
        for name in ("contender", "ratio", "ratio_q1", "ratio_q3"):
            found = [known[name].get(key) for key in keys]
            ours[f"peer_{name}"] = pd.Series(found, index=ours.index, dtype=object)
        ours = ours.dropna(subset=["peer_ratio"])
        ours["peer_ratio"] = ours["peer_ratio"].astype(float)
        above = (ours["peer_ratio"] - 1).clip(lower=_LEAST)
        ours["share"] = (ours["ratio"] - 1).clip(lower=_LEAST) / above
        return ours.reset_index(drop=True)

    def mean_share(self, contender: str, kind: str, device: str) -> float | None:
        """Return our part above 1 over torchdeq's, the geometric mean over a device's cells."""
        rows = self.pairs
        rows = rows[(rows["contender"] == contender) & (rows["kind"] == kind)]
        rows = rows[rows["device"] == device]
        return float(np.exp(np.log(rows["share"]).mean())) if len(rows) else None


def timings(frames: Frames) -> Timings:
    """Return what was timed in the selected runs."""
    points = frames.points.copy()
    extra = [as_mapping(value) for value in points["extra"]]
    for name in _EXTRA:
        column = pd.Series([e.get(name) for e in extra], index=points.index, dtype=object)
        points[name] = column if name in _TEXT else pd.to_numeric(column, errors="coerce")
    sizes = [as_mapping(e.get("sizes")) for e in extra]
    points["sizes"] = pd.Series(sizes, index=points.index, dtype=object)
    points["flag"] = points["flag"].fillna("")
    points["mode"] = points["mode"].fillna("eager")
    # A run has many contenders: what the frames call its solver is none of them.
    names = [e.get("contender") for e in extra]
    points["contender"] = [str(name) if name else "?" for name in names]
    points["solver_name"] = [name.split(" (", maxsplit=1)[0] for name in points["contender"]]
    points["situation"] = _situations(points)
    found = variant_looks(dict.fromkeys(points["contender"]))
    raced = points[points["measure"] == "overhead"]
    return Timings(_solves(raced), _freezing(points[points["measure"] == "freezing"]), found)


def _situations(points: pd.DataFrame) -> list[str]:
    several = points["device"].nunique() > 1
    said = []
    for _, row in points.iterrows():
        sizes: Mapping[str, Any] = row["sizes"]
        text = ", ".join(str(value) for value in sizes.values())
        if row["cell"] != "two_layer":
            text = f"{row['cell']}, batch {sizes.get('batch', '?')}, {row['dim']:.0f} numbers"
        else:
            text = f"({text})"
        if row["mode"] != "eager":
            text += f", {str(row['mode']).replace('_', ' ')}"
        said.append(f"{text}, on {row['device']}" if several else text)
    return said


def _merged(points: pd.DataFrame, by: list[str], numbers: list[str]) -> pd.DataFrame:
    groups = points.groupby(by, sort=False, dropna=False)
    frame = groups[numbers].median()
    for name in ("solver_name", "device", "sizes", "cell", "mode", "flag"):
        if name not in by:
            frame[name] = groups[name].first()
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted({int(run) for run in ids}))
    return frame.reset_index()


def _solves(points: pd.DataFrame) -> pd.DataFrame:
    numbers = ["ratio", "ratio_q1", "ratio_q3", "seconds", "bare_seconds", "evaluations"]
    numbers += ["launches", "reads", "history_bytes", "repeats", "dim"]
    points = points.astype(dict.fromkeys(numbers, float))
    frame = _merged(points, ["situation", "contender", "kind", "flag"], numbers)
    frame["kind_text"] = [KINDS.get(str(kind), str(kind)) for kind in frame["kind"]]
    frame["row"] = [
        contender if kind == "direct" else f"{contender}, {KINDS.get(kind, kind)}"
        for contender, kind in zip(frame["contender"], frame["kind"], strict=True)
    ]
    frame["aim"] = [_aim(row) for _, row in frame.iterrows()]
    frame["reads_aim"] = [
        0.0 if kind == "fixed" else evaluations / 4 + 2 if kind == "checked" else None
        for kind, evaluations in zip(frame["kind"], frame["evaluations"], strict=True)
    ]
    return frame


def _aim(row: pd.Series) -> float | None:
    if row["kind"] == "direct":
        return None
    if str(row["device"]).startswith("cuda"):
        return _GPU_AIMS.get(row["solver_name"])
    sizes = tuple(row["sizes"].get(name) for name in ("batch", "dim", "hidden"))
    aims = _AIMS.get(sizes, {}) if row["cell"] == "two_layer" else {}
    return aims.get(row["solver_name"])


def _freezing(points: pd.DataFrame) -> pd.DataFrame:
    numbers = ["ratio", "ratio_q1", "ratio_q3", "seconds", "bare_seconds", "evaluations", "saved"]
    numbers += ["difference", "sample_evaluations", "batch"]
    points = points.astype(dict.fromkeys(numbers, float))
    frame = _merged(points, ["situation", "contender", "variant"], numbers)
    frozen = frame[frame["variant"] == "frozen"]
    every = frame[frame["variant"] == "all"]
    columns = ["situation", "contender", "seconds", "sample_evaluations"]
    both = frozen.merge(every[columns], on=["situation", "contender"], suffixes=("", "_all"))
    both["f_share"] = both["bare_seconds"] / both["seconds_all"]
    both["met"] = both["flag"] == ""
    return both


def interval(low: float, high: float) -> str:
    """Return an interval of ratios: ``2.31–2.44``."""
    return f"{low:.2f}–{high:.2f}"


def ratio(value: words.Number) -> str:
    """Return a ratio with two decimals; three digits from ten on."""
    if value is None or words.missing(value):
        return "–"
    return f"{value:.2f}" if value < 10 else words.digits(value)
