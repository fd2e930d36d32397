"""The registry of solvers, and solvers from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
import torch
from maps import ALL, FOREIGN, OURS, SPLITTINGS, tanh_map
from pydantic import Field
from torch import Tensor

import solvers
from solvers import OptionError, Registry, Solver, as_config
from solvers.extensions import EXTENSIONS
from solvers.problems import registry as problems

every_name = pytest.mark.parametrize("name", ALL + SPLITTINGS)


@dataclass(frozen=True)
class HeavyBall(Solver):
    """Polyak's heavy ball, as a user might write it."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.3

    name: ClassVar[str] = "heavy_ball"
    reference: ClassVar[str] = "Polyak 1964"

    def init(self, z: Tensor, fz: Tensor) -> dict[str, Tensor]:
        return {"last": z}

    def step(
        self, state: dict[str, Tensor], z: Tensor, fz: Tensor, linearise: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return fz + self.momentum * (z - state["last"]), {"last": z}


@every_name
def test_every_entry_builds_without_options_and_describes_itself(name: str) -> None:
    solver = solvers.registry.get(name)
    entry = solvers.registry.describe(name)
    assert solver.name == name
    assert not entry.error
    assert entry.summary.endswith((".", "f(z) − z‖²."))
    assert entry.reference or name == "fallback"
    packages = {"scipy", "torchdeq", "xitorch"}
    assert set(entry.requires) <= {"linearise", "blocks", "dense", "projection", *packages}
    assert entry.requires == tuple(sorted(solver.requires))
    libraries = ("scipy_", "torch_", "torchdeq_", "xitorch_")
    assert name.startswith(libraries) == (name in FOREIGN)


@every_name
def test_a_config_is_the_object_and_back(name: str) -> None:
    solver = solvers.registry.get(name)
    config = as_config(solver)
    assert config["name"] == name
    assert solvers.registry.build(config) == solver
    assert solvers.registry.build(solver) is solver  # type: ignore[arg-type]
    assert solvers.registry.build(name) == solver
    assert solvers.registry.complete(name) == config


def test_the_names() -> None:
    assert {"picard", "anderson", "broyden", "newton", "newton_krylov", "fallback"} == set(OURS)
    assert {"forward_backward", "peaceman_rachford"} == set(SPLITTINGS)
    assert set(FOREIGN) <= set(EXTENSIONS) <= set(solvers.registry.names())
    assert sorted(ALL) == ALL
    assert "anderson" in solvers.registry
    assert list(solvers.registry) == solvers.registry.names()


def test_a_solver_from_outside_solves() -> None:
    problem = problems.get("tanh", batch=5, dtype="float64", scale=0.6)
    solution = solvers.solve(problem, HeavyBall(), reltol=1e-9)
    assert solution.success
    assert torch.allclose(solution.value, problem.solutions[0], atol=1e-7)  # 1e-9 / (1 - 0.9)
    # Everything but the rule is the loop's: samples are dropped, and the state is theirs.
    counts = solution.stats.sample_evaluations
    assert counts.min() < counts.max()


def test_a_solver_from_outside_by_its_place() -> None:
    place = f"{__name__}:HeavyBall"
    solver = solvers.registry.get(place, momentum=0.5)
    assert solver == HeavyBall(momentum=0.5)
    with pytest.raises(OptionError, match=r"solver\.momentm: unknown option .*'momentum'"):
        solvers.registry.get(place, momentm=0.5)
    with pytest.raises(OptionError, match=r"solver\.momentum = 2"):
        solvers.registry.get(place, momentum=2.0)
    with pytest.raises(OptionError, match=r"solver\.name: unknown attribute .*'HeavyBall'"):
        solvers.registry.get(f"{__name__}:HeavyBal")
    with pytest.raises(OptionError, match=r"solver\.name: cannot import 'no_such_module'"):
        solvers.registry.get("no_such_module:Thing")


def test_a_solver_from_outside_by_its_name() -> None:
    registry: Registry[Any] = Registry("solver")
    registry.register("heavy_ball", HeavyBall)
    assert registry.get("heavy_ball") == HeavyBall()
    registry.register("heavy_ball", HeavyBall)  # twice the same is no mistake
    with pytest.raises(ValueError, match="'heavy_ball' is taken"):
        registry.register("heavy_ball", solvers.Picard)


def test_a_solver_that_fails_its_linear_solve_is_heard() -> None:
    class Giving(HeavyBall):
        def failed(self, state: dict[str, Tensor]) -> Tensor:
            return torch.ones(state["last"].shape[0], dtype=torch.bool)

    solution = solvers.solve(tanh_map(batch=2), Giving(), reltol=1e-12)
    assert set(solution.retcode.tolist()) == {solvers.ReturnCode.LINEAR_SOLVE_FAILED}
    assert solution.stats.evaluations == 2


def test_a_factory_of_somebodys_that_raises_is_named_with_the_place(tmp_path):
    (tmp_path / "theirs.py").write_text("def build(size: int = 3):\n    return 1 / (size - 3)\n")
    registry = Registry("thing")
    name = f"{tmp_path / 'theirs.py'}:build"
    assert registry.build({"name": name, "size": 4}) == 1.0
    with pytest.raises(OptionError, match=r"ZeroDivisionError: .*theirs\.py:2"):
        registry.build(name)
