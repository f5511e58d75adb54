"""One host and two real domains that trust each other: side by side, and apart in failure."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import krb5
import pytest

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.contract.kdc_sockets import serve_kdc
from credspec.directory.connection import Transport
from credspec.directory.locator import DnsResolver, DomainController, Locator
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.ccache_reader import read_ccache
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab, open_lab
from credspec.lab.trust import TRUSTED_ACCOUNT, down_trusted, trusted_name
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import MachineKeytab
from support.agent.agent_process import BIN, AgentProcess

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made


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


def principal(agent: AgentProcess, number: int, name: str = "krb5cc") -> str:
    """Return whose tickets a lease holds."""
    context = krb5.init_context()
    path = agent.lease_directory(number) / name
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


def specs(agent: AgentProcess) -> Path:
    return agent.directory / "specs"


def write_spec(agent: AgentProcess, *more: tuple[str, str], host: str = "") -> None:
    """Write both.json: the lab's account, more accounts by name and scope, a host account."""
    document = json.loads((specs(agent) / "one.json").read_text())
    directory = document["ActiveDirectoryConfig"]
    for name, scope in more:
        directory["GroupManagedServiceAccounts"].append({"Name": name, "Scope": scope})
    if host:
        directory["HostAccountConfig"] = {
            "PortableCcgVersion": "1",
            "PluginGUID": "{00000000-0000-0000-0000-00000000000a}",
            "PluginInput": host,
        }
    (specs(agent) / "both.json").write_text(json.dumps(document))


def caches(agent: AgentProcess, number: int) -> dict[str, str]:
    """Return whose tickets are in each cache of a lease."""
    return {
        path.name: principal(agent, number, path.name)
        for path in agent.lease_directory(number).glob("krb5cc*")
    }


@pytest.mark.parametrize("scope", ["dns", "netbios", "both"])
def test_accounts_of_two_domains_in_one_container(
    agent: AgentProcess, lab: Lab, other: Lab, scope: str
) -> None:
    names = {"dns": [other.dns_domain], "netbios": [other.netbios]}
    scopes = names.get(scope, [other.netbios, other.dns_domain])
    write_spec(agent, *((TRUSTED_ACCOUNT, each) for each in scopes))
    expected = {
        "krb5cc": f"WebApp01$@{lab.realm}",
        "krb5cc_webapp01": f"WebApp01$@{lab.realm}",
        f"krb5cc_{TRUSTED_ACCOUNT.lower()}@{other.dns_domain}": f"{TRUSTED_ACCOUNT}$@{other.realm}",
    }
    agent.start()
    agent.mount(1)
    agent.put(1, "file://both.json")
    assert caches(agent, 1) == expected
    assert agent.client.get("/v1/identities")["acquisitions"] == 2
    conf = agent.lease_directory(1) / "krb5.conf"
    before = conf.read_text()
    assert f"kdc = {other.dc_address}" in before
    # A restart asks nobody, and takes both over.
    agent.end()
    agent.start()
    assert len(agent.client.get("/v1/identities")["identities"]) == 2
    assert caches(agent, 1) == expected
    assert conf.read_text() == before
    agent.delete(1)
    assert list(agent.lease_directory(1).iterdir()) == []


def test_the_other_domain_accepts_the_containers_ticket(
    agent: AgentProcess, lab: Lab, other: Lab
) -> None:
    write_spec(agent, (TRUSTED_ACCOUNT, other.netbios))
    agent.start()
    agent.mount(1)
    agent.put(1, "file://both.json")
    directory = agent.lease_directory(1)
    for cache, of in (
        ("krb5cc", lab),
        (f"krb5cc_{TRUSTED_ACCOUNT.lower()}@{other.dns_domain}", other),
    ):
        environment = {
            **os.environ,
            "KRB5CCNAME": f"FILE:{directory}/{cache}",
            "KRB5_CONFIG": str(directory / "krb5.conf"),
        }
        command = ["ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{of.dc_host}"]
        shown = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        name = "WebApp01" if of is lab else TRUSTED_ACCOUNT
        assert shown.stdout == f"u:{of.netbios}\\{name}$\n", shown.stderr


