from collections.abc import Iterator

import large
import postgres
import pytest
import toy

from db import Store


@pytest.fixture
def url(tmp_path):
    """A place for a store in a file."""
    return tmp_path / "store.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of our own; tests that want one are skipped without its programs."""
    pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs: install them, or set DEQ_POSTGRES_BIN")
    with postgres.server(programs) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path):
    """A place for a store in each kind of database."""
    if request.param == "sqlite":
        return tmp_path / "store.db"
    return request.getfixturevalue("postgres_server").fresh()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A filled store in a file, to read from."""
    url = tmp_path_factory.mktemp("demo") / "store.db"
    toy.fill(url)
    return Store(url)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest) -> Store:
    """A filled store of each kind, to read from."""
    if request.param == "sqlite":
        store: Store = request.getfixturevalue("demo")
        return store
    url = request.getfixturevalue("postgres_server").fresh()
    toy.fill(url)
    return Store(url)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A study of 200 runs in a store of each kind, to read from: see ``large.py``."""
    if request.param == "sqlite":
        url = str(tmp_path_factory.mktemp("grid") / "store.db")
    else:
        url = request.getfixturevalue("postgres_server").fresh()
    large.build(url, runs=200, points=20)
    return Store(url)
