"""Each thing that can be wrong has its text, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.engines.start_waits import short_start_waits

IMAGE = "kerberos-client"
PREFIX = "value must be prefixed by 'file://', 'registry://', or 'raw://' followed by a non-empty"


def refused(host, option: str) -> str:
    shown = host.shell(f"docker run --rm --security-opt '{option}' {IMAGE} klist")
    assert shown.returncode in {125, 126, 127}
    assert "Default principal" not in shown.stdout
    assert "Error response from daemon: " in shown.stderr
    return shown.stderr


def document(host) -> dict:
    return json.loads((host.lab.specs_directory / "WebApp01.json").read_text())


def spec_file(host, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    (host.lab.specs_directory / name).write_bytes(data)
    return f"credentialspec=file://{name}"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("credentialspec=rubbish", PREFIX),
        ("credentialspec=rubbish://", PREFIX),
        ("credentialspec=file://", PREFIX),
        ("credentialspec=raw://", PREFIX),
        ("credentialspec=config://x", PREFIX),
        ("credentialspec=registry://x", "registry:// exists only on Windows"),
        ("credentialspec=file:///etc/passwd", "file:// path cannot be absolute"),
        ("credentialspec=file://c:\\blah.txt", "file:// path cannot be absolute"),
        ("credentialspec=file://../x.json", "file:// path must be under "),
        ("credentialspec=file://doesnotexist.txt", "no such file or directory"),
    ],
)
def test_references(host, option: str, text: str) -> None:
    assert text in refused(host, option)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "spec-empty"),
        (b"x" * (64 * 1024 + 1), "spec-too-large"),
        (b"{", "spec-not-json"),
        (b"[]", "spec-wrong-type"),
        (b'{"CmsPlugins": 7, "DomainJoinConfig": "x"}', "spec-wrong-type"),
    ],
)
def test_documents(host, content: bytes, code: str) -> None:
    text = refused(host, spec_file(host, "bad.json", content))
    assert code in text, text


def test_every_problem_of_a_document_at_once(host) -> None:
    found = document(host)
    found["DomainJoinConfig"]["Sid"] = "S-1-0"
    found["DomainJoinConfig"]["Guid"] = "?"
    found["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"] = []
    text = refused(host, spec_file(host, "bad.json", json.dumps(found)))
    for pointer in (
        "/DomainJoinConfig/Sid",
        "/DomainJoinConfig/Guid",
        "/ActiveDirectoryConfig/GroupManagedServiceAccounts",
    ):
        assert pointer in text


def test_a_link_is_not_followed(host) -> None:
    link = host.lab.specs_directory / "link.json"
    link.symlink_to(host.lab.specs_directory / "WebApp01.json")
    try:
        assert "spec-path-link" in refused(host, "credentialspec=file://link.json")
    finally:
        link.unlink()


def with_account(host, name: str) -> str:
    found = document(host)
    found["DomainJoinConfig"]["MachineAccountName"] = name
    for account in found["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]:
        account["Name"] = name
    return spec_file(host, "account.json", json.dumps(found))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Nobody01", "account-not-found"),
        ("Forbidden01", "password-not-permitted"),
        ("Disabled01", "kdc-account-disabled"),
    ],
)
def test_accounts(host, name: str, code: str) -> None:
    text = refused(host, with_account(host, name))
    assert code in text, text
    if name == "Forbidden01":
        assert "EXAMPLE\\\\Administrator" in text or "EXAMPLE\\Administrator" in text


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("Sid", "S-1-5-21-1-2-3", "spec-domain-sid-differs"),
        ("Guid", "11111111-2222-3333-4444-555555555555", "spec-domain-guid-differs"),
        ("DnsName", "nowhere.test", "domain-not-found"),
    ],
)
def test_a_spec_of_another_domain(host, field: str, value: str, code: str) -> None:
    found = document(host)
    found["DomainJoinConfig"][field] = value
    if field == "DnsName":
        for account in found["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]:
            account["Scope"] = value
    text = refused(host, spec_file(host, "other.json", json.dumps(found)))
    assert code in text, text


def test_one_bad_account_of_two_fails_the_whole(host) -> None:
    found = document(host)
    found["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"].append(
        {"Name": "Forbidden01", "Scope": "example.test"}
    )
    assert "password-not-permitted" in refused(host, spec_file(host, "two.json", json.dumps(found)))


def test_no_agent(host) -> None:
    host.stop("agent")
    try:
        with short_start_waits(host.engine.directory / "libexec/credspec-runtime"):
            text = refused(host, "credentialspec=file://WebApp01.json")
        assert "agent-unreachable" in text
        assert "systemctl start credspec-agent" in text
    finally:
        host.start("agent")


def test_no_domain_controller(host) -> None:
    host.stop("agent")
    host.lab.stop_dc()
    host.start("agent")
    try:
        with short_start_waits(host.engine.directory / "libexec/credspec-runtime"):
            text = refused(host, "credentialspec=file://WebApp01.json")
        assert "dns-unreachable" in text or "dc-unreachable" in text
    finally:
        host.lab.start_dc()


def test_a_clock_that_is_off_by_more_than_five_minutes(host) -> None:
    """The domain controller's clock runs ten minutes ahead of the host's."""
    host.stop("agent")
    host.lab.stop_dc()
    host.lab.start_dc(offset_seconds=600)
    host.start("agent")
    try:
        text = refused(host, "credentialspec=file://WebApp01.json")
        assert "kdc-clock-skew" in text, text
    finally:
        host.lab.stop_dc()
        host.lab.start_dc()


def test_a_stale_or_missing_machine_keytab_stops_the_agent(host, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'run_directory = "{tmp_path}/run"\n[host_identity]\nkeytab = "{tmp_path}/none"\n'
    )
    shown = host.shell(f"credspec agent --config {config}")
    assert shown.returncode == 5
    assert "host-keytab-missing" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_another_runtime_contradicts_the_option(host) -> None:
    shown = host.shell(
        "docker run --rm --runtime other --security-opt credentialspec=file://WebApp01.json "
        f"{IMAGE} klist"
    )
    assert "docker-runtime-conflict" in shown.stderr


def test_other_security_options_pass(host) -> None:
    shown = host.shell(
        "docker run --rm --security-opt no-new-privileges "
        f"--security-opt credentialspec=file://WebApp01.json {IMAGE} klist"
    )
    assert shown.returncode == 0, shown.stderr
    unknown = host.shell(f"docker run --rm --security-opt rubbish=1 {IMAGE} klist")
    assert 'invalid --security-opt 2: "rubbish=1"' in unknown.stderr
