"""Leases whose host identity is a user with a password, against the real domain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import krb5
import pytest

from credspec.agent.audit import AuditLog
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.request import LeaseRequest
from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.config.host import Config
from credspec.directory.connection import Transport
from credspec.directory.locator import DnsResolver, Locator
from credspec.doctor.examination import Examination
from credspec.doctor.step import State, StepResult
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.md4 import md4
from credspec.lab.domain import Lab, run_tool
from credspec.providers.account_domains import AccountDomains
from credspec.providers.provider import GivenAccount, HostAccount, HostSource
from credspec.providers.selection import Providers
from credspec.providers.settings import ProviderSettings
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import HostIdentity, MachineKeytab
from credspec.session.provided_identity import ProvidedIdentity
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from credspec.spec.reference import SpecReference
from support.agent.agent_process import AgentProcess
from support.domain.simulated_kdc import Listener, SimulatedKdc
from support.domain.zones import wait_until_served

UNKNOWN = "{00000000-0000-0000-0000-00000000000a}"


@dataclass
class Reader:
    """A real user that may read WebApp04, which the lab's host may not."""

    lab: Lab
    name: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24) + "aA1!")

    def set_password(self, password: str) -> None:
        self.lab.samba_tool("user", "setpassword", self.name, f"--newpassword={password}")
        self.password = password

    @property
    def account(self) -> HostAccount:
        return HostAccount(self.lab.dns_domain, self.name, self.password)

    @property
    def inline(self) -> str:
        return f"{self.lab.netbios}:{self.name}:{self.password}"


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Reader:
    made = Reader(lab, "reader")
    tool = lab.samba_tool
    tool("user", "create", made.name, "--random-password")
    made.set_password(made.password)
    tool(
        *("service-account", "create", "--name=ForReader"),
        f"--dns-host-name=forreader.{lab.dns_domain}",
    )
    tool("user", "enable", "ForReader$")
    tool(
        *("service-account", "group-msa-membership", "add"),
        *("--name=ForReader", f"--principal={made.name}"),
    )
    return made


@dataclass
class Bench:
    directory: Path
    machine: HostIdentity
    krb5_conf: AgentKrb5Conf
    providers: Providers
    mounted: list[Path] = field(default_factory=list)

    def agent(self) -> tuple[Identities, Leases]:
        async def renewed(identity: Identity) -> None:
            await leases.renew(identity)

        identities = Identities(self.session, renewed)
        leases = Leases(
            identities,
            Journal(self.directory / "journal"),
            leases_directory=self.directory / "leases",
            spec_directory=self.directory / "specs",
            audit=AuditLog(self.directory / "audit.jsonl"),
            providers=self.providers,
        )
        return identities, leases

    def session(self, domain: str, source: HostSource | None) -> DomainSession:
        return DomainSession(
            domain,
            host_identity=self.machine
            if source is None
            else ProvidedIdentity(source, domain, self.providers),
            locator=Locator(DnsResolver()),
            transport=Transport.LDAP,
            ca_file=None,
            krb5_conf=self.krb5_conf,
        )

    def write_spec(self, name: str, guid: str, given: str) -> None:
        document = json.loads((self.directory / "specs/machine.json").read_text())
        document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
            "PortableCcgVersion": "1",
            "PluginGUID": guid,
            "PluginInput": given,
        }
        for account in document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]:
            account["Name"] = "ForReader"
        document["DomainJoinConfig"]["MachineAccountName"] = "ForReader"
        (self.directory / "specs" / name).write_text(json.dumps(document))

    def request(self, number: int, spec: str, account: HostAccount | None = None) -> LeaseRequest:
        lease_id = f"{number:032x}"
        directory = self.directory / "leases" / lease_id
        if directory not in self.mounted:
            directory.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "lease", str(directory)], check=True)
            self.mounted.append(directory)
        state = self.directory / "state" / lease_id
        state.mkdir(parents=True, exist_ok=True)
        return LeaseRequest(
            lease_id=lease_id,
            spec=SpecReference("file", spec),
            container=f"container{number}",
            runtime_state=str(state),
            uid=1000,
            gid=1000,
            host_account=account,
        )

    def ticket_of(self, number: int) -> str:
        path = self.directory / "leases" / f"{number:032x}" / "krb5cc"
        context = krb5.init_context()
        cache = krb5.cc_resolve(context, f"FILE:{path}".encode())
        return (krb5.cc_get_principal(context, cache).name or b"").decode()

    def written(self) -> str:
        """All that is on a disk or would be: journal, audit log, not the specs."""
        paths = [*(self.directory / "journal").iterdir(), self.directory / "audit.jsonl"]
        return "".join(path.read_text() for path in paths)


