"""What every figure shares: axes with units, one look a series, and the way to SVG.

A figure is a plain Vega-Lite mapping, made with Altair. Its data is named and inline, so the page
that holds it needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert

from experiments.report.blocks import Spec
from experiments.report.colours import Look
from experiments.report.words import missing

VL_VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
AxisKind = Literal["count", "seconds", "bytes", "error", "number"]

_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_LABELS: Mapping[AxisKind, str] = {
    "count": "format(datum.value, ',')",
    "seconds": "format(datum.value, '~s') + 's'",
    "bytes": "datum.value == 0 ? '0' : format(datum.value, '~s') + 'B'",
    "error": "datum.value == 1 ? '1' : replace(format(datum.value, '.0e'), '+', '')",
    "number": "format(datum.value, '~g')",
}


def _config(ink: str, soft: str, grid: str, paper: str) -> Spec:
    return {
        "background": paper,
        "font": _FONT,
        "view": {"stroke": None},
        "params": [{"name": "paper", "value": paper}],
        "axis": {
            "labelColor": soft,
            "titleColor": soft,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
        },
        "title": {
            "color": ink,
            "subtitleColor": soft,
            "fontSize": 13,
            "fontWeight": 600,
            "subtitleFontSize": 12,
            "anchor": "start",
            "offset": 10,
        },
        "header": {"labelColor": ink, "titleColor": soft},
        "text": {"color": ink},
        "rule": {"color": soft},
    }


LIGHT = _config("#1c2128", "#5b6470", "#e6e8eb", "#ffffff")
DARK = _config("#e6e8eb", "#9aa4b1", "#2c333c", "#15181d")


def number(value: object) -> float | None:
    """Return a cell as a number that JSON can hold, or None."""
    if value is None or missing(value) or not math.isfinite(float(value)):  # type: ignore[arg-type]
        return None
    return float(value)  # type: ignore[arg-type]


def records(frame: pd.DataFrame, columns: Sequence[str]) -> list[Spec]:
    """Return rows as JSON can hold them: numbers, text, booleans, None for what is missing."""
    rows: list[Spec] = []
    for row in frame.loc[:, list(columns)].to_dict("records"):
        rows.append({str(k): _plain(v) for k, v in row.items()})
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    if isinstance(value, str | bool):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool | int):
        return value
    return number(value)


def positive(values: Iterable[object]) -> list[float]:
    """Return the numbers that a logarithmic axis can show."""
    numbers = (number(value) for value in values)
    return [value for value in numbers if value is not None and value > 0]


def log_scale(
    values: Iterable[object], title: str, kind: AxisKind, ticks: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return ``scale`` and ``axis`` of a logarithmic axis that covers ``values``.

    Unless ``ticks`` says what to label, decades are labelled when there are enough of them,
    otherwise 1, 2 and 5 of each.
    """
    found = positive(values) or [1.0, 10.0]
    pad = max((max(found) / min(found)) ** 0.05, 1.08)
    low, high = min(found) / pad, max(found) * pad
    if ticks is None:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1,) if math.log10(high / low) > 2.5 else (1, 2, 5)
        every = max(1, round((last - first) / 7))
        ticks = [float(f"{s}e{e}") for e in range(first, last + 1, every) for s in steps]
    return {
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
        "axis": alt.Axis(
            title=title,
            values=[tick for tick in ticks if low <= tick <= high],
            labelExpr=_LABELS[kind],
            labelOverlap=True,
        ),
    }


def linear_scale(title: str, kind: AxisKind, *, zero: bool = True) -> dict[str, Any]:
    """Return ``scale`` and ``axis`` of a linear axis."""
    return {
        "scale": alt.Scale(zero=zero, nice=True),
        "axis": alt.Axis(title=title, labelExpr=_LABELS[kind], tickCount=6),
    }


