"""The documentation says what is there, and its examples and commands run."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from db import Store
from experiments.cli import deq, main
from experiments.compare import CompareConfig
from experiments.runner import config as configs
from experiments.runner.recording import run_experiment
from experiments.runner.study import plan
from experiments.studies import find
from solvers import ReturnCode, Solution, Stats
from solvers.options import field_types

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text(page), re.MULTILINE | re.DOTALL)


def files(page: str, language: str) -> dict[str, str]:
    """Return the blocks whose first line is the name of a file."""
    named = [(re.match(r"# (\S+\.(?:py|yaml))\n", b), b) for b in blocks(page, language)]
    return {match[1]: block for match, block in named if match}


def commands(page: Path) -> list[str]:
    """Return the commands of a page: lines of its bash blocks, and code that begins as one."""
    said = page.read_text(encoding="utf-8")
    lines = "".join(blocks(str(page.relative_to(ROOT)), "bash")).splitlines()
    prose = re.sub(r"```.*?```", "", said, flags=re.DOTALL)
    inline = re.findall(r"`((?:deq|make|python) [^`]+)`", prose)
    whole = [c for c in (*lines, *inline) if c.strip() and "…" not in c]
    return [shlex.join(shlex.split(c, comments=True)) for c in whole]


ALL_COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with every file that the documentation shows, on the path, and a small store."""
    place = tmp_path_factory.mktemp("docs")
    shown = {**files("CONTRIBUTING.md", "python"), **files("CONTRIBUTING.md", "yaml")}
    for name, content in {**shown, **files("docs/experiments.md", "yaml")}.items():
        (place / name).write_text(content, encoding="utf-8")
    shutil.copytree(ROOT / "examples", place / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place)
        patch.setenv("DEQ_STORE", str(place / "store.db"))
        for config in ({}, {"gradient": {"name": "unrolled"}, "reltol": [1e-2, 1e-6]}):
            outcome = run_experiment(
                importlib.import_module("experiments.compare").experiment,
                {"repeats": 1, **config},
            )
            assert outcome.status == "COMPLETED"
        yield place
        for name in [
            n for n, m in sys.modules.items() if str(place) in str(vars(m).get("__file__"))
        ]:
            del sys.modules[name]


def call(command: str) -> int:
    try:
        return main(shlex.split(command)[1:])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def test_the_example_of_the_readme() -> None:
    names: dict[str, object] = {}
    exec(blocks("README.md", "python")[0], names)
    solution, layer = names["solution"], names["layer"]
    assert isinstance(solution, Solution)
    assert solution.success
    assert layer.adjoint_solution.success
    assert all(float(p.grad.abs().max()) > 0 for p in layer.parameters())


def test_the_readme_asks_the_store(workplace: Path) -> None:
    block = blocks("README.md", "python")[1]
    names: dict[str, object] = {}
    exec(block, names)
    asked = [line.partition("#")[0] for line in block.splitlines() if line.startswith("store.")]
    assert len(asked) == 2
    for expression in asked:
        assert len(eval(expression, names)) > 0, expression


def test_what_one_can_add(workplace: Path) -> None:
    usages = [
        b
        for b in blocks("CONTRIBUTING.md", "python")
        if b not in files("CONTRIBUTING.md", "python").values()
    ]
    assert len(usages) == 4
    names: dict[str, object] = {}
    for usage in usages:
        torch.manual_seed(0)
        exec(usage, names)


def test_a_solver_takes_less_than_forty_lines() -> None:
    lines = files("CONTRIBUTING.md", "python")["aitken.py"].splitlines()
    assert len([line for line in lines if line.strip()]) < 40


@pytest.mark.parametrize("gradient", ["implicit", "chebyshev:Chebyshev", "unrolled"])
def test_what_one_can_add_goes_through_compare(workplace: Path, gradient: str) -> None:
    words = f"with solver.name=aitken:Aitken gradient.name={gradient} model.name=conv:build"
    assert call(f"deq run compare -l ERROR {words} repeats=1 batch=4") == 0
    checks = Store().gradients(f"solver=aitken:Aitken and gradient={gradient}")
    assert len(checks) == 1
    assert (checks["rel_err"] < (1 if gradient == "chebyshev:Chebyshev" else 0.01)).all()


