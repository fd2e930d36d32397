"""Dead runs are found: exactly where their process was, by their silence from elsewhere."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from db import RunObserver, StoreError, connect, journal
from db.journal import Event, Journal
from db.liveness import Life, life, mark_died, reap
from db.machine import process
from db.schema import Base

ROOT = Path(__file__).parents[2]
RUN = Base.metadata.tables["run"]
HERE = process({})
needs_proc = pytest.mark.skipif(HERE["proc_start"] is None, reason="needs /proc")

SLEEPER = """
import json, sys, time
from db.machine import process
print(json.dumps(process({})), flush=True)
time.sleep(600)
"""


class Sleeper:
    """A real process that does nothing, and what it says about itself."""

    def __init__(self):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", SLEEPER],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.process = json.loads(self.popen.stdout.readline())

    def end(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()


@pytest.fixture
def sleeper():
    one = Sleeper()
    yield one
    one.end()


def store(url, *processes, age=0.0, **columns):
    """A store with one RUNNING run a process, whose last sign of life is ``age`` seconds old."""
    engine = connect(url)
    seen = datetime.now(UTC) - timedelta(seconds=age)
    with engine.begin() as connection:
        for number, known in enumerate(processes):
            row = {
                "uuid": f"uuid-{number}", "session": f"session-{number}", "experiment": "bare",
                "status": "RUNNING", "config": {}, "config_hash": "0", "last_seq": 3,
                "started_at": seen - timedelta(seconds=5), "heartbeat_at": seen, "beat_interval": 5,
            }  # fmt: skip
            connection.execute(insert(RUN), row | known | columns)
    engine.dispose()


def rows(url):
    engine = connect(url)
    with engine.connect() as connection:
        found = connection.execute(select(RUN).order_by(RUN.c.id)).all()
    engine.dispose()
    return found


def change(url, **columns):
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(update(RUN).values(columns))
    engine.dispose()


# What is known of a process


@needs_proc
def test_a_process_that_is_there_is_alive(sleeper):
    assert life(sleeper.process) is Life.ALIVE
    assert life(HERE) is Life.ALIVE


def test_a_killed_process_is_dead(sleeper):
    sleeper.end()
    assert life(sleeper.process) is Life.DEAD


@needs_proc
def test_a_zombie_is_dead(sleeper):
    sleeper.popen.kill()
    os.waitid(os.P_PID, sleeper.popen.pid, os.WEXITED | os.WNOWAIT)  # and is not buried yet
    os.kill(sleeper.popen.pid, 0)
    assert life(sleeper.process) is Life.DEAD


@needs_proc
def test_a_pid_that_is_used_again_is_another_process(sleeper):
    assert life(sleeper.process | {"proc_start": HERE["proc_start"] - 1}) is Life.DEAD


@needs_proc
def test_no_process_survives_a_boot():
    assert life(HERE | {"boot_id": "00000000-0000-4000-8000-000000000000"}) is Life.DEAD


@pytest.mark.parametrize("given", [{"host": "elsewhere"}, {"host": None}, {"pid": None},
                                   {"pid_space": "pid:[1]"}])  # fmt: skip
def test_nothing_is_known_of_a_process_elsewhere(sleeper, given):
    sleeper.end()
    assert life(sleeper.process | given) is Life.UNKNOWN


@pytest.mark.parametrize("missing", ["proc_start", "boot_id"])
def test_what_a_system_did_not_tell_is_not_guessed(sleeper, missing):
    known = sleeper.process | {missing: None}
    assert life(known) is Life.UNKNOWN
    sleeper.end()
    assert life(known) is Life.DEAD


def test_a_pid_that_no_system_gives_is_no_process():
    assert life(HERE | {"pid": 2**62}) is Life.DEAD


# What becomes of runs


@needs_proc
def test_only_the_run_of_the_killed_process_is_reaped(either):
    killed, living = Sleeper(), Sleeper()
    try:
        store(either, killed.process, living.process, age=3.0)
        killed.end()
        (reaped,) = reap(either)
        assert (reaped["id"], reaped["uuid"]) == (1, "uuid-0")
        assert reaped["why"] == f"its process {killed.popen.pid} on {HERE['host']} is gone"
        dead, alive = rows(either)
        assert (dead.status, dead.fail_message) == ("DIED", reaped["why"])
        assert dead.stopped_at == dead.heartbeat_at
        assert (alive.status, alive.stopped_at, alive.fail_message) == ("RUNNING", None, None)
        assert reap(either) == []
    finally:
        killed.end()
        living.end()


@needs_proc
def test_a_silent_run_whose_process_is_there_is_left(either, sleeper):
    store(either, sleeper.process, age=7 * 86400)
    assert reap(either) == [] and rows(either)[0].status == "RUNNING"


@needs_proc
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"boot_id": "00000000-0000-4000-8000-000000000000"}, "has been booted since"),
        ({"proc_start": 1}, "is gone, and its number belongs to another one"),
    ],
)
def test_a_run_of_an_earlier_boot_or_process_is_reaped_at_once(url, given, why):
    store(url, HERE | given)
    assert [entry["why"].endswith(why) for entry in reap(url)] == [True]


@pytest.mark.parametrize("there", [{"host": "elsewhere"}, {"pid_space": "pid:[1]"}])
@pytest.mark.parametrize(
    ("age", "beat", "dead"),
    [(50, 5, False), (70, 5, True), (70, None, True), (70, 30, False), (100, 30, True),
     (-70, 5, False)],
)  # fmt: skip
def test_a_run_elsewhere_is_judged_by_its_silence(either, there, age, beat, dead):
    store(either, HERE | there, age=age, beat_interval=beat)
    found = reap(either)
    assert len(found) == dead and rows(either)[0].status == ("DIED" if dead else "RUNNING")
    for entry in found:
        assert "gave no sign of life for" in entry["why"]


def test_a_run_that_never_beat_ended_with_its_start(either):
    store(either, HERE | {"host": "elsewhere"}, age=100, heartbeat_at=None)
    assert len(reap(either)) == 1
    (run,) = rows(either)
    assert (run.status, run.stopped_at, run.heartbeat_at) == ("DIED", run.started_at, None)


@pytest.mark.parametrize("status", ["STARTING", "QUEUED", "COMPLETED", "FAILED", "DIVERGED"])
def test_only_running_runs_are_reaped(url, status):
    store(url, HERE | {"host": "elsewhere"}, age=1000, status=status)
    assert reap(url) == [] and rows(url)[0].status == status


def test_a_run_that_beats_while_it_is_judged_is_left(either):
    store(either, HERE | {"host": "elsewhere"}, age=1000)
    engine = connect(either)
    with engine.begin() as connection:
        connection.execute(update(RUN).values(heartbeat_at=datetime.now(UTC)))
        judging = threading.Thread(target=reap, args=(either,))
        judging.start()  # sees the old beat, if anything, and waits for this transaction
        time.sleep(0.5)
    judging.join()
    engine.dispose()
    assert rows(either)[0].status == "RUNNING"


def test_two_reapers_at_once_count_a_run_once(either):
    store(either, *[HERE | {"host": "elsewhere"}] * 50, age=1000)
    gate, found = threading.Barrier(2), []

    def go():
        gate.wait()
        found.extend(entry["id"] for entry in reap(either))

    both = [threading.Thread(target=go) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(found) == list(range(1, 51))
    assert {run.status for run in rows(either)} == {"DIED"}


def test_a_run_whose_journal_waits_is_left_until_it_is_stored(
    either, sleeper, monkeypatch, tmp_path
):
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "journals"))
    store(either, sleeper.process, age=1000)
    waiting = Journal(journal.folder(either), {"session": "session-0"} | sleeper.process)
    waiting.append(Event(3, "heartbeat", {}))
    waiting.append(Event(4, "stop", {"status": "COMPLETED"}))
    waiting.close()
    sleeper.end()
    assert reap(either) == [] and rows(either)[0].status == "RUNNING"
    change(either, last_seq=4)
    assert len(reap(either)) == 1


def test_a_run_elsewhere_whose_journal_is_held_here_lives(url):
    store(url, HERE | {"pid_space": "pid:[1]"}, age=1000)
    held = Journal(journal.folder(url), {"session": "session-0"})
    held.append(Event(1, "start", {}))
    assert reap(url) == []
    held.close()
    assert len(reap(url)) == 1


def test_a_run_that_was_only_slow_comes_back_by_itself(either, monkeypatch, tmp_path):
    slow, dead = RunObserver(either), RunObserver(either)
    for observer in (slow, dead):
        start = datetime.now(UTC)
        observer.started_event({"name": "bare"}, "main", {}, start, {}, {}, None)
        assert observer.flush(60)
    change(either, heartbeat_at=datetime.now(UTC) - timedelta(hours=1), host="elsewhere")
    with monkeypatch.context() as other_machine:
        other_machine.setenv("DEQ_JOURNAL", str(tmp_path / "its journals"))
        assert len(reap(either)) == 2
    slow.heartbeat_event({}, "", datetime.now(UTC), None)
    assert slow.flush(60)
    first, second = rows(either)
    assert (first.status, first.stopped_at, first.fail_message) == ("RUNNING", None, None)
    assert second.status == "DIED" and second.fail_message
    for observer in (slow, dead):
        observer.completed_event(datetime.now(UTC), 1.0)
        observer.join()
    for run in rows(either):
        assert (run.status, run.result, run.fail_message) == ("COMPLETED", 1.0, None)
        assert run.stopped_at == run.heartbeat_at


def test_to_reap_makes_no_store(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        reap(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


# What is said by one who knows


def test_a_run_is_marked_as_died_once(either):
    store(either, HERE)
    mark_died(either, "uuid-0", "killed by \x00hand")
    (run,) = rows(either)
    assert (run.status, run.fail_message) == ("DIED", "killed by \ufffdhand")
    assert run.stopped_at == run.heartbeat_at
    change(either, status="COMPLETED", fail_message=None)
    mark_died(either, "uuid-0", "too late")
    mark_died(either, "nobody", "no such run")
    assert [(run.status, run.fail_message) for run in rows(either)] == [("COMPLETED", None)]
