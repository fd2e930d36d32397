"""What a program prints, heard while it goes to where it went before."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_lock = threading.Lock()
_heard: list[Callable[[str], object]] = []  # innermost last
_tees: list[_Tee] = []


class _Tee:
    """A stream that tells what is written to it; everything else is the stream's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)

    def write(self, text: str) -> int:
        written: int = self._stream.write(text)
        for tell in tuple(_heard):
            tell(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def restore(self) -> None:
        # Whoever put another stream over this one keeps it, and goes on writing through this.
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self._stream)


@contextlib.contextmanager
def heard(tell: Callable[[str], object]) -> Iterator[None]:
    """Call ``tell`` with what Python prints to stdout and stderr, from whichever thread.

    Blocks may be nested, and may overlap in any order in several threads.
    """
    with _lock:
        if not _heard:
            _tees[:] = [
                _Tee(name) for name in ("stdout", "stderr") if getattr(sys, name) is not None
            ]
            for tee in _tees:
                setattr(sys, tee._name, tee)
        _heard.append(tell)
    try:
        yield
    finally:
        with _lock:
            _heard.remove(tell)
            if not _heard:
                for tee in _tees:
                    tee.restore()
