"""Every registered solver × every problem × dtype × batch: right, or honest, and counted right."""

from __future__ import annotations

import functools

import pytest
import torch
from maps import (
    EPS,
    FOREIGN,
    codes,
    contracts,
    doubled,
    every_dtype,
    every_solver,
    instrumented,
    jacobian,
    pack,
    polished,
    residual,
)
from torch import Tensor

import solvers
from solvers import ReturnCode, RootProblem
from solvers.problem import Problem
from solvers.problems import STANDARD, registry

every_problem = pytest.mark.parametrize("which", registry.names())

# What each dtype reaches with room to spare on problems of condition up to 20.
RELTOL = {"float32": 1e-4, "float64": 1e-8}
# Generous for a contraction of rate 0.9: plain iteration needs 180 to 1e-8.
BUDGET = 400
# What these add to the squares of the residuals keeps them from small ones for a long time.
ABSOLUTE_RIDGE = ["torchdeq_anderson", "xitorch_anderson"]
# Where no method promises anything the budget only has to be honest about itself.
SMALL_BUDGET = 30


# Where a root is singular or ill conditioned, or g has a kink, the residual tells no distance.
BLURRED = {"singular_root", "ill_conditioned", "nonsmooth", "no_root"}
# Foreign solvers go sample by sample: a few of the standard systems for them.
FEW = {"powell_singular", "dennis_schnabel", "broyden_banded", "freudenstein_roth", "boggs"}


@functools.cache
def problem_of(which: str, dtype: str, batch: int) -> Problem:
    # A few numbers a sample where the problem has a size, as many as its equations ask for.
    known = {o.name for o in registry.describe(which).options}
    sizes = {"dim": 3, "scale": 0.6, "n": 4, "N": 4, "radius": 0.6, "seed": 1}
    sizes |= {"batch": batch, "starts": batch}
    options = {k: v for k, v in sizes.items() if k in known}
    if which in ("watson", "chebyquad"):
        options["n"] = 2
    return registry.get(which, dtype=dtype, **options)


@functools.cache
def is_contraction(which: str) -> bool:
    return contracts(problem_of(which, "float64", 4))


def largest_term(problem: Problem, value: Tensor) -> Tensor:
    """(B,) the length of |J| |z|: what a rounding of z changes in the residual, in units."""
    if not isinstance(problem, RootProblem):
        return torch.zeros_like(value[:, 0])
    J = jacobian(problem, value).abs()
    moved: Tensor = (J @ value.abs()[:, :, None])[:, :, 0].norm(dim=1)
    return torch.nan_to_num(moved, nan=torch.inf)


@every_problem
@every_solver
@every_dtype
@pytest.mark.parametrize("batch", [1, 16])
def test_right_or_honest(name: str, which: str, dtype: str, batch: int) -> None:
    if which in STANDARD and ((name in FOREIGN and which not in FEW) or batch == 1):
        return
    problem, contraction = problem_of(which, dtype, batch), is_contraction(which)
    # The residuals of the systems are of any size, and their tolerance is absolute.
    scale = 1.0 if isinstance(problem, RootProblem) else None
    counted_problem, calls = instrumented(problem)
    solution = solvers.solve(
        counted_problem,
        solvers.registry.get(name),
        reltol=RELTOL[dtype],
        max_evaluations=BUDGET if contraction else SMALL_BUDGET,
        scale=scale,
    )

    # The counts are those of the function.
    stats = solution.stats
    assert stats.sample_evaluations.tolist() == calls.samples.tolist()
    if name in FOREIGN:  # which may go sample by sample
        assert stats.evaluations == calls.samples.max()
    else:
        assert stats.evaluations == calls.calls

    # The value has the form of the state, and the residual is what it is reported to be. The same
    # sample in another batch is rounded otherwise: some units at the size of f.
    value = pack(problem, solution.value)
    assert type(solution.value) is type(problem.z0)
    assert value.shape == pack(problem, problem.z0).shape
    assert value.dtype == getattr(torch, dtype)
    again = residual(problem, solution.value).norm(dim=1)
    size = 1 + value.norm(dim=1) + largest_term(problem, value)
    assert ((again - solution.residual).abs() <= 30 * EPS[dtype] * size).all()

    # SUCCESS is the tolerance met, and nothing else is.
    tolerance = RELTOL[dtype] * solution.scale
    success = solution.retcode == ReturnCode.SUCCESS
    assert torch.equal(success, solution.residual <= tolerance)
    if contraction and name not in ABSOLUTE_RIDGE:
        assert success.all(), solution.message
    assert stats.evaluations <= solution.settings.max_evaluations

    # What is called solved is near a root: twice the residual over the smallest singular value of
    # the Jacobian bounds the distance where the latter changes little, plus rounding.
    if success.any() and not BLURRED & set(problem.traps):
        root = polished(problem, solution.value)
        wide = doubled(problem)
        assert torch.isfinite(root[success]).all()
        slope = torch.linalg.svdvals(jacobian(wide, root))[:, -1]
        bound = (2 * solution.residual.double() + 30 * EPS[dtype] * size) / slope
        distance = (root - value.double()).norm(dim=1)
        assert (distance[success] <= bound[success]).all()
        if contraction:  # which has one root, and it is known
            known = pack(problem, problem.solutions[0]).double()
            rounding = 4 * EPS[dtype] * size / slope
            assert ((root - known).norm(dim=1) <= rounding).all()


@every_solver
@every_dtype
def test_a_constant_map_is_answered_exactly(name: str, dtype: str) -> None:
    problem, calls = instrumented(registry.get("constant", dtype=dtype, batch=3))
    # The answer is exact or the test of a zero residual fails.
    exact = name not in {*FOREIGN, "newton_krylov"}
    reltol = 0.0 if exact else 10 * EPS[dtype]
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=reltol)
    if name in FOREIGN:
        # Their steps are differences of rounded numbers, or a line search's.
        return
    assert solution.success, solution.message
    if exact:
        assert torch.equal(solution.value, problem.solutions[0])
        assert calls.calls == 2
    else:
        # GMRES divides the residual by its length and multiplies it again.
        assert torch.allclose(solution.value, problem.solutions[0], rtol=4 * EPS[dtype], atol=0)


@every_solver
def test_it_says_what_it_did(name: str) -> None:
    problem = registry.get("tanh", batch=2, dim=3, dtype="float64")
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert solution.solver.name == name
    assert (solution.problem, solution.phase, solution.dim) == ("tanh", "forward", 3)
    assert (solution.dtype, solution.device) == ("float64", "cpu")
    assert codes(solution) == [ReturnCode.SUCCESS] * 2
    assert solution.message.startswith("SUCCESS")
    assert name in repr(solution)
    assert solution.stats.seconds > 0
    assert solution.trace is not None
    counts = solution.trace.evaluations
    assert torch.equal(counts, counts.sort().values)
    assert torch.equal(solution.trace.seconds, solution.trace.seconds.sort().values)
