"""Plain scripts and foreign Sacred experiments: whatever they solve is in the store."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from sacred import Experiment
from said import Deq

import solvers
from db import Store, StoreError, journal, outbox
from experiments.runner.interrupts import Termination
from experiments.runner.recording import Terminated, attach, record, run_experiment
from implicit import DEQ
from solvers import Anderson, Broyden, FixedPointProblem, Picard
from solvers.options import OptionError

QUIET = {"--loglevel": "CRITICAL"}
NOWHERE = "postgresql://nobody@127.0.0.1:1/runs"  # nobody listens there

Opened = Callable[[], Store]


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged, whatever an earlier test told Sacred about logging."""
    caplog.set_level(logging.WARNING)


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


def muddle() -> None:  # as when the signal falls into Event.wait
    try:
        interrupt()
    finally:
        threading.Lock().release()


def fail() -> None:
    raise ArithmeticError("not today")


def translate() -> None:
    try:
        interrupt()
    except KeyboardInterrupt:
        raise ArithmeticError("not today") from None


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (terminate, "TERMINATED"),
        (interrupt, "INTERRUPTED"),
        (muddle, "INTERRUPTED"),
        (fail, "FAILED"),
        (translate, "FAILED"),
    ],
)
def test_how_a_script_ends(
    workplace: Path, store: Opened, end: Callable[[], None], status: str
) -> None:
    with (
        pytest.raises(BaseException, match=r"SIGTERM|not today|unlocked|^$"),
        record(name="script"),
    ):
        solvers.solve(problem(), Picard())
        end()
    run = store().run(1)
    assert run["status"] == status
    assert run["counts"]["solves"] == 1
    if status == "FAILED":
        assert "not today" in run["fail_trace"]
        assert "Traceback" in run["fail_trace"]


