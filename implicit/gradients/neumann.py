"""Neumann: u = Σ_{i<k} (Jᵀ)ⁱ c, the first k terms of the series of (I − Jᵀ)⁻¹ c.

The error falls as ρ(J)ᵏ, so that it is exact in the limit where ρ(J) < 1, and of no use elsewhere.

Reference: J. Lorraine, P. Vicol, D. Duvenaud, AISTATS (2020); Z. Geng et al., Is Attention Better
Than Matrix Decomposition?, ICLR (2021), for k = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from implicit.function import Product
from implicit.gradients.base import Gradient, Request
from implicit.gradients.equilibrium import at_equilibrium
from solvers.inverse import LowRank
from solvers.problem import Problem
from solvers.solution import Solution


@dataclass(frozen=True)
class Neumann(Gradient):
    """An estimate by a truncated Neumann series.

    Parameters
    ----------
    terms
        Terms of the series, one more than products with Jᵀ; 1 is ``JacobianFree``.
    certificate
        Leave an estimate of the gradient's relative error in ``solution.certificate``, for one
        evaluation and two products.
    """

    terms: Annotated[int, Field(ge=1)] = 5
    certificate: bool = False

    name: ClassVar[str] = "neumann"
    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Lorraine, Vicol & Duvenaud 2020"

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value's backward sums the series."""

        def estimate(product: Product, c: Tensor, inverse: LowRank | None) -> Tensor:
            u = c
            for _ in range(self.terms - 1):
                u = product(u) + c
            return u

        return at_equilibrium(
            problem, request, name=self.name, estimate=estimate, certified=self.certificate
        )
