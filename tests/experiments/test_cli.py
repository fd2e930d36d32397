import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from said import Deq

from db import Store

Opened = Callable[[], Store]


@pytest.mark.parametrize("kind", ["solvers", "gradients", "models", "problems", "data", "studies"])
def test_a_registry_is_listed(deq: Deq, kind: str) -> None:
    said = deq(kind)
    assert said.code == 0
    listed = deq(kind, "--json").json
    assert listed
    assert {entry["name"] for entry in listed}
    for entry in listed:
        assert entry["name"] in said.out
        if kind != "studies":
            assert entry["summary"] or entry["error"]


def test_run_ls_show_query(deq: Deq) -> None:
    assert deq("run", "tiny:experiment", "with", "solver.name=broyden", "reltol=1e-5").code == 0
    assert deq("run", "tiny:experiment", "with", "seed=3").code == 0
    listed = deq("runs", "ls", "--json").json
    assert [(r["status"], r["solver"], r["seed"]) for r in listed] == [
        ("COMPLETED", "broyden", 0),
        ("COMPLETED", "anderson", 3),
    ]
    found = deq("runs", "ls", "--where", "solver.name=broyden and status=COMPLETED", "--json").json
    assert [r["id"] for r in found] == [1]
    rows = list(csv.DictReader(io.StringIO(deq("runs", "ls", "--csv").out)))
    assert [r["solver"] for r in rows] == ["broyden", "anderson"]
    assert "broyden" in deq("runs", "ls").out
    shown = deq("runs", "show", "1")
    assert "config.solver.name: broyden" in shown.out
    assert "solving with broyden" in shown.out
    assert deq("runs", "show", listed[1]["uuid"][:8], "--json").json["seed"] == 3
    counted = deq("query", "select solver, count(*) as n from v_solves group by solver", "--json")
    assert counted.json == [{"solver": "anderson", "n": 1}, {"solver": "broyden", "n": 1}]
    assert "broyden" in deq("query", "select * from v_solves").out
    assert deq("query", "select 1 as one", "--csv").out == "one\n1\n"


def test_runs_diff_best_compare(deq: Deq) -> None:
    for solver in ("broyden", "anderson"):
        for seed in (0, 1):
            said = deq("run", "tiny:experiment", "with", f"solver.name={solver}", f"seed={seed}")
            assert said.code == 0
    found = {
        row["key"]: (row["1"], row["3"]) for row in deq("runs", "diff", "1", "3", "--json").json
    }
    assert found["solver.name"] == ("broyden", "anderson")
    assert "seed" not in found
    assert "solver.name" in deq("runs", "diff", "1", "3").out
    best = deq("runs", "best", "seconds", "--where", "solver=broyden", "-k", "1", "--json").json
    assert len(best) == 1
    assert best[0]["solver"] == "broyden"
    paired = deq("runs", "compare", "evaluations", "broyden", "anderson", "--json").json
    assert paired[0]["pairs"] == 2
    assert "ratio" in deq("runs", "compare", "evaluations", "broyden", "anderson").out
    wrong = deq("runs", "compare", "evaluations", "broyden", "andersn")
    assert wrong.code != 0
    assert "did you mean 'anderson'" in wrong.err


def test_sacreds_own_commands_and_options(deq: Deq, store: Opened) -> None:
    said = deq("run", "tiny:experiment", "print_config", "with", "solver.window=3")
    assert said.code == 0
    assert "window = 3" in said.out
    assert not Path("store.db").exists()
    assert "--store" in deq("run", "tiny:experiment", "--help").out
    assert "Solve z = " in deq("run", "tiny:experiment", "help", "main").out
    assert deq("run", "tiny:experiment", "with", "seed=1", "-c", "a remark").code == 0
    assert store().run(1)["comment"] == "a remark"
    other = ("run", "tiny:experiment", "--store=other.db", "with", "seed=1")
    assert deq(*other).code == 0
    assert deq("runs", "ls", "--store", "other.db", "--json").json[0]["seed"] == 1


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [("raise", 1, "FAILED"), ("interrupt", 130, "INTERRUPTED"), ("terminate", 143, "TERMINATED")],
)
def test_how_a_run_ends(deq: Deq, what: str, code: int, status: str) -> None:
    said = deq("run", "tiny:experiment", "with", f"what={what}")
    assert said.code == code
    assert ("Traceback" in said.err) == (what == "raise")
    run = deq("runs", "show", "1", "--json").json
    assert run["status"] == status
    assert ("this trial always raises" in (run["fail_trace"] or "")) == (what == "raise")


