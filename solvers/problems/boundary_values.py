"""Two-point boundary value problems by central differences on n inner points of [0, 1], times h².

The Bratu problem u″ + λ exp(u) = 0, u(0) = u(1) = 0 has the two solutions

    u = −2 ln(cosh((x − ½) θ / 2) / cosh(θ / 4)),    θ = √(2 λ) cosh(θ / 4)

up to λ = 3.5138…, where they meet. The roots are those of the difference equations, found by
Newton from these.

References: G. Bratu, Bull. Soc. Math. France 42 (1914); U. Ascher, R. Mattheij, R. Russell,
Numerical Solution of Boundary Value Problems (1995), p. 491.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from scipy.optimize import brentq
from torch import Tensor

from solvers.options import OptionError
from solvers.problem import FixedPointProblem, RootProblem
from solvers.problems.common import (
    Dtype,
    Seed,
    Spread,
    Starts,
    newton_root,
    reference,
    root_problem,
    vanishes,
)

REFERENCE = "Bratu 1914; Ascher, Mattheij & Russell 1995"

# The fold, where θ tanh(θ / 4) = 4.
CRITICAL = 3.513830719125161
CRITICAL_ANGLE = 4.798714561030936

Size = Annotated[int, Field(ge=3)]
Strength = Annotated[float, Field(ge=0.01, lt=CRITICAL)]
Branch = Literal["lower", "upper"]


def _points(like: Tensor) -> Tensor:
    """Return the inner points (n), like a state (…, n)."""
    n = like.shape[-1]
    return torch.arange(1, n + 1, dtype=like.dtype, device=like.device) / (n + 1)


def _second_difference(z: Tensor, *, left: float = 0.0, right: float = 0.0) -> Tensor:
    """Return h² u″ (…, n) of inner values with these at the ends."""
    ends = torch.zeros_like(z[..., :1])
    whole = torch.cat((ends + left, z, ends + right), dim=-1)
    return whole[..., :-2] - 2 * z + whole[..., 2:]


def _tridiagonal(diagonal: Tensor) -> Tensor:
    """Return (…, n, n) with ones beside the diagonal."""
    beside = torch.ones_like(diagonal[..., 1:])
    return (
        torch.diag_embed(diagonal)
        + torch.diag_embed(beside, offset=1)
        + torch.diag_embed(beside, offset=-1)
    )


def _profile(points: Tensor, strength: float, branch: Branch) -> Tensor:
    """Return the solution of the differential equation at these points."""

    def excess(angle: float) -> float:
        return angle - math.sqrt(2 * strength) * math.cosh(angle / 4)

    # Below strength 0.01 the angle of the upper branch would pass 32.
    ends = (0.0, CRITICAL_ANGLE) if branch == "lower" else (CRITICAL_ANGLE, 40.0)
    angle = brentq(excess, *ends, xtol=1e-15)
    ratio = torch.cosh((points - 0.5) * angle / 2) / math.cosh(angle / 4)
    return -2 * torch.log(ratio)


@reference(REFERENCE)
def bratu(
    *,
    strength: Strength = 2.0,
    branch: Branch = "lower",
    n: Size = 31,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Bratu's problem h² (u″ + λ exp(u)): two branches of solutions, which meet in a fold.

    Parameters
    ----------
    strength
        λ, a dial of difficulty: the Jacobian is singular at the fold, 3.5138… for many points.
    branch
        Where the first start is: at 0, from where Newton finds the lower branch, or at a parabola
        as high as the upper branch. It is also the first of the two solutions.
    n
        Inner points of the grid.
    starts, spread, dtype, seed
        The batch of starts around it.

    Raises
    ------
    OptionError
        If the difference equations have no two roots: then the fold is passed already.
    """

    def g(z: Tensor) -> Tensor:
        return _second_difference(z) + strength / (n + 1) ** 2 * torch.exp(z)

    def jacobian(z: Tensor) -> Tensor:
        return _tridiagonal(strength / (n + 1) ** 2 * torch.exp(z) - 2)

    points = _points(torch.zeros(n, dtype=torch.float64))
    names: tuple[Branch, Branch] = ("lower", "upper")
    profiles = {name: _profile(points, strength, name) for name in names}
    roots = {name: newton_root(g, jacobian, z) for name, z in profiles.items()}
    height = {name: float(z.max()) for name, z in roots.items()}
    if not all(vanishes(g, z) for z in roots.values()) or height["lower"] >= height["upper"]:
        raise OptionError(
            f"strength = {strength}: with n = {n} the difference equations have no two roots;"
            " take a smaller strength or a larger n"
        )
    top = float(profiles["upper"].max()) if branch == "upper" else 0.0
    other: Branch = "upper" if branch == "lower" else "lower"
    return root_problem(
        "bratu",
        g,
        4 * top * points * (1 - points),
        [roots[branch], roots[other]],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference(REFERENCE)
def bratu_picard(
    *,
    strength: Strength = 2.0,
    n: Size = 31,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> FixedPointProblem:
    """Picard's map of Bratu's problem: solve −v″ = λ exp(u) for v.

    It contracts on the lower branch, less and less towards the fold, and repels on the upper one.

    Parameters
    ----------
    strength
        λ, a dial of difficulty.
    n
        Inner points of the grid.
    starts, spread, dtype, seed
        The batch of starts around 0.

    Raises
    ------
    OptionError
        If the difference equations have no two roots: then the fold is passed already.
    """

    def green(like: Tensor) -> Tensor:
        """Return λ h² times the inverse of the second difference (n, n)."""
        x = _points(like)
        least, most = torch.minimum(x[:, None], x), torch.maximum(x[:, None], x)
        return strength / (n + 1) * least * (1 - most)

    def f(z: Tensor) -> Tensor:
        return torch.exp(z) @ green(z).mT

    def jacobian(z: Tensor) -> Tensor:
        return green(z) * torch.exp(z)[..., None, :]

    root = bratu(strength=strength, n=n, starts=starts, spread=spread, dtype=dtype, seed=seed)
    return FixedPointProblem(
        f,
        root.z0,
        samples_independent=True,
        solutions=root.solutions,
        name="bratu_picard",
        jacobian=jacobian,
        traps=root.traps,
    )


@reference("PETSc, SNES tutorial ex2; SciML, NonlinearSolve.jl")
def snes_ex2(
    *,
    n: Size = 128,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """h² (u″ + u² − 6 x − x⁶) with u(0) = 0, u(1) = 1: x³ on every grid, and a root above it.

    Parameters
    ----------
    n
        Inner points of the grid.
    starts, spread, dtype, seed
        The batch of starts around ½.
    """

    def g(z: Tensor) -> Tensor:
        x = _points(z)
        return _second_difference(z, right=1.0) + (z * z - 6 * x - x**6) / (n + 1) ** 2

    def jacobian(z: Tensor) -> Tensor:
        return _tridiagonal(2 * z / (n + 1) ** 2 - 2)

    start = torch.full((n,), 0.5, dtype=torch.float64)
    x = _points(start)
    return root_problem(
        "snes_ex2",
        g,
        start,
        [x**3, newton_root(g, jacobian, 8 * torch.sin(math.pi * x))],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )
