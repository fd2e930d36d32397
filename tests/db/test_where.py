"""Filters: what they find, what they refuse, and that nothing in them becomes SQL."""

import contextlib
import time
from datetime import UTC, datetime

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from db import RunObserver, Store, StoreError


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (None, 20),
        ("", 20),
        ("  ", 20),
        ("solver.name=picard and status=COMPLETED", 12),
        ("solver.name = 'picard' AND status = \"COMPLETED\"", 12),
        ("solver=picard and status=COMPLETED", 12),
        ("solver.mixing<1", 6),
        ("solver.mixing<=1 and solver.mixing>0.5", 14),
        ("solver.mixing=5e-1", 6),
        ("solver.mixing!=0.5", 14),
        ("seed>=1 and seed!=2 and study=demo and status=COMPLETED", 6),
        ("status=FAILED", 1),
        ("status!=COMPLETED", 2),
        ("fail_type=null", 18),
        ("fail_type!=null", 2),
        ("data=null", 20),
        ("fixed_budget=false", 20),
        ("fixed_budget=true", 0),
        ("fixed_budget=0", 20),
        ("max_evaluations<50.5", 18),
        ("reltol=null", 20),
        ("reltol<1", 0),
        ("started_at>2020-01-01", 20),
        ("started_at<'2020-01-01 12:00'", 0),
        ("uuid>=0", 20),
        ("gradient.solver.name!=gmres", 20),
        ("solver=picard or solver=newton", 20),
        ("status=FAILED or status=INTERRUPTED", 2),
        ("(status=FAILED or status=COMPLETED) and seed in (0, 1)", 12),
        ("status=FAILED or status=COMPLETED and seed in (0, 1)", 13),
        ("not status=COMPLETED", 2),
        ("not (solver=picard and status=COMPLETED)", 8),
        ("solver not in (picard, 'newton')", 0),
        ("solver.name in (newton)", 6),
        ("fail_type in (ArithmeticError, null)", 19),
        ("not fail_type=ArithmeticError", 19),  # also the runs that did not fail
        ("fail_type!=ArithmeticError", 1),
        ("solver~New*", 6),
        ("solver.name~pic?rd", 14),
        ("solver~'%'", 0),
        ("solver~p_card", 0),
        ("started>-1h", 20),
        ("started<-1h or stopped<'2020-01-01'", 0),
        ("started_at>-2w and heartbeat>-2w", 20),
        ("NOT NOT solver=newton AND study=demo", 6),
    ],
)
def test_runs(filled, where, count):
    assert len(filled.runs(where)) == count


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("phase=forward", 36),
        ("reltol<1e-5", 18),
        ("reltol<1e-5 and solver.name=newton", 6),
        ("converged<1", 12),
        ("retcode=MAX_EVALUATIONS and solver.mixing=0.5", 6),
        ("host!=null and config_hash!=null", 36),  # columns of v_runs
        ("run_id=1", 2),
    ],
)
def test_solves(filled, where, count):
    assert len(filled.solves(where)) == count


