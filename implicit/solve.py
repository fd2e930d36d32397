"""``implicit.solve``: like ``solvers.solve``, with a value that one can differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from implicit.gradients import Gradient, Implicit
from implicit.gradients.base import Request
from implicit.steady import as_module, needs_gradient, solving
from solvers.loop import Iteration, Settings, started_from
from solvers.problem import Problem, parts
from solvers.solution import Solution
from solvers.solver import BaseSolver


def solve(
    problem: Problem,
    solver: BaseSolver | None = None,
    gradient: Gradient | None = None,
    *,
    abstol: float = 0.0,
    reltol: float = 1e-3,
    norm: Literal["l2", "rms", "linf"] = "l2",
    max_evaluations: int = 100,
    max_seconds: float | None = None,
    fixed_budget: bool = False,
    start: Solution | None = None,
    scale: Tensor | float | None = None,
    trace: Literal["summary", "per_sample"] | None = "summary",
    callback: Callable[[Iteration], object] | None = None,
    compile: bool = False,
    keep_inverse: bool = False,
    site: str = "",
) -> Solution:
    """Solve a problem; ``solution.value`` is differentiable in args, params and the parameters.

    The function may be a ``torch.nn.Module`` (or a bound method of one), whose parameters are
    found by themselves; other tensors that need gradients belong in ``args`` or ``params``.

    Parameters
    ----------
    problem, solver, abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, start, \
scale, trace, callback, compile, keep_inverse
        As in :func:`solvers.solve`.
    gradient
        ``Implicit()`` when ``None``.
    site
        A name for the solve, such as the layer's, that the record keeps.

    Returns
    -------
    Solution
        ``solution.adjoint`` is the solution of the backward solve, once backward has run.

    Raises
    ------
    ValueError
        If the function closes over tensors that require gradients, or the gradient does not fit
        the solver.
    """
    settings = Settings(
        abstol, reltol, norm, max_evaluations, max_seconds, fixed_budget, trace, compile
    )
    if start is not None:
        problem = started_from(problem, start)
    request = Request(solver, settings, scale, callback, site, start, start, keep_inverse)
    return requested(problem, gradient or Implicit(), request)


def requested(problem: Problem, gradient: Gradient, request: Request) -> Solution:
    """Solve as :func:`solve` does, the settings checked; what the layer shares with it."""
    wanted = _wanted(problem)
    with torch.set_grad_enabled(wanted), solving(problem) as given:
        # Through steps, the network is the steps: they are the same where it is only used.
        if wanted or gradient.requires & {"native", "own"}:
            return gradient.solve(given, request)
        return request.run(given)


def _wanted(problem: Problem) -> bool:
    """Whether grad is enabled and something may require it."""
    if not torch.is_grad_enabled():
        return False
    module = as_module(problem.function)
    if module is None:
        return True  # a function may close over anything: the gradient looks
    own = (*module.parameters(), *module.buffers())
    return any(map(needs_gradient, (*parts(problem.z0), *problem.args, *problem.params, *own)))
