"""``credspec status --web``: what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from credspec.cli.status import status
from credspec.errors import UsageError


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'run_directory = "{tmp_path}/run"\naudit_log = "{tmp_path}/audit.jsonl"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(path))


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(status, ["--web", "--port", str(port)])
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "status-port"


@pytest.mark.parametrize("other", [["--watch"], ["--output", "json"]])
def test_options_that_contradict_it(other: list[str]) -> None:
    result = CliRunner().invoke(status, ["--web", *other])
    assert result.exit_code == 2
    assert "--web goes with neither" in result.output


def test_it_serves_without_an_agent_and_ends_with_ctrl_c() -> None:
    program = "from credspec.cli.start import main; main()"
    command = [sys.executable, "-c", program, "status", "--web"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as serving:
        assert serving.stdout is not None
        address = urlsplit(serving.stdout.readline().strip())
        assert address.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
        connection.request("GET", f"/?{address.query}")
        place = connection.getresponse().getheader("Location")
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
        connection.request("GET", f"{place}feed")
        answer = connection.getresponse()
        line = b""
        while b"agent-unreachable" not in line:
            line = answer.readline()
            assert line
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
        # The token is on standard output alone, and no argument of a process.
        assert address.query not in " ".join(command)
