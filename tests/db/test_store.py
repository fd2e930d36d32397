"""Opening a store: which places are accepted, which are refused and how; and what is read back."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy
from sqlalchemy import create_engine, inspect

from db import RunObserver, Store, StoreError, connect, default_url, schema

# Where


def test_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("DEQ_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_url() == "sqlite:///results/store.db"
    with pytest.raises(StoreError, match=r"no store at .*results/store.db: run `make exp"):
        Store()
    assert list(tmp_path.iterdir()) == []
    Store(create=True)
    assert (tmp_path / "results" / "store.db").is_file()


def test_the_environment_names_the_store(monkeypatch, tmp_path):
    for name in ("plain.db", f"sqlite:///{tmp_path}/url.db"):
        monkeypatch.setenv("DEQ_STORE", name)
        monkeypatch.chdir(tmp_path)
        assert default_url() == name
        Store(create=True)
    assert (tmp_path / "plain.db").is_file() and (tmp_path / "url.db").is_file()
    monkeypatch.setenv("DEQ_STORE", "")
    assert default_url() == "sqlite:///results/store.db"


def test_odd_names_are_names(tmp_path):
    for name in ("a b?c#d%20e.db", "ünï.db", "mode=ro"):
        assert len(Store(tmp_path / name, create=True).runs()) == 0
        assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me@host/lab", "unknown kind 'mysql': write sqlite:"),
        ("nonsense://", "unknown kind 'nonsense'"),
        ("://", "names no store"),
        ("sqlite://", "names no file"),
        (":memory:", "names no file"),
        ("sqlite:///x.db?mode=ro", "options after"),
        (
            "/no/such/place/store.db",
            "directory of the store /no/such/place/store.db does not exist",
        ),
        ("/", "is no file"),
        ("/proc/store.db", "cannot be opened"),
        ("postgresql://me:secret@127.0.0.1:1/lab", r"needs the package|cannot be reached"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_places_that_cannot_be(url, message, create):
    with pytest.raises(StoreError) as caught:
        Store(url, create=create)
    text = str(caught.value)
    assert re.search(message if create else f"{message}|there is no store at", text), text
    assert "\n" not in text and "secret" not in text


def test_another_kind_of_file_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look like one" * 10)
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match="is not a SQLite database"):
            Store(path, create=create)
    with pytest.raises(StoreError, match="is not a SQLite database"):
        toy.run(path, lambda _run: None, options={"--loglevel": "CRITICAL"})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_damaged_database(url):
    url.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    for create in (True, False):
        with pytest.raises(StoreError, match=r"cannot be (opened|used)"):
            Store(url, create=create)


def test_someone_elses_database_is_left_as_it_is(url):
    with sqlite3.connect(url) as other:
        other.execute("create table run (number integer)")
    other.close()
    before = url.read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match=r"no store of deq-lab .*with the tables run"):
            Store(url, create=create)
    assert url.read_bytes() == before


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_database_becomes_a_store(url, content):
    if content is None:
        sqlite3.connect(url).execute("pragma user_version=0").connection.close()
    else:
        url.write_bytes(content)
    if url.exists():
        with pytest.raises(StoreError, match="there is no store"):
            Store(url)
    assert len(Store(url, create=True).runs()) == 0


@pytest.mark.parametrize(
    ("version", "remedy"), [(0, "the deq-lab that made it"), (99, "a newer deq-lab")]
)
def test_another_schema_version_is_refused(url, version, remedy):
    Store(url, create=True)
    with sqlite3.connect(url) as database:
        database.execute(f"update schema_version set version = {version}")
    database.close()
    for attempt in (Store, connect, lambda url: toy.run(url, lambda _run: None)):
        with pytest.raises(StoreError, match=f"has schema version {version} .*use {remedy}"):
            attempt(url)


READ_ONLY = """
import os, sys, warnings
warnings.simplefilter("ignore")
from db import Store, StoreError, connect
Store(sys.argv[1]).runs()  # all that is imported late, before it may be out of reach
os.chmod(os.path.dirname(sys.argv[1]), 0o555)
if os.geteuid() == 0:  # whom no permission stops
    os.setgroups([])
    os.setuid(65534)
print(len(Store(sys.argv[1]).runs()))
for place in sys.argv[1:]:
    try:
        connect(place)
    except StoreError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX's")
def test_what_may_only_be_read_is_read():
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        url = directory / "store.db"
        toy.run(url, lambda _run: None)
        url.chmod(0o444)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(url), str(directory / "new.db")],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        directory.chmod(0o755)
        lines = done.stdout.splitlines()
        assert lines[:1] == ["1"], done.stderr
        assert len(lines) == 3 and all("cannot be" in line for line in lines[1:]), lines
        assert [p.name for p in directory.iterdir()] == ["store.db"]


# The schema


