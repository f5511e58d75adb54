"""The metrics for Prometheus, collected at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from credspec.agent import loop_watch
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.open_domain import DomainStatus
from credspec.agent.leases.leases import Leases
from credspec.metrics_text import Metric, Sample, counter, gauge
from credspec.metrics_text import metrics_text as text_of

_RESULTS = ("granted", "denied", "refused", "failed")


class _Times(NamedTuple):
    """The moments of an identity; `domain` tells apart what this host logs on with, too."""

    account: str
    domain: str
    start: datetime
    end: datetime
    password_due: datetime | None
    refresh_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All numbers as they are at one moment; nothing in it changes any more."""

    leases: int
    acquisitions: int
    failures: int
    granted: int
    denied: int
    service_tickets: tuple[tuple[str, int], ...]
    services_denied: tuple[tuple[str, int], ...]
    service_ticket_seconds: tuple[Sample, ...]
    identities: tuple[_Times, ...]
    domains: tuple[DomainStatus, ...]
    longest_hold: tuple[float, float] | None

    @classmethod
    def of(cls, leases: Leases, identities: Identities, own: set[str] | None = None) -> Snapshot:
        """Take a snapshot; with `own`, of identities only those that these leases hold."""
        held = [i for i in identities.held() if own is None or own & i.holders]
        names = {(i.name.domain, str(i.name.source or "")) for i in held}
        watched = loop_watch.selector
        return cls(
            leases=leases.count if own is None else len(own),
            acquisitions=identities.acquisitions,
            failures=identities.failures,
            granted=leases.granted,
            denied=leases.denied,
            service_tickets=tuple(
                (result, leases.service_audit.counts[result]) for result in _RESULTS
            ),
            services_denied=tuple(
                (lease_id, count)
                for lease_id, count in leases.service_audit.denied_by_lease.items()
                if own is None or lease_id in own
            ),
            service_ticket_seconds=tuple(leases.service_audit.seconds.samples()),
            identities=tuple(
                _Times(
                    identity.name.account,
                    _label(identity.name.domain, str(identity.name.source or "")),
                    identity.start,
                    identity.end,
                    identity.password_due,
                    identities.refresh_at(identity.name),
                )
                for identity in held
            ),
            domains=tuple(
                status
                for status in identities.domains()
                if own is None or (status.domain, status.source) in names
            ),
            longest_hold=None if watched is None else (watched.longest, watched.longest_processor),
        )


def metrics_text(snapshot: Snapshot) -> bytes:
    """Return the metrics in Prometheus' text format."""
    return text_of(_metrics(snapshot))


def _metrics(now: Snapshot) -> Iterator[Metric]:
    yield gauge("credspec_leases", "Leases held.", now.leases)
    yield gauge("credspec_identities", "Identities held.", len(now.identities))
    for name, text, count in (
        ("acquisitions", "Password reads that led to a ticket.", now.acquisitions),
        ("acquisition_failures", "Acquisitions that failed.", now.failures),
        ("leases_granted", "Leases made.", now.granted),
        ("leases_denied", "Leases refused.", now.denied),
    ):
        yield counter(f"credspec_{name}", text, count)
    yield Metric(
        "credspec_service_tickets_total",
        "counter",
        "Decisions about tickets of services.",
        [Sample(count, {"result": result}) for result, count in now.service_tickets],
    )
    yield Metric(
        "credspec_services_denied_total",
        "counter",
        "Requests of a lease for services that it may not have.",
        [Sample(count, {"lease": lease}) for lease, count in now.services_denied],
    )
    yield Metric(
        "credspec_service_ticket_seconds",
        "histogram",
        "For how long containers with a broker waited for a ticket, by where it came from.",
        now.service_ticket_seconds,
    )
    moments: tuple[tuple[str, str, Callable[[_Times], datetime | None]], ...] = (
        ("ticket_start", "When the ticket starts", lambda i: i.start),
        ("ticket_end", "When the ticket ends", lambda i: i.end),
        ("password_due", "When the password is to be read again", lambda i: i.password_due),
        ("refresh", "When the identity is acquired again", lambda i: i.refresh_at),
    )
    for name, text, of in moments:
        yield Metric(
            f"credspec_{name}_seconds",
            "gauge",
            f"{text}, in seconds since 1970.",
            [
                Sample(moment.timestamp(), {"account": each.account, "domain": each.domain})
                for each in now.identities
                if (moment := of(each)) is not None
            ],
        )
    yield from _domains(now)
    if now.longest_hold is not None:
        wall, processor = now.longest_hold
        yield gauge(
            "credspec_event_loop_longest_hold_seconds",
            "The longest time in which no request was answered, since the start.",
            wall,
        )
        yield gauge(
            "credspec_event_loop_longest_processor_seconds",
            "The most processor time that one turn of the event loop took, since the start.",
            processor,
        )


def _domains(now: Snapshot) -> Iterator[Metric]:
    named = [(_label(status.domain, status.source), status) for status in now.domains]
    yield Metric(
        "credspec_domain_up",
        "gauge",
        "Whether the domain answered last time.",
        [Sample(not status.outage_since, {"domain": domain}) for domain, status in named],
    )
    yield Metric(
        "credspec_domain_latency_seconds",
        "gauge",
        "How long the last read of a password took.",
        [
            Sample(status.latency, {"domain": domain, "controller": status.controller or ""})
            for domain, status in named
            if status.latency is not None
        ],
    )


def _label(domain: str, source: str) -> str:
    """Return what tells the series of one domain apart, by what this host logs on with."""
    return f"{domain} ({source})" if source else domain
