"""``DEQ``: an equilibrium as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from implicit.gradients import Gradient, Implicit
from implicit.gradients.base import Request
from implicit.solve import requested
from solvers.loop import Settings
from solvers.problem import FixedPointProblem, State
from solvers.solution import Solution
from solvers.solver import BaseSolver


class DEQ(nn.Module):
    """The equilibrium z* = cell(z*, \\*args) as a ``torch.nn.Module``.

    Parameters
    ----------
    cell
        A module ``cell(z, *args) -> z``. If it has ``initial_state(*args)``, that is the start;
        else it is zeros like the first arg.
    solver, gradient
        ``None`` for the defaults: the chain of ``solvers.solve``, and ``Implicit()``.
    abstol, reltol, norm, max_evaluations, fixed_budget
        As in :func:`solvers.solve`.
    samples_independent
        Whether a sample's cell depends on that sample alone; ``None`` finds out.
    name
        What the records call the layer.

    Attributes
    ----------
    solution
        The last forward solve, its value without a graph.
    adjoint_solution
        The last backward solve, once it has run.
    """

    def __init__(
        self,
        cell: nn.Module,
        *,
        solver: BaseSolver | None = None,
        gradient: Gradient | None = None,
        abstol: float = 0.0,
        reltol: float = 1e-3,
        norm: Literal["l2", "rms", "linf"] = "l2",
        max_evaluations: int = 100,
        fixed_budget: bool = False,
        samples_independent: bool | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if not isinstance(cell, nn.Module):
            raise TypeError(
                f"the cell must be a torch.nn.Module, got {type(cell).__name__}: its parameters"
                " could not be found otherwise"
            )
        self.cell = cell
        self.solver = solver
        self.gradient = gradient if gradient is not None else Implicit()
        self.settings = Settings(abstol, reltol, norm, max_evaluations, None, fixed_budget)
        self.samples_independent = samples_independent
        self.name = name
        self.solution: Solution | None = None
        # What was found out, in training and in evaluation: batch statistics couple samples.
        self._independent: dict[bool, bool] = {}

    @property
    def adjoint_solution(self) -> Solution | None:
        """The last backward solve, once it has run."""
        return None if self.solution is None else self.solution.adjoint

    @property
    def certificate(self) -> Any:
        """How inexact the last gradient may be, once backward has run."""
        return None if self.solution is None else self.solution.certificate

    def initial_state(self, *args: Tensor) -> State:
        """Return the start of the solve: the cell's own, or zeros like the first arg.

        Raises
        ------
        ValueError
            If there is neither.
        """
        own = getattr(self.cell, "initial_state", None)
        if own is not None:
            return cast(Callable[..., State], own)(*args)
        if not args:
            raise ValueError("without args and cell.initial_state the layer needs z0=")
        return args[0].new_zeros(args[0].shape)

    # One break, rather than one a decision of the solver that depends on data.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Tensor, z0: State | None = None) -> Any:
        """Return z* for the injection ``args`` (batch first), from ``z0`` if given."""
        start = self.initial_state(*args) if z0 is None else z0
        independent = self.samples_independent
        if independent is None:
            independent = self._independent.get(self.training)
        problem = FixedPointProblem(
            self.cell,
            start,
            args,
            samples_independent=independent,
            name=self.name or type(self.cell).__name__,
        )
        request = Request(self.solver, self.settings, site=self.name, earlier=self.solution)
        solution = requested(problem, self.gradient, request)
        if solution.samples_independent is not None:
            self._independent[self.training] = solution.samples_independent
        value = solution.value
        detached = tuple(t.detach() for t in value) if isinstance(value, tuple) else value.detach()
        self.solution = replace(solution, value=detached)
        return value

    def extra_repr(self) -> str:
        """Show solver, gradient and tolerance."""
        return f"solver={self.solver}, gradient={self.gradient}, reltol={self.settings.reltol}"
