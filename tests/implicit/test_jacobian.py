"""The spectrum at an equilibrium, the penalty on its Jacobian, and losses on iterates."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cells import NATIVE, Cell, f, injection, relative, weights
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Implicit, Neumann, Phantom, Unrolled
from implicit.corrections import Watch, correction_loss
from implicit.jacobian import (
    JacobianRegularisation,
    LinearGrowth,
    Spectrum,
    eigenvalues,
    jacobian_penalty,
    spectral_radius,
)
from implicit.normalisation import VariationalDropout
from solvers import Anderson, FixedPointProblem, OptionError, Picard, RootProblem


def value(t: Tensor) -> float:
    return t.detach().item()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Pair(nn.Module):
    """A state of two tensors of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(weights(6, 0.7, 3))

    def initial_state(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(u), u.new_zeros(len(u), 2, 1)

    def forward(self, z: tuple[Tensor, Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([z[0], z[1].flatten(1)], dim=1) @ self.A.T
        return torch.tanh(both[:, :4] + u), torch.sin(both[:, 4:, None])


class Mixing(Cell):
    """Samples see each other."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return super().forward(0.5 * z + 0.5 * z.mean(dim=0), u)


class Dropping(nn.Module):
    """Drops out, by torch's dropout or by ours."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.cell, self.drop = Cell(), drop

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return self.cell(self.drop(z), u)  # type: ignore[no-any-return]


CELLS: dict[str, Callable[[], nn.Module]] = {"tensor": Cell, "tuple": Pair, "coupled": Mixing}


def solved(cell: nn.Module, u: Tensor) -> tuple[DEQ, solvers.problem.State]:
    layer = DEQ(cell, reltol=1e-10)
    return layer, layer(u)


def dense(cell: nn.Module, z: solvers.problem.State, u: Tensor) -> Tensor:
    """The Jacobian of the whole batch (B·D, B·D)."""
    parts = z if isinstance(z, tuple) else (z,)

    def flat(*leaves: Tensor) -> Tensor:
        out = cell(leaves if isinstance(z, tuple) else leaves[0], u)
        return torch.cat([t.reshape(-1) for t in (out if isinstance(out, tuple) else (out,))])

    blocks = torch.autograd.functional.jacobian(flat, tuple(t.detach() for t in parts))
    return torch.cat([b.flatten(1) for b in blocks], dim=1)


# -- the spectrum ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_the_spectrum_is_that_of_the_dense_jacobian(name: str) -> None:
    cell, u = CELLS[name](), injection()
    layer, z = solved(cell, u)
    known = torch.linalg.eigvals(dense(cell, z, u).detach()).abs().max()
    # Sin and tanh change their slope by about the error of z*, 1e-10.
    assert float(spectral_radius(layer, u).max()) == pytest.approx(float(known), rel=1e-8)
    found = eigenvalues(layer, u)
    assert float(found.radius.max()) == pytest.approx(float(known), rel=1e-8)
    problem = FixedPointProblem(cell, layer.initial_state(u), (u,))
    # A problem is solved to 1e-6 on its own.
    assert float(spectral_radius(problem).max()) == pytest.approx(float(known), rel=1e-4)


def test_growth_agrees_with_arnoldi() -> None:
    layer, _ = solved(Cell(), injection())
    grown = spectral_radius(layer, injection(), method="growth", products=4000)
    # The mean over 2000 products of a pair that turns: its phase is worth a product or so.
    assert torch.allclose(grown, spectral_radius(layer, injection()), rtol=2e-3)


def test_extreme_eigenvalues() -> None:
    found = Spectrum(torch.tensor([[-0.9 + 0.0j, 0.2 + 0.6j, 0.2 - 0.6j, 0.5 + 0.0j]]))
    assert float(found.radius) == pytest.approx(0.9)
    assert float(found.rightmost) == pytest.approx(0.5)
    assert float(found.leftmost) == pytest.approx(-0.9)
    assert float(found.gap) == pytest.approx(0.5)


def test_a_look_at_the_spectrum_changes_nothing() -> None:
    class Noisy(Dropping):
        def __init__(self) -> None:
            super().__init__(nn.Dropout(0.3))
            self.norm = nn.BatchNorm1d(4, dtype=torch.float64)

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.tanh(0.3 * self.norm(super().forward(z, u)))

    layer = DEQ(Noisy())
    layer(injection())
    solution, state = layer.solution, torch.get_rng_state()
    buffers = {name: t.clone() for name, t in layer.named_buffers()}
    eigenvalues(layer, injection(), products=4)
    spectral_radius(layer, injection(), products=4)
    assert layer.solution is solution
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, buffers[name]) for name, t in layer.named_buffers())


def test_a_problem_has_its_own_args() -> None:
    problem = FixedPointProblem(Cell(), injection(), (injection(),))
    with pytest.raises(TypeError, match="its own args"):
        spectral_radius(problem, injection())
    with pytest.raises(TypeError, match="its own args"):
        jacobian_penalty(problem, injection(), injection())


# -- the penalty ----------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", ["normal", "rademacher"])
@pytest.mark.parametrize("name", CELLS)
def test_the_penalty_is_unbiased(name: str, probes: str) -> None:
    cell, u = CELLS[name](), injection()
    _, z = solved(cell, u)
    J = dense(cell, z, u).detach()
    exact = float((J * J).sum()) / len(J)
    draw = generator(1)
    with torch.no_grad():
        found = torch.stack(
            [
                jacobian_penalty(cell, z, u, probes=probes, generator=draw)  # type: ignore[arg-type]
                for _ in range(1500)
            ]
        )
    error = float(found.std()) / len(found) ** 0.5
    # Six trials: four standard errors are exceeded by chance in one of 2600 sets of them.
    assert abs(float(found.mean()) - exact) < 4 * error
    assert error < 0.05 * exact


def test_several_samples_are_the_mean_of_as_many_probes() -> None:
    cell, u = Cell(), injection()
    _, z = solved(cell, u)
    one, many = generator(), generator()
    singles = [jacobian_penalty(cell, z, u, generator=one) for _ in range(5)]
    together = jacobian_penalty(cell, z, u, samples=5, generator=many)
    assert torch.allclose(together, torch.stack(singles).mean(), rtol=1e-12)
    calls: list[int] = []
    cell.register_forward_hook(lambda *_: calls.append(1))
    jacobian_penalty(cell, z, u, samples=5)
    assert len(calls) == 1


def test_the_penalty_of_a_root_problem_is_that_of_its_fixed_point() -> None:
    cell, u = Cell(), injection()
    _, z = solved(cell, u)
    assert isinstance(z, Tensor)
    root = RootProblem(lambda z, u: cell(z, u) - z, z.detach(), (u,))
    own = jacobian_penalty(root, z, generator=generator())
    assert torch.allclose(own, jacobian_penalty(cell, z, u, generator=generator()), rtol=1e-12)


def test_gradients_in_parameters_args_and_state() -> None:
    class Of(nn.Module):
        def __init__(self, W: Tensor) -> None:
            super().__init__()
            self.W = W

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return f(z, u, self.W)

    def penalty(W: Tensor, z: Tensor, u: Tensor) -> Tensor:
        return jacobian_penalty(Of(W), z, u, generator=generator())

    W, z, u = weights(3), 0.5 * injection(2, 3, 5), injection(2, 3)
    assert torch.autograd.gradcheck(penalty, [t.requires_grad_() for t in (W, z, u)])


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_goes_through_the_equilibrium(name: str) -> None:
    """Against central differences of the penalty at the equilibrium that moves along."""
    cell = CELLS[name]()
    u = injection()
    (parameter,) = cell.parameters()

    def penalty(layer: DEQ) -> Tensor:
        return jacobian_penalty(layer.cell, layer(u), u, generator=generator())

    layer = DEQ(cell, reltol=1e-13)
    (found,) = torch.autograd.grad(penalty(layer), parameter)
    direction = torch.randn(parameter.shape, generator=generator(2), dtype=torch.float64)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(direction, alpha=sign * step)
            values.append(value(penalty(layer)))
            parameter.sub_(direction, alpha=sign * step)
    difference = (values[0] - values[1]) / (2 * step)
    # step² of the third derivative, and 1e-13 / step of rounding.
    assert value((found * direction).sum()) == pytest.approx(difference, rel=1e-6)


def test_without_grad_there_is_no_graph() -> None:
    cell, u = Cell(), injection()
    _, z = solved(cell, u)
    with torch.no_grad():
        found = jacobian_penalty(cell, z, u)
    assert not found.requires_grad
    assert found > 0
    assert value(jacobian_penalty(lambda z, u: u, z, u)) == 0  # a constant map


def test_the_penalty_under_autocast_is_of_the_cell_under_autocast() -> None:
    cell, u = Cell().float(), injection().float()
    layer = DEQ(cell, reltol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        z = layer(u)
        found = jacobian_penalty(cell, z, u, generator=generator())
    exact = jacobian_penalty(cell, z, u, generator=generator())
    assert found.dtype == torch.float32
    # The precision of bfloat16 is 2⁻⁸, a few times over.
    assert 0 < relative(found.detach(), exact.detach()) < 0.05
    found.backward()
    assert torch.isfinite(cell.W.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("drop", [nn.Dropout(0.4), VariationalDropout(0.4, "features")])
def test_a_watched_problem_has_the_masks_of_the_solve(drop: nn.Module) -> None:
    layer, u = DEQ(Dropping(drop), reltol=1e-10), injection()
    watch = Watch()
    with watch.on(layer):
        z = layer(u)
    assert watch.problem is not None
    own = [value(jacobian_penalty(watch.problem, z, generator=generator())) for _ in range(3)]
    assert len(set(own)) == 1
    residual = watch.problem.function(z, *watch.problem.args, *watch.problem.params) - z
    assert float(residual.detach().norm()) < 1e-9  # of this map z is the equilibrium
    other = {value(jacobian_penalty(layer, z, u, generator=generator())) for _ in range(3)}
    assert len(other) == 3


@pytest.mark.parametrize(("samples", "match"), [(0, "samples = 0")])
def test_a_wrong_number_of_samples(samples: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        jacobian_penalty(Cell(), injection(), injection(), samples=samples)


def test_unknown_probes() -> None:
    with pytest.raises(OptionError, match="normal"):
        jacobian_penalty(Cell(), injection(), injection(), probes="norml")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="normal"):
        JacobianRegularisation(probes="norml")  # type: ignore[arg-type]


# -- the regularisation ---------------------------------------------------------------------------


def test_the_weight_grows_as_published() -> None:
    weight = LinearGrowth(1.9, 0.1, every=35_000, most=2.05, until=200_000)
    assert [weight(k) for k in (0, 34_999, 35_000, 150_000, 199_999, 200_000)] == pytest.approx(
        [1.9, 1.9, 2.0, 2.05, 2.05, 0.0]
    )


def test_steps_are_chosen_with_the_probability_and_again_the_same() -> None:
    regularise = JacobianRegularisation(weight=2.0, probability=0.35)
    chosen = [regularise.weight_at(k) for k in range(4000)]
    assert set(chosen) == {0.0, 2.0}
    # Four standard deviations of the share, √(0.35 · 0.65 / 4000).
    assert sum(map(bool, chosen)) / 4000 == pytest.approx(0.35, abs=4 * 0.0076)
    state = torch.get_rng_state()
    assert chosen == [JacobianRegularisation(2.0, 0.35).weight_at(k) for k in range(4000)]
    assert torch.equal(torch.get_rng_state(), state)
    assert chosen != [JacobianRegularisation(2.0, 0.35, seed=1).weight_at(k) for k in range(4000)]


def test_what_is_added_to_the_loss() -> None:
    cell, u = Cell(), injection()
    layer, z = solved(cell, u)
    assert isinstance(z, Tensor)
    never = JacobianRegularisation(weight=3.0, probability=0.0)
    assert value(never(layer, z, u, step=0)) == 0
    torch.manual_seed(0)
    once = JacobianRegularisation(weight=lambda step: 3.0 * step)(layer, z, u, step=2)
    torch.manual_seed(0)
    assert torch.allclose(once, 6 * jacobian_penalty(cell, z.detach(), u), rtol=1e-12)
    torch.manual_seed(0)
    through = JacobianRegularisation(weight=6.0, through=True)(layer, z, u, step=2)
    assert torch.equal(once, through)
    with_z, without = (
        torch.autograd.grad(t, cell.W, retain_graph=True)[0] for t in (through, once)
    )
    assert relative(with_z, without) > 1e-3


def test_a_regularised_training_ends_at_a_smaller_jacobian() -> None:
    u = injection(16)
    target = injection(16, seed=7)

    def trained(weight: float) -> tuple[float, int]:
        torch.manual_seed(0)
        layer, readout = (
            DEQ(Cell(norm=0.95), solver=Picard(), reltol=1e-6),
            nn.Linear(4, 4).double(),
        )
        regularise = JacobianRegularisation(weight, probability=0.5)
        optimiser = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=0.02)
        for step in range(40):
            z = layer(u)
            loss = (readout(z) - target).square().mean() + regularise(layer, z, u, step=step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        z = layer(u)
        assert layer.solution is not None
        return value(jacobian_penalty(layer, z, u, samples=50)), layer.solution.stats.evaluations

    plain, regular = trained(0.0), trained(3.0)
    assert regular[0] < 0.5 * plain[0]
    assert regular[1] < plain[1]


# -- corrections ----------------------------------------------------------------------------------


def test_the_loss_is_discounted_from_the_last() -> None:
    states = [torch.tensor(float(k)) for k in (1, 2, 4)]
    assert float(correction_loss(states, lambda z: z, 0.5)) == pytest.approx(0.25 + 1 + 4)
    assert float(correction_loss(states, lambda z: z, 0.0)) == 4
    with pytest.raises(ValueError, match="empty"):
        correction_loss([], lambda z: z)
    with pytest.raises(ValueError, match=r"discount = 1\.5"):
        correction_loss(states, lambda z: z, 1.5)


@pytest.mark.parametrize("name", ["tensor", "tuple", "coupled"])
def test_iterates_are_those_of_the_network(name: str) -> None:
    """Behind plain iteration, a step from iterate k is the network of k layers."""
    cell, u = CELLS[name](), injection()
    layer, watch = DEQ(cell, solver=Picard(), reltol=1e-8), Watch(at=(1, 3, 6))
    with watch.on(layer):
        layer(u)
    assert watch.points == (1, 3, 6)
    z = layer.initial_state(u)
    for k in range(1, 7):
        z = cell(z, u)
        if k in watch.points:
            state = watch.states()[watch.points.index(k)]
            pairs = zip(state, z, strict=True) if isinstance(z, tuple) else [(state, z)]
            assert all(torch.equal(a, b) for a, b in pairs)


def test_the_gradient_of_a_state_is_that_of_its_steps() -> None:
    cell, u = Cell(), injection().requires_grad_()
    layer, watch = DEQ(cell, solver=Anderson(), reltol=1e-10), Watch(at=(3,), steps=2, mixing=0.5)
    with watch.on(layer):
        layer(u)
    (state,), (start,) = watch.states(), watch.iterates()
    assert isinstance(state, Tensor)
    assert isinstance(start, Tensor)
    z = start
    for _ in range(2):
        z = 0.5 * z + 0.5 * cell(z, u)
    for a, b in zip(
        torch.autograd.grad(state.sum(), (cell.W, u)),
        torch.autograd.grad(z.sum(), (cell.W, u)),
        strict=True,
    ):
        assert relative(a, b) < 1e-14


def test_points_are_spread_evenly_and_few_are_held() -> None:
    layer, u = (
        DEQ(Cell(norm=0.999), solver=Picard(), reltol=1e-12, max_evaluations=400),
        injection(),
    )
    watch = Watch(at=3)
    with watch.on(layer):
        layer(u)
    assert layer.solution is not None
    total = layer.solution.stats.evaluations
    assert total > 40
    assert len(watch._kept) <= 7
    for k, point in enumerate(watch.points, 1):
        # The stride of what is held is a quarter of the solve at most, half of which one may miss.
        assert abs(point - total * k / 4) <= total / 8
    assert len(watch.states()) == 3


def test_samples_that_ended_stay_where_they_were() -> None:
    u = torch.cat([1e-6 * injection(2), injection(2)])
    u = u.requires_grad_()
    layer, watch = DEQ(Cell(), solver=Picard(), abstol=1e-4, reltol=0.0), Watch(at=(1, 8))
    with watch.on(layer):
        z = layer(u)
    assert layer.solution is not None
    assert layer.solution.stats.sample_evaluations.unique().numel() > 1  # some were dropped
    last = watch.iterates()[1]
    assert isinstance(last, Tensor)
    assert last.shape == z.shape
    assert torch.allclose(last[:2], z[:2].detach(), atol=1e-4)


@pytest.mark.parametrize("solver", NATIVE)
def test_every_native_solver_shows_its_iterates(solver: str) -> None:
    u, watch = injection(), Watch(at=1)
    problem = FixedPointProblem(Cell(), torch.zeros_like(u), (u,))
    solution = implicit.solve(
        problem, solvers.registry.get(solver), watch.gradient(Implicit()), reltol=1e-8
    )
    (state,) = watch.states()
    assert solution.success
    assert state.requires_grad


@pytest.mark.parametrize("gradient", [Implicit(), Neumann(3), Phantom(2), Unrolled()])
def test_a_watched_layer_returns_what_it_always_does(gradient: implicit.Gradient) -> None:
    cell, u = Cell(), injection()
    layer = DEQ(cell, solver=Anderson(), gradient=gradient, reltol=1e-8)
    alone = layer(u)
    (expected,) = torch.autograd.grad(alone.sum(), cell.W)
    watch = Watch(at=2)
    with watch.on(layer):
        assert layer.gradient is not gradient
        z = layer(u)
    assert layer.gradient is gradient
    assert torch.equal(z, alone)
    assert torch.equal(torch.autograd.grad(z.sum(), cell.W)[0], expected)


def test_a_watched_layer_that_chooses_its_tolerance() -> None:
    layer, u = DEQ(Cell(), reltol="auto", gradient_error=1e-3), injection()
    watch = Watch(at=2)
    for _ in range(3):
        with watch.on(layer):
            z = layer(u)
        correction_loss((*watch.states(), z), lambda z: z.square().mean()).backward()
    assert layer.adjoint_solution is not None
    assert layer.adjoint_solution.settings.reltol == layer.tolerances.adjoint  # type: ignore[union-attr]


def test_where_no_gradient_is_wanted_there_are_iterates_too() -> None:
    layer, watch = DEQ(Cell()).eval(), Watch(at=(1,))
    with torch.no_grad(), watch.on(layer):
        layer(injection())
        (state,) = watch.states()
    assert len(watch.iterates()) == 1
    assert not state.requires_grad


def test_what_cannot_be_watched_says_so() -> None:
    with pytest.raises(RuntimeError, match="no solve was watched"):
        Watch(at=2).states()
    u, watch = injection(), Watch(at=2)
    problem = FixedPointProblem(Cell(), torch.zeros_like(u), (u,))
    implicit.solve(problem, solvers.registry.get("scipy_anderson"), watch.gradient(Implicit()))
    with pytest.raises(RuntimeError, match="native"):
        watch.states()
    for options in ({"at": -1}, {"at": (0,)}, {"at": 1, "steps": 0}, {"at": 1, "mixing": 0.0}):
        with pytest.raises(OptionError):
            Watch(**options)


def test_nothing_lives_on() -> None:
    layer, u = DEQ(Cell(), reltol=1e-8), injection()

    def call() -> tuple[weakref.ref[Tensor], weakref.ref[Tensor]]:
        watch = Watch(at=2)
        with watch.on(layer):
            z = layer(u)
        penalty = JacobianRegularisation(through=True)(layer, z, u, step=0)
        states = watch.states()
        assert isinstance(states[0], Tensor)
        return weakref.ref(states[0]), weakref.ref(penalty)

    gone = call()
    gc.collect()
    assert [r() for r in gone] == [None, None]


def test_the_example_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert isinstance(loss := names["loss"], Tensor)
    assert torch.isfinite(loss)
