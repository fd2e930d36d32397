"""What a data set is: splits of tensors, with sizes, a fingerprint and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.options import OptionError

__all__ = ["DataSet", "Pair", "Split", "Transform", "as_dataset", "fingerprint"]

Pair = tuple[Tensor, Tensor]
Split = Literal["train", "valid", "test"]
Transform = Callable[[Tensor, Tensor, torch.Generator | None], Pair]
PIECE = 1 << 22  # numbers copied at a time: a large text is never there twice


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Inputs and targets in memory, split into ``train``, ``test`` and perhaps ``valid``.

    Parameters
    ----------
    name
        The name in the registry.
    train, test
        (x, target), each with one sample a row.
    meta
        Sizes that a model needs, as far as they apply: ``inputs`` (numbers in one x), ``classes``,
        ``channels`` and ``size`` (an x of ``channels`` images of ``size`` × ``size``, in this order
        in its row), ``vocabulary`` (codes are below it), ``length`` (of a sequence).
    provenance
        One sentence: what it is and where it comes from.
    alphabet
        The character of each code, for text.
    valid
        A third split, where the source has one.
    ordered
        Whether each row goes on where the one before it ends, so that a model may remember.
    entropy_rate
        Nats per token that no model can fall below, where that is known.
    baseline
        The loss of the best predictor that remembers nothing, where that is known.
    words
        The word of each code, for text in words, or the name of each class.
    transform
        Applied to each batch: (x, target, generator) → (x, target). The generator belongs to this
        batch of this seed in the training split, and is None elsewhere. Data that is kept in a
        smaller type becomes here what a model takes.
    """

    name: str
    train: Pair
    test: Pair
    meta: Mapping[str, int]
    provenance: str
    alphabet: str = ""
    valid: Pair | None = None
    ordered: bool = False
    entropy_rate: float | None = None
    baseline: float | None = None
    words: Sequence[str] = ()
    transform: Transform | None = None
    sha256: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Take the fingerprint of everything that a model could see."""
        text = self.alphabet + "\n".join(self.words)
        digest = fingerprint(*self.train, *self.test, *(self.valid or ()), text=text)
        object.__setattr__(self, "sha256", digest)

    def batches(self, split: Split, batch: int, seed: int = 0, first: int = 0) -> Iterator[Pair]:
        """Return an endless stream of (x, target) with ``batch`` rows, the same for the same seed.

        Each pass is a fresh permutation of the split, without the remainder that fills no batch.

        Parameters
        ----------
        split, batch
            Which samples, and how many at a time.
        seed
            Of the permutations, and of what the data set does to a batch at random.
        first
            The number of the batch to begin with: the stream goes on as if so many had been taken,
            at the cost of one permutation a pass.

        Raises
        ------
        OptionError
            If the split is unknown or has fewer rows than a batch, or ``first`` is negative.
        """
        x, target = self._checked(split, batch, first)
        return self._stream(split, seed, first, _shuffled(x, target, batch, seed=seed, first=first))

    def segments(self, split: Split, batch: int, first: int = 0) -> Iterator[Pair]:
        """Return an endless stream of (x, target) in which each row goes on where it ended.

        The N windows of the split are cut into ``batch`` rows of N // batch windows; batch number k
        has window k of every row. After `count` batches it begins anew, and so must a memory.

        Raises
        ------
        OptionError
            As `batches`, and if the rows of this data set do not follow one another.
        """
        if not self.ordered:
            raise OptionError(
                f"data: the samples of '{self.name}' do not follow one another, so there is nothing"
                " to remember from one batch to the next; take shuffled batches (segments=false)"
            )
        x, target = self._checked(split, batch, first)
        return self._stream(split, 0, first, _in_order(x, target, batch, first))

    def count(self, split: Split, batch: int) -> int:
        """Return how many batches a pass over the split has, the remainder left out.

        Raises
        ------
        OptionError
            If the split is unknown or has fewer rows than a batch.
        """
        return len(self._checked(split, batch, 0)[0]) // batch

    def _checked(self, split: Split, batch: int, first: int) -> Pair:
        splits = {"train": self.train, "test": self.test}
        if self.valid is not None:
            splits["valid"] = self.valid
        if split not in splits:
            *others, last = (repr(name) for name in splits)
            raise OptionError(f"split = {split!r}: expected {', '.join(others)} or {last}")
        x, target = splits[split]
        if not 1 <= batch <= len(x):
            raise OptionError(
                f"batch = {batch}: the {split} split of '{self.name}' has {len(x)} samples"
            )
        if first < 0:
            raise OptionError(f"first = {first}: batches are counted from 0")
        return x, target

    def _stream(
        self, split: Split, seed: int, first: int, batches: Iterator[Pair]
    ) -> Iterator[Pair]:
        if self.transform is None:
            return batches
        return _transformed(self.transform, batches, seed, first, split == "train")


def _shuffled(x: Tensor, target: Tensor, batch: int, *, seed: int, first: int) -> Iterator[Pair]:
    count = len(x) // batch
    generator = torch.Generator().manual_seed(seed)
    for _ in range(first // count):
        torch.randperm(len(x), generator=generator)
    start = first % count * batch
    while True:
        order = torch.randperm(len(x), generator=generator)[start : count * batch]
        for rows in order.reshape(-1, batch):
            yield x[rows], target[rows]
        start = 0


def _in_order(x: Tensor, target: Tensor, batch: int, first: int) -> Iterator[Pair]:
    count = len(x) // batch
    rows = torch.arange(batch) * count
    for k in itertools.count(first):
        yield x[rows + k % count], target[rows + k % count]


def _transformed(
    transform: Transform, batches: Iterator[Pair], seed: int, first: int, random: bool
) -> Iterator[Pair]:
    for number, (x, target) in enumerate(batches, start=first):
        yield transform(x, target, _generator(seed, number) if random else None)


def _generator(seed: int, number: int) -> torch.Generator:
    """Return the random numbers of one batch: hashed, since neighbouring seeds may be alike."""
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def fingerprint(*tensors: Tensor, text: str = "") -> str:
    """Return the sha256, in hexadecimal, of types, shapes and values of tensors, and of a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        rows = tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach()
        for part in rows.split(max(1, PIECE * len(rows) // max(1, rows.numel()))):
            digest.update(part.cpu().flatten().contiguous().view(torch.uint8).numpy().data)
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
