"""GMRES, a Krylov space a sample, reorthogonalised.

The residual norm of each step needs no rotation: with the left null vector w of the Hessenberg
matrix, w₁ = 1, wⱼ₊₁ = −(Σᵢ wᵢ hᵢⱼ) / hⱼ₊₁ⱼ, the minimal residual is ‖b‖ / ‖w‖.

Reference: Y. Saad, M. Schultz, SIAM J. Sci. Stat. Comput. 7 (1986); L. Giraud et al., Numer. Math.
101 (2005), for classical Gram–Schmidt done twice; the recurrence is E. Ayachour's, J. Comput.
Appl. Math. 159 (2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.history import empty
from solvers.judge import norm as row_norm
from solvers.linear.base import LinearResult, LinearSolver, Product
from solvers.solution import ReturnCode


class Cycle(NamedTuple):
    """One Krylov cycle: the solution and its residual (B, D), and what it took."""

    x: Tensor
    r: Tensor
    products: int
    trace: list[tuple[int, Tensor, Tensor]]
    basis_bytes: int
    reads: int


def arnoldi_solve(
    product: Product,
    b: Tensor,
    *,
    tolerance: Tensor,
    max_products: int,
    read_every: int | None = None,
) -> Cycle:
    """Minimise ‖b − A x‖ over a Krylov space that grows until every sample is at its tolerance.

    Differentiable when grad is enabled. A sample at its tolerance (B,), in the l2 norm, keeps its
    space; the others go on. ``read_every`` is the number of steps between two looks at whether
    all are done: 0 is never, ``None`` is each step on the CPU, where it is free, else never.
    """
    if read_every is None:
        read_every = 1 if b.device.type == "cpu" else 0
    size = _length(b)
    basis = empty(b).push(b / size[:, None])
    beta = torch.where(_square(b) > 0, size, 0.0)
    columns: list[Tensor] = []
    null = torch.ones_like(beta)[:, None]
    live = beta.detach() > tolerance
    trace: list[tuple[int, Tensor, Tensor]] = []
    reads = 0
    for j in range(max_products):
        if read_every and j % read_every == 0:
            reads += 1
            if not bool(live.any()):
                break
        q = product(basis.vectors[:, -1])
        whole = _length(q).detach()
        h = torch.zeros_like(null)
        for _ in range(2):
            part = (basis.vectors @ q[:, :, None])[:, :, 0]
            q = q - (part[:, None] @ basis.vectors)[:, 0]
            h = h + part
        length = torch.where(_square(q) > 0, _length(q), 0.0)
        # A happy breakdown: what is left of the product is rounding.
        grows = live & (length.detach() > 10 * torch.finfo(b.dtype).eps * whole)
        safe = torch.where(grows, length, 1.0)
        basis = basis.push(torch.where(grows[:, None], q / safe[:, None], 0.0))
        h = torch.where(live[:, None], h, 0.0)
        # A sample that is done gets a column that leaves its least squares problem as it is.
        below = torch.where(grows, length, (~live).to(length.dtype))
        columns.append(torch.cat((h, below[:, None]), dim=1))
        following = -(null * h).sum(dim=1).detach() / safe.detach()
        null = torch.cat((null, torch.where(grows, following, 0.0)[:, None]), dim=1)
        estimate = beta.detach() / torch.linalg.vector_norm(null, dim=1)
        estimate = torch.where(live & ~grows, 0.0, estimate)
        live = grows & (estimate > tolerance)
        trace.append((j + 1, torch.where(live, estimate, 0.0).amax(), live.sum()))
    k = len(columns)
    if k == 0:
        return Cycle(torch.zeros_like(b), b, 0, trace, 0, reads)
    hessenberg = torch.stack(
        [torch.nn.functional.pad(c, (0, k + 1 - c.shape[1])) for c in columns], dim=2
    )
    y = _least_squares(hessenberg, beta)
    # Of a singular operator a step may be left that is larger than its rounding lets one use.
    entries = torch.nan_to_num(hessenberg.detach()).abs().amax(dim=(1, 2))
    noise = torch.finfo(b.dtype).eps * entries * torch.linalg.vector_norm(y.detach(), dim=1)
    y = torch.where((noise < beta.detach())[:, None], y, 0.0)
    coefficients = (
        torch.cat((beta[:, None], torch.zeros_like(y)), dim=1)
        - (hessenberg @ y[:, :, None])[:, :, 0]
    )
    x = (y[:, None] @ basis.vectors[:, :k])[:, 0]
    r = (coefficients[:, None] @ basis.vectors)[:, 0]
    return Cycle(x, r, k, trace, basis.buffer.untyped_storage().nbytes(), reads)


def _least_squares(hessenberg: Tensor, beta: Tensor) -> Tensor:
    """Return y (B, k) that minimises ‖β e₁ − H y‖, in float64 where there is one."""
    small = torch.float32 if hessenberg.device.type == "mps" else torch.float64
    q, r = torch.linalg.qr(torch.nan_to_num(hessenberg).to(small))
    rhs = q[:, 0] * beta.to(small)[:, None]
    diagonal = torch.diagonal(r, dim1=1, dim2=2)
    largest = diagonal.detach().abs().amax(dim=1, keepdim=True)
    # A singular operator leaves a zero on the diagonal, up to the rounding of the products: that
    # direction is left alone.
    null = diagonal.detach().abs() <= 10 * torch.finfo(hessenberg.dtype).eps * largest
    r = r + torch.diag_embed(torch.where(null, 1.0, 0.0).to(small))
    rhs = torch.where(null, 0.0, rhs)
    y = torch.linalg.solve_triangular(r, rhs[:, :, None], upper=True)[:, :, 0]
    found: Tensor = y.to(hessenberg.dtype)
    return found


def _square(x: Tensor) -> Tensor:
    return (x.detach() * x.detach()).sum(dim=1)


def _length(x: Tensor) -> Tensor:
    """Return the lengths (B,) of the rows, 1 for a zero row, with finite derivatives."""
    zero = _square(x) <= 0
    unit = 1.0 / max(x.shape[1], 1) ** 0.5
    length: Tensor = torch.linalg.vector_norm(torch.where(zero[:, None], unit, x), dim=1)
    return length


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Full or restarted GMRES.

    Parameters
    ----------
    restart
        Products a cycle; ``None`` keeps the whole space, (products + 1) vectors of a state.
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
        """Solve A x = b; a cycle that gains less than 1 % ends the solve as STALLED."""
        right = precondition or (lambda v: v)
        # The cycle works in the l2 norm, which is at most √D times the other two.
        factor = {"l2": 1.0, "rms": max(b.shape[1], 1) ** 0.5, "linf": 1.0}[norm]
        read_every = 1 if b.device.type == "cpu" else 4
        x, r = torch.zeros_like(b), b
        result = LinearResult(x, row_norm(b, norm), 0)
        while result.products < max_products:
            budget = max_products - result.products
            cycle = arnoldi_solve(
                lambda v: product(right(v)),
                r,
                tolerance=tolerance * factor,
                max_products=min(budget, self.restart or budget),
                read_every=read_every,
            )
            before, after = result.residual, row_norm(cycle.r, norm)
            worse = after >= before  # by rounding alone
            x = torch.where(worse[:, None], x, x + right(cycle.x))
            r = torch.where(worse[:, None], r, cycle.r)
            after = torch.where(worse, before, after)
            result.trace += [(n + result.products, s, a) for n, s, a in cycle.trace]
            result.products += cycle.products
            result.history_bytes = max(result.history_bytes, cycle.basis_bytes)
            result.reads += cycle.reads + 1
            result.residual, result.x = after, x
            unsolved = after > tolerance
            if cycle.products == 0 or not bool(unsolved.any()):
                break
            if bool((after > 0.99 * before)[unsolved].all()):
                result.reason = ReturnCode.STALLED
                break
        return result
