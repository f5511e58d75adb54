"""Tickets of services by a TGT, also of other realms (RFC 4120 3.3), without Python's lock.

Whoever logs on at a service gets the ticket, but libsasl keeps Python's lock while it waits for a
KDC, or for several, where trusts lead through realms. The binding of libkrb5 has no call for it.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int32, c_uint32, c_void_p
from functools import cache

from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.tickets import UNREACHABLE

_LIBRARY = "libkrb5.so.3"


class _Data(ctypes.Structure):
    """``krb5_data`` of krb5.h."""

    _fields_ = (("magic", c_int32), ("length", c_uint32), ("data", c_void_p))


def get_service_ticket_by_tgt(cache_name: str, service: str) -> None:
    """Put the ticket of a service, such as ``ldap/dc1.example.test``, into the cache of a TGT.

    One that is there already is left. If a KDC refuses, or no trust leads there, nothing happens:
    the logon at the service tells why. Blocks on KDCs while other threads run.

    Raises:
        UnreachableError: `kdc-unreachable`.
        CredspecError: `kerberos`: the library cannot be used.
    """
    library = _library()
    context, ccache, exchange = c_void_p(), c_void_p(), c_void_p()
    request = _Data()
    kind, _, host = service.partition("/")
    where = f"ticket of {service}"
    code = library.krb5_init_context(byref(context))
    if code != 0:
        raise CredspecError.of("kerberos", f"Kerberos error {code}", where=where)
    try:
        code = library.krb5_cc_resolve(context, cache_name.encode(), byref(ccache))
        if code == 0:
            # It makes a request to the service as well, which nobody needs.
            code = library.krb5_mk_req(
                *(context, byref(exchange), 0, kind.encode(), host.encode()),
                *(None, ccache, byref(request)),
            )
        if code in UNREACHABLE:
            raise UnreachableError.of(
                "kdc-unreachable",
                "no domain controller of a realm on the way answers on port 88",
                where=where,
                remedy="check DNS and the network path to the controllers of both domains (TCP 88)",
            )
    finally:
        if request.data:
            library.krb5_free_data_contents(context, byref(request))
        if exchange.value:
            library.krb5_auth_con_free(context, exchange)
        if ccache.value:
            library.krb5_cc_close(context, ccache)
        library.krb5_free_context(context)


@cache
def _library() -> ctypes.CDLL:
    """Load what the binding uses as well: caches in memory are shared."""
    library = ctypes.CDLL(_LIBRARY)
    pointer = ctypes.POINTER
    library.krb5_init_context.argtypes = (pointer(c_void_p),)
    library.krb5_cc_resolve.argtypes = (c_void_p, c_char_p, pointer(c_void_p))
    library.krb5_mk_req.argtypes = (
        *(c_void_p, pointer(c_void_p), c_int32, c_char_p, c_char_p),
        *(pointer(_Data), c_void_p, pointer(_Data)),
    )
    library.krb5_free_data_contents.argtypes = (c_void_p, pointer(_Data))
    for name in ("krb5_auth_con_free", "krb5_cc_close"):
        getattr(library, name).argtypes = (c_void_p, c_void_p)
    library.krb5_free_context.argtypes = (c_void_p,)
    return library
