"""Operator splittings: the published iterations, their proven rates, and how f offers its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from maps import EPS, SPLITTINGS, instrumented, reads, sub, tanh_map
from torch import Tensor

import solvers
from solvers import (
    Anderson,
    FixedPointProblem,
    ForwardBackward,
    OptionError,
    PeacemanRachford,
    Picard,
    ReturnCode,
    RootProblem,
)
from solvers.proximal import Dense, Monotone, Resolvent, norm_bound, projected

splittings = pytest.mark.parametrize("name", SPLITTINGS)


def matrix(dim: int = 6, margin: float = 0.2, skew: float = 0.5, seed: int = 0) -> Tensor:
    """W with the symmetric part of I − W at least the margin, and a skew part of this scale."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(dim, dim, generator=g, dtype=torch.float64) / (2 * math.sqrt(dim))
    B = skew * torch.randn(dim, dim, generator=g, dtype=torch.float64) / math.sqrt(dim)
    return (1 - margin) * torch.eye(dim, dtype=torch.float64) - A.T @ A + B - B.T


def injection(batch: int = 4, dim: int = 6, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, generator=g, dtype=torch.float64)


def monotone(batch: int = 4, dim: int = 6, seed: int = 0, **options: float) -> FixedPointProblem:
    W, margin = matrix(dim, seed=seed, **options), options.get("margin", 0.2)
    u = injection(batch, dim, seed + 1)

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return projected(z @ W.T + u, Dense(W, margin))

    return FixedPointProblem(f, torch.zeros_like(u), (u,), (W,), samples_independent=True)


def parts(problem: FixedPointProblem) -> tuple[Tensor, Tensor]:
    return problem.params[0], problem.args[0]


def exact(problem: FixedPointProblem) -> Tensor:
    """z* (B, D): by 3000 small steps, then the linear system of the active set."""
    W, u = parts(problem)
    z = torch.zeros_like(u)
    F = torch.eye(len(W), dtype=W.dtype) - W
    step = 0.1 / float(torch.linalg.matrix_norm(F, 2)) ** 2
    for _ in range(3000):
        z = (z - step * (z @ F.T - u)).relu()
    rows = []
    for row, injected in zip(z, u, strict=True):
        on = torch.nonzero(row > 0)[:, 0]
        found = torch.zeros_like(row)
        found[on] = torch.linalg.solve(F[on][:, on], injected[on])
        # The conditions of the inclusion, exactly: inside the set, and the slack of the right sign.
        assert (found >= 0).all()
        assert ((F @ found - injected)[row == 0] >= 0).all()
        rows.append(found)
    return torch.stack(rows)


# ----------------------------------------------------------------------------------- the iterations


@pytest.mark.parametrize("alpha", [0.1, 0.7])
def test_forward_backward_is_its_formula(alpha: float) -> None:
    problem = replace(monotone(), z0=injection(seed=5))
    W, u = (t.numpy() for t in parts(problem))
    noted, calls = instrumented(problem)
    solvers.solve(noted, ForwardBackward(alpha), reltol=0.0, max_evaluations=8, fixed_budget=True)
    z = problem.z0.numpy()  # type: ignore[union-attr]
    for point in calls.points:
        np.testing.assert_allclose(point.numpy(), z, rtol=1e-13, atol=1e-14)
        z = np.maximum((1 - alpha) * z + alpha * (z @ W.T + u), 0)
    assert len(calls.points) == 8


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_peaceman_rachford_is_the_published_iteration(alpha: float) -> None:
    problem = replace(monotone(), z0=injection(seed=5))
    W, b = (t.numpy() for t in parts(problem))
    noted, calls = instrumented(problem)
    solvers.solve(noted, PeacemanRachford(alpha), reltol=0.0, max_evaluations=8, fixed_budget=True)
    eye = np.eye(len(W))
    V = np.linalg.inv(eye + alpha * (eye - W))
    z0 = problem.z0.numpy()  # type: ignore[union-attr]
    x = z0 + alpha * (z0 @ W.T + b - z0)
    assert np.array_equal(calls.points[0].numpy(), z0)
    for point in calls.points[1:]:  # Winston & Kolter 2020, algorithm 2
        z = np.maximum(x, 0)
        np.testing.assert_allclose(point.numpy(), z, rtol=1e-11, atol=1e-13)
        half = 2 * z - x
        x = 2 * (half + alpha * b) @ V.T - half


