"""Standard nonlinear systems of a fixed, small size, in the corrected forms of the literature.

A system is a function of z (…, n) and its Jacobian (…, n, n), of one sample or of a batch. What
their options mean is said once, in ``common.start_points``: sample 0 has the standard start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.problem import RootProblem
from solvers.problems.common import Dtype, Seed, Spread, Starts, reference, root_problem


def _vector(*entries: Tensor) -> Tensor:
    return torch.stack(entries, dim=-1)


def _matrix(like: Tensor, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    """Return (…, n, m) of tensors (…) and numbers."""
    return torch.stack(
        [
            torch.stack(
                [e if isinstance(e, Tensor) else torch.full_like(like, e) for e in row], dim=-1
            )
            for row in rows
        ],
        dim=-2,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 13")
def powell_singular(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """Powell's singular function (n = 4): the Jacobian has rank 2 at the root 0.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (3, −1, 0, 1).
    """

    def g(z: Tensor) -> Tensor:
        a, b, c, d = z.unbind(-1)
        return _vector(
            a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2
        )

    def jacobian(z: Tensor) -> Tensor:
        a, b, c, d = z.unbind(-1)
        p, q, s = 2 * (b - 2 * c), 2 * math.sqrt(10) * (a - d), math.sqrt(5)
        return _matrix(a, [[1, 10, 0, 0], [0, 0, s, -s], [0, p, -2 * p, 0], [q, 0, 0, -q]])

    return root_problem(
        "powell_singular",
        g,
        (3, -1, 0, 1),
        [(0, 0, 0, 0)],
        jacobian=jacobian,
        traps=("singular_root",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 3")
def powell_badly_scaled(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """Powell's badly scaled function (n = 2): numbers of 1e-5 and 9, which may change places.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (0, 1).
    """

    def g(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _vector(1e4 * a * b - 1, torch.exp(-a) + torch.exp(-b) - 1.0001)

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[1e4 * b, 1e4 * a], [-torch.exp(-a), -torch.exp(-b)]])

    # The digits are those of a computation in 21.
    root = (1.09815932969981745568e-5, 9.10614673986652401095)
    return root_problem(
        "powell_badly_scaled",
        g,
        (0, 1),
        [root, root[::-1]],
        jacobian=jacobian,
        traps=("many_roots", "ill_conditioned"),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 14; MINPACK")
def wood(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The gradient of Wood's function, rows 1 and 3 halved (n = 4): a minimum and a saddle.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (−3, −1, −3, −1).
    """

    def g(z: Tensor) -> Tensor:
        x, y, u, v = z.unbind(-1)
        a, b = y - x * x, v - u * u
        return _vector(
            -200 * x * a - (1 - x),
            200 * a + 20.2 * (y - 1) + 19.8 * (v - 1),
            -180 * u * b - (1 - u),
            180 * b + 20.2 * (v - 1) + 19.8 * (y - 1),
        )

    def jacobian(z: Tensor) -> Tensor:
        x, y, u, v = z.unbind(-1)
        return _matrix(
            x,
            [
                [-200 * (y - 3 * x * x) + 1, -200 * x, 0, 0],
                [-400 * x, 220.2, 0, 19.8],
                [0, 0, -180 * (v - 3 * u * u) + 1, -180 * u],
                [0, 19.8, -360 * u, 200.2],
            ],
        )

    return root_problem(
        "wood",
        g,
        (-3, -1, -3, -1),
        [
            (1, 1, 1, 1),
            (
                -0.96797402493759306844,
                0.94713914081784182111,
                -0.96951631033159115149,
                0.95124766579232527786,
            ),
        ],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 7; Fletcher & Powell 1963")
def helical_valley(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The helical valley (n = 3): an angle that jumps by a full turn at x₁ = 0, x₂ < 0.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (−1, 0, 0).
    """

    def g(z: Tensor) -> Tensor:
        a, b, c = z.unbind(-1)
        # In turns, of (−1/4, 3/4]; the arc tangent of a quotient would fail at x₁ = 0.
        turn = torch.atan2(b, a) / (2 * math.pi)
        turn = torch.where(turn < -0.25, turn + 1, turn)
        return _vector(10 * (c - 10 * turn), 10 * (torch.hypot(a, b) - 1), c)

    def jacobian(z: Tensor) -> Tensor:
        a, b, _ = z.unbind(-1)
        r = torch.sqrt(a * a + b * b)
        w = 50 / (math.pi * r * r)
        return _matrix(a, [[w * b, -w * a, 10], [10 * a / r, 10 * b / r, 0], [0, 0, 1]])

    return root_problem(
        "helical_valley",
        g,
        (-1, 0, 0),
        [(1, 0, 0)],
        jacobian=jacobian,
        traps=("nonsmooth",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


def _square_root(
    name: str,
    n: int,
    *,
    starts: int,
    spread: float,
    dtype: Dtype,
    seed: int,
) -> RootProblem:
    """X² = A, row by row, where A is 10⁻⁴ I with a 1 beside its first diagonal entry."""

    def g(z: Tensor) -> Tensor:
        X = z.reshape(*z.shape[:-1], n, n)
        A = 1e-4 * torch.eye(n, dtype=z.dtype, device=z.device)
        A[0, 1].fill_(1)
        return (X @ X - A).flatten(-2)

    def jacobian(z: Tensor) -> Tensor:
        X = z.reshape(*z.shape[:-1], n, n)
        eye = torch.eye(n, dtype=z.dtype, device=z.device)
        left = torch.einsum("...ik,jl->...ijkl", X, eye)
        right = torch.einsum("ik,...lj->...ijkl", eye, X)
        return (left + right).reshape(*z.shape[:-1], n * n, n * n)

    root = 0.01 * torch.eye(n, dtype=torch.float64)
    root[0, 1] = 50
    return root_problem(
        name,
        g,
        torch.eye(n, dtype=torch.float64).flatten(),
        [root.flatten(), -root.flatten()],
        jacobian=jacobian,
        traps=("many_roots", "ill_conditioned"),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Burkardt, test_nonlin, no. 15; Hammarling")
def hammarling_2x2(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The square root of [[10⁻⁴, 1], [0, 10⁻⁴]] (n = 4, by rows): condition 4·10¹⁰.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around the identity.
    """
    return _square_root("hammarling_2x2", 2, starts=starts, spread=spread, dtype=dtype, seed=seed)


@reference("Burkardt, test_nonlin, no. 16; Hammarling")
def hammarling_3x3(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The square root of 10⁻⁴ I + E₁₂ (n = 9, by rows): condition 4·10¹⁰.

    The two roots given are functions of the matrix. There are more, where the two Jordan blocks
    have roots of opposite sign; those form a family, and the Jacobian is singular there.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around the identity.
    """
    return _square_root("hammarling_3x3", 3, starts=starts, spread=spread, dtype=dtype, seed=seed)


@reference("Dennis & Schnabel 1983")
def dennis_schnabel(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """A line and a circle (n = 2), which meet in (0, 3) and (3, 0).

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (1, 5).
    """

    def g(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _vector(a + b - 3, a * a + b * b - 9)

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[1, 1], [2 * a, 2 * b]])

    return root_problem(
        "dennis_schnabel",
        g,
        (1, 5),
        [(0, 3), (3, 0)],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Burkardt, test_nonlin, no. 18")
def sample_18(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """x₂² φ(x₁), x₁ φ(x₂) with φ(x) = (1 − exp(−x²)) / x (n = 2): both axes are roots.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (2, 2).
    """

    def phi(x: Tensor) -> Tensor:
        # φ(x) = x − x³/2 + …: below √ε the first term is all, also where x² underflows.
        tiny = x.abs() < math.sqrt(torch.finfo(x.dtype).eps)
        safe = torch.where(tiny, 1.0, x)
        return torch.where(tiny, x, -torch.expm1(-safe * safe) / safe)

    def slope(x: Tensor) -> Tensor:
        tiny = x.abs() < math.sqrt(torch.finfo(x.dtype).eps)
        safe = torch.where(tiny, 1.0, x)
        square = safe * safe
        return torch.where(tiny, 1.0, 2 * torch.exp(-square) + torch.expm1(-square) / square)

    def g(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _vector(b * (b * phi(a)), a * phi(b))

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[b * b * slope(a), 2 * b * phi(a)], [phi(b), a * slope(b)]])

    return root_problem(
        "sample_18",
        g,
        (2, 2),
        [(0, 0)],
        jacobian=jacobian,
        traps=("many_roots", "singular_root"),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Burkardt, test_nonlin, no. 19")
def sample_19(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The system x ‖x‖² (n = 2): J = 0 at the root 0, and Newton takes a third off each step.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (3, 3).
    """

    def g(z: Tensor) -> Tensor:
        return z * (z * z).sum(-1, keepdim=True)

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[3 * a * a + b * b, 2 * a * b], [2 * a * b, a * a + 3 * b * b]])

    return root_problem(
        "sample_19",
        g,
        (3, 3),
        [(0, 0)],
        jacobian=jacobian,
        traps=("singular_root",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Burkardt, test_nonlin, no. 20")
def cubic_double_root(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """The cubic x (x − 5)² (n = 1): a simple root at 0, a double one at 5.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around 1.
    """

    def g(z: Tensor) -> Tensor:
        return z * (z - 5) ** 2

    def jacobian(z: Tensor) -> Tensor:
        return ((z - 5) * (3 * z - 5))[..., None]

    return root_problem(
        "cubic_double_root",
        g,
        (1,),
        [(0,), (5,)],
        jacobian=jacobian,
        traps=("many_roots", "singular_root"),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 2; Freudenstein & Roth 1963")
def freudenstein_roth(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """Freudenstein and Roth (n = 2): descent from the start ends in a minimum that is no root.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (½, −2).
    """

    def g(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _vector(a - 13 + ((5 - b) * b - 2) * b, a - 29 + ((b + 1) * b - 14) * b)

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[1, (10 - 3 * b) * b - 2], [1, (3 * b + 2) * b - 14]])

    return root_problem(
        "freudenstein_roth",
        g,
        (0.5, -2),
        [(5, 4)],
        jacobian=jacobian,
        traps=("local_minimum",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Boggs 1971, SIAM J. Numer. Anal. 8")
def boggs(
    *, starts: Starts = 1, spread: Spread = 0.1, dtype: Dtype = "float64", seed: Seed = 0
) -> RootProblem:
    """Boggs (n = 2): a parabola and a cosine, which meet in three points.

    Parameters
    ----------
    starts, spread, dtype, seed
        The batch of starts around (1, 0).
    """

    def g(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _vector(a * a - b + 1, a - torch.cos(math.pi / 2 * b))

    def jacobian(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return _matrix(a, [[2 * a, -1], [1, math.pi / 2 * torch.sin(math.pi / 2 * b)]])

    return root_problem(
        "boggs",
        g,
        (1, 0),
        [(0, 1), (-1, 2), (-math.sqrt(0.5), 1.5)],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )
