"""The answer in sentences, each one written from the rows: nothing here is said beforehand."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Card, Prose
from experiments.report.pages.gradients.figures import stepped
from experiments.report.pages.gradients.rows import Gradients, medians, place
from experiments.report.words import listed, plural, sentence, small, strong

# A gradient whose error is below this is as good as its tolerance asks, or near.
_GOOD = 1e-2
_TOP = 4


def cards(found: Gradients) -> list[Card]:
    """Return a card a model: which gradients are exact there, which are not, at what cost."""
    rows = found.of("estimators")
    return [_card(found, str(case), here) for case, here in rows.groupby("case", sort=False)]


def _card(found: Gradients, case: str, rows: pd.DataFrame) -> Card:
    rows = rows.assign(place=place(rows))
    frame = medians(rows, ["label", "radius"], ["rel_err", "cosine", "spectral_radius"])
    parts = [
        Prose(_exact(frame), "Exact to the tolerance", listed=True),
        Prose(_rough(frame), "Approximations", listed=True),
        Prose(_steps(found, case), "A training step", listed=True),
    ]
    seeds = rows["seed"].nunique()
    about = sentence(
        "{}, both passes to {}; errors at ρ = {}",
        plural(seeds, "seed"),
        listed([words.tolerance(t) for t in sorted(rows["reltol"].unique())], "or"),
        listed(_radii(frame)),
    )
    headline = _headline(frame)
    return Card(case, about, headline, [part for part in parts if part.paragraphs])


def _headline(frame: pd.DataFrame) -> Markup:
    worst = frame.groupby("label", sort=False)["rel_err"].max()
    good = [str(name) for name in worst.index[worst <= _GOOD]]
    if not good:
        return Markup("No gradient stays below an error of 0.01.")
    best = str(worst.idxmin())
    text = sentence(
        "{} is the most exact: an error of at most {}",
        strong(best),
        small(float(worst.min())),
    )
    others = [name for name in good if name != best]
    if others:
        shown = [strong(name) for name in others[:_TOP]]
        if len(others) > _TOP:
            shown.append(Markup(f"{len(others) - _TOP} more"))
        verb = "stays" if len(others) == 1 else "stay"
        text += sentence("; {} {} below 0.01 too", listed(shown), verb)
    return text + Markup(".")


def _radii(frame: pd.DataFrame) -> list[str]:
    """Return the spectral radii, from the least to the largest."""
    found = frame.groupby("radius", dropna=False)["spectral_radius"].median().sort_values()
    return [f"{radius:.3g}" for radius in found]


def _listed(rows: pd.DataFrame, column: str) -> str:
    """Return a column's values in the order of the radii."""
    values = rows.sort_values("spectral_radius")[column]
    return listed([small(float(v)) if column == "rel_err" else f"{v:.2f}" for v in values])


def _exact(frame: pd.DataFrame) -> list[Markup]:
    said = []
    for label, rows in frame.groupby("label", sort=False):
        if float(rows["rel_err"].max()) <= _GOOD:
            said.append(sentence("{}: {}.", strong(label), _listed(rows, "rel_err")))
    return said


def _rough(frame: pd.DataFrame) -> list[Markup]:
    said = []
    for label, rows in frame.groupby("label", sort=False):
        if not float(rows["rel_err"].max()) <= _GOOD and rows["rel_err"].notna().any():
            text = sentence(
                "{}: {}; cosine {}",
                strong(label),
                _listed(rows, "rel_err"),
                _listed(rows, "cosine"),
            )
            if float(rows["cosine_lo"].min()) <= 0:
                text += Markup(", and in some run it does not descend")
            said.append(text + Markup("."))
    return said


def _steps(found: Gradients, case: str) -> list[Markup]:
    rows = stepped(found)
    rows = rows[(rows["case"] == case) & rows["step"].notna()].sort_values("step", kind="stable")
    said = []
    for _, row in rows.iterrows():
        text = sentence("{}: {}", strong(row["label"]), words.seconds(float(row["step"])))
        if not words.missing(row["ratio"]):
            text += sentence(", {} of jacobian_free's", words.times(float(row["ratio"])))
        text += sentence(", at an error of {}", small(float(row["rel_err"])))
        said.append(text + Markup("."))
    return said
