"""mount(2), umount2(2), openat2(2) and setns(2), for which Python has no functions.

By the C code of `ctypes`, without the package around it, whose import takes as long as a quarter of
the interpreter's start. What stands here is how that package calls the same code.
"""

from __future__ import annotations

import _ctypes
import posix
import sys

_CLONE_NEWNET = 0x40000000
_OPENAT2 = 437  # the same on all of Linux's architectures but alpha
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - see above
    _type_ = "i"


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - see above
    _type_ = "l"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _LongFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


# The C library, which the interpreter has loaded.
_library = _ctypes.dlopen(None, _ctypes.RTLD_LOCAL)  # type: ignore[arg-type]
_mount = _Function(_ctypes.dlsym(_library, "mount"))
_umount2 = _Function(_ctypes.dlsym(_library, "umount2"))
_setns = _Function(_ctypes.dlsym(_library, "setns"))
_syscall = _LongFunction(_ctypes.dlsym(_library, "syscall"))


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount; raises OSError."""
    _check(_mount(source, target, kind, _Long(flags), options))


def unmount(target: bytes, flags: int) -> None:
    """Unmount; raises OSError."""
    _check(_umount2(target, flags))


def enter_network(namespace: int) -> None:
    """Move this thread into a network namespace that is open; raises OSError."""
    _check(_setns(namespace, _CLONE_NEWNET))


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open a path as a process would whose root directory is the descriptor `root`.

    Links lead nowhere else, those of procfs nowhere at all. Raises OSError, also where the kernel
    has no openat2 (before Linux 5.6) or a sandbox forbids it.
    """
    fields = (flags, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT)
    how = b"".join(field.to_bytes(8, sys.byteorder) for field in fields)
    fd: int = _syscall(_Long(_OPENAT2), root, path, how, _Long(len(how)))
    if fd < 0:
        raise _error()
    return fd


def _check(result: int) -> None:
    if result != 0:
        raise _error()


def _error() -> OSError:
    number = _ctypes.get_errno()
    return OSError(number, posix.strerror(number))
