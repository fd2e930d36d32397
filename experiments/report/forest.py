"""Figures of numbers with their intervals, a line a thing: what is apart, and what overlaps.

What the pages about trainings draw beside curves (:mod:`experiments.report.curves`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from experiments.report.blocks import Spec
from experiments.report.charts import Series, assemble, panel, records
from experiments.report.colours import Look
from experiments.report.curves import Axis

__all__ = ["Forest", "draw"]

_COLUMNS = ("name", "label", "x", "low", "high", "seeds", "runs")
_NAMES = 215  # pixels for the names of the lines
_FORMAT = {"bytes": ".4~s", "seconds": ".4~s"}


@dataclass(frozen=True)
class Forest:
    """One panel.

    Attributes
    ----------
    rows
        ``name`` (the line), ``label`` (the series), ``x``; ``low`` and ``high`` where there is an
        interval; ``runs`` for the pointer. Lines come in the order of their first row.
    rules
        Upright lines, such as a ratio of 1 or an aim.
    named
        Whether the names stand at the left; a panel beside another one needs none.
    """

    title: str
    rows: pd.DataFrame
    x: Axis
    subtitle: str = ""
    rules: Sequence[float] = ()
    named: bool = True


def draw(
    panels: Sequence[Forest],
    looks: Mapping[str, Look],
    *,
    columns: int = 3,
    width: int = 250,
    row: int = 22,
    title: str = "",
) -> Spec:
    """Return the figure of these panels with one legend.

    Parameters
    ----------
    panels
        All are drawn, an empty one too, so that the rows of panels stay aligned.
    looks
        By label, in the legend's order; with one label alone there is no legend.
    row
        Pixels a line.
    title
        What stands before the legend.
    """
    there = {str(label) for p in panels for label in p.rows["label"]}
    series = Series({k: v for k, v in looks.items() if k in there}, "label", title)
    order = [label for label in looks if label in there]
    legends = [series] if len(there) > 1 else []
    data: dict[str, Sequence[Spec]] = {}
    drawn = []
    for position, one in enumerate(panels):
        name = f"forest_{position}"
        rows = one.rows.copy()
        for column in _COLUMNS:
            if column not in rows:
                rows[column] = float("nan")
        if one.x.log:  # an interval that reaches below zero cannot be drawn there
            rows["low"] = rows["low"].where(rows["low"] > 0, rows["x"].where(rows["low"].notna()))
        data[name] = records(rows, _COLUMNS)
        drawn.append(_panel(name, one, rows, series, order, (width, row)))
    return assemble(drawn, data, legends=legends, columns=columns, spacing=24)


def _panel(  # noqa: PLR0917
    name: str,
    one: Forest,
    rows: pd.DataFrame,
    series: Series,
    order: Sequence[str],
    size: tuple[int, int],
) -> Spec:
    width, row = size
    names = list(dict.fromkeys(rows["name"]))
    values = [*rows["x"].dropna(), *one.rules, *rows["low"].dropna(), *rows["high"].dropna()]
    across = one.x.encoding([float(v) for v in values])
    axis = alt.Axis(
        title=None, labels=one.named, labelLimit=_NAMES, minExtent=_NAMES if one.named else 0
    )
    heading = alt.TitleParams(text=one.title, subtitle=one.subtitle)
    base = alt.Chart(
        alt.NamedData(name=name), width=width, height=row * max(len(names), 1), title=heading
    )
    place: dict[str, Any] = {
        "y": alt.Y("name:N", sort=names, scale=alt.Scale(domain=names), axis=axis)
    }
    if rows["label"].nunique() > 1 and len(rows) > len(names):
        place["yOffset"] = alt.YOffset(
            "label:N", sort=list(order), scale=alt.Scale(domain=list(order))
        )
    form = _FORMAT.get(one.x.kind, ".4~g")
    tips = [
        alt.Tooltip("name:N", title="what"),
        alt.Tooltip("label:N", title="of"),
        alt.Tooltip("x:Q", title=one.x.title, format=form),
        alt.Tooltip("low:Q", title="from", format=form),
        alt.Tooltip("high:Q", title="to", format=form),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("runs:N", title="runs (deq runs show …)"),
    ]
    layers: list[Any] = [
        base.mark_rule(strokeDash=[3, 3]).encode(x=alt.XDatum(rule, type="quantitative", **across))
        for rule in one.rules
    ]
    # What fades the others is a click on the legend, and of one series there is none.
    seen = series.seen if len(order) > 1 else alt.value
    look = {"stroke": series.stroke, "fill": series.fill, "shape": series.shape}
    spans = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    layers.append(
        spans.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", **across),
            x2="high:Q",
            color=series.colour,
            opacity=seen(0.75),
            **place,
        )
    )
    layers.append(
        base.mark_point(size=50, strokeWidth=1.6).encode(
            x=alt.X("x:Q", **across), tooltip=tips, opacity=seen(1.0), **look, **place
        )
    )
    return panel(alt.layer(*layers))
