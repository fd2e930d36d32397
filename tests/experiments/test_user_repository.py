"""A user's own cell, in a repository whose folders have the names of our packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from db import Store

MODEL = '''\
import torch
from torch import nn

from implicit.models import Model


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Linear(width, width)
        nn.init.normal_(self.W.weight, std=0.3 / width**0.5)

    def forward(self, z, u):
        return torch.tanh(self.W(z) + u)


def build(width: int = 8) -> Model:
    """My own model."""
    return Model(nn.Linear(64, width), Cell(width), nn.Linear(width, 10),
                 nn.functional.cross_entropy, data="digits")
'''

STUDY = """\
experiment: compare
base: {repeats: 1, max_evaluations: 20, batch: 4}
grid:
  - model.name: [mlp, transformer]
    solver.name: [picard]
"""

SHADOW = "raise RuntimeError('the folder of the user was imported')\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("db", "experiments", "implicit", "solvers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(SHADOW)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("")
    (tmp_path / "mypackage" / "mymodel.py").write_text(MODEL)
    (tmp_path / "experiments" / "mycell.py").write_text(MODEL)
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path


def call(repository: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    hidden = ("PYTHONPATH", "DEQ_STORE")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    return subprocess.run(
        words,
        cwd=repository,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_through_the_command(repository: Path) -> None:
    deq = Path(sys.executable).parent / "deq"
    if not deq.exists():
        pytest.skip("the command deq is not installed in this environment")
    name = "model.name=mypackage.mymodel:build"
    said = call(repository, str(deq), "study", "mine.yaml", "with", name, "model.width=6")
    assert said.returncode == 0, said.stderr
    store = Store(str(repository / "results" / "store.db"))
    runs = store.runs()
    assert list(runs["model"]) == ["mypackage.mymodel:build"]
    assert list(runs["status"]) == ["COMPLETED"]
    run = store.run(1)
    assert run["config"]["model"]["width"] == 6
    assert any("mymodel.py" in source for source in run["code"]["sources"])


def test_through_sacreds_own_way(repository: Path) -> None:
    name = "model.name=experiments/mycell.py:build"
    said = call(
        repository, sys.executable, "-P", "-m", "experiments.compare", "with", name,
        "repeats=1", "batch=4",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    runs = Store(str(repository / "results" / "store.db")).runs()
    assert list(runs["model"]) == ["experiments/mycell.py:build"]
    assert list(runs["experiment"]) == ["compare"]
