"""Foreign solvers: every method and option reachable, counted and judged by us, missing ones said.

That they are right or honest on every problem is the product of test_products.py.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from maps import (
    FOREIGN,
    codes,
    foreign,
    instrumented,
    jacobian,
    pack,
    residual,
    scaled,
    sub,
    tanh_map,
)
from scipy import optimize
from torch import Tensor

import solvers
from experiments.cli import main
from solvers import FixedPointProblem, OptionError, ReturnCode, RootProblem, Settings
from solvers.extensions import EXTENSIONS
from solvers.extensions.peer import PeerSolver
from solvers.foreign import Objective
from solvers.problems import registry as problems

SCIPY = [n for n in FOREIGN if n.startswith("scipy_")]
PEERS = [n for n in FOREIGN if issubclass(solvers.registry.factory(n), PeerSolver)]  # type: ignore[arg-type]
DENSE = ["scipy_hybr", "scipy_lm"]
TOGETHER = [n for n in FOREIGN if n not in SCIPY]  # the batch at once
SUCCESS = ReturnCode.SUCCESS


def test_every_method_of_scipy_root_is_registered() -> None:
    methods = {n: solvers.registry.factory(n).method for n in SCIPY}  # type: ignore[attr-defined]
    # What scipy.optimize.root documents.
    assert sorted(methods.values()) == sorted(
        [
            "hybr",
            "lm",
            "broyden1",
            "broyden2",
            "anderson",
            "linearmixing",
            "diagbroyden",
            "excitingmixing",
            "krylov",
            "df-sane",
        ]
    )
    for method in methods.values():
        assert optimize.show_options("root", method, disp=False)
    assert set(EXTENSIONS) >= set(FOREIGN)


# -- options ---------------------------------------------------------------------------------------

LINE_SEARCHES: list[dict[str, Any]] = [{"line_search": s} for s in (None, "armijo", "wolfe")]
BROYDEN: list[dict[str, Any]] = [
    {"max_rank": 5, "reduction": r} for r in ("restart", "simple", "svd")
]
MIXING: list[dict[str, Any]] = [{"mixing": 0.5}, {"mixing": None}]
BATCH: list[dict[str, Any]] = [{"line_search": s} for s in (False, True)]
MINPACK: list[dict[str, Any]] = [
    {"jacobian": "difference"},
    {"jacobian": "autograd", "factor": 0.1, "max_dim": 6},
]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "scipy_hybr": MINPACK,
    "scipy_lm": MINPACK,
    "scipy_broyden1": [*LINE_SEARCHES, *BROYDEN, *MIXING],
    "scipy_broyden2": [*LINE_SEARCHES, *BROYDEN, *MIXING],
    "scipy_anderson": [*LINE_SEARCHES, *MIXING, {"window": 2}, {"regularisation": 0.0}],
    "scipy_linear_mixing": [*LINE_SEARCHES, *MIXING],
    "scipy_diag_broyden": [*LINE_SEARCHES, *MIXING],
    "scipy_exciting_mixing": [*LINE_SEARCHES, *MIXING, {"max_mixing": 0.7}],
    "scipy_newton_krylov": [
        *LINE_SEARCHES,
        *({"krylov": k} for k in ("lgmres", "gmres", "bicgstab", "cgs", "tfqmr")),
        *({"inner_m": m} for m in ("broyden1", "anderson", None)),
        *({"krylov": k, "inner_maxiter": 3} for k in ("lgmres", "gmres", "bicgstab")),
        {"inner_rtol": 0.1},
        {"outer_k": 0},
        {"rdiff": 1e-6},
    ],
    "scipy_df_sane": [
        {"line_search": "cruz", "window": 1},
        {"line_search": "cheng"},
        {"first": 1.0},
        {"bound": 1e-3},
    ],
    "torch_lbfgs": [{"history": 3}, {"line_search": "strong_wolfe"}],
    "torchdeq_picard": [{"mixing": 0.5}, {"monitored": False}, {"monitored": False, "mixing": 0.5}],
    "torchdeq_anderson": [{"window": 2}, {"ridge": 1e-8}, {"mixing": 0.5}],
    "torchdeq_broyden": [{"window": 3}, *BATCH],
    "xitorch_anderson": [{"window": 2}, {"ridge": 1e-8}, {"mixing": 0.5}],
    "xitorch_broyden1": [*BATCH, {"max_rank": 3}, *MIXING],
    "xitorch_broyden2": [*BATCH, {"max_rank": 3}, *MIXING],
    "xitorch_linear_mixing": [*BATCH, {"mixing": 0.5}],
}
CASES = [(name, options) for name in FOREIGN for options in OPTIONS[name]]


@foreign
def test_every_option_is_tried(name: str) -> None:
    tried = {key for options in OPTIONS[name] for key in options}
    assert tried == {o.name for o in solvers.registry.describe(name).options}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_option_reaches_the_library(name: str, options: dict[str, Any]) -> None:
    """A library that did not know it would raise, which is a failure with what it raised."""
    problem = tanh_map(batch=2, scale=0.5)
    solution = solvers.solve(
        problem, solvers.registry.get(name, **options), reltol=1e-6, max_evaluations=300
    )
    assert solution.success, solution.message
    # The slope of z − f(z) is 0.2 at the least for this matrix.
    assert torch.allclose(
        pack(problem, solution.value), pack(problem, problem.solutions[0]), atol=1e-4
    )


def test_minres_is_for_symmetric_jacobians() -> None:
    problem = problems.get("cosine", batch=2, dtype="float64")
    krylov = solvers.registry.get("scipy_newton_krylov", krylov="minres")
    assert solvers.solve(problem, krylov, reltol=1e-8).success


def test_the_length_of_lgmres_is_heard() -> None:
    # SciPy's own inner_maxiter says nothing to LGMRES.
    problem = problems.get(
        "linear", spectrum="one_sided", radius=0.99, dim=60, batch=1, dtype="float64"
    )
    counts = [
        solvers.solve(
            problem,
            solvers.registry.get("scipy_newton_krylov", inner_maxiter=k, outer_k=0),
            reltol=1e-4,
            max_evaluations=500,
        ).stats.evaluations
        for k in (2, 30)
    ]
    assert counts[0] > 2 * counts[1]


# -- every method solves what it is made for -------------------------------------------------------


@pytest.mark.parametrize("which", ["tanh", "tuple_tanh", "linear", "cosine"])
@foreign
def test_every_method_solves_a_contraction(name: str, which: str) -> None:
    options: dict[str, Any] = {"linear": {"dim": 4}, "cosine": {"dim": 4}}.get(
        which, {"scale": 0.5}
    )
    problem, calls = instrumented(problems.get(which, batch=3, dtype="float64", **options))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6, max_evaluations=400)
    assert solution.success, solution.message
    assert solution.stats.sample_evaluations.tolist() == calls.samples.tolist()
    assert solution.stats.evaluations == calls.samples.max()


@pytest.mark.parametrize("name", TOGETHER)
def test_the_batch_is_evaluated_at_once(name: str) -> None:
    problem, calls = instrumented(tanh_map(batch=5))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert all(p.shape[0] == 5 for p in calls.points)
    assert solution.stats.evaluations == calls.calls


@pytest.mark.parametrize("name", SCIPY)
def test_copies_to_the_host_are_counted(name: str) -> None:
    problem = tanh_map(batch=3)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    # A copy an evaluation but the first and the last, which are ours; Jacobians are copied too.
    copies = int(solution.stats.sample_evaluations.sum()) - 2 * 3
    assert solution.stats.syncs == copies or (name in DENSE and solution.stats.syncs > copies)


# -- dense Jacobians -------------------------------------------------------------------------------


def objective(problem: Any) -> Objective:
    seen = Objective(problem, Settings(reltol=0.0), None)
    seen.first()
    return seen


def test_the_jacobian_of_a_sample_and_of_coupled_ones() -> None:
    alone = tanh_map(batch=3, dim=4)
    exact = jacobian(alone, pack(alone, alone.z0))
    seen = objective(alone)
    for i in range(3):
        assert torch.allclose(seen.jacobian(seen.z0[i : i + 1], i), exact[i], atol=1e-14)
    assert seen.products == 4  # on the clock of one sample

    root = RootProblem(lambda z, A: z @ A, torch.ones(1, 3), params=(torch.randn(3, 3),))
    A = root.params[0]
    assert torch.allclose(objective(root).jacobian(torch.ones(1, 3), 0), A.T, atol=1e-6)

    def mixed(z: Tensor) -> Tensor:
        return 0.5 * z.mean(dim=0, keepdim=True).expand_as(z)

    coupled = FixedPointProblem(mixed, torch.ones(2, 2, dtype=torch.float64))
    seen = objective(coupled)
    assert seen.independent is False
    half = 0.25 * torch.eye(2, dtype=torch.float64)
    together = torch.cat([torch.cat([half, half], 1)] * 2) - torch.eye(4, dtype=torch.float64)
    assert torch.allclose(seen.jacobian(seen.z0), together)


@pytest.mark.parametrize("name", DENSE)
def test_a_jacobian_by_autograd_or_by_differences(name: str) -> None:
    problem, calls = instrumented(tanh_map(batch=2, dim=6))
    auto, difference = (
        solvers.solve(problem, solvers.registry.get(name, jacobian=how), reltol=1e-10)
        for how in ("autograd", "difference")
    )
    assert auto.success
    assert difference.success
    assert auto.stats.vjps > 0
    assert auto.stats.vjps % 6 == 0
    assert difference.stats.vjps == 0
    assert auto.stats.evaluations < difference.stats.evaluations
    both = auto.stats.sample_evaluations + difference.stats.sample_evaluations
    assert both.tolist() == calls.samples.tolist()
    assert torch.allclose(auto.value, difference.value, atol=1e-8)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DENSE)
def test_the_budget_holds_for_a_jacobian(name: str) -> None:
    for budget in range(1, 9):
        problem, calls = instrumented(tanh_map(batch=2))
        solution = solvers.solve(
            problem, solvers.registry.get(name), reltol=0.0, max_evaluations=budget
        )
        assert set(codes(solution)) == {ReturnCode.MAX_EVALUATIONS}
        assert calls.samples.max() == solution.stats.evaluations <= budget


@pytest.mark.parametrize("name", DENSE)
def test_large_states_are_refused(name: str) -> None:
    solver = solvers.registry.get(name, max_dim=10)
    assert "dense" in solver.requires
    problem = FixedPointProblem(torch.cos, torch.zeros(3, 11), samples_independent=True)
    with pytest.raises(
        OptionError, match=rf"max_dim = 10: {name} builds a dense .* 11 numbers a sample: use scipy"
    ):
        solvers.solve(problem, solver)
    with pytest.raises(OptionError, match=r"12 numbers a batch whose samples are coupled"):
        coupled = replace(problem, z0=torch.zeros(3, 4), samples_independent=False)
        solvers.solve(coupled, solver)
    fits = replace(problem, z0=torch.zeros(3, 10))
    assert solvers.solve(fits, solver).success


# -- judged honestly -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["autograd", "difference"])
@pytest.mark.parametrize("which", ["brown_almost_linear", "trigonometric", "freudenstein_roth"])
def test_a_minimum_that_scipy_calls_solved_is_not(which: str, how: str) -> None:
    problem = problems.get(which)
    assert isinstance(problem, RootProblem)

    def g(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return residual(problem, torch.tensor(x)[None])[0].numpy()

    claimed = optimize.root(g, pack(problem, problem.z0)[0].numpy(), method="lm")
    assert claimed.success
    assert np.linalg.norm(claimed.fun) > 1e-3

    solver = solvers.registry.get("scipy_lm", jacobian=how)
    solution = solvers.solve(problem, solver, reltol=1e-8, max_evaluations=2000)
    met = float(residual(problem, solution.value).norm()) <= 1e-8 * float(solution.scale)
    assert solution.success == met
    # With exact derivatives Brown's has another way to go, and a root at its end.
    assert met == (which == "brown_almost_linear" and how == "autograd")
    if not met:
        assert codes(solution) == [ReturnCode.FAILURE]
        assert "no further" in solution.original[0].message


@foreign
def test_what_the_library_raises_is_kept(name: str) -> None:
    """So is what the function raises in its loop, which is no other thing to the library."""
    healthy = tanh_map(batch=2)
    calls = 0

    def f(z: Tensor, *tensors: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError("the fourth evaluation")
        out: Tensor = healthy.f(z, *tensors)
        return out

    solution = solvers.solve(replace(healthy, f=f), solvers.registry.get(name), reltol=1e-10)
    assert set(codes(solution)) == {ReturnCode.FAILURE}
    assert str(solution.original) == "the fourth evaluation"


def test_a_singular_window_of_torchdeq_ends_the_batch() -> None:
    """As in locuslab/deq#20: what is not solved by then fails, and says why."""
    # The second sample has no solution, and the same residual everywhere.
    slope = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z0 = torch.linspace(0, 1, 20, dtype=torch.float64).reshape(2, 10)
    problem = FixedPointProblem(lambda z, a: torch.where(a > 0, z + 1, torch.cos(z)), z0, (slope,))
    solver = solvers.registry.get("torchdeq_anderson", ridge=0.0)
    solution = solvers.solve(problem, solver, reltol=1e-12)
    assert codes(solution) == [ReturnCode.FAILURE] * 2
    assert "singular" in str(solution.original)
    # Alone the first is solved.
    assert codes(solvers.solve(sub(problem, [0]), solver, reltol=1e-12)) == [SUCCESS]


