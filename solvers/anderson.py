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
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from solvers.history import by_numpy, combine, head, inner, room, small, small_dtype, table
from solvers.inverse import LowRank
from solvers.solver import Linearise, Solver, residual_at

# The estimate of the inverse Jacobian takes a column for implied by newer ones below this sine.
IMPLIED = 1e-2
# A change of the residual is clear of its rounding when it is at least this part of it.
CLEAR = 0.2


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
    gram, weight
        (B, capacity, capacity) of the columns, in float64: W ΔRᵀΔR W, or W ΔZᵀΔR W, with (B,
        capacity) W that makes its diagonal 1; the weight of a column that is left out is 0.
    rhs
        (B, 1, n) the inner products of the rows of the window with the last residual.
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
    weight: Tensor
    rhs: Tensor
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
        weight = gram.new_zeros(z.shape[0], 0)
        rhs = none[:, :, :1].mT
        return AndersonState(None, fz, fz, none, none, none, gram, weight, rhs, length, 0, -1)

    def step(
        self, state: AndersonState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, AndersonState]:
        """Return the mixed point, and the windows with the newest differences."""
        r = residual_at(z, fz, linearise)
        plain = fz if self.mixing == 1 else z + self.mixing * r
        first = state.z is None
        state = state._replace(z=z, fz=fz, r=r) if first else self._push(state, z, fz, r)
        if self.restart is not None:
            state = self._safeguard(state, r)
        if not state.used:
            return plain, state
        gamma = self._coefficients(state)
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
        rhs = inner(r, left)
        if torch.is_grad_enabled():
            gram, weight = self._scaled((left @ right.mT).to(state.gram.dtype), r.dtype)
        else:
            gram = table(state.gram, changes.shape[1], changes.shape[1])
            weight = state.weight
            if weight.shape[1] < changes.shape[1]:
                weight = torch.nn.functional.pad(weight, (0, changes.shape[1] - weight.shape[1]))
            row, column = self._products(state, r, rhs, slot, (left, right))
            g, w = small(gram), small(weight)
            w[:, slot] = unit = _unit(row[:, slot])
            scale = w[:, :used] * unit[:, None]
            g[:, slot, :used] = scale * row
            g[:, :used, slot] = scale * column
            # The ridge is part of the matrix; a zero column gets a diagonal, so that γ is 0 there.
            if two:
                g[:, slot, slot] = self._ridged(changes.dtype)
        return AndersonState(
            z, fz, r, images, changes, steps, gram, weight, rhs, state.length, used, newest=slot
        )

    def _products(
        self,
        state: AndersonState,
        r: Tensor,
        rhs: Tensor,
        slot: int,
        windows: tuple[Tensor, Tensor],
    ) -> tuple[Any, Any]:
        """Return the new row and column (B, n) of ΔRᵀΔR, or of ΔZᵀΔR.

        The change of the residual is the difference of two right-hand sides: where it is not much
        smaller than the residual, the difference of these loses no more than the ridge forgives,
        and the window is read once less.
        """
        left, right = windows
        new = right.select(1, slot)
        if self.kind == "I":
            return small(inner(left.select(1, slot), right))[:, 0], small(inner(new, left))[:, 0]
        if by_numpy(r) and r.dtype == torch.float32 and self.ridge is None:
            change = torch.linalg.vector_norm(new, dim=1).numpy()
            size = torch.linalg.vector_norm(r, dim=1).numpy()
            if (change >= CLEAR * size).all():
                row = rhs.numpy()[:, 0].astype(np.float64)
                known = state.rhs.shape[2]
                row[:, :known] -= state.rhs.numpy()[:, 0]
                row[:, slot] = change.astype(np.float64) ** 2
                return row, row
        row = small(inner(new, right))[:, 0]
        return row, row

    def _ridged(self, dtype: torch.dtype) -> float:
        """Return the diagonal of the scaled Gram matrix."""
        ridge = 10 * torch.finfo(dtype).eps if self.ridge is None else self.ridge
        return 1.0 + ridge

    def _scaled(self, gram: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the matrix (B, n, n) scaled, with its ridge, and the weights (B, n)."""
        size = torch.diagonal(gram, dim1=1, dim2=2)
        weight = _unit(size)
        scaled = weight[:, :, None] * gram * weight[:, None, :]
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        diagonal = size.sign() if self.kind == "I" else self._ridged(dtype)
        return scaled * (1 - eye) + torch.diag_embed(torch.zeros_like(size) + diagonal), weight

    def _safeguard(self, state: AndersonState, r: Tensor) -> AndersonState:
        """Return the windows, emptied where the residual grew far above its smallest."""
        size = torch.linalg.vector_norm(r.detach(), dim=1).to(state.length.dtype)
        astray = size > self.restart * state.length  # type: ignore[operator]  # not None here
        weight = torch.where(astray[:, None], 0.0, state.weight)
        length = torch.where(astray, size, torch.minimum(size, state.length))
        return state._replace(weight=weight, length=length)

    def _coefficients(self, state: AndersonState) -> Any:
        """Return γ (B, 1, n)."""
        n = state.used
        matrix, weight = state.gram, state.weight
        if weight.shape[1] > n:
            matrix, weight = matrix[:, :n, :n], weight[:, :n]
        if self.filter and self.kind == "II":
            matrix, kept = self._filtered(matrix, state.newest, self.filter)
            weight = weight * kept[:, 0]
        scale = small(weight)[:, None]
        return scale * _solved(matrix, scale * small(state.rhs))

    def _filtered(self, matrix: Tensor, newest: int, least: float) -> tuple[Tensor, Tensor]:
        """Return the matrix without the columns nearly in the span of newer ones, (B, 1, n) those.

        What is left of a column beside the newer ones is on the diagonal of a Cholesky factor.
        """
        n = matrix.shape[1]
        order = [(newest - k) % n for k in range(n)]
        back = [order.index(k) for k in range(n)]
        factor, _ = torch.linalg.cholesky_ex(matrix[:, order][:, :, order])
        sines = torch.diagonal(factor, dim1=1, dim2=2)[:, back]
        kept = (sines > least).to(matrix.dtype)[:, None]
        eye = torch.eye(n, dtype=matrix.dtype, device=matrix.device)
        return matrix * kept * kept.mT + eye * (1 - kept), kept

    def inverse(self, state: AndersonState) -> LowRank | None:
        """Return the multisecant estimate β I − (ΔZ + β ΔR) (ΔRᵀΔR)⁻¹ ΔRᵀ.

        A step needs the product with r alone, whatever the condition; an operator for any vector
        does without the columns that newer ones all but imply (type I: small singular values).
        """
        n = state.used
        if not n:
            return None
        weight = state.weight[:, :n]
        gram = torch.nan_to_num(state.gram[:, :n, :n], posinf=0.0, neginf=0.0)
        if self.kind == "I":
            middle = torch.linalg.pinv(gram, rtol=IMPLIED**4)
        else:
            gram, kept = self._filtered(gram, state.newest, max(self.filter, IMPLIED))
            middle = torch.nan_to_num(torch.linalg.inv_ex(gram)[0]) * kept * kept.mT
        middle = -weight[:, :, None] * middle * weight[:, None, :]
        images, changes = state.images[:, :n], state.changes[:, :n]
        left = images if self.mixing == 1 else images - (1 - self.mixing) * changes
        right = changes if self.kind == "II" else state.steps[:, :n]
        scale = torch.full_like(state.r[:, 0], self.mixing)
        return LowRank(scale, left, middle, right)


def _unit(size: Any) -> Any:
    """Return 1/√|size|, of 0 a number that leaves a column of zeros as it is."""
    if isinstance(size, Tensor):  # with a derivative that is finite at zero
        return torch.where(size == 0, 1.0, size.abs()).rsqrt()
    return np.where(size == 0, 1.0, abs(size)) ** -0.5


def _solved(matrix: Tensor, rhs: Any) -> Any:
    """Return the solution (B, 1, n) of a scaled system with the right-hand side (B, 1, n).

    It is 0, plain iteration for once, where there is none.
    """
    if isinstance(rhs, Tensor):
        solution = torch.linalg.solve_ex(matrix, rhs.mT)[0].mT
        return torch.where(torch.isfinite(solution), solution, 0.0)
    try:  # twice as fast as torch, whose threads cost more than so small a solve
        found = np.linalg.solve(matrix.numpy(), rhs.mT).mT
    except np.linalg.LinAlgError:  # of one sample; torch solves the others
        return _solved(matrix, torch.from_numpy(rhs)).numpy()
    return found if np.isfinite(found.sum()) else np.where(np.isfinite(found), found, 0.0)
