"""What was told is in the journal, and from there in the store, once, whatever happens between."""

import contextlib
import json
import logging
import math
import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
import time
from datetime import datetime

import numpy as np
import pytest
import toy

from db import RunObserver, Store, StoreAway, StoreError, journal, outbox, sync
from db.journal import Event, Journal
from db.sync import Synced
from db.writer import SqlWriter

NOW = datetime(2026, 1, 31, 12)
HEADER = {"session": "11111111-0000", "uuid": "11111111-0000", "host": "elsewhere"}


def started(url, config=None, **given):
    observer = RunObserver(url, **given)
    observer.started_event({"name": "bare"}, "main", {}, NOW, config or {}, {}, None)
    return observer


def logged(values):
    return {
        "m": {
            "name": "m",
            "values": values,
            "steps": list(range(len(values))),
            "timestamps": [NOW] * len(values),
        }
    }


@pytest.fixture
def server(postgres_server):
    """A server that the test may stop, and which runs again afterwards."""
    yield postgres_server
    with contextlib.suppress(Exception):
        postgres_server.stop()
    postgres_server.start()


@pytest.fixture(autouse=True)
def heard(caplog):
    """What is logged, whatever an earlier test told Sacred about logging."""
    caplog.set_level(logging.WARNING)


@pytest.fixture
def quick(monkeypatch):
    """Nobody waits long for a store that is away."""
    monkeypatch.setattr("db.outbox.PATIENCE", 0.3)
    monkeypatch.setattr("db.outbox.LONGEST_WAIT", 0.2)


# The file


def test_a_journal_gives_back_what_was_written(tmp_path):
    events = [Event(n, "solve", {"text": "a\nb ü", "number": n / 3}) for n in range(1, 6)]
    made = Journal(tmp_path / "j", HEADER)
    for event in events:
        made.append(event)
    made.close()
    assert list(journal.read(made.path)) == events
    assert journal.header(made.path) == HEADER | {"format": journal.FORMAT}
    assert made.size == made.path.stat().st_size


@pytest.mark.parametrize("cut", [2, 7, 20])
def test_a_line_that_was_not_written_to_its_end_is_left_out(tmp_path, cut):
    made = Journal(tmp_path, HEADER)
    for n in (1, 2):
        made.append(Event(n, "solve", {"number": n}))
    made.close()
    os.truncate(made.path, made.size - cut)
    assert [event.seq for event in journal.read(made.path)] == [1]


def test_rubbish_in_the_middle_costs_its_own_line_only(tmp_path):
    made = Journal(tmp_path, HEADER)
    made.append(Event(1, "solve", {}))
    made._write(b'[2, "solve"\n\xff\xfe\n{"a": 1}\n[1, 2, 3]\n')
    made.append(Event(3, "solve", {}))
    made.close()
    assert [event.seq for event in journal.read(made.path)] == [1, 3]


def test_a_journal_of_a_newer_format_is_left_alone(url):
    started(url).join()
    folder = journal.folder(url)
    folder.mkdir()
    path = folder / "new.jsonl"
    path.write_text(json.dumps({"session": "new", "format": journal.FORMAT + 1}) + "\n")
    done = sync(url)
    assert done.left == [path] and "use the deq-lab that wrote it" in done.problems[0]
    assert path.exists()


def test_where_journals_are(url, tmp_path, monkeypatch):
    assert journal.folder(url) == tmp_path / "store.db.journal"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    one, other = (journal.folder(f"postgresql://{user}@host/name") for user in ("me:secret", "you"))
    assert one == other and one.parent == tmp_path / "state" / "deq-lab" / "journal"
    assert one != journal.folder("postgresql://host/other")
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "mine"))
    assert (
        journal.folder(url).parent == tmp_path / "mine" == journal.folder("postgresql://h/a").parent
    )


def test_a_run_leaves_no_journal(either):
    observer = started(either)
    assert journal.waiting(either)[0].header["session"] == observer.session
    observer.completed_event(NOW, None)
    observer.join()
    assert journal.waiting(either) == []
    assert not journal.folder(either).exists()


def test_a_long_run_keeps_a_short_journal(either, monkeypatch):
    monkeypatch.setattr("db.outbox.LARGEST_JOURNAL", 10_000)
    observer = started(either)
    for n in range(200):
        observer.solve({"evaluations": n, "trace": {"residual": np.ones(100)}})
    assert observer.flush(60)
    end = time.monotonic() + 30
    while journal.waiting(either)[0].size > 10_000 and time.monotonic() < end:
        time.sleep(0.01)
    assert journal.waiting(either)[0].events == 0
    observer.solve({"evaluations": 200})
    assert journal.waiting(either)[0].events == 1
    observer.join()
    assert list(Store(either).solves()["evaluations"]) == list(range(201))


