"""The figures: the staircase of layers, powers, solvers, stacking, depth, and what is forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report.blocks import Figure, Spec
from experiments.report.charts import (
    Series,
    assemble,
    linear_scale,
    log_scale,
    panel,
    records,
)
from experiments.report.colours import Look, looks
from experiments.report.pages.theory.rows import PARTS, Found, layers, pairs

# Where 0 is drawn.
_FLOOR = 1e-17
_WIDTH, _HEIGHT, _CELL = 400, 280, 34
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8208F4", "#B06A9B", "#81673E")
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
_STEPS = ("#0B3C6F", "#7FB8DA", "#E9D8CB", "#E08A3C")


def _looks(names: Sequence[str]) -> dict[str, Look]:
    found = {}
    for k, name in enumerate(dict.fromkeys(names)):
        found[name] = Look(_COLOURS[k % 6], () if k < 6 else (6, 3), _SHAPES[k % 6])
    return found


def _shown(values: pd.Series) -> pd.Series:
    """Return values as a logarithmic axis can show them: 0 is at the bottom."""
    return values.astype(float).clip(lower=_FLOOR)


def staircase(found: Found) -> Figure | None:
    """Return the error of every block after every step, a panel a depth."""
    rows = layers(found)
    if rows.empty:
        return None
    # One picture a size: the largest gain, the first seed.
    plain = rows[rows["activation"] == rows["activation"].iloc[0]]
    plain = plain[(plain["gain"] == plain["gain"].max()) & (plain["depth"] <= 8)]
    rows = plain if len(plain) else rows
    runs = rows.drop_duplicates("depth")["run_id"]
    text = Markup(
        "The difference between block l and layer l of the network after k steps from 0, relative."
        " On the diagonal and right of it they are equal, to rounding."
    )
    return Figure(
        "staircase", "Step k makes layer k right", text, lambda: _draw_staircase(rows, list(runs))
    )


def _rounded(value: float) -> str:
    if value == 0 or value > 0.05:
        return f"{value:.1g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _draw_staircase(rows: pd.DataFrame, runs: Sequence[int]) -> Spec:
    data, panels = {}, []
    for position, run in enumerate(runs):
        here = rows[rows["run_id"] == run].copy()
        here["log"] = [math.log10(v) for v in _shown(here["value"])]
        here["text"] = [_rounded(v) for v in here["value"]]
        name = f"staircase_{position}"
        data[name] = records(here, ["step", "layer", "log", "text", "value"])
        steps, layers = here["step"].nunique(), here["layer"].nunique()
        base = alt.Chart(
            alt.NamedData(name=name),
            width=_CELL * steps,
            height=24 * layers,
            title=str(here["label"].iloc[0]),
        ).encode(
            x=alt.X("step:O", axis=alt.Axis(title="steps k", labelAngle=0, grid=False)),
            y=alt.Y("layer:O", axis=alt.Axis(title="layer l", grid=False)),
            tooltip=["step:O", "layer:O", alt.Tooltip("value:Q", title="difference", format=".1e")],
        )
        scale = alt.Scale(domain=[-17, -10, -3, 0], range=list(_STEPS), interpolate="lab")
        rect = base.mark_rect(stroke=alt.ExprRef("paper"), strokeWidth=1).encode(
            fill=alt.Fill("log:Q", scale=scale, legend=None)
        )
        text = base.mark_text(fontSize=9.5).encode(
            text="text:N",
            color=alt.when("datum.log < -10")
            .then(alt.value("#ffffff"))
            .otherwise(alt.value("#101418")),
        )
        panels.append(panel(alt.layer(rect, text)))
    return assemble(panels, data, columns=2)


def nilpotent(found: Found) -> Figure | None:
    """Return the powers of the Jacobian, and the error by terms of the Neumann series."""
    rows = found.series[found.series["name"].isin(["power", "neumann"])]
    if rows.empty:
        return None
    text = Markup(
        "Left: the norm of the powers of J at the fixed point: they grow, and are 0 at once. Right:"
        " the error of the gradient by so many terms of the Neumann series, which hardly falls, and"
        " is exact at once. Medians over the seeds; 0 is drawn at the bottom."
    )
    return Figure("nilpotent", "A nilpotent Jacobian", text, lambda: _draw_nilpotent(rows))


def _draw_nilpotent(rows: pd.DataFrame) -> Spec:
    series = Series(_looks([str(v) for v in rows["label"]]), field="label")
    data, panels = {}, []
    for name, title, across_title, up_title in (
        ("power", "Powers of the Jacobian", "power k", "norm of the k-th power"),
        ("neumann", "Neumann series", "terms k", "error of the gradient"),
    ):
        here = rows[rows["name"] == name].groupby(["label", "step"], sort=False)["value"]
        frame = here.median().reset_index()
        frame["drawn"] = _shown(frame["value"])
        data[name] = records(frame, ["label", "step", "value", "drawn"])
        panels.append(
            _lines(
                name,
                title,
                ("step:Q", linear_scale(across_title, "count")),
                ("drawn:Q", log_scale([*frame["drawn"], _FLOOR], up_title, "error")),
                series,
                value="value",
            )
        )
    return assemble(panels, data, legends=[series])


def _lines(
    data: str,
    title: str,
    across: tuple[str, dict[str, Any]],
    up: tuple[str, dict[str, Any]],
    series: Series,
    *,
    value: str,
    detail: str = "",
    points: bool = True,
) -> Spec:
    """Return a panel of lines, with points where they are few."""
    base = alt.Chart(alt.NamedData(name=data), width=_WIDTH, height=_HEIGHT, title=title)
    at = {"x": alt.X(across[0], **across[1]), "y": alt.Y(up[0], **up[1])}
    tip = [
        alt.Tooltip(f"{series.name}:N"),
        alt.Tooltip(across[0]),
        alt.Tooltip(f"{value}:Q", format=".2e"),
    ]
    by: dict[str, Any] = {"detail": f"{detail}:N"} if detail else {}
    line = base.mark_line(strokeWidth=1.4).encode(**at, **by, **series.lines, tooltip=tip)
    if not points:
        return panel(alt.layer(line))
    dots = base.mark_point(size=34, strokeWidth=1.2).encode(
        **at,
        **series.points(),
        tooltip=tip,
    )
    return panel(alt.layer(line, dots))


def blocks(found: Found) -> Figure | None:
    """Return the evaluations of solvers on blocks, a panel a gain."""
    rows = found.solves
    rows = rows[(rows["activation"] == "tanh") & rows["met"]] if len(rows) else rows
    if rows.empty or rows["depth"].nunique() < 2:
        return None
    text = Markup(
        "Evaluations to 1e-13, of Picard to 0, medians over the seeds. A spectral radius of 0 says"
        " nothing of solvers that learn from secants: where ‖J‖ > 1 they take several times as many"
        " evaluations as the network has layers. Picard's L + 1 are the network itself."
    )
    return Figure("solvers", "Solvers on a network as one block", text, lambda: _draw_blocks(rows))


def _draw_blocks(rows: pd.DataFrame) -> Spec:
    series = Series(looks([str(v) for v in rows["solver"].unique()]))
    data, panels = {}, []
    up = linear_scale("evaluations", "count")
    up["scale"] = alt.Scale(domain=[0, float(rows["evaluations"].max())], nice=True)
    for position, (gain, here) in enumerate(rows.groupby("gain")):
        frame = here.groupby(["solver", "depth"])["evaluations"].median().reset_index()
        name = f"solvers_{position}"
        data[name] = records(frame, ["solver", "depth", "evaluations"])
        norm = float(here["found_norm"].median())
        panels.append(
            _lines(
                name,
                f"gain {gain:g}, norm of J {norm:.2g} in the median",
                ("depth:Q", linear_scale("layers L", "count")),
                ("evaluations:Q", up),
                series,
                value="evaluations",
            )
        )
    return assemble(panels, data, legends=[series])


def stacked(found: Found) -> Figure | None:
    """Return the evaluations in sequence and jointly, a panel a difficulty."""
    rows = pairs(found)
    if rows.empty:
        return None
    text = Markup(
        "Evaluations to 1e-12, medians over the seeds: above one after the other, below jointly. A"
        " joint evaluation evaluates both cells, so that it costs what one of each costs."
    )
    return Figure("stacking", "In sequence, and jointly", text, lambda: _draw_stacked(rows))


def _draw_stacked(rows: pd.DataFrame) -> Spec:
    series = Series(
        {"first": Look("#0072B2"), "second": Look("#7FB8DA"), "joint": Look("#D55E00")},
        field="part",
    )
    data, panels = {}, []
    parts = [f"evaluations_{part}" for part in PARTS]
    up = linear_scale("evaluations", "count")
    up["axis"]["tickCount"] = 4
    for position, (label, here) in enumerate(rows.groupby("label", sort=False)):
        radius = float(here["radius_joint"].median())
        frame = here.groupby("solver", sort=False)[parts].median().reset_index()
        made = [
            {
                "solver": row["solver"],
                "part": part,
                "way": "jointly" if part == "joint" else "in sequence",
                "order": order,
                "evaluations": float(row[f"evaluations_{part}"]),
            }
            for row in frame.to_dict("records")
            for order, part in enumerate(PARTS)
        ]
        name = f"stacking_{position}"
        data[name] = made
        title = alt.TitleParams(text=str(label), subtitle=f"ρ = {radius:.2g} in the median")
        base = alt.Chart(alt.NamedData(name=name), width=250, height=190, title=title)
        bars = base.mark_bar().encode(
            y=alt.Y("solver:N", sort=None, axis=alt.Axis(title=None, grid=False)),
            yOffset=alt.YOffset("way:N", sort=["in sequence", "jointly"]),
            x=alt.X("evaluations:Q", stack="zero", **up),
            fill=series.fill,
            order="order:Q",
            opacity=series.seen(),
            tooltip=["solver:N", "part:N", "evaluations:Q"],
        )
        panels.append(panel(bars))
    return assemble(panels, data, legends=[series], columns=3, spacing=24)


def depths(found: Found) -> Figure | None:
    """Return the steps and the errors of the gradient against the depth."""
    steps = found.curves("step")
    if steps.empty:
        return None
    text = Markup(
        "Left: the change by one more layer, relative to the equilibrium. Right: the gradient of"
        " the network of L layers against that of the equilibrium. A line is a seed. A straight"
        " line falls by ρ a layer; the floor is rounding."
    )
    return Figure(
        "depth", "A weight-tied network as it gets deeper", text, lambda: _draw_depths(found)
    )


def _draw_depths(found: Found) -> Spec:
    steps = found.curves("step").copy()
    every = max(1, int(steps["step"].max()) // 128)
    steps = steps[steps["step"] % every == 0]
    errors = found.gradients.rename(columns={"layers": "step", "rel_err": "value"})
    series = Series(_looks([str(v) for v in found.runs["label"]]), field="label")
    data, panels = {}, []
    for name, frame, title, up in (
        ("steps", steps, "One more layer", "change by a layer, relative"),
        ("gradients", errors, "Gradient", "error of the gradient"),
    ):
        here = frame[frame["value"] > 0].assign(drawn=_shown(frame["value"]))
        data[name] = records(here, ["label", "run_id", "step", "value", "drawn"])
        panels.append(
            _lines(
                name,
                title,
                ("step:Q", linear_scale("layers", "count")),
                ("drawn:Q", log_scale(here["drawn"], up, "error")),
                series,
                value="value",
                detail="run_id",
                points=False,
            )
        )
    return assemble(panels, data, legends=[series])


def variances(found: Found) -> Figure | None:
    """Return what is left of the input against the depth, a panel a contraction."""
    rows = found.series[found.series["name"].str.startswith("variance, ")]
    if rows.empty:
        return None
    text = Markup(
        "The variance of the state over the inputs, relative to that of the inputs themselves, with"
        " which every network starts. A line is a seed, the dashed one the bound ‖W‖²ᵏ. Untied:"
        " each layer has weights of its own; tied: one for all; injected: the same, with the input"
        " added at every layer."
    )
    return Figure("injection", "What is left of the input", text, lambda: _draw_variances(rows))


def _draw_variances(rows: pd.DataFrame) -> Spec:
    rows = rows.assign(network=[str(n).removeprefix("variance, ") for n in rows["name"]])
    rows = rows[rows["value"] > 0]
    series = Series(_looks(["tied", "untied", "injected"]), field="network")
    up = log_scale([*rows["value"], 1e-30], "variance over the inputs", "error")
    data, panels = {}, []
    for position, (label, here) in enumerate(rows.groupby("label", sort=False)):
        name, bound = f"injection_{position}", f"bound_{position}"
        data[name] = records(here, ["network", "run_id", "step", "value"])
        contraction = float(here["contraction"].iloc[0])
        last = int(here["step"].max())
        data[bound] = [{"step": k, "value": contraction ** (2 * k)} for k in (0, last)]
        x = alt.X("step:Q", **linear_scale("layers", "count"))
        y = alt.Y("value:Q", **up)
        base = alt.Chart(alt.NamedData(name=name), width=250, height=240, title=str(label))
        line = base.mark_line(strokeWidth=1.5).encode(
            x=x,
            y=y,
            detail="run_id:N",
            stroke=series.stroke,
            opacity=series.seen(),
            tooltip=["network:N", "step:Q", alt.Tooltip("value:Q", format=".2e")],
        )
        dashed = (
            alt.Chart(alt.NamedData(name=bound))
            .mark_line(strokeDash=[4, 4], strokeWidth=1.3, color="#7A7F87", clip=True)
            .encode(x=x, y=y)
        )
        panels.append(panel(alt.layer(dashed, line)))
    return assemble(panels, data, legends=[series], columns=3, spacing=24)
