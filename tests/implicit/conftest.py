import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def only_what_a_module_makes() -> Iterator[None]:
    """Leave what other tests have made out of collections and of counts of what is alive.

    By the end of a suite that is a million objects, and going through them took most of the time of
    the tests that look for leaks.
    """
    gc.freeze()
    yield
    gc.unfreeze()
