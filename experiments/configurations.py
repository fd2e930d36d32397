"""The configurations in which the models are run, with the numbers of their parameters.

They are the defaults of every registered model, and each model that a study of trainings names. A
model is built on the meta device for that: it has shapes and no numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.runner.config import fingerprint, merge
from experiments.studies import Study
from experiments.studies import registry as studies
from implicit import models
from solvers.options import OptionError

__all__ = ["Configuration", "configurations", "count", "sizes"]

DEFAULT = "default"


@dataclass(frozen=True)
class Configuration:
    """A model as it is configured somewhere.

    Attributes
    ----------
    model
        The name in the registry.
    name
        ``default``, or the study that names it.
    config
        Its options, complete.
    parameters, cell_parameters
        Numbers that are trained, of all and of the cell alone; None where it cannot be built.
    error
        Why it cannot be built, if so.
    """

    model: str
    name: str
    config: Mapping[str, Any]
    parameters: int | None = None
    cell_parameters: int | None = None
    error: str = ""


def configurations(model: str | None = None) -> list[Configuration]:
    """Return the configurations of a model, or of all, each once."""
    found: dict[tuple[str, str], Configuration] = {}
    for name, given in _named():
        if model not in (None, given["name"]):
            continue
        made = _configuration(name, given)
        found.setdefault((made.model, fingerprint(made.config)), made)
    return list(found.values())


def sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the parameters of a model, all and those of its cell, without making their numbers."""
    with torch.device("meta"):
        built = models.registry.build(config, "model")
    return count(built.module()), count(built.cell)


def count(module: nn.Module) -> int:
    """Return how many numbers a module trains; those of a storage that is shared count once."""
    storages: dict[int, Tensor] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            # The address of the data is 0 for all that is on the meta device.
            key = parameter.untyped_storage()._cdata
            known = storages.setdefault(key, parameter)
            if parameter.numel() > known.numel():
                storages[key] = parameter
    return sum(parameter.numel() for parameter in storages.values())


def _named() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in models.registry.names():
        yield DEFAULT, {"name": name}
    for name in studies.names():
        study = studies.get(name)
        if study.experiment == "training":
            for config in _of(study):
                yield name, config


def _of(study: Study) -> Iterable[Mapping[str, Any]]:
    base = {"model": study.base["model"]} if "model" in study.base else {}
    found = [base]
    for variant in (study, study.on_gpu()):
        for block in variant.grid:
            found += [merge(base, {"model": model}) for model in block.get("model", ())]
    return [config["model"] for config in found if isinstance(config.get("model"), Mapping)]


def _configuration(name: str, given: Mapping[str, Any]) -> Configuration:
    model = str(given["name"])
    try:
        complete = models.registry.complete(given, "model")
        parameters, cell = sizes(complete)
    except OptionError as error:
        return Configuration(model, name, given, error=str(error))
    return Configuration(model, name, complete, parameters, cell)
