"""What a run tells as plain data for the journal: rows of the tables, checked, and packed columns.

All of it is made in the thread that computes, so it does no more than it must: numbers that are
already right are let through by their type.
"""

import base64
import enum
import hashlib
import math
import operator
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
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
    pack_array,
    plain,
    scalar,
    short,
    snapshot,
)
from db.errors import closest, hidden
from db.schema import TRACE_COLUMNS, Base, GradCheck, Solve

__all__ = ["artifact_row", "gradient_row", "pack_blob", "points", "run_row", "solve_row"]

LARGEST_INTEGER = 2**63 - 1  # of a column
LARGEST_FILE = 16 << 20  # bytes; a larger artifact is described, not kept
RIGHT = {"number": float, "integer": int, "text": str}  # types that need no conversion
TRACE = frozenset(TRACE_COLUMNS)
PHASES = ("forward", "adjoint", "tangent")
EPOCH = datetime(1970, 1, 1)  # as Sacred's times: UTC that does not say so


def _kinds(model: type[Base], *without: str) -> dict[str, str]:
    """What each column of a table takes: a number, an integer, a text or json."""
    kinds = {Double: "number", Integer: "integer", Text: "text"}
    return {
        column.name: next((kinds[t] for t in kinds if isinstance(column.type, t)), "json")
        for column in model.__table__.columns
        if column.name not in {"id", "run_id", "ord", *without}
    }


SOLVE = _kinds(Solve)
SOLVE_KEYS = frozenset({*SOLVE, "trace"})
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
    meta = snapshot({**meta_info, "id": given_id} if given_id else meta_info)
    options = meta.get("options") if isinstance(meta, dict) else None
    if isinstance(options, dict):  # Sacred's own observers are named by URLs
        meta["options"] = {k: hidden(v) if isinstance(v, str) else v for k, v in options.items()}
    row = {
        "experiment": short(str(ex_info["name"])),
        "command": clean(str(command)),
        "seed": seed if type(seed) is int and abs(seed) <= LARGEST_INTEGER else None,
        "config": snapshot(config),
        "meta": meta,
        "comment": clean(str(meta_info.get("comment") or "")) or None,
    }
    uuid = _uuid(given_id)
    return row | {"uuid": uuid} if uuid else row


def _uuid(given: object) -> str | None:
    try:
        return str(UUID(given)) if isinstance(given, str) else None
    except ValueError:
        return None


def solve_row(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The columns of ``solve`` that are known, and its trace: names, and all columns packed.

    Raises
    ------
    TypeError
        A key is unknown, or a value does not fit its column.
    ValueError
        The phase is unknown, or the columns of the trace are not one-dimensional and of one length.
    """
    _known(record, SOLVE_KEYS, "solve")
    row = _row(SOLVE, record, "solve")
    row.setdefault("site", "")
    if row.get("phase", "forward") not in PHASES:
        raise ValueError(
            f"solve record: phase = {row['phase']!r}: expected one of {', '.join(PHASES)}"
        )
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
    row = _row(GRADIENT, record, "gradient")
    for link in links:
        row[link] = _integer(record.get(link), f"gradient record: {link!r}")
    return row


def _known(record: Mapping[str, Any], allowed: Collection[str], kind: str) -> None:
    for key in record:
        if key not in allowed:
            raise TypeError(f"{kind} record: unknown key {key!r}; {closest(str(key), allowed)}")


def _row(kinds: Mapping[str, str], record: Mapping[str, Any], what: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    nonfinite: dict[str, str] = {}
    for name, value in record.items():
        kind = kinds.get(name)
        if value is None or kind is None:
            continue
        known = type(value)
        if known is RIGHT.get(kind) and (
            known is str
            or (known is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER)
            or (known is float and math.isfinite(value))
        ):
            row[name] = clean(value) if known is str else value
        elif kind == "number":
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
        extra = row.get("extra")
        row["extra"] = (extra if isinstance(extra, dict) else {}) | {"nonfinite": nonfinite}
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


def _trace(trace: Mapping[str, Any]) -> dict[str, Any] | None:
    _known(trace, TRACE, "trace")
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in trace.items():
        if values is not None:
            # a tensor may be on a device or of a type that numpy does not know
            bare = values.detach().tolist() if hasattr(values, "detach") else values
            columns[name] = np.asarray(bare, dtype=np.float64)
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        found = {name: column.shape for name, column in columns.items()}
        raise ValueError(f"trace: columns must be one-dimensional and of one length, not {found}")
    if not columns:
        return None
    return {"columns": list(columns), "data": pack_array(*columns.values())}


def points(new: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """New points of a series, which may be anything, as packed columns: nan is NULL.

    ``flags`` say why a value is NULL (``encode.FLOAT_NAMES``), and are None when all are finite.
    """
    values, flags = _numbers(new["values"])
    odd = flags is not None and flags.any()
    return {
        "steps": pack_array(_numbers(new["steps"])[0]),
        "values": pack_array(values),
        "flags": pack_array(flags) if odd and flags is not None else None,
        "times": pack_array(_moments(new["timestamps"])),
    }


def _numbers(values: Sequence[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    if set(map(type, values)) <= {float, int, bool}:
        try:
            column = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            if np.isfinite(column).all():
                return column, None
    found = [number(value) for value in values]
    column = np.array([math.nan if x is None else x for x, _ in found], dtype=np.float64)
    return column, np.array([flag for _, flag in found], dtype=np.float64)


def _moments(times: Sequence[datetime]) -> np.ndarray[Any, Any]:
    """Times as seconds since 1970 in UTC."""
    return np.array(
        [
            (moment - EPOCH).total_seconds()
            if moment.tzinfo is None
            else moment.astimezone(UTC).timestamp()
            for moment in times
        ],
        dtype=np.float64,
    )


def artifact_row(
    kind: str, name: str, path: str, metadata: object, content_type: str | None
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The columns of ``artifact``, and the packed content by its digest.

    A file that is not there, or larger than ``LARGEST_FILE``, is described as far as can be.
    """
    file = Path(path)
    row: dict[str, Any] = {
        "kind": kind,
        "name": short(str(name)),
        "sha256": None,
        "size": None,
        "path": clean(str(file.absolute())),
        "content_type": clean(content_type) if content_type else None,
        "meta": plain(metadata) if metadata else None,
    }
    try:
        row["size"] = file.stat().st_size
        with file.open("rb") as opened:
            if row["size"] > LARGEST_FILE:
                row["sha256"] = hashlib.file_digest(opened, "sha256").hexdigest()
                return row, {}
            content = opened.read()
    except OSError as error:
        row["meta"] = {"metadata": row["meta"], "unread": clean(error.strerror or str(error))}
        return row, {}
    row["sha256"] = hashlib.sha256(content).hexdigest()
    row["size"] = len(content)
    return row, {row["sha256"]: pack_blob(content)}


def pack_blob(content: bytes) -> list[Any]:
    """A content as its size and its packed bytes as text."""
    return [len(content), base64.b64encode(zlib.compress(content)).decode("ascii")]
