"""Newton and Newton–Krylov: from afar, at singular Jacobians, sample by sample, no more than asked.

The 23 systems of the nonlinear-test literature are solved from their standard starts in float64,
to max |g| <= 1e-8 by our own test.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import codes, jacobian, residual, sub, tanh_map
from torch import Tensor

import solvers
from solvers import (
    Broyden,
    Fallback,
    FixedPointProblem,
    Newton,
    NewtonKrylov,
    ReturnCode,
    RootProblem,
    Solution,
)
from solvers.loop import Settings, run
from solvers.problem import Problem
from solvers.problems import STANDARD, registry

NUMBER = {name: k + 1 for k, name in enumerate(STANDARD)}

CONFIGURATIONS: dict[str, solvers.BaseSolver] = {
    "full steps": Newton(globalisation="none"),
    "line search": Newton(globalisation="line_search", relaxed=0),
    "trust region": Newton(globalisation="trust_region", relaxed=0),
    "relaxed line search": Newton(globalisation="line_search"),
    "newton": Newton(),
    "newton_krylov": NewtonKrylov(),
    "fallback": Fallback(),
}


@functools.cache
def standard(configuration: str, name: str) -> Solution:
    return solvers.solve(
        registry.get(name),
        CONFIGURATIONS[configuration],
        abstol=1e-8,
        reltol=0.0,
        norm="linf",
        max_evaluations=1000,
    )


def unsolved(configuration: str) -> set[int]:
    """The numbers of the systems whose returned point, evaluated anew, is no root."""
    numbers = set()
    for name in STANDARD:
        problem, solution = registry.get(name), standard(configuration, name)
        size = float(residual(problem, solution.value).abs().max())
        assert solution.success == (size <= 1e-8)
        if size > 1e-8:
            numbers.add(NUMBER[name])
    return numbers


# -- the 23 systems --------------------------------------------------------------------------------


def test_full_steps_overflow_where_a_chain_squares_them() -> None:
    # 1 squares its error from variable to variable, 8 lands at 1e28 by its product of ten.
    assert unsolved("full steps") == {1, 8}


def test_descent_stops_at_local_minima() -> None:
    # 21 has its only minimum of the residual besides the root on the way (MINPACK stops there).
    assert unsolved("line search") == {1, 21}
    # 15 and 16, of condition 4e10, ask for steps of length 50 that a region grown from small steps
    # does not reach.
    assert unsolved("trust region") == {15, 16, 21}


def test_newton_solves_all_of_them() -> None:
    assert unsolved("newton") == set()
    # As many evaluations as full steps where those succeed: a first trial that is accepted is free.
    for name in STANDARD:
        if NUMBER[name] not in {1, 8}:
            full, newton = (standard(c, name).stats for c in ("full steps", "newton"))
            assert newton.evaluations == full.evaluations, name
    counts = [standard("newton", name).stats.evaluations for name in STANDARD]
    assert sum(counts) <= 300  # 269, with room for the rounding of another machine


def test_newton_krylov_solves_all_but_two() -> None:
    # The chain of 1, and the trigonometric 11 with its many minima, which inexact steps meet.
    assert unsolved("newton_krylov") <= {1, 11}


def test_the_default_solves_all_of_them() -> None:
    assert unsolved("fallback") == set()


# -- orders of convergence -------------------------------------------------------------------------


def sizes(solution: Solution) -> list[float]:
    assert solution.trace is not None
    return [float(r) for r in solution.trace.residual]


def order(r: list[float], floor: float) -> float:
    near = [x for x in r if floor < x < 0.3]
    a, b, c = near[-3:]
    return math.log(c / b) / math.log(b / a)


@pytest.mark.parametrize("globalisation", ["none", "line_search", "trust_region"])
@pytest.mark.parametrize("name", ["broyden_banded", "discrete_integral", "chandrasekhar_h"])
def test_newton_is_of_second_order(name: str, globalisation: Any) -> None:
    solution = solvers.solve(
        registry.get(name), Newton(globalisation=globalisation), reltol=1e-14, max_evaluations=30
    )
    assert 1.7 < order(sizes(solution), 1e-14) < 2.6


def test_newton_krylov_is_of_the_order_of_its_forcing() -> None:
    # Choice 2 converges with the order alpha (Eisenstat & Walker 1996, theorem 2.3).
    problem = tanh_map(batch=1, dim=60, scale=0.9)
    solution = solvers.solve(
        problem, NewtonKrylov(inner=60), reltol=1e-14, max_evaluations=40, norm="l2"
    )
    assert solution.success
    r = [x for x in sizes(solution) if x > 1e-13]
    rates = [b / a for a, b in itertools.pairwise(r)]
    assert all(b < a for a, b in itertools.pairwise(rates[1:]))  # faster and faster
    assert rates[-1] < 0.05


# -- what a solve costs ----------------------------------------------------------------------------


def test_newton_krylov_does_not_solve_beyond_the_tolerance() -> None:
    """The last linear system is solved to half of what is asked, no further."""
    problem = tanh_map(batch=1, dim=100, scale=0.9)

    def solved(solver: NewtonKrylov, reltol: float) -> Solution:
        solution = solvers.solve(problem, solver, reltol=reltol, max_evaluations=60)
        assert solution.success
        return solution

    class Unaimed(NewtonKrylov):
        """Is not told the tolerance."""

        def aim(self, state: Any, tolerance: Tensor) -> Any:
            return state

    tolerances = [10.0**-k for k in range(2, 12)]
    aimed = [solved(NewtonKrylov(inner=100), t) for t in tolerances]
    unaimed = [solved(Unaimed(inner=100), t) for t in tolerances]
    counts = [s.stats.jvps for s in aimed]
    assert counts == sorted(counts)  # less is asked, less is done
    assert all(a.stats.jvps <= u.stats.jvps for a, u in zip(aimed, unaimed, strict=True))
    assert sum(counts) < 0.95 * sum(u.stats.jvps for u in unaimed)
    # What is asked is reached, and not much more.
    for reltol, solution in zip(tolerances, aimed, strict=True):
        assert float(solution.residual / solution.scale) > 0.01 * reltol


def test_an_inverse_saves_products_and_changes_no_answer() -> None:
    """Broyden's, of the same problem, as a right preconditioner; J has the radius 0.95."""
    problem = registry.get("tanh", batch=1, dim=100, injection=0.3, scale=1.1, dtype="float64")
    known = solvers.solve(problem, Broyden(), reltol=1e-6, max_evaluations=200, keep_inverse=True)
    assert known.success
    start = replace(known, value=problem.z0)  # the inverse alone
    solver = NewtonKrylov(inner=100)
    keywords: Any = {"reltol": 1e-9, "max_evaluations": 60}
    plain = solvers.solve(problem, solver, **keywords)
    helped = solvers.solve(problem, solver, start=start, **keywords)
    assert plain.success
    assert helped.success
    assert helped.stats.jvps < 0.7 * plain.stats.jvps
    assert isinstance(helped.value, Tensor)
    assert isinstance(plain.value, Tensor)
    # Two residuals of 1e-9 |f|, over the smallest singular value of I - J.
    slope = torch.linalg.svdvals(jacobian(problem, plain.value))[:, -1]
    bound = 2e-9 * float(plain.scale.max()) / float(slope)
    assert float((helped.value - plain.value).norm()) < bound


