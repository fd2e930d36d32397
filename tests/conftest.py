"""What all tests share: one thread, so that two workers do not fight, and a fixed seed."""

import os
import sys
from collections.abc import Iterator

import pytest

# Read by torch when it is first imported, here and in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    """Undo what an earlier test set; tests without torch do not pay for its import."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
    yield
