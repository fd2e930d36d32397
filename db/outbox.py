"""Events on their way into a database that may be busy or away for a while."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from db.errors import StoreError

__all__ = ["Outbox", "uninterrupted"]

LOG = logging.getLogger(__name__)
Event = Callable[[], None]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let ctrl-C (SIGINT) and SIGTERM wait until the block is left.

    An exception out of a signal handler may fall on any line of SQLAlchemy or the driver, and lose
    a connection of the pool with its transaction, and with it the record of how the run ended.
    """
    came: list[int] = []
    kept = {}
    if threading.current_thread() is threading.main_thread():  # the others get no signals
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not None:  # None: not Python's, and not to be put back
                kept[number] = signal.signal(number, lambda n, _: came.append(n))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class Outbox:
    """Delivers events in their order; keeps those that the database cannot take now.

    A kept event is tried again before the next one is delivered. An event is one transaction whose
    rows have keys of their own, so one that was stored although it seemed not to be is refused by
    the database, and not stored twice.
    """

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._tried = False  # whether the first one was tried before

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def deliver(self, event: Event) -> None:
        """Deliver an event, after those that wait.

        Raises
        ------
        StoreError
            The database refused this event for good. (An earlier one that it refuses is logged.)
        """
        self._waiting.append(event)
        self.flush(event)

    def flush(self, awaited: Event | None = None) -> None:
        """Deliver what waits; raise StoreError only when the awaited event is refused."""
        while self._waiting:
            first = self._waiting[0]
            try:
                first()
            except (OperationalError, InterfaceError) as error:
                self._tried = True
                LOG.warning(
                    "the store takes nothing now (%s); %d records wait in memory",
                    _reason(error), len(self),
                )  # fmt: skip
                return
            except (DBAPIError, StoreError, OverflowError) as error:
                self._waiting.popleft()
                stored_before = self._tried and isinstance(error, IntegrityError)
                self._tried = False
                if stored_before:
                    continue
                if first is awaited:
                    raise StoreError(f"the store refused a record: {_reason(error)}") from error
                LOG.error("the store refused a record: %s", _reason(error))
            except BaseException:
                self._tried = True  # whether it was stored is not known
                raise
            else:
                self._waiting.popleft()
                self._tried = False


def _reason(error: Exception) -> str:
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
