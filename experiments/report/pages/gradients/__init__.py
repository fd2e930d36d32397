"""The page of the experiment ``gradients``: how exact every gradient is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Cards, Prose, Section
from experiments.report.frames import Frames
from experiments.report.pages.gradients import figures, tables
from experiments.report.pages.gradients.answers import cards
from experiments.report.pages.gradients.rows import Gradients, gradients
from experiments.report.pages.gradients.verdicts import verdicts
from experiments.report.pages.page import Page

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``gradients`` say."""
    found = gradients(frames)
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if made := cards(found):
        blocks.append(Cards(made))
    parts = [
        Section("The answer", blocks),
        _section("Targets", [verdicts(found)]),
        _section("Two tolerances", [figures.heat_map(found), figures.slopes(found)], _TWO),
        _section("Products", [figures.products(found), tables.preconditioned(found)]),
        _section(
            "Every gradient",
            [figures.radii(found), figures.directions(found), tables.estimators(found)],
        ),
        _section("Precision", [tables.precisions(found)]),
        _section("The loss's scale", [tables.scales(found)]),
        _section("Whichever solver", [tables.solvers(found)]),
        _section("Certificate", [figures.certificates(found), tables.certificates(found)]),
        _section("Cost", [figures.costs(found), tables.costs(found)]),
        _failures(found, frames),
        sections.measured(replace(frames, points=frames.points.iloc[:0]), _definitions()),
    ]
    return Page(
        "Gradients: how exact, at what cost",
        "Unrolled, implicit, or one of the cheap approximations: at what error, at what cost?",
        [part for part in parts if part is not None],
        {"gradients": found.rows, "runs": frames.runs},
    )


def _section(title: str, blocks: Sequence[Block | None], lead: str = "") -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there, Markup.escape(lead)) if there else None


_TWO = (
    "The gradient inherits two errors: that of z*, where it is linearised, and that of the adjoint."
    " The larger one decides, so the two tolerances belong together."
)


def _failures(found: Gradients, frames: Frames) -> Section:
    """Return the runs that gave no result, and the solves that fell short, counted by kind."""
    blocks: list[Block] = []
    if not (frames.runs["status"] == "COMPLETED").all():
        # Solves that fall short are counted below, by slice and solver, not one by one.
        blocks += sections.failures(replace(frames, points=frames.points.iloc[:0])).blocks
    short = tables.short(found)
    if short is not None:
        blocks.append(short)
    if not blocks:
        said = "Nothing: every run completed, and every solve met its tolerance."
        if found.rows.empty:
            said = "Every run completed, but none recorded a gradient."
        blocks.append(Prose([Markup.escape(said)]))
    return Section("What failed", blocks)


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Reference</b>: the same weights in float64, z* polished by Newton's method, the"
            " adjoint solved with the dense Jacobian (by GMRES to 1e-13 where the state is large):"
            " no code of the gradients measured takes part in the former. Central differences of"
            " the loss along ten random directions check it."
        ),
        Markup(
            "<b>Error</b>: ‖g − g*‖ / ‖g*‖, of all parameters that act through the equilibrium"
            " together, or of the cell's arguments (the injection, and through it the input)."
            " <b>Cosine</b> and <b>norm ratio</b> ‖g‖ / ‖g*‖ likewise. A step along a gradient with"
            " a positive cosine <b>descends</b>."
        ),
        Markup(
            "<b>Spectral radius</b>, ρ: the largest |λ| of the Jacobian at z*, the largest of the"
            " batch, computed there. To prescribe it, all matrices of the cell are multiplied by"
            " one factor, after any training; where no factor gives it, that radius is left out."
        ),
        Markup(
            "<b>Residual</b>: of the whole batch, relative to the scale of the test. <b>Products"
            "</b>: with the transposed Jacobian in the backward; those of unrolled gradients are"
            " the evaluations in the graph, and are not counted here."
        ),
        Markup(
            "<b>Certificate</b>: what the backward itself says of its relative error, without a"
            " reference. <b>reversible</b> brings its own iteration, of which 32 evaluations are"
            " taken, as many as can be gone back."
        ),
        Markup(
            "<b>Training step</b>: injection, solve, readout, loss, backward and one step of Adam,"
            " whose learning rate is 0 so that every round meets the same model. A round takes one"
            " step with each gradient, in an order that rotates; a ratio is that of one round, and"
            " the median of the rounds is reported with its quartiles."
        ),
    ]
