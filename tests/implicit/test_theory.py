"""Theory as code: universality, stacking, infinite depth, injection."""

from __future__ import annotations

import math

import pytest
import torch
from cells import Cell, exact, f, injection, weights
from torch import Tensor, nn

import implicit
from implicit import Implicit, models, theory
from implicit.theory import Block, Joint, Network, block_of, rate
from solvers import (
    Anderson,
    Broyden,
    FixedPointProblem,
    Newton,
    NewtonKrylov,
    OptionError,
    Picard,
    linear,
    registry,
)

# Rounding of a few dozen sums of a few numbers.
ROUNDING = 1e-13
WIDTHS = ((3, 5), (3, 4, 6, 2), (4, 7, 7, 7, 7, 7, 7))

every_activation = pytest.mark.parametrize("activation", sorted(theory.ACTIVATIONS))
every_network = pytest.mark.parametrize("widths", WIDTHS)


def inputs(size: int, batch: int = 3) -> Tensor:
    return injection(batch, size, seed=4)


# -- universality ---------------------------------------------------------------------------------


@every_activation
@every_network
def test_a_block_is_its_network_layer_by_layer(widths: tuple[int, ...], activation: str) -> None:
    network, x = Network(widths, gain=2.0, activation=activation, seed=1), inputs(widths[0])
    block, layers = block_of(network), network.layers(x)
    assert block.W_z.shape == (sum(widths[1:]), sum(widths[1:]))  # as wide as all layers together
    z = torch.randn(3, sum(widths[1:]), dtype=torch.float64)  # whatever it starts from
    for k, _ in enumerate(layers, 1):
        z = block(z, x)
        for part, layer in zip(block.split(z)[:k], layers, strict=False):
            assert theory.relative([part], [layer]) <= ROUNDING
    assert torch.equal(block(z, x), z)  # a fixed point, bit by bit


@every_activation
@every_network
def test_what_nilpotency_does(widths: tuple[int, ...], activation: str) -> None:
    depth = len(widths) - 1
    network = Network(widths, gain=2.5, activation=activation, seed=2)
    others = (Broyden(), Newton())
    found = theory.universality(network, inputs(widths[0]), others=others)
    assert found.depth == depth
    for k in range(depth):
        assert float(found.layer_errors[k + 1 :, k].max()) <= ROUNDING
        assert float(found.layer_errors[k, k]) > 1e-3  # and not a step before
    assert found.radius == 0
    assert float(found.powers[depth]) == 0
    assert float(found.powers[:depth].min()) > 0
    picard = found.solves["picard"]
    assert picard.success
    assert picard.stats.evaluations == depth + 1  # the last one sees that the residual is 0
    assert float(picard.residual.max()) == 0
    assert all(solution.success for solution in found.solves.values())
    assert found.adjoint.success
    assert found.adjoint.stats.vjps <= depth
    assert found.implicit <= ROUNDING
    assert float(found.neumann[depth - 1]) <= ROUNDING
    if depth > 1:
        assert float(found.neumann[depth - 2]) > 1e-6


def test_a_radius_of_zero_is_no_rate() -> None:
    """‖J‖ > 1: what a rate of 0 would end at once takes secant methods longer than Picard."""
    network = Network((8, *[12] * 8), gain=1.5)
    found = theory.universality(network, inputs(8), others=(Anderson(window=50), Broyden()))
    assert float(found.powers[1]) > 2
    assert float(found.powers[7]) > 1
    for name in ("anderson", "broyden"):
        assert found.solves[name].stats.evaluations > found.solves["picard"].stats.evaluations


def test_the_block_can_be_solved_for_by_any_solver() -> None:
    network, x = Network((3, 4, 4), seed=3), inputs(3)
    block = block_of(network)
    problem = FixedPointProblem(block, block.initial_state(x), (x,), samples_independent=True)
    for name in ("anderson", "newton_krylov", "fallback"):
        with torch.no_grad():
            found = implicit.solve(problem, registry.get(name), reltol=1e-12)
        assert isinstance(found.value, Tensor)
        assert theory.relative(block.split(found.value), network.layers(x)) < 1e-10


