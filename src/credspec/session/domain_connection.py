"""The connection of one domain: located controllers, a logon at one of them, and its facts.

Everything here blocks and is called from the domain's own worker threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from credspec.directory.accounts import reader_of
from credspec.directory.connection import Connection, Transport
from credspec.directory.controller_probe import answers
from credspec.directory.domain import DomainFacts, read_domain_facts
from credspec.directory.locator import DomainController, Locator, valid_domain
from credspec.errors import (
    CredspecError,
    NotPermittedError,
    PermanentFaultError,
    Step,
    UnreachableError,
    during,
)
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_ticket import realms_of_service
from credspec.kerberos.ticket_life import lasts
from credspec.kerberos.tickets import Ticket
from credspec.session.host_identity import HostIdentity
from credspec.session.keytab_principal import with_guess

_T = TypeVar("_T")
_TICKET_IS_NEW: Final = timedelta(minutes=1)
# A controller ends the connections of logons that have expired.
_LOG_ON_BEFORE_END: Final = timedelta(minutes=1)
_LOGON_SECONDS: Final = 10.0
# For one that takes connections but did not answer the ping, while there is another to ask.
_SILENT_LOGON_SECONDS: Final = 3.0
_KERBEROS_PORT: Final = 88


class _LogonError(Exception):
    """No controller took the logon; `failure` says why the first did not.

    With `with_held_ticket` one refused a ticket that was not obtained for this logon.
    """

    def __init__(self, failure: CredspecError, *, with_held_ticket: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.with_held_ticket = with_held_ticket


class DomainConnection:
    """Locates controllers, logs on, holds the connection and fails over.

    `krb5_conf` is what libkrb5 reads in this process; it learns the controllers that answered, so
    that the KDCs asked are the same. `logons` is how often a controller took a logon, `latency` how
    many seconds the last password took on the connection that is held.
    """

    def __init__(
        self,
        domain: str,
        *,
        host_identity: HostIdentity,
        locator: Locator,
        transport: Transport,
        ca_file: Path | None,
        krb5_conf: AgentKrb5Conf | None,
        now: Callable[[], datetime],
    ) -> None:
        self.domain = valid_domain(domain)
        self.controllers: Sequence[DomainController] = ()
        self.controller: DomainController | None = None
        self.latency: float | None = None
        self.logons = 0
        self._host_identity = host_identity
        self._locator = locator
        self._transport = transport
        self._ca_file = ca_file
        self._krb5_conf = krb5_conf
        self._now = now
        # A connection serves one search at a time.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._overwrite: Callable[[], None] | None = None
        # With what the connection was logged on, and what was held then.
        self._logon: Ticket | None = None
        self._known_tickets: dict[str, Ticket] = {}
        self._facts: DomainFacts | None = None

    @property
    def known_facts(self) -> DomainFacts | None:
        """The domain's facts if it was reached before; what a domain is hardly ever changes."""
        return self._facts

    def facts(self) -> DomainFacts:
        """Return the domain's facts; raises as `use`."""
        return self._facts or self.use(lambda _, facts: facts)

    def read_facts(self) -> DomainFacts:
        """Ask for the domain's facts again; raises as `use`."""

        def read(connection: Connection, _: DomainFacts) -> DomainFacts:
            self._facts = read_domain_facts(connection, self.domain)
            return self._facts

        return self.use(read)

    def use(self, use: Callable[[Connection, DomainFacts], _T]) -> _T:
        """Return what `use` returns of the connection and the domain's facts.

        A held connection that fails is made again once.

        Raises:
            UnreachableError, NotPermittedError: as the locator, the host identity and the
                connection raise them.
            CredspecError: what `use` raises.
        """
        with self._lock:
            held = self._connection is not None and self._is_logged_on()
            try:
                return use(*self._connected())
            except CredspecError as error:
                may_be_old = isinstance(error, UnreachableError | PermanentFaultError)
                if not may_be_old and type(error) is not CredspecError:
                    raise  # the directory's own answer, whatever the connection's age
                self._drop_connection()
                if not held:
                    raise
            # A held connection may have died with its controller, or its logon may have expired:
            # once more, with a new one.
            return use(*self._connected())

    def reconnect(self) -> None:
        """Locate controllers again and log on at one of them; raises as `use`."""
        with self._lock:
            self._drop_connection()
            self._connected()

    def follow_controllers(self) -> tuple[str, ...]:
        """Return the addresses of controllers for clients to get tickets from.

        Those known stay while each takes connections; else controllers are located again, also for
        this process's own krb5.conf. Raises as `Locator.locate`.
        """
        known = tuple(a for dc in self.controllers for a in dc.addresses)
        if known and _answering(known) == known:
            return known
        site = next((dc.site for dc in self.controllers if dc.is_closest), None)
        located = self._locator.locate(self.domain, port=self._transport.port, site=site)
        addresses = tuple(a for dc in located for a in dc.addresses)
        alive = _answering(addresses)
        # With none of them, the port may be one that only this host cannot reach.
        self.controllers = [
            replace(dc, addresses=kept)
            for dc in located
            if (kept := tuple(a for a in dc.addresses if not alive or a in alive))
        ]
        self._tell_kdcs(self.domain, self.controllers)
        return tuple(a for dc in self.controllers for a in dc.addresses)

    def taking_connections(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the controllers' addresses, and those that take connections for Kerberos now."""
        addresses = tuple(a for dc in self.controllers for a in dc.addresses)
        return addresses, _answering(addresses) if addresses else ()

    def overwrite_later(self, connection: Connection) -> None:
        """Ask the domain for an answer that will take the last one's place in memory.

        To be called where a connection is in use; what comes is waited for by `overwrite_now`,
        or before the next search of this kind by `overwrite_first`.
        """
        self._overwrite = connection.overwrite_last_answer()

    def overwrite_first(self) -> None:
        """Wait for the answer that `overwrite_later` asked for, where a connection is in use."""
        if self._overwrite is not None:
            self._overwrite()
            self._overwrite = None

    def overwrite_now(self) -> None:
        """Overwrite what libraries keep of the last answer."""
        with self._lock:
            if self._connection is None:
                return
            try:
                (self._overwrite or self._connection.overwrite_last_answer())()
                self._overwrite = None
            except CredspecError:
                # What is freed is overwritten, too.
                self._drop_connection()

    @property
    def guess(self) -> str:
        """Which principal was guessed to be the host, empty if that was no guess."""
        return str(getattr(self._host_identity, "guess", ""))

    @property
    def reader(self) -> str:
        """Which principal is logged on, empty if it is the host's own."""
        principal = "" if self._logon is None else self._logon.principal
        return principal if reader_of(principal) or self._is_provided else ""

    @property
    def _is_provided(self) -> bool:
        return bool(getattr(self._host_identity, "is_provided", False))

    def was_logged_on_long_ago(self) -> bool:
        """Return whether the host's groups may be others than when it logged on."""
        # A clock that was set back makes the ticket one of the future, which is not new either.
        return self._logon is None or abs(self._now() - self._logon.start) > _TICKET_IS_NEW

    def _is_logged_on(self) -> bool:
        return self._logon is not None and lasts(
            self._logon.start, self._logon.end, self._now(), _LOG_ON_BEFORE_END
        )

    def forget_logon(self) -> None:
        """Let the next call log on afresh: drop the connection, tickets, and what was given."""
        with self._lock:
            self._host_identity.forget()
            self._drop_connection()

    def close(self) -> None:
        """Close the connection, if there is one and nobody waits for an answer on it."""
        if self._lock.acquire(blocking=False):
            try:
                self._drop_connection()
                self._host_identity.close()
            finally:
                self._lock.release()

    def _connected(self) -> tuple[Connection, DomainFacts]:
        if self._connection is not None and self._facts is not None:
            if self._is_logged_on():
                return self._connection, self._facts
            self._drop_connection()
        # Where the controllers of this host's site were is where to look first.
        site = next((dc.site for dc in self.controllers if dc.is_closest), None)
        self.controllers = self._locator.locate(self.domain, port=self._transport.port, site=site)
        self._tell_kdcs(self.domain, self.controllers)
        with during(Step.HOST_LOGON):
            home = self._host_identity.domain
        if home != self.domain:
            # The path to a trusted domain leads through the host's own.
            self._tell_kdcs(home, self._locator.locate(home))
        try:
            return self._log_on()
        except _LogonError as error:
            # Group memberships or keys may have changed since the host's ticket was made.
            self._host_identity.forget()
            if not error.with_held_ticket:
                raise with_guess(error.failure, self.guess) from None
        try:
            return self._log_on()
        except _LogonError as error:
            self._host_identity.forget()
            raise with_guess(error.failure, self.guess) from None

    def _log_on(self) -> tuple[Connection, DomainFacts]:
        """Log on at the first controller that takes it, with the host's tickets as they are."""
        failure: CredspecError | None = None
        with_held_ticket = False
        for controller in self.controllers:
            # Any controller's KDC gives it: if none does, the next controller's name helps no more.
            service = f"ldap/{controller.host}"
            with during(Step.HOST_LOGON):
                ticket = self._host_identity.get_service_ticket(service)
            is_held = self._known_tickets.get(service) is ticket
            self._known_tickets[service] = ticket
            try:
                connection = Connection.open(
                    controller,
                    self._transport,
                    ca_file=self._ca_file,
                    ccache=self._host_identity.cache,
                    seconds=self._logon_seconds(controller),
                )
            except CredspecError as error:
                failure = failure or error
                with_held_ticket |= is_held and not isinstance(error, UnreachableError)
                continue
            try:
                facts = read_domain_facts(connection, self.domain)
                self._check_realm(service)
            except CredspecError as error:
                connection.close()
                failure = failure or error
                continue
            self._facts = facts
            self._connection, self.controller, self._logon = connection, controller, ticket
            self.logons += 1
            return connection, self._facts
        assert failure is not None  # noqa: S101 - narrows for the type checker
        raise _LogonError(failure, with_held_ticket=with_held_ticket)

    def _logon_seconds(self, controller: DomainController) -> float:
        is_last = controller == self.controllers[-1]
        return _LOGON_SECONDS if is_last or not controller.is_silent else _SILENT_LOGON_SECONDS

    def _check_realm(self, service: str) -> None:
        """Refuse a controller that the KDCs know as a member of another domain."""
        realms = realms_of_service(self._host_identity.cache, service)
        if realms and self.domain.upper() not in realms:
            raise NotPermittedError.of(
                "domain-controller-other-realm",
                f"the ticket of {service} is of the realm {' and '.join(sorted(realms))}",
                where=f"domain {self.domain}",
                expected=self.domain.upper(),
                remedy=f"check the DNS records _ldap._tcp.dc._msdcs.{self.domain}: they name a "
                "host of another domain",
            )

    def _tell_kdcs(self, domain: str, controllers: Sequence[DomainController]) -> None:
        if self._krb5_conf is not None:
            addresses = [address for dc in controllers for address in dc.addresses]
            self._krb5_conf.set_kdcs(domain.upper(), addresses)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self.controller = self.latency = self._overwrite = None


def _answering(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return those of the addresses that take connections for Kerberos."""
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(addresses)))) as pool:
        taken = list(pool.map(lambda address: answers(address, _KERBEROS_PORT), addresses))
    return tuple(a for a, is_taken in zip(addresses, taken, strict=True) if is_taken)
