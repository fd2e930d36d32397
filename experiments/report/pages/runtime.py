"""The page of the study ``runtime``: seconds to a loss that all reach, and seconds of inference.

The paper's numbers that stand beside ours: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models
(2019), table 4; with the Jacobian regularised: Bai, Koltun, Kolter, Stabilizing Equilibrium Models
by Jacobian Regularization (2021), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
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
from experiments.report.curves import Axis, Panel, Rule
from experiments.report.forest import Forest
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.sections import measured
from experiments.report.trainings import EQUILIBRIUM, EXPLICIT, TIED, Estimate
from experiments.report.words import listed, sentence, strong

__all__ = ["cases_of", "page"]

TRAINING_PAPER, INFERENCE_PAPER = (2.82, 2.40), (1.76, 1.64)
"""DEQ-Transformer over 18 layers, DEQ-TrellisNet over 70 levels (2019, table 4)."""
REGULARISED_PAPER = 1.5
"""Training time with the Jacobian regularised, over Transformer-XL (2021; 3.1 without)."""
EVALUATIONS_PAPER = 12
"""Evaluations of the regularised DEQ-Transformer (2021; 30 without)."""
TRAINING_AIM, INFERENCE_AIM, EVALUATIONS_AIM, WORSE_AIM = 1.5, 1.2, 12, 1.01
"""What is hoped for here: ratios, evaluations, and how many times the loss may be."""

SLACK = 1.02
"""Seconds are to so many times the loss that all reach: where a curve is flat, it is chance when it
comes to its last value."""

_RATE = "optimiser.learning_rate"


@dataclass(frozen=True)
class Case:
    """Trainings of one model's networks on one data set.

    Attributes
    ----------
    name
        Model and data.
    target
        The test loss to which seconds are counted.
    given
        Whether the configs named it; else it is what all networks reach.
    tried
        All completed runs, with ``label`` (the network), ``rate``, ``to_seconds`` and ``to_work``
        (to the target; NaN if it was not reached).
    """

    name: str
    target: float
    given: bool
    tried: pd.DataFrame

    @cached_property
    def rates(self) -> dict[str, float]:
        """The learning rate of each network with which it reaches the target soonest."""
        found = {}
        for label, rows in self.tried.groupby("label", sort=False):
            by_rate = rows.groupby("rate", dropna=False)
            order = sorted(
                (
                    (
                        int(group["to_seconds"].isna().sum()),
                        _finite(group["to_seconds"].mean()),
                        _finite(group["loss"].mean()),
                        float(str(rate)),
                    )
                    for rate, group in by_rate
                ),
            )
            found[str(label)] = order[0][3]
        return found

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The runs with the best learning rate of their network."""
        best = self.tried["label"].map(self.rates)
        same = (self.tried["rate"] == best) | (self.tried["rate"].isna() & best.isna())
        return self.tried[same]

    def of(self, label: str) -> pd.DataFrame:
        """Return the runs of a network."""
        rows: pd.DataFrame = self.runs[self.runs["label"] == label]
        return rows

    @cached_property
    def solved(self) -> list[str]:
        """The equilibria, the plain ones first."""
        rows = self.runs[self.runs["kind"] == EQUILIBRIUM].sort_values("regularised", kind="stable")
        return [str(label) for label in rows["label"].unique()]

    @cached_property
    def plain(self) -> str | None:
        """The equilibrium without regularisation."""
        return self._first(regularised=False)

    @cached_property
    def regularised(self) -> str | None:
        """The equilibrium with the Jacobian regularised, the soonest at the target."""
        return self._first(regularised=True)

    def _first(self, *, regularised: bool) -> str | None:
        rows = self.runs[self.runs["label"].isin(self.solved)]
        rows = rows[rows["regularised"] == regularised]
        return None if rows.empty else _soonest(rows)

    @cached_property
    def explicit(self) -> str | None:
        """The explicit network, tied or not, that is at the target soonest."""
        rows = self.runs[self.runs["kind"] != EQUILIBRIUM]
        return None if rows.empty else _soonest(rows)

    @cached_property
    def others(self) -> list[str]:
        """The networks of so many layers, untied first, by depth."""
        rows = self.runs[self.runs["kind"] != EQUILIBRIUM]
        rows = rows.sort_values(["kind", "depth"], kind="stable")
        return [str(label) for label in rows["label"].unique()]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _soonest(rows: pd.DataFrame) -> str:
    """Return the label that is at the target soonest, of those that are with all seeds first."""
    order = {
        str(label): (int(v.isna().sum()), _finite(float(v.mean())))
        for label, v in rows.groupby("label", sort=False)["to_seconds"]
    }
    return min(order, key=lambda label: order[label])


