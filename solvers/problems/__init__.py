"""Problems that know their solutions: ``registry.get("linear", radius=0.9)``.

Each is a function of typed options that returns a problem with ``solutions``. The matrices are
rounded to the problem's dtype first, and the solutions are those of the rounded problem, found in
float64 without any of our solvers.
"""

from __future__ import annotations

from solvers.problem import Problem
from solvers.registries import Registry

registry: Registry[Problem] = Registry("problem", "deq_lab.problems")
for _name in ("constant", "linear", "cosine", "tanh", "tuple_tanh"):
    registry.register(_name, f"solvers.problems.fixed_points:{_name}")
for _name in ("affine_root", "quadratic_root"):
    registry.register(_name, f"solvers.problems.roots:{_name}")

__all__ = ["registry"]
