"""Cells with state: within one solve, forward and backward, they are one and the same function."""

from __future__ import annotations

import gc
import shutil
import weakref
from typing import Any

import cells
import pytest
import torch
from cells import injection, relative, weights
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import implicit
import solvers
from implicit import DEQ, Implicit, Unrolled, gradients
from implicit.gradients import Gradient
from implicit.normalisation import VariationalDropout
from solvers import Anderson, FixedPointProblem, Picard

TIGHT = 1e-12
NAMES = gradients.registry.names()
every_gradient = pytest.mark.parametrize("name", NAMES)
exact_gradient = pytest.mark.parametrize(
    "name",
    [
        n
        for n in NAMES
        if gradients.registry.factory(n).exact  # type: ignore[attr-defined]
        and "own" not in gradients.registry.factory(n).requires  # type: ignore[attr-defined]
    ],
)


def layer_of(cell: nn.Module, gradient: Gradient | None = None, **options: Any) -> DEQ:
    gradient = gradient or Implicit(reltol=TIGHT)
    solver = None if "own" in gradient.requires else Anderson()
    given = {"solver": solver, "reltol": TIGHT, "max_evaluations": 80, **options}
    return DEQ(cell, gradient=gradient, **given)


def gradient_of(name: str) -> Gradient:
    return Implicit(reltol=TIGHT) if name == "implicit" else gradients.registry.get(name)


def masked_equilibrium(u: Tensor, W: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z* of z = mask · tanh(W z + u), and the gradients of its sum, by dense algebra."""
    z = torch.zeros_like(u)
    for _ in range(300):  # 0.6^300, twice that where the mask doubles, is below rounding
        z = mask * torch.tanh(z @ W.T + u)
    slope = mask * (1 - torch.tanh(z @ W.T + u) ** 2)
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    v = torch.linalg.solve((eye - slope[:, :, None] * W).mT, torch.ones_like(z))
    du = slope * v
    return z, du, torch.einsum("bi,bj->ij", du, z)


class Dropping(nn.Module):
    """z ↦ dropout(tanh(W z + u)), which notes the mask of every evaluation."""

    def __init__(self, dropout: nn.Module | None = None, norm: float = 0.4) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4, norm))
        self.dropout = dropout or nn.Dropout(0.4)
        self.masks: list[Tensor] = []

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        out = torch.tanh(z @ self.W.T + u)
        dropped: Tensor = self.dropout(out)
        self.masks.append((dropped / out).detach().round(decimals=13))
        return dropped


class Normed(nn.Module):
    """z ↦ tanh(norm(W z) / 2 + u): batch statistics couple the samples."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4, 0.6))
        self.norm = norm or nn.BatchNorm1d(4, dtype=torch.float64)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.3 * self.norm((z + u) @ self.W.T) + u)


