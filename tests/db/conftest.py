import pytest
import toy

from db import Store


@pytest.fixture
def url(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A filled store, to read from."""
    url = tmp_path_factory.mktemp("demo") / "store.db"
    toy.fill(url)
    return Store(url)