def test_gradients_and_series(filled):
    assert len(filled.gradients("gradient=unrolled and solver=newton and rel_err<1")) > 0
    assert set(filled.series("seed=1")["run_id"]) == set(filled.runs("seed=1")["id"])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Runs whose ``tol`` has every type."""
    url = tmp_path_factory.mktemp("mixed") / "store.db"
    for tol in (0.001, "1e-3", "auto", None, 5, True, [1, 2], float("nan")):
        toy.run(url, lambda _run: None, {"tol": tol, "name": 'o\'neil "x" ; drop table run'})
    toy.run(url, lambda _run: None, {"other": 1})
    return Store(url)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("tol<1", [1]),
        ("tol=0.001", [1]),
        ("tol=1e-3", [1, 2]),
        ("tol='1e-3'", [2]),
        ("tol=auto", [3]),
        ("tol='auto'", [3]),
        ("tol=null", [4]),
        ("tol!=null", [1, 2, 3, 5, 6, 7, 8]),
        ("tol>1", [5]),
        ("tol=true", [6]),
        ("tol='true'", []),
        ("tol=[1,2]", [7]),
        ("tol=nan", [8]),
        ("tol!=5", [1, 2, 3, 6, 7, 8]),
        ("tol!=auto", [1, 2, 5, 6, 7, 8]),
        ("tol>=a", [3]),
        ("name='o''neil \"x\" ; drop table run'", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("other=1", [9]),
        ("other='1' or 1=1", None),
        ("tol in (5, auto)", [3, 5]),
        ("not tol=5", [1, 2, 3, 4, 6, 7, 8, 9]),
        ("tol~AU*", [3]),
        ("tol~*", [2, 3]),
    ],
)
def test_mixed_types(mixed, where, found):
    if found is None:
        with pytest.raises(StoreError, match="cannot be read at '1=1'"):
            mixed.runs(where)
    else:
        assert list(mixed.runs(where)["id"]) == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("solvr.name=picard", r"unknown key 'solvr.name' .*did you mean 'solver.name'\? Allowed:"),
        ("statu=COMPLETED", r"unknown key 'statu' .*did you mean 'status'"),
        ("STATUS=COMPLETED", r"did you mean 'status'"),
        ("solver", "cannot be read at 'solver'"),
        ("solver=", "cannot be read"),
        ("solver==picard", "cannot be read"),
        ("solver=picard and", "cannot be read at 'and'"),
        ("and solver=picard", "cannot be read"),
        ("solver=picard solver=newton", "cannot be read at 'solver=newton'"),
        ("solver=picard or or solver=newton", "cannot be read at 'solver=newton'"),
        ("(solver=picard", "cannot be read"),
        ("solver=picard)", r"cannot be read at '\)'"),
        ("seed in ()", r"cannot be read at '\)'"),
        ("seed in 1", "cannot be read at '1'"),
        ("seed~1*", "'~' is for text, and 'seed' is integer"),
        ("started>-7x", "'started_at' is a time, and '-7x' is none: .*-7d for a week ago"),
        ("status=x" + " or status=x" * 400, "more than 4000: use SQL"),
        ("solver='picard", "cannot be read"),
        ("solver like 'p%'", "cannot be read"),
        ("seed=abc", "'seed' is a number, and 'abc' is none"),
        ("seed<nan", "'seed' is a number, and 'nan' is none"),
        ("fixed_budget=maybe", "is true or false, not 'maybe'"),
        ("started_at>yesterday", "'started_at' is a time, and 'yesterday' is none"),
        ("seed<null", "null has no order"),
        ("solver.mixing>null", "null has no order"),
    ],
)
def test_what_cannot_be_meant(filled, where, message):
    with pytest.raises(StoreError, match=message):
        filled.runs(where)


def test_json_columns_are_not_filtered(filled):
    with pytest.raises(StoreError, match="'options' holds JSON"):
        filled.solves("options=x")


ODD = {
    "my key": "x", "a.b": {"c d": 1}, "it's": 2, 'say "hi"': 3, "ключ": 4, "$set": 5, "x" * 3000: 6,
    "tag": "mine", "status": "odd", "9lives": 7, "and": 8, "a;drop table run": 9, "%s": 10,
    "line\nbreak": 11, "series.loss": 12,
}  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def odd(request, tmp_path_factory):
    """A run whose config has every kind of key, and one without them."""
    url = tmp_path_factory.mktemp("odd") / "store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").fresh()
    for config in (ODD, {"plain": 1}):  # told as Sacred would, which refuses some of the keys
        observer, now = RunObserver(url), datetime.now(UTC)
        program = {"name": "odd", "base_dir": ".", "mainfile": "odd.py", "sources": []}
        observer.started_event(program | {"dependencies": []}, "main", {}, now, config, {}, None)
        observer.completed_event(now, None)
        observer.join()
    return Store(url)


@pytest.mark.parametrize(
    "where",
    [
        '"my key"=x',
        "\"my key\"='x'",
        '"a.b.c d"=1',
        '"it\'s">1',
        '"say ""hi"""=3',
        "ключ=4",
        '"$set" in (4, 5)',
        f'"{"x" * 3000}"=6',
        "config.tag=mine",
        "config.status=odd",
        '"config.tag"=mine',
        '"9lives"=7',
        '"and"=8',
        '"a;drop table run"=9',
        '"%s"=10',
        '"line\nbreak"=11',
        "series.loss=12",
    ],
)
def test_every_key_can_be_asked_for(odd, where):
    assert list(odd.runs(where)["id"]) == [1]
    assert list(odd.runs(f"not {where}")["id"]) == [2]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("my key=x", "cannot be read at 'key=x'.*stands in double quotes"),
        ("$set=5", r"cannot be read at '\$set=5'"),
        ("9lives=7", "cannot be read at '9lives=7'"),
        ("'my key'=x", "cannot be read at"),
        ('"my kee"=x', "unknown key 'my kee' .*did you mean 'my key'"),
        ('"a;drop table runs"=9', "unknown key"),
    ],
)
def test_what_is_no_key(odd, where, message):
    with pytest.raises(StoreError, match=message):
        odd.runs(where)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("tag=baseline", 20),
        ("tag='figure 3'", 8),
        ("tag in (baseline, 'figure 3')", 28),
        ("not tag=baseline", 178),
        ("tag!=baseline", 178),
        ("tag not in (baseline, 'figure 3')", 170),
        ("tag=null", 170),
        ("tag!=null", 28),
        ("tag in (baseline, null)", 190),
        ("tag=no-such-tag", 0),
        ("tag~FIG*", 8),
        ("tag=baseline and seed=0 and model=mlp", 10),
        ("tags='figure 3'", 8),
        ("series.loss<0.4", 193),
        ("series.loss=null", 0),
        ("series.gradient_norm>0", 198),
    ],
)
def test_tags_and_metrics(grid, where, count):
    assert len(grid.runs(where)) == count


