"""The explicit network: layers with weights of their own, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from solvers.options import OptionError
from solvers.problem import State

__all__ = ["Stack"]


class Stack(nn.Module):
    """z_L of z_{l+1} = layer_l(z_l, \\*args), each layer with weights of its own.

    Parameters
    ----------
    layers
        Modules with the signature of a cell; the first one's ``initial_state(*args)`` is z_0.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not layers:
            raise OptionError("layers = 0: a network needs at least 1")
        self.layers = nn.ModuleList(layers)

    def initial_state(self, *args: Tensor) -> State:
        """Return z_0."""
        return cast(State, self.layers[0].initial_state(*args))  # type: ignore[operator]

    def forward(self, *args: Tensor, segments: int | None = None) -> State:
        """Return z_L.

        With ``segments``, as Chen et al. (2016), only the states between so many segments are kept
        for the backward, which computes the rest again.
        """
        z = self.initial_state(*args)
        if segments is None or not torch.is_grad_enabled():
            return self._through(z, 0, len(self.layers), args)
        ends = [round(len(self.layers) * k / segments) for k in range(segments + 1)]
        for first, last in itertools.pairwise(ends):
            if last > first:
                z = checkpoint(self._through, z, first, last, args, use_reentrant=False)
        return z

    def _through(self, z: State, first: int, last: int, args: tuple[Tensor, ...]) -> State:
        for layer in self.layers[first:last]:
            z = layer(z, *args)
        return z
