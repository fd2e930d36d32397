"""The one Sacred observer: it hears what a run does and tells the writer.

Sacred's protocol has traps that this file answers (measured with sacred 0.8.7):

* an observer that raises in ``heartbeat_event`` or ``log_metrics`` is dropped for the rest of the
  run, so nothing raises there: it is logged, and what the database cannot take is tried again;
* the heartbeat comes from another thread, and may come after ``completed_event`` and ``join``;
* ``captured_out`` is the whole text at every beat, ``info`` the live dict, values may be anything;
* when ``started_event`` raises, ``failed_event`` and ``join`` follow, and no event names its run.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from os import PathLike
from typing import Any
from uuid import uuid4

from sacred.observers import RunObserver as SacredObserver
from sqlalchemy.exc import DBAPIError

from db.encode import Plain, clean, number, snapshot
from db.errors import StoreError
from db.machine import environment, process
from db.outbox import Outbox, uninterrupted
from db.records import gradient_row, run_row, solve_row
from db.writer import Output, Points, SqlWriter, Writer

__all__ = ["RunObserver"]

LOG = logging.getLogger(__name__)


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

    Raises
    ------
    StoreError
        By ``started_event``: the store cannot be used, or the observer has had its run.

    Attributes
    ----------
    uuid
        Identity of the run in any store, made here (or given by Sacred's ``--id``).
    run_id
        Number of the run in this store; None before it starts.
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
    ):
        self.uuid = str(uuid4())
        self.run_id: int | None = None
        self._url = url
        self._columns = {"study": study, "trial": trial, "parent_id": parent}
        self._given_environment = dict(environment or {})
        self._lock = threading.RLock()
        self._refused: set[int] = set()  # threads whose run this is not
        self._writer: Writer
        self._outbox = Outbox()
        self._ended = self._joined = False
        self._started_at: datetime | None = None
        self._solves = self._gradients = self._pieces = 0
        self._points: dict[str, int] = {}
        self._output = ""
        self._info: Plain = {}
        self._warned_of_files = False

    # What the recorder tells directly

    def solve(self, record: Mapping[str, Any]) -> int:
        """Store a solve at once, and its trace; give its place among the solves of the run.

        Parameters
        ----------
        record
            Columns of table ``solve``, all optional, and ``trace``: ``evaluations``, ``seconds``,
            ``residual``, ``active``, each an array of one length or None. Numbers that are not
            finite are stored as NULL and named in ``extra.nonfinite``.

        Raises
        ------
        TypeError, ValueError
            A key is unknown or a value does not fit; nothing is stored.
        StoreError
            The database refused it. When it is only away or busy, the record is tried again later.
        """
        row, trace = solve_row(record)
        with self._lock:
            row["ord"] = place = self._solves
            self._solves += 1
            self._tell(lambda: self._writer.solve(row, trace))
        return place

    def gradient(self, record: Mapping[str, Any]) -> int:
        """Store a gradient check at once; give its place among the checks of the run.

        Parameters
        ----------
        record
            Columns of table ``grad_check``, all optional; ``solve_ord`` and ``adjoint_ord`` are
            what ``solve`` gave for the two solves. Numbers as for ``solve``.

        Raises
        ------
        TypeError, StoreError
            As for ``solve``.
        """
        row = gradient_row(record)
        with self._lock:
            row["ord"] = place = self._gradients
            self._gradients += 1
            self._tell(lambda: self._writer.gradient(row))
        return place

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
    ) -> int:
        """A run is put off; nothing follows."""
        row = run_row(ex_info, command, config, meta_info, _id)
        row |= {"status": "QUEUED", "queued_at": _utc(queue_time)}
        number = self._start(row, ex_info, host_info)
        self._writer.close()
        return number

    def started_event(  # noqa: PLR0917 - the signature is Sacred's
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        start_time: datetime,
        config: Mapping[str, Any],
        meta_info: Mapping[str, Any],
        _id: object,
    ) -> int:
        """A run starts; its number becomes Sacred's ``_run._id``."""
        at = _utc(start_time)
        row = run_row(ex_info, command, config, meta_info, _id)
        row |= {"status": "RUNNING", "started_at": at, "heartbeat_at": at, "seconds": 0.0}
        return self._start(row, ex_info, host_info)

    def heartbeat_event(
        self, info: Mapping[str, Any], captured_out: str, beat_time: datetime, result: object
    ) -> None:
        """The run is alive."""
        with self._quietly("a heartbeat"):
            at = _utc(beat_time)
            row: dict[str, Any] = {"heartbeat_at": at}
            if not self._ended:
                row["seconds"] = self._seconds(at)
            known = snapshot(info)
            if known != self._info:
                row["info"] = self._info = known
            output = self._new_output(captured_out or "")
            self._tell(lambda: self._writer.heartbeat(row, output))

    def log_metrics(
        self, metrics_by_name: Mapping[str, Mapping[str, Sequence[Any]]], info: Mapping[str, Any]
    ) -> None:
        """New points of series, with whatever values the user logged."""
        with self._quietly("metrics"):
            points = []
            for name, new in metrics_by_name.items():
                values = [number(value) for value in new["values"]]
                key = clean(str(name))
                start = self._points.get(key, 0)
                self._points[key] = start + len(values)
                points.append(
                    Points(
                        key,
                        start,
                        [number(step)[0] for step in new["steps"]],
                        [value for value, _ in values],
                        [flag for _, flag in values],
                        [_utc(moment).timestamp() for moment in new["timestamps"]],
                    )
                )
            if points:
                self._tell(lambda: self._writer.points(points))

    def completed_event(self, stop_time: datetime, result: object) -> None:
        """The run returned."""
        value = None if isinstance(result, bool) else number(result)[0]
        self._stop("COMPLETED", stop_time, {"result": snapshot(result), "result_value": value})

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        """Ctrl-C, or a SacredInterrupt with a status of its own."""
        self._stop(clean(str(status)), interrupt_time, _failure(sys.exception(), None))

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
        """Say that files are not kept."""
        if not self._warned_of_files:
            self._warned_of_files = True
            LOG.warning("the store keeps no files: %s is not stored", filename)

    def resource_event(self, filename: str) -> None:
        """Say that files are not kept."""
        self.artifact_event(filename, filename)

    def join(self) -> None:
        """The run is over: a last try at what the database could not take, then close."""
        if threading.get_ident() in self._refused:
            self._refused.discard(threading.get_ident())
            return
        if self.run_id is None:
            return
        with self._quietly("the end"), uninterrupted():
            self._joined = True
            self._outbox.flush()
            self._writer.close()
            if self._outbox:
                LOG.error(
                    "%d records of run %d could not be stored and are lost with this process",
                    len(self._outbox), self.run_id,
                )  # fmt: skip

    # Behind the protocol

    def _start(
        self, row: dict[str, Any], ex_info: Mapping[str, Any], host_info: Mapping[str, Any]
    ) -> int:
        with self._lock:
            if self.run_id is not None:
                self._refused.add(threading.get_ident())
                raise StoreError(
                    f"this RunObserver records run {self.run_id}: make a new one for every run"
                )
            row = {"uuid": self.uuid} | row | self._columns | process(host_info)
            place = environment(host_info, ex_info.get("dependencies", ()), self._given_environment)
            with uninterrupted():
                self._writer = SqlWriter(self._url)
                try:
                    self.run_id, self.uuid = self._writer.start(row, place)
                except DBAPIError as error:
                    self._writer.close()
                    raise StoreError(f"the store refused the run: {error.orig}") from error
            self._started_at = row.get("started_at")
            return self.run_id

    def _tell(self, event: Callable[[], None]) -> None:
        with self._lock:
            if self.run_id is None:
                raise StoreError("there is no run yet: records belong to a run that has started")
            with uninterrupted():
                try:
                    self._outbox.deliver(event)
                finally:
                    if self._joined:  # a late event has opened the database again
                        self._writer.close()

    def _stop(self, status: str, at: datetime, details: dict[str, Any]) -> None:
        if self.run_id is None or threading.get_ident() in self._refused:
            return
        with self._lock:
            self._ended = True
            end = _utc(at)
            row = {"status": status, "stopped_at": end, "heartbeat_at": end}
            row["seconds"] = self._seconds(end)
            try:
                self._tell(lambda: self._writer.stop(row | details))
            except StoreError:
                # the end is worth more than what it came with
                self._tell(lambda: self._writer.stop(row))
                raise

    def _seconds(self, at: datetime) -> float | None:
        return (at - self._started_at).total_seconds() if self._started_at else None

    def _new_output(self, text: str) -> Output | None:
        """What was printed since the last beat: all of it comes, and Sacred's filters may edit."""
        if text == self._output:
            return None
        if not text.startswith(self._output):
            self._pieces = 0
            self._output = ""
        new = Output(self._pieces, clean(text[len(self._output) :]))
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


def _utc(moment: datetime) -> datetime:
    """Sacred's times are UTC and do not say so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


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
