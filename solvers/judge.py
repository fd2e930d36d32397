"""The judgement of a point: the one test of convergence, the best iterate, the return codes.

Everything is a tensor operation over the samples, so that nothing is read from the device here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solvers.solution import ReturnCode

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


class Judge:
    """The verdict on each sample of a batch, point by point.

    A sample has converged at z when ‖residual‖ ≤ abstol + reltol · scale, with scale =
    max(‖f(z)‖, ‖f(z0) − z0‖) for a fixed point and ‖g(z0)‖ for a root, or as given.

    Parameters
    ----------
    settings
        Tolerances, norm and budget.
    is_root
        Whether the residual is that of a root problem.
    joint
        Samples depend on each other: they end together, and the best iterate is that of the batch.
    last
        Keep the last iterate, not the best (``Unrolled``).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        is_root: bool,
        joint: bool = False,
        last: bool = False,
        scale: Tensor | None = None,
    ) -> None:
        self.settings, self.is_root, self.joint, self.last = settings, is_root, joint, last
        self._given_scale = scale
        self._first: Tensor | None = None

    def begin(self, z: Tensor) -> None:
        """Prepare the verdicts for the samples of z (B, D)."""
        rows, device = z.shape[0], z.device
        real = torch.float64 if z.dtype == torch.float64 else torch.float32
        self.value = z.detach().clone()
        self.residual = torch.full((rows,), torch.inf, dtype=real, device=device)
        self.scale = torch.zeros(rows, dtype=real, device=device)
        self.code = torch.full((rows,), -1, dtype=torch.long, device=device)
        self.ended = torch.zeros(rows, dtype=torch.long, device=device)
        self.now = self.residual.clone()
        self._anchor = self.residual.clone()
        self._anchored = torch.zeros(rows, dtype=torch.long, device=device)

    @torch.no_grad()
    def __call__(
        self,
        z: Tensor,
        fz: Tensor,
        residual: Tensor,
        evaluation: int,
        rows: Tensor | None,
        failed: Tensor | None = None,
    ) -> Tensor:
        """Judge the samples ``rows`` (all when ``None``) at z; return which of them go on (bools)."""
        s = self.settings
        size = norm(residual.detach(), s.norm)
        first = size if self._first is None else _pick(self._first, rows)
        if self._first is None:
            self._first = size
        if self._given_scale is not None:
            scale = _pick(self._given_scale, rows).to(size.dtype)
        elif self.is_root:
            scale = first
        else:
            scale = torch.maximum(norm(fz.detach(), s.norm), first)
        finite = torch.isfinite(size)
        meets = finite & (size <= s.abstol + s.reltol * scale)

        previous, anchored = _pick(self._anchor, rows), _pick(self._anchored, rows)
        progress = size < (1 - PROGRESS) * previous
        _put(self._anchor, rows, torch.where(progress, size, previous))
        anchored = torch.where(progress, evaluation, anchored)
        _put(self._anchored, rows, anchored)

        code = _pick(self.code, rows)
        if self.last or self.joint or s.fixed_budget:
            code = torch.full_like(code, -1)  # nobody ended before: the latest verdict counts
        code = _mark(code, meets, ReturnCode.SUCCESS)
        code = _mark(code, ~finite, ReturnCode.NONFINITE)
        if failed is not None:
            code = _mark(code, failed.expand_as(code), ReturnCode.LINEAR_SOLVE_FAILED)
        code = _mark(code, size > DIVERGED_BEYOND * first, ReturnCode.DIVERGED)
        code = _mark(code, evaluation - anchored >= PATIENCE, ReturnCode.STALLED)

        best, best_scale = _pick(self.residual, rows), _pick(self.scale, rows)
        if self.last:
            better = torch.ones_like(meets)
        elif self.joint:
            # One point for the whole batch: where the worst sample is nearest to its tolerance.
            better = (self._excess(size, scale) < self._excess(best, best_scale)).expand_as(meets)
        else:
            better = (size < best) | meets
        _put(self.code, rows, code)
        _put(self.now, rows, size)
        _put(self.residual, rows, torch.where(better, size, best))
        _put(self.scale, rows, torch.where(better, scale, best_scale))
        _put(self.ended, rows, torch.full_like(code, evaluation))
        if not self.last:
            _put(self.value, rows, torch.where(better[:, None], z, _pick(self.value, rows)))
        going = code < 0
        return going.any().expand_as(going) if self.joint else going

    def _excess(self, size: Tensor, scale: Tensor) -> Tensor:
        tolerance = self.settings.abstol + self.settings.reltol * scale
        return torch.nan_to_num(size / tolerance.clamp_min(_tiny(size)), nan=torch.inf).amax()

    @torch.no_grad()
    def codes(self, otherwise: ReturnCode) -> Tensor:
        """Return the return codes (B,) at the kept points; ``otherwise`` where nothing else ended."""
        meets = self.residual <= self.settings.abstol + self.settings.reltol * self.scale
        code = torch.where(self.code <= 0, int(otherwise), self.code)
        return torch.where(meets & torch.isfinite(self.residual), int(ReturnCode.SUCCESS), code)


def _tiny(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).tiny)


def _mark(code: Tensor, where: Tensor, value: ReturnCode) -> Tensor:
    return torch.where((code < 0) & where, int(value), code)


def _pick(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x[rows]


def _put(x: Tensor, rows: Tensor | None, value: Tensor) -> None:
    if rows is None:
        x.copy_(value)
    else:
        x[rows] = value
