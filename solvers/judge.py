"""The judgement of a point: the one test of convergence, the best iterate, the return codes.

Two norms a sample are computed on the device, and read every few points; everything else is
decided on the host. With a fixed budget nothing is read, and the little that is left to decide is
decided on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.solution import ReturnCode
from solvers.solver import free_reads

if TYPE_CHECKING:
    from solvers.loop import Settings

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

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


def to_l2(kind: str, dim: int) -> float:
    """Return the largest c such that ‖x‖ ≤ t in the norm of x (dim) follows from ‖x‖₂ ≤ c t."""
    return max(dim, 1) ** 0.5 if kind == "rms" else 1.0


@dataclass
class Verdicts:
    """What is known of each sample, arrays (rows,).

    Attributes
    ----------
    residual, scale
        The residual norm and the scale at the kept point.
    now, first
        The residual norms at the last and at the first point.
    code
        −1 while the sample goes on, else its return code.
    ended
        The last evaluation that was judged.
    anchor, anchored
        The residual norm at the last progress, and its evaluation.
    """

    residual: Floats
    scale: Floats
    now: Floats
    first: Floats
    code: Ints
    ended: Ints
    anchor: Floats
    anchored: Ints

    @classmethod
    def blank(cls, rows: int) -> Verdicts:
        """Return verdicts on samples of which nothing is known."""
        size = [np.full(rows, np.inf) for _ in range(5)]
        none = [np.full(rows, -1, dtype=np.int64) for _ in range(3)]
        return cls(size[0], size[1], size[2], size[3], none[0], none[1], size[4], none[2])

    def take(self, rows: Ints) -> Verdicts:
        """Return the verdicts on some rows."""
        return Verdicts(*(getattr(self, f.name)[rows] for f in fields(self)))

    def put(self, rows: Ints, part: Verdicts) -> None:
        """Overwrite the verdicts on some rows."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(part, f.name)


