"""What a process could lose in a core dump: all of its writable memory, searched for secrets."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_REGION = re.compile(r"^(\w+)-(\w+) rw\S+ \S+ \S+ \S+ *(.*)$", re.MULTILINE)
ENCODINGS = ("utf-8", "utf-16-le", "utf-32-le")


def memory_of(pid: int) -> Iterator[bytes]:
    """Read all that a process could lose in a core dump, as root can."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for low, high, path in _REGION.findall(maps):
            if path in {"[vvar]", "[vsyscall]"}:
                continue
            try:
                memory.seek(int(low, 16))
                yield memory.read(int(high, 16) - int(low, 16))
            except (OSError, OverflowError):
                continue


def texts_in_memory(pid: int, texts: Iterable[str]) -> dict[str, int]:
    """Return how often each text is in a process's memory, in UTF-8, UTF-16 or UTF-32."""
    forms = {text: {text.encode(encoding) for encoding in ENCODINGS} for text in texts}
    found: dict[str, int] = {}
    for part in memory_of(pid):
        for text, encoded in forms.items():
            number = sum(part.count(form) for form in encoded)
            if number:
                found[text] = found.get(text, 0) + number
    return found


def texts_left_in_memory(pid: int, texts: Iterable[str], *, seconds: float) -> dict[str, int]:
    """Return what is still there after at most so many seconds; sooner if nothing is."""
    wanted = list(texts)
    end = time.monotonic() + seconds
    while (found := texts_in_memory(pid, wanted)) and time.monotonic() < end:
        time.sleep(0.2)
    return found
