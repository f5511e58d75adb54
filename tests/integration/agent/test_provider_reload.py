"""SIGHUP takes over providers and the log format, of a real agent with a real domain."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from credspec.errors import CredspecError, NotPermittedError
from credspec.lab.domain import Lab
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.agent.agent_process import AgentProcess

PASSWORDS = {"giver": "Correct-Horse.7battery", "other": "Other-Horse.7battery"}


@pytest.fixture
def accounts(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A directory for each of two users, with a secret of the same name."""
    for user, password in PASSWORDS.items():
        lab.samba_tool("user", "create", user, password)
        lab.samba_tool("group", "addmembers", "LabHosts", user)
        secret = tmp_path / user / "reader"
        secret.parent.mkdir(mode=0o700)
        secret.write_text(
            json.dumps({"domainName": lab.dns_domain, "username": user, "password": password})
        )
        secret.chmod(0o600)
    yield tmp_path
    for user in PASSWORDS:
        lab.samba_tool("user", "delete", user)


@pytest.fixture
def agent(lab: Lab, accounts: Path) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, accounts)
    spec = json.loads((accounts / "specs/one.json").read_text().replace("WebApp01", "WebApp02"))
    spec["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": CREDSPEC_PLUGIN_GUID,
        "PluginInput": "file:reader",
    }
    (accounts / "specs/given.json").write_text(json.dumps(spec))
    yield found
    found.close()


def wait_for(condition: Callable[[], bool], agent: AgentProcess) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, agent.log.read_text()[-3000:]
        time.sleep(0.05)


def lines(agent: AgentProcess, event: str) -> list[str]:
    """Return the log's lines of an event, in either format."""
    log = agent.log.read_text().splitlines()
    return [line for line in log if f"event='{event}'" in line or f'"event": "{event}"' in line]


def reload(agent: AgentProcess, text: str, event: str = "policy-reloaded") -> str:
    """Reload another configuration; return the line that says so."""
    before = len(lines(agent, event))
    agent.config.write_text(text)
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(lines(agent, event)) > before, agent)
    return lines(agent, event)[-1]


def put(agent: AgentProcess, number: int, spec: str) -> None:
    agent.mount(number)
    body = {"spec": f"file://{spec}", "container": f"container{number}", "uid": 0, "gid": 0}
    body["runtime_state"] = str(agent.state(number))
    try:
        agent.client.request("PUT", f"/v1/leases/{number:032x}", body)
    except CredspecError:
        agent.unmount(number)
        raise


def test_providers_are_added_changed_and_removed(agent: AgentProcess, accounts: Path) -> None:
    agent.start()
    without = agent.config.read_text()
    with_provider = (
        f'{without}[providers]\nenabled = ["file"]\n'
        f'[providers.file]\ndirectory = "{accounts / "giver"}"\n'
    )
    put(agent, 1, "one.json")
    with pytest.raises(NotPermittedError, match="host-account-not-enabled"):
        put(agent, 2, "given.json")

    # Added.
    reload(agent, with_provider)
    put(agent, 2, "given.json")
    cache = agent.lease_directory(2) / "krb5cc"
    first = cache.read_bytes()

    # A broken table keeps the old provider, and this is shown until a reload succeeds.
    broken = with_provider.replace(str(accounts / "giver"), "relative")
    assert "config-wrong-value" in reload(agent, broken, "policy-not-reloaded")
    assert "config-wrong-value" in agent.client.get("/healthz")["reload_error"]
    put(agent, 3, "given.json")
    assert cache.read_bytes() == first

    # Changed: what it gave is forgotten, and its identity acquired again with the other account.
    (accounts / "giver/reader").unlink()
    reload(agent, with_provider.replace(str(accounts / "giver"), str(accounts / "other")))
    assert "reload_error" not in agent.client.get("/healthz")
    wait_for(lambda: cache.read_bytes() != first, agent)
    put(agent, 4, "given.json")
    assert len(agent.lease_containers()) == 4

    # Removed.
    reload(agent, without)
    wait_for(lambda: agent.lease_containers() == ["container1"], agent)
    assert not cache.exists()
    entries = map(json.loads, agent.audit_log.read_text().splitlines())
    revoked = {e["container"]: e["errors"] for e in entries if e["decision"] == "revoked"}
    assert revoked == {f"container{n}": ["host-account-not-enabled"] for n in (2, 3, 4)}
    with pytest.raises(NotPermittedError, match="host-account-not-enabled"):
        put(agent, 5, "given.json")


def test_the_log_format_is_changed(agent: AgentProcess) -> None:
    agent.start()
    text = agent.config.read_text()
    entry = json.loads(reload(agent, 'log_format = "json"\n' + text))
    assert (entry["event_id"], entry["needs_restart"]) == (150, [])
    assert reload(agent, text).startswith("timestamp=")
    # A file that cannot be used changes the format as little as anything else.
    broken = 'log_format = "json"\n' + text + "[policy]\naccounts = 1\n"
    assert reload(agent, broken, "policy-not-reloaded").startswith("timestamp=")
