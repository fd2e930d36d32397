"""A run's journal: each of its events as a line of a file, before it is anywhere else.

The first line is a header that says which run and which process writes; every other line is one
event, ``[seq, kind, payload, at]``, in strict JSON. What is in the file survives the death of the
process (it is handed to the system at once, though not forced to the disk), so an event that was
told is not lost while the database is away. The process that writes holds a lock on the file, which
the system takes back when the process ends, however it ends.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from db.encode import canonical, plain
from db.errors import StoreError
from db.store import locate

__all__ = ["FORMAT", "Event", "Journal", "Pending", "folder", "read", "waiting"]

FORMAT = 1
SUFFIX = ".jsonl"


class Event(NamedTuple):
    """Something that happened in a run: its place among the run's events, its kind, plain data."""

    seq: int
    kind: str
    payload: dict[str, Any]
    at: float | None = None  # seconds since 1970 in UTC


@dataclass(frozen=True)
class Pending:
    """A journal that is there: events of a run that goes on, or that the store has not yet."""

    path: Path
    header: dict[str, Any]
    events: int
    size: int


def folder(url: str | os.PathLike[str] | None = None) -> Path:
    """Where the journals of a store's runs are on this machine.

    Beside an SQLite file, ``store.db.journal/``; for a server, in ``deq-lab/journal/`` below
    ``XDG_STATE_HOME`` or ``~/.local/state``, under the start of a digest of host, port and
    database. ``DEQ_JOURNAL`` names another directory for all of them.
    """
    there = locate(url)
    given = os.environ.get("DEQ_JOURNAL", "").strip()
    path = there.file()
    if path is not None and not given:
        path = path.resolve()  # the same beside every link to it
        return path.with_name(f"{path.name}.journal")
    state = os.environ.get("XDG_STATE_HOME", "").strip() or "~/.local/state"
    base = Path(given or f"{state}/deq-lab/journal").expanduser().absolute()
    return base / hashlib.sha256(there.identity().encode()).hexdigest()[:16]


class Journal:
    """The journal that a run writes; it is made with its first event.

    Raises
    ------
    OSError
        By ``append``: nothing of the event is in the file then.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any]):
        self.path = directory / f"{header['session']}{SUFFIX}"
        self.size = 0
        self._head = (canonical(plain(dict(header) | {"format": FORMAT})) + "\n").encode()
        self._file: int | None = None

    def append(self, event: Event) -> None:
        """Add an event at the end."""
        self._write(self._line(event))

    @staticmethod
    def _line(event: Event) -> bytes:
        try:
            return orjson.dumps(list(event), option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # whole numbers beyond 64 bits, and what is not plain
            text = canonical([event.seq, event.kind, plain(event.payload), event.at])
            return text.encode() + b"\n"

    def _write(self, line: bytes) -> None:
        file = self._file if self._file is not None else self._open()
        start = os.lseek(file, 0, os.SEEK_END)
        written = 0
        try:
            while written < len(line):
                written += os.write(file, line[written:])
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(file, start)
            raise
        self.size = start + written

    def _open(self) -> int:
        for _ in range(100):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            except FileNotFoundError:  # another run has just removed the directory
                continue
            if _locked(file) is not False and _is(file, self.path):
                break
            os.close(file)  # somebody reads or removes it just now
            time.sleep(0.02)
        else:
            raise OSError(errno.EBUSY, "another process has it and does not let go of it")
        self._file = file
        self.size = os.fstat(file).st_size
        if not self.size:
            try:
                self._write(self._head)
            except BaseException:  # without its first line a journal is none
                self.close()
                raise
        return file

    def events(self, offset: int, limit: int) -> tuple[list[Event], int]:
        """Up to ``limit`` events from a place in the file on, and where the next one begins."""
        found: list[Event] = []
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                offset += len(line)
                event = _event(line)
                if event is not None:
                    found.append(event)
                if len(found) == limit:
                    break
        return found, offset

    def reset(self) -> None:
        """Forget all events, which the store has."""
        if self._file is not None:
            os.ftruncate(self._file, len(self._head))
            self.size = len(self._head)

    def close(self) -> None:
        """Let go of the file and leave it where it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Remove the file, all of which the store has, and its directory when that is empty."""
        with contextlib.suppress(OSError):
            discard(self.path)
        self.close()


def _locked(file: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Take a file's lock; False when somebody has it, None where there are no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def held(path: Path) -> bool:
    """Whether a process holds the lock of a journal, as the one that writes it does."""
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
        return _locked(file.fileno(), fcntl.LOCK_SH) is False
    return False


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one at the path."""
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def discard(path: Path) -> None:
    """Remove a journal, and its directory when that is empty.

    Raises
    ------
    OSError
        It may not be removed.
    """
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def _event(line: bytes) -> Event | None:
    """The event of a line; None for one that was not written to its end."""
    try:
        event = Event(*json.loads(line))
    except (ValueError, TypeError):
        return None
    right = isinstance(event.seq, int) and isinstance(event.kind, str)
    return event if right and isinstance(event.payload, dict) else None


def header(path: Path) -> dict[str, Any] | None:
    """What the first line of a journal says; None when the process died while it wrote that.

    Raises
    ------
    StoreError
        A newer deq-lab wrote it.
    """
    with path.open("rb") as file:
        try:
            found = json.loads(file.readline())
        except ValueError:
            return None
    if not isinstance(found, dict) or "session" not in found:
        return None
    if found.get("format") != FORMAT:
        raise StoreError(
            f"the journal {path} has the format {found.get('format')!r} and this deq-lab reads "
            f"{FORMAT}: use the deq-lab that wrote it"
        )
    return found


def read(path: Path) -> Iterator[Event]:
    """The events of a journal in their order, without what was not written to its end."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            event = _event(line)
            if event is not None:
                yield event


def files(directory: Path) -> list[Path]:
    """The journals of a directory, the oldest first."""
    try:
        found = [(path.stat().st_mtime, path) for path in directory.glob(f"*{SUFFIX}")]
    except FileNotFoundError:  # one was removed meanwhile
        return files(directory)
    return [path for _, path in sorted(found)]


def waiting(url: str | os.PathLike[str] | None = None) -> list[Pending]:
    """The journals of this machine for a store: of runs that go on, and of such as left one."""
    found = []
    for path in files(folder(url)):
        with contextlib.suppress(OSError):  # its run has just ended, or it is not ours to read
            try:
                about = header(path) or {}
            except StoreError as error:
                about = {"session": path.stem, "problem": str(error)}
            count = sum(1 for _ in read(path))
            found.append(Pending(path, about, count, path.stat().st_size))
    return found


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a journal's lock; False when a process has it: the one that writes, as a rule.

    False too on a file system without locks, where only the life of the process tells.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield bool(_locked(file)) and _is(file, path)
    finally:
        os.close(file)
