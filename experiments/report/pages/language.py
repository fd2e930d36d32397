"""The page of the study ``language``: equilibria against tied and untied layers on text.

The paper's numbers that stand beside ours: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models
(2019), tables 2 to 4. Its networks are large and its texts are words; only ratios are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report import curves, forest, trainings, words
from experiments.report.blocks import (
    Block,
    Card,
    Cards,
    Column,
    Figure,
    Prose,
    Section,
    Table,
    filled,
    section,
    slug,
)
from experiments.report.colours import Look
from experiments.report.curves import Axis, Rule
from experiments.report.forest import Forest
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.sections import measured
from experiments.report.trainings import EQUILIBRIUM, EXPLICIT, TIED, Estimate
from experiments.report.words import listed, sentence, strong

__all__ = ["page"]

FAMILIES = {
    "transformer": "DEQ-Transformer",
    "universal_transformer": "DEQ-Transformer",
    "trellisnet": "DEQ-TrellisNet",
}
"""What a model's equilibrium is called; the tied and untied networks of a family stand with it."""

EQUAL = 0.02
"""So far apart the parameters of two networks may be that are called of equal parameters."""


@dataclass(frozen=True)
class Paper:
    """A ratio of the paper: equilibrium over the other.

    Attributes
    ----------
    family, kind, gradient, depth
        Of which network the other is; a depth of 0 stands for any.
    value
        The paper's ratio, and ``source`` where it is from.
    target
        What is aimed at here; NaN if the number is only reported.
    """

    family: str
    kind: str
    gradient: str
    depth: int
    value: float
    source: str
    target: float = math.nan


MEMORY = (
    Paper("DEQ-Transformer", TIED, "unrolled", 16, 0.162, "1.1 GB of 6.8, table 3", 0.162),
    Paper("DEQ-TrellisNet", TIED, "unrolled", 70, 0.134, "3.3 GB of 24.7, table 3", 0.134),
    Paper("DEQ-TrellisNet", TIED, "checkpointed", 70, 0.635, "3.3 GB of 5.2, table 3", 0.635),
)
PERPLEXITY = (
    Paper("DEQ-Transformer", EXPLICIT, "", 0, 0.996, "24.2 of 24.3, table 3", 1.0),
    Paper("DEQ-Transformer", TIED, "", 0, 0.928, "32.4 of 34.9, 16 layers, table 3"),
    Paper("DEQ-TrellisNet", EXPLICIT, "", 0, math.nan, "", 1.0),
    Paper("DEQ-TrellisNet", TIED, "", 0, 0.993, "29.0 of 29.2, 70 levels, table 3"),
)
STEP = (
    Paper("DEQ-Transformer", EXPLICIT, "", 0, 2.82, "18 layers, table 4"),
    Paper("DEQ-Transformer", TIED, "", 0, math.nan, ""),
    Paper("DEQ-TrellisNet", EXPLICIT, "", 0, math.nan, ""),
    Paper("DEQ-TrellisNet", TIED, "", 0, 2.40, "70 levels, table 4"),
)
INFERENCE = (
    Paper("DEQ-Transformer", EXPLICIT, "", 0, 1.76, "18 layers, table 4"),
    Paper("DEQ-Transformer", TIED, "", 0, math.nan, ""),
    Paper("DEQ-TrellisNet", EXPLICIT, "", 0, math.nan, ""),
    Paper("DEQ-TrellisNet", TIED, "", 0, 1.64, "70 levels, table 4"),
)


@dataclass(frozen=True)
class Row:
    """A ratio of the page, ours beside the paper's.

    Attributes
    ----------
    measure
        Of what.
    against
        The other network.
    ours
        The estimate; ``paper`` the paper's.
    """

    family: str
    data: str
    measure: str
    against: str
    paper: Paper
    ours: Estimate
    runs: Sequence[int]

    @property
    def reached(self) -> bool | None:
        """Whether the aim was reached; None without an aim."""
        return None if math.isnan(self.paper.target) else self.ours.at_most(self.paper.target)


@dataclass(frozen=True)
class Case:
    """One family on one text: its trainings, completed.

    Attributes
    ----------
    runs
        With ``label``.
    """

    family: str
    data: str
    runs: pd.DataFrame

    @property
    def name(self) -> str:
        """Family and text."""
        return f"{self.family} on {self.data}"

    @cached_property
    def solved(self) -> pd.DataFrame:
        """The runs of the equilibrium, of the plain one if there are several."""
        return _of(self.runs, EQUILIBRIUM)

    def against(self, kind: str) -> pd.DataFrame:
        """Return the runs of the tied, or of the untied network; the deepest if there are some."""
        return _of(self.runs, kind)


