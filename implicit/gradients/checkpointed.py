"""Checkpointed: the gradient of ``Unrolled``, of which only some states are kept.

The forward keeps what the solver knows at the ends of segments of steps: its point and its state,
but no graph. The backward goes from the last segment to the first, takes the steps of each anew,
with a graph, and goes back through it. With n segments of L steps, n states and one segment's graph
of L/n steps are held at once, which is least near n = √L. Halving a segment again and again instead
of taking it whole needs about log₂ L states and the graph of one step, for log₂(L)/2 evaluations
more of each.

``torch.utils.checkpoint`` is no way to the same: a solver that linearises differentiates within its
steps, at which that evaluates everything anew each time.

Reference: T. Chen, B. Xu, C. Zhang, C. Guestrin, Training Deep Nets with Sublinear Memory Cost
(2016); A. Griewank, A. Walther, ACM TOMS 26 (2000), for recursive checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from implicit.explicit import explicit
from implicit.gradients.base import Gradient, Request
from solvers.evaluation import forward_mode, transformed
from solvers.fallback import merged
from solvers.loop import Iteration, Settings
from solvers.problem import FixedPointProblem, Layout, Problem, RootProblem, parts
from solvers.solution import AdjointRecord, Solution
from solvers.solver import Solver

Segments = Literal["sqrt", "recursive"] | Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Checkpointed(Gradient):
    """Backpropagation through the steps of any native solver, which are taken once more for it.

    What it gives, exactly, is the gradient of :class:`Unrolled`: that of the iterate. The segments
    are laid over ``max_evaluations``; a solve that stops before leaves the last ones out. What the
    backward evaluates anew is counted in ``solution.record.stats``.

    A derivative of the gradient (``create_graph=True``), transforms of ``torch.func`` and forward
    mode are those of ``Unrolled`` too, at the memory of that.

    Parameters
    ----------
    segments
        ``"sqrt"``: about √L for L evaluations, which needs the least memory at one evaluation more
        for each. Any number of them: where the graph of one evaluation takes as much as g states,
        √(g L) are best. ``"recursive"``: halves of halves, the memory of about log₂ L states, at
        about log₂(L)/2 evaluations more for each.
    """

    segments: Segments = "sqrt"

    name: ClassVar[str] = "checkpointed"
    requires: ClassVar[frozenset[str]] = frozenset({"native"})
    reference: ClassVar[str] = "Chen, Xu, Zhang & Guestrin 2016; Griewank & Walther 2000"

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value's backward takes the steps anew."""
        if transformed() or forward_mode() or not torch.is_grad_enabled():
            return request.run(problem, differentiable=True)
        given = explicit(problem)
        plan = Plan(self, given, request)
        z0 = plan.layout.pack(given.z0)
        z = _Steps.apply(plan, z0, *given.args, *given.params)  # type: ignore[no-untyped-call]
        solution, plan.solution = cast(Solution, plan.solution), None
        return replace(solution, value=plan.layout.unpack(z), record=plan.record)

    def ends(self, most: int) -> set[int]:
        """Return after which steps a state is kept, of at most so many; that of the start is."""
        if self.segments == "recursive":
            kept, done = set[int](), 0
            while most - done > 1:
                done += (most - done) // 2
                kept.add(done)
            return kept
        pieces = round(most**0.5) if self.segments == "sqrt" else min(self.segments, most)
        return {round(k * most / pieces) for k in range(1, pieces)}


class Snapshot(NamedTuple):
    """What a solver knows before a step: tensors and other values, and how they are nested.

    The first of them is the point (B, D).
    """

    step: int
    leaves: list[Any]
    nested: TreeSpec


def snapshot(step: int, z: Tensor, state: Any) -> Snapshot:
    """Return what a solver knows before a step."""
    return Snapshot(step, *tree_flatten((z, state)))


