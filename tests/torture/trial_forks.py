"""Forks, threads and several runs in the process that records."""

from __future__ import annotations

import audit
import zygote
from ground import Ground
from tally import Tally

WAYS = ("quick", "whole", "exit", "multiprocessing", "solving quick", "solving multiprocessing")


def forks(ground: Ground, children: int) -> Tally:
    """Child processes that inherit the observer: no event twice, none lost, nobody hangs."""
    tally = Tally("fork in a run")
    for kind in ground.databases():
        url = ground.fresh(kind)
        runs: dict[int, zygote.Child] = {}
        for seed, way in enumerate(WAYS, 1):
            runs[seed] = ground.zygote.start(
                "fork_inside", url=url, seed=seed, children=children, way=way
            )
        for seed, way in enumerate(WAYS, 1):
            ground.say(f"{kind}: {way}")
            tally.expect(f"{kind}: {way}: exit", runs[seed].end(), 0)
            tally.expect(f"{kind}: {way}: children that hang", len(runs[seed].heard("hung")), 0)
        total = audit.compare(url, runs, tally)
        audit.expect_all(total, tally, kind)
        tally.expect(f"{kind}: completed", total.statuses["COMPLETED"], len(WAYS))
        tally.expect(f"{kind}: faults in the database", audit.sound(url), [])
    return tally


def threads(ground: Ground, threads: int, solves: int) -> Tally:
    """Threads that record at once, and runs at once in one process."""
    from db import Store

    tally = Tally("threads of a run, and runs at once in one process")
    for kind in ground.databases():
        ground.say(f"{kind}: {threads} threads")
        url = ground.fresh(kind)
        child = ground.zygote.start(
            "threads_inside", url=url, seed=1, threads=threads, solves=solves
        )
        tally.expect(f"{kind}: threads: exit", child.end(), 0)
        store = Store(url)
        found = store.query("select ord, outer_step from solve order by ord")
        tally.expect(f"{kind}: solves of threads", len(found), threads * solves)
        tally.expect(
            f"{kind}: places of solves, without gap or repetition",
            list(found["ord"]) == list(range(threads * solves)), True,
        )  # fmt: skip
        tally.expect(
            f"{kind}: each solve of each thread once",
            sorted(found["outer_step"]) == list(range(threads * solves)), True,
        )  # fmt: skip
        points = store.query(
            "select name, count(*) as n, sum(value) as total from point "
            "join series on series.id = series_id group by name"
        )
        tally.expect(f"{kind}: series", len(points), threads)
        whole = {(solves, solves * (solves - 1) / 2)}
        tally.expect(
            f"{kind}: points of every series", set(zip(points["n"], points["total"], strict=True)),
            whole,
        )  # fmt: skip
        ground.say(f"{kind}: 8 runs at once")
        url = ground.fresh(kind)
        seeds = list(range(1, 9))
        child = ground.zygote.start("runs_at_once", url=url, seeds=seeds, solves=30)
        tally.expect(f"{kind}: runs at once: exit", child.end(), 0)
        runs = audit.held(url)
        tally.expect(f"{kind}: runs at once", sorted(runs), seeds)
        for seed, (run, *more) in runs.items():
            whole_run = (
                run.row["status"], run.solves, run.points, run.wrong, len(more)
            ) == (
                "COMPLETED", list(range(30)),
                {"loss": list(range(30)), "half": list(range(30))}, [], 0,
            )  # fmt: skip
            tally.expect(f"{kind}: run {seed} is whole", whole_run, True)
    return tally
