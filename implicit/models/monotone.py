"""The monotone operator equilibrium network of Winston and Kolter (2020).

    z+ = relu(W z + U x + b),    W = (1 − m) I − AᵀA + B − Bᵀ

The symmetric part of I − W is m I + AᵀA ≥ m I, whatever A and B are: training cannot leave the
networks with exactly one fixed point, which the splittings of :mod:`solvers.splitting` find from
anywhere, and near which I − J is regular.
"""

from __future__ import annotations

import math
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from implicit.models import Model
from solvers.proximal import Dense, projected

__all__ = ["Cell", "Margin", "build"]


class Margin(nn.Module):
    """The parametrisation W = (1 − m) I − AᵀA + B − Bᵀ; a solve computes W once.

    Parameters
    ----------
    m
        The margin, above 0.
    """

    def __init__(self, m: float) -> None:
        super().__init__()
        self.m = m

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        """Return W (n, n) for A and B (n, n)."""
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return (1 - self.m) * eye - A.mT @ A + B - B.mT

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """Return an A and a B that give W, as when W is assigned.

        Raises
        ------
        ValueError
            If I − W has not the margin m.
        """
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        square = (1 - self.m) * eye - (W + W.mT) / 2  # AᵀA
        if W.is_meta:
            return torch.empty_like(W), torch.empty_like(W)
        values, vectors = torch.linalg.eigh(square)
        rounding = 10 * W.shape[-1] * torch.finfo(W.dtype).eps * (1 + values.abs().max())
        if values.min() < -rounding:
            raise ValueError(
                f"W leaves I - W a margin of {float(values.min()) + self.m:.3g}, less than"
                f" m = {self.m:g}: lower m, or take from W what is above 1 - m"
            )
        return values.clamp_min(0).sqrt()[:, None] * vectors.mT, (W - W.mT) / 4


class Cell(nn.Module):
    """z+ = relu(W z + u), where u = U x + b; state and injection are (B, width).

    Parameters
    ----------
    width
        Size of the state.
    m
        The margin of I − W.
    gain
        The entries of A and B are N(0, gain² / width).

    Attributes
    ----------
    W
        (width, width) computed from A and B, which are the parameters
        ``parametrizations.W.original0`` and ``original1``.
    """

    W: Tensor

    def __init__(self, width: int, m: float, gain: float) -> None:
        super().__init__()
        self.m = m
        self.W = nn.Parameter((1 - m) * torch.eye(width))
        parametrize.register_parametrization(self, "W", Margin(m))
        for factor in self.factors:
            nn.init.normal_(factor, std=gain / math.sqrt(width))

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B, (width, width)."""
        held = cast(nn.ModuleDict, self.parametrizations)["W"]
        return cast(Tensor, held.original0), cast(Tensor, held.original1)

    def initial_state(self, u: Tensor) -> Tensor:
        """Return zeros (B, width)."""
        return torch.zeros_like(u)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """Return the next state (B, width); offer its parts to a splitting."""
        W = self.W
        return projected(nn.functional.linear(z, W) + u, Dense(W, self.m))


def build(
    *,
    width: Annotated[int, Field(ge=1)] = 64,
    inputs: Annotated[int, Field(ge=1)] | None = None,
    classes: Annotated[int, Field(ge=2)] | None = None,
    m: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5,
    gain: Annotated[float, Field(ge=0)] = 0.35,
    injection: Annotated[float, Field(gt=0)] = 1.0,
) -> Model:
    """Monotone network z+ = relu(W z + U x + b), of one fixed point; a linear classifier behind it.

    A and B are N(0, gain² / width), U is N(0, injection² / inputs), b is 0.

    Measured on 5 seeds × a batch of 64 digits (float64, fresh weights, one core; evaluations of the
    batch to a relative residual of 1e-6 as least, median, most over the seeds, and the median
    milliseconds of a solve). A step of Peaceman-Rachford takes a product with its resolvent besides
    the evaluation: two f-equivalents. A fixed α = 0.5 of forward-backward is not proven to converge
    at m = 0.05, its own choice is.

    =====================  ========================  =====================  =====================
    solver                 m = 0.05                  m = 0.5                m = 1
    =====================  ========================  =====================  =====================
    Picard                 all 5 fail                47, 61, 86; 7.9 ms     30, 42, 55; 5.8 ms
    Picard, mixing 0.5     596, 994, 3293; 146 ms    49, 52, 56; 5.9 ms     23, 24, 26; 2.9 ms
    Anderson, window 10    71, 82, 87; 31 ms         19, 21, 22; 8.3 ms     13, 14, 15; 5.5 ms
    ForwardBackward        1822, 1923, 1949; 210 ms  66, 69, 71; 10 ms      28, 30, 31; 5.4 ms
    ForwardBackward, 0.5   597, 993, 3303; 209 ms    49, 52, 56; 8.1 ms     22, 24, 27; 3.9 ms
    PeacemanRachford       58, 60, 65; 14 ms         18, 19, 19; 5.2 ms     12, 13, 13; 4.0 ms
    =====================  ========================  =====================  =====================

    Parameters
    ----------
    width
        Size of the state.
    inputs
        Numbers in one x; left open, those of the data set, else the 64 of ``digits``.
    classes
        Number of classes, likewise, else 10; the loss is the cross entropy in nats.
    m
        The margin of I − W: the smaller, the longer a solve.
    gain
        Scale of A and B.
    injection
        Scale of U.
    """
    inputs, classes = inputs or 64, classes or 10
    inject = nn.Linear(inputs, width)
    nn.init.normal_(inject.weight, std=injection / math.sqrt(inputs))
    nn.init.zeros_(inject.bias)
    return Model(
        inject=inject,
        cell=Cell(width, m, gain),
        readout=nn.Linear(width, classes),
        loss=nn.functional.cross_entropy,
        data="digits",
        task="classification",
    )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Winston and Kolter, Monotone operator equilibrium networks, NeurIPS 2020 (arXiv:2006.08591)"
)
