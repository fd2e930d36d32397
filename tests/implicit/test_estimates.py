"""The estimates of the adjoint: each is its formula, and says what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import cells
import pytest
import torch
from cells import Cell, injection, relative, weights
from torch import Tensor
from torch.func import grad, jvp, vmap

import implicit
from implicit import DEQ, Implicit, JacobianFree, Neumann, Phantom, Shine
from implicit.gradients import Gradient, registry
from solvers import Anderson, Broyden, FixedPointProblem, OptionError, Picard, RootProblem
from solvers.inverse import LowRank
from solvers.problem import Layout, Problem
from solvers.problems import registry as problems

TIGHT = 1e-13
# Two sums of the same products in another order, of numbers near 1.
ROUNDING = 1e-11

ESTIMATES: dict[str, Gradient] = {
    "jacobian_free": JacobianFree(),
    "neumann": Neumann(terms=4),
    "phantom": Phantom(steps=3, mixing=0.6),
    "phantom unrolled": Phantom(steps=3, mixing=0.6, form="unrolled"),
    "shine": Shine(),
    "shine without fallback": Shine(fallback=False),
    "shine refined": Shine(refine=3),
}
assert {g.name for g in ESTIMATES.values()} == {
    n for n in registry.names() if not registry.get(n).exact
}

every_estimate = pytest.mark.parametrize("name", ESTIMATES)
UNROLLED = Phantom(steps=3, mixing=0.6, form="unrolled")


def fixed_point(u: Tensor, W: Tensor, *, independent: bool | None = True) -> FixedPointProblem:
    return FixedPointProblem(
        cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=independent
    )


def solved(
    problem: Problem, gradient: Gradient, reltol: float = TIGHT, solver: Any = None, **more: Any
) -> Any:
    return implicit.solve(
        problem, solver or Broyden(), gradient, reltol=reltol, max_evaluations=300, **more
    )


# -- formulas -------------------------------------------------------------------------------------


def series(gradient: Gradient, JT: Tensor, c: Tensor, inverse: Tensor) -> Tensor:
    """Return the estimate of the adjoint by dense algebra; all samples are one vector."""
    match gradient:
        case JacobianFree():
            return c
        case Neumann(terms=k):
            return sum((torch.linalg.matrix_power(JT, i) @ c for i in range(k)), 0 * c)
        case Phantom(steps=k, mixing=m):
            B = m * JT + (1 - m) * torch.eye(len(JT), dtype=JT.dtype)
            return m * sum((torch.linalg.matrix_power(B, i) @ c for i in range(k)), 0 * c)
        case Shine(refine=0):
            return inverse.T @ c
    raise AssertionError(gradient)


def dense(inverse: LowRank | None, count: int) -> Tensor:
    """Return the operator that is the forward's inverse, (B D, B D)."""
    eye = torch.eye(count, dtype=torch.float64)
    if inverse is None:
        return eye
    rows = len(inverse.scale)
    return torch.stack([inverse(e.reshape(rows, -1)).flatten() for e in eye], dim=1)


def expected(
    problem: Problem, gradient: Gradient, solution: Any, cotangent: Tensor
) -> tuple[Tensor, ...]:
    """Return the estimates of the gradients of args and params."""
    layout = Layout(problem.z0)
    z = layout.pack(solution.value).detach()
    tensors = (*problem.args, *problem.params)

    def flat(z: Tensor) -> Tensor:
        out = layout.pack(problem.function(layout.unpack(z), *tensors))
        return z + out if isinstance(problem, RootProblem) else out

    J = torch.autograd.functional.jacobian(flat, z).reshape(z.numel(), z.numel())
    c = cotangent.flatten()
    u = series(gradient, J.mT, c, dense(solution.inverse, len(c)))
    if isinstance(gradient, Shine) and gradient.fallback:
        rows = z.shape[0] if solution.inverse is None else len(solution.inverse.scale)
        long = u.reshape(rows, -1).norm(dim=1) > gradient.limit * c.reshape(rows, -1).norm(dim=1)
        u = torch.where(long[:, None], c.reshape(rows, -1), u.reshape(rows, -1))
    return torch.autograd.grad(flat(z), tensors, u.reshape(z.shape))


