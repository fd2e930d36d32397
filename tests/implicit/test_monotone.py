"""The monotone network: its equation and margin, and the splittings behind every gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cells import SPLITTINGS, forward_mode, relative
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Implicit
from implicit.gradients import Checkpointed, Unrolled
from implicit.gradients import registry as gradients
from implicit.models import Model, monotone
from solvers import Anderson, FixedPointProblem, ForwardBackward, OptionError, PeacemanRachford
from solvers.proximal import Dense, projected

splittings = pytest.mark.parametrize("name", SPLITTINGS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(seed: int = 0, **options: Any) -> Model:
    torch.manual_seed(seed)
    model = monotone.build(**{"width": 6, "inputs": 5, "classes": 3, **options})
    model.module().double()
    return model


def some_input(batch: int = 4, inputs: int = 5, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(batch, inputs, generator=g, dtype=torch.float64)


def cell_of(model: Model) -> monotone.Cell:
    assert isinstance(model.cell, monotone.Cell)
    return model.cell


def least(W: Tensor) -> float:
    """The least eigenvalue of the symmetric part of I − W."""
    F = torch.eye(len(W), dtype=W.dtype) - W.detach()
    return float(torch.linalg.eigvalsh((F + F.mT) / 2)[0])


def problem_of(model: Model, x: Tensor) -> FixedPointProblem:
    args = model.args(x)
    return FixedPointProblem(model.cell, torch.zeros_like(args[0]).detach(), args)


def value(model: Model, x: Tensor, solver: Any, gradient: Any = None, **options: Any) -> Tensor:
    options = {"reltol": 1e-12, "max_evaluations": 3000, **options}
    z = implicit.solve(problem_of(model, x), solver, gradient, **options).value
    assert isinstance(z, Tensor)
    return z


def gradient_of(model: Model, z: Tensor) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)
    c = torch.randn(z.shape, generator=g, dtype=torch.float64).to(z.dtype)
    parameters = [*model.inject.parameters(), *model.cell.parameters()]  # type: ignore[attr-defined]
    return list(torch.autograd.grad((z * c).sum(), parameters))


def dense_gradient(model: Model, x: Tensor) -> list[Tensor]:
    """By dense algebra on the active set of z*, then autograd for W's own parameters."""
    cell = cell_of(model)
    z = value(model, x, Anderson(window=20)).detach()
    (u,) = model.args(x)
    W, eye = cell.W.detach(), torch.eye(z.shape[1], dtype=z.dtype)
    D = (z @ W.T + u.detach() > 0).to(z.dtype)
    g = torch.Generator().manual_seed(7)
    c = torch.randn(z.shape, generator=g, dtype=torch.float64)
    v = torch.stack(
        [torch.linalg.solve((eye - d[:, None] * W).T, k) for d, k in zip(D, c, strict=True)]
    )
    surrogate = (D * v * (z @ cell.W.T + u)).sum()
    parameters = [*model.inject.parameters(), *cell.parameters()]  # type: ignore[attr-defined]
    return list(torch.autograd.grad(surrogate, parameters))


def error(got: list[Tensor], right: list[Tensor]) -> float:
    return max(relative(a, b) for a, b in zip(got, right, strict=True))


# --------------------------------------------------------------------------------- the model itself


def test_the_cell_is_its_equation() -> None:
    model, x = build(m=0.3), some_input()
    cell = cell_of(model)
    z = torch.randn(4, 6, dtype=torch.float64)
    A, B = (t.detach().numpy() for t in cell.factors)
    U, b = (t.detach().numpy() for t in model.inject.parameters())  # type: ignore[attr-defined]
    W = (1 - 0.3) * np.eye(6) - A.T @ A + B - B.T
    expected = np.maximum(z.numpy() @ W.T + x.numpy() @ U.T + b, 0)
    np.testing.assert_allclose(
        model.cell(z, *model.args(x)).detach().numpy(), expected, rtol=1e-12, atol=1e-13
    )
    names = {n for n, _ in model.module().named_parameters()}
    assert {"cell.parametrizations.W.original0", "cell.parametrizations.W.original1"} <= names


