"""What is true of every registered problem: options, batch, solutions, Jacobian, traps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from maps import EPS, doubled, every_dtype, layout, pack, residual, sub
from maps import jacobian as slope_of_residual
from torch import Tensor

from solvers import FixedPointProblem, OptionError, RootProblem
from solvers.problem import TRAPS, Problem
from solvers.problems import STANDARD, registry
from solvers.problems.fixed_points import COSINE

every_problem = pytest.mark.parametrize("name", registry.names())

# What a problem's options change about its roots, beyond the defaults.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in registry.names()),
    *(("linear", {"spectrum": s}) for s in ("one_sided", "disc", "circle", "low_rank")),
    *(("linear", {"spectrum": s}) for s in ("nonnormal", "ginibre")),
    ("tanh", {"scale": 1.3, "dim": 100, "injection": 0.3}),
    ("tanh", {"injection": (0.05, 1.5)}),
    ("tanh_radius", {"radius": 1.1, "dim": 30}),
    *(("chandrasekhar_h", {"c": c}) for c in (0.01, 0.5, 0.99, 1 - 1e-10, 1.0)),
    ("h_equation", {"c": 1.0, "n": 50}),
    *((name, {"n": n}) for name in ("watson", "chebyquad") for n in (3, 6, 8, 12)),
    *(
        (name, {"n": n})
        for name in registry.names()
        for n in (3, 4, 25)
        if name not in ("watson", "chebyquad")
        and "n" in {o.name for o in registry.describe(name).options}
    ),
    *(("bratu", {"strength": s, "branch": b}) for s in (0.01, 3.5) for b in ("lower", "upper")),
    ("bratu_picard", {"strength": 3.5}),
    ("brusselator", {"N": 16}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(n, o, id="-".join([n, *(f"{k}={v}" for k, v in o.items())]))
        for n, o in VARIANTS
    ],
)


def get(name: str, batch: int, **options: Any) -> Problem:
    """The problem with so many samples: ``starts`` of a system, ``batch`` of the others."""
    known = {o.name for o in registry.describe(name).options}
    return registry.get(name, **{"starts" if "starts" in known else "batch": batch}, **options)


def parts(z: object) -> tuple[Tensor, ...]:
    return z if isinstance(z, tuple) else (z,)  # type: ignore[return-value]


def jacobian(problem: Problem, z: Any) -> Tensor:
    """(B, D, D) the problem's own formula."""
    assert problem.jacobian is not None
    return problem.jacobian(z, *problem.args, *problem.params)


def bound(problem: Problem, z: Any, eps: float) -> Tensor:
    """(B, D) how large the residual of a root may be, once every number is rounded to eps.

    A relative change eps of z changes the residual by |J| |z| eps. Its terms have that size too,
    or that of a constant of order 1, and are rounded as they are added, D of them. A fixed point's
    z is itself a term.
    """
    J, size = jacobian(problem, z).abs(), pack(problem, z).abs()
    terms = (J @ size[..., None])[..., 0] + size.clamp(min=1)
    return (8 + layout(problem).dim) * eps * terms


@every_dtype
@every_variant
def test_solutions_solve(name: str, options: dict[str, Any], dtype: str) -> None:
    problem = get(name, 3, dtype=dtype, **options)
    assert problem.name == name
    assert problem.batch == 3
    assert bool(problem.solutions) != ("no_root" in problem.traps)
    assert pack(problem, problem.z0).dtype == getattr(torch, dtype)
    wide = doubled(problem)
    for narrow, solution in zip(problem.solutions, wide.solutions, strict=True):
        assert [t.shape for t in parts(narrow)] == [t.shape for t in parts(problem.z0)]
        assert (residual(wide, solution).abs() <= bound(wide, solution, EPS[dtype])).all()


