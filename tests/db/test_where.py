"""Filters: what they find, what they refuse, and that nothing in them becomes SQL."""

import contextlib

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from db import Store, StoreError


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
