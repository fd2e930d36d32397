import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of our own, as the store's tests have it."""
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    place = Path(__file__).parents[1] / "db" / "postgres.py"
    spec = importlib.util.spec_from_file_location("postgres", place)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = sys.modules.get("postgres") or importlib.util.module_from_spec(spec)
    if "postgres" not in sys.modules:
        sys.modules["postgres"] = module
        spec.loader.exec_module(module)
    programs = module.binaries()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs: install them, or set DEQ_POSTGRES_BIN")
    with module.server(programs) as running:
        yield running
