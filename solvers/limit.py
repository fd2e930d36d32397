r"""How well a solver could do: the limit of a problem, and the spectrum that sets it.

Near a solution z\* a solve is a linear one, and every method whose iterates combine values of f
takes its residuals from a Krylov space of I − J(z\*). The smallest residual of such a space is
GMRES's, so that

    limit = 2 + products of GMRES on I − J(z*) from r₀ = (I − J(z*)) (z* − z0):

one evaluation to begin with, one at the end, and a product for each in between. It is asymptotic:
the nonlinear part may bring an evaluation more or less. J is the derivative of f, for a root
problem of z + g(z).

Reference: Y. Saad, M. Schultz, SIAM J. Sci. Stat. Comput. 7 (1986); H. De Sterck, Y. He, O. A.
Krzysik, arXiv:2109.14181, for Anderson's method; W. E. Arnoldi, Quart. Appl. Math. 9 (1951).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from solvers.evaluation import Evaluator, Linearisation
from solvers.linear.basis import Basis, widened
from solvers.linear.gmres import arnoldi_solve
from solvers.loop import started_from
from solvers.options import unknown
from solvers.problem import FixedPointProblem, Layout, Problem, State, parts
from solvers.solution import Solution
from solvers.solver import reading_interval

# Newton steps and halvings of one: more than a start near a root needs.
STEPS, HALVINGS = 50, 20
# A polished residual counts as zero below so many units of rounding of z and f(z).
ROUNDING = 1e3


@torch.no_grad()
def limit(
    problem: Problem,
    solution: Solution,
    *,
    tolerance: Tensor | float | None = None,
    max_vectors: int = 200,
) -> Tensor:
    r"""Return the fewest evaluations that a Krylov-type method could need, for each sample.

    All is done in float64: tensors and modules of the problem are copied in it (a module may be f
    itself or the owner of the method that f is). Where f cannot take float64, as a function that
    closes over float32 weights, its products keep their dtype, and the answer the rounding of it.

    Parameters
    ----------
    problem
        The problem, with the start z0 that the solve had.
    solution
        Its solution by any solver; the value is polished by Newton's method first.
    tolerance
        The residual norms to reach, a number or (B,), in the norm of the solution's settings;
        ``None`` is what was asked of each sample, abstol + reltol · scale. Krylov spaces minimise
        the l2 norm: a tolerance t in the norm ``rms`` or ``linf`` becomes √D t, for ``linf`` the
        l2 norm below which it cannot be met, so that the limit stays a lower bound.
    max_vectors
        The most products, which is the number of vectors (B, D) that are kept.

    Returns
    -------
    Tensor
        (B,) float64: 1 where z0 meets the tolerance, ``inf`` where the residual stagnates above
        it, as for a singular I − J, ``nan`` where ``max_vectors`` did not suffice to know. Where
        samples depend on each other, the limit of the batch as one.

    Raises
    ------
    ValueError
        If the solution is not near a root: Newton's method ends at a larger residual.
    """
    device = parts(problem.z0)[0].device
    with torch.autocast(device.type, enabled=False):
        value = started_from(problem, solution).z0
        wide = _in_float64(problem)
        goal = _goal(wide, solution, tolerance)
        evaluator = Evaluator(wide, keep_last=True)
        z0 = evaluator.layout.pack(wide.z0).detach()
        z = evaluator.layout.pack(value).detach().to(z0.dtype)
        shape = _shape(problem, solution.samples_independent, evaluator, z)
        if shape != z.shape:  # one sample: its tolerance holds for all
            goal = goal.square().sum().sqrt()[None]
        first = torch.linalg.vector_norm(evaluator(z0)[1].reshape(shape), dim=1)
        z = _polished(evaluator, z, shape, goal, max_vectors)
        product = _system(evaluator.linearise(z, shape), z.dtype)
        r = product((z - z0).reshape(shape).double())
        dim = shape[1]
        cycle = arnoldi_solve(
            product,
            r,
            tolerance=torch.where(first.double() <= goal, torch.inf, goal),
            max_products=min(max_vectors, dim),
            read_every=reading_interval(z0),
        )
        # The recurrence that counts and the residual agree up to rounding.
        rounding = 100 * torch.finfo(torch.float64).eps * torch.linalg.vector_norm(r, dim=1)
        reached = cycle.residual <= torch.maximum(2 * goal, rounding)
        short = cycle.live & (cycle.products < dim)
        counts = torch.where(reached, 2.0 + cycle.counts, torch.inf)
        counts = torch.where(short, torch.nan, counts)
        counts = torch.where(first.double() <= goal, 1.0, counts)
        return counts.double().expand(problem.batch).clone()


def _in_float64(problem: Problem) -> Problem:
    """Return the problem in float64, or itself where its function cannot take it."""
    first = parts(problem.z0)[0]
    if first.dtype == torch.float64 or first.device.type == "mps":  # which has no float64
        return problem
    function = problem.function
    owner = getattr(function, "__self__", None)

    def wide(t: Tensor) -> Tensor:
        return t.detach().double() if t.is_floating_point() else t

    try:
        if isinstance(function, nn.Module):
            function = copy.deepcopy(function).double()
        elif isinstance(owner, nn.Module):
            function = getattr(copy.deepcopy(owner).double(), function.__name__)
        which = "f" if isinstance(problem, FixedPointProblem) else "g"
        changed: Problem = replace(problem.mapped(wide), **{which: function})  # type: ignore[type-var]
        evaluator = Evaluator(changed)
        evaluator(evaluator.layout.pack(changed.z0))
    except (RuntimeError, TypeError):
        # Two dtypes in one operation, another one returned, or a module that holds part of a graph
        # and cannot be copied.
        return problem
    return changed


def _goal(problem: Problem, solution: Solution, tolerance: Tensor | float | None) -> Tensor:
    """Return the l2 residual norms (B,) to reach, in float64."""
    settings, layout = solution.settings, Layout(problem.z0)
    if tolerance is None:
        tolerance = settings.abstol + settings.reltol * solution.scale.double()
    goal = torch.as_tensor(tolerance, dtype=torch.float64, device=layout.device)
    if goal.dim() > 1 or (goal.dim() == 1 and goal.shape[0] != problem.batch):
        raise ValueError(
            f"tolerance has shape {tuple(goal.shape)}, expected a number or ({problem.batch},)"
        )
    factor = 1.0 if settings.norm == "l2" else max(layout.dim, 1) ** 0.5
    return goal.expand(problem.batch) * factor


def _shape(
    problem: Problem, independent: bool | None, evaluator: Evaluator, z: Tensor
) -> torch.Size:
    """Return the shape of vectors: (B, D), or (1, B · D) where samples depend on each other."""
    if independent is None:
        independent = problem.samples_independent
    if independent is None and z.shape[0] > 1:
        evaluator(z)
        independent = evaluator.linearise(z, z.shape).blocks()
    return z.reshape(1, -1).shape if independent is False else z.shape


def _system(products: Linearisation, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return v ↦ (I − J) v on float64 vectors, by products with J in ``dtype``."""

    def product(v: Tensor) -> Tensor:
        return v - products.jvp(v.to(dtype)).double()

    return product


