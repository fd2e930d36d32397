"""What the spectrum allows: the asymptotic formulas beside the counted limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report.blocks import Column, Prose, Section, Table
from experiments.report.pages.limit.families import Family

_SAID = (
    Markup(
        "On a linear problem every method that combines values of f multiplies the error by a"
        " polynomial p(I − J) with p(0) = 1; how small that can be is a question of the spectrum"
        " of J alone, if J is normal."
    ),
    Markup(
        "<b>Real, in [−ρ, ρ]</b>: at best ρ / (1 + √(1 − ρ²)) an evaluation, against ρ of plain"
        " iteration: a square-root gain."
    ),
    Markup(
        "<b>Real, in [0, ρ]</b>: (√κ − 1) / (√κ + 1) with κ = 1 / (1 − ρ), again a square root."
    ),
    Markup(
        "<b>A disc or circle |λ| ≤ ρ</b>: ρ itself. Plain iteration is already optimal"
        " (Zarantonello), until the evaluations reach the size of the state; so is it for a"
        " large random matrix, whose eigenvalues fill a disc. Being finite is then what"
        " acceleration lives on."
    ),
    Markup(
        "<b>r distinct eigenvalues</b>, as of a Jacobian of rank r − 1: exact after r products."
    ),
    Markup("<b>Not normal</b>: the spectrum does not decide; residuals may grow at first."),
    Markup(
        "A finite state is easier than these rates say, because the eigenvalues at the ends are"
        " soon found: the limit is therefore counted, and the formula explains it."
    ),
)


def rate(spectrum: object, radius: float) -> float | None:
    """Return the best asymptotic factor an evaluation for a spectrum, ``None`` without a formula.

    References: O. Nevanlinna, Convergence of Iterations for Linear Equations (1993), for the real
    intervals; E. Zarantonello's lemma, in R. Varga, Matrix Iterative Analysis, for the disc.
    """
    if not 0 < radius < 1:
        return None
    if spectrum == "real":
        return radius / (1 + math.sqrt(1 - radius * radius))
    if spectrum == "one_sided":
        root = math.sqrt(1 / (1 - radius))
        return (root - 1) / (root + 1)
    return radius if spectrum in ("disc", "circle", "ginibre") else None


def theory(found: Sequence[Family]) -> Section:
    """Return the formulas, with a table of the settings that have one."""
    rows = [row for family in found for row in _rows(family)]
    blocks: list[Prose | Table] = [Prose(_SAID, listed=True)]
    if rows:
        columns = (
            Column("said", "setting"),
            Column("rate", "best rate", "number", "", "factor an evaluation, asymptotically"),
            Column("formula", "evaluations by it", "count", "", "ln(reltol) / ln(rate)"),
            Column("limit", "limit", "count", "", "counted, by GMRES"),
            Column("fewest", "fewest measured", "count"),
            Column("by", "by"),
            Column("plain", "plain iteration", "count"),
            Column("plain_formula", "ln(reltol) / ln(ρ)", "count"),
        )
        text = Markup("Medians over the seeds; a dash where a solver failed.")
        frame = pd.DataFrame(rows)
        blocks.append(Table("theory", "Formula and count", text, columns, frame))
    return Section("Why: what the spectrum allows", blocks)


def _rows(family: Family) -> list[dict[str, object]]:
    rows = []
    for name in family.settings:
        spectrum, radius = family.option(name, "spectrum"), family.option(name, "radius")
        best = rate(spectrum, float(radius)) if isinstance(radius, int | float) else None
        if best is None:
            continue
        digits = math.log(family.reltol)
        here = family.by_solver[family.by_solver["setting"] == name]
        solved = here[here["met"]].sort_values("work", kind="stable")
        plain = solved[solved["solver"].str.split(" (", regex=False).str[0] == "picard"]
        rows.append(
            {
                "said": family.said(name),
                "rate": best,
                "formula": math.ceil(digits / math.log(best)),
                "limit": here["limit"].median(),
                "fewest": solved["work"].iloc[0] if len(solved) else None,
                "by": solved["solver"].iloc[0] if len(solved) else None,
                "plain": plain["evaluations"].iloc[0] if len(plain) else None,
                "plain_formula": math.ceil(digits / math.log(float(radius))),
            }
        )
    return rows
