"""The tables: every gradient, precision, scale, solver, preconditioner, certificate and step."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from experiments.report import words
from experiments.report.blocks import Column, Table
from experiments.report.measures import severity
from experiments.report.pages.gradients.figures import stepped
from experiments.report.pages.gradients.rows import Gradients, medians, place
from experiments.report.pages.gradients.verdicts import certified

_ENDS = ("", "_lo", "_hi")


def estimators(found: Gradients) -> Table | None:
    """Return every gradient at every spectral radius, in parameters and arguments."""
    rows = found.rows[found.rows["slice"] == "estimators"].copy()
    if rows.empty:
        return None
    rows["descends"] = (rows["cosine"] > 0).astype(float)
    numbers = ["rel_err", "cosine", "norm_ratio", "products", "spectral_radius", "descends"]
    frame = medians(rows, ["case", "radius", "target", "label"], numbers)
    groups = rows.groupby(["case", "radius", "target", "label"], sort=False, dropna=False)
    frame["share"] = [
        f"{int(share * n + 0.5)} of {n}"
        for share, n in zip(groups["descends"].mean(), groups.size(), strict=True)
    ]
    frame["rho"] = [f"{value:.3g}" for value in frame["spectral_radius"]]
    columns = (
        Column("case", "model"),
        Column("rho", "ρ", "text", "", "at z*, the largest of the batch"),
        Column("target", "in"),
        Column("label", "gradient", "series"),
        Column("rel_err", "error", "error", "", "‖g − g*‖ / ‖g*‖"),
        Column("cosine", "cosine", "cosine"),
        Column("norm_ratio", "norm ratio", "number", "", "‖g‖ / ‖g*‖"),
        Column("share", "descends", "text", "", "how often the cosine is positive"),
        Column("products", "products", "count"),
    )
    text = Markup(
        "Medians over the seeds; rest the pointer on a number for its range. ○: a solve fell short"
        " of its tolerance in at least one run."
    )
    return Table(
        "estimators",
        "Every gradient",
        text,
        columns,
        frame,
        folded=len(frame) > 60,
        looks=found.looks,
    )


def precisions(found: Gradients) -> Table | None:
    """Return the error of every gradient, a column a precision."""
    rows = found.of("precision").copy()
    if rows.empty:
        return None
    rows["place"] = place(rows)
    frame = medians(rows, ["place", "label"], ["rel_err"])[["place", "label", "met", "runs"]]
    columns = [Column("place", "model"), Column("label", "gradient", "series")]
    for precision, here in rows.groupby("precision", sort=False):
        one = medians(here, ["place", "label"], ["rel_err", "cosine"])
        names = {
            f"{v}{end}": f"{v}_{precision}{end}" for v in ("rel_err", "cosine") for end in _ENDS
        }
        one = one.rename(columns=names)[["place", "label", *names.values()]]
        frame = frame.merge(one, on=["place", "label"], how="left")
        asked = words.tolerance(float(here["reltol"].median()))
        columns += [
            Column(f"rel_err_{precision}", f"error, {precision} to {asked}", "error"),
            Column(f"cosine_{precision}", "cosine", "cosine"),
        ]
    text = Markup(
        "Relative error in the parameters with both passes to a tolerance that the precision can"
        " meet; bfloat16 is float32 under autocast, where each product of matrices rounds to three"
        " digits. Medians over the seeds. ○: a solve fell short of its tolerance."
    )
    return Table("precision", "By precision", text, columns, frame, looks=found.looks)


def scales(found: Gradients) -> Table | None:
    """Return how much the gradients change, at most, when the loss is scaled."""
    rows = found.of("loss_scale").dropna(subset=["change"])
    if rows.empty:
        return None
    frame = medians(rows, ["case", "label"], ["change", "rel_err"])
    frame["span"] = [
        f"{words.tolerance(low)} to {words.tolerance(high)}"
        for low, high in zip(
            rows.groupby(["case", "label"], sort=False)["scale"].min(),
            rows.groupby(["case", "label"], sort=False)["scale"].max(),
            strict=True,
        )
    ]
    frame["most"] = frame["change_hi"]
    columns = (
        Column("case", "model"),
        Column("label", "gradient", "series"),
        Column("span", "loss scaled by"),
        Column("most", "changes at most", "error", "", "relative, after dividing by the scale"),
        Column("rel_err", "error", "error", "", "median, at every scale"),
        Column("number", "of", "count"),
    )
    text = Markup(
        "The gradient of the scaled loss, divided by the scale, against that of the loss, in"
        " float64: nothing but rounding should change."
    )
    title = "When the loss is scaled"
    return Table("loss-scale", title, text, columns, frame, looks=found.looks)


def solvers(found: Gradients) -> Table | None:
    """Return implicit's gradient behind every solver."""
    rows = found.of("solvers").copy()
    if rows.empty:
        return None
    rows["place"] = place(rows)
    frame = medians(rows, ["place", "solver"], ["rel_err", "forward", "spread", "state_err"])
    groups = rows.groupby(["place", "solver"], sort=False)
    frame["ended"] = [
        words.listed([f"{code} {n}" if n < len(g) else str(code) for code, n in counts.items()])
        for g, counts in (
            (list(ends), ends.value_counts()) for _, ends in groups["forward_retcode"]
        )
    ]
    frame["apart"] = [words.times(v).removesuffix("×") for v in frame["spread"]]
    columns = (
        Column("place", "model"),
        Column("solver", "forward solver"),
        Column("ended", "ended"),
        Column("forward", "residual", "error", "", "relative"),
        Column("rel_err", "error", "error"),
        Column("apart", "spread / tolerance", "text", "", "to the farthest other gradient"),
        Column("number", "seeds", "count"),
    )
    text = Markup(
        "The same adjoint behind every solver's z*. Spread: the distance to the farthest gradient"
        " behind another solver that met the tolerance, relative to the reference and the"
        " tolerance. It is of the size of the error, which the model's conditioning sets. Solvers"
        " that fell short (○) are left out of it."
    )
    return Table("solvers", "Whichever solver found z*", text, columns, frame, folded=True)


