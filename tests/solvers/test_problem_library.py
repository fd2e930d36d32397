"""What is particular to each problem: its formula, its facts from the literature, its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from maps import EPS, pack, residual
from scipy.optimize import least_squares, linear_sum_assignment
from torch import Tensor

from solvers import FixedPointProblem, OptionError, RootProblem
from solvers.problem import Problem
from solvers.problems import STANDARD, registry
from solvers.problems.common import tanh_equilibrium

Numbers = Sequence[float]


def root_problem(name: str, **options: Any) -> RootProblem:
    problem = registry.get(name, **options)
    assert isinstance(problem, RootProblem)
    return problem


def fixed_point(name: str, **options: Any) -> FixedPointProblem:
    problem = registry.get(name, **options)
    assert isinstance(problem, FixedPointProblem)
    return problem


def matrix_of(problem: Problem, z: Any) -> Tensor:
    """(B, D, D) the problem's own Jacobian."""
    assert problem.jacobian is not None
    return problem.jacobian(z, *problem.args, *problem.params)


# The 23 formulas once more, sum by sum as they are printed, with indices from 1.


def rosenbrock(x: Numbers) -> list[float]:
    return [1 - x[0], *(10 * (x[i] - x[i - 1] ** 2) for i in range(1, len(x)))]


def powell_singular(x: Numbers) -> list[float]:
    return [
        x[0] + 10 * x[1],
        math.sqrt(5) * (x[2] - x[3]),
        (x[1] - 2 * x[2]) ** 2,
        math.sqrt(10) * (x[0] - x[3]) ** 2,
    ]


def powell_badly_scaled(x: Numbers) -> list[float]:
    return [10**4 * x[0] * x[1] - 1, math.exp(-x[0]) + math.exp(-x[1]) - 1.0001]


def wood(x: Numbers) -> list[float]:
    """The gradient of Wood's function, its first and third number halved, as in MINPACK."""

    def value(y: Tensor) -> Tensor:
        a, b, c, d = y
        return (
            100 * (b - a**2) ** 2
            + (1 - a) ** 2
            + 90 * (d - c**2) ** 2
            + (1 - c) ** 2
            + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2)
            + 19.8 * (b - 1) * (d - 1)
        )

    a, b, c, d = half_gradient(value, x)
    return [a, 2 * b, c, 2 * d]


def half_gradient(value: Callable[[Tensor], Tensor], x: Numbers) -> list[float]:
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    half: list[float] = (slope / 2).tolist()
    return half


def helical_valley(x: Numbers) -> list[float]:
    turn = math.atan(x[1] / x[0]) / (2 * math.pi) if x[0] else 0.25 * np.sign(x[1])
    turn += 0.5 if x[0] < 0 else 0
    return [10 * (x[2] - 10 * turn), 10 * (math.hypot(x[0], x[1]) - 1), x[2]]


def watson_residuals(x: Tensor) -> list[Tensor]:
    """The 31 residuals of Moré, Garbow & Hillstrom, no. 20."""
    n, found = len(x), []
    for i in range(1, 30):
        t = i / 29
        first = sum((j - 1) * t ** (j - 2) * x[j - 1] for j in range(2, n + 1))
        second = sum(t ** (j - 1) * x[j - 1] for j in range(1, n + 1))
        found.append(first - second**2 - 1)
    return [*found, x[0], x[1] - x[0] ** 2 - 1]


def watson(x: Numbers) -> list[float]:
    return half_gradient(lambda y: sum(r**2 for r in watson_residuals(y)), x)  # type: ignore[arg-type,return-value]


def chebyquad(x: Numbers) -> list[float]:
    n = len(x)
    return [
        sum(np.polynomial.Chebyshev.basis(i)(y) for y in x) / n
        + (1 / (i**2 - 1) if i % 2 == 0 else 0)
        for i in range(1, n + 1)
    ]


def brown(x: Numbers) -> list[float]:
    n = len(x)
    return [*(x[i] + sum(x) - (n + 1) for i in range(n - 1)), math.prod(x) - 1]


def boundary_value(x: Numbers) -> list[float]:
    n = len(x)
    h = 1 / (n + 1)
    y = [0, *x, 0]
    return [
        2 * y[k] - y[k - 1] - y[k + 1] + h**2 * (y[k] + k * h + 1) ** 3 / 2 for k in range(1, n + 1)
    ]


