"""What a gradient is: how dL/dθ of an equilibrium is obtained, apart from how it is solved."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from implicit.steady import tracked
from solvers.loop import Iteration, Settings, run
from solvers.options import Options
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import BaseSolver


@dataclass(frozen=True)
class Request:
    """How the forward solve is wanted: what every gradient is given beside the problem.

    Attributes
    ----------
    solver, settings, scale, callback
        As in :func:`solvers.solve`; ``solver=None`` is the default solver.
    site
        The layer's name, which the record keeps.
    start
        An earlier solution, from whose value the problem starts already.
    earlier
        An earlier solution whose adjoint may serve as a guess: ``start``, or a layer's last.
    keep_inverse
        Whether the caller wants ``solution.inverse``.
    """

    solver: BaseSolver | None
    settings: Settings
    scale: Tensor | float | None = None
    callback: Callable[[Iteration], object] | None = None
    site: str = ""
    start: Solution | None = None
    earlier: Solution | None = None
    keep_inverse: bool = False

    def run(self, problem: Problem, **changes: Any) -> Solution:
        """Solve a problem as requested; ``changes`` are keywords of ``solvers.loop.run``.

        ``solver`` and ``settings`` may be among them.
        """
        given: dict[str, Any] = {
            "solver": self.solver,
            "settings": self.settings,
            "scale": self.scale,
            "callback": self.callback,
            "site": self.site,
            "start": self.start,
            "keep_inverse": self.keep_inverse,
        }
        return run(tracked(problem), **(given | changes))


class Gradient(Options, abc.ABC):
    """Base of every gradient; a subclass is a frozen dataclass of options.

    Attributes
    ----------
    name
        The registry name.
    exact
        Whether the gradient is exact up to the tolerances.
    requires
        What it asks of the solver: ``native`` if it differentiates through the steps, ``inverse``
        if it uses the solver's estimate of (I − J)⁻¹, ``own`` if it brings an iteration of its own.
    reference
        Where it comes from.
    """

    name: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""

    @abc.abstractmethod
    def solve(self, problem: Problem, request: Request) -> Solution:
        """Return a solution whose value carries this gradient."""
