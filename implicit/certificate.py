"""A certificate: how inexact the gradient of an equilibrium is, estimated without a reference.

The gradient uᵀ ∂f/∂θ at z is off because z is (residual r = f(z) − z) and because u is (residual
ρ = c − (I − J)ᵀu). To first order, with A = I − J at z,

    δ = A⁻¹ r                                  is missing from z,
    Δu = A⁻ᵀ ρ                                 from u, by its own residual,
    Δu' = A⁻ᵀ (J(z + δ) − J(z))ᵀ u             from u, as J is another at z*,

and the relative error of the gradient is that of u, and that of z where ∂f/∂θ grows with z as in
any layer W z. J(z + δ)ᵀu is one product at one more evaluation. For A⁻¹ stands what the adjoint
solve has learnt: with GMRES's basis V and square Hessenberg matrix H, A⁻ᵀ ≈ I + V (H⁻¹ − I) Vᵀ,
and its transpose for δ. Adjoint solvers that leave no basis are taken at the amplification that
they have seen, ‖u‖ / ‖c‖. The evaluation also tells how much of δ was left out, by its residual
r⁺ there: the forward part is raised by ‖δ + A⁻¹r⁺‖ / ‖δ‖. Parts are added as squares, since they
point in directions of their own.

How the cotangent c changes with z is the loss's matter and cannot be seen from here: where the loss
is curved it is an error of the size of the others, and within what the calibration allows.

References: Y. Saad, Iterative Methods for Sparse Linear Systems (2003), section 6.4, for the
Galerkin inverse of a Krylov space; R. Becker and R. Rannacher, Acta Numerica 10 (2001), for
adjoints that weigh residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from solvers.history import power_below, small_dtype
from solvers.inverse import LowRank, outer
from solvers.solution import Solution

# Calibrated once, on the models of the study ``gradients`` with seeds 0 to 5: what a Krylov space
# does not see of the adjoint's error, and the roundings of a gradient.
UNSEEN = 1.5
ROUNDINGS = 1.0
# The most that the correction of a correction may change.
MOST_RAISED = 10.0

# Of ``reltol="auto"``. The share of the requested error that each of its two parts is to have: with
# equal parts the sum is the request. No tolerance is looser than LOOSEST, or moves by more than a
# factor FASTEST in a step, as a certificate far from its tolerance says little of another one.
SHARE = math.sqrt(0.5)
LOOSEST, FASTEST = 0.1, 10.0


@dataclass(frozen=True)
class Certificate:
    """The estimated relative error ‖g − g*‖ / ‖g*‖ of a gradient; it refers to no graph.

    It is meant for all parameters together; that of a single one may be off by more.

    Attributes
    ----------
    error
        The estimate, of all parts: √(forward² + adjoint² + rounding²).
    forward
        The part of the forward residual.
    adjoint
        The part of the adjoint's residual.
    rounding
        What the precision of the function leaves, whatever the tolerances.
    conditioning
        ‖u‖ / ‖c‖ or ‖δ‖ / ‖r‖, the larger: how residuals are amplified.
    evaluations, products
        What the estimate itself has cost, which no other count includes.
    """

    error: float
    forward: float
    adjoint: float
    rounding: float
    conditioning: float
    evaluations: int = 1
    products: int = 1

    def __float__(self) -> float:
        """Return the estimated relative error."""
        return self.error

    @property
    def dominant(self) -> str:
        """The largest part: ``forward``, ``adjoint`` or ``rounding``."""
        parts = {"forward": self.forward, "adjoint": self.adjoint, "rounding": self.rounding}
        return max(parts, key=lambda name: parts[name])

    @property
    def sentence(self) -> str:
        """How inexact the gradient is, by what, and what would help."""
        if not math.isfinite(self.error):
            return "the error cannot be estimated: the state or the adjoint is not finite"
        advice = {
            "forward": "a smaller reltol of the forward solve would help",
            "adjoint": "a smaller reltol of the adjoint, or more products, would help",
            "rounding": "only a higher precision would help",
        }
        return (
            f"the gradient has an estimated relative error of {self.error:.1e} (forward"
            f" {self.forward:.1e}, adjoint {self.adjoint:.1e}, rounding {self.rounding:.1e}):"
            f" {advice[self.dominant]}"
        )

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence


class Learnt(NamedTuple):
    """What an adjoint solve has learnt of A⁻ᵀ, A = I − J: rows of (rows, n).

    Attributes
    ----------
    space
        The inverse of the preconditioned operator.
    precondition
        The preconditioner of the solve, if it had one.
    rest
        (B, D) the residual of the adjoint, if the solve has it.
    """

    space: LowRank
    precondition: LowRank | None = None
    rest: Tensor | None = None

    def __call__(self, v: Tensor) -> Tensor:
        """Return A⁻ᵀ v, nearly."""
        found = self.space(v)
        return found if self.precondition is None else self.precondition(found)

    def transpose(self, v: Tensor) -> Tensor:
        """Return A⁻¹ v, nearly."""
        before = v if self.precondition is None else self.precondition.flipped(v)
        return self.space.flipped(before)


# z (B, D) ↦ f(z), and the product with Jᵀ there, which is asked once
Evaluate = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


@torch.no_grad()
def certify(
    evaluate: Evaluate,
    *,
    z: Tensor,
    residual: Tensor,
    c: Tensor,
    u: Tensor,
    rest: Tensor,
    learnt: Learnt | None,
    eps: float,
    products: int = 1,
) -> Certificate:
    """Return the certificate of a gradient that has been taken; costs one evaluation.

    Parameters
    ----------
    evaluate
        Evaluates f at a point, and gives its product there.
    z, residual
        (B, D) where the gradient was taken, and f(z) − z.
    c, u, rest
        (B, D) the cotangent, the adjoint and its residual ρ.
    learnt
        What is known of the inverse; ``None`` takes the amplification that the adjoint shows.
    eps
        Of the precision in which f is evaluated.
    products
        What has been and will be spent on the certificate.
    """
    # The loss may be of any scale: powers of two change no digit.
    unit = power_below(u.abs().amax() if u.numel() else u.new_ones(()))
    u, c, rest = u / unit, c / unit, rest / unit
    further, unseen = learnt, UNSEEN
    if learnt is None:
        unseen = 1.0
        # The state's error is amplified twice, and not by the worst each time: measured.
        seen = torch.linalg.vector_norm(u, dim=1) / _safe(torch.linalg.vector_norm(c, dim=1))
        seen = seen.clamp_min(1.0)
        learnt, further = _multiple(seen, u), _multiple(seen**0.75, u)
    assert further is not None
    rows = (len(learnt.space.scale), -1)

    def corrected(r: Tensor) -> Tensor:
        return further.transpose(r.reshape(rows)).reshape(r.shape)

    # What is not needed beside the graph of the second evaluation is let go before it.
    by_adjoint = learnt(rest.reshape(rows)).reshape(u.shape)
    sizes = {"u": _norm(u), "c": _norm(c), "by_adjoint": _norm(by_adjoint), "z": _norm(z)}
    before, whole = c - u - rest, u + by_adjoint
    del c, rest, by_adjoint
    delta = corrected(residual)
    sizes |= {"residual": _norm(residual), "delta": _norm(delta)}
    there = z + delta
    del z, residual
    fz, product = evaluate(there)
    by_state = further((before + product(u)).reshape(rows)).reshape(u.shape)
    sizes |= {"by_state": _norm(by_state), "whole": _norm(whole + by_state)}
    sizes["left"] = _norm(delta + corrected(fz - there))
    order = ("u", "c", "by_adjoint", "by_state", "whole", "z", "residual", "delta", "left")
    # One read of the device for all.
    numbers = torch.stack([sizes[k].to(small_dtype(sizes[k])) for k in order]).tolist()
    return _assembled(numbers, unseen, eps, products)


def _multiple(factors: Tensor, like: Tensor) -> Learnt:
    """Return a multiple (B,) of the identity on (B, D)."""
    none = like.new_zeros(len(like), 0, like.shape[1])
    return Learnt(outer(factors, none, none))


def _assembled(numbers: Sequence[float], unseen: float, eps: float, products: int) -> Certificate:
    """Return the certificate from the norms of what moves and of what it moves."""
    u, c, by_adjoint, by_state, whole, z, residual, delta, left = numbers
    raised = min(max(_ratio(left, delta, 1.0), 1 / MOST_RAISED), MOST_RAISED)
    seen = _ratio(u, c, 1.0)
    forward = raised * math.hypot(_ratio(by_state, whole), _ratio(delta, z))
    adjoint = unseen * _ratio(by_adjoint, whole)
    rounding = ROUNDINGS * eps * max(1.0, seen)
    parts = (forward, adjoint, rounding)
    # One part that is no number says nothing of the sum but that.
    finite = all(map(math.isfinite, (*parts, *numbers)))
    return Certificate(
        error=math.hypot(*parts) if finite else math.inf,
        forward=forward,
        adjoint=adjoint,
        rounding=rounding,
        conditioning=max(seen, raised * _ratio(delta, residual, 1.0)),
        products=products,
    )


def _ratio(part: float, whole: float, otherwise: float = 0.0) -> float:
    return part / whole if whole > 0 else otherwise


@dataclass
class Tolerances:
    """The tolerances of the next step, from the certificate of the last: ``reltol="auto"``.

    Both parts of the error are proportional to the residuals they come from. A part that is
    measured at some residual therefore tells which tolerance gives it the size wanted; this
    amplification is smoothed over the steps by its geometric mean with the one before.

    Attributes
    ----------
    error
        The requested relative error of the gradient.
    forward, adjoint
        The tolerances of the next step. The first step's are the requested error itself.
    """

    error: float
    forward: float = 0.0
    adjoint: float = 0.0
    _amplified: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Start where both residuals are as large as the error may be."""
        self.forward = self.adjoint = min(self.error, LOOSEST)

    def learn(self, solution: Solution) -> None:
        """Choose the tolerances after a step whose backward has run; without it nothing changes."""
        found: Certificate | None = solution.certificate
        adjoint = solution.adjoint
        if found is None or adjoint is None or not math.isfinite(found.error):
            return
        floor = 4 * torch.finfo(getattr(torch, solution.dtype)).eps
        measured = (
            found.forward / max(_reached(solution), floor),
            found.adjoint / max(_reached(adjoint), floor),
        )
        last = self._amplified or measured
        now = [math.sqrt(max(m, 1e-12) * k) for m, k in zip(measured, last, strict=True)]
        self._amplified = (now[0], now[1])
        self.forward, self.adjoint = (
            min(max(SHARE * self.error / a, t / FASTEST, floor), FASTEST * t, LOOSEST)
            for a, t in zip(now, (self.forward, self.adjoint), strict=True)
        )


def _reached(solution: Solution) -> float:
    """Return the residual relative to what the tolerance is relative to, over the whole batch."""
    whole = float(_norm(solution.scale))
    return float(_norm(solution.residual)) / whole if whole > 0 else 0.0


def precision(z: Tensor) -> float:
    """Return the eps in which a function of z is evaluated: that of autocast, where it is on."""
    kind = z.device.type
    if torch.is_autocast_enabled(kind):
        return max(torch.finfo(z.dtype).eps, torch.finfo(torch.get_autocast_dtype(kind)).eps)
    return torch.finfo(z.dtype).eps


def _norm(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v)
    return size


def _safe(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, 1.0)
