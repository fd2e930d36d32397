"""The answer in sentences, each one written from the rows: nothing here is said beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.measures import Best, least, per_seed
from experiments.report.pages.compare.cases import Case
from experiments.report.words import listed, plural, sentence, strong

# A gradient this close to the equilibrium's is called near: one percent.
_NEAR = 1e-2


def card(case: Case) -> Card:
    """Return the answer for one case."""
    parts = [
        Prose(forward(case), "Which solver"),
        Prose(gradients(case), _gradient_heading(case), listed=True),
        Prose(gradient_verdict(case)),
        Prose(explicit(case), "The explicit network beside it"),
        Prose(unmet(case), "What was not met", listed=True),
    ]
    return Card(case.name, setting(case), headline(case), [part for part in parts if part.paragraphs])


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


def _whole(value: object) -> object:
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
    evaluations = words.count(fewest.value)
    seconds = words.seconds(quickest.value) if quickest else None
    if case.by_solver["solver"].nunique() == 1:
        only = strong(fewest.names[0])
        text = at + sentence("{}, the only solver here, needs {} evaluations", only, evaluations)
        text += sentence(" and {}", seconds) if seconds else Markup()
    else:
        needs = _needs(fewest, case, "needs", "need")
        text = at + sentence("{} the fewest evaluations ({})", needs, evaluations)
        if quickest and set(fewest.names) == set(quickest.names):
            text += sentence(" and the least time ({})", seconds)
        elif quickest:
            takes = _needs(quickest, case, "takes", "take")
            text += sentence("; {} the least time ({})", takes, seconds)
    return text + Markup(". ") + _memory_headline(case)


def _memory_headline(case: Case) -> Markup:
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


def forward(case: Case) -> list[Markup]:
    """Return which solver meets each tolerance with the fewest evaluations, and in the least time."""
    if case.by_solver["solver"].nunique() < 2:
        return [*_alone(case)]
    said = _contest(case, "evaluations", "the fewest evaluations", words.count, ("needs", "need"))
    said += _contest(case, "seconds", "the least time", words.seconds, ("takes", "take"))
    return said + _never(case)


def _alone(case: Case) -> list[Markup]:
    rows = case.by_solver[case.by_solver["met"]]
    if rows.empty:
        return _never(case)
    parts = [
        sentence(
            "{} evaluations and {} to reltol {}",
            words.count(row.evaluations),
            words.seconds(row.seconds),
            words.tolerance(row.reltol),
        )
        for row in rows.itertuples()
    ]
    name = strong(case.by_solver["solver"].iloc[0])
    return [sentence("{} takes {}; it has no rival here.", name, listed(parts)), *_never(case)]


def _contest(
    case: Case, quantity: str, prize: str, write: words.Writer, verbs: tuple[str, str]
) -> list[Markup]:
    won = [(t, best) for t in case.tolerances if (best := case.winner(t, quantity)) is not None]
    said = []
    for names, group in groupby(won, key=lambda item: frozenset(item[1].names)):
        here = list(group)
        values = [write(best.value) for _, best in here]
        seeds = here[0][1].seeds
        tied = _tied(seeds) if len(names) > 1 else ""
        text = sentence(
            "To {}, {} {}{} ({}).",
            _tolerances([t for t, _ in here], case.tolerances),
            _needs(here[0][1], case, *verbs),
            prize,
            tied,
            listed(values),
        )
        said.append(text)
    if said:
        said[-1] += _most(won[-1], quantity, write)
    return said


def _most(last: tuple[float, Best], quantity: str, write: words.Writer) -> Markup:
    tolerance, best = last
    worst = max(best.medians, key=lambda name: best.medians[name])
    if worst in best.names or best.value <= 0:
        return Markup()
    ratio = best.medians[worst] / best.value
    return sentence(
        " At {}, {} takes the most of those that meet it: {}, {}.",
        words.tolerance(tolerance),
        strong(worst),
        write(best.medians[worst]),
        words.times(ratio) + (" the evaluations" if quantity == "evaluations" else " the time"),
    )


def _tied(seeds: int) -> str:
    return f", tied within the spread over {plural(seeds, 'seed')}," if seeds > 1 else ", tied,"


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
                "; {} does in {} of {}", strong(nearest["solver"]), nearest["met_number"], nearest["number"]
            )
        said.append(text + Markup("."))
    return said


def _needs(best: Best, case: Case, one: str, many: str) -> Markup:
    order = list(case.looks)
    names = sorted(best.names, key=order.index)
    verb = one if len(names) == 1 else many
    return listed_strong(names) + Markup(f" {verb}")


def listed_strong(names: Sequence[str]) -> Markup:
    """Return names, each one marked, as a list in a sentence."""
    return Markup(listed([strong(name) for name in names]))


def _tolerances(some: Sequence[float], every: Sequence[float]) -> str:
    if len(some) == len(every) and len(some) > 2:
        return f"every tolerance from {words.tolerance(some[0])} to {words.tolerance(some[-1])}"
    return f"reltol {listed([words.tolerance(t) for t in some])}"


def _behind(case: Case) -> pd.DataFrame:
    """Return the points behind which gradients are compared: one solver, one tolerance."""
    rows = case.points[case.points["reltol"] == case.reference]
    return rows[(rows["solver"] == case.representative) & rows["method"].notna()]


def _gradient_heading(case: Case) -> str:
    tolerance = words.tolerance(case.reference)
    return f"Which gradient: behind {case.representative} at reltol {tolerance}"


def gradients(case: Case) -> list[Markup]:
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
    if words.missing(row["products"]):
        cost = sentence("{} backward, through the recorded iterations", words.seconds(row["backward_seconds"]))
    else:
        cost = sentence(
            "{} products and {} backward", words.count(row["products"]), words.seconds(row["backward_seconds"])
        )
    kept = sentence("keeps {}", words.size(row["kept_bytes"]))
    if not words.missing(row["history_bytes"]) and row["history_bytes"]:
        kept += sentence(", beside the solver's own {} of history", words.size(row["history_bytes"]))
    text = sentence("{}: {}; {}; {}", strong(row["gradient"]), exact, cost, kept)
    missed = points[points["adjoint_converged"].fillna(1.0) < 1.0]
    if len(missed):
        codes = listed(sorted({str(code) for code in missed["adjoint_retcode"]}))
        text += sentence("; its adjoint missed its tolerance in {} of {} runs ({})", len(missed), len(points), codes)
    return text + Markup(".")


def gradient_verdict(case: Case) -> list[Markup]:
    """Return which gradient is the most exact, the quickest and the smallest."""
    rows = _behind(case)
    if rows["gradient"].nunique() < 2:
        return []
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
            names = listed_strong([name for name in case.gradients if name in best.names])
            tied = ", tied" if len(best.names) > 1 else ""
            said.append(sentence("{}: {}{} ({}).", title, names, tied, write(best.value)))
    return [Markup(" ").join(said)] if said else []


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
        near = group[group["rel_err"] <= _NEAR]
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
    rows = rows[[str(g).startswith("implicit") for g in rows["gradient"]]]
    own = rows["kept_bytes"].dropna().min()
    if words.missing(own) or not own or kept is None or words.missing(kept):
        return Markup(".")
    return sentence(", {} the {} of the implicit gradient.", words.times(kept / own), words.size(own))


def unmet(case: Case) -> list[Markup]:
    """Return which solver missed which tolerance, how often, and with which retcode."""
    rows = case.by_solver[~case.by_solver["met"]]
    said = []
    for solver in case.looks:
        here = rows[rows["solver"] == solver]
        parts = [
            sentence(
                "{} in {} of {} solves ({})",
                words.tolerance(row.reltol),
                row.number - row.met_number,
                row.number,
                row.retcode,
            )
            for row in here.itertuples()
        ]
        if parts:
            said.append(sentence("{}: {}.", strong(solver), listed(parts)))
    return said
