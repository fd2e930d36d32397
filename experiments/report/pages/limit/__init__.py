"""The page of the experiment ``limit``: how near each solver comes to the fewest evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import sections
from experiments.report.blocks import Block, Cards, Prose, Section
from experiments.report.frames import Frames
from experiments.report.pages.limit.aims import aims
from experiments.report.pages.limit.answers import card
from experiments.report.pages.limit.families import Family, families
from experiments.report.pages.limit.figures import distances, tolerances
from experiments.report.pages.limit.tables import by_setting, by_solver
from experiments.report.pages.limit.theory import theory
from experiments.report.pages.page import Page

__all__ = ["page"]


def page(frames: Frames) -> Page:
    """Return what the runs of ``limit`` say."""
    found = families(frames)
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if found:
        blocks.append(Cards([card(family) for family in found]))
    parts = [
        Section("The answer", blocks),
        _section("The aims", [aims(family) for family in found], _AIMS),
        _section("Times the limit", [distances(family) for family in found]),
        _section(
            "The numbers",
            [table for family in found for table in (by_solver(family), by_setting(family))],
        ),
        _section("Evaluations and tolerance", [tolerances(family) for family in found]),
        theory(found),
        sections.failures(frames),
        sections.measured(frames, _definitions()),
    ]
    return Page(
        "How near solvers come to the limit",
        "How many times the fewest possible evaluations does a solver need, and what decides it?",
        [part for part in parts if part is not None],
        {"points": _points(found, frames), "runs": frames.runs},
    )


def _points(found: Sequence[Family], frames: Frames) -> pd.DataFrame:
    return pd.concat([f.points for f in found]) if found else frames.points


def _section(title: str, blocks: Sequence[Block | None], lead: str = "") -> Section | None:
    there = [block for block in blocks if block is not None]
    return Section(title, there, Markup.escape(lead)) if there else None


_AIMS = (
    "What these equilibria were chosen for: 24 fixed problems, measured before with plain"
    " prototypes, so that progress can be told from luck."
)


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>Limit</b>: 2 + the products that full GMRES takes on I − J(z*), in float64 and"
            " reorthogonalised, until the error of z0 has become a residual within the tolerance."
            " J(z*) is the Jacobian at the solution that was found, where none was at the known"
            " one. Every method that combines values of f obeys it on linear problems; on others"
            " it is what can be reached asymptotically, so that a score may lie a little below 1."
        ),
        Markup(
            "<b>Times the limit</b>, the score: evaluations / limit. A product with the Jacobian"
            " counts as two evaluations, which is about what it costs by autograd. For solvers of"
            " other libraries the evaluation that judges their answer is included: one more."
        ),
        Markup(
            "<b>Failed</b>: the residual of the returned point, evaluated by us, misses the"
            " tolerance. In medians a failed solve counts as infinitely far."
        ),
        Markup(
            "<b>reltol</b>: relative to the first residual, ‖f(z0) − z0‖. <b>ρ</b>: the spectral"
            " radius of J(z*)."
        ),
        Markup(
            "Counts do not depend on the machine: every problem was solved once by every solver."
        ),
    ]
