"""Tickets of services by a TGT, also of other realms (RFC 4120 3.3), without the GIL.

A logon at a service gets the ticket as well, but libsasl holds the GIL while it waits for a
KDC, or for several, where trusts lead through realms. The binding of libkrb5 has no call for it.
"""

from __future__ import annotations

import contextlib
from ctypes import byref, c_void_p

from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.kdc_errors import UNREACHABLE
from credspec.kerberos.libkrb5 import Data, libkrb5


def get_service_ticket_by_tgt(cache_name: str, service: str) -> None:
    """Put the ticket of a service, such as ``ldap/dc1.example.test``, into the cache of a TGT.

    One that is there already is left. If a KDC refuses, or no trust leads there, nothing happens:
    the logon at the service tells why. Blocks on KDCs while other threads run.

    Raises:
        UnreachableError: `kdc-unreachable`.
        CredspecError: `kerberos`: the library cannot be used.
    """
    library = libkrb5()
    context, ccache, exchange = c_void_p(), c_void_p(), c_void_p()
    request = Data()
    kind, _, host = service.partition("/")
    where = f"ticket of {service}"
    code = library.krb5_init_context(byref(context))
    if code != 0:
        raise CredspecError.of("kerberos", f"Kerberos error {code}", where=where)
    try:
        code = library.krb5_cc_resolve(context, cache_name.encode(), byref(ccache))
        if code == 0:
            # It makes a request to the service as well, which is not needed.
            code = library.krb5_mk_req(
                *(context, byref(exchange), 0, kind.encode(), host.encode()),
                *(None, ccache, byref(request)),
            )
        if code in UNREACHABLE:
            raise UnreachableError.of(
                "kdc-unreachable",
                "no domain controller of a realm in between answers on port 88",
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


def realms_of_service(cache_name: str | None, service: str) -> frozenset[str]:
    """Return the realms whose KDCs gave the tickets of a service that are in a credential cache.

    The name of a ticket's realm comes sealed from the KDC that gave it (RFC 4120 5.4.2), so it
    tells what the service's host is a member of, whatever DNS says. `cache_name` is None for the
    process's default cache. Empty if there is no such ticket, or the cache cannot be read.
    """
    import krb5

    realms: set[str] = set()
    context = krb5.init_context()
    # Callers' caches may be of kinds that cannot be listed.
    with contextlib.suppress(krb5.Krb5Error):
        if cache_name is None:
            cache = krb5.cc_default(context)
        else:
            cache = krb5.cc_resolve(context, cache_name.encode())
        for credentials in cache:
            name, _, realm = (credentials.server.name or b"").decode().rpartition("@")
            if name.lower() == service.lower() and realm:
                realms.add(realm)
    return frozenset(realms)