@dataclass
class Course:
    """The way that a solve took, but for its tensors.

    Attributes
    ----------
    value
        (B, D) the last point, while the forward lasts.
    solver, settings, independent
        How it was solved, and whether samples were found to be independent.
    steps
        How many there were.
    aims
        What the solver was told before each.
    snapshots
        What it knew where segments end; between forward and backward their tensors are apart.
    """

    value: Tensor | None
    solver: Solver
    settings: Settings
    independent: bool | None
    steps: int
    aims: list[Tensor | None]
    snapshots: list[Snapshot]


class Plan:
    """A problem of which steps can be taken anew, with tensors that are given each time.

    Attributes
    ----------
    gradient, layout
        The gradient, and the structure of the state.
    record
        Where the counts of the backward are left.
    solution
        That of the forward, until it is fetched.
    """

    def __init__(self, gradient: Checkpointed, problem: Problem, request: Request) -> None:
        self.gradient, self.layout = gradient, Layout(problem.z0)
        self.record = AdjointRecord()
        self.solution: Solution | None = None
        self._kind = RootProblem if isinstance(problem, RootProblem) else FixedPointProblem
        self._function, self._name = problem.function, problem.name
        self._args, self._independent = len(problem.args), problem.samples_independent
        self._request: Request | None = request
        kind = self.layout.device.type
        self._autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def _problem(self, z: Tensor, tensors: Sequence[Tensor], independent: bool | None) -> Problem:
        return self._kind(
            self._function,
            self.layout.unpack(z),
            tuple(tensors[: self._args]),
            tuple(tensors[self._args :]),
            samples_independent=independent,
            name=self._name,
        )

    def forward(self, z0: Tensor, tensors: Sequence[Tensor]) -> Course:
        """Solve without a graph, and return the course of it."""
        courses: list[Course] = []

        def drive(iteration: Iteration) -> None:
            ends = self.gradient.ends(iteration.settings.max_evaluations)
            aims: list[Tensor | None] = []
            kept: list[Snapshot] = []
            steps = 0
            for evaluated in iteration.snapshots():
                if evaluated:
                    aims.append(iteration.aimed)
                    continue
                steps += 1
                if steps in ends:
                    kept.append(snapshot(steps, iteration.z, iteration.state))
            courses.append(
                Course(
                    iteration.z,
                    iteration.solver,
                    iteration.settings,
                    iteration.independent,
                    steps,
                    aims[:steps],
                    [k for k in kept if k.step < steps],
                )
            )

        request, self._request = cast(Request, self._request), None
        problem = self._problem(z0, tensors, self._independent)
        self.solution = request.run(problem, differentiable=True, drive=drive)
        # Of a chain, that of the solver whose point was taken.
        taken = parts(self.solution.value)[0].data_ptr()
        ways = [c for c in courses if cast(Tensor, c.value).data_ptr() == taken]
        return (ways or courses)[-1]

    def take(
        self, course: Course, begin: Snapshot, last: int, tensors: Sequence[Tensor], *, graph: bool
    ) -> Snapshot:
        """Take the steps from a snapshot to the ``last`` one anew."""
        z, state = tree_unflatten(begin.leaves, begin.nested)
        enabled, dtype = self._autocast
        problem = self._problem(z.detach(), tensors, course.independent)
        with (
            torch.set_grad_enabled(graph),
            torch.autocast(self.layout.device.type, dtype, enabled=enabled),
        ):
            iteration = Iteration(problem, course.solver, course.settings, differentiable=True)
        aims = course.aims[begin.step : last]
        taken = iteration.resumed(z, state, aims, begun=begin.step > 0)
        stats, known = iteration.stats, self.record.stats
        self.record.stats = stats if known is None else merged([known, stats])
        return snapshot(last, *taken)


