import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

import solvers
from db import Store
from experiments.runner.recording import run_experiment
from experiments.runner.rows import solve_row
from solvers import Broyden, FixedPointProblem, as_config
from solvers.options import OptionError

Opened = Callable[[], Store]


def test_a_run_is_in_the_store_with_all_that_it_measured(workplace: Path, store: Opened) -> None:
    told: list[tuple[int, str]] = []
    outcome = run_experiment(
        tiny.experiment,
        {"reltol": [1e-2, 1e-4], "solver.name": "broyden"},
        study="mine",
        trial="abc",
        on_start=lambda run_id, uuid: told.append((run_id, uuid)),
    )
    assert outcome.status == "COMPLETED"
    assert told == [(outcome.run_id, outcome.uuid)]
    run = store().run(outcome.run_id)
    assert run["uuid"] == outcome.uuid
    assert (run["study"], run["trial"], run["seed"]) == ("mine", "abc", 0)
    assert run["config"]["solver"] == as_config(Broyden())
    assert run["result_value"] == outcome.result
    assert "solving with broyden" in run["output"]
    assert run["environment"]["torch"] == torch.__version__
    assert set(run["code"]["sources"]) == {"tiny.py"}
    solves = store().solves(f"run_id={outcome.run_id}")
    assert list(solves["outer_step"]) == [0, 1]
    assert set(solves["solver"]) == {"broyden"}
    assert list(solves["retcode"]) == ["SUCCESS", "SUCCESS"]
    assert list(solves["extra"]) == [{"tries": 1}] * 2 or json.loads(solves["extra"][0])
    trace = store().trace(int(solves["solve_id"].iloc[1]))
    assert len(trace) == solves["evaluations"].iloc[1]
    assert trace["residual"].iloc[0] == solves["residual_first"].iloc[1]
    gradients = store().gradients()
    assert list(gradients["solve_id"]) == list(solves["solve_id"])
    points = store().series()
    assert list(points["value"]) == pytest.approx(list(solves["residual_last"]))


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("raise", "FAILED", "ArithmeticError: this trial always raises"),
        ("misuse", "FAILED", "TypeError"),
        ("terminate", "TERMINATED", "Terminated: SIGTERM"),
    ],
)
def test_how_a_run_ends_is_recorded(
    workplace: Path, store: Opened, what: str, status: str, error: str
) -> None:
    outcome = run_experiment(tiny.experiment, {"what": what})
    assert outcome.status == status
    assert error in outcome.error
    run = store().run(outcome.run_id)
    assert run["status"] == status
    assert "solving with anderson" in run["output"]
    if status == "FAILED":
        assert error.split(":")[0] in run["fail_trace"]
        assert run["fail_type"] == error.split(":")[0]
    assert len(store().solves()) == 1  # what was measured before stays


def test_every_solve_of_a_block_can_be_recorded(workplace: Path, store: Opened) -> None:
    outcome = run_experiment(tiny.experiment, {"what": "observe"})
    assert outcome.status == "COMPLETED", outcome.error
    solves = store().solves()
    assert list(solves["solver"]) == ["anderson", "picard", "broyden"]
    assert list(solves["outer_step"]) == [0, 7, 7]


@pytest.mark.parametrize("what", ["interrupt", "muddle"])
def test_ctrl_c_is_recorded(what: str, workplace: Path, store: Opened) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny.experiment, {"what": what})
    assert list(store().runs()["status"]) == ["INTERRUPTED"]


def test_what_a_failing_run_printed_last_is_kept(workplace: Path, store: Opened) -> None:
    outcome = run_experiment(tiny.experiment, {"what": "raise"})
    assert "about to raise" in store().run(outcome.run_id)["output"]


def test_a_refused_config_leaves_nothing(workplace: Path) -> None:
    with pytest.raises(OptionError, match=r"solver\.windw"):
        run_experiment(tiny.experiment, {"solver.windw": 3})
    assert not list(workplace.iterdir())


def test_runs_of_one_experiment_do_not_mix(workplace: Path, store: Opened) -> None:
    first = run_experiment(tiny.experiment, {"seed": 1})
    second = run_experiment(tiny.experiment, {"seed": 2})
    assert [store().run(o.run_id)["seed"] for o in (first, second)] == [1, 2]
    assert list(store().solves()["run_id"]) == [first.run_id, second.run_id]


def test_the_url_of_the_store_is_not_kept(workplace: Path, store: Opened) -> None:
    outcome = run_experiment(tiny.experiment, {}, store=str(workplace / "store.db"))
    assert "store.db" not in json.dumps(store().run(outcome.run_id)["meta"])


def test_an_unobserved_run_measures_and_stores_nothing(workplace: Path) -> None:
    run = tiny.experiment.run(options={"--unobserved": True})
    assert run.result is not None
    assert not list(workplace.iterdir())


def test_the_row_of_a_solve() -> None:
    x = torch.rand(4, 3, dtype=torch.float64)
    problem = FixedPointProblem(
        lambda z, x: 0.4 * torch.cos(z) + x, torch.zeros_like(x), args=(x,), name="cosine"
    )
    solution = solvers.solve(problem, solvers.Anderson(window=4), reltol=1e-6, abstol=1e-9)
    row = solve_row(solution)
    assert (row["problem"], row["solver"], row["phase"]) == ("cosine", "anderson", "forward")
    assert row["options"]["window"] == 4
    assert "name" not in row["options"]
    assert row["retcodes"] == {"SUCCESS": 4}
    assert row["converged"] == 1.0
    assert (row["batch"], row["dim"], row["dtype"]) == (4, 3, "float64")
    assert (row["reltol"], row["abstol"], row["norm"]) == (1e-6, 1e-9, "l2")
    assert row["residual_last"] == float(solution.residual.max())
    assert row["residual_min"] <= row["residual_last"] <= row["residual_first"]
    assert row["residual_relative"] == float((solution.residual / solution.scale).max())
    assert row["sample_evaluations"] == int(solution.stats.sample_evaluations.sum())
    assert all(column.ndim == 1 for column in row["trace"].values())


@pytest.mark.parametrize("trace", ["per_sample", None])
def test_the_row_of_a_solve_with_another_trace(trace: str | None) -> None:
    z0 = torch.zeros(2, 3)
    problem = FixedPointProblem(lambda z: 0.5 * torch.cos(z), z0)
    row = solve_row(solvers.solve(problem, solvers.Picard(), trace=trace))  # type: ignore[arg-type]
    if trace is None:
        assert row["trace"] is None
        assert row["residual_first"] is None
    else:
        assert row["trace"]["residual"].ndim == 1
        assert row["residual_first"] > row["residual_last"]
    assert row["residual_min"] is not None