@foreign
def test_a_nan_from_the_start_or_later_ends_no_other_way(name: str) -> None:
    problem = FixedPointProblem(
        lambda z: torch.where(z.abs() > 0.5, torch.nan, torch.cos(z)), torch.zeros(2, 3).double()
    )
    solution = solvers.solve(problem, solvers.registry.get(name), max_evaluations=60)
    assert SUCCESS not in codes(solution)
    assert torch.isfinite(pack(problem, solution.value)).all()
    assert torch.isfinite(solution.residual).all()


# -- the libraries' own results, and their defects that we measure ---------------------------------


def test_the_result_of_scipy_is_a_result_a_sample() -> None:
    solution = solvers.solve(tanh_map(batch=3), solvers.registry.get("scipy_broyden2"), reltol=1e-6)
    assert [type(r) for r in solution.original] == [optimize.OptimizeResult] * 3
    assert all(r.success for r in solution.original)


@pytest.mark.parametrize("name", ["torchdeq_picard", "torchdeq_anderson", "torchdeq_broyden"])
def test_torchdeq_ends_by_its_own_test_and_returns_its_record(name: str) -> None:
    problem, calls = instrumented(tanh_map(batch=3))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert solution.success
    # Where nobody wanted to go on it saw the identity, which was no evaluation of f.
    assert solution.original["abs_lowest"].tolist() == [0.0] * 3
    assert calls.calls == solution.stats.evaluations
    alone = [
        solvers.solve(sub(tanh_map(batch=3), [i]), solvers.registry.get(name), reltol=1e-6)
        for i in range(3)
    ]
    # It evaluates finished samples on, up to the slowest.
    assert len(set(solution.stats.sample_evaluations.tolist())) == 1
    assert solution.stats.evaluations == max(s.stats.evaluations for s in alone)


