"""The DEQ-Transformer's options: each against its equations, and memory against the whole text."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import implicit
from implicit import DEQ, Implicit, Unrolled, models
from implicit.models import Memory, Model
from implicit.models.transformer import token_cross_entropy
from implicit.models.transformer.cell import Cell
from solvers import Anderson, FixedPointProblem, Picard
from solvers.options import OptionError

Array = NDArray[np.float64]
T, D, INNER, V = 3, 4, 6, 7

# torch's own forward-mode rules are scripted when they are first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """One thread; float64 from the start, or the sinusoids would be rounded to float32."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(before)


def build(seed: int = 0, **options: Any) -> Model:
    torch.manual_seed(seed)
    small = {"width": D, "inner": INNER, "length": T, "vocabulary": V, "heads": 2}
    return models.registry.get("transformer", **{**small, **options})


def randomised(model: Model) -> Model:
    """Every parameter random: biases are zero otherwise, and a weight norm that of its weight."""
    with torch.no_grad():
        for parameter in model.module().parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def codes(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def equilibrium(model: Model, x: Tensor, memory: Memory = ()) -> tuple[Tensor, tuple[Tensor, ...]]:
    args = model.args(x, memory)
    z = cast(Cell, model.cell).initial_state(*args)
    for _ in range(2000):
        z, before = model.cell(z, *args), z
        if float((z - before).abs().max()) < 1e-15:
            break
    assert float((z - before).abs().max()) < 1e-14
    return z, args


# -------------------------------------------------------------------------------------- equations


def layer_norm(row: Array) -> Array:
    centred = row - row.mean()
    normed: Array = centred / np.sqrt((centred**2).mean() + 1e-5)
    return normed


def weight(p: dict[str, Array], name: str) -> Array:
    """The weight, computed from length and direction of each row, if it is normalised."""
    if f"cell.{name}" in p:
        return p[f"cell.{name}"]
    g, v = (p[f"cell.parametrizations.{name}.original{k}"] for k in (0, 1))
    rows = [g[i, 0] * v[i] / math.sqrt(sum(x * x for x in v[i])) for i in range(len(v))]
    return np.array(rows)


def block(
    p: dict[str, Array], z: Array, u: Array, z_h: Array, u_h: Array, *, pre: bool, window: int
) -> Array:
    """The published equations for one sequence z (T, d), pair by pair, by loops."""
    heads, _, size = p["cell.a"].shape
    d = z.shape[1]
    c, v = np.concatenate([z_h, z]), np.concatenate([u_h, u])
    m = len(z_h)
    W_qkv, W_r, W_o = (weight(p, n) for n in ("W_qkv", "W_r", "W_o"))
    W_1, W_2 = weight(p, "W_1"), weight(p, "W_2")
    qkv = np.array([W_qkv @ (layer_norm(c[j]) if pre else c[j]) + v[j] for j in range(len(c))])
    after = np.zeros_like(z)
    for i in range(len(z)):
        heard = np.zeros(d)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            q, scores, values = qkv[m + i, :d][part], [], []
            for j in range(m + i + 1):
                distance = m + i - j
                if window and distance >= window:
                    continue
                angles = [distance / 10000 ** (2 * k / d) for k in range(d // 2)]
                code = np.array([math.sin(t) for t in angles] + [math.cos(t) for t in angles])
                k, r = qkv[j, d : 2 * d][part], (W_r @ code)[part]
                score = (q + p["cell.a"][h, 0]) @ k + (q + p["cell.b"][h, 0]) @ r
                scores.append(score / math.sqrt(size))
                values.append(qkv[j, 2 * d :][part])
            total = sum(math.exp(s - max(scores)) for s in scores)
            for s, value in zip(scores, values, strict=True):
                heard[part] += math.exp(s - max(scores)) / total * value
        y = layer_norm(z[i] + W_o @ heard + p["cell.b_o"])
        hidden = np.maximum(W_1 @ y + p["cell.b_1"], 0)
        after[i] = y + W_2 @ hidden + p["cell.b_2"]
        after[i] = after[i] if pre else layer_norm(after[i])
    return after


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("history", "options"),
    [
        (0, {"weight_norm": True}),
        (0, {"memory": 4}),
        (2, {"memory": 4, "heads": 1}),
        (4, {"memory": 4, "weight_norm": True}),
        (4, {"memory": 4, "window": 3}),
        (0, {"window": 2}),
    ],
)
def test_the_cell_is_its_equations(norm: str, history: int, options: dict[str, Any]) -> None:
    model = randomised(build(norm=norm, **options))
    x = codes(2, T)
    memory = (noise(2, history, D), noise(2, history, 3 * D)) if options.get("memory") else ()
    args = model.args(x, memory)
    z = noise(2, T, D, seed=3)
    after = model.cell(z, *args)
    p = {k: v.detach().numpy() for k, v in model.module().named_parameters()}
    for i in range(2):
        u = p["inject.E"][x[i].numpy()] @ p["inject.W"].T + p["inject.b"]
        past = [t[i].numpy() for t in memory] or [np.zeros((0, D)), np.zeros((0, 3 * D))]
        expected = block(
            p, z[i].numpy(), u, *past, pre=norm == "pre", window=options.get("window", 0)
        )
        np.testing.assert_allclose(after[i].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    if memory:  # the cell alone, without what was computed before
        torch.testing.assert_close(model.cell(z, *args[:3]), after, rtol=1e-13, atol=1e-13)


def test_weight_norm_leaves_the_map_as_it_starts() -> None:
    plain, normed = build(), build(weight_norm=True)
    x, z = codes(2, T), noise(2, T, D)
    torch.testing.assert_close(
        plain.cell(z, *plain.args(x)), normed.cell(z, *normed.args(x)), rtol=1e-13, atol=1e-14
    )
    numbers = [sum(p.numel() for p in m.cell.parameters()) for m in (plain, normed)]
    assert numbers[1] - numbers[0] == 3 * D + D + D + INNER + D  # a length for each row


def test_weights_start_as_published() -> None:
    width = 64
    model = build(width=width, inner=200, vocabulary=300, initialisation=0.05)
    p = {k: v.detach() for k, v in model.module().named_parameters()}
    for name in ("W_qkv", "W_r", "W_o", "W_1", "W_2", "a", "b"):
        # The spread of a standard deviation of n samples is 1 / sqrt(2 n): 3 of them for 64.
        assert float(p[f"cell.{name}"].std()) == pytest.approx(0.05, rel=0.27)
    for name in ("inject.E", "inject.W", "readout.weight"):
        assert float(p[name].std()) == pytest.approx(0.05, rel=0.05)
    for name in ("cell.b_o", "cell.b_1", "cell.b_2", "inject.b", "readout.bias"):
        assert not p[name].any()
    x = codes(2, T)
    expected = math.sqrt(width) * p["inject.E"][x] @ p["inject.W"].T
    torch.testing.assert_close(model.args(x)[0].detach(), expected)

    normed = build(width=width, initialisation=0.05, weight_norm=True)
    v = dict(normed.cell.named_parameters())["parametrizations.W_r.original1"].detach()
    assert float(v.abs().max()) <= 1 / 8
    assert float(v.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)


def test_a_tied_output_has_the_table_of_the_embedding() -> None:
    model = build(tied=True, width=64, vocabulary=200, dropout=0.1)
    names = [n for n, _ in model.module().named_parameters()]
    assert "inject.E" in names
    assert "readout.1.weight" not in names
    E = dict(model.module().named_parameters())["inject.E"]
    z = noise(2, T, 64)
    model.module().eval()
    torch.testing.assert_close(model.readout(z), z @ E.T + cast(Any, model.readout)[1].bias)
    # Logits of a normalised state are near N(0, 1), and so is the embedding.
    assert float(model.readout(z).detach().std()) == pytest.approx(1.0, rel=0.2)
    assert float(8 * E.detach().std()) == pytest.approx(1.0, rel=0.05)
    untied = build(width=64, vocabulary=200)
    x = torch.arange(200)[None]
    u, v = (m.args(x)[0] for m in (model, untied))
    assert float(u[..., 128:].detach().std()) == pytest.approx(
        float(v[..., 128:].detach().std()), rel=0.05
    )


PAPER: dict[str, Any] = {
    "vocabulary": 267_735,
    "length": 150,
    "width": 700,
    "heads": 10,
    "inner": 48_000,
    "memory": 150,
    "window": 1000,
    "weight_norm": True,
    "dropout": 0.05,
    "embedding_dropout": 0.05,
    "tied": True,
    "cutoffs": [20_000, 40_000, 200_000],
    "divisor": 4,
    "initialisation": 0.01,
}


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = models.registry.get("transformer", **PAPER)
        untied = models.registry.get("transformer", **{**PAPER, "tied": False})
    total, cell = (sum(p.numel() for p in m.parameters()) for m in (model.module(), model.cell))
    assert all(p.is_meta for p in model.module().parameters())
    assert cell == 69_753_000
    assert total == 97_691_888
    # In the public code the tied projections are two parameters each, on one storage.
    twice = 700 * (175 + 43 + 10)
    assert round((total + twice) / 1e6, 1) == 97.9
    embeddings = 20_000 * 700 + 20_000 * 175 + 160_000 * 43 + 67_735 * 10
    assert sum(p.numel() for p in untied.module().parameters()) == total + twice + embeddings


# ----------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("window", [0, 4])
def test_segments_with_a_full_memory_are_the_whole_text(norm: str, window: int) -> None:
    """The map is causal: the joint equilibrium is that of each segment, given those before."""
    options: dict[str, Any] = {"norm": norm, "window": window, "memory": 2 * T, "injection": 6.0}
    model = build(**options)
    whole = build(**{**options, "length": 3 * T})
    x = codes(2, 3 * T)
    joint, _ = equilibrium(whole, x)
    memory: Memory = ()
    for k in range(3):
        z, args = equilibrium(model, x[:, k * T : (k + 1) * T], memory)
        torch.testing.assert_close(z, joint[:, k * T : (k + 1) * T], rtol=0.0, atol=1e-12)
        memory = model.memory(z, args)
    forgotten, _ = equilibrium(model, x[:, 2 * T :])
    assert float((forgotten - joint[:, 2 * T :]).abs().max()) > 1e-3


def test_memory_is_the_last_positions_without_a_graph() -> None:
    model = build(memory=5)
    texts = codes(2, 3 * T).split(T, dim=1)
    memory: Memory = ()
    states, injections = [], []
    for text, length in zip(texts, (3, 5, 5), strict=True):
        args = model.args(text, memory)
        z = noise(2, T, D, seed=length).requires_grad_()
        memory = model.memory(z, args)
        states.append(z.detach())
        injections.append(args[0].detach())
        assert [t.shape for t in memory] == [(2, length, D), (2, length, 3 * D)]
        assert not any(t.requires_grad for t in memory)
        assert torch.equal(memory[0], torch.cat(states, dim=1)[:, -5:])
        assert torch.equal(memory[1], torch.cat(injections, dim=1)[:, -5:])
    assert build().memory(states[0], build().args(texts[0])) == ()


def test_nothing_looks_ahead_with_a_memory_either() -> None:
    model = build(memory=4, injection=6.0)
    x = codes(2, T)
    memory = (noise(2, 4, D), noise(2, 4, 3 * D))
    changed = x.clone()
    changed[:, 2:] = (changed[:, 2:] + 1) % V
    one, two = (equilibrium(model, text, memory)[0] for text in (x, changed))
    assert torch.equal(one[:, :2], two[:, :2])
    assert not torch.allclose(one[:, 2:], two[:, 2:])

    u, z_h, u_h, _ = (t.detach() for t in model.args(x, memory))
    jacobian = torch.func.vmap(torch.func.jacrev(model.cell, argnums=(0, 2)))(one, u, z_h, u_h)
    own, earlier = (J.abs().sum(dim=(0, 2, 4)) for J in jacobian)  # (T, T), (T, m)
    assert torch.equal(own.triu(1), torch.zeros_like(own))
    assert (own.tril().diagonal() > 0).all()
    assert (earlier > 0).all()


@pytest.mark.parametrize("window", [1, 2])
def test_a_query_sees_no_further_than_the_window(window: int) -> None:
    model = build(memory=4, window=window)
    args = [t.detach() for t in model.args(codes(1, T), (noise(1, 4, D), noise(1, 4, 3 * D)))]
    jacobian = torch.func.jacrev(model.cell, argnums=(0, 2))(noise(1, T, D), *args[:3])
    own, earlier = (J.abs().sum(dim=(0, 2, 3, 5)) for J in jacobian)
    seen = torch.cat([earlier, own], dim=1) > 0
    distance = 4 + torch.arange(T)[:, None] - torch.arange(4 + T)
    assert torch.equal(seen, (distance >= 0) & (distance < window))


def problem_of(model: Model, x: Tensor, memory: Memory = ()) -> FixedPointProblem:
    args = model.args(x, memory)
    return FixedPointProblem(model.cell, cast(Cell, model.cell).initial_state(*args), args)


def gradients(model: Model, x: Tensor, target: Tensor, memory: Memory, gradient: Any) -> Any:
    """Both from where plain iteration leads, for there may be several equilibria."""
    solution = implicit.solve(
        problem_of(model, x, memory),
        Picard(),
        gradient,
        reltol=0.0 if isinstance(gradient, Unrolled) else 1e-14,
        max_evaluations=500,
        fixed_budget=isinstance(gradient, Unrolled),
    )
    assert float(solution.value.detach().abs().max()) > 0.1  # type: ignore[union-attr]
    loss = model.loss(model.readout(solution.value), target)
    return torch.autograd.grad(loss, list(model.module().parameters()))


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "post", "weight_norm": True},
        {"norm": "pre", "cutoffs": [2, 5], "divisor": 2, "tied": True},
    ],
)
def test_gradients_of_a_segment_with_memory(options: dict[str, Any]) -> None:
    """Of all parameters, the history's keys and values among what they act on."""
    model = build(memory=4, injection=6.0, **options)
    x, target = codes(2, T), codes(2, T, seed=5)
    memory = (noise(2, 4, D), noise(2, 4, 3 * D))
    got = gradients(model, x, target, memory, Implicit(reltol=1e-13))
    right = gradients(model, x, target, memory, Unrolled())
    for (name, _), g, r in zip(model.module().named_parameters(), got, right, strict=True):
        assert float((g - r).norm()) < 1e-9 * (float(r.norm()) + 1e-3), name
    alone = gradients(model, x, target, (), Implicit(reltol=1e-13))
    assert any(
        float((g - a).norm()) > 1e-3 * float(g.norm()) for g, a in zip(got, alone, strict=True)
    )


