"""Theory as code: what is known of equilibrium models, as functions that measure it.

    universality    any network of L layers is one weight-tied, input-injected block: after L steps
                    block l of its state is layer l, and its Jacobian is nilpotent
    stacking        two equilibria, one fed to the other, are one, of which the state is a pair
    infinite depth  a weight-tied network tends to an equilibrium as it gets deeper, and so does its
                    gradient, both at the rate of the spectral radius; beyond radius 1 there is no
                    limit, but the equilibrium is still there
    injection       a contraction forgets where it starts: without injection it forgets the input

Everything returns numbers; nothing here draws. What is measured is measured with the solvers and
the gradients of this package, in the precision of what it is given: float64 is meant.

Reference: S. Bai, J. Z. Kolter, V. Koltun, Deep Equilibrium Models, NeurIPS (2019): theorems 2
(stacking) and 3 (universality), sections 3 and 4.1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from implicit.gradients import Gradient, Implicit, Neumann, Unrolled
from implicit.solve import solve
from solvers import BaseSolver, FixedPointProblem, Picard, Solution
from solvers.evaluation import Evaluator
from solvers.linear import GMRES
from solvers.options import unknown
from solvers.problem import Layout, parts

__all__ = [
    "Block",
    "Depth",
    "Injection",
    "Joint",
    "Network",
    "Stacking",
    "Universality",
    "block_of",
    "contracting",
    "infinite_depth",
    "injection",
    "rate",
    "stacking",
    "universality",
]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
# As exact as float64 gets; what is above it by these factors counts as not exact.
TIGHT = 1e-13


def relative(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return ‖a − b‖ / ‖b‖ of lists of tensors, ‖a‖ where b is 0."""
    with torch.no_grad():
        one, two = (torch.cat([t.reshape(-1) for t in group]) for group in (a, b))
        size = float(two.norm())
        return float((one - two).norm()) / (size or 1.0)


