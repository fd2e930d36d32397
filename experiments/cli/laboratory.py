"""What there is, and running it: the registries, ``deq run``, ``deq study``, ``deq report``."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from pathlib import Path
from typing import Any

import click

from experiments import tables
from experiments.cli.common import json_option, open_store, store_option, where_option

REGISTRIES = {
    "solvers": ("solvers:registry", "solvers.linear:registry"),
    "gradients": ("implicit.gradients:registry",),
    "problems": ("solvers.problems:registry",),
    "data": ("experiments.data:registry",),
}


def _registry_command(name: str, places: tuple[str, ...]) -> click.Command:
    @click.command(name, help=f"List the {name}: options, defaults, what they need, references.")
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


@click.command()
@json_option
def models(as_json: bool) -> int:
    """List the models: options, defaults, references, and the parameters of each configuration."""
    from experiments.configurations import configurations
    from implicit.models import registry

    entries = [registry.describe(name) for name in registry.names()]
    found = configurations()
    if as_json:
        rows = [
            {
                "kind": registry.kind,
                **dataclasses.asdict(entry),
                "configurations": [dataclasses.asdict(c) for c in found if c.model == entry.name],
            }
            for entry in entries
        ]
        tables.print_json(rows)
    else:
        tables.console().print(tables.entries_table(registry.kind, entries))
        tables.console().print(tables.configurations_table(found))
    return 0


def _attribute(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


@click.command()
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


@click.command(
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


@click.command()
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

    `with quick=true` runs the short form of a study that has one, kept as NAME-quick.
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
        _report(plan.study.name, store, None, None)
    return summary.exit_code


def _after_with(words: tuple[str, ...]) -> tuple[str, ...]:
    from solvers.options import OptionError

    if words and words[0] != "with":
        raise OptionError(f"'{words[0]}': write 'with' before it: with {' '.join(words)}")
    return words[1:]


@click.command()
@click.argument("name", metavar="STUDY")
@where_option
@click.option("--out", metavar="DIR", help="Where to write it. Default: results/STUDY.")
@store_option
def report(name: str, where: str | None, out: str | None, store: str | None) -> int:
    """Write the report of STUDY, from the store alone."""
    return _report(name, store, where, out)


def _report(name: str, store: str | None, where: str | None, out: str | None) -> int:
    from experiments import report as reports

    opened = open_store(store)
    study = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    page = reports.render(study, opened, Path(out) if out else None, where)
    console = tables.console(no_terminal=120)
    console.print(reports.terminal_summary(study, opened, where))
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    return 0


COMMANDS = (
    *(_registry_command(name, places) for name, places in REGISTRIES.items()),
    models,
    studies,
    run,
    study,
    report,
)
