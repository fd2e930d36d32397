"""Tables, JSON and CSV of the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from solvers.registries import Entry

NO_WIDTH = 100_000


def console(no_terminal: int = NO_WIDTH) -> Console:
    """Return where tables are printed, with the width for what is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else no_terminal)


def entries_table(kind: str, entries: Iterable[Entry]) -> Table:
    """Return what a registry says of its entries."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{kind}s", title_justify="left")
    for column in ("name", "what it is", "options", "needs", "reference"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        options = ", ".join(
            option.name if option.required else f"{option.name}={option.default}"
            for option in entry.options
        )
        needs = ", ".join(entry.requires)
        what = entry.summary or entry.error
        table.add_row(entry.name, Text(what), Text(options), needs, Text(entry.reference))
    return table


def print_json(value: object) -> None:
    """Print plain data as JSON; what JSON does not know, as times, becomes text."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_facts(facts: Mapping[str, Any], prefix: str = "") -> None:
    """Print what is known of nested data, a dotted key a line."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            print_facts(value, f"{prefix}{key}.")
        elif value is not None and value != []:
            text = str(value)
            if "\n" in text:
                text = "\n" + "\n".join(f"  {line}" for line in text.rstrip().splitlines())
            click.echo(f"{prefix}{key}: {text}")


def print_frame(frame: pd.DataFrame, *, as_json: bool, as_csv: bool) -> None:
    """Print a frame: as an array of objects, as CSV, or as a table."""
    if as_json:
        rows = frame.to_json(orient="records", date_format="iso", double_precision=15)
        print_json(json.loads(rows))
    elif as_csv:
        click.echo(frame.to_csv(index=False), nl=False)
    else:
        _print_table(frame)


def _print_table(frame: pd.DataFrame) -> None:
    import pandas as pd
    from rich.table import Table
    from rich.text import Text

    screen = console()
    cells = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    names = [str(name) for name in frame.columns]
    widths = [max(map(len, column)) + 3 for column in zip(names, *cells, strict=True)]
    if sum(widths) > screen.width and len(names) > screen.width // 10:
        # Too many columns for this terminal: one below the other.
        for number, row in enumerate(cells, start=1):
            click.echo(f"row {number}")
            for name, cell in zip(names, row, strict=True):
                click.echo(f"  {name}: {cell}")
        return
    table = Table()
    for name in names:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)


def _cell(value: Any) -> str:
    import pandas as pd

    if not isinstance(value, list | dict) and pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
