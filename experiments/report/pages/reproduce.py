"""The page of the study ``reproduce``: the claims of the DEQ paper, one by one, beside ours.

The paper's numbers: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models (2019), tables 1 to 4
and figures 3 and 4; those with Jacobian regularisation: the same, Stabilizing Equilibrium Models
(2021), tables 1 and 2. The runs are those of the studies ``language``, ``runtime``, ``depth``,
``vision`` and ``stability``, as far as the store has them; its own are of the copy memory task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report import curves, forest, trainings, words
from experiments.report.blocks import Block, Card, Cards, Column, Figure, Prose, Section, Table
from experiments.report.curves import Axis
from experiments.report.forest import Forest
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.pages.runtime import cases_of
from experiments.report.sections import measured
from experiments.report.trainings import EQUILIBRIUM, EXPLICIT, TIED, Estimate
from experiments.report.words import listed, sentence, strong
from experiments.studies import QUICK

__all__ = ["page"]

OTHERS = ("language", "runtime", "depth", "vision", "stability")
Match = Callable[[Mapping[str, Any]], bool]

_FAMILY = {
    "transformer": "transformer", "universal_transformer": "transformer",
    "trellisnet": "trellisnet", "mlp": "mlp", "mdeq": "mdeq", "revnet": "revnet",
}  # fmt: skip


@dataclass(frozen=True)
class Which:
    """A network that a claim is about.

    Attributes
    ----------
    family, kind
        Of the model; whether it is solved, tied or has layers of its own.
    probe
        Whether its memory was measured, at the paper's length and batch, rather than its training.
    gradient
        How it is differentiated; empty for any.
    depth
        Layers; 0 for any, of which the deepest counts.
    regularised
        Of an equilibrium: with Jacobian regularisation, or without.
    """

    family: str
    kind: str
    probe: bool = False
    gradient: str = ""
    depth: int = 0
    regularised: bool = False

    def of(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Return its runs, on one case, all of one label."""
        rows = runs[
            (runs["family"] == self.family)
            & (runs["kind"] == self.kind)
            & (runs["probe"] == self.probe)
        ]
        if self.gradient:
            rows = rows[rows["gradient"] == self.gradient]
        if self.depth:
            rows = rows[rows["depth"] == self.depth]
        if self.kind == EQUILIBRIUM:
            rows = rows[rows["regularised"] == self.regularised]
            if self.probe:
                rows = rows[rows["config"].map(trainings.as_aimed).astype(bool)]
        elif len(rows):
            rows = rows[rows["depth"].fillna(0) == rows["depth"].fillna(0).max()]
        if rows.empty:
            return rows
        first = rows.iloc[0]
        found: pd.DataFrame = rows[
            (rows["label"] == first["label"]) & (rows["case"] == first["case"])
        ]
        return found


@dataclass(frozen=True)
class Claim:
    """A ratio of the paper.

    Attributes
    ----------
    measure, what
        Of what, and of which network over which.
    numbers
        The paper's two numbers, as printed.
    paper
        Their ratio.
    source
        Where they are printed.
    study
        Which study has ours.
    column
        Of the results.
    top, bottom
        The networks.
    differs
        How the settings differ, besides sizes and text.
    """

    measure: str
    what: str
    numbers: str
    paper: float
    source: str
    study: str
    column: str
    top: Which
    bottom: Which
    differs: str = ""


def _trellis(kind: str, **more: Any) -> Which:
    return Which("trellisnet", kind, **more)


def _transformer(kind: str, **more: Any) -> Which:
    return Which("transformer", kind, **more)


_MEMORY = "memory of a training step"
_LAYER = "layer_peak_bytes"
_EQUAL_LOSS = (
    "seconds to an equal loss here, of a step there; 6 layers of equal parameters here, 18 there"
)
_WORDS = "characters here, words there"
_LEVELS = {"probe": True, "depth": 70}

