"""Bytes against evaluations: what unrolling keeps, what the implicit gradient keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec
from experiments.report.charts import Series, assemble, linear_scale, panel, positive, records
from experiments.report.colours import gradient_looks
from experiments.report.pages.compare.cases import Case

_WIDTH, _HEIGHT = 490, 300
_ROOM = 1.22  # of the axis, for the names at the ends of the lines
_RUNS = ("runs:N", "runs (deq runs show …)")


def memory(every: Sequence[Case]) -> Figure | None:
    """Return the bytes that a gradient needs against the evaluations before it, or None."""
    shown = [case for case in every if positive(case.by_budget["kept_bytes"])]
    if not shown:
        return None
    said = [sentence for case in shown for sentence in (*_growth(case), *_largest(case))]
    return Figure(
        "bytes",
        "Bytes against evaluations, unrolled and implicit",
        Markup(" ").join([*_legend(shown), *said]),
        lambda: _draw(shown),
    )


def _legend(shown: Sequence[Case]) -> list[Markup]:
    """Say what the marks mean, of those that are there."""
    said = [
        Markup(
            "What a training step holds between forward and backward, parameters excluded. Thick"
            " lines: the bytes that autograd keeps, after so many evaluations of plain iteration."
        )
    ]
    if any((case.by_budget["history_bytes"] > 0).any() for case in shown):
        said.append(Markup("The band above a line: the solver's own history while it runs."))
    marks = [row for case in shown for row in _histories(case)]
    if marks:
        said.append(
            Markup(
                "Thin lines with marks: solves to each tolerance under the implicit gradient, kept"
                " bytes and the solver's history together."
            )
        )
    beyond = len(marks) - sum(len(_within(case)) for case in shown)
    if beyond:
        points = words.plural(beyond, "such point lies", "such points lie")
        said.append(words.sentence("{} beyond the right edge.", points))
    return said


def _largest(case: Case) -> list[Markup]:
    """Say which solver's history is the largest, beside what the implicit gradient keeps."""
    rows = [row for row in _histories(case) if row["kept_bytes"]]
    if not rows:
        return []
    row = max(rows, key=lambda row: row["history_bytes"])
    ratio = row["history_bytes"] / row["kept_bytes"]
    if ratio < 1:
        return []
    return [
        words.sentence(
            "On {}, {} holds the longest history: {} at reltol {}, {} what {} keeps.",
            case.name,
            row["solver"],
            words.size(row["history_bytes"]),
            words.tolerance(row["reltol"]),
            words.times(ratio),
            row["gradient"],
        )
    ]


def _draw(shown: Sequence[Case]) -> Spec:
    names = list(dict.fromkeys(name for case in shown for name in _drawn(case)))
    looks = gradient_looks(names)
    solvers = {str(row["solver"]) for case in shown for row in _histories(case)}
    present = {name: look for name, look in shown[0].looks.items() if name in solvers}
    series = Series(present, "solver", "implicit, with the history of:")
    data: dict[str, list[Spec]] = {}
    panels = []
    for position, case in enumerate(shown):
        budgets = case.by_budget[case.by_budget["gradient"].isin(_drawn(case))]
        columns = ["solver", "gradient", "max_evaluations", "evaluations", "kept_bytes"]
        rows = records(budgets, [*columns, "history_bytes", "bytes", "runs"])
        data[f"budgets_{position}"] = _ended(rows)
        data[f"histories_{position}"] = _within(case)
        panels.append(_panel(case, position, budgets, Series(looks, "gradient"), series))
    return assemble(panels, data, legends=[series] if present else [], spacing=48)


def _drawn(case: Case) -> list[str]:
    """Return the gradients to draw: of those that only differ in their adjoint, the first."""
    drawn: dict[str, str] = {}
    present = set(case.by_budget.loc[case.by_budget["kept_bytes"].notna(), "gradient"])
    for name in case.gradients:
        if name in present:
            drawn.setdefault(name.split(" · ")[0], name)
    return list(drawn.values())


def _ended(rows: list[Spec]) -> list[Spec]:
    """Mark the last row of each gradient: its line is called there."""
    last = {row["gradient"]: row for row in rows}
    ends = [row is last[row["gradient"]] for row in rows]
    names = [row["gradient"].split(" · ")[0] for row in rows]
    return [
        row | {"called": name if end else ""}
        for row, name, end in zip(rows, names, ends, strict=True)
    ]


