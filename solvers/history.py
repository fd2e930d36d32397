"""Vectors per sample that the multisecant solvers keep, and what is small beside them.

A product with the history is written ``(1 × D) · (D × k)``: that form of ``bmm`` runs at the
speed of memory, the form ``(k × D) · (D × 1)`` ten times slower on a CPU.

What is small, (B, k) and (B, k, k), is computed in float64: by NumPy where the tensors are on the
host and keep no graph, since it takes half the time there, else by torch. ``small`` and ``wide``
lead from one to the other, and the formulas between them are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.solver import free_reads


def small_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of the small algebra: float64 where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def by_numpy(x: Tensor) -> bool:
    """Whether what is small beside x is computed by NumPy."""
    return free_reads(x) and not torch.is_grad_enabled()


def small(x: Tensor) -> Any:
    """Return x in float64 for the small algebra, as an array if it is done by NumPy.

    Memory is shared with an x that is in float64 already.
    """
    return x.numpy().astype(np.float64, copy=False) if by_numpy(x) else x.to(small_dtype(x))


def wide(x: Any, like: Tensor) -> Tensor:
    """Return the result of small algebra as a tensor of the dtype of ``like``."""
    if isinstance(x, Tensor):
        return x.to(like.dtype)
    return torch.from_numpy(np.ascontiguousarray(x)).to(like.dtype)


def room(buffer: Tensor, used: int, most: int | None = None) -> Tensor:
    """Return ``buffer`` (B, capacity, …) with room for one more entry along its axis 1.

    A full one grows by a third, at least by 8 entries, up to ``most``: little is allocated before
    it is needed, and copying stays small beside the passes that each entry is there for.
    """
    capacity = buffer.shape[1]
    if used < capacity:
        return buffer
    wanted = capacity + max(capacity // 3, 8)
    wanted = wanted if most is None else max(min(wanted, most), used + 1)
    grown = buffer.new_empty(buffer.shape[0], wanted, *buffer.shape[2:])
    grown[:, :capacity] = buffer
    return grown


def head(buffer: Tensor, used: int) -> Tensor:
    """Return the first ``used`` entries of ``buffer`` (B, capacity, …) along its axis 1."""
    return buffer if buffer.shape[1] == used else buffer.narrow(1, 0, used)


def table(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """Return ``matrix`` (B, m, n), or if it is too small a larger copy, padded with zeros."""
    batch, m, n = matrix.shape
    if m >= rows and n >= columns:
        return matrix
    grown = matrix.new_zeros(batch, rows, columns)
    grown[:, :m, :n] = matrix
    return grown


def eye(like: Tensor, size: int) -> Tensor:
    """Return the unit matrix (B, size, size) in the dtype and batch of ``like`` (B, …)."""
    unit = torch.eye(size, dtype=like.dtype, device=like.device)
    return unit.expand(like.shape[0], size, size)


def inner(x: Tensor, vectors: Tensor) -> Tensor:
    """Return the inner products (B, 1, k) of x (B, D) with vectors (B, k, D)."""
    return torch.bmm(x.unsqueeze(1), vectors.transpose(1, 2))


def combine(x: Tensor, weights: Any, vectors: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x + alpha Σᵢ weightsᵢ vectorsᵢ (B, D), with weights (B, 1, k)."""
    weights = wide(weights, vectors)
    return torch.baddbmm(x.unsqueeze(1), weights, vectors, alpha=alpha).squeeze(1)


def bordered(matrix: Tensor, row: Tensor, column: Tensor | None = None) -> Tensor:
    """Return ``matrix`` (B, m, n) with one more row (B, 1, n + 1), and a column (B, m, 1) or zeros.

    Differentiable; the solvers write in place instead where no graph is kept.
    """
    if column is None:
        column = matrix.new_zeros(matrix.shape[0], matrix.shape[1], 1)
    return torch.cat((torch.cat((matrix, column), dim=2), row), dim=1)


def power_below(size: Tensor) -> Tensor:
    """Return the powers of two just below sizes; 1 for one that is zero or no number.

    To divide by them changes no digit.
    """
    known = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
    return torch.exp2(torch.floor(torch.log2(known)))


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products (B, 1) of the rows of x and y (B, D)."""
    return (x * y).sum(dim=1, keepdim=True)
