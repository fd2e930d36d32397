"""What is done to a store beside writing runs into it: tags, putting runs away, looking it over.

Runs are named by their number or the start of their uuid. A run that is put away is in no view and
can be taken back, until ``collect`` deletes it with all that nobody else refers to.
"""

import contextlib
import os
import shlex
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ForeignKeyConstraint,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    inspect,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from db import journal, liveness, queries, schema
from db.dialects import Database, insert_missing, reason
from db.errors import StoreError, closest
from db.records import LARGEST_FILE
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
    RunOutput,
    Series,
    Solve,
    SolveTrace,
    Tag,
)
from db.store import Store, connect, default_url, locate, reading
from db.views import VIEWS

__all__ = [
    "LONGEST_TAG", "Collected", "Finding", "away", "collect", "doctor", "in_short", "info", "mend",
    "put_away", "retag", "tag", "tags", "take_back", "untag",
]  # fmt: skip

Url = str | os.PathLike[str] | None
Name = int | str
LONGEST_TAG = 100  # characters
SOME = 500  # parameters of one statement; databases limit them
SHA256 = 64  # digits
BUSY = 5.0  # seconds to wait for a moment in which nobody else uses a file


# Opening


@contextlib.contextmanager
def _writing(url: Url) -> Iterator[Connection]:
    """One transaction in a store that is there already."""
    with _engine(url) as engine, engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def _engine(url: Url) -> Iterator[Engine]:
    Store(url)  # ``connect`` would make what is not there
    engine = connect(url)
    try:
        yield engine
    except DBAPIError as error:
        raise _refused(locate(url), error) from error
    finally:
        engine.dispose()


def _refused(place: Database, error: DBAPIError) -> StoreError:
    return StoreError(
        f"the store {place.shown()} did not do it ({reason(error)}), and nothing is changed: "
        "try again, or look it over with `deq db doctor`"
    )


def _numbers(connection: Connection, names: Name | Iterable[Name]) -> list[int]:
    """The numbers of runs, each once, in the order given."""
    wanted = [names] if isinstance(names, int | str) else list(names)
    whole = [int(name) for name in wanted if not isinstance(name, str)]
    there: set[int] = set()
    for some in _pieces(whole):
        there.update(connection.scalars(select(Run.id).where(Run.id.in_(some))))
    found = [
        int(name)
        if not isinstance(name, str) and int(name) in there
        else queries.run_id(connection, name)
        for name in wanted
    ]
    return list(dict.fromkeys(found))


def _pieces(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), SOME):
        yield values[start : start + SOME]


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


# Tags


def tag(url: Url, names: Name | Iterable[Name], tags: str | Iterable[str]) -> list[int]:
    """Give runs tags; the numbers of the runs.

    Raises
    ------
    StoreError
        There is no such run, or a tag is no tag: it is empty, longer than ``LONGEST_TAG``
        characters, or has a comma, a control character, or a space at an end.
    """
    return retag(url, names, add=tags)


def untag(url: Url, names: Name | Iterable[Name], tags: str | Iterable[str]) -> list[int]:
    """Take tags from runs; the numbers of the runs.

    Raises
    ------
    StoreError
        There is no such run, or none of them has one of the tags.
    """
    return retag(url, names, remove=tags)


def retag(
    url: Url,
    names: Name | Iterable[Name],
    *,
    add: str | Iterable[str] = (),
    remove: str | Iterable[str] = (),
) -> list[int]:
    """Take tags from runs and give them others, all of it or nothing; see ``tag`` and ``untag``."""
    new, old = _texts(add), _texts(remove)
    for text in new:
        _check_tag(text)
    table = _table(Tag)
    with _writing(url) as connection:
        numbers = _numbers(connection, names)
        for text in old:
            taken = 0
            for some in _pieces(numbers):
                mine = table.c.run_id.in_(some) & (table.c.tag == text)
                taken += connection.execute(delete(table).where(mine)).rowcount
            if not taken and numbers:
                known = {t for some in _tags(connection, numbers).values() for t in some}
                there = closest(text, known) if known else "they have no tags"
                raise StoreError(f"none of these runs has the tag {text!r}: {there}")
        for text in new:
            for number in numbers:
                insert_missing(connection, table, {"run_id": number, "tag": text})
    return numbers


