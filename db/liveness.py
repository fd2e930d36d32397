"""Runs whose process is gone, and nobody said so: killed, out of memory, power cut.

On the host where a run's process was, that is known exactly: the process with its pid is there, was
started at the same tick since boot, and the machine has not been booted since. Elsewhere, another
container of the same machine included, all that can be known is how long ago the run gave its last
sign of life; a run that is called dead for its silence and was only slow takes that back with its
next event.
"""

import enum
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Row, func, select, update
from sqlalchemy.exc import DBAPIError

from db import journal
from db.dialects import refusal
from db.encode import clean
from db.machine import process
from db.schema import Base
from db.store import Store, connect

__all__ = ["PATIENCE", "Life", "life", "mark_died", "reap", "silence"]

PATIENCE = timedelta(seconds=60)  # silence of a run elsewhere that means nothing yet
MISSED = 3  # beats in a row that may fail to come
BEAT_INTERVAL = 5.0  # seconds, of a run that does not say how often it beats
ENDED = frozenset("ZXx")  # states of a process that only its parent has not taken note of

RUNS = Base.metadata.tables["run"]


class Life(enum.Enum):
    """Whether a process is there."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """What is known of a process, and why it is called dead."""

    life: Life
    why: str = ""


ALIVE, UNKNOWN = Verdict(Life.ALIVE), Verdict(Life.UNKNOWN)


def life(process: Mapping[str, Any]) -> Life:
    """Whether a process is there: exact on its own host, UNKNOWN from elsewhere.

    Parameters
    ----------
    process
        ``host``, ``pid``, ``pid_space``, ``boot_id`` and ``proc_start``, as ``db.machine.process``
        gives them and a row of ``run`` and the header of a journal keep them; any may be missing or
        None, where a system does not tell it.
    """
    return _judge(process).life


def _judge(there: Mapping[str, Any]) -> Verdict:
    here = process({})
    host, pid, boot = there.get("host"), there.get("pid"), there.get("boot_id")
    if host is None or pid is None or host != here["host"]:
        return UNKNOWN
    if there.get("pid_space") != here["pid_space"]:  # a pid counts in its own space only
        return UNKNOWN
    if boot and here["boot_id"] and boot != here["boot_id"]:
        return Verdict(Life.DEAD, f"{host} has been booted since")
    gone = Verdict(Life.DEAD, f"its process {pid} on {host} is gone")
    try:
        os.kill(pid, 0)  # asks only
    except ProcessLookupError:
        return gone
    except PermissionError:
        pass  # somebody else's
    except OverflowError:
        return gone
    found = _stat(pid)
    if found is None:  # a system without /proc, or one that hides other people's processes
        return UNKNOWN
    state, start = found
    if state in ENDED:
        return gone
    if there.get("proc_start") is None or not boot:
        return UNKNOWN
    if start != there["proc_start"]:
        return Verdict(Life.DEAD, f"{gone.why}, and its number belongs to another one")
    return ALIVE


def _stat(pid: int) -> tuple[str, int] | None:
    """A process's state, and when it was started, in clock ticks since boot."""
    try:
        if Path("/proc/self").readlink().name != str(
            os.getpid()
        ):  # /proc is of another space of pids
            return None
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the program's name, in parentheses, may itself hold spaces and parentheses
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def reap(url: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """Set the RUNNING runs of a store whose process is dead to DIED; give id, uuid and why of each.

    A run on this host is dead when its process is; one elsewhere when it has been silent for 60 s
    and three of its beats. It ended with its last sign of life. A run that gives one meanwhile is
    left, and so is one whose journal on this machine holds events that the store has not:
    ``db.sync.sync`` is for these, and is to be called first.

    Raises
    ------
    StoreError
        There is no store there, or it cannot be used.
    """
    Store(url)  # raises where there is none, which ``connect`` would make
    engine = connect(url)
    folder = journal.folder(url)
    now = datetime.now(UTC)
    died = []
    try:
        with engine.begin() as connection:
            running = select(RUNS).where(RUNS.c.status == "RUNNING").order_by(RUNS.c.id)
            for run in connection.execute(running).all():
                why = _why_dead(run, folder / f"{run.session}{journal.SUFFIX}", now)
                if why is None:
                    continue
                # not one that beats right now, nor one that somebody else reaps
                unchanged = RUNS.c.heartbeat_at.is_not_distinct_from(run.heartbeat_at)
                mine = (RUNS.c.id == run.id) & (RUNS.c.status == "RUNNING") & unchanged
                if connection.execute(update(RUNS).where(mine).values(_ended(why))).rowcount:
                    died.append({"id": run.id, "uuid": run.uuid, "why": why})
    except DBAPIError as error:
        raise refusal(error, f"dead runs cannot be marked: {error.orig}") from error
    finally:
        engine.dispose()
    return died


def _why_dead(run: Row[Any], path: Path, now: datetime) -> str | None:
    """Why a run is called dead, None when it is not; ``path`` is its journal, if it is here."""
    known = _judge(run._asdict())
    if known.life is Life.ALIVE:
        return None
    why = known.why if known.life is Life.DEAD else silence(run, now)
    if (
        why is None
        or (known.life is Life.UNKNOWN and journal.held(path))
        or _waits(path, run.last_seq)
    ):
        return None
    return why


def silence(run: Row[Any], now: datetime) -> str | None:
    """Why a run that tells nothing is called dead; None while its silence means nothing."""
    seen = run.heartbeat_at or run.started_at
    if seen is None:
        return "it never gave a sign of life"
    beats = timedelta(seconds=MISSED * (run.beat_interval or BEAT_INTERVAL))
    quiet = now - seen
    if quiet <= max(PATIENCE, beats):
        return None
    where = f" on {run.host}" if run.host else ""
    return f"its process{where} gave no sign of life for {quiet.total_seconds():.0f} s"


def _waits(path: Path, stored: int) -> bool:
    """Whether a journal has more than the store."""
    try:
        return any(event.seq > stored for event in journal.read(path))
    except FileNotFoundError:
        return False
    except PermissionError:  # somebody else's, who can store it
        return True


def mark_died(url: str | os.PathLike[str] | None, uuid: str, message: str) -> None:
    """Say that a run's process is gone; it ended with its last sign of life.

    Nothing happens to a run that has said itself how it ended.

    Raises
    ------
    StoreError
        The store cannot be opened.
    """
    engine = connect(url)
    try:
        with engine.begin() as connection:
            mine = (RUNS.c.uuid == uuid) & (RUNS.c.status == "RUNNING")
            connection.execute(update(RUNS).where(mine).values(_ended(message)))
    except DBAPIError as error:
        raise refusal(error, f"run {uuid} cannot be marked: {error.orig}") from error
    finally:
        engine.dispose()


def _ended(why: str) -> dict[str, Any]:
    last = func.coalesce(RUNS.c.heartbeat_at, RUNS.c.started_at)
    return {"status": "DIED", "stopped_at": last, "fail_message": clean(why)}
