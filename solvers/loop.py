"""The one loop: it evaluates, counts, judges, freezes and stops; a solver only proposes points."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from solvers.evaluation import Evaluator
from solvers.judge import Judge, final_codes
from solvers.options import Options
from solvers.problem import Layout, Problem, parts
from solvers.solution import ReturnCode, Solution, Trace
from solvers.solver import BaseSolver, ForeignSolver, Solver, map_tensors, state_bytes

# Iterations between two reads of the device, by device type; 1 elsewhere, where a read is free.
READ_EVERY = {"cuda": 4, "mps": 4, "xpu": 4}

Listener = Callable[[Solution], None]
_listeners: list[Listener] = []
_lock = threading.Lock()


@dataclass(frozen=True)
class Settings(Options):
    """How far a solve goes, whichever solver does it; the keywords of :func:`solve`."""

    abstol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    reltol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    norm: Literal["l2", "rms", "linf"] = "l2"
    max_evaluations: Annotated[int, Field(ge=1)] = 100
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    fixed_budget: bool = False
    trace: Literal["summary", "per_sample"] | None = "summary"


def solve(
    problem: Problem,
    solver: BaseSolver | None = None,
    *,
    abstol: float = 0.0,
    reltol: float = 1e-3,
    norm: Literal["l2", "rms", "linf"] = "l2",
    max_evaluations: int = 100,
    max_seconds: float | None = None,
    fixed_budget: bool = False,
    start: Solution | None = None,
    scale: Tensor | float | None = None,
    trace: Literal["summary", "per_sample"] | None = "summary",
    callback: Callable[[Iteration], object] | None = None,
) -> Solution:
    """Solve a problem, without a graph.

    Parameters
    ----------
    problem
        A ``FixedPointProblem`` or a ``RootProblem``.
    solver
        A solver object. ``None`` is the default, ``Fallback((Anderson(), Broyden(),
        NewtonKrylov()))``: each takes over the samples that the one before it left unsolved.
    abstol, reltol, norm, scale
        A sample has converged when ‖residual‖ ≤ abstol + reltol·scale in the norm ``l2``, ``rms``
        or ``linf``. The scale is max(‖f(z)‖, ‖f(z0) − z0‖) for fixed points and ‖g(z0)‖ for
        roots, unless given as a number or a tensor (B,).
    max_evaluations, max_seconds
        The budget, in calls of f on the batch and in seconds.
    fixed_budget
        Use exactly ``max_evaluations``, with no early stop and no read of the device.
    start
        An earlier solution, whose value replaces z0.
    trace
        ``"summary"`` keeps the largest active residual of each point, ``"per_sample"`` all of
        them, ``None`` nothing.
    callback
        Called with the :class:`Iteration` after each point; a true result stops the solve.

    Returns
    -------
    Solution
        The best iterate of each sample, with its return code. What the numbers did is never an
        exception.

    Raises
    ------
    ValueError
        If grad is enabled and z0, args or params require it: use ``implicit.solve`` then, or
        ``torch.no_grad()``.
    """
    settings = Settings(abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, trace)
    _refuse_grad(problem)
    return run(problem, solver, settings, start=start, scale=scale, callback=callback)


def init(
    problem: Problem,
    solver: Solver,
    *,
    abstol: float = 0.0,
    reltol: float = 1e-3,
    norm: Literal["l2", "rms", "linf"] = "l2",
    max_evaluations: int = 100,
    max_seconds: float | None = None,
    fixed_budget: bool = False,
    start: Solution | None = None,
    scale: Tensor | float | None = None,
    trace: Literal["summary", "per_sample"] | None = "summary",
    callback: Callable[[Iteration], object] | None = None,
) -> Iteration:
    """Return the solve of :func:`solve` as an iterator over its points.

    >>> iteration = init(problem, Anderson())
    >>> for point in iteration:
    ...     print(point.evaluations, point.residual)
    >>> iteration.solution
    """
    settings = Settings(abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, trace)
    _refuse_grad(problem)
    if not isinstance(solver, Solver):
        raise TypeError(f"{type(solver).__name__} owns its loop: only `solve` runs it")
    return Iteration(problem, solver, settings, start=start, scale=scale, callback=callback)


def _refuse_grad(problem: Problem) -> None:
    tensors = (*parts(problem.z0), *problem.args, *problem.params)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise ValueError(
            "solvers.solve computes without a graph, but z0, args or params require gradients: use"
            " implicit.solve for a differentiable value, or torch.no_grad()"
        )


@contextlib.contextmanager
def observe(listener: Listener) -> Iterator[None]:
    """Announce every solve that finishes meanwhile, nested and backward ones too."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def announce(solution: Solution) -> Solution:
    """Tell the listeners of :func:`observe` about a finished solve, and return it."""
    for listener in tuple(_listeners):
        listener(solution)
    return solution


