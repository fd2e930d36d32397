"""Published texts in words, one file a split, a sentence or paragraph a line.

Words are what white space separates; each line ends in ``<eos>``. Codes go by frequency in the
training text, equal ones by who came first, as an adaptive softmax wants them. The text is read
line by line into 32-bit codes: WikiText-103 takes 0.4 GB, and never is a list of words.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.dataset import DataSet, Pair
from experiments.data.files import check_md5, find
from experiments.data.text import windows
from solvers.options import OptionError

__all__ = ["EOS", "Published", "load"]

EOS = "<eos>"
UNKNOWN = "<unk>"
PIECE = 1 << 22  # codes that are put in order at a time

Codes = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Published:
    """What a published text is known by.

    Parameters
    ----------
    name, title
        In the registry, and in a sentence.
    folder
        The directory that its archive unpacks to.
    files
        For training, validation and testing.
    tokens
        In each, with the ends of the lines.
    vocabulary
        Different tokens in the training text.
    md5
        Of each file, where one version of them is published.
    """

    name: str
    title: str
    folder: str
    files: tuple[str, str, str]
    tokens: tuple[int, int, int]
    vocabulary: int
    md5: tuple[str, ...] = ()


def load(text: Published, root: str, length: int, verify: bool) -> DataSet:
    """Return the data set of a published text from its files under ``root``.

    Raises
    ------
    OptionError
        If files are missing, no UTF-8, not as long as published (unless ``verify`` is false), too
        short for a sample, or say in validation or testing what training does not know.
    """
    place = find(root, text.name, text.folder, text.files)
    paths = [place / file for file in text.files]
    code = _Growing()
    train = _codes(paths[0], code)
    _check(verify, paths[0], len(train), text.tokens[0])
    if verify and len(code) != text.vocabulary:
        raise _altered(paths[0], len(code), text.vocabulary, "different words")
    # Counted by pieces, since each is converted to 64 bits for it.
    counts = np.zeros(len(code), dtype=np.int64)
    for piece in _pieces(train):
        counts += np.bincount(piece, minlength=len(code))
    order = np.argsort(-counts, kind="stable")
    place_of = np.empty(len(code), dtype=np.int32)
    place_of[order] = np.arange(len(code), dtype=np.int32)
    words = list(code)
    splits = [train]
    for path, expected in zip(paths[1:], text.tokens[1:], strict=True):
        splits.append(_codes(path, _Known(code, path)))
        _check(verify, path, len(splits[-1]), expected)
    for codes in splits:  # in place
        for piece in _pieces(codes):
            piece[:] = place_of[piece]
    if verify:
        for path, digest in zip(paths, text.md5, strict=False):
            check_md5(path, digest)
    pairs = [windows(torch.from_numpy(codes), length, "words") for codes in splits]
    sizes = ", ".join(f"{len(codes):,}" for codes in splits)
    checked = "as published" if verify else "not compared with the published numbers"
    return DataSet(
        name=text.name,
        train=pairs[0],
        valid=pairs[1],
        test=pairs[2],
        meta={"vocabulary": len(words), "length": length},
        provenance=(
            f"{text.title} in words: {sizes} tokens for training, validation and testing,"
            f" {len(words):,} different ones, {checked}."
        ),
        ordered=True,
        words=[words[i] for i in order],
        transform=_whole,
    )


def _whole(x: Tensor, target: Tensor, generator: torch.Generator | None) -> Pair:
    """What a loss takes as classes are 64-bit numbers."""
    return x.long(), target.long()


class _Growing(dict[str, int]):
    """Gives each new word the next number."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class _Known(dict[str, int]):
    """Knows the words of the training text; others are its unknown one, if it has that."""

    def __init__(self, code: dict[str, int], path: Path) -> None:
        super().__init__(code)
        self.path = path

    def __missing__(self, word: str) -> int:
        if UNKNOWN not in self:
            raise OptionError(
                f"root: '{self.path}' has the word {word!r}, which is not in the training text, nor"
                f" is {UNKNOWN} there to stand for it"
            )
        return self[UNKNOWN]


def _codes(path: Path, code: dict[str, int]) -> Codes:
    codes = array("i")
    number, end = code.__getitem__, [EOS]
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                codes.extend(map(number, line.split() + end))
    except UnicodeDecodeError as error:
        raise OptionError(f"root: '{path}' is no UTF-8 text: {error}; fetch it again") from None
    return np.frombuffer(codes, dtype=np.int32)


def _pieces(codes: Codes) -> Iterator[Codes]:
    for start in range(0, len(codes), PIECE):
        yield codes[start : start + PIECE]


def _check(verify: bool, path: Path, found: int, expected: int) -> None:
    if verify and found != expected:
        raise _altered(path, found, expected, "tokens")


def _altered(path: Path, found: int, expected: int, of: str) -> OptionError:
    what = "truncated or another version" if found < expected else "altered or another version"
    return OptionError(
        f"root: '{path}' has {found:,} {of}, the published file {expected:,}: it is {what}, so"
        " fetch it again; verify=false takes your own version in this layout"
    )
