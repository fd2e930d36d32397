"""Gradients of equilibria: ``solve`` and the layer ``DEQ``.

>>> layer = DEQ(cell, solver=Anderson(), gradient=Implicit())
>>> z = layer(x); loss(z).backward()
>>> layer.solution, layer.adjoint_solution
"""

from implicit.function import AdjointError, AdjointWarning
from implicit.gradients import Gradient, Implicit, Unrolled
from implicit.layer import DEQ
from implicit.solve import solve

__all__ = ["DEQ", "AdjointError", "AdjointWarning", "Gradient", "Implicit", "Unrolled", "solve"]
