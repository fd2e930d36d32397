"""Filters: ``solver.name=broyden and status=COMPLETED and reltol<1e-5`` as conditions over a view.

A filter is ``key op value`` joined by ``and``, with the operators ``= != < <= > >=``. A key is a
column of the view, a column of ``v_runs``, or any dotted key of the runs' configs, whichever comes
first. A value is bare or quoted: bare ``1e-5`` is a number, bare ``true``, ``false`` and ``null``
mean themselves, all else is text, and so is all that is quoted. A row without the key matches
no condition on it but ``= null`` on a column. Values travel as bound parameters, never as SQL.
"""

import functools
import operator
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Text,
    and_,
    bindparam,
    column,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    table,
)
from sqlalchemy.sql.expression import TableClause

from db.errors import StoreError, closest
from db.schema import JSON_VALUE, UTC_TIME, RunConfig
from db.views import VIEWS

__all__ = ["conditions", "view"]

TYPES: dict[str, Any] = {
    "integer": BigInteger(),
    "number": Double(),
    "text": Text(),
    "time": UTC_TIME,
    "boolean": BigInteger(),
    "json": JSON_VALUE,
}
CONDITION = re.compile(
    r"""\s*(?P<key>[A-Za-z_][\w.$-]*)\s*
        (?P<op>!=|<=|>=|=|<|>)\s*
        (?: '(?P<single>(?:[^']|'')*)' | "(?P<double>(?:[^"]|"")*)" | (?P<bare>[^\s'"=<>!()]+) )""",
    re.VERBOSE,
)
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
AND = re.compile(r"\s+and\s+(?=\S)", re.IGNORECASE)
RUN_KEYS = {"v_runs": "id", "v_solves": "run_id", "v_gradients": "run_id"}
Condition = ColumnElement[bool]


class Value(NamedTuple):
    """What stands to the right of an operator."""

    text: str
    quoted: bool
    number: float | None

    @property
    def null(self) -> bool:
        return self.text == "null" and not self.quoted


@functools.cache  # one object a view, so that conditions speak of the same rows as the selection
def view(name: str) -> TableClause:
    """A view with the types of its columns, to select from."""
    return table(name, *(column(c.name, TYPES[c.type]) for c in VIEWS[name].columns.values()))


def conditions(connection: Connection, name: str, where: str | None) -> list[Condition]:
    """The conditions of a filter over the view ``name``.

    Raises
    ------
    StoreError
        The filter cannot be read, a key is neither a column nor a config key of any run, or a value
        does not fit its column.
    """
    return [_condition(connection, name, key, op, value) for key, op, value in _parse(where or "")]


def _parse(where: str) -> list[tuple[str, str, Value]]:
    if not where.strip():
        return []
    found: list[tuple[str, str, Value]] = []
    position = 0
    while True:
        match = CONDITION.match(where, position)
        if match is None:
            break
        found.append((match["key"], match["op"], _value(match)))
        position = match.end()
        joint = AND.match(where, position)
        if joint is None:
            break
        position = joint.end()
    if match is None or where[position:].strip():
        raise StoreError(
            f"the filter {where!r} cannot be read at {where[position:].strip()[:40]!r}: write "
            "conditions 'key op value' joined by 'and', with op one of = != < <= > >=, "
            "for example solver.name=broyden and status=COMPLETED and reltol<1e-5"
        )
    return found


def _value(match: re.Match[str]) -> Value:
    if match["bare"] is not None:
        try:
            number = float(match["bare"])
        except ValueError:
            number = None
        # nan and inf are no numbers to compare with: the store holds them as text
        finite = number is not None and abs(number) < float("inf")
        return Value(match["bare"], False, number if finite else None)
    if match["single"] is not None:
        return Value(match["single"].replace("''", "'"), True, None)
    return Value(match["double"].replace('""', '"'), True, None)


def _condition(connection: Connection, name: str, key: str, op: str, value: Value) -> Condition:
    run = view(name).c[RUN_KEYS[name]]
    if key in VIEWS[name].columns:
        return _on_column(name, key, op, value)
    if key in VIEWS["v_runs"].columns:
        return run.in_(select(view("v_runs").c.id).where(_on_column("v_runs", key, op, value)))
    known = select(exists().where(RunConfig.key == key))
    if not connection.scalar(known):
        stored = connection.scalars(select(RunConfig.key).distinct()).all()
        if stored:  # a store without runs knows no config keys, and no row to find
            allowed = {*VIEWS[name].columns, *VIEWS["v_runs"].columns, *stored}
            raise StoreError(f"unknown key {key!r} in the filter: {closest(key, allowed)}")
    return run.in_(select(RunConfig.run_id).where(RunConfig.key == key, _on_config(key, op, value)))


def _on_column(name: str, key: str, op: str, value: Value) -> Condition:
    target, documented = view(name).c[key], VIEWS[name].columns[key]
    if value.null:
        _only_equality(documented.name, op)
        return target.is_(None) if op == "=" else target.is_not(None)
    if documented.type == "json":
        raise StoreError(
            f"the column {documented.name!r} holds JSON and cannot be filtered on: "
            "use a dotted config key, or SQL"
        )
    right: Any = value.text
    if documented.type in ("integer", "number"):
        right = value.number
        if right is None:
            raise StoreError(f"{documented.name!r} is a number, and {value.text!r} is none")
    elif documented.type == "boolean":
        right = {"true": 1, "1": 1, "false": 0, "0": 0}.get(value.text.lower())
        if right is None:
            raise StoreError(f"{documented.name!r} is true or false, not {value.text!r}")
    elif documented.type == "time":
        right = _time(documented.name, value.text)
    # a whole column may be asked for 2.5
    typed = Double() if documented.type == "integer" else TYPES[documented.type]
    return _compare(target, op, bindparam(None, right, type_=typed))


def _on_config(key: str, op: str, value: Value) -> Condition:
    kind, num, txt = RunConfig.kind, RunConfig.num, RunConfig.txt
    if value.null:
        _only_equality(key, op)
        return kind == "null" if op == "=" else kind != "null"
    if op in ("=", "!="):
        # the index holds the first characters
        start = literal_column("substr(run_config.txt, 1, 100)", Text)
        same = and_(start == value.text[:100], txt == value.text)
        if value.quoted:
            same = and_(same, kind == "str")
        elif value.number is not None:
            same = or_(num == value.number, and_(same, kind == "str"))
        # num is NULL where the config has a text, which is another value too
        return same if op == "=" else and_(kind != "null", not_(func.coalesce(same, false())))
    if value.number is not None:
        return _compare(num, op, bindparam(None, value.number, type_=Double()))
    return and_(kind == "str", _compare(txt, op, bindparam(None, value.text, type_=Text())))


def _compare(left: Any, op: str, right: Any) -> Condition:
    return OPERATORS[op](left, right)  # type: ignore[no-any-return]


def _only_equality(key: str, op: str) -> None:
    if op not in ("=", "!="):
        raise StoreError(f"null has no order: write {key}=null or {key}!=null, not {key}{op}null")


def _time(key: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreError(
            f"{key!r} is a time, and {text!r} is none: write 2026-01-31 or '2026-01-31 14:00'"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