@every_problem
def test_the_jacobian_is_that_of_autograd(name: str) -> None:
    """At the starts, at the roots, and row by row through the batch."""
    problem = get(name, 3, dtype="float64", seed=5)
    for z in (problem.z0, *problem.solutions):
        expected = slope_of_residual(problem, pack(problem, z))
        if isinstance(problem, FixedPointProblem):
            expected = expected + torch.eye(expected.shape[-1], dtype=torch.float64)
        actual = jacobian(problem, z)
        assert actual.shape == expected.shape
        rounding = 1e-13 * max(1.0, float(expected.abs().max()))
        assert (actual - expected).abs().max() <= rounding


@every_problem
def test_a_sample_alone_is_what_it_is_in_the_batch(name: str) -> None:
    problem = get(name, 4, dtype="float64", seed=5)
    together, J = residual(problem, problem.z0), jacobian(problem, problem.z0)
    # The order of a sum may change with the batch.
    rounding = 1e-13 * max(1.0, float(J.abs().max()) * float(pack(problem, problem.z0).abs().max()))
    for k in range(4):
        one = sub(problem, [k])
        assert (residual(one, one.z0) - together[[k]]).abs().max() <= rounding
        assert (jacobian(one, one.z0) - J[[k]]).abs().max() <= rounding


@every_problem
def test_vmap_over_problems(name: str) -> None:
    """An ensemble of batches: what the implicit gradient's transforms do."""
    problem = get(name, 3, dtype="float64", seed=5)
    stacked = torch.stack([pack(problem, problem.z0), 1.5 * pack(problem, problem.z0)])
    unpack = layout(problem).unpack

    def value(z: Tensor) -> Tensor:
        return residual(problem, unpack(z))

    each = torch.stack([value(z) for z in stacked])
    assert torch.allclose(torch.func.vmap(value)(stacked), each, rtol=1e-12, atol=1e-12)


