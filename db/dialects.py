"""What differs between SQLite and PostgreSQL; nothing else knows which of them it talks to."""

import contextlib
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from db.encode import canonical
from db.errors import StoreError

__all__ = ["DEFAULT_PATH", "Database", "PostgreSQL", "SQLite", "database", "insert_missing"]

DEFAULT_PATH = Path("results") / "store.db"
PATIENCE = 30.0  # seconds to wait for another process that is writing
CREATION_LOCK = 0x6465715F6C6162  # any fixed number; PostgreSQL locks numbers

Rows = Sequence[Sequence[Any]]


class Database(Protocol):
    """One kind of database at one URL."""

    def engine(self, *, readonly: bool) -> Engine:
        """An engine whose transactions suit reading or writing; StoreError when it cannot be."""

    def shown(self) -> str:
        """Where it is, without a password."""

    def lock(self, connection: Connection) -> None:
        """Keep other processes from making the schema until the transaction ends."""

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


def _writes(sql: str) -> StoreError:
    return StoreError(
        "queries only read, one SELECT (or WITH … SELECT) at a time, and this one does not: "
        f"{' '.join(sql.split())[:200]!r}"
    )


class SQLite:
    """A file. Write-ahead log, so that reading and writing do not wait for each other."""

    READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
    MAGIC = b"SQLite format 3\0"

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

    def engine(self, *, readonly: bool) -> Engine:
        """See ``Database``. The file is checked before anything is made."""
        self._check(readonly)
        engine = create_engine(
            "sqlite://",
            creator=lambda: self._open(readonly),
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
                raise self._absent()
            if self.path.exists() and not self.path.is_file():
                raise StoreError(f"the store {self.shown()} is no file: name a file, set DEQ_STORE")
            if not self.path.parent.is_dir():
                if self.path.absolute() != DEFAULT_PATH.absolute():
                    raise StoreError(
                        f"the directory of the store {self.shown()} does not exist: "
                        "make it, or set DEQ_STORE to another file"
                    )
                self.path.parent.mkdir(exist_ok=True)
            head = self._head()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if readonly and not head:
            raise self._absent()
        if head and head != self.MAGIC:
            raise StoreError(
                f"{self.shown()} is not a SQLite database: "
                "set DEQ_STORE to another file, or move this one away"
            )

    def _head(self) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            return file.read(len(self.MAGIC))

    def _absent(self) -> StoreError:
        return StoreError(
            f"there is no store at {self.shown()}: run `make experiment`, or set DEQ_STORE to one"
        )

    def _unusable(self, reason: str) -> StoreError:
        return StoreError(
            f"the store {self.shown()} cannot be opened ({reason}): "
            "check the permissions of the file and its directory, or set DEQ_STORE to another file"
        )

    def _open(self, readonly: bool) -> sqlite3.Connection:
        # Readers too may write to the file, so that the last one can clear the log away.
        connection = self._connect("mode=rw" if readonly else "mode=rwc")
        try:
            if readonly:
                connection = self._readable(connection)
                connection.execute("PRAGMA query_only=ON")
            else:
                self._use_write_ahead_log(connection)
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error as error:
            connection.close()
            raise self._unusable(str(error)) from error
        return connection

    def _readable(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError as error:
            log = self.path.with_name(f"{self.path.name}-wal")
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
            raise self._unusable(str(error)) from error

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


class PostgreSQL:
    """A server, through psycopg 3."""

    def __init__(self, url: URL):
        self.url = url.set(drivername="postgresql+psycopg")

    def shown(self) -> str:
        """The URL with its password hidden."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=True)

    def engine(self, *, readonly: bool) -> Engine:
        """See ``Database``."""
        try:
            engine = create_engine(
                self.url,
                json_serializer=canonical,
                connect_args={"connect_timeout": 10},
                **({"poolclass": NullPool} if readonly else
                   {"pool_size": 1, "max_overflow": 0, "pool_pre_ping": True}),
            )  # fmt: skip
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the store {self.shown()} needs the package {error.name}: "
                "pip install 'deq-lab[postgres]'"
            ) from error
        if readonly:
            engine = engine.execution_options(
                postgresql_readonly=True, isolation_level="REPEATABLE READ"
            )
        try:
            engine.connect().close()
        except DBAPIError as error:
            engine.dispose()
            reason = str(error.orig).strip().splitlines()[0]
            raise StoreError(
                f"the store {self.shown()} cannot be reached ({reason}): "
                "start the server, or set DEQ_STORE to another store"
            ) from error
        return engine

    def lock(self, connection: Connection) -> None:
        """An advisory lock, freed by the end of the transaction."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({CREATION_LOCK})")

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