class Seen(NamedTuple):
    """A point that was evaluated and is not judged yet: tensors on the device."""

    z: Tensor  # (rows, D)
    evaluation: int
    sizes: tuple[Tensor, ...]  # (rows,) residual norm, norm of f if it matters
    flags: tuple[Tensor | None, Tensor | None]  # (rows,) linear solve failed; a trial


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
    verdicts, value
        On the samples still being judged; (rows, D) their kept points.
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
        self.settings, self.last = settings, last
        self.joint = False
        self._needs_size_of_f = not is_root and scale is None and settings.reltol > 0
        self._given = None if scale is None else scale.detach()
        self._scale: Floats | None = None
        if scale is not None and not settings.fixed_budget:
            self._scale = scale.detach().cpu().numpy()
        self._rows: Ints | None = None
        self._whole: Verdicts | None = None
        self._whole_value: Tensor | None = None
        self._start = z.detach()
        self._on_host = free_reads(z)
        self.restart(z)

    def restart(self, z: Tensor) -> None:
        """Forget every verdict."""
        self.value = z.detach()
        self.verdicts = Verdicts.blank(z.shape[0])
        self._begun = False
        self._everyone = True  # goes on, as far as it was decided
        self._latest_usual: int | None = None  # evaluation of a usual point, not written down yet
        self._seen: list[Seen] = []
        self._latest: tuple[Tensor, ...] = ()
        self._first: Tensor | None = None
        self._budget: _OnDevice | None = None

    def see(
        self,
        z: Tensor,
        fz: Tensor,
        residual: Tensor,
        evaluation: int,
        *,
        failed: Tensor | None = None,
        trial: Tensor | None = None,
    ) -> Tensor:
        """Note a point (rows, D); return its residual norms (rows,) on the device."""
        kind = self.settings.norm
        if residual.requires_grad or fz.requires_grad or z.requires_grad:
            z, fz, residual = z.detach(), fz.detach(), residual.detach()
        size = norm(residual, kind)
        sizes = (size, norm(fz, kind)) if self._needs_size_of_f else (size,)
        seen = Seen(z, evaluation, sizes, (failed, trial))
        self._latest = sizes
        self._first = size if self._first is None else self._first
        if self.settings.fixed_budget:
            self._budget = self._judged_on_device(seen)
        else:
            self._seen.append(seen)
        return size

    @property
    def tolerance(self) -> Tensor:
        """(rows,) the residual norms, in l2, that meet the tolerance at the last point's scale."""
        s = self.settings
        return (s.abstol + s.reltol * self._scale_on_device()) * to_l2(s.norm, self.value.shape[1])

    def _scale_on_device(self) -> Tensor:
        """Return the scale (rows,) at the last point."""
        size, *of_f = self._latest
        assert self._first is not None  # a point was seen
        if self._given is not None:
            return self._given.to(size.dtype)
        return torch.maximum(of_f[0], self._first) if of_f else self._first

    def _judged_on_device(self, seen: Seen) -> _OnDevice:
        """Return the best points so far, nothing being read."""
        s, old, size = self.settings, self._budget, seen.sizes[0]
        scale = self._scale_on_device()
        failed, evaluation = seen.flags[0], seen.evaluation
        excess = size
        if self.joint:
            tolerance = (s.abstol + s.reltol * scale).clamp_min(torch.finfo(size.dtype).tiny)
            excess = torch.nan_to_num(size / tolerance, nan=torch.inf).amax().expand_as(size)
        if old is None or self.last:
            return _OnDevice(seen.z, size, scale, excess, size, failed, evaluation)
        better = excess < old.excess
        return _OnDevice(
            torch.where(better[:, None], seen.z, old.value),
            torch.where(better, size, old.residual),
            torch.where(better, scale, old.scale),
            torch.where(better, excess, old.excess),
            size,
            failed,
            evaluation,
        )

    def decide(self) -> Bools | None:
        """Judge the points noted since the last time, by one read.

        Return who goes on (rows,), or ``None`` if everyone does.
        """
        points = self._seen
        if self._on_host and len(points) == 1:
            (seen,) = points
            better = self._judge(seen.evaluation, *_numbers(seen))
            if better is None:
                self.value = seen.z
                points.clear()
                return None
            self._keep([(better, seen.z)])
        else:
            read = [_numbers(p) for p in points] if self._on_host else _read(points)
            judged = [
                self._judge(p.evaluation, *numbers) for p, numbers in zip(points, read, strict=True)
            ]
            self._keep(list(zip(judged, [p.z for p in points], strict=True)))
        points.clear()
        if self._everyone:
            return None
        going = self.verdicts.code < 0
        return np.full_like(going, going.any()) if self.joint else going

    def _keep(self, points: list[tuple[Bools | None, Tensor]]) -> None:
        """Keep the points (rows, D) where they are better, ``None`` being everywhere."""
        for better, z in points:
            number = -1 if better is None else np.count_nonzero(better)
            if better is None or number == len(better):
                self.value = z
            elif number:
                rows = torch.from_numpy(better).to(z.device)
                self.value = torch.where(rows.unsqueeze(1), z, self.value)

    def _judge(
        self,
        evaluation: int,
        size: Floats,
        size_of_f: Floats | None,
        failed: Bools | None,
        trial: Bools | None,
    ) -> Bools | None:
        """Judge one point; return (rows,) where it is the new kept one, ``None`` for everywhere."""
        s, v = self.settings, self.verdicts
        if not self._begun:
            self._begun = True
            v.first = v.anchor = size
            v.anchored.fill(evaluation)
            v.ended.fill(evaluation)
        if self._scale is not None:
            scale = self._scale
        elif size_of_f is not None:
            scale = np.maximum(size_of_f, v.first)
        else:
            scale = v.first
        tolerance = s.reltol * scale
        if s.abstol:
            tolerance += s.abstol
        meets = size <= tolerance
        progress = size < (1 - PROGRESS) * v.anchor
        if (
            self._everyone
            and failed is None
            and np.count_nonzero(progress) == len(size)
            and not np.count_nonzero(meets)
        ):
            # The usual case. A progress lies below the kept residual too, which is less than
            # 0.1 % below the anchor.
            v.residual = v.anchor = v.now = size
            v.scale = scale
            self._latest_usual = evaluation
            return None
        self._settle()
        v.now = size
        v.anchor = np.where(progress, size, v.anchor)
        v.anchored[progress] = evaluation
        bounded = size <= DIVERGED_BEYOND * v.first
        if (
            self._everyone
            and failed is None
            and not (self.last or self.joint or np.count_nonzero(meets))
            and np.count_nonzero(bounded) == len(size)
            and evaluation < PATIENCE
        ):  # nobody ends here
            v.ended.fill(evaluation)
            better = size < v.residual
            v.residual = np.where(better, size, v.residual)
            v.scale = np.where(better, scale, v.scale)
            return better
        code = np.full_like(v.code, -1)
        code[v.anchored <= evaluation - PATIENCE] = ReturnCode.STALLED
        unusual = ~bounded
        nonfinite = ~np.isfinite(size)
        if trial is not None:
            unusual &= ~trial
            nonfinite &= ~trial
        code[unusual] = ReturnCode.DIVERGED
        if failed is not None:
            code[failed] = ReturnCode.LINEAR_SOLVE_FAILED
        code[nonfinite] = ReturnCode.NONFINITE
        code[meets] = ReturnCode.SUCCESS
        if self.last:
            better = np.ones_like(meets)
            v.code = code
            v.ended.fill(evaluation)
        elif self.joint:
            # One point for the batch: where the worst sample is nearest to its tolerance.
            nearer = self._excess(size, scale) < self._excess(v.residual, v.scale)
            better = np.full_like(meets, nearer)
            v.code = code
            v.ended.fill(evaluation)
        else:
            # What ended between two reads of the device stays as it ended.
            going = v.code < 0
            better = ((size < v.residual) | meets) & going
            v.code = np.where(going, code, v.code)
            v.ended[going] = evaluation
        self._everyone = bool((v.code < 0).all())
        v.residual = np.where(better, size, v.residual)
        v.scale = np.where(better, scale, v.scale)
        return better

    def _settle(self) -> None:
        """Write down at which evaluation the usual points ended."""
        if self._latest_usual is not None:
            self.verdicts.anchored.fill(self._latest_usual)
            self.verdicts.ended.fill(self._latest_usual)
            self._latest_usual = None

    def _excess(self, size: Floats, scale: Floats) -> float:
        """Return the largest residual over its tolerance."""
        tolerance = self.settings.abstol + self.settings.reltol * scale
        with np.errstate(invalid="ignore"):  # infinite over infinite: nothing is known yet
            ratio = size / np.maximum(tolerance, np.finfo(np.float32).tiny)
        return float(np.where(np.isnan(ratio), np.inf, ratio).max())

    def restrict(self, kept: Tensor, rows: Ints) -> None:
        """Go on with the rows ``kept`` (indices into the remaining ones) alone.

        They are given on the device and, as ``rows``, on the host, so that nothing is read.
        """
        if self._whole is None or self._rows is None or self._whole_value is None:
            self._rows = np.arange(len(self.verdicts.code))
            self._whole = self.verdicts.take(self._rows)  # some of its arrays are one and the same
            self._whole_value = self.value.clone()
        else:
            self._flush(self._whole, self._whole_value, self._rows)
        self._rows = self._rows[rows]
        self.verdicts = self.verdicts.take(rows)
        self._everyone = bool((self.verdicts.code < 0).all())
        self.value = self.value[kept]
        self._scale = None if self._scale is None else self._scale[rows]
        self._given = None if self._given is None else self._given[kept]
        self._latest = tuple(t[kept] for t in self._latest)
        self._first = None if self._first is None else self._first[kept]

    def _flush(self, whole: Verdicts, value: Tensor, rows: Ints) -> None:
        whole.put(rows, self.verdicts)
        value[torch.from_numpy(rows).to(value.device)] = self.value

    def active(self, evaluations: Sequence[int]) -> list[int]:
        """Return how many samples went on after each of these evaluations."""
        whole = self.verdicts if self._whole is None else self._whole
        if self.joint or self._budget is not None or self.last:
            done = bool((whole.code >= 0).all()) and self._budget is None
            batch = len(whole.code)
            return [batch] * (len(evaluations) - done) + [0] * done
        ended = np.sort(whole.ended[whole.code >= 0])
        after = len(whole.code) - np.searchsorted(ended, evaluations, side="right")
        counts: list[int] = after.tolist()
        return counts

    def conclude(self, otherwise: ReturnCode) -> Concluded:
        """Return what is known of all samples; ``otherwise`` is how the unended ones ended."""
        done = self._conclude(otherwise)
        # The caller's start stays the caller's, also where it is the answer.
        start = self._start.untyped_storage().data_ptr()
        if done.value.untyped_storage().data_ptr() == start:
            done = done._replace(value=done.value.clone())
        return done

    def _conclude(self, otherwise: ReturnCode) -> Concluded:
        if self._budget is not None:
            assert self._first is not None  # a point was seen
            return self._budget.concluded(self.settings, self._first, otherwise)
        self.decide()
        self._settle()
        verdicts, value = self.verdicts, self.value
        if self._whole is not None and self._rows is not None and self._whole_value is not None:
            self._flush(self._whole, self._whole_value, self._rows)
            verdicts, value = self._whole, self._whole_value
        v = verdicts
        tolerance = self.settings.abstol + self.settings.reltol * v.scale
        code = np.where(v.code <= 0, int(otherwise), v.code)
        code[(v.residual <= tolerance) & np.isfinite(v.residual)] = ReturnCode.SUCCESS
        device = value.device
        real = torch.float64 if value.dtype == torch.float64 else torch.float32

        def tensor(x: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device, dtype)

        return Concluded(
            value,
            tensor(v.residual, real),
            tensor(v.scale, real),
            tensor(v.now, real),
            tensor(code, torch.long),
            tensor(v.ended, torch.long),
        )


