"""The package from installation to purge, on machines with a booted systemd."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.machine.package_machine import LEASES, NEXT_VERSION, PackageMachine, built

Packages = dict[str, Path]
Boot = Callable[[], PackageMachine]
AGENT, GATEWAY = "credspec-agent.service", "credspec-docker-gateway.service"
KEPT = ("/etc", "/usr/local", "/usr/lib/credspec", "/usr/bin", "/usr/share", "/root", "/opt")
SETUP = ("credspec", "setup")
LEASE = "0" * 31 + "1"
PUT = f"""
from pathlib import Path
from credspec.api_client import AgentClient
client = AgentClient(Path("/run/credspec/agent.sock"))
body = {{"spec": "file://www.json", "container": "c1", "runtime_state": "/run/test/state",
         "uid": 1000, "gid": 1000}}
print(client.request("PUT", "/v1/leases/{LEASE}", body)["accounts"])
"""


def put_lease(host: PackageMachine) -> None:
    """Get a lease as the shim does: a small tmpfs, and a call to the agent."""
    host.run("mkdir", "-p", "/run/test/state", f"{LEASES}/{LEASE}")
    host.run("mount", "-t", "tmpfs", "lease", f"{LEASES}/{LEASE}")
    host.run("credspec", "new", "WebApp01", "--path", "/etc/credspec/specs/www.json")
    done = host.run("/usr/lib/credspec/bin/python3", "-c", PUT)
    assert done.stdout == "['WebApp01']\n"


def leases(host: PackageMachine) -> list[str]:
    shown = json.loads(host.run("credspec", "status", "--output", "json").stdout)
    return [lease["container"] for lease in shown["leases"]]


@pytest.fixture
def host(boot: Boot, packages: Packages) -> PackageMachine:
    found = boot()
    found.install(packages["credspec"])
    return found


def leftovers(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what is new or changed, without what is apt's, Docker's and everybody's."""
    own = ("/etc/ld.so.cache", "/etc/systemd/system/", "/etc/apt/", "/usr/share/info/dir")
    new = [line for line in after if line not in before and not any(o in line for o in own)]
    others = ("/etc/cni", "/etc/docker ", "/root/.docker", "/usr/local/libexec ")
    new = [line for line in new if "/etc/docker/key.json" not in line]
    return [line for line in new if line[0] != "d" or not any(o in line for o in others)]


def active(host: PackageMachine, unit: str) -> str:
    return host.booted.show(unit, "ActiveState")


def test_install_set_up_upgrade_and_purge_leave_nothing(
    release: str, boot: Boot, packages: Packages
) -> None:
    host = boot()
    files, mounts = host.files(*KEPT), host.mounts()
    host.install(packages["credspec"])
    shown = host.run("credspec", "--version").stdout
    assert "distribution package" in shown
    assert "extras: host\n" in shown
    assert active(host, AGENT) == "inactive"  # nothing starts by itself

    done = host.run(*SETUP, "agent").stdout
    assert f"enabled and started {AGENT}" in done
    assert "wrote" not in done
    host.wait_until_active(AGENT)
    assert host.booted.show(AGENT, "FragmentPath") == f"/usr/lib/systemd/system/{AGENT}"
    assert host.run(*SETUP, "agent").stdout == "nothing to change\n"
    assert json.loads(host.run("credspec", "status", "--output", "json").stdout)["leases"] == []

    put_lease(host)
    started = host.booted.show(AGENT, "ExecMainStartTimestampMonotonic")
    host.install(built(release, version=NEXT_VERSION).packages["credspec"])
    host.wait_until_active(AGENT)
    assert host.booted.show(AGENT, "ExecMainStartTimestampMonotonic") != started
    assert NEXT_VERSION in host.run("credspec", "--version").stdout
    assert leases(host) == ["c1"]
    assert host.run("klist", "-c", f"{LEASES}/{LEASE}/krb5cc").stdout.count("WebApp01$") == 1
    assert host.run(*SETUP, "agent").stdout == "nothing to change\n"

    host.run("rm", "/etc/credspec/specs/www.json")  # purge would keep what a user made
    host.run("apt-get", "purge", "-y", "credspec")
    assert leftovers(files, host.files(*KEPT)) == []
    assert set(host.mounts()) <= set(mounts)
    for directory in ("/run/credspec", "/var/log/credspec", "/etc/credspec", "/usr/lib/credspec"):
        assert host.run("test", "-e", directory, status=None).returncode == 1, directory
    assert host.booted.show(AGENT, "LoadState") == "not-found"


