"""Keep libraries from asking name servers for what they do not need.

libsasl looks up this host's own name for each logon, and libldap once; neither uses the answer for
Kerberos. Where the first name server is silent, each look-up takes glibc's timeouts (5 s and more).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

_INITIALISED: Final = 1  # RES_INIT of resolv.h


class _ResolverState(ctypes.Structure):
    """The head of ``struct __res_state`` (resolv.h): each thread has its own."""

    _fields_ = (
        ("retrans", ctypes.c_int),
        ("retry", ctypes.c_int),
        ("options", ctypes.c_ulong),
        ("nscount", ctypes.c_int),
    )


@contextmanager
def without_name_servers() -> Iterator[None]:
    """Let this thread's look-ups by libc fail at once where ``/etc/hosts`` does not answer them.

    Other threads are not affected. Where libc is not glibc, nothing happens.
    """
    state = _state_of_thread()
    if state is None:
        yield
        return
    before = state.retrans, state.retry, state.nscount
    # A state that is not the configured one is not replaced when resolv.conf changes (glibc 2.26).
    state.retrans, state.retry, state.nscount = 1, 1, 0
    try:
        yield
    finally:
        state.retrans, state.retry, state.nscount = before


def _state_of_thread() -> _ResolverState | None:
    functions = _functions()
    if functions is None:
        return None
    init, state_of_thread = functions
    init()
    state: _ResolverState = state_of_thread().contents
    return state if state.options & _INITIALISED else None


@cache
def _functions() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer] | None:
    # Before glibc 2.34 the first one is in a library of its own.
    for name in ("libc.so.6", "libresolv.so.2"):
        try:
            init = getattr(ctypes.CDLL(name), "__res_init")
            state_of_thread = getattr(ctypes.CDLL("libc.so.6"), "__res_state")
        except (OSError, AttributeError):
            continue
        state_of_thread.restype = ctypes.POINTER(_ResolverState)
        return init, state_of_thread
    return None
