"""torch.compile around the layer, of its cell, and of what a solver evaluates."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from cells import Cell, forward_mode, injection, relative, weights
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian

from implicit import DEQ, Implicit, Unrolled
from implicit.gradients import registry
from solvers import Broyden, Newton, NewtonKrylov, Picard
from solvers.solver import BaseSolver

pytestmark = [
    forward_mode,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of the compiler, about itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # The compiler looks at it where a graph goes on behind a break, and hides that otherwise.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler"
)

TIGHT = 1e-11
CLOSE = 1e-7  # 1e-11 in forward and adjoint, over (1 - 0.6)²; compiled code rounds differently


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was compiled for one test is none of the next one's business."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def layer_of(cell: nn.Module, gradient: Any = None, solver: BaseSolver | None = None) -> DEQ:
    gradient = Implicit(max_products=300) if gradient is None else gradient
    own = "own" in gradient.requires
    return DEQ(
        cell,
        solver=None if own else solver or Broyden(),
        gradient=gradient,
        reltol=TIGHT,
        max_evaluations=24 if own else 300,
    )


class Model(nn.Module):
    def __init__(self, gradient: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(4, 4, dtype=torch.float64)
        self.layer = layer_of(Cell(4), gradient)
        self.behind = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(torch.tanh(self.layer(torch.sin(self.before(x)))))  # type: ignore[no-any-return]


class Counting:
    """A backend that runs what it is given, and counts."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, module: Any, _: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return module(*args)

        return run


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(model(x).square().sum(), tuple(model.parameters()))


# -- a model that contains the layer --------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names())
def test_one_break(name: str) -> None:
    model, x = Model(registry.get(name)), injection()
    found = torch._dynamo.explain(model)(x)
    assert found.graph_break_count == 1
    assert found.graph_count == 2  # what is before the layer, and what is behind it


@pytest.mark.parametrize("name", registry.names())
def test_values_and_gradients(name: str) -> None:
    model = Model(registry.get(name))
    counting = Counting()
    compiled: Any = torch.compile(model, backend=counting)
    for seed in range(3):
        x = injection(seed=seed)
        for got, expected in zip(gradients(compiled, x), gradients(model, x), strict=True):
            assert relative(got, expected) < 1e-10
    assert counting.graphs == 2  # compiled once
    assert counting.runs == 2 * 3
    assert model.layer.solution is not None  # as inspectable as ever


@needs_compiler
def test_training_with_the_default_backend() -> None:
    ends = []
    for wrap in (lambda m: m, torch.compile):
        model = Model()
        called: Any = wrap(model)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(3):
            optimiser.zero_grad()
            called(injection(seed=step)).square().sum().backward()
            optimiser.step()
        ends.append([p.detach() for p in model.parameters()])
    for got, expected in zip(*ends, strict=True):
        assert relative(got, expected) < CLOSE


def test_evaluation_without_a_graph() -> None:
    model, x = Model(), injection()
    compiled: Any = torch.compile(model, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(x), model(x), rtol=1e-10)
    assert torch.allclose(compiled.eval()(x), model(x), rtol=1e-10)


# -- a cell that is compiled ----------------------------------------------------------------------


def in_place(cell: nn.Module) -> nn.Module:
    cell.compile(backend=BACKEND)
    return cell


def within(cell: nn.Module) -> nn.Module:
    return Around(torch.compile(cell, backend=BACKEND))  # type: ignore[arg-type]


class Around(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return self.part(z, u)  # type: ignore[no-any-return]


BACKEND = "aot_eager"  # it differentiates as the default one does, without a C++ compiler
WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": lambda cell: torch.compile(cell, backend=BACKEND),
    "in place": in_place,
    "a part of it": within,
}
every_way = pytest.mark.parametrize("way", WAYS)


def pair(way: str, **options: Any) -> tuple[tuple[DEQ, Tensor], tuple[DEQ, Tensor]]:
    """Two layers with their weights: of a compiled cell, and of the same as it was."""
    one, other = Cell(4), Cell(4)
    return (layer_of(WAYS[way](one), **options), one.W), (layer_of(other, **options), other.W)


