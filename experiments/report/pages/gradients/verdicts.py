"""What was aimed at, beside what was measured: every number from the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Column, Table
from experiments.report.pages.gradients.rows import Gradients, place
from experiments.report.words import small

# A residual above this is not yet small, and the error is not yet proportional to it.
ASYMPTOTIC = 3e-2
HARD = 0.9
FACTOR = 3.0
_BARE = "certificate=False"
# The radius that was prescribed is met to a few digits.
_NEAR = 1e-3


def verdicts(found: Gradients) -> Table | None:
    """Return the targets with what was measured, or None if nothing of it was."""
    rows = [row for make in _MAKERS for row in make(found)]
    if not rows:
        return None
    columns = (
        Column("what", "what"),
        Column("target", "target"),
        Column("measured", "measured"),
        Column("reached", "reached"),
        Column("number", "of", "count", "", "how many measurements the number is of"),
        Column("note", "worst, and where"),
    )
    frame = pd.DataFrame(rows)
    frame["met"] = frame["reached"] == "yes"
    text = Markup("Rows marked with ○ fall short. All numbers are computed from the store.")
    return Table("targets", "Target and measured", text, columns, frame)


def _row(
    what: str, target: str, measured: str, number: int, note: str, *, reached: bool, runs: pd.Series
) -> dict[str, Any]:
    return {
        "what": what,
        "target": target,
        "measured": measured,
        "reached": "yes" if reached else "no",
        "number": number,
        "note": note,
        "runs": sorted({int(run) for run in runs}),
    }


def _worst(rows: pd.DataFrame, value: str) -> str:
    rows = rows.nlargest(1, value)
    return f"{small(float(rows[value].iloc[0]))}: {_where(rows)}"


def _where(rows: pd.DataFrame) -> str:
    return f"{place(rows)[0]}, seed {rows['seed'].iloc[0]:.0f}"


def _at_most(
    rows: pd.DataFrame, value: str, limit: float, what: str, target: str
) -> Iterator[dict[str, Any]]:
    rows = rows.dropna(subset=[value])
    if len(rows):
        largest = float(rows[value].max())
        yield _row(
            what,
            target,
            f"at most {small(largest)}, median {small(float(rows[value].median()))}",
            len(rows),
            _worst(rows, value),
            reached=largest <= limit,
            runs=rows["run_id"],
        )


def _exact(found: Gradients) -> Iterator[dict[str, Any]]:
    rows = found.of("exact")
    what = "relative error of implicit, float64, both passes to 1e-12, against the dense adjoint"
    yield from _at_most(rows, "rel_err", 1e-9, what, "≤ 1e-9")
    checks = rows.drop_duplicates("run_id")
    what = "central differences of the loss against the same reference"
    yield from _at_most(checks, "differences", 1e-6, what, "≤ 1e-6")


def slopes(found: Gradients) -> pd.DataFrame:
    """Return the log-log slope of the error in the forward residual, a row a run and radius."""
    rows = found.of("tolerances")
    rows = rows[rows["exact_adjoint"] & (rows["precision"] == "float64") & ~rows["elsewhere"]]
    rows = rows[(rows["forward"] < ASYMPTOTIC) & (rows["forward"] > 0) & (rows["rel_err"] > 0)]
    made = []
    for _, group in rows.groupby(["run_id", "radius"], dropna=False, sort=False):
        if len(group) > 2:
            fit = np.polyfit(np.log(group["forward"]), np.log(group["rel_err"]), 1)
            made.append({**group.iloc[0].to_dict(), "slope": float(fit[0])})
    return pd.DataFrame(made, columns=[*rows.columns, "slope"])


def _slope(found: Gradients) -> Iterator[dict[str, Any]]:
    fits = slopes(found)
    if len(fits):
        middle = float(fits["slope"].median())
        low, high = float(fits["slope"].min()), float(fits["slope"].max())
        far = fits.assign(far=(fits["slope"] - 1).abs()).nlargest(1, "far")
        yield _row(
            "slope of the error in the forward residual, log-log, exact adjoint",
            "1.0 ± 0.05",
            f"{middle:.3f} in the median, {low:.3f} to {high:.3f}",
            len(fits),
            f"{float(far['slope'].iloc[0]):.3f}: {_where(far)}",
            reached=abs(middle - 1) <= 0.05,
            runs=fits["run_id"],
        )


def _scale(found: Gradients) -> Iterator[dict[str, Any]]:
    rows = found.of("loss_scale")
    rows = rows[rows["gradient"] == "implicit"]
    what = "change of implicit when the loss is scaled by 1e-12 to 1e12, float64"
    yield from _at_most(rows, "change", 1e-10, what, "≤ 1e-10")


def _spread(found: Gradients) -> Iterator[dict[str, Any]]:
    rows = found.of("solvers").dropna(subset=["spread"])
    if len(rows):
        cases = rows.groupby(["run_id", "radius"], dropna=False)["spread"].max()
        yield _row(
            "spread of the gradients behind different solvers, over the tolerance",
            "≤ 10",
            f"{words.digits(float(cases.median()))} in the median of the models,"
            f" {words.digits(float(cases.min()))} to {words.digits(float(cases.max()))}",
            len(rows),
            _worst(rows, "spread"),
            reached=float(cases.max()) <= 10,
            runs=rows["run_id"],
        )


def hard(found: Gradients) -> pd.DataFrame:
    """Return the preconditioned adjoints at a spectral radius of 0.9 and more."""
    rows = found.of("precondition").dropna(subset=["ratio"])
    return rows[rows["spectral_radius"] >= HARD - _NEAR]


def _precondition(found: Gradients) -> Iterator[dict[str, Any]]:
    every = hard(found)
    for keys, rows in every.groupby(["case", "solver", "reltol"], sort=False):
        case, solver, reltol = keys
        ratio = float(rows["ratio"].median())
        worst = rows.nlargest(1, "ratio").iloc[0]
        yield _row(
            f"adjoint products, preconditioned / plain, ρ ≥ 0.9: {case}, {solver} to"
            f" {words.tolerance(float(str(reltol)))}",
            "≤ 0.55",
            f"{ratio:.2f} in the median ({words.count(float(rows['products'].median()))} of"
            f" {words.count(float(rows['plain'].median()))} products)",
            len(rows),
            f"{worst['ratio']:.2f}: ρ = {worst['spectral_radius']:.2f}, seed {worst['seed']:.0f}",
            reached=ratio <= 0.55,
            runs=rows["run_id"],
        )


def _cost(found: Gradients) -> Iterator[dict[str, Any]]:
    rows = found.of("cost").dropna(subset=["ratio"])
    for label, said, limit in (
        ("implicit (precondition=forward)", "preconditioned", 1.6),
        (f"implicit (precondition=forward, {_BARE})", "preconditioned, no certificate", 1.6),
        ("implicit", "plain", 2.4),
        (f"implicit ({_BARE})", "plain, no certificate", 2.4),
    ):
        here = rows[rows["label"] == label]
        if len(here):
            ratio = float(here["ratio"].median())
            yield _row(
                f"training step with implicit / with jacobian_free, {said}",
                f"≤ {limit}",
                f"{ratio:.2f} in the median of the models",
                len(here),
                _worst(here, "ratio"),
                reached=ratio <= limit,
                runs=here["run_id"],
            )


def certified(found: Gradients) -> pd.DataFrame:
    """Return the gradients that came with a certificate, and ``factor``: it over the true error."""
    rows = found.parameters
    rows = rows[(rows["certificate"] > 0) & (rows["rel_err"] > 0)].copy()
    rows["factor"] = rows["certificate"] / rows["rel_err"]
    rows["within"] = (rows["factor"] <= FACTOR) & (rows["factor"] >= 1 / FACTOR)
    return rows


def _certificate(found: Gradients) -> Iterator[dict[str, Any]]:
    rows = certified(found)
    if len(rows):
        share = float(rows["within"].mean())
        found_z = pd.to_numeric(rows["forward_converged"], errors="coerce").fillna(1.0) >= 1
        met = float(rows.loc[found_z, "within"].mean())
        low, high = rows["factor"].quantile([0.025, 0.975])
        yield _row(
            "certificate / true error within a factor 3",
            "95 %",
            f"{100 * share:.1f} %, {100 * met:.1f} % of those whose forward met its tolerance;"
            f" 95 % of the factors are {low:.2f} to {high:.2f}",
            len(rows),
            _worst(rows.assign(far=np.exp(np.abs(np.log(rows["factor"])))), "far"),
            reached=share >= 0.95,
            runs=rows["run_id"],
        )


_MAKERS: tuple[Callable[[Gradients], Iterator[dict[str, Any]]], ...] = (
    _exact,
    _slope,
    _scale,
    _spread,
    _precondition,
    _cost,
    _certificate,
)
