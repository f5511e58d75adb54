"""``ctr run`` with the shim as its runc."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines.containerd_engine import ContainerdEngine

SPEC = "--annotation=credspec.dev/spec=file://WebApp01.json"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"


@pytest.fixture(autouse=True)
def nothing_left(host: Any, engine: ContainerdEngine) -> Iterator[None]:
    yield
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])
    assert engine.ctr("containers", "ls", "-q").stdout == ""


def run(
    engine: ContainerdEngine, *options: str, command: list[str]
) -> subprocess.CompletedProcess[str]:
    launcher = engine.directory / "libexec" / "credspec-runtime-containerd"
    return engine.run(f"--runc-binary={launcher}", *options, command=["c1", *command])


def test_tickets(engine: ContainerdEngine) -> None:
    shown = run(engine, SPEC, command=["klist"])
    assert DEFAULT in shown.stdout, shown.stderr


def test_the_domain_knows_the_container(host: Any, engine: ContainerdEngine) -> None:
    hosts = engine.directory / "hosts"
    hosts.write_text(f"{host.lab.dc_address} {host.lab.dc_host}\n")
    mount = f"--mount=type=bind,src={hosts},dst=/etc/hosts,options=rbind:ro"
    who = ["ldapwhoami", "-Q", "-H", f"ldap://{host.lab.dc_host}"]
    shown = run(engine, SPEC, "--net-host", mount, command=who)
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_a_refusal_is_shown_with_its_reason(engine: ContainerdEngine) -> None:
    shown = run(engine, SPEC.replace("WebApp01", "nothing"), command=["klist"])
    assert shown.returncode != 0
    assert "nothing.json" in shown.stderr
    assert "no such file" in shown.stderr


def test_without_a_spec_nothing_is_added(engine: ContainerdEngine) -> None:
    shown = run(engine, command=["env"])
    assert shown.returncode == 0, shown.stderr
    assert "KRB5" not in shown.stdout


def test_an_image_or_a_variable_alone_is_no_consent(engine: ContainerdEngine) -> None:
    shown = run(engine, "--env=CREDSPEC=file://WebApp01.json", command=["klist"])
    assert "[spec-carrier-unconfirmed]" in shown.stderr


def test_a_variable_is_no_carrier_whatever_is_mounted(engine: ContainerdEngine) -> None:
    tmpfs = "--mount=type=tmpfs,src=tmpfs,dst=/run/credspec,options=mode=0700"
    shown = run(engine, "--env=CREDSPEC=file://WebApp01.json", tmpfs, command=["klist"])
    assert "[spec-carrier-unconfirmed]" in shown.stderr
    assert "credspec.dev/spec" in shown.stderr


def test_variables_choose_no_option(engine: ContainerdEngine) -> None:
    env = ["--env=CREDSPEC_MODE=0666", "--env=CREDSPEC_KEYTAB=true", "--env=CREDSPEC_OWNER=7"]
    line = "stat -c '%a %u' /run/credspec/krb5cc; ls /run/credspec"
    shown = run(engine, SPEC, *env, command=["sh", "-c", line])
    assert shown.stdout == "600 0\nkrb5.conf\nkrb5cc\n", shown.stderr


@pytest.mark.parametrize(
    "name", ["Credspec.dev/spec", "credspec.dev/specs", "credspec.dev%2Fspec", "credspec.dev./spec"]
)
def test_a_name_is_right_or_refused(engine: ContainerdEngine, name: str) -> None:
    shown = run(engine, f"--annotation={name}=file://WebApp01.json", command=["klist"])
    assert shown.returncode != 0
    assert "[carrier-misspelt]" in shown.stderr
    assert "credspec.dev/spec" in shown.stderr


def test_a_keytab_an_owner_and_a_mode(engine: ContainerdEngine) -> None:
    options = [f"--annotation=credspec.dev/{o}" for o in ("keytab=true", "owner=7:8", "mode=0440")]
    shown = run(
        engine,
        SPEC,
        *options,
        command=["sh", "-c", "klist -k; stat -c '%a %u %g' /run/credspec/krb5*"],
    )
    assert "HTTP/web.example.test@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert shown.stdout.splitlines()[-3:] == ["440 7 8"] * 3
