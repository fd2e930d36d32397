"""Trainings in this process, small."""

import contextlib
from collections.abc import Iterator
from typing import Any

from experiments.runner import config as configs
from experiments.runner.recording import record
from experiments.trainer import Trainer
from experiments.training import TrainingConfig

SMALL = ("device=cpu", "model.width=12", "batch=8", "eval_batches=2", "record_every=4")


def complete(*words: str) -> dict[str, Any]:
    given = dict(word.split("=", 1) for word in (*SMALL, *words))
    return configs.complete(TrainingConfig, configs.parse(f"{k}={v}" for k, v in given.items()))


@contextlib.contextmanager
def training(*words: str) -> Iterator[Trainer]:
    """Give a trainer whose run is recorded in the store of the workplace."""
    config = TrainingConfig(**complete(*words))
    with record(name="training", config=complete(*words), output=False) as recorder:
        yield Trainer(config, recorder)
