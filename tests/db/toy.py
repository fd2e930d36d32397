"""A small real experiment: z = cos(z)/2 + x by Picard and Newton, its gradient by two methods."""

import contextlib
import math
import time
from pathlib import Path

import numpy as np
from sacred import SETTINGS, Experiment

from db import RunObserver

CONFIG = {
    "model": {"name": "cosine"},
    "solver": {"name": "picard", "mixing": 1.0},
    "gradient": {"name": "implicit", "solver": {"name": "dense"}},
    "data": None,
    "reltol": [1e-3, 1e-6],
    "max_evaluations": 100,
    "fixed_budget": False,
    "batch": 4,
}


def make(observer, main, config=CONFIG, name="compare"):
    """A Sacred experiment with one observer, whose main function is ``main(_run)``."""
    # Other tests of the same process may have told Sacred to look for neither.
    before = SETTINGS.DISCOVER_SOURCES, SETTINGS.DISCOVER_DEPENDENCIES
    SETTINGS.DISCOVER_SOURCES = SETTINGS.DISCOVER_DEPENDENCIES = "imported"
    experiment = Experiment(name, save_git_info=False, interactive=True)
    SETTINGS.DISCOVER_SOURCES, SETTINGS.DISCOVER_DEPENDENCIES = before
    experiment.add_config(config)
    experiment.observers.append(observer)
    experiment.main(main)
    return experiment


def run(url, main, config=CONFIG, options=None, **given):
    """One Sacred run into the store at ``url``; gives the observer; raises what ``main`` does."""
    observer = RunObserver(url, **given)
    experiment = make(observer, main, config)
    experiment.run(options={"--capture": "no", "--loglevel": "ERROR"} | (options or {}))
    return observer


def solve(config, reltol, x):
    """The iterates of one solve: z, evaluations, and the largest residual at each evaluation."""
    z, residuals, seconds = np.zeros_like(x), [], []
    start = time.perf_counter()
    while len(residuals) < config["max_evaluations"]:
        residual = np.cos(z) / 2 + x - z
        residuals.append(float(np.abs(residual).max()))
        seconds.append(time.perf_counter() - start)
        if residuals[-1] <= reltol * residuals[0]:
            break
        newton = config["solver"]["name"] == "newton"
        step = residual / (1 + np.sin(z) / 2) if newton else config["solver"]["mixing"] * residual
        z = z + step
    return z, residuals, seconds


def measure(observer, config, seed):
    """Record, for every tolerance, the solve and its gradient against the exact one."""
    x = np.random.default_rng(seed).uniform(0.0, 1.0, config["batch"])
    exact = solve(config | {"max_evaluations": 500}, 1e-15, x)[0]
    reference = 1 / (1 + np.sin(exact) / 2)
    for step, reltol in enumerate(config["reltol"]):
        z, residuals, seconds = solve(config, reltol, x)
        done = residuals[-1] <= reltol * residuals[0]
        place = observer.solve(
            {
                "outer_step": step,
                "phase": "forward",
                "problem": config["model"]["name"],
                "solver": config["solver"]["name"],
                "options": config["solver"],
                "iterations": len(residuals) - 1,
                "evaluations": len(residuals),
                "retcode": "SUCCESS" if done else "MAX_EVALUATIONS",
                "retcodes": {"SUCCESS" if done else "MAX_EVALUATIONS": config["batch"]},
                "converged": float(done),
                "message": "converged" if done else "the budget is spent: raise max_evaluations",
                "residual_first": residuals[0],
                "residual_last": residuals[-1],
                "residual_min": min(residuals),
                "residual_relative": residuals[-1] / residuals[0],
                "seconds": seconds[-1],
                "reltol": reltol,
                "max_evaluations": config["max_evaluations"],
                "fixed_budget": False,
                "dtype": "float64",
                "batch": config["batch"],
                "dim": 1,
                "trace": {
                    "evaluations": np.arange(1, len(residuals) + 1),
                    "seconds": seconds,
                    "residual": residuals,
                    "active": np.full(len(residuals), config["batch"]),
                },
            }
        )
        start = time.perf_counter()
        terms = math.inf if config["gradient"]["name"] == "implicit" else len(residuals)
        slope = -np.sin(z) / 2
        found = (1 - slope**terms) / (1 - slope)
        observer.gradient(
            {
                "outer_step": step,
                "solve_ord": place,
                "target": "x",
                "method": config["gradient"]["name"],
                "rel_err": np.linalg.norm(found - reference) / np.linalg.norm(reference),
                "norm": np.linalg.norm(found),
                "norm_ref": np.linalg.norm(reference),
                "n": x.size,
                "reltol": reltol,
                "kept_bytes": z.nbytes * (1 if math.isinf(terms) else terms),
                "backward_seconds": time.perf_counter() - start,
            }
        )


def fill(url: Path):
    """A store of 18 trials (3 solvers, 2 gradients, 3 seeds), a failed and an interrupted run."""
    trials = [
        (solver, mixing, gradient, seed)
        for solver, mixing in [("picard", 1.0), ("picard", 0.5), ("newton", 1.0)]
        for gradient in ("implicit", "unrolled")
        for seed in (0, 1, 2)
    ]
    for number, (solver, mixing, gradient, seed) in enumerate(trials):
        config = CONFIG | {
            "solver": {"name": solver, "mixing": mixing},
            "gradient": {"name": gradient, "solver": {"name": "dense"}},
            "max_evaluations": 10,
            "seed": seed,
        }
        observer = RunObserver(url, study="demo", trial=f"trial-{number}")

        def main(_run, observer=observer, config=config):
            measure(observer, config, config["seed"])
            for step in range(3):
                _run.log_scalar("loss", 1.0 / (step + 1), step)

        make(observer, main, config).run(options={"--capture": "no", "--loglevel": "CRITICAL"})

    def fails(_run):
        raise ArithmeticError("the state is not finite")

    def interrupted(_run):
        raise KeyboardInterrupt

    for main in (fails, interrupted):
        with contextlib.suppress(ArithmeticError, KeyboardInterrupt):
            run(url, main, options={"--loglevel": "CRITICAL"}, study="demo", trial=main.__name__)
