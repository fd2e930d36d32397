"""The float64 reference of a model on a batch: its equilibrium and its gradient, cached.

The model's weights are taken as they are (float32 weights are exact in float64). Where the state is
small the equilibrium is polished by Newton's method and the adjoint is solved with the dense
Jacobian; nothing of ``implicit`` takes part then. Else the equilibrium has a relative residual of
1e-12, and the adjoint is solved by GMRES to 1e-13. :func:`central_differences` checks either.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import implicit
import solvers
from implicit.gradients import Implicit
from implicit.models import Model
from solvers import GMRES, Anderson, Fallback, FixedPointProblem, NewtonKrylov, Solution
from solvers.problem import Layout, State

# A relative residual of a few units of rounding times the size of a row of the Jacobian.
RELTOL = 1e-12
# Of the state of one sample, and of all of them together.
DENSE_UP_TO, DENSE_NUMBERS = 1024, 2**23
NEWTON_STEPS = 4
# Rows of a Jacobian.
AT_ONCE = 64
FOLDER = Path("results") / "references"
# Of the file; another one is computed anew.
FORMAT = 2


@dataclass(frozen=True)
class Reference:
    """What a measured solve is compared with, in float64 on the CPU.

    Attributes
    ----------
    z
        (B, D) the equilibrium.
    gradient
        The gradient of the loss in every parameter that acts through the equilibrium, by name.
    injected
        The gradient of the loss in the cell's arguments, those that are floating.
    loss
        The loss at the equilibrium.
    residual
        The largest relative residual of the equilibrium.
    sentence
        How it was computed.
    """

    z: Tensor
    gradient: dict[str, Tensor]
    injected: list[Tensor]
    loss: float
    residual: float
    sentence: str


def parts(model: Model) -> nn.ModuleDict:
    """Return the parts of a model whose parameters act through the equilibrium."""
    modules = {"inject": model.inject, "cell": model.cell}
    return nn.ModuleDict({k: m for k, m in modules.items() if isinstance(m, nn.Module)})


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """Return the trainable parameters that act through the equilibrium, by name."""
    return {n: p for n, p in parts(model).named_parameters() if p.requires_grad}


def problem(model: Model, x: Tensor, name: str) -> FixedPointProblem:
    """Return the fixed-point problem of a model on a batch, from the model's own start."""
    args = model.args(x)
    start = getattr(model.cell, "initial_state", None)
    z0: State = start(*args) if start is not None else torch.zeros_like(args[0])
    z0 = tuple(t.detach() for t in z0) if isinstance(z0, tuple) else z0.detach()
    return FixedPointProblem(model.cell, z0, args, name=name)


def floating(args: Sequence[Tensor]) -> list[Tensor]:
    """Return those of the cell's arguments that can have a gradient."""
    return [t for t in args if t.is_floating_point()]


def differentiable(given: FixedPointProblem) -> FixedPointProblem:
    """Return the problem with arguments that require gradients, whatever injects them."""

    def wanted(t: Tensor) -> Tensor:
        apart = t.is_floating_point() and not t.requires_grad
        return t.detach().requires_grad_() if apart else t

    args = tuple(wanted(t) for t in given.args)
    return FixedPointProblem(
        given.f,
        given.z0,
        args,
        given.params,
        samples_independent=given.samples_independent,
        name=given.name,
    )


def double(model: Model) -> Model:
    """Return a copy of a model in float64 on the CPU."""
    clone = copy.deepcopy(model)
    clone.module().to("cpu", torch.float64)
    return clone


def reference(
    model: Model,
    x: Tensor,
    target: Tensor,
    name: str,
    folder: Path = FOLDER,
    *,
    start: Tensor | None = None,
) -> Reference:
    """Return the reference of a model on a batch (x, target), from the cache if it is there.

    The cache knows it by the weights, the batch, the source of the cell and torch's version; what
    it holds is used only if its equilibrium still is one.

    Parameters
    ----------
    model, x, target, name
        What the reference is of.
    folder
        Of the cache.
    start
        (B, D) a point whose equilibrium is meant, where there are several; ``None`` is the
        model's own start, and only those are cached.
    """
    model = double(model)
    x, target = wide(x), wide(target)
    given = problem(model, x, name)
    layout = Layout(given.z0)
    if start is not None:
        z0 = layout.unpack(start.detach().cpu().double())
        return _compute(model, FixedPointProblem(given.f, z0, given.args, name=name), target)
    path = folder / f"{_key(model, x, target)}.pt"
    if path.exists():
        found = Reference(**torch.load(path, weights_only=True))
        with torch.no_grad():
            fz = layout.pack(given.function(layout.unpack(found.z), *given.args))
        if _relative(fz, found.z) <= 10 * RELTOL:
            return found
    made = _compute(model, given, target)
    folder.mkdir(parents=True, exist_ok=True)
    # Other trials may write the same file: it appears whole or not at all.
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    torch.save(vars(made), temporary)
    Path(temporary).replace(path)
    return made


