"""The page of the study ``stability``: how hard an equilibrium is to find as it learns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from experiments.report import arms, curves, sections, trainings, words
from experiments.report.blocks import (
    Block,
    Card,
    Cards,
    Column,
    Figure,
    Prose,
    Section,
    Spec,
    Table,
    section,
)
from experiments.report.colours import SOLVERS, Look, looks
from experiments.report.curves import Axis, Panel
from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.report.trainings import Estimate
from experiments.report.words import plural, sentence, strong

__all__ = ["page"]

STUDY = "stability"

_SERIES = {
    "train.evaluations": "evaluations",
    "train.products": "products",
    "train.radius": "radius",
    "train.converged": "share",
}
_PARTS = ("at the start", "after a third", "after two thirds", "at the end")
_AGES = dict(
    zip(
        _PARTS,
        (
            Look("#8FB8DE", (), "circle"),
            Look("#5899E6", (6, 3), "square"),
            Look("#B06A9B", (8, 3, 2, 3), "diamond"),
            Look("#D55E00", (), "triangle-up"),
        ),
        strict=True,
    )
)
# A residual that is not below this part of the one half-way has stopped falling.
_FELL = 0.5


@dataclass(frozen=True)
class Case:
    """The trainings of one model on its data.

    Attributes
    ----------
    runs
        Rows of :func:`trainings.runs` with their ``arm``, and of each series of a run its mean over
        the second tenth and the last tenth of the training: ``early_evaluations``, ….
    points
        Their series.
    base
        The arm that the others differ from in one thing.
    """

    name: str
    runs: pd.DataFrame
    points: pd.DataFrame
    base: str

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The runs that completed."""
        found: pd.DataFrame = self.runs[self.runs["completed"]]
        return found

    @cached_property
    def arms(self) -> list[str]:
        """The variants, the base first."""
        names = list(dict.fromkeys(self.runs["arm"]))
        return sorted(names, key=lambda name: name != self.base)

    def of(self, arm: str) -> pd.DataFrame:
        """Return the completed runs of a variant."""
        found: pd.DataFrame = self.ends[self.ends["arm"] == arm]
        return found


@dataclass(frozen=True)
class Solves:
    """Solves of a run with their traces.

    Attributes
    ----------
    about
        What was solved.
    rows
        ``label``, ``x`` (evaluations or products), ``y`` (the residual over the first one), and
        ``run_id``, ``seed``.
    """

    about: str
    rows: pd.DataFrame


def page(frames: Frames) -> Page:
    """Return what the runs of ``stability`` say."""
    runs = trainings.runs(frames)
    shallow = np.array([_shallow(config) > 0 for config in runs["config"]], dtype=bool)
    found = _cases(frames, runs[~shallow].reset_index(drop=True))
    probes = _same_weights(frames, runs[shallow])
    both = [_ages(frames, case) for case in found]
    ages = [solves for pair in both for solves in pair]
    blocks: list[Block] = [Prose(trainings.overview(frames))]
    made = [_card(case) for case in found if len(case.ends)]
    if probes:
        made.append(_probe_card(probes))
    if made:
        blocks.append(Cards(made))
    else:
        blocks.append(Prose([trainings.missing_runs("come to its end", STUDY)]))
    parts = [
        Section("The answer", blocks),
        section("Over training", [_over_training(found), _table(found)]),
        section("Broyden's residual", [_residuals(ages)]),
        section("The same weights", [_oscillation(probes)]),
        trainings.failures(frames),
        sections.measured(
            replace(frames, points=frames.points.iloc[:0]),
            [*trainings.definitions(), *_definitions()],
        ),
    ]
    traces = pd.concat(
        [s.rows.assign(about=s.about) for s in (*ages, *probes)] or [pd.DataFrame()],
        ignore_index=True,
    )
    return Page(
        "Does an equilibrium stay easy to find?",
        "Evaluations, spectral radius and converged share over training: by solver, dropout, weight"
        " normalisation and regularisation.",
        [part for part in parts if part is not None],
        {"traces": traces, "runs": frames.runs},
    )


