"""``credspec events`` of a running agent: what a grant, a refusal and an end leave behind."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import BIN, AgentProcess, as_user, open_to_users


@pytest.fixture
def agent(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentProcess]:
    running = AgentProcess(lab, tmp_path)
    monkeypatch.setenv("CREDSPEC_CONFIG", str(running.config))
    running.start()
    yield running
    running.close()


def command(agent: AgentProcess, *options: str) -> list[str]:
    return [str(BIN / "credspec"), "events", "--log", str(agent.log), *options]


def shown(agent: AgentProcess, *options: str) -> list[dict[str, Any]]:
    line = command(agent, "--output", "json", *options)
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_one_list_of_both_logs(agent: AgentProcess) -> None:
    agent.mount(1)
    agent.put(1)
    with pytest.raises(CredspecError):
        agent.put(2, spec="file://missing.json")
    agent.delete(1)
    found = shown(agent)
    events = [entry["event"] for entry in found]
    for name in ("ticket-acquired", "lease-granted", "lease-denied", "lease-released"):
        assert events.count(name) == 1
    assert events.index("ticket-acquired") < events.index("lease-granted")
    denied = found[events.index("lease-denied")]
    # Who asked is in the audit log, the text in the agent's.
    assert denied["uid"] == 0
    assert denied["errors"][0] in denied["error"]
    of_account = [entry["event"] for entry in shown(agent, "--account", "WebApp01")]
    assert of_account == ["ticket-acquired", "lease-granted", "lease-released"]
    of_lease = [entry["event"] for entry in shown(agent, "--lease", f"{1:032x}")]
    assert of_lease == ["lease-granted", "lease-released"]
    assert shown(agent, "--lease", "container2")[0]["event"] in {"spec-refused", "lease-denied"}


def test_following_shows_what_happens(agent: AgentProcess) -> None:
    line = command(agent, "--follow", "--since", "1h")
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert any("agent-ready" in each for each in following.stdout)
        agent.mount(1)
        agent.put(1)
        assert any("container container1" in each for each in following.stdout)
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 0


def test_others_may_not_read_the_audit_log(agent: AgentProcess, tmp_path: Path) -> None:
    open_to_users(tmp_path)
    agent.mount(1)
    agent.put(1)
    line = as_user("nobody", command(agent))
    line[line.index("--inh-caps=+dac_read_search")] = "--inh-caps=-all"
    line.remove("--ambient-caps=+dac_read_search")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "[log-unreadable]" in done.stderr
