"""Where the trials take place: folders, stores, a server, the zygote, seeds. All of it goes away.

A janitor, which is no child of ours to be killed with, removes the folder and ends the server when
this process ends without having done so.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "db"))

import postgres  # noqa: E402
import zygote  # noqa: E402

JANITOR = """
trap '' INT TERM HUP
cat
while [ -e "$0" ]; do rm -rf "$0" || sleep 0.2; done
"""


class Ground:
    """One place for all trials of a process."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None] = lambda _: None):
        self.folder, self.seed, self.say = folder, seed, say
        self.server: postgres.Server | None = None
        self._folders = 0
        path = os.pathsep.join(str(p) for p in (HERE.parents[1], HERE, HERE.parent / "db"))
        environment = {"PYTHONPATH": path, "TMPDIR": str(self.new("tmp"))}
        # Begun here, in the main thread: the system ends it with the thread that began it.
        self.zygote = zygote.Zygote(self.new("children"), environment)

    def new(self, name: str) -> Path:
        """A new, empty folder."""
        self._folders += 1
        place = self.folder / f"{self._folders:03d}-{name}"
        place.mkdir()
        return place

    def random(self, name: str) -> random.Random:
        """Chance for one trial: the same for the same seed."""
        return random.Random(f"{self.seed} {name}")

    def databases(self) -> list[str]:
        """The kinds of database that there are here."""
        return ["sqlite"] if self.server is None else ["sqlite", "postgresql"]

    def fresh(self, kind: str) -> str:
        """The URL of a store that is not there yet."""
        if kind == "sqlite":
            return str(self.new("store") / "store.db")
        assert self.server is not None
        return self.server.fresh()

    def close(self) -> None:
        """End the children."""
        self.zygote.close()


@contextlib.contextmanager
def ground(
    folder: Path, seed: int, server: postgres.Server | None, say: Callable[[str], None]
) -> Iterator[Ground]:
    """Ground on a folder and server that somebody else looks after."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder / "state")  # journals of the server's stores
    made = Ground(folder, seed, say)  # after that: its children have it too
    made.server = server
    try:
        yield made
    finally:
        made.close()
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before


@contextlib.contextmanager
def own_ground(seed: int, say: Callable[[str], None], postgresql: bool = True) -> Iterator[Ground]:
    """Ground with a folder and a server of its own, removed even when this process is killed."""
    place = Path(tempfile.mkdtemp(prefix="deq-torture-"))
    place.chmod(0o755)
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", JANITOR, str(place)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip
    before = tempfile.tempdir
    tempfile.tempdir = str(place)  # the server's folder too
    try:
        with contextlib.ExitStack() as stack:
            programs = postgres.binaries() if postgresql else None
            server = stack.enter_context(postgres.server(programs)) if programs else None
            yield stack.enter_context(ground(place, seed, server, say))
    finally:
        tempfile.tempdir = before
        shutil.rmtree(place, ignore_errors=True)
        janitor.communicate()
