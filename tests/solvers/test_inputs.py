"""Bad input: an error says which value, where, and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from maps import ALL, every_solver, ours, tanh_map
from torch import Tensor

import solvers
from solvers import Anderson, FixedPointProblem, OptionError, Picard, RootProblem

# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.cos, torch.zeros(2, dtype=torch.long)),
            TypeError,
            "floating dtype, got torch.int64",
        ),
        ((torch.cos, torch.tensor(1.0)), ValueError, r"no batch axis: its shape must be \(B, …\)"),
        ((torch.cos, [1.0, 2.0]), TypeError, r"z0\[0\] must be a tensor, got float"),
        ((torch.cos, ()), ValueError, "z0 is an empty tuple"),
        ((torch.cos, torch.zeros(2, 1), torch.zeros(2)), TypeError, r"give a tuple of tensors"),
        (
            (torch.cos, torch.zeros(2, 1), (3,)),
            TypeError,
            r"args\[0\] is a int: per-sample tensors",
        ),
        (
            (torch.cos, torch.zeros(2, 1), (torch.zeros(3, 1),)),
            ValueError,
            r"args\[0\] has shape \(3, 1\), but the batch size is 2: .* go into params",
        ),
        ((torch.cos, torch.zeros(2, 1), (), ("W",)), TypeError, r"params\[0\] is a str"),
        ((3, torch.zeros(2, 1)), TypeError, "must be callable, got int"),
        (
            (torch.cos, (torch.zeros(2, 1), torch.zeros(3, 1))),
            ValueError,
            r"z0\[1\] has shape \(3, 1\), but the batch size is 2",
        ),
        (
            (torch.cos, (torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.float64))),
            ValueError,
            r"z0\[1\] is torch\.float64 on cpu, the first part torch\.float32",
        ),
    ],
)
@pytest.mark.parametrize("kind", [FixedPointProblem, RootProblem])
def test_problems(kind: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments)


# -- what a cell returns ---------------------------------------------------------------------------


def returning(bad: Any, when: int, tuple_state: bool = False) -> FixedPointProblem:
    """A problem whose function returns something else at its ``when``-th evaluation."""
    calls = 0

    def f(z: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == when:
            return bad
        return tuple(torch.cos(t) for t in z) if isinstance(z, tuple) else torch.cos(z)

    z0 = torch.zeros(2, 3)
    state: Any = (z0, torch.zeros(2, 1)) if tuple_state else z0
    return FixedPointProblem(f, state, samples_independent=True)


@pytest.mark.parametrize("when", [1, 3])
@pytest.mark.parametrize(
    ("bad", "error", "what"),
    [
        (torch.zeros(2, 4), ValueError, r"of shape \(2, 4\), but the state has \(2, 3\)"),
        (torch.zeros(3), ValueError, r"of shape \(3,\), but the state has"),
        (torch.zeros(2, 3, dtype=torch.float64), TypeError, r"torch\.float64, but the state is"),
        (torch.zeros(2, 3, dtype=torch.long), TypeError, r"torch\.int64, but the state is"),
        (
            (torch.zeros(2, 3), torch.zeros(2, 3)),
            TypeError,
            "a tuple of 2, but the state is a tensor",
        ),
        (None, TypeError, "a NoneType, but the state is a tensor"),
        (1.0, TypeError, "a float, but the state is a tensor"),
    ],
)
@ours
def test_a_wrong_return_names_the_evaluation(
    name: str, bad: Any, error: type[Exception], what: str, when: int
) -> None:
    with pytest.raises(error, match=f"at evaluation {when} the function returned .*{what}"):
        solvers.solve(returning(bad, when), solvers.registry.get(name), reltol=1e-6)


@pytest.mark.parametrize(
    ("bad", "error", "what"),
    [
        (torch.zeros(2, 3), TypeError, "a Tensor, but the state is a tuple of 2 tensors"),
        ((torch.zeros(2, 3),), TypeError, "a tuple of 1, but the state is a tuple of 2 tensors"),
        ((torch.zeros(2, 3), 5), TypeError, "part 1 of type int, expected a tensor"),
        (
            (torch.zeros(2, 3), torch.zeros(2, 2)),
            ValueError,
            r"part 1 of shape \(2, 2\), but the state has \(2, 1\)",
        ),
    ],
)
def test_a_wrong_tuple_names_the_part(bad: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=f"at evaluation 2 the function returned .*{what}"):
        solvers.solve(returning(bad, 2, tuple_state=True), Anderson())


@every_solver
def test_a_wrong_shape_at_once_is_an_error_in_every_solver(name: str) -> None:
    with pytest.raises(ValueError, match="at evaluation 1 the function returned of shape"):
        solvers.solve(returning(torch.zeros(2, 4), 1), solvers.registry.get(name))


@every_solver
def test_an_exception_of_the_cell_is_the_users(name: str) -> None:
    def f(z: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        solvers.solve(FixedPointProblem(f, torch.zeros(2, 3)), solvers.registry.get(name))


def test_a_list_may_stand_for_a_tuple() -> None:
    problem = FixedPointProblem(
        lambda z: [torch.cos(z[0]), torch.sin(z[1])],
        [torch.zeros(2, 3), torch.zeros(2, 1)],  # type: ignore[arg-type]
    )
    solution = solvers.solve(problem, Anderson())
    assert isinstance(solution.value, tuple)


@every_solver
def test_a_state_of_one_number(name: str) -> None:
    problem = FixedPointProblem(torch.cos, torch.zeros(3, dtype=torch.float64))
    solution = solvers.solve(problem, solvers.registry.get(name), reltol=1e-8)
    assert solution.success
    assert isinstance(solution.value, Tensor)
    assert solution.value.shape == (3,)
    assert torch.allclose(solution.value, torch.tensor(0.7390851332151607, dtype=torch.float64))


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"reltol": -1}, r"reltol = -1: .*greater than or equal to 0"),
        ({"reltol": "1e-3"}, r"reltol = '1e-3': .*this is text; write the number 0\.001"),
        ({"abstol": -1e-9}, r"abstol = -1e-09"),
        ({"max_evaluations": 2.5}, r"max_evaluations = 2\.5: .*valid integer"),
        ({"max_evaluations": 0}, r"max_evaluations = 0: .*greater than or equal to 1"),
        ({"max_seconds": 0}, r"max_seconds = 0: .*greater than 0"),
        ({"norm": "l1"}, r"norm = 'l1': .*'l2'"),
        ({"trace": "all"}, r"trace = 'all'"),
        ({"fixed_budget": "yes"}, r"fixed_budget = 'yes'"),
        ({"reltol": float("nan")}, r"reltol = nan"),
    ],
)
def test_settings(option: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        solvers.solve(tanh_map(), Picard(), **option)
    with pytest.raises(OptionError, match=message):
        solvers.init(tanh_map(), Picard(), **option)


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(TypeError, match="tol"):
        solvers.solve(tanh_map(), Picard(), tol=1e-3)  # type: ignore[call-arg]


@pytest.mark.parametrize("wrong", ["anderson", Anderson, 3])
def test_a_solver_is_an_object(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a solver object such as Anderson"):
        solvers.solve(tanh_map(), wrong)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("picard", {"mixing": 0.0}, r"solver\.mixing = 0\.0: .*greater than 0"),
        ("picard", {"mixing": 2.5}, r"solver\.mixing = 2\.5: .*less than or equal to 2"),
        ("anderson", {"window": 0}, r"solver\.window = 0"),
        ("anderson", {"window": 2.5}, r"solver\.window = 2\.5"),
        ("anderson", {"window": "5"}, r"solver\.window = '5': .*this is text"),
        ("anderson", {"ridge": -1.0}, r"solver\.ridge = -1\.0"),
        ("anderson", {"windw": 5}, r"solver\.windw: unknown option.*did you mean 'window'.*mixing"),
        ("broyden", {"window": 0}, r"solver\.window = 0"),
        ("newton", {"damping": 1.5}, r"solver\.damping = 1\.5"),
        ("newton_krylov", {"forcing": 1.0}, r"solver\.forcing = 1\.0: .*less than 1"),
        ("newton_krylov", {"inner": 0}, r"solver\.inner = 0"),
        ("scipy_anderson", {"line_search": "wolf"}, r"solver\.line_search = 'wolf'.*'wolfe'"),
        ("torch_lbfgs", {"history": 0}, r"solver\.history = 0"),
        ("fallback", {"solvers": ()}, r"solver\.solvers = \(\): expected one or more"),
    ],
)
def test_options_of_solvers(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        solvers.registry.get(name, **options)


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(OptionError, match=r"^window = 0: "):
        Anderson(window=0)
    with pytest.raises(TypeError):
        Anderson(windw=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("andersn", "anderson"),
        ("broyde", "broyden"),
        ("newton-krylov", "newton_krylov"),
        ("lbfgs", "torch_lbfgs"),
        ("Picard", "picard"),
    ],
)
def test_an_unknown_name_is_met_with_the_closest(wrong: str, right: str) -> None:
    with pytest.raises(OptionError, match=f"unknown solver '{wrong}'.*did you mean '{right}'") as e:
        solvers.registry.get(wrong)
    assert all(n in str(e.value) for n in ALL)


def test_newton_refuses_a_large_state() -> None:
    problem = FixedPointProblem(torch.cos, torch.zeros(1, 20))
    with pytest.raises(
        ValueError, match=r"20 numbers a sample, more than max_dim=10: use NewtonKry"
    ):
        solvers.solve(problem, solvers.Newton(max_dim=10))


def test_a_graph_is_not_dropped_silently() -> None:
    z0 = torch.zeros(2, 2, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"use implicit\.solve for a differentiable value, or torch"
    ):
        solvers.solve(FixedPointProblem(torch.cos, z0), Picard())
    with torch.no_grad():
        assert solvers.solve(FixedPointProblem(torch.cos, z0), Picard(), reltol=1e-2).success
