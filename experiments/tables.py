"""Tables, JSON and CSV of the command line.

JSON is strict. Times are ISO 8601 in UTC with a Z, bytes base64, and what is missing is null: in a
table a nan too, which is what pandas has for a missing number. A number of a config or a result
that is not finite is the text ``nan``, ``inf`` or ``-inf``, and so is an infinite one of a table.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from experiments.configurations import Configuration
    from solvers.registries import Entry

Form = Literal["table", "json", "csv"]

NO_WIDTH = 100_000
ROWS = 50  # that a table shows when nothing else is said
MOST_BOXED = 200  # rows of a table with a frame
PLAIN = {str, int, bool, type(None)}  # what JSON has as it is; a float may be none of it
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


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


def configurations_table(configurations: Iterable[Configuration]) -> Table:
    """Return the models as they are configured, with the numbers of their parameters."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="configurations", title_justify="left")
    for column in ("model", "in", "parameters", "of the cell", "options that are not the default"):
        counted = column in ("parameters", "of the cell")
        table.add_column(column, justify="right" if counted else "left", overflow="fold")
    usual: dict[str, Mapping[str, Any]] = {}
    for made in configurations:
        usual.setdefault(made.model, made.config)
        own = {k: v for k, v in made.config.items() if usual[made.model].get(k) != v}
        counts = [
            f"{n:,}" if n is not None else "–" for n in (made.parameters, made.cell_parameters)
        ]
        said = ", ".join(f"{key}={_text(value)}" for key, value in own.items())
        table.add_row(made.model, made.name, *counts, Text(made.error or said))
    return table


def strict(value: Any) -> Any:
    """Return any value as what strict JSON has."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | Set):
        return [strict(inner) for inner in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if value != value:  # noqa: PLR0124  # pandas' NaT
        return None
    if isinstance(value, datetime):
        utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy
        return strict(value.tolist())
    return str(value)


def print_json(value: object) -> None:
    """Print plain data as strict JSON."""
    click.echo(json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False))


def print_facts(facts: Mapping[str, Any], prefix: str = "") -> None:
    """Print what is known of nested data, a dotted key a line."""
    for key, value in _leaves(facts, prefix):
        if value is not None and value != []:
            text = shown(value if isinstance(value, str) else _text(value))
            if "\n" in text:
                text = "\n" + "\n".join(f"  {line}" for line in text.rstrip().splitlines())
            click.echo(f"{shown(key)}: {text}")


def facts_frame(facts: Mapping[str, Any]) -> pd.DataFrame:
    """Return nested data as rows of key and value, the value as text."""
    import pandas as pd

    rows = [(key, None if value is None else _text(value)) for key, value in _leaves(facts)]
    return pd.DataFrame(rows, columns=["key", "value"], dtype="object")


def _leaves(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    plain = strict(value)
    return plain if isinstance(plain, str) else _encode(plain)


def shown(text: str) -> str:
    """Return text without what would move the cursor or change the colours of a terminal."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def print_frame(
    frame: pd.DataFrame,
    form: Form = "table",
    *,
    limit: int | None = None,
    newest: bool = False,
    empty: str = "nothing found",
    keep: Sequence[str] | None = None,
) -> None:
    """Print a frame: as an array of objects, as CSV, or as a table, or what an ``empty`` one says.

    Of more than ``limit`` rows the first ones are printed, or with ``newest`` the last; a table
    then says how many there are beside. With ``keep``, a table leaves out other columns that are
    empty, and as many of the last as the terminal has no room for.
    """
    rest = 0 if limit is None else max(0, len(frame) - limit)
    if rest:
        frame = frame.tail(limit or 0) if newest else frame.head(limit or 0)
    if form == "json":
        print_rows(frame)
    elif form == "csv":
        click.echo(_written(frame).to_csv(index=False, lineterminator="\n"), nl=False)
    elif frame.empty:
        click.echo(empty)
    else:
        spare = [] if keep is None else [n for n in map(str, frame.columns) if n not in keep]
        _print_table(frame if keep is None else without_empty(frame, keep), spare)
        if rest:
            click.echo(f"… {rest:,} more (--all, --csv)")


