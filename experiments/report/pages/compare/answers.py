"""The answer in sentences, each one written from the rows: nothing here is said beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.measures import Best
from experiments.report.pages.compare import gradients
from experiments.report.pages.compare.cases import Case
from experiments.report.words import listed, plural, sentence, strong


def card(case: Case) -> Card:
    """Return the answer for one case."""
    parts = [
        Prose(forward(case), "Which solver"),
        Prose(gradients.each(case), gradients.heading(case), listed=True),
        Prose(gradients.verdict(case)),
        Prose(gradients.explicit(case), "The explicit network beside it"),
        Prose(unmet(case), "What was not met", listed=True),
    ]
    return Card(
        case.name, setting(case), headline(case), [part for part in parts if part.paragraphs]
    )


def setting(case: Case) -> Markup:
    """Return what was measured, in a line: sizes, precision, device, data, training, seeds."""
    rows = pd.concat([case.points, case.budgets])
    said = []
    for column, template in (
        ("batch", "batches of {}"),
        ("dim", "{} numbers a sample"),
        ("dtype", "{}"),
        ("device", "on {}"),
        ("data", "{} data"),
    ):
        values = [_whole(v) for v in rows[column].dropna().unique()]
        if values:
            said.append(sentence(template, listed([str(v) for v in values], "or")))
    steps = [_whole(v) for v in rows["train_steps"].dropna().unique()]
    if steps:
        trained = [f"after {plural(int(s), 'training step')}" if s else "untrained" for s in steps]
        said.append(Markup.escape(listed(trained, "or")))
    said.append(Markup.escape(plural(rows["seed"].nunique(), "seed")))
    return Markup(", ").join(said)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def headline(case: Case) -> Markup:
    """Return the one or two sentences that a reader takes away."""
    if case.points.empty:
        return Markup("Only fixed budgets were measured: no solve went to a tolerance.")
    tolerance = case.reference
    if tolerance is None:
        return Markup("The solves have no tolerance to be compared at.")
    fewest, quickest = (case.winner(tolerance, what) for what in ("evaluations", "seconds"))
    if fewest is None:
        return Markup("No solver met any tolerance in all its runs.")
    at = sentence("At reltol {}, ", words.tolerance(tolerance))
    seconds = words.seconds(quickest.value) if quickest else None
    if case.by_solver["solver"].nunique() == 1:
        only = strong(fewest.names[0])
        text = at + sentence(
            "{}, the only solver here, needs {}", only, _work(case, [(tolerance, fewest)])
        )
        text += sentence(" evaluations and {}", seconds) if seconds else Markup(" evaluations")
        return text + Markup(". ") + gradients.headline(case)
    text = at + _wins(fewest, case, "the fewest evaluations", "needs")
    text += sentence(" ({})", _work(case, [(tolerance, fewest)]))
    free = _without_products(case, tolerance, fewest)
    if free:
        text += sentence(
            ", {} without Jacobian products ({})",
            _wins(free, case, "the fewest", ""),
            words.count(free.value),
        )
    if quickest and set(fewest.names) == set(quickest.names):
        text += sentence(" and the least time ({})", seconds)
    elif quickest:
        text += sentence("; {} ({})", _wins(quickest, case, "the least time", "takes"), seconds)
    return text + Markup(". ") + gradients.headline(case)


def _wins(best: Best, case: Case, prize: str, verb: str) -> Markup:
    """Say who has it: ``broyden needs the fewest``, ``anderson and broyden tie for the fewest``."""
    said = verb if len(best.names) == 1 else "tie for"
    return _names(best, case) + Markup(f" {said} {prize}" if said else f" {prize}")


def _names(best: Best, case: Case) -> Markup:
    return words.names(sorted(best.names, key=list(case.looks).index))


def _work(case: Case, won: Sequence[tuple[float, Best]]) -> str:
    """Say how many evaluations, and the Jacobian products that come beside them."""
    evaluations = listed([words.count(best.value) for _, best in won])
    products = [number for tolerance, best in won for number in _products(case, tolerance, best)]
    if not any(products):
        return evaluations
    ends = [words.count(end) for end in (min(products), max(products))]
    beside = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    return f"{evaluations}, beside {beside} Jacobian products"


def _products(case: Case, tolerance: float, best: Best) -> tuple[float, float]:
    """Return the fewest and the most Jacobian products of those that share a place."""
    rows = case.by_solver[case.by_solver["reltol"] == tolerance]
    found = rows.loc[rows["solver"].isin(best.names), "products_forward"]
    return (float(found.min()), float(found.max())) if len(found) else (0.0, 0.0)


def _without_products(case: Case, tolerance: float, best: Best) -> Best | None:
    """Return the winner among the solvers without products, where the first one needs some."""
    if not any(_products(case, tolerance, best)):
        return None
    return case.winner(tolerance, "evaluations", case.product_free())


def forward(case: Case) -> list[Markup]:
    """Return which solver meets each tolerance with the fewest evaluations and in the least"
    " time."""
    if case.by_solver["solver"].nunique() < 2:
        return _alone(case)
    won = _winners(case, "evaluations")
    said = [_contest(case, won, "the fewest evaluations", "needs")]
    if any(any(_products(case, tolerance, best)) for tolerance, best in won):
        free = _winners(case, "evaluations", case.product_free())
        said.append(_contest(case, free, "the fewest without Jacobian products", "needs"))
    quickest = _winners(case, "seconds")
    said.append(_contest(case, quickest, "the least time", "takes", words.seconds))
    return [text for text in said if text] + _never(case)


