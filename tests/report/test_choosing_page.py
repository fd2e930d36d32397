"""The measured tables of docs/choosing.md: queries that run, tables that say what the rows say."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from synthetic import Made

from db import Store

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def measured() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("measured", DOCS / "measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def cells(table: str) -> list[list[str]]:
    """The rows of a table below its rule, its head first."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [found[0], *found[2:]]


def test_every_table_has_a_query_and_every_query_runs(measured: ModuleType, tmp_path: Path) -> None:
    page = "\n\n".join(p.read_text(encoding="utf-8") for p in measured.PAGES)
    names = re.findall(r"<!-- ([a-z]+) -->", page)
    assert sorted(n for n in names if n != "end") == sorted(measured.TABLES)
    empty = Store(tmp_path / "empty.db", create=True)
    queries = re.findall(r"<!-- (?!end)[a-z]+ -->\n\n```bash\n(.*?)```", page, re.DOTALL)
    assert len(queries) == len(measured.TABLES)
    for query in queries:
        program, command, sql = shlex.split(query)
        assert (program, command) == ("deq", "query")
        assert empty.query(sql).empty
    assert measured.written(page, empty) == page


def test_problems(measured: ModuleType) -> None:
    rows = pd.DataFrame(
        {
            "solver": ["fallback", "newton"],
            "globalisation": [None, "trust_region"],
            "standard": [23, 21],
            "standard_problems": [23, 23],
            "solved": [81, 0],
            "starts": [263, 20],
            "false_successes": [0, 3],
        }
    )
    _, first, second = cells(measured.problems(rows))
    # Newcombe 1998: 81 of 263 is 25.5 to 36.6 %, 0 of 20 is 0 to 16.1 %.
    assert first == ["`fallback`", "23 of 23", "30.8 % of 263", "25.5 to 36.6 %", "0"]
    assert second == ["`newton`, trust region", "21 of 23", "0.0 % of 20", "0.0 to 16.1 %", "3"]


def test_scores_are_medians_and_failures_are_no_numbers(measured: ModuleType) -> None:
    some = [(1.0, 1), (1.2, 1), (9.0, 0)]
    rows = pd.DataFrame(
        [
            {"scale": scale, "solver": solver, "window": window, "score": s, "converged": c}
            for scale in (1.1, 0.6)
            for solver, window in (("anderson", 10.0), ("broyden", None))
            for s, c in (some if scale == 1.1 else [(1.0, 1)] * 3)
        ]
    )
    head, anderson, broyden = cells(measured.scores(rows))
    assert head == ["solver, window", "s = 0.6", "s = 1.1"]
    assert anderson == ["`anderson`, 10", "1.00", "1.20 (1 of 3 failed)"]
    assert broyden[0] == "`broyden`"
    rows["converged"] = 0
    assert cells(measured.scores(rows))[1][1] == "– (3 of 3 failed)"


def test_counts_on_linear_maps(measured: ModuleType) -> None:
    rows = pd.DataFrame(
        {
            "spectrum": "low_rank",
            "radius": 0.9,
            "solver": ["anderson", "newton_krylov", "picard"],
            "window": [1000.0, None, None],
            "evaluations": [12, 4, 2000],
            "jvps": [0, 30, None],
            "vjps": [0, 1, None],
            "converged": [1.0, 1.0, 0.0],
            "least": [12.0, 12.0, 12.0],
        }
    )
    head, line = cells(measured.linear(rows))
    assert head == ["spectrum, ρ", "limit", "`anderson`, all", "`newton_krylov`", "`picard`"]
    assert line == ["low rank, 0.9", "12", "12", "4 + 31", "2000 (failed)"]


def test_ratios_and_savings(measured: ModuleType) -> None:
    rows = pd.DataFrame(
        {
            "batch": [32, 32],
            "dim": [256, 4096],
            "hidden": [256, 1024],
            "contender": "anderson(6)",
            "kind": "loop",
            "ratio": [2.345, None],
            "q1": [2.3, None],
            "q3": [2.4, None],
        }
    )
    head, line = cells(measured.overhead(rows))
    assert head[2:] == ["32 × 256 × 256", "32 × 4096 × 1024"]
    assert line == ["anderson(6)", "loop", "2.35 (2.30 to 2.40)", "–"]
    rows = pd.DataFrame(
        {
            "contender": ["broyden"],
            "evaluations": [100],
            "sample_evaluations": [640],
            "batch": [64],
            "saved": [0.9],
            "ratio": [0.31],
            "difference": [2e-7],
        }
    )
    assert cells(measured.freezing(rows))[1] == ["broyden", "100", "10", "90 %", "0.31", "2e-07"]


def test_written_from_a_store_and_written_twice_the_same(
    measured: ModuleType, tmp_path: Path
) -> None:
    made = Made(tmp_path / "store.db", "problems", "problems")
    for problem, solved in (("wood", 2), ("boggs", 1)):
        observer = made.run("", "newton", None, config={"problem": {"name": problem}})
        extra = {"collection": "standard", "standard": {"met": solved == 2}, "starts": 3}
        extra |= {"successes": solved, "false_successes": 0}
        observer.solve({"phase": "forward", "solver": "newton", "options": {}, "extra": extra})
        made.end(observer)
    page = measured.PAGES[0].read_text(encoding="utf-8")
    once = measured.written(page, Store(made.path))
    assert "| `newton` | 1 of 2 | 50.0 % of 6 |" in once
    assert measured.written(once, Store(made.path)) == once


def test_gradients(measured: ModuleType) -> None:
    rows = pd.DataFrame(
        {
            "gradient": ["neumann"] * 3 + ["implicit"] * 2,
            "radius": [0.5, 0.5, 0.9, 0.5, 0.9],
            "rel_err": [0.01, 0.03, 0.4, 1e-6, None],
            "cosine": [1.0, 0.98, 0.9, 1.0, None],
        }
    )
    head, first, second = cells(measured.estimators(rows))
    assert head[1:] == ["ρ = 0.5", "ρ = 0.9"]
    assert first == ["`implicit`", "1.0e-06 (1.000)", "–"]
    assert second == ["`neumann`", "2.0e-02 (0.990)", "4.0e-01 (0.900)"]


def test_steps_and_preconditioners(measured: ModuleType) -> None:
    steps = pd.DataFrame(
        {
            "gradient": ["implicit", "implicit", "jacobian_free", "refused"],
            "ratio": [1.8, 2.0, 1.0, None],
            "q1": [1.7, 1.9, 1.0, None],
            "q3": [2.0, 2.2, 1.0, None],
            "rel_err": [1e-3, 3e-3, 0.5, None],
            "products": [10, 12, 0, None],
        }
    )
    _, *lines = cells(measured.steps(steps))
    assert lines == [
        ["`jacobian_free`", "1.00 (1.00 to 1.00)", "0", "5.0e-01"],
        ["`implicit`", "1.90 (1.80 to 2.10)", "11", "2.0e-03"],
    ]
    products = pd.DataFrame(
        {
            "solver": ["broyden"] * 3,
            "train_steps": [0, 0, 60],
            "reltol": [1e-6] * 3,
            "plain": [40, 50, 20],
            "ratio": [0.5, 0.6, 0.7],
            "radius": [0.9, 0.99, 0.5],
        }
    )
    _, line = cells(measured.preconditioned(products))
    assert line == ["`broyden`", "fresh", "1e-06", "45", "0.55 (0.50 to 0.60)", "2"]
