"""The limit against what is known of it, and the spectrum against numpy's."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from maps import doubled, jacobian, pack, polished, tanh_map
from torch import Tensor, nn

import solvers
from solvers import Broyden, FixedPointProblem, Newton, Picard, ReturnCode, RootProblem, Solution
from solvers.limit import eigenvalues, limit, spectral_radius
from solvers.options import OptionError
from solvers.problem import Problem
from solvers.problems import registry as problems


def solved(problem: Problem, reltol: float = 1e-6, **options: Any) -> Solution:
    solution = solvers.solve(
        problem, Broyden(), **{"reltol": reltol, "max_evaluations": 2000, **options}
    )
    assert solution.success
    return solution


def first_residual(problem: Problem) -> Tensor:
    """(B,) the residual norm at the start."""
    f = pack(problem, problem.function(problem.z0, *problem.args, *problem.params))
    return (f - pack(problem, problem.z0)).norm(dim=1)


def by_least_squares(A: Tensor, r: Tensor, tolerance: float) -> int:
    """The limit of one sample: bases of the Krylov spaces by QR, and numpy's least squares."""
    K = [r / r.norm()]
    if r.norm() <= tolerance:
        return 2
    for k in range(1, len(r) + 1):
        V, _ = torch.linalg.qr(torch.stack(K, dim=1))
        y = torch.linalg.lstsq(A @ V, r[:, None]).solution
        if float((r - (A @ V @ y)[:, 0]).norm()) <= tolerance:
            return 2 + k
        w = A @ K[-1]
        K.append(w / w.norm())
    raise AssertionError


