"""Running a solver that owns its loop: every point it evaluates is counted and judged by us."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.evaluation import Evaluator
from solvers.judge import Judge, norm
from solvers.loop import Settings, per_sample
from solvers.options import OptionError
from solvers.problem import Problem
from solvers.solution import ReturnCode, Solution, Trace
from solvers.solver import ForeignSolver


class Enough(Exception):  # noqa: N818  it ends a foreign loop, and is no error
    """Raised by an :class:`Objective` that has seen all samples end, or its budget spent."""


class Objective:
    """The residual of a problem as foreign code sees it.

    It notes the best point of each sample, and ends the loop when the tolerance is met there. It
    does so on the host, where a foreign loop is anyway: its bookkeeping would else be timed as the
    library's.

    Attributes
    ----------
    z0
        (B, D) the start.
    value
        (B, D) the best point of each sample so far.
    """

    def __init__(self, problem: Problem, settings: Settings, scale: Tensor | float | None) -> None:
        self.problem, self.settings = problem, settings
        self.evaluator = Evaluator(problem)
        self.layout, self.stats = self.evaluator.layout, self.evaluator.tally
        self.z0 = self.layout.pack(problem.z0).detach()
        self.value = self.z0.clone()
        self.given = per_sample(scale, self.layout, problem.batch)
        self.timed_out = False
        self._args = self.evaluator.args
        b = problem.batch
        self.independent = True if b <= 1 else problem.samples_independent
        self._scale = np.zeros(b) if self.given is None else _numbers(self.given)
        self._first = np.full(b, np.nan)
        self._best = np.full(b, np.inf)
        self._excess = np.full(b, np.inf)
        self._counts = np.zeros(b, dtype=np.int64)
        self._products = np.zeros(b, dtype=np.int64)
        self._met = np.zeros(b, dtype=bool)
        self._apart = False  # whether samples are evaluated one by one
        self._last: tuple[slice, Tensor] | None = None  # the last point
        self._points: list[tuple[np.ndarray[Any, Any], float, np.ndarray[Any, Any]]] = []
        self._limit = settings.max_evaluations - 1  # the last one judges the answer

    def first(self) -> None:
        """Evaluate z0 on the batch, and find out whether samples are independent."""
        unknown = self.independent is None and self._limit > 0
        self.evaluator.keep_last = unknown
        fz, residual = self.evaluator(self.z0)
        if unknown:
            half = np.arange(self.problem.batch // 2)
            blocks = self.evaluator.linearise(self.z0, self.z0.shape).blocks()
            self.independent = blocks and self.evaluator.divisible(self.z0, fz, half)
            self._limit -= blocks
            self.evaluator.forget()
        self._note(self.z0, fz, residual, slice(None))

    @property
    def groups(self) -> list[int | slice]:
        """What may be solved by itself: each sample, or all where they depend on each other."""
        return list(range(self.problem.batch)) if self.independent else [slice(None)]

    def __call__(self, z: Tensor, rows: int | slice = slice(None)) -> Tensor:
        """Return the residual (rows, D) of these samples at z (rows, D); grad is the caller's.

        Raises
        ------
        Enough
            If these samples have all met the tolerance, or the budget is spent.
        """
        s, part = self.settings, _part(rows)
        if self._met[part].all() or self._counts[part].max() >= self._limit:
            raise Enough
        if s.max_seconds and time.perf_counter() - self.evaluator.started > s.max_seconds:
            self.timed_out = True
            raise Enough
        self._apart |= isinstance(rows, int)
        fz, residual = self._evaluate(z, part)
        self._last = part, z
        self._note(z.detach(), fz, residual, part)
        return residual

    def jacobian(self, z: Tensor, rows: int | slice = slice(None)) -> Tensor:
        """Return the derivative of the residual of these samples at z (rows, D).

        Of one sample it has the shape (D, D), of several, which depend on each other, (rows·D,
        rows·D). It costs as many products with the transpose, and an evaluation unless the last one
        was made at this point and kept its graph.

        Raises
        ------
        Enough
            As an evaluation does.
        """
        evaluator, part = self.evaluator, _part(rows)
        kept, last = evaluator.keep_last, self._last
        there = kept and last is not None and last[0] == part and torch.equal(last[1], z)
        if not there:
            evaluator.keep_last = True
            try:
                self(z, rows)
            finally:
                evaluator.keep_last = kept
            last = part, z
        assert last is not None
        before = self.stats.vjps
        jacobian = evaluator.linearise(last[1], torch.Size((1, z.numel()))).jacobian()[0]
        # On the clock of one sample, as evaluations are.
        self._products[part] += self.stats.vjps - before
        self.stats.vjps = before
        # f of a root problem is z + g(z).
        return jacobian - torch.eye(z.numel(), dtype=jacobian.dtype, device=jacobian.device)

    @property
    def met(self) -> bool:
        """Whether every sample has met the tolerance."""
        return bool(self._met.all())

    def excess(self, rows: int | slice) -> float:
        """Return the last residual over the tolerance, of the worst of these samples."""
        return float(np.max(self._excess[rows]))

    def again(self) -> tuple[Tensor, Tensor]:
        """Return f and the residual (B, D) at the best points.

        They are evaluated in the groups in which they were found: in a batch of another size the
        last digits differ, and a point that met a tight tolerance might miss it.
        """
        pairs = []
        for rows in self.groups if self._apart else [slice(None)]:
            part = _part(rows)
            pairs.append(self._evaluate(self.value[part], part))
        fz, residual = zip(*pairs, strict=True)
        return torch.cat(fz), torch.cat(residual)

    def _evaluate(self, z: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        # Slices are views: nothing is copied, and all samples are the batch itself.
        self.evaluator.args = tuple(a[part] for a in self._args)
        self.evaluator.rows = part
        return self.evaluator(z)

    @torch.no_grad()
    def _note(self, z: Tensor, fz: Tensor, residual: Tensor, part: slice) -> None:
        s = self.settings
        size = _numbers(norm(residual.detach(), s.norm))
        first = self._first[part]
        first[...] = np.where(np.isnan(first), size, first)
        if self.given is not None:
            scale = self._scale[part]
        elif self.evaluator.is_root:
            scale = first
        else:
            scale = np.maximum(_numbers(norm(fz.detach(), s.norm)), first)
        tolerance = s.abstol + s.reltol * scale
        meets = (size <= tolerance) & np.isfinite(size)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(meets, 0.0, size / tolerance)
        rank = size
        if not self.independent:
            # Coupled samples end together: one point for all, where the worst is the nearest.
            meets = np.full_like(meets, meets.all())
            rank = np.full_like(size, excess.max())
        better = ~self._met[part] & (meets | (rank < self._best[part]))
        if better.all():
            self.value[part] = z
        elif better.any():
            self.value[part][torch.from_numpy(better)] = z[torch.from_numpy(better)]
        self._best[part] = np.where(better, rank, self._best[part])
        self._met[part] |= meets
        self._excess[part] = excess
        self._counts[part] += 1
        seconds = time.perf_counter() - self.evaluator.started
        self._points.append((np.arange(self.problem.batch)[part], seconds, size))

    def trace(self) -> Trace | None:
        """Return the trace on the clock of evaluations a sample, as if all ran side by side."""
        if self.settings.trace is None or not self._points:
            return None
        batch, length = self.problem.batch, int(self._counts.max())
        residual = np.full((length, batch), np.nan)
        seconds, seen = np.zeros(length), np.zeros(batch, dtype=np.int64)
        for index, at, size in self._points:
            residual[seen[index], index] = size
            seconds[seen[index]] = np.maximum(seconds[seen[index]], at)
            seen[index] += 1
        active = (~np.isnan(residual)).sum(axis=1)
        if self.settings.trace == "summary":
            residual = np.where(np.isnan(residual), -np.inf, residual).max(axis=1)
        return Trace(
            torch.arange(1, length + 1),
            torch.from_numpy(np.maximum.accumulate(seconds)),
            torch.from_numpy(residual),
            torch.from_numpy(active),
        )

    @property
    def products(self) -> int:
        """The products with the transpose that Jacobians took, of the sample that took most."""
        return int(self._products.max(initial=0))

    @property
    def moved(self) -> bool:
        """Whether anything but z0 was evaluated."""
        return bool((self._counts > 1).any())

    @property
    def spent(self) -> Tensor:
        """(B,) whether each sample's evaluations are spent."""
        return torch.from_numpy(self._counts >= self._limit)


