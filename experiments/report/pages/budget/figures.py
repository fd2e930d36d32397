"""The figures: loss against what it cost, who reaches it at what cost, the budget at test time."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
from markupsafe import Markup

from experiments.report import curves, forest, trainings
from experiments.report.blocks import Figure, Spec
from experiments.report.charts import Series, assemble, linear_scale, log_scale, panel, records
from experiments.report.colours import Look
from experiments.report.curves import Axis, Panel
from experiments.report.forest import Forest
from experiments.report.pages.budget.rows import COSTS, LEVELS, Case, looks

_ACROSS = {
    "work": Axis("evaluations and products", "count", log=True),
    "seconds": Axis("seconds of training", "seconds", log=True),
    "peak": Axis("most bytes in a step", "bytes", log=True),
}
_WIDE = 5.0
_COST = {"work": "Work", "seconds": "Time", "peak": "Memory"}
_LEVELS = {
    name: Look(colour, (), shape)
    for name, colour, shape in zip(
        LEVELS, ("#8FB8DE", "#0072B2", "#D55E00"), ("circle", "square", "diamond"), strict=True
    )
}


def trajectories(found: Sequence[Case]) -> Figure | None:
    """Return loss against evaluations and against seconds, a row of panels a case, or None."""
    shown = [case for case in found if len(case.curves)]
    if not shown:
        return None
    text = Markup(
        "Loss on the test split, the mean over the seeds, of the same trainings against all that"
        " they had evaluated by then (forward and backward, products included) and against the"
        " seconds of their steps. All gradients take the same number of steps from the same"
        " weights through the same batches: a curve that ends further left was cheaper, one that"
        " ends lower learnt more, and the one that is lowest at an abscissa is the best use of that"
        " budget. A click on a name fades the others; the intervals are in the figures below."
    )
    return Figure(
        "trajectories", "Loss against work and time", text, lambda: _draw_trajectories(shown)
    )


def _draw_trajectories(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        rows = case.curves.rename(columns={"arm": "label"})
        rows = rows[(rows["step"] > 0) & rows["loss"].notna()]
        for cost in ("work", "seconds"):
            means = _means(rows, cost)
            up = Axis("test loss", "number", log=_wide(means["y"]))
            panels.append(Panel(_COST[cost], means, _ACROSS[cost], up, subtitle=case.name))
    return curves.draw(panels, looks(shown), width=480, height=320)


def _wide(values: pd.Series) -> bool:
    """Whether numbers spread so far that a logarithmic axis has enough of them to label."""
    return bool(values.min() > 0 and values.max() / values.min() > _WIDE)


def _means(rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the mean loss at each step, at the mean of what the seeds had spent by then."""
    groups = rows.groupby(["label", "step"], sort=False)
    frame = groups.agg(x=(cost, "mean"), y=("loss", "mean")).reset_index()
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted(int(i) for i in ids)).to_numpy()
    return frame[(frame["x"] > 0) & (frame["y"] > 0)]


def costs(found: Sequence[Case]) -> Figure | None:
    """Return what every gradient spends until it reaches the losses asked for, or None."""
    shown = [case for case in found if case.levels]
    if not shown:
        return None
    told = Markup("; ").join(
        Markup("{}: {}").format(
            case.name,
            ", ".join(f"{loss:g} ({name})" for name, loss in case.levels.items()),
        )
        for case in shown
    )
    text = Markup(
        "What it takes to reach a test loss, geometric mean and 95 % interval over the seeds: left"
        " is better. Losses asked for: {}. A gradient that does not reach a loss at every seed has"
        " no point there. Whether two are apart is decided by their ratio seed by seed, in the"
        " table below, which is finer than whether these intervals overlap."
    ).format(told)
    return Figure("costs", "What a loss costs", text, lambda: _draw_costs(shown))


