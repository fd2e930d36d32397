"""Memory as it is: what autograd keeps, what the solver holds, and the peak, phase by phase.

Three counts, none of which contains another by definition:

* ``saved_bytes``: the storages that autograd keeps between forward and backward;
* ``Stats.history_bytes``: what a solver holds while it runs, forward or adjoint;
* ``allocated_bytes``: all that was allocated and still lives, whoever holds it, and the most of it
  at once.

``memory_of`` puts a step of training together from them. On CUDA the last is the caching
allocator's own count, in blocks of 512 bytes. On the CPU every operation is watched, and each new
storage is counted until it is freed: an exact count, the same in each run, and within a thousandth
of what the allocator is asked for. What an operation allocates and frees within itself is not in
it, nor are arrays of NumPy that no tensor wraps.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solvers.loop import observe
from solvers.solution import Solution

__all__ = [
    "AllocatedBytes", "Memory", "Phase", "SavedBytes",
    "allocated_bytes", "memory_of", "profile", "saved_bytes",
]  # fmt: skip


class _Saved:
    """A saved tensor, alive for as long as a graph keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedBytes:
    """A tally of the tensors that graphs keep, by storage."""

    def __init__(self, exclude: Iterable[Tensor]) -> None:
        # Storages that live anyway, such as parameters, are no cost of the graph.
        self._excluded = {t.untyped_storage().data_ptr() for t in exclude}
        self._saved: weakref.WeakSet[_Saved] = weakref.WeakSet()

    @property
    def bytes(self) -> int:
        """The bytes of the distinct storages that are kept at this moment."""
        storages = [saved.tensor.untyped_storage() for saved in self._saved]
        sizes = {s.data_ptr(): s.nbytes() for s in storages}
        return sum(size for address, size in sizes.items() if address not in self._excluded)

    def pack(self, tensor: Tensor) -> _Saved:
        """Note a tensor that autograd saves."""
        # Detached: a node that saves its own output would keep itself alive. Autograd gives what
        # it unpacks its place in the graph again.
        saved = _Saved(tensor.detach())
        self._saved.add(saved)
        return saved

    @staticmethod
    def unpack(saved: _Saved) -> Tensor:
        """Return a noted tensor to autograd."""
        return saved.tensor


@contextlib.contextmanager
def saved_bytes(exclude: Iterable[Tensor] = ()) -> Iterator[SavedBytes]:
    """Count the bytes that autograd keeps of what it saves inside the block.

    Every storage counts once, whole, for as long as its graph lives; those of ``exclude``
    (parameters, inputs) do not count.

    >>> with saved_bytes(exclude=module.parameters()) as saved:
    ...     loss = module(x).sum()
    >>> saved.bytes
    """
    tally = SavedBytes(exclude)
    with torch.autograd.graph.saved_tensors_hooks(tally.pack, tally.unpack):
        yield tally


@dataclass(frozen=True)
class Phase:
    """A phase of a step, in bytes above what was there before the step.

    Attributes
    ----------
    peak
        The most at once.
    held
        What still lives at its end.
    """

    peak: int
    held: int


class AllocatedBytes(abc.ABC):
    """What was allocated since the block began, and still lives."""

    @property
    @abc.abstractmethod
    def bytes(self) -> int:
        """The bytes at this moment."""

    @property
    @abc.abstractmethod
    def peak(self) -> int:
        """The most bytes at once since the last :meth:`phase`, or since the block began."""

    @abc.abstractmethod
    def phase(self) -> Phase:
        """End a phase: return what it took, and look for the peak anew."""


class _Watched(TorchDispatchMode, AllocatedBytes):
    """Every operation is seen here, those of backward too, and each storage until it is freed.

    A storage that an operation is given without having come from one was there before.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._sizes: dict[int, int] = {}
        self._bytes = self._peak = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def peak(self) -> int:
        return self._peak

    def phase(self) -> Phase:
        ended = Phase(self._peak, self._bytes)
        self._peak = self._bytes
        return ended

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # `torch.tensor` makes its storage where nobody looks, and gives it to this operation.
        if func is not torch.ops.aten.lift_fresh.default:
            self._see((args, kwargs), new=False)
        out = func(*args, **kwargs)
        self._see(out, new=True)
        return out

    def _see(self, tensors: Any, *, new: bool) -> None:
        for t in tree_leaves(tensors):
            if isinstance(t, Tensor) and t.layout is torch.strided and t.device.type == "cpu":
                storage = t.untyped_storage()
                key = storage._cdata
                if key not in self._live:
                    self._live[key] = weakref.ref(storage, functools.partial(self._freed, key))
                    self._sizes[key] = 0
                    self._grow(key, storage.nbytes() if new else 0)
                elif self._sizes[key] and storage.nbytes() != self._sizes[key]:
                    self._grow(key, storage.nbytes())  # resized where it is

    def _grow(self, key: int, size: int) -> None:
        self._bytes += size - self._sizes[key]
        self._sizes[key] = size
        self._peak = max(self._peak, self._bytes)

    def _freed(self, key: int, _: object) -> None:
        del self._live[key]
        self._bytes -= self._sizes.pop(key)

    def forget(self) -> None:
        """Watch no storage any more: what lives on is none of the block's business."""
        self._live.clear()


