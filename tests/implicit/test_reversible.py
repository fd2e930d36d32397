"""Reversible: the gradient of its own iteration, run backwards from its last two points."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cells
import pytest
import torch
from cells import ALL, Cell, injection, relative, weights
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, ReconstructionError, Reversible, Unrolled
from implicit.gradients.doubled import Doubled, doubled
from implicit.gradients.reversible import LOST, ReversibleIteration
from implicit.memory import allocated_bytes, saved_bytes
from solvers import FixedPointProblem, ReturnCode, RootProblem
from solvers.options import OptionError
from solvers.problems import registry as problems

MIXINGS = [0.3, 0.5, 0.8, 1.5]
every_mixing = pytest.mark.parametrize("mixing", MIXINGS)


def hard(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """u, W and a start, W with the spectral radius 0.9."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(60, 60, generator=g, dtype=torch.float64)
    W = W * (0.9 / float(torch.linalg.eigvals(W).abs().max()))
    u = 0.5 * torch.randn(8, 60, generator=g, dtype=torch.float64)
    z0 = 0.1 * torch.randn(8, 60, generator=g, dtype=torch.float64)
    return u.to(dtype).requires_grad_(), W.to(dtype).requires_grad_(), z0.to(dtype).requires_grad_()


def solve(tensors: Any, gradient: Any, solver: Any = None, **options: Any) -> solvers.Solution:
    u, W, z0 = tensors
    problem = FixedPointProblem(cells.f, z0, (u,), (W,))
    return implicit.solve(problem, solver, gradient, **({"reltol": 0.0} | options))


def gradients(solution: solvers.Solution, tensors: Any) -> tuple[Tensor, ...]:
    assert isinstance(solution.value, Tensor)
    return torch.autograd.grad(torch.sin(solution.value).sum(), tensors)


def both(tensors: Any, mixing: float, **options: Any) -> list[solvers.Solution]:
    own = ReversibleIteration(mixing)
    return [
        solve(tensors, Reversible(mixing), **options),
        solve(tensors, Unrolled(), own, **options),
    ]


# -- the iteration --------------------------------------------------------------------------------


@every_mixing
@pytest.mark.parametrize("pairs", [1, 4])
def test_the_iteration_is_that_of_the_paper(mixing: float, pairs: int) -> None:
    """Two states y and z, from one start; the value is z after whole pairs of steps."""
    u, W, z0 = hard(torch.float64, 0)
    y = z = z0.detach()
    with torch.no_grad():
        for _ in range(pairs):
            y = (1 - mixing) * y + mixing * cells.f(z, u, W)
            z = (1 - mixing) * z + mixing * cells.f(y, u, W)
    solution = solve((u, W, z0), Reversible(mixing), max_evaluations=2 * pairs)
    # The formulas above round in float64, and what mixing 1.5 makes of that grows.
    assert torch.allclose(solution.value, z, rtol=1e-12, atol=1e-13)  # type: ignore[arg-type]
    assert solution.stats.iterations == 2 * pairs
    assert solution.solver.name == "reversible"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 7, 12])
@every_mixing
def test_the_gradient_of_unrolling(mixing: float, steps: int, dtype: torch.dtype) -> None:
    tensors = hard(dtype, 1)
    got, right = both(tensors, mixing, max_evaluations=steps)
    assert torch.equal(got.value, right.value)  # type: ignore[arg-type]
    assert got.stats.evaluations == right.stats.evaluations == steps + 1
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9  # sums in another order; see LOST
    for a, b in zip(gradients(got, tensors), gradients(right, tensors), strict=True):
        assert relative(a, b) < tolerance


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mixing", "pairs"), [(0.5, 16), (0.5, 50), (0.8, 8), (0.8, 22)])
def test_the_steps_that_may_be_taken(
    mixing: float, pairs: int, dtype: torch.dtype, seed: int
) -> None:
    """The start comes back to 1e-9, or the backward would say so."""
    tensors = hard(dtype, seed)
    got, right = both(tensors, mixing, max_evaluations=2 * pairs)
    for a, b in zip(gradients(got, tensors), gradients(right, tensors), strict=True):
        assert relative(a, b) < 1e-5
    assert LOST <= 1e-9


