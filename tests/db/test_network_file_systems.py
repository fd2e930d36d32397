"""SQLite is not written on what machines share; what is away is told from what is wrong."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import releases
import sqlalchemy as sa
import toy

from db import Store, StoreError, dialects, mounts
from db.dialects import away
from db.errors import StoreAway
from db.store import connect
from db.upgrade import upgrade

LAPTOP = """\
22 29 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
29 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
31 29 0:26 / /tmp rw,nosuid,nodev shared:16 - tmpfs tmpfs rw,size=8g
95 29 8:1 / /boot/efi rw,relatime shared:47 - vfat /dev/sda1 rw
"""
CLUSTER = """\
21 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/root rw
60 21 0:49 / /home rw,relatime shared:30 - nfs4 filer:/export/home rw,vers=4.2,addr=10.0.0.2
61 60 253:3 / /home/ada/local rw,relatime shared:31 - xfs /dev/mapper/scratch rw
62 21 0:50 / /scratch rw,relatime shared:32 - lustre 10.0.0.3@o2ib:/scratch rw,flock
63 21 0:51 / /data rw,relatime - fuse.sshfs ada@host:/data rw,user_id=1000
64 21 0:52 / /fast rw,relatime - fuse.bindfs /dev/x rw
65 21 0:49 /ada/runs /bound rw,relatime shared:30 - nfs4 filer:/export/home rw,vers=4.2
66 21 253:0 /var/lib/x /elsewhere rw,relatime shared:1 - xfs /dev/mapper/root rw
67 21 0:53 / /my\\040share\\134x rw,relatime - cifs //server/share rw
68 21 0:54 / /homes rw,relatime - tmpfs tmpfs rw
69 21 0:55 / /na\303\257ve rw,relatime - smb3 //server/other rw
"""
CONTAINER = """\
710 650 0:61 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c
711 710 0:62 / /proc rw,nosuid - proc proc rw
712 710 0:63 / /home rw,relatime - 9p share rw,trans=virtio
713 710 0:64 / /shared rw,relatime - virtiofs shared rw
"""
# The root is no mount of its own: only parts of the table are seen from a changed root.
CHANGED_ROOT = """\
80 12 0:49 / /home rw - nfs filer:/home rw
81 80 8:1 / /home/here rw - ext4 /dev/sda1 rw
82 12 0:50 / /srv rw - ext4 /dev/sda2 rw
"""
# The later of two at one point counts, and hides what lay below the earlier.
STACKED = """\
1 0 0:1 / / rw - rootfs rootfs rw
30 1 8:1 / / rw - ext4 /dev/sda1 rw
31 30 0:40 / /a rw - ext4 /dev/sdb1 rw
32 31 0:41 / /a/b rw - nfs filer:/b rw
33 31 0:42 / /a rw - tmpfs tmpfs rw
34 30 0:43 / /c rw - tmpfs tmpfs rw
35 34 0:44 / /c rw - nfs filer:/c rw
"""
DAMAGED = (
    "\n\nnothing\n1 2 3\n5 x 0:1 / /y rw - nfs a b\n9 1 0:1 / / rw -\n40 1 8:1 / / rw - ext4 x rw"
)


@pytest.fixture
def table(tmp_path):
    """Write a table of mounts; gives its path."""

    def write(text):
        path = tmp_path / "mountinfo"
        path.write_bytes(text.encode("latin-1"))
        return path

    return write


@pytest.mark.parametrize(
    ("text", "path", "kind"),
    [
        (LAPTOP, "/home/ada/store.db", "ext4"),
        (LAPTOP, "/tmp/x/y/store.db", "tmpfs"),
        (LAPTOP, "/", "ext4"),
        (CLUSTER, "/home/ada/results/store.db", "nfs4"),
        (CLUSTER, "/home", "nfs4"),
        (CLUSTER, "/home/ada/local/store.db", "xfs"),
        (CLUSTER, "/home/ada/localised/store.db", "nfs4"),
        (CLUSTER, "/homes/store.db", "tmpfs"),
        (CLUSTER, "/home2/store.db", "xfs"),
        (CLUSTER, "/scratch/store.db", "lustre"),
        (CLUSTER, "/data/store.db", "fuse.sshfs"),
        (CLUSTER, "/fast/store.db", "fuse.bindfs"),
        (CLUSTER, "/bound/store.db", "nfs4"),
        (CLUSTER, "/elsewhere/store.db", "xfs"),
        (CLUSTER, "/my share\\x/store.db", "cifs"),
        (CLUSTER, "/my/store.db", "xfs"),
        (CLUSTER, "/naïve/store.db", "smb3"),
        (CONTAINER, "/results/store.db", "overlay"),
        (CONTAINER, "/home/store.db", "9p"),
        (CONTAINER, "/shared/store.db", "virtiofs"),
        (CHANGED_ROOT, "/home/ada/store.db", "nfs"),
        (CHANGED_ROOT, "/home/here/store.db", "ext4"),
        (CHANGED_ROOT, "/srv/store.db", "ext4"),
        (CHANGED_ROOT, "/opt/store.db", None),
        (STACKED, "/a/b/store.db", "tmpfs"),
        (STACKED, "/c/store.db", "nfs"),
        (STACKED, "/store.db", "ext4"),
        (DAMAGED, "/y/store.db", "ext4"),
        ("", "/store.db", None),
    ],
)
def test_the_mount_of_a_path(table, text, path, kind):
    found = mounts.find(path, table(text))
    assert (found.kind if found else None) == kind


@pytest.mark.parametrize(
    ("kind", "shared"),
    [(kind, True) for kind in (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.glusterfs",
        "fuse.sshfs", "lustre", "beegfs", "gpfs", "panfs", "orangefs", "fuse.rclone", "fuse.s3fs",
    )] + [(kind, False) for kind in (
        "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "9p", "virtiofs", "fuseblk", "apfs",
        "fuse.bindfs", "fuse.gocryptfs", "fuse.fuse-overlayfs", "fuse", "nfsd", "autofs", "sshfs",
    )],
)  # fmt: skip
def test_which_kinds_machines_share(table, kind, shared):
    text = f"21 1 253:0 / / rw - xfs x rw\n22 21 0:9 / /m rw - {kind} x rw\n"
    found = mounts.network("/m/store.db", table(text))
    assert (found is not None) == shared
    assert mounts.network("/n/store.db", table(text)) is None


def test_links_are_followed_and_a_place_need_not_be_there(table, tmp_path):
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    (near / "link").symlink_to(far)
    (far / "back.db").symlink_to(near / "store.db")
    (near / "circle").symlink_to(near / "circle")
    text = f"21 1 253:0 / / rw - xfs x rw\n22 21 0:9 / {far} rw - nfs4 x rw\n"
    path = table(text)
    assert mounts.network(near / "link" / "new" / "store.db", path).point == str(far)
    assert mounts.network(near / "link" / ".." / "store.db", path) is None  # as the system does
    assert mounts.network(far / ".." / "near" / "store.db", path) is None
    assert mounts.network(far / "back.db", path) is None
    assert mounts.network(near / "circle", path) is None


def test_a_relative_path_is_of_the_working_directory(table, tmp_path, monkeypatch):
    text = f"21 1 253:0 / / rw - xfs x rw\n22 21 0:9 / {tmp_path} rw - nfs4 x rw\n"
    monkeypatch.chdir(tmp_path)
    assert mounts.network("store.db", table(text)).kind == "nfs4"
    monkeypatch.chdir("/")
    assert mounts.network("store.db", table(text)) is None


def test_a_system_without_a_table_says_nothing(tmp_path):
    assert mounts.find(tmp_path, tmp_path / "none") is None


def test_the_real_table_knows_this_machine(tmp_path):
    if not mounts.TABLE.exists():
        pytest.skip("needs Linux")
    found = mounts.find(tmp_path)
    assert found is not None and os.path.ismount(found.point)
    assert mounts.find("/proc/self/stat").kind == "proc"


def test_real_mounts_one_upon_the_other(tmp_path):
    """In a space of mounts of our own, which ends with the process."""
    place = tmp_path / "a b\\c"
    script = """