def test_a_network_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="widths"):
        Network((3,))
    with pytest.raises(OptionError, match="did you mean 'tanh'"):
        Network((3, 4), activation="tanhh")


def test_gradients_are_sorted_by_layer() -> None:
    network = Network((2, 3, 4, 2), seed=5)
    block = block_of(network)
    assert isinstance(block, Block)
    W, b = block.as_layers(block.W_z.detach(), block.W_x.detach(), block.b.detach())
    for mine, theirs in ((W, network.W), (b, network.b)):
        assert all(torch.equal(m, t) for m, t in zip(mine, theirs, strict=True))
    # Nothing else is in the matrices.
    total = sum(float(w.abs().sum()) for w in W)
    every = block.W_z.detach().abs().sum() + block.W_x.detach().abs().sum()
    assert float(every) == pytest.approx(total)


# -- stacking -------------------------------------------------------------------------------------


class Wider(nn.Module):
    """An equilibrium of 5 numbers whose input has 4."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(5, 0.8, 6))
        self.U = nn.Parameter(weights(5, 1.0, 7)[:, :4].clone())

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.T + u @ self.U.T)


@pytest.mark.parametrize("second", [Cell(4, 0.9, 3), Wider()])
def test_two_equilibria_in_sequence_are_one(second: nn.Module) -> None:
    x = injection()
    starts = (torch.zeros_like(x), x.new_zeros(3, 5 if isinstance(second, Wider) else 4))
    methods = (Picard(), Anderson(window=10), Broyden(), NewtonKrylov(), Newton())
    found = theory.stacking(Cell(4, 0.95), second, x, starts, methods, reltol=1e-12)
    assert set(found.by_solver) == {m.name for m in methods}
    for name, part in found.by_solver.items():
        assert part.first.success
        assert part.second.success
        assert part.joint.success
        # Two solves to 1e-12, times the condition of I − J, below 1 / (1 − 0.95).
        assert part.state < 1e-10, name
        assert part.gradient < 1e-10, name
        total = part.first.stats.evaluations + part.second.stats.evaluations
        assert part.joint.stats.evaluations <= total, name
    first, two, joint = found.radii
    # Eigenvalues of a matrix of 9 numbers a row, which is not normal.
    assert joint == pytest.approx(max(first, two), rel=1e-10)


def test_the_gradient_of_a_stack_is_that_of_dense_algebra() -> None:
    """Against the exact derivative of two tanh equilibria, and not only against itself."""
    W1, W2, x = weights(4, 0.7, 1), weights(4, 0.6, 2), injection()
    c = theory._random((3, 4), x, 0)
    z1 = x
    for _ in range(300):
        z1 = f(z1, x, W1)
    into_first, dW2 = exact(z1, W2, c)
    dx, dW1 = exact(x, W1, into_first)
    first, second = Cell(), Cell()
    with torch.no_grad():
        first.W.copy_(W1)
        second.W.copy_(W2)
    leaf = x.clone().requires_grad_()
    zero = torch.zeros_like(x)
    problem = FixedPointProblem(Joint(first, second), (zero, zero), (leaf,))
    gradient = Implicit(solver=linear.GMRES(), reltol=1e-12)
    value = implicit.solve(problem, Broyden(), gradient, reltol=1e-12).value
    found = torch.autograd.grad((value[1] * c).sum(), (leaf, first.W, second.W))
    for mine, theirs in zip(found, (dx, dW1, dW2), strict=True):
        assert theory.relative([mine], [theirs]) < 1e-10


# -- infinite depth -------------------------------------------------------------------------------


def tanh_problem(scale: float, dim: int = 30) -> FixedPointProblem:
    cell = Cell(dim)
    with torch.no_grad():
        noise = torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)).double()
        cell.W.copy_(scale / math.sqrt(dim) * noise)
    u = 0.3 * injection(2, dim)
    return FixedPointProblem(cell, torch.zeros_like(u), (u,), samples_independent=True)


def test_a_linear_network_of_depth_L_is_a_truncated_series() -> None:
    """z_L = Σ_{k<L} Jᵏ u and dz_L/du likewise, so that every number is known."""

    A = weights(5, 0.8, 2)

    class Linear(nn.Module):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return z @ A.T + u

    u = injection(3, 5)
    problem = FixedPointProblem(Linear(), torch.zeros_like(u), (u,), samples_independent=True)
    depths = [1, 3, 10]
    found = theory.infinite_depth(problem, depths)
    whole = torch.linalg.inv(torch.eye(5, dtype=torch.float64) - A)
    c = theory._random((3, 5), u, 0)
    for position, depth in enumerate(depths):
        rest = torch.linalg.matrix_power(A, depth) @ whole
        state = float((u @ rest.T).norm() / (u @ whole.T).norm())
        assert float(found.gradients[position]) == pytest.approx(
            float((c @ rest).norm() / (c @ whole).norm()), rel=1e-9
        )
        if depth < len(found.errors):
            assert float(found.errors[depth]) == pytest.approx(state, rel=1e-9)
    assert found.radius == pytest.approx(float(torch.linalg.eigvals(A).abs().max()), rel=1e-10)


@pytest.mark.parametrize("scale", [0.6, 0.9])
def test_depth_tends_to_the_equilibrium_at_the_spectral_radius(scale: float) -> None:
    depths = list(range(4, 200, 4))
    found = theory.infinite_depth(tanh_problem(scale), depths)
    assert found.equilibrium.success
    steps = rate(range(len(found.steps)), found.steps.tolist())
    gradients = rate(depths, found.gradients.tolist(), power=1)
    assert steps is not None
    assert gradients is not None
    # Dominant eigenvalues are pairs, which turn: the fit goes over a few turns.
    assert steps == pytest.approx(found.radius, rel=0.03)
    assert gradients == pytest.approx(found.radius, rel=0.05)


def test_beyond_a_radius_of_one_there_is_no_limit_but_an_equilibrium() -> None:
    found = theory.infinite_depth(tanh_problem(1.5), [1, 50, 200])
    assert found.radius > 1
    assert found.equilibrium.success
    assert float(found.steps[-20:].min()) > 1e-2
    assert float(found.gradients[-1]) > 1


def test_any_model_may_be_deepened() -> None:
    torch.manual_seed(0)
    model = models.registry.build({"name": "transformer", "width": 8, "inner": 8, "length": 4})
    for part in (model.inject, model.cell):
        part.double()  # type: ignore[union-attr]
    u = model.args(torch.randint(0, 128, (2, 4)))[0]
    problem = FixedPointProblem(model.cell, model.cell.initial_state(u), (u,))  # type: ignore[operator]
    found = theory.infinite_depth(problem, [2, 64])
    assert found.radius < 1
    assert float(found.gradients[1]) < float(found.gradients[0])


def test_the_fit_of_a_rate() -> None:
    k = list(range(1, 60))
    assert rate(k, [3 * 0.8**n for n in k]) == pytest.approx(0.8)
    assert rate(k, [3 * n * 0.8**n for n in k], power=1) == pytest.approx(0.8)
    floored = [max(0.5**n, 1e-15) for n in k]
    assert rate(k, floored) == pytest.approx(0.5)
    assert rate([1, 2], [0.5, 0.25]) is None
    assert rate(k, [math.nan] * len(k)) is None


# -- injection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("contraction", [0.5, 0.95])
def test_without_injection_the_input_is_forgotten(contraction: float) -> None:
    found = theory.injection(injection(16, 20), depth=30, contraction=contraction, seed=1)
    k = torch.arange(31, dtype=torch.float64)
    for name in ("tied", "untied"):
        # Below 1e-28 are rounding errors, which no bound on variances knows.
        bound = (contraction ** (2 * k)).clamp_min(1e-28)
        assert bool((found.variance[name] <= bound * (1 + 1e-12)).all()), name
    assert found.limits["tied"] < 1e-20
    assert found.gradients["tied"] == 0
    assert found.limits["injected"] > 0.1
    assert found.gradients["injected"] > 0.1
    # The network of 30 layers is at its fixed point, to ‖W‖³⁰ or better.
    last = float(found.variance["injected"][-1])
    assert last == pytest.approx(found.limits["injected"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "match"), [({"depth": 0}, "depth = 0"), ({"contraction": 1.0}, "contraction = 1")]
)
def test_sizes_of_the_injection(options: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        theory.injection(injection(), **options)
