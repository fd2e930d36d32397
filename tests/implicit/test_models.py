"""The models: every registered one against what a model promises, each against its equations."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_models import (
    EXPLICIT,
    SMALL,
    SOLVED,
    TEXT,
    VOCABULARY,
    build,
    inputs,
    start,
)
from torch import Tensor, nn

from implicit import models
from implicit.models import Model, mlp, transformer
from solvers.options import OptionError

Array = NDArray[np.float64]

# A convolution or a group norm needs the axis of the samples.
BATCHED = ("mdeq",)
# torch has no forward mode through weight norm.
NORMED = ("mdeq",)

# torch's own forward-mode rules are scripted when they are first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_state(name: str, model: Model, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    args = tuple(a.detach() for a in model.args(x))
    zeros = start(model, *args)
    assert isinstance(zeros, Tensor)
    g = torch.Generator().manual_seed(2)
    return torch.randn(zeros.shape, generator=g, dtype=torch.float64), args


every_model = pytest.mark.parametrize("name", SOLVED)
every_network = pytest.mark.parametrize("name", models.registry.names())


def test_every_registered_model_has_a_small_size() -> None:
    assert set(SMALL) == set(models.registry.names())


@every_network
def test_what_every_network_promises(name: str) -> None:
    model = build(name)
    x, target = inputs(name, 6)
    args = model.args(x)
    assert model.explicit == (name in EXPLICIT)
    z = model.cell(*args) if model.explicit else start(model, *args)
    prediction = model.readout(z)
    assert prediction.shape[0] == 6
    assert model.loss(prediction, target).isfinite()
    memory = model.memory(z, args)
    assert all(not t.requires_grad and len(t) == 6 for t in memory)
    if memory:
        assert [a.dtype for a in model.args(x, memory)] == [a.dtype for a in args]
    if model.task == "language":
        assert prediction.shape[:2] == target.shape


@every_model
def test_shapes_and_loss(name: str) -> None:
    model = build(name)
    x, target = inputs(name, 6)
    args = model.args(x)
    assert all(a.shape[0] == 6 for a in args)
    z = start(model, *args)
    assert isinstance(z, Tensor)
    assert z.shape[0] == 6
    assert z.count_nonzero() == 0
    after = model.cell(z, *args)
    assert (after.shape, after.dtype) == (z.shape, z.dtype)
    prediction = model.readout(after)
    assert prediction.shape[: target.dim()] == target.shape
    loss = model.loss(prediction, target)
    assert loss.dim() == 0
    assert loss.isfinite()


@every_model
def test_a_sample_alone_is_the_same_as_in_a_batch(name: str) -> None:
    model = build(name)
    x, _ = inputs(name, 6)
    z, args = some_state(name, model, x)
    together = model.cell(z, *args)
    for i in range(len(x)):
        alone = model.cell(z[i : i + 1], *model.args(x[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-13, atol=1e-14)


@every_model
def test_the_seed_decides_the_weights(name: str) -> None:
    first, again, other = (build(name, seed=s).module().state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@every_model
def test_first_and_second_derivatives(name: str) -> None:
    fewer = {"branches": [2, 2], "groups": 1, "expansion": 1} if name == "mdeq" else {}
    model = build(name, **fewer)
    x, _ = inputs(name, 2)
    z, args = some_state(name, model, x)
    names = list(dict(model.cell.named_parameters()))
    values = [p.detach().requires_grad_() for p in model.cell.parameters()]
    tensors = [t.requires_grad_() for t in (z, *args)]

    def cell(*given: Tensor) -> Tensor:
        state, weights = given[: len(tensors)], given[len(tensors) :]
        parameters = dict(zip(names, weights, strict=True))
        result: Tensor = torch.func.functional_call(model.cell, parameters, state)
        return result

    leaves = (*tensors, *values)
    assert torch.autograd.gradcheck(cell, leaves, check_forward_ad=name not in NORMED)
    if name not in NORMED:  # nor is its relu smooth within a step, of so many numbers
        assert torch.autograd.gradgradcheck(cell, leaves)


@every_model
def test_vmap_over_products_and_over_samples(name: str) -> None:
    model = build(name)
    x, _ = inputs(name, 3)
    z, args = some_state(name, model, x)

    def f(state: Tensor) -> Tensor:
        result: Tensor = model.cell(state, *args)
        return result

    backward = torch.func.jacrev(f)(z)
    torch.testing.assert_close(torch.func.jacfwd(f)(z), backward, rtol=1e-10, atol=1e-12)
    if name not in BATCHED:
        together = torch.func.vmap(model.cell)(z, *args)  # without a batch axis inside
        torch.testing.assert_close(together, model.cell(z, *args), rtol=1e-12, atol=1e-13)

    def one(state: Tensor, *rest: Tensor) -> Tensor:
        after: Tensor = model.cell(state[None], *(r[None] for r in rest))[0]
        return after

    per_sample = torch.func.vmap(torch.func.jacrev(one))(z, *args)
    for i in range(3):
        torch.testing.assert_close(
            per_sample[i], backward[i, ..., i, *[slice(None)] * (z.dim() - 1)]
        )


@every_model
def test_no_value_is_read_from_the_device(name: str) -> None:
    model = build(name)
    x, _ = inputs(name, 2)
    z, args = some_state(name, model, x)
    model.module().to("meta")  # has no values: reading one raises
    after = model.cell(z.to("meta"), *(a.to("meta") for a in args))
    assert after.shape == z.shape


@every_model
def test_low_precision_stays_near(name: str) -> None:
    model = build(name)
    x, _ = inputs(name, 4)
    z, args = some_state(name, model, x)
    exact = model.cell(z, *args)
    model.module().float()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.cell(z.float(), *(a.float() for a in args))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=0.0, atol=0.1)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_plain_iteration_converges_neither_at_once_nor_never(name: str) -> None:
    """The defaults are equilibria worth a comparison: the docstrings' tables, one row."""
    for seed in range(5):
        torch.manual_seed(seed)
        model = models.registry.get(name)
        model.module().double()
        g = torch.Generator().manual_seed(seed)
        x = (
            torch.randint(0, 128, (16, 16), generator=g)
            if name in TEXT
            else torch.rand(16, 64, generator=g, dtype=torch.float64)
        )
        evaluations = picard(model, x, reltol=1e-6)
        assert min(evaluations) >= 10
        assert max(evaluations) <= 200
        assert max(evaluations) >= 25


