"""The experiment ``gradients`` through the command line, small: its references, slices and page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from said import Deq
from torch import Tensor, nn

import implicit
from db import Store
from experiments import data, gradients, references, studies
from experiments.gradients import GradientsConfig
from experiments.radii import prescribed, radii
from experiments.report.blocks import Table
from experiments.report.frames import as_mapping, load
from experiments.report.pages import Page, page_of
from experiments.report.pages.gradients.rows import gradients as read
from experiments.report.pages.gradients.verdicts import slopes
from implicit import Implicit, models
from implicit.models import Model

Opened = Callable[[], Store]
SMALL = ("model.injection=0.3", "batch=3", "device=cpu")

MINE = '''\
import torch
from torch import nn

from implicit.models import Model


class Cell(nn.Module):
    """LayerNorm takes any factor on the weights back: no radius can be prescribed above some."""

    def __init__(self, width):
        super().__init__()
        self.W = nn.Linear(width, width)

    def initial_state(self, u, v):
        return torch.zeros_like(u), torch.zeros_like(v)

    def forward(self, z, u, v):
        a, b = z
        return torch.tanh(0.4 * self.W(b) + u), 0.5 * torch.sin(a) + v


class Inject(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.U, self.V = nn.Linear(64, width), nn.Linear(64, width)

    def forward(self, x):
        return self.U(x), self.V(x)


class Readout(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.R = nn.Linear(2 * width, 10)

    def forward(self, z):
        return self.R(torch.cat(z, dim=1))


def build(width: int = 6) -> Model:
    """A state of two tensors."""
    return Model(Inject(width), Cell(width), Readout(width), nn.functional.cross_entropy, "digits")
'''

REFUSING = """\
from dataclasses import dataclass
from typing import ClassVar

from implicit.gradients import Gradient


@dataclass(frozen=True)
class Refusing(Gradient):
    name: ClassVar[str] = "refusing"

    def solve(self, problem, request):
        raise ValueError("this one never works")
"""


def built(name: str, batch: int = 3, **options: object) -> tuple[Model, Tensor, Tensor]:
    torch.manual_seed(0)
    config, dataset = data.resolve({"name": name, **options})
    model = models.registry.build(config, "model")
    x, target = next(dataset.batches("train", batch, 0))
    return model, x, target


def rows(store: Store, part: str, target: str = "parameters") -> pd.DataFrame:
    """The rows of a slice, with what it varied as columns."""
    found = store.gradients()
    extra = pd.DataFrame([as_mapping(value) for value in found["extra"]], index=found.index)
    found = found.drop(columns=["extra", "solver", "adjoint"]).join(extra)
    return found[(found["slice"] == part) & (found["target"] == target)].reset_index(drop=True)


def measured(deq: Deq, *words: str, width: int = 12) -> None:
    said = deq("run", "gradients", "with", *SMALL, f"model.width={width}", *words)
    assert said.code == 0, said.err


# -- references -----------------------------------------------------------------------------------


class Mixing(nn.Module):
    """A cell whose samples see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(0.2 * torch.randn(5, 5))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(z @ self.W + 0.3 * z.mean(dim=0) + u)


