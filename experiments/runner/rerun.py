"""Running a stored run again: its config, seed, sources and settings, and what differs from then.

What a person's own program was made of is in the store by content. Where a file is another one now,
or is gone, the stored one is written into a temporary directory and imported in its place.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from db import Store, StoreError, provenance
from experiments import catalogue
from experiments.runner import environment, sources
from solvers.options import OptionError
from solvers.registries import load_file

if TYPE_CHECKING:
    from sacred import Experiment

__all__ = ["Rerun", "rerun"]

SOLVE_COUNTS = ("evaluations", "iterations", "sample_evaluations", "jvps", "vjps", "retcode")
GRADIENT_COUNTS = ("products",)
GATHERED = ("environment.packages.", "environment.details.")  # what later versions know more of

Kept = Literal["stored", "current"]


@dataclass(frozen=True)
class Rerun:
    """A run that was made again.

    Attributes
    ----------
    run_id, before
        Numbers of the new run and of the one that it repeats.
    status, error
        How it ended, and what it raised.
    differences
        What is not as it was then: a row a key (``config.…`` by its own name, ``environment.…``,
        ``code.…``), columns ``then`` and ``now``. Empty: nothing.
    counts
        Counts that are not as they were: columns ord, phase, column, then, now. On the CPU it is
        empty when config, sources and versions are the same. The phase of gradients is
        ``gradient``.
    restored
        Files that were imported as they were then, because they are others now.
    sentences
        What a person should know of it, and how to come nearer to what was then.
    """

    run_id: int
    before: int
    status: str
    error: str
    differences: pd.DataFrame
    counts: pd.DataFrame
    restored: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """One of the files that a run's own program was made of."""

    module: str  # the path of the file where it has no other name
    name: str  # as the store knows it
    path: str  # where it was
    digest: str  # sha256, or md5 of one whose content is not stored
    content: bytes | None

    def is_(self, content: bytes | None) -> bool:
        """Whether some content is this file's."""
        if content is None:
            return False
        hashed = provenance.sha256 if len(self.digest) == 64 else provenance.md5
        return hashed(content) == self.digest


def rerun(name: int | str, *, store: str | None = None, sources: Kept = "stored") -> Rerun:
    """Run an experiment again as the store says that it was run, and compare its counts.

    The new run is recorded with the old one as its parent.

    Parameters
    ----------
    name
        Number of the run, or the start of its uuid.
    store
        A URL or the path of an SQLite file; ``None`` is ``DEQ_STORE`` or ``results/store.db``.
    sources
        ``stored`` imports the user's own files as they were then, ``current`` as they are now. Our
        own are those of this version: the differences name commit and version.

    Raises
    ------
    StoreError
        There is no such run, it goes on still, or it cannot be repeated: it was no experiment of
        ours, or a file of it is neither here nor stored. The message says what can be done.
    OptionError
        Its config is refused by this version or on this machine.
    """
    if sources not in ("stored", "current"):
        raise StoreError(f"sources = {sources!r}: expected 'stored' or 'current'")
    opened = Store(store)
    run = opened.run(name)
    if run["status"] == "RUNNING":
        raise StoreError(
            f"run {run['id']} is RUNNING: wait for its end, or `deq runs reap` if its process died"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_here_importable())
        target = _target(run)
        files = _files(opened, run)
        restored = _chosen(run, files) if sources == "stored" else []
        stack.enter_context(_importing(files, restored))
        made = _experiment(run, target, sources)
        then = (run["environment"] or {}).get("details") or {}
        stack.enter_context(environment.settings(_whole(then), then.get("flags") or {}))
        outcome = _run(made, run, opened.url, sources)
    if outcome.run_id is None or opened.run(outcome.uuid)["status"] == "RUNNING":
        raise StoreError(
            f"the store went away while run {run['id']} was made again: `deq db sync` stores what"
            f" it missed of {outcome.uuid}"
        )
    differences = opened.diff(run["id"], outcome.run_id).set_axis(["then", "now"], axis=1)
    differences = differences.drop(["code.id", "environment.id"], errors="ignore")
    new = differences.index.str.startswith(GATHERED) & differences["then"].isna()
    again = opened.run(outcome.run_id)
    sentences = list(_sentences(run, again, restored, outcome.error))
    if new.any():
        sentences.append(f"{new.sum()} facts of the environment were not recorded then")
    return Rerun(
        run_id=outcome.run_id,
        before=run["id"],
        status=outcome.status,
        error=outcome.error,
        differences=differences[~new],
        counts=_counts(opened, run["id"], outcome.run_id),
        restored=tuple(file.name for file in restored),
        sentences=tuple(sentences),
    )


