"""Compare solvers and gradients: one model, one solver, one gradient, one seed, many tolerances.

Each point (a tolerance, or a fixed budget of evaluations) is measured on its own: the forward
solve with its trace, the backward with its own, the seconds of each, the bytes that autograd and
the solver keep, and the gradient against a float64 reference.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

import implicit
import solvers
from experiments import data, references
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from implicit import gradients, models
from implicit.gradients import Gradient
from implicit.memory import saved_bytes
from implicit.models import Model
from solvers import BaseSolver, OptionError, Solution
from solvers.problem import Layout

AnyConfig = TypeVar("AnyConfig")
Tolerance = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

# A first pass of so many times ``repeat_seconds`` is not repeated.
LONG = 5.0


@dataclass(frozen=True)
class CompareConfig:
    """What ``compare`` measures.

    Attributes
    ----------
    model, solver, gradient, data
        Configs of registered things; ``gradient: null`` measures the forward alone, ``data: null``
        takes the model's own.
    data_sha256
        The data's fingerprint; filled in, and checked if given.
    reltol, max_evaluations
        A number or a list, of which one may be a list: each entry is a point.
    fixed_budget
        Spend ``max_evaluations`` exactly.
    batch
        Samples.
    train_steps, learning_rate
        Steps of Adam before the measurement, by the default solver and the implicit gradient.
    repeats, repeat_seconds
        Timed solves a point, after a warm-up, at most; 1 times the only one. No repeat starts
        after so many seconds of them, and none after a first pass of five times as long.
    device, dtype, autocast, threads
        Where and how precisely; ``threads`` of torch on the CPU.
    seed
        Of weights and batches.
    """

    model: Config = field(
        default_factory=lambda: {"name": "mlp"}, metadata={"registry": models.registry}
    )
    solver: Config = field(
        default_factory=lambda: {"name": "anderson"}, metadata={"registry": solvers.registry}
    )
    gradient: Config | None = field(
        default_factory=lambda: {"name": "implicit"},
        metadata={"registry": gradients.registry, "optional": True},
    )
    data: Config | None = field(
        default=None, metadata={"registry": data.registry, "optional": True}
    )
    data_sha256: str = ""
    reltol: Tolerance | list[Tolerance] = 1e-3
    abstol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    norm: Literal["l2", "rms", "linf"] = "l2"
    max_evaluations: Count | list[Count] = 100
    fixed_budget: bool = False
    batch: Count = 16
    train_steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    repeats: Count = 5
    repeat_seconds: Annotated[float, Field(gt=0)] = 1.0
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    autocast: Literal["bfloat16"] | None = None
    threads: Count = 1
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields.

        Raises
        ------
        OptionError
            With the field and what is allowed.
        """
        for name in ("reltol", "max_evaluations"):
            if getattr(self, name) == []:
                raise OptionError(f"{name} = []: expected a number or a list of numbers")
        if isinstance(self.reltol, list) and isinstance(self.max_evaluations, list):
            raise OptionError(
                f"max_evaluations = {self.max_evaluations}: reltol is a list already, and only one"
                " of the two may be"
            )
        solver = solvers.registry.build(self.solver, "solver")
        gradient = self.gradient and gradients.registry.build(self.gradient, "gradient")
        if isinstance(gradient, Gradient) and "own" in gradient.requires:
            raise OptionError(
                f"gradient.name = '{gradient.name}': it brings its own iteration, so that no"
                " solver can be compared with it: the studies gradients and memory measure it"
            )
        check_pair(solver, cast(Gradient | None, gradient), fixed_budget=self.fixed_budget)

    def completed(self) -> CompareConfig:
        """Return the config with the data that the model wants, and the sizes that it brings."""
        made = with_data(self)
        # A user's own is built by the run alone, which then records what it does.
        if made.model["name"] in models.registry:
            with torch.device("meta"):
                _refuse_explicit(models.registry.build(made.model, "model"), made.model)
        return made

    @property
    def points(self) -> list[tuple[float, int]]:
        """The (reltol, max_evaluations) to measure, one after the other."""
        tolerances = self.reltol if isinstance(self.reltol, list) else [self.reltol]
        budgets = (
            self.max_evaluations
            if isinstance(self.max_evaluations, list)
            else [self.max_evaluations]
        )
        return [(r, m) for r in tolerances for m in budgets]


