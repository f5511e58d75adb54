"""Containers of Docker that have tickets of named services, and no TGT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGE = "kerberos-client"
OPTION = '--security-opt "credentialspec=file://WebApp01.json"'
LDAP = "ldap/dc1.example.test"
POSTGRES = "postgres/db.example.test"
LABELS = f"--label credspec.dev/tickets=services --label credspec.dev/services={LDAP},{POSTGRES}"
BY_HAND = (
    "docker run --runtime credspec-crun -e CREDSPEC=file://WebApp01.json --tmpfs /run/credspec "
    "-e KRB5CCNAME=/run/credspec/krb5cc --tmpfs /run/credspec/tickets=services "
    f"--tmpfs /run/credspec/services={LDAP}"
)
RUN = f"docker run {OPTION} {LABELS}"


def lease_of(host: Any) -> dict[str, Any]:
    [lease] = host.agent.get("/v1/leases")["leases"]
    assert isinstance(lease, dict)
    return lease


@pytest.fixture
def container(host: Any) -> Iterator[str]:
    made = host.shell(f"{RUN} -d --name s1 {IMAGE} sleep 600")
    assert made.returncode == 0, made.stderr
    yield "s1"
    host.shell("docker rm -f s1")


def test_nothing_in_the_container_is_a_tgt(host: Any, container: str) -> None:
    """Every file of it, and the environment of its programs."""
    shown = host.shell(f"docker exec {container} klist").stdout
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown
    services = {line.split()[-1] for line in shown.splitlines() if line[:1].isdigit()}
    assert services == {f"{LDAP}@EXAMPLE.TEST", f"{POSTGRES}@EXAMPLE.TEST"}
    found = host.shell(
        f"docker exec {container} cat /run/credspec/krb5cc /run/credspec/krb5.conf /proc/1/environ "
        "| grep -ac krbtgt"
    )
    assert found.stdout.split() == ["0"], found.stderr
    files = host.shell(f"docker exec {container} ls -A /run/credspec").stdout.split()
    assert sorted(files) == ["krb5.conf", "krb5cc"]
    assert host.shell(f"docker exec {container} klist -s").returncode == 0


def test_other_services_cannot_be_had_whatever_the_container_tries(
    host: Any, container: str
) -> None:
    assert host.shell(f"docker exec {container} kvno -q {LDAP}").returncode == 0
    for wanted in ("cifs/dc1.example.test", "krbtgt/EXAMPLE.TEST"):
        refused = host.shell(f"docker exec {container} kvno {wanted}")
        assert refused.returncode != 0
        assert "credential" in refused.stderr.lower(), refused.stderr
    # A krb5.conf of its own, with the real KDC, does not help: there is nothing to ask with.
    conf = (
        "[libdefaults]\\n default_realm = EXAMPLE.TEST\\n[realms]\\n EXAMPLE.TEST = {\\n"
        f" kdc = {host.lab.dc_address}\\n}}\\n"
    )
    script = f'printf "{conf}" > /tmp/k.conf; KRB5_CONFIG=/tmp/k.conf kvno cifs/dc1.example.test'
    refused = host.shell(f"docker exec {container} sh -c '{script}'")
    assert refused.returncode != 0


def test_without_a_tgt_nobody_poses_as_another_user(host: Any, container: str) -> None:
    """With one, the domain makes a ticket that names alice (MS-SFU, S4U2Self)."""
    line = "kvno -q -U alice 'WebApp01$'"
    with_tgt = host.shell(f"docker run --rm {OPTION} {IMAGE} {line}")
    assert with_tgt.returncode == 0, with_tgt.stderr
    assert host.shell(f"docker exec {container} {line}").returncode != 0


def test_what_is_copied_out_works_elsewhere_until_it_ends(
    host: Any, container: str, tmp_path: Path
) -> None:
    """In another container, which has no identity of its own: its services, and no others."""
    for name in ("krb5cc", "krb5.conf"):
        copied = host.shell(f"docker exec {container} cat /run/credspec/{name} > {tmp_path}/{name}")
        assert copied.returncode == 0, copied.stderr
    (tmp_path / "krb5cc").chmod(0o600)
    run = (
        f"docker run --rm -v {tmp_path}:/stolen:ro -e KRB5CCNAME=/stolen/krb5cc "
        f"-e KRB5_CONFIG=/stolen/krb5.conf {IMAGE}"
    )
    assert host.shell(f"{run} kvno -q {LDAP}").returncode == 0
    assert host.shell(f"{run} kvno -q cifs/dc1.example.test").returncode != 0


def test_inspect_and_status_say_what_was_asked_for(host: Any, container: str) -> None:
    lease = lease_of(host)
    assert (lease["tickets"], lease["services"]) == ("services", [LDAP, POSTGRES])
    assert [s["service"] for s in lease["service_tickets"]] == [LDAP, POSTGRES]
    [inspected] = json.loads(host.shell(f"docker inspect {container}").stdout)
    assert inspected["HostConfig"]["SecurityOpt"] == ["credentialspec=file://WebApp01.json"]
    assert not inspected["HostConfig"].get("Tmpfs")
    shown = host.shell("credspec status").stdout
    assert "services" in shown
    assert LDAP in shown
    assert lease["denied"] == 0


def test_a_container_without_network_has_its_tickets(host: Any) -> None:
    shown = host.shell(f"{RUN} --rm --network none {IMAGE} kvno -q {LDAP}")
    assert shown.returncode == 0, shown.stderr


def test_with_crun_by_hand(host: Any) -> None:
    shown = host.shell(f"{BY_HAND} --rm {IMAGE} klist")
    assert f"{LDAP}@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert "krbtgt" not in shown.stdout


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ("credspec.dev/tickets=services", "tickets-options"),
        (f"credspec.dev/services={LDAP}", "tickets-options"),
        ("credspec.dev/tickets=some", "option-invalid"),
        ("credspec.dev/tickets=services,credspec.dev/services=krbtgt/A", "option-invalid"),
        ("credspec.dev/tickets=services,credspec.dev/services=HTTP/*", "option-invalid"),
        (
            f"credspec.dev/tickets=services,credspec.dev/services={LDAP},credspec.dev/keytab=true",
            "tickets-options",
        ),
        (
            "credspec.dev/tickets=services,credspec.dev/services=HTTP/nowhere.example.test",
            "kdc-service-unknown",
        ),
    ],
)
def test_what_cannot_be_given_is_refused_at_the_start(host: Any, labels: str, code: str) -> None:
    given = " ".join(f"--label {label}" for label in labels.split(","))
    shown = host.shell(f"docker run --rm {OPTION} {given} {IMAGE} true")
    assert shown.returncode != 0
    assert f"[{code}]" in shown.stderr


def test_root_cuts_a_container_off_until_it_ends(host: Any, container: str) -> None:
    lease = lease_of(host)["lease_id"]
    shown = host.shell(f"credspec lease revoke {lease}")
    assert shown.returncode == 0, shown.stderr
    assert host.shell(f"docker exec {container} ls /run/credspec").stdout.split() == []
    assert lease_of(host)["revoked"]
    assert "revoked" in host.shell("credspec status").stdout
    # Also after a restart of the agent, and whichever way it is asked for again.
    host.forget_identities()
    assert lease_of(host)["revoked"]
    asked = host.shell("credspec lease revoke ffffffffffffffffffffffffffffffff")
    assert "[lease-not-found]" in asked.stderr
    log = (host.lab.directory / "agent.log").read_text()
    assert "lease-cut-off" in log
    # Another container of the same account is not concerned.
    assert host.shell(f"{RUN} --rm {IMAGE} klist -s").returncode == 0
    # The end of the container is the end of it.
    assert host.shell(f"docker restart -t 0 {container}").returncode == 0
    assert host.shell(f"docker exec {container} klist -s").returncode == 0
