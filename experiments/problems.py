"""How robust a solver is: one test problem, one solver, many perturbed starts.

The starts are the samples of one solve; sample 0 is the problem's standard start, the others are
seeded perturbations of it. Each is judged by our own test, evaluated again at the returned point,
whatever the solver claims. Solvers of other libraries go start by start, so that none of them sees
the others' starts.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from scipy import optimize
from torch import Tensor

import solvers
from experiments.intervals import wilson
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from experiments.runner.rows import solver_name
from solvers import BaseSolver, FixedPointProblem, ForeignSolver, ReturnCode, Solution, Stats
from solvers import problems as library
from solvers.loop import Iteration
from solvers.options import OptionError
from solvers.problem import Layout, Problem, State, parts

Count = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# In a batch of another size the last digits of a residual differ: a point that met the tolerance
# by one of them still meets it.
SLACK = 1 + 1e-6
# A known root within this distance, relative to 1 + ‖root‖∞, is the one that was reached. At a
# singular root a residual of 1e-8 leaves an error of 1e-4, at a threefold one 2e-3.
NEAR = 1e-2
_MINPACK = ("scipy_hybr", "scipy_lm")
_OWN = ("claimed", "met")
_root: Any = optimize.root  # its annotations want a literal for the method


@dataclass(frozen=True)
class ProblemsConfig:
    """What ``problems`` measures.

    Attributes
    ----------
    problem
        A registered test problem; options such as ``problem.n=20``.
    solver
        A registered solver.
    starts, spread, seed
        The standard start and ``starts - 1`` seeded perturbations of it, ``spread`` in size; they
        go over the problem's own options of these names. A problem that has no such option takes
        ``starts`` for its ``batch``: other samples, not other starts.
    dtype
        Of the state.
    abstol, reltol, norm
        The test: ‖F‖ ≤ abstol + reltol·scale, of each start.
    max_evaluations
        Of f, for each start.
    max_seconds
        For the whole trial; starts that it cuts off count as not solved (``MAX_SECONDS``).
    device, threads
        Where; ``threads`` of torch, on the CPU.
    """

    problem: Config = field(
        default_factory=lambda: {"name": "powell_singular"},
        metadata={"registry": library.registry},
    )
    solver: Config = field(
        default_factory=lambda: {"name": "fallback"}, metadata={"registry": solvers.registry}
    )
    starts: Count = 20
    spread: Size = 0.1
    abstol: Size = 1e-8
    reltol: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm: Literal["l2", "rms", "linf"] = "linf"
    max_evaluations: Count = 400
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
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
        if not self.abstol and not self.reltol:
            raise OptionError("abstol = 0.0: with reltol = 0 too no solver can meet the test")

    def completed(self) -> ProblemsConfig:
        """Return the config whose problem has the starts, the spread, the seed and the dtype."""
        name = str(self.problem["name"])
        known = {option.name for option in library.registry.describe(name).options}
        wanted = {"spread": self.spread, "seed": self.seed, "dtype": self.dtype}
        wanted["starts" if "starts" in known else "batch"] = self.starts
        given = {key: value for key, value in wanted.items() if key in known}
        return replace(self, problem={**self.problem, **given})


@dataclass(frozen=True)
class Verdicts:
    """What came of each start, by our test.

    Attributes
    ----------
    met
        Whether ‖F‖ at the returned point, evaluated again, meets the tolerance.
    residual
        That ‖F‖; infinite where it is no number.
    retcode
        Names.
    evaluations, products
        Calls of f, and Jacobian products beside them, until this start ended.
    root, distance
        The number of the nearest known root (None: none is near), and ‖z − root‖∞ to it (None: no
        root is known).
    claimed
        Whether the solver's own library says that it succeeded; None where it says nothing.
    own
        What MINPACK does by itself: whether it claims success, and whether that is near enough;
        None of any other solver.
    """

    met: Sequence[bool]
    residual: Sequence[float]
    retcode: Sequence[str]
    evaluations: Sequence[int]
    products: Sequence[int]
    root: Sequence[int | None]
    distance: Sequence[float | None]
    claimed: Sequence[bool | None]
    own: Sequence[tuple[bool, bool] | None]


def sample(problem: Problem, index: int) -> Problem:
    """Return the problem of one sample alone."""

    def one(z: State) -> State:
        rows = tuple(t[index : index + 1] if t.shape[0] > 1 else t for t in parts(z))
        return rows if isinstance(z, tuple) else rows[0]

    alone: Problem = replace(  # type: ignore[type-var]  # both problems are dataclasses
        problem,
        z0=one(problem.z0),
        args=tuple(a[index : index + 1] for a in problem.args),
        solutions=tuple(one(root) for root in problem.solutions),
    )
    return alone


def solve(problem: Problem, solver: BaseSolver, config: ProblemsConfig) -> tuple[Solution, Any]:
    """Solve from every start; return the solution and the products of each start."""
    if isinstance(solver, ForeignSolver):
        return _one_by_one(problem, solver, config)
    clock = _Clock()
    solution = _solve(problem, solver, config, config.max_seconds, clock)
    return solution, clock.products(solution)


def _solve(
    problem: Problem,
    solver: BaseSolver,
    config: ProblemsConfig,
    seconds: float,
    callback: Callable[[Iteration], None] | None = None,
) -> Solution:
    return solvers.solve(
        problem,
        solver,
        abstol=config.abstol,
        reltol=config.reltol,
        norm=config.norm,
        max_evaluations=config.max_evaluations,
        max_seconds=seconds,
        callback=callback,
    )


class _Clock:
    """Notes how many products had been taken at each evaluation, attempt by attempt of a chain.

    A solve counts the products of the batch; a start has paid for those until it ended.
    """

    def __init__(self) -> None:
        self._iterations: list[Iteration] = []
        self._notes: list[list[tuple[int, int]]] = []

    def __call__(self, iteration: Iteration) -> None:
        if not self._iterations or self._iterations[-1] is not iteration:
            self._iterations.append(iteration)
            self._notes.append([])
        stats = iteration.stats
        self._notes[-1].append((stats.evaluations, stats.jvps + stats.vjps))

    def products(self, solution: Solution) -> list[int]:
        """Return the products until each start ended."""
        attempts = solution.attempts or (solution,)
        whole = all(attempt.batch == solution.batch for attempt in attempts)
        if not whole or len(attempts) != len(self._notes):
            return self._by_evaluations(solution)
        found = [0] * solution.batch
        for attempt, notes in zip(attempts, self._notes, strict=True):
            every = attempt.stats.jvps + attempt.stats.vjps
            took = attempt.stats.sample_evaluations.tolist()
            for index, ended in enumerate(attempt.ended.tolist()):
                if took[index]:  # else a solver before this one had solved it
                    later = (products for evaluations, products in notes if evaluations >= ended)
                    found[index] += next(later, every)
        return found

    def _by_evaluations(self, solution: Solution) -> list[int]:
        """Share the products out by evaluations: a chain that hands only some samples on."""
        stats = solution.stats
        spent = stats.sample_evaluations.double()
        share = (stats.jvps + stats.vjps) * spent / spent.max().clamp_min(1)
        return [round(products) for products in share.tolist()]


def _one_by_one(
    problem: Problem, solver: ForeignSolver, config: ProblemsConfig
) -> tuple[Solution, list[int]]:
    """Solve every start by itself, and put the solutions together as one of a batch."""
    found: list[Solution] = []
    began = time.perf_counter()
    for index in range(problem.batch):
        left = max(config.max_seconds - (time.perf_counter() - began), 1e-9)
        found.append(_solve(sample(problem, index), solver, config, left))
    return joined(found), [s.stats.jvps + s.stats.vjps for s in found]


def joined(found: Sequence[Solution]) -> Solution:
    """Return solutions of single samples as one of a batch.

    ``evaluations`` is the largest of the samples' counts, products are those of all; the trace is
    left out.
    """
    layout = Layout(found[0].value)
    every = [s.stats for s in found]
    stats = Stats(
        evaluations=max(s.evaluations for s in every),
        sample_evaluations=torch.cat([s.sample_evaluations for s in every]),
        jvps=sum(s.jvps for s in every),
        vjps=sum(s.vjps for s in every),
        iterations=max(s.iterations for s in every),
        seconds=sum(s.seconds for s in every),
        syncs=sum(s.syncs for s in every),
        history_bytes=None,
    )
    return replace(
        found[0],
        value=layout.unpack(torch.cat([layout.pack(s.value) for s in found])),
        residual=torch.cat([s.residual for s in found]),
        scale=torch.cat([s.scale for s in found]),
        retcode=torch.cat([s.retcode for s in found]),
        ended=torch.cat([s.ended for s in found]),
        stats=stats,
        trace=None,
        original=[s.original for s in found],
    )


def judge(
    problem: Problem, solution: Solution, products: Sequence[int], config: ProblemsConfig
) -> Verdicts:
    """Judge every start by our test, at the returned point and in its dtype."""
    value = Layout(problem.z0).pack(solution.value)
    size = _size(residual_at(problem, value), config.norm)
    tolerance = config.abstol + config.reltol * solution.scale.double()
    met = (solution.retcode == ReturnCode.SUCCESS) & (size <= SLACK * tolerance)
    roots, distances = nearest_roots(problem, value)
    return Verdicts(
        met.tolist(),
        size.tolist(),
        [ReturnCode(code).name for code in solution.retcode.tolist()],
        solution.stats.sample_evaluations.tolist(),
        list(products),
        roots,
        distances,
        claims(solution),
        own_claims(problem, solution, config),
    )


def residual_at(problem: Problem, value: Tensor) -> Tensor:
    """Return F at ``value`` (B, D): g of a root problem, f(z) − z of a fixed point, in float64."""
    layout = Layout(problem.z0)
    with torch.no_grad():
        image = problem.function(layout.unpack(value), *problem.args, *problem.params)
    residual = layout.pack(image)
    if isinstance(problem, FixedPointProblem):
        residual = residual - value
    return residual.double()


def _size(residual: Tensor, norm: str) -> Tensor:
    """Return the norms (B,), infinite where they are no numbers."""
    size: Tensor
    if norm == "linf":
        size = residual.abs().amax(dim=1)
    else:
        size = torch.linalg.vector_norm(residual, dim=1)
        size = size / residual.shape[1] ** 0.5 if norm == "rms" else size
    return torch.where(torch.isfinite(size), size, torch.inf)


def nearest_roots(problem: Problem, value: Tensor) -> tuple[list[int | None], list[float | None]]:
    """Return for every row of ``value`` (B, D) the nearest known root and the distance to it.

    Roots are numbered as in ``problem.solutions``; None where none is within :data:`NEAR`.
    """
    if not problem.solutions:
        return [None] * len(value), [None] * len(value)
    known = [Layout(root).pack(root).double().expand(len(value), -1) for root in problem.solutions]
    roots = torch.stack(known, dim=1)  # (B, roots, D)
    gaps = (value.double()[:, None] - roots).abs().amax(dim=2)
    gaps = torch.where(torch.isfinite(gaps), gaps, torch.inf)
    distance, number = gaps.min(dim=1)
    reach = NEAR * (1 + roots.abs().amax(dim=2).gather(1, number[:, None])[:, 0])
    near = (distance <= reach).tolist()
    return (
        [int(n) if close else None for n, close in zip(number.tolist(), near, strict=True)],
        [d if d < float("inf") else None for d in distance.tolist()],
    )


def claims(solution: Solution) -> list[bool | None]:
    """Return whether each start's own library says that it succeeded; None where it is silent.

    A library that we stop, because our test is met or the budget is spent, has said nothing.
    """
    originals = solution.original
    if not isinstance(solution.solver, ForeignSolver) or not isinstance(originals, list):
        return [None] * solution.batch
    said: list[bool | None] = []
    for original in originals:
        one = original[0] if isinstance(original, list) and len(original) == 1 else original
        claim = getattr(one, "success", None)
        said.append(None if claim is None else bool(claim))
    return said


def own_claims(
    problem: Problem, solution: Solution, config: ProblemsConfig
) -> list[tuple[bool, bool] | None]:
    """Return what MINPACK claims with its own settings, and whether our test agrees, by start.

    Our wrappers switch off its tests on the step and on the decrease of the squares, which a local
    minimum passes too. Who calls ``scipy.optimize.root`` meets them; nothing here is counted. They
    are not about the residual, so that one up to the root of the tolerance passes for solved.
    """
    solver = solution.solver
    if not isinstance(solver, ForeignSolver) or not solver.name.startswith(_MINPACK):
        return [None] * solution.batch
    layout = Layout(problem.z0)
    starts = layout.pack(problem.z0).double().cpu()
    found: list[tuple[bool, bool] | None] = []
    for index, start in enumerate(starts):
        alone = sample(problem, index)

        def at(x: Any, alone: Problem = alone) -> Tensor:
            return residual_at(
                alone, torch.as_tensor(x, dtype=layout.dtype, device=layout.device)[None]
            )

        def numbers(x: Any, at: Callable[[Any], Tensor] = at) -> Any:
            return at(x)[0].numpy()

        begin, method = start.numpy().copy(), solver.name.removeprefix("scipy_")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            result = _root(numbers, begin, method=method)
        size = float(_size(at(result.x), config.norm))
        tolerance = config.abstol + config.reltol * float(solution.scale[index])
        found.append((bool(result.success), size <= max(tolerance, tolerance**0.5)))
    return found


def summary(problem: Problem, config: ProblemsConfig, found: Verdicts) -> dict[str, Any]:
    """Return what the solve row keeps in its column ``extra``, as plain data."""
    starts = [
        {
            "met": found.met[i],
            "evaluations": found.evaluations[i],
            "products": found.products[i],
            "retcode": found.retcode[i],
            "residual": _finite(found.residual[i]),
            "root": found.root[i],
            "distance": found.distance[i],
            "claimed": found.claimed[i],
            "own": None if (own := found.own[i]) is None else dict(zip(_OWN, own, strict=True)),
        }
        for i in range(len(found.met))
    ]
    successes = sum(found.met)
    standard = str(config.problem["name"]) in getattr(library, "STANDARD", ())
    return {
        "collection": "standard" if standard else "other",
        "traps": list(getattr(problem, "traps", ())),
        "dim": Layout(problem.z0).dim,
        "roots": len(problem.solutions),
        "standard": starts[0],
        "starts": len(starts),
        "successes": successes,
        "wilson": list(wilson(successes, len(starts))),
        "false_successes": sum(
            (claim is True and not met) or own == (True, False)
            for claim, met, own in zip(found.claimed, found.met, found.own, strict=True)
        ),
        "per_sample": starts,
    }


def _finite(number: float) -> float | None:
    return number if number < float("inf") else None


def main(config: ProblemsConfig, recorder: Recorder) -> dict[str, float]:
    """Solve from every start and record it; the result is what a person looks at first."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    problem = library.registry.build(config.problem, "problem")
    problem = problem.mapped(lambda t: t.to(config.device))
    solver = solvers.registry.build(config.solver, "solver")
    # The first solve of a process imports and compiles, which no start should pay for.
    _solve(sample(problem, 0), solver, replace(config, max_evaluations=2), config.max_seconds)
    solution, products = solve(problem, solver, config)
    verdicts = judge(problem, solution, products, config)
    extra = summary(problem, config, verdicts)
    if solution.attempts:
        extra["attempts"] = [{solver_name(a.solver): a.counts} for a in solution.attempts]
    recorder.solve(solution, solver=config.solver["name"], extra=extra)
    if not solution.success:
        print(solution.message)
    solved = [e for e, met in zip(verdicts.evaluations, verdicts.met, strict=True) if met]
    reached = {"standard": float(verdicts.met[0]), "share": extra["successes"] / extra["starts"]}
    return reached | ({"evaluations": float(statistics.median(solved))} if solved else {})


experiment = define(ProblemsConfig, main, "problems")

if __name__ == "__main__":
    command_line(experiment)