def _of(runs: pd.DataFrame, kind: str) -> pd.DataFrame:
    rows: pd.DataFrame = runs[runs["kind"] == kind]
    if rows.empty:
        return rows
    if kind == EQUILIBRIUM:
        plain = rows[~rows["regularised"]]
        rows = plain if len(plain) else rows
    else:
        rows = rows[rows["depth"].fillna(0) == rows["depth"].fillna(0).max()]
    first: pd.DataFrame = rows[rows["label"] == rows["label"].iloc[0]]
    return first


def page(frames: Frames) -> Page:
    """Return what the runs of ``language`` say."""
    runs = trainings.runs(frames)
    runs["family"] = [FAMILIES.get(str(name), str(name)) for name in runs["model"]]
    runs["case"] = runs["family"] + " on " + runs["data"]
    done = runs[runs["completed"]]
    probe = pd.Series([trainings.is_probe(c) for c in done["config"]], index=done.index, dtype=bool)
    trained = trainings.labelled(done[~probe])
    probes = trainings.labelled(done[probe])
    groups = trained.groupby(["family", "data"], sort=False)
    cases = [Case(str(family), str(data), rows) for (family, data), rows in groups]
    memory = _memory_rows(probes)
    ratios = [*memory, *(row for case in cases for row in _ratios(case))]
    looks = curves.palette([str(label) for label in trained["label"]])
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    families = list(dict.fromkeys([*trained["family"], *probes["family"]]))
    if families:
        blocks.append(Cards([_card(name, cases, memory) for name in families]))
    else:
        blocks.append(Prose([trainings.missing_runs("completed", frames.study)]))
    parts = [
        Section("The answer", blocks),
        section("Beside the paper", [_table_of_ratios(ratios), _forest(ratios)]),
        section("Perplexity", [_courses(frames, trained, looks)]),
        section("Memory", [_probes(probes)]),
        section("The networks", [_networks(case, looks) for case in cases]),
        trainings.failures(frames),
        measured(frames, [*_definitions(), *trainings.definitions()]),
    ]
    return Page(
        "Language models: an equilibrium, tied layers, untied layers",
        "With as many parameters, does a network solved for its fixed point predict text as well as"
        " layers do, at which memory and in which time?",
        [part for part in parts if part is not None],
        {"trainings": runs.drop(columns="config"), "runs": frames.runs},
    )


# Ratios -----------------------------------------------------------------------------------------


def _memory_rows(probes: pd.DataFrame) -> list[Row]:
    """Return the ratios of memory, of the whole step and of the layer alone."""
    found = []
    for paper in MEMORY:
        here = probes[probes["family"] == paper.family]
        meant = [trainings.as_aimed(config) for config in here["config"]]
        solved = here[(here["kind"] == EQUILIBRIUM) & pd.Series(meant, here.index, dtype=bool)]
        other = here[(here["kind"] == paper.kind) & (here["gradient"] == paper.gradient)]
        other = other[other["depth"] == paper.depth]
        for column, measure in _BYTES.items():
            ours = trainings.ratio(solved, other, column)
            if ours.known:
                data = str(solved["data"].iloc[0])
                against = str(other["network"].iloc[0])
                ids = _ids(solved, other)
                found.append(Row(paper.family, data, measure, against, paper, ours, ids))
    return found


_BYTES = {"peak_bytes": "memory", "layer_peak_bytes": "memory of the layer"}


def _ids(*frames: pd.DataFrame) -> list[int]:
    return sorted({int(run) for frame in frames for run in frame["run_id"]})


def _ratios(case: Case) -> list[Row]:
    """Return the ratios of perplexity and time at equal steps, equilibrium over the others."""
    found = []
    for measure, column, papers in (
        ("perplexity", "perplexity", PERPLEXITY),
        ("seconds a training step", "step_seconds", STEP),
        ("seconds of inference", "inference_seconds", INFERENCE),
    ):
        for paper in papers:
            if paper.family != case.family:
                continue
            other = case.against(paper.kind)
            ours = trainings.ratio(case.solved, other, column)
            if ours.known:
                against = str(other["label"].iloc[0])
                ids = _ids(case.solved, other)
                found.append(Row(case.family, case.data, measure, against, paper, ours, ids))
    return found


