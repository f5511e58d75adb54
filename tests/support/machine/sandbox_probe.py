"""What a program can do from inside a service: it tries everything and prints each success.

Run in place of a service's own program, as root inside its sandbox, with nothing but the standard
library. Each line is one thing that it could do and should not, ``KIND: what``; the last line is
``done``. What the service needs is given as JSON on the command line: `writable` directories,
`sockets` that it may reach, address `families`, `capabilities` as a number, and a path to `wait`
for, so that things can be made on the host after the service has started. `tops` is what to walk.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain

LIBC = ctypes.CDLL(None, use_errno=True)
# System calls by number, x86-64 and arm64; there is no wrapper for some of them.
NUMBERS = {
    "x86_64": {"pidfd_getfd": 438, "bpf": 321, "keyctl": 250, "add_key": 248, "kexec_load": 246,
               "init_module": 175, "perf_event_open": 298, "userfaultfd": 323, "pivot_root": 155,
               "io_uring_setup": 425, "open_by_handle_at": 304, "fsopen": 430, "kcmp": 312,
               "process_vm_writev": 311, "process_vm_readv": 310, "reboot": 169, "swapon": 167,
               "settimeofday": 164, "sethostname": 170, "acct": 163, "quotactl": 179,
               "open_tree": 428, "mount_setattr": 442, "move_mount": 429},
    "aarch64": {"pidfd_getfd": 438, "bpf": 280, "keyctl": 219, "add_key": 217, "kexec_load": 104,
                "init_module": 105, "perf_event_open": 241, "userfaultfd": 282, "pivot_root": 41,
                "io_uring_setup": 425, "open_by_handle_at": 265, "fsopen": 430, "kcmp": 272,
                "process_vm_writev": 271, "process_vm_readv": 270, "reboot": 142, "swapon": 224,
                "settimeofday": 170, "sethostname": 161, "acct": 89, "quotactl": 60,
                "open_tree": 428, "mount_setattr": 442, "move_mount": 429},
}[os.uname().machine]  # fmt: skip
REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS}
DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "log"}
# The kinds of namespaces, as clone(2) has them: mount, user, process, network, ...
NAMESPACES = (0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000)
FAMILIES = range(1, 46)
TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
FIRST_SET_UID = 0o4755


def report(kind: str, what: object) -> None:
    print(f"{kind}: {what}", flush=True)


def is_below(path: str, tops: list[str]) -> bool:
    return any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in tops)


def entries(top: str, skip: Callable[[str], bool]) -> Iterator[os.DirEntry[str]]:
    """Walk everything below a directory, across mounts and without following links."""
    stack = [top]
    while stack:
        directory = stack.pop()
        try:
            with os.scandir(directory) as found:
                for entry in found:
                    yield entry
                    if entry.is_dir(follow_symlinks=False) and not skip(entry.path):
                        stack.append(entry.path)
        except OSError:
            continue


def is_other_process(path: str) -> bool:
    match = re.match(r"/proc/(\d+)(/|$)", path)
    return match is not None and int(match[1]) != os.getpid()


def look_at_files(tops: list[str], writable: list[str], allowed: list[str]) -> int:
    """Walk everything for what can be written and for sockets; return how much was seen."""
    seen, sockets = 0, []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = {line.split(" ")[4] for line in file}
    for entry in chain.from_iterable(entries(top, is_other_process) for top in tops):
        seen += 1
        path = entry.path
        if entry.is_symlink():
            continue
        # What a directory says of a mount point is what is below the mount.
        if path in mounts and stat.S_ISSOCK(mode_of(path)):
            sockets.append(path)
        elif entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
            # The kernel's answer, which knows of mounts that are read-only.
            if not is_below(path, writable) and os.access(path, os.W_OK, effective_ids=True):
                look_closer(path, is_directory=entry.is_dir(follow_symlinks=False))
        elif stat.S_ISSOCK(mode_of(path)):
            sockets.append(path)
        elif path.startswith("/dev/") and os.path.basename(path) not in DEVICES:
            try_device(path)
    for path in sorted({*sockets, *bound_names()}):
        if not is_below(path, writable) and path not in allowed and (how := reach(path)):
            report(how, path)
    return seen


def mode_of(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def look_closer(path: str, *, is_directory: bool) -> None:
    try:
        if is_directory:
            made = os.path.join(path, f".probe{os.getpid()}")
            os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(made)
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in {errno.EROFS, *REFUSED, errno.EINVAL, errno.EIO, errno.ENOENT}:
            return
    report("write", path)


def try_device(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return
    report("device", path)


def bound_names() -> set[str]:
    """Return the names that sockets of this network namespace are bound to, also without a path."""
    names = set()
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file.readlines()[1:]:
            fields = line.rstrip("\n").split(" ", 7)
            if len(fields) > 7 and fields[7]:
                names.add(fields[7])
    return names


def reach(path: str) -> str | None:
    """Return how something can be sent to a Unix socket, None if it cannot.

    A filter of socket(2) does not see the datagram sockets that socketpair(2) makes; of the others
    that come in pairs, none can be connected to something else.
    """
    address: str | bytes = "\0" + path[1:] if path.startswith("@") else path
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as ours:
            ours.settimeout(2)
            ours.connect(address)
            return "socket"
        with suppress(OSError):
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            with one, other:
                one.connect(address)
                return "datagram" if kind == socket.SOCK_DGRAM else "socket"
    return None


def attempt(kind: str, what: str, call: Callable[[], object]) -> None:
    """Report a call that was let through, even if it failed for a reason of its own."""
    child = os.fork()
    if child == 0:
        try:
            call()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number not in REFUSED | {errno.EROFS}:
        report(kind, f"{what} ({os.strerror(number) if number > 0 else number})")


def system_call(name: str, *arguments: object) -> None:
    ctypes.set_errno(0)
    if LIBC.syscall(NUMBERS[name], *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def library_call(name: str, *arguments: object) -> None:
    ctypes.set_errno(0)
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def look_at_calls(own: str) -> None:
    """Try calls that change the system; each with arguments that do no harm if it goes through."""
    device = os.path.join(own, "device")
    suid = os.path.join(own, "suid")
    with open(suid, "wb"):
        pass
    null = (1 << 8) | 3
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("mount a tmpfs", lambda: library_call("mount", b"x", own.encode(), b"tmpfs", 0, None)),
        ("bind", lambda: library_call("mount", own.encode(), own.encode(), None, 4096, None)),
        ("remount", lambda: library_call("mount", None, b"/run", None, 32 | 4096, None)),
        ("unmount", lambda: library_call("umount2", own.encode(), 2)),
        ("chroot", lambda: os.chroot("/")),
        ("make a device", lambda: os.mknod(device, 0o600 | stat.S_IFBLK, null)),
        ("make a set-uid file", lambda: os.chmod(suid, FIRST_SET_UID)),
        ("become another user", lambda: os.setuid(65534)),
        ("set the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
        ("real-time scheduling", lambda: os.sched_setscheduler(0, 1, os.sched_param(1))),
        ("raise its priority", lambda: os.nice(-1)),
        ("personality", lambda: library_call("personality", 0x0040000)),
        ("trace a process", lambda: library_call("ptrace", 0x4206, os.getppid(), 0, 0)),
    ]
    attempts += [
        (f"unshare({flag:#x})", partial(library_call, "unshare", flag)) for flag in NAMESPACES
    ]
    with suppress(OSError):
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        attempts.append(("setns", lambda: library_call("setns", namespace, 0)))
    attempts += [
        (name, partial(system_call, name, -1, -1, -1, -1, -1))
        for name in NUMBERS
        if not name.startswith("process_vm")
    ]
    for what, call in attempts:
        attempt("call", what, call)


def look_at_socket_families(allowed: set[int]) -> None:
    for family in FAMILIES:
        for kind in TYPES:
            with suppress(OSError), socket.socket(family, kind) as made:
                del made
                raw = kind == socket.SOCK_RAW and family != socket.AF_UNIX
                if family not in allowed or raw:
                    report("family", f"{family}, type {kind}")


def look_at_processes() -> None:
    """Look for a process, of those that are seen, whose memory could be written or read."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) == os.getpid():
            continue
        for file, flags in (("mem", os.O_RDWR), ("oom_score_adj", os.O_WRONLY)):
            with suppress(OSError):
                os.close(os.open(f"/proc/{name}/{file}", flags))
                report("process", f"write to {file} of {command_of(name)}")
    text = ctypes.create_string_buffer(8)
    # struct iovec: where, how much. An address that is mapped in no process.
    ours = (ctypes.c_uint64 * 2)(ctypes.addressof(text), 8)
    theirs = (ctypes.c_uint64 * 2)(4096, 8)
    for pid in range(1, 2000):
        for call in ("process_vm_writev", "process_vm_readv"):
            try:
                system_call(call, pid, ours, 1, theirs, 1, 0)
            except OSError as error:
                if error.errno != errno.EFAULT or pid == os.getpid():
                    continue
            report("process", f"{call} to {command_of(str(pid))}")


