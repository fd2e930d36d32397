"""The work-precision diagram: what accuracy each solver buys with evaluations and with seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec, slug
from experiments.report.charts import (
    AxisKind,
    Series,
    assemble,
    log_scale,
    panel,
    positive,
    records,
)
from experiments.report.labels import FORWARD_ONLY
from experiments.report.pages.compare.cases import Case

_WIDTH, _HEIGHT = 490, 270
_ENDS = ("", "_lo", "_hi")


@dataclass(frozen=True)
class _Quantity:
    """A column on an axis."""

    key: str
    title: str
    kind: AxisKind
    write: str


_EVALUATIONS = _Quantity("evaluations", "evaluations of f, forward", "count", ",.4~g")
_CALLS = _Quantity("calls", "evaluations of f and Jacobian products, forward", "count", ",.4~g")
_FORWARD = _Quantity("seconds", "seconds, forward", "seconds", ".3~s")
_TOTAL = _Quantity("total_seconds", "seconds, forward and backward", "seconds", ".3~s")
_RESIDUAL = _Quantity("residual_relative", "relative residual reached", "error", ".2~e")
_ERROR = _Quantity("rel_err", "relative error of the gradient", "error", ".2~e")


def work_precision(case: Case) -> Figure | None:
    """Return the work-precision diagram of a case, or None when no residual was reached."""
    if not positive(case.by_solver["residual_relative"]):
        return None
    names = [
        name
        for name in case.gradients
        if positive(case.by_gradient.loc[case.by_gradient["gradient"] == name, "rel_err"])
    ]
    return Figure(
        f"work-precision-{slug(case.name)}",
        f"What accuracy costs: {case.name}",
        _caption(case, names),
        lambda: _draw(case, names),
    )


def _draw(case: Case, gradients: Sequence[str]) -> Spec:
    solves = case.by_solver
    work = _CALLS if case.has_products else _EVALUATIONS
    looks = {name: look for name, look in case.looks.items() if name in set(solves["solver"])}
    series = Series(looks)
    data = {"solves": _rows(solves, _RESIDUAL, (work, _FORWARD))}
    panels = [_panel("solves", solves, series, _RESIDUAL, x) for x in (work, _FORWARD)]
    params = []
    if gradients:
        checked = case.by_gradient
        checked = checked[
            checked["gradient"].isin(gradients) & (checked["gradient"] != FORWARD_ONLY)
        ]
        data["gradients"] = _rows(checked, _ERROR, (work, _TOTAL))
        panels += [_panel("gradients", checked, series, _ERROR, x) for x in (work, _TOTAL)]
        choose = alt.binding_select(options=list(gradients), name="gradient in the lower panels ")
        params = [alt.param(name="gradient", value=gradients[0], bind=choose)]
    return assemble(panels, data, legends=[series], params=params)


def _rows(frame: pd.DataFrame, y: _Quantity, xs: Sequence[_Quantity]) -> list[Spec]:
    columns = ["solver", "reltol", "met", "number", "met_number", "retcode", "runs"]
    columns += ["evaluations", "products_forward"]
    columns += ["gradient"] if "gradient" in frame else []
    columns += [q.key + end for q in (y, *xs) for end in _ENDS]
    rows = records(frame, list(dict.fromkeys(columns)))
    for row in rows:
        row["outcome"] = f"met in {row['met_number']} of {row['number']} solves"
        # A logarithmic axis has no place for zero.
        for key in (y.key + end for end in _ENDS):
            row[key] = row[key] or None
    return rows


def _panel(data: str, frame: pd.DataFrame, series: Series, y: _Quantity, x: _Quantity) -> Spec:
    across = log_scale([v for end in _ENDS for v in frame[x.key + end]], x.title, x.kind)
    up = log_scale([v for end in _ENDS for v in frame[y.key + end]], y.title, y.kind)
    base = alt.Chart(alt.NamedData(name=data), width=_WIDTH, height=_HEIGHT)
    if data == "gradients":
        base = base.transform_filter("datum.gradient === gradient")
    seen = base.transform_filter(f"isValid(datum.{y.key}) && isValid(datum.{x.key})")
    at = {"x": alt.X(f"{x.key}:Q", **across), "y": alt.Y(f"{y.key}:Q", **up)}
    tips = _tips(data, x, y)
    line = seen.mark_line(strokeWidth=1.6).encode(
        **at,
        stroke=series.stroke,
        strokeDash=series.dash,
        opacity=series.seen(),
        order=alt.Order("reltol:Q", sort="descending"),
    )
    thin = seen.mark_rule().encode(stroke=series.stroke, opacity=series.seen(0.4))
    tall = thin.encode(x=at["x"], y=alt.Y(f"{y.key}_lo:Q", **up), y2=f"{y.key}_hi:Q")
    wide = thin.encode(y=at["y"], x=alt.X(f"{x.key}_lo:Q", **across), x2=f"{x.key}_hi:Q")
    points = seen.mark_point(size=55, strokeWidth=1.6).encode(
        **at,
        opacity=series.seen(),
        stroke=series.stroke,
        shape=series.shape,
        fill=series.fill_if("datum.met"),
        tooltip=tips,
    )
    # What has no finite accuracy stays in the picture, at the edge.
    lost = (
        base.transform_filter(f"!isValid(datum.{y.key}) && isValid(datum.{x.key}) && !datum.met")
        .mark_text(text="✕", fontSize=12, fontWeight="bold")
        .encode(x=at["x"], y=alt.value(4), color=series.colour, tooltip=tips)
    )
    return panel(alt.layer(line, tall, wide, points, lost))


def _tips(data: str, x: _Quantity, y: _Quantity) -> list[alt.Tooltip]:
    tips = [alt.Tooltip("solver:N"), alt.Tooltip("reltol:Q", format=".0e")]
    if data == "gradients":
        tips.append(alt.Tooltip("gradient:N"))
    if x is _CALLS:
        tips.append(alt.Tooltip("evaluations:Q", format=",.4~g"))
        tips.append(alt.Tooltip("products_forward:Q", title="Jacobian products", format=",.4~g"))
    for quantity in (x, y):
        tips.append(alt.Tooltip(f"{quantity.key}:Q", title=quantity.title, format=quantity.write))
    least, most = alt.Tooltip(f"{y.key}_lo:Q"), alt.Tooltip(f"{y.key}_hi:Q")
    tips += [least.title("smallest").format(y.write), most.title("largest").format(y.write)]
    return [
        *tips,
        alt.Tooltip("outcome:N", title="tolerance"),
        alt.Tooltip("retcode:N", title="worst retcode"),
        alt.Tooltip("runs:N", title="runs (deq runs show …)"),
    ]


def _caption(case: Case, gradients: Sequence[str]) -> Markup:
    text = Markup(
        "Lower and further left is better. A line is a solver, a point a tolerance, loose at the"
        " top and tight at the bottom: medians over seeds, with their range as thin bars. A click"
        " on a name shows it alone. "
    )
    unmet = int((~case.by_solver["met"]).sum())
    lost = int((case.by_solver["residual_relative"].isna() & ~case.by_solver["met"]).sum())
    zero = int((case.by_solver["residual_relative"] == 0).sum())
    if unmet:
        text += words.sentence(
            "Hollow points missed their tolerance in at least one run ({} of {}). ",
            unmet,
            len(case.by_solver),
        )
    if lost:
        text += words.sentence(
            "A cross at the top edge ended without a finite residual ({}). ", lost
        )
    if zero:
        exact = words.plural(zero, "point")
        text += words.sentence("{} with a residual of exactly 0 cannot be drawn. ", exact)
    if case.has_products:
        text += Markup("A Jacobian product counts as one evaluation on the axis. ")
    if gradients:
        text += Markup(
            "Below, the gradient of the parameters behind the same solves: it cannot be more exact"
            " than the state it is taken at. "
        )
    return text
