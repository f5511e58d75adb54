"""What the controllers of a domain answered to the ping and to a TCP connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from credspec.directory.controller_probe import Ping, Probe, ProbeResult, probe_addresses
from credspec.errors import UnreachableError

_SHOWN: Final = 8


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


class ProbedControllers:
    """What was seen of the controllers of one domain.

    `hosts` are those that were asked, with their addresses; `not_asked` those for
    which time was short.
    """

    def __init__(self, domain: str, port: int, ping: Ping, probe: Probe) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.not_asked: list[str] = []
        self._domain = domain
        self._port = port
        self._ping = ping
        self._probe = probe
        self._results: dict[str, ProbeResult] = {}

    def probe(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        """Ask hosts by UDP and TCP, all their addresses at once; takes at most 1.5 seconds."""
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
            return unreachable(
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


def unreachable(
    domain: str, found: str, hosts: Mapping[str, tuple[str, ...]], not_asked: int = 0
) -> UnreachableError:
    """Return the error of a domain of which these hosts were tried: `dc-unreachable`."""
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
