"""What differs between SQLite and PostgreSQL; nothing else knows which of them it talks to."""

import contextlib
import glob
import itertools
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from db import mounts
from db.encode import canonical
from db.errors import StoreAway, StoreError, hidden

__all__ = [
    "DEFAULT_PATH", "Database", "PostgreSQL", "SQLite",
    "away", "database", "insert_many", "insert_missing", "new_ids", "same_database",
]  # fmt: skip

DEFAULT_PATH = Path("results") / "store.db"
PATIENCE = 30.0  # seconds to wait for another process that is writing
CREATION_LOCK = 0x6465715F6C6162  # any fixed number; PostgreSQL locks numbers

Rows = Sequence[Sequence[Any]]


class Database(Protocol):
    """One kind of database at one URL."""

    def engine(self, *, readonly: bool, foreign_keys: bool = True) -> Engine:
        """An engine whose transactions suit reading or writing; StoreError when it cannot be.

        Without ``foreign_keys`` a table may be made anew while others refer to it.
        """

    def shown(self) -> str:
        """Where it is, without a password."""

    def file(self) -> Path | None:
        """The file that it is, if it is one."""

    def identity(self) -> str:
        """Which database it is, whoever asks: no user, no password."""

    def lock(self, connection: Connection) -> None:
        """Keep other processes from making the schema until the transaction ends."""

    def claim(self, connection: Connection, tables: Iterable[str]) -> None:
        """Keep everybody else from the tables until the transaction ends."""

    def keep(self, version: int) -> Path | None:
        """Copy it, while nobody can write, to a new file beside it, if it is a file."""

    def dangling(self, connection: Connection) -> list[str]:
        """The rows that refer to rows that are not there, in words."""

    def query(self, engine: Engine, sql: str) -> tuple[list[str], Rows]:
        """Run one reading statement: columns' names, and rows. StoreError when it would write."""


def database(url: URL) -> Database:
    """The kind of database that a URL names."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        return SQLite(url)
    if backend in ("postgresql", "postgres"):
        return PostgreSQL(url)
    raise StoreError(
        f"the store {url.render_as_string()} is of the unknown kind {backend!r}: "
        "write sqlite:///path/to/store.db, a plain path, or postgresql://user@host/name"
    )


def insert_missing(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row unless one with the same key is there, whoever else does the same right now."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(table).on_conflict_do_nothing(), row)


def insert_many(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Insert plain numbers and texts in the fastest way that the database has."""
    names = ", ".join(f'"{name}"' for name in columns)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(columns))
        given = list(map(tuple, rows))
        if given:
            insert = f"INSERT INTO {table.name} ({names}) VALUES ({places})"
            connection.exec_driver_sql(insert, given)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def new_ids(connection: Connection, table: Table, count: int) -> Sequence[int]:
    """Numbers for new rows, which nobody else gets."""
    if connection.dialect.name == "sqlite":  # whose transaction keeps everybody else out
        last = connection.scalar(select(func.max(table.c.id))) or 0
        return range(last + 1, last + 1 + count)
    sequence = func.pg_get_serial_sequence(table.name, "id")
    return connection.scalars(
        select(func.nextval(sequence)).select_from(func.generate_series(1, count))
    ).all()


def same_database(connection: Connection, other: Connection) -> bool:
    """Whether two connections lead to one PostgreSQL database, under whatever names."""
    if {connection.dialect.name, other.dialect.name} != {"postgresql"}:
        return False
    number = secrets.randbits(63)  # such a lock is of the database, not of the connection
    connection.scalar(select(func.pg_advisory_xact_lock(number)))
    return not other.scalar(select(func.pg_try_advisory_xact_lock(number)))