def _shallow(config: Mapping[str, Any]) -> int:
    return int(config.get("pretrain.steps") or 0)


# Cases and their variants ------------------------------------------------------------------------


def _cases(frames: Frames, runs: pd.DataFrame) -> list[Case]:
    if runs.empty:
        return []
    usual = {str(case): _usual(here) for case, here in runs.groupby("case", sort=False)}
    cases = dict(zip(map(id, runs["config"]), runs["case"], strict=True))

    def own(config: Mapping[str, Any]) -> str:
        return _variant(config, usual[cases[id(config)]])

    runs["arm"] = arms.named(runs, own, ("regularisation", "solver.", "gradient."))
    points = trainings.series(frames, runs, *_SERIES, "train.work")
    runs = runs.merge(_tenths(points), on="run_id", how="left")
    made = []
    for name, here in runs.groupby("case", sort=False):
        base = _variant(usual[str(name)], usual[str(name)])
        if base not in set(here["arm"]):
            base = str(here["arm"].iloc[0])
        own_points = points[points["case"] == name]
        made.append(Case(str(name), here, own_points, base))
    return made


def _usual(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the value that most runs have, of each key; the first one among equals."""
    values: dict[str, Counter[str]] = {}
    kept: dict[tuple[str, str], Any] = {}
    for config in runs["config"]:
        for key, value in config.items():
            if key.startswith("regularisation"):  # its keys are there where there is one
                continue
            values.setdefault(key, Counter())[repr(value)] += 1
            kept[key, repr(value)] = value
    return {key: kept[key, counts.most_common(1)[0][0]] for key, counts in values.items()}


def _variant(config: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Return the solver, and in what else a run is not as usual."""
    parts = [str(config.get("solver.name") or "?")]
    adjoint = config.get("gradient.solver.name")
    if adjoint is not None and adjoint != usual.get("gradient.solver.name"):
        parts.append(f"adjoint by {adjoint}")
    if config.get("gradient.name") != usual.get("gradient.name"):
        parts.append(str(config.get("gradient.name")))
    if config.get("regularisation.weight"):
        parts.append("regularised")
    for key, value in config.items():
        if key.startswith("model.") and value != usual.get(key):
            name = key.removeprefix("model.").replace("_", " ")
            parts.append(_told(name, value))
    return " · ".join(parts)


def _told(name: str, value: object) -> str:
    if value is True or value is False:
        return name if value else f"no {name}"
    return f"{name} {arms.value_text(value)}"


def _tenths(points: pd.DataFrame) -> pd.DataFrame:
    """Return each run's means over the second and the last tenth of its records."""
    made: dict[int, dict[str, float]] = {}
    for key, group in points.groupby(["run_id", "name"], sort=False):
        run, name = int(str(key[0])), str(key[1])
        if name not in _SERIES:
            continue
        values = group.sort_values("step")["value"].to_numpy(float)
        few = max(1, round(len(values) / 10))
        row = made.setdefault(run, {"run_id": run})
        second = min(few, len(values) - 1)
        row[f"early_{_SERIES[name]}"] = float(np.nanmean(values[second : second + few]))
        row[f"late_{_SERIES[name]}"] = float(np.nanmean(values[-few:]))
    columns = [f"{end}_{what}" for what in _SERIES.values() for end in ("early", "late")]
    frame = pd.DataFrame(list(made.values()), columns=["run_id", *columns])
    return frame.astype({"run_id": int, **dict.fromkeys(columns, float)})


# Traces ------------------------------------------------------------------------------------------


def _solves(frames: Frames, runs: Sequence[int]) -> pd.DataFrame:
    """Return the rows of the solves of these runs, forward and adjoint."""
    if not runs:
        return pd.DataFrame(columns=["solve_id", "run_id", "phase", "outer_step", "solver"])
    span = f"run_id >= {min(runs)} and run_id <= {max(runs)}"
    rows = frames.store.solves(span)
    found: pd.DataFrame = rows[rows["run_id"].isin(list(runs))]
    return found


def _ages(frames: Frames, case: Case) -> tuple[Solves, ...]:
    """Return Broyden's solves of one run, forward and backward, young and old weights."""
    rows = case.runs[(case.runs["solver"] == "broyden") & case.runs["completed"]]
    if rows.empty:
        return ()
    run = int(rows.sort_values(["seed", "run_id"])["run_id"].iloc[0])
    solves = _solves(frames, [run])
    made = []
    for phase, what in (("forward", "forward"), ("adjoint", "backward")):
        here = solves[solves["phase"] == phase].sort_values("outer_step")
        if here.empty:
            continue
        chosen = here.iloc[[round(k * (len(here) - 1) / 3) for k in range(4)]]
        labels = dict(zip(chosen["solve_id"].astype(int), _PARTS, strict=True))
        names = " and ".join(dict.fromkeys(str(s) for s in here["solver"]))
        about = f"{case.name}: {what}, {names}"
        drawn = _normalised(frames, labels)
        if len(drawn):
            made.append(Solves(about, drawn.assign(run_id=run)))
    return tuple(made)


def _normalised(frames: Frames, labels: Mapping[int, str]) -> pd.DataFrame:
    """Return traces with their labels, the residual over the first one."""
    traces = frames.traces(labels)
    traces = traces.dropna(subset=["residual"])
    made = []
    for solve, label in labels.items():
        trace = traces[traces["solve_id"] == solve]
        if trace.empty:
            continue
        first = float(trace["residual"].iloc[0])
        if not first > 0:
            continue
        made.append(
            pd.DataFrame(
                {
                    "label": label,
                    "x": trace["evaluations"].astype(float),
                    "y": trace["residual"].astype(float) / first,
                }
            )
        )
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=["label", "x", "y"])


