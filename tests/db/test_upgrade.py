"""A store of every released version becomes one of the present: all its rows, or nothing."""

import contextlib
import json
import math
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import releases
import toy

from db import Store, StoreError, dialects
from db.errors import StoreAway
from db.machine import process
from db.schema import SCHEMA_VERSION, Base
from db.store import connect
from db.upgrade import pending, upgrade

RELEASED = range(1, SCHEMA_VERSION)


@pytest.fixture(params=RELEASED)
def version(request):
    return request.param


@pytest.fixture
def old(either, version):
    """The filled store of a released version, in each kind of database."""
    releases.load(either, version)
    return either


@pytest.fixture
def first(either):
    """The filled store of version 1."""
    releases.load(either, 1)
    return either


def copies(url):
    """The files beside a store that are not its own."""
    if "://" in str(url):
        return []
    own = {url.name, f"{url.name}-wal", f"{url.name}-shm"}
    return [path for path in url.parent.iterdir() if path.name not in own]


def everything(url):
    return releases.structure(url), releases.rows(url)


# What comes of it


def test_every_released_version_has_its_filled_stores():
    there = {path.name for path in releases.STORES.glob("*.sql")}
    assert there >= {f"v{n}.{kind}.sql" for n in RELEASED for kind in ("sqlite", "postgresql")}


def test_all_rows_are_there_as_they_were(old, version):
    before = releases.rows(old)
    done = upgrade(old)
    after = releases.rows(old)
    assert (done.before, done.after) == (version, SCHEMA_VERSION)
    assert done.rows == {table: len(rows) for table, rows in after.items()}
    assert all(before[table] for table in before)
    for table, rows in before.items():
        kept = set(rows[0]) & set(after[table][0]) - {"version"}
        assert set(rows[0]) - kept <= {"code", "version"}
        assert sorted(({k: r[k] for k in kept} for r in rows), key=repr) == sorted(
            ({k: r[k] for k in kept} for r in after[table]), key=repr
        )
    assert after["schema_version"][0]["version"] == SCHEMA_VERSION


def test_its_structure_is_that_of_a_new_store(old, request):
    upgrade(old)
    if "://" in str(old):
        new = request.getfixturevalue("postgres_server").fresh()
    else:
        new = old.with_name("new.db")
    Store(new, create=True)
    assert releases.structure(old) == releases.structure(new)


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_alembic_finds_no_difference_to_the_tables_of_the_program(old):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    options = {"compare_type": True, "compare_server_default": True}
    with releases.reading(old) as connection:
        before = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        assert len(before) > 10
    upgrade(old)
    with releases.reading(old) as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_a_store_without_runs(old, request):
    tables = [table for table in releases.rows(old) if table != "schema_version"]
    order = sorted(tables, key=lambda table: (table == "environment", table == "run"))
    releases.execute(old, *(f"DELETE FROM {table}" for table in order))
    upgrade(old)
    assert len(Store(old).runs()) == 0
    toy.run(old, lambda _run: None)
    assert list(Store(old).runs()["status"]) == ["COMPLETED"]


def test_all_can_be_read(old):
    upgrade(old)
    store = Store(old)
    runs = store.runs()
    counts = Counter(runs["status"])
    assert counts == {
        "COMPLETED": 9, "RUNNING": 1, "FAILED": 1, "INTERRUPTED": 1, "DIVERGED": 1, "QUEUED": 1,
    }  # fmt: skip
    solves = store.solves()
    traces = store.traces(solves["solve_id"])
    assert len(solves) == 21 and len(store.gradients()) == 16 and len(traces) > 100
    assert any(math.isnan(x) for x in traces["residual"])
    assert len(store.series()) == 61
    for number in runs["id"]:
        run = store.run(int(number))
        assert run["config"]["solver"]["name"] in {"broyden", "anderson", "picard", "newton"}
        assert run["session"] == run["uuid"] and run["last_seq"] == 0
        assert run["code"]["mainfile"] in {"compare.py", "toy.py"}
    study = runs[runs["study"] == "small"]
    assert len(study) == 4 and not study["dirty"].any()
    assert set(study["commit_id"]) == {"6a41b1b7a26b97033bfa505c659521e1c91fdcb4"}
    odd = store.run(int(runs[runs["trial"] == "first"]["id"].iloc[0]))
    assert odd["output"].startswith("printed: ☃ ' \" \\ %s :x\n\tand more")
    assert math.isnan(odd["result"]["loss"]) and odd["info"]["note"]["nul"] == "a\ufffdb"


