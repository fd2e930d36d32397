"""The page of ``overhead`` says what the rows say. No number here was measured."""

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

Row = tuple[str, str, float]
SMALL = {"batch": 32, "dim": 256, "hidden": 256}
LARGE = {"batch": 64, "dim": 16384, "hidden": 256}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "store.db", study="overhead", experiment="overhead")


def raced(
    made: Made,
    rows: Sequence[Row],
    *,
    sizes: Mapping[str, int] = SMALL,
    mode: str = "eager",
    device: str = "cpu",
    cell: str = "two_layer",
    flags: Mapping[str, str] | None = None,
    reads: Mapping[str, int] | None = None,
) -> None:
    """One run: every (contender, kind, ratio) at one cell."""
    config = {"model": None, "data": None, "solver": None, "gradient": None, **sizes, "mode": mode}
    observer = made.run("", "", None, 0, config=config)
    for step, (contender, kind, ratio) in enumerate(rows):
        observer.solve(
            solve(step, contender.split(" (")[0], sizes, device, ratio)
            | {
                "fixed_budget": kind == "fixed",
                "extra": {
                    "measure": "overhead",
                    "contender": contender,
                    "kind": kind,
                    "cell": cell,
                    "sizes": dict(sizes),
                    "mode": mode,
                    "ratio": ratio,
                    "ratio_q1": 0.98 * ratio,
                    "ratio_q3": 1.03 * ratio,
                    "bare_seconds": 0.01,
                    "launches": 20.5,
                    "reads": (reads or {}).get(contender, 0 if kind == "fixed" else 9),
                    "flag": (flags or {}).get(contender, ""),
                },
            }
        )
    made.end(observer)


def solve(
    step: int, solver: str, sizes: Mapping[str, int], device: str, ratio: float
) -> dict[str, Any]:
    return {
        "outer_step": step,
        "phase": "forward",
        "problem": "two_layer",
        "solver": solver,
        "evaluations": 30,
        "sample_evaluations": 30 * sizes["batch"],
        "retcode": "MAX_EVALUATIONS",
        "retcodes": {"MAX_EVALUATIONS": sizes["batch"]},
        "converged": 0.0,
        "message": "the evaluations ran out",
        "seconds": 0.01 * ratio,
        "repeats": 20,
        "reltol": 0.0,
        "device": device,
        "dtype": "float32",
        "batch": sizes["batch"],
        "dim": sizes.get("dim", 100),
    }


def frozen(made: Made, contender: str, counts: tuple[int, int], ratio: float) -> None:
    """One run: a solver with and without freezing, with these sample evaluations."""
    config = {"model": None, "data": None, "solver": None, "gradient": None}
    observer = made.run("", "", None, 0, config={**config, "measure": "freezing"})
    for step, (variant, count) in enumerate(zip(("frozen", "all"), counts, strict=True)):
        observer.solve(
            solve(step, contender, SMALL, "cpu", ratio if variant == "frozen" else 1.0)
            | {
                "sample_evaluations": count,
                "extra": {
                    "measure": "freezing",
                    "contender": contender,
                    "kind": "checked",
                    "cell": "two_layer",
                    "sizes": SMALL,
                    "mode": "eager",
                    "variant": variant,
                    "ratio": ratio,
                    "ratio_q1": ratio - 0.01,
                    "ratio_q3": ratio + 0.01,
                    "saved": 1 - counts[0] / counts[1],
                    "bare_seconds": 0.008,
                    "difference": 3e-7,
                    "flag": "",
                },
            }
        )
    made.end(observer)


def page_of(made: Made) -> Any:
    return page(made, "overhead")


def test_the_ratios_are_the_stores(made: Made) -> None:
    raced(made, [("anderson", "checked", 2.4), ("torchdeq_anderson", "direct", 4.2)])
    raced(
        made,
        [("anderson", "checked", 1.2), ("torchdeq_anderson", "direct", 1.8)],
        sizes=LARGE,
    )
    said = sentences(page_of(made))
    assert "At (32, 256, 256) and (64, 16384, 256), anderson takes 2.40 and 1.20 times" in said
    assert "(torchdeq_anderson: 4.20 and 1.80)" in said
    # (1.4 / 3.2 · 0.2 / 0.8)^½
    assert "0.33 of the overhead of torchdeq_anderson in the geometric mean over 2 cells" in said
    assert "2.40 at (32, 256, 256), within 2.50; 1.20 at (64, 16384, 256), within 1.22" in said


def test_the_sentence_changes_with_the_data(made: Made) -> None:
    raced(made, [("broyden", "checked", 9.0), ("torchdeq_broyden", "direct", 5.0)])
    said = sentences(page_of(made))
    assert "broyden takes 9.00 times its bare evaluations (torchdeq_broyden: 5.00)" in said
    assert "2.0 of the overhead of torchdeq_broyden in the geometric mean over 1 cell" in said
    assert "9.00 at (32, 256, 256), beyond 3.20" in said


