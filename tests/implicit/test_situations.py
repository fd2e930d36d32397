"""The situations that a training program puts the layer in, for every gradient there is.

What a gradient claims is compared with plain autograd through a deep network; what an inexact one
claims, that it is the same in every situation, with itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from cells import Cell, forward_mode, injection, relative, weights
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from implicit import DEQ, Implicit
from implicit.gradients import registry
from solvers import Broyden, Picard

pytestmark = forward_mode

TIGHT = 1e-12
# Solves to 1e-12, amplified by 1 / (1 - 0.6) a derivative, in float64.
CLOSE = 1e-8
DEPTH = 60  # 0.6^60 is below rounding

NAMES = registry.names()


def differentiable(name: str) -> bool:
    """Whether further derivatives are promised: the estimates and the reversible refuse them."""
    gradient = registry.get(name)
    return gradient.exact and "own" not in gradient.requires


TWICE = [n for n in NAMES if differentiable(n)]
ONCE = [n for n in NAMES if not differentiable(n)]
# Those that torch.func may transform.
FUNCTIONAL = ["implicit", "unrolled", "checkpointed"]
EXACT = [n for n in NAMES if registry.get(n).exact]


def layer_of(name: str, cell: nn.Module | None = None, reltol: float = TIGHT) -> DEQ:
    gradient = Implicit(max_products=300) if name == "implicit" else registry.get(name)
    own = "own" in gradient.requires
    return DEQ(
        Cell(4) if cell is None else cell,
        solver=None if own else Broyden(),
        gradient=gradient,
        reltol=reltol,
        max_evaluations=30 if own else 300,  # so many steps are found back
    )


def accuracy(name: str) -> float:
    """How near to the equilibrium's gradient: the reversible one stops after 30 evaluations."""
    return 1e-2 if "own" in registry.get(name).requires else CLOSE


class Net(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(4, 4, dtype=torch.float64)
        self.layer = layer_of(name)
        self.behind = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.layer(self.before(x)))  # type: ignore[no-any-return]


def deep(cell: Callable[..., Tensor], u: Tensor, depth: int = DEPTH) -> Tensor:
    z = torch.zeros_like(u)
    for _ in range(depth):
        z = cell(z, u)
    return z


