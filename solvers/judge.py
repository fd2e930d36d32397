"""The judgement of a point: the one test of convergence, the best iterate, the return codes.

Everything is a tensor operation over the samples, so that nothing is read from the device here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from solvers.solution import ReturnCode
from solvers.solver import map_tensors

if TYPE_CHECKING:
    from solvers.loop import Settings

# A residual this much larger than the first one does not come back.
DIVERGED_BEYOND = 1e8
# A sample is stalled when this many evaluations in a row did not lower its residual by 0.1 %.
PATIENCE = 50
PROGRESS = 1e-3


def norm(x: Tensor, kind: str) -> Tensor:
    """Return the norm (B,) of the rows of x (B, D): ``l2``, ``rms`` or ``linf``.

    Half precision is summed in float32.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if kind == "linf":
        return x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])
    length: Tensor = torch.linalg.vector_norm(x, dim=1)
    return length / max(x.shape[1], 1) ** 0.5 if kind == "rms" else length


class Verdicts(NamedTuple):
    """What is known of each sample still being judged, all (rows,) but the value (rows, D)."""

    value: Tensor  # the kept point
    residual: Tensor  # its residual norm
    scale: Tensor  # its scale
    now: Tensor  # the residual norm at the last point
    first: Tensor  # the residual norm at the first point
    code: Tensor  # -1 while the sample goes on
    ended: Tensor  # the last evaluation that was judged
    anchor: Tensor  # the residual norm at the last progress
    anchored: Tensor  # and its evaluation


class Judge:
    """The verdict on each sample of a batch, point by point.

    A sample has converged at z when ‖residual‖ ≤ abstol + reltol · scale, with scale =
    max(‖f(z)‖, ‖f(z0) − z0‖) for a fixed point and ‖g(z0)‖ for a root, or as given.

    Parameters
    ----------
    settings
        Tolerances, norm and budget.
    z
        (B, D) the first point.
    is_root
        Whether the residual is that of a root problem.
    scale
        (B,) the scale, if it is given.
    last
        Keep the last iterate, not the best (``Unrolled``).

    Attributes
    ----------
    joint
        Samples depend on each other: they end together, and the best iterate is that of the batch.
    """

    def __init__(
        self,
        settings: Settings,
        z: Tensor,
        *,
        is_root: bool,
        scale: Tensor | None = None,
        last: bool = False,
    ) -> None:
        self.settings, self.is_root, self.last = settings, is_root, last
        self.joint = False
        self._given = None if scale is None else scale.detach()
        self._rows: Tensor | None = None
        self._whole: Verdicts | None = None
        self.restart(z)

    def restart(self, z: Tensor) -> None:
        """Forget every verdict."""
        z = z.detach()
        real = torch.float64 if z.dtype == torch.float64 else torch.float32
        size = torch.full((z.shape[0],), torch.inf, dtype=real, device=z.device)
        none = torch.full((z.shape[0],), -1, dtype=torch.long, device=z.device)
        self._current = Verdicts(z, size, size, size, size, none, none, size, none)

    @torch.no_grad()
    def __call__(
        self,
        z: Tensor,
        fz: Tensor,
        residual: Tensor,
        evaluation: int,
        failed: Tensor | None = None,
    ) -> Tensor:
        """Judge the remaining samples at z (rows, D); return which of them go on (bools)."""
        s, old = self.settings, self._current
        size = norm(residual.detach(), s.norm)
        first = torch.where(torch.isinf(old.first), size, old.first)
        if self._given is not None:
            scale = self._given.to(size.dtype)
        elif self.is_root:
            scale = first
        else:
            scale = torch.maximum(norm(fz.detach(), s.norm), first)
        meets = size <= s.abstol + s.reltol * scale

        progress = size < (1 - PROGRESS) * old.anchor
        anchor = torch.where(progress, size, old.anchor)
        anchored = old.anchored.masked_fill(progress, evaluation)
        code = torch.full_like(old.code, -1)
        code.masked_fill_(anchored <= evaluation - PATIENCE, int(ReturnCode.STALLED))
        code.masked_fill_(size > DIVERGED_BEYOND * first, int(ReturnCode.DIVERGED))
        if failed is not None:
            code.masked_fill_(failed, int(ReturnCode.LINEAR_SOLVE_FAILED))
        code.masked_fill_(~torch.isfinite(size), int(ReturnCode.NONFINITE))
        code.masked_fill_(meets, int(ReturnCode.SUCCESS))

        ended = torch.full_like(old.ended, evaluation)
        if self.last:
            new = Verdicts(z.detach(), size, scale, size, first, code, ended, anchor, anchored)
        else:
            better = (size < old.residual) | meets
            if self.joint:
                # One point for the batch: where the worst sample is nearest to its tolerance.
                nearer = self._excess(size, scale) < self._excess(old.residual, old.scale)
                better = nearer.expand_as(meets)
            elif not s.fixed_budget:
                # What ended between two reads of the device stays as it ended.
                going = old.code < 0
                better = better & going
                code = torch.where(going, code, old.code)
                ended = torch.where(going, ended, old.ended)
            new = Verdicts(
                torch.where(better[:, None], z, old.value),
                torch.where(better, size, old.residual),
                torch.where(better, scale, old.scale),
                size,
                first,
                code,
                ended,
                anchor,
                anchored,
            )
        self._current = new
        going = code < 0
        return going.any().expand_as(going) if self.joint else going

    def _excess(self, size: Tensor, scale: Tensor) -> Tensor:
        tolerance = self.settings.abstol + self.settings.reltol * scale
        ratio = size / tolerance.clamp_min(torch.finfo(size.dtype).tiny)
        return torch.nan_to_num(ratio, nan=torch.inf).amax()

    def restrict(self, kept: Tensor) -> None:
        """Go on with the rows ``kept`` (indices into the remaining ones) alone."""
        self._whole = self.verdicts
        self._rows = kept if self._rows is None else self._rows[kept]
        self._current = map_tensors(lambda t: t[kept], self._current)
        self._given = None if self._given is None else self._given[kept]

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts on all samples."""
        if self._whole is None or self._rows is None:
            return self._current
        rows = self._rows
        return Verdicts(
            *(w.index_copy(0, rows, c) for w, c in zip(self._whole, self._current, strict=True))
        )

    @property
    def now(self) -> Tensor:
        """(rows,) the residual norms of the remaining samples at the last point."""
        return self._current.now


def final_codes(settings: Settings, verdicts: Verdicts, otherwise: ReturnCode) -> Tensor:
    """Return the return codes (B,) at the kept points; ``otherwise`` where nothing else ended."""
    v = verdicts
    meets = v.residual <= settings.abstol + settings.reltol * v.scale
    code = torch.where(v.code <= 0, int(otherwise), v.code)
    return torch.where(meets & torch.isfinite(v.residual), int(ReturnCode.SUCCESS), code)
