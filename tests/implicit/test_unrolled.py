"""Unrolled: the derivative of the iterate, through the steps of any native solver."""

from __future__ import annotations

from typing import Any

import cells
import pytest
import torch
from cells import FOREIGN, NATIVE, Cell, injection, relative, weights
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Unrolled
from solvers import (
    Anderson,
    FixedPointProblem,
    Newton,
    NewtonKrylov,
    Picard,
    ReturnCode,
    RootProblem,
)
from solvers.problem import Problem
from solvers.problems import registry as problems

native = pytest.mark.parametrize("name", NATIVE)


def fixed_point(u: Tensor, W: Tensor) -> Problem:
    return FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)


def solver_of(name: str) -> Any:
    # Three products in each step, so that the number of them does not jump under gradcheck.
    return NewtonKrylov(inner=3) if name == "newton_krylov" else solvers.registry.get(name)


def unrolled(problem: Problem, solver: Any, steps: int, **options: Any) -> Any:
    return implicit.solve(
        problem, solver, Unrolled(), reltol=0.0, max_evaluations=steps, **options
    ).value


@native
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_gradcheck(name: str, steps: int) -> None:
    if steps > 2 and name in {"newton", "newton_krylov"}:
        steps = 3  # after which Newton is at rounding, and there is no slope to difference
    u, W = injection(2, 3).requires_grad_(), weights(3, 0.9).requires_grad_()
    # Central differences of an iterate that is exact to rounding: 1e-6² and 1e-16 / 1e-6.
    assert torch.autograd.gradcheck(
        lambda u, W: unrolled(fixed_point(u, W), solver_of(name), steps),
        (u, W),
        atol=1e-7,
        rtol=1e-6,
    )


@native
@pytest.mark.parametrize(("steps", "reltol"), [(2, 0.0), (300, 1e-13)])
def test_derivatives_of_both_orders(name: str, steps: int, reltol: float) -> None:
    """In args, params and the start, from a few steps and from a solve down to rounding."""
    u, W = injection(2, 2).requires_grad_(), weights(2, 0.6).requires_grad_()
    z0 = (0.1 * injection(2, 2, seed=4)).requires_grad_()

    def solved(u: Tensor, W: Tensor, z0: Tensor) -> Any:
        problem = FixedPointProblem(cells.f, z0, (u,), (W,), samples_independent=True)
        return implicit.solve(
            problem, solver_of(name), Unrolled(), reltol=reltol, max_evaluations=steps
        ).value

    # Central differences, as above; where a step more is taken it moves z by 1e-13 / 1e-6.
    close: Any = {"atol": 1e-6, "rtol": 1e-5}
    assert torch.autograd.gradcheck(solved, (u, W, z0), **close)
    assert torch.autograd.gradgradcheck(solved, (u, W, z0), **close)


@native
def test_it_tends_to_the_gradient_of_the_equilibrium(name: str) -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    solution = implicit.solve(
        fixed_point(u, W),
        solvers.registry.get(name),
        Unrolled(),
        reltol=1e-10,
        max_evaluations=200,
    )
    assert solution.success
    assert isinstance(solution.value, Tensor)
    gradients = torch.autograd.grad((solution.value * c).sum(), (u, W))
    expected = cells.exact(u.detach(), W.detach(), c)
    # Of a linearly convergent iteration the derivative lags behind by a factor of its count; that
    # of Newton's last step is as exact as the point it started from, the root of 1e-10.
    for got, right in zip(gradients, expected, strict=True):
        assert relative(got, right) < (1e-4 if name.startswith("newton") else 1e-7)


@native
def test_at_a_zero_residual_the_gradient_is_finite(name: str) -> None:
    """The start is the solution, and then 20 more steps divide by what is left."""
    u, W = injection(2, 3).requires_grad_(), weights(3).requires_grad_()
    z0 = cells.equilibrium(u.detach(), W.detach())
    problem = FixedPointProblem(cells.f, z0, (u,), (W,), samples_independent=True)
    z = unrolled(problem, solvers.registry.get(name), 20)
    gradients = torch.autograd.grad(z.sum(), (u, W))
    assert all(torch.isfinite(g).all() for g in gradients)
    expected = cells.exact(u.detach(), W.detach(), torch.ones_like(u))
    # Anderson and Broyden have no steps to learn from, Newton–Krylov no space to move in.
    if name in {"picard", "newton"}:
        for got, right in zip(gradients, expected, strict=True):
            assert relative(got, right) < 1e-3  # 0.6^20 for plain iteration


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@native
def test_on_a_constant_map(name: str, dtype: torch.dtype) -> None:
    c = torch.randn(2, 3, dtype=dtype).requires_grad_()
    problem = FixedPointProblem(
        lambda z, c: 1 * c, torch.zeros(2, 3, dtype=dtype), (c,), samples_independent=True
    )
    for steps in (1, 2, 3, 6):
        z = unrolled(problem, solvers.registry.get(name), steps)
        (dc,) = torch.autograd.grad(z.sum(), c)
        assert torch.allclose(dc, torch.ones_like(c), atol=1e-5)


