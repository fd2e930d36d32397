"""Measure every gradient of an equilibrium against a float64 reference, slice by slice.

A trial is one model, fresh or trained, at one or more spectral radii. Each slice varies one thing
and keeps the rest: the two tolerances, the products of the adjoint, the estimator, the precision,
the scale of the loss, the solver that found z*, the preconditioner, the clock.
"""

from __future__ import annotations

import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

import implicit
import solvers
from experiments import compare, data, references
from experiments.compare import CompareConfig, quartiles, timed
from experiments.radii import Radii, prescribed, radii
from experiments.references import Reference
from experiments.runner.commandline import command_line
from experiments.runner.config import Config, Device, Seed
from experiments.runner.recording import Recorder
from experiments.runner.recording import experiment as define
from implicit import models
from implicit.gradients import Gradient, Implicit, registry
from implicit.models import Model
from solvers import BaseSolver, OptionError, Solution, linear
from solvers.problem import Layout

Tolerance = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["float64", "float32", "bfloat16"]
Slice = Literal[
    "exact",
    "tolerances",
    "products",
    "estimators",
    "precision",
    "loss_scale",
    "solvers",
    "precondition",
    "cost",
]
SLICES: tuple[Slice, ...] = (
    "exact", "tolerances", "products", "estimators", "precision", "loss_scale", "solvers",
    "precondition", "cost",
)  # fmt: skip

# The tightest tolerance that a slice asks of each precision, and an everyday one.
TIGHTEST: dict[Precision, int] = {"float64": 11, "float32": 6, "bfloat16": 2}
EVERYDAY: dict[Precision, float] = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1e-2}
AS_EXACT: dict[Precision, tuple[float, ...]] = {
    "float64": (1e-13,),
    "float32": (),
    "bfloat16": (),
}
TIGHT = 1e-12
BUDGETS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 50)
SCALES = (1e-12, 1e-6, 1.0, 1e6, 1e12)
# Beyond this distance from the reference a solve may have found another equilibrium, if that is
# not so many times its residual.
ELSEWHERE = 0.1
FAR = 100.0
# The second forward tolerance of the slice ``precondition``, relative to the first.
TIGHTER = 1e-2
# More than any adjoint here takes.
PRODUCTS = 1000
# Seconds that one solver may take in the slice ``solvers``.
PATIENCE = 0.5
# Evaluations from which the reversible iteration can go back at its usual mixing: 16 pairs.
REVERSIBLE = 32
# Beside every registered gradient as it is.
VARIANTS: tuple[Config, ...] = (
    {"name": "implicit", "precondition": "forward"},
    {"name": "neumann", "terms": 20},
    {"name": "shine", "fallback": False},
    {"name": "unrolled", "last": 5},
)
BASELINE = "jacobian_free"
# Options of `Implicit` by which a slice asks what it asks.
SETTLED = ("on_failure", "max_products", "reltol")
# Options that say how many products a gradient takes.
BUDGETED = ("terms", "steps", "last", "refine")


