"""The doctor against the real domain, broken on purpose in every way that it names."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from credspec.config.host import Config, load_config
from credspec.directory.connection import Transport
from credspec.directory.domain import DomainFacts
from credspec.doctor.examination import Examination
from credspec.doctor.services_step import SUITABLE
from credspec.doctor.step import State, StepResult
from credspec.errors import ExitStatus
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.tickets import ticket_from_password
from credspec.lab.domain import Lab, run_tool
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.provisioning import DISABLED, FORBIDDEN, HOST_ACCOUNT
from credspec.session.host_identity import HOST_CACHE, CallersTicket, MachineKeytab
from support.domain.zones import wait_until_served

Examine = Callable[..., "Results"]


class Results(dict[str, StepResult]):
    """The results by step."""

    @property
    def first(self) -> StepResult:
        return next(result for result in self.values() if result.state is State.FAILED)

    def cause(self) -> tuple[str, str, ExitStatus]:
        return self.first.step.key, self.first.problems[0].code, self.first.exit_status

    def states(self) -> set[State]:
        return {result.state for result in self.values()}


@pytest.fixture
def examine(lab: Lab, krb5_conf: AgentKrb5Conf) -> Examine:
    def run(**options: Any) -> Results:
        config: Config = options.pop("config", load_config(lab.config_path))
        options.setdefault("identity", MachineKeytab(config.keytab))
        options.setdefault("only_directory", True)
        examination = Examination(config=config, krb5_conf=krb5_conf, **options)
        try:
            return Results((result.step.key, result) for result in examination.results())
        finally:
            examination.close()

    return run


@pytest.fixture
def administrator(lab: Lab, krb5_conf: AgentKrb5Conf) -> CallersTicket:
    del krb5_conf
    principal = f"Administrator@{lab.realm}"
    return CallersTicket(ticket_from_password(principal, lab.admin_password, into_cache=HOST_CACHE))


@pytest.fixture(scope="module")
def patient(lab: Lab) -> Iterator[str]:
    """A gMSA to break."""
    name = "Doctor01"
    lab.samba_tool("service-account", "create", f"--name={name}", "--dns-host-name=d.example.test")
    lab.samba_tool("user", "enable", f"{name}$")
    allow(lab, name, HOST_ACCOUNT)
    yield name
    lab.samba_tool("service-account", "delete", f"--name={name}")


def allow(lab: Lab, account: str, reader: str) -> None:
    lab.samba_tool(
        *("service-account", "group-msa-membership", "add"),
        *(f"--name={account}", f"--principal={reader}"),
    )


def spec_of(facts: DomainFacts, account: str = "WebApp01", **changes: str) -> Callable[[], bytes]:
    domain = {
        "Sid": facts.sid,
        "MachineAccountName": account,
        "Guid": facts.guid,
        "DnsTreeName": facts.forest,
        "DnsName": facts.dns_name,
        "NetBiosName": facts.netbios_name,
    }
    document = {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": domain | changes,
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [
                {"Name": account, "Scope": facts.dns_name},
                {"Name": account, "Scope": facts.netbios_name},
            ]
        },
    }
    return lambda: json.dumps(document).encode()


@contextmanager
def dropped(lab: Lab, port: int, *, verdict: str = "DROP") -> Iterator[None]:
    """Cut one TCP port of the domain controller off, as a firewall does."""
    rule = ["INPUT", "-i", "eth0", "-p", "tcp", "--dport", str(port), "-j", verdict]
    if verdict == "REJECT":
        rule += ["--reject-with", "tcp-reset"]
    iptables = ["ip", "netns", "exec", lab.network.namespace, "iptables", "-w"]
    subprocess.run([*iptables, "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*iptables, "-D", *rule], check=True)


def modify(lab: Lab, dn: str, attribute: str, value: str) -> None:
    """Replace a value behind the domain controller's back."""
    ldif = f"dn: {dn}\nchangetype: modify\nreplace: {attribute}\n{attribute}: {value}\n"
    run_tool(["ldbmodify", "-H", str(lab.directory / "dc/private/sam.ldb")], ldif)


