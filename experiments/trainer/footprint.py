"""The bytes of a training step, by counting, apart from the training itself.

The step is taken once more, on the same batch, while the gradients of the last one are there: it
adds to them in place, so that parameters, gradients and the optimiser's state are all below what is
counted. What a step changes beside the gradients is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from experiments.trainer.checkpoints import random_state, restore_random
from experiments.trainer.networks import Network
from implicit.memory import allocated_bytes
from implicit.models import Model
from solvers.problem import Layout, State

__all__ = ["layer_bytes", "step_bytes"]


@contextmanager
def untouched(modules: nn.Module, network: Network, device: str) -> Iterator[None]:
    """Leave buffers, random numbers and what a network knows as they are."""
    buffers = [(b, b.clone()) for b in modules.buffers()]
    known, numbers = network.state(), random_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        network.restore(known)
        restore_random(numbers, device)


def step_bytes(
    loss: Callable[[], Tensor], modules: nn.Module, network: Network, device: str
) -> int:
    """Return the peak of a forward, the loss and the backward, in bytes.

    Parameters
    ----------
    loss
        The forward: () -> what is minimised. Each parameter that it depends on has a gradient.
    modules, network, device
        Of the model.
    """
    with untouched(modules, network, device), allocated_bytes(device) as allocated:
        loss().backward()
        return allocated.peak


def layer_bytes(
    model: Model,
    network: Network,
    args: Sequence[Tensor],
    target: Tensor,
    precision: Callable[[], AbstractContextManager[Any]],
    *,
    modules: nn.Module,
    device: str,
) -> int:
    """Return the peak of the layer alone, in bytes: from its arguments to z, and back.

    Embedding, readout and loss are apart, as in the paper's protocol; the gradient of the loss in z
    is there before, and so are the gradients of weights and arguments, as in :func:`step_bytes`.
    """
    given = tuple(t.detach().clone().requires_grad_(t.is_floating_point()) for t in args)
    for t in (*given, *model.cell.parameters()):
        if t.requires_grad and t.grad is None:
            t.grad = torch.zeros_like(t)

    def forward() -> Tensor:
        with precision():
            return packed(network.train(given).z)

    with untouched(modules, network, device):
        with torch.no_grad(), precision():
            z: State = network.train(given).z
        layout = Layout(z)
        flat = layout.pack(z).detach().requires_grad_()
        with precision():
            loss = model.loss(model.readout(layout.unpack(flat)), target)
        (cotangent,) = torch.autograd.grad(loss, flat)
        del z, loss, flat
        with allocated_bytes(device) as allocated:
            forward().backward(cotangent)
            return allocated.peak


def packed(z: State) -> Tensor:
    """Return a state as one tensor (B, D), which shares its memory where it can."""
    return Layout(z).pack(z)
