"""The explicit twin: a Transformer-XL, whose layers have weights of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from implicit.models.stack import Stack
from implicit.models.transformer.cell import Layer, normalised
from solvers.problem import State

__all__ = ["Layers", "Outermost"]


class Layers(Stack):
    """z_L of z_{l+1} = layer_l(z_l, h_l), from the embedding z_0 = e; pre-LN: LN(z_L).

    With histories h_l (B, m, width) it returns (z_L, z_0, …, z_{L-1}), the last ones without a
    graph, for each layer remembers its own input.
    """

    layers: Sequence[Layer]  # type: ignore[assignment]

    def _through(self, z: State, first: int, last: int, args: tuple[Tensor, ...]) -> State:
        _, *history = args
        h, *inputs = z if isinstance(z, tuple) else (z,)
        for k in range(first, last):
            layer = self.layers[k]
            if history:
                inputs.append(h.detach())
            h = layer(h, history[k]) if history else layer(h)
        if last == len(self.layers) and self.layers[0].norm == "pre":
            h = normalised(h)
        return (h, *inputs) if history else h


class Outermost(nn.Module):
    """(z_L, z_0, …) -> z_L."""

    def forward(self, z: State) -> Tensor:
        """Return the state behind all layers."""
        return z[0] if isinstance(z, tuple) else z


def remember(memory: int, z: State, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the last ``memory`` positions of the inputs of all layers."""
    _, *history = args
    _, *inputs = z
    pairs = zip(history, inputs, strict=True)
    return tuple(torch.cat(pair, dim=1)[:, -memory:] for pair in pairs)
