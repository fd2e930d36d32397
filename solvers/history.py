"""A growing window of vectors per sample, as the multisecant solvers keep it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class History(NamedTuple):
    """The newest vectors of each sample.

    Attributes
    ----------
    buffer
        (B, capacity, D); nothing is allocated before it is needed.
    used
        Vectors in use.
    newest
        Where the newest one stands; the order of the others does not matter.
    """

    buffer: Tensor
    used: int
    newest: int

    @property
    def vectors(self) -> Tensor:
        """(B, used, D) the vectors in use."""
        return self.buffer[:, : self.used]

    def push(self, vector: Tensor, window: int | None = None) -> History:
        """Return the history with ``vector`` (B, D), in place of the oldest beyond ``window``.

        Writes in place when grad is disabled.
        """
        full = window is not None and self.used >= window
        if torch.is_grad_enabled():
            kept = self.vectors[:, 1:] if full else self.vectors
            buffer = torch.cat((kept, vector[:, None]), dim=1)
            return History(buffer, buffer.shape[1], buffer.shape[1] - 1)
        buffer, used = self.buffer, self.used
        if full:
            slot = (self.newest + 1) % used
        else:
            slot = used
            if slot == buffer.shape[1]:
                capacity = max(2 * slot, 4)
                capacity = capacity if window is None else min(capacity, window)
                grown = buffer.new_empty(buffer.shape[0], capacity, buffer.shape[2])
                grown[:, :slot] = buffer
                buffer = grown
            used += 1
        buffer[:, slot] = vector
        return History(buffer, used, slot)


def empty(z: Tensor) -> History:
    """Return a history without vectors, for states like z (B, D)."""
    return History(z.new_empty(z.shape[0], 0, z.shape[1]), 0, -1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products (B, 1) of the rows of x and y (B, D)."""
    return (x * y).sum(dim=1, keepdim=True)
