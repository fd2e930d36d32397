"""The trials in short; ``make torture`` runs them in full (``torture.py``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import ground as grounds
import torture

MEASURED = {"speeds"}  # figures, which count nothing


@pytest.fixture(scope="module")
def ground() -> Iterator[grounds.Ground]:
    """One place, server and zygote for all of them."""
    seed = torture.seed_from(os.environ.get("TORTURE_SEED"))
    with grounds.own_ground(seed, lambda _: None) as made:
        yield made


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses Linux's ways with processes")
@pytest.mark.parametrize("name", [name for name in torture.SHORT if name not in MEASURED])
def test_a_trial_in_short(ground, name, request):
    tally = torture.SHORT[name](ground)
    assert tally.counts
    assert tally.right, f"TORTURE_SEED={ground.seed}\n{tally.wrong()}"