def coupled() -> tuple[Model, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Model(nn.Linear(4, 5), Mixing(), nn.Linear(5, 3), nn.functional.cross_entropy)
    return model, torch.randn(3, 4), torch.tensor([0, 1, 2])


SUBJECTS: Mapping[str, Callable[[], tuple[Model, Tensor, Tensor]]] = {
    "mlp": lambda: built("mlp", width=12),
    "transformer": lambda: built("transformer", width=8, inner=16),
    "coupled": coupled,
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_reference_is_what_central_differences_say(name: str, tmp_path: Path) -> None:
    model, x, target = SUBJECTS[name]()
    known = references.reference(model, x, target, name, tmp_path)
    assert known.residual <= 1e-12
    assert "dense Jacobian" in known.sentence
    distance = references.central_differences(model, x, target, name, known, directions=12)
    # A step of 6e-6 leaves 4e-11 of the third derivative, and 1e-15 of rounding / 6e-6 = 2e-10,
    # both times what the derivatives along random directions are smaller than the loss.
    assert distance <= 1e-7


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_reference_agrees_with_implicit(name: str, tmp_path: Path) -> None:
    model, x, target = SUBJECTS[name]()
    known = references.reference(model, x, target, name, tmp_path)
    wide = references.double(model)
    given = references.differentiable(references.problem(wide, references.wide(x), name))
    solution = implicit.solve(
        given, None, Implicit(reltol=1e-12, max_products=500), reltol=1e-12, max_evaluations=500
    )
    loss = wide.loss(wide.readout(solution.value), target)
    weights = list(references.parameters(wide).values())
    found = torch.autograd.grad(loss, [*weights, *references.floating(given.args)])
    every = torch.cat([g.flatten() for g in found])
    exact = torch.cat([g.flatten() for g in (*known.gradient.values(), *known.injected)])
    # Two tolerances of 1e-12, times a conditioning that is below 100 in these models.
    assert (every - exact).norm() <= 1e-10 * exact.norm()


def test_a_reference_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, target = built("mlp", width=12)
    first = references.reference(model, x, target, "mlp", tmp_path)
    monkeypatch.delattr(references, "_compute")
    again = references.reference(model, x, target, "mlp", tmp_path)
    assert torch.equal(first.z, again.z)
    assert all(torch.equal(g, again.gradient[n]) for n, g in first.gradient.items())
    assert torch.equal(first.injected[0], again.injected[0])


def test_the_equilibrium_of_a_start_is_the_one_that_is_referred_to(tmp_path: Path) -> None:
    model, x, target = built("mlp", width=12)
    known = references.reference(model, x, target, "mlp", tmp_path)
    near = references.reference(model, x, target, "mlp", tmp_path, start=known.z + 1e-3)
    assert (near.z - known.z).norm() <= 1e-12 * known.z.norm()


def test_parameters_that_the_readout_shares_count_whole(tmp_path: Path) -> None:
    model, x, target = built("mlp", width=12)
    cell = model.cell

    def readout(z: Tensor) -> Tensor:
        return (z @ cell.W)[:, :10]  # type: ignore[operator]

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = cell.W

        def forward(self, z: Tensor) -> Tensor:
            return (z @ self.W)[:, :10]  # type: ignore[operator]

    tied = Model(model.inject, cell, Tied(), model.loss)
    known = references._compute(
        tied, references.problem(tied, x, "tied"), target
    )  # in float32: no copy that would untie them
    loss = model.loss(readout(torch.as_tensor(known.z)), target)
    (direct,) = torch.autograd.grad(loss, [cell.W])  # type: ignore[list-item]
    untied = references._compute(
        Model(model.inject, cell, lambda z: (z @ cell.W.detach())[:, :10], model.loss),  # type: ignore[operator]
        references.problem(model, x, "untied"),
        target,
    )
    difference = known.gradient["cell.W"] - untied.gradient["cell.W"]
    # float32 rounds to 6e-8 of the numbers that are summed, which are of the size of the gradient.
    assert torch.allclose(difference, direct, atol=1e-5 * float(direct.norm()))


# -- spectral radii -------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
def test_a_prescribed_radius_is_that_of_the_equilibrium(radius: float, tmp_path: Path) -> None:
    model, x, target = built("mlp", width=12, injection=0.3)
    before = model.cell.W.detach().clone()  # type: ignore[operator]
    scaled = prescribed(model, x, "mlp", radius)
    assert scaled is not None
    assert torch.equal(model.cell.W, before)  # type: ignore[arg-type]
    known = references.reference(scaled, x, target, "mlp", tmp_path)
    found = radii(scaled, x, "mlp", known.z)
    # The factor is found to 1e-5, and float32 weights round it by 6e-8.
    assert found.largest == pytest.approx(radius, rel=1e-3)
    assert found.median <= found.largest


def test_a_cell_without_such_an_equilibrium_has_none() -> None:
    class Bounded(nn.Module):
        """Its slope is at most 0.3, whatever its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(torch.eye(4))

        def forward(self, z: Tensor, u: Tensor) -> Tensor:
            return 0.3 * torch.sin(z * torch.tanh(self.W.diagonal())) + u

    model = Model(nn.Linear(4, 4), Bounded(), nn.Linear(4, 2), nn.functional.cross_entropy)
    assert prescribed(model, torch.randn(3, 4), "bounded", 0.9) is None


# -- slices ---------------------------------------------------------------------------------------


def test_implicit_to_rounding_is_exact(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[exact]", "radius=[0.9]")
    found = rows(store(), "exact")
    assert len(found) == 3
    # The two tolerances are 1e-12 and the conditioning is near 10; the rest is room.
    assert found["rel_err"].max() <= 1e-9
    assert found["differences"].max() <= 1e-6
    assert rows(store(), "exact", "args")["rel_err"].max() <= 1e-9
    assert (found["spectral_radius"] - 0.9).abs().max() <= 1e-3


def test_the_larger_tolerance_decides(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[tolerances]", "radius=[0.9]", "precisions=[float64, float32]")
    found = rows(store(), "tolerances")
    wide = found[found["precision"] == "float64"]
    assert len(wide) == 11 * 12
    assert len(found) == 11 * 12 + 6 * 6
    asked = np.maximum(wide["reltol"], wide["adjoint_reltol"])
    small = asked <= 1e-2
    # The conditioning near 1 / (1 - 0.9), with a little room for non-normality.
    assert (wide["rel_err"] <= 100 * asked)[small].all()
    loose = wide[wide["adjoint_reltol"] == 1e-2]
    assert loose["rel_err"].min() >= 1e-5  # no forward makes up for a loose adjoint
    (fit,) = slopes(read(load("x", store(), "experiment = 'gradients'")))["slope"]
    # One model's residuals are uneven; over many it is 1.0 within a twentieth.
    assert fit == pytest.approx(1.0, abs=0.15)


def test_a_forward_is_solved_once_for_all_adjoint_tolerances(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[tolerances]", "precisions=[float32]")
    solves = store().solves()
    assert (solves["phase"] == "forward").sum() == 6
    assert rows(store(), "tolerances")["solve_id"].nunique() == 6


def test_more_products_are_less_error(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[products]")
    found = rows(store(), "products")
    assert set(found["budget"]) == set(gradients.BUDGETS) | set()
    plain = found[found["label"] == "implicit"].sort_values("budget")
    assert (plain["products"] <= plain["budget"]).all()
    # Twelve dimensions: twelve products are all that GMRES can need, and rounding is left.
    assert plain["rel_err"].iloc[0] > 1e-3
    assert plain["rel_err"].iloc[-1] <= 1e-10


def test_every_registered_gradient_is_measured_in_both_targets(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[estimators]", "max_evaluations=60")
    names = set(implicit.gradients.registry.names())
    for target in ("parameters", "args"):
        found = rows(store(), "estimators", target)
        refused = set(found["gradient"][found["rel_err"].isna()])
        assert set(found["gradient"]) | refused >= (
            names if target == "parameters" else {"implicit"}
        )
    exact = found[found["exact"].astype(bool) & (found["gradient"] == "implicit")]
    assert exact["rel_err"].max() <= 1e-4  # the tolerance 1e-6, times a conditioning below 100


def test_the_scale_of_the_loss_changes_nothing(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[loss_scale]", "gradients=[{name: implicit}, {name: unrolled}]")
    found = rows(store(), "loss_scale")
    assert sorted(set(found["scale"])) == list(gradients.SCALES)
    assert found["change"].max() <= 1e-10  # rounding of float64 alone


def test_precision_follows_the_dtype(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[precision]", "gradients=[{name: implicit}]")
    errors = rows(store(), "precision").set_index("precision")["rel_err"]
    assert errors["float64"] <= 1e-8
    assert errors["float64"] < errors["float32"] < errors["bfloat16"] < 0.5


def test_the_solver_that_found_z_does_not_matter(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[solvers]", "model.gain=0.5")
    found = rows(store(), "solvers")
    assert {"anderson", "broyden", "picard", "newton"} <= set(found["solver"])
    # Of a well-conditioned model: ten tolerances, as the errors are a few each.
    assert found["spread"].max() <= 10
    assert found["spread"].notna().sum() >= 4


def test_the_forwards_inverse_saves_products(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[precondition]", "radius=[0.95]", width=40)
    found = rows(store(), "precondition")
    better = found[found["ratio"].notna()]
    assert len(better) == 4
    assert (better["ratio"] == better["products"] / better["plain"]).all()
    assert better["ratio"].max() < 1
    assert found["rel_err"].max() <= 1e-4


def test_a_training_step_is_timed_for_every_gradient(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[cost]", "rounds=2", "max_evaluations=60")
    found = rows(store(), "cost")
    assert {"implicit", "implicit (precondition=forward)", "unrolled"} <= set(found["label"])
    timed = found[found["rel_err"].notna()]
    assert (timed["rounds"] == 2).all()
    assert (timed["step_q1"] <= timed["step"]).all()
    assert (timed["step"] > timed["forward_seconds"]).all()
    if gradients.BASELINE in set(timed["label"]):
        base = timed[timed["label"] == gradients.BASELINE].iloc[0]
        assert (base["ratio_q1"], base["ratio"], base["ratio_q3"]) == (1.0, 1.0, 1.0)


def test_the_same_run_gives_the_same_numbers(deq: Deq, store: Opened) -> None:
    for _ in range(2):
        measured(deq, "measure=[estimators]", "gradients=[{name: implicit}]", "train_steps=2")
    first, second = (g for _, g in rows(store(), "estimators").groupby("run_id"))
    for name in ("rel_err", "cosine", "products", "spectral_radius"):
        assert first[name].tolist() == second[name].tolist()


def test_training_makes_another_subject(deq: Deq, store: Opened) -> None:
    for steps in (0, 3):
        measured(
            deq, "measure=[estimators]", "gradients=[{name: implicit}]", f"train_steps={steps}"
        )
    found = rows(store(), "estimators")
    assert found["spectral_radius"].nunique() == 2
    assert found["norm_ref"].nunique() == 2


# -- a user's own ---------------------------------------------------------------------------------


def test_a_users_model_is_measured(deq: Deq, store: Opened, workplace: Path) -> None:
    (workplace / "mine.py").write_text(MINE)
    said = deq(
        "run", "gradients", "with", "model.name=mine:build", "radius=[null, 40]", "batch=3",
        "measure=[exact, estimators, precondition]", "device=cpu", "max_evaluations=60",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "radius 40: no factor on the cell's matrices gives it" in said.out
    assert store().runs()["status"].tolist() == ["COMPLETED"]
    found = rows(store(), "exact")
    assert len(found) == 3
    assert found["rel_err"].max() <= 1e-9
    assert found["differences"].max() <= 1e-6
    assert len(rows(store(), "exact", "args")) == 3


def test_a_study_takes_a_users_model(deq: Deq, workplace: Path) -> None:
    (workplace / "mine.py").write_text(MINE)
    said = deq(
        "study", "gradients", "--dry-run", "--device", "cpu", "with", "model.name=mine:build"
    )
    assert said.code == 0, said.err
    assert "seed 5" in said.out


def test_a_gradient_that_refuses_is_said_and_shown(
    deq: Deq, store: Opened, workplace: Path
) -> None:
    (workplace / "refusing.py").write_text(REFUSING)
    names = "[{name: implicit}, {name: 'refusing:Refusing'}]"
    said = deq("run", "gradients", "with", *SMALL, f"gradients={names}", "measure=[estimators]")
    assert said.code == 0
    assert "estimators: refusing: this one never works" in said.out
    frame = tables(page(store()))["short"].frame
    assert frame["why"].tolist() == ["this one never works"]
    assert frame["code"].tolist() == ["refused"]


MISTAKES: Mapping[str, tuple[str, list[str]]] = {
    "slice": ("measure=[tolerance]", ["measure", "'tolerances'"]),
    "no slice": ("measure=[]", ["measure = []"]),
    "twice": ("radius=[0.5, 0.5]", ["radius = [0.5, 0.5]", "twice"]),
    "radius": ("radius=[-1]", ["radius", "greater than 0"]),
    "precision": ("precisions=[float16]", ["precisions", "'bfloat16'"]),
    "gradient": ("gradients=[{name: implicti}]", ["gradients", "did you mean 'implicit'"]),
    "gradient's option": ("gradients=[{name: unrolled, lst: 3}]", ["lst", "did you mean 'last'"]),
    "foreign": ("solver.name=scipy_hybr", ["solver.name = 'scipy_hybr'", "broyden"]),
    "model": ("model.name=mpl", ["model", "did you mean 'mlp'"]),
    "tolerance": ("reltol=0", ["reltol = 0"]),
    "key": ("radii=[0.5]", ["unknown config key 'radii'", "radius"]),
}


@pytest.mark.parametrize(("word", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(deq: Deq, word: str, parts: Sequence[str]) -> None:
    said = deq("run", "gradients", "with", word, "device=cpu")
    assert said.code == 2
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


def test_the_default_config_measures_every_registered_gradient() -> None:
    config = GradientsConfig(device="cpu").completed()
    assert config.completed() == config
    assert {g["name"] for g in config.gradients} == set(implicit.gradients.registry.names())
    labels = [gradients.label(g) for g in gradients.chosen(config)]
    assert len(set(labels)) == len(labels)


def test_the_study_has_five_seeds_at_four_radii_fresh_and_trained() -> None:
    study = studies.find("gradients")
    block = study.grid[0]
    assert block["radius"] == [[0.5, 0.9, 0.99, 1.1]]
    assert len(block["seed"]) >= 5
    assert 0 in block["train_steps"]
    assert max(block["train_steps"]) > 0


# -- the page -------------------------------------------------------------------------------------


def page(store: Store) -> Page:
    return page_of(load("gradients", store, "experiment = 'gradients'"), "gradients")


def tables(found: Page) -> dict[str, Table]:
    blocks = [block for section in found.sections for block in section.blocks]
    return {block.name: block for block in blocks if isinstance(block, Table)}


def test_a_page_without_a_slice_leaves_its_section_out(deq: Deq, store: Opened) -> None:
    measured(deq, "measure=[exact]")
    titles = [section.title for section in page(store()).sections]
    assert "Targets" in titles
    assert "Cost" not in titles
    assert deq("report", "gradients", "--where", "experiment = 'gradients'").code == 0
