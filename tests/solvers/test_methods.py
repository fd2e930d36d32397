"""What the literature proves of each method, measured."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import EPS, OURS, doubled, every_dtype, pack, residual, tanh_map
from torch import Tensor

import solvers
from solvers import Anderson, Broyden, FixedPointProblem, Newton, NewtonKrylov, Picard
from solvers.problem import Problem
from solvers.problems import registry

ours = pytest.mark.parametrize("name", OURS)


def residuals(solution: solvers.Solution) -> list[float]:
    assert solution.trace is not None
    return [float(r) for r in solution.trace.residual]


def test_picard_converges_at_the_spectral_radius() -> None:
    problem = registry.get("linear", spectrum="real", radius=0.9, dtype="float64", batch=1)
    r = residuals(solvers.solve(problem, Picard(), reltol=1e-12, max_evaluations=300))
    rate = (r[-1] / r[100]) ** (1 / (len(r) - 101))
    assert abs(rate - 0.9) < 1e-3  # the other eigenvalues have died out by then


def test_mixing_damps() -> None:
    # Slope -1.5: plain iteration diverges, (1 - β) + β (-1.5) = 0 at β = 0.4 is exact.
    problem = FixedPointProblem(lambda z: -1.5 * z + 1, torch.zeros(1, 2, dtype=torch.float64))
    assert not solvers.solve(problem, Picard()).success
    damped = solvers.solve(problem, Picard(mixing=0.4), reltol=1e-14)
    assert damped.success
    assert damped.stats.evaluations == 2
    assert solvers.solve(problem, Anderson(mixing=0.5), reltol=1e-12).success


@pytest.mark.parametrize("which", ["cosine", "quadratic_root", "tanh", "tuple_tanh"])
def test_newton_converges_quadratically(which: str) -> None:
    problem = replace(  # type: ignore[type-var]
        registry.get(which, batch=1, dtype="float64", seed=2), samples_independent=True
    )
    r = residuals(solvers.solve(problem, Newton(), reltol=1e-14, max_evaluations=30))
    # Orders are measured where the residual is small, but above rounding.
    near = [x for x in r if 1e-13 < x < 0.3]
    orders = [
        float(torch.log(torch.tensor(c / b)) / torch.log(torch.tensor(b / a)))
        for a, b, c in zip(near, near[1:], near[2:], strict=False)
    ]
    assert orders
    assert 1.7 < orders[-1] < 2.6


def test_newton_solves_a_linear_problem_in_one_step() -> None:
    for which in ("linear", "affine_root"):
        solution = solvers.solve(registry.get(which, dtype="float64"), Newton(), reltol=1e-12)
        assert solution.success
        assert (solution.stats.evaluations, solution.stats.iterations) == (2, 1)


def test_damped_newton_converges_linearly() -> None:
    problem = registry.get("cosine", batch=1, dtype="float64")
    r = residuals(solvers.solve(problem, Newton(damping=0.5), reltol=1e-9, max_evaluations=50))
    assert abs(r[-1] / r[-2] - 0.5) < 1e-3


def test_newton_krylov_converges_faster_than_linearly() -> None:
    problem = tanh_map(batch=1, dim=30)
    solution = solvers.solve(problem, NewtonKrylov(), reltol=1e-13, max_evaluations=30)
    assert solution.success
    r = residuals(solution)
    rates = [b / a for a, b in itertools.pairwise(r) if b > 1e-13]
    assert rates[-1] < 0.1 * rates[0]
    assert solution.stats.jvps > 0


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_broyden_ends_in_2n_steps_on_a_linear_problem(dim: int, seed: int) -> None:
    """Gay (1979), for any nonsingular matrix."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    b = torch.randn(1, dim, generator=g, dtype=torch.float64)
    problem = FixedPointProblem(lambda z: z @ A.T + b, torch.zeros_like(b))
    # Rounding grows with the steps: half of the digits remain.
    solution = solvers.solve(problem, Broyden(), reltol=1e-8, max_evaluations=100)
    assert solution.success, solution.message
    assert solution.stats.iterations <= 2 * dim


@pytest.mark.parametrize("window", [1, 3, None])
def test_broyden_restarts_when_its_window_is_full(window: int | None) -> None:
    problem = registry.get("tanh", batch=4, dim=20, dtype="float64", scale=0.7)
    solution = solvers.solve(problem, Broyden(window=window), reltol=1e-9, max_evaluations=300)
    assert solution.success
    vectors = (solution.stats.history_bytes or 0) / (4 * 20 * 8)
    # The last z and r, and two vectors a step; buffers double from 4.
    used = solution.stats.iterations if window is None else window
    assert vectors <= 2 + 2 * max(4, 2 * used)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("exponent", range(1, 11))
