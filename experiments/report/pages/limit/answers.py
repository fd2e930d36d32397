"""The answer in sentences, each one written from the rows: nothing here is said beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.pages.limit.families import DEFAULT, Family, number
from experiments.report.words import listed, plural, sentence, strong


def card(family: Family) -> Card:
    """Return the answer for one problem."""
    parts = [
        Prose(compared(family), "Each solver", listed=True),
        Prose(spectra(family), "Each setting", listed=True),
        Prose(against_picard(family), "Anderson against plain iteration", listed=True),
    ]
    return Card(
        family.name, setting(family), headline(family), [part for part in parts if part.paragraphs]
    )


def setting(family: Family) -> Markup:
    """Return what was measured, in a line."""
    rows = family.points
    said = [sentence("reltol {}", words.tolerance(family.reltol))]
    for column, template in (
        ("dim", "{} numbers"),
        ("batch", "batches of {}"),
        ("dtype", "{}"),
        ("device", "on {}"),
    ):
        values = [_whole(v) for v in rows[column].dropna().unique()]
        if values and not (column == "batch" and values == [1]):
            said.append(sentence(template, listed([str(v) for v in values], "or")))
    said.append(Markup.escape(plural(len(family.settings), "setting")))
    said.append(Markup.escape(plural(rows["seed"].nunique(), "seed")))
    return Markup(", ").join(said)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def headline(family: Family) -> Markup:
    """Return who comes closest to the limit, and how close the default does."""
    if family.at["limit"].isna().all():
        return Markup("No limit is known: neither a solver nor the problem gave an equilibrium.")
    whole = family.overall[~family.overall["missing"]]
    if whole.empty:
        return Markup("No solver was measured in every setting.")
    best = whole.iloc[0]
    if best["failed"] == best["number"]:
        return Markup("No solver met the tolerance in any run.")
    text = sentence("{} comes closest to the limit", strong(best["solver"]))
    if best["failed"]:
        text += sentence(" of those that fail least ({})", _failures(best))
    text += sentence(": {}", _course(family, str(best["solver"])))
    text += Markup(".") if best["failed"] else Markup(", and fails nowhere.")
    default = whole[whole["solver"].str.split(" (", regex=False).str[0] == DEFAULT]
    if len(default) and default["solver"].iloc[0] != best["solver"]:
        row = default.iloc[0]
        text += sentence(
            " The default, {}, takes {}; it fails in {}.",
            strong(row["solver"]),
            _course(family, str(row["solver"])),
            _failures(row) if row["failed"] else "none",
        )
    return text


def _course(family: Family, solver: str) -> Markup:
    """Return a solver's medians: each where settings are few, else from the least to the most."""
    rows = family.by_solver[family.by_solver["solver"] == solver]
    if len(rows) > 4:
        low, high = (number(float(v)) for v in (rows["score"].min(), rows["score"].max()))
        span = low if low == high else f"{low} to {high}"
        return sentence("{} times the limit in the median, setting by setting", span)
    values = listed([number(float(v)) for v in rows["score"]])
    if len(rows) == 1:
        return sentence("{} times the limit in the median", values)
    where = listed([family.said(str(s)) for s in rows["setting"]])
    return sentence("{} times the limit in the median at {}", values, where)


def _failures(row: pd.Series) -> str:
    return f"{row['failed']} of {plural(int(row['number']), 'solve')}"


def compared(family: Family) -> list[Markup]:
    """Return how near each solver comes, the nearest first."""
    said = []
    for _, row in family.overall.iterrows():
        low, high = number(float(row["low"])), number(float(row["high"]))
        span = low if low == high else f"{low} to {high}"
        template = "{} times the limit" if row["failed"] < row["number"] else "{}"
        text = sentence("{}: " + template, strong(row["solver"]), span)
        if row["failed"]:
            text += sentence("; failed in {}", _failures(row))
        if row["missing"]:
            text += sentence("; in {} of {} settings", row["settings"], len(family.settings))
        said.append(text + Markup("."))
    return said


