"""Who runs in ``overhead``: the bare loop, our solvers, and torchdeq's as its users call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import solvers
from experiments import data, references
from experiments.runner.config import Config
from implicit import models
from solvers import FixedPointProblem, OptionError, ReturnCode, Settings, Solution, Stats
from solvers.problem import Layout, State
from solvers.solver import BaseSolver

Function = Callable[..., Any]
Kind = Literal["checked", "fixed", "direct"]


def two_layer(
    batch: int,
    dim: int,
    hidden: int,
    *,
    gain: float = 1.0,
    dtype: torch.dtype,
    device: str,
    seed: int,
    injection: tuple[float, float] = (0.5, 0.5),
) -> FixedPointProblem:
    """Return the problem f(z, x) = tanh(relu(z W1) W2 + x), from z0 = 0.

    Parameters
    ----------
    batch, dim, hidden
        z is (batch, dim), W1 (dim, hidden), W2 (hidden, dim).
    gain
        Scale of W1. At 1 the map from z neither grows nor shrinks before the tanh.
    dtype, device, seed
        Of the weights and x; made on the CPU, so that every device gets the same ones.
    injection
        The sizes of x from the first sample to the last, in equal steps. The smaller, the less tanh
        saturates, and the harder is the sample.
    """
    g = torch.Generator().manual_seed(seed)
    W1 = torch.randn(dim, hidden, generator=g) * (gain / math.sqrt(dim))
    # Half of relu's outputs are zero, which the factor 2 makes up for.
    W2 = torch.randn(hidden, dim, generator=g) * math.sqrt(2 / hidden)
    sizes = torch.linspace(*injection, batch)[:, None]
    x = sizes * torch.randn(batch, dim, generator=g)
    W1, W2, x = (t.to(device, dtype) for t in (W1, W2, x))

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.relu(z @ W1) @ W2 + x)

    return FixedPointProblem(f, torch.zeros_like(x), (x,), name="two_layer")


def cell_of(model: Config, batch: int, *, dtype: str, device: str, seed: int) -> FixedPointProblem:
    """Return the fixed-point problem of a registered model on a batch of its own data."""
    torch.manual_seed(seed)
    config, dataset = data.resolve(model)
    built = models.registry.build(config, "model")
    kind = getattr(torch, dtype)
    for part in (built.inject, built.cell):
        if isinstance(part, nn.Module):
            part.to(device, kind).requires_grad_(False)
    x, _ = next(dataset.batches("train", batch, seed))
    x = x.to(device, kind if x.is_floating_point() else x.dtype)
    with torch.no_grad():
        return references.problem(built, x, str(model["name"]))


@dataclass(frozen=True)
class Contender:
    """A solver that takes part, and how it is run.

    Attributes
    ----------
    label
        What the report calls it.
    config
        Of the registry.
    kind
        ``checked``: ours as usual, with a tolerance of zero; ``fixed``: ours with a fixed budget;
        ``direct``: torchdeq's function, called as its users do.
    """

    label: str
    config: Config
    kind: Kind

    @property
    def solver(self) -> BaseSolver:
        """The solver, built."""
        return solvers.registry.build(self.config, "contenders")


def contenders(configs: Sequence[Config]) -> list[Contender]:
    """Return who takes part: each of ours in both of its modes, each of torchdeq's directly.

    Raises
    ------
    OptionError
        For another library's solver, which has no equal number of evaluations to be timed at.
    """
    found = []
    for position, (config, label) in enumerate(zip(configs, _labels(configs), strict=True)):
        solver = solvers.registry.build(config, f"contenders[{position}]")
        if isinstance(solver, solvers.Solver):
            kinds: tuple[Kind, ...] = ("checked", "fixed")
        elif config["name"] in DIRECT:
            kinds = ("direct",)
        else:
            raise OptionError(
                f"contenders[{position}].name = '{config['name']}': it cannot be held to a number"
                f" of evaluations; allowed are native solvers and {', '.join(DIRECT)}"
            )
        found += [Contender(label, config, kind) for kind in kinds]
    return found


def _labels(configs: Sequence[Config]) -> list[str]:
    """Return the names, with the options in which two of one name differ."""
    labels = []
    for config in configs:
        same = [other for other in configs if other["name"] == config["name"]]
        told = [
            f"{key}={value}"
            for key, value in config.items()
            if any(other.get(key) != value for other in same)
        ]
        labels.append(f"{config['name']} ({', '.join(told)})" if told else str(config["name"]))
    return labels


def _renamed(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[key]: value for key, value in options.items() if key in names}


# torchdeq's own functions and the names of their options, by our names for them.
DIRECT: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "torchdeq_anderson": ("anderson", {"window": "m", "ridge": "lam", "mixing": "tau"}),
    "torchdeq_broyden": ("broyden", {"window": "LBFGS_thres", "line_search": "ls"}),
    "torchdeq_picard": ("fixed_point_iter", {"mixing": "tau"}),
}


def bare(problem: FixedPointProblem, evaluations: int) -> Callable[[], State]:
    """Return the loop that evaluates f and does nothing else."""

    def run() -> State:
        z = problem.z0
        for _ in range(evaluations):
            z = problem.f(z, *problem.args, *problem.params)
        return z

    return run


def ours(
    problem: FixedPointProblem, contender: Contender, evaluations: int
) -> Callable[[], Solution]:
    """Return the solve of a contender of ours, at so many evaluations."""
    solver = contender.solver
    fixed = contender.kind == "fixed"

    def run() -> Solution:
        return solvers.solve(
            problem, solver, reltol=0.0, max_evaluations=evaluations, fixed_budget=fixed
        )

    return run


def peers(
    problem: FixedPointProblem, contender: Contender, evaluations: int
) -> Callable[[], tuple[Any, int]]:
    """Return the solve of a contender of torchdeq's, at so many evaluations.

    Its budget is one of iterations, which may take one evaluation more: it is set so that the
    count comes out, if it can.
    """
    from torchdeq.solver import get_solver

    key, names = DIRECT[str(contender.config["name"])]
    options = _renamed(contender.config, names)
    solve = get_solver(key)
    z0, layout = problem.z0, Layout(problem.z0)
    packed = layout.pack(z0) if isinstance(z0, tuple) else z0
    count = 0

    def f(z: Tensor) -> Tensor:
        image: Tensor = problem.f(z, *problem.args, *problem.params)
        return image

    def whole(z: Tensor) -> Tensor:
        return layout.pack(problem.f(layout.unpack(z), *problem.args, *problem.params))

    function = whole if isinstance(z0, tuple) else f

    def counted(z: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return function(z)

    budget = evaluations
    solve(counted, packed, max_iter=budget, tol=0.0, **options)
    if count != evaluations:
        budget, count = max(1, evaluations - (count - evaluations)), 0
        solve(counted, packed, max_iter=budget, tol=0.0, **options)
    taken = count

    def run() -> tuple[Any, int]:
        value, _, _ = solve(function, packed, max_iter=budget, tol=0.0, **options)
        return value, taken

    return run


def as_solution(
    problem: FixedPointProblem, contender: Contender, value: Tensor, evaluations: int
) -> Solution:
    """Return what torchdeq returned as a solution, its residual evaluated by us."""
    layout = Layout(problem.z0)
    z = value if not isinstance(problem.z0, tuple) else layout.unpack(value)
    z0 = layout.pack(problem.z0)
    with torch.no_grad():
        images = [
            layout.pack(problem.f(point, *problem.args, *problem.params))
            for point in (problem.z0, z)
        ]
    first = torch.linalg.vector_norm(images[0] - z0, dim=1)
    residual = torch.linalg.vector_norm(images[1] - layout.pack(z), dim=1)
    code = torch.where(
        torch.isfinite(residual), int(ReturnCode.MAX_EVALUATIONS), int(ReturnCode.NONFINITE)
    )
    counts = torch.full((problem.batch,), evaluations)
    return Solution(
        value=z,
        residual=residual,
        scale=torch.maximum(first, torch.linalg.vector_norm(images[1], dim=1)),
        retcode=code,
        ended=counts,
        stats=Stats(
            evaluations=evaluations,
            sample_evaluations=counts,
            iterations=evaluations - 1,
            history_bytes=None,
        ),
        trace=None,
        solver=contender.solver,
        settings=Settings(reltol=0.0, max_evaluations=evaluations),
        problem=problem.name,
        dtype=str(layout.dtype).removeprefix("torch."),
        device=str(layout.device),
        dim=layout.dim,
    )


def compiled(problem: FixedPointProblem) -> FixedPointProblem:
    """Return the problem with its function compiled by torch."""
    return replace(problem, f=torch.compile(problem.f))