@pytest.mark.parametrize("mapped_to", ["other", "own", None])
def test_a_ticket_of_a_service_of_the_other_domain(
    agent: AgentProcess, lab: Lab, other: Lab, tmp_path: Path, mapped_to: str | None
) -> None:
    """Clients look it up in the realm that they think the host is of: both are in the cache."""
    service = f"ldap/{other.dc_host}"
    agent.start()
    agent.mount(1)
    agent.put(1, "file://one.json", tickets="services", services=[service])
    cache = agent.lease_directory(1) / "krb5cc"
    found = read_ccache(cache.read_bytes())
    assert {each.server for each in found.records} == {
        f"{service}@{other.realm}",
        f"{service}@{lab.realm}",
    }
    conf = (agent.lease_directory(1) / "krb5.conf").read_text()
    if mapped_to is not None:
        realm = other.realm if mapped_to == "other" else lab.realm
        conf += f"\n[domain_realm]\n .{other.dns_domain} = {realm}\n"
    (tmp_path / "client.conf").write_text(conf)
    shown = subprocess.run(
        ["ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{other.dc_host}"],
        env=os.environ
        | {"KRB5CCNAME": f"FILE:{cache}", "KRB5_CONFIG": str(tmp_path / "client.conf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr


@pytest.mark.parametrize("mapped_to", ["other", "own", None])
def test_the_broker_leads_to_a_service_of_the_other_domain(
    agent: AgentProcess, lab: Lab, other: Lab, mapped_to: str | None
) -> None:
    """Whatever realm a client thinks the host is of: a decoy for the other, then the ticket."""
    pattern = f"ldap/*.{other.dns_domain}@{other.realm}"
    agent.start()
    agent.mount(1)
    agent.put(1, "file://one.json", tickets="broker", services=[pattern])
    serve_kdc(f"{1:032x}", str(agent.run_directory / "agent.sock"), None)
    conf = (agent.lease_directory(1) / "krb5.conf").read_text()
    assert f" .{other.dns_domain} = {other.realm}\n" in conf
    if mapped_to != "other":
        lines = [line for line in conf.splitlines() if f"= {other.realm}" not in line]
        conf = "\n".join(lines)
        conf += f"\n.{other.dns_domain} = {lab.realm}\n" if mapped_to == "own" else "\n"
    path = agent.directory / "client.conf"
    path.write_text(conf)
    cache = agent.lease_directory(1) / "krb5cc"
    shown = subprocess.run(
        ["ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{other.dc_host}"],
        env=os.environ | {"KRB5CCNAME": f"FILE:{cache}", "KRB5_CONFIG": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout == f"u:{lab.netbios}\\WebApp01$\n", shown.stderr
    granted = [json.loads(line) for line in agent.audit_log.read_text().splitlines()]
    [line] = [each for each in granted if each.get("via") == "kdc"]
    assert (line["decision"], line["realm"]) == ("granted", other.realm)
    assert line["pattern"] == pattern


def test_a_host_without_keytab_reaches_both_with_its_providers_account(
    lab: Lab, other: Lab, tmp_path: Path
) -> None:
    password = secrets.token_urlsafe(24) + "aA1!"
    lab.samba_tool("user", "create", "both-reader", "--random-password")
    lab.samba_tool("user", "setpassword", "both-reader", f"--newpassword={password}")
    sid = lab.samba_tool("user", "show", "both-reader", "--attributes=objectSid")
    [sid] = [line.split()[1] for line in sid.splitlines() if line.startswith("objectSid:")]
    membership = ("service-account", "group-msa-membership")
    lab.samba_tool(*membership, "add", "--name=WebApp01", "--principal=both-reader")
    other.samba_tool(*membership, "add", f"--name={TRUSTED_ACCOUNT}", f"--principal={sid}")
    domains = f'domains = {{ {lab.netbios} = "{lab.dns_domain}" }}\n'
    agent = AgentProcess(lab, tmp_path, extra=f'[providers]\nenabled = ["inline"]\n{domains}')
    text = agent.config.read_text().replace(str(lab.host_keytab), "/nonexistent")
    agent.config.write_text(text)
    account = f"{lab.netbios}:both-reader:{password}"
    write_spec(agent, (TRUSTED_ACCOUNT, other.netbios), host=account)
    try:
        agent.start()
        agent.mount(1)
        agent.put(1, "file://both.json")
        assert set(caches(agent, 1).values()) == {
            f"WebApp01$@{lab.realm}",
            f"{TRUSTED_ACCOUNT}$@{other.realm}",
        }
        assert password not in agent.log.read_text() + agent.audit_log.read_text()
    finally:
        agent.close()
        other.samba_tool(*membership, "remove", f"--name={TRUSTED_ACCOUNT}", f"--principal={sid}")
        lab.samba_tool(*membership, "remove", "--name=WebApp01", "--principal=both-reader")
        lab.samba_tool("user", "delete", "both-reader")


def test_all_or_nothing_also_across_domains(agent: AgentProcess, other: Lab) -> None:
    agent.start()
    agent.mount(1)
    for name, scope, code in (
        ("Missing", other.dns_domain, "account-not-found"),
        (TRUSTED_ACCOUNT, "NOBODY", "domain-not-trusted"),
        (TRUSTED_ACCOUNT, "nobody.test", "domain-not-found"),
    ):
        write_spec(agent, (name, scope))
        with pytest.raises(CredspecError, match=code):
            agent.put(1, "file://both.json")
        assert list(agent.lease_directory(1).iterdir()) == []
        assert list((agent.run_directory / "journal").iterdir()) == []


def test_the_policy_names_accounts_of_other_domains(lab: Lab, other: Lab, tmp_path: Path) -> None:
    policy = '[policy]\naccounts = ["WebApp01@EXAMPLE.test", "*@elsewhere.test"]\n'
    agent = AgentProcess(lab, tmp_path, extra=policy.replace("EXAMPLE.test", lab.dns_domain))
    write_spec(agent, (TRUSTED_ACCOUNT, other.netbios))
    try:
        agent.start()
        agent.mount(1)
        with pytest.raises(NotPermittedError, match=f"{TRUSTED_ACCOUNT}@{other.dns_domain}"):
            agent.put(1, "file://both.json")
        assert agent.client.get("/v1/identities")["acquisitions"] == 0
    finally:
        agent.close()


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


def test_programs_of_the_lab_know_both_realms(lab: Lab, other: Lab) -> None:
    for one in (lab, other):
        text = one.krb5_conf.read_text()
        assert text.count(f" {lab.realm} = {{") == text.count(f" {other.realm} = {{") == 1
    cache = f"KRB5CCNAME=FILE:{lab.directory}/krb5cc_of_a_program"
    for program in (
        ["kinit", "-kt", str(lab.host_keytab), f"LABHOST$@{lab.realm}"],
        ["ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{other.dc_host}"],
    ):
        shown = subprocess.run(
            lab.exec_argv(["env", cache, *program]), capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr
    assert "LABHOST$" in shown.stdout


def test_a_controller_of_a_trusted_domain_cannot_impersonate_the_hosts_own(
    lab: Lab, other: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS names it, and its directory's lies are consistent (simulated): the KDCs know better."""
    monkeypatch.setenv("KRB5_CONFIG", f"{tmp_path}/krb5.conf:{lab.krb5_conf}")
    krb5_conf = AgentKrb5Conf(tmp_path / "krb5.conf")

    def session_of(domain: str, controller: Lab) -> DomainSession:
        # Their KDCs stay as they are: they pass on what the real ones say.
        located = [DomainController(controller.dc_host, (controller.dc_address,))]
        monkeypatch.setattr(Locator, "locate", lambda *_, **__: located)
        for each in (lab, other):
            krb5_conf.set_kdcs(each.realm, [each.dc_address])
        return DomainSession(
            domain,
            host_identity=MachineKeytab(
                lab.host_keytab, cache=f"MEMORY:{domain}-{located[0].host}"
            ),
            locator=Locator(DnsResolver()),
            transport=Transport.LDAP,
            ca_file=None,
            krb5_conf=None,
        )

    honest = session_of(lab.dns_domain, lab)
    facts = honest.facts()
    honest.close()
    assert session_of(other.dns_domain, other).facts().dns_name == other.dns_domain
    monkeypatch.setattr("credspec.session.domain_connection.read_domain_facts", lambda *_: facts)
    with pytest.raises(NotPermittedError, match="domain-controller-other-realm"):
        session_of(lab.dns_domain, other).acquire("WebApp01")


def test_a_trusted_domain_cannot_call_itself_the_hosts_own(
    agent: AgentProcess, lab: Lab, other: Lab
) -> None:
    """The policy allows all of the trusted domain; its spec has the right SID and GUID.

    The last test of this domain: Samba lets nobody take such a crossRef back.
    """
    text = agent.config.read_text()
    patterns = f'["*@{other.dns_domain}"]'
    agent.config.write_text(f"{text}[policy]\naccounts = {patterns}\nkeytabs = {patterns}\n")
    path = specs(agent) / "other.json"
    # An account that the host may read, of its own domain alone.
    path.write_text(path.read_text().replace(TRUSTED_ACCOUNT, "WebApp02"))
    lie = (
        f"dn: CN=Extra,CN=Partitions,CN=Configuration,{other.domain_dn}\nobjectClass: crossRef\n"
        f"cn: Extra\nnCName: {other.domain_dn}\ndnsRoot: {lab.dns_domain}\nnETBIOSName: EXTRA\n"
    )
    database = other.directory / "dc/private/sam.ldb"
    command = ["ldbadd", f"--configfile={other.smb_conf}", "-H", str(database)]
    subprocess.run(command, input=lie, text=True, check=True, capture_output=True)
    agent.start()
    agent.mount(1)
    body = {"spec": "file://other.json", "container": "c1", "uid": 0, "gid": 0}
    body["runtime_state"] = str(agent.state(1))
    for keytab in (False, True):
        with pytest.raises(CredspecError, match=r"\[domain-facts-malformed\]"):
            agent.client.request("PUT", f"/v1/leases/{1:032x}", body | {"keytab": keytab})
        assert list(agent.lease_directory(1).iterdir()) == []
        assert agent.client.get("/v1/identities") == {"acquisitions": 0, "identities": []}
        asked = {each["domain"] for each in agent.client.get("/v1/domains")["domains"]}
        # Its own is asked by /readyz in any case, about no account.
        assert asked - {lab.dns_domain} == {other.dns_domain}
