"""The answer in sentences, each one written from the rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.pages.problems.results import (
    Results,
    claims,
    false_successes,
    ratios,
    share_at,
)
from experiments.report.pages.problems.tables import interval
from experiments.report.words import listed, names, plural, sentence, strong

_MOST = 5  # names in a sentence


def cards(found: Results) -> list[Card]:
    """Return the answers: the standard starts, the perturbed ones, and what they cost."""
    made = [_standard(found)] if found.listed else []
    return [*made, _robust(found), *_cheap(found)]


def _standard(found: Results) -> Card:
    table = found.by_solver[found.by_solver["standard_total"] > 0]
    table = table.sort_values("standard", ascending=False, kind="stable")
    most = int(table["standard"].max())
    first = _ordered(found, table.loc[table["standard"] == most, "solver"])
    verb = "solves" if len(first) == 1 else "solve"
    if most == found.listed:
        text = sentence("{} {} all {}.", names(first), verb, most)
    else:
        text = sentence("{} {} the most: {} of {}.", names(first), verb, most, found.listed)
    least = table[table["standard"] == table["standard"].min()]
    if int(least["standard"].iloc[0]) < most:
        last = _ordered(found, least["solver"])
        text += sentence(" The fewest: {}, by {}.", int(least["standard"].iloc[0]), names(last))
    title = f"The {found.listed} standard problems, from their standard starts"
    parts = [Prose(_missed(found, table), "What each one solves", listed=True)]
    nobody = _unsolved_by_all(found)
    if nobody:
        parts.append(Prose([nobody]))
    return Card(title, _setting(found), text, parts)


def _ordered(found: Results, some: pd.Series) -> list[str]:
    there = set(some)
    return [name for name in found.solvers if name in there]


def _setting(found: Results) -> Markup:
    starts = sorted(found.cells["starts"].unique())
    return sentence(
        "{}, {} with each",
        plural(len(found.measured), "solver"),
        f"{listed([str(int(n)) for n in starts], 'or')} starts",
    )


def _missed(found: Results, table: pd.DataFrame) -> list[Markup]:
    said = []
    for solver, solved in zip(table["solver"], table["standard"], strict=True):
        rows = found.standard[found.standard["solver"] == solver]
        missed = rows[~rows["met"]]
        text = sentence("{}: {}", strong(solver), int(solved))
        if len(missed):
            each = [
                f"{listed(_shortened([str(case) for case in group['case']]))} ({code})"
                for code, group in missed.groupby("retcode", sort=False)
            ]
            text += sentence("; not {}", "; ".join(each))
        absent = found.listed - len(rows)
        if absent:
            text += sentence("; without a result on {}", absent)
        said.append(text + Markup("."))
    return said


def _shortened(parts: Sequence[str]) -> list[str]:
    if len(parts) <= _MOST:
        return list(parts)
    return [*parts[: _MOST - 1], f"{len(parts) - _MOST + 1} more"]


def _unsolved_by_all(found: Results) -> Markup:
    solved = found.standard.groupby("case", sort=False)["met"].any()
    cases = [str(case) for case in solved.index[~solved]]
    if not cases:
        return Markup("Every one of them is solved by at least one solver.")
    return sentence("No solver here solves {}.", listed(cases))


def _robust(found: Results) -> Card:
    table = found.by_solver
    best = table.iloc[0]
    text = sentence(
        "{} solves the largest share: {} % of {} starts (95 % interval {} %)",
        strong(best["solver"]),
        f"{100 * best['share']:.1f}",
        words.count(best["starts"]),
        interval(best["low"], best["high"]),
    )
    near = table.iloc[1:]
    near = near[near["high"] >= best["low"]]
    if len(near):
        verb = "is" if len(near) == 1 else "are"
        text += sentence(
            "; {} {} not separated from it",
            names([str(name) for name in near["solver"]]),
            verb,
        )
    title = f"{plural(len(found.problems), 'problem')}, from perturbed starts"
    others = [
        sentence(
            "{}: {} % ({} %).",
            strong(row["solver"]),
            f"{100 * row['share']:.1f}",
            interval(row["low"], row["high"]),
        )
        for row in table.iloc[1:].to_dict("records")
    ]
    parts = [Prose(others, "The others", listed=True)] if others else []
    false = _false(found)
    if false:
        parts.append(Prose(false, "What libraries say of themselves", listed=True))
    return Card(title, _setting(found), text + Markup("."), parts)


def _false(found: Results) -> list[Markup]:
    """Say whose library claims successes that our test denies, and where."""
    said = []
    for solver in found.solvers:
        group = found.starts[found.starts["solver"] == solver]
        false = group[false_successes(group)]
        if false.empty:
            continue
        standard = false[(false["start"] == 0)].drop_duplicates("case")
        text = sentence(
            "{} claims success at {} that it has not solved, on {}",
            strong(solver),
            plural(len(false), "start"),
            listed(_shortened([str(case) for case in false["case"].drop_duplicates()])),
        )
        if len(standard):
            text += sentence(
                "; at the standard start of {}", listed([str(c) for c in standard["case"]])
            )
        said.append(text + Markup("."))
    claimed = found.starts[claims(found.starts)]
    if not said and len(claimed):
        who = [name for name in found.solvers if name in set(claimed["solver"])]
        said = [sentence("{} claimed no success that our test denies.", names(who))]
    return said


def _cheap(found: Results) -> list[Card]:
    """Return who needs the least work, where more than one solver solves anything."""
    work = found.work("equivalents")
    if work.notna().any().sum() < 2:
        return []
    share = {factor: share_at(ratios(work), factor) for factor in (1.0, 2.0, 4.0)}
    winners = {factor: str(found_share.idxmax()) for factor, found_share in share.items()}

    def told(factor: float) -> Markup:
        return sentence(
            "{} on {} %", strong(winners[factor]), f"{100 * share[factor][winners[factor]]:.0f}"
        )

    text = sentence(
        "The cheapest of all most often is {} of the problems and starts; within twice the"
        " cheapest most often {}, within four times {}.",
        told(1.0),
        told(2.0),
        told(4.0),
    )
    about = Markup("evaluations and Jacobian products together, failures counted as never")
    return [Card("What it costs, in f-equivalents", about, text, [])]
