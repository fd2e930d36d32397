"""Implicit: the gradient of the equilibrium itself, by the implicit function theorem.

uᵀ(I − J) = (dL/dz*)ᵀ is solved at z*, then dL/dθ = uᵀ ∂f/∂θ. Memory does not depend on how z* was
found, nor does the gradient.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), Theorem 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor

from implicit.explicit import explicit, refuse_closures
from implicit.function import Map, Rule, equilibrium
from implicit.gradients.base import Gradient
from solvers import linear
from solvers import registry as solver_registry
from solvers.linear import GMRES
from solvers.loop import Iteration, Settings, run
from solvers.problem import FixedPointProblem, Layout, Problem, RootProblem
from solvers.registries import Registry
from solvers.solution import AdjointRecord, Solution
from solvers.solver import BaseSolver

adjoint_registry: Registry[BaseSolver] = Registry(
    "adjoint solver", others=(cast(Registry[BaseSolver], linear.registry), solver_registry)
)


@dataclass(frozen=True)
class Implicit(Gradient):
    """The exact gradient at the equilibrium, from one linear solve.

    Derivatives of any order, ``torch.func`` transforms and forward mode work. ``z0`` has no
    influence and gets no gradient.

    Parameters
    ----------
    solver
        How the adjoint is solved: a linear solver, or any solver of fixed points.
    reltol
        ‖residual‖ relative to the cotangent; ``None`` is the forward's.
    max_products
        The most products with Jᵀ.
    on_failure
        What an adjoint that falls short does: ``warn`` (:class:`AdjointWarning`), ``raise``
        (:class:`AdjointError`) or ``ignore``; the solution says so in any case.
    """

    solver: BaseSolver = field(default_factory=GMRES, metadata={"registry": adjoint_registry})
    reltol: Annotated[float, Field(ge=0)] | None = None
    max_products: Annotated[int, Field(ge=1)] = 100
    on_failure: Literal["warn", "raise", "ignore"] = "warn"

    name: ClassVar[str] = "implicit"
    reference: ClassVar[str] = "Bai, Kolter & Koltun 2019, Theorem 1"

    def solve(
        self,
        problem: Problem,
        solver: BaseSolver | None,
        settings: Settings,
        *,
        scale: Tensor | float | None = None,
        callback: Callable[[Iteration], object] | None = None,
        site: str = "",
    ) -> Solution:
        """Solve without a graph; the value's backward solves the adjoint."""
        given = explicit(problem)
        function = refuse_closures(given.function)
        layout = Layout(given.z0)
        is_root = isinstance(given, RootProblem)
        count = len(given.args)
        found: list[Solution] = []
        record = AdjointRecord()
        independent = [problem.samples_independent]
        name = problem.name  # the closures below outlive the forward: they must not hold z0

        def flat(z: Tensor, *tensors: Tensor) -> Tensor:
            out = layout.pack(layout.check(function(layout.unpack(z), *tensors), z.shape[0], 1))
            return z + out if is_root else out

        def forward(z0: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
            kind = RootProblem if is_root else FixedPointProblem
            solution = run(
                kind(
                    function,
                    layout.unpack(z0),
                    tuple(t.detach() for t in tensors[:count]),
                    tuple(t.detach() for t in tensors[count:]),
                    samples_independent=independent[0],
                    name=name,
                ),
                solver,
                settings,
                scale=scale,
                callback=callback,
                site=site,
            )
            independent[0] = solution.samples_independent
            found.append(solution)
            return layout.pack(solution.value).clone()

        reltol = settings.reltol if self.reltol is None else self.reltol
        rule = Rule(self.solver, reltol, self.max_products, settings.norm, self.on_failure, site)
        map_ = Map(flat, forward, rule, record, independent)
        z0 = layout.pack(given.z0).detach()
        z = equilibrium(map_, z0, *given.args, *given.params)
        solution = replace(found[-1], value=layout.unpack(z), record=record)
        found.clear()
        return solution
