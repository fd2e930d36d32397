"""What is read from the store, as pandas frames.

Frames have the columns of the views with fixed types: integers are int64 (Int64 when some are
missing), numbers float64, booleans bool (boolean when some are missing), times UTC, text and JSON
objects with None for what is missing.
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, func, select, true

from db.dialects import Database
from db.encode import FLOAT_NAMES, restore, unpack
from db.errors import StoreError, closest
from db.schema import (
    TRACE_COLUMNS,
    Base,
    Environment,
    GradCheck,
    Point,
    Run,
    RunOutput,
    Series,
    Solve,
    SolveTrace,
)
from db.views import VIEWS
from db.where import conditions, view

__all__ = [
    "config", "facts", "last_points", "results", "rows", "run", "run_id", "series", "sql", "traces",
    "trials",
]  # fmt: skip

ORDERS = {"v_runs": ("id",), "v_solves": ("run_id", "ord"), "v_gradients": ("run_id", "ord")}


def _column(values: Sequence[Any], kind: str) -> "pd.Series[Any]":
    missing = any(value is None for value in values)
    if kind == "integer":
        return pd.Series(values, dtype="Int64" if missing else "int64")
    if kind == "number":
        return pd.Series(values, dtype="float64")
    if kind == "boolean":
        return pd.Series(values, dtype="boolean" if missing else "bool")
    if kind == "time":
        return pd.Series(pd.to_datetime(pd.Series(values, dtype="object"), utc=True))
    if kind == "json":
        values = [restore(value) for value in values]
    return pd.Series(values, dtype="object")


def _frame(found: Sequence[Any], types: dict[str, str]) -> pd.DataFrame:
    columns = zip(*found, strict=True) if found else ([] for _ in types)
    return pd.DataFrame(
        {
            name: _column(list(values), kind)
            for (name, kind), values in zip(types.items(), columns, strict=True)
        }
    )


def rows(connection: Connection, name: str, where: str | None) -> pd.DataFrame:
    """The rows of a view that a filter lets through, oldest first."""
    source = view(name)
    statement = select(source).where(true(), *conditions(connection, name, where))
    found = connection.execute(statement.order_by(*(source.c[key] for key in ORDERS[name])))
    return _frame(found.all(), {c.name: c.type for c in VIEWS[name].columns.values()})


def series(connection: Connection, where: str | None, names: Iterable[str] | None) -> pd.DataFrame:
    """The points of the series of the runs that a filter lets through, one row a point.

    Columns: run_id, experiment, study, name, ord, step, value (nan and inf as logged), time.
    """
    runs = view("v_runs")
    statement = (
        select(
            Series.run_id, runs.c.experiment, runs.c.study, Series.name,
            Point.ord, Point.step, Point.value, Point.flag, Point.t,
        )
        .join(Series, Series.id == Point.series_id)
        .join(runs, runs.c.id == Series.run_id)
        .where(true(), *conditions(connection, "v_runs", where))
        .order_by(Series.run_id, Series.name, Point.ord)
    )  # fmt: skip
    if names is not None:
        statement = statement.where(Series.name.in_([names] if isinstance(names, str) else names))
    types = {
        "run_id": "integer", "experiment": "text", "study": "text", "name": "text",
        "ord": "integer", "step": "number", "value": "number", "flag": "integer", "time": "number",
    }  # fmt: skip
    frame = _frame(connection.execute(statement).all(), types)
    for flag, text in FLOAT_NAMES.items():
        frame.loc[frame["flag"] == flag, "value"] = float(text)
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True).dt.round("us")
    return frame.drop(columns="flag")


def traces(connection: Connection, solve_ids: Iterable[int]) -> pd.DataFrame:
    """The traces of several solves, one row a point; a solve without a trace has no rows.

    Columns: solve_id, evaluations, seconds, residual (in the solve's norm), active (samples still
    iterating); a column that was not recorded is nan.

    Raises
    ------
    StoreError
        There is no such solve.
    """
    wanted = list(dict.fromkeys(int(n) for n in solve_ids))
    packed: dict[int, dict[str, bytes]] = {n: {} for n in wanted}
    known: set[int] = set()
    for start in range(0, len(wanted), 1000):  # databases limit the parameters of one statement
        some = wanted[start : start + 1000]
        known.update(connection.scalars(select(Solve.id).where(Solve.id.in_(some))))
        found = select(SolveTrace.solve_id, SolveTrace.column, SolveTrace.data)
        for n, name, data in connection.execute(found.where(SolveTrace.solve_id.in_(some))):
            packed[n][name] = data
    absent = [n for n in wanted if n not in known]
    if absent:
        raise StoreError(f"there is no solve {absent[0]}: v_solves.solve_id lists them")
    pieces = [
        pd.DataFrame({"solve_id": n} | {name: unpack(data) for name, data in columns.items()})
        for n, columns in packed.items()
        if columns
    ]
    frame = pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame({"solve_id": []})
    return frame.reindex(columns=["solve_id", *TRACE_COLUMNS]).astype(
        {"solve_id": np.int64} | dict.fromkeys(TRACE_COLUMNS, np.float64)
    )


def trials(connection: Connection, study: str, experiment: str | None) -> pd.DataFrame:
    """The newest attempt at every trial of a study: trial, status, run_id."""
    newest = select(func.max(Run.id)).where(Run.study == study, Run.trial.is_not(None))
    if experiment is not None:
        newest = newest.where(Run.experiment == experiment)
    found = connection.execute(
        select(Run.trial, Run.status, Run.id)
        .where(Run.id.in_(newest.group_by(Run.experiment, Run.trial)))
        .order_by(Run.id)
    )
    return _frame(found.all(), {"trial": "text", "status": "text", "run_id": "integer"})


def run_id(connection: Connection, name: int | str) -> int:
    """The number of a run, from its number or the start of its uuid.

    Raises
    ------
    StoreError
        No run has it, or several do.
    """
    text = str(name).strip().lower()
    if text.isdecimal() and len(text) < 19:  # what fits in a column
        found = connection.scalars(select(Run.id).where(Run.id == int(text))).all()
        if found:
            return found[0]
    if re.fullmatch("[0-9a-f-]+", text):
        found = connection.scalars(select(Run.id).where(Run.uuid.startswith(text))).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise StoreError(
                f"{text!r} is the start of {len(found)} runs' uuids: write more of it, or a number"
            )
    raise StoreError(f"there is no run {name!r}: `deq runs ls` lists them")


def run(connection: Connection, number: int) -> dict[str, Any]:
    """All that is stored about a run; see ``Store.run``."""
    entry = connection.execute(select(Run.__table__).where(Run.id == number)).one()._asdict()
    for name in ("config", "result", "info", "meta", "code"):
        entry[name] = restore(entry[name])
    place = connection.execute(
        select(Environment.__table__).where(Environment.id == entry.pop("environment_id"))
    ).one_or_none()
    pieces = select(RunOutput.text).where(RunOutput.run_id == number).order_by(RunOutput.seq)
    count = select(func.count())
    counts = {
        "solves": count.select_from(Solve).where(Solve.run_id == number),
        "gradients": count.select_from(GradCheck).where(GradCheck.run_id == number),
        "series": count.select_from(Series).where(Series.run_id == number),
        "points": count.select_from(Point).join(Series).where(Series.run_id == number),
    }
    return entry | {
        "environment": dict(place._mapping) if place else None,
        "output": "".join(connection.scalars(pieces)),
        "counts": {name: connection.scalar(statement) for name, statement in counts.items()},
    }


def config(connection: Connection, number: int) -> dict[str, Any]:
    """The config of a run, with nan and inf as they were."""
    found: dict[str, Any] = restore(connection.scalar(select(Run.config).where(Run.id == number)))
    return found


def facts(connection: Connection, number: int) -> dict[str, Any]:
    """What may differ between runs: the config, the environment and the code of one."""
    entry = connection.execute(
        select(Run.config, Run.code, Run.environment_id).where(Run.id == number)
    ).one()
    place = connection.execute(
        select(Environment.__table__).where(Environment.id == entry.environment_id)
    ).one_or_none()
    environment = dict(place._mapping) if place else {}
    for name in ("id", "fingerprint"):
        environment.pop(name, None)
    known: dict[str, Any] = restore(entry.config) or {}
    return known | {"environment": restore(environment), "code": restore(entry.code)}


def results(connection: Connection, ids: Iterable[int], name: str) -> "pd.Series[Any]":
    """What runs returned under a name, by run; nan where that is no finite number."""
    wanted = [int(n) for n in ids]
    found: dict[int, float] = {}
    for start in range(0, len(wanted), 1000):
        some = select(Run.id, Run.result).where(Run.id.in_(wanted[start : start + 1000]))
        for n, result in connection.execute(some):
            value = result.get(name) if isinstance(result, dict) else None
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[n] = float(value)
    return pd.Series([found.get(n, np.nan) for n in wanted], dtype="float64")


def last_points(connection: Connection, ids: Iterable[int], name: str) -> "pd.Series[Any]":
    """The last finite value of a series of runs, by run; nan where there is none."""
    wanted = [int(n) for n in ids]
    last = (
        select(Series.run_id, Point.value, func.max(Point.ord))
        .join(Series, Series.id == Point.series_id)
        .where(Series.name == name, Point.value.is_not(None))
        .group_by(Series.run_id, Point.value)
        .order_by(func.max(Point.ord))
    )
    found = {run: value for run, value, _ in connection.execute(last)}
    return pd.Series([found.get(n, np.nan) for n in wanted], dtype="float64")


def sql(database: Database, engine: Engine, statement: str) -> pd.DataFrame:
    """The answer to one reading statement; see ``Store.query``."""
    try:
        names, found = database.query(engine, statement)
    except StoreError as error:
        raise StoreError(f"{error}{_advice(statement, str(error))}") from error
    unique: list[str] = []
    for name in names:
        same = sum(other == name for other in names[: len(unique)])
        unique.append(f"{name}_{same + 1}" if same else name)
    columns = ([_bare(row[i]) for row in found] for i in range(len(unique)))
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=None if found else "object")
            for name, values in zip(unique, columns, strict=True)
        }
    )


def _bare(value: Any) -> Any:
    # PostgreSQL's mean of whole numbers
    return float(value) if isinstance(value, Decimal) else value


def _advice(statement: str, message: str) -> str:
    """What a statement with an unknown name could have meant."""
    column = re.search(r'no such column: "?([\w.]+)|column "?([\w.]+)"? does not exist', message)
    if column:
        named = [v for v in VIEWS.values() if re.search(rf"\b{v.name}\b", statement, re.IGNORECASE)]
        allowed = {name for v in named or VIEWS.values() for name in v.columns}
        return "; " + closest((column[1] or column[2]).split(".")[-1], allowed)
    table = re.search(r'no such table: "?([\w.]+)|relation "([\w.]+)" does not exist', message)
    if table:
        return "; " + closest(table[1] or table[2], {*VIEWS, *Base.metadata.tables})
    return ""
