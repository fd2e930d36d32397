"""What the problems share: their options, random matrices of a known spectrum, float64 Newton."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

Batch = Annotated[int, Field(ge=1)]
Dim = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Dtype = Literal["float32", "float64"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def generator(seed: int) -> torch.Generator:
    """Return a generator of its own, so that the global random state has no influence."""
    return torch.Generator().manual_seed(seed)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(shape, generator=g, dtype=torch.float64)


def orthogonal(g: torch.Generator, dim: int) -> Tensor:
    """Return an orthogonal matrix (dim, dim)."""
    q: Tensor = torch.linalg.qr(normal(g, dim, dim))[0]
    return q


def with_eigenvalues(g: torch.Generator, eigenvalues: Tensor) -> Tensor:
    """Return a symmetric matrix with these real eigenvalues and random eigenvectors."""
    q = orthogonal(g, len(eigenvalues))
    return q @ torch.diag(eigenvalues) @ q.T


def on_circle(g: torch.Generator, dim: int, radius: float) -> Tensor:
    """Return a normal matrix with eigenvalues spread evenly over |λ| = radius.

    They are conjugate pairs at the angles (2k + 1)π / dim, and −radius where ``dim`` is odd.
    """
    blocks = []
    for k in range(dim // 2):
        angle = (2 * k + 1) * math.pi / dim
        c, s = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    if dim % 2:
        blocks.append(torch.tensor([[-1.0]], dtype=torch.float64))
    q = orthogonal(g, dim)
    rotations: Tensor = torch.block_diag(*blocks)
    return radius * (q @ rotations @ q.T)


def tanh_equilibrium(W: Tensor, u: Tensor, *, steps: int = 100) -> Tensor | None:
    """Return z (B, D) with z = tanh(W z + u) to rounding, or ``None`` if Newton does not get there.

    Newton from zero in float64, a step being halved until the residual falls.
    """
    W, u = W.double(), u.double()
    eye = torch.eye(len(W), dtype=torch.float64)

    def size(z: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(torch.tanh(z @ W.T + u) - z, dim=1)
        return length

    z = torch.zeros_like(u)
    before = size(z)
    for _ in range(steps):
        image = torch.tanh(z @ W.T + u)
        slope = 1 - image * image
        direction = torch.linalg.solve(eye - slope[:, :, None] * W, image - z)
        length = torch.ones_like(before)
        for _ in range(30):
            worse = size(z + length[:, None] * direction) >= before
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        if bool(worse.all()):
            break
        z = torch.where(worse[:, None], z, z + length[:, None] * direction)
        before = size(z)
    # The residual of the exact equilibrium, once rounded, is some units of rounding of √D.
    rounding = 4 * torch.finfo(torch.float64).eps * math.sqrt(len(W))
    return z if bool((before <= rounding).all()) else None
