"""Files that the user has: where they are looked for, and whether they are what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from solvers.options import OptionError

__all__ = ["check_md5", "find", "md5"]


def find(root: str, name: str, folder: str, files: Sequence[str]) -> Path:
    """Return the directory with the files: ``root``, or the folder of the usual name in it.

    Raises
    ------
    OptionError
        If ``root`` is not given or no directory, or some of the files are not in it: with what is
        expected where.
    """
    expected = f"a directory with {', '.join(files[:-1])} and {files[-1]} (or with {folder}/ of it)"
    if not root:
        raise OptionError(
            f"root = '': nothing is downloaded; give data.root=DIR for '{name}', {expected}"
        )
    place = Path(root).expanduser()
    if not place.is_dir():
        what = "is no directory" if place.exists() else "does not exist"
        raise OptionError(f"root = {root!r}: it {what}; expected {expected}")
    best = max((place, place / folder), key=lambda p: sum((p / f).is_file() for f in files))
    missing = [f for f in files if not (best / f).is_file()]
    if missing:
        raise OptionError(
            f"root = {root!r}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in"
            f" '{best}'; expected {expected}"
        )
    return best


def md5(path: Path) -> str:
    """Return the md5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, expected: str) -> None:
    """Refuse a file whose md5 is not the published one.

    Raises
    ------
    OptionError
        With both sums and the size of the file.
    """
    found = md5(path)
    if found != expected:
        raise OptionError(
            f"root: '{path}' ({path.stat().st_size:,} bytes) has md5 {found}, the published file"
            f" {expected}: it is truncated or altered, so fetch it again; verify=false takes your"
            " own version in this layout"
        )
