"""Studies: named grids of trials, one YAML file each.

A file says what differs from the experiment's defaults::

    experiment: compare
    title: Solvers and gradients compared
    question: Which solver meets a tolerance with the fewest evaluations?
    base:                                  # of every trial; keys nested or dotted
      reltol: [1e-1, 1e-2, 1e-3]
    grid:                                  # blocks: the product of the axes of each
      - model.name: [mlp, transformer]
        solver.name: [anderson, broyden]
    exclude:                               # trials in which all of these hold
      - {model.name: transformer, solver.name: newton}
    gpu:                                   # DEVICE=cuda: base goes over base
      base: {batch: 256}                   # and grid, exclude stand instead of theirs
    quick:                                 # ``with quick=true``: likewise, a look within minutes,
      base: {steps: 20}                    # kept as the study NAME-quick

``registry`` knows our files; the path of another YAML file works wherever a name does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.runner.config import merge, nested, plain
from solvers.options import OptionError, closest
from solvers.registries import Registry

CONFIGS = Path(__file__).parent / "configs"

Place = tuple[str | int, ...]
Block = Mapping[str, list[Any]]

_SECTIONS: dict[str, tuple[type, str]] = {
    "experiment": (str, "the name of an experiment"),
    "title": (str, "a line of text"),
    "question": (str, "a sentence"),
    "base": (dict, "a mapping of config keys"),
    "grid": (list, "a list of blocks, each a mapping of axes"),
    "exclude": (list, "a list of mappings of config keys"),
    "gpu": (dict, "a mapping of base, grid and exclude"),
    "quick": (dict, "a mapping of base, grid and exclude"),
}
_VARIANTS = ("gpu", "quick")
_VARIANT_SECTIONS = ("base", "grid", "exclude")
QUICK = "-quick"


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Attributes
    ----------
    name, path
        The stem of the file, and the file.
    experiment
        The name of the experiment that runs a trial.
    title, question
        For the report.
    base
        The nested config of every trial.
    grid
        Blocks; each maps dotted keys to their values.
    exclude
        Mappings of dotted keys to values; a list of values means any of them.
    gpu, quick
        The sections for ``device=cuda`` and for ``quick=true``, raw.
    """

    name: str
    path: Path
    experiment: str
    title: str = ""
    question: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    grid: tuple[Block, ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()
    gpu: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)

    def on_gpu(self) -> Study:
        """Return the study with its sections for ``device=cuda``."""
        return self._variant("gpu")

    def in_a_hurry(self) -> Study:
        """Return the study with its sections for ``quick=true``, under a name of its own.

        Raises
        ------
        OptionError
            If it has none.
        """
        if not self.quick:
            raise OptionError(
                f"quick = True: the study '{self.name}' has no section 'quick' in {self.path}; run"
                " it as it is"
            )
        return dataclasses.replace(self._variant("quick"), name=f"{self.name}{QUICK}")

    def _variant(self, section: str) -> Study:
        own: Mapping[str, Any] = getattr(self, section)
        moved = {place[1:]: line for place, line in self.lines.items() if place[:1] == (section,)}
        return dataclasses.replace(
            self,
            base=merge(self.base, own.get("base", {})),
            grid=own.get("grid", self.grid),
            exclude=own.get("exclude", self.exclude),
            lines={**self.lines, **moved},
        )

    def line(self, *places: Place) -> int | None:
        """Return the line of the first of these places that the file has."""
        return next((self.lines[place] for place in places if place in self.lines), None)


def _reader(path: Path) -> Callable[[], Study]:
    def build() -> Study:
        return read(path)

    return build


registry: Registry[Study] = Registry("study")
for _path in sorted(CONFIGS.glob("*.yaml")):
    registry.register(_path.stem, _reader(_path))


def find(name: str) -> Study:
    """Return the study of a name or of the path of a YAML file.

    Raises
    ------
    OptionError
        With the file, the line, what is allowed and the closest match.
    """
    return read(Path(name)) if name.endswith((".yaml", ".yml")) else registry.build(name)


