"""MINPACK's dense methods through ``scipy.optimize.root``: ``hybr`` and ``lm``.

Both form the Jacobian of each sample, D × D numbers in float64 on the host, and factorise it there
in O(D³), so that they refuse large states. Their own tests (on steps, and on the reduction of the
squares, which a local minimum passes too) are switched off: our tolerance ends them, or they find
that they get no further, which is a failure with their message in `original`.

Reference: J. Moré, B. Garbow, K. Hillstrom, User Guide for MINPACK-1 (1980); M. Powell (1970),
K. Levenberg (1944), D. Marquardt (1963).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from solvers.extensions.scipy_root import Excess, ScipyRoot
from solvers.foreign import Objective
from solvers.options import OptionError

Jacobian = Literal["autograd", "difference"]
Factor = Annotated[float, Field(ge=0.1, le=100)]


class ScipyMinpack(ScipyRoot):
    """What the two methods share."""

    requires: ClassVar[frozenset[str]] = frozenset({"scipy", "linearise", "dense"})
    jacobian: Jacobian
    max_dim: int

    def with_jacobian(self) -> bool:
        """Whether autograd gives the Jacobian, or MINPACK takes differences."""
        return self.jacobian == "autograd"

    def run(self, objective: Objective) -> list[Any]:
        """Solve each sample by itself (all as one vector where samples depend on each other).

        Raises
        ------
        OptionError
            If a system is larger than ``max_dim``.
        """
        rows, size = objective.z0.shape
        dim = size if objective.independent else rows * size
        if dim > self.max_dim:
            what = "a sample" if objective.independent else "a batch whose samples are coupled"
            raise OptionError(
                f"max_dim = {self.max_dim}: {self.name} builds a dense Jacobian, and the state has"
                f" {dim} numbers {what}: use scipy_newton_krylov or NewtonKrylov, or raise max_dim"
            )
        # A step's Jacobian is mostly wanted where the residual was evaluated last.
        objective.evaluator.keep_last = self.with_jacobian()
        return super().run(objective)


@dataclass(frozen=True)
class ScipyHybr(ScipyMinpack):
    """MINPACK's Powell hybrid method in SciPy, with a dense Jacobian that is updated by Broyden.

    Parameters
    ----------
    jacobian
        ``autograd`` takes D products with the transpose, counted as `vjps`, and an evaluation
        where none was made; ``difference`` takes D evaluations.
    factor
        Bound of the first step, over the length of the scaled start.
    max_dim
        Largest system that it accepts: the Jacobian takes its square in numbers.
    """

    jacobian: Jacobian = "autograd"
    factor: Factor = 100.0
    max_dim: Annotated[int, Field(ge=1)] = 1024

    name: ClassVar[str] = "scipy_hybr"
    method: ClassVar[str] = "hybr"
    reference: ClassVar[str] = "Powell 1970, MINPACK, scipy.optimize.root"

    def options(self, dtype: torch.dtype, budget: int, excess: Excess) -> dict[str, Any]:
        """Return the budget, and a difference that the dtype can resolve; no tolerance."""
        options = {"xtol": 0.0, "maxfev": budget, "factor": self.factor}
        return options if self.with_jacobian() else {**options, "eps": torch.finfo(dtype).eps}


@dataclass(frozen=True)
class ScipyLM(ScipyMinpack):
    """MINPACK's Levenberg–Marquardt on ‖f(z) − z‖² in SciPy, with a dense Jacobian.

    Parameters
    ----------
    jacobian
        ``autograd`` takes D products with the transpose, counted as `vjps`, and an evaluation
        where none was made; ``difference`` takes D evaluations.
    factor
        Bound of the first step, over the length of the scaled start.
    max_dim
        Largest system that it accepts: the Jacobian takes its square in numbers.
    """

    jacobian: Jacobian = "autograd"
    factor: Factor = 100.0
    max_dim: Annotated[int, Field(ge=1)] = 1024

    name: ClassVar[str] = "scipy_lm"
    method: ClassVar[str] = "lm"
    reference: ClassVar[str] = "Levenberg 1944, Marquardt 1963, MINPACK, scipy.optimize.root"

    def options(self, dtype: torch.dtype, budget: int, excess: Excess) -> dict[str, Any]:
        """Return the budget, and a difference that the dtype can resolve; no tolerance."""
        tolerances = {"xtol": 0.0, "ftol": 0.0, "gtol": 0.0}
        options = {**tolerances, "maxiter": budget, "factor": self.factor}
        return options if self.with_jacobian() else {**options, "eps": torch.finfo(dtype).eps}
