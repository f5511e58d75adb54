"""The metrics for Prometheus, collected at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from credspec.agent import loop_watch
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.open_domain import DomainStatus
from credspec.agent.leases.leases import Leases

_RESULTS = ("granted", "denied", "failed")


@dataclass(frozen=True, slots=True)
class _Times:
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
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot
        yield GaugeMetricFamily("credspec_leases", "Leases held.", now.leases)
        yield GaugeMetricFamily("credspec_identities", "Identities held.", len(now.identities))
        for name, text, count in (
            ("acquisitions", "Password reads that led to a ticket.", now.acquisitions),
            ("acquisition_failures", "Acquisitions that failed.", now.failures),
            ("leases_granted", "Leases made.", now.granted),
            ("leases_denied", "Leases refused.", now.denied),
        ):
            yield CounterMetricFamily(f"credspec_{name}", text, count)
        yield self._labelled(
            "credspec_service_tickets",
            "Decisions about tickets of services.",
            "result",
            self._snapshot.service_tickets,
        )
        yield self._labelled(
            "credspec_services_denied",
            "Requests of a lease for services that it may not have.",
            "lease",
            self._snapshot.services_denied,
        )
        yield self._moments("credspec_ticket_start", "When the ticket starts", lambda i: i.start)
        yield self._moments("credspec_ticket_end", "When the ticket ends", lambda i: i.end)
        yield self._moments(
            "credspec_password_due",
            "When the password is to be read again",
            lambda i: i.password_due,
        )
        yield self._moments(
            "credspec_refresh", "When the identity is acquired again", lambda i: i.refresh_at
        )
        yield from self._domains()
        if now.longest_hold is not None:
            wall, processor = now.longest_hold
            yield GaugeMetricFamily(
                "credspec_event_loop_longest_hold_seconds",
                "The longest time in which no request was answered, since the start.",
                wall,
            )
            yield GaugeMetricFamily(
                "credspec_event_loop_longest_processor_seconds",
                "The most processor time that one turn of the event loop took, since the start.",
                processor,
            )

    @staticmethod
    def _labelled(
        name: str, text: str, label: str, counts: tuple[tuple[str, int], ...]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=[label])
        for value, count in counts:
            family.add_metric([value], count)
        return family

    def _moments(self, name: str, text: str, of: Callable[[_Times], datetime | None]) -> Metric:
        family = GaugeMetricFamily(
            f"{name}_seconds", f"{text}, in seconds since 1970.", labels=["account", "domain"]
        )
        for identity in self._snapshot.identities:
            moment = of(identity)
            if moment is not None:
                family.add_metric([identity.account, identity.domain], moment.timestamp())
        return family

    def _domains(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "credspec_domain_up", "Whether the domain answered last time.", labels=["domain"]
        )
        latency = GaugeMetricFamily(
            "credspec_domain_latency_seconds",
            "How long the last read of a password took.",
            labels=["domain", "controller"],
        )
        for status in self._snapshot.domains:
            domain = _label(status.domain, status.source)
            up.add_metric([domain], 0 if status.outage_since else 1)
            if status.latency is not None:
                latency.add_metric([domain, status.controller or ""], status.latency)
        yield up
        yield latency


def _label(domain: str, source: str) -> str:
    """Return what tells the series of one domain apart, by what this host logs on with."""
    return f"{domain} ({source})" if source else domain
