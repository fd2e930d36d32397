"""``scipy.optimize.root`` on the residual, sample by sample.

SciPy's own stopping test is given our tolerance as ``fatol`` (never ``tol``, which sets several
tolerances at once); the answer is judged by our loop's test all the same. Every evaluation copies
the point to the device and the residual back, which `stats.syncs` counts.

Reference: P. Virtanen et al., Nature Methods 17 (2020); scipy.optimize.root, methods ``krylov``,
``anderson`` and ``broyden1``.
"""

from __future__ import annotations

import abc
import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import optimize

from solvers.foreign import Enough, Objective
from solvers.solver import ForeignSolver

LineSearch = Literal["armijo", "wolfe"] | None


class ScipyRoot(ForeignSolver):
    """What the wrapped methods share."""

    method: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset({"scipy"})
    reference: ClassVar[str] = "Virtanen et al. 2020, scipy.optimize.root"

    @abc.abstractmethod
    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the options of SciPy's Jacobian approximation, for states of ``dtype``."""

    @property
    @abc.abstractmethod
    def search(self) -> LineSearch:
        """SciPy's line search."""

    def run(self, objective: Objective) -> list[Any]:
        """Solve each sample by itself (all as one vector where samples depend on each other)."""
        results: list[Any] = []
        for rows in objective.groups:
            try:
                results.append(self._solve(objective, rows))
            except Enough:
                results.append(None)
                if objective.timed_out:
                    break
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                results.append(error)  # this sample failed; the others have their turn
        return results

    # Which options go with which method is checked here, by the classes below.
    _root: ClassVar[Any] = staticmethod(optimize.root)

    def _solve(self, objective: Objective, rows: int | slice) -> Any:
        z0 = objective.z0[rows : rows + 1] if isinstance(rows, int) else objective.z0

        # SciPy's Jacobians refer to themselves, and to what they were given: empty when they are
        # done, they hold no tensor until they are collected.
        given = [objective]
        shape, dtype, device = z0.shape, z0.dtype, z0.device

        def residual(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            (objective,) = given
            z = torch.as_tensor(x, dtype=dtype).reshape(shape).to(device)
            value = objective(z, rows)
            objective.stats.syncs += 1
            return value.reshape(-1).to("cpu", torch.float64).numpy().copy()

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return self._root(
                    residual,
                    z0.reshape(-1).to("cpu", torch.float64).numpy().copy(),
                    method=self.method,
                    options={
                        "fatol": 1.0,
                        # SciPy's test on our scale: the samples' residuals over their tolerances.
                        "tol_norm": lambda _: given[0].excess(rows),
                        "maxiter": objective.settings.max_evaluations,
                        "line_search": self.search,
                        "jac_options": self.jacobian(dtype),
                    },
                )
        finally:
            given.clear()


@dataclass(frozen=True)
class ScipyNewtonKrylov(ScipyRoot):
    """SciPy's Newton–Krylov, with products by finite differences.

    Parameters
    ----------
    krylov
        The inner solver.
    inner_maxiter
        Its most iterations a step.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    krylov: Literal["lgmres", "gmres", "bicgstab", "cgs", "minres", "tfqmr"] = "lgmres"
    inner_maxiter: Annotated[int, Field(ge=1)] = 20
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_newton_krylov"
    method: ClassVar[str] = "krylov"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the inner solver, its budget, and a difference that the dtype can resolve."""
        return {
            "method": self.krylov,
            "inner_maxiter": self.inner_maxiter,
            "rdiff": torch.finfo(dtype).eps ** 0.5,
        }

    @property
    def search(self) -> LineSearch:
        """The line search."""
        return self.line_search


@dataclass(frozen=True)
class ScipyAnderson(ScipyRoot):
    """SciPy's Anderson mixing.

    Parameters
    ----------
    window
        SciPy's ``M``, the residuals kept.
    regularisation
        SciPy's ``w0``, relative.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    window: Annotated[int, Field(ge=1)] = 5
    regularisation: Annotated[float, Field(ge=0)] = 0.01
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_anderson"
    method: ClassVar[str] = "anderson"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return return window and regularisation, with −I as the first Jacobian of f(z) − z."""
        return {"M": self.window, "w0": self.regularisation, "alpha": 1.0}

    @property
    def search(self) -> LineSearch:
        """The line search."""
        return self.line_search


@dataclass(frozen=True)
class ScipyBroyden1(ScipyRoot):
    """SciPy's good Broyden.

    Parameters
    ----------
    max_rank
        Rank of the inverse Jacobian before it is reduced; ``None`` is unbounded.
    reduction
        How it is reduced.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    max_rank: Annotated[int, Field(ge=1)] | None = None
    reduction: Literal["restart", "simple", "svd"] = "restart"
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_broyden1"
    method: ClassVar[str] = "broyden1"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return rank and reduction, with −I as the first Jacobian of f(z) − z."""
        options: dict[str, Any] = {"reduction_method": self.reduction, "alpha": 1.0}
        return options if self.max_rank is None else {**options, "max_rank": self.max_rank}

    @property
    def search(self) -> LineSearch:
        """The line search."""
        return self.line_search
