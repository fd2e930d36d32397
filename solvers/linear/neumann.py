"""The Neumann series: plain iteration on the linear system.

    x ← x + P (b − A x),

which without a preconditioner P adds the term (I − A)ᵏ b at each step: for A = I − J, Jᵏ b.

Reference: C. Neumann, Untersuchungen über das logarithmische und Newton'sche Potential (1877); as
preconditioned Richardson iteration Y. Saad, Iterative Methods for Sparse Linear Systems (2003),
section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from solvers.judge import DIVERGED_BEYOND, PATIENCE, PROGRESS
from solvers.judge import norm as row_norm
from solvers.linear.base import LinearResult, LinearSolver, Product
from solvers.linear.basis import widened
from solvers.solution import ReturnCode
from solvers.solver import reading_interval


@dataclass(frozen=True)
class NeumannSeries(LinearSolver):
    """The Neumann series; converges where the spectral radius of I − A is below 1.

    Three vectors of memory, whatever the number of terms.

    Parameters
    ----------
    terms
        The most terms, a product each; ``None`` adds them until the tolerance is met.
    """

    terms: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "neumann"
    reference: ClassVar[str] = "Saad 2003, section 4.2"

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
        """Solve A x = b; each sample keeps its best partial sum.

        A sample whose residual grows beyond 1e8 of the first is DIVERGED, one that makes no
        progress is STALLED; both end alone.
        """
        dtype = b.dtype
        apply, wide = widened(product, b)
        correct, _ = widened(precondition or (lambda v: v), b)
        budget = min(max_products, self.terms or max_products)
        every = reading_interval(b)
        x, r = torch.zeros_like(wide), wide
        first = row_norm(r, norm)
        result = LinearResult(x, first, 0, history_bytes=3 * wide.nbytes)
        best, anchor, anchored = x, first, torch.zeros_like(first)
        reasons = torch.full_like(first, int(ReturnCode.MAX_EVALUATIONS), dtype=torch.int)
        going = first > tolerance
        while result.products < budget:
            if result.products % every == 0:
                result.reads += 1
                if not bool(going.any()):
                    break
            x = torch.where(going[:, None], x + correct(r), x)
            r = wide - apply(x)
            result.products += 1
            size = row_norm(r, norm)
            better = going & (size < result.residual)
            if result.products == 1:  # Where the first product is no number, no x is.
                unknown = going & ~torch.isfinite(size)
                better, x = better | unknown, x.masked_fill(unknown[:, None], torch.nan)
            best = torch.where(better[:, None], x, best)
            result.residual = torch.where(better, size, result.residual)
            progress = size < (1 - PROGRESS) * anchor
            anchor = torch.where(progress, size, anchor)
            anchored = torch.where(progress, result.products, anchored)
            code = torch.where(
                anchored <= result.products - PATIENCE, int(ReturnCode.STALLED), reasons
            )
            code = torch.where(size > DIVERGED_BEYOND * first, int(ReturnCode.DIVERGED), code)
            code = torch.where(torch.isfinite(size), code, int(ReturnCode.NONFINITE))
            reasons = torch.where(going, code, reasons).to(reasons.dtype)
            going = going & (size > tolerance) & (reasons == int(ReturnCode.MAX_EVALUATIONS))
            largest = torch.where(going, size, 0.0).amax()
            result.trace.append((result.products, largest, going.sum()))
        result.x, result.reasons = best.to(dtype), reasons
        return result