def test_undo_leaves_the_machine_as_after_the_installation(host: PackageMachine) -> None:
    files = host.files(*KEPT)
    host.run(*SETUP, "agent", "--docker-gateway")
    host.run(*SETUP, "docker")
    assert active(host, GATEWAY) in {"active", "activating", "failed"}
    host.run(*SETUP, "docker", "--undo")
    host.run(*SETUP, "agent", "--undo")
    assert leftovers(files, host.files(*KEPT)) == []
    for unit in (AGENT, GATEWAY, "credspec-agent.socket"):
        assert active(host, unit) in {"inactive", "failed"}
        assert host.booted.show(unit, "UnitFileState") == "disabled"


def test_the_launcher_names_no_version_of_python(host: PackageMachine) -> None:
    host.run(*SETUP, "docker", "--no-context")
    launcher = host.run("cat", "/usr/local/libexec/credspec/credspec-runtime").stdout
    assert "/usr/lib/credspec/site-packages" in launcher
    assert "python3." not in launcher
    assert "runc" in host.run("/usr/local/libexec/credspec/credspec-runtime", "--version").stdout


def test_removal_unregisters_the_runtime_and_keeps_the_configuration(host: PackageMachine) -> None:
    config = "/etc/credspec/config.toml"
    host.run("sh", "-c", f"echo 'log_format = \"json\"' >> {config}")
    host.run("sh", "-c", "mkdir -p /etc/docker; echo '{\"debug\": true}' > /etc/docker/daemon.json")
    host.run(*SETUP, "agent")
    host.run(*SETUP, "docker", "--no-context")
    assert "credspec" in host.run("cat", "/etc/docker/daemon.json").stdout
    host.run("touch", "/etc/credspec/specs/mine.json")
    host.run("apt-get", "remove", "-y", "credspec")
    assert host.run("cat", "/etc/docker/daemon.json").stdout == '{"debug": true}\n'
    assert 'log_format = "json"' in host.run("cat", config).stdout
    assert active(host, AGENT) != "active"
    host.run("apt-get", "purge", "-y", "credspec")
    assert (
        host.run("find", "/etc/credspec", "-type", "f").stdout == "/etc/credspec/specs/mine.json\n"
    )


def test_removal_while_containers_have_leases_lets_them_be_stopped(host: PackageMachine) -> None:
    launcher = "/usr/local/libexec/credspec/credspec-runtime"
    host.run(*SETUP, "docker", "--no-context")
    host.run("mkdir", "-p", "/run/credspec/leases/" + "0" * 32)
    said = host.run("apt-get", "remove", "-y", "credspec")
    assert "containers use 1 leases" in said.stderr + said.stdout
    assert host.run(launcher, "--version").stdout.startswith("runc")
    gone = host.run(launcher, "delete", "no-such-container", status=None)
    assert "does not exist" in gone.stderr  # the real runtime's words
    assert host.run(launcher, "run", "x", status=None).returncode != 0
    host.run("apt-get", "purge", "-y", "credspec")
    assert host.run("test", "-e", launcher, status=None).returncode == 1


def test_a_machine_without_docker(host: PackageMachine) -> None:
    host.run("dpkg", "--purge", "--force-depends", "docker.io")
    host.run("rm", "-rf", "/etc/docker")
    host.run(*SETUP, "agent")
    host.wait_until_active(AGENT)
    host.run("apt-get", "purge", "-y", "-f", "credspec", status=None)
    assert host.run("test", "-e", "/usr/lib/credspec", status=None).returncode == 1