# Codes of SQLite: busy, locked, out of memory, input or output, full.
AWAY_SQLITE = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
})  # fmt: skip
# SQLSTATEs by class: lost connections, lack of resources (a full disk, too many connections), what
# others' transactions undid; and single ones: locked, read-only, going down, starting up, disk.
AWAY_CLASSES = ("08", "53", "40")
AWAY_STATES = frozenset({"55P03", "25006", "57P01", "57P02", "57P03", "57P05", "58030"})
# A refused connection has no code. Not to be waited for, in PostgreSQL's own English:
REFUSED = re.compile(
    r"authentication failed|(role|database) .* does not exist|no pg_hba\.conf entry|"
    r"permission denied|no password supplied|not permitted to log in|invalid"
)


# What says nothing about the statement beside these: a file that is not to be had just now; logins,
# servers that only read, operators and systems that step in.
NOT_ABOUT_SQLITE = AWAY_SQLITE | {
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PERM,
}  # fmt: skip
NOT_ABOUT_CLASSES = (*AWAY_CLASSES, "25", "28", "55", "57", "58")


class Cause(NamedTuple):
    """What a driver says of an error: SQLite's code or a SQLSTATE, or that a connection is lost."""

    error: BaseException
    sqlite: int | None
    state: str | None
    lost: bool


def cause(error: BaseException) -> Cause:
    """The driver's own error in one of SQLAlchemy's, and its code."""
    own = (error.orig or error) if isinstance(error, DBAPIError) else error
    code = getattr(own, "sqlite_errorcode", None)
    kinds = {kind.__name__ for kind in type(own).__mro__}
    return Cause(
        own,
        None if code is None else code & 0xFF,  # above are details
        getattr(own, "sqlstate", None),
        bool(kinds & {"OperationalError", "InterfaceError"}),
    )


def reason(error: BaseException) -> str:
    """What a database said, in one line."""
    own = cause(error).error
    return " ".join(str(own).split()) or type(own).__name__


def away(error: BaseException) -> bool:
    """Whether what a database refused may go well later: it is down, busy or full."""
    own, code, state, lost = cause(error)
    if code is not None:
        return code in AWAY_SQLITE
    if state is not None:
        return state[:2] in AWAY_CLASSES or state in AWAY_STATES
    driver = type(own).__module__.partition(".")[0]
    return lost and driver == "psycopg" and not REFUSED.search(str(own))


def passing(error: BaseException) -> bool:
    """Whether an error says nothing about the statement, which another time may be taken."""
    _, code, state, lost = cause(error)
    if code is not None:
        return code in NOT_ABOUT_SQLITE
    if state is not None:
        return state[:2] in NOT_ABOUT_CLASSES
    return lost


def refusal(error: BaseException, message: str) -> StoreError:
    """The exception for what a database refused: ``StoreAway`` when that may go well later."""
    return (StoreAway if away(error) else StoreError)(message)


def absent(place: "Database") -> StoreError:
    """There is no store at a place."""
    return StoreError(
        f"there is no store at {place.shown()}: run `make experiment`, or set DEQ_STORE to one"
    )


def _writes(sql: str) -> StoreError:
    return StoreError(
        "queries only read, one SELECT (or WITH … SELECT) at a time, and this one does not: "
        f"{' '.join(sql.split())[:200]!r}"
    )