def integral(x: Numbers) -> list[float]:
    n = len(x)
    h = 1 / (n + 1)
    t = [k * h for k in range(n + 1)]
    cube = [0, *((x[j - 1] + t[j] + 1) ** 3 for j in range(1, n + 1))]
    return [
        x[k - 1]
        + h
        / 2
        * (
            (1 - t[k]) * sum(t[j] * cube[j] for j in range(1, k + 1))
            + t[k] * sum((1 - t[j]) * cube[j] for j in range(k + 1, n + 1))
        )
        for k in range(1, n + 1)
    ]


def trigonometric(x: Numbers) -> list[float]:
    n = len(x)
    total = sum(math.cos(y) for y in x)
    return [n - total + k * (1 - math.cos(x[k - 1])) - math.sin(x[k - 1]) for k in range(1, n + 1)]


def variably_dimensioned(x: Numbers) -> list[float]:
    s = sum(j * (y - 1) for j, y in enumerate(x, start=1))
    return [y - 1 + k * s * (1 + 2 * s**2) for k, y in enumerate(x, start=1)]


def tridiagonal(x: Numbers) -> list[float]:
    y = [0, *x, 0]
    return [(3 - 2 * y[k]) * y[k] + 1 - y[k - 1] - 2 * y[k + 1] for k in range(1, len(x) + 1)]


def banded(x: Numbers) -> list[float]:
    n = len(x)
    return [
        x[k] * (2 + 5 * x[k] ** 2)
        + 1
        - sum(x[j] * (1 + x[j]) for j in range(max(0, k - 5), min(n, k + 2)) if j != k)
        for k in range(n)
    ]


def square_root(x: Numbers) -> list[float]:
    n = math.isqrt(len(x))
    X = np.reshape(x, (n, n))
    A = 1e-4 * np.eye(n)
    A[0, 1] = 1
    found: list[float] = (X @ X - A).flatten().tolist()
    return found


def sample_18(x: Numbers) -> list[float]:
    return [
        x[1] ** 2 * (1 - math.exp(-(x[0] ** 2))) / x[0] if x[0] else 0,
        x[0] * (1 - math.exp(-(x[1] ** 2))) / x[1] if x[1] else 0,
    ]


def freudenstein(x: Numbers) -> list[float]:
    a, b = x
    return [a - b**3 + 5 * b**2 - 2 * b - 13, a + b**3 + b**2 - 14 * b - 29]


def h_equation(x: Numbers) -> list[float]:
    n = len(x)
    return [
        x[i - 1] - 1 / (1 - 0.9 / (2 * n) * sum(i * x[j - 1] / (i + j) for j in range(1, n + 1)))
        for i in range(1, n + 1)
    ]


FORMULAS: dict[str, tuple[Callable[[Numbers], Sequence[float]], int]] = {
    "generalized_rosenbrock": (rosenbrock, 10),
    "powell_singular": (powell_singular, 4),
    "powell_badly_scaled": (powell_badly_scaled, 2),
    "wood": (wood, 4),
    "helical_valley": (helical_valley, 3),
    "watson": (watson, 2),
    "chebyquad": (chebyquad, 2),
    "brown_almost_linear": (brown, 10),
    "discrete_boundary_value": (boundary_value, 10),
    "discrete_integral": (integral, 10),
    "trigonometric": (trigonometric, 10),
    "variably_dimensioned": (variably_dimensioned, 10),
    "broyden_tridiagonal": (tridiagonal, 10),
    "broyden_banded": (banded, 10),
    "hammarling_2x2": (square_root, 4),
    "hammarling_3x3": (square_root, 9),
    "dennis_schnabel": (lambda x: [x[0] + x[1] - 3, x[0] ** 2 + x[1] ** 2 - 9], 2),
    "sample_18": (sample_18, 2),
    "sample_19": (lambda x: [y * (x[0] ** 2 + x[1] ** 2) for y in x], 2),
    "cubic_double_root": (lambda x: [x[0] * (x[0] - 5) ** 2], 1),
    "freudenstein_roth": (freudenstein, 2),
    "boggs": (lambda x: [x[0] ** 2 - x[1] + 1, x[0] - math.cos(math.pi * x[1] / 2)], 2),
    "chandrasekhar_h": (h_equation, 10),
}

