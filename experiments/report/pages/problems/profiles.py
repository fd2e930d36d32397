"""Performance and data profiles: the share of problems and starts solved for so much work.

References: E. Dolan, J. Moré, Math. Program. 91 (2002); J. Moré, S. Wild, SIAM J. Optim. 20 (2009).
"""

from __future__ import annotations

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec
from experiments.report.charts import Series, assemble, linear_scale, log_scale, panel, records
from experiments.report.pages.problems.results import Results, ratios, share_at

_WIDTH, _HEIGHT = 490, 300
_STEPS = 8  # points an octave
_OCTAVES = 10  # beyond a factor of 1000 of the least nobody is a choice
_COSTS = {
    "equivalents": "f-equivalents over the fewest of any solver",
    "evaluations": "evaluations over the fewest of any solver",
    "simplex": "f-equivalents over D + 1",
}


def profile(work: pd.DataFrame, limits: list[float]) -> pd.DataFrame:
    """Return the share of the rows of ``work`` that each solver (column) solves within each limit.

    Parameters
    ----------
    work
        A row a problem and start, a column a solver; NaN where it was not solved, which no limit
        is large enough for.

    Returns
    -------
    pandas.DataFrame
        With the columns ``solver``, ``limit`` and ``share``.
    """
    found = {limit: share_at(work, limit) for limit in limits}
    rows = [
        (solver, limit, float(share[solver]))
        for solver in work.columns
        for limit, share in found.items()
    ]
    return pd.DataFrame(rows, columns=["solver", "limit", "share"])


def profiles(found: Results) -> Figure:
    """Return the profiles over f-equivalents and evaluations, and the data profile."""
    return Figure(
        "profiles", "What share is solved for how much work", _caption(found), lambda: _draw(found)
    )


def _work(found: Results) -> dict[str, pd.DataFrame]:
    equivalents = found.work("equivalents")
    first = found.starts.drop_duplicates("case")
    sizes = dict(zip(first["case"], first["dim"] + 1.0, strict=True))
    cases = equivalents.index.get_level_values("case")
    unknowns = pd.Series([sizes[case] for case in cases], index=equivalents.index)
    return {
        "equivalents": ratios(equivalents),
        "evaluations": ratios(found.work("evaluations")),
        "simplex": equivalents.div(unknowns, axis=0),
    }


def _limits(work: pd.DataFrame) -> list[float]:
    """Return limits that double every few, from the least that solves anything."""
    least, most = float(work.min().min()), float(work.max().max())
    limits = [least]
    while limits[-1] < most and len(limits) <= _STEPS * _OCTAVES:
        limits.append(limits[-1] * 2 ** (1 / _STEPS))
    return limits


def _draw(found: Results) -> Spec:
    series = Series({name: found.looks[name] for name in found.solvers if name in found.measured})
    data, panels = {}, []
    for name, work in _work(found).items():
        limits = _limits(work)
        data[name] = records(profile(work, limits), ["solver", "limit", "share"])
        panels.append(_panel(name, limits, series))
    return assemble(panels, data, legends=[series])


def _panel(name: str, limits: list[float], series: Series) -> Spec:
    across = log_scale(limits, _COSTS[name], "number")
    up = linear_scale("share of problems and starts solved", "number")
    up["scale"] = alt.Scale(domain=[0, 1])
    base = alt.Chart(alt.NamedData(name=name), width=_WIDTH, height=_HEIGHT)
    line = base.mark_line(strokeWidth=1.8, interpolate="step-after").encode(
        x=alt.X("limit:Q", **across),
        y=alt.Y("share:Q", **up),
        stroke=series.stroke,
        strokeDash=series.dash,
        opacity=series.seen(),
        tooltip=[
            alt.Tooltip("solver:N"),
            alt.Tooltip("limit:Q", title=_COSTS[name], format=".3~g"),
            alt.Tooltip("share:Q", title="share solved", format=".1%"),
        ],
    )
    return panel(alt.layer(line))


def _caption(found: Results) -> Markup:
    number = len(found.work("equivalents"))
    return words.sentence(
        "Higher and further left is better. At each of {} pairs of a problem and a start the work"
        " of a solver is divided by that of the solver that solves it with the least; a line says"
        " on what share of the pairs this is within the factor below (Dolan and Moré). At 1 it is"
        " the share on which a solver is the cheapest; the right end is the share that it solves"
        " at all. The last panel divides the f-equivalents by the unknowns and one instead, which"
        " needs no rival (Moré and Wild). A click on a name shows it alone.",
        words.count(number),
    )
