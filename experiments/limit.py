"""Count evaluations against the fewest that a Krylov-type method could need.

One problem, one solver, one seed, one or more tolerances, each relative to the first residual. The
limit of a sample is 2 + the products that GMRES takes on I − J(z*) from z0's error; the score is
evaluations / limit. Counts do not depend on the machine, so nothing is timed twice.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import solvers
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from solvers import FixedPointProblem, OptionError, Solution, problems
from solvers.limit import limit, spectral_radius
from solvers.problem import Layout, Problem

Tolerance = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

# A product with the Jacobian by autograd costs about two evaluations: a forward and a backward.
PRODUCT = 2
# Vectors that the limit and the spectral radius may take; the limit of a small state all it needs.
VECTORS, MOST_VECTORS = 200, 1000


@dataclass(frozen=True)
class LimitConfig:
    """What ``limit`` measures.

    Attributes
    ----------
    problem
        The fixed-point problem; its ``seed`` and ``dtype`` are those of this config.
    solver
        Of the registry.
    reltol
        A number or a list; relative to the first residual, so that the limit does not depend on
        the solver.
    max_evaluations
        The budget of each solve.
    device, dtype, threads
        Where and how precisely; ``threads`` of torch on the CPU.
    seed
        Of the problem and of torch.
    """

    problem: Config = field(
        default_factory=lambda: {"name": "tanh"}, metadata={"registry": problems.registry}
    )
    solver: Config = field(
        default_factory=lambda: {"name": "fallback"}, metadata={"registry": solvers.registry}
    )
    reltol: Tolerance | list[Tolerance] = 1e-8
    max_evaluations: Count = 1000
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float64"
    threads: Count = 1
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields.

        Raises
        ------
        OptionError
            With the field and what is allowed.
        """
        if self.reltol == []:
            raise OptionError("reltol = []: expected a number or a list of numbers")
        solvers.registry.build(self.solver, "solver")
        for option in problems.registry.describe(self.problem["name"]).options:
            own = getattr(self, option.name) if option.name in ("seed", "dtype") else None
            given = self.problem.get(option.name, option.default)
            if own is not None and given not in (own, option.default):
                raise OptionError(
                    f"problem.{option.name} = {given!r}: it is that of the run, {own!r}; set"
                    f" {option.name} instead"
                )
        if not _is_fixed_point(json.dumps(_seeded(self.problem, self.seed, self.dtype))):
            raise OptionError(
                f"problem.name = '{self.problem['name']}': a root problem has no limit, which is"
                " about f(z) − z from plain evaluations of f; use a fixed-point problem"
            )

    def completed(self) -> LimitConfig:
        """Return the config with its seed and dtype in the problem's options."""
        return replace(self, problem=_seeded(self.problem, self.seed, self.dtype))

    @property
    def tolerances(self) -> list[float]:
        """The tolerances, one after the other."""
        return self.reltol if isinstance(self.reltol, list) else [self.reltol]


def _seeded(problem: Config, seed: int, dtype: str) -> dict[str, Any]:
    options = {option.name for option in problems.registry.describe(problem["name"]).options}
    common = {key: v for key, v in (("seed", seed), ("dtype", dtype)) if key in options}
    return {**problem, **common}


@functools.cache  # a study checks every problem once a solver, and some take a while to make
def _is_fixed_point(problem: str) -> bool:
    return isinstance(problems.registry.build(json.loads(problem), "problem"), FixedPointProblem)


def build(problem: Config, seed: int, dtype: str) -> Problem:
    """Return the problem of a config, with this seed and dtype as far as it has such options."""
    return problems.registry.build(_seeded(problem, seed, dtype), "problem")


def first_residual(problem: Problem) -> Tensor:
    """Return (B,) the norms of f(z0) − z0; this evaluation is no solver's."""
    layout = Layout(problem.z0)
    with torch.no_grad():
        fz = problem.function(problem.z0, *problem.args, *problem.params)
    size: Tensor = torch.linalg.vector_norm(layout.pack(fz) - layout.pack(problem.z0), dim=1)
    return size


