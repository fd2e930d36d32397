"""The residual along each solve, from the recorded traces."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec
from experiments.report.charts import Series, assemble, linear_scale, log_scale, panel, records
from experiments.report.frames import Frames
from experiments.report.pages.compare.cases import Case

_WIDTH, _HEIGHT = 490, 290


def convergence(every: Sequence[Case], frames: Frames) -> Figure | None:
    """Return the residual along the tightest solve of each solver, or None without traces."""
    chosen = {case.name: _tightest(case) for case in every}
    traces = frames.traces(solve for rows in chosen.values() for solve in rows["solve_id"])
    traces = traces[traces["residual"] > 0].dropna(subset=["evaluations"])
    drawn: dict[str, pd.DataFrame] = {}
    absent: set[str] = set()
    for name, rows in chosen.items():
        lines = traces.merge(rows, on="solve_id", how="inner")
        absent |= set(rows["solver"]) - set(lines["solver"])
        if not lines.empty:
            lines["last"] = ~lines.duplicated("solve_id", keep="last")
            drawn[name] = lines
    if not drawn:
        return None
    text = Markup(
        "The largest residual ‖f(z) − z‖ in the batch after each evaluation, on the way to the"
        " tightest tolerance; a line a seed. A filled end met the tolerance, a hollow one did"
        " not. "
    )
    if absent:
        text += words.sentence("No trace was recorded for {}.", words.listed(sorted(absent)))
    return Figure(
        "convergence", "Residual against evaluations", text, lambda: _draw(drawn, every[0])
    )


def _tightest(case: Case) -> pd.DataFrame:
    """Return one solve a solver and seed: the tightest tolerance, as the solvers are compared."""
    rows = case.forward.sort_values(["reltol", "solve_id"], kind="stable")
    rows = rows.drop_duplicates(["solver", "seed"])
    return rows[["solve_id", "run_id", "seed", "solver", "reltol", "met", "retcode"]]


def _draw(drawn: dict[str, pd.DataFrame], any_case: Case) -> Spec:
    present = {str(name) for lines in drawn.values() for name in lines["solver"]}
    series = Series({name: look for name, look in any_case.looks.items() if name in present})
    columns = ["run_id", "solve_id", "seed", "solver", "reltol", "evaluations", "residual"]
    columns += ["last", "met", "retcode"]
    data = {f"traces_{i}": records(lines, columns) for i, lines in enumerate(drawn.values())}
    panels = [
        _panel(name, f"traces_{i}", lines, series) for i, (name, lines) in enumerate(drawn.items())
    ]
    return assemble(panels, data, legends=[series])


def _panel(title: str, data: str, lines: pd.DataFrame, series: Series) -> Spec:
    longest = lines.groupby("solver")["evaluations"].max()
    across = (
        log_scale(lines["evaluations"].clip(lower=1), "evaluations of f", "count")
        if longest.max() > 8 * max(longest.min(), 1.0)
        else linear_scale("evaluations of f", "count", zero=False)
    )
    base = alt.Chart(alt.NamedData(name=data), width=_WIDTH, height=_HEIGHT, title=title)
    tips = [
        alt.Tooltip("solver:N"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("evaluations:Q"),
        alt.Tooltip("residual:Q", format=".2~e"),
        alt.Tooltip("retcode:N"),
        alt.Tooltip("run_id:N", title="run (deq runs show …)"),
    ]
    at = {
        "x": alt.X("evaluations:Q", **across),
        "y": alt.Y("residual:Q", **log_scale(lines["residual"], "residual", "error")),
    }
    line = base.mark_line(strokeWidth=1.5).encode(
        **at,
        opacity=series.seen(0.6),
        stroke=series.stroke,
        strokeDash=series.dash,
        detail="solve_id:N",
        order="evaluations:Q",
        tooltip=tips,
    )
    end = (
        base.transform_filter("datum.last")
        .mark_point(size=55, strokeWidth=1.6)
        .encode(
            **at,
            opacity=series.seen(),
            stroke=series.stroke,
            shape=series.shape,
            fill=series.fill_if("datum.met"),
            tooltip=tips,
        )
    )
    return panel(alt.layer(line, end))
