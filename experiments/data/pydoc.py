"""The characters of the English documentation inside CPython, for language modelling.

The text differs between versions of Python. Its fingerprint is part of a trial, so that only
results on equal text are compared.
"""

from __future__ import annotations

import platform
from pydoc_data.topics import topics
from typing import Annotated

from pydantic import Field

from experiments.data.dataset import DataSet
from experiments.data.text import decode, encode, windows

__all__ = ["build", "decode", "encode"]


def build(length: Annotated[int, Field(ge=1)] = 16) -> DataSet:
    """Characters of CPython's documentation topics: predict the next one.

    A sample is ``length`` characters x and the same moved on by one, the target. The topics come
    in the order of their names, equal ones once; every fifth topic is for testing.

    Parameters
    ----------
    length
        Characters in a sample.

    Raises
    ------
    OptionError
        If a split has fewer characters than one sample needs.
    """
    texts = list(dict.fromkeys(topics[name] for name in sorted(topics)))
    alphabet = "".join(sorted(set().union(*texts)))
    train = "".join(text for i, text in enumerate(texts) if i % 5 != 4)
    test = "".join(texts[4::5])
    return DataSet(
        name="pydoc",
        train=windows(encode(train, alphabet), length),
        test=windows(encode(test, alphabet), length),
        meta={"vocabulary": len(alphabet), "length": length},
        provenance=(
            f"{len(train) + len(test)} characters of the documentation in CPython"
            f" {platform.python_version()} (pydoc_data.topics), {len(test)} of them for testing."
        ),
        alphabet=alphabet,
        ordered=True,
    )


build.reference = "CPython, pydoc_data.topics"  # type: ignore[attr-defined]  # for `deq data`
