"""The data sets: deterministic, disjoint, known by their fingerprint; a user's own as well."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments import data
from experiments.data import dataset, pydoc
from implicit import models
from implicit.models import Model
from solvers.options import OptionError

# What needs no files of the user's; for the rest see test_published_data.py.
COMPLETE = [name for name in data.registry if not data.registry.describe(name).requires]

every_data_set = pytest.mark.parametrize("name", COMPLETE)


def rows(x: Tensor, target: Tensor) -> set[bytes]:
    both = torch.cat([x.flatten(1).double(), target.reshape(len(x), -1).double()], dim=1)
    return {row.numpy().tobytes() for row in both}


@every_data_set
def test_splits_are_disjoint_and_sizes_are_true(name: str) -> None:
    found = data.load(name)
    for x, target in (found.train, found.test):
        assert len(x) == len(target) > 0
        if "inputs" in found.meta:
            assert x.shape[1:] == (found.meta["inputs"],)
            assert 0 <= float(x.min()) <= float(x.max()) == 1
            assert set(target.tolist()) == set(range(found.meta["classes"]))
            assert found.meta["inputs"] == found.meta["channels"] * found.meta["size"] ** 2
        else:
            assert x.shape[1:] == target.shape[1:] == (found.meta["length"],)
            assert 0 <= int(x.min()) <= int(x.max()) < found.meta["vocabulary"]
            assert x.dtype == target.dtype == torch.int64
    assert len(found.test[0]) < len(found.train[0])
    if name == "digits":
        assert not rows(*found.train) & rows(*found.test)


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = f"from experiments import data as d; print(*(d.load(n).sha256 for n in {COMPLETE}))"
    other = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert other.stdout.split() == [data.load(name).sha256 for name in COMPLETE]


def test_digits_are_these_digits() -> None:
    expected = "b72c6633"
    found = data.load("digits")
    assert found.sha256.startswith(expected)
    assert len(found.train[0]) == 1438
    assert len(found.test[0]) == 359


@every_data_set
def test_batches_follow_from_the_seed(name: str) -> None:
    found = data.load(name)

    def some(seed: int) -> list[tuple[Tensor, Tensor]]:
        return list(itertools.islice(found.batches("train", 16, seed), 3))

    for (x, target), (x2, target2) in zip(some(0), some(0), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(target, target2)
    assert not torch.equal(some(0)[0][0], some(1)[0][0])
    before = torch.random.get_rng_state()
    some(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_pass_sees_every_sample_once_and_passes_differ() -> None:
    x = torch.arange(20.0)[:, None]
    found = data.as_dataset([(x, torch.arange(20))])
    size = len(found.train[0])
    stream = found.batches("train", size, seed=0)
    first, second = next(stream), next(stream)
    assert (
        sorted(first[1].tolist()) == sorted(second[1].tolist()) == sorted(found.train[1].tolist())
    )
    assert first[1].tolist() != second[1].tolist()
    assert torch.equal(first[0][:, 0], first[1].float())


def test_batches_that_cannot_be_are_refused_at_once() -> None:
    found = data.load("digits")
    with pytest.raises(OptionError, match=r"batch = 2000: the train split of 'digits' has 1438"):
        found.batches("train", 2000)
    with pytest.raises(OptionError, match="batch = 0"):
        found.batches("test", 0)
    with pytest.raises(OptionError, match="expected 'train' or 'test'"):
        found.batches("valid", 4)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- pydoc


def test_text_survives_encoding() -> None:
    found = data.load("pydoc")
    assert list(found.alphabet) == sorted(set(found.alphabet))
    assert len(found.alphabet) == found.meta["vocabulary"]
    text = "The 'import' statement.\n"
    assert pydoc.decode(pydoc.encode(text, found.alphabet), found.alphabet) == text


def test_windows_give_back_the_topics_and_no_topic_is_in_both_splits() -> None:
    found = data.load({"name": "pydoc", "length": 64})
    train, test = (pydoc.decode(x.flatten(), found.alphabet) for x, _ in (found.train, found.test))
    texts = list(dict.fromkeys(topics[name] for name in sorted(topics)))
    for i, text in enumerate(texts[:-5]):  # what fills no window is cut off at the end
        assert text in (test if i % 5 == 4 else train)
        assert text not in (train if i % 5 == 4 else test)


def test_the_target_is_the_next_character() -> None:
    found = data.load({"name": "pydoc", "length": 5})
    x, target = found.train
    assert torch.equal(x[:, 1:], target[:, :-1])
    assert torch.equal(x[1:, 0], target[:-1, -1])


def test_the_length_is_an_option_and_part_of_the_fingerprint() -> None:
    short, long = (data.load({"name": "pydoc", "length": n}) for n in (16, 32))
    assert long.meta["length"] == long.train[0].shape[1] == 32
    assert short.sha256 == data.load("pydoc").sha256 != long.sha256
    with pytest.raises(OptionError, match=r"data\.length = 10000000: the text has \d+ characters"):
        data.load({"name": "pydoc", "length": 10_000_000})
    with pytest.raises(OptionError, match=r"data\.lenght.*did you mean 'length'"):
        data.load({"name": "pydoc", "lenght": 16})


# ----------------------------------------------------------------------------------- fingerprints


def test_a_fingerprint_sees_values_types_shapes_and_text() -> None:
    x = torch.arange(6.0)
    variants = [
        dataset.fingerprint(x),
        dataset.fingerprint(x + 1),
        dataset.fingerprint(x.double()),
        dataset.fingerprint(x.reshape(2, 3)),
        dataset.fingerprint(x, text="a"),
        dataset.fingerprint(x, x),
    ]
    assert len(set(variants)) == len(variants)
    assert dataset.fingerprint(torch.arange(12.0)[::2]) == dataset.fingerprint(2 * x)


# -------------------------------------------------------------------------------- a user's own data


def batches(count: int = 4, size: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.rand(size, 3, generator=g), torch.randint(0, 4, (size,), generator=g)


def test_an_iterable_of_batches_is_a_data_set() -> None:
    found = data.as_dataset(batches(), name="mine")
    assert (len(found.train[0]), len(found.test[0])) == (16, 4)
    assert found.meta["inputs"] == 3
    assert found.meta["classes"] == 4
    assert found.sha256 == data.as_dataset(list(batches())).sha256
    assert data.as_dataset(found) is found
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*(torch.cat(t) for t in zip(*batches(), strict=True))),
        batch_size=7,
    )
    assert data.as_dataset(loader).sha256 == found.sha256


def test_sizes_of_sequences_are_read_off() -> None:
    x = torch.randint(0, 9, (10, 6))
    x[0, 0] = 8
    assert dict(data.as_dataset([(x, x)]).meta) == {"vocabulary": 9, "length": 6}
    assert dict(data.as_dataset([(torch.rand(10, 2, 2), torch.rand(10))]).meta) == {}


def test_an_endless_iterable_is_read_up_to_the_limit() -> None:
    forever = itertools.repeat((torch.rand(10, 2), torch.zeros(10)))
    found = data.as_dataset(forever, limit=30)
    assert len(found.train[0]) + len(found.test[0]) == 30


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "int is no data set"),
        ([torch.ones(2)], "item 0 is a Tensor; expected a pair"),
        ([(torch.ones(2, 1), torch.ones(3))], "expected a pair"),
        ([(torch.tensor(1.0), torch.tensor(1))], "first axis is the batch"),
        ([], "there are no batches"),
        ([(torch.ones(1, 2), torch.ones(1)), (torch.ones(1, 3), torch.ones(1))], "do not fit"),
    ],
)
def test_what_is_no_data_set_is_named(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        data.as_dataset(given)


# ------------------------------------------------------------------------------------------ resolve


def test_models_take_their_sizes_from_their_data() -> None:
    config, found = data.resolve("transformer")
    assert found.name == "pydoc"
    assert config == {"name": "transformer", **data.model_options(found)}
    assert data.resolve({"name": "mlp", "width": 8})[0] == {
        "name": "mlp",
        "width": 8,
        "inputs": 64,
        "classes": 10,
    }
    config, found = data.resolve("transformer", {"name": "pydoc", "length": 24})
    assert config["length"] == 24
    model = models.registry.build(config)
    x, target = next(found.batches("train", 2))
    (u,) = model.args(x)
    z = model.cell(u.new_zeros(2, 24, 32), u)
    assert model.loss(model.readout(z), target).isfinite()


def test_resolving_leaves_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    data.resolve("mlp")
    assert torch.equal(before, torch.random.get_rng_state())


def own(width: int = 3, inputs: int = 1) -> Model:
    cell = torch.nn.Linear(width, width)
    return Model(
        torch.nn.Linear(inputs, width), cell, cell, torch.nn.functional.mse_loss, list(batches())
    )


def image(width: int = 3, channels: int = 1, size: int | None = None) -> Model:
    cell = torch.nn.Linear(width, width)
    return Model(cell, cell, cell, torch.nn.functional.mse_loss)


def filters(width: int = 3, channels: int = 7) -> Model:
    return image(width, channels)


def without_data(width: int = 3) -> Model:
    cell = torch.nn.Linear(width, width)
    return Model(cell, cell, cell, torch.nn.functional.mse_loss)


def test_a_model_of_ones_own_with_data_of_ones_own() -> None:
    config, found = data.resolve(f"{__name__}:own")
    assert config == {"name": f"{__name__}:own", "inputs": 3}
    assert len(found.train[0]) == 16
    assert data.load(f"{__name__}:batches").sha256 == found.sha256


def test_sizes_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(OptionError, match=r"model\.inputs = 65: the data set 'digits' needs 64"):
        data.resolve({"name": "mlp", "inputs": 65})
    with pytest.raises(OptionError, match=r"model\.vocabulary = 7: .* needs at least \d+"):
        data.resolve({"name": "transformer", "vocabulary": 7})
    name = f"{__name__}:image"
    assert data.resolve(name, "digits")[0] == {"name": name, "channels": 1, "size": 8}
    for key, value, needed in (("channels", 3, 1), ("size", 32, 8)):
        with pytest.raises(OptionError, match=rf"{key} = {value}: .* 'digits' needs {needed};"):
            data.resolve({"name": name, key: value}, "digits")
    # An option of one of the two names alone is not about the images.
    assert data.resolve(f"{__name__}:filters", "digits")[0] == {"name": f"{__name__}:filters"}
    assert data.resolve({"name": "transformer", "length": 40})[0]["length"] == 40
    with pytest.raises(OptionError, match="brings no data, so name a data set"):
        data.resolve(f"{__name__}:without_data")
    with pytest.raises(OptionError, match=r"data\.name: unknown data set 'digit'; did you mean"):
        data.resolve("mlp", "digit")


def test_summaries_and_references_are_there() -> None:
    for name in data.registry.names():
        entry = data.registry.describe(name)
        assert entry.summary
        assert entry.reference
    for name in COMPLETE:
        assert data.load(name).provenance.endswith(".")
