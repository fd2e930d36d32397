"""Nothing lives on: neither tensors nor bytes, after forwards, trainings and failures."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cells import FOREIGN, NATIVE, OURS, Cell, injection
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import implicit
import solvers
from implicit import DEQ, AdjointError, Implicit
from implicit.gradients import Gradient, registry
from implicit.memory import saved_bytes
from solvers import Anderson, Broyden, Picard


def times(gradient: str, solver: str) -> int:
    """How often: a hundred times with the usual ones; what a single call leaves shows sooner."""
    return 100 if (gradient, solver) in (("implicit", "broyden"), ("unrolled", "picard")) else 12


def fits(gradient: Gradient, solver: str) -> bool:
    """Whether a gradient and a solver go together; what does not is an error, tested elsewhere."""
    if "own" in gradient.requires:
        return solver == "picard"
    if "native" in gradient.requires:
        return solver in NATIVE
    if "inverse" in gradient.requires:
        return solver in ("anderson", "broyden")
    return True


# Every gradient through one solver, and every solver under the exact one.
PAIRS = [
    *((name, "broyden") for name in registry.names() if fits(registry.get(name), "broyden")),
    *((name, "picard") for name in registry.names() if "own" in registry.get(name).requires),
    *(("implicit", name) for name in OURS if name != "broyden"),
    *(("unrolled", name) for name in NATIVE if name != "broyden"),
]


def layer_of(gradient: str | Gradient, solver: str = "broyden", **options: Any) -> DEQ:
    how = registry.get(gradient) if isinstance(gradient, str) else gradient
    options = {"reltol": 1e-3, "max_evaluations": 30} | options
    own = "own" in how.requires
    if own:  # so many steps are found back
        options["max_evaluations"] = 20
    return DEQ(
        Cell(4), solver=None if own else solvers.registry.get(solver), gradient=how, **options
    )


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Only what nobody refers to is freed: a cycle that holds a tensor shows."""
    gc.collect()
    gc.disable()
    gc.freeze()  # what there is already is out of sight
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def alive() -> tuple[int, int]:
    """How many tensors were made since and still live, and the bytes of their storages."""
    # Those of a compiler, of which some are kept for good, have no storage.
    tensors = [
        o for o in gc.get_objects() if issubclass(type(o), Tensor) and not isinstance(o, FakeTensor)
    ]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return len(tensors), sum(storages.values())


@pytest.mark.parametrize(("gradient", "solver"), PAIRS)
def test_forwards_without_a_backward(gradient: str, solver: str) -> None:
    layer, u = layer_of(gradient, solver), injection(2)
    with no_collection():
        for _ in range(3):  # what is made once, and the last solution, may stay
            layer(u)
        few = alive()
        for _ in range(times(gradient, solver)):
            layer(u)
        assert alive() <= few


@pytest.mark.parametrize(("gradient", "solver"), PAIRS)
def test_training_steps(gradient: str, solver: str) -> None:
    layer, u = layer_of(gradient, solver), injection(2)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        layer(u).square().sum().backward()
        optimiser.step()

    with no_collection():
        for _ in range(3):
            step()
        few = alive()
        for _ in range(times(gradient, solver)):
            step()
        # A solve that ends an evaluation later keeps a longer trace, of a few numbers.
        now = alive()
        assert now[0] <= few[0]
        assert now[1] <= few[1] + 4096


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_loops(name: str) -> None:
    """Their own results may hold what they like, but not more of it with each step."""
    layer, u = layer_of("implicit", name), injection(2)
    layer.gradient = Implicit(on_failure="ignore")

    def step() -> None:
        layer(u).square().sum().backward()

    for _ in range(3):
        step()
    gc.collect()
    few = alive()[0]
    for _ in range(10):
        step()
    gc.collect()  # cycles within a foreign library are its own
    assert alive()[0] <= few


@pytest.mark.parametrize("adjoint", [None, Anderson(), Picard()])
def test_second_derivatives(adjoint: Any) -> None:
    gradient = Implicit() if adjoint is None else Implicit(solver=adjoint)
    layer, u = layer_of(gradient), injection(2).requires_grad_()

    def step() -> None:
        (g,) = torch.autograd.grad(layer(u).square().sum(), u, create_graph=True)
        torch.autograd.grad(g.square().sum(), (u, layer.cell.W))

    with no_collection():
        for _ in range(3):
            step()
        few = alive()[0]
        for _ in range(10):
            step()
        assert alive()[0] <= few


