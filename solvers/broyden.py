"""Broyden's methods, good and bad, with one stored vector an iteration.

K estimates (I − J)⁻¹, from K₀ = I (plain iteration); with r = f(z) − z the direction is d = K r and
the step λ d. A good update after the step is, with w = K r₊ at the new point,

    K₊ = (I + (d₊ − (1 − λ) d) dᵀ / ‖d‖²) K,    d₊ = (‖d‖² w − (1 − λ) (dᵀw) d) / (‖d‖² − dᵀw),

so the directions alone determine K (the product form; λ = 1 is Kelley's). With the Gram matrix of
the directions and the inverse of a small triangular matrix a product with K takes two passes over
them, and one of these gives d₊ itself.

A full window is not overwritten, which would contradict the later updates. K is reduced instead: a
low-rank base keeps its dominant singular vectors and the newest update, and the directions go on
from there.

The bad method updates K₊ = K − (K y + λ d) yᵀ/‖y‖² with y = r₊ − r, and keeps y too.

Reference: C. G. Broyden, Math. Comp. 19 (1965); C. T. Kelley, Solving Nonlinear Equations with
Newton's Method (2003), 4.3; B. van de Rotten, S. Verduyn Lunel, ICIAM (2003), for the reduction;
D.-H. Li, M. Fukushima, Optim. Methods Softw. 13 (2000), for the line search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from solvers.history import bordered, combine, dot, eye, inner, room, small_dtype, table
from solvers.inverse import Inverse, LowRank, outer
from solvers.options import OptionError
from solvers.solver import Linearise, Solver, free_reads, residual_at

# Of a window of w updates, 2 w vectors, the reduction keeps this part as a base.
KEPT = 0.6
# The line search: the residual has to fall by this part of the step's square over the first one,
DECREASE = 1e-4
# the step is shortened by this factor, a trial that is not finite by the other,
SHORTER = 0.5
MUCH_SHORTER = 0.1
# and at the k-th iteration the residual may grow by ALLOWED / k² (the sum is finite).
ALLOWED = 1.0
MOST_TRIALS = 8
# A trial that is not finite counts as so many: two are enough.
NOT_FINITE = 4


class Search(NamedTuple):
    """The line search of each sample.

    Attributes
    ----------
    z, size, first
        (B, D) the last accepted point, (B,) its residual norm, and that of the first point.
    length
        (B,) λ of the proposed point.
    shortened
        (B, n) 1 − λ of the accepted steps, a column a direction.
    tried, accepted
        (B,) trials since the last accepted point; accepted points.
    """

    z: Tensor
    size: Tensor
    first: Tensor
    length: Tensor
    shortened: Tensor
    tried: Tensor
    accepted: Tensor


class GoodState(NamedTuple):
    """The directions and what is small beside them.

    The vectors are ordered V, U, D: the base σ I + UᵀV of rank q, then the directions.

    Attributes
    ----------
    vectors
        (B, capacity, D).
    gram
        (B, capacity, capacity) their inner products, in float64.
    factor
        (B, capacity + 1, capacity) below a row of zeros, the inverse of the small triangular matrix
        that gives the coefficients of the updates.
    used, rank
        Vectors in use; q.
    scale
        (B,) σ.
    r
        (B, D) the last residual, if there is a window.
    search
        The line search, if one is asked for.
    """

    vectors: Tensor
    gram: Tensor
    factor: Tensor
    used: int
    rank: int
    scale: Tensor
    r: Tensor
    search: Search | None


class BadState(NamedTuple):
    """The last step and residual (B, D), and the factors (B, capacity, D) of K − σ I."""

    step: Tensor | None
    r: Tensor
    left: Tensor
    right: Tensor
    used: int
    scale: Tensor


@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's method, each sample by itself.

    On a linear problem the good one ends in at most 2D steps (Gay 1979).

    Parameters
    ----------
    window
        Rank of the estimate that is kept, in 2 · ``window`` vectors, at least 5; ``None`` keeps
        all, one vector an iteration.
    reduction
        What makes room in a full window: ``"svd"`` keeps the largest 60 % of the singular values,
        ``"restart"`` begins anew from the identity at the current point.
    kind
        ``"good"`` changes the Jacobian least, ``"bad"`` its inverse (2 vectors an iteration).
    line_search
        Shorten a step whose residual does not fall, without derivatives (Li & Fukushima); a trial
        costs an evaluation. For the good method.
    """

    window: Annotated[int, Field(ge=1)] | None = None
    reduction: Literal["svd", "restart"] = "svd"
    kind: Literal["good", "bad"] = "good"
    line_search: bool = False

    name: ClassVar[str] = "broyden"
    reference: ClassVar[str] = "Broyden 1965; Kelley 2003; van de Rotten & Verduyn Lunel 2003"

    def __post_init__(self) -> None:
        """Check the options, and that the line search has the good method to search for."""
        super().__post_init__()
        if self.line_search and self.kind == "bad":
            raise OptionError(
                "line_search = True: only the good method has one (kind = 'good'), not kind = 'bad'"
            )

    def init(self, z: Tensor, fz: Tensor) -> GoodState | BadState:
        """Return K = I."""
        none = z.new_empty(z.shape[0], 0, z.shape[1])
        scale = torch.ones_like(z[:, 0])
        if self.kind == "bad":
            return BadState(None, fz, none, none, 0, scale)
        gram = torch.zeros(z.shape[0], 0, 0, dtype=small_dtype(z), device=z.device)
        factor = gram.new_zeros(z.shape[0], 1, 0)
        return GoodState(none, gram, factor, 0, 0, scale, z.new_empty(z.shape[0], 0), None)

    def resume(self, z: Tensor, fz: Tensor, inverse: Inverse) -> GoodState | BadState:
        """Return K = the given estimate, if it is one that quasi-Newton methods share."""
        state = self.init(z, fz)
        if not isinstance(inverse, LowRank) or not inverse.left.shape[1]:
            return state
        rank = inverse.right.shape[1]
        inverse = inverse.reduced(rank if self.window is None else min(rank, self._kept))
        if not inverse.left.shape[1]:
            return state
        if isinstance(state, BadState):
            used = inverse.left.shape[1]
            return state._replace(
                left=inverse.left, right=inverse.right, used=used, scale=inverse.scale
            )
        return self._based(inverse, state)

    def step(
        self, state: GoodState | BadState, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, GoodState | BadState]:
        """Return z + λ K r, with K updated by the last step."""
        r = residual_at(z, fz, linearise)
        if isinstance(state, BadState):
            return self._bad(state, z, r)
        if self.line_search:
            return self._searched(state, z, r)
        direction, state = self._direction(state, r, None)
        return z + direction, state

    # -- the good method ---------------------------------------------------------------------------

    def _direction(
        self, state: GoodState, r: Tensor, rejected: Tensor | None
    ) -> tuple[Tensor, GoodState]:
        """Return d₊ (B, D), and the state with it as its newest direction.

        Rejected samples (B,) keep their direction, and learn nothing.
        """
        if self.window is not None:
            if state.used >= max(self._most, 2 * state.rank + 2):
                return self._renewed(state, r, rejected)
            state = state._replace(r=_accepted(r, state.r, rejected))
        q, used = state.rank, state.used
        n = used - 2 * q
        shift = None if state.search is None else state.search.shortened.unsqueeze(1)
        start = r * state.scale.unsqueeze(1) if q else r
        if not used:
            square = _square(r)
            return r, self._appended(state, r, square.unsqueeze(1).narrow(2, 0, 0), square, None)
        vectors = state.vectors.narrow(1, 0, used)
        gram = state.gram.narrow(1, 0, used).narrow(2, 0, used)
        p = inner(r, vectors).to(gram.dtype)
        onto = p
        if q:
            onto = p.narrow(2, 2 * q, n) * state.scale[:, None, None]
            onto = onto + p.narrow(2, 0, q) @ gram.narrow(1, q, q).narrow(2, 2 * q, n)
        # c, with a zero before it: the coefficient of d_{i+1} stands at i + 1.
        c = torch.bmm(onto, state.factor.narrow(1, 0, n + 1).narrow(2, 0, n).transpose(1, 2))
        weights = c.narrow(2, 0, n)
        sound = alpha = None
        if n:
            rest = 1.0 - c.narrow(2, n, 1)
            # A residual that K maps across the step says nothing: no update then.
            sound = rest.abs() > torch.finfo(r.dtype).eps
            if rejected is not None:
                sound = sound & ~rejected[:, None, None]
            alpha = torch.where(sound, rest, 1.0).reciprocal()
            if shift is not None:
                spent = shift * c.narrow(2, 1, n)
                last = torch.where(sound, spent.narrow(2, n - 1, 1), 0.0)
                weights = weights - torch.cat((spent.narrow(2, 0, n - 1), last), dim=2)
        if q:
            weights = torch.cat((p.narrow(2, 0, q), weights), dim=2)
        new = combine(start, weights, vectors.narrow(1, q, used - q))
        scaled = p * state.scale[:, None, None] if q else p
        products = torch.baddbmm(scaled, weights, gram.narrow(1, q, used - q))
        if alpha is not None:
            products = products * alpha
            factor_of_new = alpha.squeeze(1).to(new.dtype)
            new = new * factor_of_new if torch.is_grad_enabled() else new.mul_(factor_of_new)
        square = _square(new)
        if n:
            # A direction that is lost in the rounding of the first one leads nowhere: begin anew.
            lost = square <= torch.finfo(r.dtype).eps ** 2 * gram[:, 2 * q, 2 * q].unsqueeze(1)
            if not free_reads(r) or bool(lost.any()):
                base = p.narrow(2, 0, q)
                onto_base = combine(start, base, vectors.narrow(1, q, q)) if q else start
                whole = scaled + base @ gram.narrow(1, q, q) if q else p
                new = torch.where(lost, onto_base, new)
                products = torch.where(lost[:, :, None], whole, products)
                square = torch.where(lost, _square(onto_base), square)
                state = state._replace(factor=torch.where(lost[:, :, None], 0.0, state.factor))
        if rejected is not None:
            new = torch.where(rejected[:, None], vectors[:, -1], new)
            products = torch.where(rejected[:, None, None], gram[:, -1:], products)
            square = torch.where(rejected[:, None], gram[:, -1, -1:], square)
        return new, self._appended(state, new, products, square, sound)

    def _appended(
        self,
        state: GoodState,
        new: Tensor,
        products: Tensor,
        square: Tensor,
        sound: Tensor | None,
    ) -> GoodState:
        """Return the state with one more direction (B, D).

        Parameters
        ----------
        products, square
            (B, 1, used) and (B, 1), its inner products.
        sound
            (B, 1, 1) whose last update counts.
        """
        q, used = state.rank, state.used
        n = used - 2 * q
        unit = torch.where(square > 0, square, torch.inf).reciprocal()
        whole = torch.cat((products, square.unsqueeze(1)), dim=2)
        following = whole.narrow(2, 2 * q + 1, n)
        if state.search is not None and n:
            following = following - state.search.shortened[:, None] * whole[:, :, 2 * q : -1]
        if torch.is_grad_enabled():
            vectors = torch.cat((state.vectors[:, :used], new[:, None]), dim=1)
            gram = bordered(state.gram[:, :used, :used], whole, products.mT)
            factor = state.factor[:, : n + 1, :n]
            if sound is not None:
                factor = torch.cat((factor[:, :-1], factor[:, -1:] * sound), dim=1)
            row = torch.cat((following @ factor[:, 1:], torch.ones_like(unit)[:, :, None]), dim=2)
            factor = bordered(factor, row * unit[:, :, None])
        else:
            vectors = room(state.vectors, used, None if self.window is None else self._most)
            vectors.select(1, used).copy_(new)
            capacity = vectors.shape[1]
            gram = table(state.gram, capacity, capacity)
            gram.select(1, used).narrow(1, 0, used + 1).copy_(whole.squeeze(1))
            gram.select(2, used).narrow(1, 0, used + 1).copy_(whole.squeeze(1))
            factor = table(state.factor, capacity + 1, capacity)
            last = factor.select(1, n + 1)
            if sound is not None:
                factor.select(1, n).mul_(sound.squeeze(1))
                learnt = torch.bmm(following, factor.narrow(1, 1, n).narrow(2, 0, n))
                torch.mul(learnt.squeeze(1), unit, out=last.narrow(1, 0, n))
            last.narrow(1, n, 1).copy_(unit)
        return state._replace(vectors=vectors, gram=gram, factor=factor, used=used + 1)

    @property
    def _kept(self) -> int:
        """The rank that a reduction keeps, beside the newest update and a direction."""
        if self.window is None or self.reduction == "restart":
            return 0
        return max(min(int(KEPT * self.window), self.window - 3), 0)

    @property
    def _most(self) -> int:
        """The most vectors, beside the last residual; at least an update and two directions."""
        return max(2 * (self.window or 0) - 1, 4)

    def _renewed(
        self, state: GoodState, r: Tensor, rejected: Tensor | None
    ) -> tuple[Tensor, GoodState]:
        """Return K₊ r and the state whose base is K₊, the newest update on the reduced K.

        The last step was not made by the reduced K, so the update is the general one: K₊ = K + u vᵀ
        with v = Kᵀs and K₊ y = −s.
        """
        base = self._known(state).reduced(self._kept)
        s = state.vectors.select(1, state.used - 1)
        if state.search is not None:
            s = s * (1.0 - state.search.shortened[:, -1:]).to(s.dtype)
        y = r - state.r
        v = base.transpose(s)
        across = dot(v, y)
        bound = torch.linalg.vector_norm(v, dim=1) * torch.linalg.vector_norm(y, dim=1)
        sound = across.abs() > torch.finfo(r.dtype).eps * bound.detach()[:, None]
        if rejected is not None:
            sound = sound & ~rejected[:, None]
        u = torch.where(sound, -(s + base(y)) / torch.where(sound, across, 1.0), 0.0)
        base = outer(
            base.scale,
            torch.cat((base.left, u[:, None]), dim=1),
            torch.cat((base.right, v[:, None]), dim=1),
        )
        state = self._based(base, state._replace(r=_accepted(r, state.r, rejected)))
        direction = base(state.r)
        products = inner(direction, state.vectors).to(state.gram.dtype)
        return direction, self._appended(state, direction, products, _square(direction), None)

    def _based(self, base: LowRank, state: GoodState) -> GoodState:
        """Return the state with a base, of middle I, and no direction."""
        vectors = torch.cat((base.right, base.left), dim=1)
        gram = (vectors @ vectors.mT).to(small_dtype(vectors))
        search = state.search
        if search is not None:
            search = search._replace(shortened=search.shortened[:, :0])
        return state._replace(
            vectors=vectors,
            gram=gram,
            factor=gram.new_zeros(gram.shape[0], 1, 0),
            used=vectors.shape[1],
            rank=base.left.shape[1],
            scale=base.scale,
            search=search,
        )

    def _known(self, state: GoodState) -> LowRank:
        """Return K as an operator: all updates but that of the newest direction."""
        q, used = state.rank, state.used
        n = used - 2 * q
        small = state.gram
        middle = small.new_zeros(small.shape[0], used - q, used)
        middle[:, :q, :q] = eye(small, q)
        if n > 1:
            c = state.factor[:, 1:n, : n - 1]
            onto = torch.cat(
                (
                    small[:, 2 * q : used - 1, q : 2 * q],
                    c.new_zeros(1, 1, 1).expand(c.shape[0], n - 1, q),
                    eye(c, n - 1),
                ),
                dim=2,
            )
            c = c @ onto
            middle[:, q + 1 :, : used - 1] += c
            if state.search is not None:
                middle[:, q:-1, : used - 1] -= state.search.shortened[:, : n - 1, None] * c
        vectors = state.vectors[:, :used]
        return LowRank(state.scale, vectors[:, q:], middle, vectors)

    # -- its line search ---------------------------------------------------------------------------

    def _searched(self, state: GoodState, z: Tensor, r: Tensor) -> tuple[Tensor, GoodState]:
        """Return z + λ d₊, or a shorter step from the last point where the residual rose."""
        size = torch.linalg.vector_norm(r.detach(), dim=1)
        search = state.search
        rejected = None
        if search is None:
            count = torch.zeros_like(size)
            search = Search(z, size, size, torch.ones_like(size), z[:, :0], count, count)
        else:
            square = state.gram[:, state.used - 1, state.used - 1].to(size.dtype)
            allowed = ALLOWED / (search.accepted + 1) ** 2
            # In units of the residual, so that a change of units changes nothing.
            square = square / torch.where(search.first > 0, search.first, 1.0)
            falls = size <= (1 + allowed) * search.size - DECREASE * search.length**2 * square
            rejected = ~falls & (search.tried < MOST_TRIALS)
            finite = torch.isfinite(size)
            shorter = search.length * torch.where(finite, SHORTER, MUCH_SHORTER)
            tried = search.tried + torch.where(finite, 1.0, NOT_FINITE)
            if free_reads(z) and bool(rejected.all()):
                # Nothing is learnt: the directions stay as they are.
                search = search._replace(length=shorter, tried=tried)
                direction = state.vectors[:, state.used - 1]
                return search.z + shorter[:, None] * direction, state._replace(search=search)
            taken = torch.where(rejected, 0.0, 1.0 - search.length)
            shortened = torch.cat((search.shortened[:, :-1], taken[:, None]), dim=1)
            search = Search(
                torch.where(rejected[:, None], search.z, z),
                torch.where(rejected, search.size, size),
                search.first,
                torch.where(rejected, shorter, 1.0),
                shortened,
                torch.where(rejected, tried, 0.0),
                torch.where(rejected, search.accepted, search.accepted + 1),
            )
            r = torch.where(rejected[:, None], 0.0, r)
        state = state._replace(search=search)
        direction, state = self._direction(state, r, rejected)
        assert state.search is not None  # it was set above
        grown = torch.nn.functional.pad(state.search.shortened, (0, 1))
        search = state.search._replace(shortened=grown)
        return search.z + search.length[:, None] * direction, state._replace(search=search)

    def trial(self, state: GoodState | BadState) -> Tensor | None:
        """Return which samples may still shorten the step to the proposed point."""
        search = state.search if isinstance(state, GoodState) else None
        return None if search is None else search.tried < MOST_TRIALS

    # -- the bad method ----------------------------------------------------------------------------

    def _bad(self, state: BadState, z: Tensor, r: Tensor) -> tuple[Tensor, BadState]:
        """Return z + K r, with K updated by the last step so that K y = −s."""
        used = state.used
        if self.window is not None and used >= self.window:
            rank = 0 if self.reduction == "restart" else self._kept
            base = self._seen(state).reduced(rank)
            used = base.left.shape[1]
            state = state._replace(left=base.left, right=base.right, used=used)
        if state.step is not None:
            y = r - state.r
            square = torch.linalg.vector_norm(y, dim=1, keepdim=True) ** 2
            sound = square > 0
            change = -(self._seen(state)(y) + state.step) / torch.where(sound, square, 1.0)
            change = torch.where(sound, change, 0.0)
            if torch.is_grad_enabled():
                left = torch.cat((state.left[:, :used], change[:, None]), dim=1)
                right = torch.cat((state.right[:, :used], y[:, None]), dim=1)
            else:
                left = room(state.left, used, self.window)
                right = room(state.right, used, self.window)
                left[:, used], right[:, used] = change, y
            state = state._replace(left=left, right=right, used=used + 1)
        direction = self._seen(state)(r)
        return z + direction, state._replace(step=direction, r=r)

    def _seen(self, state: BadState) -> LowRank:
        return outer(state.scale, state.left[:, : state.used], state.right[:, : state.used])

    def inverse(self, state: GoodState | BadState) -> LowRank:
        """Return K as an operator."""
        return self._seen(state) if isinstance(state, BadState) else self._known(state)


def _square(x: Tensor) -> Tensor:
    """Return the squares (B, 1) of the lengths of the rows of x (B, D), in float64."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length.to(small_dtype(x)).square()


def _accepted(new: Tensor, old: Tensor, rejected: Tensor | None) -> Tensor:
    """Return the rows of ``new`` (B, D), those of ``old`` for samples that are rejected (B,)."""
    return new if rejected is None else torch.where(rejected[:, None], old, new)
