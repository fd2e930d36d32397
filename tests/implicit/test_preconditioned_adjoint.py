"""The adjoint preconditioned by what the forward solve learnt, and started from an earlier one."""

from __future__ import annotations

from typing import Any

import cells
import pytest
import torch
from cells import Cell, every_adjoint, forward_mode, injection, relative, weights
from torch import Tensor
from torch.func import jacrev, vmap

import implicit
from implicit import DEQ, Implicit
from implicit.gradients.implicit import adjoint_registry
from implicit.memory import saved_bytes
from solvers import Anderson, Broyden, Fallback, FixedPointProblem, OptionError, Picard
from solvers.inverse import LowRank
from solvers.problem import Problem
from solvers.solver import BaseSolver

TIGHT = 1e-12


def problem(u: Tensor, W: Tensor, *, independent: bool | None = True, f: Any = cells.f) -> Problem:
    return FixedPointProblem(f, torch.zeros_like(u), (u,), (W,), samples_independent=independent)


def solved(p: Problem, by: BaseSolver | None, **options: Any) -> Any:
    gradient = Implicit(**({"reltol": TIGHT, "precondition": "forward"} | options))
    return implicit.solve(p, by, gradient, reltol=TIGHT, max_evaluations=300)


@every_adjoint
@pytest.mark.parametrize("solver", [Broyden(), Broyden(window=3), Anderson(), None])
def test_the_gradient_is_as_exact(adjoint: str, solver: BaseSolver | None) -> None:
    u, W = injection(3, 6).requires_grad_(), weights(6, 0.9).requires_grad_()
    c = injection(3, 6, seed=5)
    solution = solved(problem(u, W), solver, solver=adjoint_registry.get(adjoint))
    assert solution.success
    gradients = torch.autograd.grad((solution.value * c).sum(), (u, W))
    assert solution.adjoint.success
    for got, right in zip(gradients, cells.exact(u.detach(), W.detach(), c), strict=True):
        assert relative(got, right) < 1e-10  # 1e-12 twice, amplified by 1 / (1 - 0.9)


def test_it_takes_fewer_products() -> None:
    u, W = injection(1, 60).requires_grad_(), weights(60, 1.9).requires_grad_()
    c = injection(1, 60, seed=5)
    products = {}
    for how in (None, "forward"):
        solution = solved(problem(u, W), Broyden(), reltol=1e-6, precondition=how)
        torch.autograd.grad((solution.value * c).sum(), u)
        assert solution.adjoint.success
        products[how] = solution.adjoint.stats.vjps
    assert products["forward"] <= 0.6 * products[None]


