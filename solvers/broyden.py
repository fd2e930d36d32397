"""Good Broyden's method, with the inverse Jacobian as a sum of outer products.

For r(z) = f(z) − z, started from the Jacobian −I (plain iteration), a step s = −H r that changed
the residual by y updates

    H ← H + (s − H y) sᵀH / (sᵀH y),

so that H y = s. With H = −I + UᵀV a product costs two passes over the history.

Reference: C. G. Broyden, Math. Comp. 19 (1965); C. T. Kelley, Solving Nonlinear Equations with
Newton's Method (2003); S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.history import History, dot, empty
from solvers.solver import Linearise, Solver


class BroydenState(NamedTuple):
    """The last point and residual (B, D), and the factors of H + I."""

    z: Tensor | None
    r: Tensor | None
    u: History
    v: History


@dataclass(frozen=True)
class Broyden(Solver):
    """Good Broyden with full steps, each sample by itself.

    On a linear problem it ends in at most 2D steps (Gay 1979).

    Parameters
    ----------
    window
        Updates kept before the method restarts from −I at the current point; ``None`` keeps all
        (2 vectors an iteration).
    """

    window: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "broyden"
    reference: ClassVar[str] = "Broyden 1965; Kelley 2003; Bai, Kolter & Koltun 2019"

    def init(self, z: Tensor, fz: Tensor) -> BroydenState:
        """Return H = −I."""
        return BroydenState(None, None, empty(z), empty(z))

    def step(
        self,
        state: BroydenState,
        z: Tensor,
        fz: Tensor,
        linearise: Linearise,
    ) -> tuple[Tensor, BroydenState]:
        """Return z − H r, with H updated by the last step."""
        r = fz - z
        u, v = state.u, state.v
        if state.z is None or state.r is None:
            return fz, BroydenState(z, r, u, v)
        if self.window is not None and u.used >= self.window:
            u, v = empty(z), empty(z)
        s, y = z - state.z, r - state.r
        hy = _apply(u, v, y)
        sh = _apply(v, u, s)
        denominator = dot(sh, y)
        # A change of the residual that H maps across the step says nothing: no update then.
        size = dot(sh, sh).detach().sqrt() * dot(y, y).detach().sqrt()
        sound = denominator.abs() > torch.finfo(z.dtype).eps * size
        safe = torch.where(sound, denominator, 1.0)
        u = u.push(torch.where(sound, (s - hy) / safe, 0.0))
        v = v.push(sh)
        return z - _apply(u, v, r), BroydenState(z, r, u, v)


def _apply(u: History, v: History, x: Tensor) -> Tensor:
    """Return (−I + UᵀV) x for x (B, D)."""
    if not u.used:
        return -x
    inner = v.vectors @ x[:, :, None]
    return (inner.transpose(1, 2) @ u.vectors)[:, 0] - x
