"""Sections that every page has: how the runs went, what failed and why, how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Column, Prose, Section, Table
from experiments.report.frames import Frames
from experiments.report.measures import severity
from experiments.report.words import listed, plural, sentence, strong

_STATUS = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "INTERRUPTED": "interrupted",
    "RUNNING": "still running",
    "QUEUED": "queued",
}


def overview(frames: Frames) -> list[Markup]:
    """Return how many runs there are, how they ended, and where and when they were made."""
    runs = frames.runs
    counts = runs["status"].value_counts()
    total = plural(len(runs), "run")
    if list(counts.index) == ["COMPLETED"]:
        text = (
            sentence("{}, all completed.", total)
            if len(runs) > 1
            else sentence("1 run, completed.")
        )
    else:
        ended = [f"{number} {_STATUS.get(str(s), str(s))}" for s, number in counts.items()]
        text = sentence("{}: {}.", total, listed(ended))
    if frames.superseded:
        text += sentence(
            " {} of the same trials are left out.", plural(frames.superseded, "earlier attempt")
        )
    where = machine_sentence(runs)
    if frames.where:
        text += sentence(" Selected by <code>{}</code>.", frames.where)
    return [text + Markup(" ") + where]


def machine_sentence(runs: pd.DataFrame) -> Markup:
    """Return the machine, the versions and the dates of the runs, in a sentence."""
    parts = []
    gpus, cpus = _values(runs, "gpu"), _values(runs, "cpu")
    if gpus:
        parts.append(sentence("on {}", listed(gpus)))
    if cpus:
        parts.append(sentence("{} {}", "with" if gpus else "on", listed(cpus)))
    threads = [int(float(v)) for v in _values(runs, "threads")]
    if threads:
        parts.append(sentence("with {}", listed([plural(n, "thread") for n in threads], "or")))
    for column, name in (("torch", "torch"), ("python", "Python")):
        values = _values(runs, column)
        if values:
            parts.append(sentence("{} {}", name, listed(values)))
    days = pd.to_datetime(runs["started_at"], utc=True).dropna().dt.strftime("%Y-%m-%d")
    if len(days):
        first, last = days.min(), days.max()
        parts.append(
            sentence("on {}", first) if first == last else sentence("from {} to {}", first, last)
        )
    return sentence("Measured {}.", Markup(", ").join(parts)) if parts else Markup()


def _values(runs: pd.DataFrame, column: str) -> list[str]:
    return [str(value) for value in runs[column].dropna().unique()]


def failures(frames: Frames) -> Section:
    """Return what failed and why: exceptions, solves short of their tolerance, adjoints too."""
    rows = [*_exceptions(frames.runs), *_unmet(frames.points), *_adjoints(frames.points)]
    rows += _unfinished(frames.runs)
    if not rows:
        said = Markup("Nothing: every run completed, and every solve met its tolerance.")
        if frames.points.empty:
            said = Markup("Every run completed, but none recorded a solve.")
        return Section("What failed", [Prose([said])])
    frame = pd.DataFrame(rows, columns=["kind", "what", "where", "times", "why", "runs"])
    columns = (
        Column("kind", "what happened"),
        Column("what", "what"),
        Column("where", "where"),
        Column("times", "how often"),
        Column("why", "why"),
        Column("run_text", "runs"),
    )
    frame["run_text"] = [
        words.run_list(ids).removeprefix("runs ").removeprefix("run ") for ids in frame["runs"]
    ]
    text = Markup(
        "A solve that misses its tolerance is a result, not a failed run: its run completes."
        " <code>deq runs show RUN</code> prints a run with its config and its traceback."
    )
    return Section("What failed", [Table("failures", "What failed, and why", text, columns, frame)])


def _exceptions(runs: pd.DataFrame) -> list[dict[str, object]]:
    failed = runs[runs["status"] == "FAILED"]
    rows = []
    by = ["fail_type", "fail_message", "model", "solver", "gradient"]
    for key, group in failed.groupby(by, sort=False, dropna=False):
        kind, message, *what = [None if words.missing(part) else str(part) for part in key]
        why = ": ".join(part for part in (kind, message) if part) or "no exception was recorded"
        rows.append(_failure("run failed", what[1:], what[0], f"{len(group)}", why, group["id"]))
    return rows


def _unfinished(runs: pd.DataFrame) -> list[dict[str, object]]:
    rows = []
    for status, group in runs[~runs["status"].isin(["COMPLETED", "FAILED"])].groupby("status"):
        name = _STATUS.get(str(status), str(status))
        why = "`deq study` takes up what is missing" if status == "INTERRUPTED" else "–"
        rows.append(_failure(f"run {name}", [], None, f"{len(group)}", why, group["id"]))
    return rows


def _unmet(points: pd.DataFrame) -> list[dict[str, object]]:
    asked = points[~points["fixed_budget"]]
    rows = []
    for key, group in asked[~asked["met"]].groupby(
        ["case", "solver", "retcode"], sort=False, dropna=False
    ):
        case, solver, retcode = key
        total = ((asked["case"] == case) & (asked["solver"] == solver)).sum()
        where = f"{case}, {_asked(group)}"
        code = "no retcode" if words.missing(retcode) else str(retcode)
        rows.append(
            _failure(
                code,
                [solver],
                where,
                f"{len(group)} of {total} solves",
                _why(group["message"]),
                group["run_id"],
            )
        )
    return sorted(rows, key=lambda row: severity(row["kind"]))


def _adjoints(points: pd.DataFrame) -> list[dict[str, object]]:
    missed = points[points["adjoint_converged"].fillna(1.0) < 1.0]
    rows = []
    by = ["case", "gradient", "adjoint_retcode"]
    for key, group in missed.groupby(by, sort=False, dropna=False):
        case, gradient, retcode = key
        asked = points[(points["case"] == case) & (points["gradient"] == gradient)]
        total = int(asked["adjoint_converged"].notna().sum())
        code = "no retcode" if words.missing(retcode) else str(retcode)
        times = f"{len(group)} of {total} adjoints"
        why = _why(group["adjoint_message"])
        where = f"{case}, {_asked(group)}"
        rows.append(_failure(code, [gradient], where, times, why, group["run_id"]))
    return rows


def _failure(  # noqa: PLR0917
    kind: str, what: Sequence[object], where: object, times: str, why: str, runs: pd.Series
) -> dict[str, object]:
    named = " · ".join(str(part) for part in what if part is not None)
    ids = sorted({int(run) for run in runs})
    return {
        "kind": kind,
        "what": named or None,
        "where": where,
        "times": times,
        "why": why,
        "runs": ids,
    }


def _asked(group: pd.DataFrame) -> str:
    """Say what the solves were asked for: tolerances, and budgets where they are fixed."""
    free, fixed = group[~group["fixed_budget"]], group[group["fixed_budget"]]
    tolerances = sorted(free["reltol"].dropna().unique(), reverse=True)
    budgets = sorted(fixed["max_evaluations"].dropna().unique())
    parts = []
    if tolerances:
        parts.append(f"reltol {listed([words.tolerance(t) for t in tolerances])}")
    if budgets:
        parts.append(f"fixed budget of {listed([words.count(b) for b in budgets])}")
    return " and ".join(parts)


def _why(messages: pd.Series) -> str:
    said = messages.dropna().value_counts()
    if said.empty:
        return "no sentence was recorded"
    more = f" (and {plural(len(said) - 1, 'like sentence')})" if len(said) > 1 else ""
    return f"{said.index[0]}{more}"


def measured(frames: Frames, definitions: Sequence[Markup]) -> Section:
    """Return how it was measured: the words of the page, the timings, the machines, the runs."""
    blocks: list[Prose | Table] = [Prose([*definitions, *_timing(frames)], listed=True)]
    runs = frames.runs
    machines = runs.groupby(
        ["host", "cpu", "gpu", "threads", "torch", "python"], sort=False, dropna=False
    )
    frame = machines.agg(
        number=("id", "size"), first=("started_at", "min"), last=("started_at", "max")
    )
    frame = frame.reset_index()
    for column in ("first", "last"):
        frame[column] = _minute(frame[column])
    frame["threads"] = [None if words.missing(t) else f"{int(t)}" for t in frame["threads"]]
    columns = [Column(c, c) for c in ("host", "cpu", "gpu", "threads", "torch", "python")]
    columns += [
        Column("number", "runs", "count"),
        Column("first", "first run, UTC"),
        Column("last", "last run, UTC"),
    ]
    note = Markup()
    if len(frame) > 1:
        note = Markup(
            "Seconds of different machines are not comparable; evaluations and errors are."
        )
    blocks.append(Table("machines", "Machines and versions", note, columns, frame))
    blocks.append(_runs(runs))
    return Section("How it was measured", blocks)


def _timing(frames: Frames) -> list[Markup]:
    timed = frames.points.dropna(subset=["repeats"])
    said = []
    for number in sorted({int(n) for n in timed["repeats"]}, reverse=True):
        kind = "one timing" if number == 1 else f"{number} timings after warm-up"
        solvers = sorted(timed.loc[timed["repeats"] == number, "solver"].unique())
        said.append(sentence("{} for {}", kind, listed(solvers)))
    if not said:
        return []
    return [sentence("{}: the median of {}.", strong("Seconds"), Markup("; of ").join(said))]


def _minute(times: pd.Series) -> list[str]:
    stamps = pd.to_datetime(times, utc=True)
    return ["–" if pd.isna(t) else t.strftime("%Y-%m-%d %H:%M") for t in stamps]


def _runs(runs: pd.DataFrame) -> Table:
    frame = runs[
        ["id", "status", "model", "solver", "gradient", "adjoint", "seed", "seconds", "uuid"]
    ].copy()
    frame["started"] = _minute(runs["started_at"])
    columns = (
        Column("id", "run", "count"),
        Column("status", "status"),
        Column("model", "model"),
        Column("solver", "solver"),
        Column("gradient", "gradient"),
        Column("adjoint", "adjoint"),
        Column("seed", "seed", "count"),
        Column("seconds", "lasted", "seconds"),
        Column("started", "started, UTC"),
    )
    return Table("runs", f"All {plural(len(runs), 'run')}", Markup(), columns, frame, folded=True)


__all__ = ["failures", "machine_sentence", "measured", "overview"]
