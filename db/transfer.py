"""Runs out of a store into a directory (``export``), and from there or a store into another one.

A run is known by its session wherever it is; numbers are new in every store. What runs share is
known by its content: environments and code by their fingerprints, files by their sha256.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    null,
    select,
    true,
    update,
)
from sqlalchemy.exc import DBAPIError

from db.dialects import insert_many, insert_missing, new_ids, reason, refusal, same_database
from db.encode import canonical
from db.errors import StoreError
from db.exports import COLUMNS, Reader, Record, Writer, blocks
from db.schema import UTC_TIME, Base
from db.store import connect, locate, reading
from db.where import conditions, view

__all__ = ["Exported", "Merged", "export", "merge"]

TOGETHER = 64  # runs in one transaction
TABLES = Base.metadata.tables
RUN = TABLES["run"]
RUN_COLUMNS = [column.name for column in RUN.columns]
Fields = dict[str, Any]  # a row by the names of its columns
OF_RUNS = ("run_config", "tag", "run_output", "solve", "solve_trace", "grad_check",
           "series", "point", "rejected_event")  # fmt: skip
SHARED = {"environment": "environment_id", "code": "code_id"}


@dataclass(frozen=True)
class Exported:
    """What ``export`` made.

    Attributes
    ----------
    folder, form
        Where, and of which form.
    runs
        How many runs are in it.
    rows
        How many rows each file has, by table.
    bytes
        How large its files are together.
    """

    folder: Path
    form: str
    runs: int
    rows: Mapping[str, int]
    bytes: int


@dataclass
class Merged:
    """What ``merge`` did, as uuids of runs.

    Attributes
    ----------
    source, target
        From where, and into which store.
    added, renewed
        Runs that are new in the store, and those of which the source knew more than the store.
    same
        Runs of which the store knew as much or more.
    put_away
        Runs that the store has put away, and that stay so.
    """

    source: str
    target: str
    added: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    put_away: list[str] = field(default_factory=list)


def export(
    url: str | os.PathLike[str] | None,
    folder: str | os.PathLike[str],
    where: str | None = None,
    *,
    form: str = "parquet",
) -> Exported:
    """Write the runs that a filter lets through, with all that belongs to them, to a new directory.

    There is a file for every table (``db/exports.py``), readable by pandas, DuckDB and the like,
    and by ``merge``. The directory is there when it is complete, or not at all. Runs that are put
    away are left out.

    Parameters
    ----------
    url
        The store; None for ``db.default_url()``.
    folder
        A name for the directory; there may be an empty one.
    where
        A filter (``db/where.py``); None for every run.
    form
        ``parquet``, or ``json`` for strict JSON, a row a line.

    Raises
    ------
    StoreError
        There is no store, no run fits, the directory is not empty or cannot be written.
    """
    with reading(url) as connection, Writer(Path(folder), form) as files:
        source = _Sql(connection, locate(url).shown(), where)
        if where and where.strip() and not source.ids:
            raise StoreError(f"no run fits {where!r}: nothing is exported")
        parts = _Parts(source)
        for runs in source.runs():
            part = parts.of(runs)
            files.write("run", (tuple(run.values()) for run in runs))
            for table, shared in part.shared.items():
                files.write(table, shared)
            files.write("blob", source.blobs(part.files, part.files))
            files.write("artifact", part.artifacts)
            for table in OF_RUNS:
                files.write(table, source.rows(table, _ids(runs)))
        files.write("rejected_event", source.orphans())
        files.finish({"store": source.shown, "where": where, "runs": len(source.ids)})
    return Exported(files.folder, form, len(source.ids), files.rows, files.bytes)


def merge(source: str | os.PathLike[str], url: str | os.PathLike[str] | None = None) -> Merged:
    """Add the runs of a store or an export to a store, by what they are, not by their numbers.

    A run that is not there is added. One that is there is renewed, under its number, when the
    source knows more of it: later events, or its end. Tags are united. A run that the store has put
    away stays so, and one that the source has put away is not looked at. To do it again, or after
    it was interrupted, does no harm: runs go in by whole ones.

    Parameters
    ----------
    source
        An SQLite file, the URL of a store, or a directory made by ``export``. Events that wait in
        a store's journal are not in it: ``db.sync.sync`` stores them.
    url
        The store that they go into, made when it is not there; None for ``db.default_url()``.

    Raises
    ------
    StoreError
        There is no such source, it is damaged or of another version, it is the store itself, or the
        store does not take it. Whole runs may have been merged then.
    """
    with _source(source) as origin:
        target = locate(url)
        if isinstance(origin, _Sql) and _same_file(locate(source).file(), target.file()):
            raise _itself(origin)
        engine = connect(url)
        try:
            merger = _Merger(origin, Merged(origin.shown, target.shown()))
            with engine.begin() as connection:
                if isinstance(origin, _Sql) and same_database(connection, origin.connection):
                    raise _itself(origin)
            for runs in origin.runs():
                with _telling(engine, merger.done), engine.begin() as connection:
                    outcome = merger.add(connection, runs)
                for name, uuids in outcome.items():
                    getattr(merger.done, name).extend(uuids)
            with _telling(engine, merger.done), engine.begin() as connection:
                merger.finish(connection)
        finally:
            engine.dispose()
    return merger.done


def _itself(origin: "_Sql") -> StoreError:
    return StoreError(f"{origin.shown} is the store itself: nothing is to be merged")


def _same_file(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and other.exists() and one.samefile(other)


@contextlib.contextmanager
def _telling(engine: Engine, done: Merged) -> Iterator[None]:
    """Say in our words what the target refuses."""
    try:
        yield
    except (DBAPIError, engine.dialect.loaded_dbapi.Error, OverflowError, UnicodeError) as error:
        raise refusal(
            error,
            f"the store {done.target} does not take what comes from {done.source} "
            f"({reason(error)[:500]}); "
            f"{len(done.added)} runs were added and {len(done.renewed)} renewed before, "
            "and merging again goes on from there",
        ) from error


@contextlib.contextmanager
def _source(source: str | os.PathLike[str]) -> Iterator["_Sql | _Folder"]:
    name = os.fspath(source)
    if "://" not in name:
        path = Path(name).expanduser()
        if path.is_dir():
            yield _Folder(path)
            return
        if not path.exists():
            raise StoreError(
                f"there is no {name!r}: name an SQLite file, the URL of a store, "
                "or a directory that `deq runs export` made"
            )
    with reading(source) as connection:
        yield _Sql(connection, locate(source).shown(), None)


# Where runs come from


class _Source(Protocol):
    """Runs and what belongs to them, in the order of their numbers, as ``exports.COLUMNS``."""

    shown: str

    def runs(self) -> Iterator[list[Fields]]:
        """The runs, some at a time; what follows is asked for these, before the next ones."""

    def rows(self, table: str, ids: Sequence[int]) -> Iterator[Record]:
        """The rows of a table that belong to runs."""

    def shared(self, table: str, ids: Sequence[int]) -> list[Record]:
        """Environments or code."""

    def blobs(self, files: Sequence[str], wanted: Iterable[str]) -> Iterator[Record]:
        """The contents that are wanted, of all the files that the runs are the first to have."""

    def orphans(self) -> Iterator[Record]:
        """Rejected events of runs that are not there."""


class _Sql:
    """A store."""

    def __init__(self, connection: Connection, shown: str, where: str | None):
        self.connection, self.shown = connection, shown
        self._canonical = connection.dialect.name != "sqlite"  # JSONB is text in another form
        self._whole = not (where or "").strip()
        if self._whole:
            wanted = select(RUN.c.id).where(RUN.c.deleted_at.is_(None)).order_by(RUN.c.id)
        else:
            runs = view("v_runs")
            fitting = conditions(connection, "v_runs", where)
            wanted = select(runs.c.id).where(true(), *fitting).order_by(runs.c.id)
        self.ids = connection.scalars(wanted).all()

    def runs(self) -> Iterator[list[Fields]]:
        names = [column.name for column in COLUMNS["run"]]
        for start in range(0, len(self.ids), TOGETHER):
            rows = self.rows("run", self.ids[start : start + TOGETHER])
            yield [dict(zip(names, row, strict=True)) for row in rows]

    def rows(self, table: str, ids: Sequence[int]) -> Iterator[Record]:
        return self._stream(table, _of_runs(table, ids))

    def _stream(self, table: str, statement: Select[Any]) -> Iterator[Record]:
        found = self.connection.execute(statement, execution_options={"stream_results": True})
        json_at = [n for n, column in enumerate(COLUMNS[table]) if column.kind == "json"]
        if not json_at or not self._canonical:
            yield from found
            return
        for row in found:
            cells = list(row)
            for n in json_at:
                if cells[n] is not None:
                    cells[n] = canonical(json.loads(cells[n]))
            yield tuple(cells)

    def shared(self, table: str, ids: Sequence[int]) -> list[Record]:
        if not ids:
            return []
        of = TABLES[table]
        found = select(*_columns(table)).where(of.c.id.in_(ids)).order_by(of.c.id)
        return list(self._stream(table, found))

    def blobs(self, files: Sequence[str], wanted: Iterable[str]) -> Iterator[Record]:
        keys = set(wanted)
        blob = TABLES["blob"]
        for name in files:  # one at a time: they may be large
            if name in keys:
                yield from self._stream(
                    "blob", select(*_columns("blob")).where(blob.c.sha256 == name)
                )

    def orphans(self) -> Iterator[Record]:
        if not self._whole:
            return iter(())
        events = TABLES["rejected_event"]
        found = select(null(), *_columns("rejected_event")[1:])
        known = select(RUN.c.session)
        return self._stream(
            "rejected_event", found.where(events.c.session.not_in(known)).order_by(events.c.id)
        )


PARENT = RUN.alias("parent")
THROUGH = {  # the table over which another one belongs to runs, and its column there
    "solve_trace": ("solve", "solve_id"),
    "point": ("series", "series_id"),
}
ORDERS = {  # after the run's number
    "run": (), "run_config": ("key",), "tag": ("tag",), "artifact": ("id",),
    "run_output": ("seq",), "solve": ("ord",), "solve_trace": ("column",), "grad_check": ("ord",),
    "series": ("name",), "point": ("ord",), "rejected_event": ("seq",),
}  # fmt: skip


def _columns(table: str) -> list[Any]:
    """What is selected for a table: JSON as its text."""
    of = TABLES[table]
    through = TABLES[THROUGH[table][0]] if table in THROUGH else None
    found: list[Any] = []
    for name, kind in COLUMNS[table]:
        if name in of.c:
            found.append(cast(of.c[name], Text) if kind == "json" else of.c[name])
        elif name == "run_id":
            found.append(RUN.c.id if through is None else through.c.run_id)
        else:
            found.append(PARENT.c[name.removeprefix("parent_")])
    return found


def _of_runs(table: str, ids: Sequence[int]) -> Select[Any]:
    of = TABLES[table]
    found = select(*_columns(table))
    key: Any
    first: list[Any] = []
    if table == "run":
        key = RUN.c.id
        found = found.select_from(RUN.outerjoin(PARENT, RUN.c.parent_id == PARENT.c.id))
    elif table == "rejected_event":
        key = RUN.c.id
        found = found.select_from(of.join(RUN, RUN.c.session == of.c.session))
    elif table in THROUGH:
        name, link = THROUGH[table]
        through = TABLES[name]
        key = through.c.run_id
        first = [through.c[column] for column in ORDERS[name]]
        found = found.select_from(through.join(of, of.c[link] == through.c.id))
    else:
        key = of.c.run_id
    order = [key, *first, *(of.c[column] for column in ORDERS[table])]
    return found.where(key.in_(ids)).order_by(*order)


class _Folder:
    """An export."""

    def __init__(self, folder: Path):
        self._files = Reader(folder)
        self.shown = str(self._files.folder)
        self._streams: dict[str, _Stream] = {}
        self._shared: dict[str, dict[int, Record]] = {}

    def runs(self) -> Iterator[list[Fields]]:
        names = [column.name for column in COLUMNS["run"]]
        rows = self._files.rows("run")
        last = 0
        while some := list(itertools.islice(rows, TOGETHER)):
            found = [dict(zip(names, row, strict=True)) for row in some]
            for run in found:
                if run["id"] <= last:
                    raise StoreError(f"the export {self.shown} is damaged: its runs are not sorted")
                last = run["id"]
            yield found

    def rows(self, table: str, ids: Sequence[int]) -> Iterator[Record]:
        if not ids:
            return
        of = next(n for n, column in enumerate(COLUMNS[table]) if column.name == "run_id")
        last, wanted = max(ids), set(ids)
        for row in self._stream(table).take(lambda row: row[of] is not None and row[of] <= last):
            if row[of] in wanted:
                yield row

    def _stream(self, table: str) -> "_Stream":
        if table not in self._streams:
            self._streams[table] = _Stream(self._files.rows(table))
        return self._streams[table]

    def shared(self, table: str, ids: Sequence[int]) -> list[Record]:
        if table not in self._shared:
            self._shared[table] = {row[0]: row for row in self._files.rows(table)}
        return [self._shared[table][n] for n in ids if n in self._shared[table]]

    def blobs(self, files: Sequence[str], wanted: Iterable[str]) -> Iterator[Record]:
        mine, keys = set(files), set(wanted)
        for row in self._stream("blob").take(lambda row: row[0] in mine):
            if row[0] in keys:
                yield row

    def orphans(self) -> Iterator[Record]:
        return self._stream("rejected_event").take(lambda row: row[0] is None)


class _Stream:
    """Rows, the next of which can be looked at."""

    def __init__(self, rows: Iterator[Record]):
        self._rows = rows
        self._next = next(rows, None)

    def take(self, fits: Callable[[Record], bool]) -> Iterator[Record]:
        """The rows up to the first that does not fit."""
        while self._next is not None and fits(self._next):
            row, self._next = self._next, next(self._rows, None)
            yield row


@dataclass(frozen=True)
class _Part:
    """What some runs share with others and are the first to have, and their artifacts."""

    shared: dict[str, list[Record]]
    artifacts: list[Record]
    files: list[str]  # sha256


class _Parts:
    """Goes through a source."""

    def __init__(self, source: _Source):
        self._source = source
        self._known: dict[str, set[Any]] = {name: set() for name in (*SHARED, "blob")}
        self._sources: dict[int, list[str]] = {}  # files of a code

    def of(self, runs: Sequence[Fields]) -> _Part:
        """The part of these runs."""
        shared = {}
        for table, link in SHARED.items():
            wanted = self._new(table, (run[link] for run in runs if run[link] is not None))
            shared[table] = self._source.shared(table, wanted)
        self._sources |= {row[0]: _files(row) for row in shared["code"]}
        artifacts = list(self._source.rows("artifact", _ids(runs)))
        of_run: dict[int, list[str]] = {run["id"]: [] for run in runs}
        for row in artifacts:
            of_run[row[1]].append(row[ARTIFACT_FILE])
        # by run, so that the order is the same however many runs are taken together
        files = ([*self._sources.get(run["code_id"], ()), *of_run[run["id"]]] for run in runs)
        return _Part(shared, artifacts, self._new("blob", itertools.chain(*files)))

    def _new(self, table: str, keys: Iterable[Any]) -> list[Any]:
        known = self._known[table]
        found = [key for key in dict.fromkeys(keys) if key is not None and key not in known]
        known.update(found)
        return found


CODE = [column.name for column in COLUMNS["code"]]
ARTIFACT_FILE = [column.name for column in COLUMNS["artifact"]].index("sha256")


def _files(code: Record) -> list[str]:
    """The sha256 of the files of a row of ``code``."""
    row = dict(zip(CODE, code, strict=True))
    sources = json.loads(row["sources"] or "null")
    found = list(sources.values()) if isinstance(sources, dict) else []
    return [name for name in [*found, row["diff"]] if isinstance(name, str)]


def _ids(runs: Iterable[Fields]) -> list[int]:
    return [run["id"] for run in runs]


# Where they go


class _Merger:
    """Adds the runs of a source to a store, in the transactions of the caller."""

    def __init__(self, source: _Source, done: Merged):
        self.done = done
        self._source = source
        self._parts = _Parts(source)
        self._shared: dict[str, dict[int | None, int]] = {table: {} for table in SHARED}
        self._runs: dict[int, int] = {}  # numbers there and here
        self._waiting: list[_Child] = []

    def add(self, connection: Connection, runs: Sequence[Fields]) -> dict[str, list[str]]:
        """Some runs, whole; give what became of each, as ``Merged`` has it."""
        # one merge at a time
        connection.execute(select(TABLES["schema_version"]).with_for_update())
        part = self._parts.of(runs)
        known = self._known(connection, runs)
        self._share(connection, part)
        sorts: dict[str, list[Fields]] = {
            "added": [], "renewed": [], "same": [], "put_away": []
        }  # fmt: skip
        for run in runs:
            sorts[_sort(run, known.get(run["session"]))].append(run)
        self._insert(connection, sorts["added"])
        self._renew(connection, sorts["renewed"])
        for run in runs:
            if run["session"] in known:
                run["uuid"] = known[run["session"]].uuid
        written = sorted(_ids([*sorts["added"], *sorts["renewed"]]))
        self._fill(connection, written, part.artifacts)
        alive = [run for name in ("added", "renewed", "same") for run in sorts[name]]
        self._tag(connection, sorted(_ids(alive)))
        self._reject(connection, self._source.rows("rejected_event", sorted(_ids(alive))))
        self._waiting += self._link(connection, map(self._child, alive))
        return {name: [run["uuid"] for run in some] for name, some in sorts.items()}

    def finish(self, connection: Connection) -> None:
        """What belongs to no run, and parents that came after their children."""
        self._reject(connection, self._source.orphans())
        self._link(connection, self._waiting)

    def _known(self, connection: Connection, runs: Sequence[Fields]) -> dict[str, Row[Any]]:
        found: Iterable[Row[Any]] = connection.execute(
            select(RUN.c.id, RUN.c.uuid, RUN.c.session, RUN.c.status, RUN.c.last_seq,
                   RUN.c.heartbeat_at, RUN.c.deleted_at)
            .where(RUN.c.session.in_([run["session"] for run in runs]))
            .with_for_update()
        )  # fmt: skip
        known = {row.session: row for row in found}
        self._runs |= {run["id"]: known[run["session"]].id
                       for run in runs if run["session"] in known}  # fmt: skip
        return known

    def _share(self, connection: Connection, part: _Part) -> None:
        for name, rows in part.shared.items():
            table = TABLES[name]
            for row in rows:
                values = _values(name, row)
                number = values.pop("id")
                insert_missing(connection, table, values)
                same = select(table.c.id).where(table.c.fingerprint == values["fingerprint"])
                self._shared[name][number] = connection.scalars(same).one()
        blob = TABLES["blob"]
        there = select(blob.c.sha256).where(blob.c.sha256.in_(part.files))
        missing = set(part.files).difference(connection.scalars(there) if part.files else ())
        for row in self._source.blobs(part.files, missing):
            insert_missing(connection, blob, _values("blob", row))

    def _insert(self, connection: Connection, runs: Sequence[Fields]) -> None:
        if not runs:
            return
        names = {run[key] for run in runs for key in ("uuid", "session")}
        found = connection.execute(select(RUN.c.uuid, RUN.c.id).where(RUN.c.uuid.in_(names)))
        taken: dict[str, int] = dict(found.all())
        rows = []
        for run, number in zip(runs, new_ids(connection, RUN, len(runs)), strict=True):
            self._runs[run["id"]] = number
            first = taken.get(run["uuid"])
            if first is not None:  # another attempt has the name, as when one starts with --id
                run["uuid"] = run["session"] if run["session"] not in taken else str(uuid4())
            known = self._here(run) | {"id": number, "parent_id": first, "deleted_at": None}
            rows.append([_bound(connection, known[name]) for name in RUN_COLUMNS])
        insert_many(connection, RUN, RUN_COLUMNS, rows)

    def _here(self, run: Fields) -> Fields:
        """The columns of a run with the numbers that environments and code have here."""
        links = {link: self._shared[table].get(run[link]) for table, link in SHARED.items()}
        return {name: run[name] for name in RUN_COLUMNS} | links

    def _renew(self, connection: Connection, runs: Sequence[Fields]) -> None:
        numbers = [self._runs[run["id"]] for run in runs]
        for name in ("grad_check", "solve", "series", "run_config", "run_output", "artifact"):
            table = TABLES[name]
            if numbers:
                connection.execute(delete(table).where(table.c.run_id.in_(numbers)))
        for run, number in zip(runs, numbers, strict=True):
            values = self._here(run)
            for name in ("id", "uuid", "session", "parent_id", "deleted_at"):
                del values[name]
            for name, kind in COLUMNS["run"]:
                if kind == "json" and values.get(name) is not None:
                    values[name] = json.loads(values[name])
            connection.execute(update(RUN).where(RUN.c.id == number).values(values))

    def _fill(
        self, connection: Connection, ids: Sequence[int], artifacts: Iterable[Record]
    ) -> None:
        """All that belongs to runs that are new, or empty again."""
        wanted = set(ids)
        maps: dict[str, dict[int, int]] = {"run_id": self._runs}
        _copy(connection, "artifact", (row for row in artifacts if row[1] in wanted), maps)
        for name in ("run_config", "run_output"):
            _copy(connection, name, self._source.rows(name, ids), maps)
        for name, links in (("solve", ("solve_id", "adjoint_id")), ("series", ("series_id",))):
            numbers: dict[int, int] = {}
            maps |= {"id": numbers} | dict.fromkeys(links, numbers)
            _copy(connection, name, self._source.rows(name, ids), maps)
            for part in {"solve": ("solve_trace", "grad_check"), "series": ("point",)}[name]:
                _copy(connection, part, self._source.rows(part, ids), maps)

    def _tag(self, connection: Connection, ids: Sequence[int]) -> None:
        tag = TABLES["tag"]
        for number, word in self._source.rows("tag", ids):
            insert_missing(connection, tag, {"run_id": self._runs[number], "tag": word})

    def _reject(self, connection: Connection, events: Iterable[Record]) -> None:
        table = TABLES["rejected_event"]
        for event in events:
            values = _values("rejected_event", event)
            del values["run_id"], values["id"]
            insert_missing(connection, table, values)

    def _child(self, run: Fields) -> "_Child":
        return _Child(self._runs[run["id"]], run["parent_id"], run["parent_session"])

    def _link(self, connection: Connection, children: Iterable["_Child"]) -> list["_Child"]:
        """Give runs their parents; give back those whose parent is not there."""
        with_parent = [child for child in children if child.parent is not None]
        unknown = {child.session for child in with_parent if child.parent not in self._runs}
        found: dict[str, int] = {}
        if unknown:
            there = select(RUN.c.session, RUN.c.id).where(RUN.c.session.in_(unknown))
            found = dict(connection.execute(there).all())
        rows, left = [], []
        for child in with_parent:
            parent = self._runs.get(child.parent or 0) or found.get(child.session)
            if parent is None:
                left.append(child)
            else:
                rows.append({"child": child.number, "parent": parent})
        if rows:
            free = (RUN.c.id == bindparam("child")) & RUN.c.parent_id.is_(None)
            change = update(RUN).where(free).values(parent_id=bindparam("parent"))
            connection.execute(change, rows)
        return left


class _Child(NamedTuple):
    """A run's number here, its parent's there, and its parent's session."""

    number: int
    parent: int | None
    session: str


