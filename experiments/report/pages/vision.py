"""The page of the study ``vision``: equilibria on images beside explicit networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import arms, curves, forest, sections, trainings, words
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
    section,
)
from experiments.report.colours import Look
from experiments.report.curves import Axis, Panel
from experiments.report.forest import Forest
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.trainings import EQUILIBRIUM, EXPLICIT, Estimate, ratio
from experiments.report.words import listed, plural, sentence, strong

__all__ = ["page"]

STUDY = "vision"

# What is hoped for on the data: the accuracy of a model; the evaluations of a regularised one, at
# so much more loss than without.
ACCURACY: Mapping[tuple[str, str], float] = {
    ("mlp", "digits"): 0.97,
    ("mdeq", "digits"): 0.985,
}
EVALUATIONS, WORSE = 6.0, 1.01
# Numbers published for the same models on CIFAR-10: accuracy in per cent at so many evaluations.
PUBLISHED = (
    "Published for MDEQ on CIFAR-10 (Bai, Koltun and Kolter 2021): 93.6 % at 17 evaluations, 93.1 %"
    " at 6 with the regularisation of the Jacobian, 89.1 % where the same model is stopped at 6"
    " without it; for monotone networks (Winston and Kolter 2020) 89.4 % at 24."
)
_SAME_SIZE = 0.2  # two networks whose parameters differ by less than this are of one size


@dataclass(frozen=True)
class Case:
    """All trainings on one data set: rows of :func:`trainings.runs` with their ``arm``."""

    name: str
    runs: pd.DataFrame
    points: pd.DataFrame

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The runs that completed."""
        found: pd.DataFrame = self.runs[self.runs["completed"]]
        return found

    @cached_property
    def arms(self) -> list[str]:
        """The networks, in the order of their first run."""
        return list(dict.fromkeys(self.runs["arm"]))

    def of(self, arm: str) -> pd.DataFrame:
        """Return the completed runs of a network."""
        found: pd.DataFrame = self.ends[self.ends["arm"] == arm]
        return found

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Networks with and without the regularisation, alike in all else: (without, with)."""
        found = []
        for arm in self.arms:
            rows = self.runs[self.runs["arm"] == arm]
            if not rows["regularised"].any():
                continue
            own = _rest(rows["config"].iloc[0])
            for other in self.arms:
                there = self.runs[self.runs["arm"] == other]
                if not there["regularised"].any() and _rest(there["config"].iloc[0]) == own:
                    found.append((other, arm))
        return found

    @cached_property
    def twins(self) -> list[tuple[str, str]]:
        """An equilibrium and an explicit network of about as many parameters: (it, the other)."""
        sizes = {arm: self.of(arm)["parameters"].mean() for arm in self.arms}
        kinds = {arm: self.runs.loc[self.runs["arm"] == arm, "kind"].iloc[0] for arm in self.arms}
        plain = [
            arm
            for arm in self.arms
            if kinds[arm] == EQUILIBRIUM and arm not in {regular for _, regular in self.pairs}
        ]
        return [
            (arm, other)
            for arm in plain
            for other in self.arms
            if kinds[other] == EXPLICIT and abs(np.log(sizes[other] / sizes[arm])) < _SAME_SIZE
        ]


def _rest(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("regularisation") and key not in arms.ELSEWHERE
    }


def page(frames: Frames) -> Page:
    """Return what the runs of ``vision`` say."""
    runs = trainings.runs(frames)
    runs["arm"] = arms.named(runs, _arm, ("regularisation",))
    names = ["test.accuracy", "test.loss", "train.evaluations", "train.seconds"]
    points = trainings.series(frames, runs, *names)
    found = [
        Case(str(name), here, points[points["data"] == name])
        for name, here in runs.groupby("data", sort=False)
    ]
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    if made := [_card(case) for case in found if len(case.ends)]:
        blocks.append(Cards(made))
    else:
        blocks.append(Prose([trainings.missing_runs("come to its end", STUDY)]))
    if "cifar10" not in set(runs["data"]):
        blocks.append(Prose([_cifar()]))
    parts = [
        Section("The answer", blocks),
        section("Accuracy and what it takes", [_numbers(found), _table(found)]),
        section("On the way", [_curves(found), _evaluations(found)]),
        trainings.failures(frames),
        sections.measured(
            replace(frames, points=frames.points.iloc[:0]),
            [*trainings.definitions(), *_definitions()],
        ),
    ]
    return Page(
        "Equilibria on images",
        "How accurate are equilibrium models of images beside explicit networks, and what do they"
        " cost, with and without the regularisation of the Jacobian?",
        [part for part in parts if part is not None],
        {"points": points.drop(columns="config", errors="ignore"), "runs": frames.runs},
    )


def _arm(config: Mapping[str, Any]) -> str:
    """Return the network of a flat config: model, layers if it has any of its own, penalty."""
    name = str(config.get("model.name") or "?")
    parts = [name]
    if trainings.kind_of(config) == EXPLICIT:
        parts.append(f"{trainings.depth_of(config):.0f} layers")
    elif trainings.kind_of(config) == trainings.TIED:
        parts.append(f"{trainings.depth_of(config):.0f} tied layers")
    if config.get("regularisation.weight"):
        parts.append("regularised")
    return " · ".join(parts)


def _looks(found: Sequence[Case]) -> dict[str, Look]:
    return curves.palette([arm for case in found for arm in case.arms])


# What is said -----------------------------------------------------------------------------------


def _card(case: Case) -> Card:
    seeds = trainings.seeds_of(case.ends)
    parts = [
        Prose(_accuracies(case), "Test accuracy", listed=True),
        Prose(_hoped(case), "Hoped for", listed=True),
        Prose(_regularised(case), "With the regularisation of the Jacobian", listed=True),
        Prose(_against(case), "Against the explicit network of equal size", listed=True),
    ]
    return Card(
        case.name,
        Markup.escape(plural(seeds, "seed")),
        _headline(case),
        [part for part in parts if part.paragraphs],
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def accuracy(rows: pd.DataFrame) -> str:
    """Return the accuracy of runs in per cent, with its interval."""
    found = trainings.mean(rows["accuracy"])
    if not found.known:
        return "–"
    # No share is above 1, whatever Student's t says.
    bounded = Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0), found.number)
    return (bounded if found.certain else found).text(_percent) + " %"


def _ranked(case: Case) -> list[tuple[str, pd.DataFrame, Estimate]]:
    """Return the networks with an accuracy, the best first."""
    rows = [(arm, case.of(arm), trainings.mean(case.of(arm)["accuracy"])) for arm in case.arms]
    known = [row for row in rows if row[2].known]
    return sorted(known, key=lambda row: -row[2].value)


def _headline(case: Case) -> Markup:
    ranked = _ranked(case)
    if not ranked:
        return Markup("No training has an accuracy yet.")
    arm, best, _ = ranked[0]
    text = sentence("The most accurate is {}: {}", strong(arm), accuracy(best))
    tied = [other for other, rows, _ in ranked[1:] if not _apart(best, rows)]
    if tied:
        shown = [strong(other) for other in tied[:4]]
        if len(tied) > 4:
            shown.append(Markup(f"{len(tied) - 4} more"))
        text += sentence(
            "; {} {} not apart from it", listed(shown), "is" if len(tied) == 1 else "are"
        )
    return text + Markup(".")


def _apart(best: pd.DataFrame, rows: pd.DataFrame) -> bool:
    """Whether the best has fewer errors, seed by seed, beyond the interval of the difference."""
    left, right = (r.groupby("seed")["accuracy"].mean() for r in (best, rows))
    shared = left.index.intersection(right.index)
    return bool(trainings.mean(left[shared] - right[shared]).low > 0) if len(shared) else False


def _accuracies(case: Case) -> list[Markup]:
    said = []
    for arm, rows, _ in _ranked(case):
        text = sentence("{}: {}", strong(arm), accuracy(rows))
        size = rows["parameters"].mean()
        if not np.isnan(size):
            text += sentence(", with {} parameters", words.count(round(size)))
        evaluations = trainings.mean(rows["evaluations"])
        if evaluations.known and rows["kind"].iloc[0] == EQUILIBRIUM:
            text += sentence(
                "; {} evaluations and {} products a step",
                words.digits(evaluations.value, 2),
                words.digits(rows["products"].mean(), 2),
            )
        said.append(text + Markup("."))
    return said


def _hoped(case: Case) -> list[Markup]:
    said = []
    for (model, data), aim in ACCURACY.items():
        rows = case.ends[(case.ends["model"] == model) & (case.ends["kind"] == EQUILIBRIUM)]
        if data != case.name or rows.empty:
            continue
        means = rows.groupby("arm", sort=False)["accuracy"].mean()
        arm = str(means.idxmax())
        said.append(
            sentence(
                "{}, at least {} %: {} ({}), {}.",
                strong(model),
                f"{100 * aim:g}",
                accuracy(rows[rows["arm"] == arm]),
                arm,
                "reached" if means.max() >= aim else "missed",
            )
        )
    return said


def _regularised(case: Case) -> list[Markup]:
    said = []
    for plain, regular in case.pairs:
        without, with_ = case.of(plain), case.of(regular)
        if without.empty or with_.empty:
            continue
        now = trainings.mean(with_["evaluations"])
        evaluations, loss = ratio(with_, without, "evaluations"), ratio(with_, without, "loss")
        reached = now.value <= EVALUATIONS and loss.value <= WORSE
        said.append(
            sentence(
                "{}: {} evaluations instead of {} ({}), test loss {}, accuracy {} instead of {},"
                " time of a step {}. At most {} evaluations at a loss of at most {} times that"
                " without: {}.",
                strong(regular),
                now.text(lambda v: words.digits(v, 2)),
                words.digits(without["evaluations"].mean(), 2),
                evaluations.text(words.times),
                loss.text(words.times),
                accuracy(with_),
                accuracy(without),
                ratio(with_, without, "step_seconds").text(words.times),
                f"{EVALUATIONS:g}",
                f"{WORSE:g}",
                "reached" if reached else "missed",
            )
        )
    return said


def _against(case: Case) -> list[Markup]:
    said = []
    for arm, other in case.twins:
        ours, theirs = case.of(arm), case.of(other)
        parts = [
            sentence("{} {}", what, ratio(ours, theirs, column).text(words.times))
            for column, what in (
                ("loss", "test loss"),
                ("step_seconds", "time of a step"),
                ("inference_seconds", "of an inference"),
                ("peak_bytes", "peak memory"),
            )
            if ratio(ours, theirs, column).known
        ]
        said.append(
            sentence(
                "{} over {} ({} and {} parameters): {}; accuracy {} against {}.",
                strong(arm),
                strong(other),
                words.count(round(ours["parameters"].mean())),
                words.count(round(theirs["parameters"].mean())),
                listed(parts),
                accuracy(ours),
                accuracy(theirs),
            )
        )
    return said


def _cifar() -> Markup:
    return Markup(
        f"No run here has CIFAR-10, which is not part of the repository. {PUBLISHED} With its files"
        " in a directory of yours, <code>deq study vision with data.name=cifar10"
        " data.root=DIRECTORY</code> makes the same trainings on it."
    )


# What is drawn ----------------------------------------------------------------------------------

_MEASURES = (
    ("accuracy", "Test accuracy", Axis("test accuracy", "number")),
    ("evaluations", "Forward", Axis("evaluations a step", "number", zero=True)),
    ("products", "Backward", Axis("products a step", "number", zero=True)),
    ("parameters", "Size", Axis("parameters", "count", log=True)),
    ("peak_bytes", "Memory", Axis("most bytes in a step", "bytes", log=True)),
    ("step_seconds", "Time", Axis("seconds of a training step", "seconds", log=True)),
)


def _numbers(found: Sequence[Case]) -> Figure | None:
    """Return accuracy, evaluations, memory and time of every network with intervals, or None."""
    shown = [case for case in found if len(case.ends)]
    if not shown:
        return None
    text = Markup(
        "Every network, mean and 95 % interval over the seeds. Accuracy: further right is better;"
        " all else: further left is cheaper. An explicit network evaluates each of its layers once"
        " forward and once backward; an equilibrium evaluates its one layer as often as the solver"
        " needs."
    )
    return Figure("networks", "What each network comes to", text, lambda: _draw_numbers(shown))


def _draw_numbers(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        for turn, (column, title, axis) in enumerate(_MEASURES):
            rows = []
            for arm in case.arms:
                value = trainings.mean(case.of(arm)[column])
                ids = sorted(int(run) for run in case.of(arm)["run_id"])
                row: dict[str, object] = {"name": arm, "label": arm, "runs": ids}
                if value.known:
                    high = min(value.high, 1.0) if column == "accuracy" else value.high
                    # None of them can be negative, whatever Student's t says.
                    row |= {"x": value.value, "low": max(value.low, 0.0), "high": high}
                    if not value.certain:
                        row |= {"low": np.nan, "high": np.nan}
                    row["seeds"] = value.number
                rows.append(row)
            columns = ["name", "label", "x", "low", "high", "seeds", "runs"]
            frame = pd.DataFrame(rows, columns=columns)
            panels.append(Forest(title, frame, axis, subtitle=case.name, named=turn % 3 == 0))
    return forest.draw(panels, _looks(shown))


def _curves(found: Sequence[Case]) -> Figure | None:
    """Return the error on the test split against steps and seconds, or None."""
    shown = [case for case in found if (case.points["name"] == "test.accuracy").any()]
    if not shown:
        return None
    text = Markup(
        "Share of wrong answers on the test split, mean over the seeds: against the steps, where"
        " all networks see the same batches, with the range over the seeds; and against the"
        " seconds that these steps took."
    )
    return Figure("errors", "Errors on the way", text, lambda: _draw_curves(shown))


def _draw_curves(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        points = case.points.rename(columns={"arm": "label"})
        for x, axis in (
            ("step", Axis("steps", "count")),
            ("train.seconds", Axis("seconds of training", "seconds", log=True)),
        ):
            rows = trainings.along(points, "test.accuracy", x)
            rows = rows[rows["step"] > 0].assign(y=lambda f: 1 - f["y"])
            means = (
                arms.over_seeds(rows, ["label"])
                if x == "step"
                else trainings.interpolated(rows, ["label"], log=axis.log).drop(
                    columns=["low", "high"]
                )
            )
            # A run without errors cannot be on a logarithmic axis.
            means = means[(means["y"] > 0) & ((means["x"] > 0) | (not axis.log))]
            up = Axis("wrong on the test split", "number", log=True)
            panels.append(Panel(case.name, means, axis, up, dots=x == "step"))
    return curves.draw(panels, _looks(shown), width=480, height=300)


def _evaluations(found: Sequence[Case]) -> Figure | None:
    """Return the evaluations of the equilibria over training, or None."""
    shown = [
        case
        for case in found
        if (
            (case.points["name"] == "train.evaluations") & (case.points["kind"] == EQUILIBRIUM)
        ).any()
    ]
    if not shown:
        return None
    text = Markup(
        "Evaluations of the forward solve over training, trailing means over a tenth of it, mean"
        " and range over the seeds. What to see: whether they grow as a model learns, and what the"
        " penalty on the Jacobian does to that."
    )
    return Figure("evaluations", "Evaluations on the way", text, lambda: _draw_evaluations(shown))


def _draw_evaluations(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        points = case.points[case.points["kind"] == EQUILIBRIUM]
        points = points.rename(columns={"arm": "label"})
        rows = trainings.smoothed(trainings.along(points, "train.evaluations", "step"))
        up = Axis("evaluations", "number", zero=True)
        means = arms.over_seeds(rows, ["label"])
        panels.append(Panel(case.name, means, Axis("steps", "count"), up, dots=False))
    return curves.draw(panels, _looks(shown), width=480, height=280)


def _table(found: Sequence[Case]) -> Table | None:
    values = [
        "loss", "accuracy", "evaluations", "products", "converged", "test_evaluations",
        "step_seconds", "inference_seconds", "seconds", "peak_bytes", "parameters",
        "cell_parameters",
    ]  # fmt: skip
    made = []
    for case in found:
        frame = trainings.grouped(case.ends, ["data", "arm", "kind"], values)
        frame["accuracy_text"] = [accuracy(case.of(arm)) for arm in frame["arm"]]
        frame["loss_text"] = [
            trainings.mean(case.of(arm)["loss"]).text(lambda v: words.digits(v, 3))
            for arm in frame["arm"]
        ]
        made.append(frame)
    made = [frame for frame in made if len(frame)]
    if not made:
        return None
    columns = (
        Column("data", "data"),
        Column("arm", "network", "series"),
        Column("seeds", "seeds", "count"),
        Column("parameters", "parameters", "count"),
        Column("accuracy_text", "test accuracy", "text", "", "mean, 95 % interval over the seeds"),
        Column("loss_text", "test loss", "text", "", "likewise"),
        Column("evaluations", "evaluations", "number", "", "forward, a step"),
        Column("products", "products", "number", "", "backward, a step"),
        Column("converged", "converged", "number", "", "share of the samples, forward"),
        Column("peak_bytes", "peak", "bytes"),
        Column("step_seconds", "a step", "seconds"),
        Column("inference_seconds", "inference", "seconds", "", "of a test batch"),
    )
    text = Markup("Means over the seeds; rest the pointer on a number for its interval.")
    frame = pd.concat(made, ignore_index=True)
    return Table("networks", "All networks", text, columns, frame, looks=_looks(found))


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Accuracy</b>: the share of right answers on the test split after the last step. Its"
            " interval is that of the mean over the seeds (starts and orders of the batches); the"
            " split is the same for all."
        ),
        Markup(
            "<b>Regularised</b>: with the penalty on the Jacobian at the equilibrium (Bai, Koltun"
            " and Kolter 2021), whose cost is part of time and work, not of the evaluations."
            " <b>Explicit network of equal size</b>: one whose parameters are as many, within"
            " 20 %."
        ),
    ]
