"""The timings and counts as tables."""

from __future__ import annotations

from markupsafe import Markup

from experiments.report.blocks import Column, Table
from experiments.report.pages.overhead.rows import Timings, interval, ratio


def timed(found: Timings) -> Table | None:
    """Return every contender in every cell, with torchdeq's beside ours, or None."""
    if found.solves.empty:
        return None
    frame = found.solves.copy()
    pairs = found.pairs.set_index(["situation", "contender", "kind"])
    keys = list(zip(frame["situation"], frame["contender"], frame["kind"], strict=True))
    for name in ("peer_ratio", "share"):
        frame[name] = [pairs[name].get(key) for key in keys]
    frame["quartiles"] = [
        interval(low, high) for low, high in zip(frame["ratio_q1"], frame["ratio_q3"], strict=True)
    ]
    frame["ratio_text"] = [ratio(value) for value in frame["ratio"]]
    frame["met"] = frame["flag"] == ""
    columns = [
        Column("situation", "cell"),
        Column("contender", "solver", "series"),
        Column("kind_text", "how"),
        Column("ratio_text", "times bare", "text", "", "median over the rounds"),
        Column("quartiles", "quartiles"),
        Column("aim", "aim", "number"),
        Column("peer_ratio", "torchdeq's", "number"),
        Column("share", "part above 1", "number", "", "ours over torchdeq's"),
        Column("seconds", "solve", "seconds"),
        Column("bare_seconds", "bare", "seconds"),
        Column("repeats", "rounds", "count"),
        Column("flag", "does not count"),
    ]
    if (frame["flag"] == "").all():
        columns = [c for c in columns if c.key != "flag"]
    text = Markup(
        "Cells are (batch, size of the state, hidden units). Every round runs the bare loop and"
        " every contender once; a ratio is that of one round."
    )
    title = "Seconds over the bare evaluations"
    return Table("overhead", title, text, columns, frame, looks=found.looks)


def launches(found: Timings) -> Table | None:
    """Return what a GPU pays beside the arithmetic: kernel launches and reads, or None."""
    rows = found.solves.dropna(subset=["launches"])
    if rows.empty:
        return None
    keys = ["contender", "kind", "kind_text", "reads_aim"]
    groups = rows.groupby(keys, sort=False, dropna=False)
    frame = groups.agg(
        launches=("launches", "median"),
        launches_lo=("launches", "min"),
        launches_hi=("launches", "max"),
        reads=("reads", "median"),
        reads_lo=("reads", "min"),
        reads_hi=("reads", "max"),
        evaluations=("evaluations", "median"),
        history_bytes=("history_bytes", "median"),
    ).reset_index()
    frame["met"] = ~(frame["reads"] > frame["reads_aim"])
    columns = (
        Column("contender", "solver", "series"),
        Column("kind_text", "how"),
        Column("launches", "launches an evaluation", "number", "", "without those of f"),
        Column("reads", "reads a solve", "count", "", "waits for a value of the device"),
        Column("reads_aim", "reads, at most", "number", "", "evaluations / 4 + 2; none if fixed"),
        Column("evaluations", "evaluations", "count"),
    )
    text = Markup(
        "Counted, not timed. Rows marked with ○ read more often than they may. On the CPU our"
        " solvers were made to read as on a GPU for this count."
    )
    title = "Launches and reads"
    return Table("launches", title, text, columns, frame, looks=found.looks)


def freezing(found: Timings) -> Table | None:
    """Return what leaving out finished samples saves, or None."""
    frame = found.freezing.copy()
    if frame.empty:
        return None
    frame["quartiles"] = [
        interval(low, high) for low, high in zip(frame["ratio_q1"], frame["ratio_q3"], strict=True)
    ]
    frame["percent"] = 100 * frame["saved"]
    columns = (
        Column("situation", "cell"),
        Column("contender", "solver", "series"),
        Column("sample_evaluations", "sample evaluations", "count"),
        Column("sample_evaluations_all", "without freezing", "count"),
        Column("percent", "fewer, %", "number"),
        Column("seconds", "seconds", "seconds"),
        Column("seconds_all", "without freezing", "seconds"),
        Column("ratio", "ratio", "number"),
        Column("quartiles", "quartiles"),
        Column("difference", "answers differ by", "error"),
    )
    text = Markup(
        "A batch of samples from easy to hard, to one tolerance. Without freezing all of them go on"
        " until the last one is done, by the same steps."
    )
    return Table(
        "freezing", "Leaving finished samples out", text, columns, frame, looks=found.looks
    )
