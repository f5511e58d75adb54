"""Containers of an account of one domain, and a service of another that trusts it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from credspec.lab.domain import Lab, open_lab
from credspec.lab.trust import down_trusted, trusted_name
from support.agent.agent_process import BIN

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made

IMAGE = "kerberos-client"
OPTION = '--security-opt "credentialspec=file://WebApp01.json"'


@pytest.fixture(scope="module")
def other(host: Any, lab: Lab) -> Iterator[Lab]:
    command = [str(BIN / "credspec"), "lab", "up", "--name", lab.name, "--domains", "2"]
    subprocess.run(command, check=True, capture_output=True)
    found = open_lab(trusted_name(lab.name))
    host.forget_identities()
    yield found
    down_trusted(lab, found)


@pytest.mark.parametrize("kind", ["tgt", "services", "broker"])
def test_a_service_of_the_other_domain(host: Any, lab: Lab, other: Lab, kind: str) -> None:
    service = f"ldap/{other.dc_host}"
    labels = {
        "tgt": "",
        "services": f"--label credspec.dev/services={service}",
        "broker": f"--label credspec.dev/services=ldap/*.{other.dns_domain}@{other.realm}",
    }
    run = (
        f"docker run --rm {OPTION} --dns {lab.dc_address} --label credspec.dev/tickets={kind} "
        f"{labels[kind]} {IMAGE}"
    )
    shown = host.shell(f"{run} ldapwhoami -N -Q -Y GSSAPI -H ldap://{other.dc_host}")
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr
    if kind == "tgt":
        return
    lines = [json.loads(line) for line in host.config.audit_log.read_text().splitlines()]
    granted = [each for each in lines if each.get("event") == "service-ticket-granted"]
    assert (granted[-1]["service"], granted[-1]["realm"]) == (service, other.realm)
    # The account's own domain has services, too, which are not asked for.
    refused = host.shell(f"{run} kvno ldap/{host.lab.dc_host}")
    assert refused.returncode != 0


def test_a_realm_that_no_pattern_names_is_not_led_to(host: Any, lab: Lab, other: Lab) -> None:
    labels = "--label credspec.dev/tickets=broker --label credspec.dev/services=ldap/*.{}@{}"
    own = labels.format(lab.dns_domain, lab.realm)
    run = f"docker run --rm {OPTION} --dns {lab.dc_address} {own} {IMAGE}"
    shown = host.shell(f"{run} kvno krbtgt/{other.realm} ldap/{other.dc_host}")
    assert shown.returncode != 0
    assert "KDC policy rejects request" in shown.stderr
