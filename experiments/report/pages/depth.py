"""The page of the study ``depth``: what layers cost in memory and bring in loss, and what z* does.

The paper's numbers that stand beside ours: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium
Models (2019), tables 2 and 3; T. Chen et al. (2016); A. Gomez et al. (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import curves, trainings, words
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
    filled,
    section,
    slug,
)
from experiments.report.colours import Look
from experiments.report.curves import Axis, Panel
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.sections import measured
from experiments.report.trainings import EQUILIBRIUM, EXPLICIT, Estimate
from experiments.report.words import listed, sentence, strong

__all__ = ["page"]

DEQ = "equilibrium (DEQ)"
BARE, TIED, CHECKPOINTED = "tied, x only at the start", "tied, x injected", "tied, checkpointed"
BACK, UNTIED, BLOCKS = "tied, run back", "layers of their own", "reversible blocks"

LOOKS: Mapping[str, Look] = {
    BARE: Look("#989BA2", (2, 3), "cross"),
    TIED: Look("#D0346F", (), "circle"),
    CHECKPOINTED: Look("#C77D0A", (6, 3), "square"),
    BACK: Look("#2E8B7F", (8, 3, 2, 3), "diamond"),
    UNTIED: Look("#0072B2", (), "triangle-up"),
    BLOCKS: Look("#639643", (6, 3), "triangle-down"),
    DEQ: Look("#6A6FE0", (), "circle"),
}
_ABOUT = {
    BARE: "z⁰ = Ux + b, then L times the same layer, which sees x no more",
    TIED: "L times the same layer, x added at each",
    CHECKPOINTED: "the same network; states between √L segments are kept, the rest is run again",
    BACK: "the reversible iteration of McCallum et al. (2025), L times; its backward runs it back",
    UNTIED: "L layers, each with its own weights: the explicit network",
    BLOCKS: (
        "L coupled blocks with their own weights (Gomez et al. 2017), run back; their backward"
        " hands over the gradients of all weights at once, which then exist twice for a moment"
    ),
    DEQ: "solved until it no longer moves, the gradient from the implicit function theorem",
}

# What is published, as memory of the one over that of the other.
SQRT_PAPER = 0.211
"""5.2 GB of 24.7: DEQ-TrellisNet's baseline of 70 levels, with checkpointing (Bai et al., tab. 3).
"""
LEVELS_PAPER, LAYERS_PAPER = 0.134, 0.162
"""3.3 GB of 24.7 against 70 levels; 1.1 of 6.8 against 16 tied layers (the same table)."""


def method_of(row: pd.Series) -> str:
    """Return which of the ways of this page a run took."""
    config = row["config"]
    if config.get("model.name") == "revnet":
        return BLOCKS
    if row["kind"] == EQUILIBRIUM:
        return DEQ
    if row["kind"] == EXPLICIT:
        return UNTIED
    if row["gradient"] == "reversible":
        return BACK
    if row["gradient"] == "checkpointed":
        return CHECKPOINTED
    return BARE if config.get("model.injected") is False else TIED


@dataclass(frozen=True)
class Case:
    """Trainings of one model's networks on one data set.

    Attributes
    ----------
    name
        Model and data.
    runs
        Completed ones, with ``method``.
    """

    name: str
    runs: pd.DataFrame

    @cached_property
    def classified(self) -> bool:
        """Whether there is an accuracy."""
        return bool(self.runs["accuracy"].notna().any())

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a method and depth, the equilibrium's without a depth."""
        values = [
            "loss", "accuracy", "perplexity", "peak_bytes", "layer_peak_bytes", "evaluations",
            "products", "step_seconds", "inference_seconds", "parameters", "converged",
        ]  # fmt: skip
        found = trainings.grouped(self.runs, ["method", "depth"], values)
        return found.sort_values(
            ["method", "depth"], key=_ordered, kind="stable", ignore_index=True
        )

    @cached_property
    def lines(self) -> dict[str, pd.DataFrame]:
        """By method the rows by depth, in the legend's order; one depth at least."""
        by_method = {name: self.steps[self.steps["method"] == name] for name in LOOKS}
        return {
            n: rows for n, rows in by_method.items() if n != DEQ and rows["depth"].notna().any()
        }

    @cached_property
    def equilibrium(self) -> pd.DataFrame:
        """The runs of the equilibrium."""
        return self.runs[self.runs["method"] == DEQ]

    def at(self, method: str, depth: float) -> pd.DataFrame:
        """Return the runs of a method at a depth."""
        return self.runs[(self.runs["method"] == method) & (self.runs["depth"] == depth)]


