"""Newton's method with the dense Jacobian of each sample.

    (I − J(z)) d = f(z) − z,    z ← z + d,

made global by a line search along d or by a trust region around z: full steps converge from near,
and from afar they may overshoot without end.

Reference: C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations (1995), chapter 5;
J. Dennis, R. Schnabel, Numerical Methods for Unconstrained Optimization and Nonlinear Equations
(1983), section 6.5, for the step at a singular Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers import linesearch, trust_region, watchdog
from solvers.linesearch import Search, any_of, square, where
from solvers.solver import Linearise, Solver, state_bytes
from solvers.trust_region import Region
from solvers.watchdog import Watchdog


class NewtonState(NamedTuple):
    """Of each sample: (B,) bools, and the trial in progress, if there are any.

    Attributes
    ----------
    failed
        No step can lower the residual.
    trial
        The point proposed last may be given up.
    search
        What may be tried instead.
    watchdog
        Whether the residual has to fall.
    """

    failed: Tensor
    trial: Tensor | None = None
    search: Search | Region | None = None
    watchdog: Watchdog | None = None


@dataclass(frozen=True)
class Newton(Solver):
    """Newton with J built row by row from products with its transpose, under vmap.

    Converges quadratically from near; costs D products and a factorisation of D × D a step. A
    trial that is not accepted costs an evaluation, and where finding out is free (on the CPU) no
    Jacobian.

    Parameters
    ----------
    globalisation
        ``none`` takes every step; ``line_search`` shortens it until the residual falls;
        ``trust_region`` bends it towards the gradient as well (Powell's dogleg).
    damping
        Part of the Newton step that is taken, in (0, 1], or tried first.
    relaxed
        Trials in a row without progress before the residual has to fall (the watchdog); 0 demands
        it at once.
    max_dim
        Largest state size D that it accepts: a dense Jacobian takes B·D² numbers.
    """

    globalisation: Literal["none", "line_search", "trust_region"] = "trust_region"
    damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    relaxed: Annotated[int, Field(ge=0)] = 30
    max_dim: Annotated[int, Field(ge=1)] = 2048

    name: ClassVar[str] = "newton"
    requires: ClassVar[frozenset[str]] = frozenset({"linearise", "blocks"})
    reference: ClassVar[str] = "Kelley 1995; Dennis & Schnabel 1983; Powell 1970"

    def init(self, z: Tensor, fz: Tensor) -> NewtonState:
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
        return NewtonState(torch.zeros(z.shape[0], dtype=torch.bool, device=z.device))

    def step(
        self, state: NewtonState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, NewtonState]:
        """Return the next trial of each sample."""
        r = fz - z
        if self.globalisation == "none":
            _, direction, failed = self._linear(r, linearise)
            return z + self.damping * direction, NewtonState(failed)
        size = square(r)
        search, dog = state.search, state.watchdog
        if search is None or dog is None:
            new, failed = self._onward(z, r, None, None, linearise)
            dog = watchdog.start(z, size, self.relaxed)
            return new.point, NewtonState(failed, new.open, new, dog)
        at_home = dog.home
        dog = dog.seen(z, size.detach(), self.relaxed)
        again: Search | Region
        if isinstance(search, Region):
            accepted, again = trust_region.judged(search, size)
        else:
            accepted = linesearch.accepted(search, size)
            again = linesearch.shortened(search, size)
        # After so many trials the last one is where a sample goes on, if that is possible.
        accepted = accepted | at_home | dog.lets(size) | ~search.open
        failed = torch.zeros_like(state.failed)
        if any_of(accepted & ~dog.home):
            new, failed = self._onward(z, r, again, ~dog.strict | at_home, linearise)
            again = where(accepted, new, again)
            failed = failed & accepted & ~dog.home
        point = torch.where(dog.home[:, None], dog.z, again.point)
        return point, NewtonState(failed, again.open | dog.home, again, dog)

    def _linear(self, r: Tensor, linearise: Linearise) -> tuple[Tensor, Tensor, Tensor]:
        """Return I − J (B, D, D), Newton's step (B, D), and where there is none (B,)."""
        jacobian = linearise().jacobian()
        finite = torch.isfinite(jacobian).all(dim=2).all(dim=1) & torch.isfinite(r).all(dim=1)
        eye = torch.eye(r.shape[1], dtype=r.dtype, device=r.device)
        A = torch.where(finite[:, None, None], eye - jacobian, eye)
        direction, failed = newton_step(A, torch.where(finite[:, None], r, 0.0))
        failed = failed | ~finite
        # A sample without a step stays where it is; the loop ends it.
        return A, torch.where(failed[:, None], 0.0, direction), failed

    def _onward(
        self,
        z: Tensor,
        r: Tensor,
        last: Search | Region | None,
        fresh: Tensor | None,
        linearise: Linearise,
    ) -> tuple[Search | Region, Tensor]:
        """Return the searches that start from z, and where there is no step."""
        A, direction, failed = self._linear(r, linearise)
        if self.globalisation == "trust_region":
            region = last if isinstance(last, Region) else None
            return trust_region.start(
                z, r, A, self.damping * direction, last=region, fresh=fresh
            ), failed
        one = torch.ones_like(r[:, 0])
        return linesearch.start(z, r, direction, one, self.damping), failed

    def failed(self, state: NewtonState) -> Tensor:
        """Return which samples had a singular Jacobian, and no gradient to follow."""
        return state.failed

    def trial(self, state: NewtonState) -> Tensor | None:
        """Return which points may be given up."""
        return state.trial

    def memory(self, state: NewtonState) -> int:
        """Return the bytes of the state and of the Jacobian."""
        search = state.search
        if search is None:
            return state_bytes(state)
        return state_bytes(state) + search.z.nbytes * search.z.shape[1]


def newton_step(A: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return d (B, D) with A d = r, and where there is none (B,).

    Where A (B, D, D) is singular, or LU loses more than half of r to rounding, d is the solution
    of (AᵀA + μ) d = Aᵀr with μ = √(D ε) ‖AᵀA‖₁: a step down the gradient of ‖r‖². There is none
    where that gradient vanishes.
    """
    rhs = r[:, :, None]
    with torch.no_grad():
        found, info = torch.linalg.solve_ex(A, rhs)
        left = torch.linalg.vector_norm(torch.nan_to_num(rhs - A @ found, torch.inf), dim=1)
        regular = (info == 0) & (left <= torch.linalg.vector_norm(rhs, dim=1) / 2)[:, 0]
    if not any_of(~regular):
        return torch.linalg.solve_ex(A, rhs)[0][:, :, 0], ~regular
    eye = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
    direct = torch.linalg.solve_ex(torch.where(regular[:, None, None], A, eye), rhs)[0]
    normal = A.transpose(1, 2) @ A
    gradient = A.transpose(1, 2) @ rhs
    size = torch.linalg.matrix_norm(normal.detach(), ord=1)
    shift = (A.shape[1] * torch.finfo(A.dtype).eps) ** 0.5 * size
    flat = shift == 0
    shift = torch.where(flat, 1.0, shift)[:, None, None]
    shifted = torch.linalg.solve_ex(normal + shift * eye, gradient)[0]
    direction = torch.where(regular[:, None, None], direct, shifted)[:, :, 0]
    level = (gradient == 0).all(dim=1)[:, 0]
    return direction, ~regular & (flat | level | ~torch.isfinite(direction).all(dim=1))