STARTS: dict[str, Numbers] = {
    "generalized_rosenbrock": [-1.2, *[1.0] * 9],
    "powell_singular": [3, -1, 0, 1],
    "powell_badly_scaled": [0, 1],
    "wood": [-3, -1, -3, -1],
    "helical_valley": [-1, 0, 0],
    "watson": [0, 0],
    "chebyquad": [0, 2 / 3],
    "brown_almost_linear": [0.5] * 10,
    "discrete_boundary_value": [k / 11 * (k / 11 - 1) for k in range(1, 11)],
    "discrete_integral": [k / 11 * (k / 11 - 1) for k in range(1, 11)],
    "trigonometric": [0.1] * 10,
    "variably_dimensioned": [1 - k / 10 for k in range(1, 11)],
    "broyden_tridiagonal": [-1] * 10,
    "broyden_banded": [-1] * 10,
    "hammarling_2x2": [1, 0, 0, 1],
    "hammarling_3x3": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "dennis_schnabel": [1, 5],
    "sample_18": [2, 2],
    "sample_19": [3, 3],
    "cubic_double_root": [1],
    "freudenstein_roth": [0.5, -2],
    "boggs": [1, 0],
    "chandrasekhar_h": [1] * 10,
}


def test_all_standard_systems_are_here() -> None:
    assert list(FORMULAS) == list(STANDARD)


@pytest.mark.parametrize("name", STANDARD)
def test_the_formula_is_that_of_the_literature(name: str) -> None:
    formula, n = FORMULAS[name]
    problem = root_problem(name, starts=6, spread=1.0)
    z = pack(problem, problem.z0)
    assert z.shape == (6, n)
    start = torch.tensor(STARTS[name], dtype=torch.float64)
    assert (z[0] - start).abs().max() <= 4 * EPS["float64"]
    value = residual(problem, z)
    for row, out in zip(z.tolist(), value, strict=True):
        expected = torch.tensor(np.array(formula(row), dtype=float))
        # Rounding of terms that are at most ten, each as large as the Jacobian times z.
        size = max(1.0, float(expected.abs().max()), float(matrix_of(problem, z).abs().max()))
        assert (out - expected).abs().max() <= 1e-13 * size


@pytest.mark.parametrize("n", [3, 6, 12])
def test_watson_is_half_the_gradient_of_its_squares(n: int) -> None:
    problem = root_problem("watson", n=n, starts=3, spread=0.5)
    for row, out in zip(problem.z0.tolist(), residual(problem, problem.z0), strict=True):  # type: ignore[union-attr]
        expected = torch.tensor(watson(row), dtype=torch.float64)
        assert (out - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))


def test_watson_has_the_gradient_that_minpack_has() -> None:
    problem = root_problem("watson")
    value = problem.g(torch.tensor([[0.3, 0.7]], dtype=torch.float64))
    expected = torch.tensor([[33.58448276, -0.18410898]], dtype=torch.float64)
    assert (value - expected).abs().max() < 5e-9  # as many digits as are printed


@pytest.mark.parametrize(("n", "least"), [(6, 2.28767e-3), (9, 1.39976e-6), (12, 4.72238e-10)])
def test_watson_has_the_published_minima(n: int, least: float) -> None:
    (root,) = root_problem("watson", n=n).solutions
    assert isinstance(root, Tensor)
    total = float(sum(r**2 for r in watson_residuals(root[0])))
    assert abs(total / least - 1) < 1e-5


@pytest.mark.parametrize("n", [2, 5, 9])
def test_chebyquad_integrates_exactly(n: int) -> None:
    """The mean over the nodes is the mean over [−1, 1] of every polynomial up to degree n."""
    nodes = root_problem("chebyquad", n=n).solutions[0]
    assert isinstance(nodes, Tensor)
    for degree in range(1, n + 1):
        mean = 0.0 if degree % 2 else 1 / (degree + 1)
        assert abs(float((nodes**degree).mean()) - mean) < 1e-14


# Roots and other facts of the literature.