class DeepNet(nn.Module):
    """The same network, by plain iteration."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = deep(self.net.layer.cell, self.net.before(x))
        return self.net.behind(z)  # type: ignore[no-any-return]


def loss_of(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.sin(model(x)).sum()


def agree(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = CLOSE) -> None:
    for a, b in zip(got, expected, strict=True):
        assert relative(a, b) < tolerance


# -- graphs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_backward_again_and_again(name: str) -> None:
    net, x = Net(name), injection().requires_grad_()
    tensors, loss = (x, *net.parameters()), loss_of(net, x)
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    for k in (1.0, 3.0):
        again = torch.autograd.grad(k * loss, tensors, retain_graph=True)
        agree(again, [k * g for g in first], 1e-12)  # 3 is no power of two
    loss.backward()
    agree([t.grad for t in tensors if t.grad is not None], first, 1e-12)
    if name in EXACT:
        agree(first, torch.autograd.grad(loss_of(DeepNet(net), x), tensors), accuracy(name))


@pytest.mark.parametrize("name", NAMES)
def test_three_calls_in_one_graph(name: str) -> None:
    layer, inputs = layer_of(name), [injection(seed=k) for k in (1, 2, 3)]
    sum(loss_of(layer, u) for u in inputs).backward()  # type: ignore[union-attr]
    alone = [torch.autograd.grad(loss_of(layer, u), layer.cell.W)[0] for u in inputs]
    assert layer.cell.W.grad is not None
    assert relative(layer.cell.W.grad, sum(alone)) < 1e-12  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXACT)
def test_a_recurrent_network_of_one_layer(name: str) -> None:
    layer, u = layer_of(name), injection().requires_grad_()

    def recurrent(step: Callable[[Tensor], Tensor]) -> Tensor:
        z = u
        for _ in range(3):
            z = step(0.5 * z + u)
        return torch.sin(z).sum()

    got = torch.autograd.grad(recurrent(layer), (u, layer.cell.W))
    expected = torch.autograd.grad(recurrent(lambda v: deep(layer.cell, v)), (u, layer.cell.W))
    agree(got, expected, accuracy(name))


class Outer(nn.Module):
    """A cell in which there is an equilibrium."""

    def __init__(self, name: str, reltol: float) -> None:
        super().__init__()
        self.inner = layer_of(name, Cell(4, 0.3, 3), reltol)
        self.V = nn.Parameter(weights(4, 0.3, 5))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(self.inner(0.5 * u + z @ self.V.T))

    def plain(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(deep(self.inner.cell, 0.5 * u + z @ self.V.T, 25))  # 0.3^25


def _nested(outer: str, inner: str, order: int) -> tuple[Any, Any]:
    cell = Outer(inner, TIGHT)
    layer, u = layer_of(outer, cell, 1e-10), injection(2).requires_grad_()
    found = []
    for model in (layer, lambda u: deep(cell.plain, u, 20)):  # 0.1^20
        loss = loss_of(model, u)
        if order == 2:
            (g,) = torch.autograd.grad(loss, u, create_graph=True)
            loss = g.square().sum()
        found.append(torch.autograd.grad(loss, (u, *layer.parameters())))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("implicit", "implicit"), ("implicit", "unrolled"), ("unrolled", "implicit")],
)
@pytest.mark.parametrize("order", [1, 2])
def test_a_layer_within_a_cell(outer: str, inner: str, order: int) -> None:
    agree(*_nested(outer, inner, order), 1e-6)  # 1e-10 outside, twice amplified


@pytest.mark.parametrize("inner", ONCE)
def test_an_estimate_within_an_exact_cell(inner: str) -> None:
    got, expected = _nested("implicit", inner, 1)
    for a, b in zip(got, expected, strict=True):
        assert float((a * b).sum()) > 0  # downhill


# -- second derivatives ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWICE)
def test_a_gradient_penalty(name: str) -> None:
    net, x = Net(name), injection().requires_grad_()

    def penalised(model: nn.Module) -> Tensor:
        loss = loss_of(model, x)
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + g.square().sum()

    parameters = [*net.parameters()]
    got = torch.autograd.grad(penalised(net), parameters)
    agree(got, torch.autograd.grad(penalised(DeepNet(net)), parameters))


def test_training_with_a_gradient_penalty() -> None:
    """Ten steps, the same as those of the deep network."""
    ends = []
    for wrap in (lambda n: n, DeepNet):
        net = Net("implicit")
        model, x = wrap(net), injection().requires_grad_()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.02)
        for _ in range(10):
            optimiser.zero_grad()
            (g,) = torch.autograd.grad(loss_of(model, x), x, create_graph=True)
            (loss_of(model, x) + g.square().sum()).backward()
            optimiser.step()
        ends.append([p.detach() for p in net.parameters()])
    agree(*ends)


@pytest.mark.parametrize("name", TWICE)
def test_hessian_vector_products(name: str) -> None:
    net, x = Net(name), injection()
    W = net.layer.cell.W
    v = weights(4, 1.0, 9)

    def product(model: nn.Module) -> Tensor:
        (g,) = torch.autograd.grad(loss_of(model, x), W, create_graph=True)
        return torch.autograd.grad((g * v).sum(), W)[0]

    assert relative(product(net), product(DeepNet(net))) < CLOSE


@pytest.mark.parametrize("name", ONCE)
def test_what_has_no_second_derivative_says_so(name: str) -> None:
    net, x = Net(name), injection().requires_grad_()
    loss = loss_of(net, x)
    (plain,) = torch.autograd.grad(loss, x, retain_graph=True)
    with pytest.raises(RuntimeError, match=f"the gradient {name} .*second derivative"):
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        assert relative(g.detach(), plain) < 1e-12  # the first one is as ever
        g.square().sum().backward()


# -- torch.func over a model ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_transforms_of_a_model(name: str) -> None:
    net, x = Net(name), injection(2)
    params = {n: p.detach() for n, p in net.named_parameters()}
    both = (net, DeepNet(net))

    def of(model: nn.Module) -> Callable[..., Tensor]:
        prefix = "" if model is net else "net."

        def call(params: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(model, {prefix + n: p for n, p in params.items()}, (x,))  # type: ignore[no-any-return]

        return call

    def loss(model: nn.Module) -> Callable[..., Tensor]:
        return lambda params, x: torch.sin(of(model)(params, x)).sum()

    def same(measure: Callable[[nn.Module], Any]) -> None:
        got, expected = (measure(model) for model in both)
        agree(got.values(), expected.values())

    same(lambda m: grad(loss(m))(params, x))
    same(lambda m: jacrev(of(m))(params, x))
    tangents = {n: torch.ones_like(p) for n, p in params.items()}
    same(lambda m: {"": jvp(lambda p: of(m)(p, x), (params,), (tangents,))[1]})
    # One gradient a sample.
    same(lambda m: vmap(grad(loss(m)), in_dims=(None, 0))(params, x[:, None]))
    if name == "implicit":  # the others are slow, and the same in principle
        W = "layer.cell.W"
        same(lambda m: {"": hessian(lambda w: loss(m)({**params, W: w}, x))(params[W])})


@pytest.mark.parametrize("name", [n for n in NAMES if n not in FUNCTIONAL])
@pytest.mark.parametrize("how", ["grad", "jvp", "vmap"])
def test_what_has_no_transform_says_so(name: str, how: str) -> None:
    layer, u = layer_of(name), injection(2)
    call: dict[str, Callable[[], Any]] = {
        "grad": lambda: grad(lambda u: layer(u).sum())(u),
        "jvp": lambda: jvp(layer, (u,), (u,)),
        "vmap": lambda: vmap(layer)(u[:, None]),
    }
    with pytest.raises(RuntimeError, match=f"the gradient {name} "):
        call[how]()


# -- what gets a gradient -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen", ["before", "layer", "all", "none", "only the layer is not"])
def test_frozen_parameters(name: str, frozen: str) -> None:
    net, x = Net(name), injection().requires_grad_()
    expected = dict(
        zip(
            ["x", *dict(net.named_parameters())],
            torch.autograd.grad(loss_of(net, x), (x, *net.parameters())),
            strict=True,
        )
    )
    if frozen in ("all", "only the layer is not"):
        net.requires_grad_(False)
    if frozen == "only the layer is not":
        net.layer.requires_grad_(True)
        x.requires_grad_(False)
    if frozen in ("before", "layer"):
        getattr(net, frozen).requires_grad_(False)
    loss_of(net, x).backward()
    for n, t in (("x", x), *net.named_parameters()):
        if t.requires_grad:
            assert t.grad is not None
            assert relative(t.grad, expected[n]) < 1e-10
        else:
            assert t.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_without_a_graph(name: str) -> None:
    layer, u = layer_of(name), injection()
    z = layer(u)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            other = layer(u)
            assert not other.requires_grad
            assert torch.equal(other, z)
    with torch.inference_mode():
        layer(injection())  # an input that is an inference tensor itself
    layer.requires_grad_(False)
    assert not layer(u).requires_grad
    layer.requires_grad_(True)
    # And it goes on as if nothing had been.
    assert torch.equal(layer.eval()(u), z)
    layer(u).sum().backward()
    assert layer.cell.W.grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_the_start_gets_no_gradient_of_an_equilibrium(name: str) -> None:
    layer, u = layer_of(name), injection()
    z0 = torch.full_like(u, 0.1).requires_grad_()
    layer(u, z0=z0).sum().backward()
    if z0.grad is not None:  # through steps: it is what is left of the start's influence
        assert float(z0.grad.norm()) < 1e-2
    else:
        assert "native" not in registry.get(name).requires


@pytest.mark.parametrize("name", NAMES)
def test_accumulated_gradients(name: str) -> None:
    net, x = Net(name), injection(6)
    loss_of(net, x).backward()
    whole = [p.grad for p in net.parameters() if p.grad is not None]
    net.zero_grad(set_to_none=True)
    for piece in x.chunk(3):
        loss_of(net, piece).backward()
    pieces = [p.grad for p in net.parameters() if p.grad is not None]
    # A batch as a whole may take an evaluation more than its parts; secant estimates differ then.
    agree(pieces, whole, 1e-5 if "inverse" in registry.get(name).requires else accuracy(name))


# -- devices --------------------------------------------------------------------------------------


def test_tensors_on_several_devices_are_an_error() -> None:
    class Two(Cell):
        def forward(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(z, u)

    u, nowhere = injection(), injection().to("meta")
    with pytest.raises(ValueError, match=r"args\[1\] is on meta, the state on cpu: move one"):
        DEQ(Two(4))(u, nowhere)
    with pytest.raises(ValueError, match=r"args\[0\] is on cpu, the state on meta"):
        DEQ(Cell(4))(u, z0=nowhere)
    with pytest.raises(ValueError, match="holds no numbers"):
        DEQ(Cell(4))(nowhere)


# -- hooks on saved tensors, activation checkpointing ---------------------------------------------


def copying() -> contextlib.AbstractContextManager[Any]:
    return saved_tensors_hooks(Tensor.clone, lambda t: t)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("around", ["both", "forward", "backward"])
@pytest.mark.parametrize("hooks", [save_on_cpu, copying])
def test_hooks_on_saved_tensors(hooks: Any, around: str, name: str) -> None:
    layer, u = layer_of(name), injection().requires_grad_()
    tensors = (u, layer.cell.W)
    expected = torch.autograd.grad(loss_of(layer, u), tensors)
    nothing = contextlib.nullcontext
    with hooks() if around == "both" else nothing():
        with hooks() if around == "forward" else nothing():
            loss = loss_of(layer, u)
        with hooks() if around == "backward" else nothing():
            got = torch.autograd.grad(loss, tensors)
    agree(got, expected, 1e-12)


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("hooks", [save_on_cpu, copying])
def test_second_derivatives_under_hooks(hooks: Any, name: str) -> None:
    layer, u = layer_of(name), injection().requires_grad_()

    def second() -> Sequence[Tensor]:
        (g,) = torch.autograd.grad(loss_of(layer, u), u, create_graph=True)
        (h,) = torch.autograd.grad(g.square().sum(), u, create_graph=True)
        return torch.autograd.grad(h.square().sum(), (u, layer.cell.W))

    expected = second()
    with hooks():
        agree(second(), expected)


def test_hooks_see_what_is_kept_and_not_the_graphs_of_a_backward() -> None:
    """Else each product with Jᵀ would fetch what it needs from the host."""
    layer, u = layer_of("implicit"), injection().requires_grad_()
    count = [0, 0]

    def pack(t: Tensor) -> Tensor:
        count[0] += 1
        return t

    def unpack(t: Tensor) -> Tensor:
        count[1] += 1
        return t

    with saved_tensors_hooks(pack, unpack):
        z = layer(u)
        kept = count[0]
        z.backward(torch.ones_like(z))
    assert kept == 3  # z*, u and W
    assert count == [kept, kept]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_the_model(name: str, reentrant: bool) -> None:
    net, x = Net(name), injection().requires_grad_()
    tensors = (x, *net.parameters())
    expected = torch.autograd.grad(loss_of(net, x), tensors)
    loss_of(lambda x: checkpoint(net, x, use_reentrant=reentrant), x).backward()
    agree([t.grad for t in tensors if t.grad is not None], expected, 1e-12)


def test_second_derivatives_through_a_checkpoint() -> None:
    net, x = Net("implicit"), injection().requires_grad_()

    def second(model: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
        (g,) = torch.autograd.grad(loss_of(model, x), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), (x, *net.parameters()), allow_unused=True)

    got = second(lambda x: checkpoint(net, x, use_reentrant=False))  # type: ignore[arg-type, return-value]
    expected = second(net)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert relative(a, b) < CLOSE


# -- autocast -------------------------------------------------------------------------------------


class Half(nn.Module):
    """A cell whose products autocast does in lower precision."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Linear(16, 16)
        with torch.no_grad():
            self.A.weight.copy_(weights(16, 0.6))
        self.seen: list[bool] = []

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        self.seen.append(torch.is_autocast_enabled(z.device.type))
        return torch.tanh(self.A(z) + u)


