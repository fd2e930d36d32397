"""Filters: ``solver.name=broyden and reltol<1e-5 and started>-7d`` as conditions over a view.

A condition is ``key op value``, with the operators ``= != < <= > >=`` and ``~``, for which ``*``
and ``?`` in the text stand for anything and any character, in either case; or ``key in (value,
…)``. Conditions are joined by ``and`` and ``or``, turned round by ``not`` and put in parentheses.

A key is a column of the view, a column of ``v_runs``, or any dotted key of the runs' configs,
whichever comes first; ``started``, ``stopped`` and ``heartbeat`` are the times of that name. A
value is bare or quoted: bare ``1e-5`` is a number, bare ``true``, ``false`` and ``null`` mean
themselves, all else is text, and so is all that is quoted. A time is a date, a date with a time, or
how long ago: ``-30m``, ``-12h``, ``-7d``, ``-2w``. A row without the key matches no condition on it
but ``= null`` on a column; ``not`` matches every row that its condition does not.

The grammar is read by Lark. Values travel as bound parameters, never as SQL.
"""

import functools
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, VisitError
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
GRAMMAR = r"""
    ?start: any
    ?any: all (_OR all)*
    ?all: one (_AND one)*
    ?one: _NOT one -> not_
        | "(" any ")"
        | KEY OPERATOR (SINGLE | DOUBLE | BARE) -> condition
        | KEY _IN "(" item ("," item)* ")" -> member
        | KEY _NOT _IN "(" item ("," item)* ")" -> no_member
    ?item: SINGLE | DOUBLE | ITEM
    KEY: /[A-Za-z_][\w.$-]*/
    OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | "~"
    SINGLE: /'(?:[^']|'')*'/
    DOUBLE: /"(?:[^"]|"")*"/
    BARE: /[^\s'"=<>!~()]+/
    ITEM: /[^\s'"=<>!~(),]+/
    _AND.2: /and(?![\w.$-])/i
    _OR.2: /or(?![\w.$-])/i
    _NOT.2: /not(?![\w.$-])/i
    _IN.2: /in(?![\w.$-])/i
    %ignore /\s+/
"""
LONGEST = 4000  # characters of a filter; what is nested deeper than that allows, nobody reads
ALIASES = {"started": "started_at", "stopped": "stopped_at", "heartbeat": "heartbeat_at"}
AGO = re.compile(r"-(\d{1,6})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
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
    """The conditions of a filter over the view ``name``, all of which are to hold.

    Raises
    ------
    StoreError
        The filter cannot be read, a key is neither a column nor a config key of any run, or a value
        does not fit its column.
    """
    text = where or ""
    if not text.strip():
        return []
    if len(text) > LONGEST:
        raise StoreError(f"the filter has {len(text)} characters, more than {LONGEST}: use SQL")
    try:
        tree = _parser().parse(text)
        built = _Builder(lambda key, op, value: _condition(connection, name, key, op, value))
        return [built.transform(tree)]
    except UnexpectedInput as error:
        raise _unreadable(text, error) from error
    except VisitError as error:
        if isinstance(error.orig_exc, StoreError):
            raise error.orig_exc from error
        raise


@functools.cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr")


class _Builder(Transformer[Token, Any]):
    """Makes conditions of a parsed filter."""

    def __init__(self, build: Callable[[str, str, Value], Condition]):
        super().__init__()
        self._build = build

    def any(self, found: list[Condition]) -> Condition:
        return or_(*found)

    def all(self, found: list[Condition]) -> Condition:
        return and_(*found)

    def not_(self, found: list[Condition]) -> Condition:
        return not_(func.coalesce(found[0], false()))

    def condition(self, found: list[Token]) -> Condition:
        key, op, value = found
        return self._build(str(key), str(op), _value(value))

    def member(self, found: list[Token]) -> Condition:
        key, *values = found
        return or_(*(self._build(str(key), "=", _value(value)) for value in values))

    def no_member(self, found: list[Token]) -> Condition:
        key, *values = found
        return and_(*(self._build(str(key), "!=", _value(value)) for value in values))


def _unreadable(where: str, error: UnexpectedInput) -> StoreError:
    place = getattr(error, "pos_in_stream", None)
    token = getattr(error, "token", None)
    if place is None or (token is not None and token.type == "$END"):
        place = where.rstrip().rfind(" ") + 1  # it ends too early
    return StoreError(
        f"the filter {where!r} cannot be read at {where[place:].strip()[:40]!r}: write "
        "conditions 'key op value', with op one of = != < <= > >= ~, or 'key in (value, value)', "
        "joined by and, or, not and parentheses, "
        "for example solver.name=broyden and status=COMPLETED and reltol<1e-5"
    )


def _value(token: Token) -> Value:
    text = str(token)
    if token.type == "SINGLE":
        return Value(text[1:-1].replace("''", "'"), True, None)
    if token.type == "DOUBLE":
        return Value(text[1:-1].replace('""', '"'), True, None)
    try:
        number = float(text)
    except ValueError:
        number = None
    # nan and inf are no numbers to compare with: the store holds them as text
    finite = number is not None and abs(number) < float("inf")
    return Value(text, False, number if finite else None)


def _condition(connection: Connection, name: str, key: str, op: str, value: Value) -> Condition:
    run = view(name).c[RUN_KEYS[name]]
    if ALIASES.get(key) in VIEWS["v_runs"].columns:
        key = ALIASES[key]
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
    if op == "~":
        if documented.type != "text":
            raise StoreError(f"'~' is for text, and {documented.name!r} is {documented.type}")
        return _like(target, value.text)
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
    if op == "~":
        return and_(kind == "str", _like(txt, value.text))
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


def _like(target: Any, text: str) -> Condition:
    """Whether a text fits, in which * and ? stand for anything and any character."""
    kept = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = kept.replace("*", "%").replace("?", "_")
    found: Condition = target.ilike(bindparam(None, pattern, type_=Text()), escape="\\")
    return found


def _only_equality(key: str, op: str) -> None:
    if op not in ("=", "!="):
        raise StoreError(f"null has no order: write {key}=null or {key}!=null, not {key}{op}null")


def _time(key: str, text: str) -> datetime:
    ago = AGO.fullmatch(text)
    if ago:
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreError(
            f"{key!r} is a time, and {text!r} is none: "
            "write 2026-01-31, '2026-01-31 14:00', or -7d for a week ago"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
