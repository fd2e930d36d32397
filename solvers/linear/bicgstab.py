"""BiCGStab, right-preconditioned, its scalars a sample: two products an iteration, short memory.

    α = ⟨r̂, r⟩ / ⟨r̂, A P p⟩,    s = r − α A P p,    ω = ⟨A P s, s⟩ / ‖A P s‖²,
    x ← x + P (α p + ω s),      r ← s − ω A P s,     p ← r + β (p − ω A P p).

The residual does not fall evenly and is known by recurrence alone. So the best iterate is kept, the
residual there is evaluated before it is reported, and a sample that is not at its tolerance starts
anew from it, with a new shadow residual r̂. Near a breakdown ⟨r̂, r⟩ ≈ 0 a sample starts anew at
once; where ⟨r̂, A P p⟩ ≈ 0, as with a skew A, r̂ = r / ‖r‖ + A P p / ‖A P p‖ avoids it. ω is
enlarged where s and A P s are nearly orthogonal.

Reference: H. van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992); G. Sleijpen, H. van der Vorst,
Numer. Algorithms 10 (1995), for ω.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from solvers.history import dot
from solvers.judge import PATIENCE, PROGRESS, to_l2
from solvers.judge import norm as row_norm
from solvers.linear.base import LinearResult, LinearSolver, Product
from solvers.linear.basis import length, widened
from solvers.solution import ReturnCode
from solvers.solver import free_reads, reading_interval

# ω is enlarged where the cosine between s and A s is below this; Sleijpen & van der Vorst's choice.
COSINE = 0.7
# Vectors of a state: x, its best, r, the shadow, p, A P p, s, A P s.
VECTORS = 8


class Cycle(NamedTuple):
    """What the iterations from one start found (B, D), by recurrence, and what they took."""

    x: Tensor
    products: int
    reads: int
    trace: list[tuple[int, Tensor, Tensor]]


@dataclass(frozen=True)
class BiCGStab(LinearSolver):
    """Stabilised biconjugate gradients: eight vectors of memory, however many products."""

    name: ClassVar[str] = "bicgstab"
    reference: ClassVar[str] = "van der Vorst 1992"

    def solve(
        self,
        product: Product,
        b: Tensor,
        *,
        tolerance: Tensor,
        max_products: int,
        precondition: Product | None = None,
        norm: str = "l2",
    ) -> LinearResult:
        """Solve A x = b; a start that gains less than 1 % ends a sample as STALLED.

        One product of the budget is kept for the residual that is reported, so that fewer than
        three leave x = 0.
        """
        dtype, factor = b.dtype, to_l2(norm, b.shape[1])
        right = precondition or (lambda v: v)
        apply, wide = widened(lambda v: product(right(v)), b)
        # Squares of squares: a size near 1 keeps them in range.
        unit = length(wide.detach())
        unit = torch.exp2(torch.floor(torch.log2(torch.where(unit > 0, unit, 1.0))))
        rhs, tolerance = wide / unit[:, None], tolerance / unit
        x, r = torch.zeros_like(rhs), rhs
        result = LinearResult(x, row_norm(r, norm), 0, history_bytes=VECTORS * wide.nbytes)
        reasons = torch.full_like(result.residual, int(ReturnCode.MAX_EVALUATIONS), dtype=torch.int)
        going = ~(result.residual <= tolerance)
        result.reads = 1
        while result.products + 3 <= max_products and bool(going.any()):
            target = torch.where(going, tolerance * factor, torch.inf)
            cycle = _iterate(
                apply,
                r,
                target,
                max_products - result.products - 1,
                noise=torch.finfo(dtype).eps,
            )
            candidate = torch.where(going[:, None], x + cycle.x, x)
            residual = rhs - apply(candidate)
            before, after = result.residual, row_norm(residual, norm)
            better = going & ~(after >= before)
            x = torch.where(better[:, None], candidate, x)
            r = torch.where(better[:, None], residual, r)
            result.residual = torch.where(better, after, before)
            result.trace += [(n + result.products, s * unit.amax(), a) for n, s, a in cycle.trace]
            result.products += cycle.products + 1
            result.reads += cycle.reads + 1
            missed = going & ~(result.residual <= tolerance)
            whole = result.products + 3 <= max_products
            stalled = missed & (after > 0.99 * before) & whole
            reasons = reasons.masked_fill(stalled, int(ReturnCode.STALLED))
            broken = missed & ~torch.isfinite(after)
            reasons = reasons.masked_fill(broken, int(ReturnCode.NONFINITE))
            going = missed & ~stalled & ~broken
            worst = torch.where(going, result.residual, 0.0).amax() * unit.amax()
            result.trace.append((result.products, worst, going.sum()))
        # Where not even A 0 is a number, no x is.
        known = torch.isfinite(result.residual)[:, None]
        result.x = torch.where(known, right((x * unit[:, None]).to(dtype)), torch.nan)
        result.residual = result.residual * unit
        result.reasons = reasons
        return result


def _iterate(
    apply: Product, r: Tensor, tolerance: Tensor, max_products: int, *, noise: float
) -> Cycle:
    """Iterate from x = 0 with the residual r (B, D) until every sample rests.

    A sample rests when it is at its tolerance (B,), or was not at a new best residual for long.
    ``noise`` is the rounding of a product; cosines below ten times that are zeros.
    """
    noise = 10 * noise
    every = reading_interval(r)
    x, best_x = torch.zeros_like(r), torch.zeros_like(r)
    best = length(r)[:, None]
    size, goal = best, tolerance[:, None]
    live = size > goal
    shadow, p, v = r, torch.zeros_like(r), torch.zeros_like(r)
    one = torch.ones_like(best)
    rho, alpha, omega, waited = one, one, one, torch.zeros_like(best)
    products = reads = iteration = 0
    trace: list[tuple[int, Tensor, Tensor]] = []
    while products + 2 <= max_products:
        looks = iteration % every == 0
        iteration += 1
        if looks:
            reads += 1
            if not bool(live.any()):
                break
        following = dot(shadow, r)
        fresh = following.abs() <= noise * length(shadow)[:, None] * size
        fresh = fresh | (rho == 0) | (omega == 0)
        shadow = torch.where(fresh, r, shadow)
        following = torch.where(fresh, size * size, following)
        beta = torch.where(fresh, 0.0, _ratio(following, rho) * _ratio(alpha, omega))
        p = torch.where(live, r + beta * torch.where(fresh, 0.0, p - omega * v), 0.0)
        v = apply(p)
        products += 1
        size_v = length(v)[:, None]
        sigma = dot(shadow, v)
        weak = sigma.abs() <= noise * length(shadow)[:, None] * size_v
        shadow = torch.where(weak, _ratio(r, size) + _ratio(v, size_v), shadow)
        sigma = torch.where(weak, dot(shadow, v), sigma)
        rho = torch.where(weak, dot(shadow, r), following)
        alpha = torch.where(live, _ratio(rho, sigma), 0.0)
        s = r - alpha * v
        size_s = length(s)[:, None]
        there = size_s <= goal
        x = x + alpha * p
        if looks and free_reads(r) and bool((there | ~live).all()):
            # Half an iteration was enough, and one may know it.
            best_x = torch.where(live, x, best_x)
            trace.append((products, torch.zeros_like(size.amax()), live.sum() * 0))
            break
        t = apply(s)
        products += 1
        size_t = length(t)[:, None]
        omega = _ratio(dot(t, s), size_t * size_t)
        cosine = _ratio(dot(t, s), size_t * size_s)
        larger = COSINE * torch.where(cosine < 0, -1.0, 1.0) * _ratio(size_s, size_t)
        omega = torch.where(cosine.abs() < COSINE, larger, omega)
        omega = torch.where(live & ~there, omega, 0.0)
        x = x + omega * s
        r = s - omega * t
        size = length(r)[:, None]
        better = live & ((size < best) | (size <= goal))
        best_x = torch.where(better, x, best_x)
        waited = torch.where(size < (1 - PROGRESS) * best, 0.0, waited + 1)
        best = torch.where(better, size, best)
        live = live & (size > goal) & (waited < PATIENCE)
        trace.append((products, torch.where(live, size, 0.0).amax(), live.sum()))
    return Cycle(best_x, products, reads, trace)


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y, or 0 where y is 0."""
    zero = y == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, y))
