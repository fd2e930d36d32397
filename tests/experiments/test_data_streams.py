"""Batches, segments and passes: the same for a seed and a number, wherever one begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments import data
from experiments.data import dataset
from experiments.data.dataset import DataSet, Pair
from solvers.options import OptionError


def numbers(count: int = 23, **more: Any) -> DataSet:
    """Return a data set whose samples are their own numbers."""
    x = torch.arange(count)[:, None]
    return DataSet("numbers", (x, x), (x[:7], x[:7]), {}, "Numbers.", **more)


def some(batches: Iterable[Pair], count: int) -> list[list[int]]:
    return [x.flatten().tolist() for x, _ in itertools.islice(batches, count)]


@pytest.mark.parametrize("first", [0, 1, 4, 5, 13])
def test_a_stream_begun_later_is_the_rest_of_the_stream(first: int) -> None:
    found = numbers(ordered=True)
    assert found.count("train", 5) == 4
    whole = some(found.batches("train", 5, seed=3), 20)
    assert some(found.batches("train", 5, seed=3, first=first), 20 - first) == whole[first:]
    whole = some(found.segments("train", 5), 20)
    assert some(found.segments("train", 5, first=first), 20 - first) == whole[first:]


def noisy(x: Tensor, target: Tensor, generator: torch.Generator | None) -> Pair:
    if generator is None:
        return -x, target
    return x * 1000 + torch.randint(0, 1000, x.shape, generator=generator), target


def test_what_a_batch_becomes_follows_from_seed_and_number() -> None:
    found = numbers(transform=noisy)
    whole = some(found.batches("train", 5, seed=3), 12)
    assert some(found.batches("train", 5, seed=3, first=7), 5) == whole[7:]
    assert some(found.batches("train", 5, seed=4), 12) != whole
    noise = [[x % 1000 for x in batch] for batch in whole]
    assert len({tuple(batch) for batch in noise}) == len(noise)
    assert [[x // 1000 for x in b] for b in whole] == some(numbers().batches("train", 5, 3), 12)
    assert sorted(some(found.batches("test", 7), 1)[0]) == [-6, -5, -4, -3, -2, -1, 0]


def test_skipped_batches_are_never_made() -> None:
    calls = []

    def counted(x: Tensor, target: Tensor, generator: torch.Generator | None) -> Pair:
        calls.append(len(x))
        return x, target

    next(numbers(transform=counted).batches("train", 5, first=100_000))
    assert calls == [5]


@pytest.mark.parametrize("name", ["pydoc", "markov"])
def test_in_a_segment_each_row_goes_on_where_it_ended(name: str) -> None:
    found = data.load({"name": name, "length": 24})
    count = found.count("test", 6)
    assert count == len(found.test[0]) // 6
    steps = list(itertools.islice(found.segments("test", 6), count + 1))
    for (_, before), (x, _) in itertools.pairwise(steps[:count]):
        assert torch.equal(before[:, -1], x[:, 0])
    rows = torch.cat([x for x, _ in steps[:count]], dim=1).reshape(-1, 24)
    assert torch.equal(rows, found.test[0][: 6 * count])
    assert torch.equal(steps[count][0], steps[0][0])


def test_what_does_not_follow_on_is_no_segment() -> None:
    with pytest.raises(OptionError, match=r"'digits' do not follow one another.*segments=false"):
        data.load("digits").segments("train", 4)
    with pytest.raises(OptionError, match="batch = 24: the train split of 'numbers' has 23"):
        numbers(ordered=True).segments("train", 24)
    with pytest.raises(OptionError, match="first = -1: batches are counted from 0"):
        numbers().batches("train", 4, first=-1)
    with pytest.raises(OptionError, match="split = 'valid': expected 'train' or 'test'"):
        numbers().count("valid", 4)


def test_a_validation_split_is_streamed_and_part_of_the_fingerprint() -> None:
    x = torch.arange(100, 104)[:, None]
    found = numbers(valid=(x, x))
    assert sorted(some(found.batches("valid", 4), 1)[0]) == [100, 101, 102, 103]
    assert found.sha256 != numbers().sha256 != numbers(words=["a", "b"]).sha256
    with pytest.raises(OptionError, match="expected 'train', 'test' or 'valid'"):
        found.batches("tests", 2)  # type: ignore[arg-type]


def test_a_fingerprint_taken_by_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.rand(5, 4, 3).transpose(0, 1), torch.tensor(3), torch.zeros(0, 2)]
    whole = dataset.fingerprint(*tensors)
    monkeypatch.setattr(dataset, "PIECE", 7)
    assert dataset.fingerprint(*tensors) == whole
