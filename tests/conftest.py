"""What all tests share: one thread, so that two workers do not fight, and a fixed seed."""

import os
import sys
from collections.abc import Iterator

import pytest

# Read by torch when it is first imported, here and in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals of runs on test servers are no business of the user's home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("DEQ_JOURNAL", raising=False)
        yield


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    """Undo what an earlier test set; tests without torch do not pay for its import."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
    yield
