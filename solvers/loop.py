"""The one loop: it evaluates, counts, judges, freezes and stops; a solver only proposes points."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from solvers.evaluation import Evaluator, forward_mode, full_precision, transformed
from solvers.inverse import Inverse, LowRank, gathered
from solvers.judge import Bools, Concluded, Ints, Judge
from solvers.options import Options
from solvers.problem import Layout, Problem, parts
from solvers.solution import ReturnCode, Solution, Stats, Trace
from solvers.solver import At, BaseSolver, ForeignSolver, Solver, map_tensors, reading_interval
from solvers.transforms import EvaluatorWithin, JudgeWithin, outside

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
    compile: bool = False


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
    compile: bool = False,
    keep_inverse: bool = False,
) -> Solution:
    """Solve a problem, without a graph.

    Parameters
    ----------
    problem
        A ``FixedPointProblem`` or a ``RootProblem``.
    solver
        A solver object. ``None`` is the default, ``Fallback((Broyden(), NewtonKrylov(),
        Newton()))``: each takes over the samples that the one before it left unsolved, and Newton
        is left out where the state is too large for a dense Jacobian.
    abstol, reltol, norm, scale
        A sample has converged when ‖residual‖ ≤ abstol + reltol·scale in the norm ``l2``, ``rms``
        or ``linf``. The scale is max(‖f(z)‖, ‖f(z0) − z0‖) for fixed points and ‖g(z0)‖ for
        roots, unless given as a number or a tensor (B,).
    max_evaluations, max_seconds
        The budget, in calls of f on the batch and in seconds.
    fixed_budget
        Use exactly ``max_evaluations``, with no early stop and no read of the device.
    start
        An earlier solution, whose value replaces z0; Broyden goes on with its ``inverse`` too, if
        that was kept, and NewtonKrylov preconditions with it.
    trace
        ``"summary"`` keeps the largest active residual of each point, ``"per_sample"`` all of
        them, ``None`` nothing.
    callback
        Called with the :class:`Iteration` after each point; a true result stops the solve.
    compile
        Call f through ``torch.compile``, where no graph is kept; worth it from some milliseconds of
        solving on, once the first solves have compiled.
    keep_inverse
        Leave the solver's estimate of (I − J)⁻¹ in ``solution.inverse``, which keeps its history
        in memory.

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
    settings = Settings(
        abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, trace, compile
    )
    _refuse_grad(problem)
    return run(
        problem,
        solver,
        settings,
        start=start,
        scale=scale,
        callback=callback,
        keep_inverse=keep_inverse,
    )


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
    compile: bool = False,
    keep_inverse: bool = False,
) -> Iteration:
    """Return the solve of :func:`solve` as an iterator over its points.

    >>> iteration = init(problem, Anderson())
    >>> for point in iteration:
    ...     print(point.evaluations, point.residual)
    >>> iteration.solution
    """
    settings = Settings(
        abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, trace, compile
    )
    _refuse_grad(problem)
    if not isinstance(solver, Solver):
        raise TypeError(f"{type(solver).__name__} owns its loop: only `solve` runs it")
    return Iteration(
        problem,
        solver,
        settings,
        start=start,
        scale=scale,
        callback=callback,
        keep_inverse=keep_inverse,
    )


def _refuse_grad(problem: Problem) -> None:
    tensors = (*parts(problem.z0), *problem.args, *problem.params)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise ValueError(
            "solvers.solve computes without a graph, but z0, args or params require gradients: use"
            " implicit.solve for a differentiable value, or torch.no_grad()"
        )


def _refuse_vmap(fz: Tensor | None = None) -> None:
    """Raise if fz is batched; without one, if this is within a transform of torch.func at all."""
    if transformed() and (fz is None or torch._C._functorch.is_batchedtensor(fz)):
        raise RuntimeError(
            "solvers.solve decides on the host when each sample is done, which torch.func.vmap"
            " cannot batch: put the samples on the batch axis of z0 and args, where they are solved"
            " side by side, or use implicit.solve, which has a rule for vmap"
        )


