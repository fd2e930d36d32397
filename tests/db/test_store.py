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
from sqlalchemy import Engine, create_engine, event, inspect

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
    ("version", "remedy"), [(0, "run `deq db upgrade --store"), (99, "use a newer deq-lab")]
)
def test_another_schema_version_is_refused(url, version, remedy):
    Store(url, create=True)
    with sqlite3.connect(url) as database:
        database.execute(f"update schema_version set version = {version}")
    database.close()
    for attempt in (Store, connect, lambda url: toy.run(url, lambda _run: None)):
        with pytest.raises(StoreError, match=f"has schema version {version} .*{remedy}"):
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
    assert without == {"point", "run_config", "tag"}


def test_a_deleted_run_takes_its_rows_along(demo, url):
    url.write_bytes(Path(demo.url).read_bytes())
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(schema.Run.__table__.delete())
    engine.dispose()
    for table in schema.Base.metadata.tables:
        left = Store(url).query(f"select count(*) as n from {table}")["n"][0]
        shared = ("schema_version", "environment", "code", "blob")
        assert (left > 0) == (table in shared), table


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


@pytest.mark.parametrize(
    "method", ["runs", "solves", "gradients", "series", "summaries", "comparisons"]
)
def test_an_empty_store_has_the_same_columns(demo, either, method):
    empty = getattr(Store(either, create=True), method)()
    full = getattr(demo, method)()
    assert len(empty) == 0 and len(full) > 0
    assert list(empty.columns) == list(full.columns)
    number = {"runs": "id", "comparisons": "left_solves"}.get(method, "run_id")
    assert empty[number].dtype == np.int64


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
    counts = {"solves": 2, "gradients": 2, "series": 1, "points": 3, "rejected": 0}
    assert run["counts"] == counts and run["tags"] == [] and run["artifacts"] == []
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
        assert observer.flush(10)
        store = Store(either)
        seen.append((store.runs()["status"][0], store.solves()["evaluations"][0]))

    toy.make(observer, main).run(options={"--capture": "no", "--loglevel": "ERROR"})
    assert seen == [("RUNNING", 3)]


def test_columns_for_config_keys_and_metrics(grid):
    frame = grid.runs(
        "seed=7 and tag!=baseline", config=["solver.window", "gradient.solver.name", "repeats"],
        metrics=["loss"],
    )  # fmt: skip
    assert list(frame.columns[-4:]) == [
        "solver.window", "gradient.solver.name", "repeats", "loss",
    ]  # fmt: skip
    assert frame["solver.window"].dtype == "Int64" and frame["repeats"].dtype == np.int64
    for row in frame.to_dict("records"):
        config = grid.config(row["id"])
        window = config["solver"]["window"]
        assert row["solver.window"] == window or (window is None and pd.isna(row["solver.window"]))
        assert row["gradient.solver.name"] == config["gradient"].get("solver", {}).get("name")
        points = grid.series(f"id={row['id']}", "loss")["value"]
        assert row["loss"] == points.dropna().iloc[-1]
    taken = grid.runs("id=1", config=["reltol"], metrics="loss")
    assert taken["config.reltol"][0] == [1e-2, 1e-4, 1e-6] and pd.isna(taken["reltol"][0])
    for given, message in [
        ({"config": ["solver.windw"]}, "no run has the config key .*did you mean 'solver.window'"),
        ({"metrics": ["los"]}, "no run has logged 'los': did you mean 'loss'"),
    ]:
        with pytest.raises(StoreError, match=message):
            grid.runs(**given)


def test_values_of_config_keys_have_their_types(url):
    values = [1, 2.5, "1", None, True, [1, {"a": float("inf")}], float("nan"), 2**70]
    for value in values:
        toy.run(url, lambda _run: None, {"x": value, "whole": 3, "flag": False})
    frame = Store(url).runs(config=["x", "whole", "flag"])
    assert [repr(v) for v in frame["x"]] == [repr(v) for v in values]
    assert frame["whole"].dtype == np.int64 and frame["flag"].dtype == bool


def test_runs_put_away_are_found_only_when_asked_for(grid):
    there, away = grid.runs(), grid.runs(deleted=True)
    assert set(away["id"]) == {98, 198} and len(there) == 198 and not {98, 198} & set(there["id"])
    assert list(away.columns) == list(there.columns) and list(away.dtypes) == list(there.dtypes)
    assert list(grid.runs("model=mlp and tag=null", deleted=True)["id"]) == [
        n for n in (98, 198) if grid.config(n)["model"]["name"] == "mlp"
    ]
    assert grid.run(98)["deleted_at"] is not None
    everywhere = [grid.solves(), grid.gradients(), grid.series(), grid.summaries()]
    everywhere += [grid.query("select run_id from v_points")]
    for frame in everywhere:
        assert len(frame) and not {98, 198} & set(frame["run_id"])
    trial = grid.run(98)["trial"]
    assert trial not in set(grid.trials("compare")["trial"])


