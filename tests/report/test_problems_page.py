"""The page of ``problems`` says what its rows say. No number here was measured."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import numpy as np
import pandas as pd
import pytest
from reading import figures, page, sentences, specs, tables
from rich.console import Console
from synthetic import Made

from db import Store
from experiments.report import render, terminal_summary
from experiments.report.frames import load
from experiments.report.pages.problems.profiles import profile
from experiments.report.pages.problems.results import ratios, results

Start = Mapping[str, Any]


def start(evaluations: int = 10, products: int = 0, **more: Any) -> Start:
    """A start that was solved, unless a retcode says otherwise."""
    code = more.get("retcode", "SUCCESS")
    usual = {"met": code == "SUCCESS", "retcode": code, "claimed": None, "root": 0}
    usual |= {"residual": 1e-9, "distance": 1e-9}
    return {**usual, "evaluations": evaluations, "products": products, **more}


def measured(
    made: Made,
    problem: str,
    solver: str,
    starts: Sequence[Start],
    *,
    collection: str = "standard",
    options: Mapping[str, Any] | None = None,
    message: str = "message",
) -> int:
    """Record one run of ``problems``."""
    config = {
        "model": None,
        "data": None,
        "problem": {"name": problem, "starts": len(starts)},
        "solver": {"name": solver, **(options or {})},
        "reltol": 0.0,
        "max_evaluations": 400,
    }
    observer = made.run("", solver, None, 0, config=config)
    met = sum(bool(s["met"]) for s in starts)
    observer.solve(
        {
            "phase": "forward",
            "problem": problem,
            "solver": solver,
            "evaluations": max(s["evaluations"] for s in starts),
            "retcode": "SUCCESS" if met == len(starts) else "STALLED",
            "converged": met / len(starts),
            "message": message,
            "seconds": 0.02 * len(starts),
            "repeats": 1,
            "abstol": 1e-8,
            "reltol": 0.0,
            "dtype": "float64",
            "device": "cpu",
            "batch": len(starts),
            "dim": 4,
            "extra": {
                "collection": collection,
                "traps": ["many_roots"] if problem == "wood" else [],
                "dim": 4,
                "roots": 2,
                "standard": starts[0],
                "starts": len(starts),
                "successes": met,
                "per_sample": list(starts),
            },
        }
    )
    return made.end(observer)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two standard problems and another, three solvers, one of which claims too much."""
    made = Made(tmp_path / "store.db", "problems", "problems")
    stalled = start(50, retcode="STALLED")
    for problem in ("wood", "boggs"):
        measured(made, problem, "newton", [start(5, 20), start(6, 24), start(5, 20, root=1)])
        lies = start(30, retcode="FAILURE", claimed=True)
        measured(
            made, problem, "scipy_lm",
            [start(20) if problem == "boggs" else lies, start(22, claimed=True), lies],
        )  # fmt: skip
    measured(made, "wood", "anderson", [stalled] * 3)
    measured(made, "boggs", "anderson", [start(9), stalled, start(retcode="NONFINITE")])
    measured(made, "h_equation", "newton", [start(4, 12)] * 3, collection="other")
    return made


def found(made: Made) -> Any:
    return results(load("problems", Store(made.path)))


def test_the_answer_counts_the_standard_starts(made: Made) -> None:
    said = sentences(page(made, "problems"))
    assert "newton solves all 2." in said
    assert "The fewest: 1, by anderson and scipy_lm." in said
    assert "anderson: 1; not wood (STALLED)." in said
    assert "Every one of them is solved by at least one solver." in said
    assert "newton solves the largest share: 100.0 % of 9 starts" in said


