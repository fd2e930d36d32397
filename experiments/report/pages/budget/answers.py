"""The answer in sentences, each one written from the rows: nothing here is said beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from experiments.report import trainings, words
from experiments.report.blocks import Card, Prose
from experiments.report.pages.budget.rows import ALL, COSTS, Case, Ranking, cost_text
from experiments.report.trainings import Estimate
from experiments.report.words import listed, plural, sentence, strong

_WORK = {"work": "evaluations", "seconds": "time", "peak": "peak memory"}


def cards(found: Sequence[Case]) -> list[Card]:
    """Return a card a case: who reaches which loss at the least of each cost."""
    return [_card(case) for case in found if len(case.runs)]


def _card(case: Case) -> Card:
    seeds = trainings.seeds_of(case.ends)
    steps = case.ends["steps"].dropna()
    about = plural(seeds, "seed")
    if len(steps):
        about += f", {words.count(float(steps.max()))} steps each"
    parts = [
        Prose(_at(case, level), f"Loss {loss:g}, {level}", listed=True)
        for level, loss in case.levels.items()
    ]
    parts += [
        Prose(_ends(case), "After the same steps", listed=True),
        Prose(_trade(case), "Loss bought with memory", listed=True),
        Prose(_budgets(case), "At test time", listed=True),
    ]
    return Card(case.name, Markup.escape(about), headline(case), [p for p in parts if p.paragraphs])


def headline(case: Case) -> Markup:
    """Return who reaches the loss that all reach at the least of each cost."""
    if not case.levels:
        return Markup("No training has logged a test loss that fell yet.")
    level = ALL if ALL in case.levels else next(iter(case.levels))
    said = []
    for cost in COSTS:
        ranking = case.ranking(level, cost)
        if ranking is None:
            continue
        winners = [ranking.best, *ranking.tied]
        name = strong(winners[0])
        if len(winners) > 1:
            name = sentence("{} of {} are not apart for", len(winners), len(ranking.value))
            name = _listed(winners) if len(winners) <= 3 else name
        joined = (
            sentence("{} for {}", name, _WORK[cost])
            if len(winners) <= 3
            else sentence("{} {}", name, _WORK[cost])
        )
        said.append(joined)
    if not said:
        return Markup("No gradient reaches the loss at every seed.")
    return sentence(
        "To a test loss of {}, {}, the least is: {}.",
        f"{case.levels[level]:g}",
        level,
        Markup("; ").join(said),
    )


def _listed(names: Sequence[str]) -> Markup:
    return Markup(listed([strong(name) for name in names], "or"))


def _at(case: Case, level: str) -> list[Markup]:
    said = []
    absent: Ranking | None = None
    for cost in COSTS:
        ranking = case.ranking(level, cost)
        if ranking is None:
            continue
        absent = ranking
        said.append(_ranked(ranking, cost))
    if absent is None:
        return [Markup("No gradient reaches it at every seed.")]
    if absent.some:
        said.append(sentence("Only at some seeds: {}.", listed([strong(a) for a in absent.some])))
    if absent.never:
        said.append(sentence("Not reached by {}.", listed([strong(a) for a in absent.never])))
    return said


def _ranked(ranking: Ranking, cost: str) -> Markup:
    """Return who is the least, who is not apart from it, and who is next."""
    best = ranking.value[ranking.best]
    text = sentence(
        "Least {}: {}, {}",
        _WORK[cost],
        strong(ranking.best),
        estimate(best, cost),
    )
    if not ranking.ratios:
        return text + Markup(", and it is alone.")
    tied, beaten = ranking.tied, ranking.beaten
    if tied:
        why = (
            "their intervals overlap, so there is no winner among them"
            if any(ranking.ratios[arm].certain for arm in tied)
            else "one seed gives no interval"
        )
        shown = [sentence("{} ({})", strong(a), times(ranking.ratios[a])) for a in tied]
        text += sentence("; not apart from it: {}: {}", listed(shown), why)
    if beaten:
        near, far = beaten[0], beaten[-1]
        text += sentence(
            "; {}{}: {} ({})",
            "beyond the intervals " if tied else "",
            "the next" if len(beaten) > 1 else "the other",
            strong(near),
            times(ranking.ratios[near]),
        )
        if len(beaten) > 1:
            text += sentence(", the last: {} ({})", strong(far), times(ranking.ratios[far]))
    return text + Markup(".")


def estimate(value: Estimate, cost: str) -> str:
    """Return a cost with its interval."""
    return value.text(lambda number: cost_text(cost, number))


def times(value: Estimate) -> str:
    """Return a ratio with its interval, for within brackets: ``1.2×, 1.1 to 1.3``."""
    if not value.certain or value.high - value.low <= 1e-9 * value.value:
        return words.times(value.value)
    ends = [words.digits(end, 2) for end in (value.low, value.high)]
    return f"{words.times(value.value)}, {ends[0]} to {ends[1]}"


def _ends(case: Case) -> list[Markup]:
    """Return the loss and the measure of every gradient, the best first."""
    rows = []
    for arm in case.arms:
        here = case.ends[case.ends["arm"] == arm]
        loss = trainings.mean(here["loss"])
        if loss.known:
            rows.append((loss.value, arm, loss, here))
    said = []
    for _, arm, loss, here in sorted(rows, key=lambda row: row[0]):
        text = sentence("{}: test loss {}", strong(arm), loss.text(lambda v: words.digits(v, 3)))
        if case.measure:
            text += sentence(", {} {}", case.measure, measure_text(case, here[case.measure]))
        said.append(text + Markup("."))
    return said


def measure_text(case: Case, values: Iterable[float]) -> str:
    """Return accuracy in per cent, or perplexity, with its interval."""
    found = trainings.mean(values)
    if case.measure == "accuracy":
        if found.certain:  # no share is beyond 0 and 1, whatever Student's t says
            low, high = max(found.low, 0.0), min(found.high, 1.0)
            found = Estimate(found.value, low, high, found.number)
        return found.text(lambda v: f"{100 * v:.1f}") + " %"
    return found.text(lambda v: words.digits(v, 3))


def _trade(case: Case) -> list[Markup]:
    """Return whether more memory bought any loss: the frontier of the two."""
    frame = trainings.grouped(case.ends, ["arm"], ["loss", "peak_bytes"])
    frame = frame.dropna(subset=["loss", "peak_bytes"])
    frame = frame.sort_values(["peak_bytes", "loss"], kind="stable")
    if len(frame) < 2:
        return []
    front = frame[frame["loss"] == frame["loss"].cummin()].drop_duplicates("loss")
    first, last = front.iloc[0], front.iloc[-1]
    text = sentence(
        "The least peak is that of {}, {}, at a loss of {}",
        strong(first["arm"]),
        words.size(first["peak_bytes"]),
        words.digits(first["loss"]),
    )
    if len(front) == 1:
        return [text + Markup("; no gradient that takes more ends lower.")]
    ratio = trainings.ratio(
        case.ends[case.ends["arm"] == last["arm"]],
        case.ends[case.ends["arm"] == first["arm"]],
        "loss",
    )
    apart = "" if ratio.high < 1 else ", which its interval does not tell from 1"
    text += sentence(
        "; the least loss is that of {}, {} of it ({}){}, for {} of the bytes",
        strong(last["arm"]),
        words.times(ratio.value),
        times(ratio),
        apart,
        words.times(last["peak_bytes"] / first["peak_bytes"]),
    )
    return [text + Markup(".")]


def _budgets(case: Case) -> list[Markup]:
    """Return what each gradient's model is worth at few and at most evaluations."""
    name = f"budget.{case.measure or 'loss'}"
    rows = case.budgets[case.budgets["name"] == name]
    if rows.empty:
        return []
    said = []
    for x in _some(sorted(rows["x"].unique())):
        here = rows[rows["x"] == x]
        means = here.groupby("arm", sort=False)["y"].mean().sort_values(kind="stable")
        order = [str(arm) for arm in means.index]
        arm, worst = (order[-1], order[0]) if case.measure == "accuracy" else (order[0], order[-1])
        text = sentence(
            "{}: the best is {}, {}",
            plural(int(x), "evaluation"),
            strong(arm),
            measure_text(case, here.loc[here["arm"] == arm, "y"]),
        )
        if worst != arm:
            text += sentence(
                "; the worst {}, {}",
                strong(worst),
                measure_text(case, here.loc[here["arm"] == worst, "y"]),
            )
        said.append(text + Markup("."))
    return said


def _some(values: Sequence[float]) -> list[float]:
    """Return the first, the middle and the last."""
    return list(dict.fromkeys([values[0], values[len(values) // 2], values[-1]]))
