"""Leases with tickets of services only, in this process, with the real domain."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from credspec.agent.audit import Caller
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.request import LeaseRequest
from credspec.config.policy import Policy
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.ccache_reader import read_ccache
from credspec.kerberos.service_names import ServicePattern
from credspec.lab.domain import Lab
from support.agent.real_leases import Bench, files
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture

EXTRA = "HTTP/extra.example.test"
POSTGRES = "postgres/db.example.test"
ROOT = Caller(0, 1)
SHORT = MappingProxyType({"ldap": timedelta(seconds=12)})
# Three programs are to be logged on before it ends, and it has ended when they go on.
_TWENTY, _LONGER = timedelta(seconds=20), 30
LDAP_SESSION = f"""
import bonsai, sys, time
bonsai.set_connect_async(False)
client = bonsai.LDAPClient("ldap://" + sys.argv[1])
client.set_credentials("GSSAPI")
client.set_sasl_security_properties(min_ssf=56)
with client.connect() as session:
    session.whoami()
    print("begun")
    time.sleep({_LONGER})
    try:
        session.whoami()
        print("goes on")
    except bonsai.LDAPError:
        print("ended")
"""
_SECONDS = 120
"""A deadline; nothing is measured by it."""


def wanting(bench: Bench, number: int, *services: str, spec: str = "one.json") -> LeaseRequest:
    return replace(bench.request(number, spec), tickets="services", services=services)


def home(bench: Bench, number: int) -> Path:
    return bench.directory / "leases" / f"{number:032x}"


def ends(bench: Bench, number: int) -> dict[str, Any]:
    """Return when the tickets in a lease's cache end, by their services."""
    found = read_ccache((home(bench, number) / "krb5cc").read_bytes()).records
    return {record.server.partition("@")[0]: record.end for record in found}


