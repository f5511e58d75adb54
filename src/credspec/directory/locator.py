"""Domain controllers of a domain, found by DNS SRV records (MS-ADTS 6.3.6, RFC 2782).

DNS names them, the LDAP ping (MS-ADTS 6.3.3) tells which are near and fit, and a TCP connection
which are there, so that a dead one costs a short deadline and not the long ones of the libraries
behind. The order is that of the host's site first, then RFC 2782's: lowest priority first, weighted
at random within one; those that do not answer the ping come last. The ping is not authenticated: it
orders and filters what DNS has named.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from credspec.directory.controller_preference import ControllerPreference
from credspec.directory.controller_probe import Ping, Probe, answers, exchange_datagrams
from credspec.directory.dns_resolver import DnsResolver, Resolver, SrvRecord
from credspec.directory.domain_names import DNS_NAME, valid_domain
from credspec.directory.probed_controllers import DomainController, ProbedControllers, unreachable
from credspec.errors import UnreachableError

__all__ = [
    "LDAPS_PORT",
    "LDAP_PORT",
    "DnsResolver",
    "DomainController",
    "Locator",
    "Resolver",
    "SrvRecord",
    "order_by_preference",
]

LDAP_PORT: Final = 389
LDAPS_PORT: Final = 636

_BATCH: Final = 16
# Less than the agent's deadline for all that a request needs of a domain.
_LOCATE_SECONDS: Final = 20.0
_MAX_ADDRESSES: Final = 4


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
            raise unreachable(domain, "no domain controller has an address", addresses)
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
        probed = ProbedControllers(domain, port, self.ping, self.probe)
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
        probed: ProbedControllers,
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
        self, probed: ProbedControllers, records: Iterable[SrvRecord], end: float
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
        if site is None or "." in site or not DNS_NAME.fullmatch(site):
            return []
        try:
            return self._records(f"_ldap._tcp.{site.lower()}._sites.dc._msdcs.{domain}")
        except UnreachableError:
            return []

    def _records(self, name: str) -> list[SrvRecord]:
        # A target that is the root says that there is no such service (RFC 2782).
        usable = [
            r._replace(target=r.target.lower())
            for r in self.resolver.srv(name)
            if DNS_NAME.fullmatch(r.target)
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


class _Rank(NamedTuple):
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
