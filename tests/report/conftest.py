from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import Made, small_study

from db import Store
from experiments.report import render


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a small study: an exception in it, and solves that fail in several ways."""
    path = tmp_path_factory.mktemp("store") / "store.db"
    made = small_study(path)
    made.end(made.run("mlp", "broyden", None, 9), ValueError("cell gave (16, 63), not (16, 64)"))
    return Store(path)


@pytest.fixture(scope="session")
def folder(filled: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that study."""
    return render("compare", filled, tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An empty store to write into."""
    return Made(tmp_path / "store.db")
