"""Fill a store with the code of a release, and write it down as SQL: the fixtures of the upgrades.

Run with the release's checkout, and its ``tests/db``, on the path, for each kind of database::

    PYTHONPATH=$RELEASE:$RELEASE/tests/db python tests/db/stores/make.py URL v1.sqlite.sql

The store has what people have: trials of a study, run by ``deq study``; runs that failed, were
interrupted, ended with a status of their own, wait in a queue, or were killed; numbers that are not
finite, odd text, output, traces, series, gradients, parents.
"""

import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import toy
from sacred.utils import SacredInterrupt

from db import RunObserver

STUDY = """
title: A small comparison
question: Which solver needs the fewest evaluations?
experiment: compare
base: {batch: 2, repeats: 1, repeat_seconds: 0.001, max_evaluations: 50, device: cpu}
grid:
  - model: [{name: mlp, width: 8}]
    solver.name: [broyden, anderson]
    reltol: [[1.0e-2, 1.0e-5]]
    gradient: [{name: implicit, solver: {name: gmres}}, {name: unrolled}]
"""


class Diverged(SacredInterrupt):
    STATUS = "DIVERGED"


def odd(_run):
    """Whatever a run may log and return."""
    values = [3.0, math.nan, 1.0, math.inf, 2.0, 1.0, -math.inf]
    for step, value in enumerate(values):
        _run.log_scalar("odd", value, step // 2)
    for step in range(50):
        _run.log_scalar("loss", 1.0 / (step + 1), step * 0.5)
    _run.log_scalar("never finite", math.nan, 0)
    _run.log_scalar("a text", "none", 0)
    _run.info["note"] = {"of": [1, math.nan, "naïve – ☃"], "nul": "a\0b"}
    print("printed: ☃ ' \" \\ %s :x\n\tand more")
    return {"loss": math.nan, "steps": 50, "vector": np.arange(3)}


def diverges(_run):
    _run.log_scalar("loss", math.inf, 0)
    raise Diverged


def solves(observer):
    """Solves of every phase, with and without a trace, and gradients that refer to them."""

    def main(_run):
        forward = observer.solve(
            {
                "phase": "forward", "solver": "broyden", "site": "layer.0",
                "options": {"window": 5},
                "evaluations": 4, "retcode": "NONFINITE", "converged": 0.5, "reltol": 1e-6,
                "retcodes": {"SUCCESS": 1, "NONFINITE": 1}, "residual_last": math.nan,
                "extra": {"attempts": ["a", "b"]}, "fixed_budget": True,
                "trace": {
                    "evaluations": [1, 2, 3, 4], "residual": [1.0, 0.1, math.inf, math.nan],
                    "seconds": [0.0, 0.1, 0.2, 0.3], "active": [2, 2, 1, 0],
                },
            }
        )  # fmt: skip
        adjoint = observer.solve({"phase": "adjoint", "solver": "gmres", "vjps": 7})
        observer.solve({"phase": "tangent"})
        observer.gradient(
            {
                "solve_ord": forward, "adjoint_ord": adjoint, "method": "implicit",
                "rel_err": math.inf, "norm": 1e-300, "cosine": 1.0, "extra": {"why": "a test"},
            }
        )  # fmt: skip
        observer.gradient({"method": "shine", "target": "θ"})

    return main


def killed(url):
    """A run whose process is killed in the middle."""
    code = f"""
import time, toy
def main(_run):
    print("beginning", flush=True)
    _run.log_scalar("loss", 1.0, 0)
    _run._emit_heartbeat()
    print("ready", file=__import__("sys").stderr, flush=True)
    time.sleep(60)
toy.run({str(url)!r}, main, study="demo", trial="killed")
"""
    process = subprocess.Popen([sys.executable, "-P", "-c", code], stderr=subprocess.PIPE)
    for line in process.stderr:
        if b"ready" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()


def fill(url):
    study = Path("small.yaml")
    study.write_text(STUDY)
    deq = "import sys; from experiments.cli import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-P", "-c", deq, "study", str(study)],
        env=os.environ | {"DEQ_STORE": str(url)}, check=True,
    )  # fmt: skip
    options = {"--capture": "sys", "--loglevel": "ERROR"}
    given = {"study": "odd", "trial": "first", "environment": {"torch": "2.13.0"}}
    first = toy.run(url, odd, options=options, **given)
    other = toy.CONFIG | {"a": {"b": [1, math.inf], "long": "x" * 300, "text": "1e-3"}, "seed": 7}
    parented = RunObserver(url, study="odd", trial="second", parent=first.run_id)
    toy.make(parented, solves(parented), other).run(
        options={"--loglevel": "CRITICAL", "--comment": "a comment – ☃", "--id": "not-a-uuid"}
    )
    with contextlib.suppress(SacredInterrupt):
        toy.run(url, diverges, options={"--loglevel": "CRITICAL"})
    for solver, seed in [("picard", 0), ("picard", 1), ("newton", 0)]:
        config = toy.CONFIG | {"solver": {"name": solver, "mixing": 1.0}, "seed": seed}
        observer = RunObserver(url, study="demo", trial=f"{solver}-{seed}")

        def main(_run, observer=observer, config=config):
            toy.measure(observer, config, config["seed"])

        toy.make(observer, main, config).run(options={"--loglevel": "ERROR"})
    queued = RunObserver(url, study="demo", trial="queued")
    toy.make(queued, odd).run(options={"--queue": True, "--loglevel": "ERROR"})

    def fails(_run):
        raise ArithmeticError("the state is not finite")

    def interrupted(_run):
        raise KeyboardInterrupt

    for main in (fails, interrupted):
        with contextlib.suppress(ArithmeticError, KeyboardInterrupt):
            toy.run(url, main, options={"--loglevel": "CRITICAL"}, study="demo", trial="ends")
    killed(url)


def dump(url, file):
    if "://" not in url:
        with contextlib.closing(sqlite3.connect(url)) as connection:
            text = "\n".join(connection.iterdump())
    else:
        done = subprocess.run(
            ["pg_dump", "--no-owner", "--no-privileges", "--rows-per-insert=200", url],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        # psql's own commands and empty lines are no SQL
        lines = [line for line in done.stdout.splitlines() if line and line[0] != "\\"]
        text = "\n".join(line for line in lines if not line.startswith("--"))
    Path(file).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    fill(sys.argv[1])
    dump(*sys.argv[1:3])
