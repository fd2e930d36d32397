"""The page of the experiment ``problems``: which solver can be relied on, and what it costs."""

from __future__ import annotations

from dataclasses import replace

from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Cards, Prose, Section
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.pages.problems import tables
from experiments.report.pages.problems.answers import cards
from experiments.report.pages.problems.heat import heat_map
from experiments.report.pages.problems.profiles import profiles
from experiments.report.pages.problems.results import Results, results

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``problems`` say."""
    found = results(frames)
    named = replace(frames, runs=frames.runs.assign(model=found.problem_of(frames.runs["id"])))
    measured = not found.starts.empty
    parts = [
        _answer(found, frames),
        Section("Solvers", [tables.by_solver(found)]) if measured else None,
        Section("Problem × solver", [heat_map(found)]) if measured else None,
        Section("Work", [profiles(found)]) if found.starts["met"].any() else None,
        Section("Problems", [tables.by_problem(found)]) if measured else None,
        _failed(found, named),
        sections.measured(named, _definitions()),
    ]
    return Page(
        "Solvers on problems with traps",
        "Which solver can be relied on, and what does it cost?",
        [part for part in parts if part is not None],
        {"starts": found.starts, "cells": found.cells, "runs": frames.runs},
    )


def _answer(found: Results, frames: Frames) -> Section:
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if not found.starts.empty:
        blocks.append(Cards(cards(found)))
    return Section("The answer", blocks)


def _failed(found: Results, frames: Frames) -> Section:
    """Return the runs that gave no result, and how the starts ended that were not solved."""
    blocks: list[Block] = []
    if not (frames.runs["status"] == "COMPLETED").all():
        # Solves that fall short are told of here by solver, not one by one.
        blocks += sections.failures(replace(frames, points=frames.points.iloc[:0])).blocks
    unsolved = tables.failures(found)
    if unsolved is not None:
        blocks.append(unsolved)
    if not blocks:
        said = "Nothing: every run completed, and every start was solved."
        if found.starts.empty:
            said = "Every run completed, but none recorded a solve."
        blocks.append(Prose([Markup.escape(said)]))
    return Section("What failed", blocks)


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Solved</b>: the norm of F at the returned point, evaluated again by us, is within"
            " the tolerance. What a solver's library says of itself does not count; where it says"
            " success and the test fails, that is a <b>false success</b>: as it is run here, or,"
            " of MINPACK's hybr and lm, by <code>scipy.optimize.root</code> with its own settings,"
            " some of whose tests our wrappers switch off (there only a residual above the root of"
            " the tolerance counts)."
        ),
        Markup(
            "<b>Start</b>: the first of each problem is its standard start, the others are seeded"
            " perturbations of it. For our solvers they are the batch of one solve; solvers of"
            " other libraries go start by start. Most problems are systems F(z) = 0: a solver of"
            " fixed points meets them as z = z + F(z), which need not contract."
        ),
        Markup(
            "<b>Interval</b>: Wilson's, 95 %, of so many starts solved of so many. It takes every"
            " start for a trial of its own; those of one problem resemble each other, so between"
            " other problems the shares may differ by more."
        ),
        Markup(
            "<b>Evaluation</b>: one call of F at one start, the first and the last included; of a"
            " foreign solver, the one by which we judge its answer too. <b>f-equivalents</b>:"
            " evaluations and products with the Jacobian or its transpose, until this start ended."
            " A dense Jacobian of D unknowns takes D products by autograd, or D evaluations by"
            " finite differences, so both cost the same here; in a batch a start also pays for the"
            " products that the others still need in the same step."
        ),
        Markup(
            "<b>Seconds</b>: of the whole solve, divided by its starts: our solvers share the"
            " work of a call between them. Where several trials ran at a time they are a rough"
            " guide."
        ),
    ]
