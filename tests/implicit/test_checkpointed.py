"""Checkpointed: the gradient of Unrolled from some states, at one more evaluation for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cells
import numpy as np
import pytest
import torch
from cells import FOREIGN, NATIVE, Cell, forward_mode, injection, relative, weights
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Checkpointed, Gradient, Unrolled
from implicit.memory import allocated_bytes, saved_bytes
from solvers import Anderson, FixedPointProblem, NewtonKrylov, Picard, RootProblem
from solvers.options import OptionError
from solvers.problems import registry as problems

OURS = [*NATIVE, "fallback"]
SEGMENTS: list[Any] = ["sqrt", 1, 3, 1000, "recursive"]

ours = pytest.mark.parametrize("name", OURS)
every_segments = pytest.mark.parametrize("segments", SEGMENTS)


def solver_of(name: str) -> Any:
    # Three products in each step, so that the number of them does not jump under gradcheck.
    return NewtonKrylov(inner=3) if name == "newton_krylov" else solvers.registry.get(name)


def given(dim: int = 4, norm: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    u, W = injection(3, dim).requires_grad_(), weights(dim, norm).requires_grad_()
    return u, W, (0.1 * injection(3, dim, seed=4)).requires_grad_()


def solve(
    tensors: tuple[Tensor, Tensor, Tensor], solver: Any, gradient: Any, **options: Any
) -> solvers.Solution:
    u, W, z0 = tensors
    problem = FixedPointProblem(cells.f, z0, (u,), (W,))
    return implicit.solve(problem, solver, gradient, **options)


def gradients(solution: solvers.Solution, tensors: Any) -> tuple[Tensor, ...]:
    assert isinstance(solution.value, Tensor)
    return torch.autograd.grad(torch.sin(solution.value).sum(), tensors)


@ours
@every_segments
@pytest.mark.parametrize(
    "options",
    [
        {"reltol": 0.0, "max_evaluations": 1},
        {"reltol": 0.0, "max_evaluations": 7},
        {"reltol": 1e-10, "max_evaluations": 300},
        {"reltol": 1e-6, "max_evaluations": 20, "norm": "rms"},
    ],
)
def test_the_gradient_of_unrolled(name: str, segments: Any, options: dict[str, Any]) -> None:
    """To rounding, whether the evaluations are spent or the tolerance stops it in a segment."""
    tensors = given()
    first = solve(tensors, solver_of(name), Unrolled(), **options)
    second = solve(tensors, solver_of(name), Checkpointed(segments=segments), **options)
    assert torch.equal(first.value, second.value)  # type: ignore[arg-type]
    assert first.stats.evaluations == second.stats.evaluations
    assert first.retcode.tolist() == second.retcode.tolist()
    for got, right in zip(gradients(second, tensors), gradients(first, tensors), strict=True):
        # Sums over segments; the near singular systems of a solver at rounding amplify them.
        assert torch.allclose(got, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("segments", ["sqrt", "recursive"])
def test_derivatives_of_both_orders(name: str, segments: Any) -> None:
    u, W, z0 = injection(1, 2), weights(2, 0.9), 0.1 * injection(1, 2, seed=4)
    tensors = tuple(t.requires_grad_() for t in (u, W, z0))

    def solved(*tensors: Any) -> Any:
        gradient = Checkpointed(segments=segments)
        return solve(tensors, solver_of(name), gradient, reltol=0.0, max_evaluations=2).value

    # As for Unrolled: differences with a step of 1e-6.
    close: Any = {"atol": 1e-6, "rtol": 1e-5}
    assert torch.autograd.gradcheck(solved, tensors, **close)
    assert torch.autograd.gradgradcheck(solved, tensors, **close)


@pytest.mark.parametrize("name", NATIVE)
def test_both_orders_from_a_solve_down_to_rounding(name: str) -> None:
    u, W, z0 = injection(1, 2), weights(2, 0.6), 0.1 * injection(1, 2, seed=4)
    tensors = tuple(t.requires_grad_() for t in (u, W, z0))

    def solved(*tensors: Any) -> Any:
        solver = solver_of(name)
        return solve(tensors, solver, Checkpointed(), reltol=1e-13, max_evaluations=300).value

    # Where a step more is taken it moves z by 1e-13 / 1e-6.
    close: Any = {"atol": 1e-6, "rtol": 1e-5}
    assert torch.autograd.gradcheck(solved, tensors, **close)
    assert torch.autograd.gradgradcheck(solved, tensors, **close)


def test_third_derivatives_are_those_of_unrolled() -> None:
    def third(gradient: Any) -> Tensor:
        u, W, z0 = given(4)
        z: Any = solve((u, W, z0), Anderson(), gradient, reltol=0.0, max_evaluations=3).value
        out = torch.sin(z).sum()
        for _ in range(3):
            (dW,) = torch.autograd.grad(out, W, create_graph=True)
            out = dW.square().sum()
        return out.detach()

    assert torch.allclose(third(Checkpointed()), third(Unrolled()), rtol=1e-9)  # sums of sums


def test_twice_through_the_same_graph() -> None:
    tensors = given()
    z = solve(tensors, Anderson(), Checkpointed(), reltol=1e-8).value
    assert isinstance(z, Tensor)
    once = torch.autograd.grad(z.sum(), tensors, retain_graph=True)
    again = torch.autograd.grad(z.sum(), tensors)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


# -- cost -----------------------------------------------------------------------------------------


def mlp_like(L: int, gradient: Any, solver: Any = None) -> tuple[int, Any, Any, solvers.Solution]:
    """Return bytes of a state, and of a solve of L evaluations what it keeps and its peaks."""
    g = torch.Generator().manual_seed(0)
    W = (torch.randn(64, 64, generator=g) / 9).requires_grad_()
    u = torch.randn(32, 64, generator=g).requires_grad_()
    problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)
    with saved_bytes(exclude=(u, W)) as saved, allocated_bytes() as allocated:
        solution = implicit.solve(
            problem,
            solver or Picard(),
            gradient,
            reltol=0.0,
            max_evaluations=L,
            fixed_budget=True,
            trace=None,
        )
        assert isinstance(solution.value, Tensor)
        loss, kept = solution.value.sum(), saved.bytes
        allocated.phase()
        torch.autograd.grad(loss, (u, W))
        backward = allocated.phase()
    return u.nbytes, kept, backward.peak, solution


@pytest.mark.parametrize("L", [25, 100, 196])
def test_it_keeps_a_state_for_each_of_the_segments(L: int) -> None:
    state, kept, _, solution = mlp_like(L, Checkpointed())
    assert kept == pytest.approx(math.sqrt(L) * state, rel=0.15)
    # Each evaluation of the graph once more, and none beside.
    assert solution.stats.evaluations == L + 1
    assert solution.record.stats is not None
    assert solution.record.stats.evaluations == L
    assert solution.record.stats.sample_evaluations.tolist() == [L] * 32


def test_unrolled_keeps_bytes_linear_in_the_evaluations() -> None:
    counts = [5, 10, 20, 40, 80]
    kept = [mlp_like(L, Unrolled())[1] for L in counts]
    assert np.corrcoef(counts, kept)[0, 1] ** 2 > 0.999


@pytest.mark.parametrize("solver", [Picard(), Anderson(window=2)])
def test_the_square_root_of_segments_has_the_least_peak(solver: Any) -> None:
    L = 36
    peaks = {n: mlp_like(L, Checkpointed(segments=n), solver)[2] for n in (1, 4, 5, 7, 9, L)}
    _, _, peak, _ = mlp_like(L, Checkpointed(), solver)
    assert peak <= 1.15 * min(peaks.values())
    assert peak < 0.6 * min(peaks[1], peaks[L])


def test_halving_takes_the_memory_of_a_logarithm() -> None:
    counts = [16, 64, 256]
    measured = [mlp_like(L, Checkpointed(segments="recursive")) for L in counts]
    for (state, kept, _, solution), L in zip(measured, counts, strict=True):
        assert kept <= (math.log2(L) + 2) * state
        assert solution.record.stats is not None
        assert solution.record.stats.evaluations <= L * (1 + math.log2(L) / 2)
    peaks = [peak for _, _, peak, _ in measured]
    # Four times the evaluations are two more halvings, as many more states each time.
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0], rel=0.5)
    assert peaks[2] < math.log(256, 16) * peaks[0]


def test_a_solve_that_stops_early_leaves_segments_out() -> None:
    tensors = given()
    solution = solve(tensors, Picard(), Checkpointed(segments=50), reltol=1e-4, max_evaluations=500)
    steps = solution.stats.iterations
    assert solution.success
    assert steps < 60
    gradients(solution, tensors)
    assert solution.record.stats is not None
    assert solution.record.stats.evaluations == steps


# -- the same function ----------------------------------------------------------------------------


class Noisy(nn.Module):
    """Dropout inside, so that the way back has to meet the same masks."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.dropout(torch.tanh(z @ self.W.T), 0.5, True) + u


