"""Made-up runs of ``training``, to test the pages about them. No number here was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from synthetic import START, Made

BASE: Mapping[str, Any] = {
    "model": {"name": "mlp", "layers": None},
    "solver": {"name": "anderson", "window": 6},
    "gradient": {"name": "implicit", "certificate": True},
    "data": {"name": "digits"},
    "reltol": 1e-3,
    "max_evaluations": 40,
    "fixed_budget": False,
    "steps": 100,
    "batch": 32,
    "optimiser": {"name": "adam", "learning_rate": 1e-3},
    "regularisation": None,
    "warm_start": False,
    "target_loss": None,
}


class Diverged(Exception):  # noqa: N818 - the name is what the store shows
    """What ends a run whose loss is not finite."""


def training(
    made: Made,
    config: Mapping[str, Any],
    *,
    seed: int = 0,
    loss: float = 1.0,
    evaluations: float = 10.0,
    products: float = 8.0,
    peak: float = 1e6,
    seconds: float = 2.0,
    status: str = "COMPLETED",
    more: Mapping[str, float] | None = None,
    without: Sequence[str] = (),
) -> int:
    """Record a training that came to a test loss of about ``loss``; return its number."""
    whole = {**BASE, **config}
    observer = made.run(whole["model"]["name"], "", None, seed, config=whole)
    draw = random.Random(f"{seed} {loss} {config}")
    own = loss * (1 + 0.01 * draw.random())
    steps = int(whole["steps"])
    logged = sorted({0, *range(0, steps + 1, max(1, steps // 10)), steps})
    language = whole["data"]["name"] in ("pydoc", "pylib", "markov", "ptb")
    series: dict[str, list[float]] = {}
    for step in logged:
        fallen = own + 2 * own * math.exp(-5 * step / steps)
        points = {
            "train.loss": fallen,
            "train.evaluations": evaluations,
            "train.products": products,
            "train.work": step * (evaluations + products),
            "train.seconds": seconds * step / steps,
            "train.converged": 0.98,
            "train.residual": 8e-4,
            "train.gradient_norm": 1.0,
            "train.peak_bytes": peak,
            "test.loss": fallen,
            "test.evaluations": evaluations,
        }
        points["test.perplexity" if language else "test.accuracy"] = (
            math.exp(fallen) if language else 1 / (1 + 0.1 * fallen)
        )
        for name, value in points.items():
            series.setdefault(name, []).append(value)
    times = [START] * len(logged)
    observer.log_metrics(
        {
            name: {"values": values, "steps": logged, "timestamps": times}
            for name, values in series.items()
        },
        {},
    )
    stop = START + timedelta(seconds=5 * made.number + 3)
    if status == "COMPLETED":
        result = {
            "loss": own,
            "train_loss": own * 0.9,
            "evaluations": evaluations,
            "products": products,
            "converged": 0.98,
            "test_evaluations": evaluations,
            "step_seconds": seconds / steps,
            "inference_seconds": seconds / steps / 3,
            "seconds": seconds,
            "work": steps * (evaluations + products),
            "peak_bytes": peak,
            "layer_peak_bytes": 0.8 * peak,
            "parameters": 10_000.0,
            "cell_parameters": 8_000.0,
            "steps": float(steps),
            ("perplexity" if language else "accuracy"): (
                math.exp(own) if language else 1 / (1 + 0.1 * own)
            ),
            **(more or {}),
        }
        observer.completed_event(stop, {k: v for k, v in result.items() if k not in without})
    elif status == "FAILED":
        try:
            raise ValueError("length = 16: the text has 3 characters")
        except ValueError:
            observer.failed_event(stop, ["Traceback (most recent call last): …\n"])
    elif status != "RUNNING":
        try:
            raise Diverged("step 7: the loss is nan, and its forward solve failed first")
        except Diverged:
            observer.interrupted_event(stop, status)
    observer.join()
    assert observer.run_id is not None
    return observer.run_id