def coupled(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
    return torch.tanh(z @ W.T + 0.3 * z.mean(dim=0) + u)


def cases() -> dict[str, Problem]:
    u, W = injection(3, 4).requires_grad_(), weights(4, 0.8).requires_grad_()
    zero = torch.zeros_like(u)
    two = problems.get("tuple_tanh", batch=2, dtype="float64")
    return {
        "independent": fixed_point(u, W),
        "undeclared": fixed_point(u, W, independent=None),
        "coupled": FixedPointProblem(coupled, zero, (u,), (W,), samples_independent=False),
        "root": RootProblem(
            lambda z, u, W: cells.f(z, u, W) - z, zero, (u,), (W,), samples_independent=True
        ),
        "two tensors": replace(  # type: ignore[type-var]
            two,
            args=tuple(t.clone().requires_grad_() for t in two.args),
            params=tuple(t.clone().requires_grad_() for t in two.params),
        ),
        "images": FixedPointProblem(
            lambda z, u, k: torch.tanh(torch.nn.functional.conv2d(z, k, padding=1) + u),
            torch.zeros(2, 2, 3, 3, dtype=torch.float64),
            (injection(2, 18).reshape(2, 2, 3, 3).requires_grad_(),),
            ((0.2 * injection(2, 18, seed=4)).reshape(2, 2, 3, 3).requires_grad_(),),
        ),
    }


@pytest.mark.parametrize("which", cases())
@pytest.mark.parametrize("name", [n for n in ESTIMATES if n != "shine refined"])
@pytest.mark.parametrize("solver", [Broyden(), Anderson(), None])
def test_the_formula(name: str, which: str, solver: Any) -> None:
    gradient, problem = ESTIMATES[name], cases()[which]
    solution = implicit.solve(
        problem, solver, gradient, reltol=TIGHT, max_evaluations=300, keep_inverse=True
    )
    z = Layout(problem.z0).pack(solution.value)
    c = injection(len(z), z.shape[1], seed=5)
    got = torch.autograd.grad(z, (*problem.args, *problem.params), c)
    for a, b in zip(got, expected(problem, gradient, solution, c), strict=True):
        assert relative(a, b) < ROUNDING


def test_the_shortest_ones_are_jacobian_free() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    found = []
    for gradient in (JacobianFree(), Neumann(terms=1), Phantom(steps=1, mixing=1.0), Shine()):
        limit = replace(gradient, limit=1e-9) if isinstance(gradient, Shine) else gradient
        found.append(torch.autograd.grad(solved(fixed_point(u, W), limit).value.sum(), (u, W)))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_phantom_without_damping_is_neumann() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    found = [
        torch.autograd.grad(solved(fixed_point(u, W), g).value.sum(), (u, W))
        for g in (Neumann(terms=6), Phantom(6, 1.0), Phantom(6, 1.0, "unrolled"))
    ]
    for other in found[1:]:
        assert all(relative(a, b) < ROUNDING for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "gradient", [Neumann(300), Phantom(600, 0.5), Phantom(300, 0.9, "unrolled"), Shine(refine=20)]
)
def test_the_limit_is_exact(gradient: Gradient) -> None:
    u, W = injection().requires_grad_(), weights(norm=0.9).requires_grad_()
    c = injection(seed=7)
    got = torch.autograd.grad(solved(fixed_point(u, W), gradient).value, (u, W), c)
    for a, b in zip(got, cells.exact(u.detach(), W.detach(), c), strict=True):
        assert relative(a, b) < 1e-11  # 0.9^300 = 2e-14, and 1e-13 amplified by 1 / (1 - 0.9)


def error(gradient: Gradient, W: Tensor) -> float:
    """The relative error in a linear model of this symmetric W."""
    u, c = injection(1, len(W)).requires_grad_(), injection(1, len(W), seed=5)
    problem = FixedPointProblem(
        lambda z, u, W: z @ W + u, torch.zeros_like(u), (u,), (W,), samples_independent=True
    )
    (got,) = torch.autograd.grad(solved(problem, gradient).value, u, c)
    return relative(got, torch.linalg.solve(torch.eye(len(W), dtype=W.dtype) - W, c[0])[None])


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_the_error_falls_by_the_spectral_radius(radius: float) -> None:
    W = weights(8) + weights(8).T
    W = W * (radius / float(torch.linalg.eigvalsh(W).abs().max()))
    eigenvalues = torch.linalg.eigvalsh(W)
    for k in (1, 2, 4):  # the error of the sum is Bᵏ u, of a norm of at most ρᵏ ‖u‖
        assert error(Neumann(k), W) <= radius**k
    # From 30 terms on one eigenvector is left of the error, as good as alone.
    fall = (error(Neumann(34), W) / error(Neumann(30), W)) ** (1 / 4)
    assert fall == pytest.approx(radius, rel=0.02)
    damped = float((0.5 * eigenvalues + 0.5).abs().max())
    fall = (error(Phantom(64, 0.5), W) / error(Phantom(60, 0.5), W)) ** (1 / 4)
    assert fall == pytest.approx(damped, rel=0.02)


def random_network(radius: float, seed: int, dim: int = 100) -> tuple[Problem, Tensor, Tensor]:
    """A network z = tanh(W z + u) of this spectral radius at z*, which is chosen first."""
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(dim + 2, dim, generator=g, dtype=torch.float64)
    G, a, c = draw[2:], 0.5 * draw[:1], draw[1:2]
    z = a.tanh()
    slope = 1 - z * z
    W = G * (radius / float(torch.linalg.eigvals(slope.T * G).abs().max()))
    u = a - z @ W.T
    problem = FixedPointProblem(
        cells.f, 0.9 * z, (u,), (W.requires_grad_(),), samples_independent=True
    )
    v = torch.linalg.solve((torch.eye(dim, dtype=z.dtype) - slope.T * W.detach()).T, c[0])
    return problem, c, torch.outer(slope[0] * v, z[0])


# Relative errors of the gradient of W in such networks, measured by another program.
KNOWN = {
    (0.5, "jacobian_free"): 0.50,
    (0.5, "neumann"): 0.022,
    (0.5, "phantom"): 0.15,
    (0.9, "jacobian_free"): 0.82,
    (0.9, "neumann"): 0.36,
    (0.9, "phantom"): 0.47,
    (0.99, "jacobian_free"): 0.87,
    (0.99, "neumann"): 0.53,
    (0.99, "phantom"): 0.58,
}


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
def test_errors_are_of_the_size_that_is_known(radius: float) -> None:
    networks = [random_network(radius, seed) for seed in range(5)]
    found = {}
    for name in ("jacobian_free", "neumann", "phantom"):
        errors = []
        for problem, c, right in networks:
            z = solved(problem, registry.get(name), 1e-9).value
            (got,) = torch.autograd.grad(z, problem.params[0], c)
            errors.append(relative(got, right))
        found[name] = float(torch.tensor(errors).median())
        # Theirs are of one draw each, and these errors differ by a third between draws.
        assert found[name] == pytest.approx(KNOWN[radius, name], rel=0.5)
    assert found["neumann"] < found["phantom"] < found["jacobian_free"]


# -- Shine ----------------------------------------------------------------------------------------


def test_the_fallback_is_a_decision_for_each_sample() -> None:
    u, W = injection(6, 20).requires_grad_(), weights(20, 1.5)
    c = injection(6, 20, seed=5)

    def gradients(gradient: Gradient) -> Tensor:
        z = solved(fixed_point(u, W), gradient, 1e-8).value
        return torch.autograd.grad(z, u, c)[0]

    free, whole = gradients(JacobianFree()), gradients(Shine(fallback=False))
    slope = free / c
    length = (whole / slope).norm(dim=1) / c.norm(dim=1)
    limit = float(length.median()) * (1 + 1e-9)
    got = gradients(Shine(limit=limit))
    taken = [torch.equal(got[b], whole[b]) for b in range(6)]
    fallen = [torch.equal(got[b], free[b]) for b in range(6)]
    assert taken == (length <= limit).tolist()
    assert fallen == (length > limit).tolist()
    assert 0 < sum(taken) < 6


def test_an_inverse_that_is_no_number_is_not_used() -> None:
    eye = torch.eye(3, dtype=torch.float64)[None].expand(2, 3, 3)
    middle = torch.stack([0.1 * eye[0], torch.full((3, 3), torch.nan, dtype=torch.float64)])
    inverse = LowRank(torch.ones(2, dtype=torch.float64), eye, middle, eye)
    c = injection(2, 3)
    u = Shine()._estimate(lambda v: 0 * v, c, inverse, joint=False)
    assert torch.allclose(u, c * torch.tensor([[1.1], [1.0]], dtype=torch.float64), rtol=1e-14)


@pytest.mark.parametrize("independent", [True, None, False])
def test_refining_lets_the_residual_fall(independent: bool | None) -> None:
    u, W = injection(4, 12).requires_grad_(), weights(12, 1.3)
    c = injection(4, 12, seed=5)
    f = cells.f if independent else coupled
    problem = FixedPointProblem(f, torch.zeros_like(u), (u,), (W,), samples_independent=independent)
    sizes = []
    for refine in (0, 1, 2, 4, 8, 60):
        solution = solved(problem, Shine(fallback=False, refine=refine), 1e-10)
        z = solution.value.detach()
        (got,) = torch.autograd.grad(solution.value, u, c)
        n = z.numel()
        J = torch.autograd.functional.jacobian(lambda z: f(z, u.detach(), W), z).reshape(n, n)
        v = (got / (1 - z * z)).flatten()
        sizes.append(float((c.flatten() - v + J.T @ v).norm() / c.norm()))
        probe = independent is None and bool(refine) and solution.samples_independent is None
        assert solution.record.stats.vjps <= refine + probe
    assert all(b <= a for a, b in pairwise(sizes))
    assert sizes[1] < sizes[0]
    assert sizes[-1] < 1e-9  # as small as z* is exact, amplified


@pytest.mark.parametrize("name", [n for n in ESTIMATES if n.startswith("shine")])
def test_a_solver_without_an_inverse_is_refused(name: str) -> None:
    u = injection().requires_grad_()
    with pytest.raises(OptionError, match="picard leaves none: solve by Broyden or Anderson"):
        solved(fixed_point(u, weights()), ESTIMATES[name], solver=Picard())


def test_where_nothing_is_solved_nothing_is_learnt() -> None:
    u, W = injection().requires_grad_(), weights()
    start = replace(fixed_point(u, W), z0=cells.equilibrium(u.detach(), W))

    def gradient_of_u(gradient: Gradient) -> Tensor:
        solution = solved(start, gradient)
        assert solution.stats.iterations == 0
        return torch.autograd.grad(solution.value.sum(), u)[0]

    assert torch.equal(gradient_of_u(Shine()), gradient_of_u(JacobianFree()))
    # Products are as good as ever: four, of a state of four numbers.
    exact, _ = cells.exact(u.detach(), W, torch.ones_like(u))
    assert relative(gradient_of_u(Shine(refine=4)), exact) < ROUNDING


def test_the_inverse_is_kept_for_backward_and_not_in_the_solution() -> None:
    u = injection().requires_grad_()
    assert solved(fixed_point(u, weights()), Shine()).inverse is None
    assert solved(fixed_point(u, weights()), Shine(), keep_inverse=True).inverse is not None


# -- the unrolled form ----------------------------------------------------------------------------


@pytest.mark.parametrize("reltol", [1e-1, 1e-6])
def test_the_unrolled_form_is_the_gradient_of_its_steps(reltol: float) -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    calls = []

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        calls.append(z.shape[0])
        return cells.f(z, u, W)

    problem = replace(fixed_point(u, W), f=f)
    solution = solved(problem, UNROLLED, reltol, solver=Picard())
    spent = solution.record.stats
    assert len(calls) == solution.stats.evaluations + spent.evaluations
    assert sum(calls) == int((solution.stats.sample_evaluations + spent.sample_evaluations).sum())
    with torch.no_grad():
        plain = solved(problem, UNROLLED, reltol, solver=Picard())
    # The value is the solver's: judged, and the same where no gradient is asked for.
    assert torch.equal(solution.value, plain.value)
    assert torch.equal(solution.residual, plain.residual)
    z = plain.value
    for _ in range(3):
        z = 0.4 * z + 0.6 * cells.f(z, u, W)
    c = injection(seed=5)
    first = torch.autograd.grad(solution.value, (u, W), c, create_graph=True)
    right = torch.autograd.grad(z, (u, W), c, create_graph=True)
    for a, b in zip(first, right, strict=True):
        assert relative(a.detach(), b.detach()) < ROUNDING
    pairs = [(a.square().sum(), b.square().sum()) for a, b in zip(first, right, strict=True)]
    second = torch.autograd.grad(pairs[0][0] + pairs[1][0], (u, W))
    right = torch.autograd.grad(pairs[0][1] + pairs[1][1], (u, W))
    for a, b in zip(second, right, strict=True):
        assert relative(a, b) < ROUNDING


def test_the_unrolled_form_within_torch_func() -> None:
    u, W = injection(), weights()

    def loss(u: Tensor) -> Any:
        return solved(fixed_point(u, W), UNROLLED).value.square().sum()

    x = u.clone().requires_grad_()
    (right,) = torch.autograd.grad(loss(x), x)
    assert torch.allclose(grad(loss)(u), right, rtol=1e-12)
    twice = grad(lambda u: grad(loss)(u).square().sum())(u)
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    assert torch.allclose(twice, torch.autograd.grad(first.square().sum(), x)[0], rtol=1e-12)


def test_steps_into_no_numbers_leave_the_value_alone() -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return 0.5 * z + torch.log(u)

    u = injection().abs()
    u[1] = -1.0
    solution = solved(
        FixedPointProblem(f, torch.zeros_like(u), (u.requires_grad_(),), samples_independent=True),
        UNROLLED,
    )
    assert solution.counts == {"SUCCESS": 2, "NONFINITE": 1}
    assert torch.isfinite(solution.value).all()
    (got,) = torch.autograd.grad(solution.value.sum(), u)
    assert torch.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("form", ["neumann", "unrolled"])
def test_phantom_is_that_of_torchdeq(form: Any) -> None:
    """Theirs is the unrolled form, whose authors wrote it; at an exact z* all are the same."""
    torchdeq = pytest.importorskip("torchdeq")
    u, W = injection().requires_grad_(), weights().requires_grad_()
    c = injection(seed=5)
    solver = {"f_solver": "fixed_point_iter", "f_max_iter": 300, "f_tol": TIGHT}
    theirs = torchdeq.get_deq(**solver, f_stop_mode="rel", grad=3, tau=0.6)
    (z,), _ = theirs(lambda z: cells.f(z, u, W), torch.zeros_like(u))
    right = torch.autograd.grad(z, (u, W), c)
    value = solved(fixed_point(u, W), Phantom(3, 0.6, form)).value
    for a, b in zip(torch.autograd.grad(value, (u, W), c), right, strict=True):
        assert relative(a, b) < ROUNDING


# -- graphs, and tensors --------------------------------------------------------------------------


@every_estimate
def test_modules_frozen_parameters_and_evaluation_mode(name: str) -> None:
    u = injection(3, 4) @ weights(4, seed=3).requires_grad_()  # no leaf
    W = weights().requires_grad_()
    z = solved(fixed_point(u, W), ESTIMATES[name]).value
    du, dW = torch.autograd.grad(z.sum(), (u, W), retain_graph=True)
    layer = DEQ(Cell(4), solver=Broyden(), gradient=ESTIMATES[name], reltol=TIGHT)
    for mode in (True, False):
        layer.train(mode)
        layer.zero_grad()
        x = u.detach().requires_grad_()
        layer(x).sum().backward()
        assert x.grad is not None
        assert relative(x.grad, du) < ROUNDING
        assert relative(layer.cell.W.grad, dW) < ROUNDING  # type: ignore[arg-type]
    layer.requires_grad_(False)
    layer.zero_grad()
    (again,) = torch.autograd.grad(layer(u).sum(), u)
    assert relative(again, du) < ROUNDING
    assert layer.cell.W.grad is None


@every_estimate
def test_backward_twice_through_a_retained_graph(name: str) -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    loss = solved(fixed_point(u, W), ESTIMATES[name]).value.square().sum()
    loss.backward(retain_graph=True)
    first = (u.grad.clone(), W.grad.clone())  # type: ignore[union-attr]
    loss.backward()
    assert torch.equal(u.grad, 2 * first[0])  # type: ignore[arg-type]
    assert torch.equal(W.grad, 2 * first[1])  # type: ignore[arg-type]


@every_estimate
def test_two_solves_in_one_graph(name: str) -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()

    def layer(x: Tensor) -> Any:
        return solved(fixed_point(x, W), ESTIMATES[name]).value

    first = layer(u)
    got = torch.autograd.grad(layer(first + u).sum(), (u, W))
    middle = (first + u).detach().requires_grad_()
    dx, dW = torch.autograd.grad(layer(middle).sum(), (middle, W))
    du, dW1 = torch.autograd.grad(layer(u), (u, W), dx)
    assert relative(got[0], dx + du) < ROUNDING
    assert relative(got[1], dW + dW1) < ROUNDING


@every_estimate
def test_autocast(name: str) -> None:
    u = injection(3, 16).float().requires_grad_()
    W = weights(16).float().requires_grad_()
    right = torch.autograd.grad(
        solved(fixed_point(u, W), ESTIMATES[name], 1e-3).value.sum(), (u, W)
    )
    with torch.autocast("cpu", torch.bfloat16):
        z = solved(fixed_point(u, W), ESTIMATES[name], 1e-2).value
    assert z.dtype == torch.float32
    got = torch.autograd.grad(z.sum(), (u, W))
    for a, b in zip(got, right, strict=True):
        assert a.dtype == torch.float32
        # Eight bits, in each of a few products.
        assert relative(a, b) < (0.3 if "shine" in name else 0.03)


@every_estimate
def test_a_state_in_half_precision(name: str) -> None:
    u, W = injection(4, 16), weights(16, 0.8)
    found = []
    for dtype in (torch.float64, torch.bfloat16):
        x = u.to(dtype).requires_grad_()
        z = solved(fixed_point(x, W.to(dtype)), ESTIMATES[name], 3e-2).value
        found.append(torch.autograd.grad(z.double().sum(), x)[0])
    assert found[1].dtype == torch.bfloat16
    # Eight bits, in each of a few products, at a point that is as inexact.
    assert relative(found[1].double(), found[0]) < 0.05


@every_estimate
def test_dropout_is_the_same_in_forward_and_backward(name: str) -> None:
    class Dropping(Cell):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.nn.functional.dropout(super().forward(z, u), 0.3)

    cell, u = Dropping(16, 0.8), injection(3, 16).requires_grad_()
    problem = FixedPointProblem(cell, torch.zeros_like(u), (u,), samples_independent=True)
    torch.manual_seed(0)
    mask = torch.nn.functional.dropout(torch.ones_like(u), 0.3)

    def masked(z: Tensor, u: Tensor, mask: Tensor, W: Tensor) -> Tensor:
        return mask * cells.f(z, u, W)

    known = FixedPointProblem(
        masked, torch.zeros_like(u), (u, mask), (cell.W,), samples_independent=True
    )
    c = injection(3, 16, seed=5)
    torch.manual_seed(0)
    got = torch.autograd.grad(solved(problem, ESTIMATES[name]).value, (u, cell.W), c)
    right = torch.autograd.grad(solved(known, ESTIMATES[name]).value, (u, cell.W), c)
    assert all(relative(a, b) < ROUNDING for a, b in zip(got, right, strict=True))


@every_estimate
def test_a_cotangent_that_is_not_finite_spoils_its_sample_alone(name: str) -> None:
    u, W = injection().requires_grad_(), weights()
    c = injection(seed=5)
    z = solved(fixed_point(u, W), ESTIMATES[name]).value
    (right,) = torch.autograd.grad(z, u, c, retain_graph=True)
    c[1, 2] = torch.nan
    (got,) = torch.autograd.grad(z, u, c)
    good = [0, 2]
    assert relative(got[good], right[good]) < ROUNDING
    assert not torch.isfinite(got[1]).all()


# -- costs, and refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "products"),
    [
        (JacobianFree(), 0),
        (Neumann(1), 0),
        (Neumann(5), 4),
        (Phantom(1), 0),
        (Phantom(5), 4),
        (Shine(), 0),
        (Shine(refine=3), 3),
    ],
)
def test_what_they_cost(gradient: Gradient, products: int) -> None:
    u = injection(3, 8).requires_grad_()
    solution = solved(fixed_point(u, weights(8)), gradient)
    before = solution.record.stats
    solution.value.sum().backward()
    stats = solution.record.stats
    assert before is None
    assert (stats.evaluations, stats.vjps, stats.jvps) == (1, products, 0)
    assert stats.sample_evaluations.tolist() == [1, 1, 1]
    assert stats.seconds > 0
    assert solution.adjoint is None