@pytest.mark.parametrize("options", [{"norm": "post"}, {"norm": "pre", "window": 2}])
def test_derivatives_with_a_history(options: dict[str, Any]) -> None:
    model = build(width=2, inner=3, memory=2, **options)
    history = noise(1, 1, 2), noise(1, 1, 6)
    args = [t.detach().requires_grad_() for t in model.args(codes(1, T), history)]
    z = noise(1, T, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(model.cell, (z, *args[:3]), check_forward_ad=True)
    assert torch.autograd.gradcheck(
        lambda z, u, past: model.cell(z, u, past=past), (z, args[0], args[3])
    )
    assert torch.autograd.gradgradcheck(model.cell, (z, *args[:3]))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_transforms_and_no_read_of_the_device(norm: str) -> None:
    model = build(memory=4, window=3, norm=norm, weight_norm=True)
    args = [t.detach() for t in model.args(codes(3, T), (noise(3, 4, D), noise(3, 4, 3 * D)))]
    z = noise(3, T, D)
    backward = torch.func.jacrev(lambda z: model.cell(z, *args))(z)
    forward = torch.func.jacfwd(lambda z: model.cell(z, *args))(z)
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)
    together = torch.func.vmap(model.cell)(z, *args)  # without a batch axis inside
    torch.testing.assert_close(together, model.cell(z, *args), rtol=1e-12, atol=1e-13)
    for part in (model.inject, model.cell):
        cast(torch.nn.Module, part).to("meta")  # has no values: reading one raises
    again = model.args(codes(3, T).to("meta"), tuple(t.to("meta") for t in args[1:3]))
    assert model.cell(z.to("meta"), *again).shape == z.shape


