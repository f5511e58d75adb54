"""What is mounted, as the kernel lists it for this process (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_ESCAPES: Final = {ord(each): f"\\{ord(each):03o}" for each in " \t\n\\"}


def mounted_below(
    *directories: Path, mounts: Path = Path("/proc/self/mountinfo")
) -> frozenset[str]:
    """Return the names in directories on which something is mounted (proc_pid_mountinfo(5)).

    One look serves all leases.
    """
    prefixes = tuple(
        os.path.realpath(each).rstrip("/").translate(_ESCAPES) + "/" for each in directories
    )
    lines = mounts.read_text("utf-8", "surrogateescape").split("\n")
    points = (line.split(" ", 5)[4] for line in lines if line)
    found = {p for p in points if p.startswith(prefixes)}
    return frozenset(
        p.removeprefix(prefix) for p in found for prefix in prefixes if p.startswith(prefix)
    )


def is_tmpfs(fd: int) -> bool:
    """Return whether an open file is on a tmpfs."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2] == number:
            return rest.split(" ")[0] == "tmpfs"
    return False
