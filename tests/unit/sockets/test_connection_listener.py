"""Accepting connections with real sockets, in the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.sockets.admission import Admission, AdmissionReport, ConnectionLimits, Refusal, Slot
from credspec.sockets.connection_listener import ConnectionListener
from credspec.sockets.peers import Peer

LIMITS = ConnectionLimits(total=20, reserved=5, per_peer=6, rate=10.0, burst=3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Served:
    """A listener in a directory of the test's, with what it handed over and reported."""

    def __init__(
        self,
        path: Path,
        admission: Admission,
        clock: Clock | None = None,
        processor_clock: Callable[[], float] | None = None,
        family: int = socket.AF_UNIX,
    ) -> None:
        self.socket = socket.socket(family)
        is_unix = family == socket.AF_UNIX
        self.socket.bind(str(path / "s") if is_unix else ("127.0.0.1", 0))
        self.socket.listen(512)
        self.taken: list[tuple[socket.socket, Slot]] = []
        self.reports: list[AdmissionReport] = []
        self.listener = ConnectionListener(
            self.socket,
            lambda connection, slot: self.taken.append((connection, slot)),
            admission,
            report=self.reports.append,
            answer=lambda peer, refusal: f"{peer.uid} {refusal.value}".encode(),
            clock=clock or Clock(),
            processor_clock=processor_clock or Clock(),
        )

    def connect(self) -> socket.socket:
        client = socket.socket(self.socket.family)
        client.settimeout(5)
        client.connect(self.socket.getsockname())
        return client

    def close(self) -> None:
        self.listener.close()
        for connection, slot in self.taken:
            connection.close()
            slot.release()
        self.socket.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_peer_that_may_not_connect_is_answered_and_closed_at_once(tmp_path: Path) -> None:
    served = Served(tmp_path, Admission(LIMITS, lambda _: False))
    served.listener.start()
    client = served.connect()
    await turns()
    assert client.recv(100) == f"{os.getuid()} may not connect".encode()
    assert client.recv(100) == b""
    assert not served.taken
    assert [report.refusal for report in served.reports] == [Refusal.NOT_PERMITTED]
    client.close()
    served.close()


async def test_a_flood_of_refused_peers_is_one_summary_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    served = Served(tmp_path, Admission(LIMITS, lambda _: False), clock)
    served.listener.start()
    for _ in range(200):
        served.connect().close()
        await turns(1)
    await turns(50)
    assert len(served.reports) == 5
    clock.now += 60
    served.listener._summarize()
    assert served.reports[-1] == AdmissionReport(
        Peer(uid=os.getuid()), Refusal.NOT_PERMITTED, suppressed=195
    )
    assert str(served.reports[-1]) == f"user {os.getuid()} may not connect (195 times more)"
    served.close()


async def test_peers_by_network_are_summed_up_by_their_address(tmp_path: Path) -> None:
    clock = Clock()
    served = Served(tmp_path, Admission(LIMITS, lambda _: False), clock, family=socket.AF_INET)
    served.listener.start()
    clients = [served.connect() for _ in range(20)]
    await turns(50)
    clock.now += 60
    served.listener._summarize()
    assert {report.peer for report in served.reports} == {Peer(address="127.0.0.1")}
    assert str(served.reports[-1]) == "127.0.0.1 may not connect (15 times more)"
    for client in clients:
        client.close()
    served.close()


async def test_what_is_handed_over_does_not_block(tmp_path: Path) -> None:
    served = Served(tmp_path, Admission(LIMITS))
    client = served.connect()
    served.listener._accept_some()
    ((connection, _),) = served.taken
    with pytest.raises(BlockingIOError):
        connection.recv(1)
    client.close()
    served.close()


async def test_few_are_accepted_in_one_turn_of_the_loop(tmp_path: Path) -> None:
    served = Served(tmp_path, Admission(ConnectionLimits(total=1000)))
    clients = [served.connect() for _ in range(100)]
    served.listener._accept_some()
    assert 0 < len(served.taken) <= 16
    served.listener.start()
    await turns(20)
    assert len(served.taken) == 100
    for client in clients:
        client.close()
    served.close()


