"""The one registry class, of which every kind of named thing has an instance.

A registry turns a config into an object: ``{name: anderson, window: 10}`` becomes
``Anderson(window=10)``. Names are registered here, by another distribution's entry points, or
written as ``module.path:attribute`` or ``path/of/file.py:attribute``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

from solvers.options import OptionError, as_config, check_value, field_types, unknown

T = TypeVar("T")
Factory = Callable[..., T]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a registered thing."""

    name: str
    type: str
    default: object
    required: bool


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a registry knows of a name; ``error`` says why it cannot be built here, if so."""

    name: str
    summary: str
    options: tuple[Option, ...]
    requires: tuple[str, ...]
    reference: str
    error: str = ""


class Registry(Generic[T]):
    """Names for things that are built from options.

    Parameters
    ----------
    kind
        What an entry is, in the words of an error: ``"solver"``.
    group
        The entry-point group by which other distributions add names, or an empty string.
    others
        Registries whose names are valid here too (the adjoint is solved by a linear solver or by
        any solver); the first that knows a name builds it.
    """

    def __init__(self, kind: str, group: str = "", others: tuple[Registry[Any], ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self._others = others
        self._factories: dict[str, Factory[T] | str] = {}

    def register(self, name: str, factory: Factory[T] | str) -> None:
        """Add a name for a factory, or for one that is imported when asked for (``"module:attr"``).

        Raises
        ------
        ValueError
            If the name is taken by something else.
        """
        if self._factories.setdefault(name, factory) != factory:
            raise ValueError(f"the {self.kind} name '{name}' is taken: choose another")

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return _entry_points(self.group) if self.group else {}

    def names(self) -> list[str]:
        """Return all names, sorted."""
        found = {*self._factories, *self._entry_points()}
        for other in self._others:
            found.update(other.names())
        return sorted(found)

    def __contains__(self, name: object) -> bool:
        """Whether the name is registered."""
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(self.names())

    def factory(self, name: str, path: str = "") -> Factory[T]:
        """Return what builds ``name``.

        Raises
        ------
        OptionError
            If nobody registered the name, or its module cannot be imported.
        """
        path = path or self.kind
        found: Factory[T] | str | None = self._factories.get(name)
        if found is None and ":" in name:
            return self._import(name, f"{path}.name")
        if found is None:
            for other in self._others:
                if name in other:
                    return other.factory(name, path)
            entry_point = self._entry_points().get(name)
            if entry_point is None:
                raise unknown(self.kind, name, self.names(), path=f"{path}.name") from None
            found = entry_point.value
        return self._import(found, f"{path}.name") if isinstance(found, str) else found

    def _import(self, target: str, path: str) -> Factory[T]:
        module, _, attribute = target.partition(":")
        try:
            loaded: Any = _module(module)
        except ImportError as error:
            raise OptionError(f"{path}: cannot import '{module}': {error}") from error
        except Exception as error:  # a user's module may fail in any way while it is imported
            raise OptionError(
                f"{path}: importing '{module}' failed: {type(error).__name__}: {error}"
            ) from error
        for part in attribute.split("."):
            if not hasattr(loaded, part):
                public = [n for n in vars(loaded) if not n.startswith("_")]
                raise unknown("attribute", part, public, path=path, of=f"'{module}'")
            loaded = getattr(loaded, part)
        if not callable(loaded):
            raise OptionError(f"{path}: '{target}' is a {type(loaded).__name__}, not callable")
        factory: Factory[T] = loaded
        return factory

    def get(self, name: str, /, **options: object) -> T:
        """Build ``name`` with ``options``: ``registry.get("anderson", window=5)``."""
        return self.build({"name": name, **options})

    def build(self, config: object, path: str = "") -> T:
        """Build from ``{name: …, option: …}``, from a bare name, or return a built object as it is.

        Options that are themselves registered (the linear solver of a gradient) are configs too.

        Raises
        ------
        OptionError
            With the path of the option, the value, what is allowed and the closest match.
        """
        path = path or self.kind
        name, factory, options = self._resolve(config, path)
        if name is None:
            return config  # type: ignore[return-value]  # an object that somebody built already
        try:
            return factory(**options)
        except OptionError as error:
            raise OptionError(f"{path}.{error}") from None
        except Exception as error:
            if ":" not in name:  # one of ours, whose faults are to be seen whole
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise OptionError(
                f"{path} = {name!r}: it raised {type(error).__name__}: {error}"
                f" ({place.filename}:{place.lineno})"
            ) from error

    def complete(self, config: object, path: str = "") -> dict[str, Any]:
        """Return ``config`` as plain data with every option and its default, checked.

        A dataclass is also built, so that it checks what concerns several options; a function is
        not called.
        """
        path = path or self.kind
        name, factory, given = self._resolve(config, path)
        if name is None:
            raise OptionError(f"{path} = {config!r}: expected a name or a mapping with a name")
        if dataclasses.is_dataclass(factory):
            self.build(config, path)
        written = config if isinstance(config, Mapping) else {}
        nested = _nested(factory)
        complete: dict[str, Any] = {"name": name}
        for key, parameter in _parameters(factory).items():
            default = _default(parameter)
            if key in nested:  # what was written, since the built object may not know its name
                value = as_config(written.get(key, default))
                each = nested[key].complete
                complete[key] = value and _each(value, default, f"{path}.{key}", each)
            else:
                complete[key] = as_config(given.get(key, default))
        return complete | {k: as_config(v) for k, v in given.items() if k not in complete}

    def _resolve(self, config: object, path: str) -> tuple[str | None, Factory[T], dict[str, Any]]:
        if isinstance(config, str):
            config = {"name": config}
        if not isinstance(config, Mapping):
            if config is None or isinstance(config, int | float | list | tuple):
                raise OptionError(
                    f"{path} = {config!r}: expected the name of a {self.kind} or a mapping with a"
                    f" name (names: {', '.join(self.names())})"
                )
            return None, _identity, {}
        name = config.get("name")
        if not isinstance(name, str):
            raise OptionError(
                f"{path}.name = {name!r}: expected the name of a {self.kind}"
                f" ({', '.join(self.names())})"
            )
        factory = self.factory(name, path)
        given = {str(k): v for k, v in config.items() if k != "name"}
        return name, factory, self._check(name, factory, given, path)

    def _check(
        self, name: str, factory: Factory[T], given: dict[str, Any], path: str
    ) -> dict[str, Any]:
        parameters = _parameters(factory)
        nested = _nested(factory)
        hints = field_types(factory)
        open_ended = any(
            p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values()
        )
        checked = {}
        for key, value in given.items():
            if key not in parameters and not open_ended:
                owner, allowed = f"{self.kind} '{name}'", ["name", *parameters]
                raise unknown("option", key, allowed, path=f"{path}.{key}", of=owner)
            if key in nested and value is not None:
                default = _default(parameters[key])
                build = nested[key].build
                checked[key] = _each(value, default, f"{path}.{key}", build)
            else:
                checked[key] = check_value(hints.get(key, Any), value, f"{path}.{key}")
        missing = [k for k, p in parameters.items() if p.default is p.empty and k not in checked]
        if missing:
            raise OptionError(f"{path}: {self.kind} '{name}' needs the option {', '.join(missing)}")
        return checked

    def describe(self, name: str) -> Entry:
        """Return summary, options, requirements and reference of a name."""
        try:
            factory = self.factory(name)
        except OptionError as error:
            return Entry(name, "", (), (), "", error=str(error))
        hints = field_types(factory)
        options = tuple(
            Option(
                key,
                _type_name(hints.get(key, p.annotation)),
                None if p.default is p.empty else _plain(p.default),
                p.default is p.empty,
            )
            for key, p in _parameters(factory).items()
        )
        doc = inspect.getdoc(factory) or ""
        return Entry(
            name,
            doc.split("\n\n")[0].replace("\n", " "),
            options,
            tuple(sorted(getattr(factory, "requires", ()))),
            str(getattr(factory, "reference", "")),
        )


@functools.cache  # it reads the metadata of every installed distribution
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=group)}


def _module(name: str) -> types.ModuleType:
    """Import a module by its name, or by the path of its file, under which it is then known."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    return load_file(name, name)


