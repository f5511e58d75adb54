"""``nerdctl`` with the shim as its runtime, and what it does of Docker's option."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines.client_programs import client_program
from support.engines.containerd_engine import IMAGE, ContainerdEngine
from support.engines.engine_command import run_client

SPEC = "--annotation=credspec.dev/spec=file://WebApp01.json"
CACHE = "KRB5CCNAME=/run/credspec/krb5cc"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"
COMPOSE = """
services:
  web:
    image: {image}
    command: [sleep, "600"]
    network_mode: none
    runtime: {launcher}
    annotations: {{credspec.dev/spec: "file://WebApp01.json"}}
    environment: [{cache}]
"""


class Nerdctl:
    """The command, for a containerd of a test; it has its data in the engine's directory."""

    def __init__(self, engine: ContainerdEngine) -> None:
        self.directory = engine.directory
        self.launcher = str(engine.directory / "libexec/credspec-runtime-containerd")
        # runc runs it as a hook of each container, wherever the engine's release has its root.
        program = shutil.copy2(client_program("nerdctl"), engine.directory)
        data = engine.directory / "nerdctl-data"
        options = [f"--address={engine.socket}", "--namespace=default", f"--data-root={data}"]
        self._command = [*engine.surroundings, program, *options]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_client([*self._command, *arguments])

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a container of the image without a network, by the runtime."""
        return self("run", "--net=none", f"--runtime={self.launcher}", *options)


@pytest.fixture
def nerdctl(host: Any, engine: ContainerdEngine) -> Iterator[Nerdctl]:
    command = Nerdctl(engine)
    yield command
    for container in command("ps", "-aq").stdout.split():
        command("rm", "-f", container)
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])


@pytest.mark.parametrize(
    "options", [(), ("--user=1000:1000",), ("--read-only", "--tmpfs=/run")], ids=str
)
def test_tickets(nerdctl: Nerdctl, options: tuple[str, ...]) -> None:
    shown = nerdctl.run("--rm", SPEC, *options, IMAGE, "klist")
    assert DEFAULT in shown.stdout, shown.stderr


def test_the_domain_knows_the_container(host: Any, nerdctl: Nerdctl) -> None:
    lab = host.lab
    name = f"--add-host={lab.dc_host}:{lab.dc_address}"
    runtime = f"--runtime={nerdctl.launcher}"
    who = ("ldapwhoami", "-Q", "-H", f"ldap://{lab.dc_host}")
    shown = nerdctl("run", "--rm", "--net=host", name, runtime, SPEC, IMAGE, *who)
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_exec_has_the_tickets_and_with_an_option_the_variable(nerdctl: Nerdctl) -> None:
    """The image has no krb5.conf of its own; in one that has, programs need the variable."""
    value = CACHE.partition("=")[2]
    for name, options, variable in (("one", (), "unset"), ("two", ("-e", CACHE), value)):
        made = nerdctl.run("-d", f"--name={name}", SPEC, *options, IMAGE, "sleep", "600")
        assert made.returncode == 0, made.stderr
        assert DEFAULT in nerdctl("exec", name, "klist").stdout
        shown = nerdctl("exec", name, "sh", "-c", 'echo "${KRB5CCNAME-unset}"')
        assert shown.stdout == f"{variable}\n", shown.stderr


def test_a_refusal_is_shown_with_its_reason(nerdctl: Nerdctl) -> None:
    shown = nerdctl.run("--rm", SPEC.replace("WebApp01", "nothing"), IMAGE, "klist")
    assert shown.returncode != 0
    assert "nothing.json" in shown.stderr
    assert "no such file" in shown.stderr


def test_compose(nerdctl: Nerdctl, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.format(image=IMAGE, launcher=nerdctl.launcher, cache=CACHE))
    compose = ("compose", f"--project-directory={tmp_path}", f"--file={file}")
    done = nerdctl(*compose, "up", "--detach")
    assert done.returncode == 0, done.stderr
    try:
        assert DEFAULT in nerdctl(*compose, "exec", "-T", "web", "klist").stdout
    finally:
        nerdctl(*compose, "down")


@pytest.mark.parametrize(
    ("runtime", "option"),
    [
        (False, SPEC),
        (True, SPEC.replace("annotation", "label")),
        (False, "--security-opt=credentialspec=file://WebApp01.json"),
        (True, "--security-opt=credentialspec=file://WebApp01.json"),
    ],
)
def test_what_gives_no_tickets_as_the_page_says(
    nerdctl: Nerdctl, runtime: bool, option: str
) -> None:
    runtimes = (f"--runtime={nerdctl.launcher}",) if runtime else ()
    shown = nerdctl("run", "--rm", "--net=none", *runtimes, option, IMAGE, "ls", "/run")
    assert shown.returncode == 0, shown.stderr
    assert "credspec" not in shown.stdout
    if "security-opt" in option:
        assert 'unknown security-opt: \\"credentialspec\\"' in shown.stderr


def test_a_handlers_name_is_no_runtime(nerdctl: Nerdctl) -> None:
    shown = nerdctl("run", "--rm", "--net=none", "--runtime=credspec", SPEC, IMAGE, "klist")
    assert shown.returncode != 0
    assert "invalid runtime name credspec" in shown.stderr