def test_new_runs_are_recorded_beside_the_old(old):
    upgrade(old)
    before = releases.rows(old)

    def main(_run):
        for step in range(3):
            _run.log_scalar("loss", 1.0 - step, step)
        toy.measure(observer_of[0], toy.CONFIG, 0)

    observer_of = []
    observer = toy.RunObserver(old)
    observer_of.append(observer)
    toy.make(observer, main).run(options={"--capture": "no", "--loglevel": "ERROR"})
    store = Store(old)
    assert list(store.runs()["status"])[-1] == "COMPLETED" and len(store.runs()) == 15
    assert len(store.solves()) == 23 and len(store.series(names="loss")) == 55
    after = releases.rows(old)
    for table, rows in before.items():
        assert all(row in after[table] for row in rows), table


# What version 2 makes of version 1


def test_programs_have_a_row_each_which_runs_share(first):
    before = {row["id"]: row["code"] for row in releases.rows(first)["run"]}
    upgrade(first)
    after = releases.rows(first)
    assert len(after["code"]) == 2
    programs = {row["id"]: row for row in after["code"]}
    for run in after["run"]:
        was, program = before[run["id"]], programs[run["code_id"]]
        was, sources = (
            json.loads(x) if isinstance(x, str) else x for x in (was, program["sources"])
        )
        assert sources == dict(was["sources"])
        assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in sources.values())
        assert (program["mainfile"], program["base_dir"]) == (was["mainfile"], was["base_dir"])
        for repository in was["repositories"]:
            assert program["repository"] == repository["url"]
            assert program["commit_id"] == repository["commit"]
            assert bool(program["dirty"]) == repository["dirty"]


@pytest.mark.parametrize(
    "code",
    [
        {"mainfile": "a.py", "base_dir": "/x", "sources": [["a.py", "00"]], "repositories": [
            {"url": "u", "commit": "c", "dirty": True}, {"url": "v", "commit": "d", "dirty": False},
        ]},
        {"mainfile": "a.py", "base_dir": "/x", "sources": [["a", "00"], ["a", "11"]], "odd": 1},
        ["no mapping"],
        "a text",
    ],
)  # fmt: skip
def test_what_no_column_holds_of_a_program_is_kept_with_the_run(first, code):
    meta = Store.__name__  # any text
    releases.execute(
        first,
        f"UPDATE run SET code = '{json.dumps(code)}' WHERE id IN (1, 2)",
        f"UPDATE run SET meta = '{json.dumps(meta)}' WHERE id = 2",
        "UPDATE run SET code = NULL WHERE id = 3",
    )
    known = _meta(first, 1)
    upgrade(first)
    store = Store(first)
    assert store.run(1)["meta"] == known | {"code": code}
    assert store.run(2)["meta"] == {"meta": meta, "code": code}
    assert store.run(3)["code"] is None and "code" not in store.run(4)["meta"]
    if isinstance(code, dict) and "repositories" in code:
        assert store.run(1)["code"]["commit_id"] == "c" and store.run(1)["code"]["dirty"] == 1


def _meta(url, number):
    found = next(row["meta"] for row in releases.rows(url)["run"] if row["id"] == number)
    return json.loads(found) if isinstance(found, str) else found


def test_series_are_summed_up(first):
    releases.execute(first, "INSERT INTO series (id, run_id, name) VALUES (99, 1, 'empty')")
    points = releases.rows(first)["point"]
    upgrade(first)
    series = releases.rows(first)["series"]
    assert {"odd", "loss", "never finite", "a text", "empty"} == {row["name"] for row in series}
    for row in series:
        mine = sorted(
            (p for p in points if p["series_id"] == row["id"]), key=lambda point: point["ord"]
        )
        finite = [p for p in mine if p["flag"] == 0]
        assert row["n"] == len(mine) and row["nonfinite"] == len(mine) - len(finite)
        last = finite[-1] if finite else {"step": None, "value": None}
        least = min(finite, key=lambda p: p["value"], default={"step": None, "value": None})
        assert (row["last_step"], row["last_value"]) == (last["step"], last["value"])
        assert (row["least_step"], row["least"]) == (least["step"], least["value"])
        assert row["largest"] == max((p["value"] for p in finite), default=None)


