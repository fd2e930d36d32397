"""Every return code is reached for real, and says what happened, where, and what to try."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from maps import EPS, FOREIGN, codes, every_solver, ours, pack, tanh_map
from torch import Tensor

import solvers
from solvers import FixedPointProblem, Newton, NewtonKrylov, Picard, ReturnCode, RootProblem
from solvers.problems import registry

by_one_row = pytest.mark.parametrize("name", FOREIGN)


def test_every_code_has_a_sentence() -> None:
    assert [c.name for c in ReturnCode] == [
        "SUCCESS",
        "MAX_EVALUATIONS",
        "MAX_SECONDS",
        "STALLED",
        "DIVERGED",
        "NONFINITE",
        "LINEAR_SOLVE_FAILED",
        "FAILURE",
    ]
    assert len({c.sentence for c in ReturnCode}) == len(ReturnCode)


@every_solver
@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_max_evaluations(name: str, budget: int) -> None:
    problem = registry.get("tanh", batch=3, dtype="float64")
    solution = solvers.solve(
        problem, solvers.registry.get(name), reltol=0.0, max_evaluations=budget
    )
    assert set(codes(solution)) == {ReturnCode.MAX_EVALUATIONS}
    assert solution.stats.evaluations <= budget
    assert (solution.stats.sample_evaluations <= budget).all()
    assert "raise max_evaluations" in solution.message
    assert "3 of 3 samples, first 0" in solution.message


@every_solver
def test_max_seconds(name: str) -> None:
    base = tanh_map(batch=2)

    def slow(z: Tensor, *tensors: Tensor) -> Tensor:
        time.sleep(0.02)
        return base.f(z, *tensors)

    limit = 0.1
    solvers.solve(base, solvers.registry.get(name))
    solution = solvers.solve(
        replace(base, f=slow), solvers.registry.get(name), reltol=1e-14, max_seconds=limit
    )
    assert ReturnCode.MAX_SECONDS in codes(solution)
    # A step of Newton or the last evaluation may lie behind the limit; 100 evaluations take 2 s.
    # torch imports some of itself when an optimiser first steps, hence the first solve.
    assert limit <= solution.stats.seconds < limit + 0.5
    assert "raise max_seconds" in solution.message


@ours
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stalled(name: str, dtype: str) -> None:
    # The residual jumps over zero: it is never below 1e-6, whatever the precision.
    def f(z: Tensor) -> Tensor:
        r = torch.cos(z) - z
        return z + r + torch.where(r >= 0, 1e-6, -1e-6)

    z0 = torch.linspace(0.1, 1.4, 6, dtype=getattr(torch, dtype)).reshape(3, 2)
    problem = FixedPointProblem(f, z0, samples_independent=True)
    solution = solvers.solve(
        problem, solvers.registry.get(name), reltol=0.0, max_evaluations=1000, norm="linf"
    )
    assert set(codes(solution)) == {ReturnCode.STALLED}
    # It says so soon: 50 evaluations without progress after 100 to get there, each of a chain.
    tries = len(solution.attempts) or 1
    assert solution.stats.evaluations <= tries * 150
    assert (solution.residual >= 0.9e-6).all()
    assert (solution.residual < 1e-3).all()  # the best seen is near the jump
    assert "use float64" in solution.message


@ours
def test_below_what_float32_can_reach(name: str) -> None:
    """At reltol 0 a solve ends by itself: on a root that is exact, or because nothing improves."""
    problem = registry.get("tanh", batch=8, dim=32, dtype="float32", scale=0.7)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=0.0, max_evaluations=2000)
    assert set(codes(solution)) <= {ReturnCode.SUCCESS, ReturnCode.STALLED}
    assert ReturnCode.STALLED in codes(solution)
    assert solution.stats.evaluations < 600
    size = pack(problem, solution.value).norm(dim=1)
    # An evaluation of f rounds 32 products and sums a number: a few units in the norm.
    assert (solution.residual <= 10 * EPS["float32"] * size).all()


def test_diverged() -> None:
    problem = FixedPointProblem(lambda z: 3 * z + 1, torch.zeros(2, 2, dtype=torch.float64))
    solution = solvers.solve(problem, Picard(), max_evaluations=100)
    assert set(codes(solution)) == {ReturnCode.DIVERGED}
    # The residual is 3^k of the first: beyond 1e8 at k = 17.
    assert solution.stats.evaluations == 18
    assert torch.equal(solution.value, problem.z0)
    assert "damp with mixing < 1" in solution.message


def test_nonfinite() -> None:
    problem = FixedPointProblem(
        lambda z, x: torch.sqrt(z - x), torch.ones(3, 2), (torch.tensor([[0.0], [5.0], [0.0]]),)
    )
    solution = solvers.solve(problem, Picard())
    assert codes(solution)[1] is ReturnCode.NONFINITE
    assert "sample 1, at evaluation 1" in solution.message
    assert "NaN or infinity" in solution.message
    assert torch.equal(solution.value[1], torch.ones(2))


@by_one_row
def test_nonfinite_at_once_in_a_foreign_loop(name: str) -> None:
    problem = FixedPointProblem(lambda z: z * torch.nan, torch.ones(2, 2))
    solution = solvers.solve(problem, solvers.registry.get(name))
    assert set(codes(solution)) == {ReturnCode.NONFINITE}
    assert torch.isfinite(solution.value).all()


def test_linear_solve_failed() -> None:
    # z = a z + 1 has no solution for a = 1, and its Newton matrix is zero.
    a = torch.tensor([[0.5], [1.0], [0.25]], dtype=torch.float64)
    problem = FixedPointProblem(
        lambda z, a: a * z + 1, torch.zeros(3, 2, dtype=torch.float64), (a,)
    )
    for solver in (Newton(), NewtonKrylov()):
        solution = solvers.solve(problem, solver, reltol=1e-10)
        assert codes(solution) == [
            ReturnCode.SUCCESS,
            ReturnCode.LINEAR_SOLVE_FAILED,
            ReturnCode.SUCCESS,
        ]
        assert torch.allclose(solution.value[[0, 2]], 1 / (1 - a[[0, 2]]).expand(2, 2))
        assert "sample 1" in solution.message
        assert "singular" in solution.message


def test_failure_keeps_what_the_library_raised() -> None:
    class Broken(solvers.ForeignSolver):
        name = "broken"

        def run(self, objective: object) -> None:
            raise RuntimeError("line 3 of the library")

    solution = solvers.solve(tanh_map(batch=2), Broken())
    assert set(codes(solution)) == {ReturnCode.FAILURE}
    assert str(solution.original) == "line 3 of the library"
    assert "`original`" in solution.message


@by_one_row
def test_a_stationary_point_that_is_no_root_is_not_called_solved(name: str) -> None:
    # g(z) = z² + 1 has no root, and its square has a minimum at 0.
    problem = RootProblem(lambda z: z * z + 1, torch.full((2, 1), 0.3, dtype=torch.float64))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-3)
    assert ReturnCode.SUCCESS not in codes(solution)
    assert (solution.residual >= 1).all()


def test_worst_and_counts() -> None:
    problem = FixedPointProblem(
        lambda z, a: a * z + 1,
        torch.zeros(3, 1, dtype=torch.float64),
        (torch.tensor([[0.1], [9.0], [0.2]], dtype=torch.float64),),
    )
    solution = solvers.solve(problem, Picard())
    assert solution.worst is ReturnCode.DIVERGED
    assert solution.counts == {"SUCCESS": 2, "DIVERGED": 1}
    assert not solution.success
    assert solution.batch == 3