def audited(bench: Bench, event: str) -> list[dict[str, Any]]:
    lines = (bench.directory / "audit.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def shown(leases: Leases, number: int) -> dict[str, dict[str, Any]]:
    record = leases.get(f"{number:032x}")
    return {each["service"]: each for each in leases.status(record)["service_tickets"]}


async def until(condition: Any) -> None:
    async with asyncio.timeout(_SECONDS):
        while not condition():
            await asyncio.sleep(0.1)


def whoami(lab: Lab, cache: Path) -> subprocess.CompletedProcess[str]:
    """Ask the directory who it is, with a cache."""
    return subprocess.run(
        ["ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{lab.dc_host}"],
        env={"KRB5CCNAME": str(cache), "PATH": "/usr/bin", "KRB5_CONFIG": str(lab.krb5_conf)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def extra(lab: Lab) -> Iterator[str]:
    """A service that `lab.samba_tool` can take away."""
    lab.samba_tool("spn", "add", EXTRA, "DBHOST$")
    yield EXTRA
    lab.samba_tool("spn", "delete", EXTRA)


async def test_a_lease_has_tickets_of_its_services_and_no_tgt(bench: Bench, lab: Lab) -> None:
    identities, leases = bench.agent()
    services = (f"ldap/{lab.dc_host}", "MSSQLSvc/DB.example.test:1433")
    record = await leases.make(wanting(bench, 1, *services))
    assert files(bench, 1) == {"krb5cc", "krb5.conf"}
    found = read_ccache((home(bench, 1) / "krb5cc").read_bytes())
    assert found.principal == f"WebApp01$@{lab.realm}"
    assert [each.server for each in found.records] == [
        f"ldap/{lab.dc_host}@{lab.realm}",
        f"MSSQLSvc/db.example.test:1433@{lab.realm}",
        f"MSSQLSvc/DB.example.test:1433@{lab.realm}",
    ]
    assert not any(b"krbtgt" in path.read_bytes() for path in home(bench, 1).iterdir())
    conf = (home(bench, 1) / "krb5.conf").read_text()
    assert "dns_lookup_kdc = false" in conf
    assert "[realms]" not in conf
    subprocess.run(["klist", "-s", str(home(bench, 1) / "krb5cc")], check=True)
    assert [each["error"] for each in shown(leases, 1).values()] == [None, None]
    lines = audited(bench, "service-ticket-granted")
    assert sorted(line["service"] for line in lines) == sorted(services)  # asked at once
    assert {(line["via"], line["realm"]) for line in lines} == {("file", lab.realm)}
    assert audited(bench, "lease-granted")[0]["tickets"] == "services"
    await leases.release(record.lease_id)
    assert files(bench, 1) == set()
    await identities.close()


async def test_each_account_of_a_spec_has_its_own(bench: Bench, lab: Lab) -> None:
    identities, leases = bench.agent()
    await leases.make(wanting(bench, 1, POSTGRES, spec="three.json"))
    names = {f"krb5cc_webapp0{n}": f"WebApp0{n}$@{lab.realm}" for n in (1, 2, 3)}
    assert files(bench, 1) == {"krb5cc", "krb5.conf", *names}
    for name, principal in names.items():
        found = read_ccache((home(bench, 1) / name).read_bytes())
        assert {each.client for each in found.records} == {principal}
        assert {each.server for each in found.records} == {f"{POSTGRES}@{lab.realm}"}
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_containers_share_tickets_and_a_tgt(bench: Bench) -> None:
    identities, leases = bench.agent()
    await asyncio.gather(*(leases.make(wanting(bench, n, POSTGRES)) for n in range(1, 9)))
    assert identities.acquisitions == 1
    caches = {(home(bench, n) / "krb5cc").read_bytes() for n in range(1, 9)}
    assert len(caches) == 1
    await leases.make(bench.request(9, "one.json"))
    assert identities.acquisitions == 1
    for record in leases.all():
        await leases.release(record.lease_id)
    await identities.close()


async def test_short_tickets_are_replaced_in_time(bench: Bench, lab: Lab) -> None:
    """As long as the lease lasts there is one that has not ended."""
    bench.policy = Policy(ticket_life=SHORT)
    identities, leases = bench.agent()
    service = f"ldap/{lab.dc_host}"
    await leases.make(wanting(bench, 1, service))
    first = ends(bench, 1)[service]
    for _ in range(3):
        before = ends(bench, 1)[service]
        await until(lambda before=before: ends(bench, 1)[service] != before)
        subprocess.run(["klist", "-s", str(home(bench, 1) / "krb5cc")], check=True)
    assert ends(bench, 1)[service] > first
    assert len(audited(bench, "service-ticket-granted")) >= 4
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_a_stolen_ticket_ends(bench: Bench, lab: Lab, tmp_path: Path) -> None:
    """What was copied works before its end, and opens nothing after it, but for clocks' skew."""
    bench.policy = Policy(ticket_life=MappingProxyType({"ldap": _TWENTY}))
    identities, leases = bench.agent()
    service = f"ldap/{lab.dc_host}"
    await leases.make(wanting(bench, 1, service))
    stolen = tmp_path / "stolen"
    stolen.write_bytes((home(bench, 1) / "krb5cc").read_bytes())
    stolen.chmod(0o600)
    assert whoami(lab, stolen).stdout == f"u:{lab.netbios}\\WebApp01$\n"
    await leases.release(f"{1:032x}")
    end = read_ccache(stolen.read_bytes()).records[0].end
    start = audited(bench, "service-ticket-granted")[0]["time"]
    assert (end - type(end).fromisoformat(start)) <= _TWENTY + timedelta(seconds=1)
    await until(lambda: subprocess.run(["klist", "-s", str(stolen)], check=False).returncode != 0)
    assert whoami(lab, stolen).returncode != 0
    await identities.close()


async def test_sessions_and_the_end_of_their_tickets(
    bench: Bench, lab: Lab, tmp_path: Path
) -> None:
    """LDAP and SMB servers end a session with its ticket, PostgreSQL does not: hence the lives."""
    bench.policy = Policy(
        ticket_life=MappingProxyType(dict.fromkeys(("ldap", "cifs", "*"), _TWENTY))
    )
    identities, leases = bench.agent()
    services = (f"ldap/{lab.dc_host}", f"cifs/{lab.dc_host}", POSTGRES)
    await leases.make(wanting(bench, 1, *services))
    cache = tmp_path / "copied"
    cache.write_bytes((home(bench, 1) / "krb5cc").read_bytes())
    cache.chmod(0o600)

    def session(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"KRB5CCNAME": str(cache), "KRB5_CONFIG": str(lab.krb5_conf)}
        return subprocess.run(
            command,
            env=environment | {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    ldap, smb, sql = await asyncio.gather(
        asyncio.to_thread(session, "/usr/bin/python3", "-c", LDAP_SESSION, lab.dc_host),
        asyncio.to_thread(
            session,
            *("/bin/sh", "-c", f"(echo ls; sleep {_LONGER}; echo ls) | smbclient $1", "-"),
            f"//{lab.dc_host}/data --use-kerberos=required",
        ),
        asyncio.to_thread(
            session,
            *("psql", "-tA", "host=db.example.test user=WebApp01$ dbname=postgres"),
            *("-c", "select 1", "-c", f"select pg_sleep({_LONGER})", "-c", "select 2"),
        ),
    )
    assert ldap.stdout.split() == ["begun", "ended"], ldap.stderr
    assert smb.stdout.count("blocks available") == 1
    # The answer to its next request, or to the echo that smbclient sends by itself.
    ends = ("NT_STATUS_NETWORK_SESSION_EXPIRED", "NT_STATUS_CONNECTION_DISCONNECTED")
    assert any(each in smb.stdout + smb.stderr for each in ends)
    assert sql.stdout.split() == ["1", "2"], sql.stderr
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_one_that_fails_keeps_its_old_ticket_and_is_named(
    bench: Bench, lab: Lab, extra: str
) -> None:
    bench.policy = Policy(
        ticket_life=MappingProxyType({"ldap": timedelta(seconds=8), "http": timedelta(seconds=24)})
    )
    identities, leases = bench.agent()
    service = f"ldap/{lab.dc_host}"
    await leases.make(wanting(bench, 1, service, extra))
    first = ends(bench, 1)
    lab.samba_tool("spn", "delete", extra)
    # It is asked for again when half of its life is over; on a busy machine also before this.
    old = ends(bench, 1)
    await until(lambda: shown(leases, 1)[extra]["error"] is not None)
    assert "kdc-service-unknown" in shown(leases, 1)[extra]["error"]
    assert shown(leases, 1)[service]["error"] is None
    now = ends(bench, 1)
    assert now[extra] == old[extra]
    assert now[service] > first[service]
    assert audited(bench, "service-ticket-failed")[0]["errors"] == ["kdc-service-unknown"]
    # With its end it is gone, and nothing else takes its place.
    await until(lambda: extra not in ends(bench, 1))
    assert set(ends(bench, 1)) == {service}
    # It comes back by itself.
    lab.samba_tool("spn", "add", extra, "DBHOST$")
    await until(lambda: extra in ends(bench, 1))
    assert shown(leases, 1)[extra]["error"] is None
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_an_outage_of_the_domain(bench: Bench, lab: Lab) -> None:
    """What is held for one container serves another until it ends; what is not held, none."""
    bench.policy = Policy(ticket_life=MappingProxyType({"ldap": timedelta(seconds=60)}))
    identities, leases = bench.agent(sleep=lambda _: asyncio.Event().wait())
    service = f"ldap/{lab.dc_host}"
    await leases.make(wanting(bench, 1, service))
    end = ends(bench, 1)[service]
    await until(lambda: end - datetime.now(UTC) < timedelta(seconds=28))
    lab.stop_dc()
    try:
        await leases.make(wanting(bench, 2, service))
        assert ends(bench, 2)[service] == end
        assert "unreachable" in shown(leases, 2)[service]["error"]
        with pytest.raises(UnreachableError):
            await leases.make(wanting(bench, 3, service, POSTGRES))
    finally:
        lab.start_dc()
    for number in (1, 2):
        await leases.release(f"{number:032x}")
    await identities.close()


async def test_a_service_that_nobody_has_refuses_the_start(bench: Bench, lab: Lab) -> None:
    identities, leases = bench.agent()
    wanted = (f"ldap/{lab.dc_host}", "HTTP/nowhere.example.test", "cifs/nowhere2.example.test")
    with pytest.raises(CredspecError) as caught:
        await leases.make(wanting(bench, 1, *wanted))
    assert [problem.code for problem in caught.value.problems] == ["kdc-service-unknown"] * 2
    assert files(bench, 1) == set()
    assert leases.count == 0
    assert list((bench.directory / "journal").iterdir()) == []
    await identities.close()


async def test_a_restart_goes_on_with_what_the_container_has(
    bench: Bench, lab: Lab, extra: str
) -> None:
    """Nobody is asked at once; a service that fails then keeps what the file has of it."""
    bench.policy = Policy(
        ticket_life=MappingProxyType({"ldap": timedelta(seconds=10), "http": timedelta(seconds=45)})
    )
    identities, leases = bench.agent()
    service = f"ldap/{lab.dc_host}"
    await leases.make(wanting(bench, 1, service, extra))
    old = ends(bench, 1)
    await identities.close()
    lab.samba_tool("spn", "delete", extra)
    identities, again = bench.agent()
    await again.adopt()
    assert identities.acquisitions == 0
    assert again.get(f"{1:032x}").services == (service, extra)
    await until(lambda: ends(bench, 1)[service] != old[service])
    assert ends(bench, 1)[extra] == old[extra]
    assert shown(again, 1)[extra]["error"] is not None
    lab.samba_tool("spn", "add", extra, "DBHOST$")
    await again.release(f"{1:032x}")
    await identities.close()


async def test_a_restart_makes_a_cache_again_that_is_gone(bench: Bench) -> None:
    identities, leases = bench.agent()
    await leases.make(wanting(bench, 1, POSTGRES))
    await identities.close()
    (home(bench, 1) / "krb5cc").unlink()
    identities, again = bench.agent()
    await again.adopt()
    await until(lambda: files(bench, 1) == {"krb5cc", "krb5.conf"})
    assert b"krbtgt" not in (home(bench, 1) / "krb5cc").read_bytes()
    await again.release(f"{1:032x}")
    await identities.close()


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(tickets=("tgt",)), "policy-tickets"),
        (Policy(services=MappingProxyType({"WebApp01": ()})), "policy-service"),
    ],
)
async def test_the_policy_refuses_and_revokes(bench: Bench, policy: Policy, code: str) -> None:
    identities, leases = bench.agent()
    await leases.make(wanting(bench, 1, POSTGRES))
    leases.policy.replace(policy)
    with pytest.raises(NotPermittedError, match=code):
        await leases.make(wanting(bench, 2, POSTGRES))
    assert await leases.enforce_policy() == 1
    assert files(bench, 1) == set()
    assert audited(bench, "lease-revoked")[0]["errors"] == [code]
    await identities.close()


async def test_an_account_that_is_listed_gets_no_tgt_by_any_way(bench: Bench) -> None:
    pattern = ServicePattern.parse(POSTGRES)
    assert pattern is not None
    bench.policy = Policy(services=MappingProxyType({"WebApp01@example.test": (pattern,)}))
    identities, leases = bench.agent()
    with pytest.raises(NotPermittedError, match="policy-tgt"):
        await leases.make(bench.request(1, "one.json"))
    assert identities.acquisitions == 0
    await leases.make(wanting(bench, 1, POSTGRES))
    with pytest.raises(NotPermittedError, match="policy-tgt"):
        await leases.make(bench.request(1, "one.json"))
    assert b"krbtgt" not in (home(bench, 1) / "krb5cc").read_bytes()
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_a_lease_changes_its_kind_when_it_is_asked_again(bench: Bench) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "one.json"))
    assert b"krbtgt" in (home(bench, 1) / "krb5cc").read_bytes()
    await leases.make(wanting(bench, 1, POSTGRES))
    assert b"krbtgt" not in (home(bench, 1) / "krb5cc").read_bytes()
    await leases.make(bench.request(1, "one.json"))
    assert b"krbtgt" in (home(bench, 1) / "krb5cc").read_bytes()
    assert leases.status(leases.get(f"{1:032x}")) == {}
    await leases.release(f"{1:032x}")
    await identities.close()