def test_an_old_configuration_with_unknown_keys(host: PackageMachine) -> None:
    host.run("sh", "-c", "echo 'run_dir = \"/run/x\"' >> /etc/credspec/config.toml")
    said = host.run("credspec", "status", status=2)
    assert "config-unknown-key" in said.stderr
    assert "Traceback" not in said.stderr
    host.run("systemctl", "start", AGENT, status=None)
    end = time.monotonic() + 120
    while not (found := host.booted.show(AGENT, "StatusText")) and time.monotonic() < end:
        time.sleep(0.1)
    assert "run_dir" in found
    assert found.endswith("[config-unknown-key]")
    shown = host.run("systemctl", "status", "--lines=0", AGENT, status=None).stdout
    assert f'Status: "{found}"' in shown
    host.run("systemctl", "stop", AGENT)
    host.run("apt-get", "purge", "-y", "credspec")


def test_another_credspec_in_usr_local(boot: Boot, packages: Packages) -> None:
    host = boot()
    other = host.root / "usr/local/bin/credspec"
    other.write_text("#!/bin/sh\necho another\n")
    other.chmod(0o755)
    host.install(packages["credspec"])
    assert host.run("credspec").stdout == "another\n"
    host.run("/usr/bin/credspec", "setup", "agent")
    host.wait_until_active(AGENT)
    host.run("apt-get", "purge", "-y", "credspec")
    assert host.run("credspec").stdout == "another\n"


def test_dpkg_killed_in_the_middle_and_configured_later(boot: Boot, packages: Packages) -> None:
    host = boot()
    host.run("sh", "-c", "cp -a /var/lib/dpkg /srv/dpkg-before")
    package = packages["credspec"]
    (host.root / "srv" / package.name).write_bytes(package.read_bytes())
    script = (
        f"dpkg --unpack /srv/{package.name} & pid=$!; "
        "while [ ! -e /usr/lib/credspec ] && kill -0 $pid; do :; done; kill -9 $pid; wait $pid"
    )
    host.run("sh", "-c", script, status=None)
    host.run("dpkg", "--configure", "-a", status=None)
    host.run("dpkg", "--install", f"/srv/{package.name}")
    assert "distribution package" in host.run("credspec", "--version").stdout
    assert host.run("dpkg", "--verify", "credspec").stdout == ""
    host.run("apt-get", "purge", "-y", "credspec")


FULL_VAR = """\
mkdir -p /srv/var
size=$(( $(du -sk /var | cut -f1) + 512 ))
mount -t tmpfs -o size=${size}k var /srv/var
cp -a /var/. /srv/var/
mount --rbind /srv/var /var
dd if=/dev/zero of=/var/filling bs=4k 2>/dev/null || true
"""


def test_a_full_var_and_room_later(boot: Boot, packages: Packages) -> None:
    host = boot()
    host.run("sh", "-ec", FULL_VAR)
    said = host.install(packages["credspec"], status=100)
    assert "No space left on device" in said.stdout + said.stderr
    assert host.run("systemctl", "list-units", "credspec-*").stdout.count("credspec-") == 0
    host.run("rm", "/var/filling")
    host.run("mount", "-o", "remount,size=4g", "/srv/var")
    host.run("dpkg", "--configure", "-a")
    host.install(packages["credspec"])
    assert host.run("dpkg", "--verify", "credspec").stdout == ""
    host.run(*SETUP, "agent")
    host.wait_until_active(AGENT)
    host.run("apt-get", "purge", "-y", "credspec")
    assert host.run("test", "-e", "/usr/lib/credspec", status=None).returncode == 1


def test_a_machine_without_systemd(boot: Boot, packages: Packages) -> None:
    host = boot()
    host.run("umount", "--lazy", "/run")  # systemd runs, and nothing can see it
    host.install(packages["credspec"])
    said = host.run(*SETUP, "agent", status=1)
    assert "systemd-missing" in said.stderr
    host.install(built(host.release, version=NEXT_VERSION).packages["credspec"])
    host.run("apt-get", "purge", "-y", "credspec")
    assert host.run("test", "-e", "/usr/lib/credspec", status=None).returncode == 1
