"""The command ``deq``.

Nothing heavy is imported before the command that needs it is known.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments import errors, tables

if TYPE_CHECKING:
    from db import Store

REGISTRIES = {
    "solvers": ("solvers:registry", "solvers.linear:registry"),
    "gradients": ("implicit.gradients:registry",),
    "models": ("implicit.models:registry",),
    "problems": ("solvers.problems:registry",),
    "data": ("experiments.data:registry",),
}

RUN_COLUMNS = (
    "id", "status", "experiment", "study", "model", "solver", "gradient", "adjoint", "reltol",
    "seed", "device", "seconds", "started_at",
)  # fmt: skip


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for a mistake, 130 for ctrl-C."""
    here = str(Path.cwd())
    if here not in sys.path:  # a user's own modules; at the end, so that they shadow none of ours
        sys.path.append(here)
    return errors.guarded(lambda: _dispatch(argv))


def _dispatch(argv: Sequence[str] | None) -> int:
    importlib.import_module("experiments.runner")  # makes sure that our packages are ours
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        result = deq.main(words, prog_name="deq", standalone_mode=False, obj=words)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # Whoever reads our output has read enough; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def deq() -> None:
    """A laboratory for deep equilibrium models: which root finder, which gradient, and why."""


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


def _registry_command(name: str, places: tuple[str, ...]) -> Callable[[bool], int]:
    @deq.command(name, help=f"List the {name}: options, defaults, what they need, references.")
    @json_option
    def command(as_json: bool) -> int:
        registries = [_attribute(place) for place in places]
        entries = {r.kind: [r.describe(n) for n in r.names()] for r in registries}
        if as_json:
            tables.print_json(
                [
                    {"kind": kind, **dataclasses.asdict(entry)}
                    for kind, found in entries.items()
                    for entry in found
                ]
            )
        else:
            for kind, found in entries.items():
                tables.console().print(tables.entries_table(kind, found))
        return 0

    return command


for _name, _places in REGISTRIES.items():
    _registry_command(_name, _places)


def _attribute(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


@deq.command()
@json_option
def studies(as_json: bool) -> int:
    """List the studies."""
    from experiments.studies import registry

    found = [registry.get(name) for name in registry.names()]
    if as_json:
        tables.print_json(
            [{k: getattr(s, k) for k in ("name", "experiment", "title", "question")} for s in found]
        )
        return 0
    for study in found:
        click.echo(f"{study.name}: {study.title} (experiment {study.experiment})")
        click.echo(f"  {study.question}" if study.question else "")
    return 0


@deq.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
)
@click.argument("experiment")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[with key=value ...] [OPTIONS]")
@click.pass_context
def run(ctx: click.Context, experiment: str, words: tuple[str, ...]) -> int:
    """Run EXPERIMENT once, in Sacred's own syntax.

    \b
    deq run compare with solver.name=broyden reltol=1e-6
    deq run compare print_config with model.name=transformer
    deq run compare --help
    """
    if experiment in ("-h", "--help"):
        click.echo(ctx.get_help())
        return 0
    from experiments import catalogue
    from experiments.runner.commandline import command_line

    command_line(catalogue.load(experiment), words, program=f"deq run {experiment}")
    return 0


@deq.command()
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[with key=value ...]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trials at a time, each in a process of one thread. Where seconds count: 1.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--report", "with_report", is_flag=True, help="Write the study's report at the end.")
@click.option("--dry-run", is_flag=True, help="Show the trials and run none.")
@store_option
@click.pass_context
def study(  # noqa: PLR0917  # click passes by name
    ctx: click.Context,
    name: str,
    words: tuple[str, ...],
    workers: int,
    device: str,
    with_report: bool,
    dry_run: bool,
    store: str | None,
) -> int:
    """Run the trials of study NAME that are missing from the store.

    NAME is one of `deq studies` or the path of a YAML file. What follows `with` goes over every
    trial, and the axes of its keys are fixed so:

    \b
    deq study compare with model.name=mypackage.mymodel:build
    """
    from experiments.runner import config, progress
    from experiments.runner import study as runner
    from experiments.studies import find

    chosen = find(name)
    plan = runner.plan(chosen, config.parse(_after_with(words)), device=device, store=store)
    console = tables.console()
    console.print(progress.plan_line(plan), soft_wrap=True, markup=False)
    if dry_run:
        console.print(progress.plan_table(plan))
        return 0
    summary = runner.run(
        plan, progress.display(console, len(plan.missing)), store=store, workers=workers
    )
    console.print(progress.summary_view(plan, summary, shlex.join(["deq", *ctx.obj])))
    if with_report and not summary.interrupted:
        _report(chosen.name, store, None, None)
    return summary.exit_code