def test_tags_and_metrics_select_rows_of_other_views(grid):
    tagged = set(grid.runs("tag=baseline")["id"])
    assert set(grid.solves("tag=baseline")["run_id"]) == tagged
    assert set(grid.gradients("tag=baseline and series.loss>0")["run_id"]) <= tagged
    assert set(grid.summaries("tag=baseline")["run_id"]) == tagged
    assert set(grid.series("tag=baseline")["run_id"]) == tagged
    with pytest.raises(StoreError, match="a tag has no order"):
        grid.runs("tag<x")
    with pytest.raises(StoreError, match="no run has logged 'los': did you mean 'loss'"):
        grid.runs("series.los<1")


def test_both_sides_of_a_comparison(grid):
    frame = grid.comparisons("left=broyden and right in (anderson, newton) and model=mlp")
    assert set(frame["left_solver"]) == {"broyden"}
    assert set(frame["right_solver"]) == {"anderson", "newton"} and set(frame["model"]) == {"mlp"}
    with pytest.raises(StoreError, match=r"unknown key 'solver.window' .*is of several runs"):
        grid.comparisons("solver.window=5")
    with pytest.raises(StoreError, match=r"unknown key 'tag' .*Allowed: .*left, "):
        grid.comparisons("tag=baseline")


def test_a_long_list_is_one_condition(grid):
    numbers = ", ".join(str(n) for n in range(1, 700))
    assert len(grid.runs(f"id in ({numbers})")) == 198
    assert len(grid.runs(f"repeats not in ({numbers})")) == 0
    words = ", ".join(f"w{n}" for n in range(500))
    assert len(grid.runs(f"solver.name in ({words}, broyden)")) == len(grid.runs("solver=broyden"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("not " * 300 + "status=x", "nested more than 20 deep"),
        ("(" * 1900 + "status=x" + ")" * 1900, None),
        ("(" * 3990, "cannot be read"),
        ("(status=x or (status=y and " * 30 + "seed=1" + "))" * 30, "nested more than 20 deep"),
        (" or ".join(["seed=1"] * 350), "has 350 conditions, more than 100"),
        ("seed in (" + ",".join("1" * 1900) + ")", None),
        ("status~" + "*a" * 1900, None),
        ("started>-999999w", "'started_at' is a time, and '-999999w' is none"),
        ("started>'9999-12-31T23:59:59-23:00'", "is a time"),
        ("started>0001-01-01", None),
        ("status='a\0b'", None),
        ("status='\udcff'", None),
        ("seed=1e400", "'seed' is a number"),
        ("seed=" + "9" * 300, None),
        ("seed=" + "9" * 3000, "'seed' is a number"),
        ("seed=9223372036854775808 or seed<-9223372036854775809.5", None),
        ('"' * 3999, "cannot be read"),
        ("'" * 3999, "cannot be read"),
        ("x" * 3990 + "=1", "unknown key"),
        ("fail_message~" + "?" * 3900, None),
    ],
)
def test_what_is_meant_badly_ends_soon(grid, where, message):
    start = time.monotonic()
    if message is None:
        grid.runs(where)
    else:
        with pytest.raises(StoreError, match=message) as caught:
            grid.runs(where)
        assert len(str(caught.value)) < 6000
    assert time.monotonic() - start < 30  # neither is it exponential


@pytest.mark.parametrize(
    "where",
    [
        "status=x'; drop table run; --",
        "status='x''; drop table run; --'",
        'status="x" union select 1',
        "id=1; delete from run",
        "solver.name='a' and 1=1",
        "status=(select 1)",
        "status=%s and seed=?",
        "status=:p",
        "run_config.key=1",
        "tag=x'); drop table run; --",
        "tag in ('x''); drop table run; --')",
        "series.loss=1",
        "\"status\"='a' or 1=1",
        '"""; drop table run; --"=1',
        "status~'%%'",
        "status='$1' or status='%(x)s' or status='{x}'",
        r"status~'\\'",
    ],
)
def test_injections(filled, where):
    with contextlib.suppress(StoreError):
        assert len(filled.runs(where)) == 0
    assert len(filled.runs()) == 20


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.text(max_size=40), st.sampled_from(["", "status=", "solver.name!=", "seed<"]))
def test_any_text_is_a_filter_or_an_error(filled, text, start):
    with contextlib.suppress(StoreError):
        assert len(filled.runs(start + text)) <= 20


def test_an_empty_store_knows_no_config_keys(either):
    assert len(Store(either, create=True).runs("solver.name=picard and status=COMPLETED")) == 0
