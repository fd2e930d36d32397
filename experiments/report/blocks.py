"""What a page is made of: sections of prose, tables and figures. A page module only fills these."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.colours import Look

Kind = Literal["text", "series", "count", "seconds", "bytes", "error", "cosine", "number", "codes"]
Spec = dict[str, Any]


def slug(text: str) -> str:
    """Return ``text`` as a file name or an anchor: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


@dataclass(frozen=True)
class Prose:
    """Paragraphs, or the items of a list, each one a sentence or a few."""

    paragraphs: Sequence[Markup]
    heading: str = ""
    listed: bool = False


@dataclass(frozen=True)
class Cards:
    """Prose side by side: one card a model."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Card:
    """A card: its title, what it is about, the headline, and the sentences below it."""

    title: str
    subtitle: Markup
    headline: Markup
    parts: Sequence[Prose]


@dataclass(frozen=True)
class Figure:
    """A figure: one Vega-Lite definition for the page and for ``figures/NAME.svg``.

    Attributes
    ----------
    draw
        Makes the definition; called once, and only where figures are shown.
    """

    name: str
    title: str
    caption: Markup
    draw: Callable[[], Spec]

    @functools.cached_property
    def spec(self) -> Spec:
        """The definition."""
        return self.draw()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    key
        The frame's column; ``key_lo`` and ``key_hi``, if there, are its range over the runs.
    title
        What the reader sees above it.
    kind
        How cells are written; seconds and bytes get one unit for the whole column.
    best
        ``"low"`` marks the smallest value among the rows that met their tolerance.
    tip
        What the column means, shown when the pointer rests on the title.
    """

    key: str
    title: str
    kind: Kind = "text"
    best: Literal["", "low"] = ""
    tip: str = ""


@dataclass(frozen=True)
class Table:
    """A table, also written as ``tables/NAME.csv`` with all columns of ``frame`` and no rounding.

    Attributes
    ----------
    frame
        The rows. ``met`` (whether the tolerance was met) marks rows, ``runs`` lists their run ids.
    choice
        The column by which the reader chooses which rows to see, if any.
    chosen
        Its value at first.
    folded
        Whether the reader has to open it.
    looks
        The looks of the names in columns of kind ``series``.
    """

    name: str
    title: str
    caption: Markup
    columns: Sequence[Column]
    frame: pd.DataFrame
    choice: str = ""
    chosen: float | None = None
    folded: bool = False
    looks: Mapping[str, Look] = field(default_factory=dict)


Block = Prose | Cards | Figure | Table


@dataclass(frozen=True)
class Section:
    """A section with its place in the page's navigation."""

    title: str
    blocks: Sequence[Block]
    lead: Markup = field(default_factory=Markup)

    @property
    def anchor(self) -> str:
        """The section's address in the page."""
        return slug(self.title)


def section(title: str, blocks: Sequence[Block | None]) -> Section | None:
    """Return the section of those blocks that are there; None of none."""
    there = [block for block in blocks if block is not None]
    return Section(title, there) if there else None


def filled(columns: Sequence[Column], frame: pd.DataFrame) -> list[Column]:
    """Return the columns that have a number somewhere, and those that name the rows."""
    return [c for c in columns if c.kind in ("series", "text") or frame[c.key].notna().any()]


@dataclass(frozen=True)
class Cell:
    """A cell as the page shows it."""

    text: str
    order: str
    tip: str = ""
    best: bool = False
    codes: Sequence[tuple[str, str, bool]] = ()
    look: Look | None = None


@dataclass(frozen=True)
class Row:
    """A row as the page shows it."""

    cells: Sequence[Cell]
    met: bool
    choice: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Layout:
    """A table as the page shows it: titles with their units, the choices, the rows."""

    heads: Sequence[tuple[Column, str]]
    choices: Sequence[str]
    chosen: str
    rows: Sequence[Row]


