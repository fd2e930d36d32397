"""The chain of solvers: who takes over what, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import codes, instrumented, sub, tanh_map
from torch import Tensor

import solvers
from solvers import (
    Anderson,
    Broyden,
    Fallback,
    FixedPointProblem,
    Newton,
    NewtonKrylov,
    Picard,
    ReturnCode,
    RootProblem,
)
from solvers.problems import registry


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
    # What was solved costs nothing more, and stands as it was.
    assert (second.stats.sample_evaluations[[0, 2]] == 0).all()
    assert codes(second) == [ReturnCode.SUCCESS] * 3
    assert torch.equal(second.residual[[0, 2]], first.residual[[0, 2]])


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
    assert solution.solver == Fallback((Broyden(), NewtonKrylov(), Newton()))
    assert solution.solver.name == "fallback"
    assert solution.success
    assert "Newton()" in (solvers.solve.__doc__ or "")


def test_the_default_leaves_out_what_does_not_fit() -> None:
    # No root: everyone fails, and Newton is not asked for a Jacobian of 2100 × 2100 numbers.
    problem = RootProblem(lambda z: z * z + 1, torch.ones(1, 2100))
    solution = solvers.solve(problem, max_evaluations=40)
    assert [a.solver.name for a in solution.attempts] == ["broyden", "newton_krylov"]
    # Who asks for it by name hears that it does not fit.
    with pytest.raises(ValueError, match="more than max_dim=2048"):
        solvers.solve(problem, Fallback((Picard(), Newton())), max_evaluations=40)


def test_who_was_stuck_begins_anew_and_who_was_slow_goes_on() -> None:
    # Sample 0 diverges under plain iteration, sample 1 is slow (rate 0.99).
    slope = torch.tensor([[-3.0], [0.99]], dtype=torch.float64)
    z0 = torch.ones(2, 1, dtype=torch.float64)
    problem, calls = instrumented(
        FixedPointProblem(lambda z, a: a * z + 1, z0, (slope,), samples_independent=True)
    )
    solution = solvers.solve(
        problem, Fallback((Picard(), Anderson())), reltol=1e-9, max_evaluations=100
    )
    assert solution.success
    first, second = solution.attempts
    assert codes(first) == [ReturnCode.DIVERGED, ReturnCode.MAX_EVALUATIONS]
    begun = calls.points[first.stats.evaluations]
    assert torch.equal(begun[0], z0[0])
    assert torch.equal(begun[1], first.value[1])  # type: ignore[arg-type, index]
    assert (
        second.stats.sample_evaluations.tolist()
        == (calls.samples - first.stats.sample_evaluations).tolist()
    )


def test_a_root_is_measured_by_its_first_residual_in_every_attempt() -> None:
    problem = RootProblem(lambda z: 0.01 * (z**3 - 8), torch.full((1, 1), 3.0).double())
    solution = solvers.solve(
        problem, Fallback((Picard(mixing=0.1), Newton())), reltol=1e-6, max_evaluations=20
    )
    assert solution.success
    assert len(solution.attempts) == 2
    assert float(solution.scale) == pytest.approx(0.19)


def test_a_scale_goes_with_its_sample() -> None:
    scale = torch.tensor([1.0, 1e-3, 5.0], dtype=torch.float64)
    solution = solvers.solve(mixed(), Fallback((Picard(), Anderson())), reltol=1e-6, scale=scale)
    assert solution.success
    assert torch.equal(solution.scale, scale)
    assert (solution.residual <= 1e-6 * scale).all()


def test_an_inverse_goes_on_to_the_next_solver() -> None:
    problem = registry.get("tanh", batch=2, dim=100, injection=0.3, scale=1.1, dtype="float64")
    problem = replace(problem, samples_independent=True)  # type: ignore[type-var]
    keywords: Any = {"reltol": 1e-9, "max_evaluations": 60}
    chain = solvers.solve(problem, Fallback((Broyden(), NewtonKrylov(inner=100))), **keywords)
    assert chain.success
    first, second = chain.attempts
    assert set(codes(first)) == {ReturnCode.MAX_EVALUATIONS}
    start = replace(first, inverse=None)
    alone = solvers.solve(problem, NewtonKrylov(inner=100), start=start, **keywords)
    assert alone.success
    assert second.stats.jvps < 0.7 * alone.stats.jvps
    # Who does not ask for it does not keep it.
    assert chain.inverse is None
    assert all(a.inverse is None for a in chain.attempts)
    kept = solvers.solve(problem, Fallback((Broyden(),)), keep_inverse=True, reltol=1e-6)
    assert kept.inverse is not None


def test_residuals_of_each_sample_are_traced_in_every_attempt() -> None:
    solution = solvers.solve(
        mixed(), Fallback((Picard(), Anderson())), reltol=1e-9, trace="per_sample"
    )
    second = solution.attempts[1]
    assert second.trace is not None
    assert second.trace.residual.shape == (len(second.trace.evaluations), 3)
    # The spared ones stand at what they reached.
    assert torch.allclose(second.trace.residual[-1].double(), second.residual.double())


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
