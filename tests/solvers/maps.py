"""Problems for tests, instruments on them, and what is true of every solver."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import solvers
from solvers import FixedPointProblem, ForeignSolver, ReturnCode, RootProblem, Solution
from solvers.extensions.peer import installed
from solvers.linear.gmres import arnoldi_solve
from solvers.problem import Layout, Problem
from solvers.problems import registry as problems

EPS = {"float32": torch.finfo(torch.float32).eps, "float64": torch.finfo(torch.float64).eps}

# Those of a package that is not there, as xitorch for a later Python, are test_extensions.py's.
ALL = [
    n
    for n in solvers.registry.names()
    if installed(getattr(solvers.registry.factory(n), "package", "torch"))
]
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


# -- reads of the device ---------------------------------------------------------------------------


def as_on_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the solvers take the CPU for a device whose numbers are costly to read."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("solvers"):
            continue
        if hasattr(module, "free_reads"):
            monkeypatch.setattr(module, "free_reads", lambda x: False)
        if hasattr(module, "any_of"):  # which says yes where finding out would be a read
            monkeypatch.setattr(module, "any_of", lambda mask: True)
        if hasattr(module, "arnoldi_solve"):  # which never looks there, unless it is told to
            never = functools.partial(arnoldi_solve, read_every=0)
            monkeypatch.setattr(module, "arnoldi_solve", never)


# Operations that wait for the device inside torch: sizes that depend on the numbers, and
# decompositions that check whether they succeeded. Not those ending in _ex, which leave that open.
WAITING = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
    "_local_scalar_dense",
    "equal",
    "linalg_eig",
    "linalg_lstsq",
    "masked_select",
    "nonzero",
}


class Waits(TorchDispatchMode):
    """Notes the operations for which the host waits."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        masks = args[1] if name in {"index", "index_put", "index_put_"} else ()
        if name in WAITING or any(m is not None and m.dtype == torch.bool for m in masks):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def reads() -> Iterator[list[str]]:
    """Note all that would be a read of an accelerator: of a number, of a copy, or inside torch."""
    seen: list[str] = []
    names = ["tolist", "numpy", "cpu"]
    kept = {n: getattr(Tensor, n) for n in names}
    fetched: dict[int, Tensor] = {}
    try:
        for n, method in kept.items():

            def noted(self: Tensor, *args: Any, _n: str = n, _m: Any = method) -> Any:
                if _n == "cpu":
                    seen.append(_n)
                    copy = self.detach().clone()
                    fetched[id(copy)] = copy
                    return copy
                if id(self) not in fetched:  # what was copied to the host is read there
                    seen.append(_n)
                return _m(self, *args)

            setattr(Tensor, n, noted)
        with Waits(seen):
            yield seen
    finally:
        for n, method in kept.items():
            setattr(Tensor, n, method)
