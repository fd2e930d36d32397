"""The certificate: calibrated against exact gradients, and what follows it by itself."""

from __future__ import annotations

import gc
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import Cell, injection, relative
from torch import Tensor, nn

import implicit
import solvers
from implicit import DEQ, Implicit, JacobianFree, Neumann, Phantom, Shine
from implicit.certificate import Certificate, Tolerances, precision
from implicit.gradients.implicit import adjoint_registry
from solvers import Anderson, Broyden, FixedPointProblem, OptionError, Picard

DIM, BATCH = 40, 6


class Random(nn.Module):
    """z ↦ tanh(W z + u), W with a spectral radius near ``gain`` and no symmetry."""

    def __init__(self, gain: float, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        W = torch.randn(DIM, DIM, generator=g, dtype=torch.float64)
        self.W = nn.Parameter(gain * W / math.sqrt(DIM))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.T + u)


def losses(seed: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    c = torch.randn(BATCH, DIM, generator=g, dtype=torch.float64)
    readout = torch.randn(DIM, 5, generator=g, dtype=torch.float64) / math.sqrt(DIM)
    target = torch.arange(BATCH) % 5
    return {
        "linear": lambda z: (z * c.to(z)).sum(),
        "quadratic": lambda z: (z - 0.1 * c.to(z)).square().sum(),
        "cross_entropy": lambda z: nn.functional.cross_entropy(z @ readout.to(z), target),
    }


def gradient(
    cell: Random, u: Tensor, loss: Any, rule: Any, **options: Any
) -> tuple[Tensor, Certificate]:
    solution = implicit.solve(
        FixedPointProblem(cell, torch.zeros_like(u), (u,)),
        gradient=rule,
        max_evaluations=300,
        **options,
    )
    (found,) = torch.autograd.grad(loss(solution.value), cell.W)
    assert isinstance(solution.certificate, Certificate)
    return found.double(), solution.certificate


def exact(cell: Any, u: Tensor, loss: Any) -> Tensor:
    """By Newton's method and one dense solve a sample: nothing of the layer takes part."""
    W = cell.W.detach().double()
    z, eye = torch.zeros_like(u, dtype=torch.float64), torch.eye(DIM, dtype=torch.float64)
    for step in range(230):
        fz = torch.tanh(z @ W.T + u.double())
        A = eye - (1 - fz * fz)[:, :, None] * W
        # Plain steps first, to be near; then Newton's.
        z = fz if step < 200 else z + torch.linalg.solve(A, (fz - z)[:, :, None])[:, :, 0]
    z = z.requires_grad_()
    (c,) = torch.autograd.grad(loss(z), z)
    z = z.detach()
    slope = 1 - z * z
    v = torch.linalg.solve((eye - slope[:, :, None] * W).mT, c)
    return torch.einsum("bi,bj->ij", slope * v, z)


GRIDS = [
    (torch.float64, [1e-1, 1e-3, 1e-6, 1e-10]),
    (torch.float32, [1e-1, 1e-3, 1e-6]),
]


@pytest.mark.parametrize(("dtype", "tolerances"), GRIDS, ids=["float64", "float32"])
def test_it_is_within_a_factor_3_of_the_true_error(
    dtype: torch.dtype, tolerances: list[float]
) -> None:
    factors = []
    for gain, seed in [(0.5, 0), (0.9, 1), (1.1, 2)]:
        u = 0.5 * injection(BATCH, DIM, seed).to(dtype)
        cell = Random(gain, seed).to(dtype)
        truths = {name: exact(cell, u, loss) for name, loss in losses(seed).items()}
        solver = Broyden() if seed else Anderson()
        for forward in tolerances:
            problem = FixedPointProblem(cell, torch.zeros_like(u), (u,))
            with torch.no_grad():
                start = solvers.solve(problem, solver, reltol=forward, max_evaluations=300)
            for name, loss in losses(seed).items():
                for adjoint in tolerances:
                    rule = Implicit(reltol=adjoint, max_products=300, on_failure="ignore")
                    # One evaluation: the start meets the tolerance.
                    g, found = gradient(
                        cell, u, loss, rule, reltol=forward, start=start, scale=start.scale
                    )
                    factors.append(float(found) / relative(g, truths[name]))
    ratio = torch.tensor(factors)
    within = ((ratio < 3) & (ratio > 1 / 3)).double().mean()
    # What is promised, of every tolerance from loose to the rounding.
    assert within >= 0.95, ratio.quantile(torch.tensor([0.025, 0.5, 0.975]))


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden", "newton_krylov"])
def test_every_solver_is_certified(solver: str) -> None:
    u, cell, loss = 0.5 * injection(BATCH, DIM), Random(0.9, 1), losses(0)["quadratic"]
    truth = exact(cell, u, loss)
    for reltol in (1e-1, 1e-3, 1e-6):
        chosen = solvers.registry.get(solver)
        g, found = gradient(cell, u, loss, Implicit(), reltol=reltol, solver=chosen)
        # One case of each: a factor 3 is for 95 %, so twice that for the single one.
        assert 1 / 6 < float(found) / relative(g, truth) < 6


@pytest.mark.parametrize(
    "rule",
    [
        Implicit(precondition="forward"),
        *(Implicit(solver=adjoint_registry.get(n)) for n in ("bicgstab", "anderson", "dense")),
        Implicit(solver=solvers.GMRES(restart=5)),
    ],
    ids=["preconditioned", "bicgstab", "anderson", "dense", "restarted"],
)
def test_every_adjoint_is_certified(rule: Implicit) -> None:
    u, cell, loss = 0.5 * injection(BATCH, DIM), Random(0.9, 1), losses(0)["linear"]
    truth = exact(cell, u, loss)
    for reltol in (1e-2, 1e-5):
        g, found = gradient(cell, u, loss, rule, reltol=reltol, solver=Broyden())
        assert 1 / 6 < float(found) / relative(g, truth) < 6
        assert found.evaluations == 1
        assert found.products == (1 if isinstance(rule.solver, solvers.GMRES) else 2)


def test_an_adjoint_cut_short_is_told() -> None:
    u, cell, loss = 0.5 * injection(BATCH, DIM), Random(0.9, 1), losses(0)["linear"]
    truth = exact(cell, u, loss)
    errors = []
    for products in (20, 10, 5, 2, 1):
        rule = Implicit(reltol=0.0, max_products=products, on_failure="ignore")
        g, found = gradient(cell, u, loss, rule, reltol=1e-10)
        assert found.dominant == "adjoint"
        assert "adjoint" in found.sentence
        assert 1 / 6 < float(found) / relative(g, truth) < 6
        errors.append(float(found))
    assert errors == sorted(errors)
    assert errors[-1] > 100 * errors[0]


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_scale_of_the_loss_does_not_matter(scale: float, dtype: torch.dtype) -> None:
    u, cell = injection(BATCH, DIM).to(dtype), Random(0.7, 1).to(dtype)
    loss = losses(0)["linear"]
    _, usual = gradient(cell, u, loss, Implicit(), reltol=1e-3)
    _, scaled = gradient(cell, u, lambda z: scale * loss(z), Implicit(), reltol=1e-3)
    # All is linear in the loss; the factor is no power of two, so that digits are rounded anew,
    # and the adjoint's own residual is 1e-3 of what they are rounded in.
    assert float(scaled) == pytest.approx(float(usual), rel=1e5 * torch.finfo(dtype).eps)


def test_it_refers_to_no_graph_and_no_tensor() -> None:
    u = injection(BATCH, DIM)
    layer = DEQ(Random(0.7, 1))

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    counts = []
    for _ in range(3):
        layer.zero_grad()
        layer(u).sum().backward()
        counts.append(alive())
    assert counts[-1] == counts[1]
    found = layer.certificate
    assert found is not None
    assert all(isinstance(v, float | int) for v in vars(found).values())
    assert layer.adjoint_solution is not None
    assert layer.adjoint_solution.inverse is None


def test_the_work_is_counted_in_the_certificate_alone() -> None:
    u = injection(BATCH, DIM)
    cell = Random(0.7, 1)
    counts = {}
    for asked in (True, False):
        layer = DEQ(cell, gradient=Implicit(certificate=asked))
        calls = []
        handle = cell.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        layer(u).sum().backward()
        handle.remove()
        assert layer.solution is not None
        assert layer.adjoint_solution is not None
        stats = layer.adjoint_solution.stats
        counts[asked] = len(calls), layer.solution.stats.evaluations, stats.evaluations, stats.vjps
        assert (layer.certificate is not None) == asked
    assert counts[True][1:] == counts[False][1:]
    assert counts[True][0] == counts[False][0] + 1


def test_under_autocast_the_precision_is_that_of_the_function() -> None:
    u, cell = injection(BATCH, DIM).float(), Random(0.7, 1).float()
    loss = losses(0)["quadratic"]
    truth = exact(cell, u, loss)
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tolerance may lie below what bfloat16 can reach
        layer = DEQ(cell, reltol=1e-2)
        value = layer(u)
    loss(value).backward()
    assert layer.certificate is not None
    assert layer.certificate.rounding >= torch.finfo(torch.bfloat16).eps
    grad = cell.W.grad
    assert grad is not None
    # As for the single cases above.
    assert 1 / 6 < float(layer.certificate) / relative(grad.double(), truth) < 6
    with torch.autocast("cpu", torch.bfloat16):
        assert precision(u) == torch.finfo(torch.bfloat16).eps
    assert precision(u) == torch.finfo(torch.float32).eps


def test_coupled_samples_and_states_of_several_tensors() -> None:
    W = Random(0.8, 3).W.detach() / 2

    def f(z: tuple[Tensor, Tensor], u: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z
        return torch.tanh(b @ W.T + u + 0.2 * a.mean(0)), torch.tanh(a @ W)

    u, weight = injection(3, DIM), W.clone().requires_grad_()
    zero = torch.zeros_like(u)
    gradients = []
    for reltol in (1e-3, 1e-12):
        problem = FixedPointProblem(f, (zero, zero), (u,), (weight,))
        solution = implicit.solve(problem, Broyden(), reltol=reltol, max_evaluations=300)
        a, b = solution.value
        (g,) = torch.autograd.grad((a * b).sum() + a.square().sum(), weight)
        gradients.append((g, solution.certificate))
    (loose, found), (tight, _) = gradients
    assert 1 / 6 < float(found) / relative(loose, tight) < 6


def test_an_exact_equilibrium_and_a_zero_cotangent_have_a_certificate() -> None:
    u = torch.zeros(2, 4, dtype=torch.float64)
    layer = DEQ(Cell(4))
    layer(u).sum().backward()  # 0 = tanh(W 0 + 0): no error at all
    assert layer.certificate is not None
    # The basis of the adjoint is orthonormal to rounding, and so much is added to 0.
    assert float(layer.certificate) < 10 * torch.finfo(torch.float64).eps
    (0 * layer(u)).sum().backward()
    assert layer.certificate is not None
    assert math.isfinite(float(layer.certificate))


def test_what_is_not_finite_is_not_certified() -> None:
    bad = replace(Certificate(1.0, 1.0, 1.0, 1.0, 1.0), error=math.inf)
    assert "cannot be estimated" in str(bad)
    u = injection(2, DIM)
    layer = DEQ(Random(0.7, 1), gradient=Implicit(on_failure="ignore"))
    layer(u).backward(torch.full((2, DIM), torch.nan, dtype=torch.float64))
    assert layer.certificate is not None
    assert float(layer.certificate) == math.inf


# -- reltol="auto" --------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1e-1, 1e-2, 1e-5])
@pytest.mark.parametrize(("gain", "seed"), [(0.5, 0), (0.9, 1), (1.1, 2)])
def test_auto_reaches_what_is_asked_and_no_more(wanted: float, gain: float, seed: int) -> None:
    u, cell, loss = 0.5 * injection(BATCH, DIM, seed), Random(gain, seed), losses(0)["quadratic"]
    truth = exact(cell, u, loss)
    layer = DEQ(cell, reltol="auto", gradient_error=wanted)
    rule = Implicit(max_products=300)
    tight = DEQ(cell, gradient=rule, reltol=1e-9, max_evaluations=300)
    errors, spent = [], []
    for _ in range(6):
        cell.zero_grad()
        loss(layer(u)).backward()
        assert cell.W.grad is not None
        errors.append(relative(cell.W.grad, truth))
        assert layer.solution is not None
        spent.append(layer.solution.stats.evaluations)
        assert layer.adjoint_solution is not None
        assert 0 < layer.solution.settings.reltol <= 0.1
        assert 0 < layer.adjoint_solution.settings.reltol <= 0.1
    # The certificate's factor, after two steps of adapting.
    assert max(errors[2:]) < 3 * wanted
    loss(tight(u)).backward()
    assert tight.solution is not None
    assert spent[-1] < tight.solution.stats.evaluations


def test_auto_follows_a_request_that_the_first_step_misses() -> None:
    tolerances = Tolerances(1e-3)
    assert tolerances.forward == tolerances.adjoint == 1e-3
    u, cell, loss = 0.5 * injection(BATCH, DIM, 2), Random(1.1, 2), losses(0)["linear"]
    layer = DEQ(cell, reltol="auto", gradient_error=1e-3)
    for _ in range(4):
        loss(layer(u)).backward()
    used = layer.solution
    assert used is not None
    # The amplification there is several times 1, and so has the tolerance to be smaller.
    assert used.settings.reltol < 0.7e-3


def test_auto_keeps_its_tolerance_where_no_backward_runs() -> None:
    u = injection(BATCH, DIM)
    layer = DEQ(Random(0.7, 1), reltol="auto", gradient_error=1e-4)
    layer(u).sum().backward()
    layer(u).sum().backward()
    layer.eval()
    used = []
    with torch.no_grad():
        for _ in range(3):
            layer(u)
            assert layer.solution is not None
            used.append(layer.solution.settings.reltol)
    assert len(set(used)) == 1
    assert "gradient_error=0.0001" in repr(layer)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reltol": "automatic"}, "'auto'"),
        ({"gradient_error": 1e-2}, "reltol='auto'"),
        ({"reltol": "auto", "gradient_error": 0.0}, "gradient_error = 0.0"),
        ({"reltol": "auto", "gradient_error": 1.5}, "gradient_error = 1.5"),
        ({"reltol": "auto", "gradient_error": math.nan}, "gradient_error = nan"),
        ({"reltol": "auto", "gradient_error": "small"}, "gradient_error = 'small'"),
        ({"reltol": "auto", "gradient": Implicit(reltol=1e-3)}, "gradient.reltol = 0.001"),
        ({"reltol": "auto", "gradient": Implicit(certificate=False)}, "certificate"),
        ({"reltol": "auto", "gradient": implicit.Unrolled()}, "certificate"),
    ],
)
def test_auto_says_what_it_cannot_do(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        DEQ(Cell(4), solver=Picard(), **options)


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.1])
@pytest.mark.parametrize(
    "rule",
    [
        JacobianFree(certificate=True),
        Neumann(5, certificate=True),
        Neumann(20, certificate=True),
        Phantom(certificate=True),
        Shine(certificate=True),
        Shine(refine=5, certificate=True),
    ],
    ids=repr,
)
def test_the_estimates_say_how_inexact_they_are(rule: Any, gain: float) -> None:
    cell, u = Random(gain, 0), injection(BATCH, DIM, seed=3)
    loss = losses(0)["cross_entropy"]
    found, certificate = gradient(cell, u, loss, rule, reltol=1e-8)
    error = relative(found, exact(cell, u, loss))
    # What the calibration of the exact gradient is held to in 95 % of cases.
    assert error / 3 < float(certificate) < 3 * error


@pytest.mark.parametrize("rule", [JacobianFree(), Neumann(), Phantom(), Shine()], ids=repr)
def test_an_estimate_leaves_none_unasked(rule: Any) -> None:
    layer = DEQ(Cell(), solver=Broyden(), gradient=rule)
    layer(injection()).sum().backward()
    assert layer.certificate is None


def test_phantoms_other_form_has_nothing_to_certify() -> None:
    with pytest.raises(OptionError, match="use the form 'neumann'"):
        Phantom(form="unrolled", certificate=True)
