"""The gateway as a process: what it does with signals. No daemon is needed for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

STRAY = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGRTMIN")


def test_no_stray_signal_ends_it(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("credspec")
    own = tmp_path / "own.sock"
    with subprocess.Popen(
        [program, "docker-gateway", "--listen", own, "--upstream", tmp_path / "none", "--verbose"],
        stderr=subprocess.PIPE,
        env=os.environ | {"CREDSPEC_CONFIG": os.devnull},
        text=True,
    ) as service:
        assert service.stderr is not None
        assert "listening on" in service.stderr.readline()
        for name in STRAY:
            service.send_signal(signal.Signals[name])
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    assert not own.exists()