def test_a_shared_first_place_and_a_problem_that_nobody_solves(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    for solver in ("newton", "broyden"):
        measured(made, "wood", solver, [start()])
        measured(made, "boggs", solver, [start(retcode="DIVERGED")])
    said = sentences(page(made, "problems"))
    assert "broyden and newton solve the most: 1 of 2." in said
    assert "No solver here solves boggs." in said


def test_false_successes_are_told_with_their_problems(made: Made) -> None:
    said = sentences(page(made, "problems"))
    assert (
        "scipy_lm claims success at 3 starts that it has not solved, on wood and boggs; at the"
        " standard start of wood." in said
    )
    frame = tables(page(made, "problems"))["solvers"].frame.set_index("solver")
    assert frame.loc["scipy_lm", "false"] == 3
    assert pd.isna(frame.loc["newton", "false"])  # it claims nothing


def test_a_library_may_claim_more_by_itself(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    own = {"claimed": True, "met": False}
    failed = start(retcode="FAILURE", claimed=False, own=own)
    measured(made, "wood", "scipy_lm", [failed, start(own={"claimed": True, "met": True})])
    measured(made, "boggs", "scipy_lm", [start()])
    said = sentences(page(made, "problems"))
    assert "scipy_lm claims success at 1 start that it has not solved, on wood; at the" in said


def test_the_table_has_shares_with_intervals_and_medians_of_what_was_solved(made: Made) -> None:
    frame = tables(page(made, "problems"))["solvers"].frame.set_index("solver")
    assert list(frame.index) == ["newton", "scipy_lm", "anderson"]
    assert frame.loc["newton", ["standard", "successes", "starts"]].tolist() == [2, 9, 9]
    assert frame.loc["scipy_lm", ["standard", "successes", "starts"]].tolist() == [1, 3, 6]
    # Wilson for 3 of 6, by hand: (0.5 + 0.3201 ± 1.96 √(0.25/6 + 0.02668)) / 1.6402
    assert frame.loc["scipy_lm", "interval"] == "18.8 to 81.2"
    assert frame.loc["newton", "equivalents"] == 25
    assert frame.loc["anderson", "evaluations"] == 9
    assert frame.loc["newton", "seconds"] == pytest.approx(0.02)


def test_the_problems_have_traps_and_the_roots_that_were_reached(made: Made) -> None:
    frame = tables(page(made, "problems"))["problems"].frame.set_index("case")
    assert list(frame.index) == ["wood", "boggs", "h_equation"]
    assert frame.loc["wood", "traps"] == "many_roots"
    assert frame.loc["wood", "solvers"] == "1 of 3"
    assert frame.loc["wood", "reached"] == "0: 3, 1: 1"
    assert frame.loc["boggs", "failure"] == "FAILURE"


def test_the_map_shows_every_failure(made: Made) -> None:
    error = RuntimeError("no")
    config = {"model": None, "problem": {"name": "wood"}, "solver": {"name": "broyden"}}
    made.end(made.run("", "broyden", None, config=config), error)
    report = page(made, "problems")
    spec = figures(report)["problems"].spec
    cells = {(row["case"], row["solver"]): row for row in spec["datasets"]["cells"]}
    assert cells["wood", "newton"]["text"] == "3"
    assert cells["wood", "anderson"]["text"] == "0 S ○"
    assert cells["boggs", "anderson"]["text"] in ("1 S", "1 N")
    assert cells["wood", "broyden"]["text"] == "✕"
    assert cells["wood", "broyden"]["share"] is None
    said = sentences(report)
    assert "S STALLED" in said and "✕" in said
    assert "RuntimeError: no" in str(tables(report)["failures"].frame.to_dict())


def test_solvers_that_differ_in_an_option_are_told_apart(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    for way, code in (("none", "DIVERGED"), ("line_search", "SUCCESS")):
        measured(made, "wood", "newton", [start(retcode=code)], options={"globalisation": way})
    said = sentences(page(made, "problems"))
    assert "newton (globalisation=line_search) solves all 1." in said


def test_the_performance_profile_of_an_example_by_hand() -> None:
    work = pd.DataFrame(
        {
            "a": [1.0, 2.0, np.nan, np.nan],
            "b": [2.0, 1.0, 4.0, np.nan],
            "c": [4.0, np.nan, 4.0, np.nan],
        }
    )
    shares = profile(ratios(work), [1.0, 2.0, 4.0]).pivot(
        index="limit", columns="solver", values="share"
    )
    # Nobody solves the last row, which counts against all.
    assert shares["a"].tolist() == [0.25, 0.5, 0.5]
    assert shares["b"].tolist() == [0.5, 0.75, 0.75]
    assert shares["c"].tolist() == [0.25, 0.25, 0.5]


def test_work_is_by_problem_and_start_and_failures_have_none(made: Made) -> None:
    work = found(made).work("equivalents")
    assert len(work) == 9  # three problems, three starts each
    assert work["newton"].xs("wood", level="case").tolist() == [25, 30, 25]
    assert work["anderson"].notna().sum() == 1
    spec = figures(page(made, "problems"))["profiles"].spec
    assert {name for name in spec["datasets"] if not name.startswith("legend")} == {
        "equivalents", "evaluations", "simplex",
    }  # fmt: skip
    ends = {row["solver"]: row["share"] for row in spec["datasets"]["equivalents"]}
    # The right end is what a solver solves at all.
    assert ends == pytest.approx({"newton": 1.0, "scipy_lm": 3 / 9, "anderson": 1 / 9})


def test_the_report_is_written_and_its_figures_are_valid(made: Made, tmp_path: Path) -> None:
    written = render("problems", Store(made.path), tmp_path / "out")
    html = written.read_text(encoding="utf-8")
    drawn = specs(html)
    assert set(drawn) == {"problems", "profiles"}
    schema = jsonschema.Draft7Validator(alt.load_schema())
    for name, spec in drawn.items():
        assert schema.is_valid({key: spec[key] for key in spec if key != "datasets"}), name
        titles = re.findall(
            r'"axis": \{[^{}]*?"title": ("[^"]+"|null)', str(spec).replace("'", '"')
        )
        assert all(title != "null" for title in titles)
        assert (written.parent / "figures" / f"{name}.svg").read_text().startswith("<svg")
    starts = pd.read_csv(written.parent / "tables" / "starts.csv")
    assert len(starts) == 7 * 3
    again = render("problems", Store(made.path), tmp_path / "again")
    assert again.read_bytes() == written.read_bytes()


def test_the_terminal_says_the_answer(made: Made) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_summary("problems", Store(made.path)))
    assert "newton solves all 2." in console.export_text()


HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_names_from_the_store_cannot_become_html(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    bad = start(retcode=HOSTILE)
    measured(made, HOSTILE, HOSTILE, [start(), bad, {**bad, "claimed": True}])
    measured(made, HOSTILE, "newton", [start()] * 3)
    html = render("problems", Store(made.path), tmp_path / "out").read_text(encoding="utf-8")
    assert "<img src=x" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_runs_without_a_solve_still_give_a_page(tmp_path: Path) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    config = {"model": None, "problem": {"name": "wood"}, "solver": {"name": "newton"}}
    made.end(made.run("", "newton", None, config=config), RuntimeError("out of memory"))
    html = render("problems", Store(made.path), tmp_path / "out").read_text(encoding="utf-8")
    assert "out of memory" in html