async def test_an_audit_log_that_cannot_be_written_gives_no_ticket(bench: Bench) -> None:
    (bench.directory / "audit.jsonl").mkdir()
    identities, leases = bench.agent()
    with pytest.raises(CredspecError, match="audit-unwritable"):
        await leases.make(wanting(bench, 1, POSTGRES))
    assert files(bench, 1) == set()
    await identities.close()


async def test_root_cuts_a_container_off_until_it_ends(bench: Bench) -> None:
    identities, leases = bench.agent()
    for number, request in enumerate(
        (wanting(bench, 1, POSTGRES), bench.request(2, "one.json")), 1
    ):
        await leases.make(request)
        found = await leases.revoke(f"{number:032x}", ROOT)
        assert (found.revoked, found.ready) == (True, False)
        assert files(bench, number) == set()
        with pytest.raises(NotPermittedError, match="lease-revoked"):
            await leases.make(request)
        assert files(bench, number) == set()
    assert [line["lease"] for line in audited(bench, "lease-cut-off")] == [
        f"{1:032x}",
        f"{2:032x}",
    ]
    await asyncio.gather(*(leases.renew(identity) for identity in identities.held()))
    await leases.enforce_policy()
    assert files(bench, 1) == files(bench, 2) == set()
    await identities.close()
    identities, again = bench.agent()
    await again.adopt()
    assert all(record.revoked for record in again.all())
    assert again.count == 2
    with pytest.raises(NotPermittedError, match="lease-revoked"):
        await again.make(wanting(bench, 1, POSTGRES))
    for record in again.all():
        await again.release(record.lease_id)
    await again.make(wanting(bench, 1, POSTGRES))
    await again.release(f"{1:032x}")
    await identities.close()


async def test_the_journal_tells_an_older_agent_to_leave_it(bench: Bench) -> None:
    """Records of leases with a TGT stay as they were; an older agent would give others one."""
    identities, leases = bench.agent()
    await leases.make(wanting(bench, 1, POSTGRES))
    await leases.make(bench.request(2, "one.json"))
    records = {
        number: json.loads((bench.directory / "journal" / f"{number:032x}.json").read_text())
        for number in (1, 2)
    }
    assert (records[1]["format"], records[2]["format"]) == (2, 1)
    for record in leases.all():
        await leases.release(record.lease_id)
    await identities.close()
