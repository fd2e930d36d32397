"""The aims for the random equilibria, beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report.blocks import Column, Table
from experiments.report.frames import as_mapping
from experiments.report.pages.limit.families import DEFAULT, Family, foreign

_SCALES = (0.6, 0.9, 1.1, 1.3)
_PROBLEM = {"dim": 100, "injection": 0.3}
_RELTOL = 1e-8

# Medians at these scales, as multiples of the limit: (what, aim, full-memory and short-memory
# prototypes before).
_AIMS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...] | None]] = {
    "best": ((1.00, 1.02, 1.05, 1.13), (1.00, 1.00, 1.03, 1.14)),
    "default": ((1.05, 1.10, 1.15, 1.30), None),
    "short": ((1.02, 1.15, 1.35, 1.80), (1.02, 1.18, 1.52, 2.19)),
}
_SAID = {
    "best": "the best of our solvers",
    "default": "the default solver, failing nowhere",
    "short": "the best with 20 stored vectors",
}
# Options with which a solver stores 20 vectors: two for each difference of Anderson's window, one
# for each step of Broyden's.
_TWENTY = {"anderson": 10, "broyden": 20}


def aims(family: Family) -> Table | None:
    """Return the aims that this problem's runs are about, with what was reached, or None."""
    rows = []
    for kind in _AIMS:
        for position, scale in enumerate(_SCALES):
            here = _at(family, scale)
            if not here.empty:
                rows.append(_row(kind, position, here))
    rows = [row for row in rows if row["solver"] is not None]
    if not rows:
        return None
    columns = (
        Column("what", "what"),
        Column("scale", "scale", "number"),
        Column("aim", "aim", "number"),
        Column("score", "measured", "number", "", "median over the seeds, times the limit"),
        Column("failed", "failed", "count"),
        Column("number", "of", "count"),
        Column("solver", "by"),
        Column("reached", "reached"),
        Column("before", "prototypes before", "number", "", "a plain Anderson, unsafeguarded"),
    )
    frame = pd.DataFrame(rows)
    frame["met"] = frame["reached"] == "yes"
    text = Markup(
        "Medians of evaluations / limit over the seeds, a failure as infinitely far. Rows marked"
        " with ○ fall short."
    )
    return Table("aims", "Aims and what was reached", text, columns, frame)


def _at(family: Family, scale: float) -> pd.DataFrame:
    options = [as_mapping(value) for value in family.points["problem_options"]]
    wanted = {**_PROBLEM, "scale": scale}
    fits = [all(found.get(k) == v for k, v in wanted.items()) for found in options]
    points = family.points[pd.Series(fits, index=family.points.index)]
    return points[np.isclose(points["reltol"].astype(float), _RELTOL)]


def _row(kind: str, position: int, points: pd.DataFrame) -> dict[str, object]:
    points = points[[_belongs(kind, *row) for row in points[["solver_name", "options"]].values]]
    best: tuple[int, float, str] | None = None
    for solver, here in points.groupby("solver", sort=False):
        failed = int((~here["met"]).sum())
        found = (failed, float(np.median(here["score"].to_numpy(float))), str(solver))
        best = found if best is None else min(best, found)
    aim, before = _AIMS[kind]
    made: dict[str, object] = {
        "what": _SAID[kind],
        "scale": _SCALES[position],
        "aim": aim[position],
        "before": None if before is None else before[position],
        "solver": None,
    }
    if best is None:
        return made
    failed, score, solver = best
    # An aim is said with two decimals.
    near = score <= aim[position] + 0.005
    reached = near and (kind != "default" or not failed)
    return made | {
        "score": score if math.isfinite(score) else None,
        "failed": failed,
        "number": int((points["solver"] == solver).sum()),
        "solver": solver,
        "reached": "yes" if reached else "no",
    }


def _belongs(kind: str, name: str, options: object) -> bool:
    if kind == "default":
        return name == DEFAULT
    if foreign(name):
        return False
    return kind == "best" or as_mapping(options).get("window") == _TWENTY.get(name, -1)
