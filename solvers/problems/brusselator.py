"""The steady state of the two-dimensional Brusselator, a reaction with diffusion on a torus.

    α Δu + B + u² v − (A + 1) u + forcing = 0
    α Δv + A u − u² v = 0

with A = 3.4, B = 1, α = 10 on an N × N grid of [0, 1]², Δ by five points of distance 1 / (N − 1),
periodic; the forcing is 5 in a disc of radius 0.1 around (0.3, 0.6). The sum of both equations
says that the mean of u is B plus the mean of the forcing.

Reference: E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (1996), section IV.10;
SciML, SciMLBenchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from solvers.problem import RootProblem
from solvers.problems.common import DTYPES, Dtype, Seed, Spread, Starts, reference, root_problem

A, B, ALPHA = 3.4, 1.0, 10.0


@reference("Hairer & Wanner 1996, section IV.10; SciML, SciMLBenchmarks")
def brusselator(
    *,
    N: Annotated[int, Field(ge=4)] = 8,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """The steady two-dimensional Brusselator: a state (2, N, N) of u and v, stiff as N².

    Rounding leaves a residual near 10⁻¹⁶ α N², below which no tolerance can be reached.

    Parameters
    ----------
    N
        Points of the grid in each direction.
    starts, spread, dtype, seed
        The batch of starts around u = 22 (y (1 − y))^1.5, v = 27 (x (1 − x))^1.5.
    """
    points = torch.arange(N, dtype=torch.float64) / (N - 1)
    x, y = points[:, None].expand(N, N), points.expand(N, N)
    # Where grid points lie on the rim (N = 16) rounding decides, as in the published codes.
    inside = (x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.01
    start = torch.stack((22 * (y * (1 - y)) ** 1.5, 27 * (x * (1 - x)) ** 1.5))
    stiffness = ALPHA * (N - 1) ** 2

    def g(z: Tensor, forcing: Tensor) -> Tensor:
        around = sum(z.roll(by, axis) for axis in (-1, -2) for by in (1, -1))
        diffusion = stiffness * (around - 4 * z)
        u, v = z.unbind(-3)
        flow = u * u * v
        reaction = torch.stack((B + flow - (A + 1) * u + forcing, A * u - flow), dim=-3)
        return diffusion + reaction

    def jacobian(z: Tensor, forcing: Tensor) -> Tensor:
        blocks = [torch.diag_embed(slope) for slope in _slopes(*z.flatten(-2).unbind(-2))]
        L = torch.as_tensor(stiffness * _laplacian(N).toarray(), dtype=z.dtype, device=z.device)
        upper = torch.cat((blocks[0] + L, blocks[1]), dim=-1)
        return torch.cat((upper, torch.cat((blocks[2], blocks[3] + L), dim=-1)), dim=-2)

    forcing = 5 * inside.double()
    root = _root(lambda z: g(z, forcing), start, stiffness)
    return root_problem(
        "brusselator",
        g,
        start,
        [root],
        params=(forcing.to(DTYPES[dtype]),),
        jacobian=jacobian,
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


def _slopes(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of the reactions: of the first by u and v, of the second by u, v."""
    return 2 * u * v - (A + 1), u * u, A - 2 * u * v, -u * u


def _laplacian(N: int) -> sparse.csc_matrix:
    """Return the five-point Laplacian on the torus (N², N²), of distance 1."""
    shift = (
        sparse.eye(N, k=1) + sparse.eye(N, k=-1) + sparse.eye(N, k=N - 1) + sparse.eye(N, k=1 - N)
    )
    line = shift - 2 * sparse.eye(N)
    return sparse.csc_matrix(sparse.kron(line, sparse.eye(N)) + sparse.kron(sparse.eye(N), line))


def _root(g: Callable[[Tensor], Tensor], z: Tensor, stiffness: float) -> Tensor:
    """Return the root (2, N, N) that Newton's method finds from z, to rounding."""
    L = stiffness * _laplacian(z.shape[-1])
    before = float("inf")
    while (size := float(torch.linalg.vector_norm(g(z)))) < before:
        best, before = z, size
        a, b, c, d = (sparse.diags(t.numpy()) for t in _slopes(*z.flatten(1)))
        J = sparse.csc_matrix(sparse.bmat([[a + L, b], [c, d + L]]))
        z = z - torch.from_numpy(splu(J).solve(g(z).flatten().numpy())).reshape(z.shape)
    return best
