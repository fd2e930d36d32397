"""The page of ``stability`` says what trainings and traces say. No number here was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import pytest
from reading import figures, page, sentences, tables
from trained import Trained

LANGUAGE = {"name": "transformer", "dropout": 0.0}
STEPS = tuple(range(0, 100, 10))


@pytest.fixture
def made(tmp_path: Path) -> Trained:
    return Trained(tmp_path / "store.db", study="stability")


def solve(solver: str, step: int, residual: Sequence[float], phase: str = "forward") -> Any:
    count = len(residual)
    return {
        "outer_step": step,
        "phase": phase,
        "solver": solver,
        "evaluations": count,
        "trace": {
            "evaluations": [float(k + 1) for k in range(count)],
            "seconds": [0.1 * k for k in range(count)],
            "residual": list(residual),
            "active": [1.0] * count,
        },
    }


def train(made: Trained, solver: str, seed: int, first: float, last: float, **options: Any) -> None:
    """One training whose evaluations go evenly from the second to the last record."""
    slope = (last - first) / 8
    made.training(
        options.pop("model", LANGUAGE),
        solver,
        seed=seed,
        data="pydoc",
        series={
            "train.evaluations": {s: first + slope * (k - 1) for k, s in enumerate(STEPS)},
            "train.products": dict.fromkeys(STEPS, 6.0),
            "train.radius": {s: 0.5 + 0.04 * k for k, s in enumerate(STEPS)},
            "train.converged": dict.fromkeys(STEPS, 1.0),
        },
        **options,
    )


def test_growth_is_that_of_the_series(made: Trained) -> None:
    for seed in (0, 1):
        train(made, "anderson", seed, 10.0, 20.0)
        train(made, "broyden", seed, 8.0, 8.0)
        train(made, "anderson", seed, 5.0, 5.0, config={"regularisation": {"weight": 1.0}})
        train(made, "anderson", seed, 12.0, 30.0, model={**LANGUAGE, "dropout": 0.1})
    found = page(made, "stability")
    said = sentences(found)
    assert "With anderson the evaluations of a forward solve grow over training: from 10 to 20" in (
        said
    )
    assert "The backward takes 6.0 products in the end: fewer than the forward." in said
    assert "broyden: evaluations 0.40×; products 1.0×, not apart" in said
    assert "ρ 0.54 to 0.86; 100 % converge in the end." in said
    frame = tables(found)["variants"].frame.set_index("arm")
    assert frame["late_evaluations"].to_dict() == {
        "anderson": 20.0,
        "broyden": 8.0,
        "anderson · regularised": 5.0,
        "anderson · dropout 0.1": 30.0,
    }
    drawn = figures(found)
    assert set(drawn) == {"training"}
    assert len(drawn["training"].spec["vconcat"][1]["concat"]) == 4


def test_broydens_residuals_are_drawn_by_age(made: Trained) -> None:
    solves = [
        solve("broyden", 10 * k, [4.0 * 0.5**n for n in range(k + 2)], phase)
        for k in range(4)
        for phase in ("forward", "adjoint")
    ]
    train(made, "broyden", 0, 8.0, 8.0, solves=solves)
    found = page(made, "stability")
    assert "2 at the start, 3 after a third, 4 after two thirds, 5 at the end." in sentences(found)
    spec = figures(found)["residuals"].spec
    rows = [row for row in spec["datasets"]["rows_0"] if row["label"] == "at the end"]
    assert [row["y"] for row in rows] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    schema = jsonschema.Draft7Validator(alt.load_schema())
    for name, figure in figures(found).items():
        assert schema.is_valid({k: v for k, v in figure.spec.items() if k != "datasets"}), name


def test_the_same_weights_tell_who_stops_falling(made: Trained) -> None:
    config = {"pretrain": {"steps": 30, "depth": 4}}
    swinging = [1.0] + [0.3, 0.4] * 10
    falling = [0.5**n for n in range(15)]
    for solver, residual in (("picard", swinging), ("broyden", falling)):
        solves = [solve(solver, 20, [1.0, 1.0]), solve(solver, 30, residual)]
        made.training(LANGUAGE, solver, data="pydoc", config=config, solves=solves)
    said = sentences(page(made, "stability"))
    assert "In 1 of 1 case plain iteration, which is the unrolled network gone on with, has" in said
    assert "30 steps as 4 layers: picard 0.40 of the first residual after 21 evaluations, and" in (
        said
    )
    assert "it rises at 50 % of its steps); broyden 6.1e-5 of the first residual after 15" in said


def test_a_half_done_study_has_a_page(made: Trained) -> None:
    made.training(LANGUAGE, losses=(2.0,), ended=False)
    said = sentences(page(made, "stability"))
    assert "No run here has come to its end yet: deq study stability" in said
