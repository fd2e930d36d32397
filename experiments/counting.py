"""What a GPU would pay beside the arithmetic, counted on any device: kernel launches and reads.

Every operation that torch dispatches, views and allocations aside, is a launch; what waits for a
value (``.item()``, ``if tensor``, a mask turned into indices, a copy to the host, a factorisation
that checks its own success) is a read. On the CPU neither costs much.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from solvers.solver import free_reads

_ALLOCATIONS = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "set_", "resize_"}
)
_VIEWS = frozenset({"_unsafe_view", "_reshape_alias", "detach", "alias", "lift_fresh", "lift"})
_READS = frozenset(
    {"_local_scalar_dense", "nonzero", "masked_select", "_linalg_check_errors", "equal", "_unique2"}
)
# Methods that read the memory of a tensor without an operation.
_METHODS = ("tolist", "numpy")


class Counts(TorchDispatchMode):
    """Counts what is dispatched while it is entered, apart from what runs inside ``apart``.

    Attributes
    ----------
    launches, reads
        So far.
    conversions
        Tensors that became lists or arrays: on a GPU each would be a read, too.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = 0
        self.reads = 0
        self.conversions = 0
        self._paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count one operation, and run it."""
        if not self._paused:
            name = func._schema.name.rpartition("::")[2]
            if name in _READS or _copies_to_host(name, args, kwargs) or _masks(name, args):
                self.reads += 1
            if not (func.is_view or name in _VIEWS or name in _ALLOCATIONS):
                self.launches += 1
        return func(*args, **(kwargs or {}))

    def apart(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, whose own operations are not counted."""

        def quiet(*args: Any) -> Any:
            before, self._paused = self._paused, True
            try:
                return function(*args)
            finally:
                self._paused = before

        return quiet

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens inside, methods that read memory included."""
        originals = {name: getattr(Tensor, name) for name in _METHODS}

        def counted(original: Callable[..., Any]) -> Callable[..., Any]:
            def method(tensor: Tensor, *args: Any, **options: Any) -> Any:
                if not self._paused:
                    self.conversions += 1
                return original(tensor, *args, **options)

            return method

        for name, original in originals.items():
            setattr(Tensor, name, counted(original))
        try:
            with self:
                yield self
        finally:
            for name, original in originals.items():
                setattr(Tensor, name, original)


def _copies_to_host(name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    source = args[0] if args and isinstance(args[0], Tensor) else None
    if source is None or source.device.type == "cpu":
        return False
    return (
        name == "_to_copy"
        and torch.device((kwargs or {}).get("device") or source.device).type == "cpu"
    )


def _masks(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a mask selects: how many there are must be known before memory is taken."""
    if name != "index" or len(args) < 2:
        return False
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let our solvers read the CPU as rarely as they read a GPU, and as a GPU is read."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "solvers"]
    changed = [m for m in modules if hasattr(m, "free_reads")]
    try:
        for module in changed:
            setattr(module, "free_reads", lambda x: False)  # noqa: B010  it is no known attribute
        yield
    finally:
        for module in changed:
            setattr(module, "free_reads", free_reads)  # noqa: B010
