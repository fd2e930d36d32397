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
    "error": "format(datum.value, datum.value < 0.01 || datum.value >= 1000 ? '.0e' : '~r')",
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
        "legend": {
            "labelColor": ink,
            "titleColor": soft,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "symbolSize": 90,
            "symbolStrokeWidth": 2,
            "labelLimit": 260,
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
    """The encodings that give each series its look, with one legend for all of them.

    Parameters
    ----------
    looks
        By the series' name, in the order of the legend.
    field
        The column that names the series.
    title
        Of the legend, if it needs one.
    """

    def __init__(
        self, looks: Mapping[str, Look], field: str = "solver", title: str | None = None
    ) -> None:
        self._looks = looks
        self._field = f"{field}:N"
        self._legend = alt.Legend(title=title, orient="top", direction="horizontal", columns=6)

    def _scale(self, values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=list(self._looks), range=list(values))

    def _common(self, values: Sequence[Any], *, legend: bool = True) -> dict[str, Any]:
        return {
            "sort": list(self._looks),
            "scale": self._scale(values),
            "legend": self._legend if legend else None,
        }

    @property
    def _colours(self) -> list[str]:
        return [look.colour for look in self._looks.values()]

    @property
    def stroke(self) -> alt.Stroke:
        """Colour of lines and outlines."""
        return alt.Stroke(self._field, **self._common(self._colours))

    @property
    def colour(self) -> alt.Color:
        """Colour of filled marks, lines and text."""
        return alt.Color(self._field, **self._common(self._colours))

    @property
    def text_colour(self) -> alt.Color:
        """The same without a legend."""
        return alt.Color(self._field, **self._common(self._colours, legend=False))

    @property
    def fill(self) -> alt.Fill:
        """Colour of an area, without a legend."""
        return alt.Fill(self._field, **self._common(self._colours, legend=False))

    @property
    def dash(self) -> alt.StrokeDash:
        """Dash of lines."""
        dashes = [list(look.dash) or [1, 0] for look in self._looks.values()]
        return alt.StrokeDash(self._field, **self._common(dashes))

    @property
    def shape(self) -> alt.Shape:
        """Shape of points."""
        shapes = [look.shape for look in self._looks.values()]
        return alt.Shape(self._field, **self._common(shapes))

    def fill_if(self, predicate: str) -> Any:
        """Fill with the series' colour where ``predicate`` holds; the paper shows elsewhere."""
        return alt.when(predicate).then(self.fill).otherwise(alt.value(alt.ExprRef("paper")))


def panel(chart: alt.Chart | alt.LayerChart) -> Spec:
    """Return one panel as a mapping.

    Panels are put together as mappings: Altair copies a chart at every level it is nested in, which
    takes longer than all the rest of a report.
    """
    spec: Spec = chart.to_dict(context={"pre_transform": False})
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}


def assemble(
    panels: Sequence[Spec],
    data: Mapping[str, Sequence[Spec]],
    *,
    columns: int = 2,
    spacing: int = 40,
    params: Sequence[alt.Parameter] = (),
) -> Spec:
    """Return panels side by side, with the rows that they name: a figure that needs nothing else.

    The same panels and rows give the same mapping, whenever it is made.
    """
    spec: Spec = {
        "$schema": alt.SCHEMA_URL,
        "config": LIGHT,
        "datasets": {name: list(rows) for name, rows in data.items()},
        "concat": list(panels),
        "columns": columns,
        "spacing": spacing,
    }
    if params:
        spec["params"] = [parameter.param.to_dict() for parameter in params]
    return spec


def svg(spec: Spec) -> str:
    """Return the figure as SVG, without any network."""
    drawn: str = vl_convert.vegalite_to_svg(spec, vl_version=VL_VERSION)
    return drawn
