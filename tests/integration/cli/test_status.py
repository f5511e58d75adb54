"""``credspec status`` of a running agent, once and again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.lab.domain import Lab
from support.agent.agent_process import BIN, AgentProcess


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path)
    monkeypatch.setenv("CREDSPEC_CONFIG", str(found.config))
    monkeypatch.setenv("COLUMNS", "140")
    found.start()
    yield found
    found.close()


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "credspec"), "status", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_it_shows(agent: AgentProcess, lab: Lab) -> None:
    assert status().stdout == "No leases.\n"
    agent.mount(1)
    agent.put(1)
    shown = status()
    assert shown.returncode == 0, shown.stderr
    for word in (
        "webapp01@example.test",
        lab.dc_host,
        "answers",
        " ms",
        "container1",
        "━",
        "9 h 59 min",
    ):
        assert word in shown.stdout
    state = json.loads(status("--output", "json").stdout)
    assert set(state) == {"acquisitions", "identities", "leases", "domains"}
    # When the password changes is known, and to be seen.
    assert state["identities"][0]["password_due"] is not None
    assert state["domains"][0]["controller"] == lab.dc_host


def test_an_outage_shows(agent: AgentProcess, lab: Lab) -> None:
    lab.stop_dc()
    try:
        agent.mount(1)
        with pytest.raises(Exception, match="unreachable"):
            agent.put(1)
        agent.unmount(1)
        shown = status().stdout
        assert "no answer for 0 min" in shown
        assert "unreachable" in " ".join(shown.split())
    finally:
        lab.start_dc()


def test_watching_goes_on_while_the_agent_restarts_and_ends_with_ctrl_c(
    agent: AgentProcess,
) -> None:
    agent.mount(1)
    agent.put(1)
    command = [str(BIN / "credspec"), "status", "--watch", "--interval", "0.2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as watching:
        assert watching.stdout is not None

        def shows(word: str) -> bool:
            assert watching.stdout is not None
            return any(word in line for line in watching.stdout)

        assert shows("container1")
        agent.end()
        assert shows("agent-unreachable")
        agent.start()
        assert shows("container1")
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(60) == 0


def test_without_an_agent_it_says_what_to_do(agent: AgentProcess) -> None:
    agent.end()
    shown = status()
    assert (shown.returncode, shown.stdout) == (6, "")
    assert "credspec agent" in shown.stderr
