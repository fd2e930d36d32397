"""The machine, the software and the commit that a run was made with."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("deq-lab", "torch", "numpy", "scipy", "sacred", "sqlalchemy")


def describe() -> dict[str, Any]:
    """Return machine and software as plain data; ``threads`` is what torch uses by default."""
    import torch

    return {**_machine(), "threads": torch.get_num_threads()}


@functools.cache
def _machine() -> dict[str, Any]:
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": ", ".join(torch.cuda.get_device_name(i) for i in gpus) or None,
        "torch": torch.__version__,
        "packages": {name: version for name, version in versions.items() if version},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Repository:
    """The git checkout that a file belongs to."""

    url: str
    commit: str
    dirty: bool


@functools.cache
def repository(file: Path) -> Repository | None:
    """Return the checkout that tracks ``file``, or None."""
    folder = file.resolve().parent
    if _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return None
    root, commit = _git(folder, "rev-parse", "--show-toplevel"), _git(folder, "rev-parse", "HEAD")
    if not root or not commit:
        return None
    url = _git(folder, "remote", "get-url", "origin") or f"file://{root}"
    changes = _git(Path(root), "status", "--porcelain", "--untracked-files=no")
    return Repository(url, commit, bool(changes))


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or one it does not trust
        return None
    return answer.stdout.strip()
