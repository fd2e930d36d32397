"""The page of the experiment ``theory``: what was claimed, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Column, Prose, Section, Table
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.pages.theory import figures
from experiments.report.pages.theory.rows import FOUND, Found, theory
from experiments.report.pages.theory.verdicts import verdicts
from experiments.report.words import sentence, strong

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``theory`` say."""
    found = theory(frames)
    one, two, deep, injected = (
        found.of(claim) for claim in ("universality", "stacking", "depth", "injection")
    )
    blocks: list[Block | None] = [Prose(sections.overview(frames)), verdicts(found)]
    parts = [
        _section("The answer", blocks),
        _section(
            "Any network is one block",
            [figures.staircase(one), figures.nilpotent(one), figures.blocks(one)],
            _ONE,
        ),
        _section("Two equilibria are one", [figures.stacked(two)], _TWO),
        _section("Infinite depth", [figures.depths(deep), _rates(deep)], _DEEP),
        _section("Why the input is injected", [figures.variances(injected)], _INJECTED),
        sections.failures(frames),
        sections.measured(replace(frames, points=frames.points.iloc[:0]), _definitions()),
    ]
    return Page(
        "What theory says of equilibrium models",
        "Is any network one block, are two equilibria one, does depth tend to the equilibrium, and"
        " why must the input be injected?",
        [part for part in parts if part is not None],
        {"series": found.series, "gradients": found.gradients, "runs": frames.runs},
    )


_ONE = (
    "Put the layers of a network below each other as one state, and their weights below the"
    " diagonal of one matrix. One step of this weight-tied, input-injected block computes every"
    " layer from the one above it, so that step k makes layer k right."
)
_TWO = (
    "An equilibrium that is fed to another one is no deeper model: the pair of both states is the"
    " equilibrium of one cell, whose Jacobian is block lower triangular."
)
_DEEP = (
    "A weight-tied network of L layers is L steps towards the equilibrium. Where the spectral"
    " radius ρ is below 1 it gets there, and its gradient too; beyond, depth has no limit, but the"
    " equilibrium is still there for a solver to find."
)
_INJECTED = (
    "A contraction forgets where it starts. If the input is only the start, all inputs end at the"
    " same fixed point, and a deep network of such steps says the same of each."
)


def _section(title: str, blocks: Sequence[Block | None], lead: str = "") -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there, Markup.escape(lead)) if there else None


def _rates(found: Found) -> Table | None:
    rows = found.solves
    if rows.empty:
        return None
    groups = rows.groupby("label", sort=False)
    numbers = ["evaluations", *(f"found_{name}" for name in FOUND if name != "norm")]
    frame = groups[numbers].median()
    for name in numbers:
        frame[f"{name}_lo"] = groups[name].min()
        frame[f"{name}_hi"] = groups[name].max()
    frame["met"] = groups["met"].all()
    frame["runs"] = groups["run_id"].apply(lambda ids: sorted(int(v) for v in ids))
    columns = (
        Column("label", "model"),
        Column("found_radius", "ρ", "number"),
        Column("found_step_rate", "rate of the steps", "number"),
        Column("found_gradient_rate", "of the gradients", "number"),
        Column("found_layers", "layers", "count"),
        Column("found_step_last", "last step", "error"),
        Column("found_gradient_last", "gradient's error", "error", "", "of the deepest network"),
        Column("evaluations", "solver", "count", "", "evaluations to solve for the equilibrium"),
    )
    text = Markup(
        "Rates are fitted to the later half of what is above rounding. Medians over the seeds; ρ is"
        " computed at the equilibrium, the largest of the batch. Solved to 1e-13 by the default"
        " solver."
    )
    return Table("rates", "Rates", text, columns, frame.reset_index())


def _definitions() -> list[Markup]:
    return [
        sentence(
            "{}: J, ‖J‖₂ and the spectral radius ρ are of the Jacobian of one step at the fixed"
            " point, the largest of the batch, by dense algebra.",
            strong("Jacobian"),
        ),
        sentence(
            "{}: every gradient is one of this package, behind a solve by one of its solvers; the"
            " network's own is backpropagation through its layers.",
            strong("Gradients"),
        ),
        sentence(
            "{}: float64 on the CPU. Counts and errors, nothing is timed.", strong("Precision")
        ),
    ]
