"""The differentiable equilibrium: one recursive ``torch.autograd.Function``.

For z* = f(z*, θ) the implicit function theorem gives

    adjoint   uᵀ = uᵀ J + cᵀ,      dL/dθ = uᵀ ∂f/∂θ,      with c the cotangent dL/dz*,
    tangent   ż = J ż + ∂f/∂θ θ̇,

and both are fixed points again: of u ↦ Jᵀu + c and of ż ↦ J ż + ḟ. So backward and jvp call the
same Function on those maps, and derivatives of any order follow, as do vmap and jacrev. Between
forward and backward nothing is kept but z* and θ. A backward of which no further derivative is
asked takes both its products, with Jᵀ and with ∂f/∂θ, from the graph of one evaluation.

:class:`Estimated` is the same node with an estimate in place of the adjoint solve.

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

from implicit.certificate import Learnt, certify
from solvers.evaluation import Linearisation, full_precision, hooked, own_graph, transformed
from solvers.history import power_below
from solvers.inverse import LowRank, gathered
from solvers.judge import norm
from solvers.linear import LinearSolver
from solvers.linear.base import LinearResult
from solvers.loop import Settings, announce, run
from solvers.problem import FixedPointProblem
from solvers.solution import AdjointRecord, Solution, Stats, Trace
from solvers.solver import BaseSolver

Flat = Callable[..., Tensor]
Product = Callable[[Tensor], Tensor]
# (the product with Jᵀ, the cotangent (B, D), the solver's estimate of (I − J)⁻¹) ↦ u (B, D)
Estimate = Callable[[Product, Tensor, LowRank | None], Tensor]


class AdjointWarning(UserWarning):
    """A backward or tangent solve did not reach its tolerance: the gradient is that inexact."""


class AdjointError(RuntimeError):
    """The same, where ``on_failure="raise"`` asks for an error."""


@dataclass(frozen=True)
class Rule:
    """How the linear systems of derivatives are solved.

    Attributes
    ----------
    solver, reltol, max_products, norm, on_failure
        As in :class:`implicit.Implicit`.
    site
        The layer's name.
    start
        (B, D) a guess of the adjoint, such as the last step's; scaled to fit best.
    learn
        Whether the certificate will ask what the solve has learnt.
    """

    solver: BaseSolver
    reltol: float
    max_products: int
    norm: str
    on_failure: str
    site: str
    start: Tensor | None = None
    learn: bool = False

    @property
    def further(self) -> Rule:
        """The rule of further derivatives, without what is about this adjoint alone."""
        return replace(self, start=None, learn=False)


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
        How the systems of its derivatives are solved; ``None`` where there are none.
    record
        Where the adjoint's solution is left.
    independent
        Whether samples are independent: what is known so far.
    inverse
        What estimates (I − J)⁻¹ at the fixed point, once that is found; ``None`` if nothing does.
    certified
        Whether a backward leaves a certificate in the record.
    eps
        Of the precision in which the function is evaluated.
    """

    function: Flat
    solve: Callable[[Tensor, tuple[Tensor, ...]], Tensor]
    rule: Rule | None
    record: AdjointRecord | None = None
    independent: list[bool | None] = field(default_factory=lambda: [None])
    inverse: Callable[[], LowRank | None] = lambda: None
    certified: bool = False
    eps: float = 0.0


@dataclass(frozen=True)
class Traced:
    """One evaluation of f at z with its graph, in z and in the tensors that want a gradient.

    Attributes
    ----------
    z, fz
        (B, D) the leaf and f there.
    leaves
        The tensors of which a gradient is wanted.
    tensors
        All tensors.
    """

    z: Tensor
    fz: Tensor
    leaves: tuple[Tensor, ...]
    tensors: Sequence[Tensor]

    def pulled(self, u: Tensor) -> tuple[Tensor, ...]:
        """Return uᵀ ∂f/∂θ for the leaves; the graph is freed on the way, and of no use then."""
        if not self.leaves or not self.fz.requires_grad:
            return tuple(torch.zeros_like(t) for t in self.leaves)
        # Whatever autocast the backward is called under.
        with full_precision(u.device):
            return torch.autograd.grad(self.fz, self.leaves, u, materialize_grads=True)