# The store is away


def test_a_store_that_is_away_at_the_start_gets_the_run_later(server, quick, caplog):
    url = server.fresh()
    server.stop()
    observer = started(url, {"a": 1})
    assert observer.run_id is None and observer.uuid == observer.session
    observer.solve({"evaluations": 3})
    server.start()
    assert observer.flush(60)
    assert observer.run_id == 1
    observer.completed_event(NOW, 0.5)
    observer.join()
    store = Store(url)
    assert store.runs()[["status", "uuid"]].values.tolist() == [["COMPLETED", observer.uuid]]
    assert store.config(1) == {"a": 1} and list(store.solves()["evaluations"]) == [3]
    assert "the run goes on and is kept in" in caplog.text


def test_a_run_that_requires_its_store_does_not_begin_without(server):
    url = server.fresh()
    server.stop()
    with pytest.raises(StoreAway, match="cannot be reached"):
        started(url, require_store=True)
    assert journal.waiting(url) == []


def test_a_store_that_stays_away_gets_the_run_by_sync(server, quick, caplog):
    url = server.fresh()

    def whole_run():
        observer = started(url)
        for n in range(5):
            observer.solve({"evaluations": n})
        observer.log_metrics(logged([1.0, 2.0]), {})
        observer.completed_event(NOW, 7)
        observer.join()
        os._exit(0)

    server.stop()
    process = multiprocessing.get_context("fork").Process(target=whole_run)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    with pytest.raises(StoreError, match="cannot be reached"):
        sync(url)
    [left] = journal.waiting(url)
    assert left.events == 8
    server.start()
    done = sync(url)
    assert (len(done.runs), done.events, done.died, done.left) == (1, 8, [], [])
    assert sync(url) == Synced() and journal.waiting(url) == []
    store = Store(url)
    assert store.runs()[["status", "result_value"]].values.tolist() == [["COMPLETED", 7.0]]
    assert list(store.solves()["evaluations"]) == [0, 1, 2, 3, 4]
    assert list(store.series()["value"]) == [1.0, 2.0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_is_stopped_in_mid_run_loses_and_doubles_nothing(server, quick, how):
    url = server.fresh()
    observer = started(url)
    for n in range(300):
        if n == 100:
            server.stop(how)
        if n == 200:
            server.start()
        observer.solve({"evaluations": n})
        observer.log_metrics(logged([float(n)]), {})
        time.sleep(0.002)
    observer.completed_event(NOW, None)
    observer.flush(60)
    observer.join()
    store = Store(url)
    assert list(store.solves()["evaluations"]) == list(range(300))
    assert list(store.series()["value"]) == list(range(300))
    assert store.runs()["status"].tolist() == ["COMPLETED"]


def test_events_beyond_the_memory_are_read_from_the_journal(server, quick, monkeypatch):
    monkeypatch.setattr("db.outbox.LONGEST_QUEUE", 10)
    url = server.fresh()
    observer = started(url)
    server.stop()
    for n in range(1300):
        observer.solve({"evaluations": n})
    assert len(observer._outbox._queue) <= 10
    server.start()
    observer.solve({"evaluations": 1300})
    assert observer.flush(60)
    observer.solve({"evaluations": 1301})
    observer.join()
    assert list(Store(url).solves()["evaluations"]) == list(range(1302))


# The journal cannot be written


def test_without_a_place_for_a_journal_the_store_is_enough(url, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "file"))
    observer = started(url)
    for n in range(3):
        observer.solve({"evaluations": n})
    observer.completed_event(NOW, None)
    observer.join()
    assert list(Store(url).solves()["evaluations"]) == [0, 1, 2]
    assert Store(url).runs()["status"].tolist() == ["COMPLETED"]
    assert caplog.text.count("cannot be written") == 1


def test_without_store_and_journal_the_run_is_refused(server, tmp_path, monkeypatch):
    url = server.fresh()
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "file"))
    server.stop()
    with pytest.raises(StoreError, match="no journal can be kept in"):
        started(url)


