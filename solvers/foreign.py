"""Running a solver that owns its loop: every point it evaluates is counted and judged by us."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from solvers.evaluation import Evaluator
from solvers.judge import Judge
from solvers.loop import Settings, per_sample
from solvers.problem import Problem
from solvers.solution import ReturnCode, Solution, Trace
from solvers.solver import ForeignSolver


class Enough(Exception):  # noqa: N818  it ends a foreign loop, and is no error
    """Raised by an :class:`Objective` that has seen all samples end, or its budget spent."""


class Objective:
    """The residual of a problem as foreign code sees it.

    Attributes
    ----------
    z0
        (B, D) the start.
    groups
        What may be solved by itself: one index tensor a sample if samples are independent, one of
        them all if not.
    """

    def __init__(self, problem: Problem, settings: Settings, scale: Tensor | float | None) -> None:
        self.settings = settings
        self.evaluator = Evaluator(problem)
        self.layout, self.stats = self.evaluator.layout, self.evaluator.stats
        self.z0 = self.layout.pack(problem.z0).detach()
        self.batch = problem.batch
        self.judge = Judge(
            settings,
            is_root=self.evaluator.is_root,
            scale=per_sample(scale, self.layout, problem.batch),
        )
        self.judge.begin(self.z0)
        self.counts = torch.zeros(self.batch, dtype=torch.long)
        self.independent = True if self.batch <= 1 else problem.samples_independent
        self.points: list[tuple[Tensor, int, float, Tensor]] = []
        self.timed_out = False

    def first(self) -> Tensor:
        """Evaluate z0 on the batch; return the residual (B, D).

        Finds out whether samples are independent, if nobody said.

        Raises
        ------
        Enough
            If every sample is solved there.
        """
        self.evaluator.keep_last = self.independent is None
        fz, residual = self.evaluator(self.z0)
        if self.independent is None:
            half = torch.arange(self.batch // 2, device=self.z0.device)
            blocks = self.evaluator.linearise(self.z0, self.z0.shape).blocks()
            self.independent = blocks and self.evaluator.divisible(self.z0, fz, half)
            self.evaluator.keep_last = False
        self.judge.joint = not self.independent
        self._judged(self.z0, fz, residual, None)
        if not self.live(None):
            raise Enough
        return residual

    @property
    def groups(self) -> list[Tensor]:
        """The index tensors of what may be solved by itself."""
        every = torch.arange(self.batch, device=self.z0.device)
        return list(every.split(1)) if self.independent else [every]

    def live(self, rows: Tensor | None) -> bool:
        """Whether one of the samples ``rows`` (all when ``None``) goes on."""
        code = self.judge.code if rows is None else self.judge.code[rows]
        return bool((code < 0).any())

    def excess(self, rows: Tensor) -> float:
        """Return the last residual of the samples, the worst one over its tolerance."""
        s = self.settings
        scale = self.judge.scale[rows].clamp_min(torch.finfo(torch.float32).tiny)
        return float((self.judge.now[rows] / (s.abstol + s.reltol * scale)).amax())

    def __call__(self, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return f(z) and the residual (rows, D) of the samples ``rows``; grad is the caller's.

        Raises
        ------
        Enough
            If these samples have all ended, or the evaluations or seconds are spent.
        """
        s = self.settings
        index = torch.arange(self.batch) if rows is None else rows.cpu()
        if not self.live(rows) or int(self.counts[index].max()) >= s.max_evaluations:
            raise Enough
        if s.max_seconds and time.perf_counter() - self.evaluator.started > s.max_seconds:
            self.timed_out = True
            raise Enough
        whole = self.evaluator.args
        if rows is not None:
            self.evaluator.args = tuple(a[rows] for a in whole)
            self.evaluator.rows = rows
        try:
            fz, residual = self.evaluator(z)
        finally:
            self.evaluator.args, self.evaluator.rows = whole, None
        self._judged(z, fz, residual, rows)
        return fz, residual

    def _judged(self, z: Tensor, fz: Tensor, residual: Tensor, rows: Tensor | None) -> None:
        index = torch.arange(self.batch) if rows is None else rows.cpu()
        self.counts[index] += 1
        evaluation = int(self.counts[index].max())
        self.judge(z.detach(), fz.detach(), residual.detach(), evaluation, rows)
        seconds = time.perf_counter() - self.evaluator.started
        now = self.judge.now if rows is None else self.judge.now[rows]
        self.points.append((index, evaluation, seconds, now.detach().cpu()))

    def trace(self) -> Trace | None:
        """Return the trace on the clock of evaluations a sample, whoever came first."""
        if self.settings.trace is None or not self.points:
            return None
        length = int(self.counts.max())
        residual = torch.full((length, self.batch), torch.nan, dtype=torch.float64)
        seconds = torch.zeros(length, dtype=torch.float64)
        for index, evaluation, at, now in self.points:
            residual[evaluation - 1, index] = now.to(torch.float64)
            seconds[evaluation - 1] = max(float(seconds[evaluation - 1]), at)
        active = (~residual.isnan()).sum(dim=1)
        if self.settings.trace == "summary":
            residual = residual.nan_to_num(nan=-torch.inf).amax(dim=1)
        return Trace(torch.arange(1, length + 1), seconds, residual, active)


def run_foreign(
    problem: Problem,
    solver: ForeignSolver,
    settings: Settings,
    *,
    scale: Tensor | float | None = None,
    phase: str = "forward",
    site: str = "",
) -> Solution:
    """Solve by a foreign solver; its exceptions become return codes, its own result `original`."""
    if settings.fixed_budget:
        raise ValueError(f"{solver.name} decides itself when to stop: it has no fixed_budget mode")
    objective = Objective(problem, settings, scale)
    original: Any = None
    otherwise = ReturnCode.FAILURE
    with torch.no_grad():
        try:
            if problem.batch:
                objective.first()
                original = solver.run(objective)
        except Enough:
            pass
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # whatever a foreign library raises is a failed solve
            original = error
    judge, layout = objective.judge, objective.layout
    if objective.timed_out:
        otherwise = ReturnCode.MAX_SECONDS
    spent = (objective.counts >= settings.max_evaluations).to(judge.code.device)
    code = judge.codes(otherwise)
    code = torch.where(
        spent & (code == ReturnCode.FAILURE), int(ReturnCode.MAX_EVALUATIONS), code
    )
    stats = objective.stats
    stats.history_bytes = None
    # On the clock of one sample: evaluations of samples one by one run side by side.
    stats.evaluations = int(stats.sample_evaluations.max()) if problem.batch else 0
    stats.seconds = time.perf_counter() - objective.evaluator.started
    return Solution(
        value=layout.unpack(judge.value),
        residual=judge.residual,
        scale=judge.scale,
        retcode=code,
        ended=judge.ended,
        stats=stats,
        trace=objective.trace(),
        solver=solver,
        settings=settings,
        problem=problem.name,
        phase=phase,
        site=site,
        dtype=str(layout.dtype).removeprefix("torch."),
        device=str(layout.device),
        dim=layout.dim,
        original=original,
        samples_independent=objective.independent,
    )
