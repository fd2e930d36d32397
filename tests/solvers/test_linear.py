"""Every linear solver against numpy, each sample by itself; and what is particular to each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from maps import EPS, every_dtype
from torch import Tensor

from solvers import OptionError, ReturnCode, linear
from solvers.linear import GMRES, BiCGStab, Dense, LinearResult, NeumannSeries

every_linear = pytest.mark.parametrize("name", linear.registry.names())
# Those that stop when they are there; the direct method always takes D products.
iterative = pytest.mark.parametrize("name", [n for n in linear.registry.names() if n != "dense"])

EPS = {**EPS, "bfloat16": torch.finfo(torch.bfloat16).eps}


def contraction(
    batch: int, dim: int, dtype: str = "float64", seed: int = 0, slope: float = 0.6
) -> tuple[Tensor, Tensor]:
    """I − J with ‖J‖ = ``slope``: what every linear solver can do."""
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(batch, dim, dim, generator=g, dtype=torch.float64)
    J = slope * J / torch.linalg.matrix_norm(J, 2)[:, None, None]
    b = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    A = torch.eye(dim, dtype=torch.float64) - J
    return A.to(getattr(torch, dtype)), b.to(getattr(torch, dtype))


def apply(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x[:, :, None])[:, :, 0]


def system(
    batch: int, dim: int, dtype: str = "float64", seed: int = 0, shift: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Well-conditioned: eigenvalues in a disc of radius 1 around ``shift``."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, dim, dim, generator=g, dtype=torch.float64) / dim**0.5
    A = A + shift * torch.eye(dim, dtype=torch.float64)
    b = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    return A.to(getattr(torch, dtype)), b.to(getattr(torch, dtype))


def solve(
    solver: linear.LinearSolver, A: Tensor, b: Tensor, reltol: float, **options: Any
) -> tuple[LinearResult, int]:
    calls = 0

    def product(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return apply(A, x)

    tolerance = options.pop("tolerance", reltol * b.norm(dim=1))
    options = {"max_products": 200, **options}
    return solver.solve(product, b, tolerance=tolerance, **options), calls


def exact(A: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(np.linalg.solve(A.double().numpy(), b.double().numpy()[:, :, None]))[
        :, :, 0
    ]


@every_linear
@every_dtype
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("dim", [1, 2, 12])
def test_against_numpy(name: str, dtype: str, batch: int, dim: int) -> None:
    A, b = contraction(batch, dim, dtype)
    reltol = 100 * EPS[dtype]
    result, calls = solve(linear.registry.get(name), A, b, reltol)
    assert result.products == calls
    size = b.norm(dim=1)
    assert (result.residual <= reltol * size).all()
    r = b - apply(A, result.x)
    # The residual is a recurrence's or a product's: rounding apart.
    assert (r.norm(dim=1) - result.residual).abs().max() <= reltol * size.max()
    slope = torch.linalg.svdvals(A.double())[:, -1]
    bound = 2 * reltol * size.double() / slope
    assert ((exact(A, b) - result.x.double()).norm(dim=1) <= bound).all()


def test_gmres_needs_as_many_products_as_there_are_eigenvalues() -> None:
    eigenvalues = torch.tensor([1.0, 1, 1, 2, 2, 5, 5, 5], dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    A = (q @ torch.diag(eigenvalues) @ q.T)[None]
    result, _ = solve(GMRES(), A, torch.ones(1, 8, dtype=torch.float64), 1e-12)
    assert result.products == 3


def test_gmres_has_the_smallest_residual_of_its_space() -> None:
    A, b = system(1, 10, seed=3, shift=1.5)
    for k in (1, 3, 6):
        result, _ = solve(GMRES(), A, b, 0.0, max_products=k)
        K = [b[0]]
        for _ in range(k - 1):
            K.append(A[0] @ K[-1])
        V, _ = torch.linalg.qr(torch.stack(K, dim=1))
        y = torch.linalg.lstsq(A[0] @ V, b[0][:, None]).solution
        best = float((b[0] - (A[0] @ V @ y)[:, 0]).norm())
        assert float(result.residual[0]) == pytest.approx(best, rel=1e-8)
        # The recurrence of residual norms gives the same, without a rotation.
        assert float(result.trace[-1][1]) == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("restart", [2, 5, 20])
def test_restart(restart: int) -> None:
    A, b = system(4, 20, shift=2.5)
    result, calls = solve(GMRES(restart=restart), A, b, 1e-10)
    full, _ = solve(GMRES(), A, b, 1e-10)
    assert (result.residual <= 1e-10 * b.norm(dim=1)).all()
    assert torch.allclose(result.x, exact(A, b), atol=1e-8)  # 1e-10 over a slope above 0.5
    assert result.products == calls >= full.products
    assert result.history_bytes <= 4 * 20 * 8 * 2 * (restart + 4)
    assert [n for n, _, _ in result.trace] == list(range(1, result.products + 1))


@every_linear
def test_a_tolerance_a_sample(name: str) -> None:
    A, b = contraction(4, 15)
    tolerance = torch.tensor([1e-1, 1e-10, 1e-4, 1e-7], dtype=torch.float64) * b.norm(dim=1)
    result, _ = solve(linear.registry.get(name), A, b, 0.0, tolerance=tolerance)
    assert (result.residual <= tolerance).all()
    if name == "gmres":
        # A sample at its tolerance keeps its space: it is that of the solve by itself.
        for i in range(4):
            alone, _ = solve(
                GMRES(), A[i : i + 1], b[i : i + 1], 0.0, tolerance=tolerance[i : i + 1]
            )
            assert torch.allclose(alone.x[0], result.x[i], atol=1e-12)  # rounding
        assert (result.residual[0] > 1e-5 * b[0].norm()).all()


@every_linear
def test_a_zero_right_hand_side(name: str) -> None:
    A, b = contraction(3, 6)
    b[1] = 0
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    assert torch.equal(result.x[1], torch.zeros(6, dtype=torch.float64))
    assert result.residual[1] == 0
    assert torch.allclose(result.x, exact(A, b), atol=1e-8)
    zero, calls = solve(linear.registry.get(name), A, torch.zeros_like(b), 1e-10)
    assert torch.equal(zero.x, torch.zeros_like(b))
    assert calls == (6 if name == "dense" else 0)


@every_dtype
@pytest.mark.parametrize("seed", range(4))
def test_a_random_singular_operator_does_not_blow_up(dtype: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 8, 7, generator=g, dtype=torch.float64)
    A = (A @ torch.randn(6, 7, 8, generator=g, dtype=torch.float64) / 8).to(getattr(torch, dtype))
    b = torch.randn(6, 8, generator=g, dtype=torch.float64).to(A.dtype)
    result, _ = solve(GMRES(), A, b, 1e-12)
    r = b - apply(A, result.x)
    # What is reported is true, up to the rounding of a product with x; and of x something is left.
    noise = EPS[dtype] * 30 * result.x.norm(dim=1)
    assert ((r.norm(dim=1) - result.residual).abs() <= noise + 1e3 * EPS[dtype]).all()
    assert (noise <= 100 * b.norm(dim=1)).all()
    assert (result.residual <= b.norm(dim=1) * (1 + 10 * EPS[dtype])).all()
    assert (result.residual > 1e-12 * b.norm(dim=1)).all()


def test_the_budget() -> None:
    A, b = system(2, 30)
    result, calls = solve(GMRES(), A, b, 1e-14, max_products=4)
    assert result.products == calls == 4
    assert result.reason is ReturnCode.MAX_EVALUATIONS
    assert (result.residual > 1e-14).all()
    assert (result.residual < b.norm(dim=1)).all()


def test_a_preconditioner_saves_products_and_leaves_the_answer() -> None:
    A, b = system(3, 25, shift=1.3)
    inverse = torch.linalg.inv(A + 0.05 * torch.randn_like(A) / 5)
    plain, _ = solve(GMRES(), A, b, 1e-10)
    helped, _ = solve(GMRES(), A, b, 1e-10, precondition=lambda x: apply(inverse, x))
    assert helped.products < plain.products / 2
    assert (helped.residual <= 1e-10 * b.norm(dim=1)).all()
    assert torch.allclose(helped.x, plain.x, atol=1e-7)


@pytest.mark.parametrize("kind", ["l2", "rms", "linf"])
@every_linear
def test_norms(name: str, kind: str) -> None:
    A, b = contraction(3, 10)
    tolerance = torch.full((3,), 1e-8, dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 0.0, tolerance=tolerance, norm=kind)
    r = b - apply(A, result.x)
    size = {"l2": r.norm(dim=1), "rms": r.norm(dim=1) / 10**0.5, "linf": r.abs().amax(dim=1)}[kind]
    assert (size <= 1e-8).all()
    assert torch.allclose(result.residual, size, atol=1e-14)


@every_linear
@pytest.mark.parametrize("power", [-40, 40])
@every_dtype
def test_units_have_no_influence(name: str, dtype: str, power: int) -> None:
    A, b = contraction(3, 8, dtype)
    c = 2.0**power
    plain, _ = solve(linear.registry.get(name), A, b, 1e-5)
    other, _ = solve(linear.registry.get(name), A, c * b, 1e-5)
    assert torch.equal(other.x, c * plain.x)
    assert other.products == plain.products


def test_options() -> None:
    with pytest.raises(OptionError, match="restart = 0"):
        GMRES(restart=0)
    with pytest.raises(OptionError, match=r"linear solver\.restrt: unknown option.*'restart'"):
        linear.registry.get("gmres", restrt=3)
    A, b = system(1, 6)
    with pytest.raises(ValueError, match=r"more than max_dim=5: use GMRES"):
        solve(Dense(max_dim=5), A, b, 1e-8)


@every_linear
def test_described(name: str) -> None:
    entry = linear.registry.describe(name)
    assert entry.summary
    assert entry.reference
    assert not entry.error


def test_gmres_is_differentiable() -> None:
    """Newton–Krylov's step is part of an unrolled graph."""
    from solvers.linear.gmres import arnoldi_solve

    A, b = system(2, 4)

    def x(A: Tensor, b: Tensor) -> Tensor:
        return arnoldi_solve(
            lambda v: apply(A, v),
            b,
            tolerance=torch.zeros(2, dtype=torch.float64),
            max_products=4,
        ).x

    assert torch.autograd.gradcheck(x, (A.requires_grad_(), b.requires_grad_()))
    # After as many products as dimensions the answer is exact, and so is its derivative.
    gradient = torch.autograd.grad(x(A, b).sum(), b)[0]
    expected = torch.linalg.solve(A.detach().mT, torch.ones(2, 4, dtype=torch.float64))
    assert torch.allclose(gradient, expected, atol=1e-9)


