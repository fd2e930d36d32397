"""``deq runs``: the runs of the store, asked about, named, put away and repeated."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments import tables
from experiments.cli.common import (
    ALWAYS,
    Group,
    chosen_runs,
    confirmed,
    in_bytes,
    interruptible,
    names_argument,
    open_store,
    outcome,
    output,
    plural,
    rows,
    shown_runs,
    store_option,
    where_option,
    yes_option,
)

if TYPE_CHECKING:
    import pandas as pd

    from db.upkeep import Collected

SHORT = ("id", "status", "experiment", "study", "started_at", "solves", "gradients", "tags")


@click.group("runs", cls=Group)
def group() -> None:
    """List, show, compare, tag, remove and repeat the runs of the store.

    ID is the number of a run or the start of its uuid.
    """


# Asking


@group.command("ls")
@where_option
@click.option("--config", multiple=True, metavar="KEY", help="A config key as a column.")
@click.option("--metric", multiple=True, metavar="NAME", help="A metric's last value as a column.")
@click.option("--deleted", is_flag=True, help="List the runs that are put away (deq runs rm).")
@output
@rows
@store_option
def list_runs(  # noqa: PLR0917  # click passes by name
    where: str | None,
    config: tuple[str, ...],
    metric: tuple[str, ...],
    deleted: bool,
    form: tables.Form,
    limit: int | None,
    store: str | None,
) -> int:
    """List the runs, newest last; JSON and CSV have every column.

    \b
    deq runs ls --where "study=compare and started>-7d" --config solver.window --metric loss
    """
    with interruptible():
        frame = open_store(store).runs(where, config=config, metrics=metric, deleted=deleted)
        asked = list(frame.columns)[len(frame.columns) - len(config) - len(metric) :]
        if deleted:
            from db import upkeep

            times = upkeep.away(store).set_index("id")["deleted_at"]
            frame["deleted_at"] = times.reindex(frame["id"]).array
            asked.append("deleted_at")
    shown = shown_runs(frame, last=asked) if form == "table" else frame
    tables.print_frame(
        shown, form, limit=limit, newest=True, empty="no run", keep=(*ALWAYS, *asked)
    )
    return 0


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="ID ...")
@click.option(
    "--file",
    metavar="NAME",
    help="Print this file of the run: an artifact, a source, or diff, its changes to the commit.",
)
@output
@store_option
def show(names: tuple[str, ...], file: str | None, form: tables.Form, store: str | None) -> int:
    """Show all that is known of runs.

    JSON is an object for one run and an array for several; CSV has a row a key.
    """
    import pandas as pd

    opened = open_store(store)
    if file is not None:
        if len(names) > 1 or form != "table":
            raise click.UsageError("--file prints one file of one run, as it is")
        click.echo(opened.file(names[0], file), nl=False)
        return 0
    found = [opened.run(name) for name in names]
    if form == "json":
        tables.print_json(found if len(found) > 1 else found[0])
    elif form == "csv":
        facts = [tables.facts_frame(run) for run in found]
        if len(found) > 1:
            for run, frame in zip(found, facts, strict=True):
                frame.insert(0, "run", run["id"])
        tables.print_frame(pd.concat(facts, ignore_index=True), form)
    else:
        for number, run in enumerate(found):
            if number:
                click.echo()
            _print_run(run)
    return 0


def _print_run(run: dict[str, Any]) -> None:
    # Sacred lists every option of its own; JSON and CSV have those that were not given too.
    options = run["meta"].get("options", {}) if run.get("meta") else {}
    for name in [name for name, value in options.items() if value is False]:
        del options[name]
    packages = (run.get("environment") or {}).get("packages")
    if packages:  # every one is in JSON and CSV
        some = ", ".join(f"{k} {packages[k]}" for k in ("torch", "scipy", "numpy") if k in packages)
        run["environment"]["packages"] = f"{some} and {len(packages)} in all (--json)"
    tables.print_facts(run)


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="ID ID ...")
@click.option(
    "--patch", is_flag=True, help="Show how the sources of two runs differ, line by line."
)
@output
@store_option
def diff(names: tuple[str, ...], patch: bool, form: tables.Form, store: str | None) -> int:
    """Show in what runs differ: config, environment, code."""
    if patch:
        if len(names) != 2 or form != "table":
            raise click.UsageError("--patch is of two runs, and text")
        click.echo(open_store(store).patch(*names) or "no difference\n", nl=False)
        return 0
    with interruptible():
        frame = open_store(store).diff(*names).reset_index()
    _print_differences(frame, form)
    return 0


def _print_differences(frame: pd.DataFrame, form: tables.Form = "table") -> None:
    """Print differences between runs, in which a nan is a value and None the lack of one."""
    named = frame.rename(columns=str)
    for name in named.columns:
        named[name] = [str(v) if isinstance(v, float) and math.isnan(v) else v for v in named[name]]
    tables.print_frame(named, form, empty="no difference")


@group.command()
@click.argument("value")
@where_option
@click.option("-k", "count", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--largest", is_flag=True, help="The largest first, not the least.")
@output
@store_option
def best(  # noqa: PLR0917  # click passes by name
    value: str,
    where: str | None,
    count: int,
    largest: bool,
    form: tables.Form,
    store: str | None,
) -> int:
    """Show the runs with the least VALUE.

    VALUE is a column of v_runs, result.NAME (what a run returned) or series.NAME (the last value
    of a logged metric).

    \b
    deq runs best result.evaluations --where "model=mlp"
    """
    with interruptible():
        frame = open_store(store).best(value, where, k=count, largest=largest)
    shown = shown_runs(frame, (value,)) if form == "table" else frame
    tables.print_frame(shown, form, keep=(value, *ALWAYS))
    return 0


@group.command()
@click.argument("value")
@click.argument("left")
@click.argument("right")
@where_option
@click.option("--key", default="solver", show_default=True, help="The column with LEFT and RIGHT.")
@click.option(
    "--of",
    type=click.Choice(["runs", "solves", "gradients", "series"]),
    default="solves",
    show_default=True,
    help="The view.",
)
@output
@store_option
def compare(  # noqa: PLR0917  # click passes by name
    value: str,
    left: str,
    right: str,
    where: str | None,
    key: str,
    of: str,
    form: tables.Form,
    store: str | None,
) -> int:
    """Compare VALUE between LEFT and RIGHT in pairs of equal model, problem, seed and tolerance.

    left and right are the means over the pairs; less and more count the pairs where LEFT has less
    or more. ratio is the geometric mean of left over right, with the ends of its 95 % interval; p
    that of Wilcoxon's signed-rank test; effect the rank-biserial correlation, -1 where LEFT has
    less in every pair. missing pairs lack a value.

    \b
    deq runs compare evaluations broyden anderson --where "phase=forward and reltol=1e-6"
    """
    with interruptible():
        frame = open_store(store).compare(value, left, right, where=where, key=key, of=of)
    tables.print_frame(frame, form)
    return 0


# Naming


@group.command()
@names_argument
@where_option
@click.option("--add", multiple=True, metavar="TAG", help="A tag to give; may be repeated.")
@click.option("--remove", multiple=True, metavar="TAG", help="A tag to take; may be repeated.")
@store_option
def tag(
    names: tuple[str, ...],
    where: str | None,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    store: str | None,
) -> int:
    """Give runs tags, and take them.

    A tag is any text without commas. `deq runs ls` and `deq runs show` have them.

    \b
    deq runs tag 12 17 --add baseline --remove old
    deq runs tag --where "solver.name=broyden and seed=0" --add "figure 3"
    """
    from db import upkeep

    if not add and not remove:
        raise click.UsageError("which tags? Give --add TAG, --remove TAG, or both")
    numbers = upkeep.retag(store, chosen_runs(names, where, store), add=add, remove=remove)
    changes = [f"{text!r} added" for text in add] + [f"{text!r} removed" for text in remove]
    click.echo(f"{plural(len(numbers), 'run')}: {', '.join(changes)}")
    return 0


# Removing


@group.command()
@names_argument
@where_option
@click.option("--undo", is_flag=True, help="Take runs back that were put away.")
@yes_option
@store_option
def rm(names: tuple[str, ...], where: str | None, undo: bool, yes: bool, store: str | None) -> int:
    """Put runs away: they are in no list, view or report any more.

    It asks first. `deq runs rm --undo ID` takes a run back, `deq runs ls --deleted` lists what is
    away, and `deq runs gc` deletes it.
    """
    from db import upkeep

    if undo:
        if where is not None or not names:
            raise click.UsageError("which runs? --undo takes them by number or uuid")
        click.echo(f"{plural(len(upkeep.take_back(store, names)), 'run')} taken back")
        return 0
    chosen = chosen_runs(names, where, store)
    frame = upkeep.in_short(store, chosen)
    frame = frame[frame["deleted_at"].isna()]
    if frame.empty:
        click.echo("nothing to do: put away already")
        return 0
    if not yes:
        shown = tables.without_empty(frame[list(SHORT)], keep=SHORT[:3])
        tables.print_frame(shown, limit=tables.ROWS)
    solves = int(frame["solves"].sum())
    question = f"put away {plural(len(frame), 'run')} with {plural(solves, 'solve')}?"
    if not confirmed(question, yes):
        click.echo("nothing is done")
        return 1
    done = upkeep.put_away(store, frame["id"].tolist())
    click.echo(f"{plural(len(done), 'run')} put away (`deq runs rm --undo ID` takes one back)")
    return 0


@group.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@yes_option
@output
@store_option
def gc(dry_run: bool, yes: bool, form: tables.Form, store: str | None) -> int:
    """Delete the runs that are put away, for good, and what only they needed.

    Sources, environments and files that other runs refer to stay. It asks first.
    """
    from db import upkeep

    found = upkeep.collect(store, dry_run=True)
    nothing = not any((found.runs, found.environments, found.programs, found.blobs))
    if not dry_run and not nothing:
        if not yes:
            click.echo(f"would delete {_collected(found)}", err=True)
        if not confirmed("delete it for good?", yes):
            click.echo("nothing is done", err=True)
            return 1
        found = upkeep.collect(store)
    if form != "table":
        outcome(found, form)
        return 0
    if nothing:
        click.echo("nothing to delete: no run is put away" if not found.waiting else "nothing yet")
    else:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {_collected(found)}")
    if found.waiting:
        click.echo(
            f"{plural(found.waiting, 'run')} put away stay: they run, "
            "or a journal has more of them (`deq runs reap`, `deq db sync`)"
        )
    if found.freed is not None:
        click.echo(f"the store's file is {in_bytes(found.freed)} smaller")
    return 0


def _collected(found: Collected) -> str:
    parts = [
        plural(found.runs, "run"),
        plural(found.blobs, "blob"),
        plural(found.programs, "program"),
        plural(found.environments, "environment"),
    ]
    return f"{', '.join(parts)}: {in_bytes(found.bytes)} of traces, text and files"


@group.command()
@output
@store_option
def reap(form: tables.Form, store: str | None) -> int:
    """Mark the runs as DIED whose process is gone, after storing what their journals have.

    On this machine a dead process is known for certain; one elsewhere is taken for dead after a
    minute, or three beats, of silence, and comes back by itself when it was only slow.
    """
    import pandas as pd

    from db import liveness
    from db.sync import sync

    open_store(store)  # refuses where there is none
    synced = sync(store)
    for problem in synced.problems:
        click.echo(f"warning: {problem}", err=True)
    died = [
        {"id": None, "uuid": uuid, "why": "its process ended without a word"}
        for uuid in synced.died
    ]
    if died:
        from db import upkeep

        numbers = upkeep.in_short(store, synced.died)["id"].tolist()
        died = [entry | {"id": number} for entry, number in zip(died, numbers, strict=True)]
    died += liveness.reap(store)
    frame = pd.DataFrame(died, columns=["id", "uuid", "why"])
    tables.print_frame(frame, form, empty="no dead run")
    return 0


# Doing again, and taking elsewhere


@group.command()
@click.argument("name", metavar="ID")
@click.option(
    "--sources",
    type=click.Choice(["stored", "current"]),
    default="stored",
    show_default=True,
    help="The program's files: as they were then, or as they are now.",
)
@store_option
def rerun(name: str, sources: Any, store: str | None) -> int:
    """Run ID again with its config, seed and sources; say what differs from then.

    The exit code is 1 when a count (evaluations, products, return codes) is another than then, or
    the run ended in another way.
    """
    from experiments.runner.rerun import rerun as again

    found = again(name, store=store, sources=sources)
    before = open_store(store).run(found.before)["status"]
    click.echo(f"run {found.before} is made again: run {found.run_id}, {found.status}")
    for sentence in found.sentences:
        click.echo(tables.shown(sentence))
    if found.differences.empty:
        click.echo("config, environment and code are as they were")
    else:
        _print_differences(found.differences.reset_index())
    if found.counts.empty:
        click.echo("every count is the same")
    else:
        tables.print_frame(found.counts, limit=tables.ROWS)
        click.echo(f"{plural(len(found.counts), 'count')} differ")
    return int(not found.counts.empty or found.status != before)


@group.command()
@names_argument
@click.argument("folder", metavar="FOLDER")
@where_option
@click.option(
    "--form",
    "kind",
    type=click.Choice(["parquet", "json"]),
    default="parquet",
    show_default=True,
    help="What the files are.",
)
@output
@store_option
def export(  # noqa: PLR0917  # click passes by name
    names: tuple[str, ...],
    folder: str,
    where: str | None,
    kind: Any,
    form: tables.Form,
    store: str | None,
) -> int:
    """Write runs, with all that belongs to them, into the new directory FOLDER.

    Without ID and --where: all of them. `deq db merge FOLDER` reads them into another store.

    \b
    deq runs export --where "study=compare" compare-runs
    deq runs export 12 17 two-runs --form json
    """
    from db import transfer

    if names:
        if where is not None:
            raise click.UsageError("name runs or give --where: one of them")
        where = f"id in ({', '.join(map(str, _present(names, store)))})"
    elif where is None and re.fullmatch("[0-9]+", folder):
        raise click.UsageError(f"where to? Write: deq runs export {folder} FOLDER")
    found = transfer.export(store, Path(folder), where, form=kind)
    if form != "table":
        outcome(found, form)
        return 0
    click.echo(f"{plural(found.runs, 'run')} written to {folder}")
    return 0


def _present(names: tuple[str, ...], store: str | None) -> list[int]:
    """Return the numbers of runs, none of which is put away."""
    from db import StoreError, upkeep

    frame = upkeep.in_short(store, names)
    away = frame.loc[frame["deleted_at"].notna(), "id"].tolist()
    if away:
        raise StoreError(f"run {away[0]} is put away: `deq runs rm --undo {away[0]}` takes it back")
    return list(frame["id"])
