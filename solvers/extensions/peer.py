"""Solvers of packages that need not be installed, and of which a missing one is said at once."""

from __future__ import annotations

import importlib.util
from typing import ClassVar

import torch
from torch import Tensor

from solvers.foreign import Enough, Objective
from solvers.options import OptionError
from solvers.solver import ForeignSolver


def installed(package: str) -> bool:
    """Whether a package can be found, which does not import it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class PeerSolver(ForeignSolver):
    """Base of the solvers of an optional package.

    Attributes
    ----------
    package
        What is imported; ``requires`` names it too.
    """

    package: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the options, and that the package is there.

        Raises
        ------
        OptionError
            If it is not, with what to install: a study would else find out trial by trial.
        """
        super().__post_init__()
        if not installed(self.package):
            raise OptionError(
                f"name = '{self.name}': it needs the package {self.package}, which is not"
                " installed: pip install 'deq-lab[peers]'"
            )


class Shown:
    """A problem as a library's own loop sees it, the batch at once, until nobody wants to go on.

    Then f is the identity, once: the library's own test, with a tolerance that nothing else meets,
    ends its loop, and it returns its own record. If it asks again, `Enough` ends it.

    Attributes
    ----------
    tolerance
        The smallest positive number of the dtype: a residual norm below it is zero.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._told = False  # that nobody wants to go on
        self.tolerance = torch.finfo(objective.z0.dtype).tiny

    @property
    def over(self) -> bool:
        """Whether every sample has met the tolerance, or the budget is spent."""
        return self._told or self._objective.met

    def function(self, z: Tensor) -> Tensor:
        """Return f(z) for z (B, D)."""
        return z if self._ended(z) else self._objective.evaluator.last[0]

    def residual(self, z: Tensor) -> Tensor:
        """Return f(z) − z, or g(z) of a root problem, for z (B, D)."""
        return torch.zeros_like(z) if self._ended(z) else self._objective.evaluator.last[1]

    def _ended(self, z: Tensor) -> bool:
        if self._told:
            raise Enough
        try:
            self._objective(z)
        except Enough:
            self._told = True
        else:
            self._objective.stats.syncs += 1  # of its own stopping test, at the least
        return self._told