def test_memory_and_cell_are_copied_and_moved_together() -> None:
    model = copy.deepcopy(build(memory=4))
    with torch.no_grad():
        for parameter in model.cell.parameters():
            parameter.zero_()
    _, _, u_h, past = model.args(codes(2, T), (noise(2, 4, D), noise(2, 4, 3 * D)))
    assert torch.equal(past, u_h[..., D:])  # of the copy's cell, whose weights are zero
    assert not any(n.startswith("inject._cell") for n in model.module().state_dict())


# ---------------------------------------------------------------------------------------- dropout

DROPOUT: dict[str, Any] = {"dropout": 0.3, "attention_dropout": 0.2, "embedding_dropout": 0.2}


def layer_of(model: Model, gradient: Any = None, **options: Any) -> DEQ:
    return DEQ(model.cell, solver=Anderson(window=12), gradient=gradient, reltol=1e-12, **options)


def test_masks_stay_for_a_solve_and_are_off_in_evaluation() -> None:
    # Samples that are done leave the batch, the last one alone with the mask that all share.
    model = build(injection=6.0, length=4, memory=4, **DROPOUT)
    x, sizes = codes(5, 4), []
    layer = layer_of(model)
    args = model.args(x)
    model.cell.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    z = layer(*args)
    solution = layer.solution
    assert solution is not None
    assert solution.success  # of random numbers that change there is no equilibrium
    assert {1, 5} <= set(sizes)
    assert not torch.equal(layer(*args), z)
    model.module().eval()
    plain = build(injection=6.0, length=4, memory=4)
    torch.testing.assert_close(
        layer(*model.args(x)), equilibrium(plain, x)[0], rtol=0.0, atol=1e-10
    )
    assert torch.equal(model.readout(z), model.readout(z))


