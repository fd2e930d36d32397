"""Root finders for implicit models: ``solve(problem, solver)``.

>>> solution = solve(FixedPointProblem(f, z0, args=(x,)), Anderson(window=10), reltol=1e-6)
>>> solution.value, solution.retcode, solution.stats.evaluations, solution.trace
"""

from solvers.anderson import Anderson
from solvers.broyden import Broyden
from solvers.extensions import EXTENSIONS
from solvers.fallback import Fallback, leaves_inverse
from solvers.inverse import Inverse
from solvers.limit import eigenvalues, limit, spectral_radius
from solvers.linear import GMRES, BiCGStab, Dense, NeumannSeries
from solvers.loop import Iteration, Settings, init, observe, solve
from solvers.newton import Newton
from solvers.newton_krylov import NewtonKrylov
from solvers.options import OptionError, as_config
from solvers.picard import Picard
from solvers.problem import FixedPointProblem, RootProblem
from solvers.registries import Registry
from solvers.solution import ReturnCode, Solution, Stats, Trace
from solvers.solver import BaseSolver, ForeignSolver, Solver
from solvers.splitting import ForwardBackward, PeacemanRachford

registry: Registry[BaseSolver] = Registry("solver", "deq_lab.solvers")
for _solver in (
    Picard, Anderson, Broyden, Newton, NewtonKrylov, Fallback, ForwardBackward, PeacemanRachford
):  # fmt: skip
    registry.register(_solver.name, _solver)
for _name, _place in EXTENSIONS.items():
    registry.register(_name, _place)

__all__ = [
    "GMRES",
    "Anderson",
    "BaseSolver",
    "BiCGStab",
    "Broyden",
    "Dense",
    "Fallback",
    "FixedPointProblem",
    "ForeignSolver",
    "ForwardBackward",
    "Inverse",
    "Iteration",
    "NeumannSeries",
    "Newton",
    "NewtonKrylov",
    "OptionError",
    "PeacemanRachford",
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
    "eigenvalues",
    "init",
    "leaves_inverse",
    "limit",
    "observe",
    "registry",
    "solve",
    "spectral_radius",
]
