"""What is read from the store, as pandas frames.

Frames have the columns of the views with fixed types: integers are int64 (Int64 when some are
missing), numbers float64, booleans bool (boolean when some are missing), times UTC, text and JSON
objects with None for what is missing.
"""

import difflib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, FromClause, func, select, text, true

from db.comparisons import FACTS
from db.dialects import Database
from db.encode import FLOAT_NAMES, clean, restore, short, unpack
from db.errors import StoreError, closest
from db.schema import (
    TRACE_COLUMNS,
    Artifact,
    Base,
    Blob,
    Code,
    Environment,
    GradCheck,
    Point,
    RejectedEvent,
    Run,
    RunConfig,
    RunOutput,
    Series,
    Solve,
    SolveTrace,
    Tag,
)
from db.views import VIEWS
from db.where import conditions, view

__all__ = [
    "artifacts", "blob", "config", "facts", "file", "last_values", "leaves", "patch", "rejected",
    "results", "rows", "run", "run_id", "runs", "series", "sql", "tags", "traces", "trials",
]  # fmt: skip

ORDERS = {
    "v_runs": ("id",), "v_solves": ("run_id", "ord"), "v_gradients": ("run_id", "ord"),
    "v_series": ("run_id", "name"), "v_points": ("run_id", "name", "ord"),
    "v_comparisons": (
        "study", "experiment", "model", "problem", "phase", "seed", "outer_step", "reltol",
        "left_solver", "right_solver",
    ),
}  # fmt: skip
DIGITS = 12  # of a digest, to tell files apart
SOME = 1000  # databases limit the parameters of one statement


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


def rows(
    connection: Connection,
    name: str,
    where: str | None,
    columns: Sequence[str] | None = None,
    *,
    source: FromClause | None = None,
    ids: Sequence[int] | None = None,
) -> pd.DataFrame:
    """The rows of a view that a filter lets through, in the view's order.

    Only some columns, if wanted; from ``source``, which has the view's columns, if not from it;
    of ``v_runs``, only those with the numbers ``ids``.
    """
    source = view(name) if source is None else source
    wanted = list(VIEWS[name].columns) if columns is None else list(columns)
    statement = select(*(source.c[key] for key in wanted))
    statement = statement.where(true(), *conditions(connection, name, where, source))
    if ids is not None:
        statement = statement.where(source.c.id.in_(ids))
    order = (source.c[key].nulls_first() for key in ORDERS[name])
    found = connection.execute(statement.order_by(*order))
    return _frame(found.all(), {key: VIEWS[name].columns[key].type for key in wanted})


def runs(
    connection: Connection,
    where: str | None,
    config: Sequence[str],
    metrics: Sequence[str],
    deleted: bool,
) -> pd.DataFrame:
    """The rows of ``v_runs``, with columns for config keys and metrics; see ``Store.runs``."""
    frame = rows(connection, "v_runs", where, source=_deleted(connection) if deleted else None)
    ids = frame["id"].tolist()
    for key, values in leaves(connection, ids, config).items():
        frame[_free(frame, key, "config")] = _inferred(values)
    for name in metrics:
        frame[_free(frame, name, "series")] = last_values(connection, ids, name)
    return frame


def _deleted(connection: Connection) -> FromClause:
    """What has the columns of ``v_runs`` and the runs that it leaves out."""
    selection = VIEWS["v_runs"].selection(connection.dialect.name)
    others = selection.replace("r.deleted_at IS NULL", "r.deleted_at IS NOT NULL")
    return text(others).columns(*view("v_runs").c).subquery("v_runs")


def _free(frame: pd.DataFrame, name: str, kind: str) -> str:
    return f"{kind}.{name}" if name in frame.columns else name


def _pieces(ids: Iterable[int]) -> Iterator[list[int]]:
    wanted = [int(n) for n in ids]
    return (wanted[start : start + SOME] for start in range(0, len(wanted), SOME))