class Linear(nn.Module):
    """z ↦ tanh(linear(z) + u), of which the linear layer may be parametrised."""

    def __init__(self, norm: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(weights(4, norm))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(self.linear(z) + u)


class Doubled(nn.Module):
    """A parametrisation that counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight.sin()


# -- random numbers -------------------------------------------------------------------------------


@every_gradient
def test_dropout_has_one_mask_a_solve(name: str) -> None:
    torch.manual_seed(0)
    cell = Dropping()
    layer = layer_of(cell, gradient_of(name), max_evaluations=10, reltol=1e-4)
    layer(injection()).sum().backward()
    assert len(cell.masks) > 3
    assert all(torch.equal(mask, cell.masks[0]) for mask in cell.masks)
    first = cell.masks[0]
    cell.masks.clear()
    layer(injection())
    assert not torch.equal(cell.masks[0], first)  # the next solve has the next mask


@exact_gradient
@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), VariationalDropout(0.4)])
def test_the_gradient_is_that_of_the_masked_equilibrium(name: str, dropout: nn.Module) -> None:
    torch.manual_seed(1)
    cell, u = Dropping(dropout), injection().requires_grad_()
    z = layer_of(cell, gradient_of(name))(u)
    z.sum().backward()
    expected, du, dW = masked_equilibrium(u.detach(), cell.W.detach(), cell.masks[0])
    assert u.grad is not None
    assert cell.W.grad is not None
    # Both solves to 1e-12, amplified by 1 / (1 - 0.7); twice for products with the result.
    assert relative(z.detach(), expected) < 1e-10
    assert relative(u.grad, du) < 1e-10
    assert relative(cell.W.grad, dW) < 1e-10


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("gradient", [Implicit(), Unrolled()])
@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), VariationalDropout(0.4)])
def test_the_generator_goes_on_as_after_one_evaluation(
    graph: bool, gradient: Gradient, dropout: nn.Module
) -> None:
    cell, u = Dropping(dropout), injection()
    torch.manual_seed(2)
    cell(u, u)
    expected = torch.rand(6)
    torch.manual_seed(2)
    with torch.set_grad_enabled(graph):
        z = layer_of(cell, gradient)(u)
    between = torch.rand(3)
    if graph:
        z.sum().backward()
    assert torch.equal(torch.cat((between, torch.rand(3))), expected)


def test_a_function_that_draws_nothing_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    layer_of(cells.Cell())(injection()).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_functions_draw_as_modules_do() -> None:
    W = weights(4, 0.4).requires_grad_()
    masks: list[Tensor] = []

    def f(z: Tensor, u: Tensor, W: Tensor) -> Tensor:
        mask = (torch.rand_like(z) < 0.5).double()
        masks.append(mask)
        return mask * torch.tanh(z @ W.T + u)

    u = injection()
    problem = FixedPointProblem(f, torch.zeros_like(u), (u,), (W,))
    solution = implicit.solve(problem, Anderson(), Implicit(reltol=TIGHT), reltol=TIGHT)
    assert solution.success
    (dW,) = torch.autograd.grad(solution.value.sum(), W)
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert relative(dW, masked_equilibrium(u, W.detach(), masks[0])[2]) < 1e-10


@pytest.mark.parametrize("declared", [True, None])
@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), VariationalDropout(0.4)])
@pytest.mark.parametrize("solver", [Picard(), solvers.registry.get("scipy_hybr")])
def test_samples_that_end_take_their_masks_with_them(
    declared: bool | None, dropout: nn.Module, solver: Any
) -> None:
    """Samples of very different scale end at different evaluations, and are dropped then."""
    torch.manual_seed(3)
    sizes: list[int] = []

    class Scaled(Dropping):
        def forward(self, z: Tensor, u: Tensor, rate: Tensor) -> Tensor:
            sizes.append(len(z))
            return rate * super().forward(z, u)

    rate = torch.tensor([[0.01], [0.1], [0.5], [0.9]], dtype=torch.float64)
    u = injection(4)
    cell = Scaled(dropout)
    layer = layer_of(
        cell, solver=solver, samples_independent=declared, reltol=1e-10, max_evaluations=200
    )
    z = layer(u, rate)
    solution = layer.solution
    assert solution is not None
    assert solution.success
    assert solution.samples_independent is True
    counts = solution.stats.sample_evaluations
    assert counts[0] < counts[-1]
    mask, expected = cell.masks[0] * rate, torch.zeros_like(u)
    for _ in range(300):
        expected = mask * torch.tanh(expected @ cell.W.detach().T + u)
    # The tolerance over 1 - 0.9 · 0.4 / 0.6.
    assert relative(z.detach(), expected) < 1e-8
    if isinstance(dropout, VariationalDropout):
        assert min(sizes) == 1  # only what is left is evaluated
    else:
        assert min(sizes) == 4  # each sample meets its numbers where the batch is whole


@pytest.mark.parametrize("kept_first", [True, False])
def test_both_kinds_of_dropout_together(kept_first: bool) -> None:
    """The kept mask is drawn where the other's numbers are replayed, and shifts none of them."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Dropping(norm=0.3), VariationalDropout(0.3, "elements")
            self.seen: list[Tensor] = []

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            if not kept_first:
                z = self.one(z, u)
            ones = torch.ones_like(z)
            # Within one evaluation a module's mask is one mask.
            self.seen.append((self.two(ones) + self.two(ones)).detach())
            z = self.two(z)
            return self.one(z, u) if kept_first else z  # type: ignore[no-any-return]

    torch.manual_seed(4)
    cell, u = Both(), injection(5)
    before = torch.get_rng_state()
    layer = layer_of(cell, samples_independent=True)
    layer(u).sum().backward()
    assert len(cell.seen) > 5
    assert all(torch.equal(seen, cell.seen[0]) for seen in cell.seen)
    masks = cell.one.masks
    zeros = torch.stack(masks).nan_to_num(0.0) == 0  # 0 / 0 where the other mask is 0
    assert (zeros == zeros[0]).all()
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    for kept in (kept_first, not kept_first):
        _ = torch.empty_like(u).bernoulli_(0.7) if kept else nn.functional.dropout(u, 0.4)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_batch_of_which_the_rows_are_unknown_is_refused() -> None:
    cell, u = Dropping(), injection(4)
    given = implicit.steady.steady(FixedPointProblem(cell, torch.zeros_like(u), (u,)))
    given.f(u, u)
    with pytest.raises(RuntimeError, match=r"random numbers for each of 4 samples.* with 2"):
        given.f(u[:2], u[:2])


def test_an_equilibrium_within_an_equilibrium() -> None:
    """The inner solve draws its mask anew at each outer evaluation, which replays it."""
    torch.manual_seed(5)
    inner = Dropping(VariationalDropout(0.3))
    within = layer_of(inner)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.within = within

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return 0.5 * self.within(u + 0.5 * z)  # type: ignore[no-any-return]

    u = injection().requires_grad_()
    layer = layer_of(Outer())
    z = layer(u)
    z.sum().backward()
    assert layer.solution is not None
    assert layer.solution.success
    whole = [mask for mask in inner.masks if len(mask) == len(u)]  # before samples are dropped
    assert all(torch.equal(mask, whole[0]) for mask in whole)
    assert u.grad is not None
    mask, W = inner.masks[0], inner.W.detach()

    def explicit(u: Tensor) -> Tensor:
        z = torch.zeros_like(u)
        for _ in range(60):
            y = torch.zeros_like(u)
            for _ in range(60):
                y = mask * torch.tanh(y @ W.T + u + 0.5 * z)
            z = 0.5 * y
        return z

    expected = grad(lambda u: explicit(u).sum())(u.detach())
    assert relative(u.grad, expected) < 1e-9  # solves within solves to 1e-12


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("gradient", [Implicit(reltol=TIGHT), Unrolled()])
@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), VariationalDropout(0.4)])
def test_activation_checkpointing_replays_the_mask(
    reentrant: bool, gradient: Gradient, dropout: nn.Module
) -> None:
    cell, u = Dropping(dropout), injection().requires_grad_()
    layer = layer_of(cell, gradient)
    torch.manual_seed(6)
    z = checkpoint(layer, u, use_reentrant=reentrant)
    z.sum().backward()
    expected, du, dW = masked_equilibrium(u.detach(), cell.W.detach(), cell.masks[0])
    assert relative(z.detach(), expected) < 1e-10
    assert relative(u.grad, du) < 1e-10
    assert relative(cell.W.grad, dW) < 1e-10


