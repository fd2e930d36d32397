"""Root finders for implicit models: ``solve(problem, solver)``.

>>> solution = solve(FixedPointProblem(f, z0, args=(x,)), Anderson(window=10), reltol=1e-6)
>>> solution.value, solution.retcode, solution.stats.evaluations, solution.trace
"""

from solvers.anderson import Anderson
from solvers.broyden import Broyden
from solvers.fallback import Fallback
from solvers.linear import GMRES, Dense
from solvers.loop import Iteration, Settings, init, observe, solve
from solvers.newton import Newton
from solvers.newton_krylov import NewtonKrylov
from solvers.options import OptionError, as_config
from solvers.picard import Picard
from solvers.problem import FixedPointProblem, RootProblem
from solvers.registries import Registry
from solvers.solution import ReturnCode, Solution, Stats, Trace
from solvers.solver import BaseSolver, ForeignSolver, Solver

registry: Registry[BaseSolver] = Registry("solver", "deq_lab.solvers")
for _solver in (Picard, Anderson, Broyden, Newton, NewtonKrylov, Fallback):
    registry.register(_solver.name, _solver)
for _name, _class in {
    "scipy_newton_krylov": "scipy_optimize:ScipyNewtonKrylov",
    "scipy_anderson": "scipy_optimize:ScipyAnderson",
    "scipy_broyden1": "scipy_optimize:ScipyBroyden1",
    "torch_lbfgs": "torch_optim:TorchLBFGS",
}.items():
    registry.register(_name, f"solvers.extensions.{_class}")

__all__ = [
    "GMRES",
    "Anderson",
    "BaseSolver",
    "Broyden",
    "Dense",
    "Fallback",
    "FixedPointProblem",
    "ForeignSolver",
    "Iteration",
    "Newton",
    "NewtonKrylov",
    "OptionError",
    "Picard",
    "Registry",
    "ReturnCode",
    "RootProblem",
    "Settings",
    "Solution",
    "Solver",
    "Stats",
    "Trace",
    "as_config",
    "init",
    "observe",
    "registry",
    "solve",
]