def preconditioned(found: Gradients) -> Table | None:
    """Return the products of the adjoint with and without the forward's inverse."""
    rows = found.of("precondition").dropna(subset=["ratio"])
    if rows.empty:
        return None
    plain = found.of("precondition")
    plain = plain[plain["ratio"].isna()]
    by = ["case", "radius", "solver", "reltol"]
    keys = ["run_id", *by]
    joined = rows.merge(plain[[*keys, "rel_err"]], on=keys, how="left", suffixes=("", "_plain"))
    numbers = ["ratio", "products", "plain", "spectral_radius", "forward_evaluations"]
    joined = joined.astype({"forward_evaluations": float})
    frame = medians(joined, by, [*numbers, "rel_err", "rel_err_plain"])
    frame["rho"] = [f"{value:.3g}" for value in frame["spectral_radius"]]
    frame["share"] = [f"{value:.2f}" for value in frame["ratio"]]
    columns = (
        Column("case", "model"),
        Column("rho", "ρ"),
        Column("solver", "forward solver"),
        Column("reltol", "forward tolerance", "error"),
        Column("forward_evaluations", "evaluations", "count"),
        Column("plain", "products, plain", "count"),
        Column("products", "preconditioned", "count"),
        Column("share", "ratio"),
        Column("rel_err_plain", "error, plain", "error"),
        Column("rel_err", "preconditioned", "error"),
        Column("number", "seeds", "count"),
    )
    text = Markup(
        "Products of GMRES on the adjoint to 1e-6, the largest of the batch: plain, and"
        " preconditioned from the right by the inverse that the forward solver has learnt. Medians"
        " over the seeds. The longer the forward solve, the more it has learnt."
    )
    title = "What the forward's inverse saves"
    return Table("precondition", title, text, columns, frame, folded=len(frame) > 20)


