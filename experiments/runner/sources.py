"""Which files a person's own program is made of: the modules that it names and what they import.

Ours, the standard library's and installed distributions' are known by commit or version; what a
person wrote is not, so it is recorded by content.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import os
import sys
import sysconfig
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from db import provenance
from experiments.runner import config as configs

OURS = tuple(
    str(Path(__file__).resolve().parents[2] / name) + os.sep
    for name in ("solvers", "implicit", "db", "experiments")
)

moved: dict[str, str] = {}
"""Where a file that stands in for another one is, and for which: what a rerun imports."""

_imported: weakref.WeakKeyDictionary[ModuleType, str] = weakref.WeakKeyDictionary()  # its md5


@dataclass(frozen=True)
class Source:
    """A file of a person's program: the module, where it is, the md5 of what was imported."""

    module: str
    path: Path
    md5: str


def modules(config: Mapping[str, Any]) -> list[str]:
    """Return the modules of a config's own things, which are named ``module:attribute``."""
    flat = configs.flatten(config)
    names = [v for k, v in flat.items() if k.endswith(".name") and isinstance(v, str)]
    return sorted({name.partition(":")[0] for name in names if ":" in name})


def used(roots: Iterable[str]) -> list[Source]:
    """Return the files of imported modules and of all that they import, as far as a person's own.

    Nothing is imported for it: an import inside of a function is found where it leads.
    """
    found: dict[str, Source] = {}
    waiting = [*roots]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = _file(name.partition(".")[0])
        if top is not None and not _own(top):
            continue
        path = _file(name)
        if path is None or not _own(path):
            continue
        md5 = _md5(name, path)
        if md5 is None:
            continue
        shown = Path(moved.get(str(path), str(path)))
        found[name] = Source(name, shown, md5)
        waiting += () if name.endswith(".py") else _prefixes(name)
        waiting += _imports(str(path), md5, _package(name, path))
    return sorted(found.values(), key=lambda source: source.module)


def imported(module: str) -> str | None:
    """Return the md5 of what was imported as a module, as far as somebody asked before."""
    loaded = sys.modules.get(module)
    return None if loaded is None else _imported.get(loaded)


def _package(name: str, path: Path) -> str:
    """What a module's relative imports are relative to."""
    known = getattr(sys.modules.get(name), "__package__", None)
    if isinstance(known, str) or name.endswith(".py"):
        return known or ""
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def _md5(name: str, path: Path) -> str | None:
    """The md5 of what was imported, which is what the file held when it was first asked for."""
    module = sys.modules.get(name)
    if module is not None and module in _imported:
        return _imported[module]
    digest = provenance.keep(path)
    if digest is None:
        return None
    if shown := moved.get(str(path)):
        provenance.keep(shown, provenance.kept(path, digest))
    if module is not None:
        _imported[module] = digest
    return digest


def _file(name: str) -> Path | None:
    """The source of a module, imported or not."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None and not name.endswith(".py"):
        spec = find(name)
        file = spec.origin if spec and spec.has_location else None
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    return Path(file).resolve()


def find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return where a module would be imported from, without importing what it is in."""
    path: Any = None
    spec: importlib.machinery.ModuleSpec | None = None
    for prefix in (*_prefixes(name), name):
        spec = next((s for s in _specs(prefix, path) if s is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and prefix != name:
            return None
    return spec


def _specs(name: str, path: Any) -> Iterator[importlib.machinery.ModuleSpec | None]:
    for finder in sys.meta_path:
        try:
            yield finder.find_spec(name, path)
        except (ImportError, AttributeError, ValueError):
            continue


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts) - 1)]


def _own(path: Path) -> bool:
    """Whether a person wrote it."""
    text = str(path)
    if text.startswith(OURS) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return False
    return not text.startswith(_standard())


@functools.cache
def _standard() -> tuple[str, ...]:
    places = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    return tuple(os.path.join(os.path.realpath(place), "") for place in places if place)  # noqa: PTH118


@functools.lru_cache(maxsize=1000)
def _imports(path: str, md5: str, package: str) -> tuple[str, ...]:
    """Every module that a file may import, wherever in it."""
    content = provenance.kept(path, md5)
    try:
        tree = ast.parse(content or b"")
    except (SyntaxError, ValueError):
        return ()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".") if package else []
                kept = above[: len(above) - node.level + 1]
                if not kept:
                    continue
                base = ".".join([*kept, *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    standard = sys.stdlib_module_names
    return tuple(sorted(name for name in names if name.partition(".")[0] not in standard))
