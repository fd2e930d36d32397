"""Anderson acceleration, type II and type I.

With r = f(z) − z and the windows ΔZ, ΔR of the last differences of z and r,

    type II    γ = argmin ‖r − ΔR γ‖,
    type I     ΔZᵀΔR γ = ΔZᵀ r,

and z ← z + β r − (ΔZ + β ΔR) γ. The small system is solved in float64, its columns scaled to unit
length, with a ridge *relative* to them: an absolute one stops the acceleration once ‖r‖² falls
below it. Its Gram matrix gains one row an iteration, so that a step reads the window three times.

Columns nearly parallel to the newer ones are filtered out. A sample whose residual grows far above
the smallest that its window has seen is restarted.

Reference: D. G. Anderson, J. ACM 12 (1965); H. Walker, P. Ni, SIAM J. Numer. Anal. 49 (2011);
H. Fang, Y. Saad, Numer. Linear Algebra Appl. 16 (2009), for type I and II as multisecant methods;
S. Pollock, L. Rebholz, BIT 63 (2023), for filtering by angles; J. Zhang, B. O'Donoghue, S. Boyd,
SIAM J. Optim. 30 (2020), for restarts and safeguards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.history import bordered, combine, corner, head, inner, room, small_dtype, table
from solvers.inverse import LowRank
from solvers.solver import Linearise, Solver


class AndersonState(NamedTuple):
    """The last point, and the windows.

    Attributes
    ----------
    z, fz, r
        (B, D) the last point, the function and the residual there; ``None`` before the first step.
    images, changes
        (B, capacity, D) ΔZ + ΔR, the differences of f, and ΔR. Slots are used in turn.
    steps
        (B, capacity, D) ΔZ, which type I alone needs.
    gram
        (B, n, n) of the columns, in float64: ΔRᵀΔR, or ΔZᵀΔR.
    length
        (B,) the smallest ‖r‖ since the window was last emptied.
    used, newest
        Columns in use, and the slot of the newest.
    """

    z: Tensor | None
    fz: Tensor
    r: Tensor
    images: Tensor
    changes: Tensor
    steps: Tensor
    gram: Tensor
    length: Tensor
    used: int
    newest: int


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration of the last ``window`` differences, each sample by itself.

    Parameters
    ----------
    window
        Differences kept, m. Cost and memory (2 m vectors) grow with it, evaluations fall; below 5
        hard problems (spectral radius near 1) suffer.
    mixing
        β in (0, 2]: 1 is undamped.
    kind
        ``"II"`` minimises the residual, ``"I"`` solves the secant equations; type I costs one more
        vector a difference, and is less easily led astray where the spectral radius is near 1.
    ridge
        Relative to the squared lengths of the columns; ``None`` takes 10 times the unit rounding
        of the state's dtype, squared lengths being what that rounding blurs.
    filter
        The smallest sine of the angle between a column and the span of the newer ones at which it
        is kept (type II).
    restart
        A sample's window is emptied when its residual exceeds ``restart`` times the smallest since
        it was last emptied; ``None`` never.
    """

    window: Annotated[int, Field(ge=1)] = 10
    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0
    kind: Literal["I", "II"] = "II"
    ridge: Annotated[float, Field(ge=0)] | None = None
    filter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    restart: Annotated[float, Field(gt=1)] | None = None

    name: ClassVar[str] = "anderson"
    reference: ClassVar[str] = "Anderson 1965; Walker & Ni 2011; Fang & Saad 2009"

    def init(self, z: Tensor, fz: Tensor) -> AndersonState:
        """Return empty windows."""
        none = z.new_empty(z.shape[0], 0, z.shape[1])
        gram = torch.zeros(z.shape[0], 0, 0, dtype=small_dtype(z), device=z.device)
        length = gram.new_full((z.shape[0],), torch.inf)
        return AndersonState(None, fz, fz, none, none, none, gram, length, 0, -1)

    def step(
        self, state: AndersonState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, AndersonState]:
        """Return the mixed point, and the windows with the newest differences."""
        r = fz - z
        plain = fz if self.mixing == 1 else z + self.mixing * r
        if state.z is None:
            state = state._replace(z=z, fz=fz, r=r)
        else:
            state = self._push(state, z, fz, r)
        if self.restart is not None:
            state = self._safeguard(state, r)
        if not state.used:
            return plain, state
        gamma = self._coefficients(state, r)
        new = combine(plain, gamma, head(state.images, state.used), alpha=-1.0)
        if self.mixing != 1:
            new = combine(new, gamma, head(state.changes, state.used), alpha=1.0 - self.mixing)
        return new, state

    def _push(self, state: AndersonState, z: Tensor, fz: Tensor, r: Tensor) -> AndersonState:
        """Return the windows with the newest differences in place of the oldest."""
        assert state.z is not None
        used, two = state.used, self.kind == "II"
        full = used >= self.window
        if torch.is_grad_enabled():
            old = slice(1 if full else 0, used)

            def grown(window: Tensor, vector: Tensor) -> Tensor:
                return torch.cat((window[:, old], vector[:, None]), dim=1)

            images, changes = grown(state.images, fz - state.fz), grown(state.changes, r - state.r)
            steps = state.steps if two else grown(state.steps, z - state.z)
            slot, used = changes.shape[1] - 1, changes.shape[1]
        else:
            slot = (state.newest + 1) % used if full else used
            images, changes = state.images, state.changes
            steps, used = state.steps, used if full else used + 1
            if not full:
                images = room(images, slot, self.window)
                changes = room(changes, slot, self.window)
                steps = steps if two else room(steps, slot, self.window)
            torch.sub(fz, state.fz, out=images.select(1, slot))
            torch.sub(r, state.r, out=changes.select(1, slot))
            if not two:
                torch.sub(z, state.z, out=steps.select(1, slot))
        right = head(changes, used)
        left = right if two else head(steps, used)
        row = inner(left.select(1, slot), right).to(state.gram.dtype)
        column = row if two else inner(right.select(1, slot), left).to(row.dtype)
        if two:
            # The ridge is part of the matrix; a zero column gets a diagonal, so that γ is 0 there.
            ridge = 10 * torch.finfo(changes.dtype).eps if self.ridge is None else self.ridge
            row.select(2, slot).mul_(1 + ridge).add_(torch.finfo(row.dtype).tiny)
        if torch.is_grad_enabled():
            gram = bordered(state.gram[:, old, old], row, column[:, :, :-1].mT)
        else:
            gram = table(state.gram, changes.shape[1], changes.shape[1])
            head(gram.select(1, slot), used).copy_(row.squeeze(1))
            head(gram.select(2, slot), used).copy_(column.squeeze(1))
        return AndersonState(
            z, fz, r, images, changes, steps, gram, state.length, used, newest=slot
        )

    def _safeguard(self, state: AndersonState, r: Tensor) -> AndersonState:
        """Return the windows, emptied where the residual grew far above its smallest."""
        size = torch.linalg.vector_norm(r.detach(), dim=1).to(state.length.dtype)
        astray = size > self.restart * state.length  # type: ignore[operator]  # not None here
        # An emptied column is one so long that its coefficient is nothing.
        endless = torch.finfo(state.gram.dtype).max ** 0.5
        empty = endless * torch.eye(state.gram.shape[1], dtype=state.gram.dtype, device=r.device)
        gram = torch.where(astray[:, None, None], empty, state.gram)
        length = torch.where(astray, size, torch.minimum(size, state.length))
        return state._replace(gram=gram, length=length)

    def _coefficients(self, state: AndersonState, r: Tensor) -> Tensor:
        """Return γ (B, 1, n)."""
        n = state.used
        rows = state.changes if self.kind == "II" else state.steps
        gram = corner(state.gram, n)
        rhs = inner(r, head(rows, n)).to(gram.dtype).transpose(1, 2)
        if self.kind == "I":
            gamma, failed = _general_solve(gram, rhs)
        else:
            if self.filter:
                gram, rhs = self._filtered(gram, rhs, state.newest)
            factor, failed = torch.linalg.cholesky_ex(gram)
            gamma = torch.cholesky_solve(rhs, factor)
        # Columns that say nothing but noise: plain iteration for once.
        gamma = gamma.masked_fill((failed > 0).view(-1, 1, 1), 0.0)
        return gamma.transpose(1, 2)

    def _filtered(self, gram: Tensor, rhs: Tensor, newest: int) -> tuple[Tensor, Tensor]:
        """Return the system without the columns that are nearly in the span of newer ones."""
        n = gram.shape[1]
        order = [(newest - k) % n for k in range(n)]
        factor, _ = torch.linalg.cholesky_ex(gram[:, order][:, :, order])
        diagonal = torch.diagonal(gram, dim1=1, dim2=2)
        back = [order.index(k) for k in range(n)]
        sines = torch.diagonal(factor, dim1=1, dim2=2)[:, back] * diagonal.rsqrt()
        kept = (sines > self.filter).to(gram.dtype)
        both = kept[:, :, None] * kept[:, None, :]
        return gram * both + torch.diag_embed((1 - kept) * diagonal), rhs * kept[:, :, None]

    def inverse(self, state: AndersonState) -> LowRank | None:
        """Return the multisecant estimate β I − (ΔZ + β ΔR) (ΔRᵀΔR)⁻¹ ΔRᵀ."""
        n = state.used
        if not n:
            return None
        gram = state.gram[:, :n, :n]
        weight = _weights(gram)
        scaled = weight[:, :, None] * gram * weight[:, None, :]
        middle = torch.nan_to_num(torch.linalg.inv_ex(scaled)[0])
        middle = -weight[:, :, None] * middle * weight[:, None, :]
        images, changes = state.images[:, :n], state.changes[:, :n]
        left = images if self.mixing == 1 else images - (1 - self.mixing) * changes
        right = changes if self.kind == "II" else state.steps[:, :n]
        scale = torch.full_like(state.r[:, 0], self.mixing)
        return LowRank(scale, left, middle, right)


def _weights(gram: Tensor) -> Tensor:
    """Return (B, n) what scales the matrices to a diagonal near 1."""
    size = torch.linalg.vector_norm(gram, dim=2)
    return torch.where(size > 0, size, 1.0).rsqrt()


def _general_solve(matrix: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the solution (B, n, 1) of a system that is not symmetric, and (B,) what failed."""
    weight = _weights(matrix)[:, :, None]
    solution, info = torch.linalg.solve_ex(weight * matrix * weight.mT, weight * rhs)
    solution = weight * solution
    return solution, info + (~torch.isfinite(solution).all(dim=1)[:, 0]).to(info.dtype)