@every_mixing
def test_gradcheck(mixing: float) -> None:
    tensors = tuple(t.requires_grad_() for t in (injection(2, 3), weights(3, 0.9)))
    z0 = (0.1 * injection(2, 3, seed=4)).requires_grad_()

    def five(u: Tensor, W: Tensor, z0: Tensor) -> Any:
        return solve((u, W, z0), Reversible(mixing), max_evaluations=5).value

    # Central differences: 1e-6² and 1e-16 / 1e-6.
    assert torch.autograd.gradcheck(five, (*tensors, z0), atol=1e-7, rtol=1e-6)


@every_mixing
def test_it_stops_at_the_tolerance(mixing: float) -> None:
    u, W = injection().requires_grad_(), weights(norm=0.4).requires_grad_()
    z0 = torch.zeros_like(u).requires_grad_()
    got, right = both((u, W, z0), mixing, reltol=1e-3, max_evaluations=200)
    assert got.success
    assert got.stats.evaluations == right.stats.evaluations < 60
    for a, b in zip(gradients(got, (u, W, z0)), gradients(right, (u, W, z0)), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)  # see LOST


def test_it_tends_to_the_gradient_of_the_equilibrium() -> None:
    u, W = injection().requires_grad_(), weights(norm=0.3).requires_grad_()
    c = torch.randn(3, 4, dtype=torch.float64)
    solution = solve((u, W, torch.zeros_like(u)), Reversible(), max_evaluations=32)
    found = torch.autograd.grad((solution.value * c).sum(), (u, W))  # type: ignore[operator]
    for got, right in zip(found, cells.exact(u.detach(), W.detach(), c), strict=True):
        # Slopes near 0 make it go with √(1 − β) = 0.7 a step: 0.7^32 = 1e-5, times the count.
        assert relative(got, right) < 1e-3


def test_the_start_may_be_the_answer() -> None:
    u, W = injection().requires_grad_(), weights().requires_grad_()
    z0 = cells.equilibrium(u.detach(), W.detach()).requires_grad_()
    solution = solve((u, W, z0), Reversible(), reltol=1e-3)
    assert solution.stats.iterations == 0
    du, _, dz = gradients(solution, (u, W, z0))
    assert torch.equal(dz, z0.detach().cos())
    assert not du.any()


# -- memory and cost ------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_steps() -> None:
    u, W, z0 = hard(torch.float32, 0)
    state, kept, peaks = u.nbytes, [], []
    for steps in (4, 12, 36):
        with saved_bytes(exclude=(u, W, z0)) as saved, allocated_bytes() as allocated:
            solution = solve((u, W, z0), Reversible(), max_evaluations=steps, trace=None)
            kept.append(saved.bytes)
            allocated.phase()
            gradients(solution, (u, W, z0))
            peaks.append(allocated.phase().peak)
        assert solution.record.stats is not None
        # One evaluation and one product a step, and none beside.
        assert solution.record.stats.evaluations == steps
        assert solution.record.stats.vjps == steps
    # The last two points, two numbers of float64 each.
    assert kept == [8 * state] * 3
    assert max(peaks) < 1.1 * min(peaks)  # a few numbers a step that the forward's record holds


# -- where the way back is lost -------------------------------------------------------------------


@pytest.mark.parametrize(("mixing", "steps"), [(0.5, 150), (0.8, 64), (0.8, 100)])
def test_too_many_steps_for_any_function(mixing: float, steps: int) -> None:
    message = (
        rf"reversible cannot go back {steps // 2} pairs of steps with mixing = {mixing}.*grows at"
        r" least.*\(\(1 \+ β‖J‖\) / \|1 − β\|\)².*max_evaluations=.*Checkpointed"
    )
    with pytest.raises(ReconstructionError, match=message):
        solve(hard(torch.float32, 0), Reversible(mixing), max_evaluations=steps)


def test_too_many_steps_for_this_function() -> None:
    """The steps are few enough for a constant f, but not for one with a slope."""
    tensors = hard(torch.float64, 0)
    solution = solve(tensors, Reversible(), max_evaluations=146)
    message = r"73 pairs.*the start came back with a relative error of .*grew about .* fold in each"
    with pytest.raises(ReconstructionError, match=message):
        gradients(solution, tensors)


