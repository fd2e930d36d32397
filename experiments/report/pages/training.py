"""The page of any runs of ``training``: what was trained, how it went, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
from experiments.report.words import sentence, strong

__all__ = ["page"]

MOST = 12
"""So many networks a figure shows at most: more are not told apart."""


def page(frames: Frames) -> Page:
    """Return what can be said of any trainings."""
    runs = trainings.labelled(trainings.runs(frames))
    done = runs[runs["completed"]]
    looks = curves.palette([str(label) for label in done["label"]])
    cases = list(done.groupby("case", sort=False))
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    if cases:
        blocks.append(Cards([_card(str(name), rows) for name, rows in cases]))
    else:
        blocks.append(
            Prose(
                [
                    Markup(
                        "No training has completed yet: <code>deq runs ls</code> shows how far"
                        " they are, and <code>deq resume RUN</code> goes on with one."
                    )
                ]
            )
        )
    parts = [
        Section("The answer", blocks),
        section("Loss", [_losses(frames, done, looks), _scores(frames, done, looks)]),
        section("The solves", [_solves(frames, done, looks)]),
        section("The numbers", [_table(str(name), rows, looks) for name, rows in cases]),
        trainings.failures(frames),
        measured(frames, trainings.definitions()),
    ]
    return Page(
        "Trainings",
        "What was trained, how far did the loss come down, and what did a step cost?",
        [part for part in parts if part is not None],
        {"trainings": runs.drop(columns="config"), "runs": frames.runs},
    )


def _score(rows: pd.DataFrame) -> str:
    """Return the loss, and what it means: accuracy or perplexity."""
    text = trainings.mean(rows["loss"]).text()
    if rows["accuracy"].notna().any():
        right = words.digits(100 * float(rows["accuracy"].mean()), 3)
        return f"{text}, {right} % right"
    if rows["perplexity"].notna().any():
        return f"{text}, perplexity {trainings.mean(rows['perplexity']).text()}"
    return text


def _card(name: str, rows: pd.DataFrame) -> Card:
    losses = rows.groupby("label", sort=False)["loss"].mean().dropna().sort_values(kind="stable")
    said = []
    for label in losses.index[:MOST]:
        own = rows[rows["label"] == label]
        text = sentence("{}: {}", strong(label), _score(own))
        cost = _cost(own)
        said.append(text + (sentence("; {}", cost) if cost else Markup()) + Markup("."))
    if len(losses) > MOST:
        said.append(sentence("And {} more, in the table below.", len(losses) - MOST))
    if losses.empty:
        return Card(name, Markup(), Markup("No loss was recorded."), [])
    best = str(losses.index[0])
    headline = sentence(
        "The least test loss is {}'s: {}.", strong(best), _score(rows[rows["label"] == best])
    )
    if len(losses) > 1:
        found = trainings.ratio(
            rows[rows["label"] == best], rows[rows["label"] == losses.index[1]], "loss"
        )
        told = found.certain and found.high < 1
        headline += sentence(
            " The next, {}, {}.",
            strong(losses.index[1]),
            "is worse beyond the spread of the seeds" if told else "is not told apart from it",
        )
    seeds = trainings.seeds_of(rows)
    subtitle = sentence("{}, {}", words.plural(len(rows), "training"), words.plural(seeds, "seed"))
    return Card(name, subtitle, headline, [Prose(said, "Test loss, the least first", listed=True)])


def _cost(rows: pd.DataFrame) -> str:
    parts = []
    values = {name: float(rows[name].mean()) for name in ("step_seconds", "peak_bytes")}
    if math.isfinite(values["step_seconds"]):
        parts.append(f"{words.seconds(values['step_seconds'])} a step")
    if math.isfinite(values["peak_bytes"]):
        parts.append(f"{words.size(values['peak_bytes'])} at most")
    if rows["kind"].iloc[0] == trainings.EQUILIBRIUM:
        spent, back = float(rows["evaluations"].mean()), float(rows["products"].mean())
        if math.isfinite(spent) and math.isfinite(back):
            parts.append(
                f"{words.digits(spent, 3)} evaluations and {words.digits(back, 3)} products"
            )
        share = float(rows["converged"].mean())
        if math.isfinite(share):
            parts.append(f"{words.digits(100 * share, 3)} % converged")
    return ", ".join(parts)


def _shown(done: pd.DataFrame, looks: Mapping[str, Look]) -> dict[str, Look]:
    """Return the looks of those networks that figures show: of each case the best."""
    found: set[str] = set()
    for _, rows in done.groupby("case", sort=False):
        losses = rows.groupby("label", sort=False)["loss"].mean().sort_values(kind="stable")
        found |= {str(label) for label in losses.index[:MOST]}
    return {label: look for label, look in looks.items() if label in found}


def _losses(frames: Frames, done: pd.DataFrame, looks: Mapping[str, Look]) -> Figure | None:
    up = Axis("test loss", "number", log=True)
    panels = _moving(curves.progress(frames, done, "test.loss", up, _shown(done, looks)))
    if not panels:  # evaluated at the end alone
        up = Axis("training loss", "number", log=True)
        shown = _shown(done, looks)
        panels = _moving(curves.progress(frames, done, "train.loss", up, shown, smooth=0.1))
    if not panels:
        return None
    text = Markup(
        "By steps of the optimiser, by evaluations and products spent, and by seconds of training:"
        " means over the seeds with 95 % intervals. The same curves in three costs: which network"
        " is ahead may differ."
    )
    return Figure("loss", "Loss", text, lambda: curves.draw(panels, looks, columns=3, width=280))


def _moving(panels: Sequence[Panel]) -> list[Panel]:
    return [one for one in panels if one.rows["x"].nunique() > 1]


def _scores(frames: Frames, done: pd.DataFrame, looks: Mapping[str, Look]) -> Figure | None:
    panels: list[Panel] = []
    shown = _shown(done, looks)
    for name, up in (
        ("test.accuracy", Axis("test accuracy", "number")),
        ("test.perplexity", Axis("test perplexity", "number", log=True)),
    ):
        panels += _moving(curves.progress(frames, done, name, up, shown, xs=("step",)))
    if not panels:
        return None
    text = Markup("What the loss means: the share of samples classified rightly, or perplexity.")
    return Figure("score", "Accuracy and perplexity", text, lambda: curves.draw(panels, looks))


def _solves(frames: Frames, done: pd.DataFrame, looks: Mapping[str, Look]) -> Figure | None:
    rows = done[done["kind"] == trainings.EQUILIBRIUM]
    panels: list[Panel] = []
    shown = _shown(rows, looks)
    for name, up in (
        ("train.evaluations", Axis("evaluations, forward", "count")),
        ("train.products", Axis("products, backward", "count")),
        ("train.converged", Axis("share converged, forward", "number")),
        ("train.residual", Axis("relative residual", "error", log=True)),
        ("train.radius", Axis("spectral radius", "number")),
    ):
        found = curves.progress(frames, rows, name, up, shown, xs=("step",), smooth=0.1)
        panels += _moving(found)
    if not panels:
        return None
    text = Markup(
        "Of the equilibria, averaged over a tenth of the training. See: solves that become longer"
        " as the weights grow, and whether they still meet their tolerance."
    )
    return Figure(
        "solves", "What a step's solves take", text,
        lambda: curves.draw(panels, looks, columns=3, width=280),
    )  # fmt: skip


def _table(name: str, rows: pd.DataFrame, looks: Mapping[str, Look]) -> Table:
    values = [
        "loss", "accuracy", "perplexity", "train_loss", "parameters", "evaluations", "products",
        "converged", "test_evaluations", "step_seconds", "inference_seconds", "seconds", "work",
        "peak_bytes", "layer_peak_bytes", "steps", "seconds_to_target", "work_to_target",
    ]  # fmt: skip
    frame = trainings.grouped(rows, ["label"], values)
    columns = [
        Column("label", "network", "series"),
        Column("loss", "test loss", "number"),
        Column("accuracy", "accuracy", "number"),
        Column("perplexity", "perplexity", "number"),
        Column("train_loss", "training loss", "number"),
        Column("parameters", "parameters", "count"),
        Column("evaluations", "evaluations", "count", "", "forward, a step"),
        Column("products", "backward", "count", "", "products or evaluations, a step"),
        Column("converged", "converged", "number", "", "share of the samples, forward"),
        Column("step_seconds", "a step", "seconds"),
        Column("inference_seconds", "a test batch", "seconds"),
        Column("seconds", "the training", "seconds"),
        Column("seconds_to_target", "to the target loss", "seconds"),
        Column("peak_bytes", "most in a step", "bytes"),
        Column("seeds", "seeds", "count"),
    ]
    columns = filled(columns, frame)
    text = Markup(
        "Means over the seeds; rest the pointer on a number for its interval, on a row for its"
        " runs."
    )
    return Table(f"trainings-{slug(name)}", name, text, columns, frame, looks=looks)
