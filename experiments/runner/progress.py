"""What a person sees of a study: a live line on a terminal, else sober lines, and a summary."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from experiments.runner.study import DONE, RESULTS, Plan, Summary

FAILURES_SHOWN = 20


class Display(Protocol):
    """Shows the trials of a study as they go."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""

    def started(self, label: str) -> None:
        """Show that a trial began."""

    def went_on(self, label: str, text: str) -> None:
        """Show how far a trial is."""

    def ended(self, label: str, status: str, message: str | None) -> None:
        """Show how a trial ended; ``message`` says why it failed."""


def display(console: Console, total: int) -> Display:
    """Return a display for ``total`` trials that suits the console."""
    return _Live(console, total) if console.is_terminal else _Lines(console, total)


class _Live:
    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._running: dict[str, str] = {}  # how far each is
        self._failed = 0
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            speed_estimate_period=3600.0,
        )
        self._task = self._progress.add_task("starting", total=total, failed="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.clear()
        self._show("" if kind is None else "stopping")
        self._progress.stop()

    def started(self, label: str) -> None:
        self._running[label] = ""
        self._show()

    def went_on(self, label: str, text: str) -> None:
        self._running[label] = f": {text}"
        self._show()

    def ended(self, label: str, status: str, message: str | None) -> None:
        del self._running[label]
        if status != DONE:
            known = status in RESULTS
            self._failed += not known
            style = "yellow" if known else "red"
            self._console.print(Text(f"{status}: {label}: {_first_line(message)}", style=style))
        self._progress.advance(self._task)
        self._show()

    def _show(self, description: str = "") -> None:
        failed = f"{self._failed} failed" if self._failed else ""
        running = " | ".join(f"{label}{text}" for label, text in self._running.items())
        self._progress.update(self._task, description=description or running, failed=failed)


class _Lines:
    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._ended = 0
        self._began: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def started(self, label: str) -> None:
        self._began[label] = time.monotonic()

    def went_on(self, label: str, text: str) -> None:
        return  # a line for each would hide those that count

    def ended(self, label: str, status: str, message: str | None) -> None:
        self._ended += 1
        seconds = time.monotonic() - self._began.pop(label)
        reason = f": {_first_line(message)}" if message else ""
        line = f"[{self._ended}/{self._total}] {status} {label} ({seconds:.1f} s){reason}"
        self._console.print(Text(line), soft_wrap=True)


def _first_line(message: str | None) -> str:
    return (message or "").strip().partition("\n")[0]


def plan_line(plan: Plan) -> str:
    """Say in a line what a study is about to do."""
    done = len(plan.trials) - len(plan.missing)
    return (
        f"study {plan.study.name}: {len(plan.trials)} trials, {done} done already,"
        f" {len(plan.missing)} to run; store {plan.store}"
    )


def plan_table(plan: Plan) -> Table:
    """Return the trials of a plan and what the store has of them."""
    table = Table(title=f"study {plan.study.name}", title_justify="left")
    table.add_column("trial")
    table.add_column("newest attempt")
    table.add_column("id")
    for trial in plan.trials:
        status = plan.status.get(trial.id, "none")
        table.add_row(Text(trial.label), Text(status), trial.id[:8])
    return table


def summary_view(plan: Plan, summary: Summary, command: str) -> RenderableType:
    """Return what a study's call ends with: counts, failures, and how to go on."""
    ran = sum(summary.counts.values())
    before = len(plan.trials) - len(plan.missing)
    left = len(plan.missing) - ran
    counts = Table.grid(padding=(0, 2))
    counts.add_row("trials done before", str(before))
    for status, number in sorted(summary.counts.items()):
        counts.add_row(status, str(number))
    if left:
        counts.add_row("not run", str(left))
    counts.add_row("time", f"{summary.seconds:.0f} s")
    parts: list[RenderableType] = [counts]
    if summary.failures:
        parts.append(_failures(summary))
    if summary.interrupted:
        parts.append(
            Text(
                "interrupted: what ran is recorded as INTERRUPTED; the same command goes on with"
                f" what is missing: {command}"
            )
        )
    return Group(*parts)


def _failures(summary: Summary) -> Table:
    table = Table(title="trials without a result", title_justify="left")
    for column in ("run", "status", "trial", "why"):
        table.add_column(column, overflow="fold")
    for failure in summary.failures[:FAILURES_SHOWN]:
        run = "" if failure.run_id is None else str(failure.run_id)
        why = Text(failure.message.strip())
        table.add_row(run, failure.status, Text(failure.trial.label), why)
    more = len(summary.failures) - FAILURES_SHOWN
    if more > 0:
        table.add_row("", "", f"and {more} more", "deq runs ls --where status!=COMPLETED")
    else:
        table.caption = "deq runs show RUN has the traceback"
    return table