async def test_many_that_are_refused_are_dealt_with_in_one_turn(tmp_path: Path) -> None:
    """Otherwise they would fill the queue, and others could not even connect."""
    served = Served(tmp_path, Admission(LIMITS, lambda _: False))
    clients = [served.connect() for _ in range(300)]
    served.listener._accept_some()
    answered = sum(bool(select.select([client], [], [], 0)[0]) for client in clients)
    assert 100 <= answered < 300
    for client in clients:
        client.close()
    served.close()


@given(cost=st.floats(0.0, 0.1))
def test_a_turn_is_bounded_by_what_it_takes_of_a_slow_processor(cost: float) -> None:
    async def flood(path: Path) -> tuple[float, list[bool]]:
        readings: list[float] = []

        def processor_clock() -> float:
            readings.append(len(readings) * cost)
            return readings[-1]

        refuse_all = Admission(LIMITS, lambda _: False)
        served = Served(path, refuse_all, processor_clock=processor_clock)
        clients = [served.connect() for _ in range(40)]
        served.listener._accept_some()
        turn = readings[-1]
        for _ in clients:
            served.listener._accept_some()
        answered = [bool(select.select([client], [], [], 0)[0]) for client in clients]
        for client in clients:
            client.close()
        served.close()
        return turn, answered

    with tempfile.TemporaryDirectory() as directory:
        turn, answered = asyncio.run(flood(Path(directory)))
    assert turn <= 0.02 + cost + 1e-9
    assert all(answered)


async def test_few_are_answered_in_one_turn_of_a_slow_processor(tmp_path: Path) -> None:
    spent = Clock()
    served = Served(tmp_path, Admission(LIMITS, lambda _: False), processor_clock=spent)

    def slow(peer: Peer, refusal: Refusal) -> bytes:
        spent.now += 0.015
        return f"{peer} {refusal.value}".encode()

    served.listener._answer = slow
    clients = [served.connect() for _ in range(10)]
    answered = []
    for _ in range(6):
        served.listener._accept_some()
        answered.append(sum(bool(select.select([each], [], [], 0)[0]) for each in clients))
    assert answered == [2, 4, 6, 8, 10, 10]
    for client in clients:
        client.close()
    served.close()


async def test_what_waits_for_its_turn_is_handed_over_later(tmp_path: Path) -> None:
    limits = ConnectionLimits(total=100, reserved=0, per_peer=100, rate=50.0, burst=1)
    admission = Admission(limits, privileged=lambda _: False)
    served = Served(tmp_path, admission)
    served.listener.start()
    clients = [served.connect() for _ in range(4)]
    await turns()
    assert len(served.taken) == 1
    assert admission.open_connections == 4
    while len(served.taken) < 4:
        await asyncio.sleep(0.01)
    for client in clients:
        client.close()
    served.close()
    assert admission.open_connections == 0


async def test_closing_it_closes_what_still_waits(tmp_path: Path) -> None:
    limits = ConnectionLimits(total=100, reserved=0, per_peer=100, rate=0.001, burst=1)
    admission = Admission(limits, privileged=lambda _: False)
    served = Served(tmp_path, admission)
    served.listener.start()
    clients = [served.connect() for _ in range(4)]
    await turns()
    served.close()
    assert admission.open_connections == 0
    assert [client.recv(1) for client in clients] == [b""] * 4
    for client in clients:
        client.close()


async def test_few_of_a_peer_are_served_at_a_time_and_the_others_in_order(tmp_path: Path) -> None:
    limits = ConnectionLimits(total=100, reserved=0, per_peer=50, active=3)
    admission = Admission(limits, privileged=lambda _: False)
    served = Served(tmp_path, admission)
    served.listener.start()
    clients = [served.connect() for _ in range(10)]
    for number, client in enumerate(clients):
        client.sendall(bytes([number]))
    await turns(10)
    order: list[int] = []
    for _ in clients:
        assert len(served.taken) <= 3
        connection, slot = served.taken.pop(0)
        order.append(connection.recv(1)[0])
        connection.close()
        slot.release()
        slot.release()
        await turns(3)
    assert order == list(range(10))
    assert admission.open_connections == 0
    assert not served.listener._served
    assert not served.listener._queues
    for client in clients:
        client.close()
    served.close()


