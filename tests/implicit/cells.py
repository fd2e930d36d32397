"""Small equilibria for tests, and their exact derivatives by dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import solvers
from implicit.gradients.implicit import adjoint_registry
from solvers import ForeignSolver
from solvers.extensions.peer import installed

# Those for maps of one form, which these cells do not have, are test_monotone.py's.
SPLITTINGS = [
    n
    for n in solvers.registry.names()
    if "projection" in solvers.registry.factory(n).requires  # type: ignore[attr-defined]
]
ALL = [
    n
    for n in solvers.registry.names()
    if installed(getattr(solvers.registry.factory(n), "package", "torch")) and n not in SPLITTINGS
]
FOREIGN = [n for n in ALL if issubclass(solvers.registry.factory(n), ForeignSolver)]  # type: ignore[arg-type]
OURS = [n for n in ALL if n not in FOREIGN]
# Those whose steps can be differentiated: the chain's are those of its parts.
NATIVE = [n for n in OURS if n != "fallback"]
ADJOINTS = ["gmres", "bicgstab", "neumann", "dense", "anderson", "broyden", "picard"]

every_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS)

# torch's own forward-mode rules are scripted when they are first used.
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

assert set(ADJOINTS) <= set(adjoint_registry.names())


def weights(dim: int = 4, norm: float = 0.6, seed: int = 0) -> Tensor:
    """A random matrix of this spectral norm: z = tanh(W z + u) contracts at that rate."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    return W * (norm / float(torch.linalg.matrix_norm(W, 2)))


def injection(batch: int = 3, dim: int = 4, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, generator=g, dtype=torch.float64)


def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
    return torch.tanh(z @ W.T + u)


def equilibrium(u: Tensor, W: Tensor, steps: int = 200) -> Tensor:
    """z* by plain iteration, without a graph; 0.6^200 is far below rounding."""
    with torch.no_grad():
        z = torch.zeros_like(u)
        for _ in range(steps):
            z = f(z, u, W)
    return z


def exact(u: Tensor, W: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """dL/du and dL/dW for the cotangent dL/dz*, by one dense solve a sample."""
    z = equilibrium(u, W)
    slope = 1 - z * z  # of tanh at z*, where tanh(W z + u) = z
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    J = slope[:, :, None] * W
    v = torch.linalg.solve((eye - J).mT, cotangent)
    du = slope * v
    return du, torch.einsum("bi,bj->ij", du, z)


class Cell(nn.Module):
    """z ↦ tanh(W z + u)."""

    def __init__(self, dim: int = 4, norm: float = 0.6, seed: int = 0) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(dim, norm, seed))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.T + u)


def relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return float((a - b).norm() / b.norm())
