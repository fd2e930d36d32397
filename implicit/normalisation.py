"""Normalised weights and dropout for equilibria: the same for a whole solve.

    weight norm          W = g v / ‖v‖ per output channel, g and v trained
    spectral bound       W = V min(1, b / σ(V)), so that the layer is b-Lipschitz
    variational dropout  x m / (1 − p), with a mask m ~ Bernoulli(1 − p) that stays

Weight and spectral normalisation are parametrisations of torch. A solve computes them once, not at
each of its evaluations, and sends their gradient on to what they are computed from: that holds for
each of ``torch.nn.utils.parametrizations`` and for your own. The functions here apply them to all
linear and convolutional layers of a cell.

Reference: T. Salimans, D. P. Kingma, NeurIPS (2016); T. Miyato et al., ICLR (2018); Y. Gal,
Z. Ghahramani, NeurIPS (2016); for equilibria S. Bai, J. Z. Kolter, V. Koltun (2019), section 4.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from implicit.steady import mask

__all__ = ["SpectralBound", "VariationalDropout", "spectral_norm", "weight_norm"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Shape = Literal["channels", "features", "elements"]
# The power iteration of a fresh weight; later ones go on from where the last one was.
FIRST_ITERATIONS = 30


class VariationalDropout(nn.Module):
    """Dropout of which the mask is drawn once for a solve: its evaluations and backward share it.

    Samples that the loop drops take their masks with them. Outside of a solve the mask is a fresh
    one at each call, and in ``eval()`` nothing is dropped. A module that is called several times
    by the function uses one mask for tensors of the same shape.

    Plain ``torch.nn.Dropout`` is constant for a solve too, but by drawing its numbers again, for
    all samples, at every evaluation.

    Parameters
    ----------
    p
        The probability that a number is dropped.
    shape
        The mask for x (B, C, …): ``channels`` has (B, C, 1, …), for (B, C, H, W) and for
        sequences (B, d, T); ``features`` has (B, 1, …, d), for sequences (B, T, d); ``elements``
        has that of x. The first axis is that of the samples.

    Raises
    ------
    ValueError
        If ``p`` is no probability, or ``shape`` none of these.
    """

    def __init__(self, p: float = 0.5, shape: Shape = "channels") -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p = {p}: a probability is from 0 to 1")
        if shape not in ("channels", "features", "elements"):
            raise ValueError(f"shape = {shape!r}: allowed are 'channels', 'features', 'elements'")
        self.p, self.shape = p, shape

    def forward(self, x: Tensor) -> Tensor:
        """Return x with some of it dropped, and the rest scaled by 1 / (1 − p)."""
        if not self.training or self.p == 0:
            return x
        sizes = list(x.shape)
        kept = {"channels": (0, 1), "features": (0, x.dim() - 1), "elements": range(x.dim())}
        shape = torch.Size(n if k in kept[self.shape] else 1 for k, n in enumerate(sizes))
        scaled: Tensor = mask(self, shape, lambda shape: self._drawn(x, shape))
        return x * scaled.to(x.dtype)

    def _drawn(self, x: Tensor, shape: torch.Size) -> Tensor:
        drawn = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return drawn.div_(1 - self.p) if self.p < 1 else drawn

    def extra_repr(self) -> str:
        """Show the probability and the shape of the mask."""
        return f"p={self.p}, shape={self.shape!r}"


class SpectralBound(nn.Module):
    """The parametrisation W = V min(1, b / σ(V)): a weight of at most this spectral norm.

    Unlike ``torch.nn.utils.parametrizations.spectral_norm``, which sets the norm to 1, it leaves
    weights alone that are within the bound.

    Parameters
    ----------
    weight
        The weight; its first axis is that of the output channels, as of a matrix.
    bound
        The largest spectral norm b of the matrix (output channels, all the rest).
    iterations
        Steps of the power iteration in each forward in training, each from where the last one
        was: σ is a little low while the weight changes. ``None`` computes it exactly, by singular
        values; derivatives of higher order are exact only so.
    """

    u: Tensor

    def __init__(self, weight: Tensor, bound: float = 1.0, iterations: int | None = 1) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound = {bound}: must be above 0")
        if iterations is not None and iterations < 1:
            raise ValueError(f"iterations = {iterations}: at least 1, or None for the exact norm")
        self.bound, self.iterations = bound, iterations
        matrix = weight.detach().flatten(1)
        u = torch.nn.functional.normalize(matrix.new_empty(len(matrix)).normal_(), dim=0)
        self.register_buffer("u", u)
        if iterations is not None:
            self._iterate(matrix, FIRST_ITERATIONS)

    def _iterate(self, matrix: Tensor, steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                v = torch.nn.functional.normalize(matrix.mT @ self.u, dim=0)
                self.u.copy_(torch.nn.functional.normalize(matrix @ v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight within the bound."""
        matrix = weight.flatten(1)
        if self.iterations is None:
            sigma = torch.linalg.matrix_norm(matrix, 2)
        else:
            if self.training:
                self._iterate(matrix, self.iterations)
            u = self.u.clone()  # a later forward changes it in place
            with torch.no_grad():
                v = torch.nn.functional.normalize(matrix.mT @ u, dim=0)
            sigma = u @ matrix @ v
        bounded: Tensor = weight * (self.bound / sigma.clamp_min(self.bound))
        return bounded

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight itself, for one that is assigned is to be bounded as it is."""
        return weight


def weight_norm(module: AnyModule) -> AnyModule:
    """Normalise the weights of all linear and convolutional layers by output channel.

    That is ``torch.nn.utils.parametrizations.weight_norm`` with the axis of the output channels,
    for the module itself and all within it that have no parametrised weight yet.

    >>> cell.conv = weight_norm(nn.Conv2d(8, 8, 3, padding=1))
    """
    for layer, axis in _layers(module):
        parametrizations.weight_norm(layer, "weight", dim=axis)
    return module


def spectral_norm(module: AnyModule, bound: float = 1.0, iterations: int | None = 1) -> AnyModule:
    """Bound the Lipschitz constant, in the 2-norm, of each linear and convolutional layer.

    A linear layer's is the spectral norm of its weight. A convolution's is at most √n times that of
    its weight as a matrix (output channels, all the rest), if no number of its input is in more
    than n of the patches that it looks at: that bound is used. Weights within it stay as they are.
    Layers that have a parametrised weight already are left out.

    Parameters
    ----------
    module
        A layer, or a module with some within it.
    bound
        The largest Lipschitz constant of a layer.
    iterations
        As in :class:`SpectralBound`.

    Raises
    ------
    TypeError
        If there is a transposed convolution, or one that pads with numbers of its input, of which
        this knows no bound.

    Notes
    -----
    Reference: Y. Yoshida, T. Miyato (2017); Y. Tsuzuku, I. Sato, M. Sugiyama, NeurIPS (2018),
    theorem on convolutions.
    """
    layers = _layers(module)
    for layer, axis in layers:
        if axis or getattr(layer, "padding_mode", "zeros") not in ("zeros", "circular"):
            raise TypeError(
                f"spectral_norm knows no bound for {layer}: use a convolution padded with zeros"
                " (behind nn.Upsample for a transposed one), or leave that layer out"
            )
    for layer, _ in layers:
        assert isinstance(layer.weight, Tensor)
        within = bound / math.sqrt(_patches(layer))
        normalised = SpectralBound(layer.weight, within, iterations)
        parametrize.register_parametrization(layer, "weight", normalised)
    return module


def _patches(layer: nn.Module) -> int:
    """Return in how many patches of a convolution a number of its input is at most."""
    if not isinstance(layer, _CONVOLUTIONS):
        return 1
    axes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    # Taps that meet the same number are a multiple of the stride apart.
    return math.prod(-(-taps // (step // math.gcd(step, apart))) for taps, step, apart in axes)


def _layers(module: nn.Module) -> list[tuple[nn.Module, int]]:
    """Return the layers with a weight to normalise, and the axis of its output channels."""
    found: list[tuple[nn.Module, int]] = []
    for layer in module.modules():
        axis = 1 if isinstance(layer, _TRANSPOSED) else 0
        kinds = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)
        if isinstance(layer, kinds) and not parametrize.is_parametrized(layer, "weight"):
            found.append((layer, axis))
    return found
