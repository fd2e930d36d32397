"""The direct method: the matrix from its products with the unit vectors, then LU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from solvers.judge import norm as row_norm
from solvers.linear.base import LinearResult, LinearSolver, Product
from solvers.solution import ReturnCode


@dataclass(frozen=True)
class Dense(LinearSolver):
    """Exact up to rounding; D products and a D × D matrix a sample, for small states.

    Parameters
    ----------
    max_dim
        Largest D that it accepts.
    """

    max_dim: Annotated[int, Field(ge=1)] = 2048

    name: ClassVar[str] = "dense"
    reference: ClassVar[str] = "Golub & Van Loan, Matrix Computations, chapter 3"

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

        Raises
        ------
        ValueError
            If the state is larger than ``max_dim``.
        """
        rows, dim = b.shape
        if dim > self.max_dim:
            raise ValueError(
                f"dense needs a {dim} × {dim} matrix a sample, more than max_dim={self.max_dim}:"
                " use GMRES, or raise max_dim"
            )
        columns = []
        for k in range(dim):
            unit = torch.zeros_like(b)
            unit[:, k] = 1
            columns.append(product(unit))
        matrix = torch.stack(columns, dim=2) if dim else b.new_zeros(rows, 0, 0)
        # No factorisation in half precision.
        wide = torch.promote_types(b.dtype, torch.float32)
        matrix, right = matrix.to(wide), b.to(wide)
        x, info = torch.linalg.solve_ex(matrix, right[:, :, None])
        x = torch.where((info == 0)[:, None], x[:, :, 0], 0.0)
        r = right - (matrix @ x[:, :, None])[:, :, 0]
        size = row_norm(r, norm)
        # Where not even A 0 is a number, no x is.
        x = torch.where(torch.isfinite(size)[:, None], x, torch.nan).to(b.dtype)
        trace = [(dim, size.amax(), (size > tolerance).sum())]
        return LinearResult(
            x, size, dim, trace, matrix.nbytes, reason=ReturnCode.LINEAR_SOLVE_FAILED
        )