DEVICES = [
    ("cpu", torch.bfloat16),
    pytest.param(
        "cuda",
        torch.float16,
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    ),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("device", "dtype"), DEVICES)
def test_autocast_in_the_forward_alone(device: str, dtype: torch.dtype, name: str) -> None:
    u = injection(5, 16).float().to(device)
    layer = layer_of(name, Half(), 1e-2).to(device)
    if "own" in registry.get(name).requires:
        layer.settings = type(layer.settings)(reltol=1e-2, max_evaluations=16)
    with torch.autocast(device, dtype=dtype):
        loss = loss_of(layer, u)
    assert loss.dtype == torch.float32
    loss.backward()  # outside, and still of the function that was solved
    assert all(layer.cell.seen)
    lower = layer.cell.A.weight.grad.clone()
    layer.zero_grad()
    loss_of(layer, u).backward()
    # bfloat16 rounds to 2^-9, and both solves end at 1e-2, over 1 - 0.6.
    assert relative(lower, layer.cell.A.weight.grad) < 0.1


class HalfCell(nn.Module):
    """A cell whose image has the dtype of autocast, as that of one matrix product has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.inject = nn.Linear(6, 6), nn.Linear(6, 6)
        with torch.no_grad():
            self.inner.weight.mul_(0.5)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(self.inner(z) + self.inject(u))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inside", [True, False])
def test_a_cell_that_returns_half_precision_under_autocast(name: str, inside: bool) -> None:
    torch.manual_seed(0)
    cell, u = HalfCell(), torch.randn(3, 6)
    solver = None if name == "reversible" else Broyden()
    if registry.get(name).requires & {"native"}:
        solver = Picard()
    found = []
    for autocast in (False, True):
        layer = DEQ(cell, solver=solver, gradient=registry.get(name), reltol=1e-2)
        cell.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            z = layer(u)
            if inside:
                z.float().square().sum().backward()
        if not inside:
            z.float().square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in cell.parameters()]))  # type: ignore[union-attr]
    assert found[1].dtype == torch.float32
    # Eight bits, in an equilibrium to 1e-2; the estimates' own error is the same in both.
    assert relative(found[1], found[0]) < (0.3 if name == "shine" else 0.05)
