"""Disks that fill up, become read-only or cannot be written, in a name space of our own.

Each case mounts a small file system that nobody else sees and that goes away with its processes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import sqlite3
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import deeds

from db import Store, StoreError

NEWNS, NEWUSER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 0x1, 0x20, 0x4000, 0x40000
SIZE = 3 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def enter() -> bool:
    """Go into a name space of mounts; False where the system does not let us."""
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(NEWNS) != 0:
        if LIBC.unshare(NEWNS | NEWUSER) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return LIBC.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None) == 0


def mount(place: Path, flags: int = 0) -> None:
    """Mount the small file system, or mount it again with other flags."""
    options = b"" if flags & REMOUNT else f"size={SIZE}".encode()
    if LIBC.mount(b"tmpfs", str(place).encode(), b"tmpfs", flags, options) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {place}")


def fill(place: Path, leave: int = 0) -> None:
    """Leave so many bytes of the small file system."""
    with (place / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        size = file.tell()
    os.truncate(place / "filler", max(0, size - leave))


def free(place: Path) -> None:
    """Make room again."""
    with suppress(FileNotFoundError):
        (place / "filler").unlink()


def powerless() -> None:
    """Give up what root may do beyond the permissions of files."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    LIBC.capset(header, (ctypes.c_uint32 * 6)())


def work(tell, url: str, seed: int, solves: int, at: dict[int, Callable[[], Any]]):
    """A run that does something to the disk after some of its solves."""
    from db import outbox

    outbox.PATIENCE = 1.0
    outbox.LAST_PATIENCE = 0.2
    observer = deeds.Telling(tell, url)

    def main(_run):
        for number in range(solves):
            if number in at:
                at[number]()
            observer.solve(deeds.record(seed, number))
            _run.log_scalar("loss", number + seed / 1024, number)
            _run.log_scalar("half", 0.5 * number, 0.5 * number)
            time.sleep(0.004)
        _run.info["text"] = "x" * 20_000
        return float(seed)

    made = deeds.experiment(observer, main, {"seed": seed})
    try:
        made.run(options={"--beat-interval": 0.05, "--loglevel": "ERROR", "--capture": "no"})
        tell(ran=True)
    except StoreError as error:
        tell(refused=str(error))
    except BaseException:
        tell(raised=traceback.format_exc()[-1500:])


CASES = {
    # and the databases that it is for; that of PostgreSQL is never on the small file system
    "full for a while": "sqlite",
    "full to the end": "sqlite",
    "store full to the end, journal elsewhere": "sqlite",
    "journal full to the end": "sqlite postgresql",
    "full at the start": "sqlite",
    "read-only at the start": "sqlite",
    "read-only at the start, journal elsewhere": "sqlite",
    "directory without permission": "sqlite",
    "journal without permission": "sqlite postgresql",
    "no more open files for a while": "sqlite postgresql",
    "no larger files": "sqlite",
}


def case(tell, name: str, *, url: str, seed: int, place: str, keep: str):
    """One case: a run in a fork, then room, sync, and a copy of the store out of the name space."""
    if not enter():
        tell(unavailable=True)
        return
    disk = Path(place)
    mount(disk)
    inside = "://" not in url
    solves = 150
    at: dict[int, Callable[[], Any]] = {}
    before: Callable[[], Any] = int  # does nothing
    if inside:
        url = str(disk / "store.db")
    elsewhere = Path(keep).parent / "journals"
    if "elsewhere" in name:
        os.environ["DEQ_JOURNAL"] = str(elsewhere)
    if name == "full for a while":
        at = {20: partial(fill, disk, 20_000), 120: partial(free, disk)}
    elif name in ("full to the end", "store full to the end, journal elsewhere"):
        at = {20: partial(fill, disk, 20_000)}
    elif name == "journal full to the end":
        os.environ["DEQ_JOURNAL"] = str(disk / "journals")
        url = url if not inside else keep
        at = {20: partial(fill, disk, 5_000)}
    elif name == "full at the start":
        before = partial(fill, disk)
    elif name.startswith("read-only at the start"):
        Store(url, create=True)
        before = partial(mount, disk, REMOUNT | READ_ONLY)
    elif name == "directory without permission":
        disk.chmod(0o555)
        before = powerless
    elif name == "journal without permission":
        (disk / "locked").mkdir(mode=0o555)
        os.environ["DEQ_JOURNAL"] = str(disk / "locked" / "journals")
        url = url if not inside else keep
        before = powerless
    elif name == "no more open files for a while":
        files: list[int] = []

        def exhaust() -> None:
            with suppress(OSError):
                while True:
                    files.append(os.open("/dev/null", os.O_RDONLY))

        def relieve() -> None:
            while files:
                os.close(files.pop())

        before = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
        at = {20: exhaust, 120: relieve}
    elif name == "no larger files":
        limits = (300_000, resource.RLIM_INFINITY)
        before = partial(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        solves = 400
    pid = os.fork()
    if pid == 0:
        before()
        work(tell, url, seed, solves, at)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        mount(disk, REMOUNT)
    free(disk)
    disk.chmod(0o755)
    facts: dict[str, Any] = {"code": code}
    # an empty file is no store; to remove it might take it from another process that starts
    facts["files"] = sorted(p.name for p in disk.rglob("*") if p.is_file() and p.stat().st_size)
    try:
        done = deeds.synchronise(url)
        facts["left"] = [str(p) for p in done.left]
    except StoreError as error:
        facts["sync"] = str(error)
    if inside and url != keep and Path(url).exists() and Path(url).stat().st_size:
        with sqlite3.connect(url) as source, sqlite3.connect(keep) as copy:
            source.backup(copy)
    # whatever happened, the next run is as any other
    again = os.fork()
    if again == 0:
        work(lambda **_: None, url, 10_000 + seed, 3, {})
        return
    os.waitpid(again, 0)
    with suppress(StoreError):
        runs = Store(url).runs()
        facts["next"] = runs[runs["seed"] == 10_000 + seed]["status"].tolist()
    shutil.rmtree(elsewhere, ignore_errors=True)
    tell(facts=facts)
