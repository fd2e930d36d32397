"""What a trial counted, each number beside the one that was wanted."""

from __future__ import annotations

from typing import Any, NamedTuple


class Count(NamedTuple):
    """One fact; ``wanted`` is what must be, and None where nothing is promised."""

    what: str
    found: Any
    wanted: Any = None

    @property
    def right(self) -> bool:
        """Whether it is as it must be."""
        return self.wanted is None or self.found == self.wanted


class Tally:
    """The facts of one trial."""

    def __init__(self, trial: str):
        self.trial = trial
        self.counts: list[Count] = []
        self.details: list[str] = []

    def expect(self, what: str, found: Any, wanted: Any) -> None:
        """Add a fact that must be so."""
        self.counts.append(Count(what, found, wanted))

    def note(self, what: str, found: Any) -> None:
        """Add a fact that is only said."""
        self.counts.append(Count(what, found))

    def detail(self, text: str) -> None:
        """Add what helps to understand a wrong count."""
        self.details.append(text)

    @property
    def right(self) -> bool:
        """Whether everything is as it must be."""
        return all(count.right for count in self.counts)

    def wrong(self) -> str:
        """What is not, with details; empty when all is right."""
        if self.right:
            return ""
        lines = [f"{c.what}: {c.found}, wanted {c.wanted}" for c in self.counts if not c.right]
        return "\n".join([f"{self.trial}:", *lines, *self.details[:40]])

    def __str__(self) -> str:
        """A line a fact."""
        lines = []
        for what, found, wanted in self.counts:
            mark = "    " if wanted is None else "ok  " if found == wanted else "FAIL"
            tail = "" if wanted is None or found == wanted else f"   (wanted {wanted})"
            lines.append(f"  {mark} {what}: {found}{tail}")
        if not self.right:
            lines += [f"       {line}" for text in self.details[:40] for line in text.splitlines()]
        return "\n".join(lines)
