import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TinyConfig

from experiments.runner import config as configs
from solvers.options import OptionError


def test_a_complete_config_has_every_option() -> None:
    complete = configs.complete(TinyConfig, {})
    assert set(complete) == {field.name for field in dataclasses.fields(TinyConfig)}
    assert complete["solver"]["name"] == "anderson"
    assert complete["solver"]["window"] == 10
    assert complete["linear"] is None
    assert complete["device"] in ("cpu", "cuda")


def test_completing_twice_changes_nothing() -> None:
    once = configs.complete(TinyConfig, {"solver.name": "broyden", "linear": "gmres"})
    assert configs.complete(TinyConfig, once) == once
    assert TinyConfig(**once).linear == {"name": "gmres", "restart": None}


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["solver.window=3"], "solver.window", 3),
        (["solver=picard"], "solver.name", "picard"),
        (["solver={name: broyden, window: 4}"], "solver.window", 4),
        (["linear=null"], "linear", None),
        (["linear=None"], "linear", None),
        (["reltol='1e-5'"], "reltol", 1e-5),
        (["reltol=1e-5"], "reltol", 1e-5),
        (["reltol=[1e-2, 1e-5]"], "reltol", [1e-2, 1e-5]),
        (["max_evaluations=7"], "max_evaluations", 7),
        (["notes=a b"], "notes", "a b"),
        (["device=cpu"], "device", "cpu"),
    ],
)
def test_the_command_line_spells_a_config(words: list[str], key: str, value: object) -> None:
    assert configs.flatten(configs.complete(TinyConfig, configs.parse(words)))[key] == value


MISTAKES = [
    ("solvr.name=broyden", ["solvr", "did you mean 'solver'"]),
    ("solver.name=andersen", ["solver.name", "'andersen'", "did you mean 'anderson'", "broyden"]),
    ("solver.windw=3", ["solver.windw", "did you mean 'window'", "mixing"]),
    ("solver.window=0", ["solver.window = 0", "greater than or equal to 1"]),
    ("solver.window=x", ["solver.window = 'x'", "integer"]),
    ("solver=3", ["solver", "3", "anderson"]),
    ("linear.restart=2", ["linear.name = None", "gmres"]),
    ("reltol=-1", ["reltol = -1", "greater than 0"]),
    ("reltol=nan", ["reltol = 'nan'", "number"]),
    ("reltol=[1e-3, -1]", ["reltol", "greater than 0"]),
    ("reltol=[1e-3", ["reltol", "not a list"]),
    ("max_evaluations=2.5", ["max_evaluations = 2.5", "integer"]),
    ("max_evaluations=true", ["max_evaluations = True", "integer"]),
    ("dtype=float23", ["dtype = 'float23'", "did you mean 'float32'", "'float64'"]),
    ("device=gpu", ["device = 'gpu'", "auto, cpu, cuda"]),
    ("device=cuda:99", ["device = 'cuda:99'", "CUDA device"]),
    ("seed=1.5", ["seed = 1.5", "integer"]),
    ("seed=-1", ["seed = -1", "greater than or equal to 0"]),
    ("seed.deep=1", ["seed", "integer"]),
    ("what=misuse dtype=float64", ["what = 'misuse'", "not in float64"]),
    ("solver..name=x", ["solver..name", "dots"]),
    ("seed", ["'seed'", "key=value"]),
    ("seed=1 seed=2", ["seed", "twice"]),
    ("solver.name=no_module.at_all:build", ["solver.name", "cannot import 'no_module.at_all'"]),
    ("solver.name=math:sinus", ["solver.name", "'sinus'", "did you mean 'sin'"]),
]


@pytest.mark.parametrize(("words", "parts"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_named(words: str, parts: list[str]) -> None:
    split = [words] if "[" in words else words.split()
    with pytest.raises(OptionError) as caught:
        configs.complete(TinyConfig, configs.parse(split))
    assert "\n" not in str(caught.value).split("not a list")[0]
    for part in parts:
        assert part in str(caught.value)


def test_null_on_the_command_line_replaces_a_mapping() -> None:
    assert configs.merge({"linear": {"name": "gmres"}}, configs.parse(["linear=null"])) == {
        "linear": None
    }


def test_cuda_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(OptionError, match=r"device = 'cuda': this machine has no CUDA device"):
        configs.complete(TinyConfig, {"device": "cuda"})
    assert configs.complete(TinyConfig, {"device": "auto"})["device"] == "cpu"


def test_another_name_drops_the_options_of_the_one_before() -> None:
    below = {"solver": {"name": "anderson", "window": 3}, "seed": 1}
    assert configs.merge(below, {"solver": {"name": "picard"}})["solver"] == {"name": "picard"}
    assert configs.merge(below, {"solver": {"mixing": 0.5}})["solver"]["window"] == 3
    assert configs.merge(below, {"solver": "anderson"})["solver"]["window"] == 3
    assert configs.merge(below, {"solver": None})["solver"] is None


def test_a_boolean_key_of_yaml_is_refused() -> None:
    with pytest.raises(OptionError, match="YAML reads on"):
        configs.nested({True: 1})


def test_a_file_of_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("solver.name: broyden\nreltol: 1e-5\n")
    assert configs.complete(TinyConfig, configs.load(file))["reltol"] == 1e-5
    file.write_text("solver: [unclosed")
    with pytest.raises(OptionError, match="cannot read"):
        configs.load(file)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_what_people_may_type_never_breaks(value: object) -> None:
    for key in ("solver", "reltol", "seed", "device", "notes"):
        try:
            configs.complete(TinyConfig, {key: value})
        except OptionError as error:
            assert key in str(error) or "key" in str(error)


@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3))
def test_a_fingerprint_does_not_depend_on_the_order(config: dict[str, object]) -> None:
    backwards = dict(reversed(config.items()))
    assert configs.fingerprint(config) == configs.fingerprint(backwards)
