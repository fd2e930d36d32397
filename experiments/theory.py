"""Measure what theory says of equilibrium models, one claim a trial.

``universality``: a network of L layers is one weight-tied block, whose Jacobian is nilpotent.
``stacking``: two equilibria in sequence are one. ``depth``: a weight-tied network tends to its
equilibrium as it gets deeper, at the rate of the spectral radius. ``injection``: without it the
input is forgotten. All in float64 on the CPU, by :mod:`implicit.theory`; nothing is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

import implicit
from experiments import compare, data, references
from experiments.compare import CompareConfig
from experiments.radii import prescribed
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from implicit import models, theory
from solvers import Anderson, Broyden, Newton, NewtonKrylov, OptionError, Picard, Solution

Count = Annotated[int, Field(ge=1)]
Claim = Literal["universality", "stacking", "depth", "injection"]
# A window as long as any solve here: what a method forgets is no part of a claim.
WINDOW = 50
INPUTS = 8
# Of the input of an equilibrium that is stacked: weak, so that tanh takes little off the radius.
STRENGTH = 0.2
# How much deeper each network is than the one before.
DEEPER = 1.25


@dataclass(frozen=True)
class TheoryConfig:
    """What ``theory`` measures.

    Attributes
    ----------
    claim
        One of the four.
    depth
        ``universality``: layers of the network; ``depth``: those of the deepest network;
        ``injection``: steps. ``stacking`` has none.
    width
        Of each layer of a network, and of each of the two states.
    gain
        ``universality``: weights are N(0, gain² / inputs).
    activation
        ``universality``: tanh, relu or sigmoid.
    contraction
        ``stacking``, ``injection``: ‖W‖₂ of z ↦ tanh(W z + …), below 1.
    second
        ``stacking``: that of the second equilibrium.
    model, data, data_sha256, train_steps, learning_rate
        ``depth``: any model on a batch, trained or not, as in ``compare``.
    radius
        ``depth``: the spectral radius to which the cell's matrices are scaled, the largest of the
        batch; ``null`` leaves the model as it is.
    batch
        Samples.
    threads
        Of torch.
    seed
        Of weights and inputs.
    """

    claim: Claim = "universality"
    depth: Count = 8
    width: Count = 12
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.5
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh"
    contraction: Annotated[float, Field(gt=0, lt=1)] = 0.9
    second: Annotated[float, Field(gt=0, lt=1)] = 0.8
    model: Config = field(
        default_factory=lambda: {"name": "mlp"}, metadata={"registry": models.registry}
    )
    data: Config | None = field(
        default=None, metadata={"registry": data.registry, "optional": True}
    )
    data_sha256: str = ""
    train_steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    batch: Annotated[int, Field(ge=2)] = 4
    threads: Count = 1
    seed: Seed = 0

    def completed(self) -> TheoryConfig:
        """Return the config with the data that the model wants, and the sizes that it brings."""
        return compare.on_its_data(self, self.as_compare)

    @property
    def as_compare(self) -> CompareConfig:
        """The same model and batch, as ``compare`` prepares them."""
        return compare.as_compare(self, device="cpu")


class Book:
    """Records what is measured of one claim."""

    def __init__(self, recorder: Recorder, config: TheoryConfig) -> None:
        self._recorder, self._config = recorder, config

    def solve(self, solution: Solution, **extra: object) -> int:
        """Record a solve, with what is known of it beside."""
        return self._recorder.solve(
            solution, trace=None, extra={"claim": self._config.claim, **extra}
        )

    def gradient(self, rel_err: float, **row: object) -> None:
        """Record a gradient's error."""
        self._recorder.gradient(target="parameters", rel_err=rel_err, dtype="float64", **row)

    def series(self, name: str, values: Iterable[float] | Tensor, first: int = 0) -> None:
        """Record a curve, whose steps count from ``first``."""
        numbers = values.tolist() if isinstance(values, Tensor) else values
        for step, value in enumerate(numbers, first):
            self._recorder.scalar(name, float(value), step)


