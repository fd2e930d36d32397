"""One solve, one function: every evaluation of a solve, and of its backward, is the same map.

A function that changes between two evaluations has no equilibrium, and a backward that evaluates
it once more would linearise another one. A module changes by the random numbers that it draws
(dropout), by the buffers that it updates (batch statistics, the vectors of a power iteration), by
``train()`` and ``eval()`` between forward and backward, by autocast, and by what stands in the
place of its tensors for the time of the forward. :class:`Steady` holds all that as it was when the
solve began.

- Random numbers are noticed at the first evaluation, by the state of the generators before and
  behind it. Every later one replays them; the generators go on as after one evaluation. A call for
  some of the samples is one for the whole batch then, so that each sample meets its own numbers.
- Buffers that the first evaluation changed are, for all evaluations, as they were at the start.
  After the forward they are as its last evaluation left them, as if it had been the only one.
- Tensors that ``torch.nn.utils.parametrize`` computes are computed once, before the solve.

What does none of this costs a few comparisons. As with ``torch.func.functional_call``, a module
must not be evaluated by two threads at once.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from solvers.evaluation import forward_mode, transformed
from solvers.problem import Problem, State, parts

AnyProblem = TypeVar("AnyProblem", bound=Problem)
Table = dict[Any, Any]
States = tuple[Tensor, ...]

F = TypeVar("F", bound=Callable[..., Any])


def _uncompiled(function: F) -> F:
    """Keep the compiler off a function, but not off what it calls: off all that is around f."""
    return cast(F, torch.compiler.disable(function, recursive=False))


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
    if isinstance(function, Steady):
        return function.module
    if inspect.ismethod(function) and isinstance(function.__self__, nn.Module):
        return _Method(function.__self__, function.__name__)
    return None


def needs_gradient(t: Tensor) -> bool:
    """Whether some derivative with respect to a tensor may be asked for, or it is a batch."""
    if t.requires_grad:
        return True
    if transformed() and torch._C._functorch.is_functorch_wrapped_tensor(t):
        return True
    return forward_mode() and forward_ad.unpack_dual(t).tangent is not None


class Place(NamedTuple):
    """Where a module holds a tensor: a table and a key, and the module that computes it, if any."""

    table: Table
    key: str
    owner: nn.Module | None = None


class _Computed:
    """A parametrisation whose result is known; all else is asked of the original."""

    def __init__(self, value: Tensor, original: Any) -> None:
        self._value = value
        self._original = original

    def __call__(self) -> Tensor:
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class _Swaps:
    """Tensors put into modules for the time of an evaluation."""

    def __init__(self) -> None:
        self._undo: list[tuple[Table, Any, Any]] = []

    @_uncompiled
    def put(self, place: Place, tensor: Any) -> None:
        """Put a tensor into its place, and note what was there."""
        table, key, owner = place
        there = table[key]
        self._undo.append((table, key, there))
        if owner is None:
            table[key] = tensor
            return
        table[key] = _Computed(tensor, there)
        if parametrize._cache_enabled:  # within `parametrize.cached()` that is asked first
            cache: Table = parametrize._cache
            name = (id(owner), key)
            self._undo.append((cache, name, cache.get(name)))
            cache[name] = tensor

    @_uncompiled
    def undo(self) -> None:
        """Put back what was there."""
        for table, key, value in reversed(self._undo):
            table[key] = value


@dataclass(frozen=True)
class Held:
    """A tensor that a module holds, and the places where it does."""

    tensor: Tensor
    places: list[Place]


class Tensors:
    """The tensors of a module and of those within it.

    Attributes
    ----------
    modules
        The module and those within it.
    parameters, buffers
        Each once. What a parametrised tensor is computed from is among them only if it is used
        elsewhere too.
    computed
        The places of parametrised tensors.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self.modules: list[nn.Module] = []
        self.computed: list[Place] = []
        parameters: dict[int, Held] = {}
        buffers: dict[int, Held] = {}
        pending, seen = [module], {id(None)}
        while pending:
            module = pending.pop()
            if id(module) in seen or module is None:
                continue
            seen.add(id(module))
            self.modules.append(module)
            for found, table in ((parameters, module._parameters), (buffers, module._buffers)):
                for key, tensor in table.items():
                    if tensor is not None:
                        held = found.setdefault(id(tensor), Held(tensor, []))
                        held.places.append(Place(table, key))
            children = module._modules
            lists = children.get("parametrizations")
            if lists is not None and parametrize.is_parametrized(module):
                self.computed += [Place(lists._modules, key, module) for key in lists._modules]
            else:
                lists = None
            pending += [c for c in reversed(children.values()) if c is not lists]
        self.parameters = list(parameters.values())
        self.buffers = list(buffers.values())