def _ordered(column: pd.Series) -> pd.Series:
    if column.name != "method":
        return column
    return column.map(list(LOOKS).index)


def page(frames: Frames) -> Page:
    """Return what the runs of ``depth`` say."""
    runs = trainings.runs(frames)
    runs["method"] = [method_of(row) for _, row in runs.iterrows()]
    runs["case"] = [_case(row) for _, row in runs.iterrows()]
    done = runs[runs["completed"]]
    cases = [Case(str(name), rows) for name, rows in done.groupby("case", sort=False)]
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    if cases:
        blocks.append(Cards([_card(case) for case in cases]))
    else:
        blocks.append(Prose([trainings.missing_runs("completed", frames.study)]))
    parts = [
        Section("The answer", blocks),
        section("Memory", [_memory(cases), _published(cases)]),
        section("Loss", [_losses(cases), _trade(cases), _courses(frames, done)]),
        section("The numbers", [_table(case) for case in cases]),
        trainings.failures(frames),
        measured(frames, [*_ways(done), *trainings.definitions()]),
    ]
    return Page(
        "What depth costs, and what it brings",
        "How do memory and loss change with the number of layers, from one to many, and where does"
        " the network that is solved for its fixed point stand?",
        [part for part in parts if part is not None],
        {"trainings": runs.drop(columns="config"), "runs": frames.runs},
    )


def _case(row: pd.Series) -> str:
    """Return what is compared: on images, reversible blocks stand beside the layers of ``mlp``."""
    return str(row["data"] if row["model"] in ("mlp", "revnet") else row["case"])


# What is said -----------------------------------------------------------------------------------


def _card(case: Case) -> Card:
    seeds = trainings.seeds_of(case.runs)
    subtitle = sentence(
        "{} trainings of the same steps, {}", len(case.runs), words.plural(seeds, "seed")
    )
    parts = [
        Prose(_memory_said(case), "Memory", listed=True),
        Prose(_loss_said(case), "Loss", listed=True),
    ]
    return Card(case.name, subtitle, _headline(case), [p for p in parts if p.paragraphs])


def _peak(rows: pd.DataFrame) -> float:
    return float(rows["peak_bytes"].mean())


def _headline(case: Case) -> Markup:
    tied, own = case.lines.get(TIED), case.equilibrium
    said = []
    if tied is not None and len(tied) > 1:
        first, last = tied.iloc[0], tied.iloc[-1]
        said.append(
            sentence(
                "From {} to {} layers a training step's peak grows from {} to {}.",
                words.plural(int(first["depth"]), "layer").removesuffix(" layer"),
                words.count(last["depth"]),
                words.size(first["peak_bytes"]),
                words.size(last["peak_bytes"]),
            )
        )
    if len(own):
        about = sentence(
            "The equilibrium takes {} at {} evaluations a step",
            strong(words.size(_peak(own))),
            words.digits(float(own["evaluations"].mean()), 2),
        )
        if tied is not None and len(tied) > 1:
            last = tied.iloc[-1]
            share = _peak(own) / last["peak_bytes"]
            about += sentence(
                ", {} times that of {} layers", words.digits(share), words.count(last["depth"])
            )
            if (like := _as_deep(tied, _peak(own))) is not None:
                about += sentence(", as much as {} layers", words.digits(like, 2))
        said.append(about + Markup("."))
        if (found := _best(case)) is not None:
            method, depth, rows = found
            said.append(
                sentence(
                    "Its loss is {} times that of the best explicit depth, {} layers ({}).",
                    strong(_ratio(trainings.ratio(own, rows, "loss"))),
                    words.count(depth),
                    method,
                )
            )
    if not said:
        said.append(trainings.missing_runs("an equilibrium beside layers", "depth"))
    return Markup(" ").join(said)


def _ratio(found: Estimate) -> str:
    return found.text(words.digits)


def _as_deep(tied: pd.DataFrame, peak: float) -> float | None:
    """Return the depth at which the tied network takes as much, on a line through its depths."""
    slope, start = np.polyfit(tied["depth"].to_numpy(float), tied["peak_bytes"].to_numpy(float), 1)
    depth = float((peak - start) / slope) if slope > 0 else math.nan
    return depth if depth >= 1 else None


def _best(case: Case) -> tuple[str, float, pd.DataFrame] | None:
    """Return method, depth and runs of the least mean loss among networks of so many layers.

    Checkpointing changes no loss, so it is passed over.
    """
    steps = case.steps[~case.steps["method"].isin([DEQ, CHECKPOINTED])].dropna(subset=["loss"])
    if steps.empty:
        return None
    row = steps.sort_values("loss", kind="stable").iloc[0]
    return row["method"], float(row["depth"]), case.at(row["method"], row["depth"])


