"""SIGTERM as an end that is recorded."""
# mypy: untyped-calls-exclude=sacred

from __future__ import annotations

import os
import signal
import threading
import warnings
from types import FrameType
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pkg_resources, which nobody here can do anything about
    from sacred.utils import SacredInterrupt


class Terminated(SacredInterrupt):
    """The process was asked to end (SIGTERM)."""

    STATUS = "TERMINATED"


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | SacredInterrupt | None:
    """Return the interrupt that an exception is, or whose doing it is; None for an ordinary one.

    A signal may fall where Python itself cleans up, as in the middle of ``Event.wait``, whose lock
    then complains that nobody holds it: an exception raised while an interrupt is on its way. One
    that is raised ``from`` something, ``None`` included, speaks for itself.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt | SacredInterrupt):
        found = None if found.__suppress_context__ else found.__context__
    return found


class Diverged(SacredInterrupt):
    """What was computed is not finite any more; the message says since when, and what was first."""

    STATUS = "DIVERGED"


class Termination:
    """Turns SIGTERM, in the main thread, into an interrupt that is recorded, for a block.

    A handler that was there is called first. A second SIGTERM, or one while the end of the run is
    being recorded (``ending``), waits until that is done, and then does what it did before.
    """

    def __init__(self) -> None:
        self.ending = False
        self._missed = False
        self._process = os.getpid()
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGTERM)
            # ignored on purpose, or by a handler that is not Python's and could not be put back
            self._installed = self._before not in (signal.SIG_IGN, None)
        if self._installed:
            signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._installed:
            return
        self._installed = False
        if signal.getsignal(signal.SIGTERM) == self._stop:
            signal.signal(signal.SIGTERM, self._before)
        if self._missed:
            signal.raise_signal(signal.SIGTERM)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork ends as it would have
            signal.signal(signal.SIGTERM, self._before)
            signal.raise_signal(signal.SIGTERM)
        elif self.ending:
            self._missed = True
        else:
            self.ending = True
            if callable(self._before):
                self._before(number, frame)
            raise Terminated("SIGTERM")
