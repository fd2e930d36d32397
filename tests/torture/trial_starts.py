"""Processes that start together on a database that is not there yet."""

from __future__ import annotations

import time

import audit
from ground import Ground
from tally import Tally

TOGETHER = 8


def trial(ground: Ground, rounds: int, solves: int, peer_rounds: int) -> Tally:
    """Every run and every point of all of them, on each database; Sacred's own beside it."""
    tally = Tally(f"{TOGETHER} processes start together on a fresh database, {rounds} rounds")
    for kind in ground.databases():
        total = audit.Sum()
        for number in range(rounds):
            ground.say(f"{kind}: round {number + 1} of {rounds}")
            url = ground.fresh(kind)
            gate = time.time() + 0.15
            children = {
                seed: ground.zygote.start("work", url=url, seed=seed, solves=solves, gate=gate)
                for seed in range(1, TOGETHER + 1)
            }
            codes = [child.end() for child in children.values()]
            total.untrue += sum(code != 0 for code in codes)
            found = audit.compare(url, children, tally)
            for name in ("missing", "twice", "lost", "doubled", "gaps", "wrong", "events"):
                setattr(total, name, getattr(total, name) + getattr(found, name))
            total.untrue += found.untrue
            total.unended += found.unended
            total.statuses += found.statuses
            total.wrong += len(audit.sound(url))
        tally.expect(f"{kind}: runs", total.statuses.total(), rounds * TOGETHER)
        tally.expect(f"{kind}: completed", total.statuses["COMPLETED"], rounds * TOGETHER)
        # a gradient for every third solve, two series
        each = solves + (solves + 2) // 3 + 2 * solves
        tally.expect(f"{kind}: events told", total.events, rounds * TOGETHER * each)
        audit.expect_all(total, tally, kind)
        if peer_rounds:
            tally.note(
                f"{kind}: runs that Sacred's SqlObserver records of {peer_rounds * TOGETHER}",
                sum(_sacred(ground, kind, n) for n in range(peer_rounds)),
            )
    return tally


def _sacred(ground: Ground, kind: str, number: int) -> int:
    """How many of the runs that start together are COMPLETED in Sacred's own tables."""
    import sqlalchemy

    ground.say(f"{kind}: Sacred's own observer, round {number + 1}")
    url = ground.fresh(kind)
    url = f"sqlite:///{url}" if kind == "sqlite" else url.replace("://", "+psycopg://", 1)
    gate = time.time() + 0.15
    children = [
        ground.zygote.start("sacred_starts", url=url, seed=seed, gate=gate)
        for seed in range(1, TOGETHER + 1)
    ]
    for child in children:
        child.end()
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql(
                "select count(distinct run_id) from run where status = 'COMPLETED'"
            ).scalar_one()
    except sqlalchemy.exc.DBAPIError:
        return 0
    finally:
        engine.dispose()