def _inputs(config: TheoryConfig, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(config.seed + 1)
    return torch.randn(config.batch, size, generator=generator, dtype=torch.float64)


def universality(config: TheoryConfig, book: Book) -> dict[str, float]:
    """Measure that a random network is one block."""
    widths = [INPUTS, *[config.width] * config.depth]
    network = theory.Network(
        widths, gain=config.gain, activation=config.activation, seed=config.seed
    )
    others = (Newton(), NewtonKrylov(), Broyden(), Anderson(window=WINDOW))
    found = theory.universality(network, _inputs(config, INPUTS), others=others, seed=config.seed)
    for k in range(config.depth):
        book.series(f"layer {k + 1}", found.layer_errors[:, k])
    book.series("power", found.powers)
    book.series("neumann", found.neumann, first=1)
    norm = float(found.powers[1])
    for name, solution in found.solves.items():
        book.solve(solution, depth=config.depth, radius=found.radius, norm=norm, solver=name)
    adjoint = book.solve(found.adjoint, depth=config.depth)
    book.gradient(
        found.implicit,
        method="implicit",
        options={"solver": "gmres"},
        adjoint_ord=adjoint,
        products=found.adjoint.stats.vjps,
        reference="backpropagation through the network",
        extra={"claim": config.claim, "depth": config.depth, "norm": norm},
    )
    return {
        "error": float(found.layer_errors[-1].amax()),
        "picard": float(found.solves["picard"].stats.evaluations),
        "products": float(found.adjoint.stats.vjps),
        "norm": norm,
    }


class Cell(nn.Module):
    """z ↦ tanh(r Q z + s x), with Q orthogonal: all eigenvalues are near a circle of radius r."""

    def __init__(self, width: int, contraction: float, seed: int) -> None:
        super().__init__()
        Q = torch.linalg.qr(theory.contracting(width, 1.0, seed)).Q
        self.W = nn.Parameter(contraction * Q)
        self.s = nn.Parameter(torch.full((width,), STRENGTH, dtype=torch.float64))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the next state (B, width)."""
        return torch.tanh(nn.functional.linear(z, self.W) + self.s * x)


def stacking(config: TheoryConfig, book: Book) -> dict[str, float]:
    """Measure that two equilibria in sequence are the joint one."""
    seed = 10 * config.seed
    cells = (
        Cell(config.width, config.contraction, seed),
        Cell(config.width, config.second, seed + 1),
    )
    x = _inputs(config, config.width)
    found = theory.stacking(
        *cells,
        x,
        (torch.zeros_like(x), torch.zeros_like(x)),
        (Picard(), Anderson(window=WINDOW), Broyden(), NewtonKrylov()),
        seed=config.seed,
    )
    first, second, joint = found.radii
    radius = {"first": first, "second": second, "joint": joint}
    for name, part in found.by_solver.items():
        for which in ("first", "second", "joint"):
            solution = getattr(part, which)
            ord_ = book.solve(solution, part=which, solver=name, radius=radius[which])
        book.gradient(
            part.gradient,
            method="implicit",
            state_err=part.state,
            solve_ord=ord_,
            reference="the two equilibria in sequence",
            extra={"claim": config.claim, "solver": name, "radius": radius},
        )
    parts = found.by_solver.values()
    return {
        "state": max(p.state for p in parts),
        "gradient": max(p.gradient for p in parts),
        "radius": abs(joint - max(first, second)),
    }


def depth(config: TheoryConfig, book: Book) -> dict[str, float]:
    """Measure how a weight-tied network tends to its equilibrium.

    Raises
    ------
    OptionError
        If no factor on the cell's matrices gives the radius.
    """
    bench = compare.prepare(config.as_compare)
    model, x, name = bench.model, bench.x, bench.name
    if config.radius is not None:
        scaled = prescribed(model, x, name, config.radius)
        if scaled is None:
            raise OptionError(
                f"radius = {config.radius}: no factor on the matrices of '{name}' gives it; take"
                " another, or null for the model as it is"
            )
        model = scaled
    given = references.problem(references.double(model), references.wide(x), name)
    depths, layers = [config.depth], config.depth / DEEPER
    while layers >= 1:
        depths.append(round(layers))
        layers /= DEEPER
    depths = sorted(set(depths))
    with warnings.catch_warnings():
        # A network of few layers is far from where its adjoint would be meant.
        warnings.simplefilter("ignore", implicit.AdjointWarning)
        found = theory.infinite_depth(given, depths, seed=config.seed)
    steps, errors = found.steps.tolist(), found.gradients.tolist()
    ord_ = book.solve(
        found.equilibrium,
        radius=found.radius,
        layers=config.depth,
        step_rate=theory.rate(range(len(steps)), steps),
        gradient_rate=theory.rate(depths, errors),
        step_last=steps[-1],
        gradient_last=errors[-1],
    )
    book.series("step", found.steps)
    book.series("error", found.errors)
    for layers, error in zip(depths, errors, strict=True):
        book.gradient(
            error,
            method="unrolled",
            options={"max_evaluations": layers},
            solve_ord=ord_ if layers == config.depth else None,
            reference="the gradient of the equilibrium",
            extra={"claim": config.claim, "depth": layers, "radius": found.radius},
        )
    return {
        "radius": found.radius,
        "step": float(found.steps[-1]),
        "gradient": float(found.gradients[-1]),
    }


def injection(config: TheoryConfig, book: Book, recorder: Recorder) -> dict[str, float]:
    """Measure how much of the input is left, with injection and without."""
    with recorder.observing(trace=None, extra={"claim": config.claim}):
        found = theory.injection(
            _inputs(config, config.width),
            depth=config.depth,
            contraction=config.contraction,
            seed=config.seed,
        )
    for name, variance in found.variance.items():
        book.series(f"variance, {name}", variance)
    facts: Mapping[str, Mapping[str, float]] = {
        "limit": found.limits,
        "gradient": found.gradients,
    }
    for what, values in facts.items():
        for name, value in values.items():
            recorder.scalar(f"{what}, {name}", value)
    return {f"limit_{name}": value for name, value in found.limits.items()}


def main(config: TheoryConfig, recorder: Recorder) -> dict[str, float]:
    """Measure the claim; the result is what one would look at first."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    book = Book(recorder, config)
    if config.claim == "injection":
        return injection(config, book, recorder)
    measures: dict[str, Callable[[TheoryConfig, Book], dict[str, float]]] = {
        "universality": universality,
        "stacking": stacking,
        "depth": depth,
    }
    return measures[config.claim](config, book)


experiment = define(TheoryConfig, main, "theory")

if __name__ == "__main__":
    command_line(experiment)