def domains_of(lab: Lab) -> AccountDomains:
    """What a host's administrator says of the domain's NetBIOS name."""
    return AccountDomains(MappingProxyType({lab.netbios.lower(): lab.dns_domain}))


@pytest.fixture
def bench(lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path) -> Iterator[Bench]:
    for name in ("journal", "leases", "specs"):
        (tmp_path / name).mkdir()
    make_credential_spec(
        NewSpecRequest(account_name="WebApp01", path=str(tmp_path / "specs/machine.json"))
    )
    settings = ProviderSettings(enabled=("inline",), domains=domains_of(lab))
    found = Bench(tmp_path, MachineKeytab(lab.host_keytab), krb5_conf, Providers(settings))
    found.write_spec("plain.json", UNKNOWN, "x")
    document = json.loads((tmp_path / "specs/plain.json").read_text())
    del document["ActiveDirectoryConfig"]["HostAccountConfig"]
    (tmp_path / "specs/plain.json").write_text(json.dumps(document))
    yield found
    for directory in found.mounted:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextmanager
def no_ticket_of_the_process() -> Iterator[None]:
    """Nothing may come from the default cache."""
    before = os.environ["KRB5CCNAME"]
    os.environ["KRB5CCNAME"] = "MEMORY:empty"
    yield
    os.environ["KRB5CCNAME"] = before


async def test_machine_and_provided_identities_stand_side_by_side(
    bench: Bench, reader: Reader
) -> None:
    bench.write_spec("inline.json", UNKNOWN, reader.inline)
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "machine.json"))
    await leases.make(bench.request(2, "inline.json"))
    await leases.make(bench.request(3, "plain.json", reader.account))
    # What one host account may read, another may not.
    with pytest.raises(NotPermittedError, match="password-not-permitted"):
        await leases.make(bench.request(4, "plain.json"))
    assert bench.ticket_of(1).startswith("WebApp01$")
    assert bench.ticket_of(2).startswith("ForReader$")
    assert bench.ticket_of(3).startswith("ForReader$")
    assert len(identities.held()) == 3
    assert len(identities.domains()) == 3
    assert reader.password not in bench.written()
    assert reader.password not in repr([identities.held(), leases.all(), identities.domains()])
    await identities.close()


async def test_it_logs_on_without_the_processs_own_cache(bench: Bench, reader: Reader) -> None:
    identities, leases = bench.agent()
    with no_ticket_of_the_process():
        await leases.make(bench.request(1, "plain.json", reader.account))
    assert bench.ticket_of(1).startswith("ForReader$")
    await identities.close()


def test_a_bind_with_its_ticket_waits_on_no_kdc(bench: Bench, reader: Reader) -> None:
    """All that the bind needs is in the cache before; the KDC is not asked by libsasl."""
    identity = ProvidedIdentity(
        GivenAccount(reader.account), reader.lab.dns_domain, bench.providers
    )
    identity.get_service_ticket(f"ldap/{reader.lab.dc_host}")
    context = krb5.init_context()
    cache = krb5.cc_resolve(context, identity.cache.encode())
    servers = {(each.server.name or b"").decode().lower() for each in cache}
    assert f"ldap/{reader.lab.dc_host}@{reader.lab.realm}".lower() in servers
    identity.close()
    with pytest.raises(krb5.Krb5Error):
        krb5.cc_get_principal(context, krb5.cc_resolve(context, identity.cache.encode()))


