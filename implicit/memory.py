"""Memory as it is: the bytes that autograd keeps between forward and backward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class SavedBytes:
    """A tally of saved tensors, by storage.

    Attributes
    ----------
    bytes
        The bytes of the storages saved so far, each counted once.
    """

    def __init__(self, exclude: Iterable[Tensor]) -> None:
        # Storages that live anyway, such as parameters, are no cost of the graph. The saved
        # tensors are held here, lest a freed storage's address be taken for one already counted.
        self._excluded = {t.untyped_storage().data_ptr() for t in exclude}
        self._held: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        """The bytes of the distinct storages saved so far."""
        return sum(t.untyped_storage().nbytes() for t in self._held.values())

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._excluded:
            self._held.setdefault(address, tensor.detach())
        return tensor


@contextlib.contextmanager
def saved_bytes(exclude: Iterable[Tensor] = ()) -> Iterator[SavedBytes]:
    """Count the bytes that autograd saves for backward inside the block.

    Every storage counts once, whole; those of ``exclude`` (parameters, inputs) do not.

    >>> with saved_bytes(exclude=module.parameters()) as saved:
    ...     loss = module(x).sum()
    >>> saved.bytes
    """
    tally = SavedBytes(exclude)
    with torch.autograd.graph.saved_tensors_hooks(tally.note, lambda tensor: tensor):
        yield tally
