"""DEQ, the layer: starts, shapes, checkpointing, autocast, training."""

from __future__ import annotations

import copy
import io
from typing import Any

import cells
import pytest
import torch
from cells import Cell, injection, relative
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from implicit import DEQ, Implicit, Unrolled
from solvers import Anderson, Broyden, Fallback, Newton, OptionError, Picard


def test_the_start() -> None:
    class Own(Cell):
        def initial_state(self, u: Tensor) -> Tensor:
            return torch.full_like(u, 0.5)

    u = injection()
    starts: list[Tensor] = []

    def layer_of(cell: nn.Module) -> DEQ:
        cell.register_forward_pre_hook(lambda _, inputs: starts.append(inputs[0].detach()))
        return DEQ(cell, solver=Picard())

    layer_of(Cell())(u)
    assert torch.equal(starts[0], torch.zeros_like(u))
    starts.clear()
    layer_of(Own())(u)
    assert torch.equal(starts[0], torch.full_like(u, 0.5))
    starts.clear()
    layer_of(Own())(u, z0=torch.ones_like(u))
    assert torch.equal(starts[0], torch.ones_like(u))


def test_without_args_a_start_is_needed() -> None:
    class Free(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))

        def forward(self, z: Tensor) -> Tensor:
            return torch.tanh(0.5 * z + self.b)

    layer = DEQ(Free(), reltol=1e-12)
    with pytest.raises(
        ValueError, match=r"without args and cell\.initial_state the layer needs z0"
    ):
        layer()
    z = layer(z0=torch.zeros(2, 1, dtype=torch.float64))
    z.sum().backward()
    s = 1 - z.detach() ** 2
    assert layer.cell.b.grad is not None
    assert torch.allclose(layer.cell.b.grad, (s / (1 - 0.5 * s)).sum(dim=0))


