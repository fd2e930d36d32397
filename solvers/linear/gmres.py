"""GMRES, a Krylov space a sample, reorthogonalised.

The residual norm of each step needs no rotation: with the left null vector w of the Hessenberg
matrix, w₁ = 1, wⱼ₊₁ = −(Σᵢ wᵢ hᵢⱼ) / hⱼ₊₁ⱼ, the minimal residual is ‖b‖ / ‖w‖.

Reference: Y. Saad, M. Schultz, SIAM J. Sci. Stat. Comput. 7 (1986); L. Giraud et al., Numer. Math.
101 (2005), for classical Gram–Schmidt done twice; the recurrence is E. Ayachour's, J. Comput.
Appl. Math. 159 (2003).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from solvers.history import by_numpy, small, small_dtype
from solvers.inverse import LowRank
from solvers.judge import norm as row_norm
from solvers.judge import to_l2
from solvers.linear.base import LinearResult, LinearSolver, Product
from solvers.linear.basis import Basis, length, widened
from solvers.solution import ReturnCode
from solvers.solver import free_reads, reading_interval


class Cycle(NamedTuple):
    """One Krylov cycle: what it found and what it took.

    Attributes
    ----------
    x, r
        (B, D) the solution and its residual b − A x, by recurrence.
    residual
        (B,) the l2 norms of r, from its coordinates in the basis.
    products
        Products with A, on the batch.
    counts
        (B,) products that each sample took part in.
    live
        (B,) samples whose space may grow further: neither at the tolerance nor exhausted.
    trace
        (products so far, largest residual norm, active samples) after each product.
    basis_bytes
        What the basis took, in bytes.
    reads
        Reads of the device.
    space
        Gives the Galerkin inverse on the space, I + V (H⁻¹ − I) Vᵀ; ``None`` of an empty space.
    """

    x: Tensor
    r: Tensor
    residual: Tensor
    products: int
    counts: Tensor
    live: Tensor
    trace: list[tuple[int, Tensor, Tensor]]
    basis_bytes: int
    reads: int
    space: Callable[[], LowRank] | None = None


def arnoldi_solve(
    product: Product,
    b: Tensor,
    *,
    tolerance: Tensor,
    max_products: int,
    read_every: int | None = None,
    precondition: Product | None = None,
    bounded: bool = False,
) -> Cycle:
    """Minimise ‖b − A x‖ over a Krylov space that grows until every sample is at its tolerance.

    Differentiable when grad is enabled. Vectors of half precision are kept in float32; only the
    product sees them as they came.

    Parameters
    ----------
    product
        x (B, D) ↦ A x, by samples.
    b
        (B, D).
    tolerance
        (B,) l2 residual norms. A sample at its tolerance keeps its space; the others go on. One
        of infinite tolerance takes no part.
    max_products
        The most products, which is the size of the space.
    read_every
        Products between two looks at whether all are done: 0 is never, ``None`` is each one on
        the CPU, where it is free, else never.
    precondition
        A right preconditioner P, linear: the space is that of A P, and x = P (the sum).
    bounded
        Whether the whole space may be allocated at once, as one that was chosen small.
    """
    if read_every is None:
        read_every = 1 if free_reads(b) else 0
    dtype = b.dtype
    right = precondition or (lambda v: v)
    apply, b = widened(lambda v: product(right(v)), b)
    noise = 10 * torch.finfo(b.dtype).eps
    beta = length(b)
    basis = Basis(
        b / torch.where(beta.detach() > 0, beta, 1.0)[:, None],
        max_products + 1 if bounded else None,
    )
    columns: list[Tensor] = []
    lives: list[Any] = []
    grown: list[Any] = []
    estimates: list[Any] = []
    # What is small beside the vectors, by NumPy where the host has it at hand.
    xp: Any = np if by_numpy(b) else torch
    size, goal = small(beta.detach()), small(tolerance.expand_as(beta.detach()))
    null = xp.ones_like(size)[:, None]
    square = null[:, 0]
    live = size > goal
    reads = 0
    for j in range(max_products):
        if read_every and j % read_every == 0:
            reads += 1
            if not bool(live.any()):
                break
        q, h = basis.orthogonalise(apply(basis.newest))
        rest = length(q)
        columns.append(torch.cat((h, rest[:, None]), dim=1))
        column = small(columns[-1].detach())
        # A happy breakdown: what is left of the product is rounding.
        left = column[:, -1]
        grows = live & (left > noise * xp.sqrt((column * column).sum(1)))
        if xp is np and grows.all():
            basis.push(q / rest[:, None])
        else:
            kept = torch.as_tensor(grows)
            safe = torch.where(kept, rest, 1.0)
            basis.push(torch.where(kept[:, None], q / safe[:, None], 0.0))
        del q  # else it would live through the next product
        following = (null * column[:, :-1]).sum(1) / -xp.where(grows, left, 1.0)
        null = xp.concatenate((null, xp.where(grows, following, 0.0)[:, None]), 1)
        square = square + following * following
        lives.append(live)
        grown.append(grows)
        estimates.append(size / xp.sqrt(square))
        live = grows & (estimates[-1] > goal)
    k = len(columns)
    live = torch.as_tensor(live)
    if k == 0:
        zero = torch.zeros_like(live, dtype=torch.long)
        return Cycle(torch.zeros_like(b).to(dtype), b.to(dtype), beta, 0, zero, live, [], 0, reads)
    active = torch.as_tensor(xp.stack(lives, 1))
    going = torch.cat((active[:, 1:], live[:, None]), dim=1)
    hessenberg = _hessenberg(columns, active, torch.as_tensor(xp.stack(grown, 1)))
    y = _least_squares(hessenberg, beta)
    start = torch.nn.functional.pad(beta[:, None], (0, k))
    coordinates = start - (hessenberg @ y[:, :, None])[:, :, 0]
    x = (y[:, None] @ basis.vectors[:, :k])[:, 0]
    r = (coordinates[:, None] @ basis.vectors)[:, 0]
    found = torch.as_tensor(xp.stack(estimates, 1)).to(b.dtype)
    largest = torch.where(going, found, 0.0).amax(dim=0)
    trace = list(zip(range(1, k + 1), largest.unbind(), going.sum(dim=0).unbind(), strict=True))
    return Cycle(
        right(x.to(dtype)),
        r.to(dtype),
        torch.linalg.vector_norm(coordinates.detach(), dim=1),
        k,
        active.sum(dim=1),
        live,
        trace,
        basis.nbytes,
        reads,
        lambda: _galerkin(basis.vectors[:, :k], hessenberg, active),
    )


@torch.no_grad()
def _galerkin(basis: Tensor, hessenberg: Tensor, active: Tensor) -> LowRank:
    """Return I + V (H⁻¹ − I) Vᵀ, H square, the identity where a sample took no part."""
    square = hessenberg[:, :-1].detach().to(small_dtype(hessenberg))
    one = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    square = torch.where(active[:, :, None] & active[:, None, :], square, one)
    inverse = torch.linalg.inv_ex(torch.nan_to_num(square))[0]
    known = torch.isfinite(inverse).all(dim=2, keepdim=True).all(dim=1, keepdim=True)
    middle = torch.where(known, inverse, one) - one
    vectors = basis.detach()
    return LowRank(vectors.new_ones(len(vectors)), vectors, middle, vectors)


def _hessenberg(columns: list[Tensor], active: Tensor, grown: Tensor) -> Tensor:
    """Return H (B, k + 1, k) from its columns (B, j + 2)."""
    k = len(columns)
    column, row = torch.tril_indices(k, k + 1, offset=1, device=active.device)
    H = columns[0].new_zeros(active.shape[0], k, k + 1)
    H[:, column, row] = torch.cat(columns, dim=1)
    below = torch.diag_embed(torch.ones_like(active[:1]), offset=1)[:, :k]
    # A sample that is done gets columns that leave its least squares problem as it is.
    H = torch.where(below & ~grown[:, :, None], 0.0, H)
    H = torch.where(active[:, :, None], H, below.to(H.dtype))
    return H.mT


def _least_squares(hessenberg: Tensor, beta: Tensor) -> Tensor:
    """Return y (B, k) that minimises ‖β e₁ − H y‖, in float64 where there is one."""
    small = small_dtype(hessenberg)
    H, eps = torch.nan_to_num(hessenberg).to(small), torch.finfo(hessenberg.dtype).eps
    q, r = torch.linalg.qr(H)
    rhs = q[:, 0]
    diagonal = torch.diagonal(r, dim1=1, dim2=2)
    largest = diagonal.detach().abs().amax(dim=1, keepdim=True)
    # A singular operator leaves a zero on the diagonal, up to the rounding of the products: that
    # direction is left alone.
    null = diagonal.detach().abs() <= 10 * eps * largest
    r = r + torch.diag_embed(torch.where(null, 1.0, 0.0).to(small))
    rhs = torch.where(null, 0.0, rhs)
    y = torch.linalg.solve_triangular(r, rhs[:, :, None], upper=True)[:, :, 0]
    # Or it leaves a step that is larger than its rounding lets one use.
    lost = eps * H.detach().abs().amax(dim=(1, 2)) * torch.linalg.vector_norm(y.detach(), dim=1)
    y = torch.where((lost < 1)[:, None], y, 0.0)
    found: Tensor = (y * beta[:, None].to(small)).to(hessenberg.dtype)
    return found


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Full or restarted GMRES.

    Parameters
    ----------
    restart
        Products a cycle, for whose (restart + 1) vectors of a state there is room from the start;
        ``None`` keeps the whole space, which grows as it is needed.
    """

    restart: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "gmres"
    reference: ClassVar[str] = "Saad & Schultz 1986"

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
        """Solve A x = b; a sample that gains less than 1 % in a whole cycle is STALLED."""
        dtype, factor = b.dtype, to_l2(norm, b.shape[1])
        right = precondition or (lambda v: v)
        apply, b = widened(lambda v: product(right(v)), b)
        x, r = b.new_zeros(()), b  # no state is spent on a zero
        result = LinearResult(x, row_norm(b, norm), 0)
        reasons = torch.full_like(result.residual, int(ReturnCode.MAX_EVALUATIONS), dtype=torch.int)
        going = torch.ones_like(reasons, dtype=torch.bool)
        while result.products < max_products:
            budget = max_products - result.products
            # The basis of the cycle before would live through this one.
            result.space = cycle = None
            cycle = arnoldi_solve(
                apply,
                r,
                tolerance=torch.where(going, tolerance * factor, torch.inf),
                max_products=min(budget, self.restart or budget),
                read_every=reading_interval(b),
                bounded=self.restart is not None,
            )
            before, after = result.residual, row_norm(cycle.r, norm)
            broken = going & ~torch.isfinite(after)
            # If they go on, by rounding alone. Where the first product is no number, no x is.
            worse = ~going | (after >= before) | (broken & (result.products > 0))
            x = torch.where(worse[:, None], x, x + cycle.x)
            r = torch.where(worse[:, None], r, cycle.r)
            after = torch.where(worse, before, after)
            result.trace += [(n + result.products, s, a) for n, s, a in cycle.trace]
            result.products += cycle.products
            result.history_bytes = max(result.history_bytes, cycle.basis_bytes)
            result.reads += cycle.reads + 1
            result.residual = after
            result.space = cycle.space
            # A cycle that the budget cut short says nothing of what a whole one would gain.
            whole = ~cycle.live | (cycle.products == self.restart)
            stalled = going & (after > tolerance) & (after > 0.99 * before) & whole
            reasons = reasons.masked_fill(stalled, int(ReturnCode.STALLED))
            reasons = reasons.masked_fill(broken, int(ReturnCode.NONFINITE))
            going = going & (after > tolerance) & ~stalled & ~broken
            if cycle.products == 0 or not bool(going.any()):
                result.reason = ReturnCode.STALLED  # those above the tolerance all are
                break
        known = torch.isfinite(result.residual)[:, None]
        result.x = torch.where(known, right(x.to(dtype)), torch.nan)
        result.reasons = reasons
        result.rest = r.to(dtype)
        return result
