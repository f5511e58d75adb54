"""Docker comes up before the agent or the domain: ``--restart always`` containers start themselves.

dockerd does not try again what failed when it started, so the runtime waits.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.setup.launcher import launcher_text

SPEC = "--security-opt credentialspec=file://WebApp01.json"


@pytest.fixture
def service(host) -> Iterator[str]:
    """A container that is to come back with the host; starts wait for long on a busy machine."""
    launcher = host.engine.directory / "libexec" / "credspec-runtime"
    text = launcher.read_text()
    launcher.write_text(launcher_text(host.config.run_directory, wait_seconds=150))
    made = host.shell(f"docker run -d --restart always --name svc {SPEC} kerberos-client sleep 999")
    try:
        assert made.returncode == 0, made.stderr
        yield "svc"
    finally:
        launcher.write_text(text)
        host.engine.docker("rm", "-f", "svc", check=False)


def stop_docker(host) -> None:
    """Stop dockerd as a shutdown does: its containers end, and are to start with it again."""
    process = host.engine._process
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    host.engine._process = None


def is_waiting(host) -> bool:
    """Whether the start of a container waits: its runtime sleeps. dockerd answers nobody then."""
    launcher = str(host.engine.directory / "libexec" / "credspec-runtime")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if launcher in words and "nanosleep" in (process / "wchan").read_text():
                return True
    return False


def start_docker_and_later(host, act: Callable[[], None]) -> None:
    """Start dockerd, and act as soon as the start of its container waits."""

    def act_late() -> None:
        end = time.monotonic() + 140
        while not is_waiting(host) and time.monotonic() < end:
            time.sleep(0.1)
        act()

    later = threading.Thread(target=act_late)
    later.start()
    try:
        host.engine.start(seconds=240)
    finally:
        later.join()


def comes_back(host) -> dict[str, object]:
    end = time.monotonic() + 180
    while True:
        found = host.inspect("svc")["State"]
        if found["Running"] or time.monotonic() > end:
            return found
        time.sleep(0.5)


def ticket(host) -> bytes:
    return bytes(host.engine.docker("exec", "svc", "klist", check=False).stdout)


def is_ready(host) -> str:
    """Return why the agent is not ready, nothing if it is."""
    try:
        host.agent.get("/readyz")
    except CredspecError as error:
        return str(error)
    return ""


def becomes_ready(host) -> bool:
    end = time.monotonic() + 120
    while is_ready(host) and time.monotonic() < end:
        time.sleep(0.5)
    return not is_ready(host)


def test_the_agent_starts_after_docker(host, service: str) -> None:
    stop_docker(host)
    host.stop("agent")
    start_docker_and_later(host, lambda: host.start("agent"))
    found = comes_back(host)
    assert found["Running"], found
    assert b"WebApp01$@EXAMPLE.TEST" in ticket(host)
    waited = host.engine.docker("logs", "svc").stderr.decode()
    assert waited.count("waiting for up to 150 s: credspec agent: not reachable") == 1, waited


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_the_domain_comes_back_after_docker(host, service: str, how: str) -> None:
    """The name server and controller are dead when agent and dockerd start, and come up later."""
    lab = host.lab
    stop_docker(host)
    host.stop("agent")
    (lab.pause_dc if how == "silent" else lab.stop_dc)()
    try:
        host.start("agent")
        # Nobody has asked for a lease, and yet it is known; the process itself is well.
        reason = ""
        end = time.monotonic() + 120
        while "dns-unreachable" not in reason and time.monotonic() < end:
            reason = is_ready(host)
            assert reason, "ready without a domain"
        assert "does not answer since" in reason
        assert host.agent.get("/healthz") == {"status": "ok"}
        shown = host.shell("credspec status").stdout
        assert "Not ready: domain example.test" in " ".join(shown.split())
        start_docker_and_later(host, lab.resume_dc if how == "silent" else lab.start_dc)
    except BaseException:
        (lab.resume_dc if how == "silent" else lab.start_dc)()
        raise
    found = comes_back(host)
    assert found["Running"], found
    assert b"WebApp01$@EXAMPLE.TEST" in ticket(host)
    waited = host.engine.docker("logs", "svc").stderr.decode()
    assert waited.count("waiting for up to 150 s: DNS: ") == 1, waited
    assert becomes_ready(host)


def test_a_refusal_is_not_waited_for(host, service: str) -> None:
    """With 150 s to wait, each of these would show."""
    for name, code in (("Nobody01", "account-not-found"), ("Disabled01", "kdc-account-disabled")):
        document = json.loads((host.lab.specs_directory / "WebApp01.json").read_text())
        for account in document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]:
            account["Name"] = name
        (host.lab.specs_directory / "refused.json").write_text(json.dumps(document))
        spec = SPEC.replace("WebApp01", "refused")
        shown = host.shell(f"docker run --rm {spec} kerberos-client true")
        assert code in shown.stderr, shown.stderr
        assert "waited for" not in shown.stderr


def test_a_container_deleted_while_it_waits_leaves_nothing(host, service: str) -> None:
    """As containerd does with a start that its client gave up: kill and delete by the runtime."""
    host.stop("agent")
    try:
        bundle = host.engine.directory / "bundle"
        bundle.mkdir(exist_ok=True)
        annotations = {"credspec.dev/spec": "file://WebApp01.json"}
        (bundle / "config.json").write_text(json.dumps({"annotations": annotations}))
        runtime = [str(host.engine.directory / "libexec" / "credspec-runtime"), "--root"]
        runtime += [str(host.engine.directory / "state")]
        create = [*runtime, "create", "--bundle", str(bundle), "gone"]
        command = host.lab.exec_argv(create)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "waiting for up to 150 s" in process.stderr.readline()
            assert len(host.mounts()) == 2
            subprocess.run(host.lab.exec_argv([*runtime, "delete", "--force", "gone"]), check=False)
            assert "[start-abandoned]" in process.stderr.read()
            assert process.wait(60) == 1
            assert len(host.mounts()) == 1
        # The same with a signal.
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "waiting for up to 150 s" in process.stderr.readline()
            process.terminate()
            assert "[start-interrupted]" in process.stderr.read()
            assert process.wait(60) == 1
        assert len(host.mounts()) == 1
    finally:
        host.start("agent")