async def test_a_session_nobody_needs_is_closed(
    bench: Bench, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credspec.agent.identities.domains._LINGER_SECONDS", 0.05)
    identities, leases = bench.agent()
    wrong = replace(reader.account, password="Wrong-Passw0rd!")
    with pytest.raises(NotPermittedError, match="kdc-password-refused"):
        await leases.make(bench.request(1, "plain.json", wrong))
    await leases.make(bench.request(2, "plain.json", reader.account))
    await leases.release(f"{2:032x}")
    while identities.domains():
        await asyncio.sleep(0.02)
    assert identities.held() == []
    await identities.close()


async def test_a_new_password_replaces_the_old(bench: Bench, reader: Reader) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "plain.json", reader.account))
    before = (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes()
    wrong = replace(reader.account, password="Wrong-Passw0rd!")
    with pytest.raises(NotPermittedError, match="kdc-password-refused"):
        await leases.replace_host_account(f"{1:032x}", wrong)
    assert (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes() == before
    assert [len(each.holders) for each in identities.held()] == [1]
    reader.set_password(secrets.token_urlsafe(24) + "bB2!")
    await leases.replace_host_account(f"{1:032x}", reader.account)
    assert (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes() != before
    assert sum(len(each.holders) for each in identities.held()) == 1
    await identities.close()


async def test_a_restart_keeps_the_ticket_but_not_the_password(
    bench: Bench, reader: Reader
) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "plain.json", reader.account))
    await identities.close()
    identities, leases = bench.agent()
    await leases.adopt()
    assert bench.ticket_of(1).startswith("ForReader$")
    (held,) = identities.held()
    with pytest.raises(NotPermittedError, match="host-account-forgotten"):
        await identities.hold(held.name, "another")
    await leases.replace_host_account(f"{1:032x}", reader.account)
    assert leases.get(f"{1:032x}").host_source == {}
    await identities.close()


@pytest.mark.parametrize(
    ("account", "code"),
    [
        (HostAccount("other.test", "reader", "x"), "host-account-other-domain"),
        (HostAccount("EXAMPLE.TEST", "rea/der", "x"), "host-account-invalid"),
        (HostAccount("EXAMPLE.TEST", "reader", "x" * 10 * 2**20), "host-account-invalid"),
        (HostAccount("EXAMPLE.TEST", "nobody-of-that-name", "x"), "kdc-principal-unknown"),
    ],
)
async def test_accounts_that_cannot_be(bench: Bench, account: HostAccount, code: str) -> None:
    identities, leases = bench.agent()
    with pytest.raises(CredspecError, match=code):
        await leases.make(bench.request(1, "plain.json", account))
    assert leases.all() == []
    assert list((bench.directory / "journal").iterdir()) == []
    assert identities.held() == []
    await identities.close()


async def test_an_expired_password(bench: Bench, lab: Lab) -> None:
    expired = Reader(lab, "expired")
    lab.samba_tool("user", "create", expired.name, "--random-password")
    lab.samba_tool(
        *("user", "setpassword", expired.name, f"--newpassword={expired.password}"),
        "--must-change-at-next-login",
    )
    identities, leases = bench.agent()
    with pytest.raises(NotPermittedError, match="kdc-key-expired"):
        await leases.make(bench.request(1, "plain.json", expired.account))
    await identities.close()


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What libkrb5 tells of its exchanges."""
    monkeypatch.setenv("KRB5_TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"


@pytest.mark.parametrize("kind", ["password", "keytab"])
def test_only_aes_is_made_of_a_password(
    bench: Bench, reader: Reader, trace: Path, tmp_path: Path, kind: str
) -> None:
    account = reader.account
    if kind == "keytab":
        keytab = tmp_path / "reader.keytab"
        reader.lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={reader.name}")
        account = HostAccount("", "", keytab=keytab)
    identity = ProvidedIdentity(GivenAccount(account), reader.lab.dns_domain, bench.providers)
    identity.log_on()
    identity.get_service_ticket(f"ldap/{reader.lab.dc_host}")
    identity.close()
    used = re.findall(r"AS key obtained for encrypted timestamp: ([\w-]+)/", trace.read_text())
    assert len(used) >= 2
    assert set(used) == {"aes256-cts"}


def test_an_account_that_has_rc4_alone_is_refused(
    bench: Bench, lab: Lab, trace: Path, tmp_path: Path
) -> None:
    """An account whose password was set before there was AES in the domain."""
    old = Reader(lab, "old-reader")
    lab.samba_tool("user", "create", old.name, "--random-password")
    digest = md4(old.password.encode("utf-16-le")).hex()
    database = [f"--configfile={lab.smb_conf}", f"--user={old.name}"]
    run_tool(["pdbedit", *database, "--modify", f"--set-nt-hash={digest}"])
    keytab = tmp_path / "old.keytab"
    lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={old.name}")
    for account, codes in (
        (old.account, {"kdc-enctype-weak"}),
        (HostAccount("", "", keytab=keytab), {"keytab-no-key", "kdc-enctype-unsupported"}),
    ):
        identity = ProvidedIdentity(GivenAccount(account), lab.dns_domain, bench.providers)
        with pytest.raises(NotPermittedError) as caught:
            identity.log_on()
        assert caught.value.code in codes
        identity.close()
    assert "Encrypted timestamp" not in trace.read_text()


@pytest.mark.parametrize("domains", ["mapped", "not mapped"])
@pytest.mark.parametrize("secret", ["netbios", "dns"])
async def test_a_document_does_not_say_where_a_password_goes(
    bench: Bench, reader: Reader, tmp_path: Path, domains: str, secret: str
) -> None:
    """A simulated domain, as the document's author could run one, gets nothing of a password."""
    lab, address, zone = reader.lab, "127.0.66.1", "evil.test"
    accounts = tmp_path / "accounts"
    accounts.mkdir(mode=0o700)
    content = {"username": reader.name, "password": reader.password}
    content["domainName"] = lab.netbios if secret == "netbios" else lab.dns_domain
    (accounts / "reader").write_text(json.dumps(content))
    (accounts / "reader").chmod(0o600)
    bench.providers = Providers(
        ProviderSettings(
            enabled=("file", "inline"),
            domains=domains_of(lab) if domains == "mapped" else AccountDomains(),
            tables={"file": {"directory": str(accounts)}},
        )
    )
    bench.write_spec("evil.json", CREDSPEC_PLUGIN_GUID, "file:reader")
    document = json.loads((bench.directory / "specs/evil.json").read_text())
    document["DomainJoinConfig"] = {"DnsName": zone, "NetBiosName": lab.netbios}
    for entry in document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]:
        entry["Scope"] = zone
    (bench.directory / "specs/evil.json").write_text(json.dumps(document))
    del document["ActiveDirectoryConfig"]["HostAccountConfig"]
    (bench.directory / "specs/bare.json").write_text(json.dumps(document))
    with (
        evil_zone(lab, zone, address),
        SimulatedKdc(zone.upper(), [(23, "", None)], address=address, port=88) as kdc,
        Listener(address, 389) as directory,
    ):
        identities, leases = bench.agent()
        for number, (spec, account) in enumerate(
            [("evil.json", None), ("bare.json", reader.account)], start=1
        ):
            with pytest.raises(NotPermittedError, match="host-account-other-domain"):
                await leases.make(bench.request(number, spec, account))
        assert kdc.asked == []
        assert directory.received == [b""] * len(directory.received)  # probed, and nothing said
        assert leases.all() == []
        # So the above could fail: what is really of that domain gets there.
        own = HostAccount(zone, "reader", "Passw0rd-of-evil!")
        bench.providers.settings = ProviderSettings()
        with pytest.raises(CredspecError):
            await leases.make(bench.request(3, "bare.json", own))
        assert kdc.asked
        assert kdc.timestamps == []  # not even so with RC4
        await identities.close()


