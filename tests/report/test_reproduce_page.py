"""The page of the paper's claims, from the runs of several studies. No number was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_trainings import training
from reading import figures, page, sentences, tables
from synthetic import Made

from experiments.report.pages.reproduce import CLAIMS

SOLVED: Mapping[str, Any] = {
    "solver": {"name": "anderson", "window": 6},
    "gradient": {
        "name": "implicit", "certificate": False, "solver": {"name": "gmres", "restart": 12},
    },
}  # fmt: skip
LEVELS: Mapping[str, Any] = {
    "solver": {"name": "picard"}, "fixed_budget": True, "max_evaluations": 70,
}  # fmt: skip
COPY: Mapping[str, Any] = {"model": {"name": "transformer"}}


def of(path: Path, study: str) -> Made:
    return Made(path / "store.db", study=study, experiment="training")


def copied(path: Path, end: str = "") -> Made:
    made = of(path, f"reproduce{end}")
    for delay, loss in ((50, 0.001), (400, 0.06)):
        data = {"name": "copy_memory", "delay": delay}
        training(made, {**COPY, "data": data}, loss=loss, more={"parameters": 13226.0})
    return made


def test_the_claims_are_read_from_the_studies_that_measure_them(tmp_path: Path) -> None:
    made = of(tmp_path, "language")
    probe = {"model": {"name": "trellisnet"}, "data": {"name": "pydoc", "length": 150}, "steps": 1}
    training(made, {**probe, **SOLVED}, peak=1e6)
    training(made, {**probe, **LEVELS, "gradient": {"name": "unrolled"}}, peak=1e7)
    training(made, {**probe, **LEVELS, "gradient": {"name": "checkpointed"}}, peak=2e6)
    text = {"data": {"name": "pydoc", "length": 32}}
    for seed in range(3):
        training(made, {**text, "model": {"name": "transformer"}, **SOLVED}, seed=seed, loss=1.0)
        layers = {"model": {"name": "transformer", "layers": 4}, "gradient": {"name": "unrolled"}}
        training(made, {**text, **layers}, seed=seed, loss=2.0)
    found = page(copied(tmp_path), "reproduce")
    rows = tables(found)["claims"].frame
    assert len(rows) == len(CLAIMS)
    value = rows.set_index("what")["value"]
    assert value["DEQ-TrellisNet over 70 levels, WikiText-103"].iloc[0] == pytest.approx(0.1)
    assert value["DEQ-TrellisNet over 70 levels with checkpoints"] == pytest.approx(0.5)
    assert value["70 levels, with checkpoints over without"] == pytest.approx(0.2)
    said = rows[rows["measure"] == "perplexity"].set_index("what")
    ratio = said.loc["DEQ-Transformer over Transformer-XL"]
    assert ratio["value"] == pytest.approx(0.37, rel=0.05)  # e / e²
    assert ratio["low"] < ratio["value"] < ratio["high"]
    assert "pydoc, length 32, batch 32, 100 steps" in ratio["setting"]
    text_ = sentences(found)
    assert "The largest cut here is 90.0 %." in text_
    assert "86.6 %" in text_
    assert "88 %" in text_
    assert "A delay of 400: 0.060" in text_
    assert "not below the 0.050 of a network without memory" in text_
    assert "below the 0.30 of a network without memory" in text_
    assert set(figures(found)) == {"claims", "copy-memory"}
    assert "wait for deq study language, deq study runtime and deq study vision." in text_


def test_what_was_not_run_is_said_with_its_command(tmp_path: Path) -> None:
    found = page(copied(tmp_path, "-quick"), "reproduce-quick")
    said = sentences(found)
    assert "deq study language with quick=true" in said
    assert tables(found)["claims"].frame["value"].isna().all()


def test_the_papers_ratios_are_those_of_its_numbers() -> None:
    for claim in CLAIMS:
        if " of " in claim.numbers:
            top, _, bottom = claim.numbers.removesuffix(" GB").partition(" of ")
            assert claim.paper == pytest.approx(float(top) / float(bottom), rel=1e-9)
        else:
            assert claim.numbers in (f"{claim.paper:.2f} ×", f"{claim.paper:g} ×")
