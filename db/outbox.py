"""Events on their way into the store: first into the journal, then by one thread into SQL."""

import atexit
import contextlib
import logging
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from db import journal
from db.errors import StoreAway, StoreError
from db.journal import Event, Journal
from db.writer import BATCH, SqlWriter, Stored

__all__ = ["Outbox", "uninterrupted"]

LOG = logging.getLogger(__name__)

LINGER = 0.5  # seconds in which events gather to a batch
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two tries while the store is away
PATIENCE = 30.0  # seconds that the end of a run waits for a store that is away
LAST_PATIENCE = 5.0  # seconds that the end of the process waits for it
LONGEST_QUEUE = 20_000  # events in memory; more are read from the journal when it is their turn
LARGEST_JOURNAL = 4 << 20  # bytes of events that are all stored


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let ctrl-C (SIGINT) and SIGTERM wait until the block is left.

    An exception out of a signal handler may fall on any line, and so between the writing of an
    event and the noting that it is written.
    """
    if threading.current_thread() is not threading.main_thread():  # the others get no signals
        yield
        return
    came: list[int] = []
    kept = {}
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
    """The events of one run, in their order, until the store has them.

    An event is in the journal when ``put`` returns. A thread stores what has gathered, a batch in a
    transaction; while the store is away it tries again and again. When the journal cannot be
    written, events wait in memory alone, and that is logged.

    Parameters
    ----------
    url
        The store.
    header
        What the journal says first: ``session``, ``uuid``, the process.
    """

    def __init__(self, url: str | os.PathLike[str] | None, header: Mapping[str, Any]):
        self.session: str = header["session"]
        self.uuid: str = header["uuid"]
        self.run_id: int | None = None
        self.refused = 0
        self._pid = os.getpid()
        self._writer = SqlWriter(url)
        self._journal = Journal(journal.folder(url), header)
        # Entered by itself and not through the condition, whose way in is in Python: there an
        # exception out of a signal handler may fall when the lock is taken, and leave it taken.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Event] = deque()
        self._unwritten: deque[Event] = deque()  # not in the journal, which could not be written
        self._spilled: int | None = None  # where in the journal the first event not in memory is
        self._told = self._stored = 0  # the last event that was told, and that is stored
        self._thread: threading.Thread | None = None
        self._idle = False  # the thread waits for the next event
        self._urgent = 0  # how many wait for the thread
        self._ending = False  # the thread ends when all is stored
        self._away = False

    # Telling

    def begin(self, payload: dict[str, Any], *, require_store: bool) -> None:
        """Tell the start of the run, and store it when the store is there.

        Raises
        ------
        StoreError
            The store cannot be used, now or later. With ``require_store``, or when there is no
            place for a journal either, also when it is only away. Nothing is left then.
        """
        away: StoreAway | None = None
        try:
            self._writer.connect()
        except StoreAway as error:
            away = error
        if away and require_store:
            raise away
        self.put("start", payload, awaken=False)
        if away and self._unwritten:
            self._forget()
            raise StoreError(f"{away}; and no journal can be kept in {self._journal.path.parent}")
        if away is None:
            try:
                first = self._writer.store(self.session, list(self._queue))
                with self._lock:
                    self._note(first, list(self._queue))
            except StoreAway as error:
                away = error
                if require_store or self._unwritten:
                    self._forget()
                    raise
        if away:
            self._warn(away)
        elif self.refused:
            LOG.warning("run %s began, though not all about its start is stored", self.run_id)
        with self._lock:
            self._ensure_thread()

    def _forget(self) -> None:
        self._queue.clear()
        self._journal.remove()
        self._writer.close()

    def put(self, kind: str, payload: dict[str, Any], *, awaken: bool = True) -> None:
        """Tell an event; it is plain data for JSON."""
        if os.getpid() != self._pid:  # a fork of the process that records: not its run
            return
        with self._lock:
            self._told += 1
            event = Event(self._told, kind, payload, time.time())
            if self._spilled is None and len(self._queue) < LONGEST_QUEUE:
                # First, so that an exception out of a signal handler leaves no event that is told
                # and that the thread does not know of.
                self._queue.append(event)
                self._write(event)
            else:
                place = self._write(event)
                if self._spilled is None and place is None:
                    self._queue.append(event)  # there is no journal to read it from
                elif self._spilled is None:
                    self._spilled = place
            if awaken:
                self._ensure_thread()
                if self._idle or len(self._queue) == BATCH:
                    self._changed.notify_all()

    def _write(self, event: Event) -> int | None:
        """Write an event to the journal; give where it is, None when it is not."""
        if self._unwritten:
            while self._unwritten and self._unwritten[0].seq <= self._stored:
                self._unwritten.popleft()
            self._unwritten.append(event)
            todo = list(self._unwritten)
        else:
            todo = [event]
        try:
            place = self._journal.size
            for one in todo:
                place = self._journal.size
                self._journal.append(one)
                if self._unwritten:
                    self._unwritten.popleft()
            return place
        except OSError as error:
            if not self._unwritten:
                LOG.warning(
                    "the journal %s cannot be written (%s): what the store does not take now waits "
                    "in memory alone", self._journal.path, error.strerror or error,
                )  # fmt: skip
                self._unwritten.append(event)
            return None

    # Storing

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._ending = False
            _open.add(self)
            self._thread = threading.Thread(
                target=self._work, daemon=True, name=f"deq store {self.session[:8]}"
            )
            self._thread.start()

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._lock:
                while not self._waits() and not self._ending:
                    self._tidy()
                    self._idle = True
                    self._changed.wait()
                    self._idle = False
                if not self._waits():
                    self._finish()
                    return
                if not self._urgent and not self._ending:
                    self._changed.wait(LINGER)
                batch = self._batch()
                if not batch:  # the journal had no more, or cannot be read for now
                    if self._spilled is not None:
                        self._changed.wait(wait)
                    continue
            try:
                stored = self._writer.store(self.session, batch)
            except StoreAway as error:
                self._warn(error)
                with self._lock:
                    self._changed.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            wait = FIRST_WAIT
            with self._lock:
                self._note(stored, batch)

    def _waits(self) -> bool:
        return bool(self._queue) or self._spilled is not None

    def _batch(self) -> list[Event]:
        if not self._queue and self._spilled is not None:
            try:
                found, self._spilled = self._journal.events(self._spilled, BATCH)
            except OSError as error:
                LOG.error("the journal %s cannot be read: %s", self._journal.path, error)
                return []
            self._queue.extend(found)
            if len(found) < BATCH:  # that was the last of them
                self._spilled = None
                self._queue.extend(self._unwritten)
        return [event for event, _ in zip(self._queue, range(BATCH), strict=False)]

    def _note(self, stored: Stored, batch: list[Event]) -> None:
        self._stored = batch[-1].seq
        while self._queue and self._queue[0].seq <= self._stored:
            self._queue.popleft()
        if self.uuid != stored.uuid:
            LOG.warning("the id %s was given before: this run is %s", self.uuid, stored.uuid)
        self.run_id, self.uuid = stored.run_id, stored.uuid
        self.refused += stored.refused
        if self._away:
            self._away = False
            LOG.warning("the store is there again; what waited for it is being stored")
        self._changed.notify_all()

    def _tidy(self) -> None:
        """Shorten the journal, all of which is stored."""
        if self._journal.size > LARGEST_JOURNAL:
            with contextlib.suppress(OSError):
                self._journal.reset()

    def _finish(self) -> None:
        self._journal.remove()
        self._unwritten.clear()
        self._writer.close()
        self._thread = None
        _open.discard(self)
        self._changed.notify_all()

    def _warn(self, error: StoreAway) -> None:
        if not self._away:
            self._away = True
            LOG.warning("%s; the run goes on and is kept in %s", error, self._journal.path)

    # Waiting

    @property
    def waiting(self) -> int:
        """How many events the store does not have yet."""
        return self._told - self._stored

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until the store has all that was told so far; False when it has not in time."""
        if os.getpid() != self._pid:
            return True
        with self._lock:
            wanted = self._told
            return self._await(lambda: self._stored >= wanted or not self._waits(), seconds)

    def close(self, seconds: float | None = None) -> bool:
        """Wait as ``flush`` does, then let go of everything; False when something waits still.

        The thread goes on trying then, as long as the process lives. A later event opens anew.
        """
        if os.getpid() != self._pid:
            return True
        with self._lock:
            if self._thread is None and not self._waits():
                return True
            self._ensure_thread()
            self._ending = True
            patience = PATIENCE if seconds is None else seconds
            if self._await(lambda: self._thread is None, patience):
                return True
            where = f"wait in {self._journal.path}: `deq db sync` stores them"
            if self._unwritten:
                where = f"wait in memory alone ({len(self._unwritten)}) and end with this process"
            LOG.error("%d events of run %s %s", self.waiting, self.run_id or self.uuid, where)
            return False

    def _await(self, done: Any, seconds: float | None) -> bool:
        end = None if seconds is None else time.monotonic() + seconds
        self._urgent += 1
        try:
            self._changed.notify_all()
            while not done():
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                # so long that a signal is heard
                self._changed.wait(1.0 if left is None else min(left, 1.0))
            return True
        finally:
            self._urgent -= 1


_open: "weakref.WeakSet[Outbox]" = weakref.WeakSet()


@atexit.register
def _last_try() -> None:
    """What came after the end of its run, or could not be stored then."""
    end = time.monotonic() + LAST_PATIENCE
    for outbox in list(_open):
        if outbox._pid == os.getpid():
            outbox.close(max(0.0, end - time.monotonic()))