async def test_those_that_end_at_once_let_all_others_through(tmp_path: Path) -> None:
    """However many wait, none is handed over from within the end of another."""
    limits = ConnectionLimits(total=1000, reserved=0, per_peer=1000, active=1, burst=1000)
    admission = Admission(limits, privileged=lambda _: False)
    served = Served(tmp_path, admission)
    count = 0

    def ends(connection: socket.socket, slot: Slot) -> None:
        nonlocal count
        count += 1
        connection.close()
        slot.release()

    first: list[Slot] = []
    served.listener._connected = lambda connection, slot: (connection.close(), first.append(slot))
    served.listener.start()
    for _ in range(400):
        served.connect().close()
        await turns(1)
    await turns(50)
    served.listener._connected = ends
    first[0].release()
    await turns(1000)
    assert count == 399
    assert admission.open_connections == 0
    served.close()


async def test_closing_it_closes_what_is_queued(tmp_path: Path) -> None:
    limits = ConnectionLimits(total=100, reserved=0, per_peer=50, active=1)
    admission = Admission(limits, privileged=lambda _: False)
    served = Served(tmp_path, admission)
    served.listener.start()
    clients = [served.connect() for _ in range(4)]
    await turns(10)
    served.close()
    await turns(3)
    assert admission.open_connections == 0
    assert [client.recv(1) for client in clients] == [b""] * 4
    for client in clients:
        client.close()


def open_files_limit(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_descriptors_it_waits_and_says_so_once(tmp_path: Path) -> None:
    served = Served(tmp_path, Admission(ConnectionLimits(total=1000)))
    served.listener.start()
    client = served.connect()
    limit = open_files_limit(0)  # whatever is closed meanwhile gives no descriptor back
    next(limit)
    try:
        for _ in range(5):
            await asyncio.sleep(0.12)
        assert not served.taken
    finally:
        next(limit, None)
    while not served.taken:
        await asyncio.sleep(0.01)
    assert [report.reason for report in served.reports] == [os.strerror(errno.EMFILE)] * 5
    client.close()
    served.close()


class Refusing:
    """A listening socket whose accept fails in one way after another (simulated)."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.inner, self.other = socket.socketpair(socket.AF_UNIX)

    def setblocking(self, _: bool) -> None:
        pass

    def fileno(self) -> int:
        return self.inner.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors.pop(), "simulated")
        raise BlockingIOError


@given(st.lists(st.sampled_from(sorted(errno.errorcode)), max_size=40))
def test_no_error_of_accepting_ends_it_simulated(errors: list[int]) -> None:
    async def accepts() -> None:
        listening = Refusing(*errors)
        reports: list[AdmissionReport] = []
        listener = ConnectionListener(
            listening,  # type: ignore[arg-type]
            lambda _, slot: slot.release(),
            Admission(LIMITS),
            report=reports.append,
        )
        while listening.errors:
            listener._accept_some()
            if listener._pause is not None:
                listener._pause.cancel()
                listener._go_on()
        listener._accept_some()
        listener.close()
        listening.inner.close()
        listening.other.close()
        assert len(reports) <= len(errors)

    asyncio.run(accepts())


@pytest.mark.parametrize(
    "name",
    [
        *("ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH"),
        *("EHOSTDOWN", "ENOPROTOOPT", "ETIMEDOUT"),
    ],
)
async def test_a_connection_that_was_lost_holds_up_no_other_simulated(name: str) -> None:
    """The network's errors and a firewall's come out of accept(2), too; nothing here is short."""
    lost = getattr(errno, name)
    listening = Refusing(lost, lost, lost)
    reports: list[AdmissionReport] = []
    listener = ConnectionListener(
        listening,  # type: ignore[arg-type]
        lambda _, slot: slot.release(),
        Admission(LIMITS),
        report=reports.append,
    )
    listener._accept_some()
    assert (listening.errors, reports, listener._pause) == ([], [], None)
    listener.close()
    listening.inner.close()
    listening.other.close()


async def test_an_error_of_whom_it_is_handed_to_closes_it(tmp_path: Path) -> None:
    admission = Admission(LIMITS)
    served = Served(tmp_path, admission)

    def fails(connection: socket.socket, slot: Slot) -> None:
        raise RuntimeError

    served.listener._connected = fails
    client = served.connect()
    with pytest.raises(RuntimeError):
        served.listener._accept_some()
    assert client.recv(1) == b""
    assert admission.open_connections == 0
    client.close()
    served.close()
