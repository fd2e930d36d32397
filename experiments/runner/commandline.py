"""Sacred's command line for one experiment, with our messages and exit codes.

The syntax is Sacred's own: ``[COMMAND] [with key=value … file.yaml …] [options]``. Exit codes: 0;
1 for a run that raised; 2 for a mistake; 130 and 143 for an interrupted or terminated run.
"""
# mypy: untyped-calls-exclude=sacred

from __future__ import annotations

import pdb
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docopt import DocoptExit, docopt
from sacred import Experiment
from sacred.arg_parser import format_usage, printable_usage
from sacred.commands import help_for_command
from sacred.utils import SacredInterrupt, print_filtered_stacktrace

from experiments import errors
from experiments.runner import config as configs
from experiments.runner.recording import Terminated
from solvers.options import OptionError, unknown


def command_line(
    experiment: Experiment, argv: Sequence[str] | None = None, program: str | None = None
) -> None:
    """Run a command of ``experiment``; end the process when that is not a success.

    Parameters
    ----------
    argv
        The words after the program's name; by default those of this process.
    program
        What the usage calls the program.

    Raises
    ------
    SystemExit
        With an exit code other than 0.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    here = str(Path.cwd())
    if here not in sys.path:  # a user's own model; at the end, so that it shadows nothing of ours
        sys.path.append(here)
    name = program or f"python -m experiments.{experiment.path!s}"
    if code := errors.guarded(lambda: _command(experiment, words, name)):
        sys.exit(code)


def _command(experiment: Experiment, words: list[str], program: str) -> int:
    commands = dict(experiment.gather_commands())
    arguments = _arguments(experiment, words, program, commands)
    command = arguments["COMMAND"]
    if arguments["help"] or arguments["--help"]:
        if command is None:
            print(_usage(experiment, program, commands))
        else:
            print(help_for_command(_known(commands, command)))
        return 0
    updates = _updates(arguments["UPDATE"])
    command = str(command or experiment.default_command)
    _known(commands, command)
    experiment.current_run = None
    try:
        experiment.run(command, updates, info={}, meta_info={}, options=arguments)
    except Terminated:
        print("terminated: the run is recorded as TERMINATED", file=sys.stderr)
        return errors.TERMINATED
    except SacredInterrupt as interrupt:
        print(f"the run ended itself: {interrupt.STATUS}", file=sys.stderr)
        return 1
    except Exception as error:
        run = experiment.current_run
        if run is None or errors.mistake(error) or arguments["--debug"]:
            raise
        print_filtered_stacktrace()
        if run.pdb:
            pdb.post_mortem(error.__traceback__)
        return 1
    return 0


def _usage(experiment: Experiment, program: str, commands: dict[str, Any]) -> str:
    usage: str = format_usage(program, experiment.doc, commands, experiment.all_cli_options)
    return usage.replace(f"'{program}'", program)  # quoted, when the program is several words


def _arguments(
    experiment: Experiment, words: list[str], program: str, commands: dict[str, Any]
) -> dict[str, Any]:
    flags = {"--help": "-h", **dict(reversed(o.get_flags()) for o in experiment.all_cli_options)}
    for word in words:
        long = word.partition("=")[0]
        if word.startswith("--") and not any(flag.startswith(long) for flag in flags):
            raise unknown("option", long, flags)
    if words and "with" not in words and "=" in words[0] and not words[0].startswith("-"):
        raise OptionError(f"'{words[0]}': write 'with' before it: {program} with {' '.join(words)}")
    if words and not words[0].startswith("-") and words[0] not in ("with", "help", *commands):
        raise unknown("command", words[0], [*commands, "with", "help"])
    # docopt cannot read a program's name that has spaces
    parsed = format_usage("experiment", "", commands, experiment.all_cli_options)
    try:
        arguments: dict[str, Any] = docopt(parsed, words, default_help=False)
    except DocoptExit:
        usage = printable_usage(_usage(experiment, program, commands))
        raise OptionError(f"cannot read '{' '.join(words)}'\n{usage}") from None
    return arguments


def _known(commands: dict[str, Any], name: str) -> Any:
    if name not in commands:
        raise unknown("command", name, commands)
    return commands[name]


def _updates(words: Sequence[str]) -> dict[str, Any]:
    """Return the config that follows ``with``: that of files, and over it the single keys."""
    updates: dict[str, Any] = {}
    for file in (word for word in words if "=" not in word):
        updates = configs.merge(updates, configs.load(Path(file)))
    merged: dict[str, Any] = configs.merge(updates, configs.parse(w for w in words if "=" in w))
    return merged