class Series:
    """The encodings that give each series its look, and the legend that shows it.

    The legend is a panel of its own: Vega's cannot show line, dash and shape together. A click on a
    name there lets the other series fade.

    Parameters
    ----------
    looks
        By the series' name, in the order of the legend.
    field
        The column that names the series.
    title
        What stands before the names in the legend.
    """

    def __init__(self, looks: Mapping[str, Look], field: str = "solver", title: str = "") -> None:
        self._looks = looks
        self._field = f"{field}:N"
        self._title = title
        self.name = field
        self._picked = alt.selection_point(name=f"picked_{field}", fields=[field], toggle="true")

    def _as(self, channel: type[Any], values: Sequence[Any]) -> Any:
        domain = list(self._looks)
        scale = alt.Scale(domain=domain, range=list(values))
        return channel(self._field, sort=domain, scale=scale, legend=None)

    @property
    def _colours(self) -> list[str]:
        return [look.colour for look in self._looks.values()]

    @property
    def stroke(self) -> alt.Stroke:
        """Colour of lines and outlines."""
        return self._as(alt.Stroke, self._colours)  # type: ignore[no-any-return]

    @property
    def colour(self) -> alt.Color:
        """Colour of text."""
        return self._as(alt.Color, self._colours)  # type: ignore[no-any-return]

    @property
    def fill(self) -> alt.Fill:
        """Colour of areas and of points."""
        return self._as(alt.Fill, self._colours)  # type: ignore[no-any-return]

    @property
    def dash(self) -> alt.StrokeDash:
        """Dash of lines."""
        dashes = [list(look.dash) or [1, 0] for look in self._looks.values()]
        return self._as(alt.StrokeDash, dashes)  # type: ignore[no-any-return]

    @property
    def shape(self) -> alt.Shape:
        """Shape of points."""
        shapes = [look.shape for look in self._looks.values()]
        return self._as(alt.Shape, shapes)  # type: ignore[no-any-return]

    def fill_if(self, predicate: str) -> Any:
        """Fill with the series' colour where ``predicate`` holds; the paper shows elsewhere."""
        return alt.when(predicate).then(self.fill).otherwise(alt.value(alt.ExprRef("paper")))

    def seen(self, opacity: float = 1.0) -> Any:
        """Opacity of what is not faded by a click on the legend."""
        shown = alt.value(opacity)
        return alt.when(self._picked).then(shown).otherwise(alt.value(0.07 * opacity))

    @property
    def lines(self) -> dict[str, Any]:
        """The encodings of a line: colour, dash, and opacity."""
        return {"stroke": self.stroke, "strokeDash": self.dash, "opacity": self.seen()}

    def points(self, opacity: float = 1.0) -> dict[str, Any]:
        """The encodings of filled points: colour, shape, and opacity."""
        return {
            "stroke": self.stroke,
            "shape": self.shape,
            "fill": self.fill,
            "opacity": self.seen(opacity),
        }

    def legend(self, width: int = 900) -> tuple[Spec, list[Spec]]:
        """Return the legend as a panel, and its rows, the data set ``legend_FIELD``.

        Parameters
        ----------
        width
            Pixels that the names may take before they go on in the next line.
        """
        letter, glyph, line = 6.7, 28, 20
        start = letter * len(self._title) + (14 if self._title else 0)
        rows: list[Spec] = []
        x, y = start, line / 2
        for name in self._looks:
            end = x + glyph + 6 + letter * len(name)
            if end > width and x > start:
                x, y, end = start, y + line, start + end - x
            place = {"x": x, "middle": x + glyph / 2, "right": x + glyph, "end": end, "y": y}
            title = "" if rows else self._title
            rows.append({self.name: name, **place, "text": x + glyph + 6, "title": title})
            x = end + 20
        height = y + line / 2
        base = alt.Chart(alt.NamedData(name=f"legend_{self.name}"), width=width, height=height)
        up = alt.Y("y:Q", scale=alt.Scale(domain=[0, height], reverse=True), axis=None)

        def at(column: str) -> alt.X:
            return alt.X(f"{column}:Q", scale=alt.Scale(domain=[0, width]), axis=None)

        target = base.mark_rule(strokeWidth=line - 2, opacity=0, cursor="pointer")
        rule = base.mark_rule(strokeWidth=2).encode(
            x=at("x"), x2="right:Q", y=up, stroke=self.stroke, strokeDash=self.dash
        )
        point = base.mark_point(size=60, strokeWidth=1.6).encode(
            x=at("middle"), y=up, stroke=self.stroke, fill=self.fill, shape=self.shape
        )
        text = base.mark_text(align="left", baseline="middle", fontSize=12).encode(
            x=at("text"), y=up, text=self._field
        )
        said = base.mark_text(align="left", baseline="middle", fontSize=12).encode(
            x=alt.value(0), y=alt.value(line / 2), text="title:N"
        )
        shown = [mark.encode(opacity=self.seen()) for mark in (rule, point, text)]
        spec = panel(alt.layer(*shown, said))
        hit = panel(target.encode(x=at("x"), x2="end:Q", y=up))
        del hit["width"], hit["height"]  # a layer has the size of its panel
        hit["params"] = [_definition(self._picked)]
        spec["layer"].insert(0, hit)
        return spec, rows


def panel(chart: alt.Chart | alt.LayerChart | alt.FacetChart) -> Spec:
    """Return one panel as a mapping.

    Panels are put together as mappings: Altair copies a chart at every level it is nested in, which
    takes longer than all the rest of a report.
    """
    spec: Spec = chart.to_dict(validate=False, context={"pre_transform": False})
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}


def _definition(parameter: alt.Parameter) -> Spec:
    definition = parameter.param
    assert definition is not alt.Undefined
    spec: Spec = definition.to_dict()  # type: ignore[union-attr]
    return spec


def assemble(
    panels: Sequence[Spec],
    data: Mapping[str, Sequence[Spec]],
    *,
    legends: Sequence[Series] = (),
    columns: int = 2,
    spacing: int = 40,
    params: Sequence[alt.Parameter] = (),
) -> Spec:
    """Return panels side by side, with the rows that they name: a figure that needs nothing else.

    The same panels and rows give the same mapping, whenever it is made.
    """
    drawn = [(series, *series.legend()) for series in legends]
    rows = {**data, **{f"legend_{series.name}": names for series, _, names in drawn}}
    body: Spec = {"concat": list(panels), "columns": columns, "spacing": spacing}
    spec: Spec = {
        "$schema": alt.SCHEMA_URL,
        "config": LIGHT,
        "datasets": {name: list(found) for name, found in rows.items()},
        "vconcat": [*(legend for _, legend, _ in drawn), body],
        "spacing": 16,
    }
    if params:
        spec["params"] = [_definition(parameter) for parameter in params]
    return spec


def svg(spec: Spec, title: str) -> str:
    """Return the figure as SVG with its title, without any network."""
    titled = spec | {"title": {"text": title, "fontSize": 15, "offset": 14}}
    drawn: str = vl_convert.vegalite_to_svg(titled, vl_version=VL_VERSION)
    return drawn
