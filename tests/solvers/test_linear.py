"""GMRES and the direct method against numpy, each sample by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from maps import EPS, every_dtype
from torch import Tensor

from solvers import OptionError, ReturnCode, linear
from solvers.linear import GMRES, Dense, LinearResult

every_linear = pytest.mark.parametrize("name", linear.registry.names())


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
        return (A @ x[:, :, None])[:, :, 0]

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
    A, b = system(batch, dim, dtype)
    reltol = 100 * EPS[dtype]
    result, calls = solve(linear.registry.get(name), A, b, reltol)
    assert result.products == calls
    size = b.norm(dim=1)
    assert (result.residual <= reltol * size).all()
    r = b - (A @ result.x[:, :, None])[:, :, 0]
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
    A, b = system(4, 15)
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
    A, b = system(3, 6)
    b[1] = 0
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    assert torch.equal(result.x[1], torch.zeros(6, dtype=torch.float64))
    assert result.residual[1] == 0
    assert torch.allclose(result.x, exact(A, b), atol=1e-8)
    zero, calls = solve(linear.registry.get(name), A, torch.zeros_like(b), 1e-10)
    assert torch.equal(zero.x, torch.zeros_like(b))
    assert calls == (0 if name == "gmres" else 6)


@every_linear
def test_singular_and_consistent(name: str) -> None:
    # A zero eigenvalue whose direction b does not have: the Krylov space never meets it.
    A = torch.diag_embed(torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64))
    b = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    assert torch.isfinite(result.x).all()
    assert torch.allclose(result.x[1], torch.tensor([1, 0.5, 1 / 3], dtype=torch.float64))
    if name == "gmres":
        assert torch.allclose(result.x[0], torch.tensor([1, 0.5, 0.0], dtype=torch.float64))
        assert (result.residual <= 1e-10).all()
    else:
        assert result.reason is ReturnCode.LINEAR_SOLVE_FAILED
        assert result.residual[0] > 1e-10


@every_linear
def test_singular_and_inconsistent(name: str) -> None:
    A = torch.diag_embed(torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64))
    b = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 1e-10)
    assert torch.isfinite(result.x).all()
    # The nearest that there is, or what was there before.
    r = b - (A @ result.x[:, :, None])[:, :, 0]
    assert result.residual[0] >= 1 - 1e-12
    assert torch.allclose(r.norm(dim=1), result.residual)
    assert result.reason in {ReturnCode.STALLED, ReturnCode.LINEAR_SOLVE_FAILED}
    nothing, _ = solve(linear.registry.get(name), torch.zeros_like(A), b, 1e-10)
    assert torch.equal(nothing.x, torch.zeros_like(b))


@every_dtype
@pytest.mark.parametrize("seed", range(4))
def test_a_random_singular_operator_does_not_blow_up(dtype: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 8, 7, generator=g, dtype=torch.float64)
    A = (A @ torch.randn(6, 7, 8, generator=g, dtype=torch.float64) / 8).to(getattr(torch, dtype))
    b = torch.randn(6, 8, generator=g, dtype=torch.float64).to(A.dtype)
    result, _ = solve(GMRES(), A, b, 1e-12)
    r = b - (A @ result.x[:, :, None])[:, :, 0]
    # What is reported is true, up to the rounding of a product with x; and of x something is left.
    noise = EPS[dtype] * 30 * result.x.norm(dim=1)
    assert ((r.norm(dim=1) - result.residual).abs() <= noise + 1e3 * EPS[dtype]).all()
    assert (noise <= 100 * b.norm(dim=1)).all()
    assert (result.residual <= b.norm(dim=1) * (1 + 10 * EPS[dtype])).all()
    assert (result.residual > 1e-12 * b.norm(dim=1)).all()


def test_a_sample_that_is_not_finite_is_alone() -> None:
    A, b = system(3, 6)
    A[1] = torch.nan
    result, _ = solve(GMRES(), A, b, 1e-10)
    assert not torch.isfinite(result.residual[1])
    good = [0, 2]
    assert (result.residual[good] <= 1e-10 * b[good].norm(dim=1)).all()
    assert torch.allclose(result.x[good], exact(A[good], b[good]), atol=1e-8)


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
    helped, _ = solve(
        GMRES(), A, b, 1e-10, precondition=lambda x: (inverse @ x[:, :, None])[:, :, 0]
    )
    assert helped.products < plain.products / 2
    assert (helped.residual <= 1e-10 * b.norm(dim=1)).all()
    assert torch.allclose(helped.x, plain.x, atol=1e-7)


@pytest.mark.parametrize("kind", ["l2", "rms", "linf"])
@every_linear
def test_norms(name: str, kind: str) -> None:
    A, b = system(3, 10)
    tolerance = torch.full((3,), 1e-8, dtype=torch.float64)
    result, _ = solve(linear.registry.get(name), A, b, 0.0, tolerance=tolerance, norm=kind)
    r = b - (A @ result.x[:, :, None])[:, :, 0]
    size = {"l2": r.norm(dim=1), "rms": r.norm(dim=1) / 10**0.5, "linf": r.abs().amax(dim=1)}[kind]
    assert (size <= 1e-8).all()
    assert torch.allclose(result.residual, size, atol=1e-14)


@every_linear
@pytest.mark.parametrize("power", [-40, 40])
@every_dtype
def test_units_have_no_influence(name: str, dtype: str, power: int) -> None:
    A, b = system(3, 8, dtype)
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
            lambda v: (A @ v[:, :, None])[:, :, 0],
            b,
            tolerance=torch.zeros(2, dtype=torch.float64),
            max_products=4,
        ).x

    assert torch.autograd.gradcheck(x, (A.requires_grad_(), b.requires_grad_()))
    # After as many products as dimensions the answer is exact, and so is its derivative.
    gradient = torch.autograd.grad(x(A, b).sum(), b)[0]
    expected = torch.linalg.solve(A.detach().mT, torch.ones(2, 4, dtype=torch.float64))
    assert torch.allclose(gradient, expected, atol=1e-9)
