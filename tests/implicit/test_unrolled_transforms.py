"""torch.func through the steps of every native solver: the loop decides on plain numbers."""

from __future__ import annotations

from typing import Any

import cells
import pytest
import torch
from cells import NATIVE, Cell, forward_mode, injection, weights
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import implicit
import solvers
from implicit import DEQ, Unrolled
from solvers import Anderson, FixedPointProblem, Newton, NewtonKrylov, Picard, RootProblem
from solvers.problems import registry as problems

pytestmark = forward_mode
native = pytest.mark.parametrize("name", NATIVE)

# The same operations, summed in another order.
close: Any = {"rtol": 1e-10, "atol": 1e-12}


def solver_of(name: str) -> Any:
    # Three products in each step: inside a transform the Krylov space grows to its bound unread.
    return NewtonKrylov(inner=3) if name == "newton_krylov" else solvers.registry.get(name)


def solved(u: Tensor, W: Tensor, name: str = "anderson", steps: int = 3, **options: Any) -> Any:
    options = {"reltol": 0.0, "max_evaluations": steps, **options}
    problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)
    return implicit.solve(problem, solver_of(name), Unrolled(), **options).value


def loss(u: Tensor, W: Tensor, name: str = "anderson", steps: int = 3, **options: Any) -> Tensor:
    return torch.sin(solved(u, W, name, steps, **options)).sum()


def by_autograd(u: Tensor, W: Tensor, name: str) -> tuple[Tensor, ...]:
    u, W = u.clone().requires_grad_(), W.clone().requires_grad_()
    return torch.autograd.grad(loss(u, W, name), (u, W))


@native
def test_grad_and_vjp(name: str) -> None:
    u, W = injection(2, 3), weights(3, 0.9)
    expected = by_autograd(u, W, name)
    got = grad(loss, argnums=(0, 1))(u, W, name)
    z, pull = vjp(lambda u, W: solved(u, W, name), u, W)
    for a, b, c in zip(got, pull(z.cos()), expected, strict=True):
        assert torch.allclose(a, c, **close)
        assert torch.allclose(b, c, **close)


@native
def test_jacobians_and_jvp(name: str) -> None:
    u, W = injection(2, 3), weights(3, 0.9)
    expected = torch.autograd.functional.jacobian(lambda u, W: solved(u, W, name), (u, W))
    for jacobian in (jacrev, jacfwd):
        got = jacobian(solved, argnums=(0, 1))(u, W, name)
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a, b, **close)
    du = injection(2, 3, seed=7)
    _, tangent = jvp(lambda u: solved(u, W, name), (u,), (du,))
    assert torch.allclose(tangent, torch.einsum("abcd,cd->ab", expected[0], du), **close)


@native
def test_hessians(name: str) -> None:
    u, W = injection(2, 2), weights(2, 0.9)
    expected = torch.autograd.functional.hessian(lambda W: loss(u, W, name), W)
    assert torch.allclose(hessian(loss, argnums=1)(u, W, name), expected, **close)
    assert torch.allclose(jacrev(grad(loss, 1), 1)(u, W, name), expected, **close)
    v = weights(2, seed=5)
    product = jvp(lambda W: grad(loss, argnums=1)(u, W, name), (W,), (v,))[1]
    assert torch.allclose(product, torch.einsum("abcd,cd->ab", expected, v), **close)


@native
def test_hessian_vector_products_by_autograd(name: str) -> None:
    u, W = injection(2, 2), weights(2, 0.9).requires_grad_()
    v = weights(2, seed=5)
    (first,) = torch.autograd.grad(loss(u, W, name), W, create_graph=True)
    (product,) = torch.autograd.grad(first, W, v)
    expected = torch.autograd.functional.hessian(lambda W: loss(u, W, name), W.detach())
    assert torch.allclose(product, torch.einsum("abcd,cd->ab", expected, v), **close)


@native
def test_vmap_and_gradients_by_samples(name: str) -> None:
    u, W = torch.stack([injection(2, 3, seed=k) for k in range(3)]), weights(3, 0.9)
    got = vmap(solved, in_dims=(0, None, None))(u, W, name)
    assert torch.allclose(got, torch.stack([solved(x, W, name) for x in u]), **close)
    each = vmap(grad(loss, argnums=1), in_dims=(0, None, None))(u, W, name)
    assert torch.allclose(each, torch.stack([by_autograd(x, W, name)[1] for x in u]), **close)
    with torch.no_grad():
        without = vmap(solved, in_dims=(0, None, None))(u, W, name)
    assert not without.requires_grad
    assert torch.allclose(without, got, **close)


