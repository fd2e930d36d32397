"""The views beyond the rows of one table: what they join, and that they do it right."""

import numpy as np
import pandas as pd
import pytest
import toy
from sqlalchemy import insert

from db import RunObserver, Store, connect, schema
from db.comparisons import PAIRED
from db.views import VIEWS


def test_a_series_is_what_its_points_come_to(grid):
    series = grid.summaries()
    points = grid.series()
    assert len(series) == 2 * 198 and (series["n"].sum(), len(points)) == (30 * 198, 30 * 198)
    for row in series[series["run_id"].isin([1, 7, 47])].itertuples():
        own = points[(points["run_id"] == row.run_id) & (points["name"] == row.name)]
        finite = own[np.isfinite(own["value"])]
        assert row.n == len(own) and row.nonfinite == len(own) - len(finite)
        assert row.last_value == finite["value"].iloc[-1]
        assert row.last_step == finite["step"].iloc[-1]
        assert row.least == finite["value"].min() and row.largest == finite["value"].max()
        assert row.least_step == finite["step"][finite["value"].idxmin()]


def test_what_the_writer_says_of_a_series_is_true(either):
    def main(_run):
        for step, value in enumerate([3.0, 1.0, float("nan"), 2.0, 1.0, float("inf"), "odd"]):
            _run.log_scalar("loss", value, step)

    toy.run(either, main)
    (row,) = Store(either).summaries().to_dict("records")
    wanted = {
        "n": 7, "nonfinite": 3, "last_step": 4.0, "last_value": 1.0, "least": 1.0,
        "least_step": 1.0, "largest": 3.0,
    }  # fmt: skip
    assert {key: row[key] for key in wanted} == wanted


def test_points_are_rows_in_sql(grid):
    found = grid.query("select * from v_points where run_id = 7 and name = 'loss' order by ord")
    frame = grid.series("id=7", "loss")
    assert len(found) == 20 and found["flag"].tolist() == [0] * 18 + [1] * 2
    assert found["value"].isna().tolist() == frame["value"].isna().tolist()
    np.testing.assert_array_equal(found["value"][:18].astype(float), frame["value"][:18])
    assert (pd.to_datetime(found["time"], utc=True) == frame["time"]).all()


@pytest.mark.parametrize("phase", ["forward", "adjoint"])
def test_comparisons_are_the_pairs_of_a_join(grid, phase):
    solves = grid.solves(f"phase={phase}")
    keys = [name for name in PAIRED if name in solves.columns]
    each = solves.groupby([*keys, "solver"], dropna=False, as_index=False).agg(
        solves=("solve_id", "count"), evaluations=("evaluations", "mean"),
        sample_evaluations=("sample_evaluations", "mean"), seconds=("seconds", "mean"),
        converged=("converged", "min"), residual=("residual_last", "max"),
    )  # fmt: skip
    pairs = each.merge(each, on=keys, suffixes=("_a", "_b"))
    pairs = pairs[pairs["solver_a"] != pairs["solver_b"]]
    found = grid.comparisons(f"phase={phase}")
    assert len(found) == len(pairs) and (phase == "adjoint" or len(found) == 60 * 20)
    by = [*keys, "left_solver", "right_solver"]
    wanted = pairs.rename(
        columns=lambda c: (
            f"left_{c[:-2]}" if c.endswith("_a") else f"right_{c[:-2]}" if c.endswith("_b") else c
        )
    )
    pd.testing.assert_frame_equal(
        found[wanted.columns].sort_values(by).reset_index(drop=True),
        wanted.sort_values(by).reset_index(drop=True),
        check_dtype=False, rtol=1e-12,
    )  # fmt: skip
    ratio = found["left_evaluations"] / found["right_evaluations"]
    np.testing.assert_allclose(found["evaluations_ratio"], ratio, rtol=1e-12)
    ratio = found["left_seconds"] / found["right_seconds"]
    np.testing.assert_allclose(found["seconds_ratio"], ratio, rtol=1e-12)


def test_comparisons_are_what_compare_puts_into_a_row(grid):
    pairs = grid.comparisons("left=anderson and right=broyden and phase=forward")
    row = grid.compare("evaluations", "anderson", "broyden", where="phase=forward").iloc[0]
    assert row["pairs"] == len(pairs) == 60
    assert row["left"] == pytest.approx(pairs["left_evaluations"].mean())
    assert row["right"] == pytest.approx(pairs["right_evaluations"].mean())
    assert row["less"] == (pairs["left_evaluations"] < pairs["right_evaluations"]).sum()
    assert row["ratio"] == pytest.approx(np.exp(np.log(pairs["evaluations_ratio"]).mean()))


def test_what_is_null_on_both_sides_is_equal(either):
    for solvers in (["a", "b"], ["c"]):
        observer = RunObserver(either)

        def main(_run, observer=observer, solvers=solvers):
            for name in solvers:
                for evaluations in (2, 4):
                    observer.solve({"solver": name, "evaluations": evaluations, "phase": "forward"})
            observer.solve({"evaluations": 1})

        toy.make(observer, main, {"seed": 1}).run(options={"--loglevel": "ERROR"})
    frame = Store(either).comparisons()
    assert frame[["left_solver", "right_solver"]].to_numpy().tolist() == [
        ["a", "b"], ["a", "c"], ["b", "a"], ["b", "c"], ["c", "a"], ["c", "b"],
    ]  # fmt: skip
    assert frame["study"].isna().all() and frame["reltol"].isna().all()
    assert (frame["left_evaluations"] == 3).all() and (frame["left_solves"] == 2).all()
    assert frame["seconds_ratio"].isna().all() and (frame["evaluations_ratio"] == 1).all()


def test_many_solves_of_nothing_in_particular_are_few_pairs(either):
    engine = connect(either)
    toy.run(either, lambda _run: None)
    with engine.begin() as connection:
        rows = [
            {"run_id": 1, "ord": n, "solver": ("a", "b", "c")[n % 3], "evaluations": n}
            for n in range(6000)
        ]
        connection.execute(insert(schema.Solve.__table__), rows)
    engine.dispose()
    frame = Store(either).comparisons()
    assert len(frame) == 6 and (frame["left_solves"] == 2000).all()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_documented_columns_and_types(grid, view):
    assert list(grid.query(f"select * from {view} limit 1").columns) == list(VIEWS[view].columns)


@pytest.mark.parametrize("view", VIEWS)
def test_one_text_serves_both_databases(view):
    sql = VIEWS[view].statement("postgresql")
    assert sql == VIEWS[view].sql
    assert VIEWS[view].statement("sqlite").count("\n") == sql.count("\n")
