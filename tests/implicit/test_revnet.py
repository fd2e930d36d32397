"""The reversible network: its gradient is the plain one's, its memory does not grow with depth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from implicit.memory import Memory, profile
from implicit.models import Model, registry
from implicit.models.revnet import Coupling, RevNet
from implicit.models.stack import Stack
from solvers.options import OptionError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
SIZES = {"width": 8, "layers": 6, "inputs": 5, "classes": 3}


def build(dtype: torch.dtype = torch.float64, **options: object) -> Model:
    torch.manual_seed(0)
    model = registry.get("revnet", **{**SIZES, **options})
    model.module().to(dtype)
    with torch.no_grad():
        for name, p in model.cell.named_parameters():
            if name.endswith(".b"):
                p.copy_(0.1 * torch.randn_like(p))  # zero otherwise
    return model


def some_input(batch: int = 7, inputs: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.rand(batch, inputs, generator=g, dtype=torch.float64).to(dtype)


def gradients(model: Model, x: Tensor, scale: float = 1.0) -> tuple[Tensor, list[Tensor]]:
    """Return the loss, and the gradients of x and of all parameters."""
    x = x.clone().requires_grad_()
    loss = scale * model.loss(model.readout(model.cell(*model.args(x))), torch.arange(len(x)) % 3)
    return loss, list(torch.autograd.grad(loss, (x, *model.module().parameters())))


def error(got: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest relative error of a gradient."""
    return max(float((g - r).norm() / r.norm()) for g, r in zip(got, right, strict=True))


def test_the_equations() -> None:
    model, x = build(), some_input()
    assert model.explicit
    assert model.task == "classification"
    (u,) = model.args(x)
    x1, x2 = u[:, :4], u[:, 4:]
    assert isinstance(model.cell, RevNet)
    for block in model.cell.layers:
        assert isinstance(block, Coupling)
        F, G = block.F, block.G
        x1 = x1 + torch.tanh(x2 @ F.W.T + F.b)  # type: ignore[operator, union-attr]
        x2 = x2 + torch.tanh(x1 @ G.W.T + G.b)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(model.cell(u), torch.cat([x1, x2], 1), rtol=1e-14, atol=1e-14)
    count = sum(p.numel() for p in model.module().parameters())
    assert count == (5 * 8 + 8) + 6 * 2 * (16 + 4) + (8 * 3 + 3)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("layers", [1, 6, 64])
def test_the_gradient_is_that_of_the_plain_network(
    layers: int, dtype: torch.dtype, bound: float
) -> None:
    x = some_input(dtype=dtype)
    (loss, got), (plain, right) = (
        gradients(build(dtype, layers=layers, reversible=r), x) for r in (True, False)
    )
    assert torch.equal(loss, plain)
    # Some roundings a block, 1e-16 or 6e-8, a little amplified on the way.
    assert error(got, right) < bound


def test_gradcheck() -> None:
    model = build(layers=3, width=4)
    (u,) = model.args(some_input(2))
    u = u.detach().requires_grad_()
    parameters = list(model.cell.parameters())
    assert torch.autograd.gradcheck(lambda *_: model.cell(u), (u, *parameters), fast_mode=True)


def test_the_bytes_do_not_grow_with_depth() -> None:
    def measured(layers: int, *, reversible: bool) -> Memory:
        model = build(torch.float32, layers=layers, width=32, reversible=reversible)
        u = model.args(some_input(64, dtype=torch.float32))[0].detach().requires_grad_()
        wanted = [u, *model.cell.parameters()]
        return profile(lambda: model.cell(u), wanted, cotangent=torch.ones_like(u), inputs=[u])

    def beyond(memory: Memory) -> int:  # each layer has gradients of its own
        return memory.peak - memory.gradients

    short, long = (measured(n, reversible=True) for n in (4, 64))
    assert long.kept == short.kept == 64 * 32 * 4  # z, and nothing else
    # Gradients are there one after the other, and the last block's graph is not there then.
    assert beyond(long) <= beyond(short)
    plain = [measured(n, reversible=False) for n in (4, 64)]
    assert plain[1].kept > 12 * plain[0].kept
    assert long.peak < 0.2 * plain[1].peak


