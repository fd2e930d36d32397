"""What holds of every solver of ours with every option, whatever dtype, shape and structure."""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import (
    NATIVE,
    OURS,
    Calls,
    as_on_accelerator,
    codes,
    instrumented,
    native,
    pack,
    reads,
    residual,
    scaled,
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
    NewtonKrylov,
    Picard,
    ReturnCode,
    Solver,
)
from solvers.inverse import LowRank
from solvers.problems import registry
from solvers.solver import READ_EVERY

SUCCESS = ReturnCode.SUCCESS
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# The shapes of one sample's state: of each part, where it is a tuple.
STRUCTURES: dict[str, tuple[tuple[int, ...], ...]] = {
    "number": ((),),
    "vector": ((3,),),
    "tensor": ((2, 3, 4),),
    "tuple": ((4,), (2, 3)),
}
every_structure = pytest.mark.parametrize("structure", STRUCTURES)
BROYDEN = [label for label, s in NATIVE.items() if isinstance(s, Broyden)]
STEPPED = [label for label, s in NATIVE.items() if isinstance(s, Solver)]
stepped = pytest.mark.parametrize("label", STEPPED)


def contraction(
    structure: str,
    dtype: str = "float64",
    *,
    batch: int = 3,
    scale: float = 0.7,
    seed: int = 0,
    constant: bool = False,
) -> FixedPointProblem:
    """tanh(W z + u) with ‖W‖ = scale, or u itself, for a state of this structure."""
    shapes = STRUCTURES[structure]
    sizes = [math.prod(s) for s in shapes]
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(sum(sizes), sum(sizes), generator=g, dtype=torch.float64)
    W = (scale / torch.linalg.matrix_norm(W, ord=2) * W).to(DTYPES[dtype])
    u = torch.randn(batch, sum(sizes), generator=g, dtype=torch.float64).to(DTYPES[dtype])

    def split(flat: Tensor) -> Any:
        parts = flat.split(sizes, dim=1)
        state = tuple(p.reshape(len(flat), *s) for p, s in zip(parts, shapes, strict=True))
        return state if structure == "tuple" else state[0]

    def f(z: Any, u: Tensor, W: Tensor) -> Any:
        if constant:
            return split(u.clone())
        parts = z if isinstance(z, tuple) else (z,)
        flat = torch.cat([p.reshape(len(p), -1) for p in parts], dim=1)
        return split(torch.tanh(flat @ W.T + u))

    z0 = split(torch.zeros_like(u))
    return FixedPointProblem(f, z0, (u,), (W,), samples_independent=True)


def test_no_solver_of_ours_is_left_out() -> None:
    assert {s.name for s in NATIVE.values()} == set(OURS)
    assert {solvers.registry.get(n) for n in OURS} <= set(NATIVE.values())


# -- the answer ------------------------------------------------------------------------------------


@every_structure
@pytest.mark.parametrize("dtype", DTYPES)
@native
def test_a_constant_map_is_answered_exactly(label: str, dtype: str, structure: str) -> None:
    problem, calls = instrumented(contraction(structure, dtype, constant=True))
    eps, solver = torch.finfo(DTYPES[dtype]).eps, NATIVE[label]
    # A damped step leaves a part of the way, and GMRES divides by a length and multiplies again.
    damped, inexact = label.endswith("damped"), isinstance(solver, NewtonKrylov)
    solution = solvers.solve(problem, solver, reltol=10 * eps if damped or inexact else 0.0)
    assert solution.success, solution.message
    u = problem.args[0]
    if damped:
        assert (pack(problem, solution.value) - u).abs().max() <= 20 * eps * u.abs().max() * 5
    elif inexact:
        assert torch.allclose(pack(problem, solution.value), u, rtol=4 * eps, atol=0)
    else:
        assert torch.equal(pack(problem, solution.value), u)
        assert calls.calls == 2


