"""Linear solvers: batched per sample, matrix-free, for the adjoint and for Newton's step."""

from solvers.linear.base import LinearResult, LinearSolver
from solvers.linear.dense import Dense
from solvers.linear.gmres import GMRES
from solvers.registries import Registry

registry: Registry[LinearSolver] = Registry("linear solver", "deq_lab.linear")
for _solver in (GMRES, Dense):
    registry.register(_solver.name, _solver)

__all__ = ["GMRES", "Dense", "LinearResult", "LinearSolver", "registry"]