@dataclass(frozen=True)
class GradientsConfig:
    """What ``gradients`` measures.

    Attributes
    ----------
    measure
        The slices, in this order: ``exact``: `Implicit` to 1e-12, and central differences;
        ``tolerances``: error by forward and adjoint tolerance; ``products``: error by products;
        ``estimators``: every gradient at one tolerance; ``precision``: the same by dtype;
        ``loss_scale``: by the scale of the loss; ``solvers``: `Implicit` behind every solver;
        ``precondition``: products with and without the forward's inverse; ``cost``: seconds of a
        training step.
    model, data, data_sha256
        As in ``compare``: any model, a user's included.
    solver
        The forward solver of all slices but ``solvers`` and ``precondition``.
    gradients
        Configs of the gradients of ``estimators``, ``precision``, ``loss_scale`` and ``cost``;
        ``[]`` is filled with every registered one and some variants.
    radius
        Spectral radii of the Jacobian at the equilibrium, the largest of the batch, to which the
        cell's matrices are scaled; ``null`` is the model as it is. One that no factor gives is left
        out, and said.
    reltol
        Of forward and adjoint in ``estimators``, ``loss_scale``, ``solvers``, ``precondition``.
    step_reltol
        Of both in ``cost``.
    precisions
        Of ``tolerances`` and ``precision``; ``bfloat16`` is float32 under autocast.
    max_evaluations
        The budget of each forward solve.
    batch
        Samples.
    train_steps, learning_rate
        Steps of Adam before the measurement, by the default solver and the implicit gradient.
    rounds, round_seconds
        Timed training steps of each gradient in ``cost``, at most; no round starts after so many
        seconds, five apart.
    device, threads
        Where; ``threads`` of torch on the CPU.
    seed
        Of weights and batches.
    """

    measure: list[Slice] = field(default_factory=lambda: list(SLICES))
    model: Config = field(
        default_factory=lambda: {"name": "mlp"}, metadata={"registry": models.registry}
    )
    data: Config | None = field(
        default=None, metadata={"registry": data.registry, "optional": True}
    )
    data_sha256: str = ""
    solver: Config = field(
        default_factory=lambda: {"name": "broyden"}, metadata={"registry": solvers.registry}
    )
    gradients: list[Any] = field(default_factory=list)
    radius: list[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None] = field(
        default_factory=lambda: [None]
    )
    reltol: Tolerance = 1e-6
    step_reltol: Tolerance = 1e-3
    precisions: list[Precision] = field(
        default_factory=lambda: cast(list[Precision], list(EVERYDAY))
    )
    max_evaluations: Count = 400
    batch: Count = 4
    train_steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    rounds: Count = 20
    round_seconds: Annotated[float, Field(gt=0)] = 15.0
    device: Device = "auto"
    threads: Count = 1
    seed: Seed = 0

    def check(self) -> None:
        """Check what concerns several fields.

        Raises
        ------
        OptionError
            With the field and what is allowed.
        """
        for name in ("measure", "radius", "precisions"):
            given = getattr(self, name)
            if not given:
                raise OptionError(f"{name} = []: expected one entry or more")
            if len(set(given)) < len(given):
                raise OptionError(f"{name} = {given}: an entry is there twice")
        solver = solvers.registry.build(self.solver, "solver")
        if not isinstance(solver, solvers.Solver):
            raise OptionError(
                f"solver.name = '{solver.name}': most gradients need a native solver, whose steps"
                f" can be differentiated (allowed: {', '.join(native())})"
            )
        _completed(self.gradients)

    def completed(self) -> GradientsConfig:
        """Return the config with the model's data and sizes, and all options of the gradients."""
        found = compare.on_its_data(self, self.as_compare)
        return replace(found, gradients=_completed(self.gradients))

    @property
    def as_compare(self) -> CompareConfig:
        """The same model and batch, as ``compare`` prepares them."""
        return compare.as_compare(self)


def native() -> list[str]:
    """Return the names of the solvers whose steps can be differentiated."""
    return [name for name in solvers.registry.names() if _is_native(name)]


def _is_native(name: str) -> bool:
    entry = solvers.registry.describe(name)
    return isinstance(solvers.registry.get(entry.name), solvers.Solver)


def _completed(configs: Sequence[Any]) -> list[Config]:
    given = list(configs) or [
        *({"name": name} for name in registry.names()),
        *(v for v in VARIANTS if v["name"] in registry.names()),
    ]
    found = [registry.complete(g, f"gradients[{k}]") for k, g in enumerate(given)]
    return [cast(Config, json.loads(text)) for text in dict.fromkeys(map(json.dumps, found))]


def label(gradient: Gradient, *, without: Sequence[str] = ()) -> str:
    """Return a gradient's name, with the options in which it differs from its defaults.

    The options ``without``, and those that a slice settles, are left out.
    """
    mine, usual = _flat(solvers.as_config(gradient)), _flat(solvers.as_config(type(gradient)()))
    told = [
        f"{key.removesuffix('.name')}={value}"
        for key, value in mine.items()
        if key not in (*SETTLED, *without) and usual.get(key, value) != value
    ]
    return f"{gradient.name} ({', '.join(told)})" if told else gradient.name


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


