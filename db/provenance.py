"""The program that a run was made with: its sources by content, its commit, what differs from that.

Nothing here raises, and nothing takes long: git is given a few seconds in all, and what it said is
believed for a while, so that a hundred runs a minute do not ask it a hundred times.

Sources are those that the process imported. Whoever imports a file says so by ``keep``; of a file
that was edited between its import and the run only its md5 is known then, which is stored in place
of the sha256 of a content that did not run.
"""

import hashlib
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from db.encode import clean

__all__ = ["code", "keep", "kept", "md5", "sha256", "without_secrets"]

LOG = logging.getLogger(__name__)

LARGEST_DIFF = 4 * 2**20  # bytes
LARGEST_SOURCE = 16 * 2**20  # bytes; of a larger one the digest alone is stored
MOST_FILES = 1000  # that git is asked about, or that a text lists
PATIENCE = 5.0  # seconds for all that git is asked at a time
FRESH = 10.0  # seconds for which its answer is believed
MOST_ANSWERS = 16  # that are remembered, a difference each

# A program that git started is told about that git's repository, which need not be the run's.
MISLEADING = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIFF_OPTS", "GIT_DIR",
    "GIT_EXTERNAL_DIFF", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_WORK_TREE",
)  # fmt: skip

_lock = threading.RLock()
_kept: dict[tuple[str, str], bytes] = {}  # (path, md5) -> content
_answers: dict[tuple[str, ...], tuple[float, "_Checkout | None"]] = {}


