"""The backward solve: what it costs, what it says, and what happens when it falls short."""

from __future__ import annotations

import warnings
from typing import Any

import cells
import pytest
import torch
from cells import ADJOINTS, Cell, every_adjoint, forward_mode, injection, weights
from torch import Tensor

import implicit
import solvers
from implicit import DEQ, AdjointError, AdjointWarning, Implicit
from implicit.gradients.implicit import adjoint_registry
from solvers import GMRES, Anderson, FixedPointProblem, OptionError, Picard, ReturnCode, Solution


def solved(gradient: Implicit, norm: float = 0.6, reltol: float = 1e-8) -> Solution:
    u, W = injection().requires_grad_(), weights(norm=norm)
    problem = FixedPointProblem(
        cells.f, torch.zeros_like(u), (u,), (W,), samples_independent=True, name="tanh"
    )
    return implicit.solve(
        problem, Anderson(), gradient, reltol=reltol, max_evaluations=300, site="here"
    )


def backward(solution: Solution) -> Solution:
    assert isinstance(solution.value, Tensor)
    assert solution.adjoint is None
    solution.value.sum().backward()
    assert solution.adjoint is not None
    return solution.adjoint


@every_adjoint
def test_the_adjoint_is_a_solution(adjoint: str) -> None:
    gradient = Implicit(solver=adjoint_registry.get(adjoint), reltol=1e-6)
    u = injection()
    solution = solved(gradient)
    record = backward(solution)
    assert record.success
    assert record.solver.name == adjoint
    assert (record.phase, record.site) == ("adjoint", "here")
    assert (record.dtype, record.device, record.dim) == ("float64", "cpu", 4)
    assert record.settings.reltol == 1e-6
    assert record.residual.shape == record.retcode.shape == (3,)
    assert record.stats.evaluations == 1  # one trace of f, and all products from it
    assert record.stats.vjps > 0
    assert record.stats.jvps == 0
    assert (record.stats.seconds > 0) and record.trace is not None
    assert not record.value.requires_grad  # type: ignore[union-attr]

    # Its residual is that of uᵀ = uᵀ J + cᵀ, relative to the cotangent.
    z = solution.value.detach()  # type: ignore[union-attr]
    J = (1 - cells.f(z, u, weights()) ** 2)[:, :, None] * weights()
    v = record.value
    assert isinstance(v, Tensor)
    c = torch.ones_like(u)
    r = c + (J.mT @ v[:, :, None])[:, :, 0] - v
    assert torch.allclose(r.norm(dim=1), record.residual, atol=1e-12)
    assert (record.residual <= 1e-6 * c.norm(dim=1)).all()
    assert torch.allclose(record.scale, c.norm(dim=1))


def test_the_tolerance_is_the_forwards_by_default() -> None:
    assert backward(solved(Implicit(), reltol=1e-4)).settings.reltol == 1e-4
    assert backward(solved(Implicit(reltol=1e-9), reltol=1e-4)).settings.reltol == 1e-9


def test_a_tighter_adjoint_costs_more_products() -> None:
    counts = [backward(solved(Implicit(reltol=t))).stats.vjps for t in (1e-1, 1e-3, 1e-9)]
    assert counts[0] < counts[1] <= counts[2] <= 4 + 1  # the state has four numbers


@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 3e12])
def test_what_is_recorded_has_the_units_of_the_loss(scale: float) -> None:
    solution = solved(Implicit(reltol=1e-3))
    (scale * solution.value.sum()).backward()  # type: ignore[union-attr]
    record = solution.adjoint
    assert record is not None
    assert torch.allclose(record.scale, torch.full((3,), 2 * scale, dtype=torch.float64))
    assert record.trace is not None
    assert float(record.trace.residual[0]) <= 4 * scale
    assert (record.residual <= 1e-3 * record.scale).all()


# -- falling short --------------------------------------------------------------------------------

SHORT: dict[str, Any] = {"reltol": 1e-12, "max_products": 3}
falls_short = pytest.mark.parametrize("adjoint", [a for a in ADJOINTS if a != "dense"])


