"""What lives between forward and backward, and what does not live on."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cells import ALL, NATIVE, Cell
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Implicit, Unrolled
from implicit.memory import saved_bytes
from solvers import Anderson, FixedPointProblem, Newton, NewtonKrylov, Picard

B, D = 32, 48


def layer_of(gradient: Any, solver: Any, evaluations: int) -> DEQ:
    return DEQ(
        Cell(D, norm=0.9),
        solver=solver,
        gradient=gradient,
        reltol=0.0,
        max_evaluations=evaluations,
        fixed_budget=not solver.name.startswith(("scipy", "torch", "xitorch", "fallback")),
    )


def kept(gradient: Any, solver: Any, evaluations: int) -> int:
    layer, u = layer_of(gradient, solver, evaluations), torch.randn(B, D, dtype=torch.float64)
    with saved_bytes(exclude=layer.parameters()) as saved:
        z = layer(u)
        at_the_end = saved.bytes
        assert z.requires_grad
    return at_the_end


@pytest.mark.parametrize("name", [n for n in ALL if not n.startswith("scipy")])
def test_implicit_keeps_the_equilibrium_and_the_arguments(name: str) -> None:
    solver = solvers.registry.get(name)
    counts = [kept(Implicit(), solver, k) for k in (5, 20, 40)]
    assert counts[0] == counts[1] == counts[2]
    both = 2 * B * D * 8  # z* and u
    assert both <= counts[0] <= 1.02 * both


@pytest.mark.parametrize("name", NATIVE)
def test_unrolled_keeps_more_with_each_evaluation(name: str) -> None:
    if name == "newton_krylov":  # at the equilibrium it has no more directions to keep
        assert kept(Unrolled(), NewtonKrylov(), 2) < kept(Unrolled(), NewtonKrylov(), 4)
        return
    # Anderson's window is full from 12 evaluations on; Broyden keeps all, which is quadratic.
    one, two, three = (kept(Unrolled(), solvers.registry.get(name), k) for k in (12, 24, 36))
    assert two - one >= 12 * B * D * 8  # at least a state an evaluation
    growth = (three - two) / (two - one)
    if name == "broyden":
        # Quadratic in vectors, 1.7; cubic in the small matrices beside them, 2.7, which count in
        # a state as small as this one.
        assert 1.0 < growth < 2.7
    else:
        assert growth == pytest.approx(1.0, abs=0.05)  # one buffer more or less


def test_unrolled_picard_keeps_what_a_network_keeps() -> None:
    u = torch.randn(B, D, dtype=torch.float64)
    cell = Cell(D, norm=0.9)
    with saved_bytes(exclude=cell.parameters()) as saved:
        z = torch.zeros_like(u)
        for _ in range(20):
            z = cell(z, u)
        network = saved.bytes
    assert z.requires_grad
    assert kept(Unrolled(), Picard(), 20) == pytest.approx(network, rel=0.02)  # z0 is kept too


def test_backward_frees_what_was_kept() -> None:
    for gradient in (Implicit(reltol=1e-6), Unrolled()):
        layer = layer_of(gradient, Anderson(), 10)
        with saved_bytes(exclude=layer.parameters()) as saved:
            loss = layer(torch.randn(B, D, dtype=torch.float64)).sum()
        assert saved.bytes > 0
        loss.backward()
        del loss
        assert saved.bytes == 0


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Only what nobody refers to is freed: a cycle that holds a tensor shows."""
    gc.disable()
    gc.freeze()  # what there is already is out of sight
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def tensors() -> int:
    """How many tensors were made since, and still live."""
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("gradient", [Implicit(), Implicit(solver=Anderson()), Unrolled()])
@pytest.mark.parametrize("name", ALL)
def test_nothing_lives_on(name: str, gradient: Any, backward: bool) -> None:
    if isinstance(gradient, Unrolled) and name not in NATIVE:
        return
    layer = DEQ(
        Cell(4),
        solver=solvers.registry.get(name),
        gradient=gradient,
        reltol=1e-3,
        max_evaluations=60,
    )
    u = torch.randn(2, 4, dtype=torch.float64)

    def once() -> None:
        loss = layer(u).sum()
        if backward:
            loss.backward()

    with no_collection():
        once()  # what is made once, and the solution of the last call, may stay
        first = tensors()
        once()
        once()
        assert tensors() <= first


def test_a_forward_without_backward_leaves_nothing() -> None:
    layer = DEQ(Cell(4), reltol=1e-4)
    with no_collection():
        z = layer(torch.randn(2, 4, dtype=torch.float64))
        alive = weakref.ref(z)
        del z
        assert alive() is None


def test_a_record_does_not_keep_the_graph() -> None:
    """`solution.adjoint` can be kept as long as one likes."""
    cell, u = Cell(4), torch.randn(2, 4, dtype=torch.float64)
    problem = FixedPointProblem(cell, torch.zeros_like(u), (u,))
    with no_collection():
        solution = implicit.solve(problem, Anderson(), Implicit(), reltol=1e-6)
        value = solution.value
        assert isinstance(value, Tensor)
        value.sum().backward()
        record = solution.record
        alive = weakref.ref(value)
        del value, solution
        assert alive() is None
        assert record.adjoint is not None


def test_solving_without_gradients_keeps_nothing() -> None:
    layer, u = DEQ(Cell(D), reltol=1e-6), torch.randn(B, D, dtype=torch.float64)
    with torch.no_grad(), saved_bytes() as saved:
        z = layer(u)
    assert not z.requires_grad
    assert saved.bytes == 0
    layer.requires_grad_(False)
    with saved_bytes() as saved:
        z = layer(u)
        assert saved.bytes == 0
    assert not z.requires_grad


@pytest.mark.parametrize("solver", [Anderson(), Newton(), NewtonKrylov()])
def test_a_checkpointed_block_is_solved_twice_and_no_more(solver: Any) -> None:
    """The graphs of a solver's own Jacobian products are none of the checkpoint's business."""
    count = 0

    class Counting(Cell):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return super().forward(z, u)

    layer = DEQ(Counting(4), solver=solver, gradient=Implicit(), reltol=1e-10)
    before = nn.Linear(4, 4, dtype=torch.float64)
    u = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    layer(before(u)).sum().backward()
    plain, count = count, 0
    z = torch.utils.checkpoint.checkpoint(lambda u: layer(before(u)), u, use_reentrant=False)
    assert layer.solution is not None
    assert count == layer.solution.stats.evaluations
    z.sum().backward()
    assert count <= plain + layer.solution.stats.evaluations
