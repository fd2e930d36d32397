"""The rows of the store, joined and labelled for a page: everything drawn comes from here.

A *point* is one measured solve: one row of ``v_solves`` with ``phase = forward``, with the gradient
measured behind it (``v_gradients``) when there is one.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from db import Store, StoreError
from experiments.report import labels
from experiments.report.words import missing

_SOLVE_COLUMNS = [
    "solve_id",
    "run_id",
    "seed",
    "outer_step",
    "phase",
    "site",
    "problem",
    "solver",
    "options",
    "iterations",
    "evaluations",
    "sample_evaluations",
    "jvps",
    "vjps",
    "syncs",
    "history_bytes",
    "retcode",
    "retcodes",
    "converged",
    "message",
    "residual_first",
    "residual_last",
    "residual_relative",
    "seconds",
    "seconds_q1",
    "seconds_q3",
    "repeats",
    "abstol",
    "reltol",
    "norm",
    "max_evaluations",
    "fixed_budget",
    "dtype",
    "device",
    "batch",
    "dim",
    "extra",
]
_GRADIENT_COLUMNS = [
    "gradient_id",
    "solve_id",
    "target",
    "gradient",
    "reference",
    "rel_err",
    "cosine",
    "norm_ratio",
    "kept_bytes",
    "history_bytes",
    "forward_seconds",
    "forward_seconds_q1",
    "forward_seconds_q3",
    "backward_seconds",
    "backward_seconds_q1",
    "backward_seconds_q3",
    "products",
    "loss",
    "loss_ref",
    "state_err",
    "adjoint_retcode",
    "adjoint_converged",
    "adjoint_message",
]
_RUN_COLUMNS = [
    "id",
    "uuid",
    "experiment",
    "study",
    "trial",
    "status",
    "started_at",
    "stopped_at",
    "seconds",
    "seed",
    "model",
    "solver",
    "gradient",
    "adjoint",
    "data",
    "train_steps",
    "dtype",
    "device",
    "threads",
    "config_hash",
    "fail_type",
    "fail_message",
    "host",
    "python",
    "torch",
    "cpu",
    "gpu",
]


@dataclass(frozen=True)
class Frames:
    """What a page is written from.

    Attributes
    ----------
    study
        The study's name, as asked for.
    where
        The condition that selected the runs, or None for all runs of the study.
    runs
        Rows of ``v_runs``, the newest attempt of each trial.
    points
        One row a measured point: see the module. Besides the columns of the views: ``case``,
        ``solver`` and ``gradient`` (labels), ``solver_name`` and ``method`` (bare names), ``met``
        (every sample converged).
    superseded
        How many earlier attempts of the same trials were left out.
    store
        For the traces, which are read only where they are drawn.
    """

    study: str
    where: str | None
    runs: pd.DataFrame
    points: pd.DataFrame
    superseded: int
    store: Store

    def only(self, experiment: str) -> Frames:
        """Return the same with the runs of one experiment."""
        runs = self.runs[self.runs["experiment"] == experiment]
        points = self.points[self.points["run_id"].isin(runs["id"])]
        return replace(self, runs=runs, points=points)

    def configs(self) -> dict[int, dict[str, Any]]:
        """Return the whole config of each run, with dotted keys, by its number."""
        return {run: dict(flat) for run, flat in _configs(self.runs, self.store).items()}

    def results(self) -> dict[int, dict[str, float]]:
        """Return what each run returned, by its number; nothing for one that did not complete."""
        found: dict[int, dict[str, float]] = {}
        for run in self.runs["id"]:
            result = self.store.run(int(run))["result"]
            found[int(run)] = dict(result) if isinstance(result, Mapping) else {}
        return found

    def series(self, *names: str) -> pd.DataFrame:
        """Return points of the runs' series, of these names or of all: run_id, name, step, value.

        In the order in which they were logged; ``value`` may be nan or infinite.
        """
        runs = self.runs["id"]
        span = f"run_id >= {runs.min()} and run_id <= {runs.max()}"
        frame = self.store.series(span.replace("run_id", "id"), names or None)
        frame = frame[frame["run_id"].isin(runs)]
        return frame[["run_id", "name", "step", "value"]].reset_index(drop=True)

    def beside(self, *studies: str) -> Frames:
        """Return the frames with the runs of other studies too, as far as the store has any."""
        both = [self]
        for study in studies:
            with contextlib.suppress(StoreError):
                both.append(load(study, self.store))
        runs = pd.concat([frames.runs for frames in both], ignore_index=True)
        points = pd.concat([frames.points for frames in both], ignore_index=True)
        first = ~runs.duplicated("id")
        return replace(
            self,
            runs=runs[first].reset_index(drop=True),
            points=points.drop_duplicates("solve_id").reset_index(drop=True),
            superseded=sum(frames.superseded for frames in both),
        )

    def traces(self, solve_ids: Iterable[int]) -> pd.DataFrame:
        """Return the traces of these solves: solve_id, evaluations, seconds, residual, active."""
        columns = ["solve_id", "evaluations", "seconds", "residual", "active"]
        ids = [int(solve) for solve in solve_ids]
        frame = self.store.traces(ids) if ids else pd.DataFrame()
        return frame.reindex(columns=columns)


def load(study: str, store: Store, where: str | None = None) -> Frames:
    """Read what a report needs: the runs of a study, or those that ``where`` selects.

    Raises
    ------
    StoreError
        If no run is selected, or ``where`` is not understood.
    """
    quoted = study.replace('"', '""')
    runs = store.runs(where or f'study = "{quoted}"')
    if runs.empty:
        raise StoreError(_nothing(study, store, where))
    runs = _plain(runs, _RUN_COLUMNS)
    newest = _newest_attempts(runs)
    span = f"run_id >= {newest['id'].min()} and run_id <= {newest['id'].max()}"
    solves = _plain(store.solves(span), _SOLVE_COLUMNS)
    gradients = _plain(store.gradients(span), _GRADIENT_COLUMNS)
    points = _points(newest, solves, gradients, _configs(newest, store))
    return Frames(study, where, newest, points, len(runs) - len(newest), store)


def as_mapping(value: object) -> dict[str, Any]:
    """Return a JSON column's cell as a mapping, an empty one when there is none."""
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value) if isinstance(value, Mapping) else {}