def leaves(connection: Connection, ids: Iterable[int], keys: Sequence[str]) -> dict[str, list[Any]]:
    """The values of config keys, by key one for each run; None for a run without the key.

    Raises
    ------
    StoreError
        No run has the key.
    """
    wanted = {key: short(key) for key in keys}
    for key, stored in wanted.items():
        if connection.scalar(select(RunConfig.key).where(RunConfig.key == stored).limit(1)) is None:
            known = connection.scalars(select(RunConfig.key).distinct()).all()
            if known:
                raise StoreError(f"no run has the config key {key!r}: {closest(key, known)}")
    ids = list(ids)
    found: dict[tuple[str, int], Any] = {}
    for some in _pieces(ids) if keys else ():
        of_some = select(
            RunConfig.run_id, RunConfig.key, RunConfig.num, RunConfig.txt, RunConfig.kind
        ).where(RunConfig.run_id.in_(some), RunConfig.key.in_(wanted.values()))
        for n, key, num, txt, kind in connection.execute(of_some):
            found[key, n] = _leaf(num, txt, kind)
    return {key: [found.get((stored, n)) for n in ids] for key, stored in wanted.items()}


def _leaf(num: float | None, txt: str | None, kind: str) -> Any:
    """The value of which ``encode.flatten`` made this leaf."""
    if txt is None:
        return None
    match kind:
        case "bool":
            return txt == "true"
        case "str":
            return txt
        case "json":
            return restore(json.loads(txt))
    return int(txt) if num is not None and re.fullmatch(r"-?\d+", txt) else float(txt)


def _inferred(values: list[Any]) -> "pd.Series[Any]":
    """A column of the narrowest type that takes all values."""
    types = {type(value) for value in values if value is not None}
    small = all(abs(value) < 2**63 for value in values if isinstance(value, int))
    if types == {bool}:
        return _column(values, "boolean")
    if types == {int} and small:
        return _column(values, "integer")
    return _column(values, "number" if types and types <= {int, float} else "text")


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
        wanted = [names] if isinstance(names, str) else names
        statement = statement.where(Series.name.in_([short(name) for name in wanted]))
    types = {
        "run_id": "integer", "experiment": "text", "study": "text", "name": "text",
        "ord": "integer", "step": "number", "value": "number", "flag": "integer", "time": "number",
    }  # fmt: skip
    frame = _frame(connection.execute(statement).all(), types)
    for flag, value in FLOAT_NAMES.items():
        frame.loc[frame["flag"] == flag, "value"] = float(value)
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
    for n in wanted:
        if abs(n) >= 2**63:  # more than a column takes
            raise StoreError(f"there is no solve {n}: v_solves.solve_id lists them")
    packed: dict[int, dict[str, bytes]] = {}
    both = select(Solve.id, SolveTrace.column, SolveTrace.data).join(
        SolveTrace, SolveTrace.solve_id == Solve.id, isouter=True
    )
    for some in _pieces(wanted):
        for n, name, data in connection.execute(both.where(Solve.id.in_(some))):
            packed.setdefault(n, {})
            if name is not None:
                packed[n][name] = data
    absent = [n for n in wanted if n not in packed]
    if absent:
        raise StoreError(f"there is no solve {absent[0]}: v_solves.solve_id lists them")
    columns: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in TRACE_COLUMNS}
    lengths = []
    for n in wanted:
        there = {name: unpack(data) for name, data in packed[n].items()}
        lengths.append(max((len(column) for column in there.values()), default=0))
        for name, pieces in columns.items():
            pieces.append(there.get(name, np.full(lengths[-1], np.nan)))
    return pd.DataFrame(
        {"solve_id": np.repeat(np.array(wanted, dtype=np.int64), lengths)}
        | {name: np.concatenate([np.empty(0), *pieces]) for name, pieces in columns.items()}
    )


