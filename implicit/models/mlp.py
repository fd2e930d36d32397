"""The weight-tied, input-injected layer of Bai, Kolter and Koltun (2019).

    z+ = tanh(W z + U x + b)

is the simplest deep equilibrium model: L evaluations from z0 = 0 are a network of L layers that
share their weights, and its fixed point depends on x only through the injection U x + b.

Two networks beside it show what sharing and injection do. Without injection,

    z_0 = U x + b,    z+ = tanh(W z + b')

forgets x with depth: where that is a contraction, all x have the same fixed point, and no gradient
reaches U. With layers of their own, z_{l+1} = tanh(W_l z_l + …), it is the plain deep network.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from implicit.models import Model
from implicit.models.stack import Stack

__all__ = ["Cell", "build"]


class Cell(nn.Module):
    """z+ = tanh(W z + u), where u = U x + b; state and injection are (B, width).

    Without injection z+ = tanh(W z + b'), from z_0 = u.

    Parameters
    ----------
    width
        Size of the state.
    gain
        The entries of W are N(0, gain² / width): W has spectral radius near ``gain``.
    injected
        Whether u is added at each evaluation.
    """

    def __init__(self, width: int, gain: float, *, injected: bool = True) -> None:
        super().__init__()
        self.W = nn.Parameter(gain / math.sqrt(width) * torch.randn(width, width))
        self.b = None if injected else nn.Parameter(torch.zeros(width))

    def initial_state(self, u: Tensor) -> Tensor:
        """Return zeros (B, width), or u without injection."""
        return torch.zeros_like(u) if self.b is None else u

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """Return the next state (B, width)."""
        return torch.tanh(nn.functional.linear(z, self.W) + (u if self.b is None else self.b))


def build(
    *,
    width: Annotated[int, Field(ge=1)] = 64,
    inputs: Annotated[int, Field(ge=1)] | None = None,
    classes: Annotated[int, Field(ge=2)] | None = None,
    gain: Annotated[float, Field(ge=0)] = 0.95,
    injection: Annotated[float, Field(gt=0)] = 1.0,
    injected: bool = True,
    layers: Annotated[int, Field(ge=1)] | None = None,
) -> Model:
    """Weight-tied, input-injected layer z+ = tanh(W z + U x + b), a linear classifier behind it.

    W is N(0, gain² / width), U is N(0, injection² / inputs), b is 0. ``gain`` is the dial of
    difficulty: the Jacobian diag(1 - z*²) W has a spectral radius ρ somewhat below it, the lower
    the larger the injection. Its eigenvalues fill a disc, on which Krylov-type solvers (Anderson,
    Broyden, GMRES) win only because the state has few dimensions.

    Measured on 5 seeds × 16 digits (float64, fresh weights, ρ of 20 samples; evaluations to a
    relative residual of 1e-6 as least, median, most over the samples; Anderson with window 10):

    ====  ==========  ===================  ======================
    gain  ρ           Picard               Anderson
    ====  ==========  ===================  ======================
    0.50  0.38..0.49  15, 17, 21           14, 16, 17
    0.80  0.60..0.75  25, 30, 52           21, 25, 30
    0.95  0.66..0.88  30, 42, 102          25, 30, 39
    1.10  0.72..0.99  2 of 80 not in 400   28, 36, 53
    1.50  0.92..1.14  61 of 80 not in 400  3 of 80 not in 200
    ====  ==========  ===================  ======================

    Parameters
    ----------
    width
        Size of the state.
    inputs
        Numbers in one x; left open, those of the data set, else the 64 of ``digits``.
    classes
        Number of classes, likewise, else 10; the loss is the cross entropy in nats.
    gain
        Scale of W.
    injection
        Scale of U.
    injected
        Whether each evaluation sees x; else only the start of the iteration does, and what learns
        from it is the unrolled network, for an equilibrium has no derivative in its start.
    layers
        So many layers, each with a W of its own, instead of the equilibrium; U x + b is that of
        all.
    """
    inputs, classes = inputs or 64, classes or 10
    inject = nn.Linear(inputs, width)
    nn.init.normal_(inject.weight, std=injection / math.sqrt(inputs))
    nn.init.zeros_(inject.bias)
    cells = [Cell(width, gain, injected=injected) for _ in range(layers or 1)]
    return Model(
        inject=inject,
        cell=cells[0] if layers is None else Stack(cells),
        readout=nn.Linear(width, classes),
        loss=nn.functional.cross_entropy,
        data="digits",
        explicit=layers is not None,
        task="classification",
    )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Bai, Kolter and Koltun, Deep Equilibrium Models, NeurIPS 2019 (arXiv:1909.01377)"
)
