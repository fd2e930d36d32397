"""Stores as released versions left them, from ``stores/``, and all that a database holds."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

STORES = Path(__file__).parent / "stores"


def load(url, version):
    """Put the filled store of a released version at a place that is empty."""
    kind = "postgresql" if "://" in str(url) else "sqlite"
    sql = (STORES / f"v{version}.{kind}.sql").read_text(encoding="utf-8")
    if kind == "postgresql":
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql)
        return
    with contextlib.closing(sqlite3.connect(url)) as connection:
        connection.executescript(sql)
        connection.execute("PRAGMA journal_mode=WAL")


def execute(url, *statements, setting=""):
    """Run plain SQL, each statement by itself, without a look at foreign keys on SQLite."""
    if "://" in str(url):
        import psycopg

        with psycopg.connect(url) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with contextlib.closing(sqlite3.connect(url, isolation_level=None)) as connection:
        connection.execute(setting)
        for statement in statements:
            connection.execute(statement)


@contextlib.contextmanager
def reading(url):
    """A connection that knows nothing of stores."""
    whole = str(url).replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(whole if "://" in whole else f"sqlite:///{os.fspath(url)}")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def rows(url) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, as the database gives them."""
    found = {}
    with reading(url) as connection:
        for table in sorted(sa.inspect(connection).get_table_names()):
            answer = connection.execute(sa.text(f'SELECT * FROM "{table}"')).mappings()
            found[table] = sorted(map(dict, answer), key=repr)
    return found


def structure(url) -> dict[str, Any]:
    """Columns, constraints, indices, views as the database itself says them.

    In the order of the columns on SQLite; PostgreSQL puts new ones last.
    """
    with reading(url) as connection:
        if connection.dialect.name == "sqlite":
            return _of_sqlite(connection)
        questions = {
            "columns": """SELECT table_name, column_name, data_type, is_nullable, column_default
                          FROM information_schema.columns WHERE table_schema = 'public'""",
            "constraints": """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
                              FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
            "indices": "SELECT tablename, indexname, indexdef FROM pg_indexes "
            "WHERE schemaname = 'public'",
            "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
            "sequences": """SELECT c.relname, t.relname, a.attname FROM pg_depend d
                            JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
                            JOIN pg_class t ON t.oid = d.refobjid
                            JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                            WHERE d.deptype IN ('a', 'i')""",
            "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
        }
        return {
            name: sorted(map(tuple, connection.execute(sa.text(sql))))
            for name, sql in questions.items()
        }


def _of_sqlite(connection):
    found: dict[str, Any] = {}
    for kind, name, sql in connection.execute(sa.text("SELECT type, name, sql FROM sqlite_master")):
        if sql is None:  # SQLite's own indices, of constraints
            continue
        if kind != "table":
            found[name] = " ".join(sql.split())
            continue
        head, body, tail = re.fullmatch(r"([^(]*)\((.*)\)([^)]*)", sql, re.DOTALL).groups()
        lines = [" ".join(line.split()) for line in body.replace('"', "").split(", \n")]
        constraints = sorted(line for line in lines if line.startswith("CONSTRAINT"))
        columns = [line for line in lines if not line.startswith("CONSTRAINT")]
        found[name] = (
            " ".join(head.replace('"', "").split()),
            columns,
            constraints,
            tail.strip(),
        )
    return found
