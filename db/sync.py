"""Journals that were left behind: what is in them goes into the store, and they go away."""

import itertools
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from db import journal
from db.errors import StoreAway, StoreError
from db.journal import Event
from db.liveness import Life, life, mark_died
from db.writer import BATCH, SqlWriter, Stored

__all__ = ["Synced", "sync"]

YOUNG = 10.0  # seconds in which a new journal has got its header


@dataclass
class Synced:
    """What ``sync`` did.

    Attributes
    ----------
    runs
        uuids of the runs whose journals are in the store now.
    events
        How many events those journals had, in the store before or not.
    died
        uuids of those that ended without a word.
    left
        Journals that stay: of runs that go on, of another machine, or that could not be stored.
    problems
        What is to be known about them, a sentence each.
    """

    runs: list[str] = field(default_factory=list)
    events: int = 0
    died: list[str] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sync(url: str | os.PathLike[str] | None = None, *, everything: bool = False) -> Synced:
    """Store what is in the journals of this machine, of runs whose processes have ended.

    To do it again, or twice at once, does no harm: what is stored is known. A run whose journal
    tells no end is DIED.

    Parameters
    ----------
    everything
        Also the journals of other machines (in a home directory that they share); only when it is
        known that they are not running.

    Raises
    ------
    StoreError
        The store cannot be used, or is away.
    """
    done = Synced()
    paths = journal.files(journal.folder(url))
    if not paths:
        return done
    writer = SqlWriter(url)
    try:
        writer.connect()
        for path in paths:
            try:
                _sync(url, writer, path, everything, done)
            except FileNotFoundError:  # its run has just ended, or another sync has done it
                continue
            except (OSError, StoreAway, DBAPIError) as error:
                done.left.append(path)
                done.problems.append(f"the journal {path} stays as it is: {error}")
    finally:
        writer.close()
    return done


def _sync(
    url: str | os.PathLike[str] | None,
    writer: SqlWriter,
    path: Path,
    everything: bool,
    done: Synced,
) -> None:
    with journal.claimed(path) as mine:
        try:
            header = journal.header(path)
        except StoreError as error:
            done.left.append(path)
            done.problems.append(str(error))
            return
        process = header or {}
        if not mine and life(process) is not Life.DEAD:
            done.left.append(path)
            return
        elsewhere = header is not None and process.get("host") != platform.node()
        if elsewhere and not everything:
            done.left.append(path)
            done.problems.append(f"the journal {path} is of the machine {process.get('host')}")
            return
        stored = None
        if header is None:
            if time.time() - path.stat().st_mtime < YOUNG:  # its run has not come further yet
                done.left.append(path)
                return
            if any(True for _ in journal.read(path)):
                done.left.append(path)
                done.problems.append(f"the journal {path} has events and does not say whose")
                return
        else:
            stored = _store(writer, str(header["session"]), path, done)
        died = stored is not None and stored.status == "RUNNING"
        if stored is not None and died:
            mark_died(url, stored.uuid, "its process ended without a word")
        journal.discard(path)
        if stored is not None:
            done.runs.append(stored.uuid)
            done.died += [stored.uuid] if died else []


def _store(writer: SqlWriter, session: str, path: Path, done: Synced) -> Stored | None:
    stored = writer.find(session)
    for batch in _batches(journal.read(path)):
        stored = writer.store(session, batch, living=False)
        done.events += len(batch)
    return stored


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    while batch := list(itertools.islice(events, BATCH)):
        yield batch
