"""Configs: from what a person wrote to one that is checked and complete.

The defaults are those of a frozen dataclass. A field whose metadata names a ``registry`` holds the
config of a registered thing, ``{name: anderson, window: 10}``; ``optional`` allows null there. A
complete config holds every option of every such thing, nested ones too, so that runs can be found
by an option that nobody typed.

Two optional methods of the dataclass take part: ``check()`` raises ``OptionError`` for a rule that
concerns several fields, and ``completed()`` returns the config with what only built things know.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from solvers.options import OptionError, check_value, field_types, unknown

Config: TypeAlias = Mapping[str, Any]
"""The config of a registered thing: its name, and its options as plain data."""

Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy's and torch's generators take as a seed."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}


def _device(name: str) -> str:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise PydanticCustomError("device", "expected auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise PydanticCustomError("device", "this machine has no CUDA device (allowed: auto, cpu)")
    if index and int(index) >= count:
        raise PydanticCustomError("device", f"this machine has the CUDA devices 0 to {count - 1}")
    return name


Device: TypeAlias = Annotated[str, AfterValidator(_device)]
"""``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first CUDA device, else the CPU."""


def plain(value: Any) -> Any:
    """Return plain data in which text that spells a number or true, false, null is that value.

    YAML reads ``1e-3`` as text, and the command line ``null``.
    """
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return int(value) if value.lstrip("+-").isdigit() else float(value)
        return _WORDS.get(value, value)
    return value


def parse(words: Iterable[str]) -> dict[str, Any]:
    """Return the nested config of ``["solver.name=broyden", "reltol=[1e-3, 1e-6]"]``.

    Values are Python or YAML literals; what is neither is text.
    """
    updates: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key:
            raise OptionError(f"'{word}': expected key=value, such as solver.name=broyden")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if isinstance(value, str) and value[:1] in ("[", "{"):
            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise OptionError(f"{key} = {text}: not a list or mapping: {error}") from None
        if key in updates and updates[key] != value:
            raise OptionError(f"{key}: given twice, as {updates[key]!r} and as {value!r}")
        updates[key] = value
    return nested(plain(updates))


def load(path: Path) -> dict[str, Any]:
    """Return the nested config of a YAML or JSON file."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise OptionError(
            f"'{path}': expected key=value, such as solver.name=broyden, or a YAML or JSON file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"cannot read the config file '{path}': {error}") from None
    if not isinstance(content, dict):
        raise OptionError(f"the config file '{path}' holds no mapping of config keys")
    return nested(content)


def nested(config: Mapping[Any, Any], path: str = "") -> dict[str, Any]:
    """Return ``config`` with dotted keys opened: ``{"a.b": 1}`` is ``{"a": {"b": 1}}``."""
    opened: dict[str, Any] = {}
    for key, value in config.items():
        where = f"{path}.{key}" if path else str(key)
        if not isinstance(key, str):
            raise OptionError(
                f"{where}: a key must be text, not {key!r} (YAML reads on, off, yes and no as true"
                " and false: quote it)"
            )
        head, _, rest = key.partition(".")
        if not head or rest.startswith(".") or key.endswith("."):
            raise OptionError(f"{where}: a key is words joined by single dots, as solver.name")
        inner = {rest: value} if rest else value
        if isinstance(inner, Mapping):
            inner = nested(inner, f"{path}.{head}" if path else head)
        opened[head] = merge(opened[head], inner) if head in opened else inner
    return opened


def merge(below: Any, above: Any) -> Any:
    """Return ``below`` with the keys of ``above`` over it.

    A mapping with another ``name`` replaces what was configured for the name below it.
    """
    if isinstance(below, str) and isinstance(above, Mapping):
        below = {"name": below}
    if isinstance(above, str) and isinstance(below, Mapping):
        above = {"name": above}
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    if "name" in above and below.get("name", above["name"]) != above["name"]:
        return dict(above)
    joined = {k: v for k, v in below.items() if k not in above}
    return joined | {k: merge(below[k], v) if k in below else v for k, v in above.items()}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the sha256 of a config's canonical JSON, in hexadecimal."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def defaults(config_class: type[Any]) -> dict[str, Any]:
    """Return the defaults of a config dataclass."""
    return {f.name: getattr(config_class(), f.name) for f in dataclasses.fields(config_class)}


def complete(config_class: type[Any], updates: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that ``updates`` make of the defaults: checked, with every option.

    Raises
    ------
    OptionError
        With the path, the value, what is allowed and the closest match.
    """
    given = nested(plain(updates))
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    for key in given:
        if key not in fields:
            raise unknown("config key", key, fields, path=key)
    config = config_class(**_checked(config_class, merge(defaults(config_class), given)))
    if hasattr(config, "check"):
        config.check()
    if hasattr(config, "completed"):
        config = config.completed()
    return _checked(config_class, {k: getattr(config, k) for k in fields})


def _checked(config_class: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    hints = field_types(config_class)
    checked: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        value = config[field.name]
        registry = field.metadata.get("registry")
        if registry is None:
            checked[field.name] = check_value(hints.get(field.name, Any), value, field.name)
        elif value is None and field.metadata.get("optional"):
            checked[field.name] = None
        else:
            checked[field.name] = registry.complete(value, field.name)
    return checked
