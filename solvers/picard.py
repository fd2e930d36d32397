"""Picard iteration with mixing: z ← (1 − β) z + β f(z).

Reference: É. Picard (1890); the damped form is Krasnoselskii's and Mann's (1953).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from solvers.solver import Linearise, Solver, residual_at


@dataclass(frozen=True)
class Picard(Solver):
    """Fixed-point iteration, z ← z + mixing (f(z) − z).

    Converges linearly at the rate of the spectral radius of (1 − mixing) I + mixing J(z*).

    Parameters
    ----------
    mixing
        β in (0, 2]; 1 is plain iteration, less damps.
    """

    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0

    name: ClassVar[str] = "picard"
    reference: ClassVar[str] = "Picard 1890; Krasnoselskii 1955"

    def init(self, z: Tensor, fz: Tensor) -> None:
        """Return no state: the iteration has no memory."""

    def step(
        self,
        state: None,
        z: Tensor,
        fz: Tensor,
        linearise: Linearise,
    ) -> tuple[Tensor, None]:
        """Return z + β (f(z) − z)."""
        return (fz if self.mixing == 1 else z + self.mixing * residual_at(z, fz, linearise)), state