@pytest.mark.parametrize("name", [n for n in FOREIGN if n.startswith("xitorch_")])
def test_xitorch_returns_the_point_before(name: str) -> None:
    problem = tanh_map(batch=1)
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)
    assert solution.success
    returned = residual(problem, solution.original).norm(dim=1)
    # Only Anderson's is the last point; that of the others misses the tolerance.
    assert bool(returned <= 1e-6 * solution.scale) == (name == "xitorch_anderson")


@pytest.mark.parametrize("name", ["torchdeq_anderson", "xitorch_anderson"])
def test_an_absolute_ridge_depends_on_units(name: str) -> None:
    """Why their counts differ from ours on the same problem."""
    counts = [
        solvers.solve(
            scaled(tanh_map(batch=2), c),
            solvers.registry.get(name),
            reltol=1e-8,
            max_evaluations=500,
        ).stats.evaluations
        for c in (1.0, 2.0**10)
    ]
    assert counts[1] < counts[0]


# -- packages that are not there -------------------------------------------------------------------


class Hidden(importlib.abc.MetaPathFinder):
    """A finder in front of all others, to which the packages do not exist."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] in ("torchdeq", "xitorch"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.fixture
def without_peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [m for m in sys.modules if m.partition(".")[0] in ("torchdeq", "xitorch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    yield


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_package_is_said_before_anything_runs(name: str, without_peers: None) -> None:
    package = name.partition("_")[0]
    message = (
        rf"name = '{name}': it needs the package {package}, which is not installed:"
        r" pip install 'deq-lab\[peers\]'"
    )
    with pytest.raises(OptionError, match=rf"^solver\.{message}"):
        solvers.registry.get(name)
    with pytest.raises(OptionError, match=rf"^solver\.{message}"):
        solvers.registry.complete(name)
    with pytest.raises(OptionError, match=rf"^{message}"):
        solvers.registry.factory(name)()
    # It is listed all the same, with what it needs.
    entry = solvers.registry.describe(name)
    assert entry.requires == (package,)
    assert entry.options
    assert not entry.error


def test_the_command_lists_what_is_missing(
    without_peers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solvers"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in PEERS)


def test_a_solver_built_elsewhere_says_so_when_it_solves(request: pytest.FixtureRequest) -> None:
    solver = solvers.registry.get("torchdeq_anderson")  # as a worker gets it from another machine
    request.getfixturevalue("without_peers")
    with pytest.raises(ImportError, match="torchdeq"):
        solvers.solve(tanh_map(batch=2), solver)


def test_the_others_need_no_peers(without_peers: None) -> None:
    for name in set(FOREIGN) - set(PEERS):
        assert solvers.solve(tanh_map(batch=2), solvers.registry.get(name)).success