def _after_with(words: tuple[str, ...]) -> tuple[str, ...]:
    from solvers.options import OptionError

    if words and words[0] != "with":
        raise OptionError(f"'{words[0]}': write 'with' before it: with {' '.join(words)}")
    return words[1:]


@deq.group(cls=Group)
def runs() -> None:
    """List, show, compare and rank the runs of the store."""


@runs.command("ls")
@where_option
@json_option
@csv_option
@store_option
def list_runs(where: str | None, as_json: bool, as_csv: bool, store: str | None) -> int:
    """List the runs, newest last; JSON and CSV have every column."""
    frame = _open(store).runs(where)
    shown = frame if as_json or as_csv else frame[[c for c in RUN_COLUMNS if c in frame]]
    tables.print_frame(shown, as_json=as_json, as_csv=as_csv)
    return 0


@runs.command()
@click.argument("run_id", metavar="ID")
@json_option
@store_option
def show(run_id: str, as_json: bool, store: str | None) -> int:
    """Show all of the run with this number or start of a uuid."""
    found = _open(store).run(run_id)
    if as_json:
        tables.print_json(found)
        return 0
    # Sacred lists every option of its own; the JSON has those that were not given too.
    options = found["meta"].get("options", {}) if found.get("meta") else {}
    for name in [name for name, value in options.items() if value is False]:
        del options[name]
    tables.print_facts(found)
    return 0


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="ID ID ...")
@json_option
@csv_option
@store_option
def diff(names: tuple[str, ...], as_json: bool, as_csv: bool, store: str | None) -> int:
    """Show in what runs differ: config, environment, code."""
    frame = _open(store).diff(*names).reset_index()
    tables.print_frame(frame.rename(columns=str), as_json=as_json, as_csv=as_csv)
    return 0


@runs.command()
@click.argument("value")
@where_option
@click.option("-k", "count", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--largest", is_flag=True, help="The largest first, not the least.")
@json_option
@csv_option
@store_option
def best(  # noqa: PLR0917  # click passes by name
    value: str,
    where: str | None,
    count: int,
    largest: bool,
    as_json: bool,
    as_csv: bool,
    store: str | None,
) -> int:
    """Show the runs with the least VALUE.

    VALUE is a column of v_runs, result.NAME (what a run returned) or series.NAME (the last value
    of a logged metric).

    \b
    deq runs best result.evaluations --where "model=mlp"
    """
    frame = _open(store).best(value, where, k=count, largest=largest)
    shown = frame if as_json or as_csv else frame[[c for c in (value, *RUN_COLUMNS) if c in frame]]
    tables.print_frame(shown, as_json=as_json, as_csv=as_csv)
    return 0


@runs.command()
@click.argument("value")
@click.argument("left")
@click.argument("right")
@where_option
@click.option("--key", default="solver", show_default=True, help="The column with LEFT and RIGHT.")
@click.option(
    "--of",
    type=click.Choice(["runs", "solves", "gradients"]),
    default="solves",
    show_default=True,
    help="The view.",
)
@json_option
@csv_option
@store_option
def compare(  # noqa: PLR0917  # click passes by name
    value: str,
    left: str,
    right: str,
    where: str | None,
    key: str,
    of: str,
    as_json: bool,
    as_csv: bool,
    store: str | None,
) -> int:
    """Compare VALUE between LEFT and RIGHT in pairs of equal model, problem, seed and tolerance.

    \b
    deq runs compare evaluations broyden anderson --where "phase=forward and reltol=1e-6"
    """
    frame = _open(store).compare(value, left, right, where=where, key=key, of=of)
    tables.print_frame(frame, as_json=as_json, as_csv=as_csv)
    return 0


@deq.command()
@click.argument("sql")
@json_option
@csv_option
@store_option
def query(sql: str, as_json: bool, as_csv: bool, store: str | None) -> int:
    """Ask the store in SQL, read-only.

    Views, one row a thing: v_runs, v_solves, v_gradients (columns and units: docs/store.md).

    \b
    deq query "select solver, avg(evaluations) from v_solves where phase='forward' group by solver"
    """
    tables.print_frame(_open(store).query(sql), as_json=as_json, as_csv=as_csv)
    return 0


@deq.command()
@click.argument("name", metavar="STUDY")
@where_option
@click.option("--out", metavar="DIR", help="Where to write it. Default: results/STUDY.")
@store_option
def report(name: str, where: str | None, out: str | None, store: str | None) -> int:
    """Write the report of STUDY, from the store alone."""
    return _report(name, store, where, out)


def _report(name: str, store: str | None, where: str | None, out: str | None) -> int:
    from experiments import report as reports

    opened = _open(store)
    study = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    page = reports.render(study, opened, Path(out) if out else None, where)
    console = tables.console(no_terminal=120)
    console.print(reports.terminal_summary(study, opened, where))
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    return 0


def _open(store: str | None) -> Store:
    from db import Store

    return Store(store)