def _same_weights(frames: Frames, runs: pd.DataFrame) -> list[Solves]:
    """Return the first solves behind a pre-training, which is the same whatever solves then."""
    made = []
    for (case, seed), here in runs.groupby(["case", "seed"], sort=False):
        config = here["config"].iloc[0]
        steps, depth = _shallow(config), config.get("pretrain.depth")
        solves = _solves(frames, [int(run) for run in here["run_id"]])
        first = solves[(solves["phase"] == "forward") & (solves["outer_step"] == steps)]
        if first.empty:
            continue
        labels = {int(s): str(n) for s, n in zip(first["solve_id"], first["solver"], strict=True)}
        rows = _normalised(frames, labels)
        if rows["label"].nunique() > 1:
            about = f"{case}, seed {seed:.0f}: {steps} steps as {depth} layers"
            made.append(Solves(about, rows.assign(seed=float(str(seed)))))
    return made


# What is said -----------------------------------------------------------------------------------


def _card(case: Case) -> Card:
    seeds = trainings.seeds_of(case.ends)
    parts = [
        Prose([_grown(case, arm) for arm in case.arms if len(case.of(arm))], "Growth", listed=True),
        Prose(_changes(case), "Against " + case.base, listed=True),
    ]
    steps = case.ends["steps"].dropna()
    about = plural(seeds, "seed")
    if len(steps):
        about += f", {words.count(float(steps.max()))} steps each"
    shown = [part for part in parts if part.paragraphs]
    return Card(case.name, Markup.escape(about), _headline(case), shown)