def test_a_function_that_is_another_on_the_way_back() -> None:
    u = injection().requires_grad_()
    calls: list[int] = []

    def f(z: Tensor, u: Tensor) -> Tensor:
        calls.append(1)
        return torch.tanh(0.5 * z + u) + 1e-6 * len(calls)

    problem = FixedPointProblem(f, torch.zeros_like(u), (u,))
    z: Any = implicit.solve(problem, None, Reversible(), reltol=0.0, max_evaluations=4).value
    with pytest.raises(ReconstructionError, match="the start came back"):
        torch.autograd.grad(z.sum(), u)


def test_what_overflowed_has_no_way_back() -> None:
    u = injection().requires_grad_()
    problem = FixedPointProblem(lambda z, u: 1e30 * (z * z + u), torch.zeros_like(u), (u,))
    solution = implicit.solve(problem, None, Reversible(), max_evaluations=20, fixed_budget=True)
    assert not solution.success
    with pytest.raises(ReconstructionError, match="relative error of inf"):
        torch.autograd.grad(solution.value.sum(), u)  # type: ignore[union-attr]


def test_without_a_gradient_it_may_take_any_number_of_steps() -> None:
    with torch.no_grad():
        solution = solve(
            hard(torch.float32, 0),
            Reversible(),
            max_evaluations=300,
            fixed_budget=True,
            reltol=1e-5,
        )
    assert solution.success
    assert solution.stats.evaluations == 301


# -- the same function ----------------------------------------------------------------------------


