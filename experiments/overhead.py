"""Time solves against their bare evaluations, at equal counts and in one process.

A trial is one cell. In every round the bare loop of f and every contender run once, in an order
that rotates, so that whatever slows the machine slows all of them; a ratio is that of one round.
With ``measure: freezing`` the trial is a batch of easy and hard samples instead: what the loop
saves by leaving the finished ones out.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import solvers
from experiments import contenders as teams
from experiments import data
from experiments.compare import quartiles
from experiments.contenders import Contender
from experiments.counting import Counts, as_on_a_gpu
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from implicit import models
from solvers import FixedPointProblem, OptionError, Solution
from solvers.problem import Layout

Count = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Action = Callable[[], Any]

# Seconds that one timing takes at least: shorter loops are repeated within it.
LEAST = 0.02
# Rounds that are run however long they take.
ROUNDS = 5
BARE = "bare"


@dataclass(frozen=True)
class OverheadConfig:
    """What ``overhead`` measures.

    Attributes
    ----------
    measure
        ``overhead``: seconds of every contender over those of its evaluations; ``freezing``: what
        is saved on a batch of easy and hard samples.
    model
        A model whose cell is evaluated, on its own data; ``null`` is the two-layer cell
        tanh(relu(z W1) W2 + x).
    batch, dim, hidden
        Sizes of the two-layer cell; ``batch`` of any.
    gain
        Scale of the two-layer cell's weights: near 1 no solver is done early.
    injection
        Sizes of x from the first sample to the last, for ``freezing``.
    evaluations
        Of each timed solve; the most, for ``freezing``.
    reltol
        For ``freezing``.
    contenders
        Solvers of ours, each timed with the usual checks and with a fixed budget; and torchdeq's,
        called directly. ``freezing`` is about ours alone.
    mode
        ``eager``; ``compiled``: f by ``torch.compile``, for all alike;
        ``cuda_graph``: whatever can be captured is replayed from a CUDA graph.
    repeats, repeat_seconds
        Rounds, at most; none starts after so many seconds of them, five apart.
    device, dtype, threads
        Where and how precisely; ``threads`` of torch on the CPU.
    seed
        Of weights and inputs.
    """

    measure: Literal["overhead", "freezing"] = "overhead"
    model: Config | None = field(
        default=None, metadata={"registry": models.registry, "optional": True}
    )
    batch: Count = 32
    dim: Count = 256
    hidden: Count = 256
    gain: Size = 1.0
    injection: tuple[Size, Size] = (0.05, 1.5)
    evaluations: Annotated[int, Field(ge=3)] = 30
    reltol: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    contenders: list[Any] = field(
        default_factory=lambda: [{"name": "anderson", "window": 6}, {"name": "broyden"}]
    )
    mode: Literal["eager", "compiled", "cuda_graph"] = "eager"
    repeats: Count = 20
    repeat_seconds: Annotated[float, Field(gt=0)] = 60.0
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    threads: Count = 2
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields.

        Raises
        ------
        OptionError
            With the field and what is allowed.
        """
        if not self.contenders:
            raise OptionError("contenders = []: expected one or more solvers")
        found = teams.contenders(_completed(self.contenders))
        if self.mode == "cuda_graph" and not self.device.startswith("cuda"):
            raise OptionError(
                f"mode = 'cuda_graph': needs a CUDA device, and device = '{self.device}';"
                " use 'eager' or 'compiled'"
            )
        if self.measure == "freezing":
            if self.model is not None:
                raise OptionError(
                    "model: freezing is measured on the two-layer cell, whose samples are made"
                    " from easy to hard; leave model = null"
                )
            if all(contender.kind == "direct" for contender in found):
                raise OptionError(
                    f"contenders = {self.contenders}: torchdeq's solvers leave no sample out; for"
                    " freezing name one of ours"
                )

    def completed(self) -> OverheadConfig:
        """Return the config with every option of the contenders, and the sizes of the model."""
        model = self.model if self.model is None else data.resolve(self.model)[0]
        return replace(self, contenders=_completed(self.contenders), model=model)

    @property
    def cell(self) -> str:
        """The name of the cell."""
        return "two_layer" if self.model is None else str(self.model["name"])


def _completed(configs: list[Any]) -> list[Config]:
    return [
        solvers.registry.complete(config, f"contenders[{position}]")
        for position, config in enumerate(configs)
    ]


def build(config: OverheadConfig) -> FixedPointProblem:
    """Return the problem of a config, on its device."""
    if config.model is not None:
        return teams.cell_of(
            config.model,
            config.batch,
            dtype=config.dtype,
            device=config.device,
            seed=config.seed,
        )
    spread = {"injection": config.injection} if config.measure == "freezing" else {}
    return teams.two_layer(
        config.batch,
        config.dim,
        config.hidden,
        gain=config.gain,
        dtype=getattr(torch, config.dtype),
        device=config.device,
        seed=config.seed,
        **spread,
    )


