"""DEQ-TrellisNet: a trellis network of infinite depth, after Bai, Kolter and Koltun (2019).

A trellis network (Bai, Kolter, Koltun, ICLR 2019) is a causal convolution over time with the gates
of an LSTM, of which all levels share their weights and see the input. For the state z = [hid; cell]
and K taps (two in the publications)::

    e_t  = VD(E[x_t])                                  rows of E dropped, scaled, and variational
    u_t  = Σ_l V_l e_{t-K+1+l} + b                     the injection, computed once
    a_t  = u_t + Σ_l W_l VD(hid_{t-K+1+l}) + b'        both convolutions: weight norm, DropConnect
    i, o, g, f = a_t in this order;  σ(i), σ(o), tanh(g), σ(f)
    cell+_t = f cell_{t-1} + i g;    hid+_t = o tanh(cell+_t)
    logits_t = E VD(last channels of hid*_t) + c       the decoder shares the embedding's weights

Before the first token hid, cell and e are zero. A segment of a longer text begins where the one
before ended: what it remembers are the last K - 1 columns of z* and of e. The published code pads
the injection with zeros at each segment; here the equilibrium of the segments is that of the whole.

VD is dropout whose mask is the same for all times and all evaluations of a solve. DropConnect drops
entries of the direction v of the weight norm, at all taps but the last, once for a solve.

Time is the second axis, z is (B, T, 2 width): a matrix product with the K columns side by side is
as fast as a convolution on the CPU, and stays in float32 where a GPU's convolution would not.

Through time the Jacobian is block lower triangular, so its spectrum is that of the width × width
blocks ∂hid+_t / ∂hid_t, and zeros. What lies below the diagonal makes it strongly non-normal: the
spectral radius tells nothing of the T evaluations that information takes to go from the first token
to the last, at one step of time in each.

Left out of the published recipe: activation regularisation, the burn-in of a segment, for which the
equilibrium of the one before has no need, and the auxiliary losses of levels, which a DEQ has not.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from implicit.models import Memory, Model
from implicit.models.stack import Stack
from implicit.models.transformer import token_cross_entropy
from implicit.normalisation import VariationalDropout
from solvers.options import OptionError

__all__ = ["Cell", "Injection", "Readout", "Taps", "build"]

Probability = Annotated[float, Field(ge=0, lt=1)]


class Taps(nn.Linear):
    """A causal convolution over time: K tokens side by side -> one.

    The first columns of its weight are those of the oldest token.

    Parameters
    ----------
    inputs, outputs
        Channels.
    kernel
        The number of taps, K.
    gain
        The entries are N(0, gain² / (K inputs)), the bias is 0.
    normalised
        Whether the weight is W = g v / ‖v‖ per output channel.
    dropout
        The probability that an entry of v, or of W without norm, is dropped, at all taps but the
        last.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        gain: float,
        *,
        normalised: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(kernel * inputs, outputs)
        self.kernel = kernel
        nn.init.normal_(self.weight, std=gain / math.sqrt(kernel * inputs))
        nn.init.zeros_(self.bias)
        if normalised or dropout:
            # It is tried out when it is registered; a mask would take random numbers.
            weight = _Weight((kernel - 1) * inputs, normalised, dropout)
            parametrize.register_parametrization(self.eval(), "weight", weight)
            self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, T, outputs) for x (…, K - 1 + T, inputs)."""
        T = x.shape[-2] - self.kernel + 1
        columns = [x[..., k : k + T, :] for k in range(self.kernel)]
        return nn.functional.linear(torch.cat(columns, -1), self.weight, self.bias)


class _Weight(nn.Module):
    """The parametrisation of a convolution: weight norm of a direction with entries dropped."""

    def __init__(self, earlier: int, normalised: bool, dropout: float) -> None:
        super().__init__()
        self.earlier, self.normalised, self.dropout = earlier, normalised, dropout

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the weight of g (outputs, 1) and v, or of itself."""
        v = parts[-1]
        if self.training and self.dropout:
            earlier = nn.functional.dropout(v[:, : self.earlier], self.dropout)
            v = torch.cat([earlier, v[:, self.earlier :]], 1)
        weight: Tensor = v * (parts[0] / _norm(v)) if self.normalised else v
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return what is trained, of a weight."""
        return (_norm(weight), weight) if self.normalised else weight


def _norm(v: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return length


class Injection(nn.Module):
    """Codes x (B, T) -> the injection, and what the segment before left.

    Parameters
    ----------
    vocabulary, embedding
        Tokens, and channels of each.
    width
        Channels h of hid, and of cell.
    taps
        The convolution, (embedding -> 4 h).
    dropout, word_dropout
        Of the embedding's channels, for all times; of whole words, for all samples.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        width: int,
        taps: Taps,
        *,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.E = nn.Parameter(torch.empty(vocabulary, embedding).uniform_(-0.1, 0.1))
        self.taps, self.width = taps, width
        self.dropout = VariationalDropout(dropout, "features")
        self.word_dropout = word_dropout

    def forward(
        self, x: Tensor, history: Tensor | None = None, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return u (B, T, 4 h), history (B, K - 1, 2 h), and the last embeddings (B, K - 1, e).

        ``history`` and ``before`` are those columns of z* and e that the segment before left.
        """
        e = nn.functional.embedding(x, self.E)
        if self.training and self.word_dropout:
            words = nn.functional.dropout(torch.ones_like(self.E[:, :1]), self.word_dropout)
            e = e * words[x]
        e = self.dropout(e)
        padding = self.taps.kernel - 1
        if history is None or before is None:
            history = e.new_zeros(len(e), padding, 2 * self.width)
            before = e.new_zeros(len(e), padding, e.shape[-1])
        e = torch.cat([before, e], 1)
        return self.taps(e), history, e[:, e.shape[1] - padding :].detach().clone()


class Cell(nn.Module):
    """One level: state z = [hid; cell] (B, T, 2 h), injection u (B, T, 4 h).

    ``history`` (B, K - 1, 2 h) are the columns of the state before the first token.

    Parameters
    ----------
    width
        Channels h of hid, and of cell.
    taps
        The convolution, (h -> 4 h).
    dropout
        Of the channels of hid that the convolution reads, for all times.
    """

    def __init__(self, width: int, taps: Taps, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.taps = width, taps
        self.dropout = VariationalDropout(dropout, "features")

    def initial_state(self, u: Tensor, history: Tensor, last: Tensor | None = None) -> Tensor:
        """Return zeros (B, T, 2 h)."""
        return u.new_zeros(*u.shape[:-1], 2 * self.width)

    def forward(self, z: Tensor, u: Tensor, history: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the next state (B, T, 2 h). ``last`` is for the next segment, and not read."""
        h = self.width
        hid = torch.cat([history[..., :h], z[..., :h]], -2)
        earlier = torch.cat([history[..., -1:, h:], z[..., :-1, h:]], -2)
        i, o, g, f = (u + self.taps(self.dropout(hid))).chunk(4, -1)
        cell = f.sigmoid() * earlier + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * cell.tanh(), cell], -1)