@dataclass(frozen=True)
class Subject:
    """A model on a batch in one precision, with what is known of its equilibrium.

    Attributes
    ----------
    config
        Of the run.
    model, x, target
        In this precision, on the device.
    known
        The reference.
    radius, found
        The spectral radius that was asked for, if one was, and those at the equilibrium.
    precision
        ``bfloat16`` is float32 under autocast.
    """

    config: GradientsConfig
    model: Model
    x: Tensor
    target: Tensor
    known: Reference
    radius: float | None
    found: Radii
    precision: Precision = "float64"

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.config.model["name"])

    def solver_of(self, gradient: Gradient) -> BaseSolver | None:
        """Return the run's forward solver, but for a gradient that brings its own iteration."""
        own = "own" in gradient.requires
        return None if own else solvers.registry.build(self.config.solver, "solver")

    def budget_of(self, gradient: Gradient) -> int:
        """Return the evaluations of a solve; a reversible one goes as far as it can go back."""
        most = self.config.max_evaluations
        return min(most, REVERSIBLE) if "own" in gradient.requires else most

    def to(self, precision: Precision) -> Subject:
        """Return the same in another precision; the reference holds, as the weights are float32."""
        dtype = torch.float64 if precision == "float64" else torch.float32
        model = references.double(self.model)
        for part in (model.inject, model.cell, model.readout):
            if isinstance(part, nn.Module):
                part.to(self.config.device, dtype)

        def moved(t: Tensor) -> Tensor:
            return t.to(self.config.device, dtype if t.is_floating_point() else t.dtype)

        return replace(
            self, model=model, x=moved(self.x), target=moved(self.target), precision=precision
        )

    def autocast(self) -> torch.autocast:
        """Return the context of this precision."""
        kind = self.config.device.partition(":")[0]
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass(frozen=True)
class Taken:
    """A gradient as it was taken.

    Attributes
    ----------
    solution
        The forward solve; its record is that of the backward.
    parameters, injected
        The gradients, of parameters and of the cell's arguments, for a loss of scale 1.
    loss
        The loss.
    """

    solution: Solution
    parameters: list[Tensor]
    injected: list[Tensor]
    loss: float

    @property
    def products(self) -> int | None:
        """Products with Jᵀ in the backward; None where it does not count any."""
        record = self.solution.record
        if record.adjoint is not None:
            return record.adjoint.stats.vjps
        return None if record.stats is None else record.stats.vjps

    @property
    def certificate(self) -> float | None:
        """The estimate of the relative error that the backward left, if it did."""
        found = self.solution.certificate
        return None if found is None else float(found)


def take(
    subject: Subject,
    gradient: Gradient,
    *,
    reltol: float,
    solver: BaseSolver | None = None,
    scale: float = 1.0,
    start: Solution | None = None,
    max_seconds: float | None = None,
) -> Taken:
    """Solve, from an earlier solution if given, and take the gradient of ``scale`` · the loss."""
    weights = list(references.parameters(subject.model).values())
    with torch.enable_grad(), subject.autocast():
        given = references.problem(subject.model, subject.x, subject.name)
        given = references.differentiable(given)
        solution = implicit.solve(
            given,
            subject.solver_of(gradient) if solver is None else solver,
            gradient,
            reltol=reltol,
            max_evaluations=subject.budget_of(gradient),
            max_seconds=max_seconds,
            start=start,
            scale=None if start is None else start.scale,
        )
        loss = subject.model.loss(subject.model.readout(solution.value), subject.target)
    tensors = [*weights, *references.floating(given.args)]
    found = torch.autograd.grad(loss * scale, tensors, materialize_grads=True)
    every = [g.detach().cpu().double() / scale for g in found]
    return Taken(solution, every[: len(weights)], every[len(weights) :], float(loss.detach()))