def test_an_error_in_backward() -> None:
    layer = layer_of(Implicit(max_products=1, reltol=1e-9, on_failure="raise"))
    u = injection(2)

    def step() -> None:
        z = layer(u)
        seen.append(weakref.ref(z))
        with pytest.raises(AdjointError, match="the gradient is inexact"):
            z.sum().backward()

    seen: list[Any] = []
    for _ in range(3):
        step()
    gc.collect()  # an exception and its traceback are a cycle
    few = alive()[0]
    for _ in range(20):
        step()
    gc.collect()
    assert alive()[0] <= few
    assert all(ref() is None for ref in seen)
    assert layer.cell.W.grad is None


def test_an_error_in_the_cell() -> None:
    class Breaking(Cell):
        breaks = False

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            if self.breaks:
                raise KeyError("broken")
            return super().forward(z, u)

    layer, u = DEQ(Breaking(4), solver=Broyden()), injection(2)

    def step(*, forward: bool) -> None:
        layer.cell.breaks = forward
        with pytest.raises(KeyError, match="broken"):
            z = layer(u)
            layer.cell.breaks = True
            z.sum().backward()
        layer.cell.breaks = False

    step(forward=True)
    step(forward=False)
    gc.collect()
    few = alive()[0]
    for _ in range(10):
        step(forward=True)
        step(forward=False)
    gc.collect()
    assert alive()[0] <= few
    layer(u).sum().backward()  # and it goes on
    assert layer.cell.W.grad is not None


# -- what is kept between forward and backward ----------------------------------------------------


class Pair(nn.Module):
    """A state of two tensors, of two injections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Cell(width, 0.4), Cell(width, 0.4, seed=1)

    def initial_state(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.zeros_like(y)

    def forward(self, z: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        one = self.first(z[0], x + 0.3 * z[1].mean(dim=1))
        other = self.second(z[1], y + 0.3 * z[0][:, None])
        return one, other


class Deep(nn.Module):
    """A cell of many layers, whose graph is much larger than its state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Cell(width, 0.9, seed=k) for k in range(8))
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float64))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        for layer in self.layers:
            z = layer(z, u + self.bias)
        return z


ESTIMATES = [n for n in registry.names() if not registry.get(n).exact]


@pytest.mark.parametrize("name", ["implicit", *ESTIMATES])
@pytest.mark.parametrize("kind", ["pair", "deep"])
def test_bytes_kept(kind: str, name: str) -> None:
    """z*, the args and the explicit parameters, each once, are all that is kept."""
    gradient = registry.get(name)
    if gradient.requires:
        pytest.skip("keeps the graph of its steps, or the solver's history, as it says")
    width, batch = 32, 64
    cell: nn.Module = Pair(width) if kind == "pair" else Deep(width)
    args = (
        (torch.randn(batch, width).double(), torch.randn(batch, 3, width).double())
        if kind == "pair"
        else (torch.randn(batch, width).double(),)
    )
    layer = DEQ(cell, solver=Anderson(), gradient=gradient, reltol=1e-4)
    with saved_bytes() as saved:
        z = layer(*args)
        kept = saved.bytes
    tensors = (*(z if isinstance(z, tuple) else (z,)), *args, *layer.parameters())
    assert kept <= 1.02 * sum(t.nbytes for t in tensors)


# -- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gradient", "solver"), PAIRS)
def test_a_used_layer_can_be_copied_and_saved(gradient: str, solver: str) -> None:
    layer, u = layer_of(gradient, solver), injection(2).requires_grad_()
    z = layer(u)  # its graph is alive
    before = copy.deepcopy(layer)
    z.sum().backward()
    after = pickle.loads(pickle.dumps(layer))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    for twin in (before, after, saved):
        assert torch.equal(twin(u), z)
        assert twin.cell.W is not layer.cell.W
    other = layer_of(gradient, solver)
    with torch.no_grad():
        other.cell.W.zero_()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(u), z)
    assert list(layer.state_dict()) == ["cell.W"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_layer_with_a_foreign_solver_can_be_copied(name: str) -> None:
    layer, u = layer_of("implicit", name), injection(2)
    z = layer(u)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(u), z)


def test_the_last_solution_has_no_graph() -> None:
    for name in registry.names():
        layer = layer_of(name)
        layer(injection(2)).sum().backward()
        assert layer.solution is not None
        assert isinstance(layer.solution.value, Tensor)
        assert not layer.solution.value.requires_grad
        record = implicit.solve(
            solvers.FixedPointProblem(Cell(4), torch.zeros_like(injection(2)), (injection(2),)),
            layer.solver,
            layer.gradient,
            max_evaluations=30,
        ).record
        assert record.adjoint is None
