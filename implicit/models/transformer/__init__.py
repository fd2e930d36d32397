"""The causal DEQ-Transformer of Bai, Kolter and Koltun (2019), and its explicit twin.

One block, shared by all depths, with relative positions (Dai et al., Transformer-XL, 2019). For the
state z (B, T, d), the injection u, and of the m positions before the segment states z_h and
injections u_h, without a gradient::

    q       = W_q z + u_q                             u = W_inj e(x) + b_inj, computed once
    k, v    = W_kv [z_h; z] + [u_h; u]_kv             those of the history computed once too
    score_ij = ((q_i + a)·k_j + (q_i + b)·r_{i-j}) / sqrt(d / heads),  j <= i,   r = W_r P
    y  = LN(z + W_o (softmax(score) v) + b_o)
    z+ = LN(y + W_2 relu(W_1 y + b_1) + b_2)          post-LN
    z+ =     y + W_2 relu(W_1 y + b_1) + b_2          pre-LN, where [z_h; z] is LN'd before W_qkv

P are sinusoids of the distance, a and b one vector a head, LN has no parameters.

Of pre-LN there are two public variants. This is that of the authors' code, in which what is carried
past the network is normalised. In the other one (the cell of torchdeq's language model) it is not,
z+ = z + attention(LN(z)) + …: a state is at rest only where the branches cancel out, its size
does not matter to them, and the Jacobian's eigenvalues gather around 1.

Dropout masks are the same for a whole solve: of features, for all positions of a sample, behind
W_o, relu and W_2; of features of P, for all samples; of the attention, for each pair. Those of the
embedding and before the output are of features too (in the authors' code the latter drops whole
time steps, as the axes there are others). Weight norm is of the five weights of the block.

Attention is written with matrix products and an explicit softmax, not with torch's
``scaled_dot_product_attention``, whose additive mask the score at a distance would be. That mask
needs a gradient, which the fused kernels do not give; nor do they have second derivatives and
forward mode. Measured on a CPU (1 thread, float32, d = 64, 2 heads, 16 × 64 and 15 × 150
positions), attention would be 4 to 7 % faster without a graph, and 8 to 26 % slower with one.
"""

from __future__ import annotations

import functools
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from implicit.models import Model
from implicit.models.transformer import explicit
from implicit.models.transformer.cell import Cell, Layer, Norm
from implicit.models.transformer.embedding import (
    Embedding,
    Injection,
    SegmentEmbedding,
    SegmentInjection,
    Words,
    output,
    token_cross_entropy,
)
from solvers.options import OptionError

__all__ = ["Cell", "Injection", "build", "token_cross_entropy"]


