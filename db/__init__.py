"""The store: every run, solve and gradient check in one SQL database.

Two ways in, one database behind one URL:

* writing: ``RunObserver(url)``, one instance a run, given to Sacred as an observer;
* reading: ``Store(url)``, which gives pandas frames and never writes.

Tables are in ``db/schema.py``, the views that questions are asked to in ``db/views``. All that goes
wrong with a store is a ``StoreError`` whose message says what to do.
"""

from typing import TYPE_CHECKING, Any

from db.errors import StoreAway, StoreError
from db.liveness import mark_died, reap
from db.store import Store, connect, default_url
from db.sync import sync

if TYPE_CHECKING:
    from db.observer import RunObserver

__all__ = [
    "RunObserver", "Store", "StoreAway", "StoreError",
    "connect", "default_url", "mark_died", "reap", "sync",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Reading a store should not wait for Sacred, whose import takes most of a second.
    if name == "RunObserver":
        from db.observer import RunObserver

        return RunObserver
    raise AttributeError(f"module 'db' has no attribute {name!r}")
