"""A PostgreSQL server that goes away in the middle of runs, and comes back or does not."""

from __future__ import annotations

import signal
import time

import audit
from ground import Ground
from tally import Tally

RUNS = 2  # at once
SECONDS = 1.2  # that a run takes when nothing goes wrong


def trial(ground: Ground, restarts: int) -> Tally:
    """Stop and start the server at random moments; then every event is there once."""
    from db.sync import sync

    tally = Tally(f"PostgreSQL stopped and restarted in mid-run at {restarts} random moments")
    server = ground.server
    if server is None:
        tally.note("skipped: no PostgreSQL on this machine", 0)
        return tally
    chance = ground.random("restarts")
    url = ground.fresh("postgresql")
    children = {}
    away_at_end = synced = 0
    for number in range(restarts):
        how = chance.choice([signal.SIGINT, signal.SIGQUIT])
        # every fourth stays away until the runs are over, every fifth is down before they start
        stays_away, away_at_start = number % 4 == 3, number % 5 == 4
        ground.say(f"restart {number + 1} of {restarts} ({how.name})")
        if away_at_start:
            server.stop(how)
        mine = {}
        for _ in range(RUNS):
            seed = len(children) + 1
            mine[seed] = children[seed] = ground.zygote.start(
                "work", url=url, seed=seed, solves=60, pause=SECONDS / 60, patience=2.0
            )
        for child in mine.values():
            child.wait_for_word("begun")
        time.sleep(chance.uniform(0.0, SECONDS + 0.2))
        if not away_at_start:
            server.stop(how)
        if stays_away:
            away_at_end += 1
            for child in mine.values():
                child.end(120)
            server.start()
            synced += sync(url).events
        else:
            time.sleep(chance.uniform(0.0, 0.8))
            server.start()
            for child in mine.values():
                child.end(120)
    done = sync(url)
    tally.note("stopped until after the end", away_at_end)
    tally.note("events that sync brought after the end", synced + done.events)
    tally.expect("processes that did not end well", sum(c.end() != 0 for c in children.values()), 0)
    total = audit.compare(url, children, tally)
    audit.expect_all(total, tally, "postgresql")
    tally.expect("completed", total.statuses["COMPLETED"], restarts * RUNS)
    before = audit.fingerprint(url)
    sync(url)
    tally.expect("tables that a second sync changes", _changed(before, audit.fingerprint(url)), [])
    return tally


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in before if before[name] != after[name]]
