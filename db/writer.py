"""What an observer tells the store, and its direct way into SQL.

``Writer`` is the whole interface between observing and storing. Everything that crosses it is plain
(text, numbers, lists, dicts, bytes, UTC datetimes), so a writer may as well keep it in a file
first. Rows carry numbers that the observer counts (``ord``, ``seq``), so an event that is told
twice breaks a key and is not stored twice.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from sqlalchemy import Connection, Insert, Table, delete, insert, select, update

from db.dialects import insert_missing
from db.encode import clean, digest, flatten
from db.errors import StoreError
from db.schema import (
    Base,
    Environment,
    GradCheck,
    Point,
    Run,
    RunConfig,
    RunOutput,
    Series,
    Solve,
    SolveTrace,
)
from db.store import connect

__all__ = ["Output", "Points", "SqlWriter", "Writer", "mark_died"]

Row = dict[str, Any]
CODEC = "float64 little-endian, zlib"
POINT = ("step", "value", "flag", "t")  # columns of ``point`` in the order of ``Points``


class Points(NamedTuple):
    """New points of one series: where they start in it, and their columns."""

    name: str
    start: int
    steps: Sequence[float | None]
    values: Sequence[float | None]
    flags: Sequence[int]
    times: Sequence[float | None]


class Output(NamedTuple):
    """New text that the run printed; ``seq`` 0 replaces all that came before."""

    seq: int
    text: str


class Writer(Protocol):
    """One run's way into the store. One call is stored whole or not at all."""

    def start(self, run: Row, environment: Row) -> tuple[int, str]:
        """A run begins, with these columns of ``run`` and ``environment``: its number and uuid.

        When the uuid is taken, the run is a new attempt at the one that has it: it gets a uuid of
        its own and that one as its parent.
        """

    def solve(self, row: Row, trace: Mapping[str, tuple[int, bytes]]) -> None:
        """A solve: columns of ``solve``, and by column the length and bytes of its trace."""

    def gradient(self, row: Row) -> None:
        """A gradient check: columns of ``grad_check``, ``solve_ord`` and ``adjoint_ord``."""

    def points(self, points: Sequence[Points]) -> None:
        """Points of series."""

    def heartbeat(self, row: Row, output: Output | None) -> None:
        """The run is alive: columns of ``run`` (heartbeat_at, seconds, a new info), new text."""

    def stop(self, row: Row) -> None:
        """The run ends with these columns of ``run``, among them status and stopped_at."""

    def close(self) -> None:
        """Let go of files and connections; a later event opens them again."""