def code(
    ex_info: Mapping[str, Any], *, cwd: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The columns of table ``code`` but its keys, and the contents that they name by sha256.

    Parameters
    ----------
    ex_info
        What Sacred says of an experiment: ``mainfile``, ``base_dir``, and ``sources``, pairs of a
        name (relative to ``base_dir``, or absolute) and the md5 of what was imported.
    cwd
        Whose checkout counts for a program without a file; by default the working directory.

    Returns
    -------
    columns, contents
        ``sources`` maps names to the sha256 of the content (64 digits), or to the md5 (32 digits)
        or None where the content is not to be had. ``dirty`` is whether tracked files, or sources
        that are not tracked, make the program another than the commit; ``diff`` is then the sha256
        of the text that tells. All None outside a checkout.
    """
    columns: dict[str, Any] = dict.fromkeys(
        ("mainfile", "base_dir", "sources", "repository", "commit_id", "dirty", "diff")
    )
    contents: dict[str, bytes] = {}
    with _lock:
        try:
            _fill(columns, contents, ex_info, cwd)
        except Exception as error:  # nobody's run fails because its provenance is odd
            LOG.warning("the program's sources and commit are not known: %s", error)
    return columns, contents


def _fill(
    columns: dict[str, Any],
    contents: dict[str, bytes],
    ex_info: Mapping[str, Any],
    cwd: str | os.PathLike[str] | None,
) -> None:
    base, main = ex_info.get("base_dir"), ex_info.get("mainfile")
    columns["base_dir"] = clean(str(base)) if base else None
    columns["mainfile"] = clean(str(main)) if main else None
    folder = Path(str(base)) if base else Path(cwd) if cwd else Path.cwd()
    files = [_place(folder, str(main))] if main else []
    sources: dict[str, str | None] = {}
    for name, digest in ex_info.get("sources") or ():
        path = _place(folder, str(name))
        files.append(path)
        content = _content(path, str(digest or ""))
        if content is None:
            sources[clean(str(name))] = str(digest) if digest else None
            continue
        sources[clean(str(name))] = key = sha256(content)
        if len(content) <= LARGEST_SOURCE:
            contents[key] = content
    columns["sources"] = sources or None
    checkout = _checkout(tuple(dict.fromkeys(files)), Path(cwd) if cwd else Path.cwd())
    if checkout is not None:
        columns["repository"] = clean(checkout.url)
        columns["commit_id"] = checkout.commit
        columns["dirty"] = int(checkout.dirty)
        if checkout.diff:
            columns["diff"] = key = sha256(checkout.diff)
            contents[key] = checkout.diff


def sha256(content: bytes) -> str:
    """The sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    """The md5 in hexadecimal, by which Sacred knows a source."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def keep(path: str | os.PathLike[str], content: bytes | None = None) -> str | None:
    """Remember what a file holds now, or ``content`` for it, and return its md5.

    To be called when the file is imported: a later ``code`` that is asked for a source of this path
    and md5 then has the content, whatever became of the file. None if it cannot be read.
    """
    place = _place(Path(), str(path))
    try:
        held = Path(place).read_bytes() if content is None else content
    except (OSError, ValueError):
        return None
    digest = md5(held)
    _kept[place, digest] = held
    return digest


def kept(path: str | os.PathLike[str], digest: str) -> bytes | None:
    """What a file held that ``keep`` was told of, by its md5; None if it was not."""
    return _kept.get((_place(Path(), str(path)), digest))


def _place(folder: Path, name: str) -> str:
    try:
        return os.path.realpath(folder / name)
    except (OSError, ValueError):  # no path that there could be, as with a NUL
        return str(folder / name)


def _content(path: str, digest: str) -> bytes | None:
    """What a source held when it had this md5; what it holds now if none is given."""
    found = _kept.get((path, digest))
    if found is None and (now := keep(path)) is not None and digest in ("", now):
        found = _kept[path, now]
    return found


def without_secrets(url: str) -> str:
    """A URL without password, token and query; a user's name stays where it is no secret (ssh)."""
    if "://" not in url:  # a path, or git@host:path
        return url
    try:
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
    except ValueError:  # no valid URL; nothing of it can be told apart
        return url.partition("://")[0] + "://"
    name = user.partition(":")[0]
    if name and parts.scheme in ("ssh", "git+ssh", "postgresql"):
        host = f"{name}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


@dataclass(frozen=True)
class _Checkout:
    """What git says of the checkout that a program belongs to."""

    url: str
    commit: str | None  # None before the first one
    dirty: bool
    diff: bytes


def _checkout(files: tuple[str, ...], cwd: Path) -> _Checkout | None:
    key = (str(cwd), *files)
    when, answer = _answers.get(key, (0.0, None))
    if key not in _answers or time.monotonic() - when > FRESH:
        answer = _ask(files, cwd)
        if len(_answers) >= MOST_ANSWERS:
            _answers.clear()
        _answers[key] = (time.monotonic(), answer)
    return answer


def _ask(files: tuple[str, ...], cwd: Path) -> _Checkout | None:
    """The checkout that the first of the files belongs to that is in one."""
    end = time.monotonic() + PATIENCE
    tried: set[str] = set()
    for file in files:
        folder = os.path.dirname(file)  # noqa: PTH120 - texts, as git has them
        if folder in tried or not os.path.isdir(folder):  # noqa: PTH112 - texts, as git has them
            continue
        tried.add(folder)
        git = _Git.around(folder, end)
        if git is None:
            continue
        tracked, untracked = git.know(f for f in files if git.holds(f))
        if file in tracked or (file in untracked and not _installed(file)):
            return git.checkout(sorted(git.short(f) for f in untracked if not _installed(f)))
    if files:
        return None
    git = _Git.around(str(cwd), end)
    return git.checkout([]) if git else None


def _installed(file: str) -> bool:
    # an environment inside a checkout is no part of it
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


class _Git:
    """A git checkout that is asked, and never changed."""

    def __init__(self, root: str, end: float) -> None:
        self._root = root
        self._end = end

    @classmethod
    def around(cls, folder: str, end: float) -> "_Git | None":
        """The checkout that a folder is in; None without git, or when git does not trust it."""
        said = cls(folder, end)._say("rev-parse", "--show-toplevel")
        root = said.removesuffix("\n") if said else ""
        return cls(os.path.realpath(root), end) if root else None

    def holds(self, file: str) -> bool:
        return file.startswith(os.path.join(self._root, ""))  # noqa: PTH118 - texts, as git has them

    def short(self, file: str) -> str:
        return os.path.relpath(file, self._root)

    def know(self, files: Iterable[str]) -> tuple[set[str], set[str]]:
        """Which of some files are tracked, and which are neither tracked nor ignored."""
        names = [self.short(file) for _, file in zip(range(MOST_FILES), files, strict=False)]
        tracked: set[str] = set()
        untracked: set[str] = set()
        if not names:
            return tracked, untracked
        words = ("ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard", "--")
        for entry in (self._say(*words, *names) or "").split("\0"):
            tag, _, name = entry.partition(" ")
            if name:
                path = os.path.realpath(os.path.join(self._root, name))  # noqa: PTH118 - texts, as git has them
                (untracked if tag == "?" else tracked).add(path)
        return tracked, untracked

    def checkout(self, untracked: list[str]) -> _Checkout | None:
        said = self._say("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no")
        if said is None:
            return None
        entries = [entry for entry in said.split("\0") if entry]
        oid = next((e.split()[-1] for e in entries if e.startswith("# branch.oid ")), "")
        changed = [entry for entry in entries if not entry.startswith("#")]
        commit = oid if re.fullmatch("[0-9a-f]{40,64}", oid) else None
        origin = (self._say("config", "--get", "remote.origin.url") or "").strip()
        url = without_secrets(origin) if origin else f"file://{self._root}"
        return _Checkout(
            url, commit, bool(changed or untracked), self._difference(commit, changed, untracked)
        )

    def _difference(self, commit: str | None, changed: list[str], untracked: list[str]) -> bytes:
        """The text that `git apply` takes, and before and after it what it does not tell."""
        parts: list[bytes] = []
        if untracked:
            names = _listed(untracked)
            parts.append(b"# not tracked, though among the sources of the run: %s\n" % names)
        if changed and commit:
            text, whole = self._read(
                "diff", commit, "--binary", "--no-color", "--no-ext-diff", "--no-textconv",
                "--no-relative", "--no-renames", "--submodule=short", "--ignore-submodules=none",
                "--src-prefix=a/", "--dst-prefix=b/",
            )  # fmt: skip
            parts.append(text)
            if not whole:
                files = _listed(_path(entry) for entry in changed)
                parts.append(
                    b"\n# cut: git gave no more than this within %d bytes and %g s;"
                    b" the files that differ: %s\n" % (LARGEST_DIFF, PATIENCE, files)
                )
        return b"".join(parts)

    def _say(self, *words: str) -> str | None:
        """What git answers, or None."""
        try:
            answer = subprocess.run(
                self._command(words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
                timeout=max(self._end - time.monotonic(), 0.01),
                check=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return os.fsdecode(answer.stdout)

    def _read(self, *words: str) -> tuple[bytes, bool]:
        """The start of what git answers, in whole lines, and whether that is all."""
        try:
            process = subprocess.Popen(
                self._command(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        except OSError:
            return b"", False
        watch = threading.Timer(max(self._end - time.monotonic(), 0.01), process.kill)
        watch.start()
        try:
            assert process.stdout is not None
            text = process.stdout.read(LARGEST_DIFF + 1)
            more = len(text) > LARGEST_DIFF
            if more:
                process.kill()
            process.stdout.close()
            whole = process.wait() == 0 and not more
        finally:
            watch.cancel()
        return (text, True) if whole else (text[: text.rfind(b"\n", 0, LARGEST_DIFF) + 1], False)

    def _command(self, words: tuple[str, ...]) -> list[str]:
        settings = ("core.fsmonitor=false", "core.quotePath=false")  # the first may be a program
        options = [word for setting in settings for word in ("-c", setting)]
        return ["git", "-C", self._root, "--no-pager", "--literal-pathspecs", *options, *words]


def _path(entry: str) -> str:
    """The file of an entry of git's status, whose other fields have no spaces."""
    fields = {"1": 8, "2": 9, "u": 10}.get(entry.partition(" ")[0], 0)
    return entry.split(" ", fields)[-1] if fields else entry


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in MISLEADING}
    return kept | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _listed(names: Iterable[str]) -> bytes:
    every = list(names)
    more = len(every) - MOST_FILES
    text = ", ".join(every[:MOST_FILES]) + (f" and {more} more" if more > 0 else "")
    return os.fsencode(text)


def _after_fork() -> None:
    """Another thread may have been asking git at the fork; in the child it never answers."""
    global _lock  # noqa: PLW0603 - whoever takes it asks for it by name
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
