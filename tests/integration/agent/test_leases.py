"""Leases in this process, with the real domain and a real tmpfs for each lease."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import krb5
import pytest

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.config.policy import Policy
from credspec.directory.locator import DnsResolver, Locator, SrvRecord
from credspec.errors import CredspecError, NotFoundError, NotPermittedError
from credspec.lab.domain import Lab
from support.agent.real_leases import Bench, files
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture


async def test_many_leases_of_one_account_cost_one_acquisition(bench: Bench) -> None:
    identities, leases = bench.agent()
    await asyncio.gather(*(leases.make(bench.request(n, "one.json")) for n in range(1, 9)))
    assert identities.acquisitions == 1
    assert all(files(bench, n) == {"krb5cc", "krb5.conf"} for n in range(1, 9))
    for record in leases.all():
        await leases.release(record.lease_id)
    assert all(files(bench, n) == set() for n in range(1, 9))
    assert list((bench.directory / "journal").iterdir()) == []
    await identities.close()


async def test_every_account_of_a_spec_has_its_ticket(bench: Bench) -> None:
    identities, leases = bench.agent()
    record = await leases.make(bench.request(1, "three.json"))
    assert record.accounts == ("WebApp01", "WebApp02", "WebApp03")
    expected = {"krb5cc", "krb5.conf", *(f"krb5cc_webapp0{n}" for n in (1, 2, 3))}
    assert files(bench, 1) == expected
    assert identities.acquisitions == 3
    for name, principal in (("krb5cc", "WebApp01$"), ("krb5cc_webapp02", "WebApp02$")):
        path = bench.directory / "leases" / f"{1:032x}" / name
        listed = subprocess.run(["klist", str(path)], capture_output=True, text=True, check=True)
        assert f"Default principal: {principal}@EXAMPLE.TEST" in listed.stdout
    await leases.release(record.lease_id)
    await identities.close()


async def test_all_or_nothing_with_one_problem_for_each_account(bench: Bench) -> None:
    identities, leases = bench.agent()
    path = bench.directory / "specs/bad.json"
    text = (bench.directory / "specs/three.json").read_text()
    path.write_text(text.replace("WebApp02", "Forbidden01").replace("WebApp03", "Nobody01"))
    with pytest.raises(CredspecError) as caught:
        await leases.make(bench.request(1, "bad.json"))
    codes = {problem.code for problem in caught.value.problems}
    assert codes == {"password-not-permitted", "account-not-found"}
    assert files(bench, 1) == set()
    assert leases.all() == []
    assert list((bench.directory / "journal").iterdir()) == []
    await identities.close()


async def test_without_its_mount_a_lease_is_refused(bench: Bench) -> None:
    identities, leases = bench.agent()
    request = bench.request(1, "one.json")
    subprocess.run(["umount", str(bench.mounted.pop())], check=True)
    with pytest.raises(CredspecError, match="lease-directory-missing"):
        await leases.make(request)
    assert leases.all() == []
    await identities.close()


async def test_a_restart_adopts_living_leases_and_ends_the_others(bench: Bench) -> None:
    identities, leases = bench.agent()
    for number in (1, 2):
        await leases.make(bench.request(number, "one.json"))
    await identities.close()  # as if killed: nothing is released
    (bench.directory / "state" / f"{2:032x}").rmdir()
    subprocess.run(["umount", "-l", str(bench.mounted.pop())], check=True)
    before = (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes()
    identities, leases = bench.agent()
    await leases.adopt()
    assert [record.container for record in leases.all()] == ["container1"]
    # The container keeps what it has: the domain is not asked for it.
    assert identities.acquisitions == 0
    assert files(bench, 1) == {"krb5cc", "krb5.conf"}
    assert (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes() == before
    (identity,) = identities.held()
    assert identities.refresh_at(identity.name) is not None
    # The next lease gets a new ticket, and so do the others.
    await leases.make(bench.request(3, "one.json"))
    assert identities.acquisitions == 1
    caches = {n: (bench.directory / "leases" / f"{n:032x}" / "krb5cc").read_bytes() for n in (1, 3)}
    assert caches[1] == caches[3] != before
    await identities.close()


async def test_a_restart_restores_tickets_that_are_gone(bench: Bench) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "three.json"))
    await identities.close()
    (bench.directory / "leases" / f"{1:032x}" / "krb5cc_webapp02").unlink()
    identities, leases = bench.agent()
    await leases.adopt()
    while "krb5cc_webapp02" not in files(bench, 1):
        await asyncio.sleep(0.01)
    await identities.close()


async def test_the_policy_decides_before_the_domain_is_asked(bench: Bench) -> None:
    bench.policy = Policy(accounts=("WebApp01@example.test",))
    identities, leases = bench.agent()
    with pytest.raises(NotPermittedError) as caught:
        await leases.make(bench.request(1, "three.json"))
    assert [problem.code for problem in caught.value.problems] == ["policy-account"] * 2
    assert identities.domains() == []
    await leases.make(bench.request(2, "one.json"))
    entries = [
        json.loads(line) for line in (bench.directory / "audit.jsonl").read_text().splitlines()
    ]
    assert [(entry["decision"], entry["container"]) for entry in entries] == [
        ("denied", "container1"),
        ("granted", "container2"),
    ]
    assert entries[1]["accounts"] == ["WebApp01"]
    await identities.close()


async def test_what_cannot_be_audited_is_not_granted(bench: Bench) -> None:
    identities, leases = bench.agent()
    (bench.directory / "audit.jsonl").mkdir()
    with pytest.raises(CredspecError, match="audit-unwritable"):
        await leases.make(bench.request(1, "one.json"))
    assert leases.all() == []
    assert files(bench, 1) == set()
    await identities.close()


async def test_a_container_that_ended_without_a_word_is_noticed(bench: Bench) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "one.json"))
    assert await leases.sweep() == 0
    subprocess.run(["umount", "-l", str(bench.mounted.pop())], check=True)
    assert await leases.sweep() == 1
    assert leases.all() == []
    await identities.close()


async def test_a_controller_that_takes_connections_and_never_answers(
    lab: Lab, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline ends it, and the event loop turns all the while."""
    monkeypatch.setattr("credspec.agent.identities.open_domain._DEADLINE_SECONDS", 2.0)
    identities, leases = bench.agent()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.02)
            turns += 1

    turning = asyncio.create_task(turn())
    lab.pause_dc()
    try:
        with pytest.raises(CredspecError, match="domain-timeout"):
            await leases.make(bench.request(1, "one.json"))
    finally:
        lab.resume_dc()
        turning.cancel()
    assert turns >= 10, "the event loop was held up"
    assert leases.all() == []
    await identities.close()


