"""mount(2), umount2(2), openat2(2) and setns(2), for which Python has no functions."""

from __future__ import annotations

import ctypes
import os
import struct

_CLONE_NEWNET = 0x40000000
_OPENAT2 = 437  # the same on all of Linux's architectures but alpha
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10

_library = ctypes.CDLL(None, use_errno=True)
_library.syscall.restype = ctypes.c_long


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount; raises OSError."""
    _check(_library.mount(source, target, kind, ctypes.c_ulong(flags), options))


def unmount(target: bytes, flags: int) -> None:
    """Unmount; raises OSError."""
    _check(_library.umount2(target, flags))


def enter_network(namespace: int) -> None:
    """Move this thread into a network namespace that is open; raises OSError."""
    _check(_library.setns(namespace, _CLONE_NEWNET))


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open a path as a process would whose root directory is the descriptor `root`.

    Links lead nowhere else, those of procfs nowhere at all. Raises OSError, also where the kernel
    has no openat2 (before Linux 5.6) or a sandbox forbids it.
    """
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT)
    number, size = ctypes.c_long(_OPENAT2), ctypes.c_size_t(len(how))
    fd: int = _library.syscall(number, root, path, how, size)
    if fd < 0:
        raise _error()
    return fd


def _check(result: int) -> None:
    if result != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
