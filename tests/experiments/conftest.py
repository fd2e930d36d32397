import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from said import Deq, Said

from db import Store
from experiments.cli import main


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQ_STORE", str(tmp_path / "store.db"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def deq(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Deq:
    """The command line, in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def store(workplace: Path) -> Callable[[], Store]:
    return lambda: Store(str(workplace / "store.db"))