# -- every linear solver × every matrix -----------------------------------------------------------

Maker = Callable[[], tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd() -> tuple[Tensor, Tensor]:
    q, _ = torch.linalg.qr(normal(10, 10))
    A = q @ torch.diag(torch.linspace(0.2, 1.8, 10, dtype=torch.float64)) @ q.T
    return A.expand(3, 10, 10).clone(), normal(3, 10, seed=1)


def nonnormal() -> tuple[Tensor, Tensor]:
    """Eigenvalues 1, and powers of I − A that grow before they vanish."""
    A = torch.eye(8, dtype=torch.float64) + 2 * torch.diag(torch.ones(7, dtype=torch.float64), 1)
    return A.expand(3, 8, 8).clone(), normal(3, 8, seed=2)


def rotation() -> tuple[Tensor, Tensor]:
    """I − J with J of complex pairs, radius 0.9."""
    blocks = [
        0.9 * torch.tensor([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        for a in (0.4, 1.2, 2.0, 2.8)
    ]
    A = torch.eye(8, dtype=torch.float64) - torch.block_diag(*blocks)
    return A.expand(3, 8, 8).clone(), normal(3, 8, seed=3)


def skew() -> tuple[Tensor, Tensor]:
    """Quarter turns: xᵀA x = 0, on which BiCGStab as published breaks down at once."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    A = torch.block_diag(quarter, 2 * quarter, 3 * quarter)
    return A.expand(2, 6, 6).clone(), normal(2, 6, seed=4)


def scaled(power: int) -> Maker:
    def make() -> tuple[Tensor, Tensor]:
        A, b = contraction(3, 7)
        return 2.0**power * A, 2.0**-power * b

    return make


def easy_and_hard() -> tuple[Tensor, Tensor]:
    A, b = contraction(2, 12, slope=0.97, seed=5)
    A[0] = torch.eye(12, dtype=torch.float64)
    return A, b


def identity() -> tuple[Tensor, Tensor]:
    return torch.eye(5, dtype=torch.float64).expand(4, 5, 5).clone(), normal(4, 5)


MATRICES: dict[str, Maker] = {
    "spd": spd,
    "nonnormal": nonnormal,
    "rotation": rotation,
    "skew": skew,
    "2^40": scaled(40),
    "2^-40": scaled(-40),
    "easy_and_hard": easy_and_hard,
    "identity": identity,
    "contraction": lambda: contraction(5, 9, seed=6),
}
# I − A has a radius above 1: the series diverges, and says so.
DIVERGES = {"skew", "2^40"}
STALLS = {"2^-40"}

every_matrix = pytest.mark.parametrize("matrix", MATRICES)


@every_linear
@every_matrix
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_solver_on_every_matrix(name: str, matrix: str, dtype: str) -> None:
    A, b = (t.to(getattr(torch, dtype)) for t in MATRICES[matrix]())
    wide = A.double(), b.double()
    condition = torch.linalg.cond(wide[0]).amax()
    # Some rounding of A x is left; ‖A‖ ‖x‖ / ‖b‖ is at most the condition number.
    reltol = float(20 * condition * EPS[dtype])
    size = wide[1].norm(dim=1)
    result, calls = solve(
        linear.registry.get(name),
        A,
        b,
        0.0,
        tolerance=(reltol * size).to(torch.promote_types(A.dtype, torch.float32)),
        max_products=600,
    )
    assert result.products == calls
    assert result.x.dtype == A.dtype
    r = (wide[1] - apply(wide[0], result.x.double())).norm(dim=1)
    assert ((r - result.residual.double()).abs() <= reltol * size).all()
    codes = result.codes(reltol * size).tolist()
    if name == "neumann" and matrix in DIVERGES | STALLS:
        expected = ReturnCode.DIVERGED if matrix in DIVERGES else ReturnCode.STALLED
        assert set(codes) == {expected}
        assert (result.residual <= size * (1 + EPS[dtype])).all()  # the best partial sum
    else:
        assert set(codes) == {ReturnCode.SUCCESS}
        error = (result.x.double() - exact(*wide)).norm(dim=1)
        assert (error <= 2 * reltol * size / torch.linalg.svdvals(wide[0])[:, -1]).all()


@iterative
@every_matrix
def test_samples_have_no_influence_on_each_other(name: str, matrix: str) -> None:
    A, b = MATRICES[matrix]()
    solver = linear.registry.get(name)
    whole, _ = solve(solver, A, b, 1e-10, max_products=600)
    order = [*reversed(range(len(b))), 0, 0]
    other, _ = solve(solver, A[order], b[order], 1e-10, max_products=600)
    for i, k in enumerate(order):
        size = float(whole.x[k].abs().max())
        # The same up to rounding, in which an ill-conditioned step may double.
        assert torch.allclose(other.x[i], whole.x[k], rtol=0, atol=1e-9 * size)
        assert other.codes(1e-10 * b[order].norm(dim=1))[i] == whole.codes(1e-10 * b.norm(dim=1))[k]


@every_linear
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_sample_that_is_not_finite_is_alone(name: str, dtype: str) -> None:
    A, b = contraction(3, 6, dtype)
    alone, _ = solve(linear.registry.get(name), A[[0, 2]], b[[0, 2]], 20 * EPS[dtype])
    A[1] = torch.nan
    result, _ = solve(linear.registry.get(name), A, b, 20 * EPS[dtype])
    tolerance = (20 * EPS[dtype] * b.norm(dim=1)).to(result.residual.dtype)
    success = int(ReturnCode.SUCCESS)
    assert result.codes(tolerance).tolist() == [success, int(ReturnCode.NONFINITE), success]
    assert not torch.isfinite(result.residual[1])
    assert not torch.isfinite(result.x[1]).any()  # nothing is known of it, and that is to be seen
    assert (result.x[[0, 2]] - alone.x).abs().max() <= 50 * EPS[dtype] * alone.x.abs().max()


@every_linear
def test_singular_and_consistent(name: str) -> None:
    # A zero eigenvalue whose direction b does not have: no product with b ever meets it.
    A = torch.diag_embed(torch.tensor([[1.0, 1.5, 0.0], [1.0, 1.5, 0.5]], dtype=torch.float64))
    b = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    # A residual of 1e-10 over a smallest slope of 0.5.
    assert torch.allclose(result.x[1], torch.tensor([1, 2 / 3, 2]).double(), atol=1e-9)
    codes = result.codes(1e-10 * b.norm(dim=1)).tolist()
    if name == "dense":
        assert codes == [ReturnCode.LINEAR_SOLVE_FAILED, ReturnCode.SUCCESS]
        assert torch.isfinite(result.x).all()
    else:
        assert torch.allclose(result.x[0], torch.tensor([1, 2 / 3, 0]).double(), atol=1e-9)
        assert codes == [ReturnCode.SUCCESS] * 2


@every_linear
def test_singular_and_inconsistent(name: str) -> None:
    # One sample without a solution beside one with.
    A = torch.diag_embed(torch.tensor([[1.0, 1.5, 0.0], [1.0, 1.5, 0.5]], dtype=torch.float64))
    b = torch.ones(2, 3, dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    assert torch.isfinite(result.x).all()
    # The nearest that there is, or what was there before.
    r = b - apply(A, result.x)
    assert result.residual[0] >= 1 - 1e-12
    assert torch.allclose(r.norm(dim=1), result.residual)
    failed = ReturnCode.LINEAR_SOLVE_FAILED if name == "dense" else ReturnCode.STALLED
    assert result.codes(1e-10 * b.norm(dim=1)).tolist() == [failed, ReturnCode.SUCCESS]
    nothing, _ = solve(linear.registry.get(name), torch.zeros_like(A), b, 1e-10)
    assert torch.equal(nothing.x, torch.zeros_like(b))
    assert set(nothing.codes(1e-10 * b.norm(dim=1)).tolist()) == {failed}


@iterative
def test_the_exact_inverse_as_preconditioner(name: str) -> None:
    A, b = contraction(3, 10)
    inverse = torch.linalg.inv(A)
    result, _ = solve(
        linear.registry.get(name), A, b, 1e-10, precondition=lambda x: apply(inverse, x)
    )
    # BiCGStab takes another for the residual that it reports.
    assert result.products == (2 if name == "bicgstab" else 1)
    assert (result.residual <= 1e-10 * b.norm(dim=1)).all()
    assert torch.allclose(result.x, exact(A, b), atol=1e-9)


@iterative
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_preconditioner_in_the_dtype_of_the_vectors(name: str, dtype: str) -> None:
    A, b = contraction(3, 10, dtype)
    seen: set[torch.dtype] = set()

    def precondition(x: Tensor) -> Tensor:
        seen.add(x.dtype)
        return 0.9 * x

    result, _ = solve(linear.registry.get(name), A, b, 20 * EPS[dtype], precondition=precondition)
    assert seen == {A.dtype}
    assert (result.residual <= 20 * EPS[dtype] * b.float().norm(dim=1)).all()


@iterative
def test_the_budget_of_each(name: str) -> None:
    A, b = contraction(2, 30, slope=0.9)
    for budget in range(1, 8):
        result, calls = solve(linear.registry.get(name), A, b, 1e-14, max_products=budget)
        assert result.products == calls <= budget
        assert set(result.codes(1e-14 * b.norm(dim=1)).tolist()) == {ReturnCode.MAX_EVALUATIONS}
        # BiCGStab keeps a product for the residual, so that two are too few for a step.
        assert ((result.residual < b.norm(dim=1)) | (budget < 3)).all()


# -- GMRES ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_full_gmres_is_exact_in_as_many_products_as_the_rank_of_the_rest(rank: int) -> None:
    # I minus a matrix of this rank has that many eigenvalues besides 1, and 1.
    J = 0.5 * normal(2, 12, rank) @ normal(2, rank, 12, seed=1) / 12
    A, b = torch.eye(12, dtype=torch.float64) - J, normal(2, 12, seed=2)
    result, _ = solve(GMRES(), A, b, 1e-12)
    assert result.products <= rank + 1
    assert torch.allclose(result.x, exact(A, b), atol=1e-10)


@every_matrix
def test_the_residual_of_gmres_never_grows(matrix: str) -> None:
    A, b = MATRICES[matrix]()
    sizes = [
        solve(GMRES(), A, b, 0.0, max_products=k)[0].residual for k in range(1, b.shape[1] + 1)
    ]
    for before, after in zip([b.norm(dim=1), *sizes], sizes, strict=False):
        assert (after <= before * (1 + 1e-12)).all()  # rounding


def test_restarted_gmres_on_a_cyclic_shift_stalls_and_says_so() -> None:
    # Of the first unit vector the products are the others: nothing is gained before the last.
    n = 8
    A = torch.roll(torch.eye(n, dtype=torch.float64), 1, dims=0).expand(2, n, n).clone()
    A[1] = torch.eye(n) * 2
    A[1, 0, 1] = 0.5
    b = torch.zeros(2, n, dtype=torch.float64)
    b[:, 0] = 1
    b[1] = 1
    tolerance = 1e-10 * b.norm(dim=1)
    result, _ = solve(GMRES(restart=n - 1), A, b, 1e-10)
    assert result.codes(tolerance).tolist() == [ReturnCode.STALLED, ReturnCode.SUCCESS]
    assert result.residual[0] == pytest.approx(1)
    full, _ = solve(GMRES(), A, b, 1e-10)
    assert full.products == n
    assert set(full.codes(tolerance).tolist()) == {ReturnCode.SUCCESS}
    # That the budget ends before the last product is something else.
    short, _ = solve(GMRES(), A, b, 1e-10, max_products=n - 1)
    assert short.codes(tolerance).tolist() == [ReturnCode.MAX_EVALUATIONS, ReturnCode.SUCCESS]


def test_what_a_cycle_tells() -> None:
    from solvers.linear.gmres import arnoldi_solve

    A, b = contraction(4, 20, slope=0.9)
    b[3] = 0
    tolerance = torch.tensor([1e-2, 1e-6, torch.inf, 0.0], dtype=torch.float64) * b.norm(dim=1)
    cycle = arnoldi_solve(
        lambda v: apply(A, v), b, tolerance=tolerance.nan_to_num(0.0, torch.inf), max_products=50
    )
    r = b - apply(A, cycle.x)
    assert torch.allclose(r, cycle.r, atol=1e-13)
    assert torch.allclose(r.norm(dim=1), cycle.residual, atol=1e-13)
    for i, count in enumerate(cycle.counts.tolist()):
        alone = arnoldi_solve(
            lambda v, i=i: apply(A[i : i + 1], v),
            b[i : i + 1],
            tolerance=tolerance[i : i + 1].nan_to_num(0.0, torch.inf),
            max_products=50,
        )
        assert alone.products == count
    assert cycle.counts[2] == cycle.counts[3] == 0
    assert cycle.products == cycle.counts.max()
    assert not cycle.live.any()
    assert cycle.basis_bytes >= (cycle.products + 1) * b.nbytes


# -- the others -----------------------------------------------------------------------------------


def test_the_terms_of_the_series() -> None:
    A, b = contraction(2, 6)
    J = torch.eye(6, dtype=torch.float64) - A
    for terms in (1, 2, 5):
        result, calls = solve(NeumannSeries(terms=terms), A, b, 0.0)
        assert calls == terms
        expected = sum((apply(torch.linalg.matrix_power(J, k), b) for k in range(terms)), 0 * b)
        assert torch.allclose(result.x, expected, atol=1e-12)
        # What is left out: Jᵏ b.
        rest = apply(torch.linalg.matrix_power(J, terms), b).norm(dim=1)
        assert torch.allclose(result.residual, rest, atol=1e-12)
    with pytest.raises(OptionError, match="terms = 0"):
        NeumannSeries(terms=0)


def test_a_diverging_series_ends_alone() -> None:
    A, b = contraction(2, 6)
    A[1] = -2 * torch.eye(6)
    result, _ = solve(NeumannSeries(), A, b, 1e-10)
    success, diverged = ReturnCode.SUCCESS, ReturnCode.DIVERGED
    assert result.codes(1e-10 * b.norm(dim=1)).tolist() == [success, diverged]
    assert torch.equal(result.x[1], torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
def test_bicgstab_on_a_larger_system(seed: int) -> None:
    """In exact arithmetic it ends after 2 D products; here it takes fewer, for the tolerance."""
    A, b = contraction(4, 200, slope=0.95, seed=seed)
    result, calls = solve(BiCGStab(), A, b, 1e-10, max_products=400)
    full, _ = solve(GMRES(), A, b, 1e-10)
    assert set(result.codes(1e-10 * b.norm(dim=1)).tolist()) == {ReturnCode.SUCCESS}
    assert full.products <= calls <= 3 * full.products
    assert result.history_bytes == 8 * b.nbytes < full.history_bytes


def test_bicgstab_where_its_recurrence_loses_the_residual() -> None:
    """Float32 and an ill-conditioned matrix: what is reported is what one measures."""
    q, _ = torch.linalg.qr(normal(40, 40))
    A = (q @ torch.diag(torch.logspace(-4, 0, 40, dtype=torch.float64)) @ q.T).float()[None]
    b = normal(1, 40, seed=1).float()
    result, _ = solve(BiCGStab(), A, b, 1e-6, max_products=1000)
    r = (b.double() - apply(A.double(), result.x.double())).norm(dim=1)
    noise = 10 * EPS["float32"] * float(result.x.norm() + b.norm())
    assert abs(float(r - result.residual)) <= noise


@pytest.mark.parametrize("name", ["bicgstab", "neumann", "dense"])
def test_solutions_are_differentiable(name: str) -> None:
    A, b = contraction(2, 4, slope=0.3)
    solver = linear.registry.get(name)

    def x(A: Tensor, b: Tensor) -> Tensor:
        return solve(solver, A, b, 1e-13)[0].x

    b.requires_grad_()
    gradient = torch.autograd.grad(x(A, b).sum(), b)[0]
    expected = torch.linalg.solve(A.mT, torch.ones(2, 4, dtype=torch.float64))
    # The derivative of an iteration that has converged lags behind its value by a few steps.
    assert torch.allclose(gradient, expected, atol=1e-6)