def coupled(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
    """Each sample sees the mean of all."""
    return torch.tanh(0.5 * (z + z.mean(dim=0)) @ W.T + u)


@pytest.mark.parametrize("independent", [False, None])
def test_coupled_samples_have_one_inverse_together(independent: bool | None) -> None:
    u, W = injection(4, 30).requires_grad_(), weights(30, 1.2).requires_grad_()
    p = problem(u, W, independent=independent, f=coupled)
    plain = solved(p, Broyden(), reltol=1e-8, precondition=None)
    expected = torch.autograd.grad(plain.value.square().sum(), (u, W))
    solution = solved(p, Broyden(), reltol=1e-8)
    got = torch.autograd.grad(solution.value.square().sum(), (u, W))
    for a, b in zip(got, expected, strict=True):
        assert relative(a, b) < 1e-6  # both to 1e-8, amplified by less than 1e2
    if independent is False:
        assert solution.adjoint.stats.vjps < plain.adjoint.stats.vjps


def test_the_inverse_of_coupled_samples_is_one_operator() -> None:
    u, W = injection(4, 30), weights(30, 1.2)
    p = problem(u, W, independent=False, f=coupled)
    with torch.no_grad():
        solution = implicit.solve(p, Broyden(), reltol=1e-10, keep_inverse=True)
    assert isinstance(solution.inverse, LowRank)
    assert solution.inverse.left.shape[::2] == (1, 120)
    with torch.no_grad():
        again = implicit.solve(p, Broyden(), reltol=1e-10, start=solution, keep_inverse=True)
    assert again.success
    assert again.stats.evaluations <= 2


def test_a_solver_without_an_inverse_is_refused() -> None:
    u = injection(3, 4).requires_grad_()
    with pytest.raises(OptionError, match="picard leaves none: solve by Broyden or Anderson"):
        solved(problem(u, weights()), Picard())


def test_a_start_at_the_solution_needs_no_inverse() -> None:
    u, W = injection().requires_grad_(), weights()
    z = cells.equilibrium(u.detach(), W)
    p = FixedPointProblem(cells.f, z, (u,), (W,), samples_independent=True)
    solution = implicit.solve(p, Broyden(), Implicit(precondition="forward", reltol=TIGHT))
    (got,) = torch.autograd.grad(solution.value.sum(), u)
    assert relative(got, cells.exact(u.detach(), W, torch.ones_like(u))[0]) < 1e-10


def test_gradgradcheck() -> None:
    u, W = injection(2, 3).requires_grad_(), weights(3).requires_grad_()

    def f(u: Tensor, W: Tensor) -> Any:
        return solved(problem(u, W), Broyden()).value

    assert torch.autograd.gradcheck(f, (u, W), atol=1e-7)
    assert torch.autograd.gradgradcheck(f, (u, W), atol=1e-6)


@forward_mode
def test_vmap_and_jacobians() -> None:
    u, W = injection(2, 3), weights(3)
    many = torch.stack([weights(3, seed=s) for s in range(3)])

    def pre(u: Tensor, W: Tensor) -> Any:
        return solved(problem(u, W), Broyden()).value

    def plain(u: Tensor, W: Tensor) -> Any:
        return solved(problem(u, W), Broyden(), precondition=None).value

    for transform in (lambda f: vmap(f, (None, 0))(u, many), lambda f: jacrev(f, 1)(u, W)):
        assert torch.allclose(transform(pre), transform(plain), rtol=1e-9, atol=1e-10)


def test_the_history_lives_until_backward_and_not_in_the_solution() -> None:
    layer = DEQ(
        Cell(30, 0.9), solver=Fallback((Broyden(),)), gradient=Implicit(precondition="forward")
    ).double()
    u = injection(3, 30).requires_grad_()
    with saved_bytes(exclude=[*layer.parameters(), u]) as saved:
        z = layer(u)
    assert layer.solution is not None
    assert layer.solution.inverse is None
    assert all(a.inverse is None for a in layer.solution.attempts)
    assert saved.bytes == z.numel() * z.element_size()
    z.sum().backward()
    assert layer.adjoint_solution is not None


@every_adjoint
def test_a_warm_start_takes_fewer_products_for_the_same_gradient(adjoint: str) -> None:
    layer = DEQ(
        Cell(20, 0.9),
        solver=Broyden(),
        gradient=Implicit(adjoint_registry.get(adjoint), warm_start=True, max_products=300),
        reltol=1e-8,
    )
    u = injection(3, 20)
    products, found = [], []
    for scale in (1.0, 1e-6):  # the loss may be of another scale than at the last step
        layer.zero_grad()
        (scale * layer(u).square().sum()).backward()
        assert layer.adjoint_solution is not None
        assert layer.adjoint_solution.success
        products.append(layer.adjoint_solution.stats.vjps)
        found.append(layer.cell.W.grad / scale)  # type: ignore[operator]
    assert relative(found[1], found[0]) < 1e-6  # 1e-8, amplified by 1 / (1 - 0.9)
    if adjoint != "dense":  # which takes D products whatever the start
        assert products[1] <= products[0] / 2


def test_a_guess_of_another_batch_is_left_alone() -> None:
    layer = DEQ(Cell(5), solver=Broyden(), gradient=Implicit(warm_start=True)).double()
    for batch in (3, 2, 2):
        layer(injection(batch, 5)).sum().backward()
        assert layer.adjoint_solution is not None
        assert layer.adjoint_solution.success
