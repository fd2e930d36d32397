"""A run whose adjoint cannot converge says so: in the terminal, in the solution, in the store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from said import Deq

from db import Store
from implicit import DEQ, AdjointWarning, Implicit, models
from solvers import ReturnCode


def test_in_the_terminal_and_in_the_store(deq: Deq, store: Callable[[], Store]) -> None:
    said = deq(
        *("run", "compare", "with", "gradient.max_products=1", "reltol=1e-6"),
        *("repeats=1", "batch=4", "model.width=8"),
    )
    assert said.code == 0  # that it does not converge is a result
    words = said.out + said.err
    assert "adjoint: MAX_EVALUATIONS: 4 of 4 samples" in words
    assert "raise max_products" in words
    found = deq(
        "query",
        "select status, retcode, converged, vjps, residual_relative, message from v_solves"
        " where phase='adjoint'",
        "--json",
    ).json
    assert len(found) == 1
    (row,) = found
    assert row["status"] == "COMPLETED"
    assert row["retcode"] == "MAX_EVALUATIONS"
    assert row["converged"] == 0
    assert row["vjps"] == 1
    assert row["residual_relative"] > 1e-6
    assert "raise max_products" in row["message"]
    forward = deq("query", "select retcode from v_solves where phase='forward'", "--json").json
    assert forward == [{"retcode": "SUCCESS"}]


def test_in_the_solution_and_as_a_warning() -> None:
    torch.manual_seed(0)
    model = models.registry.get("mlp", width=8)
    layer = DEQ(model.cell, gradient=Implicit(max_products=1), reltol=1e-6, name="first")
    z = layer(*model.args(torch.randn(4, 64)))
    with pytest.warns(AdjointWarning, match="the gradient is inexact: MAX_EVALUATIONS"):
        z.square().sum().backward()
    adjoint = layer.adjoint_solution
    assert adjoint is not None
    assert not adjoint.success
    assert adjoint.worst is ReturnCode.MAX_EVALUATIONS
    assert (adjoint.residual > 1e-6 * adjoint.scale).all()
    assert "4 of 4 samples, first 0, at product 1" in adjoint.message
    assert adjoint.site == "first"
