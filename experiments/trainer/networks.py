"""One forward of a model, whatever kind of network it is, and what it costs.

Costs are counted in evaluations of the cell: an evaluation is 1, a product with its Jacobian or its
transpose is 1, and so is going back through an evaluation whose graph was kept, whichever of the
parameters', the arguments' and the state's gradients come of it. A layer of an explicit network is
an evaluation of a cell of its own.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from implicit.certificate import Tolerances
from implicit.corrections import Watch
from implicit.gradients import Checkpointed, Gradient, Implicit, Phantom, Reversible, Unrolled
from implicit.gradients.base import Request
from implicit.models import Model
from implicit.solve import requested
from solvers import BaseSolver, FixedPointProblem, OptionError, Picard, Solution, Stats
from solvers.loop import Settings
from solvers.problem import Problem, State
from solvers.solution import AdjointRecord

__all__ = ["Network", "Pass", "backward_work", "certificate_work", "detached"]


@dataclass(frozen=True)
class Pass:
    """A forward.

    Attributes
    ----------
    z
        The state that is read out, with its graph.
    args
        The arguments of the cell.
    solution
        How it was found; None of an explicit network.
    work
        What it cost, in evaluations of the cell.
    gradient
        What its backward will do.
    problem
        What was solved, masks included, if that was asked for.
    """

    z: State
    args: tuple[Tensor, ...]
    solution: Solution | None
    work: int
    gradient: Gradient
    problem: Problem | None = None


class Network:
    """A model as a network that is trained: solved, of fixed depth, or explicit.

    Parameters
    ----------
    model, solver, gradient, settings
        What and how. The solver and the budget are left aside where the model says its depth, the
        solver where the gradient brings its own iteration.
    error
        The relative error of the gradient for which tolerances are chosen, if they are.
    name
        The model's.

    Attributes
    ----------
    kind
        ``equilibrium``, ``depth`` or ``explicit``.
    independent
        Whether samples were found to be independent, in training (True) and evaluation.
    """

    def __init__(
        self,
        model: Model,
        solver: BaseSolver | None,
        gradient: Gradient,
        settings: Settings,
        *,
        error: float | None = None,
        name: str = "",
    ) -> None:
        self.model, self.name, self.gradient = model, name, gradient
        self.kind = "explicit" if model.explicit else "equilibrium"
        self.solver = None if "own" in gradient.requires else solver
        self.settings = settings
        if model.depth is not None and not model.explicit:
            self.kind, self.solver = "depth", Picard()
            self.settings = replace(settings, max_evaluations=model.depth, fixed_budget=True)
        self.tolerances = None if error is None else Tolerances(error)
        self.independent: dict[bool, bool] = {}
        self._earlier: Solution | None = None
        self._layers = layers(model.cell) if model.explicit else 1

    def start(self, args: tuple[Tensor, ...]) -> State:
        """Return where a solve starts: the cell's own, or zeros like the first argument."""
        own = getattr(self.model.cell, "initial_state", None)
        start: State = torch.zeros_like(args[0]) if own is None else own(*args)
        return detached(start)

    def train(
        self,
        args: tuple[Tensor, ...],
        *,
        z0: State | None = None,
        shallow: int | None = None,
        watched: bool = False,
    ) -> Pass:
        """Return a forward of training.

        Parameters
        ----------
        args
            The arguments of the cell.
        z0
            Where to start; None is :meth:`start`.
        shallow
            So many tied layers instead, differentiated through.
        watched
            Leave the problem in the pass.
        """
        if self.kind == "explicit":
            return self._explicit(args)
        if shallow is not None:
            settings = replace(self.settings, max_evaluations=shallow, fixed_budget=True)
            plan: tuple[BaseSolver | None, Gradient, Settings] = (Picard(), Unrolled(), settings)
        else:
            plan = (self.solver, *self._next())
        solver, gradient, settings = plan
        watch = Watch() if watched else None
        solution = self._solve(
            self._problem(args, z0, True),
            gradient if watch is None else watch.gradient(gradient),
            Request(solver, settings, earlier=self._earlier),
            training=True,
        )
        if shallow is None and (self.tolerances is not None or self._warm):
            # Its record is filled by the backward. Nothing else of it is needed, least its graph.
            nothing = solution.residual.new_zeros(0)
            self._earlier = replace(
                solution, value=nothing, attempts=(), inverse=None, trace=None, original=None
            )
        problem = None if watch is None else watch.problem
        return Pass(solution.value, args, solution, total(solution.stats), gradient, problem)

    def evaluate(
        self,
        args: tuple[Tensor, ...],
        *,
        max_evaluations: int | None = None,
        reltol: float | None = None,
        fixed_budget: bool | None = None,
    ) -> Pass:
        """Return a forward of evaluation, without a graph; what is not given is as in training."""
        if self.kind == "explicit":
            return self._explicit(args)
        changes: dict[str, Any] = {
            "max_evaluations": max_evaluations, "reltol": reltol, "fixed_budget": fixed_budget
        }  # fmt: skip
        settings = self.settings
        if self.tolerances is not None:
            settings = replace(settings, reltol=self.tolerances.forward)
        settings = replace(settings, **{k: v for k, v in changes.items() if v is not None})
        solution = self._solve(
            self._problem(args, None, False),
            self.gradient,
            Request(self.solver, settings),
            training=False,
        )
        work = total(solution.stats)
        return Pass(solution.value, args, solution, work, self.gradient)

    def state(self) -> dict[str, Any]:
        """Return all that the next solve depends on, beside weights and random numbers."""
        wanted, earlier = self.tolerances, self._earlier
        if wanted is not None and earlier is not None:  # as the next solve would
            wanted = copy.copy(wanted)
            wanted.learn(earlier)
        adjoint = None if earlier is None else earlier.adjoint
        return {
            "independent": dict(self.independent),
            "tolerances": None if wanted is None else dataclasses.asdict(wanted),
            "adjoint": adjoint.value if self._warm and adjoint is not None else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was."""
        self.independent = dict(state["independent"])
        if self.tolerances is not None:
            for key, value in state["tolerances"].items():
                setattr(self.tolerances, key, tuple(value) if isinstance(value, list) else value)
        self._earlier = None
        if state["adjoint"] is not None:
            self._earlier = _remembered(state["adjoint"])

    @property
    def _warm(self) -> bool:
        """Whether an adjoint starts from the last one."""
        return isinstance(self.gradient, Implicit) and self.gradient.warm_start

    def _next(self) -> tuple[Gradient, Settings]:
        """Return gradient and settings of the next solve, with the tolerances that it needs."""
        wanted = self.tolerances
        if wanted is None:
            return self.gradient, self.settings
        if self._earlier is not None:
            wanted.learn(self._earlier)
        gradient = replace(cast(Implicit, self.gradient), reltol=wanted.adjoint)
        return gradient, replace(self.settings, reltol=wanted.forward)

    def _problem(
        self, args: tuple[Tensor, ...], z0: State | None, training: bool
    ) -> FixedPointProblem:
        return FixedPointProblem(
            self.model.cell,
            self.start(args) if z0 is None else z0,
            args,
            samples_independent=self.independent.get(training),
            name=self.name,
        )

    def _solve(
        self, problem: FixedPointProblem, gradient: Gradient, request: Request, *, training: bool
    ) -> Solution:
        solution = requested(problem, gradient, request)
        if solution.samples_independent is not None:
            self.independent[training] = solution.samples_independent
        return solution

    def _explicit(self, args: tuple[Tensor, ...]) -> Pass:
        cell, options = self.model.cell, {}
        if isinstance(self.gradient, Checkpointed) and torch.is_grad_enabled():
            options["segments"] = pieces(self.gradient, self._layers)
        return Pass(cell(*args, **options), args, None, self._layers, self.gradient)


def _remembered(adjoint: Tensor) -> Solution:
    """Return a solution of which only the adjoint's value is known, for a warm start."""
    none = adjoint.new_zeros(0)
    known = Solution(
        adjoint, none, none, none, none, Stats(), None, Picard(), Settings(), phase="adjoint"
    )
    return replace(known, value=none, phase="forward", record=AdjointRecord(adjoint=known))


def layers(cell: nn.Module) -> int:
    """Return the layers of an explicit network: those of its list ``layers``, else 1."""
    own = getattr(cell, "layers", None)
    return len(own) if isinstance(own, nn.ModuleList) else 1


def pieces(gradient: Checkpointed, depth: int) -> int:
    """Return the number of segments of an explicit network.

    Raises
    ------
    OptionError
        For the recursive ones, which only an iteration has.
    """
    if gradient.segments == "recursive":
        raise OptionError(
            "gradient.segments = 'recursive': an explicit network is cut once; use 'sqrt' or a"
            " number"
        )
    return max(1, round(depth**0.5)) if gradient.segments == "sqrt" else int(gradient.segments)


def check_explicit(gradient: Gradient, *, cuttable: bool) -> None:
    """Refuse gradients that an explicit network cannot have; ``cuttable``: its cell can be cut.

    Raises
    ------
    OptionError
        With those that it can.
    """
    if not isinstance(gradient, Unrolled | Checkpointed):
        raise OptionError(
            f"gradient.name = '{gradient.name}': an explicit network has no equilibrium; use"
            " 'unrolled', which is plain backpropagation, or 'checkpointed'"
        )
    if isinstance(gradient, Unrolled) and gradient.last is not None:
        raise OptionError(
            f"gradient.last = {gradient.last}: an explicit network is differentiated through all of"
            " its layers; leave it at null"
        )
    if isinstance(gradient, Checkpointed):
        pieces(gradient, 1)
        if not cuttable:
            raise OptionError(
                "gradient.name = 'checkpointed': this model's cell cannot be cut into segments (its"
                " forward has no option 'segments', as that of Stack); use 'unrolled'"
            )


def detached(z: State) -> State:
    """Return a state without its graph."""
    return tuple(t.detach() for t in z) if isinstance(z, tuple) else z.detach()


def total(stats: Stats) -> int:
    """Return evaluations and products together."""
    return stats.evaluations + stats.jvps + stats.vjps


def backward_work(done: Pass) -> int:
    """Return what the backward of a pass has cost, but for its certificate.

    Of an implicit gradient: the products of the adjoint solve, the evaluation that they share, and
    the product that gives the parameters their gradient.
    """
    solution, gradient = done.solution, done.gradient
    if solution is None:  # each layer once, and once more forward where it was not kept
        return done.work * (2 if isinstance(gradient, Checkpointed) else 1)
    # The last evaluation of the forward only judges the point.
    graph = max(1, total(solution.stats) - 1)
    record = solution.record
    again = 0 if record.stats is None else total(record.stats)
    if record.adjoint is not None:
        return total(record.adjoint.stats) + 1
    if isinstance(gradient, Unrolled):
        return graph if gradient.last is None else min(graph, gradient.last)
    if isinstance(gradient, Checkpointed):
        return again + graph
    if isinstance(gradient, Reversible):
        return again
    if isinstance(gradient, Phantom) and gradient.form == "unrolled":
        return again + gradient.steps
    return again + 1


def certificate_work(solution: Solution | None) -> int:
    """Return what the certificate of a gradient has cost."""
    found = None if solution is None else solution.certificate
    return 0 if found is None else int(found.evaluations + found.products)


def regularisation_work(samples: int) -> int:
    """Return what a penalty costs: an evaluation, a product a probe, and the way back of each."""
    return 2 * (1 + samples)