def test_the_default_solver_and_gradient() -> None:
    layer = DEQ(Cell(), reltol=1e-8)
    layer(injection())
    assert layer.solution is not None
    assert layer.solution.solver == Fallback()
    assert layer.gradient == Implicit()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reltol": -1.0}, OptionError, "reltol = -1"),
        ({"norm": "l3"}, OptionError, "norm = 'l3'"),
        ({"max_evaluations": 0}, OptionError, "max_evaluations = 0"),
    ],
)
def test_options(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DEQ(Cell(), **options)


def test_a_cell_is_a_module() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
        DEQ(cells.f)  # type: ignore[arg-type]


def test_a_wrong_shape_names_the_evaluation() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return self.linear(z)  # type: ignore[no-any-return]

    with pytest.raises(
        ValueError, match=r"at evaluation 1 the function returned of shape \(3, 5\)"
    ):
        DEQ(Wrong())(torch.randn(3, 4))


def test_tuple_states_and_several_args() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

        def initial_state(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(x), torch.zeros_like(y)

        def forward(self, z: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tanh(self.a * z[1].sum(1, keepdim=True) + x), torch.cos(self.a * z[1] + y)

    layer = DEQ(Pair(), solver=Anderson(), gradient=Implicit(reltol=1e-12), reltol=1e-12)
    x, y = injection(2, 3), injection(2, 1)
    z = layer(x, y)
    assert isinstance(z, tuple)
    assert [t.shape for t in z] == [(2, 3), (2, 1)]
    sum(t.sum() for t in z).backward()
    assert layer.solution is not None
    assert isinstance(layer.solution.value, tuple)
    assert layer.cell.a.grad is not None

    def loss(a: float) -> float:
        other = DEQ(Pair(), solver=Anderson(), reltol=1e-12)
        with torch.no_grad():
            other.cell.a.fill_(a)
            return float(sum(t.sum() for t in other(x, y)))

    h = 1e-5
    slope = (loss(0.4 + h) - loss(0.4 - h)) / (2 * h)
    assert float(layer.cell.a.grad) == pytest.approx(slope, rel=1e-6)  # 1e-12 / h, and h²


# -- saved, copied, trained -----------------------------------------------------------------------


def test_it_can_be_saved_and_copied() -> None:
    layer, u = DEQ(Cell(), reltol=1e-10), injection()
    z = layer(u)
    z.sum().backward()
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(u), z)
    other = DEQ(Cell(seed=5), reltol=1e-10)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(u), z)


def test_it_says_what_it_is() -> None:
    text = repr(DEQ(Cell(), solver=Anderson(window=3), reltol=1e-5))
    assert "Anderson(window=3" in text
    assert "reltol=1e-05" in text
    assert "Cell" in text


@pytest.mark.parametrize("gradient", [Implicit(), Unrolled()])
def test_it_trains(gradient: Any) -> None:
    torch.manual_seed(0)
    layer = DEQ(Cell(), solver=Anderson(), gradient=gradient, reltol=1e-6)
    readout = nn.Linear(4, 1, dtype=torch.float64)
    u = torch.randn(16, 4, dtype=torch.float64)
    target = u.prod(dim=1, keepdim=True).sign()
    optimiser = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=0.02)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = ((readout(layer(u)) - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_it_moves_between_precisions() -> None:
    layer = DEQ(Cell(), solver=Broyden(), reltol=1e-4)
    layer.float()
    z = layer(injection().float())
    assert z.dtype == torch.float32
    z.sum().backward()
    assert layer.cell.W.grad.dtype == torch.float32


# -- checkpointing --------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("gradient", [Implicit(reltol=1e-12), Unrolled()])
@pytest.mark.parametrize("solver", [Anderson(), Newton()])
def test_activation_checkpointing(reentrant: bool, gradient: Any, solver: Any) -> None:
    layer = DEQ(Cell(), solver=solver, gradient=gradient, reltol=1e-12, max_evaluations=200)
    before, behind = nn.Linear(4, 4, dtype=torch.float64), nn.Linear(4, 1, dtype=torch.float64)
    u = injection().requires_grad_()

    def block(u: Tensor) -> Tensor:
        return behind(layer(before(u)))  # type: ignore[no-any-return]

    tensors = (u, layer.cell.W, before.weight, behind.weight)
    expected = torch.autograd.grad(block(u).sum(), tensors)
    for t in tensors:
        t.grad = None
    checkpoint(block, u, use_reentrant=reentrant).sum().backward()  # type: ignore[union-attr]
    for t, right in zip(tensors, expected, strict=True):
        assert t.grad is not None
        assert relative(t.grad, right) < 1e-9  # the same numbers, solved once more


# -- autocast -------------------------------------------------------------------------------------


def bf16_gradient(W: Tensor, u: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """dL/dW of the function that autocast evaluates, by a dense solve in float64."""

    def f(z: Tensor, W: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            return torch.tanh(torch.nn.functional.linear(z, W) + u).float()

    J = (
        torch.stack(
            [torch.autograd.functional.jacobian(lambda x: f(x[None], W)[0], row) for row in z]
        )
        if u.shape[0] == 1
        else _blocks(f, z, W)
    )
    eye = torch.eye(z.shape[1], dtype=torch.float64)
    v = torch.linalg.solve((eye - J.double()).mT, c.double())
    leaf = W.detach().clone().requires_grad_()
    (dW,) = torch.autograd.grad(f(z, leaf), leaf, v.float())
    return dW


def _blocks(f: Any, z: Tensor, W: Tensor) -> Tensor:
    leaf = z.detach().clone().requires_grad_()
    out = f(leaf, W)
    rows = [
        torch.autograd.grad(out[:, k].sum(), leaf, retain_graph=True)[0] for k in range(z.shape[1])
    ]
    return torch.stack(rows, dim=1)


class Linear(nn.Module):
    """A cell whose product autocast does in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(cells.weights(16, 0.8).float())

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(nn.functional.linear(z, self.W) + u)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("adjoint", [None, Anderson()])
def test_autocast(inside: bool, adjoint: Any) -> None:
    cell, u = Linear(), injection(5, 16).float()
    gradient = Implicit(reltol=1e-3) if adjoint is None else Implicit(solver=adjoint, reltol=1e-3)
    layer = DEQ(cell, solver=Anderson(), gradient=gradient, reltol=1e-2)
    c = torch.randn(5, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(u)
        assert z.dtype == torch.float32  # the state keeps its precision
        loss = (z * c).sum()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    assert layer.solution is not None
    assert layer.solution.success
    assert layer.adjoint_solution is not None
    assert layer.adjoint_solution.success
    assert cell.W.grad is not None
    expected = bf16_gradient(cell.W.detach(), u, z.detach(), c)
    # The adjoint's tolerance over 1 - 0.8, and bfloat16's rounding of the products, 2^-8.
    assert relative(cell.W.grad, expected) < 0.02


def test_autocast_linearises_the_function_that_was_solved() -> None:
    """Backward runs outside the block, and still its products are in bfloat16."""
    seen: list[bool] = []

    class Watching(Linear):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(z, u)

    layer = DEQ(Watching(), solver=Anderson(), gradient=Implicit(reltol=1e-3), reltol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(injection(2, 16).float())
    assert not torch.is_autocast_enabled("cpu")
    count = len(seen)
    z.sum().backward()
    assert len(seen) > count
    assert all(seen)


def test_a_cell_in_bfloat16() -> None:
    layer = DEQ(Linear().bfloat16(), solver=Anderson(), gradient=Implicit(reltol=0.05), reltol=0.02)
    u = injection(3, 16).bfloat16()
    z = layer(u)
    assert z.dtype == torch.bfloat16
    assert layer.solution is not None
    assert layer.solution.success
    z.sum().backward()
    exact = DEQ(Linear(), solver=Anderson(), gradient=Implicit(reltol=1e-5), reltol=1e-5)
    exact(u.float()).sum().backward()
    assert relative(layer.cell.W.grad.float(), exact.cell.W.grad) < 0.2  # 2^-8 over 1 - 0.8, thrice