def test_through_newton_against_central_differences() -> None:
    """The first approach of the deck: the loss of the Newton iterate, with every parameter."""
    u, W = injection(3, 4), weights(4, 0.9)

    def loss(u: Tensor, W: Tensor) -> Tensor:
        z = unrolled(fixed_point(u, W), Newton(), 4)
        return torch.sin(z).sum()  # type: ignore[no-any-return]

    given = (u.clone().requires_grad_(), W.clone().requires_grad_())
    gradients = torch.autograd.grad(loss(*given), given)
    h = 2e-6
    g = torch.Generator().manual_seed(5)
    for _ in range(5):
        du = torch.randn(3, 4, generator=g, dtype=torch.float64)
        dW = torch.randn(4, 4, generator=g, dtype=torch.float64)
        with torch.no_grad():
            slope = float(loss(u + h * du, W + h * dW) - loss(u - h * du, W - h * dW)) / (2 * h)
        got = float((gradients[0] * du).sum() + (gradients[1] * dW).sum())
        assert got == pytest.approx(slope, rel=1e-7)  # (5 h)² times a third derivative


def test_root_problems() -> None:
    a = torch.tensor([[2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    problem = RootProblem(
        lambda z, a: z * z - a,
        torch.ones(2, 1, dtype=torch.float64),
        (a,),
        samples_independent=True,
    )
    z = unrolled(problem, Newton(), 8)
    (da,) = torch.autograd.grad(z.sum(), a)
    assert torch.allclose(da, 0.5 / a.detach().sqrt(), rtol=1e-8)


# -- the explicit network -------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_picard_unrolled_is_the_weight_tied_network(depth: int, dtype: torch.dtype) -> None:
    cell = Cell().to(dtype)
    u = injection().to(dtype).requires_grad_()
    layer = DEQ(cell, solver=Picard(), gradient=Unrolled(), reltol=0.0, max_evaluations=depth)
    z = layer(u)
    dW, du = torch.autograd.grad(z.sum(), (cell.W, u))

    explicit = torch.zeros_like(u)
    for _ in range(depth):
        explicit = cell(explicit, u)
    assert torch.equal(z, explicit)
    eW, eu = torch.autograd.grad(explicit.sum(), (cell.W, u))
    assert torch.equal(dW, eW)
    assert torch.equal(du, eu)
    # It is the same network where it is only used.
    with torch.no_grad():
        assert torch.equal(layer(u), explicit)
    layer(u)
    # One more, outside the graph, judges the last point.
    assert layer.solution is not None
    assert layer.solution.stats.evaluations == depth + 1
    assert layer.solution.stats.iterations == depth
    r = (cell(z, u) - z).detach().norm(dim=1)
    assert torch.allclose(layer.solution.residual, r)


@native
@pytest.mark.parametrize("reltol", [0.0, 1e-6])
def test_without_a_graph_it_is_the_same(name: str, reltol: float) -> None:
    u, W = injection(3, 4).requires_grad_(), weights(4, 0.9)
    keywords: Any = {"reltol": reltol, "max_evaluations": 6}
    with_graph = implicit.solve(fixed_point(u, W), solver_of(name), Unrolled(), **keywords)
    with torch.no_grad():
        without = implicit.solve(fixed_point(u, W), solver_of(name), Unrolled(), **keywords)
    assert not without.value.requires_grad  # type: ignore[union-attr]
    assert torch.allclose(with_graph.value, without.value, atol=1e-12)  # type: ignore[arg-type]
    assert with_graph.stats.evaluations == without.stats.evaluations
    assert with_graph.retcode.tolist() == without.retcode.tolist()


def test_it_stops_early_at_the_tolerance() -> None:
    u, W = injection().requires_grad_(), weights()
    solution = implicit.solve(fixed_point(u, W), Picard(), Unrolled(), reltol=1e-3)
    assert solution.success
    assert solution.stats.evaluations < 30
    alone = solvers.solve(fixed_point(u.detach(), W), Picard(), reltol=1e-3)
    # All samples go on until the last one has converged: the graph is the algorithm's.
    assert solution.stats.evaluations == alone.stats.evaluations
    assert (solution.stats.sample_evaluations == solution.stats.evaluations).all()
    assert (solution.residual <= alone.residual * (1 + 1e-9)).all()  # rounding


def test_the_last_iterate_is_returned_not_the_best() -> None:
    u = injection(1, 4)
    problem = FixedPointProblem(
        lambda z, u, W: 3 * torch.tanh(z @ W.T + u),
        torch.zeros_like(u),
        (u,),
        (weights(4, 1.0).requires_grad_(),),
    )
    z = u.new_zeros(1, 4)
    with torch.no_grad():
        for _ in range(9):
            z = problem.f(z, u, *problem.params)
    assert torch.equal(unrolled(problem, Picard(), 9), z)


# -- part of the graph ----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 3])
def test_only_the_last_evaluations(last: int) -> None:
    cell, u = Cell(), injection()
    problem = FixedPointProblem(cell, torch.zeros_like(u), (u,), samples_independent=True)
    solution = implicit.solve(
        problem, Picard(), Unrolled(last=last), reltol=1e-10, max_evaluations=100
    )
    head, tail = solution.attempts
    z = head.value
    assert isinstance(z, Tensor)
    for _ in range(last):
        z = cell(z, u)
    assert torch.equal(solution.value, z)  # type: ignore[arg-type]
    (dW,) = torch.autograd.grad(solution.value.sum(), cell.W)  # type: ignore[union-attr]
    (eW,) = torch.autograd.grad(z.sum(), cell.W)
    assert torch.equal(dW, eW)
    assert solution.stats.evaluations == head.stats.evaluations + tail.stats.evaluations
    assert tail.stats.evaluations == last + 1


# -- what it does not do --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_loops_cannot_be_unrolled(name: str) -> None:
    u, W = injection().requires_grad_(), weights()
    with pytest.raises(ValueError, match=f"{name} owns its loop.*use the gradient Implicit"):
        implicit.solve(fixed_point(u, W), solvers.registry.get(name), Unrolled())


def test_a_chain_can_be_unrolled() -> None:
    u, W = injection().requires_grad_(), weights()
    solution = implicit.solve(fixed_point(u, W), None, Unrolled(), reltol=1e-10)
    assert solution.success
    assert isinstance(solution.value, Tensor)
    (du,) = torch.autograd.grad(solution.value.sum(), u)
    assert relative(du, cells.exact(u.detach(), W, torch.ones_like(u))[0]) < 1e-7


@native
def test_coupled_samples(name: str) -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.5 * z + 0.3 * z.mean(dim=0, keepdim=True) + u)

    u = injection(3, 2).requires_grad_()

    def three(u: Tensor) -> Any:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), samples_independent=False)
        return unrolled(problem, solver_of(name), 3)

    assert torch.autograd.gradcheck(three, (u,), atol=1e-7, rtol=1e-6)