class _Allocator(AllocatedBytes):
    """The count of CUDA's caching allocator."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()  # garbage that is freed meanwhile would be taken off
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    @property
    def bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device) - self._before

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def phase(self) -> Phase:
        ended = Phase(self.peak, self.bytes)
        torch.cuda.reset_peak_memory_stats(self._device)
        return ended


@contextlib.contextmanager
def allocated_bytes(device: torch.device | str = "cpu") -> Iterator[AllocatedBytes]:
    """Count what is allocated inside the block, and the most of it at once.

    On the CPU the work of this thread is watched, which slows it down several times; on CUDA the
    device's peak statistics are reset, and a first run should have come before, since libraries
    allocate workspaces when they are first used.

    >>> with allocated_bytes() as allocated:
    ...     loss = module(x).sum()
    ...     forward = allocated.phase()
    ...     loss.backward()
    >>> forward.held, allocated.peak

    Raises
    ------
    ValueError
        On a device of another kind.
    """
    device = torch.device(device)
    if device.type == "cuda":
        yield _Allocator(device)
    elif device.type == "cpu":
        watched = _Watched()
        try:
            with watched:
                yield watched
        finally:
            watched.forget()
    else:
        raise ValueError(f"device = '{device}': memory is measured on 'cpu' and on 'cuda'")


@dataclass(frozen=True)
class Memory:
    """What a step of training takes, in bytes.

    Parameters and inputs, which were there before, are in no phase; gradients are in the backward,
    which makes them.

    Attributes
    ----------
    forward, backward
        The two phases; ``forward.held`` lives between them, ``backward.held`` is the gradients and
        what the layer remembers.
    kept
        What autograd keeps between them, without parameters and inputs.
    history, adjoint_history
        The most that a solver held forward, and in the backward: it is in the peaks. ``None`` if a
        foreign one hides it.
    parameters, inputs, gradients
        Told apart: what a gradient was wanted of and what it is computed from, and the gradients.
    """

    forward: Phase
    backward: Phase
    kept: int
    history: int | None
    adjoint_history: int | None
    parameters: int
    inputs: int
    gradients: int

    @property
    def peak(self) -> int:
        """The most at once in the whole step."""
        return max(self.forward.peak, self.backward.peak)

    @property
    def backward_beyond(self) -> int:
        """What the backward takes at its peak beyond what was held and its solver's history."""
        return self.backward.peak - self.forward.held - (self.adjoint_history or 0)


def memory_of(
    layer: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    *,
    warm_up: bool = True,
) -> Memory:
    """Return what one step of a layer takes: forward, the loss, and backward.

    Parameters
    ----------
    layer
        A ``DEQ``, or any module that has some in it or none.
    inputs
        What it is called with.
    loss
        Its output -> a scalar.
    warm_up
        Run a step unmeasured first, in which libraries allocate what they keep.

    >>> memory = memory_of(DEQ(cell, gradient=Unrolled()), x, lambda z: z.square().mean())
    >>> memory.forward.held, memory.peak
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = [t for t in (*layer.parameters(), *given) if t.requires_grad]
    return profile(lambda: loss(layer(*given)), wanted, inputs=given, warm_up=warm_up)


def profile(
    forward: Callable[[], Tensor],
    wanted: Sequence[Tensor],
    *,
    cotangent: Tensor | None = None,
    inputs: Sequence[Tensor] = (),
    warm_up: bool = True,
) -> Memory:
    """Return what a forward and the gradient of its result take.

    Parameters
    ----------
    forward
        () -> what is differentiated.
    wanted
        The tensors of which a gradient is wanted; all but the inputs count as parameters.
    cotangent
        The gradient of the loss in the result; ``None`` if that is a scalar.
    inputs
        Tensors that were there before and are no parameters.
    warm_up
        As in :func:`memory_of`.

    Raises
    ------
    ValueError
        If no gradient is wanted.
    """
    if not wanted:
        raise ValueError(
            "no parameter and no input requires a gradient: there is no backward to measure"
        )

    def backward(out: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(out, wanted, cotangent, allow_unused=True)
        return [g for g in found if g is not None]

    if warm_up:
        backward(forward())
    histories: dict[str, list[int | None]] = {"forward": [], "backward": []}
    phase = "forward"

    def listen(solution: Solution) -> None:
        histories[phase].append(solution.stats.history_bytes)

    with observe(listen), allocated_bytes(wanted[0].device) as allocated:
        with saved_bytes(exclude=(*wanted, *inputs)) as saved:
            out = forward()
        kept = saved.bytes
        first = allocated.phase()
        phase = "backward"
        gradients = backward(out)
        second = allocated.phase()
    own = {id(t) for t in inputs}
    return Memory(
        forward=first,
        backward=second,
        kept=kept,
        history=_largest(histories["forward"]),
        adjoint_history=_largest(histories["backward"]),
        parameters=_size(t for t in wanted if id(t) not in own),
        inputs=_size(inputs),
        gradients=_size(gradients),
    )


def _largest(histories: Sequence[int | None]) -> int | None:
    if any(size is None for size in histories):
        return None
    return max((size for size in histories if size is not None), default=0)


def _size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages behind tensors, each once."""
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())