def trace(map_: Map, z: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int] = ()) -> Traced:
    """Evaluate f at z (B, D) and keep the graph, in z and in the ``wanted`` of the tensors."""
    with torch.enable_grad(), own_graph():
        leaf = z.detach().requires_grad_()
        given = [t.detach() for t in tensors]
        for k in wanted:
            given[k].requires_grad_()
        fz = map_.function(leaf, *given)
    return Traced(leaf, fz, tuple(given[k] for k in wanted), tensors)


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
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        gradients: list[Tensor | None] = [None] * len(tensors)
        if not torch.is_grad_enabled() and not transformed():
            found = first_order(map_, cotangent, z, tensors, wanted)
        else:
            u = equilibrium(adjoint(map_), torch.zeros_like(cotangent), cotangent, z, *tensors)
            found = ()
            if wanted:
                function = in_tensors(map_, z, tensors, wanted)
                _, product = pullback(function, *(tensors[k] for k in wanted))
                found = product(u)
        for k, gradient in zip(wanted, found, strict=True):
            gradients[k] = gradient
        return None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Solve the tangent fixed point."""
        map_: Map = ctx.map
        z, *tensors = ctx.saved_tensors
        moving = [k for k, tangent in enumerate(tangents[2:]) if tangent is not None]
        moved = product_forward(
            in_tensors(map_, z, tensors, moving),
            tuple(tensors[k] for k in moving),
            tuple(tangents[2 + k] for k in moving),
        )
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


def in_tensors(map_: Map, z: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int]) -> Flat:
    """Return f at z as a function of the ``wanted`` of its tensors alone."""

    def function(*chosen: Tensor) -> Tensor:
        given = list(tensors)
        for k, t in zip(wanted, chosen, strict=True):
            given[k] = t
        return map_.function(z, *given)

    return function


def equilibrium(map_: Map, z0: Tensor, *tensors: Tensor) -> Tensor:
    """Return the fixed point (B, D) of a map from z0 (B, D), differentiable in the tensors."""
    return cast(Tensor, Equilibrium.apply(map_, z0, *tensors))  # type: ignore[no-untyped-call]


def first_order(
    map_: Map, c: Tensor, z: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return the gradients of the ``wanted`` tensors for the cotangent c (B, D), without a graph.

    One evaluation is all that is kept: the adjoint is solved on its graph, and then used on it.
    """
    traced = trace(map_, z, tensors, wanted)
    solution = solve_linear(map_, c, traced, transpose=True)
    u, learnt = cast(Tensor, solution.value), solution.inverse
    if map_.record is not None:
        map_.record.adjoint = replace(solution, inverse=None)  # the basis ends with the backward
    if not map_.certified:
        return traced.pulled(u)
    return _certified(map_, c, u, traced, learnt)


def _certified(
    map_: Map, c: Tensor, u: Tensor, traced: Traced, learnt: Learnt | None
) -> tuple[Tensor, ...]:
    """Return the gradients for an adjoint u, and leave their certificate in the record."""
    rest = None if learnt is None else learnt.rest
    if rest is None:
        rest = c - u + Linearisation(traced.z, traced.fz, c.shape, Stats()).vjp(u)
    z, residual = traced.z.detach(), (traced.fz - traced.z).detach()
    # That frees the first graph before there is a second.
    found = traced.pulled(u)

    def evaluate(there: Tensor) -> tuple[Tensor, Product]:
        again = trace(map_, there, traced.tensors)
        return again.fz.detach(), Linearisation(again.z, again.fz, c.shape, Stats()).vjp

    if map_.record is not None:
        with full_precision(c.device):
            map_.record.certificate = certify(
                evaluate,
                z=z,
                residual=residual,
                c=c.detach(),
                u=u,
                rest=rest,
                learnt=learnt,
                eps=map_.eps,
                products=2 if learnt is None else 1,
            )
    return found