def test_it_has_as_many_parameters_as_its_equation() -> None:
    module = monotone.build(width=7, inputs=3, classes=2).module()
    assert sum(p.numel() for p in module.parameters()) == 2 * 7 * 7 + 7 * 3 + 7 + 2 * 7 + 2


@pytest.mark.parametrize("m", [0.01, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_margin_holds_for_any_parameters(m: float, scale: float) -> None:
    for seed in range(3):
        cell = cell_of(build(seed, m=m))
        with torch.no_grad():
            for factor in cell.factors:
                factor.copy_(scale * torch.randn(6, 6))
        rounding = 1e-12 * (1 + scale**2)
        assert least(cell.W) >= m - rounding
        if scale == 0:
            assert least(cell.W) == pytest.approx(m)


def test_training_leaves_it_monotone_and_solvable() -> None:
    model = build(m=0.1, gain=0.5)
    module = model.module()
    layer = DEQ(model.cell, solver=PeacemanRachford(), reltol=1e-6, max_evaluations=400)
    x, target = some_input(24), torch.arange(24) % 3
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    before, losses = cell_of(model).W.detach().clone(), []
    for _ in range(15):
        loss = model.loss(model.readout(layer(*model.args(x))), target)
        assert layer.solution is not None
        assert layer.solution.success
        optimiser.zero_grad()
        loss.backward()
        assert layer.adjoint_solution is not None
        assert layer.adjoint_solution.success
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert relative(cell_of(model).W.detach(), before) > 0.5  # it has moved
    assert least(cell_of(model).W) >= 0.1 - 1e-12


def test_an_assigned_matrix_is_taken_apart() -> None:
    cell, other = cell_of(build(0, m=0.2)), cell_of(build(1, m=0.3))
    W = other.W.detach()
    cell.W = W
    torch.testing.assert_close(cell.W, W, rtol=1e-12, atol=1e-13)
    cell.W = 0.8 * torch.eye(6, dtype=torch.float64)  # at the margin itself
    assert least(cell.W) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"margin of 0\.1, less than m = 0\.2: lower m"):
        cell.W = 0.9 * torch.eye(6, dtype=torch.float64)


def test_it_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        module = monotone.build(width=1000).module()
    assert all(p.is_meta for p in module.parameters())


def test_bad_options_are_refused() -> None:
    registry: solvers.Registry[Model] = solvers.Registry("model")
    registry.register("monotone", monotone.build)
    with pytest.raises(OptionError, match=r"model\.m = 0"):
        registry.get("monotone", m=0.0)
    with pytest.raises(OptionError, match=r"model\.with.*did you mean 'width'"):
        registry.get("monotone", **{"with": 3})


def test_a_solve_computes_the_matrix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build(), some_input()
    calls, own = [], monotone.Margin.forward

    def counted(self: monotone.Margin, A: Tensor, B: Tensor) -> Tensor:
        calls.append(1)
        return own(self, A, B)

    monkeypatch.setattr(monotone.Margin, "forward", counted)
    gradient_of(model, value(model, x, PeacemanRachford()))
    assert len(calls) == 1


# -------------------------------------------------------------------- the splittings as its solvers


@splittings
@pytest.mark.parametrize("m", [0.2, 1.0])
def test_one_fixed_point_from_anywhere_whoever_solves(name: str, m: float) -> None:
    model, x = build(m=m, gain=0.5), some_input(1).expand(20, 5)
    g = torch.Generator().manual_seed(3)
    problem = problem_of(model, x)
    starts = 10 * torch.randn(20, 6, generator=g, dtype=torch.float64)
    problem = FixedPointProblem(problem.f, starts, tuple(a.detach() for a in problem.args))
    with torch.no_grad():
        found = solvers.solve(
            problem, solvers.registry.get(name), reltol=1e-13, max_evaluations=20000
        )
        assert found.success
        z = found.value
        assert isinstance(z, Tensor)
        other = solvers.solve(
            FixedPointProblem(problem.f, z + 1e-3, problem.args), solvers.Newton(), reltol=1e-13
        )
    assert float((z - z[0]).abs().max()) < 1e-10
    assert other.success
    assert float((other.value - z).abs().max()) < 1e-10  # type: ignore[operator]


@splittings
def test_the_implicit_gradient_is_that_of_dense_algebra(name: str) -> None:
    model, x = build(), some_input()
    right = dense_gradient(model, x)
    z = value(model, x, solvers.registry.get(name), Implicit(reltol=1e-12))
    # 1e-12 in z and in the adjoint, over a margin of 0.5.
    assert error(gradient_of(model, z), right) < 1e-9


@splittings
@pytest.mark.parametrize("how", gradients.names())
def test_every_gradient_through_both(name: str, how: str) -> None:
    model, x = build(m=1.0), some_input()
    gradient = gradients.get(how)
    options = {"reltol": 1e-6, "max_evaluations": 200}
    refused = gradient.requires & {"inverse", "own"}
    if refused:
        message = "leaves none" if "inverse" in refused else "brings its own iteration"
        with pytest.raises(ValueError, match=message):
            value(model, x, solvers.registry.get(name), gradient, **options)
        return
    z = value(model, x, solvers.registry.get(name), gradient, **options)
    for got, right in zip(gradient_of(model, z), dense_gradient(model, x), strict=True):
        assert float((got * right).sum()) > 0
        if gradient.exact:
            assert relative(got, right) < 1e-3


@splittings
@pytest.mark.parametrize("segments", ["sqrt", "recursive"])
def test_steps_taken_anew_have_the_gradient_of_the_steps(name: str, segments: Any) -> None:
    """Each segment of the backward makes the resolvent anew, with its graph."""
    model, x, solver = build(), some_input(), solvers.registry.get(name)
    options = {"reltol": 0.0, "max_evaluations": 9}
    through = gradient_of(model, value(model, x, solver, Unrolled(), **options))
    again = gradient_of(model, value(model, x, solver, Checkpointed(segments), **options))
    assert error(again, through) < 1e-12


@pytest.mark.parametrize("solver", [ForwardBackward(0.4), PeacemanRachford(0.8)])
def test_the_steps_are_differentiable(solver: Any) -> None:
    """At a length that is given, against central differences of the unconverged iterate."""
    model, x = build(), some_input()
    options = {"reltol": 0.0, "max_evaluations": 5}
    got = gradient_of(model, value(model, x, solver, Unrolled(), **options))
    g = torch.Generator().manual_seed(7)
    c = torch.randn(4, 6, generator=g, dtype=torch.float64)
    parameters = [*model.inject.parameters(), *model.cell.parameters()]  # type: ignore[attr-defined]
    for parameter, slope in zip(parameters, got, strict=True):
        d = torch.randn(parameter.shape, generator=g, dtype=torch.float64)

        def at(step: float, p: Tensor = parameter, d: Tensor = d) -> float:
            with torch.no_grad():
                p.add_(step * d)
                found = float((value(model, x, solver, Unrolled(), **options) * c).sum())
                p.sub_(step * d)
            return found

        h = 1e-6  # kinks lie farther away than that
        difference = (at(h) - at(-h)) / (2 * h)
        along = float((slope * d).sum())
        assert abs(along - difference) < 1e-6 * (1 + abs(along))


# ----------------------------------------------------------------- reached through whatever wraps f


@splittings
def test_through_a_copy_a_swap_and_a_wrapper(name: str) -> None:
    model, x = build(), some_input()
    z = value(model, x, Anderson()).detach()
    solver = solvers.registry.get(name)
    cell, (u,) = model.cell, model.args(x)
    twin = copy.deepcopy(cell)
    parameters = {k: p.detach().clone() for k, p in cell.named_parameters()}

    def swapped(z: Tensor, u: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(cell, parameters, (z, u))
        return out

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cell

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            out: Tensor = self.inner(z, u)
            return out

    for f in (twin, swapped, Around()):
        problem = FixedPointProblem(f, torch.zeros_like(u).detach(), (u.detach(),))
        with torch.no_grad():
            solution = implicit.solve(problem, solver, reltol=1e-12, max_evaluations=2000)
        assert solution.success
        torch.testing.assert_close(solution.value, z, rtol=1e-10, atol=1e-11)


@forward_mode
@splittings
@pytest.mark.parametrize("gradient", [Implicit(reltol=1e-11), Unrolled()])
def test_under_the_transforms_of_torch(name: str, gradient: Any) -> None:
    W = torch.stack([cell_of(build(s, m=1.0)).W.detach() for s in range(3)])
    u = torch.randn(3, 2, 6, dtype=torch.float64)
    solver = solvers.registry.get(name)

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return projected(z @ W.mT + u, Dense(W, 1.0))

    def loss(u: Tensor, W: Tensor) -> Tensor:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), (W,), samples_independent=True)
        z = implicit.solve(problem, solver, gradient, reltol=1e-11, max_evaluations=300).value
        assert isinstance(z, Tensor)
        return z.square().sum()

    together = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(u, W)
    for k in range(3):
        alone = torch.func.grad(loss, argnums=(0, 1))(u[k], W[k])
        for a, b in zip(together, alone, strict=True):
            assert relative(a[k], b) < 1e-8
        _, tangent = torch.func.jvp(lambda v, k=k: loss(v, W[k]), (u[k],), (torch.ones_like(u[k]),))
        assert float(tangent) == pytest.approx(float(alone[0].sum()), rel=1e-7)


