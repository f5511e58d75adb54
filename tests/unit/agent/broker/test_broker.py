"""Leases in mode broker from their making to their end; sockets are real, the domain simulated."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from credspec.agent.audit import Caller
from credspec.agent.leases.homes import TreeHome
from credspec.agent.service_sockets import STORED
from credspec.config.policy import Policy
from credspec.contract.service_names import BROKER
from credspec.errors import CredspecError
from credspec.kerberos.ccache_reader import read_ccache
from credspec.kerberos.service_names import ServicePattern
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory

LEASE = f"{1:032x}"
USER, AGENT = 4711, 4712


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a tree that counts as one whose containers' network the shim reaches (simulated)."""
    monkeypatch.setattr(TreeHome, "has_network", True)
    with directory_in_memory() as found:
        yield found


def kdc_sockets() -> list[socket.socket]:
    """Return a TCP and a UDP socket at one port, as the shim makes them in a container."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        return [tcp, udp]


def is_refused(port: int) -> bool:
    """Return whether nobody listens at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return True
    return False


async def served(directory: Path) -> tuple[ScriptedLeases, int]:
    bench = ScriptedLeases(directory)
    made = await bench.leases.make(bench.request(1, tickets=BROKER, services=("HTTP/a.test",)))
    assert made.kdc_port is None
    sockets = kdc_sockets()
    port = sockets[0].getsockname()[1]
    record = await bench.leases.serve_kdc(LEASE, sockets)
    assert record.kdc_port == port
    assert record.place is not None
    assert f"127.0.0.1:{port}" in (Path(record.place) / "krb5.conf").read_text()
    assert not is_refused(port)
    assert bench.leases.status(record)["kdc_served"]
    return bench, port


async def release(bench: ScriptedLeases) -> None:
    await bench.leases.release(LEASE)


async def cut_off(bench: ScriptedLeases) -> None:
    record = await bench.leases.revoke(LEASE, Caller(0, 1))
    assert (record.revoked, record.ready) == (True, False)


async def replace_with_tgt(bench: ScriptedLeases) -> None:
    await bench.leases.make(bench.request(1))


@pytest.mark.parametrize("end", [release, cut_off, replace_with_tgt])
async def test_a_lease_that_is_brokered_no_more_is_not_served(
    directory: Path, end: Callable[[ScriptedLeases], Awaitable[None]]
) -> None:
    """Its KDC is closed, and the key of its decoys is on no disk."""
    bench, port = await served(directory)
    keys = directory / "decoys"
    assert [path.name for path in keys.iterdir()] == [LEASE]
    await end(bench)
    assert is_refused(port)
    assert list(keys.iterdir()) == []
    assert LEASE not in bench.leases._broker._served
    await bench.close()


async def test_what_root_cut_off_is_no_lease_to_its_kdc(directory: Path) -> None:
    """Nor is it served again, whatever sockets are sent."""
    bench, _ = await served(directory)
    broker = bench.leases._broker
    lease = broker._lease(LEASE)
    assert lease is not None
    assert [f"{name.account}@{name.domain}" for name in lease.identities] == [
        "webapp01@example.test"
    ]
    assert lease.realms == {"EXAMPLE.TEST"}
    await cut_off(bench)
    assert broker._lease(LEASE) is None
    with pytest.raises(CredspecError, match="kdc-sockets-unfit"):
        await bench.leases.serve_kdc(LEASE, kdc_sockets())
    await release(bench)
    assert broker._lease(LEASE) is None
    await bench.close()