def test_two_solves_in_one_graph_have_two_masks() -> None:
    torch.manual_seed(7)
    cell, u = Dropping(), injection()
    layer = layer_of(cell)
    one = layer(u)
    first = cell.masks[0]
    cell.masks.clear()
    two = layer(u)
    second = cell.masks[0]
    (one.sum() + 2 * two.sum()).backward()
    expected = sum(
        k * masked_equilibrium(u, cell.W.detach(), mask)[2] for k, mask in ((1, first), (2, second))
    )
    assert not torch.equal(first, second)
    assert relative(cell.W.grad, expected) < 1e-10


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler"
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
def test_compiled_functions_keep_their_mask() -> None:
    """Compiled code draws other numbers of the same state, in forward and not in backward."""
    torch.manual_seed(8)
    cell, u = Dropping(), injection()
    problem = FixedPointProblem(cell, torch.zeros_like(u), (u,))
    solution = implicit.solve(
        problem, Anderson(), Implicit(reltol=TIGHT), reltol=TIGHT, compile=True
    )
    assert solution.success
    solution.value.sum().backward()
    assert all(torch.equal(mask, cell.masks[0]) for mask in cell.masks)
    expected = masked_equilibrium(u, cell.W.detach(), cell.masks[0])[2]
    assert relative(cell.W.grad, expected) < 1e-10


