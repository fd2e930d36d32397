"""Engines: where the trials of a study run.

An engine takes the name of a function and specs, calls ``function(spec, report)`` for each
somewhere, and tells what happens as events. It never raises for a trial. A process that dies loses
its trial and no other, so there is one process a worker and nothing shared between them.
"""

from __future__ import annotations

import contextlib
import enum
import faulthandler
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

Report = Callable[[Any], None]
Specs = Mapping[str, Mapping[str, Any]]

PATIENCE = 30.0
"""Seconds that an interrupted trial has to record its end."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Kind(enum.Enum):
    """What happened to a trial."""

    STARTED = "started"
    REPORTED = "reported"  # what the function gave to ``report``
    RETURNED = "returned"  # its result
    RAISED = "raised"  # a Raised
    DIED = "died"  # how the process ended, in a sentence
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Event:
    """Something that happened to the trial ``key``."""

    kind: Kind
    key: str
    value: Any = None


@dataclass(frozen=True)
class Raised:
    """An exception of the function, as text."""

    type: str
    message: str
    trace: str


class Engine(Protocol):
    """Where the trials of a study run."""

    def imap(self, function: str, specs: Specs) -> Iterator[Event]:
        """Call ``function`` (``module:name``) for every spec and yield what happens, as it happens.

        Closing the iterator interrupts what runs and waits until it has ended.
        """


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    log: Path
    key: str = ""


@dataclass
class LocalProcesses:
    """``workers`` processes on this machine, each with one thread a library, used again and again.

    Parameters
    ----------
    workers
        How many trials run at a time. Where seconds are measured, 1.
    """

    workers: int = 1
    _idle: list[_Worker] = field(default_factory=list, repr=False)
    _busy: list[_Worker] = field(default_factory=list, repr=False)

    def imap(self, function: str, specs: Specs) -> Iterator[Event]:
        """See :meth:`Engine.imap`."""
        waiting = dict(specs)
        logs = Path(tempfile.mkdtemp(prefix="deq-"))
        try:
            while waiting or self._busy:
                while waiting and len(self._busy) < self.workers:
                    key = next(iter(waiting))
                    yield self._start(key, function, waiting.pop(key), logs)
                ready = wait([worker.connection for worker in self._busy])
                for worker in [w for w in self._busy if w.connection in ready]:
                    yield self._receive(worker)
        finally:
            self._stop()
            shutil.rmtree(logs, ignore_errors=True)

    def _start(self, key: str, function: str, spec: Mapping[str, Any], logs: Path) -> Event:
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]
        worker = self._idle.pop() if self._idle else _spawn(logs)
        worker.key = key
        self._busy.append(worker)
        with contextlib.suppress(OSError):  # it died just now: its connection tells
            worker.connection.send((function, spec))
        return Event(Kind.STARTED, key)

    def _receive(self, worker: _Worker) -> Event:
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            self._busy.remove(worker)
            return Event(Kind.DIED, worker.key, _obituary(worker))
        if kind is not Kind.REPORTED:
            self._busy.remove(worker)
            self._idle.append(worker)
        return Event(kind, worker.key, value)

    def _stop(self) -> None:
        workers = [*self._idle, *self._busy]
        try:
            for worker in self._busy:
                if worker.process.pid and worker.process.is_alive():
                    os.kill(worker.process.pid, signal.SIGINT)
            for worker in workers:
                worker.connection.close()  # what an idle worker waits for
            for worker in workers:
                worker.process.join(PATIENCE)
        finally:  # a second ctrl-C ends the waiting
            for worker in workers:
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
            self._idle.clear()
            self._busy.clear()


def _spawn(logs: Path) -> _Worker:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    log = logs / f"{len(list(logs.iterdir()))}.log"
    log.touch()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, str(log)), name="deq-worker"
    )
    # A new process inherits that it ignores ctrl-C until a trial runs in it.
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main_thread else None
    try:
        process.start()
    finally:
        if main_thread:
            signal.signal(signal.SIGINT, before)
    theirs.close()
    return _Worker(process, ours, log)


def _obituary(worker: _Worker) -> str:
    worker.process.join(PATIENCE)
    code = worker.process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        how = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        how = f"ended with exit code {code}"
    last = worker.log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
    return f"the worker process {how}" + (f"\nit printed last:\n{last}" if last else "")


def _serve(connection: Connection, log: str) -> None:
    """Live as a worker: call what comes through the connection until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for variable in _THREADS:  # read when torch and NumPy are imported, which is later
        os.environ.setdefault(variable, "1")
    # The terminal belongs to the study; what the last trials print is kept in case of a crash.
    with Path(log).open("r+", encoding="utf-8", buffering=1) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        faulthandler.enable(sys.stderr)
        while True:
            try:
                function, spec = connection.recv()
            except (EOFError, OSError):
                return
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
            answer = _call(function, spec, connection)
            with contextlib.suppress(OSError):  # nobody waits for it any more
                connection.send(answer)


def _call(function: str, spec: Mapping[str, Any], connection: Connection) -> tuple[Kind, Any]:
    module, _, name = function.partition(":")
    try:
        with _interruptible():
            call = getattr(importlib.import_module(module), name)
            return Kind.RETURNED, call(spec, lambda value: connection.send((Kind.REPORTED, value)))
    except KeyboardInterrupt:
        return Kind.INTERRUPTED, None
    except BaseException as error:  # a trial may raise anything, SystemExit too
        trace = traceback.format_exc()
        return Kind.RAISED, Raised(type(error).__name__, str(error), trace)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first SIGINT interrupt the block; a second must not disturb the recording of it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
