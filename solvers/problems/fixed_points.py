"""Fixed-point problems with known solutions."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from scipy.optimize import brentq
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
    tanh_equilibrium,
)
from solvers.problems.spectra import Spectrum, matrix, spectral_radius

# The fixed point of the cosine, to the last digit of float64.
COSINE = 0.7390851332151607

# Where the tanh saturates, the radius at the fixed point may never reach the one that is wanted:
# the search ends when that of W is so many times larger.
MOST = 20


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
        lambda z, c: c.clone(),
        torch.zeros_like(c),
        (c,),
        solutions=(c,),
        name="constant",
        jacobian=lambda z, c: torch.zeros(*z.shape, dim, dtype=z.dtype, device=z.device),
    )


def linear(
    *,
    spectrum: Spectrum = "real",
    radius: Annotated[float, Field(ge=0)] = 0.9,
    rank: Annotated[int, Field(ge=1)] = 3,
    strength: Annotated[float, Field(ge=0)] = 1.0,
    batch: Batch = 8,
    dim: Dim = 10,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> FixedPointProblem:
    """f(z) = A z + b with a matrix A of known eigenvalues.

    How much acceleration is possible follows from them: much on a real interval, none on a circle
    until the evaluations reach ``dim`` (Zarantonello; Saad, Iterative Methods, 6.11).

    Parameters
    ----------
    spectrum
        Of a normal A: ``real``, ``one_sided``, spread evenly over [−radius, radius] or [0, radius];
        ``disc``, ``circle``, spread evenly over |λ| ≤ radius or |λ| = radius; ``low_rank``, zeros
        but for ``rank`` of them, at radius · k / rank. ``nonnormal`` has the eigenvalues of
        ``real`` and a part above them. ``ginibre`` is N(0, 1), scaled to the radius.
    radius
        The spectral radius; from 1 on plain iteration diverges.
    rank
        Of ``low_rank``: a Krylov method is done one step after it.
    strength
        Of ``nonnormal``: the part above the diagonal of the Schur form is N(0, strength² / dim).
    batch, dim
        Shape of the state.
    dtype, seed
        Of A (shared) and b (one a sample).

    Raises
    ------
    OptionError
        If 1 is an eigenvalue: there is no unique fixed point then; or if the rank exceeds ``dim``.
    """
    g = generator(seed)
    A = matrix(spectrum, dim, radius=radius, rank=rank, strength=strength, g=g)
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
        jacobian=lambda z, b, A: A.expand(len(z), dim, dim),
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
    return FixedPointProblem(
        torch.cos,
        z0,
        solutions=(torch.full_like(z0, COSINE),),
        name="cosine",
        jacobian=lambda z: torch.diag_embed(-torch.sin(z)),
    )


def _tanh_image(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
    return torch.tanh(z @ W.T + u)


def _tanh_slope(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
    image = _tanh_image(z, u, W)
    return (1 - image * image)[:, :, None] * W


def tanh(
    *,
    scale: Annotated[float, Field(ge=0)] = 0.8,
    injection: Annotated[float, Field(ge=0)] | tuple[float, float] = 1.0,
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
        u is N(0, injection²), one a sample. A pair (first, last) of positive numbers is spread
        geometrically over the batch: the smaller the injection, the less the tanh saturates, and
        the harder the sample.
    batch, dim
        Shape of the state.
    dtype, seed
        Of W and u.

    Raises
    ------
    OptionError
        If a number of the pair is not positive.
    """
    g = generator(seed)
    W = (scale / math.sqrt(dim) * normal(g, dim, dim)).to(DTYPES[dtype])
    u = (_sizes(injection, batch) * normal(g, batch, dim)).to(DTYPES[dtype])
    found = tanh_equilibrium(W, u)
    return FixedPointProblem(
        _tanh_image,
        torch.zeros_like(u),
        (u,),
        (W,),
        solutions=() if found is None else (found.to(u.dtype),),
        name="tanh",
        jacobian=_tanh_slope,
    )