class SQLite:
    """A file. Write-ahead log, so that reading and writing do not wait for each other.

    Nothing but SQLite itself may open the file: whoever closes it takes away, by the rules of
    POSIX, the locks of every other connection of the same process, and with them its safety.
    """

    READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})

    def __init__(self, url: URL):
        if url.query:
            raise StoreError(
                f"the store {url.render_as_string()} has options after '?', "
                "which are not understood: write sqlite:///path/to/store.db"
            )
        if url.database in (None, "", ":memory:"):
            raise StoreError(
                f"the store {url.render_as_string()!r} names no file, "
                "and one in memory would be lost: write sqlite:///path/to/store.db"
            )
        self.path = Path(url.database).expanduser()

    def shown(self) -> str:
        """The whole path."""
        return str(self.path.absolute())

    def file(self) -> Path | None:
        """The file."""
        return self.path

    def identity(self) -> str:
        """The whole path."""
        return self.shown()

    def engine(self, *, readonly: bool, foreign_keys: bool = True) -> Engine:
        """See ``Database``. The file is checked before anything is made."""
        self._check(readonly)
        engine = create_engine(
            "sqlite://",
            creator=lambda: self._open(readonly, foreign_keys),
            json_serializer=canonical,
            # readers hold no file between questions; a writer serves two threads, one at a time
            **({"poolclass": NullPool} if readonly else
               {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}),
        )  # fmt: skip
        begin = "BEGIN" if readonly else "BEGIN IMMEDIATE"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _check(self, readonly: bool) -> None:
        try:
            if readonly and not self.path.exists():
                raise absent(self)
            if self.path.exists() and not self.path.is_file():
                raise StoreError(f"the store {self.shown()} is no file: name a file, set DEQ_STORE")
            if not self.path.parent.is_dir():
                if self.path.absolute() != DEFAULT_PATH.absolute():
                    raise StoreError(
                        f"the directory of the store {self.shown()} does not exist: "
                        "make it, or set DEQ_STORE to another file"
                    )
                self.path.parent.mkdir(exist_ok=True)
            empty = not self.path.exists() or self.path.stat().st_size == 0
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if readonly and empty:
            raise absent(self)
        mount = mounts.network(self.path)
        if mount is not None and not readonly:
            raise StoreError(
                f"the store {self.shown()} lies on a network file system ({mount.kind}, mounted at "
                f"{mount.point}), where SQLite can lose or damage what several machines write: set "
                "DEQ_STORE to a PostgreSQL server (postgresql://user@host/name), or to a file on a "
                "local disk and join that to another store later with `deq db merge`"
            )

    def _unusable(self, why: str, error: Exception | None = None) -> StoreError:
        if getattr(error, "sqlite_errorname", None) == "SQLITE_NOTADB":
            return StoreError(
                f"the store {self.shown()} cannot be opened: it is not a SQLite database, or a "
                "damaged one: set DEQ_STORE to another file, or move this one away"
            )
        if error is not None and away(error):
            return StoreAway(
                f"the store {self.shown()} is busy or its disk full for the moment ({why}): "
                "try again later, make room, or set DEQ_STORE to another file"
            )
        return StoreError(
            f"the store {self.shown()} cannot be opened ({why}): "
            "check the permissions of the file and its directory, or set DEQ_STORE to another file"
        )

    def _open(self, readonly: bool, foreign_keys: bool = True) -> sqlite3.Connection:
        if readonly and (mount := mounts.network(self.path)) is not None:
            return self._open_unshared(mount)
        # Readers too may write to the file, so that the last one can clear the log away.
        connection = self._connect("mode=rw" if readonly else "mode=rwc")
        try:
            if readonly:
                connection = self._readable(connection)
                connection.execute("PRAGMA query_only=ON")
            else:
                self._use_write_ahead_log(connection)
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        except sqlite3.Error as error:
            connection.close()
            raise self._unusable(str(error), error) from error
        return connection

    def _open_unshared(self, mount: mounts.Mount) -> sqlite3.Connection:
        """Open a file that other machines may have too: as it is, and without any lock."""
        for log in map(self._beside, ("-wal", "-journal")):
            if log.exists() and log.stat().st_size > 0:
                raise StoreError(
                    f"the store {self.shown()} lies on a network file system ({mount.kind}, "
                    f"mounted at {mount.point}), and {log.name} beside it says that somebody "
                    "writes to it or was cut off: read it on the machine whose disk it is, or copy "
                    "both files to a local disk and read them there"
                )
        connection = self._connect("mode=ro&immutable=1")
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _beside(self, ending: str) -> Path:
        whole = self.path.resolve()  # SQLite follows links too
        return whole.with_name(f"{whole.name}{ending}")

    def _readable(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError as error:
            log = self._beside("-wal")
            unread = log.exists() and log.stat().st_size > 0
            if unread or not re.search("unable to open|readonly", str(error)):
                raise
            # A write-ahead log wants a file of its own beside the database, even to read; where
            # none can be made nobody writes, and the file may be taken as it is.
            connection.close()
            connection = self._connect("mode=ro&immutable=1")
            connection.execute("SELECT 1 FROM sqlite_master")
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                f"file:{quote(str(self.path))}?{mode}",
                uri=True,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._unusable(str(error), error) from error

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                    return
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
                if not tables or "schema_version" in tables:  # someone else's stays as it is
                    # SQLite does not wait here, as elsewhere, while another process does the same
                    connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def lock(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has done it."""

    def claim(self, connection: Connection, tables: Iterable[str]) -> None:
        """BEGIN IMMEDIATE has done it; readers see what was before."""

    def keep(self, version: int) -> Path | None:
        """See ``Database``. The copy is whole, or not there."""
        whole = self.path.resolve()
        for part in whole.parent.glob(f"{glob.escape(whole.name)}.v*.bak.part"):
            part.unlink()  # of one that was killed while it copied
        logged = self._beside("-wal")
        size = whole.stat().st_size + (logged.stat().st_size if logged.exists() else 0)
        free = shutil.disk_usage(whole.parent).free
        if free < 2 * size:
            raise StoreAway(
                f"the disk of the store {self.shown()} has {free / 1e6:.0f} MB free, and a copy of "
                f"it and the change take up to {2 * size / 1e6:.0f} MB: make room, then try again"
            )
        stem = f"{whole.name}.v{version}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        names = (f"{stem}{f'-{n}' if n else ''}.bak" for n in itertools.count())
        copy = next(path for name in names if not (path := whole.with_name(name)).exists())
        part = copy.with_name(f"{copy.name}.part")
        try:
            source = self._connect("mode=rw")
            with contextlib.closing(source), contextlib.closing(sqlite3.connect(part)) as target:
                source.backup(target)
            shutil.copymode(whole, part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.rename(copy)
        except (sqlite3.Error, OSError) as error:
            part.unlink(missing_ok=True)
            raise StoreAway(
                f"the store {self.shown()} cannot be copied to {copy.name} ({error}): "
                "make room in its directory, and check its permissions"
            ) from error
        return copy

    def dangling(self, connection: Connection) -> list[str]:
        """See ``Database``."""
        found = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [
            f"a row of {table} refers to one of {other} that is not there"
            + (f" (rowid {row})" if row is not None else "")
            for table, row, other, _ in found
        ]

    def query(self, engine: Engine, sql: str) -> tuple[list[str], Rows]:
        """See ``Database``. SQLite itself says what a statement would do, before it does it."""
        refused = False

        def authorise(action: int, _: Any, name: Any, *rest: Any) -> int:
            nonlocal refused
            if action in self.READING or (
                action == sqlite3.SQLITE_FUNCTION and name != "load_extension"
            ):
                return sqlite3.SQLITE_OK
            refused = True
            return sqlite3.SQLITE_DENY

        with contextlib.closing(engine.raw_connection()) as pooled:
            connection = pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            connection.set_authorizer(authorise)
            try:
                cursor = connection.execute(sql)
                rows = cursor.fetchall()
            except (sqlite3.Error, sqlite3.Warning) as error:
                if refused or "one statement at a time" in str(error):
                    raise _writes(sql) from error
                raise StoreError(f"this SQL cannot be run: {error}") from error
            finally:
                connection.set_authorizer(None)
            if cursor.description is None:
                raise _writes(sql)
            return [entry[0] for entry in cursor.description], rows


def _uncompiled(connection: Any, _: Any) -> None:
    """Have queries interpreted: to compile one over the views takes longer than to run it."""
    connection.execute("SET jit = off")
    connection.commit()


class PostgreSQL:
    """A server, through psycopg 3."""

    def __init__(self, url: URL):
        self.url = url.set(drivername="postgresql+psycopg")

    def shown(self) -> str:
        """The URL with its password hidden."""
        shown = self.url.set(drivername="postgresql").render_as_string(hide_password=True)
        return hidden(shown)

    def file(self) -> Path | None:
        """None."""
        return None

    def identity(self) -> str:
        """Host, port and name of the database."""

        def given(part: str | int | None, name: str, variable: str, usual: str) -> str:
            found = self.url.query.get(name)
            return str(part or found or os.environ.get(variable) or usual)

        host = given(self.url.host, "host", "PGHOST", "localhost")
        port = given(self.url.port, "port", "PGPORT", "5432")
        service = given(None, "service", "PGSERVICE", "")
        return f"{host}:{port}/{given(self.url.database, 'dbname', 'PGDATABASE', '')}{service}"

    def _patience(self) -> dict[str, Any]:
        """Settings by which a writer gives up on a lock or a network that is cut."""
        seconds = max(1, round(PATIENCE))
        found: dict[str, Any] = {"keepalives_interval": 10, "keepalives_count": 3}
        found |= {"keepalives_idle": seconds, "tcp_user_timeout": 1000 * seconds}
        if "options" not in self.url.query:  # else those of the URL count
            found["options"] = f"-c lock_timeout={seconds}s"
        return found

    def engine(self, *, readonly: bool, foreign_keys: bool = True) -> Engine:
        """See ``Database``. Here tables are changed, not made anew, so foreign keys stay on."""
        try:
            engine = create_engine(
                self.url,
                json_serializer=canonical,
                connect_args={"connect_timeout": 10, **({} if readonly else self._patience())},
                **({"poolclass": NullPool} if readonly else
                   {"pool_size": 1, "max_overflow": 0, "pool_pre_ping": True}),
            )  # fmt: skip
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the store {self.shown()} needs the package {error.name}: "
                "pip install 'deq-lab[postgres]'"
            ) from error
        if readonly:
            event.listen(engine, "connect", _uncompiled)
            engine = engine.execution_options(
                postgresql_readonly=True, isolation_level="REPEATABLE READ"
            )
        try:
            engine.connect().close()
        except DBAPIError as error:
            engine.dispose()
            why = str(error.orig).strip().splitlines()[0]
            if away(error):
                raise StoreAway(
                    f"the store {self.shown()} cannot be reached ({why}): "
                    "start the server, or set DEQ_STORE to another store"
                ) from error
            raise StoreError(
                f"the store {self.shown()} does not let us in ({why}): check the user, the "
                "password and the name of the database, or set DEQ_STORE to another store"
            ) from error
        return engine

    def lock(self, connection: Connection) -> None:
        """An advisory lock, freed by the end of the transaction."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({CREATION_LOCK})")

    def claim(self, connection: Connection, tables: Iterable[str]) -> None:
        """See ``Database``. Others are waited for, but not for ever."""
        names = ", ".join(map(connection.dialect.identifier_preparer.quote, tables))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(PATIENCE * 1000)}")
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")

    def keep(self, version: int) -> Path | None:
        """Nothing: a change is one transaction, and a server has its own backups."""
        return None

    def dangling(self, connection: Connection) -> list[str]:
        """None: the server checks each row as it is written."""
        return []

    def query(self, engine: Engine, sql: str) -> tuple[list[str], Rows]:
        """See ``Database``. The statement becomes a cursor in a READ ONLY transaction."""
        # DECLARE … CURSOR FOR takes one SELECT and nothing else, so nothing can end the
        # transaction, and leaving the connection rolls it back.
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            try:
                with driver.cursor(name="deq_query") as cursor:
                    cursor.execute(sql)
                    return [entry.name for entry in cursor.description], cursor.fetchall()
            except engine.dialect.loaded_dbapi.Error as error:
                message = str(error).strip().splitlines()[0]
                reads = re.match(r"[\s(]*(select|with|values)\b", sql, re.IGNORECASE)
                if not reads or re.search("read-only|must not contain|multiple commands", message):
                    raise _writes(sql) from error
                raise StoreError(f"this SQL cannot be run: {message}") from error
