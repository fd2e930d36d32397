"""The Universal Transformer: the DEQ-Transformer's cell at a fixed depth."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

import implicit
from implicit import Checkpointed, Unrolled, models
from implicit.models import Model, transformer
from implicit.models.transformer.cell import Cell
from solvers import FixedPointProblem, Picard
from solvers.options import OptionError

NAME = "universal_transformer"
SMALL: dict[str, Any] = {"width": 8, "inner": 12, "length": 5, "vocabulary": 7, "injection": 6.0}


def build(**options: Any) -> Model:
    torch.manual_seed(0)
    model = models.registry.get(NAME, **{**SMALL, **options})
    model.module().double()
    return model


def evaluated(model: Model, x: Tensor, gradient: Any) -> Tensor:
    args = model.args(x)
    problem = FixedPointProblem(model.cell, cast(Cell, model.cell).initial_state(*args), args)
    assert model.depth is not None
    solution = implicit.solve(
        problem, Picard(), gradient, reltol=0.0, max_evaluations=model.depth, fixed_budget=True
    )
    return cast(Tensor, solution.value)


def test_it_is_the_transformers_cell_at_a_depth() -> None:
    model = build(depth=3)
    torch.manual_seed(0)
    other = transformer.build(**SMALL)
    other.module().double()
    one, two = (m.module().state_dict() for m in (model, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert (model.depth, other.depth) == (3, None)
    assert not model.explicit


@pytest.mark.parametrize("depth", [1, 4])
def test_its_state_is_that_after_so_many_evaluations(depth: int) -> None:
    model = build(depth=depth)
    x = torch.arange(10).reshape(2, 5) % 7
    args = model.args(x)
    z = cast(Cell, model.cell).initial_state(*args)
    for _ in range(depth):
        z = model.cell(z, *args)
    expected = torch.autograd.grad(z.square().sum(), list(model.cell.parameters()))
    for gradient in (Unrolled(), Checkpointed()):
        got = evaluated(model, x, gradient)
        torch.testing.assert_close(got, z, rtol=1e-12, atol=1e-13)
        gradients = torch.autograd.grad(got.square().sum(), list(model.cell.parameters()))
        torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-12)


def test_depth_tends_to_the_equilibrium() -> None:
    x = torch.arange(10).reshape(2, 5) % 7
    model = build(depth=200)
    with torch.no_grad():
        deep = evaluated(model, x, Unrolled())
        torch.testing.assert_close(model.cell(deep, *model.args(x)), deep, rtol=0.0, atol=1e-9)
        shallow = [(evaluated(build(depth=n), x, Unrolled()) - deep).norm() for n in (1, 4, 16)]
    assert shallow[0] > shallow[1] > shallow[2] > 0


def test_a_segment_remembers_the_last_depth() -> None:
    model = build(depth=2, memory=5)
    x = torch.arange(10).reshape(2, 5) % 7
    z = evaluated(model, x, Unrolled())
    memory = model.memory(z, model.args(x))
    assert torch.equal(memory[0], z)
    assert not torch.equal(model.cell(z, *model.args(x, memory)), model.cell(z, *model.args(x)))


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match=r"model\.depth = 0"):
        models.registry.get(NAME, depth=0)
    with pytest.raises(OptionError, match=r"heads = 3: must divide width = 32"):
        models.registry.get(NAME, heads=3)


def test_reference() -> None:
    assert "Universal Transformers, ICLR 2019" in models.registry.describe(NAME).reference
