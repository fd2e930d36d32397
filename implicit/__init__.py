"""Gradients of equilibria: ``solve`` and the layer ``DEQ``.

>>> layer = DEQ(cell, solver=Anderson(), gradient=Implicit())
>>> z = layer(x); loss(z).backward()
>>> layer.solution, layer.adjoint_solution
"""

from implicit.certificate import Certificate
from implicit.corrections import Watch, correction_loss
from implicit.function import AdjointError, AdjointWarning
from implicit.gradients import (
    Checkpointed,
    Gradient,
    Implicit,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
)
from implicit.gradients.reversible import ReconstructionError
from implicit.jacobian import (
    JacobianRegularisation,
    LinearGrowth,
    Spectrum,
    eigenvalues,
    jacobian_penalty,
    spectral_radius,
)
from implicit.layer import DEQ
from implicit.memory import Memory, memory_of
from implicit.solve import solve

__all__ = [
    "DEQ",
    "AdjointError",
    "AdjointWarning",
    "Certificate",
    "Checkpointed",
    "Gradient",
    "Implicit",
    "JacobianFree",
    "JacobianRegularisation",
    "LinearGrowth",
    "Memory",
    "Neumann",
    "Phantom",
    "ReconstructionError",
    "Reversible",
    "Shine",
    "Spectrum",
    "Unrolled",
    "Watch",
    "correction_loss",
    "eigenvalues",
    "jacobian_penalty",
    "memory_of",
    "solve",
    "spectral_radius",
]
