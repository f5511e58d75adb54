"""The broker with the real domain: programs of MIT Kerberos ask it as they ask any KDC."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from credspec.agent.leases.journal import Journal
from credspec.config.policy import Policy
from credspec.contract.service_names import BROKER
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.ccache_reader import read_ccache
from credspec.kerberos.service_names import ServicePattern
from credspec.lab.domain import Lab
from support.agent.broker_client import (
    LDAP,
    Client,
    HostClock,
    audited,
    fresh,
    sockets,
    twenty_served,
)
from support.agent.broker_client import client as client  # noqa: PLC0414 - a fixture
from support.agent.broker_client import clock as clock  # noqa: PLC0414 - a fixture
from support.agent.broker_client import services as services  # noqa: PLC0414 - a fixture
from support.agent.real_leases import Bench
from support.agent.real_leases import bench as bench  # noqa: PLC0414 - a fixture


async def test_a_ticket_of_a_service_that_is_allowed(lab: Lab, client: Client) -> None:
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    [line] = client.lines("granted")
    assert line["service"] == f"ldap/{lab.dc_host}"
    assert line["via"] == "kdc"
    assert line["pattern"] == LDAP
    assert line["accounts"] == ["webapp01@example.test"]


async def test_another_service_is_refused(lab: Lab, client: Client) -> None:
    shown = await client.run("kvno", f"cifs/{lab.dc_host}")
    assert shown.returncode == 1
    assert "KDC policy rejects request" in shown.stderr
    assert client.lines("denied")[0]["service"] == f"cifs/{lab.dc_host}"


async def test_what_is_in_the_files(lab: Lab, client: Client) -> None:
    """The one ticket is a decoy, which the real KDC cannot decrypt."""
    cache = read_ccache((client.directory / "krb5cc").read_bytes())
    assert [each.server for each in cache.records] == [f"krbtgt/{lab.realm}@{lab.realm}"]
    client.environment["KRB5_CONFIG"] = str(lab.krb5_conf)
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert "Decrypt integrity check failed" in shown.stderr


async def test_a_second_request_is_counted_and_has_no_line(
    lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of equal decisions are joined for a minute; the numbers are there at once."""
    # No minute ends before the test says so.
    monkeypatch.setattr("credspec.agent.broker.decisions._SECONDS", 3600.0)
    for _ in range(3):
        shown = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
        assert shown.returncode == 0, shown.stderr
        await client.run("kvno", f"cifs/{lab.dc_host}")
    assert len(client.lines("granted")) == len(client.lines("denied")) == 1
    assert client.leases.service_audit.counts["granted"] == 3
    # MIT asks twice where it is refused.
    assert client.leases.status(client.record)["denied"] >= 3
    decisions = client.leases._broker._decisions  # type: ignore[attr-defined]
    decisions.flush()
    async with asyncio.timeout(60):
        while len(client.lines("granted")) < 2:
            await asyncio.sleep(0.05)
    assert client.lines("granted")[1]["count"] == 2
    # Another one ends by itself.
    monkeypatch.setattr("credspec.agent.broker.decisions._SECONDS", 0.1)
    shown = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    assert len(client.lines("granted")) == 3
    async with asyncio.timeout(60):
        while decisions._joined:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("minutes", [1, 6, 29])
async def test_what_is_held_is_good_for_programs_however_old_it_is(
    lab: Lab, client: Client, clock: HostClock, minutes: int
) -> None:
    """Clients refuse an answer that starts more than five minutes from their time."""
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    clock.ahead = timedelta(minutes=minutes)
    client.environment |= clock.environment
    shown = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    # Both are the one that was held: a domain whose clock differs so much gives none.
    assert client.leases.service_audit.counts == {"granted": 2}


@pytest.mark.parametrize("minutes", [0, 6, 60 * 24 * 200])
async def test_a_lease_of_any_age_leads_to_another_realm(
    client: Client, clock: HostClock, minutes: int
) -> None:
    clock.ahead = timedelta(minutes=minutes)
    client.environment |= clock.environment
    await asyncio.sleep(1.1)  # the decoy's start has whole seconds
    shown = await client.run("kvno", "krbtgt/OTHER.TEST")
    assert shown.returncode == 0, shown.stderr


