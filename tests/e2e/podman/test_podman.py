"""Podman, by its runtime and by its hooks, with crun and with runc."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from support.engines.folder_engine import FolderPodmanEngine, ReleaseFolder
from support.engines.podman_engine import PodmanEngine
from support.engines.start_waits import short_start_waits

IMAGE = "kerberos-client"
SPEC = "--annotation=credspec.dev/spec=file://WebApp01.json"
CONFIRMED = "--tmpfs=/run/credspec"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def engine(host: Any, engines_folder: ReleaseFolder | None) -> Iterator[PodmanEngine]:
    if engines_folder is None:
        running = PodmanEngine(host.config.run_directory)
    else:
        running = FolderPodmanEngine(host.config.run_directory, engines_folder)
    try:
        imported = running.podman("import", "-", IMAGE, data=host.image)
        assert imported.returncode == 0, imported.stderr
        yield running
    finally:
        running.close()


WAYS = {
    "runtime": ("--runtime=credspec",),
    "hooks": (),
    "hooks-crun": ("--runtime=crun",),
    "hooks-runc": ("--runtime=runc",),
    "both": ("--runtime=credspec",),
}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, engine: PodmanEngine) -> Run:
    """Run podman the one way or the other."""

    def call(*arguments: str) -> CompletedProcess[str]:
        hooks = request.param != "runtime"
        return engine.podman(*WAYS[request.param], *arguments, hooks=hooks)

    return call


def nothing_left(host: Any) -> None:
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])


@pytest.mark.parametrize("options", [[], ["--user=1000:1000"], ["--read-only"]])
def test_tickets(host: Any, run: Run, options: list[str]) -> None:
    shown = run("run", "--rm", "--network=none", SPEC, CONFIRMED, *options, IMAGE, "klist")
    assert DEFAULT in shown.stdout, shown.stderr
    nothing_left(host)


def test_tickets_of_services_and_no_tgt(host: Any, run: Run) -> None:
    service = f"ldap/{host.lab.dc_host}"
    tickets = ["--annotation=credspec.dev/tickets=services"]
    listed = f"--annotation=credspec.dev/services={service}"
    started = ["run", "--rm", "--network=none", SPEC, CONFIRMED, *tickets]
    shown = run(*started, listed, IMAGE, "sh", "-c", f"klist && kvno -q {service}")
    assert DEFAULT in shown.stdout, shown.stderr
    assert f"{service}@{host.lab.realm}" in shown.stdout
    assert "krbtgt" not in shown.stdout
    refused = run(*started, listed, IMAGE, "kvno", f"cifs/{host.lab.dc_host}")
    assert refused.returncode != 0
    without = run(*started, IMAGE, "true")
    assert "tickets-options" in without.stderr
    nothing_left(host)


def test_the_domain_knows_the_container(host: Any, run: Run) -> None:
    options = ["--network=host", "--dns", host.lab.dc_address]
    who = ["ldapwhoami", "-Q", "-H", f"ldap://{host.lab.dc_host}"]
    hosts = f"--add-host={host.lab.dc_host}:{host.lab.dc_address}"
    shown = run("run", "--rm", *options[:1], hosts, SPEC, CONFIRMED, IMAGE, *who)
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


BROKER = (
    "--annotation=credspec.dev/tickets=broker",
    "--annotation=credspec.dev/services=ldap/*.example.test",
)


@pytest.mark.parametrize("network", ["none", "host"])
def test_the_agent_is_the_kdc(host: Any, run: Run, network: str) -> None:
    line = f"kvno ldap/{host.lab.dc_host} && ! kvno cifs/{host.lab.dc_host}"
    conf = "export KRB5_CONFIG=/run/credspec/krb5.conf"
    options = (f"--network={network}", SPEC, *BROKER, CONFIRMED)
    shown = run("run", "--rm", *options, IMAGE, "sh", "-c", f"{conf}; {line}")
    assert shown.returncode == 0, shown.stderr
    assert "KDC policy rejects request" in shown.stderr
    nothing_left(host)


def test_stop_start_and_remove(host: Any, run: Run) -> None:
    assert run("run", "-d", "--name=s1", "--network=none", SPEC, CONFIRMED, IMAGE, "sleep", "600")
    try:
        assert DEFAULT in run("exec", "-e", "KRB5CCNAME=/run/credspec/krb5cc", "s1", "klist").stdout
        assert len(host.leases()) == 1
        assert run("stop", "-t", "0", "s1").returncode == 0
        nothing_left(host)
        assert run("start", "s1").returncode == 0
        assert len(host.leases()) == 1
        assert DEFAULT in run("exec", "-e", "KRB5CCNAME=/run/credspec/krb5cc", "s1", "klist").stdout
    finally:
        run("rm", "--force", "--time", "0", "s1")
    nothing_left(host)


def test_a_refusal_is_shown_with_its_reason(host: Any, run: Run) -> None:
    wanted = SPEC.replace("WebApp01", "nothing")
    shown = run("run", "--rm", "--network=none", wanted, CONFIRMED, IMAGE, "klist")
    assert shown.returncode != 0
    assert "nothing.json" in shown.stderr
    assert "[" in shown.stderr
    nothing_left(host)


def test_no_agent(host: Any, engine: PodmanEngine, run: Run) -> None:
    host.stop("agent")
    try:
        with short_start_waits(engine.setup.launcher, engine.setup.hook_launcher):
            shown = run("run", "--rm", "--network=none", SPEC, CONFIRMED, IMAGE, "klist")
        assert shown.returncode != 0
        assert "[agent-unreachable]" in shown.stderr
        assert "systemctl start credspec-agent" in shown.stderr
    finally:
        host.start("agent")
    assert host.mounts() == []


def test_an_image_cannot_choose_its_identity(host: Any, engine: PodmanEngine, run: Run) -> None:
    """Podman 4 hands annotations of images on as if the user had given them, Podman 5 does not."""
    built = engine.podman(
        *("build", "--quiet", "--annotation", "credspec.dev/spec=file://WebApp01.json"),
        *("--annotation", "io.container.manager=docker", "-t", "hostile", "-"),
        data=f"FROM {IMAGE}\n".encode(),
    )
    assert built.returncode == 0, built.stderr
    shown = run("run", "--rm", "--network=none", "hostile", "klist")
    assert shown.returncode != 0
    if "No credentials cache found" not in shown.stderr:
        assert "[spec-carrier-unconfirmed]" in shown.stderr
        assert "--tmpfs /run/credspec" in shown.stderr
    nothing_left(host)


def test_a_container_without_a_spec_notices_nothing(host: Any, run: Run) -> None:
    shown = run("run", "--rm", "--network=none", IMAGE, "env")
    assert shown.returncode == 0, shown.stderr
    assert "KRB5" not in shown.stdout
    assert host.leases() == []


def test_a_pod(host: Any, run: Run) -> None:
    assert run("pod", "create", "--name=p1", "--infra=false").returncode == 0
    try:
        shown = run("run", "--rm", "--pod=p1", "--network=none", SPEC, CONFIRMED, IMAGE, "klist")
        assert DEFAULT in shown.stdout, shown.stderr
    finally:
        run("pod", "rm", "--force", "p1")
    nothing_left(host)


def test_a_keytab_an_owner_and_a_mode(host: Any, run: Run) -> None:
    options = [f"--annotation=credspec.dev/{o}" for o in ("keytab=true", "owner=7:8", "mode=0440")]
    line = "klist -k | grep -c HTTP/web; stat -c '%a %u %g' /run/credspec/krb5*"
    shown = run(
        *("run", "--rm", "--network=none", SPEC, CONFIRMED, *options, IMAGE),
        *("sh", "-c", line.replace("| grep -c HTTP/web", "")),
    )
    assert "HTTP/web.example.test@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert shown.stdout.splitlines()[-3:] == ["440 7 8"] * 3
    nothing_left(host)


FIRST_PID_NAMESPACE = Path("pid:[4026531836]")


def remove_runtime_directories(container: str) -> None:
    for runtime in ("crun", "runc"):
        shutil.rmtree(Path("/run", runtime, container), ignore_errors=True)


def test_nobody_is_left_to_tell(host: Any, engine: PodmanEngine, run: Run) -> None:
    """With conmon killed nobody tells of the end, and Podman 4 forgets to have it deleted."""
    started = run("run", "-d", "--name=s1", "--network=none", SPEC, CONFIRMED, IMAGE, "sleep", "60")
    assert started.returncode == 0, started.stderr
    shown = run("inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", "s1").stdout
    conmon, container = map(int, shown.split())
    assert min(conmon, container) > 1, shown
    os.kill(conmon, signal.SIGKILL)
    assert len(host.leases()) == 1, "the container runs"
    os.kill(container, signal.SIGKILL)
    for _ in range(2):  # the first one fails, since there is nothing to kill
        run("rm", "--force", "--time", "0", "s1")
    host.stop("agent")
    # For two minutes a container may be about to come to be.
    for entry in host.config.journal_directory.iterdir():
        record = json.loads(entry.read_text())
        made = record["created_monotonic"] - 180
        entry.write_text(json.dumps(record | {"created_monotonic": made}))
    # Among processes of another namespace the agent goes by the runtime's directory alone.
    if Path("/proc/self/ns/pid").readlink() != FIRST_PID_NAMESPACE:
        remove_runtime_directories(started.stdout.strip())
    host.start("agent")
    end = time.monotonic() + 60
    while host.leases() and time.monotonic() < end:
        time.sleep(0.1)
    assert host.leases() == []
    # What the shim mounted stays, but empty.
    for mount in host.mounts():
        assert not list(Path(mount).iterdir())
        subprocess.run(["umount", "-l", mount], check=True)
        Path(mount).rmdir()
    remove_runtime_directories(started.stdout.strip())


def test_setup_is_taken_back(host: Any, engine: PodmanEngine) -> None:
    arguments = ("--annotation=credspec.dev/spec=file://WebApp01.json", CONFIRMED)
    options = ("run", "--rm", "--network=none", *arguments, IMAGE, "klist")
    assert [line.split()[0] for line in engine.setup.undo()] == ["removed"] * 5
    try:
        shown = engine.podman(*options, hooks=True)
        assert "No credentials cache found" in shown.stderr
        shown = engine.podman("--runtime=credspec", *options)
        assert shown.returncode != 0
        assert "credspec" in shown.stderr
    finally:
        engine.set_up()
    assert DEFAULT in engine.podman(*options, hooks=True).stdout