def _headline(case: Case) -> Markup:
    rows = case.of(case.base)
    if rows.empty:
        return Markup("The variant that the others are set against has not been trained yet.")
    growth = _growth(rows, "evaluations")
    if not growth.known:
        return Markup("No training has recorded its solves yet.")
    verb = "grow" if growth.low > 1 else "fall" if growth.high < 1 else "stay, within the interval"
    share = _fewer(rows)
    return sentence(
        "With {} the evaluations of a forward solve {} over training: from {} to {} ({}). The"
        " backward takes {} products in the end: {} than the forward.",
        strong(case.base),
        verb,
        _digits(rows["early_evaluations"].mean()),
        _digits(rows["late_evaluations"].mean()),
        growth.text(words.times),
        _digits(rows["late_products"].mean()),
        "fewer" if share > 1 else "no fewer",
    )


def _fewer(rows: pd.DataFrame) -> float:
    """Return how many times as many evaluations forward as products backward in the end."""
    return float(rows["late_evaluations"].mean() / max(rows["late_products"].mean(), 1e-12))


def _growth(rows: pd.DataFrame, what: str) -> Estimate:
    """Return the last tenth over the second tenth, seed by seed."""
    pair = [
        rows[["seed", f"{end}_{what}"]].rename(columns={f"{end}_{what}": what})
        for end in ("late", "early")
    ]
    return trainings.ratio(pair[0], pair[1], what)


def _digits(value: float) -> str:
    return "–" if math.isnan(value) else words.digits(value, 2)


def _grown(case: Case, arm: str) -> Markup:
    rows = case.of(arm)
    text = sentence(
        "{}: {} to {} evaluations ({}), {} to {} products",
        strong(arm),
        _digits(rows["early_evaluations"].mean()),
        _digits(rows["late_evaluations"].mean()),
        _growth(rows, "evaluations").text(words.times),
        _digits(rows["early_products"].mean()),
        _digits(rows["late_products"].mean()),
    )
    if rows["late_radius"].notna().any():
        text += sentence(
            ", ρ {} to {}",
            _digits(rows["early_radius"].mean()),
            _digits(rows["late_radius"].mean()),
        )
    share = rows["late_share"].mean()
    if not math.isnan(share):
        text += sentence("; {} % converge in the end", f"{100 * share:.0f}")
    return text + Markup(".")


def _changes(case: Case) -> list[Markup]:
    """Return what each variant changes in the end, seed by seed."""
    base = case.of(case.base)
    said = []
    for arm in case.arms:
        rows = case.of(arm)
        if arm == case.base or rows.empty or base.empty:
            continue
        pieces = []
        for column, what in (
            ("late_evaluations", "evaluations"),
            ("late_products", "products"),
            ("late_radius", "spectral radius"),
            ("loss", "test loss"),
        ):
            change = trainings.ratio(rows, base, column)
            if change.known:
                apart = not change.certain or change.low > 1 or change.high < 1
                pieces.append(
                    sentence(
                        "{} {}{}", what, change.text(words.times), "" if apart else ", not apart"
                    )
                )
        said.append(sentence("{}: {}.", strong(arm), Markup("; ").join(pieces)))
    return said


def _probe_card(probes: Sequence[Solves]) -> Card:
    said = [_verdict(probe) for probe in probes]
    stuck = [p for p in probes if "picard" in set(p.rows["label"]) and not _falls(p, "picard")]
    plain = [p for p in probes if "picard" in set(p.rows["label"])]
    if plain:
        headline = sentence(
            "In {} of {} plain iteration, which is the unrolled network gone on with, has stopped"
            " approaching an equilibrium.",
            len(stuck),
            plural(len(plain), "case"),
        )
    else:
        headline = Markup("Plain iteration is not among the solvers.")
    about = Markup(
        "weights that were trained as a few tied layers; one batch, solved by each solver"
    )
    return Card("The same weights", about, headline, [Prose(said, listed=True)])


def _falls(probe: Solves, label: str) -> bool:
    """Whether the least residual of the second half is well below that of the first half."""
    rows = probe.rows[probe.rows["label"] == label]
    middle = rows["x"].max() / 2
    first, last = rows[rows["x"] <= middle]["y"], rows[rows["x"] > middle]["y"]
    if first.empty or last.empty:
        return True
    return bool(last.iloc[-1] < 1e-3 or last.min() < _FELL * first.min())