def _part(rows: int | slice) -> slice:
    return slice(rows, rows + 1) if isinstance(rows, int) else rows


def _numbers(x: Tensor) -> np.ndarray[Any, Any]:
    return x.to("cpu", torch.float64).numpy()


def run_foreign(
    problem: Problem,
    solver: ForeignSolver,
    settings: Settings,
    *,
    scale: Tensor | float | None = None,
    phase: str = "forward",
    site: str = "",
) -> Solution:
    """Solve by a foreign solver; its exceptions become return codes, its own result `original`.

    The best points it met are evaluated again and judged as those of any solver.

    Raises
    ------
    OptionError
        If an option of the solver does not allow this problem.
    ImportError
        If what the solver needs cannot be imported.
    """
    if settings.fixed_budget:
        raise ValueError(f"{solver.name} decides itself when to stop: it has no fixed_budget mode")
    objective = Objective(problem, settings, scale)
    evaluator, stats = objective.evaluator, objective.stats
    original: Any = None
    with torch.no_grad():
        judge = Judge(settings, objective.z0, is_root=evaluator.is_root, scale=objective.given)
        if problem.batch:
            objective.first()
            # The first point is judged too: its residual is part of the scale.
            judge.see(objective.z0, *evaluator.last, 1)
            judge.decide()
            try:
                original = solver.run(objective)
            except Enough:
                pass
            except (ImportError, MemoryError, OptionError):
                raise
            except Exception as error:  # whatever a foreign library raises is a failed solve
                original = error
            finally:
                evaluator.forget()  # the graph of the last point, if it was kept
                stats.vjps += objective.products
            judge.joint = not objective.independent
            if objective.moved:
                fz, residual = objective.again()
                last = int(evaluator.stats.sample_evaluations.max())
                judge.see(objective.value, fz, residual, last)
        done = judge.conclude(ReturnCode.MAX_SECONDS if objective.timed_out else ReturnCode.FAILURE)
        code = done.code
        spent = objective.spent.to(code.device) & (code == ReturnCode.FAILURE)
        code = torch.where(spent, int(ReturnCode.MAX_EVALUATIONS), code)
    stats.history_bytes = None
    # The clock of one sample: those that are solved one by one would run side by side.
    stats.evaluations = int(evaluator.stats.sample_evaluations.max()) if problem.batch else 0
    stats.seconds = time.perf_counter() - evaluator.started
    layout = objective.layout
    return Solution(
        value=layout.unpack(done.value),
        residual=done.residual,
        scale=done.scale,
        retcode=code,
        ended=stats.sample_evaluations.clone(),
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
