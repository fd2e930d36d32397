"""Standard nonlinear systems of any size n, in the corrected forms of the literature.

A system is a function of z (…, n) and its Jacobian (…, n, n), of one sample or of a batch. What
their options mean is said once, in ``common.start_points``: sample 0 has the standard start. A root
without a formula is found in float64 when the problem is built, by Newton with that Jacobian.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from solvers.problem import RootProblem
from solvers.problems.common import (
    Dtype,
    Seed,
    Spread,
    Starts,
    newton_root,
    reference,
    root_problem,
    vanishes,
)

Size = Annotated[int, Field(ge=2)]


def _counts(z: Tensor) -> Tensor:
    """Return 1 … n, like z."""
    return torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)


def _shift(x: Tensor, by: int) -> Tensor:
    """Return x (…, n) moved by ``by`` places to the right, zeros coming in."""
    out = torch.nn.functional.pad(x, (max(by, 0), max(-by, 0)))
    return out[..., : x.shape[-1]] if by > 0 else out[..., -x.shape[-1] :]


def _eye(z: Tensor) -> Tensor:
    return torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)


def _grid(n: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)


@reference("Burkardt, test_nonlin, no. 1")
def generalized_rosenbrock(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """A chain of parabolas with the root 1: full Newton steps square the error down the chain.

    Parameters
    ----------
    n
        Size of the state; the condition doubles with each.
    starts, spread, dtype, seed
        The batch of starts around (−1.2, 1, …, 1).
    """

    def g(z: Tensor) -> Tensor:
        return torch.cat((1 - z[..., :1], 10 * (z[..., 1:] - z[..., :-1] ** 2)), dim=-1)

    def jacobian(z: Tensor) -> Tensor:
        diagonal = torch.full_like(z, 10)
        diagonal[..., 0] = -1
        return torch.diag_embed(diagonal) + torch.diag_embed(-20 * z[..., :-1], offset=-1)

    start = torch.ones(n, dtype=torch.float64)
    start[0] = -1.2
    return root_problem(
        "generalized_rosenbrock",
        g,
        start,
        [torch.ones(n)],
        jacobian=jacobian,
        traps=("ill_conditioned",) if n > 22 else (),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 20: half its gradient, as in MINPACK")
def watson(
    *,
    n: Annotated[int, Field(ge=2, le=12)] = 2,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Half the gradient of Watson's 31 residuals: a polynomial that solves y′ = y² + 1 nearly.

    Parameters
    ----------
    n
        Size of the state; from 5 on the condition grows by 20 to 30 times with each.
    starts, spread, dtype, seed
        The batch of starts around 0.
    """

    def terms(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the residuals (…, 29), their derivative (…, 29, n), and the powers (29, n)."""
        k = torch.arange(n, dtype=z.dtype, device=z.device)
        t = torch.arange(1, 30, dtype=z.dtype, device=z.device)[:, None] / 29
        value = t**k
        slope = k * t ** (k - 1)
        y = z @ value.mT
        return z @ slope.mT - y * y - 1, slope - 2 * y[..., None] * value, value

    def g(z: Tensor) -> Tensor:
        r, dr, _ = terms(z)
        a, b = z[..., 0], z[..., 1]
        w = b - a * a - 1
        last = torch.stack((a * (1 - 2 * w), w), dim=-1)
        return (r[..., None] * dr).sum(-2) + torch.nn.functional.pad(last, (0, n - 2))

    def jacobian(z: Tensor) -> Tensor:
        r, dr, value = terms(z)
        J = dr.mT @ dr - 2 * value.mT @ (r[..., None] * value)
        a, b = z[..., 0], z[..., 1]
        J[..., 0, 0] += 3 - 2 * b + 6 * a * a
        J[..., 0, 1] -= 2 * a
        J[..., 1, 0] -= 2 * a
        J[..., 1, 1] += 1
        return J

    return root_problem(
        "watson",
        g,
        torch.zeros(n),
        [newton_root(g, jacobian, torch.zeros(n))],
        jacobian=jacobian,
        traps=("ill_conditioned",) if n > 8 else (),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 35; Fletcher 1965")
def chebyquad(
    *,
    n: Size = 2,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Chebyshev's quadrature on [−1, 1]: nodes of equal weight, in any order.

    Parameters
    ----------
    n
        Number of nodes. Real ones exist up to 7 and for 9, otherwise there is no root.
    starts, spread, dtype, seed
        The batch of starts around (2i − n) / (n + 1).
    """

    def polynomials(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return T₁ … Tₙ and their derivatives at x (…, m), each (…, n, m)."""
        values, slopes = [torch.ones_like(x), x], [torch.zeros_like(x), torch.ones_like(x)]
        for _ in range(n - 1):
            slopes.append(2 * values[-1] + 2 * x * slopes[-1] - slopes[-2])
            values.append(2 * x * values[-1] - values[-2])
        return torch.stack(values[1:], dim=-2), torch.stack(slopes[1:], dim=-2)

    def g(z: Tensor) -> Tensor:
        i = _counts(z)
        integral = torch.where(i % 2 == 0, 1 / (i * i - 1).clamp(min=1), 0)
        return polynomials(z)[0].mean(-1) + integral

    def jacobian(z: Tensor) -> Tensor:
        return polynomials(z)[1] / n

    start = (2 * torch.arange(1, n + 1, dtype=torch.float64) - n) / (n + 1)
    # The start is none of symmetric nodes, and far from the roots of a large n.
    nodes = newton_root(g, jacobian, -torch.cos((2 * _counts(start) - 1) * torch.pi / (2 * n)))
    found = vanishes(g, nodes)
    return root_problem(
        "chebyquad",
        g,
        start,
        [nodes, nodes.flip(-1)] if found else [],
        jacobian=jacobian,
        traps=("many_roots",) if found else ("no_root",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 27; Brown 1969")
def brown_almost_linear(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Brown's almost linear system: all equations but the last, a product, are linear.

    Its roots are (α, …, α, α¹⁻ⁿ) with n αⁿ − (n + 1) αⁿ⁻¹ + 1 = 0: α = 1, one between 0 and 1, and
    a negative one where n is odd.

    Parameters
    ----------
    n
        Size of the state.
    starts, spread, dtype, seed
        The batch of starts around ½.
    """

    def g(z: Tensor) -> Tensor:
        linear = z[..., :-1] + z.sum(-1, keepdim=True) - (n + 1)
        return torch.cat((linear, z.prod(-1, keepdim=True) - 1), dim=-1)

    def jacobian(z: Tensor) -> Tensor:
        eye = _eye(z)
        others = torch.where(eye.bool(), 1, z[..., None, :]).prod(-1)
        upper = (eye + 1)[:-1].expand(*z.shape[:-1], n - 1, n)
        return torch.cat((upper, others[..., None, :]), dim=-2)

    def root(low: float, high: float) -> Tensor:
        """Return the root whose α lies between two numbers, where the polynomial changes sign."""
        sign = (n * low - n - 1) * low ** (n - 1) + 1
        for _ in range(100):
            middle = (low + high) / 2
            value = (n * middle - n - 1) * middle ** (n - 1) + 1
            low, high = (middle, high) if value * sign > 0 else (low, middle)
        z = torch.full((n,), low, dtype=torch.float64)
        z[-1] = n + 1 - n * low
        return newton_root(g, jacobian, z)

    # The polynomial is least at (n² − 1) / n², where it is negative.
    roots = [torch.ones(n, dtype=torch.float64), root(0, 1 - 1 / n**2)]
    if n % 2:
        roots.append(root(0, -1))
    return root_problem(
        "brown_almost_linear",
        g,
        torch.full((n,), 0.5),
        roots,
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 28; Moré & Cosnard 1979")
def discrete_boundary_value(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Differences for x″ = ½ (x + t + 1)³, x(0) = x(1) = 0.

    Parameters
    ----------
    n
        Inner points of the grid.
    starts, spread, dtype, seed
        The batch of starts around t (t − 1).
    """

    def g(z: Tensor) -> Tensor:
        h = 1 / (n + 1)
        cube = (z + h * _counts(z) + 1) ** 3
        return 2 * z - _shift(z, 1) - _shift(z, -1) + h * h / 2 * cube

    def jacobian(z: Tensor) -> Tensor:
        h = 1 / (n + 1)
        diagonal = 2 + 1.5 * h * h * (z + h * _counts(z) + 1) ** 2
        beside = torch.ones_like(z[..., 1:])
        return (
            torch.diag_embed(diagonal)
            - torch.diag_embed(beside, offset=1)
            - torch.diag_embed(beside, offset=-1)
        )

    t = _grid(n)
    return root_problem(
        "discrete_boundary_value",
        g,
        t * (t - 1),
        [newton_root(g, jacobian, t * (t - 1))],
        jacobian=jacobian,
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 29; Moré & Cosnard 1979")
def discrete_integral(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """The integral equation of ``discrete_boundary_value``, of which it has the root.

    Parameters
    ----------
    n
        Inner points of the grid.
    starts, spread, dtype, seed
        The batch of starts around t (t − 1).
    """

    def kernel(z: Tensor) -> tuple[Tensor, Tensor]:
        """Return t (n) and Green's function with its weight (n, n)."""
        t = _counts(z) / (n + 1)
        least = torch.minimum(t[:, None], t[None, :])
        most = torch.maximum(t[:, None], t[None, :])
        return t, least * (1 - most) / (2 * (n + 1))

    def g(z: Tensor) -> Tensor:
        t, K = kernel(z)
        return z + (z + t + 1) ** 3 @ K.mT

    def jacobian(z: Tensor) -> Tensor:
        t, K = kernel(z)
        return _eye(z) + K * (3 * (z + t + 1) ** 2)[..., None, :]

    t = _grid(n)
    return root_problem(
        "discrete_integral",
        g,
        t * (t - 1),
        [newton_root(g, jacobian, t * (t - 1))],
        jacobian=jacobian,
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 26; Spedicato 1975")
def trigonometric(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """The trigonometric system: many roots, and a minimum of the residual that is none.

    Every number of a root may be shifted by 2π. Up to n = 12 all roots in (−π, π] are given, beyond
    it those with at most one number of the larger kind, see the code.

    Parameters
    ----------
    n
        Size of the state.
    starts, spread, dtype, seed
        The batch of starts around 1 / n.
    """

    def g(z: Tensor) -> Tensor:
        c = torch.cos(z)
        return n - c.sum(-1, keepdim=True) + _counts(z) * (1 - c) - torch.sin(z)

    def jacobian(z: Tensor) -> Tensor:
        s = torch.sin(z)
        return s[..., None, :] + torch.diag_embed(_counts(z) * s - torch.cos(z))

    return root_problem(
        "trigonometric",
        g,
        torch.full((n,), 1 / n, dtype=torch.float64),
        [torch.zeros(n), *(newton_root(g, jacobian, z) for z in _trigonometric_roots(n))],
        jacobian=jacobian,
        traps=("many_roots", "local_minimum"),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


def _trigonometric_roots(n: int) -> list[Tensor]:
    """Return starts near all roots but 0.

    With S = Σ (1 − cos x) every equation is k (1 − cos x) − sin x = −S, of which the solutions are
    φ ± arccos((k + S) / √(k² + 1)) with tan φ = 1/k: a smaller and a larger one. For every choice
    of the larger ones S solves one equation, and lies between 0 and √(n² + 1) − n.
    """
    k = torch.arange(1, n + 1, dtype=torch.float64)[:, None]
    length = torch.sqrt(k * k + 1)
    S = float(length[-1] - n) * torch.linspace(0, 1, 2001, dtype=torch.float64)
    centre, reach = torch.atan(1 / k), torch.arccos(((k + S) / length).clamp(max=1))
    small, large = centre - reach, centre + reach
    surplus = (1 - torch.cos(small)).sum(0) - S
    change = torch.cos(small) - torch.cos(large)
    starts = []
    for size in range(1, (3 if n <= 12 else 1) + 1):
        for chosen in itertools.combinations(range(n), size):
            which = list(chosen)
            total = surplus + change[which].sum(0)
            for at in torch.nonzero(total[1:].sign() != total[:-1].sign())[:, 0].tolist():
                z = small[:, at].clone()
                z[which] = large[which, at]
                starts.append(z)
    return starts


@reference("Moré, Garbow & Hillstrom 1981, no. 25")
def variably_dimensioned(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """One cubic of a weighted sum in every equation: first residuals of a million.

    Parameters
    ----------
    n
        Size of the state.
    starts, spread, dtype, seed
        The batch of starts around 1 − k / n.
    """

    def g(z: Tensor) -> Tensor:
        k = _counts(z)
        s = (k * (z - 1)).sum(-1, keepdim=True)
        return z - 1 + k * s * (1 + 2 * s * s)

    def jacobian(z: Tensor) -> Tensor:
        k = _counts(z)
        s = (k * (z - 1)).sum(-1)[..., None, None]
        return _eye(z) + (1 + 6 * s * s) * k[:, None] * k

    k = torch.arange(1, n + 1, dtype=torch.float64)
    return root_problem(
        "variably_dimensioned",
        g,
        1 - k / n,
        [torch.ones(n)],
        jacobian=jacobian,
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 30; Broyden 1965")
def broyden_tridiagonal(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Broyden's tridiagonal system: two roots, alike but for their first numbers.

    Parameters
    ----------
    n
        Size of the state.
    starts, spread, dtype, seed
        The batch of starts around −1.
    """

    def g(z: Tensor) -> Tensor:
        return (3 - 2 * z) * z + 1 - _shift(z, 1) - 2 * _shift(z, -1)

    def jacobian(z: Tensor) -> Tensor:
        beside = torch.ones_like(z[..., 1:])
        return (
            torch.diag_embed(3 - 4 * z)
            - torch.diag_embed(beside, offset=-1)
            - 2 * torch.diag_embed(beside, offset=1)
        )

    # Both roots are near −√½ inside; the other one differs at its beginning.
    other = torch.full((n,), -0.7, dtype=torch.float64)
    other[:2] = torch.tensor([1.8, -0.1], dtype=torch.float64)
    return root_problem(
        "broyden_tridiagonal",
        g,
        -torch.ones(n),
        [newton_root(g, jacobian, start) for start in (-torch.ones(n), other)],
        jacobian=jacobian,
        traps=("many_roots",),
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )


@reference("Moré, Garbow & Hillstrom 1981, no. 31; Broyden 1971")
def broyden_banded(
    *,
    n: Size = 10,
    starts: Starts = 1,
    spread: Spread = 0.1,
    dtype: Dtype = "float64",
    seed: Seed = 0,
) -> RootProblem:
    """Broyden's banded system: every equation has its own number, five before and one after.

    Parameters
    ----------
    n
        Size of the state.
    starts, spread, dtype, seed
        The batch of starts around −1.
    """
    band = (1, 2, 3, 4, 5, -1)

    def g(z: Tensor) -> Tensor:
        y = z * (1 + z)
        near = torch.stack([_shift(y, by) for by in band]).sum(0)
        return z * (2 + 5 * z * z) + 1 - near

    def jacobian(z: Tensor) -> Tensor:
        J = torch.diag_embed(2 + 15 * z * z)
        for by in band:
            if abs(by) < n:
                slope = 1 + 2 * (z[..., :-by] if by > 0 else z[..., 1:])
                J = J - torch.diag_embed(slope, offset=-by)
        return J

    return root_problem(
        "broyden_banded",
        g,
        -torch.ones(n),
        [newton_root(g, jacobian, -torch.ones(n))],
        jacobian=jacobian,
        starts=starts,
        spread=spread,
        dtype=dtype,
        seed=seed,
    )
