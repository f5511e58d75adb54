"""Domain controllers of a domain, found by DNS SRV records (MS-ADTS 6.3.6, RFC 2782).

The order is RFC 2782's: lowest priority first, weighted at random within one. A controller that
does not take a TCP connection in time goes to the end, so that a dead one costs one short deadline
and not the long ones of the libraries behind.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from credspec.errors import UnreachableError, UsageError

LDAP_PORT: Final = 389
LDAPS_PORT: Final = 636

_DNS_SECONDS: Final = 5.0
_PROBE_SECONDS: Final = 1.0
_MAX_CONTROLLERS: Final = 16
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV answer: `target` is a host name without trailing dot."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class DomainController:
    """A domain controller: its DNS `host` name and its `addresses`, IPv4 or IPv6 in text form."""

    host: str
    addresses: tuple[str, ...]


class Resolver(Protocol):
    """What the locator needs of DNS; both methods raise `UnreachableError`."""

    def srv(self, name: str) -> Sequence[SrvRecord]:
        """Return the SRV records of a name; empty if there are none."""

    def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a host; empty if there are none."""


class DnsResolver:
    """DNS by the system's resolver configuration, with TCP after a truncated answer."""

    def __init__(
        self, seconds: float = _DNS_SECONDS, *, tcp: bool = False, nameserver: str | None = None
    ) -> None:
        """Ask by UDP first, or by `tcp` alone; the system's name servers, or `nameserver`."""
        self._seconds = seconds
        self._tcp = tcp
        self._nameserver = nameserver

    def nameservers(self) -> Sequence[str]:
        """Return the addresses of the name servers that are asked; empty if there are none."""
        import dns.resolver

        if self._nameserver is not None:
            return [self._nameserver]
        try:
            return [str(server) for server in dns.resolver.Resolver().nameservers]
        except dns.resolver.NoResolverConfiguration:
            return []

    def srv(self, name: str) -> Sequence[SrvRecord]:
        """Return the SRV records of `name`.

        Raises:
            UnreachableError: `dns-unreachable` if no name server answers in time.
        """
        return [
            SrvRecord(r.priority, r.weight, r.port, r.target.to_text(omit_final_dot=True))
            for r in self._ask(name, "SRV")
        ]

    def addresses(self, host: str) -> Sequence[str]:
        """Return the A and AAAA records of `host`; raises as `srv`."""
        return [r.address for kind in ("A", "AAAA") for r in self._ask(host, kind)]

    def _ask(self, name: str, kind: str) -> Iterable[_AnyRecord]:
        import dns.exception
        import dns.resolver

        try:
            resolver = dns.resolver.Resolver()
            if self._nameserver is not None:
                resolver.nameservers = [self._nameserver]
            # The trailing dot keeps search domains out of it.
            answer = resolver.resolve(f"{name}.", kind, tcp=self._tcp, lifetime=self._seconds)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.exception.DNSException as error:
            raise UnreachableError.of(
                "dns-unreachable",
                f"no name server answers for {name} ({type(error).__name__})",
                where="DNS",
                remedy="check /etc/resolv.conf: it must name the domain's DNS servers, or servers "
                "that forward to them",
            ) from None
        return list(answer)


class _AnyRecord(Protocol):
    priority: int
    weight: int
    port: int
    address: str

    @property
    def target(self) -> _AnyName: ...


class _AnyName(Protocol):
    def to_text(self, *, omit_final_dot: bool) -> str: ...


def order_by_preference(
    records: Iterable[SrvRecord], choose: Callable[[int, int], int]
) -> list[SrvRecord]:
    """Order SRV records as RFC 2782 says.

    `choose(0, n)` returns a random whole number from 0 to n inclusive, such as
    `random.Random().randint`.
    """
    ordered: list[SrvRecord] = []
    by_priority: dict[int, list[SrvRecord]] = {}
    for record in records:
        by_priority.setdefault(record.priority, []).append(record)
    for _, group in sorted(by_priority.items()):
        # Weight 0 goes first, so that it has a small chance of being chosen (RFC 2782).
        left = sorted(group, key=lambda r: r.weight > 0)
        while left:
            mark = choose(0, sum(r.weight for r in left))
            for record in left:
                mark -= record.weight
                if mark <= 0:
                    break
            left.remove(record)
            ordered.append(record)
    return ordered


def answers(address: str, port: int, seconds: float = _PROBE_SECONDS) -> bool:
    """Return whether a TCP connection is taken within `seconds`."""
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Locator:
    """Finds the domain controllers of a domain; DNS, chance and probe can be replaced."""

    resolver: Resolver
    choose: Callable[[int, int], int] = random.SystemRandom().randint
    probe: Callable[[str, int], bool] = answers

    def locate(self, domain: str, *, port: int = LDAP_PORT) -> list[DomainController]:
        """Return the domain controllers of `domain` that answer on `port`, best first.

        Each has only the addresses that answered; a single one is not probed. Blocks for at most
        the deadlines of DNS and one probe, since all are probed at once.

        Raises:
            UsageError: `domain-name-invalid`.
            UnreachableError: `dns-unreachable`; `domain-not-found` if DNS knows no controller;
                `dc-unreachable` if none takes a connection.
        """
        domain = valid_domain(domain)
        name = f"_ldap._tcp.dc._msdcs.{domain}"
        records = order_by_preference(self.resolver.srv(name), self.choose)[:_MAX_CONTROLLERS]
        if not records:
            raise UnreachableError.of(
                "domain-not-found",
                f"DNS has no record {name}",
                where=f"domain {domain}",
                expected="the domain controllers' SRV records",
                remedy="check the domain name, and that this host asks the domain's DNS servers",
            )
        candidates = [(r.target, a) for r in records for a in self.resolver.addresses(r.target)]
        if len(candidates) == 1:
            # With no choice to make, the connection itself is the probe.
            alive = [True]
        else:
            with ThreadPoolExecutor(max_workers=max(1, len(candidates))) as pool:
                alive = list(pool.map(lambda c: self.probe(c[1], port), candidates))
        controllers: dict[str, list[str]] = {}
        for (host, address), up in zip(candidates, alive, strict=True):
            if up:
                controllers.setdefault(host, []).append(address)
        if not controllers:
            tried = ", ".join(f"{h} ({a})" for h, a in candidates) or "hosts without an address"
            raise UnreachableError.of(
                "dc-unreachable",
                f"no domain controller takes a connection on port {port}: {tried}",
                where=f"domain {domain}",
                remedy="check routes and firewalls, or start a domain controller "
                "(Windows: error 1311, no logon servers)",
            )
        return [DomainController(host, tuple(a)) for host, a in controllers.items()]


def valid_domain(domain: str) -> str:
    """Return a DNS domain name in lower case without trailing dot.

    Raises:
        UsageError: `domain-name-invalid`, before the name gets into a query or a path.
    """
    name = domain.removesuffix(".").lower()
    if not _DNS_NAME.fullmatch(name):
        raise UsageError.of(
            "domain-name-invalid",
            f"{domain[:80]!r} is not a DNS domain name",
            where="domain",
            expected="a name such as contoso.com",
        )
    return name