@falls_short
def test_an_adjoint_that_falls_short_warns(adjoint: str) -> None:
    solution = solved(Implicit(solver=adjoint_registry.get(adjoint), **SHORT))
    assert isinstance(solution.value, Tensor)
    with pytest.warns(
        AdjointWarning, match=f"adjoint solve by {adjoint} fell short.*MAX_EVALUATIONS: 3 of 3 "
    ):
        solution.value.sum().backward()
    record = solution.adjoint
    assert record is not None
    assert not record.success
    assert set(record.retcode.tolist()) == {ReturnCode.MAX_EVALUATIONS}
    assert record.stats.vjps <= 3


@falls_short
def test_an_adjoint_that_falls_short_raises(adjoint: str) -> None:
    gradient = Implicit(solver=adjoint_registry.get(adjoint), on_failure="raise", **SHORT)
    solution = solved(gradient)
    with pytest.raises(AdjointError, match="so that the gradient is inexact: MAX_EVALUATIONS"):
        solution.value.sum().backward()  # type: ignore[union-attr]


@falls_short
def test_an_adjoint_that_falls_short_is_ignored_when_asked(adjoint: str) -> None:
    gradient = Implicit(solver=adjoint_registry.get(adjoint), on_failure="ignore", **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = backward(solved(gradient))
    assert not record.success  # but it is said


@pytest.mark.parametrize("adjoint", ["gmres", "dense"])
def test_a_singular_adjoint_is_reported(adjoint: str) -> None:
    # f(z) = z + u - sin(z)... at z* = π/2 + the slope of f is 1: z - f(z) has a double root.
    u = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    problem = FixedPointProblem(lambda z, u: z - z * z + u, torch.zeros_like(u), (u,))
    solution = implicit.solve(
        problem, Picard(), Implicit(solver=adjoint_registry.get(adjoint)), reltol=1e-3
    )
    assert solution.success
    with pytest.warns(AdjointWarning, match="fell short"):
        solution.value.sum().backward()  # type: ignore[union-attr]
    record = solution.adjoint
    assert record is not None
    assert record.worst in {ReturnCode.LINEAR_SOLVE_FAILED, ReturnCode.STALLED}
    assert u.grad is not None
    assert torch.isfinite(u.grad).all()


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_a_cotangent_that_is_not_finite_is_reported(adjoint: str) -> None:
    solution = solved(Implicit(solver=adjoint_registry.get(adjoint)))
    c = torch.ones(3, 4, dtype=torch.float64)
    c[1, 2] = torch.nan
    with pytest.warns(AdjointWarning, match="NONFINITE: sample 1"):
        solution.value.backward(c)  # type: ignore[union-attr]
    record = solution.adjoint
    assert record is not None
    assert [ReturnCode(k) for k in record.retcode.tolist()] == [
        ReturnCode.SUCCESS,
        ReturnCode.NONFINITE,
        ReturnCode.SUCCESS,
    ]


def test_a_picard_adjoint_at_an_unstable_equilibrium_says_so() -> None:
    # Slope -3 at the fixed point, which Newton finds and plain iteration leaves.
    u = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    problem = FixedPointProblem(lambda z, u: -3 * z + u, torch.zeros_like(u), (u,))
    solution = implicit.solve(problem, solvers.Newton(), Implicit(solver=Picard()), reltol=1e-6)
    with pytest.warns(AdjointWarning, match="DIVERGED"):
        solution.value.sum().backward()  # type: ignore[union-attr]


@forward_mode
def test_a_tangent_that_falls_short_warns() -> None:
    def z(u: Tensor) -> Any:
        problem = FixedPointProblem(
            cells.f, torch.zeros_like(u), (u,), (weights(),), samples_independent=True
        )
        return implicit.solve(problem, Anderson(), Implicit(**SHORT), reltol=1e-8).value

    u = injection()
    with pytest.warns(AdjointWarning, match="the tangent solve by gmres fell short"):
        torch.func.jvp(z, (u,), (torch.ones_like(u),))


def test_a_cell_that_returns_nan_is_heard_of_in_both_directions() -> None:
    class Log(Cell):
        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return torch.tanh(z @ self.W.T + torch.log(u))

    u = injection().abs()
    u[1] = -1.0
    u.requires_grad_()
    layer = DEQ(Log(), solver=Anderson(), gradient=Implicit(reltol=1e-10), reltol=1e-10)
    z = layer(u)
    assert layer.solution is not None
    assert layer.solution.message.startswith("NONFINITE: sample 1, at evaluation 1,")
    assert torch.isfinite(z).all()
    with pytest.warns(AdjointWarning, match="NONFINITE: sample 1"):
        z.sum().backward()
    good = [0, 2]
    expected, _ = cells.exact(
        torch.log(u.detach()[good]), layer.cell.W.detach(), torch.ones(2, 4, dtype=torch.float64)
    )
    assert u.grad is not None
    assert torch.allclose(u.grad[good], expected / u.detach()[good], rtol=1e-7)
    assert not torch.isfinite(layer.cell.W.grad).all()  # the sum over the samples is spoilt, openly


# -- in a layer, and heard ------------------------------------------------------------------------


def test_the_layer_keeps_both_solutions() -> None:
    layer = DEQ(Cell(), gradient=Implicit(reltol=1e-9), reltol=1e-6, name="middle")
    assert layer.solution is None
    assert layer.adjoint_solution is None
    z = layer(injection())
    assert layer.solution is not None
    assert layer.solution.site == "middle"
    assert layer.adjoint_solution is None
    z.sum().backward()
    assert layer.adjoint_solution is not None
    assert layer.adjoint_solution.phase == "adjoint"
    assert layer.adjoint_solution.site == "middle"
    assert layer.adjoint_solution.settings.reltol == 1e-9
    first = layer.adjoint_solution
    layer(injection()).sum().backward()
    assert layer.adjoint_solution is not first
    assert not layer.solution.value.requires_grad  # type: ignore[union-attr]


def test_every_solve_is_heard() -> None:
    heard: list[tuple[str, str]] = []
    with solvers.observe(lambda s: heard.append((s.phase, s.solver.name))):
        backward(solved(Implicit(solver=GMRES())))
        assert heard == [("forward", "anderson"), ("adjoint", "gmres")]
        heard.clear()
        backward(solved(Implicit(solver=Picard())))
    assert heard == [("forward", "anderson"), ("adjoint", "picard")]


def test_second_derivatives_are_heard_too() -> None:
    heard: list[str] = []
    u, W = injection().requires_grad_(), weights().requires_grad_()
    problem = FixedPointProblem(cells.f, torch.zeros_like(u), (u,), (W,))
    with solvers.observe(lambda s: heard.append(s.phase)):
        z = implicit.solve(problem, Anderson(), reltol=1e-8).value
        assert isinstance(z, Tensor)
        (du,) = torch.autograd.grad((z**2).sum(), u, create_graph=True)
        du.sum().backward()
    # The second backward passes through the adjoint equilibrium and through the equilibrium.
    assert heard == ["forward", "adjoint", "adjoint", "adjoint"]


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": {"name": "gmress"}}, r"gradient\.solver\.name: .*did you mean 'gmres'"),
        ({"solver": {"name": "gmres", "restrt": 3}}, r"gradient\.solver\.restrt: .*'restart'"),
        ({"solver": {"name": "anderson", "window": 0}}, r"gradient\.solver\.window = 0"),
        ({"max_products": 0}, r"gradient\.max_products = 0"),
        ({"reltol": -1.0}, r"gradient\.reltol = -1"),
        ({"on_failure": "wran"}, r"gradient\.on_failure = 'wran'.*did you mean 'warn'"),
        ({"tol": 1.0}, r"gradient\.tol: unknown option"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        implicit.gradients.registry.get("implicit", **options)


def test_a_config_names_the_adjoint_solver() -> None:
    gradient = implicit.gradients.registry.build(
        {"name": "implicit", "solver": {"name": "anderson", "window": 3}, "reltol": 1e-4}
    )
    assert gradient == Implicit(solver=Anderson(window=3), reltol=1e-4)
    assert implicit.gradients.registry.build("implicit") == Implicit()
