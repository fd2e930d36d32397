"""The sentences say what the rows say, whatever the rows are."""

import re

import pytest
from reading import blocks, figures, page, sentences, tables
from rich.console import Console
from synthetic import ANDERSON, GMRES, UNROLLED, Made

from db import Store
from experiments.report import terminal_summary
from experiments.report.blocks import Cards
from experiments.report.frames import load
from experiments.report.pages.compare.cases import cases

ONE = (1e-3,)


def solver(made: Made, name: str, evaluations: int, seconds: float = 0.01, **more: object) -> None:
    """One run a seed, with so many evaluations."""
    for seed in range(3):
        columns = {"evaluations": evaluations, "seconds": seconds, "jvps": 0, "vjps": 0}
        columns |= {"seconds_q1": seconds * 0.99, "seconds_q3": seconds * 1.01}
        made.measured("mlp", name, GMRES, seed, ONE, solve=columns | more)


def test_the_fewest_evaluations_and_the_least_time_are_the_stores(made: Made) -> None:
    solver(made, "anderson", 11, 0.002)
    solver(made, "broyden", 9, 0.004)
    said = sentences(page(made))
    assert "broyden needs the fewest evaluations (9)" in said
    assert "anderson takes the least time (2.00 ms)" in said


def test_the_sentence_changes_with_the_data(made: Made) -> None:
    solver(made, "anderson", 7, 0.002)
    solver(made, "broyden", 9, 0.001)
    said = sentences(page(made))
    assert "anderson needs the fewest evaluations (7)" in said
    assert "broyden takes the least time (1.00 ms)" in said


def test_a_tie_is_called_a_tie(made: Made) -> None:
    solver(made, "anderson", 9, 0.00200)
    solver(made, "broyden", 9, 0.00201)
    said = sentences(page(made))
    assert "anderson and broyden tie for the fewest evaluations (9)" in said
    assert "and the least time" in said


def test_a_solver_that_wins_only_in_some_seeds_ties(made: Made) -> None:
    for seed, (a, b) in enumerate([(8, 9), (9, 8), (8, 9)]):
        made.measured("mlp", "anderson", GMRES, seed, ONE, solve={"evaluations": a})
        made.measured("mlp", "broyden", GMRES, seed, ONE, solve={"evaluations": b})
    assert "anderson and broyden tie for the fewest evaluations" in sentences(page(made))


def test_who_missed_the_tolerance_in_one_run_cannot_win(made: Made) -> None:
    solver(made, "anderson", 11)
    solver(made, "broyden", 5)
    made.measured(
        "mlp",
        "broyden",
        GMRES,
        3,
        ONE,
        solve={"evaluations": 5, "converged": 0.9, "retcode": "STALLED", "message": "it stalled"},
    )
    found = page(made)
    assert "anderson needs the fewest evaluations (11)" in sentences(found)
    assert "broyden: STALLED at 1e-3 (1 of 4)" in sentences(found)
    failed = tables(found)["failures"].frame
    assert failed[["kind", "what", "why"]].values.tolist() == [["STALLED", "broyden", "it stalled"]]
    row = tables(found)["solver-gradient-mlp"].frame.set_index("solver").loc["broyden"]
    assert not row["met"]


def test_jacobian_products_are_said_beside_evaluations(made: Made) -> None:
    solver(made, "newton", 5, jvps=320)
    solver(made, "broyden", 12)
    said = sentences(page(made))
    assert "newton needs the fewest evaluations (5, beside 320 Jacobian products)" in said
    assert "broyden the fewest without Jacobian products (12)" in said


def test_nobody_meets_the_tolerance(made: Made) -> None:
    for name in ("anderson", "picard"):
        solver(made, name, 50, converged=0.5, retcode="MAX_EVALUATIONS")
    said = sentences(page(made))
    assert "No solver met any tolerance in all its runs." in said
    assert "No solver meets reltol 1e-3 in all its runs." in said


def test_one_solver_has_no_rival(made: Made) -> None:
    solver(made, "anderson", 11, 0.002)
    said = sentences(page(made))
    assert "anderson, the only solver here, needs 11 evaluations and 2.00 ms" in said
    assert "it has no rival here" in said


