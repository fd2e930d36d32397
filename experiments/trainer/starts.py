"""What a step takes over from the steps before: memory of a segment, and where a solve starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from experiments.data import DataSet
from experiments.trainer.networks import Network, detached
from implicit.models import Memory
from solvers.problem import State, parts

__all__ = ["Batches", "Starts"]

Pair = tuple[Tensor, Tensor]


class Batches:
    """The endless stream of a split, from a batch on; in order and with memory, or shuffled.

    Attributes
    ----------
    count
        Batches in a pass.
    """

    def __init__(
        self, dataset: DataSet, batch: int, seed: int, *, segments: bool, first: int = 0
    ) -> None:
        self.count = dataset.count("train", batch)
        self._segments, self._number = segments, first
        self._pairs: Iterator[Pair]
        self._rows: Iterator[Pair] | None = None
        if segments:
            self._pairs = dataset.segments("train", batch, first)
        else:
            self._pairs = dataset.batches("train", batch, seed, first)
            # The same permutations of numbers: which samples a batch has.
            index = torch.arange(len(dataset.train[0]))
            twin = replace(
                dataset, train=(index, index), test=(index, index), valid=None, transform=None
            )
            self._rows = twin.batches("train", batch, seed, first)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None, bool]]:
        """Give x, target, the numbers of the samples if shuffled, and whether a pass begins."""
        for x, target in self._pairs:
            rows = None if self._rows is None else next(self._rows)[0]
            begins = self._number % self.count == 0
            self._number += 1
            yield x, target, rows, begins


class Starts:
    """Memory and warm starts, as far as they are wanted.

    In a stream of segments a solve starts where the last one ended, as the rows go on; else each
    sample has a place for its last equilibrium.

    Parameters
    ----------
    network
        Whose state and memory it is.
    samples
        In the training split.
    warm, segments
        Whether to start from the last equilibrium; whether rows go on.
    """

    def __init__(self, network: Network, samples: int, *, warm: bool, segments: bool) -> None:
        self._network, self._samples = network, samples
        self._warm, self._segments = warm, segments
        self.memory: Memory = ()
        self._last: tuple[Tensor, ...] = ()
        self._seen = torch.zeros(samples if warm and not segments else 0, dtype=torch.bool)

    def begin(self) -> None:
        """Forget what a pass left behind: the text begins anew."""
        self.memory = ()
        if self._segments:
            self._last = ()

    def start(self, args: tuple[Tensor, ...], rows: Tensor | None) -> State | None:
        """Return where a batch starts; None is the network's own start."""
        if not self._warm or not self._last:
            return None
        if rows is None:
            last = self._last
        else:
            seen = self._seen[rows]
            own = parts(self._network.start(args))
            last = tuple(
                torch.where(
                    seen.to(o.device).view(-1, *[1] * (o.dim() - 1)), k[rows].to(o.device), o
                )
                for k, o in zip(self._last, own, strict=True)
            )
        return last if isinstance(self._network.start(args), tuple) else last[0]

    def keep(self, z: State, args: tuple[Tensor, ...], rows: Tensor | None) -> None:
        """Keep what the next steps want of a state."""
        if self._segments:
            self.memory = self._network.model.memory(z, args)
        if not self._warm:
            return
        now = parts(detached(z))
        if rows is None:
            self._last = tuple(now)
            return
        if not self._last:
            self._last = tuple(t.new_zeros(self._samples, *t.shape[1:]).cpu() for t in now)
        for kept, t in zip(self._last, now, strict=True):
            kept[rows] = t.cpu()
        self._seen[rows] = True

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs."""
        return {"memory": list(self.memory), "last": list(self._last), "seen": self._seen}

    def restore(self, state: Mapping[str, Any], device: str) -> None:
        """Go on from where :meth:`state` was."""
        self.memory = tuple(t.to(device) for t in state["memory"])
        on = device if self._segments else "cpu"
        self._last = tuple(t.to(on) for t in state["last"])
        self._seen = state["seen"]