def layout(table: Table) -> Layout:
    """Return what the page shows of a table: units, rounding, marks."""
    frame = table.frame
    units = {c.key: _unit(c, frame) for c in table.columns}
    best = {c.key: _best(frame, c, table.choice) for c in table.columns}
    rows = []
    for index, record in enumerate(frame.to_dict("records")):
        row = {str(key): value for key, value in record.items()}
        cells = [
            _cell(c, row, units[c.key], index in best[c.key], table.looks) for c in table.columns
        ]
        choice = words.tolerance(row[table.choice]) if table.choice else ""
        tip = words.run_list(row["runs"]) if "runs" in row else ""
        rows.append(Row(cells, bool(row.get("met", True)), choice, tip))
    heads = [(c, _title(c, units[c.key])) for c in table.columns]
    choices = list(dict.fromkeys(row.choice for row in rows)) if table.choice else []
    chosen = words.tolerance(table.chosen) if table.choice else ""
    return Layout(heads, choices, chosen, rows)


def _unit(column: Column, frame: pd.DataFrame) -> tuple[float, str]:
    if column.kind == "seconds":
        return words.scale_of(frame[column.key], "s")
    if column.kind == "bytes":
        return words.scale_of(frame[column.key], "B")
    return 1.0, ""


def _title(column: Column, unit: tuple[float, str]) -> str:
    return f"{column.title}, {unit[1]}" if unit[1] else column.title


def _best(frame: pd.DataFrame, column: Column, choice: str) -> set[int]:
    if not column.best or "met" not in frame:
        return set()
    found: set[int] = set()
    values = frame[column.key].astype(float)
    groups = frame[choice] if choice else pd.Series(0, index=frame.index)
    eligible = frame["met"].astype(bool) & values.notna()
    for group in groups[eligible].unique():
        here = eligible & (groups == group)
        if here.sum() > 1:
            shown = values[here].map(lambda v: float(f"{v:.2e}"))
            found.update(frame.index.get_indexer(shown.index[shown == shown.min()]).tolist())
    return found


def _cell(
    column: Column,
    row: Mapping[str, Any],
    unit: tuple[float, str],
    best: bool,
    looks: Mapping[str, Look],
) -> Cell:
    value = row.get(column.key)
    if column.kind == "codes":
        return _codes(value or {}, row.get("message"))
    if column.kind in ("text", "series"):
        text = "–" if words.missing(value) else str(value)
        return Cell(text, text, look=looks.get(text) if column.kind == "series" else None)
    if value is None or words.missing(value):
        return Cell("–", "")
    write = _WRITERS.get(column.kind)
    scaled = words.digits(value / unit[0])
    text = write(value) if write else scaled
    low, high = row.get(f"{column.key}_lo"), row.get(f"{column.key}_hi")
    tip = ""
    if low is not None and high is not None and not words.missing(low) and low != high:
        ends = [write(v) if write else words.digits(v / unit[0]) for v in (low, high)]
        tip = f"{ends[0]} to {ends[1]}{' ' + unit[1] if unit[1] else ''}"
    return Cell(text, repr(float(value)), tip, best)


def _codes(ended: Mapping[str, float], message: object) -> Cell:
    """Return how samples ended: those that did not converge, by retcode, or that all did."""
    total = sum(ended.values())
    bad = {name: number for name, number in ended.items() if name != "SUCCESS" and number}
    shown = [(name, f"{number:g}/{total:g}", False) for name, number in bad.items()]
    codes = shown or [(name, "", True) for name in ended]
    tip = "" if words.missing(message) else str(message)
    return Cell("", " ".join(name for name, _, _ in codes), tip, codes=codes)


def _number(value: words.Number) -> str:
    return "–" if value is None else words.digits(value, 5)


def _cosine(value: words.Number) -> str:
    return "–" if value is None else f"{value:.4f}"


_WRITERS: Mapping[str, words.Writer] = {
    "error": words.small,
    "count": words.count,
    "cosine": _cosine,
    "number": _number,
}