class Noisy(nn.Module):
    """Dropout inside, so that the way back has to meet the same masks."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(weights(4))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.dropout(torch.tanh(z @ self.W.T), 0.5, True) + u


def test_random_numbers_are_the_same_on_the_way_back() -> None:
    cell, u = Noisy(), injection().requires_grad_()

    def of(gradient: Any, solver: Any) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        layer = DEQ(cell, solver=solver, gradient=gradient, reltol=0.0, max_evaluations=7)
        z = layer(u)
        torch.manual_seed(4)  # whatever the caller draws meanwhile
        return (z, *torch.autograd.grad(z.sin().sum(), (u, cell.W)))

    got, right = of(Reversible(), None), of(Unrolled(), ReversibleIteration())
    for a, b in zip(got, right, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_autocast_is_the_same_on_the_way_back() -> None:
    cell, u = Cell().float(), injection().float().requires_grad_()

    def of(gradient: Any, solver: Any) -> tuple[Tensor, ...]:
        layer = DEQ(cell, solver=solver, gradient=gradient, reltol=0.0, max_evaluations=8)
        with torch.autocast("cpu", torch.bfloat16):
            z = layer(u)
        found = torch.autograd.grad(z.sin().sum(), (u, cell.W))
        return (z.detach(), *found)

    got, right = of(Reversible(), None), of(Unrolled(), ReversibleIteration())
    assert torch.equal(got[0], right[0])
    for a, b in zip(got[1:], right[1:], strict=True):
        assert relative(a, b) < 1e-2  # sums in bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    cell, u = Cell().to(dtype), injection().to(dtype).requires_grad_()
    layer = DEQ(cell, gradient=Reversible(), reltol=0.0, max_evaluations=8)
    explicit = DEQ(
        cell, solver=ReversibleIteration(), gradient=Unrolled(), reltol=0.0, max_evaluations=8
    )
    got = torch.autograd.grad(layer(u).sum(), (u, cell.W))
    right = torch.autograd.grad(explicit(u).sum(), (u, cell.W))
    for a, b in zip(got, right, strict=True):
        assert relative(a.float(), b.float()) < 2e-2  # sums in half precision


# -- problems -------------------------------------------------------------------------------------


def test_coupled_samples() -> None:
    def f(z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(0.5 * z + 0.3 * z.mean(dim=0, keepdim=True) + u)

    def five(u: Tensor) -> Any:
        problem = FixedPointProblem(f, torch.zeros_like(u), (u,), samples_independent=False)
        return implicit.solve(problem, None, Reversible(), reltol=0.0, max_evaluations=5).value

    u = injection(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(five, (u,), atol=1e-7, rtol=1e-6)


def test_root_problems() -> None:
    def five(a: Tensor) -> Any:
        problem = RootProblem(lambda z, a: 0.3 * (a - z * z), torch.ones_like(a), (a,))
        return implicit.solve(problem, None, Reversible(), reltol=0.0, max_evaluations=5).value

    a = (1.0 + injection(2, 3).abs()).requires_grad_()
    assert torch.autograd.gradcheck(five, (a,), atol=1e-7, rtol=1e-6)


def test_a_state_of_two_tensors() -> None:
    problem = problems.get("tuple_tanh", batch=2, dtype="float64")

    def both(x: Tensor, y: Tensor) -> Any:
        given = FixedPointProblem(problem.function, problem.z0, (x, y), problem.params)
        return implicit.solve(given, None, Reversible(), reltol=0.0, max_evaluations=4).value

    x, y = (t.clone().requires_grad_() for t in problem.args)
    assert torch.autograd.gradcheck(both, (x, y), atol=1e-7, rtol=1e-6)


def test_failures_are_in_the_solution() -> None:
    solution = solve(hard(torch.float32, 0), Reversible(), reltol=1e-9, max_evaluations=8)
    assert set(solution.retcode.tolist()) == {ReturnCode.MAX_EVALUATIONS}


# -- what it does not do --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_it_brings_its_own_iteration(name: str) -> None:
    solver = solvers.registry.get(name)
    with pytest.raises(OptionError, match=rf"solver = {name}.*own iteration.*solver=None"):
        solve(hard(torch.float32, 0), Reversible(), solver)


def test_its_own_iteration_may_be_named() -> None:
    tensors = hard(torch.float32, 0)
    assert solve(tensors, Reversible(0.8), ReversibleIteration(0.8), max_evaluations=3).stats
    with pytest.raises(OptionError, match="own iteration"):
        solve(tensors, Reversible(0.8), ReversibleIteration(0.5))


@pytest.mark.parametrize("mixing", [0.0, 1.0, 2.0, -0.5, float("nan")])
def test_mixing_is_checked(mixing: float) -> None:
    for build in (Reversible, ReversibleIteration):
        with pytest.raises(OptionError, match="mixing"):
            build(mixing)


def test_a_second_derivative_is_refused() -> None:
    u, W, z0 = hard(torch.float64, 0)
    z = solve((u, W, z0), Reversible(), max_evaluations=4).value
    assert isinstance(z, Tensor)
    (du,) = torch.autograd.grad(z.square().sum(), u, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"no rule for a second derivative.*Unrolled or Implicit"
    ):
        torch.autograd.grad(du.sum(), W)


def test_transforms_are_refused() -> None:
    u, W = injection(2, 3), weights(3)

    def of(u: Tensor) -> Any:
        return solve((u, W, torch.zeros_like(u)), Reversible(), max_evaluations=3).value

    for transformed in (torch.func.vmap(of), torch.func.jacrev(of), torch.func.jacfwd(of)):
        with pytest.raises(RuntimeError, match=r"reversible has no rule.*Unrolled or Implicit"):
            transformed(u)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(u, u)
        with pytest.raises(RuntimeError, match=r"forward mode.*Unrolled or Implicit"):
            of(dual)


# -- the arithmetic -------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.7, -0.5, 1 / 3])
def test_numbers_of_twice_the_precision(factor: float) -> None:
    """Against rational numbers, which are exact."""
    g = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(20, generator=g, dtype=torch.float64) for _ in range(3))
    a = doubled(x).plus(Doubled(y, z * 1e-18))
    found = [a.times(factor), a.over(factor), a.minus(doubled(z))]
    for k in range(20):
        number = Fraction(x[k].item()) + Fraction(y[k].item()) + Fraction((z[k] * 1e-18).item())
        exact = [
            number * Fraction(factor),
            number / Fraction(factor),
            number - Fraction(z[k].item()),
        ]
        for got, right in zip(found, exact, strict=True):
            here = Fraction(got.high[k].item()) + Fraction(got.low[k].item())
            # Some roundings of 2⁻¹⁰⁴ of what was added or subtracted.
            assert abs(here - right) <= Fraction(2) ** -100 * (abs(right) + 10)