async def test_permission_by_a_new_group_needs_no_restart(lab: Lab, bench: Bench) -> None:
    """The host's ticket is older than its membership: a new logon is made, once."""
    identities, _ = bench.agent()
    session = bench._session(lab.dns_domain)
    monkey = pytest.MonkeyPatch()
    monkey.setattr("credspec.session.domain_connection._TICKET_IS_NEW", timedelta(-1))
    try:
        with pytest.raises(NotPermittedError):
            session.acquire("Forbidden01")
        lab.samba_tool("group", "add", "LateHosts")
        lab.samba_tool(
            *("service-account", "group-msa-membership", "add", "--name=Forbidden01"),
            "--principal=CN=LateHosts,CN=Users,DC=example,DC=test",
        )
        lab.samba_tool("group", "addmembers", "LateHosts", "LABHOST$")
        assert session.acquire("Forbidden01").account_name == "Forbidden01$"
    finally:
        monkey.undo()
        lab.samba_tool(
            *("service-account", "group-msa-membership", "remove", "--name=Forbidden01"),
            "--principal=CN=LateHosts,CN=Users,DC=example,DC=test",
        )
        lab.samba_tool("group", "delete", "LateHosts")
        session.close()
        bench.identity.forget()
        await identities.close()


def keytab_keys(path: Path) -> dict[bytes, set[tuple[int, bytes]]]:
    """Return a keytab's keys with their versions, by principal."""
    found: dict[bytes, set[tuple[int, bytes]]] = {}
    context = krb5.init_context()
    for entry in krb5.kt_resolve(context, f"FILE:{path}".encode()):
        found.setdefault(entry.principal.name, set()).add((entry.kvno, entry.key.data))
    return found


