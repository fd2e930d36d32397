"""Normalised weights and variational dropout: what they are, alone and within a solve."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cells import injection, relative, weights
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from implicit import DEQ, Implicit
from implicit.normalisation import SpectralBound, VariationalDropout, spectral_norm, weight_norm
from solvers import Anderson

SHAPES: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = [
    ("channels", (3, 5), (3, 5)),
    ("channels", (3, 5, 7), (3, 5, 1)),
    ("channels", (3, 5, 4, 6), (3, 5, 1, 1)),
    ("features", (3, 5), (3, 5)),
    ("features", (3, 7, 5), (3, 1, 5)),
    ("elements", (3, 2, 4, 4), (3, 2, 4, 4)),
]


# -- dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kind", "shape", "mask"), SHAPES)
def test_the_mask(
    kind: Any, shape: tuple[int, ...], mask: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    dropout = VariationalDropout(0.25, kind)
    y = dropout(torch.ones(shape, dtype=dtype))
    assert y.dtype == dtype
    assert y.shape == shape
    scaled = torch.tensor(1 / 0.75, dtype=dtype)
    assert ((y == 0) | (y == scaled)).all()
    index = tuple(slice(0, n) for n in mask)
    assert torch.equal(y, y[index].expand(shape))


def test_how_much_is_dropped() -> None:
    torch.manual_seed(1)
    y = VariationalDropout(0.3)(torch.ones(400, 100))
    # A share of 40000 draws: five standard deviations are 0.0115.
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.012)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.017)


def test_outside_of_a_solve_masks_are_fresh() -> None:
    dropout, x = VariationalDropout(0.5, "elements"), torch.ones(20, 20)
    torch.manual_seed(2)
    one, two = dropout(x), dropout(x)
    assert not torch.equal(one, two)
    torch.manual_seed(2)
    assert torch.equal(dropout(x), one)


def test_eval_and_the_ends_of_the_scale() -> None:
    x = torch.randn(5, 4, requires_grad=True)
    before = torch.get_rng_state()
    assert VariationalDropout(0.5).eval()(x) is x
    assert VariationalDropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)
    y = VariationalDropout(1.0)(x)
    assert not y.any()
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_what_it_refuses_and_what_it_says() -> None:
    with pytest.raises(ValueError, match=r"p = 1\.5"):
        VariationalDropout(1.5)
    with pytest.raises(ValueError, match=r"shape = 'rows': allowed are 'channels'"):
        VariationalDropout(0.5, "rows")  # type: ignore[arg-type]
    assert repr(VariationalDropout(0.5)) == "VariationalDropout(p=0.5, shape='channels')"


class Sequence(nn.Module):
    """z ↦ tanh(W drop(z) + u) on sequences (B, T, d); a second mask is for all samples."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4, 0.3).to(dtype))
        self.code = nn.Parameter(weights(4, 0.3, seed=4)[None].to(dtype))
        self.drop = VariationalDropout(0.4, "features")
        self.positions = VariationalDropout(0.4, "features")
        self.sizes: list[int] = []

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        self.sizes.append(len(z))
        return torch.tanh(self.drop(z) @ self.W.T + self.positions(self.code) + u)


def test_masks_by_sample_and_masks_for_all() -> None:
    """A mask whose first axis is not that of the samples stays whole when some are dropped."""
    torch.manual_seed(3)
    cell = Sequence()
    # Samples of very different size end at different evaluations.
    size = torch.tensor([0.01, 0.3, 3.0, 30.0], dtype=torch.float64)[:, None, None]
    u = size * torch.randn(4, 4, 4, dtype=torch.float64)
    layer = DEQ(cell, solver=Anderson(), gradient=Implicit(reltol=1e-12), reltol=1e-12)
    torch.manual_seed(4)
    z = layer(u)
    z.sum().backward()
    assert layer.solution is not None
    assert layer.solution.samples_independent is True
    assert min(cell.sizes) < 4
    torch.manual_seed(4)
    keep = torch.empty(4, 1, 4, dtype=torch.float64).bernoulli_(0.6) / 0.6
    all_keep = torch.empty(1, 1, 4, dtype=torch.float64).bernoulli_(0.6) / 0.6
    W, code = (t.detach().requires_grad_() for t in (cell.W, cell.code))
    y = torch.zeros_like(u)
    for _ in range(200):
        y = torch.tanh((keep * y) @ W.T + all_keep * code + u)
    dW, dcode = torch.autograd.grad(y.sum(), (W, code))
    # Two solves to 1e-12 at a rate of 0.5.
    assert relative(z.detach(), y.detach()) < 1e-10
    assert cell.W.grad is not None
    assert cell.code.grad is not None
    assert relative(cell.W.grad, dW) < 1e-10
    assert relative(cell.code.grad, dcode) < 1e-10


