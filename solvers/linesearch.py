"""Backtracking along a direction, a trial a turn of the loop, each sample at its own phase.

A trial z + t d of the sample whose residual was r₀ at z is accepted when

    ‖r(z + t d)‖ ≤ (1 − 10⁻⁴ t (1 − η)) ‖r₀‖,    ‖r₀ − (I − J) d‖ ≤ η ‖r₀‖,

so that no derivative is needed: ½‖r‖² falls along d at the rate (1 − η) ‖r₀‖² at least. Else t
becomes the minimiser of the parabola through what is known of ‖r‖², of the cubic from the second
trial on, within [t/10, t/2]; a tenth where the residual is not finite.

Reference: J. Dennis, R. Schnabel, Numerical Methods for Unconstrained Optimization and Nonlinear
Equations (1983), section 6.3.2; S. Eisenstat, H. Walker, SIAM J. Optim. 4 (1994), for the test.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from solvers.history import dot
from solvers.solver import free_reads

ENOUGH = 1e-4
# Trials along a direction, and how many in a row may be not finite before it is the last one.
TRIALS = 8
LOST = 2

State = TypeVar("State", bound=tuple[Any, ...])


class Search(NamedTuple):
    """A search in progress, all per sample.

    Attributes
    ----------
    z, direction
        (B, D) where it started, and d.
    square, promised
        (B,) ‖r₀‖² and 1 − η.
    length, square_now
        (B,) t of the trial that is being evaluated, and ‖r‖² at it once that is known.
    length_before, square_before
        (B,) the same of the trial before it, 0 if there is none.
    trials, lost
        (B,) how many there were, this one included, and of them the last that were not finite.
    """

    z: Tensor
    direction: Tensor
    square: Tensor
    promised: Tensor
    length: Tensor
    length_before: Tensor
    square_before: Tensor
    trials: Tensor
    lost: Tensor

    @property
    def point(self) -> Tensor:
        """(B, D) the trial z + t d."""
        return self.z + self.length[:, None] * self.direction

    @property
    def open(self) -> Tensor:
        """(B,) bools: shorter trials may follow."""
        return (self.trials < TRIALS) & (self.lost < LOST)


def square(r: Tensor) -> Tensor:
    """Return ‖r‖² (B,), with a derivative that is finite at zero."""
    return dot(r, r)[:, 0]


def start(z: Tensor, r: Tensor, direction: Tensor, promised: Tensor, length: float) -> Search:
    """Return the search from z along ``direction``, with ``length`` as the first trial."""
    zero = torch.zeros_like(promised)
    none = torch.zeros_like(zero, dtype=torch.long)
    return Search(
        z,
        direction,
        square(r),
        promised,
        zero + length,
        zero,
        zero,
        none + 1,
        none,
    )


def accepted(search: Search, square_now: Tensor) -> Tensor:
    """Return (B,) bools: the residual at the trial is low enough."""
    factor = 1 - ENOUGH * search.length * search.promised
    return square_now.detach() <= (factor * factor * search.square).detach()


def shortened(search: Search, square_now: Tensor) -> Search:
    """Return the search with a shorter trial, given ‖r‖² at the last one."""
    t, before = search.length, search.length_before
    finite = torch.isfinite(square_now)
    now = torch.where(finite, square_now, 0.0)
    slope = -2 * search.promised * search.square
    # In units of ‖r₀‖², so that nothing here over- or underflows before the residual does.
    unit = torch.where(search.square > 0, search.square, 1.0)
    excess = (now - search.square - slope * t) / unit
    decline = slope / unit
    parabola = -decline * t * t / (2 * torch.where(excess > 0, excess, 1.0))
    parabola = torch.where(excess > 0, parabola, t / 2)

    second = (before > 0) & (search.square_before > 0)
    earlier = torch.where(second, before, 2 * t)
    excess_before = (search.square_before - search.square - slope * earlier) / unit
    one, two = excess / (t * t), excess_before / (earlier * earlier)
    gap = t - earlier
    a = (one - two) / gap
    b = (t * two - earlier * one) / gap
    inside = b * b - 3 * a * decline
    sound = second & (inside > 0) & (a != 0)
    root = torch.where(sound, inside, 1.0).sqrt()
    cubic = (root - b) / (3 * torch.where(sound, a, 1.0))
    following = torch.where(sound, cubic, parabola)
    following = torch.minimum(torch.maximum(following, 0.1 * t), 0.5 * t)
    following = torch.where(finite & torch.isfinite(following), following, 0.1 * t)
    return search._replace(
        length=following,
        length_before=torch.where(finite, t, 0.0),
        square_before=now,
        trials=search.trials + 1,
        lost=torch.where(finite, 0, search.lost + 1),
    )


def where(mask: Tensor, new: State, old: State) -> State:
    """Return the tensors of ``new`` for the samples of ``mask`` (B,), else those of ``old``."""
    return type(new)(
        *(
            torch.where(mask.reshape(-1, *(1,) * (a.dim() - 1)), a, b)
            for a, b in zip(new, old, strict=True)
        )
    )


def any_of(mask: Tensor) -> bool:
    """Whether a sample is in the mask; yes, where finding out would be a read of the device."""
    return not free_reads(mask) or bool(mask.any())
