"""Numbers as a reader says them, looks that can be told apart, and who is the least."""

import itertools

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from experiments.report import words
from experiments.report.colours import GRADIENTS, SOLVERS, gradient_looks, looks
from experiments.report.labels import case_labels, gradient_labels, solver_labels
from experiments.report.measures import least, per_seed


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.seconds, 0.00213, "2.13 ms"),
        (words.seconds, 12.0, "12.0 s"),
        (words.seconds, 3.2e-7, "320 ns"),
        (words.seconds, None, "–"),
        (words.size, 41_234, "41.2 kB"),
        (words.size, 0, "0 B"),
        (words.size, 12, "12.0 B"),
        (words.size, 2_000_000, "2.00 MB"),
        (words.count, 14.0, "14"),
        (words.count, 14.5, "14.5"),
        (words.count, 12345, "12,345"),
        (words.small, 2.13e-6, "2.1e-6"),
        (words.small, 0.25, "0.25"),
        (words.small, 0.0, "0"),
        (words.small, float("nan"), "–"),
        (words.tolerance, 1e-3, "1e-3"),
        (words.tolerance, 2.5e-4, "2.5e-4"),
        (words.tolerance, 0.0, "0"),
        (words.tolerance, pd.NA, "–"),
        (words.times, 3.14, "3.1×"),
    ],
)
def test_numbers(write: words.Writer, value: float, text: str) -> None:
    assert write(value) == text


def test_lists() -> None:
    assert [words.listed(["a", "b", "c"][:n]) for n in range(4)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    mixed = words.listed([words.strong("<a>"), "<b>", "c"])
    assert mixed == "<b>&lt;a&gt;</b>, &lt;b&gt; and c"


def test_numbers_do_not_break_and_nothing_else_changes() -> None:
    text = words.sentence("{} at 1e-6 takes 2.10 MB, not 3", "<x 1e-3 s>")
    unbroken = words.unbroken(text)
    assert '<span class="n">1e-6</span>' in unbroken
    assert '<span class="n">2.10 MB</span>' in unbroken
    assert Markup(unbroken).striptags() == text.striptags()


def _linear(colour: str) -> np.ndarray:
    code = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def _lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes (2009), severity 1.
SIGHT = {
    "usual": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_solvers_stay_apart(sight: str) -> None:
    seen = {n: _lab(np.array(SIGHT[sight]) @ _linear(k.colour)) for n, k in SOLVERS.items()}
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 10, (a, b)


@pytest.mark.parametrize("paper", ["#ffffff", "#15181d"])
def test_colours_read_on_light_and_dark(paper: str) -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    back = weights @ _linear(paper)
    for look in [*SOLVERS.values(), GRADIENTS["unrolled"], GRADIENTS["implicit"]]:
        front = weights @ _linear(look.colour)
        contrast = (max(front, back) + 0.05) / (min(front, back) + 0.05)
        assert contrast > 2.5, look


def test_foreign_solvers_differ_in_more_than_colour() -> None:
    for name, look in SOLVERS.items():
        foreign = name.startswith(("scipy_", "torch_"))
        assert bool(look.dash) == foreign
        assert (look.shape != "circle") == foreign


def test_looks_are_stable_and_distinct() -> None:
    alone = looks(["mine:Best"])["mine:Best"]
    among = looks(["anderson", "mine:Best", "picard", *(f"other{i}" for i in range(5))])
    assert among["anderson"] == SOLVERS["anderson"]
    assert list(among)[:2] == ["picard", "anderson"]
    assert len(set(among.values())) == len(among)
    assert looks(["x", "mine:Best"])["mine:Best"] == alone


def test_gradients_that_differ_in_their_adjoint_differ_in_their_dash() -> None:
    found = gradient_looks(["implicit · gmres", "implicit · anderson", "unrolled"])
    assert found["implicit · gmres"].colour == found["implicit · anderson"].colour
    assert found["implicit · gmres"].dash != found["implicit · anderson"].dash


def test_labels_name_what_differs_and_nothing_else() -> None:
    base = {"model.name": "mlp", "solver.name": "anderson", "gradient.name": "implicit", "seed": 0}
    runs = {
        1: base | {"solver.window": 5, "model.width": 64, "gradient.solver.name": "gmres"},
        2: base
        | {"solver.window": 9, "model.width": 64, "gradient.solver.name": "gmres", "seed": 1},
        3: base | {"solver.window": 9, "model.width": 32, "gradient.name": None},
    }
    assert solver_labels(runs) == {
        1: "anderson (window=5)",
        2: "anderson (window=9)",
        3: "anderson (window=9)",
    }
    assert case_labels(runs, {}) == {1: "mlp (width=64)", 2: "mlp (width=64)", 3: "mlp (width=32)"}
    assert gradient_labels(runs)[1] == "implicit · gmres"
    assert gradient_labels(runs)[3] == "forward only"


def test_cases_by_where_they_ran() -> None:
    runs = {1: {"model.name": "m", "device": "auto"}, 2: {"model.name": "m", "device": "cpu"}}
    assert set(case_labels(runs, {1: "cpu", 2: "cpu"}).values()) == {"m"}
    assert case_labels(runs, {1: "cuda:0", 2: "cpu"})[1] == "m (device=cuda:0)"


def _measured(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"solver": name, "seed": seed, "x": value}
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    return per_seed(pd.DataFrame(rows), ["solver"], "x")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"a": [1, 2, 3], "b": [2, 3, 4]}, ("a",)),  # b is worse at every seed
        ({"a": [1, 2, 3], "b": [2, 3, 3]}, ("a", "b")),
        ({"a": [5], "b": [4]}, ("b",)),
        ({"a": [4, 4], "b": [4, 4], "c": [9, 9]}, ("a", "b")),
        ({"a": [1.0, np.nan], "b": [np.nan, 2.0]}, ("a",)),  # no seed in common
    ],
)
def test_least(values: dict[str, list[float]], names: tuple[str, ...]) -> None:
    best = least(_measured(values), "solver")
    assert best is not None
    assert best.names == names


def test_least_of_nothing() -> None:
    assert least(_measured({"a": [np.nan]}), "solver") is None


def test_quartiles_that_overlap_are_a_tie() -> None:
    rows = pd.DataFrame(
        {
            "solver": ["a", "b", "c"],
            "seed": 0,
            "seconds": [1.0, 1.1, 1.3],
            "seconds_q1": [0.9, 1.0, 1.2],
            "seconds_q3": [1.05, 1.2, None],
        }
    )
    best = least(per_seed(rows, ["solver"], "seconds"), "solver")
    assert best is not None
    assert best.names == ("a", "b")
