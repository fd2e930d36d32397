"""The page of ``budget`` says what the trainings say. No number here was measured."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jsonschema
import pandas as pd
import pytest
from reading import figures, page, sentences, tables
from trained import Trained

from experiments.report import charts
from experiments.report.pages.budget.rows import ALL, HALF, ONE, levels, passage, up

MLP = {"name": "mlp"}
IMPLICIT, JACOBIAN_FREE = {"name": "implicit"}, {"name": "jacobian_free"}
LOW, HIGH = (2.0, 1.0, 0.5), (2.0, 1.5, 1.0)


@pytest.fixture
def made(tmp_path: Path) -> Trained:
    return Trained(tmp_path / "store.db", study="budget")


def seeds(
    made: Trained,
    gradient: Mapping[str, Any],
    losses: Sequence[float],
    work: Sequence[float] = (20.0, 21.0, 22.0),
    **options: Any,
) -> None:
    for seed, spent in enumerate(work):
        made.training(MLP, "anderson", gradient, seed, losses=losses, work=spent, **options)


def budget(made: Trained) -> Any:
    return page(made, "budget")


def test_the_least_is_found_with_its_interval(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW)
    seeds(made, JACOBIAN_FREE, LOW, work=(10.0, 10.5, 11.0), peak=5e4)
    said = sentences(budget(made))
    assert "To a test loss of 0.5, which all reach, the least is: jacobian_free for eval" in said
    # 100 steps of 10, 10.5 and 11; twice the work at every seed has no width.
    assert "Least evaluations: jacobian_free, 1,050 (932 to 1,180); the other: implicit (2.0×)" in (
        said
    )
    assert "Least peak memory: jacobian_free, 50.0 kB; the other: implicit (2.0×)." in said


def test_overlapping_intervals_have_no_winner(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW, work=(20.0, 30.0, 22.0))
    seeds(made, JACOBIAN_FREE, LOW, work=(22.0, 20.0, 24.0))
    found = budget(made)
    said = sentences(found)
    assert "jacobian_free or implicit for evaluations" in said
    assert "not apart from it: implicit (1.1×, 0.53 to 2.2): their intervals overlap, so" in said
    frame = tables(found)["levels"].frame.set_index("arm")
    assert frame.loc["implicit", "work_ratio"] == "1.1×, 0.53 to 2.2: not apart"
    assert frame.loc["jacobian_free", "work_ratio"] == "the least"


def test_one_seed_decides_nothing(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW, work=(20.0,))
    seeds(made, JACOBIAN_FREE, LOW, work=(10.0,))
    assert "not apart from it: implicit (2.0×): one seed gives no interval" in (
        sentences(budget(made))
    )


def test_a_loss_that_is_not_reached_has_no_cost(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW)
    seeds(made, JACOBIAN_FREE, HIGH, work=(10.0, 10.0, 10.0))
    found = budget(made)
    said = sentences(found)
    assert "Loss 0.5, which" not in said  # it is no paragraph but a heading
    assert "Not reached by jacobian_free." in said
    frame = tables(found)["levels"].frame
    assert set(frame.loc[frame["loss"].str.startswith("0.5"), "arm"]) == {"implicit"}
    # implicit is at 1 after 50 steps of 21 evaluations in the mean, jacobian_free after 100 of 10.
    assert frame.loc[frame["loss"].str.startswith("1,"), "work"].tolist()[1] == "1,000"
    drawn = figures(found)["costs"].spec["datasets"]["forest_0"]
    missing = [r for r in drawn if r["name"] == "jacobian_free" and r["label"] != ALL]
    assert missing and all(row["x"] is None for row in missing)


def test_variants_of_a_gradient_are_told_apart(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW, work=(20.0,))
    seeds(made, {"name": "implicit", "precondition": "forward"}, LOW, work=(20.0,))
    seeds(made, IMPLICIT, LOW, work=(20.0,), config={"reltol": "auto"})
    seeds(made, {"name": "neumann", "terms": 3}, LOW, work=(20.0,))
    seeds(made, {"name": "neumann", "terms": 9}, LOW, work=(20.0,))
    assert tables(budget(made))["results"].frame["arm"].tolist() == [
        "implicit",
        "implicit · preconditioned",
        "implicit · reltol auto",
        "neumann (terms=3)",
        "neumann (terms=9)",
    ]


def test_memory_is_set_against_loss(made: Trained) -> None:
    seeds(made, IMPLICIT, LOW, peak=2e5)
    seeds(made, JACOBIAN_FREE, HIGH, peak=1e5)
    said = sentences(budget(made))
    assert "The least peak is that of jacobian_free, 100 kB, at a loss of 1.00; the least" in said
    assert "loss is that of implicit, 0.50× of it (0.50×), for 2.0× of the bytes." in said


def test_the_budget_at_test_time(made: Trained) -> None:
    for gradient, few in ((IMPLICIT, 0.5), (JACOBIAN_FREE, 0.8)):
        seeds(
            made, gradient, LOW, series={"budget.accuracy": {1: few, 8: 0.9, 32: 0.95 - few / 10}}
        )
    found = budget(made)
    said = sentences(found)
    assert "1 evaluation: the best is jacobian_free, 80.0 %; the worst implicit, 50.0 %." in said
    assert "32 evaluations: the best is implicit, 90.0 %; the worst jacobian_free, 87.0 %." in said
    assert len(figures(found)["budgets"].spec["datasets"]["rows_0"]) == 6


def test_a_half_done_study_has_a_page(made: Trained) -> None:
    made.training(MLP, "anderson", IMPLICIT, 0, losses=(2.0,), ended=False)
    assert "No run here has come to its end yet: deq study budget" in sentences(budget(made))
    made.training(MLP, "anderson", IMPLICIT, 1, losses=(2.0, math.nan), error=ValueError("no"))
    made.training(MLP, "anderson", JACOBIAN_FREE, 1, losses=(2.0, 1.0))
    found = budget(made)
    assert "ValueError: no" in tables(found)["failures"].frame["why"].tolist()
    assert "the least is: jacobian_free" in sentences(found)
    assert "and it is alone" in sentences(found)


def test_passages_lie_between_two_evaluations() -> None:
    curve = pd.DataFrame(
        {"loss": [2.0, 1.0, 1.5], "work": [0, 10, 20], "seconds": [0, 1.0, 2], "peak": [8, 8, 8]}
    )
    assert passage(curve, 1.25) == {"work": 7.5, "seconds": 0.75, "peak": 8.0}
    assert passage(curve, 3.0)["work"] == 0
    assert math.isnan(passage(curve, 0.9)["peak"])


def test_levels_are_reached_at_every_seed() -> None:
    rows = [
        {"arm": arm, "seed": seed, "run_id": 10 * position + seed, "loss": loss}
        for position, (arm, least) in enumerate((("a", 0.5), ("b", 0.71234), ("c", 1.0)))
        for seed in (0, 1)
        for loss in (2.0, least + 0.01 * seed)
    ]
    assert levels(pd.DataFrame(rows)) == {ALL: 1.01, HALF: 0.723, ONE: 0.51}
    flat = pd.DataFrame(rows).assign(loss=2.0)
    assert levels(flat) == {}
    assert levels(flat.iloc[:0]) == {}
    assert [up(v) for v in (0.12301, 0.123, 1234.5, 0)] == [0.124, 0.123, 1240.0, 0.0]


def test_its_figures_are_valid(made: Trained) -> None:
    for gradient in (IMPLICIT, {"name": "</script><b>x"}):
        seeds(made, gradient, LOW, work=(20.0, 21.0), series={"budget.accuracy": {1: 0.5, 8: 0.9}})
    made.training({"name": "transformer"}, "anderson", IMPLICIT, 0, data="pydoc")
    found = budget(made)
    schema = jsonschema.Draft7Validator(alt.load_schema())
    drawn = figures(found)
    assert set(drawn) == {"trajectories", "costs", "memory", "budgets", "spent"}
    for name, figure in drawn.items():
        spec = {key: value for key, value in figure.spec.items() if key != "datasets"}
        assert schema.is_valid(spec), name
    # There is one loss alone, hence no legend whose click a mark could listen to.
    assert charts.svg(drawn["costs"].spec, "costs").count("<path") > 10
    said = sentences(found)
    assert "</script><b>x" in said  # escaped in the page, and here as a reader sees it
    assert not re.search(r"\bnan\b|<NA>", said)
