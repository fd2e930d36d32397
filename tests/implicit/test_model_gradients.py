"""Gradients of every model: against central differences, and the dense adjoint in float64."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import small_models
import torch
from small_models import SOLVED
from torch import Tensor

import implicit
import solvers
from implicit import Implicit, Unrolled
from implicit.gradients.implicit import adjoint_registry
from implicit.models import Model
from solvers import Anderson, Fallback, FixedPointProblem, NewtonKrylov, Picard

# A multiscale cell this small has no equilibrium that all solvers find: see test_mdeq.py.
every_model = pytest.mark.parametrize("name", [n for n in SOLVED if n != "mdeq"])
TIGHT = 1e-12


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[Model, Tensor, Tensor]:
    model = small_models.build(name, seed=3, dtype=dtype)
    x, target = small_models.inputs(name, 3, seed=4)
    return model, x.to(dtype) if x.is_floating_point() else x, target


def problem_of(model: Model, x: Tensor) -> FixedPointProblem:
    args = model.args(x)
    z0 = model.cell.initial_state(*args).detach()  # type: ignore[operator]
    return FixedPointProblem(model.cell, z0, args)


def loss_of(
    model: Model,
    x: Tensor,
    target: Tensor,
    solver: Any = None,
    gradient: Any = None,
    **options: Any,
) -> Tensor:
    options = {"reltol": TIGHT, "max_evaluations": 2000, **options}
    chain = solver or Fallback((Anderson(window=20), NewtonKrylov()))
    solution = implicit.solve(problem_of(model, x), chain, gradient, **options)
    return model.loss(model.readout(solution.value), target)


def gradient_of(model: Model, loss: Tensor) -> dict[str, Tensor]:
    names, tensors = zip(*model.module().named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, tensors), strict=True))


@functools.cache
def right_gradient(name: str) -> dict[str, Tensor]:
    return dense_gradient(*build(name))


def dense_gradient(model: Model, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """By dense algebra: Newton for z*, a direct solve for the adjoint, autograd for the rest."""
    args = model.args(x)
    detached = tuple(a.detach() for a in args)
    with torch.no_grad():  # into Newton's reach
        given = replace(problem_of(model, x), args=detached)
        near = solvers.solve(given, Anderson(window=20), reltol=1e-6, max_evaluations=500)
        z = near.value
        assert isinstance(z, Tensor)

    def jacobian(z: Tensor) -> Tensor:
        leaf = z.detach().requires_grad_()
        out = model.cell(leaf, *detached).flatten(1)
        rows = [
            torch.autograd.grad(out[:, k].sum(), leaf, retain_graph=True)[0].flatten(1)
            for k in range(out.shape[1])
        ]
        return torch.stack(rows, dim=1)

    for _ in range(5):
        r = (model.cell(z, *detached) - z).detach().flatten(1)
        eye = torch.eye(r.shape[1], dtype=z.dtype)
        z = z + torch.linalg.solve(eye - jacobian(z), r).reshape(z.shape)
    assert float((model.cell(z, *detached) - z).detach().norm()) < 1e-13 * z.numel()

    leaf = z.detach().requires_grad_()
    loss = model.loss(model.readout(leaf), target)
    (c,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    v = torch.linalg.solve((eye - jacobian(z)).mT, c.flatten(1)).reshape(z.shape)
    surrogate = loss + (model.cell(z.detach(), *args) * v.detach()).sum()
    return gradient_of(model, surrogate)


def error(got: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert got.keys() == right.keys()
    difference = sum(float((got[n] - right[n]).square().sum()) for n in right)
    return float((difference / sum(float(r.square().sum()) for r in right.values())) ** 0.5)


@every_model
@pytest.mark.parametrize("adjoint", ["gmres", "dense", "anderson", "broyden", "picard"])
def test_against_the_dense_adjoint(name: str, adjoint: str) -> None:
    model, x, target = build(name)
    gradient = Implicit(solver=adjoint_registry.get(adjoint), reltol=TIGHT, max_products=3000)
    got = gradient_of(model, loss_of(model, x, target, gradient=gradient))
    # Two solves at 1e-12, over 1 - ρ of 0.05 and more.
    assert error(got, right_gradient(name)) < 1e-9


@every_model
def test_every_parameter_has_its_own_gradient(name: str) -> None:
    model, x, target = build(name)
    got = gradient_of(model, loss_of(model, x, target, gradient=Implicit(reltol=TIGHT)))
    right = right_gradient(name)
    largest = max(float(r.norm()) for r in right.values())
    for parameter, r in right.items():
        # Relative, but for those whose gradient is zero in exact arithmetic (a key's bias).
        assert float((got[parameter] - r).norm()) < 1e-8 * float(r.norm()) + 1e-12 * largest


@every_model
@pytest.mark.parametrize("seed", range(4))
def test_against_central_differences(name: str, seed: int) -> None:
    model, x, target = build(name)
    got = gradient_of(model, loss_of(model, x, target, gradient=Implicit(reltol=TIGHT)))
    g = torch.Generator().manual_seed(seed)
    parameters = dict(model.module().named_parameters())
    direction = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in parameters.items()}
    length = sum(float(d.square().sum()) for d in direction.values()) ** 0.5
    h = 1e-5 / length

    def at(step: float) -> float:
        with torch.no_grad():
            for n, p in parameters.items():
                p.add_(step * direction[n])
            value = float(loss_of(model, x, target))
            for n, p in parameters.items():
                p.sub_(step * direction[n])
        return value

    slope = (at(h) - at(-h)) / (2 * h)
    along = sum(float((got[n] * direction[n]).sum()) for n in direction)
    size = length * sum(float(v.square().sum()) for v in got.values()) ** 0.5
    # The losses are exact to 1e-12 or so: 1e-12 / 1e-5, and the square of the step.
    assert abs(along - slope) < 1e-6 * size


@every_model
@pytest.mark.parametrize("solver", ["anderson", "broyden", "newton_krylov", "newton", "picard"])
def test_whoever_finds_the_equilibrium(name: str, solver: str) -> None:
    model, x, target = build(name)
    got = gradient_of(
        model,
        loss_of(model, x, target, solvers.registry.get(solver), Implicit(reltol=1e-9), reltol=1e-9),
    )
    assert error(got, right_gradient(name)) < 1e-6


@every_model
def test_float32_is_as_exact_as_float32_is(name: str) -> None:
    right = right_gradient(name)
    model, x, target = build(name, torch.float32)
    loss = loss_of(model, x, target, gradient=Implicit(reltol=1e-6), reltol=1e-6)
    got = {n: v.double() for n, v in gradient_of(model, loss).items()}
    assert error(got, right) < 1e-4  # 1e-6 over 1 - ρ


@every_model
@pytest.mark.parametrize("factor", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_of_the_loss(name: str, factor: float, dtype: torch.dtype) -> None:
    model, x, target = build(name, dtype)
    gradient = Implicit(reltol=1e-3)  # inexact: the error is the same at each scale

    def scaled(k: float) -> dict[str, Tensor]:
        loss = k * loss_of(model, x, target, gradient=gradient, reltol=1e-4)
        return {n: v.double() / k for n, v in gradient_of(model, loss).items()}

    rounding = 1e-10 if dtype == torch.float64 else 1e-5
    assert error(scaled(factor), scaled(1.0)) < rounding


@every_model
def test_second_derivatives(name: str) -> None:
    model, x, target = build(name)
    tensors = list(model.module().parameters())
    g = torch.Generator().manual_seed(9)
    v = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in tensors]

    def gradient(create: bool) -> tuple[Tensor, ...]:
        loss = loss_of(model, x, target, Anderson(window=20), Implicit(reltol=TIGHT))
        return torch.autograd.grad(loss, tensors, create_graph=create)

    product = torch.autograd.grad(
        sum((a * b).sum() for a, b in zip(gradient(True), v, strict=True)),
        tensors,  # type: ignore[arg-type]
    )
    h = 1e-5

    def moved(step: float) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for p, d in zip(tensors, v, strict=True):
                p.add_(step * d)
        result = gradient(False)
        with torch.no_grad():
            for p, d in zip(tensors, v, strict=True):
                p.sub_(step * d)
        return result

    slope = [(a - b) / (2 * h) for a, b in zip(moved(h), moved(-h), strict=True)]
    names = [str(k) for k in range(len(tensors))]
    got, right = dict(zip(names, product, strict=True)), dict(zip(names, slope, strict=True))
    # h² times a fourth derivative, with steps of some 1e-4 in all.
    assert error(got, right) < 1e-5


@every_model
def test_the_explicit_network_tends_to_the_equilibrium(name: str) -> None:
    model, x, target = build(name)
    right = right_gradient(name)
    errors = []
    for depth in (5, 20, 80):
        loss = loss_of(model, x, target, Picard(), Unrolled(), reltol=0.0, max_evaluations=depth)
        errors.append(error(gradient_of(model, loss), right))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2


@every_model
def test_samples_are_independent_and_it_is_found_out(name: str) -> None:
    model, x, _ = build(name)
    problem = replace(problem_of(model, x), args=tuple(a.detach() for a in model.args(x)))
    with torch.no_grad():
        solution = solvers.solve(problem, NewtonKrylov(), reltol=1e-6, max_evaluations=100)
    assert solution.samples_independent is True
