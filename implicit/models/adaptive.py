"""Adaptive embedding and softmax: frequent words get many numbers, rare ones few.

The V words, the most frequent first, are cut into groups at ``cutoffs``. Group i has embeddings of
d / divisor^i numbers and a projection W_i (d, d_i) without bias (Baevski and Auli, 2019)::

    e(x) = sqrt(d) W_i E_i[x]                                for x in group i
    head = softmax([E_0; C] W_0' h + [b_0; c])               the words of group 0, then the others
    p(x | h) = head_x,  or  head_i softmax(E_i W_i' h + b_i)_x   for x in group i > 0

(Grave et al., 2017). Tied, the softmax uses the E_i of the embedding and its W_i of i > 0; W_0 is
its own, as in the public code of Transformer-XL and of the deep equilibrium model. There the W_i
are two parameters on one storage, each with its own moments in the optimiser; here each is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from solvers.options import OptionError

__all__ = ["AdaptiveEmbedding", "AdaptiveSoftmax"]


class AdaptiveEmbedding(nn.Module):
    """Codes x (B, T) -> sqrt(d) W_i E_i[x], (B, T, width).

    Parameters
    ----------
    vocabulary
        Number of words V.
    width
        d, the size of what is returned.
    cutoffs
        The first word of each group but group 0, increasing, from 1 to V - 1.
    divisor
        By how much the embeddings of a group are smaller than those of the one before.
    std
        The standard deviation of all weights. None: that of the E_i is d^-1/2, of the W_i
        d_i^-1/2, and numbers of the result are near N(0, 1).

    Raises
    ------
    OptionError
        If the cutoffs are out of order or of range, or an embedding would have no number.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        cutoffs: Sequence[int],
        *,
        divisor: int = 4,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.groups = _groups(vocabulary, width, cutoffs, divisor)
        self.width = width
        self.E, self.W = nn.ParameterList(), nn.ParameterList()
        for words, size in self.groups:
            self.E.append(_normal(len(words), size, std or width**-0.5))
            self.W.append(_normal(width, size, std or size**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings (B, T, width)."""
        parts = []
        for (words, _), E, W in zip(self.groups, self.E, self.W, strict=True):
            # All words by all tables: shapes that depend on no value of x, for a little work.
            inside = (x >= words.start) & (x < words.stop)
            row = (x - words.start).clamp(0, len(words) - 1)
            e = nn.functional.linear(nn.functional.embedding(row, E), W)
            parts.append(e.masked_fill(~inside.unsqueeze(-1), 0.0))
        return math.sqrt(self.width) * torch.stack(parts).sum(dim=0)


class AdaptiveSoftmax(nn.Module):
    """The mean cross entropy in nats a token, of hidden states h (B, T, width) for codes (B, T).

    Parameters
    ----------
    vocabulary, width, cutoffs, divisor, std
        As in :class:`AdaptiveEmbedding`; biases are 0.
    embedding
        Whose E_i and W_i, but W_0, to use; None for own ones.

    Raises
    ------
    OptionError
        As :class:`AdaptiveEmbedding`.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        cutoffs: Sequence[int],
        *,
        divisor: int = 4,
        std: float | None = None,
        embedding: AdaptiveEmbedding | None = None,
    ) -> None:
        super().__init__()
        source = embedding or AdaptiveEmbedding(
            vocabulary, width, cutoffs, divisor=divisor, std=std
        )
        self.groups = source.groups
        self.E, self.W = nn.ParameterList(source.E), nn.ParameterList(source.W)
        if embedding is not None:
            self.W[0] = _normal(width, width, std or width**-0.5)
        self.C = _normal(len(self.groups) - 1, width, std or width**-0.5)
        self.c = nn.Parameter(torch.zeros(len(self.groups) - 1))
        self.b = nn.ParameterList(torch.zeros(len(words)) for words, _ in self.groups)

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the loss. Which words are in which group is read from the device."""
        h, x = hidden.flatten(0, -2), target.flatten()
        head, first = self._head(h), self.groups[0][0].stop
        group = torch.stack([x >= words.start for words, _ in self.groups[1:]]).sum(dim=0)
        total = head.gather(-1, torch.where(group > 0, first + group - 1, x)[:, None]).sum()
        for i, (words, _) in enumerate(self.groups[1:], start=1):
            rows = (group == i).nonzero().squeeze(-1)
            tail = self._group(i, h[rows])
            total = total + tail.gather(-1, (x[rows] - words.start)[:, None]).sum()
        return -total / len(x)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return the logarithms of the probabilities of all words, (B, T, V)."""
        head, first = self._head(hidden), self.groups[0][0].stop
        tails = [
            head[..., first + i - 1, None] + self._group(i, hidden)
            for i in range(1, len(self.groups))
        ]
        return torch.cat([head[..., :first], *tails], dim=-1)

    def _head(self, h: Tensor) -> Tensor:
        weight, bias = torch.cat([self.E[0], self.C]), torch.cat([self.b[0], self.c])
        return nn.functional.linear(h @ self.W[0], weight, bias).log_softmax(-1)

    def _group(self, i: int, h: Tensor) -> Tensor:
        return nn.functional.linear(h @ self.W[i], self.E[i], self.b[i]).log_softmax(-1)


def _groups(
    vocabulary: int, width: int, cutoffs: Sequence[int], divisor: int
) -> list[tuple[range, int]]:
    """Return the words of each group, and the size of its embeddings."""
    ends = [0, *cutoffs, vocabulary]
    if not cutoffs or any(a >= b for a, b in itertools.pairwise(ends)):
        raise OptionError(
            f"cutoffs = {list(cutoffs)}: expected numbers from 1 to {vocabulary - 1}, the"
            " vocabulary less one, each larger than the one before"
        )
    sizes = [width // divisor**i for i in range(len(ends) - 1)]
    if not sizes[-1]:
        raise OptionError(
            f"cutoffs = {list(cutoffs)}: the embeddings of the last of {len(sizes)} groups would"
            f" have {width} / {divisor}^{len(sizes) - 1} numbers, less than 1: take fewer cutoffs"
            " or a smaller divisor"
        )
    return [
        (range(a, b), size) for (a, b), size in zip(itertools.pairwise(ends), sizes, strict=True)
    ]


def _normal(rows: int, columns: int, std: float) -> nn.Parameter:
    return nn.Parameter(std * torch.randn(rows, columns))
