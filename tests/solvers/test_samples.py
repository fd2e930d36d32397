"""Samples are by themselves: alone or in a batch, in any order, whatever happens to a neighbour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import (
    ALL,
    EPS,
    FOREIGN,
    OURS,
    Calls,
    codes,
    every_dtype,
    every_solver,
    instrumented,
    jacobian,
    ours,
    pack,
    residual,
    sub,
    tanh_map,
)
from torch import Tensor

import solvers
from solvers import FixedPointProblem, ReturnCode
from solvers.problem import Problem
from solvers.problems import registry

RELTOL = {"float32": 1e-4, "float64": 1e-9}
SUCCESS = ReturnCode.SUCCESS

# L-BFGS minimises the sum over the batch, and xitorch's root finders take the batch for one vector:
# its samples are solved right, but not one by one.
AS_ONE = ["torch_lbfgs", "xitorch_broyden1", "xitorch_broyden2", "xitorch_linear_mixing"]
BY_SAMPLES = [n for n in ALL if n not in AS_ONE]
by_samples = pytest.mark.parametrize("name", BY_SAMPLES)


def apart(problem: Problem, one: Any, two: Any, dtype: str, reltol: float) -> bool:
    """Whether two solutions differ by more than two residuals at the tolerance allow."""
    a, b = pack(problem, one), pack(problem, two)
    slope = torch.linalg.svdvals(jacobian(problem, b))[:, -1]
    size = 1 + b.norm(dim=1)
    bound = (2 * 2 * reltol * size + 30 * EPS[dtype] * size) / slope
    return bool(((a - b).norm(dim=1) > bound).any())


@pytest.mark.parametrize("which", ["tanh", "tuple_tanh", "linear", "cosine"])
@every_dtype
@every_solver
def test_alone_as_in_the_batch(name: str, dtype: str, which: str) -> None:
    # Small matrices scatter: a scale of 0.5 is a contraction in each of them.
    options = {"linear": {"dim": 4}, "cosine": {"dim": 4}}.get(which, {"scale": 0.5})
    problem = replace(  # type: ignore[type-var]
        registry.get(which, batch=5, dtype=dtype, **options),  # type: ignore[arg-type]
        samples_independent=True,
    )
    solver = solvers.registry.get(name)
    whole = solvers.solve(problem, solver, reltol=RELTOL[dtype], max_evaluations=500)
    assert whole.success, whole.message
    for i in range(5):
        part = sub(problem, [i])
        alone = solvers.solve(part, solver, reltol=RELTOL[dtype], max_evaluations=500)
        picked = sub(replace(problem, solutions=(whole.value,)), [i]).solutions[0]  # type: ignore[type-var]
        assert alone.success
        assert not apart(part, alone.value, picked, dtype, RELTOL[dtype])
        if dtype == "float64" and name in OURS:
            # Rounding differs with the batch's size, but not by what a tolerance of 1e-9 notices.
            # A graph cannot be cut: where a neighbour ends, a linearisation is traced once more.
            earlier = {e for e in whole.ended.tolist() if e < int(whole.ended[i])}
            traced = len(earlier) if "linearise" in solver.requires else 0
            assert whole.stats.sample_evaluations[i] == alone.stats.sample_evaluations[0] + traced
            assert whole.ended[i] == alone.ended[0] + traced


@by_samples
def test_the_order_of_the_batch_has_no_influence(name: str) -> None:
    problem = tanh_map(batch=6)
    order = [3, 0, 5, 1, 4, 2]
    solver = solvers.registry.get(name)
    one = solvers.solve(problem, solver, reltol=1e-9, max_evaluations=500)
    two = solvers.solve(sub(problem, order), solver, reltol=1e-9, max_evaluations=500)
    assert one.success
    # The same arithmetic on rows in another place: rounding, amplified by 1 / (1 - 0.8) at most.
    assert torch.allclose(pack(problem, one.value)[order], pack(problem, two.value), atol=1e-12)
    assert one.stats.sample_evaluations[order].tolist() == two.stats.sample_evaluations.tolist()
    assert codes(one) == codes(two)


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("independent", [True, None])
@ours
def test_a_nan_ends_its_sample_alone(name: str, step: int, independent: bool | None) -> None:
    sick = 2

    def spoil(out: Tensor, index: Tensor, calls: Calls) -> Tensor:
        # From its `step`-th evaluation on.
        bad = (index == sick) & (calls.samples[index] >= step)
        return torch.where(bad[:, None], torch.nan, out)

    healthy = replace(tanh_map(batch=4), samples_independent=independent)
    problem, calls = instrumented(healthy, spoil)
    solver = solvers.registry.get(name)
    solution = solvers.solve(problem, solver, reltol=1e-10, max_evaluations=200)
    others = [0, 1, 3]
    assert codes(solution)[sick] is ReturnCode.NONFINITE
    assert [codes(solution)[i] for i in others] == [SUCCESS] * 3

    # A search may try twice more, a linearisation is traced once more where others ended, and each
    # further solver of a chain looks at its start.
    tries = len(solution.attempts) or 1
    traced = "linearise" in solver.requires
    # Whether the others may go on alone is found out by evaluating them so, once.
    probed = traced and independent is None
    assert calls.samples[sick] <= step + 2 + traced + probed + (tries - 1)
    # What is returned is the best of the points before.
    assert torch.isfinite(solution.value[sick]).all()
    first = [p[sick] for p in calls.points[: step - 1] if p.shape[0] == 4]
    if step == 1:
        assert torch.equal(solution.value[sick], healthy.z0[sick])
    elif not solution.attempts:
        sizes = []
        for point in first:
            at = sub(healthy, [sick])
            sizes.append(float(residual(at, point[None]).norm()))
        best = first[sizes.index(min(sizes))]
        assert torch.equal(solution.value[sick], best)

    # The others do not notice.
    alone = solvers.solve(sub(healthy, others), solver, reltol=1e-10, max_evaluations=200)
    assert torch.allclose(solution.value[others], alone.value, atol=1e-11)
    # Finding out what depends on what is counted, as is the first look of each further solver of
    # a chain, and the trace that a linearisation needs anew without the sick sample.
    extra = (0 if independent else 1) + (tries - 1) + ("linearise" in solver.requires)
    counts = solution.stats.sample_evaluations[others] - alone.stats.sample_evaluations
    assert (counts >= 0).all()
    assert (counts <= extra).all()


@pytest.mark.parametrize("name", [n for n in BY_SAMPLES if n in FOREIGN])
def test_a_nan_ends_its_sample_alone_in_a_foreign_loop(name: str) -> None:
    def spoil(out: Tensor, index: Tensor, calls: Calls) -> Tensor:
        bad = (index == 2) & (calls.samples[index] >= 3)
        return torch.where(bad[:, None], torch.nan, out)

    healthy = tanh_map(batch=4)
    problem, _ = instrumented(healthy, spoil)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-8, max_evaluations=100)
    assert codes(solution)[2] is ReturnCode.NONFINITE
    assert torch.isfinite(solution.value).all()
    assert [codes(solution)[i] for i in (0, 1, 3)] == [SUCCESS] * 3


@ours
def test_a_sample_that_diverges_does_so_alone(name: str) -> None:
    # Slope 5 for sample 1: plain iteration grows by 5 a step.
    healthy = tanh_map(batch=4)
    slope = torch.tensor([0.0, 5.0, 0.0, 0.0], dtype=torch.float64)[:, None]

    def f(z: Tensor, u: Tensor, slope: Tensor, W: Tensor) -> Tensor:
        return torch.where(slope > 0, slope * z + u, torch.tanh(z @ W.T + u))

    problem = FixedPointProblem(
        f, healthy.z0, (*healthy.args, slope), healthy.params, samples_independent=True
    )
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-9, max_evaluations=300)
    others = [0, 2, 3]
    assert [codes(solution)[i] for i in others] == [SUCCESS] * 3
    # f(z) = 5 z + u has its fixed point at -u / 4, which all but plain iteration find.
    if name == "picard":
        assert codes(solution)[1] is ReturnCode.DIVERGED
        assert torch.equal(solution.value[1], healthy.z0[1])  # no later point is better
        grown = 1 + 9 + 2  # 5^k > 1e8 at k = 12
        assert solution.stats.sample_evaluations[1] <= grown + 1
    else:
        assert codes(solution)[1] is SUCCESS
        assert torch.allclose(solution.value[1], -healthy.args[0][1] / 4, atol=1e-7)
    alone = solvers.solve(
        sub(healthy, others), solvers.registry.get(name), reltol=1e-9, max_evaluations=300
    )
    assert torch.allclose(solution.value[others], alone.value, atol=1e-11)


@every_solver
def test_a_sample_without_a_solution_is_not_called_solved(name: str) -> None:
    # z = z + 1 + z² has none.
    def g(z: Tensor, hopeless: Tensor) -> Tensor:
        return torch.where(hopeless > 0, 1 + z * z, torch.cos(z) - z)

    hopeless = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    z0 = torch.full((3, 2), 0.5, dtype=torch.float64)
    problem = FixedPointProblem(lambda z, h: z + g(z, h), z0, (hopeless,))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6, max_evaluations=100)
    assert codes(solution)[1] is not SUCCESS
    assert torch.isfinite(solution.value).all()
    assert solution.residual[1] >= 1
    if name in BY_SAMPLES:
        assert [codes(solution)[i] for i in (0, 2)] == [SUCCESS] * 2


def coupled(batch: int = 4, dim: int = 5) -> FixedPointProblem:
    """The mean over the batch is part of the cell, as in batch normalisation."""
    base = tanh_map(batch=batch, dim=dim, scale=0.5)

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return torch.tanh(z @ W.T + 0.4 * z.mean(dim=0, keepdim=True) + u)

    return replace(base, f=f, samples_independent=None, solutions=())


def coupled_solution(problem: FixedPointProblem) -> Tensor:
    """Plain iteration, 200 times: of rate 0.9 at most, so that it ends at rounding."""
    z = problem.z0
    assert isinstance(z, Tensor)
    for _ in range(400):
        z = problem.f(z, *problem.args, *problem.params)
    assert isinstance(z, Tensor)
    return z


@pytest.mark.parametrize("declared", [False, None])
@every_solver
def test_coupled_samples_are_found_out_and_solved_right(name: str, declared: bool | None) -> None:
    problem = replace(coupled(), samples_independent=declared)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-8, max_evaluations=400)
    assert solution.success, solution.message
    # The residual is at most 1e-8 of the state; the slope of z - f(z) is at least 0.1.
    assert torch.allclose(solution.value, coupled_solution(problem), atol=1e-6)
    again = residual(problem, solution.value).norm(dim=1)
    assert torch.allclose(again, solution.residual, atol=1e-14)
    if declared is False or "blocks" in solution.solver.requires or name in FOREIGN:
        assert solution.samples_independent is False
    else:  # it may end all at once, so that nobody has to know
        assert solution.samples_independent is not True


@ours
def test_samples_that_end_apart_reveal_that_they_are_coupled(name: str) -> None:
    # Sample 0 starts at its solution and would be frozen there, if nobody looked.
    problem = coupled()
    z0 = problem.z0.clone() if isinstance(problem.z0, Tensor) else problem.z0[0]
    z0[0] = coupled_solution(problem)[0]
    problem = replace(problem, z0=z0)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-9, max_evaluations=400)
    assert solution.success, solution.message
    assert torch.allclose(solution.value, coupled_solution(problem), atol=1e-7)


@every_solver
@pytest.mark.parametrize("dtype", ["float64"])
def test_a_cell_that_cannot_evaluate_part_of_a_batch(name: str, dtype: str) -> None:
    base = registry.get("tanh", batch=4, dim=5, scale=0.5, dtype=dtype)
    (u,), (W,) = base.args, base.params

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ W.T + u)  # u has all samples

    problem = FixedPointProblem(f, base.z0)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-8, max_evaluations=400)
    assert solution.success, solution.message
    assert not apart(base, solution.value, base.solutions[0], dtype, 1e-8)


@every_solver
def test_a_cell_with_noise_is_not_disturbed_by_the_probe(name: str) -> None:
    """Finding out what depends on what leaves the random state as it was."""
    base = tanh_map(batch=3)
    problem = replace(base, samples_independent=None)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert torch.equal(torch.rand(3), expected)


def test_freezing_saves_evaluations() -> None:
    """Samples of different difficulty: each costs what it costs alone."""
    problem, calls = instrumented(tanh_map(batch=16, scale=1.0, seed=2))
    solution = solvers.solve(problem, solvers.Picard(), reltol=1e-8, max_evaluations=500)
    per_sample = solution.stats.sample_evaluations
    assert per_sample.min() < per_sample.max()
    assert int(per_sample.sum()) == sum(p.shape[0] for p in calls.points)
    assert int(per_sample.max()) == solution.stats.evaluations
    assert torch.equal(solution.ended, per_sample)


@pytest.mark.parametrize("name", ["newton", "newton_krylov"])
def test_an_infinite_slope_is_no_sign_of_coupled_samples(name: str) -> None:
    # The root has an infinite slope at 0, where sample 3 starts.
    x = torch.full((4, 1), 0.5, dtype=torch.float64)
    z0 = torch.tensor([[1.0], [2.0], [1.5], [0.0]], dtype=torch.float64)
    problem = FixedPointProblem(lambda z, x: 0.5 * torch.sqrt(z.abs()) + x, z0, (x,))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-10)
    assert solution.samples_independent is True
    assert [codes(solution)[i] for i in range(3)] == [SUCCESS] * 3
    # z = (sqrt(z))² with sqrt(z) = 1/4 + sqrt(1/16 + 1/2)
    assert torch.allclose(solution.value[:3], torch.ones_like(x[:3]), atol=1e-8)


@ours
def test_an_empty_batch(name: str) -> None:
    problem = tanh_map(batch=4)
    empty = sub(problem, [])
    solution = solvers.solve(empty, solvers.registry.get(name))
    assert solution.value.shape == (0, 6)
    assert solution.success
    assert solution.stats.evaluations == 0