def _whole(details: Mapping[str, Any]) -> int | None:
    threads = details.get("threads")
    return threads if isinstance(threads, int) else None


def _run(made: Experiment, run: Mapping[str, Any], store: str, chosen: Kept) -> Any:
    from experiments.runner.recording import run_experiment

    try:
        return run_experiment(
            made,
            run["config"],
            store=store,
            parent=run["id"],
            comment=f"run {run['id']} again",
        )
    except OptionError as error:
        other = "" if chosen == "stored" else "; `--sources stored` takes its files as they were"
        raise OptionError(
            f"run {run['id']} cannot be made again here: {error}{other}{_commit(run)}"
        ) from error


def _commit(run: Mapping[str, Any]) -> str:
    code = run["code"] or {}
    if not code.get("commit_id"):
        return ""
    changed = ", with changes" if code.get("dirty") else ""
    return f" (it was made at commit {code['commit_id'][:12]} of {code['repository']}{changed})"


# Which experiment it was


def _target(run: Mapping[str, Any]) -> str:
    """What the catalogue knows the experiment by: its name, or the module that defines it."""
    meta, code, name = run["meta"] or {}, run["code"] or {}, run["experiment"]
    module = meta.get("module")
    if module is None and run["command"] == "main":  # by a version that did not say
        ours = catalogue.EXPERIMENTS.get(name, "").partition(":")[0]
        if ours and code.get("mainfile") == f"{ours.rpartition('.')[2]}.py":
            module = ours
    if module is None:
        raise StoreError(_foreign(run))
    for known, place in catalogue.EXPERIMENTS.items():
        if known == name and place.partition(":")[0] == module:
            return known
    if module == "__main__":
        return _absolute(code.get("base_dir"), code.get("mainfile") or "")
    return str(module)


