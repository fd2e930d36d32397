"""docs/store.md says what is there, and its examples run."""

import re
from pathlib import Path

import pytest

from db import Store, schema
from db.views import VIEWS

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")


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
        ("v_series", schema.Series, {"id": "series_id"}),
    ],
)
def test_every_column_of_a_table_is_in_its_view(view, table, renamed):
    for column in table.__table__.columns:
        assert renamed.get(column.name, column.name) in VIEWS[view].columns


def test_the_page_names_every_table():
    for table in schema.Base.metadata.tables:
        assert f"`{table}`" in PAGE


@pytest.mark.parametrize("view", VIEWS)
def test_counts_and_times_have_units(view):
    for column in VIEWS[view].columns.values():
        if column.name.endswith(("seconds", "_bytes", "evaluations")):
            assert column.unit in {"s", "bytes", "evaluations"}, column


def test_the_python_examples_run(grid, monkeypatch):
    monkeypatch.setenv("DEQ_STORE", str(grid.url))
    (block,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    names = {}
    exec(block, names)
    asked = [line.partition("  #")[0] for line in block.splitlines() if line.startswith("store.")]
    methods = {name for name in dir(Store) if callable(getattr(Store, name)) and name[0] != "_"}
    assert methods - {re.match(r"store\.(\w+)", line)[1] for line in asked} == {"config", "file"}
    for expression in asked:
        assert len(eval(expression, names)) > 0, expression


def test_every_filter_that_is_shown_can_be_read(grid):
    rows = PAGE.partition("| write | for |")[2].partition("\n\n")[0].splitlines()[2:-1]
    shown = [where for row in rows for where in re.findall("`([^`]+)`", row.split("|")[1])]
    assert len(shown) == 15 and len({len(grid.runs(_real(where))) for where in shown}) > 5


def _real(where):
    return where.replace('"my key"', '"solver.name"')