def test_data_of_ones_own(workplace: Path) -> None:
    (command,) = [c for c in ALL_COMMANDS if "wine:build" in c]
    assert call(f"{command} repeats=1") == 0
    assert list(Store().runs("data='wine:build'")["status"]) == ["COMPLETED"]


def test_an_entry_point_names_a_solver(workplace: Path) -> None:
    (block,) = blocks("CONTRIBUTING.md", "toml")
    points = tomllib.loads(block)["project"]["entry-points"]
    info = workplace / "aitken-1.0.dist-info"  # what an installed distribution leaves
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aitken\nVersion: 1.0\n")
    lines = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in p.items()) for g, p in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    # In another process: this one has read what is installed already.
    asked = "import solvers; print(solvers.registry.get('aitken', first=0.5))"
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    shutil.rmtree(info)
    assert said.stdout == "Aitken(first=0.5)\n", said.stderr


def test_an_experiment_and_a_study_of_it(workplace: Path) -> None:
    trials = plan(find("rates.yaml"), {}).trials
    assert len(trials) == 12
    experiment = importlib.import_module("rate").experiment
    outcome = run_experiment(experiment, trials[0].config, study="rates", trial=trials[0].id)
    assert outcome.status == "COMPLETED"
    assert outcome.result > 0
    assert len(plan(find("rates.yaml"), {}).missing) == 11
    (query,) = [c for c in ALL_COMMANDS if "study='\"'\"'rates" in c or "'rates'" in c]
    assert len(Store().query(shlex.split(query)[2])) == 1


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_a_command_exists(
    workplace: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    match words[0]:
        case "make":
            made = subprocess.run(
                ["make", "--dry-run", *words[1:]],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert made.returncode == 0, made.stderr
        case "deq":
            check_deq(words[1:])
        case "python":
            check_python(words[1:])
        case "source" | ".venv/bin/python" | ".venv/bin/ruff":
            pass  # the environment's, not ours
        case other:
            raise AssertionError(f"nobody looks at the command '{other}'")
    assert "rror:" not in capsys.readouterr().err


def check_deq(words: list[str]) -> None:
    """Run what is cheap, and dry what is not."""
    if words[0] == "run" and words[1] in ("compare", "rate", "overhead", "memory"):
        what = "rate:experiment" if words[1] == "rate" else words[1]
        rest = [w for w in words[2:] if w != "print_config"]
        assert call(shlex.join(["deq", "run", what, "print_config", *rest])) == 0
    elif words[0] == "study":
        assert call(shlex.join(["deq", *words, "--dry-run"])) == 0
    elif words[0] == "report":
        deq.commands["report"].make_context("report", words[1:])
    else:
        there = [re.sub(r"^\d+$", "1", word) for word in words]  # the number of some run
        assert call(shlex.join(["deq", *there])) == 0


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "experiments.compare"]:
        check_deq(["run", "compare", *words[2:]])
    elif words == ["-P", "-m"]:
        pass  # Python's own
    elif words[0] == "rate.py":
        check_deq(["run", "rate", *words[1:]])
    else:  # tests/implicit runs the example, a test below what the other one writes
        assert words[0] in ("examples/my_model.py", "docs/tables.py", "docs/measured.py")
        assert (ROOT / words[0]).exists()


def test_the_tables_of_the_registries() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        tables = importlib.import_module("tables")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    page = text("docs/solvers.md")
    for name in tables.REGISTRIES:
        assert tables.table(name) in page, f"{name}: write the tables again: python docs/tables.py"
    assert tables.written(page) == page
    hints = field_types(CompareConfig)
    wanted = {
        key: (tables.default(value), tables.allowed(hints[key]))
        for key, value in configs.defaults(CompareConfig).items()
    }
    wanted["device"] = ("`auto`", "`auto`, `cpu`, `cuda`, `cuda:N`")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| .+ \|$", text("docs/experiments.md"), re.M)
    assert {key: (default, allowed) for key, default, allowed in rows} == wanted


def test_the_codes_and_the_counts() -> None:
    page = text("docs/concepts.md")
    for code in ReturnCode:
        assert f"| `{code.name}` | {code.sentence} |" in page
    for count in Stats.__dataclass_fields__:
        assert f"`{count}`" in page


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, target


def test_the_index_has_every_page() -> None:
    index = text("docs/index.md")
    for page in PAGES:
        if page.name != "index.md":
            assert f"{page.name})" in index, page.name
