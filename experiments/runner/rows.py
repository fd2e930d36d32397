"""A ``solvers.Solution`` as the plain row that the store keeps of a solve."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers import ReturnCode, Solution, Trace
from solvers.options import as_config

NAMES = {code.value: code.name for code in ReturnCode}
ALL_WELL = f"SUCCESS: {ReturnCode.SUCCESS.sentence}"


def solve_row(solution: Solution) -> dict[str, Any]:
    """Return the row of one solve; columns, units and meanings are those of the view v_solves.

    Residuals are the largest of the samples'. Whoever timed repeats puts them over ``seconds``.
    """
    stats, settings = solution.stats, solution.settings
    codes = solution.retcode.tolist()
    counts = _counts(codes)
    failed = len(counts) > 1 or ReturnCode.SUCCESS.name not in counts
    final = _numbers(solution.residual)
    last = float(final.max()) if codes else None
    trace, first, smallest = None, None, last
    if solution.trace is not None:
        trace = _trace(solution.trace)
        course = trace["residual"].tolist()
        first = course[0] if course else None
        smallest = _smallest(course, trace["active"].tolist(), len(codes), last)
    return {
        "phase": solution.phase,
        "site": solution.site,
        "problem": solution.problem,
        "solver": solver_name(solution.solver),
        "options": solver_options(solution.solver),
        "iterations": stats.iterations,
        "evaluations": stats.evaluations,
        "sample_evaluations": sum(stats.sample_evaluations.tolist()),
        "jvps": stats.jvps,
        "vjps": stats.vjps,
        "syncs": stats.syncs,
        "history_bytes": stats.history_bytes,
        "retcode": NAMES[max(codes, default=ReturnCode.SUCCESS.value)],
        "retcodes": counts,
        "converged": counts.get(ReturnCode.SUCCESS.name, 0) / max(len(codes), 1),
        "message": solution.message if failed else ALL_WELL,
        "residual_first": first,
        "residual_last": last,
        "residual_min": smallest,
        "residual_relative": _relative(final, _numbers(solution.scale)),
        "seconds": stats.seconds,
        "repeats": 1,
        "abstol": settings.abstol,
        "reltol": settings.reltol,
        "norm": settings.norm,
        "max_evaluations": settings.max_evaluations,
        "fixed_budget": settings.fixed_budget,
        "dtype": solution.dtype,
        "device": solution.device,
        "batch": len(codes),
        "dim": solution.dim,
        "extra": _extra(solution),
        "trace": trace,
    }


def solver_name(solver: object) -> str:
    """Return the registered name of a solver, or of a user's own the name of its class."""
    name = getattr(solver, "name", None)
    return name if isinstance(name, str) and name else type(solver).__name__


def solver_options(solver: object) -> dict[str, Any]:
    """Return the options of a solver as plain data, without its name."""
    try:
        return dict(_known_options(solver))
    except TypeError:  # a user's own solver may be mutable
        return _options(solver)


def _options(solver: object) -> dict[str, Any]:
    config = as_config(solver)
    return {k: v for k, v in config.items() if k != "name"} if isinstance(config, dict) else {}


_known_options = functools.lru_cache(maxsize=256)(_options)


def _counts(codes: list[int]) -> dict[str, int]:
    return {NAMES[code]: codes.count(code) for code in sorted(set(codes))}


def _numbers(tensor: Tensor) -> npt.NDArray[np.float64]:
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if tensor.dtype is torch.bfloat16:  # which numpy does not know
        tensor = tensor.double()
    return tensor.numpy().astype(np.float64, copy=False)


def _trace(trace: Trace) -> dict[str, npt.NDArray[np.float64]]:
    residual = _numbers(trace.residual)
    return {
        "evaluations": _numbers(trace.evaluations),
        "seconds": _numbers(trace.seconds),
        "residual": residual.max(axis=1) if residual.ndim > 1 else residual,
        "active": _numbers(trace.active),
    }


def _smallest(
    course: list[float], active: list[float], batch: int, last: float | None
) -> float | None:
    """The smallest residual on the way; once samples are frozen, the trace is about the others."""
    whole = [r for r, n in zip(course, active, strict=True) if n == batch and math.isfinite(r)]
    return min([*whole, *([] if last is None else [last])], default=None)


def _relative(residual: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> float | None:
    if not residual.size:
        return None
    if scale.min() > 0:
        return float((residual / scale).max())
    # A scale of zero comes with a residual of zero, which no tolerance can miss.
    safe = np.where(scale > 0, scale, np.where(residual > 0, residual, 1.0))
    return float((residual / safe).max())


def _extra(solution: Solution) -> dict[str, Any] | None:
    if not solution.attempts:
        return None
    return {"attempts": [{solver_name(a.solver): a.counts} for a in solution.attempts]}