def test_gradients_are_told_with_cost_bytes_and_error(made: Made) -> None:
    exact = {"rel_err": 2e-6, "kept_bytes": 41_000, "products": 14, "backward_seconds": 0.002}
    rough = {"rel_err": 3e-4, "kept_bytes": 2_050_000, "backward_seconds": 0.001}
    quick = {f"backward_seconds_{q}": 0.002 for q in ("q1", "q3")}
    slow = {f"backward_seconds_{q}": 0.001 for q in ("q1", "q3")}
    for seed in range(2):
        made.measured("mlp", "anderson", GMRES, seed, ONE, check=exact | quick)
        made.measured("mlp", "anderson", UNROLLED, seed, ONE, check=rough | slow)
    said = sentences(page(made))
    assert "implicit · gmres keeps 1/50 of what unrolled keeps (41.0 kB, 2.05 MB)" in said
    assert "implicit · gmres: relative error 2e-6; 14 products and 2.00 ms backward" in said
    assert "unrolled: relative error 3e-4; 1.00 ms backward, through the recorded iter" in said
    assert "Most exact: implicit · gmres (2e-6)" in said
    assert "Quickest backward: unrolled (1.00 ms)" in said


def test_an_adjoint_that_failed_is_said(made: Made) -> None:
    observer = made.run("mlp", "anderson", GMRES, 0)
    forward = observer.solve(
        {"phase": "forward", "solver": "anderson", "evaluations": 9, "converged": 1.0,
         "retcode": "SUCCESS", "reltol": 1e-3, "seconds": 0.1}
    )  # fmt: skip
    adjoint = observer.solve(
        {"phase": "adjoint", "solver": "gmres", "retcode": "MAX_EVALUATIONS", "converged": 0.5,
         "message": "the products ran out"}
    )  # fmt: skip
    observer.gradient(
        {"solve_ord": forward, "adjoint_ord": adjoint, "method": "implicit", "rel_err": 0.1,
         "target": "parameters", "products": 20}
    )  # fmt: skip
    made.end(observer)
    found = page(made)
    assert "its adjoint missed its tolerance in 1 of 1 runs (MAX_EVALUATIONS)" in sentences(found)
    assert "the products ran out" in tables(found)["failures"].frame["why"].tolist()


def test_the_explicit_network_is_told_from_where_it_stays_near(made: Made) -> None:
    made.measured("mlp", "picard", GMRES, 0, ONE, check={"kept_bytes": 1000})
    observer = made.run("mlp", "picard", UNROLLED, 0, config={"fixed_budget": True})
    for budget, error in ((1, 1.0), (2, 5e-3), (4, 0.2), (8, 4e-3), (16, 1e-3)):
        ord_ = observer.solve(
            {"phase": "forward", "solver": "picard", "evaluations": budget, "reltol": 1e-3,
             "max_evaluations": budget, "fixed_budget": True, "retcode": "MAX_EVALUATIONS"}
        )  # fmt: skip
        observer.gradient(
            {"solve_ord": ord_, "method": "unrolled", "rel_err": error, "target": "parameters",
             "kept_bytes": 500 * budget, "loss": 1.0}
        )  # fmt: skip
    made.end(observer)
    said = sentences(page(made))
    assert "from depth 8 on, the gradient is within 1 % of the equilibrium's" in said
    assert "keeps 4.00 kB there, 4.0× the 1.00 kB of the implicit gradient" in said


def test_forward_alone(made: Made) -> None:
    for seed in range(2):
        for name in ("anderson", "broyden"):
            made.measured("mlp", name, None, seed)
    found = page(made)
    assert "needs the fewest evaluations" in sentences(found)
    assert "gradient" not in [c.key for c in tables(found)["solver-gradient-mlp"].columns]
    assert "bytes" not in figures(found)
    drawn = figures(found)["work-precision-mlp"].spec
    assert "gradients" not in drawn["datasets"]


def test_only_fixed_budgets(made: Made) -> None:
    made.measured("mlp", "picard", UNROLLED, 0, (1, 2, 4), fixed_budget=True)
    found = page(made)
    assert "Only fixed budgets were measured" in sentences(found)
    assert {"bytes", "depth-mlp"} <= set(figures(found))
    assert "Nothing: every run completed" in sentences(found)


def test_missing_numbers_are_dashes_not_nan(made: Made) -> None:
    nothing = dict.fromkeys(("seconds", "residual_relative", "history_bytes", "message", "batch"))
    unknown = dict.fromkeys(("rel_err", "cosine", "kept_bytes", "backward_seconds", "loss"))
    for name in ("anderson", "broyden"):
        made.measured("mlp", name, GMRES, 0, ONE, solve=nothing, check=unknown)
        made.measured(
            "mlp", name, UNROLLED, 0, (1, 2), fixed_budget=True, solve=nothing, check=unknown
        )
    said = sentences(page(made))
    assert "fewest evaluations" in said
    assert not re.search(r"\bnan\b|None|<NA>", said)