async def test_two_hundred_contexts_of_twenty_containers_at_once(lab: Lab, bench: Bench) -> None:
    identities, leases = bench.agent()
    lines = [
        f"for i in 0 1 2 3 4 5 6 7 8 9; do cp {home}/krb5cc {home}/cc$i; done; "
        f"for i in 0 1 2 3 4 5 6 7 8 9; do KRB5_CONFIG={home}/krb5.conf "
        f"KRB5CCNAME={home}/cc$i kvno ldap/{lab.dc_host} & done"
        for home in await twenty_served(bench, leases)
    ]
    shown = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", "; ".join([*lines, "wait"])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.stderr == ""
    assert len(shown.stdout.splitlines()) == 200
    # All have the one ticket that the domain was asked for.
    assert len({each["end"] for each in audited(bench, "granted")}) == 1
    leases.close()
    await identities.close()


async def test_a_domain_that_does_not_answer(lab: Lab, client: Client) -> None:
    """What is held is served until it ends; the rest is answered, too."""
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    lab.pause_dc()
    try:
        held = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
        assert held.returncode == 0, held.stderr
        other = await client.run("kvno", "ldap/other.example.test")
        assert "A service is not available" in other.stderr
    finally:
        lab.resume_dc()
    assert client.lines("failed")[0]["errors"] == ["kdc-unreachable"]


async def test_what_cannot_be_audited_is_not_given(lab: Lab, client: Client) -> None:
    client.audit.rename(client.audit.with_suffix(".old"))
    client.audit.mkdir()
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert "KDC policy rejects request" in shown.stderr
    client.audit.rmdir()
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0


async def test_the_policy_of_the_host_counts_at_the_next_request(lab: Lab, client: Client) -> None:
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    pattern = ServicePattern.parse("ldap/other.example.test")
    assert pattern is not None
    client.leases.policy.replace(Policy(services={"webapp01": (pattern,)}))
    shown = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
    assert "KDC policy rejects request" in shown.stderr


async def test_a_service_that_the_domain_does_not_know(client: Client) -> None:
    shown = await client.run("kvno", "ldap/nowhere.example.test")
    assert "not found in Kerberos database" in shown.stderr


async def test_lives_of_tickets_are_those_of_the_policy(lab: Lab, client: Client) -> None:
    life = timedelta(minutes=3)
    client.leases.policy.replace(Policy(ticket_life={"ldap": life}))
    before = datetime.now(UTC)
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    found = read_ccache((client.directory / "krb5cc").read_bytes()).records
    [end] = [each.end for each in found if each.server.startswith("ldap/")]
    assert before < end <= datetime.now(UTC) + life


async def test_the_next_agent_serves_at_the_sockets_that_were_kept(
    lab: Lab, bench: Bench, client: Client
) -> None:
    """Programs hold decoys in memory: the key is the same, and no file changes."""
    kept = client.kept
    client.leases.close()
    files = {path.name: path.read_bytes() for path in client.directory.iterdir()}
    identities, leases = bench.agent(stored_sockets={client.record.lease_id: kept})
    await leases.adopt()
    assert files == {path.name: path.read_bytes() for path in client.directory.iterdir()}
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    assert leases.status(leases.get(client.record.lease_id))["kdc_served"]
    leases.close()
    await identities.close()


async def test_sockets_of_leases_that_are_gone_are_closed(bench: Bench) -> None:
    kept = sockets()
    identities, leases = bench.agent(stored_sockets={"0" * 32: kept})
    await leases.adopt()
    assert [each.fileno() for each in kept] == [-1, -1]
    await identities.close()


async def test_a_released_lease_is_served_no_more(lab: Lab, client: Client) -> None:
    for each in client.kept:
        each.close()
    copy = client.directory.parent.parent
    for name in ("krb5cc", "krb5.conf"):
        (copy / name).write_bytes((client.directory / name).read_bytes())
    client.environment |= {"KRB5CCNAME": f"{copy}/krb5cc", "KRB5_CONFIG": f"{copy}/krb5.conf"}
    await client.leases.release(client.record.lease_id)
    shown = await client.run("kvno", f"ldap/{lab.dc_host}")
    assert "Cannot contact any KDC" in shown.stderr
    assert list((client.directory.parent.parent / "decoys").iterdir()) == []


