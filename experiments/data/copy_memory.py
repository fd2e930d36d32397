"""Copy memory: ten symbols are shown, and asked for after a long blank."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from experiments.data.dataset import DataSet, Pair

__all__ = ["build"]

SYMBOLS = 10  # to be remembered
KINDS = 8  # of symbols, 1 … 8; 0 is the blank, 9 the delimiter


def build(
    delay: Annotated[int, Field(ge=1)] = 100,
    samples: Annotated[int, Field(ge=10)] = 5000,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> DataSet:
    """Copy memory: ten symbols of eight kinds, to be repeated after ``delay`` blanks.

    With T = ``delay`` a sample has T + 20 codes: ten symbols of 1 … 8, T − 1 blanks (0) and eleven
    delimiters (9), at the first of which the copying is announced; the target is T + 10 blanks and
    the ten symbols. This is the layout of Bai, Kolter and Koltun (2018); in Arjovsky et al. one
    delimiter is followed by ten blanks. The loss of both is the mean cross-entropy over all
    positions. Without a memory one can say at best blank T + 10 times and one of eight kinds ten
    times: 10 ln 8 / (T + 20), which is the data set's ``baseline``; the published results are at
    T = 400 and more.

    Parameters
    ----------
    delay
        T, the codes between the last symbol and its delimiter's answer.
    samples
        In the training split; the test split has a tenth of it.
    seed
        Of the symbols.
    """
    random = np.random.RandomState(seed)  # whose numbers no later NumPy changes
    train, test = (_split(random, n, delay) for n in (samples, samples // 10))
    baseline = SYMBOLS * math.log(KINDS) / (delay + 2 * SYMBOLS)
    return DataSet(
        name="copy_memory",
        train=train,
        test=test,
        meta={"vocabulary": KINDS + 2, "length": delay + 2 * SYMBOLS},
        provenance=(
            f"Ten random symbols to be copied after {delay} blanks (seed {seed}); without a memory"
            f" the loss is at least {baseline:.4g}."
        ),
        baseline=baseline,
    )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Arjovsky et al., arXiv:1511.06464; Bai et al., arXiv:1803.01271"
)


def _split(random: np.random.RandomState, rows: int, delay: int) -> Pair:
    symbols = torch.from_numpy(random.randint(1, KINDS + 1, (rows, SYMBOLS))).long()
    x = torch.zeros(rows, delay + 2 * SYMBOLS, dtype=torch.int64)
    target = torch.zeros_like(x)
    x[:, :SYMBOLS] = symbols
    x[:, -SYMBOLS - 1 :] = KINDS + 1
    target[:, -SYMBOLS:] = symbols
    return x, target
