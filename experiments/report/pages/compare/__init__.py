"""The page of the experiment ``compare``: solvers and gradients side by side."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Cards, Prose, Section
from experiments.report.frames import Frames
from experiments.report.pages.compare.answers import card
from experiments.report.pages.compare.cases import Case, cases
from experiments.report.pages.compare.convergence import convergence
from experiments.report.pages.compare.depth import depth
from experiments.report.pages.compare.memory import memory
from experiments.report.pages.compare.precision import work_precision
from experiments.report.pages.compare.tables import by_depth, solver_by_gradient
from experiments.report.pages.page import Page

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``compare`` say."""
    found = cases(frames)
    parts = [
        _answer(found, frames),
        _section(
            "Solver × gradient",
            [solver_by_gradient(case) for case in found],
            "Every forward solver with every gradient behind it.",
        ),
        _section("Work and precision", [work_precision(case) for case in found]),
        _section("Convergence", [convergence(found, frames)] if found else []),
        _section("Memory", [memory(found)]),
        _section(
            "Explicit networks",
            [block for case in found for block in (depth(case), by_depth(case))],
        ),
        sections.failures(frames),
        sections.measured(frames, _definitions()),
    ]
    return Page(
        "Solvers and gradients of equilibrium models",
        "Which root finder, which gradient, and at what cost?",
        [part for part in parts if part is not None],
        {"points": frames.points, "runs": frames.runs},
    )


def _answer(found: Sequence[Case], frames: Frames) -> Section:
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if found:
        blocks.append(Cards([card(case) for case in found]))
    return Section("The answer", blocks)


def _section(title: str, blocks: Sequence[Block | None], lead: str = "") -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there, Markup.escape(lead)) if there else None


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Evaluation</b>: one call of f on the whole batch, the first and the last included."
            " For solvers of other libraries, which go sample by sample, the largest of the"
            " samples' counts. <b>Product</b>: one vector-Jacobian product of the backward solve."
        ),
        Markup(
            "<b>reltol</b>: a sample has converged when ‖f(z) − z‖ ≤ reltol · scale at the returned"
            " point, evaluated by us whoever solved it; scale is the larger of ‖f(z)‖ and the first"
            " residual. The <b>relative residual</b> is ‖f(z) − z‖ / scale of the worst sample."
            " A solver meets a tolerance when every sample of every run converged."
        ),
        Markup(
            "<b>Gradient error</b>: ‖g − g*‖ / ‖g*‖ over all parameters, where g* is the gradient"
            " at the equilibrium in float64: the state polished to a residual of 1e-12, the"
            " adjoint solved as exactly."
        ),
        Markup(
            "<b>Kept</b>: bytes that autograd holds between forward and backward, parameters"
            " excluded. <b>History</b>: bytes of the forward solver's own state, which can be"
            " freed after it."
        ),
        Markup(
            "<b>Tied</b>: in at least one seed, the ranges (quartiles of the repeated timings; for"
            " counts the counts) are not apart. Solvers are compared on the solves that keep no"
            " graph."
        ),
    ]
