"""The problem library: every problem knows a solution that solves it."""

from __future__ import annotations

import pytest
import torch
from maps import EPS, doubled, every_dtype, layout, pack, residual

import solvers.problems
from solvers import OptionError
from solvers.problems import registry
from solvers.problems.fixed_points import COSINE

every_problem = pytest.mark.parametrize("name", registry.names())


@every_problem
@every_dtype
@pytest.mark.parametrize("batch", [1, 64])
def test_solutions_solve(name: str, dtype: str, batch: int) -> None:
    problem = registry.get(name, dtype=dtype, batch=batch)
    assert problem.name == name
    assert problem.batch == batch
    assert problem.solutions
    flat = pack(problem, problem.z0)
    assert flat.dtype == getattr(torch, dtype)
    for solution in problem.solutions:
        assert [t.shape for t in _parts(solution)] == [t.shape for t in _parts(problem.z0)]
        wide = doubled(problem)
        error = residual(wide, wide.solutions[0])
        # A rounded root is off by rounding of its size; the slope of the residual is at most 10.
        size = max(1.0, float(pack(wide, wide.solutions[0]).abs().max()))
        assert error.abs().max() <= 10 * EPS[dtype] * size


def _parts(z: object) -> tuple[torch.Tensor, ...]:
    return z if isinstance(z, tuple) else (z,)  # type: ignore[return-value]


@every_problem
def test_a_seed_fixes_the_problem_and_the_global_state_has_no_influence(name: str) -> None:
    torch.manual_seed(1)
    one = registry.get(name, seed=3)
    torch.manual_seed(2)
    two = registry.get(name, seed=3)
    other = registry.get(name, seed=4)
    assert _tensors(one) == _tensors(two)
    assert _tensors(one) != _tensors(other)


def _tensors(problem: solvers.problems.Problem) -> list[list[float]]:
    tensors = (*_parts(problem.z0), *problem.args, *problem.params)
    return [t.flatten().tolist() for t in tensors]


@every_problem
def test_described(name: str) -> None:
    entry = registry.describe(name)
    assert entry.summary
    assert not entry.error
    assert {"batch", "dtype", "seed"} <= {o.name for o in entry.options}


@every_problem
def test_options_are_checked(name: str) -> None:
    with pytest.raises(OptionError, match=r"problem\.batsh: unknown .* did you mean 'batch'"):
        registry.get(name, batsh=3)
    with pytest.raises(OptionError, match=r"problem\.dtype = 'float16'"):
        registry.get(name, dtype="float16")
    with pytest.raises(OptionError, match=r"problem\.batch = 0"):
        registry.get(name, batch=0)


@pytest.mark.parametrize(
    ("spectrum", "radius", "dim"),
    [("real", 0.9, 7), ("one_sided", 0.5, 6), ("circle", 0.8, 7), ("circle", 1.5, 6)],
)
def test_linear_has_the_spectrum_it_promises(spectrum: str, radius: float, dim: int) -> None:
    problem = registry.get("linear", spectrum=spectrum, radius=radius, dim=dim, dtype="float64")
    (A,) = problem.params
    eigenvalues = torch.linalg.eigvals(A)
    rounding = 1e-12  # of an eigenvalue of a normal matrix of this size
    if spectrum == "circle":
        assert (eigenvalues.abs() - radius).abs().max() < rounding
    else:
        low = -radius if spectrum == "real" else 0.0
        expected = torch.linspace(low, radius, dim, dtype=torch.float64)
        assert (eigenvalues.real.sort().values - expected).abs().max() < rounding
        assert eigenvalues.imag.abs().max() < rounding


def test_linear_without_a_unique_fixed_point_is_refused() -> None:
    with pytest.raises(OptionError, match=r"problem\.radius = 1\.0.*one eigenvalue is 1"):
        registry.get("linear", spectrum="real", radius=1.0)


def test_the_cosine_constant() -> None:
    assert abs(torch.cos(torch.tensor(COSINE, dtype=torch.float64)) - COSINE) <= EPS["float64"]


def test_a_state_of_two_shapes() -> None:
    problem = registry.get("tuple_tanh", batch=3)
    assert layout(problem).shapes == [(4,), (2, 3)]
