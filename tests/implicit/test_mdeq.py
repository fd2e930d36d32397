"""The multiscale equilibrium: its equations written again, its sizes, its solves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrize

import solvers
from implicit import DEQ, Implicit, Phantom, Unrolled, models
from implicit.gradients import Gradient
from implicit.models import Model
from implicit.models.mdeq import Block, Cell, Conv, Segmenter, build
from implicit.normalisation import VariationalDropout
from solvers import Anderson, Broyden, FixedPointProblem
from solvers.options import OptionError

TINY = {"channels": 3, "size": 32, "branches": (24, 24), "head_channels": (8, 16), "final": 200}
LARGE = {
    "channels": 3,
    "size": 32,
    "branches": (32, 64, 128, 256),
    "head_channels": (14, 28, 56, 112),
    "final": 1680,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(**options: object) -> Model:
    torch.manual_seed(0)
    sizes: dict[str, object] = {"branches": (4, 4), "groups": 2, "expansion": 2, "final": 6}
    model: Model = models.registry.get("implicit.models.mdeq:build", **sizes | options)
    model.module().double()
    return model


def randomised(model: Model) -> Model:
    """Replace what is 0 or 1 at the start, so that no term can be forgotten."""
    with torch.no_grad():
        for name, t in model.module().state_dict().items():
            if t.is_floating_point():
                spread = 0.3 * torch.randn_like(t)
                t.copy_(1 + spread.abs() if "var" in name or "original0" in name else spread)
    return model


def images(count: int, numbers: int = 64, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(count, numbers, generator=g, dtype=torch.float64)


def some_state(model: Model, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    (injection,) = model.args(x)
    g = torch.Generator().manual_seed(2)
    zeros = start(model, injection)
    assert all(t.count_nonzero() == 0 for t in zeros)
    z = tuple(torch.randn(t.shape, generator=g, dtype=torch.float64) for t in zeros)
    return z, injection.detach()


def start(model: Model, x: Tensor) -> tuple[Tensor, ...]:
    assert isinstance(model.cell, Cell)
    return model.cell.initial_state(x)


def digits(first: int, count: int) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    rows = slice(first, first + count)
    return torch.tensor(x[rows] / 16, dtype=torch.float64), torch.tensor(y[rows])


# ------------------------------------------------------------------------- the published sizes


@pytest.mark.parametrize(
    ("options", "total", "cell", "state"),
    [(TINY, 158_890, 111_696, 30_720), (LARGE, 11_097_438, 8_715_232, 61_440)],
)
def test_the_models_of_the_paper_have_the_published_sizes(
    options: dict[str, object], total: int, cell: int, state: int
) -> None:
    with torch.device("meta"):
        model: Model = models.registry.get("implicit.models.mdeq:build", **options)
        x_0 = model.args(torch.empty(2, 3 * 32 * 32))[0]
        z = model.cell(start(model, x_0), x_0)
        assert model.readout(z).shape == (2, 10)
    assert sum(p.numel() for p in model.module().parameters()) == total
    assert sum(p.numel() for p in model.cell.parameters()) == cell
    assert sum(t[0].numel() for t in z) == state
    assert [t.shape[-1] for t in z] == [32 >> i for i in range(len(z))]


# -------------------------------------------------------------------------------- its equations


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    B, c, H, W = x.shape
    parts = x.reshape(B, groups, -1)
    centred = parts - parts.mean(-1, keepdim=True)
    y = (centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(B, c, H, W)
    if weight is None or bias is None:
        return y
    return weight[:, None, None] * y + bias[:, None, None]


def batch_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """With the running statistics."""
    mean, var = (p[f"{name}.running_{k}"][:, None, None] for k in ("mean", "var"))
    y = (x - mean) / (var + 1e-5).sqrt()
    if f"{name}.weight" not in p:
        return y
    return p[f"{name}.weight"][:, None, None] * y + p[f"{name}.bias"][:, None, None]


def normed_weight(p: dict[str, Tensor], name: str) -> Tensor:
    g, v = (p[f"{name}.parametrizations.weight.original{k}"] for k in (0, 1))
    norm: Tensor = v.flatten(1).norm(dim=1)
    return g * v / norm[:, None, None, None]


def published(
    p: dict[str, Tensor], z: Sequence[Tensor], x_0: Tensor, groups: int, masks: Sequence[Tensor]
) -> list[Tensor]:
    """One evaluation, from the published equations."""

    def gn(x: Tensor, name: str) -> Tensor:
        return group_norm(x, groups, p[f"{name}.weight"], p[f"{name}.bias"])

    n = len(z)
    y = []
    for i in range(n):
        k = f"blocks.{i}"
        a = F.conv2d(z[i], normed_weight(p, f"{k}.widen"), padding=1)
        a = gn(a, f"{k}.widened").clamp_min(0)
        b = masks[i] * F.conv2d(a, normed_weight(p, f"{k}.narrow"), padding=1)
        b = gn(b + x_0 if i == 0 else b, f"{k}.injected")
        y.append(gn((b + z[i]).clamp_min(0), f"{k}.added"))
    after = []
    for i in range(n):
        s = y[i]
        for j in range(i):
            t = y[j]
            for step in range(i - j):
                layer = 3 * step  # convolution, norm, relu
                t = F.conv2d(t, p[f"fusions.{j}_{i}.{layer}.weight"], stride=2, padding=1)
                t = gn(t, f"fusions.{j}_{i}.{layer + 1}")
                t = t.clamp_min(0) if step < i - j - 1 else t
            s = s + t
        for j in range(i + 1, n):
            t = gn(F.conv2d(y[j], p[f"fusions.{j}_{i}.0.weight"]), f"fusions.{j}_{i}.1")
            s = s + torch.kron(t, torch.ones(2 ** (j - i), 2 ** (j - i), dtype=t.dtype))
        out = F.conv2d(s.clamp_min(0), normed_weight(p, f"mixers.{i}"))
        last = p.get(f"norms.{i}.weight"), p.get(f"norms.{i}.bias")
        after.append(group_norm(out, groups // 2, *last))
    return after


@pytest.mark.parametrize("affine", [False, True])
def test_an_evaluation_is_the_published_equations(affine: bool) -> None:
    p = 0.4
    model = randomised(small(branches=(4, 8, 12), groups=4, dropout=p, affine=affine))
    z, x_0 = some_state(model, images(3))
    torch.manual_seed(5)  # masks by channel, drawn block by block, scaled
    masks = [
        torch.empty(3, c, 1, 1, dtype=torch.float64).bernoulli_(1 - p) / (1 - p) for c in (4, 8, 12)
    ]
    weights = {k: v.detach() for k, v in model.cell.state_dict().items()}
    torch.manual_seed(5)
    after = model.cell(z, x_0)
    expected = published(weights, z, x_0, 4, masks)
    for got, wanted in zip(after, expected, strict=True):
        torch.testing.assert_close(got.detach(), wanted, rtol=1e-10, atol=1e-11)
    model.cell.eval()
    kept = published(weights, z, x_0, 4, [torch.ones(())] * 3)
    for got, wanted in zip(model.cell(z, x_0), kept, strict=True):
        torch.testing.assert_close(got.detach(), wanted, rtol=1e-10, atol=1e-11)


def test_stem_and_classifier_are_the_published_equations() -> None:
    model = randomised(small(branches=(4, 8), halvings=1, size=8, head_channels=(1, 3)))
    model.module().eval()
    x = images(3)
    (x_0,) = model.args(x)
    p = {k: v.detach() for k, v in model.module().state_dict().items()}
    h = x.reshape(3, 1, 8, 8)
    for k, (stride, padding) in zip((0, 3, 6), ((2, 1), (1, 1), (1, 0)), strict=True):
        h = F.conv2d(h, p[f"inject.layers.{k}.weight"], stride=stride, padding=padding)
        h = batch_norm(h, p, f"inject.layers.{k + 1}").clamp_min(0)
    torch.testing.assert_close(x_0.detach(), h, rtol=1e-11, atol=1e-12)

    def bottleneck(z: Tensor, name: str) -> Tensor:
        h = z
        for k, padding in ((0, 0), (3, 1), (6, 0)):
            h = F.conv2d(h, p[f"{name}.residual.{k}.weight"], padding=padding)
            h = batch_norm(h, p, f"{name}.residual.{k + 1}")
            h = h.clamp_min(0) if k < 6 else h
        if f"{name}.shortcut.0.weight" in p:
            z = batch_norm(F.conv2d(z, p[f"{name}.shortcut.0.weight"]), p, f"{name}.shortcut.1")
        return (h + z).clamp_min(0)

    z, _ = some_state(model, x)
    down, final = "readout.down.0", "readout.final"
    h = F.conv2d(
        bottleneck(z[0], "readout.widened.0"),
        p[f"{down}.0.weight"],
        p[f"{down}.0.bias"],
        stride=2,
        padding=1,
    )
    h = bottleneck(z[1], "readout.widened.1") + batch_norm(h, p, f"{down}.1").clamp_min(0)
    h = F.conv2d(h, p[f"{final}.0.weight"], p[f"{final}.0.bias"])
    pooled = batch_norm(h, p, f"{final}.1").clamp_min(0).mean(dim=(2, 3))
    logits = pooled @ p["readout.linear.weight"].T + p["readout.linear.bias"]
    torch.testing.assert_close(model.readout(z).detach(), logits, rtol=1e-10, atol=1e-11)


def test_initial_values_are_the_published_ones() -> None:
    """N(0, 0.01²), but torch's own behind weight norm: uniform, of variance 1 / (3 inputs)."""
    model = small(branches=(16, 16), groups=8, expansion=5, injection=1.0, feedback=1.0)
    for module in model.module().modules():
        if not isinstance(module, Conv):
            continue
        weight = module.weight.detach()
        inputs = weight[0].numel()
        # A sample of n numbers is off by a part of 1 / √(2n): at 5 of those, one in a million is.
        near = {"rel": 5 / (2 * weight.numel()) ** 0.5}
        if parametrize.is_parametrized(module):
            assert float(weight.std()) == pytest.approx((3 * inputs) ** -0.5, **near)
            assert float(weight.abs().max()) <= inputs**-0.5
        else:
            assert float(weight.pow(2).mean().sqrt()) == pytest.approx(0.01, **near)
    for module in model.module().modules():
        if isinstance(module, nn.GroupNorm | nn.BatchNorm2d) and module.affine:
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())