async def is_answered(port: int) -> bool:
    """Return whether a KDC answers at a port, if only that it cannot read what it was sent."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(struct.pack(">I", 1) + b"x")
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
    return len(reply) > 4


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_a_lease_is_served_at_the_same_sockets_after_a_restart(
    directory: Path, is_reversed: bool
) -> None:
    """The service manager, which is simulated here, gives them back in any order."""
    bench, port = await served(directory)
    descriptors = bench.leases._broker._served[LEASE].descriptors
    kept = [socket.socket(fileno=os.dup(each)) for each in descriptors]
    key = bench.leases._broker._keys.of(LEASE)
    bench.leases.close()
    assert not bench.leases.status(bench.leases.get(LEASE))["kdc_served"]
    await bench.close()
    assert not is_refused(port), "clients wait meanwhile"
    again = ScriptedLeases(directory)
    again.leases._broker._stored[LEASE] = kept[::-1] if is_reversed else kept
    await again.leases.adopt()
    record = again.leases.get(LEASE)
    assert (record.kdc_port, again.leases.status(record)["kdc_served"]) == (port, True)
    assert again.leases._broker._keys.of(LEASE) == key, "programs hold decoys of it"
    assert await is_answered(port)
    await release(again)
    assert is_refused(port)
    await again.close()


async def test_a_user_s_sockets_go_on_listening_while_the_agent_restarts(directory: Path) -> None:
    """Connections to them are taken in a thread, which must not end what the copies are of."""
    policy = Policy(grpc_uids=frozenset({USER}), spec_sources=("file", "raw"))
    bench = ScriptedLeases(directory, policy)
    await bench.leases.make(bench.request(1, uid=USER, tickets=BROKER))
    sockets = kdc_sockets()
    port = sockets[0].getsockname()[1]
    kept = [socket.socket(fileno=os.dup(each.fileno())) for each in sockets]
    await bench.leases.serve_kdc(LEASE, sockets, Caller(USER, 1))
    bench.leases.close()
    assert not is_refused(port)
    kept[0].shutdown(socket.SHUT_RDWR)
    for each in kept:
        each.close()
    await bench.close()


class ServiceManager:
    """What systemd is sent (simulated): the names of what is to be kept, and kept no more."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        found = []
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 4)
            except BlockingIOError:
                return found
            for each in descriptors:
                os.close(each)
            words = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            word = "kept" if "FDSTORE" in words else "forgotten"
            found.append(f"{word} {words['FDNAME']} {len(descriptors)}")

    def close(self) -> None:
        self._socket.close()


async def test_the_service_manager_keeps_the_sockets_of_a_lease_and_no_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that it keeps for nobody would be ready for ever, and wake the agent."""
    manager = ServiceManager(directory / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "notify"))
    bench, _ = await served(directory)
    kept, forgotten = f"kept {STORED}{LEASE} 2", f"forgotten {STORED}{LEASE} 0"
    assert manager.received() == [kept]
    bench.leases.close()
    assert manager.received() == []
    await bench.leases.serve_kdc(LEASE, kdc_sockets())
    manager.received()
    await release(bench)
    assert manager.received() == [forgotten]
    bench.leases._broker._stored[LEASE] = kdc_sockets()
    await bench.leases.adopt()
    assert manager.received() == [forgotten], "the lease is gone"
    await bench.close()
    manager.close()


async def test_a_lease_whose_sockets_are_lost_says_so_and_is_kept(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, _ = await served(directory)
    bench.leases.close()
    await bench.close()
    again = ScriptedLeases(directory)
    await again.leases.adopt()
    record = again.leases.get(LEASE)
    assert not again.leases.status(record)["kdc_served"]
    said = capsys.readouterr().err
    assert said.count("event='broker-sockets-lost'") == 1
    assert f"lease='{LEASE}'" in said
    # Sockets that are sent later do.
    sockets = kdc_sockets()
    port = sockets[0].getsockname()[1]
    assert (await again.leases.serve_kdc(LEASE, sockets)).kdc_port == port
    assert await is_answered(port)
    await release(again)
    await again.close()


def principals_of(directory: Path) -> dict[str, str]:
    """Return whose the caches of a lease are, by the names of their files."""
    files = [path for path in directory.iterdir() if path.name.startswith("krb5cc")]
    return {path.name: read_ccache(path.read_bytes()).principal for path in files}


@pytest.mark.parametrize("accounts", [("First",), ("First", "Second")])
async def test_each_of_several_accounts_has_a_decoy_of_its_own(
    directory: Path, accounts: tuple[str, ...]
) -> None:
    """The first's is where programs look; the only one is nowhere else."""
    bench = ScriptedLeases(directory)
    made = await bench.leases.make(bench.request(1, *accounts, tickets=BROKER))
    assert made.place is not None
    principals = principals_of(Path(made.place))
    assert len(principals) == (1 if len(accounts) == 1 else 1 + len(accounts))
    assert set(principals.values()) == {f"{name.lower()}$@EXAMPLE.TEST" for name in accounts}
    assert principals["krb5cc"] == "first$@EXAMPLE.TEST"
    await release(bench)
    await bench.close()


