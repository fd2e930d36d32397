"""Optimisers, schedules, and the parts of a training's config: dataclasses of checked options."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import torch
from pydantic import Field
from torch import nn

import implicit
from solvers.options import OptionError, Options, as_config, unknown
from solvers.registries import Registry

__all__ = [
    "PRETRAIN", "REGULARISATION", "Optimiser", "Pretrain", "Rate", "Regularisation", "Schedule",
    "Section", "optimisers", "schedules",
]  # fmt: skip

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(ge=0)]
AnyOptions = TypeVar("AnyOptions", bound=Options)


class Section(Generic[AnyOptions]):
    """A part of a config that has no name of its own: the fields of one class of options."""

    def __init__(self, options: type[AnyOptions]) -> None:
        self._options = options

    def build(self, config: Mapping[str, Any], path: str = "") -> AnyOptions:
        """Build the options.

        Raises
        ------
        OptionError
            With the path, the value, what is allowed and the closest match.
        """
        fields = [f.name for f in dataclasses.fields(self._options)]  # type: ignore[arg-type]
        if not isinstance(config, Mapping):
            raise OptionError(f"{path} = {config!r}: expected a mapping of {', '.join(fields)}")
        for key in config:
            if key not in fields:
                raise unknown("option", key, fields, path=f"{path}.{key}")
        try:
            return self._options(**config)
        except OptionError as error:
            raise OptionError(f"{path}.{error}") from None

    def complete(self, config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """Return the config with every option; see :func:`build`."""
        complete: dict[str, Any] = as_config(self.build(config, path))
        return complete


# -- optimisers -----------------------------------------------------------------------------------


class Optimiser(Options, abc.ABC):
    """How the weights move; ``learning_rate`` is that of a schedule at 1."""

    name: ClassVar[str] = ""
    learning_rate: float

    @abc.abstractmethod
    def on(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam; the weight decay is added to the gradient.

    Parameters
    ----------
    learning_rate, weight_decay, beta1, beta2, eps
        As in ``torch.optim.Adam``.
    """

    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8

    name: ClassVar[str] = "adam"
    reference: ClassVar[str] = "Kingma & Ba 2015"

    def on(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.Adam(parameters, self.learning_rate, (self.beta1, self.beta2), self.eps,
                                self.weight_decay)  # fmt: skip


@dataclass(frozen=True)
class AdamW(Optimiser):
    """Adam; the weight decay acts on the weights themselves.

    Parameters
    ----------
    learning_rate, weight_decay, beta1, beta2, eps
        As in ``torch.optim.AdamW``.
    """

    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-2
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8

    name: ClassVar[str] = "adamw"
    reference: ClassVar[str] = "Loshchilov & Hutter 2019"

    def on(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.AdamW(parameters, self.learning_rate, (self.beta1, self.beta2), self.eps,
                                 self.weight_decay)  # fmt: skip


@dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent, with momentum if it is above 0.

    Parameters
    ----------
    learning_rate, weight_decay, momentum, nesterov
        As in ``torch.optim.SGD``.
    """

    learning_rate: Positive = 1e-2
    weight_decay: NotNegative = 0.0
    momentum: Share = 0.0
    nesterov: bool = False

    name: ClassVar[str] = "sgd"
    reference: ClassVar[str] = "Robbins & Monro 1951; Polyak 1964"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise OptionError("nesterov = True: is a kind of momentum, so momentum must be above 0")

    def on(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


optimisers: Registry[Optimiser] = Registry("optimiser")
for _optimiser in (Adam, AdamW, SGD):
    optimisers.register(_optimiser.name, _optimiser)


# -- schedules ------------------------------------------------------------------------------------


class Schedule(Options, abc.ABC):
    """How the learning rate changes: a factor for each step, from 0 to 1."""

    name: ClassVar[str] = ""
    warmup: int

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of a step, from 0, of so many."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.after((step - self.warmup) / max(1, steps - self.warmup))

    def after(self, share: float) -> float:
        """Return the factor when so much of the steps after the warm-up is done."""
        return 1.0


@dataclass(frozen=True)
class Constant(Schedule):
    """The same all the time.

    Parameters
    ----------
    warmup
        Steps in which the rate grows linearly before.
    """

    warmup: Steps = 0

    name: ClassVar[str] = "constant"


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``least``.

    Parameters
    ----------
    warmup
        Steps in which the rate grows linearly before.
    least
        The factor at the end.
    """

    warmup: Steps = 0
    least: Annotated[float, Field(ge=0, le=1)] = 0.0

    name: ClassVar[str] = "cosine"
    reference: ClassVar[str] = "Loshchilov & Hutter 2017"

    def after(self, share: float) -> float:
        """Return the factor when so much of the steps after the warm-up is done."""
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * min(1.0, share))) / 2