set -e
mkdir -p "$1" && mount -t tmpfs one "$1"
mkdir "$1/in" && mount -t ramfs two "$1/in" && mkdir "$1/in/deep"
mount --bind "$1/in/deep" "$1/in" && mount -t tmpfs three "$1/in"
mkdir "$1/in/x" "$1/other" && mount --bind "$1/in/x" "$1/other"
exec "$2" -c '
import sys
from db import mounts
for path in sys.argv[1:]:
    found = mounts.find(path)
    print(found.kind, found.point)
' "$1/store.db" "$1/in/deep/store.db" "$1/other/s" "$1"
"""
    found = in_own_mounts(script, place)
    assert found == [
        f"tmpfs {place}", f"tmpfs {place}/in", f"tmpfs {place}/other", f"tmpfs {place}",
    ]  # fmt: skip


FUSE = """
import ctypes, os, stat, struct, sys, threading
from pathlib import Path
from db.errors import StoreError
from db.store import connect

def answer(device):  # an empty directory, as the kernel asks for it (linux/fuse.h)
    while True:
        request = os.read(device, 1 << 20)
        _, operation, unique, node = struct.unpack_from("<IIQQ", request)
        error, body = -38, b""  # ENOSYS
        if operation in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET: no answer
            continue
        if operation == 26:  # INIT
            error, body = 0, struct.pack("<4I2H2I2H8I", 7, 31, *[0] * 4, 4096, 1, *[0] * 10)
        elif operation == 1:  # LOOKUP
            error = -2  # ENOENT
        elif operation == 3 and node == 1:  # GETATTR
            mode = stat.S_IFDIR | 0o777
            rest = (*[0] * 8, mode, 2, 0, 0, 0, 512, 0)
            error, body = 0, struct.pack("<QII6Q10I", 1, 0, 0, 1, *rest)
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)

