"""Containers whose KDC is the agent: what is in them opens nothing elsewhere."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.machine.first_process import AS_FIRST_PROCESS

FLOOD = Path(__file__).parents[2] / "support/engines/kdc_flood.py"
IMAGE = "kerberos-client"
SPEC = "credentialspec=file://WebApp01.json"
LABELS = "--label credspec.dev/tickets=broker --label credspec.dev/services=ldap/*.example.test"
# What the gateway makes of the option, for the runtime that it does not choose.
BY_HAND = (
    "-e CREDSPEC=file://WebApp01.json --tmpfs /run/credspec "
    "--mount type=tmpfs,dst=/run/credspec/tickets=broker "
    "--mount type=tmpfs,dst=/run/credspec/services=ldap/*.example.test"
)
RUNTIMES = {
    "runc": f'docker run {LABELS} --security-opt "{SPEC}"',
    "crun": f"docker run --runtime credspec-crun {BY_HAND}",
}


@pytest.fixture(params=RUNTIMES)
def run(request: pytest.FixtureRequest) -> str:
    return RUNTIMES[request.param]


def decisions(host: Any, decision: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in host.config.audit_log.read_text().splitlines()]
    return [line for line in lines if "service" in line and line["decision"] == decision]


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_one_service_is_granted_and_another_refused(host: Any, run: str, network: str) -> None:
    line = f"kvno ldap/{host.lab.dc_host} && ! kvno cifs/{host.lab.dc_host}"
    shown = host.shell(f"{run} --rm --network {network} {IMAGE} sh -c '{line}'")
    assert shown.returncode == 0, shown.stderr
    assert f"ldap/{host.lab.dc_host}@{host.lab.realm}: kvno = " in shown.stdout
    assert "KDC policy rejects request" in shown.stderr
    assert decisions(host, "granted")[-1]["service"] == f"ldap/{host.lab.dc_host}"
    assert decisions(host, "denied")[-1]["service"] == f"cifs/{host.lab.dc_host}"


@pytest.fixture
def container(host: Any) -> Iterator[str]:
    made = host.shell(f"{RUNTIMES['runc']} -d --name b1 {IMAGE} sleep 600")
    assert made.returncode == 0, made.stderr
    yield "b1"
    host.shell("docker rm -f b1 b2")


def lease_of(host: Any, container: str) -> dict[str, Any]:
    wanted = host.inspect(container)["Id"]
    found = [each for each in host.agent.get("/v1/leases")["leases"] if each["container"] == wanted]
    [lease] = found
    assert isinstance(lease, dict)
    return lease


def test_nothing_in_it_opens_anything_at_the_real_kdc(host: Any, container: str) -> None:
    """Its one ticket is a decoy; of its own krb5.conf with the real KDC it has no use."""
    files = host.shell(f"docker exec {container} ls -A /run/credspec").stdout.split()
    assert sorted(files) == ["krb5.conf", "krb5cc"]
    listed = host.shell(f"docker exec {container} klist").stdout
    assert [line.split()[-1] for line in listed.splitlines() if line[:1].isdigit()] == [
        f"krbtgt/{host.lab.realm}@{host.lab.realm}"
    ]
    conf = (
        f"[libdefaults]\\n default_realm = {host.lab.realm}\\n dns_canonicalize_hostname = false\\n"
        f"[realms]\\n {host.lab.realm} = {{\\n kdc = {host.lab.dc_address}\\n}}\\n"
    )
    script = f'printf "{conf}" > /tmp/k.conf; KRB5_CONFIG=/tmp/k.conf kvno ldap/{host.lab.dc_host}'
    shown = host.shell(f"docker exec {container} sh -c '{script}'")
    assert "Decrypt integrity check failed" in shown.stderr


def test_nobody_is_impersonated(host: Any) -> None:
    """Who holds the TGT can pose as another user towards services of the account itself."""
    plain = f'docker run --security-opt "{SPEC}" --rm'
    host.lab.samba_tool("user", "create", "posed", "--random-password")
    posing = "kvno -U posed 'WebApp01$'"
    shown = host.shell(f"{plain} {IMAGE} {posing}")
    assert shown.returncode == 0, shown.stderr
    shown = host.shell(f"{plain} --label credspec.dev/tickets=broker {IMAGE} {posing}")
    assert shown.returncode == 1
    assert "KDC policy rejects request" in shown.stderr


def test_a_container_that_is_started_again(host: Any, container: str) -> None:
    kvno = f"docker exec {container} kvno ldap/{host.lab.dc_host}"
    assert host.shell(kvno).returncode == 0
    assert host.shell(f"docker restart -t 0 {container}").returncode == 0
    assert host.shell(kvno).returncode == 0
    assert lease_of(host, container)["kdc_served"]


def test_containers_that_share_a_network_have_a_port_each(host: Any, container: str) -> None:
    """The other's port is reached, and its decoy is worth nothing there."""
    other = RUNTIMES["runc"].replace("WebApp01", "WebApp02")
    options = f"--network container:{container} --name b2 -d"
    assert host.shell(f"{other} {options} {IMAGE} sleep 600").returncode == 0
    ports = {lease_of(host, name)["kdc_port"] for name in (container, "b2")}
    assert len(ports) == 2
    for name in (container, "b2"):
        assert host.shell(f"docker exec {name} kvno ldap/{host.lab.dc_host}").returncode == 0
    conf = host.shell(f"docker exec {container} cat /run/credspec/krb5.conf").stdout
    script = f"cat > /tmp/k.conf; KRB5_CONFIG=/tmp/k.conf kvno ldap/other.{host.lab.dns_domain}"
    shown = host.shell(f"docker exec -i b2 sh -c '{script}' <<'END'\n{conf}\nEND")
    assert "Decrypt integrity check failed" in shown.stderr