def test_tags_and_what_was_refused(grid):
    assert grid.tags().to_dict("records") == [
        {"tag": "baseline", "runs": 20}, {"tag": "figure 3", "runs": 8},
    ]  # fmt: skip
    one = grid.tags("id=125")
    assert one["tag"].tolist() == ["figure 3"] and one["runs"].tolist() == [1]
    frame = grid.rejected()
    assert frame["run_id"].tolist() == [5] and "ck_solve_evaluations" in frame["error"][0]
    assert len(grid.rejected("id=5")) == 1 and len(grid.rejected("id=6")) == 0
    assert grid.run(5)["counts"]["rejected"] == 1


def test_files_of_a_run(grid):
    kept = grid.artifacts(12)
    assert kept["name"].tolist() == ["weights.txt", "digits.npz"]
    assert kept["stored"].tolist() == [True, False] and kept["size"].tolist() == [17, 20_000_000]
    assert grid.file(12, "weights.txt") == b"weights of run 5\n" == grid.blob(kept["sha256"][0])
    assert grid.blob(kept["sha256"][0][:10].upper()) == b"weights of run 5\n"
    assert grid.file(12, "compare.py").startswith(b"RATE = 2")
    assert b"+RATE = 3" in grid.file(7, "diff")
    for call, message in [
        (lambda: grid.file(12, "digits.npz"), "content of 'digits.npz' of run 12 is not stored"),
        (lambda: grid.file(12, "weight.txt"), "no file 'weight.txt': did you mean 'weights.txt'"),
        (lambda: grid.file(12, "diff"), "run 12 has no file 'diff'"),
        (lambda: grid.blob("0000000000"), "no content with the digest"),
        (lambda: grid.blob("%' or 1=1"), "no content with the digest"),
        (lambda: grid.artifacts(999), "there is no run 999"),
    ]:
        with pytest.raises(StoreError, match=message):
            call()


def test_a_study_of_many_runs_is_read_whole(grid):
    assert len(grid.solves()) == grid.query("select count(*) as n from v_solves")["n"][0] > 800
    traces = grid.query("select solve_id from solve_trace where \"column\" = 'residual'")
    assert (grid.traces(traces["solve_id"]).groupby("solve_id").size() == 20).all()
    assert grid.best("series.loss", k=3)["series.loss"].is_monotonic_increasing
    assert len(grid.diff(*range(1, 51)).columns) == 50


@pytest.mark.parametrize(
    ("ask", "most"),
    [
        (lambda store: store.runs("solver.name=broyden and status=COMPLETED"), 3),
        (lambda store: store.runs(config=["solver.window", "seed"], metrics=["loss"]), 7),
        (lambda store: store.diff(*range(1, 51)), 50 + 3),
        (lambda store: store.trace(5), 1),
        (lambda store: store.best("series.loss"), 5),
        (lambda store: store.comparisons("left=broyden and right=anderson"), 1),
        (lambda store: store.replicates("evaluations", "phase=forward"), 1),
    ],
)
def test_questions_take_few_statements(grid, ask, most):
    told = []

    def tell(_connection, _cursor, statement, *_rest):
        told.append(statement)

    event.listen(Engine, "before_cursor_execute", tell)
    try:
        ask(grid)
    finally:
        event.remove(Engine, "before_cursor_execute", tell)
    selects = [statement for statement in told if statement.startswith(("SELECT", "WITH"))]
    assert 0 < len(selects) <= most, selects


@pytest.mark.parametrize("odd", ["\0", "\udcff", "'; drop table run; --", "%s", ":x", "x" * 10_000])
def test_odd_names_find_nothing_and_break_nothing(grid, odd):
    found = [grid.series(names=[odd]), grid.trials(odd), grid.trials("compare", odd)]
    assert [len(frame) for frame in found] == [0, 0, 0]
    quoted = odd.replace("'", "''")
    assert len(grid.query(f"select '{quoted}' as odd")) == 1
    for ask in (
        grid.run,
        grid.blob,
        grid.artifacts,
        lambda name: grid.file(12, name),
        lambda name: grid.best(f"series.{name}"),
        lambda name: grid.best(f"result.{name}"),
        lambda name: grid.runs(config=[name]),
        lambda name: grid.runs(metrics=[name]),
        lambda name: grid.compare("evaluations", name, "newton"),
        lambda name: grid.compare("evaluations", "newton", "picard", key=name),
        lambda name: grid.replicates("evaluations", by=[name]),
        grid.replicates,
    ):
        with pytest.raises(StoreError):
            ask(odd)
    for number in (2**70, -(2**70), -1):
        with pytest.raises(StoreError, match="there is no solve"):
            grid.trace(number)
    assert len(grid.runs()) == 198