def _winners(
    case: Case, quantity: str, among: Sequence[str] | None = None
) -> list[tuple[float, Best]]:
    found = ((tolerance, case.winner(tolerance, quantity, among)) for tolerance in case.tolerances)
    return [(tolerance, best) for tolerance, best in found if best is not None]


def _alone(case: Case) -> list[Markup]:
    rows = case.by_solver[case.by_solver["met"]]
    parts = [
        sentence(
            "{} evaluations and {} to reltol {}",
            words.count(row["evaluations"]),
            words.seconds(row["seconds"]),
            words.tolerance(row["reltol"]),
        )
        for _, row in rows.iterrows()
    ]
    said = []
    if parts:
        name = strong(case.by_solver["solver"].iloc[0])
        said = [sentence("{} takes {}; it has no rival here.", name, listed(parts))]
    return said + _never(case)


def _contest(
    case: Case,
    won: Sequence[tuple[float, Best]],
    prize: str,
    verb: str,
    write: words.Writer | None = None,
) -> Markup:
    """Say in one sentence who has the prize at which tolerances, and in another who is furthest."""
    parts: list[Markup] = []
    for _, group in groupby(won, key=lambda item: frozenset(item[1].names)):
        here = list(group)
        best = here[0][1]
        if parts:
            who = _names(best, case) + Markup(", tied," if len(best.names) > 1 else "")
        else:
            who = _wins(best, case, prize, verb)
        text = listed([write(b.value) for _, b in here]) if write else _work(case, here)
        reached = _tolerances([t for t, _ in here], case.tolerances)
        parts.append(sentence("{} to {} ({})", who, reached, text))
    if not parts:
        return Markup()
    furthest = _most(won[-1], write or words.count, "time" if write else "evaluations")
    return Markup("; ").join(parts) + Markup(".") + furthest


def _most(last: tuple[float, Best], write: words.Writer, unit: str) -> Markup:
    tolerance, best = last
    worst = max(best.medians, key=lambda name: best.medians[name])
    if worst in best.names or best.value <= 0:
        return Markup()
    return sentence(
        " At {}, {} takes the most of those that meet it: {}, {} the {}.",
        words.tolerance(tolerance),
        strong(worst),
        write(best.medians[worst]),
        words.times(best.medians[worst] / best.value),
        unit,
    )


def _never(case: Case) -> list[Markup]:
    said = []
    for tolerance in case.tolerances:
        here = case.by_solver[case.by_solver["reltol"] == tolerance]
        if here["met"].any():
            continue
        text = sentence("No solver meets reltol {} in all its runs", words.tolerance(tolerance))
        nearest = here.sort_values("met_number", ascending=False, kind="stable").iloc[0]
        if nearest["met_number"]:
            text += sentence(
                "; {} does in {} of {}",
                strong(nearest["solver"]),
                nearest["met_number"],
                nearest["number"],
            )
        said.append(text + Markup("."))
    return said


def _tolerances(some: Sequence[float], every: Sequence[float]) -> str:
    if len(some) == len(every) and len(some) > 2:
        return f"every tolerance from {words.tolerance(some[0])} to {words.tolerance(some[-1])}"
    return f"reltol {listed([words.tolerance(t) for t in some])}"


def unmet(case: Case) -> list[Markup]:
    """Return which solver missed which tolerances, how often, and with which retcode."""
    rows = case.by_solver[~case.by_solver["met"]]
    rows = rows.iloc[rows["solver"].map(list(case.looks).index).argsort(kind="stable")]
    said = []
    for (solver, retcode), here in rows.groupby(["solver", "retcode"], sort=False, dropna=False):
        code = "no retcode" if words.missing(retcode) else retcode
        parts = []
        for _, row in here.iterrows():
            missed = row["number"] - row["met_number"]
            parts.append(f"{words.tolerance(row['reltol'])} ({missed} of {row['number']})")
        said.append(sentence("{}: {} at {}.", strong(solver), code, listed(parts)))
    return said
