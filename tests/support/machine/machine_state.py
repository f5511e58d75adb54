"""What a test run may not change about the machine; as a program, it prints that as JSON.

It also runs inside a fresh root, with whatever Python 3 is there: standard library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

_VOLATILE = re.compile(
    r"kernel/(ns_last_pid|random/.*)|fs/(dentry-state|binfmt_misc/.*)|net/.*/(route/flush|gc_.*)"
)
_OF_IPROUTE = "/run/netns"  # ip-netns(8) makes it for the first namespace, and leaves it
_CLOCK_SECONDS = 5.0  # what a time server may correct meanwhile


def state() -> dict[str, Any]:
    """Return mount points with their propagation, links, sysctls, processes and the clock."""
    return {
        "clock": time.time() - time.monotonic(),
        "propagation": propagation(),
        "links": links(),
        "sysctls": sysctls(),
        "processes": processes(),
    }


def propagation(mountinfo: str | None = None) -> dict[str, list[str]]:
    """Return the propagation of each mount point: of all that is mounted there, the lowest first.

    `mountinfo` is what ``/proc/PID/mountinfo`` holds; if it is not given, this process's.
    """
    if mountinfo is None:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    found: dict[str, list[str]] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[4] == _OF_IPROUTE:
            continue
        # The numbers of peer groups differ from run to run.
        kinds = [tag.split(":")[0] for tag in fields[6 : fields.index("-", 6)]]
        found.setdefault(fields[4], []).append(" ".join(kinds) or "private")
    return found


def links() -> list[str]:
    """Return network links, without those that are one end of a pair: other labs have such."""

    def number(link: Path, name: str) -> str:
        return (link / name).read_text().strip()

    found = []
    for link in sorted(Path("/sys/class/net").iterdir()):
        try:
            if number(link, "iflink") == number(link, "ifindex"):
                found.append(link.name)
        except OSError:
            continue  # gone meanwhile, or no link
    return found


def sysctls() -> dict[str, str]:
    """Return the settings of the kernel that can be written and do not change by themselves."""
    found = {}
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            path = Path(folder, name)
            key = str(path.relative_to("/proc/sys"))
            try:
                if path.stat().st_mode & 0o200 and not _VOLATILE.fullmatch(key):
                    found[key] = path.read_text("utf-8", "replace").strip()
            except OSError:
                continue  # write-only, or of a link that has gone
    return found


def processes() -> list[str]:
    """Return the names of processes, without the first, this one and those of the kernel."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) in {1, os.getpid()}:
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").strip()
        except OSError:
            continue
        if command:
            found.append(command.decode("utf-8", "replace"))
    return sorted(found)


def changed(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a line for each key that is in both and has another value now."""
    return [
        f"{what} {name}: {before[name]} before, {after[name]} now"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]


def differences(before: dict[str, Any], after: dict[str, Any], *, shared: bool) -> list[str]:
    """Return a line for each difference between two states of a machine.

    On a machine that is `shared` with others, their mount points and processes come and go: there,
    only what was there before counts.
    """
    found = changed("propagation of", before["propagation"], after["propagation"])
    found += changed("sysctl", before["sysctls"], after["sysctls"])
    if abs(after["clock"] - before["clock"]) > _CLOCK_SECONDS:
        found.append(f"clock: set by {after['clock'] - before['clock']:.0f} s")
    sets = {"link": "links"}
    if not shared:
        sets |= {"mount point": "propagation", "process": "processes"}
    for label, subject in sets.items():
        old, new = list(before[subject]), list(after[subject])
        found += [f"{label} {name}: not there before" for name in new if name not in old]
        found += [f"{label} {name}: gone" for name in old if name not in new]
    return found


if __name__ == "__main__":
    json.dump(state(), sys.stdout)
