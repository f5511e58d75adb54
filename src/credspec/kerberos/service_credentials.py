"""Tickets of services for an account, by its TGT, which stays in memory (RFC 4120 3.3).

The TGT is neither forwarded nor renewed with them, whatever it allows itself. Every call blocks
until a KDC answers or the library gives up, while other threads run.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from contextlib import ExitStack
from ctypes import byref, c_void_p
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from credspec.kerberos.ccache import ccache_bytes, principal_bytes
from credspec.kerberos.kdc_errors import error_of
from credspec.kerberos.libkrb5 import Credentials, Data, TicketHead, libkrb5
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.tickets import Ticket

_NO_STORE: Final = 8  # KRB5_GC_NO_STORE of krb5.h
# Flags of a TGT that libkrb5 asks for again: forwardable, proxiable, may-postdate, renewable.
_INHERITED: Final = 0x54800000

_numbers: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class ServiceTicket:
    """A ticket of one service, with its session key; neither shows in the repr.

    `client` is the account's principal, `realm` that of the KDC which gave the ticket. `start` and
    `end` are UTC, `authenticated` is when the account logged on. `flags` are those of the ticket
    (RFC 4120 5.3), `enctype` is that of the session key.
    """

    service: ServiceName
    client: str
    realm: str
    authenticated: datetime
    start: datetime
    end: datetime
    flags: int
    enctype: int
    key: bytes = field(repr=False)
    ticket: bytes = field(repr=False)

    def credentials(self) -> tuple[bytes, ...]:
        """Return its records for a FILE cache, one for each name that clients look it up by.

        A client that knows the realm of a host asks for it there, another in its own realm.
        """
        own = self.client.rpartition("@")[2]
        realms = dict.fromkeys((self.realm, own))
        return tuple(
            self._record(f"{spelling}@{realm}")
            for realm in realms
            for spelling in self.service.spellings
        )

    def _record(self, server: str) -> bytes:
        times = (self.authenticated, self.start, self.end)
        return b"".join(
            (
                principal_bytes(self.client),
                principal_bytes(server),
                struct.pack(">HI", self.enctype, len(self.key)),
                self.key,
                struct.pack(">4I", *(int(time.timestamp()) for time in times), 0),
                # No user-to-user key; no addresses; no authorization data.
                struct.pack(">BIII", 0, self.flags, 0, 0),
                struct.pack(">I", len(self.ticket)),
                self.ticket,
                struct.pack(">I", 0),
            )
        )


def services_ccache(principal: str, tickets: list[ServiceTicket]) -> bytes:
    """Return a FILE cache of tickets of services; there is no TGT in it."""
    return ccache_bytes(principal, *(record for each in tickets for record in each.credentials()))


def get_service_ticket(tgt: Ticket, service: ServiceName, life: timedelta) -> ServiceTicket:
    """Get a ticket of a service for the account of a TGT, of another realm where trusts lead.

    It lives for `life`, or until the TGT ends.

    Raises:
        ServiceUnknownError: `kdc-service-unknown`.
        UnreachableError: `kdc-unreachable`.
        NotPermittedError: a KDC refused.
        CredspecError: `kerberos`.
    """
    library = libkrb5()
    context, ccache, server = c_void_p(), c_void_p(), c_void_p()
    head = ctypes.POINTER(TicketHead)()
    held, found = ctypes.POINTER(Credentials)(), ctypes.POINTER(Credentials)()
    wanted = Credentials()
    realm = tgt.principal.rpartition("@")[2]

    def check(code: int) -> None:
        if code != 0:
            raise error_of(code, f"Kerberos error {code}", str(service))

    record = tgt.ccache[len(ccache_bytes(tgt.principal)) :]
    buffer = ctypes.create_string_buffer(record, len(record))
    with ExitStack() as stack:
        stack.callback(ctypes.memset, buffer, 0, len(record))
        check(library.krb5_init_context(byref(context)))
        stack.callback(library.krb5_free_context, context)
        data = Data(0, len(record), ctypes.cast(buffer, c_void_p))
        check(library.krb5_unmarshal_credentials(context, byref(data), byref(held)))
        stack.callback(library.krb5_free_creds, context, held)
        held.contents.flags &= ~_INHERITED & 0xFFFFFFFF
        cache = f"MEMORY:credspec-tgs-{next(_numbers)}"
        check(library.krb5_cc_resolve(context, cache.encode(), byref(ccache)))
        stack.callback(library.krb5_cc_destroy, context, ccache)
        check(library.krb5_cc_initialize(context, ccache, held.contents.client))
        check(library.krb5_cc_store_cred(context, ccache, held))
        name = f"{service.spn}@{service.realm or realm}"
        check(library.krb5_parse_name(context, name.encode(), byref(server)))
        stack.callback(library.krb5_free_principal, context, server)
        if service.realm is None:
            # The account's own KDC refers to another realm if the service is there.
            check(library.krb5_set_principal_realm(context, server, b""))
        wanted.client, wanted.server = held.contents.client, server
        now = datetime.now(UTC)
        wanted.endtime = int((now + life).timestamp())
        check(library.krb5_get_credentials(context, _NO_STORE, ccache, byref(wanted), byref(found)))
        stack.callback(library.krb5_free_creds, context, found)
        # Of the name only the ticket has the realm, after referrals.
        check(library.krb5_decode_ticket(byref(found.contents.ticket), byref(head)))
        stack.callback(library.krb5_free_ticket, context, head)
        sealed = head.contents.server.contents.realm
        realm = _bytes(sealed.data, sealed.length).decode()
        return _ticket(found.contents, service, tgt.principal, realm, now)


def _ticket(
    found: Credentials, service: ServiceName, client: str, realm: str, now: datetime
) -> ServiceTicket:
    return ServiceTicket(
        service=service,
        client=client,
        realm=realm,
        authenticated=datetime.fromtimestamp(found.authtime, UTC),
        start=datetime.fromtimestamp(found.starttime, UTC) if found.starttime else now,
        end=datetime.fromtimestamp(found.endtime, UTC),
        flags=found.flags,
        enctype=found.key.enctype,
        key=_bytes(found.key.contents, found.key.length),
        ticket=_bytes(found.ticket.data, found.ticket.length),
    )


def _bytes(address: int | None, length: int) -> bytes:
    return ctypes.string_at(address, length) if address else b""
