"""Every registered model at a size for tests, and one shape of state for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from implicit import models
from implicit.models import Model
from solvers.problem import Layout, State

VOCABULARY, CLASSES, INPUTS, PIXELS = 5, 3, 4, 16
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"width": 5, "inputs": INPUTS, "classes": CLASSES, "gain": 0.7},
    "transformer": {"width": 4, "inner": 6, "length": 3, "vocabulary": VOCABULARY},
    "universal_transformer": {"width": 4, "inner": 6, "length": 3, "vocabulary": VOCABULARY},
    "trellisnet": {
        "width": 3, "embedding": 3, "vocabulary": VOCABULARY, "gain": 1.5, "injection": 2.0,
        "weight_norm": False,
    },
    "mdeq": {
        "branches": [4, 4], "channels": 1, "size": 4, "classes": CLASSES, "expansion": 2,
        "groups": 2, "final": 6,
    },
    "monotone": {"width": 5, "inputs": INPUTS, "classes": CLASSES},
    "revnet": {"width": 6, "layers": 2, "inputs": INPUTS, "classes": CLASSES},
}  # fmt: skip
TEXT = ("transformer", "universal_transformer", "trellisnet")
EXPLICIT = ("revnet",)
# The universal transformer's cell is the transformer's (test_universal_transformer.py): one is
# enough where a cell is looked at.
SOLVED = [n for n in models.registry.names() if n not in (*EXPLICIT, "universal_transformer")]


class Packed(nn.Module):
    """A cell whose state is a tuple, as one of a state (B, D)."""

    def __init__(self, cell: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.cell, self.layout = cell, layout

    def initial_state(self, *args: Tensor) -> Tensor:
        return self.layout.pack(self.cell.initial_state(*args))  # type: ignore[operator]

    def forward(self, z: Tensor, *args: Tensor) -> Tensor:
        return self.layout.pack(self.cell(self.layout.unpack(z), *args))


def build(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Model:
    """Return a small model, in ``eval()``, with one tensor as its state."""
    torch.manual_seed(seed)
    model = models.registry.get(name, **{**SMALL[name], **options})
    model.module().to(dtype).eval()
    if model.explicit:
        return model
    state = start(model, *model.args(inputs(name, 2)[0].to(dtype if name not in TEXT else None)))
    if not isinstance(state, tuple):
        return model
    layout, readout = Layout(state), model.readout
    if isinstance(readout, nn.Module):
        wrapped: Any = _Unpacked(readout, layout)
    else:
        wrapped = lambda z: readout(layout.unpack(z))  # noqa: E731
    return replace(model, cell=Packed(model.cell, layout), readout=wrapped)


class _Unpacked(nn.Module):
    def __init__(self, readout: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.readout, self.layout = readout, layout

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.readout(self.layout.unpack(z))
        return out


def inputs(name: str, batch: int, seed: int = 1, length: int = 3) -> tuple[Tensor, Tensor]:
    """Return x and target, in float64 where they are real."""
    g = torch.Generator().manual_seed(seed)
    if name in TEXT:
        codes = torch.randint(0, VOCABULARY, (batch, length + 1), generator=g)
        return codes[:, :-1], codes[:, 1:]
    numbers = PIXELS if name == "mdeq" else INPUTS
    x = torch.rand(batch, numbers, generator=g, dtype=torch.float64)
    return x, torch.arange(batch) % CLASSES


def start(model: Model, *args: Tensor) -> State:
    """Return where a solver starts."""
    state: State = model.cell.initial_state(*args)  # type: ignore[operator]
    return state