def _table_of_ratios(rows: Sequence[Row]) -> Table | None:
    if not rows:
        return None
    frame = pd.DataFrame(
        [
            {
                "family": row.family.removeprefix("DEQ-"),
                "data": row.data,
                "measure": row.measure,
                "against": row.against,
                "paper": "–" if math.isnan(row.paper.value) else f"{row.paper.value:g}",
                "source": row.paper.source or "–",
                "target": "–" if math.isnan(row.paper.target) else f"≤\u00a0{row.paper.target:g}",
                "ours": trainings.three(row.ours.value),
                "interval": row.ours.interval(trainings.three),
                "seeds": row.ours.number or 1,
                "reached": {True: "reached", False: "missed", None: "–"}[row.reached],
                "value": row.ours.value,
                "low": row.ours.low,
                "high": row.ours.high,
                "met": row.reached is not False,
                "runs": list(row.runs),
            }
            for row in rows
        ]
    )
    columns = [
        Column("family", "network"),
        Column("data", "text"),
        Column("measure", "ratio of"),
        Column("against", "over"),
        Column("paper", "the paper"),
        Column("source", "from"),
        Column("ours", "here"),
        Column("interval", "95 %"),
        Column("seeds", "seeds", "count"),
        Column("target", "aim"),
        Column("reached", "so"),
    ]
    text = Markup(
        "Equilibrium over the other network; below 1 it takes less. The paper's other networks are"
        " larger and deeper than these, and so are its texts: the numbers say whether the relation"
        " is the same, not that the experiment is. Memory is counted, and no seed changes it;"
        " seconds are of this machine. Rows marked with ○ missed their aim."
    )
    return Table("ratios", "Equilibrium over the others", text, columns, frame)


def _forest(rows: Sequence[Row]) -> Figure | None:
    panels = []
    looks = {"here": Look("#0072B2"), "the paper": Look("#D55E00", (4, 3), "diamond")}
    groups = {
        "Memory": ("memory", "memory of the layer"),
        "Perplexity": ("perplexity",),
        "Time at equal steps": ("seconds a training step", "seconds of inference"),
    }
    for title, measures in groups.items():
        made = []
        for row in (row for row in rows if row.measure in measures):
            name = f"{row.family.removeprefix('DEQ-')} / {row.against}".replace(_KEPT, " √L")
            if len({r.data for r in rows if r.family == row.family and r.measure in measures}) > 1:
                name += f", {row.data}"
            if len(measures) > 1:
                name = f"{name}: {_SHORT.get(row.measure, row.measure)}"
            ours = {"name": name, "label": "here", "x": row.ours.value, "low": row.ours.low}
            made.append({**ours, "high": row.ours.high, "runs": row.runs})
            if not math.isnan(row.paper.value):
                made.append({"name": name, "label": "the paper", "x": row.paper.value})
        if made:
            axis = Axis("equilibrium / other", "number", log=title != "Perplexity")
            panels.append(Forest(title, pd.DataFrame(made), axis, rules=(1.0,)))
    if not panels:
        return None
    text = Markup(
        "Each ratio of the table with its interval, and the paper's beside it; left of the dashed"
        " line the equilibrium takes less. See: memory far to the left, perplexity about at the"
        " line, and time to the right of it, which is the price."
    )
    return Figure(
        "ratios",
        "Ratios, ours and the paper's",
        text,
        lambda: forest.draw(panels, looks, columns=1, width=560),
    )


_KEPT = ", checkpointed"
_SHORT = {
    "memory": "step",
    "memory of the layer": "layer",
    "seconds a training step": "training",
    "seconds of inference": "inference",
}


# What is said -----------------------------------------------------------------------------------


def _card(family: str, cases: Sequence[Case], memory: Sequence[Row]) -> Card:
    own = [case for case in cases if case.family == family]
    rows = [row for row in memory if row.family == family]
    subtitle = sentence(
        "{} on {}",
        words.plural(sum(len(case.runs) for case in own), "training"),
        listed([case.data for case in own]) or "no text yet",
    )
    said = [_quality(case) for case in own]
    parts = [
        Prose([text for case in own for text in _perplexities(case)], "Perplexity", listed=True),
        Prose(_memory_said(rows), "Memory", listed=True),
        Prose([text for case in own for text in _times(case)], "Time", listed=True),
    ]
    headline = [text for text in said if text]
    headline += [_least_memory(rows)] if rows else []
    if not headline:
        headline = [trainings.missing_runs("an equilibrium beside layers", "language")]
    return Card(family, subtitle, Markup(" ").join(headline), [p for p in parts if p.paragraphs])


def _write_perplexity(value: float) -> str:
    return words.digits(value, 4 if value >= 10 else 3)


def _verdict(found: Estimate) -> str:
    """Say whether the perplexities are apart."""
    if not found.certain:
        return "of one seed"
    if found.low > 1:
        return "worse, beyond the spread of the seeds"
    return "better, beyond the spread of the seeds" if found.high < 1 else "not told apart"