CLAIMS = (
    Claim(
        _MEMORY, "DEQ-TrellisNet over 60 levels, Penn Treebank", "1.2 of 8.5 GB", 1.2 / 8.5,
        "table 2", "language", _LAYER, _trellis(EQUILIBRIUM, probe=True),
        _trellis(TIED, gradient="unrolled", **_LEVELS), "70 levels here",
    ),
    Claim(
        _MEMORY, "DEQ-TrellisNet over 70 levels, WikiText-103", "3.3 of 24.7 GB", 3.3 / 24.7,
        "table 3", "language", _LAYER, _trellis(EQUILIBRIUM, probe=True),
        _trellis(TIED, gradient="unrolled", **_LEVELS),
    ),
    Claim(
        _MEMORY, "DEQ-TrellisNet over 70 levels with checkpoints", "3.3 of 5.2 GB", 3.3 / 5.2,
        "table 3", "language", _LAYER, _trellis(EQUILIBRIUM, probe=True),
        _trellis(TIED, gradient="checkpointed", **_LEVELS),
    ),
    Claim(
        _MEMORY, "70 levels, with checkpoints over without", "5.2 of 24.7 GB", 5.2 / 24.7,
        "table 3", "language", _LAYER, _trellis(TIED, gradient="checkpointed", **_LEVELS),
        _trellis(TIED, gradient="unrolled", **_LEVELS), "√L segments: 2/√70 is .239",
    ),
    Claim(
        _MEMORY, "DEQ-Transformer over 16 tied layers", "1.1 of 6.8 GB", 1.1 / 6.8, "table 3",
        "language", _LAYER, _transformer(EQUILIBRIUM, probe=True),
        _transformer(TIED, probe=True, gradient="unrolled", depth=16),
    ),
    Claim(
        _MEMORY, "DEQ-Transformer over Transformer-XL", "2.7 of 8.5 GB", 2.7 / 8.5, "table 3",
        "language", "peak_bytes", _transformer(EQUILIBRIUM), _transformer(EXPLICIT),
        "as many layers here as give equal parameters, 18 there; the whole step here",
    ),
    Claim(
        "perplexity", "DEQ-TrellisNet over 60 levels, Penn Treebank", "57.1 of 57.0", 57.1 / 57.0,
        "table 2", "language", "perplexity", _trellis(EQUILIBRIUM), _trellis(TIED), _WORDS,
    ),
    Claim(
        "perplexity", "DEQ-TrellisNet over 70 levels, WikiText-103", "29.0 of 29.2", 29.0 / 29.2,
        "table 3", "language", "perplexity", _trellis(EQUILIBRIUM), _trellis(TIED), _WORDS,
    ),
    Claim(
        "perplexity", "DEQ-Transformer over Transformer-XL", "24.2 of 24.3", 24.2 / 24.3,
        "table 3", "language", "perplexity", _transformer(EQUILIBRIUM), _transformer(EXPLICIT),
        _WORDS,
    ),
    Claim(
        "perplexity", "DEQ-Transformer over 16 tied layers", "32.4 of 34.9", 32.4 / 34.9,
        "table 3", "language", "perplexity", _transformer(EQUILIBRIUM), _transformer(TIED), _WORDS,
    ),
    Claim(
        "time of training", "DEQ-Transformer over Transformer-XL", "2.82 ×", 2.82, "table 4",
        "runtime", "seconds_to_target", _transformer(EQUILIBRIUM), _transformer(EXPLICIT),
        _EQUAL_LOSS,
    ),
    Claim(
        "time of training", "the same with Jacobian regularisation", "1.5 ×", 1.5, "2021, table 1",
        "runtime", "seconds_to_target", _transformer(EQUILIBRIUM, regularised=True),
        _transformer(EXPLICIT), _EQUAL_LOSS,
    ),
    Claim(
        "time of training", "DEQ-TrellisNet over 70 levels", "2.40 ×", 2.40, "table 4",
        "language", "step_seconds", _trellis(EQUILIBRIUM), _trellis(TIED),
    ),
    Claim(
        "time of inference", "DEQ-Transformer over Transformer-XL", "1.76 ×", 1.76, "table 4",
        "runtime", "inference_seconds", _transformer(EQUILIBRIUM), _transformer(EXPLICIT),
    ),
    Claim(
        "time of inference", "DEQ-TrellisNet over 70 levels", "1.64 ×", 1.64, "table 4",
        "language", "inference_seconds", _trellis(EQUILIBRIUM), _trellis(TIED),
    ),
    Claim(
        "evaluations", "DEQ-Transformer, regularised over not", "12 of 30", 12 / 30,
        "2021, table 1", "runtime", "evaluations", _transformer(EQUILIBRIUM, regularised=True),
        _transformer(EQUILIBRIUM),
    ),
    Claim(
        "perplexity", "DEQ-Transformer, regularised over not", "24.9 of 24.0", 24.9 / 24.0,
        "2021, table 1", "runtime", "perplexity", _transformer(EQUILIBRIUM, regularised=True),
        _transformer(EQUILIBRIUM), _WORDS,
    ),
    Claim(
        "evaluations", "MDEQ, regularised over not", "6 of 17", 6 / 17, "2021, table 2", "vision",
        "evaluations", Which("mdeq", EQUILIBRIUM, regularised=True), Which("mdeq", EQUILIBRIUM),
        "digits of 8×8 pixels here, CIFAR-10 there",
    ),
)  # fmt: skip

