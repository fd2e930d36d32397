"""The experiments by name, each imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sacred import Experiment

EXPERIMENTS = {
    "compare": "experiments.compare:experiment",
    "gradients": "experiments.gradients:experiment",
    "limit": "experiments.limit:experiment",
    "memory": "experiments.memory:experiment",
    "overhead": "experiments.overhead:experiment",
    "problems": "experiments.problems:experiment",
    "theory": "experiments.theory:experiment",
    "training": "experiments.training:experiment",
}


def load(name: str, path: str = "experiment") -> Experiment:
    """Return the experiment of a name, or of ``module:attribute``.

    Raises
    ------
    OptionError
        Nobody knows the name, or its module cannot be imported; ``path`` says where it is written.
    """
    from experiments.runner.recording import is_experiment
    from solvers.options import OptionError, unknown

    target = EXPERIMENTS.get(name, name)
    if ":" not in target:
        raise unknown("experiment", name, EXPERIMENTS, path=path)
    module, _, attribute = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        if target != name:  # ours, and our mistake
            raise
        reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise OptionError(f"{path}: cannot import '{module}': {reason}") from error
    found: Any = getattr(loaded, attribute, None)
    if not is_experiment(found):
        raise OptionError(
            f"{path}: '{target}' is no experiment made by experiments.runner.recording.experiment"
        )
    return cast("Experiment", found)
