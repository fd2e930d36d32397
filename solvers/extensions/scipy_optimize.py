"""The methods of ``scipy.optimize.root`` that never form a Jacobian.

All but DF-SANE are one loop with a line search and an approximation of the Jacobian, which starts
as −I/mixing: with a mixing of 1 and no more information, that is the step of plain iteration.

Reference: P. Virtanen et al., Nature Methods 17 (2020); scipy.optimize.root.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from scipy import optimize

from solvers.extensions.scipy_root import Excess, ScipyRoot

LineSearch = Literal["armijo", "wolfe"] | None
# SciPy's own guess of the first step is half the length of z0 (at least 1), whatever the problem.
Mixing = Annotated[float, Field(gt=0)] | None


class ScipyNonlin(ScipyRoot):
    """What the methods of SciPy's inexact Newton loop share."""

    line_search: LineSearch  # a field of each

    @abc.abstractmethod
    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the options of SciPy's Jacobian approximation, for states of ``dtype``."""

    def options(self, dtype: torch.dtype, budget: int, excess: Excess) -> dict[str, Any]:
        """Return the tolerance, the line search and the options of the Jacobian."""
        return {
            "fatol": 1.0,
            "tol_norm": excess,
            "maxiter": budget,
            "line_search": self.line_search,
            "jac_options": self.jacobian(dtype),
        }


@dataclass(frozen=True)
class ScipyNewtonKrylov(ScipyNonlin):
    """SciPy's Newton–Krylov, with products by finite differences.

    The inner tolerance is SciPy's own, by Eisenstat and Walker from 1e-3 on: its constants are
    written into SciPy's loop, and ``inner_rtol`` alone takes their place.

    Parameters
    ----------
    krylov
        The inner solver.
    inner_maxiter
        Its most iterations a step; ``None`` is SciPy's: 30 for ``lgmres``, 20 for the others.
    inner_rtol
        A fixed inner tolerance, relative; ``None`` is SciPy's, that changes from step to step.
    inner_m
        SciPy's ``inner_M``: the inner solver is preconditioned by ``broyden1`` or ``anderson``,
        which learn from the steps, or by ``None``.
    outer_k
        Vectors that ``lgmres`` keeps from step to step; the other solvers keep none.
    rdiff
        Relative length of the differences; ``None`` is the root of the dtype's rounding.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    krylov: Literal["lgmres", "gmres", "bicgstab", "cgs", "minres", "tfqmr"] = "lgmres"
    inner_maxiter: Annotated[int, Field(ge=1)] | None = None
    inner_rtol: Annotated[float, Field(gt=0, lt=1)] | None = None
    inner_m: Literal["broyden1", "anderson"] | None = None
    outer_k: Annotated[int, Field(ge=0)] = 10
    rdiff: Annotated[float, Field(gt=0)] | None = None
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_newton_krylov"
    method: ClassVar[str] = "krylov"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the inner solver, its budget, and a difference that the dtype can resolve."""
        options: dict[str, Any] = {
            "method": self.krylov,
            "outer_k": self.outer_k,
            "rdiff": self.rdiff or torch.finfo(dtype).eps ** 0.5,
        }
        if self.inner_maxiter is not None:
            # SciPy ignores `inner_maxiter` for LGMRES, whose length is an option of its own.
            key = "inner_inner_m" if self.krylov == "lgmres" else "inner_maxiter"
            options[key] = self.inner_maxiter
        if self.inner_rtol is not None:
            options["inner_rtol"] = self.inner_rtol
        if self.inner_m is not None:
            options["inner_M"] = optimize.InverseJacobian(_learner(self.inner_m))
        return options


def _learner(name: str) -> Any:
    """Return SciPy's approximation of the Jacobian from past steps, −I at first."""
    if name == "broyden1":
        return optimize.BroydenFirst(alpha=1.0)
    # SciPy documents it as a preconditioner and has no public name for it.
    from scipy.optimize._nonlin import Anderson

    return Anderson(alpha=1.0)


@dataclass(frozen=True)
class ScipyAnderson(ScipyNonlin):
    """SciPy's Anderson mixing.

    Parameters
    ----------
    window
        SciPy's ``M``, the residuals kept.
    regularisation
        SciPy's ``w0``, relative.
    mixing
        SciPy's ``alpha``: the first Jacobian is −I/mixing; ``None`` is SciPy's guess.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    window: Annotated[int, Field(ge=1)] = 5
    regularisation: Annotated[float, Field(ge=0)] = 0.01
    mixing: Mixing = 1.0
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_anderson"
    method: ClassVar[str] = "anderson"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return window and regularisation, with −I/mixing as the first Jacobian of f(z) − z."""
        return {"M": self.window, "w0": self.regularisation, "alpha": self.mixing}


