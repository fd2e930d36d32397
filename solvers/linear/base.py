"""What a linear solver is."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.inverse import LowRank
from solvers.solution import ReturnCode
from solvers.solver import BaseSolver

Product = Callable[[Tensor], Tensor]


@dataclass
class LinearResult:
    """The solution of A x = b for each sample.

    Attributes
    ----------
    x
        (B, D).
    residual
        (B,) norms of b − A x.
    products
        Products with A, on the batch.
    trace
        (products so far, largest residual norm, active samples) after each product.
    history_bytes
        The most that basis and factors took, in bytes.
    reason
        Why samples above the tolerance ended.
    reads
        Reads of the device.
    reasons
        (B,) the same for each sample, from solvers that know it.
    rest
        (B, D) b − A x, from solvers that have it.
    space
        Gives what the solver has learnt of A⁻¹ (of A P if preconditioned), if it has.
    """

    x: Tensor
    residual: Tensor
    products: int
    trace: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    history_bytes: int = 0
    reason: ReturnCode = ReturnCode.MAX_EVALUATIONS
    reads: int = 0
    reasons: Tensor | None = None
    rest: Tensor | None = None
    space: Callable[[], LowRank] | None = None

    def codes(self, tolerance: Tensor) -> Tensor:
        """Return the return codes (B,), given the residual norms (B,) that were to be reached."""
        missed = int(self.reason) if self.reasons is None else self.reasons
        code = torch.where(self.residual <= tolerance, int(ReturnCode.SUCCESS), missed)
        return torch.where(torch.isfinite(self.residual), code, int(ReturnCode.NONFINITE))


class LinearSolver(BaseSolver, abc.ABC):
    """Base of the linear solvers; a subclass is a frozen dataclass of options."""

    @abc.abstractmethod
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
        """Solve A x = b.

        Parameters
        ----------
        product
            x (B, D) ↦ A x, by samples.
        b
            (B, D).
        tolerance
            (B,) the residual norms to reach.
        max_products
            The most products to spend.
        precondition
            A right preconditioner, linear: x (B, D) ↦ P x with A P ≈ I.
        norm
            ``l2``, ``rms`` or ``linf``, the norm of ``tolerance`` and of the result's residual.
        """