@pytest.mark.parametrize(
    ("way", "gradient", "solver"),
    [
        *(("compiled", registry.get(n), None) for n in registry.names()),
        *((way, None, NewtonKrylov()) for way in WAYS),
        ("compiled", None, Newton()),
        ("compiled", Unrolled(), Newton()),
        ("compiled", Implicit(solver=Newton()), None),
        ("in place", None, None),
        ("a part of it", None, None),
    ],
    ids=str,
)
def test_a_compiled_cell(way: str, gradient: Any, solver: Any) -> None:
    u = injection().requires_grad_()
    found = [
        torch.autograd.grad(layer(u).square().sum(), (u, W))
        for layer, W in pair(way, gradient=gradient, solver=solver)
    ]
    for got, expected in zip(*found, strict=True):
        assert relative(got, expected) < CLOSE


@every_way
@pytest.mark.parametrize("gradient", [None, Unrolled()])
def test_second_derivatives_of_a_compiled_cell(way: str, gradient: Any) -> None:
    u, found = injection().requires_grad_(), []
    for layer, W in pair(way, gradient=gradient, solver=Picard()):
        (g,) = torch.autograd.grad(layer(u).square().sum(), u, create_graph=True)
        found.append(torch.autograd.grad(g.square().sum(), (u, W)))
    for got, expected in zip(*found, strict=True):
        assert relative(got, expected) < CLOSE


@every_way
@pytest.mark.parametrize("transform", [grad, hessian])
def test_transforms_of_a_compiled_cell(way: str, transform: Any) -> None:
    u, found = injection(2), []
    for layer, W in pair(way):
        ((name, _),) = layer.named_parameters()

        def loss(W: Tensor, layer: DEQ = layer, name: str = name) -> Tensor:
            return functional_call(layer, {name: W}, (u,)).square().sum()  # type: ignore[no-any-return]

        found.append(transform(loss)(W.detach()))
    assert relative(*found) < CLOSE


def test_it_is_called_compiled_where_no_graph_is_kept() -> None:
    counting = Counting()
    layer = layer_of(torch.compile(Cell(4), backend=counting))  # type: ignore[arg-type]
    layer(injection()).sum().backward()
    assert layer.solution is not None
    # The first evaluation is looked at, to see what it does.
    assert counting.runs == layer.solution.stats.evaluations - 1
    assert counting.graphs <= 2  # the first state, which is zero, may be another tensor


@needs_compiler
def test_a_compiled_cell_with_dropout() -> None:
    """Compiled code may draw other numbers of the same random state."""

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(weights(4, 0.6))
            self.drop = nn.Dropout(0.4)

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.tanh(self.drop(z) @ self.W.T + u)

    u, found = injection().requires_grad_(), []
    for wrap in (lambda c: c, torch.compile):
        layer = layer_of(wrap(Dropping()))
        torch.manual_seed(3)
        z = layer(u)
        found.append((z, *torch.autograd.grad(z.sum(), u)))
    for got, expected in zip(*found, strict=True):
        assert relative(got.detach(), expected.detach()) < CLOSE


# -- compile=True ---------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("name", ["implicit", "unrolled", "neumann"])
def test_the_option(name: str) -> None:
    u, found = injection().requires_grad_(), []
    for compiled in (False, True):
        layer = DEQ(
            Cell(4),
            solver=Broyden(),
            gradient=registry.get(name),
            reltol=TIGHT,
            max_evaluations=300,
            compile=compiled,
        )
        assert layer.settings.compile is compiled
        z = layer(u)
        found.append((z, *torch.autograd.grad(z.square().sum(), (u, layer.cell.W))))
        with torch.no_grad():
            assert relative(layer(u), z.detach()) < CLOSE
    for got, expected in zip(*found, strict=True):
        assert relative(got.detach(), expected.detach()) < CLOSE


@needs_compiler
def test_the_option_does_compile() -> None:
    torch._dynamo.utils.counters.clear()
    layer = DEQ(Cell(4), solver=Broyden(), compile=True)
    layer(injection())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