def _memory_said(case: Case) -> list[Markup]:
    said = []
    for name, steps in case.lines.items():
        rows = steps.dropna(subset=["peak_bytes"])
        if len(rows) < 2:
            continue
        first, last = rows.iloc[0], rows.iloc[-1]
        ends = f"{words.count(first['depth'])} to {words.count(last['depth'])}"
        growth = last["peak_bytes"] / first["peak_bytes"]
        text = sentence(
            "{}: {} to {} from {} layers",
            strong(name),
            words.size(first["peak_bytes"]),
            words.size(last["peak_bytes"]),
            ends,
        )
        if len(rows) > 2:
            x, y = rows["depth"].to_numpy(float), rows["peak_bytes"].to_numpy(float)
            if growth < 1.05:
                text += Markup(", the same at every depth")
            elif name == CHECKPOINTED:
                power = _power(x, y)
                text += sentence(" (power {} of the depth; the rule is √L)", words.digits(power, 2))
            else:
                slope = np.polyfit(x, y, 1)[0]
                text += sentence(
                    ", {} a layer (R² of a line {})",
                    words.size(float(slope)),
                    f"{np.corrcoef(x, y)[0, 1] ** 2:.4f}",
                )
        said.append(text + Markup("."))
    if len(own := case.equilibrium):
        evaluations = own["evaluations"]
        said.append(
            sentence(
                "{}: {}, the solver's history included, whatever it spends ({} evaluations a step"
                " on average).",
                strong(DEQ),
                words.size(_peak(own)),
                words.digits(float(evaluations.mean()), 3),
            )
        )
    return said