RUN = ("run", "tiny:experiment")
MISTAKES = {
    "command": (("rnu",), ["unknown command 'rnu'", "did you mean 'run'"]),
    "subcommand": (("runs", "lst"), ["unknown command 'lst'", "did you mean 'ls'"]),
    "option": (("solvers", "--jsn"), ["--jsn", "--json"]),
    "experiment": (("run", "compre"), ["unknown experiment 'compre'", "'compare'"]),
    "experiment's module": (("run", "nowhere:x"), ["cannot import 'nowhere'"]),
    "no experiment": (("run", "math:pi"), ["'math:pi' is no experiment"]),
    "solver": ((*RUN, "with", "solver.name=andersen"), ["solver.name", "'anderson'"]),
    "config key": ((*RUN, "with", "solvr.name=x"), ["solvr", "did you mean 'solver'"]),
    "deep key": ((*RUN, "with", "solver.windw=3"), ["solver.windw", "'window'"]),
    "range": ((*RUN, "with", "reltol=-1"), ["reltol = -1", "greater than 0"]),
    "kind": ((*RUN, "with", "max_evaluations=2.5"), ["max_evaluations = 2.5", "integer"]),
    "device": ((*RUN, "with", "device=cuda:77"), ["device = 'cuda:77'"]),
    "no with": ((*RUN, "seed=1"), ["write 'with' before it", "with seed=1"]),
    "no file": ((*RUN, "with", "none.yaml"), ["none.yaml"]),
    "no assignment": ((*RUN, "with", "broyden"), ["'broyden'", "key=value"]),
    "sacred's command": ((*RUN, "print_cofnig"), ["did you mean 'print_config'"]),
    "sacred's option": ((*RUN, "--stroe", "x"), ["--stroe", "did you mean '--store'"]),
    "sacred's usage": ((*RUN, "with", "seed=1", "--store"), ["cannot read", "Usage"]),
    "user's module": ((*RUN, "with", "solver.name=nowhere:x"), ["solver.name", "'nowhere'"]),
    "user's file": ((*RUN, "with", "solver.name=none.py:x"), ["solver.name", "no such file"]),
    "run's store": ((*RUN, "--store=/proc/none/store.db"), ["/proc/none"]),
    "study": (("study", "compre"), ["unknown study 'compre'"]),
    "study file": (("study", "none.yaml"), ["cannot read the study file 'none.yaml'"]),
    "study key": (("study", "mine.yaml", "with", "solver.windw=1"), ["'window'"]),
    "study without with": (("study", "mine.yaml", "seed=1"), ["write 'with' before it"]),
    "study's device": (("study", "mine.yaml", "--device", "gpu"), ["device = 'gpu'", "auto"]),
    "study's workers": (("study", "mine.yaml", "--workers", "0"), ["--workers", "0"]),
    "study's store": (("study", "mine.yaml", "--store", "/proc/none/a.db"), ["/proc/none"]),
    "no store": (("runs", "ls"), ["store"]),
    "no run": (("runs", "show", "77", "--store", "made.db"), ["77"]),
    "where": (("runs", "ls", "--where", "solver", "--store", "made.db"), ["solver"]),
    "write": (("query", "delete from run", "--store", "made.db"), ["read"]),
    "report": (("report", "compre", "--store", "made.db"), ["compre"]),
}


@pytest.mark.parametrize(("words", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, words: tuple[str, ...], parts: list[str]) -> None:
    Path("mine.yaml").write_text("experiment: tiny:experiment\n")
    Store("made.db", create=True)
    before = sorted(Path().iterdir())
    said = deq(*words)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert "INFO" not in said.err
    assert said.out == ""
    for part in parts:
        assert part in said.err
    assert sorted(Path().iterdir()) == before  # nothing half-written


def test_a_filter_with_a_mistake(deq: Deq) -> None:
    assert deq("run", "tiny:experiment").code == 0
    said = deq("runs", "ls", "--where", "solvr.name=broyden")
    assert said.code == 2
    assert "solvr.name" in said.err
    assert "solver.name" in said.err


def test_a_study_file_with_a_mistake(deq: Deq) -> None:
    Path("mine.yaml").write_text("experiment: tiny:experiment\nbase:\n  solvr.name: broyden\n")
    said = deq("study", "mine.yaml")
    assert said.code == 2
    assert "mine.yaml:3: solvr" in said.err
    assert not Path("store.db").exists()


def test_a_dry_run_runs_nothing(deq: Deq) -> None:
    Path("mine.yaml").write_text("experiment: tiny:experiment\ngrid: [{seed: [0, 1, 1]}]\n")
    said = deq("study", "mine.yaml", "--dry-run")
    assert said.code == 0
    assert "2 trials, 0 done already, 2 to run" in said.out
    assert "seed 0" in said.out
    assert deq("runs", "ls", "--json").json == []


def python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_command_line_starts_without_torch(tmp_path: Path) -> None:
    done = python(
        "import sys; from experiments.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'sacred', 'pandas', 'altair') if m in sys.modules])",
        tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["implicit", "solvers", "db"])
def test_a_foreign_package_of_our_name_is_found_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from experiments.cli import main; sys.exit(main(['studies']))",
        tmp_path,
    )
    assert done.returncode == 2
    assert f"the package '{name}' that Python finds is '{tmp_path / name}'" in done.stderr
    assert "Traceback" not in done.stderr
