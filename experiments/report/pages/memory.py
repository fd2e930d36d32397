"""The page of the experiment ``memory``: bytes of a step, phase by phase, and what grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import sections, words
from experiments.report.blocks import (
    Block,
    Card,
    Cards,
    Column,
    Figure,
    Prose,
    Section,
    Spec,
    Table,
)
from experiments.report.charts import (
    Series,
    assemble,
    linear_scale,
    log_scale,
    number,
    panel,
    positive,
    records,
)
from experiments.report.colours import Look, gradient_looks
from experiments.report.frames import Frames, as_mapping
from experiments.report.pages.page import Page
from experiments.report.words import listed, sentence, strong

__all__ = ["page"]

# The aims, and how far from one a thing may be that is said to be there.
KEPT, GRAPH, LINEAR, OPTIMUM, EXTRA = 1.02, 1.1, 0.999, 1.15, 1.05
# A graph of fewer states than this is no larger than what any solver holds.
SMALL = 3
_BYTES = (
    "forward_peak", "held", "backward_peak", "left", "kept", "history", "adjoint_history",
    "parameters", "inputs", "gradients", "graph", "evaluation", "state",
)  # fmt: skip
_COUNTS = ("calls", "calls_backward")
_PLAIN = "picard"
_WIDTH, _HEIGHT, _ROW, _BARS = 400, 290, 17, 560


@dataclass(frozen=True)
class Case:
    """A model on a batch.

    Attributes
    ----------
    steps
        One row a gradient, solver and depth: medians over its runs. ``segments`` is a number where
        the gradient keeps so many; ``peak`` is the most of the whole step.
    """

    name: str
    steps: pd.DataFrame

    @cached_property
    def fixed(self) -> pd.DataFrame:
        """Networks of so many layers."""
        return self.steps[self.steps["fixed_budget"]]

    @cached_property
    def lines(self) -> dict[str, pd.DataFrame]:
        """By gradient behind plain iteration, the rows by depth; two depths at least."""
        plain = self.fixed[self.fixed["segments"].isna() & (self.fixed["solver_name"] == _PLAIN)]
        groups = plain.sort_values("depth").groupby("gradient", sort=False)
        return {str(name): rows for name, rows in groups if rows["depth"].nunique() > 1}

    @cached_property
    def behind(self) -> pd.DataFrame:
        """The rows at the equilibrium behind each solver, by depth."""
        rows = self.fixed[self.fixed["method"] == "implicit"]
        return rows.sort_values("depth", kind="stable")

    @cached_property
    def sweep(self) -> pd.DataFrame:
        """The rows of so many segments at the largest depth that has several."""
        rows = self.fixed.dropna(subset=["segments"])
        counts = rows.groupby("depth")["segments"].nunique()
        deepest = counts.index[counts > 2].max()  # NaN, which no depth is, if there is none
        found: pd.DataFrame = rows[rows["depth"] == deepest]
        return found.sort_values("segments")


def page(frames: Frames) -> Page:
    """Return what the runs of ``memory`` say."""
    steps = _steps(frames)
    cases = [Case(str(name), rows) for name, rows in steps.groupby("case", sort=False)]
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if made := [_card(case) for case in cases if case.lines or len(case.sweep)]:
        blocks.append(Cards(made))
    parts = [
        Section("The answer", blocks),
        _section("Against the evaluations", [_depths(cases)]),
        _section("Phase by phase", [_phases(cases), _table(steps)]),
        _section("What solvers hold", [_histories(cases)]),
        _section("Segments", [_sweeps(cases)]),
        _section("Beside what is published", [_published(cases)]),
        _failures(frames),
        sections.measured(replace(frames, points=frames.points.iloc[:0]), _definitions()),
    ]
    return Page(
        "What a gradient keeps in memory",
        "How many bytes does a training step take, and what do they grow with?",
        [part for part in parts if part is not None],
        {"points": frames.points, "runs": frames.runs},
    )


def _section(title: str, blocks: Sequence[Block | None]) -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there) if there else None


def _failures(frames: Frames) -> Section:
    """Return what failed: a network of few layers is not meant to be at the equilibrium."""
    free = frames.points[~frames.points["fixed_budget"]]
    section = sections.failures(replace(frames, points=free))
    if len(frames.points) and isinstance(section.blocks[0], Prose):
        return Section(section.title, [Prose([Markup("Nothing: every run completed.")])])
    return section


def _named(options: Mapping[str, Any]) -> str:
    """Return a gradient as the page calls it, by those options that decide its memory."""
    name = str(options.get("name", "?"))
    segments = options.get("segments")
    if options.get("precondition"):
        return f"{name} (preconditioned)"
    if segments == "sqrt":
        return f"{name} (√L segments)"
    if isinstance(segments, str):
        return f"{name} ({segments})"
    adjoint = as_mapping(options.get("solver"))
    if options.get("certificate") is False:
        return f"{name} (no certificate)"
    if adjoint.get("restart"):
        return f"{name} (restarted)"
    return f"{name} ({adjoint['name']})" if adjoint.get("name", "gmres") != "gmres" else name


def _steps(frames: Frames) -> pd.DataFrame:
    """Return one row a case, gradient, solver and depth, with the medians over the runs."""
    points = frames.points.copy()
    extra = [as_mapping(value) for value in points["extra"]]
    found = [as_mapping(e.get("memory")) for e in extra]
    options = [as_mapping(e.get("gradient")) for e in extra]
    for name in (*_BYTES, *_COUNTS):
        points[name] = pd.to_numeric(pd.Series([f.get(name) for f in found], index=points.index))
    points["depth"] = pd.to_numeric(pd.Series([e.get("depth") for e in extra], index=points.index))
    kept = [o.get("segments") for o in options]
    points["segments"] = [float(k) if isinstance(k, int) else math.nan for k in kept]
    points["gradient"] = [_named(o) for o in options]
    points["method"] = [str(o.get("name", "?")) for o in options]
    points = points.dropna(subset=["held", "backward_peak"])
    points["case"] = [
        _case(row, several=points["device"].nunique() > 1) for _, row in points.iterrows()
    ]
    points["peak"] = points[["forward_peak", "backward_peak"]].max(axis=1)
    points["beyond"] = points["backward_peak"] - points["held"]
    points["beyond"] -= points["adjoint_history"].fillna(0)
    points["explicit"] = points["state"] + points["inputs"]
    points["kept_ratio"] = (points["kept"] + points["inputs"]) / points["explicit"]
    points["graph_ratio"] = points["beyond"] / points["evaluation"]
    # The last iterate of a network is judged by one evaluation more, which is none of its layers.
    layers = points["depth"].where(points["fixed_budget"], points["evaluations"])
    points["extra_forward"] = points["calls_backward"] / layers
    numbers = [
        *_BYTES, *_COUNTS, "peak", "beyond", "explicit", "kept_ratio", "graph_ratio",
        "extra_forward", "evaluations", "products", "forward_seconds", "backward_seconds",
    ]  # fmt: skip
    by = ["case", "fixed_budget", "solver", "solver_name", "gradient", "method", "segments"]
    by += ["depth", "device", "batch", "model"]
    points = points.astype(dict.fromkeys(numbers, float))
    groups = points.groupby(by, sort=False, dropna=False)
    frame = groups[numbers].median()
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted({int(run) for run in ids}))
    frame["met"] = groups["met"].all()
    return frame.reset_index()


def _case(row: pd.Series, *, several: bool) -> str:
    text = f"{row['model']}, {row['batch']:.0f} × {row['dim']:,.0f} numbers"
    return f"{text}, on {row['device']}" if several else text


# What is said -----------------------------------------------------------------------------------


def _card(case: Case) -> Card:
    one = case.fixed.iloc[0]
    subtitle = sentence(
        "the state takes {}, one evaluation's graph {}",
        words.size(one["state"]),
        words.size(one["graph"]),
    )
    parts = [
        Prose(_growth(case), "By evaluations", listed=True),
        Prose(_aims(case), "Aims", listed=True),
    ]
    there = [part for part in parts if part.paragraphs]
    return Card(case.name, subtitle, _headline(case), there)


def _headline(case: Case) -> Markup:
    """Return how the bytes at the largest common depth compare, the least first."""
    if not case.lines:
        return sentence("{} counts of segments.", len(case.sweep))
    depth = min(rows["depth"].max() for rows in case.lines.values())
    at = {name: _at(rows, depth) for name, rows in case.lines.items()}
    ranked = sorted((row["peak"], name) for name, row in at.items() if row is not None)
    said = [sentence("{} {}", strong(name), words.size(size)) for size, name in ranked]
    return sentence(
        "A step through {} evaluations takes at most: {}.", words.count(depth), listed(said)
    )


def _at(rows: pd.DataFrame, depth: float) -> pd.Series | None:
    here = rows[rows["depth"] == depth]
    return None if here.empty else here.iloc[0]


def _growth(case: Case) -> list[Markup]:
    said = []
    for name, rows in case.lines.items():
        first, last = rows.iloc[0], rows.iloc[-1]
        slope = (last["held"] - first["held"]) / (last["depth"] - first["depth"])
        ends = f"{words.count(first['depth'])} to {words.count(last['depth'])}"
        if abs(slope) < 0.01 * last["state"]:
            text = sentence(
                "{}: {} between forward and backward, from {} evaluations alike",
                strong(name),
                words.size(last["held"]),
                ends,
            )
        else:
            power = math.log(last["held"] / first["held"]) / math.log(
                last["depth"] / first["depth"]
            )
            text = sentence(
                "{}: {} to {} between forward and backward from {} evaluations (power {})",
                strong(name),
                words.size(first["held"]),
                words.size(last["held"]),
                ends,
                words.digits(power, 2),
            )
        said.append(text + Markup("."))
    return said


@dataclass(frozen=True)
class Aim:
    """An aim: what it is about, what was reached, and whether that is enough."""

    text: str
    value: str
    met: bool


def _aims(case: Case) -> list[Markup]:
    return [
        sentence("{}: {}, {}.", aim.text, strong(aim.value), "reached" if aim.met else "missed")
        for aim in _reached(case)
    ]


def _reached(case: Case) -> list[Aim]:
    """Return the aims that the rows of a case are about."""
    found = []
    plain = case.lines.get("implicit")
    if plain is not None:
        worst = float(plain["kept_ratio"].max())
        found.append(
            Aim(
                f"implicit keeps z* and the arguments, {KEPT} times at most",
                f"{worst:.3f} times",
                worst <= KEPT,
            )
        )
    bare = case.lines.get("implicit (no certificate)", plain)
    if bare is not None:
        last = bare.iloc[-1]
        ratio = float(last["graph_ratio"])
        text = (
            f"the backward of {last['gradient']}, beyond what was held and the adjoint's own"
            " history, against one evaluation with its graph, a product and the gradients,"
            f" {GRAPH} times at most"
        )
        if last["graph"] < SMALL * last["state"]:
            few = words.digits(last["graph"] / last["state"], 2)
            text += f" (the graph is {few} states, which the vectors of a linear solve outweigh)"
        found.append(Aim(text, f"{ratio:.2f} times", ratio <= GRAPH))
    unrolled = case.lines.get("unrolled")
    if unrolled is not None and len(unrolled) > 2:
        fit = _squared(unrolled["depth"], unrolled["held"])
        text = f"unrolled is linear in the evaluations, R² above {LINEAR}"
        found.append(Aim(text, f"{fit:.5f}", fit > LINEAR))
    if (best := _optimum(case)) is not None:
        text = f"peak at √L segments, {OPTIMUM} times the least of all counts at most"
        row = case.sweep.iloc[0]
        if row["graph"] >= SMALL * row["state"]:
            few = row["graph"] / row["state"]
            at = math.sqrt(few * row["depth"])
            text += (
                f" (√L is for evaluations that keep one state; here it is {words.digits(few, 2)},"
                f" and the least near {at:.0f} segments)"
            )
        found.append(Aim(text, f"{best:.2f} times", best <= OPTIMUM))
    for name, rows in case.lines.items():
        if rows["method"].iloc[0] != "checkpointed":
            continue
        row = rows.iloc[-1]
        # The backward of each evaluation runs it once more; none is run twice.
        if "√L" in name:
            more = float(row["extra_forward"])
            text = f"evaluations again in the backward of {name}, {EXTRA} a forward one at most"
            found.append(Aim(text, f"{more:.3f}", more <= EXTRA))
        elif len(rows) > 2:
            deep = rows[rows["depth"] > 1]
            fit = _squared(np.log2(deep["depth"]), deep["peak"])
            text = f"{name} grows as log L, R² above 0.9"
            found.append(Aim(text, f"{fit:.3f}", fit > 0.9))
    back = case.lines.get("reversible")
    if back is not None:
        change = float(back["held"].max() / back["held"].min())
        text = "reversible holds the same at every depth, within 1 %"
        found.append(Aim(text, f"{change:.3f} times", change <= 1.01))
    return found


def _squared(x: Any, y: Any) -> float:
    """Return R² of a straight line."""
    return float(np.corrcoef(np.asarray(x, float), np.asarray(y, float))[0, 1] ** 2)


def _optimum(case: Case) -> float | None:
    """Return the peak of the count of segments nearest √L over the least of all counts."""
    if case.sweep.empty:
        return None
    depth = float(case.sweep["depth"].iloc[0])
    near = (np.log(case.sweep["segments"]) - 0.5 * math.log(depth)).abs()
    return float(case.sweep["peak"].to_numpy()[near.argmin()] / case.sweep["peak"].min())


# What is drawn ----------------------------------------------------------------------------------


def _tips(*first: alt.Tooltip) -> list[alt.Tooltip]:
    sizes = {
        "forward_peak": "most, forward",
        "held": "between",
        "backward_peak": "most, backward",
        "history": "history of the solver",
        "adjoint_history": "history of the adjoint's",
    }
    return [
        *first,
        alt.Tooltip("depth:Q", title="evaluations"),
        *(alt.Tooltip(f"{k}:Q", title=f"{v}, bytes", format=".4~s") for k, v in sizes.items()),
        alt.Tooltip("runs:N", title="runs (deq runs show …)"),
    ]


_DRAWN = ["gradient", "solver", "depth", "forward_peak", "held", "backward_peak", "peak"]
_DRAWN += ["history", "adjoint_history", "runs"]


def _depths(cases: Sequence[Case]) -> Figure | None:
    """Return bytes against evaluations, what is held and the most at once, or None."""
    shown = [case for case in cases if case.lines]
    if not shown:
        return None
    text = Markup(
        "A step of the layer behind plain iteration: what lives between forward and backward, and"
        " the most at once in the whole step, the gradients of the parameters included. Parameters"
        " and the layer's inputs, which were there before, are in neither. Both axes are"
        " logarithmic. After few evaluations z is no equilibrium yet, and its adjoint may take many"
        " products, which GMRES remembers."
    )
    return Figure("depth", "Bytes against evaluations", text, lambda: _draw_depths(shown))


def _draw_depths(shown: Sequence[Case]) -> Spec:
    names = list(dict.fromkeys(name for case in shown for name in case.lines))
    series = Series(gradient_looks(names), "gradient")
    data, panels = {}, []
    for position, case in enumerate(shown):
        rows = pd.concat(case.lines.values())
        data[f"steps_{position}"] = records(rows, _DRAWN)
        deepest = float(rows["depth"].max())
        across = log_scale(rows["depth"], "evaluations of f, forward", "count", _doubling(deepest))
        both = [*positive(rows["held"]), *positive(rows["peak"])]
        up = log_scale(both, "bytes", "bytes")
        for column, what in (("held", "between forward and backward"), ("peak", "most at once")):
            title = [case.name, what]
            panels.append(
                _lines(f"steps_{position}", title, across, alt.Y(f"{column}:Q", **up), series)
            )
    return assemble(panels, data, legends=[series])


def _doubling(most: float) -> list[float]:
    return [float(2**k) for k in range(math.floor(math.log2(max(most, 1))) + 1)]


def _lines(
    data: str, title: Sequence[str], across: Mapping[str, Any], up: alt.Y, series: Series
) -> Spec:
    heading = alt.TitleParams(text=title[0], subtitle=title[1])
    base = alt.Chart(alt.NamedData(name=data), width=_WIDTH, height=_HEIGHT, title=heading)
    x = alt.X("depth:Q", **across)
    line = base.mark_line(strokeWidth=2.2).encode(x=x, y=up, **series.lines)
    dots = base.mark_point(size=45, strokeWidth=1.6).encode(
        x=x,
        y=up,
        stroke=series.stroke,
        fill=series.fill,
        shape=series.shape,
        opacity=series.seen(),
        tooltip=_tips(alt.Tooltip(f"{series.name}:N")),
    )
    return panel(alt.layer(line, dots))


_PARTS = {
    "held between forward and backward": Look("#6A6FE0"),
    "the solver's history": Look("#D55E00"),
    "the rest": Look("#B9BDC6"),
}
_STACKED = tuple(_PARTS)


def _phases(cases: Sequence[Case]) -> Figure | None:
    """Return the peaks of both phases in parts, at the largest depth, or None."""
    rows = {case.name: _parts(case) for case in cases}
    rows = {name: found for name, found in rows.items() if len(found)}
    if not rows:
        return None
    text = Markup(
        "The most at once in each phase, at the largest depth: what the forward left for the"
        " backward, the history of the solver that runs (of the adjoint's, backward), and the"
        " rest: in the backward the graph of one evaluation, or of a segment, with what its"
        " products need, and the gradients. A basis that grows is there twice while it is copied:"
        " the rest includes that. Logarithmic axes would not add up, so each panel is linear."
    )
    return Figure("phases", "Peaks, in parts", text, lambda: _draw_phases(rows))


def _parts(case: Case) -> pd.DataFrame:
    made = []
    whole = case.steps[case.steps["segments"].isna()]
    deepest = whole.sort_values("depth").groupby(["fixed_budget", "gradient", "solver"], sort=False)
    for _, rows in deepest:
        row = rows.iloc[-1]
        plain = row["solver_name"] == _PLAIN and row["method"] != "implicit"
        name = row["gradient"] if plain else f"{row['gradient']}, {row['solver']}"
        for phase in ("forward", "backward"):
            held = row["held"] if phase == "backward" else 0.0
            peak, history = row[f"{phase}_peak"], row["history"]
            if phase == "backward":
                history = row["adjoint_history"]
            # A history may be freed before the peak.
            history = min(number(history) or 0.0, peak - held)
            parts = (held, history, peak - held - history)
            for part, size in zip(_PARTS, parts, strict=True):
                made.append(
                    {
                        "step": f"{name}: {phase}",
                        "part": part,
                        "size": size,
                        "peak": peak,
                        "depth": row["depth"],
                        "order": list(_PARTS).index(part),
                        "runs": row["runs"],
                    }
                )
    columns = ["step", "part", "size", "peak", "depth", "order", "runs"]
    return pd.DataFrame(made, columns=columns)


def _draw_phases(found: Mapping[str, pd.DataFrame]) -> Spec:
    series = Series(_PARTS, "part")
    data, panels = {}, []
    for position, (name, rows) in enumerate(found.items()):
        data[f"parts_{position}"] = records(rows, list(rows.columns))
        names = list(dict.fromkeys(rows["step"]))
        x = alt.X("size:Q", stack="zero", **linear_scale("bytes", "bytes"))
        y = alt.Y(
            "step:N",
            sort=names,
            scale=alt.Scale(domain=names),
            axis=alt.Axis(title=None, labelLimit=270, minExtent=270, grid=False),
        )
        bars = (
            alt.Chart(
                alt.NamedData(name=f"parts_{position}"),
                width=_BARS,
                height=_ROW * len(names),
                title=name,
            )
            .mark_bar(height=12)
            .encode(
                x=x,
                y=y,
                fill=series.fill,
                order="order:Q",
                opacity=series.seen(),
                tooltip=[
                    alt.Tooltip("step:N"),
                    alt.Tooltip("part:N"),
                    alt.Tooltip("size:Q", title="bytes", format=".4~s"),
                    alt.Tooltip("peak:Q", title="of", format=".4~s"),
                    alt.Tooltip("depth:Q", title="evaluations, at most"),
                    alt.Tooltip("runs:N", title="runs (deq runs show …)"),
                ],
            )
        )
        panels.append(panel(bars))
    return assemble(panels, data, legends=[series], columns=1, spacing=28)


def _histories(cases: Sequence[Case]) -> Figure | None:
    """Return the forward's peak in parts by evaluations, a panel a solver, or None."""
    shown = [case for case in cases if case.behind["solver"].nunique() > 1]
    if not shown:
        return None
    text = Markup(
        "Under the implicit gradient what is held between forward and backward does not grow with"
        " the evaluations, but what the solver holds while it runs may: stacked, and with the rest"
        " the most at once in the forward. Preconditioned, what the solver learnt is held until"
        " the backward."
    )
    return Figure(
        "histories", "The forward, with the solver's history", text, lambda: _draw_histories(shown)
    )


