"""``deq query`` and ``deq db``: the store asked in SQL, looked over, upgraded, filled up."""

from __future__ import annotations

import click

from experiments import tables
from experiments.cli.common import (
    Group,
    confirmed,
    in_bytes,
    interruptible,
    open_store,
    outcome,
    output,
    plural,
    rows,
    store_option,
    yes_option,
)


@click.command()
@click.argument("sql")
@output
@rows
@store_option
def query(sql: str, form: tables.Form, limit: int | None, store: str | None) -> int:
    """Ask the store in SQL, read-only.

    Views, one row a thing: v_runs, v_solves, v_gradients, v_series, v_points, v_comparisons
    (columns and units: docs/store.md).

    \b
    deq query "select solver, avg(evaluations) from v_solves where phase='forward' group by solver"
    """
    with interruptible():
        frame = open_store(store).query(sql)
    tables.print_frame(frame, form, limit=limit)
    return 0


@click.group("db", cls=Group)
def group() -> None:
    """The store itself: what it holds, whether it is in order, its schema, what is to come in."""


@group.command()
@output
@store_option
def info(form: tables.Form, store: str | None) -> int:
    """Say where the store is, what it holds, and how large it is."""
    from db import upkeep

    with interruptible():
        found = upkeep.info(store)
    if form != "table":
        outcome(found, form)
        return 0
    for name in ("bytes", "trace_bytes", "blob_bytes"):
        if name in found:
            found[name] = in_bytes(found[name])
    found["journals"]["bytes"] = in_bytes(found["journals"]["bytes"])
    shown = {k: f"{v:,}" if isinstance(v, int) else v for k, v in found.items()}
    tables.print_facts(shown)
    if found["schema"] != found["needs"]:
        click.echo("its schema is another than this deq-lab reads: `deq db doctor` says what to do")
    return 0


@group.command()
@click.option("--mend", is_flag=True, help="Put right what can be put right in the store itself.")
@yes_option
@output
@store_option
def doctor(mend: bool, yes: bool, form: tables.Form, store: str | None) -> int:
    """Look the store over; the exit code is 1 when something is to be done.

    Each finding has the command that mends it. --mend makes missing indices, tables and views,
    puts series' sums right, and deletes rows whose run is gone; it asks first.
    """
    import pandas as pd

    from db import upkeep

    with interruptible():
        found = upkeep.doctor(store)
    if mend and any("--mend" in finding.remedy for finding in found):
        for finding in found:
            click.echo(f"{finding.level}: {finding.what}", err=True)
        if not confirmed("mend it?", yes):
            click.echo("nothing is done", err=True)
            return 1
        for text in upkeep.mend(store):
            click.echo(text, err=True)
        found = upkeep.doctor(store)
    if form != "table":
        frame = pd.DataFrame(found, columns=["level", "what", "remedy"], dtype="object")
        tables.print_frame(frame, form)
    elif not found:
        click.echo("all is in order")
    else:
        for finding in found:
            click.echo(tables.shown(f"{finding.level}: {finding.what}"))
            click.echo(tables.shown(f"  {finding.remedy}"))
    return int(any(finding.level != "note" for finding in found))


@group.command()
@click.option("--force", is_flag=True, help="Also while runs of the store are alive.")
@store_option
def upgrade(force: bool, store: str | None) -> int:
    """Bring the store to the schema of this deq-lab; a file of SQLite is copied first."""
    from db import upgrade as upgrades

    before, needed = upgrades.pending(store)
    if before < needed:
        click.echo(f"from schema version {before} to {needed} …")
    done = upgrades.upgrade(store, force=force)
    if done.before == done.after:
        click.echo(f"nothing to do: the schema has version {done.after}")
        return 0
    if done.copy is not None:
        click.echo(f"the file as it was: {done.copy}")
    for table, n in done.rows.items():
        if n:
            click.echo(f"  {table}: {plural(n, 'row')}")
    click.echo(f"the schema has version {done.after} now, and every row is there")
    return 0


@group.command()
@click.option(
    "--everything",
    is_flag=True,
    help="Also journals of other machines; only when their runs are known to have ended.",
)
@output
@store_option
def sync(everything: bool, form: tables.Form, store: str | None) -> int:
    """Store what the journals of this machine have, of runs whose process has ended.

    A run that could not reach the store leaves its journal; to do this twice does no harm. The exit
    code is 1 when a journal could not be stored.
    """
    from db.sync import sync as synced

    found = synced(store, everything=everything)
    for problem in found.problems:
        click.echo(f"warning: {problem}", err=True)
    if form != "table":
        outcome(found, form)
        return int(bool(found.problems))
    if found.runs:
        died = f", of which {len(found.died):,} died" if found.died else ""
        click.echo(
            f"stored {plural(found.events, 'event')} of {plural(len(found.runs), 'run')}{died}"
        )
    else:
        click.echo("nothing to store")
    if found.left:
        click.echo(f"{plural(len(found.left), 'journal')} stay where they are")
    return int(bool(found.problems))


@group.command()
@click.argument("source", metavar="SOURCE")
@output
@store_option
def merge(source: str, form: tables.Form, store: str | None) -> int:
    """Add the runs of SOURCE to the store, by their uuids; to do it twice does no harm.

    SOURCE is the file or URL of another store, or a directory that `deq runs export` wrote.

    \b
    deq db merge laptop.db --store postgresql://me@server/lab
    """
    from db import transfer

    found = transfer.merge(source, store)
    if form != "table":
        outcome(found, form)
        return 0
    counts = f"{len(found.renewed):,} renewed, {len(found.same):,} the same already"
    click.echo(f"{plural(len(found.added), 'run')} added, {counts}")
    if found.put_away:
        click.echo(f"{plural(len(found.put_away), 'run')} put away in the store stay so")
    return 0
