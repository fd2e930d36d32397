"""Solvers, problems and failures, as tables."""

from __future__ import annotations

from collections import Counter

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Column, Table
from experiments.report.measures import severity
from experiments.report.pages.problems.results import Results

_SOLVERS = (
    Column("solver", "solver", "series"),
    Column("standard", "standard starts solved", "count", "", "of the standard problems"),
    Column("successes", "starts solved", "count", "", "of all problems, the standard start too"),
    Column("starts", "of", "count"),
    Column("percent", "share, %", "count"),
    Column("interval", "95 % interval, %", "text", "", "Wilson's, each start one trial"),
    Column("evaluations", "evaluations", "count", "", "median of the starts that it solved"),
    Column(
        "equivalents",
        "f-equivalents",
        "count",
        "",
        "evaluations and Jacobian products, median of the starts that it solved",
    ),
    Column("seconds", "a start", "seconds", "", "median over all starts, solved or not"),
    Column(
        "false",
        "false successes",
        "count",
        "",
        "starts that its library, as run here or by itself, takes for solved and our test does not",
    ),
)


def by_solver(found: Results) -> Table:
    """Return the table of the solvers, the most robust first."""
    frame = found.by_solver.copy()
    frame["percent"] = [round(100 * share, 1) for share in frame["share"]]
    frame["interval"] = [
        interval(low, high) for low, high in zip(frame["low"], frame["high"], strict=True)
    ]
    frame["false"] = frame["false_successes"].where(frame["claims"] > 0)
    text = words.sentence(
        "{} standard problems, {} problems in all. Medians are over the starts that a solver"
        " solved, which differ from solver to solver: compare work in the profiles below. A dash"
        " under false successes: the library says nothing of its own. ",
        found.listed,
        len(found.problems),
    )
    return Table("solvers", "Solvers", text, _SOLVERS, frame, looks=found.looks)


def interval(low: float, high: float) -> str:
    """Return an interval of shares in percent: ``90.1 to 94.2``."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


_PROBLEMS = (
    Column("case", "problem"),
    Column("dim", "unknowns", "count"),
    Column("traps", "traps"),
    Column("roots", "known roots", "count"),
    Column("solvers", "solvers from the standard start", "text", "", "how many of them solve it"),
    Column("percent", "starts solved, %", "count", "", "of all solvers together"),
    Column("reached", "roots reached", "text", "", "number of the root: solved starts"),
    Column("failure", "most failures", "text"),
)


def by_problem(found: Results) -> Table:
    """Return the table of the problems: their traps, who solves them, which roots are found."""
    rows = []
    for case in found.problems:
        group = found.starts[found.starts["case"] == case]
        first = group.iloc[0]
        standard = group[group["start"] == 0].drop_duplicates("solver")
        codes = Counter(group.loc[~group["met"], "retcode"])
        rows.append(
            {
                "case": case,
                "dim": first["dim"],
                "traps": first["traps"] or None,
                "roots": first["roots"],
                "solvers": f"{int(standard['met'].sum())} of {len(standard)}",
                "percent": round(100 * group["met"].mean(), 1),
                "reached": reached(group),
                "failure": codes.most_common(1)[0][0] if codes else None,
                "runs": sorted({int(run) for run in group["run_id"]}),
            }
        )
    text = Markup(
        "Roots are numbered in the order in which the library lists them, from 0; “another” is"
        " near none of them."
    )
    return Table("problems", "Problems", text, _PROBLEMS, pd.DataFrame(rows))


def reached(group: pd.DataFrame) -> str | None:
    """Say which roots the solved starts reached, and how often: ``0: 212, another: 3``."""
    solved = group[group["met"]]
    if solved.empty or not group["roots"].iloc[0]:
        return None
    roots = Counter("another" if words.missing(r) else f"{int(r)}" for r in solved["root"])
    return ", ".join(f"{name}: {number}" for name, number in sorted(roots.items()))


_FAILURES = (
    Column("solver", "solver", "series"),
    Column("codes", "how its unsolved starts ended", "codes"),
    Column("problems", "problems with such starts"),
)


def failures(found: Results) -> Table | None:
    """Return how the starts ended that were not solved, by solver; None if all were solved."""
    rows = []
    for solver in found.solvers:
        group = found.starts[found.starts["solver"] == solver]
        unsolved = group[~group["met"]]
        if unsolved.empty:
            continue
        counts = Counter(unsolved["retcode"])
        ordered = sorted(counts.items(), key=lambda item: -severity(item[0]))
        rows.append(
            {
                "solver": solver,
                "codes": {"SUCCESS": int(group["met"].sum()), **dict(ordered)},
                "problems": ", ".join(unsolved["case"].drop_duplicates()),
                "runs": sorted({int(run) for run in unsolved["run_id"]}),
            }
        )
    if not rows:
        return None
    text = Markup(
        "A start that is not solved is a result, not a failed run. Rest the pointer on a row for"
        " its runs; <code>deq runs show RUN</code> prints one."
    )
    frame = pd.DataFrame(rows)
    return Table("unsolved", "Starts not solved", text, _FAILURES, frame, looks=found.looks)
