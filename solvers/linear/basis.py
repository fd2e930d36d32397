"""An orthonormal basis a sample, that grows by a vector a product."""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.history import room
from solvers.linear.base import Product


class Basis:
    """Orthonormal vectors of each sample.

    When grad is enabled nothing is written in place.

    Parameters
    ----------
    first
        (B, D) the first vector of each sample.
    most
        How many vectors there will be at most, if that is few: they have their room at once, so
        that there are never two copies of them. ``None`` lets it grow.
    """

    def __init__(self, first: Tensor, most: int | None = None) -> None:
        self._buffer, self._used = first[:, None], 1
        self._most = 0
        if most is not None and not torch.is_grad_enabled():
            self._buffer = first.new_empty(len(first), most, first.shape[1])
            self._buffer[:, 0] = first

    @property
    def vectors(self) -> Tensor:
        """(B, k, D) the vectors."""
        return self._buffer[:, : self._used]

    @property
    def newest(self) -> Tensor:
        """(B, D) the last vector."""
        return self._buffer[:, self._used - 1]

    @property
    def nbytes(self) -> int:
        """The most that the buffer took, in bytes: while it grows, there are two of them."""
        return max(self._most, self._buffer.nbytes)

    def push(self, vector: Tensor) -> None:
        """Append a vector (B, D)."""
        if torch.is_grad_enabled():
            self._buffer = torch.cat((self.vectors, vector[:, None]), dim=1)
        else:
            before = self._buffer
            self._buffer = room(before, self._used)
            if self._buffer is not before:
                self._most = before.nbytes + self._buffer.nbytes
            self._buffer[:, self._used] = vector
        self._used += 1

    def orthogonalise(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Split a vector (B, D) into what is orthogonal to the basis (B, D) and coordinates (B, k).

        Classical Gram–Schmidt, twice: two passes over the basis each, in four kernels.
        """
        # As rows: batched products with columns are an order of magnitude slower on a CPU.
        V, q = self.vectors, vector[:, None]
        first = q @ V.mT
        q = torch.baddbmm(q, first, V, alpha=-1)
        second = q @ V.mT
        q = torch.baddbmm(q, second, V, alpha=-1)
        return q[:, 0], (first + second)[:, 0]


def widened(product: Product, b: Tensor) -> tuple[Product, Tensor]:
    """Return product and b (B, D) such that all but the product itself is in float32 or better."""
    dtype = b.dtype
    if dtype not in (torch.float16, torch.bfloat16):
        return product, b
    return lambda v: product(v.to(dtype)).float(), b.float()


def length(x: Tensor) -> Tensor:
    """Return the lengths (B,) of the rows of x (B, D), with finite derivatives at a zero row."""
    size: Tensor
    if not torch.is_grad_enabled():
        size = torch.linalg.vector_norm(x, dim=1)
        return size
    zero = (x.detach() == 0).all(dim=1)
    size = torch.linalg.vector_norm(torch.where(zero[:, None], 1.0, x), dim=1)
    return size.masked_fill(zero, 0.0)