@splittings
def test_under_autocast(name: str) -> None:
    model, x = build(m=1.0), some_input()
    exact = value(model, x, Anderson()).detach()
    model.module().float()
    problem = problem_of(model, x.float())
    with torch.autocast("cpu", torch.bfloat16):
        z = implicit.solve(problem, solvers.registry.get(name), reltol=3e-2).value
    assert isinstance(z, Tensor)
    assert z.dtype == torch.float32
    assert relative(z.detach().double(), exact) < 0.1  # bfloat16 and 3e-2, over a margin of 1


def test_a_compiled_cell_runs_as_it_was() -> None:
    model, x = build(), some_input()
    solver = PeacemanRachford()
    right = value(model, x, solver)
    layer = DEQ(
        torch.compile(model.cell, backend="eager"),  # type: ignore[arg-type]
        solver=solver,
        reltol=1e-12,
        max_evaluations=3000,
        compile=True,
    )
    z = layer(*model.args(x))
    torch.testing.assert_close(z, right, rtol=1e-10, atol=1e-11)
    assert error(gradient_of(model, z), gradient_of(model, right)) < 1e-9


@splittings
def test_the_adjoint_is_no_such_map_and_says_so(name: str) -> None:
    with pytest.raises(OptionError, match="the adjoint is a linear system; use GMRES"):
        Implicit(solver=solvers.registry.get(name))


@splittings
def test_nothing_lives_on(name: str) -> None:
    import gc
    import weakref

    model, x = build(), some_input()
    gone: list[weakref.ref[Any]] = []

    class Watched(Dense):
        def __init__(self, W: Tensor, margin: float) -> None:
            super().__init__(W, margin)
            gone.append(weakref.ref(self))

    (u,) = model.args(x)
    W = cell_of(model).W.detach()

    def f(z: Tensor, u: Tensor) -> Tensor:
        return projected(z @ W.T + u, Watched(W, 0.5))

    gc.disable()
    try:
        problem = FixedPointProblem(f, torch.zeros_like(u).detach(), (u.detach(),))
        solution = solvers.solve(problem, solvers.registry.get(name), max_evaluations=50)
        assert solution.stats.evaluations == len(gone)
        assert len(gone) > math.log(1e3)
        assert not any(r() is not None for r in gone)
    finally:
        gc.enable()
