"""Two processes under DDP and FSDP2: they train as one process does on the joined batch."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cells import relative, weights
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from implicit import DEQ, Implicit
from implicit.gradients import Gradient, registry
from solvers import Anderson, Broyden, Picard
from solvers.solver import BaseSolver

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="needs gloo"
)

WORLD, BATCH, WIDTH = 2, 6, 4
STEPS = 2
TIGHT = 1e-12
# A solve in a process stops where its own samples do: 1e-12 twice, over (1 - 0.6)², and a sum.
CLOSE = 1e-9


class Cell(nn.Module):
    """z ↦ V tanh(W z + u), of two submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64)
        self.V = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            self.W.weight.copy_(weights(WIDTH, 0.8, 1))
            self.V.weight.copy_(weights(WIDTH, 0.75, 2))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return self.V(torch.tanh(self.W(z) + u))  # type: ignore[no-any-return]


class Model(nn.Module):
    """Injection, equilibrium, readout, and a part that is used on request."""

    def __init__(self, layer: DEQ, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.inject = nn.Linear(3, WIDTH, dtype=torch.float64)
        self.layer, self.checkpointed = layer, checkpointed
        self.readout = nn.Linear(WIDTH, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        u = self.inject(x)
        z = checkpoint(self.layer, u, use_reentrant=False) if self.checkpointed else self.layer(u)
        return self.readout(z)  # type: ignore[no-any-return]


class WithSpare(Model):
    """A model some of whose parameters are not used."""

    def __init__(self, layer: DEQ) -> None:
        super().__init__(layer)
        self.spare = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)


def gradient_of(name: str) -> Gradient:
    if name == "implicit":
        return Implicit(reltol=TIGHT, max_products=300)
    return registry.get(name)


def layer_of(
    gradient: Gradient, solver: BaseSolver | None = None, reltol: float = TIGHT, **options: Any
) -> DEQ:
    own = "own" in gradient.requires
    solver = None if own else solver or Broyden()
    # So many pairs of steps of the reversible iteration are found back in float64.
    options = {"max_evaluations": 24 if own else 300} | options
    return DEQ(Cell(), solver=solver, gradient=gradient, reltol=reltol, **options)


def data(step: int, *, uneven: bool = False) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 3, generator=g, dtype=torch.float64)
    if uneven:
        x[BATCH // WORLD :] *= 1e-3  # the second process begins nearly at its solution
    return x, torch.randn(BATCH, 2, generator=g, dtype=torch.float64)


def part(t: Tensor, rank: int | None) -> Tensor:
    return t if rank is None else t.chunk(WORLD)[rank]


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return ((model(x) - y) ** 2).mean()


def train(
    model: nn.Module, rank: int | None, *, uneven: bool = False, accumulate: bool = False
) -> None:
    """Take a few steps; ``rank`` tells which part of the batch is this process's."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(STEPS):
        optimiser.zero_grad(set_to_none=True)
        dtype = next(model.parameters()).dtype
        x, y = (part(t, rank).to(dtype) for t in data(step, uneven=uneven))
        if accumulate:
            halves = zip(x.chunk(3), y.chunk(3), strict=True)
            for k, (xs, ys) in enumerate(halves):
                quiet = isinstance(model, DistributedDataParallel) and k < 2
                with model.no_sync() if quiet else contextlib.nullcontext():
                    (loss_of(model, xs, ys) / 3).backward()
        else:
            loss_of(model, x, y).backward()
        optimiser.step()


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The parameters, gathered where they are sharded."""
    return {
        n.removeprefix("_orig_mod.").removeprefix("module."): (
            p.full_tensor() if hasattr(p, "full_tensor") else p
        )
        .detach()
        .clone()
        for n, p in model.named_parameters()
    }


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def compared(
    build: Callable[[], nn.Module], wrap: Callable[[nn.Module], nn.Module], rank: int, **how: Any
) -> float:
    """The distance between training in all processes and in one, relative."""
    alone = seeded(build)
    train(alone, None, **how)
    together = wrap(seeded(build))
    train(together, rank, **how)
    expected, got = whole(alone), whole(together)
    assert expected.keys() == got.keys()
    return max(relative(got[n], expected[n]) for n in expected)


# -- the cases, which both processes run ----------------------------------------------------------

Case = Callable[[int], Any]
CASES: dict[str, Case] = {}


def ddp(**options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda model: DistributedDataParallel(model, **options)


def case(name: str) -> Callable[[Case], Case]:
    def register(run: Case) -> Case:
        CASES[name] = run
        return run

    return register


for _name in registry.names():

    @case(f"ddp {_name}")
    def _plain(rank: int, name: str = _name) -> float:
        return compared(lambda: Model(layer_of(gradient_of(name))), ddp(), rank)


for _options in ({"static_graph": True}, {"find_unused_parameters": True}):
    for _name in ("implicit", "unrolled"):

        @case(f"ddp {_name} {next(iter(_options))}")
        def _with_options(rank: int, name: str = _name, options: Any = _options) -> float:
            # A graph that is said to be static has one pass a step, and the same parameters in it.
            return compared(lambda: Model(layer_of(gradient_of(name))), ddp(**options), rank)


@case("ddp unused parameters")
def _unused(rank: int) -> float:
    return compared(
        lambda: WithSpare(layer_of(gradient_of("implicit"))),
        ddp(find_unused_parameters=True),
        rank,
    )


@case("ddp no_sync")
def _no_sync(rank: int) -> float:
    return compared(lambda: Model(layer_of(gradient_of("implicit"))), ddp(), rank, accumulate=True)


for _static in (False, True):

    @case(f"ddp checkpoint static_graph={_static}")
    def _checkpointed(rank: int, static: bool = _static) -> float:
        return compared(
            lambda: Model(layer_of(gradient_of("implicit")), checkpointed=True),
            ddp(static_graph=static),
            rank,
        )


@case("ddp compiled")
def _compiled(rank: int) -> float:
    def wrap(model: nn.Module) -> nn.Module:
        # What the compiler makes of the graphs is tested elsewhere, without two processes.
        compiled: nn.Module = torch.compile(DistributedDataParallel(model), backend="eager")  # type: ignore[assignment]
        return compiled

    return compared(lambda: Model(layer_of(gradient_of("implicit"))), wrap, rank)


@case("uneven counts")
def _uneven(rank: int) -> tuple[float, list[int], list[int]]:
    """Processes that need different numbers of evaluations and products wait for each other."""
    layers: list[DEQ] = []

    def build() -> nn.Module:
        layers.append(layer_of(gradient_of("implicit"), Picard(), abstol=1e-11, reltol=0.0))
        return Model(layers[-1])

    error = compared(build, ddp(), rank, uneven=True)
    assert layers[-1].solution is not None
    assert layers[-1].adjoint_solution is not None
    counts = torch.tensor(
        [layers[-1].solution.stats.evaluations, layers[-1].adjoint_solution.stats.vjps]
    )
    both = [torch.zeros_like(counts) for _ in range(WORLD)]
    dist.all_gather(both, counts)
    return error, both[0].tolist(), both[1].tolist()


PLACES: dict[str, Callable[[Model], list[nn.Module]]] = {
    "root": lambda m: [m],
    "layer": lambda m: [m.layer],
    "layer and root": lambda m: [m.layer, m],
    "every child and root": lambda m: [m.inject, m.layer, m.readout, m],
}


def sharded(place: str, **options: Any) -> Callable[[nn.Module], nn.Module]:
    def wrap(model: nn.Module) -> nn.Module:
        assert isinstance(model, Model)
        mesh = init_device_mesh("cpu", (WORLD,))
        modules = PLACES[place](model)
        for module in modules:
            fully_shard(module, mesh=mesh, **options)
        if modules[-1] is not model:  # what is not sharded is not averaged either
            inside = {id(p) for m in modules for p in m.parameters()}
            for p in model.parameters():
                if id(p) not in inside:
                    p.register_post_accumulate_grad_hook(average)
        return model

    return wrap


def average(p: Tensor) -> None:
    dist.all_reduce(p.grad)
    p.grad /= WORLD  # type: ignore[operator]


for _place, _name in [
    *((place, "implicit") for place in PLACES),
    *(("every child and root", name) for name in registry.names() if name != "implicit"),
]:

    @case(f"fsdp {_place} {_name}")
    def _fsdp(rank: int, place: str = _place, name: str = _name) -> float:
        return compared(lambda: Model(layer_of(gradient_of(name))), sharded(place), rank)


@case("fsdp kept whole after the forward")
def _kept(rank: int) -> float:
    return compared(
        lambda: Model(layer_of(gradient_of("implicit"))),
        sharded("layer and root", reshard_after_forward=False),
        rank,
    )


@case("fsdp bfloat16")
def _bfloat16(rank: int) -> float:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return compared(
        lambda: Model(layer_of(Implicit(reltol=1e-2), Anderson(), reltol=1e-2)).float(),
        sharded("layer and root", mp_policy=policy),
        rank,
    )


@case("fsdp uneven counts")
def _fsdp_uneven(rank: int) -> float:
    return compared(
        lambda: Model(layer_of(gradient_of("implicit"), Picard(), abstol=1e-11, reltol=0.0)),
        sharded("every child and root"),
        rank,
        uneven=True,
    )


REFUSED: dict[str, Callable[[DEQ], Any]] = {
    "fully_shard of the cell": lambda layer: fully_shard(
        layer.cell, mesh=init_device_mesh("cpu", (WORLD,))
    ),
    "fully_shard of a part": lambda layer: fully_shard(
        layer.cell.W, mesh=init_device_mesh("cpu", (WORLD,))
    ),
    "DistributedDataParallel of the cell": lambda layer: setattr(
        layer, "cell", DistributedDataParallel(layer.cell)
    ),
}

for _what, _wrap in REFUSED.items():

    @case(f"refused: {_what}")
    def _refused(rank: int, wrap: Callable[[DEQ], Any] = _wrap) -> str:
        layer = layer_of(gradient_of("implicit"))
        wrap(layer)
        with pytest.raises(ValueError, match="wrap the DEQ layer") as caught:
            layer(torch.zeros(2, WIDTH, dtype=torch.float64))
        return str(caught.value)


class Failure(str):
    """The traceback of a case."""

    __slots__ = ()


def worker(rank: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    results: dict[str, Any] = {}
    for name, run in CASES.items():
        try:
            results[name] = run(rank)
        except Exception:
            results[name] = Failure(traceback.format_exc())
        torch.save(results, f"{folder}/results{rank}")
        dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found, in all cases: to start them takes the longest."""
    folder = tmp_path_factory.mktemp("distributed")
    context = mp.start_processes(
        worker, (str(folder),), nprocs=WORLD, join=False, start_method="spawn"
    )
    deadline = time.monotonic() + 240
    with contextlib.suppress(mp.ProcessRaisedException, mp.ProcessExitedException):
        while time.monotonic() < deadline and not context.join(timeout=1):
            pass
    for process in context.processes:
        process.kill()
    files = [folder / f"results{rank}" for rank in range(WORLD)]
    return [torch.load(f, weights_only=False) if f.exists() else {} for f in files]


def found(results: list[dict[str, Any]], name: str) -> list[Any]:
    """What both processes have found in a case."""
    both = [r.get(name, Failure("a process died, or waited for ever")) for r in results]
    for result in both:
        assert not isinstance(result, Failure), result
    return both


OTHERS = {"uneven counts", "fsdp bfloat16", *(n for n in CASES if "refused" in n)}


@pytest.mark.parametrize("name", [n for n in CASES if n not in OTHERS])
def test_training_is_as_in_one_process(results: list[dict[str, Any]], name: str) -> None:
    for error in found(results, name):
        # Secant equations of steps near convergence amplify rounding.
        assert error < (1e-6 if "shine" in name else CLOSE)


def test_processes_may_need_different_numbers_of_evaluations(results: list[dict[str, Any]]) -> None:
    for error, one, other in found(results, "uneven counts"):
        assert error < CLOSE
        assert one[0] != other[0]


def test_mixed_precision(results: list[dict[str, Any]]) -> None:
    for error in found(results, "fsdp bfloat16"):
        # Two steps of Adam at 0.02, whose directions bfloat16 and tolerances of 1e-2 change.
        assert error < 0.02


@pytest.mark.parametrize("name", [n for n in CASES if "refused" in n])
def test_a_cell_that_communicates_is_refused(results: list[dict[str, Any]], name: str) -> None:
    for message in found(results, name):
        assert "wrap the DEQ layer, or a module around it" in message
        assert f"wrapped by {name.split()[1]}" in message


# -- the example ----------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_distributed.py"


def test_the_example_trains() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(WORLD), str(EXAMPLE), "--steps", "10", "--shard"]
    done = subprocess.run(
        command,
        cwd=EXAMPLE.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(x) for x in re.findall(r"loss ([0-9.]+)", done.stdout)]
    assert losses[-1] < losses[0]
