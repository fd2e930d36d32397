"""Penn Treebank in words, as Mikolov prepared it for language modelling."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from experiments.data.dataset import DataSet
from experiments.data.words import Published, load

__all__ = ["PUBLISHED", "build"]

PUBLISHED = Published(
    name="ptb",
    title="Penn Treebank (Mikolov)",
    folder="simple-examples/data",
    files=("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    tokens=(929_589, 73_760, 82_430),
    vocabulary=10_000,
    md5=(
        "f26c4b92c5fdc7b3f8c7cdcb991d8420",
        "aa0affc06ff7c36e977d7cd49e3839bf",
        "8b80168b89c18661a38ef683c0dc3721",
    ),
)


def build(
    root: str = "",
    length: Annotated[int, Field(ge=1)] = 110,
    verify: bool = True,
) -> DataSet:
    """Penn Treebank in words, from ``root``: ptb.train.txt, ptb.valid.txt, ptb.test.txt.

    Each line ends in ``<eos>``: 929,589, 73,760 and 82,430 tokens, 10,000 different ones, numbered
    by their frequency. A sample is ``length`` words x and the same moved on by one, the target.

    Parameters
    ----------
    root
        The directory with the three files, or with simple-examples/data/ of them.
    length
        Words in a sample.
    verify
        Whether to refuse files whose counts or checksums are not the published ones.

    Raises
    ------
    OptionError
        If a file is missing, truncated or altered, or shorter than one sample.
    """
    return load(PUBLISHED, root, length, verify)


build.requires = frozenset({"root"})  # type: ignore[attr-defined]  # printed by `deq data`
build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Marcus et al., Computational Linguistics 19, 1993; Mikolov et al., Interspeech 2010"
)