class Book:
    """Records what was taken of one subject.

    Parameters
    ----------
    recorder
        Of the run.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.failed: list[str] = []

    def solve(self, solution: Solution) -> int:
        """Record a solve without its trace, which no slice looks at."""
        return self._recorder.solve(solution, trace=None)

    def gradient(
        self,
        subject: Subject,
        gradient: Gradient,
        taken: Taken,
        part: Slice,
        *,
        varied: Mapping[str, object] | None = None,
        columns: Mapping[str, object] | None = None,
        forward: int | None = None,
        meant: bool = True,
    ) -> int:
        """Record a gradient in parameters and arguments; return the number of its forward solve.

        Parameters
        ----------
        subject, gradient, taken
            What was taken of what.
        part
            The slice.
        varied
            What the slice varies.
        columns
            More columns of the row of the parameters.
        forward
            The number of the forward solve, if it is recorded already.
        meant
            Whether the adjoint was meant to meet its tolerance.
        """
        solution, adjoint = taken.solution, taken.solution.adjoint
        ord_ = self.solve(solution) if forward is None else forward
        adjoint_ord = self.solve(adjoint) if adjoint is not None and meant else None
        known, away, elsewhere = _reference(subject, solution)
        about = {
            **_about(subject, gradient, part),
            "elsewhere": elsewhere,
            "forward": _relative(solution),
            "adjoint": None if adjoint is None else _relative(adjoint),
            "certificate": taken.certificate,
            **(varied or {}),
        }
        row: dict[str, object] = {
            "solve_ord": ord_,
            "adjoint_ord": adjoint_ord,
            "method": gradient.name,
            "options": solvers.as_config(gradient),
            "reference": known.sentence,
            "fwd_residual": float(solution.residual.max()),
            "bwd_residual": None if adjoint is None else float(adjoint.residual.max()),
            "reltol": solution.settings.reltol,
            "dtype": subject.precision,
            # Those that go through the steps count none.
            "products": None if gradient.requires & {"native", "own"} else taken.products,
            "history_bytes": solution.stats.history_bytes,
            "loss": taken.loss,
            "loss_ref": known.loss,
            "state_err": away,
        }
        compared = compare.compare(tuple(taken.parameters), list(known.gradient.values()))
        self._recorder.gradient(
            target="parameters", **row, **compared, **(columns or {}), extra=about
        )
        if taken.injected:
            injected = compare.compare(tuple(taken.injected), known.injected)
            self._recorder.gradient(target="args", **row, **injected, extra=about)
        return ord_

    def refused(self, subject: Subject, gradient: Gradient, part: Slice, error: Exception) -> None:
        """Record, once, that a gradient could not be taken, and why."""
        said = f"{part}: {label(gradient)}: {error}"
        if said not in self.failed:
            self.failed.append(said)
            print(said)
            self._recorder.gradient(
                target="parameters",
                method=gradient.name,
                options=solvers.as_config(gradient),
                dtype=subject.precision,
                extra={**_about(subject, gradient, part), "refused": str(error)},
            )


def _about(subject: Subject, gradient: Gradient, part: Slice) -> dict[str, object]:
    return {
        "slice": part,
        "label": label(gradient, without=BUDGETED if part == "products" else ()),
        "exact": gradient.exact,
        "radius": subject.radius,
        "spectral_radius": subject.found.largest,
        "median_radius": subject.found.median,
        "precision": subject.precision,
    }


def _relative(solution: Solution) -> float:
    """Return the residual relative to the scale of the test, the norm of the whole batch."""
    return float(solution.residual.norm() / solution.scale.norm().clamp_min(1e-300))


def _reference(subject: Subject, solution: Solution) -> tuple[Reference, float, bool]:
    """Return the reference of what was found, the distance to the usual, and if it is another."""
    known = subject.known
    z = Layout(solution.value).pack(solution.value).detach().cpu().double()
    away = float((z - known.z).norm() / known.z.norm())
    # A loose solve is merely far from its own equilibrium.
    if not (solution.success and away > max(ELSEWHERE, FAR * _relative(solution))):
        return known, away, False
    found = references.reference(subject.model, subject.x, subject.target, subject.name, start=z)
    near = float((z - found.z).norm() / found.z.norm())
    other = near < ELSEWHERE and float((found.z - known.z).norm() / known.z.norm()) > ELSEWHERE
    return (found, away, True) if other else (known, away, False)


# -- slices ---------------------------------------------------------------------------------------


def exact(subject: Subject, book: Book) -> None:
    """Record `Implicit` with both passes to 1e-12, and central differences of the reference."""
    subject = subject.to("float64")
    distance = references.central_differences(
        subject.model, subject.x, subject.target, subject.name, subject.known
    )
    adjoints: list[Gradient] = [
        Implicit(solver=linear.GMRES(), max_products=PRODUCTS),
        Implicit(precondition="forward", max_products=PRODUCTS),
        Implicit(solver=linear.Dense(), max_products=PRODUCTS),
    ]
    for gradient in adjoints:
        taken = take(subject, gradient, reltol=TIGHT)
        book.gradient(subject, gradient, taken, "exact", varied={"differences": distance})


def tolerances(subject: Subject, book: Book) -> None:
    """Record the error by both tolerances, and by the forward's alone under an exact adjoint."""
    for precision in subject.config.precisions:
        here = subject.to(precision)
        decades = [10.0**-k for k in range(1, TIGHTEST[precision] + 1)]
        for forward in decades:
            start, ord_ = None, None
            # The first is as good as exact, and the error that is left is the forward's.
            for backward in [*AS_EXACT[precision], *decades]:
                gradient = Implicit(reltol=backward, max_products=PRODUCTS, on_failure="ignore")
                taken = take(here, gradient, reltol=forward, start=start)
                start = start or taken.solution
                ord_ = book.gradient(
                    here,
                    gradient,
                    taken,
                    "tolerances",
                    varied={
                        "adjoint_reltol": backward,
                        "exact_adjoint": backward in AS_EXACT[precision],
                    },
                    forward=ord_,
                )


