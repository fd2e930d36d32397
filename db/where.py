"""Filters: ``solver.name=broyden and reltol<1e-5 and started>-7d`` as conditions over a view.

A condition is ``key op value``, with the operators ``= != < <= > >=`` and ``~``, for which ``*``
and ``?`` in the text stand for anything and any character, in either case; or ``key in (value,
…)``. Conditions are joined by ``and`` and ``or``, turned round by ``not`` and put in parentheses.

A key is, whichever comes first: a column of the view; ``tag``; a column of ``v_runs``; any dotted
key of the runs' configs; ``series.NAME``, the last value of a logged metric; ``config.KEY``, a
config key that is also something of the above. ``started``, ``stopped``, ``heartbeat``, ``left``
and ``right`` are short for the columns that begin so. A key with other characters than letters,
digits and ``. _ - $`` is put in double quotes.

A value is bare or quoted: bare ``1e-5`` is a number, bare ``true``, ``false`` and ``null`` mean
themselves, all else is text, and so is all that is quoted. A time is a date, a date with a time, or
how long ago: ``-30m``, ``-12h``, ``-7d``, ``-2w``. A row without the key matches no condition on it
but ``= null`` on a column; ``not`` matches every row that its condition does not. A run may have
several tags: ``tag=x`` finds the runs that have x among them, ``tag!=x`` all others, ``tag=null``
those without any.

The grammar is read by Lark. Values and keys travel as bound parameters, never as SQL.
"""

import difflib
import functools
import operator
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Text,
    and_,
    bindparam,
    column,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    table,
    true,
)
from sqlalchemy.sql.expression import FromClause, TableClause

from db.encode import clean, short
from db.errors import StoreError, closest
from db.schema import JSON_VALUE, UTC_TIME, RunConfig, Series, Tag
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
        | key OPERATOR (SINGLE | DOUBLE | BARE) -> condition
        | key _IN "(" item ("," item)* ")" -> member
        | key _NOT _IN "(" item ("," item)* ")" -> no_member
    ?key: KEY | DOUBLE
    ?item: SINGLE | DOUBLE | ITEM
    KEY: /[^\W\d][\w.$-]*/
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
# What is longer, has more conditions or is nested deeper is no longer read by anybody, and may be
# more than a database takes.
LONGEST, MOST, DEEPEST = 4000, 100, 20
LISTED = 120  # names in the message about an unknown one
ALIASES = {
    "started": "started_at", "stopped": "stopped_at", "heartbeat": "heartbeat_at",
    "left": "left_solver", "right": "right_solver",
}  # fmt: skip
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
RUN_KEYS = {  # the column that says which run; a row of v_comparisons is of several
    "v_runs": "id", "v_solves": "run_id", "v_gradients": "run_id", "v_series": "run_id",
    "v_points": "run_id",
}  # fmt: skip
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


def conditions(
    connection: Connection, name: str, where: str | None, source: FromClause | None = None
) -> list[Condition]:
    """The conditions of a filter over the view ``name``, all of which are to hold.

    ``source`` is what has the columns of the view, if not the view itself.

    Raises
    ------
    StoreError
        The filter cannot be read, a key is neither a column nor a config key of any run, or a value
        does not fit its column.
    """
    text = clean(where or "")
    if not text.strip():
        return []
    if len(text) > LONGEST:
        raise StoreError(f"the filter has {len(text)} characters, more than {LONGEST}: use SQL")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _unreadable(text, error) from error
    _bounded(tree)
    return [_Filter(connection, name, view(name) if source is None else source).made(tree)]


@functools.cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr")


def _bounded(tree: Tree[Token]) -> None:
    """Refuse what Python or a database may not get to the bottom of."""
    count, level = 0, [tree]
    for _ in range(DEEPEST):
        count += sum(part.data in ("condition", "member", "no_member") for part in level)
        level = [child for part in level for child in part.children if isinstance(child, Tree)]
    if level:
        raise StoreError(f"the filter is nested more than {DEEPEST} deep: write it flatter")
    if count > MOST:
        raise StoreError(
            f"the filter has {count} conditions, more than {MOST}: "
            "write key in (value, value), or use SQL"
        )


def _unreadable(where: str, error: UnexpectedInput) -> StoreError:
    place = getattr(error, "pos_in_stream", None)
    token = getattr(error, "token", None)
    if place is None or (token is not None and token.type == "$END"):
        place = where.rstrip().rfind(" ") + 1  # it ends too early
    shown = where if len(where) <= 200 else f"{where[:200]}…"
    return StoreError(
        f"the filter {shown!r} cannot be read at {where[place:].strip()[:40]!r}: write "
        "conditions 'key op value', with op one of = != < <= > >= ~, or 'key in (value, value)', "
        "joined by and, or, not and parentheses, "
        "for example solver.name=broyden and status=COMPLETED and reltol<1e-5; "
        "a key with other characters than letters, digits and . _ - $ stands in double quotes"
    )