def spectra(family: Family) -> list[Markup]:
    """Return limit, winner and plain iteration in each setting."""
    said = []
    for name in family.settings:
        rows = family.by_solver[family.by_solver["setting"] == name]
        limit, radius = rows["limit"].median(), rows["radius"].median()
        if words.missing(limit):
            said.append(sentence("{}: no limit is known.", strong(family.said(name))))
            continue
        text = sentence("{}: the limit is {}", strong(family.said(name)), words.count(limit))
        if not words.missing(radius):
            text += sentence(" (ρ = {})", words.digits(radius))
        best = rows.sort_values(["failed", "score"], kind="stable").iloc[0]
        if math.isfinite(best["score"]):
            closest = f"{number(best['score'])}×"
            text += sentence("; {} comes closest ({})", strong(best["solver"]), closest)
        else:
            text += Markup("; no solver reaches the tolerance in half of its runs")
        plain = rows[rows["solver"].str.split(" (", regex=False).str[0] == "picard"]
        if len(plain) and plain["solver"].iloc[0] != best["solver"]:
            value = float(plain["score"].iloc[0])
            text += (
                sentence("; plain iteration takes {}×", number(value))
                if math.isfinite(value)
                else Markup("; plain iteration fails")
            )
        lost = int((rows["failed"] > 0).sum())
        if lost:
            text += sentence("; {} of {} solvers failed in some run", lost, len(rows))
        said.append(text + Markup("."))
    return said


def against_picard(family: Family) -> list[Markup]:
    """Return, for each Anderson, whether it ever needs more evaluations than plain iteration."""
    said = []
    for name in family.curves:
        rows = family.curve(name)
        bare = rows["solver"].str.split(" (", regex=False).str[0]
        plain = rows[(bare == "picard") & rows["met"]].set_index("reltol")["evaluations"]
        for solver in dict.fromkeys(rows.loc[bare.str.contains("anderson"), "solver"]):
            mine = rows[rows["solver"] == solver].set_index("reltol")
            shared = [t for t in sorted(plain.index, reverse=True) if t in mine.index]
            if shared:
                said.append(_versus(family.said(name), solver, mine, plain, shared))
    return said


def _versus(
    where: str, solver: str, mine: pd.DataFrame, plain: pd.Series, shared: Sequence[float]
) -> Markup:
    asked = [float(t) for t in mine.index]
    counts = dict(zip(asked, mine["evaluations"].astype(float), strict=True))
    met = dict(zip(asked, mine["met"].astype(bool), strict=True))
    times = {t: counts[t] / float(plain[t]) for t in shared}
    lost = [t for t in shared if not met[t]]
    more = [t for t in shared if met[t] and times[t] > 1]
    head = sentence("{}, {}: ", strong(where), strong(solver))
    span = f"{plural(len(shared), 'tolerance')} from {words.tolerance(shared[0])} to"
    span += f" {words.tolerance(shared[-1])}"
    if more or lost:
        parts = []
        if more:
            most = words.times(max(times[t] for t in more))
            tolerances = listed([words.tolerance(t) for t in more])
            parts.append(f"more evaluations at {tolerances}, at most {most}")
        if lost:
            parts.append(f"no solution at {listed([words.tolerance(t) for t in lost])}")
        text = head + sentence("of {}, {}", span, listed(parts))
    else:
        text = head + sentence("never more evaluations at {}", span)
    tight = [t for t in shared if t <= 1.001e-5 and met[t]]
    if tight:
        shares = [times[t] for t in tight]
        text += sentence(
            "; from {} on {} of them", words.tolerance(max(tight)), _share(min(shares), max(shares))
        )
    return text + Markup(".")


def _share(low: float, high: float) -> str:
    ends = [words.digits(value, 2) for value in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