class Concluded(NamedTuple):
    """The verdict on all samples, as tensors (B,) but the value (B, D)."""

    value: Tensor
    residual: Tensor
    scale: Tensor
    now: Tensor
    code: Tensor
    ended: Tensor


def _numbers(seen: Seen) -> tuple[Any, ...]:
    """Return the numbers of a point on the host as arrays (size, size of f, failed, trial)."""
    sizes, (failed, trial) = seen.sizes, seen.flags
    return (
        sizes[0].numpy(),
        sizes[1].numpy() if len(sizes) > 1 else None,
        None if failed is None else failed.numpy(),
        None if trial is None else trial.numpy(),
    )


def _read(points: list[Seen]) -> list[tuple[Any, ...]]:
    """Return the same of points on a device, by one read."""
    if not points:
        return []
    columns = [
        column.to(p.sizes[0].dtype)
        for p in points
        for column in (*p.sizes, *(flag for flag in p.flags if flag is not None))
    ]
    read = iter(torch.stack(columns).cpu().numpy())
    return [
        (
            next(read),
            next(read) if len(p.sizes) > 1 else None,
            *(None if flag is None else next(read) > 0 for flag in p.flags),
        )
        for p in points
    ]


class _OnDevice(NamedTuple):
    """The best point of each sample when nothing may be read: tensors (B,), the value (B, D)."""

    value: Tensor
    residual: Tensor
    scale: Tensor
    excess: Tensor
    now: Tensor
    failed: Tensor | None
    evaluation: int

    def concluded(self, settings: Settings, first: Tensor, otherwise: ReturnCode) -> Concluded:
        """Return the verdict, decided on the device; ``first`` (B,) are the first residuals."""
        tolerance = settings.abstol + settings.reltol * self.scale
        code = torch.full_like(self.now, int(otherwise), dtype=torch.long)
        code.masked_fill_(self.now > DIVERGED_BEYOND * first, int(ReturnCode.DIVERGED))
        if self.failed is not None:
            code.masked_fill_(self.failed, int(ReturnCode.LINEAR_SOLVE_FAILED))
        code.masked_fill_(~torch.isfinite(self.now), int(ReturnCode.NONFINITE))
        meets = (self.residual <= tolerance) & torch.isfinite(self.residual)
        code.masked_fill_(meets, int(ReturnCode.SUCCESS))
        ended = torch.full_like(code, self.evaluation)
        return Concluded(self.value, self.residual, self.scale, self.now, code, ended)