def _sort(run: Fields, known: Row[Any] | None) -> str:
    """What becomes of a run: the name of an attribute of ``Merged``."""
    if known is None:
        return "added"
    if known.deleted_at is not None:
        return "put_away"
    there, here = _knowledge(run), _knowledge(known._asdict())
    return "renewed" if there > here else "same"


def _knowledge(run: Mapping[str, Any]) -> tuple[int, int, datetime]:
    """How much is known of a run; the more, the later."""
    never = datetime.min.replace(tzinfo=UTC)
    open_ = run["status"] in ("QUEUED", "STARTING", "RUNNING")
    # that a run died is what others think, until it says itself how it ended
    end = 0 if open_ else 1 if run["status"] == "DIED" else 2
    return run["last_seq"], end, (run["heartbeat_at"] or never) if open_ else never


def _values(table: str, row: Record) -> Fields:
    """A row by its columns' names, with JSON as values."""
    return {
        name: json.loads(value) if kind == "json" and value is not None else value
        for (name, kind), value in zip(COLUMNS[table], row, strict=True)
    }


def _bound(connection: Connection, value: Any) -> Any:
    """A value as the driver takes it."""
    if isinstance(value, datetime):
        return UTC_TIME.process_bind_param(value, connection.dialect)
    return value


def _copy(
    connection: Connection,
    name: str,
    rows: Iterable[Record],
    maps: Mapping[str, dict[int, int]],
) -> None:
    """Insert the rows of a table with the numbers of this store.

    ``maps`` has those of what the rows refer to; that of ``id``, if rows refer to these, is filled.
    """
    table, columns = TABLES[name], [column.name for column in COLUMNS[name]]
    referred = name in ("solve", "series")
    # the number of a row that nothing refers to is given by the database; the run of a part is
    # known by what it is part of
    drop = 1 if name in THROUGH or (columns[0] == "id" and not referred) else 0
    links = [(n, maps[key]) for n, key in enumerate(columns[drop:]) if key in maps]
    for block in blocks(name, rows):
        if referred:
            numbers = new_ids(connection, table, len(block))
            maps["id"].update(zip((row[0] for row in block), numbers, strict=True))
        insert_many(connection, table, columns[drop:], _renumbered(block, drop, links))


def _renumbered(
    rows: Iterable[Record], drop: int, links: Sequence[tuple[int, Mapping[int, int]]]
) -> Iterator[list[Any]]:
    for row in rows:
        cells = list(row[drop:])
        for n, numbers in links:
            if cells[n] is not None:
                cells[n] = numbers[cells[n]]
        yield cells