def build(
    *,
    vocabulary: Annotated[int, Field(ge=2)] | None = None,
    length: Annotated[int, Field(ge=1)] | None = None,
    width: Annotated[int, Field(ge=2)] = 32,
    heads: Annotated[int, Field(ge=1)] = 2,
    inner: Annotated[int, Field(ge=1)] = 128,
    gain: Annotated[float, Field(ge=0)] = 0.5,
    injection: Annotated[float, Field(ge=0)] = 3.0,
    norm: Norm = "post",
    memory: Annotated[int, Field(ge=0)] = 0,
    window: Annotated[int, Field(ge=0)] = 0,
    layers: Annotated[int, Field(ge=1)] | None = None,
    weight_norm: bool = False,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    tied: bool = False,
    cutoffs: list[int] | None = None,
    divisor: Annotated[int, Field(ge=1)] = 4,
    initialisation: Annotated[float, Field(gt=0)] | None = None,
) -> Model:
    """Causal DEQ-Transformer: one block with relative positions, or its explicit twin.

    Weights with n inputs are N(0, gain² / n), biases 0, embeddings N(0, 1). The injection is
    N(0, injection² / width) into the values, and N(0, 1 / (16 width)) into queries and keys.

    Post-LN with weights as small as the published ones is nearly the identity: ρ, the spectral
    radius of the Jacobian, is near 1 and plain iteration crawls. It contracts by LN's division by
    the norm of state plus branch, so the injected values have to be large beside the state.
    ``injection`` is the dial of difficulty, larger is easier; a larger ``gain`` brings cycles and
    several fixed points.

    Measured on 5 seeds × 16 sequences (float64, fresh weights, ρ of 20 samples; evaluations to a
    relative residual of 1e-6 as least, median, most over the samples; Anderson with window 10):

    =========  ====  ==========  ============  ========================
    injection  gain  ρ           Picard        Anderson
    =========  ====  ==========  ============  ========================
    6          0.50  0.51..0.82  11, 27, 60    8, 14, 24
    3          0.50  0.69..0.93  17, 47, 115   10, 20, 36
    2          0.50  0.76..0.95  22, 65, 229   13, 27, 60
    3          0.75  0.66..0.96  15, 47, 168   11, 25, 51
    3          1.00  0.58..0.92  13, 54, 226   10 of 80 not in 200
    =========  ====  ==========  ============  ========================

    Sequences of 32 cost the same (Picard 17, 54, 114). So does pre-LN (31, 54, 100; Anderson 15,
    24, 36); with 16 remembered positions it is somewhat more (33, 61, 195; 15, 25, 53).

    The published model of WikiText-103 ("medium, adaptive") has width 700, 10 heads, inner 48000,
    norm post, memory and length 150, window 1000, weight norm, dropout and embedding dropout 0.05,
    tied, cutoffs 20000, 40000, 200000 with divisor 4 and initialisation 0.01: 97,691,888
    parameters, of which 69,753,000 in the cell. It is often counted as 97.9 million: in the public
    code the 159,600 of the tied projections are parameters twice.

    The explicit twin (``layers``) is a Transformer-XL of the same blocks with weights of their own,
    from z_0 = e(x), without W_inj and injection, each layer with the history of its own input. With
    pre-LN, layers are z + attention(LN(z)), y + network(LN(y)), and LN is the last step. A block
    has 5 d² + 4 d + (2 d + 1) inner parameters, and the injection, of the equilibrium alone,
    3 d² + 3 d. ``gain`` 1 and learning rates of its own are fair to it.

    Parameters
    ----------
    vocabulary
        Number of characters; left open, that of the data set, else 128. With ``cutoffs``, codes are
        in the order of their frequency.
    length
        The longest sequence, in characters, likewise, else 16; of text in segments, a segment.
    width
        Channels of the state; a sample's state has length × width numbers.
    heads
        Attention heads; they divide ``width``.
    inner
        Hidden units of the position-wise network.
    gain
        Scale of the cell's weights.
    injection
        Scale of the injection into the values.
    norm
        Post-LN or pre-LN.
    memory
        The most positions of earlier segments that are remembered, with z* and u; 0 for none.
    window
        How many positions, its own among them, a query sees; 0 for all.
    layers
        So many layers with weights of their own, rather than an equilibrium.
    weight_norm
        Whether the weights of the block are g v / ‖v‖ for each output channel.
    dropout, attention_dropout, embedding_dropout
        Probabilities of dropout: of the block and before the output, of the attention's weights, of
        the embedding.
    tied
        Whether the output uses the table of the embedding; then the entries of that are
        N(0, 1 / width), and the embedding is multiplied by sqrt(width).
    cutoffs, divisor
        Adaptive embedding and softmax (:mod:`implicit.models.adaptive`): the first code of each
        group but the most frequent one, and by how much smaller each group's embeddings are.
    initialisation
        σ of the published start: weights N(0, σ²), with 0.05 in the paper and 0.01 in its code, in
        place of ``gain`` and ``injection``. As in that code, weights with weight norm are uniform
        between ± 1 / sqrt(n), for n inputs.

    Raises
    ------
    OptionError
        If ``heads`` does not divide ``width``, or ``cutoffs`` are out of order or of range.
    """
    vocabulary, length = vocabulary or 128, length or 16
    if width % heads:
        raise OptionError(f"heads = {heads}: must divide width = {width}")
    words = Words(
        vocabulary,
        width,
        tied,
        None if cutoffs is None else tuple(cutoffs),
        divisor,
        embedding_dropout,
        dropout,
        initialisation,
    )

    def block(kind: type[Cell]) -> Cell:
        return kind(
            width,
            heads,
            inner,
            length,
            gain,
            norm=norm,
            memory=memory,
            window=window,
            weight_norm=weight_norm,
            dropout=dropout,
            attention_dropout=attention_dropout,
            initialisation=initialisation,
        )

    if layers is not None:
        return _explicit(words, [block(Layer) for _ in range(layers)], memory)
    inject: Injection
    if memory:
        inject = SegmentInjection(words, injection)
        cell = block(Cell)
        inject.attach(cell)
    else:
        inject, cell = Injection(words, injection), block(Cell)
    readout, loss = output(words, inject)
    return Model(
        inject=inject,
        cell=cell,
        readout=readout,
        loss=loss,
        data="pydoc",
        remember=functools.partial(_remember, memory) if memory else None,
        task="language",
    )


def _explicit(words: Words, layers: list[Cell], memory: int) -> Model:
    embedding = SegmentEmbedding(words, len(layers)) if memory else Embedding(words)
    readout, loss = output(words, embedding)
    return Model(
        inject=embedding,
        cell=explicit.Layers(layers),
        readout=nn.Sequential(explicit.Outermost(), readout) if memory else readout,
        loss=loss,
        data="pydoc",
        remember=functools.partial(explicit.remember, memory) if memory else None,
        explicit=True,
        task="language",
    )


def _remember(memory: int, z: Tensor, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the states and injections of the last ``memory`` positions."""
    u, z_h, u_h, _ = args
    pairs = ((z_h, z), (u_h, u))
    return tuple(torch.cat(pair, dim=1)[:, -memory:] for pair in pairs)


build.reference = (  # type: ignore[attr-defined]  # printed by `deq models`
    "Bai, Kolter and Koltun, Deep Equilibrium Models, NeurIPS 2019 (arXiv:1909.01377); relative"
    " positions: Dai et al., Transformer-XL, ACL 2019 (arXiv:1901.02860)"
)
