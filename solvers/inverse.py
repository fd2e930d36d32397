"""What a solver has learnt of the inverse of I − J: an operator that others may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from solvers.history import combine, eye, inner, small_dtype

# Of orthogonal iteration: whatever singular vectors are not told apart by then matter alike.
SWEEPS = 8


@runtime_checkable
class Inverse(Protocol):
    """An estimate of (I − J(z*))⁻¹ for each sample.

    Implementations are named tuples of tensors whose first axis is the batch, so that one may be
    part of a solver's state, and the loop restricts it to the samples that go on.
    """

    def __call__(self, v: Tensor) -> Tensor:
        """Return the estimate of (I − J)⁻¹ v, for v (B, D)."""

    def transpose(self, u: Tensor) -> Tensor:
        """Return the estimate of (I − J)⁻ᵀ u, for u (B, D)."""


class LowRank(NamedTuple):
    """σ I + Yᵀ E X: what the quasi-Newton methods know, Broyden's and Anderson's alike.

    Attributes
    ----------
    scale
        (B,) σ.
    left
        (B, k, D) the rows of Y.
    middle
        (B, k, l) E, in float64.
    right
        (B, l, D) the rows of X; it may share memory with ``left``.
    """

    scale: Tensor
    left: Tensor
    middle: Tensor
    right: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """Return the estimate of (I − J)⁻¹ v, for v (B, D)."""
        return _apply(self.scale, self.left, self.middle, self.right, v)

    def transpose(self, u: Tensor) -> Tensor:
        """Return the estimate of (I − J)⁻ᵀ u, for u (B, D)."""
        return self.flipped(u)

    @property
    def flipped(self) -> LowRank:
        """The transposed operator, of the same memory."""
        return LowRank(self.scale, self.right, self.middle.transpose(1, 2), self.left)

    def reduced(self, rank: int) -> LowRank:
        """Return an operator σ I + UᵀV near this one, with U and V of ``rank`` rows, or less.

        U spans the dominant left singular vectors of YᵀEX, found by orthogonal iteration on the
        triangular factors of the Gram matrices: unlike a singular value decomposition it reads
        nothing from the device.
        """
        rank = min(rank, self.left.shape[1], self.right.shape[1])
        left, before = _units(self.left)
        right, after = _units(self.right)
        core = before[:, :, None] * self.middle * after[:, None, :]
        root = _root(left)
        inner_right = core @ _root(right)
        small = root.mT @ inner_right
        # In the coordinates of orthonormal bases YᵀEX is ``small``, and its nearest operator
        # a aᵀ small. Of a = small c no factor has to be inverted.
        size = torch.linalg.matrix_norm(small, keepdim=True)
        scale = torch.where(size > 0, size, 1.0).square()
        square = small @ small.mT / scale
        a = torch.linalg.qr(square)[0][:, :, :rank]
        for _ in range(SWEEPS):
            last = a
            a, triangle = torch.linalg.qr(square @ a)
        found = torch.linalg.solve_triangular(triangle, small.mT @ last, upper=True, left=False)
        found = torch.nan_to_num(found / scale)
        u = (inner_right @ found).mT.to(left.dtype) @ left
        v = (core.mT @ root @ a).mT.to(right.dtype) @ right
        return outer(self.scale, u, v)


def outer(scale: Tensor, u: Tensor, v: Tensor) -> LowRank:
    """Return σ I + UᵀV for the rows of U and V (B, q, D)."""
    small = torch.zeros(len(u), 0, dtype=small_dtype(u), device=u.device)
    return LowRank(scale, u, eye(small, u.shape[1]), v)


def _units(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors (B, k, D) at unit length, and their lengths (B, k) in float64."""
    length = torch.linalg.vector_norm(vectors, dim=2)
    safe = torch.where(length > 0, length, 1.0)
    return vectors / safe[:, :, None], length.to(small_dtype(vectors))


def _root(units: Tensor) -> Tensor:
    """Return L (B, k, k), lower triangular, with L Lᵀ the Gram matrix of vectors (B, k, D)."""
    gram = torch.nan_to_num((units @ units.mT).to(small_dtype(units)))
    # Vectors may depend on each other: what is added is below the rounding of the Gram matrix.
    noise = 10 * torch.finfo(units.dtype).eps * eye(gram, gram.shape[1])
    root: Tensor = torch.linalg.cholesky_ex(gram + noise)[0]
    return root


def _apply(scale: Tensor, left: Tensor, middle: Tensor, right: Tensor, v: Tensor) -> Tensor:
    x = v.to(right.dtype)
    image = scale[:, None].to(x.dtype) * x
    if left.shape[1]:
        found = inner(x, right).to(middle.dtype) @ middle.transpose(1, 2)
        image = combine(image, found, left)
    return image.to(v.dtype)


def gathered(pieces: Sequence[tuple[Tensor, LowRank]], batch: int) -> LowRank | None:
    """Return the one operator of a batch whose samples (index tensors) have one each.

    Shorter ones are padded with zeros. ``None`` if there are no pieces.
    """
    if not pieces:
        return None
    if len(pieces) == 1 and len(pieces[0][0]) == batch:
        return pieces[0][1]
    first = pieces[0][1]
    k = max(p.left.shape[1] for _, p in pieces)
    m = max(p.right.shape[1] for _, p in pieces)
    dim = first.left.shape[2]
    scale = first.scale.new_ones(batch)
    left, right = first.left.new_zeros(batch, k, dim), first.right.new_zeros(batch, m, dim)
    middle = first.middle.new_zeros(batch, k, m)
    for rows, piece in pieces:
        scale[rows] = piece.scale
        left[rows, : piece.left.shape[1]] = piece.left
        right[rows, : piece.right.shape[1]] = piece.right
        middle[rows, : piece.middle.shape[1], : piece.middle.shape[2]] = piece.middle
    return LowRank(scale, left, middle, right)
