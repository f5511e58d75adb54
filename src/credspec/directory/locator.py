"""Domain controllers of a domain, found by DNS SRV records (MS-ADTS 6.3.6, RFC 2782).

DNS names them, the LDAP ping (MS-ADTS 6.3.3) tells which are near and fit, and a TCP connection
which are there, so that a dead one costs a short deadline and not the long ones of the libraries
behind. The order is that of the host's site first, then RFC 2782's: lowest priority first, weighted
at random within one; those that do not answer the ping come last. The ping is not authenticated: it
orders and filters what DNS has named.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import Key, Kind, NotTakenError, Table
from credspec.directory.controller_probe import (
    Ping,
    Probe,
    ProbeResult,
    answers,
    exchange_datagrams,
    probe_addresses,
)
from credspec.directory.dns_resolver import DnsResolver, Resolver, SrvRecord
from credspec.errors import UnreachableError, UsageError

__all__ = [
    "LDAPS_PORT",
    "LDAP_PORT",
    "ControllerPreference",
    "DnsResolver",
    "DomainController",
    "Locator",
    "Resolver",
    "SrvRecord",
    "dns_name",
    "order_by_preference",
    "valid_domain",
]

LDAP_PORT: Final = 389
LDAPS_PORT: Final = 636

_BATCH: Final = 16
# Less than the agent's deadline for all that a request needs of a domain.
_LOCATE_SECONDS: Final = 20.0
_SHOWN: Final = 8
_MAX_ADDRESSES: Final = 4
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DomainController:
    """A domain controller: its DNS `host` name and its `addresses`, IPv4 or IPv6 in text form.

    The rest is how it was seen, and no part of what it is, so does not count in comparisons: its
    own Active Directory `site`, the time of its first answer by UDP or TCP, whether it serves this
    host's site, and whether it `is_silent`: it takes connections, but did not answer the ping.
    """

    host: str
    addresses: tuple[str, ...]
    site: str | None = field(default=None, compare=False)
    latency_seconds: float | None = field(default=None, compare=False)
    is_closest: bool = field(default=False, compare=False)
    is_silent: bool = field(default=False, compare=False)


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


_SITE: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_EXAMPLE: Final = "DNS names of domain controllers, such as dc1.contoso.com"


def dns_name(name: object) -> str | None:
    """Return a DNS name of several labels in lower case, None if it is not one."""
    if not isinstance(name, str) or "." not in name.strip("."):
        return None
    try:
        return valid_domain(name)
    except UsageError:
        return None


def _controllers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise NotTakenError((value, f"a list of {_EXAMPLE}"))
    names = [dns_name(each) for each in value]
    wrong = [(each, _EXAMPLE) for each, name in zip(value, names, strict=True) if name is None]
    if wrong:
        raise NotTakenError(*wrong)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _site(value: Any) -> str:
    if not isinstance(value, str) or not _SITE.fullmatch(value):
        raise NotTakenError((value, _SITE_KIND.takes))
    return value


_SITE_KIND: Final = Kind("the name of an Active Directory site, such as Berlin", _site)


@dataclass(frozen=True, slots=True)
class ControllerPreference:
    """What an administrator says of a domain's controllers, for networks that DNS does not know.

    `controllers` are DNS names, asked before all others in this order. `site` is the Active
    Directory site whose controllers are asked next, whatever site the domain finds for this host.
    """

    table: ClassVar = Table(
        'domains."contoso.com"',
        "Which domain controllers to prefer; one table for each domain that needs one, by its DNS "
        "name.",
    )

    controllers: Annotated[
        tuple[str, ...],
        Key(
            kind=Kind(f"a list of {_EXAMPLE}", _controllers),
            meaning="Domain controllers that are tried first, in this order.",
            default="DNS decides",
        ),
    ] = ()
    site: Annotated[
        str | None,
        Key(
            kind=_SITE_KIND,
            meaning="The Active Directory site whose domain controllers are preferred.",
            default="the site that the domain finds for this host",
        ),
    ] = None


_NO_PREFERENCE: Final = ControllerPreference()


@dataclass(frozen=True, slots=True)
class Locator:
    """Finds the domain controllers of a domain; DNS, chance, probe and ping can be replaced.

    `preferences` are by DNS name of the domain, in lower case.
    """

    resolver: Resolver
    choose: Callable[[int, int], int] = random.SystemRandom().randint
    probe: Probe = answers
    ping: Ping = exchange_datagrams
    preferences: Mapping[str, ControllerPreference] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic

    def candidates(self, domain: str) -> list[DomainController]:
        """Return the preferred controllers and those that DNS names, asking none of them.

        They are by priority and weight.

        Raises:
            UsageError: `domain-name-invalid`.
            UnreachableError: `dns-unreachable`; `domain-not-found` if DNS knows no controller;
                `dc-unreachable` if none of them has an address.
        """
        domain = valid_domain(domain)
        wanted = self.preferences.get(domain, _NO_PREFERENCE)
        records = _records_of(wanted.controllers)
        try:
            records += [*self._of_site(domain, wanted.site), *self._of_domain(domain)]
        except UnreachableError:
            if not records:
                raise
        hosts = list(dict.fromkeys(record.target for record in records))
        addresses = self._addresses(hosts)
        found = [DomainController(host, known) for host, known in addresses.items() if known]
        if not found:
            raise _unreachable(domain, "no domain controller has an address", addresses)
        return found

    def locate(
        self,
        domain: str,
        *,
        port: int = LDAP_PORT,
        site: str | None = None,
        seconds: float = _LOCATE_SECONDS,
    ) -> list[DomainController]:
        """Return the domain controllers of `domain` that take TCP on `port`, best first.

        `site` is the Active Directory site that this host was in before, if known; the answers
        correct it. Each controller has only the addresses that took a connection. Those that say
        that they are paused, read-only or of another domain are left out; those that say nothing,
        where UDP is filtered, are not, but stand last: a controller that hangs takes connections.

        Controllers are asked in batches, 16 at a time, until one of them can serve, all have been
        asked, or so many `seconds` are over. A batch takes the deadlines of DNS and at most 1.5
        seconds; the controllers of the host's site are asked once more if DNS names others there.

        Raises:
            UsageError: `domain-name-invalid`.
            UnreachableError: `dns-unreachable`; `domain-not-found` if DNS knows no controller;
                `dc-unreachable` if none accepts a connection; `dc-unsuitable` if all that do say
                that they cannot serve.
        """
        domain = valid_domain(domain)
        wanted = self.preferences.get(domain, _NO_PREFERENCE)
        end = self.now() + seconds
        probed = _ProbedControllers(domain, port, self.ping, self.probe)
        preferred = _records_of(wanted.controllers)
        self._probe_hosts(probed, preferred, end)
        near: list[SrvRecord] = []
        everywhere: list[SrvRecord] = []
        if not probed.controllers():
            try:
                near, everywhere = self._probe_where_dns_says(probed, domain, wanted, site, end)
            except UnreachableError:
                if probed.hosts:
                    raise probed.failure() from None
                raise
        found = probed.controllers()
        if not found:
            raise probed.failure()
        # Each SRV name is a candidate list of its own: the site's goes first, priorities order
        # within a list, and closeness only within a priority (MS-ADTS 6.3.6, RFC 2782).
        ranks = _ranks(preferred, near, everywhere)
        return sorted(found, key=lambda dc: ranks.get(dc.host, _LAST).preference(dc))

    def _probe_where_dns_says(
        self,
        probed: _ProbedControllers,
        domain: str,
        wanted: ControllerPreference,
        site: str | None,
        end: float,
    ) -> tuple[list[SrvRecord], list[SrvRecord]]:
        """Ask the controllers of the site and of the domain; return what DNS says of both."""
        if wanted.site is not None:
            near = self._of_site(domain, wanted.site)
            self._probe_hosts(probed, near, end)
            if probed.controllers():
                return near, []
            everywhere = self._of_domain(domain)
            self._probe_hosts(probed, everywhere, end)
            return near, everywhere
        everywhere = self._of_domain(domain)
        near = self._of_site(domain, site)
        self._probe_hosts(probed, [*near, *everywhere], end)
        actual = probed.client_site()
        if actual and actual != (site or "").lower() and not probed.is_of_closest():
            near = self._of_site(domain, actual)
            self._probe_hosts(probed, near, end)
        return near, everywhere

    def _probe_hosts(
        self, probed: _ProbedControllers, records: Iterable[SrvRecord], end: float
    ) -> None:
        """Ask the hosts of `records` in batches, until one of them can serve."""
        hosts = [h for h in dict.fromkeys(r.target for r in records) if h not in probed.hosts]
        for first in range(0, len(hosts), _BATCH):
            batch = hosts[first : first + _BATCH]
            if first and self.now() >= end:
                probed.not_asked += hosts[first:]
                return
            probed.probe(self._addresses(batch, may_all_fail=bool(probed.hosts)))
            if any(controller.host in batch for controller in probed.controllers()):
                return

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
        self, hosts: Sequence[str], *, may_all_fail: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """Resolve hosts, all at once; those that DNS does not answer for have no address.

        Raises:
            UnreachableError: `dns-unreachable` if DNS answers for none, unless that may be.
        """
        if len(hosts) == 1:
            found = [self._addresses_or_error(hosts[0])]
        else:
            with ThreadPoolExecutor(max_workers=_BATCH) as pool:
                found = list(pool.map(self._addresses_or_error, hosts))
        failures = [f for f in found if isinstance(f, UnreachableError)]
        if failures and len(failures) == len(found) and not may_all_fail:
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

    def preference(self, controller: DomainController) -> tuple[bool, int, int, bool, int]:
        is_far = not controller.is_closest
        return controller.is_silent, self.tier, self.priority, is_far, self.position


_LAST: Final = _Rank(3, 0, 0)


def _records_of(hosts: Iterable[str]) -> list[SrvRecord]:
    """Return records in the order of these hosts."""
    return [SrvRecord(number, 0, 0, host.lower()) for number, host in enumerate(hosts)]


def _ranks(*lists: Sequence[SrvRecord]) -> dict[str, _Rank]:
    ranks: dict[str, _Rank] = {}
    for tier, records in enumerate(lists):
        for position, record in enumerate(records):
            ranks.setdefault(record.target, _Rank(tier, record.priority, position))
    return ranks


class _ProbedControllers:
    """What was seen of the controllers of one domain."""

    def __init__(self, domain: str, port: int, ping: Ping, probe: Probe) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.not_asked: list[str] = []
        self._domain = domain
        self._port = port
        self._ping = ping
        self._probe = probe
        self._results: dict[str, ProbeResult] = {}

    def probe(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        self.hosts |= hosts
        self._results |= probe_addresses(
            {a for addresses in hosts.values() for a in addresses if a not in self._results},
            domain=self._domain,
            port=self._port,
            ping=self._ping,
            probe=self._probe,
        )

    def client_site(self) -> str:
        """Return this host's site in lower case as a controller of the domain sees it, or none."""
        for host in self.hosts:
            for result in self._of(host).values():
                answer = result.answer
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
                f"no domain controller accepts a connection on port {self._port}",
                self.hosts,
                len(self.not_asked),
            )
        found = ", ".join(f"{host} {refusal}" for host, refusal in refusals.items())
        return UnreachableError.of(
            "dc-unsuitable",
            f"no domain controller that accepts a connection can serve: {found}",
            where=f"domain {self._domain}",
            expected="a writable domain controller of the domain, not paused",
            remedy="make one reachable, or remove SRV records that are out of date (Windows: error "
            "1355, the domain cannot be contacted)",
        )

    def _of(self, host: str) -> dict[str, ProbeResult]:
        return {address: self._results[address] for address in self.hosts[host]}

    def _refusal(self, host: str) -> str:
        return next((s.refusal for s in self._of(host).values() if s.refusal), "")

    def _controller(self, host: str) -> DomainController | None:
        results = {a: s for a, s in self._of(host).items() if s.takes_tcp and not s.refusal}
        heard = [s.answer for s in results.values() if s.answer is not None]
        # What one address says holds for those that say nothing.
        if not results or (self._refusal(host) and not heard):
            return None
        return DomainController(
            host,
            tuple(results),
            site=next((answer.controller_site for answer in heard), "") or None,
            latency_seconds=min(s.latency_seconds or 0.0 for s in results.values()),
            is_closest=any(answer.is_closest for answer in heard),
            is_silent=not heard,
        )


def _unreachable(
    domain: str, found: str, hosts: Mapping[str, tuple[str, ...]], not_asked: int = 0
) -> UnreachableError:
    names = [
        text
        for host, addresses in hosts.items()
        for text in [f"{host} ({a})" for a in addresses] or [f"{host} without an address"]
    ]
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    left = f"; the time was over before {not_asked} more were asked" if not_asked else ""
    return UnreachableError.of(
        "dc-unreachable",
        f"{found}: {shown}{more}{left}",
        where=f"domain {domain}",
        remedy="check routes and firewalls, or start a domain controller (Windows: error 1311, no "
        f'logon servers); where only some are reachable, name them or their site under [domains."'
        f'{domain}"] in the configuration',
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