def command_of(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(80).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return f"process {pid}"


def look_at_status(capabilities: int) -> None:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[name], 16) & ~capabilities:
            report("capability", f"{name} {status[name]}")
    if status["NoNewPrivs"] != "1":
        report("capability", "NoNewPrivs is not set")
    with open("/proc/self/limits", encoding="ascii") as file:
        core = next(line.split() for line in file if line.startswith("Max core"))
    if core[4:6] != ["0", "0"]:
        report("core", " ".join(core))


def main() -> None:
    wanted = json.loads(sys.argv[1])
    print("started", flush=True)
    while wanted.get("wait") and not os.path.exists(wanted["wait"]):
        time.sleep(0.05)
    allowed = list(wanted["sockets"])
    own = wanted["writable"][0]
    look_at_status(wanted["capabilities"])
    look_at_socket_families(set(wanted["families"]))
    look_at_calls(own)
    look_at_processes()
    seen = look_at_files(
        wanted.get("tops", ["/"]),
        [*wanted["writable"], f"/proc/{os.getpid()}", "/proc/self", "/proc/thread-self"],
        allowed,
    )
    # Without this, a probe that can do nothing at all would find nothing.
    for directory in filter(os.path.isdir, wanted["writable"]):
        made = os.path.join(directory, ".probe")
        with open(made, "wb") as file:
            file.write(b"x")
        os.unlink(made)
    for path in allowed:
        if os.path.exists(path) and not reach(path):
            report("lost", path)
    print(f"seen {seen}", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main()