async def test_a_keytab_on_request_holds_what_samba_itself_exports(bench: Bench, lab: Lab) -> None:
    bench.policy = Policy(keytabs=("WebApp01",))
    identities, leases = bench.agent()
    # The first lease has its ticket without; the second one's request needs the password again.
    await leases.make(bench.request(1, "one.json"))
    wanted = replace(bench.request(2, "one.json"), keytab=True, mode=0o440)
    record = await leases.make(wanted)
    assert identities.acquisitions == 2
    assert files(bench, 1) == {"krb5cc", "krb5.conf"}
    path = bench.directory / "leases" / f"{2:032x}" / "krb5.keytab"
    assert path.stat().st_mode & 0o777 == 0o440
    found = keytab_keys(path)
    exported = bench.directory / "exported"
    lab.samba_tool("domain", "exportkeytab", str(exported), "--principal=WebApp01$")
    [oracle] = keytab_keys(exported).values()
    expected = {"WebApp01$", "HTTP/web.example.test", "MSSQLSvc/db.example.test:1433"}
    expected |= {"http/web.example.test", "mssqlsvc/db.example.test:1433"}
    assert found.keys() == {f"{name}@{lab.realm}".encode() for name in expected}
    assert all(oracle <= keys for keys in found.values())
    assert record.keytab_due is not None
    # It comes again in time for the next password, and not before that is there.
    (identity,) = identities.held()
    refresh = identities.refresh_at(identity.name)
    assert refresh is not None
    assert refresh <= record.keytab_due + timedelta(minutes=4)
    await leases.release(record.lease_id)
    assert identity.keytab is None
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_a_keytab_that_the_policy_does_not_allow(bench: Bench) -> None:
    identities, leases = bench.agent()
    with pytest.raises(NotPermittedError, match="policy-keytab"):
        await leases.make(replace(bench.request(1, "one.json"), keytab=True))
    assert (leases.all(), identities.domains()) == ([], [])
    await identities.close()


async def test_a_keytab_survives_a_restart_and_is_made_again_when_it_is_due(bench: Bench) -> None:
    bench.policy = Policy(keytabs=("*",))
    identities, leases = bench.agent()
    await leases.make(replace(bench.request(1, "three.json"), keytab=True))
    await identities.close()
    path = bench.directory / "leases" / f"{1:032x}" / "krb5.keytab"
    before = keytab_keys(path)
    assert {b"WebApp01$@EXAMPLE.TEST", b"WebApp02$@EXAMPLE.TEST"} <= before.keys()
    journal = bench.directory / "journal" / f"{1:032x}.json"
    raw = json.loads(journal.read_text())
    # As if the agent had been away while the password changed.
    long_ago = datetime.fromisoformat(raw["created"]) - timedelta(hours=1)
    journal.write_text(json.dumps(raw | {"keytab_due": long_ago.isoformat()}))
    path.unlink()
    path.write_bytes(b"\x05\x02")
    identities, leases = bench.agent()
    await leases.adopt()
    while path.read_bytes() == b"\x05\x02":
        await asyncio.sleep(0.01)
    assert keytab_keys(path) == before
    await leases.release(f"{1:032x}")
    await identities.close()


class OtherDomainsDns:
    """Real DNS, but a domain of which it knows nothing has the lab's controller."""

    def __init__(self, lab: Lab, domain: str) -> None:
        self._real, self._lab, self._domain = DnsResolver(), lab, domain

    def srv(self, name: str) -> Sequence[SrvRecord]:
        if name.endswith(f".{self._domain}"):
            return [SrvRecord(0, 100, 389, self._lab.dc_host)]
        return self._real.srv(name)

    def addresses(self, host: str) -> Sequence[str]:
        return self._real.addresses(host)


def silent(*_: object, **__: object) -> Iterator[bytes]:
    """Stand for a network that lets no LDAP ping through."""
    return iter(())


async def test_a_domain_that_dns_says_is_another_one_gets_nothing(bench: Bench, lab: Lab) -> None:
    """The policy allows its accounts; whose controller answers is another matter."""
    bench.policy = Policy(accounts=("*@dev.test",), keytabs=("*@dev.test",))
    bench.locator = Locator(OtherDomainsDns(lab, "dev.test"), ping=silent)
    identities, leases = bench.agent()
    document = json.loads((bench.directory / "specs/one.json").read_text())
    document["DomainJoinConfig"] = {
        "DnsName": "dev.test",
        "MachineAccountName": "WebApp01",
        "NetBiosName": lab.netbios,
    }
    for scope in ("dev.test", lab.netbios):
        accounts = [{"Name": "WebApp01", "Scope": "dev.test"}, {"Name": "WebApp02", "Scope": scope}]
        document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"] = accounts
        (bench.directory / "specs/dev.json").write_text(json.dumps(document))
        for keytab in (False, True):
            request = replace(bench.request(1, "dev.json"), keytab=keytab)
            with pytest.raises(NotPermittedError, match="domain-facts-other-domain") as caught:
                await leases.make(request)
            assert lab.dns_domain in str(caught.value)
    assert identities.acquisitions == 0
    assert files(bench, 1) == set()
    await identities.close()


