"""``credspec setup agent docker`` on a host with a real systemd and a real dockerd."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.lab.domain import Lab
from credspec.setup.systemd import AGENT_SOCKET, AGENT_UNIT, GATEWAY_UNIT
from support.machine.booted_systemd import BootedSystemd

CREDSPEC = str(Path(sys.executable).with_name("credspec"))
DOCKER = """
[Service]
Type=notify
ExecStart=dockerd --host=unix:///run/docker.sock --data-root=/run/test/docker \
  --exec-root=/run/test/docker-exec --bridge=none --iptables=false --ip6tables=false
ExecReload=kill -s HUP $MAINPID
Restart=always
"""
# What is written to /etc and /usr/local stays in this host's memory.
OWN_FILES = """
set -e
for name in etc usr/local; do
  mkdir -p /run/test/over/$name/upper /run/test/over/$name/work /run/test/over/$name/merged
  mount -t overlay overlay -o lowerdir=/$name,upperdir=/run/test/over/$name/upper,\
workdir=/run/test/over/$name/work /run/test/over/$name/merged
done
mount --bind /etc/systemd/system /run/test/over/etc/merged/systemd/system
mount --rbind /run/test/over/etc/merged /etc
mount --rbind /run/test/over/usr/local/merged /usr/local
rm -rf /etc/credspec /etc/docker /usr/local/libexec/credspec
mkdir -p /run/test/home /etc/docker
printf '{"debug": false}' >/etc/docker/daemon.json
"""
STATE = """
find /etc /usr/local -xdev ! -type d -exec sha256sum {} + 2>/dev/null | sort
find /etc/systemd/system /etc/credspec /run/credspec /run/credspec-host | sort
find /usr/local/libexec -mindepth 1
cut -d' ' -f2 /proc/mounts | grep credspec | sort
docker context ls -q
systemctl list-units --all --plain --no-legend 'credspec*' | grep --invert-match not-found
"""


@pytest.fixture
def booted(lab: Lab, tmp_path: Path) -> Iterator[BootedSystemd]:
    running = BootedSystemd(tmp_path / "log")
    done = running.run("bash", "-c", OWN_FILES)
    assert done.returncode == 0, done.stderr
    # A joined host.
    assert running.run("cp", "-p", str(lab.host_keytab), "/etc/krb5.keytab").returncode == 0
    assert running.run("cp", str(lab.krb5_conf), "/etc/krb5.conf").returncode == 0
    yield running
    running.close()


def credspec(booted: BootedSystemd, *arguments: str) -> tuple[int, str, str]:
    unset = ("-u", "CREDSPEC_CONFIG", "-u", "KRB5_CONFIG")  # a lab's
    done = booted.run("env", *unset, "HOME=/run/test/home", CREDSPEC, *arguments)
    return done.returncode, done.stdout, done.stderr


def state(booted: BootedSystemd) -> list[str]:
    return booted.run("env", "HOME=/run/test/home", "bash", "-c", STATE).stdout.splitlines()


def start_docker(booted: BootedSystemd) -> None:
    assert booted.run("tee", "/etc/systemd/system/docker.service", given=DOCKER).returncode == 0
    done = booted.run("systemctl", "start", "docker")
    assert done.returncode == 0, done.stderr


def runtimes(booted: BootedSystemd) -> dict[str, Any]:
    """Return the runtimes that dockerd knows."""
    shown = booted.run("docker", "info", "--format", "{{json .Runtimes}}").stdout
    found: dict[str, Any] = json.loads(shown)
    return found


def test_one_command_sets_up_and_one_undoes_it(booted: BootedSystemd) -> None:
    start_docker(booted)
    before = state(booted)
    planned = credspec(booted, "setup", "agent", "docker", "--dry-run")[1]
    assert state(booted) == before
    status, shown, said = credspec(booted, "setup", "agent", "docker")
    assert status == 0, said
    assert shown.splitlines()[-1] == "reloaded docker.service"
    assert planned.replace("dry run: would ", "").count("\n") == shown.count("\n") - 1
    assert "docker context use credspec" in said
    assert "/etc/credspec/specs" in said
    for unit in (AGENT_UNIT, AGENT_SOCKET, GATEWAY_UNIT):
        assert booted.show(unit, "ActiveState") == "active", unit
    assert booted.run("stat", "-c", "%a %u", "/etc/credspec/specs").stdout == "755 0\n"
    # dockerd gets a signal, which it has not answered when systemd says that it is done.
    end = time.monotonic() + 60
    while "credspec" not in runtimes(booted):
        assert time.monotonic() < end
        time.sleep(0.1)
    through = ["docker", "--host", "unix:///run/credspec/docker.sock", "version"]
    assert booted.run(*through).returncode == 0
    after = state(booted)
    assert credspec(booted, "setup", "agent", "docker")[:2] == (0, "nothing to change\n")
    assert state(booted) == after

    status, _, said = credspec(booted, "setup", "agent", "docker", "--undo")
    assert status == 0, said
    assert state(booted) == before
    assert credspec(booted, "setup", "agent", "docker", "--undo")[:2] == (0, "nothing to change\n")


def test_undo_warns_while_there_are_leases_and_leaves_what_is_somebodys(
    booted: BootedSystemd,
) -> None:
    assert credspec(booted, "setup", "agent")[0] == 0
    booted.run("tee", "/etc/credspec/specs/one.json", given="{}")
    booted.run("systemctl", "stop", AGENT_UNIT)
    booted.run("tee", "/run/credspec/journal/" + "0" * 32 + ".json", given="{}")
    status, shown, said = credspec(booted, "setup", "agent", "--undo", "--output", "json")
    assert status == 0, said
    assert "[setup-leases-exist]" in said
    document = json.loads(shown)
    assert document["warnings"][0]["code"] == "setup-leases-exist"
    assert "/etc/credspec/specs" in document["next"]
    assert booted.run("ls", "/etc/credspec/specs").stdout == "one.json\n"
    assert booted.run("ls", "/run/credspec/journal").stdout


def test_without_docker_nothing_is_written(booted: BootedSystemd) -> None:
    before = state(booted)
    for command in (("agent", "docker"), ("agent", "--docker-gateway")):
        status, _, said = credspec(booted, "setup", *command)
        assert status == 2, said
        assert said.rstrip().endswith("[docker-missing]")
        assert state(booted) == before


def test_a_service_that_could_not_start_is_started_by_the_next_run(booted: BootedSystemd) -> None:
    broken = "[Service]\nExecStartPre=false\n"
    directory = f"/etc/systemd/system/{AGENT_UNIT}.d"
    booted.run("mkdir", "-p", directory)
    booted.run("tee", f"{directory}/broken.conf", given=broken)
    status, _, said = credspec(booted, "setup", "agent")
    assert status == 1, said
    assert f"journalctl -u {AGENT_UNIT}" in said
    booted.run("rm", "-r", directory)
    booted.run("systemctl", "stop", AGENT_UNIT)
    booted.run("systemctl", "daemon-reload")
    status, shown, said = credspec(booted, "setup", "agent")
    assert (status, shown) == (0, f"enabled and started {AGENT_UNIT}\n"), said
    assert booted.show(AGENT_UNIT, "ActiveState") == "active"