place = Path(sys.argv[1]) / "re mote"
place.mkdir()
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"ada@host:/data", os.fsencode(place), b"fuse.sshfs", 6, options):
    sys.exit(os.strerror(ctypes.get_errno()))
threading.Thread(target=answer, args=(device,), daemon=True).start()
try:
    connect(place / "store.db")
except StoreError as error:
    print(error)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs FUSE")
def test_a_real_file_system_of_another_machine(tmp_path):
    """Of the kind that sshfs mounts, answered by a few lines here."""
    (tmp_path / "serve.py").write_text(FUSE)
    (place := tmp_path / "place").mkdir()
    (printed,) = in_own_mounts('exec "$2" "$1/../serve.py" "$1"', place)
    where = re.escape(f"(fuse.sshfs, mounted at {place / 're mote'})")
    assert re.search(f"lies on a network file system {where}, where SQLite can lose", printed)


def in_own_mounts(script, place):
    """Run a script in a space of mounts of its own, which ends with it; gives the printed lines."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    place.mkdir(exist_ok=True)
    for text in ('mount -t tmpfs x "$1" && exec "$2" -c ""', script):
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", text, "sh", str(place), sys.executable],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if text != script and done.returncode:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Stores on such a file system. The table is not this machine's; all else is real.


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A directory that the table of mounts calls a network file system."""
    place = tmp_path / "net work"
    place.mkdir()
    escaped = str(place).replace(" ", "\\040")
    path = tmp_path / "mountinfo"
    path.write_text(
        f"21 1 253:0 / / rw - xfs x rw\n22 21 0:9 / {escaped} rw - nfs4 filer:/home rw\n"
    )

    def turn(on):
        monkeypatch.setattr(mounts, "TABLE", path if on else Path("/proc/self/mountinfo"))

    turn(True)
    return place, turn


def test_writing_is_refused_with_the_reason_and_what_to_do(shared):
    place, _ = shared
    message = (
        r"lies on a network file system \(nfs4, mounted at .*net work\), where SQLite can lose or "
        r"damage .*postgresql://user@host/name.*deq db merge"
    )
    url = place / "store.db"
    for refused in (connect, lambda url: Store(url, create=True)):
        with pytest.raises(StoreError, match=message) as caught:
            refused(url)
        assert not isinstance(caught.value, StoreAway) and "\n" not in str(caught.value)
    assert list(place.iterdir()) == []


def test_a_file_that_is_there_is_not_written_either(shared):
    place, turn = shared
    url = place / "store.db"
    turn(False)
    releases.load(url, 1)
    turn(True)
    before = url.read_bytes()
    for refused in (connect, upgrade):
        with pytest.raises(StoreError, match="lies on a network file system"):
            refused(url)
    assert url.read_bytes() == before and [path.name for path in place.iterdir()] == ["store.db"]


