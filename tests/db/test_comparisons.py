"""Differences, ranks, replicates and paired comparisons, against the same by hand."""

import contextlib
import math

import numpy as np
import pandas as pd
import pytest
import toy
from scipy import stats

from db import Store, StoreError


def test_a_difference_has_the_keys_that_differ_and_no_others(filled):
    runs = filled.runs("status=COMPLETED")
    picard = runs[runs["solver"] == "picard"].iloc[0]
    newton = runs[runs["solver"] == "newton"].iloc[0]
    frame = filled.diff(int(picard["id"]), newton["uuid"][:12])
    assert list(frame.columns) == [picard["id"], newton["id"]]
    assert frame.loc["solver.name"].tolist() == ["picard", "newton"]
    same = {"reltol", "batch", "environment.python", "model.name"}
    assert not same & set(frame.index)
    assert filled.diff(1, 1).empty


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def odd(request, tmp_path_factory):
    """Runs whose configs have other keys and types."""
    url = tmp_path_factory.mktemp("odd") / "store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").fresh()
    configs = [
        {"tol": 1, "nested": {"a": [1, 2]}, "seed": 0},
        {"tol": 1.0, "nested": {"a": [1, 3]}, "seed": 0},
        {"tol": float("nan"), "seed": 0, "only": None},
        {"tol": float("nan"), "seed": 0, "only": "x"},
    ]
    for number, config in enumerate(configs):

        def main(_run, number=number):
            for step in range(3):
                _run.log_scalar("loss", 10.0 * number + step, step)
            _run.log_scalar("loss", float("nan"), 3)
            return {"cost": [4.0, 2.0, float("nan"), 3][number], "name": "x"}

        toy.run(url, main, config, environment={"torch": f"2.{number}"})
    with contextlib.suppress(ArithmeticError):
        toy.run(url, lambda _run: 1 / 0, options={"--loglevel": "CRITICAL"})
    return Store(url)


def test_types_and_missing_keys(odd):
    frame = odd.diff(1, 2, 3, 4)
    assert frame.loc["nested.a"].tolist() == [[1, 2], [1, 3], None, None]
    assert frame.loc["only"].tolist() == [None, None, None, "x"]
    assert frame.loc["environment.torch"].tolist() == ["2.0", "2.1", "2.2", "2.3"]
    assert "tol" not in odd.diff(3, 4).index  # nan in both
    with pytest.raises(StoreError, match="at least two runs"):
        odd.diff(1)
    with pytest.raises(StoreError, match="there is no run 99"):
        odd.diff(1, 99)


def test_the_best_runs(odd, filled):
    assert odd.best("result.cost")["id"].tolist() == [2, 4, 1]
    assert odd.best("result.cost", k=1, largest=True)["id"].tolist() == [1]
    assert odd.best("series.loss")["id"].tolist() == [1, 2, 3, 4]
    assert odd.best("series.loss")["series.loss"].tolist() == [2.0, 12.0, 22.0, 32.0]
    frame = filled.best("seed", "status=COMPLETED", k=6, largest=True)
    assert frame.columns[0] == "seed" and (frame["seed"] == 2).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("result.name", "no run here has a number 'result.name'"),
        ("series.los", "no run has logged 'los': did you mean 'loss'"),
        ("series.", "v_runs has no column 'series.'"),
        ("secnds", "v_runs has no column 'secnds': did you mean 'seconds'"),
        ("status", "'status' of v_runs is no number"),
    ],
)
def test_a_value_that_is_none(odd, value, message):
    with pytest.raises(StoreError, match=message):
        odd.best(value)
    with pytest.raises(StoreError, match="k = 0: expected"):
        odd.best("seconds", k=0)


def test_replicates_are_means_over_seeds(filled):
    frame = filled.replicates("evaluations", "phase=forward")
    assert len(frame) == 2 * 2 * 2  # solvers, gradients, tolerances; mixing is no column
    row = frame[(frame["solver"] == "newton") & (frame["reltol"] == 1e-6)].iloc[0]
    solves = filled.solves(f"solver=newton and reltol=1e-6 and gradient={row['gradient']}")
    counts = solves["evaluations"].to_numpy(dtype=float)
    assert row["n"] == 3 and row["mean"] == pytest.approx(counts.mean())
    half = stats.t.ppf(0.975, 2) * counts.std(ddof=1) / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((counts.mean() - half, counts.mean() + half))
    runs = filled.replicates("seconds", "status=COMPLETED", of="runs")
    assert (runs["n"] == 3).all() and len(runs) == 6
    one = filled.replicates("evaluations", "seed=0 and phase=forward")
    assert one["low"].isna().all() and (one["n"] == 1).all()
    assert filled.replicates("evaluations", "seed=99").empty
    with pytest.raises(StoreError, match="has no column 'solvr'"):
        filled.replicates("evaluations", by=["solvr"])
    with pytest.raises(StoreError, match="of = 'solve': did you mean 'solves'"):
        filled.replicates("evaluations", of="solve")


