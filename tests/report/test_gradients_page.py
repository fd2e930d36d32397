"""The page of ``gradients`` says what the rows say. No number here was measured."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reading import figures, page, sentences, tables
from synthetic import Made

from db import Store
from experiments.report import render
from experiments.report.frames import load
from experiments.report.pages.gradients.rows import gradients
from experiments.report.pages.gradients.verdicts import certified


@pytest.fixture
def filled(tmp_path: Path) -> Made:
    made = Made(tmp_path / "store.db", study="gradients", experiment="gradients")
    for seed in range(2):
        observer = made.run("mlp", "broyden", None, seed)
        for part, varied, columns in made_up(seed):
            place = {"label": columns["method"], "radius": 0.9, "spectral_radius": 0.9}
            row = {"target": "parameters", "cosine": 0.9, "norm_ratio": 1.1, "reltol": 1e-6}
            extra = {"slice": part, "precision": "float64", **place, **varied}
            observer.gradient({**row, **columns, "extra": extra})
        made.end(observer)
    return made


def made_up(seed: int) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    implicitly = {"method": "implicit"}
    made: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("exact", {"differences": 2e-8}, {**implicitly, "rel_err": 3e-11 * (1 + seed)}),
        ("loss_scale", {"scale": 1e-12, "change": 5e-9}, {**implicitly, "rel_err": 1e-6}),
        ("solvers", {"solver": "picard", "spread": 4.0}, {**implicitly, "rel_err": 1e-6}),
        (
            "precondition",
            {"solver": "broyden", "plain": 40, "ratio": 0.5},
            {**implicitly, "rel_err": 1e-6, "products": 20},
        ),
        (
            "cost",
            {"label": "implicit", "ratio": 2.0, "ratio_q1": 1.9, "ratio_q3": 2.5, "step": 0.02,
             "step_q1": 0.019, "step_q3": 0.025, "rounds": 9},
            {**implicitly, "rel_err": 1e-3, "forward_seconds": 0.01, "backward_seconds": 0.01},
        ),
    ]  # fmt: skip
    for k in range(1, 8):
        residual = 10.0**-k
        about = {"exact_adjoint": True, "forward": residual, "adjoint_reltol": 1e-13}
        about["certificate"] = 2 * residual if k < 7 else 50 * residual
        made.append(("tolerances", about, {**implicitly, "rel_err": residual, "reltol": residual}))
        made.append(
            (
                "tolerances",
                {"exact_adjoint": False, "forward": residual, "adjoint_reltol": 1e-3},
                {**implicitly, "rel_err": max(residual, 1e-3), "reltol": residual},
            )
        )
    for radius, error in ((0.5, 0.5), (0.9, 0.8), (1.1, 2.0)):
        place = {"radius": radius, "spectral_radius": radius}
        rough = {"method": "jacobian_free", "rel_err": error, "cosine": 1.0 - error}
        for target in ("parameters", "args"):
            made.append(("estimators", {**place}, {**rough, "target": target}))
            made.append(
                ("estimators", {**place}, {**implicitly, "rel_err": 1e-6, "target": target})
            )
    return made


def test_targets_stand_beside_what_the_store_holds(filled: Made) -> None:
    frame = tables(page(filled, "gradients"))["targets"].frame.set_index("what")

    def at(words: str) -> pd.Series:
        (name,) = [name for name in frame.index if words in name]
        return frame.loc[name]

    assert at("against the dense adjoint")["measured"] == "at most 6e-11, median 4.5e-11"
    assert at("against the dense adjoint")["reached"] == "yes"
    assert at("central differences")["reached"] == "yes"
    assert at("slope")["measured"].startswith("1.000 in the median")
    assert at("scaled by")["reached"] == "no"
    assert at("spread")["reached"] == "yes"
    assert at("preconditioned / plain")["measured"] == "0.50 in the median (20 of 40 products)"
    assert at("training step")["reached"] == "yes"
    # Six of seven certificates are twice the error.
    assert at("certificate")["measured"].startswith("85.7 %")
    assert at("certificate")["reached"] == "no"
    assert at("certificate")["number"] == 14


def test_the_page_draws_every_slice(filled: Made) -> None:
    found = page(filled, "gradients")
    drawn = figures(found)
    assert set(drawn) == {"tolerances", "slopes", "radii", "directions", "certificate", "cost"}
    data = drawn["tolerances"].spec["datasets"]["map_0"]
    assert {row["equal"] for row in data} == {True, False}
    radius = drawn["radii"].spec["datasets"]
    assert len([name for name in radius if name.startswith("radii")]) == 2
    assert len(certified(gradients(load("gradients", Store(filled.path))))) == 14
    json.dumps({name: figure.spec for name, figure in drawn.items()})  # needs nothing else


def test_the_answer_is_the_stores(filled: Made) -> None:
    said = sentences(page(filled, "gradients"))
    assert "implicit is the most exact: an error of at most 1e-6." in said
    assert "errors at ρ = 0.5, 0.9 and 1.1" in said
    assert (
        "jacobian_free: 0.50, 0.80 and 2.0; cosine 0.50, 0.20 and -1.00,"
        " and in some run it does not descend." in said
    )
    assert "implicit: 20.0 ms, 2.0× of jacobian_free's, at an error of 1e-3." in said


def test_the_page_is_written(filled: Made, tmp_path: Path) -> None:
    html = render("gradients", Store(filled.path), tmp_path / "out").read_text()
    assert "Target and measured" in html
    assert (tmp_path / "out" / "figures" / "certificate.svg").exists()
    assert (tmp_path / "out" / "tables" / "targets.csv").exists()


def test_a_store_without_measurements_is_a_page_too(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", study="gradients", experiment="gradients")
    made.end(made.run("mlp", "broyden", None, 0))
    assert "none recorded a gradient" in sentences(page(made, "gradients"))
