"""The experiment ``theory`` through the command line, small, and its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from said import Deq

from db import Store
from experiments import studies
from experiments.report import render
from experiments.report.blocks import Figure, Table
from experiments.report.frames import as_mapping, load
from experiments.report.pages import Page, page_of

Opened = Callable[[], Store]


def run(deq: Deq, *words: str) -> None:
    said = deq("run", "theory", "with", "batch=3", *words)
    assert said.code == 0, said.err


def series(store: Store, name: str) -> list[float]:
    rows = store.series(names=name)
    assert list(rows["ord"]) == list(range(len(rows)))
    return [float(v) for v in rows["value"]]


def test_a_network_as_a_block(deq: Deq, store: Opened) -> None:
    run(deq, "claim=universality", "depth=3", "width=4", "gain=2.0")
    solves = store().solves().set_index("solver")
    assert solves.loc["picard", "evaluations"] == 4
    assert solves.loc["picard", "residual_last"] == 0
    assert set(solves.index) == {
        "picard", "newton", "newton_krylov", "broyden", "anderson", "gmres",
    }  # fmt: skip
    (gradient,) = store().gradients().to_dict("records")
    assert gradient["products"] <= 3
    assert gradient["rel_err"] < 1e-13
    assert gradient["adjoint_retcode"] == "SUCCESS"
    last = series(store(), "layer 3")
    assert min(last[:3]) > 1e-3
    assert last[3] < 1e-13
    assert series(store(), "power")[3] == 0
    assert list(store().series(names="neumann")["step"]) == [1, 2, 3, 4]


def test_two_equilibria(deq: Deq, store: Opened) -> None:
    run(deq, "claim=stacking", "width=6", "contraction=0.9", "second=0.5")
    solves = store().solves()
    parts = [as_mapping(value) for value in solves["extra"]]
    assert [p["part"] for p in parts] == ["first", "second", "joint"] * 4
    assert set(solves["retcode"]) == {"SUCCESS"}
    assert float(store().gradients()["rel_err"].max()) < 1e-10
    assert float(store().gradients()["state_err"].max()) < 1e-10


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_any_model_gets_deeper(deq: Deq, store: Opened, model: str) -> None:
    sizes = {"mlp": ("model.width=8",), "transformer": ("model.width=8", "model.inner=8")}[model]
    run(deq, "claim=depth", "depth=60", f"model.name={model}", *sizes, "train_steps=2")
    (solve,) = store().solves().to_dict("records")
    extra = as_mapping(solve["extra"])
    assert 0 < extra["radius"] < 1
    assert len(series(store(), "step")) == 60
    gradients = store().gradients()
    depths = [as_mapping(value)["depth"] for value in gradients["extra"]]
    assert depths == sorted(set(depths))
    assert (depths[0], depths[-1]) == (1, 60)
    errors = list(gradients["rel_err"])
    assert errors[-1] < errors[0]


def test_a_radius_that_is_not_to_be_had(deq: Deq, store: Opened) -> None:
    # The slopes of a saturated tanh are 0: no weights give it a radius of 50.
    words = ("claim=depth", "depth=4", "radius=50", "model.width=4")
    assert deq("run", "theory", "with", "batch=3", *words).code != 0
    (run_,) = store().runs().to_dict("records")
    assert run_["status"] == "FAILED"
    assert "radius = 50" in run_["fail_message"]


def test_an_input_that_is_forgotten(deq: Deq, store: Opened) -> None:
    run(deq, "claim=injection", "depth=20", "width=6", "contraction=0.7")
    assert series(store(), "gradient, tied") == [0.0]
    assert series(store(), "variance, tied")[20] < 0.7**40
    assert series(store(), "limit, injected")[0] > 0.1
    assert set(store().solves()["phase"]) == {"forward", "adjoint"}


def test_a_claim_is_one_of_four(deq: Deq) -> None:
    said = deq("run", "theory", "with", "claim=stackin")
    assert said.code == 2
    assert "did you mean 'stacking'" in said.err


# -- the page -------------------------------------------------------------------------------------

EVERY = (
    ("claim=universality", "depth=2", "width=4"),
    ("claim=universality", "depth=4", "width=4", "gain=2.0"),
    ("claim=stacking", "width=6", "contraction=0.7"),
    ("claim=depth", "depth=80", "model.width=12", "model.injection=0.3", "radius=0.8"),
    ("claim=depth", "depth=80", "model.width=12", "model.injection=0.3", "radius=1.2"),
    ("claim=injection", "depth=12", "width=6"),
)


def blocks(page: Page) -> dict[str, Figure | Table]:
    every = [block for section in page.sections for block in section.blocks]
    return {block.name: block for block in every if isinstance(block, Figure | Table)}


def read(store: Store) -> Page:
    return page_of(load("theory", store, "experiment=theory"), "theory")


def claims(page: Page) -> pd.DataFrame:
    table = blocks(page)["claims"]
    assert isinstance(table, Table)
    return table.frame.set_index("claim")


def test_the_page_says_what_the_store_holds(deq: Deq, store: Opened, tmp_path: Path) -> None:
    for words in EVERY:
        run(deq, *words)
    page = read(store())
    frame = claims(page)
    assert len(frame) == 15
    short = frame[frame["holds"] != "yes"]
    assert short.empty, short["measured"].to_dict()

    def measured(words: str) -> str:
        (name,) = [str(name) for name in frame.index if words in name]
        return str(frame.loc[name, "measured"])

    assert measured("plain iteration") == "L + 1 evaluations"
    assert "1 of 1 solved" in measured("beyond")
    assert measured("no gradient in the input") == "0"
    found = blocks(page)
    drawn = {name: block for name, block in found.items() if isinstance(block, Figure)}
    assert set(drawn) == {
        "staircase", "nilpotent", "solvers", "stacking", "depth", "injection",
    }  # fmt: skip
    json.dumps({name: figure.spec for name, figure in drawn.items()}, allow_nan=False)
    staircase = drawn["staircase"].spec["datasets"]["staircase_0"]
    assert {row["value"] > 1e-3 for row in staircase if row["step"] < row["layer"]} == {True}
    html = render("theory", store(), tmp_path / "out", "experiment=theory").read_text()
    assert "Claimed, and measured" in html
    assert (tmp_path / "out" / "figures" / "depth.svg").exists()


def test_a_claim_that_does_not_hold_is_said(deq: Deq, store: Opened) -> None:
    """Networks of seven layers are not deep enough to show the rate of the spectral radius."""
    run(deq, "claim=depth", "depth=7", "model.width=12", "model.injection=0.3", "radius=0.95")
    frame = claims(read(store()))
    assert list(frame["holds"]) == ["no", "no"]
    assert not frame["met"].any()


def test_a_page_without_a_claim_leaves_its_section_out(deq: Deq, store: Opened) -> None:
    run(deq, *EVERY[-1])
    page = read(store())
    assert "Infinite depth" not in [section.title for section in page.sections]
    drawn = {name for name, block in blocks(page).items() if isinstance(block, Figure)}
    assert drawn == {"injection"}


def test_the_study_has_every_claim() -> None:
    study = studies.registry.get("theory")
    assert study.experiment == "theory"
    asked = {claim for block in study.grid for claim in block["claim"]}
    assert asked == {"universality", "stacking", "depth", "injection"}