# -- the limit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reltol", [1e-2, 1e-5])
@pytest.mark.parametrize("name", ["linear", "cosine", "tanh", "tuple_tanh", "affine_root"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_least_squares(name: str, reltol: float, dtype: str) -> None:
    problem = problems.get(name, dtype=dtype)
    solution = solved(problem, reltol)
    found = limit(problem, solution)
    assert (found.shape, found.dtype) == ((8,), torch.float64)
    z = polished(problem, problem.solutions[0])
    A = -jacobian(doubled(problem), z)
    error = z - pack(problem, problem.z0).double()
    for i in range(8):
        tolerance = reltol * float(solution.scale[i])
        expected = by_least_squares(A[i], A[i] @ error[i], tolerance)
        assert found[i] == expected


@pytest.mark.parametrize(
    ("scale", "low", "high"), [(0.6, 26, 31), (0.9, 40, 54), (1.1, 48, 64), (1.3, 52, 70)]
)
def test_of_random_equilibria(scale: float, low: int, high: int) -> None:
    """The medians over six matrices are 28.5, 47, 55.5 and 59.5, of others like these."""
    problem = problems.get(
        "tanh", batch=1, dim=100, injection=0.3, scale=scale, dtype="float64", seed=1
    )
    solution = solved(problem, 1e-10)
    tolerance = 1e-8 * first_residual(problem)
    found = float(limit(problem, solution, tolerance=tolerance))
    assert low <= found <= high
    taken = solved(problem, 0.0, abstol=float(tolerance)).stats.evaluations
    # Asymptotic: the nonlinear solve may save an evaluation.
    assert found - 1 <= taken


@pytest.mark.parametrize("spectrum", ["real", "one_sided", "circle"])
def test_no_solver_beats_it_on_a_linear_problem(spectrum: str) -> None:
    problem = problems.get("linear", spectrum=spectrum, dim=20, dtype="float64")
    for name in ("picard", "anderson", "broyden"):
        solution = solvers.solve(
            problem, solvers.registry.get(name), reltol=1e-6, max_evaluations=500
        )
        # The tolerance is that of the solution: scale is ‖f(z)‖ at the point that it returned.
        least = limit(problem, solution)
        assert (solution.stats.sample_evaluations >= least - 1).all()
        assert (least <= 20 + 2).all()


def test_in_units_and_norms() -> None:
    problem = problems.get("linear", dtype="float64", dim=16)
    t = 1e-5
    l2 = limit(problem, solved(problem), tolerance=4 * t)
    for kind in ("rms", "linf"):
        # √D t = 4 t; a tolerance in linf is met no earlier than that.
        solution = solved(problem, norm=kind)
        assert torch.equal(limit(problem, solution, tolerance=t), l2)
    each = torch.logspace(-1, -8, 8, dtype=torch.float64)
    found = limit(problem, solved(problem), tolerance=each)
    assert (found.diff() >= 0).all()
    assert found[0] < found[-1]
    with pytest.raises(ValueError, match=r"tolerance has shape \(3,\), expected a number or \(8,"):
        limit(problem, solved(problem), tolerance=each[:3])


def test_a_start_that_is_good_enough() -> None:
    problem = tanh_map()
    solution = solved(problem, 1e-10)
    assert (limit(problem, solution, tolerance=100.0) == 1).all()
    again = replace(problem, z0=solution.value)
    assert (limit(again, solved(again, 1e-6)) == 1).all()
    constant = problems.get("constant", dtype="float64")
    # J = 0: the first evaluation tells the solution, one product of I with the error, one to end.
    assert (limit(constant, solved(constant)) == 3).all()


def test_a_limit_that_takes_more_vectors_than_it_may() -> None:
    # A shift whose last product alone tells anything, with fewer vectors than it takes.
    n = 30
    shift = torch.roll(torch.eye(n, dtype=torch.float64), 1, dims=0)
    b = torch.zeros(1, n, dtype=torch.float64)
    b[0, 0] = 1
    affine = RootProblem(lambda z, b: z @ shift.T - b, torch.zeros_like(b), (b,))
    root = solvers.solve(affine, Newton(), reltol=1e-8)
    assert limit(affine, root) == n + 2
    assert torch.isnan(limit(affine, root, max_vectors=n - 1)).all()


def test_where_no_krylov_method_gets_there() -> None:
    """I − J is nilpotent: the first product is zero, and the residual stays."""
    # g(z) = N z − b with N e₂ = e₁, N e₁ = 0: of b = e₁ the only products are N b = 0.
    N = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    problem = RootProblem(lambda z, b: z @ N.T - b, torch.zeros_like(b), (b,))
    start = replace(problem, z0=torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    solution = solvers.solve(start, Picard(), reltol=1e-8)
    assert solution.success  # it starts at a root
    assert torch.isinf(limit(problem, solution, tolerance=1e-8)).all()


def test_what_is_not_near_a_root() -> None:
    problem = RootProblem(lambda z: z * z + 1, torch.ones(3, 2, dtype=torch.float64))
    solution = solvers.solve(problem, Picard(), max_evaluations=5)
    assert not solution.success
    with pytest.raises(
        ValueError, match=r"sample 0 is not near a root: .* residual of 1.*rounding"
    ):
        limit(problem, solution)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(0.2 * torch.randn(9, 9, generator=g))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.T + u)

    method = forward


def test_functions_that_hold_weights_of_float32() -> None:
    cell, u = Cell(), torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    found = []
    with torch.no_grad():
        for f in (cell, cell.method, lambda z, u: 1 * cell(z, u)):
            problem = FixedPointProblem(f, torch.zeros_like(u), (u,), samples_independent=True)
            found.append(limit(problem, solved(problem, 1e-4)))
    assert torch.equal(found[0], found[1])
    # The last one closes over float32 weights, which nobody can cast from outside.
    assert torch.equal(found[0], found[2])
    assert cell.W.dtype == torch.float32
    assert found[0].max() > 4


def test_samples_have_no_influence_on_each_other() -> None:
    problem = problems.get("tanh", dtype="float64", dim=12, scale=0.9)
    declared = replace(problem, samples_independent=True)  # type: ignore[type-var]
    solution = solved(declared)
    whole = limit(declared, solution)
    assert torch.equal(limit(problem, solved(problem)), whole)  # found out by a probe
    order = [3, 3, 0, 7]
    part = replace(
        declared,
        z0=declared.z0[order],
        args=(declared.args[0][order],),
        solutions=(),  # type: ignore
    )
    assert torch.equal(limit(part, solved(part)), whole[order])


def test_samples_that_depend_on_each_other_have_one_limit() -> None:
    b = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = FixedPointProblem(
        lambda z, b: 0.5 * z.mean(dim=0) + b + 0 * z, torch.zeros_like(b), (b,)
    )
    found = limit(problem, solved(problem))
    # J has the eigenvalues 0 and ½: two products.
    assert found.tolist() == [4, 4, 4]


def test_no_graph_is_left() -> None:
    problem = tanh_map()
    solution = solved(problem)
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
        found = limit(problem, solution), spectral_radius(problem, solution)
        after = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
    finally:
        gc.enable()
    assert after - before <= len(found)
    assert not any(t.requires_grad for t in found)


# -- the spectrum ---------------------------------------------------------------------------------


def rotations(radius: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A dominant pair radius · exp(±1.2 i) beside smaller ones."""
    pairs = ((radius, 1.2), (0.8 * radius, 0.3), (0.5 * radius, 2.5), (0.2 * radius, 1.9))
    blocks = [
        r
        * torch.tensor(
            [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64
        )
        for r, a in pairs
    ]
    q, _ = torch.linalg.qr(
        torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    return (q @ torch.block_diag(*blocks) @ q.T).to(dtype)


def affine(A: Tensor, batch: int = 2) -> FixedPointProblem:
    b = torch.ones(batch, len(A), dtype=A.dtype)
    return FixedPointProblem(lambda z, b, A: z @ A.T + b, torch.zeros_like(b), (b,), (A,))


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99, 1.3])
def test_a_complex_pair_that_the_rayleigh_quotient_gets_wrong(radius: float) -> None:
    A = rotations(radius)
    problem = affine(A)
    v = torch.ones(8, dtype=torch.float64)
    for _ in range(400):
        v = A.T @ v
        v = v / v.norm()
    # ρ cos 1.2, up to rounding: what power iteration with a Rayleigh quotient reads.
    assert float(v @ A.T @ v) == pytest.approx(radius * math.cos(1.2), rel=1e-6)
    growth = spectral_radius(problem, method="growth")
    assert torch.allclose(growth, torch.full((2,), radius, dtype=torch.float64), rtol=1e-3)
    found = spectral_radius(problem)
    assert (found.shape, found.dtype) == ((2,), torch.float64)
    assert torch.allclose(found, torch.full((2,), radius, dtype=torch.float64), rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["arnoldi", "growth"])
def test_in_other_precisions(dtype: torch.dtype, method: Literal["arnoldi", "growth"]) -> None:
    found = spectral_radius(affine(rotations(0.9, dtype)), method=method)
    # The rounding of A and of the products with it.
    assert torch.allclose(
        found, torch.full((2,), 0.9, dtype=torch.float64), rtol=4 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("name", ["linear", "cosine", "tanh", "tuple_tanh", "affine_root"])
def test_all_eigenvalues(name: str) -> None:
    problem = problems.get(name, dtype="float64")
    solution = solved(problem)
    found = eigenvalues(problem, solution)
    z = pack(problem, solution.value)
    J = jacobian(problem, z) + torch.eye(z.shape[1], dtype=z.dtype)
    expected = torch.linalg.eigvals(J)
    assert found.shape == expected.shape
    assert (found.abs().diff(dim=1) <= 1e-12).all()  # the largest first
    for ours, theirs in zip(found, expected, strict=True):
        # As sets: each has one of the others beside it.
        distance = (ours[:, None] - theirs[None]).abs()
        assert distance.amin(dim=1).max() < 1e-8
        assert distance.amin(dim=0).max() < 1e-8
    largest = expected.abs().amax(dim=1)
    assert torch.allclose(spectral_radius(problem, solution), largest, rtol=1e-8)


def test_a_space_that_is_exhausted_early() -> None:
    """The identity, zero and a map of rank 1 have invariant spaces everywhere."""
    eye = torch.eye(6, dtype=torch.float64)
    assert torch.allclose(eigenvalues(affine(3 * eye)), torch.full((2, 6), 3.0).cdouble())
    zero = problems.get("constant", dim=6, dtype="float64")
    assert torch.equal(eigenvalues(zero), torch.zeros(8, 6).cdouble())
    for method in ("arnoldi", "growth"):
        assert torch.equal(spectral_radius(zero, method=method), torch.zeros(8).double())  # type: ignore[arg-type]
    one = eye.clone()
    one[1:] = 0
    found = eigenvalues(affine(one))
    assert torch.allclose(found.abs()[:, 0], torch.ones(2, dtype=torch.float64))
    assert (found.abs()[:, 1:] < 1e-8).all()


def test_ritz_values_of_a_large_map() -> None:
    A = 0.9 * torch.randn(300, 300, generator=torch.Generator().manual_seed(3)).double() / 300**0.5
    # A real eigenvalue that stands apart is found by few products.
    A[0], A[:, 0] = 0, 0
    A[0, 0] = 1.5
    problem = affine(A)
    assert eigenvalues(problem, products=30).shape == (2, 30)
    found = spectral_radius(problem, products=60)
    assert torch.allclose(found, torch.full((2,), 1.5).double(), rtol=1e-6)
    assert torch.allclose(spectral_radius(problem, method="growth"), found, rtol=1e-3)


def test_a_jacobian_that_is_not_finite_is_alone() -> None:
    u = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    problem = FixedPointProblem(
        lambda z, u: torch.sqrt(z), u, (u,), samples_independent=True
    )  # an infinite slope at 0
    found = eigenvalues(problem)
    assert torch.isfinite(found.abs()[0]).all()
    assert torch.isnan(found.abs()[1]).all()
    assert spectral_radius(problem)[0] == pytest.approx(0.5)


def test_points_and_options() -> None:
    problem = problems.get("cosine", dtype="float64", batch=3, dim=2)
    z = torch.full((3, 2), 0.3, dtype=torch.float64)
    slope = torch.full((3,), math.sin(0.3), dtype=torch.float64)
    for method in ("arnoldi", "growth"):
        assert torch.allclose(spectral_radius(problem, z, method=method), slope)  # type: ignore[arg-type]
    at_start = spectral_radius(problem)
    assert torch.allclose(at_start, problem.z0.sin().amax(dim=1))  # type: ignore[union-attr]
    with pytest.raises(OptionError, match=r"unknown method 'arnoldy'; did you mean 'arnoldi'"):
        spectral_radius(problem, method="arnoldy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="products = 0: at least 1"):
        eigenvalues(problem, products=0)
    state = torch.random.get_rng_state()
    assert torch.equal(spectral_radius(problem, z, seed=4), spectral_radius(problem, z, seed=4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert solved(problem).retcode.eq(int(ReturnCode.SUCCESS)).all()
