"""The views that questions are asked to, each one documented SQL file.

A file is a ``CREATE VIEW`` whose comments are its documentation: the first lines say what a row is,
and each column has a line that ends in ``AS name,  -- type [unit]: what it is``. Types are
``integer``, ``number``, ``text``, ``time``, ``boolean`` (0 or 1) and ``json``.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import NamedTuple

__all__ = ["VIEWS", "Column", "View"]

COLUMN = re.compile(
    r"\bAS (?P<name>\w+),?\s+-- (?P<type>integer|number|text|time|boolean|json)"
    r"(?: \[(?P<unit>[^]]+)\])?: (?P<doc>.+)$",
    re.MULTILINE,
)


class Column(NamedTuple):
    """A column of a view. ``unit`` is '' for a pure number and for what is no number."""

    name: str
    type: str
    unit: str
    doc: str


# What SQLite says otherwise: it knows string_agg since 3.44 and MATERIALIZED since 3.35, and its
# times are texts.
SQLITE = {
    r"\bAS MATERIALIZED \(": "AS (",
    r"\bstring_agg\(": "group_concat(",
    r"\bto_timestamp\(([\w.]+)\)": r"strftime('%Y-%m-%dT%H:%M:%fZ', \1, 'unixepoch')",
}


@dataclass(frozen=True)
class View:
    """A view: its name and its SQL, which documents it."""

    name: str
    sql: str

    def statement(self, dialect: str) -> str:
        """Its ``CREATE VIEW`` in the words of a kind of database, ``sqlite`` or ``postgresql``."""
        sql = self.sql
        for pattern, own in SQLITE.items() if dialect == "sqlite" else ():
            sql = re.sub(pattern, own, sql)
        return sql

    def selection(self, dialect: str) -> str:
        """The SELECT of that statement."""
        return self.statement(dialect).partition(f"CREATE VIEW {self.name} AS")[2]

    @cached_property
    def doc(self) -> str:
        """What one row is."""
        head = self.sql[: self.sql.index("CREATE VIEW")]
        return " ".join(line.removeprefix("--").strip() for line in head.splitlines())

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The documented columns by name, in the order of the view."""
        found = (match.groupdict(default="") for match in COLUMN.finditer(self.sql))
        return {entry["name"]: Column(**entry) for entry in found}


def _load(name: str) -> View:
    return View(name, (files("db") / "views" / f"{name}.sql").read_text(encoding="utf-8"))


# In the order of their making: the later ones read the first.
VIEWS = {
    name: _load(name)
    for name in ("v_runs", "v_solves", "v_gradients", "v_series", "v_points", "v_comparisons")
}
