"""Measure the bytes of a gradient, phase by phase, against the evaluations that it differentiates.

Each point (a fixed budget of evaluations, or a solve to a tolerance) is one step of the equilibrium
layer alone: its injection, as embeddings, and its readout are left out. Bytes are counted, so a
point is measured once; seconds stand beside, without the counting.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

import implicit
import solvers
from experiments import compare, data, references
from experiments.compare import Bench, CompareConfig, prepare, quartiles, repeated, timed
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from implicit import gradients, models
from implicit.memory import Memory, allocated_bytes, profile, saved_bytes
from solvers import BaseSolver, FixedPointProblem, Solution
from solvers.problem import Layout

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class MemoryConfig:
    """What ``memory`` measures.

    Attributes
    ----------
    model, solver, gradient, data
        Configs of registered things; ``data: null`` takes the model's own. A gradient that brings
        its own iteration leaves the solver aside.
    data_sha256
        The data's fingerprint; filled in, and checked if given.
    max_evaluations
        A number or a list: each entry is a point.
    fixed_budget
        Spend them exactly: the network of so many layers. Else solve to ``reltol`` within them.
    reltol
        Of the forward solve without a fixed budget, and of the adjoint in any case.
    batch
        Samples.
    repeats, repeat_seconds
        Timed steps a point, as in ``compare``.
    device, dtype, threads
        Where and how precisely; ``threads`` of torch on the CPU.
    seed
        Of weights and batches.
    """

    model: Config = field(
        default_factory=lambda: {"name": "mlp"}, metadata={"registry": models.registry}
    )
    solver: Config = field(
        default_factory=lambda: {"name": "picard"}, metadata={"registry": solvers.registry}
    )
    gradient: Config = field(
        default_factory=lambda: {"name": "implicit"}, metadata={"registry": gradients.registry}
    )
    data: Config | None = field(
        default=None, metadata={"registry": data.registry, "optional": True}
    )
    data_sha256: str = ""
    max_evaluations: Count | list[Count] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64])
    fixed_budget: bool = True
    reltol: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    batch: Count = 16
    repeats: Count = 3
    repeat_seconds: Annotated[float, Field(gt=0)] = 0.2
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    threads: Count = 1
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields, as ``compare`` does."""
        gradient = gradients.registry.build(self.gradient, "gradient")
        # What brings its own iteration fits any solver, as that is left aside.
        own = "own" in gradient.requires
        (replace(self.as_compare, gradient=None) if own else self.as_compare).check()

    def completed(self) -> MemoryConfig:
        """Return the config with the data that the model wants, and the sizes that it brings."""
        return compare.on_its_data(self, self.as_compare)

    @property
    def as_compare(self) -> CompareConfig:
        """The same things, as ``compare`` builds them."""
        return compare.as_compare(self)


