"""What the literature proves of each method, measured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from maps import EPS, OURS, doubled, pack, residual, tanh_map
from torch import Tensor

import solvers
from solvers import Anderson, Broyden, FixedPointProblem, Newton, NewtonKrylov, Picard
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
    r = residuals(
        solvers.solve(
            problem, Newton(damping=0.5, globalisation="none"), reltol=1e-9, max_evaluations=50
        )
    )
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
    # One vector a step, room for a third more, at least 8; two of each rank in a window.
    steps = solution.stats.iterations
    most = steps + max(steps / 3, 8) if window is None else max(2 * window, 5)
    # Tables beside vectors of 20: its Gram matrix and the factor.
    assert vectors <= most + 2 * most**2 / 20 + 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dim", [50, 200])
def test_anderson_never_needs_more_evaluations_than_picard(dim: int, seed: int) -> None:
    """On a real spectrum [0, 0.9], where an absolute ridge loses at tight tolerances."""
    problem = registry.get(
        "linear", spectrum="one_sided", radius=0.9, dim=dim, batch=1, dtype="float64", seed=seed
    )
    accelerated = [Anderson(window=m) for m in (5, 10, 20)] + [Anderson(kind="I")]
    for exponent in range(1, 11):
        plain, *found = (
            solvers.solve(problem, s, reltol=10.0**-exponent, max_evaluations=500)
            for s in (Picard(), *accelerated)
        )
        assert plain.success
        for solution in found:
            assert solution.success
            assert solution.stats.evaluations <= plain.stats.evaluations
            if exponent >= 5:
                assert solution.stats.evaluations <= plain.stats.evaluations / 3


def krylov_residuals(A: Tensor, r: Tensor, most: int) -> list[float]:
    """The least |r - (I - A) d| with d in the Krylov space of up to ``most`` products."""
    system = torch.eye(len(A), dtype=A.dtype) - A
    basis, found = r[:, None] / r.norm(), [float(r.norm())]
    for _ in range(most):
        image = system @ basis
        left = r - image @ torch.linalg.lstsq(image, r[:, None], driver="gelsd").solution[:, 0]
        found.append(float(left.norm()))
        new = image[:, -1]
        for _ in range(2):
            new = new - basis @ (basis.T @ new)
        basis = torch.cat((basis, new[:, None] / new.norm()), dim=1)
    return found


@pytest.mark.parametrize("spectrum", ["real", "one_sided", "disc", "nonnormal"])
@pytest.mark.parametrize("seed", range(3))
def test_anderson_with_a_full_window_is_gmres(spectrum: str, seed: int) -> None:
    """Its point k + 1 is f at the GMRES iterate k (Walker & Ni 2011, theorem 2.2)."""
    problem = registry.get("linear", spectrum=spectrum, dim=40, batch=1, dtype="float64", seed=seed)
    r = residual(problem, problem.z0)[0]
    for exponent in (2, 4, 6, 8):
        tolerance = 10.0**-exponent * float(r.norm())
        solution = solvers.solve(
            problem, Anderson(window=40), abstol=tolerance, reltol=0.0, max_evaluations=60
        )
        least = krylov_residuals(problem.params[0], r, 39)
        products = next(k for k, x in enumerate(least) if x <= tolerance)
        # z0, f(z0), and a point for each product more: no point lies outside the Krylov space, and
        # f shrinks the residual of a normal A of radius 0.9.
        assert products + 1 <= solution.stats.evaluations
        assert solution.stats.evaluations <= products + (2 if spectrum != "nonnormal" else 3)


@pytest.mark.parametrize("seed", range(4))
def test_broyden_converges_faster_than_linearly(seed: int) -> None:
    """Its order is at least 2^(1/2n) (Gay 1979): the rates fall towards zero."""
    problem = tanh_map(batch=1, dim=2, scale=1.2, seed=seed)
    r = residuals(solvers.solve(problem, Broyden(), reltol=1e-14, max_evaluations=40))
    rates = [b / a for a, b in itertools.pairwise(x for x in r if x > 1e-14)]
    assert min(rates[-2:]) < 0.05
    assert min(rates[-2:]) < 0.5 * min(rates[:2])


def test_anderson_with_a_full_window_is_exact_after_the_dimension() -> None:
    """Without a ridge it is GMRES (Walker & Ni 2011): D + 1 differences solve a linear problem."""
    problem = registry.get("linear", dim=6, batch=3, dtype="float64", spectrum="circle")
    solution = solvers.solve(problem, Anderson(window=20, ridge=0.0), reltol=1e-10)
    assert solution.success
    assert solution.stats.evaluations <= 6 + 3


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_the_window_bounds_the_memory(window: int) -> None:
    # A state beside which the tables of numbers are small.
    lam = torch.linspace(0, 0.95, 4000, dtype=torch.float64)
    b = torch.ones(2, 4000, dtype=torch.float64)
    problem = FixedPointProblem(
        lambda z, b: lam * z + b, torch.zeros_like(b), (b,), samples_independent=True
    )
    solution = solvers.solve(problem, Anderson(window=window), reltol=1e-9, max_evaluations=60)
    vectors = (solution.stats.history_bytes or 0) / (2 * 4000 * 8)
    # The windows, and the last z, f(z) and residual.
    assert vectors <= 2 * window + 3 + 0.5


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
