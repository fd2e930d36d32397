"""The chain of solvers: who takes over what, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from maps import codes, instrumented, sub, tanh_map
from torch import Tensor

import solvers
from solvers import Anderson, Broyden, Fallback, FixedPointProblem, NewtonKrylov, Picard, ReturnCode


def mixed() -> FixedPointProblem:
    """Sample 1 has the slope -3, on which plain iteration diverges; the others contract."""
    base = tanh_map(batch=3, dim=4, scale=0.5)
    hard = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)

    def f(z: Tensor, u: Tensor, hard: Tensor, W: Tensor) -> Tensor:
        return torch.where(hard > 0, -3 * z + u, torch.tanh(z @ W.T + u))

    return FixedPointProblem(f, base.z0, (*base.args, hard), base.params, samples_independent=True)


def test_the_next_solver_takes_over_what_is_unsolved() -> None:
    problem, calls = instrumented(mixed())
    solution = solvers.solve(problem, Fallback((Picard(), Anderson())), reltol=1e-9)
    assert solution.success
    first, second = solution.attempts
    assert [c.name for c in codes(first)] == ["SUCCESS", "DIVERGED", "SUCCESS"]
    assert (first.solver, second.solver) == (Picard(), Anderson())
    assert torch.equal(solution.value[[0, 2]], first.value[[0, 2]])
    assert torch.allclose(solution.value[1], problem.args[0][1] / 4, atol=1e-8)

    # Counts are merged, and nothing else was asked of f.
    stats = solution.stats
    assert stats.evaluations == calls.calls
    assert stats.sample_evaluations.tolist() == calls.samples.tolist()
    assert stats.evaluations == sum(a.stats.evaluations for a in solution.attempts)
    assert stats.iterations == sum(a.stats.iterations for a in solution.attempts)
    assert stats.seconds == pytest.approx(sum(a.stats.seconds for a in solution.attempts))
    assert stats.history_bytes == max(a.stats.history_bytes or 0 for a in solution.attempts)
    # What was solved costs one more look.
    assert (second.stats.sample_evaluations[[0, 2]] <= 1).all()


def test_a_chain_that_is_not_needed_costs_nothing() -> None:
    problem = tanh_map(batch=3, scale=0.5)
    chain = solvers.solve(problem, Fallback((Anderson(), Broyden())), reltol=1e-8)
    alone = solvers.solve(problem, Anderson(), reltol=1e-8)
    assert len(chain.attempts) == 1
    assert torch.equal(chain.value, alone.value)
    assert chain.stats.evaluations == alone.stats.evaluations


def test_a_waiting_solver_has_its_share_of_the_budget() -> None:
    problem = FixedPointProblem(
        lambda z: torch.cos(z) + torch.where(torch.cos(z) >= z, 1e-3, -1e-3),
        torch.zeros(2, 2, dtype=torch.float64),
    )  # whose residual is never below 1e-3
    solution = solvers.solve(
        problem, Fallback((Picard(), Anderson(), Broyden())), reltol=1e-8, max_evaluations=50
    )
    assert not solution.success
    counts = [a.stats.evaluations for a in solution.attempts]
    assert counts == [30, 12, 8]  # 60 % of 50, 60 % of 20, the rest
    assert solution.stats.evaluations == 50


def test_the_best_of_all_attempts_is_returned() -> None:
    problem = tanh_map(batch=4, scale=0.95)
    solution = solvers.solve(
        problem, Fallback((Anderson(), Picard())), reltol=1e-14, max_evaluations=30
    )
    lowest = torch.stack([a.residual for a in solution.attempts]).amin(dim=0)
    assert torch.equal(solution.residual, lowest)


def test_the_default() -> None:
    solution = solvers.solve(tanh_map(batch=2), reltol=1e-6)
    assert solution.solver == Fallback((Anderson(), Broyden(), NewtonKrylov()))
    assert solution.solver.name == "fallback"
    assert solution.success
    assert "NewtonKrylov()" in (solvers.solve.__doc__ or "")


@pytest.mark.parametrize("outer", ["scipy_broyden1", "torch_lbfgs"])
def test_a_foreign_solver_may_be_part_of_a_chain(outer: str) -> None:
    chain = Fallback((Picard(), solvers.registry.get(outer)))
    solution = solvers.solve(mixed(), chain, reltol=1e-6, max_evaluations=200)
    assert solution.success, solution.message
    assert len(solution.attempts) == 2


def test_a_sample_that_no_one_solves() -> None:
    base = mixed()

    def f(z: Tensor, u: Tensor, hard: Tensor, W: Tensor) -> Tensor:
        return torch.where(hard > 0, z + 1 + z * z, torch.tanh(z @ W.T + u))

    solution = solvers.solve(replace(base, f=f), reltol=1e-9, max_evaluations=300)
    assert [codes(solution)[i] for i in (0, 2)] == [ReturnCode.SUCCESS] * 2
    assert codes(solution)[1] is not ReturnCode.SUCCESS
    assert len(solution.attempts) == 3
    alone = solvers.solve(sub(replace(base, f=f), [0]), reltol=1e-9, max_evaluations=300)
    assert torch.allclose(solution.value[:1], alone.value, atol=1e-12)


def test_chains_nest() -> None:
    chain = Fallback((Fallback((Picard(), Picard(mixing=0.1))), Anderson()))
    assert solvers.solve(mixed(), chain, reltol=1e-6, max_evaluations=300).success