def test_memory_counts_the_basis() -> None:
    dim = 80
    problem = tanh_map(batch=2, dim=dim, scale=0.9)
    small, large = (
        solvers.solve(problem, NewtonKrylov(inner=k), reltol=1e-8, max_evaluations=200)
        for k in (4, 40)
    )
    vector = 2 * dim * 8
    assert (small.stats.history_bytes or 0) >= 5 * vector
    assert (large.stats.history_bytes or 0) >= 15 * vector
    newton = solvers.solve(problem, Newton(), reltol=1e-8)
    assert (newton.stats.history_bytes or 0) >= 2 * dim * dim * 8


@pytest.mark.parametrize("globalisation", ["line_search", "trust_region"])
def test_a_trial_that_is_refused_costs_no_jacobian(globalisation: Any) -> None:
    # exp(3 z) - 1 from -1: the full step lands at 5.4, where the residual is 1e7.
    problem = RootProblem(lambda z: torch.exp(3 * z) - 1, torch.full((1, 1), -1.0).double())
    solver = Newton(globalisation=globalisation, relaxed=0)
    solution = solvers.solve(problem, solver, abstol=1e-12, reltol=0.0)
    assert solution.success
    stats = solution.stats
    assert stats.vjps < stats.iterations  # one product is a Jacobian of one variable


