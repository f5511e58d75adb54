"""Services of a lab, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from credspec.lab.service import Service, _processes_below

# A process that starts others all the time, and they end soon, as a controller's do.
RESTLESS = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(3):
    os.fork()
while True:
    if os.fork() == 0:
        time.sleep(0.02)
        os._exit(0)
    time.sleep(0.002)
"""


def states(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found.add(status.partition("State:\t")[2][0])
    return found


def test_a_frozen_service_has_no_process_that_runs(tmp_path: Path) -> None:
    service = Service("restless", tmp_path)
    parent = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {RESTLESS!r}])"
    service.start([sys.executable, "-c", parent], dict(os.environ))
    try:
        pid = service.pid()
        assert pid is not None
        while not _processes_below(pid):
            time.sleep(0.01)
        for _ in range(8):
            service.signal_all(signal.SIGSTOP)
            below = _processes_below(pid)
            assert below
            # One that has the signal may not have been scheduled since.
            assert "S" not in states(below)
            service.signal_all(signal.SIGCONT)
    finally:
        service.stop()
    assert service.pid() is None
