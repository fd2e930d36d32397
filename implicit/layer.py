"""``DEQ``: an equilibrium as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from implicit.certificate import Certificate, Tolerances
from implicit.gradients import Gradient, Implicit
from implicit.gradients.base import Request
from implicit.solve import requested
from solvers.loop import Settings
from solvers.options import OptionError
from solvers.problem import FixedPointProblem, State, parts
from solvers.solution import Solution
from solvers.solver import BaseSolver


class DEQ(nn.Module):
    """The equilibrium z* = cell(z*, \\*args) as a ``torch.nn.Module``.

    Parameters
    ----------
    cell
        A module ``cell(z, *args) -> z``. If it has ``initial_state(*args)``, that is the start;
        else it is zeros like the first arg.
    solver, gradient
        ``None`` for the defaults: the chain of ``solvers.solve``, and ``Implicit()``.
    abstol, reltol, norm, max_evaluations, fixed_budget, compile
        As in :func:`solvers.solve`.
        ``reltol="auto"`` solves no tighter, forward and adjoint, than the certificate of the last
        backward says that ``gradient_error`` needs; ``solution.settings.reltol`` and
        ``adjoint_solution.settings.reltol`` are what was used. The first step starts with the
        requested error for both. In ``eval()`` the last tolerance stays.
    gradient_error
        The relative error of the parameters' gradient that ``reltol="auto"`` allows, with the
        gradient ``Implicit``; 1e-2 if ``None``.
    samples_independent
        Whether a sample's cell depends on that sample alone; ``None`` finds out.
    name
        What the records call the layer.

    Notes
    -----
    Wrap the layer, or what it is part of, rather than its cell: ``DistributedDataParallel``,
    ``fully_shard``, ``checkpoint`` and ``torch.compile`` of a model go around it, as around any
    layer. A cell that is sharded itself would be gathered at each evaluation, of which processes
    need different numbers, and is refused. A compiled cell is called so where no graph is kept,
    and as it was before where one is; a compiled model has one break in its graph, at the layer.

    Attributes
    ----------
    solution
        The last forward solve, its value without a graph.
    adjoint_solution
        The last backward solve, once it has run.
    certificate
        The estimate of the last gradient's relative error
        (:class:`implicit.certificate.Certificate`), once backward has run.
    """

    def __init__(
        self,
        cell: nn.Module,
        *,
        solver: BaseSolver | None = None,
        gradient: Gradient | None = None,
        abstol: float = 0.0,
        reltol: float | Literal["auto"] = 1e-3,
        gradient_error: float | None = None,
        norm: Literal["l2", "rms", "linf"] = "l2",
        max_evaluations: int = 100,
        fixed_budget: bool = False,
        compile: bool = False,
        samples_independent: bool | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if not isinstance(cell, nn.Module):
            raise TypeError(
                f"the cell must be a torch.nn.Module, got {type(cell).__name__}: its parameters"
                " could not be found otherwise"
            )
        self.cell = cell
        self.solver = solver
        self.gradient = gradient if gradient is not None else Implicit()
        self.tolerances = _tolerances(reltol, gradient_error, self.gradient)
        self.settings = Settings(
            abstol,
            self.tolerances.forward if self.tolerances is not None else cast(float, reltol),
            norm,
            max_evaluations,
            None,
            fixed_budget,
            compile=compile,
        )
        self.samples_independent = samples_independent
        self.name = name
        self.solution: Solution | None = None
        # What was found out, in training and in evaluation: batch statistics couple samples.
        self._independent: dict[bool, bool] = {}

    @property
    def adjoint_solution(self) -> Solution | None:
        """The last backward solve, once it has run."""
        return None if self.solution is None else self.solution.adjoint

    @property
    def certificate(self) -> Certificate | None:
        """How inexact the last gradient is, as far as can be told, once backward has run."""
        return None if self.solution is None else self.solution.certificate

    def initial_state(self, *args: Tensor) -> State:
        """Return the start of the solve: the cell's own, or zeros like the first arg.

        Raises
        ------
        ValueError
            If there is neither.
        """
        own = getattr(self.cell, "initial_state", None)
        if own is not None:
            return cast(Callable[..., State], own)(*args)
        if not args:
            raise ValueError("without args and cell.initial_state the layer needs z0=")
        return args[0].new_zeros(args[0].shape)

    # One break, rather than one a decision of the solver that depends on data.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Tensor, z0: State | None = None) -> Any:
        """Return z* for the injection ``args`` (batch first), from ``z0`` if given."""
        _refuse_wrapped(self.cell)
        start = self.initial_state(*args) if z0 is None else z0
        _refuse_devices(start, args)
        independent = self.samples_independent
        if independent is None:
            independent = self._independent.get(self.training)
        problem = FixedPointProblem(
            self.cell,
            start,
            args,
            samples_independent=independent,
            name=self.name or type(self.cell).__name__,
        )
        settings, gradient = self._next()
        request = Request(self.solver, settings, site=self.name, earlier=self.solution)
        solution = requested(problem, gradient, request)
        if solution.samples_independent is not None:
            self._independent[self.training] = solution.samples_independent
        value = solution.value
        detached = tuple(t.detach() for t in value) if isinstance(value, tuple) else value.detach()
        self.solution = replace(solution, value=detached)
        return value

    def _next(self) -> tuple[Settings, Gradient]:
        """Return settings and gradient of the next solve, with the tolerances that it needs."""
        wanted = self.tolerances
        if wanted is None:
            return self.settings, self.gradient
        if self.solution is not None:
            wanted.learn(self.solution)
        gradient = cast(Implicit, self.gradient)
        return (
            replace(self.settings, reltol=wanted.forward),
            replace(gradient, reltol=wanted.adjoint),
        )

    def extra_repr(self) -> str:
        """Show solver, gradient and tolerance."""
        wanted = self.tolerances
        reltol = (
            self.settings.reltol if wanted is None else f"auto, gradient_error={wanted.error:g}"
        )
        return f"solver={self.solver}, gradient={self.gradient}, reltol={reltol}"


def _tolerances(
    reltol: float | Literal["auto"], error: float | None, gradient: Gradient
) -> Tolerances | None:
    """Return what chooses the tolerances, if that is asked for; check what is asked."""
    if not isinstance(reltol, str):
        if error is not None:
            raise OptionError(
                f"gradient_error = {error!r} is for reltol='auto', and reltol is {reltol!r}:"
                " leave one of them out"
            )
        return None
    if reltol != "auto":
        raise OptionError(f"reltol = {reltol!r}: expected a number ≥ 0 or 'auto'")
    error = 1e-2 if error is None else error
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < 1:
        raise OptionError(
            f"gradient_error = {error!r}: expected a relative error between 0 and 1, such as 1e-2"
        )
    if not isinstance(gradient, Implicit) or not gradient.certificate:
        raise OptionError(
            f"reltol='auto' follows the certificate, which {gradient} does not leave: use"
            " the gradient Implicit(), or give a number"
        )
    if gradient.reltol is not None:
        raise OptionError(
            f"gradient.reltol = {gradient.reltol!r}: reltol='auto' chooses the adjoint's tolerance"
            " too, so leave it at None"
        )
    return Tolerances(float(error))


def _refuse_wrapped(cell: nn.Module) -> None:
    """Raise if a cell, or a part of it, waits for other processes at each evaluation."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    kinds = {
        FSDPModule: "fully_shard",
        FullyShardedDataParallel: "FullyShardedDataParallel",
        DistributedDataParallel: "DistributedDataParallel",
    }
    for name, module in cell.named_modules():
        for kind, by in kinds.items():
            if isinstance(module, kind):
                where = f"the cell's part '{name}'" if name else "the cell"
                raise ValueError(
                    f"{where} is wrapped by {by}, so that it communicates at each evaluation, of"
                    " which processes need different numbers: wrap the DEQ layer, or a module"
                    " around it, instead"
                )


def _refuse_devices(start: State, args: tuple[Tensor, ...]) -> None:
    """Raise if the state and the args are on different devices, or nowhere."""
    first, *rest = parts(start)
    for k, t in enumerate((*rest, *args)):
        if isinstance(t, Tensor) and t.device != first.device:
            what = f"z0[{k + 1}]" if k < len(rest) else f"args[{k - len(rest)}]"
            raise ValueError(
                f"{what} is on {t.device}, the state on {first.device}: move one of them"
            )
    if first.device.type == "meta":
        raise ValueError(
            "the state is on the meta device, which holds no numbers, so that nothing can be solved"
        )
