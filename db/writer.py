"""The way of events into SQL: batches, each in one transaction that may be repeated without harm.

A run's row says which of its events is the last that is stored (``last_seq``). A batch locks the
row, leaves out what is stored already, adds the rest and moves ``last_seq`` on, all in one
transaction; so whatever became of a transaction whose answer was lost, or of the process that
began it, the same events can be given again. An event that the database refuses is put aside in
``rejected_event`` and holds up none of those that follow.
"""

import base64
import logging
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count, repeat
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Insert,
    Table,
    bindparam,
    case,
    cast,
    delete,
    insert,
    select,
    update,
)

from db.dialects import insert_many, insert_missing, passing, reason
from db.encode import canonical, clean, digest, flatten, plain, unpack_array
from db.errors import StoreAway, StoreError
from db.journal import Event
from db.schema import (
    Artifact,
    Base,
    Blob,
    Code,
    Environment,
    GradCheck,
    Point,
    RejectedEvent,
    Run,
    RunConfig,
    RunOutput,
    Series,
    Solve,
    SolveTrace,
)
from db.store import connect

__all__ = ["BATCH", "SqlWriter", "Stored"]

LOG = logging.getLogger(__name__)
Row = dict[str, Any]

BATCH = 500  # events of one transaction
CODEC = "float64 little-endian, zlib"
POINT = ("series_id", "ord", "step", "value", "flag", "t")
TRACE = ("solve_id", "column", "n", "codec", "data")
TIMES = ("queued_at", "started_at", "heartbeat_at", "stopped_at")  # columns of ``run``
# What of an event that the database refused can be told without it.
ENDS = ("status", "stopped_at", "heartbeat_at")
BEGINS = (
    "uuid", "experiment", "status", "started_at", "queued_at", "heartbeat_at", "study", "trial",
    "host", "pid", "pid_space", "boot_id", "proc_start",
)  # fmt: skip


class Stored(NamedTuple):
    """Where a run is in the store."""

    run_id: int
    uuid: str
    status: str
    refused: int  # events of the batch that were put aside


class SqlWriter:
    """Stores events of runs.

    Raises
    ------
    StoreError
        By ``connect`` (see ``db.store.connect``).
    StoreAway
        By ``store`` too: nothing, or only a first part of the events, is stored; give all again.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None):
        self._url = url
        self._engine: Engine | None = None
        self._series: dict[tuple[int, str], int] = {}

    def connect(self) -> None:
        """Open the store, and make it when it is empty."""
        if self._engine is None:
            self._engine = connect(self._url)

    def close(self) -> None:
        """Let go of files and connections; the next events open them again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def store(self, session: str, events: Sequence[Event], *, living: bool = True) -> Stored:
        """Store events of a run that are not stored yet.

        Parameters
        ----------
        session
            Which run, or rather which attempt at it.
        events
            In their order, the first of all being its start.
        living
            Whether the run goes on: then one that was taken for dead is RUNNING again.
        """
        try:
            try:
                return self._batch(session, events, living)
            except Exception as error:
                if _passing(error):
                    raise
            refused = 0
            for event in events:
                try:
                    stored = self._batch(session, [event], living)
                except Exception as error:
                    if _passing(error):
                        raise
                    stored = self._put_aside(session, event, reason(error)[:1000], living)
                    refused += 1
            return stored._replace(refused=refused)
        except Exception as error:
            self._series.clear()
            if isinstance(error, StoreAway):
                raise
            raise StoreAway(f"the store takes nothing now ({reason(error)[:1000]})") from error

    def find(self, session: str) -> Stored | None:
        """Where the run of a session is, if the store has it."""
        self.connect()
        assert self._engine is not None
        with self._engine.begin() as connection:
            found = connection.execute(FIND, {"session": session}).one_or_none()
        return None if found is None else Stored(found.id, found.uuid, found.status, 0)

    # One transaction

    def _batch(
        self, session: str, events: Sequence[Event], living: bool, aside: Row | None = None
    ) -> Stored:
        self.connect()
        assert self._engine is not None
        new: dict[tuple[int, str], int] = {}
        with self._engine.begin() as connection:
            found = connection.execute(FIND, {"session": session}).one_or_none()
            if found is None:
                run_id, uuid, status, began = self._start(connection, session, events[0])
                events = events[1:]
            else:
                run_id, uuid, last, status, began = found
                events = [event for event in events if event.seq > last]
            if events:
                batch = _Batch(connection, run_id, self._series, new)
                for event in events:
                    batch.add(event)
                row = batch.finish()
                row["last_seq"] = events[-1].seq
                if status in ("RUNNING", "DIED") and "status" not in row:
                    row |= _alive(events[-1].at, began, row.get("heartbeat_at"))
                if status == "DIED":
                    row = _revived(row, living)
                status = row.get("status", status)
                connection.execute(update(RUN).where(RUN.c.id == run_id).values(row))
            if aside is not None:
                insert_missing(connection, REJECTED, {"run_uuid": uuid} | aside)
        self._series |= new  # not before the transaction is kept
        return Stored(run_id, uuid, status, 0)

    def _start(
        self, connection: Connection, session: str, event: Event
    ) -> tuple[int, str, str, datetime | None]:
        if event.kind != "start":
            raise _RefusedError(f"the store has no run of the session {session}")
        payload = event.payload
        given: Row = payload["run"]
        config = dict(given["config"])
        leaves = [leaf._asdict() for leaf in flatten(config)]
        config.pop("seed", None)
        row = _timed(given) | {
            "session": session,
            "last_seq": event.seq,
            "config_hash": digest(config),
            "environment_id": _shared(connection, ENVIRONMENT, payload["environment"]),
            "code_id": _shared(connection, CODE, payload.get("code")),
        }
        _keep(connection, payload.get("blobs") or {})
        first = connection.scalar(select(RUN.c.id).where(RUN.c.uuid == row["uuid"]))
        if first is not None:  # somebody gave this id before: a new attempt at that run
            row |= {"uuid": session, "parent_id": first}
        run_id = _insert(connection, Run, row)
        if leaves:
            connection.execute(INSERT[RunConfig], [{"run_id": run_id} | leaf for leaf in leaves])
        return run_id, row["uuid"], row["status"], row.get("started_at")

    # What is refused

    def _put_aside(self, session: str, event: Event, why: str, living: bool) -> Stored:
        """Keep a refused event where it is in nobody's way, and what of it can be stored."""
        row = {
            "session": session,
            "seq": event.seq,
            "kind": event.kind,
            "payload": canonical(plain(event.payload)),
            "error": clean(why),
            "rejected_at": datetime.now(UTC),
        }
        stored = self._batch(session, [_bare(event)], living, aside=row)
        LOG.error(
            "the store refused a %s of run %d, which is kept in its table rejected_event: %s",
            event.kind, stored.run_id, why,
        )  # fmt: skip
        return stored


