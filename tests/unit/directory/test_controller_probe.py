"""With real sockets, all on the loopback interface."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from credspec.directory.controller_probe import (
    ProbeResult,
    answers,
    exchange_datagrams,
    probe_addresses,
)
from support.domain.netlogon_datagrams import answer, datagram_of, message_id_of

Reply = Callable[[bytes], list[bytes]]


@contextmanager
def responder(reply: Reply, *, host: str = "127.0.0.1", source: str | None = None) -> Iterator[int]:
    """A controller's UDP port, which it yields; it answers from another address if told so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as ours,
        socket.socket(family, ours.type) as other,
    ):
        ours.bind((host, 0))
        if source is not None:
            other.bind((source, 0))

        def serve() -> None:
            while True:
                request, sender = ours.recvfrom(4096)
                if not request:
                    return
                for datagram in reply(request):
                    (ours if source is None else other).sendto(datagram, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ours.getsockname()[1]
        finally:
            with socket.socket(family, ours.type) as end:
                end.sendto(b"", ours.getsockname())
            thread.join()


def truth(request: bytes) -> list[bytes]:
    return [datagram_of(answer(), message_id_of(request))]


def look_at(address: str, udp: int, *, alive: bool = True, seconds: float = 0.7) -> ProbeResult:
    ping = partial(exchange_datagrams, port=udp, seconds=seconds)
    found = probe_addresses([address], domain="a.test", port=389, ping=ping, probe=lambda *_: alive)
    return found[address]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_by_either_family(host: str) -> None:
    try:
        with responder(truth, host=host) as port:
            result = look_at(host, port)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    assert result.answer == answer()
    assert result.is_good
    assert result.latency_seconds is not None


def test_an_answer_after_noise() -> None:
    def noisy(request: bytes) -> list[bytes]:
        spoofed = datagram_of(answer(domain="b.test"), message_id_of(request) ^ 1)
        return [b"noise", spoofed, bytes(60000), *truth(request)]

    with responder(noisy) as port:
        assert look_at("127.0.0.1", port).answer == answer()


def test_an_answer_from_another_address_is_not_taken() -> None:
    for source in ("127.0.0.1", "127.0.0.2"):
        with responder(truth, source=source) as port:
            result = look_at("127.0.0.1", port)
        assert result.answer is None
        assert result.takes_tcp


def test_a_lost_datagram_is_sent_again() -> None:
    requests: list[bytes] = []

    def forgetful(request: bytes) -> list[bytes]:
        requests.append(request)
        return truth(request) if len(requests) == 2 else []

    with responder(forgetful) as port:
        assert look_at("127.0.0.1", port, seconds=1.5).answer == answer()
    assert requests[0] == requests[1]


def test_silence_ends() -> None:
    with responder(lambda _: []) as port:
        assert look_at("127.0.0.1", port, alive=False) == ProbeResult()


def test_nobody_listens() -> None:
    with responder(truth) as port:
        pass
    assert list(exchange_datagrams("127.0.0.1", b"x", port=port)) == []
    assert not answers("127.0.0.1", port)


@pytest.mark.parametrize("address", ["dc1.a.test", "", "192.0.2.1.1", "::1::"])
def test_what_is_no_address_is_not_asked(address: str) -> None:
    assert list(exchange_datagrams(address, b"x")) == []


def test_a_connection_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers("127.0.0.1", server.getsockname()[1])


def test_nothing_to_look_at() -> None:
    assert probe_addresses([], domain="a.test", port=389) == {}
