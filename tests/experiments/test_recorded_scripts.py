"""Plain scripts and foreign Sacred experiments: whatever they solve is in the store."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from sacred import Experiment

import solvers
from db import Store, StoreError
from experiments.runner.recording import attach, record
from implicit import DEQ
from solvers import Anderson, Broyden, FixedPointProblem, Picard

Opened = Callable[[], Store]


def problem() -> FixedPointProblem:
    return FixedPointProblem(
        lambda z, x: torch.cos(z) / 2 + x, torch.zeros(3, 2), (torch.ones(3, 2),)
    )


class Cell(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(0.3 * torch.eye(4))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ self.W.T + x)


def test_every_solve_of_a_script_is_recorded(workplace: Path, store: Opened) -> None:
    with record(name="script", config={"width": 4, "seed": 7}, study="mine") as recorder:
        layer = DEQ(Cell(), solver=Broyden(), name="first")
        layer(torch.ones(3, 4)).sum().backward()
        solvers.solve(problem(), Picard())
        recorder.scalar("loss", 0.5, 3)
        recorder.gradient(method="implicit", rel_err=0.25)
    solvers.solve(problem(), Anderson())  # after the block: not recorded
    runs, solves = store().runs(), store().solves()
    assert runs.iloc[0][["experiment", "study", "status", "seed"]].tolist() == [
        "script", "mine", "COMPLETED", 7,
    ]  # fmt: skip
    assert list(solves["phase"]) == ["forward", "adjoint", "forward"]
    assert list(solves["solver"]) == ["broyden", "gmres", "picard"]
    assert list(solves["site"]) == ["first", "first", ""]
    assert len(store().trace(int(solves["solve_id"].iloc[2]))) > 2
    assert store().series()[["name", "value", "step"]].to_numpy().tolist() == [["loss", 0.5, 3.0]]
    assert store().gradients()["rel_err"].tolist() == [0.25]
    assert store().config(1) == {"width": 4, "seed": 7}
    assert store().run(1)["environment"]["torch"] == torch.__version__


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ArithmeticError("not today")


@pytest.mark.parametrize(
    ("end", "status"),
    [(terminate, "TERMINATED"), (interrupt, "INTERRUPTED"), (fail, "FAILED")],
)
def test_how_a_script_ends(
    workplace: Path, store: Opened, end: Callable[[], None], status: str
) -> None:
    with pytest.raises(BaseException, match=r"SIGTERM|not today|^$"), record(name="script"):
        solvers.solve(problem(), Picard())
        end()
    run = store().run(1)
    assert run["status"] == status
    assert run["counts"]["solves"] == 1
    if status == "FAILED":
        assert "not today" in run["fail_trace"]
        assert "Traceback" in run["fail_trace"]


def test_what_is_refused(workplace: Path) -> None:
    with pytest.raises(ValueError, match="a run needs a name"), record(name=" "):
        pass
    with pytest.raises(StoreError, match="does not exist"), record("/no/such/x.db", name="a"):
        pytest.fail("the block must not run")
    with pytest.raises(TypeError, match="recorded already"):
        attach(tiny.experiment)
    with pytest.raises(TypeError, match=r"expected a sacred\.Experiment, got int"):
        attach(3)  # type: ignore[arg-type]


def test_two_scripts_do_not_hear_each_other_after_their_ends(
    workplace: Path, store: Opened
) -> None:
    for name in ("first", "second"):
        with record(name=name):
            solvers.solve(problem(), Picard())
    assert store().solves()["run_id"].tolist() == [1, 2]


def foreign(main: Callable[[Any], Any]) -> Experiment:
    made = Experiment("theirs", save_git_info=False, interactive=True)
    made.add_config({"solver": {"name": "anderson"}, "seed": 3})
    made.main(main)
    return made


def test_a_foreign_experiment_is_recorded_with_its_solves(workplace: Path, store: Opened) -> None:
    def main(_run: Any) -> float:
        _run.log_scalar("loss", 1.5)
        solvers.solve(problem(), Anderson())
        return 2.0

    theirs = attach(foreign(main))
    options = {"--loglevel": "ERROR"}
    for _ in range(2):
        assert theirs.run(options=options).status == "COMPLETED"
    assert theirs.run(options={**options, "--unobserved": True}).status == "COMPLETED"
    runs = store().runs()
    assert runs["experiment"].tolist() == ["theirs"] * 2
    assert runs["solver"].tolist() == ["anderson"] * 2
    assert runs["result_value"].tolist() == [2.0, 2.0]
    assert store().solves()["run_id"].tolist() == [1, 2]
    assert store().series()["value"].tolist() == [1.5, 1.5]


def test_a_foreign_experiment_that_fails_ends_listening(workplace: Path, store: Opened) -> None:
    def main(_run: Any) -> None:
        solvers.solve(problem(), Anderson())
        raise ArithmeticError("theirs")

    with pytest.raises(ArithmeticError):
        attach(foreign(main)).run(options={"--loglevel": "CRITICAL"})
    solvers.solve(problem(), Anderson())
    assert store().runs()["status"].tolist() == ["FAILED"]
    assert len(store().solves()) == 1