def equilibria(problem: Problem, solution: Solution) -> Iterator[Solution]:
    """Yield solutions at an equilibrium: the one found, then the known one where none was.

    The samples that were solved may sit at another equilibrium than the known one.
    """
    if solution.success:
        yield solution
    if problem.solutions:
        layout = Layout(problem.z0)
        known, found = layout.pack(problem.solutions[0]), layout.pack(solution.value)
        met = (solution.retcode == solvers.ReturnCode.SUCCESS)[:, None]
        yield replace(solution, value=layout.unpack(torch.where(met, found, known)))
        yield replace(solution, value=problem.solutions[0])


def least_evaluations(problem: Problem, solution: Solution) -> tuple[Tensor, Solution] | None:
    """Return the limits (B,) and the solution at whose equilibrium they are, if there is one."""
    for at in equilibria(problem, solution):
        # A loose solution may be too far from its root to find it again.
        with contextlib.suppress(ValueError):
            return limit(problem, at, max_vectors=max(VECTORS, min(at.dim, MOST_VECTORS))), at
    return None


def scores(problem: Problem, solution: Solution) -> dict[str, Any]:
    """Return the limit and what the solve took beside it.

    Returns
    -------
    dict
        ``limit``, ``score`` (evaluations / limit) and ``radius`` (spectral radius of the Jacobian
        at the equilibrium): the number of a single sample, the median of several, which
        ``samples`` lists then. ``None`` where there is none: no equilibrium is known, no Krylov
        method gets to the tolerance, or (score) the sample did not converge. ``equivalents``:
        evaluations, with each product with the Jacobian as two.
    """
    stats = solution.stats
    evaluations = stats.sample_evaluations.double().cpu()
    products = stats.jvps + stats.vjps
    made: dict[str, Any] = {
        "limit": None,
        "score": None,
        "radius": None,
        "equivalents": stats.evaluations + PRODUCT * products,
    }
    found = least_evaluations(problem, solution)
    if found is None:
        return made
    least, at = found[0].double().cpu(), found[1]
    radius = spectral_radius(problem, at, products=min(at.dim, VECTORS)).double().cpu()
    met = (solution.retcode == solvers.ReturnCode.SUCCESS).cpu()
    score = torch.where(met, evaluations / least, torch.nan)
    each = {"limit": least, "score": score, "radius": radius}
    made |= {name: _median(values) for name, values in each.items()}
    if solution.batch > 1:
        made["samples"] = {name: [_finite(v) for v in t.tolist()] for name, t in each.items()}
    return made


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Tensor) -> float | None:
    """Return the median; ``None`` if the median sample has no finite number."""
    ordered = torch.nan_to_num(values, nan=math.inf).sort().values
    return _finite(float(ordered[len(ordered) // 2]))


def main(config: LimitConfig, recorder: Recorder) -> dict[str, float]:
    """Solve to every tolerance; the result is that of the last one."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    problem = build(config.problem, config.seed, config.dtype)
    problem = problem.mapped(lambda t: t.to(config.device))
    solver = solvers.registry.build(config.solver, "solver")
    scale = first_residual(problem)
    options: Mapping[str, Any] = {k: v for k, v in config.problem.items() if k != "name"}
    reached: dict[str, float] = {}
    for step, reltol in enumerate(config.tolerances):
        solution = solvers.solve(
            problem, solver, reltol=reltol, max_evaluations=config.max_evaluations, scale=scale
        )
        measured = scores(problem, solution)
        recorder.solve(
            solution,
            solver=config.solver["name"],
            outer_step=step,
            extra={**measured, "problem": dict(options), "attempts": attempts(solution)},
        )
        if not solution.success:
            print(f"reltol {reltol:g}: {solution.message}")
        reached = {"evaluations": float(solution.stats.evaluations)}
        reached |= {k: measured[k] for k in ("limit", "score") if measured[k] is not None}
    return reached


def attempts(solution: Solution) -> list[dict[str, Any]]:
    """Return how each solver of a chain ended, with its evaluations."""
    return [
        {"solver": a.solver.name, "evaluations": a.stats.evaluations, "retcodes": a.counts}
        for a in solution.attempts
    ]


experiment = define(LimitConfig, main, "limit")

if __name__ == "__main__":
    command_line(experiment)
