"""Domain controllers of a domain, found by DNS SRV records (MS-ADTS 6.3.6, RFC 2782).

DNS names them, the LDAP ping (MS-ADTS 6.3.3) tells which are near and fit, and a TCP connection
which are there, so that a dead one costs a short deadline and not the long ones of the libraries
behind. The order is that of the host's site first, then RFC 2782's: lowest priority first, weighted
at random within one. The ping is not authenticated: it orders and filters what DNS has named.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from credspec.directory.controller_probe import (
    Ping,
    Probe,
    Sight,
    answers,
    exchange_datagrams,
    look,
)
from credspec.errors import UnreachableError, UsageError

LDAP_PORT: Final = 389
LDAPS_PORT: Final = 636

_DNS_SECONDS: Final = 5.0
_NAMESERVER_SECONDS: Final = 1.0
_MAX_CONTROLLERS: Final = 16
_MAX_ADDRESSES: Final = 4
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
    """A domain controller: its DNS `host` name and its `addresses`, IPv4 or IPv6 in text form.

    The rest is how it was seen, and no part of what it is, so does not count in comparisons: its
    own Active Directory `site`, the time of its first answer by UDP or TCP, and whether it serves
    this host's site.
    """

    host: str
    addresses: tuple[str, ...]
    site: str | None = field(default=None, compare=False)
    latency_seconds: float | None = field(default=None, compare=False)
    is_closest: bool = field(default=False, compare=False)


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
        self._answered: str | None = None

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
            # One that is silent costs this once, not with every question.
            resolver.timeout = _NAMESERVER_SECONDS
            resolver.nameservers = sorted(
                map(str, resolver.nameservers), key=lambda server: server != self._answered
            )
            # The trailing dot keeps search domains out of it.
            answer = resolver.resolve(f"{name}.", kind, tcp=self._tcp, lifetime=self._seconds)
            self._answered = answer.nameserver
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


@dataclass(frozen=True, slots=True)
class Locator:
    """Finds the domain controllers of a domain; DNS, chance, probe and ping can be replaced."""

    resolver: Resolver
    choose: Callable[[int, int], int] = random.SystemRandom().randint
    probe: Probe = answers
    ping: Ping = exchange_datagrams

    def candidates(self, domain: str) -> list[DomainController]:
        """Return the controllers that DNS names, by priority and weight, asking none of them.

        Raises:
            UsageError: `domain-name-invalid`.
            UnreachableError: `dns-unreachable`; `domain-not-found` if DNS knows no controller;
                `dc-unreachable` if none of them has an address.
        """
        domain = valid_domain(domain)
        addresses = self._addresses(self._of_domain(domain))
        found = [DomainController(host, known) for host, known in addresses.items() if known]
        if not found:
            raise _unreachable(domain, "no domain controller has an address", addresses)
        return found

    def locate(
        self, domain: str, *, port: int = LDAP_PORT, site: str | None = None
    ) -> list[DomainController]:
        """Return the domain controllers of `domain` that take TCP on `port`, best first.

        `site` is the Active Directory site that this host was in before, if known; the answers
        correct it. Each controller has only the addresses that took a connection. Those that say
        that they are paused, read-only or of another domain are left out; those that say nothing,
        where UDP is filtered, are not.

        Blocks for the deadlines of DNS and for at most 3 seconds: all controllers are asked at
        once, and those of the host's site once more if DNS names others there.

        Raises:
            UsageError: `domain-name-invalid`.
            UnreachableError: `dns-unreachable`; `domain-not-found` if DNS knows no controller;
                `dc-unreachable` if none takes a connection; `dc-unsuitable` if all that do say
                that they cannot serve.
        """
        domain = valid_domain(domain)
        everywhere = self._of_domain(domain)
        near = self._of_site(domain, site)
        view = _View(domain, port, self.ping, self.probe)
        view.look_at(self._addresses([*near, *everywhere]))
        actual = view.client_site()
        if actual and actual != (site or "").lower() and not view.is_of_closest():
            near = self._of_site(domain, actual)
            view.look_at(self._addresses(near, known=view.hosts))
        found = view.controllers()
        if not found:
            raise view.failure()
        # Each SRV name is a candidate list of its own: the site's goes first, priorities order
        # within a list, and closeness only within a priority (MS-ADTS 6.3.6, RFC 2782).
        ranks = _ranks(near, everywhere)
        return sorted(found, key=lambda dc: ranks.get(dc.host, _LAST).preference(dc))

    def _of_domain(self, domain: str) -> list[SrvRecord]:
        name = f"_ldap._tcp.dc._msdcs.{domain}"
        records = self._records(name)
        if not records:
            raise UnreachableError.of(
                "domain-not-found",
                f"DNS has no record {name}",
                where=f"domain {domain}",
                expected="the domain controllers' SRV records",
                remedy="check the domain name, and that this host asks the domain's DNS servers",
            )
        return records

    def _of_site(self, domain: str, site: str | None) -> list[SrvRecord]:
        # The name may come from an unauthenticated answer; one that DNS cannot hold has no records.
        if site is None or "." in site or not _DNS_NAME.fullmatch(site):
            return []
        try:
            return self._records(f"_ldap._tcp.{site.lower()}._sites.dc._msdcs.{domain}")
        except UnreachableError:
            return []

    def _records(self, name: str) -> list[SrvRecord]:
        # A target that is the root says that there is no such service (RFC 2782).
        usable = [
            replace(r, target=r.target.lower())
            for r in self.resolver.srv(name)
            if _DNS_NAME.fullmatch(r.target)
        ]
        return order_by_preference(usable, self.choose)

    def _addresses(
        self, records: Iterable[SrvRecord], known: Container[str] = ()
    ) -> dict[str, tuple[str, ...]]:
        """Resolve the first hosts of `records` that are not `known`, all at once."""
        hosts = [h for h in dict.fromkeys(r.target for r in records) if h not in known]
        hosts = hosts[:_MAX_CONTROLLERS]
        if len(hosts) == 1:
            found = [self._addresses_or_error(hosts[0])]
        else:
            with ThreadPoolExecutor(max_workers=_MAX_CONTROLLERS) as pool:
                found = list(pool.map(self._addresses_or_error, hosts))
        failures = [f for f in found if isinstance(f, UnreachableError)]
        if failures and len(failures) == len(found):
            raise failures[0]
        return {
            host: () if isinstance(each, UnreachableError) else each
            for host, each in zip(hosts, found, strict=True)
        }

    def _addresses_or_error(self, host: str) -> tuple[str, ...] | UnreachableError:
        try:
            return tuple(dict.fromkeys(self.resolver.addresses(host)))[:_MAX_ADDRESSES]
        except UnreachableError as error:
            return error


@dataclass(frozen=True, slots=True)
class _Rank:
    """Where a controller stands in DNS: in which list, and where in that."""

    tier: int
    priority: int
    position: int

    def preference(self, controller: DomainController) -> tuple[int, int, bool, int]:
        return self.tier, self.priority, not controller.is_closest, self.position


_LAST: Final = _Rank(2, 0, 0)


def _ranks(*lists: Sequence[SrvRecord]) -> dict[str, _Rank]:
    ranks: dict[str, _Rank] = {}
    for tier, records in enumerate(lists):
        for position, record in enumerate(records):
            ranks.setdefault(record.target, _Rank(tier, record.priority, position))
    return ranks


class _View:
    """What was seen of the controllers of one domain."""

    def __init__(self, domain: str, port: int, ping: Ping, probe: Probe) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self._domain = domain
        self._port = port
        self._ping = ping
        self._probe = probe
        self._sights: dict[str, Sight] = {}

    def look_at(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        self.hosts |= hosts
        self._sights |= look(
            {a for addresses in hosts.values() for a in addresses if a not in self._sights},
            domain=self._domain,
            port=self._port,
            ping=self._ping,
            probe=self._probe,
        )

    def client_site(self) -> str:
        """Return this host's site in lower case as a controller of the domain sees it, or none."""
        for host in self.hosts:
            for sight in self._of(host).values():
                answer = sight.answer
                if answer and answer.client_site and answer.domain.lower() == self._domain:
                    return answer.client_site.lower()
        return ""

    def is_of_closest(self) -> bool:
        """Return whether there are controllers, and all serve this host's site."""
        found = self.controllers()
        return bool(found) and all(controller.is_closest for controller in found)

    def controllers(self) -> list[DomainController]:
        """Return the hosts that take connections, and do not say that they cannot serve."""
        return [dc for host in self.hosts if (dc := self._controller(host)) is not None]

    def failure(self) -> UnreachableError:
        """Return why there are none."""
        refusals = {
            host: refusal
            for host in self.hosts
            if (refusal := self._refusal(host))
            and any(s.takes_tcp for s in self._of(host).values())
        }
        if not refusals:
            return _unreachable(
                self._domain,
                f"no domain controller takes a connection on port {self._port}",
                self.hosts,
            )
        found = ", ".join(f"{host} {refusal}" for host, refusal in refusals.items())
        return UnreachableError.of(
            "dc-unsuitable",
            f"no domain controller that takes a connection can serve: {found}",
            where=f"domain {self._domain}",
            expected="a writable domain controller of the domain, not paused",
            remedy="make one reachable, or remove SRV records that are out of date (Windows: error "
            "1355, the domain cannot be contacted)",
        )

    def _of(self, host: str) -> dict[str, Sight]:
        return {address: self._sights[address] for address in self.hosts[host]}

    def _refusal(self, host: str) -> str:
        return next((s.refusal for s in self._of(host).values() if s.refusal), "")

    def _controller(self, host: str) -> DomainController | None:
        sights = {a: s for a, s in self._of(host).items() if s.takes_tcp and not s.refusal}
        heard = [s.answer for s in sights.values() if s.answer is not None]
        # What one address says holds for those that say nothing.
        if not sights or (self._refusal(host) and not heard):
            return None
        return DomainController(
            host,
            tuple(sights),
            site=next((answer.controller_site for answer in heard), "") or None,
            latency_seconds=min(s.latency_seconds or 0.0 for s in sights.values()),
            is_closest=any(answer.is_closest for answer in heard),
        )


def _unreachable(domain: str, found: str, hosts: Mapping[str, tuple[str, ...]]) -> UnreachableError:
    tried = ", ".join(f"{host} ({a})" for host, addresses in hosts.items() for a in addresses)
    return UnreachableError.of(
        "dc-unreachable",
        f"{found}: {tried or 'hosts without an address'}",
        where=f"domain {domain}",
        remedy="check routes and firewalls, or start a domain controller "
        "(Windows: error 1311, no logon servers)",
    )


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