LARGEST = 1 - 3.3 / 24.7
"""The largest cut in memory that follows from the paper's tables: 86.6 %."""

COPY = {"DEQ-Transformer": 3.5e-6, "TCN": 2.7e-5, "LSTM": 0.0501, "GRU": 0.0491}
"""The paper's losses at copy memory of 400 steps (table 1), in nats."""

NOT_BUILT = (
    "The reversible recurrent network of MacKay et al. (2018) and the pruned adapters of LION are"
    " on the deck too; deq-lab does not have them."
)


@dataclass(frozen=True)
class Line:
    """A claim with what the store says of it."""

    claim: Claim
    ours: Estimate
    top: pd.DataFrame
    bottom: pd.DataFrame

    @property
    def runs(self) -> list[int]:
        """The runs that it is from."""
        return sorted({int(run) for rows in (self.top, self.bottom) for run in rows["run_id"]})

    @property
    def setting(self) -> str:
        """What was run here, in words, and what else differs."""
        if not self.ours.known:
            return self.claim.differs
        config = self.top["config"].iloc[0]
        parts = [str(self.top["data"].iloc[0])]
        for key, name in (("model.width", "width"), ("data.length", "length"), ("batch", "batch")):
            if isinstance(config.get(key), int):
                parts.append(f"{name} {config[key]}")
        steps = config.get("steps")
        if isinstance(steps, int) and not trainings.is_probe(config):
            parts.append(f"{steps} steps")
        said = ", ".join(parts)
        return f"{said}; {self.claim.differs}" if self.claim.differs else said


def page(frames: Frames) -> Page:
    """Return what the store says of the paper's claims."""
    end = QUICK if frames.study.endswith(QUICK) else ""
    both = frames.beside(*(f"{name}{end}" for name in OTHERS))
    runs = _runs(both)
    done = pd.concat(
        [runs[runs["completed"] & (runs["study"] != f"runtime{end}")], _tuned(both, end)]
    )
    lines = [_line(claim, done[done["study"] == claim.study + end]) for claim in CLAIMS]
    copy = done[done["data"] == "copy_memory"]
    copy = copy.assign(delay=[float(c.get("data.delay") or math.nan) for c in copy["config"]])
    blocks: list[Block] = [Prose(trainings.overview(both)), Cards(_cards(lines, copy))]
    absent = list(dict.fromkeys(x.claim.study + end for x in lines if not x.ours.known))
    if absent:
        commands = [Markup("<code>deq study {}</code>").format(_command(name)) for name in absent]
        blocks.append(
            Prose([sentence("Rows without a number of ours wait for {}.", listed(commands))])
        )
    sections = [
        Section("The answer", blocks),
        Section("Row by row", [_table(lines), *_figure(lines)], _LEAD),
        _convergence(both, done, end),
        _copy_memory(both, copy, frames.study),
        Section("What the numbers do not say", [Prose(_caveats(), listed=True)]),
        trainings.failures(both),
        measured(both, [*trainings.definitions(), _LAYER_WORDS]),
    ]
    return Page(
        "The DEQ paper's claims, beside ours",
        "Do the ratios of the paper hold at a size that a laptop trains?",
        [section for section in sections if section is not None],
        {"trainings": runs.drop(columns="config")},
    )


