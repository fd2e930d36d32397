"""Reversible: an iteration that can be run backwards, so that its gradient needs no history.

RevDEQ's two states y and z, with β = ``mixing``,

    y ← (1 − β) y + β f(z),    z ← (1 − β) z + β f(y),

are one sequence x₋₁ = x₀ = z₀ of which every point but the last two can be forgotten:

    xₖ₊₁ = (1 − β) xₖ₋₁ + β f(xₖ),    xₖ₋₁ = (xₖ₊₁ − β f(xₖ)) / (1 − β).

The backward runs the second formula, and with the cotangents aₖ of xₖ, on the graph of that one
evaluation,

    aₖ ← aₖ + β J(xₖ)ᵀ aₖ₊₁,    aₖ₋₁ ← (1 − β) aₖ₊₁,    dL/dθ ← dL/dθ + β (∂f/∂θ)ᵀ aₖ₊₁.

What rounding loses forwards grows backwards: in a pair of steps at most ((1 + β‖J‖) / |1 − β|)²
fold, and at least 1 / |1 − β| fold. So the states are kept as sums of two float64 numbers, while f
is evaluated in the model's precision; and a solve has a budget of pairs, beyond which the way back
is lost. A single float64 is less than it seems: where a point is rounded for f, an error of 1e-12
changes the last bit of one float32 among 10⁵, and that grows in its turn.

Reference: S. McCallum et al., Reversible Deep Equilibrium Models (2025), arXiv 2509.12917.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor

from implicit.explicit import explicit
from implicit.gradients.base import Gradient, Request
from implicit.gradients.doubled import Doubled, doubled, precision
from solvers.evaluation import transformed
from solvers.history import small_dtype
from solvers.loop import Iteration
from solvers.options import OptionError
from solvers.problem import FixedPointProblem, Layout, Problem, RootProblem
from solvers.solution import AdjointRecord, Solution, Stats
from solvers.solver import Linearise, Solver

# The start as it is rebuilt may differ from the start as it was by so much of the state's length.
LOST = 1e-9
# How far from the nearest one a point is shown, in units of the rounding: see `shown`.
OFF = 0.618034 / 8

Mixing = Annotated[float, Field(gt=0, lt=2)]


class ReconstructionError(RuntimeError):
    """The way back is lost in rounding: there is no gradient."""


class Pair(NamedTuple):
    """The last two points (B, D)."""

    now: Doubled
    before: Doubled


def shown(x: Doubled, dtype: torch.dtype) -> Tensor:
    """Return a point as f sees it, in a lower precision than it has.

    Mixtures of a few numbers of low precision lie just in the middle of two of them far too often,
    where the last bit, which the way back loses first, decides between the two. So they are
    rounded a little off the middle, at an irrational part of their distance.
    """
    return (x.high + (x.low + x.high * (OFF * torch.finfo(dtype).eps))).to(dtype)


def wide(z: Tensor) -> Doubled:
    """Return a point in the precision of the states."""
    return doubled(z.to(small_dtype(z)))


def _check_mixing(mixing: float) -> None:
    if mixing == 1:
        raise OptionError("mixing = 1.0: forgets the point before, and has no way back; not 1")


@dataclass(frozen=True)
class ReversibleIteration(Solver):
    """The iteration x ← (1 − β) x₋₁ + β f(x), which :class:`Reversible` brings along.

    Parameters
    ----------
    mixing
        β in (0, 2), not 1.
    """

    mixing: Mixing = 0.5

    name: ClassVar[str] = "reversible"
    reference: ClassVar[str] = "McCallum et al. 2025"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        _check_mixing(self.mixing)

    def init(self, z: Tensor, fz: Tensor) -> Pair:
        """Return the start, twice."""
        return Pair(wide(z), wide(z))

    def step(self, state: Pair, z: Tensor, fz: Tensor, linearise: Linearise) -> tuple[Tensor, Pair]:
        """Return the next point in the precision of z, and the last two."""
        new = state.before.times(1 - self.mixing).plus(wide(fz).times(self.mixing))
        return shown(new, z.dtype), Pair(new, state.now)


@dataclass(frozen=True)
class Reversible(Gradient):
    """The exact gradient of RevDEQ's own iteration, with two points as all its memory.

    It goes until the tolerance is met or the evaluations are spent, and its gradient, in args,
    params and z0, is that of the last point, as ``Unrolled`` would give it. Where so many steps
    were taken that the way back is lost, :class:`ReconstructionError` says so, after the solve or
    in the backward, which compares the start that it arrives at with the true one. At spectral
    radius 0.9, ``mixing=0.5`` goes back 70 pairs of steps of a float32 model and 56 of a float64
    one, ``mixing=0.8`` 28 and 24.

    It brings its own iteration: the solver must be ``None``. ``compile`` is left aside, since the
    way back needs the very numbers of the way there. For second derivatives, transforms of
    ``torch.func`` and forward mode use ``Unrolled`` or ``Implicit``.

    Parameters
    ----------
    mixing
        β in (0, 2), not 1. The farther from 1, the more steps can be gone back; the nearer to 0 or
        2, the slower is the way there.
    """

    mixing: Mixing = 0.5

    name: ClassVar[str] = "reversible"
    requires: ClassVar[frozenset[str]] = frozenset({"own"})
    reference: ClassVar[str] = "McCallum et al. 2025"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        _check_mixing(self.mixing)

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve by the reversible iteration; the value's backward runs it back.

        Raises
        ------
        OptionError
            If a solver is given.
        RuntimeError
            Inside a transform of ``torch.func``.
        ReconstructionError
            If the way back is lost.
        """
        own = ReversibleIteration(self.mixing)
        if request.solver not in (None, own):
            raise OptionError(
                f"solver = {request.solver.name}: the gradient reversible brings its own iteration;"
                " give solver=None, or another gradient"
            )
        if transformed():
            raise _no_rule("the transforms of torch.func")
        settings = replace(request.settings, compile=False)
        request = replace(request, solver=own, settings=settings)
        if not torch.is_grad_enabled():
            return request.run(problem, differentiable=True)
        given = explicit(problem)
        way = Way(self.mixing, given, request)
        tensors = (*given.args, *given.params)
        z = _Reversed.apply(way, way.layout.pack(given.z0), *tensors)  # type: ignore[no-untyped-call]
        solution, way.solution = cast(Solution, way.solution), None
        return replace(solution, value=way.layout.unpack(z), record=way.record)