def account_dn(name: str) -> str:
    return f"CN={name},CN=Managed Service Accounts,DC=example,DC=test"


def test_all_is_well(examine: Examine, facts: DomainFacts) -> None:
    found = examine(spec_source=spec_of(facts))
    assert found.states() == {State.OK}
    assert list(found) == [
        *("spec", "host-identity", "dns", "dns-tcp", "dc-ports", "clock", "host-ticket", "ldap"),
        *("host-key-version", "domain", "account WebApp01", "kds-root-key WebApp01"),
        *("permission WebApp01", "password WebApp01", "ticket WebApp01"),
        *("delegation WebApp01", "spn WebApp01"),
    ]
    assert all(result.seconds > 0 for result in found.values())
    assert f"{HOST_ACCOUNT} itself is allowed" in found["permission WebApp01"].text
    assert "aes256-cts-hmac-sha1-96" in found["ticket WebApp01"].text
    assert "not trusted for delegation" in found["delegation WebApp01"].text
    assert "can be forwarded" in found["delegation WebApp01"].text
    assert "HTTP/web.example.test" in found["spn WebApp01"].text
    assert "kvno 2 in keytab and directory" in found["host-key-version"].text


def test_whose_services_are(examine: Examine, lab: Lab) -> None:
    """By their own names, by an alias of HOST, and by nobody's."""
    names = {
        "HTTP/web.example.test": ("WebApp01$", None),
        "postgres/db.example.test": ("DBHOST$", "service-of-machine"),
        f"ldap/{lab.dc_host}": ("DC1$", "service-of-controller"),
        f"cifs/{lab.dc_host}": ("DC1$", "service-of-controller"),
        f"HTTP/{lab.dc_host}": ("DC1$", "service-of-controller"),
        "HTTP/nowhere.example.test": ("nobody", "service-without-owner"),
        "postgres/nowhere.example.test": ("nobody", "service-without-owner"),
    }
    services = tuple(name for name in map(ServiceName.parse, names) if name is not None)
    found = examine(services=services)["services"]
    assert found.state is State.WARNING
    owners = ", ".join(f"{name}: {owner}" for name, (owner, _) in names.items())
    assert found.text == f"{owners}; {SUITABLE}"
    assert [problem.code for problem in found.problems] == [
        code for _, code in names.values() if code is not None
    ]


def test_a_host_alone_is_examined_too(examine: Examine) -> None:
    found = examine()
    assert found.states() == {State.OK}
    assert list(found)[-1] == "domain"


def test_the_groups_in_between_are_named(examine: Examine) -> None:
    text = examine(accounts=("WebApp02",))["permission WebApp02"].text
    assert text.endswith(r"EXAMPLE\WebAppHosts: LABHOST$ is in LabHosts, which is in WebAppHosts")


def test_an_invalid_spec_is_the_first_cause(examine: Examine) -> None:
    found = examine(spec_source=lambda: b"{")
    assert found.cause() == ("spec", "spec-not-json", ExitStatus.INVALID_SPEC)
    assert found["dns"].text == "not tried, since spec failed"


def test_doubts_about_a_spec_are_warnings(examine: Examine, facts: DomainFacts) -> None:
    found = examine(spec_source=spec_of(facts, NetBiosName="EXAMPEL"))
    assert found["spec"].state is State.WARNING
    assert found["domain"].problems[0].code == "spec-domain-name-differs"
    assert found["ticket WebApp01"].state is State.OK


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Sid": "S-1-5-21-1-2-3"}, "spec-domain-sid-differs"),
        ({"Guid": "00000000-0000-0000-0000-000000000001"}, "spec-domain-guid-differs"),
    ],
)
def test_a_spec_of_another_domain(
    examine: Examine, facts: DomainFacts, changes: dict[str, str], code: str
) -> None:
    found = examine(spec_source=spec_of(facts, **changes))
    assert found.cause() == ("domain", code, ExitStatus.INVALID_SPEC)
    assert "1787" in found.first.text
    assert found["ticket WebApp01"].state is State.SKIPPED


