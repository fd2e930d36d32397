"""Disks that fill up or cannot be written: the run goes on, or is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import audit
from ground import Ground
from tally import Tally

# What may be: refused in a sentence, or else every event stored; "kept" where that is not promised.
REFUSED = {
    "full at the start", "read-only at the start", "read-only at the start, journal elsewhere",
    "directory without permission",
}  # fmt: skip
MAY_LOSE = {"full to the end", "no larger files"}  # no room anywhere: what is stored is whole
SHORT = {
    "full for a while", "full at the start", "directory without permission",
    "journal full to the end",
}  # fmt: skip


def trial(ground: Ground, short: bool) -> Tally:
    """Every case of ``disks``; those of PostgreSQL put only the journal on the bad disk."""
    from disks import CASES

    tally = Tally("disks that are full, read-only, forbidden")
    started = {}
    for name, kinds in CASES.items():
        for kind in kinds.split():
            if kind not in ground.databases() or (short and name not in SHORT):
                continue
            seed = len(started) + 1
            folder = ground.new("disk")
            keep = folder / "kept.db"
            (folder / "disk").mkdir()
            url = "" if kind == "sqlite" else ground.fresh(kind)
            child = ground.zygote.start(
                "disk", name=name, url=url, seed=seed, place=str(folder / "disk"), keep=str(keep)
            )
            started[seed] = (name, kind, child, url or str(keep))
            if len(started) % 2 == 0:  # two at once
                child.end()
    for seed, (name, kind, child, url) in started.items():
        ground.say(f"{kind}: {name}")
        code = child.end()
        title = f"{kind}: {name}"
        if child.heard("unavailable"):
            tally.note(f"{title}: not tried, this system lets us mount nothing", 0)
            continue
        facts = child.heard("facts")
        tally.expect(f"{title}: exit", code, 0)
        if not facts:
            tally.expect(f"{title}: told", child.said()[-600:], "facts")
            continue
        tally.expect(f"{title}: raised in the run", child.heard("raised"), [])
        refused = child.heard("refused")
        if refused:
            tally.note(f"{title}: refused", refused[0])
            tally.expect(f"{title}: may be refused", name in REFUSED, True)
            tally.expect(f"{title}: sentences of one line", refused[0].count("\n"), 0)
        else:
            tally.expect(f"{title}: the run went on", child.heard("ran"), [True])
        tally.expect(f"{title}: journals left", facts[0].get("left", facts[0].get("sync")), [])
        tally.expect(f"{title}: the run after it", facts[0].get("next"), ["COMPLETED"])
        if not Path(url).exists() and kind == "sqlite":
            tally.expect(f"{title}: no store is there", bool(refused), True)
            tally.expect(
                f"{title}: files that the refusal left, and not empty", facts[0]["files"], []
            )
            continue
        total = audit.compare(url, {seed: child}, tally)
        lost = total.lost
        if name in MAY_LOSE:
            tally.note(f"{title}: events lost, there was room nowhere", total.lost)
            total.untrue = 0
        else:
            tally.expect(f"{title}: events lost of {total.events}", lost, 0)
            ends = {} if refused else {"COMPLETED": 1}
            tally.expect(f"{title}: ends", dict(total.statuses), ends)
        for what in ("twice", "doubled", "gaps", "wrong", "unended", "untrue"):
            if getattr(total, what):
                tally.expect(f"{title}: {what}", getattr(total, what), 0)
        tally.expect(f"{title}: faults in the database", audit.sound(url), [])
    return tally
