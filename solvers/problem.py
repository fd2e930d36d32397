"""Problems: what is to be solved, apart from how.

The state is a tensor ``(B, …)`` or a tuple of tensors that share the first, batch, axis. ``args``
are per-sample tensors (batch first), ``params`` are shared by all samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]

# What makes a problem hard, and what that means; a problem of the library names its own.
TRAPS = {
    "many_roots": "several roots: the residual says whether one was found, the distance to one not",
    "singular_root": "the Jacobian is singular at a root: Newton converges linearly there",
    "ill_conditioned": "the condition of the Jacobian at a root is above 10⁸",
    "nonsmooth": "the function is not differentiable everywhere",
    "local_minimum": "a local minimum of the residual's norm that is no root",
    "no_root": "there is no root: an honest solver fails",
}


def parts(z: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state."""
    return z if isinstance(z, tuple) else (z,)


class Problem:
    """What fixed-point and root problems share; use one of those.

    Raises
    ------
    TypeError, ValueError
        If the state is not floating point, the batch sizes of state and args differ, or a trap
        is none of ``TRAPS``.
    """

    z0: State
    args: tuple[Tensor, ...]
    params: tuple[Tensor, ...]
    samples_independent: bool | None
    solutions: tuple[State, ...]
    name: str
    jacobian: Callable[..., Tensor] | None
    traps: tuple[str, ...]

    @property
    def function(self) -> Callable[..., Any]:
        """The problem's function: f, or g of a root problem."""
        raise AssertionError("a problem is a FixedPointProblem or a RootProblem")

    def __post_init__(self) -> None:
        """Check the state and the arguments against each other."""
        object.__setattr__(self, "z0", tuple(self.z0) if isinstance(self.z0, list) else self.z0)
        for name in ("args", "params"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                raise TypeError(f"{name} is a tensor: give a tuple of tensors, {name}=(x,)")
            object.__setattr__(self, name, tuple(value))
        if not callable(self.function):
            raise TypeError(
                f"the function of a problem must be callable, got {type(self.function).__name__}"
            )
        tensors = parts(self.z0)
        for k, t in enumerate(tensors):
            where = f"z0[{k}]" if isinstance(self.z0, tuple) else "z0"
            if not isinstance(t, Tensor):
                raise TypeError(f"{where} must be a tensor, got {type(t).__name__}")
            if not t.is_floating_point():
                raise TypeError(f"{where} must be of a floating dtype, got {t.dtype}")
            if t.dim() == 0:
                raise ValueError(f"{where} has no batch axis: its shape must be (B, …)")
            if t.dtype != tensors[0].dtype or t.device != tensors[0].device:
                raise ValueError(
                    f"{where} is {t.dtype} on {t.device}, the first part {tensors[0].dtype} on"
                    f" {tensors[0].device}: all parts of a state share dtype and device"
                )
        if not tensors:
            raise ValueError("z0 is an empty tuple: a state has at least one tensor")
        batch = tensors[0].shape[0]
        for where, group in (("z0", tensors), ("args", self.args)):
            for k, t in enumerate(group):
                if not isinstance(t, Tensor):
                    raise TypeError(
                        f"{where}[{k}] is a {type(t).__name__}: per-sample tensors (batch first) go"
                        " into args, shared tensors into params, anything else into the function"
                    )
                if t.dim() == 0 or t.shape[0] != batch:
                    raise ValueError(
                        f"{where}[{k}] has shape {tuple(t.shape)}, but the batch size is {batch}:"
                        " args are per sample, batch first; shared tensors go into params"
                    )
        for k, p in enumerate(self.params):
            if not isinstance(p, Tensor):
                raise TypeError(f"params[{k}] is a {type(p).__name__}, expected a tensor")
        object.__setattr__(self, "traps", tuple(self.traps))
        for trap in self.traps:
            if trap not in TRAPS:
                raise ValueError(f"traps has '{trap}', allowed are {', '.join(TRAPS)}")

    @property
    def batch(self) -> int:
        """The number of samples."""
        return parts(self.z0)[0].shape[0]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the problem with ``change`` applied to each of its tensors."""

        def state(z: State) -> State:
            return tuple(map(change, z)) if isinstance(z, tuple) else change(z)

        return replace(  # type: ignore[type-var]  # both problems are dataclasses
            self,
            z0=state(self.z0),
            args=tuple(map(change, self.args)),
            params=tuple(map(change, self.params)),
            solutions=tuple(map(state, self.solutions)),
        )


@dataclass(frozen=True, eq=False)
class FixedPointProblem(Problem):
    r"""Find z* = f(z*, \*args, \*params).

    Parameters
    ----------
    f
        ``f(z, *args, *params) -> z``, a function or a ``torch.nn.Module``.
    z0
        The start: a tensor ``(B, …)`` or a tuple of tensors that share the batch axis.
    args
        Per-sample tensors, batch first (the injection).
    params
        Tensors that all samples share.
    samples_independent
        Whether a sample's f depends on that sample alone. ``None``: found out by one more
        evaluation where it matters (freezing, Jacobians by samples).
    solutions
        Known solutions, if any.
    name
        What reports call it.
    jacobian
        The derivative of f where a formula of it is known: called like f, it returns (B, D, D), a
        matrix a sample, its rows the packed f, its columns the packed z. No solver uses it.
    traps
        What makes the problem hard, in the words of ``TRAPS``.
    """

    f: Callable[..., Any]
    z0: State
    args: tuple[Tensor, ...] = ()
    params: tuple[Tensor, ...] = ()
    _: KW_ONLY
    samples_independent: bool | None = None
    solutions: tuple[State, ...] = ()
    name: str = ""
    jacobian: Callable[..., Tensor] | None = None
    traps: tuple[str, ...] = ()

    @property
    def function(self) -> Callable[..., Any]:
        """The function f."""
        return self.f


@dataclass(frozen=True, eq=False)
class RootProblem(Problem):
    r"""Find a root of g: g(z*, \*args, \*params) = 0.

    Parameters are those of :class:`FixedPointProblem`; the function is ``g(z, *args, *params)``
    with the structure of z. Solvers see it as the fixed point of f(z) = z + g(z).
    """

    g: Callable[..., Any]
    z0: State
    args: tuple[Tensor, ...] = ()
    params: tuple[Tensor, ...] = ()
    _: KW_ONLY
    samples_independent: bool | None = None
    solutions: tuple[State, ...] = ()
    name: str = ""
    jacobian: Callable[..., Tensor] | None = None
    traps: tuple[str, ...] = ()

    @property
    def function(self) -> Callable[..., Any]:
        """The function g."""
        return self.g


class Layout:
    """The structure of a state, and the way to a matrix (B, D) and back."""

    def __init__(self, z: State) -> None:
        self.is_tuple = isinstance(z, tuple)
        self.shapes = [tuple(t.shape[1:]) for t in parts(z)]
        self.sizes = [math.prod(s) for s in self.shapes]
        first = parts(z)[0]
        self.dtype, self.device = first.dtype, first.device

    @property
    def dim(self) -> int:
        """The size D of one sample's state."""
        return sum(self.sizes)

    def pack(self, z: State) -> Tensor:
        """Return the state as a matrix (B, D)."""
        if isinstance(z, Tensor) and z.dim() == 2:
            return z
        flat = [t.reshape(t.shape[0], size) for t, size in zip(parts(z), self.sizes, strict=True)]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)

    def unpack(self, flat: Tensor) -> State:
        """Return the state that a matrix (B, D) stands for."""
        if not self.is_tuple:
            shape = self.shapes[0]
            return flat if len(shape) == 1 else flat.reshape(flat.shape[0], *shape)
        pieces = torch.split(flat, self.sizes, dim=1)
        return tuple(p.reshape(flat.shape[0], *s) for p, s in zip(pieces, self.shapes, strict=True))

    def check(self, value: object, rows: int, evaluation: int, *, any_float: bool = False) -> State:
        """Return what a cell returned, if it has the state's structure, shape and dtype.

        Under autocast a function may return ``any_float``, which is cast to the state's dtype.

        Raises
        ------
        TypeError, ValueError
            With what was returned, at which evaluation, and what the state is.
        """
        if (
            isinstance(value, Tensor)
            and not self.is_tuple
            and value.dtype == self.dtype
            and value.shape == (rows, *self.shapes[0])
        ):
            return value  # the usual case
        when = f"at evaluation {evaluation} the function returned"
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(value, tuple) != self.is_tuple or not (
            isinstance(value, tuple | Tensor) and len(parts(value)) == len(self.shapes)
        ):
            got = (
                f"a tuple of {len(value)}"
                if isinstance(value, tuple)
                else f"a {type(value).__name__}"
            )
            want = f"a tuple of {len(self.shapes)} tensors" if self.is_tuple else "a tensor"
            raise TypeError(f"{when} {got}, but the state is {want}")
        checked = []
        for k, (t, shape) in enumerate(zip(parts(value), self.shapes, strict=True)):
            part = f" part {k}" if self.is_tuple else ""
            if not isinstance(t, Tensor):
                raise TypeError(f"{when}{part} of type {type(t).__name__}, expected a tensor")
            if tuple(t.shape) != (rows, *shape):
                raise ValueError(
                    f"{when}{part} of shape {tuple(t.shape)}, but the state has {(rows, *shape)}"
                )
            if t.dtype != self.dtype:
                if not (t.is_floating_point() and any_float):
                    raise TypeError(
                        f"{when}{part} of dtype {t.dtype}, but the state is {self.dtype}: cast one"
                        " of them"
                    )
                t = t.to(self.dtype)  # noqa: PLW2901  autocast chose a lower precision
            checked.append(t)
        return tuple(checked) if self.is_tuple else checked[0]
