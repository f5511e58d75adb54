"""Repeated measurements and the table they end in: medians, spread, and ratios of the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """What one thing took, in milliseconds, several times."""

    name: str
    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def spread(self) -> str:
        low, *_, high = statistics.quantiles(self.milliseconds, n=10)
        return f"{low:.1f}-{high:.1f}"


def interleaved(subjects: dict[str, Callable[[], object]], runs: int) -> dict[str, Sample]:
    """Measure all subjects in turns, so that what the machine does meanwhile hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for name, subject in subjects.items():
        subject()  # once to warm caches of the disk
    for _ in range(runs):
        for name, subject in subjects.items():
            started = time.perf_counter()
            subject()
            taken[name].append((time.perf_counter() - started) * 1000)
    return {name: Sample(name, tuple(values)) for name, values in taken.items()}


def row(what: str, sample: Sample, against: Sample | None, target: str, *, met: bool) -> None:
    """Print a row: median, spread, ratio to the alternative, target."""
    ratio = f"{sample.median / against.median:6.2f} x {against.name}" if against else ""
    verdict = "" if met else "  falls short"
    print(
        f"{what:<42} {sample.median:8.1f} ms  ({sample.spread}, n={len(sample.milliseconds)})"
        f"  {ratio:<32} {target}{verdict}"
    )
