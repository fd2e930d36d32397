"""Root problems with known solutions."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from solvers.problem import RootProblem
from solvers.problems.common import (
    DTYPES,
    Batch,
    Dim,
    Dtype,
    Seed,
    generator,
    normal,
    reference,
    with_eigenvalues,
)


def affine_root(
    *,
    condition: Annotated[float, Field(ge=1)] = 10.0,
    batch: Batch = 8,
    dim: Dim = 10,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> RootProblem:
    """g(z) = A z − b with A symmetric and positive definite: z + g(z) is no contraction.

    Parameters
    ----------
    condition
        The eigenvalues of A are spread evenly over [1, condition].
    batch, dim
        Shape of the state.
    dtype, seed
        Of A (shared) and b (one a sample).
    """
    g = generator(seed)
    A = with_eigenvalues(g, torch.linspace(1, condition, dim, dtype=torch.float64))
    A, b = A.to(DTYPES[dtype]), normal(g, batch, dim).to(DTYPES[dtype])
    solution = torch.linalg.solve(A.double(), b.double().T).T.to(b.dtype)
    return RootProblem(
        lambda z, b, A: z @ A.T - b,
        torch.zeros_like(b),
        (b,),
        (A,),
        solutions=(solution,),
        name="affine_root",
        jacobian=lambda z, b, A: A.expand(len(z), dim, dim),
    )


@reference("SciML, NonlinearProblemLibrary: quadratic")
def quadratic_root(
    *, batch: Batch = 8, dim: Dim = 10, dtype: Dtype = "float32", seed: Seed = 0
) -> RootProblem:
    """g(z) = z² − 2, number by number, from near 1; every choice of signs of √2 is a root.

    Parameters
    ----------
    batch, dim
        Shape of the state.
    dtype, seed
        Of the start, 1 + N(0, 0.01²).
    """
    z0 = (1 + 0.01 * normal(generator(seed), batch, dim)).to(DTYPES[dtype])
    return RootProblem(
        lambda z: z * z - 2,
        z0,
        solutions=(torch.full_like(z0, 2**0.5),),
        name="quadratic_root",
        jacobian=lambda z: torch.diag_embed(2 * z),
        traps=("many_roots",),
    )


def infeasible(
    *, batch: Batch = 8, dim: Dim = 10, dtype: Dtype = "float32", seed: Seed = 0
) -> RootProblem:
    """g(z) = z² + 1, number by number: no root, and the residual is never below √dim.

    Parameters
    ----------
    batch, dim
        Shape of the state.
    dtype, seed
        Of the start, 1 + N(0, 0.1²).
    """
    z0 = (1 + 0.1 * normal(generator(seed), batch, dim)).to(DTYPES[dtype])
    return RootProblem(
        lambda z: z * z + 1,
        z0,
        samples_independent=True,
        name="infeasible",
        jacobian=lambda z: torch.diag_embed(2 * z),
        traps=("no_root", "local_minimum"),
    )
