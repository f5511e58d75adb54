"""Credential caches of type FILE, version 4 (MIT krb5: "Credential cache file format").

The bytes are made in memory, so that one ticket can be copied to many containers and nothing is
ever written half.
"""

from __future__ import annotations

import struct
from typing import Final

_VERSION_4: Final = b"\x05\x04"
_NO_HEADER_FIELDS: Final = b"\x00\x00"
_NT_PRINCIPAL: Final = 1


def ccache_bytes(principal: str, *credentials: bytes) -> bytes:
    """Return the content of a FILE cache.

    `principal` is the default principal, such as ``WebApp01$@EXAMPLE.TEST``; `credentials` are
    marshalled in the format of version 4, as `krb5.marshal_credentials` returns them.
    """
    return b"".join([_VERSION_4, _NO_HEADER_FIELDS, principal_bytes(principal), *credentials])


def principal_bytes(principal: str) -> bytes:
    """Return a principal, such as ``HTTP/www.example.test@EXAMPLE.TEST``, as caches hold it."""
    name, _, realm = principal.rpartition("@")
    components = name.split("/")
    packed = [struct.pack(">II", _NT_PRINCIPAL, len(components)), _counted(realm)]
    return b"".join([*packed, *map(_counted, components)])


def _counted(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data