refusing = pytest.mark.parametrize("name", [n for n in ESTIMATES if n != "phantom unrolled"])


@refusing
def test_a_second_derivative_is_refused(name: str) -> None:
    u = injection().requires_grad_()
    z = solved(fixed_point(u, weights()), ESTIMATES[name]).value
    (du,) = torch.autograd.grad(z.square().sum(), u, create_graph=True)
    # What was found is the gradient all the same.
    assert torch.isfinite(du).all()
    with pytest.raises(RuntimeError, match=f"{ESTIMATES[name].name} is an estimate.*a second"):
        torch.autograd.grad(du.sum(), u)


@refusing
def test_torch_func_is_refused(name: str) -> None:
    def loss(u: Tensor) -> Any:
        return solved(fixed_point(u, weights()), ESTIMATES[name]).value.sum()

    with pytest.raises(RuntimeError, match=r"no rule for torch\.func: use the gradient Implicit"):
        grad(loss)(injection())


@every_estimate
def test_forward_mode_and_vmap_are_refused(name: str) -> None:
    u, W = injection(), weights()

    def f(u: Tensor) -> Any:
        return solved(fixed_point(u, W), ESTIMATES[name]).value

    with pytest.raises(RuntimeError, match=r"no rule for forward mode \(jvp\): use the"):
        jvp(f, (u,), (u,))
    with pytest.raises(RuntimeError, match="no rule for vmap: use the gradient Implicit"):
        vmap(f)(u[None].expand(2, 3, 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("neumann", {"terms": 0}, r"gradient\.terms = 0"),
        ("phantom", {"steps": 0}, r"gradient\.steps = 0"),
        ("phantom", {"mixing": 0.0}, r"gradient\.mixing = 0"),
        ("phantom", {"mixing": 1.5}, r"gradient\.mixing = 1\.5"),
        ("phantom", {"form": "unroled"}, r"gradient\.form = 'unroled'.*'unrolled'"),
        ("shine", {"limit": 0.0}, r"gradient\.limit = 0"),
        ("shine", {"refine": -1}, r"gradient\.refine = -1"),
        ("shine", {"refined": 1}, r"gradient\.refined: unknown option"),
        ("jacobian_free", {"terms": 1}, r"gradient\.terms: unknown option"),
    ],
)
def test_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.get(name, **options)