def run(
    problem: Problem,
    solver: BaseSolver | None,
    settings: Settings,
    *,
    start: Solution | None = None,
    scale: Tensor | float | None = None,
    callback: Callable[[Iteration], object] | None = None,
    differentiable: bool = False,
    phase: str = "forward",
    site: str = "",
    quiet: bool = False,
) -> Solution:
    """Solve with checked settings; what ``solve``, the gradients and ``Fallback`` share."""
    from solvers.fallback import Fallback, default_solver

    solver = default_solver() if solver is None else solver
    keywords: dict[str, Any] = {"scale": scale, "phase": phase, "site": site}
    if start is not None:
        problem = started_from(problem, start)
    if isinstance(solver, Fallback):
        solution = solver.attempt(
            problem, settings, callback=callback, differentiable=differentiable, **keywords
        )
    elif isinstance(solver, ForeignSolver):
        from solvers.foreign import run_foreign

        if differentiable:
            raise ValueError(
                f"{solver.name} owns its loop, so that one cannot differentiate through its steps:"
                " use the gradient Implicit with it"
            )
        solution = run_foreign(problem, solver, settings, **keywords)
    elif isinstance(solver, Solver):
        iteration = Iteration(
            problem, solver, settings, callback=callback, differentiable=differentiable, **keywords
        )
        for _ in iteration:
            pass
        solution = iteration.solution
    else:
        raise TypeError(
            f"expected a solver object such as Anderson(), got {type(solver).__name__}"
            " (solvers.registry.get builds one from a name)"
        )
    return solution if quiet else announce(solution)


def started_from(problem: Problem, start: Solution) -> Problem:
    """Return the problem with the value of an earlier solution as its start.

    Raises
    ------
    ValueError
        If that has another structure or batch size.
    """
    old, new = Layout(problem.z0), Layout(start.value)
    if old.shapes != new.shapes or start.batch != problem.batch:
        raise ValueError(
            f"start has a state of shape {new.shapes} for {start.batch} samples, the problem"
            f" {old.shapes} for {problem.batch}"
        )
    z0 = start.value
    detached = tuple(t.detach() for t in z0) if isinstance(z0, tuple) else z0.detach()
    return replace(problem, z0=detached)  # type: ignore[type-var]  # both problems are dataclasses


