"""The page of the study ``budget``: which gradient reaches which loss at the least cost."""

from __future__ import annotations

from dataclasses import replace

from markupsafe import Markup

from experiments.report import sections, trainings
from experiments.report.blocks import (
    Block,
    Cards,
    Prose,
    Section,
    section,
)
from experiments.report.frames import Frames
from experiments.report.pages.budget import figures, tables
from experiments.report.pages.budget.answers import cards
from experiments.report.pages.budget.rows import cases
from experiments.report.pages.page import Page

__all__ = ["page"]

STUDY = "budget"


def page(frames: Frames) -> Page:
    """Return what the runs of ``budget`` say."""
    found = cases(frames)
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    if any(len(case.ends) for case in found):
        blocks.append(Cards(cards(found)))
    else:
        blocks.append(Prose([trainings.missing_runs("come to its end", STUDY)]))
    parts = [
        Section("The answer", blocks),
        section("Loss against its cost", [figures.trajectories(found)]),
        section("What a loss costs", [figures.costs(found), tables.levels(found)]),
        section("Memory", [figures.memory(found)]),
        section("The budget at test time", [figures.at_test_time(found)]),
        section("The trainings", [figures.spent(found), tables.results(found)]),
        trainings.failures(frames),
        sections.measured(
            replace(frames, points=frames.points.iloc[:0]),
            [*trainings.definitions(), *_definitions()],
        ),
    ]
    curves = {f"curves-{turn}": case.curves for turn, case in enumerate(found)}
    return Page(
        "Which gradient for which budget",
        "Trained from the same start: which gradient reaches which loss at the least work, time"
        " and memory?",
        [part for part in parts if part is not None],
        {**curves, "runs": frames.runs},
    )


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>To reach a loss</b>: the first evaluation on the test split at which the loss is at"
            " or below it, with a straight line to the evaluation before. The losses asked for are"
            " the least ones that all gradients, half of them, and one of them reach at every seed,"
            " rounded upwards; the start is above all of them."
        ),
        Markup(
            "<b>The same start</b>: one seed is one set of weights and one order of the batches,"
            " whatever the gradient. Learning rate, schedule and tolerance are the same for all of"
            " them, so that what differs is what the gradient does; <b>preconditioned</b> is the"
            " adjoint behind the estimate that the forward solver leaves, <b>reltol auto</b> lets"
            " the certificate of the last step choose both tolerances, and <b>reversible</b> brings"
            " an iteration of its own."
        ),
        Markup(
            "<b>Apart</b>: the 95 % interval of the ratio, seed by seed, does not hold 1. No"
            " correction is made for the number of pairs that are compared."
        ),
    ]
