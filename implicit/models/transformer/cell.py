"""The block: attention with relative positions, then a network of two layers for each position."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from implicit.normalisation import VariationalDropout
from implicit.steady import mask

__all__ = ["Cell", "Layer", "Norm", "normal", "normalised"]

Norm = Literal["post", "pre"]
WEIGHTS = ("W_qkv", "W_r", "W_o", "W_1", "W_2")


class Cell(nn.Module):
    """One block: state z (B, T, width), injection u (B, T, 3 width), history of m positions.

    Parameters
    ----------
    width
        Channels of the state, d.
    heads
        Attention heads; they divide ``width``.
    inner
        Hidden units of the position-wise network.
    length
        The longest T.
    gain
        A weight with n inputs is N(0, gain² / n).
    norm, memory, window, weight_norm, dropout, attention_dropout, initialisation
        As in :func:`implicit.models.transformer.build`; ``memory`` is the longest m.
    """

    P: Tensor
    later: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        length: int,
        gain: float,
        *,
        norm: Norm = "post",
        memory: int = 0,
        window: int = 0,
        weight_norm: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        initialisation: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.norm, self.length, self.memory = heads, norm, length, memory
        self.W_qkv = nn.Parameter(normal(3 * width, width, gain))
        self.W_r = nn.Parameter(normal(width, width, gain))
        self.a = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.b = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.W_o = nn.Parameter(normal(width, width, gain))
        self.b_o = nn.Parameter(torch.zeros(width))
        self.W_1 = nn.Parameter(normal(inner, width, gain))
        self.b_1 = nn.Parameter(torch.zeros(inner))
        self.W_2 = nn.Parameter(normal(width, inner, gain))
        self.b_2 = nn.Parameter(torch.zeros(width))
        if initialisation is not None:
            self._initialise(initialisation, uniform=weight_norm)
        if weight_norm:
            for name in WEIGHTS:
                parametrizations.weight_norm(self, name, dim=0)
        self.drop_code = _CommonDropout(dropout)
        self.drop_attention = VariationalDropout(attention_dropout, "elements")
        self.drop_o = VariationalDropout(dropout, "features")
        self.drop_1 = VariationalDropout(dropout, "features")
        self.drop_2 = VariationalDropout(dropout, "features")
        # The distance of query i from key j, for a full memory; shorter ones have its last columns.
        distance = memory + torch.arange(length)[:, None] - torch.arange(memory + length)
        later = distance < 0
        if window:
            later |= distance >= window
        self.register_buffer("P", _sinusoids(memory + length, width), persistent=False)
        self.register_buffer("later", later, persistent=False)

    def _initialise(self, std: float, uniform: bool) -> None:
        with torch.no_grad():
            for name in WEIGHTS:
                weight: Tensor = getattr(self, name)
                bound = 1 / math.sqrt(weight.shape[1])
                weight.uniform_(-bound, bound) if uniform else weight.normal_(std=std)
            self.a.normal_(std=std)
            self.b.normal_(std=std)

    def initial_state(self, u: Tensor, *history: Tensor) -> Tensor:
        """Return zeros (B, T, width)."""
        return u.new_zeros(*u.shape[:-1], u.shape[-1] // 3)

    def past(self, z_h: Tensor, u_h: Tensor | None = None) -> Tensor:
        """Return the keys and values (B, m, 2 width) of the history, which no state changes."""
        width = z_h.shape[-1]
        kv = nn.functional.linear(self._before(z_h), self.W_qkv[width:])
        return kv if u_h is None else kv + u_h[..., width:]

    def forward(
        self,
        z: Tensor,
        u: Tensor,
        z_h: Tensor | None = None,
        u_h: Tensor | None = None,
        past: Tensor | None = None,
    ) -> Tensor:
        """Return the next state (B, T, width).

        ``z_h`` (B, m, width) and ``u_h`` (B, m, 3 width) are the states and injections of the m
        positions before, and ``past`` what :meth:`past` makes of them, where that is known.

        Raises
        ------
        ValueError
            If the sequence is longer than ``length``, or the history than ``memory``.
        """
        if past is None and z_h is not None:
            past = self.past(z_h, u_h)
        n = normalised(z + self._attention(self._before(z), u, past))
        after = n + self._network(n)
        return after if self.norm == "pre" else normalised(after)

    def _before(self, z: Tensor) -> Tensor:
        """Return what attention looks at."""
        return normalised(z) if self.norm == "pre" else z

    def _attention(self, c: Tensor, u: Tensor | None, past: Tensor | None) -> Tensor:
        T, width = c.shape[-2:]
        if self.length < T:
            raise ValueError(f"T = {T}: this cell was built for sequences up to {self.length}")
        size = width // self.heads
        qkv = nn.functional.linear(c, self.W_qkv)
        qkv = qkv if u is None else qkv + u
        q, k, v = self._by_head(qkv, 3)
        if past is not None:
            if past.shape[-2] > self.memory:
                raise ValueError(
                    f"a history of {past.shape[-2]} positions: this cell was built for a memory of"
                    f" {self.memory}"
                )
            earlier = self._by_head(past, 2)
            k, v = (torch.cat(pair, dim=-2) for pair in zip(earlier, (k, v), strict=True))
        n = k.shape[-2]
        # W_r P is the same for all samples, so it is no argument of the cell; a B-th of what one
        # of the projections costs, it is simply computed again.
        r = nn.functional.linear(self.drop_code(self.P[-n:], len(c)), self.W_r)
        r = r.reshape(n, self.heads, size)
        score = (q + self.a) @ k.mT + _relative_shift((q + self.b) @ r.permute(1, 2, 0))
        hidden = self.later[:T, self.memory + T - n : self.memory + T]
        score = (score / math.sqrt(size)).masked_fill(hidden, -math.inf)
        o = (self.drop_attention(score.softmax(-1)) @ v).transpose(-3, -2).flatten(-2)
        projected: Tensor = self.drop_o(nn.functional.linear(o, self.W_o, self.b_o))
        return projected

    def _by_head(self, x: Tensor, kinds: int) -> tuple[Tensor, ...]:
        """Cut (B, T, kinds width) into as many (B, heads, T, width / heads)."""
        parts = x.reshape(*x.shape[:-1], kinds, self.heads, x.shape[-1] // (kinds * self.heads))
        return parts.transpose(-4, -2).unbind(-3)

    def _network(self, y: Tensor) -> Tensor:
        """Return what the network adds at each position."""
        hidden = nn.functional.relu(nn.functional.linear(y, self.W_1, self.b_1))
        added: Tensor = self.drop_2(nn.functional.linear(self.drop_1(hidden), self.W_2, self.b_2))
        return added


class Layer(Cell):
    """One layer of the explicit network: the block without an injection.

    With ``norm="pre"`` the state itself is carried on, as in the networks of that name::

        y = z + attention(LN(z)),    z+ = y + network(LN(y))
    """

    def initial_state(self, e: Tensor, *history: Tensor) -> Tensor:
        """Return the embedding e (B, T, width)."""
        return e

    def forward(self, z: Tensor, z_h: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Return the next state (B, T, width), of this one and of the m positions before."""
        past = None if z_h is None else self.past(z_h)
        y = z + self._attention(self._before(z), None, past)
        if self.norm == "pre":
            return y + self._network(normalised(y))
        y = normalised(y)
        return normalised(y + self._network(y))