@every_structure
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@native
def test_the_best_point_is_returned_and_everything_counted(
    label: str, dtype: str, structure: str
) -> None:
    """Far from a contraction too, where residuals go up and down."""
    eps = torch.finfo(DTYPES[dtype]).eps
    for scale, budget in ((0.7, 100), (3.0, 12)):
        base = contraction(structure, dtype, scale=scale, seed=2)
        problem, calls = instrumented(base)
        solution = solvers.solve(
            problem, NATIVE[label], reltol=1000 * eps, max_evaluations=budget, trace="per_sample"
        )
        if scale < 1:
            assert solution.success, solution.message
        stats = solution.stats
        assert stats.evaluations == calls.calls <= budget
        assert stats.sample_evaluations.tolist() == calls.samples.tolist()

        value = pack(problem, solution.value)
        assert type(solution.value) is type(problem.z0)
        assert value.dtype == DTYPES[dtype]
        # Some units of rounding at the size of f: other rows may be in another batch.
        rounding = 30 * eps * (1 + value.norm(dim=1))
        again = residual(base, solution.value).norm(dim=1)
        assert ((again - solution.residual).abs() <= rounding).all()
        for i in range(base.batch):
            part, course = sub(base, [i]), calls.course(i)
            # Whatever was evaluated as this sample is the sample's.
            sizes = torch.stack([residual(part, _state(part, point)).norm() for point in course])
            assert (course == value[i]).all(dim=1).any()
            assert solution.residual[i] <= sizes.min() + rounding[i]


def _state(problem: FixedPointProblem, point: Tensor) -> Any:
    """The state of one sample, from its numbers."""
    parts = problem.z0 if isinstance(problem.z0, tuple) else (problem.z0,)
    pieces = point.split([p[0].numel() for p in parts])
    state = tuple(x.reshape(p.shape) for x, p in zip(pieces, parts, strict=True))
    return state if isinstance(problem.z0, tuple) else state[0]


@native
def test_a_looser_tolerance_costs_no_more_and_a_tighter_one_leaves_no_more(label: str) -> None:
    # Alone: in a batch that others leave earlier the last digits differ.
    problem = tanh_map(batch=1, dim=12, scale=0.7, seed=1)
    found = [
        solvers.solve(problem, NATIVE[label], reltol=10.0**-e, max_evaluations=400)
        for e in range(1, 11)
    ]
    assert all(s.success for s in found)
    for loose, tight in itertools.pairwise(found):
        assert (tight.residual <= loose.residual).all()
        if not label.startswith("newton_krylov"):  # whose steps aim at the tolerance
            assert loose.stats.evaluations <= tight.stats.evaluations
            assert loose.stats.vjps <= tight.stats.vjps


# -- neighbours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@native
def test_neighbours_have_no_influence(label: str, dtype: str) -> None:
    """In another order, twice, or beside a sample that fails: the others go the same way."""
    base = tanh_map(batch=5, dim=6, scale=0.6, seed=3, dtype=dtype)
    reltol = {"float64": 1e-9, "float32": 1e-4}[dtype]

    def sick(out: Tensor, index: Tensor, calls: Calls) -> Tensor:
        # Sample 4 grows tenfold an evaluation.
        grown = 10.0 ** calls.samples[index].to(out.dtype)
        return torch.where((index == 4)[:, None], grown[:, None] * (1 + out.abs()), out)

    # The rows of each batch, and where samples 0 to 3 stand in it.
    batches: dict[str, tuple[list[int], list[int], Any]] = {
        "order": ([3, 0, 2, 1], [1, 3, 2, 0], None),
        "twice": ([0, 0, 1, 1, 2, 3, 3], [1, 3, 4, 6], None),
        "failing": ([0, 1, 2, 3, 4], [0, 1, 2, 3], sick),
    }
    plain, calls = instrumented(sub(base, [0, 1, 2, 3]))
    alone = solvers.solve(plain, NATIVE[label], reltol=reltol, max_evaluations=150)
    assert alone.success, alone.message
    steps = [len(calls.course(i)) for i in range(4)]
    # ‖W‖ is at most 1.2, its slope at the solution less: 1 / (1 - J) amplifies the tolerance.
    atol = {"float64": 1e-12, "float32": 10 * reltol}[dtype]
    for kind, (rows, places, change) in batches.items():
        problem, calls = instrumented(sub(base, rows), change)
        solution = solvers.solve(problem, NATIVE[label], reltol=reltol, max_evaluations=150)
        assert [codes(solution)[k] for k in places] == [SUCCESS] * 4, kind
        assert torch.allclose(
            pack(problem, solution.value)[places], pack(plain, alone.value), rtol=0, atol=atol
        ), kind
        if dtype == "float64":
            assert [len(calls.course(k)) for k in places] == steps, kind
        if change is not None:
            assert codes(solution)[4] is not SUCCESS


