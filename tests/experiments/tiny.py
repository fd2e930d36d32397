"""A real experiment, small enough for tests: one linear map, one solver, one run.

Not compare: no models, no data, no training.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field

import solvers
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from solvers import FixedPointProblem
from solvers.options import OptionError

Tolerance = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class TinyConfig:
    solver: Config = field(
        default_factory=lambda: {"name": "anderson"}, metadata={"registry": solvers.registry}
    )
    linear: Config | None = field(
        default=None, metadata={"registry": solvers.linear.registry, "optional": True}
    )
    reltol: Tolerance | list[Tolerance] = 1e-3
    max_evaluations: Annotated[int, Field(ge=1)] = 50
    dtype: Literal["float32", "float64"] = "float32"
    device: Device = "auto"
    seed: Seed = 0
    what: Literal[
        "solve", "raise", "die", "wait", "misuse", "interrupt", "muddle", "terminate", "observe"
    ] = "solve"
    notes: str = ""

    def check(self) -> None:
        if self.what == "misuse" and self.dtype == "float64":
            raise OptionError("what = 'misuse': not in float64")

    def completed(self) -> "TinyConfig":
        return self


def main(config: TinyConfig, recorder: Recorder) -> float:
    """Solve z = 0.4 cos(z) + x to every tolerance."""
    print("solving with", config.solver["name"])
    x = torch.rand(4, 3, dtype=getattr(torch, config.dtype))
    problem = FixedPointProblem(lambda z, x: 0.4 * torch.cos(z) + x, torch.zeros_like(x), args=(x,))
    tolerances = config.reltol if isinstance(config.reltol, list) else [config.reltol]
    worst = 0.0
    for step, reltol in enumerate(tolerances):
        solver = solvers.registry.build(config.solver)
        solution = solvers.solve(
            problem, solver, reltol=reltol, max_evaluations=config.max_evaluations
        )
        forward = recorder.solve(solution, outer_step=step, extra={"tries": 1})
        recorder.gradient(solve_ord=forward, target="parameters", method="none", rel_err=0.5)
        recorder.scalar("residual", float(solution.residual.max()), step)
        worst = max(worst, float(solution.residual.max()))
    if config.what == "observe":
        with recorder.observing(outer_step=7) as heard:
            solvers.solve(problem, solvers.Picard())
            solvers.solve(problem, solvers.Broyden())
        assert [order for order, _ in heard] == [1, 2]
    if config.what == "raise":
        print("about to raise")
        raise ArithmeticError("this trial always raises")
    if config.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.what == "misuse":
        recorder.solve(solution, colour="red")
    if config.what == "interrupt":
        signal.raise_signal(signal.SIGINT)
    if config.what == "muddle":  # as when the signal falls into Event.wait
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            threading.Lock().release()
    if config.what == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    if config.what == "wait":
        waiting.set()
    while config.what == "wait" and not stop.wait(0.05):
        pass
    return worst


waiting, stop = threading.Event(), threading.Event()  # of a thread that runs it
experiment = define(TinyConfig, main, "tiny")

if __name__ == "__main__":
    command_line(experiment)
