"""The pages about trainings say what their rows say. No number here was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_trainings import training
from reading import figures, page, sentences, tables
from synthetic import Made

from db import Store
from experiments import studies
from experiments.report import charts, trainings
from experiments.report.frames import load
from implicit import models

PICARD: Mapping[str, Any] = {"solver": {"name": "picard"}, "fixed_budget": True}
UNROLLED: Mapping[str, Any] = {"gradient": {"name": "unrolled"}}
SOLVED: Mapping[str, Any] = {
    "solver": {"name": "anderson", "window": 6},
    "gradient": {
        "name": "implicit",
        "certificate": False,
        "solver": {"name": "gmres", "restart": 12},
    },
}


def store(tmp_path: Path, study: str) -> Made:
    return Made(tmp_path / "store.db", study=study, experiment="training")


def rows(made: Made) -> pd.DataFrame:
    return trainings.runs(load(str(made.study), Store(made.path)))


# The shared frames ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "kind", "depth", "name"),
    [
        ({"model.name": "mlp", "gradient.name": "implicit"}, "equilibrium", math.nan, "DEQ"),
        (
            {"gradient.name": "implicit", "regularisation.weight": 2.0},
            "equilibrium",
            math.nan,
            "DEQ, regularised",
        ),
        (
            {"gradient.name": "checkpointed", "fixed_budget": True, "max_evaluations": 16},
            "tied",
            16,
            "16 tied layers, checkpointed",
        ),
        # Through the steps of a solve to a tolerance: still an equilibrium.
        ({"gradient.name": "unrolled", "fixed_budget": False}, "equilibrium", math.nan, "DEQ"),
        ({"model.name": "universal_transformer", "model.depth": 8}, "tied", 8, "8 tied layers"),
        ({"model.name": "transformer", "model.layers": 1}, "explicit", 1, "1 untied layer"),
        ({"model.name": "revnet", "model.layers": 4}, "explicit", 4, "4 reversible blocks"),
    ],
)
def test_a_network_is_told_by_its_config(
    config: Mapping[str, Any], kind: str, depth: float, name: str
) -> None:
    assert trainings.kind_of(config) == kind
    assert trainings.depth_of(config) == pytest.approx(depth, nan_ok=True)
    assert trainings.network(config) == name


def test_the_interval_is_students() -> None:
    found = trainings.mean([1.0, 2.0, 3.0, math.nan])
    assert found.number == 3
    # t(0.975, 2) = 4.302653, over sqrt 3.
    assert (found.value, found.high) == pytest.approx((2.0, 2.0 + 4.302653 / math.sqrt(3)))
    alone = trainings.mean([2.0])
    assert alone.known and not alone.certain and alone.text() == "2.00"


def test_a_ratio_is_taken_seed_by_seed() -> None:
    # Seeds differ by far more than the networks, whose ratio is 2 at each.
    below = pd.DataFrame({"seed": [0.0, 1.0, 2.0], "x": [1.0, 10.0, 100.0]})
    above = pd.DataFrame({"seed": [2.0, 0.0, 1.0], "x": [200.0, 2.0, 20.0]})
    found = trainings.ratio(above, below, "x")
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    apart = trainings.ratio(above.assign(seed=[7.0, 8.0, 9.0]), below, "x")
    assert apart.value == pytest.approx(2.0)
    assert not apart.certain
    assert not trainings.ratio(above.iloc[:0], below, "x").known


def test_curves_are_read_against_what_was_spent(tmp_path: Path) -> None:
    made = store(tmp_path, "training")
    for seed in range(2):
        training(made, {}, seed=seed, loss=1.0, seconds=4.0 + seed)
    frames = load("training", Store(made.path))
    points = trainings.series(frames, rows(made), "test.loss", "train.seconds")
    line = trainings.along(points, "test.loss", "train.seconds")
    assert line.groupby("run_id")["x"].max().tolist() == [4.0, 5.0]
    means = trainings.interpolated(line, ["case"])
    assert means["x"].iloc[-1] == 4.0, "a curve ends where its first seed ends"
    assert (means["low"] <= means["y"]).all()
    assert (means["y"] <= means["high"]).all()
    by_step = trainings.interpolated(trainings.along(points, "test.loss", "step"), ["case"])
    assert by_step["x"].tolist() == [float(step) for step in range(0, 101, 10)]


# Pages ------------------------------------------------------------------------------------------


def depth_study(made: Made, *, seeds: int = 2) -> None:
    for seed in range(seeds):
        training(made, SOLVED, seed=seed, loss=0.2, peak=4e5, evaluations=12.0)
        for layers in (1, 16, 64):
            tied = {**PICARD, "max_evaluations": layers}
            peak = 1e5 + 3e4 * layers
            training(made, {**tied, **UNROLLED}, seed=seed, loss=0.2 + 0.2 / layers, peak=peak)
            bare = {"model": {"name": "mlp", "injected": False}}
            training(
                made, {**tied, **UNROLLED, **bare}, seed=seed, loss=0.3 + layers / 20, peak=peak
            )
            kept = {"gradient": {"name": "checkpointed", "segments": "sqrt"}}
            training(made, {**tied, **kept}, seed=seed, loss=0.2, peak=1e5 + 6e4 * layers**0.5)


def test_depth_says_what_layers_cost_and_bring(tmp_path: Path) -> None:
    made = store(tmp_path, "depth-quick")
    depth_study(made, seeds=1)
    found = page(made, "depth-quick")
    said = sentences(found)
    assert "grows from 130 kB to 2.02 MB" in said
    # 4e5 = 1e5 + 3e4 × 10.
    assert "as much as 10.0 layers" in said.replace(
        "as much as 10 layers", "as much as 10.0 layers"
    )
    assert "30.0 kB a layer (R² of a line 1.0000)" in said
    assert "Without injection the loss at 64 layers is" in said
    assert "worse: a map that contracts forgets where it began" in said
    published = tables(found)["published"].frame.set_index("what")["ours"]
    assert published["equilibrium / tied layers, peak of a step"] == f"{4e5 / 5.8e5:.3f}"
    drawn = figures(found)["memory"].spec
    data = drawn["datasets"]["rows_0"]
    assert {row["label"] for row in data if row["flat"]} == {"equilibrium (DEQ)"}
    assert charts.svg(drawn, "Bytes").startswith("<svg")


def test_depth_without_a_tied_network_says_so(tmp_path: Path) -> None:
    made = store(tmp_path, "depth")
    training(made, SOLVED, status="DIVERGED")
    said = sentences(page(made, "depth"))
    assert "deq study depth" in said
    training(made, SOLVED, seed=1)
    found = page(made, "depth")
    assert "The equilibrium takes 1.00 MB" in sentences(found)
    failed = tables(found)["failures"].frame
    assert failed["what"].tolist() == ["diverged"]
    assert failed["why"].tolist() == ["step 7: the loss is nan, and its forward solve failed first"]


def language_study(made: Made) -> None:
    text: Mapping[str, Any] = {"data": {"name": "pydoc", "length": 32}}
    own = {"model": {"name": "transformer", "width": 48}}
    tied = {"model": {"name": "universal_transformer", "depth": 16, "width": 48}, **UNROLLED}
    for seed in range(3):
        training(made, {**text, **own, **SOLVED}, seed=seed, loss=1.9, seconds=6.0)
        training(made, {**text, **tied}, seed=seed, loss=1.9, seconds=5.0, peak=8e6)
        layers = {"model": {"name": "transformer", "layers": 4, "width": 28}, **UNROLLED}
        training(
            made, {**text, **layers}, seed=seed, loss=2.2, seconds=2.0, more={"parameters": 10900}
        )
    probe = {"data": {"name": "pydoc", "length": 150}, "batch": 15, "steps": 1}
    training(made, {**probe, **own, **SOLVED}, peak=1.6e6)
    training(made, {**probe, **tied}, peak=1e7)
    levels = {"model": {"name": "trellisnet", "width": 48}}
    training(made, {**probe, **levels, **SOLVED}, peak=2e6)
    training(made, {**probe, **levels, **PICARD, "max_evaluations": 70, **UNROLLED}, peak=1e7)


def test_language_sets_its_ratios_beside_the_papers(tmp_path: Path) -> None:
    made = store(tmp_path, "language")
    language_study(made)
    found = page(made, "language")
    frame = tables(found)["ratios"].frame
    memory = frame[frame["measure"] == "memory"].set_index("family")
    assert memory["ours"].to_dict() == {"Transformer": "0.160", "TrellisNet": "0.200"}
    assert memory["reached"].to_dict() == {"Transformer": "reached", "TrellisNet": "missed"}
    assert memory["met"].to_dict() == {"Transformer": True, "TrellisNet": False}
    untied = frame[(frame["measure"] == "perplexity") & (frame["against"] == "4 untied layers")]
    assert untied["high"].iloc[0] < 1
    said = sentences(found)
    assert "better, beyond the spread of the seeds" in said
    assert "Not of equal parameters: 4 untied layers by +9.0 %." in said
    step = frame[frame["measure"] == "seconds a training step"].set_index("against")["value"]
    assert step["4 untied layers"] == pytest.approx(3.0)
    assert set(figures(found)) == {"ratios", "perplexity"}


def test_language_draws_the_floor_of_a_known_language(tmp_path: Path) -> None:
    made = store(tmp_path, "language")
    text = {"data": {"name": "markov", "tokens": 2000, "length": 32}}
    own = {**text, **SOLVED, "model": {"name": "transformer", "width": 8}}
    training(made, own, loss=2.0, more={"entropy_rate": math.log(3.0)})
    found = page(made, "language")
    assert "No model can do better than 3.00" in sentences(found)
    rules = figures(found)["perplexity"].spec["datasets"]["rows_0_rules"]
    assert rules[0]["y"] == pytest.approx(3.0)


def runtime_study(made: Made) -> None:
    text = {"data": {"name": "pydoc"}, "model": {"name": "transformer", "width": 48}}
    rates = [{"optimiser": {"name": "adam", "learning_rate": rate}} for rate in (1e-3, 1e-2)]
    penalty = {"regularisation": {"weight": 2.0, "probability": 0.4}}
    layers = {"model": {"name": "transformer", "layers": 4, "width": 28}, **UNROLLED}
    for seed in range(2):
        # The lower rate is the equilibrium's, the higher one the layers'.
        for rate, slow in zip(rates, (1.0, 2.0), strict=True):
            training(made, {**text, **SOLVED, **rate}, seed=seed, seconds=6 * slow)
            training(
                made,
                {**text, **SOLVED, **rate, **penalty},
                seed=seed,
                seconds=3 * slow,
                evaluations=6,
            )
            training(made, {**text, **layers, **rate}, seed=seed, seconds=6 / slow)


def test_runtime_compares_each_at_its_best_learning_rate(tmp_path: Path) -> None:
    made = store(tmp_path, "runtime")
    runtime_study(made)
    found = page(made, "runtime")
    frame = tables(found)["ratios"].frame
    training_ = frame[frame["measure"] == "training, to the loss"].set_index("above")["value"]
    # 6 seconds and 3 against 3, along curves of one form; the seeds' losses move the target a bit.
    assert training_["DEQ"] == pytest.approx(2.0, rel=0.1)
    assert training_["DEQ, regularised"] == pytest.approx(1.0, rel=0.1)
    chosen = tables(found)["networks-transformer-on-pydoc"].frame
    best = chosen[chosen["chosen"] == "✓"].set_index("label")["rate"].to_dict()
    assert best == {"DEQ": 1e-3, "DEQ, regularised": 1e-3, "4 untied layers": 1e-2}
    said = sentences(found)
    assert "6.00 evaluations a step instead of 10.0: at most 12, as hoped" in said
    assert set(figures(found)) == {"ratios", "depth", "loss", "solves"}


def test_runtime_counts_seconds_to_the_given_loss(tmp_path: Path) -> None:
    made = store(tmp_path, "runtime")
    text = {"data": {"name": "pydoc"}, "model": {"name": "transformer"}, "target_loss": 0.5}
    training(made, {**text, **SOLVED}, loss=1.0)
    said = sentences(page(made, "runtime"))
    assert "to a test loss of 0.500, the configs' target" in said
    assert "DEQ did not reach the loss with any seed." in said


def test_any_trainings_have_a_page(tmp_path: Path) -> None:
    made = store(tmp_path, "mine")
    for seed in range(2):
        training(made, SOLVED, seed=seed, loss=0.5)
        training(made, {**SOLVED, "solver": {"name": "broyden"}}, seed=seed, loss=1.5)
    training(made, SOLVED, seed=2, status="RUNNING")
    training(made, SOLVED, seed=2, status="FAILED")
    found = page(made, "mine")
    said = sentences(found)
    assert "The least test loss is DEQ (anderson, window=6)'s" in said
    assert "is worse beyond the spread of the seeds" in said
    assert sorted(tables(found)["failures"].frame["what"]) == ["run failed", "still running"]
    assert set(figures(found)) == {"loss", "score", "solves"}
    assert len(found.data["trainings"]) == 6


@pytest.mark.parametrize("study", ["depth", "language", "runtime", "mine"])
def test_a_study_half_done_has_a_page(study: str, tmp_path: Path) -> None:
    made = store(tmp_path, study)
    training(made, SOLVED, status="RUNNING")
    assert sentences(page(made, study))
    # A result of an interrupted measurement, of one network alone.
    without = ["perplexity", "accuracy", "loss", "peak_bytes", "converged", "step_seconds"]
    training(made, {**SOLVED, "model": {"name": "transformer"}}, seed=1, without=without)
    found = page(made, study)
    assert sentences(found)
    for figure in figures(found).values():
        assert figure.spec


@pytest.mark.parametrize("name", ["depth", "language", "runtime"])
def test_studies_say_what_is_quick_and_what_is_large(name: str) -> None:
    study = studies.find(name)
    assert study.experiment == "training"
    assert study.quick
    assert study.gpu
    seeds = {seed for block in study.grid for seed in block.get("seed", [])}
    assert len(seeds) >= 3


def test_parameters_of_twins_are_equal() -> None:
    sizes: dict[str, list[int]] = {}
    for block in studies.find("language").grid:
        text = block.get("data.name", ["pydoc"])
        if "steps" in block or "pydoc" not in text:
            continue
        for config in block["model"]:
            with torch.device("meta"):
                model = models.registry.build({**config, "vocabulary": 103}, "model")
            family = str(config["name"]).replace("universal_", "")
            count = sum(p.numel() for p in model.module().parameters())
            sizes.setdefault(family, []).append(count)
    assert set(sizes) == {"transformer", "trellisnet"}
    for counts in sizes.values():
        assert len(counts) == 3
        assert np.ptp(counts) <= 0.02 * counts[0]