def load_file(name: str, path: str) -> types.ModuleType:
    """Import a file under a name, under which it is then known.

    Raises
    ------
    ImportError
        There is no such file.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ImportError(f"there is no such file '{path}'")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _identity(**_: object) -> Any:
    raise AssertionError("an object that is built already has no factory")


@dataclasses.dataclass(frozen=True)
class _Factory:
    """A dataclass's default factory, told apart from a default."""

    make: Callable[[], Any]

    def __call__(self) -> Any:
        return self.make()


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    return default() if isinstance(default, _Factory) else default


def _each(value: object, default: object, path: str, act: Callable[[object, str], Any]) -> Any:
    """Apply ``act(config, path)`` to a config, or to every one of a list."""
    if isinstance(value, list | tuple):
        return [act(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return act(_named(value, default), path)


def _named(value: object, default: object) -> object:
    """Return a config that gives options but no name with the name of the default."""
    if isinstance(value, Mapping) and "name" not in value:
        config = as_config(default)
        if isinstance(config, Mapping) and "name" in config:
            return {"name": config["name"], **value}
    return value


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = {
        k: p
        for k, p in inspect.signature(factory).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if dataclasses.is_dataclass(factory):
        for field in dataclasses.fields(factory):
            if field.name in parameters and field.default_factory is not dataclasses.MISSING:
                default = _Factory(field.default_factory)
                parameters[field.name] = parameters[field.name].replace(default=default)
    return parameters


def _nested(factory: Callable[..., Any]) -> dict[str, Registry[Any]]:
    """Return the options that are themselves built by a registry: their field's ``registry``.

    That is a registry, or a function that returns one which is not there yet.
    """
    if not dataclasses.is_dataclass(factory):
        return {}
    found = {f.name: f.metadata.get("registry") for f in dataclasses.fields(factory)}
    return {
        name: registry if isinstance(registry, Registry) else registry()
        for name, registry in found.items()
        if registry is not None
    }


def _plain(default: object) -> object:
    if isinstance(default, _Factory):
        default = default()
    return getattr(default, "name", default)


def _type_name(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in inner)
    if isinstance(annotation, type) and not inner:
        return "None" if annotation is types.NoneType else annotation.__name__
    return str(annotation).replace("typing.", "")
