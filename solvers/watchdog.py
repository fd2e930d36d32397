"""The watchdog: steps may raise the residual for a while, but not for long, nor without bound.

A descent method stops at any local minimum of ‖r‖, and creeps along curved valleys that full steps
of Newton cross at once. So a trial is accepted while ‖r‖ is at most 100 times the first one, as
long as the lowest of the last ``relaxed`` trials is a new minimum; after that the sample returns to
its best point, and from there on the residual has to fall.

Reference: R. Chamberlain, M. J. D. Powell, C. Lemarechal, H. Pedersen, Math. Prog. Study 16 (1982);
L. Grippo, F. Lampariello, S. Lucidi, J. Optim. Theory Appl. 60 (1989), for Newton's method.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROWTH = 100.0
PROGRESS = 1e-3


class Watchdog(NamedTuple):
    """What was seen of each sample.

    Attributes
    ----------
    z, square
        (B, D) and (B,) the best point and its ‖r‖².
    bound
        (B,) the largest ‖r‖² that may be accepted.
    idle
        (B,) trials since the last progress.
    strict
        (B,) bools: the residual has to fall.
    home
        (B,) bools: the best point was proposed again, to go on from there.
    """

    z: Tensor
    square: Tensor
    bound: Tensor
    idle: Tensor
    strict: Tensor
    home: Tensor

    def seen(self, z: Tensor, square: Tensor, relaxed: int) -> Watchdog:
        """Return the watchdog after one more trial; sends home who was idle for too long."""
        better = square < (1 - PROGRESS) * self.square
        idle = torch.where(better, 0, self.idle + 1)
        home = ~self.strict & (idle >= relaxed)
        return self._replace(
            z=torch.where(better[:, None], z, self.z),
            square=torch.where(better, square, self.square),
            idle=idle,
            strict=self.strict | home,
            home=home,
        )

    def lets(self, square: Tensor) -> Tensor:
        """Return (B,) bools: the trial may be accepted although the residual did not fall."""
        return ~self.strict & (square <= self.bound)


def start(z: Tensor, square: Tensor, relaxed: int) -> Watchdog:
    """Return the watchdog at the first point."""
    none = torch.zeros_like(square, dtype=torch.bool)
    idle = torch.zeros_like(square, dtype=torch.long)
    square = square.detach()
    return Watchdog(z, square, GROWTH**2 * square, idle, none | (relaxed == 0), none)
