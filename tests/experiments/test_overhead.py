"""The experiment ``overhead`` through the command line, small. Nothing here asserts a time."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from said import Deq

import solvers
from db import Store
from experiments import contenders as teams
from experiments.counting import Counts
from experiments.overhead import Clock, OverheadConfig, build, counted, difference, flag, race
from experiments.report.frames import as_mapping
from solvers import FixedPointProblem

Opened = Callable[[], Store]
SMALL = (
    "batch=4", "dim=8", "hidden=6", "evaluations=8", "repeats=2", "repeat_seconds=1", "device=cpu",
    "threads=1",
)  # fmt: skip
OURS = "[{name: anderson, window: 3}, {name: broyden}, {name: picard}]"


def extras(store: Store) -> list[dict[str, Any]]:
    return [as_mapping(value) for value in store.solves()["extra"]]


def problem(batch: int = 4, dim: int = 8, hidden: int = 6) -> FixedPointProblem:
    return teams.two_layer(batch, dim, hidden, dtype=torch.float64, device="cpu", seed=0)


def test_one_run_times_every_contender_in_both_modes(deq: Deq, store: Opened) -> None:
    said = deq("run", "overhead", "with", *SMALL, f"contenders={OURS}")
    assert said.code == 0, said.err
    solves = store().solves()
    assert list(solves["solver"]) == [
        name for name in ("anderson", "broyden", "picard") for _ in range(2)
    ]
    assert list(solves["fixed_budget"]) == [0, 1] * 3
    assert set(solves["evaluations"]) == {8}
    assert set(solves["sample_evaluations"]) == {32}
    for found, seconds in zip(extras(store()), solves["seconds"], strict=True):
        assert found["flag"] == ""
        assert found["bare_seconds"] > 0 and seconds > 0
        assert found["ratio_q1"] <= found["ratio"] <= found["ratio_q3"]
        assert found["sizes"] == {"batch": 4, "dim": 8, "hidden": 6}
        assert found["launches"] > 0


def test_a_fixed_budget_reads_nothing(deq: Deq, store: Opened) -> None:
    assert deq("run", "overhead", "with", *SMALL, f"contenders={OURS}").code == 0
    fixed = [found for found in extras(store()) if found["kind"] == "fixed"]
    assert [found["reads"] for found in fixed] == [0, 0, 0]


def test_a_models_own_cell_can_be_timed(deq: Deq, store: Opened) -> None:
    said = deq("run", "overhead", "with", *SMALL[3:], "model={name: mlp, width: 8}", "batch=4")
    assert said.code == 0, said.err
    assert {found["cell"] for found in extras(store())} == {"mlp"}
    assert set(store().solves()["dim"]) == {8}


@pytest.mark.parametrize("name", list(teams.DIRECT))
def test_torchdeq_is_called_directly_at_equal_counts(deq: Deq, store: Opened, name: str) -> None:
    pytest.importorskip("torchdeq")
    said = deq("run", "overhead", "with", *SMALL, f"contenders=[{{name: {name}}}]")
    assert said.code == 0, said.err
    (found,) = extras(store())
    assert (found["kind"], found["flag"]) == ("direct", "")
    assert found["reads"] > 0
    assert store().solves()["evaluations"].tolist() == [8]


@pytest.mark.parametrize("name", list(teams.DIRECT))
@pytest.mark.parametrize("evaluations", [5, 12])
def test_the_count_of_a_direct_call_is_that_of_f(name: str, evaluations: int) -> None:
    pytest.importorskip("torchdeq")
    calls = 0
    whole = problem()

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return whole.f(z, x)  # type: ignore[no-any-return]

    (who,) = teams.contenders([solvers.registry.complete(name)])
    run = teams.peers(replace(whole, f=f), who, evaluations)
    calls = 0
    _, taken = run()
    assert taken == calls == evaluations


def test_freezing_saves_what_the_easy_samples_do_not_need(deq: Deq, store: Opened) -> None:
    sizes = ("batch=8", "dim=40", "hidden=60", "gain=0.9", "evaluations=300", "repeats=1")
    said = deq(
        "run", "overhead", "with", "measure=freezing", *sizes, "threads=1", "dtype=float64",
        "device=cpu", "contenders=[{name: anderson, window: 5}]",
    )  # fmt: skip
    assert said.code == 0, said.err
    frozen, every = store().solves().to_dict("records")
    assert frozen["sample_evaluations"] < every["sample_evaluations"]
    assert every["sample_evaluations"] == 8 * every["evaluations"]
    found = extras(store())
    assert [f["variant"] for f in found] == ["frozen", "all"]
    assert found[0]["saved"] == pytest.approx(
        1 - frozen["sample_evaluations"] / every["sample_evaluations"]
    )
    # Both are within 1e-6 of the scale, on a contraction that is near 1 for the hardest sample.
    assert found[0]["difference"] < 1e-3


def test_unequal_work_is_flagged() -> None:
    easy = FixedPointProblem(lambda z: 0.1 * z, torch.ones(3, 4, dtype=torch.float64))
    short = solvers.solve(easy, solvers.Picard(), reltol=1e-3, max_evaluations=30)
    assert "instead of 30" in flag(short, 30)
    whole = solvers.solve(easy, solvers.Picard(), max_evaluations=30, fixed_budget=True)
    assert flag(whole, 30) == ""


def test_every_round_runs_everyone_and_begins_with_another() -> None:
    order: list[str] = []
    actions = {name: (lambda name=name: order.append(name)) for name in "abc"}
    measured = race(actions, Clock("cpu"), 3, 10.0)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {name: len(found) for name, found in measured.items()} == dict.fromkeys("abc", 3)


def test_counting_sees_launches_and_reads() -> None:
    counts = Counts()
    x = torch.ones(4, 4)
    with counts.counting():
        y = (x + 1).reshape(2, 8)[0]  # one launch: views are none
        assert (counts.launches, counts.reads) == (1, 0)
        float(y.sum())
        assert (counts.launches, counts.reads) == (3, 1)
        y.tolist()
        assert (counts.reads, counts.conversions) == (1, 1)
        bool((y > 0).any())
        assert counts.reads == 2
        y[y > 0]
        assert counts.reads == 3
        counts.apart(lambda: x @ x)()
    launches = counts.launches
    x.tolist()
    assert (counts.launches, counts.conversions) == (launches, 1)


def test_what_f_does_is_not_the_solvers() -> None:
    (who, _) = teams.contenders([solvers.registry.complete("picard")])
    slight = problem()
    heavy = replace(slight, f=lambda z, x: slight.f(z, x) + 0 * z.sum().item())
    (_, *light), (_, *loaded) = (counted(p, who, 6) for p in (slight, heavy))
    assert light == loaded


def test_the_easiest_sample_has_the_largest_input() -> None:
    x = build(OverheadConfig(measure="freezing", batch=5, dim=400, device="cpu")).args[0]
    sizes = x.square().mean(dim=1).sqrt()
    assert torch.all(sizes[1:] > sizes[:-1])
    assert sizes[0] < 0.06 and sizes[-1] > 1.3


def test_the_difference_of_two_answers() -> None:
    one = solvers.solve(problem(), solvers.Picard(), max_evaluations=5, fixed_budget=True)
    assert difference(one, one) == 0.0
    other = replace(one, value=one.value * 1.5)  # type: ignore[operator]
    assert difference(one, other) == pytest.approx(1 / 3)


MISTAKES: Mapping[str, tuple[str, list[str]]] = {
    "contender": ("contenders=[{name: andersen}]", ["contenders[0].name", "'anderson'"]),
    "option": (
        "contenders=[{name: picard}, {name: anderson, windw: 3}]",
        ["contenders[1].windw", "did you mean 'window'"],
    ),
    "window": ("contenders=[{name: anderson, window: 0}]", ["contenders[0].window = 0"]),
    "no contender": ("contenders=[]", ["contenders = []", "one or more"]),
    "foreign": ("contenders=[{name: scipy_broyden1}]", ["contenders[0].name", "torchdeq_"]),
    "chain": ("contenders=[{name: fallback}]", ["contenders[0].name", "native"]),
    "mode": ("mode=cuda_grph", ["mode = 'cuda_grph'", "'cuda_graph'"]),
    "graph on the CPU": ("mode=cuda_graph device=cpu", ["mode = 'cuda_graph'", "CUDA device"]),
    "evaluations": ("evaluations=2", ["evaluations = 2"]),
    "model": ("model.name=mpl", ["model.name", "did you mean 'mlp'"]),
    "freezing's model": ("measure=freezing model.name=mlp", ["model", "two-layer"]),
    "freezing's contenders": (
        "measure=freezing contenders=[torchdeq_picard]",
        ["contenders", "one of ours"],
    ),
    "freezing's tolerance": ("reltol=-1", ["reltol = -1", "greater than 0"]),
    "size": ("hidden=0", ["hidden = 0"]),
    "key": ("repeat=3", ["unknown config key 'repeat'", "did you mean 'repeats'"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: list[str]) -> None:
    words = word.split(" ") if "{" not in word or word.startswith("measure") else [word]
    said = deq("run", "overhead", "with", *words)
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err