async def test_of_several_accounts_the_first_to_end_is_when_a_lease_is_renewed(
    directory: Path,
) -> None:
    bench = ScriptedLeases(directory)
    await bench.leases.make(bench.request(1, "First", "Second", tickets=BROKER))
    starts, ends = [], []
    for hours, identity in enumerate(bench.identities.held(), 1):
        identity.start -= timedelta(hours=hours)
        identity.end -= timedelta(hours=hours)
        starts.append(identity.start)
        ends.append(identity.end)
    assert len(starts) == 2
    given = await bench.leases._broker.give(bench.leases.get(LEASE))
    assert (given.ticket_start, given.ticket_end) == (min(starts), min(ends))
    await release(bench)
    await bench.close()


async def test_realms_that_a_lease_may_ask_are_those_of_its_patterns(directory: Path) -> None:
    """And of the policy's for its accounts, as it is now."""
    bench = ScriptedLeases(directory)
    services = ("HTTP/a.test", "cifs/*.b.test@B.TEST")
    await bench.leases.make(bench.request(1, tickets=BROKER, services=services))
    broker = bench.leases._broker
    lease = broker._lease(LEASE)
    assert lease is not None
    assert lease.realms == {"EXAMPLE.TEST", "B.TEST"}
    # A record of another version may have names that cannot be read here.
    odd = replace(lease.record, services=("no name", "ldap/c.test@C.TEST"))
    broker._table.records[LEASE] = odd
    pattern = ServicePattern.parse("HTTP/d.test@D.TEST")
    assert pattern is not None
    broker._policy.replace(
        replace(broker._policy.policy, services={"webapp01": (pattern,), "other": ()})
    )
    lease = broker._lease(LEASE)
    assert lease is not None
    assert lease.realms == {"EXAMPLE.TEST", "C.TEST", "D.TEST"}
    await bench.close()


async def test_sockets_of_leases_that_are_gone_are_closed_at_a_start(directory: Path) -> None:
    sockets = kdc_sockets()
    port = sockets[0].getsockname()[1]
    bench = ScriptedLeases(directory)
    bench.leases._broker._stored[LEASE] = sockets
    await bench.leases.adopt()
    assert [each.fileno() for each in sockets] == [-1, -1]
    assert is_refused(port)
    assert bench.leases._broker._stored == {}
    await bench.close()


@pytest.mark.parametrize(
    ("uid", "code"),
    [
        (-1, "kdc-sockets-unfit"),
        (0, "kdc-sockets-unfit"),
        (AGENT, "kdc-sockets-unfit"),
        (USER, "kdc-sockets-unfit"),
        (USER + 7, "lease-not-yours"),
    ],
)
async def test_nobody_serves_another_user_s_lease(
    directory: Path, monkeypatch: pytest.MonkeyPatch, uid: int, code: str
) -> None:
    """Others get as far as to their sockets, which are closed whatever is wrong."""
    bench = ScriptedLeases(directory, Policy(grpc_uids=frozenset({USER})))
    await bench.leases.make(bench.request(1, uid=USER))
    monkeypatch.setattr("os.geteuid", lambda: AGENT)
    sockets = kdc_sockets()
    with pytest.raises(CredspecError) as caught:
        await bench.leases.serve_kdc(LEASE, sockets, Caller(uid, 1))
    assert caught.value.code == code
    assert [each.fileno() for each in sockets] == [-1, -1]
    monkeypatch.undo()
    await bench.close()