def _histories(case: Case) -> list[Spec]:
    rows = case.by_gradient
    implicit = [name for name in case.gradients if name.startswith("implicit")][:1]
    rows = rows[
        rows["gradient"].isin(implicit) & rows["bytes"].notna() & rows["history_bytes"].notna()
    ]
    columns = [
        "solver",
        "gradient",
        "reltol",
        "evaluations",
        "kept_bytes",
        "history_bytes",
        "bytes",
    ]
    return records(rows, [*columns, "met", "retcode", "runs"])


def _within(case: Case) -> list[Spec]:
    edge = _ROOM * float(case.by_budget["evaluations"].max())
    return [row for row in _histories(case) if row["evaluations"] <= edge]


def _growth(case: Case) -> list[Markup]:
    """Say how many bytes each gradient adds with an evaluation, from the ends of its line."""
    said = []
    for name in _drawn(case):
        line = case.by_budget[case.by_budget["gradient"] == name]
        line = line.dropna(subset=["kept_bytes", "evaluations"])
        first, last = line.iloc[0], line.iloc[-1]
        steps = last["evaluations"] - first["evaluations"]
        if steps <= 0:
            continue
        slope = (last["kept_bytes"] - first["kept_bytes"]) / steps
        kept = words.size(last["kept_bytes"])
        if abs(slope) * steps < 0.01 * last["kept_bytes"]:
            template = "On {}, {} keeps {} whatever the number of evaluations."
            said.append(words.sentence(template, case.name, name, kept))
        else:
            template = "On {}, {} adds {} with every evaluation and keeps {} at {}."
            at = words.count(last["evaluations"])
            said.append(words.sentence(template, case.name, name, words.size(slope), kept, at))
    return said


def _panel(
    case: Case, position: int, budgets: pd.DataFrame, gradients: Series, solvers: Series
) -> Spec:
    most = float(budgets["evaluations"].max())
    across = linear_scale("evaluations of f, forward", "count")
    across["scale"] = alt.Scale(domain=[0, _ROOM * most], nice=False)
    deepest = float(budgets["max_evaluations"].max())
    across["axis"].values = [deepest * part / 4 for part in range(5)]
    up = linear_scale("bytes", "bytes")
    x = alt.X("evaluations:Q", **across)
    y = alt.Y("kept_bytes:Q", **up)
    lines = alt.Chart(
        alt.NamedData(name=f"budgets_{position}"), width=_WIDTH, height=_HEIGHT, title=case.name
    )
    band = lines.mark_area(opacity=0.2).encode(x=x, y=y, y2="bytes:Q", fill=gradients.fill)
    line = lines.mark_line(strokeWidth=2.6).encode(x=x, y=y, color=gradients.colour)
    dots = lines.mark_point(size=45, strokeWidth=2, opacity=1, fill=alt.ExprRef("paper")).encode(
        x=x, y=y, color=gradients.colour, tooltip=_tips("solver:N", "gradient:N")
    )
    ends = lines.mark_text(align="left", dx=9, fontSize=12, fontWeight=600).encode(
        x=x, y=y, text="called:N", color=gradients.colour
    )
    return panel(alt.layer(*_marks(position, x, up, solvers), band, line, dots, ends))


def _marks(position: int, x: Any, up: Mapping[str, Any], solvers: Series) -> list[alt.Chart]:
    base = alt.Chart(alt.NamedData(name=f"histories_{position}"))
    y = alt.Y("bytes:Q", **up)
    line = base.mark_line(strokeWidth=1.2).encode(
        x=x,
        y=y,
        stroke=solvers.stroke,
        strokeDash=solvers.dash,
        opacity=solvers.seen(0.7),
        order="evaluations:Q",
    )
    tips = _tips("solver:N", "gradient:N", alt.Tooltip("reltol:Q", format=".0e"))
    dots = base.mark_point(size=34, strokeWidth=1.3).encode(
        x=x,
        y=y,
        opacity=solvers.seen(),
        stroke=solvers.stroke,
        shape=solvers.shape,
        fill=solvers.fill_if("datum.met"),
        tooltip=tips,
    )
    return [line, dots]


def _tips(*first: str | alt.Tooltip) -> list[alt.Tooltip]:
    return [
        *(alt.Tooltip(tip) if isinstance(tip, str) else tip for tip in first),
        alt.Tooltip("evaluations:Q"),
        alt.Tooltip("kept_bytes:Q", title="kept by autograd, bytes", format=".4~s"),
        alt.Tooltip("history_bytes:Q", title="history of the solver, bytes", format=".4~s"),
        alt.Tooltip(_RUNS[0], title=_RUNS[1]),
    ]
