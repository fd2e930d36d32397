"""The implicit gradient: exact, whoever found z* and whoever solved the adjoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cells
import pytest
import torch
from cells import (
    ALL,
    FOREIGN,
    OURS,
    SPLITTINGS,
    Cell,
    every_adjoint,
    forward_mode,
    injection,
    relative,
    weights,
)
from torch import Tensor, nn

import implicit
import solvers
from implicit import Implicit
from implicit.gradients.implicit import adjoint_registry
from solvers import Anderson, FixedPointProblem, Newton, Picard, RootProblem
from solvers.problem import Problem
from solvers.problems import registry as problems

# Forward and adjoint to rounding, so that what is left is the gradient's own error.
TIGHT = 1e-13
# Foreign loops end where their line search does: L-BFGS on ½‖r‖² has no digits below ‖r‖ = 1e-8.
FOREIGN_TOL = 1e-7


def tight(adjoint: str = "gmres") -> Implicit:
    return Implicit(solver=adjoint_registry.get(adjoint), reltol=TIGHT, max_products=300)


def fixed_point(u: Tensor, W: Tensor) -> Problem:
    return FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)


def value(
    problem: Problem,
    solver: str = "anderson",
    gradient: Implicit | None = None,
    reltol: float = TIGHT,
) -> Any:
    solution = implicit.solve(
        problem,
        solvers.registry.get(solver),
        gradient or tight(),
        reltol=reltol,
        max_evaluations=500,
    )
    return solution.value


@pytest.mark.parametrize("name", OURS)
@every_adjoint
def test_gradcheck(name: str, adjoint: str) -> None:
    u, W = injection(2, 2).requires_grad_(), weights(2).requires_grad_()
    # Central differences with a step of 1e-6 of an equilibrium at 1e-13: off by 1e-7 and less.
    assert torch.autograd.gradcheck(
        lambda u, W: value(fixed_point(u, W), name, tight(adjoint)),
        (u, W),
        atol=1e-6,
        rtol=1e-6,
        nondet_tol=1e-11,
        fast_mode=adjoint != "gmres",  # along random directions, not number by number
    )


@every_adjoint
def test_gradgradcheck(adjoint: str) -> None:
    u, W = injection(2, 2).requires_grad_(), weights(2).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda u, W: value(fixed_point(u, W), "anderson", tight(adjoint)),
        (u, W),
        atol=1e-6,
        rtol=1e-6,
        nondet_tol=1e-10,
    )


@forward_mode
@every_adjoint
def test_gradcheck_in_forward_mode(adjoint: str) -> None:
    u, W = injection(2, 2).requires_grad_(), weights(2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda u, W: value(fixed_point(u, W), "anderson", tight(adjoint)),
        (u, W),
        atol=1e-6,
        rtol=1e-6,
        nondet_tol=1e-11,
        check_forward_ad=True,
        check_backward_ad=False,
    )


@pytest.mark.parametrize("name", ALL)
@every_adjoint
def test_the_same_gradient_whoever_found_the_equilibrium(name: str, adjoint: str) -> None:
    foreign = name in FOREIGN
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    z = value(fixed_point(u, W), name, tight(adjoint), FOREIGN_TOL if foreign else TIGHT)
    du, dW = torch.autograd.grad((z * c).sum(), (u, W))
    eu, eW = cells.exact(u.detach(), W.detach(), c)
    # The gradient is as exact as the point where f was linearised: by a factor of at most
    # 1 / (1 - 0.6)² and the curvature of tanh.
    bound = 10 * (FOREIGN_TOL if foreign else 100 * TIGHT)
    assert relative(du, eu) < bound
    assert relative(dW, eW) < bound


@pytest.mark.parametrize("adjoint", [n for n in adjoint_registry.names() if n not in SPLITTINGS])
@pytest.mark.parametrize("norm", ["l2", "rms", "linf"])
def test_any_solver_may_solve_the_adjoint(adjoint: str, norm: Any) -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    gradient = Implicit(solver=adjoint_registry.get(adjoint), reltol=1e-6, max_products=300)
    solution = implicit.solve(fixed_point(u, W), Anderson(), gradient, reltol=1e-10, norm=norm)
    assert isinstance(solution.value, Tensor)
    gradients = torch.autograd.grad((solution.value * c).sum(), (u, W))
    assert solution.adjoint is not None
    assert solution.adjoint.success
    assert solution.adjoint.solver.name == adjoint
    assert solution.adjoint.stats.evaluations == 1
    assert solution.adjoint.stats.vjps > 0
    for got, right in zip(gradients, cells.exact(u.detach(), W.detach(), c), strict=True):
        assert relative(got, right) < 1e-6 / (1 - 0.6) * 2  # a norm is at most 2 of another here


def test_newton_solves_the_adjoint_in_one_step() -> None:
    """The adjoint is linear, and its Jacobian is found by products like any other."""
    u = injection().requires_grad_()
    solution = implicit.solve(
        fixed_point(u, weights()), Anderson(), Implicit(solver=Newton(), reltol=1e-12), reltol=1e-8
    )
    assert isinstance(solution.value, Tensor)
    solution.value.sum().backward()
    assert solution.adjoint is not None
    assert solution.adjoint.stats.iterations == 1
    assert solution.adjoint.stats.vjps == 2 + 4  # two points, and four columns


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", implicit.gradients.registry.names())
def test_every_gradient_through_every_solver(how: str, name: str) -> None:
    gradient = implicit.gradients.registry.get(how)
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)

    def gradients() -> tuple[Tensor, ...]:
        solution = implicit.solve(
            fixed_point(u, W),
            solvers.registry.get(name),
            gradient,
            reltol=1e-6,
            max_evaluations=300,
        )
        assert solution.success
        assert isinstance(solution.value, Tensor)
        return torch.autograd.grad((solution.value * c).sum(), (u, W))

    leaves_none = name not in ("anderson", "broyden", "fallback")
    for need, missing, message in (
        ("native", name in FOREIGN, "owns its loop"),
        ("inverse", leaves_none, f"{name} leaves none: solve by Broyden or Anderson"),
        ("own", True, "brings its own iteration; give solver=None"),
    ):
        if need in gradient.requires and missing:
            with pytest.raises(ValueError, match=message):
                gradients()
            return
    for got, right in zip(gradients(), cells.exact(u.detach(), W.detach(), c), strict=True):
        # An exact gradient is as exact as the equilibrium, times 1 / (1 - 0.6)²; the derivative
        # of an iterate lags behind it. An inexact one points downhill.
        cosine = float((got * right).sum() / (got.norm() * right.norm()))
        assert cosine > 0
        if gradient.exact:
            assert relative(got, right) < 1e-3


def test_at_a_loose_equilibrium_the_error_is_that_of_the_residual() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    eu, _ = cells.exact(u.detach(), W.detach(), c)
    errors = []
    for reltol in (1e-2, 1e-4, 1e-6):
        z = value(fixed_point(u, W), "picard", tight(), reltol)
        (du,) = torch.autograd.grad((z * c).sum(), u)
        errors.append(relative(du, eu) / reltol)
    assert max(errors) < 10


def test_root_problems() -> None:
    def g(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return z**3 + z @ W.T - u

    u, W = injection(2, 2).requires_grad_(), weights(2).requires_grad_()

    def root(u: Tensor, W: Tensor) -> Any:
        problem = RootProblem(g, torch.ones_like(u), (u,), (W,), samples_independent=True)
        return value(problem, "newton")

    # The adjoint of a root is no contraction: GMRES and the direct method solve it all the same.
    assert torch.autograd.gradcheck(root, (u, W), atol=1e-6, rtol=1e-6, nondet_tol=1e-10)
    assert torch.autograd.gradgradcheck(root, (u, W), atol=1e-5, rtol=1e-5, nondet_tol=1e-9)


@pytest.mark.parametrize("adjoint", ["gmres", "dense", "broyden"])
def test_the_gradient_of_a_square_root(adjoint: str) -> None:
    a = torch.tensor([[2.0], [3.0], [5.0]], dtype=torch.float64, requires_grad=True)
    problem = RootProblem(lambda z, a: z * z - a, torch.ones(3, 1, dtype=torch.float64), (a,))
    z = value(problem, "newton", tight(adjoint))
    (da,) = torch.autograd.grad(z.sum(), a)
    assert torch.allclose(da, 0.5 / a.detach().sqrt(), rtol=1e-12)


@every_adjoint
def test_a_state_of_two_tensors(adjoint: str) -> None:
    problem = problems.get("tuple_tanh", batch=2, scale=0.4, dtype="float64")
    x, y = (t.clone().requires_grad_() for t in problem.args)
    (W,) = (t.clone().requires_grad_() for t in problem.params)

    def both(x: Tensor, y: Tensor, W: Tensor) -> Any:
        given = replace(problem, args=(x, y), params=(W,), samples_independent=True)  # type: ignore[type-var]
        return value(given, "anderson", tight(adjoint))

    assert torch.autograd.gradcheck(
        both, (x, y, W), atol=1e-6, rtol=1e-6, nondet_tol=1e-10, fast_mode=True
    )


@pytest.mark.parametrize("declared", [False, None])
@every_adjoint
@pytest.mark.parametrize("name", ["anderson", "newton", "fallback"])
def test_coupled_samples(name: str, adjoint: str, declared: bool | None) -> None:
    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return torch.tanh(z @ W.T + 0.3 * z.mean(dim=0, keepdim=True) + u)

    u, W = injection(3, 2).requires_grad_(), weights(2).requires_grad_()

    def coupled(u: Tensor, W: Tensor) -> Any:
        problem = FixedPointProblem(
            f, torch.zeros_like(u), (u,), (W,), samples_independent=declared
        )
        return value(problem, name, tight(adjoint))

    assert torch.autograd.gradcheck(
        coupled, (u, W), atol=1e-6, rtol=1e-6, nondet_tol=1e-10, fast_mode=True
    )


# -- the scale of the loss ------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-12, 1e12])
@every_adjoint
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_scale_of_the_loss_has_no_influence(
    factor: float, adjoint: str, dtype: torch.dtype
) -> None:
    u = injection().to(dtype).requires_grad_()
    W = weights().to(dtype).requires_grad_()
    loose = Implicit(solver=adjoint_registry.get(adjoint), reltol=1e-4)  # far from exact
    gradients, products = [], []
    for k in (1.0, factor):
        problem = fixed_point(u, W)
        solution = implicit.solve(problem, Anderson(), loose, reltol=1e-4)
        assert isinstance(solution.value, Tensor)
        loss = k * (solution.value**2).sum()
        du, dW = torch.autograd.grad(loss, (u, W))
        gradients.append((du / k, dW / k))
        assert solution.adjoint is not None
        assert solution.adjoint.success
        products.append(solution.adjoint.stats.vjps)
    assert products[0] == products[1]
    # 10^12 is no power of two: k · 2 z and its like are rounded.
    rounding = 1e-10 if dtype == torch.float64 else 1e-5
    for one, other in zip(*gradients, strict=True):
        assert relative(other, one) < rounding


def test_a_zero_cotangent() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    for adjoint in cells.ADJOINTS:
        z = value(fixed_point(u, W), "anderson", tight(adjoint))
        du, dW = torch.autograd.grad((0 * z).sum(), (u, W))
        assert torch.equal(du, torch.zeros_like(u))
        assert torch.equal(dW, torch.zeros_like(W))


def test_a_sample_without_a_cotangent_is_alone() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    c[1] = 0
    for adjoint in cells.ADJOINTS:
        z = value(fixed_point(u, W), "anderson", tight(adjoint))
        du, _ = torch.autograd.grad((z * c).sum(), (u, W))
        assert torch.equal(du[1], torch.zeros(4, dtype=torch.float64))
        assert relative(du, cells.exact(u.detach(), W.detach(), c)[0]) < 1e-10


# -- graphs ---------------------------------------------------------------------------------------


def test_two_solves_in_one_graph() -> None:
    u, W = injection(2, 3).requires_grad_(), weights(3).requires_grad_()

    def chain(u: Tensor, W: Tensor) -> Any:
        first = value(fixed_point(u, W), "anderson")
        return value(fixed_point(first + u, 0.5 * W), "newton")

    assert torch.autograd.gradcheck(chain, (u, W), atol=1e-6, rtol=1e-6, nondet_tol=1e-11)


@pytest.mark.parametrize("name", ["picard", "newton", "newton_krylov"])
def test_a_solve_inside_a_solve(name: str) -> None:
    """The inner equilibrium is part of the outer cell, and both give gradients."""
    u, W = injection(2, 2).requires_grad_(), weights(2).requires_grad_()

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        inner = implicit.solve(fixed_point(u + 0.1 * z, W), Newton(), tight(), reltol=TIGHT).value
        assert isinstance(inner, Tensor)
        return 0.5 * inner

    def outer(u: Tensor, W: Tensor) -> Any:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), (W,), samples_independent=True)
        return value(problem, name)

    assert torch.autograd.gradcheck(
        outer, (u, W), atol=1e-6, rtol=1e-6, nondet_tol=1e-10, fast_mode=True
    )


def test_backward_twice_through_a_retained_graph() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    z = value(fixed_point(u, W))
    loss = (z**2).sum()
    loss.backward(retain_graph=True)
    first = (u.grad.clone(), W.grad.clone())  # type: ignore[union-attr]
    loss.backward()
    assert torch.equal(u.grad, 2 * first[0])  # type: ignore[arg-type]
    assert torch.equal(W.grad, 2 * first[1])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_arguments_that_are_no_leaves() -> None:
    x, V = injection().requires_grad_(), weights(seed=3).requires_grad_()
    W = weights().requires_grad_()
    z = value(fixed_point(x @ V, W.T))
    dx, dV, dW = torch.autograd.grad(z.sum(), (x, V, W))
    du, dWT = cells.exact((x @ V).detach(), W.detach().T, torch.ones_like(x))
    assert torch.allclose(dx, du @ V.detach().T, rtol=1e-9)
    assert torch.allclose(dV, x.detach().T @ du, rtol=1e-9)
    assert torch.allclose(dW, dWT.T, rtol=1e-9)


@pytest.mark.parametrize("wanted", ["u", "W"])
def test_only_what_is_asked_for(wanted: str) -> None:
    u, W = injection(), weights()
    (u if wanted == "u" else W).requires_grad_()
    z = value(fixed_point(u, W))
    (d,) = torch.autograd.grad(z.sum(), (u if wanted == "u" else W,))
    eu, eW = cells.exact(u.detach(), W.detach(), torch.ones_like(u))
    assert relative(d, eu if wanted == "u" else eW) < 1e-10


def test_nothing_is_asked_for() -> None:
    z = value(fixed_point(injection(), weights()))
    assert not z.requires_grad
    with torch.no_grad():
        u = injection().requires_grad_()
        assert not value(fixed_point(u, weights())).requires_grad


def test_the_start_gets_no_gradient() -> None:
    z0 = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    problem = FixedPointProblem(cells.f, z0, (injection(),), (weights(),))
    z = value(problem)
    assert not z.requires_grad


# -- how tensors reach the cell -------------------------------------------------------------------


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Cell(4)
        self.bias = nn.Parameter(torch.full((4,), 0.1, dtype=torch.float64))
        self.register_buffer("shift", torch.full((4,), 0.2, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(4, dtype=torch.float64), requires_grad=False)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        out: Tensor = self.inner(z, u + self.bias + self.shift) * self.frozen
        return out

    def other(self, z: Tensor, u: Tensor) -> Tensor:
        return self(z, u)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["module", "method", "params"])
def test_parameters_are_found(how: str) -> None:
    cell, u = Affine(), injection().requires_grad_()
    if how == "params":

        def free(z: Tensor, u: Tensor, W: Tensor, bias: Tensor) -> Tensor:
            return torch.tanh(z @ W.T + u + bias + cell.shift)  # type: ignore[operator]

        problem = FixedPointProblem(free, torch.zeros_like(u), (u,), (cell.inner.W, cell.bias))
    else:
        problem = FixedPointProblem(
            cell if how == "module" else cell.other, torch.zeros_like(u), (u,)
        )
    value(problem).sum().backward()
    du, dW = cells.exact(
        (u + cell.bias + cell.shift).detach(),  # type: ignore[operator]
        cell.inner.W.detach(),
        torch.ones_like(u),
    )
    assert u.grad is not None
    assert cell.bias.grad is not None
    assert cell.inner.W.grad is not None
    assert cell.frozen.grad is None
    assert relative(u.grad, du) < 1e-10
    assert relative(cell.bias.grad, du.sum(dim=0)) < 1e-10
    assert relative(cell.inner.W.grad, dW) < 1e-10


def test_frozen_parameters_get_none() -> None:
    cell = Affine()
    cell.inner.W.requires_grad_(False)
    u = injection()
    value(FixedPointProblem(cell, torch.zeros_like(u), (u,))).sum().backward()
    assert cell.inner.W.grad is None
    assert cell.bias.grad is not None


def test_a_module_and_params_together() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Cell(4)

        def forward(self, z: Tensor, u: Tensor, scale: Tensor) -> Tensor:
            return scale * self.inner(z, u)  # type: ignore[no-any-return]

    cell, u = Scaled(), injection()
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    problem = FixedPointProblem(cell, torch.zeros_like(u), (u,), (scale,))
    value(problem).sum().backward()

    def loss(k: float) -> float:
        with torch.no_grad():
            given = torch.tensor(k, dtype=torch.float64)
            at = replace(problem, params=(given,))
            return float(value(at).sum())

    h = 1e-5
    slope = (loss(0.9 + h) - loss(0.9 - h)) / (2 * h)
    assert scale.grad is not None
    assert cell.inner.W.grad is not None
    # h² and 1e-13 / h.
    assert float(scale.grad) == pytest.approx(slope, rel=1e-7)


def test_shared_parameters_are_counted_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Cell(4, norm=0.4)
            self.second = Cell(4, norm=0.4)
            self.second.W = self.first.W

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return 0.5 * (self.first(z, u) + self.second(z, u))  # type: ignore[no-any-return]

    cell, u = Twice(), injection()
    value(FixedPointProblem(cell, torch.zeros_like(u), (u,))).sum().backward()
    _, dW = cells.exact(u, cell.first.W.detach(), torch.ones_like(u))
    assert cell.first.W.grad is not None
    assert relative(cell.first.W.grad, dW) < 1e-10


def test_closures_are_refused() -> None:
    u, W = injection(), weights().requires_grad_()
    problem = FixedPointProblem(lambda z, u: torch.tanh(z @ W.T + u), torch.zeros_like(u), (u,))
    with pytest.raises(
        ValueError,
        match=r"closes over tensors that require gradients \(shapes \(4, 4\)\).*params=\(…\)",
    ):
        value(problem)
    detached = W.detach()
    fine = replace(problem, f=lambda z, u: torch.tanh(z @ detached.T + u))
    assert torch.isfinite(value(fine)).all()
    with torch.no_grad():
        assert torch.isfinite(value(problem)).all()


def test_a_closure_over_a_module_is_refused() -> None:
    cell, u = Cell(4), injection().requires_grad_()
    problem = FixedPointProblem(lambda z, u: 0.9 * cell(z, u), torch.zeros_like(u), (u,))
    with pytest.raises(ValueError, match=r"pass a torch\.nn\.Module itself as the function"):
        value(problem)


def test_a_closure_over_a_tensor_with_a_history_is_refused() -> None:
    u, W = injection(), weights().requires_grad_()
    W2 = 0.5 * W
    problem = FixedPointProblem(lambda z, u: torch.tanh(z @ W2.T + u), torch.zeros_like(u), (u,))
    with pytest.raises(ValueError, match="closes over tensors"):
        value(problem)


def test_a_tensor_given_twice_is_no_closure() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    problem = FixedPointProblem(
        lambda z, a, b, W: torch.tanh(z @ W.T + 0.5 * (a + b)), torch.zeros_like(u), (u, u), (W,)
    )
    (du,) = torch.autograd.grad(value(problem).sum(), u)
    assert relative(du, cells.exact(u.detach(), W.detach(), torch.ones_like(u))[0]) < 1e-10


# -- the state of the module ----------------------------------------------------------------------


def test_eval_and_train() -> None:
    layer = implicit.DEQ(
        Cell(4), solver=Picard(), gradient=tight(), reltol=TIGHT, max_evaluations=200
    )
    u = injection()
    one = layer.train()(u)
    two = layer.eval()(u)
    assert torch.equal(one, two)
    two.sum().backward()
    assert layer.cell.W.grad is not None


def test_the_backward_does_not_see_later_changes_of_the_parameters() -> None:
    """As in any graph, a parameter changed in place before backward is an error, not a number."""
    cell, u = Cell(4), injection()
    z = value(FixedPointProblem(cell, torch.zeros_like(u), (u,)))
    with torch.no_grad():
        cell.W.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
