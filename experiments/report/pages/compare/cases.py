"""The measurements of ``compare``, case by case, as all its sections use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from experiments.report.colours import Look, looks
from experiments.report.frames import Frames
from experiments.report.labels import FORWARD_ONLY
from experiments.report.measures import Best, least, per_seed, summarise

# These keep the graph of the iterations while they solve, which costs time and memory forward.
KEEPS_GRAPH = ("unrolled", "checkpointed", "reversible")

MEASURED = (
    "evaluations",
    "products_forward",
    "calls",
    "seconds",
    "residual_relative",
    "history_bytes",
    "forward_seconds",
    "backward_seconds",
    "total_seconds",
    "products",
    "rel_err",
    "cosine",
    "kept_bytes",
    "bytes",
    "loss",
    "loss_ref",
    "state_err",
)


@dataclass(frozen=True)
class Case:
    """One model, under one setting.

    Attributes
    ----------
    name
        As the reader sees it.
    points
        Solves to a tolerance.
    budgets
        Solves that spend a fixed budget: the explicit networks.
    looks
        Of every solver on the page.
    """

    name: str
    points: pd.DataFrame
    budgets: pd.DataFrame
    looks: Mapping[str, Look]

    @cached_property
    def tolerances(self) -> list[float]:
        """The tolerances, the loosest first."""
        found: list[float] = self.points["reltol"].dropna().unique().tolist()
        return sorted(found, reverse=True)

    @cached_property
    def forward(self) -> pd.DataFrame:
        """The solves by which solvers are compared: those that keep no graph, where there are."""
        keeps = self.points["method"].isin(KEEPS_GRAPH)
        plain = set(self.points.loc[~keeps, "solver"])
        return self.points[~keeps | ~self.points["solver"].isin(plain)]

    @cached_property
    def by_solver(self) -> pd.DataFrame:
        """One row a solver and tolerance."""
        return _ordered(summarise(self.forward, ["solver", "reltol"], MEASURED), self.looks)

    @cached_property
    def by_gradient(self) -> pd.DataFrame:
        """One row a solver, gradient and tolerance."""
        by = ["solver", "gradient", "reltol"]
        return _ordered(summarise(self.points, by, MEASURED), self.looks)

    @cached_property
    def by_budget(self) -> pd.DataFrame:
        """One row a solver, gradient and fixed budget."""
        by = ["solver", "gradient", "max_evaluations"]
        found = summarise(self.budgets, by, MEASURED)
        return found.sort_values("max_evaluations", kind="stable").reset_index(drop=True)

    @cached_property
    def gradients(self) -> list[str]:
        """The gradients measured: implicit ones first, then as they come."""
        found = [*self.points["gradient"], *self.budgets["gradient"]]
        names = [name for name in dict.fromkeys(found) if name != FORWARD_ONLY]
        return sorted(names, key=lambda name: not name.startswith("implicit"))

    @cached_property
    def has_products(self) -> bool:
        """Whether a forward solver uses Jacobian products beside evaluations."""
        return bool((self.points["products_forward"] > 0).any())

    def product_free(self) -> list[str]:
        """Return the solvers that use evaluations alone."""
        most = self.by_solver.groupby("solver", sort=False)["products_forward_hi"].max()
        return [str(name) for name in most.index[most == 0]]

    @cached_property
    def reference(self) -> float | None:
        """The tolerance at which details are told: the tightest that half of the solvers meet."""
        for tolerance in reversed(self.tolerances):
            here = self.by_solver[self.by_solver["reltol"] == tolerance]
            if here["met"].sum() * 2 >= self.by_solver["solver"].nunique():
                return tolerance
        return self.tolerances[0] if self.tolerances else None

    @cached_property
    def representative(self) -> str | None:
        """The solver behind which gradients are compared.

        Of those that met the reference tolerance, the one with the most gradients measured, and
        among these the one with the fewest evaluations, Jacobian products counted as such.
        """
        here = self.by_gradient
        here = here[(here["reltol"] == self.reference) & (here["gradient"] != FORWARD_ONLY)]
        here = here[here["rel_err"].notna() | here["backward_seconds"].notna()]
        if here.empty:
            return None
        ranked = here.groupby("solver", sort=False).agg(
            met=("met", "all"), gradients=("gradient", "nunique"), calls=("calls", "min")
        )
        ranked = ranked.sort_values(
            ["met", "gradients", "calls"], ascending=[False, False, True], kind="stable"
        )
        return str(ranked.index[0])

    def winner(
        self, tolerance: float, quantity: str, among: Sequence[str] | None = None
    ) -> Best | None:
        """Return which solver meets ``tolerance`` in all its runs with the least ``quantity``."""
        rows = self.by_solver[(self.by_solver["reltol"] == tolerance) & self.by_solver["met"]]
        here = self.forward[self.forward["reltol"] == tolerance]
        here = here[here["solver"].isin(set(rows["solver"]))]
        here = here if among is None else here[here["solver"].isin(among)]
        return least(per_seed(here, ["solver"], quantity), "solver")


def implicit(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose gradient comes from the implicit function theorem."""
    return rows[rows["gradient"].astype(str).str.startswith("implicit")]


def _ordered(frame: pd.DataFrame, found: Mapping[str, Look]) -> pd.DataFrame:
    order = {name: position for position, name in enumerate(found)}
    frame = frame.assign(_order=frame["solver"].map(order), _loose=-frame["reltol"].astype(float))
    frame = frame.sort_values(["_loose", "_order"], kind="stable")
    return frame.drop(columns=["_order", "_loose"]).reset_index(drop=True)


def cases(frames: Frames) -> list[Case]:
    """Return the cases of the selected runs, in the order in which they were first measured."""
    points = frames.points.copy()
    points["forward_seconds"] = points["forward_seconds"].fillna(points["seconds"])
    points["total_seconds"] = points["forward_seconds"] + points["backward_seconds"]
    points["bytes"] = points["kept_bytes"] + points["history_bytes"]
    points["products_forward"] = points["jvps"].fillna(0) + points["vjps"].fillna(0)
    points["calls"] = points["evaluations"] + points["products_forward"]
    found = looks(points["solver"])
    return [
        Case(
            str(name),
            group[~group["fixed_budget"]].reset_index(drop=True),
            group[group["fixed_budget"]].reset_index(drop=True),
            found,
        )
        for name, group in points.groupby("case", sort=False)
    ]