@dataclass(frozen=True)
class Plateau(Schedule):
    """Lowered by ``factor`` each time the evaluated loss has not fallen ``patience`` times.

    Parameters
    ----------
    warmup
        Steps in which the rate grows linearly before.
    lower
        What the rate is multiplied with.
    patience
        Evaluations without a loss below the least so far.
    least
        The factor below which it does not go.
    """

    warmup: Steps = 0
    lower: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=1)] = 2
    least: Annotated[float, Field(ge=0, le=1)] = 1e-3

    name: ClassVar[str] = "plateau"


schedules: Registry[Schedule] = Registry("schedule")
for _schedule in (Constant, Cosine, Plateau):
    schedules.register(_schedule.name, _schedule)


class Rate:
    """The learning rate of each step: a schedule, and what it remembers of the evaluations."""

    def __init__(self, schedule: Schedule, steps: int) -> None:
        self._schedule, self._steps = schedule, steps
        self._lowered, self._best, self._waited = 1.0, math.inf, 0

    def __call__(self, step: int) -> float:
        """Return the factor of a step, from 0."""
        return self._lowered * self._schedule.factor(step, self._steps)

    def heard(self, loss: float) -> None:
        """Take note of an evaluated loss."""
        if not isinstance(self._schedule, Plateau):
            return
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited >= self._schedule.patience:
            self._lowered = max(self._schedule.least, self._lowered * self._schedule.lower)
            self._waited = 0

    def state(self) -> list[float]:
        """Return what :meth:`restore` needs."""
        return [self._lowered, self._best, float(self._waited)]

    def restore(self, state: list[float]) -> None:
        """Go on from where :meth:`state` was."""
        self._lowered, self._best, self._waited = state[0], state[1], int(state[2])


# -- parts without a name -------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretrain(Options):
    """Shallow pre-training: a network of a few tied layers, whose gradient goes through them.

    Bai et al. (2019), appendix D: an equilibrium is found more easily by weights that have learnt
    a little.

    Parameters
    ----------
    steps
        So many of the steps, the first ones.
    depth
        The tied layers: evaluations of the cell.
    """

    steps: Steps = 0
    depth: Annotated[int, Field(ge=1)] = 2


@dataclass(frozen=True)
class Regularisation(Options):
    """The penalty on the Jacobian (:class:`implicit.JacobianRegularisation`), and how it grows.

    Parameters
    ----------
    weight
        Of the first steps.
    probability, samples, probes, through
        As in :class:`implicit.JacobianRegularisation`.
    growth, every, most, until
        As in :class:`implicit.LinearGrowth`; ``most`` null is without a bound.
    """

    weight: NotNegative = 1.0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    growth: NotNegative = 0.0
    every: Annotated[int, Field(ge=1)] = 1
    most: NotNegative | None = None
    until: Steps | None = None
    samples: Annotated[int, Field(ge=1)] = 1
    probes: implicit.jacobian.Probes = "normal"
    through: bool = False

    def made(self, seed: int) -> implicit.JacobianRegularisation:
        """Return the regularisation, which draws the steps by this seed."""
        most = math.inf if self.most is None else self.most
        return implicit.JacobianRegularisation(
            implicit.LinearGrowth(self.weight, self.growth, self.every, most, self.until),
            self.probability,
            self.samples,
            self.probes,
            self.through,
            seed,
        )


PRETRAIN = Section(Pretrain)
REGULARISATION = Section(Regularisation)
