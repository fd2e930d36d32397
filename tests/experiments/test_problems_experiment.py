"""The experiment ``problems`` through the command line, small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from said import Deq

import solvers
from db import Store
from experiments.intervals import wilson
from experiments.problems import ProblemsConfig, claims, judge, nearest_roots, sample, solve
from experiments.report.frames import as_mapping
from experiments.runner.config import complete
from solvers import FixedPointProblem, ReturnCode, RootProblem
from solvers.problems import STANDARD
from solvers.problems import registry as problems

Opened = Callable[[], Store]


def extra(store: Store, run: int = 1) -> dict[str, Any]:
    """What the only solve of a run keeps beside its columns."""
    (row,) = store.solves(f"run_id={run}").to_dict("records")
    return as_mapping(row["extra"])


def test_one_run_judges_every_start(deq: Deq, store: Opened) -> None:
    words = ("problem.name=dennis_schnabel", "solver.name=newton", "starts=5", "seed=3")
    said = deq("run", "problems", "with", *words)
    assert said.code == 0, said.err
    config = store().run(1)["config"]
    assert config["problem"]["starts"] == config["starts"] == 5
    assert (config["problem"]["seed"], config["problem"]["dtype"]) == (3, "float64")
    (row,) = store().solves().to_dict("records")
    assert (row["batch"], row["solver"], row["problem"]) == (5, "newton", "dennis_schnabel")
    assert (row["abstol"], row["reltol"], row["norm"]) == (1e-8, 0.0, "linf")
    found = as_mapping(row["extra"])
    assert found["collection"] == "standard"
    assert (found["dim"], found["roots"], found["starts"]) == (2, 2, 5)
    assert found["standard"] == found["per_sample"][0]
    assert found["wilson"] == list(wilson(found["successes"], 5))
    assert found["successes"] == sum(start["met"] for start in found["per_sample"])
    for start in found["per_sample"]:
        assert start["met"] == (start["retcode"] == "SUCCESS")
        if start["met"]:
            assert start["residual"] <= 1e-8
            assert start["root"] in (0, 1)  # (0, 3) and (3, 0): the only ones
            assert start["distance"] < 1e-6
        assert start["claimed"] is None
    assert row["converged"] == found["successes"] / 5


@pytest.mark.parametrize("solver", ["newton", "broyden", "anderson", "scipy_hybr"])
def test_a_start_is_solved_as_if_it_were_alone(solver: str) -> None:
    config = ProblemsConfig(
        **complete(
            ProblemsConfig, {"problem": "broyden_tridiagonal", "solver": solver, "starts": 4}
        )
    )
    problem = problems.build(config.problem)
    method = solvers.registry.build(config.solver)
    solution, products = solve(problem, method, config)
    whole = judge(problem, solution, products, config)
    for index in range(4):
        alone = sample(problem, index)
        solution, products = solve(alone, method, config)
        found = judge(alone, solution, products, config)
        assert found.met == [whole.met[index]]
        assert found.evaluations == [whole.evaluations[index]]
        assert found.products == [whole.products[index]]
        assert found.root == [whole.root[index]]


def test_products_are_those_of_the_columns(deq: Deq, store: Opened) -> None:
    for name in ("newton", "newton_krylov", "scipy_lm"):
        words = ("problem.name=broyden_tridiagonal", f"solver.name={name}", "starts=1")
        assert deq("run", "problems", "with", *words).code == 0
    for run in (1, 2, 3):
        (row,) = store().solves(f"run_id={run}").to_dict("records")
        (start,) = as_mapping(row["extra"])["per_sample"]
        assert start["products"] == row["jvps"] + row["vjps"] > 0
        assert start["evaluations"] == row["evaluations"]


def test_who_is_solved_by_the_first_of_a_chain_pays_for_no_other() -> None:
    chain = {"name": "fallback", "solvers": ["broyden", "newton"]}
    config = ProblemsConfig(
        **complete(ProblemsConfig, {"problem": "freudenstein_roth", "solver": chain})
    )
    problem = problems.build(config.problem)
    solution, products = solve(problem, solvers.registry.build(config.solver), config)
    first, second = solution.attempts
    spared = [evaluations == 0 for evaluations in second.stats.sample_evaluations.tolist()]
    assert spared == (first.retcode == ReturnCode.SUCCESS).tolist()
    assert True in spared and False in spared
    assert [number == 0 for number in products] == spared
    assert max(products) == solution.stats.jvps + solution.stats.vjps


def test_a_claim_is_no_success(deq: Deq, store: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert deq("run", "problems", "with", "solver.name=liar:Liar", "starts=3").code == 0
    found = extra(store())
    assert [start["claimed"] for start in found["per_sample"]] == [True] * 3
    assert (found["successes"], found["false_successes"]) == (0, 3)


def test_what_minpack_claims_by_itself(deq: Deq, store: Opened) -> None:
    # From its standard start every method of descent ends at a local minimum of ‖F‖.
    words = ("problem.name=freudenstein_roth", "solver.name=scipy_lm", "starts=1")
    assert deq("run", "problems", "with", *words).code == 0
    found = extra(store())
    assert found["standard"]["own"] == {"claimed": True, "met": False}
    assert not found["standard"]["met"]
    assert found["false_successes"] == 1


def test_who_raises_loses_one_trial(deq: Deq, store: Opened) -> None:
    place = Path(__file__).parent / "liar.py"
    Path("mine.yaml").write_text(
        "experiment: problems\nbase: {starts: 2}\ngrid:\n"
        f"  - solver.name: ['{place}:Absent', newton]\n    problem.name: [boggs]\n"
    )
    said = deq("study", "mine.yaml")
    assert said.code == 1
    assert "no such package" in said.out
    assert sorted(store().runs()["status"]) == ["COMPLETED", "FAILED"]


@pytest.mark.parametrize("solver", ["broyden", "scipy_df_sane"])
def test_the_time_ends_a_trial_and_the_starts_say_so(deq: Deq, store: Opened, solver: str) -> None:
    words = (f"solver.name={solver}", "problem.name=trigonometric", "starts=3")
    assert deq("run", "problems", "with", *words, "max_seconds=1e-7").code == 0
    assert {s["retcode"] for s in extra(store())["per_sample"]} == {"MAX_SECONDS"}


def test_a_problem_without_starts_takes_them_for_its_batch(deq: Deq, store: Opened) -> None:
    words = ("problem.name=tanh", "problem.dim=6", "solver.name=anderson", "starts=3")
    assert deq("run", "problems", "with", *words).code == 0
    found = extra(store())
    assert (found["collection"], found["starts"], found["successes"]) == ("other", 3, 3)


def test_which_root_is_near() -> None:
    roots = (torch.tensor([[0.0, 3.0]]), torch.tensor([[3.0, 0.0]]))
    problem = RootProblem(lambda z: z, torch.zeros(3, 2), solutions=roots)
    value = torch.tensor([[3.0, 1e-3], [0.0, 3.0], [9.0, 9.0]])
    number, distance = nearest_roots(problem, value)
    assert number == [1, 0, None]
    assert distance == pytest.approx([1e-3, 0.0, 9.0])
    lost = torch.tensor([[float("nan"), 0.0]]).expand(3, 2)
    assert nearest_roots(problem, lost) == ([None] * 3, [None] * 3)


def test_the_residual_is_evaluated_again() -> None:
    config = ProblemsConfig(starts=2)
    z0 = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    honest = FixedPointProblem(torch.cos, z0)
    solution, products = solve(honest, solvers.Newton(), config)
    assert judge(honest, solution, products, config).met == [True, True]
    # The same answers are none of another problem's, whatever the solution says.
    other = FixedPointProblem(torch.sin, z0)
    assert solution.success
    assert judge(other, solution, products, config).met == [False, False]
    assert claims(solution) == [None, None]


def test_every_standard_problem_is_in_the_study() -> None:
    from experiments import studies

    (block,) = studies.find("problems").grid
    names = [p if isinstance(p, str) else p["name"] for p in block["problem"]]
    assert names[: len(STANDARD)] == list(STANDARD)


MISTAKES = {
    "problem": ("problem.name=powel_singular", ["problem.name", "did you mean 'powell_singular'"]),
    "its option": ("problem.sprad=3", ["problem.sprad", "did you mean 'spread'"]),
    "solver": ("solver.name=newtn", ["solver.name", "did you mean 'newton'"]),
    "starts": ("starts=0", ["starts = 0", "greater than or equal to 1"]),
    "spread": ("spread=-1", ["spread = -1"]),
    "norm": ("norm=l1", ["norm = 'l1'", "'linf'"]),
    "no tolerance": ("abstol=0", ["abstol = 0", "reltol"]),
    "key": ("strats=3", ["strats", "did you mean 'starts'"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: list[str]) -> None:
    said = deq("run", "problems", "with", word)
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err