class _Batch:
    """The rows of some events of a run, table by table."""

    def __init__(
        self,
        connection: Connection,
        run_id: int,
        known: Mapping[tuple[int, str], int],
        new: dict[tuple[int, str], int],
    ):
        self._connection, self._run_id = connection, run_id
        self._known, self._new = known, new
        self._solves: list[Row] = []
        self._traces: list[tuple[int, str, int, str, bytes]] = []  # first the ord of the solve
        self._gradients: list[Row] = []
        self._points: dict[str, list[Row]] = {}
        self._output: list[tuple[int, str]] = []
        self._anew = False  # whether the output begins again
        self._run: Row = {}

    def add(self, event: Event) -> None:
        kind, payload = event.kind, event.payload
        if kind == "solve":
            self._solve(payload)
        elif kind == "gradient":
            row = dict.fromkeys(GRADIENT) | payload["row"]
            self._gradients.append(row | {"run_id": self._run_id})
        elif kind == "points":
            for series in payload["series"]:
                self._points.setdefault(series["name"], []).append(series)
        elif kind in ("beat", "stop"):
            self._run |= _timed(payload["run"])
            if payload.get("output"):
                self._text(*payload["output"])
        elif kind == "artifact":
            _keep(self._connection, payload.get("blobs") or {})
            row = {"run_id": self._run_id} | payload["row"]
            insert_missing(self._connection, ARTIFACT, row)
        elif kind not in ("start", "nothing"):
            raise _RefusedError(f"unknown kind of event {kind!r}: a newer deq-lab wrote it")

    def _solve(self, payload: Row) -> None:
        row = dict.fromkeys(SOLVE) | payload["row"]
        row["run_id"] = self._run_id
        self._solves.append(row)
        trace = payload.get("trace")
        if not trace:
            return
        data = base64.b64decode(trace["data"])
        size = len(data) // len(trace["columns"])
        for place, name in enumerate(trace["columns"]):
            packed = zlib.compress(data[place * size : (place + 1) * size], 1)
            self._traces.append((row["ord"], name, size // 8, CODEC, packed))

    def _text(self, seq: int, text: str) -> None:
        if seq == 0:
            self._anew = True
            self._output.clear()
        self._output.append((seq, text))

    def finish(self) -> Row:
        """Put the rows in; give the columns of ``run`` that change."""
        run = self._connection.execute
        if self._solves:
            run(INSERT[Solve], self._solves)
        if self._traces or self._gradients:
            self._of_solves()
        for name, pieces in self._points.items():
            self._store_points(name, pieces)
        if self._anew:
            run(delete(OUTPUT).where(OUTPUT.c.run_id == self._run_id))
        if self._output:
            rows = [{"run_id": self._run_id, "seq": n, "text": t} for n, t in self._output]
            run(INSERT[RunOutput], rows)
        return self._run

    def _of_solves(self) -> None:
        """Put in what belongs to solves.

        Their numbers are asked for once: asked with every row, a young PostgreSQL that knows no
        figures of its tables yet would read all solves for each.
        """
        links: set[int | None] = {trace[0] for trace in self._traces}
        links |= {row.get(link) for row in self._gradients for link in ("solve_ord", "adjoint_ord")}
        of_run = (SOLVES.c.run_id == self._run_id) & SOLVES.c.ord.in_(links - {None})
        found = self._connection.execute(select(SOLVES.c.ord, SOLVES.c.id).where(of_run))
        numbers: dict[int | None, int] = dict(tuple(row) for row in found)
        traces = ((numbers[place], *rest) for place, *rest in self._traces)
        insert_many(self._connection, TRACES, TRACE, traces)
        if self._gradients:
            # an ord that is NULL is that of no solve
            rows = [
                {name: row[name] for name in GRADIENT}
                | {
                    "solve_id": numbers.get(row.get("solve_ord")),
                    "adjoint_id": numbers.get(row.get("adjoint_ord")),
                }
                for row in self._gradients
            ]
            self._connection.execute(INSERT[GradCheck], rows)

    def _store_points(self, name: str, pieces: list[Row]) -> None:
        number = self._series_id(name)
        sums = _Sums()
        for piece in pieces:
            steps, values = unpack_array(piece["steps"]), unpack_array(piece["values"])
            times = unpack_array(piece["times"])
            flags = unpack_array(piece["flags"]) if piece["flags"] else np.zeros(len(values))
            sums.add(steps, values, flags)
            insert_many(
                self._connection,
                POINTS,
                POINT,
                zip(
                    repeat(number),
                    count(piece["start"]),
                    _nullable(steps),
                    _nullable(values),
                    flags.astype(np.int64).tolist(),
                    _nullable(times),
                    strict=False,  # the first two have no end
                ),
            )
        self._connection.execute(SUM, {"of_series": number} | sums.row())

    def _series_id(self, name: str) -> int:
        key = (self._run_id, name)
        found = self._known.get(key) or self._new.get(key)
        if found is None:
            of_run = (SERIES.c.run_id == self._run_id) & (SERIES.c.name == name)
            found = self._connection.scalar(select(SERIES.c.id).where(of_run))
        if found is None:
            found = _insert(self._connection, Series, {"run_id": self._run_id, "name": name})
        self._new[key] = found
        return found


class _Sums:
    """What table ``series`` says about points."""

    def __init__(self) -> None:
        self._n = self._nonfinite = 0
        self._last: tuple[float, float] | None = None  # step, value
        self._least: tuple[float, float] | None = None
        self._largest: float | None = None

    def add(
        self, steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any], flags: np.ndarray[Any, Any]
    ) -> None:
        self._n += len(values)
        there = np.flatnonzero(flags == 0)
        self._nonfinite += len(values) - len(there)
        if not len(there):
            return
        finite = values[there]
        self._last = float(steps[there[-1]]), float(finite[-1])
        least = int(finite.argmin())
        if self._least is None or finite[least] < self._least[1]:
            self._least = float(steps[there[least]]), float(finite[least])
        top = float(finite.max())
        self._largest = top if self._largest is None else max(top, self._largest)

    def row(self) -> Row:
        last, least = self._last or (None, None), self._least or (None, None)
        return {
            "more": self._n,
            "more_nonfinite": self._nonfinite,
            "new_last": last[1],
            "new_last_step": _finite(last[0]),
            "new_least": least[1],
            "new_least_step": _finite(least[0]),
            "new_largest": self._largest,
        }


def _finite(x: float | None) -> float | None:
    return None if x is None or math.isnan(x) else x


def _nullable(column: np.ndarray[Any, Any]) -> Iterable[float | None]:
    """A column as Python numbers, None where it is nan."""
    numbers: list[float | None] = column.tolist()
    for place in np.flatnonzero(np.isnan(column)):
        numbers[place] = None
    return numbers


def _timed(row: Mapping[str, Any]) -> Row:
    """A row of ``run`` with times in the place of their texts."""
    return {
        key: datetime.fromisoformat(value) if key in TIMES and isinstance(value, str) else value
        for key, value in row.items()
    }


def _shared(connection: Connection, table: Table, row: Mapping[str, Any] | None) -> int | None:
    """The number of a row that equal ones share; it is made when it is the first of them."""
    if row is None:
        return None
    fingerprint = digest(dict(row))
    same = select(table.c.id).where(table.c.fingerprint == fingerprint)
    found = connection.scalar(same)
    if found is None:
        insert_missing(connection, table, {"fingerprint": fingerprint} | dict(row))
        found = connection.scalars(same).one()
    return int(found)


def _keep(connection: Connection, blobs: Mapping[str, Sequence[Any]]) -> None:
    """Store contents that are not there yet; ``blobs`` gives size and packed bytes by digest."""
    if not blobs:
        return
    there = set(connection.scalars(select(BLOB.c.sha256).where(BLOB.c.sha256.in_(blobs))))
    for name in sorted(blobs.keys() - there):  # in one order, so that nobody waits in a circle
        size, packed = blobs[name]
        row = {"sha256": name, "size": size, "data": base64.b64decode(packed)}
        insert_missing(connection, BLOB, row)


def _bare(event: Event) -> Event:
    """What remains of a refused event: of a start and an end, what no run can be without."""
    run = event.payload.get("run", {})
    if event.kind == "stop":
        return event._replace(payload={"run": {key: run[key] for key in ENDS if key in run}})
    if event.kind == "start":
        bare = {key: run[key] for key in BEGINS if key in run} | {"config": {}}
        return event._replace(payload={"run": bare, "environment": None})
    return event._replace(kind="nothing", payload={})


def _alive(at: float | None, began: datetime | None, beat: datetime | None) -> Row:
    """The columns that say how long a run has lived: its last event is a sign of life too."""
    if at is None or began is None:
        return {}
    seen = datetime.fromtimestamp(at, UTC)
    if beat is not None and beat >= seen:
        return {}
    return {"heartbeat_at": seen, "seconds": max(0.0, (seen - began).total_seconds())}


def _revived(row: Row, living: bool) -> Row:
    """The columns of a run that was taken for dead and tells more."""
    if "status" in row:
        return {"fail_message": None} | row
    if living:  # it was only slow
        return row | {"status": "RUNNING", "stopped_at": None, "fail_message": None}
    return row | {"stopped_at": row["heartbeat_at"]} if "heartbeat_at" in row else row


class _RefusedError(Exception):
    """An event that makes no sense here."""


def _passing(error: Exception) -> bool:
    """Whether an error says that the store is away or busy, and nothing about the event."""
    return isinstance(error, (StoreError, OSError, MemoryError)) or passing(error)


# Statements, kept because to compile one costs as much as to run it.


def _table(model: type[Base]) -> Table:
    # plain tables: the object mapper would cost as much again as the database
    table = model.__table__
    assert isinstance(table, Table)
    return table


RUN, OUTPUT, POINTS = _table(Run), _table(RunOutput), _table(Point)
SERIES, ENVIRONMENT, CODE, BLOB = _table(Series), _table(Environment), _table(Code), _table(Blob)
ARTIFACT, REJECTED = _table(Artifact), _table(RejectedEvent)
SOLVES, TRACES = _table(Solve), _table(SolveTrace)
SOLVE = [column.name for column in _table(Solve).columns if column.name != "id"]
GRADIENT = [
    column.name
    for column in _table(GradCheck).columns
    if column.name not in ("id", "solve_id", "adjoint_id")
]

FIND = (
    select(RUN.c.id, RUN.c.uuid, RUN.c.last_seq, RUN.c.status, RUN.c.started_at)
    .where(RUN.c.session == bindparam("session"))
    .with_for_update()
)
INSERT: dict[type[Base], Insert] = {
    model: insert(_table(model)) for model in (Run, RunConfig, RunOutput, Solve, Series, GradCheck)
}


def _new(name: str) -> Any:
    return cast(bindparam(f"new_{name}", type_=Double()), Double())  # a NULL has no type


def _least(value: Any) -> Any:
    """``value`` where the new least value is less than the old one."""
    new = _new("least")
    better = new.is_not(None) & (SERIES.c.least.is_(None) | (new < SERIES.c.least))
    return case((better, _new(value)), else_=SERIES.c[value])


SUM = (
    update(SERIES)
    .where(SERIES.c.id == bindparam("of_series"))
    .values(
        n=SERIES.c.n + bindparam("more"),
        nonfinite=SERIES.c.nonfinite + bindparam("more_nonfinite"),
        last_value=case((_new("last").is_not(None), _new("last")), else_=SERIES.c.last_value),
        last_step=case((_new("last").is_not(None), _new("last_step")), else_=SERIES.c.last_step),
        least_step=_least("least_step"),
        least=_least("least"),
        largest=case(
            (SERIES.c.largest.is_(None), _new("largest")),
            (_new("largest") > SERIES.c.largest, _new("largest")),
            else_=SERIES.c.largest,
        ),
    )
)


def _insert(connection: Connection, model: type[Base], row: Row) -> int:
    result = connection.execute(INSERT[model], row)
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
