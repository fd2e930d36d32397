"""Tags, putting runs away and collecting them, and looking a store over."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import toy
from sqlalchemy import delete, insert, select, update

from db import Store, StoreError, journal, schema, upkeep
from db.schema import Artifact, Base, Blob, Code, Point, Run
from db.store import connect, locate

TABLES = Base.metadata.tables


@contextlib.contextmanager
def writing(url):
    engine = connect(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def make(url, *seeds):
    """Runs with solves, traces, gradients, points and output."""
    for seed in seeds:
        config = toy.CONFIG | {"seed": seed}
        made = {}

        def main(_run, config=config, made=made):
            toy.measure(made["observer"], config, config["seed"])
            for step in range(5):
                _run.log_scalar("loss", 1.0 / (step + 1), step)

        made["observer"] = toy.RunObserver(url, study="upkeep")
        toy.make(made["observer"], main, config).run(
            options={"--capture": "no", "--loglevel": "ERROR"}
        )


def blob(connection, name, text=b"x = 1\n"):
    values = {"sha256": name, "size": len(text), "data": text}
    connection.execute(insert(TABLES["blob"]), values)


def counts(url):
    """Rows of every table."""
    with writing(url) as connection:
        return {
            name: len(connection.execute(select(table)).all()) for name, table in TABLES.items()
        }


def test_tags_are_given_shown_and_taken(either):
    make(either, 0, 1)
    uuid = Store(either).runs()["uuid"][1]
    assert upkeep.tag(either, ["1", uuid[:8]], ["baseline", "figure 3"]) == [1, 2]
    assert upkeep.tag(either, 1, "baseline") == [1]  # again, without harm
    assert upkeep.tags(either, [2, 1]) == {
        2: ["baseline", "figure 3"],
        1: ["baseline", "figure 3"],
    }
    assert upkeep.untag(either, uuid, "figure 3") == [2]
    assert list(Store(either).runs()["tags"]) == ["baseline, figure 3", "baseline"]
    assert upkeep.retag(either, [1, 2], add="new", remove="baseline") == [1, 2]
    assert list(Store(either).runs()["tags"]) == ["figure 3, new", "new"]


HOSTILE = ["'; drop table run; --", "--add", '"', "%s", ":x", "ü ✓ 長", "a" * 100, "a\\b", "{}"]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_a_tag(either, text):
    make(either, 0)
    upkeep.tag(either, 1, text)
    assert upkeep.tags(either, 1) == {1: [text]}
    assert Store(either).runs()["tags"][0] == text
    upkeep.untag(either, 1, text)
    assert upkeep.tags(either, 1) == {1: []}
    assert len(Store(either).runs()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        (" x", "a space begins or ends it"),
        ("x\u00a0", "a space begins or ends it"),
        ("a,b", "a comma"),
        ("a\nb", "a control character"),
        ("a\x00", "a control character"),
        ("\x1b[2J", "a control character"),
        ("a\u2028b", "a control character"),
        ("\udcff", "a control character"),
        ("a" * 101, "it has 101 characters"),
    ],
)
def test_what_is_no_tag_is_refused_and_nothing_is_stored(url, text, reason):
    make(url, 0)
    with pytest.raises(StoreError, match=reason):
        upkeep.retag(url, 1, add=["fine", text])
    assert upkeep.tags(url, 1) == {1: []}


def test_a_tag_that_nobody_has_cannot_be_taken(url):
    make(url, 0)
    with pytest.raises(StoreError, match="they have no tags"):
        upkeep.untag(url, 1, "baseline")
    upkeep.tag(url, 1, "baseline")
    with pytest.raises(StoreError, match="'basline': did you mean 'baseline'"):
        upkeep.retag(url, 1, add="new", remove="basline")
    assert upkeep.tags(url, 1) == {1: ["baseline"]}


UNKNOWN = [99, "99", -1, "zz", "'; drop table run; --", "", "%", "_" * 36, "1e400", "9" * 30]


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize(
    "function",
    [
        lambda url, names: upkeep.tag(url, names, "x"),
        upkeep.put_away,
        upkeep.take_back,
        upkeep.in_short,
        upkeep.tags,
    ],
    ids=["tag", "put_away", "take_back", "in_short", "tags"],
)
def test_an_unknown_run_is_refused_and_nothing_is_done(demo, function, name):
    with pytest.raises(StoreError, match="there is no run"):
        function(demo.url, [1, name])
    assert demo.runs()["tags"].isna().all()
    assert len(demo.runs()) == 20


def test_a_number_that_is_gone_is_not_the_start_of_another_runs_uuid(url):
    make(url, 0, 1)
    with writing(url) as connection:
        runs = TABLES["run"]
        connection.execute(update(runs).where(Run.id == 1).values(uuid="2222222a-0"))
        connection.execute(delete(runs).where(Run.id == 2))
    for name in (2, "2", "2222222"):
        with pytest.raises(StoreError, match="there is no run"):
            upkeep.put_away(url, name)
    assert upkeep.put_away(url, "2222222a") == [1]


def test_an_ambiguous_uuid_is_refused(either):
    make(either, 0, 1)
    with writing(either) as connection:
        for number in (1, 2):
            row = {"uuid": f"abcd{number}-0"}
            connection.execute(update(TABLES["run"]).where(Run.id == number).values(row))
    with pytest.raises(StoreError, match="'abcd' is the start of 2 runs"):
        upkeep.put_away(either, "abcd")
    assert upkeep.put_away(either, "ABCD2") == [2]


@pytest.mark.parametrize(
    "function",
    [
        lambda url: upkeep.tag(url, 1, "x"),
        lambda url: upkeep.put_away(url, 1),
        upkeep.collect,
        upkeep.info,
        upkeep.doctor,
        upkeep.mend,
        upkeep.away,
    ],
    ids=["tag", "put_away", "collect", "info", "doctor", "mend", "away"],
)
def test_what_is_not_there_is_not_made(tmp_path, function):
    with pytest.raises(StoreError, match="there is no store"):
        function(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_runs_are_put_away_and_taken_back(either):
    make(either, 0, 1, 2)
    before = Store(either).runs()
    assert upkeep.put_away(either, [2, 3, 3]) == [2, 3]
    assert upkeep.put_away(either, [2, 3]) == []
    store = Store(either)
    assert list(store.runs()["id"]) == [1]
    assert set(store.solves()["run_id"]) == set(store.gradients()["run_id"]) == {1}
    assert set(store.series()["run_id"]) == {1}
    away = upkeep.away(either)
    assert list(away["id"]) == [2, 3]
    assert list(away["solves"]) == list(away["gradients"]) == [2, 2]
    assert (datetime.now(UTC) - away["deleted_at"]).max() < pd.Timedelta(minutes=5)
    with pytest.raises(StoreError, match="run 1 is not put away"):
        upkeep.take_back(either, [2, 1])
    assert upkeep.take_back(either, [3, 2]) == [3, 2]
    pd.testing.assert_frame_equal(Store(either).runs(), before)
    assert upkeep.away(either).empty


def test_a_running_run_is_not_put_away(either):
    make(either, 0, 1)
    with writing(either) as connection:
        connection.execute(update(TABLES["run"]).where(Run.id == 2).values(status="RUNNING"))
    with pytest.raises(StoreError, match="run 2 is running: end it first"):
        upkeep.put_away(either, [1, 2])
    assert upkeep.away(either).empty


def test_what_is_collected_is_gone_and_nothing_else(either):
    make(either, 0, 1, 2)
    with writing(either) as connection:
        for name in ("shared", "alone", "file", "diff", "loose", "kept"):
            blob(connection, name * 10)
        codes = [
            {"id": 101, "fingerprint": "a", "sources": {"a.py": "shared" * 10, "b.py": None}},
            {"id": 102, "fingerprint": "b", "diff": "diff" * 10,
             "sources": {"a.py": "shared" * 10, "b.py": "alone" * 10}},
        ]  # fmt: skip
        for row in codes:
            connection.execute(insert(TABLES["code"]), row)
        connection.execute(
            insert(TABLES["environment"]), [{"id": 101, "fingerprint": "x", "python": "2.7"}]
        )
        for number, code in ((1, 101), (2, 102), (3, 102)):
            row = {"code_id": code}
            if number == 3:
                row |= {"environment_id": 101, "parent_id": 2}
            connection.execute(update(TABLES["run"]).where(Run.id == number).values(row))
        connection.execute(delete(TABLES["code"]).where(Code.id < 101))
        own = ["shared" * 10, "alone" * 10, "file" * 10, "diff" * 10, "loose" * 10, "kept" * 10]
        connection.execute(delete(TABLES["blob"]).where(Blob.sha256.not_in(own)))
        for number, name in ((1, "kept"), (2, "kept"), (2, "file")):
            row = {"run_id": number, "kind": "artifact", "name": "a", "sha256": name * 10}
            connection.execute(insert(TABLES["artifact"]), row)
        for number in (1, 2):
            uuid = connection.scalar(select(Run.uuid).where(Run.id == number))
            row = {"run_uuid": uuid, "session": uuid, "seq": 7, "kind": "solve", "payload": "{}",
                   "error": "no", "rejected_at": datetime.now(UTC)}  # fmt: skip
            connection.execute(insert(TABLES["rejected_event"]), row)
    store = Store(either)
    kept = {
        "runs": store.runs("id=1"),
        "solves": store.solves("run_id=1"),
        "series": store.series("id=1"),
        "trace": store.traces(store.solves("run_id=1")["solve_id"]),
    }
    upkeep.tag(either, [1, 2], "x")
    before = counts(either)
    upkeep.put_away(either, 2)
    first = upkeep.collect(either, dry_run=True)
    assert (first.runs, first.programs, first.environments) == (1, 0, 0)
    # the program of run 2 is that of run 3 too
    assert first.blobs == 2, "the file of run 2, and the one that nobody ever referred to"
    assert counts(either) == before
    assert upkeep.collect(either)._replace(freed=None) == first
    after = counts(either)
    assert after["run"] == 2 and after["blob"] == before["blob"] - 2
    upkeep.put_away(either, 3)
    second = upkeep.collect(either)
    assert second[:4] == (1, 1, 1, 2), "the program, its source and its difference"
    with writing(either) as connection:
        blobs = set(connection.scalars(select(Blob.sha256)))
        assert {"shared" * 10, "kept" * 10} <= blobs
        assert not {"alone" * 10, "file" * 10, "diff" * 10, "loose" * 10} & blobs
        assert connection.scalars(select(Artifact.run_id)).all() == [1]
        assert 102 not in connection.scalars(select(Code.id)).all()
    left = counts(either)
    for table in ("run", "tag", "artifact", "rejected_event"):
        assert left[table] == 1, table
    for table in ("run_config", "solve", "solve_trace", "grad_check", "series", "point"):
        assert left[table] * 3 == before[table] and left[table], table
    store = Store(either)
    pd.testing.assert_frame_equal(store.runs().drop(columns="tags"),
                                  kept["runs"].drop(columns="tags"))  # fmt: skip
    pd.testing.assert_frame_equal(store.solves(), kept["solves"])
    pd.testing.assert_frame_equal(store.series(), kept["series"])
    pd.testing.assert_frame_equal(store.traces(store.solves()["solve_id"]), kept["trace"])
    with pytest.raises(StoreError, match="there is no run 3"):
        upkeep.take_back(either, 3)
    assert upkeep.collect(either)[:5] == (0, 0, 0, 0, 0)


def test_a_child_of_a_collected_run_stays(either):
    make(either, 0, 1)
    with writing(either) as connection:
        connection.execute(update(TABLES["run"]).where(Run.id == 2).values(parent_id=1))
    upkeep.put_away(either, 1)
    upkeep.collect(either)
    assert Store(either).run(2)["parent_id"] is None


def test_the_bytes_are_those_of_traces_text_and_blobs(either):
    make(either, 0)
    with writing(either) as connection:
        blob(connection, "a" * 64, b"y" * 1000)
        connection.execute(insert(TABLES["run_output"]), {"run_id": 1, "seq": 0, "text": "é" * 50})
        traces = sum(map(len, connection.scalars(select(schema.SolveTrace.data))))
        blobs = sum(map(len, connection.scalars(select(Blob.data))))
    upkeep.put_away(either, 1)
    assert upkeep.collect(either).bytes == traces + blobs + 50


def test_a_file_shrinks_when_nobody_else_writes(url):
    make(url, 0)
    with writing(url) as connection:
        text = os.urandom(4_000_000)
        connection.execute(
            insert(TABLES["blob"]), {"sha256": "a" * 64, "size": len(text), "data": text}
        )
    before = url.stat().st_size
    assert before > len(text)
    found = upkeep.collect(url)
    assert found.bytes == len(text) and found.freed > 3_900_000
    assert url.stat().st_size < before - 3_900_000
    assert upkeep.doctor(url) == []


def test_a_file_is_not_packed_while_a_run_goes_on(url):
    make(url, 0, 1)
    alive = {"status": "RUNNING"} | process(os.getpid())
    with writing(url) as connection:
        connection.execute(update(TABLES["run"]).where(Run.id == 2).values(alive))
    upkeep.put_away(url, 1)
    found = upkeep.collect(url)
    assert found.runs == 1 and found.freed is None
    with writing(url) as connection:
        connection.execute(update(TABLES["run"]).where(Run.id == 2).values(process(dead_pid())))
    assert upkeep.collect(url).freed is not None


def test_a_file_that_somebody_writes_to_is_not_packed(url, monkeypatch):
    monkeypatch.setattr(upkeep, "BUSY", 0.1)
    make(url, 0)
    upkeep.put_away(url, 1)
    engine = connect(url)
    other = sqlite3.connect(url, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert upkeep._pack(engine) is False
    other.execute("ROLLBACK")
    assert upkeep._pack(engine) is True
    other.close()
    engine.dispose()


def test_collecting_waits_for_a_run_that_begins_with_what_nobody_else_has(postgres_server):
    url = postgres_server.fresh()
    make(url, 0)
    upkeep.put_away(url, 1)
    engine = connect(url)
    with engine.begin() as connection:
        # as the writer does: what is there need not be made
        row = connection.execute(select(TABLES["run"]).where(Run.id == 1)).one()._asdict()
        for table in ("environment", "code", "blob"):
            connection.execute(select(TABLES[table])).all()
        thread = threading.Thread(target=upkeep.collect, args=(url,))
        thread.start()
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        end = time.monotonic() + 60
        while not connection.exec_driver_sql(blocked).scalar():
            assert thread.is_alive() and time.monotonic() < end, "nobody waits"
            time.sleep(0.05)
        del row["id"]
        row |= {"uuid": "new", "session": "new", "deleted_at": None}
        connection.execute(insert(TABLES["run"]), row)
    thread.join()
    engine.dispose()
    assert list(Store(url).runs()["uuid"]) == ["new"]
    assert upkeep.away(url).empty and upkeep.doctor(url) == []
    found = Store(url).run(2)
    assert found["environment"] is not None and found["code"] is not None


def test_runs_that_go_on_or_have_a_journal_are_not_collected(either, tmp_path, monkeypatch):
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "journals"))
    make(either, 0, 1, 2)
    upkeep.put_away(either, [1, 2, 3])
    with writing(either) as connection:  # it was only slow
        connection.execute(update(TABLES["run"]).where(Run.id == 1).values(status="RUNNING"))
        session = connection.scalar(select(Run.session).where(Run.id == 2))
    kept = journal.Journal(journal.folder(either), {"session": session} | process(dead_pid()))
    kept.append(journal.Event(99, "beat", {"run": {}}))
    kept.close()
    found = upkeep.collect(either)
    assert (found.runs, found.waiting) == (1, 2)
    assert list(upkeep.away(either)["id"]) == [1, 2]


def process(pid):
    from db import machine

    return {**machine.process({}), "pid": pid}


def dead_pid():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_info_says_what_there_is(either):
    make(either, 0, 1, 2)
    upkeep.put_away(either, 3)
    store = Store(either)
    found = upkeep.info(either)
    assert found["store"] == locate(either).shown()
    assert found["kind"].startswith(("SQLite 3.", "PostgreSQL 1"))
    assert found["schema"] == found["needs"] == schema.SCHEMA_VERSION
    assert found["runs"] == {"COMPLETED": 2} and found["put_away"] == 1
    assert found["solves"] == found["gradients"] == 6
    assert (found["series"], found["points"]) == (3, 15)
    assert found["trace_bytes"] > 0 and found["bytes"] > 50_000
    assert found["rejected"] == 0
    assert found["last_write"] >= store.runs()["stopped_at"].max()
    assert found["journals"] == {
        "folder": str(journal.folder(either)), "waiting": 0, "events": 0, "bytes": 0,
    }  # fmt: skip


def test_a_password_is_never_said(postgres_server):
    url = postgres_server.fresh().replace("postgres@", "postgres:secret@")
    make(url, 0)
    with writing(url) as connection:
        connection.exec_driver_sql("DROP INDEX ix_tag_tag")
    (finding,) = upkeep.doctor(url)
    said = f"{finding} {upkeep.info(url)}"
    assert "secret" not in said and "postgres:***@" in said


def test_a_store_in_order_has_no_findings(either):
    make(either, 0)
    assert upkeep.doctor(either) == []
    assert upkeep.mend(either) == []


def only(url):
    """The one finding about a store, given and not given as the default one."""
    (finding,) = upkeep.doctor(url)
    assert finding.remedy.endswith(f"--store {locate(url).shown()}") or "merge" in finding.remedy
    return finding


def test_an_older_and_a_newer_schema_are_found(either):
    make(either, 0)
    for number, remedy in ((1, "deq db upgrade"), (schema.SCHEMA_VERSION + 1, "pip install")):
        engine = locate(either).engine(readonly=False)
        with engine.begin() as connection:
            connection.execute(update(TABLES["schema_version"]).values(version=number))
        engine.dispose()
        (finding,) = upkeep.doctor(either)
        assert finding.level == "error" and f"has version {number}" in finding.what
        assert finding.remedy.startswith(remedy)
        known = upkeep.info(either)
        assert known["schema"] == number and "runs" not in known
        with pytest.raises(StoreError, match="schema version"):
            upkeep.mend(either)


def test_missing_indices_and_views_are_found_and_made(either):
    make(either, 0)
    with writing(either) as connection:
        before = Store(either).runs()
        connection.exec_driver_sql("DROP INDEX ix_run_config_key_start")
        connection.exec_driver_sql("DROP INDEX ix_tag_tag")
        connection.exec_driver_sql("DROP VIEW v_gradients")
    found = upkeep.doctor(either)
    assert [f.level for f in found] == ["error"] * 3
    assert {"--mend" in f.remedy for f in found} == {True}
    assert any("ix_run_config_key_start" in f.what for f in found)
    assert any("v_gradients" in f.what for f in found)
    assert len(upkeep.mend(either)) == 3
    assert upkeep.doctor(either) == []
    pd.testing.assert_frame_equal(Store(either).runs(), before)
    assert len(Store(either).gradients()) == 2


def test_a_view_of_an_older_version_is_found_and_made_anew(either):
    make(either, 0)
    with writing(either) as connection:
        for view in reversed(schema.VIEWS):
            connection.exec_driver_sql(f"DROP VIEW {view}")
        connection.exec_driver_sql("CREATE VIEW v_runs AS SELECT id, uuid FROM run")
    assert "v_runs is missing or an old one" in " ".join(f.what for f in upkeep.doctor(either))
    upkeep.mend(either)
    assert upkeep.doctor(either) == []
    assert list(Store(either).runs()["status"]) == ["COMPLETED"]


def test_a_missing_table_is_found_and_made(either):
    make(either, 0)
    with writing(either) as connection:
        connection.exec_driver_sql("DROP TABLE rejected_event")
    found = upkeep.doctor(either)
    assert any("the table rejected_event is missing" in f.what for f in found)
    upkeep.mend(either)
    assert upkeep.doctor(either) == []


def unguarded(url, *statements):
    """Break what constraints guard."""
    engine = locate(url).engine(readonly=False)
    with contextlib.closing(engine.raw_connection()) as pooled:
        connection = pooled.driver_connection
        cursor = connection.cursor()
        if engine.dialect.name == "sqlite":
            cursor.execute("PRAGMA foreign_keys=OFF")
        else:
            cursor.execute("SET session_replication_role = replica")
        for statement in statements:
            cursor.execute(statement)
        connection.commit()
    engine.dispose()


def test_orphans_are_found_and_deleted(either):
    make(either, 0, 1)
    unguarded(either, "DELETE FROM run WHERE id = 2", "UPDATE run SET environment_id = 77")
    found = upkeep.doctor(either)
    said = [f.what for f in found]
    assert "2 rows of solve have a run_id that is no row of run" in said
    assert "1 rows of run have a environment_id that is no row of environment" in said
    assert {f.level for f in found} == {"error"} and all("--mend" in f.remedy for f in found)
    before = Store(either).solves("run_id=1")
    upkeep.mend(either)
    assert upkeep.doctor(either) == []
    pd.testing.assert_frame_equal(Store(either).solves(), before)
    assert counts(either)["point"] == 5
    assert Store(either).run(1)["environment"] is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE series SET n = 4 WHERE run_id = 1",
        "UPDATE series SET last_value = 3 WHERE run_id = 1",
        "UPDATE series SET least = NULL WHERE run_id = 1",
        "UPDATE series SET least_step = 0 WHERE run_id = 1",
        "UPDATE series SET nonfinite = 2 WHERE run_id = 1",
        "DELETE FROM point WHERE ord = 4 AND series_id = 1",
        "DELETE FROM point WHERE series_id = 1",
    ],
)
def test_sums_that_disagree_with_points_are_found_and_put_right(either, statement):
    make(either, 0, 1)
    with writing(either) as connection:
        connection.exec_driver_sql(statement)
    finding = only(either)
    assert finding.level == "error" and finding.what.startswith("1 series say something else")
    assert upkeep.mend(either) == ["put the sums of series 1 right"]
    assert upkeep.doctor(either) == []
    with writing(either) as connection:
        first = connection.execute(select(TABLES["series"]).order_by("id")).first()
        points = connection.execute(
            select(Point.step, Point.value).where(Point.series_id == 1).order_by(Point.ord)
        ).all()
    assert first.n == len(points) and first.nonfinite == 0
    last = points[-1] if points else (None, None)
    assert (first.last_step, first.last_value) == (first.least_step, first.least) == tuple(last)
    assert first.largest == (points[0].value if points else None)


def test_sums_of_values_that_are_not_finite_agree(either):
    def main(_run):
        for step, value in enumerate([float("nan"), 2.0, float("inf"), 1.0, 1.0, float("nan")]):
            _run.log_scalar("odd", value, step)
        _run.log_scalar("never", float("nan"), 0)

    toy.run(either, main)
    assert upkeep.doctor(either) == []


def test_a_dead_run_is_found(either):
    make(either, 0, 1)
    with writing(either) as connection:
        for number, pid in ((1, dead_pid()), (2, os.getpid())):
            row = {"status": "RUNNING"} | process(pid)
            connection.execute(update(TABLES["run"]).where(Run.id == number).values(row))
    finding = only(either)
    assert finding.level == "warning" and finding.what.startswith("run 1 is RUNNING")
    assert finding.remedy.startswith("deq runs reap")


def test_a_run_elsewhere_that_is_silent_for_long_is_found(either):
    make(either, 0, 1)
    with writing(either) as connection:
        for number, hours in ((1, 1), (2, 0)):
            row = {"status": "RUNNING", "host": "elsewhere"}
            row["heartbeat_at"] = datetime.now(UTC) - timedelta(hours=hours)
            connection.execute(update(TABLES["run"]).where(Run.id == number).values(row))
    assert only(either).what.startswith("run 1 is RUNNING, but")


def test_a_journal_left_behind_is_found(either, tmp_path, monkeypatch):
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "journals"))
    make(either, 0)
    for session, pid in (("gone", dead_pid()), ("alive", os.getpid())):
        kept = journal.Journal(journal.folder(either), {"session": session} | process(pid))
        kept.append(journal.Event(1, "start", {}))
        kept.close()
    finding = only(either)
    assert finding.level == "warning" and finding.what.startswith("1 journals in ")
    assert finding.remedy.startswith("deq db sync")
    assert upkeep.info(either)["journals"]["waiting"] == 2


def test_rejected_events_are_a_note(either):
    make(either, 0)
    with writing(either) as connection:
        row = {"run_uuid": "u", "session": "s", "seq": 1, "kind": "solve", "payload": "{}",
               "error": "no", "rejected_at": datetime.now(UTC)}  # fmt: skip
        connection.execute(insert(TABLES["rejected_event"]), row)
    finding = only(either)
    assert finding.level == "note" and "refused 1 events" in finding.what
    assert Store(either).query(finding.remedy.split('"')[1])["error"][0] == "no"
    assert upkeep.info(either)["rejected"] == 1


def test_missing_and_loose_blobs_are_found(either):
    make(either, 0)
    with writing(either) as connection:
        sources = {"a.py": "f" * 64, "edited.py": "d" * 32, "unread.py": None}
        row = {"id": 101, "fingerprint": "a", "sources": sources, "diff": "e" * 64}
        connection.execute(insert(TABLES["code"]), row)
        connection.execute(update(TABLES["run"]).values(code_id=101))
        connection.execute(delete(TABLES["code"]).where(Code.id != 101))
        connection.execute(delete(TABLES["blob"]))
        blob(connection, "a" * 64)
        large = {"run_id": 1, "kind": "artifact", "name": "large", "sha256": "c" * 64}
        connection.execute(insert(TABLES["artifact"]), large | {"size": 17 << 20})
    first, second = upkeep.doctor(either)
    assert first.level == "warning" and first.what.startswith("2 sources or files")
    assert "deq db merge" in first.remedy
    assert second.level == "note" and second.remedy.startswith("deq runs gc")
    upkeep.collect(either)
    assert len(upkeep.doctor(either)) == 1


def test_a_missing_file_of_a_run_is_found(either):
    make(either, 0)
    with writing(either) as connection:
        small = {"run_id": 1, "kind": "artifact", "name": "small", "sha256": "c" * 64, "size": 3}
        connection.execute(insert(TABLES["artifact"]), small)
    assert only(either).what.startswith("1 sources or files")


def test_a_journal_of_a_later_version_is_found(either, tmp_path, monkeypatch):
    monkeypatch.setenv("DEQ_JOURNAL", str(tmp_path / "journals"))
    make(either, 0)
    folder = journal.folder(either)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "later.jsonl").write_text('{"session": "later", "format": 99}\n')
    (finding,) = upkeep.doctor(either)
    assert finding.level == "error" and "format 99" in finding.what


def test_a_damaged_file_is_found(url):
    make(url, *range(5))
    with contextlib.closing(sqlite3.connect(url)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'solve'"
        ).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with url.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    found = upkeep.doctor(url)
    assert found[0].level == "error" and "damaged" in found[0].what
    assert found[0].remedy.startswith("deq db merge")
    assert str(url) in found[0].remedy


def test_a_store_that_may_only_be_read_is_looked_over(url):
    make(url, 0)
    url.chmod(0o444)
    try:
        assert upkeep.doctor(url) == []
        assert upkeep.info(url)["solves"] == 2
    finally:
        url.chmod(0o644)


def test_nothing_of_this_needs_sacred_or_torch():
    script = (
        "import sys\nfrom db import upkeep\nassert not {'sacred', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