@every_segments
def test_random_numbers_are_the_same_on_the_way_back(segments: Any) -> None:
    cell, u = Noisy(), injection().requires_grad_()

    def of(gradient: Any) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        layer = DEQ(cell, solver=Picard(), gradient=gradient, reltol=0.0, max_evaluations=7)
        z = layer(u)
        torch.manual_seed(4)  # whatever the caller draws meanwhile
        before = torch.get_rng_state()
        found = torch.autograd.grad(z.sin().sum(), (u, cell.W))
        assert torch.equal(torch.get_rng_state(), before)
        return (z, *found)

    for got, right in zip(of(Checkpointed(segments=segments)), of(Unrolled()), strict=True):
        assert torch.allclose(got, right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["picard", "anderson", "broyden"])
def test_autocast_is_the_same_on_the_way_back(name: str) -> None:
    cell, u = Cell().float(), injection().float().requires_grad_()

    def of(gradient: Any) -> tuple[Tensor, ...]:
        layer = DEQ(cell, solver=solver_of(name), gradient=gradient, reltol=0.0, max_evaluations=5)
        with torch.autocast("cpu", torch.bfloat16):
            z = layer(u)
        return (z, *torch.autograd.grad(z.sin().sum(), (u, cell.W)))

    for got, right in zip(of(Checkpointed()), of(Unrolled()), strict=True):
        # The products of bfloat16 are summed over steps in float32 here, and there in bfloat16.
        assert relative(got.detach(), right.detach()) < 1e-2


