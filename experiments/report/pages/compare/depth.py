"""The explicit network at depth L, the same cell unrolled, beside the equilibrium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec, slug
from experiments.report.charts import (
    AxisKind,
    Series,
    assemble,
    linear_scale,
    log_scale,
    number,
    panel,
    positive,
    records,
)
from experiments.report.colours import gradient_looks
from experiments.report.labels import FORWARD_ONLY
from experiments.report.pages.compare.cases import Case, implicit

_WIDTH, _HEIGHT = 490, 225
_ENDS = ("", "_lo", "_hi")


@dataclass(frozen=True)
class _Quantity:
    key: str
    title: str
    kind: AxisKind
    log: bool


_QUANTITIES = (
    _Quantity("loss", "loss", "number", False),
    _Quantity("rel_err", "relative error of the gradient", "error", True),
    _Quantity("total_seconds", "seconds, forward and backward", "seconds", True),
    _Quantity("bytes", "bytes, history included", "bytes", True),
)


def depth(case: Case) -> Figure | None:
    """Return the explicit network against its depth beside the equilibrium, or None."""
    rows = _explicit(case)
    shown = [quantity for quantity in _QUANTITIES if positive(rows[quantity.key])]
    if not shown:
        return None
    level = equilibrium(case)
    text = Markup(
        "The same cell applied L times. With unrolled gradients this is the weight-tied network of"
        " depth L. Its gradient is compared with the equilibrium's, so the error is what the"
        " finite depth costs. "
    )
    if level.get("solver"):
        text += words.sentence(
            "Dashed: the equilibrium by {} with {} at reltol {}; its loss is the float64"
            " reference's.",
            level["solver"],
            level["gradient"],
            words.tolerance(level["reltol"]),
        )
    return Figure(
        f"depth-{slug(case.name)}",
        f"The explicit network of depth L: {case.name}",
        text,
        lambda: _draw(case, rows, shown, level),
    )


def _explicit(case: Case) -> pd.DataFrame:
    """Return the fixed budgets whose gradient goes through every layer; all, if there are none."""
    rows = case.by_budget[case.by_budget["gradient"] != FORWARD_ONLY]
    through = rows.drop(implicit(rows).index)
    return rows if through.empty else through


def equilibrium(case: Case) -> Spec:
    """Return the equilibrium's own numbers: by the solver and at the tolerance of the answer."""
    rows = case.by_gradient
    rows = rows[(rows["reltol"] == case.reference) & (rows["solver"] == case.representative)]
    rows = implicit(rows)
    level: Spec = {}
    if not rows.empty:
        columns = ["solver", "gradient", "reltol", "rel_err", "total_seconds", "bytes", "runs"]
        level = records(rows.iloc[:1], columns)[0]
    losses = pd.concat([case.budgets, case.points])["loss_ref"].dropna()
    level["loss"] = number(losses.median()) if len(losses) else None
    return level


def _draw(case: Case, rows: pd.DataFrame, shown: list[_Quantity], level: Mapping[str, Any]) -> Spec:
    names = [name for name in case.gradients if name in set(rows["gradient"])]
    series = Series(gradient_looks(names), "gradient", "gradient at depth L:")
    columns = ["solver", "gradient", "max_evaluations", "evaluations", "runs"]
    columns += [quantity.key + end for quantity in _QUANTITIES for end in _ENDS]
    data: dict[str, list[Spec]] = {"depths": records(rows, columns)}
    for quantity in shown:
        value = level.get(quantity.key)
        data[f"equilibrium_{quantity.key}"] = [] if value is None else [{**level, "value": value}]
    panels = [_panel(quantity, rows, level, series) for quantity in shown]
    return assemble(panels, data, legends=[series])


def _panel(
    quantity: _Quantity, rows: pd.DataFrame, level: Mapping[str, Any], series: Series
) -> Spec:
    key, title = quantity.key, quantity.title
    values = [*(v for end in _ENDS for v in rows[key + end]), level.get(key)]
    up = (
        log_scale(values, title, quantity.kind)
        if quantity.log
        else linear_scale(title, quantity.kind, zero=False)
    )
    depths = sorted({float(v) for v in rows["max_evaluations"].dropna()})
    across = log_scale(depths, "depth L, evaluations of f", "count", ticks=depths)
    x = alt.X("max_evaluations:Q", **across)
    y = alt.Y(f"{key}:Q", **up)
    base = alt.Chart(alt.NamedData(name="depths"), width=_WIDTH, height=_HEIGHT)
    seen = base.transform_filter(f"isValid(datum.{key})")
    tips = [
        alt.Tooltip("gradient:N"),
        alt.Tooltip("solver:N"),
        alt.Tooltip("max_evaluations:Q", title="depth L"),
        alt.Tooltip(f"{key}:Q", title=title, format=".4~g"),
        alt.Tooltip(f"{key}_lo:Q", title="smallest", format=".4~g"),
        alt.Tooltip(f"{key}_hi:Q", title="largest", format=".4~g"),
        alt.Tooltip("runs:N", title="runs (deq runs show …)"),
    ]
    line = seen.mark_line(strokeWidth=1.9).encode(
        x=x, y=y, stroke=series.stroke, strokeDash=series.dash, opacity=series.seen()
    )
    spread = seen.mark_rule().encode(
        x=x,
        y=alt.Y(f"{key}_lo:Q", **up),
        y2=f"{key}_hi:Q",
        stroke=series.stroke,
        opacity=series.seen(0.4),
    )
    dots = seen.mark_point(size=45, strokeWidth=1.9, fill=alt.ExprRef("paper")).encode(
        x=x,
        y=y,
        stroke=series.stroke,
        shape=series.shape,
        opacity=series.seen(),
        tooltip=tips,
    )
    own = alt.Chart(alt.NamedData(name=f"equilibrium_{key}"))
    across_all = own.mark_rule(strokeDash=[4, 4], strokeWidth=1.4).encode(y=alt.Y("value:Q", **up))
    called = own.mark_text(align="left", dx=3, dy=-7, fontSize=11, text="equilibrium").encode(
        y=alt.Y("value:Q", **up), x=alt.value(0)
    )
    return panel(alt.layer(across_all, called, line, spread, dots))
