"""Metrics in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
