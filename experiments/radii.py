"""Models whose Jacobian has a prescribed spectral radius at the equilibrium.

Every matrix of the cell is multiplied by one factor, which is found by following the equilibrium
from the model as it is. That works for any cell whose Jacobian grows with its weights; where a
normalisation undoes the factor, or the equilibrium is lost on the way, there is no such model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

import solvers
from experiments import references
from implicit.models import Model
from solvers import Anderson, Fallback, FixedPointProblem, NewtonKrylov
from solvers.limit import spectral_radius
from solvers.problem import Layout

# The factor of one step towards the radius, and how far it may go altogether.
STEP, MOST = 1.15, 30.0
# A state of at most so many numbers has all its eigenvalues computed; of a larger one Arnoldi's
# method finds the largest.
EXACT_UP_TO, PRODUCTS = 256, 100
CLOSE = 1e-5


@dataclass(frozen=True)
class Radii:
    """The spectral radii at an equilibrium.

    Attributes
    ----------
    largest, median
        Over the samples.
    """

    largest: float
    median: float


def radii(model: Model, x: Tensor, name: str, z: Tensor) -> Radii:
    """Return the spectral radii of J at the equilibrium z (B, D), in float64."""
    given = references.problem(references.double(model), references.wide(x), name)
    layout = Layout(given.z0)
    at = layout.unpack(z.detach().cpu().double())
    frozen = FixedPointProblem(given.f, at, _detached(given.args), name=name)
    products = layout.dim if layout.dim <= EXACT_UP_TO else PRODUCTS
    found = spectral_radius(frozen, products=products)
    return Radii(float(found.max()), float(found.median()))


def _detached(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.detach() for t in tensors)


def prescribed(model: Model, x: Tensor, name: str, radius: float) -> Model | None:
    """Return a copy whose largest spectral radius on the batch x is ``radius``; None if none is.

    The equilibrium is followed from that of the model as it is, so that it is one that belongs to
    it, and may be another than a solver finds from the model's own start.
    """
    given = references.problem(references.double(model), references.wide(x), name)
    layout = Layout(given.z0)
    base, products = given.f, layout.dim if layout.dim <= EXACT_UP_TO else PRODUCTS
    chain = Fallback((Anderson(window=20), NewtonKrylov(inner=100)))
    args = _detached(given.args)

    def at(factor: float, start: Tensor) -> tuple[Tensor, float] | None:
        scaled = scaled_cell(base, factor)
        problem = FixedPointProblem(scaled, layout.unpack(start), args, name=name)
        with torch.no_grad():
            found = solvers.solve(problem, chain, reltol=1e-10, max_evaluations=600)
        if not found.success:
            return None
        z = layout.pack(found.value).detach()
        there = replace(problem, z0=layout.unpack(z))
        return z, float(spectral_radius(there, products=products).max())

    bracket = _bracket(at, layout.pack(given.z0).detach(), radius)
    if bracket is None:
        return None
    low, high, z = bracket
    try:
        factor = brentq(lambda s: _above(at(s, z), radius), low, high, rtol=CLOSE, xtol=1e-12)
    except _LostError:
        return None
    clone = copy.deepcopy(model)
    return replace(clone, cell=scaled_cell(clone.cell, float(factor)))


class _LostError(Exception):
    """No equilibrium was found at a factor."""


def _above(found: tuple[Tensor, float] | None, radius: float) -> float:
    if found is None:
        raise _LostError
    return found[1] - radius


def _bracket(
    at: Callable[[float, Tensor], tuple[Tensor, float] | None], start: Tensor, radius: float
) -> tuple[float, float, Tensor] | None:
    """Return factors whose radii enclose the wanted one, and the equilibrium at one of them."""
    factor, found = 1.0, at(1.0, start)
    while found is None and factor > 1 / MOST:  # beyond what the solvers reach: from below
        factor /= STEP
        found = at(factor, start)
    if found is None:
        return None
    z, here = found
    step = STEP if here < radius else 1 / STEP
    while 1 / MOST < factor < MOST:
        found = at(factor * step, z)
        if found is None:
            if abs(step - 1) < 1e-3:
                return None
            step **= 0.5
            continue
        if (found[1] - radius) * (here - radius) <= 0:
            low, high = sorted((factor, factor * step))
            return low, high, z
        factor, (z, here) = factor * step, found
    return None


def scaled_cell(cell: object, factor: float) -> nn.Module:
    """Return a copy of a cell whose matrices are multiplied by a factor."""
    assert isinstance(cell, nn.Module)
    clone = copy.deepcopy(cell)
    with torch.no_grad():
        for parameter in clone.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(factor)
    return clone


__all__ = ["Radii", "prescribed", "radii", "scaled_cell"]
