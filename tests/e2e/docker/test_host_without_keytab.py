"""A host that is not joined: no keytab, but a provider. The main job's two commands, verbatim."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGE = "kerberos-client"
USER = "unjoined-reader"
GUID = "{5B7C3A52-5D0B-4C55-9C5E-6F2B7D1E9A40}"


@pytest.fixture(scope="module")
def unjoined(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The lab's host as if it had never been joined; a user may read WebApp01 instead."""
    lab, password = host.lab, secrets.token_urlsafe(24) + "aA1!"
    lab.samba_tool("user", "create", USER, "--random-password")
    lab.samba_tool("user", "setpassword", USER, f"--newpassword={password}")
    membership = ("service-account", "group-msa-membership")
    lab.samba_tool(*membership, "add", "--name=WebApp01", f"--principal={USER}")
    accounts = tmp_path_factory.mktemp("accounts")
    account = {"username": USER, "password": password, "domainName": lab.dns_domain}
    (accounts / "reader").write_text(json.dumps(account))
    (accounts / "reader").chmod(0o600)
    before = lab.config_path.read_text()
    text = before.replace(f'keytab = "{lab.host_keytab}"', f'keytab = "{accounts}/none"', 1)
    text = text.replace("[ldap]", 'account = "file:reader"\n[ldap]', 1)
    text += f'[providers]\nenabled = ["file"]\n[providers.file]\ndirectory = "{accounts}"\n'
    lab.config_path.write_text(text)
    host.stop("agent")
    host.start("agent")
    try:
        yield host
    finally:
        lab.config_path.write_text(before)
        host.stop("agent")
        host.start("agent")
        for name in ("unjoined.json", "own.json"):
            (lab.specs_directory / name).unlink(missing_ok=True)
        lab.samba_tool(*membership, "remove", "--name=WebApp01", f"--principal={USER}")
        lab.samba_tool("user", "delete", USER)


def run(spec: str, command: str, options: str = "") -> str:
    option = f'--security-opt "credentialspec=file://{spec}"'
    return f"docker run --rm {option} {options} {IMAGE} {command}"


def test_both_commands_verbatim(unjoined: Any) -> None:
    made = unjoined.shell("New-CredentialSpec -AccountName WebApp01 -Path ./unjoined.json")
    assert made.returncode == 0, made.stderr
    shown = unjoined.shell(run("unjoined.json", "klist"))
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    whoami = f"ldapwhoami -Q -H ldap://{unjoined.lab.dc_host}"
    shown = unjoined.shell(run("unjoined.json", whoami, f"--dns {unjoined.lab.dc_address}"))
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_a_spec_that_names_its_provider(unjoined: Any) -> None:
    made = unjoined.shell(
        "credspec new WebApp01 --host-account credspec=file:reader --path own.json"
    )
    assert made.returncode == 0, made.stderr
    shown = unjoined.shell(run("own.json", "klist"))
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    checked = unjoined.shell("credspec check own.json --directory-only --output json")
    steps = {step["step"]: step for step in json.loads(checked.stdout)["steps"]}
    assert checked.returncode == 0, checked.stdout
    assert USER in steps["host-account"]["text"]
    assert USER in steps["host-ticket"]["text"]


def test_nothing_of_the_password_is_left(unjoined: Any) -> None:
    lab = unjoined.lab
    (accounts,) = {
        Path(line.partition(" = ")[2].strip('"'))
        for line in lab.config_path.read_text().splitlines()
        if line.startswith("directory = ")
    }
    password = json.loads((accounts / "reader").read_text())["password"].encode()
    name = f"held-{secrets.token_hex(4)}"
    line = run("own.json", "sleep 60").replace("--rm", f"-d --name {name}")
    assert unjoined.shell(line).returncode == 0
    written = [*unjoined.config.run_directory.rglob("*"), lab.directory / "agent.log"]
    written.append(lab.directory / "audit.jsonl")
    for path in written:
        if path.is_file():
            assert password not in path.read_bytes(), path
    unjoined.shell(f"docker rm -f {name}")


def test_a_provider_that_is_not_enabled(unjoined: Any) -> None:
    spec = json.loads((unjoined.lab.specs_directory / "own.json").read_text())
    config = spec["ActiveDirectoryConfig"]["HostAccountConfig"]
    assert config["PluginGUID"] == GUID
    config["PluginInput"] = "vault:reader"
    (unjoined.lab.specs_directory / "own.json").write_text(json.dumps(spec))
    shown = unjoined.shell(run("own.json", "klist"))
    assert shown.returncode != 0
    assert "the provider vault is not enabled on this host" in shown.stderr
