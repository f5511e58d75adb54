"""One host and two real domains that trust each other: side by side, and apart in failure."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import krb5
import pytest
from agent_process import BIN, AgentProcess

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.errors import CredspecError, UnreachableError
from credspec.lab.domain import Lab, open_lab
from credspec.lab.trust import TRUSTED_ACCOUNT, down_trusted, trusted_name


@pytest.fixture(scope="module")
def other(lab: Lab) -> Iterator[Lab]:
    command = [str(BIN / "credspec"), "lab", "up", "--name", lab.name, "--domains", "2"]
    subprocess.run(command, check=True, capture_output=True)
    found = open_lab(trusted_name(lab.name))
    yield found
    down_trusted(lab, found)


@pytest.fixture
def agent(lab: Lab, other: Lab, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of the lab's host, with a spec of each domain."""
    found = AgentProcess(lab, tmp_path)
    path = str(tmp_path / "specs/other.json")
    account = f"{other.netbios}\\{TRUSTED_ACCOUNT}"
    make_credential_spec(NewSpecRequest(account_name=account, path=path, domain=other.dns_domain))
    yield found
    found.close()


def principal(agent: AgentProcess, number: int) -> str:
    """Return whose tickets a lease holds."""
    context = krb5.init_context()
    path = agent.lease_directory(number) / "krb5cc"
    cache = krb5.cc_resolve(context, f"FILE:{path}".encode())
    name = krb5.cc_get_principal(context, cache).name
    assert name is not None
    return name.decode()


def lease(agent: AgentProcess, number: int, spec: str) -> str:
    agent.mount(number)
    agent.put(number, f"file://{spec}.json")
    return principal(agent, number)


def test_specs_of_two_domains_on_one_host(agent: AgentProcess, lab: Lab, other: Lab) -> None:
    agent.start()
    numbers = {"one": (1, 3, 5, 7), "other": (2, 4, 6, 8)}
    found: dict[int, str] = {}

    def ask(spec: str, number: int) -> None:
        found[number] = lease(agent, number, spec)

    threads = [
        threading.Thread(target=ask, args=(spec, number))
        for spec, wanted in numbers.items()
        for number in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {found[n] for n in numbers["one"]} == {f"WebApp01$@{lab.realm}"}
    assert {found[n] for n in numbers["other"]} == {f"{TRUSTED_ACCOUNT}$@{other.realm}"}
    assert agent.client.get("/v1/identities")["acquisitions"] == len(numbers)
    domains = {d["domain"]: d["controller"] for d in agent.client.get("/v1/domains")["domains"]}
    assert domains == {lab.dns_domain: lab.dc_host, other.dns_domain: other.dc_host}


def test_the_trusted_domain_first(agent: AgentProcess, other: Lab) -> None:
    """The way there leads through the host's own domain, which nobody has asked for yet."""
    agent.start()
    assert lease(agent, 1, "other") == f"{TRUSTED_ACCOUNT}$@{other.realm}"


def test_a_domain_that_hangs_stops_no_other(agent: AgentProcess, lab: Lab, other: Lab) -> None:
    agent.start()
    refusals: list[CredspecError] = []

    def ask_the_hung() -> None:
        agent.mount(2)
        try:
            agent.put(2, "file://other.json")
        except CredspecError as error:
            refusals.append(error)

    other.pause_dc()
    try:
        waiting = threading.Thread(target=ask_the_hung)
        waiting.start()
        number = 3
        while waiting.is_alive():
            assert lease(agent, number, "one") == f"WebApp01$@{lab.realm}"
            number += 1
            waiting.join(0.2)
    finally:
        other.resume_dc()
    assert [type(refusal) for refusal in refusals] == [UnreachableError]
    assert number > 4, "others were served while it hung"
    states = {d["domain"]: d for d in agent.client.get("/v1/domains")["domains"]}
    assert states[lab.dns_domain]["outage_since"] is None
    assert states[other.dns_domain]["outage_since"] is not None
    agent.put(2, "file://other.json")
    assert principal(agent, 2) == f"{TRUSTED_ACCOUNT}$@{other.realm}"


def test_a_domain_that_dies_leaves_the_other_its_connection(
    agent: AgentProcess, lab: Lab, other: Lab
) -> None:
    agent.start()
    assert lease(agent, 1, "other") == f"{TRUSTED_ACCOUNT}$@{other.realm}"
    assert lease(agent, 2, "one") == f"WebApp01$@{lab.realm}"
    other.stop_dc()
    try:
        agent.mount(3)
        agent.put(3, "file://other.json")
        assert principal(agent, 3) == f"{TRUSTED_ACCOUNT}$@{other.realm}", "its identity is held"
        assert lease(agent, 4, "one") == f"WebApp01$@{lab.realm}"
    finally:
        other.start_dc()
