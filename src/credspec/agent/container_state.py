"""Whether a container still runs, by what its runtime wrote down.

Runtimes keep a directory for each container and remove it when they are told to delete that. If
whoever should tell them was killed, the directory stays, and so would the lease: then the process
named in it tells.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

# File of the directory, and in it the keys of the process and of when it started: those of runc,
# of crun, and of Podman, which writes the number of the process alone.
_FILES: Final = (
    ("state.json", "init_process_pid", "init_process_start"),
    ("status", "pid", "process-start-time"),
    ("pidfile", "", ""),
)
_MAX_BYTES: Final = 1024 * 1024
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
    for name, pid_key, start_key in _FILES:
        try:
            with (state / name).open("rb") as file:
                found: Any = json.loads(file.read(_MAX_BYTES))
            pid = int(found[pid_key] if pid_key else found)
            start = int(found[start_key]) if start_key else None
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another runtime's, or just being written
        return not 0 < pid <= _MAX_PID or _runs(pid, start, processes / str(pid))
    return True


def _runs(pid: int, start: int | None, process: Path) -> bool:
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
    return start is None or int(fields[_START_TIME - 1]) == start
