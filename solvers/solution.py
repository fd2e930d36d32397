"""Solutions: the value, and everything that tells how far to trust it."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.problem import State

if TYPE_CHECKING:
    from solvers.loop import Settings
    from solvers.solver import BaseSolver


class ReturnCode(enum.IntEnum):
    """How a sample's solve ended; the names go into the store. Larger is worse."""

    SUCCESS = 0
    MAX_EVALUATIONS = 1
    MAX_SECONDS = 2
    STALLED = 3
    DIVERGED = 4
    NONFINITE = 5
    LINEAR_SOLVE_FAILED = 6
    FAILURE = 7

    @property
    def sentence(self) -> str:
        """What happened, and what to try."""
        return _SENTENCES[self]


_SENTENCES = {
    ReturnCode.SUCCESS: "the residual at the returned point meets the tolerance",
    ReturnCode.MAX_EVALUATIONS: "the evaluations ran out: raise max_evaluations, loosen the"
    " tolerance, or try another solver",
    ReturnCode.MAX_SECONDS: "the time ran out, or the callback stopped the solve: raise"
    " max_seconds or loosen the tolerance",
    ReturnCode.STALLED: "the residual stopped falling: the tolerance may lie below what the dtype"
    " can reach, so loosen it or use float64; else try another solver",
    ReturnCode.DIVERGED: "the residual grew without bound: start nearer, damp with mixing < 1, or"
    " try Anderson, Broyden or NewtonKrylov",
    ReturnCode.NONFINITE: "the function returned NaN or infinity: look at its input there, or damp"
    " the steps",
    ReturnCode.LINEAR_SOLVE_FAILED: "the linear solve of a step failed, as with a singular"
    " Jacobian: start elsewhere or try Anderson or Broyden",
    ReturnCode.FAILURE: "the solver gave up: its own message is in `original`",
}


@dataclass
class Stats:
    """What a solve cost.

    Attributes
    ----------
    evaluations
        Calls of f on the batch, the first, the last and every trace included.
    sample_evaluations
        (B,) evaluations that each sample took part in: what freezing saves.
    jvps, vjps
        Products with the Jacobian and with its transpose, on the batch; those of a splitting with
        its resolvent count as ``jvps``.
    iterations
        Steps of the solver.
    seconds
        Wall time of the solve, in seconds.
    syncs
        Reads of the device, copies to the host included.
    history_bytes
        The most that the solver's own state took, in bytes; ``None`` if a foreign one hides it.
    """

    evaluations: int = 0
    sample_evaluations: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    jvps: int = 0
    vjps: int = 0
    iterations: int = 0
    seconds: float = 0.0
    syncs: int = 0
    history_bytes: int | None = 0


@dataclass
class Trace:
    """The course of a solve, an entry an evaluated point.

    Attributes
    ----------
    evaluations
        (K,) evaluations so far (products so far, in an adjoint by a linear solver).
    seconds
        (K,) seconds so far; on an accelerator exact where the loop read it.
    residual
        (K,) the largest residual norm of the active samples, or (K, B).
    active
        (K,) samples still being solved.
    """

    evaluations: Tensor
    seconds: Tensor
    residual: Tensor
    active: Tensor


@dataclass
class AdjointRecord:
    """What a backward pass leaves; it refers to no graph, so that nothing lives on.

    Attributes
    ----------
    adjoint
        The solution of its linear solve.
    stats
        What it cost where it estimates the adjoint, and solves nothing.
    certificate
        How inexact the gradient may be (:class:`implicit.Certificate`).
    """

    adjoint: Solution | None = None
    stats: Stats | None = None
    certificate: Any = None


@dataclass(eq=False)
class Solution:
    """The result of ``solve``.

    Attributes
    ----------
    value
        The returned state: the best iterate of each sample.
    residual
        (B,) norm of f(z) - z, or of g(z), at the returned point.
    scale
        (B,) what ``reltol`` was multiplied with.
    retcode
        (B,) int tensor of :class:`ReturnCode`.
    ended
        (B,) the evaluation at which each sample ended.
    stats, trace
        What it cost and how it went.
    solver, settings
        How it was solved.
    problem, phase, site
        The problem's name; ``forward``, ``adjoint`` or ``tangent``; the layer's name.
    original
        A wrapped library's own result.
    attempts
        The solutions of a ``Fallback``, one a solver tried.
    inverse
        The solver's estimate of the inverse Jacobian, as an operator, if it has one.
    samples_independent
        What was declared or found out; ``None`` if it never mattered.
    """

    value: State
    residual: Tensor
    scale: Tensor
    retcode: Tensor
    ended: Tensor
    stats: Stats
    trace: Trace | None
    solver: BaseSolver
    settings: Settings
    problem: str = ""
    phase: str = "forward"
    site: str = ""
    dtype: str = ""
    device: str = ""
    dim: int = 0
    original: Any = None
    attempts: tuple[Solution, ...] = ()
    inverse: Any = None
    samples_independent: bool | None = None
    record: AdjointRecord = field(default_factory=AdjointRecord)

    @property
    def adjoint(self) -> Solution | None:
        """The solution of the backward solve, once backward has run."""
        return self.record.adjoint

    @property
    def certificate(self) -> Any:
        """The estimate of the gradient's relative error, once backward has run."""
        return self.record.certificate

    @property
    def batch(self) -> int:
        """The number of samples."""
        return int(self.retcode.shape[0])

    @property
    def success(self) -> bool:
        """Whether every sample met the tolerance."""
        return bool((self.retcode == ReturnCode.SUCCESS).all())

    @property
    def counts(self) -> dict[str, int]:
        """How many samples ended with each return code."""
        codes = Counter(self.retcode.tolist())
        return {ReturnCode(code).name: codes[code] for code in sorted(codes)}

    @property
    def worst(self) -> ReturnCode:
        """The worst return code of the batch."""
        return ReturnCode(int(self.retcode.max())) if self.batch else ReturnCode.SUCCESS

    @property
    def message(self) -> str:
        """One sentence about the worst samples: what happened, where, and what to try."""
        worst = self.worst
        if worst is ReturnCode.SUCCESS:
            return f"SUCCESS: {worst.sentence}"
        failed = [i for i, code in enumerate(self.retcode.tolist()) if code == worst]
        first = failed[0]
        tolerance = self.settings.abstol + self.settings.reltol * float(self.scale[first])
        where = (
            f"sample {first}"
            if len(failed) == 1
            else f"{len(failed)} of {self.batch} samples, first {first}"
        )
        text = (
            f"{worst.name}: {where}, at evaluation {int(self.ended[first])}, residual"
            f" {float(self.residual[first]):.2e} against a tolerance of {tolerance:.2e};"
            f" {worst.sentence}"
        )
        # The budget of a linear system is one of products with its matrix.
        return text if self.phase == "forward" else text.replace("evaluation", "product")

    def __repr__(self) -> str:
        """Summarise in a line."""
        return (
            f"Solution({self.solver.name}, {self.counts}, evaluations={self.stats.evaluations},"
            f" seconds={self.stats.seconds:.3g})"
        )
