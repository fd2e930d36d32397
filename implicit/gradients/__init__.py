"""The gradient registry: every way to dL/dθ, one a file."""

from implicit.gradients.base import Gradient
from implicit.gradients.implicit import Implicit
from implicit.gradients.unrolled import Unrolled
from solvers.registries import Registry

registry: Registry[Gradient] = Registry("gradient", "deq_lab.gradients")
for _gradient in (Implicit, Unrolled):
    registry.register(_gradient.name, _gradient)

__all__ = ["Gradient", "Implicit", "Unrolled", "registry"]