@pytest.mark.parametrize("accelerator", [False, True])
@native
def test_a_nan_costs_two_more_evaluations_and_the_others_none(
    label: str, accelerator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, sick, others = NATIVE[label], 2, [0, 1, 3]
    if accelerator:
        as_on_accelerator(monkeypatch)
    healthy = tanh_map(batch=4, scale=0.7, seed=1)
    whole, calls = instrumented(healthy)
    expected = solvers.solve(whole, solver, reltol=1e-10, max_evaluations=200)
    steps = [len(calls.course(i)) for i in others]
    for step in (1, 2, 3, 4):

        def spoil(out: Tensor, index: Tensor, calls: Calls, step: int = step) -> Tensor:
            bad = (index == sick) & (calls.samples[index] >= step)
            return torch.where(bad[:, None], torch.nan, out)

        problem, calls = instrumented(healthy, spoil)
        solution = solvers.solve(problem, solver, reltol=1e-10, max_evaluations=200)
        assert codes(solution)[sick] is ReturnCode.NONFINITE
        # Up to the next look, for each solver of a chain; where others ended, a linearisation is
        # traced once more.
        attempts = len(solution.attempts) or 1
        looks = (READ_EVERY - 1) * accelerator
        traced = "linearise" in solver.requires
        first = attempts - 1  # of a chain begin at z0 again
        assert int(calls.samples[sick]) - step <= 2 + looks + traced + first
        # What is returned is the best of the points before.
        before = calls.course(sick)[: max(step - 1, 1)]
        sizes = residual(sub(healthy, [sick] * len(before)), before).norm(dim=1)
        best = before[int(sizes.argmin())]
        assert torch.equal(solution.value[sick], best)

        assert [codes(solution)[i] for i in others] == [SUCCESS] * 3
        # The same arithmetic in a batch of another size, amplified by the slope.
        assert torch.allclose(solution.value[others], expected.value[others], rtol=0, atol=1e-9)
        assert [len(calls.course(i)) for i in others] == steps


# -- reads of the device, budgets ------------------------------------------------------------------


@pytest.mark.parametrize("independent", [True, False, None])
@native
def test_an_accelerator_is_read_every_few_evaluations(
    label: str, independent: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_accelerator(monkeypatch)
    # Samples end at different points, so that the batch is restricted several times.
    problem = replace(tanh_map(batch=6, dim=12, scale=0.7), samples_independent=independent)
    with reads() as seen:
        solution = solvers.solve(problem, NATIVE[label], reltol=1e-8, max_evaluations=200)
    assert solution.success, solution.message
    # A chain looks at the end of each attempt whether all succeeded, and whether time is up.
    ends = 2 * len(solution.attempts)
    assert len(seen) <= solution.stats.evaluations / READ_EVERY + 2 + ends
    assert solution.stats.syncs <= len(seen) <= solution.stats.syncs + ends


@stepped
def test_a_fixed_budget_is_used_up_and_nothing_is_read(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_accelerator(monkeypatch)
    traces: tuple[Any, ...] = ("summary", "per_sample")
    for independent, trace in zip((True, False), traces, strict=True):
        base = replace(tanh_map(batch=3, scale=0.9), samples_independent=independent)
        problem, calls = instrumented(base)
        with reads() as seen:
            solution = solvers.solve(
                problem, NATIVE[label], max_evaluations=14, fixed_budget=True, trace=trace
            )
            done = list(seen)  # the caller's own reads are no part of it
        # The instrument itself counts on the host.
        assert [r for r in done if r != "tolist"] == []
        assert solution.stats.syncs == 0
        assert solution.stats.evaluations == calls.calls == 14


@stepped
def test_a_fixed_budget_is_the_same_solve(label: str) -> None:
    """Where nothing stops the usual one, all numbers are the same."""
    # Newton's residual is zero after six.
    budgets = (1, 2, 4) if "linearise" in NATIVE[label].requires else (1, 2, 9)
    for scale, budget in itertools.product((0.9, 2.0), budgets):
        problem = tanh_map(batch=3, dim=8, scale=scale, seed=1)
        keywords: dict[str, Any] = {"reltol": 0.0, "max_evaluations": budget}
        usual = solvers.solve(problem, NATIVE[label], **keywords)
        assert usual.stats.evaluations == budget
        fixed = solvers.solve(problem, NATIVE[label], fixed_budget=True, **keywords)
        assert fixed.stats.evaluations == budget
        assert torch.equal(fixed.value, usual.value)  # type: ignore[arg-type]
        assert torch.equal(fixed.residual, usual.residual)


# -- units, precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["tanh", "linear"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@native
def test_units_have_no_influence(label: str, dtype: str, which: str) -> None:
    problem = replace(  # type: ignore[type-var]
        registry.get(which, batch=4, dtype=dtype, seed=3), samples_independent=True
    )
    assert isinstance(problem, FixedPointProblem)
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    found = []
    for c in (1.0, 2.0**-40, 2.0**-7, 2.0**40):
        found.append(
            solvers.solve(
                scaled(problem, c),
                NATIVE[label],
                reltol=tolerance,
                abstol=tolerance * c,
                max_evaluations=100,
            )
        )
        one, other = found[0], found[-1]
        assert one.retcode.tolist() == other.retcode.tolist()
        assert one.stats.sample_evaluations.tolist() == other.stats.sample_evaluations.tolist()
        assert torch.equal(other.value / c, one.value)  # type: ignore[arg-type,operator]
        assert torch.equal(other.residual / c, one.residual)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@every_structure
@native
def test_half_precision_states_get_to_their_floor(
    label: str, structure: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = contraction(structure, dtype, scale=0.5)
    solver, eps = NATIVE[label], torch.finfo(DTYPES[dtype]).eps
    seen: list[torch.dtype] = []
    for one in solver.solvers if isinstance(solver, Fallback) else (solver,):
        step = type(one).step  # type: ignore[attr-defined]

        def watched(self: Any, state: Any, z: Tensor, *rest: Any, _step: Any = step) -> Any:
            out, state = _step(self, state, z, *rest)
            seen.extend((z.dtype, rest[0].dtype, out.dtype))
            return out, state

        monkeypatch.setattr(type(one), "step", watched)
    # Two units: z and f(z) are rounded once each.
    solution = solvers.solve(problem, solver, reltol=2 * eps, max_evaluations=100)
    assert solution.success, solution.message
    value = pack(problem, solution.value)
    assert value.dtype == DTYPES[dtype]
    assert set(seen) == {torch.float32}
    assert solution.residual.dtype == torch.float32
    # The answer is the fixed point to that precision: the residual over 1 - 0.5.
    wide = contraction(structure, "float64", scale=0.5)
    u, W = (t.double() for t in (problem.args[0], problem.params[0]))
    exact = pack(
        wide,
        solvers.solve(replace(wide, args=(u,), params=(W,)), Anderson(), reltol=1e-12).value,
    )
    size = exact.norm(dim=1)
    assert ((value.double() - exact).norm(dim=1) <= 2 * (2 + 2) * eps * size).all()


# -- state between and around solves ---------------------------------------------------------------


@native
def test_a_solver_keeps_nothing_between_solves(label: str) -> None:
    solver = NATIVE[label]
    one, two = tanh_map(batch=4, scale=0.9, seed=1), tanh_map(batch=2, dim=9, scale=1.2, seed=5)
    first = solvers.solve(one, solver, reltol=1e-8)
    solvers.solve(two, solver, reltol=1e-8)
    again = solvers.solve(one, solver, reltol=1e-8)
    assert torch.equal(first.value, again.value)  # type: ignore[arg-type]
    assert first.stats.sample_evaluations.tolist() == again.stats.sample_evaluations.tolist()


@stepped
def test_interleaved_solves_do_not_disturb_each_other(label: str) -> None:
    solver: Any = NATIVE[label]
    problems = [tanh_map(batch=3, dim=7, scale=0.9, seed=s) for s in (1, 2)]
    apart = [solvers.solve(p, solver, reltol=1e-8) for p in problems]
    running = [solvers.init(p, solver, reltol=1e-8) for p in problems]
    turns: list[Iterator[Any]] = [iter(r) for r in running]
    while turns:
        turns = [t for t in turns if next(t, None) is not None]
    for alone, mixed in zip(apart, running, strict=True):
        assert torch.equal(alone.value, mixed.solution.value)  # type: ignore[arg-type]
        assert alone.stats.evaluations == mixed.solution.stats.evaluations


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_structure
@native
def test_without_grad_it_is_the_same_solve(label: str, structure: str, mode: Any) -> None:
    problem = contraction(structure)
    usual = solvers.solve(problem, NATIVE[label], reltol=1e-8, keep_inverse=True)
    with mode():
        other = solvers.solve(problem, NATIVE[label], reltol=1e-8, keep_inverse=True)
    assert torch.equal(pack(problem, usual.value), pack(problem, other.value))
    assert usual.stats.sample_evaluations.tolist() == other.stats.sample_evaluations.tolist()


@pytest.mark.parametrize("fixed_budget", [False, True])
@pytest.mark.parametrize("mapped", ["start", "args", "closure"])
@native
def test_under_vmap_it_says_what_to_do(label: str, mapped: str, fixed_budget: bool) -> None:
    base = tanh_map(batch=2)
    (u,), (W,) = base.args, base.params
    z0 = base.z0
    assert isinstance(z0, Tensor)

    def solve(x: Tensor) -> Any:
        start, args = (z0 + x, (u,)) if mapped == "start" else (z0, (u + x,))
        if mapped == "closure":
            problem = FixedPointProblem(lambda z: torch.tanh(z @ W.T + u + x), z0)
        else:
            problem = FixedPointProblem(base.f, start, args, (W,))
        return solvers.solve(problem, NATIVE[label], fixed_budget=fixed_budget).value

    with pytest.raises(RuntimeError, match=r"torch\.func\.vmap.*use implicit\.solve"):
        torch.func.vmap(solve)(torch.zeros(3, 1, dtype=torch.float64))


# Without a compiler there is nothing to test.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs a C++ compiler",
)
def test_a_compiled_function_is_the_same_function() -> None:
    problem = tanh_map(batch=3, scale=0.9)
    for solver in (Picard(), Broyden()):
        eager = solvers.solve(problem, solver, reltol=1e-8)
        compiled = solvers.solve(problem, solver, reltol=1e-8, compile=True)
        # tanh by other instructions: units of rounding, amplified by 1 / (1 - 0.9).
        assert torch.allclose(eager.value, compiled.value, rtol=0, atol=1e-12)  # type: ignore[arg-type]
        assert eager.stats.sample_evaluations.tolist() == compiled.stats.sample_evaluations.tolist()


# -- Broyden's matrix ------------------------------------------------------------------------------


def _unused() -> Any:
    raise AssertionError("no derivative is asked for")


def secant_errors(solver: Broyden, problem: FixedPointProblem, steps: int) -> list[float]:
    """The error of K y = -s for the newest pair at each point, over the length of s."""
    z = pack(problem, problem.z0)
    r = residual(problem, z)
    last: tuple[Tensor, Tensor] | None = None
    errors: list[float] = []
    with torch.no_grad():
        state = solver.init(z, z + r)
        for _ in range(steps):
            new, state = solver.step(state, z, z + r, _unused)
            if last is not None:
                s, y = z - last[0], r - last[1]
                error = (solver.inverse(state)(y) + s).norm(dim=1) / s.norm(dim=1)
                errors.append(float(error.max()))
            last = z, r
            z, r = new, residual(problem, new)
            # y is a difference of residuals: below this, of their rounding.
            if float(r.norm(dim=1).min()) < 1e-3:
                break
    return errors


@pytest.mark.parametrize("scale", [0.9, 1.5])
@pytest.mark.parametrize("label", [x for x in BROYDEN if x != "broyden 10"])
def test_the_secant_equation_holds_after_the_window_is_full(label: str, scale: float) -> None:
    solver = NATIVE[label]
    assert isinstance(solver, Broyden)
    problem = tanh_map(batch=3, dim=40, scale=scale, seed=2)
    if solver.line_search:
        # Whose rejected steps are no pairs: here all are taken.
        problem = tanh_map(batch=3, dim=40, scale=0.9, seed=2)
    errors = secant_errors(solver, problem, 40)
    assert len(errors) > 2 * (solver.window or 1)
    assert max(errors) < 1e-12


@pytest.mark.parametrize("kind", ["bad", "good"])
def test_the_window_of_ten_is_reduced_too(kind: Any) -> None:
    # A spectrum that takes more updates than 2 · 10 vectors hold.
    lam = torch.linspace(-3, 0.95, 60, dtype=torch.float64)
    b = torch.ones(2, 60, dtype=torch.float64)
    problem = FixedPointProblem(lambda z, b: lam * z + b, torch.zeros_like(b), (b,))
    errors = secant_errors(Broyden(window=10, kind=kind), problem, 60)
    assert len(errors) > 30
    # K has the norm 20 here, and is a sum of terms that are larger still.
    assert max(errors) < 1e-11


def diagonal(batch: int = 2, dim: int = 3000) -> FixedPointProblem:
    """A linear map that takes many iterations, on a state that is large beside the tables."""
    b = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lam = torch.linspace(-2, 0.95, dim, dtype=torch.float64)
    return FixedPointProblem(
        lambda z, b: lam * z + b, torch.zeros_like(b), (b,), samples_independent=True
    )


@pytest.mark.parametrize("label", BROYDEN)
def test_the_memory_of_broyden(label: str) -> None:
    solver, problem = NATIVE[label], diagonal()
    assert isinstance(solver, Broyden)
    vector = 2 * 3000 * 8
    z = pack(problem, problem.z0)
    # Nothing is allocated before the first step; the bad one keeps the loop's own residual.
    started = solver.init(z, z + residual(problem, z))
    assert solver.memory(started) <= (1.01 if solver.kind == "bad" else 0.01) * vector
    for budget in (2, 5, 12, 45):
        solution = solvers.solve(problem, solver, reltol=0.0, max_evaluations=budget)
        steps, bad = solution.stats.iterations, solver.kind == "bad"
        assert steps == budget - 1
        if solver.window is None:
            # Room grows by a third, at least by 8; the bad one has two vectors an iteration.
            most = (1 + bad) * (steps + max(steps / 3, 8))
        else:
            most = max(2 * solver.window, 5)
        # The last step and residual of the bad one, the base point of the line search.
        most += 2 if bad else int(solver.line_search)
        small = 0.5  # tables of numbers beside vectors of 3000
        assert (solution.stats.history_bytes or 0) / vector <= most + small


# -- what a solve has learnt -----------------------------------------------------------------------


LEARNING = [label for label, s in NATIVE.items() if isinstance(s, Anderson | Broyden | Fallback)]
learning = pytest.mark.parametrize("label", LEARNING)


@learning
def test_the_inverse_is_that_of_each_sample(label: str) -> None:
    # Samples end at different points: pieces of several sizes are put together.
    problem = tanh_map(batch=5, dim=30, scale=0.7, seed=1)
    keywords: dict[str, Any] = {"reltol": 1e-8, "max_evaluations": 300, "keep_inverse": True}
    solution = solvers.solve(problem, NATIVE[label], **keywords)
    assert solution.success
    assert len(set(solution.ended.tolist())) > 1
    K = solution.inverse
    g = torch.Generator().manual_seed(0)
    v, u = torch.randn(2, 5, 30, generator=g, dtype=torch.float64)
    forward, back = K(v), K.transpose(u)
    size = forward.norm(dim=1) * u.norm(dim=1)
    assert (((forward * u).sum(dim=1) - (v * back).sum(dim=1)).abs() <= 1e-11 * size).all()
    for i in range(5):
        alone = solvers.solve(sub(problem, [i]), NATIVE[label], **keywords)
        for ours, whole, x in ((alone.inverse, forward, v), (alone.inverse.transpose, back, u)):
            # The last residuals of 1e-8 are known to eight digits.
            error = (ours(x[i : i + 1])[0] - whole[i]).norm() / whole[i].norm()
            assert error < 1e-6


@pytest.mark.parametrize("dim", [3, 8])
@learning
def test_the_inverse_is_an_operator_where_differences_span_the_state(label: str, dim: int) -> None:
    """More differences than numbers: their Gram matrix is singular, the estimate is not."""
    problem = tanh_map(batch=4, dim=dim, scale=0.7, seed=1)
    solution = solvers.solve(
        problem, NATIVE[label], reltol=1e-9, max_evaluations=300, keep_inverse=True
    )
    assert solution.success
    K = solution.inverse
    g = torch.Generator().manual_seed(0)
    v, u = torch.randn(2, 4, dim, generator=g, dtype=torch.float64)
    forward, back = K(v), K.transpose(u)
    assert ((forward * u).sum(dim=1) - (v * back).sum(dim=1)).abs().max() <= 1e-9


def changed(problem: FixedPointProblem, seed: int) -> FixedPointProblem:
    (u,) = problem.args
    g = torch.Generator().manual_seed(seed)
    return replace(problem, args=(u + 1e-2 * torch.randn(u.shape, generator=g, dtype=u.dtype),))


@pytest.mark.parametrize("dim", [8, 40])
@native
def test_a_warm_start_with_the_inverse_costs_no_more(label: str, dim: int) -> None:
    problem = tanh_map(batch=4, dim=dim, scale=0.7, seed=1)
    before = solvers.solve(
        problem, NATIVE[label], reltol=1e-8, max_evaluations=300, keep_inverse=True
    )
    counts: dict[bool, list[int]] = {True: [], False: []}
    for seed in range(5):
        for known in (True, False):
            solution = solvers.solve(
                changed(problem, seed),
                NATIVE[label],
                reltol=1e-8,
                max_evaluations=300,
                start=before if known else replace(before, inverse=None),
            )
            assert solution.success
            counts[known].append(solution.stats.evaluations)
    # What a window of one or three keeps is soon overwritten: an evaluation more or less.
    soon = 1 if getattr(NATIVE[label], "window", None) in (1, 3) else 0
    assert statistics.median(counts[True]) <= statistics.median(counts[False]) + soon
    if label in ("broyden", "broyden bad", "fallback"):
        assert statistics.median(counts[True]) < statistics.median(counts[False])


def test_an_inverse_of_another_solver_preconditions() -> None:
    problem = tanh_map(batch=4, dim=40, scale=0.9, seed=1)
    before = solvers.solve(problem, Broyden(), reltol=1e-8, keep_inverse=True)
    assert isinstance(before.inverse, LowRank)
    for seed in range(3):
        known, plain = (
            solvers.solve(changed(problem, seed), NewtonKrylov(), reltol=1e-8, start=start)
            for start in (before, replace(before, inverse=None))
        )
        assert known.success
        assert known.stats.jvps < plain.stats.jvps


# -- freezing --------------------------------------------------------------------------------------


def easy_to_hard(batch: int = 24, dim: int = 12) -> FixedPointProblem:
    """Rotations by a slope of each sample's own, from 0.1 to 0.995, a little bent."""
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]
    b = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    gap = torch.logspace(math.log10(0.9), math.log10(0.005), batch, dtype=torch.float64)[:, None]

    def f(z: Tensor, b: Tensor, slope: Tensor, Q: Tensor) -> Tensor:
        return slope * (z @ Q.T) + 0.001 * torch.sin(z) + b

    return FixedPointProblem(f, torch.zeros_like(b), (b, 1 - gap), (Q,), samples_independent=True)


# Windows of 1 and 3 do not get there where the slope is near 1, nor does the search of Li and
# Fukushima, which ends at steps too short.
@pytest.mark.parametrize(
    "label",
    [
        x
        for x in NATIVE
        if getattr(NATIVE[x], "window", None) not in (1, 3) and x != "broyden line search"
    ],
)
def test_a_batch_from_easy_to_hard_costs_what_its_samples_cost(label: str) -> None:
    keywords: dict[str, Any] = {"reltol": 1e-6, "max_evaluations": 8000}
    problem, calls = instrumented(easy_to_hard())
    frozen = solvers.solve(problem, NATIVE[label], **keywords)
    assert frozen.success, frozen.message
    for i in (0, 8, 16, 23):
        part, own = instrumented(sub(easy_to_hard(), [i]))
        alone = solvers.solve(part, NATIVE[label], **keywords)
        # Where many steps are taken, rounding may decide whether one more is needed.
        steps = len(own.course(0))
        assert abs(len(calls.course(i)) - steps) <= max(1, steps // 10)
        # Both residuals are at most 1e-6 of the scale, and the slope of z - f(z) at least 0.004.
        distance = (frozen.value[i] - alone.value[0]).norm()  # type: ignore[index]
        assert distance <= 2 * 1e-6 * float(alone.scale) / 0.004


@pytest.mark.parametrize("solver", [Picard(), Picard(mixing=0.7)])
def test_freezing_saves_most_of_such_a_batch(solver: Picard) -> None:
    problem = easy_to_hard()
    frozen, whole = (
        solvers.solve(
            replace(problem, samples_independent=independent),
            solver,
            reltol=1e-6,
            max_evaluations=8000,
        )
        for independent in (True, False)
    )
    assert frozen.success
    assert whole.success
    # Together all are iterated until the last is done, by the same steps.
    assert whole.stats.evaluations == frozen.stats.evaluations
    spent, all_of_them = (int(s.stats.sample_evaluations.sum()) for s in (frozen, whole))
    assert all_of_them == problem.batch * whole.stats.evaluations
    assert spent <= 0.3 * all_of_them
    distance = (frozen.value - whole.value).norm(dim=1)  # type: ignore[operator]
    assert (distance <= 2 * 1e-6 * frozen.scale / 0.004).all()
