"""Processes that are killed at random moments, and at every statement that they make."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import audit
import zygote
from ground import Ground
from tally import Tally

SOLVES = 60
SECONDS = 0.6  # that a run takes
STREAMS = 3  # children at once


def random_moments(ground: Ground, kills: int) -> Tally:
    """Kill at random moments of start, middle and end; with PostgreSQL, also while it is away."""
    from db.sync import sync

    tally = Tally(f"kill -9 at {kills} random moments on each database, then sync twice")
    for kind in ground.databases():
        url = ground.fresh(kind)
        children: dict[int, zygote.Child] = {}
        lock = threading.Lock()
        failures: list[BaseException] = []

        def stream(  # noqa: PLR0917
            number: int, share: int, kind=kind, url=url, children=children, lock=lock,
            failures=failures,
        ):  # fmt: skip
            chance = ground.random(f"kills {kind} {number}")
            try:
                for turn in range(share):
                    with lock:
                        seed = len(children) + 1
                        children[seed] = child = ground.zygote.start(
                            "work", url=url, seed=seed, solves=SOLVES, pause=SECONDS / SOLVES,
                            small=bool(seed % 2),
                        )  # fmt: skip
                    ground.say(f"{kind}: kill {seed} of {kills}")
                    _kill(child, ("start", "middle", "end")[turn % 3], chance)
            except BaseException as error:
                failures.append(error)

        away = 0
        if kind == "postgresql":  # first some while the server is away, one after the other
            assert ground.server is not None
            stream(STREAMS, min(3, kills))
            while away < kills // 5:
                chance = ground.random(f"kills away {away}")
                pair = {}
                for _ in range(2):
                    seed = len(children) + 1
                    pair[seed] = children[seed] = ground.zygote.start(
                        "work", url=url, seed=seed, solves=SOLVES, pause=SECONDS / SOLVES
                    )
                ground.say(f"{kind}: kill {len(children)} of {kills}, the server away")
                for child in pair.values():
                    child.wait_for_word("solve", chance.randrange(1, SOLVES // 2))
                ground.server.stop(chance.choice([signal.SIGINT, signal.SIGQUIT]))
                time.sleep(chance.uniform(0, 0.3))
                for child in pair.values():
                    child.kill()
                    child.end()
                    away += 1
                ground.server.start()
        rest = max(0, kills - len(children))
        shares = [rest // STREAMS + (n < rest % STREAMS) for n in range(STREAMS)]
        threads = [
            threading.Thread(target=stream, args=(n, shares[n]), daemon=True)
            for n in range(STREAMS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        killed = sum(child.end() == -signal.SIGKILL for child in children.values())
        first = sync(url)
        before = audit.fingerprint(url)
        second = sync(url)
        tally.expect(f"{kind}: processes", len(children), kills)
        tally.note(f"{kind}: killed before their end", killed)
        tally.note(f"{kind}: killed with the database away", away)
        tally.note(f"{kind}: events and runs that sync brought", (first.events, len(first.runs)))
        tally.expect(f"{kind}: problems that sync reports", first.problems, type(first.problems)())
        for path in second.left:  # killed before its first line: it might be a run that begins now
            os.utime(path, (0, 0))
        left = [str(path) for path in sync(url).left]
        tally.expect(f"{kind}: journals left", left, [])
        changed = [n for n, d in audit.fingerprint(url).items() if d != before[n]]
        tally.expect(f"{kind}: tables that the second sync changes", changed, [])
        audit.expect_all(audit.compare(url, children, tally), tally, kind)
        tally.expect(f"{kind}: faults in the database", audit.sound(url), [])
    return tally


def _kill(child: zygote.Child, when: str, chance) -> None:
    """Kill a child in one part of its run, and wait for its end."""
    if when == "start":
        child.wait_for_word("begun")
        time.sleep(chance.uniform(0.0, 0.15))
    elif when == "middle":
        child.wait_for_word("solve", chance.randrange(1, SOLVES))
        time.sleep(chance.uniform(0.0, 0.02))
    else:
        child.wait_for_word("worked")
        time.sleep(chance.uniform(0.0, 0.25))
    child.kill()
    child.end()


def every_statement(ground: Ground, most: int | None) -> Tally:
    """Kill at each SQL statement and each commit that a run makes (or at ``most`` of them)."""
    from db import Store
    from db.sync import sync

    tally = Tally("kill -9 at every statement and commit of a run, then sync")
    for kind in ground.databases():
        url = ground.fresh(kind)
        chance = ground.random(f"statements {kind}")
        children: dict[int, zygote.Child] = {}
        alive_at_end = 0
        for what in ("statement that makes the store", "commit", "statement"):
            commit = what == "commit"
            # where it ends is not known: go on until a whole batch of runs is not reached
            places = iter(range(1, 400, 1 if commit or what == "statement" else 5))
            if most:
                places = iter(sorted(chance.sample(range(1, 10 if commit else 40), most)))
            while batch := list(itertools.islice(places, STREAMS)):
                pair = {}
                for at in batch:
                    seed = len(children) + 1
                    pair[seed] = children[seed] = ground.zygote.start(
                        "kill_at_statement", url=url, seed=seed, at=at, commit=commit
                    )
                ground.say(f"{kind}: {what} {batch[-1]}")
                ended = sum(child.end() == 0 for child in pair.values())
                alive_at_end += ended
                if ended == len(batch) and not most:
                    break
            Store(url, create=True)
        sync(url)
        before = audit.fingerprint(url)
        sync(url)
        changed = [n for n, d in audit.fingerprint(url).items() if d != before[n]]
        tally.note(f"{kind}: processes", len(children))
        tally.note(f"{kind}: of them not reached by the kill", alive_at_end)
        tally.expect(f"{kind}: tables that the second sync changes", changed, [])
        audit.expect_all(audit.compare(url, children, tally), tally, kind)
        tally.expect(f"{kind}: faults in the database", audit.sound(url), [])
    return tally


def syncs_that_meet(ground: Ground, rounds: int) -> Tally:
    """Syncs beside runs, beside each other, and killed in the middle: nothing doubled or lost."""
    from db.sync import sync

    tally = Tally("syncs beside living runs, beside each other, and killed in the middle")
    for kind in ground.databases():
        url = ground.fresh(kind)
        chance = ground.random(f"syncs {kind}")
        children: dict[int, zygote.Child] = {}
        killed = 0
        failed: list[str] = []
        for number in range(rounds):
            ground.say(f"{kind}: round {number + 1} of {rounds}")
            mine = {}
            if kind == "postgresql" and ground.server is not None:
                ground.server.stop(signal.SIGQUIT)  # so that the journals are full
            storm = ground.zygote.start("storm", url=url, seconds=2.0) if children else None
            for _ in range(3):
                seed = len(children) + 1
                mine[seed] = children[seed] = ground.zygote.start(
                    "work", url=url, seed=seed, solves=SOLVES, pause=SECONDS / SOLVES,
                    small=bool(seed % 2),
                )  # fmt: skip
            kill, *live = mine.values()
            kill.wait_for_word("solve", chance.randrange(5, SOLVES // 2))
            kill.kill()
            if kind == "postgresql" and ground.server is not None:
                ground.server.start()
            kill.end()
            syncs = [ground.zygote.start("sync", url=url) for _ in range(3)]
            syncs[0].wait_for_word("begun")
            time.sleep(chance.uniform(0.0, 0.1))
            killed += not syncs[0].heard("synced")
            syncs[0].kill()
            more = [storm] if storm else []
            for child in (*syncs, *live, *more):
                child.end()
            away = "cannot be reached" if kind == "postgresql" else "\0"
            failed += [
                c.said()[-300:] for c in (*syncs[1:], *live, *more)
                if c.end() != 0 and away not in c.said()
            ]  # fmt: skip
        sync(url)
        before = audit.fingerprint(url)
        done = sync(url)
        changed = [n for n, d in audit.fingerprint(url).items() if d != before[n]]
        tally.expect(f"{kind}: syncs and runs that failed", failed, [])
        tally.note(f"{kind}: syncs killed in the middle", killed)
        for path in done.left:  # as above
            os.utime(path, (0, 0))
        left = [str(path) for path in sync(url).left]
        tally.expect(f"{kind}: journals left", left, [])
        tally.expect(f"{kind}: tables that another sync changes", changed, [])
        total = audit.compare(url, children, tally)
        audit.expect_all(total, tally, kind)
        tally.expect(f"{kind}: runs that died", total.statuses["DIED"], rounds)
        tally.expect(f"{kind}: completed", total.statuses["COMPLETED"], 2 * rounds)
    return tally


def torn_journals(ground: Ground, cuts: int) -> Tally:
    """Journals cut anywhere, as by a power cut, and with rubbish at the end: the rest is taken."""
    from db import journal
    from db.liveness import reap
    from db.sync import sync

    tally = Tally("torn journals")
    chance = ground.random("torn")
    url = ground.fresh("sqlite")
    left: list[str] = []
    holes: set[int] = set()
    children: dict[int, zygote.Child] = {}
    for number in range(cuts):
        ground.say(f"journal {number + 1} of {cuts}")
        child = ground.zygote.start(
            "work", url=url, seed=number + 1, solves=SOLVES, pause=SECONDS / SOLVES
        )
        children[number + 1] = child
        child.wait_for_word("solve", chance.randrange(3, 20))
        child.kill()
        child.end()
        for pending in journal.waiting(url):
            whole = pending.path.read_bytes()
            cut = chance.randrange(len(whole) + 1)
            tail = chance.choice([b"", b"", b"\0" * 50, b"[9, ", b"\xff\xfe rubbish\n", b"{}\n"])
            torn = whole[:cut] + tail
            if number % 3 == 2:  # a hole in the middle, which may take the start with it
                holes.add(number + 1)
                cut = chance.randrange(len(whole))
                torn = whole[:cut] + b"\0" * min(2000, len(whole) - cut) + whole[cut + 2000 :]
            pending.path.write_bytes(torn)
            os.utime(pending.path, (0, 0))  # no run that begins just now
        done = sync(url)
        left += [str(p) for p in done.left]
        reap(url)  # a journal whose first line is gone tells of no run
    tally.expect("journals left by sync", left, [])
    total = audit.Sum()
    for seed, runs in audit.held(url).items():
        total.twice += len(runs) > 1
        for run in runs:
            total.statuses[run.row["status"]] += 1
            total.unended += run.row["status"] not in audit.ENDED
            for numbers in (run.solves, run.gradients, *run.points.values()):
                total.doubled += len(numbers) - len(set(numbers))
                gap = sorted(set(numbers)) != list(range(len(set(numbers))))
                total.gaps += gap and seed not in holes
            # what lay in a hole is gone, and with it the solve of a gradient
            wrong = [w for w in run.wrong if not (seed in holes and w.endswith("of None"))]
            total.wrong += len(wrong)
            for text in wrong[:3]:
                tally.detail(f"run {seed}: {text}")
    audit.expect_all(total, tally, "sqlite")
    tally.expect("faults in the database", audit.sound(url), [])
    return tally
