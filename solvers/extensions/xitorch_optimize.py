"""The root finders of xitorch, with the batch as one vector as they are used there.

xitorch's own tests are on one norm for the batch, and are replaced: it ends when ours is met for
every sample. It then returns the point before that one; the best point is noted by us.

Reference: M. Kasim, S. Vinko, xitorch: differentiable scientific computing library (2020).
"""

from __future__ import annotations

import abc
import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from solvers.extensions.peer import PeerSolver, Shown
from solvers.foreign import Objective


@dataclass(frozen=True)
class _Test:
    """xitorch's stopping test, as it may be given from outside."""

    shown: Shown

    def check(self, x: Tensor, y: Tensor, dx: Tensor) -> bool:
        """Whether nobody wants to go on, whatever the point x, its residual y and the step dx."""
        return self.shown.over


class Xitorch(PeerSolver):
    """What the wrapped methods share.

    Attributes
    ----------
    method
        xitorch's name of the method.
    """

    package: ClassVar[str] = "xitorch"
    method: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset({"xitorch"})
    reference: ClassVar[str] = "Kasim & Vinko 2020, xitorch"

    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """Return xitorch's options of the method."""

    def run(self, objective: Objective) -> Tensor:
        """Return what xitorch returns, (B, D).

        Raises
        ------
        ImportError
            If xitorch cannot be imported.
        """
        from xitorch.optimize import equilibrium, rootfinder

        shown = Shown(objective)
        # equilibrium() would give its root finders z − f(z), of the other sign.
        mixes = self.method == "anderson_acc"
        solve = equilibrium if mixes else rootfinder

        # xitorch takes functions, and methods of modules, but of no other object.
        def function(z: Tensor) -> Tensor:
            return shown.function(z) if mixes else shown.residual(z)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge is said by the return codes
            solution: Tensor = solve(
                function,
                objective.z0.clone(),
                method=self.method,
                maxiter=objective.settings.max_evaluations,
                custom_terminator=_Test(shown),
                **self.options(),
            )
        return solution


@dataclass(frozen=True)
class XitorchBroyden1(Xitorch):
    """xitorch's good Broyden, of one history and one line search for the batch.

    Parameters
    ----------
    max_rank
        Rank of the inverse Jacobian before it is dropped; ``None`` is unbounded.
    mixing
        xitorch's ``alpha``: the first Jacobian is −I/mixing; ``None`` is its guess.
    line_search
        Armijo's, on the norm of the batch.
    """

    max_rank: Annotated[int, Field(ge=1)] | None = None
    mixing: Annotated[float, Field(gt=0)] | None = 1.0
    line_search: bool = True

    name: ClassVar[str] = "xitorch_broyden1"
    method: ClassVar[str] = "broyden1"

    def options(self) -> dict[str, Any]:
        """Return the rank, the first Jacobian and the line search."""
        return {
            "max_rank": self.max_rank,
            "alpha": self.mixing,
            "line_search": self.line_search,
        }


@dataclass(frozen=True)
class XitorchBroyden2(XitorchBroyden1):
    """xitorch's bad Broyden, of one history and one line search for the batch.

    Parameters
    ----------
    max_rank
        Rank of the inverse Jacobian before it is dropped; ``None`` is unbounded.
    mixing
        xitorch's ``alpha``: the first Jacobian is −I/mixing; ``None`` is its guess.
    line_search
        Armijo's, on the norm of the batch.
    """

    name: ClassVar[str] = "xitorch_broyden2"
    method: ClassVar[str] = "broyden2"


@dataclass(frozen=True)
class XitorchLinearMixing(Xitorch):
    """xitorch's linear mixing: plain iteration with one line search for the batch.

    Parameters
    ----------
    mixing
        xitorch's ``alpha``: the Jacobian is −I/mixing throughout.
    line_search
        Armijo's, on the norm of the batch.
    """

    mixing: Annotated[float, Field(gt=0)] = 1.0
    line_search: bool = True

    name: ClassVar[str] = "xitorch_linear_mixing"
    method: ClassVar[str] = "linearmixing"

    def options(self) -> dict[str, Any]:
        """Return the step and the line search."""
        return {"alpha": self.mixing, "line_search": self.line_search}


@dataclass(frozen=True)
class XitorchAnderson(Xitorch):
    """xitorch's Anderson acceleration, of a window a sample.

    Parameters
    ----------
    window
        xitorch's ``msize``, the points kept.
    ridge
        xitorch's ``lmbda``, added to the squares of the residuals: absolute, so that the units of z
        matter.
    mixing
        xitorch's ``beta``: the part of the step that is taken.
    """

    window: Annotated[int, Field(ge=2)] = 5
    ridge: Annotated[float, Field(ge=0)] = 1e-4
    mixing: Annotated[float, Field(gt=0, le=2)] = 1.0

    name: ClassVar[str] = "xitorch_anderson"
    method: ClassVar[str] = "anderson_acc"

    def options(self) -> dict[str, Any]:
        """Return window, ridge and mixing."""
        return {"msize": self.window, "lmbda": self.ridge, "beta": self.mixing}
