"""Chandrasekhar's H-equation, as a root and as a fixed point.

    1 / x_i = 1 − Σ_j K_ij x_j,    K_ij = (c / 2n) μ_i / (μ_i + μ_j),    μ_i = i / n

With a = c / 2n Σ x every solution has a = 1 ± √(1 − c): there are two, which meet at c = 1, where
the Jacobian is singular. Adding a on both sides gives the form of which the roots are found here,
since it stays regular at c = 1:

    1 / x_i = ± √(1 − c) + Σ_j (c / 2n) μ_j / (μ_i + μ_j) x_j

Reference: S. Chandrasekhar, Radiative Transfer (1960); C. T. Kelley, Iterative Methods for Linear
and Nonlinear Equations (1995), section 5.6.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from solvers.problem import FixedPointProblem, RootProblem
from solvers.problems.common import (
    Dtype,
    Seed,
    Spread,
    Starts,
    newton_root,
    reference,
    root_problem,
)

REFERENCE = "Chandrasekhar 1960; Kelley 1995, section 5.6"

Albedo = Annotated[float, Field(gt=0, le=1)]
Size = Annotated[int, Field(ge=1)]


def _kernel(like: Tensor, n: int, c: float) -> Tensor:
    """Return K (n, n)."""
    mu = torch.arange(1, n + 1, dtype=like.dtype, device=like.device)
    return c / (2 * n) * mu[:, None] / (mu[:, None] + mu)


def _roots(n: int, c: float) -> list[Tensor]:
    """Return the solutions (n) in float64: two, or the one that there is at c = 1.

    Both are followed from c = 1 to c, in equal steps of ± √(1 − c). Below c = 0.1 the larger one
    is so near a pole that rounding may hide it; then it is left out.
    """
    like = torch.empty(0, dtype=torch.float64)

    def root(base: float, c: float, start: Tensor) -> Tensor:
        K = _kernel(like, n, c).T
        return newton_root(
            lambda x: base + K @ x - 1 / x, lambda x: K + torch.diag(1 / (x * x)), start
        )

    middle = root(0.0, 1.0, torch.full((n,), 2.0, dtype=torch.float64))
    if c == 1:
        return [middle]
    found = []
    for sign in (1, -1):
        z, last = middle, 0.0
        for step in range(1, 17):
            base = sign * math.sqrt(1 - c) * step / 16
            # The sum of a solution is proportional to (1 − base) / c = 1 / (1 + base).
            z = root(base, c if step == 16 else 1 - base * base, z * (1 + last) / (1 + base))
            last = base
        mean = c / (2 * n) * float(z.sum())
        if abs(mean - (1 - last)) < 1e-10:
            found.append(z)
    return found


def _image(z: Tensor, c: float) -> Tensor:
    return 1 / (1 - z @ _kernel(z, z.shape[-1], c).mT)


def _slope(z: Tensor, c: float) -> Tensor:
    image = _image(z, c)
    return (image * image)[..., None] * _kernel(z, z.shape[-1], c)


@reference(REFERENCE)
def chandrasekhar_h(
    *,
    n: Size = 10,
    c: Albedo = 0.9,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Chandrasekhar's H-equation as a root: x − 1 / (1 − K x).

    Parameters
    ----------
    n
        Size of the state.
    c
        The albedo: at 1 two roots meet in a singular one.
    starts, spread, dtype, seed
        The batch of starts around 1.
    """
    return root_problem(
        "chandrasekhar_h",
        lambda z: z - _image(z, c),
        torch.ones(n),
        _roots(n, c),
        jacobian=lambda z: torch.eye(n, dtype=z.dtype, device=z.device) - _slope(z, c),
        traps=("many_roots",) if c < 1 else ("singular_root",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference(REFERENCE)
def h_equation(
    *,
    n: Size = 10,
    c: Albedo = 0.9,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> FixedPointProblem:
    """Chandrasekhar's H-equation as a fixed point x = 1 / (1 − K x), harder as c nears 1.

    Parameters
    ----------
    n
        Size of the state.
    c
        The albedo, a dial of difficulty: plain iteration contracts below 1 and is sublinear at 1.
    starts, spread, dtype, seed
        The batch of starts around 1.
    """
    root = chandrasekhar_h(n=n, c=c, starts=starts, spread=spread, dtype=dtype, seed=seed)
    return FixedPointProblem(
        lambda z: _image(z, c),
        root.z0,
        samples_independent=True,
        solutions=root.solutions,
        name="h_equation",
        jacobian=lambda z: _slope(z, c),
        traps=root.traps,
    )
