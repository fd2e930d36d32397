"""Equilibrium models: what a user writes, and the two that we compare on.

A model is a function with typed options that returns four parts::

    def build(width: int = 64) -> Model:
        return Model(inject=..., cell=..., readout=..., loss=..., data="digits")

Its prediction is ``readout(z*)``, where ``z* = cell(z*, *args)`` and ``args = model.args(x)``.
``examples/my_model.py`` is one in 20 lines; ``module.path:build`` works wherever a name does.
Initial values come from torch's global generator: seed it before building.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from solvers.registries import Registry

__all__ = ["Model", "registry"]


@dataclasses.dataclass(frozen=True)
class Model:
    """The parts of an equilibrium model, B samples at a time.

    What does not depend on the state belongs into ``inject``: it is then computed once, not at
    every evaluation. What all samples share is a parameter or a buffer of the cell.

    Parameters
    ----------
    inject
        x (B, …) -> the arguments of the cell: a tuple of tensors (B, …), or one such tensor.
    cell
        (z, \\*args) -> z, the map whose fixed point is the model's state. Where a solver starts is
        said by its method ``initial_state(*args) -> z``, if it has one.
    readout
        z -> the prediction (B, …).
    loss
        (prediction, target) -> a scalar, the mean over the samples.
    data
        A name in ``experiments.data``, an iterable of batches (x, target), or None if whoever runs
        the model has to name one.
    """

    inject: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    cell: nn.Module
    readout: Callable[..., Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    data: str | Iterable[tuple[Tensor, Tensor]] | None = None

    def args(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the cell gets besides the state, for the input x (B, …)."""
        args = self.inject(x)
        return args if isinstance(args, tuple) else (args,)

    def module(self) -> nn.ModuleDict:
        """Return the parts that are modules as one, which has all parameters and moves them.

        Parameters carry the name of their part: ``cell.W``, ``inject.weight``.
        """
        parts = {"inject": self.inject, "cell": self.cell, "readout": self.readout}
        return nn.ModuleDict({k: v for k, v in parts.items() if isinstance(v, nn.Module)})


registry: Registry[Model] = Registry("model", "deq_lab.models")
registry.register("mlp", "implicit.models.mlp:build")
registry.register("transformer", "implicit.models.transformer:build")