@native
def test_copies_take_the_steps_of_the_slowest(name: str) -> None:
    W = weights(3, 0.9)
    u = torch.stack([injection(2, 3, seed=k) * size for k, size in enumerate((1.0, 0.0, 3.0))])
    seen: list[solvers.Solution] = []

    def tight(x: Tensor) -> Any:
        problem = FixedPointProblem(cells.f, torch.zeros_like(x), (x,), (W,))
        return implicit.solve(
            problem, solver_of(name), Unrolled(), reltol=1e-8, max_evaluations=300
        ).value

    with solvers.observe(seen.append):
        alone = [tight(x) for x in u]
        together = vmap(tight)(u)
    *parts, whole = seen
    assert torch.allclose(together, torch.stack(alone), atol=1e-6)
    counts = [p.stats.evaluations for p in parts]
    assert whole.stats.evaluations == max(counts) > min(counts)
    # What is known of the samples of all copies is in plain tensors, which outlive the transform.
    assert whole.success
    assert whole.batch == 6
    assert whole.stats.sample_evaluations.tolist() == [max(counts)] * 6
    slowest = counts.index(max(counts))
    assert torch.allclose(
        whole.residual[2 * slowest : 2 * slowest + 2], parts[slowest].residual, rtol=1e-3
    )
    assert whole.trace is not None
    assert len(whole.trace.residual) == max(counts)


def test_vmap_within_vmap() -> None:
    u, W = torch.randn(2, 3, 1, 2, dtype=torch.float64), weights(2)
    got = vmap(vmap(lambda x: solved(x, W)))(u)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(got[i, j], solved(u[i, j], W), **close)


def test_over_weights_of_each_copy() -> None:
    u, W = injection(2, 3), torch.stack([weights(3, 0.5, seed=k) for k in range(3)])
    got = vmap(lambda W: solved(u, W, "broyden", 40, reltol=1e-8))(W)
    for k in range(3):
        assert torch.allclose(got[k], cells.equilibrium(u, W[k]), atol=1e-6)


@pytest.mark.parametrize("fixed_budget", [True, False])
@pytest.mark.parametrize("trace", [None, "summary", "per_sample"])
def test_settings(fixed_budget: bool, trace: Any) -> None:
    u, W = torch.stack([injection(2, 3, seed=k) for k in range(3)]), weights(3)
    seen: list[solvers.Solution] = []
    with solvers.observe(seen.append):
        vmap(lambda x: solved(x, W, steps=5, fixed_budget=fixed_budget, trace=trace))(u)
    assert seen[0].stats.evaluations == 6
    if trace == "per_sample":
        assert seen[0].trace is not None
        assert seen[0].trace.residual.shape == (6, 6)
    # Of the samples of the copies, one copy after the other.
    residual = torch.cat(
        [
            torch.linalg.vector_norm(cells.f(z, x, W) - z, dim=1)
            for z, x in zip(vmap(lambda x: solved(x, W, steps=5))(u), u, strict=True)
        ]
    )
    assert torch.allclose(seen[0].residual, residual, rtol=1e-6)


def test_over_the_parameters_of_a_layer() -> None:
    layer = DEQ(Cell(3), solver=Anderson(), gradient=Unrolled(), reltol=0.0, max_evaluations=3)
    u = injection(2, 3)
    params = {n: p.detach() for n, p in layer.named_parameters()}

    def of(params: dict[str, Tensor], u: Tensor) -> Tensor:
        return torch.sin(functional_call(layer, params, (u,))).sum()

    torch.sin(layer(u)).sum().backward()
    assert torch.allclose(grad(of)(params, u)["cell.W"], layer.cell.W.grad, **close)  # type: ignore[arg-type]
    each = vmap(grad(of), in_dims=(None, 0))(params, u[:, None])["cell.W"]
    assert torch.allclose(each.sum(0), layer.cell.W.grad, **close)  # type: ignore[arg-type]


@native
@pytest.mark.parametrize("declared", [False, None])
def test_coupled_samples(name: str, declared: bool | None) -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.5 * z + 0.3 * z.mean(dim=0, keepdim=True) + u)

    def three(u: Tensor) -> Any:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), samples_independent=declared)
        return implicit.solve(
            problem, solver_of(name), Unrolled(), reltol=0.0, max_evaluations=3
        ).value

    u = injection(3, 2)
    expected = torch.autograd.functional.jacobian(three, u)
    assert torch.allclose(jacrev(three)(u), expected, **close)
    assert torch.allclose(jacfwd(three)(u), expected, **close)


def test_root_problems() -> None:
    def root(a: Tensor) -> Any:
        problem = RootProblem(lambda z, a: z * z - a, torch.ones_like(a), (a,))
        return implicit.solve(problem, Newton(), Unrolled(), reltol=1e-12).value

    a = torch.tensor([[2.0], [3.0]], dtype=torch.float64)
    # Newton's last step is as exact as the point before it was: the root of 1e-12.
    assert torch.allclose(grad(lambda a: root(a).sum())(a), 0.5 / a.sqrt(), rtol=1e-5)
    assert torch.allclose(vmap(root)(a[:, None])[:, 0], a.sqrt(), rtol=1e-10)