# ------------------------------------------------------------------------------ what a cell is


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    model = small()
    x = images(4)
    (x_0,) = model.args(x)
    others = x_0.clone()
    others[1:] = torch.randn_like(others[1:])
    with torch.no_grad():
        one = two = start(model, x_0)
        alone = tuple(t[:1] for t in one)
        for _ in range(10):
            one, two = model.cell(one, x_0), model.cell(two, others)
            alone = model.cell(alone, x_0[:1])
    for s, t, u in zip(one, two, alone, strict=True):
        torch.testing.assert_close(s[:1], t[:1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(s[:1], u, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(s[1:], t[1:])


def test_transforms_of_a_tuple() -> None:
    model = small(branches=(2, 4))
    z, x_0 = some_state(model, images(3))
    together = model.cell(z, x_0)
    single = torch.func.vmap(model.cell)(z, x_0)  # without the axis of samples inside
    for s, t in zip(single, together, strict=True):
        torch.testing.assert_close(s, t, rtol=1e-11, atol=1e-12)
    tangent = tuple(torch.randn_like(t) for t in z)
    cotangent = tuple(torch.randn_like(t) for t in z)
    pushed = torch.func.jvp(lambda *t: model.cell(t, x_0), z, tangent)[1]
    pull = torch.func.vjp(lambda *t: model.cell(t, x_0), *z)[1]
    left = sum((a * b).sum() for a, b in zip(cotangent, pushed, strict=True))
    right = sum((a * b).sum() for a, b in zip(pull(cotangent), tangent, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_no_value_is_read_from_the_device() -> None:
    model = small(dropout=0.3)
    z, x_0 = some_state(model, images(2))
    model.module().to("meta")  # has no values: reading one raises
    after = model.cell(tuple(t.to("meta") for t in z), x_0.to("meta"))
    assert [t.shape for t in after] == [t.shape for t in z]


def test_low_precision_stays_near_and_the_state_keeps_its_own() -> None:
    model = small()
    z, x_0 = some_state(model, images(4))
    exact = model.cell(z, x_0)
    model.module().float()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.cell(tuple(t.float() for t in z), x_0.float())
        prediction = model.readout(rough)
    assert all(t.dtype == torch.float32 for t in rough)
    assert bool(prediction.isfinite().all())
    for r, e in zip(rough, exact, strict=True):
        # Four products in a row, each of which rounds to 8 bits, of numbers of the order of 1.
        torch.testing.assert_close(r.double(), e, rtol=0.0, atol=0.1)


# ----------------------------------------------------------------------------------- its solves


@pytest.mark.parametrize("solver", [Anderson(window=6), Broyden()])
def test_a_fresh_default_has_an_equilibrium(solver: solvers.BaseSolver) -> None:
    """The first row of the docstring's table."""
    for seed in range(5):
        torch.manual_seed(seed)
        model = build()
        model.module().double()
        x, _ = digits(16 * seed, 16)
        with torch.no_grad():
            (x_0,) = model.args(x)
            problem = FixedPointProblem(
                model.cell, start(model, x_0), (x_0,), samples_independent=True
            )
            solution = solvers.solve(problem, solver, reltol=1e-3, max_evaluations=30)
        assert solution.success
        assert int(solution.stats.sample_evaluations.min()) > 5


def test_masks_and_normalised_weights_are_made_once_for_a_solve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small(dropout=0.3)
    drawn: list[object] = []
    draw = VariationalDropout._drawn

    def counting(self: VariationalDropout, x: Tensor, shape: torch.Size) -> Tensor:
        drawn.append(self)
        return draw(self, x, shape)

    monkeypatch.setattr(VariationalDropout, "_drawn", counting)
    evaluations: list[object] = []
    weights: list[object] = []
    cell = model.cell
    cell.register_forward_hook(lambda *_: evaluations.append(1))
    normed = [m for m in cell.modules() if parametrize.is_parametrized(m)]
    assert len(normed) == 2 * 2 + 2
    for module in normed:
        module.parametrizations.weight.register_forward_hook(  # type: ignore[union-attr]
            lambda *_: weights.append(1)
        )
    layer = DEQ(cell, solver=Anderson(window=6), reltol=1e-6, max_evaluations=60)
    for solve in (1, 2):
        z = layer(*model.args(images(3)))
        model.readout(z).sum().backward()
        assert len(drawn) == 2 * solve  # once for each block
        assert len(weights) == len(normed) * solve
        assert len(evaluations) > 10 * solve
    assert {id(m) for m in drawn} == {id(b.drop) for b in cell.modules() if isinstance(b, Block)}


def test_implicit_and_unrolled_gradients_agree() -> None:
    """With masks, weight norm, and batch norm in front and behind."""

    def gradients(gradient: Gradient) -> dict[str, Tensor]:
        model = small(dropout=0.3, injection=4.0)
        module = model.module()
        torch.manual_seed(4)
        layer = DEQ(
            model.cell,
            solver=Anderson(window=8),
            gradient=gradient,
            reltol=1e-12,
            max_evaluations=200,
        )
        x, y = digits(0, 4)
        loss = model.loss(model.readout(layer(*model.args(x))), y)
        loss.backward()
        assert layer.solution is not None
        assert layer.solution.success
        return {k: p.grad for k, p in module.named_parameters() if p.grad is not None}

    implicit = gradients(Implicit(reltol=1e-12, max_products=300))
    unrolled = gradients(Unrolled())
    assert implicit.keys() == unrolled.keys()
    assert len(implicit) == len(list(small().module().parameters()))
    scale = max(float(t.abs().max()) for t in unrolled.values())
    for name, t in implicit.items():
        # 1e-12 over one minus the rate, and the last steps of Anderson's own derivative
        assert float((t - unrolled[name]).abs().max()) < 1e-8 * scale, name


def test_a_few_steps_of_training_learn() -> None:
    torch.manual_seed(0)
    model = build(branches=(8, 8), groups=4, expansion=3, final=32)
    layer = DEQ(
        model.cell,
        solver=Anderson(window=6),
        gradient=Phantom(3, 0.8),
        reltol=1e-2,
        max_evaluations=12,
        samples_independent=True,
    )
    optimiser = torch.optim.Adam(model.module().parameters(), lr=1e-2)
    x, y = digits(0, 32 * 40)
    losses = []
    for xs, ys in zip(x.float().split(32), y.split(32), strict=True):
        optimiser.zero_grad()
        loss = model.loss(model.readout(layer(*model.args(xs))), ys)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2.3, abs=0.2)
    assert sum(losses[-3:]) / 3 < 1.2


# ---------------------------------------------------------------------------- heads and options


@pytest.mark.parametrize("halvings", [0, 1])
def test_segmentation_classifies_each_pixel(halvings: int) -> None:
    model = small(head="segmentation", classes=3, channels=2, size=8, halvings=halvings)
    assert model.task == "segmentation"
    assert model.data is None
    z, _ = some_state(model, images(2, 128))
    logits = model.readout(z)
    assert logits.shape == (2, 3, 8, 8)
    target = torch.arange(2 * 64).reshape(2, 8, 8) % 3
    by_hand = -logits.log_softmax(1).gather(1, target[:, None]).mean()
    torch.testing.assert_close(model.loss(logits, target), by_hand)
    head = model.readout
    assert isinstance(head, Segmenter)
    assert sum(p.numel() for p in head.parameters()) == 8 * 8 + 8 + 2 * 8 + 3 * 8 + 3
    # A coarse state without a slope is the same anywhere, at every resolution.
    flat = (torch.ones_like(z[0]), -2 * torch.ones_like(z[1]))
    at_pixels = head(flat)
    torch.testing.assert_close(at_pixels, at_pixels[..., :1, :1].expand_as(at_pixels))


@pytest.mark.parametrize(
    "options",
    [
        {"branches": (2,), "size": 3, "groups": 2},
        {"branches": (1, 1), "size": 6, "groups": 1},
        {"branches": (2, 3, 4), "size": 4, "groups": 1},
        {"branches": (4, 8, 4), "size": 8, "groups": 2, "halvings": 1, "mix": False},
        {"branches": (4, 4), "size": 16, "halvings": 3, "weight_norm": False},
        {"branches": (4, 4), "head": "segmentation", "size": 2, "groups": 2},
    ],
)
def test_odd_sizes_run_and_every_parameter_is_used(options: dict[str, object]) -> None:
    model = small(**options)
    randomised(model)
    size = int(str(options.get("size", 8)))
    (x_0,) = model.args(images(3, size * size))
    z = start(model, x_0)
    for _ in range(2):
        z = model.cell(z, x_0)
    model.readout(z).pow(2).sum().backward()
    for name, p in model.module().named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, r"model\.size = 7: 2 resolutions .* a multiple of 2; pad or crop"),
        ({"size": 12, "halvings": 2}, r"size = 12: .* behind 2 halvings need a multiple of 8"),
        ({"branches": [4, 6], "groups": 4}, r"groups = 4: must divide .*\[4, 6\]; 2 does"),
        ({"groups": 3}, r"groups = 3: must be 1 or even"),
        ({"size": 2, "groups": 4}, r"groups = 4: where the image is a single pixel.*take 2"),
        ({"head_channels": [3]}, r"head_channels = \[3\]: needs one width for each of branches"),
        ({"branches": []}, r"model\.branches = \[\]: .*at least 1 item"),
        ({"dropout": 1.0}, r"model\.dropout = 1.0: .*less than 1"),
        ({"head": "detection"}, r"model\.head = 'detection': .*'segmentation'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        small(**options)


def test_images_of_another_size_are_refused() -> None:
    model = small(channels=3, size=4)
    assert model.args(images(2, 48))[0].shape == (2, 4, 4, 4)
    with pytest.raises(ValueError, match=r"64 numbers a sample: .* 3 × 4 × 4"):
        model.args(images(2, 64))
