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
from solvers import (
    Anderson,
    BaseSolver,
    Broyden,
    Fallback,
    FixedPointProblem,
    ForeignSolver,
    Newton,
    NewtonKrylov,
    Picard,
    ReturnCode,
    RootProblem,
    Solution,
)
from solvers.extensions.peer import installed
from solvers.linear.gmres import arnoldi_solve
from solvers.problem import Layout, Problem
from solvers.problems import registry as problems

EPS = {"float32": torch.finfo(torch.float32).eps, "float64": torch.finfo(torch.float64).eps}

SPLITTINGS = [
    n
    for n in solvers.registry.names()
    if "projection" in solvers.registry.factory(n).requires  # type: ignore[attr-defined]
]
# Those of a package that is not there, as xitorch for a later Python, are test_extensions.py's;
# those for maps of one form, which no problem of the library has, are test_splitting.py's.
ALL = [
    n
    for n in solvers.registry.names()
    if installed(getattr(solvers.registry.factory(n), "package", "torch")) and n not in SPLITTINGS
]
FOREIGN = [n for n in ALL if issubclass(solvers.registry.factory(n), ForeignSolver)]  # type: ignore[arg-type]
# Those that our loop iterates, the chain of them included.
OURS = [n for n in ALL if n not in FOREIGN]

# Ours with the options that change what they do; test_properties checks that none is missing.
NATIVE: dict[str, BaseSolver] = {
    "picard": Picard(),
    "picard damped": Picard(mixing=0.7),
    "anderson": Anderson(),
    "anderson 1": Anderson(window=1),
    "anderson 3": Anderson(window=3),
    "anderson 50": Anderson(window=50),
    "anderson damped": Anderson(mixing=0.7),
    "anderson I": Anderson(kind="I"),
    "anderson filter": Anderson(filter=0.1),
    "anderson restart": Anderson(restart=10.0),
    "broyden": Broyden(),
    "broyden 1": Broyden(window=1),
    "broyden 3": Broyden(window=3),
    "broyden 10": Broyden(window=10),
    "broyden 3 restart": Broyden(window=3, reduction="restart"),
    "broyden bad": Broyden(kind="bad"),
    "broyden bad 3": Broyden(kind="bad", window=3),
    "broyden bad 3 restart": Broyden(kind="bad", window=3, reduction="restart"),
    "broyden line search": Broyden(line_search=True),
    "broyden line search 3": Broyden(line_search=True, window=3),
    "newton": Newton(),
    "newton full steps": Newton(globalisation="none"),
    "newton line search": Newton(globalisation="line_search"),
    "newton descent": Newton(globalisation="line_search", relaxed=0),
    "newton_krylov": NewtonKrylov(),
    "newton_krylov descent": NewtonKrylov(relaxed=0),
    "newton_krylov full steps": NewtonKrylov(globalisation="none"),
    "fallback": Fallback(),
}

native = pytest.mark.parametrize("label", NATIVE)
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
    return problem.mapped(Tensor.double)


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
    indices: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = torch.zeros(self.batch, dtype=torch.long)

    def note(self, z: Any, index: Tensor) -> None:
        self.calls += 1
        self.samples[index] += 1
        parts = z if isinstance(z, tuple) else (z,)
        flat = torch.cat([t.detach().reshape(len(t), -1) for t in parts], 1)
        self.points.append(flat.clone())
        self.indices.append(index.tolist())

    def course(self, sample: int) -> Tensor:
        """(K, D) the points of one sample, each once where a linearisation traced it again."""
        course: list[Tensor] = []
        for points, index in zip(self.points, self.indices, strict=True):
            if sample in index:
                point = points[index.index(sample)]
                if not course or not torch.equal(point, course[-1]):
                    course.append(point)
        return torch.stack(course)


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


def scaled(problem: FixedPointProblem, c: float) -> FixedPointProblem:
    """The problem of c f(· / c): powers of two change no digit."""

    def f(z: Tensor, *tensors: Tensor) -> Tensor:
        out: Tensor = problem.f(z / c, *tensors)
        return c * out

    return replace(problem, f=f, z0=problem.z0 * c, solutions=())  # type: ignore[operator]


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
