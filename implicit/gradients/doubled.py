"""Numbers of twice the precision: sums of two that do not overlap, a high and a low part.

An operation rounds at about ε² in place of ε. Sums and products are split without error into what
floating point gives and what it lost, so all is made of the device's own operations.

Reference: T. J. Dekker, Numer. Math. 18 (1971); D. E. Knuth, The Art of Computer Programming 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Doubled(NamedTuple):
    """high + low, elementwise; low is at most half a unit in the last place of high."""

    high: Tensor
    low: Tensor

    def plus(self, other: Doubled) -> Doubled:
        """Return the sum."""
        total, lost = _sum(self.high, other.high)
        return _tidy(total, lost + (self.low + other.low))

    def minus(self, other: Doubled) -> Doubled:
        """Return the difference."""
        return self.plus(Doubled(-other.high, -other.low))

    def times(self, factor: float) -> Doubled:
        """Return the product with a number."""
        product, lost = _product(self.high, factor)
        return _tidy(product, lost + self.low * factor)

    def over(self, divisor: float) -> Doubled:
        """Return the quotient by a number."""
        quotient = self.high / divisor
        product, lost = _product(quotient, divisor)
        rest = self.minus(Doubled(product, lost))
        return _tidy(quotient, (rest.high + rest.low) / divisor)

    def reshape(self, *shape: int) -> Doubled:
        """Return both parts in another shape."""
        return Doubled(self.high.reshape(*shape), self.low.reshape(*shape))


def precision(dtype: torch.dtype) -> float:
    """Return the rounding of an operation on pairs of this dtype."""
    return float(torch.finfo(dtype).eps) ** 2


def doubled(x: Tensor) -> Doubled:
    """Return a tensor with a low part of zeros."""
    return Doubled(x, torch.zeros_like(x))


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _tidy(high: Tensor, low: Tensor) -> Doubled:
    total = high + low
    return Doubled(total, low - (total - high))


def _product(a: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    b = torch.full((), factor, dtype=a.dtype, device=a.device)
    product = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split into two numbers of half the digits, whose products are exact."""
    bits = 27 if x.dtype == torch.float64 else 12
    moved = (2.0**bits + 1) * x
    high = moved - (moved - x)
    return high, x - high
