"""What callers see of leases, identities and domains, sent in pieces that hold nobody up.

An unprivileged user sees its own leases, and of identities and domains those that belong to them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from credspec.agent.doors.http.metrics import Snapshot, metrics_text
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.identities.open_domain import DomainStatus
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.record import LeaseRecord
from credspec.errors import NotFoundError
from credspec.http.messages import JSON, Request, Response
from credspec.rate_limit import Clock

_AT_A_TIME: Final = 50
_SEND_SECONDS: Final = 30.0
_METRICS_SECONDS: Final = 1.0


class Listing:
    """The lists; `user` is the unprivileged user who sees them, None for root and the agent's own.

    Metrics are collected once a second for each user at most.
    """

    def __init__(
        self, leases: Leases, identities: Identities, *, clock: Clock = time.monotonic
    ) -> None:
        self._leases = leases
        self._identities = identities
        self._clock = clock
        self._metrics: dict[int | None, tuple[float, bytes]] = {}
        self._collecting = asyncio.Lock()

    def leases(self, user: int | None) -> Iterator[dict[str, Any]]:
        """Return the leases, oldest first."""
        records = self._leases.all()
        return (self._shown(r) for r in records if user is None or r.user == user)

    def lease(self, lease_id: str, user: int | None) -> dict[str, Any]:
        """Return one lease.

        Raises:
            UsageError: `lease-id-invalid`.
            NotFoundError: `lease-not-found`, also if it is another user's.
        """
        record = self._leases.get(lease_id)
        if user is not None and record.user != user:
            raise NotFoundError.of("lease-not-found", "there is no such lease", where=lease_id)
        return self._shown(record)

    def _shown(self, record: LeaseRecord) -> dict[str, Any]:
        return record.to_json() | self._leases.status(record)

    def identities(self, user: int | None) -> Iterator[dict[str, Any]]:
        """Return the identities held, in the order of their names."""
        own = self._own_leases(user)
        return (
            _identity_json(self._identities, identity, own)
            for identity in self._identities.held()
            if own is None or own & identity.holders
        )

    def domains(self, user: int | None) -> Iterator[dict[str, Any]]:
        """Return the domains asked so far, by name."""
        own = self._own_leases(user)
        used = {
            (identity.name.domain, str(identity.name.source or ""))
            for identity in self._identities.held()
            if own is not None and own & identity.holders
        }
        return (
            _domain_json(status)
            for status in self._identities.domains()
            if own is None or (status.domain, status.source) in used
        )

    def acquisitions(self) -> int:
        """Return how many passwords were read that led to a ticket."""
        return self._identities.acquisitions

    async def metrics(self, user: int | None) -> bytes:
        """Return the metrics in Prometheus' text format, at most a second old."""
        async with self._collecting:
            now = self._clock()
            self._metrics = {
                who: known
                for who, known in self._metrics.items()
                if now < known[0] + _METRICS_SECONDS
            }
            known = self._metrics.get(user)
            if known is None:
                own = self._own_leases(user)
                snapshot = Snapshot.of(self._leases, self._identities, own)
                # Formatting thousands of series takes long, and needs nothing that changes.
                known = now, await asyncio.to_thread(metrics_text, snapshot)
                self._metrics[user] = known
            return known[1]

    def _own_leases(self, user: int | None) -> set[str] | None:
        if user is None:
            return None
        return {record.lease_id for record in self._leases.all() if record.user == user}


async def send_list(
    request: Request, name: str, items: Iterable[dict[str, Any]], **more: object
) -> Response:
    """Send ``{..., name: [...]}`` piece by piece; a client that does not read is cut off."""
    exchange = request.exchange
    head = json.dumps({**more, name: []}).removesuffix("]}")
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await exchange.begin(200, {"Content-Type": JSON})
            piece, separator = [head], ""
            for number, item in enumerate(items, 1):
                piece += [separator, json.dumps(item)]
                separator = ", "
                if number % _AT_A_TIME == 0:
                    await exchange.write("".join(piece).encode())
                    piece.clear()
                    await asyncio.sleep(0)
            await exchange.write("".join([*piece, "]}"]).encode())
    except TimeoutError:
        exchange.abort()
    return Response(is_sent=True)


def _identity_json(
    identities: Identities, identity: Identity, own: set[str] | None
) -> dict[str, Any]:
    ticket = identity.ticket
    return {
        "account": identity.name.account,
        "domain": identity.name.domain,
        "host_account": str(identity.name.source) if identity.name.source else None,
        "leases": len(identity.holders if own is None else identity.holders & own),
        "ticket": {
            "principal": ticket.principal if ticket else None,
            "start": identity.start.isoformat(),
            "end": identity.end.isoformat(),
            "enctype": ticket.enctype if ticket else None,
        },
        "password_due": _moment(identity.password_due),
        "refresh_at": _moment(identities.refresh_at(identity.name)),
        "last_error": str(identity.last_error) if identity.last_error else None,
    }


def _domain_json(status: DomainStatus) -> dict[str, Any]:
    return {
        "domain": status.domain,
        "host_account": status.source or None,
        "controller": status.controller,
        "latency_seconds": status.latency,
        "outage_since": _moment(status.outage_since),
        "last_error": str(status.last_error) if status.last_error else None,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
