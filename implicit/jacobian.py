"""The Jacobian J of a cell at its equilibrium: its spectrum, and a penalty on its size.

    spectrum    the eigenvalues that decide: |λ| < 1 for plain iteration, 1 − λ for the equilibrium
                itself, which is lost where an eigenvalue passes through 1
    penalty     ‖J‖²_F / D, by Hutchinson's estimate E ‖Jᵀv‖² / D with E vvᵀ = I

The penalty is one evaluation and one product with Jᵀ a probe, all of which is differentiated again.
It bounds the spectral radius from above, |λ| ≤ ‖J‖_F, and keeps solves short.

Reference: S. Bai, V. Koltun, J. Z. Kolter, Stabilizing Equilibrium Models by Jacobian
Regularization, ICML (2021); M. F. Hutchinson, Commun. Stat. Simul. Comput. 18 (1989).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from implicit.layer import DEQ
from implicit.steady import steady
from solvers.limit import eigenvalues as eigenvalues_at
from solvers.limit import spectral_radius as spectral_radius_at
from solvers.loop import Settings, run
from solvers.options import Options, unknown
from solvers.problem import FixedPointProblem, Layout, Problem, RootProblem, State, parts

__all__ = [
    "JacobianRegularisation",
    "LinearGrowth",
    "Spectrum",
    "eigenvalues",
    "jacobian_penalty",
    "spectral_radius",
]

Probes = Literal["normal", "rademacher"]
# How exactly the equilibrium of a problem is found for its spectrum; a layer has its own settings.
_SETTINGS = Settings(reltol=1e-6, max_evaluations=1000)


# -- the spectrum ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of J at an equilibrium, all of them or the outermost.

    Attributes
    ----------
    values
        (B, k) complex, the largest |λ| first; Ritz values where k < D.
    """

    values: Tensor

    @property
    def radius(self) -> Tensor:
        """(B,) the largest |λ|: below 1 plain iteration converges, by that factor a step."""
        return self.values.abs().amax(dim=1)

    @property
    def rightmost(self) -> Tensor:
        """(B,) the largest real part: near 1 the equilibrium hardly holds, and few methods help."""
        return self.values.real.amax(dim=1)

    @property
    def leftmost(self) -> Tensor:
        """(B,) the least real part: where it is below −1 and the rest is not large, damp."""
        return self.values.real.amin(dim=1)

    @property
    def gap(self) -> Tensor:
        """(B,) the least |1 − λ|: at 0 I − J is singular, and there is no gradient."""
        return (1 - self.values).abs().amin(dim=1)


