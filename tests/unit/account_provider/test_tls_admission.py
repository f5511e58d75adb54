"""Connections before their handshake: shares with any sequence of events, and with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.account_provider import tls_admission
from credspec.account_provider.tls_admission import HandshakeLimits, TlsAdmission
from credspec.sockets.admission import Admission, AdmissionReport, ConnectionLimits, Slot
from credspec.sockets.peers import Peer

HELLO = b"\x16\x03\x01"
ADDRESSES = [f"192.0.2.{number}" for number in range(1, 6)]
LIMITS = HandshakeLimits(total=6, each=3, seconds=60.0, rate=1e6, burst=1000)
UNLIMITED = ConnectionLimits(total=1000, per_peer=1000, rate=1e9, burst=1 << 30)


class Clients:
    """Clients with addresses of their own, without a network, and what was begun for them."""

    def __init__(self, limits: HandshakeLimits) -> None:
        self.begun: list[Slot] = []
        self.reports: list[AdmissionReport] = []
        self.ends: dict[Slot, socket.socket] = {}
        self.tasks: dict[Slot, asyncio.Task[None]] = {}
        self._admission = Admission(UNLIMITED, privileged=lambda _: False)
        self.admission = TlsAdmission(
            [], self._begin, connections=1000, report=self.reports.append, limits=limits
        )

    def _begin(self, connection: socket.socket, slot: Slot) -> asyncio.Task[None]:
        async def serve() -> None:
            with connection:
                await asyncio.get_running_loop().create_future()

        self.begun.append(slot)
        self.tasks[slot] = asyncio.create_task(serve())
        return self.tasks[slot]

    def connect(self, address: str, data: bytes = HELLO) -> Slot:
        """Connect, and send the first bytes."""
        own, other = socket.socketpair()
        own.setblocking(False)
        other.settimeout(5)
        peer = Peer(address=address)
        assert self._admission.admit(peer) == 0
        slot = Slot(self._admission, peer)
        self.ends[slot] = other
        other.sendall(data)
        self.admission._connected(own, slot)
        return slot

    def is_open(self, slot: Slot) -> bool:
        """Return whether the server's end is still open."""
        self.ends[slot].setblocking(False)
        try:
            return self.ends[slot].recv(1) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def unfinished(self) -> list[str]:
        queues = self.admission._queues.values()
        return [slot.peer.address for queue in queues for slot in queue.unfinished]

    @property
    def counted(self) -> int:
        """How many connections count as open."""
        return self._admission.open_connections


@contextmanager
def clients(limits: HandshakeLimits = LIMITS) -> Iterator[Clients]:
    made = Clients(limits)
    try:
        yield made
    finally:
        made.admission.close()
        for task in made.tasks.values():
            task.cancel()
        for end in made.ends.values():
            end.close()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["silent", "hello", "finished", "ended"]), st.integers(0, 4)),
    max_size=60,
)


@given(EVENTS)
def test_no_sequence_of_connections_takes_more_than_its_share(
    events: list[tuple[str, int]],
) -> None:
    async def run() -> None:
        with clients() as those:
            for event, number in events:
                address = ADDRESSES[number]
                begun = [slot for slot in those.begun if slot.peer.address == address]
                if event in {"silent", "hello"}:
                    slot = those.connect(address, HELLO if event == "hello" else b"")
                    assert slot.peer.address in those.unfinished()  # the newest is never refused
                elif begun and event == "finished":
                    those.admission.finished(begun[-1])
                elif begun:
                    those.tasks[begun[0]].cancel()
                await turns(3)
                counts = Counter(those.unfinished())
                assert all(count <= LIMITS.each for count in counts.values())
                for queue in those.admission._queues.values():
                    assert len(queue.unfinished) <= LIMITS.total
                    assert queue.ready.keys() <= queue.unfinished.keys()
            those.admission.close()
            for task in those.tasks.values():
                task.cancel()
            await turns()
            # Whatever happened: each is counted once, and given back once.
            assert those.counted == 0
            assert those.admission._by_address == {}

    asyncio.run(run())


async def test_the_oldest_of_an_address_makes_room_for_its_newest() -> None:
    with clients() as those:
        slots = [those.connect(ADDRESSES[0], b"") for _ in range(LIMITS.each + 2)]
        other = those.connect(ADDRESSES[1], b"")
        await turns()
        assert [those.is_open(slot) for slot in slots] == [False, False, True, True, True]
        assert those.is_open(other)


async def test_the_oldest_of_all_makes_room_when_many_addresses_come() -> None:
    with clients() as those:
        slots = [those.connect(f"198.51.100.{n}", b"") for n in range(LIMITS.total + 2)]
        await turns()
        assert [those.is_open(slot) for slot in slots] == [False] * 2 + [True] * LIMITS.total
        assert those.admission.unfinished == LIMITS.total


