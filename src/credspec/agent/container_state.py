"""Whether a container still runs, by what its runtime wrote down.

Runtimes keep a directory for each container and remove it when they are told to delete that. If
whoever should tell them was killed, the directory stays, and so would the lease: then the process
named in it tells.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

# Of runc, crun, and Podman, which writes the number of the process alone. The first two are JSON
# that begins with what is wanted; runc's goes on with the whole configuration, which would cost
# more to parse than all the rest of looking after a lease.
_FILES: Final = {
    "state.json": re.compile(
        rb'\{"id":"[^"]*","init_process_pid":(?P<pid>\d+),"init_process_start":(?P<start>\d+),'
    ),
    "status": re.compile(rb'\{\s*"pid":\s*(?P<pid>\d+),\s*"process-start-time":\s*(?P<start>\d+),'),
    "pidfile": re.compile(rb"(?P<pid>\d+)(?P<start>)\s*"),
}
_HEAD_BYTES: Final = 4096
_FIRST_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO of Linux
_MAX_PID: Final = 2**22  # PID_MAX_LIMIT of Linux
_START_TIME: Final = 21 - 2  # of proc_pid_stat(5), counted from behind the name


def is_there(state: Path, *, processes: Path = Path("/proc")) -> bool:
    """Return whether a runtime's directory is there, and not that of a process that has ended.

    Where this is in doubt, as among processes of another namespace, the directory counts.
    """
    if not state.is_dir():
        return False
    with suppress(OSError):
        if str((processes / "self/ns/pid").readlink()) != _FIRST_NAMESPACE:
            return True
    for name, form in _FILES.items():
        try:
            with (state / name).open("rb", buffering=0) as file:
                found = form.match(file.read(_HEAD_BYTES))
        except OSError:
            continue  # another runtime's
        if found is None:
            continue  # just being written, or of a version that is not known
        pid, start = int(found["pid"][:20]), int(found["start"][:20] or 0)
        return not 0 < pid <= _MAX_PID or _runs(pid, start, processes / str(pid))
    return True


def _runs(pid: int, start: int, process: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    try:
        stat = (process / "stat").read_text("utf-8", "replace")
    except OSError:
        return True  # a service does not see all processes (ProtectProc= of systemd.exec(5))
    state, *fields = stat.rpartition(")")[2].split()
    if state in {"Z", "X"}:
        return False
    return not start or int(fields[_START_TIME - 1]) == start
