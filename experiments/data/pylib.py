"""The sources of Python's standard library, as characters: more text than the documentation.

The text differs between versions of Python. Its fingerprint is part of a trial, so that only
results on equal text are compared.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from experiments.data.dataset import DataSet
from experiments.data.text import windows
from solvers.options import OptionError

__all__ = ["ALPHABET", "build", "codes"]

ALPHABET = "\t\n" + "".join(map(chr, range(32, 127))) + "\ufffd"
LEFT_OUT = {
    "site-packages",  # not of the library
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "encodings",  # tables of characters, written by a program
    "pydoc_data",  # the text of the data set pydoc
}


def build(
    megabytes: Annotated[float, Field(gt=0)] = 4,
    length: Annotated[int, Field(ge=1)] = 64,
) -> DataSet:
    """Characters of the Python sources of CPython's library: predict the next one.

    A sample is ``length`` characters x and the same moved on by one, the target. The files come in
    the order of their names, equal ones once, without tests and tables; every fifth file is for
    testing. The alphabet is always the same 98 characters: tab, newline, the 95 printable ones of
    ASCII, and U+FFFD for any other.

    Parameters
    ----------
    megabytes
        Where to end: no file is begun after so many million characters.
    length
        Characters in a sample.

    Raises
    ------
    OptionError
        If this Python has no sources beside it, or a split has fewer characters than one sample
        needs.
    """
    library = Path(os.__file__).parent
    texts: list[str] = []
    size = 0
    for text in _files(library):
        if size >= megabytes * 1e6:
            break
        texts.append(text)
        size += len(text)
    if not texts:
        raise OptionError(
            f"megabytes = {megabytes:g}: there are no sources of Python's library in '{library}';"
            " take another data set"
        )
    train = codes("".join(text for i, text in enumerate(texts) if i % 5 != 4))
    test = codes("".join(texts[4::5]))
    return DataSet(
        name="pylib",
        train=windows(train, length),
        test=windows(test, length),
        meta={"vocabulary": len(ALPHABET), "length": length},
        provenance=(
            f"{size} characters of {len(texts)} files of the library of CPython"
            f" {platform.python_version()}, {len(test)} of them for testing."
        ),
        alphabet=ALPHABET,
        ordered=True,
    )


build.reference = "CPython, Lib"  # type: ignore[attr-defined]  # for `deq data`


def codes(text: str) -> Tensor:
    """Return the codes (T,) of a text in `ALPHABET`, whose last is what every other one becomes."""
    table = np.full(129, len(ALPHABET) - 1, dtype=np.int64)
    for code, character in enumerate(ALPHABET[:-1]):
        table[ord(character)] = code
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return torch.from_numpy(table[np.minimum(points, 128)])


def _files(library: Path) -> Iterator[str]:
    """Yield the text of each source, in the order of their names on every system."""
    found = {}
    for folder, below, files in os.walk(library):
        below[:] = set(below) - LEFT_OUT
        for file in files:
            # What the system was built with is written to _sysconfigdata…, and differs from host
            # to host; a customisation is not of the library.
            if file.endswith(".py") and not file.startswith(("_sysconfigdata", "sitecustomize")):
                path = Path(folder, file)
                found[path.relative_to(library).as_posix()] = path
    seen = set()
    for name in sorted(found):
        text = found[name].read_text(encoding="utf-8", errors="replace")
        if text not in seen:
            seen.add(text)
            yield text
