"""A chain of solvers: each takes over the samples that the one before it left unsolved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from solvers.options import OptionError
from solvers.problem import Layout, Problem
from solvers.registries import Registry
from solvers.solution import ReturnCode, Solution, Stats
from solvers.solver import BaseSolver

if TYPE_CHECKING:
    from solvers.loop import Iteration, Settings

# The part of what is left of the budget that a solver may use while another one waits behind it.
SHARE = 0.6


def default_solver() -> Fallback:
    """Return what ``solver=None`` means: ``Fallback((Anderson(), Broyden(), NewtonKrylov()))``."""
    return Fallback()


def _recommended() -> tuple[BaseSolver, ...]:
    from solvers.anderson import Anderson
    from solvers.broyden import Broyden
    from solvers.newton_krylov import NewtonKrylov

    return Anderson(), Broyden(), NewtonKrylov()


def _registry() -> Registry[BaseSolver]:
    from solvers import registry

    return registry


@dataclass(frozen=True)
class Fallback(BaseSolver):
    """Try solvers in turn; the next one starts from the best iterates of the one before.

    While another solver waits, one may use at most 60 % of the evaluations that are left. Counts
    are merged; every attempt is kept in ``solution.attempts``.

    Parameters
    ----------
    solvers
        Solver objects, at least one; by default Anderson, Broyden, NewtonKrylov.
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
        callback: Callable[[Iteration], object] | None,
        differentiable: bool,
        **keywords: Any,
    ) -> Solution:
        """Solve ``problem`` by the chain; keywords are those of ``solvers.loop.run``."""
        from solvers.loop import run

        attempts: list[Solution] = []
        left = settings.max_evaluations
        started = time.perf_counter()
        whole: Solution | None = None
        for k, solver in enumerate(self.solvers):
            last = k == len(self.solvers) - 1
            budget = left if last else max(1, int(SHARE * left))
            seconds = settings.max_seconds
            if seconds is not None:
                seconds = max(seconds - (time.perf_counter() - started), 1e-9)
            solution = run(
                problem,
                solver,
                replace(settings, max_evaluations=budget, max_seconds=seconds),
                callback=callback,
                differentiable=differentiable,
                quiet=True,
                **keywords,
            )
            attempts.append(solution)
            whole = solution if whole is None else _better(whole, solution, differentiable)
            left -= solution.stats.evaluations
            stopped = bool((solution.retcode == ReturnCode.MAX_SECONDS).any())
            if whole.success or left < 1 or stopped:
                break
            if solution.samples_independent is not None:
                problem = replace(  # type: ignore[type-var]  # both problems are dataclasses
                    problem, samples_independent=solution.samples_independent
                )
            if not differentiable:
                problem = replace(problem, z0=whole.value)  # type: ignore[type-var]
        assert whole is not None  # there is at least one solver
        return replace(
            whole,
            stats=merged([a.stats for a in attempts]),
            solver=self,
            settings=settings,
            attempts=tuple(attempts),
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

    return replace(
        new,
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