# -- sample by sample ------------------------------------------------------------------------------


def scattered() -> RootProblem:
    """Rosenbrock's valley from nine starts, of which each needs its own course."""
    a, b = torch.meshgrid(
        torch.tensor([-3.0, 0.0, 4.0]), torch.tensor([-5.0, 1.0, 6.0]), indexing="ij"
    )
    z0 = torch.stack((a.flatten(), b.flatten()), dim=1).double()

    def g(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack((10 * (y - x * x), torch.atan(x - 1) * 3), dim=1)

    return RootProblem(g, z0, samples_independent=True)


@pytest.mark.parametrize(
    "solver",
    [
        Newton(globalisation="line_search", relaxed=0),
        Newton(globalisation="trust_region", relaxed=0),
        Newton(globalisation="line_search", relaxed=3),
        Newton(globalisation="trust_region", relaxed=3),
        NewtonKrylov(relaxed=0, forcing=0.01),
        NewtonKrylov(relaxed=3, forcing=0.01),
    ],
)
def test_alone_as_in_the_batch(solver: Any) -> None:
    problem = scattered()
    keywords: Any = {"abstol": 1e-9, "reltol": 0.0, "max_evaluations": 200}
    whole = solvers.solve(problem, solver, trace="per_sample", **keywords)
    assert whole.success, whole.message
    counts = set()
    for i in range(problem.batch):
        alone = solvers.solve(sub(problem, [i]), solver, trace="per_sample", **keywords)
        assert alone.success
        # The same points: rounding, which a chaotic course would have amplified by now.
        assert whole.trace is not None
        assert alone.trace is not None
        k = min(len(alone.trace.residual), int(alone.ended[0]))
        assert torch.allclose(
            whole.trace.residual[:k, i], alone.trace.residual[:k, 0], rtol=1e-6, atol=1e-12
        )
        counts.add(int(alone.ended[0]))
    assert len(counts) > 2  # their phases did differ


@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov(), Newton(globalisation="line_search")])
def test_a_trial_outside_the_domain_is_shortened(solver: Any) -> None:
    # The full step from 3 leads to -0.3, where log is NaN; sample 1 needs no help.
    z0 = torch.tensor([[3.0], [1.1]], dtype=torch.float64)
    problem = RootProblem(torch.log, z0)
    assert float(3 - 3 * math.log(3)) < 0
    solution = solvers.solve(problem, solver, abstol=1e-12, reltol=0.0)
    assert solution.success, solution.message
    assert torch.allclose(solution.value, torch.ones_like(z0), atol=1e-11)  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov()])
def test_a_function_that_is_nowhere_finite_ends_soon(solver: Any) -> None:
    def g(z: Tensor) -> Tensor:
        return torch.where(z == 1, 0.5 * z, torch.nan)

    solution = solvers.solve(RootProblem(g, torch.ones(2, 2).double()), solver)
    assert set(codes(solution)) == {ReturnCode.NONFINITE}
    assert solution.stats.evaluations == 1 + 3  # the full step, a tenth, a hundredth
    assert torch.equal(solution.value, torch.ones(2, 2).double())  # type: ignore[arg-type]


# -- singular Jacobians ----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov(), Newton(globalisation="none")])
def test_a_singular_jacobian_at_the_start(solver: Any) -> None:
    """The gradient of the residual leads away from it."""

    def g(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack((x * x + y - 3, x + y - 1), dim=1)

    # d g / d z = [[2 x, 1], [1, 1]] is singular at x = 1/2.
    problem = RootProblem(g, torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    solution = solvers.solve(problem, solver, abstol=1e-10, reltol=0.0)
    assert solution.success, solution.message
    assert float(g(solution.value).abs().max()) <= 1e-10  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov()])
