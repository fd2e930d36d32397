"""What ``training`` refuses before it begins, and what it fills in."""

from typing import Any

import pytest

from experiments.runner import config as configs
from experiments.training import TrainingConfig
from solvers.options import OptionError

EXPLICIT = ("model.name=mlp", "model.layers=3", "gradient.name=unrolled")
MISTAKES = {
    "optimiser": ("optimiser=adma", ["optimiser.name", "did you mean 'adam'", "adamw, sgd"]),
    "its option": ("optimiser.learning_rat=1", ["did you mean 'learning_rate'"]),
    "its value": ("optimiser.learning_rate=0", ["optimiser.learning_rate = 0", "greater than 0"]),
    "momentum": ("optimiser=sgd optimiser.nesterov=true", ["nesterov = True", "momentum"]),
    "schedule": ("schedule=cosin", ["schedule.name", "did you mean 'cosine'"]),
    "plateau": ("schedule=plateau", ["schedule.name = 'plateau'", "evaluate_every = 0"]),
    "target": ("target_loss=0.5", ["target_loss = 0.5", "evaluate_every = 0"]),
    "steps": ("steps=-3", ["steps = -3"]),
    "pretrain": ("pretrain.stps=3", ["pretrain.stps", "did you mean 'steps'", "depth"]),
    "pretrain's depth": ("pretrain.depth=0", ["pretrain.depth = 0"]),
    "pretrain's steps": ("pretrain.steps=9 steps=5", ["pretrain.steps = 9", "all 5 steps"]),
    "regularisation": ("regularisation.weigth=1", ["did you mean 'weight'", "probability"]),
    "no section": ("pretrain=5", ["pretrain = 5", "a mapping of steps, depth"]),
    "auto": ("reltol=auto gradient.name=phantom", ["reltol = 'auto'", "'phantom'", "certificate"]),
    "auto twice": ("reltol=auto gradient.reltol=1e-3", ["gradient.reltol = 0.001", "null"]),
    "error": ("gradient_error=0.1", ["gradient_error = 0.1", "reltol=auto"]),
    "tolerance": ("reltol=often", ["reltol = 'often'", "'auto'"]),
    "inverse": ("gradient.name=shine solver.name=picard", ["solver.name = 'picard'", "'broyden'"]),
    "native": ("gradient.name=unrolled solver.name=scipy_anderson", ["gradient.name", "native"]),
    "budget": ("budgets=[4,0]", ["budgets", "greater than or equal to 1"]),
    "segments": ("segments=true", ["segments = True", "'mlp'", "remembers nothing"]),
    "batch": ("batch=9999", ["batch = 9999", "digits"]),
    "data": ("data_sha256=abc", ["data_sha256 = 'abc'", "digits"]),
}
OF_EXPLICIT = {
    "gradient": ("gradient.name=implicit", ["gradient.name = 'implicit'", "'checkpointed'"]),
    "last": ("gradient.last=2", ["gradient.last = 2"]),
    "segments": ("gradient.name=checkpointed gradient.segments=recursive", ["'recursive'"]),
    "pretrain": ("pretrain.steps=2", ["pretrain.steps = 2", "no equilibrium", "tied"]),
    "regularisation": ("regularisation.weight=1", ["regularisation", "no equilibrium"]),
    "warm": ("warm_start=true", ["warm_start = True", "no equilibrium"]),
    "budgets": ("budgets=[3]", ["budgets = [3]", "as it has layers"]),
}


def complete(*words: str) -> dict[str, Any]:
    return configs.complete(TrainingConfig, configs.parse(words))


@pytest.mark.parametrize(("words", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said(words: str, parts: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        complete(*words.split())
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("words", "parts"), OF_EXPLICIT.values(), ids=OF_EXPLICIT)
def test_an_explicit_network_is_no_equilibrium(words: str, parts: list[str]) -> None:
    given = dict(w.split("=") for w in (*EXPLICIT, *words.split()))
    with pytest.raises(OptionError) as error:
        complete(*(f"{k}={v}" for k, v in given.items()))
    for part in parts:
        assert part in str(error.value)


def test_a_tied_network_is_no_equilibrium() -> None:
    with pytest.raises(OptionError, match="16 tied layers"):
        complete("model=universal_transformer", "model.depth=16")
    made = complete("model=universal_transformer", "gradient=checkpointed")
    assert made["gradient"]["segments"] == "sqrt"


def test_a_complete_config_has_every_option() -> None:
    made = complete("regularisation.weight=2", "schedule=cosine", "pretrain.steps=3")
    assert made["regularisation"]["probability"] == 1.0
    assert made["schedule"] == {"name": "cosine", "warmup": 0, "least": 0.0}
    assert made["pretrain"] == {"steps": 3, "depth": 2}
    assert made["optimiser"]["beta2"] == 0.999
    assert made["model"]["classes"] == 10
    assert made["segments"] is False
    assert len(made["data_sha256"]) == 64
    assert configs.complete(TrainingConfig, made) == made  # as a run that goes on is given it


def test_segments_are_read_where_they_are_remembered() -> None:
    assert complete("model=transformer", "model.memory=8")["segments"] is True
    assert complete("model=transformer")["segments"] is False
    assert complete("model=transformer", "model.memory=8", "segments=false")["segments"] is False
