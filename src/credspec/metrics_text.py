"""Metrics in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of `metrics_text`."""

_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Sample(NamedTuple):
    """A value with its labels; `suffix` follows the metric's name, as ``_sum`` of a histogram."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its whole name, its type (``gauge``, ``counter``, ``histogram``), what it is."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample] = field(default_factory=list)


class Histogram:
    """How often something took how many seconds, for each value of one label.

    `bounds` are those of the buckets, in seconds, from the shortest.
    """

    def __init__(self, label: str, bounds: Sequence[float]) -> None:
        self._label, self._bounds = label, bounds
        self._seconds: dict[str, float] = {}
        self._buckets: dict[str, list[int]] = {}

    def observe(self, value: str, seconds: float) -> None:
        """Count one that took so long; `value` is the label's."""
        self._seconds[value] = self._seconds.get(value, 0.0) + seconds
        buckets = self._buckets.setdefault(value, [0] * (len(self._bounds) + 1))
        buckets[bisect_left(self._bounds, seconds)] += 1

    def samples(self) -> Iterator[Sample]:
        """Return buckets, count and sum as they are now."""
        for value, buckets in self._buckets.items():
            named = {self._label: value}
            bounds = [*map(repr, self._bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(buckets), strict=True):
                yield Sample(count, {**named, "le": bound}, "_bucket")
            yield Sample(sum(buckets), named, "_count")
            yield Sample(self._seconds[value], named, "_sum")


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return Metric(name, "gauge", text, [Sample(value)])


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels; ``_total`` is put behind its name."""
    return Metric(f"{name}_total", "counter", text, [Sample(value)])


def metrics_text(metrics: Iterable[Metric]) -> bytes:
    """Return metrics as Prometheus reads them."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
        for value, labels, suffix in metric.samples:
            shown = ",".join(f'{k}="{labels[k].translate(_ESCAPED)}"' for k in sorted(labels))
            with_labels = f"{{{shown}}}" if shown else ""
            lines.append(f"{metric.name}{suffix}{with_labels} {float(value)!r}")
    return "".join(f"{line}\n" for line in lines).encode()
