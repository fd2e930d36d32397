"""docs/store.md says what is there, and its examples run."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from db import schema
from db.views import VIEWS

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(
    r"^### \d+\. (.+?)$.*?```sql\n(.+?)```.*?```python\n(.+?)```", PAGE, re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_page_lists_every_column_with_its_unit(view):
    table = "\n".join(
        f"| `{c.name}` | {c.type} | {c.unit} | {c.doc} |" for c in view.columns.values()
    )
    assert f"### {view.name}\n\n{view.doc}\n\n" in PAGE
    assert f"|---|---|---|---|\n{table}\n" in PAGE


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_every_column_of_a_view_is_documented(demo, view):
    there = demo.query(f"select * from {view.name} limit 1")
    assert list(there.columns) == list(view.columns)


@pytest.mark.parametrize(
    ("view", "table", "renamed"),
    [
        ("v_solves", schema.Solve, {"id": "solve_id"}),
        ("v_gradients", schema.GradCheck, {"id": "gradient_id", "method": "gradient"}),
    ],
)
def test_every_column_of_a_table_is_in_its_view(view, table, renamed):
    for column in table.__table__.columns:
        assert renamed.get(column.name, column.name) in VIEWS[view].columns


def test_the_page_names_every_table():
    for table in schema.Base.metadata.tables:
        assert f"`{table}`" in PAGE


@pytest.mark.parametrize(("view", "frame"), [("v_runs", "runs"), ("v_solves", "solves")])
def test_counts_and_times_have_units(view, frame):
    for column in VIEWS[view].columns.values():
        if column.name.endswith(("seconds", "_bytes", "evaluations")):
            assert column.unit in {"s", "bytes", "evaluations"}, column


def test_there_are_ten_questions():
    assert len(QUESTIONS) == 10


def _comparable(frame):
    frame = frame[sorted(frame.columns)]
    frame = frame.sort_values(list(frame.columns)).reset_index(drop=True)
    return frame.astype(
        {name: float for name in frame if pd.api.types.is_numeric_dtype(frame[name])}
    )


@pytest.mark.parametrize(("title", "sql", "python"), QUESTIONS, ids=[q[0] for q in QUESTIONS])
def test_sql_and_python_give_the_same_answer(demo, title, sql, python):
    names = {"store": demo}
    exec(python, names)
    left, right = _comparable(demo.query(sql)), _comparable(names["answer"])
    assert len(left) > 0
    pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=1e-12)


def test_the_other_python_examples_run(demo, monkeypatch):
    monkeypatch.setenv("DEQ_STORE", demo.url)
    blocks = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    for block in (blocks[0], blocks[-1]):
        names = {"store": demo}
        exec(block, names)
    curves = names["answer"]
    last = curves.groupby(["solver", "reltol"])["residual"].min()
    assert np.all(np.isfinite(curves["residual"])) and (last > 0).all()
