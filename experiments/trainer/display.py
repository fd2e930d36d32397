"""What a person sees of a training: a live line on a terminal, else sober lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

__all__ = ["Display", "Seen", "display"]

EVERY = 10.0  # seconds between two lines where there is no terminal
OFTEN = 0.25  # between two pictures of a live one, and two messages to a study


@dataclass(frozen=True)
class Seen:
    """What is shown of a training after so many steps.

    Attributes
    ----------
    steps, of
        Done, and wanted.
    loss, evaluations, products, converged
        Of the last step that was read; None as far as it is not known.
    peak_bytes
        Of a step, once it is measured.
    test
        The last evaluated loss.
    left
        Seconds, None as long as nobody knows.
    """

    steps: int
    of: int
    loss: float | None = None
    evaluations: float | None = None
    products: float | None = None
    converged: float | None = None
    peak_bytes: int | None = None
    test: float | None = None
    left: float | None = None

    @property
    def words(self) -> str:
        """All of it but the steps, in a line."""
        parts = []  # what a narrow terminal has no room for comes last
        if self.left is not None:
            parts.append(f"left {_clock(self.left)}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        if self.test is not None:
            parts.append(f"test {self.test:.4g}")
        if self.converged is not None:
            parts.append(f"converged {self.converged:.0%}")
        if self.evaluations is not None and self.products is not None:
            parts.append(f"evaluations {self.evaluations:.0f} + {self.products:.0f} back")
        if self.peak_bytes is not None:
            parts.append(f"{self.peak_bytes / 1e6:.3g} MB")
        return ", ".join(parts)

    @property
    def line(self) -> str:
        """All of it in a line."""
        return f"step {self.steps}/{self.of}: {self.words}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(Protocol):
    """Shows how far a training is."""

    def show(self, seen: Callable[[], Seen], *, last: bool = False) -> None:
        """Show it, if it is time to; the ``last`` picture is always shown."""

    def close(self) -> None:
        """End."""


def display(told: Callable[[str], None] | None) -> Display:
    """Return a display: for a study that is told a line, for a terminal, or else sober lines."""
    if told is not None:
        return _Told(told)
    # Not what stands for it: the live line is nobody's output, so the store shall not have it.
    terminal = sys.__stderr__
    if terminal is not None and terminal.isatty():
        return _Picture(Console(file=terminal))
    return _Lines()


class _Told:
    def __init__(self, told: Callable[[str], None]) -> None:
        self._told, self._next = told, 0.0

    def show(self, seen: Callable[[], Seen], *, last: bool = False) -> None:
        if last or time.monotonic() >= self._next:
            self._told(seen().line)
            self._next = time.monotonic() + 4 * OFTEN

    def close(self) -> None:
        return


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY

    def show(self, seen: Callable[[], Seen], *, last: bool = False) -> None:
        if last or time.monotonic() >= self._next:
            print(seen().line)
            self._next = time.monotonic() + EVERY

    def close(self) -> None:
        return


class _Picture:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._live = Live(
            self._progress,
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None)
        self._next = 0.0
        self._live.start()

    def show(self, seen: Callable[[], Seen], *, last: bool = False) -> None:
        if last or time.monotonic() >= self._next:
            now = seen()
            self._progress.update(
                self._task, total=now.of, completed=now.steps, description=now.words
            )
            self._live.refresh()
            self._next = time.monotonic() + OFTEN

    def close(self) -> None:
        self._live.stop()
