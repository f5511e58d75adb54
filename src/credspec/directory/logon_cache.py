"""Which credential cache a logon takes its tickets from, thread by thread.

libsasl's GSSAPI knows only the default cache; libgssapi_krb5 lets each thread have a default of
its own (MIT krb5, gssapi_ext.h: gss_krb5_ccache_name).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from credspec.errors import CredspecError


@contextmanager
def logon_cache(name: str | None) -> Iterator[None]:
    """Let this thread's logons use a cache, such as ``MEMORY:reader``; None for the default one.

    Raises:
        CredspecError: `gss-cache`.
    """
    if name is None:
        yield
        return
    _set(name.encode())
    try:
        yield
    finally:
        _set(None)


def _set(name: bytes | None) -> None:
    # The same library that libsasl's plug-in has loaded, or will load.
    library = ctypes.CDLL("libgssapi_krb5.so.2")
    minor = ctypes.c_uint32(0)
    major = library.gss_krb5_ccache_name(ctypes.byref(minor), name, None)
    if major:
        raise CredspecError.of("gss-cache", f"GSSAPI error {major}", where="logon")