def cases_of(frames: Frames) -> list[Case]:
    """Return the completed trainings, model by model, each network at its best learning rate."""
    runs = _runs(frames)
    return _cases(frames, runs[runs["completed"]])


def _runs(frames: Frames) -> pd.DataFrame:
    runs = trainings.runs(frames)
    runs["rate"] = [_number(config.get(_RATE)) for config in runs["config"]]
    runs["label"] = [trainings.network(config) for config in runs["config"]]
    # A Universal Transformer is the transformer's layer, so many times.
    runs["case"] = runs["case"].str.removeprefix("universal_")
    return runs


def page(frames: Frames) -> Page:
    """Return what the runs of ``runtime`` say."""
    runs = _runs(frames)
    cases = _cases(frames, runs[runs["completed"]])
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    if cases:
        blocks.append(Cards([_card(case) for case in cases]))
    else:
        blocks.append(Prose([trainings.missing_runs("completed", frames.study)]))
    labels = [label for case in cases for label in [*case.solved, *case.others]]
    looks = curves.palette(labels)
    best = pd.concat([case.runs for case in cases]) if cases else runs.iloc[:0]
    parts = [
        Section("The answer", blocks),
        section("Beside the paper", [_table_of_ratios(cases), _forest(cases)]),
        section("Against depth", [_depths(cases)]),
        section(
            "On the way",
            [_courses(frames, best, cases, looks), _solves(frames, best, looks)],
        ),
        section("The networks", [_networks(case, looks) for case in cases]),
        trainings.failures(frames),
        measured(frames, [*_definitions(cases), *trainings.definitions()]),
    ]
    return Page(
        "What an equilibrium costs in time",
        "How many times the seconds of explicit layers does an equilibrium take, to the same loss"
        " and in inference, and how many fewer with its Jacobian regularised?",
        [part for part in parts if part is not None],
        {"trainings": runs.drop(columns="config"), "runs": frames.runs},
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# The loss that all reach ------------------------------------------------------------------------


def _cases(frames: Frames, done: pd.DataFrame) -> list[Case]:
    points = trainings.series(frames, done, "test.loss", "train.seconds", "train.work")
    seconds = trainings.along(points, "test.loss", "train.seconds")
    work = trainings.along(points, "test.loss", "train.work")
    found = []
    for name, rows in done.groupby("case", sort=False):
        curve = seconds[seconds["run_id"].isin(rows["run_id"])]
        if curve.empty:
            continue
        least = curve.groupby("run_id")["y"].min()
        given = {config.get("target_loss") for config in rows["config"]} - {None}
        target = float(given.pop()) if len(given) == 1 else _common(rows, least)
        tried = rows.assign(
            to_seconds=[_reached(seconds, run, target) for run in rows["run_id"]],
            to_work=[_reached(work, run, target) for run in rows["run_id"]],
        )
        asked = any(config.get("target_loss") is not None for config in rows["config"])
        found.append(Case(str(name), target, asked, tried))
    return found


def _common(rows: pd.DataFrame, least: pd.Series) -> float:
    """Return what each network reaches with all seeds at one of its rates, and a little more."""
    worst = rows.assign(least=rows["run_id"].map(least)).dropna(subset=["least"])
    at_rate = worst.groupby(["label", "rate"], dropna=False)["least"].max()
    return SLACK * float(at_rate.groupby("label").min().max())


def _reached(points: pd.DataFrame, run: int, target: float) -> float:
    """Return x where a run's curve first comes down to the target, between two evaluations."""
    line = points[points["run_id"] == run].sort_values("step", kind="stable")
    x, y = line["x"].to_numpy(float), line["y"].to_numpy(float)
    below = np.flatnonzero(y <= target)
    if not len(below):
        return math.nan
    k = int(below[0])
    if k == 0 or not math.isfinite(y[k - 1]):
        return float(x[k])
    share = (y[k - 1] - target) / (y[k - 1] - y[k])
    return float(x[k - 1] + share * (x[k] - x[k - 1]))


# Ratios -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A ratio of the page: an equilibrium over a network of layers."""

    case: str
    measure: str
    above: str
    below: str
    ours: Estimate
    paper: str
    aim: float
    runs: Sequence[int]

    @property
    def reached(self) -> bool | None:
        """Whether the hope came true; None without one."""
        return None if math.isnan(self.aim) else self.ours.at_most(self.aim)


def _ratio(case: Case, above: str | None, below: str | None, column: str) -> Estimate:
    if above is None or below is None:
        return Estimate(math.nan)
    return trainings.ratio(case.of(above), case.of(below), column)


def _rows(case: Case) -> list[Row]:
    found = []
    for measure, column in (("training", "to_seconds"), ("inference", "inference_seconds")):
        for above in case.solved:
            for below in case.others:
                ours = _ratio(case, above, below, column)
                if not ours.known:
                    continue
                fastest = below == case.explicit
                aim = TRAINING_AIM if measure == "training" else INFERENCE_AIM
                ids = sorted(
                    {int(r) for r in [*case.of(above)["run_id"], *case.of(below)["run_id"]]}
                )
                found.append(
                    Row(
                        case.name,
                        measure,
                        above,
                        below,
                        ours,
                        _paper(case, measure, above == case.regularised),
                        aim if fastest else math.nan,
                        ids,
                    )
                )
    return found


def _paper(case: Case, measure: str, regularised: bool) -> str:
    position = 1 if case.name.startswith("trellisnet") else 0
    if measure == "inference":
        return f"{INFERENCE_PAPER[position]}"
    return f"{REGULARISED_PAPER}" if regularised else f"{TRAINING_PAPER[position]}"


def _table_of_ratios(cases: Sequence[Case]) -> Table | None:
    rows = [row for case in cases for row in _rows(case)]
    if not rows:
        return None
    frame = pd.DataFrame(
        [
            {
                "case": row.case,
                "measure": "training, to the loss" if row.measure == "training" else row.measure,
                "above": row.above,
                "below": row.below,
                "ours": words.digits(row.ours.value),
                "interval": row.ours.interval(),
                "paper": row.paper,
                "aim": "–" if math.isnan(row.aim) else f"≤\u00a0{row.aim:g}",
                "so": {True: "reached", False: "missed", None: "–"}[row.reached],
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
        Column("case", "on"),
        Column("measure", "seconds of"),
        Column("above", "equilibrium"),
        Column("below", "over"),
        Column("ours", "here"),
        Column("interval", "95 %"),
        Column("paper", "the paper"),
        Column("aim", "hoped"),
        Column("so", "so"),
    ]
    text = Markup(
        "Each network with the learning rate that suits it best. The paper's networks are of 18"
        " layers and 70 levels, on four GPUs; only its deep ones take long enough to be near an"
        " equilibrium's time. What is hoped for is set against the network of layers that is"
        " fastest. Rows marked with ○ missed it."
    )
    return Table("ratios", "Equilibrium over layers", text, columns, frame)


def _forest(cases: Sequence[Case]) -> Figure | None:
    panels = []
    labels = list(dict.fromkeys(label for case in cases for label in case.solved))
    looks = {**curves.palette(labels), "the paper": Look("#1c8a5a", (4, 3), "diamond")}
    for measure in ("training", "inference"):
        for case in cases:
            made: list[dict[str, Any]] = []
            for row in (row for row in _rows(case) if row.measure == measure):
                made.append(
                    {
                        "name": row.below,
                        "label": row.above,
                        "x": row.ours.value,
                        "low": row.ours.low,
                        "high": row.ours.high,
                        "runs": row.runs,
                    }
                )
            if made:
                rows = pd.DataFrame(made)
                axis = Axis("times the seconds", "number", log=True)
                what = "to the same loss" if measure == "training" else "a test batch"
                panels.append(Forest(f"{measure}, {case.name}", rows, axis, what, rules=(1.0,)))
    if not panels:
        return None
    text = Markup(
        "How many times the seconds of each network of layers an equilibrium takes, with 95 %"
        " intervals. At the dashed line both take as long. See: the deeper the other network, the"
        " nearer the equilibrium comes, and what regularisation saves."
    )
    return Figure(
        "ratios",
        "Seconds, equilibrium over layers",
        text,
        lambda: forest.draw(panels, looks, columns=2, width=280),
    )


# What is said -----------------------------------------------------------------------------------


def _card(case: Case) -> Card:
    how = "the configs' target" if case.given else "which every network reached"
    subtitle = sentence("seconds are to a test loss of {}, {}", words.digits(case.target), how)
    parts = [
        Prose(_training(case), "Training", listed=True),
        Prose(_inference(case), "Inference", listed=True),
        Prose(_regularisation(case), "With the Jacobian regularised", listed=True),
        Prose(_rates(case), "Learning rates", listed=True),
    ]
    return Card(case.name, subtitle, _headline(case), [p for p in parts if p.paragraphs])


def _headline(case: Case) -> Markup:
    said = []
    for label, paper in (
        (case.plain, TRAINING_PAPER[1 if case.name.startswith("trellisnet") else 0]),
        (case.regularised, REGULARISED_PAPER),
    ):
        train = _ratio(case, label, case.explicit, "to_seconds")
        infer = _ratio(case, label, case.explicit, "inference_seconds")
        if train.known:
            said.append(
                sentence(
                    "{} takes {} times the seconds of the fastest network of layers, {} (the paper:"
                    " {}), and {} times in inference.",
                    label,
                    strong(train.text()),
                    case.explicit,
                    f"{paper:g}",
                    strong(infer.text()),
                )
            )
        elif label is not None:
            said.append(sentence("{} did not reach the loss with any seed.", label))
    return Markup(" ").join(said) or trainings.missing_runs(
        "an equilibrium and layers to the same loss", "runtime"
    )


def _training(case: Case) -> list[Markup]:
    said = []
    for label in [*case.solved, *case.others]:
        rows = case.of(label)
        found = trainings.mean(rows["to_seconds"])
        lost = int(rows["to_seconds"].isna().sum())
        if not found.known:
            said.append(sentence("{}: not reached with any of {} seeds.", strong(label), len(rows)))
            continue
        text = sentence("{}: {}", strong(label), found.text(words.seconds))
        steps = rows["step_seconds"].mean()
        text += sentence(", {} a step", words.seconds(float(steps)))
        text += sentence("; {} of {} seeds did not reach it", lost, len(rows)) if lost else Markup()
        said.append(text + Markup("."))
    deepest = case.others[-1:] if case.others else []
    for label in deepest:
        ours = _ratio(case, case.plain, label, "to_seconds")
        if ours.known and label != case.explicit:
            said.append(
                sentence(
                    "Against {}, the deepest: {} times.", strong(label), ours.text(words.digits)
                )
            )
    return said


def _inference(case: Case) -> list[Markup]:
    said = []
    for label in [*case.solved, *case.others]:
        rows = case.of(label)
        found = trainings.mean(rows["inference_seconds"])
        if found.known:
            text = sentence("{}: {} a test batch", strong(label), found.text(words.seconds))
            spent = float(rows["test_evaluations"].mean())
            if label in case.solved and math.isfinite(spent):
                text += sentence(", {} evaluations", words.digits(spent, 3))
            said.append(text + Markup("."))
    return said


def _regularisation(case: Case) -> list[Markup]:
    if case.plain is None or case.regularised is None:
        return []
    plain, rows = case.of(case.plain), case.of(case.regularised)
    evaluations = [float(found["evaluations"].mean()) for found in (plain, rows)]
    loss = trainings.ratio(rows, plain, "loss")
    said = []
    if all(math.isfinite(value) for value in evaluations):
        few = evaluations[1] <= EVALUATIONS_AIM
        said.append(
            sentence(
                "{} evaluations a step instead of {}: {} (the paper: {} instead of 30).",
                strong(words.digits(evaluations[1], 3)),
                words.digits(evaluations[0], 3),
                f"at most {EVALUATIONS_AIM}, as hoped" if few else f"more than {EVALUATIONS_AIM}",
                EVALUATIONS_PAPER,
            )
        )
    if loss.known:
        good = loss.value <= WORSE_AIM
        said.append(
            sentence(
                "Its loss at the end is {} times that without: {}.",
                strong(loss.text(lambda v: f"{v:.3f}")),
                "at most 1 % worse" if good else "more than 1 % worse",
            )
        )
    step = trainings.ratio(rows, plain, "step_seconds")
    if step.known:
        said.append(
            sentence("A step takes {} times the seconds, the penalty included.", step.text())
        )
    return said


def _rates(case: Case) -> list[Markup]:
    tried = sorted({float(rate) for rate in case.tried["rate"].dropna()})
    if len(tried) < 2:
        return []
    best = [f"{label} {case.rates[label]:g}" for label in [*case.solved, *case.others]]
    text = sentence("Tried for each network: {}.", listed([f"{rate:g}" for rate in tried]))
    ends = [label for label in case.rates if case.rates[label] in (tried[0], tried[-1])]
    text += sentence(" Soonest at the loss: {}.", listed(best))
    if ends and len(tried) > 2:
        text += sentence(" At the end of what was tried: {}.", listed(ends))
    return [text]


# What is drawn ----------------------------------------------------------------------------------


_TIED_LABEL, _UNTIED_LABEL = "tied layers", "untied layers"


def _depths(cases: Sequence[Case]) -> Figure | None:
    panels: list[Panel] = []
    names: list[str] = []
    depths = sorted({float(d) for case in cases for d in case.runs["depth"].dropna()})
    across = Axis("layers", "count", log=True, ticks=depths)
    for case in cases:
        for column, title in (("to_seconds", "to the loss"), ("inference_seconds", "a test batch")):
            rows = _by_depth(case, column)
            if rows["x"].notna().any():
                names += list(rows["label"])
                up = Axis("seconds", "seconds", log=True)
                what = "training" if column == "to_seconds" else "inference"
                panels.append(
                    Panel(case.name, rows, across, up, f"{what}, {title}", flat=case.solved)
                )
    if not panels:
        return None
    looks = curves.palette(sorted(set(names), key=lambda n: (n in (_TIED_LABEL, _UNTIED_LABEL), n)))
    text = Markup(
        "Seconds to the loss, and of a test batch, by the number of layers; equilibria, which have"
        " no depth, as lines across, with 95 % intervals. See: where a line crosses the points is"
        " the depth from which on an equilibrium is the faster one."
    )
    return Figure("depth", "Seconds against depth", text, lambda: curves.draw(panels, looks))


def _by_depth(case: Case, column: str) -> pd.DataFrame:
    made = []
    for label in [*case.solved, *case.others]:
        rows = case.of(label)
        found = trainings.mean(rows[column])
        if not found.known:
            continue
        kind = rows["kind"].iloc[0]
        name = {TIED: _TIED_LABEL, EXPLICIT: _UNTIED_LABEL}.get(kind, label)
        depth = 1.0 if kind == EQUILIBRIUM else float(rows["depth"].iloc[0])
        made.append(
            {
                "label": name,
                "x": depth,
                "y": found.value,
                "low": found.low,
                "high": found.high,
                "runs": sorted(int(run) for run in rows["run_id"]),
            }
        )
    columns = ["label", "x", "y", "low", "high", "runs"]
    return pd.DataFrame(made, columns=columns).sort_values("x", kind="stable")


def _courses(
    frames: Frames, best: pd.DataFrame, cases: Sequence[Case], looks: Mapping[str, Look]
) -> Figure | None:
    rules = {case.name: [Rule(case.target, "seconds are counted to here")] for case in cases}
    up = Axis("test loss", "number", log=True)
    xs = ("train.seconds", "step")
    panels = curves.progress(frames, best, "test.loss", up, looks, xs=xs, rules=rules)
    panels = [p for p in panels if p.rows["x"].nunique() > 1]
    if not panels:
        return None
    text = Markup(
        "Test loss by seconds of training, and by steps, each network with its best learning rate;"
        " means over the seeds with 95 % intervals. Seconds are those of training steps alone."
    )
    return Figure("loss", "Loss against time", text, lambda: curves.draw(panels, looks))


def _solves(frames: Frames, best: pd.DataFrame, looks: Mapping[str, Look]) -> Figure | None:
    rows = best[best["kind"] == EQUILIBRIUM]
    panels: list[Panel] = []
    for name, title in (
        ("train.evaluations", "evaluations, forward"),
        ("train.products", "products, backward"),
    ):
        up = Axis(title, "count")
        found = curves.progress(frames, rows, name, up, looks, xs=("step",), smooth=0.1)
        panels += [p for p in found if p.rows["x"].nunique() > 1]
    if not panels:
        return None
    text = Markup(
        "What the solves of a training step take, averaged over a tenth of the training. See:"
        " whether they grow as the network learns, and what regularisation does against it."
    )
    return Figure(
        "solves", "Evaluations over the training", text, lambda: curves.draw(panels, looks)
    )


def _networks(case: Case, looks: Mapping[str, Look]) -> Table:
    values = [
        "to_seconds", "to_work", "loss", "parameters", "step_seconds", "inference_seconds",
        "evaluations", "products", "test_evaluations", "converged", "peak_bytes", "seconds",
    ]  # fmt: skip
    frame = trainings.grouped(case.tried, ["label", "rate"], values)
    frame["chosen"] = [
        "✓" if case.rates.get(str(label)) == rate else ""
        for label, rate in zip(frame["label"], frame["rate"], strict=True)
    ]
    columns = [
        Column("label", "network", "series"),
        Column("rate", "learning rate", "error"),
        Column("chosen", "soonest"),
        Column("to_seconds", "to the loss", "seconds"),
        Column("to_work", "work to it", "count", "", "evaluations and products"),
        Column("loss", "loss at the end", "number"),
        Column("parameters", "parameters", "count"),
        Column("step_seconds", "a step", "seconds"),
        Column("inference_seconds", "a test batch", "seconds"),
        Column("evaluations", "evaluations", "count", "", "forward, a step"),
        Column("products", "backward", "count", "", "products or evaluations, a step"),
        Column("peak_bytes", "most in a step", "bytes"),
        Column("seeds", "seeds", "count"),
    ]
    columns = filled(columns, frame)
    text = Markup(
        "All that was trained. Means over the seeds; rest the pointer on a number for its interval."
    )
    return Table(f"networks-{slug(case.name)}", case.name, text, columns, frame, looks=looks)


def _definitions(cases: Sequence[Case]) -> list[Markup]:
    said = [
        sentence(
            "{}: where the curve of the test loss first comes down to it, interpolated between two"
            " evaluations. Unless the configs name it, it is 2 % above the least loss that each"
            " network reaches with all its seeds at one of its learning rates.",
            strong("Seconds to the loss"),
        ),
        Markup(
            "<b>Learning rates</b>: every network, equilibrium or not, was trained with the same"
            " ones, and each is judged by the one with which it is at the loss soonest."
        ),
    ]
    return said if cases else said[:1]
