"""Which files a person's own program is made of, and what they held when they were imported."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
from tiny import TinyConfig

from experiments.runner import config as configs
from experiments.runner import sources

MODEL = """\
import torch
from solvers import Picard
from implicit import DEQ
from mine.parts import gain
from . import shapes

def build():
    import mine.late as late
    from .late import missing
    import json, nowhere.to_be_found
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a person's own, importable, that leaves nothing behind."""
    files = {
        "__init__": "",
        "model": MODEL,
        "parts": "gain = 1\n",
        "shapes": "import mine.deeper.down\n",
        "late": "def broken(:\n",
        "unused": "",
    }
    folder = tmp_path / "mine"
    (folder / "deeper").mkdir(parents=True)  # without an __init__: a namespace
    (folder / "deeper" / "down.py").write_text("from mine.parts import gain\n")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return folder


def test_a_module_and_all_that_it_imports(mine: Path) -> None:
    importlib.import_module("mine.model")
    found = sources.used(["mine.model"])
    expected = {
        "mine": "__init__.py",
        "mine.deeper.down": "deeper/down.py",
        "mine.late": "late.py",  # inside of a function, not imported yet, and no Python
        "mine.model": "model.py",
        "mine.parts": "parts.py",
        "mine.shapes": "shapes.py",
    }
    assert {s.module: s.path for s in found} == {m: mine / f for m, f in expected.items()}
    assert all(s.md5 == hashlib.md5(s.path.read_bytes()).hexdigest() for s in found)
    assert "mine.late" not in sys.modules  # nothing was imported for it


def test_what_was_imported_is_known_after_an_edit(mine: Path) -> None:
    importlib.import_module("mine.parts")
    before = sources.used(["mine.parts"])
    (mine / "parts.py").write_text("gain = 2\n")
    assert sources.used(["mine.parts"]) == before
    del sys.modules["mine.parts"]
    importlib.import_module("mine.parts")
    after = {s.module: s.md5 for s in sources.used(["mine.parts"])}
    assert after["mine.parts"] == hashlib.md5(b"gain = 2\n").hexdigest()


def test_nothing_of_ours_or_of_others_is_a_persons_own() -> None:
    names = ["solvers", "implicit.models", "json", "torch", "sacred.run", "sys", "no_such_module"]
    assert sources.used(names) == []


def test_a_file_that_a_config_names_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from solvers import Picard\n\nclass Mine(Picard):\n    pass\n")
    complete = configs.complete(TinyConfig, {"solver.name": f"{file}:Mine"})
    assert sources.modules(complete) == [str(file)]
    assert [s.path for s in sources.used(sources.modules(complete))] == [file]
    assert sources.modules(configs.complete(TinyConfig, {})) == []
