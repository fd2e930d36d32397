"""The answer in sentences, each one written from the rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.pages.overhead.rows import KINDS, Timings, interval, ratio
from experiments.report.words import listed, plural, sentence, strong

_SAVED, _SECONDS = 0.7, 0.5  # the aims of freezing


def cards(found: Timings) -> list[Card]:
    """Return the answers: what solves cost, and what freezing saves."""
    made = []
    if len(found.solves):
        parts = [
            Prose(compared(found), "Against torchdeq", listed=True),
            Prose(aims(found), "Aims", listed=True),
            Prose(flagged(found), "What does not count", listed=True),
        ]
        subtitle = Markup.escape(
            f"{plural(len(found.situations), 'cell')}, at"
            f" {listed(_evaluations(found.solves), 'or')} evaluations each"
        )
        made.append(Card("Overhead", subtitle, headline(found), [p for p in parts if p.paragraphs]))
    if len(found.freezing):
        where = listed(list(dict.fromkeys(found.freezing["situation"])))
        parts = [Prose(freezing(found), "Each solver", listed=True)]
        made.append(Card("Freezing", Markup.escape(where), frozen(found), parts))
    return made


def _evaluations(rows: pd.DataFrame) -> list[str]:
    return [words.count(value) for value in rows["evaluations"].dropna().unique()]


def headline(found: Timings) -> Markup:
    """Return the ratios of each of our solvers with the usual checks, and torchdeq's beside."""
    usual = found.fair[found.fair["kind"] == "checked"]
    if usual.empty:
        return Markup("No solve of ours was timed at equal work.")
    said = []
    for contender in dict.fromkeys(usual["contender"]):
        rows = usual[usual["contender"] == contender]
        text = sentence(
            "{} takes {} times its bare evaluations",
            strong(contender),
            listed([ratio(value) for value in rows["ratio"]]),
        )
        pairs = found.pairs[
            (found.pairs["contender"] == contender) & (found.pairs["kind"] == "checked")
        ]
        if len(pairs):
            text += sentence(
                " ({}: {})",
                pairs["peer_contender"].iloc[0],
                listed([ratio(value) for value in pairs["peer_ratio"]]),
            )
        said.append(text)
    first = usual[usual["contender"] == usual["contender"].iloc[0]]
    where = sentence("At {}, ", listed([str(s) for s in first["situation"]]))
    return where + Markup("; ").join(said) + Markup(".")


def compared(found: Timings) -> list[Markup]:
    """Return each solver's part above 1 against torchdeq's, in the geometric mean."""
    said = []
    keys = found.pairs[["contender", "kind", "device"]].drop_duplicates()
    for _, (contender, kind, device) in keys.iterrows():
        rows = found.pairs
        rows = rows[(rows["contender"] == contender) & (rows["kind"] == kind)]
        rows = rows[rows["device"] == device]
        share = found.mean_share(str(contender), str(kind), str(device))
        text = sentence(
            "{}, {}{}: {} of the overhead of {} in the geometric mean over {}",
            strong(contender),
            KINDS.get(str(kind), str(kind)),
            f", on {device}" if found.pairs["device"].nunique() > 1 else "",
            words.digits(share, 2) if share is not None else "–",
            rows["peer_contender"].iloc[0],
            plural(len(rows), "cell"),
        )
        if len(rows) > 1:
            text += sentence(" ({})", listed([words.digits(v, 2) for v in rows["share"]]))
        said.append(text + Markup("."))
    return said


def aims(found: Timings) -> list[Markup]:
    """Return which aims were reached, one sentence a contender and kind."""
    rows = found.fair.dropna(subset=["aim"])
    said = []
    for (contender, kind), here in rows.groupby(["contender", "kind"], sort=False):
        parts = []
        for _, row in here.iterrows():
            # Aims are said with two decimals.
            word = "within" if row["ratio"] <= row["aim"] + 0.005 else "beyond"
            parts.append(f"{ratio(row['ratio'])} at {row['situation']}, {word} {ratio(row['aim'])}")
        said.append(
            sentence(
                "{}, {}: {}.", strong(contender), KINDS.get(str(kind), str(kind)), _several(parts)
            )
        )
    return said


def _several(parts: Sequence[str]) -> str:
    return "; ".join(parts)


def flagged(found: Timings) -> list[Markup]:
    """Return the rows that were not of equal work, and why."""
    rows = found.solves[found.solves["flag"] != ""]
    return [
        sentence("{} at {}: {}.", strong(row["row"]), row["situation"], row["flag"])
        for _, row in rows.iterrows()
    ]


def frozen(found: Timings) -> Markup:
    """Return what freezing saves, in a sentence."""
    rows = found.freezing
    saved = sorted(rows["saved"])
    times = sorted(rows["ratio"])
    return sentence(
        "Leaving finished samples out saves {} of the sample evaluations and takes {} of the time.",
        _span([f"{100 * value:.0f} %" for value in (saved[0], saved[-1])]),
        _span([f"{value:.2f}" for value in (times[0], times[-1])]),
    )


def _span(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def freezing(found: Timings) -> list[Markup]:
    """Return, for each solver, what freezing saves, and whether the answers are the same."""
    said = []
    for _, row in found.freezing.iterrows():
        enough = row["saved"] >= _SAVED and row["ratio"] <= _SECONDS
        text = sentence(
            "{}: {} instead of {} sample evaluations ({} % fewer), {} of the time ({}); f alone is"
            " {} % of the time without. The answers differ by at most {}. {}.",
            strong(row["contender"]),
            words.count(row["sample_evaluations"]),
            words.count(row["sample_evaluations_all"]),
            f"{100 * row['saved']:.0f}",
            f"{row['ratio']:.2f}",
            interval(row["ratio_q1"], row["ratio_q3"]),
            f"{100 * row['f_share']:.0f}",
            words.small(row["difference"]),
            "The aim, 70 % fewer in half of the time, is reached"
            if enough
            else "The aim, 70 % fewer in half of the time, is missed",
        )
        if row["flag"]:
            text += sentence(" Not every sample converged: {}.", row["flag"])
        said.append(text)
    return said
