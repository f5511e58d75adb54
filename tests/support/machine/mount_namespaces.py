"""A mount namespace of a test process: what it mounts is gone with it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNS, MS_REC, MS_SLAVE, MS_SHARED = 0x20000, 0x4000, 0x80000, 0x100000
MNT_DETACH = 2


def own_mount_namespace() -> None:
    """Leave the host's mount namespace: its mounts still arrive here, ours stay here."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    for flag in (MS_SLAVE, MS_SHARED):
        assert libc.mount(None, b"/", None, MS_REC | flag, None) == 0
    # crun takes the one version of cgroups or the other, but not both at once.
    hybrid = b"/sys/fs/cgroup/unified"
    if Path(hybrid.decode()).is_mount():
        assert libc.umount2(hybrid, MNT_DETACH) == 0


def own_runtime_directories() -> None:
    """Give this process users' runtime directories of its own: other workers use theirs.

    So it is with Samba's, where smbclient keeps addresses: each worker's dc1 has another.
    """
    for path in ("/run/user", "/run/samba"):
        Path(path).mkdir(mode=0o755, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", "mode=0755", "runtime-directories", path]
        subprocess.run(mount, check=True)
