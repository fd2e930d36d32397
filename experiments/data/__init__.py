"""Data sets: what comes with the libraries, what is computed, and published files of the user's.

Nothing is downloaded: the last are read from a directory that is named by ``data.root=``.

``load`` gives a data set for a name, a config or a user's own iterable of batches;
``resolve`` chooses the data of a model and tells the model its sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from experiments.data.dataset import DataSet, as_dataset
from implicit import models
from solvers.options import OptionError
from solvers.registries import Registry

__all__ = ["DataSet", "as_dataset", "forget", "load", "model_options", "registry", "resolve"]

registry: Registry[Any] = Registry("data set", "deq_lab.data")
_loaded: dict[str, DataSet] = {}
registry.register("digits", "experiments.data.digits:build")
registry.register("pydoc", "experiments.data.pydoc:build")
registry.register("pylib", "experiments.data.pylib:build")
registry.register("copy_memory", "experiments.data.copy_memory:build")
registry.register("markov", "experiments.data.markov:build")
registry.register("ptb", "experiments.data.ptb:build")
registry.register("wikitext103", "experiments.data.wikitext103:build")
registry.register("cifar10", "experiments.data.cifar10:build")


def load(data: object) -> DataSet:
    """Return the data set of a name, of a config ``{name: pydoc, length: 32}``, or of an iterable.

    A factory of another package may return a `DataSet` or an iterable of batches (x, target).
    """
    if not isinstance(data, str | Mapping):
        return as_dataset(data)
    # A data set does not change, and every trial of a study asks for it again.
    key = json.dumps(data, sort_keys=True, default=repr)
    if key not in _loaded:
        _loaded[key] = as_dataset(registry.build(data, "data"), name=_name(data))
    return _loaded[key]


def forget() -> None:
    """Build data sets anew when they are asked for again: what builds them is another one now."""
    _loaded.clear()


def model_options(dataset: DataSet) -> dict[str, int]:
    """Return the options of a model that follow from its data.

    These are those of ``inputs``, ``classes``, ``channels``, ``size``, ``vocabulary`` and
    ``length`` that the data has.
    """
    return dict(dataset.meta)


def resolve(model: object, data: object = None) -> tuple[dict[str, Any], DataSet]:
    """Return the config of a model with the sizes of its data filled in, and the data set.

    A size is filled in where the model has such an option and the config leaves it open. Without
    ``data`` the model says which data it wants; it is built once for that, which leaves torch's
    random numbers as they were.

    Raises
    ------
    OptionError
        If neither names a data set, or a size in the config does not fit the data.
    """
    config: dict[str, Any] = dict(model) if isinstance(model, Mapping) else {"name": model}
    if data is None:
        with torch.random.fork_rng(devices=[]):
            data = models.registry.build(config, "model").data
    if data is None:
        raise OptionError(
            f"data = None: the model '{config['name']}' brings no data, so name a data set"
            f" (allowed: {', '.join(registry.names())}, or module.path:attribute)"
        )
    dataset = load(data)
    accepted = {option.name for option in models.registry.describe(config["name"]).options}
    if not {"channels", "size"} <= accepted:  # one of them alone means something else
        accepted -= {"channels", "size"}
    for key, needed in model_options(dataset).items():
        if key not in accepted:
            continue
        if config.get(key) is None:
            config[key] = needed
        given = config[key]
        exact = key in ("inputs", "channels", "size")
        if isinstance(given, int) and (given < needed or (exact and given != needed)):
            least = "" if exact else "at least "
            raise OptionError(
                f"model.{key} = {given}: the data set '{dataset.name}' needs {least}{needed};"
                " leave the option out to take it from the data"
            )
    return config, dataset


def _name(data: str | Mapping[Any, Any]) -> str:
    return str(data if isinstance(data, str) else data.get("name"))