ROOTS: dict[str, Numbers] = {
    "powell_badly_scaled": [1.0981593296998175e-05, 9.106146739866524],
    "watson": [-0.5013670075219631, 1.073649838459543],
    "discrete_boundary_value": [
        -0.04316498251876433,
        -0.0815771565353858,
        -0.11448571438052774,
        -0.14097357686259473,
        -0.15990869618198097,
        -0.16987720231277278,
        -0.16908998378120643,
        -0.1552495352218303,
        -0.12535589167893393,
        -0.07541653368589156,
    ],
    "trigonometric": [
        0.01782165611097476,
        0.01798638222627775,
        0.018157433958787564,
        0.018335285059346583,
        0.01852046448127387,
        0.018713565371353002,
        0.018915255985870728,
        0.01912629305275284,
        0.019347538274519346,
        0.1797573260720426,
    ],
    "broyden_tridiagonal": [
        -0.5707221320112248,
        -0.6818069499842752,
        -0.70221007601766,
        -0.7055106298950804,
        -0.7049061557287437,
        -0.7014966070298512,
        -0.6918893223547983,
        -0.6657965144058537,
        -0.5960351090263657,
        -0.4164122575286934,
    ],
    "broyden_banded": [
        -0.4283028635872503,
        -0.47659642435629024,
        -0.5196524636468617,
        -0.5580993248321808,
        -0.5925061568294573,
        -0.624503682199468,
        -0.6232394714405911,
        -0.6213938417965734,
        -0.6204535966590874,
        -0.5864692707204351,
    ],
    "chandrasekhar_h": [
        1.1459899509816942,
        1.2587119025210827,
        1.35441772088147,
        1.4385200983402777,
        1.5137765921168158,
        1.5818950914839096,
        1.6440565620218266,
        1.701135680958738,
        1.7538106144835302,
        1.8026243191695792,
    ],
    "brown_almost_linear": [*[0.9794303033498606] * 9, 1.2056969665013961],
    "wood": [-0.96797402, 0.94713914, -0.96951631, 0.95124767],
}
ROOTS["discrete_integral"] = ROOTS["discrete_boundary_value"]


@pytest.mark.parametrize("name", ROOTS)
def test_published_roots_are_known(name: str) -> None:
    problem = root_problem(name)
    expected = torch.tensor([ROOTS[name]], dtype=torch.float64)
    distance = min(float((pack(problem, z) - expected).abs().max()) for z in problem.solutions)
    # Of Wood's root 8 digits are printed; otherwise rounding times a condition of at most 130.
    assert distance < (1e-8 if name == "wood" else 1e-13)


def test_the_integral_equation_has_the_root_of_the_boundary_value_problem() -> None:
    """The sum over j ≥ k of a known library counts a term twice, and has another root."""
    for n in (10, 40):
        (one,) = root_problem("discrete_integral", n=n).solutions
        (two,) = root_problem("discrete_boundary_value", n=n).solutions
        # The boundary value problem has a condition near n², and rounding as much.
        assert (pack_one(one) - pack_one(two)).abs().max() < 2e-16 * n**2


def pack_one(z: Any) -> Tensor:
    assert isinstance(z, Tensor)
    return z


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("generalized_rosenbrock", 4.4),
        ("variably_dimensioned", 1.14e6),
    ],
)
def test_first_residuals(name: str, largest: float) -> None:
    problem = root_problem(name)
    assert abs(float(residual(problem, problem.z0).abs().max()) / largest - 1) < 2e-3


@pytest.mark.parametrize(
    ("name", "published"),
    [("powell_badly_scaled", 8e8), ("hammarling_2x2", 4e10), ("hammarling_3x3", 4e10)],
)
def test_conditions(name: str, published: float) -> None:
    problem = root_problem(name)
    condition = float(torch.linalg.cond(matrix_of(problem, problem.solutions[0])))
    assert 0.8 < condition / published < 1.2  # one digit is printed


def newton(problem: Problem, z: Tensor, steps: int) -> list[float]:
    """The residuals of plain Newton."""
    found = []
    for _ in range(steps):
        r = residual(problem, z)
        found.append(float(r.norm()))
        z = z - torch.linalg.solve(matrix_of(problem, z), r)
    return found


@pytest.mark.parametrize(
    ("name", "rate"),
    # A root of order k takes 1 − 1/k off the distance, of which the residual is the k-th power.
    [("powell_singular", 1 / 4), ("sample_19", (2 / 3) ** 3)],
)
def test_newton_is_linear_at_a_singular_root(name: str, rate: float) -> None:
    problem = root_problem(name)
    r = newton(problem, pack(problem, problem.z0), 20)
    assert abs(r[-1] / r[-2] - rate) < 1e-6


def test_newton_is_linear_at_the_double_root_and_at_the_fold() -> None:
    problem = root_problem("cubic_double_root")
    r = newton(problem, torch.tensor([[6.0]], dtype=torch.float64), 20)
    assert abs(r[-1] / r[-2] - 1 / 4) < 1e-4
    problem = root_problem("chandrasekhar_h", c=1.0)
    r = newton(problem, pack(problem, problem.z0), 15)
    assert abs(r[-1] / r[-2] - 1 / 4) < 1e-3
    regular = root_problem("chandrasekhar_h", c=0.9)
    assert newton(regular, pack(regular, regular.z0), 7)[-1] < 1e-13