def test_the_database_keeps_its_promises(url):
    engine = connect(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 1
        assert connection.exec_driver_sql("pragma busy_timeout").scalar() == 30_000
    engine.dispose()


def test_constraints_have_names_and_foreign_keys_indices(url):
    engine = connect(url)
    inspector = inspect(engine)
    warnings.filterwarnings("ignore", message="Skipped unsupported reflection of expression-based")
    for table in inspector.get_table_names():
        indexed = {index["column_names"][0] for index in inspector.get_indexes(table)}
        indexed |= {rule["column_names"][0] for rule in inspector.get_unique_constraints(table)}
        indexed |= {*inspector.get_pk_constraint(table)["constrained_columns"][:1]}
        for key in inspector.get_foreign_keys(table):
            assert key["name"].startswith("fk_")
            assert key["constrained_columns"][0] in indexed, (table, key)
        for rule in inspector.get_check_constraints(table):
            assert rule["name"].startswith(f"ck_{table}_")
    engine.dispose()
    plain = create_engine(f"sqlite:///{url}")
    with plain.connect() as connection:
        rows = connection.exec_driver_sql("select name, sql from sqlite_master where type='table'")
        without = {name for name, sql in rows if "WITHOUT ROWID" in sql}
    plain.dispose()
    assert without == {"point", "run_config"}


def test_a_deleted_run_takes_its_rows_along(demo, url):
    url.write_bytes(Path(demo.url).read_bytes())
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(schema.Run.__table__.delete())
    engine.dispose()
    for table in schema.Base.metadata.tables:
        left = Store(url).query(f"select count(*) as n from {table}")["n"][0]
        assert left == (1 if table in ("schema_version", "environment") else 0), table


# Reading


def test_reading_leaves_the_file_alone(demo):
    path = Path(demo.url)
    before = path.read_bytes()
    demo.runs(), demo.solves(), demo.query("select 1 as one")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["store.db"]


def test_types_of_frames(demo):
    solves = demo.solves()
    assert solves["evaluations"].dtype == np.int64 and solves["reltol"].dtype == np.float64
    assert solves["jvps"].dtype == "Int64" and solves["jvps"].isna().all()
    assert solves["fixed_budget"].dtype == bool
    assert solves["device"][0] is None and solves["options"][0] == {"name": "picard", "mixing": 1.0}
    runs = demo.runs()
    assert isinstance(runs["started_at"].dtype, pd.DatetimeTZDtype)
    assert list(runs["id"]) == sorted(runs["id"]) and runs["id"].dtype == np.int64


@pytest.mark.parametrize("method", ["runs", "solves", "gradients", "series"])
def test_an_empty_store_has_the_same_columns(demo, either, method):
    empty = getattr(Store(either, create=True), method)()
    full = getattr(demo, method)()
    assert len(empty) == 0 and len(full) > 0
    assert list(empty.columns) == list(full.columns)
    assert empty["run_id" if method != "runs" else "id"].dtype == np.int64


def test_a_run_by_number_or_uuid(demo):
    for row in demo.runs().head(3).itertuples():
        assert demo.run(row.id)["uuid"] == row.uuid == demo.run(str(row.id))["uuid"]
        assert demo.run(row.uuid[:13])["id"] == row.id == demo.run(row.uuid.upper())["id"]
    # More digits than a uuid begins with: 999 may be the beginning of one, by chance.
    for name in (10**9, "xyz", "-1", "9" * 30, "'; drop table run; --"):
        with pytest.raises(StoreError, match="there is no run"):
            demo.run(name)


def test_the_start_of_two_uuids(either):
    for end in "ab":
        toy.run(
            either, lambda _run: None, options={"--id": f"f0000000-0000-4000-8000-00000000000{end}"}
        )
    store = Store(either)
    with pytest.raises(StoreError, match="'f00' is the start of 2 runs' uuids"):
        store.run("f00")
    assert store.run("f0000000-0000-4000-8000-00000000000b")["id"] == 2


def test_a_run_has_everything(demo):
    run = demo.run(1)
    assert run["counts"] == {"solves": 2, "gradients": 2, "series": 1, "points": 3}
    assert run["environment"]["python"] and run["environment"]["packages"]["sacred"] == "0.8.7"
    assert run["config"] == demo.config(1) and run["study"] == "demo"
    assert isinstance(run["started_at"], datetime) and run["started_at"].tzinfo is not None
    assert run["code"]["sources"] and run["meta"]["command"] == "main"


def test_traces_of_many_solves(demo):
    solves = demo.solves()
    traces = demo.traces(solves["solve_id"])
    assert list(traces.columns) == ["solve_id", "evaluations", "seconds", "residual", "active"]
    lengths = traces.groupby("solve_id").size()
    assert list(lengths) == list(solves.set_index("solve_id")["evaluations"])
    last = traces.groupby("solve_id")["residual"].last()
    np.testing.assert_array_equal(last, solves.set_index("solve_id")["residual_last"])
    assert len(demo.traces([])) == 0


def test_trials_are_the_newest_attempts(either):
    def fails(_run):
        raise ArithmeticError

    def works(_run):
        pass

    for study, trial, main in [
        ("a", "x", fails), ("a", "y", works), ("a", "x", works), ("a", "y", fails),
        ("b", "x", works), ("a", None, works),
    ]:  # fmt: skip
        with contextlib.suppress(ArithmeticError):
            toy.run(either, main, options={"--loglevel": "CRITICAL"}, study=study, trial=trial)
    store = Store(either)
    found = store.trials("a").set_index("trial")
    assert dict(found["status"]) == {"x": "COMPLETED", "y": "FAILED"}
    assert dict(found["run_id"]) == {"x": 3, "y": 4}
    assert len(store.trials("b", "compare")) == 1
    assert len(store.trials("b", "other")) == 0 and len(store.trials("c")) == 0


def test_a_run_in_progress_is_seen(either):
    seen = []
    observer = RunObserver(either)

    def main(_run):
        observer.solve({"evaluations": 3})
        store = Store(either)
        seen.append((store.runs()["status"][0], store.solves()["evaluations"][0]))

    toy.make(observer, main).run(options={"--capture": "no", "--loglevel": "ERROR"})
    assert seen == [("RUNNING", 3)]