_LEAD = Markup(
    "A ratio is the first network's number over the second's, taken seed by seed; its interval is"
    " of 95 %. Memory and counts do not depend on the seed."
)
_LAYER_WORDS = Markup(
    "<b>Memory of the layer</b>: as the paper measures it, the step without embeddings and readout,"
    " at length 150 and batch 15."
)


def _command(study: str) -> str:
    name = study.removesuffix(QUICK)
    return f"{name} with quick=true" if study != name else name


def _runs(frames: Frames) -> pd.DataFrame:
    runs = trainings.runs(frames)
    runs["study"] = runs["run_id"].map(frames.runs.set_index("id")["study"]).fillna("")
    runs["family"] = [_FAMILY.get(str(name), str(name)) for name in runs["model"]]
    runs["probe"] = [trainings.is_probe(config) for config in runs["config"]]
    # Labels tell apart within a study and its two kinds of runs.
    groups = runs.groupby(["study", "probe"], sort=False)
    parts = [trainings.labelled(group) for _, group in groups]
    return pd.concat(parts) if parts else runs.assign(label="", network="")


def _tuned(frames: Frames, end: str) -> pd.DataFrame:
    """Return the runs of ``runtime`` as its page sees them: each network at its best rate."""
    study = f"runtime{end}"
    own = frames.runs[frames.runs["study"] == study]
    cases = cases_of(replace(frames, runs=own)) if len(own) else []
    parts = [case.runs.assign(seconds_to_target=case.runs["to_seconds"]) for case in cases]
    if not parts:
        return pd.DataFrame()
    found = pd.concat(parts).assign(study=study, probe=False)
    return found.assign(family=[_FAMILY.get(str(name), str(name)) for name in found["model"]])


def _pretrained(config: Mapping[str, Any]) -> bool:
    """Whether all but the end was a network of tied layers, so that nothing grew."""
    return bool(config.get("pretrain.steps"))


def _line(claim: Claim, runs: pd.DataFrame) -> Line:
    top, bottom = claim.top.of(runs), claim.bottom.of(runs)
    return Line(claim, trainings.ratio(top, bottom, claim.column), top, bottom)


def _cards(lines: Sequence[Line], copy: pd.DataFrame) -> list[Card]:
    cards = []
    for measure in dict.fromkeys(line.claim.measure for line in lines):
        known = [line for line in lines if line.claim.measure == measure and line.ours.known]
        if not known:
            continue
        said = [
            sentence(
                "{}: {} here, {} in the paper.",
                strong(line.claim.what),
                line.ours.text(trainings.three),
                trainings.three(line.claim.paper),
            )
            for line in known
        ]
        met = [line for line in known if line.ours.value <= line.claim.paper]
        if len(known) == 1:
            headline = "at or below the paper's" if met else "above the paper's"
        else:
            headline = f"{len(met)} of {len(known)} at or below the paper's"
        if measure == _MEMORY:
            best = min(known, key=lambda line: line.ours.value)
            said.insert(
                0,
                sentence(
                    "The largest cut here is {}. The paper's tables give {} at most; the 88 % of"
                    " its abstract does not follow from them.",
                    strong(f"{100 * (1 - best.ours.value):.1f} %"),
                    f"{100 * LARGEST:.1f} %",
                ),
            )
        cards.append(
            Card(words.capital(Markup(measure)), Markup(), Markup(headline), [Prose(said)])
        )
    if len(copy):
        longest = copy[copy["delay"] == copy["delay"].max()]
        headline = sentence(
            "{} nats at a delay of {}",
            words.small(trainings.mean(longest["loss"]).value),
            f"{longest['delay'].iloc[0]:g}",
        )
        cards.append(Card("Copy memory", Markup(), headline, [Prose(_copied(copy))]))
    if not cards:
        none = Prose([trainings.missing_runs("completed", "reproduce")])
        cards.append(Card("Nothing yet", Markup(), Markup("no runs"), [none]))
    return cards