def test_the_precision_is_the_tensors() -> None:
    layer = DEQ(Sequence(torch.bfloat16), solver=Anderson(), reltol=0.05)
    z = layer(torch.randn(2, 4, 4, dtype=torch.bfloat16))
    assert z.dtype == torch.bfloat16
    z.sum().backward()
    assert layer.cell.W.grad.dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dropout", [nn.Dropout(0.4), VariationalDropout(0.4)])
def test_on_a_gpu(dropout: nn.Module) -> None:
    """The numbers are the device's, and are replayed there."""

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(weights(4, 0.4).cuda())
            self.dropout = dropout
            self.masks: list[Tensor] = []

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            out = self.dropout(torch.tanh(z @ self.W.T + u))
            self.masks.append(out.detach() != 0)
            return out  # type: ignore[no-any-return]

    u = injection(4).cuda()
    cell = Dropping()
    torch.cuda.manual_seed(5)
    cell(u, u)
    expected = torch.rand(3, device="cuda")
    cell.masks.clear()
    torch.cuda.manual_seed(5)
    layer = DEQ(cell, solver=Anderson(), gradient=Implicit(reltol=1e-12), reltol=1e-12)
    layer(u).sum().backward()
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    whole = [mask for mask in cell.masks if len(mask) == 4]
    assert all(torch.equal(mask, whole[0]) for mask in whole)
    mask, W = whole[0] / 0.6, cell.W.detach().requires_grad_()
    y = torch.zeros_like(u)
    for _ in range(300):
        y = mask * torch.tanh(y @ W.T + u)
    (dW,) = torch.autograd.grad(y.sum(), W)
    assert relative(cell.W.grad, dW) < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_statistics_on_a_gpu() -> None:
    """They are found by what their module says of its counter, without a read of the device."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.tanh(0.3 * self.norm(z + u) + u)

    cell, u = Cell().cuda(), injection(6).float().cuda()
    z = DEQ(cell, solver=Anderson(), reltol=1e-5)(u)
    x = (z + u).detach()
    assert int(cell.norm.num_batches_tracked) == 1
    assert torch.allclose(cell.norm.running_mean, 0.1 * x.mean(dim=0), atol=1e-5)
    before = cell.norm.running_mean.clone()
    z.sum().backward()
    assert torch.equal(cell.norm.running_mean, before)


# -- weight norm ----------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
        nn.Sequential(nn.Linear(8, 7), nn.Bilinear(2, 2, 2)),
    )


def test_weight_norm_is_by_output_channel() -> None:
    torch.manual_seed(6)
    module = network()
    before = [module[k].weight.detach().clone() for k in (0, 2)]
    assert weight_norm(module) is module
    conv, transposed, linear = module[0], module[2], module[3][0]
    assert conv.parametrizations.weight.original0.shape == (6, 1, 1, 1)
    assert transposed.parametrizations.weight.original0.shape == (1, 5, 1, 1)
    assert linear.parametrizations.weight.original0.shape == (7, 1)
    for layer, weight in zip((conv, transposed), before, strict=True):
        assert torch.allclose(layer.weight, weight, atol=1e-6)  # g is the norm it had; float32
    assert not parametrize.is_parametrized(module[3][1])  # no output channels of its own
    assert len(list(weight_norm(module)[0].parametrizations.weight.children())) == 1  # once


# -- spectral bounds ------------------------------------------------------------------------------


def operator_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """The norm of a linear map by its matrix, column by column."""
    size = int(torch.tensor(shape).prod())
    columns = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        return float(torch.linalg.matrix_norm(layer(columns).flatten(1), 2))


LAYERS = [
    (lambda: nn.Linear(6, 5, bias=False), (6,)),
    (lambda: nn.Conv1d(2, 3, 5, padding=2, bias=False), (2, 12)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 6, 6)),
    (lambda: nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2, bias=False), (2, 6, 6)),
    (lambda: nn.Conv2d(2, 3, 2, stride=2, bias=False), (2, 6, 6)),
    (lambda: nn.Conv2d(2, 3, 3, stride=2, dilation=2, padding=2, bias=False), (2, 8, 8)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False), (2, 6, 6)),
]


@pytest.mark.parametrize("iterations", [None, 1])
@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_the_bound_holds(build: Any, shape: tuple[int, ...], iterations: int | None) -> None:
    torch.manual_seed(7)
    layer = build().double()
    with torch.no_grad():
        layer.weight.mul_(10)
    free = operator_norm(layer, shape)
    spectral_norm(layer, 0.9, iterations).train()
    for _ in range(50):
        layer(torch.zeros(1, *shape, dtype=torch.float64))  # a step of the power iteration each
    layer.eval()
    bounded = operator_norm(layer, shape)
    assert free > 1
    # The power iteration ends a little below σ.
    assert bounded <= 0.9 * (1 + 1e-12 if iterations is None else 1 + 1e-3)
    assert bounded > 0.3  # and the bound is no empty one


def test_weights_within_the_bound_are_left_alone() -> None:
    layer = nn.Linear(6, 5).double()
    before = layer.weight.detach().clone()
    spectral_norm(layer, 100.0)
    assert torch.equal(layer.weight, before)
    layer.weight = 2 * before
    assert torch.equal(layer.weight, 2 * before)


def test_the_derivative_of_the_bound() -> None:
    torch.manual_seed(8)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    exact = SpectralBound(weight, 0.8, None)
    assert torch.autograd.gradcheck(exact, (weight,))
    assert torch.autograd.gradgradcheck(exact, (weight,))
    iterated = SpectralBound(weight, 0.8)
    iterated._iterate(weight.detach(), 1000)
    c = torch.randn(5, 4, dtype=torch.float64)
    expected, found = (
        torch.autograd.grad((f(weight) * c).sum(), weight)[0] for f in (exact, iterated)
    )
    # The singular vectors, to whose errors σ is blind to first order, are found to rounding.
    assert relative(found, expected) < 1e-9


def test_what_spectral_norm_refuses() -> None:
    with pytest.raises(TypeError, match=r"no bound for ConvTranspose2d"):
        spectral_norm(network())
    with pytest.raises(TypeError, match=r"no bound for Conv1d.*reflect"):
        spectral_norm(nn.Conv1d(2, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match=r"bound = 0\.0"):
        spectral_norm(nn.Linear(2, 2), 0.0)
    with pytest.raises(ValueError, match=r"iterations = 0"):
        spectral_norm(nn.Linear(2, 2), 1.0, 0)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "torch"])
def test_they_are_computed_once_a_solve(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4).double()

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.tanh(0.5 * self.linear(z) + u)

    torch.manual_seed(9)
    cell = Cell()
    if norm == "torch":
        parametrizations.spectral_norm(cell.linear)
    else:
        (weight_norm if norm == "weight_norm" else spectral_norm)(cell)
    kind, calls = type(cell.linear.parametrizations.weight[0]), []
    plain = kind.forward

    def counted(self: nn.Module, *tensors: Tensor) -> Any:
        calls.append(self)
        return plain(self, *tensors)

    monkeypatch.setattr(kind, "forward", counted)
    layer = DEQ(cell, solver=Anderson(), reltol=1e-6)
    z = layer(injection())
    z.sum().backward()
    assert layer.solution is not None
    assert layer.solution.stats.evaluations > 3
    assert len(calls) == 1
    for p in cell.linear.parametrizations.weight.parameters():
        assert p.grad is not None
