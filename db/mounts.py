"""On which kind of file system a path lies: SQLite must not write to one that machines share.

SQLite's write-ahead log lives in memory that the processes of one machine share, and its locks are
not kept, or not kept in time, by most network file systems: what two machines write is mixed up or
lost, and the file may be damaged.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["TABLE", "Mount", "find", "network"]

TABLE = Path("/proc/self/mountinfo")

# As the kernel names them. Not in the list, on purpose: 9p, virtiofs and overlay, the roots of
# containers and virtual machines, which one kernel has for itself.
SHARED = frozenset({
    "acfs", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "coda", "cvfs", "davfs", "dvs",
    "fhgfs", "glusterfs", "gpfs", "lustre", "mmfs", "ncpfs", "nfs", "nfs3", "nfs4", "orangefs",
    "panfs", "pvfs2", "smb2", "smb3", "smbfs", "stornext", "vast", "wekafs", "yfs",
})  # fmt: skip
# Those of programs: "fuse.NAME".
SHARED_BY_PROGRAMS = frozenset({
    "afp", "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "curlftpfs", "dfs", "dislocker-net",
    "fuse_dfs", "gcsfuse", "gfarm2fs", "glusterfs", "goofys", "google-drive-ocamlfuse", "hdfs",
    "juicefs", "lizardfs", "mfs", "moosefs", "mount-s3", "nfs", "onedriver", "orangefs", "quobyte",
    "rclone", "s3fs", "saunafs", "seaweedfs", "smbnetfs", "sshfs", "wdfs", "xtreemfs",
})  # fmt: skip


class Mount(NamedTuple):
    """A line of the table of mounts."""

    number: int
    parent: int
    point: str
    kind: str

    @property
    def shared(self) -> bool:
        """Whether other machines may have it too."""
        program = self.kind.removeprefix("fuse.")
        return self.kind in SHARED or (program != self.kind and program in SHARED_BY_PROGRAMS)


def network(path: str | os.PathLike[str], table: Path | None = None) -> Mount | None:
    """The network file system that a path lies on; None for a disk of this machine."""
    mount = find(path, table)
    return mount if mount is not None and mount.shared else None


def find(path: str | os.PathLike[str], table: Path | None = None) -> Mount | None:
    """The mount that a path lies on, or would lie on; None where the system does not say.

    Links are followed. ``table`` is a file as ``/proc/self/mountinfo`` (proc(5)).
    """
    whole = Path(os.path.realpath(path))  # which raises nothing, even of links in a circle
    try:
        lines = (TABLE if table is None else table).read_bytes().splitlines()
    except OSError:
        return None
    mounts = [mount for line in lines if (mount := _parse(line))]
    numbers = {mount.number for mount in mounts if mount.parent != mount.number}
    roots = [mount for mount in mounts if mount.parent not in numbers]
    # From mount to mount, not the longest point: a mount hides those below its point from before.
    here: Mount | None = None
    for place in map(os.fspath, (*reversed(whole.parents), whole)):
        if here is None or here in roots:
            here = next((mount for mount in reversed(roots) if mount.point == place), here)
        for _ in mounts:  # one upon the other
            upon = [m for m in mounts if here and m.parent == here.number and m.point == place]
            here = upon[-1] if upon else here
    return here


def _parse(line: bytes) -> Mount | None:
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw
    left, _, right = line.partition(b" - ")
    fields = left.split(b" ")
    try:
        number, parent, point = int(fields[0]), int(fields[1]), fields[4]
        kind = right.split(b" ")[0].decode()
    except (ValueError, IndexError):
        return None
    if not kind:
        return None
    plain = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) & 0xFF]), point)
    return Mount(number, parent, os.fsdecode(plain), kind)
