"""The process that runs, its machine and its software."""

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from db.encode import clean, plain

__all__ = ["environment", "process"]


def process(host_info: Mapping[str, Any]) -> dict[str, Any]:
    """What tells later whether the process that writes is still there: host, pid, boot, start.

    A pid alone is used again; with the machine's boot and the time of the process's start (clock
    ticks since boot) it is not. It is one of its namespace: a container counts its own. None where
    the system has no /proc.
    """
    stat = _read("/proc/self/stat")
    return {
        "host": clean(str(host_info.get("hostname") or platform.node())),
        "pid": os.getpid(),
        "pid_space": _link("/proc/self/ns/pid"),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        # the program's name, in parentheses, may itself hold spaces and parentheses
        "proc_start": int(stat.rpartition(")")[2].split()[19]) if stat else None,
    }


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return str(Path(path).readlink())
    except OSError:
        return None


def environment(
    host_info: Mapping[str, Any], dependencies: Iterable[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns of table ``environment``, from what Sacred gathered and what was given.

    What was given wins. The host's name is not part of it, so that equal machines share a row.
    """
    found = dict(host_info)
    found.pop("hostname", None)
    columns = {
        "python": found.pop("python_version", None),
        "os": _last(found.pop("os", None)),
        "cpu": found.pop("cpu", None),
        "gpu": _models(found.get("gpus")),
        "packages": dict(line.partition("==")[::2] for line in dependencies),
    }
    details = {key: value for key, value in found.items() if value}
    for key, value in given.items():
        (columns if key in columns or key == "torch" else details)[key] = value
    columns.setdefault("torch", dict(columns["packages"] or {}).get("torch"))
    row = {
        key: plain(value) if key == "packages" else _text(value) for key, value in columns.items()
    }
    return row | {"details": plain(details) or None}


def _text(value: object) -> str | None:
    return None if value is None else clean(str(value))


def _last(system: Any) -> Any:
    # Sacred gives the pair of a system's name and its full description
    return system[-1] if isinstance(system, (list, tuple)) and system else system


def _models(gpus: Any) -> str | None:
    cards = gpus.get("gpus", ()) if isinstance(gpus, Mapping) else ()
    return ", ".join(str(card.get("model")) for card in cards) or None
