"""The figure: seconds over the bare evaluations, a panel a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from experiments.report.blocks import Figure, Spec
from experiments.report.charts import Series, assemble, log_scale, panel, records
from experiments.report.pages.overhead.rows import Timings

_WIDTH, _ROW = 330, 20
_TICKS = (1, 1.1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20)
_COLUMNS = ["contender", "row", "ratio", "ratio_q1", "ratio_q3", "aim", "seconds", "bare_seconds"]
_COLUMNS += ["kind", "launches", "reads", "evaluations", "runs"]


def ratios(found: Timings) -> Figure | None:
    """Return the ratios with their quartiles, or None if nothing was timed at equal work."""
    if found.fair.empty:
        return None
    text = Markup(
        "Seconds of a solve over those of its evaluations alone, at equal counts: 1 is a solver"
        " that costs nothing. Points are medians over the rounds, bars their quartiles; hollow:"
        " our solvers with a fixed budget. Grey bars mark the aims. Logarithmic, and each panel"
        " has a scale of its own."
    )
    return Figure("overhead", "Solve over bare evaluations", text, lambda: _draw(found))


def _draw(found: Timings) -> Spec:
    series = Series(found.looks, field="contender")
    rows = list(dict.fromkeys(found.fair["row"]))
    data = {}
    panels = []
    for position, name in enumerate(found.situations):
        here = found.fair[found.fair["situation"] == name]
        if here.empty:
            continue
        data[f"cell_{position}"] = records(here, _COLUMNS)
        values = [*here["ratio_q1"], *here["ratio_q3"], *here["ratio"], *here["aim"], 1.0]
        across = log_scale(values, "times the bare evaluations", "number", _TICKS)
        names = [row for row in rows if row in set(here["row"])]
        panels.append(_panel(name, f"cell_{position}", names, across, series))
    return assemble(panels, data, columns=2, spacing=28)


def _panel(
    title: str, data: str, names: Sequence[str], across: Mapping[str, Any], series: Series
) -> Spec:
    base = alt.Chart(alt.NamedData(name=data), width=_WIDTH, height=_ROW * len(names), title=title)
    y = alt.Y(
        "row:N",
        sort=list(names),
        scale=alt.Scale(domain=list(names)),
        axis=alt.Axis(title="solver", labelLimit=210, grid=False),
    )
    tips = [
        alt.Tooltip("row:N", title="solver"),
        alt.Tooltip("ratio:Q", title="times the bare evaluations", format=".3f"),
        alt.Tooltip("ratio_q1:Q", title="lower quartile", format=".3f"),
        alt.Tooltip("ratio_q3:Q", title="upper quartile", format=".3f"),
        alt.Tooltip("seconds:Q", format=".3~s"),
        alt.Tooltip("bare_seconds:Q", title="bare seconds", format=".3~s"),
        alt.Tooltip("evaluations:Q"),
        alt.Tooltip("launches:Q", title="launches an evaluation", format=".1f"),
        alt.Tooltip("reads:Q", title="reads a solve"),
        alt.Tooltip("runs:N", title="run (deq runs show …)"),
    ]
    aim = (
        base.transform_filter("isValid(datum.aim)")
        .mark_tick(thickness=4, size=16, opacity=0.35)
        .encode(x=alt.X("aim:Q", **across), y=y)
    )
    spread = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("ratio_q1:Q", **across), x2="ratio_q3:Q", y=y, stroke=series.stroke
    )
    points = base.mark_point(size=60, strokeWidth=1.6, opacity=1).encode(
        x=alt.X("ratio:Q", **across),
        y=y,
        stroke=series.stroke,
        shape=series.shape,
        fill=series.fill_if("datum.kind !== 'fixed'"),
        tooltip=tips,
    )
    one = base.mark_rule(strokeDash=[3, 3]).encode(x=alt.XDatum(1, type="quantitative", **across))
    return panel(alt.layer(one, aim, spread, points))
