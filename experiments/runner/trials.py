"""From a study to its trials: every config checked before the first one runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.runner import config as configs
from experiments.studies import Place, Study
from solvers.options import OptionError, closest


@dataclass(frozen=True)
class Trial:
    """One point of a study's grid.

    Attributes
    ----------
    id
        sha256 of the complete config, seed and sha256 of the data included.
    config
        Complete and checked.
    label
        What tells it from the other trials, for people.
    """

    id: str
    config: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class _Layer:
    """A part of a trial's config, and where in the study file it is written."""

    config: Mapping[str, Any]
    place: Place | None  # None: on the command line


def expand(
    study: Study, config_class: type[Any], overrides: Mapping[str, Any], *, strict: bool = True
) -> list[Trial]:
    """Return the trials of a study, each once, in the order of the file.

    Parameters
    ----------
    overrides
        A nested config that goes over every trial: it fixes the axes of its keys.
    strict
        Refuse a rule of ``exclude`` that excludes nothing; overrides may leave one so.

    Raises
    ------
    OptionError
        With the file, the line, what is allowed and the closest match.
    """
    complete: dict[str, dict[str, Any]] = {}
    unused = dict(enumerate(study.exclude))
    keys: set[str] = set()
    for layers in _points(study, overrides):
        config = _complete(study, config_class, layers)
        flat = configs.flatten(config)
        keys |= {prefix for key in flat for prefix in _prefixes(key)}
        matching = [i for i, rule in enumerate(study.exclude) if _matches(config, rule)]
        for index in matching:
            unused.pop(index, None)
        if not matching:
            complete.setdefault(configs.fingerprint(config), config)
    if strict:
        for index, rule in unused.items():
            raise _useless(study, index, rule, keys)
    labels = _labels(study, list(complete.values()), config_class)
    return [
        Trial(key, config, label)
        for (key, config), label in zip(complete.items(), labels, strict=True)
    ]


def _points(study: Study, overrides: Mapping[str, Any]) -> Iterator[list[_Layer]]:
    base = [_Layer(study.base, ("base",))]
    over = [_Layer(overrides, None)]
    for number, block in enumerate(study.grid or ({},)):
        axes = [
            [
                _Layer(configs.nested({key: value}), ("grid", number, key, index))
                for index, value in enumerate(values)
            ]
            for key, values in block.items()
        ]
        for point in itertools.product(*axes):
            yield [*base, *point, *over]


def _complete(study: Study, config_class: type[Any], layers: list[_Layer]) -> dict[str, Any]:
    config = configs.defaults(config_class)
    for layer in layers:
        config = configs.merge(config, layer.config)
    try:
        return configs.complete(config_class, config)
    except OptionError as error:
        raise OptionError(f"{_where(study, layers, str(error))}{error}") from None


def _where(study: Study, layers: list[_Layer], message: str) -> str:
    """Return ``file:line: `` of what the message is about, if the study file says it."""
    key = re.match(r"[\w.]+", message)
    path = key.group().split(".") if key else []
    depth, best = max(
        ((_depth(layer.config, path), i) for i, layer in enumerate(layers)), default=(0, 0)
    )
    place = layers[best].place
    if not depth or place is None:
        return ""
    if place[0] == "grid":  # the axis says the beginning of the path
        path = path[len(str(place[2]).split(".")) :]
    return f"{study.path}:{_line(study, place, path)}: "


def _line(study: Study, place: Place, path: list[str]) -> int:
    """Return the line below ``place`` whose keys, nested or dotted, share most with ``path``."""

    def score(found: Place) -> tuple[int, int]:
        keys = ".".join(str(part) for part in found[len(place) :]).split(".")
        shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(keys, path, strict=False))
        return len(list(shared)), -len(keys)

    below = [found for found in study.lines if found[: len(place)] == place]
    return study.lines[max(below, key=score)]


def _depth(config: Any, path: list[str]) -> int:
    depth = 0
    for part in path:
        if not isinstance(config, Mapping) or part not in config:
            break
        config, depth = config[part], depth + 1
    return depth


def _matches(config: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    for key, wanted in rule.items():
        found = lookup(config, key)
        if isinstance(found, Mapping) and isinstance(wanted, str):
            found = found.get("name")
        if found != wanted and not (isinstance(wanted, list) and found in wanted):
            return False
    return True


def lookup(config: Any, key: str) -> Any:
    """Return the value of a dotted key, or None."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _useless(study: Study, index: int, rule: Mapping[str, Any], keys: set[str]) -> OptionError:
    line = study.line(("exclude", index))
    where = f"{study.path}{f':{line}' if line else ''}: exclude {dict(rule)}: "
    for key in rule:
        if key not in keys:
            return OptionError(f"{where}no trial has the config key '{key}'{closest(key, keys)}")
    return OptionError(f"{where}no trial is like this, so nothing is excluded")


def _labels(study: Study, trials: list[dict[str, Any]], config_class: type[Any]) -> list[str]:
    """Return what tells the trials apart: an axis of some blocks only where it is not as usual."""
    axes = list(dict.fromkeys(key for block in study.grid for key in block))
    usual = configs.plain(configs.merge(configs.defaults(config_class), study.base))
    rare = {axis for axis in axes if not all(axis in block for block in study.grid)}
    words = [
        [
            ""
            if axis in rare and lookup(config, axis) == lookup(usual, axis)
            else _word(axis, lookup(config, axis))
            for axis in axes
        ]
        for config in trials
    ]
    varying = [i for i in range(len(axes)) if len({row[i] for row in words}) > 1]
    labels = [" ".join(row[i] for i in varying if row[i]) or "the only trial" for row in words]
    # Mappings on one axis may share their names.
    return [
        label if labels.count(label) == 1 else f"{label} ({configs.fingerprint(config)[:8]})"
        for label, config in zip(labels, trials, strict=True)
    ]


def _word(axis: str, value: Any) -> str:
    """Return a short text for the value of an axis: ``implicit/gmres``, ``seed 2``."""
    if isinstance(value, Mapping):
        names = [
            value.get("name"),
            *(v.get("name") for v in value.values() if isinstance(v, Mapping)),
        ]
        return "/".join(str(name) for name in names if name)
    last = axis.rpartition(".")[2]
    if value is None:
        return f"no {axis}" if "." not in axis else ""
    return str(value) if last == "name" else f"{last} {value}"