def test_the_sid_of_an_account_is_told_apart(examine: Examine, facts: DomainFacts) -> None:
    found = examine(spec_source=spec_of(facts, Sid=f"{facts.sid}-1104"))
    assert found["domain"].problems[0].code == "spec-domain-sid-of-account"


def test_a_domain_that_dns_does_not_know(examine: Examine) -> None:
    found = examine(domain="nowhere.test", accounts=("WebApp01",))
    assert found.cause() == ("dns", "domain-not-found", ExitStatus.UNREACHABLE)
    assert found["spn WebApp01"].text == "not tried, since account WebApp01 failed"


def test_a_name_server_that_is_down(examine: Examine, lab: Lab) -> None:
    lab.stop_dc()
    try:
        found = examine()
    finally:
        lab.start_dc()
    assert found.cause() == ("dns", "dns-unreachable", ExitStatus.UNREACHABLE)


def test_dns_by_tcp_cut_off(examine: Examine, lab: Lab) -> None:
    with dropped(lab, 53):
        found = examine()
    assert found.cause() == ("dns-tcp", "dns-tcp-blocked", ExitStatus.UNREACHABLE)
    assert "1311" in found.first.text


@pytest.mark.parametrize("port", [88, 389])
def test_a_port_cut_off(examine: Examine, lab: Lab, port: int) -> None:
    with dropped(lab, port):
        found = examine()
    assert found.cause() == ("dc-ports", "dc-port-closed", ExitStatus.UNREACHABLE)
    assert f"port {port}" in found.first.text
    assert "1311" in found.first.text


def test_a_port_that_is_not_needed(examine: Examine, lab: Lab) -> None:
    with dropped(lab, 636):
        found = examine()
    assert found.states() == {State.OK}
    assert "636 (LDAPS)" in found["dc-ports"].text


@pytest.mark.parametrize(
    ("offset", "state"), [(400, State.FAILED), (-400, State.FAILED), (120, State.WARNING)]
)
def test_a_clock_that_is_off(examine: Examine, lab: Lab, offset: int, state: State) -> None:
    lab.stop_dc()
    lab.start_dc(offset_seconds=offset)
    try:
        found = examine()
    finally:
        lab.stop_dc()
        lab.start_dc()
    assert found["clock"].state is state
    assert found["clock"].problems[0].code == "clock-skew"
    assert "1398" in found["clock"].problems[0].remedy
    assert ("behind" if offset > 0 else "ahead of") in found["clock"].problems[0].found


def test_a_host_without_a_keytab(examine: Examine, tmp_path: Path) -> None:
    found = examine(identity=MachineKeytab(tmp_path / "none"), domain="example.test")
    assert found.cause() == ("host-identity", "host-keytab-missing", ExitStatus.NOT_PERMITTED)
    assert found["clock"].state is State.OK
    assert found["host-ticket"].state is State.SKIPPED


def test_a_keytab_that_is_none(examine: Examine, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "keytab").write_bytes(b"not a keytab")
    found = examine(identity=MachineKeytab(tmp_path / "keytab"))
    assert found.cause()[:2] == ("host-identity", "host-keytab-unreadable")
    found = examine(identity=MachineKeytab(lab.host_keytab, "OTHER$"))
    assert found.cause()[:2] == ("host-identity", "host-principal-missing")


