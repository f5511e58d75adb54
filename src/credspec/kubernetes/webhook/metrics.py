"""What the webhook counts, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class WebhookMetrics:
    """Counters of one webhook."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reviews = Counter(
            "credspec_webhook_reviews",
            "Reviews answered, by what they were for and the code of the refusal.",
            ["endpoint", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "credspec_webhook_review_seconds",
            "How long a review took.",
            ["endpoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._certificate_end = Gauge(
            "credspec_webhook_certificate_end_seconds",
            "When the certificate that is served expires, in seconds since 1970.",
            registry=self._registry,
        )

    def answered(self, endpoint: str, code: str, seconds: float) -> None:
        """Count a review; `code` is that of the error, empty if it was allowed."""
        self._reviews.labels(endpoint, code).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def serves_until(self, moment: float) -> None:
        """Note when the certificate expires, in seconds since 1970."""
        self._certificate_end.set(moment)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self._registry)
