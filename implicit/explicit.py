"""Making every tensor that needs a gradient an explicit argument of a problem's function.

A custom derivative can only return gradients for tensors that it was given, never for those that a
function closes over. A module's parameters are found by themselves; anything else that a function
closes over is found out at its first evaluation, and refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from solvers.problem import Problem, parts


class _Method(nn.Module):
    """A bound method of a module, as a module."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.owner = owner
        self._name = name

    def forward(self, *args: Any) -> Any:
        return getattr(self.owner, self._name)(*args)


def as_module(function: Callable[..., Any]) -> nn.Module | None:
    """Return the module behind a function: itself, or the owner of a bound method."""
    if isinstance(function, nn.Module):
        return function
    if inspect.ismethod(function) and isinstance(function.__self__, nn.Module):
        return _Method(function.__self__, function.__name__)
    return None


def explicit(problem: Problem) -> Problem:
    """Return the problem with the trainable parameters of its module appended to ``params``.

    The function is evaluated under the autocast state of now, whenever that happens, so that a
    backward pass linearises the function that was solved.
    """
    function, own = problem.function, len(problem.params)
    params = problem.params
    module = as_module(function)
    if module is not None:
        found = {n: p for n, p in module.named_parameters() if p.requires_grad}
        names, inner = list(found), module

        def call(z: Any, *tensors: Tensor) -> Any:
            given, weights = (
                tensors[: len(tensors) - len(names)],
                tensors[len(tensors) - len(names) :],
            )
            return functional_call(inner, dict(zip(names, weights, strict=True)), (z, *given))

        function, params = (call if names else function), (*problem.params, *found.values())
    function = _under_autocast(function, parts(problem.z0)[0].device.type)
    field = "f" if hasattr(problem, "f") else "g"
    assert len(params) >= own
    return replace(problem, **{field: function, "params": params})  # type: ignore[type-var]


def _under_autocast(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    if not torch.is_autocast_enabled(device):
        return function
    dtype = torch.get_autocast_dtype(device)

    def call(z: Any, *tensors: Tensor) -> Any:
        # Cached casts would tie the graph of one evaluation to that of another.
        with torch.autocast(device, dtype=dtype, cache_enabled=False):
            return function(z, *tensors)

    return call


def refuse_closures(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, checked at its first call for trainable tensors that it closes over.

    Raises
    ------
    ValueError
        At that call, naming the shapes of such tensors and what to do.
    """
    checked = False

    def call(z: Any, *tensors: Tensor) -> Any:
        nonlocal checked
        if checked:
            return function(z, *tensors)
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            out = function(z, *tensors)
        given = {id(t) for t in (*parts(z), *tensors)} | {id(t) for t in _leaves(z)}
        hidden = [t for t in _leaves(out) if id(t) not in given]
        if hidden:
            shapes = ", ".join(str(tuple(t.shape)) for t in hidden)
            raise ValueError(
                f"the function closes over tensors that require gradients (shapes {shapes}), which"
                " would get none: pass a torch.nn.Module itself as the function, or give the"
                " tensors as params=(…), or detach them"
            )
        checked = True
        if graph:
            return out
        return tuple(t.detach() for t in out) if isinstance(out, tuple | list) else _detached(out)

    return call


def _detached(out: Any) -> Any:
    return out.detach() if isinstance(out, Tensor) else out


def _leaves(out: Any) -> list[Tensor]:
    """Return the leaf tensors of the graph behind ``out``."""
    tensors = out if isinstance(out, tuple | list) else (out,)
    pending = [t.grad_fn for t in tensors if isinstance(t, Tensor) and t.grad_fn is not None]
    seen, leaves = set(pending), []
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):  # where a gradient would be accumulated
            leaves.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return leaves
