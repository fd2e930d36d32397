"""The differentiable equilibrium: one recursive ``torch.autograd.Function``.

For z* = f(z*, θ) the implicit function theorem gives

    adjoint   uᵀ = uᵀ J + cᵀ,      dL/dθ = uᵀ ∂f/∂θ,      with c the cotangent dL/dz*,
    tangent   ż = J ż + ∂f/∂θ θ̇,

and both are fixed points again: of u ↦ Jᵀu + c and of ż ↦ J ż + ḟ. So backward and jvp call the
same Function on those maps, and derivatives of any order follow, as do vmap and jacrev. Between
forward and backward nothing is kept but z* and θ.

Everything here works on matrices (B, D); packing a state with several tensors is done outside, by
differentiable operations.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), Theorem 1.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from solvers.evaluation import Linearisation, full_precision
from solvers.judge import norm
from solvers.linear import LinearSolver
from solvers.linear.base import LinearResult
from solvers.loop import Settings, announce, run
from solvers.problem import FixedPointProblem
from solvers.solution import AdjointRecord, Solution, Stats, Trace
from solvers.solver import BaseSolver

Flat = Callable[..., Tensor]


class AdjointWarning(UserWarning):
    """A backward or tangent solve did not reach its tolerance: the gradient is that inexact."""


class AdjointError(RuntimeError):
    """The same, where ``on_failure="raise"`` asks for an error."""


@dataclass(frozen=True)
class Rule:
    """How the linear systems of derivatives are solved."""

    solver: BaseSolver
    reltol: float
    max_products: int
    norm: str
    on_failure: str
    site: str


@dataclass
class Map:
    """A map z ↦ f(z, tensors) on matrices (B, D), and how its fixed point is found.

    Attributes
    ----------
    function
        ``(z, *tensors) -> (B, D)``, differentiable in all.
    solve
        ``(z0, tensors) -> (B, D)``, without a graph.
    rule
        How the systems of its derivatives are solved.
    record
        Where the adjoint's solution is left.
    independent
        Whether samples are independent: what is known so far.
    """

    function: Flat
    solve: Callable[[Tensor, tuple[Tensor, ...]], Tensor]
    rule: Rule
    record: AdjointRecord | None = None
    independent: list[bool | None] = field(default_factory=lambda: [None])


class Equilibrium(torch.autograd.Function):
    """z* of a :class:`Map`, as a differentiable function of its tensors (z0 has no influence)."""

    @staticmethod
    def forward(map_: Map, z0: Tensor, *tensors: Tensor) -> Tensor:
        """Solve."""
        return map_.solve(z0, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep z* and the tensors, nothing of the graph of f."""
        map_, _, *tensors = inputs
        ctx.map = map_
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Solve the adjoint fixed point, then take one product with ∂f/∂θ."""
        map_: Map = ctx.map
        z, *tensors = ctx.saved_tensors
        (cotangent,) = cotangents
        u = equilibrium(adjoint(map_), torch.zeros_like(cotangent), cotangent, z, *tensors)
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[2:]) if needed]

        def in_tensors(*chosen: Tensor) -> Tensor:
            given = list(tensors)
            for k, t in zip(wanted, chosen, strict=True):
                given[k] = t
            return map_.function(z, *given)

        gradients: list[Tensor | None] = [None] * len(tensors)
        if wanted:
            _, product, *_ = torch.func.vjp(in_tensors, *(tensors[k] for k in wanted))
            for k, gradient in zip(wanted, product(u), strict=True):
                gradients[k] = gradient
        return None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Solve the tangent fixed point."""
        map_: Map = ctx.map
        z, *tensors = ctx.saved_tensors
        given = [
            torch.zeros_like(t) if d is None else d
            for t, d in zip(tensors, tangents[2:], strict=True)
        ]
        moved = product_forward(lambda *t: map_.function(z, *t), tuple(tensors), tuple(given))
        return equilibrium(tangent(map_), torch.zeros_like(z), moved, z, *tensors)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], map_: Map, z0: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        """Solve all of the batched problems as one batch of samples."""
        size = info.batch_size
        first = in_dims[1]
        z0 = z0.movedim(first, 0) if first is not None else z0.expand(size, *z0.shape)
        moved = tuple(
            t if d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims[2:], strict=True)
        )
        dims = tuple(None if d is None else 0 for d in in_dims[2:])
        rows = z0.shape[1]
        big = batched(map_, size, dims)
        z = equilibrium(big, z0.reshape(size * rows, -1), *moved)
        return z.reshape(size, rows, -1), 0


