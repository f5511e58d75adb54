"""What the webhook counts, for Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import Final

from credspec.metrics_text import Histogram, Metric, Sample, gauge, metrics_text

_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class WebhookMetrics:
    """Counters of one webhook."""

    def __init__(self) -> None:
        self._reviews: Counter[tuple[str, str]] = Counter()
        self._seconds = Histogram("endpoint", _BUCKETS)
        self._certificate_end = 0.0

    def answered(self, endpoint: str, code: str, seconds: float) -> None:
        """Count a review; `code` is that of the error, empty if it was allowed."""
        self._reviews[endpoint, code] += 1
        self._seconds.observe(endpoint, seconds)

    def serves_until(self, moment: float) -> None:
        """Note when the certificate expires, in seconds since 1970."""
        self._certificate_end = moment

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return metrics_text(
            (
                Metric(
                    "credspec_webhook_reviews_total",
                    "counter",
                    "Reviews answered, by what they were for and the code of the refusal.",
                    [
                        Sample(count, {"endpoint": endpoint, "code": code})
                        for (endpoint, code), count in self._reviews.items()
                    ],
                ),
                Metric(
                    "credspec_webhook_review_seconds",
                    "histogram",
                    "How long a review took.",
                    self._seconds.samples(),
                ),
                gauge(
                    "credspec_webhook_certificate_end_seconds",
                    "When the certificate that is served expires, in seconds since 1970.",
                    self._certificate_end,
                ),
            )
        )
