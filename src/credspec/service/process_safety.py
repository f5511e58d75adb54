"""What the agent does to its own process before it holds a secret. Linux with glibc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError

# capabilities(7): the numbers of linux/capability.h.
CAPABILITIES: Final = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1}
"""What the agent needs: to give tickets to a container's user, in a directory of that user."""

OVERWRITING_ALLOCATOR: Final = {
    # Freed memory is overwritten; the thread caches would keep what they hold as it is.
    # One arena for all threads, which hold the interpreter's lock nearly always: half a MiB less.
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0:"
    "glibc.malloc.arena_max=1",
    # Python's own pools overwrite nothing, unless they are to show what uses freed memory.
    "PYTHONMALLOC": "pymalloc_debug",
}
"""The environment of a process whose allocators overwrite what is freed."""
_MOST_BYTES: Final = 1 << 30
_STACK_BYTES: Final = 1 << 20
_CLONE_NEWNS: Final = 0x00020000
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION: Final = 0x20080522
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def overwrite_freed_memory() -> None:
    """Start this program over with an allocator that overwrites what is freed, unless it runs so.

    Passwords and keys are in bytes objects, in buffers of libldap and libkrb5; all of them are
    freed soon, and freed memory keeps its contents otherwise.
    """
    if all(os.environ.get(name) == value for name, value in OVERWRITING_ALLOCATOR.items()):
        return
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **OVERWRITING_ALLOCATOR})  # noqa: S606


def forbid_core_dumps() -> None:
    """Leave no core file, and let nobody but root trace this process.

    Programs that it starts leave none either.
    """
    # A unit that sets the limit may forbid to set limits.
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Of a core that goes to a program (core(5)), the limit says nothing.
    _prctl(_PR_SET_DUMPABLE, 0)


def limit_memory() -> None:
    """Let no answer, however large, take more than a fixed amount of memory.

    Threads started from now on have small stacks, since these count.
    """
    threading.stack_size(_STACK_BYTES)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or hard > _MOST_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))


def lock_memory() -> bool:
    """Keep this process out of swap; return whether the limits allow it.

    To be called while the process may still raise its limit.
    """
    unlimited = resource.RLIM_INFINITY
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != unlimited:
        # Under a limit it would lack memory some day instead.
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def drop_capabilities(keep: dict[str, int]) -> None:
    """Give up every capability but `keep`, for good, also for what this process might start.

    Raises:
        CredspecError: `capabilities`.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text("ascii"))
    effective = _effective()
    set_pcap = 8
    if effective & 1 << set_pcap:
        for number in set(range(last + 1)) - set(keep.values()):
            _prctl(_PR_CAPBSET_DROP, number)
    wanted = sum(1 << number for number in keep.values()) & effective
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Twice effective, permitted and inheritable: the lower and the upper 32 bits.
    data = (ctypes.c_uint32 * 6)(wanted, wanted, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise CredspecError.of(
            "capabilities", os.strerror(ctypes.get_errno()), where="capabilities of the process"
        )


def enter_mounts_of_host() -> None:
    """Go to the mount namespace of the host's first process; needs all of root's rights.

    Raises:
        CredspecError: `host-mounts`.
    """
    try:
        with Path("/proc/1/ns/mnt").open("rb") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNS) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
    except OSError as error:
        raise CredspecError.of(
            "host-mounts", error.strerror or str(error), where="the host's mount namespace"
        ) from None


def _effective() -> int:
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise CredspecError.of(
            "capabilities", os.strerror(ctypes.get_errno()), where=f"prctl {option}"
        )