def test_what_is_rebuilt_is_what_was_there() -> None:
    model = build(torch.float32, layers=64, width=32)
    x = some_input(dtype=torch.float32)
    seen: list[Tensor] = []
    assert isinstance(model.cell, RevNet)
    hook: Callable[..., None] = lambda _, inputs: seen.append(inputs[0].detach().clone())  # noqa: E731
    for block in model.cell.layers:
        block.F.register_forward_pre_hook(hook)  # type: ignore[union-attr]
    model.cell(*model.args(x)).sum().backward()
    there, back = seen[:64], seen[:63:-1]
    assert len(seen) == 128
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(there, back, strict=True))
    assert 0 < worst < 1e-5  # 64 roundings of 6e-8, somewhat amplified


def test_dropout_is_the_same_in_the_backward_and_the_generator_goes_on_once() -> None:
    x = some_input()
    found = []
    for reversible in (True, False):
        model = build(dropout=0.4, reversible=reversible)
        torch.manual_seed(5)
        loss, gradient = gradients(model, x)
        found.append((loss.detach(), gradient, torch.rand(3)))
    (loss, got, after), (plain, right, plain_after) = found
    assert torch.equal(loss, plain)
    assert error(got, right) < 1e-12
    assert torch.equal(after, plain_after)
    model = build(dropout=0.4)
    model.module().eval()
    assert error(gradients(model, x)[1], gradients(build(), x)[1]) < 1e-12


def test_autocast_is_that_of_the_forward() -> None:
    def step(*, reversible: bool) -> list[Tensor]:
        model = build(torch.float32, reversible=reversible)
        x = some_input(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            out = model.cell(*model.args(x)).float().square().sum()
        return list(torch.autograd.grad(out, list(model.cell.parameters())))

    # bfloat16 rounds to 2^-9: a rebuilt input that is off by a rounding may be rounded elsewhere.
    assert error(step(reversible=True), step(reversible=False)) < 1e-2


def test_without_a_graph_and_with_frozen_parameters() -> None:
    model, x = build(), some_input()
    with torch.no_grad():
        assert not model.cell(*model.args(x)).requires_grad
    for p in model.module().parameters():
        p.requires_grad_(False)
    assert not model.cell(*model.args(x)).requires_grad
    first = next(model.cell.parameters()).requires_grad_()
    z = model.cell(*model.args(x))
    (alone,) = torch.autograd.grad(z.square().sum(), first)
    plain = build(reversible=False)
    other = next(plain.cell.parameters())
    (right,) = torch.autograd.grad(plain.cell(*plain.args(x)).square().sum(), other)
    torch.testing.assert_close(alone, right, rtol=1e-11, atol=1e-13)


def test_blocks_that_share_their_weights() -> None:
    block, x = build(layers=1).cell.layers[0], some_input(3, 8)  # type: ignore[index, union-attr]
    assert isinstance(block, Coupling)
    found = []
    for network in (RevNet([block] * 5), Stack([block] * 5)):
        z = network(x)
        assert isinstance(z, Tensor)
        found.append(torch.autograd.grad(z.square().sum(), list(block.parameters())))
    assert error(list(found[0]), list(found[1])) < 1e-12


def test_transforms_take_the_plain_way() -> None:
    model, plain, x = build(), build(reversible=False), some_input(2)
    (u,) = model.args(x)
    jacobian = torch.func.vmap(torch.func.jacrev(model.cell))(u.detach())
    right = torch.func.vmap(torch.func.jacrev(plain.cell))(u.detach())
    torch.testing.assert_close(jacobian, right)
    _, tangent = torch.func.jvp(model.cell, (u.detach(),), (torch.ones_like(u),))
    torch.testing.assert_close(tangent, right.sum(-1))


def test_what_it_cannot_do_is_refused_in_words() -> None:
    model, x = build(), some_input()
    z = model.cell(*model.args(x))
    with pytest.raises(RuntimeError, match=r"no second derivatives .* reversible=False"):
        torch.autograd.grad(z.sum(), list(model.cell.parameters()), create_graph=True)
    with pytest.raises(ValueError, match=r"segments = 2: .*reversible=False"):
        model.cell(*model.args(x), segments=2)
    with pytest.raises(OptionError, match=r"model\.width = 7: must be even"):
        registry.get("revnet", width=7)
    z = model.cell(*model.args(x))
    with torch.no_grad():
        next(model.cell.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_the_plain_twin_may_be_checkpointed() -> None:
    model, x = build(reversible=False), some_input()
    assert isinstance(model.cell, Stack)
    assert not isinstance(model.cell, RevNet)
    assert isinstance(model.cell.layers[0], nn.Module)
    torch.testing.assert_close(model.cell(*model.args(x), segments=3), model.cell(*model.args(x)))
