"""Write the tables of solvers.md again from the registries: ``python docs/tables.py``.

A table stands between ``<!-- name -->`` and ``<!-- end -->``. The tests compare what is there with
what this writes.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

from implicit.gradients import registry as gradients
from solvers import linear, registry
from solvers.options import as_config, field_types
from solvers.registries import Registry

PAGE = Path(__file__).parent / "solvers.md"
REGISTRIES: dict[str, Registry[Any]] = {
    "solvers": registry,
    "linear solvers": linear.registry,
    "gradients": gradients,
}
_WORDS = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def allowed(annotation: Any) -> str:
    """Return in words what values an annotation allows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = [
            f" {sign} {getattr(m, key)}"
            for info in annotation.__metadata__
            for m in getattr(info, "metadata", [])
            for key, sign in _BOUNDS.items()
            if hasattr(m, key)
        ]
        return allowed(arguments[0]) + ",".join(limits)
    if origin in (typing.Union, types.UnionType):
        words = [allowed(a) for a in arguments]
        return " or ".join("a list of them" if w == f"a list of {words[0]}s" else w for w in words)
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (list, tuple):
        return f"a list of {allowed(arguments[0])}s"
    if annotation is type(None):
        return "`null`"
    if getattr(annotation, "__name__", "") == "BaseSolver":
        return "solver"
    return _WORDS.get(annotation, "name or mapping")


def default(value: object) -> str:
    """Return a default as one writes it in a config."""
    value = as_config(value)
    if isinstance(value, dict) and "name" in value:
        return f"`{value['name']}`"
    if isinstance(value, list):
        return ", ".join(default(v) for v in value)
    if isinstance(value, bool) or value is None:
        return f"`{json.dumps(value)}`"
    return f"`{value}`" if value != "" else "empty"


def documented(factory: Any) -> dict[str, str]:
    """Return what the docstring of a factory says of each option."""
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=\n\n\S|\Z)", inspect.getdoc(factory) or "", re.M | re.S
    )
    found: dict[str, str] = {}
    for names, text in re.findall(r"^(\S.*)\n((?: +.*\n?)+)", section[1] if section else "", re.M):
        for name in names.split(", "):
            found[name] = plain(" ".join(text.split()))
    return found


def plain(text: str) -> str:
    """Return a docstring's text as Markdown inside a table."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")
    return text.replace("|", "\\|")


def table(kind: str) -> str:
    """Return the tables of a registry: its entries, and their options."""
    found = REGISTRIES[kind]
    entries = [found.describe(name) for name in found.names()]
    lines = ["| name | what it is | needs | reference |", "|---|---|---|---|"]
    for entry in entries:
        needs = ", ".join(f"`{need}`" for need in entry.requires)
        lines.append(f"| `{entry.name}` | {plain(entry.summary)} | {needs} | {entry.reference} |")
    lines += ["", "| option | default | allowed | what it does |", "|---|---|---|---|"]
    for entry in entries:
        factory = found.factory(entry.name)
        texts, hints = documented(factory), field_types(factory)
        for option in entry.options:
            lines.append(
                f"| `{entry.name}` `{option.name}` | {default(option.default)}"
                f" | {allowed(hints[option.name])} | {texts.get(option.name, '')} |"
            )
    return "\n".join(lines)


def written(page: str) -> str:
    """Return a page with its tables written again."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n\n{table(match[1])}\n\n<!-- end -->"

    return re.sub(r"<!-- ([a-z ]+) -->\n.*?<!-- end -->", fill, page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