async def test_a_refresh_gives_a_new_decoy_and_leaves_none_worthless(
    lab: Lab, client: Client
) -> None:
    """Programs add what they were given to the file, which must not grow for months."""
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0
    assert await client.leases.refresh([client.record.lease_id]) == []
    cache = (client.directory / "krb5cc").read_bytes()
    assert [each.server for each in read_ccache(cache).records] == [
        f"krbtgt/{lab.realm}@{lab.realm}"
    ]
    assert cache != client.first
    shown = await client.run("kvno", "-c", fresh(client), f"ldap/{lab.dc_host}")
    assert shown.returncode == 0, shown.stderr
    # A container may have removed its file.
    assert (await client.run("kdestroy")).returncode == 0
    assert await client.leases.refresh([client.record.lease_id]) == []
    assert (await client.run("kvno", f"ldap/{lab.dc_host}")).returncode == 0


async def test_each_account_of_a_spec_has_its_own_tickets(lab: Lab, bench: Bench) -> None:
    identities, leases = bench.agent()
    request = replace(bench.request(1, "three.json"), tickets=BROKER, uid=0, gid=0)
    record = await leases.make(request)
    made = await leases.serve_kdc(record.lease_id, sockets())
    client = Client(bench, leases, made, [])
    for name in ("WebApp01", "WebApp02", "WebApp03"):
        client.environment["KRB5CCNAME"] = f"{client.directory}/krb5cc_{name.lower()}"
        line = ("ldapwhoami", "-N", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{lab.dc_host}")
        shown = await client.run(*line)
        assert shown.stdout == f"u:{lab.netbios}\\{name}$\n", shown.stderr
    accounts = [line["accounts"] for line in client.lines("granted")]
    assert accounts == [[f"webapp0{number}@example.test"] for number in (1, 2, 3)]
    leases.close()
    await identities.close()


async def test_where_nobody_opens_a_port_it_is_refused(bench: Bench) -> None:
    """The CSI driver's volumes are in pods whose network it does not know."""
    identities, leases = bench.agent()
    request = replace(bench.request(1, "one.json"), tickets=BROKER)
    volume = bench.directory / "volumes" / request.lease_id
    with pytest.raises(NotPermittedError) as refused:
        await leases.make(replace(request, runtime_state=str(volume)))
    assert refused.value.code == "tickets-broker-place"
    await identities.close()


async def test_sockets_of_a_lease_that_cannot_be_served_are_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime shim, and the service manager, may have copies: nothing must listen to them."""
    identities, leases = bench.agent()
    record = await leases.make(replace(bench.request(1, "one.json"), tickets=BROKER))
    passed = sockets()
    copies = [each.dup() for each in passed]

    def fails(*_: object) -> None:
        raise CredspecError.of("journal-unwritable", "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", fails)
        with pytest.raises(CredspecError, match="journal-unwritable"):
            await leases.serve_kdc(record.lease_id, passed)
    assert [each.fileno() for each in passed] == [-1, -1]
    assert not leases.status(leases.get(record.lease_id))["kdc_served"]
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with socket.create_connection(copies[0].getsockname()):
        for _ in range(50):
            await asyncio.sleep(0)
    assert faults == []
    record = await leases.serve_kdc(record.lease_id, copies)
    assert leases.status(record)["kdc_served"]
    await leases.release(record.lease_id)
    assert [each.fileno() for each in copies] == [-1, -1]
    leases.close()
    await identities.close()


async def test_other_leases_and_sockets_are_not_served(bench: Bench) -> None:
    identities, leases = bench.agent()
    await leases.make(bench.request(1, "one.json"))
    await leases.make(replace(bench.request(2, "one.json"), tickets=BROKER))
    one, two = sockets(), sockets()
    wrong = {1: one, 2: [*two[:1], socket.socket()], 3: []}
    for number, passed in wrong.items():
        with pytest.raises(CredspecError) as refused:
            await leases.serve_kdc(f"{number:032x}", passed)
        assert refused.value.code in {"kdc-sockets-unfit", "lease-not-found"}
        assert [each.fileno() for each in passed] == [-1] * len(passed)
    two[1].close()
    leases.close()
    await identities.close()
