"""``deq runs …`` as one types it."""

import contextlib
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from said import Deq, Said
from sqlalchemy import update

from db import Store, upkeep
from db.schema import Base, Run
from db.store import connect
from experiments import tables

DEQ = "import sys; from experiments.cli import main; sys.exit(main())"
HOSTILE = ["'; drop table run; --", "%", "_", '"', "../..", "1 or 1=1", "{}", "-", "ü", "99", "zz"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four runs, made once."""
    import tiny

    from experiments.runner.recording import run_experiment

    path = tmp_path_factory.mktemp("template") / "store.db"
    for solver, seed in (("broyden", 0), ("broyden", 1), ("anderson", 0), ("anderson", 1)):
        config: dict[str, Any] = {"solver": {"name": solver}, "seed": seed, "reltol": [1e-2, 1e-4]}
        run_experiment(tiny.experiment, config, store=str(path))
    return path


@pytest.fixture
def filled(template: Path, workplace: Path) -> Path:
    """A store of four runs, of which a test may do what it likes."""
    return Path(shutil.copy(template, workplace / "store.db"))


def strict(said: Said) -> Any:
    """What a program reads that knows nothing but the standard."""
    assert said.code in (0, 1), said.err

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(said.out, parse_constant=refuse)


def read(said: Said) -> pd.DataFrame:
    assert said.code in (0, 1), said.err
    return pd.read_csv(io.StringIO(said.out))


def start(*words: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DEQ, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Any]:
    engine = connect(path)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def change(path: Path, number: int, **values: Any) -> None:
    with writing(path) as connection:
        table = Base.metadata.tables["run"]
        connection.execute(update(table).where(Run.id == number).values(**values))


READING: dict[str, tuple[str, ...]] = {
    "ls": ("runs", "ls"),
    "ls where": ("runs", "ls", "--where", "solver=broyden"),
    "ls deleted": ("runs", "ls", "--deleted"),
    "show": ("runs", "show", "1"),
    "show several": ("runs", "show", "1", "3"),
    "diff": ("runs", "diff", "1", "3"),
    "best": ("runs", "best", "seconds"),
    "compare": ("runs", "compare", "evaluations", "broyden", "anderson"),
    "query": ("query", "select id, status, started_at, 1.5 as x, null as y from v_runs"),
    "gc": ("runs", "gc", "--dry-run"),
    "reap": ("runs", "reap"),
    "sync": ("db", "sync"),
    "info": ("db", "info"),
    "doctor": ("db", "doctor"),
}


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_every_reading_command_gives_a_table_json_and_csv(
    deq: Deq, filled: Path, words: tuple[str, ...]
) -> None:
    before = Store(str(filled)).runs()
    assert deq(*words).code == 0
    parsed = strict(deq(*words, "--json"))
    frame = pd.read_csv(io.StringIO(deq(*words, "--csv").out))
    if isinstance(parsed, list) and words[1] != "show":
        assert len(frame) == len(parsed)
        assert not parsed or list(frame.columns) == list(parsed[0])
    else:
        assert {"key", "value"} <= set(frame.columns)
    elsewhere = filled.rename("elsewhere.db")
    assert type(strict(deq(*words, "--store", str(elsewhere), "--json"))) is type(parsed)
    assert not filled.exists()
    pd.testing.assert_frame_equal(Store(str(elsewhere)).runs(), before)


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_a_store_that_is_not_there_is_said_and_not_made(
    deq: Deq, workplace: Path, words: tuple[str, ...]
) -> None:
    said = deq(*words)
    if words[:2] == ("db", "sync"):  # no journal waits
        assert (said.code, said.out) == (0, "nothing to store\n")
    else:
        assert said.code == 2
        assert "there is no store" in said.err
    assert list(workplace.iterdir()) == []


EMPTY = ("ls", "ls deleted", "query", "gc", "reap", "sync", "info", "doctor")


@pytest.mark.parametrize("words", [READING[name] for name in EMPTY], ids=EMPTY)
def test_an_empty_store_has_empty_answers(
    deq: Deq, workplace: Path, words: tuple[str, ...]
) -> None:
    Store("store.db", create=True)
    assert deq(*words).code == 0
    strict(deq(*words, "--json"))
    assert deq(*words, "--csv").code == 0


def test_json_and_csv_together_are_refused(deq: Deq, filled: Path) -> None:
    said = deq("runs", "ls", "--json", "--csv")
    assert (said.code, said.out) == (2, "")
    assert "--json or --csv: one of them" in said.err


def test_json_and_csv_of_runs_read_back_as_the_frame(deq: Deq, filled: Path) -> None:
    frame = Store(str(filled)).runs()
    from_csv, rows = read(deq("runs", "ls", "--csv")), strict(deq("runs", "ls", "--json"))
    assert list(from_csv.columns) == list(rows[0]) == list(frame.columns)
    for name in frame:
        column = frame[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            texts = [row[name] for row in rows]
            assert all(text.endswith("Z") for text in texts)
            for got in (pd.to_datetime(pd.Series(texts)), pd.to_datetime(from_csv[name])):
                assert (got == column).all(), name
            continue
        missing = column.isna()
        assert [row[name] is None for row in rows] == list(missing)
        assert list(from_csv[name].isna()) == list(missing)
        assert [row[name] for row in rows if row[name] is not None] == list(column[~missing])
        there, back = column[~missing], from_csv.loc[~missing, name]
        if pd.api.types.is_numeric_dtype(column.dtype):
            assert list(back.astype(float)) == list(there.astype(float))
        else:
            assert list(back.astype(str)) == list(there.astype(str))


def test_odd_values_are_strict_json_and_csv(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, np.nan, np.inf],
            "whole": pd.array([1, None, 2**62], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "text": ["a", None, 'ü"\n,'],
            "string": pd.array(["a", None, "b"], dtype="string"),
            "time": pd.to_datetime(["2026-01-02T03:04:05.678901Z", None, "2026-01-02"],
                                   format="mixed", utc=True),
            "naive": pd.to_datetime(["2026-01-02", None, "2026-01-03"]),
            "nested": pd.Series([{"x": float("-inf"), 3: [np.float32(1)]}, None, [float("nan")]]),
            "numpy": pd.Series([np.int64(3), np.float64(np.inf), np.bool_(True)], dtype=object),
            "bytes": [b"\x00\xff", None, b""],
        }
    )  # fmt: skip
    tables.print_frame(frame, "json")
    said = Said(0, capsys.readouterr().out, "")
    assert strict(said) == [
        {"number": 1.5, "whole": 1, "flag": True, "text": "a", "string": "a",
         "time": "2026-01-02T03:04:05.678901Z", "naive": "2026-01-02T00:00:00.000000Z",
         "nested": {"x": "-inf", "3": [1.0]}, "numpy": 3, "bytes": "AP8="},
        {"number": None, "whole": None, "flag": None, "text": None, "string": None, "time": None,
         "naive": None, "nested": None, "numpy": "inf", "bytes": None},
        {"number": "inf", "whole": 2**62, "flag": False, "text": 'ü"\n,', "string": "b",
         "time": "2026-01-02T00:00:00.000000Z", "naive": "2026-01-03T00:00:00.000000Z",
         "nested": ["nan"], "numpy": True, "bytes": ""},
    ]  # fmt: skip
    tables.print_frame(frame, "csv")
    back = pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"whole": "Int64"})
    assert list(back["number"][:1]) == [1.5]
    assert np.isinf(back["number"][2])
    assert list(back["whole"].dropna()) == [1, 2**62]
    assert back["text"][2] == 'ü"\n,'
    assert back["time"][0] == "2026-01-02T03:04:05.678901Z"
    assert json.loads(back["nested"][0]) == {"x": "-inf", "3": [1.0]}
    assert back["bytes"][0] == "AP8="


def test_show_says_what_a_number_is_that_is_not_finite(deq: Deq, filled: Path) -> None:
    change(filled, 1, result={"a": {"$float": "nan"}, "b": {"$float": "-inf"}, "c": None})
    shown = strict(deq("runs", "show", "1", "--json"))
    assert shown["result"] == {"a": "nan", "b": "-inf", "c": None}
    rows = read(deq("runs", "show", "1", "2", "--csv"))
    found = {(r.run, r.key): r.value for r in rows.itertuples()}
    assert found[1, "result.b"] == "-inf"
    assert found[2, "config.solver.name"] == "broyden"


def test_a_difference_of_nan_and_nothing_is_one(deq: Deq, filled: Path) -> None:
    config = Store(str(filled)).config(1)
    change(filled, 1, config={**config, "notes": {"$float": "nan"}})
    change(filled, 2, config={**config, "notes": None})
    rows = strict(deq("runs", "diff", "1", "2", "--json"))
    assert {"key": "notes", "1": "nan", "2": None} in rows


def test_config_keys_and_metrics_are_columns(deq: Deq, filled: Path) -> None:
    words = (
        "runs",
        "ls",
        "--config",
        "max_evaluations",
        "--config",
        "what",
        "--metric",
        "residual",
    )
    first = strict(deq(*words, "--json"))[0]
    last = Store(str(filled)).series("id=1")["value"].iloc[-1]
    assert list(first)[-3:] == ["config.max_evaluations", "what", "residual"]
    assert (first["config.max_evaluations"], first["what"], first["residual"]) == (
        50,
        "solve",
        last,
    )
    assert read(deq(*words, "--csv"))["residual"].iloc[0] == last
    assert "residual" in deq(*words).out
    assert deq("runs", "ls", "--config", "solvr.name").code == 2


def test_files_and_patches_are_printed_as_they_are(deq: Deq, filled: Path) -> None:
    store = Store(str(filled))
    (name,) = (n for n in store.run(1)["code"]["sources"] if n.endswith("tiny.py"))
    source = (Path(__file__).parent / "tiny.py").read_text(encoding="utf-8")
    assert deq("runs", "show", "1", "--file", name).out == source
    assert deq("runs", "diff", "1", "2", "--patch").out == (store.patch(1, 2) or "no difference\n")
    for words in (
        ("show", "1", "--file", "none.py"), ("show", "1", "2", "--file", name),
        ("show", "1", "--file", name, "--json"), ("diff", "1", "2", "3", "--patch"),
        ("diff", "1", "2", "--patch", "--csv"),
    ):  # fmt: skip
        said = deq("runs", *words)
        assert (said.code, said.out) == (2, "")


# Many rows


def many(path: Path, n: int) -> None:
    """Copies of a run."""
    with writing(path) as connection:
        columns = Base.metadata.tables["run"].columns
        listed = ", ".join(c.name for c in columns if c.name not in ("id", "uuid", "session"))
        connection.exec_driver_sql(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n}) "
            f"INSERT INTO run (uuid, session, {listed}) "
            f"SELECT printf('%08x', i) || substr(uuid, 9), 's' || i, {listed} "
            "FROM n, run WHERE id = 1"
        )


def test_a_table_has_the_newest_runs_and_says_how_many_more(deq: Deq, filled: Path) -> None:
    many(filled, 1200)
    said = deq("runs", "ls").out.splitlines()
    assert said[-1] == "… 1,154 more (--all, --csv)"
    shown = [line for line in said if "COMPLETED" in line]
    assert len(shown) == 50
    assert "1204" in shown[-1]
    assert len(strict(deq("runs", "ls", "--json"))) == 1204
    assert len(read(deq("runs", "ls", "--csv"))) == 1204
    assert deq("runs", "ls", "--all").out.count("COMPLETED") == 1204
    lines = deq("query", "select id, status from v_runs order by id", "--all").out.splitlines()
    assert lines[0] == "  id  status"
    assert lines[1] == "   1  COMPLETED"
    assert lines[1204] == "1204  COMPLETED"
    assert len(lines) == 1205
    assert deq("runs", "ls", "--limit", "3").out.count("COMPLETED") == 3
    assert [r["id"] for r in strict(deq("runs", "ls", "--limit", "2", "--json"))] == [1203, 1204]
    asked = deq("query", "select id as number from v_runs order by id").out
    assert "│     50 │" in asked
    assert "│     51 │" not in asked
    assert asked.endswith("… 1,154 more (--all, --csv)\n")
    for words in (("--limit", "0"), ("--limit", "x"), ("--limit", "2", "--all")):
        assert deq("runs", "ls", *words).code == 2


def test_a_terminal_is_not_told_what_to_do_by_a_name(deq: Deq, filled: Path) -> None:
    change(filled, 1, experiment="a\x1b[2Jb\rc", comment="\x07")
    for words in (("runs", "ls"), ("runs", "show", "1"), ("query", "select experiment from run")):
        out = deq(*words).out
        assert "a\\x1b[2Jb" in out
        assert not {"\x1b", "\r", "\x07"} & set(out)
    assert strict(deq("runs", "show", "1", "--json"))["experiment"] == "a\x1b[2Jb\rc"


def test_reading_imports_neither_torch_nor_sacred_nor_scipy(filled: Path) -> None:
    commands = (
        "runs ls", "runs show 1", "runs diff 1 3 --json", "runs best seconds", "query 'select 1'",
        "db info", "db doctor", "db sync", "runs reap", "runs tag 1 --add x", "runs rm 1 --yes",
        "runs ls --deleted", "runs gc --yes",
    )  # fmt: skip
    asked = (
        "import shlex, sys\nfrom experiments.cli import main\n"
        "heavy = {'torch', 'sacred', 'scipy', 'altair', 'alembic', 'sklearn'}\n"
        f"for command in {commands!r}:\n"
        "    code = main(shlex.split(command))\n"
        "    print('SAID', code, command, sorted(heavy & sys.modules.keys()), flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert said == [f"SAID 0 {command} []" for command in commands], done.stderr


# Tags


def test_runs_are_tagged_by_number_uuid_and_filter(deq: Deq, filled: Path) -> None:
    uuid = Store(str(filled)).runs()["uuid"][3]
    said = deq("runs", "tag", "1", uuid[:9], "--add", "baseline", "--add", "figure 3")
    assert (said.code, said.out) == (0, "2 runs: 'baseline' added, 'figure 3' added\n")
    listed = strict(deq("runs", "ls", "--json"))
    assert [run["tags"] for run in listed] == [
        "baseline, figure 3",
        None,
        None,
        "baseline, figure 3",
    ]
    assert "baseline, figure 3" in deq("runs", "ls").out
    assert strict(deq("runs", "show", "1", "--json"))["tags"] == ["baseline", "figure 3"]
    assert "tags: " in deq("runs", "show", "1").out
    said = deq("runs", "tag", "--where", "solver=broyden", "--add", "new")
    assert said.out == "2 runs: 'new' added\n"
    assert deq("runs", "tag", "1", "--remove", "baseline", "--add", "x").code == 0
    assert [r["tags"] for r in strict(deq("runs", "ls", "--json"))][:2] == [
        "figure 3, new, x",
        "new",
    ]


@pytest.mark.parametrize("text", ["'; drop table run; --", "--json", "-h", "ü ✓", '"x"'])
def test_odd_tags_are_text(deq: Deq, filled: Path, text: str) -> None:
    assert deq("runs", "tag", "1", f"--add={text}").code == 0
    assert strict(deq("runs", "ls", "--json"))[0]["tags"] == text
    assert deq("runs", "tag", "1", f"--remove={text}").code == 0
    assert strict(deq("runs", "ls", "--json"))[0]["tags"] is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("1",), "which tags?"),
        (("--add", "x"), "which runs?"),
        (("1", "--add", ""), "it is empty"),
        (("1", "--add", "a,b"), "a comma"),
        (("1", "--add", "a\nb"), "a control character"),
        (("1", "99", "--add", "x"), "there is no run '99'"),
        (("1", "--where", "id=1", "--add", "x"), "one of them"),
        (("--where", "", "--add", "x"), "which runs?"),
        (("--where", "id=", "--add", "x"), "cannot be read"),
        (("1", "--remove", "x"), "they have no tags"),
        (("1", "--ad", "x"), "--add"),
    ],
)
def test_a_wrong_tag_changes_nothing(
    deq: Deq, filled: Path, words: tuple[str, ...], reason: str
) -> None:
    said = deq("runs", "tag", *words)
    assert (said.code, said.out) == (2, "")
    assert reason in said.err
    assert Store(str(filled)).runs()["tags"].isna().all()


def test_a_filter_that_no_run_passes_is_said(deq: Deq, filled: Path) -> None:
    for words in (("tag", "--add", "x"), ("rm", "--yes")):
        said = deq("runs", *words, "--where", "seed=77")
        assert said.code == 1
        assert "no run matches the filter 'seed=77'" in said.err


# Names


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "words",
    [
        ("show",), ("diff", "1"), ("tag", "--add", "x"), ("rm", "--yes"), ("rm", "--undo"),
        ("rerun",), ("export", "--form", "json", "out"),
    ],
    ids="-".join,
)  # fmt: skip
def test_a_name_that_no_run_has_is_refused(
    deq: Deq, filled: Path, name: str, words: tuple[str, ...]
) -> None:
    command, *rest = words
    at = [name, "out"] if command == "export" else [name]
    options = [w for w in rest if w != "out"]
    said = deq("runs", command, *options, "--", *at)
    assert said.code == 2
    assert f"there is no run {name!r}" in said.err or "difference needs" in said.err
    assert "Traceback" not in said.err
    store = Store(str(filled))
    assert len(store.runs()) == 4
    assert not Path("out").exists()


@pytest.mark.parametrize("words", [("show", "-1"), ("rm", "--drop"), ("show", "--1")])
def test_a_name_that_looks_like_an_option_is_one(
    deq: Deq, filled: Path, words: tuple[str, ...]
) -> None:
    said = deq("runs", *words)
    assert said.code == 2
    assert "No such option" in said.err


def test_a_start_that_several_uuids_have_is_refused(deq: Deq, filled: Path) -> None:
    change(filled, 1, uuid="abcd1-0")
    change(filled, 2, uuid="abcd2-0")
    said = deq("runs", "show", "abcd")
    assert said.code == 2
    assert "'abcd' is the start of 2 runs' uuids" in said.err
    assert strict(deq("runs", "show", "abcd2", "--json"))["id"] == 2


def test_words_that_are_no_text_are_refused(filled: Path) -> None:
    for words in (["runs", "show", b"\xff\xfe"], ["query", b"select '\xff'"]):
        done = subprocess.run([sys.executable, "-c", DEQ, *words], capture_output=True, check=False)
        assert done.returncode == 2
        assert b"is no text in UTF-8" in done.stderr


# Putting away


def test_runs_are_put_away_listed_and_taken_back(deq: Deq, filled: Path) -> None:
    before = Store(str(filled)).runs()
    said = deq("runs", "rm", "2", str(before["uuid"][2]), "--yes")
    assert said.code == 0
    assert said.out.startswith("2 runs put away")
    assert [r["id"] for r in strict(deq("runs", "ls", "--json"))] == [1, 4]
    away = strict(deq("runs", "ls", "--deleted", "--json"))
    assert [r["id"] for r in away] == [2, 3]
    assert away[0]["deleted_at"].endswith("Z")
    assert "deleted_at" in deq("runs", "ls", "--deleted").out
    assert [
        r["id"] for r in strict(deq("runs", "ls", "--deleted", "--where", "seed=1", "--json"))
    ] == [2]
    assert strict(deq("runs", "show", "2", "--json"))["deleted_at"] is not None
    assert deq("runs", "rm", "2", "--yes").out == "nothing to do: put away already\n"
    assert deq("runs", "rm", "--undo", "2", "3").out == "2 runs taken back\n"
    pd.testing.assert_frame_equal(Store(str(filled)).runs(), before)
    said = deq("runs", "rm", "--undo", "2")
    assert said.code == 2
    assert "run 2 is not put away" in said.err
    assert deq("runs", "rm", "--where", "solver=broyden", "--yes").code == 0
    assert [r["id"] for r in strict(deq("runs", "ls", "--json"))] == [3, 4]


def test_a_running_run_is_not_put_away(deq: Deq, filled: Path) -> None:
    change(filled, 2, status="RUNNING")
    said = deq("runs", "rm", "1", "2", "--yes")
    assert said.code == 2
    assert "run 2 is running" in said.err
    assert len(Store(str(filled)).runs()) == 4


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "rm", "1"),
        ("runs", "rm", "--where", "id>0"),
        ("runs", "gc"),
        ("db", "doctor", "--mend"),
    ],
)
@pytest.mark.parametrize("stdin", ["devnull", "pipe", "closed"])
def test_without_a_terminal_nothing_is_asked_and_nothing_done(
    filled: Path, words: tuple[str, ...], stdin: str
) -> None:
    upkeep.put_away(str(filled), 4)
    if words[0] == "db":
        with writing(filled) as connection:
            connection.exec_driver_sql("DROP INDEX ix_tag_tag")
    command = [sys.executable, "-c", DEQ, *words]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin == "devnull" else {}
    if stdin == "pipe":
        options = {"input": "y\ny\n"}
    if stdin == "closed":
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 2, done.stderr
    assert "there is no terminal to ask at; --yes does it" in done.stderr
    assert list(upkeep.away(str(filled))["id"]) == [4]
    assert len(Store(str(filled)).runs()) == 3
    assert len(upkeep.doctor(str(filled))) == (words[0] == "db")


def at_a_terminal(answer: str, *words: str) -> tuple[int, str]:
    """What a command says to somebody who answers its question."""
    ours, theirs = pty.openpty()
    process = start(*words, stdin=theirs)
    os.close(theirs)
    os.write(ours, answer.encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out + err


def test_what_would_go_is_shown_and_asked_about(filled: Path) -> None:
    code, said = at_a_terminal("n\n", "runs", "rm", "1", "3")
    assert code == 1
    assert "put away 2 runs with 4 solves? [y/N]" in said
    assert "tiny" in said
    assert "nothing is done" in said
    assert len(Store(str(filled)).runs()) == 4
    assert at_a_terminal("\n", "runs", "rm", "1", "3")[0] == 1
    assert at_a_terminal("y\n", "runs", "rm", "1", "3")[0] == 0
    assert list(Store(str(filled)).runs()["id"]) == [2, 4]
    code, said = at_a_terminal("n\n", "runs", "gc")
    assert (code, "would delete 2 runs" in said) == (1, True)
    assert len(upkeep.away(str(filled))) == 2
    code, said = at_a_terminal("y\n", "runs", "gc")
    assert (code, "deleted 2 runs" in said) == (0, True)
    assert upkeep.away(str(filled)).empty


@pytest.mark.parametrize("answer", ["\x03", "\x04"], ids=["ctrl-C", "ctrl-D"])
def test_a_question_that_is_broken_off_does_nothing(filled: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    # in a session of its own, whose terminal sends the signal
    process = start(
        "runs", "rm", "1", stdin=theirs, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    assert process.stderr is not None
    said = ""
    while "[y/N]" not in said:
        said += process.stderr.read(1)
    for _ in range(5):
        os.write(ours, answer.encode())  # the first may come just before it listens
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    _, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(Store(str(filled)).runs()) == 4


# Collecting


def test_what_is_put_away_is_deleted_and_nothing_else(deq: Deq, filled: Path) -> None:
    store = Store(str(filled))
    kept = store.runs("id!=2"), store.solves("run_id!=2"), store.gradients("run_id!=2")
    assert deq("runs", "gc", "--yes").out == "nothing to delete: no run is put away\n"
    deq("runs", "rm", "2", "--yes")
    dry = strict(deq("runs", "gc", "--dry-run", "--json"))
    assert dry["runs"] == 1
    assert dry["freed"] is None
    assert dry["bytes"] > 0
    assert "would delete 1 run," in deq("runs", "gc", "--dry-run").out
    assert len(upkeep.away(str(filled))) == 1
    done = strict(deq("runs", "gc", "--yes", "--json"))
    assert done | {"freed": None} == dry
    assert done["freed"] is not None
    store = Store(str(filled))
    for before, now in zip(kept, (store.runs(), store.solves(), store.gradients()), strict=True):
        pd.testing.assert_frame_equal(before, now)
    said = deq("runs", "rm", "--undo", "2")
    assert (said.code, "there is no run '2'" in said.err) == (2, True)
    assert deq("db", "doctor").out == "all is in order\n"


# Dead runs


def test_a_killed_run_is_reaped_with_all_that_it_told(filled: Path, deq: Deq) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = start("run", "tiny:experiment", "with", "what=die", "seed=7", env=environment)
    done.communicate(timeout=120)
    assert done.returncode == -signal.SIGKILL
    (died,) = strict(deq("runs", "reap", "--json"))
    run = strict(deq("runs", "show", died["uuid"], "--json"))
    assert (run["status"], run["seed"], run["id"]) == ("DIED", 7, died["id"])
    assert run["counts"]["solves"] == 1
    assert strict(deq("runs", "reap", "--json")) == []
    assert deq("runs", "reap").out == "no dead run\n"
    assert deq("db", "doctor").code == 0


def test_a_living_run_is_not_reaped(filled: Path, deq: Deq) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = start("run", "tiny:experiment", "with", "what=wait", env=environment)
    try:
        end = time.monotonic() + 60
        while len(Store(str(filled)).runs("status=RUNNING")) == 0:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert strict(deq("runs", "reap", "--json")) == []
        said = deq("runs", "rm", "5", "--yes")
        assert (said.code, "run 5 is running" in said.err) == (2, True)
        assert deq("db", "doctor").code == 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert Store(str(filled)).run(5)["status"] == "INTERRUPTED"


# Again, and elsewhere


def test_a_run_is_made_again_with_the_same_counts(deq: Deq, filled: Path) -> None:
    said = deq("runs", "rerun", "1")
    assert said.code == 0, said.out + said.err
    assert "run 1 is made again: run 5, COMPLETED" in said.out
    assert "every count is the same" in said.out
    store = Store(str(filled))
    assert store.run(5)["parent_id"] == 1
    assert list(store.solves("run_id=5")["evaluations"]) == list(
        store.solves("run_id=1")["evaluations"]
    )


def test_counts_that_differ_are_shown_and_end_in_one(deq: Deq, filled: Path) -> None:
    with writing(filled) as connection:
        connection.exec_driver_sql("UPDATE solve SET evaluations = 999 WHERE run_id = 1")
    said = deq("runs", "rerun", "1")
    assert said.code == 1
    assert "999" in said.out
    assert "2 counts differ" in said.out


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_runs_are_exported_and_merged_twice(deq: Deq, filled: Path, form: str) -> None:
    said = deq("runs", "export", "--where", "solver=broyden", "out", "--form", form)
    assert (said.code, said.out) == (0, "2 runs written to out\n")
    said = deq("db", "merge", "out", "--store", "other.db")
    assert said.out == "2 runs added, 0 renewed, 0 the same already\n", said.err
    again = strict(deq("db", "merge", "out", "--store", "other.db", "--json"))
    assert (again["added"], len(again["same"])) == ([], 2)
    here, there = Store(str(filled)), Store("other.db")
    assert list(there.runs()["uuid"]) == list(here.runs()["uuid"][:2])
    assert list(there.solves()["evaluations"]) == list(here.solves("run_id<3")["evaluations"])


def test_exports_are_of_the_runs_named(deq: Deq, filled: Path) -> None:
    uuid = str(Store(str(filled)).runs()["uuid"][3])
    assert deq("runs", "export", "2", uuid[:8], "some", "--form", "json").code == 0
    assert strict(deq("runs", "export", "all", "--json"))["runs"] == 4
    deq("db", "merge", "some", "--store", "other.db")
    assert list(Store("other.db").runs()["seed"]) == [1, 1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("7",), "deq runs export 7 FOLDER"),
        (("--where", "seed=77", "out"), "no run"),
        (("1", "--where", "seed=0", "out"), "one of them"),
        (("1", "made.py"), "made.py"),
        (("4", "out"), "run 4 is put away"),
        (("1", "none/out"), "none"),
        ((), "FOLDER"),
    ],
)
def test_a_wrong_export_leaves_nothing(
    deq: Deq, filled: Path, words: tuple[str, ...], reason: str
) -> None:
    Path("made.py").write_text("")
    upkeep.put_away(str(filled), 4)
    before = sorted(Path().iterdir())
    said = deq("runs", "export", *words)
    assert said.code == 2
    assert reason in said.err
    assert sorted(Path().iterdir()) == before


# Broken off


def test_a_query_without_an_end_is_ended_by_ctrl_c(filled: Path) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
    process = start("query", endless)
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("runs", "ls", "--csv"), ("runs", "ls", "--json"), ("--help",)])
def test_a_reader_that_has_enough_ends_it_quietly(filled: Path, words: tuple[str, ...]) -> None:
    many(filled, 2000)
    process = start(*words)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert process.returncode in (0, 1)
    assert err == ""


def test_a_schema_that_is_another_one_is_refused_everywhere(deq: Deq, filled: Path) -> None:
    with writing(filled) as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    for words in (
        *[w for w in READING.values() if w[1] not in ("sync", "info", "doctor")],
        ("runs", "tag", "1", "--add", "x"), ("runs", "rm", "1", "--yes"), ("runs", "gc", "--yes"),
        ("runs", "rerun", "1"), ("runs", "export", "out"), ("db", "merge", "other.db"),
    ):  # fmt: skip
        Store("other.db", create=True)
        said = deq(*words)
        assert said.code == 2, words
        assert "schema version 99" in said.err, words
        assert "Traceback" not in said.err
    assert not Path("out").exists()


def test_mistakes_name_what_may_be_meant(deq: Deq, filled: Path) -> None:
    for words, part in (
        (("runs", "dif"), "did you mean 'diff'"),
        (("db", "doktor"), "did you mean 'doctor'"),
        (("runs", "ls", "--jsn"), "--json"),
        (("runs", "rm", "1", "--yess"), "--yes"),
        (("runs", "best", "secnds"), "did you mean 'seconds'"),
        (("runs", "export", "out", "--form", "csv"), "parquet"),
    ):
        said = deq(*words)
        assert said.code == 2, words
        assert part in said.err, words
