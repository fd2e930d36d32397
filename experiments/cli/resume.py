"""``deq resume``: a training that was interrupted goes on from its checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments import errors
from experiments.cli.common import open_store, store_option

if TYPE_CHECKING:
    from db import Store
    from experiments.trainer.checkpoints import Checkpoint


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--changed",
    is_flag=True,
    help="Go on although the code is another one now, so that what follows may differ.",
)
@store_option
def resume(run: str, changed: bool, store: str | None) -> int:
    """Go on with a training that was interrupted, from its checkpoint.

    RUN is the number of the run or the start of its uuid. What goes on is a new run, which has the
    whole course in its series, and the old one as its parent.
    """
    from db import reap, sync
    from experiments import catalogue
    from experiments.runner.recording import run_experiment
    from solvers.options import OptionError

    opened = open_store(store)
    sync(opened.url)  # a killed run's last words, and that it is dead
    reap(opened.url)
    before = opened.run(run)
    number = before["id"]
    checkpoint = _checkpoint(opened, before)
    state = checkpoint.load()
    made = catalogue.load("training")
    config = _config(before, state)
    if not changed:
        _check_code(number, state, config)
    click.echo(f"going on with run {number} after step {state['steps']} of {config['steps']}")
    try:
        outcome = run_experiment(
            made,
            config,
            store=opened.url,
            study=before["study"],
            trial=before["trial"],
            parent=number,
            comment=f"run {number} goes on",
            resume="changed" if changed else "must",
        )
    except OptionError as error:
        raise OptionError(f"run {number} cannot go on here: {error}") from error
    if outcome.status == "COMPLETED":
        result = outcome.result or {}
        click.echo(f"run {outcome.run_id or outcome.uuid} completed: {_words(result)}")
        return 0
    click.echo(f"{outcome.status}: {outcome.error}", err=True)
    return errors.TERMINATED if outcome.status == "TERMINATED" else 1


def _words(result: Mapping[str, Any]) -> str:
    shown = [k for k in ("loss", "accuracy", "perplexity") if k in result]
    return ", ".join(f"{name} {result[name]:.4g}" for name in shown)


def _checkpoint(opened: Store, run: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint of a run; OptionError if the run needs none, or has none."""
    from experiments.trainer import checkpoints
    from solvers.options import OptionError

    number, status = run["id"], run["status"]
    if run["experiment"] != "training":
        raise OptionError(
            f"run {number} is one of the experiment {run['experiment']!r}, which makes no"
            f" checkpoints; `deq runs rerun {number}` makes it again"
        )
    if status == "RUNNING":
        raise OptionError(
            f"run {number} is RUNNING, and its process lives or is another machine's: wait for its"
            " end"
        )
    if status == "COMPLETED":
        raise OptionError(
            f"run {number} completed already ({_words(run['result'] or {})}):"
            f" `deq runs show {number}`"
        )
    if status == "DIVERGED":
        said = (run["info"] or {}).get("diverged", "its numbers were not finite")
        raise OptionError(
            f"run {number} DIVERGED ({said}), and would do so again: train with another config"
        )
    known = (run["info"] or {}).get("checkpoint")
    found = checkpoints.of_config(run["config"])
    if known and not found.exists():
        found = checkpoints.Checkpoint(Path(known))
    if not found.exists():
        raise OptionError(
            f"there is no checkpoint of run {number}: {_why(opened, run)}, looked for at"
            f" '{found.path}'"
        )
    return found


def _why(opened: Store, run: Mapping[str, Any]) -> str:
    """Say why a run may have no checkpoint."""
    later = [
        other
        for other in opened.runs(f"experiment=training and id>{run['id']}")["id"].tolist()
        if opened.run(other)["parent_id"] == run["id"]
    ]
    for other in later:
        status = opened.run(other)["status"]
        if status == "COMPLETED":
            return f"run {other} went on from it and completed"
        return f"run {other} went on from it and is {status}"
    if not run["config"].get("checkpoint_every"):
        return (
            "it was not interrupted but killed, and checkpoint_every = 0 saves only what is"
            " interrupted"
        )
    return "it ended before the first one, or the file was removed"


def _config(run: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run; OptionError if the checkpoint is of another one."""
    from experiments.runner import config as configs
    from solvers.options import OptionError

    then = json.loads(state["config"])
    config: dict[str, Any] = dict(run["config"])
    if configs.fingerprint(then) != configs.fingerprint(config):
        was, is_ = configs.flatten(then), configs.flatten(config)
        keys = [key for key in sorted({*was, *is_}) if _differ(was.get(key), is_.get(key))]
        raise OptionError(
            f"the checkpoint is of another config than run {run['id']}: {', '.join(keys)}"
        )
    return config


def _differ(one: object, other: object) -> bool:
    both_nan = all(isinstance(x, float) and math.isnan(x) for x in (one, other))
    return one != other and not both_nan


def _check_code(number: int, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse to go on by other code."""
    from experiments.trainer import checkpoints
    from solvers.options import OptionError

    try:
        checkpoints.refuse_changes(state, config)
    except checkpoints.CheckpointError as error:
        raise OptionError(
            f"{error}; `deq resume {number} --changed` goes on nevertheless"
        ) from error
