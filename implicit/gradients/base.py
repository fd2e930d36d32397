"""What a gradient is: how dL/dθ of an equilibrium is obtained, apart from how it is solved."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from solvers.loop import Iteration, Settings
from solvers.options import Options
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import BaseSolver


class Gradient(Options, abc.ABC):
    """Base of every gradient; a subclass is a frozen dataclass of options.

    Attributes
    ----------
    name
        The registry name.
    exact
        Whether the gradient is exact up to the tolerances.
    requires
        What it asks of the solver: ``native`` if it differentiates through the steps.
    reference
        Where it comes from.
    """

    name: ClassVar[str] = ""
    exact: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""

    @abc.abstractmethod
    def solve(
        self,
        problem: Problem,
        solver: BaseSolver | None,
        settings: Settings,
        *,
        scale: Tensor | float | None = None,
        callback: Callable[[Iteration], object] | None = None,
        site: str = "",
    ) -> Solution:
        """Return a solution whose value carries this gradient."""