async def test_an_account_of_a_domain_that_dns_says_is_another_one(bench: Bench, lab: Lab) -> None:
    """As an additional account of a spec whose own domain is well."""
    bench.locator = Locator(OtherDomainsDns(lab, "dev.test"), ping=silent)
    identities, leases = bench.agent()
    document = json.loads((bench.directory / "specs/one.json").read_text())
    document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"].append(
        {"Name": "WebApp02", "Scope": "dev.test"}
    )
    (bench.directory / "specs/dev.json").write_text(json.dumps(document))
    with pytest.raises(NotPermittedError, match="domain-facts-other-domain"):
        await leases.make(bench.request(1, "dev.json"))
    assert files(bench, 1) == set()
    await identities.close()


def membership(lab: Lab, what: str, account: str) -> None:
    tool = ("service-account", "group-msa-membership", what)
    lab.samba_tool(*tool, f"--name={account}", "--principal=LABHOST$")


def removed(lab: Lab, account: str) -> None:
    membership(lab, "remove", account)


def disabled(lab: Lab, account: str) -> None:
    lab.samba_tool("user", "disable", f"{account}$")


def deleted(lab: Lab, account: str) -> None:
    lab.samba_tool("service-account", "delete", f"--name={account}")


@pytest.mark.parametrize(
    ("revoke", "code", "restore"),
    [
        (removed, "password-not-permitted", lambda lab, name: membership(lab, "add", name)),
        (
            disabled,
            "kdc-account-disabled",
            lambda lab, n: lab.samba_tool("user", "enable", f"{n}$"),
        ),
        (deleted, "account-not-found", None),
    ],
)
async def test_what_the_directory_takes_back_is_given_to_nobody_else(
    bench: Bench,
    lab: Lab,
    revoke: Callable[[Lab, str], None],
    code: str,
    restore: Callable[[Lab, str], None] | None,
) -> None:
    """The host is allowed no more, or the account is disabled or deleted, while it is held."""
    name = "Revoked01"
    tool = lab.samba_tool
    create = ("service-account", "create", f"--name={name}")
    tool(*create, f"--dns-host-name={name.lower()}.{lab.dns_domain}")
    tool("user", "enable", f"{name}$")
    membership(lab, "add", name)
    path = bench.directory / "specs/revoked.json"
    make_credential_spec(NewSpecRequest(account_name=name, path=str(path)))
    identities, leases = bench.agent()
    try:
        await leases.make(bench.request(1, "revoked.json"))
        (identity,) = identities.held()
        given = (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes()
        revoke(lab, name)
        # Until it is asked again the ticket that is held is given: the domain takes it, too.
        await leases.make(bench.request(2, "revoked.json"))
        with pytest.raises(CredspecError, match=code):
            await identities.refresh(identity.name)
        # What runs keeps its ticket until that ends, new containers get none.
        assert (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes() == given
        assert {record.container for record in leases.all()} == {"container1", "container2"}
        with pytest.raises((NotPermittedError, NotFoundError), match=code):
            await leases.make(bench.request(3, "revoked.json"))
        assert files(bench, 3) == set()
        when = identities.refresh_at(identity.name)
        assert when is not None
        assert when - datetime.now(UTC) <= timedelta(minutes=30)
        if restore is not None:
            restore(lab, name)
            await leases.make(bench.request(3, "revoked.json"))
            assert (bench.directory / "leases" / f"{1:032x}" / "krb5cc").read_bytes() != given
    finally:
        await identities.close()
        if restore is not None:
            deleted(lab, name)


async def test_facts_that_are_held_and_wrong_are_asked_for_again(bench: Bench) -> None:
    """As if the domain had been made again, with another SID, since it was asked."""
    identities, leases = bench.agent()
    facts = await identities.facts("example.test")
    session = identities._domains.get(("example.test", None)).session
    session.connection._facts = replace(facts, sid="S-1-5-21-1-2-3")
    await leases.make(bench.request(1, "one.json"))
    assert session.known_facts == facts
    # A spec that is wrong is still reported.
    path = bench.directory / "specs/one.json"
    path.write_text(path.read_text().replace(facts.sid, "S-1-5-21-1-2-3"))
    with pytest.raises(CredspecError, match="spec-domain-sid-differs"):
        await leases.make(bench.request(2, "one.json"))
    await identities.close()
