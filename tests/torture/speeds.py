"""How fast what is told is stored, and what recording costs the run. Measured, never asserted.

Each measure is taken several times; what is printed is the median with its quartiles. What must
hold is only that everything that was told for a measure is stored.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
from ground import Ground
from tally import Tally

NOW = datetime(2026, 1, 31, 12)
ROWS = 1000  # points of a trace


class Spread:
    """Some numbers by their median and quartiles."""

    def __init__(self, numbers: list[float], digits: str = ",.0f"):
        low, self.median, high = (
            statistics.quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1
            else numbers * 3
        )  # fmt: skip
        form = f"{{:{digits}}}"
        self.text = f"{form} [{form}, {form}] of {len(numbers)}".format(self.median, low, high)


# In the child


def _started(url: str) -> Any:
    from db import RunObserver

    observer = RunObserver(url)
    observer.started_event({"name": "speed"}, "main", {}, NOW, {}, {}, None)
    return observer


def _ended(observer: Any) -> None:
    observer.completed_event(NOW, None)
    observer.join()


def _trace(length: int, seed: int) -> dict[str, np.ndarray]:
    """What a solver leaves: counts, and numbers that do not repeat."""
    chance = np.random.default_rng(seed)
    return {
        "evaluations": np.arange(1, length + 1),
        "seconds": np.cumsum(chance.uniform(1e-5, 1e-4, length)),
        "residual": np.exp(-np.arange(length) / 30) * chance.uniform(0.5, 1.0, length),
        "active": np.full(length, 16),
    }


def _record(trace: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "phase": "forward", "problem": "cosine", "solver": "anderson", "iterations": 50,
        "options": {"window": 10, "mixing": 1.0}, "evaluations": 51, "retcode": "SUCCESS",
        "retcodes": {"SUCCESS": 16}, "converged": 1.0, "message": "converged",
        "residual_first": 1.0, "residual_last": 1e-6, "residual_min": 1e-6, "seconds": 0.02,
        "reltol": 1e-5, "norm": "l2", "dtype": "float32", "device": "cpu", "batch": 16, "dim": 64,
        "trace": trace,
    }  # fmt: skip


def _metrics(rows: int, start: int, series: int = 4) -> dict[str, Any]:
    """A beat's worth of points, as Sacred gives it."""
    each = rows // series
    steps = list(range(start, start + each))
    return {
        f"series {n}": {
            "name": f"series {n}", "steps": steps, "values": [0.5 * s + n for s in steps],
            "timestamps": [NOW] * each,
        }
        for n in range(series)
    }  # fmt: skip


