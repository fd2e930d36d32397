"""torch.func over equilibria: grad, jvp, jacobians, hessians, vmap, and what they agree with."""

from __future__ import annotations

from typing import Any

import cells
import pytest
import torch
from cells import Cell, every_adjoint, forward_mode, injection, weights
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import implicit
from implicit import DEQ, Implicit
from implicit.gradients.implicit import adjoint_registry
from solvers import Anderson, FixedPointProblem

pytestmark = forward_mode

TIGHT = 1e-13


def tight(adjoint: str = "gmres") -> Implicit:
    return Implicit(solver=adjoint_registry.get(adjoint), reltol=TIGHT, max_products=300)


def equilibrium(u: Tensor, W: Tensor, adjoint: str = "gmres") -> Any:
    problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)
    return implicit.solve(
        problem, Anderson(), tight(adjoint), reltol=TIGHT, max_evaluations=500
    ).value


def explicit(u: Tensor, W: Tensor) -> Tensor:
    """The same by 120 layers of plain iteration: 0.6^120 is below rounding."""
    z = torch.zeros_like(u)
    for _ in range(120):
        z = cells.f(z, u, W)
    return z


def loss(u: Tensor, W: Tensor, adjoint: str = "gmres") -> Tensor:
    return torch.sin(equilibrium(u, W, adjoint)).sum()  # type: ignore[no-any-return]


def explicit_loss(u: Tensor, W: Tensor) -> Tensor:
    return torch.sin(explicit(u, W)).sum()


# Two solves at 1e-13, amplified by 1 / (1 - 0.6) a derivative.
close: Any = {"rtol": 1e-9, "atol": 1e-10}


@every_adjoint
def test_grad(adjoint: str) -> None:
    u, W = injection(2, 3), weights(3)
    got = grad(loss, argnums=(0, 1))(u, W, adjoint)
    expected = grad(explicit_loss, argnums=(0, 1))(u, W)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, **close)


@every_adjoint
def test_vjp_and_jvp(adjoint: str) -> None:
    u, W = injection(2, 3), weights(3)
    du, dW = injection(2, 3, seed=7), weights(3, seed=8)
    c = injection(2, 3, seed=9)
    z, tangent = jvp(lambda u, W: equilibrium(u, W, adjoint), (u, W), (du, dW))
    expected = jvp(explicit, (u, W), (du, dW))
    assert torch.allclose(z, expected[0], **close)
    assert torch.allclose(tangent, expected[1], **close)
    _, pull = vjp(lambda u, W: equilibrium(u, W, adjoint), u, W)
    cu, cW = pull(c)
    # ⟨c, J v⟩ = ⟨Jᵀ c, v⟩
    left = float((c * tangent).sum())
    assert float((cu * du).sum() + (cW * dW).sum()) == pytest.approx(left, rel=1e-10)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(jacobian: Any) -> None:
    u, W = injection(2, 3), weights(3)
    got = jacobian(equilibrium, argnums=(0, 1))(u, W)
    expected = jacrev(explicit, argnums=(0, 1))(u, W)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, **close)


def test_hessian() -> None:
    u, W = injection(1, 2), weights(2)
    got = hessian(loss, argnums=1)(u, W)
    assert torch.allclose(got, hessian(explicit_loss, argnums=1)(u, W), **close)
    reverse = jacrev(jacrev(loss, argnums=1), argnums=1)(u, W)
    assert torch.allclose(got, reverse, **close)


@pytest.mark.parametrize("order", [jacfwd, jacrev])
def test_third_derivatives(order: Any) -> None:
    u = torch.tensor([[0.3]], dtype=torch.float64)
    W = torch.tensor([[0.5]], dtype=torch.float64)

    def scalar(f: Any) -> Any:
        return lambda x: f(u, x.reshape(1, 1)).sum()

    x = W[0, 0]
    got = order(grad(grad(scalar(equilibrium))))(x)
    assert torch.allclose(got, order(grad(grad(scalar(explicit))))(x), rtol=1e-7)


def test_hessian_vector_products() -> None:
    u, W = injection(2, 3), weights(3)
    v = weights(3, seed=5)
    got = jvp(lambda W: grad(loss, argnums=1)(u, W), (W,), (v,))[1]
    expected = jvp(lambda W: grad(explicit_loss, argnums=1)(u, W), (W,), (v,))[1]
    assert torch.allclose(got, expected, **close)