def _unquoted(token: Token) -> str:
    text = str(token)
    if token.type == "SINGLE":
        return text[1:-1].replace("''", "'")
    if token.type == "DOUBLE":
        return text[1:-1].replace('""', '"')
    return text


def _value(token: Token) -> Value:
    text = _unquoted(token)
    if token.type in ("SINGLE", "DOUBLE"):
        return Value(text, True, None)
    try:
        number = float(text)
    except ValueError:
        number = None
    # nan and inf are no numbers to compare with: the store holds them as text
    finite = number is not None and abs(number) < float("inf")
    return Value(text, False, number if finite else None)


class _Filter:
    """Makes the conditions of a parsed filter over one view."""

    def __init__(self, connection: Connection, name: str, source: FromClause):
        self._connection, self._name, self._source = connection, name, source
        run = RUN_KEYS.get(name)
        self._run = None if run is None else source.c[run]

    def made(self, tree: Tree[Token]) -> Condition:
        """The condition that a part of the filter is."""
        if tree.data in ("any", "all"):
            parts = [self.made(part) for part in tree.children if isinstance(part, Tree)]
            return or_(*parts) if tree.data == "any" else and_(*parts)
        if tree.data == "not_":
            (inner,) = tree.children
            assert isinstance(inner, Tree)
            return not_(func.coalesce(self.made(inner), false()))
        key, *rest = (child for child in tree.children if isinstance(child, Token))
        op = {"member": "=", "no_member": "!="}.get(tree.data) or str(rest.pop(0))
        return self._on(_unquoted(key), op, [_value(token) for token in rest])

    def _on(self, key: str, op: str, values: list[Value]) -> Condition:
        for known in (key, ALIASES.get(key)):
            if known in VIEWS[self._name].columns:
                return _on_column(self._name, self._source, known, op, values)
        if self._run is None:
            raise StoreError(
                f"unknown key {key!r} in the filter: a row of {self._name} is of several runs, "
                f"only its columns can be filtered on; {closest(key, self._columns())}"
            )
        if key == "tag":
            return _on_tag(self._run, op, values)
        for known in (key, ALIASES.get(key)):
            if known in VIEWS["v_runs"].columns:
                runs = view("v_runs")
                found = _on_column("v_runs", runs, known, op, values)
                return self._run.in_(select(runs.c.id).where(found))
        if self._stored(key):
            return self._on_config(key, op, values)
        kind, _, name = key.partition(".")
        if kind == "config" and self._stored(name):
            return self._on_config(name, op, values)
        if kind == "series" and name:
            return self._on_series(name, op, values)
        if self._connection.scalar(select(RunConfig.key).limit(1)) is not None:
            raise self._unknown(key)
        return false()  # a store without runs knows no config keys, and no row to find

    def _columns(self) -> set[str]:
        names = VIEWS[self._name].columns
        return {*names, *(short for short, whole in ALIASES.items() if whole in names)}

    def _stored(self, key: str) -> bool:
        known = select(RunConfig.key).where(RunConfig.key == short(key)).limit(1)
        return self._connection.scalar(known) is not None

    def _unknown(self, key: str) -> StoreError:
        stored = self._connection.scalars(select(RunConfig.key).distinct())
        allowed = {*self._columns(), *VIEWS["v_runs"].columns, "tag", *stored}
        return StoreError(f"unknown key {key[:200]!r} in the filter: {_nearest(key, allowed)}")

    def _on_config(self, key: str, op: str, values: list[Value]) -> Condition:
        assert self._run is not None
        found = select(RunConfig.run_id).where(RunConfig.key == short(key))
        return self._run.in_(found.where(_on_leaf(key, op, values)))

    def _on_series(self, name: str, op: str, values: list[Value]) -> Condition:
        assert self._run is not None
        name = short(name)
        if self._connection.scalar(select(Series.id).where(Series.name == name).limit(1)) is None:
            logged = self._connection.scalars(select(Series.name).distinct()).all()
            if logged:
                raise StoreError(f"no run has logged {name!r}: {_nearest(name, logged)}")
        found = select(Series.run_id).where(Series.name == name)
        last: ColumnElement[Any] = Series.__table__.c.last_value
        found = found.where(_on_value(f"series.{name}", last, "number", op, values))
        return self._run.in_(found)


def _nearest(name: str, allowed: Iterable[str]) -> str:
    """What ``closest`` says, of the nearest ones when there are too many to list."""
    names = list(allowed)
    if len(names) <= LISTED:
        return closest(name, names)
    near = difflib.get_close_matches(name, names, n=20, cutoff=0.3)
    return f"{closest(name, near or sorted(names)[:20])} and {len(names)} in all"


