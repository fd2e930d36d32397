"""Figures of curves with intervals: lines, bands and points, one look a label, panels side by side.

What the pages about trainings draw. A panel's rows come from :mod:`experiments.report.trainings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from experiments.report import trainings
from experiments.report.blocks import Spec
from experiments.report.charts import (
    AxisKind,
    Series,
    assemble,
    linear_scale,
    log_scale,
    panel,
    records,
)
from experiments.report.colours import Look
from experiments.report.frames import Frames

__all__ = ["PROGRESS", "Axis", "Panel", "Rule", "draw", "palette", "progress"]

_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#B06A9B", "#DD8B0C", "#6A6FE0", "#81673E", "#2FA7D2",
    "#D0346F", "#639643",
)  # fmt: skip
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
_DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 3), (8, 3, 2, 3))


def palette(labels: Sequence[str]) -> dict[str, Look]:
    """Return a look for each label, in this order: no two share colour, dash and shape."""
    count = len(_COLOURS)
    return {
        label: Look(
            _COLOURS[i % count], _DASHES[i // count % len(_DASHES)], _SHAPES[i % len(_SHAPES)]
        )
        for i, label in enumerate(dict.fromkeys(labels))
    }


_COLUMNS = ("label", "x", "y", "low", "high", "runs", "flat")


@dataclass(frozen=True)
class Axis:
    """An axis: its title, how its numbers are written, and whether it is logarithmic.

    Attributes
    ----------
    ticks
        What to label on a logarithmic axis, else decades or 1, 2 and 5 of each.
    zero
        Whether a linear axis begins at zero.
    domain
        The ends of a linear axis, if not those of the rows.
    """

    title: str
    kind: AxisKind = "number"
    log: bool = False
    ticks: Sequence[float] | None = None
    zero: bool = False
    domain: tuple[float, float] | None = None

    def encoding(self, values: Sequence[float]) -> dict[str, Any]:
        """Return scale and axis for these values."""
        if self.log:
            return log_scale(values, self.title, self.kind, self.ticks)
        made = linear_scale(self.title, self.kind, zero=self.zero)
        if self.domain is not None:
            made["scale"] = alt.Scale(domain=list(self.domain), nice=False)
        return made


@dataclass(frozen=True)
class Rule:
    """A horizontal line with a word: a floor, an aim, a number from a paper."""

    y: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes
    ----------
    rows
        ``label``, ``x``, ``y``; ``low`` and ``high`` where there is an interval; ``runs`` or
        ``run_id`` for the pointer. Rows of one label make a line in the order of x.
    rules
        Horizontal lines.
    lines, dots
        Whether the points are joined, and shown.
    flat
        Labels whose one value is drawn as a line across the panel: what has no x of its own.
    """

    title: str
    rows: pd.DataFrame
    x: Axis
    y: Axis
    subtitle: str = ""
    rules: Sequence[Rule] = ()
    lines: bool = True
    dots: bool = True
    flat: Sequence[str] = ()


def draw(
    panels: Sequence[Panel],
    looks: Mapping[str, Look],
    *,
    columns: int = 2,
    width: int = 400,
    height: int = 270,
    title: str = "",
) -> Spec:
    """Return the figure of these panels with one legend.

    Parameters
    ----------
    panels
        Those without rows are left out.
    looks
        By label, in the legend's order; labels that no panel shows are left out.
    title
        What stands before the legend.
    """
    shown = [p for p in panels if len(p.rows)]
    there = {str(label) for p in shown for label in p.rows["label"]}
    series = Series({k: v for k, v in looks.items() if k in there}, "label", title)
    data: dict[str, Sequence[Spec]] = {}
    drawn = []
    for position, one in enumerate(shown):
        name = f"rows_{position}"
        data[name] = records(_prepared(one), _COLUMNS)
        drawn.append(_panel(name, one, series, data, width, height))
    return assemble(drawn, data, legends=[series], columns=columns, spacing=36)


def _prepared(one: Panel) -> pd.DataFrame:
    rows = one.rows.copy()
    for column in ("low", "high"):
        if column not in rows:
            rows[column] = float("nan")
    if one.y.log:  # an interval that reaches below zero cannot be drawn there
        rows["low"] = rows["low"].where(rows["low"] > 0, rows["y"].where(rows["low"].notna()))
    if "runs" not in rows:
        rows["runs"] = rows.get("run_id", "")
    rows["flat"] = rows["label"].isin(list(one.flat))
    return rows


