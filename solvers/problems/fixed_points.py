"""Fixed-point problems with known solutions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from solvers.options import OptionError
from solvers.problem import FixedPointProblem
from solvers.problems.common import (
    DTYPES,
    Batch,
    Dim,
    Dtype,
    Seed,
    generator,
    normal,
    on_circle,
    tanh_equilibrium,
    with_eigenvalues,
)

# The fixed point of the cosine, to the last digit of float64.
COSINE = 0.7390851332151607


def constant(
    *, batch: Batch = 8, dim: Dim = 10, dtype: Dtype = "float32", seed: Seed = 0
) -> FixedPointProblem:
    """f(z) = c: whoever evaluates f once knows the answer exactly.

    Parameters
    ----------
    batch, dim
        Shape of the state.
    dtype, seed
        Of the random c, one a sample.
    """
    c = normal(generator(seed), batch, dim).to(DTYPES[dtype])
    return FixedPointProblem(
        lambda z, c: c.clone(), torch.zeros_like(c), (c,), solutions=(c,), name="constant"
    )


def linear(
    *,
    spectrum: Literal["real", "one_sided", "circle"] = "real",
    radius: Annotated[float, Field(ge=0)] = 0.9,
    batch: Batch = 8,
    dim: Dim = 10,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> FixedPointProblem:
    """f(z) = A z + b with a normal matrix A of known eigenvalues.

    How much acceleration is possible follows from them: much on a real interval, none on a circle
    until the evaluations reach ``dim`` (Zarantonello; Saad, Iterative Methods, 6.11).

    Parameters
    ----------
    spectrum
        Eigenvalues spread evenly over [−radius, radius], over [0, radius] or over the circle
        |λ| = radius.
    radius
        The spectral radius; from 1 on plain iteration diverges.
    batch, dim
        Shape of the state.
    dtype, seed
        Of A (shared) and b (one a sample).

    Raises
    ------
    OptionError
        If 1 is an eigenvalue: there is no unique fixed point then.
    """
    g = generator(seed)
    ends = {"real": (-radius, radius), "one_sided": (0.0, radius)}
    if spectrum == "circle":
        A = on_circle(g, dim, radius)
    else:
        A = with_eigenvalues(g, torch.linspace(*ends[spectrum], dim, dtype=torch.float64))
    A, b = A.to(DTYPES[dtype]), normal(g, batch, dim).to(DTYPES[dtype])
    system = torch.eye(dim, dtype=torch.float64) - A.double()
    if float(torch.linalg.svdvals(system)[-1]) < torch.finfo(A.dtype).eps * dim:
        raise OptionError(
            f"radius = {radius}: with dim = {dim} and spectrum = '{spectrum}' one eigenvalue is 1,"
            " so that there is no unique fixed point; take another radius"
        )
    solution = torch.linalg.solve(system, b.double().T).T.to(A.dtype)
    return FixedPointProblem(
        lambda z, b, A: z @ A.T + b,
        torch.zeros_like(b),
        (b,),
        (A,),
        solutions=(solution,),
        name="linear",
    )


def cosine(
    *, batch: Batch = 8, dim: Dim = 10, dtype: Dtype = "float32", seed: Seed = 0
) -> FixedPointProblem:
    """f(z) = cos z, number by number: fixed point 0.739…, where the slope is −0.674.

    Parameters
    ----------
    batch, dim
        Shape of the state.
    dtype, seed
        Of the start, which is uniform in [0, 1.5).
    """
    z0 = 1.5 * torch.rand(batch, dim, generator=generator(seed), dtype=torch.float64)
    z0 = z0.to(DTYPES[dtype])
    return FixedPointProblem(torch.cos, z0, solutions=(torch.full_like(z0, COSINE),), name="cosine")


def tanh(
    *,
    scale: Annotated[float, Field(ge=0)] = 0.8,
    injection: Annotated[float, Field(ge=0)] = 1.0,
    batch: Batch = 8,
    dim: Dim = 10,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> FixedPointProblem:
    """f(z) = tanh(W z + u), the random equilibrium network.

    Parameters
    ----------
    scale
        W is N(0, scale² / dim), of spectral radius near ``scale``. Above 1 there may be several
        fixed points, of which one is known, or none that Newton finds: then ``solutions`` is empty.
    injection
        u is N(0, injection²), one a sample.
    batch, dim
        Shape of the state.
    dtype, seed
        Of W and u.
    """
    g = generator(seed)
    W = (scale / math.sqrt(dim) * normal(g, dim, dim)).to(DTYPES[dtype])
    u = (injection * normal(g, batch, dim)).to(DTYPES[dtype])
    found = tanh_equilibrium(W, u)
    return FixedPointProblem(
        lambda z, u, W: torch.tanh(z @ W.T + u),
        torch.zeros_like(u),
        (u,),
        (W,),
        solutions=() if found is None else (found.to(u.dtype),),
        name="tanh",
    )


def tuple_tanh(
    *,
    scale: Annotated[float, Field(ge=0)] = 0.8,
    batch: Batch = 8,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> FixedPointProblem:
    """Two coupled tanh equations: the state is a tuple of tensors (B, 4) and (B, 2, 3).

    Parameters
    ----------
    scale
        The joint W (10, 10) is N(0, scale² / 10).
    batch
        Samples.
    dtype, seed
        Of W and of the injections, one of each shape a sample.
    """
    g = generator(seed)
    W = (scale / math.sqrt(10) * normal(g, 10, 10)).to(DTYPES[dtype])
    u = normal(g, batch, 10).to(DTYPES[dtype])

    def split(flat: Tensor) -> tuple[Tensor, Tensor]:
        return flat[:, :4], flat[:, 4:].reshape(-1, 2, 3)

    def f(z: tuple[Tensor, Tensor], x: Tensor, y: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        flat = torch.cat((z[0], z[1].flatten(1)), dim=1) @ W.T
        first, second = split(flat)
        return torch.tanh(first + x), torch.tanh(second + y)

    args = split(u)
    found = tanh_equilibrium(W, u)
    return FixedPointProblem(
        f,
        tuple(torch.zeros_like(t) for t in args),
        args,
        (W,),
        solutions=() if found is None else (split(found.to(u.dtype)),),
        name="tuple_tanh",
    )