@every_adjoint
def test_vmap_over_parameters(adjoint: str) -> None:
    """An ensemble: as many problems as there are parameter sets."""
    u = injection(2, 3)
    W = torch.stack([weights(3, seed=k) for k in range(4)])
    got = vmap(lambda W: equilibrium(u, W, adjoint))(W)
    one_by_one = torch.stack([equilibrium(u, w, adjoint) for w in W])
    assert torch.allclose(got, one_by_one, **close)
    got = vmap(grad(loss, argnums=1), in_dims=(None, 0, None))(u, W, adjoint)
    one_by_one = torch.stack([grad(loss, argnums=1)(u, w, adjoint) for w in W])
    assert torch.allclose(got, one_by_one, **close)


@pytest.mark.parametrize("in_dims", [(0, None), (1, 0), (2, 2)])
def test_vmap_over_any_axis(in_dims: Any) -> None:
    u = torch.randn(3, 3, 3, dtype=torch.float64)
    W = weights(3) if in_dims[1] is None else torch.stack([weights(3, seed=k) for k in range(3)])
    got = vmap(equilibrium, in_dims=in_dims)(u, W)
    expected = vmap(explicit, in_dims=in_dims)(u, W)
    assert torch.allclose(got, expected, **close)


def test_per_sample_gradients() -> None:
    u, W = injection(3, 2), weights(2)
    got = vmap(lambda u: grad(loss, argnums=1)(u[None], W))(u)
    for k in range(3):
        assert torch.allclose(got[k], grad(explicit_loss, argnums=1)(u[k : k + 1], W), **close)


def test_vmap_within_vmap() -> None:
    u = torch.randn(2, 3, 1, 2, dtype=torch.float64)
    W = weights(2)
    got = vmap(vmap(equilibrium, in_dims=(0, None)), in_dims=(0, None))(u, W)
    assert torch.allclose(got, vmap(vmap(explicit, (0, None)), (0, None))(u, W), **close)


def test_over_the_parameters_of_a_layer() -> None:
    layer = DEQ(Cell(3), solver=Anderson(), gradient=tight(), reltol=TIGHT, max_evaluations=300)
    u = injection(2, 3)
    params = {n: p.detach() for n, p in layer.named_parameters()}

    def of(params: dict[str, Tensor]) -> Tensor:
        return torch.sin(functional_call(layer, params, (u,))).sum()

    expected = grad(explicit_loss, argnums=1)(u, params["cell.W"])
    assert torch.allclose(grad(of)(params)["cell.W"], expected, **close)
    second = jacrev(grad(of))(params)["cell.W"]["cell.W"]
    assert torch.allclose(second, hessian(explicit_loss, argnums=1)(u, params["cell.W"]), **close)


def test_forward_mode_by_dual_numbers() -> None:
    u, W = injection(2, 3), weights(3)
    du = injection(2, 3, seed=7)
    with forward_ad.dual_level():
        z = equilibrium(forward_ad.make_dual(u, du), W)
        tangent = forward_ad.unpack_dual(z).tangent
    assert torch.allclose(tangent, jvp(lambda u: explicit(u, W), (u,), (du,))[1], **close)


def test_coupled_samples_under_transforms() -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.4 * z + 0.3 * z.mean(dim=0, keepdim=True) + u)

    def solved(u: Tensor) -> Any:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,))
        return implicit.solve(problem, Anderson(), tight(), reltol=TIGHT, max_evaluations=300).value

    def layers(u: Tensor) -> Tensor:
        z = torch.zeros_like(u)
        for _ in range(200):
            z = f(z, u)
        return z

    u = injection(3, 2)
    assert torch.allclose(jacrev(solved)(u), jacrev(layers)(u), **close)
    assert torch.allclose(jacfwd(solved)(u), jacrev(layers)(u), **close)


def test_tangents_where_an_argument_is_of_integers() -> None:
    """Token numbers, say, which have no derivative."""
    W, tokens = weights(3), torch.tensor([0, 2])
    table = injection(3, 3, seed=5)

    def f(z: Tensor, tokens: Tensor, W: Tensor, table: Tensor) -> Tensor:
        return torch.tanh(z @ W.T + table[tokens])

    def of(table: Tensor) -> Any:
        z0 = torch.zeros(2, 3, dtype=torch.float64)
        problem = FixedPointProblem(f, z0, (tokens,), (W, table), samples_independent=True)
        return implicit.solve(problem, Anderson(), tight(), reltol=TIGHT, max_evaluations=500).value

    direction = torch.ones_like(table)
    moved = jvp(of, (table,), (direction,))[1]
    expected = jvp(lambda t: explicit(t[tokens], W), (table,), (direction,))[1]
    assert torch.allclose(moved, expected, **close)
