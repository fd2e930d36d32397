"""Bytes as they are counted, and what each gradient takes of them, phase by phase."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cell
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

import solvers
from implicit import DEQ, Implicit, Unrolled, models
from implicit.gradients import Checkpointed, Gradient, Reversible, registry
from implicit.memory import Memory, Phase, allocated_bytes, memory_of, profile, saved_bytes
from solvers import Anderson, Broyden, Picard

N = 1000
BYTES = 4 * N  # of N numbers
B, D = 64, 64
STATE = 8 * B * D


def test_what_lives_is_counted_and_the_most_of_it() -> None:
    x = torch.randn(N)
    with allocated_bytes() as allocated:
        y = x + 1
        z = y * 2
        assert allocated.bytes == allocated.peak == 2 * BYTES
        del y
        assert (allocated.bytes, allocated.peak) == (BYTES, 2 * BYTES)
        assert allocated.phase() == Phase(peak=2 * BYTES, held=BYTES)
        assert allocated.peak == BYTES  # anew
        del z
    assert allocated.bytes == 0


def test_what_was_there_before_and_views_of_it_are_not_counted() -> None:
    x, out = torch.randn(N, 2), torch.empty(N, 2)
    with allocated_bytes() as allocated:
        x.t().reshape(2, N)[0].mul_(2)
        torch.add(x, x, out=out)
        assert allocated.bytes == allocated.peak == 0
        del out
        assert allocated.bytes == 0
        y = (x * 1)[:, 0]  # a view keeps its whole storage
        assert allocated.bytes == 2 * BYTES
        y.add_(1)
        assert allocated.peak == 2 * BYTES


def test_what_is_made_from_numbers_or_resized_is_counted() -> None:
    with allocated_bytes() as allocated:
        x = torch.tensor([0.0] * N)
        assert allocated.bytes == BYTES
        x.resize_(2 * N)
        assert allocated.bytes == 2 * BYTES
        del x
        assert allocated.bytes == 0


def test_blocks_nest() -> None:
    with allocated_bytes() as outer:
        x = torch.ones(N)
        with allocated_bytes() as inner:
            y = x + 1
            assert inner.bytes == BYTES
        assert outer.bytes == 2 * BYTES
        del y
    assert outer.peak == 2 * BYTES


class Doubling(torch.autograd.Function):
    """Twice x; its backward makes two tensors and frees one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        first = g[0] * 4
        return first / 2


def test_the_operations_of_backward_are_seen() -> None:
    x = torch.randn(N, requires_grad=True)
    c = torch.randn(N)
    with allocated_bytes() as allocated:
        y = x.exp()  # keeps its result
        assert allocated.phase() == Phase(BYTES, BYTES)
        (g,) = torch.autograd.grad(y, x, c)
        assert allocated.phase() == Phase(2 * BYTES, 2 * BYTES)
        del y, g
        y = Doubling.apply(x)  # type: ignore[no-untyped-call]
        allocated.phase()
        (g,) = torch.autograd.grad(y, x, c)
        assert allocated.phase() == Phase(3 * BYTES, 2 * BYTES)
        del y, g
        y = torch.utils.checkpoint.checkpoint(lambda x: x.exp().exp(), x, use_reentrant=False)
        assert allocated.phase().held == BYTES  # the result alone
        torch.autograd.grad(y, x, c)
        assert allocated.phase().peak >= 3 * BYTES  # run again, within the backward


def test_nothing_is_watched_once_the_block_is_over() -> None:
    gc.collect()
    with allocated_bytes() as allocated:
        x = torch.ones(N)
        y = x + 1
    gone = weakref.ref(allocated)
    gc.disable()
    try:
        del allocated
        assert gone() is None, "a cycle would keep it until the collector runs"
    finally:
        gc.enable()
    assert y.sum() == 2 * N


def test_a_device_without_a_count_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"device = 'meta': memory is measured on 'cpu' and"),
        allocated_bytes("meta"),
    ):
        pass


def test_without_a_gradient_there_is_nothing_to_measure() -> None:
    layer = DEQ(Cell()).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter and no input requires a gradient"):
        memory_of(layer, torch.randn(3, 4, dtype=torch.float64), torch.sum)


def layer_of(gradient: Gradient, solver: Any, evaluations: int = 20, reltol: float = 0.0) -> DEQ:
    return DEQ(
        Cell(D, norm=0.9),
        solver=solver,
        gradient=gradient,
        reltol=reltol,
        max_evaluations=evaluations,
        fixed_budget=reltol == 0,
        samples_independent=True,
    )


def injection(batch: int = B, dim: int = D) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, dim, generator=g, dtype=torch.float64)