class Estimated(torch.autograd.Function):
    """z* of a :class:`Map`, with an estimate of the adjoint for its backward."""

    @staticmethod
    def forward(map_: Map, name: str, estimate: Estimate, z0: Tensor, *tensors: Tensor) -> Tensor:
        """Solve."""
        return map_.solve(z0, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep z* and the tensors, nothing of the graph of f."""
        ctx.map, ctx.name, ctx.estimate, _, *tensors = inputs
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Estimate the adjoint, then take one product with ∂f/∂θ."""
        if transformed():
            raise _no_rule(ctx.name, "torch.func")
        z, *tensors = ctx.saved_tensors
        (c,) = cotangents
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[4:]) if needed]
        with torch.no_grad():
            traced = trace(ctx.map, z, tensors, wanted)
            found = estimated(ctx.map, ctx.name, ctx.estimate, c, traced)
        if torch.is_grad_enabled():
            found = _Once.apply(ctx.name, c, z, *found)  # type: ignore[no-untyped-call]
        gradients: list[Tensor | None] = [None] * len(tensors)
        for k, gradient in zip(wanted, found, strict=True):
            gradients[k] = gradient
        return None, None, None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Refuse."""
        raise _no_rule(ctx.name, "forward mode (jvp)")

    @staticmethod
    def vmap(info: Any, in_dims: Any, map_: Map, name: str, *_: Any) -> tuple[Tensor, int]:
        """Refuse."""
        raise _no_rule(name, "vmap")


class _Once(torch.autograd.Function):
    """The identity on gradients that cannot be differentiated again; c and z may ask for it."""

    @staticmethod
    def forward(ctx: Any, name: str, c: Tensor, z: Tensor, *gradients: Tensor) -> Any:
        ctx.name = name
        return gradients

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise _no_rule(ctx.name, "a second derivative")


def estimated(
    map_: Map, name: str, estimate: Estimate, c: Tensor, traced: Traced
) -> tuple[Tensor, ...]:
    """Return the gradients of the wanted tensors by an estimate of the adjoint."""
    started = time.perf_counter()
    stats = Stats(
        evaluations=1,
        sample_evaluations=torch.ones(c.shape[0], dtype=torch.long, device=c.device),
    )
    products = Linearisation(traced.z, traced.fz, c.shape, stats)
    with full_precision(c.device):
        u = estimate(products.vjp, c, map_.inverse())
    stats.seconds = time.perf_counter() - started
    if map_.record is not None:
        map_.record.stats = stats
    if not map_.certified:
        return traced.pulled(u)
    return _certified(map_, c, u, traced, None)


def _no_rule(name: str, what: str) -> RuntimeError:
    return RuntimeError(
        f"the gradient {name} is an estimate for backpropagation, and has no rule for {what}: use"
        " the gradient Implicit, which has one, or Unrolled"
    )


def pullback(
    function: Callable[..., Any], *primals: Tensor
) -> tuple[Any, Callable[[Any], tuple[Tensor, ...]]]:
    """Return what ``torch.func.vjp`` does, also where hooks on saved tensors are active.

    The products may be differentiated, in the primals and in what the function depends on besides.
    """
    # There torch.func refuses. But the tensors of a transform, even of one that is over, are its.
    wrapped = map(torch._C._functorch.is_functorch_wrapped_tensor, primals)
    if not hooked() or transformed() or any(wrapped):
        out, product, *_ = torch.func.vjp(function, *primals)
        return out, product
    with torch.enable_grad():
        # Views, so that one primal's history is not taken for the function's.
        given = [p.view_as(p) if p.requires_grad else p.detach().requires_grad_() for p in primals]
        out = function(*given)

    def pulled(u: Any) -> tuple[Tensor, ...]:
        pairs = zip(*((x if isinstance(x, tuple) else (x,)) for x in (out, u)), strict=True)
        kept = [(x, c) for x, c in pairs if x.requires_grad]
        if not kept:
            return tuple(torch.zeros_like(p) for p in primals)
        outs, cotangents = zip(*kept, strict=True)
        graph = torch.is_grad_enabled()
        return torch.autograd.grad(
            outs, given, cotangents, retain_graph=True, create_graph=graph, materialize_grads=True
        )

    return out, pulled


def product_forward(
    function: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> Tensor:
    """Return the directional derivative of ``function``, by two reverse passes.

    The second differentiates the first in its cotangent, in which it is linear: this asks of f
    only reverse mode, which every operation has.
    """
    out, product = pullback(function, *primals)
    _, transposed = pullback(product, torch.zeros_like(out))
    (derivative,) = transposed(tangents)
    return derivative


def adjoint(map_: Map) -> Map:
    """Return u ↦ Jᵀu + c, a map of the tensors (c, z, \\*tensors)."""

    def function(u: Tensor, c: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        _, product = pullback(lambda x: map_.function(x, *tensors), z)
        return product(u)[0] + c

    def solve(_: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        c, z, *rest = tensors
        solution = solve_linear(map_, c, trace(map_, z, rest), transpose=True)
        if map_.record is not None:
            map_.record.adjoint = solution
        return cast(Tensor, solution.value)

    def inverse() -> LowRank | None:
        known = map_.inverse()
        return None if known is None else known.flipped

    rule = map_.rule and map_.rule.further
    return Map(function, solve, rule, independent=map_.independent, inverse=inverse)


def tangent(map_: Map) -> Map:
    """Return v ↦ J v + d, a map of the tensors (d, z, \\*tensors)."""

    def function(v: Tensor, d: Tensor, z: Tensor, *tensors: Tensor) -> Tensor:
        return product_forward(lambda x: map_.function(x, *tensors), (z,), (v,)) + d

    def solve(_: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        d, z, *rest = tensors
        return cast(Tensor, solve_linear(map_, d, trace(map_, z, rest), transpose=False).value)

    rule = map_.rule and map_.rule.further
    return Map(function, solve, rule, independent=map_.independent, inverse=map_.inverse)


def batched(map_: Map, size: int, dims: tuple[int | None, ...]) -> Map:
    """Return the map of ``size`` copies at once, whose samples are those of all copies."""
    known: list[LowRank | None] = []

    def function(z: Tensor, *tensors: Tensor) -> Tensor:
        copies = z.reshape(size, z.shape[0] // size, -1)
        out = torch.func.vmap(map_.function, in_dims=(0, *dims))(copies, *tensors)
        return out.reshape(z.shape)

    def solve(z0: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        # A copy at a time: each is a problem of its own, with its own counts and verdicts.
        copies = z0.reshape(size, z0.shape[0] // size, -1)
        solved = []
        known.clear()
        for k in range(size):
            own = tuple(t if d is None else t[k] for t, d in zip(tensors, dims, strict=True))
            solved.append(map_.solve(copies[k], own))
            known.append(map_.inverse())
        return torch.cat(solved)

    def inverse() -> LowRank | None:
        if not known or any(k is None for k in known):
            return None
        pieces, rows = [], 0
        for k in cast(list[LowRank], known):
            pieces.append((torch.arange(rows, rows + len(k.scale), device=k.scale.device), k))
            rows += len(k.scale)
        return gathered(pieces, rows)

    rule = map_.rule and map_.rule.further
    return Map(function, solve, rule, independent=map_.independent, inverse=inverse)


def solve_linear(map_: Map, b: Tensor, traced: Traced, *, transpose: bool) -> Solution:
    """Solve (I − Jᵀ) u = b, or (I − J) u = b, at a point; report a solve that falls short.

    The tolerance is relative to ‖b‖, and b is scaled by a power of two to a size near 1 first:
    the loss may be of any scale.
    """
    started = time.perf_counter()
    rule = map_.rule
    assert rule is not None  # an estimate solves no system
    stats = Stats(
        evaluations=1,
        sample_evaluations=torch.ones(b.shape[0], dtype=torch.long, device=b.device),
    )
    if b.shape[0] > 1 and map_.independent[0] is None:
        map_.independent[0] = Linearisation(traced.z, traced.fz, b.shape, stats).blocks()
    joint = map_.independent[0] is False
    shape = torch.Size((1, b.numel())) if joint else b.shape
    products = Linearisation(traced.z, traced.fz, shape, stats)
    apply = products.vjp if transpose else products.jvp
    scale = _power(b, joint=joint)
    system = (b.detach() / scale).reshape(shape)
    settings = Settings(
        abstol=0.0,
        # Below the rounding of a few products nothing can be asked, as when the forward's is 0.
        reltol=max(rule.reltol, 4 * torch.finfo(b.dtype).eps),
        norm=cast(Any, rule.norm),
        max_evaluations=rule.max_products,
    )
    known = map_.inverse()
    if known is not None and known.left.shape[::2] != system.shape:
        known = None  # of other samples than those of this system
    if known is not None and transpose:
        known = known.flipped
    start = rule.start if transpose else None
    with full_precision(b.device):
        guess, rest = system.new_zeros(()), system  # no state is spent on a zero
        if start is not None and start.shape == b.shape and start.dtype == b.dtype:
            guess, rest = _fitted(apply, start.to(b.device).reshape(shape), system)
        by = _by_linear_solver if isinstance(rule.solver, LinearSolver) else _by_fixed_point
        solution = by(rule, apply, rest, settings, stats, system=system, known=known)
        value = guess + cast(Tensor, solution.value)
        spent = stats.vjps + stats.jvps
        if known is not None and spent < rule.max_products and not solution.success:
            # A nearly singular estimate spoils the last digits, or all: go on without it.
            value = torch.where(torch.isfinite(solution.residual)[:, None], value, guess)
            rest = system - value + apply(value)
            left = replace(settings, max_evaluations=max(1, rule.max_products - spent - 1))
            again = by(rule, apply, rest, left, stats, system=system, known=None)
            value = value + cast(Tensor, again.value)
            solution = replace(again, trace=_joined(solution.trace, again.trace, spent + 1))
    factor = scale[:, 0].to(solution.residual.dtype)
    phase = "adjoint" if transpose else "tangent"
    rows = b.shape[0]
    solution = replace(
        solution,
        value=value.reshape(b.shape) * scale,
        residual=solution.residual.expand(rows) * factor,
        scale=solution.scale.expand(rows) * factor,
        retcode=solution.retcode.expand(rows),
        ended=solution.ended.expand(rows),
        trace=_scaled(solution.trace, float(scale.amax())),
        settings=settings,
        phase=phase,
        site=rule.site,
        dim=b.shape[1],
        samples_independent=map_.independent[0],
    )
    if isinstance(solution.inverse, Learnt) and solution.inverse.rest is not None:
        rest = solution.inverse.rest.reshape(b.shape) * scale
        solution = replace(solution, inverse=solution.inverse._replace(rest=rest))
    stats.seconds = time.perf_counter() - started
    announce(solution if solution.inverse is None else replace(solution, inverse=None))
    if not solution.success and rule.on_failure != "ignore":
        text = (
            f"the {phase} solve by {rule.solver.name} fell short, so that the gradient is inexact: "
        )
        if rule.on_failure == "raise":
            raise AdjointError(text + solution.message)
        warnings.warn(text + solution.message, AdjointWarning, stacklevel=2)
    return solution


def _power(b: Tensor, *, joint: bool) -> Tensor:
    """Return the powers of two (B, 1) just below the largest entry of each row, or of all."""
    powers = power_below(b.detach().abs().amax(dim=1, keepdim=True))
    return powers.amax().expand_as(powers) if joint else powers


def _fitted(apply: Product, start: Tensor, system: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multiple of a guess (rows, n) that leaves the least of the system, and the rest.

    Costs one product.
    """
    guess = start / _power(start, joint=False)
    image = guess - apply(guess)
    square = (image * image).sum(dim=1, keepdim=True)
    share = (image * system).sum(dim=1, keepdim=True) / torch.where(square > 0, square, 1.0)
    share = torch.nan_to_num(share, 0.0, 0.0, 0.0)
    return share * guess, system - share * image