def _outside_inference(problem: Problem) -> Problem:
    """Return the problem with tensors of which autograd may keep a graph."""

    def usable(t: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return t.clone() if t.is_inference() else t

    tensors = (*parts(problem.z0), *problem.args, *problem.params)
    if not any(t.is_inference() for t in tensors):
        return problem
    starts = tuple(usable(t) for t in parts(problem.z0))
    return replace(  # type: ignore[type-var]  # both problems are dataclasses
        problem,
        z0=starts if isinstance(problem.z0, tuple) else starts[0],
        args=tuple(usable(t) for t in problem.args),
        params=tuple(usable(t) for t in problem.params),
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
    keep_inverse: bool | Literal["unsolved"] = False,
    phase: str = "forward",
    site: str = "",
    quiet: bool = False,
    drive: Callable[[Iteration], None] | None = None,
) -> Solution:
    """Solve with checked settings; what ``solve``, the gradients and ``Fallback`` share.

    ``drive`` takes an iteration to its end where something is to be kept of the way.
    """
    from solvers.fallback import Fallback, default_solver

    solver = default_solver() if solver is None else solver
    keywords: dict[str, Any] = {"scale": scale, "phase": phase, "site": site}
    if isinstance(solver, Fallback):
        solution = solver.attempt(
            problem if start is None else started_from(problem, start),
            settings,
            inverse=None if start is None else start.inverse,
            callback=callback,
            differentiable=differentiable,
            keep_inverse=keep_inverse,
            drive=drive,
            **keywords,
        )
    elif isinstance(solver, ForeignSolver):
        from solvers.foreign import run_foreign

        if differentiable:
            raise ValueError(
                f"{solver.name} owns its loop, so that one cannot differentiate through its steps:"
                " use the gradient Implicit with it"
            )
        solution = run_foreign(
            problem if start is None else started_from(problem, start), solver, settings, **keywords
        )
    elif isinstance(solver, Solver):
        iteration = Iteration(
            problem,
            solver,
            settings,
            start=start,
            callback=callback,
            differentiable=differentiable,
            keep_inverse=keep_inverse,
            **keywords,
        )
        (drive or Iteration.finish)(iteration)
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
        keep_inverse: bool | Literal["unsolved"] = False,
        phase: str = "forward",
        site: str = "",
    ) -> None:
        # Within torch.func the steps are taken on its tensors, and the judge is shown plain ones.
        self._within = differentiable and transformed()
        if "linearise" in solver.requires:
            if not self._within:
                _refuse_vmap()  # where torch allows no graph
            problem = _outside_inference(problem)
        self.problem = problem if start is None else started_from(problem, start)
        self.solver, self.settings = solver, settings
        # Within inference mode no graph is kept, and every map would pass for a constant one.
        self._inference = torch.is_inference_mode_enabled() and "linearise" not in solver.requires
        self.phase, self.site, self.callback = phase, site, callback
        # Unrolled, the steps are the network: all samples take all of them, also without a graph.
        self.unrolled = differentiable
        self._recorded = torch.is_grad_enabled()
        self.graph = differentiable and (self._recorded or self._within or forward_mode())
        self.evaluator = (EvaluatorWithin if self._within else Evaluator)(
            self.problem,
            graph=self.graph,
            keep_last="linearise" in solver.requires,
            compiled=settings.compile,
            listens="projection" in solver.requires,
        )
        self.layout, self._tally = self.evaluator.layout, self.evaluator.tally
        self.independent = True if self.problem.batch <= 1 else self.problem.samples_independent
        self.joint = self.independent is False
        self._divisible = self.independent
        self._half = self.layout.dtype in (torch.float16, torch.bfloat16)
        self.judge = (JudgeWithin if self._within else Judge)(
            settings,
            self.layout.pack(self.problem.z0),
            is_root=self.evaluator.is_root,
            scale=per_sample(scale, self.layout, self.problem.batch),
            last=differentiable,
        )
        self.judge.joint = self.joint
        # Whoever does not override them need not be asked.
        kind = type(solver)
        self._fails = kind.failed is not Solver.failed
        self._tries = kind.trial is not Solver.trial
        self._aims = kind.aim is not Solver.aim
        self._known = None if start is None else start.inverse
        rows = 1 if self.joint else self.problem.batch
        if isinstance(self._known, LowRank) and len(self._known.scale) != rows:
            self._known = None  # one of other samples, or of coupled ones, for which this is not
        self._keeps, self._pieces = keep_inverse, list[tuple[Tensor, LowRank]]()
        self._trace: list[tuple[int, float, Tensor]] = []
        self._drops: list[tuple[int, Tensor]] = []  # points traced before, rows that went on
        self._state: Any = None
        self._stop: ReturnCode | None = None
        self._one_row = False
        # Steps in pieces: a pause after each; nothing in place, though no graph is kept.
        self._pauses = self._functional = False
        self._linearises = "linearise" in solver.requires
        self._told: Tensor | None = None
        self._every = reading_interval(self.judge.value)

    @property
    def evaluations(self) -> int:
        """The calls of f so far."""
        return self._tally.evaluations

    @property
    def stats(self) -> Stats:
        """What the solve has cost so far."""
        return self.evaluator.stats

    @property
    def residual(self) -> Tensor:
        """(B,) the residual norms at the last point of each sample."""
        return self._concluded().now

    def __iter__(self) -> Iterator[Iteration]:
        """Iterate: after every evaluated point, yield this object."""
        points = self._points()
        while True:
            with self._computing():
                try:
                    next(points)
                except StopIteration:
                    return
            yield self

    def finish(self) -> None:
        """Go on to the end."""
        with self._computing():
            for _ in self._points():
                pass

    @property
    def state(self) -> Any:
        """The solver's state."""
        return self._state

    def snapshots(self) -> Iterator[bool]:
        """Go on to the end without a graph; stop after each point (true) and each step (false).

        What the steps leave can be taken up by :meth:`resumed`.
        """
        self._pauses = self._functional = True
        with self._computing():
            yield from self._points()

    @property
    def aimed(self) -> Tensor | None:
        """What the solver is told before the next step; ``None`` if it does not ask."""
        return self._tolerance() if self._aims else None

    def resumed(
        self, z: Tensor, state: Any, aims: Sequence[Tensor | None], *, begun: bool
    ) -> tuple[Tensor, Any]:
        """Take steps anew, unjudged, one for each of ``aims``; return the point and the state.

        ``begun`` tells whether there was a step before.
        """
        self._functional = True
        with self._computing():
            self.z, self._state, self._one_row = z, state, self.joint
            for aim in aims:
                if self.graph and self._linearises and not self.z.requires_grad:
                    self.z = self.z.detach().requires_grad_()
                self.fz, self._residual = self.evaluator(self.z)
                if not begun:
                    self._begin()
                    begun = True
                self._told = aim
                self._step()
        return self.z, self._state

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the modes of a solve, whatever the caller's are."""
        with (
            torch.inference_mode(self._inference),
            torch.set_grad_enabled(self.graph or self._functional),
            full_precision(self.layout.device),
        ):
            yield

    def _points(self) -> Iterator[bool]:
        z = self.layout.pack(self.problem.z0)
        if not self.graph:
            z = z.detach()
        elif not z.requires_grad:
            z = z.view_as(z)  # it may have a derivative of forward mode
            if "linearise" in self.solver.requires and not self._within:
                z.requires_grad_(True)
        self.z, started = z, False
        most = self.settings.max_evaluations
        while self.problem.batch and self.evaluations < most:
            self.fz, self._residual = self.evaluator(self.z)
            if not started and not self._within:
                _refuse_vmap(self.fz)
            self._see(started)
            yield True
            going = self._poll()
            if self._stopped() or (going is not None and not going.any()):
                break
            if going is not None:
                self._drop(going)
            if not started:
                if "blocks" in self.solver.requires and self.independent is None:
                    self.independent = self.evaluator.linearise(self.z, self.z.shape).blocks()
                    self._couple(not self.independent)
                self._one_row = self.joint
                self._begin()
                started = True
            if not self.unrolled and self.evaluations >= most:
                break
            self._step()
            if self._pauses:
                yield False
            if self.unrolled and self.evaluations >= most:
                # L evaluations in the graph are the weight-tied network of depth L: its last
                # point is judged by one more, outside the graph.
                with torch.no_grad():
                    self.fz, self._residual = self.evaluator(self.z.detach())
                    self._see(started)
                yield True
        self._weigh()
        self.stats.seconds = time.perf_counter() - self.evaluator.started

    def _begin(self) -> None:
        z, fz = self._rows(self.z), self._rows(self.fz)
        known, self._known = self._known, None
        known = known if len(getattr(known, "scale", z)) == len(z) else None
        if isinstance(known, Inverse) and not self.graph:
            self._state = self.solver.resume(z, fz, known)
        else:
            self._state = self.solver.init(z, fz)

    def _step(self) -> None:
        z, fz, point = self._rows(self.z), self._rows(self.fz), self.z
        shape = z.shape
        state = self._state
        if self._aims:
            tolerance = self._tolerance()
            if self._one_row:
                # The samples' residuals are at most these when the whole is at most the least.
                tolerance = tolerance.amin(dim=0, keepdim=True)
            state = self.solver.aim(state, tolerance)
        at = At(
            lambda: self.evaluator.linearise(point, shape),
            self._rows(self._residual),
            self.evaluator.pieces,
        )
        z, self._state = self.solver.step(state, z, fz, at)
        self._tally.iterations += 1
        if self._half:
            z = z.to(self.layout.dtype)
        self.z = z.reshape(point.shape) if self._one_row else z

    def _tolerance(self) -> Tensor:
        """Return the residual norms (rows,) that the next points are to reach."""
        if self._told is not None:
            return self._told
        return self.judge.tolerance

    def _rows(self, x: Tensor) -> Tensor:
        """Return what the solver sees: a row a sample, or one row where samples are coupled.

        States in half precision are handed over in float32.
        """
        x = x.float() if self._half else x
        return x.reshape(1, -1) if self._one_row else x

    def _see(self, started: bool) -> None:
        """Show the last point to the judge, and trace it."""
        size = self.judge.see(
            self.z,
            self.fz,
            self._residual,
            self.evaluations,
            failed=self._flag(self.solver.failed) if started and self._fails else None,
            trial=self._flag(self.solver.trial) if started and self._tries else None,
        )
        if self.settings.trace is not None:
            seconds = time.perf_counter() - self.evaluator.started
            self._trace.append((self.evaluations, seconds, size))

    def _flag(self, ask: Callable[[Any], Tensor | None]) -> Tensor | None:
        flag = ask(self._state)
        return flag if flag is None else flag.expand(self.z.shape[0])

    def _poll(self) -> Bools | None:
        """Read which samples go on, every few iterations; ``None`` if all, and in between."""
        if self.settings.fixed_budget or self._tally.iterations % self._every:
            return None
        self._tally.syncs += 1
        return self.judge.decide()

    def _stopped(self) -> bool:
        s = self.settings
        late = s.max_seconds is not None and (
            time.perf_counter() - self.evaluator.started > s.max_seconds
        )
        if late or (self.callback is not None and self.callback(self)):
            self._stop = ReturnCode.MAX_SECONDS
            return True
        return False

    def _drop(self, going: Bools) -> None:
        """Go on without the samples that ended, if samples are independent."""
        if self.unrolled or self.joint or going.all():
            return
        rows = np.flatnonzero(going)
        if self._divisible is None:
            self._divisible = self.evaluator.divisible(self.z, self.fz, rows)
            self.independent = self._divisible if self.independent is None else self.independent
            self._couple(not self._divisible)
        if self.joint:
            return
        self._weigh()
        self._pieces += self._learnt(np.flatnonzero(~going))
        kept = torch.from_numpy(rows).to(self.layout.device)
        self.evaluator.restrict(kept, rows)
        self.judge.restrict(kept, rows)
        self.z, self.fz, self._residual = self.z[kept], self.fz[kept], self._residual[kept]
        self._state = map_tensors(lambda t: t[kept], self._state)
        self._known = None if self._known is None else map_tensors(lambda t: t[kept], self._known)
        if self.settings.trace is not None:
            self._drops.append((len(self._trace), torch.from_numpy(self.evaluator.rows)))

    def _couple(self, coupled: bool) -> None:
        """Judge the samples together from now on, if they turned out to be coupled."""
        if coupled:
            self.joint = self.judge.joint = True
            self.judge.restart(self.z)
            self.judge.see(self.z, self.fz, self._residual, self.evaluations)
            if not self.settings.fixed_budget:
                self.judge.decide()

    def _weigh(self) -> None:
        if self._within:
            self.stats.history_bytes = None  # a transformed tensor does not say what it takes
        elif self._state is not None:
            held = self.solver.memory(self._state)
            self.stats.history_bytes = max(self.stats.history_bytes or 0, held)

    def _learnt(self, ended: Ints) -> list[tuple[Tensor, LowRank]]:
        """Return what the solver knows of samples that end (indices into the remaining ones)."""
        if not self._keeps or self._state is None or not len(ended):
            return []
        if self._keeps == "unsolved":
            ended = ended[self.judge.verdicts.code[ended] != ReturnCode.SUCCESS]
        inverse = self.solver.inverse(self._state) if len(ended) else None
        if not isinstance(inverse, LowRank):
            return []
        device = self.layout.device
        if self._one_row:  # coupled samples have one operator together
            return [(torch.zeros(1, dtype=torch.long, device=device), inverse)]
        samples = np.arange(self.problem.batch)[self.evaluator.rows]
        if len(ended) < len(samples):
            picked = torch.from_numpy(ended).to(device)
            inverse = map_tensors(lambda t: t[picked], inverse)
        return [(torch.from_numpy(samples[ended]).to(device), inverse)]

    def _concluded(self) -> Concluded:
        return self.judge.conclude(self._stop or ReturnCode.MAX_EVALUATIONS)

    @property
    def solution(self) -> Solution:
        """The solution so far: the best iterate of each sample, judged.

        Within ``torch.func.vmap`` its value is that of one copy, and all else is told of the
        samples of all copies, one copy after the other.
        """
        if not self.unrolled:
            return self._solution()
        z = self.z
        if self.graph and not self._recorded:
            with torch.no_grad():
                z = z.clone()  # the derivative of forward mode alone
        found = outside(self._solution) if self._within else self._solution()
        return replace(found, value=self.layout.unpack(z))

    def _solution(self) -> Solution:
        done, layout = self._concluded(), self.layout
        learnt = [*self._pieces]
        if not self._within:
            learnt += self._learnt(np.arange(self.z.shape[0]))
        return Solution(
            value=layout.unpack(done.value),
            residual=done.residual,
            scale=done.scale,
            retcode=done.code,
            ended=done.ended,
            stats=self._spent(len(done.code)),
            trace=self._stacked(),
            solver=self.solver,
            settings=self.settings,
            problem=self.problem.name,
            phase=self.phase,
            site=self.site,
            dtype=str(layout.dtype).removeprefix("torch."),
            device=str(layout.device),
            dim=layout.dim,
            inverse=gathered(learnt, 1 if self._one_row else self.problem.batch),
            samples_independent=self.independent,
        )

    def _spent(self, rows: int) -> Stats:
        """Return the counts, those a sample for the samples of all copies."""
        stats = self.stats
        counts = stats.sample_evaluations
        if not self._within or rows == len(counts):
            return stats
        return replace(stats, sample_evaluations=counts.repeat(rows // len(counts)))

    def _stacked(self) -> Trace | None:
        if self.settings.trace is None or not self._trace:
            return None
        evaluations, seconds, sizes = zip(*self._trace, strict=True)
        return Trace(
            torch.tensor(evaluations),
            torch.tensor(seconds, dtype=torch.float64),
            self._residuals(sizes),
            torch.tensor(self.judge.active(evaluations)),
        )

    def _residuals(self, sizes: Sequence[Tensor]) -> Tensor:
        """Return (K,) the largest of each point, or (K, B) with ended samples at their last."""
        ends = [0, *(k for k, _ in self._drops), len(sizes)]
        rows: list[slice | Tensor] = [slice(None)]
        rows += [rows.to(self.layout.device) for _, rows in self._drops]
        found: list[Tensor] = []
        for k, (first, last) in enumerate(itertools.pairwise(ends)):
            if first == last:
                continue
            block = torch.stack(tuple(sizes[first:last]))
            if self.settings.trace == "summary":
                block = block.amax(dim=1)
            elif k and found:
                whole = found[-1][-1].repeat(last - first, 1)
                whole[:, rows[k]] = block
                block = whole
            found.append(block)
        return torch.cat(found)


def per_sample(value: Tensor | float | None, layout: Layout, batch: int) -> Tensor | None:
    """Return a number or a tensor (B,) as a tensor (B,)."""
    if value is None:
        return None
    real = torch.float64 if layout.dtype == torch.float64 else torch.float32
    if not isinstance(value, Tensor):
        return torch.full((batch,), value, dtype=real, device=layout.device)
    given = value.to(layout.device, real)
    if given.dim() > 1 or (given.dim() == 1 and given.shape[0] != batch):
        raise ValueError(f"scale has shape {tuple(given.shape)}, expected a number or ({batch},)")
    return given.expand(batch)
