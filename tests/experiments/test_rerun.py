"""Runs that are made again: the same counts, from what the store knows and nothing else."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from said import Deq
from sqlalchemy import text

from db import Store, StoreError, connect
from experiments import catalogue
from experiments.runner import environment, sources
from experiments.runner.recording import Outcome, attach, record, run_experiment
from experiments.runner.rerun import pip_line, rerun
from solvers.options import OptionError

Opened = Callable[[], Store]

MODEL = '''\
from torch import nn

from implicit.models import Model


def build(width: int = 8) -> Model:
    """My own model."""
    from mine import layers  # found though it is imported late

    return Model(nn.Linear(64, width), layers.Cell(width), nn.Linear(width, 10),
                 nn.functional.cross_entropy, data="digits")
'''

ALONE = MODEL.replace("from mine import layers", "pass").replace("layers.Cell", "Cell")

LAYERS = """\
import torch
from torch import nn

GAIN = 0.3


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Linear(width, width)
        nn.init.normal_(self.W.weight, std=GAIN / width**0.5)

    def forward(self, z, u):
        return torch.tanh(self.W(z) + u)
"""

QUICK = {
    "solver.name": "anderson",
    "gradient.name": "implicit",
    "repeats": 1,
    "batch": 4,
    "reltol": [1e-2, 1e-4],
    "device": "cpu",
}


@pytest.fixture
def mine(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a person's own with a model; nothing of it stays imported."""
    folder = workplace / "mine"
    folder.mkdir()
    _forget_mine()
    (folder / "model.py").write_text(MODEL)
    (folder / "layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(str(workplace))
    yield folder
    _forget_mine()


def _forget_mine() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def compare(**more: Any) -> Outcome:
    outcome = run_experiment(catalogue.load("compare"), QUICK | more)
    assert outcome.status == "COMPLETED", outcome.error
    return outcome


def counts(store: Store, number: int) -> list[list[Any]]:
    names = ["ord", "phase", "evaluations", "iterations", "sample_evaluations", "vjps", "retcode"]
    return store.solves(f"run_id={number}")[names].to_numpy().tolist()


def write(store: str, statement: str, **values: Any) -> None:
    """Change what the store says, as another version or machine would have written it."""
    engine = connect(store)
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount
    engine.dispose()


def test_a_run_is_made_again_with_the_same_counts(workplace: Path, store: Opened) -> None:
    first = compare()
    compare(seed=1)
    found = rerun(first.uuid[:8])
    assert (found.before, found.run_id, found.status, found.error) == (1, 3, "COMPLETED", "")
    assert found.counts.empty
    assert list(found.counts.columns) == ["ord", "phase", "column", "then", "now"]
    assert found.differences.empty
    assert found.restored == found.sentences == ()
    assert len(counts(store(), 1)) == 4
    assert counts(store(), 3) == counts(store(), 1) != counts(store(), 2)
    again = store().run(3)
    assert (again["parent_id"], again["comment"]) == (1, "run 1 again")
    assert again["config"] == store().run(1)["config"]
    assert (again["study"], again["trial"]) == (None, None)


def test_files_that_were_edited_are_those_of_then(mine: Path, store: Opened) -> None:
    compare(**{"model.name": "mine.model:build"})
    (mine / "layers.py").write_text(LAYERS.replace("0.3", "0.9"))
    then = rerun(1)
    assert then.counts.empty
    assert [Path(name).name for name in then.restored] == ["layers.py"]
    assert then.differences.empty
    assert any("layers.py" in sentence for sentence in then.sentences)
    now = rerun(1, sources="current")
    assert not now.counts.empty
    assert {"evaluations", "products"} <= set(now.counts["column"])
    assert set(now.counts["phase"]) == {"forward", "adjoint", "gradient"}
    assert all(row.then != row.now for row in now.counts.itertuples())
    assert [Path(key).name for key in now.differences.index] == ["layers.py"]
    assert now.restored == ()
    assert store().file(3, str(now.differences.index[0]).removeprefix("code.sources."))
    # what the process had imported before is as it was, and so is what it will import
    from mine import layers

    assert layers.GAIN == 0.3
    assert not sources.moved
    assert not [place for place in sys.path if "deq-rerun" in place]
    # a rerun is a run like any other
    assert rerun(2).counts.empty


def test_a_run_in_a_server_is_made_again(
    mine: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.fresh()
    monkeypatch.setenv("DEQ_STORE", url)
    monkeypatch.setenv("DEQ_JOURNAL", str(mine.parent / "journal"))
    compare(**{"model.name": "mine.model:build", "abstol": 1e-9})
    (mine / "layers.py").write_text(LAYERS.replace("0.3", "0.9"))
    found = rerun(1)
    assert found.counts.empty
    assert found.differences.empty
    assert len(found.restored) == 1
    assert Store(url).run(found.run_id)["config"] == Store(url).run(1)["config"]


def test_files_that_are_gone_are_those_of_then(mine: Path, store: Opened) -> None:
    compare(**{"model.name": "mine.model:build"})
    shutil.rmtree(mine)
    found = rerun(1)
    assert found.counts.empty
    assert sorted(Path(name).name for name in found.restored) == ["layers.py", "model.py"]
    with pytest.raises(OptionError, match=r"run 1 cannot .*'mine\.model'.*--sources stored"):
        rerun(1, sources="current")
    assert len(store().runs()) == 2


@pytest.mark.parametrize("what", ["edited", "gone"])
def test_a_file_that_is_named_by_its_path(
    workplace: Path, store: Opened, what: str, deq: Deq
) -> None:
    file = workplace / "here" / "my_cell.py"
    file.parent.mkdir()
    whole = LAYERS + ALONE
    file.write_text(whole)
    compare(**{"model.name": "here/my_cell.py:build"})
    del sys.modules["here/my_cell.py"]  # as in another process
    if what == "edited":
        file.write_text(whole.replace("0.3", "0.9"))
    else:
        file.unlink()
    said = deq("runs", "rerun", "1")
    assert said.code == 0, said.err
    assert "every count is the same" in said.out
    assert counts(store(), 2) == counts(store(), 1)
    assert "here/my_cell.py" not in sys.modules
    if what == "edited":
        assert deq("runs", "rerun", "1", "--sources", "current").code == 1


def test_a_package_with_files_of_its_own_is_restored_whole(mine: Path, store: Opened) -> None:
    (mine / "__init__.py").write_text("SCALE = 1\n")
    (mine / "more.py").write_text("")
    (mine / "layers.py").write_text("from . import SCALE\nimport mine.more\n" + LAYERS)
    compare(**{"model.name": "mine.model:build"})
    (mine / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    assert rerun(1).counts.empty
    shutil.rmtree(mine)
    found = rerun(1)
    assert found.counts.empty
    assert len(found.restored) == 4


@pytest.mark.parametrize("what", ["raise", "misuse", "terminate"])
def test_a_run_that_failed_fails_again(workplace: Path, store: Opened, what: str) -> None:
    first = run_experiment(tiny.experiment, {"what": what})
    found = rerun(first.uuid)
    assert found.status == first.status != "COMPLETED"
    assert found.error == first.error
    assert found.counts.empty
    assert any(first.error.splitlines()[0] in sentence for sentence in found.sentences)
    assert len(counts(store(), 2)) == 1


def test_settings_are_those_of_then(workplace: Path, store: Opened) -> None:
    before = environment.flags()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    try:
        run_experiment(tiny.experiment, {})
        here = store().run(1)["environment"]["details"]
        assert here["threads"] == 2
        assert here["flags"]["deterministic"] == "warn"
        assert here["flags"]["matmul_precision"] == "high"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)
    assert rerun(1).differences.empty
    assert store().run(2)["environment"]["details"] == here
    assert environment.flags() == before
    assert torch.get_num_threads() == 1


def test_other_versions_are_named_with_what_installs_them(workplace: Path, store: Opened) -> None:
    run_experiment(tiny.experiment, {})
    packages = store().run(1)["environment"]["packages"]
    assert packages["torch"] == torch.__version__
    assert {"deq-lab", "pytest", "numpy"} <= set(packages)
    then = "packages = json_set(packages, '$.numpy', '1.99.0'), fingerprint = 'another'"
    write(str(Path("store.db").resolve()), f"UPDATE environment SET {then}")
    found = rerun(1)
    assert found.differences.loc["environment.packages.numpy", "then"] == "1.99.0"
    assert found.differences.loc["environment.packages.numpy", "now"] == packages["numpy"]
    assert any("pip install numpy==1.99.0" in sentence for sentence in found.sentences)


def test_the_line_that_installs_versions() -> None:
    now = {"numpy": "2.0", "torch": "2.13.0+cpu", "new": "1"}
    assert pip_line(now, now) == ""
    assert pip_line({"numpy": "2.0", "deq-lab": "0.0.1"}, now) == ""
    then = {"numpy": "1.26", "torch": "2.6.0+cu124", "old": "3"}
    assert pip_line(then, now) == ("pip install numpy==1.26 old==3 torch==2.6.0+cu124")


def test_a_solve_that_is_not_there_is_a_difference(workplace: Path) -> None:
    run_experiment(tiny.experiment, {"reltol": [1e-2, 1e-4]})
    write(str(Path("store.db").resolve()), "DELETE FROM solve WHERE ord = 1")
    found = rerun(1).counts
    missing = found[(found["ord"] == 1) & (found["phase"] == "forward")]
    assert set(missing["then"]) == {None}
    assert "evaluations" in set(missing["column"])
    assert not (found["ord"] == 0).any()


def test_a_script_is_told_how_to_be_run_again(workplace: Path) -> None:
    with record(name="script"):
        pass
    with pytest.raises(StoreError) as refused:
        rerun(1)
    message = str(refused.value)
    assert "run 1 was recorded by a script, not by an experiment of deq-lab" in message
    assert f"`python {Path(__file__).resolve()}" in message
    assert "made at commit" in message or not (Path(__file__).parents[2] / ".git").exists()


def test_a_foreign_experiment_is_told_how_to_be_run_again(workplace: Path) -> None:
    (workplace / "theirs.py").write_text(
        "from sacred import Experiment\n"
        "ex = Experiment('compare', save_git_info=False)\n"  # a name of ours does not make it ours
        "ex.add_config({'solver': {'width': 3}})\n"
        "@ex.main\n"
        "def main(): pass\n"
    )
    sys.modules.pop("theirs", None)
    sys.path.append(str(workplace))
    import theirs  # type: ignore[import-not-found]

    attach(theirs.ex).run(
        config_updates={"solver": {"width": 4}}, options={"--loglevel": "CRITICAL"}
    )
    with pytest.raises(StoreError, match="the Sacred experiment 'compare', not by") as refused:
        rerun(1)
    assert f"`python {workplace}/theirs.py main with solver.width=4`" in str(refused.value)


def test_what_cannot_be_made_again(
    workplace: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(workplace / "store.db")
    with pytest.raises(StoreError, match="there is no store"):
        rerun(1)
    run_experiment(tiny.experiment, {})
    with pytest.raises(StoreError, match="there is no run 2"):
        rerun(2)
    with pytest.raises(StoreError, match="sources = 'then': expected 'stored' or 'current'"):
        rerun(1, sources="then")  # type: ignore[arg-type]
    write(here, "UPDATE run SET status = 'RUNNING'")
    with pytest.raises(StoreError, match="run 1 is RUNNING: wait for its end, or `deq runs reap`"):
        rerun(1)
    write(here, "UPDATE run SET status = 'DIED', experiment = 'tinier'")
    with pytest.raises(StoreError, match="'tiny' defines no experiment 'tinier'"):
        rerun(1)
    write(here, "UPDATE run SET meta = json_set(meta, '$.module', 'no.such.module')")
    with pytest.raises(StoreError, match=r"'tinier' in 'no\.such\.module' cannot be imported"):
        rerun(1)
    write(here, "UPDATE run SET experiment = 'tiny', meta = json_set(meta, '$.module', 'tiny')")
    write(here, "UPDATE run SET config = json_set(config, '$.colour', 'red')")
    with pytest.raises(OptionError, match=r"run 1 cannot be made again here: .*'colour'"):
        rerun(1)
    compare(**{"model.name": "mine.model:build"})
    write(here, "DELETE FROM blob")
    assert rerun(2).counts.empty  # nothing needs to be restored
    write(here, "DELETE FROM blob")  # which the run before has stored again
    (mine / "layers.py").write_text(LAYERS.replace("0.3", "0.4"))
    with pytest.raises(StoreError, match=r"layers\.py' is another one now, and its content is not"):
        rerun(2)
    (mine / "layers.py").unlink()
    with pytest.raises(StoreError, match=r"layers\.py' is gone, and its content is not in"):
        rerun(2)


def test_a_run_of_the_first_schema_is_made_again(mine: Path, store: Opened) -> None:
    """Which knew sources by md5, and did not say by which module a file was imported."""
    (mine / "model.py").write_text(LAYERS + ALONE)
    compare(**{"model.name": "mine.model:build"})
    here = str(store().url)
    md5 = sources.used(["mine.model"])[0].md5
    name = next(n for n in store().run(1)["code"]["sources"] if n.endswith("model.py"))
    write(here, "UPDATE run SET meta = json_remove(meta, '$.module', '$.modules')")
    write(here, "UPDATE code SET sources = json_object(:name, :md5)", name=name, md5=md5)
    write(here, "DELETE FROM blob")
    assert rerun(1).counts.empty
    (mine / "model.py").unlink()
    with pytest.raises(StoreError, match=r"model\.py' is gone, and its content is not"):
        rerun(1)


def test_an_experiment_that_was_started_as_a_file(workplace: Path, store: Opened) -> None:
    (workplace / "own.py").write_text(Path(tiny.__file__).read_text())
    subprocess.run([sys.executable, "own.py"], check=True, capture_output=True)
    assert store().run(1)["meta"]["module"] == "__main__"
    found = rerun(1)
    assert found.counts.empty
    assert len(counts(store(), 2)) == 1
    (workplace / "own.py").unlink()
    assert rerun(1).counts.empty


def test_interrupted_a_rerun_leaves_nothing_behind(mine: Path, store: Opened) -> None:
    compare(**{"model.name": "mine.model:build"})
    (mine / "layers.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        rerun(1, sources="current")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert store().runs()["status"].tolist() == ["COMPLETED", "INTERRUPTED"]
    from mine import layers

    assert layers.GAIN == 0.3