def _draw_costs(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        for cost in COSTS:
            panels.append(
                Forest(
                    _COST[cost],
                    _cost_rows(case, cost),
                    _ACROSS[cost],
                    subtitle=case.name,
                    named=cost == COSTS[0],
                )
            )
    return forest.draw(panels, _LEVELS, row=34, title="to the loss")


def _cost_rows(case: Case, cost: str) -> pd.DataFrame:
    rows = []
    for level in case.levels:
        ranking = case.ranking(level, cost)
        for arm in case.arms:
            value = ranking.value.get(arm) if ranking else None
            here = case.reached[(case.reached["level"] == level) & (case.reached["arm"] == arm)]
            row: dict[str, object] = {
                "name": arm,
                "label": level,
                "runs": sorted(int(i) for i in here["run_id"]),
            }
            if value is not None:
                row |= {
                    "x": value.value,
                    "low": value.low,
                    "high": value.high,
                    "seeds": value.number,
                }
            rows.append(row)
    return pd.DataFrame(rows, columns=["name", "label", "x", "low", "high", "seeds", "runs"])


def memory(found: Sequence[Case]) -> Figure | None:
    """Return the loss in the end against the most bytes of a step, a panel a case, or None."""
    shown = [case for case in found if case.ends[["loss", "peak_bytes"]].notna().all(axis=1).any()]
    if not shown:
        return None
    text = Markup(
        "Where each training ends: test loss after the last step, with its interval over the seeds,"
        " against the most bytes that one of its steps took, parameters left out. Down and left is"
        " better. What is joined has no better one at its left: more memory must buy loss to be"
        " worth it."
    )
    return Figure("memory", "Loss against peak memory", text, lambda: _draw_memory(shown))


def _draw_memory(shown: Sequence[Case]) -> Spec:
    series = Series(looks(shown), "label")
    data, panels = {}, []
    for position, case in enumerate(shown):
        frame = trainings.grouped(
            case.ends.rename(columns={"arm": "label"}), ["label"], ["loss", "peak_bytes"]
        )
        frame = frame.dropna(subset=["loss", "peak_bytes"]).sort_values("peak_bytes")
        frame["low"] = frame["loss_lo"].where(frame["loss_lo"] > 0, frame["loss"])
        best = frame["loss"].cummin()
        front = frame[frame["loss"] <= best]
        name = f"memory_{position}"
        columns = ["label", "peak_bytes", "loss", "low", "loss_hi", "seeds", "runs"]
        data[name] = records(frame, columns)
        data[f"{name}_front"] = records(front, ["peak_bytes", "loss"])
        values = [*frame["loss"], *frame["low"].dropna(), *frame["loss_hi"].dropna()]
        x = alt.X("peak_bytes:Q", **log_scale(frame["peak_bytes"], "most bytes in a step", "bytes"))
        axis = Axis("test loss, after the last step", "number", log=_wide(pd.Series(values)))
        up = axis.encoding(values)
        base = alt.Chart(alt.NamedData(name=name), width=480, height=300, title=case.name)
        line = (
            alt.Chart(alt.NamedData(name=f"{name}_front"))
            .mark_line(interpolate="step-after", strokeDash=[3, 3], color="#7A7F87")
            .encode(x=x, y=alt.Y("loss:Q", **up))
        )
        span = base.transform_filter("isValid(datum.low) && isValid(datum.loss_hi)").mark_rule(
            strokeWidth=1.6
        )
        dots = base.mark_point(size=70, strokeWidth=1.6).encode(
            x=x,
            y=alt.Y("loss:Q", **up),
            **series.points(),
            tooltip=[
                alt.Tooltip("label:N", title="gradient"),
                alt.Tooltip("peak_bytes:Q", title="bytes", format=".4~s"),
                alt.Tooltip("loss:Q", format=".4~g"),
                alt.Tooltip("low:Q", title="from", format=".4~g"),
                alt.Tooltip("loss_hi:Q", title="to", format=".4~g"),
                alt.Tooltip("runs:N", title="runs (deq runs show …)"),
            ],
        )
        spans = span.encode(
            x=x,
            y=alt.Y("low:Q", **up),
            y2="loss_hi:Q",
            color=series.colour,
            opacity=series.seen(0.7),
        )
        panels.append(panel(alt.layer(line, spans, dots)))
    return assemble(panels, data, legends=[series])


def at_test_time(found: Sequence[Case]) -> Figure | None:
    """Return accuracy or perplexity against fixed evaluations at test time, or None."""
    shown = [case for case in found if len(_budget_rows(case))]
    if not shown:
        return None
    text = Markup(
        "The trained models with a fixed number of evaluations instead of a tolerance, means over"
        " the seeds with their intervals. Where a curve is flat the equilibrium is there; a"
        " gradient whose model is good at few evaluations has trained one that is cheap to use,"
        " and one whose curve comes back up has trained the iteration, not its limit."
    )
    return Figure("budgets", "The budget at test time", text, lambda: _draw_budgets(shown))


def _budget_rows(case: Case) -> pd.DataFrame:
    name = f"budget.{case.measure or 'loss'}"
    rows = case.budgets[case.budgets["name"] == name].rename(columns={"arm": "label"})
    return trainings.interpolated(rows, ["label"])


def _draw_budgets(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        rows = _budget_rows(case)
        ticks = sorted(set(rows["x"]))
        panels.append(
            Panel(
                case.name,
                rows,
                Axis("evaluations at test time", "count", log=True, ticks=ticks),
                Axis(f"test {case.measure or 'loss'}", "number", log=_wide(rows["y"])),
            )
        )
    return curves.draw(panels, looks(shown), width=480, height=320)


_SPENT = {
    "forward evaluations": Look("#0072B2"),
    "backward products": Look("#D55E00"),
    "the rest of the work": Look("#B9BDC6"),
}


def spent(found: Sequence[Case]) -> Figure | None:
    """Return what a training step takes, forward and backward, by gradient, or None."""
    shown = [case for case in found if case.ends["evaluations"].notna().any()]
    if not shown:
        return None
    text = Markup(
        "What a step evaluates on average over the whole training. Gradients that differ only in"
        " the backward differ in the first part too where they train models that are harder or"
        " easier to solve. The rest: evaluations that the backward makes for its graph, and"
        " Jacobian products of the forward."
    )
    return Figure("spent", "Where a step's work goes", text, lambda: _draw_spent(shown))


def _draw_spent(shown: Sequence[Case]) -> Spec:
    series = Series(_SPENT, "part")
    data, panels = {}, []
    for position, case in enumerate(shown):
        ends = case.ends.assign(per_step=case.ends["work"] / case.ends["steps"])
        frame = trainings.grouped(ends, ["arm"], ["evaluations", "products", "per_step"])
        rows = []
        for _, row in frame.iterrows():
            parts = [row["evaluations"], row["products"]]
            parts.append(max(row["per_step"] - row["evaluations"] - row["products"], 0.0))
            for turn, (part, size) in enumerate(zip(_SPENT, parts, strict=True)):
                rows.append(
                    {"name": row["arm"], "part": part, "size": size, "order": turn}
                    | {"runs": row["runs"]}
                )
        name = f"spent_{position}"
        data[name] = records(pd.DataFrame(rows), ["name", "part", "size", "order", "runs"])
        names = list(frame["arm"])
        bars = (
            alt.Chart(alt.NamedData(name=name), width=300, height=20 * len(names), title=case.name)
            .mark_bar(height=13)
            .encode(
                x=alt.X("size:Q", stack="zero", **linear_scale("a training step", "count")),
                y=alt.Y(
                    "name:N",
                    sort=names,
                    scale=alt.Scale(domain=names),
                    axis=alt.Axis(title=None, labelLimit=215, minExtent=215),
                ),
                fill=series.fill,
                order="order:Q",
                opacity=series.seen(),
                tooltip=[
                    alt.Tooltip("name:N", title="gradient"),
                    alt.Tooltip("part:N"),
                    alt.Tooltip("size:Q", title="a step", format=".3~g"),
                    alt.Tooltip("runs:N", title="runs (deq runs show …)"),
                ],
            )
        )
        panels.append(panel(bars))
    return assemble(panels, data, legends=[series])
