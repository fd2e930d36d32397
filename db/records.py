"""Records of solves and gradient checks as rows of their tables, checked and made plain."""

import enum
import operator
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Double, Integer, Text

from db.encode import (
    FINITE,
    FLOAT_NAMES,
    NOT_A_NUMBER,
    clean,
    number,
    pack,
    plain,
    scalar,
    snapshot,
)
from db.errors import closest
from db.schema import TRACE_COLUMNS, Base, GradCheck, Solve

__all__ = ["gradient_row", "run_row", "solve_row"]

LARGEST_INTEGER = 2**63 - 1  # of a column
CODE = ("base_dir", "mainfile", "sources", "repositories")  # of Sacred's experiment info


def _kinds(model: type[Base], *without: str) -> dict[str, str]:
    """What each column of a table takes: a number, an integer, a text or json."""
    kinds = {Double: "number", Integer: "integer", Text: "text"}
    return {
        column.name: next((kinds[t] for t in kinds if isinstance(column.type, t)), "json")
        for column in model.__table__.columns
        if column.name not in {"id", "run_id", "ord", *without}
    }


SOLVE = _kinds(Solve)
GRADIENT = _kinds(GradCheck, "solve_id", "adjoint_id")


def run_row(
    ex_info: Mapping[str, Any],
    command: str,
    config: Mapping[str, Any],
    meta_info: Mapping[str, Any],
    given_id: object,
) -> dict[str, Any]:
    """The columns of ``run`` that Sacred's first event brings.

    An id from outside (``--id``) is the run's uuid when it is one, and is kept in ``meta`` else.
    """
    seed = config.get("seed")
    row = {
        "experiment": clean(str(ex_info["name"])),
        "command": clean(str(command)),
        "seed": seed if isinstance(seed, int) else None,
        "config": snapshot(config),
        "meta": snapshot({**meta_info, "id": given_id} if given_id else meta_info),
        "comment": clean(str(meta_info.get("comment") or "")) or None,
        "code": snapshot({key: ex_info.get(key) for key in CODE}),
    }
    uuid = _uuid(given_id)
    return row | {"uuid": uuid} if uuid else row


def _uuid(given: object) -> str | None:
    try:
        return str(UUID(given)) if isinstance(given, str) else None
    except ValueError:
        return None


def solve_row(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[int, bytes]]]:
    """The columns of ``solve`` and the packed columns of its trace, by name: length and bytes.

    Raises
    ------
    TypeError
        A key is unknown, or a value does not fit its column.
    ValueError
        The columns of the trace are not one-dimensional and of one length.
    """
    _known(record, {*SOLVE, "trace"}, "solve")
    row = _row(SOLVE, record, "solve")
    row["site"] = row["site"] or ""
    return row, _trace(record.get("trace") or {})


def gradient_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of ``grad_check``, with ``solve_ord`` and ``adjoint_ord`` for the two solves.

    Raises
    ------
    TypeError
        As for ``solve_row``.
    """
    links = ("solve_ord", "adjoint_ord")
    _known(record, {*GRADIENT, *links}, "gradient")
    return _row(GRADIENT, record, "gradient") | {
        link: _integer(record.get(link), f"gradient record: {link!r}") for link in links
    }


def _known(record: Mapping[str, Any], allowed: Collection[str], kind: str) -> None:
    for key in record:
        if key not in allowed:
            raise TypeError(f"{kind} record: unknown key {key!r}; {closest(str(key), allowed)}")


def _row(kinds: Mapping[str, str], record: Mapping[str, Any], what: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(kinds)
    nonfinite: dict[str, str] = {}
    for name, value in record.items():
        if value is None or name not in kinds:
            continue
        kind = kinds[name]
        if kind == "number":
            row[name], flag = number(value)
            if flag == NOT_A_NUMBER:
                raise TypeError(f"{what} record: {name!r} must be a number, not {value!r}")
            if flag != FINITE:
                nonfinite[name] = FLOAT_NAMES[flag]
        elif kind == "integer":
            row[name] = _integer(value, f"{what} record: {name!r}")
        elif kind == "text":
            row[name] = clean(value.name if isinstance(value, enum.Enum) else str(value))
        else:
            row[name] = plain(value)
    if nonfinite:
        extra = row["extra"] if isinstance(row["extra"], dict) else {}
        row["extra"] = extra | {"nonfinite": nonfinite}
    return row


def _integer(value: Any, where: str) -> int | None:
    if value is None:
        return None
    bare = scalar(value)
    try:
        whole = int(bare) if isinstance(bare, float) and bare.is_integer() else operator.index(bare)
    except TypeError:
        raise TypeError(f"{where} must be a whole number, not {value!r}") from None
    if abs(whole) > LARGEST_INTEGER:
        raise TypeError(f"{where} must fit in 64 bits, not {whole:#x}")
    return whole


def _trace(trace: Mapping[str, Any]) -> dict[str, tuple[int, bytes]]:
    _known(trace, set(TRACE_COLUMNS), "trace")
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in trace.items():
        if values is not None:
            # a tensor may be on a device or of a type that numpy does not know
            bare = values.detach().tolist() if hasattr(values, "detach") else values
            columns[name] = np.asarray(bare, dtype=np.float64)
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"trace: columns must be one-dimensional and of one length, not {shapes}")
    return {name: (len(column), pack(column)) for name, column in columns.items()}