def test_both_axes_are_roots_of_sample_18_and_nothing_overflows_there() -> None:
    problem = root_problem("sample_18")
    sizes = [-1e200, -5.0, -1e-9, -1e-200, 0.0, 1e-300, 1e-8, 2.0, 1e150]
    x = torch.tensor(sizes, dtype=torch.float64)
    for z in (torch.stack((x, 0 * x), 1), torch.stack((0 * x, x), 1)):
        assert torch.equal(residual(problem, z), torch.zeros_like(z))
    near = torch.tensor([[1e-9, 1e-200], [1e-7, -3e-8]], dtype=torch.float64)
    value = residual(problem, near)
    exact = torch.stack((near[:, 1] ** 2 * near[:, 0], near[:, 0] * near[:, 1]), 1)  # φ(x) ≈ x
    assert torch.allclose(value, exact, rtol=1e-12, atol=0)
    assert matrix_of(problem, near).isfinite().all()


def test_the_helical_valley_is_cut_along_a_half_plane_alone() -> None:
    problem = root_problem("helical_valley")
    tiny = 1e-12

    def jump(y: float) -> float:
        sides = torch.tensor([[tiny, y, 0.0], [-tiny, y, 0.0]], dtype=torch.float64)
        value = residual(problem, sides)
        return float((value[0] - value[1]).abs().max())

    assert abs(jump(-1.0) - 100) < 1e-9
    assert jump(1.0) < 1e-9
    on = torch.tensor([[0.0, -2.0, 0.0], [0.0, 2.0, 0.0], [-1.0, -0.0, 0.0]], dtype=torch.float64)
    turns = -residual(problem, on)[:, 0] / 100
    assert torch.equal(turns, torch.tensor([-0.25, 0.25, 0.5], dtype=torch.float64))