def _panel(  # noqa: PLR0917
    name: str, one: Panel, series: Series, data: dict[str, Sequence[Spec]], width: int, height: int
) -> Spec:
    values = [*one.rows["y"], *(rule.y for rule in one.rules)]
    for column in ("low", "high"):
        if column in one.rows:
            values += list(one.rows[column].dropna())
    own = one.rows[~one.rows["label"].isin(list(one.flat))]
    across = one.x.encoding([float(v) for v in own["x"]])
    up = one.y.encoding([float(v) for v in values])
    heading = alt.TitleParams(text=one.title, subtitle=one.subtitle)
    base = alt.Chart(alt.NamedData(name=name), width=width, height=height, title=heading)
    x, y = alt.X("x:Q", **across), alt.Y("y:Q", **up)
    moving = base.transform_filter("!datum.flat")
    still = base.transform_filter("datum.flat")
    tips = [
        alt.Tooltip("label:N", title="network"),
        alt.Tooltip("x:Q", title=one.x.title, format=".4~g"),
        alt.Tooltip("y:Q", title=one.y.title, format=".4~g"),
        alt.Tooltip("low:Q", title="from", format=".4~g"),
        alt.Tooltip("high:Q", title="to", format=".4~g"),
        alt.Tooltip("runs:N", title="runs (deq runs show …)"),
    ]
    layers: list[Any] = []
    if one.rules:
        marked = f"{name}_rules"
        data[marked] = [{"y": rule.y, "text": rule.text} for rule in one.rules]
        lines = alt.Chart(alt.NamedData(name=marked))
        layers.append(lines.mark_rule(strokeDash=[3, 3]).encode(y=alt.Y("y:Q", **up)))
        layers.append(
            lines.mark_text(align="right", baseline="bottom", dy=-3, fontSize=11).encode(
                x=alt.value(width - 2), y=alt.Y("y:Q", **up), text="text:N"
            )
        )
    with_interval = moving.transform_filter("isValid(datum.low) && isValid(datum.high)")
    faint = series.seen(0.16)
    if one.lines:
        layers.append(
            with_interval.mark_area(strokeWidth=0).encode(
                x=x, y=alt.Y("low:Q", **up), y2="high:Q", fill=series.fill, opacity=faint
            )
        )
        layers.append(moving.mark_line(strokeWidth=2.2, clip=True).encode(x=x, y=y, **series.lines))
    else:
        layers.append(
            with_interval.mark_rule(strokeWidth=1.5).encode(
                x=x, y=alt.Y("low:Q", **up), y2="high:Q", color=series.colour, opacity=series.seen()
            )
        )
    if one.flat:
        layers.append(
            still.transform_filter("isValid(datum.low)")
            .mark_rect(strokeWidth=0)
            .encode(
                x=alt.value(0),
                x2=alt.value(width),
                y=alt.Y("low:Q", **up),
                y2="high:Q",
                fill=series.fill,
                opacity=faint,
            )
        )
        layers.append(
            still.mark_rule(strokeWidth=2.2).encode(
                x=alt.value(0), x2=alt.value(width), y=y, **series.lines, tooltip=tips
            )
        )
    size = 45 if one.dots else 200
    points = moving.mark_point(size=size, strokeWidth=1.6, clip=False).encode(
        x=x,
        y=y,
        stroke=series.stroke,
        fill=series.fill,
        shape=series.shape,
        opacity=series.seen() if one.dots else alt.value(0),
        tooltip=tips,
    )
    layers.append(points)
    return panel(alt.layer(*layers))


PROGRESS: Mapping[str, Axis] = {
    "step": Axis("steps of the optimiser", "count"),
    "train.work": Axis("evaluations and products so far", "count"),
    "train.seconds": Axis("seconds of training", "seconds"),
}
"""What a training is drawn against."""


def progress(
    frames: Frames,
    rows: pd.DataFrame,
    y: str,
    up: Axis,
    looks: Mapping[str, Look],
    *,
    xs: Sequence[str] = tuple(PROGRESS),
    rules: Mapping[str, Sequence[Rule]] | None = None,
    smooth: float = 0.0,
) -> list[Panel]:
    """Return one panel a case and x: the mean of a series over the seeds, with its interval.

    Parameters
    ----------
    frames
        Where the series are read.
    rows
        Of :func:`trainings.runs`, with ``label``; those that did not complete are left out.
    y, up
        A series, such as ``test.loss``, and its axis.
    looks
        By label: only these are drawn.
    xs
        Of :data:`PROGRESS`.
    rules
        Horizontal lines by case.
    smooth
        The share of a run's points over which it is averaged.
    """
    rows = rows[rows["completed"] & rows["label"].isin(list(looks))]
    names = [y, *(x for x in xs if x != "step")]
    points = trainings.series(frames, rows, *names)
    found = []
    for case, group in points.groupby("case", sort=False):
        for x in xs:
            line = trainings.along(group, y, x)
            line = trainings.smoothed(line, smooth) if smooth else line
            across = PROGRESS[x]
            means = trainings.interpolated(line, ["label"])
            own = (rules or {}).get(str(case), ())
            found.append(Panel(str(case), means, across, up, f"{up.title}, {across.title}", own))
    return found