def test_host_accounts_that_are_disabled_or_gone(
    examine: Examine, lab: Lab, tmp_path: Path
) -> None:
    keytab = tmp_path / "keytab"
    lab.samba_tool("computer", "create", "GONE")
    lab.samba_tool("user", "setpassword", "GONE$", "--newpassword=Some-Passw0rd-1!")
    lab.samba_tool("domain", "exportkeytab", str(keytab), "--principal=GONE$")
    lab.samba_tool("user", "disable", "GONE$")
    found = examine(identity=MachineKeytab(keytab))
    assert found.cause()[:2] == ("host-ticket", "kdc-account-disabled")
    lab.samba_tool("computer", "delete", "GONE")
    found = examine(identity=MachineKeytab(keytab))
    assert found.cause()[:2] == ("host-ticket", "kdc-principal-unknown")


@pytest.mark.parametrize(
    ("after", "port", "cause"),
    [
        ("clock", 88, ("host-ticket", "kdc-unreachable")),
        ("host-ticket", 389, ("ldap", "ldap-unreachable")),
    ],
)
def test_a_controller_that_goes_meanwhile(
    lab: Lab, krb5_conf: AgentKrb5Conf, after: str, port: int, cause: tuple[str, str]
) -> None:
    config = load_config(lab.config_path)
    examination = Examination(
        config=config, krb5_conf=krb5_conf, identity=MachineKeytab(config.keytab)
    )
    examination.only_directory = True
    found = Results()
    with ExitStack() as stack:
        stack.callback(examination.close)
        for result in examination.results():
            found[result.step.key] = result
            if result.step.name == after:
                stack.enter_context(dropped(lab, port, verdict="REJECT"))
    assert found.cause() == (*cause, ExitStatus.UNREACHABLE)


def test_controllers_without_an_address(examine: Examine, lab: Lab) -> None:
    """DNS names a controller that DNS does not know."""
    zone = "hollow.test"
    name = f"_ldap._tcp.dc._msdcs.{zone}"
    for arguments in (
        ("zonecreate", lab.dc_address, zone),
        ("add", lab.dc_address, zone, name, "SRV", f"none.{zone} 389 0 100"),
    ):
        command = ["samba-tool", "dns", *arguments, "-P", "-s", str(lab.smb_conf)]
        run_tool(command_in(Plan(netns=lab.network.namespace, binds=lab.etc_files()), command))
    wait_until_served(lab, name)
    found = examine(domain=zone)
    assert found.cause() == ("dns", "dc-unreachable", ExitStatus.UNREACHABLE)
    assert "without an address" in found.first.text


def test_keytabs_that_are_not_current(examine: Examine, lab: Lab, tmp_path: Path) -> None:
    """The same password set again changes the kvno alone; another one changes the key."""
    keytab = tmp_path / "keytab"
    same = "--newpassword=Same-Passw0rd-1!"
    lab.samba_tool("computer", "create", "OLDKEY")
    lab.samba_tool("user", "setpassword", "OLDKEY$", same)
    lab.samba_tool("user", "enable", "OLDKEY$")
    lab.samba_tool("domain", "exportkeytab", str(keytab), "--principal=OLDKEY$")
    lab.samba_tool("user", "setpassword", "OLDKEY$", same)
    found = examine(identity=MachineKeytab(keytab))
    assert found["host-key-version"].state is State.WARNING
    assert found["host-key-version"].problems[0].code == "host-keytab-version"
    for password in ("Other-Passw0rd-2!", "Third-Passw0rd-3!"):
        lab.samba_tool("user", "setpassword", "OLDKEY$", f"--newpassword={password}")
    found = examine(identity=MachineKeytab(keytab))
    assert found.cause() == ("host-ticket", "host-keytab-stale", ExitStatus.NOT_PERMITTED)


def test_a_directory_that_is_not_trusted(examine: Examine, lab: Lab, tmp_path: Path) -> None:
    """LDAPS with another certificate authority than the domain's."""
    authority = tmp_path / "ca.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"),
            *("-keyout", "/dev/null", "-out", str(authority)),
        ],
        check=True,
        capture_output=True,
    )
    config = load_config(lab.config_path)
    wrong = Config(keytab=config.keytab, transport=Transport.LDAPS, ca_file=authority)
    found = examine(config=wrong)
    cause = ("certificates", "ldap-certificate-authority", ExitStatus.UNREACHABLE)
    assert found.cause() == cause
    right = Config(keytab=config.keytab, transport=Transport.LDAPS, ca_file=config.ca_file)
    assert examine(config=right).states() == {State.OK}