def _power(x: Any, y: Any) -> float:
    """Return the slope of the upper half in logarithms: what is fixed weighs less there."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)[0])


def _score(rows: pd.DataFrame, case: Case) -> str:
    """Return loss with its interval, and accuracy where there is one."""
    text = trainings.mean(rows["loss"]).text(lambda v: words.digits(v, 3))
    if case.classified:
        accuracy = trainings.mean(100 * rows["accuracy"])
        text += f", {words.digits(accuracy.value, 3)} % right"
    return text


def _loss_said(case: Case) -> list[Markup]:
    said = []
    for name, steps in case.lines.items():
        rows = steps.dropna(subset=["loss"])
        if rows.empty or name == CHECKPOINTED:
            continue
        best, last = rows.sort_values("loss", kind="stable").iloc[0], rows.iloc[-1]
        text = sentence(
            "{}: best at {} ({})",
            strong(name),
            words.plural(int(best["depth"]), "layer"),
            _score(case.at(name, best["depth"]), case),
        )
        if last["depth"] != best["depth"]:
            found = trainings.ratio(
                case.at(name, last["depth"]), case.at(name, best["depth"]), "loss"
            )
            text += sentence(
                "; at {} the loss is {} times that", words.count(last["depth"]), _ratio(found)
            )
        said.append(text + Markup("."))
    if len(own := case.equilibrium):
        text = sentence("{}: {}", strong(DEQ), _score(own, case))
        if (share := float(own["converged"].mean())) == share:
            text += sentence("; {} % of its solves converged", words.digits(100 * share, 3))
        said.append(text + Markup("."))
    if (bare := _without(case)) is not None:
        said.append(bare)
    return said


def _without(case: Case) -> Markup | None:
    """Say what injection does at the largest depth that both have."""
    both = [case.lines.get(BARE), case.lines.get(TIED)]
    if any(rows is None for rows in both):
        return None
    shared = set(both[0]["depth"]) & set(both[1]["depth"])  # type: ignore[index]
    if not shared:
        return None
    depth = max(shared)
    found = trainings.ratio(case.at(BARE, depth), case.at(TIED, depth), "loss")
    if not found.known:
        return None
    verdict = "no worse" if found.value <= 1.02 else "worse"
    reason = (
        ": a map that contracts forgets where it began, so x must be seen at every layer"
        if verdict == "worse"
        else ""
    )
    return sentence(
        "Without injection the loss at {} layers is {} times that with it, {}{}.",
        words.count(depth),
        _ratio(found),
        verdict,
        reason,
    )


# What is drawn ----------------------------------------------------------------------------------


def _doubling(cases: Sequence[Case]) -> list[float]:
    most = max((float(case.runs["depth"].max()) for case in cases), default=1.0)
    most = 1.0 if math.isnan(most) else most
    return [float(2**k) for k in range(math.floor(math.log2(max(most, 1))) + 1)]


def _rows(case: Case, value: str) -> pd.DataFrame:
    frame = case.steps.dropna(subset=[value])
    if value == "accuracy":  # a share, whatever the interval of its mean says
        frame = frame.assign(accuracy_hi=frame["accuracy_hi"].clip(upper=1.0))
    return pd.DataFrame(
        {
            "label": frame["method"],
            "x": frame["depth"].fillna(1.0),
            "y": frame[value],
            "low": frame[f"{value}_lo"],
            "high": frame[f"{value}_hi"],
            "runs": frame["runs"],
        }
    )


def _against_depth(
    cases: Sequence[Case], values: Sequence[tuple[str, Axis, str]]
) -> Callable[[], Spec]:
    across = Axis("layers", "count", log=True, ticks=_doubling(cases))
    panels = [
        Panel(case.name, rows, across, axis, said, flat=[DEQ])
        for case in cases
        for value, axis, said in values
        if len(rows := _rows(case, value))
    ]
    return lambda: curves.draw(panels, LOOKS)


def _memory(cases: Sequence[Case]) -> Figure | None:
    if not any(case.steps["peak_bytes"].notna().any() for case in cases):
        return None
    bytes_ = Axis("bytes", "bytes", log=True)
    text = Markup(
        "The most bytes at once in a training step beyond what was there before it, by the number"
        " of layers; both axes are logarithmic, so that a straight line of slope 1 is memory in"
        " proportion to depth. See: unrolled networks on that slope, checkpointing on about half of"
        " it, what is run back nearly flat, and the equilibrium as a line across: it has no depth,"
        " and where it crosses another line is the depth from which on it is the smaller one."
    )
    values = [("peak_bytes", bytes_, "the whole step")]
    if any(case.steps["layer_peak_bytes"].notna().any() for case in cases):
        values.append(("layer_peak_bytes", bytes_, "the layer alone, without inputs and readout"))
    return Figure("memory", "Bytes against depth", text, _against_depth(cases, values))


def _losses(cases: Sequence[Case]) -> Figure | None:
    if not any(case.steps["loss"].notna().any() for case in cases):
        return None
    text = Markup(
        "Test loss after the same number of steps, means over the seeds; bands are 95 % intervals,"
        " the equilibrium's a line across. See: whether more layers still help, where they stop to,"
        " and what happens to a deep network that sees x only at its start."
    )
    values = [("loss", Axis("test loss", "number", log=True), "loss, nats")]
    if any(case.classified for case in cases):
        values.append(("accuracy", Axis("test accuracy", "number"), "share classified rightly"))
    return Figure("loss", "Loss against depth", text, _against_depth(cases, values))


def _trade(cases: Sequence[Case]) -> Figure | None:
    panels = []
    for case in cases:
        rows = case.steps.dropna(subset=["loss", "peak_bytes"])
        if rows.empty:
            continue
        frame = pd.DataFrame(
            {
                "label": rows["method"],
                "x": rows["peak_bytes"],
                "y": rows["loss"],
                "low": rows["loss_lo"],
                "high": rows["loss_hi"],
                "runs": rows["runs"],
            }
        )
        across = Axis("bytes, most at once in a step", "bytes", log=True)
        up = Axis("test loss", "number", log=True)
        panels.append(Panel(case.name, frame, across, up, "lower and further left is better"))
    if not panels:
        return None
    text = Markup(
        "What a byte buys: each line goes through the depths of one network, from the fewest"
        " layers. Whoever has a point to the lower left of it is better in both."
    )
    return Figure(
        "trade", "Loss against memory", text, lambda: curves.draw(panels, LOOKS, height=250)
    )


def _courses(frames: Frames, done: pd.DataFrame) -> Figure | None:
    """Return the loss over training of the equilibrium and of the networks of a common depth."""
    tied = done[done["method"] == TIED]
    if done.empty or tied.empty:
        return None
    depths = sorted(tied["depth"].dropna().unique())
    near = min(depths, key=lambda d: abs(math.log(d / 16)))
    rows = done[(done["depth"] == near) | (done["method"] == DEQ)]
    rows = rows[rows["method"] != CHECKPOINTED].assign(label=lambda r: r["method"])
    up = Axis("test loss", "number", log=True)
    panels = curves.progress(frames, rows, "test.loss", up, LOOKS, xs=("step", "train.work"))
    panels = [p for p in panels if p.rows["x"].nunique() > 1]
    if not panels:
        return None
    text = sentence(
        "Test loss over the training of networks of {} layers and of the equilibrium: by steps,"
        " and by the evaluations and products spent so far, which is what they cost.",
        words.count(near),
    )
    return Figure("training", "On the way", text, lambda: curves.draw(panels, LOOKS))


# Tables -----------------------------------------------------------------------------------------


def _table(case: Case) -> Table:
    frame = case.steps.copy()
    metric = "accuracy" if case.classified else "perplexity"
    columns = [
        Column("method", "network", "series"),
        Column("depth", "layers", "count"),
        Column("parameters", "parameters", "count"),
        Column("loss", "test loss", "number"),
        *([Column(metric, metric, "number")] if frame[metric].notna().any() else []),
        Column("peak_bytes", "most in a step", "bytes"),
        Column("layer_peak_bytes", "of it the layer", "bytes", "", "without inputs and readout"),
        Column("evaluations", "evaluations", "count", "", "forward, a step"),
        Column("products", "backward", "count", "", "products or evaluations, a step"),
        Column("step_seconds", "a step", "seconds"),
        Column("inference_seconds", "a test batch", "seconds"),
        Column("seeds", "seeds", "count"),
    ]
    columns = filled(columns, frame)
    text = Markup(
        "Means over the seeds; rest the pointer on a number for its interval, on a row for its"
        " runs."
    )
    return Table(
        f"depths-{slug(case.name)}", f"All depths: {case.name}", text, columns, frame, looks=LOOKS
    )


def _published(cases: Sequence[Case]) -> Table | None:
    rows: list[dict[str, object]] = []
    for case in cases:
        tied, own = case.lines.get(TIED), case.equilibrium
        if tied is None:
            continue

        def add(
            what: str, published: str, top: pd.DataFrame, bottom: pd.DataFrame, where: str
        ) -> None:
            found = trainings.ratio(top, bottom, "peak_bytes")
            if found.known:
                ours = f"{found.value:.3f}"
                rows.append({"what": what, "published": published, "ours": ours, "where": where})

        deep = float(tied["depth"].max())
        if len(own) and len(bottom := case.at(TIED, 16)):
            paper = f"{LAYERS_PAPER} (Bai et al. 2019, 16 layers)"
            what = "equilibrium / tied layers, peak of a step"
            add(what, paper, own, bottom, f"{case.name}, 16 layers")
        if len(own):
            what = "equilibrium / the deepest tied network"
            paper = f"{LEVELS_PAPER} (Bai et al. 2019, 70 levels)"
            add(what, paper, own, case.at(TIED, deep), f"{case.name}, {deep:.0f} layers")
        kept = case.at(CHECKPOINTED, deep)
        if len(kept):
            ideal = 2 / math.sqrt(deep)
            paper = f"{SQRT_PAPER} (Bai et al. 2019, 70 levels); 2/√L = {ideal:.3f} at this depth"
            what = "checkpointed / kept whole"
            add(what, paper, kept, case.at(TIED, deep), f"{case.name}, {deep:.0f} layers")
        for method in (BACK, BLOCKS):
            line = case.lines.get(method)
            if line is not None and len(line) > 1:
                least, most = float(line["depth"].min()), float(line["depth"].max())
                add(
                    f"{method}: most layers / fewest",
                    "1 (Gomez et al. 2017: independent of depth)",
                    case.at(method, most),
                    case.at(method, least),
                    f"{case.name}, {most:.0f} against {least:.0f} layers",
                )
    if not rows:
        return None
    columns = [
        Column("what", "ratio of memory"),
        Column("published", "published"),
        Column("ours", "here"),
        Column("where", "measured on"),
    ]
    text = Markup(
        "Theirs are of whole models as a GPU's allocator reports them; ours is counted, without"
        " parameters, on models so small that what is fixed (inputs, readout, gradients of the"
        " weights) weighs more. An equilibrium keeps the vectors of its solvers, each of the size"
        " of a state, whatever the layer is: where a layer keeps one state, as that of mlp does,"
        " they weigh as much as dozens of layers; where it keeps about twenty, as a"
        " transformer's, as a few."
    )
    frame = pd.DataFrame(rows)
    return Table("published", "Beside what is published", text, columns, frame)


def _ways(done: pd.DataFrame) -> list[Markup]:
    there = [name for name in LOOKS if (done["method"] == name).any()]
    said = [sentence("{}: {}.", strong(name), _ABOUT[name]) for name in there]
    if missing := [name for name in LOOKS if name not in there]:
        said.append(sentence("Not among these runs: {}.", listed(missing)))
    return said