def wide(t: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float64 if it is floating."""
    t = t.detach().cpu()
    return t.double() if t.is_floating_point() else t


def central_differences(
    model: Model,
    x: Tensor,
    target: Tensor,
    name: str,
    known: Reference,
    *,
    directions: int = 10,
    seed: int = 0,
) -> float:
    """Return how far the reference is from central differences of the loss.

    The loss at the equilibrium is a function of the parameters alone: it is evaluated at two
    points on either side of them, along random directions of the size of the parameters, each time
    at an equilibrium of its own.

    Parameters
    ----------
    model, x, target, name
        What the reference is of.
    known
        The reference.
    directions
        How many random directions.
    seed
        Of the directions.

    Returns
    -------
    float
        The root mean square of the differences over that of the derivatives, with the better of
        two steps. One of ε^(1/3) leaves about ε^(2/3) = 4e-11 of the third derivative; one a
        hundred times smaller is more exposed to rounding, and crosses fewer kinks of a ReLU.
    """
    model = double(model)
    x, target = wide(x), wide(target)
    layout = Layout(problem(model, x, name).z0)
    weights = parameters(model)
    generator = torch.Generator().manual_seed(seed)
    moves = [
        {
            n: torch.randn(p.shape, generator=generator, dtype=torch.float64) * _size(p)
            for n, p in weights.items()
        }
        for _ in range(directions)
    ]
    exact = torch.tensor(
        [sum(float((known.gradient[n] * d).sum()) for n, d in move.items()) for move in moves]
    )
    kept = {n: p.detach().clone() for n, p in weights.items()}

    @torch.no_grad()
    def loss(move: dict[str, Tensor], length: float) -> float:
        for n, p in weights.items():
            p.copy_(kept[n] + length * move[n])
        given = problem(model, x, name)
        given = FixedPointProblem(given.f, layout.unpack(known.z), given.args, name=name)
        # Near the last digits, as the step divides them; it may stall there.
        z = layout.unpack(_equilibrium(given, reltol=1e-14)[0])
        return float(model.loss(model.readout(z), target))

    def missed(step: float) -> float:
        found = [(loss(move, step) - loss(move, -step)) / (2 * step) for move in moves]
        return float((torch.tensor(found) - exact).norm() / exact.norm())

    step = torch.finfo(torch.float64).eps ** (1 / 3)
    return min(missed(step), missed(step / 100))


def _size(parameter: Tensor) -> float:
    """Return the root mean square of a parameter's entries, 1 where all are 0."""
    return float(parameter.detach().square().mean().sqrt()) or 1.0


def _compute(model: Model, given: FixedPointProblem, target: Tensor) -> Reference:
    layout = Layout(given.z0)
    z, solution = _equilibrium(given)
    independent = solution.samples_independent
    if independent is None and len(z) > 1:
        independent = _independent(given, layout, z)
    together = len(z) if independent is False else 1
    small = (
        together * layout.dim <= DENSE_UP_TO and len(z) * layout.dim**2 * together <= DENSE_NUMBERS
    )
    given = differentiable(given)
    weights = parameters(model)
    wanted = [*weights.values(), *floating(given.args)]
    if small:
        rows = 1 if independent is False else len(z)
        z = _polished(given, layout, z, rows)
        loss, gradients = _dense(model, given, z, target, wanted, rows=rows)
        how = "with the dense Jacobian"
    else:
        solution = implicit.solve(
            FixedPointProblem(given.f, layout.unpack(z), given.args, name=given.name),
            Fallback((Anderson(window=20), NewtonKrylov(inner=100))),
            Implicit(solver=GMRES(), reltol=1e-13, max_products=2000, on_failure="ignore"),
            reltol=RELTOL,
            max_evaluations=3000,
        )
        loss = model.loss(model.readout(solution.value), target)
        gradients = torch.autograd.grad(loss, wanted, materialize_grads=True)
        z = layout.pack(solution.value).detach()
        how = "by GMRES to 1e-13"
    with torch.no_grad():
        residual = _relative(layout.pack(given.function(layout.unpack(z), *given.args)), z)
    return Reference(
        z=z,
        gradient={n: g.detach() for n, g in zip(weights, gradients, strict=False)},
        injected=[g.detach() for g in gradients[len(weights) :]],
        loss=float(loss.detach()),
        residual=residual,
        sentence=f"float64 equilibrium with a relative residual of {residual:.1e},"
        f" adjoint solved {how}",
    )


def _equilibrium(given: FixedPointProblem, reltol: float = RELTOL) -> tuple[Tensor, Solution]:
    """Return the equilibrium (B, D) of a problem, and the solution it comes from."""
    layout = Layout(given.z0)
    chain = Fallback((Anderson(window=20), NewtonKrylov(inner=100)))
    with torch.no_grad():
        frozen = FixedPointProblem(
            given.f, given.z0, tuple(t.detach() for t in given.args), name=given.name
        )
        solution = solvers.solve(frozen, chain, reltol=reltol, max_evaluations=3000)
    return layout.pack(solution.value).detach(), solution


def _independent(given: FixedPointProblem, layout: Layout, z: Tensor) -> bool:
    """Whether no sample's f depends on another sample."""
    leaf, fz = _traced(given, layout, z)
    for row in range(len(z)):
        probe = torch.zeros_like(fz)
        probe[row] = torch.linspace(0.5, 1.5, fz.shape[1], dtype=fz.dtype)
        (pulled,) = torch.autograd.grad(fz, leaf, probe, retain_graph=True, materialize_grads=True)
        pulled = pulled.clone()
        pulled[row] = 0
        if bool((pulled != 0).any()):
            return False
    return True


def _traced(given: FixedPointProblem, layout: Layout, z: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        return leaf, layout.pack(given.function(layout.unpack(leaf), *given.args))


def _polished(given: FixedPointProblem, layout: Layout, z: Tensor, rows: int) -> Tensor:
    """Return the equilibrium (B, D) near z: Newton steps with one Jacobian, while they help."""
    jacobian = _jacobian(*_traced(given, layout, z), rows)
    inverse = torch.linalg.inv(torch.eye(jacobian.shape[1], dtype=z.dtype) - jacobian)
    with torch.no_grad():

        def residual(z: Tensor) -> Tensor:
            return layout.pack(given.function(layout.unpack(z), *given.args)) - z

        best, r = z, residual(z)
        for _ in range(NEWTON_STEPS):
            moved = best + (inverse @ r.reshape(rows, -1, 1)).reshape(z.shape)
            after = residual(moved)
            if not float(after.norm()) < float(r.norm()):
                break
            best, r = moved, after
    return best


def _dense(
    model: Model,
    given: FixedPointProblem,
    z: Tensor,
    target: Tensor,
    wanted: Sequence[Tensor],
    *,
    rows: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the loss and its gradients in the wanted tensors, with the dense Jacobian at z."""
    layout = Layout(given.z0)
    leaf, fz = _traced(given, layout, z)
    jacobian = _jacobian(leaf, fz, rows)
    with torch.enable_grad():
        loss = model.loss(model.readout(layout.unpack(leaf)), target)
        # A readout may share parameters with the cell: their direct part belongs to the gradient.
        cotangent, *direct = torch.autograd.grad(loss, [leaf, *wanted], materialize_grads=True)
    system = torch.eye(jacobian.shape[1], dtype=z.dtype) - jacobian
    u = torch.linalg.solve(system.mT, cotangent.reshape(rows, -1, 1)).reshape(z.shape)
    through = torch.autograd.grad(fz, wanted, u, materialize_grads=True)
    return loss.detach(), tuple(a + b for a, b in zip(direct, through, strict=True))


def _jacobian(leaf: Tensor, fz: Tensor, rows: int) -> Tensor:
    """Return J as blocks (rows, n, n), some rows of each at a time."""
    n = fz.numel() // rows
    if not fz.requires_grad:
        return torch.zeros(rows, n, n, dtype=fz.dtype)
    units = torch.eye(n, dtype=fz.dtype)[:, None].expand(n, rows, n)

    def pulled(some: Tensor, *, batched: bool) -> Tensor:
        shaped = some.reshape(*some.shape[: int(batched)], *fz.shape)
        (found,) = torch.autograd.grad(
            fz, leaf, shaped, retain_graph=True, is_grads_batched=batched, materialize_grads=True
        )
        return found.expand(*some.shape[: int(batched)], *leaf.shape).reshape(some.shape)

    try:
        blocks = [pulled(some, batched=True) for some in units.split(AT_ONCE)]
        jacobian = torch.cat(blocks)
    except RuntimeError:  # an operation without a rule for vmap
        jacobian = torch.stack([pulled(unit, batched=False) for unit in units])
    return jacobian.transpose(0, 1)


def _relative(fz: Tensor, z: Tensor) -> float:
    return float(((fz - z).norm(dim=1) / fz.norm(dim=1).clamp_min(1e-300)).amax())


def _key(model: Model, x: Tensor, target: Tensor) -> str:
    digest = hashlib.sha256(f"{FORMAT} {torch.__version__}".encode())

    def add(tensor: Tensor) -> None:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())

    for part in (model.inject, model.cell, model.readout, model.loss):
        digest.update(_source(part))
        if isinstance(part, nn.Module):
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(name.encode())
                add(tensor)
    add(x)
    add(target)
    return digest.hexdigest()


def _source(thing: Any) -> bytes:
    """Return the source file of a function or of a module's class, as far as there is one."""
    try:
        file = inspect.getsourcefile(type(thing) if isinstance(thing, nn.Module) else thing)
        return Path(file).read_bytes() if file else b""
    except (TypeError, OSError):
        return b""