def test_anderson_never_needs_more_evaluations_than_picard(exponent: int, seed: int) -> None:
    """On a real spectrum [0, 0.9], where an absolute ridge loses at tight tolerances."""
    problem = replace(  # type: ignore[type-var]
        registry.get(
            "linear", spectrum="one_sided", radius=0.9, dim=60, batch=2, dtype="float64", seed=seed
        ),
        samples_independent=True,
    )
    reltol = 10.0**-exponent
    count = {
        type(s).__name__: solvers.solve(problem, s, reltol=reltol, max_evaluations=500)
        for s in (Picard(), Anderson())
    }
    assert all(s.success for s in count.values())
    picard, anderson = (count[n].stats.evaluations for n in ("Picard", "Anderson"))
    assert anderson <= picard
    if exponent >= 5:
        assert anderson <= picard / 3


def test_anderson_with_a_full_window_is_exact_after_the_dimension() -> None:
    """Without a ridge it is GMRES (Walker & Ni 2011): D + 1 differences solve a linear problem."""
    problem = registry.get("linear", dim=6, batch=3, dtype="float64", spectrum="circle")
    solution = solvers.solve(problem, Anderson(window=20, ridge=0.0), reltol=1e-10)
    assert solution.success
    assert solution.stats.evaluations <= 6 + 3


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_the_window_bounds_the_memory(window: int) -> None:
    problem = tanh_map(batch=2, dim=40, scale=0.95)
    solution = solvers.solve(problem, Anderson(window=window), reltol=1e-9, max_evaluations=400)
    vectors = (solution.stats.history_bytes or 0) / (2 * 40 * 8)
    assert vectors <= 2 * window + 2


def test_a_larger_window_needs_fewer_evaluations() -> None:
    problem = registry.get(
        "linear", spectrum="one_sided", radius=0.99, dim=60, batch=1, dtype="float64"
    )
    counts = [
        solvers.solve(
            problem, Anderson(window=m), reltol=1e-8, max_evaluations=2000
        ).stats.evaluations
        for m in (1, 5, 20)
    ]
    assert counts[0] > counts[1] > counts[2]


def scaled(problem: Problem, c: float) -> Problem:
    """The problem of c f(· / c): powers of two change no digit."""
    assert isinstance(problem, FixedPointProblem)

    def f(z: Tensor, *tensors: Tensor) -> Tensor:
        out: Tensor = problem.f(z / c, *tensors)
        return c * out

    return replace(problem, f=f, z0=problem.z0 * c, solutions=())


@pytest.mark.parametrize("which", ["tanh", "linear", "cosine"])
@pytest.mark.parametrize("power", [-40, 40])
@every_dtype
@ours
def test_units_have_no_influence(name: str, dtype: str, power: int, which: str) -> None:
    problem = registry.get(which, batch=4, dtype=dtype, seed=3)
    reltol = {"float32": 1e-5, "float64": 1e-10}[dtype]
    solver: Any = solvers.registry.get(name)
    plain = solvers.solve(scaled(problem, 1.0), solver, reltol=reltol, max_evaluations=300)
    c = 2.0**power
    other = solvers.solve(scaled(problem, c), solver, reltol=reltol, max_evaluations=300)
    assert plain.retcode.tolist() == other.retcode.tolist()
    assert plain.stats.sample_evaluations.tolist() == other.stats.sample_evaluations.tolist()
    assert torch.equal(other.value / c, plain.value)
    assert torch.equal(other.residual / c, plain.residual)


@pytest.mark.parametrize("which", ["tanh", "linear"])
@ours
def test_float32_goes_as_far_as_float32_can(name: str, which: str) -> None:
    problem = (
        registry.get(which, batch=4, dtype="float32", scale=0.5)
        if which == "tanh"
        else (registry.get(which, batch=4, dtype="float32"))
    )
    solution = solvers.solve(
        problem, solvers.registry.get(name), reltol=5 * EPS["float32"], max_evaluations=500
    )
    # Where the test asks for five units of rounding, ten are reached by everyone.
    size = pack(problem, solution.value).norm(dim=1)
    assert (solution.residual <= 10 * EPS["float32"] * size).all()
    wide = doubled(problem)
    exact = residual(wide, pack(wide, solution.value.double())).norm(dim=1)
    assert (exact <= 15 * EPS["float32"] * size).all()