def squares(z: Tensor) -> Tensor:
    return z.square().sum()


def allocator_peak(step: Any) -> int:
    """The most bytes at once that a step asked the CPU's allocator for, by torch's profiler."""

    def walk(event: Any) -> Iterator[Any]:
        yield event
        for child in event.children:
            yield from walk(child)

    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    roots = profiled.profiler.kineto_results.experimental_event_tree()
    found = [e for root in roots for e in walk(root) if e.tag.name == "Allocation"]
    living: dict[int, int] = {}
    now = peak = 0
    for event in sorted(found, key=lambda e: e.start_time_ns):
        size, address = event.extra_fields.alloc_size, event.extra_fields.ptr
        if size > 0:
            living[address] = size
            now += size
        else:  # of what was there before, the size is not known
            now -= living.pop(address, 0)
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("gradient", [Implicit(), Unrolled()])
@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()])
def test_the_count_is_the_allocators(gradient: Gradient, solver: Any) -> None:
    layer, u = layer_of(gradient, solver, 15), injection()

    def step() -> None:
        torch.autograd.grad(squares(layer(u)), list(layer.parameters()))

    step()
    with allocated_bytes() as allocated:
        step()
    asked = allocator_peak(step)
    # The allocator is also asked for what lives within one operation, and never for what NumPy
    # made and a tensor only wraps: some hundred bytes to some thousand.
    assert allocated.peak == pytest.approx(asked, rel=2e-3)


@pytest.mark.parametrize("name", registry.names())
def test_the_phases_of_a_step(name: str) -> None:
    gradient = registry.get(name)
    own = "own" in gradient.requires
    layer, u = layer_of(gradient, None if own else Broyden()), injection()
    memory = memory_of(layer, u, squares)
    assert memory == memory_of(layer, u, squares)  # to the byte
    assert memory.parameters == memory.gradients == 8 * D * D
    assert memory.inputs == STATE
    assert memory.forward.held >= STATE  # z*
    assert memory.forward.held >= memory.kept  # all that autograd keeps lives
    assert memory.forward.peak >= memory.forward.held
    assert memory.backward.peak >= memory.backward.held >= memory.gradients
    assert memory.peak == max(memory.forward.peak, memory.backward.peak)
    assert memory.history is not None and memory.history > 0
    if name == "implicit":
        assert memory.adjoint_history is not None and memory.adjoint_history > STATE
        assert memory.backward.peak >= memory.forward.held + memory.adjoint_history


def test_a_history_that_a_library_hides_is_not_zero() -> None:
    layer = layer_of(Implicit(), solvers.registry.get("scipy_anderson"), 30, reltol=1e-2)
    memory = memory_of(layer, injection(4), squares)
    assert memory.history is None
    assert memory.backward_beyond > 0


MODELS: dict[str, tuple[dict[str, Any], Callable[[], Tensor]]] = {
    "mlp": ({"width": 256}, lambda: torch.randn(128, 64)),
    "transformer": (
        {"width": 64, "length": 64, "heads": 2, "inner": 256},
        lambda: torch.randint(0, 128, (4, 64)),
    ),
}


def measured(
    name: str, gradient: Gradient, solver: Any, evaluations: int = 16
) -> tuple[Memory, DEQ]:
    """What a step of a model's layer takes, its arguments there before; a budget of evaluations."""
    torch.manual_seed(0)
    options, inputs = MODELS[name]
    model = models.registry.get(name, **options)
    args = tuple(t.detach().requires_grad_() for t in model.args(inputs()))
    layer = DEQ(
        model.cell,
        solver=solver,
        gradient=gradient,
        reltol=1e-3,
        max_evaluations=evaluations,
        fixed_budget=True,
        samples_independent=True,
    )
    with torch.no_grad():
        z = layer(*args)
    memory = profile(
        lambda: layer(*args),
        [p for p in (*layer.parameters(), *args) if p.requires_grad],
        cotangent=torch.randn_like(z),
        inputs=args,
    )
    return memory, layer


def state_bytes(layer: DEQ) -> int:
    assert layer.solution is not None
    assert isinstance(layer.solution.value, Tensor)
    return layer.solution.value.nbytes


# Those that solve without a graph: nothing of the steps is kept.
AT_EQUILIBRIUM = [n for n in registry.names() if not registry.get(n).requires & {"native", "own"}]
# It takes steps of its own from the equilibrium, and keeps their graphs.
STEPPING = {"phantom"}
BEHIND = [("implicit", s) for s in (Picard(), Anderson(), Broyden())]
BEHIND += [(n, Broyden()) for n in AT_EQUILIBRIUM if n != "implicit"]


