"""Unrolled: backpropagation through the solver's own steps (the first approach of the DEQ paper).

Memory grows with the evaluations. The gradient is that of the iterate, not of the equilibrium; it
tends to the latter as the iterate does.

Derivatives of any order, forward mode and the transforms of ``torch.func`` (``grad``, ``jvp``,
``vmap`` and what is made of them) go through the steps of every native solver. Under ``vmap`` all
copies take the steps of the slowest one, as all samples of a batch do.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), section 3.1; J. Domke,
AISTATS (2012).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from implicit.gradients.base import Gradient, Request
from solvers.evaluation import transformed
from solvers.fallback import merged
from solvers.problem import Problem, parts
from solvers.solution import Solution


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

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve with the graph of the steps."""
        settings = request.settings
        if self.last is None or self.last >= settings.max_evaluations:
            return request.run(problem, differentiable=True)
        # Under vmap no copy, and no sample of it, can be left out of the rest.
        within = transformed()
        with torch.no_grad():
            most = settings.max_evaluations - self.last
            head = request.run(
                problem,
                settings=replace(settings, max_evaluations=most),
                quiet=True,
                differentiable=within,
            )
        start: Solution | None = head
        if within:
            value, start = head.value, None
            z0 = tuple(t.detach() for t in parts(value))
            problem = replace(  # type: ignore[type-var]  # both problems are dataclasses
                problem, z0=z0 if isinstance(value, tuple) else z0[0]
            )
        tail = request.run(
            problem,
            settings=replace(settings, max_evaluations=self.last, fixed_budget=True),
            start=start,
            differentiable=True,
        )
        return replace(
            tail, settings=settings, attempts=(head, tail), stats=merged([head.stats, tail.stats])
        )
