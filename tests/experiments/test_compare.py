"""The experiment ``compare`` through the command line, small."""

import math
from collections.abc import Callable

import pytest
from said import Deq

from db import Store
from solvers import Broyden, as_config

Opened = Callable[[], Store]
SMALL = ("batch=4", "repeats=1", "model.width=8", "device=cpu", "dtype=float64")


def test_one_run_measures_every_tolerance(deq: Deq, store: Opened) -> None:
    said = deq("run", "compare", "with", *SMALL, "solver.name=broyden", "reltol=[1e-2, 1e-6]")
    assert said.code == 0, said.err
    run = store().run(1)
    assert run["config"]["solver"] == as_config(Broyden())
    assert run["config"]["data"]["name"] == "digits"
    assert len(run["config"]["data_sha256"]) == 64
    solves = store().solves()
    assert list(solves["phase"]) == ["forward", "adjoint"] * 2
    assert list(solves["outer_step"]) == [0, 0, 1, 1]
    assert list(solves["solver"]) == ["broyden", "gmres"] * 2
    assert set(solves["retcode"]) == {"SUCCESS"}
    gradients = store().gradients()
    assert list(gradients["outer_step"]) == [0, 1]
    assert list(gradients["solve_id"]) == list(solves["solve_id"].iloc[[0, 2]])
    assert list(gradients["adjoint_id"]) == list(solves["solve_id"].iloc[[1, 3]])
    assert list(gradients["solver"]) == ["broyden"] * 2
    coarse, fine = gradients["rel_err"]
    assert fine < 1e-4 and fine < coarse
    trace = store().trace(int(solves["solve_id"].iloc[2]))
    assert math.isclose(trace["residual"].iloc[0], solves["residual_first"].iloc[2], rel_tol=1e-9)
    assert trace["evaluations"].iloc[-1] == solves["evaluations"].iloc[2]


def test_budgets_and_no_gradient(deq: Deq, store: Opened) -> None:
    budgets = ("solver.name=picard", "fixed_budget=True", "max_evaluations=[2, 4]")
    said = deq("run", "compare", "with", *SMALL, *budgets, "gradient=null")
    assert said.code == 0, said.err
    solves = store().solves()
    assert list(solves["evaluations"]) == [2, 4]
    assert set(solves["fixed_budget"]) == {1}
    assert store().gradients().empty
    assert store().runs()["gradient"].isna().all()


MISTAKES = {
    "model": ("model.name=mpl", ["model.name", "'mpl'", "did you mean 'mlp'", "transformer"]),
    "model's option": ("model.witdh=3", ["model.witdh", "did you mean 'width'"]),
    "solver": ("solver.name=anderson2", ["solver.name", "did you mean 'anderson'"]),
    "gradient": ("gradient.name=implict", ["gradient.name", "did you mean 'implicit'"]),
    "an own iteration": ("gradient.name=reversible", ["brings its own iteration", "memory"]),
    "no inverse": (
        "gradient.name=shine solver.name=picard",
        ["solver.name = 'picard'", "'shine' uses", "'broyden' or 'anderson'"],
    ),
    "no inverse either": (
        "gradient.precondition=forward solver.name=newton",
        ["'implicit' uses", "'broyden' or 'anderson'"],
    ),
    "gradient's solver": ("gradient.solver.name=gmrse", ["gradient.solver.name", "'gmres'"]),
    "data": ("data.name=digit", ["data.name", "did you mean 'digits'"]),
    "tolerance": ("reltol=-1", ["reltol = -1"]),
    "evaluations": ("max_evaluations=2.5", ["max_evaluations = 2.5", "integer"]),
    "norm": ("norm=l1", ["norm = 'l1'", "'l2'", "'linf'"]),
    "device": ("device=cuda:99", ["device = 'cuda:99'"]),
    "user's model": ("model.name=nobody:build", ["model.name", "cannot import 'nobody'"]),
    "other data": ("data_sha256=abc", ["data_sha256 = 'abc'", "digits"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: list[str]) -> None:
    said = deq("run", "compare", "with", *word.split())
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


@pytest.mark.parametrize("model", ["model.name=revnet", "model.layers=2"])
def test_an_explicit_network_has_no_equilibrium_to_compare(deq: Deq, model: str) -> None:
    said = deq("run", "compare", "with", model, "gradient=null")
    assert said.code == 2
    assert "an explicit network, which has no equilibrium to solve for" in said.err
