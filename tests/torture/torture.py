"""The trials, one after the other: ``python tests/torture/torture.py [--only kills] [--seed 7]``.

Each says what it counted and what it should have. Chance comes from the seed, which is printed;
to give it again repeats what was drawn, though not what the machine made of it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import ground as grounds
import speeds
import trial_disks
import trial_forks
import trial_kills
import trial_restarts
import trial_starts
import trial_traps
import trial_values
from tally import Tally

Trial = Callable[[grounds.Ground], Tally]

LONG: dict[str, Trial] = {
    "starts": partial(trial_starts.trial, rounds=18, solves=100, peer_rounds=4),
    "restarts": partial(trial_restarts.trial, restarts=20),
    "kills": partial(trial_kills.random_moments, kills=100),
    "statements": partial(trial_kills.every_statement, most=None),
    "syncs": partial(trial_kills.syncs_that_meet, rounds=8),
    "torn": partial(trial_kills.torn_journals, cuts=20),
    "values": partial(trial_values.trial, peer=True),
    "disks": partial(trial_disks.trial, short=False),
    "traps": trial_traps.trial,
    "signals": trial_traps.signals,
    "forks": partial(trial_forks.forks, children=2),
    "threads": partial(trial_forks.threads, threads=8, solves=200),
    "speeds": partial(speeds.trial, scale=1.0),
}
SHORT: dict[str, Trial] = {
    "starts": partial(trial_starts.trial, rounds=1, solves=20, peer_rounds=0),
    "restarts": partial(trial_restarts.trial, restarts=2),
    "kills": partial(trial_kills.random_moments, kills=6),
    "statements": partial(trial_kills.every_statement, most=3),
    "syncs": partial(trial_kills.syncs_that_meet, rounds=1),
    "torn": partial(trial_kills.torn_journals, cuts=3),
    "values": partial(trial_values.trial, peer=False, every=8),
    "disks": partial(trial_disks.trial, short=True),
    "traps": partial(trial_traps.trial, every=4),
    "signals": partial(trial_traps.signals, impatient=False),
    "forks": partial(trial_forks.forks, children=1),
    "threads": partial(trial_forks.threads, threads=4, solves=50),
    "speeds": partial(speeds.trial, scale=0.02),
}


def seed_from(text: str | None) -> int:
    """The seed that was given, or one of today."""
    return int(text) if text else time.time_ns() % 1_000_000


def main() -> int:
    """Run them; 1 when a count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(LONG), help="these trials")
    parser.add_argument("--short", action="store_true", help="as `make test` runs them")
    parser.add_argument("--seed", type=int, default=seed_from(os.environ.get("TORTURE_SEED")))
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    trials = SHORT if given.short else LONG
    names = given.only or list(trials)
    terminal = sys.stderr.isatty()
    began = time.monotonic()

    def say(text: str) -> None:
        if terminal:
            print(f"\r\033[K  … {text}", end="", file=sys.stderr, flush=True)

    print(f"seed {given.seed}: to repeat, TORTURE_SEED={given.seed} or --seed {given.seed}")
    wrong = []
    with grounds.own_ground(given.seed, say, postgresql=not given.sqlite) as ground:
        if ground.server is None:
            print("no PostgreSQL here: SQLite only")
        for number, name in enumerate(names, 1):
            start, used = time.monotonic(), ground.zygote.processor
            try:
                tally = trials[name](ground)
                text, right = str(tally), tally.right
                title = tally.trial
            except Exception:
                title, text, right = "broke off", traceback.format_exc(), False
            if terminal:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            took = f"{time.monotonic() - start:.0f} s"
            took += f", {ground.zygote.processor - used:.0f} s of its processes' processor time"
            print(f"[{number}/{len(names)}] {name}: {title} ({took})")
            print(text, flush=True)
            if not right:
                wrong.append(name)
    print(
        f"{len(names)} trials in {time.monotonic() - began:.0f} s: "
        + (f"WRONG COUNTS in {', '.join(wrong)}" if wrong else "every count is right")
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