def test_a_seal_that_is_refused(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credspec.directory.connection._SEAL_STRENGTH", 4096)
    assert examine().cause() == ("ldap", "ldap-no-mechanism", ExitStatus.NOT_PERMITTED)


@pytest.mark.parametrize(
    ("account", "code", "status"),
    [
        ("Nobody", "account-not-found", ExitStatus.OTHER),
        ("alice", "account-wrong-class", ExitStatus.OTHER),
        ("LABHOST", "account-wrong-class", ExitStatus.OTHER),
        (DISABLED, "account-disabled", ExitStatus.NOT_PERMITTED),
    ],
)
def test_accounts_that_are_none(
    examine: Examine, account: str, code: str, status: ExitStatus
) -> None:
    assert examine(accounts=(account,)).cause() == (f"account {account}", code, status)


def test_an_account_that_this_host_may_not_use(examine: Examine) -> None:
    found = examine(accounts=(FORBIDDEN,))
    assert found.cause() == (
        f"permission {FORBIDDEN}",
        "password-not-permitted",
        ExitStatus.NOT_PERMITTED,
    )
    assert r"EXAMPLE\Administrator" in found.first.text


def test_one_bad_account_does_not_hide_a_good_one(examine: Examine) -> None:
    found = examine(accounts=(FORBIDDEN, "WebApp01"))
    assert found["ticket WebApp01"].state is State.OK


def test_a_group_that_is_newer_than_the_ticket(
    examine: Examine, lab: Lab, krb5_conf: AgentKrb5Conf
) -> None:
    del krb5_conf
    name = "Doctor02"
    lab.samba_tool("service-account", "create", f"--name={name}", "--dns-host-name=e.example.test")
    lab.samba_tool("user", "enable", f"{name}$")
    lab.samba_tool("group", "add", "NewHosts")
    allow(lab, name, "CN=NewHosts,CN=Users,DC=example,DC=test")
    identity = MachineKeytab(lab.host_keytab)
    # Samba's KDC looks groups up for every service ticket: it is that one that is too old here.
    assert examine(identity=identity, accounts=(name,)).cause()[1] == "password-not-permitted"
    lab.samba_tool("group", "addmembers", "NewHosts", HOST_ACCOUNT)
    found = examine(identity=identity, accounts=(name,))
    assert found.cause() == (
        f"permission {name}",
        "membership-newer-than-ticket",
        ExitStatus.NOT_PERMITTED,
    )
    assert r"EXAMPLE\NewHosts" in found.first.text
    identity.forget()
    assert examine(identity=identity, accounts=(name,)).states() == {State.OK}
    lab.samba_tool("service-account", "delete", f"--name={name}")


SENSITIVE, UNCONSTRAINED, ANY_PROTOCOL = 0x100000, 0x80000, 0x1000000
ENABLED = 0x1000


@pytest.mark.parametrize(
    ("services", "control", "codes", "text"),
    [
        ((), 0, set(), "not trusted for delegation"),
        (("postgres/db.example.test",), 0, set(), "callers with Kerberos tickets to postgres/db"),
        (("postgres/db.example.test",), ANY_PROTOCOL, set(), "callers of any protocol to postgres"),
        (("HTTP/no.where",), 0, {"delegation-service-unknown"}, "to HTTP/no.where"),
        ((), SENSITIVE, set(), "cannot (the account is sensitive and cannot be delegated)"),
        (
            ("postgres/db.example.test",),
            SENSITIVE,
            {"delegation-not-forwardable"},
            "cannot (the account is sensitive and cannot be delegated)",
        ),
        ((), UNCONSTRAINED, {"delegation-unconstrained"}, "to any service"),
    ],
)
def test_what_an_account_may_delegate(
    examine: Examine,
    lab: Lab,
    patient: str,
    *,
    services: tuple[str, ...],
    control: int,
    codes: set[str],
    text: str,
) -> None:
    for service in services:
        lab.samba_tool("delegation", "add-service", f"{patient}$", service)
    modify(lab, account_dn(patient), "userAccountControl", str(ENABLED | control))
    try:
        found = examine(accounts=(patient,))
    finally:
        modify(lab, account_dn(patient), "userAccountControl", str(ENABLED))
        for service in services:
            lab.samba_tool("delegation", "del-service", f"{patient}$", service)
    step = found[f"delegation {patient}"]
    assert {problem.code for problem in step.problems} == codes
    assert text in step.text
    assert step.state is (State.WARNING if codes else State.OK), "it is never a failure"


def test_an_account_in_protected_users(examine: Examine, lab: Lab, patient: str) -> None:
    lab.samba_tool("group", "addmembers", "Protected Users", f"{patient}$")
    lab.samba_tool("delegation", "add-service", f"{patient}$", "postgres/db.example.test")
    try:
        step = examine(accounts=(patient,))[f"delegation {patient}"]
    finally:
        lab.samba_tool("group", "removemembers", "Protected Users", f"{patient}$")
        lab.samba_tool("delegation", "del-service", f"{patient}$", "postgres/db.example.test")
    assert [problem.code for problem in step.problems] == ["delegation-not-forwardable"]
    assert "Protected Users" in step.problems[0].found


def test_an_account_that_was_renamed(examine: Examine, lab: Lab, patient: str) -> None:
    modify(lab, account_dn(patient), "sAMAccountName", "Renamed01$")
    try:
        found = examine(accounts=("Renamed01",))
    finally:
        modify(lab, account_dn(patient), "sAMAccountName", f"{patient}$")
    [problem] = found["ticket Renamed01"].problems
    assert problem.code == "account-salt-differs"
    assert "hostdoctor01.example.test" in problem.found
    assert problem.expected == "EXAMPLE.TESThostrenamed01.example.test"
    assert found.states() == {State.OK, State.WARNING}


def root_key(lab: Lab) -> str:
    container = "CN=Master Root Keys,CN=Group Key Distribution Service,CN=Services"
    dumped = run_tool(
        [
            *("ldbsearch", "-H", str(lab.directory / "dc/private/sam.ldb")),
            *("-b", f"{container},CN=Configuration,DC=example,DC=test"),
            *("(objectClass=msKds-ProvRootKey)", "msKds-UseStartTime"),
        ]
    )
    return next(line[4:] for line in dumped.splitlines() if line.startswith("dn: "))


def no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(directory, name).is_socket()]


