"""mount(2), umount2(2) and openat2(2), without the package `ctypes`.

That imports what takes longer than both; its C part, called as the package does, is enough.
"""

from __future__ import annotations

import _ctypes
import struct

_RTLD_NOW = 2
_OPENAT2 = 437  # the same on all of Linux's architectures but alpha
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "i"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_library = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]
_mount = _Function(_ctypes.dlsym(_library, "mount"))
_syscall = _Function(_ctypes.dlsym(_library, "syscall"))
_umount2 = _Function(_ctypes.dlsym(_library, "umount2"))


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount; raises OSError."""
    _check(_mount(source, target, kind, flags, options))


def unmount(target: bytes, flags: int) -> None:
    """Unmount; raises OSError."""
    _check(_umount2(target, flags))


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open a path as a process would whose root directory is the descriptor `root`.

    Links lead nowhere else, those of procfs nowhere at all. Raises OSError, also where the kernel
    has no openat2 (before Linux 5.6) or a sandbox forbids it.
    """
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT)
    fd: int = _syscall(_OPENAT2, root, path, how, len(how))
    if fd < 0:
        raise _error()
    return fd


def _check(result: int) -> None:
    if result != 0:
        raise _error()


def _error() -> OSError:
    return OSError(_ctypes.get_errno(), "")
