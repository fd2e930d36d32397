"""The models as they are configured, the paper's sizes among them, counted and built as studies."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from said import Deq
from torch import nn

from db import Store
from experiments import data
from experiments.configurations import DEFAULT, configurations, count
from experiments.data import ptb, wikitext103
from implicit import models

Opened = Callable[[], Store]

# Bai et al. (2019, 2020); what the counts leave out is in the models' docstrings.
PAPER = {
    "wt103": ("transformer", 97_691_888, 69_753_000),
    "ptb": ("trellisnet", 24_192_400, 15_691_200),
    "cifar10-tiny": ("mdeq", 158_890, 111_696),
    "cifar10-large": ("mdeq", 11_097_438, 8_715_232),
}


def test_the_papers_sizes_are_configured_and_counted(deq: Deq) -> None:
    listed = deq("models", "--json").json
    assert {entry["name"] for entry in listed} == set(models.registry.names())
    found = {c["name"]: (c["model"], c) for entry in listed for c in entry["configurations"]}
    for name, (model, total, cell) in PAPER.items():
        assert found[name][0] == model
        made = found[name][1]
        assert (made["parameters"], made["cell_parameters"]) == (total, cell)
    assert "69,753,000" in deq("models").out


def test_every_model_has_its_default_and_none_fails() -> None:
    found = configurations()
    assert [c.error for c in found if c.error] == []
    assert [c.model for c in found if c.name == DEFAULT] == models.registry.names()
    torch.manual_seed(0)
    [default, *_] = configurations("mlp")
    module = models.registry.get("mlp").module()
    assert default.parameters == sum(p.numel() for p in module.parameters())


def test_what_shares_a_storage_is_counted_once() -> None:
    with torch.device("meta"):
        module = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)])
    module[1].weight = module[0].weight
    module[2].weight.data = module[0].weight.data
    assert count(module) == 9 + 3 * 3


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A directory with a little of each published data set, in its layout."""
    text = " the cat sat \n the <unk> sat on the mat \n" * 40
    for files in (ptb.PUBLISHED.files, wikitext103.PUBLISHED.files):
        for file in files:
            (tmp_path / file).write_text(text)
    generator = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = {
            b"data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
            b"labels": generator.integers(0, 10, 4).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=3))
    names = {b"label_names": [f"class {n}".encode() for n in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=3))
    data.forget()
    return tmp_path


@pytest.mark.parametrize("name", PAPER)
def test_a_study_of_the_papers_size_is_ready_to_run(deq: Deq, published: Path, name: str) -> None:
    said = deq(
        "study", name, "--dry-run", "with", f"data.root={published}", "data.verify=false", "batch=2"
    )
    assert said.code == 0, said.err
    assert "trial" in said.out
    without = deq("study", name, "--dry-run")
    assert without.code == 2
    assert "data.root" in without.err


def test_a_network_of_the_papers_trains(deq: Deq, published: Path, store: Opened) -> None:
    said = deq(
        "study", "cifar10-tiny", "with", f"data.root={published}", "data.verify=false", "batch=2",
        "steps=1", "pretrain.steps=0", "evaluate_every=0", "eval_batches=1", "checkpoint_every=0",
    )  # fmt: skip
    assert said.code == 0, said.out + said.err
    result = store().run(1)["result"]
    assert (result["parameters"], result["cell_parameters"]) == PAPER["cifar10-tiny"][1:]
    assert 0 <= result["accuracy"] <= 1