def _sizes(injection: float | tuple[float, float], batch: int) -> Tensor:
    """Return the size of every sample's injection (B, 1)."""
    if not isinstance(injection, tuple):
        return torch.full((batch, 1), injection, dtype=torch.float64)
    first, last = injection
    if min(first, last) <= 0:
        raise OptionError(f"injection = {injection}: a pair is spread geometrically: both above 0")
    exponents = torch.linspace(math.log(first), math.log(last), batch, dtype=torch.float64)
    return torch.exp(exponents)[:, None]


def tanh_radius(
    *,
    radius: Annotated[float, Field(gt=0)] = 0.9,
    injection: Annotated[float, Field(ge=0)] = 0.3,
    batch: Batch = 8,
    dim: Dim = 10,
    dtype: Dtype = "float32",
    seed: Seed = 0,
) -> FixedPointProblem:
    """f(z) = tanh(W z + u), with a W such that J at the fixed point has this spectral radius.

    W is s · N(0, 1 / dim), all samples share it, and the radius is that of the sample where it is
    largest. The scale s is the first that gives the radius when the fixed point is followed from
    s = 0, to rounding in float64; W is rounded to the dtype after that.

    Parameters
    ----------
    radius
        Of J(z*) = diag(1 − z*²) W. From 1 on plain iteration does not converge.
    injection
        u is N(0, injection²), one a sample.
    batch, dim
        Shape of the state.
    dtype, seed
        Of W and u.

    Raises
    ------
    OptionError
        If the fixed point ends at a fold (an eigenvalue of 1) before the radius is reached, or no
        scale reaches it. Another seed or a smaller radius helps.
    """
    g = generator(seed)
    W = normal(g, dim, dim) / math.sqrt(dim)
    u = (injection * normal(g, batch, dim)).to(DTYPES[dtype]).double()
    impossible = OptionError(
        f"radius = {radius}: with seed = {seed} and dim = {dim} no fixed point that is followed"
        " from W = 0 reaches it; take another seed or a smaller radius"
    )

    def at(s: float, start: Tensor) -> tuple[Tensor, float] | None:
        z = tanh_equilibrium(s * W, u, start)
        if z is None:
            return None
        return z, float(spectral_radius(_tanh_slope(z, u, s * W)).max())

    # The steps are those of W's own spectral radius, which the tanh can only lower.
    unit = 0.1 / float(spectral_radius(W))
    low, step, z = 0.0, unit, torch.tanh(u)
    while (found := at(low + step, z)) is None or found[1] < radius:
        if found is None:
            step /= 2
        else:
            low, z = low + step, found[0]
        if step < 1e-3 * unit or low > MOST * 10 * unit * radius:
            raise impossible

    def excess(s: float) -> float:
        inside = at(s, z)
        if inside is None:
            raise impossible
        return inside[1] - radius

    W = (brentq(excess, low, low + step, xtol=1e-15, rtol=1e-14) * W).to(DTYPES[dtype])
    solution = tanh_equilibrium(W, u, z)
    if solution is None:
        raise impossible
    u = u.to(W.dtype)
    return FixedPointProblem(
        _tanh_image,
        torch.zeros_like(u),
        (u,),
        (W,),
        samples_independent=True,
        solutions=(solution.to(W.dtype),),
        name="tanh_radius",
        jacobian=_tanh_slope,
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

    def jacobian(z: tuple[Tensor, Tensor], x: Tensor, y: Tensor, W: Tensor) -> Tensor:
        flat = torch.cat((z[0], z[1].flatten(1)), dim=1)
        return _tanh_slope(flat, torch.cat((x, y.flatten(1)), dim=1), W)

    args = split(u)
    found = tanh_equilibrium(W, u)
    return FixedPointProblem(
        f,
        tuple(torch.zeros_like(t) for t in args),
        args,
        (W,),
        solutions=() if found is None else (split(found.to(u.dtype)),),
        name="tuple_tanh",
        jacobian=jacobian,
    )
