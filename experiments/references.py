"""The float64 reference of a model on a batch: its equilibrium and its gradient, cached.

The model's weights are taken as they are (float32 weights are exact in float64), the equilibrium
is polished to a relative residual of 1e-12, and the adjoint is solved directly where the state is
small, else by GMRES to 1e-13.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import implicit
from implicit.gradients import Implicit
from implicit.models import Model
from solvers import GMRES, Anderson, Dense, Fallback, FixedPointProblem, NewtonKrylov
from solvers.problem import Layout, State

# A relative residual of a few units of rounding times the size of a row of the Jacobian.
RELTOL = 1e-12
DENSE_UP_TO = 256
FOLDER = Path("results") / "references"


@dataclass(frozen=True)
class Reference:
    """What a measured solve is compared with, in float64 on the CPU.

    Attributes
    ----------
    z
        (B, D) the equilibrium.
    gradient
        The gradient of the loss in every parameter that acts through the equilibrium, by name.
    loss
        The loss at the equilibrium.
    residual
        The largest relative residual of the equilibrium.
    sentence
        How it was computed.
    """

    z: Tensor
    gradient: dict[str, Tensor]
    loss: float
    residual: float
    sentence: str


def parts(model: Model) -> nn.ModuleDict:
    """Return the parts of a model whose parameters act through the equilibrium."""
    modules = {"inject": model.inject, "cell": model.cell}
    return nn.ModuleDict({k: m for k, m in modules.items() if isinstance(m, nn.Module)})


def problem(model: Model, x: Tensor, name: str) -> FixedPointProblem:
    """Return the fixed-point problem of a model on a batch, from the model's own start."""
    args = model.args(x)
    start = getattr(model.cell, "initial_state", None)
    z0: State = start(*args) if start is not None else torch.zeros_like(args[0])
    z0 = tuple(t.detach() for t in z0) if isinstance(z0, tuple) else z0.detach()
    return FixedPointProblem(model.cell, z0, args, name=name)


def double(model: Model) -> Model:
    """Return a copy of a model in float64 on the CPU."""
    clone = copy.deepcopy(model)
    for part in (clone.inject, clone.cell, clone.readout):
        if isinstance(part, nn.Module):
            part.to("cpu", torch.float64)
    return clone


def reference(
    model: Model, x: Tensor, target: Tensor, name: str, folder: Path = FOLDER
) -> Reference:
    """Return the reference of a model on a batch (x, target), from the cache if it is there.

    The cache knows it by the weights, the batch, the source of the cell and torch's version; what
    it holds is used only if its equilibrium still is one.
    """
    model = double(model)
    x, target = x.cpu(), target.cpu()
    x = x.double() if x.is_floating_point() else x
    target = target.double() if target.is_floating_point() else target
    path = folder / f"{_key(model, x, target)}.pt"
    given = problem(model, x, name)
    layout = Layout(given.z0)
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


def _compute(model: Model, given: FixedPointProblem, target: Tensor) -> Reference:
    layout = Layout(given.z0)
    small = layout.dim <= DENSE_UP_TO
    adjoint = Dense() if small else GMRES()
    solution = implicit.solve(
        given,
        Fallback((Anderson(window=20), NewtonKrylov(inner=100))),
        Implicit(solver=adjoint, reltol=1e-13, max_products=2000, on_failure="ignore"),
        reltol=RELTOL,
        max_evaluations=3000,
    )
    loss = model.loss(model.readout(solution.value), target)
    module = parts(model)
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    tensors = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, tensors, materialize_grads=True)
    residual = float((solution.residual / solution.scale.clamp_min(1e-300)).amax())
    how = "directly" if small else "by GMRES to 1e-13"
    return Reference(
        z=layout.pack(solution.value).detach(),
        gradient=dict(zip(names, gradients, strict=True)),
        loss=float(loss.detach()),
        residual=residual,
        sentence=f"float64 equilibrium with a relative residual of {residual:.1e},"
        f" adjoint solved {how}",
    )


def _relative(fz: Tensor, z: Tensor) -> float:
    return float(((fz - z).norm(dim=1) / fz.norm(dim=1).clamp_min(1e-300)).amax())


def _key(model: Model, x: Tensor, target: Tensor) -> str:
    digest = hashlib.sha256(torch.__version__.encode())

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
