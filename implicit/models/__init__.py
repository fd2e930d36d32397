"""Equilibrium models: what a user writes, and those of the literature.

A model is a function with typed options that returns four parts::

    def build(width: int = 64) -> Model:
        return Model(inject=..., cell=..., readout=..., loss=..., data="digits")

Its prediction is ``readout(z*)``, where ``z* = cell(z*, *args)`` and ``args = model.args(x)``.
``examples/my_model.py`` is one in 20 lines; ``module.path:build`` works wherever a name does.
Initial values come from torch's global generator: seed it before building.

Three kinds of networks share this form, so that one training compares them:

* an equilibrium: the cell is solved;
* a network of fixed depth that shares its weights (``depth``): the same cell, evaluated so often;
* an explicit network (``explicit``): the cell gives z at once, ``z = cell(*args)``.

A sequence may be read in segments. What the next one should know of this one is
``model.memory(z, args)``, and goes into ``model.args(x, memory)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Literal

from torch import Tensor, nn

from solvers.problem import State
from solvers.registries import Registry

__all__ = ["Memory", "Model", "Task", "registry"]

Memory = tuple[Tensor, ...]
"""What a segment leaves to the next one: tensors (B, …) without a graph, none at the beginning."""

Task = Literal["classification", "segmentation", "language"]


@dataclasses.dataclass(frozen=True)
class Model:
    """The parts of an equilibrium model, B samples at a time.

    What does not depend on the state belongs into ``inject``: it is then computed once, not at
    every evaluation. What all samples share is a parameter or a buffer of the cell.

    Parameters
    ----------
    inject
        x (B, …) -> the arguments of the cell: a tuple of tensors (B, …), or one such tensor. With
        ``remember``, (x, \\*memory), where the memory may be left out.
    cell
        (z, \\*args) -> z, the map whose fixed point is the model's state. Where a solver starts is
        said by its method ``initial_state(*args) -> z``, if it has one. Of an explicit network:
        (\\*args) -> z.
    readout
        z -> the prediction (B, …).
    loss
        (prediction, target) -> a scalar, the mean over the samples, in nats where it is an entropy.
        A module, if it has parameters, as an adaptive softmax does.
    data
        A name in ``experiments.data``, an iterable of batches (x, target), or None if whoever runs
        the model has to name one.
    remember
        (z*, args) -> what the next segment should know, tensors (B, …).
    depth
        The fixed number of evaluations of a network that shares its weights; None solves for z*.
    explicit
        Whether the cell is a network that gives z itself.
    task
        What is predicted: classes (logits (B, classes)), classes of each pixel (logits (B, classes,
        H, W)), or the next token (the loss is its cross entropy, whose exponential is the
        perplexity). None reports the loss alone.
    """

    inject: Callable[..., Tensor | tuple[Tensor, ...]]
    cell: nn.Module
    readout: Callable[..., Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    data: str | Iterable[tuple[Tensor, Tensor]] | None = None
    remember: Callable[..., Memory] | None = None
    depth: int | None = None
    explicit: bool = False
    task: Task | None = None

    def args(self, x: Tensor, memory: Memory = ()) -> tuple[Tensor, ...]:
        """Return what the cell gets besides the state, for the input x (B, …).

        ``memory`` is that of the segment before x, if there is one.
        """
        args = self.inject(x, *memory)
        return args if isinstance(args, tuple) else (args,)

    def memory(self, z: State, args: tuple[Tensor, ...]) -> Memory:
        """Return what the next segment should know, without a graph; nothing if that is nothing."""
        if self.remember is None:
            return ()
        return tuple(t.detach() for t in self.remember(z, args))

    def module(self) -> nn.ModuleDict:
        """Return the parts that are modules as one, which has all parameters and moves them.

        Parameters carry the name of their part: ``cell.W``, ``inject.weight``.
        """
        parts = {
            "inject": self.inject, "cell": self.cell, "readout": self.readout, "loss": self.loss
        }  # fmt: skip
        return nn.ModuleDict({k: v for k, v in parts.items() if isinstance(v, nn.Module)})


registry: Registry[Model] = Registry("model", "deq_lab.models")
for _name in (
    "mlp", "transformer", "universal_transformer", "trellisnet", "mdeq", "monotone", "revnet"
):  # fmt: skip
    registry.register(_name, f"implicit.models.{_name}:build")