def test_a_journal_that_fills_its_disk_goes_on_when_there_is_room(url, monkeypatch, caplog):
    write, full = os.write, threading.Event()

    def limited(file, data):
        if full.is_set() and stat.S_ISREG(os.fstat(file).st_mode) and data.startswith(b"["):
            write(file, data[: len(data) // 2])  # as a disk that is full in the midst of a line
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr("db.journal.os.write", limited)
    monkeypatch.setattr("db.dialects.PATIENCE", 0.05)
    observer = started(url)
    blocker = sqlite3.connect(url, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    observer.solve({"evaluations": 0})
    full.set()
    observer.solve({"evaluations": 1})
    observer.solve({"evaluations": 2})
    full.clear()
    observer.solve({"evaluations": 3})
    [left] = journal.waiting(url)
    solves = [e.payload["row"] for e in journal.read(left.path) if e.kind == "solve"]
    assert [row["evaluations"] for row in solves] == [0, 1, 2, 3], (
        "what had no room follows when there is some"
    )
    blocker.execute("ROLLBACK")
    blocker.close()
    observer.join()
    assert list(Store(url).solves()["evaluations"]) == [0, 1, 2, 3]


# What is refused


def test_what_the_database_refuses_is_put_aside_and_the_rest_is_stored(either, caplog):
    observer = started(either)
    observer.solve({"evaluations": 1})
    observer._tell("solve", {"row": {"ord": 1, "phase": "sideways"}, "trace": {}})
    observer._solves += 1
    observer._tell("nonsense", {"a": [1, None]})
    observer.solve({"evaluations": 2})
    observer.gradient({"solve_ord": 1})
    observer._tell("stop", {"run": {"status": "COMPLETED", "seconds": 1e400, "nowhere": 1}})
    observer.join()
    store = Store(either)
    assert list(store.solves()["evaluations"]) == [1, 2] and len(store.gradients()) == 1
    assert store.runs()["status"].tolist() == ["COMPLETED"], "a refused end is an end"
    aside = store.query("select * from rejected_event order by seq")
    assert aside["kind"].tolist() == ["solve", "nonsense", "stop"]
    assert set(aside["run_uuid"]) == {observer.uuid}
    assert json.loads(aside["payload"][0])["row"]["phase"] == "sideways"
    assert "phase" in aside["error"][0] and "unknown kind" in aside["error"][1]
    assert caplog.text.count("rejected_event") == 3


def test_a_start_that_is_refused_leaves_a_run_that_can_be_found(either):
    started(either).join()
    run = {"uuid": "22222222-0000", "experiment": "bare", "status": "RUNNING", "config": {"a": 1}}
    start = Event(1, "start", {"run": run | {"seconds": math.inf}, "environment": None})
    writer = SqlWriter(either)
    stored = writer.store(
        "22222222-0000", [start, Event(2, "solve", {"row": {"ord": 0}, "trace": {}})]
    )
    writer.close()
    assert stored.refused == 1 and Store(either).run("22222222-0000")["id"] == stored.run_id
    assert Store(either).config("22222222-0000") == {} and len(Store(either).solves()) == 1
    aside = Store(either).query("select payload from rejected_event")["payload"]
    assert json.loads(aside[0])["run"]["config"] == {"a": 1}


def test_events_of_a_run_that_the_store_has_not_stay_in_the_journal(either):
    started(either).join()
    lost = Journal(journal.folder(either), HEADER | {"host": os.uname().nodename})
    lost.append(Event(7, "solve", {"row": {"ord": 0}, "trace": {}}))
    lost.close()
    done = sync(either)
    assert done.left == [lost.path] and "no run of the session" in done.problems[0]
    assert lost.path.exists()
    lost.path.unlink()


# Sync


def test_a_run_that_goes_on_is_left_alone(either):
    observer = started(either)
    observer.solve({"evaluations": 1})
    done = sync(either)
    assert done.runs == [] and [p.stem for p in done.left] == [observer.session]
    observer.solve({"evaluations": 2})
    observer.join()
    assert list(Store(either).solves()["evaluations"]) == [1, 2]


def test_the_journal_of_another_machine_is_stored_when_that_is_asked_for(either):
    started(either).join()
    far = Journal(journal.folder(either), HEADER)
    run = {"uuid": HEADER["uuid"], "experiment": "far", "status": "RUNNING", "config": {}}
    run |= {"started_at": "2026-01-31T12:00:00+00:00", "heartbeat_at": "2026-01-31T12:00:00+00:00"}
    far.append(Event(1, "start", {"run": run, "environment": None}))
    far.close()
    done = sync(either)
    assert done.left == [far.path] and "of the machine elsewhere" in done.problems[0]
    done = sync(either, everything=True)
    assert done.died == [HEADER["uuid"]] and not far.path.exists()
    row = Store(either).run(HEADER["uuid"])
    assert row["status"] == "DIED" and row["stopped_at"] == row["heartbeat_at"]


def test_a_journal_without_a_whole_header_holds_nothing(url):
    started(url).join()
    folder = journal.folder(url)
    folder.mkdir()
    torn = folder / "torn.jsonl"
    torn.write_bytes(b'{"session": "to')
    assert sync(url).left == [torn], "its run may have begun just now"
    os.utime(torn, (0, 0))
    assert sync(url) == Synced() and not folder.exists()


def test_several_syncs_at_once_store_everything_once(either):
    started(either).join()
    header = HEADER | {"host": os.uname().nodename}
    for number in range(4):
        session = f"3333{number}"
        left = Journal(journal.folder(either), header | {"session": session, "uuid": session})
        run = {"uuid": session, "experiment": "left", "status": "RUNNING", "config": {}}
        left.append(Event(1, "start", {"run": run, "environment": None}))
        for n in range(200):
            left.append(Event(n + 2, "solve", {"row": {"ord": n, "evaluations": n}, "trace": {}}))
        left.close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=sync, args=(either,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    sync(either)
    assert journal.waiting(either) == []
    solves = Store(either).solves("experiment=left")
    assert len(solves) == 800 and solves.groupby("run_id")["evaluations"].sum().eq(19900).all()


# Forks and threads


def test_a_fork_of_the_process_is_not_its_run(either):
    observer = started(either)

    def child():
        observer.solve({"evaluations": 99})
        observer.flush(1)
        raise SystemExit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    observer.solve({"evaluations": 1})
    observer.join()
    assert list(Store(either).solves()["evaluations"]) == [1]


def test_many_threads_tell_one_run(either):
    observer = started(either)

    def tell(thread):
        for n in range(100):
            observer.solve({"evaluations": 1000 * thread + n})

    threads = [threading.Thread(target=tell, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    observer.join()
    solves = Store(either).solves()
    assert list(solves["ord"]) == list(range(800))
    assert sorted(solves["evaluations"]) == sorted(
        1000 * t + n for t in range(8) for n in range(100)
    )


def test_what_comes_after_the_end_is_stored_by_the_end_of_the_process(either):
    def late():
        observer = started(either)
        observer.completed_event(NOW, None)
        observer.join()
        observer._joined = False  # as a thread that is still in the midst of telling
        observer.solve({"evaluations": 5})
        outbox._last_try()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=late)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert list(Store(either).solves()["evaluations"]) == [5]
    assert journal.waiting(either) == []


def test_toy_runs_land_whole(either):
    observer = toy.run(either, lambda _run: toy.measure(observer_of(_run), toy.CONFIG, 0))
    assert observer.run_id == 1 and len(Store(either).solves()) == 2


def observer_of(run):
    return next(o for o in run.observers if isinstance(o, RunObserver))


def test_events_that_nothing_can_keep_but_memory_are_stored_in_the_end(url, monkeypatch, tmp_path):
    monkeypatch.setattr("db.outbox.LONGEST_QUEUE", 10)
    monkeypatch.setattr("db.dialects.PATIENCE", 0.05)
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "file"))
    observer = started(url)
    blocker = sqlite3.connect(url, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    for n in range(100):
        observer.solve({"evaluations": n})
    blocker.execute("ROLLBACK")
    blocker.close()
    observer.join()
    assert list(Store(url).solves()["evaluations"]) == list(range(100))


def test_a_spill_of_whole_batches_ends_well(server, quick, monkeypatch):
    monkeypatch.setattr("db.outbox.LONGEST_QUEUE", 10)
    url = server.fresh()
    observer = started(url)
    server.stop()
    for n in range(10 + 2 * outbox.BATCH):
        observer.solve({"evaluations": n})
    server.start()
    assert observer.flush(60)
    observer.solve({"evaluations": 7})
    observer.join()
    assert len(Store(url).solves()) == 11 + 2 * outbox.BATCH


def test_a_journal_that_does_not_say_whose_it_is_is_kept(url):
    started(url).join()
    folder = journal.folder(url)
    folder.mkdir()
    path = folder / "lost.jsonl"
    path.write_text('[1,"solve",{"row":{"ord":0}}]\n[2,"solve",{"row":{"ord":1}}]\n')
    os.utime(path, (0, 0))
    assert sync(url).left == [path] and "does not say whose" in sync(url).problems[0]


def test_no_password_is_told(tmp_path, monkeypatch):
    from db.errors import hidden

    for secret in (
        "postgresql://me:hunter2@h/db", "--store=postgresql://me:hunter2@h/db",
        "postgresql://me@h/db?password=hunter2&x=1", "postgresql://h/db?sslpassword=hunter2",
    ):  # fmt: skip
        assert "hunter2" not in hidden(secret) and "/db" in hidden(secret)
    with pytest.raises(StoreError) as refused:
        Store("postgresql://me:hunter2@h:54x2/db")
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("PGHOST", "one")
    one = journal.folder("postgresql:///db")
    assert one == journal.folder("postgresql://x@one/db") != journal.folder("postgresql://two/db")
    assert one != journal.folder("postgresql:///db?host=two")