def test_a_users_model_and_solver(made: Made) -> None:
    for seed in range(2):
        for name in ("mine.solvers:Best", "anderson"):
            made.measured("mine.models:build", name, GMRES, seed, solve={"dim": None})
    found = page(made)
    assert "mine.models:build" in sentences(found)
    assert "work-precision-mine-models-build" in figures(found)
    rows = figures(found)["convergence"].spec["datasets"]["traces_0"]
    assert {row["solver"] for row in rows} == {"mine.solvers:Best", "anderson"}


def test_many_models_and_many_tolerances(made: Made) -> None:
    points = [10.0**-k for k in range(1, 9)]
    for model in ("a", "b", "c", "d"):
        made.measured(model, "anderson", GMRES, 0, points)
    cards = next(block for block in blocks(page(made)) if isinstance(block, Cards)).cards
    assert [card.title for card in cards] == ["a", "b", "c", "d"]


def test_settings_that_differ_are_compared_apart(made: Made) -> None:
    for batch, evaluations in ((4, 9), (64, 12)):
        for seed in range(2):
            made.measured(
                "mlp",
                "anderson",
                GMRES,
                seed,
                ONE,
                config={"batch": batch},
                solve={"evaluations": evaluations},
            )
    found = cases(load("compare", Store(made.path)))
    assert [case.name for case in found] == ["mlp (batch=4)", "mlp (batch=64)"]
    assert [case.by_solver["evaluations"].tolist() for case in found] == [[9.0], [12.0]]


def test_one_solver_with_two_windows_is_two_series(made: Made) -> None:
    for window, evaluations in ((2, 20), (8, 10)):
        made.measured(
            "mlp",
            "anderson",
            GMRES,
            0,
            ONE,
            config={"solver": {"name": "anderson", "window": window}},
            solve={"evaluations": evaluations},
        )
    said = sentences(page(made))
    assert "anderson (window=8) needs the fewest evaluations (10)" in said


def test_what_only_solvers_differ_in_does_not_part_them(made: Made) -> None:
    made.measured("mlp", "anderson", GMRES, 0, ONE, config={"repeats": 5})
    made.measured("mlp", "scipy_anderson", ANDERSON, 0, ONE, config={"repeats": 1})
    (case,) = cases(load("compare", Store(made.path)))
    assert case.name == "mlp"
    assert set(case.by_solver["solver"]) == {"anderson", "scipy_anderson"}


def test_of_attempts_at_one_trial_the_newest_counts(made: Made) -> None:
    made.end(made.run(trial="t"), ValueError("no"))
    made.end(made.run(trial="t"))
    said = sentences(page(made))
    assert "1 run, completed. 1 earlier attempt of the same trials are left out." in said


def test_runs_that_did_not_end_are_said(made: Made) -> None:
    made.measured("mlp", "anderson", GMRES, 0, ONE)
    made.run("mlp", "broyden", GMRES, 0)
    found = page(made)
    assert "2 runs: 1 completed and 1 still running." in sentences(found)
    assert "run still running" in tables(found)["failures"].frame["kind"].tolist()


def test_a_filter_selects_runs_of_any_study_and_is_said(made: Made) -> None:
    made.measured("mlp", "anderson", GMRES, 0, ONE)
    made.study = None
    made.measured("mlp", "broyden", GMRES, 5, ONE)
    found = page(made, where="seed=5")
    assert "Selected by seed=5" in sentences(found)
    assert tables(found)["runs"].frame["solver"].tolist() == ["broyden"]


def test_an_experiment_without_a_page_gets_the_general_one(made: Made) -> None:
    made.experiment = "mine"
    made.measured("mlp", "anderson", GMRES, 0, ONE)
    found = page(made)
    assert "mine" in found.title
    assert tables(found)["solves"].frame["solver"].tolist() == ["anderson"]


def test_machine_versions_and_date_are_said(made: Made) -> None:
    made.measured("mlp", "anderson", GMRES, 0, ONE)
    said = sentences(page(made))
    assert "Measured on made-up processor, with 1 thread, torch 2.13.0, Python 3.11.2" in said
    assert "on 2026-01-05" in said


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_says_the_same(made: Made, width: int) -> None:
    solver(made, "anderson", 11, 0.002)
    solver(made, "[bold]mine", 9, 0.004)
    made.end(made.run("mlp", "picard", None, 9), ValueError("no"))
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(terminal_summary("compare", Store(made.path)))
    text = " ".join(captured.get().split())
    assert "[bold]mine needs the fewest evaluations (9)" in text
    assert "mlp at reltol 1e-3" in text
    assert "7 runs: 6 completed and 1 failed" in text
