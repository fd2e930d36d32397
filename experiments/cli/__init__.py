"""The command ``deq``.

Nothing heavy is imported before the command that needs it is known.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from experiments import errors
from experiments.cli.common import Group
from experiments.cli.laboratory import COMMANDS
from experiments.cli.resume import resume
from experiments.cli.runs import group as runs_group
from experiments.cli.store import group as store_group
from experiments.cli.store import query

__all__ = ["deq", "main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def deq() -> None:
    """A laboratory for deep equilibrium models: which root finder, which gradient, and why."""


for _command in (*COMMANDS, resume, runs_group, query, store_group):
    deq.add_command(_command)


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
        _readable(words)
        result = deq.main(words, prog_name="deq", standalone_mode=False, obj=words)
        sys.stdout.flush()
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


def _readable(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"the argument {word!r} is no text in UTF-8") from None