def test_half_precision() -> None:
    cell, u = Cell().bfloat16(), injection().bfloat16().requires_grad_()

    def of(gradient: Any) -> tuple[Tensor, ...]:
        layer = DEQ(cell, solver=Anderson(), gradient=gradient, reltol=0.0, max_evaluations=5)
        z = layer(u)
        return (z, *torch.autograd.grad(z.sum(), (u, cell.W)))

    for got, right in zip(of(Checkpointed()), of(Unrolled()), strict=True):
        assert relative(got.detach().float(), right.detach().float()) < 1e-2  # sums in bfloat16


# -- problems -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("declared", [False, None])
def test_coupled_samples(name: str, declared: bool | None) -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.5 * z + 0.3 * z.mean(dim=0, keepdim=True) + u)

    u = injection(3, 2).requires_grad_()

    def of(gradient: Any) -> tuple[Tensor, ...]:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), samples_independent=declared)
        z: Any = implicit.solve(
            problem, solver_of(name), gradient, reltol=0.0, max_evaluations=3
        ).value
        return torch.autograd.grad(z.sin().sum(), u)

    assert torch.allclose(of(Checkpointed(segments=2))[0], of(Unrolled())[0], rtol=1e-10)


@pytest.mark.parametrize("name", NATIVE)
def test_root_problems(name: str) -> None:
    a = (1.0 + injection(2, 3).abs()).requires_grad_()

    def of(gradient: Any) -> tuple[Tensor, ...]:
        problem = RootProblem(lambda z, a: 0.3 * (a - z * z), torch.ones_like(a), (a,))
        z: Any = implicit.solve(
            problem, solver_of(name), gradient, reltol=0.0, max_evaluations=5
        ).value
        return torch.autograd.grad(z.sum(), a)

    assert torch.allclose(of(Checkpointed())[0], of(Unrolled())[0], rtol=1e-8)  # of 1-D secants


