"""What ``make experiment`` ends with: the answer and a table, as text."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from db import Store
from experiments.report import words
from experiments.report.blocks import Cards, Table, layout
from experiments.report.frames import load
from experiments.report.pages import page_of

_COLUMNS = (
    "solver",
    "gradient",
    "evaluations",
    "forward_seconds",
    "backward_seconds",
    "rel_err",
    "kept_bytes",
)


def terminal_summary(study: str, store: Store, where: str | None = None) -> RenderableType:
    """Return the headline of each case, its table at one tolerance, and what failed.

    Raises
    ------
    StoreError
        As for :func:`experiments.report.render`.
    """
    frames = load(study, store, where)
    parts: list[RenderableType] = []
    for experiment in dict.fromkeys(frames.runs["experiment"].dropna().astype(str)):
        page = page_of(frames.only(experiment), experiment)
        for section in page.sections:
            for block in section.blocks:
                if isinstance(block, Cards):
                    for card in block.cards:
                        parts += [
                            Text(card.title, style="bold"),
                            Text(card.headline.striptags()),
                            Text(),
                        ]
                if isinstance(block, Table) and block.choice:
                    parts += [_table(block), Text()]
    parts.append(_ended(frames.runs["status"]))
    return Group(*parts)


def _table(table: Table) -> RichTable:
    view = layout(table)
    shown = [i for i, (column, _) in enumerate(view.heads) if column.key in _COLUMNS]
    chosen = view.chosen
    title = f"{table.title} at {table.choice} {chosen}"
    drawn = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in shown:
        column, title = view.heads[i]
        named = column.kind in ("text", "series")
        drawn.add_column(title, justify="left" if named else "right", no_wrap=named)
    for row in view.rows:
        if row.choice != chosen:
            continue
        cells = [Text(row.cells[i].text, style="bold" if row.cells[i].best else "") for i in shown]
        if not row.met:
            cells[0].append(" ○", style="red")
        drawn.add_row(*cells, style="" if row.met else "dim")
    if any(not row.met for row in view.rows if row.choice == chosen):
        drawn.caption = "○ missed its tolerance in at least one run"
        drawn.caption_justify = "left"
    return drawn


def _ended(ended: pd.Series) -> Text:
    statuses = {str(status): int(number) for status, number in ended.value_counts().items()}
    failed = statuses.get("FAILED", 0)
    total = words.plural(sum(statuses.values()), "run")
    text = Text(f"{total}: " + words.listed([f"{n} {s.lower()}" for s, n in statuses.items()]))
    return text if not failed else text.append("; the report says why", style="red")
