"""A chain of solvers: each takes over the samples that the one before it left unsolved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from solvers.inverse import LowRank, gathered
from solvers.options import OptionError
from solvers.problem import Layout, Problem, RootProblem, State, parts
from solvers.registries import Registry
from solvers.solution import ReturnCode, Solution, Stats
from solvers.solver import BaseSolver, Solver, map_tensors

if TYPE_CHECKING:
    from solvers.inverse import Inverse
    from solvers.loop import Iteration, Settings

# The part of what is left of the budget that a solver may use while another one waits behind it.
SHARE = 0.6


def default_solver() -> Fallback:
    """Return what ``solver=None`` means, ``Fallback()``."""
    return Fallback()


def _recommended() -> tuple[BaseSolver, ...]:
    from solvers.broyden import Broyden
    from solvers.newton import Newton
    from solvers.newton_krylov import NewtonKrylov

    return Broyden(), NewtonKrylov(), Newton()


def _registry() -> Registry[BaseSolver]:
    from solvers import registry

    return registry


@dataclass(frozen=True)
class Fallback(BaseSolver):
    """Try solvers in turn; each takes over the samples that are still unsolved.

    A sample whose budget ran out goes on from its best iterate; one that stalled, diverged or broke
    down begins anew at the problem's own start, away from what trapped it. While another solver
    waits, one may use at most 60 % of the evaluations that are left; a fixed budget is the first
    one's alone, since whom to hand on cannot be told without a read. Counts are merged; every
    attempt is kept in ``solution.attempts``, where the samples that it was spared stand as they
    were, at no cost. An estimate of the inverse Jacobian that one solver leaves goes to the next.

    Parameters
    ----------
    solvers
        Solver objects, at least one; by default Broyden, NewtonKrylov, Newton, the last of which
        is left out where the state is larger than its ``max_dim``.
    """

    solvers: tuple[BaseSolver, ...] = field(
        default_factory=_recommended, metadata={"registry": _registry}
    )

    name: ClassVar[str] = "fallback"

    def __post_init__(self) -> None:
        """Check that there is a solver, and that all are solvers."""
        object.__setattr__(self, "solvers", tuple(self.solvers))
        if not self.solvers or not all(isinstance(s, BaseSolver) for s in self.solvers):
            raise OptionError(f"solvers = {self.solvers!r}: expected one or more solver objects")

    def attempt(
        self,
        problem: Problem,
        settings: Settings,
        *,
        inverse: Inverse | None,
        callback: Callable[[Iteration], object] | None,
        differentiable: bool,
        keep_inverse: bool | Literal["unsolved"],
        scale: Tensor | float | None,
        **keywords: Any,
    ) -> Solution:
        """Solve ``problem`` by the chain; keywords are those of ``solvers.loop.run``."""
        from solvers.loop import run

        attempts: list[Solution] = []
        left = settings.max_evaluations
        started = time.perf_counter()
        whole: Solution | None = None
        rows: Tensor | None = None
        chain = list(self.solvers)
        default = self.solvers == _recommended()
        while chain:
            solver = chain.pop(0)
            if default and attempts and not _fits(solver, problem):
                continue
            part, given, known = problem, scale, inverse
            if whole is not None and not differentiable:
                rows, near = _unsolved(whole), _near(whole)
                part = _further(problem, whole, near, rows)
                given, known = _of(scale, rows), _of(_trusted(whole.inverse, near), rows)
                if scale is None and isinstance(problem, RootProblem):
                    # ‖g‖ at the problem's start, wherever this one is.
                    given = _of(attempts[0].scale, rows)
            seconds = settings.max_seconds
            if seconds is not None:
                seconds = max(seconds - (time.perf_counter() - started), 1e-9)
            if settings.fixed_budget:
                chain.clear()  # whom the next one would have to help cannot be told unread
            budget = max(1, int(SHARE * left)) if chain else left
            allowed = replace(settings, max_evaluations=budget, max_seconds=seconds)
            solution = run(
                part,
                solver,
                allowed,
                start=None if known is None else _start(part, known, solver, allowed),
                scale=given,
                callback=callback,
                differentiable=differentiable,
                keep_inverse=keep_inverse or (bool(chain) and not differentiable and "unsolved"),
                quiet=True,
                **keywords,
            )
            if whole is not None and rows is not None:
                solution = _spread(solution, whole, rows)
            attempts.append(solution)
            whole = solution if whole is None else _better(whole, solution, differentiable)
            left -= solution.stats.evaluations
            if settings.fixed_budget:
                break
            codes = solution.retcode.tolist()
            solution.stats.syncs += 1
            stopped = ReturnCode.MAX_SECONDS in codes
            if whole.success or left < 1 or stopped:
                break
            if solution.samples_independent is not None:
                problem = replace(  # type: ignore[type-var]  # both problems are dataclasses
                    problem, samples_independent=solution.samples_independent
                )
        assert whole is not None  # there is at least one solver
        if not keep_inverse:
            whole = replace(whole, inverse=None)
            attempts = [replace(a, inverse=None) for a in attempts]
        return replace(
            whole,
            stats=merged([a.stats for a in attempts]),
            solver=self,
            settings=settings,
            attempts=tuple(attempts),
        )


def leaves_inverse(solver: BaseSolver) -> bool:
    """Whether a solver learns something of (I − J)⁻¹ on its way; of a chain, whether one does."""
    if isinstance(solver, Fallback):
        return any(map(leaves_inverse, solver.solvers))
    return isinstance(solver, Solver) and type(solver).inverse is not Solver.inverse


def _fits(solver: BaseSolver, problem: Problem) -> bool:
    """Whether the solver accepts a state of this size; coupled samples are one state."""
    most = getattr(solver, "max_dim", None)
    together = 1 if problem.samples_independent else problem.batch
    return most is None or Layout(problem.z0).dim * together <= most


def _of(x: Any, rows: Tensor | None) -> Any:
    """Return the rows of what has some: an operator, or a tensor (B,)."""
    if rows is None or (isinstance(x, Tensor) and not x.dim()):
        return x
    return map_tensors(lambda t: t[rows.to(t.device)], x)


def _unsolved(whole: Solution) -> Tensor | None:
    """Return the samples that are unsolved, ``None`` if all have to go on."""
    if whole.samples_independent is not True:
        return None
    return torch.nonzero(whole.retcode != ReturnCode.SUCCESS)[:, 0]


def _near(whole: Solution) -> Tensor:
    """Return which samples go on from their best iterates: those whose budget ran out.

    What stalled, diverged or broke down is in a place that traps the next solver too.
    """
    near = whole.retcode == ReturnCode.MAX_EVALUATIONS
    together = whole.samples_independent is not True
    return near.any().expand_as(near) if together else near


def _trusted(inverse: Any, near: Tensor) -> LowRank | None:
    """Return the inverse for the samples that go on from where it was found, else the identity."""
    if not isinstance(inverse, LowRank) or not bool(near.any()):
        return None
    near = near[: len(inverse.scale)]  # coupled samples, all near or none, have one together
    middle = torch.where(near[:, None, None], inverse.middle, 0.0)
    return inverse._replace(scale=torch.where(near, inverse.scale, 1.0), middle=middle)


def _further(problem: Problem, whole: Solution, near: Tensor, rows: Tensor | None) -> Problem:
    """Return the problem of some samples, each at the start of its next attempt."""

    def chosen(best: Tensor, first: Tensor) -> Tensor:
        picked = torch.where(near.reshape(-1, *(1,) * (best.dim() - 1)), best, first)
        return picked if rows is None else picked[rows]

    pairs = zip(parts(whole.value), parts(problem.z0), strict=True)
    starts = tuple(chosen(best, first.detach()) for best, first in pairs)
    z0: State = starts if isinstance(problem.z0, tuple) else starts[0]
    args = problem.args if rows is None else tuple(a[rows] for a in problem.args)
    return replace(problem, z0=z0, args=args, solutions=())  # type: ignore[type-var]


def _start(problem: Problem, inverse: Any, solver: BaseSolver, settings: Settings) -> Solution:
    """Return what hands an inverse over to a solver: a solution at the start, not yet judged."""
    size = torch.full((problem.batch,), torch.inf, device=Layout(problem.z0).device)
    none = torch.full_like(size, int(ReturnCode.MAX_EVALUATIONS), dtype=torch.long)
    return Solution(
        problem.z0, size, size, none, none, Stats(), None, solver, settings, inverse=inverse
    )


def _spread(part: Solution, whole: Solution, rows: Tensor) -> Solution:
    """Return the solution of some samples as one of the batch, the others as they were."""
    layout = Layout(whole.value)

    def put(old: Tensor, new: Tensor) -> Tensor:
        out = old.clone()
        out[rows.to(out.device)] = new.to(out.dtype)
        return out

    counts = torch.zeros_like(whole.stats.sample_evaluations)
    counts = put(counts, part.stats.sample_evaluations)
    trace = part.trace
    if trace is not None and trace.residual.dim() > 1:
        wide = whole.residual.to(trace.residual.dtype).repeat(len(trace.residual), 1)
        wide[:, rows] = trace.residual
        trace = replace(trace, residual=wide)
    inverse = part.inverse
    if isinstance(inverse, LowRank):
        inverse = gathered([(rows, inverse)], whole.batch)
    return replace(
        part,
        value=layout.unpack(put(layout.pack(whole.value), layout.pack(part.value))),
        residual=put(whole.residual, part.residual),
        scale=put(whole.scale, part.scale),
        retcode=put(whole.retcode, part.retcode),
        ended=put(whole.ended, part.ended),
        stats=replace(part.stats, sample_evaluations=counts),
        trace=trace,
        inverse=inverse,
    )


def _better(old: Solution, new: Solution, whole_batch: bool) -> Solution:
    """Return the samples of ``new`` where they are solved or nearer, else those of ``old``."""
    if whole_batch or new.samples_independent is False:
        return new if new.worst <= old.worst else old
    better = (new.retcode == ReturnCode.SUCCESS) | (new.residual < old.residual)
    layout = Layout(old.value)
    value = torch.where(better[:, None], layout.pack(new.value), layout.pack(old.value))

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(better, b, a)

    inverse = _trusted(old.inverse, ~better | _near(old)) if new.inverse is None else new.inverse
    if isinstance(new.inverse, LowRank) and isinstance(old.inverse, LowRank):
        kept, taken = torch.nonzero(~better)[:, 0], torch.nonzero(better)[:, 0]
        pieces = [(kept, _of(old.inverse, kept)), (taken, _of(new.inverse, taken))]
        inverse = gathered(pieces, old.batch)
    return replace(
        new,
        inverse=inverse,
        value=layout.unpack(value),
        residual=pick(old.residual, new.residual),
        scale=pick(old.scale, new.scale),
        retcode=pick(old.retcode, new.retcode),
        ended=pick(old.ended, new.ended),
    )


def merged(stats: Sequence[Stats]) -> Stats:
    """Return the counts of several solves of one problem, added."""
    return Stats(
        evaluations=sum(s.evaluations for s in stats),
        sample_evaluations=torch.stack([s.sample_evaluations for s in stats]).sum(dim=0),
        jvps=sum(s.jvps for s in stats),
        vjps=sum(s.vjps for s in stats),
        iterations=sum(s.iterations for s in stats),
        seconds=sum(s.seconds for s in stats),
        syncs=sum(s.syncs for s in stats),
        history_bytes=max(
            (s.history_bytes for s in stats if s.history_bytes is not None), default=None
        ),
    )