def test_forward_backward_with_a_whole_step_is_plain_iteration() -> None:
    problem = monotone(margin=0.8, skew=0.2)
    ours, plain = (
        solvers.solve(problem, s, reltol=1e-9) for s in (ForwardBackward(alpha=1.0), Picard())
    )
    assert plain.success
    assert ours.stats.evaluations == plain.stats.evaluations
    torch.testing.assert_close(ours.value, plain.value, rtol=1e-12, atol=1e-13)


# -------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_forward_backward_contracts_below_the_bound(part: float, seed: int) -> None:
    """For 0 < α < 2m/L², at √(1 − 2αm + α²L²) in every step."""
    problem = monotone(seed=seed)
    W, _ = parts(problem)
    L = float(torch.linalg.matrix_norm(torch.eye(6, dtype=W.dtype) - W, 2))
    alpha = part * 2 * 0.2 / L**2
    rate = math.sqrt(1 - 2 * alpha * 0.2 + alpha**2 * L**2)
    assert rate < 1
    distances(problem, ForwardBackward(alpha), rate)


@splittings
@pytest.mark.parametrize("skew", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("margin", [0.05, 1.0, 3.0])
def test_the_default_step_contracts_as_promised(name: str, skew: float, margin: float) -> None:
    problem = monotone(margin=margin, skew=skew)
    W, _ = parts(problem)
    q = margin / float(Dense(W, margin).reach())
    rate = math.sqrt(1 - q**2) if name == "forward_backward" else math.sqrt((1 - q) / (1 + q))
    distances(problem, solvers.registry.get(name), rate, 1 / float(Dense(W, margin).reach()))


def distances(problem: FixedPointProblem, solver: Any, rate: float, alpha: float = 0.0) -> None:
    """Check that ‖z − z*‖, or ‖x − x*‖ that bounds it, falls by the rate in each step."""
    noted, calls = instrumented(problem)
    solvers.solve(noted, solver, reltol=0.0, max_evaluations=30, fixed_budget=True)
    start, z = calls.points[0], exact(problem)
    W, u = parts(problem)
    behind = isinstance(solver, PeacemanRachford)  # of which z = P(x) is the projection
    if behind:
        first = (start + alpha * (start @ W.T + u - start)) - (z + alpha * (z @ W.T + u - z))
    else:
        first = start - z
    for k, point in enumerate(calls.points[1:], start=1):
        bound = first.norm(dim=1) * rate ** (k - behind)
        # 1e-12: rounding at the end.
        assert ((point - z).norm(dim=1) <= bound * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("alpha", [1e-2, 0.1, 1.0, 10.0, 100.0])
def test_peaceman_rachford_contracts_for_every_step_length(alpha: float) -> None:
    problem = monotone(margin=0.5)
    W, _ = parts(problem)
    eye = torch.eye(6, dtype=W.dtype)
    cayley = 2 * torch.linalg.inv(eye + alpha * (eye - W)) - eye
    rate = float(torch.linalg.matrix_norm(cayley, 2))
    assert rate < 1
    distances(problem, PeacemanRachford(alpha), rate, alpha)
    if alpha in (0.1, 1.0, 10.0):
        solution = solvers.solve(
            problem, PeacemanRachford(alpha), reltol=1e-10, max_evaluations=1000
        )
        assert solution.success


def test_where_plain_iteration_fails_both_converge() -> None:
    problem = monotone(margin=0.1, skew=1.5)
    assert not solvers.solve(problem, Picard(), reltol=1e-6, max_evaluations=1000).success
    counts = []
    for name in SPLITTINGS:
        solution = solvers.solve(
            problem, solvers.registry.get(name), reltol=1e-6, max_evaluations=20000
        )
        assert solution.success, solution.message
        counts.append(solution.stats.evaluations)
    slow, fast = counts
    assert fast < slow / 10


@splittings
def test_from_twenty_starts_one_fixed_point_that_others_find_too(name: str) -> None:
    problem = monotone(batch=1, dim=8, margin=0.5)
    (u,), z0 = problem.args, 10 * injection(20, 8, seed=9)
    problem = replace(problem, z0=z0, args=(u.expand(20, -1),))
    solver = solvers.registry.get(name)
    found = solvers.solve(problem, solver, reltol=1e-13, max_evaluations=5000)
    assert found.success, found.message
    value = found.value
    assert isinstance(value, Tensor)
    scale = float(value.norm(dim=1).max())
    # 1e-13 of z over a margin of 0.5, and over the step of the residual.
    assert float((value - value[0]).norm(dim=1).max()) < 1e-10 * scale
    for other in (Anderson(window=20), solvers.Newton(globalisation="none")):
        theirs = solvers.solve(replace(problem, z0=value + 1e-3), other, reltol=1e-13)
        assert theirs.success
        assert isinstance(theirs.value, Tensor)
        assert float((theirs.value - value).norm(dim=1).max()) < 1e-10 * scale


# -------------------------------------------------------------------------- the bounds they rest on


@pytest.mark.parametrize("dim", [1, 2, 7, 60])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_of_a_norm(dim: int, scale: float, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(dim)
    M = scale * torch.randn(dim, dim, generator=g, dtype=torch.float64)
    norm = float(torch.linalg.matrix_norm(M, 2))
    bound = float(norm_bound(M.to(dtype)))
    rounding = 1e3 * torch.finfo(dtype).eps
    assert norm * (1 - rounding) <= bound <= norm * dim ** (1 / 128) * (1 + rounding)


def test_the_norm_of_nothing_is_next_to_nothing() -> None:
    assert float(norm_bound(torch.zeros(3, 3, dtype=torch.float64))) < 1e-150


@pytest.mark.parametrize("skew", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("margin", [0.01, 1.0])
def test_reach_bounds_what_it_promises(skew: float, margin: float) -> None:
    W = matrix(30, margin=margin, skew=skew)
    F = torch.eye(30, dtype=W.dtype) - W
    g = float(Dense(W, margin).reach())
    assert g <= float(torch.linalg.matrix_norm(F, 2)) * 30 ** (1 / 128) * (1 + 1e-12)
    v = torch.cat([injection(200, 30), torch.linalg.eigh((F + F.T) / 2).eigenvectors.T])
    s = (v * (v @ F.T)).sum(dim=1) / v.square().sum(dim=1)
    square = (v @ F.T).square().sum(dim=1) / v.square().sum(dim=1)
    assert (square <= s / margin * g**2 * (1 + 1e-12)).all()
    if skew == 0:  # a symmetric F: the root of the condition is gained
        assert g < 1.05 * math.sqrt(margin * float(torch.linalg.matrix_norm(F, 2)))


def test_the_resolvent_is_the_inverse() -> None:
    W, v = matrix(), injection()
    resolvent = Dense(W, 0.2).resolvent(0.7)
    eye = torch.eye(6, dtype=W.dtype)
    torch.testing.assert_close(resolvent.apply(v) @ (eye + 0.7 * (eye - W)).T, v)
    assert resolvent.nbytes == 6 * 6 * 8


# ------------------------------------------------------------------------------ one loop, as others


@splittings
def test_what_is_counted(name: str) -> None:
    problem, calls = instrumented(replace(monotone(), z0=injection(seed=5)))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-8, max_evaluations=900)
    assert solution.success
    stats = solution.stats
    assert stats.evaluations == calls.calls
    assert torch.equal(stats.sample_evaluations, calls.samples)
    assert stats.iterations == stats.evaluations - 1
    # Each step but the first, which has no x yet, takes one product with the resolvent.
    assert stats.jvps == (stats.iterations - 1 if name == "peaceman_rachford" else 0)
    assert stats.vjps == 0
    samples = 4 * 6 * 8
    assert stats.history_bytes == (samples + 6 * 6 * 8 if name == "peaceman_rachford" else 0)


@splittings
def test_alone_as_in_the_batch_and_the_finished_are_dropped(name: str) -> None:
    problem = monotone(batch=5)
    far = problem.z0.clone()  # type: ignore[union-attr]
    far[1] = 100.0
    problem = replace(problem, z0=far)
    solver = solvers.registry.get(name)
    solution = solvers.solve(problem, solver, reltol=1e-9, max_evaluations=900)
    counts = solution.stats.sample_evaluations
    assert counts.min() < counts.max()
    for i in range(5):
        alone = solvers.solve(sub(problem, [i]), solver, reltol=1e-9, max_evaluations=900)  # type: ignore[arg-type]
        assert alone.stats.evaluations == counts[i]
        torch.testing.assert_close(alone.value[0], solution.value[i], rtol=1e-11, atol=1e-12)  # type: ignore[index]


@splittings
def test_coupled_samples_take_the_same_steps(name: str) -> None:
    apart = monotone()
    together = replace(apart, samples_independent=False)
    settings = {"reltol": 0.0, "max_evaluations": 20, "fixed_budget": True}
    values = [
        solvers.solve(p, solvers.registry.get(name), **settings).value  # type: ignore[arg-type]
        for p in (apart, together)
    ]
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-13)


@splittings
def test_in_float32_the_last_digits_are_reached(name: str) -> None:
    problem = monotone(margin=0.5).mapped(Tensor.float)
    solution = solvers.solve(
        problem, solvers.registry.get(name), reltol=5 * EPS["float32"], max_evaluations=900
    )
    assert solution.success


@splittings
def test_states_in_half_precision(name: str) -> None:
    problem = monotone(margin=0.5)
    z = exact(problem)
    half = problem.mapped(Tensor.bfloat16)
    solution = solvers.solve(half, solvers.registry.get(name), reltol=2e-2, max_evaluations=200)
    assert solution.success
    assert solution.value.dtype == torch.bfloat16  # type: ignore[union-attr]
    # bfloat16 rounds at 4e-3, W and u too, over a margin of 0.5.
    assert float((solution.value.double() - z).norm()) < 0.1 * float(z.norm())  # type: ignore[union-attr]


@splittings
@pytest.mark.parametrize("alpha", [None, 0.1])
def test_a_fixed_budget_reads_nothing(name: str, alpha: float | None) -> None:
    problem, solver = monotone(), solvers.registry.get(name, alpha=alpha)
    with reads() as seen:
        solvers.solve(problem, solver, max_evaluations=6, fixed_budget=True, trace=None)
    alone = list(seen)
    with reads() as seen:
        solvers.solve(problem, Picard(), max_evaluations=6, fixed_budget=True, trace=None)
    assert alone == seen  # the end of a solve is looked at, whoever solves


@splittings
def test_in_inference_mode(name: str) -> None:
    with torch.inference_mode():
        solution = solvers.solve(
            monotone(), solvers.registry.get(name), reltol=1e-6, max_evaluations=900
        )
    assert solution.success


@dataclass(frozen=True)
class Channels(Monotone):
    """F = I − W on states (B, C, N), where W mixes the channels alone."""

    W: Tensor
    margin: float

    def reach(self) -> Tensor:
        return Dense(self.W, self.margin).reach()

    def resolvent(self, alpha: Tensor | float) -> Resolvent:
        eye = torch.eye(len(self.W), dtype=self.W.dtype)
        V = torch.linalg.inv(eye + alpha * (eye - self.W))
        return Resolvent(lambda v: V @ v, V.nbytes)


@splittings
def test_another_operator_on_a_state_of_another_shape(name: str) -> None:
    """The projection is onto a box, and the state is (B, 6, 3)."""
    W, u = matrix(margin=0.5), torch.stack([injection(seed=s) for s in (1, 2, 3)], dim=-1)

    def f(z: Tensor, u: Tensor) -> Tensor:
        return projected(W @ z + u, Channels(W, 0.5), lambda v: v.clamp(-0.5, 0.2))

    problem = FixedPointProblem(f, torch.zeros_like(u), (u,))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-10, max_evaluations=900)
    assert solution.success
    z = solution.value
    assert isinstance(z, Tensor)
    torch.testing.assert_close(f(z, u), z, rtol=0, atol=1e-8)
    assert (z == 0.2).any()
    assert (z == -0.5).any()
    assert ((z > -0.5) & (z < 0.2)).any()


# ---------------------------------------------------------------------------------- what is refused


@splittings
@pytest.mark.parametrize("kind", ["plain", "damped", "root", "other"])
def test_a_function_without_the_parts_is_refused(name: str, kind: str) -> None:
    parted = monotone()
    f, g = parted.f, lambda z, u, W: parted.f(z, u, W) - z
    problem = {
        "plain": tanh_map(),
        "damped": replace(parted, f=lambda z, u, W: (z + f(z, u, W)) / 2),
        "root": RootProblem(g, parted.z0, parted.args, parted.params),
        "other": replace(parted, f=lambda z, u, W: (f(z, u, W), torch.tanh(z) + u)[1]),
    }[kind]
    with pytest.raises(OptionError, match=rf"{name} splits .*'monotone'.*anderson, broyden"):
        solvers.solve(problem, solvers.registry.get(name), reltol=1e-6)


@splittings
def test_a_chain_hands_over_what_a_splitting_leaves(name: str) -> None:
    problem = monotone(margin=0.05, skew=1.0)
    chain = solvers.Fallback((solvers.registry.get(name), Anderson(window=20)))
    solution = solvers.solve(problem, chain, reltol=1e-10, max_evaluations=60)
    first, second = solution.attempts
    assert ReturnCode.MAX_EVALUATIONS in first.retcode
    assert second.stats.evaluations > 0
    assert solution.residual.max() < first.residual.max()


@splittings
@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, "1"])
def test_a_bad_step_length_is_refused(name: str, alpha: object) -> None:
    with pytest.raises(OptionError, match="alpha"):
        solvers.registry.get(name, alpha=alpha)


def test_where_nobody_listens_it_is_the_projection() -> None:
    v = injection()
    assert torch.equal(projected(v, Dense(matrix(), 0.2)), v.relu())