def jacobian(problem: FixedPointProblem, z: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the dense Jacobian (B, D, D) of f at z; samples are taken as independent."""
    evaluator = Evaluator(problem)
    flat = evaluator.layout.pack(z).detach()
    return evaluator.linearise(flat, flat.shape).jacobian().detach()


def radii(J: Tensor) -> Tensor:
    """Return the spectral radii (B,) of dense matrices (B, D, D)."""
    found: Tensor = torch.linalg.eigvals(J.cpu()).abs().amax(dim=1)
    return found


def _leaves(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def _random(shape: Sequence[int], like: Tensor, seed: int) -> Tensor:
    """Return normal numbers, which do not depend on the caller's random state."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)


# -- universality ---------------------------------------------------------------------------------


class Network(nn.Module):
    """A network of layers h_l = σ(W_l h_{l−1} + b_l), each with weights of its own.

    Parameters
    ----------
    widths
        Sizes of the input and of every layer: L + 1 numbers.
    gain
        W_l is N(0, gain² / inputs), b_l is N(0, 0.01).
    activation
        σ, a name in ``ACTIVATIONS``.
    seed
        Of the weights.
    """

    def __init__(
        self, widths: Sequence[int], *, gain: float = 1.0, activation: str = "tanh", seed: int = 0
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                f"widths = {tuple(widths)}: expected the sizes of the input and of one layer or"
                " more, each at least 1"
            )
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.activation = activation
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.W = nn.ParameterList(normal(n, m) for m, n in itertools.pairwise(widths))
        self.b = nn.ParameterList(normal(n) for n in widths[1:])
        with torch.no_grad():
            for W, b in zip(self.W, self.b, strict=True):
                W.mul_(gain / math.sqrt(W.shape[1]))
                b.mul_(0.1)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Return the value of every layer, (B, n_1) … (B, n_L)."""
        sigma, found = ACTIVATIONS[self.activation], list[Tensor]()
        for W, b in zip(self.W, self.b, strict=True):
            x = sigma(nn.functional.linear(x, W, b))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer (B, n_L)."""
        return self.layers(x)[-1]


class Block(nn.Module):
    """One weight-tied, input-injected layer z ↦ σ(W_z z + W_x x + b).

    Attributes
    ----------
    sizes
        Of the parts of the state that stand for layers.
    """

    def __init__(
        self, W_z: Tensor, W_x: Tensor, b: Tensor, sizes: Sequence[int], activation: str
    ) -> None:
        super().__init__()
        self.W_z, self.W_x, self.b = nn.Parameter(W_z), nn.Parameter(W_x), nn.Parameter(b)
        self.sizes, self.activation = tuple(sizes), activation

    def initial_state(self, x: Tensor) -> Tensor:
        """Return zeros (B, Σ n_l)."""
        return x.new_zeros(x.shape[0], len(self.b))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the next state (B, Σ n_l)."""
        injected = nn.functional.linear(x, self.W_x, self.b)
        return ACTIVATIONS[self.activation](nn.functional.linear(z, self.W_z) + injected)

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a state (B, Σ n_l) that stand for the layers."""
        return torch.split(z, list(self.sizes), dim=1)

    def as_layers(self, W_z: Tensor, W_x: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what stands for the layers' weights and biases: of gradients, say."""
        ends = torch.tensor((0, *self.sizes)).cumsum(0).tolist()
        rows = [slice(i, j) for i, j in itertools.pairwise(ends)]
        columns = zip(rows[1:], rows[:-1], strict=True)
        weights = [W_x[rows[0]], *(W_z[r, c] for r, c in columns)]
        return weights, [b[r] for r in rows]


def block_of(network: Network) -> Block:
    """Return the one block whose fixed point are all layers of a network.

        W_z = [0            ]      W_x = [W_1]      z = [h_1]
              [W_2  0       ]            [ 0 ]          [h_2]
              [     W_3  0  ]            [ 0 ]          [h_3]

    Step k makes layer k right, whatever the state was, and leaves the layers before it as they are.
    The state is as wide as all layers together. (Bai et al. 2019, theorem 3.)
    """
    weights = [W.detach() for W in network.W]
    sizes = [len(W) for W in weights]
    first = weights[0]
    W_z = first.new_zeros(sum(sizes), sum(sizes))
    W_x = first.new_zeros(sum(sizes), first.shape[1])
    W_x[: sizes[0]] = first
    row, column = sizes[0], 0
    for W in weights[1:]:
        W_z[row : row + W.shape[0], column : column + W.shape[1]] = W
        row, column = row + W.shape[0], column + W.shape[1]
    return Block(W_z, W_x, torch.cat([b.detach() for b in network.b]), sizes, network.activation)


@dataclass(frozen=True)
class Universality:
    """What is measured of a network and its block.

    Attributes
    ----------
    layer_errors
        (L + 1, L): after k steps, the relative error of block l against layer l.
    powers
        (L + 1,) ‖Jᵏ‖₂ at the fixed point for k = 0 … L, the largest of the batch; ‖J⁰‖ = 1.
    radius
        The spectral radius of J there, by dense algebra.
    solves
        A solution to a residual of 0 or nearly, by the name of its solver; ``picard`` to 0 itself.
    neumann
        (L + 1,) the relative error of the gradient by k + 1 terms of the Neumann series.
    implicit
        The relative error of the gradient by GMRES.
    adjoint
        GMRES's solution.
    """

    layer_errors: Tensor
    powers: Tensor
    radius: float
    solves: Mapping[str, Solution]
    neumann: Tensor
    implicit: float
    adjoint: Solution

    @property
    def depth(self) -> int:
        """L."""
        return self.layer_errors.shape[1]


def universality(
    network: Network, x: Tensor, *, others: Sequence[BaseSolver] = (), seed: int = 0
) -> Universality:
    """Measure that a network is one block, step by step, and what its Jacobian does to solvers.

    The block of a network of L layers is right after L steps, and its Jacobian J is strictly lower
    triangular by blocks: Jᴸ = 0. So ρ(J) = 0 however large ‖J‖ is; plain iteration ends after L
    steps, the Neumann series of the adjoint after L terms, and GMRES after L products at most.

    Parameters
    ----------
    network, x
        The network and its input (B, n_0).
    others
        Solvers to try beside Picard.
    seed
        Of the cotangent, a normal vector at the last layer.
    """
    block, depth = block_of(network), len(network.W)
    problem = FixedPointProblem(
        block, block.initial_state(x), (x,), samples_independent=True, name="block"
    )
    with torch.no_grad():
        layers = network.layers(x)
        z, steps = problem.z0, []
        for _ in range(depth + 1):
            pieces = block.split(cast(Tensor, z))
            pairs = zip(pieces, layers, strict=True)
            steps.append([relative([piece], [h]) for piece, h in pairs])
            z = block(z, x)
        J = jacobian(problem, cast(Tensor, z))
        power, powers = torch.eye(J.shape[1]).to(J).expand_as(J), [1.0]
        for _ in range(depth):
            power = power @ J
            powers.append(float(torch.linalg.matrix_norm(power, 2).amax()))
        budget = 20 * depth + 20
        solves = {
            "picard": solve(problem, Picard(), abstol=0.0, reltol=0.0, max_evaluations=budget)
        }
        for solver in others:
            solves[solver.name] = solve(problem, solver, reltol=TIGHT, max_evaluations=budget)

    c = _random(layers[-1].shape, x, seed)
    exact = torch.autograd.grad((network(x) * c).sum(), [*network.W, *network.b])

    def error(gradient: Gradient) -> tuple[float, Solution]:
        found = solve(problem, Picard(), gradient, reltol=TIGHT, max_evaluations=budget)
        output = block.split(cast(Tensor, found.value))[-1]
        wanted = (block.W_z, block.W_x, block.b)
        W, b = block.as_layers(*torch.autograd.grad((output * c).sum(), wanted))
        return relative([*W, *b], exact), found

    neumann = [error(Neumann(terms=k + 1))[0] for k in range(depth + 1)]
    implicit, found = error(Implicit(solver=GMRES(), reltol=TIGHT, max_products=budget))
    assert found.adjoint is not None  # backward has run
    return Universality(
        torch.tensor(steps, dtype=torch.float64),
        torch.tensor(powers, dtype=torch.float64),
        float(radii(J).amax()),
        solves,
        torch.tensor(neumann, dtype=torch.float64),
        implicit,
        found.adjoint,
    )


# -- stacking -------------------------------------------------------------------------------------


class Joint(nn.Module):
    """Two cells as one: Γ((z_1, z_2), x) = (f_1(z_1, x), f_2(z_2, z_1)).

    Its fixed point are the fixed points of both in sequence, since z_1 does not depend on z_2: its
    Jacobian is block lower triangular. (Bai et al. 2019, theorem 2.)
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, z: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next pair of states."""
        return self.first(z[0], x), self.second(z[1], z[0])


@dataclass(frozen=True)
class Stacked:
    """One solver's part of :class:`Stacking`.

    Attributes
    ----------
    first, second, joint
        The solutions.
    state, gradient
        Relative differences of the states, and of the gradients in all parameters and the input.
    """

    first: Solution
    second: Solution
    joint: Solution
    state: float
    gradient: float


@dataclass(frozen=True)
class Stacking:
    """What is measured of two equilibria in sequence, and of the joint one.

    Attributes
    ----------
    by_solver
        The solves, by the solver's name.
    radii
        Spectral radii of the first, the second and the joint Jacobian, the largest of the batch.
    """

    by_solver: Mapping[str, Stacked]
    radii: tuple[float, float, float]


def stacking(
    first: nn.Module,
    second: nn.Module,
    x: Tensor,
    starts: tuple[Tensor, Tensor],
    solvers: Sequence[BaseSolver],
    *,
    reltol: float = 1e-12,
    max_evaluations: int = 2000,
    seed: int = 0,
) -> Stacking:
    """Measure that two equilibria in sequence are the joint one: states, gradients, evaluations.

    Parameters
    ----------
    first, second
        Cells ``first(z_1, x)`` and ``second(z_2, z_1)``.
    x
        The input (B, …).
    starts
        Both starts.
    solvers
        The solvers to do it with.
    reltol, max_evaluations
        Of all solves and adjoints.
    seed
        Of the cotangent at z_2.
    """
    x = x.detach().requires_grad_()
    wanted = [x, *_leaves(first), *_leaves(second)]
    c = _random(starts[1].shape, starts[1], seed)
    gradient = Implicit(solver=GMRES(), reltol=reltol, max_products=max_evaluations)
    options: dict[str, Any] = {"reltol": reltol, "max_evaluations": max_evaluations}
    joint = Joint(first, second)
    pair = FixedPointProblem(joint, starts, (x,), samples_independent=True, name="joint")
    found: dict[str, Stacked] = {}
    for solver in solvers:
        one = FixedPointProblem(first, starts[0], (x,), samples_independent=True, name="first")
        s1 = solve(one, solver, gradient, **options)
        two = FixedPointProblem(
            second, starts[1], (cast(Tensor, s1.value),), samples_independent=True, name="second"
        )
        s2 = solve(two, solver, gradient, **options)
        s12 = solve(pair, solver, gradient, **options)
        z1, z2 = (t.detach() for t in (cast(Tensor, s1.value), cast(Tensor, s2.value)))
        both = cast(tuple[Tensor, ...], s12.value)
        in_sequence = torch.autograd.grad((cast(Tensor, s2.value) * c).sum(), wanted)
        together = torch.autograd.grad((both[1] * c).sum(), wanted)
        found[solver.name] = Stacked(
            s1, s2, s12, relative(both, (z1, z2)), relative(together, in_sequence)
        )
    last = tuple(t.detach() for t in parts(next(iter(found.values())).joint.value))
    plain = replace(pair, args=(x.detach(),))
    J = jacobian(plain, last)
    size = Layout(last[0]).dim
    radius = [float(radii(part).amax()) for part in (J[:, :size, :size], J[:, size:, size:], J)]
    return Stacking(found, (radius[0], radius[1], radius[2]))


# -- infinite depth -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Depth:
    """What is measured of a weight-tied network as it gets deeper.

    Attributes
    ----------
    steps
        (K,) ‖z_{k+1} − z_k‖ / ‖z*‖ of the batch, for k = 0 …
    errors
        (K,) ‖z_k − z*‖ / ‖z*‖.
    depths, gradients
        (n,) depths L, and the relative error of the gradient of the network of L layers against
        that of the equilibrium, in all parameters and arguments.
    radius
        The spectral radius of J at z*, the largest of the batch.
    equilibrium
        How z* was found.
    """

    steps: Tensor
    errors: Tensor
    depths: Tensor
    gradients: Tensor
    radius: float
    equilibrium: Solution


def infinite_depth(
    problem: FixedPointProblem,
    depths: Sequence[int],
    *,
    solver: BaseSolver | None = None,
    seed: int = 0,
) -> Depth:
    """Measure how a weight-tied network of growing depth tends to its equilibrium, or does not.

    Parameters
    ----------
    problem
        The cell as a problem; the network of depth L is L steps from z0. Gradients are those in
        its arguments and in its module's parameters.
    depths
        The depths for gradients; iterates are taken up to the largest.
    solver
        What finds the equilibrium, which plain iteration may not; ``None`` is the default.
    seed
        Of the cotangent at z*.
    """
    layout, most = Layout(problem.z0), max(depths)

    def apart(t: Tensor) -> Tensor:
        return t.detach().requires_grad_(t.is_floating_point())

    problem = replace(problem, args=tuple(apart(t) for t in problem.args))
    module = problem.f if isinstance(problem.f, nn.Module) else nn.Module()
    wanted = [*(t for t in problem.args if t.requires_grad), *_leaves(module)]
    tight = Implicit(solver=GMRES(), reltol=TIGHT, max_products=1000, on_failure="ignore")
    found = solve(problem, solver, tight, reltol=TIGHT, max_evaluations=1000)
    z = layout.pack(found.value)
    c = _random(z.shape, z, seed)

    def gradient(value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((value * c).sum(), wanted, materialize_grads=True)

    exact, z = gradient(z), z.detach()
    size = float(z.norm()) or 1.0
    steps, errors = list[float](), list[float]()
    with torch.no_grad():
        evaluator = Evaluator(problem)
        point = layout.pack(problem.z0).detach()
        for _ in range(most):
            following, change = evaluator(point)
            steps.append(float(change.norm()) / size)
            errors.append(float((point - z).norm()) / size)
            point = following
    gradients = []
    for depth in depths:
        network = solve(problem, Picard(), Unrolled(), max_evaluations=depth, fixed_budget=True)
        gradients.append(relative(gradient(layout.pack(network.value)), exact))
    plain = replace(problem, args=tuple(t.detach() for t in problem.args))
    with torch.no_grad():
        J = jacobian(plain, layout.unpack(z))
    value = tuple(t.detach() for t in parts(found.value))
    return Depth(
        torch.tensor(steps, dtype=torch.float64),
        torch.tensor(errors, dtype=torch.float64),
        torch.tensor(list(depths)),
        torch.tensor(gradients, dtype=torch.float64),
        float(radii(J).amax()),
        replace(found, value=value if layout.is_tuple else value[0]),
    )


def rate(
    positions: Sequence[float], values: Sequence[float], *, floor: float = 1e-11, power: int = 0
) -> float | None:
    """Return r of the fit value ≈ a kᵖ rᵏ to the later half of what is above the floor.

    Parameters
    ----------
    positions, values
        k and the value there.
    floor
        Below it, relative to the largest value, is rounding.
    power
        p: the gradient of a network of depth L takes part in L steps that are not at z* yet, each
        wrong by rᴸ or so, which makes it L rᴸ.

    Returns
    -------
    float or None
        None where fewer than three values are left.
    """
    found = [(k, v) for k, v in zip(positions, values, strict=True) if math.isfinite(v) and k > 0]
    top = max((v for _, v in found), default=0.0)
    there = [(k, v) for k, v in found if v > floor * top]
    there = there[len(there) // 2 :]
    if len(there) < 3:
        return None
    k = torch.tensor([k for k, _ in there], dtype=torch.float64)
    y = torch.tensor([math.log(v) for _, v in there], dtype=torch.float64) - power * k.log()
    k = k - k.mean()
    return math.exp(float((k * (y - y.mean())).sum() / (k * k).sum()))


# -- injection ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Injection:
    """How much of the input is left in the state, by depth.

    Attributes
    ----------
    variance
        By network, (K + 1,): the variance of the state over the inputs after k steps, relative to
        that at the start, the mean over its entries. ``untied``: every step has its own weights,
        and the input is the start; ``tied``: one and the same step; ``injected``: the input is
        added at every step too.
    limits
        The same of the fixed points that a solver finds, of ``tied`` and ``injected``.
    gradients
        ‖dL/dx‖ of these, relative to ‖dL/dz*‖; ``tied`` has none.
    contraction
        ‖W‖₂, the rate at which a step forgets.
    """

    variance: Mapping[str, Tensor]
    limits: Mapping[str, float]
    gradients: Mapping[str, float]
    contraction: float


class _Tanh(nn.Module):
    """z ↦ tanh(W z + s x + b), with s 1 where x is injected, else 0."""

    def __init__(self, W: Tensor, b: Tensor, *, injected: bool) -> None:
        super().__init__()
        self.W, self.b, self.injected = nn.Parameter(W), nn.Parameter(b), injected

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        u = self.b.expand_as(x)
        return torch.tanh(nn.functional.linear(z, self.W) + (u + x if self.injected else u))


def contracting(dim: int, contraction: float, seed: int) -> Tensor:
    """Return a random matrix (dim, dim) of this spectral norm."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return W * (contraction / float(torch.linalg.matrix_norm(W, 2)))


def injection(x: Tensor, *, depth: int = 50, contraction: float = 0.8, seed: int = 0) -> Injection:
    """Measure how much of the input three networks keep: untied, tied, tied and injected.

    A step z ↦ tanh(W z + b) with ‖W‖₂ = r < 1 brings any two states nearer by r at least. If the
    input is only where it starts, the variance over inputs falls as r²ᵏ, and the fixed point is the
    same for all of them.

    Parameters
    ----------
    x
        The inputs (B, D), which start all three.
    depth
        Steps.
    contraction
        ‖W‖₂ of every step, below 1.
    seed
        Of the weights.
    """
    if depth < 1:
        raise ValueError(f"depth = {depth}: at least 1 step is needed")
    if not 0 < contraction < 1:
        raise ValueError(f"contraction = {contraction}: expected a number between 0 and 1")
    dim = x.shape[1]
    weights = [contracting(dim, contraction, 1000 * seed + k).to(x) for k in range(depth)]
    b = _random((dim,), x, seed) / 10
    cells: dict[str, list[_Tanh]] = {
        "untied": [_Tanh(W, b, injected=False) for W in weights],
        "tied": [_Tanh(weights[0], b, injected=False)] * depth,
        "injected": [_Tanh(weights[0], b, injected=True)] * depth,
    }
    start = _variance(x)
    variance: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, network in cells.items():
            z, found = x, [1.0]
            for cell in network:
                z = cell(z, x)
                found.append(_variance(z) / start)
            variance[name] = torch.tensor(found, dtype=torch.float64)
    limits, gradients = dict[str, float](), dict[str, float]()
    c = _random(x.shape, x, seed + 1)
    for name in ("tied", "injected"):
        given = x.detach().requires_grad_()
        problem = FixedPointProblem(cells[name][0], x.detach(), (given,), samples_independent=True)
        found_z = cast(
            Tensor,
            solve(problem, None, Implicit(reltol=TIGHT), reltol=TIGHT, max_evaluations=1000).value,
        )
        limits[name] = _variance(found_z.detach()) / start
        (slope,) = torch.autograd.grad((found_z * c).sum(), given, materialize_grads=True)
        gradients[name] = float(slope.norm() / c.norm())
    return Injection(variance, limits, gradients, contraction)


def _variance(z: Tensor) -> float:
    """Return the variance over the samples, the mean over the entries."""
    return float(z.var(dim=0).mean())
