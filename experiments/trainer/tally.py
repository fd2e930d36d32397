"""What a training has counted so far, its series, and which solve failed first."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from experiments.runner.interrupts import Diverged
from experiments.runner.recording import Recorder
from solvers import ReturnCode, Solution

__all__ = ["Series", "Stopwatch", "Taken", "Tally"]

FINITE = (ReturnCode.SUCCESS, ReturnCode.MAX_EVALUATIONS)


class Series:
    """The scalars of a run, which a resumed one replays.

    Attributes
    ----------
    points
        Steps and values of each name.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.points: dict[str, tuple[list[float], list[float]]] = {}

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Record a point of each of these series, unless it has one at this step."""
        for name, value in values.items():
            steps, known = self.points.setdefault(name, ([], []))
            if step not in steps[-1:]:
                steps.append(step)
                known.append(float(value))
                self._recorder.scalar(name, float(value), step)

    def replay(self, points: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Record what an earlier run has recorded."""
        for name, (steps, values) in points.items():
            for step, value in zip(steps, values, strict=True):
                self.add({name: value}, int(step))


class Stopwatch:
    """Seconds of blocks, the device's work included, without waiting for it."""

    def __init__(self, device: str) -> None:
        self._cuda = device if device.startswith("cuda") else None

    def now(self) -> Any:
        """Return a moment."""
        if self._cuda is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda))
        return event

    def between(self, first: Any, last: Any) -> float:
        """Return the seconds between two moments; waits for the last one."""
        if self._cuda is None:
            return float(last - first)
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000


@dataclass(frozen=True)
class Taken:
    """A step that was taken, some of it still on the device.

    Attributes
    ----------
    number
        Steps done before it.
    loss, penalty, norm
        Scalars; the penalty and the gradient's norm as far as there are any.
    forward, adjoint
        The solves, without what is not needed of them.
    evaluations, products, work
        Of the forward, of the backward, and of all that the step did.
    moments
        Begin and end.
    """

    number: int
    loss: Tensor
    penalty: Tensor | None
    norm: Tensor | None
    forward: Solution | None
    adjoint: Solution | None
    evaluations: int
    products: int
    work: int
    moments: tuple[Any, Any]


def light(solution: Solution | None) -> Solution | None:
    """Return what a verdict is read from."""
    if solution is None:
        return None
    nothing = solution.residual.new_zeros(0)
    return replace(solution, value=nothing, attempts=(), inverse=None, trace=None, original=None)


@dataclass
class Tally:
    """Sums and lists over the steps so far; plain data, which a checkpoint keeps.

    Attributes
    ----------
    evaluations, products, work
        Sums.
    losses, seconds
        Of each step.
    converged, solved
        Sum of the shares of samples that converged, and the number of forward solves.
    unsolved, nonfinite
        The first solve that did not converge, and the first that was not finite, in words.
    reached
        Seconds and work at which the loss that was aimed at was reached.
    peak_bytes, layer_peak_bytes
        As measured, once they are.
    """

    evaluations: int = 0
    products: int = 0
    work: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    converged: float = 0.0
    solved: int = 0
    unsolved: str = ""
    nonfinite: str = ""
    reached: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    layer_peak_bytes: int | None = None

    def __post_init__(self) -> None:
        """Nothing waits to be read."""
        self._waiting: list[Taken] = []

    def add(self, taken: Taken) -> None:
        """Count a step; what is on the device waits for :meth:`read`."""
        self.evaluations += taken.evaluations
        self.products += taken.products
        self.work += taken.work
        self._waiting.append(taken)

    def read(self, watch: Stopwatch) -> dict[str, float]:
        """Read what waits, and return the series of the last step.

        Raises
        ------
        Diverged
            If a loss or a gradient is not finite, with the step, and the solve that failed first.
        """
        values: dict[str, float] = {}
        waiting, self._waiting = self._waiting, []
        for taken in waiting:
            values = self._one(taken)
            self.seconds.append(watch.between(*taken.moments))
        return values

    def _one(self, taken: Taken) -> dict[str, float]:
        values = {
            "train.loss": float(taken.loss),
            "train.evaluations": float(taken.evaluations),
            "train.products": float(taken.products),
        }
        for name, number in (("gradient_norm", taken.norm), ("penalty", taken.penalty)):
            if number is not None:
                values[f"train.{name}"] = float(number)
        if taken.forward is not None:
            share, residual = self._judged(taken.forward, "forward", taken.number)
            values |= {"train.converged": share, "train.residual": residual}
            self.converged += share
            self.solved += 1
        if taken.adjoint is not None:
            share, _ = self._judged(taken.adjoint, "adjoint", taken.number)
            values["train.adjoint_converged"] = share
        self.losses.append(values["train.loss"])
        what = {
            "loss": values["train.loss"],
            "penalty on the Jacobian": values.get("train.penalty", 0.0),
            "gradient": values.get("train.gradient_norm", 0.0),
        }
        for name, value in what.items():
            if not math.isfinite(value):
                raise Diverged(self._diverged(name, value, taken.number))
        return values

    def _judged(self, solution: Solution, phase: str, step: int) -> tuple[float, float]:
        """Return the share of samples that converged and their mean relative residual."""
        codes = solution.retcode.tolist()
        residual = solution.residual.detach().double().cpu()
        scale = solution.scale.detach().double().cpu()
        share = codes.count(ReturnCode.SUCCESS.value) / max(1, len(codes))
        relative = float((residual / torch.where(scale > 0, scale, 1.0)).mean())
        worst = solution.worst
        spent = solution.settings.fixed_budget and worst is ReturnCode.MAX_EVALUATIONS
        if worst is not ReturnCode.SUCCESS and not spent and not self.unsolved:
            self.unsolved = f"the {phase} solve of step {step}: {solution.message}"
        broken = worst is ReturnCode.NONFINITE or not bool(torch.isfinite(residual).all())
        if broken and not self.nonfinite:
            self.nonfinite = f"the {phase} solve of step {step}: {solution.message}"
        return share, relative

    def _diverged(self, what: str, value: float, step: int) -> str:
        told = f"step {step}: the {what} is {value}"
        if self.nonfinite:
            told += f"; first without finite numbers was {self.nonfinite}"
        if self.unsolved and self.unsolved != self.nonfinite:
            told += f"; first to fail was {self.unsolved}"
        if not self.nonfinite and not self.unsolved:
            told += "; every solve had converged, so a smaller learning rate or clip may help"
        return told

    def totals(self) -> dict[str, float]:
        """Return the series of what was spent so far."""
        return {"train.work": float(self.work), "train.seconds": math.fsum(self.seconds)}

    def result(self) -> dict[str, float]:
        """Return what a run returns of it; means over no steps are no numbers."""
        steps = len(self.losses)
        last = self.losses[-max(1, round(steps / 10)) :]
        found = {
            "train_loss": statistics.fmean(last) if last else math.nan,
            "evaluations": self.evaluations / steps if steps else math.nan,
            "products": self.products / steps if steps else math.nan,
            "step_seconds": statistics.median(self.seconds) if steps else math.nan,
            "seconds": math.fsum(self.seconds),
            "work": float(self.work),
            "steps": float(steps),
        }
        if self.solved:
            found["converged"] = self.converged / self.solved
        for name in ("peak_bytes", "layer_peak_bytes"):
            if getattr(self, name) is not None:
                found[name] = float(getattr(self, name))
        return found

    def state(self) -> dict[str, Any]:
        """Return the fields, as plain data."""
        return dataclasses.asdict(self)
