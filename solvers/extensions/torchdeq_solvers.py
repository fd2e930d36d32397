"""The solvers of torchdeq, on the whole batch at once as they are used there.

A finished sample is evaluated on with the others. torchdeq's own test is on one number for the
batch, and is met here when ours is for every sample; its record is in `original`.

Reference: Z. Geng, J. Z. Kolter, TorchDEQ: A Library for Deep Equilibrium Models (2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from solvers.extensions.peer import PeerSolver, Shown
from solvers.foreign import Objective


class Torchdeq(PeerSolver):
    """What the wrapped solvers share."""

    package: ClassVar[str] = "torchdeq"
    requires: ClassVar[frozenset[str]] = frozenset({"torchdeq"})
    reference: ClassVar[str] = "Geng & Kolter 2023, torchdeq"

    def solved(self, objective: Objective, key: str, **options: Any) -> dict[str, Any]:
        """Run torchdeq's solver ``key``; return its statistics.

        Raises
        ------
        ImportError
            If torchdeq cannot be imported.
        """
        from torchdeq.solver import get_solver

        shown = Shown(objective)
        # Its point is the best by its own count, and ours is that of every sample by ours.
        _, _, statistics = get_solver(key)(
            shown.function,
            objective.z0.clone(),
            max_iter=objective.settings.max_evaluations,
            tol=shown.tolerance,
            stop_mode="abs",
            **options,
        )
        return dict(statistics)


@dataclass(frozen=True)
class TorchdeqPicard(Torchdeq):
    """torchdeq's plain iteration.

    Parameters
    ----------
    mixing
        torchdeq's ``tau``: the part of the step that is taken.
    monitored
        ``true`` is its ``fixed_point_iter``; ``false`` its ``simple_fixed_point_iter``, which
        measures nothing while it iterates.
    """

    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0
    monitored: bool = True

    name: ClassVar[str] = "torchdeq_picard"

    def run(self, objective: Objective) -> Any:
        """Iterate until the objective has seen enough."""
        if self.monitored:
            return self.solved(objective, "fixed_point_iter", tau=self.mixing)
        from torchdeq.solver import get_solver

        def function(z: Tensor, tau: float) -> Tensor:  # which is asked to mix by itself
            objective(z)
            return z + tau * (objective.evaluator.last[0] - z)

        budget = objective.settings.max_evaluations
        solve = get_solver("simple_fixed_point_iter")
        return solve(function, objective.z0.clone(), max_iter=budget, tau=self.mixing)[2]


@dataclass(frozen=True)
class TorchdeqAnderson(Torchdeq):
    """torchdeq's Anderson acceleration, of a window a sample.

    Parameters
    ----------
    window
        torchdeq's ``m``, the points kept.
    ridge
        torchdeq's ``lam``, added to the squares of the residuals: absolute, so that the units of z
        matter.
    mixing
        torchdeq's ``tau``: the part of the step that is taken.
    """

    window: Annotated[int, Field(ge=2)] = 6
    ridge: Annotated[float, Field(ge=0)] = 1e-4
    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0

    name: ClassVar[str] = "torchdeq_anderson"

    def run(self, objective: Objective) -> dict[str, Any]:
        """Iterate until the objective has seen enough; a singular matrix of a sample ends all."""
        return self.solved(objective, "anderson", m=self.window, lam=self.ridge, tau=self.mixing)


@dataclass(frozen=True)
class TorchdeqBroyden(Torchdeq):
    """torchdeq's good Broyden, of a history a sample and a line search for the batch.

    Parameters
    ----------
    window
        torchdeq's ``LBFGS_thres``, the updates kept, the oldest overwritten; ``None`` keeps, and
        reserves the memory of, as many as evaluations are allowed.
    line_search
        torchdeq's ``ls``: Armijo's on the norm of the batch.
    """

    window: Annotated[int, Field(ge=1)] | None = None
    line_search: bool = False

    name: ClassVar[str] = "torchdeq_broyden"

    def run(self, objective: Objective) -> dict[str, Any]:
        """Iterate until the objective has seen enough."""
        return self.solved(objective, "broyden", LBFGS_thres=self.window, ls=self.line_search)
