"""Write docs/performance.md and its plots from the results of a run: ``make bench-report``.

Usage: report.py RESULTS [--add]; with ``--add``, rows of one part go into the page that is there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT, MARGIN = 720, 240, 48
WHOLE = 100  # from here on, numbers are shown without digits behind the point

INTRODUCTION = """\
# Performance

Made by `make bench-report`; do not edit by hand. Every row compares with a named alternative
measured in the same run, in turns; in brackets the first and the last decile, and how many runs.
A row that misses its target says so.

| machine | |
|---|---|
"""


# What limits the rows that may fall short, by how their names begin.
BOUNDS = {
    "spec to ticket, nothing cached": "The domain's own work is two thirds of it: two AS exchanges "
    "and a sealed bind. Of the rest, half is finding and choosing a controller, which neither the "
    "floor nor the replay does.",
    "100 accounts, cold, one host": "The agent's own work for each account (string-to-key, a "
    "search, the lease) shares these processors with the domain controller.",
    "agent's start with": "Reading a record of the journal and checking its fields is half of it, "
    "asking the policy and planning the identity's refresh the rest: 180 µs of a processor for a "
    "lease, all before the first answer.",
    "agent with one lease": "Of what could go, `dnspython` is the most: 5 MiB, half of it what it "
    "loads to see which other packages are there.",
    "docker run, shim": "Python's start, at `create` and at `delete` of containers with a spec; a "
    "shell's and two small programs' otherwise.",
    "docker run, broker": "Sockets are opened in the container's network and passed to the agent, "
    "which writes the `krb5.conf` a second time.",
    "admission by the webhook": "Its two questions to the API server, asked at once, take more "
    "than half; the webhook's own work is 2 ms of a processor, of which 0.5 ms are the pod and the "
    "spec and the rest HTTP and TLS.",
    "pod to Ready, the first": "Password and ticket take the agent some tens of milliseconds; the "
    "kubelet looks every 300 ms whether a pod's volumes are there, so that one that is late for a "
    "look waits for the next. That it is this wait is not traced, and two pods are few.",
    "gateway": "Both ends and the gateway share these processors.",
    "credspec": "Of `lint`, a quarter is the import of the schema's validator, and as much the "
    "interpreter's own start.",
}


# What limits rows that meet their targets.
NOTES = (
    (
        "**Memory**: a Python with an event loop has 20 MiB under the agent's allocators, which "
        "overwrite what is freed and put 24 bytes around each object. The libraries of Kerberos, "
        "LDAP and TLS take about 10, `cryptography` 9, the schema's validator 7, and what is left "
        "is the agent's own code. Without `cryptography` a key would take four times as long by "
        "OpenSSL 3.0 or libkrb5. Of the driver's, gRPC takes 15. About half of all are pages of "
        "files, which agent and driver share."
    ),
)


def main(results: str) -> None:
    """Write the page and a plot for each series."""
    found = [json.loads(line) for line in Path(results).read_text("utf-8").splitlines()]
    plots = [entry for entry in found if "series" in entry]
    lines = [INTRODUCTION.rstrip(), *(f"| {what} | {value} |" for what, value in machine())]
    lines += ["", "| what | median | spread | against | target |", "|---|---:|---|---|---|"]
    for entry in found:
        if "row" in entry:
            lines.append(line_of(entry))
    short = [entry["row"][0] for entry in found if "row" in entry and not entry["met"]]
    for what in dict.fromkeys(short):
        reasons = [reason for start, reason in BOUNDS.items() if what.startswith(start)]
        lines += ["", f"**{what}**: {' '.join(reasons) or 'Not known.'}"]
    for note in NOTES:
        lines += ["", *textwrap.wrap(note, 118, break_on_hyphens=False)]
    for entry in plots:
        name = file_name(entry["series"])
        (DOCS / "plots").mkdir(exist_ok=True)
        (DOCS / "plots" / name).write_text(plot(entry), "utf-8")
        lines += ["", f"![{entry['series']}](plots/{name})"]
    (DOCS / "performance.md").write_text("\n".join(lines) + "\n", "utf-8")


def line_of(entry: dict[str, Any]) -> str:
    """Return a row of the table."""
    *cells, target = (cell.replace("|", "/") for cell in entry["row"])
    verdict = "" if entry["met"] else " **falls short**"
    return f"| {' | '.join(cells)} | {target}{verdict} |"


def add(results: str) -> None:
    """Put rows into the page: in place of those of the same name, or at the table's end."""
    found = [json.loads(line) for line in Path(results).read_text("utf-8").splitlines()]
    page = DOCS / "performance.md"
    lines = page.read_text("utf-8").splitlines()
    for line in (line_of(entry) for entry in found if "row" in entry):
        table = [index for index, each in enumerate(lines) if each.startswith("| ")]
        name = line.split(" | ")[0]
        same = [index for index in table if lines[index].split(" | ")[0] == name]
        at, end = (same[0], same[0] + 1) if same else (table[-1] + 1, table[-1] + 1)
        lines[at:end] = [line]
    # The page says when each of its rows was measured.
    at = next(index for index, line in enumerate(lines) if line.startswith("| date |"))
    measured, today = lines[at].strip("| ").removeprefix("date | "), dict(machine())["date"]
    if not measured.endswith(today):
        lines[at] = f"| date | {measured}; rows of {Path(results).stem} {today} |"
    page.write_text("\n".join(lines) + "\n", "utf-8")


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
    (add if sys.argv[2:] == ["--add"] else main)(sys.argv[1])