def tags(url: Url, names: Name | Iterable[Name]) -> dict[int, list[str]]:
    """The tags of runs, by their numbers."""
    with reading(url) as connection:
        numbers = _numbers(connection, names)
        found = _tags(connection, numbers)
        return {number: found.get(number, []) for number in numbers}


def _tags(connection: Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for some in _pieces(numbers):
        mine = select(Tag.run_id, Tag.tag).where(Tag.run_id.in_(some))
        for number, text in connection.execute(mine.order_by(Tag.run_id, Tag.tag)):
            found.setdefault(number, []).append(text)
    return found


def _texts(given: str | Iterable[str]) -> list[str]:
    return list(dict.fromkeys([given] if isinstance(given, str) else given))


def _check_tag(text: str) -> None:
    wrong = None
    if not text:
        wrong = "it is empty"
    elif len(text) > LONGEST_TAG:
        wrong = f"it has {len(text)} characters, more than {LONGEST_TAG}"
    elif text != text.strip():
        wrong = "a space begins or ends it"
    elif "," in text:
        wrong = "a comma parts tags"
    elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        wrong = "it has a control character"
    if wrong:
        shown = repr(text if len(text) <= LONGEST_TAG else f"{text[:LONGEST_TAG]}…")
        raise StoreError(
            f"{shown} is no tag ({wrong}): a tag is any text of at most {LONGEST_TAG} characters "
            "without commas, control characters and spaces at its ends"
        )


# Putting away, and what is put away


def put_away(url: Url, names: Name | Iterable[Name]) -> list[int]:
    """Put runs away, out of every view; the numbers of those that were not away before.

    Raises
    ------
    StoreError
        There is no such run, or one is running; none is put away then.
    """
    with _writing(url) as connection:
        numbers = _numbers(connection, names)
        running = _those(connection, numbers, Run.status == "RUNNING")
        if running:
            raise StoreError(
                f"{_named(running)} running: end {_them(running)} first; "
                "where the process is gone, `deq runs reap` says so"
            )
        new = _those(connection, numbers, Run.deleted_at.is_(None))
        _stamp(connection, new, datetime.now(UTC))
        return new


def take_back(url: Url, names: Name | Iterable[Name]) -> list[int]:
    """Take runs back that were put away; their numbers.

    Raises
    ------
    StoreError
        There is no such run, or one is not put away; none is taken back then.
    """
    with _writing(url) as connection:
        numbers = _numbers(connection, names)
        there = _those(connection, numbers, Run.deleted_at.is_(None))
        if there:
            raise StoreError(f"{_named(there)} not put away: `deq runs ls --deleted` lists those")
        _stamp(connection, numbers, None)
        return numbers


def _those(
    connection: Connection, numbers: Sequence[int], condition: ColumnElement[bool]
) -> list[int]:
    found: set[int] = set()
    for some in _pieces(numbers):
        found.update(connection.scalars(select(Run.id).where(Run.id.in_(some), condition)))
    return [number for number in numbers if number in found]


def _stamp(connection: Connection, numbers: Sequence[int], at: datetime | None) -> None:
    runs = _table(Run)
    for some in _pieces(numbers):
        connection.execute(update(runs).where(runs.c.id.in_(some)).values(deleted_at=at))


def _named(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return f"run {listed} is" if len(numbers) == 1 else f"the runs {listed} are"


def _them(numbers: Sequence[int]) -> str:
    return "it" if len(numbers) == 1 else "them"


def in_short(url: Url, names: Name | Iterable[Name]) -> pd.DataFrame:
    """Runs by what one knows them again: a row a run, in the order given.

    Columns: id, uuid, experiment, study, status, started_at, deleted_at, solves, gradients, tags.
    """
    with reading(url) as connection:
        return _in_short(connection, _numbers(connection, names))


def away(url: Url) -> pd.DataFrame:
    """The runs that are put away, as ``in_short`` has them, the newest last."""
    with reading(url) as connection:
        put = select(Run.id).where(Run.deleted_at.is_not(None)).order_by(Run.id)
        return _in_short(connection, connection.scalars(put).all())


def _in_short(connection: Connection, numbers: Sequence[int]) -> pd.DataFrame:
    def count(model: type[Solve] | type[GradCheck]) -> Any:
        of_run = select(func.count()).select_from(model).where(model.run_id == Run.id)
        return of_run.scalar_subquery()

    columns = (
        Run.id, Run.uuid, Run.experiment, Run.study, Run.status, Run.started_at, Run.deleted_at,
    )  # fmt: skip
    rows: dict[int, tuple[Any, ...]] = {}
    for some in _pieces(numbers):
        statement = select(*columns, count(Solve), count(GradCheck)).where(Run.id.in_(some))
        rows.update({row[0]: tuple(row) for row in connection.execute(statement)})
    tagged = _tags(connection, numbers)
    names = [*(column.key for column in columns), "solves", "gradients"]
    frame = pd.DataFrame([rows[n] for n in numbers], columns=names, dtype="object")
    frame["tags"] = pd.Series([", ".join(tagged.get(n, ())) or None for n in numbers], dtype=object)
    for name in ("started_at", "deleted_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame.astype(dict.fromkeys(("id", "solves", "gradients"), "int64"))


# Collecting


class Collected(NamedTuple):
    """What ``collect`` deleted, or would."""

    runs: int
    environments: int
    programs: int  # rows of table code
    blobs: int
    bytes: int  # of traces, printed text and blobs
    freed: int | None  # by which the file is smaller; None when it could not be packed
    waiting: int  # runs put away that stay, because they go on or a journal knows more of them


def collect(url: Url = None, *, dry_run: bool = False) -> Collected:
    """Delete what is put away, and the environments, programs and blobs that nobody refers to.

    A run that is running, or of which this machine still has a journal, stays. A file of SQLite is
    packed at the end, unless somebody else uses it.

    Parameters
    ----------
    url
        The store.
    dry_run
        Only say what would be deleted.
    """
    known = {pending.header.get("session") for pending in journal.waiting(url)}
    if dry_run:
        with reading(url) as connection:
            return _collect(connection, known, dry_run=True)
    with _engine(url) as engine:
        before = _bytes(locate(url))
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Waits for all who have looked whether a row of these is there, and lets nobody
                # look until those without a run are gone. In the order of the writer.
                connection.exec_driver_sql("LOCK TABLE environment, code, blob")
            found = _collect(connection, known, dry_run=False)
            alone = not any(alive for _, alive in _running(connection))
        packed = alone and _pack(engine)
    after = _bytes(locate(url))
    return found._replace(freed=max(0, before - after) if packed else None)


def _collect(connection: Connection, known: set[Any], *, dry_run: bool) -> Collected:
    put = select(Run.id, Run.session, Run.status, Run.uuid).where(Run.deleted_at.is_not(None))
    away = connection.execute(put).all()
    doomed = [entry for entry in away if entry.status != "RUNNING" and entry.session not in known]
    numbers = [entry.id for entry in doomed]
    size = sum(_sizes(connection, some) for some in _pieces(numbers))
    gone = set(numbers)
    staying = [
        entry
        for entry in connection.execute(select(Run.id, Run.code_id, Run.environment_id))
        if entry.id not in gone
    ]
    programs = _unused(connection, Code.id, {entry.code_id for entry in staying})
    places = _unused(connection, Environment.id, {entry.environment_id for entry in staying})
    blobs = _unused_blobs(connection, gone, set(programs))
    if not dry_run:
        runs = _table(Run)
        sleeping = runs.c.deleted_at.is_not(None) & (runs.c.status != "RUNNING")
        for some in _pieces(numbers):
            connection.execute(delete(runs).where(runs.c.id.in_(some), sleeping))
        uuids = [entry.uuid for entry in doomed]
        for table, key, values in (
            (RejectedEvent, "run_uuid", uuids),
            (Code, "id", programs),
            (Environment, "id", places),
            (Blob, "sha256", list(blobs)),
        ):
            column = _table(table).c[key]
            for some in _pieces(values):
                connection.execute(delete(_table(table)).where(column.in_(some)))
    return Collected(
        runs=len(numbers),
        environments=len(places),
        programs=len(programs),
        blobs=len(blobs),
        bytes=size + sum(blobs.values()),
        freed=None,
        waiting=len(away) - len(numbers),
    )


def _sizes(connection: Connection, numbers: Sequence[int]) -> int:
    traces = (
        select(func.sum(func.length(SolveTrace.data)))
        .join(Solve, Solve.id == SolveTrace.solve_id)
        .where(Solve.run_id.in_(numbers))
    )
    texts = select(func.sum(func.length(RunOutput.text))).where(RunOutput.run_id.in_(numbers))
    return int(connection.scalar(traces) or 0) + int(connection.scalar(texts) or 0)


def _unused(connection: Connection, key: Any, used: set[Any]) -> list[int]:
    return [number for number in connection.scalars(select(key)) if number not in used]


def _unused_blobs(connection: Connection, runs: set[int], programs: set[int]) -> dict[str, int]:
    """The blobs that neither a program nor an artifact needs, and their bytes in the store."""
    used = set(_needed(connection, runs, programs))
    sizes = connection.execute(select(Blob.sha256, func.length(Blob.data)))
    return {name: size for name, size in sizes if name not in used}


def _needed(
    connection: Connection, without_runs: set[int], without_programs: set[int]
) -> Iterator[str]:
    for number, sources, difference in connection.execute(select(Code.id, Code.sources, Code.diff)):
        if number not in without_programs:
            if isinstance(sources, dict):
                yield from (name for name in sources.values() if isinstance(name, str))
            if difference:
                yield difference
    files = select(Artifact.run_id, Artifact.sha256).where(Artifact.sha256.is_not(None))
    for number, name in connection.execute(files.distinct()):
        if number not in without_runs and name:
            yield name


def _pack(engine: Engine) -> bool:
    """Give unused pages of a file back to the system; False when somebody else uses it."""
    if engine.dialect.name != "sqlite":
        return False  # PostgreSQL does that by itself, in its own time
    with contextlib.closing(engine.raw_connection()) as pooled:
        connection = pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        try:
            connection.execute(f"PRAGMA busy_timeout={int(BUSY * 1000)}")
            connection.execute("VACUUM")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError:  # busy, or no room for the copy
            return False
        finally:
            connection.execute(f"PRAGMA busy_timeout={patience}")
    return not busy


def _bytes(place: Database) -> int:
    """How large the file of a store is, with its log; 0 for a server."""
    path = place.file()
    if path is None:
        return 0
    size = 0
    for one in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):
            size += one.stat().st_size
    return size


# Looking it over


def info(url: Url = None) -> dict[str, Any]:
    """What a store is and holds.

    Keys: store, kind, schema, needs (the schema that this deq-lab reads), bytes (on disk), runs (by
    status), put_away, solves, gradients, series, points, trace_bytes, blobs, blob_bytes, rejected,
    last_write, journals (folder, waiting, events, bytes). Of a store of another schema only what
    does not depend on it.

    Raises
    ------
    StoreError
        There is no store there.
    """
    with _any_schema(url) as (place, connection, version):
        server = connection.dialect.name == "postgresql"
        number = ".".join(str(n) for n in connection.dialect.server_version_info or ())
        size = "SELECT pg_database_size(current_database())"
        found: dict[str, Any] = {
            "store": place.shown(),
            "kind": f"{'PostgreSQL' if server else 'SQLite'} {number}",
            "schema": version,
            "needs": schema.SCHEMA_VERSION,
            "bytes": connection.exec_driver_sql(size).scalar() if server else _bytes(place),
        }
        if version == schema.SCHEMA_VERSION:
            found |= _contents(connection)
    waiting = journal.waiting(url)
    found["journals"] = {
        "folder": str(journal.folder(url)),
        "waiting": len(waiting),
        "events": sum(pending.events for pending in waiting),
        "bytes": sum(pending.size for pending in waiting),
    }
    return found


@contextlib.contextmanager
def _any_schema(url: Url) -> Iterator[tuple[Database, Connection, int]]:
    place = locate(url)
    engine = place.engine(readonly=True)
    try:
        with engine.connect() as connection:
            try:
                version = schema.version(connection)
            except StoreError as error:
                raise StoreError(f"{place.shown()} is no store of deq-lab ({error})") from error
            if version is None:
                Store(url)  # says so
                raise StoreError(f"there is no store at {place.shown()}")
            yield place, connection, version
    except DBAPIError as error:
        raise _refused(place, error) from error
    finally:
        engine.dispose()


def _contents(connection: Connection) -> dict[str, Any]:
    there = Run.deleted_at.is_(None)
    statuses = select(Run.status, func.count()).where(there).group_by(Run.status)

    def number(statement: Any) -> int:
        return int(connection.scalar(statement) or 0)

    def count(model: type[Base]) -> int:
        return number(select(func.count()).select_from(model))

    times = (Run.queued_at, Run.started_at, Run.heartbeat_at, Run.stopped_at)
    moments = [connection.scalar(select(func.max(column))) for column in times]
    return {
        "runs": {row[0]: row[1] for row in connection.execute(statuses.order_by(Run.status))},
        "put_away": number(select(func.count()).where(not_(there))),
        "solves": count(Solve),
        "gradients": count(GradCheck),
        "series": count(Series),
        "points": number(select(func.sum(Series.n))),
        "trace_bytes": number(select(func.sum(func.length(SolveTrace.data)))),
        "blobs": count(Blob),
        "blob_bytes": number(select(func.sum(func.length(Blob.data)))),
        "rejected": count(RejectedEvent),
        "last_write": max((moment for moment in moments if moment), default=None),
    }


class Finding(NamedTuple):
    """Something that is not as it should be."""

    level: str  # error, warning, or note, which needs nothing to be done
    what: str
    remedy: str  # a command


def doctor(url: Url = None) -> list[Finding]:
    """Look a store over; what is not in order, the worst first.

    Raises
    ------
    StoreError
        There is no store there.
    """
    chosen = url is not None and os.fspath(url) != default_url()
    with _any_schema(url) as (place, connection, version):
        sick = _integrity(connection)
    option = f" --store {shlex.quote(place.shown())}" if chosen else ""
    anew = f"deq db merge {shlex.quote(place.shown())} --store NEW.db"
    found = [
        Finding("error", f"the file is damaged: {text}", f"{anew} (saves what can be read)")
        for text in sick
    ]
    if version < schema.SCHEMA_VERSION:
        what = f"the schema has version {version}, and this deq-lab needs {schema.SCHEMA_VERSION}"
        return [*found, Finding("error", what, f"deq db upgrade{option}")]
    if version > schema.SCHEMA_VERSION:
        what = f"the schema has version {version}, and this deq-lab knows {schema.SCHEMA_VERSION}"
        return [*found, Finding("error", what, "pip install --upgrade deq-lab")]
    for check in CHECKS:
        engine = place.engine(readonly=True)
        try:
            with engine.connect() as connection:
                found += check(connection, url, option)
        except DBAPIError as error:
            what = f"{(check.__doc__ or '').rstrip('.')}: that cannot be read ({reason(error)})"
            found.append(Finding("error", what, anew))
        finally:
            engine.dispose()
    levels = ("error", "warning", "note")
    return sorted(found, key=lambda finding: levels.index(finding.level))


def _integrity(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    try:
        said = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
    except DBAPIError as error:
        return [reason(error)]
    return [str(text) for text in said if text != "ok"]


def _tables(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Tables, indices and views."""
    found = []
    mending = f"deq db doctor --mend{option}"
    for kind, names in _absent(connection).items():
        for name in names:
            found.append(Finding("error", f"the {kind} {name} is missing", mending))
    for name in _wrong_views(connection):
        found.append(Finding("error", f"the view {name} is missing or an old one", mending))
    return found


def _absent(connection: Connection) -> dict[str, list[str]]:
    tables = Base.metadata.tables
    there = set(inspect(connection).get_table_names())
    known = (
        "SELECT name FROM sqlite_master WHERE type = 'index'"
        if connection.dialect.name == "sqlite"
        else "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"
    )
    indices = set(connection.exec_driver_sql(known).scalars())
    wanted = [str(index.name) for name in tables if name in there for index in tables[name].indexes]
    return {
        "table": sorted(tables.keys() - there),
        "index": sorted(set(wanted) - indices),
    }


def _wrong_views(connection: Connection) -> list[str]:
    there = inspect(connection).get_view_names()
    wrong = []
    for name, view in VIEWS.items():
        if name not in there:
            wrong.append(name)
            continue
        try:
            with connection.begin_nested():
                answer = connection.exec_driver_sql(f"SELECT * FROM {name} LIMIT 0")
                columns = list(answer.keys())
        except DBAPIError:  # of a table that is missing
            columns = []
        if columns != list(view.columns):
            wrong.append(name)
    return wrong


def _orphans(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Rows and what they belong to."""
    found = []
    for table in Base.metadata.sorted_tables:
        for key, condition in _broken(table):
            n = connection.scalar(select(func.count()).select_from(table).where(condition))
            if n:
                parent = key.elements[0].column.table.name
                name = key.column_keys[0]
                what = f"{n} rows of {table.name} have a {name} that is no row of {parent}"
                found.append(Finding("error", what, f"deq db doctor --mend{option}"))
    return found


def _broken(table: Table) -> Iterator[tuple[ForeignKeyConstraint, ColumnElement[bool]]]:
    """The foreign keys of a table, and the condition that a row's is a broken one."""
    for key in table.foreign_key_constraints:
        column, target = table.c[key.column_keys[0]], key.elements[0].column
        parent = target.table.alias("parent")
        there = exists().where(parent.c[target.name] == column).correlate(table)
        yield key, and_(column.is_not(None), not_(there))


def _dead(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Runs that say they are running."""
    dead = [number for number, alive in _running(connection) if not alive]
    if not dead:
        return []
    what = f"{_named(dead)} RUNNING, but the process is gone, or silent for long"
    return [Finding("warning", what, f"deq runs reap{option}")]


def _running(connection: Connection) -> list[tuple[int, bool]]:
    """The runs that say they are running, and whether that can still be so."""
    runs, now = _table(Run), datetime.now(UTC)
    found = []
    for run in connection.execute(select(runs).where(runs.c.status == "RUNNING")):
        alive = liveness.life(run._asdict())
        if alive is liveness.Life.UNKNOWN:
            found.append((run.id, liveness.silence(run, now) is None))
        else:
            found.append((run.id, alive is liveness.Life.ALIVE))
    return found


def _journals(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Journals."""
    waiting = journal.waiting(url)
    newer = [
        Finding("error", p.header["problem"], f"deq db sync{option}, by that deq-lab")
        for p in waiting
        if "problem" in p.header
    ]
    dead = [p for p in waiting if liveness.life(p.header) is not liveness.Life.ALIVE]
    left = [p for p in dead if "problem" not in p.header]
    if not left:
        return newer
    events = sum(pending.events for pending in left)
    what = (
        f"{len(left)} journals in {journal.folder(url)} hold up to {events} events "
        "of runs whose process is gone"
    )
    return [*newer, Finding("warning", what, f"deq db sync{option}")]


def _rejected(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Rejected events."""
    n, runs = connection.execute(
        select(func.count(), func.count(RejectedEvent.run_uuid.distinct()))
    ).one()
    if not n:
        return []
    query = "select run_uuid, seq, kind, error, payload from rejected_event"
    what = f"the database refused {n} events of {runs} runs, which are kept as they were"
    return [Finding("note", what, f'deq query "{query}"{option}')]


def _blobs(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Blobs."""
    there = set(connection.scalars(select(Blob.sha256)))
    found = []
    referred = set(_needed(connection, set(), set()))
    large = select(Artifact.sha256).where(Artifact.size > LARGEST_FILE)
    # a shorter digest is that of a source whose content is not known
    missing = {name for name in referred - there if len(name) == SHA256}
    missing -= set(connection.scalars(large))
    if missing:
        what = f"{len(missing)} sources or files of runs are missing, {min(missing)[:12]}… first"
        remedy = f"deq db merge ANOTHER.db{option} (a store that has them)"
        found.append(Finding("warning", what, remedy))
    loose = len(there - referred)
    if loose:
        what = f"{loose} blobs belong to nothing any more"
        found.append(Finding("note", what, f"deq runs gc{option}"))
    return found


def _summed(connection: Connection) -> Sequence[Any]:
    """The series whose sums are not those of their points, with the right sums."""
    series, point = _table(Series), _table(Point)
    finite = point.c.flag == 0
    sums = (
        select(
            point.c.series_id,
            func.count().label("n"),
            func.sum(case((finite, 0), else_=1)).label("nonfinite"),
            func.min(point.c.value).label("least"),
            func.max(point.c.value).label("largest"),
        )
        .group_by(point.c.series_id)
        .subquery()
    )
    mine = point.c.series_id == series.c.id

    def at(column: Any, *conditions: Any, last: bool) -> Any:
        order = point.c.ord.desc() if last else point.c.ord
        chosen = select(column).where(mine, finite, *conditions).order_by(order).limit(1)
        return chosen.correlate(series, sums).scalar_subquery()

    right = {
        "n": func.coalesce(sums.c.n, 0),
        "nonfinite": func.coalesce(sums.c.nonfinite, 0),
        "least": sums.c.least,
        "largest": sums.c.largest,
        "last_value": at(point.c.value, last=True),
        "last_step": at(point.c.step, last=True),
        "least_step": at(point.c.step, point.c.value == sums.c.least, last=False),
    }
    differs = or_(*(series.c[name].is_distinct_from(value) for name, value in right.items()))
    statement = (
        select(series.c.id, *(value.label(name) for name, value in right.items()))
        .select_from(series.outerjoin(sums, sums.c.series_id == series.c.id))
        .where(differs)
    )
    return connection.execute(statement).mappings().all()


def _sums(connection: Connection, url: Url, option: str) -> list[Finding]:
    """Sums of series."""
    wrong = len(_summed(connection))
    if not wrong:
        return []
    what = f"{wrong} series say something else than their points do"
    return [Finding("error", what, f"deq db doctor --mend{option}")]


Check = Callable[[Connection, Url, str], list[Finding]]
CHECKS: tuple[Check, ...] = (
    _tables, _orphans, _sums, _blobs, _dead, _journals, _rejected,
)  # fmt: skip


def mend(url: Url = None) -> list[str]:
    """Make missing tables, indices and views, put series' sums right, and delete orphans.

    An orphan is a row whose run, solve or series is gone. What was done, a sentence each.

    Raises
    ------
    StoreError
        There is no store there, or it has another schema.
    """
    done: list[str] = []
    with _writing(url) as connection:
        tables = Base.metadata.tables
        absent = _absent(connection)
        for name in absent["table"]:
            tables[name].create(connection)
            done.append(f"made the table {name}, which is empty")
        for table in tables.values():
            for index in table.indexes:
                if index.name in absent["index"]:
                    index.create(connection)
                    done.append(f"made the index {index.name}")
        wrong = _wrong_views(connection)
        if wrong:
            there = inspect(connection).get_view_names()
            for name in reversed(VIEWS):
                if name in there:
                    connection.exec_driver_sql(f"DROP VIEW {name}")
            schema.make_views(connection)
            done += [f"made the view {name}" for name in wrong]
        for table in Base.metadata.sorted_tables:
            for key, condition in _broken(table):
                done += _repaired(connection, table, key, condition)
        series = _table(Series)
        for row in _summed(connection):
            right: Mapping[str, Any] = {name: row[name] for name in row if name != "id"}
            connection.execute(update(series).where(series.c.id == row["id"]).values(right))
            done.append(f"put the sums of series {row['id']} right")
    return done


def _repaired(
    connection: Connection, table: Table, key: ForeignKeyConstraint, condition: ColumnElement[bool]
) -> list[str]:
    parent, name = key.elements[0].column.table.name, key.column_keys[0]
    if key.ondelete == "CASCADE":
        n = connection.execute(delete(table).where(condition)).rowcount
        what = f"deleted {n} rows of {table.name} that belonged to no row of {parent}"
    else:
        n = connection.execute(update(table).where(condition).values({name: None})).rowcount
        what = f"made {name} of {n} rows of {table.name} empty, which named no row of {parent}"
    return [what] if n else []
