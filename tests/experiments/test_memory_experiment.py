"""The experiment ``memory`` through the command line, small, and its page."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import numpy as np
import pandas as pd
import pytest
from said import Deq

from db import Store
from experiments.report import render, terminal_summary
from experiments.report.blocks import Block, Cards, Figure, Prose, Table
from experiments.report.frames import as_mapping, load
from experiments.report.pages import Page, page_of

Opened = Callable[[], Store]
MLP = ("model.name=mlp", "model.width=32", "batch=64", "repeats=1", "device=cpu")
TEXT = ("model.name=transformer", "model.width=16", "model.inner=32", "batch=4", "repeats=1")
DEPTHS = "max_evaluations=[2, 4, 8, 16]"
STATE = 4 * 64 * 32


def rows(store: Store) -> pd.DataFrame:
    """Every measured step with its bytes as columns."""
    found = store.gradients()
    extra = [as_mapping(value) for value in found["extra"]]
    bytes_ = pd.DataFrame([e["memory"] for e in extra], index=found.index)
    bytes_["depth"] = [e["depth"] for e in extra]
    return found.drop(columns=["extra"]).join(bytes_)


def test_unrolled_holds_a_state_an_evaluation_and_implicit_one(deq: Deq, store: Opened) -> None:
    for gradient in ("unrolled", "implicit"):
        said = deq("run", "memory", "with", *MLP, DEPTHS, f"gradient.name={gradient}")
        assert said.code == 0, said.err
    found = rows(store())
    assert list(found["depth"]) == [2, 4, 8, 16] * 2
    assert set(found["state"]) == {STATE} == set(found["inputs"])
    steps = found[found["gradient"] == "unrolled"]
    assert np.polyfit(steps["depth"], steps["kept"], 1)[0] == pytest.approx(STATE)
    solved = found[found["gradient"] == "implicit"]
    assert set(solved["kept"]) == {STATE}
    assert set(solved["kept_bytes"]) == {2 * STATE}  # with the arguments
    assert (solved["products"] > 0).all()
    assert (found["peak_bytes"] == found[["forward_peak", "backward_peak"]].max(axis=1)).all()
    assert (found["graph"] == STATE).all()  # what tanh keeps
    assert (found["evaluation"] > found["graph"]).all()
    # In the backward, that of the graph on which the adjoint is solved, and the certificate's.
    assert list(solved["calls_backward"]) == [2] * 4
    assert list(solved["calls"]) == [2, 4, 8, 16]
    # The last iterate of a network is judged by one more evaluation, which no gradient sees.
    assert list(steps["calls"]) == [3, 5, 9, 17]
    assert list(steps["calls_backward"]) == [0] * 4
    solves = store().solves()
    assert (solves.loc[solves["phase"] == "forward", "seconds"] > 0).all()


def test_a_solve_to_a_tolerance_tells_the_history(deq: Deq, store: Opened) -> None:
    said = deq(
        "run", "memory", "with", *TEXT, "solver.name=broyden", "fixed_budget=False",
        "max_evaluations=40", "reltol=1e-4",
    )  # fmt: skip
    assert said.code == 0, said.err
    (found,) = rows(store()).to_dict("records")
    solve = store().solves().iloc[0]
    assert solve["retcode"] == "SUCCESS"
    assert found["history"] == solve["history_bytes"] > found["state"]
    assert found["forward_peak"] >= found["history"]
    adjoint = store().solves().iloc[1]
    assert adjoint["phase"] == "adjoint"
    assert found["adjoint_history"] == adjoint["history_bytes"]


MISTAKES = {
    "gradient": (
        "gradient.name=unroled",
        ["gradient.name: unknown gradient 'unroled'", "'unrolled'"],
    ),
    "depth": ("max_evaluations=[]", ["max_evaluations = []", "a list of numbers"]),
    "solver": ("solver.name=scipy_anderson", ["fixed_budget = True", "native"]),
    "key": ("depth=3", ["unknown config key 'depth'"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: list[str]) -> None:
    said = deq("run", "memory", "with", word)
    assert said.code == 2
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


def blocks(found: Page) -> list[Block]:
    return [block for section in found.sections for block in section.blocks]


def sentences(found: Page) -> str:
    said: list[str] = []
    for block in blocks(found):
        if isinstance(block, Prose):
            said += block.paragraphs
        if isinstance(block, Cards):
            for card in block.cards:
                said += [card.headline, *(t for part in card.parts for t in part.paragraphs)]
        if isinstance(block, Figure | Table):
            said.append(block.caption)
    return "\n".join(re.sub(r"<[^>]*>", "", str(text)) for text in said)


def page(store: Store) -> Page:
    return page_of(load("memory", store, "experiment=memory"), "memory")


@pytest.fixture
def measured(deq: Deq, store: Opened) -> Store:
    for words in (
        ("gradient.name=unrolled",),
        ("gradient.name=checkpointed",),
        ("gradient.name=checkpointed", "gradient.segments=recursive"),
        ("gradient.name=reversible",),
        ("gradient.name=implicit",),
        ("gradient.name=implicit", "gradient.solver.restart=4"),
        ("gradient.name=implicit", "solver.name=broyden"),
        ("gradient.name=implicit", "gradient.precondition=forward", "solver.name=broyden"),
    ):
        assert deq("run", "memory", "with", *MLP, "max_evaluations=[4, 8, 16]", *words).code == 0
    checkpointed = ("max_evaluations=16", "gradient.name=checkpointed")
    for segments in (1, 2, 4, 8, 16):
        words = (*checkpointed, f"gradient.segments={segments}")
        assert deq("run", "memory", "with", *MLP, *words).code == 0
    words = ("fixed_budget=False", "max_evaluations=60", "solver.name=anderson")
    assert deq("run", "memory", "with", *MLP, *words).code == 0
    return store()


def test_the_page_says_what_the_rows_say(measured: Store) -> None:
    found = page(measured)
    said = sentences(found)
    steps = rows(measured)
    held = steps[steps["gradient"] == "unrolled"]["held"]
    assert f"{held.iloc[0] / 1e3:.1f} kB to {held.iloc[-1] / 1e3:.0f} kB between forward" in said
    assert "implicit keeps z* and the arguments, 1.02 times at most: 1.000 times, reached" in said
    assert "unrolled is linear in the evaluations, R² above 0.999: 1.00000, reached" in said
    assert re.search(r"implicit: [\d.]+ kB between forward and backward, from 4 to 16", said)
    assert "implicit (restarted)" in said
    assert "Nothing: every run completed." in said
    table = next(b for b in blocks(found) if isinstance(b, Table) and b.name == "steps").frame
    assert len(table) == 30
    again = table.loc[table["gradient"] == "checkpointed (√L segments)", "extra_forward"]
    assert list(again) == [1.0] * 3
    assert "peak at √L segments, 1.15 times the least of all counts at most: 1.00 times" in said
    assert re.search(r"the least is [\d.]+ kB at 4 segments \(√L = 4.0\)", said)
    assert "reversible holds the same at every depth, within 1 %:" in said
    assert (table["peak"] >= table["held"]).all()
    assert set(table.loc[table["gradient"] == "unrolled", "solver"]) == {"picard"}
    claims = next(b for b in blocks(found) if isinstance(b, Table) and b.name == "published").frame
    (share,) = claims.loc[claims["published"].str.startswith("0.162"), "ours"]
    unrolled = table[(table["gradient"] == "unrolled") & (table["depth"] == 16)]["peak"].iloc[0]
    solved = table[~table["fixed_budget"]]["peak"].iloc[0]
    assert share.startswith(f"{solved / unrolled:.3f} (implicit; anderson)")


def test_the_figures_are_valid_and_their_parts_add_up(measured: Store, tmp_path: Path) -> None:
    html = render("memory", measured, tmp_path / "out", "experiment=memory").read_text()
    assert not re.search(r"\bnan\b|<NA>", sentences(page(measured)))
    schema = jsonschema.Draft7Validator(alt.load_schema())
    drawn: Mapping[str, Any] = {
        b.name: b.spec for b in blocks(page(measured)) if isinstance(b, Figure)
    }
    assert set(drawn) == {"depth", "phases", "histories", "segments"}
    sweep = pd.DataFrame(drawn["segments"]["datasets"]["sweep_0"])
    assert list(sweep["segments"]) == [1, 2, 4, 8, 16]
    assert sweep.loc[sweep["peak"].idxmin(), "segments"] == 4
    for name, spec in drawn.items():
        assert schema.is_valid({key: spec[key] for key in spec if key != "datasets"}), name
        assert (tmp_path / "out" / "figures" / f"{name}.svg").read_text().count("<path") > 5
        assert f'id="spec-{name}"' in html
    for name in ("phases", "histories"):
        for rows_ in drawn[name]["datasets"].values():
            bars = pd.DataFrame(rows_)
            if "size" not in bars:
                continue  # the legend
            assert (bars["size"] >= 0).all()
            for _, parts in bars.groupby("step" if "step" in bars else "depth"):
                assert parts["size"].sum() == pytest.approx(parts["peak"].iloc[0])
    terminal_summary("memory", measured, "experiment=memory")
