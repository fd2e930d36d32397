"""What children do: Sacred runs that tell through their pipe what was told to the observer.

A deed is called with ``tell`` and plain arguments. Whatever it records is made from its seed and a
counter alone, so that the audit knows what must be in the store.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
sys.path.append(str(Path(__file__).parents[1] / "db"))
sys.path.append(str(Path(__file__).parents[2]))

import sacred  # noqa: E402
from sacred import SETTINGS, Experiment  # noqa: E402
from sacred.observers import SqlObserver  # noqa: E402
from sacred.utils import SacredInterrupt  # noqa: E402

import db.outbox  # noqa: E402
from db import RunObserver  # noqa: E402
from db.sync import sync as synchronise  # noqa: E402

with contextlib.suppress(ImportError):
    import psycopg  # noqa: F401
with contextlib.suppress(ImportError):  # once for all children
    import torch  # noqa: F401

    import solvers  # noqa: F401

SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False
SETTINGS.DISCOVER_SOURCES = "none"
SETTINGS.DISCOVER_DEPENDENCIES = "none"

CONFIG = {"solver": {"name": "picard"}, "model": {"name": "toy"}, "reltol": 1e-3}
QUIET = {"--capture": "no", "--loglevel": "CRITICAL"}
LENGTH = 20  # points of a trace


class Telling(RunObserver):
    """An observer that says when each event has been told to the store."""

    def __init__(self, tell, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.process = os.getpid()
        self._pipe = tell
        self.points: dict[str, int] = {}

    def tell(self, **event):
        if os.getpid() == self.process:  # what a fork does with its copy counts for nothing
            self._pipe(**event)

    def started_event(self, *event, **more):
        number = super().started_event(*event, **more)
        self.tell(started=self.uuid)
        return number

    def solve(self, record):
        place = super().solve(record)
        self.tell(solve=place)
        return place

    def gradient(self, record):
        place = super().gradient(record)
        self.tell(gradient=place)
        return place

    def log_metrics(self, metrics_by_name, info):
        super().log_metrics(metrics_by_name, info)
        for name, new in metrics_by_name.items():
            self.points[name] = self.points.get(name, 0) + len(new["values"])
        if metrics_by_name:
            self.tell(points=dict(self.points))

    def heartbeat_event(self, info, captured_out, beat_time, result):
        super().heartbeat_event(info, captured_out, beat_time, result)
        if captured_out:
            self.tell(printed=len(captured_out))

    def completed_event(self, *event, **more):
        super().completed_event(*event, **more)
        self.tell(stopped="COMPLETED")

    def interrupted_event(self, interrupt_time, status):
        super().interrupted_event(interrupt_time, status)
        self.tell(stopped=str(status))

    def failed_event(self, *event, **more):
        super().failed_event(*event, **more)
        self.tell(stopped="FAILED")

    def join(self):
        super().join()
        self.tell(joined=True)


def experiment(observer, main, config=None, name="torture", interactive=True):
    """A Sacred experiment with one observer."""
    made = Experiment(name, save_git_info=False, interactive=interactive)
    made.add_config(CONFIG | (config or {}))
    if observer is not None:
        made.observers.append(observer)
    made.main(main)
    return made


def column(seed: int, number: int, name: str) -> np.ndarray:
    """A column of the trace of the solve with this number: exact, and no two alike."""
    k = np.arange(LENGTH, dtype=np.float64)
    return {
        "evaluations": k + 1,
        "seconds": k / 1024 + number,
        "residual": 2.0**-k + number + seed * 4096.0,
        "active": LENGTH - k,
    }[name]


def record(seed: int, number: int) -> dict[str, Any]:
    """The solve with this number."""
    names = ("evaluations", "seconds", "residual", "active")
    return {
        "phase": "forward",
        "solver": "picard",
        "outer_step": number,
        "evaluations": seed,
        "seconds": number / 1024,
        "options": {"number": number},
        "trace": {name: column(seed, number, name) for name in names},
    }


def line(seed: int, number: int) -> str:
    """What is printed after this solve."""
    return f"run {seed} has done {number}"


def work(
    tell,
    url: str,
    seed: int,
    *,
    solves: int,
    pause: float = 0.0,
    beat: float = 0.1,
    options: dict[str, Any] | None = None,
    gate: float = 0.0,
    patience: float = 30.0,
    small: bool = False,
):
    """A run: solves with traces, a gradient for every third, two series, output.

    ``small``: the journal is shortened, and read again for what does not fit in memory, all the
    time and not after a million events.
    """
    db.outbox.PATIENCE = patience
    if small:
        db.outbox.LARGEST_JOURNAL, db.outbox.LONGEST_QUEUE = 4000, 10
    if gate:
        time.sleep(max(0.0, gate - time.time()))
    observer = Telling(tell, url)

    def main(_run):
        for number in range(solves):
            place = observer.solve(record(seed, number))
            if number % 3 == 0:
                observer.gradient({"method": "implicit", "solve_ord": place, "n": number})
            _run.log_scalar("loss", number + seed / 1024, number)
            _run.log_scalar("half", 0.5 * number, 0.5 * number)
            print(line(seed, number))
            if pause:
                time.sleep(pause)
        _run.info["done"] = solves
        tell(worked=solves)
        return float(seed)

    tell(begun=True)
    made = experiment(observer, main, {"seed": seed})
    given = {"--beat-interval": beat, "--loglevel": "ERROR", "--capture": "sys"}
    made.run(options=given | (options or {}))
    tell(ran=True, id=observer.run_id)


def sacred_starts(tell, url: str, seed: int, gate: float):
    """The same for Sacred's own observer, which knows no solves."""
    time.sleep(max(0.0, gate - time.time()))
    observer = SqlObserver(url)

    def main(_run):
        for number in range(100):
            _run.log_scalar("loss", number)
        return 1.0

    experiment(observer, main, {"seed": seed}).run(options=QUIET)
    tell(ran=True)


