"""Problems that know their solutions: ``registry.get("linear", radius=0.9)``.

Each is a function of typed options that returns a problem with ``solutions``, and says what its
``traps`` are. The matrices are rounded to the problem's dtype first, and the solutions are those of
the rounded problem, found in float64 without any of our solvers.

``STANDARD`` names the 23 systems of the nonlinear-test literature, in its order.
"""

from __future__ import annotations

from solvers.problem import Problem
from solvers.registries import Registry

STANDARD = (
    "generalized_rosenbrock",
    "powell_singular",
    "powell_badly_scaled",
    "wood",
    "helical_valley",
    "watson",
    "chebyquad",
    "brown_almost_linear",
    "discrete_boundary_value",
    "discrete_integral",
    "trigonometric",
    "variably_dimensioned",
    "broyden_tridiagonal",
    "broyden_banded",
    "hammarling_2x2",
    "hammarling_3x3",
    "dennis_schnabel",
    "sample_18",
    "sample_19",
    "cubic_double_root",
    "freudenstein_roth",
    "boggs",
    "chandrasekhar_h",
)

_MODULES = {
    "fixed_points": ("constant", "linear", "cosine", "tanh", "tanh_radius", "tuple_tanh"),
    "roots": ("affine_root", "quadratic_root", "infeasible"),
    "boundary_values": ("bratu", "bratu_picard", "snes_ex2"),
    "brusselator": ("brusselator",),
    "chandrasekhar": ("chandrasekhar_h", "h_equation"),
    "scalable_systems": (
        "generalized_rosenbrock",
        "watson",
        "chebyquad",
        "brown_almost_linear",
        "discrete_boundary_value",
        "discrete_integral",
        "trigonometric",
        "variably_dimensioned",
        "broyden_tridiagonal",
        "broyden_banded",
    ),
    "small_systems": (
        "powell_singular",
        "powell_badly_scaled",
        "wood",
        "helical_valley",
        "hammarling_2x2",
        "hammarling_3x3",
        "dennis_schnabel",
        "sample_18",
        "sample_19",
        "cubic_double_root",
        "freudenstein_roth",
        "boggs",
    ),
}

registry: Registry[Problem] = Registry("problem", "deq_lab.problems")
for _module, _names in _MODULES.items():
    for _name in _names:
        registry.register(_name, f"solvers.problems.{_module}:{_name}")

__all__ = ["STANDARD", "registry"]
