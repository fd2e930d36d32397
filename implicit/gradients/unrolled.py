"""Unrolled: backpropagation through the solver's own steps (the first approach of the DEQ paper).

Memory grows with the evaluations. The gradient is that of the iterate, not of the equilibrium; it
tends to the latter as the iterate does.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), section 3.1; J. Domke,
AISTATS (2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from implicit.gradients.base import Gradient
from solvers.fallback import merged
from solvers.loop import Iteration, Settings, run
from solvers.problem import Problem
from solvers.solution import Solution
from solvers.solver import BaseSolver


@dataclass(frozen=True)
class Unrolled(Gradient):
    """Backpropagation through the steps of any native solver.

    ``max_evaluations`` bounds the evaluations in the graph. If they are spent, the last step's
    point is returned, and judged by one more evaluation outside the graph: L evaluations of
    ``Picard`` are the weight-tied network of depth L.

    Parameters
    ----------
    last
        Differentiate only the last so many evaluations, after a solve without a graph; ``None``
        is all.
    """

    last: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "unrolled"
    requires: ClassVar[frozenset[str]] = frozenset({"native"})
    reference: ClassVar[str] = "Domke 2012; Bai, Kolter & Koltun 2019"

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
        """Solve with the graph of the steps."""
        keywords: dict[str, Any] = {"scale": scale, "callback": callback, "site": site}
        if self.last is None or self.last >= settings.max_evaluations:
            return run(problem, solver, settings, differentiable=True, **keywords)
        with torch.no_grad():
            head = run(
                problem,
                solver,
                replace(settings, max_evaluations=settings.max_evaluations - self.last),
                quiet=True,
                **keywords,
            )
        tail = run(
            problem,
            solver,
            replace(settings, max_evaluations=self.last, fixed_budget=True),
            start=head,
            differentiable=True,
            **keywords,
        )
        return replace(
            tail, settings=settings, attempts=(head, tail), stats=merged([head.stats, tail.stats])
        )
