"""The machine and the software that a run was made with, and the settings that change results."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
)  # fmt: skip
"""Environment variables that change results, or how many threads make them."""


def describe() -> dict[str, Any]:
    """Return machine, software and settings as plain data.

    ``threads`` is what torch uses now, ``flags`` what its results depend on, ``variables`` those of
    ``VARIABLES`` that are set.
    """
    import torch

    return {
        **_machine(),
        "threads": torch.get_num_threads(),
        "flags": flags(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


@functools.cache
def _machine() -> dict[str, Any]:
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    found = {
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": ", ".join(torch.cuda.get_device_name(i) for i in gpus) or None,
        "torch": torch.__version__,
        "packages": packages(),
    }
    if gpus:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["driver"] = _driver()
    return found


@functools.cache
def packages() -> dict[str, str]:
    """Return the version of every installed distribution, by its name in lower case."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # metadata that somebody left half removed
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            found.setdefault(name, distribution.version)  # the first one is imported
    return dict(sorted(found.items()))


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version of NVIDIA's driver."""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", _read("/proc/driver/nvidia/version"))
    return found.group() if found else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def flags() -> dict[str, Any]:
    """Return torch's settings that change results; None for one that this torch does not have."""
    return {name: _quietly(read) for name, (read, _) in _flags().items()}


def _flags() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How each is read and set."""
    import torch

    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul

    def attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)

    def deterministic(value: Any) -> None:
        torch.use_deterministic_algorithms(bool(value), warn_only=value == "warn")

    def is_deterministic() -> Any:
        warn = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled() and ("warn" if warn else True)

    return {
        "deterministic": (is_deterministic, deterministic),
        "cudnn_deterministic": attribute(cudnn, "deterministic"),
        "cudnn_benchmark": attribute(cudnn, "benchmark"),
        "cudnn_allow_tf32": attribute(cudnn, "allow_tf32"),
        "matmul_allow_tf32": attribute(matmul, "allow_tf32"),
        "matmul_precision": (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        "default_dtype": (
            lambda: str(torch.get_default_dtype()).removeprefix("torch."),
            lambda value: torch.set_default_dtype(getattr(torch, value)),
        ),
    }


def _quietly(read: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old way and a new one to say the same
        try:
            return read()
        except (AttributeError, RuntimeError):
            return None


@contextlib.contextmanager
def settings(threads: int | None, then: Mapping[str, Any]) -> Iterator[None]:
    """Set torch's threads and flags as ``describe`` told them once, for the block."""
    import torch

    before = torch.get_num_threads(), flags()
    _set(threads, then)
    try:
        yield
    finally:
        _set(*before)


def _set(threads: int | None, values: Mapping[str, Any]) -> None:
    import torch

    if threads is not None and threads > 0:
        torch.set_num_threads(threads)
    known = _flags()
    for name, value in values.items():
        if name in known and value is not None:
            _quietly(functools.partial(known[name][1], value))
