"""The checksums of the data that a run was made with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.data.dataset import fingerprint

__all__ = ["Data", "checksums"]

Data = Mapping[str, "str | os.PathLike[str] | bytes | Tensor"]
"""What a run was made with, by name: a path, bytes, a tensor, or a sha256 that is known already."""

_SHA256 = re.compile("[0-9a-f]{64}")
_known: dict[tuple[str, int, int], str] = {}  # path, size, time of the last change


def checksums(data: Data | None) -> dict[str, dict[str, Any]]:
    """Return what the store keeps of data: ``sha256``, and for a file its ``path`` and ``size``.

    A file is read once in a process, unless it changes.

    Raises
    ------
    TypeError, ValueError
        With the name of what is no file, tensor, bytes or sha256.
    """
    return {str(name): _checksum(str(name), value) for name, value in (data or {}).items()}


def _checksum(name: str, value: object) -> dict[str, Any]:
    if isinstance(value, Tensor):
        return {"sha256": fingerprint(value)}
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest(), "size": len(value)}
    if isinstance(value, str) and _SHA256.fullmatch(value.lower()):
        return {"sha256": value.lower()}
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"data[{name!r}] is of type {type(value).__name__}: expected the path of a file,"
            " bytes, a tensor, or a sha256 as 64 hexadecimal digits"
        )
    path = Path(value)
    try:
        stat = path.stat()
        key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        if key not in _known:
            with path.open("rb") as file:
                _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"data[{name!r}] = {str(value)!r} cannot be read ({error.strerror or error}): expected"
            " the path of a file, bytes, a tensor, or a sha256 as 64 hexadecimal digits"
        ) from None
    return {"sha256": _known[key], "size": stat.st_size, "path": key[0]}
