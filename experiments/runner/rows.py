"""A ``solvers.Solution`` as the plain row that the store keeps of a solve."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from solvers import ReturnCode, Solution
from solvers.options import as_config


def solve_row(solution: Solution) -> dict[str, Any]:
    """Return the row of one solve; columns, units and meanings are those of the view v_solves.

    Residuals are the largest of the samples'. Whoever timed repeats puts them over ``seconds``.
    """
    stats, settings = solution.stats, solution.settings
    trace = None if solution.trace is None else _trace(solution)
    final = solution.residual.detach().double().cpu()
    last = float(final.max()) if final.numel() else None
    course, whole = np.empty(0), np.empty(0)
    if trace is not None:
        course = trace["residual"]
        # Once samples are frozen, the trace is about the others alone.
        whole = course[trace["active"] == solution.batch]
    return {
        "phase": solution.phase,
        "site": solution.site,
        "problem": solution.problem,
        "solver": solver_name(solution.solver),
        "options": solver_options(solution.solver),
        "iterations": stats.iterations,
        "evaluations": stats.evaluations,
        "sample_evaluations": int(stats.sample_evaluations.sum()),
        "jvps": stats.jvps,
        "vjps": stats.vjps,
        "syncs": stats.syncs,
        "history_bytes": stats.history_bytes,
        "retcode": solution.worst.name,
        "retcodes": solution.counts,
        "converged": solution.counts.get(ReturnCode.SUCCESS.name, 0) / max(solution.batch, 1),
        "message": solution.message,
        "residual_first": float(course[0]) if len(course) else None,
        "residual_last": last,
        "residual_min": _smallest(whole, last),
        "residual_relative": _relative(final, solution.scale),
        "seconds": stats.seconds,
        "repeats": 1,
        "abstol": settings.abstol,
        "reltol": settings.reltol,
        "norm": settings.norm,
        "max_evaluations": settings.max_evaluations,
        "fixed_budget": settings.fixed_budget,
        "dtype": solution.dtype,
        "device": solution.device,
        "batch": solution.batch,
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
    config = as_config(solver)
    return {k: v for k, v in config.items() if k != "name"} if isinstance(config, dict) else {}


def _trace(solution: Solution) -> dict[str, npt.NDArray[np.float64]]:
    trace = solution.trace
    assert trace is not None
    residual = trace.residual
    if residual.ndim > 1:
        residual = residual.amax(dim=1)
    columns = {
        "evaluations": trace.evaluations,
        "seconds": trace.seconds,
        "residual": residual,
        "active": trace.active,
    }
    return {name: column.detach().double().cpu().numpy() for name, column in columns.items()}


def _smallest(course: npt.NDArray[np.float64], last: float | None) -> float | None:
    finite = [float(r) for r in course if np.isfinite(r)]
    return min([*finite, *([] if last is None else [last])], default=None)


def _relative(residual: Tensor, scale: Tensor) -> float | None:
    scale = scale.detach().double().cpu().expand_as(residual)
    if not residual.numel():
        return None
    # A scale of zero comes with a residual of zero, which no tolerance can miss.
    ratio = residual / scale.where(scale > 0, residual.where(residual > 0, residual.new_ones(())))
    return float(ratio.max())


def _extra(solution: Solution) -> dict[str, Any] | None:
    if not solution.attempts:
        return None
    return {"attempts": [{solver_name(a.solver): a.counts} for a in solution.attempts]}
