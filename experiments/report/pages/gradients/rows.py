"""The measurements of ``gradients``, as all its sections use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from experiments.report import words
from experiments.report.colours import GRADIENTS, Look, looks
from experiments.report.frames import Frames, as_mapping

_TEXT = ("slice", "label", "precision", "solver", "refused")
_FLAGS = ("exact", "elsewhere", "exact_adjoint")
_NUMBERS = (
    "radius", "spectral_radius", "median_radius", "forward", "adjoint", "adjoint_reltol",
    "certificate", "budget", "scale", "change", "spread", "plain", "ratio", "differences",
    "ratio_q1", "ratio_q3", "step", "step_q1", "step_q3", "rounds",
)  # fmt: skip
_COLUMNS = (
    "run_id", "seed", "model", "train_steps", "target", "gradient", "rel_err", "cosine",
    "norm_ratio", "products", "reltol", "forward_seconds", "backward_seconds", "state_err",
    "forward_evaluations", "forward_retcode", "forward_converged", "forward_message",
    "adjoint_retcode", "adjoint_converged", "adjoint_message", "reference", "batch", "dim",
    "device",
)  # fmt: skip
_DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 3), (8, 3, 2, 3))
_SHAPES = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Gradients:
    """Everything that was measured.

    Attributes
    ----------
    rows
        One row a gradient and target, with the columns of ``v_gradients`` and what each slice
        varied. ``case`` is the model, fresh or trained; ``met`` says whether the solves met their
        tolerances.
    refused
        The same of gradients that could not be taken, and why.
    """

    rows: pd.DataFrame
    refused: pd.DataFrame

    def of(self, part: str, target: str = "parameters") -> pd.DataFrame:
        """Return the rows of a slice."""
        rows = self.rows
        return rows[(rows["slice"] == part) & (rows["target"] == target)]

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """The rows of the gradients in parameters."""
        return self.rows[self.rows["target"] == "parameters"]

    @cached_property
    def looks(self) -> Mapping[str, Look]:
        """Of every gradient, by its label."""
        return variants(self.rows["label"])


def variants(labels: Iterable[object]) -> dict[str, Look]:
    """Return a look for each gradient: one colour a method, dash and shape for its options."""
    names = sorted({str(name) for name in labels})
    bases = {name: name.split(" (", maxsplit=1)[0] for name in names}
    colours = looks(bases.values(), GRADIENTS)
    found: dict[str, Look] = {}
    for base, look in colours.items():
        for turn, name in enumerate(n for n in names if bases[n] == base):
            k = turn % len(_DASHES)
            found[name] = Look(look.colour, _DASHES[k], _SHAPES[k])
    return found


def gradients(frames: Frames) -> Gradients:
    """Return what was measured in the selected runs."""
    ids = frames.runs["id"]
    found = frames.store.gradients(f"run_id >= {ids.min()} and run_id <= {ids.max()}")
    found = found[found["run_id"].isin(ids)]
    extra = [as_mapping(value) for value in found["extra"]]
    rows = pd.DataFrame({name: found[name].to_numpy() for name in _COLUMNS})
    for name in _TEXT:
        rows[name] = pd.Series([e.get(name) for e in extra], dtype=object)
    for name in _FLAGS:
        rows[name] = pd.Series([bool(e.get(name)) for e in extra], dtype=bool)
    for name in _NUMBERS:
        rows[name] = pd.to_numeric(pd.Series([e.get(name) for e in extra], dtype=object))
    for name in ("rel_err", "cosine", "norm_ratio", "products", "reltol", "train_steps", "seed"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype(float)
    rows = rows[rows["slice"].notna()].reset_index(drop=True)
    rows["label"] = rows["label"].fillna(rows["gradient"]).astype(object)
    rows["case"] = [
        f"{model}, {'trained' if steps > 0 else 'fresh'}"
        for model, steps in zip(rows["model"], rows["train_steps"], strict=True)
    ]
    forward = pd.to_numeric(rows["forward_converged"], errors="coerce").fillna(1.0)
    backward = pd.to_numeric(rows["adjoint_converged"], errors="coerce").fillna(1.0)
    rows["met"] = (forward >= 1) & (backward >= 1)
    refused = rows["refused"].notna()
    return Gradients(rows[~refused].reset_index(drop=True), rows[refused].reset_index(drop=True))


def place(rows: pd.DataFrame) -> list[str]:
    """Return for each row where it was measured: ``mlp, fresh, ρ = 0.9``, or without a radius."""
    return [
        case if words.missing(radius) else f"{case}, ρ = {radius:g}"
        for case, radius in zip(rows["case"], rows["radius"], strict=True)
    ]


def medians(rows: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Return a row a group with the median of each value, its range, its runs and its number."""
    groups = rows.groupby(list(by), sort=False, dropna=False)
    frame = groups[list(values)].median()
    for value in values:
        frame[f"{value}_lo"] = groups[value].min()
        frame[f"{value}_hi"] = groups[value].max()
    frame["number"] = groups.size()
    frame["met"] = groups["met"].all()
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted({int(run) for run in ids}))
    return frame.reset_index()
