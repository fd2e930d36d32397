"""The trainings as tables: what each gradient came to, and what the losses cost."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from experiments.report import trainings, words
from experiments.report.blocks import Column, Table
from experiments.report.pages.budget.answers import estimate, measure_text, times
from experiments.report.pages.budget.rows import COSTS, Case, Ranking, looks

_VALUES = (
    "loss", "accuracy", "perplexity", "train_loss", "evaluations", "products", "work", "converged",
    "step_seconds", "inference_seconds", "seconds", "peak_bytes",
)  # fmt: skip


def results(found: Sequence[Case]) -> Table | None:
    """Return a row a case and gradient: loss, work, time and memory of whole trainings, or None."""
    made = []
    for case in found:
        frame = trainings.grouped(case.ends, ["arm"], _VALUES)
        frame.insert(0, "case", case.name)
        ends = {arm: case.ends[case.ends["arm"] == arm] for arm in frame["arm"]}
        frame["loss_text"] = [
            trainings.mean(ends[arm]["loss"]).text(lambda v: words.digits(v, 3))
            for arm in frame["arm"]
        ]
        frame["measure_text"] = [
            measure_text(case, ends[arm][case.measure]) if case.measure else "–"
            for arm in frame["arm"]
        ]
        made.append(frame)
    made = [frame for frame in made if len(frame)]
    if not made:
        return None
    columns = (
        Column("case", "model"),
        Column("arm", "gradient", "series"),
        Column("seeds", "seeds", "count"),
        Column("loss_text", "test loss", "text", "", "mean, 95 % interval over the seeds"),
        Column("measure_text", "accuracy or perplexity", "text", "", "likewise"),
        Column("evaluations", "evaluations", "number", "", "forward, a step"),
        Column("products", "products", "number", "", "backward, a step"),
        Column("work", "work in all", "count"),
        Column("converged", "converged", "number", "", "share of the samples, forward"),
        Column("step_seconds", "a step", "seconds"),
        Column("seconds", "all steps", "seconds"),
        Column("peak_bytes", "peak", "bytes", "low"),
    )
    text = Markup("Means over the seeds; rest the pointer on a number for its interval.")
    frame = pd.concat(made, ignore_index=True)
    return Table("results", "All trainings", text, columns, frame, looks=looks(found))


def levels(found: Sequence[Case]) -> Table | None:
    """Return what each loss costs with each gradient, and its ratio to the least, or None."""
    rows = []
    for case in found:
        for level, loss in case.levels.items():
            ranked = {cost: case.ranking(level, cost) for cost in COSTS}
            for arm in case.arms:
                here = case.reached[(case.reached["level"] == level) & (case.reached["arm"] == arm)]
                if here["work"].isna().all():
                    continue
                row: dict[str, object] = {
                    "case": case.name,
                    "loss": f"{loss:g}, {level}",
                    "arm": arm,
                    "reached": f"{int(here['work'].notna().sum())}/{len(here)}",
                    "runs": sorted(int(run) for run in here["run_id"]),
                }
                for cost, ranking in ranked.items():
                    value = ranking.value.get(arm) if ranking else None
                    row[cost] = estimate(value, cost) if value else "–"
                    row[f"{cost}_ratio"] = _ratio(ranking, arm)
                rows.append(row)
    if not rows:
        return None
    columns = [
        Column("case", "model"),
        Column("loss", "test loss"),
        Column("arm", "gradient", "series"),
        Column("reached", "at", "text", "", "seeds that reach it"),
        Column("work", "evaluations"),
        Column("work_ratio", "of the least"),
        Column("seconds", "time"),
        Column("seconds_ratio", "of the least"),
        Column("peak", "peak memory"),
        Column("peak_ratio", "of the least"),
    ]
    text = Markup(
        "Geometric means with 95 % intervals over the seeds. A ratio is taken seed by seed, since"
        " one seed is one start and one order of the batches for all gradients; where its interval"
        " holds 1 the two are not apart. Gradients that do not reach a loss are left out there."
    )
    frame = pd.DataFrame(rows)
    return Table("levels", "What each loss costs", text, columns, frame, looks=looks(found))


def _ratio(ranking: Ranking | None, arm: str) -> str:
    """Return how many times the least a gradient costs, and whether that is beyond doubt."""
    ratio = ranking.ratios.get(arm) if ranking else None
    if ranking is None or (ratio is None and arm != ranking.best):
        return "–"
    if ratio is None:
        return "the least"
    return times(ratio) + (": not apart" if arm in ranking.tied else "")
