"""What the one loop promises, whichever solver it runs."""

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
    as_on_accelerator,
    every_solver,
    instrumented,
    jacobian,
    ours,
    pack,
    reads,
    residual,
    sub,
    tanh_map,
)
from torch import Tensor

import solvers
from solvers import (
    Anderson,
    Broyden,
    Fallback,
    FixedPointProblem,
    Newton,
    Picard,
    ReturnCode,
    RootProblem,
)
from solvers.problems import registry

STEPPED = [n for n in OURS if n != "fallback"]
stepped = pytest.mark.parametrize("name", STEPPED)


# -- the answer ------------------------------------------------------------------------------------


@stepped
@pytest.mark.parametrize("seed", range(3))
def test_the_best_iterate_is_returned(name: str, seed: int) -> None:
    # Far from a contraction: the residual goes up and down.
    base = tanh_map(batch=1, dim=8, scale=2.5, seed=seed)
    problem, calls = instrumented(base)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-12, max_evaluations=25)
    sizes = [float(residual(base, p).norm()) for p in calls.points]
    best = sizes.index(min(sizes))
    assert torch.equal(solution.value, calls.points[best])
    assert float(solution.residual) == pytest.approx(sizes[best], rel=1e-12)  # rounding


@stepped
def test_the_best_iterate_of_each_sample(name: str) -> None:
    problem = tanh_map(batch=5, dim=8, scale=2.5)
    solution = solvers.solve(
        problem,
        solvers.registry.get(name),
        reltol=0.0,
        max_evaluations=20,
        fixed_budget=True,
        trace="per_sample",
    )
    assert solution.trace is not None
    assert torch.equal(solution.residual, solution.trace.residual.amin(dim=0))
    again = residual(problem, solution.value).norm(dim=1)
    # Rounding, in a state of length 3.
    assert (again - solution.residual).abs().max() < 30 * EPS["float64"]


@pytest.mark.parametrize("kind", ["l2", "rms", "linf"])
@every_solver
def test_the_tolerance_is_tested_in_the_norm_asked_for(name: str, kind: Any) -> None:
    problem = tanh_map(batch=3, dim=6, scale=0.5)
    solution = solvers.solve(
        problem,
        solvers.registry.get(name),
        abstol=1e-5,
        reltol=0.0,
        norm=kind,
        max_evaluations=300,
    )
    assert solution.success
    r = residual(problem, solution.value)
    size = {
        "l2": r.norm(dim=1),
        "rms": r.norm(dim=1) / 6**0.5,
        "linf": r.abs().amax(dim=1),
    }[kind]
    assert torch.allclose(solution.residual, size, rtol=1e-6, atol=1e-14)
    assert (size <= 1e-5).all()


def test_the_scale_of_a_fixed_point_is_the_state_or_the_first_residual() -> None:
    far = tanh_map(batch=2)
    far = replace(far, z0=far.z0 + 100)
    solution = solvers.solve(far, Picard(), reltol=1e-3)
    first = residual(far, far.z0).norm(dim=1)
    assert torch.allclose(solution.scale, first)
    near = tanh_map(batch=2)
    solution = solvers.solve(near, Picard(), reltol=1e-6)
    f = solution.value + residual(near, solution.value)
    first = residual(near, near.z0).norm(dim=1)
    assert torch.allclose(solution.scale, torch.maximum(f.norm(dim=1), first))


def test_the_scale_of_a_root_is_the_first_residual_or_what_is_given() -> None:
    problem = registry.get("quadratic_root", batch=2, dtype="float64")
    assert isinstance(problem, RootProblem)
    solution = solvers.solve(problem, Newton(), reltol=1e-6)
    first = residual(problem, problem.z0).norm(dim=1)
    assert torch.allclose(solution.scale, first)
    given = torch.tensor([1.0, 1e-3], dtype=torch.float64)
    solution = solvers.solve(
        problem, Newton(damping=0.5, globalisation="none"), reltol=1e-4, scale=given
    )
    assert torch.equal(solution.scale, given)
    assert (solution.residual <= 1e-4 * given).all()
    with pytest.raises(ValueError, match="scale has shape"):
        solvers.solve(problem, Newton(), scale=torch.ones(3))