def _foreign(run: Mapping[str, Any]) -> str:
    """What to do about a run that is not of our making."""
    meta, code = run["meta"] or {}, run["code"] or {}
    main = code.get("mainfile")
    script = run["command"] == "record"
    kind = "a script" if script else f"the Sacred experiment {run['experiment']!r}"
    if not main:
        return (
            f"run {run['id']} was recorded by {kind}, whose file is not known, so it cannot be made"
            f" again from here{_commit(run)}"
        )
    words = [str(word) for word in meta.get("argv") or ()][1:] if script else [run["command"]]
    # what was asked of a foreign experiment; a script's config is its own affair
    updates = {} if script else meta.get("config_updates") or {}
    given = [f"{key}={value!r}" for key, value in _flat(updates).items()]
    words = [w for w in words if w] + (["with", *given] if given else [])
    command = shlex.join(["python", _absolute(code.get("base_dir"), main), *words])
    return (
        f"run {run['id']} was recorded by {kind}, not by an experiment of deq-lab: run its own file"
        f" again, with `{command}`{_commit(run)}"
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    from experiments.runner.config import flatten

    return flatten(config)


def _experiment(run: Mapping[str, Any], target: str, chosen: Kept) -> Experiment:
    from experiments.runner.recording import is_experiment

    if target in catalogue.EXPERIMENTS:
        return catalogue.load(target)
    try:
        module: ModuleType = (
            load_file(target, target) if target.endswith(".py") else importlib.import_module(target)
        )
    except Exception as error:  # a user's module may fail in any way while it is imported
        other = "" if chosen == "stored" else "; `--sources stored` takes its files as they were"
        raise StoreError(
            f"run {run['id']} cannot be made again: its experiment {run['experiment']!r} in"
            f" '{target}' cannot be imported ({type(error).__name__}: {error}){other}"
        ) from error
    for thing in vars(module).values():
        if is_experiment(thing) and str(thing.path) == run["experiment"]:
            found: Experiment = thing
            return found
    raise StoreError(
        f"run {run['id']} cannot be made again: '{target}' defines no experiment"
        f" {run['experiment']!r} (now)"
    )


# Its files, then and now


def _absolute(base: object, name: str) -> str:
    return os.path.realpath(Path(str(base or ".")) / name)


def _files(opened: Store, run: Mapping[str, Any]) -> list[_File]:
    """The files of a run that a person wrote, as they were."""
    code, meta = run["code"] or {}, run["meta"] or {}
    known: Mapping[str, str | None] = code.get("sources") or {}
    named: dict[str, str] = dict(meta.get("modules") or {})
    for module in sources.modules(run["config"]):
        if module not in named and (name := _guess(module, known)):
            named[module] = name
    found: list[_File] = []
    for module, name in named.items():
        digest = known.get(name) or ""
        path = _absolute(code.get("base_dir"), name)
        content = None
        if len(digest) == 64:
            with contextlib.suppress(StoreError):  # too large to be kept
                content = opened.blob(digest)
        # what was started as a file is imported by its path
        found.append(_File(path if module == "__main__" else module, name, path, digest, content))
    return found


def _guess(module: str, known: Mapping[str, Any]) -> str | None:
    """The source of a module, among those of a version that did not say."""
    if module.endswith(".py"):
        ends = [f"/{module.lstrip('./')}"]
    else:
        parts = module.replace(".", "/")
        ends = [f"/{parts}.py", f"/{parts}/__init__.py"]
    return next((name for name in known if f"/{name}".endswith(tuple(ends))), None)


def _now(file: _File) -> bytes | None:
    """What would be imported for a file now."""
    place: str | None = file.module
    if not file.module.endswith(".py"):
        spec = sources.find(file.module)
        place = spec.origin if spec and spec.has_location else None
    try:
        return Path(place).read_bytes() if place else None
    except OSError:
        return None


def _chosen(run: Mapping[str, Any], files: Sequence[_File]) -> list[_File]:
    """Those files that are others now; StoreError if one of them is not stored."""
    changed = [file for file in files if not file.is_(_now(file))]
    for file in changed:
        if file.content is None:
            now = _now(file)
            how = "is gone" if now is None else "is another one now"
            remedy = "" if now is None else "; `--sources current` takes what is there"
            raise StoreError(
                f"run {run['id']} cannot be made again as it was: its file '{file.name}' {how}, and"
                f" its content is not in the store{remedy}{_commit(run)}"
            )
    return changed


@dataclass
class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules in files that stand in for theirs."""

    places: dict[str, Path] = field(default_factory=dict)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = self.places.get(fullname)
        if place is None:
            return None
        inside: list[str] | None = None
        if place.name == "__init__.py":  # beside what was stored, what is there now
            inside = [str(place.parent), *self._elsewhere(fullname, path)]
        return importlib.util.spec_from_file_location(
            fullname, place, submodule_search_locations=inside
        )

    def _elsewhere(self, fullname: str, path: Sequence[str] | None) -> list[str]:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        return list(spec.submodule_search_locations or ()) if spec else []


@contextlib.contextmanager
def _importing(files: Sequence[_File], restored: Sequence[_File]) -> Iterator[None]:
    """Import these files as they were, if one is to be restored, else as they are now.

    What the process has imported before is put back afterwards.
    """
    from experiments import data

    stale = [f for f in files if f.module in sys.modules and sources.imported(f.module) != _md5(f)]
    if not restored and not stale:
        yield
        return
    # All or none of them, and what they are in: a module that is imported already refers to others.
    concerned = {name for f in files for name in (f.module, *_packages(f.module))}
    known = set(sys.modules)
    before = {name: sys.modules.pop(name) for name in concerned if name in sys.modules}
    finder = _Finder()
    with tempfile.TemporaryDirectory(prefix="deq-rerun-") as folder:
        root = Path(os.path.realpath(folder))
        try:
            if restored:
                for number, file in enumerate(f for f in files if f.content is not None):
                    place = _write(root, number, file)
                    finder.places[file.module] = place
                    sources.moved[str(place)] = file.path
                sys.meta_path.insert(0, finder)
                sys.path.append(str(root))  # for packages without a file of their own
            importlib.invalidate_caches()
            data.forget()
            for file in files:
                if file.module in finder.places and file.module.endswith(".py"):
                    load_file(file.module, str(finder.places[file.module]))
            yield
        finally:
            tops = {name.partition(".")[0] for name in concerned}
            for name in list(sys.modules):
                if name in concerned or (name not in known and name.partition(".")[0] in tops):
                    del sys.modules[name]
            sys.modules.update(before)
            if restored:
                with contextlib.suppress(ValueError):
                    sys.meta_path.remove(finder)
                    sys.path.remove(str(root))
            for place in finder.places.values():
                sources.moved.pop(str(place), None)
            importlib.invalidate_caches()
            data.forget()


def _packages(module: str) -> list[str]:
    """The packages that a module is in."""
    parts = [] if module.endswith(".py") else module.split(".")[:-1]
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _md5(file: _File) -> str | None:
    """The md5 of what a file would be imported as, if nothing is restored."""
    now = _now(file)
    return None if now is None else provenance.md5(now)


def _write(root: Path, number: int, file: _File) -> Path:
    if file.module.endswith(".py"):
        place = root / f"file-{number}" / Path(file.module).name
    else:
        place = root.joinpath(*file.module.split("."))
        is_package = Path(file.name).name == "__init__.py"
        place = place / "__init__.py" if is_package else place.with_name(f"{place.name}.py")
    place.parent.mkdir(parents=True, exist_ok=True)
    assert file.content is not None
    place.write_bytes(file.content)
    return place


@contextlib.contextmanager
def _here_importable() -> Iterator[None]:
    """Let a user's own modules be found, as the command line does."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


# What came of it


def _counts(opened: Store, before: int, after: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    views = (
        (opened.solves, SOLVE_COUNTS, None),
        (opened.gradients, GRADIENT_COUNTS, "gradient"),
    )
    for ask, columns, phase in views:
        then, now = (
            {(row["ord"], phase or row["phase"]): row for row in _records(ask(f"run_id={number}"))}
            for number in (before, after)
        )
        for place in sorted({*then, *now}, key=lambda place: (place[0], str(place[1]))):
            for column in columns:
                was, is_ = (side.get(place, {}).get(column) for side in (then, now))
                if was != is_ or (place in then) != (place in now):
                    order, kind = place
                    rows.append(
                        {"ord": order, "phase": kind, "column": column, "then": was, "now": is_}
                    )
    return pd.DataFrame(rows, columns=["ord", "phase", "column", "then", "now"], dtype="object")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    whole = frame.astype("object").where(frame.notna(), None)
    return [dict(zip(whole.columns, row, strict=True)) for row in whole.itertuples(index=False)]


def _sentences(
    then: Mapping[str, Any], now: Mapping[str, Any], restored: Sequence[_File], error: str
) -> Iterator[str]:
    number = then["id"]
    if error:
        yield f"it ended as {now['status']}: {error}"
    if restored:
        yield f"imported as stored with run {number}: {', '.join(f.name for f in restored)}"
    was, is_ = (run["code"] or {} for run in (then, now))
    if was.get("commit_id") and was["commit_id"] != is_.get("commit_id"):
        changes = f", with changes: `deq runs show {number} --file diff` has them for git apply"
        yield (
            f"the program was at another commit: git checkout {was['commit_id'][:12]}"
            + changes * bool(was.get("diff"))
        )
    before, after = (run["environment"] or {} for run in (then, now))
    if line := pip_line(before.get("packages") or {}, after.get("packages") or {}):
        yield f"other versions are installed; those of run {number}: {line}"
    for what in ("python", "cpu", "gpu"):
        if before.get(what) != after.get(what):
            yield f"another {what}: {before.get(what)} then, {after.get(what)} now"
    set_then, set_now = (
        (side.get("details") or {}).get("variables") or {} for side in (before, after)
    )
    if set_then != set_now and "variables" in (before.get("details") or {}):
        words = [f"{key}={value}" for key, value in set_then.items()]
        unset = [f"-u {key}" for key in set_now if key not in set_then]
        yield f"other variables are set; those of run {number}: env {' '.join([*unset, *words])}"


def pip_line(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the command that installs the versions of then, or nothing if they are installed.

    What was not there then is left alone; deq-lab itself is known by its commit.
    """
    wanted = [
        f"{name}=={version}"
        for name, version in sorted(then.items())
        if now.get(name) != version and name != "deq-lab"
    ]
    if not wanted:
        return ""
    return shlex.join(["pip", "install", *wanted])