def _on_column(
    name: str, source: FromClause, key: str, op: str, values: Sequence[Value]
) -> Condition:
    return _on_value(key, source.c[key], VIEWS[name].columns[key].type, op, values)


def _on_value(
    key: str, target: ColumnElement[Any], kind: str, op: str, values: Sequence[Value]
) -> Condition:
    """Whether a value of a known type fits; several values are a set, for ``=`` and ``!=``."""
    if op == "~":
        if kind != "text":
            raise StoreError(f"'~' is for text, and {key!r} is {kind}")
        return _like(target, values[0].text)
    given = [value for value in values if not value.null]
    if len(given) < len(values):
        _only_equality(key, op)
    if given and kind == "json":
        raise StoreError(
            f"the column {key!r} holds JSON and cannot be filtered on: "
            "use a dotted config key, or SQL"
        )
    rights = [_typed(key, kind, value) for value in given]
    if len(rights) == 1:
        parts = [_compare(target, op, rights[0])]
    else:
        parts = [target.in_(rights) if op == "=" else target.not_in(rights)] if rights else []
    if len(given) < len(values):
        parts.append(target.is_(None) if op == "=" else target.is_not(None))
    return and_(*parts) if op == "!=" else or_(*parts)


def _typed(key: str, kind: str, value: Value) -> Any:
    """A value as a bound parameter of a column's type."""
    if kind in ("integer", "number"):
        if value.number is None:
            raise StoreError(f"{key!r} is a number, and {value.text!r} is none")
        if kind == "integer" and value.number.is_integer() and abs(value.number) < 2**53:
            return bindparam(None, int(value.number), type_=BigInteger())
        # a whole column may be asked for 2.5
        return bindparam(None, value.number, type_=Double())
    if kind == "boolean":
        truth = {"true": 1, "1": 1, "false": 0, "0": 0}.get(value.text.lower())
        if truth is None:
            raise StoreError(f"{key!r} is true or false, not {value.text!r}")
        return bindparam(None, truth, type_=BigInteger())
    right = _time(key, value.text) if kind == "time" else value.text
    return bindparam(None, right, type_=TYPES[kind])


def _on_leaf(key: str, op: str, values: Sequence[Value]) -> Condition:
    """Whether a leaf of a config fits, whatever its type."""
    kind, num, txt = RunConfig.kind, RunConfig.num, RunConfig.txt
    value = values[0]
    if op == "~":
        return and_(kind == "str", _like(txt, value.text))
    if op not in ("=", "!="):
        if value.null:
            _only_equality(key, op)
        if value.number is not None:
            return _compare(num, op, bindparam(None, value.number, type_=Double()))
        return and_(kind == "str", _compare(txt, op, bindparam(None, value.text, type_=Text())))
    words = [v.text for v in values if not v.null and not v.quoted and v.number is None]
    texts = [v.text for v in values if v.quoted or v.number is not None]
    numbers = [v.number for v in values if v.number is not None]
    same: list[Condition] = []
    if words:
        same.append(_among(txt, words))
    if texts:
        same.append(and_(kind == "str", _among(txt, texts)))
    if numbers:
        same.append(num.in_([bindparam(None, n, type_=Double()) for n in numbers]))
    null = any(v.null for v in values)
    if op == "=":
        return or_(*same, kind == "null") if null else or_(*same)
    # num is NULL where the config has a text, which is another value too
    other = not_(func.coalesce(or_(*same), false())) if same else true()
    return and_(kind != "null", other)


def _among(txt: Any, texts: Sequence[str]) -> Condition:
    # the index holds the first characters
    start = literal_column("substr(run_config.txt, 1, 100)", Text)
    return and_(start.in_([text[:100] for text in texts]), txt.in_(texts))


def _on_tag(run: ColumnElement[Any], op: str, values: Sequence[Value]) -> Condition:
    """Whether a run has one of several tags, or none of them."""
    tagged = select(Tag.run_id)
    if op == "~":
        return run.in_(tagged.where(_like(Tag.tag, values[0].text)))
    if op not in ("=", "!="):
        raise StoreError("a tag has no order: write tag=x, tag!=x, tag~x* or tag in (x, y)")
    names = [value.text for value in values if not value.null]
    parts = [run.in_(tagged.where(Tag.tag.in_(names)))] if names else []
    if len(names) < len(values):
        parts.append(run.not_in(tagged))
    return or_(*parts) if op == "=" else not_(or_(*parts))


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
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise StoreError(
            f"{key!r} is a time, and {text!r} is none: "
            "write 2026-01-31, '2026-01-31 14:00', or -7d for a week ago"
        ) from error