class Readout(nn.Module):
    """z (B, T, 2 h) -> logits (B, T, V), of the last channels of hid.

    Parameters
    ----------
    W
        (V, outputs) the decoder's weights; tied, they are the embedding.
    width
        Channels h of hid.
    dropout
        Of the channels that it reads, for all times.
    """

    def __init__(self, W: nn.Parameter, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.W, self.width = W, width
        self.c = nn.Parameter(torch.zeros(len(W)))
        self.dropout = VariationalDropout(dropout, "features")

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits (B, T, V)."""
        hid = z[..., self.width - self.W.shape[1] : self.width]
        return nn.functional.linear(self.dropout(hid), self.W, self.c)


def build(
    *,
    vocabulary: Annotated[int, Field(ge=2)] | None = None,
    width: Annotated[int, Field(ge=1)] = 64,
    embedding: Annotated[int, Field(ge=1)] = 32,
    outputs: Annotated[int, Field(ge=1)] | None = None,
    kernel: Annotated[int, Field(ge=2)] = 2,
    layers: Annotated[int, Field(ge=1)] | None = None,
    tied: bool = True,
    weight_norm: bool = True,
    embedding_dropout: Probability = 0.0,
    input_dropout: Probability = 0.0,
    hidden_dropout: Probability = 0.0,
    output_dropout: Probability = 0.0,
    weight_dropout: Probability = 0.0,
    gain: Annotated[float, Field(gt=0)] = 0.5,
    injection: Annotated[float, Field(gt=0)] = 10.0,
) -> Model:
    """DEQ-TrellisNet: a causal convolution with an LSTM's gates, segments with memory.

    Entries of the K-tap convolutions are N(0, gain² / (K width)) and N(0, injection² / (K
    embedding)), biases 0, embeddings U(-0.1, 0.1).

    Evaluations grow with the length of a segment once the cell remembers: plain iteration hands
    each token's state on exactly, so it is done some evaluations after the last token is reached,
    and extrapolation from a window of states does not shorten that way. Measured on 16 texts of
    ``pydoc`` of T characters (float32, defaults; evaluations to a relative residual of 1e-3 as
    least, median, most over the samples; trained by 200 steps of Adam at 3e-3, of 16 texts each;
    3 seeds for T = 16, else 2):

    ===  =======  ==========  ==================  ===================
    T    weights  Picard      Anderson, window 6  Anderson, window 10
    ===  =======  ==========  ==================  ===================
    16   fresh    12, 13, 15  12, 12, 14          12, 12, 14
    16   trained  21, 22, 30  45, 59, 68          49, 56, 80
    32   fresh    13, 13, 16  12, 13, 15          12, 13, 15
    32   trained  35, 36, 41  51, 56, 83          51, 65, 84
    64   fresh    13, 14, 16  13, 13, 16          13, 13, 16
    64   trained  63, 66, 78  56, 67, 112         56, 72, 109
    ===  =======  ==========  ==================  ===================

    The adjoint of the trained cells took full GMRES 6 to 39 products, restarted at 12 up to 76.

    Parameters
    ----------
    vocabulary
        Number of tokens; left open, that of the data set, else 128.
    width
        Channels of hid, and of cell: the state of T tokens has 2 × width × T numbers.
    embedding
        Channels of a token.
    outputs
        The last channels of hid, which the decoder reads; left open, ``embedding`` of them if it is
        ``tied``, else all.
    kernel
        Taps of the convolutions.
    layers
        So many levels, each with weights of its own, instead of the equilibrium.
    tied
        Whether the decoder's weights are the embedding.
    weight_norm
        Whether both convolutions are normalised, by output channel.
    embedding_dropout
        Probability that a word is dropped, at all its places.
    input_dropout, hidden_dropout, output_dropout
        Probability that a channel is dropped, for all times: of the embedding, of hid before the
        convolution, of hid before the decoder.
    weight_dropout
        Probability that an entry of a convolution is dropped, at all taps but the last.
    gain
        Scale of the cell's weights.
    injection
        Scale of the injection.

    Raises
    ------
    OptionError
        If ``outputs`` are more than ``width``, or a tied decoder's are not as many as
        ``embedding``.
    """
    vocabulary = vocabulary or 128
    if outputs is None:
        outputs = embedding if tied else width
    if tied and outputs != embedding:
        raise OptionError(
            f"outputs = {outputs}: a tied decoder reads as many as embedding = {embedding};"
            " leave it out, or set tied=False"
        )
    if outputs > width:
        raise OptionError(f"outputs = {outputs}: at most width = {width}, of which they are some")

    def taps(inputs: int, gain: float) -> Taps:
        return Taps(inputs, 4 * width, kernel, gain, normalised=weight_norm, dropout=weight_dropout)

    inject = Injection(
        vocabulary,
        embedding,
        width,
        taps(embedding, injection),
        dropout=input_dropout,
        word_dropout=embedding_dropout,
    )
    cells = [Cell(width, taps(width, gain), hidden_dropout) for _ in range(layers or 1)]
    W = inject.E if tied else nn.Parameter(torch.empty(vocabulary, outputs).uniform_(-0.1, 0.1))
    return Model(
        inject=inject,
        cell=cells[0] if layers is None else Stack(cells),
        readout=Readout(W, width, output_dropout),
        loss=token_cross_entropy,
        data="pydoc",
        remember=remember,
        explicit=layers is not None,
        task="language",
    )


def remember(z: Tensor, args: tuple[Tensor, ...]) -> Memory:
    """Return the last columns of z* and of the embedding, (B, K - 1, ·)."""
    _, history, last = args
    columns = history.shape[1]
    return torch.cat([history, z[:, -columns:]], 1)[:, -columns:], last


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Bai, Kolter and Koltun, Deep Equilibrium Models, NeurIPS 2019 (arXiv:1909.01377); Trellis"
    " Networks for Sequence Modeling, ICLR 2019 (arXiv:1810.06682)"
)