@dataclass(frozen=True)
class Layer:
    """The equilibrium layer of a model on a batch: what is measured.

    Attributes
    ----------
    problem
        Its arguments, such as the embedded input, are there before the step and want gradients.
    parameters
        Of the cell.
    cotangent
        dL/dz, of the model's loss at a solution.
    """

    bench: Bench
    problem: FixedPointProblem
    parameters: Sequence[nn.Parameter]
    cotangent: Tensor

    @property
    def wanted(self) -> list[Tensor]:
        """What gradients are wanted of."""
        return [*self.parameters, *(t for t in self.problem.args if t.requires_grad)]

    @property
    def solver(self) -> BaseSolver | None:
        """The forward solver, unless the gradient brings its own iteration."""
        gradient = self.bench.gradient
        own = gradient is not None and "own" in gradient.requires
        return None if own else self.bench.solver

    def solve(self, evaluations: int, *, fixed_budget: bool) -> Solution:
        """Solve forward, with the graph that the gradient needs."""
        config = self.bench.config
        return implicit.solve(
            self.problem,
            self.solver,
            self.bench.gradient,
            reltol=float(config.reltol),  # type: ignore[arg-type]  # a number here
            max_evaluations=evaluations,
            fixed_budget=fixed_budget,
        )

    def packed(self, solution: Solution) -> Tensor:
        """Return the value as one tensor (B, D), which shares its memory."""
        return Layout(self.problem.z0).pack(solution.value)

    def gradient(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of the wanted tensors for the cotangent."""
        return torch.autograd.grad(z, self.wanted, self.cotangent, materialize_grads=True)


def layer(config: MemoryConfig) -> Layer:
    """Build everything that a config names."""
    bench = prepare(config.as_compare)
    given = references.problem(bench.model, bench.x, bench.name)

    def apart(t: Tensor) -> Tensor:
        return t.detach().clone().requires_grad_(t.is_floating_point())

    problem = replace(given, args=tuple(apart(t) for t in given.args))
    parameters = [p for p in bench.model.cell.parameters() if p.requires_grad]
    layout = Layout(problem.z0)
    with torch.no_grad():
        near = solvers.solve(problem, reltol=config.reltol, max_evaluations=20)
    z = layout.pack(near.value).detach().requires_grad_()
    loss = bench.model.loss(bench.model.readout(layout.unpack(z)), bench.target)
    (cotangent,) = torch.autograd.grad(loss, z)
    return Layer(bench, problem, parameters, cotangent)


def one_evaluation(of: Layer) -> dict[str, int]:
    """Return what no gradient at the equilibrium can do without: one evaluation, with its graph.

    Returns
    -------
    dict
        ``graph``: what autograd keeps of it; ``evaluation``: the peak of making it, of a product
        with Jᵀ from it, which leaves it whole, and of the gradients from it.
    """
    layout = Layout(of.problem.z0)
    z = layout.pack(of.problem.z0).detach().clone().requires_grad_()
    inputs = (z, *of.problem.args)
    with allocated_bytes(z.device) as allocated:
        with saved_bytes(exclude=(*of.parameters, *inputs)) as saved:
            fz = layout.pack(of.problem.f(layout.unpack(z), *of.problem.args))
        graph = saved.bytes
        product = torch.autograd.grad(fz, z, of.cotangent, retain_graph=True)
        del product
        found = torch.autograd.grad(fz, of.wanted, of.cotangent, allow_unused=True)
        peak = allocated.peak
    del found
    return {"graph": graph, "evaluation": peak}


@contextmanager
def calls(module: nn.Module) -> Iterator[list[int]]:
    """Count the calls of a module in the last entry of the list that is given; append to it."""
    counts = [0]

    def count(*_: Any) -> None:
        counts[-1] += 1

    handle = module.register_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def counted(of: Layer, evaluations: int, *, fixed_budget: bool) -> dict[str, int]:
    """Return how often the cell is called forward, and in the backward."""
    with calls(of.bench.model.cell) as counts:
        z = of.packed(of.solve(evaluations, fixed_budget=fixed_budget))
        counts.append(0)
        of.gradient(z)
    return {"calls": counts[0], "calls_backward": counts[1]}


def measure(of: Layer, evaluations: int, *, fixed_budget: bool) -> tuple[Memory, Solution]:
    """Return what a step takes, and its solution."""
    found: list[Solution] = []

    def forward() -> Tensor:
        found.clear()
        solution = of.solve(evaluations, fixed_budget=fixed_budget)
        # The record is all that is wanted of it, and no graph may live on for that.
        found.append(replace(solution, value=of.packed(solution).detach(), attempts=()))
        return of.packed(solution)

    memory = profile(forward, of.wanted, cotangent=of.cotangent, inputs=of.problem.args)
    return memory, found[0]


def as_extra(memory: Memory) -> dict[str, Any]:
    """Return the phases as plain numbers."""
    return {
        "forward_peak": memory.forward.peak,
        "held": memory.forward.held,
        "backward_peak": memory.backward.peak,
        "left": memory.backward.held,
        "kept": memory.kept,
        "history": memory.history,
        "adjoint_history": memory.adjoint_history,
        "parameters": memory.parameters,
        "inputs": memory.inputs,
        "gradients": memory.gradients,
    }


def record(
    of: Layer, recorder: Recorder, config: MemoryConfig, *, step: int, once: Mapping[str, int]
) -> dict[str, float]:
    """Measure one point and record it; return what a person looks at first."""
    evaluations, fixed = config.as_compare.points[step][1], config.fixed_budget
    timing, device = of.bench.config, config.device

    def solve() -> Tensor:
        return of.packed(of.solve(evaluations, fixed_budget=fixed))

    seen = counted(of, evaluations, fixed_budget=fixed)
    memory, solution = measure(of, evaluations, fixed_budget=fixed)
    first, z = timed(solve, device)
    forward = repeated(solve, timing, first)

    def backward() -> tuple[float, Any]:
        again = solve()
        return timed(lambda: of.gradient(again), device)

    spent, _ = timed(lambda: of.gradient(z), device)
    backwards = [spent]
    while len(backwards) < len(forward):
        backwards.append(backward()[0])
    options = solvers.as_config(of.bench.gradient)
    bytes_ = {**as_extra(memory), **once, **seen, "state": z.nbytes}
    extra = {"memory": bytes_, "gradient": options, "depth": evaluations}
    ord_ = recorder.solve(
        solution,
        solver=solution.solver.name if of.solver is None else config.solver["name"],
        outer_step=step,
        repeats=len(forward),
        extra=extra,
        **quartiles("seconds", forward),
    )
    adjoint = solution.adjoint
    adjoint_ord = None
    if adjoint is not None:
        adjoint_ord = recorder.solve(adjoint, outer_step=step)
    recorder.gradient(
        outer_step=step,
        solve_ord=ord_,
        adjoint_ord=adjoint_ord,
        target="parameters",
        method=config.gradient["name"],
        options=options,
        reltol=config.reltol,
        dtype=config.dtype,
        kept_bytes=memory.kept + memory.inputs,
        history_bytes=memory.history,
        peak_bytes=memory.peak,
        products=None if adjoint is None else adjoint.stats.vjps,
        extra=extra,
        **quartiles("forward_seconds", forward),
        **quartiles("backward_seconds", backwards),
    )
    return {"kept_bytes": float(memory.kept), "peak_bytes": float(memory.peak)}


def main(config: MemoryConfig, recorder: Recorder) -> dict[str, float]:
    """Measure every point; the result is that of the last one."""
    of = layer(config)
    once = one_evaluation(of)
    reached: dict[str, float] = {}
    with warnings.catch_warnings():
        # Recorded with the adjoint: at the iterates of a short network few adjoints are meant.
        warnings.simplefilter("ignore", implicit.AdjointWarning)
        for step in range(len(config.as_compare.points)):
            reached = record(of, recorder, config, step=step, once=once)
    return reached


experiment = define(MemoryConfig, main, "memory")

if __name__ == "__main__":
    command_line(experiment)