@torch.no_grad()
def picard(model: Model, x: Tensor, reltol: float) -> list[int]:
    """Return the evaluations that every sample needs, 1000 where it never converges."""
    args = model.args(x)
    z = start(model, *args)
    assert isinstance(z, Tensor)
    needed = [1000] * len(x)
    for count in range(1, 400):
        after = model.cell(z, *args)
        relative = (after - z).flatten(1).norm(dim=1) / after.flatten(1).norm(dim=1)
        for i, value in enumerate(relative.tolist()):
            if value <= reltol:
                needed[i] = min(needed[i], count)
        z = after
    return needed


# ------------------------------------------------------------------------------------------- mlp


def test_mlp_is_its_equation() -> None:
    model = build("mlp")
    x, _ = inputs("mlp", 4)
    z, _ = some_state("mlp", model, x)
    p = {k: v.detach().numpy() for k, v in model.module().named_parameters()}
    expected = np.tanh(
        z.numpy() @ p["cell.W"].T + x.numpy() @ p["inject.weight"].T + p["inject.bias"]
    )
    np.testing.assert_allclose(
        model.cell(z, *model.args(x)).detach().numpy(), expected, rtol=1e-13, atol=1e-14
    )


def test_mlp_has_as_many_parameters_as_its_equation() -> None:
    module = models.registry.get("mlp", width=7, inputs=3, classes=2).module()
    assert sum(p.numel() for p in module.parameters()) == 7 * 7 + 7 * 3 + 7 + 2 * 7 + 2