def test_what_is_refused(workplace: Path) -> None:
    for name in (" ", "", 3, None):
        with pytest.raises(ValueError, match="a run needs a name"):
            record(name=name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="config is of type list: expected a mapping"):
        record(name="a", config=["width"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\['train'\] = 'no.npz' cannot be read \(No such"):
        record(name="a", data={"train": "no.npz"})
    with pytest.raises(TypeError, match=r"data\['n'\] is of type int"):
        record(name="a", data={"n": 3})  # type: ignore[dict-item]
    assert not list(workplace.iterdir())
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


def test_each_solve_is_of_the_innermost_block(workplace: Path, store: Opened) -> None:
    with record(name="outer") as outer:
        solvers.solve(problem(), Picard())
        with record(name="inner"):
            solvers.solve(problem(), Anderson())
        with outer.observing(outer_step=4) as heard:
            solvers.solve(problem(), Broyden())
        assert [place for place, _ in heard] == [1]
        solvers.solve(problem(), Picard())
    frame = store().solves()
    assert frame[["run_id", "solver"]].to_numpy().tolist() == [
        [1, "picard"], [1, "broyden"], [1, "picard"], [2, "anderson"],
    ]  # fmt: skip
    assert frame["outer_step"].fillna(-1).tolist() == [-1, 4, -1, -1]


def test_solves_of_a_pool_are_of_the_block_around(workplace: Path, store: Opened) -> None:
    def solve(_: int) -> int:
        return solvers.solve(problem(), Picard()).stats.evaluations

    with record(name="pool"), ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(solve, range(20)))
    frame = store().solves()
    assert sorted(frame["ord"]) == list(range(20))
    assert frame["evaluations"].tolist() == counts


def test_blocks_of_several_threads_are_kept_apart(
    workplace: Path, store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(3)

    def run(solver: Any, name: str) -> None:
        with record(name=name):
            for _ in range(5):
                together.wait()
                solvers.solve(problem(), solver)
                print(name, flush=True)
            together.wait()
            together.wait()  # until the main thread has solved

    threads = [
        threading.Thread(target=run, args=each)
        for each in ((Picard(), "first"), (Anderson(), "second"))
    ]
    before = sys.stdout, sys.stderr
    for thread in threads:
        thread.start()
    for _ in range(6):
        together.wait()
    solvers.solve(problem(), Broyden())  # of a thread that has no block
    together.wait()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr) == before
    frame, runs = store().solves(), store().runs()
    solved = frame.merge(runs, left_on="run_id", right_on="id")
    pairs = solved.groupby(["experiment_x", "solver_x"]).size().to_dict()
    assert pairs.pop(("first", "picard")) == 5
    assert pairs.pop(("second", "anderson")) == 5
    assert sum(pairs.values()) == 1  # somewhere, with a word
    assert "record them in processes of their own" in caplog.text


class Unspeakable:
    def __str__(self) -> str:
        raise ArithmeticError("no name")


def test_a_solve_that_cannot_be_recorded_is_as_good_as_any(
    workplace: Path, store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    with record(name="script"):
        odd = problem()
        object.__setattr__(odd, "name", Unspeakable())
        assert solvers.solve(odd, Picard()).success
        assert solvers.solve(odd, Picard()).success
        solvers.solve(problem(), Picard())
    assert store().runs()["status"].tolist() == ["COMPLETED"]
    assert len(store().solves()) == 1
    assert "a solve could not be recorded" in caplog.text
    assert "2 solves in all could not be recorded" in caplog.text


def test_a_column_that_is_none_is_refused_at_once(workplace: Path) -> None:
    with record(name="script") as recorder:
        with (
            pytest.raises(TypeError, match="unknown key 'outer_stp'; did you mean 'outer_step'"),
            recorder.observing(outer_stp=1),
        ):
            pytest.fail("the block must not run")
        with pytest.raises(TypeError, match="unknown key 'rel_er'"):
            recorder.gradient(rel_er=0.1)


def test_torchdeqs_solvers_are_recorded_through_our_extension(
    workplace: Path, store: Opened
) -> None:
    pytest.importorskip("torchdeq", reason="needs the extra 'peers'")
    names = [name for name in solvers.registry.names() if name.startswith("torchdeq_")]
    assert len(names) >= 3
    with record(name="peers"):
        counts = []
        for name in names:
            solver = solvers.registry.get(name)
            counts.append(solvers.solve(problem(), solver, reltol=1e-4).stats.evaluations)
        layer = DEQ(Cell(), solver=solvers.registry.get("torchdeq_anderson"))
        layer(torch.ones(3, 4)).sum().backward()
    frame = store().solves()
    assert frame["solver"].tolist() == [*names, "torchdeq_anderson", "gmres"]
    assert frame["evaluations"].tolist()[: len(names)] == counts
    assert all(len(store().trace(int(n))) for n in frame["solve_id"])


def test_what_a_script_prints_is_kept(
    workplace: Path, store: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout, sys.stderr
    with record(name="script") as recorder:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        assert sys.stdout.isatty() is False  # whatever else a stream can do
        thread = threading.Thread(target=print, args=("of a thread",))
        thread.start()
        thread.join()
        recorder.info["loss"] = [1.0, float("nan")]
    print("afterwards")
    with record(name="silent", output=False):
        print("not kept")
    assert (sys.stdout, sys.stderr) == before
    said = capsys.readouterr()
    assert said.out == "to stdout\nof a thread\nafterwards\nnot kept\n"
    assert said.err == "to stderr\n"
    first, second = store().run(1), store().run(2)
    assert first["output"] == "to stdout\nto stderr\nof a thread\n"
    assert str(first["info"]["loss"]) == "[1.0, nan]"
    assert second["output"] == ""


@pytest.mark.parametrize(("code", "status"), [(None, "COMPLETED"), (0, "COMPLETED"), (3, "FAILED")])
def test_sys_exit_says_how_a_script_ended(
    workplace: Path, store: Opened, code: int | None, status: str
) -> None:
    with pytest.raises(SystemExit), record(name="script"):
        sys.exit(code)
    assert store().runs()["status"].tolist() == [status]


def test_the_page_about_it_is_right(workplace: Path, store: Opened) -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (shown,) = [block for block in blocks if "with record(" in block]
    (workplace / "train.npz").write_bytes(b"data")
    layer = DEQ(Cell(), solver=Broyden())
    for _ in range(2):
        exec(shown, {"__name__": __name__, "layer": layer, "x": torch.ones(3, 4)})
    frame = store().solves("run_id=1")
    assert frame["phase"].tolist() == ["forward", "adjoint", "forward"]
    assert frame["outer_step"].fillna(-1).tolist() == [-1, -1, 1]
    assert store().run(1)["info"] == {"note": "whatever else should be known"}
    (asked,) = [block for block in blocks if "Store().file(" in block]
    assert Path(__file__).name in store().run(1)["code"]["sources"]
    for old, new in (("12", "1"), ("17", "2"), ("mymodel.py", Path(__file__).name)):
        asked = asked.replace(old, new)
    exec(asked, {})


SCRIPT = """\
import multiprocessing, os, signal, sys
import torch
import solvers
from helper import problem
from experiments.runner.recording import record

def child():
    solvers.solve(problem(), solvers.Picard())

def handler(number, frame):
    print("the handler of before")

if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, handler)
    with record(name="mine", config={"seed": 3}, data={"train": "train.bin"}):
        if (pid := os.fork()) == 0:
            sys.exit(7)  # out of the block, of which the parent is still in the midst
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        fork = multiprocessing.get_context("fork").Process(target=child)
        fork.start()
        fork.join()
        assert fork.exitcode == 0
        solvers.solve(problem(), solvers.Anderson())
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
"""

HELPER = """\
import torch
from solvers import FixedPointProblem

def problem():
    x = torch.ones(3, 2)
    return FixedPointProblem(lambda z, x: torch.cos(z) / 2 + x, torch.zeros(3, 2), (x,))
"""


def test_a_script_with_all_that_makes_it_up(workplace: Path, store: Opened) -> None:
    (workplace / "script.py").write_text(SCRIPT)
    (workplace / "helper.py").write_text(HELPER)
    (workplace / "train.bin").write_bytes(b"data")
    ended = subprocess.run(
        [sys.executable, "script.py", "--width=3", "postgresql://me:secret@host/x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Terminated: SIGTERM" in ended.stderr
    run = store().run(1)
    assert run["status"] == "TERMINATED"
    assert run["output"] == "the handler of before\n"
    assert run["counts"]["solves"] == 1  # none of the fork's
    assert run["code"]["mainfile"] == "script.py"
    assert run["code"]["base_dir"] == str(workplace)
    assert run["code"]["sources"] == {
        name: hashlib.sha256(text.encode()).hexdigest()
        for name, text in (("script.py", SCRIPT), ("helper.py", HELPER))
    }
    assert store().file(1, "helper.py").decode() == HELPER
    assert run["meta"]["argv"] == ["script.py", "--width=3", "postgresql://me:***@host/x"]
    data = run["meta"]["data"]["train"]
    assert data["sha256"] == hashlib.sha256(b"data").hexdigest()
    assert (data["size"], data["path"]) == (4, str(workplace / "train.bin"))


def test_checksums_of_data_of_every_kind(workplace: Path, store: Opened) -> None:
    known = "AB" * 32
    tensor = torch.arange(3.0)
    given: dict[str, Any] = {"known": known, "bytes": b"x", "tensor": tensor, "again": tensor * 1}
    with record(name="script", data=given):
        pass
    data = store().run(1)["meta"]["data"]
    assert data["known"] == {"sha256": known.lower()}
    assert data["bytes"]["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert data["tensor"] == data["again"]
    with record(name="script", data={"tensor": tensor + 1}):
        pass
    assert store().run(2)["meta"]["data"]["tensor"] != data["tensor"]


def test_sigterm_that_is_ignored_stays_ignored(workplace: Path, store: Opened) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with record(name="script"):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert store().runs()["status"].tolist() == ["COMPLETED"]


def test_handlers_are_put_back(workplace: Path) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Terminated), record(name="outer"), record(name="inner"):
            signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_while_the_end_is_recorded_waits(workplace: Path) -> None:
    asked: list[bool] = []
    recorded = False
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(recorded))
    try:
        with Termination() as signals:
            signals.ending = True
            signal.raise_signal(signal.SIGTERM)
            assert not asked
            recorded = True
        assert asked == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_while_the_store_is_away_a_script_goes_on_and_an_experiment_does_not_begin(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    monkeypatch.setenv("DEQ_JOURNAL", str(workplace / "journal"))
    monkeypatch.setattr(outbox, "PATIENCE", 0.1)
    with pytest.raises(StoreError, match="refused"), record(NOWHERE, name="a", require_store=True):
        pytest.fail("the block must not run")
    with pytest.raises(StoreError, match="refused"):
        run_experiment(tiny.experiment, {}, store=NOWHERE)
    assert journal.waiting(NOWHERE) == []
    with record(NOWHERE, name="script") as recorder:
        solvers.solve(problem(), Picard())
        assert recorder.run_id is None
    (pending,) = journal.waiting(NOWHERE)
    assert pending.header["uuid"] == recorder.uuid
    told: list[tuple[int | None, str]] = []
    outcome = run_experiment(
        tiny.experiment,
        {},
        store=NOWHERE,
        require_store=False,
        on_start=lambda *known: told.append(known),
    )
    assert outcome.status == "COMPLETED"
    assert outcome.run_id is None
    assert told == [(None, outcome.uuid)]
    assert len(journal.waiting(NOWHERE)) == 2
    assert "deq db sync" in caplog.text


HOSTILE = "!!python/object/apply:os.system ['touch hacked']"


def test_hostile_configs_are_text_or_refused(workplace: Path, store: Opened, deq: Deq) -> None:
    config: dict[Any, Any] = {
        "yaml": HOSTILE,
        "'; drop table run; --": "'; drop table run; --",
        "a.b": {"": 1, "x\0y": "\ud800"},
        3: {"deep": [{"er": {"set": {1}}}]},
        "py/object": "os.system",
        "long": "x" * 10_000_000,
        "seed": 2**70,
    }
    with record(name="'; drop table run; --", config=config, study=HOSTILE):
        solvers.solve(problem(), Picard())
    cycle: dict[str, Any] = {"width": 3}
    cycle["self"] = cycle
    with record(name="cycle", config=cycle):
        pass
    once = store().config(2)["self"]
    assert once["width"] == 3 and "'width': 3" in once["self"], "a cycle ends as text"
    run = store().run(1)
    assert (run["status"], run["study"]) == ("COMPLETED", HOSTILE)
    assert run["experiment"] == "'; drop table run; --"
    assert run["config"]["yaml"] == HOSTILE
    assert len(run["config"]["long"]) == 10_000_000
    assert run["counts"]["solves"] == 1
    for line in (f"solver: {HOSTILE}", f"{HOSTILE}: 1", f"notes: {HOSTILE}"):
        (workplace / "evil.yaml").write_text(line)
        said = deq("run", "compare", "with", "evil.yaml")
        assert said.code == 2
        assert "cannot read the config file 'evil.yaml'" in said.err
    with pytest.raises(OptionError):
        run_experiment(tiny.experiment, {"solver": {"py/reduce": [{"py/type": "os.system"}]}})
    assert run_experiment(tiny.experiment, {"notes": HOSTILE}).status == "COMPLETED"
    assert store().run(3)["config"]["notes"] == HOSTILE
    assert not (workplace / "hacked").exists()


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
    for _ in range(2):
        assert theirs.run(options=QUIET).status == "COMPLETED"
    assert theirs.run(options={**QUIET, "--unobserved": True}).status == "COMPLETED"
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
        attach(foreign(main)).run(options=QUIET)
    solvers.solve(problem(), Anderson())
    assert store().runs()["status"].tolist() == ["FAILED"]
    assert len(store().solves()) == 1


@pytest.mark.parametrize("given", [0, "0", "-1", "nan", "inf", "soon"])
def test_a_run_without_a_heartbeat_is_refused(workplace: Path, given: object) -> None:
    theirs = attach(foreign(lambda _run: None))
    for experiment in (theirs, tiny.experiment):
        with pytest.raises(OptionError, match=r"--beat-interval .*: expected a number of seconds"):
            experiment.run(options={**QUIET, "--beat-interval": given})
    assert not list(workplace.iterdir())


def test_a_heartbeat_is_recorded_with_its_interval(workplace: Path, store: Opened) -> None:
    theirs = attach(foreign(lambda _run: None))
    theirs.run(options=QUIET)
    theirs.run(options={**QUIET, "--beat-interval": "0.5"})
    run_experiment(tiny.experiment, {})
    with record(name="script"):
        pass
    assert [store().run(n)["beat_interval"] for n in (1, 2, 3, 4)] == [5.0, 0.5, 5.0, 5.0]


def test_sigterm_ends_a_foreign_run_as_terminated(workplace: Path, store: Opened) -> None:
    def main(_run: Any) -> None:
        _run.log_scalar("loss", 1.5)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated):
        attach(foreign(main)).run(options=QUIET)
    assert signal.getsignal(signal.SIGTERM) is before
    assert store().runs()["status"].tolist() == ["TERMINATED"]
    assert store().series()["value"].tolist() == [1.5]


def test_a_second_run_of_an_experiment_at_a_time_is_refused(workplace: Path, store: Opened) -> None:
    going, asked = threading.Event(), threading.Event()

    def main(_run: Any, seed: int) -> int:
        going.set()
        assert asked.wait(60)
        return seed

    theirs = Experiment("theirs", save_git_info=False, interactive=True)
    theirs.add_config({"seed": 7})
    theirs.main(main)
    attach(theirs)
    options = {**QUIET, "--capture": "no"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(theirs.run, options=options)
        assert going.wait(60)
        with pytest.raises(StoreError, match="'theirs' is being run already, and Sacred would mix"):
            theirs.run(config_updates={"seed": 8}, options=options)
        asked.set()
        assert first.result().result == 7
    theirs.run(config_updates={"seed": 9}, options=options)
    assert store().runs()["seed"].tolist() == [7, 9]


def test_a_second_run_of_ours_at_a_time_is_refused(workplace: Path, store: Opened) -> None:
    ended: list[str] = []

    def run() -> None:
        ended.append(run_experiment(tiny.experiment, {"what": "wait"}).status)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert tiny.waiting.wait(60)
        with pytest.raises(StoreError, match="'tiny' is being run already"):
            run_experiment(tiny.experiment, {})
    finally:
        tiny.stop.set()
        thread.join()
        tiny.stop.clear()
    assert ended == ["COMPLETED"]
    assert run_experiment(tiny.experiment, {}).status == "COMPLETED"
    assert len(store().runs()) == 2


def test_attached_again_an_experiment_is_recorded_once(workplace: Path, store: Opened) -> None:
    theirs = foreign(lambda _run: solvers.solve(problem(), Picard()).success)
    attach(attach(theirs, str(workplace / "first.db")), data={"train": b"x"})
    theirs.run(options=QUIET)
    assert not (workplace / "first.db").exists()
    assert len(store().runs()) == len(store().solves()) == 1
    assert list(store().run(1)["meta"]["data"]) == ["train"]


FOREIGN = """\
from sacred import Experiment
from experiments.runner.recording import attach
from helper import problem
import solvers

ex = Experiment("theirs")

@ex.config
def config():
    width = 3

@ex.automain
def main(width):
    print("width", width)
    return solvers.solve(problem(), solvers.Picard()).stats.evaluations

"""


def test_a_foreign_file_on_the_command_line(workplace: Path, store: Opened) -> None:
    text = FOREIGN.replace("@ex.config", "attach(ex)\n\n@ex.config")
    (workplace / "theirs.py").write_text(text)
    (workplace / "helper.py").write_text(HELPER)
    said = subprocess.run(
        [sys.executable, "theirs.py", "with", "width=4", "-c", "a comment"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    run = store().run(1)
    assert (run["experiment"], run["config"]["width"]) == ("theirs", 4)
    assert run["comment"] == "a comment"
    assert "width 4" in run["output"]
    assert run["code"]["mainfile"] == "theirs.py"
    assert set(run["code"]["sources"]) == {"theirs.py", "helper.py"}  # as Sacred finds them
    assert store().file(1, "helper.py").decode() == HELPER
    assert "deq-lab" not in json.dumps(run["meta"])
    usage = subprocess.run(
        [sys.executable, "theirs.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "deq-lab" not in usage.stdout
