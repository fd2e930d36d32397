"""docs/questions.md: every question in its three forms, which give one answer."""

import io
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
PARTS = re.split(r"^### (?=\d+\. )", PAGE.partition("## And one")[0], flags=re.MULTILINE)[1:]
FORMS = [dict(re.findall(r"```(\w+)\n(.+?)```", part, re.DOTALL)) for part in PARTS]
QUESTIONS = dict(zip((part.splitlines()[0] for part in PARTS), FORMS, strict=True))
every_question = pytest.mark.parametrize("title", QUESTIONS)


def test_there_are_twenty_each_with_a_reason_and_three_forms():
    assert [int(title.split(".")[0]) for title in QUESTIONS] == list(range(1, 21))
    for part, forms in zip(PARTS, FORMS, strict=True):
        reason = part.partition("\n\n")[2].partition("```")[0]
        assert len(reason.split()) > 4 and part.count("```") == 6, part
        assert list(forms) == ["sql", "python", "sh"], part
        assert forms["sh"].startswith("deq ") and " --csv" in forms["sh"]


def asked_in_python(store, code):
    names = {"store": store}
    exec(code, names)
    return names["answer"]


def asked_in_the_shell(store, command, capsys, monkeypatch):
    monkeypatch.setenv("DEQ_STORE", str(store.url))
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out))


def same(value):
    """One form of a value for what the three ways give it: text, times and flags differ in type."""
    if isinstance(value, list):
        return [same(inner) for inner in value]
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value)
    if text in ("True", "False"):
        return float(text == "True")
    try:
        return float(text)
    except ValueError:
        pass
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:", text):
        return pd.Timestamp(text).timestamp()
    return {"null": None, "true": 1.0, "false": 0.0}.get(text, text)


def cells(frame, columns):
    return [[same(value) for value in row] for row in frame[columns].itertuples(index=False)]


def close(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9)
    return left == right


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert all(map(close, one, other)), (one, other)


@every_question
def test_the_three_forms_give_one_answer(grid, title, capsys, monkeypatch):
    forms = QUESTIONS[title]
    sql = grid.query(forms["sql"])
    python = asked_in_python(grid, forms["python"])
    shell = asked_in_the_shell(grid, forms["sh"], capsys, monkeypatch)
    assert len(sql) > 0
    python.columns = [str(name) for name in python.columns]
    if "What changed" in title:  # where SQL sees the config alone
        assert_same(cells(python, shell.columns), cells(shell, shell.columns))
        rest = ~python["key"].str.match(r"(run|environment|code)\.")
        assert 0 < rest.sum() < len(python)
        python, shell = (f[rest.to_numpy()].sort_values("key") for f in (python, shell))
    columns = list(sql.columns)
    ordered = "order by" in forms["sql"]
    rows = [cells(frame, columns) for frame in (sql, python, shell)]
    if not ordered:
        rows = [sorted(found, key=repr) for found in rows]
    assert_same(rows[0], rows[1])
    assert_same(rows[0], rows[2])


@every_question
def test_answers_have_no_second_meaning(grid, title):
    """Where the order is said, it is whole: no two rows may change places."""
    sql = QUESTIONS[title]["sql"]
    frame = grid.query(sql)
    if len(frame) > 1:
        assert "order by" in sql
    assert not frame.duplicated().any() or "step" in frame.columns


def shown(frame, most):
    """The first rows as a table of the page."""

    def text(value):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [frame.columns, ["---"] * len(frame.columns), *frame.head(most).itertuples(index=False)]
    lines = "".join(f"| {' | '.join(map(text, row))} |\n" for row in rows)
    rest = f"\nand {len(frame) - most} more rows.\n" if len(frame) > most else ""
    return lines.replace("| --- |", "|---|").replace(" --- |", "---|") + rest


@pytest.mark.parametrize(("number", "form", "most"), [(7, "sql", 3), (15, "python", 20)])
def test_the_answers_that_are_shown_are_answers(grid, number, form, most):
    (part,) = (part for part in PARTS if part.startswith(f"{number}. "))
    code = FORMS[number - 1][form]
    answer = grid.query(code) if form == "sql" else asked_in_python(grid, code)
    assert f"```\n\n{shown(answer, most)}" in part, shown(answer, most)


def test_a_question_in_a_shell(grid):
    """Through a shell, whose quotes are those of the page."""
    for title in list(QUESTIONS)[1:5:3]:
        done = subprocess.run(
            ["sh", "-c", QUESTIONS[title]["sh"]],
            env=os.environ | {
                "DEQ_STORE": str(grid.url),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            },
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(pd.read_csv(io.StringIO(done.stdout))) > 0


def test_the_curves_of_many_solves(grid):
    code = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)[-1]
    curves = asked_in_python(grid, code)
    last = curves.groupby(["solver", "reltol"])["residual"].min()
    assert len(last) == 5 and (last > 0).all() and last.max() < 1e-4