def test_what_is_dropped_is_a_feature_of_all_positions() -> None:
    model = build(dropout=0.5, width=64, embedding_dropout=0.5)
    z = noise(3, T, 64)
    readout = cast(torch.nn.Sequential, model.readout)[0]
    inject = cast(Any, model.inject)
    for out in (readout(z), inject.embedded(codes(3, T)), cast(Cell, model.cell).drop_o(z)):
        kept = out != 0
        assert torch.equal(kept, kept[:, :1].expand_as(kept))
        assert not torch.equal(kept[0], kept[1])
        assert 0.3 < float(kept.double().mean()) < 0.7
    code = cast(Cell, model.cell).drop_code(torch.ones(T, 64), 3)
    assert torch.equal(code, code[:1].expand_as(code))
    assert set(code.flatten().tolist()) == {0.0, 2.0}


def test_the_backward_meets_the_masks_of_the_forward() -> None:
    model = build(injection=6.0, memory=4, **DROPOUT)
    x, target = codes(4, T), codes(4, T, seed=5)
    memory = (noise(4, 4, D), noise(4, 4, 3 * D))
    found = []
    for gradient in (Implicit(reltol=1e-13), Unrolled()):
        torch.manual_seed(7)
        found.append(gradients(model, x, target, memory, gradient))
    for (name, _), g, r in zip(model.module().named_parameters(), *found, strict=True):
        assert float((g - r).norm()) < 1e-9 * (float(r.norm()) + 1e-3), name


