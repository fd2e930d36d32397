"""From codes to the arguments of a cell: embedding, injection and history; and back to codes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from implicit.models.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from implicit.models.transformer.cell import Cell, normal
from implicit.normalisation import VariationalDropout

__all__ = [
    "Embedding", "Injection", "SegmentEmbedding", "SegmentInjection", "Words", "output",
    "token_cross_entropy",
]  # fmt: skip

# Queries and keys see a quarter of the embedding: a sharp softmax jumps between positions, and the
# map then has several fixed points or none that is stable.
QUERY_KEY_INJECTION = 0.25


@dataclasses.dataclass(frozen=True)
class Words:
    """How codes are embedded and predicted.

    Parameters
    ----------
    vocabulary, width
        Number of codes, and channels of the state.
    tied
        Whether the output uses the table of the embedding.
    cutoffs, divisor
        Of adaptive embedding and softmax, if there are some.
    embedding_dropout, dropout
        Of the embedding's features, and of those that the output sees.
    std
        As published: all weights are N(0, std²).
    """

    vocabulary: int
    width: int
    tied: bool = False
    cutoffs: tuple[int, ...] | None = None
    divisor: int = 4
    embedding_dropout: float = 0.0
    dropout: float = 0.0
    std: float | None = None


class Embedding(nn.Module):
    """Codes x (B, T) -> embeddings e (B, T, width), near N(0, 1) unless ``std`` is given.

    A table that is the output's too has entries for that, and what is read from it is multiplied
    by sqrt(width); so are published and adaptive ones.
    """

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.scale = 1.0
        if words.cutoffs is not None:
            self.adaptive = AdaptiveEmbedding(
                words.vocabulary, words.width, words.cutoffs, divisor=words.divisor, std=words.std
            )
        else:
            self.E = nn.Parameter(torch.randn(words.vocabulary, words.width))
            if words.tied or words.std is not None:
                self.scale = math.sqrt(words.width)
                with torch.no_grad():
                    self.E.mul_(words.std or 1 / self.scale)
        self.drop = VariationalDropout(words.embedding_dropout, "features")

    def embedded(self, x: Tensor) -> Tensor:
        """Return the embeddings (B, T, width)."""
        if hasattr(self, "adaptive"):
            e = self.adaptive(x)
        else:
            e = nn.functional.embedding(x, self.E)
            e = e if self.scale == 1 else self.scale * e
        dropped: Tensor = self.drop(e)
        return dropped

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings (B, T, width)."""
        return self.embedded(x)


class SegmentEmbedding(Embedding):
    """(x, h_1, …, h_L) -> (e, h_1, …, h_L), for L layers, the histories of their inputs.

    Without histories they are of length 0.
    """

    def __init__(self, words: Words, layers: int) -> None:
        super().__init__(words)
        self.layers = layers

    def forward(self, x: Tensor, *history: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the embeddings (B, T, width) and the histories (B, m, width)."""
        e = self.embedded(x)
        return e, *(history or self.layers * (e.new_zeros(e.shape[0], 0, e.shape[2]),))


class Injection(Embedding):
    """Codes x (B, T) -> u (B, T, 3 width): the embedding's share of queries, keys and values.

    Parameters
    ----------
    words
        How codes are embedded.
    injection
        W is N(0, injection² / width) for the values and N(0, 1 / (16 width)) for queries and keys,
        unless ``words.std`` is given.
    """

    def __init__(self, words: Words, injection: float) -> None:
        super().__init__(words)
        width = words.width
        scale = torch.full((3 * width, 1), QUERY_KEY_INJECTION)
        scale[2 * width :] = injection
        if words.std is not None:
            scale.fill_(words.std * math.sqrt(width))
        self.W = nn.Parameter(scale * normal(3 * width, width, gain=1.0))
        self.b = nn.Parameter(torch.zeros(3 * width))

    def injected(self, x: Tensor) -> Tensor:
        """Return the injection (B, T, 3 width)."""
        u = nn.functional.linear(self.embedded(x), self.W, self.b)
        return u.to(self.b.dtype)  # under autocast too, for the state is of its type

    def forward(self, x: Tensor) -> Tensor:
        """Return the injection (B, T, 3 width)."""
        return self.injected(x)


class SegmentInjection(Injection):
    """(x, z_h, u_h) -> (u, z_h, u_h, past), without a history one of length 0.

    ``past``, the keys and values of the history, needs weights of the cell but no state: it is
    computed here, once a solve. The cell, to be set by :meth:`attach`, remains no part of this.
    """

    def attach(self, cell: Cell) -> None:
        """Set the cell whose arguments these are."""
        self._cell = (cell,)  # within a tuple it is no module of this one

    def forward(  # type: ignore[override]
        self, x: Tensor, z_h: Tensor | None = None, u_h: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return u (B, T, 3 width) and, for m positions, z_h, u_h and past (B, m, 2 width)."""
        u = self.injected(x)
        if z_h is None or u_h is None:
            u_h = u.new_zeros(u.shape[0], 0, u.shape[2])
            z_h = u_h[..., : u.shape[2] // 3]
        return u, z_h, u_h, self._cell[0].past(z_h, u_h)


def token_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross entropy in nats a token, of logits (B, T, V) for codes (B, T)."""
    return nn.functional.cross_entropy(prediction.flatten(0, -2), target.flatten())


def output(
    words: Words, embedding: Embedding
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return readout and loss; of an adaptive softmax all but the dropout is in the loss."""
    if words.cutoffs is not None:
        loss = AdaptiveSoftmax(
            words.vocabulary,
            words.width,
            words.cutoffs,
            divisor=words.divisor,
            std=words.std,
            embedding=embedding.adaptive if words.tied else None,
        )
        drop = VariationalDropout(words.dropout, "features") if words.dropout else nn.Identity()
        return drop, loss
    linear = nn.Linear(words.width, words.vocabulary)
    if words.std is not None:
        nn.init.normal_(linear.weight, std=words.std)
        nn.init.zeros_(linear.bias)
    if words.tied:
        linear.weight = embedding.E
    if not words.dropout:
        return linear, token_cross_entropy
    return nn.Sequential(VariationalDropout(words.dropout, "features"), linear), token_cross_entropy
