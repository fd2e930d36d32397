"""``torch.optim.LBFGS`` on ½‖residual‖², the batch as one vector.

A stationary point of ½‖residual‖² need not be a root: the residual is judged by our loop's test.

Reference: D. Liu, J. Nocedal, Math. Program. 45 (1989); torch.optim.LBFGS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from solvers.foreign import Objective
from solvers.solver import ForeignSolver


@dataclass(frozen=True)
class TorchLBFGS(ForeignSolver):
    """Limited-memory BFGS on ½‖f(z) − z‖².

    Parameters
    ----------
    history
        Pairs kept.
    line_search
        ``strong_wolfe`` or ``None``.
    """

    history: Annotated[int, Field(ge=1)] = 10
    line_search: Literal["strong_wolfe"] | None = "strong_wolfe"

    name: ClassVar[str] = "torch_lbfgs"
    requires: ClassVar[frozenset[str]] = frozenset({"linearise"})
    reference: ClassVar[str] = "Liu & Nocedal 1989, torch.optim.LBFGS"

    def run(self, objective: Objective) -> dict[str, Any]:
        """Minimise until the objective has seen enough, or the line search can do no more."""
        z = objective.z0.clone().requires_grad_()
        iterations = objective.settings.max_evaluations
        optimiser = torch.optim.LBFGS(
            [z],
            max_iter=iterations,
            max_eval=iterations,
            history_size=self.history,
            line_search_fn=self.line_search,
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )

        def closure() -> Tensor:
            with torch.enable_grad():
                residual = objective(z)
                loss = 0.5 * (residual * residual).sum()
            if loss.requires_grad:
                (z.grad,) = torch.autograd.grad(loss, z)
            else:  # a root problem's residual that does not depend on z
                z.grad = torch.zeros_like(z)
            objective.stats.vjps += 1
            objective.stats.syncs += 1
            return loss

        optimiser.step(closure)
        return dict(optimiser.state[z])
