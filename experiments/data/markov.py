"""A synthetic language whose entropy rate is known exactly: a random Markov chain.

The next symbol s follows the last k symbols c with probability P[c, s]. With the stationary
distribution π of the contexts, π = πP, the entropy rate is

    h = −Σ_c π(c) Σ_s P[c, s] ln P[c, s]   nats a token,

and no model's expected loss is below it: the floor of the perplexity is exp(h).

Reference: T. Cover, J. Thomas, Elements of Information Theory, 2nd ed. (2006), theorem 4.2.4.
"""

from __future__ import annotations

import bisect
import math
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from experiments.data.dataset import DataSet
from experiments.data.text import windows
from solvers.options import OptionError

__all__ = ["build", "conditional_entropies", "sample", "stationary", "transitions"]

Floats = NDArray[np.float64]
LARGEST = 1_000_000  # numbers in the table of transitions


def build(
    *,
    symbols: Annotated[int, Field(ge=2, le=1000)] = 16,
    order: Annotated[int, Field(ge=1, le=8)] = 2,
    concentration: Annotated[float, Field(ge=0.05, le=1e6)] = 0.1,
    tokens: Annotated[int, Field(ge=10)] = 100_000,
    length: Annotated[int, Field(ge=1)] = 32,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
) -> DataSet:
    """A random language of known entropy rate: a Markov chain with Dirichlet transitions.

    The data set's ``entropy_rate`` is exact, in nats a token; exp of it is the least perplexity
    that any model can expect. ``baseline`` is the entropy of a single symbol. A model that begins
    anew with each sample has seen less than ``order`` symbols before the first targets; what it can
    reach at best is in the provenance.

    Parameters
    ----------
    symbols
        Size of the alphabet.
    order
        k, how many symbols the next one depends on.
    concentration
        Of the Dirichlet distribution that each row of transitions is drawn from: small means that
        few symbols are likely.
    tokens
        In the training split; the validation and the test split have a quarter of it each.
    length
        Symbols in a sample.
    seed
        Of the transitions and of the text.

    Raises
    ------
    OptionError
        If the table of transitions would be too large, the chain so sticky that its stationary
        distribution cannot be computed, or a split shorter than one sample.
    """
    if symbols ** (order + 1) > LARGEST:
        raise OptionError(
            f"order = {order}: {symbols} symbols have {symbols ** (order + 1)} transitions, at most"
            f" {LARGEST} are kept; take fewer symbols or a lower order"
        )
    random = np.random.RandomState(seed)  # whose numbers no later NumPy changes
    rows = transitions(random, symbols, order, concentration)
    contexts = stationary(rows)
    entropies = conditional_entropies(rows, contexts)
    rate = entropies[order]
    known = [entropies[min(seen, order)] for seen in range(1, length + 1)]
    forgetful = math.fsum(known) / length
    texts = [sample(random, rows, contexts, n) for n in (tokens, tokens // 4, tokens // 4)]
    train, valid, test = (windows(torch.from_numpy(t), length, "tokens") for t in texts)
    return DataSet(
        name="markov",
        train=train,
        valid=valid,
        test=test,
        meta={"vocabulary": symbols, "length": length},
        provenance=(
            f"A Markov chain of order {order} over {symbols} symbols (Dirichlet {concentration:g},"
            f" seed {seed}) of {rate:.6g} nats a token, perplexity {math.exp(rate):.6g}; a model"
            f" that begins anew with each sample can reach {forgetful:.6g} nats."
        ),
        ordered=True,
        entropy_rate=rate,
        baseline=entropies[0],
    )


build.reference = (  # type: ignore[attr-defined]  # printed by `deq data`
    "Cover and Thomas, Elements of Information Theory, 2006, theorem 4.2.4"
)


def transitions(
    random: np.random.RandomState, symbols: int, order: int, concentration: float
) -> Floats:
    """Return P (symbols**order, symbols): a context's number has its oldest symbol in front."""
    rows: Floats = random.dirichlet(np.full(symbols, concentration), size=symbols**order)
    return rows


def stationary(rows: Floats, work: int = 500_000_000) -> Floats:
    """Return the stationary distribution (C,) of the contexts of P (C, V).

    By lazy power iteration π ← (π + πP) / 2, which also converges where P is periodic, from two
    starts: that they agree says that there is only one distribution. At most 20,000 steps, fewer
    where they would be more than ``work`` products.

    Raises
    ------
    OptionError
        If they do not agree: the chain nearly falls into parts.
    """
    contexts, symbols = rows.shape
    steps = min(20_000, work // rows.size)
    both = np.zeros((2, contexts))
    both[0] = 1 / contexts
    both[1, 0] = 1
    for _ in range(steps):
        # The oldest symbol leaves the context, the new one joins at its end.
        joint = both[:, :, None] * rows
        moved = joint.reshape(2, symbols, contexts // symbols, symbols).sum(1).reshape(2, contexts)
        change = np.abs(moved - both).sum()
        both = (both + moved) / 2
        if change < 1e-13:  # some ulps of a sum of 1
            break
    apart = float(np.abs(both[0] - both[1]).sum())
    if not apart < 1e-10:  # nan too, of a row that the Dirichlet distribution could not draw
        raise OptionError(
            "concentration: the chain hardly leaves some of its parts, so its entropy rate cannot"
            f" be computed (two distributions are {apart:.1e} apart after {steps} steps); raise"
            " concentration or take another seed"
        )
    found: Floats = both.mean(0)
    found /= found.sum()
    return found


def conditional_entropies(rows: Floats, contexts: Floats) -> list[float]:
    """Return H(next symbol | the last m symbols) in nats for m = 0 … k; the last is the rate."""
    symbols = rows.shape[1]
    joint = contexts[:, None] * rows
    found = []
    while True:
        before = joint.sum(1)
        found.append(_entropy(joint) - _entropy(before))
        if len(joint) == 1:
            return found[::-1]
        joint = joint.reshape(symbols, -1, symbols).sum(0)  # forget the oldest symbol


def _entropy(p: Any) -> float:
    p = p[p > 0]
    return -math.fsum(p * np.log(p))


def sample(
    random: np.random.RandomState, rows: Floats, contexts: Floats, tokens: int
) -> NDArray[np.int64]:
    """Return a text (tokens,) of the chain, which begins in its stationary distribution."""
    symbols = rows.shape[1]
    cumulative = rows.cumsum(1)
    table = (cumulative / cumulative[:, -1:]).tolist()
    start = contexts.cumsum()
    context = int((start / start[-1]).searchsorted(random.random_sample(), "right"))
    text = np.empty(tokens, dtype=np.int64)
    for i, u in enumerate(random.random_sample(tokens).tolist()):
        text[i] = symbol = bisect.bisect_right(table[context], u)
        context = (context * symbols + symbol) % len(rows)
    return text
