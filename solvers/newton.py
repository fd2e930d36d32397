"""Newton's method with the dense Jacobian of each sample.

    (I − J(z)) d = f(z) − z,    z ← z + d.

Reference: C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations (1995), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from solvers.solver import Linearise, Solver


@dataclass(frozen=True)
class Newton(Solver):
    """Newton with J built row by row from products with its transpose, under vmap.

    Converges quadratically from near; costs D products and a factorisation of D × D a step.

    Parameters
    ----------
    damping
        Part of the Newton step that is taken, in (0, 1].
    max_dim
        Largest state size D that it accepts: a dense Jacobian takes B·D² numbers.
    """

    damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_dim: Annotated[int, Field(ge=1)] = 2048

    name: ClassVar[str] = "newton"
    requires: ClassVar[frozenset[str]] = frozenset({"linearise", "blocks"})
    reference: ClassVar[str] = "Kelley 1995"

    def init(self, z: Tensor, fz: Tensor) -> Tensor | None:
        """Check the size of the state; no solve has failed yet.

        Raises
        ------
        ValueError
            If the state is larger than ``max_dim``.
        """
        if z.shape[1] > self.max_dim:
            raise ValueError(
                f"newton builds a dense Jacobian, and the state has {z.shape[1]} numbers a sample,"
                f" more than max_dim={self.max_dim}: use NewtonKrylov, or raise max_dim"
            )
        return torch.zeros(z.shape[0], dtype=torch.bool, device=z.device)

    def step(
        self, state: Tensor, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, Tensor]:
        """Return z + damping · (I − J)⁻¹ (f(z) − z)."""
        jacobian = linearise().jacobian()
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        finite = torch.isfinite(jacobian).all(dim=2).all(dim=1)
        system = torch.where(finite[:, None, None], eye - jacobian, eye)
        direction, info = torch.linalg.solve_ex(system, (fz - z)[:, :, None])
        direction = direction[:, :, 0]
        failed = (info != 0) | ~torch.isfinite(direction).all(dim=1)
        # A sample whose system is singular stays where it is; the loop ends it.
        step = torch.where(failed[:, None], 0.0, self.damping * direction)
        return z + step, failed

    def failed(self, state: Tensor) -> Tensor:
        """Return which samples had a singular Jacobian."""
        return state