def print_rows(frame: pd.DataFrame) -> None:
    """Print a frame as a JSON array with an object, and a line, a row."""
    names = [str(name) for name in frame.columns]
    columns = [values(frame.iloc[:, place]) for place in range(len(names))]
    lines = [_encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    click.echo("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")


def values(column: pd.Series[Any]) -> list[Any]:
    """Return a column as what strict JSON has; a nan is a missing number."""
    import numpy as np
    import pandas as pd

    kind = column.dtype
    if isinstance(kind, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_any_dtype(kind):
        return _times(column)
    if isinstance(kind, np.dtype) and kind.kind in "biu":
        return column.tolist()
    if isinstance(kind, np.dtype) and kind.kind == "f":
        numbers: list[Any] = column.tolist()
        for place in np.flatnonzero(~np.isfinite(column.to_numpy())):
            numbers[place] = _cell_value(numbers[place])
        return numbers
    cells = column.tolist()
    if set(map(type, cells)) <= PLAIN:
        return cells
    return [cell if type(cell) in PLAIN else _cell_value(cell) for cell in cells]


def _cell_value(cell: Any) -> Any:
    import pandas as pd

    if cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return strict(cell)


def _times(column: pd.Series[Any]) -> list[Any]:
    import numpy as np

    naive = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz else column
    moments = naive.to_numpy().astype("datetime64[us]")
    texts = np.char.add(np.datetime_as_string(moments), "Z").tolist()
    for place in np.flatnonzero(np.isnat(moments)):
        texts[place] = None
    return list(texts)


def _written(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose CSV a program reads back: times in ISO, nested cells in JSON."""
    import pandas as pd

    columns = {}
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            column = pd.Series(_times(column), index=frame.index, dtype="object")
        elif column.dtype == object and not set(map(type, column)) <= {*PLAIN, float}:
            cells = [
                None if (cell := _cell_value(value)) is None else _text(cell) for value in column
            ]
            column = pd.Series(cells, index=frame.index, dtype="object")
        columns[str(name)] = column
    return pd.DataFrame(columns)


def without_empty(frame: pd.DataFrame, keep: Sequence[str] = ()) -> pd.DataFrame:
    """Return a frame without the columns that have no value in any row."""
    if frame.empty:
        return frame
    return frame[[name for name in frame if name in keep or frame[name].notna().any()]]


def _print_table(frame: pd.DataFrame, spare: Sequence[str] = ()) -> None:
    import pandas as pd
    from rich.table import Table
    from rich.text import Text

    screen = console()
    cells = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    names = [shown(str(name)) for name in frame.columns]
    widths = [max(map(len, column)) + 3 for column in zip(names, *cells, strict=True)]
    there = [place for place, name in enumerate(frame.columns) if name in spare]
    left_out = 0
    while there and sum(widths) >= screen.width:
        place = there.pop()
        frame = frame.drop(columns=frame.columns[place])
        for row in (names, *cells):
            del row[place]
        del widths[place]
        left_out += 1
    if sum(widths) > screen.width and len(names) > screen.width // 10:
        # Too many columns for this terminal: one below the other.
        for number, row in enumerate(cells, start=1):
            click.echo(f"row {number}")
            for name, cell in zip(names, row, strict=True):
                click.echo(f"  {name}: {cell}")
        return
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    if len(cells) > MOST_BOXED:
        _print_lines(names, cells, numeric)
        return
    table = Table()
    for name, right in zip(names, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)
    if left_out:
        click.echo(f"… {left_out} more columns (a wider terminal, --csv, --json)")


def _print_lines(
    names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    """Print aligned columns without a frame, which takes a millisecond a row."""
    whole = [names, *([cell.replace("\n", "\\n") for cell in row] for row in cells)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    form = "  ".join(
        f"{{:{'>' if right else '<'}{width}}}" for right, width in zip(numeric, widths, strict=True)
    )
    click.echo("\n".join(form.format(*row).rstrip() for row in whole))


def _cell(value: Any) -> str:
    import pandas as pd

    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list | dict | bytes):
        return shown(_text(value))
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return shown(str(value))
