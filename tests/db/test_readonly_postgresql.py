"""The same promise on a server: queries read, and cannot do anything else."""

from __future__ import annotations

import pytest

from db import Store, StoreError

WRITING = [
    "delete from run",
    "delete from run where id = 1 returning id",
    "update run set status = 'x'",
    "with n as (delete from run returning id) select id from n",
    "drop table run cascade",
    "drop view v_runs cascade",
    "create table x (a int)",
    "create temp table x (a int)",
    "truncate run cascade",
    "set transaction read write",
    "begin",
    "commit",
    "vacuum",
    "copy run to stdout",
    "select 1; delete from run",
    "select 1; commit; delete from run",
    "select nextval(pg_get_serial_sequence('run', 'id'))",
    "do $$ begin delete from run; end $$",
    "",
]


@pytest.fixture(scope="module")
def store(postgres_server) -> Store:
    url = postgres_server.fresh()
    return Store(url, create=True)


@pytest.mark.parametrize("sql", WRITING)
def test_writing_is_refused(store, sql):
    with pytest.raises(StoreError, match=r"queries only read|cannot be run") as caught:
        store.query(sql)
    assert "\n" not in str(caught.value)
    assert len(store.runs()) == 0


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select solvr from v_solves", r"did you mean 'solver'"),
        ("select * from v_solve", "did you mean 'v_solves'"),
        ("selct 1", "queries only read"),
        ("select nofunction(1)", "does not exist"),
    ],
)
def test_wrong_sql_says_what_is_wrong(store, sql, message):
    with pytest.raises(StoreError, match=message) as caught:
        store.query(sql)
    assert "\n" not in str(caught.value)


def test_reading_works(store):
    found = store.query("with a as (select 1 as x union all select null) select x, x from a")
    assert list(found.columns) == ["x", "x_2"]
    assert store.query("values (1, 'a')").shape == (1, 2)
    assert list(store.query("select id, '%' as p, ':x' as q from run")) == ["id", "p", "q"]


def test_what_a_function_does_is_rolled_back(store):
    """Up to version 15 a read-only transaction lets large objects be made."""
    try:
        store.query("select lo_create(0)")
    except StoreError as error:
        assert "queries only read" in str(error)
    assert store.query("select count(*) as n from pg_largeobject_metadata")["n"][0] == 0