def test_a_forest_without_root_key(examine: Examine, lab: Lab, tmp_path: Path) -> None:
    key = root_key(lab)
    private = lab.directory / "dc/private"
    lab.stop_dc()
    shutil.copytree(private, tmp_path / "private", symlinks=True, ignore=no_sockets)
    run_tool(["ldbdel", "-H", str(private / "sam.ldb"), key])
    lab.start_dc()
    try:
        found = examine(accounts=("WebApp01",))
    finally:
        lab.stop_dc()
        shutil.rmtree(private)
        shutil.copytree(tmp_path / "private", private, symlinks=True)
        lab.start_dc()
    assert found.cause() == ("kds-root-key WebApp01", "kds-root-key-missing", ExitStatus.OTHER)
    assert "Add-KdsRootKey" in found.first.text


def test_a_root_key_that_is_not_effective_yet(
    examine: Examine, lab: Lab, administrator: CallersTicket
) -> None:
    """Only an administrator sees since when."""
    key = root_key(lab)
    before = examine(accounts=("WebApp01",), identity=administrator)["kds-root-key WebApp01"]
    assert "effective since" in before.text
    start = 134_400_000_000_000_000  # November 2026 in 100 ns since 1601
    modify(lab, key, "msKds-UseStartTime", str(start + 10 * 365 * 86400 * 10**7))
    try:
        found = examine(accounts=("WebApp01",), identity=administrator)
    finally:
        modify(lab, key, "msKds-UseStartTime", str(start - 10 * 86400 * 10**7))
    assert found.cause()[:2] == ("kds-root-key WebApp01", "kds-root-key-not-effective")


