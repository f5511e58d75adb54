"""Whether a container still runs, by what its runtime wrote down.

Runtimes keep a directory for each container and remove it when they are asked to delete that. If
the process that should ask was killed, the directory stays, and so would the lease: then the
process named in it decides.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.agent.lease_directory import means_gone

# Of runc, crun, and Podman, which writes only the number of the process. The first two are JSON
# that begins with what is wanted; runc's goes on with the whole configuration, which would cost
# more to parse than all the rest of looking after a lease.
_FILES: Final = {
    "state.json": re.compile(
        rb'\{"id":"[^"]*","init_process_pid":(?P<pid>\d+),"init_process_start":(?P<start>\d+),'
    ),
    "status": re.compile(rb'\{\s*"pid":\s*(?P<pid>\d+),\s*"process-start-time":\s*(?P<start>\d+),'),
    "pidfile": re.compile(rb"(?P<pid>\d+)(?P<start>)\s*"),
}
# Without O_NONBLOCK the opening of a FIFO would wait for a writer.
_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_HEAD_BYTES: Final = 4096
_FIRST_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO of Linux
_MAX_PID: Final = 2**22  # PID_MAX_LIMIT of Linux
_RUN: Final = ("/run/", "/var/run/")
_START_TIME: Final = 21 - 2  # of proc_pid_stat(5), counted from behind the name


class ContainerStates:
    """Looks at runtimes' directories, and remembers whose process each of them named.

    `processes` is where proc(5) is mounted.
    """

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._processes = processes
        self._known: dict[str, tuple[int, int]] = {}
        self._sees_all = True
        with suppress(OSError):
            self._sees_all = str((processes / "self/ns/pid").readlink()) == _FIRST_NAMESPACE

    def is_there(self, state: str) -> bool:
        """Return whether a runtime's directory is there, and not that of a process that has ended.

        Where this is in doubt, as among processes of another namespace, the directory counts, and
        so does one below `/run` whose surroundings are hidden from this process.
        """
        try:
            is_directory = stat.S_ISDIR(os.stat(state).st_mode)  # noqa: PTH116 - thousands a time
        except OSError as error:
            is_directory = not means_gone(error)
        except ValueError:
            is_directory = False
        if not is_directory:
            self._known.pop(state, None)
            return _is_out_of_sight(state)
        if not self._sees_all:
            return True
        known = self._known.get(state)
        if known is not None and _runs(*known, self._processes):
            return True
        # A container that was started again has another process in the same directory.
        named = _named_process(Path(state))
        if named is None:
            return True
        if not _runs(*named, self._processes):
            return False
        self._known[state] = named
        return True

    def keep(self, states: Container[str]) -> None:
        """Forget all but some directories."""
        self._known = {state: known for state, known in self._known.items() if state in states}


def _is_out_of_sight(state: str) -> bool:
    """Return whether a directory below /run may be there, without this process seeing it.

    A unit may hide the runtime's whole tree, or show one that was removed and made again since.
    """
    parent = os.path.dirname(state.rstrip("/"))  # noqa: PTH120 - as above
    if not parent.startswith(_RUN):
        return False
    try:
        return os.stat(parent).st_nlink == 0  # noqa: PTH116 - as above
    except FileNotFoundError:
        # Podman removes the parent with the container, but nobody the engine's whole tree.
        prefix = next(each for each in _RUN if parent.startswith(each))
        engine = parent.removeprefix(prefix).partition("/")[0]
        return not os.path.lexists(f"{prefix}{engine}")
    except (OSError, ValueError):
        return False


def _named_process(state: Path) -> tuple[int, int] | None:
    """Return number and start of the process that a runtime wrote down, None if that is unknown."""
    for name, form in _FILES.items():
        try:
            fd = os.open(state / name, _OPEN)
            with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib has no descriptors
                found = form.match(file.read(_HEAD_BYTES) or b"")
        except OSError:
            continue  # another runtime's
        if found is None:
            continue  # just being written, or of a version that is not known
        pid = int(found["pid"][:20])
        return (pid, int(found["start"][:20] or 0)) if 0 < pid <= _MAX_PID else None
    return None


def _runs(pid: int, start: int, processes: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    try:
        fd = os.open(f"{processes}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # a service does not see all processes (ProtectProc= of systemd.exec(5))
    try:
        line = os.read(fd, _HEAD_BYTES)
    except OSError:
        return False  # it ended meanwhile
    finally:
        os.close(fd)
    state, *fields = line.rpartition(b")")[2].split()
    if state in {b"Z", b"X"}:
        return False
    return not start or int(fields[_START_TIME - 1]) == start
