"""Anderson acceleration, type II.

With r = f(z) − z and the windows ΔZ, ΔR of the last differences of z and r,

    γ = argmin ‖r − ΔR γ‖,    z ← z + β r − (ΔZ + β ΔR) γ.

The least squares problem is solved by normal equations in float64, with columns scaled to unit
length and a ridge *relative* to them: an absolute one stops the acceleration once ‖r‖² falls
below it.

Reference: D. G. Anderson, J. ACM 12 (1965); H. Walker, P. Ni, SIAM J. Numer. Anal. 49 (2011);
H. Fang, Y. Saad, Numer. Linear Algebra Appl. 16 (2009), for the relation to Broyden's method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.history import History, empty
from solvers.solver import Linearise, Solver


class AndersonState(NamedTuple):
    """The last point and residual (B, D), and the windows of their differences."""

    z: Tensor | None
    r: Tensor | None
    steps: History
    changes: History


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration of the last ``window`` differences, each sample by itself.

    Parameters
    ----------
    window
        Differences kept, m. Cost and memory grow with it, evaluations fall; below 5 hard problems
        (spectral radius near 1) suffer.
    mixing
        β in (0, 2]: 1 is undamped.
    ridge
        Relative to the squared lengths of the columns; ``None`` takes 10 times the unit rounding
        of the state's dtype, squared lengths being what that rounding blurs.
    """

    window: Annotated[int, Field(ge=1)] = 10
    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0
    ridge: Annotated[float, Field(ge=0)] | None = None

    name: ClassVar[str] = "anderson"
    reference: ClassVar[str] = "Anderson 1965; Walker & Ni 2011"

    def init(self, z: Tensor, fz: Tensor) -> AndersonState:
        """Return empty windows."""
        return AndersonState(None, None, empty(z), empty(z))

    def step(
        self,
        state: AndersonState,
        z: Tensor,
        fz: Tensor,
        linearise: Linearise,
    ) -> tuple[Tensor, AndersonState]:
        """Return the mixed point, and the windows with the newest differences."""
        r = fz - z
        _, _, steps, changes = state
        plain = fz if self.mixing == 1 else z + self.mixing * r
        if state.z is None or state.r is None:
            return plain, AndersonState(z, r, steps, changes)
        steps = steps.push(z - state.z, self.window)
        changes = changes.push(r - state.r, self.window)
        dz, dr = steps.vectors, changes.vectors
        gamma = self._least_squares(dr, r)[:, None]
        correction = gamma @ dz + self.mixing * (gamma @ dr)
        return plain - correction[:, 0], AndersonState(z, r, steps, changes)

    def _least_squares(self, dr: Tensor, r: Tensor) -> Tensor:
        """Return γ (B, m) that minimises ‖r − ΔR γ‖, with a relative ridge."""
        small = torch.float64 if dr.device.type != "mps" else torch.float32
        columns = dr.float() if dr.dtype in (torch.float16, torch.bfloat16) else dr
        gram = (columns @ columns.transpose(1, 2)).to(small)
        rhs = (columns @ r.to(columns.dtype)[:, :, None]).to(small)
        square = torch.diagonal(gram, dim1=1, dim2=2)
        weight = torch.where(square > 0, square, 1.0).rsqrt()
        scaled = weight[:, :, None] * gram * weight[:, None, :]
        ridge = 10 * torch.finfo(columns.dtype).eps if self.ridge is None else self.ridge
        eye = torch.eye(dr.shape[1], dtype=small, device=dr.device)
        # A zero column has no diagonal: 1 there makes its coefficient zero.
        scaled = scaled + ridge * eye + torch.diag_embed((square <= 0).to(small))
        gamma, _ = torch.linalg.solve_ex(scaled, weight[:, :, None] * rhs)
        gamma = (weight[:, :, None] * gamma)[:, :, 0]
        return torch.where(torch.isfinite(gamma), gamma, 0.0).to(dr.dtype)
