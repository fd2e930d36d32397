"""The experiment ``limit`` through the command line, small."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from said import Deq

import solvers
from db import Store
from experiments.limit import LimitConfig, build, first_residual, least_evaluations, scores
from experiments.report.frames import as_mapping
from solvers import ReturnCode

Opened = Callable[[], Store]
TANH = ("problem.name=tanh", "problem.batch=1", "problem.dim=20", "device=cpu")
LINE = ("problem.name=linear", "problem.batch=1", "problem.dim=30", "device=cpu")


def extras(store: Store) -> list[dict[str, Any]]:
    return [as_mapping(value) for value in store.solves()["extra"]]


def test_one_run_scores_every_tolerance(deq: Deq, store: Opened) -> None:
    said = deq(
        "run", "limit", "with", *TANH, "solver.name=broyden", "reltol=[1e-3, 1e-8]", "seed=3"
    )
    assert said.code == 0, said.err
    config = store().run(1)["config"]
    assert (config["problem"]["seed"], config["problem"]["dtype"]) == (3, "float64")
    solves = store().solves()
    assert list(solves["reltol"]) == [1e-3, 1e-8]
    assert set(solves["retcode"]) == {"SUCCESS"}
    for evaluations, found in zip(solves["evaluations"], extras(store()), strict=True):
        assert found["score"] == pytest.approx(evaluations / found["limit"])
        # The limit is asymptotic: a nonlinear solve may need an evaluation less, and no fewer.
        assert evaluations >= found["limit"] - 1
        assert 0 < found["radius"] < 1
        assert found["equivalents"] == evaluations
        assert found["problem"]["scale"] == 0.8
    assert len(store().trace(int(solves["solve_id"].iloc[1]))) == solves["evaluations"].iloc[1]


def test_the_tolerance_is_relative_to_the_first_residual(deq: Deq, store: Opened) -> None:
    assert deq("run", "limit", "with", *LINE, "solver.name=picard", "reltol=1e-4").code == 0
    solve = store().solves().iloc[0]
    assert solve["residual_last"] <= 1e-4 * solve["residual_first"]
    assert solve["residual_relative"] == pytest.approx(
        solve["residual_last"] / solve["residual_first"]
    )


def test_full_memory_anderson_is_at_the_limit_of_a_linear_map(deq: Deq, store: Opened) -> None:
    window = ("solver.name=anderson", "solver.window=100")
    assert deq("run", "limit", "with", *LINE, *window).code == 0
    (found,) = extras(store())
    # GMRES and one evaluation more (Walker and Ni 2011); rounding may cost another one.
    assert found["score"] * found["limit"] <= found["limit"] + 2


def test_products_are_counted_apart(deq: Deq, store: Opened) -> None:
    assert deq("run", "limit", "with", *LINE, "solver.name=newton_krylov").code == 0
    solve = store().solves().iloc[0]
    products = solve["jvps"] + solve["vjps"]
    assert products > 0
    assert extras(store())[0]["equivalents"] == solve["evaluations"] + 2 * products


def test_a_failed_solve_has_a_limit_and_no_score(deq: Deq, store: Opened) -> None:
    said = deq("run", "limit", "with", *TANH, "solver.name=picard", "max_evaluations=3")
    assert said.code == 0
    assert "MAX_EVALUATIONS" in said.out
    (found,) = extras(store())
    assert found["limit"] > 3
    assert found["score"] is None
    assert store().runs()["status"].tolist() == ["COMPLETED"]


def test_a_chain_tells_its_attempts(deq: Deq, store: Opened) -> None:
    assert deq("run", "limit", "with", *TANH).code == 0
    (found,) = extras(store())
    assert found["attempts"][0]["solver"]
    assert sum(a["evaluations"] for a in found["attempts"]) == store().solves()["evaluations"][0]


def test_samples_of_a_batch_are_scored_one_by_one() -> None:
    problem = build({"name": "tanh", "batch": 3, "dim": 20}, seed=1, dtype="float64")
    solution = solvers.solve(
        problem, solvers.Broyden(), reltol=1e-8, max_evaluations=200, scale=first_residual(problem)
    )
    found = scores(problem, solution)
    each = found["samples"]
    counts = solution.stats.sample_evaluations.tolist()
    for score, limit, count in zip(each["score"], each["limit"], counts, strict=True):
        assert score == pytest.approx(count / limit)
    assert found["score"] == sorted(each["score"])[1]


def test_where_nothing_was_solved_the_known_solution_gives_the_limit() -> None:
    problem = build({"name": "linear", "batch": 1, "dim": 30}, seed=0, dtype="float64")
    scale = first_residual(problem)
    failed = solvers.solve(problem, solvers.Picard(), reltol=1e-8, max_evaluations=3, scale=scale)
    assert failed.worst is ReturnCode.MAX_EVALUATIONS
    solved = solvers.solve(
        problem, solvers.Anderson(window=100), reltol=1e-8, max_evaluations=300, scale=scale
    )
    limits = [least_evaluations(problem, solution) for solution in (failed, solved)]
    assert all(found is not None for found in limits)
    values = [float(found[0]) for found in limits if found is not None]
    assert values[0] == values[1]


def test_without_any_equilibrium_there_is_no_limit() -> None:
    from dataclasses import replace

    problem = replace(
        build({"name": "linear", "batch": 1, "dim": 30}, seed=0, dtype="float64"), solutions=()
    )
    failed = solvers.solve(problem, solvers.Picard(), reltol=1e-8, max_evaluations=3)
    found = scores(problem, failed)
    assert (found["limit"], found["score"], found["radius"]) == (None, None, None)
    assert found["equivalents"] == 3


@pytest.mark.parametrize("solver", ["anderson", "broyden", "picard"])
def test_counts_do_not_depend_on_the_run(solver: str) -> None:
    def count() -> int:
        torch.manual_seed(torch.randint(1000, ()).item())
        problem = build({"name": "tanh", "batch": 1, "dim": 20}, seed=4, dtype="float64")
        found = solvers.solve(
            problem,
            solvers.registry.get(solver),
            reltol=1e-8,
            max_evaluations=500,
            scale=first_residual(problem),
        )
        return found.stats.evaluations

    assert count() == count()


MISTAKES: Mapping[str, tuple[str, list[str]]] = {
    "problem": ("problem.name=tahn", ["problem.name", "did you mean 'tanh'"]),
    "problem's option": ("problem.scael=1", ["problem.scael", "did you mean 'scale'"]),
    "problem's range": ("problem.dim=0", ["problem.dim = 0", "greater than or equal to 1"]),
    "problem's seed": ("problem.seed=7", ["problem.seed = 7", "set seed instead"]),
    "root problem": ("problem.name=affine_root", ["problem.name = 'affine_root'", "fixed-point"]),
    "solver": ("solver.name=andersen", ["solver.name", "did you mean 'anderson'"]),
    "window": ("solver={name: anderson, window: 0}", ["solver.window = 0", "equal to 1"]),
    "negative tolerance": ("reltol=-1", ["reltol = -1", "greater than 0"]),
    "zero tolerance": ("reltol=[1e-3, 0]", ["reltol", "greater than 0"]),
    "no tolerance": ("reltol=[]", ["reltol = []"]),
    "evaluations": ("max_evaluations=0", ["max_evaluations = 0"]),
    "dtype": ("dtype=float16", ["dtype = 'float16'", "'float64'"]),
    "device": ("device=cuda:99", ["device = 'cuda:99'"]),
    "key": ("tolerance=1e-3", ["unknown config key 'tolerance'", "reltol"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: list[str]) -> None:
    said = deq("run", "limit", "with", word)
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


def test_the_default_config_is_its_own_completion() -> None:
    config = LimitConfig().completed()
    assert config.completed() == config
    assert config.problem["dtype"] == "float64"
    assert math.isclose(config.tolerances[0], 1e-8)