def _copied(copy: pd.DataFrame) -> list[Markup]:
    said = []
    for delay in sorted(copy["delay"].unique()):
        runs = copy[copy["delay"] == delay]
        found, size = trainings.mean(runs["loss"]), runs["parameters"].dropna()
        blind = 10 * math.log(8) / (delay + 20)
        below = "below" if found.value < blind else "not below"
        said.append(
            sentence(
                "{}: {} after {} steps{}, {} the {} of a network without memory.",
                strong(f"A delay of {delay:g}"),
                found.text(words.small, seeds=True),
                str(runs["config"].iloc[0].get("steps", "?")),
                f" with {int(size.iloc[0]):,} parameters" if len(size) else "",
                below,
                words.small(blind),
            )
        )
    said.append(
        sentence(
            "The paper, at a delay of 400 and trained for long: {}.",
            listed([f"{name} {words.small(loss)}" for name, loss in COPY.items()]),
        )
    )
    return said


def _table(lines: Sequence[Line]) -> Table:
    frame = pd.DataFrame(
        [
            {
                "measure": line.claim.measure,
                "what": line.claim.what,
                "numbers": f"{line.claim.numbers} ({line.claim.source})",
                "paper": trainings.three(line.claim.paper),
                "ours": trainings.three(line.ours.value) if line.ours.known else "–",
                "interval": f"{trainings.three(line.ours.low)} to {trainings.three(line.ours.high)}"
                if line.ours.certain
                else "–",
                "seeds": line.ours.number or (1 if line.ours.known else 0),
                "setting": line.setting,
                "study": line.claim.study,
                "value": line.ours.value,
                "low": line.ours.low,
                "high": line.ours.high,
                "paper_value": line.claim.paper,
                "met": line.ours.known,
                "runs": line.runs,
            }
            for line in lines
        ]
    )
    columns = (
        Column("measure", "ratio of"),
        Column("what", "of which over which"),
        Column("numbers", "the paper's numbers"),
        Column("paper", "the paper"),
        Column("ours", "here"),
        Column("interval", "95 %"),
        Column("seeds", "seeds", "count"),
        Column("setting", "what was run here, and what differs"),
        Column("study", "study"),
    )
    text = Markup("Sizes differ throughout: the paper's networks have millions of parameters.")
    return Table("claims", "The paper's rows, and ours", text, columns, frame)


def _figure(lines: Sequence[Line]) -> list[Figure]:
    known = [line for line in lines if line.ours.known]
    if not known:
        return []
    rows = []
    for line in known:
        low, high = (line.ours.low, line.ours.high) if line.ours.certain else (math.nan, math.nan)
        shared = {"measure": line.claim.measure, "name": _short(line.claim.what)}
        rows += [
            {**shared, "label": "here", "x": line.ours.value, "low": low, "high": high,
             "seeds": line.ours.number or 1, "runs": line.runs},
            {**shared, "label": "the paper", "x": line.claim.paper, "low": math.nan,
             "high": math.nan, "seeds": 0, "runs": []},
        ]  # fmt: skip
    frame = pd.DataFrame(rows)
    looks = curves.palette(["here", "the paper"])
    panels = [
        Forest(str(measure), group, Axis("ratio", log=True), rules=(1.0,))
        for measure, group in frame.groupby("measure", sort=False)
    ]
    return [
        Figure(
            "claims",
            "Ratios, ours and the paper's",
            Markup(
                "Left of the line at 1 the equilibrium needs less, or does better. Where the two"
                " marks of a row lie together, the claim holds at our size; bars are intervals over"
                " seeds."
            ),
            lambda: forest.draw(panels, looks, columns=1, width=460),
        )
    ]


def _short(what: str) -> str:
    """Return the name of a row of the figure, which has little room."""
    for long, short in (
        ("DEQ-Tr", "Tr"),
        (", Penn Treebank", " (PTB)"),
        (", WikiText-103", " (WT103)"),
        (" over ", " / "),
        ("with checkpoints / without", "√L / whole"),
        (" with checkpoints", " √L"),
        (" with Jacobian regularisation", ", regularised"),
    ):
        what = what.replace(long, short)
    return what


