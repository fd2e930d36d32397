"""What a store holds of the runs of ``deeds``, against what their children told."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import deeds
import numpy as np
import zygote
from sqlalchemy import make_url
from tally import Tally

from db import Store
from db.encode import unpack
from db.schema import TRACE_COLUMNS, Base

ENDED = {"COMPLETED", "FAILED", "INTERRUPTED", "DIED", "TERMINATED"}


@dataclass
class Held:
    """One run in the store: its row, and what it holds by number."""

    row: dict[str, Any]
    solves: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    points: dict[str, list[int]] = field(default_factory=dict)
    output: str = ""
    wrong: list[str] = field(default_factory=list)  # rows that are not what was recorded


def held(url: str) -> dict[int, list[Held]]:
    """Every run by its seed; more than one is one too many."""
    store = Store(url)
    runs: dict[int, Held] = {}
    found: dict[int, list[Held]] = {}
    for row in _rows(store, "select * from run order by id"):
        runs[row["id"]] = Held(row)
        found.setdefault(row["seed"], []).append(runs[row["id"]])
    traces: Counter[int] = Counter()
    numbers: dict[int, tuple[int, int]] = {}
    for row in _rows(
        store, "select id, run_id, ord, evaluations, outer_step, options from solve order by id"
    ):
        run = runs[row["run_id"]]
        numbers[row["id"]] = (row["run_id"], row["ord"])
        run.solves.append(row["ord"])
        options = row["options"]
        options = json.loads(options) if isinstance(options, str) else options
        mine = (run.row["seed"], row["ord"], {"number": row["ord"]})
        if (row["evaluations"], row["outer_step"], options) != mine:
            run.wrong.append(f"solve {row['ord']}: {row}")
    for row in _rows(store, 'select solve_id, "column", n, data from solve_trace'):
        run_id, place = numbers[row["solve_id"]]
        run = runs[run_id]
        traces[row["solve_id"]] += 1
        wanted = deeds.column(run.row["seed"], place, row["column"])
        if not np.array_equal(unpack(bytes(row["data"])), wanted):
            run.wrong.append(f"trace of solve {place}: {row['column']}")
    for number, (run_id, place) in numbers.items():
        if traces[number] != len(TRACE_COLUMNS):
            runs[run_id].wrong.append(f"solve {place} has {traces[number]} columns of its trace")
    for row in _rows(store, "select * from grad_check order by id"):
        run = runs[row["run_id"]]
        run.gradients.append(row["ord"])
        if row["n"] != 3 * row["ord"] or numbers.get(row["solve_id"]) != (row["run_id"], row["n"]):
            run.wrong.append(f"gradient {row['ord']}: n {row['n']} of {row['solve_id']}")
    for row in _rows(store, "select * from series order by id"):
        runs[row["run_id"]].points[row["name"]] = []
    for row in _rows(
        store,
        "select run_id, name, ord, step, value from point join series on series.id = series_id "
        "order by series_id, ord",
    ):
        run = runs[row["run_id"]]
        run.points[row["name"]].append(row["ord"])
        ord_, seed = row["ord"], run.row["seed"]
        wanted = (ord_, ord_ + seed / 1024) if row["name"] == "loss" else (0.5 * ord_, 0.5 * ord_)
        if (row["step"], row["value"]) != wanted:
            run.wrong.append(f"point {row['name']} {ord_}: {row['step']}, {row['value']}")
    for row in _rows(store, "select run_id, text from run_output order by run_id, seq"):
        runs[row["run_id"]].output += row["text"]
    return found


def _rows(store: Store, sql: str) -> list[dict[str, Any]]:
    frame = store.query(sql)
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


@dataclass
class Sum:
    """Counts over runs; the first six must be 0."""

    missing: int = 0  # runs that said that they had started
    twice: int = 0
    lost: int = 0  # events told that are not stored
    doubled: int = 0
    gaps: int = 0  # runs whose events are not 0, 1, 2, …
    wrong: int = 0  # rows that are not what was recorded
    events: int = 0  # told
    unended: int = 0
    untrue: int = 0  # runs that said COMPLETED and are stored otherwise
    statuses: Counter[str] = field(default_factory=Counter)


def compare(url: str, children: dict[int, zygote.Child], tally: Tally) -> Sum:
    """Hold what children told, by seed, against the store."""
    total = Sum()
    stored = held(url)
    for seed, child in children.items():
        mine = stored.get(seed, [])
        told = _told(child)
        total.events += told["solves"] + told["gradients"] + sum(told["points"].values())
        if told["started"] and not mine:
            total.missing += 1
            total.lost += told["solves"] + told["gradients"] + sum(told["points"].values())
            tally.detail(f"run {seed} is not in the store: {child.said()[-600:]}")
        total.twice += len(mine) > 1
        for run in mine:
            _one(run, seed, told, child=child, total=total, tally=tally)
    return total


def _told(child: zygote.Child) -> dict[str, Any]:
    points = child.heard("points")
    return {
        "started": bool(child.heard("started")),
        "solves": len(child.heard("solve")),
        "gradients": len(child.heard("gradient")),
        "points": points[-1] if points else {},
        "printed": max(child.heard("printed"), default=0),
        "stopped": child.heard("stopped"),
    }


def _one(
    run: Held, seed: int, told: dict[str, Any], *, child: zygote.Child, total: Sum, tally: Tally
):
    said = []
    kinds = {"solves": run.solves, "gradients": run.gradients}
    wanted = {"solves": told["solves"], "gradients": told["gradients"]}
    for name in set(run.points) | set(told["points"]):
        kinds[name] = run.points.get(name, [])
        wanted[name] = told["points"].get(name, 0)
    for kind, numbers in kinds.items():
        lost = len(set(range(wanted[kind])) - set(numbers))
        doubled = len(numbers) - len(set(numbers))
        gap = sorted(set(numbers)) != list(range(len(set(numbers))))
        if lost or doubled or gap:
            said.append(f"{kind}: {lost} lost of {wanted[kind]}, {doubled} doubled, gap {gap}")
        total.lost += lost
        total.doubled += doubled
        total.gaps += gap
    text = "".join(deeds.line(seed, n) + "\n" for n in range(5000))
    if not text.startswith(run.output) or len(run.output) < told["printed"]:
        total.wrong += 1
        said.append(f"output: {len(run.output)} of {told['printed']} characters")
    total.wrong += len(run.wrong)
    said += run.wrong[:3]
    status = run.row["status"]
    total.statuses[status] += 1
    total.unended += status not in ENDED
    if told["stopped"] and status != told["stopped"][-1]:
        total.untrue += 1
        said.append(f"said {told['stopped'][-1]}, is {status}")
    if status not in ENDED:
        said.append(f"status {status}")
    if said:
        tally.detail(f"run {seed}: {'; '.join(said)}\n{child.said()[-400:]}")


def expect_all(total: Sum, tally: Tally, name: str, ended: bool = True) -> None:
    """The counts that must be nothing."""
    tally.note(f"{name}: events told", total.events)
    tally.note(f"{name}: runs by status", dict(total.statuses))
    tally.expect(f"{name}: runs lost", total.missing, 0)
    tally.expect(f"{name}: runs doubled", total.twice, 0)
    tally.expect(f"{name}: events lost", total.lost, 0)
    tally.expect(f"{name}: events doubled", total.doubled, 0)
    tally.expect(f"{name}: series of events with gaps", total.gaps, 0)
    tally.expect(f"{name}: rows that are not what was recorded", total.wrong, 0)
    tally.expect(f"{name}: ends that are not what was told", total.untrue, 0)
    if ended:
        tally.expect(f"{name}: runs without an end", total.unended, 0)


def fingerprint(url: str) -> dict[str, str]:
    """A digest of every table, to see whether anything changes."""
    store = Store(url)
    found = {}
    for name, table in Base.metadata.tables.items():
        keys = ", ".join(f'"{c.name}"' for c in table.primary_key) or "1"
        rows = store.query(f'select * from "{name}" order by {keys}').itertuples(index=False)
        digest = hashlib.sha256()
        for row in rows:
            digest.update(repr(tuple(row)).encode("utf-8", "replace"))
        found[name] = digest.hexdigest()[:12]
    return found


def sound(url: str) -> list[str]:
    """What the database itself finds wrong with the store; nothing, for one that is sound."""
    if "://" in url and not make_url(url).get_backend_name().startswith("sqlite"):
        return []
    import sqlite3
    from contextlib import closing

    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as database:
        found = [row[0] for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
        found += [str(row) for row in database.execute("PRAGMA foreign_key_check")]
    return found
