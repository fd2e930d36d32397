"""The scores as tables: a row a solver, and a row a setting and solver."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report.blocks import Column, Table, slug
from experiments.report.pages.limit.families import Family, number

_MOST_COLUMNS = 8


def by_solver(family: Family) -> Table | None:
    """Return the scores with a row a solver and a column a setting, or None if they are many."""
    if not 1 < len(family.settings) <= _MOST_COLUMNS:
        return None
    order = {solver: place for place, solver in enumerate(family.overall["solver"])}
    rows: list[dict[str, Any]] = []
    for _, overall in family.overall.iterrows():
        here = family.by_solver[family.by_solver["solver"] == overall["solver"]]
        row: dict[str, Any] = {
            "solver": overall["solver"],
            "failed": f"{overall['failed']} of {overall['number']}" if overall["failed"] else "–",
            "met": overall["failed"] == 0,
            "runs": sorted({run for ids in here["runs"] for run in ids}),
        }
        for _, found in here.iterrows():
            row[str(found["setting"])] = found["score_text"]
            if found["failed"]:
                row[str(found["setting"])] += f", {found['failed_text']} failed"
        rows.append(row)
    rows.sort(key=lambda row: order[row["solver"]])
    frame = pd.DataFrame(rows).reindex(
        columns=["solver", *family.settings, "failed", "met", "runs"]
    )
    columns = [
        Column("solver", "solver", "series"),
        *(Column(name, family.said(name)) for name in family.settings),
        Column("failed", "failed"),
    ]
    text = Markup(
        "Evaluations / limit: the median over the seeds (least–most), the nearest first. Rows"
        " marked with ○ failed in at least one run."
    )
    title = f"Times the limit: {family.name}"
    name = f"scores-{slug(family.name)}"
    return Table(name, title, text, columns, frame, looks=family.looks)


def by_setting(family: Family) -> Table:
    """Return everything counted, a row a setting and solver."""
    frame = family.by_solver.copy()
    frame["said"] = [family.said(str(name)) for name in frame["setting"]]
    frame["middle"] = [number(value) for value in frame["score"]]
    products = bool((frame["products"] > 0).any())
    columns = [
        Column("said", "setting"),
        Column("solver", "solver", "series"),
        Column("radius", "ρ", "number", "", "spectral radius of J(z*)"),
        Column("limit", "limit", "count", "", "2 + products of GMRES on I − J(z*)"),
        Column("evaluations", "evaluations", "count", "", "calls of f"),
        *(
            [
                Column("products", "Jacobian products", "count", "", "beside the evaluations"),
                Column("work", "as evaluations", "count", "", "evaluations + 2 × products"),
            ]
            if products
            else []
        ),
        Column("score_text", "times the limit", "text", "", "median (least–most)"),
        Column("failed_text", "failed"),
        Column("codes", "retcodes", "codes", "", "how the samples ended"),
    ]
    folded = len(frame) > 60
    text = Markup(
        "Medians over the seeds; rest the pointer on a number for its range, on a row for its runs."
    )
    name = f"limit-{slug(family.name)}"
    title = f"All counts: {family.name}"
    return Table(name, title, text, columns, frame, folded=folded, looks=family.looks)
