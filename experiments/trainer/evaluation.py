"""Evaluation of a model on a split: the loss, what it says in other words, and its solves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from experiments.data import DataSet
from experiments.trainer.networks import Network
from experiments.trainer.tally import Stopwatch
from implicit.models import Memory, Model
from solvers import ReturnCode

__all__ = ["Evaluated", "Evaluation"]

SHUFFLED = 0  # the seed of the choice of samples, which every run makes alike
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found; means over the samples, ``seconds`` the median of the batches."""

    loss: float
    accuracy: float | None
    evaluations: float
    converged: float | None
    seconds: float
    task: str | None

    def named(self, prefix: str) -> dict[str, float]:
        """Return the loss and what it says in other words, under ``prefix.…``."""
        values = {f"{prefix}.loss": self.loss}
        if self.accuracy is not None:
            values[f"{prefix}.accuracy"] = self.accuracy
        if self.task == "language":
            values[f"{prefix}.perplexity"] = perplexity(self.loss)
        return values

    def series(self) -> dict[str, float]:
        """Return the points of the series ``test.…``."""
        values = {
            **self.named("test"),
            "test.evaluations": self.evaluations,
            "test.seconds": self.seconds,
        }
        if self.converged is not None:
            values["test.converged"] = self.converged
        return values


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that is no number any more."""
    return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True)
class Evaluation:
    """Evaluates in ``eval()`` mode, without a graph, and leaves all as it was.

    Parameters
    ----------
    model, network, modules, dataset
        What, on which data.
    batch, batches
        Samples of a batch; the most of them, None for the whole split.
    segments
        Whether the model reads the split in order and remembers.
    moved
        Brings (x, target) to the device.
    precision
        Gives the context of the model's precision.
    device
        Where.
    """

    model: Model
    network: Network
    modules: nn.ModuleDict
    dataset: DataSet
    batch: int
    batches: int | None
    segments: bool
    moved: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    precision: Callable[[], AbstractContextManager[Any]]
    device: str

    def __call__(self, split: Split, **solve: Any) -> Evaluated:
        """Evaluate a split; ``solve`` is for :meth:`Network.evaluate`."""
        watch, training = Stopwatch(self.device), self.modules.training
        losses, hits, asked, rows, solved = [], [], [], [], []
        seconds: list[float] = []
        evaluations = 0
        memory: Memory = ()
        devices = [self.device] if self.device.startswith("cuda") else []
        self.modules.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                for pair in self._pairs(split):
                    x, target = self.moved(*pair)
                    first = watch.now()
                    with self.precision():
                        done = self.network.evaluate(self.model.args(x, memory), **solve)
                        prediction = self.model.readout(done.z)
                        loss = self.model.loss(prediction, target)
                    last = watch.now()
                    if self.segments:
                        memory = self.model.memory(done.z, done.args)
                    losses.append(loss.double())
                    rows.append(len(x))
                    evaluations += done.work
                    hits.append(self._hits(prediction, target))
                    asked.append(target.numel())
                    if done.solution is not None:
                        solved.append((done.solution.retcode == ReturnCode.SUCCESS).double().mean())
                    seconds.append(watch.between(first, last))
        finally:
            self.modules.train(training)
        weights = torch.tensor(rows, dtype=torch.float64)
        weights /= weights.sum()
        right = [h for h in hits if h is not None]
        return Evaluated(
            loss=float((torch.stack(losses).cpu() * weights).sum()),
            accuracy=float(torch.stack(right).sum()) / sum(asked) if right else None,
            evaluations=evaluations / len(rows),
            converged=float((torch.stack(solved).cpu() * weights).sum()) if solved else None,
            seconds=statistics.median(seconds),
            task=self.model.task,
        )

    def _pairs(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches: the same ones in every run, the remainder of a whole split too."""
        x, target = getattr(self.dataset, split)
        batch = min(self.batch, len(x))
        if self.segments:
            count = self.dataset.count(split, batch)
            stream = self.dataset.segments(split, batch)
            for _ in range(count if self.batches is None else min(count, self.batches)):
                yield next(stream)
            return
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SHUFFLED))
        transform = self.dataset.transform
        for chosen in order.split(batch)[: self.batches]:
            pair = x[chosen], target[chosen]
            yield pair if transform is None else transform(*pair, None)

    def _hits(self, prediction: Any, target: Tensor) -> Tensor | None:
        """Return how many classes are right, if classes are predicted."""
        if self.model.task not in ("classification", "segmentation"):
            return None
        hits: Tensor = (prediction.argmax(1) == target).sum()
        return hits