@contextmanager
def evil_zone(lab: Lab, zone: str, address: str) -> Iterator[None]:
    """Names of another domain, whose controller is at `address`, in the lab's DNS."""

    def tool(*arguments: str) -> None:
        run_tool(["samba-tool", "dns", *arguments, "-P", "-s", str(lab.smb_conf)])

    tool("zonecreate", lab.dc_address, zone)
    try:
        tool("add", lab.dc_address, zone, "dc1", "A", address)
        for service, port in (("_ldap._tcp.dc._msdcs", 389), ("_kerberos._tcp.dc._msdcs", 88)):
            tool("add", lab.dc_address, zone, service, "SRV", f"dc1.{zone} {port} 0 100")
        wait_until_served(lab, f"_kerberos._tcp.dc._msdcs.{zone}")
        yield
    finally:
        tool("zonedelete", lab.dc_address, zone)


class Changing(Providers):
    """A provider's answers, one after the other; the last one stays."""

    def __init__(self, answers: list[HostAccount], secret_seconds: float) -> None:
        super().__init__(ProviderSettings(secret_seconds=secret_seconds))
        self.answers, self.asked = answers, 0

    def account(self, source: HostSource) -> HostAccount:
        del source
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_kept_password_that_is_refused_is_asked_for_once_more(
    bench: Bench, reader: Reader
) -> None:
    source = GivenAccount(reader.account)
    old = reader.account
    providers = Changing([old], 300)
    identity = ProvidedIdentity(source, reader.lab.dns_domain, providers)
    identity.log_on()
    reader.set_password(secrets.token_urlsafe(24) + "cC3!")
    reader.set_password(secrets.token_urlsafe(24) + "dD4!")
    providers.answers = [reader.account]
    identity.get_service_ticket("ldap/" + reader.lab.dc_host)
    assert providers.asked == 2
    # A password that was refused is not sent again at once: that would lock the account.
    providers.answers = [replace(old, password="Wrong-Passw0rd!")]
    identity.forget()
    for _ in range(3):
        with pytest.raises(NotPermittedError, match="kdc-password-refused"):
            identity.log_on()
    assert providers.asked == 5
    identity.close()