def trials(connection: Connection, study: str, experiment: str | None) -> pd.DataFrame:
    """The newest attempt at every trial of a study: trial, status, run_id."""
    there = Run.deleted_at.is_(None), Run.trial.is_not(None)
    newest = select(func.max(Run.id)).where(Run.study == clean(study), *there)
    if experiment is not None:
        newest = newest.where(Run.experiment == clean(experiment))
    found = connection.execute(
        select(Run.trial, Run.status, Run.id)
        .where(Run.id.in_(newest.group_by(Run.experiment, Run.trial)))
        .order_by(Run.id)
    )
    return _frame(found.all(), {"trial": "text", "status": "text", "run_id": "integer"})


def run_id(connection: Connection, name: int | str) -> int:
    """The number of a run, from its number or the start of its uuid.

    Fewer than 8 digits are a number, and never the start of the uuid of another run.

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
    whole = isinstance(name, int) or (text.isdecimal() and len(text) < 8)
    if not whole and re.fullmatch("[0-9a-f-]+", text):
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
    for name in ("config", "result", "info", "meta"):
        entry[name] = restore(entry[name])
    environment = _shared(connection, Environment, [entry.pop("environment_id")])
    program = _shared(connection, Code, [entry.pop("code_id")])
    pieces = select(RunOutput.text).where(RunOutput.run_id == number).order_by(RunOutput.seq)
    tagged = select(Tag.tag).where(Tag.run_id == number).order_by(Tag.tag)
    count = select(func.count())
    refused = RejectedEvent.session == entry["session"]
    counts = {
        "solves": count.select_from(Solve).where(Solve.run_id == number),
        "gradients": count.select_from(GradCheck).where(GradCheck.run_id == number),
        "series": count.select_from(Series).where(Series.run_id == number),
        "points": count.select_from(Point).join(Series).where(Series.run_id == number),
        "rejected": count.select_from(RejectedEvent).where(refused),
    }
    return entry | {
        "environment": next(iter(environment.values()), None),
        "code": next(iter(program.values()), None),
        "tags": list(connection.scalars(tagged)),
        "artifacts": artifacts(connection, number).to_dict("records"),
        "output": "".join(connection.scalars(pieces)),
        "counts": {name: connection.scalar(statement) for name, statement in counts.items()},
    }


def _shared(
    connection: Connection, model: type[Environment] | type[Code], numbers: Iterable[int | None]
) -> dict[int, dict[str, Any]]:
    """Rows of ``environment`` or ``code`` by number, without number and fingerprint."""
    found: dict[int, dict[str, Any]] = {}
    for some in _pieces({n for n in numbers if n is not None}):
        for row in connection.execute(select(model.__table__).where(model.id.in_(some))):
            facts = dict(row._mapping)
            del facts["fingerprint"]
            number = facts.pop("id")
            found[number] = restore(facts)
    return found


def config(connection: Connection, number: int) -> dict[str, Any]:
    """The config of a run, with nan and inf as they were."""
    found: dict[str, Any] = restore(connection.scalar(select(Run.config).where(Run.id == number)))
    return found


def facts(connection: Connection, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What may differ between runs, of each: config, experiment, environment, code.

    Files are named by the start of their digest; a config key that is called as one of the others
    stands under ``config``.
    """
    columns = (
        Run.id, Run.config, Run.experiment, Run.command, Run.host, Run.environment_id, Run.code_id,
    )  # fmt: skip
    entries = {
        entry.id: entry
        for some in _pieces(numbers)
        for entry in connection.execute(select(*columns).where(Run.id.in_(some)))
    }
    places = _shared(connection, Environment, (e.environment_id for e in entries.values()))
    programs = _shared(connection, Code, (e.code_id for e in entries.values()))
    found: dict[int, dict[str, Any]] = {}
    for number in numbers:
        entry = entries[number]
        known: dict[str, Any] = restore(entry.config) or {}
        ours: dict[str, Any] = {
            "run": {"experiment": entry.experiment, "command": entry.command},
            "environment": places.get(entry.environment_id, {}) | {"host": entry.host},
        }
        if entry.code_id in programs:
            ours["code"] = _by_digest(programs[entry.code_id])
        taken = {key: known.pop(key) for key in FACTS if key in known}
        found[number] = known | ({"config": taken} if taken else {}) | ours
    return found


