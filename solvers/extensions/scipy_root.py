"""What all methods of ``scipy.optimize.root`` share: float64 on the host, sample by sample.

SciPy's own stopping test is given our tolerance (never ``tol``, which sets several tolerances at
once); the answer is judged by our loop's test all the same. Every evaluation copies the point to
the device and the residual back, which `stats.syncs` counts.

Reference: P. Virtanen et al., Nature Methods 17 (2020); scipy.optimize.root.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from solvers.foreign import Enough, Objective
from solvers.solver import ForeignSolver

Array = np.ndarray[Any, Any]
Excess = Callable[[object], float]


class ScipyRoot(ForeignSolver):
    """What the wrapped methods share.

    Attributes
    ----------
    method
        SciPy's name of the method.
    """

    method: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset({"scipy"})
    reference: ClassVar[str] = "Virtanen et al. 2020, scipy.optimize.root"
    # Which options go with which method is checked here, by the classes below.
    _root: ClassVar[Any] = staticmethod(optimize.root)

    @abc.abstractmethod
    def options(self, dtype: torch.dtype, budget: int, excess: Excess) -> dict[str, Any]:
        """Return SciPy's ``options`` for states of ``dtype``.

        ``budget`` bounds the evaluations; ``excess`` gives the last residual over its tolerance (0
        when it is met, else above 1), whatever it is called with: SciPy's test on our scale.
        """

    def with_jacobian(self) -> bool:
        """Whether SciPy is given the derivative of the residual; by default it is not."""
        return False

    def run(self, objective: Objective) -> list[Any]:
        """Solve each sample by itself (all as one vector where samples depend on each other).

        Returns
        -------
        list
            A result a sample: SciPy's, what it raised, or ``None`` where the budget ended it.
        """
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

    def _solve(self, objective: Objective, rows: int | slice) -> Any:
        z0 = objective.z0[rows : rows + 1] if isinstance(rows, int) else objective.z0

        # SciPy's Jacobians refer to themselves, and to what they were given: empty when they are
        # done, they hold no tensor until they are collected.
        given = [objective]
        shape, dtype, device = z0.shape, z0.dtype, z0.device

        def point(x: Array) -> Tensor:
            # A copy: MINPACK writes the next point into the same memory.
            return torch.tensor(x, dtype=dtype).reshape(shape).to(device)

        def residual(x: Array) -> Array:
            (objective,) = given
            value = objective(point(x), rows)
            objective.stats.syncs += 1
            return _array(value.reshape(-1))

        def jacobian(x: Array) -> Array:
            (objective,) = given
            value = objective.jacobian(point(x), rows)
            objective.stats.syncs += 1
            return _array(value)

        budget = objective.settings.max_evaluations
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return self._root(
                    residual,
                    _array(z0.reshape(-1)),
                    method=self.method,
                    jac=jacobian if self.with_jacobian() else None,
                    options=self.options(dtype, budget, lambda _: given[0].excess(rows)),
                )
        finally:
            given.clear()


def _array(value: Tensor) -> Array:
    return value.detach().to("cpu", torch.float64).numpy().copy()
