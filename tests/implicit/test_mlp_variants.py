"""The weight-tied layer without its injection, and with layers of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import implicit
from implicit import Implicit, Unrolled
from implicit.models import Model, mlp, registry
from implicit.models.stack import Stack
from solvers import FixedPointProblem, Picard
from solvers.options import OptionError

SIZES = {"width": 6, "inputs": 5, "classes": 3}


def build(**options: object) -> Model:
    torch.manual_seed(0)
    model = registry.get("mlp", **{**SIZES, **options})
    model.module().double()
    return model


def some_x(batch: int = 8) -> Tensor:
    return torch.rand(batch, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def equilibrium(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        args = model.args(x)
        z: Tensor = model.cell.initial_state(*args)  # type: ignore[operator]
        for _ in range(400):
            z = model.cell(z, *args)
        assert torch.equal(model.cell(z, *args), z) or (model.cell(z, *args) - z).norm() < 1e-14
    return z


def unrolled(model: Model, x: Tensor, depth: int) -> Tensor:
    args = model.args(x)
    z0 = model.cell.initial_state(*args)  # type: ignore[operator]
    problem = FixedPointProblem(model.cell, z0, args)
    solution = implicit.solve(
        problem, Picard(), Unrolled(), fixed_budget=True, max_evaluations=depth
    )
    assert isinstance(solution.value, Tensor)
    return solution.value


def test_the_default_is_what_it_was() -> None:
    torch.manual_seed(3)
    model = mlp.build(**SIZES)  # type: ignore[arg-type]
    torch.manual_seed(3)
    U = torch.nn.Linear(5, 6)  # draws the bias too
    torch.nn.init.normal_(U.weight, std=1 / 5**0.5)
    W = 0.95 / 6**0.5 * torch.randn(6, 6)
    V = torch.nn.Linear(6, 3)
    assert isinstance(model.cell, mlp.Cell)
    assert torch.equal(model.cell.W, W)
    got = model.module().state_dict()
    assert sorted(got) == [
        "cell.W",
        "inject.bias",
        "inject.weight",
        "readout.bias",
        "readout.weight",
    ]
    assert torch.equal(got["inject.weight"], U.weight)
    assert torch.equal(got["readout.weight"], V.weight)
    x = some_x().float()
    (u,) = model.args(x)
    z = torch.randn(8, 6)
    assert torch.equal(model.cell(z, u), torch.tanh(torch.nn.functional.linear(z, W) + u))
    assert not model.explicit


def test_without_injection_the_fixed_point_of_a_contraction_knows_nothing_of_x() -> None:
    x = some_x()
    free, injected = build(injected=False, gain=0.3), build(gain=0.3)
    with torch.no_grad():
        free.cell.b.copy_(torch.linspace(-1, 1, 6))  # else z* is zero
        assert torch.linalg.matrix_norm(free.cell.W, 2) < 1  # type: ignore[arg-type]
    found = equilibrium(free, x)
    assert found.norm() > 1
    assert found.var(0).max() < 1e-28  # rounding
    assert equilibrium(injected, x).var(0).min() > 1e-4


def test_without_injection_the_network_of_finite_depth_learns_from_x_ever_less() -> None:
    x, sizes = some_x(), []
    for depth in (1, 4, 16):
        model = build(injected=False, gain=0.3)
        unrolled(model, x, depth).square().sum().backward()
        assert isinstance(model.inject, torch.nn.Linear)
        assert model.inject.weight.grad is not None
        sizes.append(float(model.inject.weight.grad.norm()))
    assert sizes[0] > 10 * sizes[1] > 100 * sizes[2] > 0

    model = build(injected=False, gain=0.3)
    args = model.args(x)
    problem = FixedPointProblem(model.cell, model.cell.initial_state(*args), args)  # type: ignore[operator]
    value = implicit.solve(problem, gradient=Implicit(), reltol=1e-10).value
    assert isinstance(value, Tensor)
    (value - 1).square().sum().backward()
    assert isinstance(model.inject, torch.nn.Linear)
    assert model.inject.weight.grad is None or model.inject.weight.grad.norm() == 0
    assert model.cell.b.grad.norm() > 0  # type: ignore[union-attr, operator]


def test_the_unrolled_network_without_injection_is_the_loop() -> None:
    model, x = build(injected=False), some_x()
    W, b = model.cell.W, model.cell.b
    z = x @ model.inject.weight.T + model.inject.bias  # type: ignore[union-attr, operator]
    for _ in range(5):
        z = torch.tanh(z @ W.T + b)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(unrolled(model, x, 5), z, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("injected", [True, False])
def test_layers_of_their_own(injected: bool) -> None:
    model, x = build(layers=4, injected=injected), some_x()
    assert model.explicit
    assert model.task == "classification"
    assert isinstance(model.cell, Stack)
    (u,) = model.args(x)
    z = torch.zeros_like(u) if injected else u
    for layer in model.cell.layers:
        assert isinstance(layer, mlp.Cell)
        inside = z @ layer.W.T + (u if injected else layer.b)
        z = torch.tanh(inside)
    torch.testing.assert_close(model.cell(u), z, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(model.cell(u, segments=2), z, rtol=1e-13, atol=1e-14)
    count = sum(p.numel() for p in model.module().parameters())
    assert count == (5 * 6 + 6) + 4 * (36 + (0 if injected else 6)) + (6 * 3 + 3)


def test_equal_layers_are_the_weight_tied_network() -> None:
    tied, own, x = build(), build(layers=7), some_x()
    assert isinstance(own.cell, Stack)
    for layer in own.cell.layers:
        layer.load_state_dict(tied.cell.state_dict())
    (u,) = tied.args(x)
    torch.testing.assert_close(own.cell(u), unrolled(tied, x, 7), rtol=1e-13, atol=1e-14)


def test_no_layers_are_refused() -> None:
    with pytest.raises(OptionError, match=r"model\.layers = 0"):
        registry.get("mlp", layers=0)
