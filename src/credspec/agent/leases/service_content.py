"""The files of a lease with tickets of services: caches without a TGT, a krb5.conf without KDC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.content import cache_name, default_paths
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import CredspecError
from credspec.kerberos.ccache import ccache_bytes
from credspec.kerberos.ccache_reader import CacheMalformedError, read_ccache
from credspec.kerberos.krb5_conf import services_krb5_conf
from credspec.kerberos.service_credentials import ServiceTicket
from credspec.kerberos.service_names import ServiceName


@dataclass(frozen=True, slots=True)
class HeldTicket:
    """A ticket of a service as a lease's cache has it: the client's name, times, and its records.

    `start` is None where only the file was there to tell.
    """

    client: str
    start: datetime | None
    end: datetime
    records: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, ticket: ServiceTicket) -> HeldTicket:
        """Return what a cache has of a ticket."""
        return cls(ticket.client, ticket.start, ticket.end, ticket.credentials())


class ServiceState(NamedTuple):
    """A service of a lease for one of its identities: its ticket, and why there is no newer one."""

    identity: IdentityName
    service: ServiceName
    ticket: HeldTicket | None = None
    error: CredspecError | None = None

    def kept(self, former: HeldTicket | None, now: datetime) -> ServiceState:
        """Return it with the former ticket where it has none, until that ends."""
        if self.ticket is not None or former is None or former.end <= now:
            return self
        return self._replace(ticket=former)

    def to_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "service": self.service.text,
            "account": f"{self.identity.account}@{self.identity.domain}",
            "end": None if self.ticket is None else self.ticket.end.isoformat(),
            "error": None if self.error is None else str(self.error),
        }


def service_files(
    record: LeaseRecord, states: Iterable[ServiceState], directory: str | None
) -> dict[str, bytes]:
    """Return the files of a lease; of an identity without any ticket there is no cache.

    `directory` is the lease's as its programs see it; None if unknown.
    """
    by_identity: dict[IdentityName, list[HeldTicket]] = {}
    for state in states:
        if state.ticket is not None:
            by_identity.setdefault(state.identity, []).append(state.ticket)
    paths = None if directory is None else default_paths(record, directory)
    conf = services_krb5_conf(record.domain.upper(), paths=paths)
    files = {"krb5.conf": conf.encode()}
    is_single = len({account.lower() for account in record.accounts}) == 1
    for identity, tickets in by_identity.items():
        cache = ccache_bytes(tickets[0].client, *(r for each in tickets for r in each.records))
        if not is_single:
            files[cache_name(record, identity)] = cache
        if (identity.account, identity.domain) == _default(record):
            files["krb5cc"] = cache
    return files


def held_in_files(
    record: LeaseRecord, wanted: Iterable[ServiceState], files: Mapping[str, bytes], now: datetime
) -> dict[tuple[IdentityName, ServiceName], HeldTicket]:
    """Return the tickets that are in a lease's files; what cannot be read is left out.

    The container may have written them: they are of use only to be left where they are.
    """
    found: dict[tuple[IdentityName, ServiceName], HeldTicket] = {}
    for state in wanted:
        identity = state.identity
        is_default = (identity.account, identity.domain) == _default(record)
        data = files.get("krb5cc" if is_default else cache_name(record, identity), b"")
        try:
            cache = read_ccache(data)
        except (CacheMalformedError, ValueError, OverflowError):
            continue
        client = f"{identity.account}$@{identity.domain}".lower()
        records = [
            each
            for each in cache.records
            if each.client.lower() == client
            and each.server.partition("@")[0] in state.service.spellings
            and each.end > now
        ]
        if records:
            end = min(each.end for each in records)
            held = HeldTicket(records[0].client, None, end, tuple(each.data for each in records))
            found[identity, state.service] = held
    return found


def _default(record: LeaseRecord) -> tuple[str, str]:
    return record.default_account.lower(), record.domain.lower()
