"""Queries read, and cannot do anything else."""

import math
from pathlib import Path

import pytest

from db import StoreError
from db.views import VIEWS

WRITING = [
    "delete from run",
    "DELETE FROM run WHERE id = 1 RETURNING id",
    "update run set status = 'x'",
    "insert into run_config values (1, 'a', 1, 'b', 'num')",
    "with n as (select 1 as id) insert into series (run_id, name) select id, 'x' from n",
    "with n as (select 1) delete from run",
    "replace into series values (1, 1, 'x')",
    "drop table run",
    "drop view v_runs",
    "create table x (a)",
    "create temp table x (a)",
    "alter table run add column x",
    "pragma query_only = off",
    "pragma user_version = 3",
    "pragma table_info(run)",
    "attach database 'other.db' as other",
    "detach database main",
    "vacuum into 'copy.db'",
    "begin",
    "commit",
    "savepoint a",
    "reindex",
    "analyze",
    "select load_extension('x')",
    "select 1; delete from run",
    "select 1; select 2",
    "explain; delete from run",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", WRITING)
def test_writing_is_refused(demo, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = Path(demo.url).read_bytes()
    with pytest.raises(StoreError, match=r"queries only read|cannot be run: near"):
        demo.query(sql)
    assert Path(demo.url).read_bytes() == before
    assert list(tmp_path.iterdir()) == []
    assert len(demo.runs()) == 20


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "select solvr from v_solves",
            r"no such column: solvr; did you mean 'solver'\? Allowed: .*",
        ),
        ("select s.evalutions from v_solves s", "did you mean 'evaluations'"),
        ("select * from v_solve", "no such table: v_solve; did you mean 'v_solves'"),
        ("selct 1", 'near "selct": syntax error'),
        ("select sin(", "cannot be run"),
        ("select ? from run", "cannot be run"),
        ("select nofunction(1)", "no such function"),
    ],
)
def test_wrong_sql_says_what_is_wrong(demo, sql, message):
    with pytest.raises(StoreError, match=message) as caught:
        demo.query(sql)
    assert "\n" not in str(caught.value)


def test_only_the_columns_of_the_view_asked_are_listed(demo):
    with pytest.raises(StoreError) as caught:
        demo.query("select x from v_runs")
    assert "result_value" in str(caught.value) and "cosine" not in str(caught.value)


def test_reading_works(demo):
    found = demo.query("with a as (select 1 as x union all select null) select x, x from a")
    assert list(found.columns) == ["x", "x_2"] and math.isnan(found["x"][1])
    assert demo.query("values (1, 'a')").shape == (1, 2)
    assert list(demo.query("select id, '%' as p, ':x' as q from run where id < 0")) == [
        "id",
        "p",
        "q",
    ]
    recursive = (
        "with recursive n(i) as (select 1 union all select i+1 from n where i<5) select * from n"
    )
    assert len(demo.query(recursive)) == 5
    config = "select json_extract(config, '$.solver.mixing') as mixing from run where id = 1"
    assert demo.query(config)["mixing"][0] == 1.0
    views = demo.query("select name from sqlite_master where type = 'view'")
    assert set(views["name"]) == set(VIEWS)
