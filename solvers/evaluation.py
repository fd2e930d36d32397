"""Evaluating the function: flat, checked, counted, restricted to the samples still being solved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.problem import Layout, Problem, RootProblem
from solvers.proximal import Pieces, listening, taken
from solvers.solution import Stats


class Evaluator:
    """A problem's function on matrices (B, D), counted.

    Parameters
    ----------
    problem
        The problem.
    graph
        Keep autograd's graph of every evaluation (``Unrolled``).
    keep_last
        Keep the graph of the last evaluation with respect to z, so that a linearisation at that
        point needs no evaluation of its own.
    compiled
        Call the function through ``torch.compile`` where no graph is kept.
    listens
        Take the parts that the function offers (:mod:`solvers.proximal`); nothing is compiled then.

    Attributes
    ----------
    pieces
        The parts of the last evaluation, if they are listened for and were offered.
    tally
        The counts as they are written; ``stats`` is the same with all evaluations in it.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        graph: bool = False,
        keep_last: bool = False,
        compiled: bool = False,
        listens: bool = False,
    ) -> None:
        self.problem = problem
        self.layout = Layout(problem.z0)
        self.args = problem.args
        self.is_root = isinstance(problem, RootProblem)
        self.graph = graph
        self.keep_last = keep_last
        # Dynamo remembers what it compiled by the function's code, so that solves share it.
        compiled = compiled and not listens
        self._quick = torch.compile(problem.function) if compiled else problem.function
        kind = self.layout.device.type
        # The caller's autocast is for f; the solver's own algebra runs outside it.
        self._autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # One memory: the counts are kept on the host, whatever the device.
        self._counts = np.zeros(problem.batch, dtype=np.int64)
        self.tally = Stats(sample_evaluations=torch.from_numpy(self._counts))
        self._since = 0  # evaluations of the present rows that are not in the counts yet
        self._rows: npt.NDArray[np.int64] | slice = slice(None)
        self.started = time.perf_counter()
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self._listens, self._out = listens, None
        self._kept: dict[str, Any] = {}  # what a solver makes of the parts once
        self.pieces: Pieces | None = None

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z) and the residual, both (B, D), at the remaining samples."""
        if not self._listens:
            return self._evaluated(z)
        with listening() as offers:
            found = self._evaluated(z)
        out, self._out = self._out, None
        offer = taken(offers, out)
        self.pieces = None if offer is None else Pieces(offer, self._kept, self.tally)
        return found

    def _evaluated(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.graph:
            fz = self._function(z, self.args)
            self._last = (z, z, fz) if z.requires_grad else None
        elif self.keep_last:
            with torch.enable_grad(), own_graph():
                leaf = z.detach().requires_grad_()
                traced = self._function(leaf, self.args)
            fz = traced.detach()
            self._last = (z, leaf, traced)
        else:
            fz = self._function(z, self.args, self._quick)
        self._count()
        # A root problem's g is kept apart: z + g - z would round g to the precision of z.
        residual = self._g if self.is_root else fz - z
        self.last = (fz.detach(), residual.detach()) if self.graph else (fz, residual)
        return fz, residual

    def _function(
        self, z: Tensor, args: tuple[Tensor, ...], function: Callable[..., Any] | None = None
    ) -> Tensor:
        function = function or self.problem.function
        if self._autocast is None:
            out = function(self.layout.unpack(z), *args, *self.problem.params)
        else:
            with torch.autocast(self.layout.device.type, self._autocast):
                out = function(self.layout.unpack(z), *args, *self.problem.params)
        if self._listens:
            self._out = out
        value = self.layout.pack(
            self.layout.check(
                out, z.shape[0], self.tally.evaluations + 1, any_float=self._autocast is not None
            )
        )
        if self.is_root:
            # A foreign solver may differentiate what it asked for; what is kept is kept apart.
            self._g = value.detach() if self.keep_last and not self.graph else value
            value = z + value
        return value

    @property
    def rows(self) -> npt.NDArray[np.int64] | slice:
        """The samples that are still being solved."""
        return self._rows

    @rows.setter
    def rows(self, rows: npt.NDArray[np.int64] | slice) -> None:
        self._settle()
        self._rows = rows

    def _settle(self) -> None:
        """Count what was evaluated since the last time for the present rows."""
        self._counts[self._rows] += self._since
        self._since = 0

    @property
    def stats(self) -> Stats:
        """What the solve has cost so far."""
        self._settle()
        return self.tally

    def _count(self) -> None:
        self.tally.evaluations += 1
        self._since += 1

    def _pick(self, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        picked: npt.NDArray[np.int64] = np.arange(len(self._counts))[self.rows][kept]
        return picked

    def restrict(self, kept: Tensor, on_host: npt.NDArray[np.int64]) -> None:
        """Go on with the rows ``kept`` (indices into the remaining ones) alone.

        They are given on the device and on the host, so that nothing is read.
        """
        self.args = tuple(a[kept] for a in self.args)
        self.rows = self._pick(on_host)
        self._last = None
        self.pieces = None if self.pieces is None else self.pieces.restricted(kept)

    def forget(self) -> None:
        """Keep no graph, not even the one that is kept now."""
        self.keep_last, self._last = False, None

    def divisible(self, z: Tensor, fz: Tensor, rows: npt.NDArray[np.int64]) -> bool:
        """Whether these rows (indices) evaluated alone give what they gave in the batch.

        Costs one counted evaluation; the random state is as before. An exception, another shape
        or a difference above rounding means that they do not.
        """
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(z)):
            kept = torch.from_numpy(rows).to(z.device)
            part, everyone = tuple(a[kept] for a in self.args), self.rows
            g = getattr(self, "_g", None)
            try:
                alone = self._function(z[kept].detach(), part)
            except Exception:  # a cell that cannot take another batch size may fail in any way
                return False
            finally:
                self.rows = self._pick(rows)
                self._count()
                self.rows = everyone
                if g is not None:
                    self._g = g
            together = fz[kept].detach()
            size = torch.nan_to_num(together).abs().amax()
            rounding = 1e3 * torch.finfo(z.dtype).eps * size
            same = (alone - together).abs() <= rounding
            self.tally.syncs += 1
            return bool((same | ~torch.isfinite(together)).all())

    def linearise(self, z: Tensor, shape: torch.Size) -> Linearisation:
        """Return the Jacobian products of f at z (B, D), for vectors of ``shape``.

        Costs an evaluation, unless the last one was made at this z and its graph kept.
        """
        if self._last is not None and self._last[0] is z:
            _, leaf, traced = self._last
        else:
            with torch.enable_grad(), own_graph(unless=self.graph):
                leaf = z if self.graph and z.requires_grad else z.detach().requires_grad_()
                traced = self._function(leaf, self.args)
            self._count()
        return Linearisation(leaf, traced, shape, self.tally, differentiable=self.graph)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which the solvers compute: outside autocast."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def transformed() -> bool:
    """Whether this runs within a transform of ``torch.func``."""
    # torch has no public way to ask for it.
    functorch = getattr(torch._C, "_functorch", None)
    return functorch is not None and functorch.peek_interpreter_stack() is not None


def forward_mode() -> bool:
    """Whether derivatives of forward mode are being taken."""
    # torch has no public way to ask for it.
    return torch.autograd.forward_ad._current_level >= 0


def hooked() -> bool:
    """Whether the caller has hooks on the tensors that graphs save."""
    # torch has no public way to ask for them.
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)
    return top(True) is not None


def _devices(z: Tensor) -> list[torch.device]:
    return [z.device] if z.device.type == "cuda" else []


def own_graph(*, unless: bool = False) -> contextlib.AbstractContextManager[object]:
    """Keep the hooks of the caller off a graph that ends with the solve.

    Activation checkpointing would else evaluate its block anew at each Jacobian product.
    """
    if unless or not hooked():
        return contextlib.nullcontext()
    # Detached: a node that saves its own output would keep itself alive.
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda t: t)


def coupling(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Return where Jᵀ takes a cotangent of some samples to others (a mask); costs one product.

    ``product`` is u ↦ Jᵀu for u like ``like`` (B, …).
    """
    rows = len(like)
    probe = torch.zeros_like(like)
    half = probe[: rows // 2]
    # As good as random, without the caller's random state: multiples of the golden section.
    count = torch.arange(half.numel(), dtype=torch.float32, device=probe.device)
    half.copy_((0.5 + (0.618034 * count) % 1).reshape(half.shape))
    # A slope that is not finite times nothing is NaN, and says nothing.
    return torch.nan_to_num(product(probe)[rows // 2 :], nan=0.0) != 0


class Linearisation:
    """Products with the Jacobian J of f at a point, from one graph that is kept and reused.

    Vectors have the shape (B, D), or (1, B·D) where samples depend on each other. A product with
    J is the derivative of the product with its transpose (two reverse passes), which is several
    times cheaper than forward mode in an inner loop.
    """

    def __init__(
        self,
        z: Tensor,
        fz: Tensor,
        shape: torch.Size,
        stats: Stats,
        *,
        differentiable: bool = False,
    ) -> None:
        self._z, self._fz, self.shape, self.stats = z, fz, shape, stats
        self._create_graph = differentiable
        self._dual: tuple[Tensor, Tensor] | None = None

    def _grad(self, out: Tensor, at: Tensor, vector: Tensor, *, create: bool) -> Tensor:
        if not out.requires_grad:  # a constant map
            return torch.zeros_like(at)
        (grad,) = torch.autograd.grad(
            out, at, vector, retain_graph=True, create_graph=create, materialize_grads=True
        )
        return grad

    def vjp(self, u: Tensor) -> Tensor:
        """Return Jᵀu."""
        self.stats.vjps += 1
        product = self._grad(self._fz, self._z, u.reshape(self._fz.shape), create=self._kept(u))
        return product.reshape(self.shape)

    def jvp(self, v: Tensor) -> Tensor:
        """Return Jv."""
        self.stats.jvps += 1
        if self._dual is None:
            with torch.enable_grad(), own_graph(unless=self._create_graph):
                u = torch.zeros_like(self._fz).requires_grad_()
                self._dual = u, self._grad(self._fz, self._z, u, create=True)
        u, product = self._dual
        create = self._kept(v)
        return self._grad(product, u, v.reshape(self._z.shape), create=create).reshape(self.shape)

    def _kept(self, vector: Tensor) -> bool:
        """Whether a product is to be differentiated: under ``Unrolled``, or in its vector."""
        return self._create_graph or (torch.is_grad_enabled() and vector.requires_grad)

    def blocks(self) -> bool:
        """Whether samples are independent: Jᵀ takes a cotangent of some to those alone.

        Costs one counted product.
        """
        self.stats.syncs += 1
        found = coupling(lambda u: self.vjp(u).reshape(self._z.shape), self._fz)
        return not self._any(found)

    def _any(self, x: Tensor) -> bool:
        """Read whether any of x (rows, D) is true."""
        return bool(x.any())

    def _rows(self, units: Tensor, *, batched: bool) -> Tensor:
        (rows,) = torch.autograd.grad(
            self._fz,
            self._z,
            units,
            retain_graph=True,
            create_graph=self._create_graph,
            is_grads_batched=batched,
            materialize_grads=True,
        )
        return rows

    def jacobian(self) -> Tensor:
        """Return J as dense blocks (B, D, D), by D products with its transpose under vmap."""
        rows, dim = self.shape
        self.stats.vjps += dim
        if not self._fz.requires_grad:
            return self._fz.new_zeros(rows, dim, dim)
        units = torch.eye(dim, dtype=self._fz.dtype, device=self._fz.device)
        units = units[:, None, :].expand(dim, rows, dim).reshape(dim, *self._fz.shape)
        try:
            jacobian = self._rows(units, batched=True)
        except RuntimeError:  # an operation without a rule for vmap, such as another equilibrium
            jacobian = torch.stack([self._rows(unit, batched=False) for unit in units])
        # Where f does not depend on z at all, the zeros come without the axis of the units.
        jacobian = jacobian.expand(dim, *self._z.shape)
        return jacobian.reshape(dim, rows, dim).transpose(0, 1)
