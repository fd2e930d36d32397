"""The multiscale equilibrium of Bai, Koltun and Kolter (2020): images at several resolutions.

The state is a tuple of tensors z_i (B, c_i, H / 2^i, W / 2^i), i = 0, 1, …, solved for together.
GN is group norm, WN(W) = g v / ‖v‖ by output channel, VD variational dropout by channel, and all
convolutions are without bias. One evaluation is::

    a_i = relu(GN(WN conv3x3(z_i; c_i → 5 c_i)))
    b_i = GN(VD(WN conv3x3(a_i; 5 c_i → c_i)) + x_i)          the injection; x_i = 0 for i > 0
    y_i = GN(relu(b_i + z_i))
    s_i = y_i + Σ_{j<i} down_ji(y_j) + Σ_{j>i} up_ji(y_j)
    z_i = GN'(WN conv1x1(relu(s_i)))                          GN' has half the groups, no parameters

    down_ji   i − j times conv3x3 of stride 2 and GN, relu between; the last one changes c_j to c_i
    up_ji     conv1x1, GN, each pixel repeated 2^{j−i} times on both axes

The stem, which makes x_0 of the image, is outside of the cell, and so is the head: both have batch
norm, which would couple the samples of an equilibrium.

The public codes disagree on what is affine and on initial values. This follows the later one, of
"Stabilizing Equilibrium Models by Jacobian Regularization" (2021): convolutions are N(0, 0.01²),
except those with weight norm, of which that code draws the product alone, so that g and v keep
torch's own initial values. One thing is not published: the initial weights of some of the group
norms, without which hardly a solver finds an equilibrium of a fresh cell (see ``build``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from implicit.models import Model
from implicit.normalisation import VariationalDropout, weight_norm
from solvers.options import OptionError

__all__ = ["Cell", "Classifier", "Segmenter", "Stem", "build"]

Count = Annotated[int, Field(ge=1)]
Channels = Annotated[tuple[Count, ...], Field(min_length=1)]

HEAD_EXPANSION = 4  # of the bottlenecks in the head
STANDARD_DEVIATION = 0.01  # of the initial weights behind which there is a norm


class Conv(nn.Conv2d):
    """A convolution without bias, padded so that stride 1 keeps the size, in its input's dtype.

    Under autocast the product alone is of low precision: norms and sums go on in the state's.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, *, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, of x's dtype."""
        return super().forward(x).to(x.dtype)


class Up(nn.Module):
    """Each pixel ``factor`` times on both axes.

    That is ``torch.nn.Upsample``, of which the derivative is deterministic on every device.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return x (…, H, W) as (…, factor H, factor W)."""
        n = self.factor
        wide = x[..., :, None, :, None].expand(*x.shape[:-1], n, x.shape[-1], n)
        return wide.reshape(*x.shape[:-2], n * x.shape[-2], n * x.shape[-1])


class Block(nn.Module):
    """The residual block of one resolution: z_i, x_i -> y_i."""

    def __init__(self, channels: int, expansion: int, groups: int, dropout: float) -> None:
        super().__init__()
        inner = expansion * channels
        self.widen = Conv(channels, inner)
        self.widened = nn.GroupNorm(groups, inner)
        self.narrow = Conv(inner, channels)
        self.drop = VariationalDropout(dropout, "channels")
        self.injected = nn.GroupNorm(groups, channels)
        self.added = nn.GroupNorm(groups, channels)

    def forward(self, z: Tensor, x: Tensor | None) -> Tensor:
        """Return y (B, c, H, W); no injection is one of zeros."""
        b = self.drop(self.narrow(torch.relu(self.widened(self.widen(z)))))
        b = self.injected(b if x is None else b + x)
        y: Tensor = self.added(torch.relu(b + z))
        return y


def _down(inputs: int, outputs: int, times: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for left in reversed(range(times)):
        channels = inputs if left else outputs
        layers += [Conv(inputs, channels, stride=2), nn.GroupNorm(groups, channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _up(inputs: int, outputs: int, times: int, groups: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, outputs, 1), nn.GroupNorm(groups, outputs), Up(2**times))


class Cell(nn.Module):
    """One evaluation: state (B, c_i, H / 2^i, W / 2^i) for each i, injection x_0 (B, c_0, H, W).

    Parameters
    ----------
    branches
        Channels of the resolutions, the finest first.
    expansion
        A block has so many times its channels inside.
    groups
        Groups of the norms within; the last one has half of them.
    dropout
        Probability that a channel of a block is dropped, for a whole solve.
    normalise
        Weight norm of the blocks and of the last convolutions.
    affine
        Whether the last norm has parameters.
    injection, feedback
        Initial weights of group norms, as :func:`build` has them.
    """

    def __init__(
        self,
        branches: Sequence[int],
        *,
        expansion: int,
        groups: int,
        dropout: float,
        normalise: bool,
        affine: bool,
        injection: float,
        feedback: float,
    ) -> None:
        super().__init__()
        count = len(branches)
        self.channels = tuple(branches)
        self.blocks = nn.ModuleList(Block(c, expansion, groups, dropout) for c in branches)
        self.fusions = nn.ModuleDict(
            {
                _name(j, i): (_down if j < i else _up)(branches[j], branches[i], abs(i - j), groups)
                for i in range(count)
                for j in range(count)
                if j != i
            }
        )
        self.mixers = nn.ModuleList(Conv(c, c, 1) for c in branches)
        last = max(1, groups // 2)
        self.norms = nn.ModuleList(nn.GroupNorm(last, c, affine=affine) for c in branches)
        _initialise(self.fusions if normalise else self)
        first, *others = cast(Sequence[Block], self.blocks)
        nn.init.constant_(first.injected.weight, injection)
        back = [self.fusions[_name(j, i)] for j in range(count) for i in range(j)]
        for norm in (*(b.added for b in others), *(_group_norm(up) for up in back)):
            nn.init.constant_(norm.weight, feedback)
        if normalise:
            weight_norm(self.blocks)
            weight_norm(self.mixers)

    def initial_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros."""
        *batch, _, height, width = x.shape
        return tuple(
            x.new_zeros(*batch, c, height >> i, width >> i) for i, c in enumerate(self.channels)
        )

    def forward(self, z: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        """Return the next state."""
        if x.dim() == 3:  # one sample, without its axis, as under vmap
            return tuple(t[0] for t in self(tuple(t[None] for t in z), x[None]))
        count = len(self.channels)
        y = [block(z[i], x if i == 0 else None) for i, block in enumerate(self.blocks)]
        after = []
        for i in range(count):
            s = y[i]
            for j in range(count):
                if j != i:
                    s = s + self.fusions[_name(j, i)](y[j])
            after.append(self.norms[i](self.mixers[i](torch.relu(s))))
        return tuple(after)


def _name(source: int, target: int) -> str:
    return f"{source}_{target}"


def _group_norm(module: nn.Module) -> nn.GroupNorm:
    return next(m for m in module.modules() if isinstance(m, nn.GroupNorm))


class Stem(nn.Module):
    """Images (B, channels · size · size) -> x_0 (B, c, H, W), H = W = size / 2^halvings.

    At least two convolutions 3x3, the first ``halvings`` of which have stride 2, each followed by
    batch norm and relu; with ``mix`` a convolution 1x1 more.
    """

    def __init__(
        self, channels: int, size: int, width: int, *, halvings: int, mix: bool, injection: float
    ) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        layers: list[nn.Module] = []
        for k in range(max(2, halvings)):
            inputs = width if k else channels
            layers += _normed(Conv(inputs, width, stride=2 if k < halvings else 1))
        if mix:
            layers += _normed(Conv(width, width, 1))
        self.layers = nn.Sequential(*layers)
        _initialise(self)
        *_, last, _ = layers
        nn.init.constant_(cast(nn.BatchNorm2d, last).weight, injection)

    def forward(self, x: Tensor) -> Tensor:
        """Return x_0.

        Raises
        ------
        ValueError
            If the images have another size.
        """
        if math.prod(x.shape[1:]) != math.prod(self.shape):
            raise ValueError(
                f"x has {math.prod(x.shape[1:])} numbers a sample: this model was built for images"
                " of {} × {} × {} (options channels and size)".format(*self.shape)
            )
        image: Tensor = self.layers(x.reshape(len(x), *self.shape))
        return image


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 beside a shortcut, for the head: c -> 4 · width channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        outputs = HEAD_EXPANSION * width
        self.residual = nn.Sequential(
            *_normed(Conv(channels, width, 1), affine=False),
            *_normed(Conv(width, width), affine=False),
            *_normed(Conv(width, outputs, 1), affine=False)[:-1],
        )
        self.shortcut = nn.Sequential()
        if channels != outputs:
            self.shortcut.extend(_normed(Conv(channels, outputs, 1))[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """Return (B, 4 · width, H, W)."""
        return torch.relu(self.residual(z) + self.shortcut(z))


class Classifier(nn.Module):
    """State -> logits (B, classes): each resolution widened, from fine to coarse, then pooled."""

    def __init__(
        self, branches: Sequence[int], widths: Sequence[int], final: int, classes: int
    ) -> None:
        super().__init__()
        outputs = [HEAD_EXPANSION * w for w in widths]
        self.widened = nn.ModuleList(map(Bottleneck, branches, widths))
        self.down = nn.ModuleList(
            nn.Sequential(*_normed(Conv(fine, coarse, stride=2, bias=True)))
            for fine, coarse in itertools.pairwise(outputs)
        )
        self.final = nn.Sequential(*_normed(Conv(outputs[-1], final, 1, bias=True)))
        self.linear = nn.Linear(final, classes)
        _initialise(self)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the logits."""
        h = self.widened[0](z[0])
        for down, widened, coarse in zip(self.down, self.widened[1:], z[1:], strict=True):
            h = widened(coarse) + down(h)
        logits: Tensor = self.linear(self.final(h).mean(dim=(2, 3)))
        return logits


class Segmenter(nn.Module):
    """State -> logits (B, classes, size, size): all resolutions beside each other, at the finest.

    Interpolation is bilinear with aligned corners, as published, and once more behind the last
    convolution if the stem has halved the image.
    """

    def __init__(self, branches: Sequence[int], classes: int, size: int) -> None:
        super().__init__()
        self.size = size
        total = sum(branches)
        self.layers = nn.Sequential(
            *_normed(Conv(total, total, 1, bias=True), momentum=0.01),
            Conv(total, classes, 1, bias=True),
        )
        _initialise(self)

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the logits."""
        finest = z[0].shape[-1]
        h = self.layers(torch.cat([_resized(t, finest) for t in z], dim=1))
        return _resized(h, self.size)


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    return nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=True)


def _normed(conv: Conv, *, affine: bool = True, momentum: float = 0.1) -> list[nn.Module]:
    """Return the convolution, batch norm and relu."""
    return [conv, nn.BatchNorm2d(conv.out_channels, momentum=momentum, affine=affine), nn.ReLU()]


def _initialise(module: nn.Module) -> None:
    """Draw the convolutions within, their biases too."""
    for conv in _convolutions(module):
        nn.init.normal_(conv.weight, std=STANDARD_DEVIATION)
        if conv.bias is not None:
            nn.init.normal_(conv.bias, std=STANDARD_DEVIATION)


def _convolutions(module: nn.Module) -> Iterator[Conv]:
    return (m for m in module.modules() if isinstance(m, Conv))


def build(
    *,
    branches: Channels = (16, 16),
    channels: Count | None = None,
    size: Count | None = None,
    classes: Annotated[int, Field(ge=2)] | None = None,
    expansion: Count = 5,
    groups: Count = 8,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    weight_norm: bool = True,
    affine: bool = False,
    halvings: Annotated[int, Field(ge=0)] = 0,
    mix: bool | None = None,
    injection: Annotated[float, Field(gt=0)] = 2.5,
    feedback: Annotated[float, Field(gt=0)] = 0.2,
    head: Literal["classification", "segmentation"] = "classification",
    head_channels: Channels | None = None,
    final: Count = 64,
) -> Model:
    """Multiscale equilibrium of images: several resolutions, solved for together, and a head.

    Two models of the paper, for CIFAR-10, are ``channels=3, size=32, injection=1, feedback=1`` and

    =====  ==================  ================  =====  =======  ==========  =========
    name   branches            head_channels     final  dropout  parameters  of the cell
    =====  ==================  ================  =====  =======  ==========  =========
    TINY   24, 24              8, 16             200    0.25     158,890     111,696
    LARGE  32, 64, 128, 256    14, 28, 56, 112   1680   0.3      11,097,438  8,715,232
    =====  ==================  ================  =====  =======  ==========  =========

    With these published initial values hardly a solver finds an equilibrium of a fresh cell: the
    paper trains first as a network of few layers. ``injection`` and ``feedback`` are the dials, by
    which the image outweighs the state at the start. Measured on 5 seeds × 16 digits (float64,
    fresh weights; evaluations to a relative residual of 1e-3 as least, median, most over the
    samples, and how many of 80 were not there in 100; ρ is the spectral radius where Broyden ended,
    by 60 products of the power iteration; Anderson with window 6):

    =========  ========  ==========  ================  ==============  ==============
    injection  feedback  ρ           Picard            Anderson        Broyden
    =========  ========  ==========  ================  ==============  ==============
    2.5        0.2       0.44..0.90  9, 13, 43         9, 10, 12       9, 10, 12
    2.5        0.4       0.57..1.33  12, 20, –, 10     11, 14, 26      11, 15, 67
    1.5        0.2       0.87..1.76  33, –, –, 66      15, 19, 49      15, 20, 34
    1          1         1.06..2.66  –, –, –, 80       57, –, –, 76    53, –, –, 63
    =========  ========  ==========  ================  ==============  ==============

    Parameters
    ----------
    branches
        Channels of each resolution, the finest first; the next has half as many pixels on each
        axis.
    channels, size
        Of the images, x (B, channels · size · size); left open, those of the data set, else the
        1 and 8 of ``digits``. Pixels are expected of the order of 1.
    classes
        Number of classes, likewise, else 10.
    expansion
        A block has so many times its channels inside.
    groups
        Groups of the group norms, 1 or even; the last norm of an evaluation has half of them.
    dropout
        Probability that a channel of a block is dropped, for a whole solve.
    weight_norm
        Weight norm of all convolutions of the cell but the fusion's.
    affine
        Whether the last norm of an evaluation has parameters.
    halvings
        Convolutions of the stem with stride 2.
    mix
        Whether the stem ends with a convolution 1x1; left open, as published: with more than two
        resolutions, or if it halves the image.
    injection
        Initial weights of the stem's last norm, and of the norm behind the sum with x_0.
    feedback
        Initial weights of the norms by which coarse resolutions depend on themselves, and fine ones
        on them.
    head
        ``classification`` has logits (B, classes), ``segmentation`` (B, classes, size, size) for
        targets (B, size, size). The loss is the cross entropy in nats, the mean over all pixels.
    head_channels
        Widths of the classifier's bottlenecks, which have 4 times as many outputs; left open, half
        of the branches'. Segmentation has none.
    final
        Channels that the classifier pools.

    Raises
    ------
    OptionError
        If the image cannot be halved so often, or groups or widths do not fit the branches.
    """
    channels, size, classes = channels or 1, size or 8, classes or 10
    widths = head_channels or tuple(max(1, c // 2) for c in branches)
    _check(branches, size, groups, halvings, widths)
    mix = (halvings > 0 or len(branches) > 2) if mix is None else mix
    return Model(
        inject=Stem(channels, size, branches[0], halvings=halvings, mix=mix, injection=injection),
        cell=Cell(
            branches,
            expansion=expansion,
            groups=groups,
            dropout=dropout,
            normalise=weight_norm,
            affine=affine,
            injection=injection,
            feedback=feedback,
        ),
        readout=(
            Classifier(branches, widths, final, classes)
            if head == "classification"
            else Segmenter(branches, classes, size)
        ),
        loss=nn.functional.cross_entropy,
        data="digits" if head == "classification" else None,
        task=head,
    )


def _check(
    branches: tuple[int, ...], size: int, groups: int, halvings: int, widths: tuple[int, ...]
) -> None:
    """Raise if the sizes do not fit one another."""
    factor = 2 ** (halvings + len(branches) - 1)
    if size % factor:
        raise OptionError(
            f"size = {size}: {len(branches)} resolutions behind {halvings} halvings need a multiple"
            f" of {factor}; pad or crop the images, or take fewer branches"
        )
    if groups > 1 and groups % 2:
        raise OptionError(f"groups = {groups}: must be 1 or even, for the last norm has half of it")
    for c in branches:
        if c % groups:
            raise OptionError(
                f"groups = {groups}: must divide each of branches = {list(branches)};"
                f" {math.gcd(groups, *branches)} does"
            )
    pixels = (size // factor) ** 2
    if pixels == 1 and groups in branches:
        raise OptionError(
            f"groups = {groups}: where the image is a single pixel, a group of branches ="
            f" {list(branches)} is a single number, and nothing is left of it without its mean;"
            f" take {max(1, groups // 2)}, or fewer branches"
        )
    if len(widths) != len(branches):
        raise OptionError(
            f"head_channels = {list(widths)}: needs one width for each of branches ="
            f" {list(branches)}, or leave it out"
        )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Bai, Koltun and Kolter, Multiscale Deep Equilibrium Models, NeurIPS 2020 (arXiv:2006.08656)"
)