def _verdict(probe: Solves) -> Markup:
    """Return the residuals of the solvers at equal evaluations, and who has stopped falling."""
    ends = probe.rows.groupby("label", sort=False)["x"].max()
    parts = []
    for label in ends.index:
        rows = probe.rows[probe.rows["label"] == label]
        rises = float((np.diff(rows["y"].to_numpy(float)) > 0).mean()) if len(rows) > 1 else 0.0
        parts.append(
            sentence(
                "{} {} of the first residual after {} evaluations{}",
                strong(label),
                words.small(float(rows["y"].iloc[-1])),
                words.count(float(ends[label])),
                ""
                if _falls(probe, str(label))
                else f", and no longer falling (it rises at {100 * rises:.0f} % of its steps)",
            )
        )
    return sentence("{}: {}.", probe.about, Markup("; ").join(parts))


# What is drawn ----------------------------------------------------------------------------------

_PANELS = (
    ("train.evaluations", "Forward", Axis("evaluations a solve", "number", zero=True)),
    ("train.products", "Backward", Axis("products a step", "number", zero=True)),
    ("train.radius", "Spectral radius", Axis("ρ at the equilibrium", "number")),
    ("train.converged", "Converged", Axis("share of the samples", "number")),
)


def _looks(found: Sequence[Case]) -> dict[str, Look]:
    return curves.palette([arm for case in found for arm in case.arms])


def _over_training(found: Sequence[Case]) -> Figure | None:
    """Return evaluations, products, radius and converged share over training, or None."""
    shown = [case for case in found if case.points["name"].isin(list(_SERIES)).any()]
    if not shown:
        return None
    text = Markup(
        "Trailing means over a tenth of the training, mean and range over the seeds. What to see:"
        " whether evaluations grow with the steps, and whether a variant that keeps ρ away from 1"
        " keeps them few. Where fewer samples converge than before, the number of"
        " evaluations is that of the budget and says no more how hard the equilibrium is."
    )
    return Figure("training", "Over training", text, lambda: _draw_over_training(shown))


def _draw_over_training(shown: Sequence[Case]) -> Spec:
    panels = []
    for case in shown:
        points = case.points.rename(columns={"arm": "label"})
        for name, title, axis in _PANELS:
            rows = trainings.along(points, name, "step")
            if rows.empty:
                continue
            means = arms.over_seeds(trainings.smoothed(rows), ["label"])
            steps = Axis("steps", "count")
            panels.append(Panel(title, means, steps, axis, subtitle=case.name, dots=False))
    return curves.draw(panels, _looks(shown), width=480, height=240)


def _residuals(found: Sequence[Solves]) -> Figure | None:
    """Return residual against evaluations of Broyden's solves, forward and backward, or None."""
    if not found:
        return None
    said = Markup(" ").join(_lengths(one) for one in found)
    text = Markup(
        "One batch each at four ages of the weights, of the first seed: the largest residual of the"
        " batch over its first one. Adjoints are shown where their solver records its way. "
    )
    text += said
    return Figure("residuals", "Residual against evaluations", text, lambda: _draw_solves(found))


def _lengths(one: Solves) -> Markup:
    """Return how long the solves of the ages are, in a sentence."""
    ends = one.rows.groupby("label", sort=False)["x"].max()
    parts = [
        sentence("{} {}", words.count(float(ends[part])), part) for part in _PARTS if part in ends
    ]
    return sentence("{}: {}.", one.about, Markup(", ").join(parts))


def _draw_solves(found: Sequence[Solves]) -> Spec:
    panels = []
    for one in found:
        rows = one.rows[one.rows["y"] > 0]
        across = Axis("products" if ": backward" in one.about else "evaluations", "count")
        up = Axis("residual over the first", "error", log=True)
        panels.append(Panel(one.about, rows, across, up))
    return curves.draw(panels, _AGES, width=480, height=280)