# -- budgets, reads, time --------------------------------------------------------------------------


class Watched:
    """Wraps a solver's ``step``, and records what it reads."""

    def __init__(self, solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[str] = []
        self.steps = 0
        original = type(solver).step

        def step(this: Any, *args: Any) -> Any:
            self.steps += 1
            with reads() as seen:
                result = original(this, *args)
            self.reads += seen
            return result

        monkeypatch.setattr(type(solver), "step", step)


@stepped
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_step_reads_a_number(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_accelerator(monkeypatch)
    solver = solvers.registry.get(name)
    watched = Watched(solver, monkeypatch)
    problem = tanh_map(batch=4, scale=0.6, dtype=dtype)
    assert solvers.solve(problem, solver, reltol=1e-5).success
    assert watched.steps > 2
    assert watched.reads == []


def test_the_watch_sees_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading(Picard):
        def step(self, state: Any, z: Tensor, fz: Tensor, linearise: Any) -> Any:
            assert bool(torch.isfinite(fz).all())
            assert fz.cpu().numpy().shape == fz[fz[:, 0] == fz[:, 0]].shape
            torch.linalg.svd(fz)
            return fz, state

    watched = Watched(Reading(), monkeypatch)
    solvers.solve(tanh_map(batch=2, scale=0.6), Reading())
    assert watched.steps
    once = ["_local_scalar_dense", "cpu", "index", "_linalg_svd"]
    assert watched.reads == once * watched.steps


@stepped
@pytest.mark.parametrize("budget", [1, 2, 7])
def test_a_fixed_budget_is_exact(name: str, budget: int) -> None:
    problem, calls = instrumented(tanh_map(batch=3))
    solution = solvers.solve(
        problem, solvers.registry.get(name), max_evaluations=budget, fixed_budget=True
    )
    assert solution.stats.evaluations == calls.calls == budget
    assert solution.stats.iterations == budget - 1


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_loop_has_no_fixed_budget(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} decides itself when to stop"):
        solvers.solve(tanh_map(batch=2), solvers.registry.get(name), fixed_budget=True)


@stepped
def test_reads_are_counted(name: str) -> None:
    problem = tanh_map(batch=3, scale=0.6)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    # On the CPU the loop looks at every point, but not where one is traced again.
    assert solution.stats.syncs == solution.stats.iterations + 1


# -- iterating, starting, stopping -----------------------------------------------------------------


@stepped
def test_iterating_is_solving(name: str) -> None:
    problem = registry.get("tanh", batch=3, dim=6, dtype="float64", scale=0.6)
    solver: Any = solvers.registry.get(name)
    whole = solvers.solve(problem, solver, reltol=1e-8)
    iteration = solvers.init(problem, solver, reltol=1e-8)
    points = []
    for point in iteration:
        assert point is iteration
        assert point.residual.shape == (3,)
        points.append(point.evaluations)
    assert points == sorted(points)
    solution = iteration.solution
    assert torch.equal(solution.value, whole.value)
    assert torch.equal(solution.residual, whole.residual)
    assert solution.retcode.tolist() == whole.retcode.tolist()
    assert solution.stats.evaluations == whole.stats.evaluations == points[-1]


def test_an_iteration_may_be_looked_at_and_left() -> None:
    iteration = solvers.init(tanh_map(batch=2), Anderson(), reltol=1e-10)
    for point in iteration:
        if point.evaluations == 3:
            break
    solution = iteration.solution
    assert solution.stats.evaluations == 3
    assert set(solution.retcode.tolist()) == {ReturnCode.MAX_EVALUATIONS}
    assert torch.isfinite(solution.value).all()


@pytest.mark.parametrize("name", [*FOREIGN, "fallback"])
def test_only_a_loop_of_ours_can_be_iterated(name: str) -> None:
    solver: Any = solvers.registry.get(name)
    with pytest.raises(TypeError, match="only `solve` runs it"):
        solvers.init(tanh_map(batch=2), solver)


@every_solver
@pytest.mark.parametrize("which", ["tanh", "tuple_tanh"])
def test_a_warm_start(name: str, which: str) -> None:
    problem = registry.get(which, batch=3, dtype="float64", scale=0.5)
    solver = solvers.registry.get(name)
    cold = solvers.solve(problem, solver, reltol=1e-7, max_evaluations=300)
    warm = solvers.solve(problem, solver, reltol=1e-6, start=cold)
    assert cold.success
    assert warm.success
    at_most = 1 if name not in FOREIGN else 4  # z0, what depends on what, the answer judged
    assert warm.stats.evaluations <= at_most
    assert torch.allclose(pack(problem, warm.value), pack(problem, cold.value))


def test_a_start_of_another_shape_is_refused() -> None:
    old = solvers.solve(tanh_map(batch=2), Picard())
    with pytest.raises(ValueError, match="start has a state of shape"):
        solvers.solve(tanh_map(batch=3), Picard(), start=old)


@ours
def test_a_callback_sees_every_point_and_stops(name: str) -> None:
    problem, calls = instrumented(tanh_map(batch=2))
    seen = []

    def callback(iteration: solvers.Iteration) -> bool:
        seen.append(iteration.evaluations)
        return len(seen) == 3

    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-14, callback=callback)
    assert calls.calls == 3
    assert seen == [1, 2, 3]
    assert set(solution.retcode.tolist()) == {ReturnCode.MAX_SECONDS}
    assert "the callback stopped the solve" in solution.message


# -- what is recorded ------------------------------------------------------------------------------


@every_solver
def test_the_trace(name: str) -> None:
    problem = tanh_map(batch=3, scale=0.6)
    solver = solvers.registry.get(name)
    keywords: Any = {"reltol": 1e-6, "max_evaluations": 200}
    none = solvers.solve(problem, solver, trace=None, **keywords)
    summary = solvers.solve(problem, solver, **keywords)
    whole = solvers.solve(problem, solver, trace="per_sample", **keywords)
    assert none.trace is None
    assert summary.trace is not None
    assert whole.trace is not None
    assert torch.equal(none.value, summary.value)
    K = len(summary.trace.evaluations)
    assert summary.trace.residual.shape == (K,)
    assert summary.trace.active.shape == (K,)
    assert whole.trace.residual.shape == (K, 3)
    # The first point is z0, and the summary is the largest of the samples still being solved.
    first = residual(problem, problem.z0).norm(dim=1)
    assert torch.allclose(whole.trace.residual[0].double(), first)
    assert float(summary.trace.residual[0]) == pytest.approx(float(first.max()))
    lowest = whole.trace.residual.nan_to_num(nan=torch.inf).amin(dim=0)
    if name in FOREIGN:  # which go on with the others behind the first point that will do
        assert (summary.residual >= lowest * (1 - 1e-6)).all()
    else:
        assert torch.allclose(lowest.double(), summary.residual, rtol=1e-6)
    assert summary.trace.evaluations[-1] <= summary.stats.evaluations


def test_observers_hear_every_solve_nested_ones_too() -> None:
    inner = tanh_map(batch=2, dim=3, scale=0.5)

    def f(z: Tensor, u: Tensor) -> Tensor:
        solved = solvers.solve(replace(inner, name="inner"), Picard(), reltol=1e-12)
        assert isinstance(solved.value, Tensor)
        return 0.5 * z + 0.1 * solved.value + u

    outer = FixedPointProblem(
        f,
        torch.zeros(2, 3, dtype=torch.float64),
        (torch.ones(2, 3, dtype=torch.float64),),
        samples_independent=False,
        name="outer",
    )
    heard: list[str] = []
    with solvers.observe(lambda s: heard.append(s.problem)):
        solution = solvers.solve(outer, Anderson(), reltol=1e-8)
        with solvers.observe(lambda s: heard.append(s.problem + "!")):
            solvers.solve(replace(inner, name="last"), Picard())
    solvers.solve(inner, Picard())
    count = solution.stats.evaluations
    assert heard == ["inner"] * count + ["outer", "last", "last!"]


def test_an_observer_is_forgotten_when_the_block_fails() -> None:
    heard: list[solvers.Solution] = []
    with pytest.raises(ZeroDivisionError), solvers.observe(heard.append):
        raise ZeroDivisionError
    solvers.solve(tanh_map(batch=1), Picard())
    assert heard == []


def test_a_chain_is_announced_once() -> None:
    heard: list[str] = []
    with solvers.observe(lambda s: heard.append(s.solver.name)):
        solvers.solve(tanh_map(batch=2), Fallback((Broyden(window=1), Anderson())), reltol=1e-12)
    assert heard == ["fallback"]


@ours
def test_products_are_counted(name: str) -> None:
    problem = registry.get("tanh", batch=2, dim=5, dtype="float64", scale=0.5)
    solution = solvers.solve(
        replace(problem, samples_independent=True),  # type: ignore[type-var]
        solvers.registry.get(name),
        reltol=1e-6,
    )
    stats = solution.stats
    if name == "newton":
        # Both samples end together here, so that each step is D products from one trace.
        assert stats.vjps == 5 * stats.iterations
        assert stats.jvps == 0
    elif name == "newton_krylov":
        assert stats.jvps >= stats.iterations
        assert stats.vjps == 0
    else:
        assert (stats.jvps, stats.vjps) == (0, 0)


@ours
def test_a_root_problem_keeps_the_digits_of_g(name: str) -> None:
    """Z + g(z) - z would round a small g to the precision of a large z."""
    shift = 1e8

    def g(z: Tensor) -> Tensor:
        return torch.tanh((shift - z) / 2)

    problem = RootProblem(g, torch.full((2, 1), shift + 0.7, dtype=torch.float64))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert solution.success
    # Rounding of 1e8 in float64 is 1.5e-8.
    assert (solution.value - shift).abs().max() <= 1e-6


def test_nothing_of_the_problem_is_changed() -> None:
    problem = tanh_map(batch=4)
    kept = [t.clone() for t in (problem.z0, *problem.args, *problem.params)]
    for name in ALL:
        solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    for before, after in zip(kept, (problem.z0, *problem.args, *problem.params), strict=True):
        assert isinstance(after, Tensor)
        assert torch.equal(before, after)
        assert not after.requires_grad


def test_the_value_is_no_view_of_the_start() -> None:
    # A start that is the solution is returned, not lent.
    problem = tanh_map(batch=2, scale=0.5)
    exact = replace(problem, z0=problem.solutions[0])
    for name in ALL:
        solution = solvers.solve(exact, solvers.registry.get(name), reltol=1e-6)
        assert isinstance(solution.value, Tensor)
        kept = exact.z0.clone()  # type: ignore[union-attr]
        solution.value.add_(1)
        assert torch.equal(exact.z0, kept), name  # type: ignore[arg-type]


@ours
def test_cells_see_the_grad_mode_of_the_caller(name: str) -> None:
    """`solve` builds no graph of its own accord."""
    problem = tanh_map(batch=2, scale=0.5)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert not pack(problem, solution.value).requires_grad
    assert torch.is_grad_enabled()
    part = sub(problem, [0])
    assert jacobian(part, pack(part, part.z0)).shape == (1, 6, 6)
