"""The one Sacred observer: it hears what a run does and tells the writer.

Sacred's protocol has traps that this file answers (measured with sacred 0.8.7):

* an observer that raises in ``heartbeat_event`` or ``log_metrics`` is dropped for the rest of the
  run, so nothing raises there: it is logged, and what the database cannot take is tried again;
* the heartbeat comes from another thread, and may come after ``completed_event`` and ``join``;
* ``captured_out`` is the whole text at every beat, ``info`` the live dict, values may be anything;
* when ``started_event`` raises, ``failed_event`` and ``join`` follow, and no event names its run.
"""

import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

from sacred import SETTINGS
from sacred.observers import RunObserver as SacredObserver

from db import provenance
from db.encode import Plain, clean, number, short, snapshot
from db.errors import StoreError
from db.machine import environment, process
from db.outbox import Outbox, uninterrupted
from db.records import artifact_row, gradient_row, pack_blob, points, run_row, solve_row
from db.store import default_url, locate

__all__ = ["RunObserver"]

LOG = logging.getLogger(__name__)
LATE_PATIENCE = 5.0  # seconds that an event after the end of its run waits for the store
JOURNALLED = ("host", "pid", "pid_space", "boot_id", "proc_start")


class RunObserver(SacredObserver):
    """Records one Sacred run in the store. Make a new one for every run.

    Parameters
    ----------
    url
        Where the store is; None for ``db.default_url()``. It is opened, and made when it is not
        there, when the run starts.
    study, trial
        What the run is a part of, if anything; see ``v_runs``.
    parent
        Number of the run that this one goes on from.
    environment
        What is known about machine and software beside what Sacred gathers: ``python``, ``torch``,
        ``os``, ``cpu``, ``gpu`` (texts), ``packages`` (name to version), and anything else.
    require_store
        Whether the run may not begin while the store is away. Else it goes on, and its events wait
        in its journal (``db/journal.py``).

    Raises
    ------
    StoreError
        By ``started_event``: the store cannot be used, or the observer has had its run.

    Attributes
    ----------
    session
        Name of this very attempt, and of its journal.
    """

    priority = 50  # above Sacred's own, so that the run's id is ours

    def __init__(
        self,
        url: str | PathLike[str] | None = None,
        *,
        study: str | None = None,
        trial: str | None = None,
        parent: int | None = None,
        environment: Mapping[str, Any] | None = None,
        require_store: bool = False,
    ):
        self.session = str(uuid4())
        self._url = url
        self._require_store = require_store
        self._columns = {
            "study": study and short(study), "trial": trial and short(trial), "parent_id": parent
        }  # fmt: skip
        self._given_environment = dict(environment or {})
        self._lock = threading.RLock()
        _observers.add(self)
        self._refused: set[int] = set()  # threads whose run this is not
        self._outbox: Outbox | None = None
        self._ended = self._joined = False
        self._started_at: datetime | None = None
        self._solves = self._gradients = self._pieces = 0
        self._points: dict[str, int] = {}
        self._output = ""
        self._info: Plain = {}

    @property
    def uuid(self) -> str:
        """Identity of the run in any store, made here or given by Sacred's ``--id``."""
        return self._outbox.uuid if self._outbox else self.session

    @property
    def started(self) -> bool:
        """Whether the run has begun."""
        return self._outbox is not None

    @property
    def run_id(self) -> int | None:
        """Number of the run in this store; None as long as the store has not heard of it."""
        return self._outbox.run_id if self._outbox else None

    # What the recorder tells directly

    def solve(self, record: Mapping[str, Any]) -> int:
        """Record a solve and its trace; give its place among the solves of the run.

        Parameters
        ----------
        record
            Columns of table ``solve``, all optional, and ``trace``: ``evaluations``, ``seconds``,
            ``residual``, ``active``, each an array of one length or None. Numbers that are not
            finite are stored as NULL and named in ``extra.nonfinite``.

        Raises
        ------
        TypeError, ValueError
            A key is unknown or a value does not fit; nothing is recorded.
        StoreError
            There is no run yet.
        """
        row, trace = solve_row(record)
        with self._lock:
            self._recording()
            row["ord"] = place = self._solves
            # Before it is told: an exception out of a signal handler may fall between the two, and
            # a place that nobody has does no harm, one that two have does.
            self._solves += 1
            self._tell("solve", {"row": row, "trace": trace} if trace else {"row": row})
        return place

    def gradient(self, record: Mapping[str, Any]) -> int:
        """Record a gradient check; give its place among the checks of the run.

        Parameters
        ----------
        record
            Columns of table ``grad_check``, all optional; ``solve_ord`` and ``adjoint_ord`` are
            what ``solve`` gave for the two solves. Numbers as for ``solve``.

        Raises
        ------
        TypeError, ValueError, StoreError
            As for ``solve``.
        """
        row = gradient_row(record)
        with self._lock:
            for link in ("solve_ord", "adjoint_ord"):
                if row[link] is not None and not 0 <= row[link] < self._solves:
                    raise ValueError(
                        f"gradient record: {link} = {row[link]}: the run has {self._solves} solves"
                    )
            self._recording()
            row["ord"] = place = self._gradients
            self._gradients += 1  # as above
            self._tell("gradient", {"row": row})
        return place

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until the store has all that was told; False when it has not within ``seconds``."""
        return self._outbox is None or self._outbox.flush(seconds)

    # Sacred's protocol

    def queued_event(  # noqa: PLR0917 - the signature is Sacred's
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        queue_time: datetime,
        config: Mapping[str, Any],
        meta_info: Mapping[str, Any],
        _id: object,
    ) -> int | str:
        """A run is put off; nothing follows."""
        row = run_row(ex_info, command, config, meta_info, _id)
        row |= {"status": "QUEUED", "queued_at": _utc(queue_time)}
        known = self._start(row, ex_info, host_info, meta_info)
        assert self._outbox is not None
        self._outbox.close()
        return known

    def started_event(  # noqa: PLR0917 - the signature is Sacred's
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        start_time: datetime,
        config: Mapping[str, Any],
        meta_info: Mapping[str, Any],
        _id: object,
    ) -> int | str:
        """A run starts; its number (its uuid while it has none) becomes Sacred's ``_run._id``."""
        at = _utc(start_time)
        row = run_row(ex_info, command, config, meta_info, _id)
        row |= {"status": "RUNNING", "started_at": at, "heartbeat_at": at, "seconds": 0.0}
        return self._start(row, ex_info, host_info, meta_info)

    def heartbeat_event(
        self, info: Mapping[str, Any], captured_out: str, beat_time: datetime, result: object
    ) -> None:
        """The run is alive."""
        with self._quietly("a heartbeat"):
            at = _utc(beat_time)
            row: dict[str, Any] = {"heartbeat_at": at.isoformat()}
            if not self._ended:
                row["seconds"] = self._seconds(at)
            known = snapshot(info)
            if known != self._info:
                row["info"] = self._info = known
            output = self._new_output(captured_out or "")
            self._tell("beat", {"run": row} | ({"output": output} if output else {}))

    def log_metrics(
        self, metrics_by_name: Mapping[str, Mapping[str, Sequence[Any]]], info: Mapping[str, Any]
    ) -> None:
        """New points of series, with whatever values the user logged."""
        with self._quietly("metrics"):
            series = []
            for name, new in metrics_by_name.items():
                key = short(str(name))
                start = self._points.get(key, 0)
                series.append({"name": key, "start": start} | points(new))
                self._points[key] = start + len(new["values"])
            if series:
                self._tell("points", {"series": series})

    def completed_event(self, stop_time: datetime, result: object) -> None:
        """The run returned."""
        value = None if isinstance(result, bool) else number(result)[0]
        self._stop("COMPLETED", stop_time, {"result": snapshot(result), "result_value": value})

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        """Ctrl-C, or a SacredInterrupt with a status of its own."""
        self._stop(short(str(status)), interrupt_time, _failure(sys.exception(), None))

    def failed_event(self, fail_time: datetime, fail_trace: Sequence[str]) -> None:
        """An exception ended the run."""
        self._stop("FAILED", fail_time, _failure(sys.exception(), fail_trace))

    def artifact_event(
        self,
        name: str,
        filename: str,
        metadata: object = None,
        content_type: str | None = None,
    ) -> None:
        """A file that the run made is kept by its content."""
        self._file("artifact", name, filename, metadata, content_type)

    def resource_event(self, filename: str) -> None:
        """A file that the run reads is kept by its content."""
        self._file("resource", Path(filename).name, filename, None, None)

    def join(self) -> None:
        """The run is over: wait until the store has it, then let go of everything."""
        if threading.get_ident() in self._refused:
            self._refused.discard(threading.get_ident())
            return
        if self._outbox is not None:
            with self._lock:
                self._joined = True
            self._outbox.close()

    # Behind the protocol

    def _start(
        self,
        row: dict[str, Any],
        ex_info: Mapping[str, Any],
        host_info: Mapping[str, Any],
        meta_info: Mapping[str, Any],
    ) -> int | str:
        with self._lock:
            if self._outbox is not None:
                self._refused.add(threading.get_ident())
                raise StoreError(
                    f"this RunObserver records run {self.run_id or self.uuid}: "
                    "make a new one for every run"
                )
            running = process(host_info)
            program, contents = provenance.code(ex_info)
            row = {"uuid": self.session} | row | self._columns | running
            row["beat_interval"] = _beat_interval(meta_info)
            self._started_at = row.get("started_at")
            there = locate(self._url)
            # wherever the run goes: a relative path means the file that it means now
            url = default_url() if self._url is None else self._url
            file = there.file()
            header = {"session": self.session, "uuid": row["uuid"]} | {
                "store": there.shown(),
                "experiment": row["experiment"],
                **{name: running.get(name) for name in JOURNALLED},
            }
            outbox = Outbox(file.absolute() if file else url, header)
            given = {
                "run": {k: _text(v) if isinstance(v, datetime) else v for k, v in row.items()},
                "environment": environment(
                    host_info, ex_info.get("dependencies", ()), self._given_environment
                ),
                "code": program,
                "blobs": {name: pack_blob(data) for name, data in contents.items()},
            }
            with uninterrupted():
                outbox.begin(given, require_store=self._require_store)
                self._outbox = outbox
            return self.run_id or self.uuid

    def _recording(self) -> Outbox:
        if self._outbox is None:
            raise StoreError("there is no run yet: records belong to a run that has started")
        return self._outbox

    def _tell(self, kind: str, payload: dict[str, Any]) -> None:
        with self._lock:
            outbox = self._recording()
            outbox.put(kind, payload)
            if self._joined:  # a late event has opened everything again
                outbox.close(LATE_PATIENCE)

    def _stop(self, status: str, at: datetime, details: dict[str, Any]) -> None:
        if self._outbox is None or threading.get_ident() in self._refused:
            return
        with self._lock:
            self._ended = True
            end = _utc(at)
            row: dict[str, Any] = {"status": status, "seconds": self._seconds(end)}
            row |= dict.fromkeys(("stopped_at", "heartbeat_at"), end.isoformat())
            self._tell("stop", {"run": row | details})

    def _file(
        self, kind: str, name: str, path: str, metadata: object, content_type: str | None
    ) -> None:
        with self._quietly(f"the {kind} {name!r}"):
            row, blobs = artifact_row(kind, name, path, metadata, content_type)
            self._tell("artifact", {"row": row, "blobs": blobs})

    def _seconds(self, at: datetime) -> float | None:
        return (at - self._started_at).total_seconds() if self._started_at else None

    def _new_output(self, text: str) -> tuple[int, str] | None:
        """What was printed since the last beat: all of it comes, and Sacred's filters may edit."""
        if text == self._output:
            return None
        if not text.startswith(self._output):
            self._pieces = 0
            self._output = ""
        new = self._pieces, clean(text[len(self._output) :])
        self._output = text
        self._pieces += 1
        return new

    @contextmanager
    def _quietly(self, what: str) -> Iterator[None]:
        """Hold the lock, and log what is raised: Sacred would drop this observer."""
        with self._lock:
            try:
                yield
            except Exception as error:
                LOG.error("%s of run %s could not be stored: %s", what, self.run_id, error)


_observers: "weakref.WeakSet[RunObserver]" = weakref.WeakSet()


def _after_fork() -> None:
    """Another thread may have held a lock at the fork; in the child nobody lets go of it."""
    for observer in _observers:
        observer._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _utc(moment: datetime) -> datetime:
    """Sacred's times are UTC and do not say so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(moment: datetime) -> str:
    return moment.isoformat()


def _beat_interval(meta_info: Mapping[str, Any]) -> float | None:
    """Seconds between two signs of life, as Sacred was told."""
    options = meta_info.get("options")
    given = options.get("--beat-interval") if isinstance(options, Mapping) else None
    value, _ = number(given if given is not None else SETTINGS.get("DEFAULT_BEAT_INTERVAL", 10.0))
    return value


def _failure(error: BaseException | None, trace: Sequence[str] | None) -> dict[str, Any]:
    """The columns about the exception that ends a run; Sacred calls while it is handled."""
    text = clean("".join(trace)) if trace else None
    if error is None:
        return {"fail_trace": text}
    try:
        message = clean(str(error))
    except Exception:  # an exception whose text fails is still stored
        message = ""
    return {"fail_type": type(error).__name__, "fail_message": message, "fail_trace": text}