# -- train and eval, autocast ---------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [Implicit(reltol=TIGHT), Unrolled()])
def test_eval_drops_nothing(gradient: Gradient) -> None:
    cell, u = Dropping(), injection().requires_grad_()
    z = layer_of(cell, gradient).eval()(u)
    z.sum().backward()
    _, du, dW = masked_equilibrium(u.detach(), cell.W.detach(), torch.ones_like(u))
    assert relative(u.grad, du) < 1e-10
    assert relative(cell.W.grad, dW) < 1e-10


@pytest.mark.parametrize("kind", [Dropping, Normed])
def test_train_and_eval_between_forward_and_backward(kind: Any) -> None:
    """The backward is that of what was solved, whatever the module is set to since."""
    cell, u = kind(), injection(6)
    layer = layer_of(cell)
    torch.manual_seed(9)
    layer(u).square().sum().backward()
    expected = cell.W.grad.clone()
    cell.W.grad = None
    torch.manual_seed(9)
    z = layer(u)
    layer.eval()
    z.square().sum().backward()
    assert not cell.training
    # The second solve knows already whether samples are coupled, and goes another way to 1e-12.
    assert relative(cell.W.grad, expected) < 1e-9


def test_autocast_and_dropout() -> None:
    torch.manual_seed(10)

    class Half(Dropping):
        def __init__(self) -> None:
            super().__init__(norm=0.3)
            self.seen: list[bool] = []

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            self.seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(z, u)

    cell, u = Half().float(), injection().float()
    layer = layer_of(cell, Implicit(reltol=1e-3), reltol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(u)
    assert z.dtype == torch.float32
    count = len(cell.seen)
    z.sum().backward()
    assert len(cell.seen) > count
    assert all(cell.seen)
    kept = torch.stack(cell.masks) != 0
    assert (kept == kept[0]).all()
    mask = kept[0].double() / 0.6
    dW = masked_equilibrium(u.double(), cell.W.detach().double(), mask)[2]
    # bfloat16 rounds to 2^-8 in each of the products, and z* is found to 1e-2 / (1 - 0.5).
    assert relative(cell.W.grad.double(), dW) < 0.05


def test_a_backward_inside_autocast_of_a_forward_outside() -> None:
    seen: list[bool] = []

    class Watching(cells.Cell):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(z, u)

    z = layer_of(Watching().float(), Implicit(reltol=1e-5), reltol=1e-6)(injection().float())
    count = len(seen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z.sum().backward()
    assert len(seen) > count
    assert not any(seen)


# -- buffers --------------------------------------------------------------------------------------


@every_gradient
def test_running_statistics_are_updated_once(name: str) -> None:
    cell, u = Normed(), injection(6)
    norm = cell.norm
    layer = layer_of(cell, gradient_of(name))
    z = layer(u)
    assert int(norm.num_batches_tracked) == 1
    x = ((z + u) @ cell.W.T).detach()
    # Of the last evaluation, which is at z* up to the tolerance (the step from 0 has momentum 0.1).
    loose = {"rtol": 1e-6, "atol": 1e-8} if layer.solution.success else {"rtol": 0.2, "atol": 0.02}
    assert torch.allclose(norm.running_mean, 0.1 * x.mean(dim=0), **loose)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.var(dim=0), **loose)
    before = {k: v.clone() for k, v in cell.state_dict().items()}
    z.sum().backward()
    for key, value in cell.state_dict().items():
        assert torch.equal(value, before[key])


def test_statistics_that_are_updated_without_saying_so() -> None:
    """Batch normalisation's kernel leaves the versions of its buffers as they were."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))
            self.register_buffer("var", torch.ones(4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(x, self.mean, self.var, training=True)

    cell, u = Normed(Plain()), injection(6)
    z = layer_of(cell)(u)
    x = ((z + u) @ cell.W.T).detach()
    assert torch.allclose(cell.norm.mean, 0.1 * x.mean(dim=0), rtol=1e-9)
    before = cell.norm.mean.clone()
    z.sum().backward()
    assert torch.equal(cell.norm.mean, before)


def test_the_gradient_through_batch_statistics() -> None:
    """Against the explicit network, whose samples are coupled by its batch statistics too."""
    cell, u = Normed(), injection(6).requires_grad_()
    layer = layer_of(cell)
    z = layer(u)
    z.square().sum().backward()
    assert layer.solution.samples_independent is False
    twin = Normed()
    v = u.detach().clone().requires_grad_()
    y = torch.zeros_like(v)
    for _ in range(100):
        y = twin(y, v)
    y.square().sum().backward()
    # Two solves to 1e-12.
    assert relative(u.grad, v.grad) < 1e-9
    assert relative(cell.W.grad, twin.W.grad) < 1e-9
    assert relative(cell.norm.weight.grad, twin.norm.weight.grad) < 1e-9


def test_without_a_graph_they_are_updated_once_too_and_in_eval_never() -> None:
    cell, u = Normed(), injection(6)
    layer = layer_of(cell)
    with torch.no_grad():
        layer(u)
    assert int(cell.norm.num_batches_tracked) == 1
    before = {k: v.clone() for k, v in cell.state_dict().items()}
    layer.eval()
    layer(u).sum().backward()
    for key, value in cell.state_dict().items():
        assert torch.equal(value, before[key])


class Counting(nn.Module):
    """z ↦ tanh(W z + u + count / 10), which counts its evaluations in two buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4, 0.5))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("replaced", torch.zeros((), dtype=torch.float64))
        self.register_buffer("constant", torch.ones(4, dtype=torch.float64))
        self.seen: list[tuple[float, float]] = []

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        self.seen.append((float(self.count), float(self.replaced)))
        out = torch.tanh(z @ self.W.T + u + 0.1 * self.count * self.constant)
        self.count += 1
        self.replaced = self.replaced + 1
        return out