def test_a_password_is_forgotten_in_time(bench: Bench, reader: Reader) -> None:
    source = GivenAccount(reader.account)
    identity = ProvidedIdentity(source, reader.lab.dns_domain, Changing([reader.account], 0.05))
    identity.log_on()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert identity._account is None
    identity.close()


async def test_accounts_from_files_keytabs_credentials_and_programs(
    bench: Bench, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = tmp_path / "accounts"
    accounts.mkdir(mode=0o700)
    document = {"username": reader.name, "password": reader.password}
    document["domainName"] = reader.lab.netbios
    (accounts / "reader").write_text(json.dumps(document))
    (accounts / "reader").chmod(0o600)
    keytab = accounts / "reader.keytab"
    reader.lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={reader.name}")
    keytab.chmod(0o600)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat {accounts}/reader\n")
    program.chmod(0o700)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(accounts))
    directory = {"directory": str(accounts)}
    bench.providers = Providers(
        ProviderSettings(
            enabled=("file", "keytab", "systemd", "corp"),
            domains=domains_of(reader.lab),
            tables={
                "file": directory,
                "keytab": directory,
                "corp": {"command": [str(program)], "guid": UNKNOWN},
            },
        )
    )
    identities, leases = bench.agent()
    inputs = ("file:reader", "keytab:reader.keytab", "systemd:reader", "corp:x")
    for number, given in enumerate(inputs, start=1):
        bench.write_spec("provided.json", CREDSPEC_PLUGIN_GUID, given)
        await leases.make(bench.request(number, "provided.json"))
        assert bench.ticket_of(number).startswith("ForReader$")
    assert reader.password not in bench.written()
    await identities.close()
    # Whose input is a name is asked again after a restart, whose may be a secret is not.
    identities, leases = bench.agent()
    await leases.adopt()
    results = await asyncio.gather(
        *(identities.hold(each.name, "another") for each in identities.held()),
        return_exceptions=True,
    )
    failed = [result for result in results if isinstance(result, CredspecError)]
    assert [error.code for error in failed] == ["host-account-forgotten"]
    assert len(results) == len(inputs)
    await identities.close()


