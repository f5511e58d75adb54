"""Containers in mode broker: the agent is their KDC, and what is in them opens nothing elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
