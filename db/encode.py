"""Any Python value as something that every database and strict JSON accept.

Numbers that are not finite become NULL with a flag in numeric columns, and ``{"$float": "nan"}`` in
JSON. Text loses NUL characters and lone surrogates, which PostgreSQL refuses. Tensors and arrays
are known by what they can do (``detach``, ``item``, ``tolist``), so nothing heavy is imported.
"""

import base64
import dataclasses
import enum
import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Set
from datetime import date
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "FINITE", "INF", "MINUS_INF", "NAN", "NOT_A_NUMBER",
    "ConfigRow", "canonical", "clean", "digest", "flatten", "number", "pack_array", "plain",
    "restore", "scalar", "short", "snapshot", "unpack", "unpack_array",
]  # fmt: skip

Plain = Any  # what json.loads can return

FINITE, NAN, INF, MINUS_INF, NOT_A_NUMBER = range(5)
FLOAT_NAMES = {NAN: "nan", INF: "inf", MINUS_INF: "-inf"}

REFUSED_CHARACTERS = re.compile("[\x00\ud800-\udfff]")
LARGEST_INTEGER = 2**1023  # beyond any float; Python itself refuses to print much larger ones
LARGEST_ARRAY = 10_000  # elements; a larger one is described, not stored
LONGEST_NAME = 500  # characters; PostgreSQL indexes 2,704 bytes
DEEPEST = 50  # levels; what is below is stored as text


def clean(text: str) -> str:
    """Replace NUL and lone surrogates by U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return REFUSED_CHARACTERS.sub("\ufffd", text)


def short(text: str) -> str:
    """Text for a column with an index, which takes no more: what is too long ends in a digest."""
    text = clean(text)
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME - 20]}…{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def number(value: object) -> tuple[float | None, int]:
    """A number, or a tensor or array of one: its finite value or None, and a flag."""
    value = scalar(value)
    if not isinstance(value, (bool, int, float)):
        return None, NOT_A_NUMBER
    try:
        x = float(value)
    except OverflowError:
        x = math.inf if value > 0 else -math.inf
    if math.isnan(x):
        return None, NAN
    if math.isinf(x):
        return None, INF if x > 0 else MINUS_INF
    return x, FINITE


def scalar(value: Any) -> Any:
    """Take the Python number out of a tensor, array or numpy scalar; leave all else as it is."""
    if isinstance(value, (bool, int, float, str)) or not hasattr(value, "item"):
        return value
    try:
        return (value.detach() if hasattr(value, "detach") else value).item()
    except Exception:  # a foreign type may raise anything, e.g. for more than one element
        return value


def plain(value: Any, above: tuple[int, ...] = ()) -> Plain:
    """A copy of ``value`` made of None, bool, int, finite float, str, list and dict only.

    What contains itself ends where it would begin again; ``above`` has the ids of what contains it.
    """
    known = type(value)
    if known is str:  # the types that nearly all values have come first
        return clean(value)
    if value is None or known is bool or (known is float and math.isfinite(value)):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < LARGEST_INTEGER else hex(value)
    if isinstance(value, float):
        x, flag = number(value)
        return x if flag == FINITE else {"$float": FLOAT_NAMES[flag]}
    if isinstance(value, (str, PurePath)):
        return clean(str(value))
    if len(above) >= DEEPEST or id(value) in above:
        return _text(value)
    above = (*above, id(value))
    if known is dict or isinstance(value, Mapping):
        # list() first: another thread may be writing to it
        return {_key(k): plain(v, above) for k, v in list(value.items())}
    if isinstance(value, (list, tuple, Set)):
        return [plain(v, above) for v in list(value)]
    try:
        inner = _inside(value)
    except Exception:  # a foreign type, whose attributes may do anything
        inner = value
    return _text(value) if inner is value else plain(inner, above)


def _key(key: object) -> str:
    try:
        return clean(str(key))
    except Exception:
        return _text(key)


def _inside(value: Any) -> Any:
    """What a value holds that is not plain itself; the value when nothing is known of it."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, date):
        return value.isoformat()
    shape = getattr(value, "shape", ())
    if shape == ():
        return scalar(value)
    return _array(value, shape) if hasattr(value, "tolist") else value


def _array(value: Any, shape: Any) -> Plain:
    sizes = [int(n) for n in shape]
    if math.prod(sizes) > LARGEST_ARRAY:
        return {"$array": {"shape": sizes, "dtype": str(value.dtype)}}
    return (value.detach() if hasattr(value, "detach") else value).tolist()


def _text(value: object) -> str:
    try:
        return clean(repr(value))[:1000]
    except Exception:
        return f"<{type(value).__name__}>"


def snapshot(value: Any) -> Plain:
    """What ``plain`` gives, of a value that another thread may be changing, and whatever it is."""
    for _ in range(100):
        try:
            return plain(value)
        except RuntimeError:  # changed size during iteration
            continue
        except Exception:  # a foreign type
            break
    return _text(value)


def restore(value: Plain) -> Any:
    """The inverse of ``plain`` for numbers: ``{"$float": "nan"}`` is nan again."""
    if isinstance(value, dict):
        if _is_float(value):
            return float(value["$float"])
        return {k: restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restore(v) for v in value]
    return value


def _is_float(value: dict[str, Plain]) -> bool:
    return value.keys() == {"$float"} and value["$float"] in ("nan", "inf", "-inf")


def canonical(value: Plain) -> str:
    """The one strict JSON text of a plain value: keys sorted, no spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Plain) -> str:
    """The sha256 of the canonical JSON of a plain value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class ConfigRow(NamedTuple):
    """One leaf of a config: what ``run_config`` holds."""

    key: str
    num: float | None
    txt: str | None
    kind: str


def flatten(config: Plain) -> list[ConfigRow]:
    """The leaves of a plain config under dotted keys, typed: ``tol < 1`` never meets a text.

    A list is one leaf (kind ``json``). A number that is not finite has kind ``num`` and no ``num``.
    """
    rows: dict[str, ConfigRow] = {}

    def walk(key: str, value: Plain) -> None:
        if isinstance(value, dict) and value and not _is_float(value):
            for name, inner in value.items():
                walk(f"{key}.{name}" if key else name, inner)
        elif key:
            rows[short(key)] = _leaf(short(key), value)

    walk("", config)
    return list(rows.values())


def _leaf(key: str, value: Plain) -> ConfigRow:
    if value is None:
        return ConfigRow(key, None, None, "null")
    if isinstance(value, bool):
        return ConfigRow(key, None, "true" if value else "false", "bool")
    if isinstance(value, (int, float)):
        return ConfigRow(key, number(value)[0], repr(value), "num")
    if isinstance(value, str):
        return ConfigRow(key, None, value, "str")
    if isinstance(value, dict) and _is_float(value):
        return ConfigRow(key, None, value["$float"], "num")
    return ConfigRow(key, None, canonical(value), "json")


def unpack(data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column of a trace as the store has it (float64, little-endian, zlib), as an array."""
    return np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)


def pack_array(*columns: np.ndarray[Any, Any]) -> str:
    """Columns of numbers, one after the other, as text: float64, little-endian, base64."""
    data = b"".join([column.astype("<f8", copy=False).tobytes() for column in columns])
    return base64.b64encode(data).decode("ascii")


def unpack_array(text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The columns that ``pack_array`` packed, as one."""
    return np.frombuffer(base64.b64decode(text), dtype="<f8")