# --------------------------------------------------------------------------------- explicit twin


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_explicit_twin_is_its_equations(norm: str) -> None:
    model = randomised(build(layers=3, norm=norm))
    assert model.explicit
    x = codes(2, T)
    p = {k: v.detach().numpy() for k, v in model.module().named_parameters()}
    got = model.cell(*model.args(x)).detach().numpy()
    for i in range(2):
        z = p["inject.E"][x[i].numpy()]
        for k in range(3):
            own = f"cell.layers.{k}."
            q = {"cell." + n.removeprefix(own): v for n, v in p.items() if n.startswith(own)}
            none = np.zeros((T, 3 * D)), np.zeros((0, D)), np.zeros((0, 3 * D))
            if norm == "post":
                z = block(q, z, *none, pre=False, window=0)
                continue
            # y = z + attention(LN(z)): the branch of the block with a network of zeros, of which
            # the attention is found by linearity of W_o in what it adds.
            z = z + attended(q, z)
            hidden = np.maximum(
                np.array([layer_norm(y) for y in z]) @ q["cell.W_1"].T + q["cell.b_1"], 0
            )
            z = z + hidden @ q["cell.W_2"].T + q["cell.b_2"]
        if norm == "pre":
            z = np.array([layer_norm(row) for row in z])
        np.testing.assert_allclose(got[i], z, rtol=1e-11, atol=1e-11)


