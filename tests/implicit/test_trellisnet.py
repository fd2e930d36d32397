"""DEQ-TrellisNet: its cell by loops over numbers, causality, segments, depth, counts, spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import implicit
from implicit import DEQ, Implicit, Unrolled
from implicit.models import Model, registry, trellisnet
from implicit.models.stack import Stack
from solvers import FixedPointProblem, Picard
from solvers.options import OptionError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
Array = NDArray[np.float64]
SIZES: dict[str, Any] = {"vocabulary": 7, "width": 5, "embedding": 3}
DROPOUTS: dict[str, Any] = {
    "embedding_dropout": 0.3,
    "input_dropout": 0.3,
    "hidden_dropout": 0.3,
    "output_dropout": 0.3,
    "weight_dropout": 0.3,
}
# As published for words of the Penn Treebank: entries of both convolutions are N(0, 0.01²).
PTB: dict[str, Any] = {
    "vocabulary": 10_000,
    "width": 1400,
    "embedding": 400,
    "gain": 0.01 * 2800**0.5,
    "injection": 0.01 * 800**0.5,
    "embedding_dropout": 0.1,
    "input_dropout": 0.45,
    "hidden_dropout": 0.28,
    "output_dropout": 0.45,
    "weight_dropout": 0.5,
}


def build(seed: int = 0, **options: Any) -> Model:
    torch.manual_seed(seed)
    model = registry.get("trellisnet", **{**SIZES, **options})
    with torch.no_grad():
        for name, p in model.module().double().named_parameters():
            if p.dim() == 1:
                p.copy_(0.3 * torch.randn_like(p))  # biases are zero otherwise
            if name.endswith("original0"):
                p.mul_(1 + 0.5 * torch.rand_like(p))  # g is ‖v‖ otherwise
    return model


def codes(batch: int = 3, length: int = 6, seed: int = 1) -> Tensor:
    return torch.randint(0, 7, (batch, length), generator=torch.Generator().manual_seed(seed))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def equilibrium(model: Model, args: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        z: Tensor = model.cell.initial_state(*args)  # type: ignore[operator]
        for _ in range(300):
            z = model.cell(z, *args)
        assert float((model.cell(z, *args) - z).norm()) < 1e-13
    return z


# -------------------------------------------------------------------------------- the equations


def sigmoid(a: float) -> float:
    return float(1 / (1 + np.exp(-a)))


def weight(taps: nn.Module, channels: int) -> Array:
    """Return W (outputs, inputs, K) as the equations have it: W[n] = g[n] v[n] / ‖v[n]‖."""
    p = {k.rsplit(".")[-1]: q.detach().numpy() for k, q in taps.named_parameters()}
    g, v = p["original0"], p["original1"]
    W = np.stack([g[n, 0] * v[n] / np.sqrt((v[n] ** 2).sum()) for n in range(len(v))])
    return W.reshape(len(v), -1, channels).transpose(0, 2, 1)


def convolved(W: Array, b: Array, x: Array, before: Array) -> Array:
    """Return y (T, outputs) of x (T, inputs), with ``before`` (K - 1, inputs) on its left."""
    K = W.shape[2]
    padded = np.concatenate([before, x])
    out = np.zeros((len(x), len(W)))
    for t in range(len(x)):
        for n in range(len(W)):
            out[t, n] = b[n]
            for tap in range(K):
                for c in range(W.shape[1]):
                    out[t, n] += W[n, c, tap] * padded[t + tap, c]
    return out


def level(W: Array, b: Array, z: Array, u: Array, history: Array) -> Array:
    """Return the next state (T, 2 h) of one sample."""
    h = z.shape[1] // 2
    a = u + convolved(W, b, z[:, :h], history[:, :h])
    out = np.zeros_like(z)
    for t in range(len(z)):
        cell_before = history[-1, h:] if t == 0 else z[t - 1, h:]
        for n in range(h):
            i, o = sigmoid(a[t, n]), sigmoid(a[t, h + n])
            g, f = np.tanh(a[t, 2 * h + n]), sigmoid(a[t, 3 * h + n])
            out[t, h + n] = f * cell_before[n] + i * g
            out[t, n] = o * np.tanh(out[t, h + n])
    return out


@pytest.mark.parametrize("kernel", [2, 3])
def test_injection_cell_and_readout_are_their_equations(kernel: int) -> None:
    model = build(kernel=kernel)
    x, padding = codes(), kernel - 1
    h, E = 5, model.inject.E.detach().numpy()  # type: ignore[attr-defined]
    memory = draw(3, padding, 2 * h), draw(3, padding, 3)
    u, history, last = model.args(x, memory)
    z = draw(3, 6, 2 * h)
    after, logits = model.cell(z, u, history, last), model.readout(z)
    taps = {"inject": model.inject.taps, "cell": model.cell.taps}  # type: ignore[attr-defined]
    b = {k: taps[k].bias.detach().numpy() for k in taps}  # type: ignore[union-attr, operator]
    V, W = weight(taps["inject"], 3), weight(taps["cell"], h)  # type: ignore[arg-type]
    c = model.readout.c.detach().numpy()  # type: ignore[attr-defined]
    for s in range(3):
        e = E[x[s].numpy()]
        expected = convolved(V, b["inject"], e, memory[1][s].numpy())
        np.testing.assert_allclose(u[s].detach().numpy(), expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(last[s].numpy(), e[-padding:])
        there, known = z[s].numpy(), history[s].numpy()
        expected = level(W, b["cell"], there, u[s].detach().numpy(), known)
        np.testing.assert_allclose(after[s].detach().numpy(), expected, rtol=1e-12, atol=1e-13)
        expected = there[:, h - 3 : h] @ E.T + c
        np.testing.assert_allclose(logits[s].detach().numpy(), expected, rtol=1e-12, atol=1e-13)


def test_without_memory_all_before_the_first_token_is_zero() -> None:
    model, x = build(), codes()
    zeros = torch.zeros(3, 1, 10, dtype=torch.float64), torch.zeros(3, 1, 3, dtype=torch.float64)
    for a, b in zip(model.args(x), model.args(x, zeros), strict=True):
        assert torch.equal(a, b)
    z = model.cell.initial_state(*model.args(x))  # type: ignore[operator]
    assert z.shape == (3, 6, 10)
    assert z.count_nonzero() == 0


# ------------------------------------------------------------------------------------ time


def test_causality() -> None:
    model, x = build(), codes()
    u, history, last = (a.detach() for a in model.args(x))
    z = draw(3, 6, 10)
    jacobians = torch.func.vmap(torch.func.jacrev(model.cell, argnums=(0, 1)))(z, u, history, last)
    for J in jacobians:  # (B, T, 2 h, T, ·)
        strength = J.abs().sum(dim=(0, 2, 4))
        assert torch.equal(strength.triu(1), torch.zeros_like(strength))
        assert (strength.diagonal() > 0).all()
    # Two taps: a level looks one token back, in the state; u looks at its own token alone.
    reach = jacobians[0].abs().sum(dim=(0, 2, 4))
    assert (reach.diagonal(-1) > 0).all()
    assert torch.equal(reach.tril(-2), torch.zeros_like(reach))

    changed = x.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 7
    one, other = (equilibrium(model, model.args(v)) for v in (x, changed))
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])


@pytest.mark.parametrize("kernel", [2, 3])
def test_segments_have_the_equilibrium_of_the_whole(kernel: int) -> None:
    model, x = build(kernel=kernel), codes(length=9)
    whole = equilibrium(model, model.args(x))
    found, memory = [], ()
    for segment in (x[:, :4], x[:, 4:5], x[:, 5:]):  # one is shorter than three taps reach
        args = model.args(segment, memory)
        found.append(equilibrium(model, args))
        memory = model.memory(found[-1], args)
        assert [m.shape for m in memory] == [(3, kernel - 1, 10), (3, kernel - 1, 3)]
        assert not any(m.requires_grad for m in memory)
        # No state is held.
        assert all(m.untyped_storage().nbytes() <= 2 * m.nbytes for m in memory)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-12, atol=1e-13)
    alone = equilibrium(model, model.args(x[:, 5:]))
    assert not torch.allclose(alone, whole[:, 5:], atol=1e-3)


def test_the_spectrum_is_that_of_the_blocks_on_the_diagonal() -> None:
    model, x = build(gain=2.0), codes(batch=1)
    args = model.args(x)
    z = equilibrium(model, args)
    given = (z, *(a.detach() for a in args))
    J = torch.func.jacrev(model.cell)(*given).detach().squeeze(3).squeeze(0)
    radius = torch.linalg.eigvals(J.reshape(60, 60)).abs().max()
    blocks = [J[t, :5, t, :5] for t in range(6)]
    largest = max(float(torch.linalg.eigvals(b).abs().max()) for b in blocks)
    # The whole matrix is defective at zero; its largest eigenvalue is not.
    assert float(radius) == pytest.approx(largest, rel=1e-9)
    assert torch.linalg.matrix_norm(J.reshape(60, 60), 2) > 2 * radius
    for t in range(6):  # cell of the same time is not read
        assert J[t, :, t, 5:].count_nonzero() == 0


# ---------------------------------------------------------------------------------- depth


def test_a_budget_of_levels_is_the_loop_over_levels() -> None:
    model, x = build(), codes()
    args = model.args(x)
    z = model.cell.initial_state(*args)  # type: ignore[operator]
    problem = FixedPointProblem(model.cell, z, args)
    levels = implicit.solve(
        problem, Picard(), Unrolled(), fixed_budget=True, max_evaluations=8
    ).value
    for _ in range(8):
        z = model.cell(z, *args)
    assert isinstance(levels, Tensor)
    assert torch.equal(levels, z)
    parameters = list(model.module().parameters())
    gradients = [
        torch.autograd.grad(model.loss(model.readout(v), x), parameters, retain_graph=True)
        for v in (levels, z)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


def test_levels_with_weights_of_their_own() -> None:
    model, x = build(layers=4), codes()
    assert model.explicit
    assert isinstance(model.cell, Stack)
    args = model.args(x)
    z = torch.zeros(3, 6, 10, dtype=torch.float64)
    for cell in model.cell.layers:
        z = cell(z, *args)
    assert torch.equal(model.cell(*args), z)
    assert torch.equal(model.cell(*args, segments=2), z)
    assert model.memory(z, args)[0].shape == (3, 1, 10)
    tied = build()
    count = [sum(p.numel() for p in m.cell.parameters()) for m in (model, tied)]
    assert count[0] == 4 * count[1] == 4 * (2 * 5 * 20 + 20 + 20)


# ---------------------------------------------------------------------------- parameters


def test_the_published_size() -> None:
    with torch.device("meta"):
        model = registry.get("trellisnet", **PTB)
        tokens = model.args(torch.zeros(2, 3, dtype=torch.long))
        after = model.cell(model.cell.initial_state(*tokens), *tokens)  # type: ignore[operator]
        assert model.readout(after).shape == (2, 3, 10_000)
    total = sum(p.numel() for p in model.module().parameters())
    # Direction, length and bias of each convolution; the embedding is the decoder too, plus c.
    cell = 5600 * 2 * 1400 + 5600 + 5600
    inject = 5600 * 2 * 400 + 5600 + 5600
    assert sum(p.numel() for p in model.cell.parameters()) == cell == 15_691_200
    assert total == cell + inject + 10_000 * 400 + 10_000 == 24_192_400
    # The paper: 24M, of which 20M are not the embedding.
    assert round(total / 1e6) == 24
    assert round((total - 10_000 * 400) / 1e6) == 20


def test_the_size_of_copy_memory_in_the_paper() -> None:
    model = registry.get("trellisnet", vocabulary=10, width=32, embedding=20)
    assert sum(p.numel() for p in model.module().parameters()) == 14_034


def test_the_decoder_is_the_embedding_or_is_not() -> None:
    tied = build()
    assert tied.readout.W is tied.inject.E  # type: ignore[attr-defined]
    assert [k for k, _ in tied.module().named_parameters() if k.startswith("readout")] == [
        "readout.c"
    ]
    own = build(tied=False)
    assert own.readout.W.shape == (7, 5)  # type: ignore[attr-defined]
    assert own.readout(own.cell(draw(3, 6, 10), *own.args(codes()))).shape == (3, 6, 7)
    with pytest.raises(OptionError, match=r"model\.outputs = 4: .* embedding = 3; .* tied=False"):
        build(outputs=4)
    with pytest.raises(OptionError, match=r"model\.outputs = 6: at most width = 5"):
        build(outputs=6, tied=False)
    with pytest.raises(OptionError, match=r"model\.outputs = 9: at most width = 5"):
        build(embedding=9)
    with pytest.raises(OptionError, match=r"model\.kernel = 1"):
        build(kernel=1)


def test_weight_norm_is_an_option() -> None:
    plain = build(weight_norm=False)
    assert sum(p.numel() for p in plain.cell.parameters()) == 2 * 5 * 20 + 20
    normal = build()
    W = normal.cell.taps.weight  # type: ignore[union-attr]
    g = normal.cell.taps.parametrizations.weight.original0  # type: ignore[union-attr]
    torch.testing.assert_close(W.norm(dim=1, keepdim=True), g)  # type: ignore[operator, arg-type]


# -------------------------------------------------------------------------------- dropout


def test_dropout_is_the_same_for_a_solve_and_off_in_eval() -> None:
    model, x = build(**DROPOUTS), codes(batch=4, length=8)
    model.module().train()
    layer = DEQ(model.cell, gradient=Implicit(reltol=1e-9), reltol=1e-10)
    args = model.args(x)
    z = layer(*args)
    assert layer.solution is not None
    assert layer.solution.success  # one map, or there were no equilibrium
    model.loss(model.readout(z), x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert not torch.allclose(layer(*args), z)  # the next solve has other masks

    model.module().eval()
    plain = build()
    torch.testing.assert_close(
        equilibrium(model, model.args(x)), equilibrium(plain, plain.args(x)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("weight_norm", [True, False])
def test_connections_are_dropped_at_all_taps_but_the_last(weight_norm: bool) -> None:
    taps = trellisnet.Taps(4, 50, 3, 1.0, normalised=weight_norm, dropout=0.4)
    W = taps.weight.detach()
    taps.eval()
    whole = taps.weight.detach()
    dropped = W == 0
    assert 0.3 < dropped[:, :8].float().mean() < 0.5  # 400 of probability 0.4
    assert not dropped[:, 8:].any()
    ratio = W[:, :8] / W[:, 8:9] * whole[:, 8:9] / whole[:, :8]
    torch.testing.assert_close(
        ratio[~dropped[:, :8]], torch.full_like(ratio, 1 / 0.6)[~dropped[:, :8]]
    )
    if weight_norm:  # of the direction: the length stays
        torch.testing.assert_close(W.norm(dim=1), whole.norm(dim=1))


def test_words_and_channels_are_dropped_whole() -> None:
    model = build(embedding_dropout=0.5, weight_norm=False)
    inject = model.inject
    assert isinstance(inject, trellisnet.Injection)
    with torch.no_grad():
        inject.taps.weight[:, :3] = 0  # u_t is that of x_t alone
        inject.taps.bias.zero_()
    u, *_ = inject(torch.arange(7).repeat(2, 5))
    rows = u.reshape(10, 7, 20)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))  # at all places, in all samples
    dropped = (rows[0] == 0).all(-1)
    assert 0 < dropped.sum() < 7  # 1 of 64 is not so, and the seed is fixed
    right = 2 * inject.E @ inject.taps.weight[:, 3:].T
    torch.testing.assert_close(rows[0][~dropped], right[~dropped])

    model = build(input_dropout=0.5, width=4, embedding=4, weight_norm=False)
    inject = model.inject
    assert isinstance(inject, trellisnet.Injection)
    with torch.no_grad():
        inject.taps.weight.zero_()[:4, 4:] = torch.eye(4)
        inject.taps.bias.zero_()
    u, *_ = inject(torch.arange(7).repeat(2, 5))
    kept = (u[..., :4] != 0).unflatten(1, (5, 7))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))  # a sample's channels, at all times
    assert kept.any() and not kept.all()


# ------------------------------------------------------------------------------ gradients


def test_gradient_at_the_equilibrium_against_central_differences() -> None:
    model, x = build(), codes()
    parameters = dict(model.module().named_parameters())

    def loss() -> Tensor:
        args = model.args(x, (draw(3, 1, 10), draw(3, 1, 3)))
        problem = FixedPointProblem(model.cell, model.cell.initial_state(*args), args)  # type: ignore[operator]
        value = implicit.solve(problem, gradient=Implicit(reltol=1e-12), reltol=1e-13).value
        assert isinstance(value, Tensor)
        return model.loss(model.readout(value), x)

    got = torch.autograd.grad(loss(), list(parameters.values()))
    g = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in parameters.values()]
    h = 1e-6

    def moved(step: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters.values(), direction, strict=True):
                p.add_(step * d)
            value = float(loss())
            for p, d in zip(parameters.values(), direction, strict=True):
                p.sub_(step * d)
        return value

    slope = (moved(h) - moved(-h)) / (2 * h)
    along = sum(float((a * d).sum()) for a, d in zip(got, direction, strict=True))
    # 1e-13 / 1e-6, and h² times a third derivative
    assert along == pytest.approx(slope, rel=1e-6)


def test_gradcheck_of_the_cell() -> None:
    model = build(width=2, embedding=2)
    u, history, last = (a.detach() for a in model.args(codes(2, 3)))
    z = draw(2, 3, 4).requires_grad_()
    inputs = (z, u.requires_grad_(), history.requires_grad_())
    call = lambda z, u, history: model.cell(z, u, history, last)  # noqa: E731
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
