"""Newton–Krylov: Newton's step by GMRES on products with the Jacobian.

    ‖(f(z) − z) − (I − J(z)) d‖ ≤ η ‖f(z) − z‖,    z ← z + d,

with the forcing terms of Eisenstat and Walker (choice 2 with its safeguard),
η = γ (‖r‖/‖r₋‖)², held above γ η₋² while that exceeds 0.1.

Reference: S. Eisenstat, H. Walker, SIAM J. Sci. Comput. 17 (1996); D. Knoll, D. Keyes, J. Comput.
Phys. 193 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.linear.gmres import arnoldi_solve
from solvers.solver import Linearise, Solver


class NewtonKrylovState(NamedTuple):
    """(B,) the last residual norm and forcing term of each sample."""

    size: Tensor | None
    forcing: Tensor | None
    failed: Tensor


@dataclass(frozen=True)
class NewtonKrylov(Solver):
    """Newton with batched GMRES, each sample with its own Krylov space.

    Parameters
    ----------
    inner
        The most products a step may take.
    forcing
        η of the first step, and the largest later.
    gamma
        γ of the Eisenstat–Walker rule.
    """

    inner: Annotated[int, Field(ge=1)] = 30
    forcing: Annotated[float, Field(gt=0, lt=1)] = 0.1
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.9

    name: ClassVar[str] = "newton_krylov"
    requires: ClassVar[frozenset[str]] = frozenset({"linearise", "blocks"})
    reference: ClassVar[str] = "Eisenstat & Walker 1996; Knoll & Keyes 2004"

    def init(self, z: Tensor, fz: Tensor) -> NewtonKrylovState:
        """Return a state without a past."""
        failed = torch.zeros(z.shape[0], dtype=torch.bool, device=z.device)
        return NewtonKrylovState(None, None, failed)

    def step(
        self, state: NewtonKrylovState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, NewtonKrylovState]:
        """Return z + d with ‖r − (I − J) d‖ ≤ η ‖r‖."""
        r = fz - z
        size = torch.linalg.vector_norm(r.detach(), dim=1)
        if state.size is None or state.forcing is None:
            forcing = torch.full_like(size, self.forcing)
        else:
            ratio = size / torch.where(state.size > 0, state.size, 1.0)
            forcing = self.gamma * ratio**2
            held = self.gamma * state.forcing**2
            forcing = torch.where(held > 0.1, torch.maximum(forcing, held), forcing)
            forcing = forcing.clamp(max=self.forcing)
        # Below the rounding of the products a smaller η buys nothing.
        forcing = forcing.clamp(min=10 * torch.finfo(size.dtype).eps)
        products = linearise()
        solved = arnoldi_solve(
            lambda v: v - products.jvp(v), r, tolerance=forcing * size, max_products=self.inner
        )
        found = solved.x.detach()
        failed = ~torch.isfinite(found).all(dim=1) | ((found == 0).all(dim=1) & (size > 0))
        step = torch.where(failed[:, None], 0.0, solved.x)
        return z + step, NewtonKrylovState(size, forcing, failed)

    def failed(self, state: NewtonKrylovState) -> Tensor:
        """Return which samples got no step, as with a singular Jacobian, or no finite one."""
        return state.failed
