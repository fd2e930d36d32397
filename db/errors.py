"""The one exception of the store, and the help in its messages."""

import difflib
import re
from collections.abc import Iterable

__all__ = ["StoreAway", "StoreError", "closest", "hidden"]


SECRET = re.compile(r"(?<=://)([^:/@\s]*):[^@/\s]*@|\b((?:ssl)?password)=[^&\s]*", re.IGNORECASE)
MOST = 60  # names of a list that is read


class StoreError(Exception):
    """The store cannot do what was asked; the message says what, where, and what to do."""


class StoreAway(StoreError):  # noqa: N818 - a state, not a mistake
    """The store may be there later: its server is down, or it is busy or full."""


def hidden(text: str) -> str:
    """A text in which the passwords of URLs are not."""
    return SECRET.sub(lambda m: f"{m[2]}=***" if m[2] else f"{m[1]}:***@", text)


def closest(name: str, allowed: Iterable[str]) -> str:
    """Say which names are allowed, the nearest one first: ``did you mean 'solver'? Allowed: …``.

    Of many, those that are most alike are named.
    """
    names = sorted(allowed)
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    hint = f"did you mean {folded[near[0]]!r}? " if near else ""
    if len(names) <= MOST:
        return f"{hint}Allowed: {', '.join(names)}"
    alike = difflib.get_close_matches(name.casefold(), list(folded), n=MOST // 2, cutoff=0.0)
    some = ", ".join(folded[known] for known in alike)
    return f"{hint}Allowed, among {len(names)}: {some}"