def test_gain_is_the_spectral_radius_of_a_large_weight() -> None:
    torch.manual_seed(0)
    W = mlp.Cell(400, gain=0.7).W
    assert float(torch.linalg.eigvals(W.detach()).abs().max()) == pytest.approx(0.7, rel=0.1)


def test_without_an_injection_of_x_the_equilibrium_does_not_depend_on_it() -> None:
    """Why the input is injected: a contraction forgets where it started."""
    model = build("mlp", gain=0.5)
    x, _ = inputs("mlp", 4)
    (u,) = model.args(x)
    starts, common = u, u[:1].expand_as(u)
    with torch.no_grad():
        injected, forgotten = start(model, u), starts
        for _ in range(100):
            injected, forgotten = model.cell(injected, u), model.cell(forgotten, common)
    assert float(forgotten.std(dim=0).max()) < 1e-14
    assert float(injected.std(dim=0).max()) > 1e-2


# ----------------------------------------------------------------------------------- transformer


def layer_norm(row: Array) -> Array:
    centred = row - row.mean()
    normed: Array = centred / np.sqrt((centred**2).mean() + 1e-5)
    return normed


def block(p: dict[str, Array], z: Array, u: Array, heads: int) -> Array:
    """The published equations for one sequence z (T, d), pair by pair, by loops."""
    T, d = z.shape
    size = d // heads
    qkv = z @ p["W_qkv"].T + u

    def code(distance: int) -> Array:
        angle = [distance / 10000 ** (2 * i / d) for i in range(d // 2)]
        return np.array([math.sin(t) for t in angle] + [math.cos(t) for t in angle])

    after = np.zeros_like(z)
    for i in range(T):
        o = np.zeros(d)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            q = qkv[i, :d][part]
            scores = []
            for j in range(i + 1):
                k = qkv[j, d : 2 * d][part]
                r = (p["W_r"] @ code(i - j))[part]
                score = (q + p["a"][h, 0]) @ k + (q + p["b"][h, 0]) @ r
                scores.append(score / math.sqrt(size))
            weights = np.exp(scores) / np.exp(scores).sum()
            o[part] = sum(w * qkv[j, 2 * d :][part] for j, w in enumerate(weights))
        y = layer_norm(z[i] + p["W_o"] @ o + p["b_o"])
        hidden = np.maximum(p["W_1"] @ y + p["b_1"], 0)
        after[i] = layer_norm(y + p["W_2"] @ hidden + p["b_2"])
    return after


@pytest.mark.parametrize(("heads", "length"), [(1, 5), (2, 5), (2, 3)])
def test_transformer_is_its_equations(heads: int, length: int) -> None:
    torch.set_default_dtype(torch.float64)  # else the sinusoids are rounded to float32
    try:
        model = build("transformer", heads=heads, length=5)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.module().parameters():
            parameter.copy_(torch.randn_like(parameter))  # biases are zero otherwise
    x, _ = inputs("transformer", 3, length=5)
    z, (u,) = some_state("transformer", model, x[:, :length])
    p = {k: v.detach().numpy() for k, v in model.cell.named_parameters()}
    after = model.cell(z, u).detach().numpy()
    for i in range(3):
        expected = block(p, z[i].numpy(), u[i].numpy(), heads)
        np.testing.assert_allclose(after[i], expected, rtol=1e-11, atol=1e-12)


def test_transformer_injection_is_the_embedding_projected() -> None:
    model = build("transformer")
    x, _ = inputs("transformer", 2, length=5)
    p = {k: v.detach() for k, v in model.module().named_parameters()}
    expected = p["inject.E"][x] @ p["inject.W"].T + p["inject.b"]
    torch.testing.assert_close(model.args(x)[0].detach(), expected)


def test_transformer_has_as_many_parameters_as_its_equations() -> None:
    V, d, h, inner = 11, 8, 2, 20
    module = models.registry.get(
        "transformer", vocabulary=V, width=d, heads=h, inner=inner
    ).module()
    inject = V * d + 3 * d * d + 3 * d
    attention = 3 * d * d + d * d + 2 * d + d * d + d
    feed_forward = inner * d + inner + d * inner + d
    readout = V * d + V
    total = inject + attention + feed_forward + readout
    assert sum(p.numel() for p in module.parameters()) == total


def test_transformer_is_causal_in_state_and_input() -> None:
    model = build("transformer", length=5)
    x, _ = inputs("transformer", 2, length=5)
    z, (u,) = some_state("transformer", model, x)
    jacobian = torch.func.vmap(torch.func.jacrev(model.cell, argnums=(0, 1)))(z, u)
    for J in jacobian:  # (B, T, d, T, d'): what i has from j
        strength = J.abs().sum(dim=(0, 2, 4))
        assert torch.equal(strength.triu(1), torch.zeros_like(strength))
        assert (strength.tril().diagonal() > 0).all()
        assert strength[-1, 0] > 0

    changed = x.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % VOCABULARY
    with torch.no_grad():
        states = [start(model, u), start(model, u)]
        for _ in range(20):
            states = [
                model.cell(s, *model.args(v)) for s, v in zip(states, (x, changed), strict=True)
            ]
    assert torch.equal(states[0][:, :3], states[1][:, :3])
    assert not torch.allclose(states[0][:, 3:], states[1][:, 3:])


def test_transformer_takes_shorter_sequences_and_refuses_longer_ones() -> None:
    model = build("transformer", length=5)
    x, _ = inputs("transformer", 2, length=5)
    z, (u,) = some_state("transformer", model, x)
    shorter = model.cell(z[:, :3], u[:, :3])
    torch.testing.assert_close(shorter, model.cell(z, u)[:, :3], rtol=1e-12, atol=1e-13)
    (u,) = model.args(torch.cat([x, x], dim=1))
    with pytest.raises(ValueError, match=r"T = 10: .* up to 5"):
        model.cell(start(model, u), u)


# ---------------------------------------------------------------------------------------- options


def test_bad_options_say_what_is_allowed() -> None:
    with pytest.raises(OptionError, match=r"model\.heads = 3: must divide width = 32"):
        models.registry.get("transformer", heads=3)
    with pytest.raises(OptionError, match=r"model\.gian.*did you mean 'gain'"):
        models.registry.get("mlp", gian=1.0)
    with pytest.raises(OptionError, match=r"model\.width = 0"):
        models.registry.get("mlp", width=0)
    with pytest.raises(OptionError, match=r"did you mean 'transformer'"):
        models.registry.get("transfomer")


def test_a_model_may_return_one_argument_bare_and_need_not_be_modules() -> None:
    cell = nn.Linear(2, 2)
    model = Model(inject=lambda x: 2 * x, cell=cell, readout=lambda z: z, loss=lambda p, t: p.sum())
    (arg,) = model.args(torch.ones(3, 2))
    assert torch.equal(arg, 2 * torch.ones(3, 2))
    assert list(dict(model.module().named_parameters())) == ["cell.weight", "cell.bias"]


def test_the_example_is_a_model_and_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root)
    model = models.registry.get("examples.my_model:build", width=8)
    assert model.args(torch.rand(3, 64))[0].shape == (3, 8)
    torch.manual_seed(0)
    importlib.import_module("examples.my_model").train(steps=51)
    report = capsys.readouterr().out
    assert "step 50: loss" in report
    assert float(report.splitlines()[-1].split("%")[0]) > 70


def test_summaries_and_references_are_there() -> None:
    for name in models.registry.names():
        entry = models.registry.describe(name)
        assert entry.summary
        assert re.search(r"\b(NeurIPS|ICLR) 20\d\d\b", entry.reference)


def test_token_cross_entropy_is_the_mean_over_tokens() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    target = torch.randint(0, 5, (2, 3))
    logp = logits.log_softmax(-1)
    by_hand = -sum(logp[b, t, target[b, t]] for b in range(2) for t in range(3)) / 6
    torch.testing.assert_close(transformer.token_cross_entropy(logits, target), by_hand)