def test_a_state_of_two_tensors() -> None:
    problem = problems.get("tuple_tanh", batch=2, dtype="float64")
    x, y = (t.clone().requires_grad_() for t in problem.args)

    def of(gradient: Any) -> tuple[Tensor, ...]:
        two = FixedPointProblem(problem.function, problem.z0, (x, y), problem.params)
        z: Any = implicit.solve(two, Anderson(), gradient, reltol=0.0, max_evaluations=6).value
        return torch.autograd.grad(z[0].sum() + z[1].sin().sum(), (x, y))

    for got, right in zip(of(Checkpointed()), of(Unrolled()), strict=True):
        assert torch.allclose(got, right, rtol=1e-10)


def test_tensors_that_depend_on_each_other() -> None:
    """What flows from one into another is the caller's graph, and counted once."""

    def of(gradient: Any, *, create: bool) -> Tensor:
        W = weights(3).requires_grad_()
        u = injection(2, 3) @ W
        problem = FixedPointProblem(cells.f, 0.1 * u, (u,), (W,))
        z: Any = implicit.solve(problem, Picard(), gradient, reltol=0.0, max_evaluations=5).value
        (dW,) = torch.autograd.grad(z.sin().sum(), W, create_graph=create)
        return torch.autograd.grad(dW.square().sum(), W)[0] if create else dW

    for create in (False, True):
        got, right = of(Checkpointed(), create=create), of(Unrolled(), create=create)
        assert torch.allclose(got, right, rtol=1e-10)


@pytest.mark.parametrize("name", NATIVE)
def test_where_it_is_only_used(name: str) -> None:
    tensors = given()
    options: Any = {"reltol": 1e-8, "max_evaluations": 40}
    first = solve(tensors, solver_of(name), Checkpointed(), **options)
    with torch.no_grad():
        second = solve(tensors, solver_of(name), Checkpointed(), **options)
    assert not second.value.requires_grad  # type: ignore[union-attr]
    assert torch.allclose(first.value, second.value, atol=1e-12)  # type: ignore[arg-type]
    assert first.stats.evaluations == second.stats.evaluations


def test_the_start_may_be_the_answer() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    z0 = cells.equilibrium(u.detach(), W.detach()).requires_grad_()
    solution = solve((u, W, z0), Picard(), Checkpointed(), reltol=1e-3)
    assert solution.stats.iterations == 0
    du, dW, dz = gradients(solution, (u, W, z0))
    assert torch.equal(dz, z0.detach().cos())
    assert not du.any()
    assert not dW.any()


# -- what it does not do --------------------------------------------------------------------------


@forward_mode
def test_transforms_are_those_of_unrolled() -> None:
    u, W = injection(2, 3), weights(3)

    def of(gradient: Gradient) -> Callable[[Tensor], Any]:
        return lambda u: solve((u, W, torch.zeros_like(u)), Picard(), gradient).value

    for transform in (torch.func.jacrev, torch.func.jacfwd):
        found, expected = (transform(of(g))(u) for g in (Checkpointed(), Unrolled()))
        assert torch.equal(found, expected)
    many = torch.stack((u, 2 * u))
    assert torch.equal(
        torch.func.vmap(of(Checkpointed()))(many), torch.func.vmap(of(Unrolled()))(many)
    )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(u, u)
        pairs = [
            torch.autograd.forward_ad.unpack_dual(of(g)(dual)) for g in (Checkpointed(), Unrolled())
        ]
    assert torch.equal(pairs[0].tangent, pairs[1].tangent)


def test_closures_are_refused() -> None:
    W, u = weights().requires_grad_(), injection()
    problem = FixedPointProblem(lambda z, u: torch.tanh(z @ W.T + u), torch.zeros_like(u), (u,))
    with pytest.raises(ValueError, match="closes over tensors that require gradients"):
        implicit.solve(problem, Picard(), Checkpointed())


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_loops_cannot_be_unrolled(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} owns its loop.*use the gradient Implicit"):
        solve(given(), solvers.registry.get(name), Checkpointed())


@pytest.mark.parametrize("segments", [0, -1, "cube root", 2.5])
def test_segments_are_checked(segments: Any) -> None:
    with pytest.raises(OptionError, match="segments"):
        Checkpointed(segments=segments)