def _by_digest(program: Mapping[str, Any]) -> dict[str, Any]:
    sources = {name: str(sha256)[:DIGITS] for name, sha256 in (program["sources"] or {}).items()}
    change = program["diff"] and program["diff"][:DIGITS]
    return {**program, "sources": sources, "diff": change}


def tags(connection: Connection, where: str | None) -> pd.DataFrame:
    """The tags of the runs that a filter lets through: tag, runs (how many have it)."""
    source = view("v_runs")
    known = select(source.c.id).where(true(), *conditions(connection, "v_runs", where))
    found = connection.execute(
        select(Tag.tag, func.count())
        .where(Tag.run_id.in_(known))
        .group_by(Tag.tag)
        .order_by(Tag.tag)
    )
    return _frame(found.all(), {"tag": "text", "runs": "integer"})


def artifacts(connection: Connection, number: int) -> pd.DataFrame:
    """The files that a run added or read: kind, name, …, and whether their content is stored."""
    columns = {
        "kind": "text", "name": "text", "sha256": "text", "size": "integer", "path": "text",
        "content_type": "text", "meta": "json",
    }  # fmt: skip
    found = connection.execute(
        select(*(Artifact.__table__.c[name] for name in columns), Blob.sha256.is_not(None))
        .join(Blob, Blob.sha256 == Artifact.sha256, isouter=True)
        .where(Artifact.run_id == number)
        .order_by(Artifact.id)
    )
    return _frame(found.all(), columns | {"stored": "boolean"})


def file(connection: Connection, number: int, name: str) -> bytes:
    """The content of a file of a run: an artifact, a resource, a source, or ``diff``.

    Raises
    ------
    StoreError
        The run has no such file, or its content is not stored.
    """
    kept = artifacts(connection, number)
    # the newest of a name
    digests: dict[str, str | None] = dict(zip(kept["name"], kept["sha256"], strict=True))
    program = connection.scalar(select(Run.code_id).where(Run.id == number))
    for facts in _shared(connection, Code, [program]).values():
        digests = {"diff": facts["diff"], **(facts["sources"] or {}), **digests}
    if name not in digests:  # a source has the path from the program's directory
        ends = [key for key in digests if key.endswith(f"/{name}")]
        name = ends[0] if len(ends) == 1 else name
    wanted = digests.get(name)
    if wanted is None and name not in set(kept["name"]):
        known = [key for key, sha256 in digests.items() if sha256 is not None]
        said = closest(name, known) if known else "it has none"
        raise StoreError(f"run {number} has no file {name!r}: {said}")
    data = {} if wanted is None else _content(connection, [wanted])
    if not data:
        raise StoreError(
            f"the content of {name!r} of run {number} is not stored, only what "
            "Store.artifacts says of it: it was too large, or not there"
        )
    return next(iter(data.values()))


def _content(connection: Connection, digests: Sequence[str]) -> dict[str, bytes]:
    found = connection.execute(select(Blob.sha256, Blob.data).where(Blob.sha256.in_(digests)))
    return {sha256: zlib.decompress(data) for sha256, data in found}


def blob(connection: Connection, sha256: str) -> bytes:
    """The content with this digest, or with the only digest that begins so.

    Raises
    ------
    StoreError
        There is none, or there are several.
    """
    start = sha256.strip().lower()
    if re.fullmatch("[0-9a-f]{6,64}", start):
        # whatever the order of texts is here, g comes after f
        among = Blob.sha256.between(start, f"{start}g")
        found = list(connection.scalars(select(Blob.sha256).where(among).limit(2)))
        if len(found) == 1:
            return _content(connection, found)[found[0]]
        if found:
            raise StoreError(f"{sha256!r} is the start of several digests: write more of it")
    raise StoreError(
        f"there is no content with the digest {sha256!r}: write at least 6 of its digits"
    )


