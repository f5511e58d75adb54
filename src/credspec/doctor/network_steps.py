"""Steps on the network: DNS, ports of the domain controllers, clocks. None of them logs on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from credspec.directory.clock import MAX_SKEW, read_controller_time
from credspec.directory.connection import Transport
from credspec.directory.controller_probe import answers
from credspec.directory.domain_names import valid_domain
from credspec.directory.locator import DnsResolver, DomainController, Locator, SrvRecord
from credspec.directory.tls_certificates import certificate_problem
from credspec.doctor.step import Finding, Step
from credspec.errors import CredspecError, NotPermittedError, Problem, UnreachableError

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination

_KERBEROS: Final = 88
_OPTIONAL_PORTS: Final = {389: "LDAP", 464: "password change", 636: "LDAPS", 445: "SMB"}
_DOUBTFUL_SKEW: Final = timedelta(seconds=60)
_MAX_CONTROLLERS: Final = 10
_MAX_PROBLEMS: Final = 10


def _dns(examination: Examination) -> Finding:
    """Ask as the agent does: UDP, TCP after a truncated answer."""
    locator = Locator(DnsResolver(), preferences=examination.config.domains)
    controllers = locator.candidates(_domain_of(examination))
    examination.controllers = controllers
    shown = ", ".join(f"{dc.host} ({', '.join(dc.addresses)})" for dc in controllers[:4])
    more = f" and {len(controllers) - 4} more" if len(controllers) > 4 else ""  # noqa: PLR2004
    return Finding(f"{len(controllers)} domain controller(s): {shown}{more}")


def _dns_tcp(examination: Examination) -> Finding:
    """Ask every name server by TCP: answers of a large domain do not fit into a datagram."""
    name = f"_ldap._tcp.dc._msdcs.{_domain_of(examination)}"
    servers = DnsResolver().nameservers()
    silent = [server for server in servers if not _answers_by_tcp(server, name)]
    problem = Problem(
        code="dns-tcp-blocked",
        where="DNS",
        found=f"no answer by TCP from {', '.join(silent)}",
        expected="port 53 open for TCP as for UDP",
        remedy="open it in firewalls: larger answers are cut off and asked again by TCP (Windows: "
        "error 1311 or 1355 from time to time)",
    )
    if silent and len(silent) == len(servers):
        raise UnreachableError(problem)
    text = f"{len(servers) - len(silent)} of {len(servers)} name server(s) answer by TCP"
    return Finding(text, (problem,) if silent else ())


def _answers_by_tcp(server: str, name: str) -> bool:
    try:
        records: Sequence[SrvRecord] = DnsResolver(2, tcp=True, nameserver=server).srv(name)
    except CredspecError:
        return False
    return bool(records)


def _ports(examination: Examination) -> Finding:
    required = {_KERBEROS: "Kerberos", examination.config.transport.port: "LDAP"}
    optional = {port: what for port, what in _OPTIONAL_PORTS.items() if port not in required}
    closed = _closed(examination.controllers, required)
    blocked = {(host.host, address) for host, address, _ in closed}
    examination.controllers = [
        DomainController(controller.host, reachable)
        for controller in examination.controllers
        if (
            reachable := tuple(
                a for a in controller.addresses if (controller.host, a) not in blocked
            )
        )
    ][:_MAX_CONTROLLERS]
    problems = tuple(
        Problem(
            code="dc-port-closed",
            where=f"{controller.host} ({address})",
            found=f"port {port} ({required.get(port)}) takes no connection",
            remedy="start the domain controller, or open the port in firewalls (Windows: error "
            "1311, no logon servers; nltest /sc_verify says 1311 or 1722)",
        )
        for controller, address, port in closed[:_MAX_PROBLEMS]
    )
    if len(closed) > _MAX_PROBLEMS:
        problems += (_more_closed(len(closed) - _MAX_PROBLEMS, _domain_of(examination)),)
    if not examination.controllers:
        raise UnreachableError(*problems)
    unused = sorted({port for _, _, port in _closed(examination.controllers, optional)})
    text = f"{', '.join(str(port) for port in required)} open"
    if unused:
        text += f"; closed, and not needed: {', '.join(f'{p} ({optional[p]})' for p in unused)}"
    return Finding(text, problems)


def _closed(
    controllers: Sequence[DomainController], ports: Iterable[int]
) -> list[tuple[DomainController, str, int]]:
    """Return which ports take no connection, at which address of which controller."""
    pairs = [(c, address, port) for c in controllers for address in c.addresses for port in ports]
    with ThreadPoolExecutor(max_workers=min(64, max(1, len(pairs)))) as pool:
        opened = list(pool.map(lambda pair: answers(pair[1], pair[2]), pairs))
    return [pair for pair, is_open in zip(pairs, opened, strict=True) if not is_open]


def _more_closed(number: int, domain: str) -> Problem:
    return Problem(
        code="dc-port-closed",
        where=f"domain {domain}",
        found=f"{number} more ports of domain controllers take no connection",
        remedy="where this host cannot reach most of them, name those that it can reach, or their "
        f'site, under [domains."{domain}"] in the configuration',
    )


def _certificates(examination: Examination) -> Finding:
    """Make a TLS handshake with each controller; those whose certificate is bad are left out."""
    config = examination.config
    failures = [
        (controller, certificate_problem(controller, config.ca_file))
        for controller in examination.controllers
    ]
    problems = tuple(p for _, error in failures if error is not None for p in error.problems)
    examination.controllers = [controller for controller, error in failures if error is None]
    if not examination.controllers:
        raise UnreachableError(*problems)
    good = len(examination.controllers)
    return Finding(f"{good} of {len(failures)} certificate(s) accepted", problems)


def _clock(examination: Examination) -> Finding:
    """Compare with the first controller that tells: those of a domain keep one time."""
    failure: CredspecError | None = None
    for controller in examination.controllers:
        try:
            theirs = read_controller_time(
                controller, examination.config.transport, ca_file=examination.config.ca_file
            )
        except CredspecError as error:
            failure = failure or error
            continue
        return _skew(controller, theirs, examination.now())
    raise failure or UnreachableError.of("dc-unreachable", "no domain controller", where="clock")


def _skew(controller: DomainController, theirs: datetime, ours: datetime) -> Finding:
    # They tell whole seconds.
    ahead = theirs - ours.replace(microsecond=0)
    seconds = abs(ahead.total_seconds())
    direction = "behind" if ahead > timedelta(0) else "ahead of"
    text = f"{seconds:.0f} s {direction} {controller.host}" if seconds else "no difference"
    problem = Problem(
        code="clock-skew",
        where="clock",
        found=f"this host's clock is {text}",
        expected=f"at most {MAX_SKEW.total_seconds():.0f} s",
        remedy="synchronise the clock with the domain (chrony, systemd-timesyncd; Windows: error "
        "1398)",
    )
    if abs(ahead) > MAX_SKEW:
        raise NotPermittedError(problem)
    return Finding(text, (problem,) if abs(ahead) > _DOUBTFUL_SKEW else ())


def _domain_of(examination: Examination) -> str:
    return valid_domain(examination.domain or "")


def network_steps(transport: Transport) -> tuple[Step, ...]:
    """Return the steps that concern a transport: certificates are only used with LDAPS."""
    return tuple(
        step
        for step in NETWORK_STEPS
        if transport is Transport.LDAPS or step.name != "certificates"
    )


NETWORK_STEPS: Final = (
    Step(name="dns", title="DNS knows the domain's controllers", run=_dns, needs=("spec",)),
    Step(name="dns-tcp", title="DNS answers by TCP", run=_dns_tcp, needs=("spec", "dns")),
    Step(name="dc-ports", title="Domain controllers take connections", run=_ports, needs=("dns",)),
    Step(
        name="certificates",
        title="The controllers' certificates are accepted",
        run=_certificates,
        needs=("dc-ports",),
    ),
    # With LDAPS, the clock is read over it.
    Step(name="clock", title="Clocks agree", run=_clock, needs=("dc-ports", "certificates")),
)