def _convergence(frames: Frames, done: pd.DataFrame, end: str) -> Section | None:
    """Return what becomes of the evaluations over training, in words: the paper's figure 4."""
    runs = done[(done["study"] == f"stability{end}") & (done["kind"] == EQUILIBRIUM)]
    runs = runs[(runs["solver"] == "broyden") & ~runs["regularised"]]
    runs = runs[(runs["family"] == "transformer") & ~runs["config"].map(_pretrained).astype(bool)]
    if runs.empty:
        return None
    points = trainings.series(frames, runs, "train.evaluations", "train.products")
    rows = []
    for run, group in points.groupby("run_id", sort=False):
        ahead = group[group["name"] == "train.evaluations"].sort_values("step")["value"]
        back = group[group["name"] == "train.products"]["value"]
        part = max(1, len(ahead) // 5)
        rows.append(
            {"run_id": run, "early": ahead[:part].mean(), "late": ahead[-part:].mean(),
             "backward": back.mean(), "forward": ahead.mean()}
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    growth = trainings.mean(frame["late"] / frame["early"])
    share = trainings.mean(frame["backward"] / frame["forward"])
    early, late = trainings.mean(frame["early"]), trainings.mean(frame["late"])
    grew = "more" if late.value > early.value else "fewer"
    said = [
        sentence(
            "{}: the paper says that they grow as training goes on. Here the last fifth of the"
            " steps takes {} evaluations than the first: {} and {}, {} times as many.",
            strong("Broyden's forward evaluations"),
            grew,
            late.text(),
            early.text(),
            growth.text(),
        ),
        sentence(
            "{}: the paper says that the backward needs far fewer than the forward. Here it takes"
            " {} products for each evaluation of the forward.",
            strong("The backward"),
            share.text(),
        ),
    ]
    return Section("Broyden over training", [Prose(said)])


def _copy_memory(frames: Frames, copy: pd.DataFrame, study: str) -> Section:
    if copy.empty:
        return Section("Copy memory", [Prose([trainings.missing_runs("copied", study)])])
    points = trainings.series(frames, copy, "train.loss")
    curve = trainings.smoothed(trainings.along(points, "train.loss", "step"), 0.05)
    labels = [f"a delay of {delay:g}" for delay in curve["delay"]]
    lines = trainings.interpolated(curve.assign(label=labels), ["label"])
    looks = curves.palette(sorted(set(labels)))
    blocks: list[Block] = [Prose(_copied(copy), listed=True)]
    if len(lines):
        blocks.append(
            Figure(
                "copy-memory",
                "The loss while it learns to copy",
                Markup(
                    "Without any memory the loss stays at 10 ln 8 over the length. Where the curve"
                    " falls below that, the network carries symbols across the blanks."
                ),
                lambda: curves.draw(
                    [curves.Panel("copy memory", lines, Axis("steps"), Axis("loss", log=True))],
                    looks,
                    columns=1,
                ),
            )
        )
    return Section("Copy memory", blocks)


def _caveats() -> list[Markup]:
    return [
        sentence(
            "{}: the abstract speaks of up to 88 % less memory. The largest cut in the tables is"
            " 1 − 3.3/24.7 = {}.",
            strong("The 88 %"),
            f"{100 * LARGEST:.1f} %",
        ),
        sentence(
            "{}: bytes are counted storage by storage, without what an allocator adds; the paper"
            " reads a GPU's allocator. Solver histories are counted here.",
            strong("Memory"),
        ),
        sentence(
            "{}: the paper divides seconds of a step at a fixed tolerance. Ours to an equal loss"
            " depend on how well each network was tuned; both are in the report of"
            " <code>runtime</code>.",
            strong("Time"),
        ),
        sentence(
            "{}: the paper's perplexities come from days of training at millions of parameters;"
            " ours from minutes at thousands, with untuned data. A ratio near 1 here says that the"
            " equilibrium costs no accuracy at this size, and no more.",
            strong("Perplexity"),
        ),
        Markup.escape(NOT_BUILT),
    ]
