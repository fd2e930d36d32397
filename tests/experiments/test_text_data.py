"""Texts that come with Python or are computed: what they say, and what is known of them."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import data
from experiments.data import markov, pylib
from experiments.data.text import decode
from solvers.options import OptionError

# ------------------------------------------------------------------------------------------ pylib


def test_any_other_character_is_the_last_code() -> None:
    text = "def f(x):\n\treturn 'ä€𝛼\x7f\x0c\x00~'\n"
    found = decode(pylib.codes(text), pylib.ALPHABET)
    assert found == "def f(x):\n\treturn '" + "\ufffd" * 6 + "~'\n"
    assert len(set(pylib.ALPHABET)) == len(pylib.ALPHABET) == 98


def test_the_library_is_cut_at_a_file_and_split_by_files() -> None:
    found = data.load({"name": "pylib", "megabytes": 0.3, "length": 50})
    names = ["__future__.py", "_collections_abc.py", "_compat_pickle.py", "_markupbase.py"]
    library = Path(os.__file__).parent
    train, test = (decode(x.flatten(), found.alphabet) for x, _ in (found.train, found.test))
    size = len(train) + len(test)
    assert 0.3e6 <= size < 0.6e6
    for name in names:
        text = decode(pylib.codes((library / name).read_text("utf-8")), found.alphabet)
        assert (text in train) != (text in test), name
    assert data.load({"name": "pylib", "megabytes": 0.05, "length": 50}).sha256 != found.sha256


def test_files_come_by_name_once_and_without_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"b.py": "b", "a/z.py": "z", "a.py": "a", "c.py": "b", "a/test/x.py": "x"}
    left_out = {"site-packages/s.py": "s", "_sysconfigdata_x.py": "y", "encodings/e.py": "e"}
    for name, text in (files | left_out).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text * 9, encoding="utf-8")
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    with pytest.raises(OptionError, match=r"data\.length = 9: the text has 0 characters"):
        data.load({"name": "pylib", "length": 9})
    for name in ("d.py", "e.py"):
        (tmp_path / name).write_text(name[0] * 10, encoding="utf-8")
    data.forget()
    found = data.load({"name": "pylib", "length": 9})
    assert decode(found.train[0].flatten(), found.alphabet) == "a" * 9 + "z" * 9 + "b" * 9 + "d" * 9
    assert decode(found.test[0].flatten(), found.alphabet) == "e" * 9
    monkeypatch.setattr(os, "__file__", str(tmp_path / "nowhere" / "os.py"))
    with pytest.raises(OptionError, match=r"data\.megabytes = 2: there are no sources"):
        data.load({"name": "pylib", "megabytes": 2})
    data.forget()


# ------------------------------------------------------------------------------------- copy memory


def test_copy_memory_is_laid_out_as_published() -> None:
    found = data.load({"name": "copy_memory", "delay": 30, "samples": 200})
    for (x, target), rows in ((found.train, 200), (found.test, 20)):
        assert x.shape == target.shape == (rows, 50)
        assert set(x[:, :10].unique().tolist()) == set(range(1, 9))
        assert not x[:, 10:39].any()
        assert x[:, 39:].eq(9).all()
        assert not target[:, :40].any()
        assert torch.equal(target[:, 40:], x[:, :10])
    assert found.sha256 != data.load({**_copy(1)}).sha256
    assert found.meta == {"vocabulary": 10, "length": 50}


def _copy(seed: int) -> dict[str, object]:
    return {"name": "copy_memory", "delay": 30, "samples": 200, "seed": seed}


def test_the_baseline_is_the_loss_of_who_remembers_nothing() -> None:
    found = data.load("copy_memory")
    x, target = next(found.batches("test", 100))
    p = torch.zeros(*x.shape, 10)
    p[:, :-10, 0] = 1
    p[:, -10:, 1:9] = 1 / 8
    loss = torch.nn.functional.cross_entropy(p.log().transpose(1, 2), target)
    assert found.baseline == pytest.approx(float(loss), rel=1e-6)  # float32
    assert found.baseline == pytest.approx(10 * math.log(8) / 120)
    assert found.entropy_rate is None


# ------------------------------------------------------------------------------------------ markov


@pytest.mark.parametrize(("symbols", "order"), [(2, 3), (7, 1), (5, 2)])
def test_an_even_chain_has_the_logarithm_of_its_symbols(symbols: int, order: int) -> None:
    rows = np.full((symbols**order, symbols), 1 / symbols)
    entropies = markov.conditional_entropies(rows, markov.stationary(rows))
    assert entropies == pytest.approx([math.log(symbols)] * (order + 1), abs=1e-13)


def test_two_states_agree_with_the_formula() -> None:
    a, b = 0.2, 0.05
    rows = np.array([[1 - a, a], [b, 1 - b]])
    contexts = markov.stationary(rows)
    assert contexts == pytest.approx([b / (a + b), a / (a + b)], abs=1e-11)

    def h(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    expected = [h(b / (a + b)), (b * h(a) + a * h(b)) / (a + b)]
    assert markov.conditional_entropies(rows, contexts) == pytest.approx(expected, abs=1e-10)
    periodic = np.array([[0.0, 1.0], [1.0, 0.0]])
    entropies = markov.conditional_entropies(periodic, markov.stationary(periodic))
    assert entropies == pytest.approx([math.log(2), 0], abs=1e-12)


def test_the_stationary_distribution_is_an_eigenvector() -> None:
    rows = markov.transitions(np.random.RandomState(0), 4, 3, 0.3)
    step = np.zeros((64, 64))
    for context in range(64):
        for symbol in range(4):
            step[context, context * 4 % 64 + symbol] = rows[context, symbol]
    found = markov.stationary(rows)
    assert found @ step == pytest.approx(found, abs=1e-12)
    assert found.sum() == pytest.approx(1)
    entropies = markov.conditional_entropies(rows, found)
    assert len(entropies) == 4
    assert all(later <= earlier for earlier, later in itertools.pairwise(entropies))
    assert entropies[-1] == pytest.approx(
        -float((found[:, None] * rows * np.log(rows)).sum()), abs=1e-12
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_true_model_reaches_the_entropy_rate_on_a_long_text(seed: int) -> None:
    config = {"name": "markov", "symbols": 8, "tokens": 200_000, "length": 50, "seed": seed}
    found = data.load(config)
    rows = markov.transitions(np.random.RandomState(seed), 8, 2, 0.1)
    text = found.train[0].flatten().numpy()
    losses = -np.log(rows[text[:-2] * 8 + text[1:-1], text[2:]])
    means = losses[: len(losses) // 1000 * 1000].reshape(-1, 1000).mean(1)  # nearly independent
    error = means.std(ddof=1) / math.sqrt(len(means))
    assert found.entropy_rate is not None
    assert abs(means.mean() - found.entropy_rate) < 4 * error
    assert error < 0.01 * found.entropy_rate  # so that the test says something
    # Who knows only how often each symbol comes is as bad as the baseline says.
    share = np.bincount(text, minlength=8) / len(text)
    assert found.baseline == pytest.approx(-(share * np.log(share)).sum(), rel=0.02)


def test_markov_splits_are_texts_of_one_chain() -> None:
    found = data.load("markov")
    assert found.ordered
    assert found.valid is not None
    assert len(found.train[0]) == 100_000 // 32 - (100_000 % 32 == 0)
    assert len(found.valid[0]) == len(found.test[0])
    assert found.entropy_rate is not None
    assert f"perplexity {math.exp(found.entropy_rate):.6g}" in found.provenance
    assert found.sha256 != data.load({"name": "markov", "seed": 1}).sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": 100, "order": 3}, r"data\.order = 3: 100 symbols have 100000000 transitions"),
        ({"tokens": 40, "length": 16}, r"data\.length = 16: the text has 10 tokens"),
        ({"symbols": 1}, r"data\.symbols = 1"),
        ({"concentration": 0}, r"data\.concentration = 0"),
        ({"seed": -1}, r"data\.seed = -1"),
    ],
)
def test_languages_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        data.load({"name": "markov", **options})


def test_a_chain_in_parts_is_refused() -> None:
    with pytest.raises(OptionError, match="hardly leaves some of its parts"):
        markov.stationary(np.eye(2))
    with pytest.raises(OptionError, match="raise concentration"):
        markov.stationary(np.array([[1 - 1e-9, 1e-9], [1e-9, 1 - 1e-9]]), work=4000)