def sync(tell, url: str):
    """Sync, perhaps beside others, perhaps to be killed."""
    tell(begun=True)
    done = synchronise(url)
    tell(synced=done.events)


def storm(tell, url: str, seconds: float):
    """Sync all the time."""
    end = time.monotonic() + seconds
    tell(begun=True)
    syncs = 0
    while time.monotonic() < end:
        synchronise(url)
        syncs += 1
    tell(syncs=syncs)


def kill_at_statement(tell, url: str, seed: int, at: int, commit: bool):
    """A run whose process is killed at a statement, or at a commit, that is counted."""
    from sqlalchemy import Engine, event

    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit" if commit else "before_cursor_execute", count)
    work(tell, url, seed, solves=12, pause=0.01, beat=0.05)


def fork_inside(tell, url: str, seed: int, children: int, way: str):
    """A run that forks: by ``os.fork`` with a quick or a whole exit, or by multiprocessing.

    Its children do what they should not: they use what they have inherited.
    """
    import multiprocessing

    observer = Telling(tell, url)

    def child(number: int) -> None:
        print("from a child")
        if way.startswith("solving"):
            try:
                observer.solve(record(seed, 10_000 + number))
            except Exception as error:
                print(f"refused: {error}", file=sys.stderr)

    def main(_run):
        for number in range(30):
            observer.solve(record(seed, number))
            _run.log_scalar("loss", number + seed / 1024, number)
            if number % 10 != 5:
                continue
            if way.endswith("multiprocessing"):
                context = multiprocessing.get_context("fork")
                workers = [context.Process(target=child, args=(n,)) for n in range(children)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join(30)
                    if worker.is_alive():
                        tell(hung=worker.pid)
                        worker.kill()
            else:
                for n in range(children):
                    pid = os.fork()
                    if pid == 0:
                        child(n)
                        if way.endswith("quick"):
                            os._exit(0)
                        if way == "exit":  # Sacred tells the copy of the observer of its end
                            sys.exit(0)
                        # as a child that leaves through the interpreter's end: atexit and threads
                        threading._shutdown()
                        import atexit

                        atexit._run_exitfuncs()
                        os._exit(0)
                    end = time.monotonic() + 30
                    while os.waitpid(pid, os.WNOHANG)[0] == 0:
                        if time.monotonic() > end:
                            tell(hung=pid)
                            os.kill(pid, signal.SIGKILL)
                            os.waitpid(pid, 0)
                            break
                        time.sleep(0.005)
        tell(worked=30)
        return float(seed)

    made = experiment(observer, main, {"seed": seed})
    made.run(options={"--beat-interval": 0.05, "--loglevel": "ERROR", "--capture": "no"})
    tell(ran=True)


def threads_inside(tell, url: str, seed: int, threads: int, solves: int):
    """A run whose threads all record at once; the order is theirs."""
    observer = RunObserver(url)

    def main(_run):
        def some(number: int) -> None:
            for step in range(solves):
                observer.solve({"evaluations": seed, "outer_step": number * solves + step})
                _run.log_scalar(f"series {number}", step)

        workers = [threading.Thread(target=some, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    experiment(observer, main, {"seed": seed}).run(
        options={"--beat-interval": 0.02, "--loglevel": "ERROR", "--capture": "no"}
    )
    tell(ran=True)


def runs_at_once(tell, url: str, seeds: list[int], solves: int):
    """Several runs in threads of one process."""

    def one(seed: int) -> None:
        observer = RunObserver(url)

        def main(_run):
            for number in range(solves):
                observer.solve(record(seed, number))
                _run.log_scalar("loss", number + seed / 1024, number)
                _run.log_scalar("half", 0.5 * number, 0.5 * number)
            return float(seed)

        experiment(observer, main, {"seed": seed}).run(
            options={"--beat-interval": 0.05, "--loglevel": "ERROR", "--capture": "no"}
        )

    workers = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tell(ran=True)


def signalled(tell, url: str, seed: int, way: str):
    """A run that waits for a signal, or leaves by itself."""
    observer = Telling(tell, url)

    def main(_run):
        for number in range(5):
            observer.solve(record(seed, number))
        _run.log_scalar("loss", 1.0)
        if way == "sys.exit":
            sys.exit(0)
        if way == "os._exit":
            os._exit(3)
        tell(ready=True)
        while True:
            time.sleep(0.01)
            if way == "busy":
                observer.solve(record(seed, number := number + 1))

    experiment(observer, main, {"seed": seed}).run(
        options={"--beat-interval": 0.05, "--loglevel": "ERROR", "--capture": "no"}
    )


__all__ = ["CONFIG", "QUIET", "SacredInterrupt", "Telling", "experiment", "sacred", "synchronise"]


def odd_values(tell, url: str, peer: bool, every: int = 1, first: int = 0):
    """Every n-th case of ``values``."""
    import values

    tell(faults=values.theirs(url) if peer else values.ours(url, every, first))


def traps(tell, url: str, every: int = 1, first: int = 0):
    """Every n-th trap of ``traps``."""
    import traps

    tell(faults=traps.all_of(url, every, first))


def attached(tell, url: str, seed: int, patience: float = 30.0):
    """Somebody's experiment, attached, which works until a signal comes."""
    from experiments.runner.recording import attach

    db.outbox.PATIENCE = patience
    foreign = Experiment("torture", save_git_info=False, interactive=True)
    foreign.add_config(CONFIG | {"seed": seed})

    @foreign.main
    def main(_run):
        number = 0
        while True:
            _run.log_scalar("loss", number + seed / 1024, number)
            number += 1
            if number == 20:
                tell(ready=True)
            time.sleep(0.005)

    attach(foreign, url)
    foreign.run(options={"--beat-interval": 0.05, "--loglevel": "ERROR", "--capture": "no"})


def disk(tell, **arguments):
    """One case of ``disks``."""
    import disks

    disks.case(tell, **arguments)


def speed(tell, name: str, **arguments):
    """One measure of ``speeds``."""
    import speeds

    tell(result=getattr(speeds, name)(**arguments))
