"""Implicit: the gradient of the equilibrium itself, by the implicit function theorem.

uᵀ(I − J) = (dL/dz*)ᵀ is solved at z*, then dL/dθ = uᵀ ∂f/∂θ. Memory does not depend on how z* was
found, nor does the gradient.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), Theorem 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor

from implicit.function import Rule
from implicit.gradients.base import Gradient, Request
from implicit.gradients.equilibrium import at_equilibrium
from solvers import linear
from solvers import registry as solver_registry
from solvers.linear import GMRES
from solvers.options import OptionError
from solvers.problem import Problem
from solvers.registries import Registry
from solvers.solution import Solution
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
    precondition
        ``forward``: precondition the adjoint from the right with the estimate of (I − J)⁻¹ that
        Broyden or Anderson leave. The gradient is as exact, of about half as many products where
        the forward solve was long; the solver's history stays in memory until backward.
    warm_start
        Start the adjoint from that of the earlier solution (a layer's last step), scaled to fit
        best. Worth it where the batch stays the same.
    on_failure
        What an adjoint that falls short does: ``warn`` (:class:`AdjointWarning`), ``raise``
        (:class:`AdjointError`) or ``ignore``; the solution says so in any case.
    certificate
        Leave an estimate of the gradient's relative error in ``solution.certificate``
        (:class:`implicit.certificate.Certificate`), for one evaluation with its product.
    """

    solver: BaseSolver = field(default_factory=GMRES, metadata={"registry": adjoint_registry})
    reltol: Annotated[float, Field(ge=0)] | None = None
    max_products: Annotated[int, Field(ge=1)] = 100
    precondition: Literal["forward"] | None = None
    warm_start: bool = False
    on_failure: Literal["warn", "raise", "ignore"] = "warn"
    certificate: bool = True

    name: ClassVar[str] = "implicit"
    reference: ClassVar[str] = "Bai, Kolter & Koltun 2019, Theorem 1"

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        OptionError
            For a solver of maps of one form, which the adjoint has not.
        """
        super().__post_init__()
        if "projection" in self.solver.requires:
            raise OptionError(
                f"solver = {self.solver}: takes maps z = (W z + u)+ alone, and the adjoint is a"
                " linear system; use GMRES(), Anderson() or any other"
            )

    def solve(self, problem: Problem, request: Request) -> Solution:
        """Solve without a graph; the value's backward solves the adjoint."""
        settings, earlier = request.settings, request.earlier and request.earlier.adjoint
        rule = Rule(
            self.solver,
            settings.reltol if self.reltol is None else self.reltol,
            self.max_products,
            settings.norm,
            self.on_failure,
            request.site,
            cast(Tensor, earlier.value) if self.warm_start and earlier is not None else None,
            self.certificate,
        )
        return at_equilibrium(
            problem,
            request,
            name=self.name,
            rule=rule,
            use_inverse=self.precondition == "forward",
            certified=self.certificate,
        )
