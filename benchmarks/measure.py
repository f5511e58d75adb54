"""Repeated measurements and the table they end in: medians, spread, and ratios of the same run.

With ``CREDSPEC_BENCH_RESULTS`` naming a file, what is printed also goes there, a JSON object a
line, for `report.py`.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


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
    spread = f"({sample.spread}, n={len(sample.milliseconds)})"
    _tell(what, f"{sample.median:8.1f} ms", spread, ratio, target, met=met)


def figure(what: str, value: str, note: str, target: str, *, met: bool) -> None:
    """Print a row of something that is not measured in time: its value, what it is compared to."""
    _tell(what, value, "", note, target, met=met)


def series(name: str, unit: str, values: Sequence[float]) -> None:
    """Keep values in their order, for a plot; nothing is printed."""
    _keep({"series": name, "unit": unit, "values": list(values)})


def _tell(what: str, value: str, spread: str, ratio: str, target: str, *, met: bool) -> None:
    verdict = "" if met else "  falls short"
    print(f"{what:<42} {value:>11}  {spread:<18} {ratio:<32} {target}{verdict}", flush=True)
    cells = [what, value.strip(), spread, " ".join(ratio.split()), target]
    _keep({"row": cells, "met": met})


def _keep(found: dict[str, object]) -> None:
    results = os.environ.get("CREDSPEC_BENCH_RESULTS")
    if results:
        with Path(results).open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
