"""The experiment ``training``: what it does, and what it counts."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from said import Deq
from training_runs import SMALL, training

from db import Store
from experiments.runner.recording import Diverged
from experiments.trainer.options import Cosine, Plateau, Rate
from experiments.trainer.starts import Batches

Opened = Callable[[], Store]


def test_a_run_has_its_series_and_its_result(deq: Deq, store: Opened) -> None:
    said = deq(
        "run", "training", "with", *SMALL, "steps=10", "evaluate_every=5", "budgets=[2,8]",
        "regularisation.weight=0.1", "measure_radius=true", "clip=1",
    )  # fmt: skip
    assert said.code == 0, said.err
    run, points = store().run(1), store().series()
    steps = {name: list(rows["step"]) for name, rows in points.groupby("name")}
    for name in (
        "loss", "evaluations", "products", "converged", "adjoint_converged", "residual",
        "gradient_norm", "learning_rate", "penalty", "radius",
    ):  # fmt: skip
        assert steps[f"train.{name}"] == [0, 4, 8, 9], name
    for name in ("loss", "accuracy", "evaluations", "converged", "seconds"):
        assert steps[f"test.{name}"] == [0, 5, 10], name
    for name in ("work", "seconds"):
        assert steps[f"train.{name}"] == [0, 4, 5, 8, 9, 10], name
    assert steps["budget.loss"] == steps["budget.accuracy"] == [2, 8]
    assert steps["train.peak_bytes"] == [3]
    result = run["result"]
    last = points[points["step"] == 10].set_index("name")["value"]
    for name in ("loss", "accuracy"):
        assert result[name] == last[f"test.{name}"]
    for name in ("work", "seconds"):
        assert result[name] == last[f"train.{name}"]
    assert result["steps"] == 10
    assert result["parameters"] > result["cell_parameters"] == 144
    assert result["peak_bytes"] >= result["layer_peak_bytes"] > 0
    solves = store().solves()
    assert list(solves["outer_step"]) == [0, 0, 4, 4, 8, 8, 9, 9]
    assert list(solves["phase"]) == ["forward", "adjoint"] * 4
    assert not list(Path("results/checkpoints").rglob("*.pt"))  # it completed
    assert "step 10/10: left 0:00, loss" in run["output"]


# Calls of the cell in a backward, beside those that the forward counts: the linearisation, the
# certificate's evaluation, the steps taken anew.
BACKWARDS = {
    "implicit": (["gradient=implicit"], 2),
    "jacobian-free": (["gradient=jacobian_free"], 1),
    "phantom": (["gradient=phantom", "gradient.form=unrolled"], 5),
    "unrolled": (["gradient=unrolled", "solver=picard", "max_evaluations=6"], 0),
    "checkpointed": (["gradient=checkpointed", "solver=picard", "max_evaluations=9"], 9),
    "regularised": (["regularisation.weight=1"], 3),
    "pretraining": (["pretrain.steps=9", "steps=9"], 0),
}


@pytest.mark.parametrize(("words", "more"), BACKWARDS.values(), ids=BACKWARDS)
def test_counts_are_those_of_the_cell(workplace: Path, words: list[str], more: int) -> None:
    # measured at exact budgets, since those that stop early differ from step to step
    fixed = ["fixed_budget=true", "measure_memory=false", *words]
    with training(*fixed) as trainer:
        calls = [0]
        trainer.model.cell.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
        trainer.config.__dict__["steps"] = 3  # as many as are taken
        before = trainer.tally
        trainer.run()
        # evaluated at the end: 2 batches
        found = trainer.tally
        evaluated = trainer.series.points["test.evaluations"][1][-1] * 2
        assert before is found
        assert calls[0] == found.evaluations + more * 3 + evaluated
        if "pretrain.steps=9" in words:
            assert found.evaluations == 3 * 3  # 2 layers, and one to judge them
            assert found.products == 3 * 2
        if "gradient=unrolled" in words:
            assert (found.evaluations, found.products) == (3 * 7, 3 * 6)
            assert found.work == found.evaluations + found.products
        if "gradient=checkpointed" in words:
            assert found.products == 3 * (9 + 9)


def test_the_same_run_is_the_same_and_counting_bytes_changes_nothing(workplace: Path) -> None:
    found = []
    words = ("steps=5", "model=transformer", "model.dropout=0.2", "reltol=auto", "clip=1")
    for word in ("true", "false"):
        with training(*words, f"measure_memory={word}") as trainer:
            trainer.run()
            found.append((trainer.tally.losses, trainer.tally.work))
    assert found[0] == found[1]


def test_an_explicit_network_and_its_checkpoints(workplace: Path) -> None:
    found = []
    for gradient in ("unrolled", "checkpointed"):
        with training("steps=5", "model.layers=16", f"gradient={gradient}", "batch=64") as trainer:
            trainer.run()
            found.append(trainer.tally)
    plain, cut = found
    assert plain.losses == cut.losses
    assert plain.evaluations == cut.evaluations == 5 * 16
    assert (plain.products, cut.products) == (5 * 16, 5 * 32)
    assert cut.layer_peak_bytes is not None and plain.layer_peak_bytes is not None
    assert cut.layer_peak_bytes < 0.7 * plain.layer_peak_bytes  # of 16 states about 2·4 are left


def test_warm_starts_save_evaluations(workplace: Path) -> None:
    # a batch of all samples meets the same ones again; hardly a step in the weights
    words = ("batch=1438", "steps=3", "optimiser.learning_rate=1e-9", "measure_memory=false")
    with training(*words, "warm_start=true", "record_every=1") as trainer:
        trainer.run()
        first, _, last = trainer.series.points["train.evaluations"][1]
    with training(*words, "record_every=1") as trainer:
        trainer.run()
        cold = trainer.series.points["train.evaluations"][1]
    assert cold[0] == first == cold[2] + 1  # the first one finds out that samples are independent
    assert last <= first / 2


def test_memory_goes_from_segment_to_segment(workplace: Path) -> None:
    with training("model=transformer", "model.memory=4", "steps=3") as trainer:
        assert trainer.segments
        trainer.run()
        assert trainer.starts.memory
        assert all(not t.requires_grad for t in trainer.starts.memory)
        trainer.starts.begin()  # a pass ends
        assert trainer.starts.memory == ()
        count = trainer.dataset.count("train", 8)
        stream = iter(Batches(trainer.dataset, 8, 0, segments=True, first=count - 1))
        assert [next(stream)[3] for _ in range(2)] == [False, True]


def test_a_target_ends_the_run(deq: Deq, store: Opened) -> None:
    words = ("steps=50", "evaluate_every=2", "target_loss=100", "measure_memory=false")
    assert deq("run", "training", "with", *SMALL, *words).code == 0
    result = store().run(1)["result"]
    assert result["steps"] == result["work_to_target"] == 0  # the first evaluation is below
    assert deq("run", "training", "with", *SMALL, "steps=2", *words[1:2], "target_loss=0").code == 0
    assert math.isinf(store().run(2)["result"]["seconds_to_target"])


def test_what_is_not_finite_ends_the_run(deq: Deq, store: Opened) -> None:
    huge = ("model=transformer", "optimiser=sgd", "optimiser.learning_rate=1e38")
    said = deq("run", "training", "with", *SMALL, *huge, "steps=20", "checkpoint_every=1")
    assert said.code == 1
    assert "DIVERGED: step " in said.out
    run = store().run(1)
    assert run["status"] == "DIVERGED"
    sentence = run["info"]["diverged"]
    assert "step 1: the loss is inf; first without finite numbers was the forward" in sentence
    assert "solve of step 1: NONFINITE: 8 of 8 samples" in sentence
    assert not list(Path("results/checkpoints").rglob("*.pt"))
    again = deq("resume", "1")
    assert again.code == 2
    assert "run 1 DIVERGED" in again.err


def test_a_gradient_that_is_not_finite_is_told_apart(workplace: Path) -> None:
    with training("steps=4", "measure_memory=false") as trainer:
        weight = trainer.model.cell.W
        weight.register_hook(lambda g: g * math.nan if trainer.steps == 2 else g)
        with pytest.raises(Diverged, match=r"step 2: the gradient is nan; every solve"):
            trainer.run()


def test_schedules() -> None:
    rate = Rate(Cosine(warmup=2, least=0.1), 12)
    assert [rate(0), rate(1), rate(2)] == [0.5, 1.0, 1.0]
    assert math.isclose(rate(7), 0.55)
    assert math.isclose(rate(12), 0.1)
    rate = Rate(Plateau(patience=2, lower=0.5, least=0.2), 100)
    for loss in (3.0, 2.0, 2.0, 2.5):
        rate.heard(loss)
    assert rate(5) == 0.5
    again = Rate(Plateau(patience=2, lower=0.5, least=0.2), 100)
    again.restore(rate.state())
    for loss in (2.0, 2.0, 2.0, 2.0):
        again.heard(loss)
    assert again(5) == 0.2


def test_autocast_and_bfloat16(workplace: Path) -> None:
    with training("steps=2", "autocast=bfloat16", "measure_memory=false") as trainer:
        result = trainer.run()
        assert all(p.dtype is torch.float32 for p in trainer.parameters)
        assert math.isfinite(result["loss"])