def test_reading_takes_a_file_as_it_is_and_leaves_nothing(shared):
    place, turn = shared
    url = place / "store.db"
    turn(False)
    toy.run(url, lambda _run: None)
    for path in place.glob("store.db-*"):
        assert path.stat().st_size == 0, path
        path.unlink()
    turn(True)
    there = sorted(place.rglob("store.db*"))
    store = Store(url)
    assert list(store.runs()["status"]) == ["COMPLETED"]
    with pytest.raises(StoreError, match="queries only read"):
        store.query("delete from run")
    assert sorted(place.rglob("store.db*")) == there
    link = place.parent / "link.db"
    link.symlink_to(url)
    assert len(Store(link).runs()) == 1
    assert upgrade(url).copy is None  # there is nothing to do


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_reading_is_refused_while_somebody_may_write(shared, ending):
    place, turn = shared
    url = place / "store.db"
    turn(False)
    Store(url, create=True)
    with contextlib.closing(sqlite3.connect(url, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode={'WAL' if ending == '-wal' else 'DELETE'}")
        writer.execute("PRAGMA cache_size=1")
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany(
            "INSERT INTO environment (fingerprint) VALUES (?)",
            [(f"{i}" * 900,) for i in range(900)],
        )
        assert url.with_name(f"store.db{ending}").stat().st_size > 0
        turn(True)
        with pytest.raises(StoreError, match=rf"store\.db{ending} beside it says that somebody"):
            Store(url)
        link = place.parent / "link.db"
        link.symlink_to(url)
        with pytest.raises(StoreError, match="somebody writes to it or was cut off"):
            Store(link)
        writer.execute("ROLLBACK")


# What may be tried again


def test_a_file_that_somebody_writes_is_busy(url, monkeypatch):
    connect(url).dispose()
    monkeypatch.setattr(dialects, "PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(url, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match=r"busy or full for the moment \(database is locked\)"):
            connect(url)
        writer.execute("ROLLBACK")
    connect(url).dispose()


def test_a_full_disk_is_full_for_the_moment(tmp_path):
    script = """
set -e
mount -t tmpfs -o size=1m small "$1"
exec "$2" -c '
import sys
from pathlib import Path
from db.errors import StoreError
from db.store import connect
place = Path(sys.argv[1])
(place / "ballast").write_bytes(bytes(2**20 - 3 * 2**12))
try:
    connect(place / "store.db")
except StoreError as error:
    print(type(error).__name__, error)
(place / "ballast").unlink()
connect(place / "store.db").dispose()
print("there")
' "$1"
"""
    printed = in_own_mounts(script, tmp_path)
    first, second = printed
    assert first.startswith("StoreAway ") and "for the moment" in first and second == "there"


def test_a_damaged_file_is_not_waited_for(url):
    url.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(StoreError) as caught:
        connect(url)
    assert not isinstance(caught.value, StoreAway)


def test_a_broken_rule_is_not_waited_for(either):
    engine = connect(either)
    with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO series (run_id, name) VALUES (77, 'x')")
    engine.dispose()
    assert not away(caught.value)


def test_a_server_that_is_down_is_away(postgres_server):
    url = postgres_server.fresh()
    engine = connect(url)
    postgres_server.stop()
    try:
        with pytest.raises(sa.exc.DBAPIError) as lost, engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
        with pytest.raises(StoreAway, match=r"cannot be reached .*start the server"):
            connect(url)
    finally:
        postgres_server.start()
        engine.dispose()
    assert away(lost.value)
    connect(url).dispose()


def test_a_connection_that_is_cut_in_use_is_away(postgres_server):
    engine = connect(postgres_server.fresh())
    with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    assert away(caught.value)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


def test_a_server_with_too_many_visitors_is_away(postgres_server):
    import psycopg

    url = postgres_server.fresh()
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE guest LOGIN")
        admin.execute(f"GRANT ALL ON DATABASE {name} TO guest")
        admin.execute("ALTER ROLE guest CONNECTION LIMIT 0")
        guest = url.replace("postgres@", "guest@")
        try:
            with pytest.raises(StoreAway, match="too many connections"):
                connect(guest)
        finally:
            admin.execute(f"REVOKE ALL ON DATABASE {name} FROM guest")
            admin.execute("DROP ROLE guest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: f"{url}x", 'database "lab\\d+x" does not exist'),
        (lambda url: url.replace("postgres@", "nobody_here@"), 'role "nobody_here" does not exist'),
    ],
)
def test_a_server_that_does_not_know_us_is_not_waited_for(postgres_server, change, message):
    with pytest.raises(StoreError, match=f"does not let us in .*{message}") as caught:
        connect(change(postgres_server.fresh()))
    assert not isinstance(caught.value, StoreAway)


def test_two_writers_who_wait_for_each_other_are_away_and_not_wrong(postgres_server):
    engines = [connect(postgres_server.fresh())]
    engines.append(sa.create_engine(engines[0].url, pool_size=1))
    with engines[0].begin() as connection:
        connection.exec_driver_sql("INSERT INTO environment (fingerprint) VALUES ('a'), ('b')")
    met, errors = threading.Barrier(2, timeout=60), []

    def change(engine, names):
        try:
            with engine.begin() as connection:
                for name in names:
                    connection.exec_driver_sql(
                        f"UPDATE environment SET os = 'x' WHERE fingerprint = '{name}'"
                    )
                    if name == names[0]:
                        met.wait()
        except sa.exc.DBAPIError as error:
            errors.append(error)

    threads = [
        threading.Thread(target=change, args=given)
        for given in zip(engines, ("ab", "ba"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert len(errors) == 1 and "deadlock" in str(errors[0]) and away(errors[0])


def test_what_is_no_error_of_a_database_is_not_away():
    for error in (ValueError("x"), OSError("x"), sqlite3.ProgrammingError("closed")):
        assert not away(error)
