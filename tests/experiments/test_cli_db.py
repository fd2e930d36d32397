"""``deq db …`` as one types it, on both kinds of database."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from said import Deq, Said
from sqlalchemy import insert, update

from db import Store, journal, machine, schema
from db.schema import Base, Run
from db.store import connect, locate

TABLES = Base.metadata.tables
STORES = Path(__file__).parents[1] / "db" / "stores"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with two runs, which is the default one."""
    import tiny

    from experiments.runner.recording import run_experiment

    place = str(workplace / "store.db")
    if request.param == "postgresql":
        place = request.getfixturevalue("postgres").fresh()
        monkeypatch.setenv("DEQ_STORE", place)
        monkeypatch.setenv("DEQ_JOURNAL", str(workplace / "journals"))
    for seed in (0, 1):
        run_experiment(tiny.experiment, {"seed": seed}, store=place)
    return place


@contextlib.contextmanager
def writing(url: str) -> Iterator[Any]:
    engine = connect(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def strict(said: Said) -> Any:
    assert said.code in (0, 1), said.err

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(said.out, parse_constant=refuse)


def dead() -> dict[str, Any]:
    """A process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return {**machine.process({}), "pid": done.pid}


def test_info_says_what_the_store_holds(deq: Deq, url: str) -> None:
    found = strict(deq("db", "info", "--json"))
    assert found["store"] == locate(url).shown()
    assert (found["runs"], found["solves"], found["points"]) == ({"COMPLETED": 2}, 2, 2)
    assert found["last_write"].endswith("Z")
    said = deq("db", "info").out
    assert "runs.COMPLETED: 2\n" in said
    assert f"store: {locate(url).shown()}\n" in said
    assert "KB" in said or "MB" in said
    assert "key,value\n" in deq("db", "info", "--csv").out


def test_a_store_in_order_is_said_to_be(deq: Deq, url: str) -> None:
    said = deq("db", "doctor")
    assert (said.code, said.out) == (0, "all is in order\n")
    assert strict(deq("db", "doctor", "--json")) == []
    assert deq("db", "doctor", "--csv").out == "level,what,remedy\n"
    assert deq("db", "doctor", "--mend").out == "all is in order\n"


def test_what_is_found_is_mended_by_the_command_that_is_named(deq: Deq, url: str) -> None:
    with writing(url) as connection:
        connection.exec_driver_sql("DROP INDEX ix_tag_tag")
        connection.exec_driver_sql("UPDATE series SET n = 7 WHERE id = 1")
        connection.execute(
            update(TABLES["run"]).where(Run.id == 2).values(status="RUNNING", **dead())
        )
        blob = {"sha256": "a" * 64, "size": 1, "data": b"x"}
        connection.execute(insert(TABLES["blob"]), blob)
    said = deq("db", "doctor")
    assert said.code == 1
    found = strict(deq("db", "doctor", "--json"))
    assert [f["level"] for f in found] == ["error", "error", "warning", "note"]
    for finding in found:
        assert f"{finding['level']}: {finding['what']}\n  {finding['remedy']}\n" in said.out
        words = finding["remedy"].split()
        assert words[0] == "deq"
        assert deq(*words[1:], *(["--yes"] if words[1:3] != ["runs", "reap"] else [])).code in (
            0,
            1,
        )
    assert deq("db", "doctor").out == "all is in order\n"
    assert Store(url).run(2)["status"] == "DIED"


def test_the_commands_named_are_about_the_store_that_was_asked(
    deq: Deq, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEQ_STORE", "another.db")
    with writing(url) as connection:
        connection.exec_driver_sql("DROP INDEX ix_tag_tag")
    (finding,) = strict(deq("db", "doctor", "--store", url, "--json"))
    words = finding["remedy"].split()
    assert words[-2:] == ["--store", locate(url).shown()]
    assert deq(*words[1:], "--yes").code == 0
    assert deq("db", "doctor", "--store", url).code == 0
    assert not Path("another.db").exists()


def test_only_notes_end_in_success(deq: Deq, url: str) -> None:
    with writing(url) as connection:
        blob = {"sha256": "a" * 64, "size": 1, "data": b"x"}
        connection.execute(insert(TABLES["blob"]), blob)
    said = deq("db", "doctor")
    assert said.code == 0
    assert said.out.startswith("note: 1 blobs")


def test_a_newer_schema_is_named_by_info_and_doctor(deq: Deq, url: str) -> None:
    with writing(url) as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    assert strict(deq("db", "info", "--json"))["schema"] == 99
    assert "deq db doctor" in deq("db", "info").out
    said = deq("db", "doctor")
    assert said.code == 1
    assert "version 99" in said.out
    said = deq("db", "upgrade")
    assert said.code == 2
    assert "version 99" in said.err
    assert said.out == ""


def test_a_store_of_the_present_schema_needs_no_upgrade(deq: Deq, url: str) -> None:
    said = deq("db", "upgrade")
    assert said.code == 0
    assert said.out == f"nothing to do: the schema has version {schema.SCHEMA_VERSION}\n"


def test_an_older_store_is_upgraded_and_copied_first(deq: Deq, workplace: Path) -> None:
    with contextlib.closing(sqlite3.connect("store.db")) as connection:
        connection.executescript((STORES / "v1.sqlite.sql").read_text(encoding="utf-8"))
    before = strict(deq("db", "info", "--json"))
    assert before["schema"] < before["needs"]
    said = deq("db", "doctor")
    assert (said.code, "deq db upgrade" in said.out) == (1, True)
    assert "deq db upgrade" in deq("runs", "ls").err
    said = deq("db", "upgrade")
    assert said.code == 0, said.err
    copy = next(line for line in said.out.splitlines() if "as it was" in line).split(": ")[1]
    assert Path(copy).exists()
    assert "deq runs reap" in deq("db", "doctor").out  # one was killed, as long ago as that
    assert deq("runs", "reap").code == 0
    assert deq("db", "doctor").code == 0
    assert len(strict(deq("runs", "ls", "--json"))) > 0
    assert strict(deq("db", "info", "--json", "--store", copy))["schema"] == before["schema"]


def test_journals_left_behind_are_stored(deq: Deq, url: str) -> None:
    folder = journal.folder(url)
    session = Store(url).query("select session from run where id = 1")["session"][0]
    kept = journal.Journal(folder, {"session": session, "uuid": "x"} | dead())
    kept.append(journal.Event(10_000, "beat", {"run": {"comment": "from the journal"}}))
    kept.close()
    assert strict(deq("db", "info", "--json"))["journals"]["waiting"] == 1
    said = deq("db", "doctor")
    assert (said.code, "deq db sync" in said.out) == (1, True)
    found = strict(deq("db", "sync", "--json"))
    assert (len(found["runs"]), found["problems"]) == (1, [])
    assert Store(url).run(1)["comment"] == "from the journal"
    assert deq("db", "sync").out == "nothing to store\n"
    assert deq("db", "doctor").code == 0


def test_stores_are_merged_twice_without_harm(deq: Deq, url: str, workplace: Path) -> None:
    said = deq("db", "merge", url, "--store", "all.db")
    assert said.out == "2 runs added, 0 renewed, 0 the same already\n", said.err
    found = strict(deq("db", "merge", url, "--store", "all.db", "--json"))
    assert (found["added"], found["renewed"], len(found["same"])) == ([], [], 2)
    assert set(found["same"]) == set(Store(url).runs()["uuid"])
    assert len(Store("all.db").solves()) == 2
    assert strict(deq("db", "doctor", "--store", "all.db", "--json")) == []
    said = deq("db", "merge", "all.db")
    assert said.out == "0 runs added, 0 renewed, 2 the same already\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("none.db", "none.db"),
        ("text.txt", "text.txt"),
        (".", "."),
        ("mysql://x/y", "unknown kind"),
        ("'; drop table run; --", "drop table"),
        ("", ""),
    ],
)
def test_what_is_no_source_is_refused(deq: Deq, workplace: Path, source: str, reason: str) -> None:
    Store("store.db", create=True)
    Path("text.txt").write_text("not a store")
    before = sorted(p.name for p in Path().iterdir())
    said = deq("db", "merge", source)
    assert said.code == 2
    assert said.out == ""
    assert reason in said.err
    assert "Traceback" not in said.err
    assert sorted(p.name for p in Path().iterdir()) == before


@pytest.mark.parametrize("words", [("info",), ("doctor",), ("upgrade",), ("doctor", "--mend")])
@pytest.mark.parametrize(
    "store",
    ["none.db", "none/none.db", "text.txt", ".", "foreign.db", "mysql://h/d", "nonsense://"],
)
def test_what_is_no_store_is_refused_and_left_alone(
    deq: Deq, workplace: Path, words: tuple[str, ...], store: str
) -> None:
    Path("text.txt").write_text("not a store")
    with contextlib.closing(sqlite3.connect("foreign.db")) as connection:
        connection.execute("CREATE TABLE thing (a)")
    before = {p.name: p.read_bytes() for p in Path().iterdir()}
    said = deq("db", *words, "--store", store)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert {p.name: p.read_bytes() for p in Path().iterdir()} == before


def test_a_server_that_is_away_is_one_sentence(deq: Deq, workplace: Path) -> None:
    away = "postgresql://me:secret@127.0.0.1:1/lab"
    for words in (("db", "info"), ("db", "doctor"), ("runs", "ls"), ("runs", "gc", "--yes")):
        said = deq(*words, "--store", away)
        assert said.code == 2
        assert "cannot be reached" in said.err
        assert "secret" not in said.err
        assert len(said.err.strip().splitlines()) == 1


def test_a_directory_that_may_only_be_read(deq: Deq, url: str) -> None:
    if url.startswith("postgresql") or os.geteuid() == 0:
        pytest.skip("for a file, and a user whom permissions hold")
    Path().chmod(0o555)
    try:
        assert deq("db", "info").code == 0
        said = deq("runs", "tag", "1", "--add", "x")
        assert said.code == 2
        assert "cannot be opened" in said.err or "cannot be used" in said.err
    finally:
        Path().chmod(0o755)