@every_gradient
def test_all_evaluations_see_the_buffers_as_they_were(name: str) -> None:
    cell, u = Counting(), injection()
    buffers = cell.count, cell.replaced, cell.constant
    layer = layer_of(cell, gradient_of(name), max_evaluations=10, reltol=1e-4)
    for k in (0, 1):
        cell.seen.clear()
        layer(u).sum().backward()
        assert len(cell.seen) > 3
        assert set(cell.seen) == {(k, k)}
    assert (cell.count, cell.replaced, cell.constant) == buffers  # the very tensors
    assert [float(b) for b in buffers[:2]] == [2, 2]
    assert float(cell.constant.sum()) == 4


def test_a_backward_sees_the_buffers_of_its_own_forward() -> None:
    cell, u = Counting(), injection()
    layer = layer_of(cell)
    one = layer(u)
    layer(u)
    one.sum().backward()
    expected = cells.exact(u, cell.W.detach(), torch.ones_like(u))[1]  # count was 0
    assert relative(cell.W.grad, expected) < 1e-10


def test_a_solve_that_fails_leaves_the_module_as_it_was() -> None:
    class Failing(Counting):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            out = super().forward(z, u)
            if len(self.seen) == 3:
                raise ArithmeticError("enough")
            return out

    cell = Failing()
    parametrizations.orthogonal(cell, "W")
    before = cell.count, dict(cell.parametrizations._modules)
    with pytest.raises(ArithmeticError, match="enough"):
        layer_of(cell)(injection())
    assert cell.count is before[0]
    assert float(cell.count) == 0
    assert dict(cell.parametrizations._modules) == before[1]


def test_a_buffer_that_two_modules_share() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Counting(), Counting()
            self.two.count, self.two.W = self.one.count, self.one.W

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return 0.5 * (self.one(z, u) + self.two(z, u))  # type: ignore[no-any-return]

    cell = Pair()
    layer_of(cell)(injection()).sum().backward()
    assert {seen[0] for seen in cell.one.seen} == {0}
    assert {seen[0] for seen in cell.two.seen} == {1}
    assert float(cell.one.count) == 2
    assert cell.two.count is cell.one.count


# -- parametrisations -----------------------------------------------------------------------------


@every_gradient
def test_a_parametrised_weight_is_computed_once(name: str) -> None:
    cell, counter = Linear(), Doubled()
    parametrize.register_parametrization(cell.linear, "weight", counter)
    layer = layer_of(cell, gradient_of(name), max_evaluations=10, reltol=1e-4)
    counter.calls = 0
    z = layer(injection())
    assert layer.solution.stats.evaluations > 3
    assert counter.calls == 1
    z.sum().backward()
    assert counter.calls == 1
    with torch.no_grad():
        layer(injection())
    assert counter.calls == 2
    original = cell.linear.parametrizations.weight.original
    assert original.grad is not None
    assert float(original.grad.norm()) > 0