def _quality(case: Case) -> Markup:
    """Return the headline of a case: perplexity against the others."""
    if case.solved.empty:
        return Markup()
    own = trainings.mean(case.solved["perplexity"])
    parts = []
    for kind in (EXPLICIT, TIED):
        other = case.against(kind)
        found = trainings.ratio(case.solved, other, "perplexity")
        if found.known:
            parts.append(
                sentence(
                    "{} times that of {} ({})",
                    strong(found.text(trainings.three)),
                    str(other["label"].iloc[0]),
                    _verdict(found),
                )
            )
    if not own.known:
        return Markup()
    start = sentence(
        "On {} the equilibrium's perplexity is {}", case.data, strong(_write_perplexity(own.value))
    )
    return start + (sentence(", {}.", listed(parts)) if parts else Markup("."))


def _perplexities(case: Case) -> list[Markup]:
    said = []
    for label, rows in case.runs.groupby("label", sort=False):
        found = trainings.mean(rows["perplexity"])
        if not found.known:
            continue
        said.append(
            sentence(
                "{} on {}: {}, {} parameters.",
                strong(label),
                case.data,
                found.text(_write_perplexity, seeds=True),
                words.count(float(rows["parameters"].mean())),
            )
        )
    sizes = case.runs.groupby("label", sort=False)["parameters"].mean().dropna()
    if len(sizes) > 1 and case.solved["parameters"].notna().any():
        own = float(case.solved["parameters"].mean())
        apart = {str(k): v / own - 1 for k, v in sizes.items() if abs(v / own - 1) > EQUAL}
        if apart:
            what = [f"{name} by {100 * more:+.1f} %" for name, more in apart.items()]
            said.append(sentence("Not of equal parameters: {}.", listed(what)))
        else:
            widest = max(abs(v / own - 1) for v in sizes)
            said.append(
                sentence("Parameters differ by {} % at most.", words.digits(100 * widest, 2))
            )
    if (floor := _floor(case.runs)) is not None:
        own = trainings.mean(case.solved["perplexity"]).value
        text = sentence("No model can do better than {} here", _write_perplexity(floor))
        if not math.isnan(own):
            text += sentence(": the equilibrium is {} % above it", f"{100 * (own / floor - 1):.1f}")
        said.append(text + Markup("."))
    return said


def _floor(runs: pd.DataFrame) -> float | None:
    """Return the perplexity of a perfect model, where the language's entropy rate is known."""
    rates = runs["entropy_rate"].dropna()
    return math.exp(float(rates.iloc[0])) if len(rates) else None


def _least_memory(rows: Sequence[Row]) -> Markup:
    step = [row for row in rows if row.measure == "memory"]
    parts = [
        sentence(
            "{} of {} (the paper: {}; {})",
            strong(trainings.three(row.ours.value)),
            row.against,
            f"{row.paper.value:g}",
            "aim reached" if row.reached else "aim missed",
        )
        for row in step
    ]
    return sentence("A training step takes {}.", listed(parts)) if parts else Markup()


def _memory_said(rows: Sequence[Row]) -> list[Markup]:
    return [
        sentence(
            "{} of {}: {} times; the paper has {} ({}).",
            strong(row.measure),
            row.against,
            trainings.three(row.ours.value),
            f"{row.paper.value:g}",
            row.paper.source,
        )
        for row in rows
    ]


def _times(case: Case) -> list[Markup]:
    said = []
    for kind in (EXPLICIT, TIED):
        other = case.against(kind)
        train = trainings.ratio(case.solved, other, "step_seconds")
        infer = trainings.ratio(case.solved, other, "inference_seconds")
        if train.known and infer.known:
            said.append(
                sentence(
                    "On {}, against {}: {} times the seconds a training step, {} in inference.",
                    case.data,
                    strong(str(other["label"].iloc[0])),
                    train.text(words.digits),
                    infer.text(words.digits),
                )
            )
    own = case.solved
    if len(own) and own["evaluations"].notna().any():
        said.append(
            sentence(
                "Its solves take {} evaluations forward and {} products backward a step, {} in"
                " inference; {} % of the samples converged.",
                words.digits(float(own["evaluations"].mean()), 3),
                words.digits(float(own["products"].mean()), 3),
                words.digits(float(own["test_evaluations"].mean()), 3),
                words.digits(100 * float(own["converged"].mean()), 3),
            )
        )
    return said


# What is drawn and listed -----------------------------------------------------------------------