def _by_linear_solver(
    rule: Rule,
    apply: Product,
    b: Tensor,
    settings: Settings,
    stats: Stats,
    *,
    system: Tensor,
    known: LowRank | None,
) -> Solution:
    """Solve (I − A) u = b for b (rows, n) to the tolerance of ``system``, by a linear solver."""
    started = time.perf_counter()
    solver = cast(LinearSolver, rule.solver)
    scale = norm(system, settings.norm)
    tolerance = settings.reltol * scale
    result: LinearResult = solver.solve(
        lambda v: v - apply(v),
        b,
        tolerance=tolerance,
        max_products=settings.max_evaluations,
        norm=settings.norm,
        precondition=None if known is None else known.__call__,
    )
    stats.iterations = result.products
    stats.syncs += result.reads
    stats.history_bytes = result.history_bytes
    trace = None
    if result.trace:
        counts, residuals, active = zip(*result.trace, strict=True)
        trace = Trace(
            torch.tensor(counts),
            torch.linspace(0, time.perf_counter() - started, len(counts) + 1, dtype=torch.float64)[
                1:
            ],
            torch.stack(residuals),
            torch.stack(active),
        )
    return Solution(
        value=result.x,
        residual=result.residual,
        scale=scale,
        retcode=result.codes(tolerance),
        ended=torch.full((len(b),), result.products, device=b.device),
        stats=stats,
        trace=trace,
        solver=solver,
        settings=settings,
        dtype=str(b.dtype).removeprefix("torch."),
        device=str(b.device),
        inverse=(
            Learnt(result.space(), known, result.rest) if rule.learn and result.space else None
        ),
    )


