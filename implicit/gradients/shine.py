"""Shine: u = Hᵀ c, with H the estimate of (I − J)⁻¹ that the forward solve has left.

The estimate costs no product, but the solver's history stays in memory until backward. H satisfies
secant equations along the forward's steps, and need not be near (I − J)⁻¹ in the direction of c:
as an estimate it is often little better than ``JacobianFree``, as a preconditioner it halves the
products of the exact adjoint (``Implicit(precondition="forward")``).

Reference: Z. Ramzi, F. Mannel, S. Bai, J.-L. Starck, P. Ciuciu, T. Moreau, SHINE: SHaring the
INverse Estimate from the forward pass, ICLR (2022); the rule of the fallback is that of their code
(github.com/zaccharieramzi/shine, deq2d.py). They refine by Broyden's method from the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from implicit.function import Product
from implicit.gradients.base import Gradient, Request
from implicit.gradients.equilibrium import at_equilibrium
from solvers.evaluation import coupling
from solvers.inverse import LowRank, outer
from solvers.judge import norm
from solvers.linear import GMRES
from solvers.problem import Problem
from solvers.solution import Solution


@dataclass(frozen=True)
class Shine(Gradient):
    """An estimate by the inverse that Broyden or Anderson leave; no products, or a few.

    Parameters
    ----------
    fallback
        Take the cotangent for the adjoint (``JacobianFree``) in samples where ‖u‖ > limit ‖c‖.
        Near ρ(J) = 1 the exact adjoint is that long too.
    limit
        The length at which an estimate is no longer trusted; 1.3 in the authors' code.
    refine
        So many products with Jᵀ are spent to improve u, by GMRES in a space that begins with it,
        and grows with H as preconditioner where H is trusted. It tends to the exact adjoint.
    certificate
        Leave an estimate of the gradient's relative error in ``solution.certificate``, for one
        evaluation and two products.
    """

    fallback: bool = True
    limit: Annotated[float, Field(gt=0)] = 1.3
    refine: Annotated[int, Field(ge=0)] = 0
    certificate: bool = False

    name: ClassVar[str] = "shine"
    exact: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"inverse"})
    reference: ClassVar[str] = "Ramzi et al. 2022"

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value's backward applies the inverse to the cotangent."""
        independent = [problem.samples_independent]

        def estimate(product: Product, c: Tensor, inverse: LowRank | None) -> Tensor:
            if inverse is None:  # nothing was learnt where nothing had to be solved
                none = c.new_zeros(len(c), 0, c.shape[1])
                inverse = outer(c.new_ones(len(c)), none, none)
            if self.refine and independent[0] is None and len(inverse.scale) > 1:
                independent[0] = not bool(coupling(product, c).any())
            return self._estimate(product, c, inverse, joint=independent[0] is False)

        solution = at_equilibrium(
            problem,
            request,
            name=self.name,
            estimate=estimate,
            use_inverse=True,
            certified=self.certificate,
        )
        independent[0] = solution.samples_independent
        return solution

    def _estimate(self, product: Product, c: Tensor, inverse: LowRank, *, joint: bool) -> Tensor:
        """Return u (B, D); coupled samples have one inverse together, or are one system at least.

        Norms are taken of vectors of a size near 1, since the loss may be of any scale.
        """
        rows = len(inverse.scale)
        given = c.reshape(rows, -1)
        size = (c.reshape(1, -1) if joint else given).abs().amax(dim=1, keepdim=True)
        size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
        system = given / size
        u = inverse.transpose(system)
        # No number is not trusted either.
        short = norm(u, "l2") <= self.limit * norm(system, "l2")
        trusted = (short | (not self.fallback))[:, None]
        if not self.refine:
            return torch.where(trusted, u * size, given).reshape(c.shape)
        shape = (1, c.numel()) if joint else system.shape
        b = system.reshape(shape)

        def precondition(v: Tensor) -> Tensor:
            rest = v.reshape(rows, -1)
            return torch.where(trusted, inverse.transpose(rest), rest).reshape(shape)

        found = GMRES().solve(
            lambda v: v - product(v.reshape(c.shape)).reshape(shape),
            b,
            tolerance=4 * torch.finfo(c.dtype).eps * norm(b, "l2"),
            max_products=self.refine,
            precondition=precondition,
        )
        return (found.x * size).reshape(c.shape)