def test_a_paired_comparison(filled):
    where = "gradient=implicit and (solver=newton or solver.mixing=1)"
    frame = filled.compare("evaluations", "newton", "picard", where=where)
    assert list(frame["model"]) == ["all"]
    row = frame.iloc[0]
    assert row["pairs"] == 6 and row["missing"] == 0 and row["less"] == 6 and row["effect"] == -1

    def counts(solver: str) -> "pd.Series[float]":
        solves = filled.solves(f"{where} and solver={solver}")
        return solves.set_index(["seed", "reltol"])["evaluations"].astype(float).sort_index()

    a, b = counts("newton"), counts("picard")
    logs = np.log(a / b)
    half = stats.t.ppf(0.975, 5) * logs.std(ddof=1) / math.sqrt(6)
    assert row["ratio"] == pytest.approx(math.exp(logs.mean()))
    assert row["ratio_high"] == pytest.approx(math.exp(logs.mean() + half))
    assert row["p"] == pytest.approx(stats.wilcoxon(a - b).pvalue)
    turned = filled.compare("evaluations", "picard", "newton", where=where).iloc[0]
    assert turned["ratio"] == pytest.approx(1 / row["ratio"]) and turned["effect"] == 1
    same = filled.compare("evaluations", "implicit", "unrolled", key="gradient").iloc[0]
    assert same["effect"] == 0 and same["p"] == 1 and same["ratio"] == 1
    with pytest.raises(StoreError, match="no row has solver=nwton: did you mean 'newton'"):
        filled.compare("evaluations", "nwton", "picard")
    with pytest.raises(StoreError, match="'message' of v_solves is no number"):
        filled.compare("message", "newton", "picard")


def test_a_difference_names_files_by_their_digests(grid):
    frame = grid.diff(1, 7, 25)
    assert frame.loc["code.sources.compare.py"].map(len).tolist() == [12, 12, 12]
    assert frame.loc["code.dirty"].tolist() == [0, 1, 0]
    assert frame.loc["environment.torch"].tolist() == ["2.12.0", "2.12.0", "2.13.0"]
    assert frame.loc["environment.packages.torch"].tolist() == ["2.12.0", "2.12.0", "2.13.0"]
    assert frame.loc["environment.host"].tolist() == ["lab-1", "lab-1", "lab-2"]
    assert not {"code.id", "environment.id", "run.experiment"} & set(frame.index)
    patch = grid.patch(1, 7)
    assert patch.startswith("--- run 1/compare.py\n+++ run 7/compare.py\n")
    assert "-RATE = 1\n+RATE = 3\n" in patch and "solvers" not in patch
    assert grid.patch(1, 1) == ""


def test_a_config_may_use_our_words(url):
    for number in (1, 2):
        config = {"code": {"rate": number}, "environment": number, "run": 3}
        toy.run(url, lambda _run: None, config)
    frame = Store(url).diff(1, 2)
    assert frame.loc["config.code.rate"].tolist() == [1, 2]
    assert frame.loc["config.environment"].tolist() == [1, 2]
    assert "config.run" not in frame.index


def test_replicates_and_pairs_of_metrics(grid):
    frame = grid.replicates("last_value", "study=compare", of="series")
    assert set(frame["name"]) == {"loss", "gradient_norm"}
    row = frame[(frame["name"] == "loss") & (frame["solver"] == "newton")].iloc[0]
    where = f"name=loss and solver=newton and model={row['model']} and gradient={row['gradient']}"
    assert row["mean"] == pytest.approx(
        grid.summaries(where).groupby("seed")["last_value"].mean().mean()
    )
    pairs = grid.compare("last_value", "newton", "picard", of="series", where="seed<3")
    assert pairs["pairs"][0] == 2 * 3 * 2  # models, seeds, names: a metric is paired with itself
