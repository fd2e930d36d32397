"""The page of ``limit`` says what the rows say. No number here was measured."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import pytest
from reading import figures, page, sentences, specs, tables
from synthetic import Made

from db import Store
from experiments.report import render, terminal_summary
from experiments.report.pages.limit.theory import rate

AIMED = {"dim": 100, "injection": 0.3, "batch": 1}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "store.db", study="limit", experiment="limit")


def solved(
    made: Made,
    solver: str | Mapping[str, Any],
    counts: Sequence[int],
    *,
    problem: str = "tanh",
    limit: float | None = 20.0,
    reltols: Sequence[float] = (1e-8,),
    failed: Sequence[int] = (),
    jvps: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """One run a seed, each with so many evaluations to every tolerance."""
    config = {"name": solver} if isinstance(solver, str) else dict(solver)
    options = {**AIMED, "scale": 0.9, **(options or {})}
    for seed, count in enumerate(counts):
        whole = {
            "model": None,
            "data": None,
            "problem": {"name": problem, "seed": seed, **options},
            "solver": config,
            "reltol": list(reltols),
            "max_evaluations": 1000,
        }
        observer = made.run("", config["name"], None, seed, config=whole)
        for step, reltol in enumerate(reltols):
            missed = seed in failed
            observer.solve(
                {
                    "outer_step": step,
                    "phase": "forward",
                    "problem": problem,
                    "solver": config["name"],
                    "options": {k: v for k, v in config.items() if k != "name"},
                    "evaluations": count + step,
                    "jvps": jvps,
                    "vjps": 0,
                    "retcode": "DIVERGED" if missed else "SUCCESS",
                    "retcodes": {"DIVERGED" if missed else "SUCCESS": 1},
                    "converged": 0.0 if missed else 1.0,
                    "message": "it went away" if missed else "converged",
                    "reltol": reltol,
                    "dtype": "float64",
                    "device": "cpu",
                    "batch": 1,
                    "dim": 100,
                    "extra": {
                        "limit": limit,
                        "score": None if missed or limit is None else (count + step) / limit,
                        "radius": 0.8,
                        "equivalents": count + step + 2 * jvps,
                        "problem": {**options, "seed": seed},
                        "attempts": [],
                    },
                }
            )
        made.end(observer)


def test_who_comes_closest_is_the_stores(made: Made) -> None:
    solved(made, "anderson", [21, 21, 22])
    solved(made, "broyden", [30, 30, 30])
    said = sentences(page(made, "limit"))
    assert "anderson comes closest to the limit: 1.05 times the limit" in said
    assert "fails nowhere" in said
    assert "broyden: 1.50 times the limit." in said
    assert "the limit is 20 (ρ = 0.800)" in said


def test_the_sentence_changes_with_the_data(made: Made) -> None:
    solved(made, "anderson", [40])
    solved(made, "broyden", [24])
    solved(made, "fallback", [26])
    said = sentences(page(made, "limit"))
    assert "broyden comes closest to the limit: 1.20 times the limit" in said
    assert "The default, fallback, takes 1.30 times the limit" in said
    assert "it fails in none" in said


def test_a_failure_is_infinitely_far_and_never_wins(made: Made) -> None:
    solved(made, "anderson", [20, 20, 20], failed=[2])
    solved(made, "broyden", [60, 60, 60])
    solved(made, "picard", [900, 900, 900], failed=[0, 1, 2])
    found = page(made, "limit")
    said = sentences(found)
    assert "broyden comes closest to the limit: 3.00" in said
    assert "anderson: 1.00 times the limit; failed in 1 of 3 solves." in said
    assert "picard: failed; failed in 3 of 3 solves." in said
    rows = tables(found)["limit-tanh"].frame.set_index("solver")
    assert rows.loc["anderson", "score_text"] == "1.00 (1.00–failed)"
    assert rows.loc["picard", "score_text"] == "failed"
    drawn = figures(found)["distance-tanh"].spec["datasets"]
    points = [p for name, rows in drawn.items() if name.startswith("solves") for p in rows]
    assert sum(not p["met"] for p in points) == 4
    # In vain, but drawn where they ended.
    assert {p["spent"] for p in points if p["solver"] == "picard"} == {45.0}
    assert "DIVERGED" in tables(found)["failures"].frame["kind"].tolist()


def test_a_product_counts_as_two_evaluations(made: Made) -> None:
    solved(made, "newton_krylov", [6], jvps=20)
    solved(made, "broyden", [30])
    found = page(made, "limit")
    assert "broyden comes closest to the limit: 1.50" in sentences(found)
    rows = tables(found)["limit-tanh"].frame.set_index("solver")
    assert rows.loc["newton_krylov", "score"] == 46 / 20
    assert rows.loc["newton_krylov", "evaluations"] == 6


def test_aims_stand_beside_what_was_reached(made: Made) -> None:
    solved(made, {"name": "anderson", "window": 10}, [24, 24, 24])
    solved(made, {"name": "anderson", "window": 1000}, [20, 20, 20])
    solved(made, "fallback", [21, 21, 21], failed=[1])
    solved(made, "torchdeq_anderson", [10, 10, 10])
    frame = tables(page(made, "limit"))["aims"].frame.set_index("what")
    assert frame.loc["the best of our solvers", "score"] == 1.0
    assert frame.loc["the best of our solvers", "solver"] == "anderson (window=1000)"
    assert frame.loc["the best of our solvers", "reached"] == "yes"
    assert frame.loc["the best with 20 stored vectors", "score"] == 1.2
    assert frame.loc["the best with 20 stored vectors", "reached"] == "no"
    assert frame.loc["the default solver, failing nowhere", "reached"] == "no"


def test_aims_are_for_their_own_problem(made: Made) -> None:
    solved(made, "anderson", [24], options={"dim": 50})
    assert "aims" not in tables(page(made, "limit"))


def test_anderson_against_picard(made: Made) -> None:
    tight = [10.0**-k for k in range(1, 9)]
    line = {"problem": "linear", "options": {"spectrum": "one_sided", "radius": 0.9}}
    solved(made, "picard", [100], reltols=tight, **line)  # type: ignore[arg-type]
    solved(made, "anderson", [30], reltols=tight, **line)  # type: ignore[arg-type]
    solved(made, "torchdeq_anderson", [150], reltols=tight, **line)  # type: ignore[arg-type]
    found = page(made, "limit")
    said = sentences(found)
    assert "anderson: never more evaluations at 8 tolerances from 1e-1 to 1e-8" in said
    assert "from 1e-5 on 0.33 to 0.35 of them" in said
    assert "torchdeq_anderson: of 8 tolerances from 1e-1 to 1e-8, more evaluations at" in said
    rows = figures(found)["tolerance-linear"].spec["datasets"]["counts_0"]
    limits = [row["work"] for row in rows if row["solver"] == "the limit"]
    assert limits == [20.0] * 8
    theory = tables(found)["theory"].frame
    assert theory["formula"].tolist() == [29]
    assert theory["plain_formula"].tolist() == [175]


def test_settings_are_told_apart_and_in_order(made: Made) -> None:
    for scale, count in ((1.3, 30), (0.6, 20), (1.1, 25)):
        solved(made, "anderson", [count], options={"scale": scale})
        solved(made, "picard", [2 * count], options={"scale": scale})
    found = page(made, "limit")
    table = tables(found)["scores-tanh"]
    assert [c.title for c in table.columns] == [
        "solver", "scale 0.6", "scale 1.1", "scale 1.3", "failed",
    ]  # fmt: skip
    assert table.frame["scale=1.1"].tolist() == ["1.25", "2.50"]
    assert "1.00, 1.25 and 1.50 times the limit in the median at scale 0.6" in sentences(found)


def test_without_a_limit_nothing_is_made_up(made: Made) -> None:
    solved(made, "anderson", [24, 25], limit=None)
    found = page(made, "limit")
    assert "No limit is known" in sentences(found)
    assert "distance-tanh" not in figures(found)
    assert not re.search(r"\bnan\b|\binf\b|None|<NA>", sentences(found))


def test_it_is_written_with_valid_figures(made: Made, tmp_path: Path) -> None:
    tight = [1e-2, 1e-4, 1e-8]
    for scale in (0.6, 0.9):
        solved(made, "anderson", [24, 30], options={"scale": scale}, failed=[1])
        solved(made, "</script><b>x", [40, 50], options={"scale": scale})
        solved(made, "picard", [60], options={"scale": scale}, reltols=tight)
    made.end(made.run("", "anderson", None, 9, config={"model": None}), ValueError("no"))
    html = render("limit", Store(made.path), tmp_path / "out").read_text()
    schema = jsonschema.Draft7Validator(alt.load_schema())
    drawn = specs(html)
    assert set(drawn) == {"distance-tanh", "tolerance-tanh"}
    for name, spec in drawn.items():
        assert schema.is_valid({key: spec[key] for key in spec if key != "datasets"}), name
        assert (tmp_path / "out" / "figures" / f"{name}.svg").read_text().count("<path") > 10
    assert "</script><b>" not in html
    terminal_summary("limit", Store(made.path))


def test_runs_without_a_solve_still_have_a_page(made: Made) -> None:
    made.end(made.run("", "anderson", None, 9, config={"model": None}), ValueError("no"))
    found = page(made, "limit")
    assert found.sections[0].title == "The answer"
    assert "ValueError" in str(tables(found)["failures"].frame["why"].tolist())


@pytest.mark.parametrize(
    ("spectrum", "radius", "expected"),
    [
        ("real", 0.9, 0.6268),
        ("one_sided", 0.9, 0.5195),
        ("disc", 0.9, 0.9),
        ("circle", 0.99, 0.99),
        ("low_rank", 0.9, None),
        ("real", 1.2, None),
        (None, 0.9, None),
    ],
)
def test_the_best_rates(spectrum: str | None, radius: float, expected: float | None) -> None:
    found = rate(spectrum, radius)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-4))
