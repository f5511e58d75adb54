"""The account provider as a process: what it does with signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

STRAY = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGRTMIN")


def test_no_stray_signal_ends_it(tmp_path: Path, authority: Any) -> None:
    certificate, key = authority.issue("localhost")
    key.chmod(0o600)
    (tmp_path / "accounts").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        "[account_provider]\n"
        'listen = "127.0.0.1:0"\n'
        f'certificate = "{certificate}"\nkey = "{key}"\n'
        f'client_ca = "{authority.certificate}"\ndirectory = "{tmp_path}/accounts"\n'
        'clients = { host1 = "reader" }\n'
    )
    program = Path(sys.executable).with_name("credspec")
    with subprocess.Popen(
        [program, "account-provider", "--config", config],
        stderr=subprocess.PIPE,
        env=os.environ,
        text=True,
    ) as service:
        assert service.stderr is not None
        assert "account-provider-ready" in service.stderr.readline()
        for name in STRAY:
            service.send_signal(signal.Signals[name])
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
