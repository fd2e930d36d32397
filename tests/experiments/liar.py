"""A foreign solver that says it succeeded, whatever it found; and one that raises."""

from dataclasses import dataclass
from typing import Any, ClassVar

from scipy.optimize import OptimizeResult

from solvers import ForeignSolver
from solvers.foreign import Objective


@dataclass(frozen=True)
class Liar(ForeignSolver):
    """Evaluate the start and call it the answer."""

    name: ClassVar[str] = "liar"

    def run(self, objective: Objective) -> Any:
        objective(objective.z0)
        return [OptimizeResult(success=True, message="trust me")]


@dataclass(frozen=True)
class Absent(ForeignSolver):
    """Need what is not there."""

    name: ClassVar[str] = "absent"

    def run(self, objective: Objective) -> Any:
        raise ImportError("no such package")
