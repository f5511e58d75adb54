"""What Prometheus is told, taken at the moment when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from credspec.agent.identities import Identities, Identity
from credspec.agent.leases import Leases


def metrics_text(leases: Leases, identities: Identities) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(leases, identities))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, leases: Leases, identities: Identities) -> None:
        self._leases = leases
        self._identities = identities

    def collect(self) -> Iterator[Metric]:
        held = self._identities.held()
        yield GaugeMetricFamily("credspec_leases", "Leases held.", len(self._leases.all()))
        yield GaugeMetricFamily("credspec_identities", "Identities held.", len(held))
        for name, text, count in (
            ("acquisitions", "Password reads that led to a ticket.", self._identities.acquisitions),
            ("acquisition_failures", "Acquisitions that failed.", self._identities.failures),
            ("leases_granted", "Leases made.", self._leases.granted),
            ("leases_denied", "Leases refused.", self._leases.denied),
        ):
            yield CounterMetricFamily(f"credspec_{name}", text, count)
        yield _moments("credspec_ticket_start", "When the ticket starts", held, lambda i: i.start)
        yield _moments("credspec_ticket_end", "When the ticket ends", held, lambda i: i.end)
        yield _moments(
            "credspec_password_due",
            "When the password is to be asked for again",
            held,
            lambda i: i.password_due,
        )
        yield _moments(
            "credspec_refresh",
            "When the identity is acquired again",
            held,
            lambda i: self._identities.refresh_at(i.name),
        )
        yield from self._domains()

    def _domains(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "credspec_domain_up", "Whether the domain answered last time.", labels=["domain"]
        )
        latency = GaugeMetricFamily(
            "credspec_domain_latency_seconds",
            "How long the last read of a password took.",
            labels=["domain", "controller"],
        )
        for status in self._identities.domains():
            domain = _label(status.domain, status.source)
            up.add_metric([domain], 0 if status.outage_since else 1)
            if status.latency is not None:
                latency.add_metric([domain, status.controller or ""], status.latency)
        yield up
        yield latency


def _moments(
    name: str, text: str, held: list[Identity], of: Callable[[Identity], datetime | None]
) -> Metric:
    family = GaugeMetricFamily(
        f"{name}_seconds", f"{text}, in seconds since 1970.", labels=["account", "domain"]
    )
    for identity in held:
        moment = of(identity)
        if moment is not None:
            domain = _label(identity.name.domain, str(identity.name.source or ""))
            family.add_metric([identity.name.account, domain], moment.timestamp())
    return family


def _label(domain: str, source: str) -> str:
    """Return what tells the series of one domain apart, by what this host logs on with."""
    return f"{domain} ({source})" if source else domain