def test_a_state_of_two_tensors() -> None:
    problem = problems.get("tuple_tanh", batch=2, dtype="float64")

    def both(x: Tensor) -> Any:
        given = FixedPointProblem(
            problem.function, problem.z0, (x, problem.args[1]), problem.params
        )
        return implicit.solve(given, Anderson(), Unrolled(), reltol=0.0, max_evaluations=4).value

    x = problem.args[0]
    got, expected = jacrev(both)(x), torch.autograd.functional.jacobian(both, x)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, **close)


@native
def test_derivatives_in_the_start(name: str) -> None:
    u, W = injection(2, 3), weights(3, 0.9)

    def of(z0: Tensor) -> Any:
        problem = FixedPointProblem(cells.f, z0, (u,), (W,), samples_independent=True)
        return implicit.solve(
            problem, solver_of(name), Unrolled(), reltol=0.0, max_evaluations=2
        ).value

    z0 = 0.1 * injection(2, 3, seed=4)
    expected = torch.autograd.functional.jacobian(of, z0)
    assert torch.allclose(jacrev(of)(z0), expected, **close)
    assert torch.allclose(jacfwd(of)(z0), expected, **close)
    with forward_ad.dual_level():
        z = of(forward_ad.make_dual(z0, torch.ones_like(z0)))
        tangent = forward_ad.unpack_dual(z).tangent
    assert torch.allclose(tangent, expected.sum(dim=(2, 3)), **close)


@native
@pytest.mark.parametrize("enabled", [True, False])
def test_forward_mode_by_dual_numbers(name: str, enabled: bool) -> None:
    u, W, du = injection(2, 3), weights(3, 0.9), injection(2, 3, seed=7)
    _, expected = jvp(lambda u: solved(u, W, name), (u,), (du,))
    with forward_ad.dual_level(), torch.set_grad_enabled(enabled):
        z = solved(forward_ad.make_dual(u, du), W, name)
        assert torch.allclose(forward_ad.unpack_dual(z).tangent, expected, **close)
        assert enabled or not z.requires_grad


def test_a_chain() -> None:
    u, W = injection(2, 3), weights(3)
    problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True)

    def of(W: Tensor) -> Any:
        given = FixedPointProblem(problem.f, problem.z0, (u,), (W,), samples_independent=True)
        return implicit.solve(given, None, Unrolled(), reltol=1e-10).value

    expected = cells.exact(u, W, torch.ones_like(u))[1]
    assert torch.allclose(grad(lambda W: of(W).sum())(W), expected, atol=1e-7)


@pytest.mark.parametrize("last", [1, 3])
def test_only_the_last_evaluations(last: int) -> None:
    u, W = torch.stack([injection(1, 3, seed=k) for k in range(2)]), weights(3)

    def of(u: Tensor, W: Tensor) -> Tensor:
        problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,))
        solution = implicit.solve(
            problem, Picard(), Unrolled(last=last), reltol=0.0, max_evaluations=40
        )
        return solution.value.sum()  # type: ignore[union-attr]

    for k in range(2):
        z = cells.equilibrium(u[k], W, 40 - last)
        expected = grad(lambda W, k=k, z=z: _layers(z, u[k], W, last).sum())(W)
        for got in (grad(of, argnums=1)(u[k], W), vmap(grad(of, 1), (0, None))(u, W)[k]):
            assert torch.allclose(got, expected, **close)


def _layers(z: Tensor, u: Tensor, W: Tensor, count: int) -> Tensor:
    for _ in range(count):
        z = cells.f(z, u, W)
    return z


def test_third_derivatives() -> None:
    u, x = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)

    def of(x: Tensor) -> Any:
        return solved(u, x.reshape(1, 1), "picard", 6).sum()

    def layers(x: Tensor) -> Tensor:
        return _layers(torch.zeros_like(u), u, x.reshape(1, 1), 6).sum()

    got, expected = grad(grad(grad(of)))(x), grad(grad(grad(layers)))(x)
    assert torch.allclose(got, expected, **close)


def test_modules_with_buffers_and_dropout() -> None:
    """What a module does beside its function is the same inside a transform."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(weights(3))

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.dropout(torch.tanh(z @ self.W.T), 0.5, True) + u

    layer = DEQ(Noisy(), solver=Picard(), gradient=Unrolled(), reltol=0.0, max_evaluations=4)
    u = injection(2, 3)
    params = {n: p.detach() for n, p in layer.named_parameters()}
    torch.manual_seed(3)
    layer(u).sum().backward()
    torch.manual_seed(3)
    got = grad(lambda p: functional_call(layer, p, (u,)).sum())(params)["cell.W"]
    assert torch.allclose(got, layer.cell.W.grad, **close)  # type: ignore[arg-type]
