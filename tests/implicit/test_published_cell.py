"""A published cell, trained: a small MDEQ, several tensors in the state, dropout, two norms.

The cell is that of S. Bai, V. Koltun, J. Z. Kolter, Multiscale Deep Equilibrium Models (2020), with
two resolutions, few channels and expansion 2::

    a_i = relu(GN(WN conv3x3(z_i)))            b_i = GN(drop(WN conv3x3(a_i)) + x_i)
    y_i = GN(relu(b_i + z_i))
    s_1 = y_1 + up(GN(conv1x1(y_2)))           s_2 = y_2 + GN(conv3x3, stride 2(y_1))
    z_i = GN'(WN conv1x1(relu(s_i)))           GN' without parameters, x_2 = 0
"""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from implicit import DEQ, Implicit, Unrolled
from implicit.gradients import Gradient
from implicit.normalisation import VariationalDropout, weight_norm
from solvers import Anderson

WIDTHS = (4, 6)
# So tight that no relu of the million on the way is on other sides of its kink in two solves.
TOLERANCE = 1e-9


def norm(kind: str, channels: int, *, affine: bool = True) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    return nn.GroupNorm(2, channels, affine=affine)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Branch(nn.Module):
    """One residual block of one resolution."""

    def __init__(self, width: int, kind: str, p: float) -> None:
        super().__init__()
        self.one = weight_norm(conv(width, 2 * width))
        self.two = weight_norm(conv(2 * width, width))
        self.drop = VariationalDropout(p, "channels")
        self.norms = nn.ModuleList(norm(kind, n * width) for n in (2, 1, 1))

    def forward(self, z: Tensor, x: Tensor | float) -> Tensor:
        a = torch.relu(self.norms[0](self.one(z)))
        b = self.norms[1](self.drop(self.two(a)) + x)
        return self.norms[2](torch.relu(b + z))  # type: ignore[no-any-return]


class Cell(nn.Module):
    """Two branches, fused; the state is (B, 4, 8, 8), (B, 6, 4, 4)."""

    def __init__(self, kind: str, p: float = 0.2) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(width, kind, p) for width in WIDTHS)
        self.down = nn.Sequential(conv(*WIDTHS, stride=2), norm(kind, WIDTHS[1]))
        self.up = nn.Sequential(
            conv(*reversed(WIDTHS), size=1), norm(kind, WIDTHS[0]), nn.Upsample(scale_factor=2)
        )
        self.post = nn.ModuleList(
            nn.Sequential(weight_norm(conv(w, w, 1)), norm(kind, w, affine=False)) for w in WIDTHS
        )

    def initial_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), x.new_zeros(len(x), WIDTHS[1], 4, 4)

    def forward(self, z: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        one, two = (branch(z, x) for branch, z, x in zip(self.branches, z, (x, 0.0), strict=True))
        fused = one + self.up(two), two + self.down(one)
        return tuple(post(torch.relu(s)) for post, s in zip(self.post, fused, strict=True))


class Model(nn.Module):
    """Digits to classes."""

    def __init__(self, gradient: Gradient, kind: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(1, WIDTHS[0]), norm("group", WIDTHS[0]))
        self.equilibrium = DEQ(
            Cell(kind), solver=Anderson(window=10), gradient=gradient, reltol=TOLERANCE
        )
        self.readout = nn.Linear(sum(WIDTHS) * 16, 10)
        cell = self.equilibrium.cell
        # Fresh, the published cell has no equilibrium that is stable: that is what pre-training is
        # for. Here the injection outweighs the state from the start.
        for layer, gain in (
            (self.stem[1], 3.0),
            (cell.branches[0].norms[1], 6.0),
            (cell.branches[1].norms[2], 0.2),
            (cell.up[1], 0.2),
        ):
            nn.init.constant_(layer.weight, gain)

    def forward(self, images: Tensor) -> Tensor:
        one, two = self.equilibrium(self.stem(images))
        pooled = nn.functional.avg_pool2d(one, 2)
        return self.readout(torch.cat((pooled, two), dim=1).flatten(1))  # type: ignore[no-any-return]


def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 8 - 1, dtype=torch.float64).reshape(-1, 1, 8, 8)
    return x, torch.tensor(labels)


def trained(gradient: Gradient, kind: str, steps: int) -> tuple[list[float], Model]:
    """Train from one start, on one order of the data; return the losses and the model."""
    x, labels = digits()
    torch.manual_seed(0)
    model = Model(gradient, kind).double()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for step in range(steps):
        rows = torch.arange(8 * step, 8 * (step + 1))
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), labels[rows])
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        solution = model.equilibrium.solution
        assert solution is not None
        assert solution.success
    return losses, model


@pytest.mark.parametrize(("kind", "steps"), [("group", 100), ("batch", 10)])
def test_implicit_and_unrolled_train_alike(kind: str, steps: int) -> None:
    """Both gradients are exact up to the tolerance, each step from the other's parameters.

    They meet the same dropout masks, and batch statistics that were updated equally often.
    """
    implicit, one = trained(Implicit(reltol=TOLERANCE, max_products=200), kind, steps)
    unrolled, two = trained(Unrolled(), kind, steps)
    # A step's gradients differ by some 10 tolerances, which is 1 / (1 - rate); momentum makes a
    # step ten of them, at a rate of 0.01, and 100 steps add up: some 100 tolerances or more.
    assert implicit == pytest.approx(unrolled, abs=1000 * TOLERANCE)
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert float((p - q).detach().abs().max()) < 1000 * TOLERANCE, name
    for (name, p), q in zip(one.named_buffers(), two.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert int(p) == int(q) == steps
        else:
            assert torch.allclose(p, q, atol=1000 * TOLERANCE), name
    start, end = (sum(part) / 5 for part in (implicit[:5], implicit[-5:]))
    assert end < (0.4 if steps == 100 else 0.9) * start


def test_what_the_cell_is() -> None:
    """Several tensors in the state; samples are dropped, with their masks, where they may be."""
    torch.manual_seed(1)
    x, _ = digits()
    model = Model(Implicit(), "group").double()
    cell, sizes = model.equilibrium.cell, []
    cell.register_forward_pre_hook(lambda _, given: sizes.append(len(given[1])))
    z = model.equilibrium(model.stem(x[:8]))
    assert [tuple(t.shape) for t in z] == [(8, 4, 8, 8), (8, 6, 4, 4)]
    solution = model.equilibrium.solution
    assert solution is not None
    assert solution.samples_independent is True
    assert min(sizes) < 8
    coupled = Model(Implicit(), "batch").double()
    coupled(x[:8])
    assert coupled.equilibrium.solution is not None
    assert coupled.equilibrium.solution.samples_independent is False
