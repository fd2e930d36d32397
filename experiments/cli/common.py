"""What commands share: how they are found, their options, which runs are meant, asking first."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from experiments import tables

if TYPE_CHECKING:
    import pandas as pd

    from db import Store

Command = Callable[..., int]

RUN_COLUMNS = (
    "id", "status", "started_at", "experiment", "model", "solver", "gradient", "tags", "study",
    "reltol", "seed", "seconds", "adjoint", "device",
)  # fmt: skip  # what a narrow terminal has no room for comes last
ALWAYS = ("id", "status", "started_at", "experiment")  # shown even where no run has one


class Group(click.Group):
    """A group that names the closest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one may be meant."""
        name, commands = args[0], self.list_commands(ctx)
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"unknown command '{name}'{hint} (allowed: {', '.join(commands)})")
        return super().resolve_command(ctx, args)


store_option = click.option(
    "--store",
    metavar="URL",
    help="The store: a URL or the path of an SQLite file. Default: DEQ_STORE, else"
    " sqlite:///results/store.db.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
where_option = click.option(
    "--where",
    metavar="FILTER",
    help='As in "solver.name=broyden and started>-7d and not status=FAILED".',
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
names_argument = click.argument("names", nargs=-1, metavar="[ID ...]")


def output(command: Command) -> Command:
    """Add --json and --csv to a command, which is given the ``form`` of what it prints."""

    @json_option
    @csv_option
    @functools.wraps(command)
    def chosen(*args: Any, as_json: bool, as_csv: bool, **options: Any) -> int:
        if as_json and as_csv:
            raise click.UsageError("--json or --csv: one of them")
        form: tables.Form = "json" if as_json else "csv" if as_csv else "table"
        return command(*args, form=form, **options)

    return chosen


def rows(command: Command) -> Command:
    """Add --limit and --all to a command, which is given ``limit``: how many rows it prints.

    JSON and CSV are whole unless --limit says otherwise.
    """

    @click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Print N rows. Default: {tables.ROWS} in a table, all in JSON and CSV.",
    )
    @click.option("--all", "everything", is_flag=True, help="Print all rows.")
    @functools.wraps(command)
    def limited(
        *args: Any, form: tables.Form, limit: int | None, everything: bool, **options: Any
    ) -> int:
        if everything and limit is not None:
            raise click.UsageError("--limit or --all: one of them")
        if limit is None and not everything and form == "table":
            limit = tables.ROWS
        return command(*args, form=form, limit=limit, **options)

    return limited


def open_store(store: str | None) -> Store:
    """Open a store to read from."""
    from db import Store

    return Store(store)


def shown_runs(
    frame: pd.DataFrame, first: Sequence[str] = (), last: Sequence[str] = ()
) -> pd.DataFrame:
    """Return what a table shows of runs: the usual columns, as far as there is anything in them."""
    usual = [name for name in RUN_COLUMNS if name not in (*first, *last)]
    first = (*first, *(name for name in ALWAYS if name not in first))
    usual = [name for name in usual if name not in first]
    return frame[[column for column in (*first, *last, *usual) if column in frame]]


def chosen_runs(names: Sequence[str], where: str | None, store: str | None) -> list[int | str]:
    """Return the runs that a command is about, by name or by filter.

    Raises
    ------
    click.ClickException
        Neither is given, or both, or the filter lets no run through.
    """
    if names and where is not None:
        raise click.UsageError("name runs or give --where: one of them")
    if names:
        return list(names)
    if where is None or not where.strip():
        raise click.UsageError("which runs? Name them by number or uuid, or give --where FILTER")
    found = open_store(store).runs(where)["id"].tolist()
    if not found:
        raise click.ClickException(f"no run matches the filter {where!r}")
    return found


def confirmed(question: str, yes: bool) -> bool:
    """Ask, unless ``yes``; where nobody can answer, refuse.

    Raises
    ------
    click.UsageError
        There is no terminal to ask at.
    """
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            "nothing is done: there is no terminal to ask at; --yes does it without asking"
        )
    return click.confirm(question, default=False, err=True)


def outcome(found: Any, form: tables.Form) -> None:
    """Print what a command did, or found out, for a program: JSON, or CSV of key and value."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        found = dataclasses.asdict(found)
    elif hasattr(found, "_asdict"):
        found = found._asdict()
    if form == "json":
        tables.print_json(found)
    else:
        tables.print_frame(tables.facts_frame(found), form)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let ctrl-C end the process at once, also while a database works and Python does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def plural(n: int, what: str) -> str:
    """Return a number of things in words: ``1 run``, ``2 runs``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def in_bytes(n: int) -> str:
    """Return a size as one reads it."""
    size = float(n)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{n:,} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