def products(subject: Subject, book: Book) -> None:
    """Record the error by the products of the backward, at an equilibrium of rounding error."""
    subject = subject.to("float64")
    for budget in BUDGETS:
        for gradient in budgeted(budget):
            varied = {"budget": budget}
            book_one(subject, book, gradient, "products", TIGHT, varied=varied, meant=False)


def budgeted(budget: int) -> Iterator[Gradient]:
    """Yield every gradient that takes a number of products, with that number."""
    plain = Implicit(reltol=0.0, max_products=budget, on_failure="ignore")
    yield plain
    yield replace(plain, precondition="forward")
    for name in ("anderson", "broyden"):
        yield replace(plain, solver=solvers.registry.get(name))
    # The first term of a series takes no product.
    counted = {
        "neumann": {"terms": budget + 1},
        "phantom": {"steps": budget + 1},
        "shine": {"refine": budget},
        "unrolled": {"last": budget},
    }
    for name, options in counted.items():
        if name in registry.names():
            yield registry.get(name, **options)
    if budget == BUDGETS[0]:
        yield from (registry.get(name) for name in ("jacobian_free",) if name in registry.names())


def estimators(subject: Subject, book: Book) -> None:
    """Record every gradient at one tolerance."""
    subject = subject.to("float64")
    for gradient in chosen(subject.config):
        book_one(subject, book, gradient, "estimators", subject.config.reltol)


def precision(subject: Subject, book: Book) -> None:
    """Record every gradient in every precision, at a tolerance that the precision can meet."""
    for kind in subject.config.precisions:
        here = subject.to(kind)
        for gradient in chosen(subject.config):
            book_one(here, book, gradient, "precision", EVERYDAY[kind])


def loss_scale(subject: Subject, book: Book) -> None:
    """Record how every gradient changes, relative to the loss, when the loss is scaled."""
    subject = subject.to("float64")
    reltol = subject.config.reltol
    for gradient in chosen(subject.config):
        try:
            usual = torch.cat(
                [g.flatten() for g in take(subject, gradient, reltol=reltol).parameters]
            )
            for scale in SCALES:
                taken = take(subject, gradient, reltol=reltol, scale=scale)
                now = torch.cat([g.flatten() for g in taken.parameters])
                change = float((now - usual).norm() / usual.norm().clamp_min(1e-300))
                varied = {"scale": scale, "change": change}
                book.gradient(subject, gradient, taken, "loss_scale", varied=varied)
        except MISTAKES as error:
            book.refused(subject, gradient, "loss_scale", error)


