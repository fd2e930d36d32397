"""Problems for tests, instruments on them, and what is true of every solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from solvers import FixedPointProblem, ForeignSolver, ReturnCode, RootProblem, Solution
from solvers.problem import Layout, Problem
from solvers.problems import registry as problems

EPS = {"float32": torch.finfo(torch.float32).eps, "float64": torch.finfo(torch.float64).eps}

ALL = solvers.registry.names()
FOREIGN = [n for n in ALL if issubclass(solvers.registry.factory(n), ForeignSolver)]  # type: ignore[arg-type]
# Those that our loop iterates, the chain of them included.
OURS = [n for n in ALL if n not in FOREIGN]

every_solver = pytest.mark.parametrize("name", ALL)
ours = pytest.mark.parametrize("name", OURS)
foreign = pytest.mark.parametrize("name", FOREIGN)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def layout(problem: Problem) -> Layout:
    return Layout(problem.z0)


def pack(problem: Problem, z: Any) -> Tensor:
    return layout(problem).pack(z)


def residual(problem: Problem, z: Any) -> Tensor:
    """(B, D) the residual at z, evaluated apart from any solver."""
    out = problem.function(z, *problem.args, *problem.params)
    flat = pack(problem, out)
    return flat if isinstance(problem, RootProblem) else flat - pack(problem, z)


def doubled(problem: Problem) -> Problem:
    """The same problem in float64: its matrices are what they were."""

    def wide(z: Any) -> Any:
        return tuple(t.double() for t in z) if isinstance(z, tuple) else z.double()

    return replace(  # type: ignore[type-var]
        problem,
        z0=wide(problem.z0),
        args=tuple(t.double() for t in problem.args),
        params=tuple(t.double() for t in problem.params),
        solutions=tuple(wide(s) for s in problem.solutions),
    )


def jacobian(problem: Problem, z: Tensor) -> Tensor:
    """(B, D, D) the derivative of the residual at z (B, D), row by row."""
    shape = layout(problem)
    leaf = z.clone().requires_grad_()
    out = residual(problem, shape.unpack(leaf))
    if not out.requires_grad:
        return torch.zeros(*out.shape, out.shape[1], dtype=z.dtype)
    rows = [
        torch.autograd.grad(out[:, k].sum(), leaf, retain_graph=True, materialize_grads=True)[0]
        for k in range(out.shape[1])
    ]
    return torch.stack(rows, dim=1)


def polished(problem: Problem, z: Any, steps: int = 8) -> Tensor:
    """(B, D) the root nearest to z: Newton's method in float64, which ends at rounding."""
    problem = doubled(problem)
    shape = layout(problem)
    flat = pack(problem, tuple(t.double() for t in z) if isinstance(z, tuple) else z.double())
    for _ in range(steps):
        r = residual(problem, shape.unpack(flat))
        flat = flat - torch.linalg.solve(jacobian(problem, flat), r)
    return flat


def contracts(problem: Problem) -> bool:
    """Whether plain iteration converges near the known solution: |λ(J)| < 1 for all samples."""
    if not isinstance(problem, FixedPointProblem) or not problem.solutions:
        return False
    wide = doubled(problem)
    J = jacobian(wide, pack(wide, wide.solutions[0]))
    eye = torch.eye(J.shape[-1], dtype=J.dtype)
    return bool(torch.linalg.eigvals(J + eye).abs().max() < 1)


@dataclass
class Calls:
    """What a problem's function was really asked."""

    batch: int
    calls: int = 0
    samples: Tensor = field(init=False)
    points: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = torch.zeros(self.batch, dtype=torch.long)

    def note(self, z: Any, index: Tensor) -> None:
        self.calls += 1
        self.samples[index] += 1
        flat = torch.cat([t.detach().flatten(1) for t in (z if isinstance(z, tuple) else (z,))], 1)
        self.points.append(flat.clone())


Change = Callable[[Any, Tensor, Calls], Any]


def instrumented(problem: Problem, change: Change | None = None) -> tuple[Problem, Calls]:
    """The problem with every call noted; ``change(out, index, calls)`` may alter its values.

    ``index`` says which samples of the batch the call is about.
    """
    calls, own = Calls(problem.batch), len(problem.args)
    function = problem.function

    def call(z: Any, *tensors: Tensor) -> Any:
        index = tensors[own]
        calls.note(z, index)
        out = function(z, *tensors[:own], *tensors[own + 1 :])
        return out if change is None else change(out, index, calls)

    which = "f" if isinstance(problem, FixedPointProblem) else "g"
    args = (*problem.args, torch.arange(problem.batch))
    return replace(problem, **{which: call}, args=args), calls  # type: ignore[type-var]


def sub(problem: Problem, index: list[int]) -> Problem:
    """The problem of these samples alone, in this order."""

    def pick(z: Any) -> Any:
        return tuple(t[index] for t in z) if isinstance(z, tuple) else z[index]

    return replace(  # type: ignore[type-var]
        problem,
        z0=pick(problem.z0),
        args=tuple(t[index] for t in problem.args),
        solutions=tuple(pick(s) for s in problem.solutions),
    )


def codes(solution: Solution) -> list[ReturnCode]:
    return [ReturnCode(c) for c in solution.retcode.tolist()]


def tanh_map(
    batch: int = 4, dim: int = 6, scale: float = 0.8, seed: int = 0, dtype: str = "float64"
) -> FixedPointProblem:
    """Z = tanh(W z + u), declared independent."""
    problem = problems.get("tanh", batch=batch, dim=dim, scale=scale, seed=seed, dtype=dtype)
    assert isinstance(problem, FixedPointProblem)
    return replace(problem, samples_independent=True)
