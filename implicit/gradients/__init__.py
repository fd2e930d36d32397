"""The gradient registry: every way to dL/dθ, one a file."""

from implicit.gradients.base import Gradient
from implicit.gradients.checkpointed import Checkpointed
from implicit.gradients.implicit import Implicit
from implicit.gradients.jacobian_free import JacobianFree
from implicit.gradients.neumann import Neumann
from implicit.gradients.phantom import Phantom
from implicit.gradients.reversible import Reversible
from implicit.gradients.shine import Shine
from implicit.gradients.unrolled import Unrolled
from solvers.registries import Registry

registry: Registry[Gradient] = Registry("gradient", "deq_lab.gradients")
for _gradient in (
    Checkpointed,
    Implicit,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
):
    registry.register(_gradient.name, _gradient)

__all__ = [
    "Checkpointed",
    "Gradient",
    "Implicit",
    "JacobianFree",
    "Neumann",
    "Phantom",
    "Reversible",
    "Shine",
    "Unrolled",
    "registry",
]