def patch(connection: Connection, left: int, right: int) -> str:
    """The difference between the sources of two runs, as ``diff -u`` prints it."""
    program = {
        number: connection.scalar(select(Run.code_id).where(Run.id == number))
        for number in (left, right)
    }
    codes = _shared(connection, Code, program.values())
    before, after = (
        (codes.get(program[number] or 0) or {}).get("sources") or {} for number in (left, right)
    )
    names = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    digests = {side[n] for n in names for side in (before, after) if n in side}
    contents = _content(connection, sorted(digests))
    pieces: list[str] = []
    for name in names:
        texts = [_lines(contents, side.get(name)) for side in (before, after)]
        old, new = f"run {left}/{name}", f"run {right}/{name}"
        if None in texts:
            pieces.append(f"{old} and {new} differ; not both are stored as text\n")
        else:
            pieces += difflib.unified_diff(texts[0] or [], texts[1] or [], old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in pieces)


def _lines(contents: Mapping[str, bytes], sha256: str | None) -> list[str] | None:
    """The lines of a file; none for one that is not there, None for one that cannot be shown."""
    if sha256 is None:
        return []
    try:
        return contents[sha256].decode("utf-8").splitlines(keepends=True)
    except (KeyError, UnicodeDecodeError):
        return None


def rejected(connection: Connection, where: str | None) -> pd.DataFrame:
    """What the database refused of the runs that a filter lets through; see ``Store.rejected``."""
    event, run = RejectedEvent.__table__, Run.__table__
    types = {
        "run_id": "integer", "run_uuid": "text", "seq": "integer", "kind": "text",
        "payload": "text", "error": "text", "rejected_at": "time",
    }  # fmt: skip
    statement = (
        select(run.c.id, *(event.c[name] for name in list(types)[1:]))
        .select_from(event.join(run, run.c.session == event.c.session, isouter=True))
        .order_by(event.c.id)
    )
    if (where or "").strip():
        source = view("v_runs")
        known = select(source.c.id).where(true(), *conditions(connection, "v_runs", where))
        statement = statement.where(run.c.id.in_(known))
    return _frame(connection.execute(statement).all(), types)


def results(connection: Connection, ids: Iterable[int], name: str) -> "pd.Series[Any]":
    """What runs returned under a name, by run; nan where that is no finite number."""
    ids = list(ids)
    found: dict[int, float] = {}
    for some in _pieces(ids):
        for n, result in connection.execute(select(Run.id, Run.result).where(Run.id.in_(some))):
            value = result.get(name) if isinstance(result, dict) else None
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[n] = float(value)
    return pd.Series([found.get(n, np.nan) for n in ids], dtype="float64")


def last_values(connection: Connection, ids: Iterable[int], name: str) -> "pd.Series[Any]":
    """The last finite value of a series of runs, by run; nan where there is none.

    Raises
    ------
    StoreError
        No run at all has logged it.
    """
    name = short(name)
    if connection.scalar(select(Series.id).where(Series.name == name).limit(1)) is None:
        logged = connection.scalars(select(Series.name).distinct()).all()
        if logged:
            raise StoreError(f"no run has logged {name!r}: {closest(name, logged)}")
    ids = list(ids)
    found: dict[int, float | None] = {}
    for some in _pieces(ids):
        last = select(Series.run_id, Series.last_value)
        of_some = last.where(Series.name == name, Series.run_id.in_(some))
        found.update((n, value) for n, value in connection.execute(of_some))
    return pd.Series([found.get(n) for n in ids], dtype="float64")


def sql(database: Database, engine: Engine, statement: str) -> pd.DataFrame:
    """The answer to one reading statement; see ``Store.query``."""
    statement = clean(statement)
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
