"""A store of made-up records, to test how reports are written. No number here was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from db import RunObserver

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
BUDGETS = (1, 2, 4, 8, 16, 32, 64)
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC).replace(tzinfo=None)  # Sacred's times are naive

# Made-up contraction per evaluation, and seconds per evaluation beyond f's own.
RATES = {
    "picard": (0.80, 0.0),
    "anderson": (0.55, 2e-4),
    "broyden": (0.50, 3e-4),
    "newton_krylov": (0.62, 1e-4),
    "newton": (0.30, 3e-3),
    "scipy_anderson": (0.60, 4e-3),
    "scipy_broyden1": (0.58, 5e-3),
    "scipy_newton_krylov": (0.66, 4e-3),
    "torch_lbfgs": (0.85, 1e-3),
}
SIZES = {"mlp": (16, 64, 4), "transformer": (8, 2048, 30)}  # batch, dim, tensors kept an evaluation


class Made:
    """Writes made-up runs of ``compare`` into a store."""

    def __init__(
        self, path: Path, study: str | None = "compare", experiment: str = "compare"
    ) -> None:
        self.path = path
        self.study = study
        self.experiment = experiment
        self.number = 0

    def run(
        self,
        model: str = "mlp",
        solver: str = "anderson",
        gradient: Mapping[str, Any] | None = None,
        seed: int = 0,
        *,
        trial: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> RunObserver:
        """Start a run; the caller records and ends it."""
        self.number += 1
        full: dict[str, Any] = {
            "model": {"name": model},
            "solver": {"name": solver},
            "gradient": gradient,
            "data": {"name": "digits"} if model == "mlp" else None,
            "reltol": list(TOLERANCES),
            "max_evaluations": 100,
            "fixed_budget": False,
            "batch": SIZES.get(model, (16, 64, 4))[0],
            "train_steps": 0,
            "repeats": 5,
            "device": "auto",
            "dtype": "float32",
            "threads": 1,
            "seed": seed,
        }
        full.update(config or {})
        environment = {"python": "3.11.2", "torch": "2.13.0", "cpu": "made-up processor"}
        observer = RunObserver(
            self.path,
            study=self.study,
            trial=trial or (f"trial-{self.number}" if self.study else None),
            environment=environment,
        )
        start = START + timedelta(seconds=5 * self.number)
        about = {"name": self.experiment, "base_dir": ".", "sources": [], "dependencies": []}
        observer.started_event(about, "main", {"hostname": "made-up-host"}, start, full, {}, None)
        return observer

    def end(self, observer: RunObserver, error: BaseException | None = None) -> int:
        """End a run, with an exception or without, and return its id."""
        stop = START + timedelta(seconds=5 * self.number + 3)
        if error is None:
            observer.completed_event(stop, None)
        else:
            try:
                raise error
            except type(error):
                observer.failed_event(stop, ["Traceback (most recent call last): …\n"])
        observer.join()
        assert observer.run_id is not None
        return observer.run_id

    def measured(
        self,
        model: str,
        solver: str,
        gradient: Mapping[str, Any] | None,
        seed: int,
        points: Sequence[float | int] = TOLERANCES,
        *,
        fixed_budget: bool = False,
        config: Mapping[str, Any] | None = None,
        solve: Mapping[str, Any] | None = None,
        check: Mapping[str, Any] | None = None,
    ) -> int:
        """Record one whole run and return its id; ``solve`` and ``check`` replace columns."""
        changed: dict[str, Any] = dict(config or {})
        if fixed_budget:
            changed |= {"max_evaluations": list(points), "fixed_budget": True}
        observer = self.run(model, solver, gradient, seed, config=changed)
        for step, point in enumerate(points):
            forward, gradient_check = made_up(
                model, solver, gradient, seed, step, point, fixed_budget
            )
            ord_ = observer.solve({**forward, **(solve or {})})
            if gradient is None:
                continue
            adjoint = None
            if "solver" in gradient:
                adjoint = observer.solve(
                    {
                        "outer_step": step,
                        "phase": "adjoint",
                        "solver": gradient["solver"]["name"],
                        "vjps": gradient_check["products"],
                        "retcode": "SUCCESS",
                        "converged": 1.0,
                        "message": "converged",
                        "reltol": forward["reltol"],
                    }
                )
            links = {"solve_ord": ord_, "adjoint_ord": adjoint}
            observer.gradient({**gradient_check, **links, **(check or {})})
        return self.end(observer)


def made_up(  # noqa: PLR0917
    model: str,
    solver: str,
    gradient: Mapping[str, Any] | None,
    seed: int,
    step: int,
    point: float | int,
    fixed_budget: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of a forward solve and of the gradient check behind it."""
    batch, dim, kept = SIZES.get(model, (16, 64, 4))
    state = batch * dim * 4
    rate, overhead = RATES.get(solver, (0.7, 1e-3))
    rate = min(0.97, rate + 0.02 * seed + (0.08 if model == "transformer" else 0.0))
    foreign = solver.startswith(("scipy_", "torch_"))
    if fixed_budget:
        evaluations, reltol = int(point), 1e-3
    else:
        reltol = float(point)
        evaluations = 2 + math.ceil(math.log(reltol) / math.log(rate))
    stalled = not fixed_budget and solver == "torch_lbfgs" and reltol < 1e-5
    lost = not fixed_budget and solver == "scipy_broyden1" and reltol < 1e-5 and model != "mlp"
    spent = not fixed_budget and evaluations > 60
    evaluations = min(evaluations, 60) if spent else evaluations
    relative = rate ** (evaluations - 1)
    bad = stalled or lost or spent
    retcode = (
        "STALLED" if stalled else "NONFINITE" if lost else "MAX_EVALUATIONS" if spent else "SUCCESS"
    )
    if fixed_budget and relative > reltol:
        retcode, bad = "MAX_EVALUATIONS", True
    message = {
        "SUCCESS": "converged",
        "STALLED": "the residual stopped falling: ask for less, or use float64",
        "NONFINITE": "f returned a number that is not finite: try a smaller mixing",
        "MAX_EVALUATIONS": "the budget of 60 evaluations was spent: allow more",
    }[retcode]
    per_evaluation = (2e-5 if model == "mlp" else 6e-4) + overhead
    seconds = evaluations * per_evaluation
    history = {
        "picard": 2 * state,
        "anderson": 22 * state,
        "broyden": 2 * evaluations * state,
    }.get(solver, 12 * state)
    name = None if gradient is None else str(gradient["name"])
    first = math.sqrt(batch * dim)
    trace = {
        "evaluations": [float(k) for k in range(1, evaluations + 1)],
        "seconds": [k * per_evaluation for k in range(1, evaluations + 1)],
        "residual": [first * rate**k for k in range(evaluations)],
        "active": [float(batch)] * evaluations,
    }
    forward = {
        "outer_step": step,
        "phase": "forward",
        "problem": model,
        "solver": solver,
        "iterations": evaluations - 1,
        "evaluations": evaluations,
        "sample_evaluations": evaluations * batch,
        "jvps": {"newton": 64, "newton_krylov": 2}.get(solver, 0) * (evaluations - 1),
        "vjps": 0,
        "history_bytes": history,
        "retcode": retcode,
        "retcodes": {"SUCCESS": batch - 2, retcode: 2} if bad else {"SUCCESS": batch},
        "converged": (batch - 2) / batch if bad else 1.0,
        "message": message,
        "residual_first": first,
        "residual_last": float("nan") if lost else first * relative,
        "residual_relative": float("nan") if lost else relative,
        "seconds": seconds,
        "seconds_q1": None if foreign else seconds * 0.97,
        "seconds_q3": None if foreign else seconds * 1.04,
        "repeats": 1 if foreign else 5,
        "abstol": 0.0,
        "reltol": reltol,
        "norm": "l2",
        "max_evaluations": int(point) if fixed_budget else 100,
        "fixed_budget": fixed_budget,
        "dtype": "float32",
        "device": "cpu",
        "batch": batch,
        "dim": dim,
        "trace": None if solver == "scipy_newton_krylov" else trace,
    }
    unrolled = name == "unrolled"
    products = 8 + 4 * step if not fixed_budget else 18
    floor = 2e-7
    check = {
        "outer_step": step,
        "target": "parameters",
        "method": name,
        "reference": "float64, adjoint to 1e-12",
        "rel_err": float("nan") if lost else (3 * relative if unrolled else relative) + floor,
        "cosine": None if lost else 1 - relative**2 / 2,
        "norm_ratio": 1.0,
        "n": 1000,
        "reltol": reltol,
        "kept_bytes": state * (kept * evaluations if unrolled else kept + 2),
        "history_bytes": history,
        "forward_seconds": seconds * (1.6 if unrolled else 1.0),
        "backward_seconds": seconds * 1.5 if unrolled else products * per_evaluation * 1.8,
        "backward_seconds_q1": seconds * 1.4 if unrolled else products * per_evaluation * 1.7,
        "backward_seconds_q3": seconds * 1.6 if unrolled else products * per_evaluation * 1.9,
        "products": None if unrolled else products,
        "loss": 2.3 + 0.5 * relative + 0.01 * seed,
        "loss_ref": 2.3 + 0.01 * seed,
        "state_err": None if lost else relative,
    }
    return forward, check


GMRES = {"name": "implicit", "solver": {"name": "gmres"}}
ANDERSON = {"name": "implicit", "solver": {"name": "anderson"}}
UNROLLED = {"name": "unrolled"}


def small_study(path: Path) -> Made:
    """Fill a store with the kinds of trials of the study ``compare``, a few of each."""
    made = Made(path)
    some = (1e-2, 1e-4, 1e-6)
    for model, seeds in (("mlp", 2), ("transformer", 1)):
        for seed in range(seeds):
            for solver in ("picard", "anderson", "newton_krylov"):
                for gradient in (GMRES, UNROLLED):
                    made.measured(model, solver, gradient, seed, some)
            for solver in ("scipy_broyden1", "scipy_newton_krylov"):
                made.measured(model, solver, GMRES, seed, some)
            for gradient in (GMRES, UNROLLED):
                made.measured(model, "picard", gradient, seed, (1, 8, 64), fixed_budget=True)
    return made