def explicit_gradients(cell: nn.Module, u: Tensor, tensors: list[Tensor]) -> Any:
    """The gradients of Σ sin z through 500 layers: 0.95^500 is 1e-11."""
    z = torch.zeros_like(u)
    for _ in range(500):
        z = cell(z, u)
    return torch.autograd.grad(z.sin().sum(), tensors)


def parametrised(kind: str) -> Linear:
    cell = Linear()
    torch.manual_seed(11)
    if kind == "weight_norm":
        parametrizations.weight_norm(cell.linear)
    elif kind == "spectral_norm":
        parametrizations.spectral_norm(cell.linear)
        cell.linear.parametrizations.weight[0].eval()  # the twin shall see the same vectors
        parametrize.register_parametrization(cell.linear, "weight", Doubled())
    elif kind == "orthogonal":
        parametrizations.orthogonal(cell.linear)
        parametrize.register_parametrization(cell.linear, "weight", Doubled())
    elif kind == "tied":  # one weight, as it is and parametrised
        other = cell.other = nn.Linear(4, 4, dtype=torch.float64)  # type: ignore[assignment]
        other.weight = cell.linear.weight
        parametrize.register_parametrization(other, "weight", Doubled())
        cell.forward = lambda z, u: torch.tanh(  # type: ignore[assignment,method-assign]
            0.5 * cell.linear(z) + 0.5 * other(z) + u
        )
    elif kind == "shared":
        parametrizations.weight_norm(cell.linear)
        cell.again = cell.linear
        cell.forward = lambda z, u: torch.tanh(  # type: ignore[assignment,method-assign]
            0.5 * cell.linear(z) + 0.5 * cell.again(z) + u  # type: ignore[operator]
        )
    elif kind == "hook":
        with pytest.warns(FutureWarning, match="weight_norm"):
            torch.nn.utils.weight_norm(cell.linear)
    elif kind == "itself":
        cell = Itself()
        parametrize.register_parametrization(cell, "weight", Doubled())
    return cell


class Itself(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights(4, 0.5))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.5 * self.linear(z @ self.weight) + u)


KINDS = ["weight_norm", "spectral_norm", "orthogonal", "tied", "shared", "hook", "itself"]


@exact_gradient
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_the_originals(name: str, kind: str) -> None:
    cell, u = parametrised(kind), 0.5 * injection()
    # A sine of an orthogonal matrix has a norm up to 1: what contracts is tanh.
    layer = layer_of(cell, gradient_of(name), max_evaluations=150)
    tensors = [p for p in cell.parameters() if p.requires_grad]
    z = layer(u)
    found = torch.autograd.grad(z.sin().sum(), tensors, allow_unused=True)
    expected = explicit_gradients(cell, u, tensors)
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        # Solves to 1e-12 at a rate up to 0.95.
        assert (a - b).norm() <= 1e-8 * max(1.0, float(b.norm()))


@pytest.mark.parametrize("kind", ["weight_norm", "tied", "itself"])
def test_second_derivatives_reach_the_originals(kind: str) -> None:
    cell, u = parametrised(kind), 0.5 * injection(2)
    tensors = [p for p in cell.parameters() if p.requires_grad]
    layer = layer_of(cell)

    def products(z: Tensor) -> Any:
        first = torch.autograd.grad(z.sin().sum(), tensors, create_graph=True)
        torch.manual_seed(12)
        return torch.autograd.grad(sum((g * torch.randn_like(g)).sum() for g in first), tensors)

    z = torch.zeros_like(u)
    for _ in range(100):
        z = cell(z, u)
    for a, b in zip(products(layer(u)), products(z), strict=True):
        assert (a - b).norm() <= 1e-8 * max(1.0, float(b.norm()))


def test_the_power_iteration_advances_once() -> None:
    cell, u = Linear(), injection()
    torch.manual_seed(13)
    parametrizations.spectral_norm(cell.linear, n_power_iterations=1)
    norm = cell.linear.parametrizations.weight[0]
    before, other = norm._u.clone(), norm._v.clone()
    z = layer_of(cell, reltol=1e-6)(0.5 * u)
    once = norm._u.clone()
    assert not torch.equal(once, before)
    z.sum().backward()
    assert torch.equal(norm._u, once)
    norm._u.copy_(before)
    norm._v.copy_(other)
    cell.linear(u)  # one forward of torch's own, which has a step in it
    assert torch.equal(norm._u, once)