async def test_an_address_that_becomes_known_takes_no_more_than_is_there() -> None:
    """Its oldest connection is among those of unknown addresses, and makes no room for it."""
    with clients() as those:
        first = those.connect(ADDRESSES[0])
        those.connect(ADDRESSES[0], b"")
        await turns()
        for number in range(LIMITS.total):
            address = f"198.51.100.{number}"
            slot = those.connect(address)
            await turns()
            those.admission.finished(slot)
            those.connect(address, b"")
        those.admission.finished(first)
        for _ in range(LIMITS.each):
            those.connect(ADDRESSES[0], b"")
            await turns()
            known = those.admission._queues[True]
            assert len(known.unfinished) <= LIMITS.total


async def test_a_handshake_under_way_is_given_up_for_a_newer_one() -> None:
    with clients() as those:
        first = those.connect(ADDRESSES[0])
        await turns()
        assert those.begun == [first]
        for _ in range(LIMITS.each):
            those.connect(ADDRESSES[0], b"")
        await turns()
        assert those.tasks[first].cancelled()
        assert those.counted == LIMITS.each


async def test_a_handshake_that_is_given_up_before_it_begins_is_closed() -> None:
    with clients() as those:
        slot = those.connect(ADDRESSES[0])
        while not those.begun:
            those.admission._readable(
                those.admission._queues[False], those.admission._queues[False].unfinished[slot]
            )
        for _ in range(LIMITS.each):
            those.connect(ADDRESSES[0], b"")
        assert not those.is_open(slot)
        await turns()
        assert those.counted == LIMITS.each


async def test_a_known_address_has_room_whatever_others_do() -> None:
    with clients() as those:
        known = ADDRESSES[0]
        first = those.connect(known)
        await turns()
        those.admission.finished(first)
        slot = those.connect(known, b"")
        for number in range(LIMITS.total * 3):
            those.connect(f"198.51.100.{number}", b"")
        await turns()
        assert those.is_open(slot)
        assert those.admission.unfinished == LIMITS.total + 1


async def test_handshakes_of_the_newest_begin_first_and_at_a_rate() -> None:
    with clients(HandshakeLimits(total=6, each=6, seconds=60.0, rate=1e-6, burst=1)) as those:
        spent = those.connect(ADDRESSES[0])
        await turns()
        assert those.begun == [spent]
        slots = [those.connect(ADDRESSES[0]) for _ in range(3)]
        await turns()
        assert those.begun == [spent]  # no token is left
        for _ in range(2):
            those.admission._queues[False].bucket._tokens = 1
            those.admission._ticked()
        assert those.begun == [spent, slots[2], slots[1]]
        # Those of known addresses have a rate of their own.
        those.admission.finished(spent)
        known = those.connect(ADDRESSES[0])
        await turns()
        assert those.begun[-1] is known


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01", b"\0"])
async def test_what_is_not_tls_costs_no_handshake(data: bytes) -> None:
    with clients() as those:
        slot = those.connect(ADDRESSES[0], data)
        await turns()
        assert not those.is_open(slot)
        assert (those.begun, those.counted) == ([], 0)


async def test_one_that_leaves_at_once_costs_nothing() -> None:
    with clients() as those:
        slot = those.connect(ADDRESSES[0], b"")
        those.ends[slot].close()
        await turns()
        assert (those.begun, those.counted, those.admission.unfinished) == ([], 0, 0)


async def test_silence_ends_after_the_time() -> None:
    limits = HandshakeLimits(total=6, each=3, seconds=0.05, rate=1e6, burst=1000)
    with clients(limits) as those:
        slots = [those.connect(ADDRESSES[0], b""), those.connect(ADDRESSES[1])]
        async with asyncio.timeout(20):
            while any(those.is_open(slot) for slot in slots):
                await asyncio.sleep(0.01)
        await turns()
        assert (those.counted, those.admission.unfinished) == (0, 0)


async def test_what_is_given_up_is_reported_a_few_times_for_each_address() -> None:
    with clients() as those:
        for address in ADDRESSES[:2] * 50:
            those.connect(address, b"")
        counts = Counter(report.peer for report in those.reports)
        assert counts == {Peer(address=address): 5 for address in ADDRESSES[:2]}
        assert "given up for a newer one" in str(those.reports[0])


async def test_a_defect_in_serving_is_reported_by_its_kind_alone() -> None:
    with clients() as those:
        slot = those.connect(ADDRESSES[0])
        await turns()

        async def fail() -> None:
            raise ValueError("a secret")

        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        those.admission._ended(slot, task)
        assert "ValueError" in str(those.reports)
        assert "secret" not in str(those.reports)


async def test_only_the_last_known_addresses_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_admission, "_MOST_KNOWN", 2)
    with clients() as those:
        for address in (ADDRESSES[0], ADDRESSES[1], ADDRESSES[0], ADDRESSES[2]):
            slot = those.connect(address)
            await turns()
            those.admission.finished(slot)
        assert list(those.admission._known) == [ADDRESSES[0], ADDRESSES[2]]