def equilibrium(map_: Map, z0: Tensor, *tensors: Tensor) -> Tensor:
    """Return the fixed point (B, D) of a map from z0 (B, D), differentiable in the tensors."""
    return cast(Tensor, Equilibrium.apply(map_, z0, *tensors))  # type: ignore[no-untyped-call]


def product_forward(
    function: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> Tensor:
    """Return the directional derivative of ``function``, by two reverse passes.

    The second differentiates the first in its cotangent, in which it is linear: this asks of f
    only reverse mode, which every operation has.
    """
    out, product, *_ = torch.func.vjp(function, *primals)
    _, transposed, *_ = torch.func.vjp(product, torch.zeros_like(out))
    (derivative,) = transposed(tangents)
    return cast(Tensor, derivative)


def adjoint(map_: Map) -> Map:
    """Return u ↦ Jᵀu + c, a map of the tensors (c, z, \\*tensors)."""

    def function(u: Tensor, c: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        _, product, *_ = torch.func.vjp(lambda x: map_.function(x, *tensors), z)
        return cast(Tensor, product(u)[0]) + c

    def solve(_: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        c, z, *rest = tensors
        solution = solve_linear(map_, c, z, tuple(rest), transpose=True)
        if map_.record is not None:
            map_.record.adjoint = solution
        return cast(Tensor, solution.value)

    return Map(function, solve, map_.rule, independent=map_.independent)


def tangent(map_: Map) -> Map:
    """Return v ↦ J v + d, a map of the tensors (d, z, \\*tensors)."""

    def function(v: Tensor, d: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        return product_forward(lambda x: map_.function(x, *tensors), (z,), (v,)) + d

    def solve(_: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        d, z, *rest = tensors
        return cast(Tensor, solve_linear(map_, d, z, tuple(rest), transpose=False).value)

    return Map(function, solve, map_.rule, independent=map_.independent)


def batched(map_: Map, size: int, dims: tuple[int | None, ...]) -> Map:
    """Return the map of ``size`` copies at once, whose samples are those of all copies."""

    def function(z: Tensor, *tensors: Tensor) -> Tensor:
        copies = z.reshape(size, z.shape[0] // size, -1)
        out = torch.func.vmap(map_.function, in_dims=(0, *dims))(copies, *tensors)
        return out.reshape(z.shape)

    def solve(z0: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        # A copy at a time: each is a problem of its own, with its own counts and verdicts.
        copies = z0.reshape(size, z0.shape[0] // size, -1)
        solved = [
            map_.solve(
                copies[k],
                tuple(t if d is None else t[k] for t, d in zip(tensors, dims, strict=True)),
            )
            for k in range(size)
        ]
        return torch.cat(solved)

    return Map(function, solve, map_.rule, independent=map_.independent)


def solve_linear(
    map_: Map, b: Tensor, z: Tensor, tensors: tuple[Tensor, ...], *, transpose: bool
) -> Solution:
    """Solve (I − Jᵀ) u = b, or (I − J) u = b, at z; report a solve that falls short.

    The tolerance is relative to ‖b‖, and b is scaled by a power of two to a size near 1 first:
    the loss may be of any scale.
    """
    rule = map_.rule
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        traced = map_.function(leaf, *(t.detach() for t in tensors))
    stats = Stats(
        evaluations=1,
        sample_evaluations=torch.ones(b.shape[0], dtype=torch.long, device=b.device),
    )
    products = Linearisation(leaf, traced, b.shape, stats)
    apply = products.vjp if transpose else products.jvp
    if b.shape[0] > 1 and map_.independent[0] is None:
        map_.independent[0] = products.blocks()
    joint = map_.independent[0] is False
    size = b.abs().amax(dim=1, keepdim=True)
    size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
    if joint:
        size = size.amax().expand_as(size)
    scale = torch.exp2(torch.floor(torch.log2(size)))
    rhs = b.detach() / scale
    settings = Settings(
        abstol=0.0,
        # Below the rounding of a few products nothing can be asked, as when the forward's is 0.
        reltol=max(rule.reltol, 4 * torch.finfo(b.dtype).eps),
        norm=cast(Any, rule.norm),
        max_evaluations=rule.max_products,
    )
    phase = "adjoint" if transpose else "tangent"
    if isinstance(rule.solver, LinearSolver):
        solution = _by_linear_solver(rule, apply, rhs, settings, stats, joint=joint)
    else:
        solution = _by_fixed_point(rule, apply, rhs, settings, stats, joint=joint)
    factor = scale[:, 0].to(solution.residual.dtype)
    solution = replace(
        solution,
        value=cast(Tensor, solution.value) * scale,
        residual=solution.residual * factor,
        scale=solution.scale * factor,
        trace=_scaled(solution.trace, float(scale.amax())),
        settings=settings,
        phase=phase,
        site=rule.site,
        samples_independent=map_.independent[0],
    )
    announce(solution)
    if not solution.success and rule.on_failure != "ignore":
        text = (
            f"the {phase} solve by {rule.solver.name} fell short, so that the gradient is inexact: "
        )
        if rule.on_failure == "raise":
            raise AdjointError(text + solution.message)
        warnings.warn(text + solution.message, AdjointWarning, stacklevel=2)
    return solution


def _by_linear_solver(
    rule: Rule,
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    settings: Settings,
    stats: Stats,
    *,
    joint: bool,
) -> Solution:
    started = time.perf_counter()
    solver = cast(LinearSolver, rule.solver)
    scale = norm(b, settings.norm)
    shape = b.shape
    system = b.reshape(1, -1) if joint else b
    tolerance = settings.reltol * norm(system, settings.norm)
    with full_precision(b.device):
        result: LinearResult = solver.solve(
            lambda v: v - apply(v.reshape(shape)).reshape(v.shape),
            system,
            tolerance=tolerance,
            max_products=settings.max_evaluations,
            norm=settings.norm,
        )
    code = result.codes(tolerance)
    stats.iterations = result.products
    stats.syncs = result.reads
    stats.history_bytes = result.history_bytes
    stats.seconds = time.perf_counter() - started
    trace = None
    if result.trace:
        counts, residuals, active = zip(*result.trace, strict=True)
        trace = Trace(
            torch.tensor(counts),
            torch.linspace(0, stats.seconds, len(counts) + 1, dtype=torch.float64)[1:],
            torch.stack(residuals),
            torch.stack(active),
        )
    rows = shape[0]
    return Solution(
        value=result.x.reshape(shape),
        residual=result.residual.expand(rows),
        scale=norm(system, settings.norm).expand(rows) if joint else scale,
        retcode=code.expand(rows),
        ended=torch.full((rows,), result.products, device=b.device),
        stats=stats,
        trace=trace,
        solver=solver,
        settings=settings,
        dtype=str(b.dtype).removeprefix("torch."),
        device=str(b.device),
        dim=shape[1],
    )


def _by_fixed_point(
    rule: Rule,
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    settings: Settings,
    stats: Stats,
    *,
    joint: bool,
) -> Solution:
    """Solve u = A u + b by a solver of fixed points."""

    def function(u: Tensor, index: Tensor) -> Tensor:
        # The graph is that of the whole batch: samples that are still being solved are put there.
        whole = u if u.shape[0] == b.shape[0] else torch.zeros_like(b).index_copy(0, index, u)
        return apply(whole)[index] + b[index] if whole is not u else apply(u) + b

    problem = FixedPointProblem(
        function,
        torch.zeros_like(b),
        args=(torch.arange(b.shape[0], device=b.device),),
        samples_independent=not joint,
    )
    solution = run(problem, rule.solver, settings, scale=norm(b, settings.norm), quiet=True)
    stats.iterations = solution.stats.iterations
    # Newton's method, say, takes products with the derivative of the product, which it is itself.
    stats.jvps += solution.stats.jvps
    stats.vjps += solution.stats.vjps
    stats.syncs = solution.stats.syncs
    stats.seconds = solution.stats.seconds
    stats.history_bytes = solution.stats.history_bytes
    return replace(solution, stats=stats)


def _scaled(trace: Trace | None, factor: float) -> Trace | None:
    return None if trace is None else replace(trace, residual=trace.residual * factor)