class _Steps(torch.autograd.Function):
    """The last point of a solve as a function of its start and its tensors."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, z0: Tensor, *tensors: Tensor) -> Tensor:
        """Solve, and keep what the segments need."""
        course = plan.forward(z0.detach(), [t.detach() for t in tensors])
        value, course.value = cast(Tensor, course.value).clone(), None
        # Apart from everything else, where hooks on saved tensors see them.
        flat = [x for s in course.snapshots for x in s.leaves if isinstance(x, Tensor)]
        course.snapshots = [
            s._replace(leaves=[_HERE if isinstance(x, Tensor) else x for x in s.leaves])
            for s in course.snapshots
        ]
        ctx.plan, ctx.course = plan, course
        ctx.save_for_backward(z0, *tensors, *flat)
        ctx.count = len(tensors)
        return value

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Go back through the segments, the last one first."""
        plan, course, count = ctx.plan, ctx.course, ctx.count
        z0, *rest = ctx.saved_tensors
        tensors, flat = rest[:count], iter(rest[count:])
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        plan.record.stats = None
        if torch.is_grad_enabled():
            found = _differentiable(plan, course, cotangents[0], (z0, *tensors), wanted)
        else:
            kept = [
                s._replace(leaves=[next(flat) if x is _HERE else x for x in s.leaves])
                for s in course.snapshots
            ]
            back = _Back(plan, course, [t.detach() for t in tensors], wanted)
            begins = [snapshot(0, z0.detach(), None), *kept]
            ends = [*(s.step for s in kept), course.steps]
            given: list[Any] = [cotangents[0]]
            while begins:
                given = back.through(begins.pop(), ends.pop(), given)
            found = [given[0], *back.gradients]
        gradients: list[Tensor | None] = [None] * count
        for k, gradient in zip(wanted, found[1:], strict=True):
            gradients[k] = gradient
        return None, found[0], *gradients


class _Back:
    """The way back: the gradients of the tensors gather on it."""

    def __init__(
        self, plan: Plan, course: Course, tensors: Sequence[Tensor], wanted: Sequence[int]
    ) -> None:
        self._plan, self._course = plan, course
        self._leaves = [tensors[k].requires_grad_() for k in wanted]
        self._tensors = tensors
        self.gradients = [torch.zeros_like(t) for t in self._leaves]

    def through(self, begin: Snapshot, last: int, given: Sequence[Tensor | None]) -> list[Any]:
        """Return the cotangents of what a snapshot holds, given those of what follows ``last``."""
        steps = last - begin.step
        if not steps:
            return [given[0], *(None for _ in begin.leaves[1:])]
        take = self._plan.take
        if self._plan.gradient.segments == "recursive" and steps > 1:
            half = begin.step + steps // 2
            middle = take(self._course, begin, half, self._detached, graph=False)
            given = self.through(middle, last, given)
            return self.through(begin, half, given)
        leaves = [
            x.detach().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
            for x in begin.leaves
        ]
        end = take(self._course, begin._replace(leaves=leaves), last, self._tensors, graph=True)
        pairs = [
            (out, c)
            for out, c in zip(end.leaves, given, strict=False)
            if c is not None and isinstance(out, Tensor) and out.requires_grad
        ]
        inputs = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
        found: Sequence[Tensor | None] = [None] * (len(inputs) + len(self._leaves))
        if pairs:
            outs, cotangents = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                outs, (*inputs, *self._leaves), cotangents, allow_unused=True
            )
        for k, gradient in enumerate(found[len(inputs) :]):
            if gradient is not None:
                self.gradients[k] = self.gradients[k] + gradient
        of = iter(found)
        return [next(of) if isinstance(x, Tensor) and x.requires_grad else None for x in leaves]

    @property
    def _detached(self) -> list[Tensor]:
        return [t.detach() for t in self._tensors]


def _differentiable(
    plan: Plan,
    course: Course,
    cotangent: Tensor,
    inputs: Sequence[Tensor],
    wanted: Sequence[int],
) -> list[Tensor]:
    """Return the gradients of z0 and of the ``wanted`` tensors, with a graph of all the steps.

    ``inputs`` are z0 and the tensors.
    """
    # Of tensors that depend on each other, each has to end the way back.
    begin, *given = (t.view_as(t) for t in inputs)
    if not begin.requires_grad:
        begin.requires_grad_()
    z = plan.take(course, snapshot(0, begin, None), course.steps, given, graph=True).leaves[0]
    return list(
        torch.autograd.grad(
            z,
            (begin, *(given[k] for k in wanted)),
            cotangent,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )


_HERE = object()  # the place of a tensor
