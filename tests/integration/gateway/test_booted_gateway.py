"""The Docker gateway with its hardened unit under a real systemd, beside a real dockerd."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from credspec.setup.systemd import AGENT_UNIT, GATEWAY_UNIT
from support.machine.booted_systemd import BootedSystemd

CREDSPEC = str(Path(sys.executable).with_name("credspec"))
DOCKER = """
[Service]
Type=notify
ExecStart=dockerd --host=unix:///run/docker.sock --data-root=/run/test/docker \
  --exec-root=/run/test/docker-exec --add-runtime=credspec=/usr/sbin/runc --bridge=none \
  --iptables=false --ip6tables=false
Restart=always

[Install]
WantedBy=multi-user.target
"""
# The agent is not part of this.
NO_AGENT = """
[Service]
Type=oneshot
RemainAfterExit=yes
Restart=no
WatchdogSec=0
ExecStartPre=
ExecStart=
ExecStart=true
"""
SPEC = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {
        "Sid": "S-1-5-21-1-2-3",
        "MachineAccountName": "WebApp01",
        "Guid": "244818ae-87ac-4fcd-92ec-e79e5252348a",
        "DnsTreeName": "contoso.com",
        "DnsName": "contoso.com",
        "NetBiosName": "CONTOSO",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}]
    },
}


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystemd]:
    """A host with Docker, on which `credspec setup agent --docker-gateway` was run."""
    running = BootedSystemd(tmp_path_factory.mktemp("systemd") / "log")
    drop_in = f"/etc/systemd/system/{GATEWAY_UNIT}.d/test.conf"
    for path, text in (
        ("/etc/systemd/system/docker.service", DOCKER),
        # /run is hidden from the gateway but for what its configuration names.
        ("/run/test/config.toml", 'spec_directory = "/run/test/specs"\n'),
        ("/run/test/specs/one.json", json.dumps(SPEC)),
        (drop_in, "[Service]\nEnvironment=CREDSPEC_CONFIG=/run/test/config.toml\n"),
        (f"/etc/systemd/system/{AGENT_UNIT}.d/test.conf", NO_AGENT),
    ):
        running.run("mkdir", "-p", str(Path(path).parent))
        assert running.run("tee", path, given=text).returncode == 0
    done = running.run(CREDSPEC, "setup", "agent", "--docker-gateway")
    assert done.returncode == 0, done.stderr
    yield running
    running.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def create(booted: BootedSystemd, spec: str) -> str:
    """Ask the gateway for a container of an image that is not there; return what it says."""
    option = f"credentialspec=file://{spec}"
    body = json.dumps({"Image": "none", "HostConfig": {"SecurityOpt": [option]}})
    curl = ["curl", "--silent", "--unix-socket", "/run/credspec/docker.sock", "--data", body]
    header = ["--header", "Content-Type: application/json"]
    return booted.run(*curl, *header, "http://docker/v1.41/containers/create").stdout


def test_it_forwards_and_reads_specs(booted: BootedSystemd) -> None:
    assert "No such image" in create(booted, "one.json")
    assert "no such file" in create(booted, "two.json")


def test_its_limits(booted: BootedSystemd) -> None:
    limits = Path(f"/proc/{booted.pid_outside(GATEWAY_UNIT)}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert booted.show(GATEWAY_UNIT, "MemoryMax") == str(1 << 30)


@pytest.mark.parametrize("command", ["restart docker", "stop docker", "kill -s KILL docker"])
def test_it_goes_and_comes_with_docker(booted: BootedSystemd, command: str) -> None:
    booted.run("systemctl", *command.split())
    if command.startswith("stop"):
        wait_for(lambda: booted.show(GATEWAY_UNIT, "ActiveState") == "inactive")
        assert booted.run("systemctl", "start", "docker").returncode == 0
    wait_for(lambda: booted.show(GATEWAY_UNIT, "ActiveState") == "active")
    wait_for(lambda: "No such image" in create(booted, "one.json"))
