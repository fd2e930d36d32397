"""JacobianFree: u = c, the cotangent itself in place of the adjoint.

The gradient is that of one evaluation of f at z*, as if its z* were a constant: the first term of
the Neumann series of (I − Jᵀ)⁻¹. It costs no product. Its error is of the order of ρ(J).

Reference: S. W. Fung et al., JFB: Jacobian-Free Backpropagation for Implicit Networks, AAAI (2022).
J. Bolte, E. Pauwels, S. Vaiter, NeurIPS (2023), study the same as one-step differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from implicit.gradients.base import Gradient, Request
from implicit.gradients.equilibrium import at_equilibrium
from solvers.problem import Problem
from solvers.solution import Solution


@dataclass(frozen=True)
class JacobianFree(Gradient):
    """An estimate that leaves out the inverse of I − J; no products with Jᵀ.

    For a contraction it points downhill if ∂f/∂θ is well conditioned (Fung et al., Theorem 3.1).

    Parameters
    ----------
    certificate
        Leave an estimate of the gradient's relative error in ``solution.certificate``, for one
        evaluation and two products.
    """

    certificate: bool = False

    name: ClassVar[str] = "jacobian_free"
    exact: ClassVar[bool] = False
    reference: ClassVar[str] = "Fung et al. 2022; Bolte, Pauwels & Vaiter 2023"

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value's backward takes the cotangent for the adjoint."""
        return at_equilibrium(
            problem,
            request,
            name=self.name,
            estimate=lambda product, c, _: c,
            certified=self.certificate,
        )
