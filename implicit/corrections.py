"""Fixed-point correction: a loss on iterates of the solve, beside that on the equilibrium.

    L = Σ_i γ^{n−i} ℓ(z_i),     i = 1 … n, the last of which is z*

Each iterate gets the cheap gradient of a few damped steps from where it was found, z ← (1 − λ) z +
λ f(z), so that no path through the solver is kept. The iterates are drawn to the target early,
which makes a solve that is cut off more useful, and the next ones shorter.

Reference: S. Bai, Z. Geng, Y. Savani, J. Z. Kolter, Deep Equilibrium Optical Flow Estimation, CVPR
(2022), section 3.3; Z. Geng, J. Z. Kolter, TorchDEQ, arXiv:2310.18605 (2023), for several states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor

from implicit.gradients import Implicit
from implicit.gradients.base import Gradient, Request
from implicit.layer import DEQ
from solvers.loop import Iteration
from solvers.options import Options
from solvers.problem import Layout, Problem, RootProblem, State
from solvers.solution import Solution

__all__ = ["Watch", "correction_loss"]

AnyState = TypeVar("AnyState", bound=State)


def correction_loss(
    states: Sequence[AnyState], loss: Callable[[AnyState], Tensor], discount: float = 0.8
) -> Tensor:
    """Return Σ_i discount^{n−i} loss(z_i): the last of the n states has weight 1.

    Parameters
    ----------
    states
        In the order of the solve, the equilibrium last.
    loss
        State -> scalar.
    discount
        γ, from 0 (the last state alone, 0⁰ being 1) to 1 (all alike).

    Raises
    ------
    ValueError
        If there are no states, or the discount is out of its range.
    """
    if not states:
        raise ValueError("states is empty: give the states in their order, the equilibrium last")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount = {discount}: expected a number from 0 to 1")
    last = len(states) - 1
    return torch.stack([discount ** (last - k) * loss(z) for k, z in enumerate(states)]).sum()


@dataclass(frozen=True)
class _How(Options):
    """The options of a watch, checked."""

    at: Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=1)], ...]
    steps: Annotated[int, Field(ge=1)]
    mixing: Annotated[float, Field(gt=0, le=1)]


class Watch:
    """Watches one solve: its problem, and some of its iterates.

    With a layer, which returns what it always does::

        watch = Watch(at=3)
        with watch.on(layer):
            z = layer(x)
        loss = correction_loss((*watch.states(), z), criterion, discount=0.8)

    With :func:`implicit.solve`, the gradient is what is wrapped::

        solution = implicit.solve(problem, Anderson(), watch.gradient(Implicit()))

    ``problem`` is what was solved, its function the same map still, masks of dropout and statistics
    of a batch included: ``jacobian_penalty(watch.problem, z)``. Nothing of it is kept by the layer,
    so that all goes with the watch.

    Parameters
    ----------
    at
        Which points of the solve: numbers of evaluated points, 1 being the start; or how many,
        spread evenly over the solve, before its last point. The latter holds at most about twice
        as many at a time, since nobody knows how long the solve will be.
    steps, mixing
        The damped steps behind each iterate, as in :class:`implicit.Phantom`.

    Attributes
    ----------
    problem
        The problem of the last watched solve; ``None`` before.
    points
        The numbers of the points whose states there are.
    """

    def __init__(self, at: int | Sequence[int] = 0, *, steps: int = 1, mixing: float = 1.0) -> None:
        wanted = at if isinstance(at, int) else tuple(sorted(set(at)))
        self._how = _How(wanted, steps, mixing)
        self.problem: Problem | None = None
        self._forget()

    def _forget(self) -> None:
        self._kept: dict[int, Tensor] = {}
        self._seen, self._stride = 0, 1
        self._latest: Tensor | None = None

    @contextmanager
    def on(self, layer: DEQ) -> Iterator[Watch]:
        """Watch the calls of a layer within the block; the last one is what is told of."""
        before = layer.gradient
        layer.gradient = self.gradient(before)
        try:
            yield self
        finally:
            layer.gradient = before

    def gradient(self, gradient: Gradient) -> Gradient:
        """Return a gradient that is the same, and shows this object the solve."""
        return _Watched(gradient, self)

    @property
    def points(self) -> tuple[int, ...]:
        """The numbers of the points, in their order."""
        at = self._how.at
        if isinstance(at, tuple):
            return tuple(k for k in at if k in self._kept)
        # Points before the last one, the nearest that are still there to an even spread.
        there = [k for k in self._kept if k < self._seen]
        aims = [self._seen * (k + 1) / (at + 1) for k in range(at)]
        distances = [{abs(k - aim): k for k in there} for aim in aims]
        return tuple(sorted({found[min(found)] for found in distances if found}))

    def iterates(self) -> tuple[Any, ...]:
        """Return the watched iterates as they were, without a graph.

        A sample that had ended before is at its last point.
        """
        if self.problem is None:
            return ()
        layout = Layout(self.problem.z0)
        return tuple(layout.unpack(self._kept[k]) for k in self.points)

    def states(self) -> tuple[Any, ...]:
        """Return the states a few damped steps behind the iterates, with the graph of the steps.

        Evaluates f ``steps`` times for each.

        Raises
        ------
        RuntimeError
            If no solve was watched, or its solver shows no iterates.
        """
        if self.problem is None:
            raise RuntimeError(
                "no solve was watched: call the layer within `with watch.on(layer):`, or solve with"
                " watch.gradient(…)"
            )
        if self._how.at and not self._seen:
            raise RuntimeError(
                "the solve showed no iterates: a foreign solver owns its loop, so use a native one"
            )
        return tuple(self._stepped(z, self.problem) for z in self.iterates())

    def _stepped(self, z: State, problem: Problem) -> State:
        layout, share = Layout(problem.z0), self._how.mixing
        flat = layout.pack(z)
        for k in range(self._how.steps):
            out = problem.function(layout.unpack(flat), *problem.args, *problem.params)
            fz = layout.pack(layout.check(out, problem.batch, k + 1, any_float=True))
            fz = flat + fz if isinstance(problem, RootProblem) else fz
            flat = fz if share == 1 else torch.lerp(flat, fz, share)
        return layout.unpack(flat)

    def _begin(self, problem: Problem) -> None:
        self._forget()
        self.problem = problem

    def _look(self, iteration: Iteration) -> None:
        """Note the point of an iteration, in all samples."""
        if not self._how.at:
            return
        assert self.problem is not None
        self._seen += 1
        with torch.no_grad(), torch.inference_mode(False):
            z, args = iteration.z.detach().clone(), iteration.evaluator.args
            # The loop's own args end with the numbers of the samples that are still solved.
            if len(args) > len(self.problem.args) and self._latest is not None:
                z = self._latest.index_copy(0, args[-1], z)
        self._latest = z
        at = self._how.at
        if isinstance(at, tuple):
            if self._seen in at:
                self._kept[self._seen] = z
            return
        if self._seen % self._stride == 0:
            self._kept[self._seen] = z
        if len(self._kept) > 2 * at + 1:
            self._stride *= 2
            self._kept = {k: t for k, t in self._kept.items() if k % self._stride == 0}


@dataclass(frozen=True)
class _Watched(Gradient):
    """A gradient that tells a watch of the solve, and is another one else.

    Parameters
    ----------
    gradient, watch
        Which.
    reltol
        Where the layer sets that of its gradient at each call; ``None`` leaves it.
    """

    gradient: Gradient
    watch: Watch
    reltol: float | None = None

    name: ClassVar[str] = "watched"
    # Asked always, also where no gradient is wanted.
    requires: ClassVar[frozenset[str]] = frozenset({"own"})

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve as the gradient does, or without one where none is wanted."""
        watch, told, gradient = self.watch, request.callback, self.gradient
        if self.reltol is not None:
            gradient = replace(cast(Implicit, gradient), reltol=self.reltol)
        watch._begin(problem)

        def look(iteration: Iteration) -> Any:
            watch._look(iteration)
            return told is not None and told(iteration)

        asked = replace(request, callback=look)
        if torch.is_grad_enabled() or gradient.requires & {"native", "own"}:
            return gradient.solve(problem, asked)
        return asked.run(problem)