def test_root_cuts_a_container_off(host: Any, container: str) -> None:
    kvno = f"docker exec {container} kvno ldap/{host.lab.dc_host}"
    assert host.shell(kvno).returncode == 0
    lease = lease_of(host, container)["lease_id"]
    # What it had is wiped, a copy it made is worthless.
    kept = "cd /run/credspec; cat krb5cc > /tmp/krb5cc; cat krb5.conf > /tmp/krb5.conf"
    assert host.shell(f"docker exec {container} sh -c '{kept}'").returncode == 0
    assert host.shell(f"credspec lease revoke {lease}").returncode == 0
    copy = "-e KRB5_CONFIG=/tmp/krb5.conf -e KRB5CCNAME=/tmp/krb5cc"
    shown = host.shell(f"docker exec {copy} {container} kvno ldap/other.{host.lab.dns_domain}")
    assert "Cannot contact any KDC" in shown.stderr


def test_denied_requests_are_seen(host: Any, container: str) -> None:
    for _ in range(3):
        host.shell(f"docker exec {container} kvno cifs/{host.lab.dc_host}")
    assert lease_of(host, container)["denied"] >= 3
    log = (host.lab.directory / "agent.log").read_text()
    assert "service-ticket-denied" in log
    assert f"service='cifs/{host.lab.dc_host}@{host.lab.realm}'" in log
    metrics = host.shell(f"curl -s --unix-socket {host.config.agent_socket} http://agent/metrics")
    assert 'credspec_service_tickets_total{result="denied"}' in metrics.stdout


def flooded(host: Any, name: str) -> tuple[int, ...]:
    """Return datagrams, connections, and answers of both, as the flooding container counts them."""
    lines = host.shell(f"docker logs {name}").stdout.splitlines()
    # Two processes print; each counts its own.
    return tuple(map(max, zip(*(map(int, line.split()) for line in lines), strict=True)))


def test_a_flood_of_one_container_harms_no_other(
    host: Any, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten thousand requests a second and more, by UDP and TCP, each container in its network."""
    mounts = f"-v /usr:/usr:ro -v {FLOOD}:/flood.py:ro"
    log = host.lab.directory / "agent.log"
    lines = len(log.read_text().splitlines())
    refused = tickets(host)["refused"]
    started = time.monotonic()
    run = f"{RUNTIMES['runc']} -d --name b2 {mounts} {IMAGE} python3 -S /flood.py"
    assert host.shell(run).returncode == 0
    while len(host.shell("docker logs b2").stdout.splitlines()) < 6:
        time.sleep(0.2)
    line = f"cat /tmp/decoy > $KRB5CCNAME; kvno ldap/{host.lab.dc_host}"
    kvno = f"docker exec {container} sh -c '{line}'"
    copy = f"docker exec {container} sh -c 'cat $KRB5CCNAME > /tmp/decoy'"
    assert host.shell(copy).returncode == 0
    for _ in range(20):
        shown = host.shell(kvno)
        assert shown.returncode == 0, shown.stderr
        assert len(host.agent.get("/v1/leases")["leases"]) == 2
    datagrams, connections, *answers = flooded(host, "b2")
    seconds = time.monotonic() - started
    lease = lease_of(host, "b2")["lease_id"]
    assert host.shell("docker kill b2").returncode == 0
    answered = tickets(host)["refused"] - refused
    until_its_end = time.monotonic() - started
    with capsys.disabled():
        rate = (datagrams + connections) / seconds
        shown_rate = f"\n{rate:.0f} requests a second, of which {answered / seconds:.0f} read "
        print(shown_rate, end="")  # noqa: T201 - it is to be seen
    # What it is allowed, 400 at once and 100 a second, and no more; the rest waited or was lost.
    assert 0 < answered + answers[0] <= 400 + 100 * (time.monotonic() - started)
    assert datagrams + connections > 10 * (answered + answers[0])
    written = [each for each in decisions(host, "denied") if each["lease"] == lease]
    assert 1 <= len(written) <= 3 + 3 * until_its_end / 60
    assert len(log.read_text().splitlines()) - lines < 50


def tickets(host: Any) -> dict[str, int]:
    """Return how many decisions there were, by their results."""
    ask = f"curl -s --unix-socket {host.config.agent_socket} http://agent/metrics"
    found = re.findall(
        r'credspec_service_tickets_total{result="(\w+)"} (\d+)', host.shell(ask).stdout
    )
    return {result: int(count) for result, count in found}


def test_an_agent_that_nobody_keeps_the_sockets_for(host: Any, container: str) -> None:
    """The service manager does: tests/integration/agent/test_booted_systemd.py."""
    host.forget_identities()
    assert not lease_of(host, container)["kdc_served"]
    assert "the agent is not its KDC any more" in host.shell("credspec status").stdout
    assert "broker-sockets-lost" in (host.lab.directory / "agent.log").read_text()
    assert host.shell(f"docker restart -t 0 {container}").returncode == 0
    assert host.shell(f"docker exec {container} kvno ldap/{host.lab.dc_host}").returncode == 0


def test_a_process_of_the_host(host: Any) -> None:
    services = "--tickets broker --service 'ldap/*.example.test' --spec WebApp01"
    line = f"kvno ldap/{host.lab.dc_host} && ! kvno cifs/{host.lab.dc_host}"
    run = "env -u KRB5_CONFIG credspec run"  # one that is set already stays
    shown = host.shell(f"{run} {services} -- sh -c '{line}'", under=AS_FIRST_PROCESS)
    assert shown.returncode == 0, shown.stderr
    assert "KDC policy rejects request" in shown.stderr
