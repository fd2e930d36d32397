"""What tells the selected runs apart: cases, and the options that distinguish two of one name.

Runs are compared within a *case*: a model and every setting of the problem that differs between the
runs. Two runs of one solver with different options are two series, told apart by those options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Flat = Mapping[str, Any]

FORWARD_ONLY = "forward only"
# What a run is measured with rather than on: it never makes another case.
_EFFORT = {
    "seed",
    "repeats",
    "repeat_seconds",
    "reltol",
    "max_evaluations",
    "fixed_budget",
    "device",
    "trace",
    # Of a problem these are the run's own, and its name is the case's.
    "problem.name",
    "problem.seed",
    "problem.dtype",
}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config with dotted keys: ``{"solver": {"window": 5}}`` as ``solver.window``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def case_labels(runs: Mapping[int, Flat], devices: Mapping[int, str]) -> dict[int, str]:
    """Return each run's case: its model or problem, with the settings in which its runs differ.

    Parameters
    ----------
    runs
        Flat config by run id.
    devices
        Where each run was measured; the config may only say ``auto``.
    """
    models = {
        run: str(config.get("model.name") or config.get("problem.name") or "?")
        for run, config in runs.items()
    }
    settings: dict[int, Flat] = {
        run: {
            **{k: v for k, v in config.items() if _is_setting(k)},
            **({"device": devices[run]} if run in devices else {}),
        }
        for run, config in runs.items()
    }
    return _distinguished(models, settings)


def _is_setting(key: str) -> bool:
    start = key.split(".", maxsplit=1)[0]
    own = start in ("solver", "gradient") or start in _EFFORT or key in _EFFORT
    return not own and key != "model.name"


def solver_labels(runs: Mapping[int, Flat]) -> dict[int, str]:
    """Return each run's forward solver, with the options in which runs of that solver differ."""
    names = {run: str(config.get("solver.name", "?")) for run, config in runs.items()}
    options: dict[int, Flat] = {}
    for run, config in runs.items():
        options[run] = {k: v for k, v in config.items() if _is_option(k, "solver")}
        budget = config.get("max_evaluations")
        if not config.get("fixed_budget") and not isinstance(budget, list):
            options[run] = {**options[run], "max_evaluations": budget}
    return _distinguished(names, options)


def gradient_labels(runs: Mapping[int, Flat]) -> dict[int, str]:
    """Return each run's gradient: ``unrolled``, ``implicit · gmres``, or ``forward only``."""
    names = {}
    options: dict[int, Flat] = {}
    for run, config in runs.items():
        name, adjoint = config.get("gradient.name"), config.get("gradient.solver.name")
        names[run] = FORWARD_ONLY if name is None else str(name)
        if name is not None and adjoint is not None:
            names[run] = f"{name} · {adjoint}"
        options[run] = {k: v for k, v in config.items() if _is_option(k, "gradient")}
    return _distinguished(names, options)


def _is_option(key: str, part: str) -> bool:
    return key.startswith(f"{part}.") and not key.endswith(".name")


def _distinguished(names: Mapping[int, str], options: Mapping[int, Flat]) -> dict[int, str]:
    """Return the names, with those options beside them that differ among runs of the same name."""
    seen: dict[str, dict[str, set[str]]] = {}
    for run, name in names.items():
        for key, value in options[run].items():
            seen.setdefault(name, {}).setdefault(key, set()).add(repr(value))
    labels = {}
    for run, name in names.items():
        told = [
            f"{_short_key(key)}={_short(options[run][key])}"
            for key, values in sorted(seen.get(name, {}).items())
            if len(values) > 1 and key in options[run]
        ]
        labels[run] = f"{name} ({', '.join(told)})" if told else name
    return labels


def _short_key(key: str) -> str:
    for part in ("model.", "problem.", "solver.", "gradient."):
        key = key.removeprefix(part)
    return key.removesuffix(".name")


def _short(value: object) -> str:
    text = str(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def base_name(label: str) -> str:
    """Return the name in a label, without the options beside it."""
    return label.split(" (", maxsplit=1)[0]