def _draw_histories(shown: Sequence[Case]) -> Spec:
    series = Series(_PARTS, "part")
    data, panels = {}, []
    for position, case in enumerate(shown):
        rows = case.behind[case.behind["depth"] > 1]
        top = float(rows["forward_peak"].max())
        groups = rows.groupby(["solver", "gradient"], sort=False)
        drawn = [(names, here) for names, here in groups if here["depth"].nunique() > 1]
        for turn, ((solver, gradient), here) in enumerate(drawn):
            name = f"behind_{position}_{turn}"
            data[name] = records(_stack(here), ["depth", "part", "size", "order", "peak", "runs"])
            own = "" if gradient == "implicit" else str(gradient).removeprefix("implicit ")
            title = alt.TitleParams(text=f"{solver} {own}".strip(), subtitle=case.name)
            panels.append(_areas(name, title, here, top, series))
    return assemble(panels, data, legends=[series], columns=4, spacing=24)


def _stack(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the parts of the forward's peak, each a row."""
    held = rows[["held", "forward_peak"]].min(axis=1)
    # A solver that hands its history over holds it, and is not counted twice.
    beyond = rows["held"] - rows["state"]
    history = (rows["history"].fillna(0.0) - beyond.clip(lower=0.0)).clip(lower=0.0)
    history = pd.concat([history, rows["forward_peak"] - held], axis=1).min(axis=1)
    sizes = (held, history, rows["forward_peak"] - held - history)
    made = [
        rows[["depth", "runs"]].assign(part=part, size=size, peak=rows["forward_peak"], order=order)
        for order, (part, size) in enumerate(zip(_STACKED, sizes, strict=True))
    ]
    return pd.concat(made, ignore_index=True)


def _areas(
    data: str, title: alt.TitleParams, rows: pd.DataFrame, top: float, series: Series
) -> Spec:
    ticks = _doubling(float(rows["depth"].max()))[1::2]
    across = log_scale(rows["depth"], "evaluations", "count", ticks)
    up = linear_scale("bytes", "bytes")
    up["scale"] = alt.Scale(domain=[0, top], nice=True)
    base = alt.Chart(alt.NamedData(name=data), width=185, height=190, title=title)
    areas = base.mark_area().encode(
        x=alt.X("depth:Q", **across),
        y=alt.Y("size:Q", stack="zero", **up),
        fill=series.fill,
        order="order:Q",
        opacity=series.seen(0.85),
        tooltip=[
            alt.Tooltip("depth:Q", title="evaluations"),
            alt.Tooltip("part:N"),
            alt.Tooltip("size:Q", title="bytes", format=".4~s"),
            alt.Tooltip("peak:Q", title="of", format=".4~s"),
            alt.Tooltip("runs:N", title="runs (deq runs show …)"),
        ],
    )
    return panel(areas)


def _sweeps(cases: Sequence[Case]) -> Figure | None:
    """Return the peak against the number of segments with its fit, or None."""
    shown = [case for case in cases if len(case.sweep)]
    if not shown:
        return None
    said = [_fitted(case) for case in shown]
    text = Markup(
        "The most at once in a step that keeps the state at the start of each of S segments and"
        " runs a segment again for its backward. The curve is the fit a + b S + c L/S; the rule is"
        " √L. "
    )
    return Figure(
        "segments",
        "Peak against the number of segments",
        text + Markup(" ").join(said),
        lambda: _draw_sweeps(shown),
    )


def _fit(case: Case) -> tuple[float, float, float, float]:
    """Return a, b, c of peak ≈ a + b S + c L/S, and R²."""
    S = case.sweep["segments"].to_numpy(float)
    L = float(case.sweep["depth"].iloc[0])
    peak = case.sweep["peak"].to_numpy(float)
    basis = np.stack([np.ones_like(S), S, L / S], axis=1)
    a, b, c = np.linalg.lstsq(basis, peak, rcond=None)[0]
    rest = peak - basis @ np.array([a, b, c])
    whole = peak - peak.mean()
    return float(a), float(b), float(c), 1 - float(rest @ rest) / float(whole @ whole)


def _fitted(case: Case) -> Markup:
    _, b, c, fit = _fit(case)
    best = case.sweep.sort_values("peak", kind="stable").iloc[0]
    depth = float(case.sweep["depth"].iloc[0])
    text = sentence(
        "On {}, of {} evaluations: the least is {} at {} segments (√L = {}); R² of the fit {}",
        case.name,
        words.count(depth),
        words.size(best["peak"]),
        words.count(best["segments"]),
        words.digits(math.sqrt(depth), 2),
        f"{fit:.3f}",
    )
    if b > 0 and c > 0:
        text += sentence(", its least at {} segments", words.digits(math.sqrt(c * depth / b), 2))
    return text + Markup(".")


def _draw_sweeps(shown: Sequence[Case]) -> Spec:
    data, panels = {}, []
    look = gradient_looks(["checkpointed"])["checkpointed"].colour
    for position, case in enumerate(shown):
        depth = float(case.sweep["depth"].iloc[0])
        a, b, c, _ = _fit(case)
        curve = np.geomspace(case.sweep["segments"].min(), case.sweep["segments"].max(), 80)
        data[f"sweep_{position}"] = records(case.sweep, [*_DRAWN, "segments", "extra_forward"])
        data[f"fit_{position}"] = [
            {"segments": float(s), "peak": float(a + b * s + c * depth / s)} for s in curve
        ]
        across = log_scale(case.sweep["segments"], "segments S", "count", _doubling(depth))
        up = linear_scale("most at once", "bytes")
        x, y = alt.X("segments:Q", **across), alt.Y("peak:Q", **up)
        base = alt.Chart(
            alt.NamedData(name=f"sweep_{position}"),
            width=_WIDTH,
            height=_HEIGHT,
            title=f"{case.name}, {depth:.0f} evaluations",
        )
        points = base.mark_point(size=60, strokeWidth=1.6, opacity=1).encode(
            x=x,
            y=y,
            stroke=alt.value(look),
            fill=alt.value(look),
            tooltip=_tips(
                alt.Tooltip("segments:Q"),
                alt.Tooltip("extra_forward:Q", title="extra forward", format=".3f"),
            ),
        )
        line = (
            alt.Chart(alt.NamedData(name=f"fit_{position}"))
            .mark_line(strokeWidth=1.6, opacity=0.6)
            .encode(x=x, y=y, stroke=alt.value(look))
        )
        rule = base.mark_rule(strokeDash=[3, 3]).encode(
            x=alt.XDatum(math.sqrt(depth), type="quantitative", **across)
        )
        panels.append(panel(alt.layer(rule, line, points)))
    return assemble(panels, data)


# Tables -----------------------------------------------------------------------------------------


def _table(steps: pd.DataFrame) -> Table | None:
    if steps.empty:
        return None
    frame = steps.copy()
    frame["fixed"] = ["" if fixed else "to a tolerance" for fixed in frame["fixed_budget"]]
    frame["met"] = frame["fixed_budget"] | frame["met"]
    columns = [
        Column("case", "model"),
        Column("gradient", "gradient"),
        Column("segments", "segments", "count"),
        Column("solver", "solver"),
        Column("depth", "evaluations", "count", "", "of f, forward; at most, to a tolerance"),
        Column("evaluations", "taken", "count"),
        Column("forward_peak", "most, forward", "bytes"),
        Column("held", "between", "bytes"),
        Column("backward_peak", "most, backward", "bytes"),
        Column("history", "history", "bytes", "", "of the forward solver; it is in its peak"),
        Column("adjoint_history", "adjoint's", "bytes", "", "history of the adjoint's solver"),
        Column("beyond", "beyond", "bytes", "", "backward, beyond what was held and history"),
        Column(
            "graph_ratio", "per evaluation", "number", "", "beyond / one evaluation and product"
        ),
        Column("extra_forward", "again", "number", "", "evaluations in the backward, of a forward"),
        Column("forward_seconds", "forward", "seconds"),
        Column("backward_seconds", "backward", "seconds"),
    ]
    if frame["segments"].isna().all():
        columns = [c for c in columns if c.key != "segments"]
    text = Markup("Every measured step. Seconds are those of steps that nobody counts.")
    return Table("steps", "All steps", text, columns, frame, folded=True)


@dataclass(frozen=True)
class Claim:
    """Something published, and what is measured here beside it."""

    who: str
    claim: str
    published: str
    ours: str
    where: str


def _published(cases: Sequence[Case]) -> Table | None:
    claims = [claim for case in cases for claim in _claims(case)]
    if not claims:
        return None
    frame = pd.DataFrame([claim.__dict__ for claim in claims])
    columns = [
        Column("who", "published by"),
        Column("claim", "what"),
        Column("published", "published"),
        Column("ours", "here"),
        Column("where", "measured on"),
    ]
    text = Markup(
        "Ratios of peaks. Theirs are of whole models, as their frameworks report them; here it is"
        " the equilibrium layer alone, without parameters and inputs, whose bytes are counted."
    )
    return Table("published", "Claims, and what is measured here", text, columns, frame)


def _claims(case: Case) -> list[Claim]:
    found = []
    unrolled = case.fixed[case.fixed["method"] == "unrolled"]
    solved = case.steps[~case.steps["fixed_budget"] & (case.steps["method"] == "implicit")]
    if len(unrolled) and len(solved):
        row = unrolled.sort_values("depth").iloc[-1]
        shares = solved["peak"] / row["peak"]
        who = zip(shares, solved["gradient"], solved["solver"], strict=True)
        ours = [f"{share:.3f} ({gradient}; {solver})" for share, gradient, solver in who]
        between = solved["held"] / row["held"]
        found.append(
            Claim(
                "Bai et al. 2019",
                "memory of the equilibrium over that of 16 tied layers: the most in a step, and"
                " what is held",
                "0.162 (1.1 GB of 6.8)",
                listed(ours) + f"; {between.max():.4f} held",
                f"{case.name}, {row['depth']:.0f} layers",
            )
        )
    plain = case.lines.get("unrolled")
    if plain is None:
        return found
    deep = plain.iloc[-1]
    where = f"{case.name}, {deep['depth']:.0f} layers"
    if (implicit := case.lines.get("implicit")) is not None:
        found.append(
            Claim(
                "Bai et al. 2019",
                "memory does not grow with the evaluations: what is held at the most over at the"
                " fewest",
                "constant",
                f"{implicit['held'].iloc[-1] / implicit['held'].iloc[0]:.3f}",
                where,
            )
        )
    for name, rows in case.lines.items():
        depth = min(rows["depth"].max(), deep["depth"])
        here, whole = _at(rows, depth), _at(plain, depth)
        if here is None or whole is None or here["method"] not in ("checkpointed", "reversible"):
            continue
        ratio = f"{here['peak'] / whole['peak']:.3f}"
        again = f"{here['extra_forward']:.2f} evaluations again for each"
        where = f"{case.name}, {depth:.0f} layers"
        ideal = 2 / math.sqrt(depth)
        if "√L" in name:
            found.append(
                Claim(
                    "Chen et al. 2016",
                    "√L segments over all activations",
                    f"2√L / L = {ideal:.3f} here; 0.146 (7 GB of 48), 1000 layers, 30 % more time",
                    f"{ratio}, {again}",
                    where,
                )
            )
        elif here["method"] == "checkpointed":
            found.append(
                Claim(
                    "Chen et al. 2016",
                    "recursive: memory of order log L for log L forwards",
                    f"log₂ L = {math.log2(depth):.0f} forwards at most",
                    f"{ratio}, {again}",
                    where,
                )
            )
        else:
            found.append(
                Claim(
                    "Gomez et al. 2017",
                    "reversible: memory independent of the depth, for about half a forward more",
                    "constant; 1.3 to 1.5 times the work",
                    f"{rows['held'].max() / rows['held'].min():.3f}, {ratio} of unrolled, {again}",
                    where,
                )
            )
    if (best := _optimum(case)) is not None:
        least = case.sweep.sort_values("peak", kind="stable")["segments"].iloc[0]
        depth = float(case.sweep["depth"].iloc[0])
        found.append(
            Claim(
                "Chen et al. 2016",
                "the best number of segments",
                f"√L = {words.digits(math.sqrt(depth), 2)}",
                f"{least:.0f}; at √L {best:.2f} times the least",
                f"{case.name}, {depth:.0f} layers",
            )
        )
    return found


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Between</b>: bytes allocated since the step began that live between forward and"
            " backward, whoever holds them. <b>Most</b>: the most of them at once in a phase. On"
            " the CPU every operation is watched and each new storage counted until it is freed;"
            " on CUDA it is the caching allocator's own count. Counts, not timings: they are the"
            " same in each run."
        ),
        Markup(
            "<b>Left out</b>: parameters, and the arguments of the cell (the embedded input), which"
            " were there before the step; the injection and the readout are no part of it. The"
            " gradients of both are made in the backward and are in its peak."
        ),
        Markup(
            "<b>History</b>: what the solver says that it holds, at its most. <b>Beyond</b>: the"
            " peak of the backward without what was held and without the adjoint's history. It is"
            " set against one evaluation with its graph, one product with Jᵀ that leaves the graph"
            " whole, and the gradients from it: the least that an iterative adjoint can do with."
        ),
        Markup(
            "<b>Again</b>: evaluations of f in the backward, for each one forward. The implicit"
            " gradient makes one, for its graph, and another one for its certificate."
        ),
    ]
