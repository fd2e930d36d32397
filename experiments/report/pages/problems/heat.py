"""The map of problems and solvers: what share of the starts is solved, and why not more."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report.blocks import Figure, Spec
from experiments.report.charts import assemble, panel, records
from experiments.report.pages.problems.results import Results
from experiments.report.words import missing

_CELL = (50, 21)  # pixels
# Orange to blue over grey: told apart under every common colour blindness.
_COLOURS = ("#D55E00", "#E9D8CB", "#0072B2")
_LETTERS: Mapping[str, str] = {
    "MAX_EVALUATIONS": "E",
    "MAX_SECONDS": "T",
    "STALLED": "S",
    "DIVERGED": "D",
    "NONFINITE": "N",
    "LINEAR_SOLVE_FAILED": "L",
    "FAILURE": "F",
}


def heat_map(found: Results) -> Figure:
    """Return the map, a cell a problem and solver."""
    return Figure(
        "problems", "Starts solved, problem by problem", _caption(found), lambda: _draw(found)
    )


def _rows(found: Results) -> pd.DataFrame:
    """Return the cells with what stands in them; one of a run without a result has no share."""
    cells = found.cells.copy()
    cells["text"] = [
        f"{successes}{'' if missing(failure) else ' ' + _LETTERS.get(failure, '?')}"
        + ("" if standard else " ○")
        for successes, failure, standard in zip(
            cells["successes"], cells["failure"], cells["standard_met"], strict=True
        )
    ]
    cells["solved"] = [
        f"{successes} of {starts}"
        for successes, starts in zip(cells["successes"], cells["starts"], strict=True)
    ]
    cells["ended"] = [
        ", ".join(f"{name} {number}" for name, number in codes.items()) for codes in cells["codes"]
    ]
    lost = found.broken.drop_duplicates(["case", "solver"])
    measured = set(zip(cells["case"], cells["solver"], strict=True))
    pairs = zip(lost["case"], lost["solver"], strict=True)
    absent = pd.Series([pair not in measured for pair in pairs], index=lost.index, dtype=bool)
    lost = lost[absent].copy()
    lost["text"], lost["solved"], lost["ended"] = "✕", "no result", lost["status"]
    lost["runs"] = [[run] for run in lost["run_id"]]
    return pd.concat([cells, lost], ignore_index=True)


def _draw(found: Results) -> Spec:
    cells = _rows(found)
    columns = ["case", "solver", "share", "low", "high", "text", "solved", "ended"]
    columns += ["evaluations", "equivalents", "runs"]
    solvers = [*found.by_solver["solver"]]
    solvers += [name for name in found.solvers if name not in solvers]
    problems = [*found.problems, *sorted(set(cells["case"]) - set(found.problems))]
    width, height = _CELL[0] * len(solvers), _CELL[1] * len(problems)
    base = alt.Chart(alt.NamedData(name="cells"), width=width, height=height).encode(
        x=alt.X(
            "solver:N",
            sort=solvers,
            axis=alt.Axis(title="solver", orient="top", labelAngle=-40, labelLimit=220),
        ),
        y=alt.Y("case:N", sort=problems, axis=alt.Axis(title="problem", labelLimit=260)),
        tooltip=[
            alt.Tooltip("case:N", title="problem"),
            alt.Tooltip("solver:N"),
            alt.Tooltip("solved:N", title="starts solved"),
            alt.Tooltip("low:Q", title="at least (95 %)", format=".0%"),
            alt.Tooltip("high:Q", title="at most (95 %)", format=".0%"),
            alt.Tooltip("ended:N", title="the others ended as"),
            alt.Tooltip("evaluations:Q", title="evaluations (median, solved)"),
            alt.Tooltip("equivalents:Q", title="f-equivalents (median, solved)"),
            alt.Tooltip("runs:N", title="runs (deq runs show …)"),
        ],
    )
    scale = alt.Scale(domain=[0, 0.5, 1], range=list(_COLOURS), interpolate="rgb")
    rect = (
        base.transform_filter("isValid(datum.share)")
        .mark_rect(stroke=alt.ExprRef("paper"), strokeWidth=1)
        .encode(fill=alt.Fill("share:Q", scale=scale, legend=None))
    )
    text = base.mark_text(fontSize=10.5, baseline="middle").encode(
        text="text:N",
        color=alt.when("!isValid(datum.share)")
        .then(alt.value("#8a8f98"))
        .when("datum.share < 0.15 || datum.share > 0.85")
        .then(alt.value("#ffffff"))
        .otherwise(alt.value("#1c2128")),
    )
    return assemble([panel(alt.layer(rect, text))], {"cells": records(cells, columns)}, columns=1)


def _caption(found: Results) -> Markup:
    letters = {code for codes in found.cells["codes"] for code in codes}
    said = [f"{letter} {code}" for code, letter in _LETTERS.items() if code in letters]
    text = Markup(
        "A number is the starts solved; blue is all of them, orange none. Solvers are ordered by"
        " the share of all starts that they solve, problems as in the list below. "
    )
    if said:
        text += Markup("A letter says how most of the others ended: {}. ").format(", ".join(said))
    if not found.cells["standard_met"].all():
        text += Markup("○: the standard start is not among the solved ones. ")
    if len(found.broken):
        text += Markup("✕: the run gave no result (see below). ")
    return text