def _polished(
    evaluator: Evaluator, z: Tensor, shape: torch.Size, goal: Tensor, max_vectors: int
) -> Tensor:
    """Return the root (B, D) near z: Newton–GMRES steps until the residual falls no further."""

    def rounding(z: Tensor, fz: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm((z.abs() + fz.abs()).reshape(shape), dim=1)
        return ROUNDING * torch.finfo(z.dtype).eps * size

    fz, r = evaluator(z)
    size = torch.linalg.vector_norm(r.reshape(shape), dim=1)
    for _ in range(STEPS):
        if not bool((size > 0).any()):
            break
        step = arnoldi_solve(
            _system(evaluator.linearise(z, shape), z.dtype),
            r.reshape(shape).double(),
            tolerance=1e-4 * size.double(),
            max_products=min(max_vectors, shape[1]),
        ).x.to(z.dtype)
        length = torch.ones_like(size)
        floor = rounding(z, fz)
        for _ in range(HALVINGS):
            trial = z + (length[:, None] * step).reshape(z.shape)
            ft, rt = evaluator(trial)
            after = torch.linalg.vector_norm(rt.reshape(shape), dim=1)
            worse = ~(after < size)
            # What is lost in rounding is not worth another evaluation.
            if not bool((worse & (size > floor)).any()):
                break
            length = torch.where(worse, length / 2, length)
        if bool(worse.all()):
            break
        kept = worse[:, None].expand(shape).reshape(z.shape)
        z = torch.where(kept, z, trial)
        fz, r = torch.where(kept, fz, ft), torch.where(kept, r, rt)
        size = torch.where(worse, size, after)
    size, floor = size.double(), rounding(z, fz).double()
    far = ~(size <= torch.maximum(floor, goal / 100))
    if bool(far.any()):
        k = int(far.nonzero()[0])
        where = f"sample {k}" if shape == z.shape else "the batch"
        raise ValueError(
            f"the solution of {where} is not near a root: Newton's method from it ends at a"
            f" residual of {float(size[k]):.3g}, above {float(floor[k]):.3g} (rounding) and"
            f" {float(goal[k]) / 100:.3g} (the tolerance / 100). There is no limit without a root:"
            " give a better solution, or the samples that have one"
        )
    return z


# -- the spectrum ---------------------------------------------------------------------------------


def spectral_radius(
    problem: Problem,
    z: State | Solution | None = None,
    *,
    method: Literal["arnoldi", "growth"] = "arnoldi",
    products: int | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Return the largest \|λ\| of J, the derivative of f (of z + g(z) for roots), at a point.

    The dominant eigenvalues of a learnt J are often a complex pair. Power iteration then turns in
    a plane and converges to no vector, and the Rayleigh quotient vᵀJv / vᵀv is that of whatever
    vector it holds: for a rotation by θ of radius ρ it is ρ cos θ, whatever v. The growth of norms
    does not mind the turning, and Arnoldi's method finds the pair itself.

    Parameters
    ----------
    problem
        The problem.
    z
        A state, or a solution, whose value is meant; ``None`` is the start z0.
    method
        ``arnoldi``: the largest Ritz value of a Krylov space, exact after D products, and soon
        right for an eigenvalue that stands apart. ``growth``: the geometric mean of ‖Jᵀv‖ / ‖v‖
        over the last half of the products of a power iteration; two vectors of memory.
    products
        Products with Jᵀ; ``None`` is 100 for ``arnoldi``, 400 for ``growth``.
    seed
        Of the first vector, which is the same for all samples.

    Returns
    -------
    Tensor
        (B,) float64; where samples depend on each other, that of the batch as one.

    Raises
    ------
    OptionError
        If there is no such method.
    """
    if method == "arnoldi":
        return eigenvalues(problem, z, products=products or 100, seed=seed)[:, 0].abs()
    if method != "growth":
        raise unknown("method", method, ("arnoldi", "growth"))
    transposed, rows, v = _at(problem, z, seed)
    total = products or 400
    growth: list[Tensor] = []
    with torch.no_grad():
        for _ in range(total):
            w = transposed(v)
            size = torch.linalg.vector_norm(w, dim=1)
            growth.append(size)
            v = w / torch.where(size > 0, size, 1.0)[:, None]
    late = torch.stack(growth[total // 2 :]).double()
    return late.log().mean(dim=0).exp().expand(rows).clone()


def eigenvalues(
    problem: Problem,
    z: State | Solution | None = None,
    *,
    products: int = 100,
    seed: int = 0,
) -> Tensor:
    r"""Return Ritz values of J, the derivative of f (of z + g(z) for roots), at a point.

    Arnoldi's method on Jᵀ. From D products on, these are all the eigenvalues, and up to rounding:
    where the space is exhausted early, it goes on with a new vector.

    Parameters
    ----------
    problem
        The problem.
    z
        A state, or a solution, whose value is meant; ``None`` is the start z0.
    products
        Products with Jᵀ, and vectors (B, D) that are kept; D if that is less.
    seed
        Of the first vector, which is the same for all samples.

    Returns
    -------
    Tensor
        (B, k) complex128, the largest first; ``nan`` for a sample whose J is not finite. Where
        samples depend on each other, those of the batch as one.
    """
    if products < 1:
        raise ValueError(f"products = {products}: at least 1 is needed")
    transposed, rows, v = _at(problem, z, seed)
    with torch.no_grad():
        H = _arnoldi(transposed, v, min(products, v.shape[1]), seed)
    # On the host: no batched routine for general matrices elsewhere is worth it.
    H = H.double().cpu()
    finite = torch.isfinite(H).all(dim=2).all(dim=1)
    found: Tensor = torch.linalg.eigvals(torch.nan_to_num(H, 0.0, 0.0, 0.0))
    found = torch.where(finite[:, None], found, torch.nan)
    order = found.abs().argsort(dim=1, descending=True, stable=True)
    return found.gather(1, order).to(v.device).expand(rows, -1).clone()


def _arnoldi(product: Callable[[Tensor], Tensor], v: Tensor, size: int, seed: int) -> Tensor:
    """Return the Hessenberg matrices (B, size, size) of the Krylov space of v (B, D)."""
    H = v.new_zeros(v.shape[0], size, size)
    basis, noise = Basis(v), 10 * torch.finfo(v.dtype).eps
    for j in range(size):
        q, h = basis.orthogonalise(product(basis.newest))
        H[:, : j + 1, j] = h
        if j + 1 == size:
            break
        rest = torch.linalg.vector_norm(q, dim=1)
        closed = rest <= noise * torch.hypot(rest, torch.linalg.vector_norm(h, dim=1))
        if bool(closed.any()):
            fresh, _ = basis.orthogonalise(_random(v, seed + j + 1))
            q = torch.where(closed[:, None], fresh, q)
        H[:, j + 1, j] = torch.where(closed, 0.0, rest)
        basis.push(q / torch.linalg.vector_norm(q, dim=1)[:, None])
    return H


def _at(
    problem: Problem, z: State | Solution | None, seed: int
) -> tuple[Callable[[Tensor], Tensor], int, Tensor]:
    """Return the product with Jᵀ at a point, the number of samples, and a first vector."""
    if isinstance(z, Solution):
        problem = started_from(problem, z)
    elif z is not None:
        problem = replace(problem, z0=z)  # type: ignore[type-var]
    with torch.no_grad():
        evaluator = Evaluator(problem, keep_last=True)
        flat = evaluator.layout.pack(problem.z0).detach()
        evaluator(flat)
        independent = z.samples_independent if isinstance(z, Solution) else None
        shape = _shape(problem, independent, evaluator, flat)
        transposed, like = widened(
            evaluator.linearise(flat, shape).vjp, torch.empty(shape, dtype=flat.dtype)
        )
    return transposed, flat.shape[0], _random(like.to(flat.device), seed)


def _random(like: Tensor, seed: int) -> Tensor:
    """Return one random unit vector for every row of ``like`` (B, D)."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(1, like.shape[1], generator=generator, dtype=torch.float64)
    unit: Tensor = v / torch.linalg.vector_norm(v)
    return unit.to(like).expand_as(like)