def every_solver(subject: Subject, book: Book) -> None:
    """Record the gradient behind every solver, and how far apart those gradients are."""
    subject = subject.to("float64")
    reltol = subject.config.reltol
    gradient = Implicit(max_products=PRODUCTS)
    found: dict[str, Taken] = {}
    for name in solvers.registry.names():
        try:
            solver = solvers.registry.get(name)
            found[name] = take(
                subject, gradient, reltol=reltol, solver=solver, max_seconds=PATIENCE
            )
        except MISTAKES as error:  # a solver that is not for fixed points, or not installed
            print(f"solvers: {name}: {error}")
    flat = {name: torch.cat([g.flatten() for g in t.parameters]) for name, t in found.items()}
    size = torch.cat([g.flatten() for g in subject.known.gradient.values()]).norm()
    met = [
        name
        for name, t in found.items()
        if t.solution.success and not _reference(subject, t.solution)[2]
    ]
    for name, taken in found.items():
        apart = [float((flat[name] - flat[other]).norm() / size) for other in met]
        spread = max(apart) / reltol if name in met else None
        varied = {"solver": name, "spread": spread}
        book.gradient(subject, gradient, taken, "solvers", varied=varied)


def precondition(subject: Subject, book: Book) -> None:
    """Record the products of the adjoint with and without the forward's inverse.

    The tighter the forward solve, the more it has learnt of the inverse.
    """
    subject = subject.to("float64")
    learners = {
        "broyden": solvers.Broyden(),
        "anderson (window=100)": solvers.Anderson(window=100),
    }
    for name, solver in learners.items():
        for forward in (subject.config.reltol, subject.config.reltol * TIGHTER):
            counts: list[int] = []
            for gradient in (
                Implicit(reltol=subject.config.reltol, max_products=PRODUCTS),
                Implicit(
                    reltol=subject.config.reltol, max_products=PRODUCTS, precondition="forward"
                ),
            ):
                taken = take(subject, gradient, reltol=forward, solver=solver)
                counts.append(taken.products or 0)
                ratio = counts[1] / counts[0] if len(counts) > 1 and counts[0] else None
                varied = {"solver": name, "plain": counts[0], "ratio": ratio}
                book.gradient(subject, gradient, taken, "precondition", varied=varied)


def cost(subject: Subject, book: Book) -> None:
    """Record the seconds of a training step with every gradient, and over one Jacobian-free.

    In every round each gradient takes one step, in an order that rotates, so that whatever slows
    the machine slows all of them; a ratio is that of one round. The step is that of Adam with a
    learning rate of 0: it costs what it costs, and every step meets the same model.
    """
    config = subject.config
    subject = subject.to("float32")
    steps: dict[str, tuple[Gradient, Callable[[], tuple[float, float, float]]]] = {}
    for gradient in stepped(config):
        step = stepper(subject, gradient)
        try:
            step()
        except MISTAKES as error:
            book.refused(subject, gradient, "cost", error)
            continue
        steps[label(gradient)] = gradient, step
    names = list(steps)
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    started = time.perf_counter()
    for round_ in range(config.rounds):
        if round_ >= 5 and time.perf_counter() - started > config.round_seconds:
            break
        turn = round_ % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds[name].append(steps[name][1]())
    for name in names:
        forward, backward, whole = (list(column) for column in zip(*seconds[name], strict=True))
        ratios: dict[str, float] = {}
        if BASELINE in seconds:
            base = [each[2] for each in seconds[BASELINE]]
            ratios = quartiles("ratio", [a / b for a, b in zip(whole, base, strict=True)])
        gradient = steps[name][0]
        taken = take(subject, gradient, reltol=config.step_reltol)
        book.gradient(
            subject,
            gradient,
            taken,
            "cost",
            varied={"rounds": len(whole), **quartiles("step", whole), **ratios},
            columns={
                **quartiles("forward_seconds", forward),
                **quartiles("backward_seconds", backward),
            },
        )


