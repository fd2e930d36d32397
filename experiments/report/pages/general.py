"""The page of an experiment that has none of its own: how its runs went, and its solves."""

from __future__ import annotations

from markupsafe import Markup

from experiments.report import sections, words
from experiments.report.blocks import Block, Column, Prose, Section, Table
from experiments.report.frames import Frames
from experiments.report.measures import summarise
from experiments.report.pages.page import Page

_COLUMNS = (
    Column("case", "model"),
    Column("solver", "solver"),
    Column("gradient", "gradient"),
    Column("reltol_text", "reltol"),
    Column("evaluations", "evaluations", "count"),
    Column("seconds", "forward", "seconds"),
    Column("backward_seconds", "backward", "seconds"),
    Column("rel_err", "gradient error", "error"),
    Column("codes", "how its samples ended", "codes"),
)


def page(frames: Frames) -> Page:
    """Return what can be said of any runs."""
    blocks: list[Block] = [Prose(sections.overview(frames))]
    if not frames.points.empty:
        by = ["case", "solver", "gradient", "reltol"]
        values = ["evaluations", "seconds", "backward_seconds", "rel_err"]
        solves = summarise(frames.points, by, values)
        solves["reltol_text"] = [words.tolerance(t) for t in solves["reltol"]]
        text = Markup("Medians over the runs; rest the pointer on a number for its range.")
        blocks.append(Table("solves", "Forward solves", text, _COLUMNS, solves))
    name = ", ".join(dict.fromkeys(str(e) for e in frames.runs["experiment"].dropna()))
    return Page(
        f"The experiment {name}" if name else "Runs",
        "",
        [
            Section("The runs", blocks),
            sections.failures(frames),
            sections.measured(frames, []),
        ],
        {"points": frames.points, "runs": frames.runs},
    )
