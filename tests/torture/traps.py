"""Sacred's traps and other people's habits, each as a run that must be whole afterwards.

A trap returns what is wrong, or nothing. They run in a child, one after the other.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import deeds
from deeds import QUIET, RunObserver, experiment
from sqlalchemy import create_engine

from db import Store, StoreError

NOW = datetime(2026, 1, 31, 12)
Trap = Callable[[str], Any]
TRAPS: dict[str, Trap] = {}
QUICK = QUIET | {"--beat-interval": 0.02}


def trap(function: Trap) -> Trap:
    """Put a trap among ``TRAPS`` under its sentence."""
    TRAPS[function.__name__.replace("_", " ")] = function
    return function


def run(observer: Any, main: Callable[[Any], Any], **options: Any) -> Any:
    """One run with quick beats."""
    return experiment(observer, main).run(options=QUICK | options)


def started(url: str) -> RunObserver:
    """A run without Sacred around it."""
    observer = RunObserver(url)
    observer.started_event({"name": "bare"}, "main", {}, NOW, {}, {}, None)
    return observer


def logged(*values: Any) -> dict[str, Any]:
    """Metrics as Sacred gives them."""
    steps = list(range(len(values)))
    return {"m": {"name": "m", "values": list(values), "steps": steps,
                  "timestamps": [NOW] * len(values)}}  # fmt: skip


def status(url: str, observer: RunObserver) -> str:
    """How the run stands in the store."""
    text: str = Store(url).run(observer.uuid)["status"]
    return text


def values(url: str, observer: RunObserver, name: str = "m") -> list[float]:
    """A series of the run."""
    number = Store(url).run(observer.uuid)["id"]
    frame = Store(url).query(
        "select value from point join series on series.id = series_id "
        f"where run_id = {number} and name = '{name}' order by ord"
    )
    found: list[float] = frame["value"].tolist()
    return found


def count(url: str, observer: RunObserver, table: str = "solve") -> int:
    """Rows of the run."""
    number = Store(url).run(observer.uuid)["id"]
    return int(
        Store(url).query(f"select count(*) as n from {table} where run_id = {number}")["n"][0]
    )


def wrong(**facts: tuple[Any, Any]) -> str:
    """The facts that are not as they must be."""
    return "; ".join(f"{k} is {a!r}, not {b!r}" for k, (a, b) in facts.items() if a != b)


@trap
def a_beat_that_outlasts_the_run(url):
    class Slow(RunObserver):
        def log_metrics(self, *event, **more):
            time.sleep(2.5)
            super().log_metrics(*event, **more)

    observer = Slow(url)
    run(observer, lambda _run: [_run.log_scalar("m", float(n)) for n in range(3)], **{
        "--beat-interval": 10
    })  # fmt: skip
    for thread in threading.enumerate():
        if type(thread).__name__ == "IntervalTimer":
            thread.join()
    observer.flush(10)
    return wrong(
        status=(status(url, observer), "COMPLETED"), values=(values(url, observer), [0.0, 1.0, 2.0])
    )


@trap
def beats_after_join(url):
    observer = started(url)
    observer.log_metrics(logged(1.0, 2.0), {})
    observer.completed_event(NOW + timedelta(seconds=5), 1)
    observer.join()
    observer.log_metrics(logged(3.0), {})
    observer.heartbeat_event({"late": 1}, "late\n", NOW + timedelta(seconds=9), 1)
    found = Store(url).run(observer.uuid)
    return wrong(
        status=(found["status"], "COMPLETED"), seconds=(found["seconds"], 5.0),
        output=(found["output"], "late\n"), info=(found["info"], {"late": 1}),
        values=(values(url, observer), [1.0, 2.0, 3.0]),
    )  # fmt: skip


@trap
def no_beat_during_the_run(url):
    observer = RunObserver(url)
    run(observer, lambda _run: _run.log_scalar("m", 1.0), **{"--beat-interval": 10})
    return wrong(values=(values(url, observer), [1.0]), status=(status(url, observer), "COMPLETED"))


@trap
def beat_interval_0_loses_nothing_in_silence(url):
    observer = RunObserver(url)
    try:
        run(observer, lambda _run: _run.log_scalar("m", 1.0), **{"--beat-interval": 0})
    except Exception as error:  # refused, in a sentence that names it
        return "" if "beat" in str(error) else f"refused by {error!r}"
    return wrong(values=(values(url, observer), [1.0]), status=(status(url, observer), "COMPLETED"))


@trap
def info_that_changes_during_beats(url):
    observer = RunObserver(url)

    def main(_run):
        end = time.monotonic() + 0.5
        number = 0
        while time.monotonic() < end:
            inner = _run.info.setdefault("inner", {})
            inner[number % 997] = number
            if number % 997 == 0:
                inner.clear()
            number += 1
        _run.info["inner"] = {"last": 1}

    run(observer, main, **{"--beat-interval": 0.005})
    found = Store(url).run(observer.uuid)
    return wrong(
        info=(found["info"], {"inner": {"last": 1}}), status=(found["status"], "COMPLETED")
    )


@trap
def queued_and_then_another_run(url):
    observer, after = RunObserver(url), RunObserver(url)
    run(observer, lambda _run: None, **{"--queue": True})
    run(after, lambda _run: None)
    return wrong(queued=(status(url, observer), "QUEUED"), after=(status(url, after), "COMPLETED"))


@trap
def an_id_that_is_given_again(url):
    given = "5d0c1d1e-9d2a-4c58-8a53-4f3f8b2d9b01"
    first, second = RunObserver(url), RunObserver(url)
    run(first, lambda _run: _run.log_scalar("m", 1.0), **{"--id": given})
    run(second, lambda _run: _run.log_scalar("m", 2.0), **{"--id": given})
    found = Store(url).run(second.uuid)
    return wrong(
        first=(values(url, first), [1.0]), second=(values(url, second), [2.0]),
        parent=(found["parent_id"], Store(url).run(first.uuid)["id"]),
        uuid=(first.uuid, given), same=(second.uuid == given, False),
    )  # fmt: skip


@trap
def an_id_that_two_give_at_once(url):
    given = "5d0c1d1e-9d2a-4c58-8a53-4f3f8b2d9b02"
    observers = [RunObserver(url) for _ in range(4)]
    threads = [
        threading.Thread(
            target=run, args=(o, lambda _run: _run.log_scalar("m", 1.0)), kwargs={"--id": given}
        )
        for o in observers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong(
        uuids=(len({o.uuid for o in observers}), 4),
        values=([values(url, o) for o in observers], [[1.0]] * 4),
        ends=([status(url, o) for o in observers], ["COMPLETED"] * 4),
    )


@trap
def one_observer_for_two_runs(url):
    observer = RunObserver(url)
    said = []

    def nested(_run):
        try:
            run(observer, lambda _run: _run.log_scalar("m", 7.0))
        except StoreError as error:
            said.append(str(error))
        observer.solve({})
        _run.log_scalar("m", 1.0)

    run(observer, nested)
    return wrong(
        refused=(len(said), 1), values=(values(url, observer), [1.0]),
        solves=(count(url, observer), 1),
        status=(status(url, observer), "COMPLETED"),
    )  # fmt: skip


@trap
def output_that_comes_whole_at_every_beat(url):
    observer = RunObserver(url)

    def main(_run):
        for number in range(200):
            print(f"line {number}")
            time.sleep(0.002)

    run(observer, main, **{"--capture": "sys"})
    text = "".join(f"line {n}\n" for n in range(200))
    return wrong(output=(Store(url).run(observer.uuid)["output"], text))


@trap
def junk_in_metrics_does_not_end_the_recording(url):
    observer = started(url)
    for junk in ({"m": {"values": [1]}}, {"m": None}, {"m": {"values": 3}}, 7, None):
        observer.log_metrics(junk, {})  # type: ignore[arg-type]
    observer.heartbeat_event(None, None, NOW, object())  # type: ignore[arg-type]
    observer.log_metrics(logged(1.0), {})
    observer.completed_event(NOW, None)
    observer.join()
    return wrong(values=(values(url, observer), [1.0]), status=(status(url, observer), "COMPLETED"))


@trap
def the_run_is_seen_while_it_goes_on(url):
    observer = RunObserver(url)
    facts = {}

    def main(_run):
        _run.log_scalar("m", 1.0)
        print("said")
        _run.info["note"] = 1
        time.sleep(0.3)
        observer.solve({})
        facts["flushed"] = observer.flush(20)
        found = Store(url).run(observer.uuid)
        facts["status"], facts["output"] = found["status"], found["output"]
        facts["beat"] = found["heartbeat_at"] > found["started_at"]
        facts["info"] = found["info"]
        facts["values"], facts["solves"] = values(url, observer), count(url, observer)
        if url.startswith("postgresql"):
            engine = create_engine(url.replace("://", "+psycopg://", 1))
            time.sleep(0.3)
            with engine.connect() as connection:
                facts["idle in transaction"] = connection.exec_driver_sql(
                    "select count(*) from pg_stat_activity where datname = current_database() "
                    "and state like 'idle in transaction%%' and pid <> pg_backend_pid()"
                ).scalar()
            engine.dispose()

    run(observer, main, **{"--capture": "sys"})
    wanted = {"flushed": True, "status": "RUNNING", "output": "said\n", "beat": True,
              "info": {"note": 1}, "values": [1.0], "solves": 1}  # fmt: skip
    if url.startswith("postgresql"):
        wanted["idle in transaction"] = 0
    return wrong(seen=(facts, wanted))


@trap
def what_the_database_refuses_is_kept_aside(url):
    run(RunObserver(url), lambda _run: None)
    engine = create_engine(
        url.replace("://", "+psycopg://", 1) if "://" in url else f"sqlite:///{url}"
    )
    with engine.begin() as connection:
        if "://" in url:
            connection.exec_driver_sql(
                "alter table solve add constraint no13 check (outer_step <> 13)"
            )
        else:
            connection.exec_driver_sql(
                "create trigger no13 before insert on solve when new.outer_step = 13 "
                "begin select raise(abort, 'not 13'); end"
            )
    observer = RunObserver(url)

    def main(_run):
        for number in range(30):
            place = observer.solve({"outer_step": number, "trace": {"residual": [1.0, 2.0]}})
            observer.gradient({"solve_ord": place})
            _run.log_scalar("m", 1.0)

    try:
        run(observer, main)
        kept = Store(url).query(f"select * from rejected_event where run_uuid = '{observer.uuid}'")
        return wrong(
            solves=(count(url, observer), 29), gradients=(count(url, observer, "grad_check"), 30),
            values=(len(values(url, observer)), 30), kept=(list(kept["kind"]), ["solve"]),
            status=(status(url, observer), "COMPLETED"),
        )  # fmt: skip
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "alter table solve drop constraint no13" if "://" in url else "drop trigger no13"
            )
        engine.dispose()


@trap
def somebody_holds_the_database(url):
    run(RunObserver(url), lambda _run: None)
    observer = RunObserver(url)
    slowest = 0.0

    def main(_run):
        nonlocal slowest
        with closing(_lock(url)):
            for number in range(30):
                begin = time.perf_counter()
                observer.solve({"outer_step": number})
                slowest = max(slowest, time.perf_counter() - begin)
                time.sleep(0.03)

    run(observer, main)
    fault = wrong(solves=(count(url, observer), 30), status=(status(url, observer), "COMPLETED"))
    # not a timing: a main thread that waits for the database waits for all of the second
    return fault or ("solve() waits for the database" if slowest > 0.5 else "")


def _lock(url: str) -> Any:
    if "://" not in url:
        database = sqlite3.connect(url, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        return database
    connection = create_engine(url.replace("://", "+psycopg://", 1)).connect()
    connection.exec_driver_sql("lock table run in access exclusive mode")
    return connection


@trap
def a_relative_path_and_a_change_of_directory(url):
    if "://" in url:
        return ""
    before = Path.cwd()
    home = Path(url).parent / "home"
    (home / "elsewhere").mkdir(parents=True)
    os.chdir(home)
    try:
        observer = RunObserver("here.db")

        def main(_run):
            os.chdir("elsewhere")
            for number in range(20):
                observer.solve({"outer_step": number})
                _run.log_scalar("m", 1.0)
                time.sleep(0.01)

        run(observer, main)
        observer.heartbeat_event({"late": 1}, "", NOW, None)
        there = sorted(p.name for p in (home / "elsewhere").iterdir())
        place = str(home / "here.db")
        return wrong(
            elsewhere=(there, []), solves=(count(place, observer), 20),
            values=(len(values(place, observer)), 20),
            status=(status(place, observer), "COMPLETED"),
            info=(Store(place).run(observer.uuid)["info"], {"late": 1}),
        )  # fmt: skip
    finally:
        os.chdir(before)


@trap
def the_folder_of_journals_is_removed(url):
    import shutil

    from db import journal

    observer = RunObserver(url)

    def main(_run):
        for number in range(30):
            observer.solve({"outer_step": number})
            if number == 10:
                shutil.rmtree(journal.folder(url), ignore_errors=True)
            time.sleep(0.01)

    run(observer, main)
    return wrong(solves=(count(url, observer), 30), status=(status(url, observer), "COMPLETED"))


@trap
def a_place_for_journals_that_cannot_be(url):
    os.environ["DEQ_JOURNAL"] = "/proc/no/such/place"
    try:
        observer = RunObserver(url)
        run(observer, lambda _run: [observer.solve({"outer_step": n}) for n in range(30)])
    finally:
        del os.environ["DEQ_JOURNAL"]
    return wrong(solves=(count(url, observer), 30), status=(status(url, observer), "COMPLETED"))


@trap
def connections_that_are_cut_again_and_again(url):
    if "://" not in url:
        return ""
    observer = RunObserver(url)
    ended = threading.Event()
    engine = create_engine(url.replace("://", "+psycopg://", 1))
    cut = 0

    def cutter():
        nonlocal cut
        while not ended.wait(0.02):
            with suppress(Exception), engine.begin() as connection:
                cut += connection.exec_driver_sql(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                ).scalar()

    def main(_run):
        for number in range(100):
            observer.solve({"outer_step": number, "trace": {"residual": [1.0]}})
            _run.log_scalar("m", float(number))
            time.sleep(0.01)
        ended.set()

    thread = threading.Thread(target=cutter)
    thread.start()
    run(observer, main)
    thread.join()
    engine.dispose()
    return wrong(
        solves=(count(url, observer), 100),
        values=(values(url, observer), [float(n) for n in range(100)]),
        status=(status(url, observer), "COMPLETED"), cut=(cut > 0, True),
    )  # fmt: skip


@trap
def a_run_that_is_called_dead_comes_back(url):
    from db.liveness import mark_died

    observer = RunObserver(url)
    seen = {}

    def main(_run):
        observer.solve({})
        observer.flush(20)
        mark_died(url, observer.uuid, "it seemed so")
        seen["called"] = status(url, observer)
        observer.heartbeat_event({}, "", datetime.now(), None)
        observer.flush(20)
        seen["then"] = status(url, observer)
        seen["stopped"] = Store(url).run(observer.uuid)["stopped_at"]

    run(observer, main, **{"--beat-interval": 60})
    return wrong(
        seen=(seen, {"called": "DIED", "then": "RUNNING", "stopped": None}),
        status=(status(url, observer), "COMPLETED"),
        message=(Store(url).run(observer.uuid)["fail_message"], None),
    )


@trap
def reap_leaves_a_living_run(url):
    from db.liveness import reap

    observer = RunObserver(url)
    found = []

    def main(_run):
        observer.flush(20)
        found.extend(dead for dead in reap(url) if dead["uuid"] == observer.uuid)

    run(observer, main)
    return wrong(reaped=(found, []), status=(status(url, observer), "COMPLETED"))


@trap
def tensors_with_their_graph_are_let_go(url):
    import gc
    import weakref

    import torch

    observer = RunObserver(url)
    kept = []

    def main(_run):
        for _ in range(20):
            x = torch.ones(1000, requires_grad=True)
            kept.append(weakref.ref(x))
            _run.log_scalar("m", (x * 2).sum())
            observer.solve({"residual_last": (x * 3).sum(), "trace": {"residual": x * 4}})
        del x
        time.sleep(0.2)
        gc.collect()
        found.append(sum(ref() is not None for ref in kept))

    found: list[int] = []
    run(observer, main)
    return wrong(alive=(found, [0]), values=(values(url, observer), [2000.0] * 20))


@trap
def exceptions_out_of_signal_handlers(url):
    class AlarmError(Exception):
        pass

    def alarm(*_):
        raise AlarmError

    chance = random.Random(0)
    observer = started(url)
    told, interrupted, number = [], 0, 0
    before = signal.signal(signal.SIGALRM, alarm)
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        number += 1
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 300e-6))
                place = observer.solve({"outer_step": number, "trace": {"residual": [1.0]}})
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            told.append((place, number))
        except AlarmError:
            interrupted += 1
    signal.signal(signal.SIGALRM, before)
    observer.completed_event(NOW, None)
    observer.flush()  # however long: thousands were told, more than a busy machine stores at once
    observer.join()
    run_id = Store(url).run(observer.uuid)["id"]
    found = Store(url).query(f"select ord, outer_step from solve where run_id = {run_id}")
    stored = set(zip(found["ord"], found["outer_step"], strict=True))
    refused = Store(url).query(
        f"select count(*) as n from rejected_event where run_uuid = '{observer.uuid}'"
    )
    return wrong(
        lost=(len(set(told) - stored), 0), refused=(int(refused["n"][0]), 0),
        interrupted=(interrupted > 0, True), status=(status(url, observer), "COMPLETED"),
    )  # fmt: skip


@trap
def forks_while_other_threads_record(url):
    observer = started(url)
    ended = threading.Event()

    def beat():
        while not ended.is_set():
            observer.heartbeat_event({"a": list(range(2000))}, "x", NOW, None)
            observer.log_metrics(logged(*[1.0] * 200), {})

    threads = [threading.Thread(target=beat) for _ in range(2)]
    for thread in threads:
        thread.start()
    hung = 0
    for _ in range(30):
        pid = os.fork()
        if pid == 0:  # uses what it has inherited, as it should not
            observer.solve({})
            observer.log_metrics(logged(1.0), {})
            observer.flush(5)
            observer.join()
            os._exit(0)
        end = time.monotonic() + 10
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                hung += 1
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.002)
    ended.set()
    for thread in threads:
        thread.join()
    observer.completed_event(NOW, None)
    observer.join()
    return wrong(
        hung=(hung, 0), solves=(count(url, observer), 0),
        status=(status(url, observer), "COMPLETED"),
    )  # fmt: skip


@trap
def a_foreign_experiment_is_attached(url):
    import torch
    from sacred import Experiment

    import solvers
    from experiments.runner.recording import attach

    foreign = Experiment("foreign", save_git_info=False, interactive=True)
    foreign.add_config({"reltol": 1e-6, "odd": {"a": [1]}})

    @foreign.main
    def main(_run, reltol):
        problem = solvers.FixedPointProblem(lambda z: torch.cos(z) / 2, torch.zeros(2, 3))
        for step in range(3):
            solution = solvers.solve(problem, solvers.Anderson(window=3), reltol=reltol)
            _run.log_scalar("loss", float(solution.residual.max()), step)
        _run.info["note"] = "kept"
        return {"steps": 3}

    attach(foreign, url)
    for _ in range(2):  # each with an observer of its own
        foreign.run(options=QUICK)
    runs = Store(url).runs()
    runs = runs[runs["experiment"] == "foreign"]
    solves = Store(url).solves()
    solves = solves[solves["run_id"].isin(runs["id"])]
    whole = [Store(url).run(int(n)) for n in runs["id"]]
    return wrong(
        ends=(list(runs["status"]), ["COMPLETED"] * 2), solves=(len(solves), 6),
        info=([r["info"] for r in whole], [{"note": "kept"}] * 2),
        results=([r["result"] for r in whole], [{"steps": 3}] * 2),
        traces=(len(Store(url).traces(solves["solve_id"])) > 6, True),
    )  # fmt: skip


@trap
def a_store_that_cannot_be_is_refused_in_one_sentence(url):
    faults = []
    places = ["/nowhere/at/all/store.db", "/proc/store.db", "/dev/null", "/etc/passwd", "/tmp"]
    for place in [*places, "mysql://x/y", "postgresql://x:y:z/q", "://", "sqlite://"]:
        observer = RunObserver(place)
        ran = []
        try:
            run(observer, lambda _run, ran=ran: ran.append(1))
        except StoreError as error:
            text = str(error)
            if "\n" in text or len(text) > 600 or not text.strip():
                faults.append(f"{place}: {text}")
        except BaseException as error:
            faults.append(f"{place}: {type(error).__name__}: {error}")
        else:
            faults.append(f"{place}: not refused")
        if ran:
            faults.append(f"{place}: it ran")
    return "; ".join(faults)


@trap
def a_server_that_is_away_at_the_start(url):
    if "://" not in url:
        return ""
    away = "postgresql://postgres@127.0.0.1:9/nothing"
    from db import journal

    observer = RunObserver(away, require_store=True)
    try:
        run(observer, lambda _run: None)
        return "require_store did not refuse"
    except StoreError as error:
        if "\n" in str(error):
            return f"refused by {error}"
    return wrong(journals=(len(journal.waiting(away)), 0))


def all_of(url: str, every: int = 1, first: int = 0) -> dict[str, str]:
    """Run every n-th trap: what is wrong by name."""
    faults = {}
    for name, function in list(TRAPS.items())[first::every]:
        try:
            faults[name] = function(url) or ""
        except BaseException:
            faults[name] = traceback.format_exc()[-1200:]
    return faults


__all__ = ["TRAPS", "all_of", "deeds"]