def as_compare(config: Any, **over: Any) -> CompareConfig:
    """Return what ``compare`` would be told to prepare the same model and batch.

    ``config`` is that of another experiment, of which every field that ``compare`` has too counts;
    ``over`` goes over them.
    """
    shared = {
        f.name: getattr(config, f.name) for f in fields(CompareConfig) if hasattr(config, f.name)
    }
    return CompareConfig(**(shared | over))


def with_data(config: AnyConfig) -> AnyConfig:
    """Return a config with the data that its model wants, and the sizes that it brings.

    Raises
    ------
    OptionError
        If the data is not that of ``data_sha256``, or has fewer samples than a batch.
    """
    given: Any = config  # every config is a dataclass, and those with data have these fields
    model, dataset = data.resolve(given.model, given.data)
    if given.data_sha256 not in ("", dataset.sha256):
        raise OptionError(
            f"data_sha256 = '{given.data_sha256}': the data set '{dataset.name}' here has"
            f" {dataset.sha256}; its content differs, so the runs cannot be compared"
        )
    dataset.batches("train", given.batch)  # refuses a batch larger than the data
    # The batches that a user's model brings along have no name: their fingerprint is enough.
    chosen = given.data
    if chosen is None and dataset.name in data.registry:
        chosen = data.registry.complete(dataset.name, "data")
    made: AnyConfig = replace(given, model=model, data=chosen, data_sha256=dataset.sha256)
    return made


def on_its_data(config: AnyConfig, compared: CompareConfig) -> AnyConfig:
    """Return the config with the data that its model wants, and the sizes that it brings."""
    made = compared.completed()
    resolved: AnyConfig = replace(
        config,  # type: ignore[type-var]  # every config is a dataclass
        model=made.model,
        data=made.data,
        data_sha256=made.data_sha256,
    )
    return resolved


@dataclass(frozen=True)
class Bench:
    """A model on a batch, a solver and a gradient, ready to be measured."""

    config: CompareConfig
    model: Model
    x: Tensor
    target: Tensor
    solver: BaseSolver
    gradient: Gradient | None

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.config.model["name"])

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that act through the equilibrium."""
        return [p for p in references.parts(self.model).parameters() if p.requires_grad]

    def solve(self, reltol: float, max_evaluations: int) -> Solution:
        """Solve forward, with the graph that the gradient needs."""
        c = self.config
        with torch.set_grad_enabled(self.gradient is not None), _autocast(c):
            return implicit.solve(
                references.problem(self.model, self.x, self.name),
                self.solver,
                self.gradient,
                abstol=c.abstol,
                reltol=reltol,
                norm=c.norm,
                max_evaluations=max_evaluations,
                fixed_budget=c.fixed_budget,
            )

    def loss(self, solution: Solution) -> Tensor:
        """Return the loss of a solution."""
        with _autocast(self.config):
            return self.model.loss(self.model.readout(solution.value), self.target)


def check_pair(solver: BaseSolver, gradient: Gradient | None, *, fixed_budget: bool) -> None:
    """Refuse a gradient that does not fit a solver, and a budget that the solver cannot keep.

    Raises
    ------
    OptionError
        With what does.
    """
    native = not isinstance(solver, solvers.ForeignSolver)
    if gradient is not None and "native" in gradient.requires and not native:
        raise OptionError(
            f"gradient.name = '{gradient.name}': it differentiates through the steps of"
            f" native solvers, and '{solver.name}' owns its loop: use 'implicit'"
        )
    if gradient is not None and uses_inverse(gradient) and not solvers.leaves_inverse(solver):
        raise OptionError(
            f"solver.name = '{solver.name}': '{gradient.name}' uses what the solver learns"
            " of the inverse Jacobian, and it learns nothing: use 'broyden' or 'anderson'"
        )
    if fixed_budget and not native:
        raise OptionError(
            f"fixed_budget = True: '{solver.name}' decides itself when to stop; use a native solver"
        )


def uses_inverse(gradient: Gradient) -> bool:
    """Whether a gradient needs what the solver has learnt of the inverse Jacobian."""
    return "inverse" in gradient.requires or getattr(gradient, "precondition", None) is not None


def _autocast(config: CompareConfig) -> torch.autocast:
    kind = config.device.partition(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=config.autocast is not None)


def _refuse_explicit(model: Model, config: Config) -> None:
    if model.explicit:
        raise OptionError(
            f"model.name = '{config['name']}', as configured, is an explicit network, which has no"
            " equilibrium to solve for: the experiment training trains it"
        )


def prepare(config: CompareConfig) -> Bench:
    """Build everything that a config names, on its device, trained for a few steps if asked."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = models.registry.build(config.model, "model")
    _refuse_explicit(model, config.model)
    dataset = data.load(model.data if config.data is None else config.data)
    dtype = getattr(torch, config.dtype)
    model.module().to(config.device, dtype)
    stream = _on(dataset.batches("train", config.batch, config.seed), config.device, dtype)
    gradient = config.gradient and gradients.registry.build(config.gradient, "gradient")
    x, target = next(stream)
    bench = Bench(
        config,
        model,
        x,
        target,
        solvers.registry.build(config.solver, "solver"),
        cast(Gradient | None, gradient),
    )
    if config.train_steps:
        _train(bench, stream)
    return bench