class SqlWriter:
    """Writes each event at once, one transaction an event.

    Raises
    ------
    StoreError
        The store cannot be opened (see ``db.store.connect``).
    """

    def __init__(self, url: str | os.PathLike[str] | None = None):
        self._engine = connect(url)
        self._run_id = 0
        self._series: dict[str, int] = {}

    def start(self, run: Row, environment: Row) -> tuple[int, str]:
        """See ``Writer``. The leaves and the hash of the config are made here."""
        config = dict(run["config"])
        leaves = [leaf._asdict() for leaf in flatten(config)]
        config.pop("seed", None)
        with self._engine.begin() as connection:
            row = run | {
                "environment_id": self._environment(connection, environment),
                "config_hash": digest(config),
            }
            first = connection.scalar(select(Run.id).where(Run.uuid == row["uuid"]))
            if first is not None:
                row |= {"uuid": str(uuid4()), "parent_id": first}
            number = _insert(connection, Run, row)
            if leaves:
                rows = [{"run_id": number} | leaf for leaf in leaves]
                connection.execute(INSERT[RunConfig], rows)
        self._run_id = number
        return number, row["uuid"]

    def _environment(self, connection: Connection, environment: Row) -> int:
        fingerprint = digest(environment)
        same = select(Environment.id).where(Environment.fingerprint == fingerprint)
        found = connection.scalar(same)
        if found is None:
            row = {"fingerprint": fingerprint} | environment
            insert_missing(connection, _table(Environment), row)
            found = connection.scalars(same).one()
        return found

    def solve(self, row: Row, trace: Mapping[str, tuple[int, bytes]]) -> None:
        """See ``Writer``."""
        with self._engine.begin() as connection:
            number = _insert(connection, Solve, {"run_id": self._run_id} | row)
            if trace:
                columns = [
                    {"solve_id": number, "column": name, "n": n, "codec": CODEC, "data": data}
                    for name, (n, data) in trace.items()
                ]
                connection.execute(INSERT[SolveTrace], columns)

    def gradient(self, row: Row) -> None:
        """See ``Writer``."""
        row = {"run_id": self._run_id} | row
        with self._engine.begin() as connection:
            for kind in ("solve", "adjoint"):
                place = row.pop(f"{kind}_ord", None)
                if place is not None:
                    row[f"{kind}_id"] = self._solve_id(connection, place)
            _insert(connection, GradCheck, row)

    def _solve_id(self, connection: Connection, place: int) -> int:
        found = connection.scalar(
            select(Solve.id).where(Solve.run_id == self._run_id, Solve.ord == place)
        )
        if found is None:
            raise StoreError(f"run {self._run_id} has no solve with the ord {place}")
        return found

    def points(self, points: Sequence[Points]) -> None:
        """See ``Writer``."""
        with self._engine.begin() as connection:
            new: dict[str, int] = {}
            rows: list[Row] = []
            for name, start, *columns in points:
                number = self._series.get(name) or new.get(name)
                if number is None:
                    row = {"run_id": self._run_id, "name": name}
                    number = new[name] = _insert(connection, Series, row)
                rows += (
                    {"series_id": number, "ord": place} | dict(zip(POINT, values, strict=True))
                    for place, values in enumerate(zip(*columns, strict=True), start)
                )
            if rows:
                connection.execute(INSERT[Point], rows)
        self._series |= new  # not before the transaction is kept

    def heartbeat(self, row: Row, output: Output | None) -> None:
        """See ``Writer``."""
        with self._engine.begin() as connection:
            self._update(connection, row)
            if output is not None:
                pieces = _table(RunOutput)
                if output.seq == 0:
                    connection.execute(delete(pieces).where(pieces.c.run_id == self._run_id))
                connection.execute(INSERT[RunOutput], {"run_id": self._run_id} | output._asdict())

    def stop(self, row: Row) -> None:
        """See ``Writer``."""
        with self._engine.begin() as connection:
            self._update(connection, row)

    def _update(self, connection: Connection, row: Row) -> None:
        runs = _table(Run)
        connection.execute(update(runs).where(runs.c.id == self._run_id).values(row))

    def close(self) -> None:
        """See ``Writer``."""
        self._engine.dispose()


def mark_died(url: str | os.PathLike[str] | None, uuid: str, message: str) -> None:
    """Say that a run's process is gone; it ended with its last sign of life.

    Nothing happens to a run that has said itself how it ended.

    Raises
    ------
    StoreError
        The store cannot be opened.
    """
    runs = _table(Run)
    row = {"status": "DIED", "stopped_at": runs.c.heartbeat_at, "fail_message": clean(message)}
    engine = connect(url)
    with engine.begin() as connection:
        mine = (runs.c.uuid == uuid) & (runs.c.status == "RUNNING")
        connection.execute(update(runs).where(mine).values(row))
    engine.dispose()


def _table(model: type[Base]) -> Table:
    # plain tables: the object mapper would cost as much again as the database
    table = model.__table__
    assert isinstance(table, Table)
    return table


# Kept, because to compile one costs as much as to run it.
INSERT: dict[type[Base], Insert] = {
    model: insert(_table(model))
    for model in (Run, RunConfig, RunOutput, Solve, SolveTrace, GradCheck, Series, Point)
}


def _insert(connection: Connection, model: type[Base], row: Row) -> int:
    result = connection.execute(INSERT[model], row)
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
