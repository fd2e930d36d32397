"""Our packages have short names; this says so when another distribution took one of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

PACKAGES = ("solvers", "implicit", "db", "experiments")


class ForeignPackageError(ImportError):
    """A package of ours is shadowed or was overwritten by another distribution."""


def check() -> None:
    """Make sure that the four packages are the ones that belong together.

    Raises
    ------
    ForeignPackageError
        With the package, where it comes from and what to do, in one sentence.
    """
    root = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if origin != root / name:
            where = f"'{origin}'" if origin else "no regular package"
            raise ForeignPackageError(
                f"the package '{name}' that Python finds is {where}, not deq-lab's own in"
                f" '{root}': uninstall what it belongs to ({_owner(name)}), take it off"
                " PYTHONPATH, or give deq-lab an environment of its own"
            )
        if _owner(name) == name:
            raise ForeignPackageError(
                f"the distribution '{name}' is installed over deq-lab's package '{name}' in"
                f" '{root}': uninstall it and install deq-lab again, or give deq-lab an"
                " environment of its own"
            )


def _owner(name: str) -> str:
    """Return the distribution of that very name if it owns the package that Python finds."""
    spec = importlib.util.find_spec(name)
    places = {Path(p).resolve() for p in (spec.submodule_search_locations or ())} if spec else set()
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return "another distribution or directory"
    owned = Path(str(distribution.locate_file(name))).resolve() in places
    return name if owned else "another distribution or directory"
