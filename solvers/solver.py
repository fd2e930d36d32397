"""What a solver is: a frozen dataclass of options with ``init`` and ``step``, or a wrapped loop."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from solvers.options import Options

if TYPE_CHECKING:
    from solvers.evaluation import Linearisation
    from solvers.foreign import Objective
    from solvers.inverse import Inverse
    from solvers.proximal import Pieces

Linearise = Callable[[], "Linearisation"]

# Steps between two reads of an accelerator.
READ_EVERY = 4


class At:
    """Where a step starts: called, it linearises f there.

    Attributes
    ----------
    residual
        (B, D) f(z) − z, or g(z) itself of a root problem: z + g(z) − z would round it.
    pieces
        The parts of f(z) = P(W z + u), where the solver requires them and f offers them.
    """

    def __init__(
        self, linearise: Linearise, residual: Tensor, pieces: Pieces | None = None
    ) -> None:
        self._linearise = linearise
        self.residual = residual
        self.pieces = pieces

    def __call__(self) -> Linearisation:
        """Return the products with the Jacobian at this point."""
        return self._linearise()


def residual_at(z: Tensor, fz: Tensor, linearise: Linearise | None) -> Tensor:
    """Return f(z) − z (B, D), as the loop has computed it already if it was the loop that asks."""
    return linearise.residual if isinstance(linearise, At) else fz - z


class BaseSolver(Options):
    """What native, foreign and chained solvers share.

    Attributes
    ----------
    name
        The registry name.
    requires
        What the problem must offer: ``linearise`` (derivatives of f), ``blocks`` (a Jacobian
        with a block a sample; where samples depend on each other the loop hands over one row) and
        ``projection`` (the parts of f(z) = P(W z + u), :mod:`solvers.proximal`).
    reference
        Where the rule comes from.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[frozenset[str]] = frozenset()
    reference: ClassVar[str] = ""


class Solver(BaseSolver, abc.ABC):
    """Base of every solver that our loop iterates; a subclass is a frozen dataclass of options.

    The loop owns everything but the rule: it calls f, counts, tests, keeps the best iterate and
    drops finished samples. ``z`` and ``fz`` are matrices (B, D): the states, a row a sample, and
    the values f(z) there (z + g(z) for a root problem). The state is any nest of named tuples,
    tuples, lists and dicts of plain values and of tensors whose first axis is the batch.
    """

    @abc.abstractmethod
    def init(self, z: Tensor, fz: Tensor) -> Any:
        """Return the state before the first step, with z and fz of shape (B, D)."""

    @abc.abstractmethod
    def step(self, state: Any, z: Tensor, fz: Tensor, linearise: Linearise) -> tuple[Tensor, Any]:
        """Return the next point (B, D) and the state after it; reads nothing from the device.

        ``linearise()`` gives products with the Jacobian at z; ``residual_at(z, fz, linearise)`` is
        f(z) − z without computing it anew.

        The steps must be differentiable when grad is enabled: write in place only when it is not.
        """

    def resume(self, z: Tensor, fz: Tensor, inverse: Inverse) -> Any:
        """Return the first state, given what an earlier solution learnt; by default as ``init``."""
        return self.init(z, fz)

    def aim(self, state: Any, tolerance: Tensor) -> Any:
        """Return the state, told the residual norms (B,), in l2, that the next points are to reach.

        The loop calls it before every step; by default nothing changes.
        """
        return state

    def failed(self, state: Any) -> Tensor | None:
        """Return (B,) bools: samples whose last linear solve failed; ``None`` if none can."""
        return None

    def trial(self, state: Any) -> Tensor | None:
        """Return (B,) bools: samples whose proposed point is a trial of a line search.

        However large the residual there, or not finite, it ends no such sample. ``None``: no trial.
        """
        return None

    def inverse(self, state: Any) -> Inverse | None:
        """Return what the state knows of (I − J)⁻¹, ``None`` if that is nothing."""
        return None

    def memory(self, state: Any) -> int:
        """Return the bytes of memory that the solver itself holds at this state."""
        return state_bytes(state)


class ForeignSolver(BaseSolver, abc.ABC):
    """Base of wrapped solvers that own their loop: everything they evaluate is judged by us."""

    @abc.abstractmethod
    def run(self, objective: Objective) -> Any:
        """Solve by calling ``objective``; return the library's own result.

        The objective raises when it has seen enough; let that pass.
        """


def free_reads(x: Tensor) -> bool:
    """Whether the host reads a tensor at no cost: on the CPU, but on no accelerator.

    Of a tensor inside a transform of ``torch.func`` nothing can be read at all.
    """
    # torch has no public way to ask what a tensor is inside a transform.
    return x.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(x)


def reading_interval(x: Tensor) -> int:
    """Return after how many steps to read a tensor: after each where a read is free."""
    return 1 if free_reads(x) else READ_EVERY


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Return a solver's state with ``function`` applied to every tensor in it."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(map_tensors(function, s) for s in state))
    if isinstance(state, tuple | list):
        return type(state)(map_tensors(function, s) for s in state)
    if isinstance(state, Mapping):
        return {k: map_tensors(function, s) for k, s in state.items()}
    return state


def state_bytes(state: Any) -> int:
    """Return the bytes of the storages that a solver's state keeps."""
    storages: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    map_tensors(note, state)
    return sum(storages.values())