def traces_end_to_end(url: str, points: int) -> float:
    """Packed points a second from the first ``solve`` until all are stored."""
    records = [_record(_trace(ROWS, n)) for n in range(50)]
    observer = _started(url)
    begin = time.perf_counter()
    for number in range(points // ROWS):
        observer.solve(records[number % 50])
    observer.flush()
    took = time.perf_counter() - begin
    _ended(observer)
    return points / took


def metrics_end_to_end(url: str, rows: int) -> float:
    """Rows a second from the first ``log_metrics`` until all are stored."""
    beats = [_metrics(20_000, n * 5000) for n in range(rows // 20_000)]
    observer = _started(url)
    begin = time.perf_counter()
    for beat in beats:
        observer.log_metrics(beat, {})
    observer.flush()
    took = time.perf_counter() - begin
    _ended(observer)
    return rows / took


def sacred_run(url: str, rows: int) -> float:
    """Rows a second of a whole Sacred run: ``log_scalar``, beats, end; its own cost included."""
    from deeds import QUIET, RunObserver, experiment

    def main(_run):
        for number in range(rows):
            _run.log_scalar("loss", 0.5 * number, number)

    made = experiment(RunObserver(url), main)
    begin = time.perf_counter()
    made.run(options=QUIET | {"--beat-interval": 0.2})
    return rows / (time.perf_counter() - begin)


def writer_alone(url: str, kind: str, amount: int) -> float:
    """The same events to the writer without observer, journal and thread."""
    from db.journal import Event
    from db.records import points, solve_row
    from db.writer import BATCH, SqlWriter

    observer = _started(url)
    session = observer.session
    _ended(observer)
    events = []
    if kind == "traces":
        rows = [solve_row(_record(_trace(ROWS, n))) for n in range(50)]
        for number in range(amount // ROWS):
            row, trace = rows[number % 50]
            payload = {"row": row | {"ord": number}, "trace": trace}
            events.append(Event(1000 + number, "solve", payload))
    else:
        for number in range(amount // 20_000):
            beat = _metrics(20_000, number * 5000)
            series = [
                {"name": name, "start": number * 5000} | points(new) for name, new in beat.items()
            ]
            events.append(Event(1000 + number, "points", {"series": series}))
    size = min(BATCH, 50)
    writer = SqlWriter(url)
    writer.connect()
    begin = time.perf_counter()
    for first in range(0, len(events), size):
        writer.store(session, events[first : first + size])
    took = time.perf_counter() - begin
    writer.close()
    return amount / took


def sacreds_own(url: str, rows: int) -> float:
    """Rows a second that Sacred's SqlObserver commits: it has no metrics, so beats are counted."""
    from deeds import SqlObserver

    url = f"sqlite:///{url}.sacred" if "://" not in url else url.replace("://", "+psycopg://", 1)
    observer = SqlObserver(url)
    info = {"name": "speed", "base_dir": "", "sources": [], "dependencies": [],
            "repositories": [], "mainfile": ""}  # fmt: skip
    host = {"cpu": "", "hostname": "", "os": ("", ""), "python_version": ""}
    observer.started_event(info, "main", host, NOW, {}, {}, None)
    begin = time.perf_counter()
    for number in range(rows):
        observer.heartbeat_event({"step": number}, f"{number}", NOW, float(number))
    took = time.perf_counter() - begin
    observer.engine.dispose()
    return rows / took


def calls(url: str, number: int) -> dict[str, list[float]]:
    """Microseconds of the main thread for each call, while the writer works."""
    from deeds import QUIET, RunObserver, experiment

    found: dict[str, list[float]] = {"solve": [], "gradient": [], "log_scalar": []}
    observer = RunObserver(url)
    record = _record(_trace(50, 0))
    check = {"method": "implicit", "rel_err": 1e-3, "cosine": 0.99, "norm": 1.0, "norm_ref": 1.0,
             "n": 64, "reltol": 1e-5, "backward_seconds": 0.02}  # fmt: skip

    def main(_run):
        for turn in range(number):
            for name, call in (
                ("solve", lambda: observer.solve(record)),
                ("gradient", lambda: observer.gradient(check)),
                ("log_scalar", lambda n=turn: _run.log_scalar("loss", 1.0, n)),
            ):
                begin = time.perf_counter()
                call()
                found[name].append((time.perf_counter() - begin) * 1e6)
            time.sleep(0.002)

    experiment(observer, main).run(options=QUIET | {"--beat-interval": 1.0})
    return found


def recording(url: str, pairs: int, solves: int) -> dict[str, list[float]]:
    """A run that solves every 20 ms, in blocks with and without recording, in turn.

    Each block does the same work, measured before, and is compared with its neighbour, in % of its
    time: ``wall``; ``main``, the processor time of the thread that solves; ``others``, that of all
    other threads, the writer's above all, until it has stored what the block told.
    """
    import torch

    import solvers
    from experiments.runner.recording import record

    torch.manual_seed(0)
    torch.set_num_threads(1)
    weight = torch.randn(64, 64) / 12
    bias = torch.randn(16, 64)
    matrix = torch.randn(256, 256)
    problem = solvers.FixedPointProblem(
        lambda z: torch.tanh(z @ weight) + bias, torch.zeros(16, 64)
    )
    solver = solvers.Anderson(window=5)

    def solve() -> Any:
        return solvers.solve(problem, solver, reltol=1e-5)

    def busy(products: int) -> None:
        for _ in range(products):
            torch.mm(matrix, matrix)

    def timed(call: Callable[[], Any], repeats: int) -> float:
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    timed(solve, 10)
    one, product = timed(solve, 50), timed(lambda: busy(10), 50) / 10
    products = max(0, math.ceil((0.02 - one) / product))

    def block() -> float:
        begin = time.perf_counter()
        for _ in range(solves):
            solve()
            busy(products)
        return time.perf_counter() - begin

    lag = 0.4  # of the writer

    def measured() -> tuple[float, float, float]:
        main, all_threads = time.thread_time(), time.process_time()
        took = block()
        main = time.thread_time() - main
        time.sleep(lag)
        return took, main, time.process_time() - all_threads - main

    def recorded() -> tuple[float, float, float]:
        with record(url, name="speed"):
            time.sleep(lag)  # what a run costs once is not asked here
            return measured()

    found: dict[str, list[float]] = {"wall": [], "main": [], "others": [], "period": []}
    measured()
    for pair in range(pairs):
        if pair % 2:
            without, with_ = measured(), recorded()
        else:
            with_, without = recorded(), measured()
        found["wall"].append(100 * (with_[0] / without[0] - 1))
        found["main"].append(100 * (with_[1] / without[1] - 1))
        found["others"].append(100 * (with_[2] - without[2]) / without[0])
        found["period"].append(1000 * without[0] / solves)
    found["points"] = [float(len(solve().trace.evaluations))]
    return found


def journal_bytes(points: int) -> dict[str, float]:
    """Bytes of the journal a point, of traces and of metrics, and what a beat of nothing takes."""
    from db import journal, outbox

    outbox.PATIENCE = outbox.LAST_PATIENCE = 0.0
    away = "postgresql://postgres@127.0.0.1:9/nothing"
    found = {}
    for kind in ("packed point", "metric row", "metric row, one at a time"):
        observer = _started(away)
        before = journal.waiting(away)[0].size
        if kind == "packed point":
            for number in range(points // ROWS):
                observer.solve(_record(_trace(ROWS, number)))
        elif kind == "metric row":
            for number in range(points // 20_000):
                observer.log_metrics(_metrics(20_000, number * 5000), {})
        else:
            for number in range(points // 20_000):
                observer.log_metrics(_metrics(1, number, series=1), {})
        after = max(pending.size for pending in journal.waiting(away))
        count = points // 20_000 if kind.endswith("time") else points
        found[kind] = (after - before) / count
        observer.join()
        for pending in journal.waiting(away):
            pending.path.unlink()
    return found


# In the parent


def trial(ground: Ground, scale: float) -> Tally:
    """All measures, on each database."""
    from db import Store

    tally = Tally("speed: medians [quartiles] of repeats")
    repeats = 5 if scale >= 1 else 1
    points = max(20 * ROWS, int(1_000_000 * scale) // ROWS * ROWS)
    rows = max(20_000, int(400_000 * scale) // 20_000 * 20_000)
    loads = [f"{load:.1f}" for load in os.getloadavg()]
    tally.note("cores, load before", (os.cpu_count(), *loads))

    def measured(name: str, **arguments: Any) -> list[Any]:
        found = []
        for number in range(repeats):
            ground.say(f"{name} {arguments}: {number + 1} of {repeats}")
            child = ground.zygote.start("speed", name=name, **arguments)
            child.end(240)
            if not child.heard("result"):
                raise RuntimeError(child.said()[-2000:])
            found.append(child.heard("result")[0])
        return found

    short = scale < 0.1  # to see that the measures work
    for kind in ground.databases()[: 1 if short else None]:
        url = ground.fresh(kind)
        for title, name, more in [
            ("packed trace points/s, told to stored", "traces_end_to_end", {"points": points}),
            ("packed trace points/s, writer alone", "writer_alone",
             {"kind": "traces", "amount": points}),
            ("metric rows/s, told to stored", "metrics_end_to_end", {"rows": rows}),
            ("metric rows/s, writer alone", "writer_alone", {"kind": "metrics", "amount": rows}),
            ("metric rows/s, a whole Sacred run", "sacred_run", {"rows": rows // 2}),
        ]:  # fmt: skip
            tally.note(f"{kind}: {title}", Spread(measured(name, url=url, **more)).text)
        own = ground.fresh(kind)
        committed = measured("sacreds_own", url=own, rows=max(10, int(500 * scale)))
        tally.note(f"{kind}: rows/s that Sacred's SqlObserver commits", Spread(committed).text)
        store = Store(url)
        stored = int(store.query("select sum(n) as n from series")["n"][0])
        there = int(store.query("select count(*) as n from point")["n"][0])
        traced = int(store.query("select sum(n) as n from solve_trace")["n"][0])
        wanted = repeats * (2 * rows + rows // 2)
        tally.expect(f"{kind}: metric rows stored and summed up", (there, stored), (wanted, wanted))
        tally.expect(f"{kind}: trace points stored", traced // 4, repeats * 2 * points)
        tally.note(f"{kind}: bytes a packed point in the store", _bytes_a_point(store))
        found = measured("calls", url=url, number=max(20, int(500 * scale)))
        for name in ("solve", "gradient", "log_scalar"):
            every = [x for one in found for x in one[name]]
            tally.note(f"{kind}: µs of the main thread for {name}", Spread(every, ".0f").text)
    repeats = 1
    for name, value in measured("journal_bytes", points=max(20_000, points // 10))[0].items():
        tally.note(f"journal bytes a {name}", round(value, 1))
    if short:
        return tally
    ground.say("the cost of recording")
    cost = measured(
        "recording", url=ground.fresh("sqlite"), pairs=max(1, int(20 * scale)),
        solves=max(5, int(50 * scale)),
    )[0]  # fmt: skip
    tally.note("recording: a solve every … ms", Spread(cost["period"], ".1f").text)
    tally.note("recording: points of each trace", cost["points"][0])
    for name, what in [
        ("wall", "time"), ("main", "processor time of the thread that solves"),
        ("others", "processor time of other threads"),
    ]:  # fmt: skip
        tally.note(f"recording costs % {what}", Spread(cost[name], "+.2f").text)
    return tally


def _bytes_a_point(store: Any) -> float:
    found = store.query("select sum(length(data)) as size, sum(n) as n from solve_trace")
    return round(4 * float(found["size"][0]) / float(found["n"][0]), 1)