class Clock:
    """Times actions: by the wall on the CPU, by events on a GPU.

    Parameters
    ----------
    device
        Where the work is done.
    times
        How often an action is repeated within one timing.
    """

    def __init__(self, device: str, times: int = 1) -> None:
        self.device = device
        self.times = times

    def __call__(self, action: Action) -> float:
        """Return the seconds of the action, once."""
        if not self.device.startswith("cuda"):
            start = time.perf_counter()
            for _ in range(self.times):
                action()
            return (time.perf_counter() - start) / self.times
        with torch.cuda.device(self.device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            for _ in range(self.times):
                action()
            end.record()
            torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / self.times

    def fitted(self, action: Action) -> Clock:
        """Return a clock that repeats until one timing of the action is long enough to trust."""
        once = min(self(action) for _ in range(3))
        return Clock(self.device, max(1, math.ceil(LEAST / once)))


def race(
    actions: Mapping[str, Action], clock: Clock, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Return the seconds of every action in every round; each round begins with the next one."""
    names = list(actions)
    measured: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    enabled = gc.isenabled()
    gc.disable()  # it would fall on whoever happens to run
    try:
        for number in range(repeats):
            if number >= ROUNDS and time.perf_counter() - began > seconds:
                break
            gc.collect()
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                measured[name].append(clock(actions[name]))
    finally:
        if enabled:
            gc.enable()
    return measured


def captured(action: Action, device: str) -> Action:
    """Return the replay of an action from a CUDA graph.

    Raises
    ------
    RuntimeError
        If it reads the device, or does anything else that cannot be captured.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                action()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            action()
    return graph.replay


def counted(
    problem: FixedPointProblem, contender: Contender, evaluations: int
) -> tuple[Solution, int, int]:
    """Return one solve of a contender, with its launches and reads beside those of f."""
    counts = Counts()
    # Tracing would go into the function: what is counted is always eager.
    quiet = replace(problem, f=counts.apart(problem.f))
    if contender.kind == "direct":
        solve = teams.peers(quiet, contender, evaluations)
        with counts.counting():
            value, taken = solve()
        solution = teams.as_solution(problem, contender, value, taken)
    else:
        run = teams.ours(quiet, contender, evaluations)
        with as_on_a_gpu(), counts.counting():
            solution = run()
    # On a GPU a conversion is a copy to the host, which was counted as one.
    on_cpu = Layout(problem.z0).device.type == "cpu"
    return solution, counts.launches, counts.reads + (counts.conversions if on_cpu else 0)


def flag(solution: Solution, evaluations: int) -> str:
    """Return what makes a timing worthless, or an empty text: it must be of equal work."""
    taken = solution.stats.sample_evaluations
    if bool((taken == evaluations).all()):
        return ""
    return (
        f"took {int(taken.min())} to {int(taken.max())} evaluations a sample instead of"
        f" {evaluations} ({', '.join(solution.counts)})"
    )


@dataclass(frozen=True)
class Entry:
    """A contender that is ready: what is timed, and what was counted."""

    contender: Contender
    action: Action
    solution: Solution
    launches: int
    reads: int
    flag: str


def enter(
    config: OverheadConfig, problem: FixedPointProblem, timed: FixedPointProblem, who: Contender
) -> Entry:
    """Count a contender on ``problem``, and make what is timed on ``timed``."""
    n = config.evaluations
    solution, launches, reads = counted(problem, who, n)
    action: Action
    if who.kind == "direct":
        action = teams.peers(timed, who, n)
    else:
        action = teams.ours(timed, who, n)
        # On a GPU the loop polls as it does when it is timed, so that the counts are its own.
        solution = action()
    said = flag(solution, n)
    if config.mode == "cuda_graph" and not said:
        try:
            action = captured(action, config.device)
        except RuntimeError as error:
            torch.cuda.synchronize()
            said = f"not captured in a CUDA graph: {str(error).splitlines()[0]}"
    return Entry(who, action, solution, launches, reads, said)


def measure_overhead(config: OverheadConfig, recorder: Recorder) -> dict[str, float]:
    """Time every contender against the bare loop, and record a solve of each."""
    problem = build(config)
    timed = teams.compiled(problem) if config.mode == "compiled" else problem
    n = config.evaluations
    loop: Action = teams.bare(timed, n)
    loop()  # compiles
    entries = [enter(config, problem, timed, who) for who in teams.contenders(config.contenders)]
    if config.mode == "cuda_graph":
        loop = captured(loop, config.device)
    actions = {BARE: loop}
    actions |= {f"{e.contender.label} {e.contender.kind}": e.action for e in entries}
    for action in actions.values():
        action()
    clock = Clock(config.device).fitted(loop)
    measured = race(actions, clock, config.repeats, config.repeat_seconds)
    reached: dict[str, float] = {}
    for step, entry in enumerate(entries):
        name = f"{entry.contender.label} {entry.contender.kind}"
        ratios = [a / b for a, b in zip(measured[name], measured[BARE], strict=True)]
        recorder.solve(
            replace(entry.solution, trace=None),
            solver=entry.contender.config["name"],
            outer_step=step,
            repeats=len(ratios),
            fixed_budget=entry.contender.kind == "fixed",
            **quartiles("seconds", measured[name]),
            extra={
                **_about(config, entry.contender),
                **quartiles("ratio", ratios),
                "bare_seconds": quartiles("bare", measured[BARE])["bare"],
                "launches": entry.launches / n,
                "reads": entry.reads,
                "flag": entry.flag,
            },
        )
        if entry.flag:
            print(f"{name}: {entry.flag}")
        reached[name] = quartiles("ratio", ratios)["ratio"]
    return reached


def _about(config: OverheadConfig, contender: Contender) -> dict[str, Any]:
    sizes = {"batch": config.batch}
    if config.model is None:
        sizes |= {"dim": config.dim, "hidden": config.hidden}
    return {
        "measure": config.measure,
        "contender": contender.label,
        "kind": contender.kind,
        "cell": config.cell,
        "sizes": sizes,
        "mode": config.mode,
    }


def measure_freezing(config: OverheadConfig, recorder: Recorder) -> dict[str, float]:
    """Solve a batch of easy and hard samples with and without freezing, and record both.

    Without freezing every sample goes on until the last one is done, which is a fixed budget of as
    many evaluations as that one needed; the steps are the same.
    """
    problem = replace(build(config), samples_independent=True)
    reached: dict[str, float] = {}
    ours = [who for who in teams.contenders(config.contenders) if who.kind == "checked"]
    for position, who in enumerate(ours):
        solver = who.solver

        def frozen(solver: Any = solver) -> Solution:
            return solvers.solve(
                problem, solver, reltol=config.reltol, max_evaluations=config.evaluations
            )

        first = frozen()
        most = first.stats.evaluations

        def all_the_way(solver: Any = solver, most: int = most) -> Solution:
            return solvers.solve(
                problem, solver, reltol=config.reltol, max_evaluations=most, fixed_budget=True
            )

        solutions = {"frozen": first, "all": all_the_way()}
        actions: dict[str, Action] = {
            "frozen": frozen,
            "all": all_the_way,
            BARE: teams.bare(problem, most),
        }
        clock = Clock(config.device).fitted(frozen)
        measured = race(actions, clock, config.repeats, config.repeat_seconds)
        ratios = [a / b for a, b in zip(measured["frozen"], measured["all"], strict=True)]
        spent = int(first.stats.sample_evaluations.sum())
        saved = 1 - spent / (most * problem.batch)
        for step, (name, solution) in enumerate(solutions.items()):
            recorder.solve(
                solution,
                solver=who.config["name"],
                outer_step=2 * position + step,
                repeats=len(measured[name]),
                **quartiles("seconds", measured[name]),
                extra={
                    **_about(config, who),
                    **quartiles("ratio", ratios),
                    "variant": name,
                    "saved": saved,
                    "bare_seconds": quartiles("bare", measured[BARE])["bare"],
                    "difference": difference(*solutions.values()),
                    "flag": "" if first.success else first.message,
                },
            )
        reached[f"{who.label} saved"] = saved
        reached[f"{who.label} seconds"] = quartiles("ratio", ratios)["ratio"]
    return reached


def difference(one: Solution, other: Solution) -> float:
    """Return the largest relative distance between the answers of two solves, over the samples."""
    layout = Layout(one.value)
    a, b = (layout.pack(s.value).double() for s in (one, other))
    size: Tensor = torch.linalg.vector_norm(b, dim=1).clamp_min(1e-300)
    return float((torch.linalg.vector_norm(a - b, dim=1) / size).amax())


def main(config: OverheadConfig, recorder: Recorder) -> dict[str, float]:
    """Measure; the result is the ratio of every contender."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    with torch.no_grad():
        if config.measure == "freezing":
            return measure_freezing(config, recorder)
        return measure_overhead(config, recorder)


experiment = define(OverheadConfig, main, "overhead")

if __name__ == "__main__":
    command_line(experiment)