def _courses(frames: Frames, trained: pd.DataFrame, looks: Mapping[str, Look]) -> Figure | None:
    floors: dict[str, list[Rule]] = {}
    for case, rows in trained.groupby("case", sort=False):
        if (floor := _floor(rows)) is not None:
            floors[str(case)] = [Rule(floor, "entropy rate: no model is below")]
    up = Axis("test perplexity", "number", log=True)
    panels = curves.progress(frames, trained, "test.perplexity", up, looks, rules=floors)
    panels = [p for p in panels if p.rows["x"].nunique() > 1]
    if not panels:
        return None
    text = Markup(
        "Perplexity on the test text while training, means over the seeds with 95 % intervals: by"
        " steps, by the evaluations and products spent, and by seconds. See: by steps, whether the"
        " equilibrium learns as much from a batch; by seconds, what its solves cost."
    )
    draw: Callable[[], Any] = lambda: curves.draw(panels, looks, columns=3, width=280)  # noqa: E731
    return Figure("perplexity", "Perplexity on the way", text, draw)


def _probes(probes: pd.DataFrame) -> Table | None:
    if probes.empty:
        return None
    values = ["peak_bytes", "layer_peak_bytes", "evaluations", "products", "parameters"]
    frame = trainings.grouped(probes, ["family", "data", "label"], values)
    shapes = {(row["family"], row["label"]): _shape(row["config"]) for _, row in probes.iterrows()}
    pairs = zip(frame["family"], frame["label"], strict=True)
    frame["shape"] = [shapes[pair] for pair in pairs]
    columns = [
        Column("family", "network"),
        Column("label", "variant"),
        Column("shape", "batch × tokens, channels"),
        Column("peak_bytes", "most in a step", "bytes"),
        Column(
            "layer_peak_bytes", "of it the layer", "bytes", "", "without embeddings and softmax"
        ),
        Column("evaluations", "evaluations", "count"),
        Column("products", "backward", "count"),
        Column("parameters", "parameters", "count"),
    ]
    columns = [c for c in columns if c.kind == "text" or frame[c.key].notna().any()]
    text = Markup(
        "One training step each, as the paper measures memory: sequences of 150 tokens, a batch of"
        " 15. The most bytes at once beyond parameters, their gradients and the optimiser's state;"
        " the solver's history is in it. A solver's vectors are as wide as the state, and a layer's"
        " graph the wider, the more inner channels its network has: of the paper's transformer 69"
        " times those of the state, so the ratio of a small one depends on that."
    )
    return Table("memory", "Memory of one step", text, columns, frame)


def _shape(config: Mapping[str, Any]) -> str:
    batch, length = config.get("batch"), config.get("data.length") or config.get("model.length")
    width, inner = config.get("model.width"), config.get("model.inner")
    shape = f"{batch} × {length or '?'}, {width or '?'}"
    return f"{shape} ({inner} inner)" if inner else shape


def _networks(case: Case, looks: Mapping[str, Look]) -> Table:
    values = [
        "perplexity", "loss", "parameters", "cell_parameters", "peak_bytes", "layer_peak_bytes",
        "step_seconds", "inference_seconds", "evaluations", "products", "converged",
        "test_evaluations", "work", "seconds",
    ]  # fmt: skip
    frame = trainings.grouped(case.runs, ["label"], values)
    columns = [
        Column("label", "network", "series"),
        Column("parameters", "parameters", "count"),
        Column("perplexity", "perplexity", "number"),
        Column("peak_bytes", "most in a step", "bytes"),
        Column(
            "layer_peak_bytes", "of it the layer", "bytes", "", "without embeddings and softmax"
        ),
        Column("step_seconds", "a step", "seconds"),
        Column("inference_seconds", "a test batch", "seconds"),
        Column("evaluations", "evaluations", "count", "", "forward, a step"),
        Column("products", "backward", "count", "", "products or evaluations, a step"),
        Column("converged", "converged", "number", "", "share of the samples, forward"),
        Column("work", "work", "count", "", "evaluations and products of the whole training"),
        Column("seeds", "seeds", "count"),
    ]
    columns = filled(columns, frame)
    text = Markup("Means over the seeds; rest the pointer on a number for its interval.")
    return Table(f"networks-{slug(case.name)}", case.name, text, columns, frame, looks=looks)


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Tied</b>: the equilibrium's own layer, evaluated so many times from the same start"
            " and differentiated through all of them. <b>Untied</b>: layers with weights of their"
            " own, narrower, so that the parameters are as many."
        ),
        Markup(
            "<b>Memory of the layer</b>: without embeddings, softmax and loss, as the paper's"
            " figures leave the embeddings out."
        ),
    ]
