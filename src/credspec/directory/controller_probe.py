"""Look at many addresses of domain controllers at once: what they say by UDP, what TCP they take.

Both are asked at the same time, as each alone says too little: a firewall may drop UDP, and a
controller that answers the ping may refuse the connection that is wanted.
"""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from credspec.directory.netlogon_ping import (
    MAX_ANSWER_BYTES,
    EmptyAnswerError,
    NetlogonAnswer,
    ping_request,
)
from credspec.errors import CredspecError

PING_PORT: Final = 389
"""The UDP port of the LDAP ping (MS-ADTS 6.3.3)."""

LONGEST_SECONDS: Final = 1.5
"""How long `probe_addresses` waits at most."""

_GRACE_SECONDS: Final = 0.5
_TCP_SECONDS: Final = 1.0
_REPEAT_SECONDS: Final = 0.5
_MAX_MESSAGE_ID: Final = (1 << 31) - 1
_CHANCE: Final = random.SystemRandom()

Probe = Callable[[str, int], bool]
"""Whether an address takes a TCP connection on a port, such as `answers`."""


class Ping(Protocol):
    """How a datagram goes to an address and what comes back; see `exchange_datagrams`."""

    def __call__(self, address: str, request: bytes, /) -> Iterator[bytes]:
        """Send `request` and yield what the address sends back, for a bounded time."""


@dataclass(slots=True)
class ProbeResult:
    """What was seen of one address until the probing ended.

    `answer` is its answer by UDP, `refusal` why that rules it out, empty if it does not.
    `takes_tcp` says whether it took a connection, `latency_seconds` how long the first sign of
    life took, by either protocol.
    """

    answer: NetlogonAnswer | None = None
    refusal: str = ""
    takes_tcp: bool = False
    latency_seconds: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether the address has answered by both protocols, and nothing speaks against it."""
        return self.takes_tcp and self.answer is not None and not self.refusal


def answers(address: str, port: int, seconds: float = _TCP_SECONDS) -> bool:
    """Return whether a TCP connection is taken within `seconds`."""
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return True
    except OSError:
        return False


def exchange_datagrams(
    address: str, request: bytes, /, *, port: int = PING_PORT, seconds: float = LONGEST_SECONDS
) -> Iterator[bytes]:
    """Send a datagram to an IPv4 or IPv6 address and yield what comes back from there.

    A lost datagram is sent once more. Ends after `seconds`, or when the address says that nobody
    listens; never raises.
    """
    end = time.monotonic() + seconds
    repeat_at = time.monotonic() + _REPEAT_SECONDS
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind, protocol) as connected:
            # Connected, so that the kernel drops what other addresses send.
            connected.connect(target)
            connected.send(request)
            while (now := time.monotonic()) < end:
                if now >= repeat_at:
                    connected.send(request)
                    repeat_at = end
                connected.settimeout(max(0.001, min(end, repeat_at) - now))
                try:
                    # One byte more shows that a datagram is too long.
                    datagram = connected.recv(MAX_ANSWER_BYTES + 1)
                except TimeoutError:
                    continue
                yield datagram
    except OSError:
        return


def probe_addresses(
    addresses: Iterable[str],
    *,
    domain: str,
    port: int,
    ping: Ping = exchange_datagrams,
    probe: Probe = answers,
) -> dict[str, ProbeResult]:
    """Ask all addresses about `domain` by UDP, and whether they take TCP on `port`, all at once.

    Ends when all have answered both ways or failed to, half a second after the first good one, and
    after `LONGEST_SECONDS` at the latest; a single address has a second more. Answers that are
    malformed or belong to another request are as none.
    """
    results = {address: ProbeResult() for address in addresses}
    signs: queue.SimpleQueue[_Sign] = queue.SimpleQueue()
    started = time.monotonic()

    def try_udp(address: str) -> None:
        answer, refusal = None, ""
        try:
            answer, refusal = _pinged(address, domain, ping)
        finally:
            signs.put(_Sign(address, time.monotonic() - started, answer=answer, refusal=refusal))

    def try_tcp(address: str) -> None:
        takes_tcp = False
        try:
            takes_tcp = probe(address, port)
        finally:
            signs.put(_Sign(address, time.monotonic() - started, takes_tcp=takes_tcp))

    end = started + LONGEST_SECONDS
    if len(results) == 1:
        # Nobody else could bring this to an end sooner. A controller that is busy with the
        # connection answers later, and threads cost more than both.
        [address] = results
        try_udp(address)
        try_tcp(address)
    else:
        for address in results:
            for attempt in (try_udp, try_tcp):
                # Daemons: those that still wait must not hold up the end of a command.
                threading.Thread(target=attempt, args=(address,), daemon=True).start()
    for _ in range(2 * len(results)):
        try:
            sign = signs.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        result = results[sign.address]
        sign.add_to(result)
        if result.is_good:
            end = min(end, time.monotonic() + _GRACE_SECONDS)
    return results


class _Sign(NamedTuple):
    """What one attempt brought, and when."""

    address: str
    seconds: float
    answer: NetlogonAnswer | None = None
    refusal: str = ""
    takes_tcp: bool = False

    def add_to(self, result: ProbeResult) -> None:
        result.answer = result.answer or self.answer
        result.refusal = result.refusal or self.refusal
        result.takes_tcp = result.takes_tcp or self.takes_tcp
        if result.latency_seconds is None and (self.answer or self.refusal or self.takes_tcp):
            result.latency_seconds = self.seconds


def _pinged(address: str, domain: str, ping: Ping) -> tuple[NetlogonAnswer | None, str]:
    message_id = _CHANCE.randint(1, _MAX_MESSAGE_ID)
    for datagram in ping(address, ping_request(domain, message_id)):
        try:
            answer = NetlogonAnswer.unpack(datagram, message_id=message_id)
        except EmptyAnswerError:
            return None, "does not serve the domain"
        except CredspecError:
            continue
        return answer, _refusal(answer, domain)
    return None, ""


def _refusal(answer: NetlogonAnswer, domain: str) -> str:
    if answer.domain.casefold() != domain.casefold():
        return f"is of the domain {answer.domain}"
    if answer.is_paused:
        return "is paused"
    return "" if answer.is_writable else "is read-only"
