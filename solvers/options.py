"""Options: the fields of a frozen dataclass, checked where they are set.

One check serves Python and configs alike::

    >>> Anderson(window=0)
    OptionError: window = 0: input should be greater than or equal to 1

The types are checked strictly by pydantic: an ``int`` may stand for a ``float``, nothing else is
converted. Ranges are written in the annotation, ``Annotated[int, Field(ge=1)]``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError


class OptionError(ValueError):
    """A name, key or value that an option does not allow.

    The message says where (``solver.windw``), what was given, what is allowed and what comes
    closest to it.
    """


def closest(word: str, words: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the word nearest to ``word``, or an empty string."""
    known = sorted(words)
    lowered = {w.lower(): w for w in reversed(known)}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    if not near:
        near = [w for w in lowered if word and word.lower() in w][:1]
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""


def unknown(
    what: str, word: str, words: Iterable[str], *, path: str = "", of: str = ""
) -> OptionError:
    """Return the error for a name that is none of ``words``."""
    known = sorted(words)
    where = f"{path}: " if path else ""
    allowed = ", ".join(known) if known else "none"
    named = f"{what} '{word}' of {of}" if of else f"{what} '{word}'"
    return OptionError(f"{where}unknown {named}{closest(word, known)} (allowed: {allowed})")


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def check_value(annotation: Any, value: object, path: str) -> Any:
    """Return ``value`` as ``annotation`` demands it.

    Raises
    ------
    OptionError
        With the path, the value and what is allowed. A number written as text is refused by name.
    """
    if annotation in (inspect.Parameter.empty, Any):
        return value
    try:
        adapter = _adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        # Sequences come from YAML as lists, so that a tuple option accepts one.
        return adapter.validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        raise OptionError(
            f"{path} = {value!r}: {_reasons(error, value)}{_text_hint(value)}"
        ) from None


def _reasons(error: ValidationError, value: object) -> str:
    """Return what is allowed, and for an enumeration what comes closest."""
    errors = error.errors()
    # Of a number that is out of range it is no help to hear that a list of numbers would do.
    relevant = [e for e in errors if not e["type"].endswith("_type")]
    relevant = relevant or [e for e in errors if e["type"] != "list_type"] or errors
    reasons = {e["msg"][:1].lower() + e["msg"][1:] for e in relevant}
    words = [w for e in relevant if e["type"] == "literal_error" for w in _quoted(e)]
    return " or ".join(sorted(reasons)) + (closest(value, words) if isinstance(value, str) else "")


def _quoted(error: Any) -> list[str]:
    """Return the text among the values of an enumeration."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _text_hint(value: object) -> str:
    """Say that ``'1e-3'`` is text: YAML reads it so, and it wants ``1.0e-3``."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        if not math.isfinite(number):
            return ""
        return f" (this is text; write the number {number!r} without quotes, in YAML with a dot)"
    return ""


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    return typing.get_type_hints(owner, include_extras=True)


def field_types(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of a dataclass or of a function's parameters."""
    try:
        return _hints(factory)
    except NameError:  # names that only a type checker imports
        return {}


class Options:
    """Base of every frozen dataclass of options: checks the fields once they are set."""

    def __post_init__(self) -> None:
        """Check every field against its annotation."""
        hints = field_types(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = check_value(hints.get(field.name, Any), getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, value)


def as_config(options: object) -> Any:
    """Return options as plain data, with nested options as mappings; the inverse of ``build``."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        config = {
            f.name: as_config(getattr(options, f.name))
            for f in dataclasses.fields(options)
            if f.init
        }
        name = getattr(options, "name", None)
        return {"name": name, **config} if isinstance(name, str) else config
    if isinstance(options, Mapping):
        return {k: as_config(v) for k, v in options.items()}
    if isinstance(options, list | tuple):
        return [as_config(v) for v in options]
    return options
