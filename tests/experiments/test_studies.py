from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import TinyConfig

from experiments import data, studies
from experiments.runner import config as configs
from experiments.runner.trials import Trial, expand
from solvers.options import OptionError

GOOD = """\
experiment: tiny:experiment
title: A title
question: Which?
base:
  solver: {name: anderson, mixing: 0.5}
  reltol: 1e-4
grid:
  - solver.name: [anderson, picard]
    seed: [0, 1]
  - solver: [{name: anderson, window: 3}, {name: anderson, window: 4}]
exclude:
  - {solver.name: picard, seed: [1, 7]}
gpu:
  base: {max_evaluations: 9}
  exclude: []
quick:
  base: {reltol: 1e-1}
  grid:
    - seed: [7]
  exclude: []
"""


def write(folder: Path, text: str) -> studies.Study:
    file = folder / "mine.yaml"
    file.write_text(text)
    return studies.find(str(file))


def trials(study: studies.Study, overrides: dict[str, Any] | None = None) -> list[Trial]:
    return expand(study, TinyConfig, {"device": "cpu", **(overrides or {})}, strict=not overrides)


def test_blocks_are_products_and_their_union_is_the_grid(tmp_path: Path) -> None:
    study = write(tmp_path, GOOD)
    found = trials(study)
    solvers = [
        (t.config["solver"]["name"], t.config["seed"], t.config["solver"].get("window"))
        for t in found
    ]
    assert solvers == [
        ("anderson", 0, 10), ("anderson", 1, 10), ("picard", 0, None),
        ("anderson", 0, 3), ("anderson", 0, 4),
    ]  # fmt: skip
    # base belongs to anderson: picard is another name and has its own default
    assert [t.config["solver"]["mixing"] for t in found] == [0.5, 0.5, 1.0, 0.5, 0.5]
    assert {t.config["reltol"] for t in found} == {1e-4}
    assert (study.name, study.title, study.question) == ("mine", "A title", "Which?")


def test_labels_tell_trials_apart(tmp_path: Path) -> None:
    labels = [trial.label for trial in trials(write(tmp_path, GOOD))]
    assert labels[:3] == ["anderson seed 0", "anderson seed 1", "picard seed 0"] or len(
        set(labels)
    ) == len(labels)
    assert len(set(labels)) == len(labels)


def test_a_trial_is_named_by_its_config(tmp_path: Path) -> None:
    study = write(tmp_path, GOOD)
    assert [t.id for t in trials(study)] == [t.id for t in trials(study)]
    assert len({t.id for t in trials(study)}) == 5
    other = trials(study, {"reltol": 1e-5})
    assert not {t.id for t in other} & {t.id for t in trials(study)}


def test_an_override_fixes_its_axis(tmp_path: Path) -> None:
    found = trials(write(tmp_path, GOOD), {"solver": {"name": "broyden"}})
    assert [(t.config["solver"]["name"], t.config["seed"]) for t in found] == [
        ("broyden", 0),
        ("broyden", 1),
    ]


def test_the_sections_of_the_gpu(tmp_path: Path) -> None:
    study = write(tmp_path, GOOD)
    assert {t.config["max_evaluations"] for t in trials(study)} == {50}
    assert {t.config["max_evaluations"] for t in trials(study.on_gpu())} == {9}
    assert len(trials(study.on_gpu())) == 6


def test_a_short_form_is_a_study_of_its_own(tmp_path: Path) -> None:
    short = write(tmp_path, GOOD).in_a_hurry()
    assert short.name == "mine-quick"
    [trial] = trials(short)
    found = (trial.config["reltol"], trial.config["seed"], trial.config["solver"]["mixing"])
    assert found == (1e-1, 7, 0.5)
    lasting = write(tmp_path, GOOD.partition("quick:")[0])
    with pytest.raises(OptionError, match="quick = True: the study 'mine' has no section 'quick'"):
        lasting.in_a_hurry()