@pytest.mark.parametrize(
    ("guid", "given", "code"),
    [
        (UNKNOWN, "x", "host-account-plugin-unknown"),
        (UNKNOWN.strip("{}"), "x", "host-account-plugin-unknown"),
        ("{zzzzzzzz-0000-0000-0000-000000000000}", "x", "host-account-plugin-unknown"),
        ("{not-hexadecimal}", "x", "host-account-guid"),
        (UNKNOWN, "a\x01b", "host-account-input"),
        (UNKNOWN, "x" * 48 * 1024, "host-account-input"),
        (UNKNOWN, "OTHER:reader:x", "host-account-other-domain"),
    ],
)
async def test_plug_ins_that_cannot_be(bench: Bench, guid: str, given: str, code: str) -> None:
    bench.write_spec("bad.json", guid, given)
    identities, leases = bench.agent()
    with pytest.raises(CredspecError, match=code):
        await leases.make(bench.request(1, "bad.json"))
    assert leases.all() == []
    assert list((bench.directory / "journal").iterdir()) == []
    assert identities.held() == []
    await identities.close()


def test_the_doctor_looks_at_the_provider(bench: Bench, reader: Reader) -> None:
    def steps(given: str) -> dict[str, StepResult]:
        bench.write_spec("doctor.json", UNKNOWN, given)
        examination = Examination(
            config=Config(),
            krb5_conf=bench.krb5_conf,
            identity=MachineKeytab(Path("/nonexistent")),
            spec_source=(bench.directory / "specs/doctor.json").read_bytes,
            only_directory=True,
            providers=bench.providers,
        )
        try:
            return {result.step.name: result for result in examination.results()}
        finally:
            examination.close()

    with no_ticket_of_the_process():
        found = steps(reader.inline)
    failed = [name for name, result in found.items() if result.state is State.FAILED]
    assert failed == []
    assert reader.name in found["host-account"].text
    assert reader.name in found["host-ticket"].text
    assert reader.password not in repr([result.to_json() for result in found.values()])
    found = steps("OTHER:reader:x")
    assert found["host-account"].problems[0].code == "host-account-other-domain"
    assert found["host-ticket"].state is State.SKIPPED


def test_an_agent_without_keytab(lab: Lab, reader: Reader, bench: Bench, tmp_path: Path) -> None:
    directory = tmp_path / "agent"
    directory.mkdir()
    domains = f'domains = {{ {lab.netbios} = "{lab.dns_domain}" }}\n'
    agent = AgentProcess(lab, directory, extra='[providers]\nenabled = ["inline"]\n' + domains)
    text = agent.config.read_text().replace(str(lab.host_keytab), "/nonexistent")
    agent.config.write_text(text)
    bench.write_spec("inline.json", UNKNOWN, reader.inline)
    spec = (bench.directory / "specs/inline.json").read_text()
    (directory / "specs/inline.json").write_text(spec)
    try:
        agent.start()
        agent.mount(1)
        agent.put(1, "file://inline.json")
        with pytest.raises(NotPermittedError, match="host-keytab-missing"):
            agent.put(2, "file://one.json")
        assert agent.client.get("/readyz")
        assert agent.lease_containers() == ["container1"]
        assert reader.password not in agent.log.read_text() + agent.audit_log.read_text()
        for path in (agent.run_directory / "journal").iterdir():
            assert reader.password not in path.read_text()
        agent.delete(1)
        agent.unmount(1)
    finally:
        agent.close()