@every_estimate
def test_they_err_and_point_downhill(name: str) -> None:
    u, W = injection(4, 30).requires_grad_(), weights(30, 1.5).requires_grad_()
    exact, got = (
        torch.autograd.grad(solved(fixed_point(u, W), g, 1e-9).value.sum(), (u, W))
        for g in (Implicit(), ESTIMATES[name])
    )
    for a, b in zip(got, exact, strict=True):
        assert 1e-3 < relative(a, b) < 1
        assert float((a * b).sum()) > 0


def test_a_refinement_finds_out_whether_samples_are_coupled() -> None:
    """With a fixed budget the forward never had to know; the probe is one product, and counted."""
    W, u = weights(6, 0.6), injection(4, 6).requires_grad_()

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        return torch.tanh(0.5 * (z + z.mean(dim=0)) @ W.T + u)

    def gradient(rule: Any) -> tuple[Tensor, Any]:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), (W,))
        solution = implicit.solve(
            problem, Broyden(), rule, reltol=0.0, max_evaluations=40, fixed_budget=True
        )
        return torch.autograd.grad(solution.value.square().sum(), u)[0], solution

    found, solution = gradient(Shine(refine=24))
    assert solution.samples_independent is None
    assert solution.record.stats.vjps <= 25
    # The space of 24 vectors is that of the whole batch, if it is taken as one.
    assert relative(found, gradient(Implicit(reltol=1e-12))[0]) < 1e-8