class Iteration:
    """A solve in progress: iterate over it, and look at ``solution`` at any time.

    Attributes
    ----------
    z, fz
        (rows, D) the point and the function there, for the samples still being solved.
    residual
        (B,) the residual norms at the last point of each sample.
    """

    def __init__(
        self,
        problem: Problem,
        solver: Solver,
        settings: Settings,
        *,
        start: Solution | None = None,
        scale: Tensor | float | None = None,
        callback: Callable[[Iteration], object] | None = None,
        differentiable: bool = False,
        phase: str = "forward",
        site: str = "",
    ) -> None:
        self.problem = problem if start is None else started_from(problem, start)
        self.solver, self.settings = solver, settings
        self.phase, self.site, self.callback = phase, site, callback
        # Unrolled, the steps are the network: all samples take all of them, also without a graph.
        self.unrolled = differentiable
        self.graph = differentiable and torch.is_grad_enabled()
        self.evaluator = Evaluator(
            self.problem, graph=self.graph, keep_last="linearise" in solver.requires
        )
        self.layout, self.stats = self.evaluator.layout, self.evaluator.stats
        self.independent = True if self.problem.batch <= 1 else self.problem.samples_independent
        self.joint = self.independent is False
        self._divisible = self.independent
        self.judge = Judge(
            settings,
            self.layout.pack(self.problem.z0),
            is_root=self.evaluator.is_root,
            scale=per_sample(scale, self.layout, self.problem.batch),
            last=differentiable,
        )
        self.judge.joint = self.joint
        self._trace: list[tuple[int, float, Tensor, Tensor]] = []
        self._stop: ReturnCode | None = None
        self._one_row = False

    @property
    def evaluations(self) -> int:
        """The calls of f so far."""
        return self.stats.evaluations

    @property
    def residual(self) -> Tensor:
        """(B,) the residual norms at the last point of each sample."""
        return self.judge.verdicts.now

    def __iter__(self) -> Iterator[Iteration]:
        """Iterate: after every evaluated point, yield this object."""
        points = self._points()
        while True:
            with torch.set_grad_enabled(self.graph):
                try:
                    next(points)
                except StopIteration:
                    return
            yield self

    def _points(self) -> Iterator[None]:
        z = self.layout.pack(self.problem.z0)
        if not self.graph or not z.requires_grad:
            z = z.detach()
        if self.graph and "linearise" in self.solver.requires:
            z.requires_grad_(True)
        self.z, state, started = z, None, False
        while self.problem.batch and self.evaluations < self.settings.max_evaluations:
            self.fz, self._residual = self.evaluator(self.z)
            going = self._judge(self.solver.failed(state) if started else None)
            yield
            alive = self._poll(going)
            if self._stopped() or (alive is not None and not any(alive)):
                break
            if alive is not None and not all(alive):
                state = self._drop(alive, state)
            if not started:
                if "blocks" in self.solver.requires and self.independent is None:
                    self.independent = self.evaluator.linearise(self.z, self.z.shape).blocks()
                    self._couple(not self.independent)
                self._one_row = self.joint
                state = self.solver.init(self._rows(self.z), self._rows(self.fz))
                started = True
            if not self.unrolled and self.evaluations >= self.settings.max_evaluations:
                break
            state = self._step(state)
            self._weigh(state)
            if self.unrolled and self.evaluations >= self.settings.max_evaluations:
                # L evaluations in the graph are the weight-tied network of depth L: its last
                # point is judged by one more, outside the graph.
                with torch.no_grad():
                    self.fz, self._residual = self.evaluator(self.z.detach())
                    self._judge(self.solver.failed(state))
                yield
        self.stats.seconds = time.perf_counter() - self.evaluator.started

    def _step(self, state: Any) -> Any:
        z, fz, point = self._rows(self.z), self._rows(self.fz), self.z
        shape = z.shape
        z, state = self.solver.step(state, z, fz, lambda: self.evaluator.linearise(point, shape))
        self.stats.iterations += 1
        self.z = z.reshape(point.shape)
        return state

    def _rows(self, x: Tensor) -> Tensor:
        """Return what the solver sees: a row a sample, or one row where samples are coupled."""
        return x.reshape(1, -1) if self._one_row else x

    def _judge(self, failed: Tensor | None) -> Tensor:
        going = self.judge(self.z, self.fz, self._residual, self.evaluations, failed)
        if self.settings.trace is not None:
            whole = self.settings.trace == "per_sample"
            now = self.residual.clone() if whole else self.judge.now.amax()
            seconds = time.perf_counter() - self.evaluator.started
            self._trace.append((self.evaluations, seconds, now, going.sum()))
        return going

    def _poll(self, going: Tensor) -> list[bool] | None:
        """Read which samples go on, every few iterations; ``None`` in between."""
        if self.settings.fixed_budget:
            return None
        if self.stats.iterations % READ_EVERY.get(self.layout.device.type, 1):
            return None
        self.stats.syncs += 1
        alive: list[bool] = going.tolist()
        return alive

    def _stopped(self) -> bool:
        s = self.settings
        late = s.max_seconds is not None and (
            time.perf_counter() - self.evaluator.started > s.max_seconds
        )
        if late or (self.callback is not None and self.callback(self)):
            self._stop = ReturnCode.MAX_SECONDS
            return True
        return False

    def _drop(self, alive: list[bool], state: Any) -> Any:
        """Go on without the samples that ended, if samples are independent."""
        if self.unrolled or self.joint:
            return state
        kept = torch.tensor([i for i, a in enumerate(alive) if a], device=self.layout.device)
        if self._divisible is None:
            self._divisible = self.evaluator.divisible(self.z, self.fz, kept)
            self.independent = self._divisible if self.independent is None else self.independent
            self._couple(not self._divisible)
        if self.joint:
            return state
        self._weigh(state)
        self.evaluator.restrict(kept)
        self.judge.restrict(kept)
        self.z, self.fz = self.z[kept], self.fz[kept]
        return map_tensors(lambda t: t[kept], state)

    def _couple(self, coupled: bool) -> None:
        """Judge the samples together from now on, if they turned out to be coupled."""
        if coupled:
            self.joint = self.judge.joint = True
            self.judge.restart(self.z)
            self.judge(self.z, self.fz, self._residual, self.evaluations)

    def _weigh(self, state: Any) -> None:
        self.stats.history_bytes = max(self.stats.history_bytes or 0, state_bytes(state))

    @property
    def solution(self) -> Solution:
        """The solution so far: the best iterate of each sample, judged."""
        verdicts, layout = self.judge.verdicts, self.layout
        return Solution(
            value=layout.unpack(self.z if self.unrolled else verdicts.value),
            residual=verdicts.residual,
            scale=verdicts.scale,
            retcode=final_codes(self.settings, verdicts, self._stop or ReturnCode.MAX_EVALUATIONS),
            ended=verdicts.ended,
            stats=self.stats,
            trace=self._stacked(),
            solver=self.solver,
            settings=self.settings,
            problem=self.problem.name,
            phase=self.phase,
            site=self.site,
            dtype=str(layout.dtype).removeprefix("torch."),
            device=str(layout.device),
            dim=layout.dim,
            samples_independent=self.independent,
        )

    def _stacked(self) -> Trace | None:
        if self.settings.trace is None or not self._trace:
            return None
        evaluations, seconds, residual, active = zip(*self._trace, strict=True)
        return Trace(
            torch.tensor(evaluations),
            torch.tensor(seconds, dtype=torch.float64),
            torch.stack(residual),
            torch.stack(active),
        )


def per_sample(value: Tensor | float | None, layout: Layout, batch: int) -> Tensor | None:
    """Return a number or a tensor (B,) as a tensor (B,)."""
    if value is None:
        return None
    given = torch.as_tensor(value, dtype=layout.dtype, device=layout.device)
    if given.dim() > 1 or (given.dim() == 1 and given.shape[0] != batch):
        raise ValueError(f"scale has shape {tuple(given.shape)}, expected a number or ({batch},)")
    return given.expand(batch)
