"""The figures: every solve as a point at so many times the limit, and counts against tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec, slug
from experiments.report.charts import Series, assemble, log_scale, panel, records
from experiments.report.colours import Look
from experiments.report.pages.limit.families import Family

_WIDTH, _ROW = 300, 17
_CURVE_WIDTH, _CURVE_HEIGHT = 490, 280
_LIMIT = "the limit"
_WORK = "evaluations of f, a product as two"
_TICKS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def distances(family: Family) -> Figure | None:
    """Return every solve at its multiple of the limit, a panel a setting, or None."""
    if not (family.at["spent"] > 0).any():
        return None
    text = Markup(
        "Evaluations / limit; further left is better, and nothing can be left of 1 on a linear"
        " problem. A point is a solve, a bar the median over the seeds. Hollow points failed: they"
        " had spent so much when they ended. A product with the Jacobian counts as two"
        " evaluations. "
    )
    lost = int((~family.at["met"]).sum())
    text += words.sentence("{} of {} solves failed.", lost, len(family.at))
    title = f"Times the limit: {family.name}"
    name = f"distance-{slug(family.name)}"
    return Figure(name, title, text, lambda: _draw_distances(family))


def _draw_distances(family: Family) -> Spec:
    present = set(family.at["solver"])
    looks = {name: look for name, look in family.looks.items() if name in present}
    series = Series(looks)
    across = log_scale([*family.at["spent"], 1.0], "times the limit", "number", _TICKS)
    data: dict[str, Sequence[Spec]] = {}
    panels = []
    columns = ["solver", "seed", "spent", "met", "retcode", "evaluations", "products", "limit"]
    columns += ["radius", "run_id"]
    for position, name in enumerate(family.settings):
        here = family.at[(family.at["setting"] == name) & (family.at["spent"] > 0)]
        middle = family.by_solver[family.by_solver["setting"] == name]
        middle = middle[[math.isfinite(v) and v > 0 for v in middle["score"]]]
        if here.empty:
            continue
        data[f"solves_{position}"] = records(here, columns)
        data[f"medians_{position}"] = records(middle, ["solver", "score"])
        panels.append(_panel(family.said(name), position, list(looks), across, series))
    return assemble(panels, data, columns=2, spacing=24)


def _panel(
    title: str, position: int, names: Sequence[str], across: Mapping[str, Any], series: Series
) -> Spec:
    base = alt.Chart(
        alt.NamedData(name=f"solves_{position}"),
        width=_WIDTH,
        height=_ROW * len(names),
        title=title,
    )
    y = alt.Y(
        "solver:N",
        sort=list(names),
        scale=alt.Scale(domain=list(names)),
        axis=alt.Axis(title="solver", labelLimit=160, grid=False),
    )
    x = alt.X("spent:Q", **across)
    tips = [
        alt.Tooltip("solver:N"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("spent:Q", title="times the limit", format=".3~f"),
        alt.Tooltip("evaluations:Q"),
        alt.Tooltip("products:Q", title="Jacobian products"),
        alt.Tooltip("limit:Q"),
        alt.Tooltip("radius:Q", title="ρ", format=".3f"),
        alt.Tooltip("retcode:N"),
        alt.Tooltip("run_id:N", title="run (deq runs show …)"),
    ]
    points = base.mark_point(size=38, strokeWidth=1.4).encode(
        x=x,
        y=y,
        stroke=series.stroke,
        shape=series.shape,
        fill=series.fill_if("datum.met"),
        tooltip=tips,
    )
    medians = (
        alt.Chart(alt.NamedData(name=f"medians_{position}"))
        .mark_tick(thickness=2.5, size=13)
        .encode(x=alt.X("score:Q", **across), y=y, color=series.colour)
    )
    one = base.mark_rule(strokeDash=[3, 3]).encode(x=alt.XDatum(1, type="quantitative", **across))
    return panel(alt.layer(one, medians, points))


def tolerances(family: Family) -> Figure | None:
    """Return evaluations against tolerance with the limit as a line, or None without several."""
    if not family.curves:
        return None
    text = Markup(
        "Evaluations to each tolerance, medians over the seeds; lower is better. The dashed black"
        " line is the limit: what full GMRES needs at the equilibrium. Hollow points failed there."
    )
    title = f"What a digit costs: {family.name}"
    name = f"tolerance-{slug(family.name)}"
    return Figure(name, title, text, lambda: _draw_curves(family))


def _draw_curves(family: Family) -> Spec:
    drawn = {name: family.curve(name) for name in family.curves}
    present = {str(solver) for rows in drawn.values() for solver in rows["solver"]}
    looks = {name: look for name, look in family.looks.items() if name in present}
    series = Series({**looks, _LIMIT: Look("#7A7F87", (6, 4), "diamond")})
    columns = ["solver", "reltol", "work", "met", "failed", "number", "retcode"]
    data = {}
    panels = []
    for position, (name, rows) in enumerate(drawn.items()):
        medians = rows.groupby("reltol")["limit"].median().dropna()
        limit = pd.DataFrame({"reltol": medians.index, "work": medians.to_numpy()}).assign(
            solver=_LIMIT, met=True, failed=0, number=1, retcode="SUCCESS"
        )
        every = pd.concat([rows[columns], limit[columns]], ignore_index=True)
        data[f"counts_{position}"] = records(every, columns)
        panels.append(_curve(family.said(name), f"counts_{position}", every, series))
    return assemble(panels, data, legends=[series])


def _curve(title: str, data: str, rows: pd.DataFrame, series: Series) -> Spec:
    base = alt.Chart(
        alt.NamedData(name=data), width=_CURVE_WIDTH, height=_CURVE_HEIGHT, title=title
    )
    across = log_scale(rows["reltol"], "tolerance, of the first residual", "error")
    across["scale"] = alt.Scale(
        type="log", domain=list(reversed(across["scale"].domain)), nice=False
    )
    at = {
        "x": alt.X("reltol:Q", **across),
        "y": alt.Y("work:Q", **log_scale(rows["work"], _WORK, "count")),
    }
    tips = [
        alt.Tooltip("solver:N"),
        alt.Tooltip("reltol:Q", format=".0e"),
        alt.Tooltip("work:Q", title=_WORK),
        alt.Tooltip("failed:Q"),
        alt.Tooltip("number:Q", title="of"),
        alt.Tooltip("retcode:N", title="worst retcode"),
    ]
    line = base.mark_line(strokeWidth=1.6).encode(
        **at,
        stroke=series.stroke,
        strokeDash=series.dash,
        opacity=series.seen(),
        order=alt.Order("reltol:Q", sort="descending"),
    )
    points = base.mark_point(size=45, strokeWidth=1.5).encode(
        **at,
        stroke=series.stroke,
        shape=series.shape,
        fill=series.fill_if("datum.met"),
        opacity=series.seen(),
        tooltip=tips,
    )
    return panel(alt.layer(line, points))