def _by_fixed_point(
    rule: Rule,
    apply: Product,
    b: Tensor,
    settings: Settings,
    stats: Stats,
    *,
    system: Tensor,
    known: LowRank | None,
) -> Solution:
    """Solve (I − A) u = b for b (rows, n) to the tolerance of ``system``, as a fixed point.

    That is u = A u + b, or with an estimate P of the inverse y = y − (I − A) P y + b, u = P y.
    """
    right = known or (lambda v: v)

    def image(y: Tensor) -> Tensor:
        u = right(y)
        return apply(u) if known is None else y - u + apply(u)

    def function(y: Tensor, index: Tensor) -> Tensor:
        # The graph is that of the whole batch: samples that are still being solved are put there.
        whole = y if len(y) == len(b) else torch.zeros_like(b).index_copy(0, index, y)
        return image(whole)[index] + b[index] if whole is not y else image(y) + b

    problem = FixedPointProblem(
        function,
        torch.zeros_like(b),
        args=(torch.arange(len(b), device=b.device),),
        samples_independent=True,
    )
    solution = run(problem, rule.solver, settings, scale=norm(system, settings.norm), quiet=True)
    stats.iterations = solution.stats.iterations
    # Newton's method, say, takes products with the derivative of the product, which it is itself.
    stats.jvps += solution.stats.jvps
    stats.vjps += solution.stats.vjps
    stats.syncs += solution.stats.syncs
    stats.history_bytes = solution.stats.history_bytes
    return replace(solution, value=right(cast(Tensor, solution.value)), stats=stats)


def _joined(first: Trace | None, then: Trace | None, spent: int) -> Trace | None:
    """Return two traces as one, the second after so many products."""
    if first is None or then is None:
        return first or then
    return Trace(
        torch.cat((first.evaluations, then.evaluations + spent)),
        torch.cat((first.seconds, then.seconds + first.seconds[-1])),
        torch.cat((first.residual, then.residual)),
        torch.cat((first.active, then.active)),
    )


def _scaled(trace: Trace | None, factor: float) -> Trace | None:
    return None if trace is None else replace(trace, residual=trace.residual * factor)