MISTAKES = {
    "not a mapping": ("- a", ["mine.yaml:1", "experiment, title"]),
    "empty": ("", ["mine.yaml", "expected a mapping"]),
    "no experiment": ("title: x", ["mine.yaml:1", "'experiment' is missing"]),
    "unknown section": ("experiment: x\ngrit: []", ["mine.yaml:2", "did you mean 'grid'"]),
    "wrong kind": ("experiment: x\ngrid: {seed: [1]}", ["mine.yaml:2", "list of blocks"]),
    "no axis": (
        "experiment: x\ngrid:\n  - seed: 1",
        ["mine.yaml:3", "an axis needs a list", "[1]"],
    ),
    "empty axis": ("experiment: x\ngrid:\n  - seed: []", ["mine.yaml:3", "axis needs a list"]),
    "twice": ("experiment: x\nbase:\n  seed: 1\n  seed: 2", ["mine.yaml:4", "second time", "3"]),
    "not YAML": ("experiment: x\nbase: [1,\n", ["mine.yaml:", "not YAML"]),
    "bad key": ("experiment: x\nbase:\n  on: 1", ["mine.yaml", "YAML reads on"]),
    "gpu section": ("experiment: x\ngpu:\n  bse: {}", ["mine.yaml:3", "did you mean 'base'"]),
    "quick section": ("experiment: x\nquick:\n  gird: []", ["mine.yaml:3", "did you mean 'grid'"]),
    "exclude": ("experiment: x\nexclude: [seed]", ["mine.yaml:2", "mapping of config keys"]),
}


@pytest.mark.parametrize(("text", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_has_its_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        write(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)


CONFIG_MISTAKES = {
    "base": ("base:\n  reltol: 1e-3\n  solvr.name: x", ["mine.yaml:4", "did you mean 'solver'"]),
    "nested base": (
        "base:\n  solver:\n    name: anderson\n    windw: 2",
        ["mine.yaml:5", "did you mean 'window'"],
    ),
    "axis": (
        "base: {seed: 1}\ngrid:\n  - solver.name: [picard]\n  - solver.name:\n    - andersen",
        ["mine.yaml:", "did you mean 'anderson'"],
    ),
    "number": ("base: {reltol: -1}", ["mine.yaml:2", "reltol = -1", "greater than 0"]),
    "exclude key": (
        "exclude:\n  - {solver.nam: picard}",
        ["mine.yaml:3", "did you mean 'solver.name'"],
    ),
    "exclude value": (
        "exclude:\n  - {solver.name: picrad}",
        ["mine.yaml:3", "nothing is excluded"],
    ),
}


@pytest.mark.parametrize(("text", "parts"), CONFIG_MISTAKES.values(), ids=CONFIG_MISTAKES)
def test_a_mistake_in_a_config_has_its_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    study = write(tmp_path, f"experiment: tiny:experiment\n{text}")
    with pytest.raises(OptionError) as caught:
        trials(study)
    for part in parts:
        assert part in str(caught.value)


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        trials(write(tmp_path, GOOD), {"solvr": 1})
    assert str(caught.value).startswith("solvr: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read the study file"):
        studies.find(str(tmp_path / "none.yaml"))
    with pytest.raises(OptionError, match="unknown study 'compre'"):
        studies.find("compre")


def needs_files(study: studies.Study) -> bool:
    """Whether its data is in a directory of the user's: see test_configurations.py for those."""
    name = (study.base.get("data") or {}).get("name")
    return name is not None and "root" in data.registry.describe(name).requires


@pytest.mark.parametrize(
    "name", [n for n in studies.registry.names() if not needs_files(studies.find(n))]
)
def test_our_own_studies_expand(name: str) -> None:
    from experiments import catalogue
    from experiments.runner.recording import config_class

    study = studies.find(name)
    configured = config_class(catalogue.load(study.experiment))
    over = {"device": "cpu"} if "device" in configs.defaults(configured) else {}
    found = expand(study, configured, over)
    assert found
    assert study.question
    assert yaml.safe_load(study.path.read_text())["title"] == study.title
