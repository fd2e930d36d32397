"""Train a model: any model, any solver, any gradient, with all that it costs on the way.

Every few steps the store gets the loss, the evaluations and products of the forward and the
backward, their convergence, and what was spent so far; now and then the loss of the test split. A
run that is interrupted leaves a checkpoint, from which ``deq resume`` goes on.
"""

from __future__ import annotations

import functools
import inspect
import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

import solvers
from experiments import compare, data
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from experiments.trainer import Trainer
from experiments.trainer import options as sections
from experiments.trainer.networks import check_explicit
from implicit import gradients, models
from implicit.gradients import Checkpointed, Gradient, Implicit, Unrolled
from solvers import OptionError

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class TrainingConfig:
    """What ``training`` does.

    Attributes
    ----------
    model, solver, gradient, data
        Configs of registered things; ``data: null`` takes the model's own. The solver is left aside
        where a model is explicit or says its depth, and where a gradient brings its own iteration.
    data_sha256
        The data's fingerprint; filled in, and checked if given.
    reltol, gradient_error
        Of the solves; ``auto`` chooses what a relative error ``gradient_error`` of the gradient
        needs (null: 1e-2), by the certificate of the step before.
    abstol, norm, max_evaluations, fixed_budget
        As in ``solvers.solve``.
    eval_max_evaluations, eval_reltol
        In evaluations; null: as in training.
    steps, batch
        Steps of the optimiser, and samples in each.
    segments
        Whether the data is read in order and the model remembers the segment before; null: if the
        model remembers and the data goes on from row to row.
    optimiser, schedule
        Configs: ``adam``, ``adamw``, ``sgd``; ``constant``, ``cosine``, ``plateau``.
    clip
        The largest norm of the gradient; null: any.
    pretrain
        ``{steps, depth}``: so many first steps as a network of so many tied layers.
    regularisation
        Null, or the penalty on the Jacobian: ``{weight, probability, growth, every, most, until,
        samples, probes, through}``.
    warm_start
        Start each solve from the last equilibrium: of the row in segments, else of the sample.
    record_every, evaluate_every, eval_batches
        Steps between two points; steps between two evaluations (0: only at the end), on ``valid``
        where the data has it, and batches of each (null: the whole split).
    checkpoint_every, keep_checkpoint
        Steps between two checkpoints (0: only when interrupted); whether it stays at the end.
    measure_memory, measure_radius
        Whether to count the bytes of a step, once; the spectral radius at every record.
    budgets
        Fixed budgets of evaluations to evaluate with at the end.
    target_loss
        Stop at an evaluated loss at or below this.
    device, dtype, autocast, threads
        Where and how precisely; ``threads`` of torch on the CPU.
    seed
        Of weights, batches and everything else.
    """

    model: Config = field(
        default_factory=lambda: {"name": "mlp"}, metadata={"registry": models.registry}
    )
    solver: Config = field(
        default_factory=lambda: {"name": "anderson"}, metadata={"registry": solvers.registry}
    )
    gradient: Config = field(
        default_factory=lambda: {"name": "implicit"}, metadata={"registry": gradients.registry}
    )
    data: Config | None = field(
        default=None, metadata={"registry": data.registry, "optional": True}
    )
    data_sha256: str = ""
    reltol: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = 1e-3
    gradient_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    abstol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    norm: Literal["l2", "rms", "linf"] = "l2"
    max_evaluations: Count = 40
    fixed_budget: bool = False
    eval_max_evaluations: Count | None = None
    eval_reltol: Annotated[float, Field(ge=0, lt=1)] | None = None
    steps: Count = 200
    batch: Count = 32
    segments: bool | None = None
    optimiser: Config = field(
        default_factory=lambda: {"name": "adam"}, metadata={"registry": sections.optimisers}
    )
    schedule: Config = field(
        default_factory=lambda: {"name": "constant"}, metadata={"registry": sections.schedules}
    )
    clip: Positive | None = None
    pretrain: Config = field(
        default_factory=lambda: {"steps": 0, "depth": 2}, metadata={"registry": sections.PRETRAIN}
    )
    regularisation: Config | None = field(
        default=None, metadata={"registry": sections.REGULARISATION, "optional": True}
    )
    warm_start: bool = False
    record_every: Count = 10
    evaluate_every: NotNegative = 0
    eval_batches: Count | None = 8
    checkpoint_every: NotNegative = 0
    keep_checkpoint: bool = False
    measure_memory: bool = True
    measure_radius: bool = False
    budgets: list[Count] = field(default_factory=list)
    target_loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    autocast: Literal["bfloat16"] | None = None
    threads: Count = 1
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields.

        Raises
        ------
        OptionError
            With the field and what is allowed.
        """
        solver = solvers.registry.build(self.solver, "solver")
        gradient = gradients.registry.build(self.gradient, "gradient")
        if "own" not in gradient.requires:
            compare.check_pair(solver, gradient, fixed_budget=self.fixed_budget)
            if self.budgets:
                compare.check_pair(solver, None, fixed_budget=True)
        self._check_tolerance(gradient)
        waits = {
            "schedule.name": self.schedule["name"] == "plateau",
            "target_loss": self.target_loss is not None,
        }
        for name, needed in waits.items():
            if needed and not self.evaluate_every:
                value = self.schedule["name"] if name == "schedule.name" else self.target_loss
                raise OptionError(
                    f"{name} = {value!r}: looks at the evaluated loss, and evaluate_every = 0"
                    " evaluates only at the end; give the steps between two evaluations"
                )
        if self.pretrain["steps"] > self.steps:
            raise OptionError(
                f"pretrain.steps = {self.pretrain['steps']}: these are the first of all"
                f" {self.steps} steps, so there cannot be more"
            )

    def _check_tolerance(self, gradient: Gradient) -> None:
        if self.reltol != "auto":
            if self.gradient_error is not None:
                raise OptionError(
                    f"gradient_error = {self.gradient_error}: is for reltol=auto, and reltol ="
                    f" {self.reltol}"
                )
            return
        if not isinstance(gradient, Implicit) or not gradient.certificate:
            raise OptionError(
                f"reltol = 'auto': follows the certificate, which the gradient '{gradient.name}' as"
                " it is here does not leave; use 'implicit' with its certificate, or give a number"
            )
        if gradient.reltol is not None:
            raise OptionError(
                f"gradient.reltol = {gradient.reltol}: reltol = 'auto' chooses the adjoint's"
                " tolerance too; leave it at null"
            )

    def completed(self) -> TrainingConfig:
        """Return the config with the data that the model wants, and the sizes that it brings."""
        made = compare.with_data(self)
        kind = kind_of(made.model)
        made._check_kind(kind)
        dataset = data.load(kind.data if made.data is None else made.data)
        segments = made.segments
        if segments is None:
            segments = kind.remembers and dataset.ordered
        elif segments and not kind.remembers:
            raise OptionError(
                f"segments = True: the model '{made.model['name']}' as it is here remembers"
                " nothing; leave it at null"
            )
        elif segments:
            dataset.segments("train", made.batch)  # refuses data that does not go on
        return replace(made, segments=segments)

    def _check_kind(self, kind: Kind) -> None:
        gradient = gradients.registry.build(self.gradient, "gradient")
        name = self.model["name"]
        if kind.explicit:
            check_explicit(gradient, cuttable=kind.cuttable)
        if kind.depth is not None and not isinstance(gradient, Unrolled | Checkpointed):
            raise OptionError(
                f"gradient.name = '{gradient.name}': the model '{name}' as it is here has"
                f" {kind.depth} tied layers and no equilibrium; use 'unrolled' or 'checkpointed'"
            )
        wanted = {
            "pretrain.steps": (self.pretrain["steps"], "has no tied layers"),
            "regularisation": (self.regularisation, "has no Jacobian of one cell"),
            "budgets": (self.budgets, "takes as many evaluations as it has layers"),
            "measure_radius": (self.measure_radius, "has no Jacobian of one cell"),
            "warm_start": (self.warm_start, "starts at its own beginning"),
        }
        for field_, (value, why) in wanted.items():
            no = kind.explicit or (field_ == "warm_start" and kind.depth is not None)
            if value and no:
                raise OptionError(
                    f"{field_} = {value!r}: the model '{name}' as it is here is no equilibrium and"
                    f" {why}; leave it out"
                )


@dataclass(frozen=True)
class Kind:
    """What a model is, apart from its weights.

    Attributes
    ----------
    explicit, depth
        Whether it gives z at once; how many tied layers it has, if it is no equilibrium.
    remembers
        Whether a segment leaves something to the next one.
    cuttable
        Whether an explicit cell can be cut into segments for checkpoints.
    data
        Its own data.
    """

    explicit: bool
    depth: int | None
    remembers: bool
    cuttable: bool
    data: Any


def kind_of(config: Config) -> Kind:
    """Return what the model of a complete config is."""
    if ":" in str(config["name"]):  # a user's, which may be another one the next time
        return _kind(config)
    return _known_kind(json.dumps(dict(config), sort_keys=True))


@functools.lru_cache(maxsize=256)
def _known_kind(config: str) -> Kind:
    return _kind(json.loads(config))


def _kind(config: Config) -> Kind:
    """Build the model, without numbers where it can be, and look at it."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = models.registry.build(config, "model")
        except (RuntimeError, NotImplementedError):  # it computes while it is built
            model = models.registry.build(config, "model")
    return Kind(
        model.explicit,
        None if model.explicit else model.depth,
        model.remember is not None,
        "segments" in inspect.signature(model.cell.forward).parameters,
        model.data,
    )


def main(config: TrainingConfig, recorder: Recorder) -> dict[str, float]:
    """Train; the result is what a person looks at first."""
    return Trainer(config, recorder).run()


experiment = define(TrainingConfig, main, "training")

if __name__ == "__main__":
    command_line(experiment)
