"""A store of as many runs as one likes, made in bulk, and how long its questions take.

    python -P tests/db/large.py build URL [RUNS [POINTS]]
    python -P tests/db/large.py measure URL

The runs are what ``compare`` would have left of 5 solvers, 2 gradients, 2 models and 10 seeds in
one study after the other. The numbers are drawn, but look like those of such runs; equal arguments
give equal stores.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from sqlalchemy import Connection, func, text

from db import Store, connect
from db.dialects import insert_many
from db.encode import canonical, digest, flatten
from db.schema import Base

SOLVERS = {"picard": 6.0, "anderson": 3.2, "broyden": 2.7, "newton_krylov": 4.5, "newton": 3.4}
MODELS = {"mlp": 1.0, "transformer": 1.6}  # evaluations a decade, times this
GRADIENTS = ("implicit", "unrolled")
SEEDS, RELTOL, BUDGET = 10, (1e-2, 1e-4, 1e-6), 50
STUDY = len(SOLVERS) * len(GRADIENTS) * len(MODELS) * SEEDS
START = datetime(2026, 1, 5, 8, tzinfo=UTC)
CODEC = "float64 little-endian, zlib"
SPENT = "the budget of evaluations is spent: raise max_evaluations, or take another solver"

Rows = dict[str, list[dict[str, Any]]]


def build(url: str | os.PathLike[str], runs: int = 10_000, points: int = 1000) -> None:
    """Fill an empty store: a trace of so many points a run, and about 4.5 solves."""
    draw = np.random.default_rng(0)
    rows: Rows = defaultdict(list)
    _shared(rows)
    traces = [_trace(draw, points) for _ in range(32)]
    for number in range(1, runs + 1):
        _run(rows, draw, number, runs, traces)
    engine = connect(url)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            if rows[table.name]:
                columns = list(rows[table.name][0])
                values = ([row[name] for name in columns] for row in rows[table.name])
                insert_many(connection, table, columns, values)
        if connection.dialect.name == "postgresql":
            _count_on(connection)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself, in time
    engine.dispose()


def _count_on(connection: Connection) -> None:
    """Let the next rows have the next numbers."""
    for table in Base.metadata.sorted_tables:
        if "id" in table.columns:
            sequence = func.pg_get_serial_sequence(table.name, "id")
            last = text(f"(SELECT coalesce(max(id), 1) FROM {table.name})")
            connection.execute(func.setval(sequence, last).select())


def _time(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _blob(rows: Rows, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    if name not in (row["sha256"] for row in rows["blob"]):
        row = {"sha256": name, "size": len(content), "data": zlib.compress(content)}
        rows["blob"].append(row)
    return name


def _shared(rows: Rows) -> None:
    for number, (torch, gpu) in enumerate([("2.12.0", None), ("2.13.0", None)], start=1):
        rows["environment"].append({
            "id": number, "fingerprint": digest(number), "python": "3.12.1", "torch": torch,
            "os": "Linux", "cpu": "AMD EPYC 7B13", "gpu": gpu,
            "packages": canonical(
                {"torch": torch, "numpy": "2.3.4", "sacred": "0.8.7"}
                | {f"package-{n}": f"{n}.0" for n in range(60)}
            ),
            "details": canonical({"deterministic": True, "threads": 1}),
        })  # fmt: skip
    for number, dirty in enumerate([0, 0, 1], start=1):
        source = f"RATE = {number}\n\n\ndef f(z, x):\n    return RATE * z + x\n".encode()
        change = b"--- a/rate.py\n+++ b/rate.py\n@@ -1 +1 @@\n-RATE = 2\n+RATE = 3\n"
        rows["code"].append({
            "id": number, "fingerprint": digest(number), "mainfile": "compare.py",
            "base_dir": "/home/me/lab",
            "sources": canonical({"compare.py": _blob(rows, source)}
                | {f"solvers/file_{n}.py": _blob(rows, b"# %d\n" % n) for n in range(20)}),
            "repository": "git@example.org:me/lab.git",
            "commit_id": hashlib.sha1(str(min(number, 2)).encode()).hexdigest(), "dirty": dirty,
            "diff": _blob(rows, change) if dirty else None,
        })  # fmt: skip


def _trace(draw: np.random.Generator, points: int) -> dict[str, bytes]:
    along = np.arange(1, points + 1)
    columns = {
        "evaluations": along,
        "seconds": np.cumsum(draw.uniform(1e-4, 2e-4, points)),
        "residual": 10 ** (-6 * along / points + draw.normal(0, 0.1, points)),
        "active": np.full(points, 16),
    }
    return {
        name: zlib.compress(column.astype("<f8").tobytes(), level=1)
        for name, column in columns.items()
    }


def _config(place: int) -> dict[str, Any]:
    solver, model = [*SOLVERS][place % 5], [*MODELS][place // 10 % 2]
    seed = place // 20 % SEEDS
    gradient: dict[str, Any] = {"name": "unrolled", "last": None}
    if place // 5 % 2 == 0:
        adjoint = {"name": ("gmres", "anderson")[seed % 2], "restart": 20, "ridge": 1e-8}
        gradient = {
            "name": "implicit", "solver": adjoint, "reltol": None, "max_products": 100,
            "precondition": None, "on_failure": "warn",
        }  # fmt: skip
    window = (5 if seed < SEEDS // 2 else 10) if solver == "anderson" else None
    return {
        "model": {
            "name": model, "width": 64, "injection": 1.0, "radius": 0.9, "activation": "tanh",
            "normalise": False,
        },
        "solver": {
            "name": solver, "window": window, "mixing": 1.0, "ridge": 1e-10, "restart": None,
            "line_search": False, "damping": 0.0,
        },
        "gradient": gradient,
        "data": {"name": "digits", "samples": 1024, "split": "train", "shuffle": True},
        "data_sha256": digest(model), "reltol": [*RELTOL], "abstol": 0.0, "norm": "l2",
        "max_evaluations": BUDGET, "fixed_budget": False, "batch": 16, "train_steps": 0,
        "learning_rate": 0.01, "repeats": 5, "repeat_seconds": 1.0, "device": "cpu",
        "dtype": "float32", "autocast": None, "threads": 1, "seed": seed,
    }  # fmt: skip


def _status(number: int, runs: int) -> str:
    ends = {23: "FAILED", 73: "FAILED", 61: "INTERRUPTED", 87: "DIED"}
    return "RUNNING" if number == runs else ends.get(number % 100, "COMPLETED")


def _run(
    rows: Rows,
    draw: np.random.Generator,
    number: int,
    runs: int,
    traces: list[dict[str, bytes]],
) -> None:
    # The last ones try again what failed first.
    again = number - (runs - runs // 100)
    place = (again - 1) * 100 + 22 if 0 < again < runs // 100 else number - 1
    config, status = _config(place), _status(number, runs)
    study = "compare" if place < STUDY else f"sweep-{place // STUDY:02}"
    bare = {key: value for key, value in config.items() if key != "seed"}
    trial = digest([study, config])
    uuid = str(uuid5(NAMESPACE_URL, f"run {number}"))
    begin, seconds = 60.0 * number, float(draw.uniform(5, 50))
    ended = status not in ("RUNNING", "DIED")
    failed = status == "FAILED"
    rows["run"].append({
        "id": number, "uuid": uuid, "session": uuid, "last_seq": 10, "experiment": "compare",
        "command": "main", "study": study, "trial": trial, "status": status,
        "queued_at": None, "started_at": _time(begin), "heartbeat_at": _time(begin + seconds),
        "beat_interval": 5.0, "stopped_at": _time(begin + seconds) if ended else None,
        "seconds": seconds, "seed": config["seed"], "config": canonical(config),
        "config_hash": digest(bare),
        "result": canonical({"solves": 3, "evaluations": int(draw.integers(20, 200))}),
        "result_value": None, "info": canonical({}),
        "meta": canonical({"command": "main", "options": {"--capture": "no", "--force": False}}),
        "comment": None, "fail_type": "ArithmeticError" if failed else None,
        "fail_message": "the state is not finite" if failed else None,
        "fail_trace": "Traceback (most recent call last): …" if failed else None,
        "host": f"lab-{place // 20 % 2 + 1}", "pid": 1000 + number, "pid_space": "4026531836",
        "boot_id": digest(place // 20 % 2)[:36], "proc_start": 100 * number,
        "code_id": 1 + place % 7 // 3, "environment_id": 1 + place // 20 % 2, "parent_id": None,
        "deleted_at": _time(9e5) if number % 100 == 98 else None,
    })  # fmt: skip
    for leaf in flatten(config):
        rows["run_config"].append({"run_id": number} | leaf._asdict())
    rows["run_output"].append({"run_id": number, "seq": 0, "text": f"run {number}\n"})
    if study == "compare" and config["seed"] == 0:
        rows["tag"].append({"run_id": number, "tag": "baseline"})
    if number % 25 == 0:
        rows["tag"].append({"run_id": number, "tag": "figure 3"})
    if number % 10 == 2:
        _files(rows, number)
    if number == 5:
        rows["rejected_event"].append({
            "id": 1, "run_uuid": uuid, "session": uuid, "seq": 4, "kind": "solve",
            "payload": canonical({"evaluations": -1}), "rejected_at": _time(begin + 3),
            "error": "CHECK constraint failed: ck_solve_evaluations_count",
        })  # fmt: skip
    for step, reltol in enumerate(RELTOL[:1] if failed else RELTOL):
        _measure(rows, draw, number, config, step, reltol, traces)
    _series(rows, draw, number, "loss", 20)
    _series(rows, draw, number, "gradient_norm", 10)


def _files(rows: Rows, number: int) -> None:
    content = f"weights of run {number % 7}\n".encode()
    kept = {"id": len(rows["artifact"]) + 1, "run_id": number, "kind": "artifact"}
    rows["artifact"].append(kept | {
        "name": "weights.txt", "sha256": _blob(rows, content), "size": len(content),
        "path": "/tmp/weights.txt", "content_type": "text/plain", "meta": canonical({"step": 3}),
    })  # fmt: skip
    described = {"id": len(rows["artifact"]) + 1, "run_id": number, "kind": "resource"}
    rows["artifact"].append(described | {
        "name": "digits.npz", "sha256": digest("digits"), "size": 20_000_000,
        "path": "/data/digits.npz", "content_type": None, "meta": None,
    })  # fmt: skip


def _measure(  # noqa: PLR0917
    rows: Rows,
    draw: np.random.Generator,
    number: int,
    config: dict[str, Any],
    step: int,
    reltol: float,
    traces: list[dict[str, bytes]],
) -> None:
    decades, factor = -math.log10(reltol), MODELS[config["model"]["name"]]
    slow = 1.15 if config["solver"]["window"] == 5 else 1.0
    wanted = 2 + SOLVERS[config["solver"]["name"]] * decades * factor * slow
    wanted = round(wanted + draw.uniform(0, 3))
    forward = _solve(rows, draw, number, config, step, reltol, "forward", wanted)
    if reltol == RELTOL[-1]:
        for name, data in traces[number % len(traces)].items():
            rows["solve_trace"].append({
                "solve_id": forward["id"], "column": name,
                "n": len(zlib.decompress(data)) // 8, "codec": CODEC, "data": data,
            })  # fmt: skip
    gradient, adjoint = config["gradient"], None
    if gradient["name"] == "implicit":
        hard = config["model"]["name"] == "transformer" and config["seed"] % 3 == 0
        products = BUDGET if hard and reltol < 1e-5 else round(3 * decades * factor)
        adjoint = _solve(rows, draw, number, config, step, reltol, "adjoint", products)
    exact = gradient["name"] == "unrolled"
    error = reltol * float(draw.uniform(0.5, 2)) * (0.3 if exact else 1.0)
    seconds = 1e-3 * forward["evaluations"] * (1.0 if exact else 0.4)
    checks = rows["grad_check"]
    checks.append({
        "id": len(checks) + 1, "run_id": number, "ord": step, "outer_step": step,
        "solve_id": forward["id"], "adjoint_id": adjoint["id"] if adjoint else None,
        "target": "parameters", "method": gradient["name"], "options": canonical(gradient),
        "reference": "float64", "rel_err": error, "cosine": 1 - error**2, "norm": 1.5,
        "norm_ref": 1.5 * (1 + error), "norm_ratio": 1 / (1 + error), "n": 8000,
        "fwd_residual": forward["residual_last"],
        "bwd_residual": adjoint["residual_last"] if adjoint else None, "reltol": reltol,
        "dtype": "float32", "kept_bytes": 4096 * (forward["evaluations"] if exact else 1),
        "history_bytes": 65536, "forward_seconds": forward["seconds"],
        "backward_seconds": seconds, "products": adjoint["evaluations"] if adjoint else None,
        "loss": 2.3, "loss_ref": 2.3, "state_err": reltol,
    })  # fmt: skip


def _solve(  # noqa: PLR0917
    rows: Rows,
    draw: np.random.Generator,
    number: int,
    config: dict[str, Any],
    step: int,
    reltol: float,
    phase: str,
    wanted: int,
) -> dict[str, Any]:
    evaluations, forward = min(wanted, BUDGET), phase == "forward"
    share = 1.0 if wanted < BUDGET else 0.5
    solver = config["solver"] if forward else config["gradient"]["solver"]
    solves = rows["solve"]
    before = solves[-1]["ord"] + 1 if solves and solves[-1]["run_id"] == number else 0
    seconds = 1e-4 * evaluations * float(draw.uniform(1, 1.5))
    retcode = "SUCCESS" if share == 1 else "MAX_EVALUATIONS"
    solves.append({
        "id": len(solves) + 1, "run_id": number, "ord": before, "outer_step": step, "phase": phase,
        "site": "", "problem": config["model"]["name"], "solver": solver["name"],
        "options": canonical({k: v for k, v in solver.items() if k != "name"}),
        "iterations": evaluations - 1, "evaluations": evaluations,
        "sample_evaluations": 16 * evaluations - 5, "jvps": 0, "vjps": 0 if forward else
        evaluations, "syncs": evaluations, "history_bytes": 65536, "retcode": retcode,
        "retcodes": canonical({retcode: 16}), "converged": share,
        "message": "converged" if share == 1 else SPENT, "residual_first": 10.0,
        "residual_last": 10 * reltol * (0.9 if share == 1 else 7.0),
        "residual_min": 9 * reltol, "residual_relative": reltol * (0.9 if share == 1 else 7.0),
        "seconds": seconds, "seconds_q1": 0.9 * seconds, "seconds_q3": 1.1 * seconds, "repeats": 5,
        "abstol": 0.0, "reltol": reltol, "norm": "l2", "max_evaluations": BUDGET,
        "fixed_budget": 0, "dtype": "float32", "device": "cpu", "batch": 16, "dim": 64,
        "extra": None,
    })  # fmt: skip
    return solves[-1]


def _series(rows: Rows, draw: np.random.Generator, number: int, name: str, n: int) -> None:
    values = [float(v) for v in 2.3 * np.exp(-0.1 * np.arange(n)) + draw.uniform(0, 0.05, n)]
    bad = 2 if name == "loss" and number % 40 == 7 else 0
    finite = values[: n - bad]
    least = min(range(len(finite)), key=finite.__getitem__)
    series = len(rows["series"]) + 1
    rows["series"].append({
        "id": series, "run_id": number, "name": name, "n": n, "nonfinite": bad,
        "last_step": 10.0 * (len(finite) - 1), "last_value": finite[-1], "least": finite[least],
        "least_step": 10.0 * least, "largest": max(finite),
    })  # fmt: skip
    for place, value in enumerate(values):
        kept = place < n - bad
        rows["point"].append({
            "series_id": series, "ord": place, "step": 10.0 * place,
            "value": value if kept else None, "flag": 0 if kept else 1,
            "t": START.timestamp() + 60 * number + place,
        })  # fmt: skip


# How long


TWO = "solver.name=broyden and status=COMPLETED"
PAIR = "left=broyden and right=anderson and phase=forward"


def measure(url: str) -> list[tuple[str, float]]:
    """The seconds of each question, the least of five askings."""
    store = Store(url)
    runs = store.runs()["id"]
    solves = store.query("select solve_id from solve_trace where \"column\" = 'residual'")
    questions: dict[str, Callable[[], object]] = {
        "runs, two filters": lambda: store.runs(TWO),
        "runs, two filters, few": lambda: store.runs("study=compare and seed=3"),
        "runs, all": store.runs,
        "runs, a config key and a metric": lambda: store.runs(
            TWO, config=["solver.mixing"], metrics=["loss"]
        ),
        "diff of 50 runs": lambda: store.diff(*runs[:: len(runs) // 50][:50]),
        "one run": lambda: store.run(int(runs[len(runs) // 2])),
        "one trace": lambda: store.trace(int(solves["solve_id"][len(solves) // 2])),
        "solves at 1e-6 of one model": lambda: store.solves("model=mlp and reltol=1e-6"),
        "comparisons": lambda: store.comparisons(PAIR),
        "comparisons by SQL": lambda: store.query(
            "select model, avg(evaluations_ratio) as ratio from v_comparisons where "
            "left_solver = 'broyden' and right_solver = 'anderson' group by model"
        ),
        "compare": lambda: store.compare("evaluations", "broyden", "anderson"),
        "replicates": lambda: store.replicates("evaluations", "phase=forward"),
        "best": lambda: store.best("series.loss"),
        "summaries": lambda: store.summaries("name=loss and last_value<0.5"),
        "a filter on a metric": lambda: store.runs("series.loss<0.35"),
        "a filter on a tag": lambda: store.runs("tag=baseline"),
    }
    return [(name, min(_timed(ask) for _ in range(5))) for name, ask in questions.items()]


def _timed(ask: Callable[[], object]) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def commands(url: str) -> list[tuple[str, float]]:
    """The seconds of each command, of a process of its own."""
    fifty = [str(n) for n in Store(url).runs()["id"][:50]]
    found = []
    for words in (
        ["--help"],
        ["runs", "ls", "--where", "study=no-such-study"],
        ["runs", "ls", "--where", TWO],
        ["runs", "ls", "--where", TWO, "--csv"],
        ["runs", "diff", *fifty],
        ["runs", "show", fifty[-1]],
        ["runs", "best", "series.loss"],
    ):
        command = [str(Path(sys.executable).with_name("deq")), *words]
        ask = _command(command, os.environ | {"DEQ_STORE": url})
        found.append((" ".join(["deq", *words])[:60], min(_timed(ask) for _ in range(3))))
    return found


def _command(command: list[str], environment: dict[str, str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)


def main(words: list[str]) -> None:
    """Build or measure, as the words say."""
    what, url, *sizes = words
    if what == "build":
        start = time.perf_counter()
        build(url, *map(int, sizes))
        print(f"built in {time.perf_counter() - start:.0f} s")
        return
    for name, seconds in [*measure(url), *commands(url)]:
        print(f"{1000 * seconds:8.1f} ms  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
