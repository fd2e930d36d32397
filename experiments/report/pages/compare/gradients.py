"""What the answer says of gradients: what each costs, how exact it is, which one to take."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.measures import least, per_seed
from experiments.report.pages.compare.cases import KEEPS_GRAPH, Case, implicit
from experiments.report.words import listed, sentence, strong

# A gradient this close to the equilibrium's is called near: one percent.
_NEAR = 1e-2


def headline(case: Case) -> Markup:
    """Say what the smallest gradient keeps of what the largest keeps, where they differ."""
    rows = _behind(case)
    medians = rows.groupby("gradient", sort=False)["kept_bytes"].median().dropna()
    medians = medians[medians > 0]
    if len(medians) < 2:
        return Markup()
    low, high = str(medians.idxmin()), str(medians.idxmax())
    if medians[low] == medians[high]:
        return Markup()
    return sentence(
        "For the backward pass, {} keeps {} of what {} keeps ({}, {}).",
        strong(low),
        _fraction(medians[low] / medians[high]),
        strong(high),
        words.size(medians[low]),
        words.size(medians[high]),
    )


def _fraction(ratio: float) -> str:
    return f"1/{words.digits(1 / ratio, 2)}" if ratio < 0.2 else f"{words.digits(100 * ratio, 2)} %"


def _behind(case: Case) -> pd.DataFrame:
    """Return the points behind which gradients are compared: one solver, one tolerance."""
    rows = case.points[case.points["reltol"] == case.reference]
    return rows[(rows["solver"] == case.representative) & rows["method"].notna()]


def heading(case: Case) -> str:
    """Return what the gradients are compared behind."""
    tolerance = words.tolerance(case.reference)
    return f"Which gradient: behind {case.representative} at reltol {tolerance}"


def each(case: Case) -> list[Markup]:
    """Return what each gradient costs and how exact it is."""
    rows = case.by_gradient
    rows = rows[(rows["solver"] == case.representative) & (rows["reltol"] == case.reference)]
    said = []
    for name in case.gradients:
        here = rows[rows["gradient"] == name]
        if not here.empty:
            points = _behind(case)
            said.append(_gradient(here.iloc[0], points[points["gradient"] == name]))
    return said


def _gradient(row: pd.Series, points: pd.DataFrame) -> Markup:
    if words.missing(row["rel_err"]):
        exact = Markup("no error was measured")
    else:
        exact = sentence("relative error {}", words.small(row["rel_err"]))
        if row["rel_err_lo"] != row["rel_err_hi"]:
            low, high = words.small(row["rel_err_lo"]), words.small(row["rel_err_hi"])
            exact += sentence(" ({} to {})", low, high)
    cost = sentence("{} backward", words.seconds(row["backward_seconds"]))
    if not words.missing(row["products"]):
        cost = sentence("{} products and {}", words.count(row["products"]), cost)
    elif points["method"].isin(KEEPS_GRAPH).any():
        cost += Markup(", through the recorded iterations")
    kept = sentence("keeps {}", words.size(row["kept_bytes"]))
    if not words.missing(row["history_bytes"]) and row["history_bytes"]:
        kept += sentence(
            ", beside the solver's own {} of history", words.size(row["history_bytes"])
        )
    text = sentence("{}: {}; {}; {}", strong(row["gradient"]), exact, cost, kept)
    missed = points[points["adjoint_converged"].fillna(1.0) < 1.0]
    if len(missed):
        codes = listed(sorted({str(code) for code in missed["adjoint_retcode"]}))
        text += sentence(
            "; its adjoint missed its tolerance in {} of {} runs ({})",
            len(missed),
            len(points),
            codes,
        )
    return text + Markup(".")


def verdict(case: Case) -> list[Markup]:
    """Return which gradient is the most exact, the quickest and the smallest, and the best pair."""
    rows = _behind(case)
    said = []
    for quantity, title, write in (
        ("rel_err", "Most exact", words.small),
        ("backward_seconds", "Quickest backward", words.seconds),
        ("kept_bytes", "Fewest bytes kept", words.size),
    ):
        best = least(per_seed(rows, ["gradient"], quantity), "gradient")
        if best is None or len(best.medians) < 2:
            continue
        if len(best.names) == len(best.medians):
            said.append(sentence("{}: all alike, within the spread.", title))
        else:
            names = words.names([name for name in case.gradients if name in best.names])
            tied = ", tied" if len(best.names) > 1 else ""
            said.append(sentence("{}: {}{} ({}).", title, names, tied, write(best.value)))
    pair = _pair(case)
    said += [pair] if pair else []
    return [Markup(" ").join(said)] if said else []


def _pair(case: Case) -> Markup | None:
    """Say which solver and gradient together take the least time, of those that met."""
    rows = case.by_gradient
    rows = rows[(rows["reltol"] == case.reference) & rows["met"] & rows["total_seconds"].notna()]
    if len(rows) < 2:
        return None
    row = rows.sort_values("total_seconds", kind="stable").iloc[0]
    return sentence(
        "Forward and backward together take the least time with {} and {} ({}).",
        strong(row["solver"]),
        strong(row["gradient"]),
        words.seconds(row["total_seconds"]),
    )


def explicit(case: Case) -> list[Markup]:
    """Return how deep an explicit network comes near the equilibrium, and what it keeps then."""
    rows = case.by_budget
    said = []
    for (solver, gradient), group in rows[rows["rel_err"].notna()].groupby(
        ["solver", "gradient"], sort=False
    ):
        if str(gradient).startswith("implicit"):
            continue
        deepest = group.iloc[-1]
        far = group.index[group["rel_err"] > _NEAR]
        near = group if far.empty else group.loc[group.index > far[-1]]
        who = sentence("{} iterations with {} gradients", strong(solver), strong(gradient))
        if near.empty:
            text = sentence(
                "{}: at the largest depth, {}, the gradient is still {} from the equilibrium's",
                who,
                words.count(deepest["max_evaluations"]),
                words.small(deepest["rel_err"]),
            )
            row = deepest
        else:
            row = near.iloc[0]
            text = sentence(
                "{}: from depth {} on, the gradient is within 1 % of the equilibrium's",
                who,
                words.count(row["max_evaluations"]),
            )
        text += sentence("; the network keeps {} there", words.size(row["kept_bytes"]))
        said.append(words.capital(text) + _against_equilibrium(case, row["kept_bytes"]))
    return said


def _against_equilibrium(case: Case, kept: float | None) -> Markup:
    rows = case.by_gradient
    rows = rows[(rows["reltol"] == case.reference) & (rows["solver"] == case.representative)]
    rows = implicit(rows)
    own = rows["kept_bytes"].dropna().min()
    if words.missing(own) or not own or kept is None or words.missing(kept):
        return Markup(".")
    return sentence(
        ", {} the {} of the implicit gradient.", words.times(kept / own), words.size(own)
    )