@pytest.mark.parametrize(("gradient", "solver"), BEHIND)
@pytest.mark.parametrize("model", MODELS)
def test_only_the_equilibrium_and_the_arguments_live_between(
    model: str, gradient: str, solver: Any
) -> None:
    found = [measured(model, registry.get(gradient), solver, k) for k in (4, 32)]
    assert len({m.kept for m, _ in found}) == 1
    if gradient in STEPPING:
        return
    memory, layer = found[-1]
    explicit = state_bytes(layer) + memory.inputs
    assert memory.kept + memory.inputs <= 1.02 * explicit
    if "inverse" in registry.get(gradient).requires:
        return  # what the solver learnt is held beside it, and grows
    # Whoever holds it: beside z* there is the record, some numbers a sample and an evaluation.
    assert layer.solution is not None
    record = 8 * 8 * (layer.solution.batch + layer.solution.stats.evaluations)
    assert memory.forward.held <= state_bytes(layer) + record


@pytest.mark.parametrize("model", MODELS)
def test_the_backward_of_implicit_does_not_know_the_evaluations(model: str) -> None:
    gradient = Implicit(reltol=1e-12, max_products=8, on_failure="ignore")  # as many each time
    found = [measured(model, gradient, Broyden(), k)[0] for k in (4, 16, 64)]
    assert len({m.backward_beyond for m in found}) == 1
    # The forward solver's history is another matter: Broyden's grows by a vector an evaluation.
    histories = [m.history for m in found if m.history is not None]
    assert histories[0] < histories[1] < histories[2]
    assert all(m.forward.peak >= (m.history or 0) for m in found)


@pytest.mark.parametrize("model", MODELS)
def test_unrolled_is_linear_in_the_evaluations(model: str) -> None:
    depths = [4, 8, 16, 32, 64]
    held = [measured(model, Unrolled(), Picard(), k)[0].forward.held for k in depths]
    assert np.corrcoef(depths, held)[0, 1] ** 2 > 0.999
    assert held[-1] > 10 * held[0]


class Deep(nn.Module):
    """An evaluation of 128 layers, whose graph is large beside the state."""

    def __init__(self) -> None:
        super().__init__()
        made = [nn.Linear(32, 32, bias=False) for _ in range(128)]
        for layer in made:
            nn.init.orthogonal_(layer.weight, 0.99)
        self.layers = nn.ModuleList(made)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        for layer in self.layers:
            z = torch.tanh(layer(z) + u)
        return z


def one_evaluation(cell: nn.Module, z: Tensor, args: tuple[Tensor, ...]) -> tuple[int, int]:
    """The bytes of one evaluation's graph, and the peak of a product and the gradients from it."""
    z = z.detach().requires_grad_()
    wanted = [*cell.parameters(), *args]
    with allocated_bytes() as allocated:
        with saved_bytes(exclude=(z, *wanted)) as saved:
            fz = cell(z, *args)
        graph = saved.bytes
        c = torch.ones_like(fz)
        allocated.phase()
        # An iterative adjoint takes several products, so that the graph has to stay.
        torch.autograd.grad(fz, z, c, retain_graph=True)
        torch.autograd.grad(fz, wanted, c)
        return graph, allocated.peak - c.nbytes


# As many products as GMRES's first buffer has room for: while it grows, there are two of them.
EIGHT = Implicit(reltol=1e-12, max_products=8, on_failure="ignore", certificate=False)


@pytest.mark.parametrize(("certificate", "most"), [(False, 1.1), (True, 1.25)])
def test_the_backward_holds_the_graph_of_one_evaluation(certificate: bool, most: float) -> None:
    torch.manual_seed(0)
    layer = DEQ(
        Deep(),
        solver=Picard(),
        gradient=replace(EIGHT, certificate=certificate),
        max_evaluations=8,
        fixed_budget=True,
        samples_independent=True,
    )
    u = torch.randn(512, 32, requires_grad=True)
    memory = profile(lambda: layer(u), [*layer.parameters(), u], cotangent=torch.randn_like(u))
    graph, _ = one_evaluation(layer.cell, torch.zeros_like(u), (u,))
    assert graph == 128 * u.nbytes  # the result of each tanh
    assert layer.adjoint_solution is not None
    # A second graph would make it 2. Beside one there are some eight states of the linear solve; a
    # certificate evaluates once more when the first graph is gone, and holds states of its own.
    assert memory.backward_beyond <= most * graph


