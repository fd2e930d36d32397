"""Solver × gradient, and the explicit networks, as tables."""

from __future__ import annotations

from markupsafe import Markup

from experiments.report.blocks import Column, Table, slug
from experiments.report.labels import FORWARD_ONLY
from experiments.report.pages.compare.cases import Case

_COLUMNS = (
    Column("solver", "solver", "series"),
    Column("gradient", "gradient"),
    Column("evaluations", "evaluations", "count", "low", "calls of f on the batch, forward"),
    Column("products_forward", "Jacobian products", "count", "", "beside the evaluations, forward"),
    Column(
        "forward_seconds", "forward", "seconds", "low", "the forward solve as this gradient runs it"
    ),
    Column(
        "products",
        "adjoint products",
        "count",
        "low",
        "vector-Jacobian products of the adjoint solve",
    ),
    Column("backward_seconds", "backward", "seconds", "low"),
    Column(
        "rel_err",
        "gradient error",
        "error",
        "low",
        "‖gradient − reference‖ / ‖reference‖, all parameters",
    ),
    Column("cosine", "cosine", "cosine", "", "of the angle between gradient and reference"),
    Column(
        "kept_bytes",
        "kept",
        "bytes",
        "low",
        "kept by autograd between forward and backward, parameters excluded",
    ),
    Column("history_bytes", "history", "bytes", "", "the forward solver's own state while it runs"),
    Column("codes", "retcodes", "codes", "", "how the samples ended"),
)
_FORWARD = (
    "solver",
    "evaluations",
    "products_forward",
    "forward_seconds",
    "history_bytes",
    "codes",
)


def solver_by_gradient(case: Case) -> Table | None:
    """Return the table of every solver with every gradient, one tolerance at a time, or None."""
    frame = case.by_gradient
    if frame.empty:
        return None
    only_forward = bool((frame["gradient"] == FORWARD_ONLY).all())
    columns = [c for c in _COLUMNS if not only_forward or c.key in _FORWARD]
    if not case.has_products:
        columns = [c for c in columns if c.key != "products_forward"]
    text = Markup(
        "Medians over seeds; rest the pointer on a number for its range, on a row for its runs."
        " Bold: the least of those that met the tolerance. "
    )
    unmet = int((~frame["met"]).sum())
    if unmet:
        text += Markup("Rows marked with ○ missed it in at least one run.")
    return Table(
        f"solver-gradient-{slug(case.name)}",
        case.name,
        text,
        columns,
        frame,
        choice="reltol",
        chosen=case.reference,
        looks=case.looks,
    )


_DEPTH_COLUMNS = (
    Column("max_evaluations", "depth L", "count"),
    Column("solver", "iteration"),
    Column("gradient", "gradient"),
    Column("loss", "loss", "number"),
    Column("rel_err", "gradient error", "error", "", "against the equilibrium's gradient"),
    Column("products_forward", "Jacobian products", "count", "", "beside the evaluations, forward"),
    Column("forward_seconds", "forward", "seconds"),
    Column("backward_seconds", "backward", "seconds"),
    Column("kept_bytes", "kept", "bytes"),
    Column("history_bytes", "history", "bytes"),
)


def by_depth(case: Case) -> Table | None:
    """Return the table of the fixed budgets, folded away below their figure, or None."""
    frame = case.by_budget
    if frame.empty:
        return None
    # Meeting a tolerance is not what a fixed budget is for.
    frame = frame.drop(columns=["met"])
    return Table(
        f"depth-{slug(case.name)}",
        f"The numbers: {case.name}",
        Markup(),
        _DEPTH_COLUMNS,
        frame,
        folded=True,
    )