def certificates(found: Gradients) -> Table | None:
    """Return how good the certificate is, slice by slice."""
    rows = certified(found)
    if rows.empty:
        return None
    made: list[dict[str, Any]] = []
    for keys, here in rows.groupby(["slice", "precision"], sort=False):
        low, middle, high = here["factor"].quantile([0.05, 0.5, 0.95])
        made.append(
            {
                "slice": keys[0],
                "precision": keys[1],
                "number": len(here),
                "share": f"{100 * float(here['within'].mean()):.1f}",
                "bold": int((here["factor"] < 1 / 3).sum()),
                "careful": int((here["factor"] > 3).sum()),
                "low": words.digits(float(low)),
                "middle": words.digits(float(middle)),
                "high": words.digits(float(high)),
                "met": bool(here["within"].mean() >= 0.95),
                "runs": sorted({int(run) for run in here["run_id"]}),
            }
        )
    columns = (
        Column("slice", "slice"),
        Column("precision", "precision"),
        Column("number", "gradients", "count"),
        Column("share", "within a factor 3, %"),
        Column("bold", "too small", "count", "", "below a third of the true error"),
        Column("careful", "too large", "count", "", "above three times the true error"),
        Column("low", "5 % of the factors"),
        Column("middle", "median"),
        Column("high", "95 %"),
    )
    text = Markup("Certificate / true error. Rows marked with ○ have less than 95 % in the band.")
    title = "The certificate, slice by slice"
    return Table("certificates", title, text, columns, pd.DataFrame(made))


def costs(found: Gradients) -> Table | None:
    """Return the seconds of a training step with every gradient."""
    frame = stepped(found)
    if frame.empty:
        return None
    frame = frame.sort_values(["case", "step"], kind="stable").reset_index(drop=True)
    frame["times"] = [words.times(ratio) for ratio in frame["ratio"]]
    frame["quartiles"] = [
        "–" if words.missing(low) else f"{low:.2f}–{high:.2f}"
        for low, high in zip(frame["ratio_q1"], frame["ratio_q3"], strict=True)
    ]
    columns = (
        Column("case", "model"),
        Column("label", "gradient", "series"),
        Column("step", "step", "seconds", "", "forward, backward and optimiser"),
        Column("forward_seconds", "forward", "seconds"),
        Column("backward_seconds", "backward", "seconds"),
        Column("times", "over jacobian_free"),
        Column("quartiles", "quartiles", "text", "", "of the rounds, the widest of any seed"),
        Column("forward_evaluations", "evaluations", "count"),
        Column("products", "products", "count"),
        Column("rel_err", "error", "error"),
        Column("cosine", "cosine", "cosine"),
    )
    text = Markup("Medians over the rounds and the seeds; float32, both passes at one tolerance.")
    return Table("costs", "A training step", text, columns, frame, looks=found.looks)


def short(found: Gradients) -> Table | None:
    """Return the solves that fell short of their tolerance, counted, or None if there are none."""
    rows = found.parameters
    made: list[dict[str, Any]] = []
    for pass_ in ("forward", "adjoint"):
        converged = pd.to_numeric(rows[f"{pass_}_converged"], errors="coerce")
        missed = rows[converged < 1]
        by = ["slice", "case", "label", "precision", f"{pass_}_retcode"]
        for keys, here in missed.groupby(by, sort=False, dropna=False):
            part, case, label, precision, code = keys
            same = (rows["slice"] == part) & (rows["case"] == case) & (rows["label"] == label)
            total = int((same & (rows["precision"] == precision) & converged.notna()).sum())
            made.append(
                {
                    "code": code,
                    "pass": pass_,
                    "slice": part,
                    "case": case,
                    "label": label,
                    "precision": precision,
                    "times": f"{len(here)} of {total}",
                    "why": here[f"{pass_}_message"].iloc[0],
                    "runs": sorted({int(run) for run in here["run_id"]}),
                }
            )
    for keys, here in found.refused.groupby(["slice", "case", "label", "precision"], sort=False):
        made.append(
            {
                "code": "refused",
                "pass": "–",
                **dict(zip(("slice", "case", "label", "precision"), keys, strict=True)),
                "times": str(len(here)),
                "why": here["refused"].iloc[0],
                "runs": sorted({int(run) for run in here["run_id"]}),
            }
        )
    if not made:
        return None
    made.sort(key=lambda row: severity(row["code"]))
    columns = (
        Column("code", "what happened"),
        Column("pass", "pass"),
        Column("slice", "slice"),
        Column("case", "model"),
        Column("label", "gradient", "series"),
        Column("precision", "precision"),
        Column("times", "how often"),
        Column("why", "why, of the first"),
    )
    text = Markup(
        "A solve that misses its tolerance is a result: its gradient is measured like any other."
        " Refused: a gradient that does not fit the solver or the budget says so, and why."
        " Adjoints that were cut off on purpose, in the slice of products, are not among these."
    )
    title = "Solves that fell short"
    frame = pd.DataFrame(made)
    return Table("short", title, text, columns, frame, folded=len(made) > 30, looks=found.looks)
