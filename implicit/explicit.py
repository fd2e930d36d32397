"""Making every tensor that needs a gradient an explicit argument of a problem's function.

A custom derivative can only return gradients for tensors that it was given, never for those that a
function closes over. A module's parameters are found by themselves, as are weights that it computes
from them; anything else that a function closes over is found out at its first evaluation, and
refused.
"""

from __future__ import annotations

from typing import cast

from implicit.steady import AnyProblem, Steady, steady, with_function


def explicit(problem: AnyProblem) -> AnyProblem:
    """Return the problem with all tensors of its module that need gradients behind its params.

    The function is one and the same at every evaluation (:mod:`implicit.steady`), whenever that
    happens, so that a backward pass linearises what was solved.

    Raises
    ------
    ValueError
        At the first evaluation, if the function closes over other tensors that need gradients.
    """
    problem = steady(problem)
    function, tensors = cast(Steady, problem.function).completed()
    return with_function(problem, function, *tensors)
