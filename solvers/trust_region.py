"""The trust region of Newton's method, by Powell's dogleg, a trial a turn of the loop.

The model ‖r − A d‖, A = I − J, is lowered within ‖S d‖ ≤ Δ along the path from the point to the
minimiser down the gradient and on to Newton's point. A trial is accepted when the residual fell by
10⁻⁴ of what the model promised; Δ shrinks below a quarter of the promise, and grows above three.
The scales S are the largest lengths that the columns of A have had (Moré), so that the units of a
variable have no influence.

Reference: M. J. D. Powell, in Rabinowitz (ed.), Numerical Methods for Nonlinear Algebraic Equations
(1970); J. J. Moré, B. S. Garbow, K. E. Hillstrom, User Guide for MINPACK-1 (1980): hybrj.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solvers.linesearch import ENOUGH, LOST, TRIALS, square


class Region(NamedTuple):
    """A trial within a trust region, all per sample.

    Attributes
    ----------
    z, r
        (B, D) the last accepted point and its residual.
    newton, cauchy
        (B, D) the two ends of the dogleg.
    image_newton, image_cauchy
        (B, D) A times them.
    scale
        (B, D) the diagonal of S.
    radius
        (B,) Δ.
    step, image
        (B, D) the step d that is being tried, and A times it.
    trials, lost
        (B,) how many there were from this point, and of them the last that were not finite.
    """

    z: Tensor
    r: Tensor
    newton: Tensor
    cauchy: Tensor
    image_newton: Tensor
    image_cauchy: Tensor
    scale: Tensor
    radius: Tensor
    step: Tensor
    image: Tensor
    trials: Tensor
    lost: Tensor

    @property
    def point(self) -> Tensor:
        """(B, D) the trial z + d."""
        return self.z + self.step

    @property
    def open(self) -> Tensor:
        """(B,) bools: shorter trials may follow."""
        return (self.trials < TRIALS) & (self.lost < LOST)


def start(
    z: Tensor,
    r: Tensor,
    A: Tensor,
    newton: Tensor,
    *,
    last: Region | None = None,
    fresh: Tensor | None = None,
) -> Region:
    """Return the first trial from z, where I − J is ``A`` (B, D, D).

    Parameters
    ----------
    z, r, newton
        (B, D) the point, its residual, and Newton's step.
    last
        The region around the point before, whose scales and radius are kept.
    fresh
        (B,) bools: a new radius all the same, which is the length of Newton's step.
    """
    columns = length(A.transpose(1, 2).reshape(-1, A.shape[1])).reshape(z.shape)
    columns = torch.where(columns > 0, columns, 1.0)
    scale = columns if last is None else torch.maximum(last.scale, columns)
    radius = length(scale * newton)
    if last is not None and fresh is not None:
        radius = torch.where(fresh, radius, last.radius)
    gradient = (A.transpose(1, 2) @ r[:, :, None])[:, :, 0] / scale
    downhill = gradient / scale
    image = (A @ downhill[:, :, None])[:, :, 0]
    curvature = square(image)
    safe = torch.where(curvature > 0, curvature, 1.0)
    reach = torch.where(curvature > 0, square(gradient) / safe, 0.0)[:, None]
    image_newton = (A @ newton[:, :, None])[:, :, 0]
    none = torch.zeros(z.shape[0], dtype=torch.long, device=z.device)
    return _tried(
        Region(
            z,
            r,
            newton,
            reach * downhill,
            image_newton,
            reach * image,
            scale,
            radius,
            newton,
            image_newton,
            none,
            none,
        )
    )


def judged(region: Region, square_now: Tensor) -> tuple[Tensor, Region]:
    """Return which trials are accepted, and the regions with their next trial and radius.

    The latter are for the samples whose trial is not accepted; of the others the radius counts.
    """
    square_old = square(region.r)
    finite = torch.isfinite(square_now)
    now = torch.where(finite, square_now, square_old)
    promised = square_old - square(region.r - region.image)
    sound = promised > 0
    ratio = torch.where(finite & sound, (square_old - now) / torch.where(sound, promised, 1.0), -1)
    accepted = ratio >= ENOUGH
    # The parabola through both values of ½‖r‖² with the slope at the first.
    slope = (region.r * region.image).sum(dim=1)
    excess = (now - square_old) / 2 + slope
    factor = torch.where(excess > 0, slope / (2 * torch.where(excess > 0, excess, 1.0)), 0.5)
    factor = torch.where(finite, factor.clamp(0.1, 0.5), 0.1)
    reach = length(region.scale * region.step)
    radius = torch.where(ratio < 0.25, factor * reach, region.radius)
    radius = torch.where(ratio > 0.75, torch.maximum(radius, 2 * reach), radius)
    lost = torch.where(finite, 0, region.lost + 1)
    return accepted, _tried(region._replace(radius=radius, lost=lost))


def _tried(region: Region) -> Region:
    """Return the region with the step at which the dogleg leaves it."""
    scale, radius = region.scale, region.radius
    u, v = scale * region.cauchy, scale * (region.newton - region.cauchy)
    a, b = square(v), (u * v).sum(dim=1)
    c = square(u) - radius * radius
    inside = b * b - a * c
    root = torch.where(inside > 0, torch.where(inside > 0, inside, 1.0).sqrt(), 0.0)
    # Of the two forms of the root the one that does not cancel.
    above, below = torch.where(b > 0, -c, root - b), torch.where(b > 0, b + root, a)
    part = torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0).clamp(0, 1)
    reach = length(u)
    outside = reach >= radius
    shorter = radius / torch.where(reach > 0, reach, 1.0)

    whole = length(scale * region.newton) <= radius
    newton = torch.where(whole, 1.0, torch.where(outside, 0.0, part))[:, None]
    cauchy = torch.where(whole, 0.0, torch.where(outside, shorter, 1 - part))[:, None]
    return region._replace(
        step=newton * region.newton + cauchy * region.cauchy,
        image=newton * region.image_newton + cauchy * region.image_cauchy,
        trials=region.trials + 1,
    )


def length(x: Tensor) -> Tensor:
    """Return the lengths (B,) of the rows, with a derivative that is finite at zero."""
    squared = square(x)
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)