def stationary(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (D) and the eigenvalues of the Hessian (D) of half the squares at z (1, D)."""

    def half(x: Tensor) -> Tensor:
        return residual(problem, x[None]).square().sum() / 2

    hessian = torch.func.hessian(half)(z[0])
    return torch.func.grad(half)(z[0]), torch.linalg.eigvalsh(hessian)


@pytest.mark.parametrize(
    ("name", "near", "squares", "largest"),
    [
        ("freudenstein_roth", [11.412779, -0.896805], 48.98425, 4.948952),
        ("trigonometric", None, 2.79506e-5, 4.2954e-3),
        ("infeasible", [0.0] * 10, 10.0, 1.0),
    ],
)
def test_local_minima_hold_back_who_only_descends(
    name: str, near: list[float] | None, squares: float, largest: float
) -> None:
    problem = root_problem(name, dtype="float64")
    z0 = torch.tensor([near], dtype=torch.float64) if near else pack(problem, problem.z0)[:1]

    def g(x: Any) -> Any:
        return residual(problem, torch.tensor(x)[None])[0].numpy()

    found = least_squares(g, z0[0].numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    z = torch.tensor(found.x)[None]
    r = residual(problem, z)
    assert abs(float(r.square().sum()) / squares - 1) < 1e-5
    assert abs(float(r.abs().max()) / largest - 1) < 1e-4
    slope, curvature = stationary(problem, z)
    assert slope.abs().max() < 1e-6 * float(curvature.max())
    assert curvature.min() > 0


@pytest.mark.parametrize(("n", "squares"), [(8, 3.51687e-3), (10, 6.50395e-3)])
def test_chebyquad_without_a_root_has_the_published_minimum(n: int, squares: float) -> None:
    problem = root_problem("chebyquad", n=n)
    assert "no_root" in problem.traps
    # The published start is that of equal distances, in MINPACK's interval [0, 1].
    start = 2 * np.arange(1, n + 1) / (n + 1) - 1
    found = least_squares(lambda x: residual(problem, torch.tensor(x)[None])[0].numpy(), start)
    assert abs(2 * found.cost / squares - 1) < 1e-5


def test_the_infeasible_residual_is_never_small() -> None:
    problem = registry.get("infeasible", dtype="float64")
    z = 10 * torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)).double()
    assert (residual(problem, z) >= 1).all()


def test_all_roots_of_the_trigonometric_system_in_one_period() -> None:
    """Newton from many points finds no other one, and most of these."""
    problem = root_problem("trigonometric")
    known = torch.cat([pack(problem, z) for z in problem.solutions])
    g = torch.Generator().manual_seed(0)
    z = 0.1 + 0.3 * torch.randn(400, 10, generator=g, dtype=torch.float64)
    for _ in range(60):
        z = z - torch.linalg.solve_ex(matrix_of(problem, z), residual(problem, z))[0]
    # Far out, cos and sin lose digits.
    good = (residual(problem, z).abs().amax(1) < 1e-12) & (z.abs().amax(1) < 100)
    turned = torch.remainder(z[good] + math.pi, 2 * math.pi) - math.pi
    apart = (turned[:, None] - known).abs().amax(-1)
    assert good.sum() > 20
    assert (apart.amin(1) < 1e-10).all()
    assert len(set(apart.argmin(1).tolist())) > len(known) / 2


def test_brown_has_a_third_root_for_odd_sizes() -> None:
    roots = root_problem("brown_almost_linear", n=7).solutions
    alphas = [float(pack_one(z)[0, 0]) for z in roots]
    assert sorted(a > 0 for a in alphas) == [False, True, True]
    for a in alphas:
        assert abs(7 * a**7 - 8 * a**6 + 1) < 1e-14


def test_square_roots_of_opposite_sign_are_a_family() -> None:
    """Why hammarling_3x3 lists two roots and has more."""
    problem = root_problem("hammarling_3x3")
    z = torch.tensor([[0.01, 50, 0, 0, 0.01, 0, 0, 0, -0.01]], dtype=torch.float64)
    for shift in (0.0, 1.0, -3.0):  # (1, 3) commutes with the rest
        z[0, 2] = shift
        assert residual(problem, z).abs().max() < 1e-15
    assert torch.linalg.svdvals(matrix_of(problem, z))[0, -1] < 1e-12


# The H-equation.


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 10, 60])
def test_the_sum_of_an_h_function(c: float, n: int) -> None:
    """(c / 2n) Σ x = 1 ∓ √(1 − c), for any nodes: both solutions, and that there are two."""
    problem = root_problem("chandrasekhar_h", c=c, n=n)
    sums = [c / 2 * float(pack_one(z).mean()) for z in problem.solutions]
    expected = [1 - math.sqrt(1 - c), 1 + math.sqrt(1 - c)][: 2 if c < 1 else 1]
    assert sums == pytest.approx(expected, abs=1e-11)


def spectral_radius(matrices: Tensor) -> float:
    return float(torch.linalg.eigvals(matrices).abs().max())


def test_the_h_equation_gets_harder_with_c() -> None:
    radii = []
    for c in (0.1, 0.5, 0.9, 0.99, 0.9999, 1.0):
        problem = fixed_point("h_equation", c=c)
        radii.append(spectral_radius(matrix_of(problem, problem.solutions[0])))
        for other in problem.solutions[1:]:  # the larger solution repels
            assert spectral_radius(matrix_of(problem, other)) > 1
    assert radii == sorted(radii)
    assert abs(radii[-1] - 1) < 1e-12
    assert radii[-2] < 0.99


# Boundary value problems.


@pytest.mark.parametrize(
    ("strength", "lower", "upper"),
    [
        (1.0, 0.1405392144, 4.0914672462),
        (2.0, 0.3289524213, 2.8955312655),
        (3.5, 1.0851589478, 1.2945854791),
    ],
)
def test_bratu_converges_to_both_analytic_midpoints(
    strength: float, lower: float, upper: float
) -> None:
    """As h²: the error falls four times when h is halved."""
    errors = []
    for n in (63, 127):
        problem = root_problem("bratu", strength=strength, n=n)
        middles = [float(pack_one(z)[0, n // 2]) for z in problem.solutions]
        errors.append([abs(a - b) for a, b in zip(middles, (lower, upper), strict=True)])
    for coarse, fine in zip(*errors, strict=True):
        assert 3.8 < coarse / fine < 4.2
        assert fine < 1e-3


def test_the_branch_decides_the_start_and_the_first_root() -> None:
    lower, upper = (root_problem("bratu", branch=b) for b in ("lower", "upper"))
    assert torch.equal(pack_one(lower.solutions[0]), pack_one(upper.solutions[1]))
    assert torch.equal(pack_one(lower.solutions[1]), pack_one(upper.solutions[0]))
    for problem in (lower, upper):
        z = pack(problem, problem.z0)
        for _ in range(12):
            z = z - torch.linalg.solve(matrix_of(problem, z), residual(problem, z))
        assert (z - pack_one(problem.solutions[0])).abs().max() < 1e-12


def test_past_the_fold_there_is_no_bratu_problem() -> None:
    with pytest.raises(OptionError, match=r"problem\.strength = 3\.5138: .* no two roots"):
        registry.get("bratu", strength=3.5138)
    with pytest.raises(OptionError, match=r"problem\.strength = 3\.6: .*less than 3\.5138"):
        registry.get("bratu", strength=3.6)


def test_the_picard_map_contracts_less_and_less_towards_the_fold() -> None:
    lower, upper = [], []
    for strength in (0.1, 1.0, 2.0, 3.0, 3.5, 3.51):
        problem = fixed_point("bratu_picard", strength=strength)
        one, two = (spectral_radius(matrix_of(problem, z)) for z in problem.solutions)
        lower.append(one)
        upper.append(two)
    assert lower == sorted(lower)
    assert upper == sorted(upper, reverse=True)
    assert 0.9 < lower[-1] < 1 < upper[-1] < 1.1


def test_snes_ex2_is_exact_on_every_grid() -> None:
    for n in (3, 128):
        x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
        assert torch.allclose(pack_one(root_problem("snes_ex2", n=n).solutions[0])[0], x**3)


@pytest.mark.parametrize(
    ("N", "u", "v", "first"),
    [(16, 1.13671875, 2.991063, None), (32, 1.146484375, 2.965586, 1440.48)],
)
def test_brusselator(N: int, u: float, v: float, first: float | None) -> None:
    problem = root_problem("brusselator", N=N)
    root = pack_one(problem.solutions[0])[0]
    (forcing,) = problem.params
    # Rounding of the residual, 10⁻¹⁶ α N² times u, is what the mean may be off.
    assert abs(float(root[0].mean()) - (1 + float(forcing.mean()))) < 1e-16 * 10 * N**2 * 50
    assert abs(float(root[0].mean()) - u) < 1e-11
    assert abs(float(root[1].mean()) - v) < 5e-7
    if first is not None:
        assert abs(float(residual(problem, problem.z0).abs().max()) - first) < 5e-3


# Prescribed spectra.


def distance(one: Tensor, two: Tensor) -> float:
    """How far two sets of eigenvalues are apart, each number matched with one of the other set."""
    apart = (one[:, None] - two).abs()
    rows, columns = linear_sum_assignment(apart.numpy())
    return float(apart[rows, columns].max())


def expected_spectrum(spectrum: str, radius: float, dim: int, rank: int) -> Tensor:
    if spectrum in ("real", "nonnormal", "one_sided"):
        low = 0.0 if spectrum == "one_sided" else -radius
        return torch.linspace(low, radius, dim, dtype=torch.float64) + 0j
    if spectrum == "low_rank":
        found = torch.zeros(dim, dtype=torch.complex128)
        found[:rank] = radius * torch.arange(1, rank + 1, dtype=torch.float64) / rank
        return found
    angles = math.pi / dim * (2 * torch.arange(dim // 2, dtype=torch.float64) + 1)
    sizes = torch.full((dim // 2,), radius, dtype=torch.float64)
    if spectrum == "disc":
        k = torch.arange(1, dim // 2 + 1, dtype=torch.float64)
        sizes = radius * torch.sqrt(k / (dim // 2))
        angles = math.pi * ((k * (math.sqrt(5) - 1) / 2) % 1)
    half = torch.polar(sizes, angles)
    real = torch.full((dim % 2,), -radius, dtype=torch.complex128)
    return torch.cat((half, half.conj(), real))


@pytest.mark.parametrize("dim", [1, 6, 7, 20])
@pytest.mark.parametrize("radius", [0.5, 0.9, 1.7])
@pytest.mark.parametrize(
    "spectrum", ["real", "one_sided", "disc", "circle", "low_rank", "nonnormal"]
)
def test_linear_has_the_spectrum_it_promises(spectrum: str, radius: float, dim: int) -> None:
    rank = min(dim, 3)
    problem = registry.get(
        "linear", spectrum=spectrum, radius=radius, dim=dim, rank=rank, dtype="float64"
    )
    (A,) = problem.params
    # Rounding of an eigenvalue, times the condition of its vectors where they are not orthogonal.
    rounding = 1e-13
    if spectrum == "nonnormal":
        rounding *= float(torch.linalg.cond(torch.linalg.eig(A)[1]))
    eigenvalues, expected = torch.linalg.eigvals(A), expected_spectrum(spectrum, radius, dim, rank)
    assert distance(eigenvalues, expected) <= rounding
    normal = (A @ A.T - A.T @ A).abs().max() < 1e-12
    assert bool(normal) == (spectrum != "nonnormal" or dim == 1)


def test_ginibre_has_the_radius_it_promises() -> None:
    for radius in (0.5, 0.99, 1.1):
        (A,) = registry.get("linear", spectrum="ginibre", radius=radius, dtype="float64").params
        assert abs(spectral_radius(A) - radius) < 1e-13
        assert (A @ A.T - A.T @ A).abs().max() > 0.1  # not normal


def test_the_strength_is_how_far_from_normal() -> None:
    def departure(strength: float) -> float:
        (A,) = registry.get(
            "linear", spectrum="nonnormal", strength=strength, dim=30, dtype="float64"
        ).params
        squares = torch.linspace(-0.9, 0.9, 30, dtype=torch.float64).square().sum()
        return math.sqrt(max(0.0, float(A.square().sum() - squares)))  # Henrici's

    assert departure(0.0) < 1e-6
    one = departure(1.0)
    # The part above the diagonal has 435 numbers of variance 1/30.
    assert abs(one / math.sqrt(435 / 30) - 1) < 0.2
    assert departure(4.0) == pytest.approx(4 * one)


def test_a_rank_beyond_the_size_is_refused() -> None:
    with pytest.raises(OptionError, match=r"problem\.rank = 5: expected at most dim = 4"):
        registry.get("linear", spectrum="low_rank", rank=5, dim=4)


def test_linear_without_a_unique_fixed_point_is_refused() -> None:
    with pytest.raises(OptionError, match=r"problem\.radius = 1\.0.*one eigenvalue is 1"):
        registry.get("linear", spectrum="real", radius=1.0)


# Random equilibria.


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99, 1.1])
@pytest.mark.parametrize("seed", range(3))
def test_tanh_has_the_radius_it_promises(radius: float, seed: int) -> None:
    problem = fixed_point("tanh_radius", radius=radius, seed=seed, dim=40, dtype="float64")
    J = matrix_of(problem, problem.solutions[0])
    assert abs(spectral_radius(J) - radius) < 1e-10
    narrow = fixed_point("tanh_radius", radius=radius, seed=seed, dim=40)
    assert narrow.params[0].dtype == torch.float32
    # W is rounded to float32, and eigenvalues of a random matrix are conditioned up to 100.
    J = matrix_of(narrow, narrow.solutions[0])
    assert abs(spectral_radius(J) - radius) < 1e-5


def test_a_radius_that_the_tanh_cannot_reach_is_refused() -> None:
    # One number: the slope (1 − z²) w is at most 0.3 under so large an injection.
    with pytest.raises(OptionError, match=r"problem\.radius = 5\.0: .* another seed or a smaller"):
        registry.get("tanh_radius", radius=5.0, dim=1, injection=3.0)


@pytest.mark.parametrize("scale", [0.6, 0.9, 1.1, 1.3])
@pytest.mark.parametrize("seed", range(6))
def test_random_equilibria_are_known_up_to_the_edge_of_chaos(scale: float, seed: int) -> None:
    problem = fixed_point(
        "tanh", scale=scale, injection=0.3, dim=100, batch=1, dtype="float64", seed=seed
    )
    (z,) = problem.solutions
    assert residual(problem, z).norm() <= 4 * EPS["float64"] * math.sqrt(100)


def test_an_equilibrium_is_followed_where_newton_from_zero_fails() -> None:
    """Seed 0 at scale 1.3 is such a case."""
    problem = fixed_point("tanh", scale=1.3, injection=0.3, dim=100, batch=1, dtype="float64")
    (u,), (W,) = problem.args, problem.params
    assert tanh_equilibrium(W, u, torch.zeros_like(u)) is None
    assert tanh_equilibrium(W, u) is not None


def test_injections_from_hard_to_easy() -> None:
    problem = fixed_point("tanh", injection=[0.05, 1.5], batch=5, dim=200, dtype="float64")
    sizes = problem.args[0].square().mean(1).sqrt()
    expected = 0.05 * 30 ** (torch.arange(5, dtype=torch.float64) / 4)
    assert (sizes / expected - 1).abs().max() < 0.2  # the spread of 200 numbers is 5 %
    radii = torch.linalg.eigvals(matrix_of(problem, problem.solutions[0])).abs().amax(1)
    assert torch.equal(radii.argsort(descending=True), torch.arange(5))
    alone = fixed_point("tanh", injection=[0.05, 1.5], batch=1)
    assert float(alone.args[0].std()) < 0.1
    with pytest.raises(OptionError, match=r"problem\.injection = \(0\.0, 1\.0\): .* both above 0"):
        registry.get("tanh", injection=[0, 1.0])
