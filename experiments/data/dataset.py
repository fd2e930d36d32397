"""What a data set is: two splits of tensors, with sizes, a fingerprint and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.options import OptionError

__all__ = ["DataSet", "as_dataset", "fingerprint"]

Pair = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Inputs and targets in memory, split into ``train`` and ``test``.

    Parameters
    ----------
    name
        The name in the registry.
    train, test
        (x, target), each with one sample a row.
    meta
        Sizes that a model needs, as far as they apply: ``inputs`` (numbers in one x), ``classes``,
        ``vocabulary`` (codes are below it), ``length`` (of a sequence).
    provenance
        One sentence: what it is and where it comes from.
    alphabet
        The character of each code, for text.
    """

    name: str
    train: Pair
    test: Pair
    meta: Mapping[str, int]
    provenance: str
    alphabet: str = ""
    sha256: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Take the fingerprint of everything that a model could see."""
        digest = fingerprint(*self.train, *self.test, text=self.alphabet)
        object.__setattr__(self, "sha256", digest)

    def batches(self, split: Literal["train", "test"], batch: int, seed: int = 0) -> Iterator[Pair]:
        """Return an endless stream of (x, target) with ``batch`` rows, the same for the same seed.

        Each pass is a fresh permutation of the split, without the remainder that fills no batch.

        Raises
        ------
        OptionError
            If the split is unknown or has fewer rows than a batch.
        """
        if split not in ("train", "test"):
            raise OptionError(f"split = {split!r}: expected 'train' or 'test'")
        x, target = self.train if split == "train" else self.test
        if not 1 <= batch <= len(x):
            raise OptionError(
                f"batch = {batch}: the {split} split of '{self.name}' has {len(x)} samples"
            )
        return _shuffled(x, target, batch, seed)


def _shuffled(x: Tensor, target: Tensor, batch: int, seed: int) -> Iterator[Pair]:
    generator = torch.Generator().manual_seed(seed)
    whole = len(x) // batch * batch
    while True:
        order = torch.randperm(len(x), generator=generator)[:whole]
        for rows in order.reshape(-1, batch):
            yield x[rows], target[rows]


def fingerprint(*tensors: Tensor, text: str = "") -> str:
    """Return the sha256, in hexadecimal, of types, shapes and values of tensors, and of a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def as_dataset(data: object, name: str = "user", limit: int = 65536) -> DataSet:
    """Return a data set made of a user's batches, or a data set as it is.

    Batches (x, target) of tensors, as a ``DataLoader`` yields them, are read once into memory, at
    most about ``limit`` samples; every fifth sample is the test split. Give them in a fixed order:
    the fingerprint says which trials saw the same data. Sizes are read off: ``inputs`` and
    ``classes`` from real x (N, n) with whole targets (N,), ``vocabulary`` and ``length`` from
    whole x (N, T).

    Raises
    ------
    OptionError
        If an item is not such a pair, or the batches do not fit together.
    """
    if isinstance(data, DataSet):
        return data
    if not isinstance(data, Iterable):
        raise OptionError(
            f"data: {type(data).__name__} is no data set; expected a name, a DataSet or an iterable"
            " of batches (x, target)"
        )
    x, target = _read(data, limit)
    test = torch.arange(len(x)) % 5 == 4
    return DataSet(
        name=name,
        train=(x[~test], target[~test]),
        test=(x[test], target[test]),
        meta=_sizes(x, target),
        provenance=f"{len(x)} samples given by the user as '{name}', every fifth one for testing.",
    )


def _read(items: Iterable[Any], limit: int) -> Pair:
    xs: list[Tensor] = []
    targets: list[Tensor] = []
    count = 0
    for i, item in enumerate(items):
        if not _is_batch(item):
            raise OptionError(
                f"data: item {i} is a {type(item).__name__}; expected a pair (x, target) of"
                " tensors whose first axis is the batch, as a torch DataLoader yields them"
            )
        xs.append(item[0])
        targets.append(item[1])
        count += len(item[0])
        if count >= limit:
            break
    try:
        return torch.cat(xs), torch.cat(targets)
    except (RuntimeError, ValueError) as error:
        what = "there are no batches" if not xs else f"the batches do not fit together: {error}"
        raise OptionError(f"data: {what}") from None


def _is_batch(item: Any) -> bool:
    return (
        isinstance(item, tuple | list)
        and len(item) == 2
        and all(isinstance(t, Tensor) and t.dim() > 0 for t in item)
        and len(item[0]) == len(item[1])
    )


def _sizes(x: Tensor, target: Tensor) -> dict[str, int]:
    if x.dim() != 2:
        return {}
    if not x.is_floating_point():
        return {"vocabulary": int(torch.maximum(x.max(), target.max())) + 1, "length": x.shape[1]}
    sizes = {"inputs": x.shape[1]}
    if target.dim() == 1 and not target.is_floating_point():
        sizes["classes"] = int(target.max()) + 1
    return sizes