def test_frozen_originals_are_computed_once_and_get_nothing() -> None:
    cell, counter = Linear(), Doubled()
    parametrize.register_parametrization(cell.linear, "weight", counter)
    original = cell.linear.parametrizations.weight.original
    original.requires_grad_(False)
    counter.calls = 0
    layer_of(cell)(injection()).sum().backward()
    assert counter.calls == 1
    assert original.grad is None
    assert cell.linear.bias.grad is not None


def test_within_a_cache_of_the_caller() -> None:
    """``parametrize.cached()`` keeps the weight for all layers; the solve has its own place."""
    cell, counter, u = Linear(), Doubled(), injection()
    parametrize.register_parametrization(cell.linear, "weight", counter)
    layer = layer_of(cell)
    layer(u).sum().backward()
    original = cell.linear.parametrizations.weight.original
    expected, original.grad = original.grad, None
    counter.calls = 0
    with parametrize.cached():
        z = layer(u)
        (z.sum() + cell.linear.weight.sum()).backward()
        assert counter.calls == 1
    assert relative(original.grad - original.detach().cos(), expected) < 1e-12


def test_nothing_lives_on() -> None:
    cell = parametrised("weight_norm")
    cell.dropout = VariationalDropout(0.2)
    cell.norm = nn.BatchNorm1d(4, dtype=torch.float64)
    inner = cell.forward
    cell.forward = lambda z, u: cell.dropout(0.3 * cell.norm(inner(z, u)))  # type: ignore[method-assign,operator]
    layer, u = layer_of(cell), injection(6)

    def alive() -> int:
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    gc.collect()
    gc.disable()  # what is freed is freed by counting: there are no cycles
    try:
        z = layer(u)
        z.sum().backward()
        count, ends = alive(), weakref.ref(z.grad_fn)
        for _ in range(5):
            z = layer(u)
            z.sum().backward()
        assert ends() is None
        assert alive() == count
        for _ in range(5):
            z = layer(u)  # and no backward
        assert alive() <= count + 1
    finally:
        gc.enable()


# -- transforms, and tensors put in place for the forward -----------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_an_ensemble_of_layers(frozen: bool) -> None:
    """Batched parameters of ``functional_call`` are found, frozen ones too."""
    cell, u = cells.Cell(), injection()
    cell.requires_grad_(not frozen)
    layer = layer_of(cell)
    W = torch.stack([weights(4, seed=k) for k in range(3)])
    got = vmap(lambda W: functional_call(layer, {"cell.W": W}, (u,)))(W)
    for k in range(3):
        assert torch.allclose(got[k], cells.equilibrium(u, W[k]), atol=1e-10)


def test_forward_mode_in_frozen_parameters() -> None:
    cell, u, dW = cells.Cell().requires_grad_(False), injection(), weights(4, seed=5)
    layer = layer_of(cell)
    _, tangent = jvp(lambda W: functional_call(layer, {"cell.W": W}, (u,)), (cell.W,), (dW,))
    expected = cells.exact(u, cell.W, torch.ones_like(u))[1]
    assert float(tangent.sum()) == pytest.approx(float((expected * dW).sum()), rel=1e-9)


def test_vmap_over_a_cell_with_variational_dropout() -> None:
    torch.manual_seed(14)
    cell = Dropping(VariationalDropout(0.4))
    layer = layer_of(cell)
    u = torch.stack([injection(2, seed=k) for k in range(3)])
    gradients_ = vmap(grad(lambda u: layer(u).sum()))(u)
    for k in range(3):  # one mask for all copies
        du = masked_equilibrium(u[k], cell.W.detach(), cell.masks[0])[1]
        assert torch.allclose(gradients_[k], du, rtol=1e-9, atol=1e-10)


def test_buffers_of_a_functional_call_are_those_of_its_backward() -> None:
    cell, u = Counting(), injection()
    other = {"cell.constant": torch.full((4,), -2.0, dtype=torch.float64)}
    cell.count.fill_(3.0)
    layer = layer_of(cell)
    z = functional_call(layer, other, (u,))
    z.sum().backward()
    expected = cells.exact(u - 0.6, cell.W.detach(), torch.ones_like(u))[1]
    assert relative(cell.W.grad, expected) < 1e-10