def test_unequal_work_does_not_count(made: Made) -> None:
    rows = [("anderson", "checked", 0.5), ("broyden", "checked", 3.0)]
    raced(made, rows, flags={"anderson": "took 20 to 30 evaluations a sample instead of 30"})
    found = page_of(made)
    said = sentences(found)
    assert "anderson takes" not in said
    assert "anderson, tolerance checked at (32, 256, 256): took 20 to 30 evaluations" in said
    drawn = figures(found)["overhead"].spec["datasets"]["cell_0"]
    assert {row["contender"] for row in drawn} == {"broyden"}
    table = tables(found)["overhead"].frame.set_index("contender")
    assert not table.loc["anderson", "met"]


def test_solves_that_meet_no_tolerance_are_no_failures(made: Made) -> None:
    raced(made, [("anderson", "checked", 2.0)])
    assert "Nothing: every run completed." in sentences(page_of(made))


def test_launches_and_reads_are_told(made: Made) -> None:
    raced(
        made,
        [("anderson", "checked", 2.0), ("anderson", "fixed", 1.9), ("broyden", "checked", 2.0)],
        reads={"broyden": 31},
    )
    frame = tables(page_of(made))["launches"].frame
    rows = frame.set_index(["contender", "kind"])
    assert rows.loc[("anderson", "fixed"), "reads"] == 0
    assert rows.loc[("anderson", "checked"), "reads_aim"] == 9.5
    assert rows["met"].to_dict() == {
        ("anderson", "checked"): True,
        ("anderson", "fixed"): True,
        ("broyden", "checked"): False,
    }


def test_modes_and_devices_are_told_apart(made: Made) -> None:
    rows = [("anderson", "fixed", 1.2), ("torchdeq_anderson", "direct", 2.0)]
    raced(made, rows)
    raced(made, rows, mode="cuda_graph", device="cuda:0")
    raced(made, rows, cell="transformer", sizes={"batch": 32}, device="cuda:0")
    found = page_of(made)
    table = tables(found)["overhead"].frame
    assert list(dict.fromkeys(table["situation"])) == [
        "(32, 256, 256), on cpu",
        "(32, 256, 256), cuda graph, on cuda:0",
        "transformer, batch 32, 100 numbers, on cuda:0",
    ]
    aims = table[table["contender"] == "anderson"].set_index("situation")["aim"]
    assert aims.tolist() == [2.5, 1.1, 1.1]
    assert "on cuda:0: 0.20 of the overhead" in sentences(found)


def test_freezing_is_told(made: Made) -> None:
    frozen(made, "anderson", (250, 1000), 0.4)
    frozen(made, "broyden", (500, 1000), 0.7)
    found = page_of(made)
    said = sentences(found)
    assert "saves 50 % to 75 % of the sample evaluations and takes 0.40 to 0.70 of the" in said
    assert (
        "anderson: 250 instead of 1,000 sample evaluations (75 % fewer), 0.40 of the time" in said
    )
    assert "The answers differ by at most 3e-7. The aim, 70 % fewer in half of the time, is" in said
    assert said.count("is reached") == 1 and said.count("is missed") == 1
    assert tables(found)["freezing"].frame["percent"].tolist() == [75.0, 50.0]


def test_runs_of_one_cell_are_taken_together(made: Made) -> None:
    for ratio in (2.0, 2.2, 3.0):
        raced(made, [("anderson", "checked", ratio)])
    (row,) = tables(page_of(made))["overhead"].frame.to_dict("records")
    assert row["ratio"] == 2.2
    assert len(row["runs"]) == 3


def test_it_is_written_with_valid_figures(made: Made, tmp_path: Path) -> None:
    rows = [("anderson (window=6)", "checked", 2.0), ("</script><b>x", "fixed", 3.0)]
    raced(made, [*rows, ("torchdeq_anderson", "direct", 4.0)])
    raced(made, rows, sizes=LARGE)
    frozen(made, "anderson", (250, 1000), 0.4)
    made.end(made.run("", "", None, 1, config={"model": None}), ValueError("no"))
    html = render("overhead", Store(made.path), tmp_path / "out").read_text()
    schema = jsonschema.Draft7Validator(alt.load_schema())
    drawn = specs(html)
    assert set(drawn) == {"overhead"}
    for name, spec in drawn.items():
        assert schema.is_valid({key: spec[key] for key in spec if key != "datasets"}), name
        assert (tmp_path / "out" / "figures" / f"{name}.svg").read_text().count("<path") > 10
    assert "</script><b>" not in html
    assert not re.search(r"\bnan\b|<NA>", sentences(page_of(made)))
    terminal_summary("overhead", Store(made.path))


def test_runs_without_a_solve_still_have_a_page(made: Made) -> None:
    made.end(made.run("", "", None, 0, config={"model": None}), ValueError("no"))
    found = page_of(made)
    assert found.sections[0].title == "The answer"
    assert "ValueError" in str(tables(found)["failures"].frame["why"].tolist())