class Turn(NamedTuple):
    """One evaluation: of which solve, of which samples (``None`` for all), at which state."""

    scope: Scope
    rows: Tensor | None
    z: State

    @property
    def samples(self) -> int:
        """The number of samples."""
        return parts(self.z)[0].shape[0]


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)


class _Clone(NamedTuple):
    """What stands in a buffer's places for one evaluation."""

    held: Held
    tensor: Tensor
    version: int

    @property
    def now(self) -> Any:
        """What stands there now: the clone, or what the module put there instead."""
        place = self.held.places[0]
        return place.table.get(place.key)

    @property
    def changed(self) -> bool:
        if self.now is not self.tensor or self.tensor._version != self.version:
            return True
        # Batch normalisation's kernels say nothing of it. To look would be a read of a device.
        on_host = self.tensor.device.type == "cpu" and not transformed()
        return on_host and not torch.equal(self.tensor, self.held.tensor)


class Scope:
    """What the evaluations of one solve share.

    Parameters
    ----------
    module
        What is evaluated, where it is a module.
    batch, device
        How many samples the problem has, and where they are.

    Attributes
    ----------
    random
        Whether others than :class:`implicit.normalisation.VariationalDropout` draw random numbers;
        ``None`` before the first evaluation.
    weights
        The parametrised tensors of which a derivative may be asked for, until they are taken.
    """

    def __init__(self, module: nn.Module | None, batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self.tensors = Tensors(module)
        self.random: bool | None = None
        self.weights: list[Held] = []
        self._constant: list[Held] = []
        for place in self.tensors.computed:
            tensor = getattr(place.owner, place.key)
            group = self.weights if needs_gradient(tensor) else self._constant
            group.append(Held(tensor, [place]))
        self._training = [(m, m.training) for m in self.tensors.modules]
        self._open = True  # until the forward is over
        self._plain = False  # whether nothing has to be put into the module, nor replayed
        self._start: States = ()
        self._seen: States = ()  # the generators, as far as their changes are accounted for
        self._masks: dict[Any, Tensor] = {}
        # Those that change, before the first evaluation all; those with gradients are explicit.
        self._buffers = [b for b in self.tensors.buffers if not needs_gradient(b.tensor)]
        self._initial = [b.tensor for b in self._buffers]
        self._latest: list[Any] = []

    @_uncompiled
    def evaluate(
        self,
        function: Callable[..., Any],
        z: State,
        tensors: Sequence[Tensor],
        rows: Tensor | None,
        explicit: Sequence[tuple[list[Place], Tensor]],
    ) -> Any:
        """Return function(z, \\*tensors), with explicit tensors in their places."""
        turn = Turn(self, rows, z)
        token = _turn.set(turn)
        if self._plain and not explicit:
            try:
                return function(z, *tensors)
            finally:
                _turn.reset(token)
        learning, swaps = self.random is None, _Swaps()
        before: States = ()
        try:
            clones = [] if self._plain else self._put(swaps)
            for places, tensor in explicit:
                for place in places:
                    swaps.put(place, tensor)
            if learning:
                self._masks.clear()
                self._start = self._seen = _states(self.device)
            elif self.random:
                before = _states(self.device)
                self._masks.clear()  # drawn again, for they are part of what is replayed
                _set_states(self._start, self.device)
            # What is compiled draws other numbers of the same state: whatever draws some is not.
            out = (_eager if learning or self.random else _call)(function, z, tensors)
            if learning:
                clones = self._learn(clones)
            if clones and self._open and turn.samples == self.batch:
                self._latest = [c.now for c in clones]
        finally:
            swaps.undo()
            if before:
                _set_states(before, self.device)
            _turn.reset(token)
        return out

    @_uncompiled
    def _put(self, swaps: _Swaps) -> list[_Clone]:
        """Put into the module what belongs there, but the explicit tensors."""
        if not self._open:
            self._restore(swaps)
        for held in self._constant:
            swaps.put(held.places[0], held.tensor)
        clones = []
        for held, initial in zip(self._buffers, self._initial, strict=True):
            with torch.inference_mode(False):
                clone = initial.clone()
            for place in held.places:
                swaps.put(place, clone)
            clones.append(_Clone(held, clone, clone._version))
        return clones

    @_uncompiled
    def _restore(self, swaps: _Swaps) -> None:
        """Put back what the caller changed since the forward."""
        for module, training in self._training:
            if module.training is not training:
                swaps.put(Place(module.__dict__, "training"), training)
        for held in (*self.tensors.parameters, *self.tensors.buffers):
            for place in held.places:
                if place.table.get(place.key) is not held.tensor:
                    swaps.put(place, held.tensor)

    @_uncompiled
    def _learn(self, clones: list[_Clone]) -> list[_Clone]:
        """Find out what the first evaluation changed; return the clones of what it did."""
        self.random = not _same(self._seen, _states(self.device))
        self._seen = ()
        if not self.random:
            self._start = ()
        if clones:
            # What one module holds changes together, where some of it says so and some does not.
            tables = {id(p.table) for c in clones if c.changed for p in c.held.places}
            clones = [c for c in clones if any(id(p.table) in tables for p in c.held.places)]
            self._buffers = [c.held for c in clones]
            self._initial = [b.tensor for b in self._buffers]
        self._plain = self._open and not (self.random or self._buffers or self._constant)
        return clones

    def close(self) -> None:
        """End the forward: the module's buffers are as its last evaluation left them."""
        self._open = self._plain = False
        latest, self._latest = self._latest, []
        if not latest:
            return
        with torch.no_grad(), torch.inference_mode(False):
            self._initial = [t.clone() for t in self._initial]
        with torch.no_grad():
            for held, new in zip(self._buffers, latest, strict=True):
                if isinstance(new, Tensor) and new.shape == held.tensor.shape:
                    held.tensor.copy_(new)
                else:
                    for place in held.places:
                        place.table[place.key] = new

    def mask(
        self, turn: Turn, owner: object, shape: torch.Size, draw: Callable[[torch.Size], Tensor]
    ) -> Tensor:
        """Return the mask of this shape that the owner has in this solve; the first call draws it.

        Its first axis is that of the samples, if it is as long as this evaluation's.
        """
        key, by_sample = (owner, shape[1:]), shape[0] == turn.samples
        if key not in self._masks:
            learning = self.random is None
            # If not, that stays so, and the first evaluation ends otherwise than it began.
            accounted = learning and _same(self._seen, _states(self.device))
            whole = torch.Size((self.batch, *shape[1:])) if by_sample else shape
            with torch.no_grad(), torch.inference_mode(False):
                self._masks[key] = draw(whole)
            if accounted:
                self._seen = _states(self.device)
        mask = self._masks[key]
        if not by_sample or turn.samples == self.batch:
            return mask
        if turn.rows is None:
            raise _which(self.batch, turn.samples)
        return mask[turn.rows]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def mask(owner: object, shape: torch.Size, draw: Callable[[torch.Size], Tensor]) -> Tensor:
    """Return a mask that stays the same for a solve; outside of one, a fresh one each time."""
    turn = _turn.get()
    return draw(shape) if turn is None else turn.scope.mask(turn, owner, shape, draw)


def _which(batch: int, count: int) -> RuntimeError:
    return RuntimeError(
        f"the function has random numbers for each of {batch} samples, and was called with {count}"
        " of which is not known which they are"
    )


class Steady:
    """A problem's function, the same at every evaluation of a solve, with its tensors explicit.

    It is called with the problem's args and params, then with what belongs to ``places``. Where
    only some samples are evaluated, one more arg, the last, tells their indices in the batch.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        scope: Scope,
        args: int,
        params: int,
        places: tuple[list[Place], ...],
    ) -> None:
        self.function, self.scope, self.places = function, scope, places
        self.complete = False  # whether every tensor that needs a gradient has a place
        self._args, self._given = args, args + params
        self._total = self._given + len(places)
        self._wary = False
        # What is compiled cannot be differentiated twice.
        self._compiled = any(map(_is_compiled, (function, *scope.tensors.modules)))
        self._device = kind = scope.device.type
        self._autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    @property
    def module(self) -> nn.Module | None:
        """The module behind the function."""
        return as_module(self.function)

    def completed(self) -> tuple[Steady, list[Tensor]]:
        """Return the same with all tensors explicit that need a gradient, and those that are new.

        Raises
        ------
        ValueError
            At its first call, if there are others that it closes over, with their shapes.
        """
        tensors, new = self.scope.tensors, copy.copy(self)
        found = [h for h in (*tensors.parameters, *tensors.buffers) if needs_gradient(h.tensor)]
        found = [] if self.complete else found
        new.places = (*self.places, *(h.places for h in found))
        new._total = new._given + len(new.places)
        new.complete = new._wary = True
        return new, [h.tensor for h in found]

    @_uncompiled
    def __call__(self, z: State, *tensors: Tensor) -> Any:
        """Evaluate."""
        scope, rows = self.scope, None
        if len(tensors) > self._total:
            rows = tensors[self._args]
            tensors = tensors[: self._args] + tensors[self._args + 1 :]
            rows = None if len(rows) == scope.batch else rows
        if scope.random and parts(z)[0].shape[0] != scope.batch:
            if rows is None:
                raise _which(scope.batch, parts(z)[0].shape[0])
            whole = self._spread(rows, (z, tensors[: self._args]))
            out = self(whole[0], *whole[1], *tensors[self._args :])
            return _map(lambda t: t[rows], out)
        if not self._wary:
            return self._evaluate(z, tensors, rows)
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            out = self._evaluate(z, tensors, rows)
        refuse_closures(out, (*parts(z), *tensors))
        self._wary = False
        return out if graph else _map(Tensor.detach, out)

    @_uncompiled
    def _evaluate(self, z: State, tensors: tuple[Tensor, ...], rows: Tensor | None) -> Any:
        """Evaluate in the autocast state of the forward; uncompiled, where it keeps a graph."""
        explicit: Sequence[tuple[list[Place], Tensor]] = ()
        if self.places:
            explicit = list(zip(self.places, tensors[self._given :], strict=True))
            tensors = tensors[: self._given]
        if self._compiled and (torch.is_grad_enabled() or self.scope.random is not False):
            with torch.compiler.set_stance("force_eager"):
                return self._cast(z, tensors, rows, explicit)
        return self._cast(z, tensors, rows, explicit)

    @_uncompiled
    def _cast(
        self,
        z: State,
        tensors: tuple[Tensor, ...],
        rows: Tensor | None,
        explicit: Sequence[tuple[list[Place], Tensor]],
    ) -> Any:
        evaluate = self.scope.evaluate
        if self._autocast is not None:
            # Cached casts would tie the graph of one evaluation to that of another.
            with torch.autocast(self._device, dtype=self._autocast, cache_enabled=False):
                return evaluate(self.function, z, tensors, rows, explicit)
        if torch.is_autocast_enabled(self._device):
            with torch.autocast(self._device, enabled=False):
                return evaluate(self.function, z, tensors, rows, explicit)
        return evaluate(self.function, z, tensors, rows, explicit)

    @_uncompiled
    def _spread(self, rows: Tensor, x: Any) -> Any:
        """Return some samples as a batch of all, filled up with copies of the first of them."""
        source = rows.new_zeros(self.scope.batch)
        source[rows] = torch.arange(len(rows), device=rows.device)
        return _map(lambda t: t[source], x)


def steady(problem: AnyProblem) -> AnyProblem:
    """Return the problem with a :class:`Steady` function, whose weights are computed now."""
    if isinstance(problem.function, Steady):
        return problem
    scope = Scope(as_module(problem.function), problem.batch, parts(problem.z0)[0].device)
    # What is solved for gets them as it gets params; the scope outlives the forward.
    weights, scope.weights = scope.weights, []
    places = tuple(h.places for h in weights)
    function = Steady(problem.function, scope, len(problem.args), len(problem.params), places)
    return with_function(problem, function, *(h.tensor for h in weights))


def with_function(problem: AnyProblem, function: Callable[..., Any], *params: Tensor) -> AnyProblem:
    """Return the problem with another function and these params behind its own."""
    field: Any = {"f" if hasattr(problem, "f") else "g": function}
    return replace(problem, **field, params=(*problem.params, *params))  # type: ignore[type-var]


@contextlib.contextmanager
def solving(problem: AnyProblem) -> Iterator[AnyProblem]:
    """Solve the problem that this gives in this block; behind it the forward is over."""
    given = steady(problem)
    yield given
    cast(Steady, given.function).scope.close()


def tracked(problem: AnyProblem) -> AnyProblem:
    """Return the problem with the indices of its samples as the last arg, if it is steady.

    A loop that goes on with some samples picks theirs, as it does of every arg.
    """
    if not isinstance(problem.function, Steady) or problem.batch < 2:
        return problem
    rows = torch.arange(problem.batch, device=parts(problem.z0)[0].device)
    return replace(problem, args=(*problem.args, rows))  # type: ignore[type-var]


@_uncompiled
def refuse_closures(out: Any, given: Sequence[Tensor]) -> None:
    """Raise if a result depends on tensors with gradients other than those behind the given.

    Raises
    ------
    ValueError
        Naming their shapes, and what to do.
    """
    known = {id(t) for t in given} | {id(t) for t in _leaves(given)}
    hidden = [t for t in _leaves(out) if id(t) not in known]
    if hidden:
        shapes = ", ".join(str(tuple(t.shape)) for t in hidden)
        raise ValueError(
            f"the function closes over tensors that require gradients (shapes {shapes}), which"
            " would get none: pass a torch.nn.Module itself as the function, or give the"
            " tensors as params=(…), or detach them"
        )


@_uncompiled
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


@_uncompiled
def _map(change: Callable[[Tensor], Tensor], x: Any) -> Any:
    """Change the tensors of a nest of tuples and lists."""
    if isinstance(x, tuple | list):
        return tuple(_map(change, t) for t in x)
    return change(x) if isinstance(x, Tensor) else x


def _is_compiled(function: Any) -> bool:
    """Whether a function or module is the work of ``torch.compile``."""
    return (
        getattr(function, "_torchdynamo_orig_callable", None) is not None
        or getattr(function, "_compiled_call_impl", None) is not None
        or isinstance(function, torch._dynamo.OptimizedModule)
    )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _eager(function: Callable[..., Any], z: State, tensors: Sequence[Tensor]) -> Any:
    return function(z, *tensors)


@_uncompiled
def _call(function: Callable[..., Any], z: State, tensors: Sequence[Tensor]) -> Any:
    return function(z, *tensors)


@_uncompiled
def _states(device: torch.device) -> States:
    """Return the states of the generators of the host and of the device."""
    host = torch.get_rng_state()
    return (host, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (host,)


@_uncompiled
def _set_states(states: States, device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


@_uncompiled
def _same(some: States, others: States) -> bool:
    return all(map(torch.equal, some, others))
