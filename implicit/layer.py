"""``DEQ``: an equilibrium as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from implicit.gradients import Gradient, Implicit
from implicit.solve import solve
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

    @property
    def adjoint_solution(self) -> Solution | None:
        """The last backward solve, once it has run."""
        return None if self.solution is None else self.solution.adjoint

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

    def forward(self, *args: Tensor, z0: State | None = None) -> Any:
        """Return z* for the injection ``args`` (batch first), from ``z0`` if given."""
        start = self.initial_state(*args) if z0 is None else z0
        s = self.settings
        problem = FixedPointProblem(
            self.cell,
            start,
            args,
            samples_independent=self.samples_independent,
            name=self.name or type(self.cell).__name__,
        )
        solution = solve(
            problem,
            self.solver,
            self.gradient,
            abstol=s.abstol,
            reltol=s.reltol,
            norm=s.norm,
            max_evaluations=s.max_evaluations,
            fixed_budget=s.fixed_budget,
            site=self.name,
        )
        value = solution.value
        detached = tuple(t.detach() for t in value) if isinstance(value, tuple) else value.detach()
        self.solution = replace(solution, value=detached)
        return value

    def extra_repr(self) -> str:
        """Show solver, gradient and tolerance."""
        return f"solver={self.solver}, gradient={self.gradient}, reltol={self.settings.reltol}"