def _on(
    stream: Iterator[tuple[Tensor, Tensor]], device: str, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    for x, target in stream:
        yield (
            x.to(device, dtype if x.is_floating_point() else x.dtype),
            target.to(device, dtype if target.is_floating_point() else target.dtype),
        )


def _train(bench: Bench, stream: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Train by the default solver and gradient, so that every compared solver meets one model."""
    model = bench.model
    optimiser = torch.optim.Adam(model.module().parameters(), lr=bench.config.learning_rate)
    for _ in range(bench.config.train_steps):
        x, target = next(stream)
        solution = implicit.solve(references.problem(model, x, bench.name), reltol=1e-4)
        loss = model.loss(model.readout(solution.value), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def timed(action: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the seconds that an action took, its work on the device included, and its result."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = action()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def repeated(action: Callable[[], Any], config: CompareConfig, first: float) -> list[float]:
    """Return the seconds of repeats; of the first one alone where no repeat is wanted.

    No repeat starts once they have taken ``repeat_seconds``; none at all after a first one so long
    that neither warming nor a median would change it much.
    """
    if config.repeats == 1 or first > LONG * config.repeat_seconds:
        return [first]
    seconds: list[float] = []
    while len(seconds) < config.repeats and sum(seconds) <= config.repeat_seconds:
        seconds.append(timed(action, config.device)[0])
    return seconds


def quartiles(prefix: str, seconds: list[float]) -> dict[str, float]:
    """Return median and quartiles under ``prefix``, ``prefix_q1``, ``prefix_q3``."""
    if len(seconds) == 1:
        seconds = seconds * 2
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    return {prefix: median, f"{prefix}_q1": q1, f"{prefix}_q3": q3}


def measure(
    bench: Bench, step: int, reltol: float, max_evaluations: int, recorder: Recorder
) -> dict[str, float]:
    """Measure one point and record it; return what a person looks at first."""
    config, device = bench.config, bench.config.device

    def solve() -> Solution:
        return bench.solve(reltol, max_evaluations)

    with saved_bytes(exclude=bench.model.module().parameters()) as saved:
        seconds, solution = timed(solve, device)
    kept = saved.bytes
    forward = repeated(solve, config, seconds)
    ord_ = recorder.solve(
        solution,
        solver=config.solver["name"],
        outer_step=step,
        repeats=len(forward),
        **quartiles("seconds", forward),
    )
    _tell(solution, f"reltol {reltol:g}, at most {max_evaluations} evaluations")
    reached = {
        "evaluations": float(solution.stats.evaluations),
        "seconds": statistics.median(forward),
    }
    if bench.gradient is None:
        return reached

    loss = bench.loss(solution)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            loss, bench.parameters, retain_graph=True, materialize_grads=True
        )

    first, gradient = timed(backward, device)
    backwards = repeated(backward, config, first)
    adjoint = solution.adjoint
    adjoint_ord = None
    if adjoint is not None:
        adjoint_ord = recorder.solve(
            adjoint,
            solver=_adjoint_name(config) or adjoint.solver.name,
            outer_step=step,
            repeats=len(backwards),
            **quartiles("seconds", backwards),
        )
        _tell(adjoint, f"reltol {reltol:g}, adjoint")
    known = references.reference(bench.model, bench.x, bench.target, bench.name)
    z = Layout(solution.value).pack(solution.value).detach().cpu().double()
    compared = compare(gradient, list(known.gradient.values()))
    recorder.gradient(
        outer_step=step,
        solve_ord=ord_,
        adjoint_ord=adjoint_ord,
        target="parameters",
        method=cast(Config, config.gradient)["name"],
        options=solvers.as_config(bench.gradient),
        reference=known.sentence,
        fwd_residual=float(solution.residual.amax()),
        bwd_residual=None if adjoint is None else float(adjoint.residual.amax()),
        reltol=reltol,
        dtype=config.dtype,
        kept_bytes=kept,
        history_bytes=solution.stats.history_bytes,
        products=None if adjoint is None else adjoint.stats.vjps,
        loss=float(loss.detach()),
        loss_ref=known.loss,
        state_err=float((z - known.z).norm() / known.z.norm()),
        **quartiles("forward_seconds", forward),
        **quartiles("backward_seconds", backwards),
        **compared,
    )
    return {**reached, "gradient_error": compared["rel_err"]}


def _adjoint_name(config: CompareConfig) -> str:
    """Return the config's name of the solver of the adjoint, if the gradient has that option."""
    solver = (config.gradient or {}).get("solver")
    return str(solver["name"]) if solver else ""


def _tell(solution: Solution, point: str) -> None:
    """Print what a solve that fell short says of itself."""
    if not solution.success and not solution.settings.fixed_budget:
        print(f"{point}: {solution.message}")


def compare(gradient: tuple[Tensor, ...], reference: list[Tensor]) -> dict[str, Any]:
    """Return relative error, cosine, norms and their ratio of a gradient against its reference."""
    g = torch.cat([t.detach().cpu().double().flatten() for t in gradient])
    r = torch.cat([t.flatten() for t in reference])
    size, true = float(g.norm()), float(r.norm())
    return {
        "rel_err": float((g - r).norm()) / true if true else float(size > 0),
        "cosine": float(g @ r) / (size * true) if size and true else float(size == true),
        "norm": size,
        "norm_ref": true,
        "norm_ratio": size / true if true else float("nan"),
        "n": g.numel(),
    }


def main(config: CompareConfig, recorder: Recorder) -> dict[str, float]:
    """Measure every point; the result is that of the last one."""
    bench = prepare(config)
    # The first solve of a process imports and compiles; none of the points should pay for that.
    budget = 3 if not config.fixed_budget else 1
    reached: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", implicit.AdjointWarning)  # recorded, and said below
        warm = bench.solve(0.5, budget)
        if bench.gradient is not None:
            torch.autograd.grad(bench.loss(warm), bench.parameters, materialize_grads=True)
        for step, (reltol, max_evaluations) in enumerate(config.points):
            reached = measure(bench, step, reltol, max_evaluations, recorder)
    return reached


experiment = define(CompareConfig, main, "compare")

if __name__ == "__main__":
    command_line(experiment)
