"""Odd values in every place where a user can put one."""

from __future__ import annotations

from ground import Ground
from tally import Tally


def trial(ground: Ground, peer: bool, every: int = 1) -> Tally:
    """The right status and the same value read back; Sacred's own beside it."""
    tally = Tally("odd values")
    first = ground.random("values").randrange(every)
    for kind in ground.databases():
        ground.say(f"{kind}: odd values")
        child = ground.zygote.start(
            "odd_values", url=ground.fresh(kind), peer=False, every=every, first=first
        )
        child.end(300)
        faults = child.heard("faults")[0] if child.heard("faults") else {"all": child.said()}
        wrong = {name: fault for name, fault in faults.items() if fault}
        for name, fault in wrong.items():
            tally.detail(f"{kind}: {name}: {fault[-700:]}")
        tally.note(f"{kind}: cases", len(faults))
        tally.expect(f"{kind}: cases that fail", list(wrong), [])
        if not peer:
            continue
        ground.say(f"{kind}: odd values, Sacred's own observer")
        url = ground.fresh(kind)
        url = f"sqlite:///{url}" if kind == "sqlite" else url.replace("://", "+psycopg://", 1)
        child = ground.zygote.start("odd_values", url=url, peer=True)
        child.end(300)
        faults = child.heard("faults")[0] if child.heard("faults") else {}
        failed = [name for name, fault in faults.items() if fault]
        tally.note(
            f"{kind}: cases that fail with Sacred's SqlObserver", f"{len(failed)} of {len(faults)}"
        )
    return tally