def test_the_backward_takes_what_one_evaluation_and_a_product_take() -> None:
    torch.manual_seed(0)
    model = models.registry.get("transformer", width=64, length=150, heads=2, inner=256)
    args = tuple(t.detach().requires_grad_() for t in model.args(torch.randint(0, 128, (4, 150))))
    layer = DEQ(
        model.cell,
        solver=Picard(),
        gradient=EIGHT,
        max_evaluations=8,
        fixed_budget=True,
        samples_independent=True,
    )
    z = layer(*args).detach()
    wanted = [*layer.parameters(), *args]
    memory = profile(lambda: layer(*args), wanted, cotangent=torch.randn_like(z), inputs=args)
    _, peak = one_evaluation(model.cell, z, args)
    assert memory.backward_beyond <= 1.1 * peak


def test_a_preconditioner_keeps_the_history_until_backward() -> None:
    gradient = Implicit(precondition="forward")
    plain = measured("mlp", Implicit(), Broyden(), 16)[0]
    memory, layer = measured("mlp", gradient, Broyden(), 16)
    assert memory.kept == plain.kept  # by autograd nothing more
    more = memory.forward.held - plain.forward.held
    assert layer.solution is not None
    steps = layer.solution.stats.iterations
    # A vector a step; the operator is told by at most two of each, and small tables.
    assert steps * state_bytes(layer) <= 1.1 * more
    assert more <= 2.2 * steps * state_bytes(layer)


def network(gradient: Gradient, depth: int) -> tuple[Memory, int]:
    """What a network of so many evaluations takes, and the calls of f in its backward."""
    cell = Cell(D, norm=0.9)
    layer = DEQ(
        cell,
        solver=None if "own" in gradient.requires else Picard(),
        gradient=gradient,
        max_evaluations=depth,
        fixed_budget=True,
        samples_independent=True,
    )
    u, calls = injection(), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    z = layer(u)
    handle = cell.register_forward_hook(count)
    torch.autograd.grad(squares(z), list(layer.parameters()))
    handle.remove()
    return memory_of(layer, u, squares, warm_up=False), calls


def test_the_square_root_of_the_depth_is_the_best_number_of_segments() -> None:
    depth, counts = 64, (1, 2, 4, 6, 7, 8, 9, 10, 12, 16, 32, 64)
    peaks = [network(Checkpointed(segments=k), depth)[0].peak for k in counts]
    memory, again = network(Checkpointed("sqrt"), depth)
    assert memory.peak <= 1.15 * min(peaks)
    assert memory.peak < 0.5 * network(Unrolled(), depth)[0].peak
    assert again <= 1.05 * depth
    # Of four times the depth, twice as much; a state or two do not grow.
    quarter = network(Checkpointed("sqrt"), depth // 4)[0]
    assert memory.forward.held == pytest.approx(2 * quarter.forward.held, rel=0.2)


def test_recursive_checkpoints_grow_with_the_logarithm() -> None:
    depths = [4, 8, 16, 32, 64, 128]
    found = [network(Checkpointed("recursive"), k) for k in depths]
    peaks = [memory.peak for memory, _ in found]
    assert np.corrcoef(np.log2(depths), peaks)[0, 1] ** 2 > 0.95
    assert peaks[-1] <= 2.5 * peaks[0]  # log₂ 128 / log₂ 4 is 3.5, of all but what does not grow
    for depth, (_, again) in zip(depths, found, strict=True):
        assert again <= depth * math.log2(depth)


def test_reversible_keeps_the_same_whatever_the_depth() -> None:
    # So near to 0 rounding grows slowly enough for 32 pairs of steps.
    found = [network(Reversible(mixing=0.1), k)[0] for k in (4, 16, 64)]
    assert len({m.kept for m in found}) == 1
    held = [m.forward.held for m in found]
    assert max(held) - min(held) <= 8 * 8 * 60  # of the trace
    assert len({m.backward_beyond for m in found}) == 1


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
def test_the_allocator_of_cuda_is_asked() -> None:
    x = torch.randn(1 << 20, device="cuda")
    with allocated_bytes("cuda") as allocated:
        y = x + 1
        z = y * 2
        del y
        assert allocated.phase() == Phase(peak=8 << 20, held=4 << 20)
        del z
        assert allocated.phase().held == 0


@cuda
def test_a_step_takes_on_cuda_what_it_takes_on_the_cpu() -> None:
    u = torch.randn(512, 256)
    cell = Cell(256, norm=0.9).float()
    found = []
    for device in ("cpu", "cuda"):
        layer = DEQ(cell.to(device), solver=Picard(), gradient=Unrolled(), max_evaluations=20)
        found.append(memory_of(layer, u.to(device), squares))
    # Blocks of 512 bytes, and what the CPU keeps on the host.
    assert found[1].forward.held == pytest.approx(found[0].forward.held, rel=0.02)
    assert found[1].kept == found[0].kept
