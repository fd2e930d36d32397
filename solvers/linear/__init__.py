"""Linear solvers: batched per sample, matrix-free, for the adjoint and for Newton's step."""

from solvers.linear.base import LinearResult, LinearSolver
from solvers.linear.bicgstab import BiCGStab
from solvers.linear.dense import Dense
from solvers.linear.gmres import GMRES
from solvers.linear.neumann import NeumannSeries
from solvers.registries import Registry

registry: Registry[LinearSolver] = Registry("linear solver", "deq_lab.linear")
for _solver in (GMRES, BiCGStab, NeumannSeries, Dense):
    registry.register(_solver.name, _solver)

__all__ = [
    "GMRES",
    "BiCGStab",
    "Dense",
    "LinearResult",
    "LinearSolver",
    "NeumannSeries",
    "registry",
]