@every_problem
def test_constants_are_made_where_the_state_is(name: str) -> None:
    """On the meta device, which refuses tensors of another one, as an accelerator does."""
    problem = get(name, 3)

    def move(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(t.to("meta") for t in tensors)

    z = move(parts(problem.z0))
    there = replace(  # type: ignore[type-var]
        problem,
        z0=z if isinstance(problem.z0, tuple) else z[0],
        args=move(problem.args),
        params=move(problem.params),
    )
    dim = layout(problem).dim
    assert residual(there, there.z0).shape == (3, dim)
    assert jacobian(there, there.z0).shape == (3, dim, dim)


@every_problem
def test_a_seed_fixes_the_problem_and_the_global_state_has_no_influence(name: str) -> None:
    torch.manual_seed(1)
    one = get(name, 3, seed=3)
    torch.manual_seed(2)
    two = get(name, 3, seed=3)
    other = get(name, 3, seed=4)
    assert _tensors(one) == _tensors(two)
    assert _tensors(one) != _tensors(other)


def _tensors(problem: Problem) -> list[list[float]]:
    tensors = (*parts(problem.z0), *problem.args, *problem.params)
    return [t.flatten().tolist() for t in tensors]


@every_problem
def test_described(name: str) -> None:
    entry = registry.describe(name)
    assert entry.summary
    assert not entry.error
    options = {o.name for o in entry.options}
    assert {"dtype", "seed"} <= options
    assert len({"batch", "starts"} & options) == 1


@every_problem
def test_options_are_checked(name: str) -> None:
    size = "starts" if "starts" in {o.name for o in registry.describe(name).options} else "batch"
    with pytest.raises(OptionError, match=rf"problem\.{size}x: unknown .* did you mean '{size}'"):
        registry.get(name, **{f"{size}x": 3})
    with pytest.raises(OptionError, match=r"problem\.dtype = 'float16'"):
        registry.get(name, dtype="float16")
    with pytest.raises(OptionError, match=rf"problem\.{size} = 0"):
        registry.get(name, **{size: 0})


# The standard systems and their like: a batch is many starts of one problem.


SYSTEMS = [
    n for n in registry.names() if "starts" in {o.name for o in registry.describe(n).options}
]
every_system = pytest.mark.parametrize("name", SYSTEMS)


def test_the_standard_systems() -> None:
    assert len(STANDARD) == len(set(STANDARD)) == 23
    assert set(STANDARD) <= set(SYSTEMS)
    for name in STANDARD:
        assert isinstance(registry.get(name), RootProblem)
        assert registry.describe(name).reference


@every_system
def test_the_first_start_is_the_standard_one(name: str) -> None:
    alone = registry.get(name)
    many = registry.get(name, starts=5, seed=3)
    assert alone.batch == 1
    assert alone.samples_independent is True
    start = pack(many, many.z0)
    assert torch.equal(pack(alone, alone.z0)[0], start[0])
    fewer = registry.get(name, starts=3, seed=3)
    assert torch.equal(pack(fewer, fewer.z0), start[:3])
    same = registry.get(name, starts=5, spread=0.0)
    assert torch.equal(pack(same, same.z0)[4], start[0])
    assert len({tuple(row) for row in start.tolist()}) == 5
    for solution in many.solutions:  # the same for every start
        assert torch.equal(solution, solution[:1].expand_as(solution))  # type: ignore[union-attr,index]


@every_system
def test_perturbed_starts_are_as_far_as_the_spread(name: str) -> None:
    problem = registry.get(name, starts=400, spread=0.3)
    start = pack(problem, problem.z0)
    noise = (start[1:] - start[0]) / start[0].abs().clamp(min=1)
    # The mean square of 399 normal numbers is within 30 % but once in 10⁴; there are up to 128.
    assert ((noise.square().mean(0) / 0.3**2 - 1).abs() < 0.5).all()


# Traps.


def condition(problem: Problem, z: Any) -> tuple[Tensor, Tensor]:
    """The condition (B,) of the residual's derivative, and its smallest singular value (B,)."""
    J = slope_of_residual(problem, pack(problem, z))
    values = torch.linalg.svdvals(J)
    return values[:, 0] / values[:, -1], values[:, -1]


ALSO_ROOTS = {  # where there are too many roots to list
    "sample_18": lambda z: torch.tensor([[0.0, 3.0]], dtype=torch.float64),
    "quadratic_root": lambda z: -z,
}


@every_variant
def test_traps_are_those_that_the_roots_show(name: str, options: dict[str, Any]) -> None:
    problem = get(name, 1, dtype="float64", **options)
    assert set(problem.traps) <= set(TRAPS)
    roots: list[Any] = list(problem.solutions)
    if name in ALSO_ROOTS:
        roots.append(ALSO_ROOTS[name](roots[0]))
        assert (residual(problem, roots[-1]).abs() <= bound(problem, roots[-1], 1e-15)).all()
    # A root near the fold (c → 1) has a condition of 1 / √(1 − c), and the gap is as large.
    gaps = [
        float((pack(problem, a) - pack(problem, b)).abs().max())
        for k, a in enumerate(roots)
        for b in roots[:k]
    ]
    assert all(gap > 1e-6 for gap in gaps)
    listed_apart = options.get("c", 1.0) != 0.01  # see chandrasekhar: hidden by rounding
    if listed_apart:
        assert (len(roots) > 1) == ("many_roots" in problem.traps)

    conditions = [condition(problem, z) for z in problem.solutions]
    singular = [bool(smallest < 1e-13) for _, smallest in conditions]
    assert any(singular) == ("singular_root" in problem.traps)
    regular = [float(c) for (c, _), flat in zip(conditions, singular, strict=True) if not flat]
    assert any(c > 1e8 for c in regular) == ("ill_conditioned" in problem.traps)


def test_an_unknown_trap_is_refused() -> None:
    problem = registry.get("cosine")
    with pytest.raises(ValueError, match="traps has 'hole', allowed are many_roots"):
        replace(problem, traps=("hole",))  # type: ignore[type-var]


def test_the_cosine_constant() -> None:
    assert abs(torch.cos(torch.tensor(COSINE, dtype=torch.float64)) - COSINE) <= EPS["float64"]


def test_a_state_of_two_shapes() -> None:
    problem = registry.get("tuple_tanh", batch=3)
    assert layout(problem).shapes == [(4,), (2, 3)]
