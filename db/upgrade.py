"""A store of an older schema becomes one of the present: all of it, or nothing.

Never on opening. SQLite copies the file first; the change is one transaction, and is kept only when
every table has as many rows as before and no row refers to one that is not there.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import schema
from db.dialects import Database, absent, away, reason, refusal
from db.errors import StoreError
from db.liveness import Life, life
from db.machine import process
from db.store import locate, version
from db.views import VIEWS

__all__ = ["Upgrade", "pending", "upgrade"]

LOG = logging.getLogger(__name__)

SCRIPTS = Path(__file__).parent / "migrations"
SILENCE = timedelta(seconds=60)  # of a run elsewhere that may still be alive
TRIES = 20  # each as long as the database waits for others


class _RefusedError(Exception):
    """Why a change is not kept."""


@dataclass(frozen=True)
class Upgrade:
    """What was done.

    Attributes
    ----------
    before, after
        Schema versions; equal when there was nothing to do.
    copy
        The file as it was; None for PostgreSQL, and when there was nothing to do.
    rows
        The number of rows of each table, afterwards.
    """

    before: int
    after: int
    copy: Path | None
    rows: Mapping[str, int]


def pending(url: str | os.PathLike[str] | None = None) -> tuple[int, int]:
    """The schema version that a store has, and the one that this deq-lab needs.

    Raises
    ------
    StoreError
        There is no store there, or it cannot be used.
    """
    with _reading(locate(url)) as (_, found):
        return found, schema.SCHEMA_VERSION


@contextlib.contextmanager
def _reading(place: Database) -> Iterator[tuple[Connection, int]]:
    """A connection, and the schema version."""
    engine = place.engine(readonly=True)
    try:
        with engine.connect() as connection:
            yield connection, _found(place, connection)
    except DBAPIError as error:
        raise refusal(
            error, f"the store {place.shown()} cannot be read: {reason(error)}"
        ) from error
    finally:
        engine.dispose()


def upgrade(url: str | os.PathLike[str] | None = None, *, force: bool = False) -> Upgrade:
    """Bring a store to the present schema; nothing is changed when it has it.

    Two at once do it once: the second waits, and finds it done.

    Parameters
    ----------
    url
        ``sqlite:///path``, a plain path, ``postgresql://…``, or None for ``default_url()``.
    force
        Do it even while runs of the store are alive. What they record later may be refused.

    Raises
    ------
    StoreError
        There is no store there, its schema is newer, a run is alive, rows would be lost or are
        damaged, or the disk has no room for the copy. The store is as it was.
    """
    place, needed = locate(url), schema.SCHEMA_VERSION
    with _reading(place) as (connection, before):
        if before > needed:
            raise StoreError(
                f"the store {place.shown()} has schema version {before} and this deq-lab knows "
                f"versions up to {needed}: use a newer deq-lab, or set DEQ_STORE to another store"
            )
        if before == needed:
            return Upgrade(before, needed, None, _count(connection))
    engine = place.engine(readonly=False, foreign_keys=False)
    copy: Path | None = None
    try:
        with _alone(place, engine) as connection:
            before = _found(place, connection)
            if before >= needed:  # somebody else has just done it
                return Upgrade(before, before, None, _count(connection))
            ours = schema.Base.metadata.tables
            place.claim(connection, [name for name in _tables(connection) if name in ours])
            if not force:
                _refuse_alive(place, connection)
            copy = place.keep(before)
            if copy is not None:
                LOG.info("the store as it was is kept in %s", copy)
            rows = _change(place, connection, before, needed)
    except StoreError:  # before anything was changed
        raise
    except Exception as error:
        raise _failed(url, before, error, copy) from error
    finally:
        engine.dispose()
    return Upgrade(before, needed, copy, rows)


@contextlib.contextmanager
def _alone(place: Database, engine: Engine) -> Iterator[Connection]:
    """A transaction under the lock that also the making of a store takes."""
    with engine.connect() as connection:
        for left in reversed(range(TRIES)):
            try:
                connection.begin()
                place.lock(connection)
                break
            except DBAPIError as error:
                connection.rollback()
                if not (left and away(error) and not error.connection_invalidated):
                    raise
                LOG.warning("somebody else is writing to the store %s: waiting", place.shown())
        yield connection
        connection.commit()


def _found(place: Database, connection: Connection) -> int:
    found = version(place, connection)
    if found is None:
        raise absent(place)
    return found


def _change(place: Database, connection: Connection, before: int, needed: int) -> dict[str, int]:
    """Take all steps; the number of rows of each table."""
    had = _count(connection)
    kept = _drop_views(connection)
    _step(connection, before, needed)
    schema.make_views(connection)
    _make_views_again(connection, kept)
    version = schema.Base.metadata.tables["schema_version"]
    connection.execute(sa.update(version).values(version=needed))
    has = _count(connection)
    lost = [
        f"{table} had {n} rows and would have {has.get(table, 0)}"
        for table, n in had.items()
        if has.get(table) != n
    ]
    wrong = lost + place.dangling(connection)
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise _RefusedError(f"{'; '.join(wrong[:5])}{more}")
    return has


def _step(connection: Connection, before: int, needed: int) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    steps = {
        int(script.revision): script.module
        for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()
    }
    if before not in steps:
        raise _RefusedError(f"there is no way from version {before} to {needed}")
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for version in range(before + 1, needed + 1):
            steps[version].upgrade()


def _tables(connection: Connection) -> list[str]:
    return sorted(sa.inspect(connection).get_table_names())


def _count(connection: Connection) -> dict[str, int]:
    return {
        name: connection.scalars(sa.select(sa.func.count()).select_from(sa.table(name))).one()
        for name in _tables(connection)
    }


def _drop_views(connection: Connection) -> dict[str, str]:
    """Drop all views, which no table can be made anew under; give those that are not ours."""
    inspector = sa.inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    definitions: dict[str, str] = {}
    for name in inspector.get_view_names():
        sql = inspector.get_view_definition(name)
        if not sql.lstrip().upper().startswith("CREATE"):  # PostgreSQL gives the question alone
            sql = f"CREATE VIEW {quote(name)} AS {sql}"
        definitions[name] = sql
    left = list(definitions)
    while left:
        for name in left:
            # those that others stand on go last
            with contextlib.suppress(DBAPIError), connection.begin_nested():
                connection.exec_driver_sql(f"DROP VIEW {quote(name)}")
        now = set(sa.inspect(connection).get_view_names())
        if len(now) == len(left):
            raise _RefusedError(
                f"the views {', '.join(sorted(now))} cannot be made anew, because something else "
                "in the database stands on them: drop that, upgrade, and make it again"
            )
        left = [name for name in left if name in now]
    return {name: sql for name, sql in definitions.items() if name not in VIEWS}


def _make_views_again(connection: Connection, definitions: Mapping[str, str]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    left = dict(definitions)
    while left:
        problem = ""
        for name, sql in list(left.items()):
            try:
                with connection.begin_nested():
                    connection.exec_driver_sql(sql)
                    connection.exec_driver_sql(f"SELECT * FROM {quote(name)} LIMIT 0")
                del left[name]
                break
            except DBAPIError as error:  # it may stand on another one
                problem = reason(error)
        else:
            raise _RefusedError(
                f"your own view {next(iter(left))} does not fit the new schema ({problem}): drop "
                "it, upgrade, and make it anew"
            )


def _refuse_alive(place: Database, connection: Connection) -> None:
    """Refuse to change tables under runs that write to them."""
    has = {column["name"] for column in sa.inspect(connection).get_columns("run")}
    where = [name for name in ("host", "pid", "pid_space", "boot_id", "proc_start") if name in has]
    runs = sa.table(
        "run",
        sa.column("heartbeat_at", schema.UTC_TIME),
        *map(sa.column, ("id", "experiment", "status", "stopped_at", *where)),
    )
    going = sa.select(runs).where(runs.c.status == "RUNNING").order_by(runs.c.id)
    alive = [run for run in connection.execute(going).mappings() if _is_alive(run)]
    if alive:
        names = ", ".join(
            f"{run['id']} ({run['experiment']}, process {run['pid']} on {run['host']})"
            for run in alive[:5]
        )
        more = f" and {len(alive) - 5} more" if len(alive) > 5 else ""
        raise StoreError(
            f"the store {place.shown()} cannot change while runs write to it: {names}{more}. Let "
            "them end, or stop them, and try again; with --force what they still record may be lost"
        )


def _is_alive(run: Mapping[Any, Any]) -> bool:
    # version 1 did not say in which space a pid counts: it was one for nearly all
    known = {"pid_space": process({}).get("pid_space")} | dict(run)
    verdict = life(known)
    if verdict is not Life.UNKNOWN:
        return verdict is Life.ALIVE
    seen = run["heartbeat_at"]
    return seen is not None and datetime.now(UTC) - seen < SILENCE


def _failed(
    url: str | os.PathLike[str] | None, before: int, error: Exception, copy: Path | None
) -> StoreError:
    """What to say. The copy goes when the store itself is as it was."""
    place = locate(url)
    try:
        kept = pending(url)[0] == before
    except StoreError:  # the server is down
        kept = False
    if kept and copy is not None:
        copy.unlink(missing_ok=True)
    why = reason(error)
    if kept:
        return refusal(
            error, f"the store {place.shown()} could not be upgraded and is as it was: {why}"
        )
    also = f"; as it was it is kept in {copy}" if copy is not None else ""
    return refusal(
        error,
        f"the upgrade of the store {place.shown()} was cut off ({why}), and whether it was done "
        f"is not known: when the store can be reached again, call it once more{also}",
    )
