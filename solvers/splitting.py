"""Operator splittings for maps f(z) = P(W z + u) with I − W monotone, such as monotone networks.

With F = I − W, ⟨F v, v⟩ ≥ m ‖v‖², and P the projection onto a convex set (relu):

    forward-backward    z ← P(z − α (F z − u)) = P((1 − α) z + α (W z + u))
    Peaceman-Rachford   x ← x + 2 (I + αF)⁻¹ ((z − x) + α (W z + u − z)),    z = P(x)

Both have the fixed points of f, of which there is one, and contract towards it from anywhere.

Reference: P.-L. Lions, B. Mercier, SIAM J. Numer. Anal. 16 (1979); E. Winston, J. Z. Kolter,
Monotone operator equilibrium networks, NeurIPS (2020), arXiv:2006.08591.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor

from solvers.options import OptionError
from solvers.proximal import Pieces
from solvers.solver import At, Linearise, Solver, state_bytes


@dataclass(frozen=True)
class ForwardBackward(Solver):
    """Forward-backward splitting, z ← P((1 − α) z + α (W z + u)), for f(z) = P(W z + u).

    Converges for 0 < α < 2m/L², L = ‖I − W‖, linearly at √(1 − 2αm + α²L²) or faster. A step takes
    W z + u from the evaluation that judges z, and costs nothing else.

    Parameters
    ----------
    alpha
        The step α; 1 is plain iteration. ``None`` takes m / g², which is proven to converge at
        √(1 − m²/g²) or faster, with g ≤ L the lesser of L and √(m‖S‖) + ‖K‖, where I − W = S + K,
        S symmetric and K skew. g is a bound by matrix products, found once a solve without a read
        of the device.
    """

    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    name: ClassVar[str] = "forward_backward"
    requires: ClassVar[frozenset[str]] = frozenset({"projection"})
    reference: ClassVar[str] = "Lions & Mercier 1979; Winston & Kolter 2020"

    def init(self, z: Tensor, fz: Tensor) -> None:
        """Return no state: the iteration has no memory."""

    def step(self, state: None, z: Tensor, fz: Tensor, linearise: Linearise) -> tuple[Tensor, None]:
        """Return P(z + α (W z + u − z)).

        Raises
        ------
        OptionError
            If f does not offer its parts.
        """
        pieces = _pieces(linearise, self.name)
        point, forward = _forward(pieces, z)
        alpha = self.alpha or pieces.once("alpha", lambda F: F.margin / F.reach().square())
        return pieces.project(point + alpha * forward).reshape(z.shape), state


class PeacemanRachfordState(NamedTuple):
    """What the next step starts from.

    Attributes
    ----------
    x
        (B, D) what the last point z = P(x) is the projection of.
    resolvent_bytes
        What the resolvent takes, which all samples share.
    """

    x: Tensor
    resolvent_bytes: int = 0


@dataclass(frozen=True)
class PeacemanRachford(Solver):
    """Peaceman-Rachford splitting with the resolvent (I + α(I − W))⁻¹, for f(z) = P(W z + u).

    Converges linearly for every α > 0. A step takes W z + u from the evaluation that judges z, and
    one product with the resolvent, which is counted in ``jvps``: for a dense W it takes as long as
    an evaluation, so that a step is two f-equivalents. The resolvent is made once a solve, of a
    dense W (D, D) by one inversion, about as long as D / B evaluations of a batch of B. It is
    applied to what is left of the residual, so that its own rounding does not limit the solution.
    The first step is one of forward-backward.

    Parameters
    ----------
    alpha
        The step α. ``None`` takes 1 / g, with g as in :class:`ForwardBackward`, which converges at
        √((1 − m/g) / (1 + m/g)) or faster.
    """

    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    name: ClassVar[str] = "peaceman_rachford"
    requires: ClassVar[frozenset[str]] = frozenset({"projection"})
    reference: ClassVar[str] = (
        "Peaceman & Rachford 1955; Lions & Mercier 1979; Winston & Kolter 2020"
    )

    def init(self, z: Tensor, fz: Tensor) -> None:
        """Return no state: the first step has none."""

    def step(
        self, state: PeacemanRachfordState | None, z: Tensor, fz: Tensor, linearise: Linearise
    ) -> tuple[Tensor, PeacemanRachfordState]:
        """Return the next point P(x).

        Raises
        ------
        OptionError
            If f does not offer its parts.
        """
        pieces = _pieces(linearise, self.name)
        point, forward = _forward(pieces, z)
        alpha = self.alpha or pieces.once("alpha", lambda F: 1 / F.reach())
        if state is None:
            x, taken = point + alpha * forward, 0
        else:
            resolvent = pieces.once("resolvent", lambda F: F.resolvent(alpha))
            x, taken = state.x.reshape(point.shape), resolvent.nbytes
            x = x + 2 * pieces.resolve(resolvent, (point - x) + alpha * forward)
        new = PeacemanRachfordState(x.reshape(z.shape), taken)
        return pieces.project(x).reshape(z.shape), new

    def memory(self, state: PeacemanRachfordState) -> int:
        """Return the bytes of the state and of the resolvent."""
        return state_bytes(state) + state.resolvent_bytes


def _pieces(linearise: Linearise, name: str) -> Pieces:
    """Return the parts of f at the step's point.

    Raises
    ------
    OptionError
        If f does not offer them.
    """
    pieces = linearise.pieces if isinstance(linearise, At) else None
    if pieces is None:
        raise OptionError(
            f"{name} splits a map f(z) = P(W z + u), and this problem's function does not offer"
            " those parts, or goes on behind them: let it end with solvers.proximal.projected, as"
            " the cell of the model 'monotone' does, or solve by anderson, broyden or fallback"
            " (an adjoint by gmres)"
        )
    return pieces


def _forward(pieces: Pieces, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return z, and W z + u − z, in the shape in which f offers it (coupled samples are a row)."""
    value = pieces.value.to(z.dtype)
    point = z.reshape(value.shape)
    return point, value - point