def test_views_of_ones_own_stay(first):
    releases.execute(
        first,
        "CREATE VIEW a_mine AS SELECT id, solver FROM v_runs",
        "CREATE VIEW b_mine AS SELECT count(*) AS n FROM a_mine",
    )
    upgrade(first)
    assert Store(first).query("select n from b_mine")["n"][0] == 14


# When it cannot be


def test_a_failure_in_the_middle_leaves_the_store_as_it_was(first):
    releases.execute(first, "CREATE TABLE rejected_event (mine INTEGER)")
    before = everything(first)
    with pytest.raises(StoreError, match=r"could not be upgraded and is as it was: .*exists"):
        upgrade(first)
    assert everything(first) == before and copies(first) == []
    releases.execute(first, "DROP TABLE rejected_event")
    assert upgrade(first).before == 1


def test_a_row_that_breaks_a_rule_is_not_lost_in_silence(url):
    releases.load(url, 1)
    releases.execute(
        url,
        "UPDATE run SET seconds = 1e999 WHERE id = 3",
        setting="PRAGMA ignore_check_constraints=ON",
    )
    before = everything(url)
    with pytest.raises(StoreError, match=r"is as it was: CHECK constraint failed.*seconds"):
        upgrade(url)
    assert everything(url) == before and copies(url) == []


def test_rows_that_refer_to_nothing_are_named(url):
    releases.load(url, 1)
    releases.execute(url, "UPDATE series SET run_id = 77 WHERE id = 2")
    before = everything(url)
    with pytest.raises(
        StoreError, match=r"as it was: a row of series refers to one of run that is not there"
    ):
        upgrade(url)
    assert everything(url) == before and copies(url) == []


def test_rows_that_would_be_lost_are_counted(url):
    releases.load(url, 1)
    releases.execute(
        url, "CREATE TRIGGER thief AFTER UPDATE ON series BEGIN DELETE FROM point; END"
    )
    before = everything(url)
    with pytest.raises(StoreError, match="as it was: point had 61 rows and would have 0"):
        upgrade(url)
    assert everything(url) == before and copies(url) == []


def test_a_view_of_ones_own_that_no_longer_fits_is_named(first):
    releases.execute(first, "CREATE VIEW mine AS SELECT code FROM run")
    before = everything(first)
    with pytest.raises(StoreError, match="your own view mine does not fit"):
        upgrade(first)
    assert everything(first) == before and copies(first) == []


def test_what_else_stands_on_our_views_is_respected(postgres_server):
    url = postgres_server.fresh()
    releases.load(url, 1)
    releases.execute(url, "CREATE MATERIALIZED VIEW mine AS SELECT id FROM v_runs")
    before = everything(url)
    with pytest.raises(StoreError, match="v_runs cannot be made anew"):
        upgrade(url)
    assert everything(url) == before


UPGRADE = "import sys; from db.upgrade import upgrade; print(upgrade(sys.argv[1]).before)"


