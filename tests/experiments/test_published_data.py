"""Published data from the user's directory: read as laid out, refused when it is something else."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import data
from experiments.cli import main
from experiments.data import cifar10, ptb, wikitext103, words
from solvers.options import OptionError

TEXTS = {
    "train": " the cat sat \n the <unk> sat on the mat \n \n a mat é \n",
    "valid": " the cat \n a dog \n",
    "test": " mat the mat \n",
}
TOKENS = (16, 6, 4)  # of TEXTS, with the ends of the lines
VOCABULARY = 9  # of TEXTS["train"]


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """The tests change files that a data set was made of."""
    data.forget()
    yield
    data.forget()


def write(root: Path, files: tuple[str, ...], texts: dict[str, str] = TEXTS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for file, text in zip(files, texts.values(), strict=True):
        (root / file).write_text(text, encoding="utf-8", newline="")
    return root


def small(md5: bool = True) -> words.Published:
    """Return what the texts above are known by."""
    sums = tuple(hashlib.md5(text.encode()).hexdigest() for text in TEXTS.values())
    return dataclasses.replace(
        ptb.PUBLISHED, tokens=TOKENS, vocabulary=VOCABULARY, md5=sums if md5 else ()
    )


# ------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("published", [ptb.PUBLISHED, wikitext103.PUBLISHED], ids=lambda p: p.name)
@pytest.mark.parametrize("inside", [False, True])
def test_words_are_read_from_the_published_layout(
    published: words.Published, inside: bool, tmp_path: Path
) -> None:
    write(tmp_path / published.folder if inside else tmp_path, published.files)
    config = {"name": published.name, "root": str(tmp_path), "length": 3}
    found = data.load({**config, "verify": False})
    assert found.meta == {"vocabulary": VOCABULARY, "length": 3}
    assert found.ordered
    # By frequency: four ends of lines, three times the; then as they come.
    assert found.words[:5] == [words.EOS, "the", "sat", "mat", "cat"]
    assert found.valid is not None
    for (x, target), split in zip((found.train, found.valid, found.test), TEXTS, strict=True):
        expected = TEXTS[split].replace("\n", f" {words.EOS} ").replace("dog", "<unk>").split()
        whole = [*x.flatten().tolist(), target[-1, -1].item()]
        assert [found.words[code] for code in whole] == expected[: len(x) * 3 + 1]
        assert torch.equal(x[:, 1:], target[:, :-1])
    x, target = next(found.batches("valid", 1))
    assert x.dtype == target.dtype == torch.int64
    assert found.train[0].dtype == torch.int32  # half the memory
    assert "not compared" in found.provenance
    with pytest.raises(
        OptionError, match=rf"has 16 tokens, the published.* {TOKENS_OF(published)}"
    ):
        data.load(config)


def TOKENS_OF(published: words.Published) -> str:
    return f"{published.tokens[0]:,}"


def test_what_is_as_published_is_taken(tmp_path: Path) -> None:
    write(tmp_path, ptb.PUBLISHED.files)
    found = words.load(small(), str(tmp_path), 2, verify=True)
    assert "16, 6, 4 tokens" in found.provenance
    assert "as published" in found.provenance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": " the cat"},
            r"train\.txt' has 3 tokens, the published file 16: it is truncated",
        ),
        ({"test": " mat\n"}, r"test\.txt' has 2 tokens, the published file 4: it is truncated"),
        ({"valid": TEXTS["train"]}, r"valid\.txt' has 16 tokens, the published file 6: .*altered"),
        (
            {"train": TEXTS["train"].replace("é", "a")},
            "has 8 different words, the published file 9",
        ),
        ({"test": TEXTS["test"].replace("the", "cat")}, r"\(14 bytes\) has md5 \w{32}, the publ"),
        ({"train": ""}, "has 0 tokens"),
    ],
)
def test_a_text_that_was_cut_or_changed_is_refused_with_the_numbers(
    change: dict[str, str], message: str, tmp_path: Path
) -> None:
    write(tmp_path, ptb.PUBLISHED.files, TEXTS | change)
    with pytest.raises(OptionError, match=message) as raised:
        words.load(small(), str(tmp_path), 2, verify=True)
    assert "verify=false takes your own version" in str(raised.value)


def test_the_numbers_are_the_published_ones() -> None:
    assert ptb.PUBLISHED.tokens == (929_589, 73_760, 82_430)
    assert ptb.PUBLISHED.vocabulary == 10_000
    assert wikitext103.PUBLISHED.tokens == (103_227_021, 217_646, 245_569)
    assert wikitext103.PUBLISHED.vocabulary == 267_735
    assert len(cifar10.MD5) == 7


def test_what_is_no_text_of_known_words_is_refused(tmp_path: Path) -> None:
    config = {"name": "ptb", "root": str(tmp_path), "length": 2, "verify": False}
    write(tmp_path, ptb.PUBLISHED.files, {**TEXTS, "train": " the cat sat on a mat \n" * 3})
    with pytest.raises(OptionError, match=r"ptb\.valid\.txt' has the word 'dog', which is not in"):
        data.load(config)
    (tmp_path / "ptb.train.txt").write_bytes(b" the \xff cat \n")
    with pytest.raises(OptionError, match=r"ptb\.train\.txt' is no UTF-8 text: .*fetch it again"):
        data.load(config)
    write(tmp_path, ptb.PUBLISHED.files)
    with pytest.raises(OptionError, match=r"data\.length = 4: the text has 4 words in a split"):
        data.load({**config, "length": 4})


# ------------------------------------------------------------------------------------- directories

NEEDY = {"ptb": "ptb.valid.txt", "wikitext103": "wiki.valid.tokens", "cifar10": "data_batch_3"}


@pytest.mark.parametrize(("name", "file"), NEEDY.items())
def test_what_is_missing_is_said_with_what_is_expected_where(
    name: str, file: str, tmp_path: Path
) -> None:
    assert data.registry.describe(name).requires == ("root",)
    with pytest.raises(OptionError, match=rf"give data\.root=DIR for '{name}', a directory with"):
        data.load(name)
    with pytest.raises(OptionError, match=r"data\.root = '.*nowhere': it does not exist; expected"):
        data.load({"name": name, "root": str(tmp_path / "nowhere")})
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="it is no directory; expected a directory with"):
        data.load({"name": name, "root": str(tmp_path / "file")})
    with pytest.raises(OptionError, match=rf"{file}.* are not in '.*'; expected a directory with"):
        data.load({"name": name, "root": str(tmp_path)})
    (tmp_path / file).touch()
    with pytest.raises(OptionError) as raised:
        data.load({"name": name, "root": str(tmp_path)})
    assert file not in str(raised.value).split(" are not in ")[0]


def test_deq_data_lists_what_it_cannot_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {*NEEDY, "digits", "pydoc", "pylib", "copy_memory", "markov"} <= {*found}
    assert [name for name in found if found[name]["requires"] == ["root"]] == sorted(NEEDY)
    assert not any(entry["error"] for entry in found.values())


# ------------------------------------------------------------------------------------------- cifar


def images(count: int, seed: int) -> dict[bytes, Any]:
    random = np.random.RandomState(seed)
    return {
        b"batch_label": b"a small one",
        b"labels": random.randint(0, 10, count).tolist(),
        b"data": random.randint(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"x.png"] * count,
    }


def dump(path: Path, content: object) -> None:
    # Protocol 2, as the published ones are, writes bytes as a call; 3 is the next one.
    path.write_bytes(pickle.dumps(content, protocol=3))


@pytest.fixture
def cifar(tmp_path: Path) -> dict[str, Any]:
    """Write small files in the layout of CIFAR-10, and return the config that reads them."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, file in enumerate((*cifar10.TRAIN, cifar10.TEST)):
        dump(folder / file, images(6, i))
    names = [f"class {i}".encode() for i in range(10)]
    dump(folder / cifar10.META, {b"label_names": names, b"num_vis": 3072})
    return {"name": "cifar10", "root": str(tmp_path), "verify": False}


