"""mount(2) and umount2(2), without the package `ctypes`.

That imports what takes longer than both; its C part, called as the package does, is enough.
"""

from __future__ import annotations

import _ctypes

_RTLD_NOW = 2


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "i"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_library = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]
_mount = _Function(_ctypes.dlsym(_library, "mount"))
_umount2 = _Function(_ctypes.dlsym(_library, "umount2"))


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount; raises OSError."""
    _check(_mount(source, target, kind, flags, options))


def unmount(target: bytes, flags: int) -> None:
    """Unmount; raises OSError."""
    _check(_umount2(target, flags))


def _check(result: int) -> None:
    if result != 0:
        number = _ctypes.get_errno()
        raise OSError(number, "")
