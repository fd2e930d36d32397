"""Every gradient with every solver: how exact, how often differentiable, at what cost."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import cells
import pytest
import torch
from cells import ADJOINTS, NATIVE, injection, relative, weights
from torch import Tensor

import implicit
import solvers
from implicit import Implicit
from implicit.gradients import Gradient, registry
from implicit.gradients.implicit import adjoint_registry
from solvers import Anderson, Broyden, FixedPointProblem, Picard, Solution
from solvers.problem import Problem
from solvers.problems import registry as problems

TIGHT = 1e-13
GRADIENTS = registry.names()
# Those that bring an iteration of their own are no product with the solvers.
OTHERS = [
    n
    for n in GRADIENTS
    if registry.get(n).exact and n != "implicit" and "own" not in registry.get(n).requires
]
every_native = pytest.mark.parametrize("name", NATIVE)


def fixed_point(u: Tensor, W: Tensor) -> Problem:
    return FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)


def value(
    u: Tensor, W: Tensor, solver: Any, gradient: Gradient, reltol: float = TIGHT, **more: Any
) -> Any:
    return implicit.solve(
        fixed_point(u, W), solver, gradient, reltol=reltol, max_evaluations=300, **more
    ).value


def leaves_an_inverse(name: str) -> bool:
    problem = fixed_point(injection(), weights())
    return solvers.solve(problem, solvers.registry.get(name), keep_inverse=True).inverse is not None


WITH_INVERSE = [n for n in NATIVE if leaves_an_inverse(n)]
assert WITH_INVERSE


# -- first and second derivatives -----------------------------------------------------------------

# Forward solver, adjoint solver, what preconditions it, and whether it starts from an earlier one.
PRODUCTS = [
    (name, adjoint, precondition, warm)
    for name in NATIVE
    for adjoint in ADJOINTS
    for precondition in (None, "forward")
    for warm in (False, True)
    if (precondition is None or name in WITH_INVERSE) and (not warm or name == "broyden")
]


@pytest.mark.parametrize(("name", "adjoint", "precondition", "warm"), PRODUCTS)
def test_gradcheck_and_gradgradcheck(
    name: str, adjoint: str, precondition: Any, warm: bool
) -> None:
    u, W = injection(2, 3).requires_grad_(), weights(3).requires_grad_()
    gradient = Implicit(
        adjoint_registry.get(adjoint),
        reltol=TIGHT,
        max_products=300,
        precondition=precondition,
        warm_start=warm,
    )
    solver = solvers.registry.get(name)
    earlier: dict[str, Any] = {}
    if warm:
        near = fixed_point((u + 0.01).detach().requires_grad_(), W.detach())
        solution = implicit.solve(near, solver, gradient, reltol=1e-6)
        solution.value.sum().backward()  # type: ignore[union-attr]
        assert solution.adjoint is not None
        earlier["start"] = solution

    def f(u: Tensor, W: Tensor) -> Any:
        return value(u, W, solver, gradient, **earlier)

    # Central differences with a step of 1e-6 of what is exact to 1e-13 are off by 1e-7; a second
    # derivative has one more factor 1 / (1 - 0.6). Along random directions, not number by number.
    both: Any = {"atol": 1e-6, "rtol": 1e-6, "nondet_tol": 1e-10, "fast_mode": True}
    assert torch.autograd.gradcheck(f, (u, W), **both)
    assert torch.autograd.gradgradcheck(f, (u, W), **both)


@every_native
@pytest.mark.parametrize("how", OTHERS)
def test_gradcheck_of_the_others_that_are_exact(how: str, name: str) -> None:
    u, W = injection(2, 3).requires_grad_(), weights(3, 0.3).requires_grad_()
    solver, gradient = solvers.registry.get(name), registry.get(how)
    # At 0.3 the derivative of the iterate has caught up with it at 1e-13, but for 1e-12.
    assert torch.autograd.gradcheck(
        lambda u, W: value(u, W, solver, gradient), (u, W), atol=1e-6, rtol=1e-6, fast_mode=True
    )


# -- how exact ------------------------------------------------------------------------------------


def random_network(radius: float, seed: int, dim: int = 40) -> tuple[Problem, Tensor, Any]:
    """Tanh networks of this spectral radius at z*, which is chosen first; c, and dL/d(u, W)."""
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(dim + 2, dim, generator=g, dtype=torch.float64)
    G, a, c = draw[2:], 0.5 * draw[:1], draw[1:2]
    z = a.tanh()
    slope = 1 - z * z
    W = G * (radius / float(torch.linalg.eigvals(slope.T * G).abs().max()))
    u = (a - z @ W.T).requires_grad_()
    problem = FixedPointProblem(
        cells.f, 0.9 * z, (u,), (W.requires_grad_(),), samples_independent=True
    )
    A = torch.eye(dim, dtype=z.dtype) - slope.T * W.detach()
    v = slope * torch.linalg.solve(A.T, c[0])
    return problem, c, (v, v.T @ z)


def gradients(solution: Solution, problem: Problem, c: Tensor) -> tuple[Tensor, ...]:
    assert isinstance(solution.value, Tensor)
    return torch.autograd.grad(solution.value, (*problem.args, *problem.params), c)


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("precondition", [None, "forward"])
def test_implicit_is_the_dense_adjoint_and_the_difference(radius: float, precondition: Any) -> None:
    problem, c, right = random_network(radius, seed=1)
    gradient = Implicit(reltol=1e-12, precondition=precondition)

    def solved(problem: Problem) -> Solution:
        return implicit.solve(problem, Broyden(), gradient, reltol=1e-12, max_evaluations=500)

    got = gradients(solved(problem), problem, c)
    # 1e-12 amplified by 1 / (1 - 0.99), and by that the nearest eigenvalues are not normal.
    assert all(relative(a, b) < 1e-9 for a, b in zip(got, right, strict=True))
    g = torch.Generator().manual_seed(2)
    h = 6e-6  # the cube root of the rounding
    tensors = (*problem.args, *problem.params)
    for _ in range(10):
        along = [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in tensors]
        along = [d / d.norm() for d in along]

        def loss(step: float, along: list[Tensor] = along) -> float:
            (u, W) = (t.detach() + step * d for t, d in zip(tensors, along, strict=True))
            with torch.no_grad():
                value: Any = solved(replace(problem, args=(u,), params=(W,))).value  # type: ignore[type-var]
            return float((value * c).sum())

        slope = (loss(h) - loss(-h)) / (2 * h)
        mine = sum(float((a * d).sum()) for a, d in zip(got, along, strict=True))
        size = sum(float(a.square().sum()) for a in got) ** 0.5
        # h² of third derivatives, and 1e-12 / h of a solve.
        assert abs(slope - mine) <= 1e-6 * size


@pytest.mark.parametrize("reltol", [1e-5, 1e-8, 1e-11])
def test_the_gradient_does_not_depend_on_who_found_the_equilibrium(reltol: float) -> None:
    u, W = injection(4, 12).requires_grad_(), weights(12, 0.6).requires_grad_()
    c = injection(4, 12, seed=5)
    found = []
    for name in NATIVE:
        gradient = Implicit(reltol=TIGHT, max_products=300)
        z = value(u, W, solvers.registry.get(name), gradient, reltol)
        got = torch.autograd.grad(z, (u, W), c)
        found.append(torch.cat([g.flatten() for g in got]))
    spread = max(float((a - b).norm() / a.norm()) for a in found for b in found)
    assert 0 < spread <= 10 * reltol


@pytest.mark.parametrize("radius", [0.5, 0.9])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_the_error_is_of_the_first_order_in_the_residual(adjoint: str, radius: float) -> None:
    """The point is put at a distance from z*, so that nothing but the residual changes."""
    problem, c, right = random_network(radius, seed=3)
    z = problem.z0 / 0.9  # type: ignore[operator]
    off = injection(1, 40, seed=9)
    exact = Implicit(adjoint_registry.get(adjoint), reltol=TIGHT, max_products=1000)
    residuals, errors = [], []
    for distance in (10.0**-k for k in range(2, 10)):
        there = replace(problem, z0=z + distance * off)  # type: ignore[type-var]
        solution = implicit.solve(there, Picard(), exact, max_evaluations=1, reltol=0.0)
        got = gradients(solution, there, c)
        residuals.append(float(solution.residual[0]))
        errors.append(relative(got[1], right[1]))
    x, y = torch.tensor(residuals).log(), torch.tensor(errors).log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert slope == pytest.approx(1.0, abs=0.05)


# -- the scale of the loss ------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-12, 1e-5, 1e5, 1e12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("how", GRADIENTS)
def test_the_scale_of_the_loss_has_no_influence(
    how: str, dtype: torch.dtype, factor: float
) -> None:
    u = injection(3, 8).to(dtype).requires_grad_()
    W = weights(8).to(dtype).requires_grad_()
    gradient = registry.get(how)
    solver = None if "own" in gradient.requires else Broyden()
    found = []
    for scale in (1.0, factor):
        z = value(u, W, solver, gradient, 1e-3)
        du, dW = torch.autograd.grad(scale * (z * z).sum(), (u, W))
        found.append((du / scale, dW / scale))
    # The factors are no powers of two, so that each number is rounded.
    rounding = 1e-10 if dtype == torch.float64 else 1e-5
    for one, other in zip(*found, strict=True):
        assert relative(other, one) < rounding


# -- the adjoint preconditioned by the forward's inverse ------------------------------------------


@pytest.mark.parametrize(("scale", "size"), [(1.1, 0.1), (1.3, 0.3)])
@pytest.mark.parametrize("solver", [Broyden(), Anderson(window=100)])
def test_half_the_products_for_the_same_gradient(solver: Any, scale: float, size: float) -> None:
    """The median over six networks of a spectral radius of 0.9 and more."""
    ratios = []
    for seed in range(6):
        problem: Any = problems.get(
            "tanh", scale=scale, injection=size, dim=100, batch=1, dtype="float64", seed=seed
        )
        u, W = problem.args[0].requires_grad_(), problem.params[0].requires_grad_()
        c = injection(1, 100, seed=seed)
        products, errors = [], []
        for precondition in (None, "forward"):
            gradient = Implicit(reltol=1e-6, precondition=precondition)
            solution: Any = implicit.solve(
                problem, solver, gradient, reltol=1e-8, max_evaluations=500
            )
            if not solution.success:  # Anderson's, at an unstable equilibrium
                break
            got = torch.autograd.grad(solution.value, (u, W), c)
            z = solution.value.detach()
            J = (1 - z * z).T * W.detach()
            assert float(torch.linalg.eigvals(J).abs().max()) >= 0.9
            v = (1 - z * z) * torch.linalg.solve(torch.eye(100, dtype=z.dtype) - J.T, c[0])
            assert solution.adjoint.success
            products.append(solution.adjoint.stats.vjps)
            errors.append(relative(got[0], v))
        else:
            ratios.append(products[1] / products[0])
            # Both are as exact as their residual of 1e-6, amplified by the same inverse.
            assert max(errors) < 1e-4
            assert errors[1] < 10 * errors[0]
    assert len(ratios) >= 4
    assert statistics.median(ratios) <= 0.55