def stepped(config: GradientsConfig) -> Iterator[Gradient]:
    """Yield the run's gradients, and those of them that certify themselves without that too."""
    for gradient in chosen(config):
        yield gradient
        if isinstance(gradient, Implicit) and gradient.certificate:
            yield replace(gradient, certificate=False)


def stepper(subject: Subject, gradient: Gradient) -> Callable[[], tuple[float, float, float]]:
    """Return a training step, which returns its seconds: forward, backward and all."""
    config, model = subject.config, subject.model
    optimiser = torch.optim.Adam(model.module().parameters(), lr=0.0)
    layer = implicit.DEQ(
        model.cell,
        solver=subject.solver_of(gradient),
        gradient=gradient,
        reltol=config.step_reltol,
        max_evaluations=subject.budget_of(gradient),
    )

    def forward() -> Tensor:
        with subject.autocast():
            z = layer(*model.args(subject.x))
            return model.loss(model.readout(z), subject.target)

    def rest(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()

    def step() -> tuple[float, float, float]:
        with torch.enable_grad():
            ahead, loss = timed(forward, config.device)
            back, _ = timed(lambda: rest(loss), config.device)
            end, _ = timed(optimiser.step, config.device)
        return ahead, back, ahead + back + end

    return step


# A gradient that does not fit the solver, the model or the budget says so by one of these.
MISTAKES = (OptionError, ValueError, RuntimeError, NotImplementedError, ImportError)


def chosen(config: GradientsConfig) -> list[Gradient]:
    """Return the run's gradients."""
    return [registry.build(g, f"gradients[{k}]") for k, g in enumerate(config.gradients)]


def book_one(
    subject: Subject,
    book: Book,
    gradient: Gradient,
    part: Slice,
    reltol: float,
    *,
    varied: Mapping[str, object] | None = None,
    meant: bool = True,
) -> None:
    """Take and record one gradient, or say why that is impossible."""
    try:
        taken = take(subject, gradient, reltol=reltol)
    except MISTAKES as error:
        book.refused(subject, gradient, part, error)
    else:
        book.gradient(subject, gradient, taken, part, varied=varied, meant=meant)


MEASURES: dict[Slice, Callable[[Subject, Book], None]] = {
    "exact": exact,
    "tolerances": tolerances,
    "products": products,
    "estimators": estimators,
    "precision": precision,
    "loss_scale": loss_scale,
    "solvers": every_solver,
    "precondition": precondition,
    "cost": cost,
}


def subjects(config: GradientsConfig) -> Iterator[Subject]:
    """Yield the model at every spectral radius that it can have, and say which it cannot."""
    bench = compare.prepare(config.as_compare)
    for radius in config.radius:
        model: Model | None = bench.model
        if radius is not None:
            model = prescribed(bench.model, bench.x, bench.name, radius)
        if model is None:
            print(
                f"radius {radius:g}: no factor on the cell's matrices gives it an equilibrium of"
                " this spectral radius; left out"
            )
            continue
        known = references.reference(model, bench.x, bench.target, bench.name)
        found = radii(model, bench.x, bench.name, known.z)
        yield Subject(config, model, bench.x, bench.target, known, radius, found)


def main(config: GradientsConfig, recorder: Recorder) -> dict[str, float]:
    """Measure every slice at every radius; the result is how many radii there were."""
    config = config.completed()
    reached = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", implicit.AdjointWarning)  # recorded
        for subject in subjects(config):
            reached += 1
            for part in (s for s in SLICES if s in config.measure):
                book = Book(recorder)
                measured = functools.partial(MEASURES[part], subject, book)
                seconds, _ = timed(measured, config.device)
                print(
                    f"{part}: spectral radius {subject.found.largest:.3g}, {seconds:.1f} s",
                    flush=True,
                )
    return {"subjects": float(reached)}


experiment = define(GradientsConfig, main, "gradients")

if __name__ == "__main__":
    command_line(experiment)