def start(url):
    return subprocess.Popen(
        [sys.executable, "-c", UPGRADE, str(url)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_kill_9_in_the_middle_leaves_a_file_as_it_was(url):
    releases.load(url, 1)
    before = everything(url)
    forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    releases.execute(
        url,
        f"CREATE TRIGGER slow AFTER UPDATE ON series BEGIN SELECT count(*) FROM ({forever}); END",
    )
    running = start(url)
    wait_for(lambda: any(path.suffix == ".bak" for path in copies(url)))
    time.sleep(0.5)  # beyond the first steps
    assert running.poll() is None
    running.kill()
    running.communicate()
    releases.execute(url, "DROP TRIGGER slow")
    assert everything(url) == before
    assert upgrade(url).before == 1


def test_kill_9_in_the_middle_leaves_a_server_as_it_was(postgres_server):
    import psycopg

    url = postgres_server.fresh()
    releases.load(url, 1)
    before = everything(url)
    releases.execute(
        url,
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(600); RETURN NULL; END'",
        "CREATE TRIGGER slow AFTER UPDATE ON series EXECUTE FUNCTION doze()",
    )
    running = start(url)
    name = url.rpartition("/")[2]
    asleep = f"FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = '{name}'"
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        wait_for(lambda: admin.execute(f"SELECT count(*) {asleep}").fetchone() == (1,))
        running.kill()
        running.communicate()
        # the server notices when it next has something to say
        admin.execute(f"SELECT pg_terminate_backend(pid) {asleep}")
    releases.execute(url, "DROP TRIGGER slow ON series", "DROP FUNCTION doze")
    assert everything(url) == before
    assert upgrade(url).before == 1


def test_a_server_that_goes_down_in_the_middle(postgres_server):
    url = postgres_server.fresh()
    releases.load(url, 1)
    before = everything(url)
    releases.execute(
        url,
        "CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
        "CREATE TRIGGER bad AFTER UPDATE ON series EXECUTE FUNCTION ends()",
    )
    with pytest.raises(StoreAway, match="could not be upgraded and is as it was"):
        upgrade(url)
    releases.execute(url, "DROP TRIGGER bad ON series", "DROP FUNCTION ends")
    assert everything(url) == before


def test_a_store_that_is_not_there(tmp_path, postgres_server):
    for place in (tmp_path / "none.db", postgres_server.fresh()):
        for function in (pending, upgrade):
            with pytest.raises(StoreError, match="there is no store at"):
                function(place)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_copy(url):
    releases.load(url, 1)
    before = everything(url)
    pages = url.stat().st_size
    free = os.statvfs(url.parent)
    os.truncate(url, free.f_bavail * free.f_frsize)  # a hole, which takes no room itself
    with pytest.raises(StoreAway, match=r"MB free, and a copy of it .* make room"):
        upgrade(url)
    assert copies(url) == []
    os.truncate(url, pages)
    assert everything(url) == before


# The copy


def test_a_file_is_copied_first(url):
    releases.load(url, 1)
    url.chmod(0o640)
    before = everything(url)
    done = upgrade(url)
    assert [done.copy] == copies(url)
    assert re.fullmatch(r"store\.db\.v1-\d{8}T\d{6}\.bak", done.copy.name)
    assert everything(done.copy) == before
    assert done.copy.stat().st_mode == url.stat().st_mode
    done.copy.rename(url)  # the way back
    assert pending(url) == (1, SCHEMA_VERSION)


def test_copies_of_one_second_do_not_replace_each_other(url):
    made = set()
    for _ in range(3):
        url.unlink(missing_ok=True)
        releases.load(url, 1)
        part = url.with_name("store.db.v1-20200101T000000.bak.part")
        part.write_text("what one that was killed left behind")
        made.add(upgrade(url).copy)
        assert not part.exists()
    assert len(made) == 3 and all(len(releases.rows(copy)["run"]) == 14 for copy in made)


def test_the_copy_has_what_only_the_log_holds(url):
    releases.load(url, 1)
    with contextlib.closing(sqlite3.connect(url)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE run SET comment = 'late' WHERE id = 1")
        writer.commit()
        assert url.with_name("store.db-wal").stat().st_size > 0
        copy = upgrade(url).copy
    assert releases.rows(copy)["run"][0]["comment"] == "late"


def test_a_server_needs_no_copy(postgres_server):
    url = postgres_server.fresh()
    releases.load(url, 1)
    assert upgrade(url).copy is None


# Versions


def test_a_store_of_the_present_is_left_alone(either):
    toy.run(either, lambda _run: None)
    before = everything(either)
    done = upgrade(either)
    assert (done.before, done.after, done.copy) == (SCHEMA_VERSION, SCHEMA_VERSION, None)
    assert done.rows["run"] == 1
    assert everything(either) == before and copies_of_upgrades(either) == []
    assert pending(either) == (SCHEMA_VERSION, SCHEMA_VERSION)


def copies_of_upgrades(url):
    return [path for path in copies(url) if ".bak" in path.name]


def test_an_older_store_is_refused_with_the_command_to_run(old, version):
    before = everything(old)
    shown = str(old)
    command = f"has schema version {version} .*run `deq db upgrade --store {shown}`"
    for opening in (Store, connect, lambda url: toy.run(url, lambda _run: None)):
        with contextlib.suppress(StoreAway), pytest.raises(StoreError, match=command):
            opening(old)
    assert pending(old) == (version, SCHEMA_VERSION)
    assert everything(old) == before


def test_a_newer_store_is_refused(first):
    releases.execute(first, "UPDATE schema_version SET version = 99")
    before = everything(first)
    for opening in (Store, connect, upgrade):
        with pytest.raises(StoreError, match=r"has schema version 99 .*use a newer deq-lab"):
            opening(first)
    assert pending(first) == (99, SCHEMA_VERSION)
    assert everything(first) == before and copies(first) == []


def test_a_version_that_never_was(first):
    releases.execute(first, "UPDATE schema_version SET version = 0")
    before = everything(first)
    with pytest.raises(StoreError, match=f"no way from version 0 to {SCHEMA_VERSION}"):
        upgrade(first)
    assert everything(first) == before and copies(first) == []


# Others at the same time


def test_four_upgrades_at_once_are_one(old, version):
    running = [start(old) for _ in range(4)]
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 4, answers
    assert sorted(int(out) for out, _ in answers) == [version] + [SCHEMA_VERSION] * 3
    assert len(copies(old)) == (0 if "://" in str(old) else 1)
    assert len(Store(old).runs()) == 14


def test_an_upgrade_waits_for_who_is_writing(url, monkeypatch, caplog):
    releases.load(url, 1)
    monkeypatch.setattr(dialects, "PATIENCE", 0.1)
    with contextlib.closing(
        sqlite3.connect(url, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE run SET comment = 'just now' WHERE id = 1")
        threading.Timer(0.8, lambda: other.execute("COMMIT")).start()
        with caplog.at_level("WARNING", logger="db.upgrade"):
            upgrade(url)
    assert "somebody else is writing" in caplog.text  # and waited for again
    assert Store(url).run(1)["comment"] == "just now"


def test_a_reader_who_holds_a_server_is_not_waited_for_without_end(postgres_server, monkeypatch):
    import psycopg

    url = postgres_server.fresh()
    releases.load(url, 1)
    before = everything(url)
    monkeypatch.setattr(dialects, "PATIENCE", 0.1)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM run")
        with pytest.raises(StoreAway, match=r"is as it was: .*lock timeout"):
            upgrade(url)
    assert everything(url) == before
    assert upgrade(url).before == 1


ELSEWHERE = {"host": "elsewhere", "pid": 1, "boot_id": "b", "proc_start": 1}


def runs_at(url, where, heartbeat):
    """Make run 5 a running one of the process ``where``."""
    columns = {key: where.get(key) for key in ("host", "pid", "boot_id", "proc_start")}
    columns |= {"status": "RUNNING", "heartbeat_at": heartbeat.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    values = ", ".join(f"{name} = '{value}'" for name, value in columns.items())
    releases.execute(url, f"UPDATE run SET {values} WHERE id = 5")


def test_a_store_with_a_run_of_a_living_process_is_refused(first):
    here = process({"hostname": socket.gethostname()})
    runs_at(first, here, datetime.now(UTC) - timedelta(days=1))  # late, and there all the same
    before = everything(first)
    with pytest.raises(
        StoreError, match=rf"runs write to it: 5 \(compare, process {os.getpid()} on .*--force"
    ):
        upgrade(first)
    assert everything(first) == before and copies(first) == []
    assert upgrade(first, force=True).before == 1


def test_a_run_of_a_dead_process_of_this_machine_is_no_hindrance(first):
    ended = subprocess.run(
        [sys.executable, "-c", "from db.machine import process; print(process({}))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    runs_at(first, eval(ended.stdout), datetime.now(UTC))
    assert upgrade(first).before == 1


@pytest.mark.parametrize(("seconds", "alive"), [(5, True), (3600, False)])
def test_a_run_elsewhere_is_alive_while_it_beats(first, seconds, alive):
    runs_at(first, ELSEWHERE, datetime.now(UTC) - timedelta(seconds=seconds))
    if alive:
        with pytest.raises(StoreError, match=r"runs write to it: 5 \(.* on elsewhere\)"):
            upgrade(first)
    else:
        assert upgrade(first).before == 1


def test_a_process_that_writes_while_the_store_is_upgraded_by_force(first):
    """A signal of life of an older program still fits; nothing of it is lost."""
    runs_at(first, ELSEWHERE, datetime.now(UTC))
    upgrade(first, force=True)
    releases.execute(
        first,
        "UPDATE run SET status = 'COMPLETED', seconds = 1 WHERE id = 5",
        "INSERT INTO series (run_id, name) VALUES (5, 'late')",
    )
    assert Store(first).run(5)["status"] == "COMPLETED"


def test_reading_while_it_goes_on_is_of_before(url):
    releases.load(url, 1)
    with contextlib.closing(sqlite3.connect(url)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(code) FROM run").fetchone() == (14,)
        upgrade(url)
        assert reader.execute("SELECT count(code) FROM run").fetchone() == (14,)


def test_what_is_needed_is_among_the_files_of_the_package():
    steps = Path(dialects.__file__).parent / "migrations" / "versions"
    assert {path.name for path in steps.glob("version_*.py")} == {
        f"version_{n}.py" for n in range(1, SCHEMA_VERSION + 1)
    }
