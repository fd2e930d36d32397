"""The figures: error by tolerances, products and radius, directions, certificates, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Figure, Spec
from experiments.report.charts import (
    Series,
    assemble,
    linear_scale,
    log_scale,
    panel,
    positive,
    records,
)
from experiments.report.colours import Look
from experiments.report.pages.gradients.rows import Gradients, medians, place, variants
from experiments.report.pages.gradients.verdicts import FACTOR, certified

_WIDTH, _HEIGHT = 490, 290
_CELL = 33
_BAR = 20
_FLOOR = 1e-17
# From exact to useless: told apart under every common colour blindness, and in grey.
_COLOURS = ("#0B3C6F", "#0072B2", "#7FB8DA", "#E9D8CB", "#E08A3C", "#B3470A")
_EXACT = "the reference"


# -- two tolerances -------------------------------------------------------------------------------


def heat_map(found: Gradients) -> Figure | None:
    """Return the error by forward and adjoint tolerance, a panel a model and precision."""
    rows = _mapped(found)
    if rows.empty:
        return None
    text = Markup(
        "Relative error of implicit's gradient in the parameters, medians over the seeds; blue is"
        " exact, orange is not. Framed cells have both tolerances equal. Above them the forward"
        " decides, below them the adjoint: going right or down from a framed cell costs"
        " evaluations or products and gains little. ○: a solve fell short of its tolerance."
    )
    return Figure("tolerances", "Error by both tolerances", text, lambda: _draw_map(rows))


def _mapped(found: Gradients) -> pd.DataFrame:
    rows = found.of("tolerances")
    rows = rows[~rows["exact_adjoint"]].copy()
    if rows.empty:
        return rows
    rows["place"] = place(rows)
    first = rows["place"].iloc[0]
    # One place shows what the precisions do; the others would repeat it.
    rows = rows[(rows["precision"] == "float64") | (rows["place"] == first)]
    by = ["place", "precision", "reltol", "adjoint_reltol"]
    return medians(rows, by, ["rel_err", "products", "forward_evaluations"])


def _draw_map(rows: pd.DataFrame) -> Spec:
    rows = rows.copy()
    rows["across"] = [words.tolerance(v) for v in rows["adjoint_reltol"]]
    rows["up"] = [words.tolerance(v) for v in rows["reltol"]]
    rows["log"] = np.log10(rows["rel_err"].astype(float).clip(lower=_FLOOR))
    rows["text"] = [
        _rounded(error) + ("" if met else " ○")
        for error, met in zip(rows["rel_err"], rows["met"], strict=True)
    ]
    rows["equal"] = np.isclose(rows["reltol"], rows["adjoint_reltol"], rtol=1e-6)
    low = float(np.floor(rows["log"].min()))
    data, panels = {}, []
    columns = ["across", "up", "log", "text", "equal", "rel_err", "rel_err_lo", "rel_err_hi"]
    columns += ["products", "forward_evaluations", "number"]
    # The largest panels side by side, the small ones together.
    groups = sorted(
        rows.groupby(["precision", "place"], sort=False), key=lambda item: -len(item[1])
    )
    for position, ((precision, where), here) in enumerate(groups):
        data[f"map_{position}"] = records(here, columns)
        title = f"{where}, {precision}"
        panels.append(_map_panel(title, f"map_{position}", here, low))
    return assemble(panels, data, columns=2, spacing=30)


def _rounded(error: float) -> str:
    mantissa, exponent = f"{error:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _map_panel(title: str, data: str, rows: pd.DataFrame, low: float) -> Spec:
    across = _ordered(rows["adjoint_reltol"])
    up = _ordered(rows["reltol"])
    steps = np.linspace(low, 0, len(_COLOURS)).tolist()
    base = alt.Chart(
        alt.NamedData(name=data),
        width=max(_CELL * len(across), 150),
        height=23 * max(len(up), 4),
        title=title,
    ).encode(
        x=alt.X(
            "across:N",
            sort=across,
            axis=alt.Axis(title="adjoint tolerance", labelAngle=0, labelFontSize=10, grid=False),
        ),
        y=alt.Y("up:N", sort=up, axis=alt.Axis(title="forward tolerance", grid=False)),
        tooltip=[
            alt.Tooltip("up:N", title="forward tolerance"),
            alt.Tooltip("across:N", title="adjoint tolerance"),
            alt.Tooltip("rel_err:Q", title="error, median", format=".2e"),
            alt.Tooltip("rel_err_lo:Q", title="least", format=".2e"),
            alt.Tooltip("rel_err_hi:Q", title="most", format=".2e"),
            alt.Tooltip("forward_evaluations:Q", title="evaluations"),
            alt.Tooltip("products:Q"),
            alt.Tooltip("number:Q", title="seeds"),
        ],
    )
    scale = alt.Scale(domain=steps, range=list(_COLOURS), interpolate="lab")
    rect = base.mark_rect(stroke=alt.ExprRef("paper"), strokeWidth=1).encode(
        fill=alt.Fill("log:Q", scale=scale, legend=None)
    )
    frame = base.transform_filter("datum.equal").mark_rect(
        stroke="#1c2128", strokeWidth=2, fillOpacity=0
    )
    middle = (steps[2] + steps[3]) / 2
    text = base.mark_text(fontSize=9.5).encode(
        text="text:N",
        color=alt.when(f"datum.log < {steps[2]} || datum.log > {(steps[4] + steps[5]) / 2}")
        .then(alt.value("#ffffff"))
        .when(f"datum.log < {middle}")
        .then(alt.value("#101418"))
        .otherwise(alt.value("#101418")),
    )
    return panel(alt.layer(rect, frame, text))


def _ordered(values: pd.Series) -> list[str]:
    return [words.tolerance(v) for v in sorted(values.unique(), reverse=True)]


def slopes(found: Gradients) -> Figure | None:
    """Return the error against the forward residual under an exact adjoint."""
    rows = found.of("tolerances")
    rows = rows[rows["exact_adjoint"] & (rows["forward"] > 0) & (rows["rel_err"] > 0)].copy()
    if rows.empty:
        return None
    rows["place"] = place(rows)
    text = Markup(
        "With an exact adjoint the error is that of z* alone: proportional to the residual, with a"
        " factor that the model's conditioning sets, near 1 / |1 − λ| for the eigenvalue nearest"
        " to 1. A line is a seed; the dashed line is error = residual."
    )
    return Figure("slopes", "Error against the forward residual", text, lambda: _draw_slopes(rows))


def _draw_slopes(rows: pd.DataFrame) -> Spec:
    names = list(dict.fromkeys(rows["place"]))
    looks = _spread_looks(names)
    series = Series(looks, field="place")
    columns = ["place", "seed", "forward", "rel_err", "reltol", "run_id"]
    low, high = float(rows["forward"].min()), float(rows["forward"].max())
    across = log_scale(rows["forward"], "forward residual, relative", "error")
    up = log_scale([*rows["rel_err"], low], "error of the gradient", "error")
    base = alt.Chart(alt.NamedData(name="slopes"), width=640, height=340)
    at = {"x": alt.X("forward:Q", **across), "y": alt.Y("rel_err:Q", **up)}
    line = base.mark_line(strokeWidth=1.2).encode(
        **at,
        detail="run_id:N",
        **series.lines,
    )
    points = base.mark_point(size=32, strokeWidth=1.2).encode(
        **at,
        **series.points(),
        tooltip=[
            alt.Tooltip("place:N", title="model"),
            alt.Tooltip("seed:N"),
            alt.Tooltip("forward:Q", title="residual", format=".1e"),
            alt.Tooltip("rel_err:Q", title="error", format=".1e"),
            alt.Tooltip("reltol:Q", title="tolerance", format=".0e"),
            alt.Tooltip("run_id:N", title="run (deq runs show …)"),
        ],
    )
    diagonal = _line("equal", {"x": ("forward:Q", across), "y": ("rel_err:Q", up)}, dash=[4, 4])
    data = {
        "slopes": records(rows, columns),
        "equal": [{"forward": v, "rel_err": v} for v in (low, high)],
    }
    return assemble([panel(alt.layer(diagonal, line, points))], data, legends=[series], columns=1)


def _line(
    data: str, at: Mapping[str, tuple[str, dict[str, Any]]], dash: Sequence[int] = ()
) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.NamedData(name=data)).mark_line(
        strokeDash=list(dash), strokeWidth=1.4, color="#7A7F87"
    )
    (x, across), (y, up) = at["x"], at["y"]
    drawn: alt.Chart = chart.encode(x=alt.X(x, **across), y=alt.Y(y, **up))
    return drawn


def _spread_looks(names: Sequence[str]) -> dict[str, Look]:
    colours = (
        "#0072B2", "#D55E00", "#009E73", "#8208F4", "#B06A9B", "#81673E", "#7A8B2A", "#BE1E80",
        "#5899E6",
    )  # fmt: skip
    shapes = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
    return {n: Look(colours[k % 9], (), shapes[k % 6]) for k, n in enumerate(names)}


# -- products -------------------------------------------------------------------------------------


def products(found: Gradients) -> Figure | None:
    """Return the error against the products of the backward, a panel a model."""
    rows = found.of("products")
    rows = rows[rows["rel_err"].notna()].copy()
    if rows.empty:
        return None
    rows["place"] = place(rows)
    rows = medians(rows, ["place", "label", "budget"], ["rel_err", "cosine", "products"])
    # Backpropagation through steps counts none: the evaluations in its graph take their place.
    rows["spent"] = rows["products"].fillna(rows["budget"])
    text = Markup(
        "Relative error in the parameters at an equilibrium of rounding error, medians over the"
        " seeds. Across: the products with the transposed Jacobian that the backward took; for"
        " unrolled the evaluations in its graph, which cost about as much."
    )
    return Figure("products", "Error against products", text, lambda: _draw_products(rows))


def _draw_products(rows: pd.DataFrame) -> Spec:
    series = Series(variants(rows["label"]), field="label")
    data, panels = {}, []
    columns = ["label", "budget", "spent", "rel_err", "rel_err_lo", "rel_err_hi", "cosine"]
    for position, (name, here) in enumerate(rows.groupby("place", sort=False)):
        data[f"products_{position}"] = records(here, columns)
        base = alt.Chart(
            alt.NamedData(name=f"products_{position}"),
            width=_WIDTH,
            height=330,
            title=str(name),
        )
        at = {
            "x": alt.X("spent:Q", **linear_scale("products", "count")),
            "y": alt.Y(
                "rel_err:Q",
                **log_scale([*rows["rel_err"], 1.0], "error of the gradient", "error"),
            ),
        }
        line = base.mark_line(strokeWidth=1.5).encode(**at, **series.lines)
        points = base.mark_point(size=34, strokeWidth=1.3).encode(
            **at,
            **series.points(),
            tooltip=[
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("spent:Q", title="products"),
                alt.Tooltip("rel_err:Q", title="error, median", format=".2e"),
                alt.Tooltip("rel_err_lo:Q", title="least", format=".2e"),
                alt.Tooltip("rel_err_hi:Q", title="most", format=".2e"),
                alt.Tooltip("cosine:Q", format=".4f"),
            ],
        )
        panels.append(panel(alt.layer(line, points)))
    return assemble(panels, data, legends=[series])


# -- every gradient -------------------------------------------------------------------------------


def radii(found: Gradients) -> Figure | None:
    """Return the error of every gradient against the spectral radius, or None without several."""
    rows = found.rows
    rows = rows[(rows["slice"] == "estimators") & rows["radius"].notna() & rows["rel_err"].notna()]
    if rows["radius"].nunique() < 2:
        return None
    numbers = ["rel_err", "cosine", "norm_ratio", "spectral_radius", "products"]
    rows = medians(rows, ["case", "target", "label", "radius"], numbers)
    text = Markup(
        "Relative error at one tolerance of both passes, medians over the seeds, against the"
        " spectral radius at z*. Left in the parameters, right in the cell's arguments. From 1 on"
        " plain iteration diverges, and with it what is built on it. Above an error of 1 a gradient"
        " is worse than none."
    )
    return Figure("radii", "Error against the spectral radius", text, lambda: _draw_radii(rows))


def _draw_radii(rows: pd.DataFrame) -> Spec:
    series = Series(variants(rows["label"]), field="label")
    values = [v for v in positive(rows["rel_err"]) if v < 1e3]
    up = log_scale([*values, 1.0], "error of the gradient", "error")
    up["scale"] = alt.Scale(type="log", domain=up["scale"].domain, nice=False, clamp=True)
    across = linear_scale("spectral radius", "number", zero=False)
    data, panels = {}, []
    columns = ["label", "radius", "spectral_radius", "rel_err", "rel_err_lo", "rel_err_hi"]
    columns += ["cosine", "norm_ratio", "products", "number"]
    groups = {
        (str(case), str(target)): here
        for (case, target), here in rows.groupby(["case", "target"], sort=False)
    }
    for position, (case, target) in enumerate(sorted(groups, key=lambda k: (k[0], k[1] == "args"))):
        name = f"radii_{position}"
        data[name] = records(groups[case, target], columns)
        base = alt.Chart(
            alt.NamedData(name=name),
            width=_WIDTH,
            height=_HEIGHT,
            title=f"{case}: {'arguments' if target == 'args' else target}",
        )
        at = {"x": alt.X("spectral_radius:Q", **across), "y": alt.Y("rel_err:Q", **up)}
        line = base.mark_line(strokeWidth=1.5).encode(**at, **series.lines)
        points = base.mark_point(size=42, strokeWidth=1.4).encode(
            **at,
            **series.points(),
            tooltip=[
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("spectral_radius:Q", title="ρ", format=".3f"),
                alt.Tooltip("rel_err:Q", title="error, median", format=".2e"),
                alt.Tooltip("rel_err_lo:Q", title="least", format=".2e"),
                alt.Tooltip("rel_err_hi:Q", title="most", format=".2e"),
                alt.Tooltip("cosine:Q", format=".4f"),
                alt.Tooltip("norm_ratio:Q", title="norm ratio", format=".3f"),
                alt.Tooltip("products:Q"),
                alt.Tooltip("number:Q", title="seeds"),
            ],
        )
        panels.append(panel(alt.layer(line, points)))
    return assemble(panels, data, legends=[series])


def directions(found: Gradients) -> Figure | None:
    """Return cosine and norm ratio of every gradient, a panel a model."""
    rows = found.of("estimators")
    rows = rows[rows["cosine"].notna() & (rows["norm_ratio"] > 0)].copy()
    if rows.empty:
        return None
    text = Markup(
        "Every gradient in the parameters as a direction and a length, a point a seed and radius."
        " The reference is where the dashed lines cross at a cosine of 1; left of 0 a step would"
        " climb. Points at the left or upper edge lie beyond it."
    )
    return Figure("directions", "Cosine and norm ratio", text, lambda: _draw_directions(rows))


def _draw_directions(rows: pd.DataFrame) -> Spec:
    series = Series(variants(rows["label"]), field="label")
    low = max(-1.0, min(0.0, float(np.floor(rows["cosine"].min() * 5) / 5)))
    across = linear_scale("cosine", "number", zero=False)
    across["scale"] = alt.Scale(domain=[low, 1.02], nice=False)
    ratios = rows["norm_ratio"].clip(0.02, 50.0)
    up = log_scale([*ratios, 0.5, 2.0], "norm ratio", "number")
    up["scale"] = alt.Scale(type="log", domain=up["scale"].domain, nice=False, clamp=True)
    data, panels = {}, []
    columns = ["label", "seed", "cosine", "norm_ratio", "rel_err", "spectral_radius", "run_id"]
    for position, (case, here) in enumerate(rows.groupby("case", sort=False)):
        name = f"directions_{position}"
        data[name] = records(here, columns)
        base = alt.Chart(alt.NamedData(name=name), width=_WIDTH, height=_HEIGHT, title=str(case))
        points = base.mark_point(size=44, strokeWidth=1.4, fillOpacity=0.35).encode(
            x=alt.X("cosine:Q", **across),
            y=alt.Y("norm_ratio:Q", **up),
            **series.points(),
            tooltip=[
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("spectral_radius:Q", title="ρ", format=".3f"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("cosine:Q", format=".4f"),
                alt.Tooltip("norm_ratio:Q", title="norm ratio", format=".3f"),
                alt.Tooltip("rel_err:Q", title="error", format=".2e"),
                alt.Tooltip("run_id:N", title="run (deq runs show …)"),
            ],
        )
        upright = base.mark_rule(strokeDash=[3, 3]).encode(
            x=alt.XDatum(0, type="quantitative", **across)
        )
        level = base.mark_rule(strokeDash=[3, 3]).encode(y=alt.YDatum(1, type="quantitative", **up))
        panels.append(panel(alt.layer(upright, level, points)))
    return assemble(panels, data, legends=[series])


# -- certificate ----------------------------------------------------------------------------------


def certificates(found: Gradients) -> Figure | None:
    """Return the certificate against the true error, with the band of a factor 3."""
    rows = certified(found)
    if rows.empty:
        return None
    share = 100 * float(rows["within"].mean())
    text = words.sentence(
        "The error that the backward says of itself against the true one, {} gradients of all"
        " slices. The band is a factor {} to either side: {} % lie in it. Above it the certificate"
        " is too careful, below it too bold.",
        words.count(len(rows)),
        f"{FACTOR:g}",
        f"{share:.1f}",
    )
    return Figure("certificate", "Certificate and true error", text, lambda: _draw_band(rows))


def _draw_band(rows: pd.DataFrame) -> Spec:
    names = list(dict.fromkeys(str(s) for s in rows["slice"]))
    series = Series(_spread_looks(names), field="slice")
    both = [*rows["rel_err"], *rows["certificate"]]
    low, high = min(positive(both)), max(positive(both))
    across = log_scale(both, "true error", "error")
    up = log_scale(both, "certificate", "error")
    for axis in (across, up):
        axis["scale"] = alt.Scale(type="log", domain=axis["scale"].domain, nice=False, clamp=True)
    band = [
        {"rel_err": v, "certificate": v, "least": v / FACTOR, "most": v * FACTOR}
        for v in (low, high)
    ]
    base = alt.Chart(alt.NamedData(name="band"), width=640, height=470)
    area = base.mark_area(opacity=0.16, color="#7A7F87", clip=True).encode(
        x=alt.X("rel_err:Q", **across), y=alt.Y("least:Q", **up), y2="most:Q"
    )
    diagonal = _line("band", {"x": ("rel_err:Q", across), "y": ("certificate:Q", up)}, dash=[4, 4])
    points = (
        alt.Chart(alt.NamedData(name="certificates"))
        .mark_point(size=22, strokeWidth=1.0, fillOpacity=0.3)
        .encode(
            x=alt.X("rel_err:Q", **across),
            y=alt.Y("certificate:Q", **up),
            **series.points(0.8),
            tooltip=[
                alt.Tooltip("slice:N"),
                alt.Tooltip("place:N", title="model"),
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("precision:N"),
                alt.Tooltip("rel_err:Q", title="true error", format=".2e"),
                alt.Tooltip("certificate:Q", format=".2e"),
                alt.Tooltip("factor:Q", format=".2f"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("run_id:N", title="run (deq runs show …)"),
            ],
        )
    )
    rows = rows.assign(place=place(rows))
    columns = ["slice", "place", "label", "precision", "rel_err", "certificate", "factor", "seed"]
    data = {"certificates": records(rows, [*columns, "run_id"]), "band": band}
    return assemble([panel(alt.layer(area, diagonal, points))], data, legends=[series], columns=1)


# -- cost -----------------------------------------------------------------------------------------


def costs(found: Gradients) -> Figure | None:
    """Return the seconds of a training step over one with the Jacobian-free gradient."""
    rows = stepped(found)
    measured = rows.dropna(subset=["ratio"])
    value = "ratio" if len(measured) else "step"
    rows = measured if len(measured) else rows
    if rows.empty:
        return None
    if value == "ratio":
        text = Markup(
            "Seconds of a training step over those of one with jacobian_free, which solves the"
            " same and takes one product in the backward. Medians over rounds and seeds; the thin"
            " lines are quartiles of the rounds, the widest of any seed."
        )
    else:
        text = Markup("Seconds of a training step, medians over rounds and seeds, with quartiles.")
    title = "What a training step costs"
    return Figure("cost", title, text, lambda: _draw_costs(rows, value))


def stepped(found: Gradients) -> pd.DataFrame:
    """Return the training steps: a row a model and gradient, medians over the seeds."""
    rows = found.of("cost")
    numbers = ["ratio", "step", "forward_seconds", "backward_seconds", "rel_err", "cosine"]
    numbers += ["products", "forward_evaluations", "spectral_radius", "rounds"]
    rows = rows.astype(dict.fromkeys(numbers, float))
    frame = medians(rows, ["case", "label"], numbers)
    groups = rows.groupby(["case", "label"], sort=False)
    for name in ("ratio", "step"):
        frame[f"{name}_q1"] = groups[f"{name}_q1"].min().to_numpy()
        frame[f"{name}_q3"] = groups[f"{name}_q3"].max().to_numpy()
    return frame


def _draw_costs(rows: pd.DataFrame, value: str) -> Spec:
    looks = variants(rows["label"])
    series = Series(looks, field="label")
    data, panels = {}, []
    columns = ["label", "ratio", "step", f"{value}_q1", f"{value}_q3", "rel_err", "cosine"]
    columns += ["products", "forward_evaluations"]
    title = "over a step with jacobian_free" if value == "ratio" else "seconds of a step"
    rows = rows.sort_values(value, kind="stable")
    for position, (case, here) in enumerate(rows.groupby("case", sort=False)):
        order = [str(name) for name in here["label"]]
        data[f"cost_{position}"] = records(here, columns)
        axis = linear_scale(title, "number" if value == "ratio" else "seconds")
        base = alt.Chart(
            alt.NamedData(name=f"cost_{position}"),
            width=_WIDTH,
            height=_BAR * len(order),
            title=str(case),
        )
        y = alt.Y(
            "label:N",
            sort=order,
            axis=alt.Axis(title="gradient", labelLimit=230, grid=False),
        )
        bars = base.mark_bar(height=11).encode(
            x=alt.X(f"{value}:Q", **axis),
            y=y,
            fill=series.fill,
            tooltip=[
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("ratio:Q" if value == "ratio" else "step:Q", format=".3~g"),
                alt.Tooltip("step:Q", title="seconds of a step", format=".3~s"),
                alt.Tooltip("rel_err:Q", title="error", format=".2e"),
                alt.Tooltip("cosine:Q", format=".4f"),
                alt.Tooltip("forward_evaluations:Q", title="evaluations"),
                alt.Tooltip("products:Q"),
            ],
        )
        rules = base.mark_rule(strokeWidth=1.4).encode(
            x=alt.X(f"{value}_q1:Q", **axis), x2=f"{value}_q3:Q", y=y
        )
        layers = [bars, rules]
        if value == "ratio":
            one = base.mark_rule(strokeDash=[3, 3]).encode(
                x=alt.XDatum(1, type="quantitative", **axis)
            )
            layers.append(one)
        panels.append(panel(alt.layer(*layers)))
    return assemble(panels, data)