def attended(p: dict[str, Array], z: Array) -> Array:
    """Return W_o attention(LN(z)) + b_o, of one sequence, by an explicit matrix of attention."""
    heads, _, size = p["cell.a"].shape
    c = np.array([layer_norm(row) for row in z])
    q, k, v = np.split(c @ p["cell.W_qkv"].T, 3, axis=1)
    distances = np.arange(len(z))[:, None] / 10000 ** (2 * np.arange(D // 2) / D)
    r = np.concatenate([np.sin(distances), np.cos(distances)], axis=1) @ p["cell.W_r"].T
    out = np.zeros_like(z)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        A = np.zeros((len(z), len(z)))
        for i in range(len(z)):
            for j in range(i + 1):
                A[i, j] = math.exp(
                    (
                        (q[i, part] + p["cell.a"][h, 0]) @ k[j, part]
                        + (q[i, part] + p["cell.b"][h, 0]) @ r[i - j, part]
                    )
                    / math.sqrt(size)
                )
        out[:, part] = A / A.sum(axis=1, keepdims=True) @ v[:, part]
    attention: Array = out @ p["cell.W_o"].T + p["cell.b_o"]
    return attention


def test_the_twins_parameters_are_those_of_its_blocks() -> None:
    L = 4
    model = build(layers=L)
    block_of_one = 5 * D * D + 4 * D + (2 * D + 1) * INNER
    twin = sum(p.numel() for p in model.module().parameters())
    assert twin == V * D + L * block_of_one + V * D + V
    equilibrium_model = sum(p.numel() for p in build().module().parameters())
    assert equilibrium_model == V * D + block_of_one + 3 * D * D + 3 * D + V * D + V
    first, second = (m["layers"] for m in (build(layers=2).cell._modules, model.cell._modules))
    assert len(cast(Any, first)) == 2
    assert len(cast(Any, second)) == L


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_twin_remembers_the_input_of_each_layer(norm: str) -> None:
    model = build(layers=3, norm=norm, memory=2 * T)
    whole = build(layers=3, norm=norm, length=3 * T)
    x = codes(2, 3 * T)
    joint = whole.readout(whole.cell(*whole.args(x)))
    memory: Memory = ()
    for k in range(3):
        args = model.args(x[:, k * T : (k + 1) * T], memory)
        z = model.cell(*args)
        torch.testing.assert_close(
            model.readout(z), joint[:, k * T : (k + 1) * T], rtol=0.0, atol=1e-13
        )
        memory = model.memory(z, args)
        assert [t.shape for t in memory] == 3 * [(2, min(k + 1, 2) * T, D)]
        assert not any(t.requires_grad for t in memory)


@pytest.mark.parametrize("memory", [0, T])
def test_the_checkpointed_twin_has_the_same_gradient(memory: int) -> None:
    model = build(layers=4, memory=memory, norm="pre", weight_norm=True)
    history = 4 * (noise(2, T, D),) if memory else ()
    found = []
    for options in ({}, {"segments": 2}):
        z = model.cell(*model.args(codes(2, T), history), **options)
        loss = model.loss(model.readout(z), codes(2, T, seed=5))
        found.append(torch.autograd.grad(loss, list(model.module().parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --------------------------------------------------------------------------------- all of it


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_everything_at_once_learns_what_follows(norm: str) -> None:
    """Each code is the one before plus 3."""
    model = build(
        norm=norm, width=8, inner=16, length=6, memory=6, weight_norm=True, dropout=0.05,
        embedding_dropout=0.05, tied=True, cutoffs=[3, 5], divisor=2,
    )  # fmt: skip
    text = (torch.tensor([[0], [3]]) + 3 * torch.arange(13)) % V
    gradient = Implicit(on_failure="ignore")
    layer = DEQ(model.cell, gradient=gradient, solver=Anderson(window=6), reltol=1e-2)
    optimiser, losses = torch.optim.Adam(model.module().parameters(), lr=3e-2), []
    for _ in range(20):
        memory: Memory = ()
        for k in (0, 6):
            optimiser.zero_grad()
            args = model.args(text[:, k : k + 6], memory)
            z = layer(*args)
            loss = model.loss(model.readout(z), text[:, k + 1 : k + 7])
            loss.backward()
            optimiser.step()
            memory = model.memory(z, args)
        losses.append(float(loss.detach()))
    assert losses[0] > 1.5  # log 7 = 1.95
    assert losses[-1] < 0.5 * losses[0], losses


def test_bad_options_say_what_is_allowed() -> None:
    def refused(message: str, **options: Any) -> None:
        with pytest.raises(OptionError, match=message):
            models.registry.get("transformer", **options)

    refused(r"model\.heads = 3: must divide width = 32", heads=3)
    refused(r"model\.memory = -1", memory=-1)
    refused(r"model\.window = -1", window=-1)
    refused(r"model\.layers = 0", layers=0)
    refused(r"model\.norm = 'both'", norm="both")
    refused(r"model\.dropout = 1", dropout=1.0)
    refused(r"cutoffs = \[40, 20\]: expected numbers from 1 to 127", cutoffs=[40, 20])
    refused(r"cutoffs = \[128\]: expected numbers from 1 to 127", cutoffs=[128])
    refused(r"cutoffs = \[\]: expected", cutoffs=[])
    refused(r"4 groups would have 32 / 4\^3 numbers", cutoffs=[10, 20, 30])
    refused(r"model\.initialisation = 0", initialisation=0.0)


def test_a_history_that_is_too_long_is_refused() -> None:
    model = build(memory=2)
    with pytest.raises(ValueError, match=r"a history of 3 positions: .* memory of 2"):
        model.cell(noise(1, T, D), *model.args(codes(1, T), (noise(1, 3, D), noise(1, 3, 3 * D))))
    with pytest.raises(ValueError, match=r"T = 4: .* up to 3"):
        model.cell(noise(1, 4, D), *model.args(codes(1, 4)))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_state_is_not_rounded_under_autocast(norm: str) -> None:
    options: dict[str, Any] = {
        "norm": norm,
        "memory": 4,
        "cutoffs": [2, 5],
        "divisor": 2,
        "weight_norm": True,
    }
    model, x = build(**options), codes(2, T)
    history = (noise(2, 4, D), noise(2, 4, 3 * D))
    exact = model.cell(noise(2, T, D), *model.args(x, history))
    model.module().float()
    with torch.autocast("cpu", torch.bfloat16):
        args = model.args(x, tuple(t.float() for t in history))
        rough = model.cell(noise(2, T, D).float(), *args)
        start = cast(Cell, model.cell).initial_state(*args)
    assert {start.dtype, rough.dtype, *(t.dtype for t in args)} == {torch.float32}
    torch.testing.assert_close(rough.double(), exact, rtol=0.0, atol=0.1)


def test_language_models_say_so() -> None:
    assert build().task == build(layers=2).task == "language"
    assert build().loss is token_cross_entropy
    assert build().remember is None
