"""The record of a lease: what the journal keeps of it and the API shows. It holds no secret."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from credspec.agent.leases.homes import is_place
from credspec.config.policy import GRPC_SOURCE, SPEC_SOURCES
from credspec.contract.service_names import TGT, TICKETS, parts_of
from credspec.directory.account_identity import valid_account_name
from credspec.directory.domain_names import valid_domain
from credspec.errors import UsageError
from credspec.kerberos.service_names import ServiceName
from credspec.providers.provider import is_source_record

LEASE_ID: Final = re.compile(r"[0-9a-f]{32}")
"""What a lease's id looks like; anything else never becomes a path."""

_MAX_NUMBER: Final = 2**32
OWN_FIELDS: Final = ("lease_id", "container", "runtime_state", "created", "created_monotonic")
"""What no two leases have alike."""

_TEXTS: Final = ("domain", "default_account")
# What lies outside is no time of a ticket, and arithmetic with it would overflow.
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_FLAGS: Final = ("ready", "keytab", "name_fallback", "replay_cache", "revoked")
_TIMES: Final = ("created", "ticket_start", "ticket_end", "keytab_due")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What is known of a lease.

    `container` is the runtime's id of the container and `runtime_state` the directory in which the
    runtime keeps it as long as it exists, or the lock of a process (`LeaseDirectory.lock`); `uid`
    and `gid` are the host's numbers of its user; `user` is the unprivileged user who made it, None
    for the host's own. `default_account` and `accounts` are without ``$``; `ready` tells whether
    the container was given its tickets, `ticket_start` and `ticket_end` from when to when all of
    them are good. `mode` is that of the files; with `keytab` there is one of all accounts, and
    `keytab_due` is when it must be made again. `name_fallback` is whether its krb5.conf may
    have ``dns_canonicalize_hostname = fallback``, `replay_cache` whether the directory has one for
    replay caches. `host_source` is what the host logs on with, if it
    is not the machine identity: `guid` and `input` of a plug-in, without `input` where that may
    hold a secret; empty for an account that came with the request. `place` is the directory of a
    lease that has its files in a tree of others. `spec_source` tells where its spec came from:
    ``file``, ``raw``, or ``grpc`` for a call that brought it. `created_monotonic` is when it was
    made by the clock that is never set (CLOCK_MONOTONIC), in seconds, None if that is unknown.
    `tickets` is what its files hold, one of `service_names.TICKETS`, and `services` are the names
    or patterns of what it asked for; `revoked` says that root cut it off, until its container ends.
    `kdc_port` is the port of its container's loopback at which the agent is its KDC.
    """

    lease_id: str
    container: str
    runtime_state: str
    uid: int
    gid: int
    domain: str
    default_account: str
    accounts: tuple[str, ...]
    created: datetime
    ready: bool = False
    ticket_start: datetime | None = None
    ticket_end: datetime | None = None
    user: int | None = None
    mode: int = 0o600
    keytab: bool = False
    keytab_due: datetime | None = None
    name_fallback: bool = False
    replay_cache: bool = False
    host_source: dict[str, str] | None = field(default=None, repr=False, hash=False)
    place: str | None = None
    spec_source: str = "file"
    created_monotonic: float | None = None
    tickets: str = TGT
    services: tuple[str, ...] = ()
    revoked: bool = False
    kdc_port: int | None = None

    @property
    def has_tgt(self) -> bool:
        """Whether its files hold a ticket-granting ticket."""
        return self.tickets == TGT

    @property
    def service_names(self) -> tuple[ServiceName, ...]:
        """The services that it asked for by their full names; patterns are left out."""
        return full_names(self.services)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        # Not asdict, which copies every value deeply.
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values["accounts"] = list(self.accounts)
        values["services"] = list(self.services)
        for name in _TIMES:
            values[name] = None if values[name] is None else values[name].isoformat()
        return values


def full_names(services: Iterable[str]) -> tuple[ServiceName, ...]:
    """Return the full names among names and patterns of services."""
    return tuple(name for name in map(ServiceName.parse, services) if name is not None)


_FIELDS: Final = frozenset(each.name for each in fields(LeaseRecord))


def valid_id(lease_id: str) -> str:
    """Return a lease's id.

    Raises:
        UsageError: `lease-id-invalid`.
    """
    if not LEASE_ID.fullmatch(lease_id):
        raise UsageError.of(
            "lease-id-invalid",
            f"{lease_id[:80]!r} is not a lease id",
            expected="32 hexadecimal digits",
        )
    return lease_id


def record_from_json(lease_id: str, raw: dict[str, Any]) -> LeaseRecord:
    """Return the record of a lease of which every field is what `LeaseRecord.to_json` returns.

    `raw` may be anything. Fields that are not known are ignored.

    Raises:
        Exception: of any kind, if it is not such a record.
    """
    raw = {name: value for name, value in raw.items() if name in _FIELDS}
    for name in _TIMES:
        if raw.get(name) is not None or name == "created":
            raw[name] = datetime.fromisoformat(raw[name]).astimezone(UTC)
    raw["accounts"] = tuple(raw["accounts"])
    raw["services"] = tuple(raw.get("services") or ())
    if raw.get("place") is not None:
        raw.setdefault("spec_source", GRPC_SOURCE)  # of a version that did not say
    record = LeaseRecord(**raw)
    start, end = record.ticket_start, record.ticket_end
    is_sound = (
        _is_own_sound(lease_id, record)
        and all(isinstance(getattr(record, name), str) for name in _TEXTS)
        and all(_is_number(number) for number in (record.uid, record.gid, record.mode))
        and (record.user is None or _is_number(record.user))
        and all(type(getattr(record, name)) is bool for name in _FLAGS)
        and is_place(record.place)
        and record.spec_source in {*SPEC_SOURCES, GRPC_SOURCE}
        and is_source_record(record.host_source)
        and record.tickets in TICKETS
        and (record.kdc_port is None or _is_number(record.kdc_port))
        and all(_is_service(service) for service in record.services)
        and (start is None or end is None or start <= end)
        and all(_EARLIEST < getattr(record, name) < _LATEST for name in _given_times(record))
    )
    if not is_sound or not record.accounts:
        raise ValueError("not a record")
    accounts = [each.partition("@") for each in {record.default_account, *record.accounts}]
    for domain in {record.domain, *(domain or record.domain for _, _, domain in accounts)}:
        valid_domain(domain)
    for name, _, _ in accounts:
        valid_account_name(name)
    return record


def record_alike(lease_id: str, own: dict[str, Any], rest: dict[str, Any]) -> LeaseRecord:
    """Return the record that `record_from_json` returns of `OWN_FIELDS` and the `rest`.

    `own` may be anything, and is used up; `rest` are the values of the other fields of a record
    that it returned.

    Raises:
        Exception: of any kind, if it is not such a record.
    """
    created = datetime.fromisoformat(own.pop("created")).astimezone(UTC)
    record = LeaseRecord(**own, **rest, created=created)
    if not _is_own_sound(lease_id, record):
        raise ValueError("not a record")
    return record


def _is_own_sound(lease_id: str, record: LeaseRecord) -> bool:
    """Return whether each of `OWN_FIELDS` is what a lease has."""
    return (
        record.lease_id == lease_id
        and type(record.container) is str
        and type(record.runtime_state) is str
        and "\0" not in record.runtime_state
        and _is_moment(record.created_monotonic)
        and _EARLIEST < record.created < _LATEST
    )


def _given_times(record: LeaseRecord) -> list[str]:
    return [name for name in _TIMES if getattr(record, name) is not None]


def _is_service(service: object) -> bool:
    return isinstance(service, str) and parts_of(service, is_pattern=True) is not None


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_NUMBER


def _is_moment(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isfinite(value))
