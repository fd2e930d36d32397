"""Stores go out into directories and into other stores, whole, once, and again without harm."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from contents import content
from sqlalchemy import delete, insert, select, update

from db import Store, StoreError, connect
from db.encode import canonical, digest, flatten, plain
from db.exports import COLUMNS, Reader
from db.schema import Base
from db.transfer import export, merge

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TABLES = Base.metadata.tables
NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
ODD = '\'; DROP TABLE run; -- ${x} \\N \\. \t\r\n\u2028 \U0001f600 %s ? "\\" \ufffd'


def pack(column):
    return zlib.compress(np.asarray(column, dtype="<f8").tobytes())


class Filler:
    """Puts runs into a store, with something in every table."""

    def __init__(self, url):
        self.url = url
        self.engine = connect(url)

    def add(self, connection, table, **row):
        return connection.execute(insert(TABLES[table]), row).inserted_primary_key[0]

    def run(self, session, *, solves=2, points=3, parent=None, **columns):
        with self.engine.begin() as connection:
            number = self._run(connection, session, {"parent_id": parent} | columns)
            self._records(connection, number, solves)
            self._series(connection, number, points)
        return number

    def _run(self, connection, session, columns):
        add = self.add
        config = plain({
            "seed": 3, "solver": {"name": "broyden", "odd": ODD, "x": float("nan")},
            "large": 10**30, "list": [1, 2.5, None, "a"], "session": session,
        })  # fmt: skip
        files = {}
        for text in (f"source of {session}", "shared", ODD):
            data = pack([float(len(text))])  # any zlib
            name = digest(text)
            files[f"{text[:6]}.py"] = name
            if not connection.scalar(select(TABLES["blob"]).where(TABLES["blob"].c.sha256 == name)):
                add(connection, "blob", sha256=name, size=8, data=data)
        shared = {}
        for table, row in (
            ("environment", {"fingerprint": "e" * 64, "python": "3.11", "packages": {"torch": "2"},
                             "details": {"cores": 2}}),
            ("code", {"fingerprint": digest(files), "mainfile": "a.py", "sources": files,
                      "dirty": 1, "diff": files["shared.py"], "commit_id": "c" * 40}),
        ):  # fmt: skip
            mark = TABLES[table].c.fingerprint
            there = select(TABLES[table].c.id).where(mark == row["fingerprint"])
            shared[f"{table}_id"] = connection.scalar(there) or add(connection, table, **row)
        number = add(
            connection, "run",
            **{
                "uuid": session, "session": session, "last_seq": 10, "experiment": ODD,
                "status": "COMPLETED", "queued_at": None, "started_at": NOW,
                "heartbeat_at": NOW + timedelta(seconds=9), "beat_interval": 5.0,
                "stopped_at": NOW + timedelta(seconds=9), "seconds": 9.0, "seed": 2**62,
                "config": config, "config_hash": digest(config),
                "result": plain({"loss": float("inf"), "n": 1}), "result_value": 1e-300,
                "info": {"deep": [[[]]], "text": ODD}, "meta": {}, "fail_trace": ODD,
                "host": "elsewhere", "pid": 7, **shared,
            } | columns,
        )  # fmt: skip
        for leaf in flatten(config):
            add(connection, "run_config", run_id=number, **leaf._asdict())
        add(connection, "tag", run_id=number, tag=ODD)
        add(connection, "run_output", run_id=number, seq=0, text=ODD * 3)
        add(connection, "run_output", run_id=number, seq=1, text="more")
        content_ = digest(f"artifact of {session}")
        add(connection, "blob", sha256=content_, size=8, data=pack([1.0]))
        add(connection, "artifact", run_id=number, kind="artifact", name=ODD, sha256=content_,
            size=8, path="/tmp/x", content_type="text/plain", meta={"a": [1]})  # fmt: skip
        add(connection, "artifact", run_id=number, kind="resource", name="large", sha256="f" * 64,
            size=2**40)  # fmt: skip
        add(connection, "artifact", run_id=number, kind="resource", name="absent")
        add(connection, "rejected_event", run_uuid=session, session=session, seq=5, kind="solve",
            payload='{"a": 1}', error=ODD, rejected_at=NOW)  # fmt: skip
        return number

    def _records(self, connection, number, solves):
        for place in range(solves):
            solve = self.add(
                connection, "solve", run_id=number, ord=place, phase="forward", site=ODD,
                solver="broyden", evaluations=2**40, residual_last=None, fixed_budget=0,
                options={"window": None}, retcodes={"SUCCESS": 4}, seconds=0.1 + 0.2,
                extra={"nonfinite": {"residual_last": "nan"}},
            )  # fmt: skip
            for column, values in (
                ("residual", [1.0, np.nan, np.inf]), ("evaluations", [1.0, 2.0, place])
            ):  # fmt: skip
                self.add(connection, "solve_trace", solve_id=solve, column=column, n=3,
                    codec="float64", data=pack(values))  # fmt: skip
            self.add(connection, "grad_check", run_id=number, ord=place, solve_id=solve,
                adjoint_id=solve if place else None, method="implicit", rel_err=5e-324,
                options={"name": "dense"})  # fmt: skip

    def _series(self, connection, number, points):
        for name in ("loss", ODD):
            series = self.add(connection, "series", run_id=number, name=name, n=points, nonfinite=1,
                         last_step=2.0, last_value=None, least=-1.0)  # fmt: skip
            rows = [
                {"series_id": series, "ord": n, "step": n / 2, "value": None if n == 1 else n / 3,
                 "flag": 1 if n == 1 else 0, "t": 1.7e9 + n / 7} for n in range(points)
            ]  # fmt: skip
            if rows:
                connection.execute(insert(TABLES["point"]), rows)


@pytest.fixture
def source(either):
    """A store of each kind: 5 runs, one put away, a parent, and a rejected event without a run."""
    fill = Filler(either)
    first = fill.run("00000000-0000-4000-8000-000000000000")
    fill.run("away", deleted_at=NOW)
    fill.run("child", parent=first, solves=0, points=1, study="s")
    fill.run(ODD, status="RUNNING", stopped_at=None, last_seq=4)
    fill.run("last", status="DIVERGED", parent=first, study="s", environment_id=None, code_id=None)
    with fill.engine.begin() as connection:
        fill.add(connection, "rejected_event", run_uuid="nobody", session="nobody", seq=1,
                 kind="start", payload="{}", error="why", rejected_at=NOW)  # fmt: skip
    fill.engine.dispose()
    return either


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request, tmp_path):
    """A place for another store, of each kind."""
    if request.param == "sqlite":
        return tmp_path / "target.db"
    return request.getfixturevalue("postgres_server").fresh()


def expected(url):
    """What goes out of a store: the runs that are not put away and what they refer to."""
    found = content(url, deleted=False)
    put_away = content(url)["run"].keys() - found["run"].keys()
    for key in [key for key in found["rejected_event"] if key[:1] in put_away]:
        del found["rejected_event"][key]
    for table in ("environment", "code"):
        used = {row[f"{table}_id"] for row in found["run"].values()}
        found[table] = {key: row for key, row in found[table].items() if key[0] in used}
    files = {row["sha256"] for row in found["artifact"].values()}
    for row in found["code"].values():
        files |= {row["diff"], *row["sources"].values()}
    found["blob"] = {key: row for key, row in found["blob"].items() if key[0] in files}
    assert all(found.values())
    return found


def change(url, table, where=None, **columns):
    engine = connect(url)
    with engine.begin() as connection:
        statement = update(TABLES[table])
        if where is not None:
            statement = statement.where(where)
        connection.execute(statement.values(columns))
    engine.dispose()


def ids(url):
    return dict(Store(url).query("select session, id from run").to_numpy().tolist())


# Out and in again


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_an_export_merged_into_an_empty_store_is_the_store(source, target, form, tmp_path):
    done = export(source, tmp_path / "out", form=form)
    assert (done.form, done.runs, done.rows["run"], done.rows["solve"]) == (form, 4, 4, 6)
    assert done.bytes == sum(
        p.stat().st_size for p in (tmp_path / "out").iterdir() if p.name != "manifest.json"
    )
    merged = merge(tmp_path / "out", target)
    assert sorted(merged.added) == sorted(set(ids(source)) - {"away"})
    assert content(target) == expected(source)
    again = merge(tmp_path / "out", target)
    assert (again.added, again.renewed, len(again.same)) == ([], [], 4)
    assert content(target) == expected(source)


def test_a_store_merged_into_an_empty_one_is_the_same_and_back_again(source, target, tmp_path):
    merged = merge(source, target)
    assert len(merged.added) == 4 and content(target) == expected(source)
    before = content(source)
    back = merge(target, source)
    assert (back.added, back.renewed) == ([], []) and content(source) == before
    third = tmp_path / "third.db"
    merge(target, third)
    assert content(third) == expected(source)
    for text in Store(third).query("select config from run")["config"]:  # as an observer writes it
        assert text == canonical(json.loads(text))


def test_runs_of_experiments_survive_a_merge(filled, target):
    merged = merge(filled.url, target)
    assert len(merged.added) == 20 and content(target) == content(filled.url)
    left, right = filled.solves(), Store(target).solves()
    numbers = ["run_id", "solve_id"]
    pd.testing.assert_frame_equal(left.drop(columns=numbers), right.drop(columns=numbers))
    pd.testing.assert_frame_equal(
        filled.traces(left["solve_id"]).drop(columns="solve_id"),
        Store(target).traces(right["solve_id"]).drop(columns="solve_id"),
    )


def test_numbers_of_the_other_store_do_not_matter(source, target):
    fill = Filler(target)
    own = fill.run("own", solves=3)
    fill.engine.dispose()
    before = content(target)
    merge(source, target)
    assert ids(target)["own"] == own
    after, came = content(target), expected(source)
    for table, rows in after.items():
        assert rows == came[table] | before[table], table


def test_more_runs_than_go_together_are_all_there(tmp_path):
    fill = Filler(tmp_path / "source.db")
    for n in range(150):
        last = fill.run(f"run {n}", solves=1, points=2)
    fill.engine.dispose()
    first = TABLES["run"].c.session == "run 0"
    change(tmp_path / "source.db", "run", first, parent_id=last)  # as after a merge
    export(tmp_path / "source.db", tmp_path / "out")
    merge(tmp_path / "out", tmp_path / "a.db")
    merge(tmp_path / "source.db", tmp_path / "b.db")
    whole = content(tmp_path / "source.db")
    assert content(tmp_path / "a.db") == whole and content(tmp_path / "b.db") == whole


def test_a_filter_takes_its_runs_and_what_they_refer_to(source, tmp_path):
    done = export(source, tmp_path / "out", "study=s", form="json")
    assert done.runs == 2
    merge(tmp_path / "out", tmp_path / "target.db")
    found = content(tmp_path / "target.db")
    assert {key[0] for key in found["run"]} == {"child", "last"}
    assert {row["parent_id"] for row in found["run"].values()} == {None}
    assert {key[0] for key in found["rejected_event"]} == {"child", "last"}
    whole = expected(source)
    assert (digest("source of child"),) in found["blob"]
    for table, rows in found.items():
        assert rows.items() <= whole[table].items() or table == "run", table
    assert len(found["code"]) == 1 and len(found["blob"]) == 5


def test_a_child_finds_its_parent_whichever_comes_first(source, tmp_path):
    export(source, tmp_path / "children", "study=s")
    export(source, tmp_path / "parents", "study=null")
    target = tmp_path / "target.db"
    merge(tmp_path / "children", target)
    merge(tmp_path / "parents", target)
    assert content(target)["run"][("child",)]["parent_id"] is None
    merge(tmp_path / "children", target)
    whole = expected(source)
    del whole["rejected_event"][("nobody", "1")]  # of no run, so no filter takes it
    assert content(target) == whole
    other = tmp_path / "other.db"
    merge(tmp_path / "parents", other)
    merge(tmp_path / "children", other)
    assert content(other) == whole


def test_files_are_typed_for_those_who_read_them_without_us(source, tmp_path):
    export(source, tmp_path / "parquet")
    export(source, tmp_path / "json", form="json")
    runs = pd.read_parquet(tmp_path / "parquet" / "run.parquet")
    assert str(runs["started_at"].dtype) in ("datetime64[us, UTC]", "datetime64[ns, UTC]")
    assert runs["started_at"][0] == pd.Timestamp(NOW) and runs["seed"].dtype == "int64"
    assert json.loads(runs["config"][0])["solver"]["name"] == "broyden"
    points = pd.read_parquet(tmp_path / "parquet" / "point.parquet")
    assert points["value"].dtype == "float64" and points["value"].isna().sum() == 6 + 1 - 1
    assert set(points["run_id"]) == set(runs["id"])
    trace = pd.read_parquet(tmp_path / "parquet" / "solve_trace.parquet")
    assert isinstance(trace["data"][0], bytes)
    lines = (tmp_path / "json" / "solve_trace.jsonl").read_text(encoding="utf-8").split("\n")
    row = json.loads(lines[0])
    assert base64.b64decode(row["data"]) == trace["data"][0] and lines[-1] == ""
    run = json.loads((tmp_path / "json" / "run.jsonl").read_bytes().split(b"\n")[0])
    assert run["config"]["solver"]["odd"] == ODD
    assert run["started_at"] == "2026-01-31T12:00:00.123456+00:00"
    manifest = json.loads((tmp_path / "json" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["runs"] == 4 and manifest["files"]["run.jsonl"]["rows"] == 4
    assert len(Reader(tmp_path / "parquet").form) and manifest["files"].keys() == {
        f"{table}.jsonl" for table in COLUMNS
    }


# What is there already


def test_a_run_that_went_on_is_renewed_and_keeps_its_number(source, target):
    merge(source, target)
    number = ids(target)[ODD]
    change(target, "run", TABLES["run"].c.session == "last", comment="of the target")
    fill = Filler(source)
    with fill.engine.begin() as connection:
        run = connection.scalar(select(TABLES["run"].c.id).where(TABLES["run"].c.session == ODD))
        fill.add(connection, "solve", run_id=run, ord=9, solver="later")
        series = select(TABLES["series"].c.id).where(TABLES["series"].c.run_id == run)
        first = connection.scalars(series).first()
        fill.add(connection, "point", series_id=first, ord=9, value=1.0, flag=0)
        connection.execute(delete(TABLES["run_output"]).where(TABLES["run_output"].c.run_id == run))
        connection.execute(
            update(TABLES["run"]).where(TABLES["run"].c.id == run)
            .values(last_seq=6, status="COMPLETED", stopped_at=NOW, info={"n": float(2)})
        )  # fmt: skip
    fill.engine.dispose()
    merged = merge(source, target)
    assert (merged.added, merged.renewed, len(merged.same)) == ([], [ODD], 3)
    assert ids(target)[ODD] == number
    wanted = expected(source)
    wanted["run"][("last",)]["comment"] = "of the target"
    assert content(target) == wanted


@pytest.mark.parametrize(
    ("here", "there", "taken"),
    [
        ({"status": "RUNNING"}, {"status": "COMPLETED"}, True),
        ({"status": "RUNNING"}, {"status": "DIED"}, True),
        ({"status": "DIED"}, {"status": "FAILED"}, True),
        ({"status": "DIED"}, {"status": "RUNNING"}, False),
        ({"status": "DIED"}, {"status": "RUNNING", "last_seq": 11}, True),
        ({"status": "COMPLETED"}, {"status": "FAILED"}, False),
        ({"status": "COMPLETED"}, {"status": "RUNNING", "last_seq": 3}, False),
        ({"status": "RUNNING", "last_seq": 11}, {"status": "COMPLETED"}, False),
        ({"status": "RUNNING"}, {"status": "RUNNING", "heartbeat_at": NOW + DAY}, True),
        ({"status": "RUNNING"}, {"status": "RUNNING", "heartbeat_at": NOW - DAY}, False),
    ],
)  # fmt: skip
def test_the_one_who_knows_more_is_right(tmp_path, here, there, taken):
    urls = [tmp_path / "here.db", tmp_path / "there.db"]
    for url, columns in zip(urls, (here, there), strict=True):
        fill = Filler(url)
        fill.run("one", solves=0, points=0, experiment=url.name, **columns)
        fill.engine.dispose()
    merged = merge(urls[1], urls[0])
    assert (merged.renewed, merged.same) == ((["one"], []) if taken else ([], ["one"]))
    (run,) = content(urls[0])["run"].values()
    assert run["experiment"] == ("there.db" if taken else "here.db")
    assert run["status"] == (there if taken else here)["status"]


def test_tags_are_united(source, target):
    merge(source, target)
    for url, tag in ((source, "there"), (target, "here")):
        fill = Filler(url)
        with fill.engine.begin() as connection:
            fill.add(connection, "tag", run_id=ids(url)["child"], tag=tag)
        fill.engine.dispose()
    merge(source, target)
    assert {tag for run, tag in content(target)["tag"] if run == "child"} == {ODD, "here", "there"}
    assert {tag for run, tag in content(source)["tag"] if run == "child"} == {ODD, "there"}


def test_a_run_that_was_put_away_stays_so(source, target):
    merge(source, target)
    change(target, "run", TABLES["run"].c.session == "last", deleted_at=NOW)
    before = content(target)
    change(source, "run", TABLES["run"].c.session == "last", last_seq=99)
    merged = merge(source, target)
    assert (merged.put_away, merged.renewed, len(merged.same)) == (["last"], [], 3)
    assert content(target) == before


def test_another_attempt_with_the_same_uuid_is_another_run(tmp_path):
    urls = [tmp_path / "a.db", tmp_path / "b.db"]
    for url in urls:
        fill = Filler(url)
        fill.run(f"session in {url.name}", uuid="given", solves=1)
        fill.engine.dispose()
    for _ in range(2):
        merge(urls[1], urls[0])
        rows = content(urls[0])["run"]
        assert {row["uuid"] for row in rows.values()} == {"given", "session in b.db"}
        assert rows[("session in b.db",)]["parent_id"] == "session in a.db"


def test_two_merges_at_once_add_a_run_once(target, tmp_path):
    fill = Filler(tmp_path / "source.db")
    for n in range(130):
        fill.run(f"run {n}", solves=1, points=1)
    fill.engine.dispose()
    gate, done = threading.Barrier(2), []

    def go():
        gate.wait()
        done.append(merge(tmp_path / "source.db", target))

    both = [threading.Thread(target=go) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(done) == 2 and sum(len(merged.added) for merged in done) == 130
    assert sum(len(merged.same) for merged in done) == 130
    assert content(target) == content(tmp_path / "source.db")


# What is refused, and leaves nothing behind


def test_a_store_is_not_merged_into_itself(source, tmp_path, postgres_server):
    names = [source]
    if isinstance(source, Path):
        (tmp_path / "link.db").symlink_to(source)
        names += [f"sqlite:///{source}", tmp_path / "link.db"]
    else:
        names.append(source.replace("127.0.0.1", "localhost"))
    for name in names:
        with pytest.raises(StoreError, match="is the store itself"):
            merge(name, source)


def test_what_is_no_source_is_refused_before_a_store_is_made(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("this is not SQLite")
    target = tmp_path / "target.db"
    for name, message in (
        ("folder", "is no export: it has no manifest.json"),
        ("text.db", "is not a SQLite database"),
        ("none.db", "name an SQLite file, the URL of a store, or a directory that"),
    ):
        with pytest.raises(StoreError, match=message):
            merge(tmp_path / name, target)
    assert not target.exists()


def test_a_source_of_another_schema_is_refused_with_the_remedy(tmp_path):
    fill = Filler(tmp_path / "old.db")
    fill.run("one")
    fill.engine.dispose()
    export(tmp_path / "old.db", tmp_path / "out")
    change(tmp_path / "old.db", "schema_version", version=1)
    with pytest.raises(StoreError, match="deq db upgrade"):
        merge(tmp_path / "old.db", tmp_path / "target.db")
    with pytest.raises(StoreError, match="deq db upgrade"):
        export(tmp_path / "old.db", tmp_path / "out2")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for changed, message in (
        ({"schema": 1}, "deq db upgrade"),
        ({"format": 2}, "has the format 2 and this deq-lab reads 1"),
        ({"form": "csv"}, "is damaged"),
        ({"files": {}}, "is damaged"),
    ):
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | changed))
        with pytest.raises(StoreError, match=message):
            merge(tmp_path / "out", tmp_path / "target.db")
    assert not (tmp_path / "target.db").exists() and not (tmp_path / "out2").exists()


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_damaged_export_is_refused(tmp_path, form):
    fill = Filler(tmp_path / "source.db")
    fill.run("one")
    fill.engine.dispose()
    folder = export(tmp_path / "source.db", tmp_path / "out", form=form).folder
    for path in sorted(folder.iterdir()):
        kept = path.read_bytes()
        spoilt = [kept[: len(kept) // 2], kept + b"\n", bytes([kept[0] ^ 1, *kept[1:]]), None] \
            if kept and path.name != "manifest.json" else [None]  # fmt: skip
        for data in spoilt:
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)
            with pytest.raises(StoreError, match=r"damaged|is no export") as caught:
                merge(folder, tmp_path / "target.db")
            assert str(folder) in str(caught.value)
        path.write_bytes(kept)
    assert not (tmp_path / "target.db").exists()
    assert merge(folder, tmp_path / "target.db").added == ["one"]


@pytest.mark.parametrize(
    ("table", "change_", "message"),
    [
        ("solve", {"evaluations": "many"}, "evaluations is no integer: 'many'"),
        ("solve", {"evaluations": -1}, "does not take what comes from"),
        ("solve_trace", {"data": "!"}, "this is no base64"),
        ("run", {"started_at": "yesterday"}, "is damaged"),
        ("run", {"host": "a\x00\ud800"}, "does not take what comes from"),
        ("tag", {"more": 1}, "line 1 does not have the columns of its table"),
    ],
)
def test_a_forged_export_adds_nothing(target, tmp_path, table, change_, message):
    fill = Filler(tmp_path / "source.db")
    fill.run("one")
    fill.engine.dispose()
    folder = export(tmp_path / "source.db", tmp_path / "out", form="json").folder
    path = folder / f"{table}.jsonl"
    first, *rest = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([json.dumps(json.loads(first) | change_), *rest]), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=message):
        merge(folder, target)
    assert not any(content(target).values())


def test_an_export_needs_a_new_place_and_a_known_form(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for folder, options, message in (
        ("full", {}, "is not empty: export to a new directory"),
        ("file", {}, "is a file: export to a new directory"),
        ("none/deep", {}, "does not exist: make it first"),
        ("out", {"form": "parket"}, "did you mean 'parquet'"),
        ("out", {"where": "study=nothing"}, "no run fits 'study=nothing': nothing is exported"),
        ("out", {"where": "study="}, "filter"),
    ):
        with pytest.raises(StoreError, match=message):
            export(source, tmp_path / folder, **options)
    kept = {"full", "file", "empty", *([source.name] if isinstance(source, Path) else [])}
    assert {path.name for path in tmp_path.iterdir()} - {f"{source}-wal"} == kept
    export(source, tmp_path / "empty")
    assert merge(tmp_path / "empty", tmp_path / "target.db").added
    with pytest.raises(StoreError, match="there is no store"):
        export(tmp_path / "none.db", tmp_path / "out")


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    fill = Filler(tmp_path / "source.db")
    fill.run("one")
    fill.engine.dispose()
    (tmp_path / "places").mkdir()
    import db.exports

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(db.exports, "_sha256", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        export(tmp_path / "source.db", tmp_path / "places" / "out")
    assert list((tmp_path / "places").iterdir()) == []


# Interruption

GO_ON = """
import sys
from db.transfer import merge
print("going", flush=True)
merge(*sys.argv[1:])
"""


def test_a_killed_merge_leaves_whole_runs_and_goes_on(target, tmp_path):
    fill = Filler(tmp_path / "source.db")
    for n in range(200):
        fill.run(f"run {n}", solves=3, points=20)
    fill.engine.dispose()
    whole = content(tmp_path / "source.db")
    connect(target).dispose()
    seen = set()
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", GO_ON, str(tmp_path / "source.db"), str(target)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "going\n"
        end = time.monotonic() + 60
        while len(ids(target)) <= len(seen) < 200 and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = content(target)
        sessions = {key[0] for key in there["run"]}
        assert sessions >= seen
        seen = sessions
        for table in ("run", "run_config", "solve", "tag", "artifact", "run_output", "series"):
            of = {key: row for key, row in whole[table].items() if key[0] in seen}
            assert there[table] == of, table
        for table in ("solve_trace", "point"):
            link = "solve_id" if table == "solve_trace" else "series_id"
            of = {key: row for key, row in whole[table].items() if row[link][0] in seen}
            assert there[table] == of, table
    assert seen
    merge(tmp_path / "source.db", target)
    assert content(target) == whole


def test_an_interrupted_export_is_not_there(tmp_path):
    fill = Filler(tmp_path / "source.db")
    for n in range(50):
        fill.run(f"run {n}", solves=3, points=20)
    fill.engine.dispose()
    (tmp_path / "places").mkdir()
    names = str(tmp_path / "source.db"), str(tmp_path / "places" / "out")
    process = subprocess.Popen(
        [sys.executable, "-c", GO_ON.replace("merge", "export"), *names],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "going\n"
    while process.poll() is None and not any((tmp_path / "places").iterdir()):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list((tmp_path / "places").iterdir())
    if (tmp_path / "places" / "out") in left:
        pytest.skip("it was faster than we are")
    assert [path.name.startswith(".out.") for path in left] == [True]
    shutil.rmtree(left[0])
    assert export(tmp_path / "source.db", tmp_path / "places" / "out").runs == 50
