#!/usr/bin/env python3
"""Run a long step: what it prints goes to a log, the screen shows that it is getting on.

Usage: logged.py LOG TITLE COMMAND [ARGUMENT...]

On a terminal, one line shows the seconds and what the step printed last; elsewhere such a line is
printed every 20 seconds. If the step fails, its errors and the path of the log are shown. The exit
status is that of the step.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

EVERY_SECONDS = 20.0
LAST_LINES = 12
ERROR_LINES = 12
ERROR = re.compile(r"\berr(or|\b)|^E:|fatal|failed|cannot|unable to", re.IGNORECASE)
UNSEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def lines_since(log: Path, start: int) -> list[str]:
    """Return what the step has printed, without empty lines."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    return [line for raw in re.split(r"[\r\n]+", text) if (line := UNSEEN.sub("", raw).rstrip())]


def show_failure(printed: list[str]) -> None:
    """Show the errors among what was printed, and its end."""
    end = printed[-LAST_LINES:]
    errors = [line for line in printed[:-LAST_LINES] if ERROR.search(line)][-ERROR_LINES:]
    for line in [*errors, *end]:
        sys.stderr.write(f"  | {line}\n")


def main() -> int:
    """Run the step; return its exit status."""
    log, title, command = Path(sys.argv[1]).absolute(), sys.argv[2], sys.argv[3:]
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = sys.stdout.isatty()
    sys.stdout.write(f"{title} ...\n")
    sys.stdout.flush()
    started = shown = time.monotonic()
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        start = file.tell()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    status = None
    while status is None:
        try:
            status = process.wait(1)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if terminal or now - shown >= EVERY_SECONDS:
                shown = now
                last = (lines_since(log, start) or [""])[-1]
                text = f"  {now - started:4.0f} s  {last}"[: shutil.get_terminal_size().columns - 1]
                sys.stdout.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:  # the step got it, too
            status = process.wait() or 130
    sys.stdout.write("\r\x1b[K" if terminal else "")
    took = time.monotonic() - started
    if status != 0:
        sys.stdout.flush()
        show_failure(lines_since(log, start))
        sys.stderr.write(f"FAILED after {took:.0f} s: {title}\nThe whole log: {log}\n")
        return status if status > 0 else 128 - status
    sys.stdout.write(f"  done in {took:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
