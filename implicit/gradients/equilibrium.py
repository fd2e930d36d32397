"""What the gradients at the equilibrium share: a solve without a graph, whose value carries one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from implicit.certificate import precision
from implicit.explicit import explicit
from implicit.function import Estimate, Estimated, Map, Rule, equilibrium
from implicit.gradients.base import Request
from solvers.fallback import default_solver, leaves_inverse
from solvers.inverse import LowRank
from solvers.options import OptionError
from solvers.problem import FixedPointProblem, Layout, Problem, RootProblem
from solvers.solution import AdjointRecord, Solution
from solvers.solver import BaseSolver


def at_equilibrium(
    problem: Problem,
    request: Request,
    *,
    name: str,
    rule: Rule | None = None,
    estimate: Estimate | None = None,
    use_inverse: bool = False,
    certified: bool = False,
) -> Solution:
    """Solve without a graph; the value's backward solves the adjoint, or estimates it.

    Parameters
    ----------
    problem, request
        What is solved and how.
    name
        The gradient's, for messages.
    rule
        How the adjoint is solved.
    estimate
        What takes the adjoint's place; one of ``rule`` and ``estimate`` is given.
    use_inverse
        Whether the backward uses what the solver learnt of (I − J)⁻¹, which is kept for it.
    certified
        Whether the backward leaves a :class:`implicit.Certificate`, for one more evaluation.

    Raises
    ------
    OptionError
        If it shall, and the solver learns nothing.
    """
    if use_inverse and not leaves_inverse(request.solver or default_solver()):
        raise OptionError(
            f"the gradient {name} uses the solver's estimate of the inverse Jacobian, and"
            f" {cast(BaseSolver, request.solver).name} leaves none: solve by Broyden or Anderson"
        )
    given = explicit(problem)
    function = given.function
    layout = Layout(given.z0)
    is_root = isinstance(given, RootProblem)
    count = len(given.args)
    # The closures below outlive the forward: what is in these lists must not.
    wanted, found = [request], list[Solution]()
    learnt: list[LowRank | None] = [None]
    record = AdjointRecord()
    independent = [problem.samples_independent]
    title, keeps = problem.name, request.keep_inverse
    mixed = torch.is_autocast_enabled(layout.device.type)

    def flat(z: Tensor, *tensors: Tensor) -> Tensor:
        image = function(layout.unpack(z), *tensors)
        out = layout.pack(layout.check(image, z.shape[0], 1, any_float=mixed))
        return z + out if is_root else out

    def forward(z0: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        kind = RootProblem if is_root else FixedPointProblem
        solution = wanted[0].run(
            kind(
                function,
                layout.unpack(z0),
                tuple(t.detach() for t in tensors[:count]),
                tuple(t.detach() for t in tensors[count:]),
                samples_independent=independent[0],
                name=title,
            ),
            keep_inverse=use_inverse or keeps,
        )
        independent[0] = solution.samples_independent
        if use_inverse:
            learnt[0] = solution.inverse
            if not keeps:
                solution = replace(
                    solution,
                    inverse=None,
                    attempts=tuple(replace(a, inverse=None) for a in solution.attempts),
                )
        found.append(solution)
        return layout.pack(solution.value).clone()

    z0 = layout.pack(given.z0).detach()
    map_ = Map(
        flat,
        forward,
        rule,
        record,
        independent,
        lambda: learnt[0],
        certified=certified,
        eps=precision(z0),
    )
    tensors: tuple[Any, ...] = (*given.args, *given.params)
    if estimate is None:
        z = equilibrium(map_, z0, *tensors)
    else:
        z = Estimated.apply(map_, name, estimate, z0, *tensors)  # type: ignore[no-untyped-call]
    solution = replace(found[-1], value=layout.unpack(z), record=record)
    found.clear()
    wanted.clear()
    return solution
