"""What program ran: real git repositories of every kind, and files that are not as they were."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db import provenance
from db.machine import process
from db.provenance import code, keep, without_secrets


def git(folder: Path, *words: str) -> str:
    identity = {
        f"GIT_{who}_{what}": text
        for who in ("AUTHOR", "COMMITTER")
        for what, text in (("NAME", "a"), ("EMAIL", "a@example.org"))
    }
    answer = subprocess.run(
        ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *words],
        env={**os.environ, **identity},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No answer of git is remembered, and no settings of this machine count."""
    monkeypatch.setattr(provenance, "FRESH", -1.0)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit of main.py."""
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "main.py").write_text("print(1)\n")
    git(folder, "add", "main.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def info(folder: Path, *names: str, digest: str | None = None) -> dict[str, object]:
    """What Sacred says of a program of these files."""
    files = names or ("main.py",)
    return {
        "name": "mine",
        "base_dir": str(folder),
        "mainfile": files[0],
        "sources": [(name, digest) for name in files],
    }


def test_a_clean_checkout(checkout: Path) -> None:
    columns, contents = code(info(checkout))
    sha256 = hashlib.sha256(b"print(1)\n").hexdigest()
    assert columns == {
        "mainfile": "main.py",
        "base_dir": str(checkout),
        "sources": {"main.py": sha256},
        "repository": f"file://{checkout}",
        "commit_id": git(checkout, "rev-parse", "HEAD"),
        "dirty": 0,
        "diff": None,
    }
    assert contents == {sha256: b"print(1)\n"}


def test_the_difference_to_the_commit_can_be_applied(checkout: Path, tmp_path: Path) -> None:
    binary = bytes(range(256))
    (checkout / "main.py").write_text("print(2)\n")
    (checkout / "data.bin").write_bytes(binary)
    (checkout / "odd näme.txt").write_text("more\n")
    git(checkout, "add", "data.bin", "odd näme.txt")
    (checkout / "notes.txt").write_text("not tracked, no source: not the program\n")
    (checkout / "helper.py").write_text("not tracked, but a source\n")
    columns, contents = code(info(checkout, "main.py", "helper.py"))
    assert columns["dirty"] == 1
    text = contents[columns["diff"]]
    assert hashlib.sha256(text).hexdigest() == columns["diff"]
    assert text.splitlines()[0].endswith(b"sources of the run: helper.py")
    assert b"notes.txt" not in text
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(checkout), str(other))
    (tmp_path / "changes.diff").write_bytes(text)
    git(other, "apply", str(tmp_path / "changes.diff"))
    assert (other / "main.py").read_text() == "print(2)\n"
    assert (other / "data.bin").read_bytes() == binary
    assert (other / "odd näme.txt").read_text() == "more\n"


def test_a_source_that_is_not_tracked_makes_the_program_another(checkout: Path) -> None:
    (checkout / "new.py").write_text("new\n")
    columns, contents = code(info(checkout, "new.py"))
    assert columns["commit_id"] == git(checkout, "rev-parse", "HEAD")
    assert columns["dirty"] == 1
    assert b"new.py" in contents[columns["diff"]]
    assert code(info(checkout))[0]["dirty"] == 0


def test_settings_and_variables_of_git_do_not_change_the_answer(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "main.py").write_text("print(3)\n")
    plain = code(info(checkout))[0]
    ran = tmp_path / "ran"
    script = tmp_path / "spy.sh"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    for key, value in (
        ("diff.noprefix", "true"),
        ("color.ui", "always"),
        ("diff.external", str(script)),
        ("core.fsmonitor", str(script)),
        ("core.pager", str(script)),
        ("status.relativePaths", "false"),
    ):
        git(checkout, "config", key, value)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(script))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in a hook of git
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    assert code(info(checkout))[0] == plain
    assert not ran.exists()


def test_asking_changes_nothing_in_the_checkout(checkout: Path) -> None:
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    os.utime(checkout / "main.py", (1, 1))  # git would like to note the new time
    code(info(checkout))
    assert index.read_bytes() == before


def test_a_huge_difference_is_cut_and_says_so(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "LARGEST_DIFF", 10_000)
    (checkout / "main.py").write_text("".join(f"print({n})\n" for n in range(20_000)))
    columns, contents = code(info(checkout))
    text = contents[columns["diff"]]
    assert columns["dirty"] == 1
    assert len(text) < 10_500
    assert text.startswith(b"diff --git a/main.py b/main.py")
    body, _, note = text.rpartition(b"\n# cut: ")
    assert body.endswith(b")\n")  # whole lines
    assert b"10000 bytes" in note
    assert note.endswith(b"the files that differ: main.py\n")


def test_a_git_that_hangs_is_not_waited_for(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "PATIENCE", 0.2)
    began = time.monotonic()
    columns, contents = code(info(checkout))
    assert time.monotonic() - began < 30  # a minute for each question if it were
    assert columns["commit_id"] is None
    assert len(contents) == 1  # the source all the same


def test_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    columns, _ = code(info(checkout))
    assert columns["sources"]
    assert [columns[c] for c in ("repository", "commit_id", "dirty", "diff")] == [None] * 4


def test_outside_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    columns, contents = code(info(tmp_path))
    assert [columns[c] for c in ("repository", "commit_id", "dirty", "diff")] == [None] * 4
    assert list(contents.values()) == [b""]


def test_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "main.py").write_text("")
    git(tmp_path, "add", "main.py")
    columns, _ = code(info(tmp_path))
    assert columns["commit_id"] is None
    assert columns["dirty"] == 1
    assert columns["repository"] == f"file://{tmp_path}"


def test_a_worktree_and_a_submodule_are_checkouts_of_their_own(
    checkout: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tree))
    (tree / "more.py").write_text("more\n")
    git(tree, "add", "more.py")
    git(tree, "commit", "-q", "-m", "second")
    assert code(info(tree))[0]["commit_id"] == git(tree, "rev-parse", "other")
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    (outer / "run.py").write_text("run\n")
    git(outer, "submodule", "--quiet", "add", str(checkout), "inner")
    git(outer, "add", ".")
    git(outer, "commit", "-q", "-m", "outer")
    inner = code(info(outer / "inner"))[0]
    assert inner["commit_id"] == git(checkout, "rev-parse", "main")
    assert inner["repository"] == str(checkout)
    assert code(info(outer, "run.py"))[0]["commit_id"] == git(outer, "rev-parse", "HEAD")
    (outer / "inner" / "main.py").write_text("changed\n")
    columns, contents = code(info(outer, "run.py"))
    assert columns["dirty"] == 1
    assert b"-dirty" in contents[columns["diff"]]


def test_a_program_installed_inside_of_a_checkout_is_no_part_of_it(checkout: Path) -> None:
    place = checkout / ".venv" / "lib" / "site-packages" / "theirs"
    place.mkdir(parents=True)
    (place / "main.py").write_text("theirs\n")
    assert code(info(place))[0]["commit_id"] is None
    ignored = checkout / "build"
    ignored.mkdir()
    (ignored / "main.py").write_text("made\n")
    (checkout / ".gitignore").write_text("build/\n")
    assert code(info(ignored))[0]["commit_id"] is None
    # but the file of the user's that it was given is
    (checkout / "model.py").write_text("mine\n")
    assert code(info(place, "main.py", "../../../../model.py"))[0]["commit_id"] is not None


def test_a_program_without_a_file_is_of_the_working_directory(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"name": "notebook", "base_dir": str(checkout), "sources": []}
    commit = git(checkout, "rev-parse", "HEAD")
    assert code(nothing, cwd=checkout)[0]["commit_id"] == commit
    monkeypatch.chdir(checkout)
    assert code(nothing)[0]["commit_id"] == commit


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://secret@example.org/a", "https://example.org/a"),
        ("https://example.org:8443/a?private_token=secret#secret", "https://example.org:8443/a"),
        ("ssh://git:secret@example.org:22/a", "ssh://git@example.org:22/a"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("postgresql://me:secret@host/runs", "postgresql://me@host/runs"),
        ("https://me:secret@[bad/a", "https://"),
    ],
)
def test_a_url_is_stored_without_its_secrets(checkout: Path, url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    git(checkout, "remote", "add", "origin", url)
    columns, contents = code(info(checkout))
    assert columns["repository"] == shown
    assert b"secret" not in repr((columns, contents)).encode()


def test_what_was_imported_counts_and_not_what_is_there_now(tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text("old\n")
    old = keep(file)
    assert old == hashlib.md5(b"old\n").hexdigest()
    file.write_text("new\n")
    columns, contents = code(info(tmp_path, digest=old))
    assert list(contents.values()) == [b"old\n"]
    file.unlink()
    assert code(info(tmp_path, digest=old))[0] == columns
    # of a content that nobody kept, only the name by which Sacred knows it
    other = hashlib.md5(b"neither\n").hexdigest()
    columns, contents = code(info(tmp_path, digest=other))
    assert columns["sources"] == {"main.py": other}
    assert contents == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    (tmp_path / "main.py").chmod(0)
    assert code(info(tmp_path))[0]["sources"] == {"main.py": None}


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    names = ("gone.py", "folder.py", "loop.py", "nul\0.py", "x" * 5000)
    columns, contents = code(info(tmp_path, *names))
    assert set(columns["sources"].values()) == {None}
    assert len(columns["sources"]) == len(names)
    assert contents == {}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"sources": None},
        {"sources": [("a",)]},
        {"sources": 3},
        {"mainfile": 3, "base_dir": b"x"},
        {"mainfile": "\ud800.py", "base_dir": "/\ud800"},
    ],
)
def test_nothing_raises(
    odd: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns, contents = code(odd)
    assert {"mainfile", "sources", "commit_id", "diff"} <= set(columns)
    assert contents == {}
    repr(columns).encode()  # no surrogates


def test_a_source_that_is_too_large_is_known_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "LARGEST_SOURCE", 10)
    (tmp_path / "main.py").write_text("x" * 11)
    columns, contents = code(info(tmp_path))
    assert columns["sources"] == {"main.py": hashlib.sha256(b"x" * 11).hexdigest()}
    assert contents == {}


def test_git_is_not_asked_again_at_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "FRESH", 1000.0)
    first = code(info(checkout))
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    assert code(info(checkout)) == first
    monkeypatch.setattr(provenance, "FRESH", -1.0)
    assert code(info(checkout))[0]["commit_id"] != first[0]["commit_id"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_known_by_its_namespace_too() -> None:
    here = process({})
    assert here["pid_space"] == os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    assert here["pid"] == os.getpid()