@dataclass(frozen=True)
class ScipyBroyden1(ScipyNonlin):
    """SciPy's good Broyden.

    Parameters
    ----------
    max_rank
        Rank of the inverse Jacobian before it is reduced; ``None`` is unbounded.
    reduction
        How it is reduced.
    mixing
        SciPy's ``alpha``: the first Jacobian is −I/mixing; ``None`` is SciPy's guess.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    max_rank: Annotated[int, Field(ge=1)] | None = None
    reduction: Literal["restart", "simple", "svd"] = "restart"
    mixing: Mixing = 1.0
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_broyden1"
    method: ClassVar[str] = "broyden1"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return rank and reduction, with −I/mixing as the first Jacobian of f(z) − z."""
        options: dict[str, Any] = {"reduction_method": self.reduction, "alpha": self.mixing}
        return options if self.max_rank is None else {**options, "max_rank": self.max_rank}


@dataclass(frozen=True)
class ScipyBroyden2(ScipyBroyden1):
    """SciPy's bad Broyden, which updates the inverse by the change of the residual.

    Parameters
    ----------
    max_rank
        Rank of the inverse Jacobian before it is reduced; ``None`` is unbounded.
    reduction
        How it is reduced.
    mixing
        SciPy's ``alpha``: the first Jacobian is −I/mixing; ``None`` is SciPy's guess.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    name: ClassVar[str] = "scipy_broyden2"
    method: ClassVar[str] = "broyden2"


@dataclass(frozen=True)
class ScipyLinearMixing(ScipyNonlin):
    """SciPy's linear mixing: plain iteration with a step of constant length and a line search.

    Parameters
    ----------
    mixing
        SciPy's ``alpha``: the Jacobian is −I/mixing throughout; ``None`` is SciPy's guess.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    mixing: Mixing = 1.0
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_linear_mixing"
    method: ClassVar[str] = "linearmixing"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return −I/mixing as the Jacobian of f(z) − z."""
        return {"alpha": self.mixing}


@dataclass(frozen=True)
class ScipyDiagBroyden(ScipyLinearMixing):
    """SciPy's Broyden that keeps the diagonal of the Jacobian alone.

    Parameters
    ----------
    mixing
        SciPy's ``alpha``: the first Jacobian is −I/mixing; ``None`` is SciPy's guess.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    name: ClassVar[str] = "scipy_diag_broyden"
    method: ClassVar[str] = "diagbroyden"


@dataclass(frozen=True)
class ScipyExcitingMixing(ScipyNonlin):
    """SciPy's exciting mixing: each number's step grows while its residual keeps its sign.

    Parameters
    ----------
    mixing
        SciPy's ``alpha``, the first step, and what is added to it; ``None`` is SciPy's guess.
    max_mixing
        SciPy's ``alphamax``, the largest step.
    line_search
        ``armijo``, ``wolfe`` or ``None``.
    """

    mixing: Mixing = 0.5
    max_mixing: Annotated[float, Field(gt=0)] = 1.0
    line_search: LineSearch = "armijo"

    name: ClassVar[str] = "scipy_exciting_mixing"
    method: ClassVar[str] = "excitingmixing"

    def jacobian(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the first and the largest step."""
        return {"alpha": self.mixing, "alphamax": self.max_mixing}


@dataclass(frozen=True)
class ScipyDFSane(ScipyRoot):
    """SciPy's DF-SANE: steps along the residual, of a length taken from the last change.

    Parameters
    ----------
    line_search
        ``cruz`` or ``cheng``, both of which let the residual grow for a while.
    window
        SciPy's ``M``: the residuals that ``cruz`` compares with.
    first
        SciPy's ``sigma_0``: minus the first step over the residual. Its own is 1; −1 is the step of
        plain iteration.
    bound
        SciPy's ``sigma_eps``: step lengths stay between this and its inverse.
    """

    line_search: Literal["cruz", "cheng"] = "cruz"
    window: Annotated[int, Field(ge=1)] = 10
    first: float = -1.0
    bound: Annotated[float, Field(gt=0, lt=1)] = 1e-10

    name: ClassVar[str] = "scipy_df_sane"
    method: ClassVar[str] = "df-sane"
    reference: ClassVar[str] = "La Cruz, Martínez & Raydan 2006, scipy.optimize.root"

    def options(self, dtype: torch.dtype, budget: int, excess: Excess) -> dict[str, Any]:
        """Return the tolerance and the line search."""
        return {
            "ftol": 0.0,
            "fatol": 1.0,
            "fnorm": excess,
            "maxfev": budget,
            "line_search": self.line_search,
            "M": self.window,
            "sigma_0": self.first,
            "sigma_eps": self.bound,
        }
