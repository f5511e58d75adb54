"""Run a program in namespaces of a lab: its network, files of /etc of its own, its own processes.

Run as a program, ``python -m credspec.lab.namespaces PLAN -- COMMAND...``, where PLAN is a `Plan`
as JSON. Linux system calls through libc, since Python has them only from 3.12 on.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NoReturn

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND, _MS_REC, _MS_SLAVE, _MS_SHARED = 0x1000, 0x4000, 0x80000, 0x100000
_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The surroundings of a program.

    `netns` names a network namespace of ``ip netns``; `binds` maps paths to the files that stand
    there instead; `tmpfs` are directories that get an empty file system; below `shared`, which are
    mount points, mounts go both ways. With `own_processes` the program and all it starts end
    together; `user` is the account it runs as.
    """

    netns: str | None = None
    binds: dict[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    own_processes: bool = False
    user: str | None = None


def command_in(plan: Plan, argv: list[str]) -> list[str]:
    """Return the command that runs `argv` in the surroundings of a plan."""
    return [sys.executable, "-m", __name__, json.dumps(asdict(plan)), "--", *argv]


def enter(plan: Plan, argv: list[str]) -> NoReturn:
    """Become `argv` in the surroundings of a plan; signals and exit status are its own."""
    if plan.netns is not None:
        _set_network(plan.netns)
    _call("unshare", _CLONE_NEWNS | (_CLONE_NEWPID if plan.own_processes else 0))
    _keep_mounts_inside(plan.shared)
    for target, source in plan.binds.items():
        bind(Path(source), Path(target).resolve())
    for target in plan.tmpfs:
        Path(target).mkdir(parents=True, exist_ok=True)
        _call("mount", b"lab", target.encode(), b"tmpfs", 0, b"mode=0755")
    if plan.own_processes:
        _wait_for(_fork(lambda: _first_process(plan, argv)))
    _become(plan, argv)


def _keep_mounts_inside(shared: tuple[str, ...]) -> None:
    """Let mounts of the host still arrive, and our own never leave but those below `shared`."""
    # The root first, and it must succeed: what is mounted over files of /etc belongs to it.
    _call("mount", None, b"/", None, _MS_SLAVE, None)
    for target in mount_points():
        if target not in shared:
            _libc.mount(None, target.encode("utf-8", "surrogateescape"), None, _MS_SLAVE, None)


def mount_points() -> list[str]:
    """Return where something is mounted in this mount namespace."""
    text = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    fields = (line.split(" ")[4] for line in text.splitlines())
    # The kernel escapes what would end the field.
    return [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field) for field in fields]


def bind(source: Path, target: Path) -> None:
    """Bind-mount `source` over `target`."""
    _call("mount", bytes(source), bytes(target), None, _MS_BIND, None)


def mount_tmpfs(target: Path, *, mode: int, shared: bool = False) -> None:
    """Mount a tmpfs; if it is `shared`, later mounts below it reach other mount namespaces.

    It is kept out of swap where the kernel can do that (Linux 6.4 and newer).
    """
    options = f"mode={mode:o},size=64m"
    try:
        _call("mount", b"credspec-lab", bytes(target), b"tmpfs", 0, f"{options},noswap".encode())
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _call("mount", b"credspec-lab", bytes(target), b"tmpfs", 0, options.encode())
    if shared:
        _call("mount", None, bytes(target), None, _MS_SHARED, None)


def unmount_below(directory: Path) -> None:
    """Unmount everything mounted at or below a directory, the deepest first."""
    below = [target for target in mount_points() if Path(target).is_relative_to(directory)]
    for target in sorted(below, key=len, reverse=True):
        _libc.umount2(target.encode(), _MNT_DETACH)


def _first_process(plan: Plan, argv: list[str]) -> NoReturn:
    """Be process 1 of the namespace: if the process that started it dies, everything here does."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)
    _wait_for(_fork(lambda: _become(plan, argv)))


def _fork(then: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        then()
    return pid


def _wait_for(child: int) -> NoReturn:
    """Pass signals on, reap what is left behind, and end as the child ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _become(plan: Plan, argv: list[str]) -> NoReturn:
    if plan.user is not None:
        import pwd

        entry = pwd.getpwnam(plan.user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - to become the program is the purpose
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        os._exit(127)


def _set_network(name: str) -> None:
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", fd, _CLONE_NEWNET)
    finally:
        os.close(fd)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        shown = ", ".join(repr(a) for a in arguments)
        raise OSError(number, f"{name}({shown}): {os.strerror(number)}")


def _main() -> NoReturn:
    raw = json.loads(sys.argv[1])
    for name in ("tmpfs", "shared"):
        raw[name] = tuple(raw[name])
    enter(Plan(**raw), sys.argv[sys.argv.index("--") + 1 :])


if __name__ == "__main__":
    _main()
