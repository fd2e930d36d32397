"""Newton–Krylov: Newton's step by GMRES on products with the Jacobian.

    ‖r − (I − J(z)) d‖ ≤ η ‖r‖,    r = f(z) − z,    z ← z + t d,

with the forcing terms of Eisenstat and Walker (choice 2 with its safeguard),
η = γ (‖r‖/‖r₋‖)^α, held above γ η₋^α while that exceeds 0.1, and never below what the tolerance τ
asks for: η ≥ τ / (2 ‖r‖). An estimate M of (I − J)⁻¹ preconditions from the right: GMRES solves
(I − J) M y = r, and d = M y. A step is shortened where the residual explodes, or does not fall for
long.

Reference: S. Eisenstat, H. Walker, SIAM J. Sci. Comput. 17 (1996), and SIAM J. Optim. 4 (1994) for
the line search; D. Knoll, D. Keyes, J. Comput. Phys. 193 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers import linesearch, watchdog
from solvers.evaluation import Linearisation
from solvers.inverse import Inverse
from solvers.linear.gmres import arnoldi_solve
from solvers.linesearch import Search, any_of, square, where
from solvers.solver import Linearise, Solver, state_bytes
from solvers.watchdog import Watchdog


class NewtonKrylovState(NamedTuple):
    """What a step leaves to the next one, (B,) each where nothing else is said.

    Attributes
    ----------
    failed
        No step can lower the residual.
    square
        ‖r‖² at the last point with a linearisation.
    forcing
        η there.
    tolerance
        The residual norms to reach, if they are known.
    search, watchdog
        The line search in progress.
    preconditioner
        The estimate of (I − J)⁻¹, if there is one.
    basis_bytes
        The most that a Krylov basis took so far, in bytes.
    """

    failed: Tensor
    square: Tensor | None = None
    forcing: Tensor | None = None
    tolerance: Tensor | None = None
    search: Search | None = None
    watchdog: Watchdog | None = None
    preconditioner: Inverse | None = None
    basis_bytes: int = 0


@dataclass(frozen=True)
class NewtonKrylov(Solver):
    """Newton with batched GMRES, each sample with its own Krylov space.

    Started from an earlier solution with an ``inverse``, that preconditions.

    Parameters
    ----------
    inner
        The most products a step may take.
    forcing
        η of the first step, and the largest later.
    gamma, alpha
        γ and α of the Eisenstat–Walker rule.
    globalisation
        ``line_search`` shortens steps that let the residual explode, or that do not lower it for
        long; ``none`` takes every step.
    relaxed
        Trials in a row without progress before the residual has to fall (the watchdog); 0 demands
        it at once.
    """

    inner: Annotated[int, Field(ge=1)] = 30
    forcing: Annotated[float, Field(gt=0, lt=1)] = 0.1
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.9
    alpha: Annotated[float, Field(gt=1, le=2)] = (1 + 5**0.5) / 2
    globalisation: Literal["none", "line_search"] = "line_search"
    relaxed: Annotated[int, Field(ge=0)] = 40

    name: ClassVar[str] = "newton_krylov"
    requires: ClassVar[frozenset[str]] = frozenset({"linearise", "blocks"})
    reference: ClassVar[str] = "Eisenstat & Walker 1996; Knoll & Keyes 2004"

    def init(self, z: Tensor, fz: Tensor) -> NewtonKrylovState:
        """Return a state without a past."""
        return NewtonKrylovState(torch.zeros(z.shape[0], dtype=torch.bool, device=z.device))

    def resume(self, z: Tensor, fz: Tensor, inverse: Inverse) -> NewtonKrylovState:
        """Return a state whose linear systems ``inverse`` preconditions."""
        return self.init(z, fz)._replace(preconditioner=inverse)

    def aim(self, state: NewtonKrylovState, tolerance: Tensor) -> NewtonKrylovState:
        """Return the state with the residual norms to reach, below which η need not go."""
        return state._replace(tolerance=tolerance)

    def step(
        self, state: NewtonKrylovState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, NewtonKrylovState]:
        """Return the next trial of each sample."""
        r = fz - z
        size = square(r)
        everyone = torch.ones_like(state.failed)
        if self.globalisation == "none" or state.search is None or state.watchdog is None:
            search, state = self._onward(state, everyone, z, r, linearise)
            if self.globalisation == "none":
                return search.point, state
            dog = watchdog.start(z, size, self.relaxed)
            return search.point, state._replace(search=search, watchdog=dog)
        last, at_home = state.search, state.watchdog.home
        dog = state.watchdog.seen(z, size.detach(), self.relaxed)
        accepted = linesearch.accepted(last, size) | dog.lets(size) | at_home
        # After so many trials the last one is where a sample goes on, if that is possible.
        accepted = (accepted | ~last.open) & ~dog.home
        search = linesearch.shortened(last, size)
        state = state._replace(failed=torch.zeros_like(state.failed), watchdog=dog)
        if any_of(accepted):
            new, state = self._onward(state, accepted, z, r, linearise)
            search = where(accepted, new, search)
        point = torch.where(dog.home[:, None], dog.z, search.point)
        return point, state._replace(search=search)

    def _onward(
        self,
        state: NewtonKrylovState,
        going: Tensor,
        z: Tensor,
        r: Tensor,
        linearise: Linearise,
    ) -> tuple[Search, NewtonKrylovState]:
        """Return the searches along d from z, for the samples that are ``going``."""
        size = torch.linalg.vector_norm(r.detach(), dim=1)
        forcing = self._forcing(state, size)
        products = linearise()
        solved = arnoldi_solve(
            lambda v: _image(products, v),
            r,
            tolerance=torch.where(going, forcing * size, torch.inf),
            max_products=self.inner,
            precondition=state.preconditioner,
        )
        direction = solved.x
        left = torch.linalg.vector_norm(solved.r.detach(), dim=1)
        found = torch.isfinite(direction.detach()).all(dim=1) & (left < size)
        direction = torch.where(found[:, None], direction, 0.0)
        promised = torch.where(found & (size > 0), 1 - left / torch.where(size > 0, size, 1.0), 0.0)
        lost = going & ~found & (size > 0)
        if any_of(lost):
            downhill, share = _downhill(products, torch.where(lost[:, None], r, 0.0))
            direction = torch.where(lost[:, None], downhill, direction)
            promised = torch.where(lost, share, promised)
            lost = lost & ~(share > 0)
        before, forced = state.square, state.forcing
        now = square(r.detach())
        state = state._replace(
            failed=lost,
            square=now if before is None else torch.where(going, now, before),
            forcing=forcing if forced is None else torch.where(going, forcing, forced),
            basis_bytes=max(state.basis_bytes, solved.basis_bytes),
        )
        return linesearch.start(z, r, direction, promised, 1.0), state

    def _forcing(self, state: NewtonKrylovState, size: Tensor) -> Tensor:
        """Return η (B,)."""
        if state.square is None or state.forcing is None:
            forcing = torch.full_like(size, self.forcing)
        else:
            before = torch.where(state.square > 0, state.square, 1.0).sqrt()
            forcing = self.gamma * (size / before) ** self.alpha
            held = self.gamma * state.forcing**self.alpha
            forcing = torch.where(held > 0.1, torch.maximum(forcing, held), forcing)
        # Below the rounding of the products a smaller η buys nothing.
        least = torch.full_like(size, 10 * torch.finfo(size.dtype).eps)
        if state.tolerance is not None:
            asked = 0.5 * state.tolerance.to(size.dtype) / torch.where(size > 0, size, 1.0)
            least = torch.maximum(least, asked)
        return torch.maximum(forcing.clamp(max=self.forcing), least).clamp(max=0.9)

    def failed(self, state: NewtonKrylovState) -> Tensor:
        """Return which samples got no step, as with a singular Jacobian, or no finite one."""
        return state.failed

    def trial(self, state: NewtonKrylovState) -> Tensor | None:
        """Return which points may be given up."""
        if state.search is None or state.watchdog is None:
            return None
        return state.search.open | state.watchdog.home

    def memory(self, state: NewtonKrylovState) -> int:
        """Return the bytes of the state and of the largest Krylov basis so far."""
        return state_bytes(state) + state.basis_bytes


def _image(products: Linearisation, v: Tensor) -> Tensor:
    """Return (I − J) v."""
    return v - products.jvp(v)


def _downhill(products: Linearisation, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step (B, D) to the minimum of ‖r − A d‖ down its gradient, and what it gains.

    The gain 1 − ‖r − A d‖ / ‖r‖ (B,) is zero where the gradient vanishes or is not finite.
    """
    gradient = r - products.vjp(r)
    image = _image(products, gradient)
    curvature = square(image)
    sound = (curvature > 0) & torch.isfinite(curvature)
    length = torch.where(sound, square(gradient) / torch.where(sound, curvature, 1.0), 0.0)
    step = torch.where(sound[:, None], length[:, None] * gradient, 0.0)
    left = torch.linalg.vector_norm((r - length[:, None] * image).detach(), dim=1)
    size = torch.linalg.vector_norm(r.detach(), dim=1)
    gain = torch.where(sound & (size > 0), 1 - left / torch.where(size > 0, size, 1.0), 0.0)
    return step, gain.clamp(min=0)
