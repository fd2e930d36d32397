"""Text as codes: characters to numbers and back, and windows of a long text."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data.dataset import Pair
from solvers.options import OptionError

__all__ = ["decode", "encode", "windows"]


def encode(text: str, alphabet: str) -> Tensor:
    """Return the codes (T,) of a text: the places of its characters in the alphabet."""
    code = {character: i for i, character in enumerate(alphabet)}
    return torch.tensor([code[character] for character in text], dtype=torch.int64)


def decode(codes: Tensor, alphabet: str) -> str:
    """Return the text of the codes (T,)."""
    return "".join(alphabet[i] for i in codes.tolist())


def windows(codes: Tensor, length: int, unit: str = "characters") -> Pair:
    """Return (x, target), each (N, length), views of the codes (T,): the target is one further on.

    Each window begins where the one before it ends, so the targets are the codes from the second
    on, each once.

    Raises
    ------
    OptionError
        If there are fewer codes than one window and its target need.
    """
    if len(codes) <= length:
        raise OptionError(f"length = {length}: the text has {len(codes)} {unit} in a split")
    cut = codes.unfold(0, length + 1, length)  # the last of one is the first of the next
    return cut[:, :-1], cut[:, 1:]