def _nothing(study: str, store: Store, where: str | None) -> str:
    if where:
        return f"no run fits the filter {where!r}: `deq runs ls` shows what the store holds"
    known = sorted({str(s) for s in store.runs()["study"].dropna()})
    if not known:
        return f"the store {store!r} has no run of a study yet: `deq study {study}` makes some"
    close = difflib.get_close_matches(study, known, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"the store has no run of the study {study!r}: {guess}It has {', '.join(known)};"
        f" `deq study {study}` makes runs, --where selects others"
    )


def _plain(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return these columns, with one kind of missing number: NaN."""
    frame = frame.reindex(columns=columns)
    for column in frame.columns:
        if str(frame[column].dtype) in ("Int64", "boolean"):
            frame[column] = frame[column].astype("Float64").astype("float64")
    return frame


def _newest_attempts(runs: pd.DataFrame) -> pd.DataFrame:
    runs = runs.sort_values("id", kind="stable").reset_index(drop=True)
    again = runs.duplicated(["study", "trial"], keep="last") & runs["trial"].notna()
    return runs[~again].reset_index(drop=True)


def _configs(runs: pd.DataFrame, store: Store) -> dict[int, labels.Flat]:
    """Return each run's flat config; replicates of one config are read once."""
    read: dict[str, labels.Flat] = {}
    found = {}
    for run, key in zip(runs["id"], runs["config_hash"], strict=True):
        name = f"run {run}" if missing(key) else str(key)
        if name not in read:
            read[name] = labels.flat(store.config(int(run)))
        found[int(run)] = read[name]
    return found


def _points(
    runs: pd.DataFrame,
    solves: pd.DataFrame,
    gradients: pd.DataFrame,
    configs: Mapping[int, labels.Flat],
) -> pd.DataFrame:
    solves = solves[(solves["phase"] == "forward") & solves["run_id"].isin(runs["id"])]
    whole = gradients["target"].isna() | (gradients["target"] == "parameters")
    gradients = gradients[whole & gradients["solve_id"].notna()].drop_duplicates("solve_id")
    gradients = gradients.rename(
        columns={"gradient": "method", "history_bytes": "gradient_history_bytes"}
    )
    points = solves.merge(gradients.drop(columns="target"), on="solve_id", how="left")
    own = runs[["id", "experiment", "status", "model", "data", "train_steps", "dtype", "threads"]]
    own = own.rename(columns={"id": "run_id", "dtype": "run_dtype"})
    points = points.merge(own, on="run_id", how="left")
    points["dtype"] = points["run_dtype"].where(points["run_dtype"].notna(), points["dtype"])
    points["history_bytes"] = points["history_bytes"].fillna(points["gradient_history_bytes"])
    points["fixed_budget"] = points["fixed_budget"].fillna(0.0) > 0
    points["met"] = points["converged"].fillna(0.0) >= 1.0
    known = points.dropna(subset=["device"])
    devices = {int(k): str(v) for k, v in zip(known["run_id"], known["device"], strict=True)}
    for column, named in (
        ("case", labels.case_labels(configs, devices)),
        ("solver", labels.solver_labels(configs)),
        ("gradient", labels.gradient_labels(configs)),
    ):
        points[column] = [named[int(run)] for run in points["run_id"]]
    points["solver_name"] = [labels.base_name(label) for label in points["solver"]]
    return points.sort_values("solve_id", kind="stable").reset_index(drop=True)