@pytest.mark.parametrize("name", ["powell_singular", "sample_19"])
def test_a_singular_jacobian_at_the_root(name: str, solver: Any) -> None:
    """Newton converges linearly there: by 1/4 a step in the residual at a double root."""
    solution = solvers.solve(
        registry.get(name), solver, abstol=1e-10, reltol=0.0, max_evaluations=100
    )
    assert solution.success, solution.message
    assert solution.stats.evaluations <= 30


@pytest.mark.parametrize("solver", [Newton(), NewtonKrylov()])
def test_where_nothing_helps_the_linear_solve_has_failed(solver: Any) -> None:
    # z² + 1 at 0: no Newton step, and no gradient.
    problem = RootProblem(lambda z: z * z + 1, torch.zeros(1, 2, dtype=torch.float64))
    solution = solvers.solve(problem, solver)
    assert codes(solution) == [ReturnCode.LINEAR_SOLVE_FAILED]
    assert solution.stats.evaluations == 2


def test_a_krylov_space_without_a_direction_of_descent() -> None:
    """A rotation by 90 degrees maps r to where one product gains nothing; the gradient does."""
    A = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    b = torch.ones(1, 2, dtype=torch.float64)
    problem = RootProblem(lambda z: z @ A.T - b, torch.zeros_like(b))
    solution = solvers.solve(problem, NewtonKrylov(inner=1), abstol=1e-10, reltol=0.0)
    assert solution.success, solution.message


# -- derivatives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize(
    "solver",
    [
        Newton(globalisation="line_search", relaxed=0),
        Newton(globalisation="trust_region", relaxed=0),
        NewtonKrylov(relaxed=0),
    ],
)
def test_the_steps_are_differentiable_while_trials_are_refused(solver: Any, steps: int) -> None:
    z0 = torch.tensor([[-1.0, -0.8], [0.3, 0.1]], dtype=torch.float64)

    def iterate(a: Tensor) -> Tensor:
        problem = RootProblem(
            lambda z, a: torch.exp(3 * z) - a + 0.1 * z.flip(1), z0, (a,), samples_independent=True
        )
        settings = Settings(reltol=0.0, max_evaluations=steps)
        value = run(problem, solver, settings, differentiable=True).value
        assert isinstance(value, Tensor)
        return value

    a = torch.tensor([[1.0, 1.2], [0.9, 1.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(iterate, (a,), atol=1e-6, rtol=1e-5)


# -- options ---------------------------------------------------------------------------------------


def test_damping_is_the_first_trial() -> None:
    problem = registry.get("cosine", batch=1, dtype="float64")
    for globalisation in ("none", "line_search", "trust_region"):
        solver = Newton(globalisation=globalisation, damping=0.5)  # type: ignore[arg-type]
        r = sizes(solvers.solve(problem, solver, reltol=1e-9, max_evaluations=50))
        assert abs(r[-1] / r[-2] - 0.5) < 1e-3


def test_units_have_no_influence_on_a_search() -> None:
    base = registry.get("brown_almost_linear")
    assert isinstance(base, RootProblem)
    c = 2.0**-30

    def g(z: Tensor) -> Tensor:
        out: Tensor = base.g(z / c)
        return c * out

    other: Problem = replace(base, g=g, z0=base.z0 * c, solutions=())  # type: ignore[operator]
    for solver in (Newton(), Newton(globalisation="line_search"), NewtonKrylov()):
        one, two = (solvers.solve(p, solver, reltol=1e-10) for p in (base, other))
        assert one.stats.evaluations == two.stats.evaluations
        assert torch.equal(one.value, two.value / c)  # type: ignore[arg-type, operator]


def test_a_fixed_point_needs_no_search() -> None:
    """On a contraction all trials are accepted: as many evaluations as with full steps."""
    problem = tanh_map(batch=4, dim=30, scale=0.9)
    assert isinstance(problem, FixedPointProblem)
    for one, two in (
        (Newton(), Newton(globalisation="none")),
        (NewtonKrylov(), NewtonKrylov(globalisation="none")),
    ):
        a, b = (solvers.solve(problem, s, reltol=1e-10) for s in (one, two))
        assert a.stats.evaluations == b.stats.evaluations
        assert (a.stats.jvps, a.stats.vjps) == (b.stats.jvps, b.stats.vjps)
