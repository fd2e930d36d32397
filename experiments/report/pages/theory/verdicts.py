"""What is claimed, beside what was measured: every number from the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Column, Table
from experiments.report.pages.theory.rows import Found, layers, pairs
from experiments.report.words import small

# What counts as equal: float64 through a few dozen layers, and two solves to 1e-12.
ROUNDING, EQUAL = 1e-12, 1e-10
# How near a rate of convergence that is fitted has to be to the spectral radius.
NEAR = 0.03
# A network that does not come nearer: its last step, relative to the equilibrium.
FAR = 1e-2


def verdicts(found: Found) -> Table | None:
    """Return the claims with what was measured, or None if nothing of it was."""
    rows = [row for claim, makers in _MAKERS for make in makers for row in make(found.of(claim))]
    if not rows:
        return None
    columns = (
        Column("claim", "claim"),
        Column("claimed", "claimed"),
        Column("measured", "measured"),
        Column("holds", "holds"),
        Column("number", "of", "count", "", "how many measurements the number is of"),
    )
    frame = pd.DataFrame(rows)
    frame["met"] = frame["holds"] == "yes"
    text = Markup(
        "Every number is computed from the store; rows marked with ○ do not hold. Float64; seeds"
        " and sizes are those of the figures."
    )
    return Table("claims", "Claimed, and measured", text, columns, frame)


def _row(
    claim: str, claimed: str, measured: str, *, holds: bool, runs: pd.Series, number: int = 0
) -> dict[str, Any]:
    ids = sorted({int(run) for run in runs})
    return {
        "claim": claim,
        "claimed": claimed,
        "measured": measured,
        "holds": "yes" if holds else "no",
        "number": number or len(ids),
        "runs": ids,
    }


Rows = Iterator[dict[str, Any]]


def _equal(found: Found) -> Rows:
    rows = layers(found)
    if rows.empty:
        return
    right = rows[rows["step"] >= rows["layer"]]
    worst = float(right["value"].max())
    yield _row(
        "block l is layer l from step l on, so that L steps are the network",
        f"equal (to rounding, ≤ {small(ROUNDING)})",
        f"a difference of at most {small(worst)}",
        holds=worst <= ROUNDING,
        runs=rows["run_id"],
        number=len(right),
    )


def _powers(found: Found) -> Rows:
    rows = found.curves("power")
    if rows.empty:
        return
    last = rows[rows["step"] == rows["depth"]]
    first = rows[rows["step"] == 1]
    radius = found.solves["found_radius"]
    largest = float(rows[rows["step"] > 0]["value"].max())
    yield _row(
        "its Jacobian is nilpotent: Jᴸ = 0 and ρ(J) = 0, whatever ‖J‖ is",
        "0",
        f"‖Jᴸ‖ at most {small(float(last['value'].max()))}, ρ at most"
        f" {small(float(radius.max()))}; ‖J‖ is {small(float(first['value'].min()))} to"
        f" {small(float(first['value'].max()))}, ‖Jᵏ‖ up to {small(largest)}",
        holds=float(last["value"].max()) <= ROUNDING and float(radius.max()) <= ROUNDING,
        runs=rows["run_id"],
    )


def _picard(found: Found) -> Rows:
    rows = found.solves[found.solves["solver"] == "picard"]
    if rows.empty:
        return
    more = rows["evaluations"] - rows["depth"]
    low, high = float(more.min()), float(more.max())
    said = f"L + {high:.0f}" if low == high else f"L {low:+.0f} to L {high:+.0f}"
    yield _row(
        "plain iteration is exact after L steps, whatever ‖J‖ is",
        "L + 1 evaluations to a residual of 0: the last one sees it",
        f"{said} evaluations",
        holds=bool((more == 1).all() and rows["met"].all()),
        runs=rows["run_id"],
    )


def _series(found: Found) -> Rows:
    rows = found.curves("neumann")
    if rows.empty:
        return
    exact = float(rows[rows["step"] == rows["depth"]]["value"].max())
    before = rows[rows["step"] == rows["depth"] - 1]
    text = f"an error of {small(exact)}"
    if len(before):
        text += f"; of at least {small(float(before['value'].min()))} with L − 1"
    yield _row(
        "L terms of the Neumann series are the exact gradient, that of backpropagation",
        f"≤ {small(ROUNDING)}",
        text,
        holds=exact <= ROUNDING,
        runs=rows["run_id"],
    )


def _products(found: Found) -> Rows:
    rows = found.gradients
    if rows.empty:
        return
    over = float((rows["products"] - rows["depth"]).max())
    worst = float(rows["rel_err"].max())
    yield _row(
        "GMRES solves the adjoint in at most L products",
        "≤ L products, exact",
        f"L {over:+.0f} products at most, an error of {small(worst)}"
        if over
        else f"L products at most, an error of {small(worst)}",
        holds=over <= 0 and worst <= ROUNDING,
        runs=rows["run_id"],
    )


def _same(found: Found) -> Rows:
    rows = found.gradients
    if rows.empty:
        return
    for what, column in (("states", "state_err"), ("gradients", "rel_err")):
        worst = float(rows[column].max())
        yield _row(
            f"in sequence and jointly: the same {what}, by every solver",
            f"≤ {small(EQUAL)}, solved to 1e-12",
            f"a difference of at most {small(worst)}",
            holds=worst <= EQUAL,
            runs=rows["run_id"],
            number=len(rows),
        )


def _evaluations(found: Found) -> Rows:
    rows = pairs(found)
    if rows.empty:
        return
    ratio = rows["evaluations_joint"] / (rows["evaluations_first"] + rows["evaluations_second"])
    yield _row(
        "the joint solve takes no more evaluations than both in sequence",
        "joint ≤ first + second",
        f"{small(float(ratio.min()))} to {small(float(ratio.max()))} of the sum, median"
        f" {small(float(ratio.median()))}",
        holds=float(ratio.max()) <= 1,
        runs=rows["run_id"],
        number=len(rows),
    )
    larger = rows[["radius_first", "radius_second"]].max(axis=1)
    away = float((rows["radius_joint"] - larger).abs().max())
    yield _row(
        "the joint spectral radius is the larger of the two",
        f"equal (≤ {small(EQUAL)})",
        f"a difference of at most {small(away)}",
        holds=away <= EQUAL,
        runs=rows["run_id"],
    )


def _converging(found: Found) -> Rows:
    rows = found.solves[found.solves["found_radius"] < 1]
    for what, column in (
        ("the state of L layers tends to the equilibrium at the rate ρ a layer", "step"),
        ("the gradient of L layers tends to the equilibrium's at the rate ρ a layer", "gradient"),
    ):
        here = rows.dropna(subset=[f"found_{column}_rate"])
        if here.empty:
            continue
        ratio = here[f"found_{column}_rate"] / here["found_radius"]
        away = float((ratio - 1).abs().max())
        yield _row(
            what,
            f"fitted rate / ρ = 1 ± {NEAR:g}",
            f"{float(ratio.min()):.3f} to {float(ratio.max()):.3f}, ρ from"
            f" {float(here['found_radius'].min()):.3g} to {float(here['found_radius'].max()):.3g}",
            holds=away <= NEAR,
            runs=here["run_id"],
        )


def _beyond(found: Found) -> Rows:
    rows = found.solves[found.solves["found_radius"] > 1]
    if rows.empty:
        return
    last, gradient = float(rows["found_step_last"].min()), rows["found_gradient_last"]
    yield _row(
        "beyond ρ = 1 depth has no limit; the equilibrium is there, and a solver finds it",
        f"steps stay above {FAR:g} of ‖z*‖; solved",
        f"the last step is {small(last)} of ‖z*‖ at least; {int(rows['met'].sum())} of"
        f" {len(rows)} solved, in {words.count(float(rows['evaluations'].max()))} evaluations at"
        f" most; the gradient of {words.count(float(rows['found_layers'].max()))} layers is off by"
        f" {small(float(gradient.min()))} to {small(float(gradient.max()))} times the true one",
        holds=last > FAR and bool(rows["met"].all()),
        runs=rows["run_id"],
    )


def _last(found: Found, name: str) -> pd.DataFrame:
    rows = found.curves(f"variance, {name}")
    return rows[rows["step"] == rows["depth"]]


def _forgetting(found: Found) -> Rows:
    rows = found.curves("variance, tied")
    if rows.empty:
        return
    bound = rows["contraction"] ** (2 * rows["step"])
    # Variances of rounding errors are no longer bounded by it.
    over = rows[(rows["value"] > 1.0001 * bound) & (rows["value"] > 1e-28)]
    last = _last(found, "tied")
    limits = found.curves("limit, tied")
    yield _row(
        "without injection the input is forgotten: variance over inputs ≤ ‖W‖²ᵏ, the fixed point is"
        " the same for all",
        "→ 0",
        f"{small(float(last['value'].max()))} at most after the last step, above the bound at"
        f" {len(over)} of {len(rows)} steps; {small(float(limits['value'].max()))} at the fixed"
        " point",
        holds=over.empty and float(limits["value"].max()) <= ROUNDING,
        runs=rows["run_id"],
    )
    slopes = found.curves("gradient, tied")
    yield _row(
        "and the equilibrium has no gradient in the input",
        "0",
        small(float(slopes["value"].max())),
        holds=float(slopes["value"].max()) == 0,
        runs=slopes["run_id"],
    )


def _kept(found: Found) -> Rows:
    last, limits = _last(found, "injected"), found.curves("limit, injected")
    if last.empty or limits.empty:
        return
    both = last.merge(limits, on="run_id", suffixes=("", "_limit"))
    away = float((both["value"] / both["value_limit"] - 1).abs().max())
    low, high = float(last["value"].min()), float(last["value"].max())
    slopes = found.curves("gradient, injected")["value"]
    yield _row(
        "with injection the fixed point depends on the input",
        "variance and gradient stay away from 0",
        f"{small(low)} to {small(high)} of the input's variance, within {small(away)} of the fixed"
        f" point's; ‖dL/dx‖ / ‖dL/dz*‖ is {small(float(slopes.min()))} to"
        f" {small(float(slopes.max()))}",
        holds=low > FAR and float(slopes.min()) > FAR,
        runs=last["run_id"],
    )


_MAKERS: tuple[tuple[str, tuple[Callable[[Found], Rows], ...]], ...] = (
    ("universality", (_equal, _powers, _picard, _series, _products)),
    ("stacking", (_same, _evaluations)),
    ("depth", (_converging, _beyond)),
    ("injection", (_forgetting, _kept)),
)