def test_a_state_of_two_tensors() -> None:
    problem = problems.get("tuple_tanh", batch=2, dtype="float64")
    x, y = (t.clone().requires_grad_() for t in problem.args)

    def both(x: Tensor, y: Tensor) -> Any:
        given = FixedPointProblem(
            problem.function, problem.z0, (x, y), problem.params, samples_independent=True
        )
        return unrolled(given, Anderson(), 4)

    assert torch.autograd.gradcheck(both, (x, y), atol=1e-7, rtol=1e-6)


def test_failures_are_in_the_solution() -> None:
    u, W = injection().requires_grad_(), weights()
    solution = implicit.solve(
        fixed_point(u, W), Picard(), Unrolled(), reltol=1e-12, max_evaluations=5
    )
    assert set(solution.retcode.tolist()) == {ReturnCode.MAX_EVALUATIONS}
    assert solution.value.requires_grad  # type: ignore[union-attr]


def test_closures_need_not_be_refused() -> None:
    """Autograd finds what a function closes over by itself."""
    u, W = injection(), weights().requires_grad_()
    problem = FixedPointProblem(lambda z, u: torch.tanh(z @ W.T + u), torch.zeros_like(u), (u,))
    (dW,) = torch.autograd.grad(unrolled(problem, Picard(), 200).sum(), W)
    assert relative(dW, cells.exact(u, W.detach(), torch.ones_like(u))[1]) < 1e-10


def test_dropout_is_drawn_from_the_callers_random_state() -> None:
    """The random state is the caller's: two runs from one seed are one network."""
    cell = nn.Sequential(nn.Dropout(0.5))

    class Noisy(nn.Module):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return cell(torch.tanh(0.5 * z)) + u  # type: ignore[no-any-return]

    layer = DEQ(Noisy(), solver=Picard(), gradient=Unrolled(), reltol=0.0, max_evaluations=4)
    u = injection().requires_grad_()
    torch.manual_seed(3)
    one = layer(u)
    torch.manual_seed(3)
    two = layer(u)
    assert torch.equal(one, two)
    assert not torch.equal(one, layer(u))