def test_images_are_read_from_the_published_layout(cifar: dict[str, Any]) -> None:
    found = data.load({**cifar, "normalise": False})
    assert found.meta == {"inputs": 3072, "classes": 10, "channels": 3, "size": 32}
    assert found.train[0].shape == (30, 3072)
    assert found.train[0].dtype == torch.uint8
    assert found.train[1][6:12].tolist() == images(6, 1)[b"labels"]
    assert found.words[3] == "class 3"
    assert "not compared" in found.provenance
    x, target = next(found.batches("test", 6))
    assert x.dtype == torch.float32
    shown = {tuple(row) for row in (x * 255).round().to(torch.uint8).tolist()}
    assert shown == {tuple(row) for row in images(6, 5)[b"data"].tolist()}
    assert sorted(target.tolist()) == sorted(images(6, 5)[b"labels"])
    x, _ = next(data.load(cifar).batches("train", 30))
    channels = x.unflatten(1, (3, -1))
    assert channels.mean((0, 2)).abs().max() < 1e-5  # float32
    assert (channels.std((0, 2)) - 1).abs().max() < 1e-4  # the divisor is n, not n - 1
    assert data.load(cifar).sha256 == found.sha256


def test_checksums_decide_unless_told_otherwise(
    cifar: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = {**cifar, "verify": True}
    expected = cifar10.MD5["data_batch_1"]
    with pytest.raises(
        OptionError,
        match=rf"data_batch_1' \([\d,]+ bytes\) has md5 \w+, the published file {expected}",
    ):
        data.load(verified)
    folder = Path(cifar["root"]) / "cifar-10-batches-py"
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in cifar10.MD5}
    monkeypatch.setattr(cifar10, "MD5", sums)
    assert data.load(verified).provenance.endswith("as published.")
    whole = (folder / "test_batch").read_bytes()
    (folder / "test_batch").write_bytes(whole[:-1])
    data.forget()
    with pytest.raises(OptionError, match=r"test_batch' .* it is truncated or altered"):
        data.load(verified)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_something_is_refused_and_not_run(
    cifar: dict[str, Any], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    folder = tmp_path / "cifar-10-batches-py"
    dump(folder / "data_batch_2", {**images(6, 0), b"more": Evil(made)})
    with pytest.raises(
        OptionError, match=r"data_batch_2' cannot be read .*wants to call \w+\.mkdir"
    ):
        data.load(cifar)
    assert not made.exists()
    pickle.loads((folder / "data_batch_2").read_bytes())
    assert made.exists()  # so it would have been


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list, no dictionary"),
        ({**images(6, 0), b"labels": [0] * 5}, r"uint8 \(6, 3072\) as data and 5 labels"),
        ({**images(6, 0), b"labels": [0, 1, 2, 3, 4, 10]}, r"whole numbers in 0 … 9"),
        ({**images(6, 0), b"data": np.zeros((6, 3072))}, r"float64 \(6, 3072\) as data"),
        ({b"labels": [0]}, "has nothing as data"),
    ],
)
def test_files_that_hold_something_else_are_refused(
    cifar: dict[str, Any], content: object, message: str
) -> None:
    path = Path(cifar["root"]) / "cifar-10-batches-py" / "data_batch_4"
    dump(path, content)
    with pytest.raises(OptionError, match=message):
        data.load(cifar)


