"""Memory as it is: the bytes that autograd keeps between forward and backward."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


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
