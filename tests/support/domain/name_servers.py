"""Name servers of the test's own, in front of the lab's, and the /etc files that name them.

They are on loopback addresses, so a program finds them through a resolv.conf bound into its own
mount namespace only.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset

from credspec.lab.namespaces import Plan
from support.domain.loopback_addresses import listen

Answer = Callable[[dns.message.Message], dns.message.Message | None]
"""What a name server answers to a query; None for silence."""


class NameServer:
    """Answers by UDP and TCP as its function says; `questions` are the names it was asked for."""

    def __init__(self, answer: Answer) -> None:
        self.address, (self._tcp, self._udp) = listen("127.98.0", 53, udp=[53])
        self.questions: list[str] = []
        self._answer = answer
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        for listener in (self._udp, self._tcp):
            # A thread that waits in it is woken.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _answered(self, wire: bytes) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.questions.append(query.question[0].name.to_text(omit_final_dot=True).lower())
        answer = self._answer(query)
        return None if answer is None else answer.to_wire()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, peer = self._udp.recvfrom(4096)
                if not wire:
                    return
                threading.Thread(target=self._answer_udp, args=(wire, peer), daemon=True).start()

    def _answer_udp(self, wire: bytes, peer: tuple[str, int]) -> None:
        answer = self._answered(wire)
        if answer is not None:
            with contextlib.suppress(OSError):
                self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._tcp.accept()
                threading.Thread(target=self._answer_tcp, args=(taken,), daemon=True).start()

    def _answer_tcp(self, taken: socket.socket) -> None:
        with taken, contextlib.suppress(OSError, ValueError):
            while size := taken.recv(2):
                answer = self._answered(taken.recv(int.from_bytes(size, "big")))
                if answer is None:
                    # Held open until the client gives up.
                    taken.recv(1)
                    return
                taken.sendall(len(answer).to_bytes(2, "big") + answer)


@contextlib.contextmanager
def name_server(answer: Answer) -> Iterator[NameServer]:
    """Serve until the end of the block."""
    server = NameServer(answer)
    try:
        yield server
    finally:
        server.close()


def silence(query: dns.message.Message) -> None:
    """Never answer."""
    del query


def host_of_localhost_alone(directory: Path, name_servers: Sequence[str]) -> Plan:
    """Return the surroundings of a host that has these name servers, and no name in its files."""
    resolv_conf, hosts = directory / "resolv.conf", directory / "hosts"
    resolv_conf.write_text("".join(f"nameserver {address}\n" for address in name_servers))
    hosts.write_text("127.0.0.1 localhost\n")
    return Plan(binds={"/etc/resolv.conf": str(resolv_conf), "/etc/hosts": str(hosts)})


class Zone:
    """Answers for one domain: which hosts are its controllers, and at which address each is."""

    def __init__(self, domain: str, controllers: dict[str, str]) -> None:
        self.controllers = controllers
        self._locator = f"_ldap._tcp.dc._msdcs.{domain}."

    def __call__(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text().lower(), question.rdtype.name
        answer = dns.message.make_response(query)
        records: list[str] = []
        if name == self._locator:
            records = [f"0 100 389 {host}." for host in self.controllers] if kind == "SRV" else []
        elif name.removesuffix(".") in self.controllers:
            records = [self.controllers[name.removesuffix(".")]] if kind == "A" else []
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if records:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
        return answer
