import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from said import Deq

from db import Store, StoreError
from experiments.runner.engines import Kind, LocalProcesses

HERE = Path(__file__).parent
Opened = Callable[[], Store]

STUDY = """\
experiment: tiny:experiment
grid:
  - solver.name: [picard, broyden]
  - what: [raise, die]
  - solver.name: [newton]
"""


def test_a_failure_and_a_death_lose_one_trial_each(deq: Deq, store: Opened) -> None:
    Path("mine.yaml").write_text(STUDY)
    said = deq("study", "mine.yaml")
    assert said.code == 1
    assert "5 trials, 0 done already, 5 to run" in said.out
    assert "[5/5] COMPLETED newton" in said.out
    assert "this trial always raises" in said.out
    assert "killed by SIGKILL" in said.out
    runs = store().runs()
    assert sorted(runs["status"]) == ["COMPLETED"] * 3 + ["DIED", "FAILED"]
    assert set(runs["study"]) == {"mine"}
    died = runs[runs["status"] == "DIED"].iloc[0]
    assert "SIGKILL" in died["fail_message"]
    assert len(store().solves(f"run_id={died['id']}")) == 1  # measured before it died

    # again: only what is missing
    repaired = STUDY.replace("[raise, die]", "[raise]")
    Path("mine.yaml").write_text(repaired)
    again = deq("study", "mine.yaml", "--dry-run")
    assert again.code == 0
    assert "4 trials, 3 done already, 1 to run" in again.out
    assert "FAILED" in again.out

    # an override is another trial
    dry = deq("study", "mine.yaml", "--dry-run", "with", "what=solve", "reltol=1e-2")
    assert "4 trials, 0 done already, 4 to run" in dry.out


def test_the_short_form_of_a_study(deq: Deq) -> None:
    Path("mine.yaml").write_text(
        "experiment: tiny:experiment\ngrid: [{seed: [0, 1, 2]}]\nquick: {grid: [{seed: [5]}]}\n"
    )
    short = deq("study", "mine.yaml", "--dry-run", "with", "quick=true")
    assert short.code == 0
    assert "study mine-quick: 1 trials" in short.out
    assert "3 to run" in deq("study", "mine.yaml", "--dry-run", "with", "quick=false").out
    wrong = deq("study", "mine.yaml", "with", "quick=soon")
    assert wrong.code == 2
    assert "quick = 'soon'" in wrong.err


def test_an_edited_file_of_the_users_runs_again(deq: Deq) -> None:
    Path("mine.py").write_text("from solvers import Picard\n\nclass Mine(Picard):\n    pass\n")
    Path("mine.yaml").write_text("experiment: tiny:experiment\nbase: {solver.name: mine.py:Mine}\n")
    assert "0 done already" in deq("study", "mine.yaml", "--workers", "2").out
    assert "1 done already" in deq("study", "mine.yaml", "--dry-run").out
    with Path("mine.py").open("a") as file:
        file.write("# better\n")
    assert "SOURCE CHANGED" in deq("study", "mine.yaml", "--dry-run").out


def test_an_edited_file_that_it_imports_runs_again(deq: Deq) -> None:
    Path("mine_2.py").write_text("from parts_2 import Picard\n\nclass Mine(Picard):\n    pass\n")
    Path("parts_2.py").write_text("from solvers import Picard\n")
    Path("mine.yaml").write_text(
        "experiment: tiny:experiment\nbase: {solver.name: mine_2.py:Mine}\n"
    )
    assert deq("study", "mine.yaml").code == 0
    assert "1 done already" in deq("study", "mine.yaml", "--dry-run").out
    with Path("parts_2.py").open("a") as file:
        file.write("# better\n")
    assert "SOURCE CHANGED" in deq("study", "mine.yaml", "--dry-run").out


def wait_for(true: Callable[[], bool], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


@pytest.fixture
def study_process(workplace: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        script = "import sys; from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
        environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", script, *words],
            cwd=workplace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a terminal's ctrl-C goes to the group
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("to", ["group", "parent"])
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(
    workplace: Path, study_process: Callable[..., "subprocess.Popen[str]"], to: str
) -> None:
    (workplace / "mine.yaml").write_text(
        "experiment: tiny:experiment\ngrid: [{what: [solve, wait, die]}]\n"
    )
    process = study_process("study", "mine.yaml")
    database = workplace / "store.db"

    def waiting() -> bool:
        try:
            # Not the trial before it, which ends by itself.
            return len(Store(str(database)).runs("status=RUNNING and what=wait")) > 0
        except StoreError:  # not made yet
            return False

    wait_for(lambda: process.poll() is not None or waiting())
    if to == "group":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert "the same command goes on" in out
    assert "mine.yaml" in out
    statuses = list(Store(str(database)).runs()["status"])
    assert statuses[-1] == "INTERRUPTED"
    assert "RUNNING" not in statuses


def test_an_engine_tells_all_and_reuses_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    specs = {str(i): {"do": do} for i, do in enumerate(["a", "raise", "exit", "b", "c"])}
    events = list(LocalProcesses(1).imap("echo:echo", specs))
    ends = {e.key: e for e in events if e.kind not in (Kind.STARTED, Kind.REPORTED)}
    assert [ends[key].kind for key in sorted(ends)] == [
        Kind.RETURNED, Kind.RAISED, Kind.DIED, Kind.RETURNED, Kind.RETURNED,
    ]  # fmt: skip
    assert ends["0"].value == ("1", "a")
    assert ends["1"].value.type == "ValueError"
    assert "exit code 3" in ends["2"].value
    pids = [e.value for e in events if e.kind is Kind.REPORTED]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]