class Way:
    """The way of a solve, there and back, with the tensors given each time.

    Attributes
    ----------
    layout, record
        The structure of the state, and where the counts of the backward are left.
    solution
        That of the forward, until it is fetched.
    """

    def __init__(self, mixing: float, problem: Problem, request: Request) -> None:
        self.layout, self.record = Layout(problem.z0), AdjointRecord()
        self.solution: Solution | None = None
        self._mixing, self._request = mixing, cast("Request | None", request)
        self._function, self._name = problem.function, problem.name
        self._is_root = isinstance(problem, RootProblem)
        self._args, self._independent = len(problem.args), problem.samples_independent
        self._steps = 0

    def there(self, z0: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Pair]:
        """Solve; return the last point (B, D) and the last two."""
        kind = RootProblem if self._is_root else FixedPointProblem
        problem = kind(
            self._function,
            self.layout.unpack(z0),
            tuple(tensors[: self._args]),
            tuple(tensors[self._args :]),
            samples_independent=self._independent,
            name=self._name,
        )
        states: list[Pair | None] = []

        def drive(iteration: Iteration) -> None:
            iteration.finish()
            states.append(iteration.state)

        request, self._request = cast(Request, self._request), None
        self.solution = request.run(problem, differentiable=True, drive=drive)
        state = states[-1] or Pair(wide(z0), wide(z0))
        # A state of coupled samples is one row.
        pair = Pair(*(x.reshape(*z0.shape) for x in state))
        self._steps = self.solution.stats.iterations
        pairs, eps = self._steps / 2, precision(pair.now.high.dtype)
        growth = 1 / abs(1 - self._mixing)
        if pairs * math.log(growth) > math.log(LOST / eps):
            most = int(math.log(LOST / eps) / math.log(growth))
            raise self._lost(
                f"rounding of {eps:.0e} grows at least {growth:.3g} fold in each",
                f"at most {most} pairs (max_evaluations={2 * most})",
            )
        return self.layout.pack(self.solution.value).clone(), pair

    def back(
        self,
        cotangent: Tensor,
        z0: Tensor,
        pair: Pair,
        tensors: Sequence[Tensor],
        wanted: Sequence[int],
    ) -> list[Tensor]:
        """Return the gradients of z0 and of the ``wanted`` tensors."""
        started = time.perf_counter()
        given = [t.detach() for t in tensors]
        leaves = [given[k].requires_grad_() for k in wanted]
        totals = [torch.zeros_like(t) for t in leaves]
        dtype, beta = self.layout.dtype, self._mixing
        after, now = pair
        later = after
        c_after = cotangent.to(now.high.dtype)
        c_now = torch.zeros_like(c_after)
        for _ in range(self._steps):
            with torch.enable_grad():
                point = self._rounded(now).requires_grad_()
                fz = self._evaluate(point, given)
            if fz.requires_grad:
                found = torch.autograd.grad(
                    fz, (point, *leaves), (beta * c_after).to(dtype), materialize_grads=True
                )
                c_now = c_now + found[0]
                totals = [total + g for total, g in zip(totals, found[1:], strict=True)]
            before = after.minus(wide(fz.detach()).times(beta)).over(1 - beta)
            later, after, now = after, now, before
            c_after, c_now = c_now, (1 - beta) * c_after
        self._compare(wide(z0), after, now, later)
        rows = z0.shape[0]
        self.record.stats = Stats(
            evaluations=self._steps,
            sample_evaluations=torch.full((rows,), self._steps, device=z0.device),
            vjps=self._steps,
            iterations=self._steps,
            seconds=time.perf_counter() - started,
            syncs=1,
        )
        return [(c_after + c_now).to(dtype), *totals]

    def _rounded(self, x: Doubled) -> Tensor:
        """Return a point as the loop had it: a state in half precision goes through float32."""
        dtype = self.layout.dtype
        half = dtype in (torch.float16, torch.bfloat16)
        return shown(x, torch.float32 if half else dtype).to(dtype).detach()

    def _evaluate(self, z: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        layout = self.layout
        out = self._function(layout.unpack(z), *tensors)
        value = layout.pack(layout.check(out, z.shape[0], 1, any_float=True))
        value = z + value if self._is_root else value
        # As the loop hands it to the solver.
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def _compare(self, start: Doubled, first: Doubled, second: Doubled, after: Doubled) -> None:
        """Raise if the two points that the way back ends at are not the start.

        Their distance is measured by the length of the point after it, where the start has none.
        """

        def length(x: Doubled) -> Tensor:
            found: Tensor = torch.linalg.vector_norm(x.high + x.low, dim=1)
            return found

        size = torch.maximum(length(start), length(after))
        gap = torch.maximum(length(first.minus(start)), length(second.minus(start)))
        error = float(torch.where(gap == 0, 0.0, gap / size).nan_to_num(nan=torch.inf).amax())
        if error > LOST:
            eps = precision(start.high.dtype)
            fold = (error / eps) ** (2 / self._steps) if math.isfinite(error) else error
            raise self._lost(
                f"the start came back with a relative error of {error:.1e}, so that rounding grew"
                f" about {fold:.3g} fold in each",
                "fewer evaluations",
            )

    def _lost(self, what: str, remedy: str) -> ReconstructionError:
        return ReconstructionError(
            f"the gradient reversible cannot go back {math.ceil(self._steps / 2)} pairs of steps"
            f" with mixing = {self._mixing}: {what} (the bound is ((1 + β‖J‖) / |1 − β|)²). Use"
            f" {remedy}, a mixing farther from 1, or the gradient Checkpointed or Implicit"
        )


class _Reversed(torch.autograd.Function):
    """The last point of the iteration as a function of its start and its tensors."""

    @staticmethod
    def forward(ctx: Any, way: Way, z0: Tensor, *tensors: Tensor) -> Tensor:
        """Solve, and keep the last two points."""
        value, pair = way.there(z0.detach(), [t.detach() for t in tensors])
        ctx.way = way
        ctx.save_for_backward(z0, *pair.now, *pair.before, *tensors)
        return value

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Run the iteration back."""
        z0, *rest = ctx.saved_tensors  # read once: a checkpoint gives them no second time
        four, tensors = rest[:4], rest[4:]
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        with torch.no_grad():
            pair = Pair(Doubled(*four[:2]), Doubled(*four[2:]))
            found = ctx.way.back(cotangents[0].detach(), z0.detach(), pair, tensors, wanted)
        if torch.is_grad_enabled():
            inputs = (cotangents[0], z0, *tensors)
            found = _Once.apply(len(found), *found, *inputs)  # type: ignore[no-untyped-call]
        gradients: list[Tensor | None] = [None] * len(tensors)
        for k, gradient in zip(wanted, found[1:], strict=True):
            gradients[k] = gradient
        return None, found[0], *gradients

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        """Refuse."""
        raise _no_rule("forward mode (jvp)")


class _Once(torch.autograd.Function):
    """The identity on gradients, which depend on the inputs behind them in a way not known."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Any:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise _no_rule("a second derivative")


def _no_rule(what: str) -> RuntimeError:
    return RuntimeError(
        f"the gradient reversible has no rule for {what}: use the gradient Unrolled or Implicit"
    )