class _CommonDropout(VariationalDropout):
    """The same features dropped for all samples, of what has no axis for them."""

    def forward(self, x: Tensor, samples: int = 0) -> Tensor:
        """Return x (n, d), some of its columns zero; ``samples`` are in this evaluation."""
        if not self.training or self.p == 0:
            return x
        # An axis longer than the batch is not taken for that of the samples.
        asked = torch.Size((samples + 1, x.shape[-1]))
        scaled: Tensor = mask(self, asked, lambda asked: self._drawn(x, asked[1:]))
        return x * scaled.to(x.dtype)


def normal(rows: int, columns: int, gain: float) -> Tensor:
    """Return a weight (rows, columns) of N(0, gain² / columns)."""
    return gain / math.sqrt(columns) * torch.randn(rows, columns)


def normalised(x: Tensor) -> Tensor:
    """Return LN(x), over the last axis, without parameters."""
    return nn.functional.layer_norm(x, x.shape[-1:])


def _sinusoids(length: int, width: int) -> Tensor:
    """Return the code (length, width) of the distances length-1, …, 0: sines, then cosines."""
    distance = torch.arange(length - 1, -1, -1, dtype=torch.float64)
    frequency = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = distance[:, None] * frequency
    code = torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width]
    return code.to(torch.get_default_dtype())


def _relative_shift(score: Tensor) -> Tensor:
    """Move column n-1-m of row i, the score at distance m, to the column of the key there.

    Scores are (…, T, n), the last T of the n keys at the queries' own positions. What lands behind
    a query's own position belongs to no pair and is masked later.
    """
    T, n = score.shape[-2:]
    padded = nn.functional.pad(score, (1, 0))
    return padded.reshape(*score.shape[:-2], n + 1, T)[..., 1:, :].reshape(score.shape)