def test_a_cut_or_empty_file_is_refused(cifar: dict[str, Any]) -> None:
    path = Path(cifar["root"]) / "cifar-10-batches-py" / "data_batch_4"
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"\x00\xffno pickle"):
        path.write_bytes(part)
        with pytest.raises(OptionError, match=r"data_batch_4' cannot be read .*fetch it again"):
            data.load(cifar)


def test_augmented_images_are_crops_of_themselves_some_mirrored() -> None:
    x = torch.from_numpy(images(100, 0)[b"data"])
    found = cifar10.crop_and_flip(x, torch.Generator().manual_seed(0))
    assert found.dtype == torch.uint8
    padded = torch.nn.functional.pad(x.reshape(-1, 3, 32, 32), (4, 4, 4, 4))
    moves = set()
    for image, around in zip(found.reshape(-1, 3, 32, 32), padded, strict=True):
        moves.update(
            (down, right, mirrored)
            for down, right, mirrored in itertools.product(range(9), range(9), (False, True))
            if torch.equal(
                image.flip(2) if mirrored else image,
                around[:, down : down + 32, right : right + 32],
            )
        )
    assert len({m[:2] for m in moves}) > 40  # of 81, for 100 images
    assert len([m for m in moves if m[2]]) in range(30, 71)
    assert {m[0] for m in moves} == {m[1] for m in moves} == set(range(9))


def test_augmentation_follows_from_seed_and_number_and_spares_the_test(
    cifar: dict[str, Any],
) -> None:
    plain, augmented = data.load(cifar), data.load({**cifar, "augment": True})
    assert plain.sha256 == augmented.sha256

    def some(found: data.DataSet, seed: int, first: int = 0) -> list[torch.Tensor]:
        return [x for x, _ in itertools.islice(found.batches("train", 8, seed, first), 5 - first)]

    for one, other in zip(some(augmented, 0)[2:], some(augmented, 0, 2), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(some(augmented, 0)[0], some(plain, 0)[0])
    tests = [next(found.batches("test", 6))[0] for found in (plain, augmented)]
    assert torch.equal(*tests)
