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


@dataclass(frozen=True)
class View:
    """A view: its name and its SQL, which documents it."""

    name: str
    sql: str

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
VIEWS = {name: _load(name) for name in ("v_runs", "v_solves", "v_gradients")}