def test_an_account_that_gets_no_ticket(examine: Examine, lab: Lab, patient: str) -> None:
    """One that expired long ago: the directory hands out its password all the same."""
    modify(lab, account_dn(patient), "accountExpires", "10000000")
    try:
        found = examine(accounts=(patient,))
    finally:
        modify(lab, account_dn(patient), "accountExpires", "0")
    assert found[f"password {patient}"].state is State.OK
    assert found.cause() == (f"ticket {patient}", "kdc-account-disabled", ExitStatus.NOT_PERMITTED)


def test_names_that_are_there_twice(examine: Examine, lab: Lab, patient: str) -> None:
    lab.samba_tool("user", "create", patient, "--random-password")
    spn = "HTTP/twice.example.test"
    lab.samba_tool("spn", "add", spn, f"{patient}$")
    # Samba refuses to make such a pair; two controllers at a time can: so below its modules.
    partition = lab.directory / "dc/private/sam.ldb.d/DC=EXAMPLE,DC=TEST.ldb"
    dn = "CN=alice,CN=Users,DC=example,DC=test"
    ldif = (
        f"dn: {dn}\nchangetype: modify\n{{}}: servicePrincipalName\nservicePrincipalName: {spn}\n"
    )
    control = f"dn: {account_dn(patient)}\nchangetype: modify\nreplace: userAccountControl\n"
    lab.stop_dc()
    run_tool(["ldbmodify", "-H", str(partition)], ldif.format("add"))
    run_tool(["ldbmodify", "-H", str(partition)], f"{control}userAccountControl: 512\n")
    lab.start_dc()
    try:
        found = examine(accounts=(patient,))
    finally:
        lab.samba_tool("user", "delete", patient)
        lab.stop_dc()
        run_tool(["ldbmodify", "-H", str(partition)], ldif.format("delete"))
        run_tool(["ldbmodify", "-H", str(partition)], f"{control}userAccountControl: 4096\n")
        lab.start_dc()
    assert [problem.code for problem in found[f"account {patient}"].problems] == [
        "account-no-workstation-trust",
        "account-name-ambiguous",
    ]
    assert found[f"spn {patient}"].problems[0].code == "spn-duplicate"
    assert "alice" in found[f"spn {patient}"].problems[0].found


def test_names_that_are_no_names_never_reach_the_directory(examine: Examine) -> None:
    for name in ("*", "a)(objectClass=*", "..", "a\nb"):
        found = examine(accounts=(name,))
        assert found.first.problems[0].code in {"account-name-invalid", "account-not-found"}
        assert "\n" not in found.first.text


@pytest.mark.parametrize(
    ("types", "codes"),
    [
        ("4", ["account-rc4-only"]),
        ("-2147483648", ["account-enctypes-unusable"]),
        ("8", []),
        ("16", []),
        ("28", []),
    ],
)
def test_encryption_types_of_an_account(
    examine: Examine, lab: Lab, types: str, codes: list[str]
) -> None:
    dn = f"CN=WebApp01,CN=Managed Service Accounts,{lab.domain_dn}"

    def change(value: str) -> None:
        change = f"dn: {dn}\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\n"
        subprocess.run(
            ["ldbmodify", "-H", str(lab.directory / "dc/private/sam.ldb")],
            input=f"{change}msDS-SupportedEncryptionTypes: {value}\n",
            text=True,
            check=True,
            capture_output=True,
        )

    change(types)
    try:
        found = examine(domain=lab.dns_domain, accounts=("WebApp01",))
    finally:
        change("28")
    assert [problem.code for problem in found["account WebApp01"].problems] == codes
