"""Ctrl-C and SIGTERM at the end of a step, when the state of a training is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Deferred"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Deferred:
    """Keeps the first signal back within a block, until :meth:`deliver`; a second one acts at once.

    In the main thread; in others no signal arrives. A signal that is ignored stays so.

    Attributes
    ----------
    came
        The number of a signal that was kept back.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Deferred:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            if signal.getsignal(number) == self._keep:
                signal.signal(number, handler)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.came is None:
            self.came = number
        else:
            self.deliver(number)

    def deliver(self, number: int | None = None) -> None:
        """Let the signal that came do what it would have done."""
        number = self.came if number is None else number
        self._restore()
        if number is not None:
            signal.raise_signal(number)
