"""Maps of the form f(z) = P(W z + u): what the splittings need to know of f, and how f offers it.

P is the projection onto a convex set, such as ``torch.relu``, and F = I − W is monotone with a
margin, ⟨F v, v⟩ ≥ m ‖v‖². The fixed point of such an f is the only z with 0 ∈ F z − u + N(z), where
N is the normal cone of the set, and the splittings of that inclusion find it.

A function offers its parts while it is evaluated, by ending with :func:`projected`::

    def forward(self, z, u):
        return projected(torch.nn.functional.linear(z, self.W) + u, Dense(self.W, self.margin))

The evaluation of the loop that judges a point thus hands W z + u to the step, at no further
product, whatever wraps the function: a parameter swap, autocast, a transform of ``torch.func`` or a
wrapper that counts. Where nobody listens, ``projected`` is P itself.
"""

from __future__ import annotations

import abc
import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from solvers.solution import Stats

T = TypeVar("T")
Linear = Callable[[Tensor], Tensor]

# Squarings of the matrix in a bound of its norm, which is too large by n^(1/128) at most.
SQUARINGS = 6


class Monotone(abc.ABC):
    """The operator F = I − W of a map, on states (B, …) of the map's own shape.

    Attributes
    ----------
    margin
        m > 0 with ⟨F v, v⟩ ≥ m ‖v‖².
    """

    margin: float

    @abc.abstractmethod
    def reach(self) -> Tensor:
        """Return a number g, without a graph, with ‖F v‖² ≤ g² ⟨F v, v⟩ / m for v of length 1.

        The Lipschitz constant of F is one. Read nothing from the device.
        """

    @abc.abstractmethod
    def resolvent(self, alpha: Tensor | float) -> Resolvent:
        """Return (I + αF)⁻¹, prepared for many products. Read nothing from the device."""


@dataclass(frozen=True)
class Resolvent:
    """A prepared (I + αF)⁻¹.

    Attributes
    ----------
    apply
        The product with a state (B, …).
    nbytes
        The memory that it takes.
    """

    apply: Linear
    nbytes: int


@dataclass(frozen=True)
class Dense(Monotone):
    """F = I − W for a matrix W (D, D) that all samples share; states are (B, D).

    Attributes
    ----------
    W
        The matrix.
    margin
        m > 0 with (F + Fᵀ) / 2 ≥ m I; it is not checked.
    """

    W: Tensor
    margin: float

    def _matrix(self) -> Tensor:
        W = self.W if self.W.dtype in (torch.float32, torch.float64) else self.W.float()
        return torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) - W

    @torch.no_grad()
    def reach(self) -> Tensor:
        """Return the lesser of ‖F‖ and √(m‖S‖) + ‖K‖, with F = S + K, S symmetric and K skew.

        For v of length 1 and σ = ‖S‖, ‖F v‖ ≤ ‖S v‖ + ‖K v‖ ≤ √(σ ⟨S v, v⟩) + ‖K‖: that grows with
        ⟨F v, v⟩ = ⟨S v, v⟩ ≥ m no faster than its root. The norms are bounds, by a trace.
        """
        F = self._matrix().detach()
        S, K = (F + F.mT) / 2, (F - F.mT) / 2
        split = (self.margin * norm_bound(S)).sqrt() + norm_bound(K)
        return torch.minimum(norm_bound(F), split)

    def resolvent(self, alpha: Tensor | float) -> Resolvent:
        """Return the product with the inverse matrix: one factorisation, then D² a sample."""
        F = self._matrix()
        eye = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
        # Its eigenvalues have a real part of at least 1: no check, which would be a read.
        V = torch.linalg.inv_ex(eye + alpha * F)[0]
        return Resolvent(lambda v: v @ V.mT, V.numel() * V.element_size())


def norm_bound(M: Tensor) -> Tensor:
    """Return a bound of the spectral norm of M (n, n), too large by n^(1/128) at most.

    That is tr((MᵀM)⁶⁴)^(1/128), by squarings alone, which read nothing from the device.
    """
    power = M.mT @ M
    log: Tensor = torch.zeros((), dtype=M.dtype, device=M.device)
    for k in range(SQUARINGS + 1):
        if k:
            power, log = power @ power, 2 * log
        trace = power.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        trace = trace.clamp_min(torch.finfo(M.dtype).tiny)
        power, log = power / trace, log + trace.log()
    return torch.exp(log / 2 ** (SQUARINGS + 1))


@dataclass(frozen=True)
class Offer:
    """The parts of an evaluation f(z) = P(W z + u).

    Attributes
    ----------
    value
        (B, …) W z + u.
    image
        (B, …) f(z).
    operator
        F = I − W.
    project
        P.
    """

    value: Tensor
    image: Tensor
    operator: Monotone
    project: Linear


_listening: ContextVar[list[Offer] | None] = ContextVar("listening", default=None)


def projected(value: Tensor, operator: Monotone, project: Linear = torch.relu) -> Tensor:
    """Return P(value), and offer the parts of f = P(W z + u) to the solve in progress, if any.

    Parameters
    ----------
    value
        (B, …) W z + u at the z of this evaluation.
    operator
        F = I − W.
    project
        P, the projection onto a closed convex set. The proximal map of another function would
        depend on the step's length, and is not covered.
    """
    image = project(value)
    if not torch.compiler.is_compiling():
        offers = _listening.get()
        if offers is not None:
            offers.append(Offer(value, image, operator, project))
    return image


@contextlib.contextmanager
def listening() -> Iterator[list[Offer]]:
    """Collect the offers of the evaluations in this block; what is compiled runs as it was."""
    offers: list[Offer] = []
    token = _listening.set(offers)
    # What is compiled offers nothing, and whoever compiled something has the compiler loaded.
    loaded = "torch._dynamo" in sys.modules
    try:
        with torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext():
            yield offers
    finally:
        _listening.reset(token)


def taken(offers: list[Offer], out: Any) -> Offer | None:
    """Return the offer whose image is the function's own result; ``None`` if none is.

    A function that goes on behind the projection is of another form.
    """
    for offer in reversed(offers):
        if isinstance(out, Tensor) and out.shape == offer.image.shape and _same(out, offer.image):
            return offer
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory."""
    if a is b:
        return True
    # torch has no public way to ask what a tensor is inside a transform, where it has no address.
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if wrapped(a) or wrapped(b):
        return False
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride()


class Pieces:
    """What a step of a splitting gets: the parts of f at its point, and what the solve keeps.

    Attributes
    ----------
    value
        (rows, …) W z + u.
    project
        P.
    """

    def __init__(self, offer: Offer, kept: dict[str, Any], stats: Stats) -> None:
        self.value, self.project = offer.value, offer.project
        self._operator, self._kept, self._stats = offer.operator, kept, stats

    def once(self, name: str, make: Callable[[Monotone], T]) -> T:
        """Return what ``make`` made of the operator F when this solve first asked for it."""
        if name not in self._kept:
            self._kept[name] = make(self._operator)
        found: T = self._kept[name]
        return found

    def resolve(self, resolvent: Resolvent, v: Tensor) -> Tensor:
        """Return (I + αF)⁻¹ v, counted as a product."""
        self._stats.jvps += 1
        return resolvent.apply(v)

    def restricted(self, kept: Tensor) -> Pieces:
        """Return the parts at some of the rows (indices)."""
        new = object.__new__(Pieces)
        new.__dict__.update(self.__dict__, value=self.value[kept])
        return new
