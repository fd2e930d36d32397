"""WikiText-103: good and featured articles of Wikipedia, in words."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from experiments.data.dataset import DataSet
from experiments.data.words import Published, load

__all__ = ["PUBLISHED", "build"]

PUBLISHED = Published(
    name="wikitext103",
    title="WikiText-103",
    folder="wikitext-103",
    files=("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    tokens=(103_227_021, 217_646, 245_569),
    vocabulary=267_735,
)


def build(
    root: str = "",
    length: Annotated[int, Field(ge=1)] = 150,
    verify: bool = True,
) -> DataSet:
    """WikiText-103 in words, from ``root``: wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens.

    Each line, empty ones too, ends in ``<eos>``: 103,227,021, 217,646 and 245,569 tokens, 267,735
    different ones, numbered by their frequency, as the cut-offs of an adaptive softmax want them.
    A sample is ``length`` words x and the same moved on by one, the target. Reading it takes about
    a minute and 1 GB.

    Parameters
    ----------
    root
        The directory with the three files, or with wikitext-103/ of them.
    length
        Words in a sample.
    verify
        Whether to refuse files whose counts are not the published ones.

    Raises
    ------
    OptionError
        If a file is missing, truncated or altered, or shorter than one sample.
    """
    return load(PUBLISHED, root, length, verify)


build.requires = frozenset({"root"})  # type: ignore[attr-defined]  # printed by `deq data`
build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Merity et al., Pointer Sentinel Mixture Models, arXiv:1609.07843"
)
