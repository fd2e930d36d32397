"""Matrices with prescribed eigenvalues: what decides how far a linear iteration can be sped up."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from solvers.options import OptionError
from solvers.problems.common import normal, on_circle, orthogonal, with_eigenvalues

Spectrum = Literal["real", "one_sided", "disc", "circle", "low_rank", "nonnormal", "ginibre"]

# Turns of this share fill a disc evenly (the sunflower's).
GOLDEN = (math.sqrt(5) - 1) / 2


def matrix(
    spectrum: Spectrum, dim: int, *, radius: float, rank: int, strength: float, g: torch.Generator
) -> Tensor:
    """Return a matrix (dim, dim) in float64 with the eigenvalues that ``spectrum`` says.

    Parameters
    ----------
    spectrum
        See ``linear``.
    radius
        The spectral radius.
    rank
        Number of eigenvalues that are not 0, of ``low_rank``.
    strength
        Size of the part above the diagonal, of ``nonnormal``.
    g
        Where the eigenvectors, and all numbers of ``ginibre``, come from.

    Raises
    ------
    OptionError
        If the rank is larger than the matrix.
    """
    if spectrum == "circle":
        return on_circle(g, dim, radius)
    if spectrum == "disc":
        q = orthogonal(g, dim)
        return q @ _over_the_disc(dim, radius) @ q.T
    if spectrum == "ginibre":
        G = normal(g, dim, dim)
        return G * (radius / float(spectral_radius(G)))
    if spectrum == "low_rank":
        if rank > dim:
            raise OptionError(f"rank = {rank}: expected at most dim = {dim}")
        eigenvalues = torch.zeros(dim, dtype=torch.float64)
        eigenvalues[:rank] = radius * torch.arange(1, rank + 1, dtype=torch.float64) / rank
        return with_eigenvalues(g, eigenvalues)
    low = 0.0 if spectrum == "one_sided" else -radius
    eigenvalues = torch.linspace(low, radius, dim, dtype=torch.float64)
    if spectrum != "nonnormal":
        return with_eigenvalues(g, eigenvalues)
    q = orthogonal(g, dim)
    upper = strength / math.sqrt(dim) * torch.triu(normal(g, dim, dim), diagonal=1)
    return q @ (torch.diag(eigenvalues) + upper) @ q.T


def _over_the_disc(dim: int, radius: float) -> Tensor:
    """Return a block diagonal matrix whose eigenvalues are spread evenly over |λ| ≤ radius.

    They are conjugate pairs of |λ|² in equal steps, and −radius where ``dim`` is odd.
    """
    blocks, pairs = [], dim // 2
    for k in range(1, pairs + 1):
        size, angle = radius * math.sqrt(k / pairs), math.pi * (k * GOLDEN % 1)
        c, s = size * math.cos(angle), size * math.sin(angle)
        blocks.append(torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    if dim % 2:
        blocks.append(torch.tensor([[-radius]], dtype=torch.float64))
    joined: Tensor = torch.block_diag(*blocks)
    return joined


def spectral_radius(matrices: Tensor) -> Tensor:
    """Return the largest |λ| (…) of matrices (…, D, D)."""
    largest: Tensor = torch.linalg.eigvals(matrices).abs().amax(-1)
    return largest
