"""Phantom: the gradient of k damped steps z ← (1 − λ) z + λ f(z) from z*.

    neumann    u = λ Σ_{i<k} Bⁱ c with B = λ Jᵀ + (1 − λ) I,
    unrolled   backpropagation through the steps, which is the same at an exact z*.

The error falls as ρ(B)ᵏ: damping helps where J has eigenvalues of negative real part, and slows
down where it has some near 1.

Reference: Z. Geng, X.-Y. Zhang, S. Bai, Y. Wang, Z. Lin, On Training Implicit Models, NeurIPS
(2021). There the value of the unrolled form is that of the last step. Here it is the solver's, as
with every gradient at the equilibrium: judged, and the same in training and in evaluation. The two
differ by at most k λ times the residual where f contracts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from implicit.function import Product
from implicit.gradients.base import Gradient, Request
from implicit.gradients.equilibrium import at_equilibrium
from solvers.evaluation import Evaluator, full_precision
from solvers.inverse import LowRank
from solvers.options import OptionError
from solvers.problem import Problem
from solvers.solution import AdjointRecord, Solution


@dataclass(frozen=True)
class Phantom(Gradient):
    """An estimate by a few damped steps at the solution, of any solver.

    Parameters
    ----------
    steps
        The steps k.
    mixing
        λ, the share of f in a step; 1 is no damping.
    form
        ``neumann`` keeps z* alone, and takes k − 1 products with Jᵀ; ``unrolled`` evaluates f k
        times in the forward and keeps their graph, which can be differentiated again.
    certificate
        Leave an estimate of the gradient's relative error in ``solution.certificate``, for one
        evaluation and two products; of the form ``neumann`` alone.
    """

    steps: Annotated[int, Field(ge=1)] = 5
    mixing: Annotated[float, Field(gt=0, le=1)] = 0.5
    form: Literal["neumann", "unrolled"] = "neumann"
    certificate: bool = False

    name: ClassVar[str] = "phantom"
    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Geng et al. 2021"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.certificate and self.form == "unrolled":
            raise OptionError(
                "certificate = True: the form 'unrolled' has no adjoint to be certified; use the"
                " form 'neumann', whose gradient is the same"
            )

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value carries the gradient of the steps behind it."""
        found = at_equilibrium(
            problem,
            request,
            name=self.name,
            estimate=self._estimate,
            certified=self.certificate,
        )
        return found if self.form == "neumann" else self._unrolled(problem, found)

    def _estimate(self, product: Product, c: Tensor, inverse: LowRank | None) -> Tensor:
        u = c
        for _ in range(self.steps - 1):
            u = self.mixing * product(u) + (1 - self.mixing) * u + c
        return self.mixing * u

    def _unrolled(self, problem: Problem, found: Solution) -> Solution:
        started = time.perf_counter()
        evaluator = Evaluator(problem, graph=True)
        layout = evaluator.layout
        first = z = layout.pack(found.value).detach()
        with full_precision(layout.device):
            for _ in range(self.steps):
                _, residual = evaluator(z)
                z = z + self.mixing * residual
            # What is not finite has no place in the value, which is judged already.
            change = z - z.detach()
            value = first + torch.where(torch.isfinite(change), change, 0.0)
        stats = evaluator.stats
        stats.seconds = time.perf_counter() - started
        return replace(found, value=layout.unpack(value), record=AdjointRecord(stats=stats))