def spectral_radius(
    of: DEQ | Problem,
    *args: Tensor,
    z: State | None = None,
    method: Literal["arnoldi", "growth"] = "arnoldi",
    products: int | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Return the largest \|λ\| of J at the equilibrium of a layer or a problem, for each sample.

    It is measured without a trace: the layer's ``solution``, its buffers and the random state are
    as before.

    Parameters
    ----------
    of, args
        A layer with its injection, or a problem.
    z
        The equilibrium; ``None`` finds it, as the layer does (a problem: to 1e-6).
    method, products, seed
        As in :func:`solvers.limit.spectral_radius`.

    Returns
    -------
    Tensor
        (B,) float64; where samples depend on each other, that of the batch as one.
    """
    with _untouched(of, args, z) as (problem, at):
        return spectral_radius_at(problem, at, method=method, products=products, seed=seed)


def eigenvalues(
    of: DEQ | Problem,
    *args: Tensor,
    z: State | None = None,
    products: int = 100,
    seed: int = 0,
) -> Spectrum:
    """Return the eigenvalues of J at the equilibrium of a layer or a problem, the outermost first.

    Parameters are those of :func:`spectral_radius`. From D products on these are all.
    """
    with _untouched(of, args, z) as (problem, at):
        return Spectrum(eigenvalues_at(problem, at, products=products, seed=seed))


@contextmanager
def _untouched(
    of: DEQ | Problem, args: tuple[Tensor, ...], z: State | None
) -> Iterator[tuple[Problem, Any]]:
    """Give the problem and where to look at it; neither module nor random state is changed."""
    layer, problem = (of, _of_layer(of, args)) if isinstance(of, DEQ) else (None, of)
    if layer is None and args:
        raise TypeError(
            f"a problem has its own args, and {len(args)} more were given: put them into the"
            " problem, or give the layer"
        )
    device = parts(problem.z0)[0].device
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        # The scope is never closed, so that the module's buffers stay as they are.
        given = steady(problem)
        at: Any = z
        if at is None:
            at = run(
                given,
                None if layer is None else layer.solver,
                _SETTINGS if layer is None else layer.settings,
                quiet=True,
            )
        yield given, at


def _of_layer(layer: DEQ, args: tuple[Tensor, ...]) -> FixedPointProblem:
    return FixedPointProblem(
        layer.cell,
        layer.initial_state(*args),
        args,
        samples_independent=layer.samples_independent,
    )


# -- the penalty ----------------------------------------------------------------------------------


def jacobian_penalty(
    of: Callable[..., Any] | DEQ | Problem,
    z: State,
    *args: Tensor,
    samples: int = 1,
    probes: Probes = "normal",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return an unbiased estimate of ‖J‖²_F / D at z, the mean over the samples.

    J is the derivative of f (of z + g(z) for roots). Where samples depend on each other, it is the
    derivative of the batch as one, and B · D takes the place of D.

    Parameters
    ----------
    of, args
        The cell (a layer's is meant) with the args of its call, or a problem, which has its own.
        A cell that drops out draws masks for this call; give the problem of :class:`implicit.Watch`
        to have those of the solve. Buffers, such as batch statistics, are not updated.
    z
        The state. If it carries a gradient, the penalty is differentiated through it too; Bai et
        al. take ``z.detach()``, which is cheaper.
    samples
        Probes, the products with Jᵀ, all from one evaluation.
    probes
        ``normal``, or ``rademacher``, ±1, whose estimate varies less.
    generator
        Of the probes.

    Returns
    -------
    Tensor
        A scalar, in float32 at least; with a graph where grad is enabled.

    Raises
    ------
    OptionError, ValueError
        If there are no such probes, or none.
    """
    if samples < 1:
        raise ValueError(f"samples = {samples}: at least 1 probe is needed")
    problem = steady(_at(of, z, args))
    layout, graph = Layout(z), torch.is_grad_enabled()
    with torch.enable_grad():
        # An alias, so that J is the derivative in the state, whatever else is computed from z.
        leaf = tuple(
            t.view_as(t) if graph and t.requires_grad else t.detach().requires_grad_()
            for t in parts(z)
        )
        state = leaf if layout.is_tuple else leaf[0]
        out = layout.check(
            problem.function(state, *problem.args, *problem.params),
            problem.batch,
            1,
            any_float=True,
        )
        if isinstance(problem, RootProblem):
            out = tuple(t + g for t, g in zip(leaf, parts(out), strict=True))
        estimates = [
            _squares(parts(out), leaf, probes, generator, graph=graph) for _ in range(samples)
        ]
    total = torch.stack(estimates).sum()
    return total / (samples * sum(t.numel() for t in leaf))


def _at(of: Callable[..., Any] | DEQ | Problem, z: State, args: tuple[Tensor, ...]) -> Problem:
    """Return the problem whose function is meant, at z."""
    detached = tuple(t.detach() for t in parts(z))
    z0 = detached if isinstance(z, tuple) else detached[0]
    if isinstance(of, Problem):
        if args:
            raise TypeError(
                f"a problem has its own args, and {len(args)} more were given: give the cell with"
                " args, or the problem without"
            )
        return replace(of, z0=z0)  # type: ignore[type-var]  # both problems are dataclasses
    return FixedPointProblem(of.cell if isinstance(of, DEQ) else of, z0, args)


def _squares(
    out: tuple[Tensor, ...],
    leaf: tuple[Tensor, ...],
    probes: Probes,
    generator: torch.Generator | None,
    *,
    graph: bool,
) -> Tensor:
    """Return ‖Jᵀv‖² of one probe."""
    v = [_probe(t, probes, generator) for t in out]
    moved = [(t, p) for t, p in zip(out, v, strict=True) if t.requires_grad]
    if not moved:  # a constant map
        return sum(_square(torch.zeros_like(t)) for t in leaf)  # type: ignore[return-value]
    product = torch.autograd.grad(
        [t for t, _ in moved],
        leaf,
        [p for _, p in moved],
        retain_graph=True,
        create_graph=graph,
        materialize_grads=True,
    )
    return sum(_square(t) for t in product)  # type: ignore[return-value]


def _square(t: Tensor) -> Tensor:
    wide = t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
    return (wide * wide).sum()


def _probe(like: Tensor, probes: Probes, generator: torch.Generator | None) -> Tensor:
    if probes == "normal":
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    if probes == "rademacher":
        coins = torch.randint(0, 2, like.shape, generator=generator, device=like.device)
        return (2 * coins - 1).to(like.dtype)
    raise unknown("probes", probes, ("normal", "rademacher"))


@dataclass(frozen=True)
class LinearGrowth(Options):
    """A weight that grows by ``growth`` every ``every`` steps, and ends at the step ``until``.

    Bai et al. (2021) take first = 1.9, growth = 0.1, every = 35 000 for their language model.

    Parameters
    ----------
    first
        The weight of the first steps.
    growth, every
        What is added, and how often.
    most
        The largest weight.
    until
        The step from which on it is 0; ``None`` is never.
    """

    first: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    growth: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    every: Annotated[int, Field(ge=1)] = 1
    most: Annotated[float, Field(ge=0)] = float("inf")
    until: Annotated[int, Field(ge=0)] | None = None

    def __call__(self, step: int) -> float:
        """Return the weight at a step, from 0."""
        if self.until is not None and step >= self.until:
            return 0.0
        return min(self.most, self.first + self.growth * (step // self.every))


@dataclass(frozen=True)
class JacobianRegularisation(Options):
    """Adds the penalty to some steps of a training.

    >>> regularise = JacobianRegularisation(weight=0.5, probability=0.4)
    >>> z = layer(u)
    >>> loss = criterion(z) + regularise(layer, z, u, step=step)

    Whether a step is regularised follows from ``seed`` and the step alone: it is the same on every
    process of a distributed training and in a resumed one, and takes nothing from the random state.

    Parameters
    ----------
    weight
        A number, or what gives one for the step: :class:`LinearGrowth`, or any function.
    probability
        Of a step to be regularised. The expected penalty is ``probability`` times the weighted one:
        as published, the weight is not divided by it.
    samples, probes
        As in :func:`jacobian_penalty`.
    through
        Whether to differentiate through z too, if that carries a gradient; published is not.
    seed
        Of the choice of steps.
    """

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Callable[[int], float] = 1.0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    samples: Annotated[int, Field(ge=1)] = 1
    probes: Probes = "normal"
    through: bool = False
    seed: int = 0

    def weight_at(self, step: int) -> float:
        """Return the weight at a step, 0 where the step is not regularised."""
        weight = self.weight(step) if callable(self.weight) else self.weight
        if self.probability < 1:
            # Text is hashed alike in every process and version; a sum of numbers would repeat.
            chosen = random.Random(f"{self.seed} {step}").random() < self.probability
            return weight if chosen else 0.0
        return weight

    def __call__(
        self, of: Callable[..., Any] | DEQ | Problem, z: State, *args: Tensor, step: int
    ) -> Tensor:
        """Return what to add to the loss of a step: the weighted penalty at z, or 0.

        Parameters
        ----------
        of, z, args
            As in :func:`jacobian_penalty`.
        step
            The number of the step, from 0.
        """
        weight = self.weight_at(step)
        if not weight:
            return parts(z)[0].new_zeros(())
        if not self.through:
            z = tuple(t.detach() for t in z) if isinstance(z, tuple) else z.detach()
        penalty = jacobian_penalty(of, z, *args, samples=self.samples, probes=self.probes)
        return weight * penalty
