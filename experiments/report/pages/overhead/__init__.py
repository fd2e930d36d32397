"""The page of the experiment ``overhead``: what a solver costs beside its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Cards, Prose, Section
from experiments.report.frames import Frames
from experiments.report.pages.overhead import tables
from experiments.report.pages.overhead.answers import cards
from experiments.report.pages.overhead.figures import ratios
from experiments.report.pages.overhead.rows import timings
from experiments.report.pages.page import Page

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``overhead`` say."""
    found = timings(frames)
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if made := cards(found):
        blocks.append(Cards(made))
    # None of these solves was meant to meet a tolerance: what does not count is flagged instead.
    asked = replace(frames, points=frames.points.iloc[:0])
    parts = [
        Section("The answer", blocks),
        _section("Overhead", [ratios(found), tables.timed(found)]),
        _section("What a GPU pays", [tables.launches(found)]),
        _section("Freezing", [tables.freezing(found)]),
        _failures(asked, has_solves=not frames.points.empty),
        sections.measured(asked, _definitions()),
    ]
    return Page(
        "What a solver costs beside its evaluations",
        "How long does a solve take against its bare evaluations, ours and torchdeq's?",
        [part for part in parts if part is not None],
        {"points": frames.points, "runs": frames.runs},
    )


def _failures(frames: Frames, *, has_solves: bool) -> Section:
    section = sections.failures(frames)
    if has_solves and isinstance(section.blocks[0], Prose):
        return Section(section.title, [Prose([Markup("Nothing: every run completed.")])])
    return section


def _section(title: str, blocks: Sequence[Block | None]) -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there) if there else None


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Bare evaluations</b>: z ← f(z, x), as often as the solver evaluates f, with nothing"
            " between. The cell is tanh(relu(z W1) W2 + x) or a registered model's."
        ),
        Markup(
            "<b>Equal counts</b>: every contender takes the same number of evaluations of all"
            " samples, which is checked; a tolerance that no solve meets sees to it. A row whose"
            " count is another is flagged, and in no figure."
        ),
        Markup(
            "<b>Tolerance checked</b>: ours as it is used, with its tests, its best iterates and"
            " its trace. <b>Fixed budget</b>: without tests, and without a read of the device."
            " <b>Called directly</b>: torchdeq's own function with a tolerance of 0, as its users"
            " call it, with nothing of ours between."
        ),
        Markup(
            "<b>Interleaved</b>: a round runs the bare loop and every contender once, in an order"
            " that rotates, in one process; a ratio is that of one round, and what is reported is"
            " the median of the rounds with its quartiles. Short loops are repeated within one"
            " timing until it lasts 20 ms. On a GPU seconds are those of CUDA events."
        ),
        Markup(
            "<b>Launches</b>: operations that torch dispatches, views and allocations aside."
            " <b>Reads</b>: what waits for a value of the device."
        ),
    ]