def read(path: Path) -> Study:
    """Read a study file; see :func:`find`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the study file '{path}': {error}") from None
    lines: dict[Place, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _note_lines(root, (), lines, path)
        content = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise OptionError(f"{place}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise OptionError(f"{path}: not YAML: {error}") from None
    return _Reader(path, lines).study(content)


def _note_lines(node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            if inner in lines:
                raise OptionError(
                    f"{path}:{key.start_mark.line + 1}: '{key.value}' is here for the second time,"
                    f" first in line {lines[inner]}"
                )
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*place, index), lines, path)


@dataclass(frozen=True)
class _Reader:
    path: Path
    lines: Mapping[Place, int]

    def study(self, content: object) -> Study:
        if not isinstance(content, dict):
            raise self.error((), f"expected a mapping with the keys {', '.join(_SECTIONS)}")
        self.check_sections(content, (), tuple(_SECTIONS))
        if "experiment" not in content:
            raise self.error((), "'experiment' is missing: which one runs the trials?")
        for variant in _VARIANTS:
            self.check_sections(content.get(variant) or {}, (variant,), _VARIANT_SECTIONS)
        return Study(
            name=self.path.stem,
            path=self.path,
            experiment=content["experiment"],
            title=content.get("title") or self.path.stem,
            question=content.get("question") or "",
            base=self.config(content.get("base"), ("base",)),
            grid=self.grid(content.get("grid"), ("grid",)),
            exclude=self.exclude(content.get("exclude"), ("exclude",)),
            gpu=self.variant(content.get("gpu") or {}, "gpu"),
            quick=self.variant(content.get("quick") or {}, "quick"),
            lines=self.lines,
        )

    def error(self, place: Place, message: str) -> OptionError:
        line = self.lines.get(place)
        return OptionError(f"{self.path}{f':{line}' if line else ''}: {message}")

    def check_sections(
        self, content: Mapping[Hashable, Any], place: Place, allowed: tuple[str, ...]
    ) -> None:
        for key, value in content.items():
            inner = (*place, str(key))
            if key not in allowed:
                hint = closest(str(key), allowed)
                raise self.error(
                    inner, f"unknown key '{key}'{hint} (allowed: {', '.join(allowed)})"
                )
            kind, what = _SECTIONS[str(key)]
            if value is not None and not isinstance(value, kind):
                raise self.error(inner, f"{key} = {value!r}: expected {what}")

    def config(self, content: object, place: Place) -> dict[str, Any]:
        if content is not None and not isinstance(content, dict):
            raise self.error(place, f"{content!r}: expected a mapping of config keys")
        try:
            return nested(plain(content or {}))
        except OptionError as error:
            raise self.error(place, str(error)) from None

    def grid(self, content: list[Any] | None, place: Place) -> tuple[Block, ...]:
        blocks = []
        for index, block in enumerate(content or ()):
            inner = (*place, index)
            self.config(block, inner)  # its keys
            for key, values in (block or {}).items():
                if not isinstance(values, list) or not values:
                    what = f"{key} = {values!r}: an axis needs a list of values, [{values}]"
                    raise self.error((*inner, key), what)
            blocks.append({key: plain(values) for key, values in (block or {}).items()})
        return tuple(blocks)

    def exclude(self, content: list[Any] | None, place: Place) -> tuple[Mapping[str, Any], ...]:
        for index, rule in enumerate(content or ()):
            if not isinstance(rule, dict) or not rule:
                raise self.error((*place, index), f"{rule!r}: expected a mapping of config keys")
        return tuple({str(k): plain(v) for k, v in rule.items()} for rule in content or ())

    def variant(self, content: Mapping[str, Any], name: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if "base" in content:
            made["base"] = self.config(content["base"], (name, "base"))
        if "grid" in content:
            made["grid"] = self.grid(content["grid"], (name, "grid"))
        if "exclude" in content:
            made["exclude"] = self.exclude(content["exclude"], (name, "exclude"))
        return made
