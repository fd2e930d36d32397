"""Sacred's traps, and signals."""

from __future__ import annotations

import signal
import time

import audit
from ground import Ground
from tally import Tally


def trial(ground: Ground, every: int = 1) -> Tally:
    """Every n-th trap on each database."""
    tally = Tally("Sacred's traps")
    for number, kind in enumerate(ground.databases()):
        ground.say(f"{kind}: traps")
        first = (ground.random("traps").randrange(every) + number) % every
        child = ground.zygote.start("traps", url=ground.fresh(kind), every=every, first=first)
        code = child.end(240)
        faults = child.heard("faults")[0] if child.heard("faults") else {"all": child.said()}
        wrong = {name: fault for name, fault in faults.items() if fault}
        for name, fault in wrong.items():
            tally.detail(f"{kind}: {name}: {fault}")
        tally.note(f"{kind}: traps", len(faults))
        tally.expect(f"{kind}: exit", code, 0)
        tally.expect(f"{kind}: traps that caught us", list(wrong), [])
    return tally


ENDS = {  # the deed, what it is told, the signal, the status
    "SIGINT": ("signalled", "wait", signal.SIGINT, "INTERRUPTED"),
    "SIGINT while it records": ("signalled", "busy", signal.SIGINT, "INTERRUPTED"),
    "SIGTERM": ("signalled", "wait", signal.SIGTERM, "DIED"),  # without a handler nobody hears it
    "SIGTERM, attached": ("attached", "", signal.SIGTERM, "TERMINATED"),
    "SIGINT, attached": ("attached", "", signal.SIGINT, "INTERRUPTED"),
    "sys.exit(0)": ("signalled", "sys.exit", None, "FAILED"),
    "os._exit(3)": ("signalled", "os._exit", None, "DIED"),
}


def signals(ground: Ground, impatient: bool = True) -> Tally:
    """What ends a run from outside; and impatience while the database is away."""
    from db.sync import sync

    tally = Tally("signals and exits")
    for kind in ground.databases():
        url = ground.fresh(kind)
        children = {}
        for seed, (name, (deed, way, number, _)) in enumerate(ENDS.items(), 1):
            more = {"way": way} if deed == "signalled" else {}
            children[name] = child = ground.zygote.start(deed, url=url, seed=seed, **more)
            ground.say(f"{kind}: {name}")
            if number is not None:
                child.wait_for_word("ready")
                child.kill(number)
        for child in children.values():
            child.end()
        sync(url)
        stored = audit.held(url)
        for seed, (name, (_, way, _, status)) in enumerate(ENDS.items(), 1):
            found = [run.row["status"] for run in stored.get(seed, [])]
            tally.expect(f"{kind}: {name}", found, [status])
            if way:
                lost = set(children[name].heard("solve")) - set(stored[seed][0].solves)
                tally.expect(f"{kind}: {name}: solves lost", len(lost), 0)
    if ground.server is not None and impatient:
        ground.say("postgresql: ctrl-C twice while the server is away")
        url = ground.fresh("postgresql")
        child = ground.zygote.start("signalled", url=url, seed=1, way="busy")
        child.wait_for_word("ready")
        ground.server.stop(signal.SIGINT)
        time.sleep(0.3)
        for _ in range(3):  # the run; its end, which waits; the end of the process, which waits
            child.kill(signal.SIGINT)
            time.sleep(0.7)
        child.end(20)
        ground.server.start()
        sync(url)
        total = audit.compare(url, {1: child}, tally)
        tally.expect("away: events lost", total.lost, 0)
        tally.expect("away: ends", dict(total.statuses), {"INTERRUPTED": 1})
    return tally