def _oscillation(found: Sequence[Solves]) -> Figure | None:
    """Return the residuals of solvers at the same weights, or None."""
    if not found:
        return None
    text = Markup(
        "Weights trained as a network of a few tied layers, which no solver has a part in, are the"
        " same for all solvers of one seed. From there the residual of one batch against"
        " evaluations: plain iteration is the unrolled network, gone on with beyond its depth."
        " Where its curve flattens or swings it has no limit that it approaches, and a root finder"
        " that goes on falling shows that there is an equilibrium all the same."
    )
    return Figure("same", "Residual at the same weights", text, lambda: _draw_same(found))


def _draw_same(found: Sequence[Solves]) -> Spec:
    labels = list(dict.fromkeys(label for one in found for label in one.rows["label"]))
    panels = [
        Panel(
            one.about,
            one.rows[one.rows["y"] > 0],
            Axis("evaluations", "count"),
            Axis("residual over the first", "error", log=True),
        )
        for one in found
    ]
    return curves.draw(panels, looks(labels, SOLVERS), width=480, height=280)


def _table(found: Sequence[Case]) -> Table | None:
    values = [
        "early_evaluations", "late_evaluations", "early_products", "late_products", "early_radius",
        "late_radius", "late_share", "evaluations", "products", "converged", "loss", "accuracy",
        "perplexity", "step_seconds",
    ]  # fmt: skip
    made = []
    for case in found:
        frame = trainings.grouped(case.ends, ["case", "arm"], values)
        frame["loss_text"] = [
            trainings.mean(case.of(arm)["loss"]).text(lambda v: words.digits(v, 3))
            for arm in frame["arm"]
        ]
        frame["growth_text"] = [
            _growth(case.of(arm), "evaluations").text(words.times) for arm in frame["arm"]
        ]
        made.append(frame)
    made = [frame for frame in made if len(frame)]
    if not made:
        return None
    columns = (
        Column("case", "model"),
        Column("arm", "variant", "series"),
        Column("seeds", "seeds", "count"),
        Column("early_evaluations", "evaluations, early", "number"),
        Column("late_evaluations", "late", "number"),
        Column("growth_text", "late over early", "text", "", "95 % interval over the seeds"),
        Column("early_products", "products, early", "number"),
        Column("late_products", "late", "number"),
        Column("early_radius", "ρ, early", "number"),
        Column("late_radius", "late", "number"),
        Column("late_share", "converged, late", "number", "", "share of the samples, forward"),
        Column("loss_text", "test loss", "text", "", "95 % interval over the seeds"),
        Column("step_seconds", "a step", "seconds"),
    )
    text = Markup(
        "Early and late: means over the second and the last tenth of the training; in the first"
        " one the weights are as they were drawn. Rest the pointer on a number for its interval"
        " over the seeds."
    )
    frame = pd.concat(made, ignore_index=True)
    return Table("variants", "All variants", text, columns, frame, looks=_looks(found))


def _definitions() -> list[Markup]:
    return [
        Markup(
            "<b>ρ</b>: the spectral radius of the cell's Jacobian where the solve of a recorded"
            " step ended, the mean over the batch. Below 1 plain iteration converges in the end."
        ),
        Markup(
            "<b>Dropout</b> draws its mask once a solve. <b>Weight norm</b> divides each row of a"
            " weight by its length. <b>Regularised</b>: with the penalty on the Jacobian at the"
            " equilibrium (Bai, Koltun and Kolter 2021)."
        ),
        Markup(
            "<b>The same weights</b>: shallow pre-training runs a fixed number of tied layers"
            " through plain backpropagation, whichever solver comes after it; the first solve"
            " behind it sees the same weights and the same batch with each solver. <b>No longer"
            " falling</b>: the least residual of the second half of the evaluations is above half"
            " of that of the first half, and the last one above 1e-3 of the first."
        ),
    ]
