"""Adaptive embedding and softmax: against torch's own, against a plain softmax, against loops."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from implicit.models.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from solvers.options import OptionError

V, D, CUTOFFS, DIVISOR = 13, 8, [4, 7, 9], 2


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


def pair(tied: bool = True) -> tuple[AdaptiveEmbedding, AdaptiveSoftmax]:
    embedding = AdaptiveEmbedding(V, D, CUTOFFS, divisor=DIVISOR)
    softmax = AdaptiveSoftmax(V, D, CUTOFFS, divisor=DIVISOR, embedding=embedding if tied else None)
    randomised(embedding)
    randomised(softmax)
    return embedding, softmax


def every_word() -> tuple[Tensor, Tensor]:
    return torch.randn(2, V, D), torch.stack([torch.randperm(V), torch.arange(V)])


def test_the_embedding_is_its_equation_word_by_word() -> None:
    embedding, _ = pair()
    x = torch.arange(V).reshape(1, V)
    got = embedding(x)[0]
    ends = [0, *CUTOFFS, V]
    for word in range(V):
        i = sum(word >= c for c in CUTOFFS)
        e = embedding.E[i][word - ends[i]]
        assert e.shape == (D // DIVISOR**i,)
        torch.testing.assert_close(got[word], math.sqrt(D) * embedding.W[i] @ e)


def test_sizes() -> None:
    embedding, softmax = pair()
    assert [tuple(E.shape) for E in embedding.E] == [(4, 8), (3, 4), (2, 2), (4, 1)]
    assert [tuple(W.shape) for W in embedding.W] == [(8, 8), (8, 4), (8, 2), (8, 1)]
    own = 8 * 8 + 3 * 8 + 3 + V  # W_0, C, c and the biases
    both = nn.ModuleList([embedding, softmax])
    table = 4 * 8 + 3 * 4 + 2 * 2 + 4 * 1 + 8 * (8 + 4 + 2 + 1)
    assert sum(p.numel() for p in both.parameters()) == table + own
    untied = nn.ModuleList(pair(tied=False))
    assert sum(p.numel() for p in untied.parameters()) == 2 * table + own - 8 * 8


def test_tied_weights_are_one_parameter_each() -> None:
    embedding, softmax = pair()
    assert all(a is b for a, b in zip(embedding.E, softmax.E, strict=True))
    assert all(a is b for a, b in zip(embedding.W[1:], softmax.W[1:], strict=True))
    assert embedding.W[0] is not softmax.W[0]
    hidden, x = every_word()
    (softmax(hidden, x) + embedding(x).square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in (*embedding.E, *embedding.W))


def test_probabilities_sum_to_one_and_the_loss_is_their_entropy() -> None:
    _, softmax = pair()
    hidden, x = every_word()
    logp = softmax.log_prob(hidden)
    assert logp.shape == (2, V, V)
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(2, V), rtol=1e-13, atol=0.0)
    expected = -logp.gather(-1, x[..., None]).mean()
    torch.testing.assert_close(softmax(hidden, x), expected, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_that_of_torch(tied: bool) -> None:
    """With the projection of the head multiplied out, and no biases in the groups."""
    _, softmax = pair(tied)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(D, V, CUTOFFS, div_value=DIVISOR, head_bias=True)
    with torch.no_grad():
        for bias in softmax.b[1:]:
            bias.zero_()
        theirs.head.weight.copy_(torch.cat([softmax.E[0], softmax.C]) @ softmax.W[0].T)
        theirs.head.bias.copy_(torch.cat([softmax.b[0], softmax.c]))
        for i, tail in enumerate(theirs.tail, start=1):
            down, up = tail.parameters()
            down.copy_(softmax.W[i].T)
            up.copy_(softmax.E[i])
    hidden, x = every_word()
    right = theirs(hidden.flatten(0, 1), x.flatten())
    torch.testing.assert_close(softmax(hidden, x), right.loss, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        softmax.log_prob(hidden).flatten(0, 1),
        theirs.log_prob(hidden.flatten(0, 1)),
        rtol=1e-12,
        atol=1e-12,
    )


def test_with_all_words_frequent_but_one_it_is_nearly_a_plain_softmax() -> None:
    softmax = AdaptiveSoftmax(5, 3, [4], divisor=3)
    hidden = torch.randn(2, 6, 3)
    logits = hidden @ softmax.W[0] @ torch.cat([softmax.E[0], softmax.C]).T
    torch.testing.assert_close(softmax.log_prob(hidden), logits.log_softmax(-1))


def test_a_batch_without_rare_words_has_gradients_of_zero_for_them() -> None:
    _, softmax = pair()
    softmax(torch.randn(2, 3, D), torch.zeros(2, 3, dtype=torch.long)).backward()
    assert all(p.grad is not None for p in softmax.parameters())
    assert not any(p.grad.any() for p in (*softmax.E[1:], *softmax.W[1:]) if p.grad is not None)


def test_derivatives() -> None:
    embedding, softmax = pair()
    hidden, x = every_word()
    hidden = hidden[:, :5].clone().requires_grad_()
    x = x[:, [0, 5, 8, 9, 12]]
    assert torch.autograd.gradcheck(lambda h: softmax(h, x), (hidden,))
    tables = tuple(p.detach().requires_grad_() for p in embedding.parameters())
    names = [n for n, _ in embedding.named_parameters()]

    def embedded(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        result: Tensor = torch.func.functional_call(embedding, given, (x,))
        return result

    assert torch.autograd.gradcheck(embedded, tables)


def test_the_embedding_reads_nothing_from_the_device() -> None:
    embedding, _ = pair()
    embedding.to("meta")  # has no values: reading one raises
    assert embedding(torch.zeros(2, 3, dtype=torch.long, device="meta")).shape == (2, 3, D)


def test_numbers_of_the_embedding_and_the_logits_start_near_one() -> None:
    embedding = AdaptiveEmbedding(4000, 64, [1000, 2000], divisor=4)
    softmax = AdaptiveSoftmax(4000, 64, [1000, 2000], divisor=4, embedding=embedding)
    for group in torch.arange(3000).split(1000):
        assert float(embedding(group[None]).detach().std()) == pytest.approx(1.0, rel=0.25)
    hidden = torch.randn(50, 64)
    for i in range(3):
        logits = hidden @ softmax.W[i] @ softmax.E[i].T
        assert float(logits.detach().std()) == pytest.approx(1.0, rel=0.25)


def test_published_start_has_one_spread() -> None:
    embedding = AdaptiveEmbedding(4000, 64, [1000, 2000], divisor=4, std=0.01)
    for weight in embedding.parameters():
        assert float(weight.std().detach()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("cutoffs", [[], [0], [7, 4], [4, 4], [13], [4, 20]])
def test_bad_cutoffs_are_refused(cutoffs: list[int]) -> None:
    with pytest.raises(OptionError, match=r"cutoffs = .*: expected numbers from 1 to 12"):
        AdaptiveEmbedding(V, D, cutoffs)


def test_embeddings_without_a_number_are_refused() -> None:
    with pytest.raises(OptionError, match=r"last of 3 groups would have 8 / 4\^2 numbers"):
        AdaptiveSoftmax(V, D, [4, 7], divisor=4)
