"""Made-up trainings, to test how their pages are written. No number here was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from synthetic import START, Made

Curve = Sequence[float]


class Trained(Made):
    """Writes made-up runs of ``training`` into a store."""

    def __init__(self, path: Path, study: str) -> None:
        super().__init__(path, study=study, experiment="training")

    def training(
        self,
        model: Mapping[str, Any],
        solver: str = "anderson",
        gradient: Mapping[str, Any] | None = None,
        seed: int = 0,
        *,
        data: str = "digits",
        losses: Curve = (2.0, 1.0, 0.5),
        every: int = 50,
        work: float = 20.0,
        seconds: float = 0.01,
        peak: float = 1e5,
        config: Mapping[str, Any] | None = None,
        series: Mapping[str, Mapping[int, float]] | None = None,
        result: Mapping[str, float] | None = None,
        solves: Sequence[Mapping[str, Any]] = (),
        error: BaseException | None = None,
        ended: bool = True,
    ) -> int:
        """Record one training: the test loss every so many steps, at so much work a step.

        ``series`` and ``result`` go over what follows from that.
        """
        gradient = gradient or {"name": "implicit"}
        observer = self.run(
            str(model["name"]),
            solver,
            gradient,
            seed,
            config={
                "model": dict(model),
                "data": {"name": data},
                "reltol": 1e-3,
                "max_evaluations": 40,
                "steps": every * (len(losses) - 1),
                "regularisation": None,
                **(config or {}),
            },
        )
        language = data == "pydoc"
        measure = "perplexity" if language else "accuracy"
        at = [every * k for k in range(len(losses))]
        logged: dict[str, Mapping[int, float]] = {
            "train.loss": dict(zip(at, losses, strict=True)),
            "train.work": {step: work * step for step in at},
            "train.seconds": {step: seconds * step for step in at},
            "train.evaluations": dict.fromkeys(at, 0.6 * work),
            "train.products": dict.fromkeys(at, 0.4 * work),
            "train.converged": dict.fromkeys(at, 1.0),
            "train.peak_bytes": dict.fromkeys(at, peak),
            "test.loss": dict(zip(at, losses, strict=True)),
            f"test.{measure}": {
                step: 2.0**loss if language else 1 - loss / 10
                for step, loss in zip(at, losses, strict=True)
            },
            **(series or {}),
        }
        now = START + timedelta(seconds=5 * self.number)
        observer.log_metrics(
            {
                name: {
                    "steps": list(points),
                    "values": list(points.values()),
                    "timestamps": [now] * len(points),
                }
                for name, points in logged.items()
                if points
            },
            {},
        )
        for solve in solves:
            observer.solve(solve)
        if error is not None or not ended:
            if error is not None:
                return self.end(observer, error)
            observer.join()
            assert observer.run_id is not None
            return observer.run_id
        last = losses[-1]
        returned = {
            "loss": last,
            measure: logged[f"test.{measure}"][at[-1]],
            "train_loss": last,
            "evaluations": 0.6 * work,
            "products": 0.4 * work,
            "converged": 1.0,
            "test_evaluations": 0.6 * work,
            "step_seconds": seconds,
            "inference_seconds": seconds / 3,
            "seconds": seconds * at[-1],
            "work": work * at[-1],
            "peak_bytes": peak,
            "parameters": 5000.0,
            "cell_parameters": 4000.0,
            "steps": float(at[-1]),
            **(result or {}),
        }
        observer.completed_event(now + timedelta(seconds=3), returned)
        observer.join()
        assert observer.run_id is not None
        return observer.run_id
