"""Write docs/performance.md and its plots from results.jsonl and bounds.md: ``make bench-report``.

Usage: report.py [RESULTS [--add]]; the results of a run become those that are kept here, or with
``--add`` take the place of rows of the same name, and others come to the end of the table.
bounds.md is text written by hand: what limits the rows. It is the place for every word of the page
that is no figure.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[1] / "docs"
KEPT = Path(__file__).with_name("results.jsonl")
BOUNDS = Path(__file__).with_name("bounds.md")
WIDTH, HEIGHT, MARGIN = 720, 240, 48
WHOLE = 100  # from here on, numbers are shown without digits behind the point

INTRODUCTION = """\
# Performance

Made by `make bench-report` of `benchmarks/results.jsonl` and `benchmarks/bounds.md`; edit those.
Every row compares with a named alternative measured in the same run, in turns; in brackets the
first and the last decile, and how many runs. A row that misses its target says so.

| machine | |
|---|---|
"""


def main(results: str | None = None, option: str = "") -> None:
    """Keep the results, if there are new ones, and write the page and a plot for each series."""
    if results is not None:
        found = read(Path(results))
        if option == "--add":
            found = added(read(KEPT), found, Path(results).stem)
        else:
            found.insert(0, {"machine": machine()})
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in found]
        KEPT.write_text("".join(lines), "utf-8")
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pages() -> dict[Path, str]:
    """Return the page and its plots as they are made of what is kept."""
    found = read(KEPT)
    plots = {entry["series"]: entry for entry in found if "series" in entry}
    [of] = [entry["machine"] for entry in found if "machine" in entry]
    lines = [INTRODUCTION.rstrip(), *(f"| {what} | {value} |" for what, value in of)]
    lines += ["", "| what | median | spread | against | target |", "|---|---:|---|---|---|"]
    lines += [line_of(entry) for entry in found if "row" in entry]
    lines += ["", BOUNDS.read_text("utf-8").rstrip()]
    for title in plots:
        lines += ["", f"![{title}](plots/{file_name(title)})"]
    drawn = {DOCS / "plots" / file_name(title): plot(entry) for title, entry in plots.items()}
    return {DOCS / "performance.md": "\n".join(lines) + "\n", **drawn}


def line_of(entry: dict[str, Any]) -> str:
    """Return a row of the table."""
    *cells, target = (cell.replace("|", "/") for cell in entry["row"])
    verdict = "" if entry["met"] else " **falls short**"
    return f"| {' | '.join(cells)} | {target}{verdict} |"


def added(
    kept: list[dict[str, Any]], found: list[dict[str, Any]], name: str
) -> list[dict[str, Any]]:
    """Return what is kept with rows in place of those of the same name, or at the end.

    The page says when each of its rows was measured, so the date names those of `name`.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for entry in found:
        if "row" in entry:
            rows.setdefault(entry["row"][0], []).append(entry)
    names, result = set(rows), []
    for entry in kept:
        what = entry["row"][0] if "row" in entry else None
        # One measurement may have several rows, one for each alternative.
        result += rows.pop(what, []) if what in names else [entry]
    [of] = [entry["machine"] for entry in kept if "machine" in entry]
    measured, note = dict(of)["date"], f"; rows of {name} {dict(machine())['date']}"
    if note not in measured:
        of[0] = ("date", measured + note)
    return [*result, *(entry for several in rows.values() for entry in several)]


def machine() -> list[tuple[str, str]]:
    """Say what the figures were measured on."""
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
        ("processors", str(os.cpu_count())),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{release}, Linux {platform.release()}, Python {platform.python_version()}"),
        ("domain controller", "Samba, on the same machine"),
        ("tickets and journal", "on a tmpfs, as `/run` is where systemd runs"),
    ]


def file_name(title: str) -> str:
    """Return the name of a plot's file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".svg"


def plot(entry: dict[str, Any]) -> str:
    """Draw a series as a line from zero upwards."""
    values: Sequence[float] = entry["values"]
    top = max(values) or 1
    highest = f"{top:,.0f}" if top >= WHOLE else f"{top:.3g}"
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    points = " ".join(
        f"{MARGIN + across * index / max(1, len(values) - 1):.1f},"
        f"{HEIGHT - MARGIN - up * value / top:.1f}"
        for index, value in enumerate(values)
    )
    base = HEIGHT - MARGIN
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
 font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{MARGIN}" y="24" font-size="14">{escape(entry["series"])}</text>
<line x1="{MARGIN}" y1="{base}" x2="{WIDTH - MARGIN}" y2="{base}" stroke="#888"/>
<line x1="{MARGIN}" y1="{MARGIN}" x2="{MARGIN}" y2="{base}" stroke="#888"/>
<text x="{MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{highest}</text>
<text x="{MARGIN - 4}" y="{base}" text-anchor="end">0</text>
<text x="{MARGIN}" y="{base + 18}" fill="#555">{escape(entry["unit"])}</text>
<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>
</svg>
"""


if __name__ == "__main__":
    main(*sys.argv[1:])
