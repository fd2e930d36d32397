"""What the problems share: their options, random matrices of a known spectrum, float64 Newton."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from solvers.problem import RootProblem

F = TypeVar("F", bound=Callable[..., Any])

Batch = Annotated[int, Field(ge=1)]
Dim = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Dtype = Literal["float32", "float64"]
Starts = Annotated[int, Field(ge=1)]
Spread = Annotated[float, Field(ge=0)]

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


def tanh_equilibrium(W: Tensor, u: Tensor, start: Tensor | None = None) -> Tensor | None:
    """Return z (B, D) with z = tanh(W z + u) to rounding, or ``None`` if Newton does not get there.

    Newton in float64 from ``start`` (B, D), a step being halved until the residual falls. Without
    one it starts at zero, and where that fails it follows the equilibria of t W from t = 0 to 1.
    """
    W, u = W.double(), u.double()
    if start is not None:
        return _newton_tanh(W, u, start)
    z = _newton_tanh(W, u, torch.zeros_like(u))
    if z is not None:
        return z
    z, t, step = torch.tanh(u), 0.0, 0.125
    while t < 1 and step > 1e-4:
        near = _newton_tanh((t + step) * W, u, z)
        if near is None:
            step /= 2
        else:
            z, t, step = near, t + step, min(step, 1 - t - step)
    return z if t == 1 else None


def _newton_tanh(W: Tensor, u: Tensor, z: Tensor, *, steps: int = 100) -> Tensor | None:
    eye = torch.eye(len(W), dtype=torch.float64)

    def size(z: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(torch.tanh(z @ W.T + u) - z, dim=1)
        return length

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


def reference(text: str) -> Callable[[F], F]:
    """Say where a problem comes from; ``deq problems`` prints it."""

    def note(build: F) -> F:
        build.reference = text  # type: ignore[attr-defined]
        return build

    return note


def start_points(start: Tensor, *, starts: int, spread: float, dtype: Dtype, seed: int) -> Tensor:
    """Return a batch of starts (starts, …): the first is ``start`` (…), the others are near it.

    They are start + spread · max(1, |start|) · N(0, 1), number by number, from ``seed``. More
    starts leave the first ones as they were.
    """
    start = start.double()
    g, reach = generator(seed), spread * start.abs().clamp(min=1)
    # One by one, since the numbers of a larger draw differ from those of two smaller ones.
    near = [start + reach * normal(g, *start.shape) for _ in range(starts - 1)]
    return torch.stack((start, *near)).to(DTYPES[dtype])


def root_problem(
    name: str,
    g: Callable[..., Tensor],
    start: Sequence[float] | Tensor,
    roots: Sequence[Sequence[float] | Tensor],
    *,
    jacobian: Callable[..., Tensor],
    starts: int,
    spread: float,
    dtype: Dtype,
    seed: int,
    params: tuple[Tensor, ...] = (),
    traps: tuple[str, ...] = (),
) -> RootProblem:
    """Return the problem g = 0 of a batch of starts, each of which may end at any of the roots.

    Parameters
    ----------
    name
        What reports call it.
    g, jacobian
        g(z, *params) (B, …) and its derivative (B, D, D).
    start, roots
        Of one sample, (…) in float64.
    starts, spread, dtype, seed
        See ``start_points``; the dtype is also that of the roots.
    params
        Tensors that g and the jacobian want, in the problem's dtype.
    traps
        See ``solvers.problem.TRAPS``.
    """
    z0 = start_points(double(start), starts=starts, spread=spread, dtype=dtype, seed=seed)
    return RootProblem(
        g,
        z0,
        params=params,
        samples_independent=True,
        solutions=tuple(double(root).to(z0.dtype).expand_as(z0).clone() for root in roots),
        name=name,
        jacobian=jacobian,
        traps=traps,
    )


def double(values: Sequence[float] | Tensor) -> Tensor:
    """Return numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def newton_root(
    g: Callable[[Tensor], Tensor],
    jacobian: Callable[[Tensor], Tensor],
    start: Sequence[float] | Tensor,
    *,
    steps: int = 100,
) -> Tensor:
    """Return the root (n) of g that damped Newton reaches from ``start`` (n), to rounding.

    In float64, a step being halved until the residual falls; it ends where no step makes it fall.
    Where that is no root, the residual says so: see ``vanishes``.
    """
    z = double(start)
    before = torch.linalg.vector_norm(g(z))
    for _ in range(steps):
        direction = torch.linalg.solve_ex(jacobian(z), -g(z))[0]
        length, better = 1.0, False
        for _ in range(30):
            trial = z + length * direction
            after = torch.linalg.vector_norm(g(trial))
            if better := bool(after < before):
                break
            length /= 2
        if not better:
            break
        z, before = trial, after
    return z


def vanishes(g: Callable[[Tensor], Tensor], z: Tensor, *, scale: float = 1.0) -> bool:
    """Whether g(z) is zero up to the rounding of terms of the size ``scale``."""
    bound = 1e3 * torch.finfo(z.dtype).eps * math.sqrt(z.numel()) * scale
    return bool(torch.linalg.vector_norm(g(z)) <= bound)
