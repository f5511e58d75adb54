"""One domain as this host talks to it: located controllers, a held connection, its facts.

Everything here blocks and is called from the domain's own worker threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from credspec.directory.accounts import (
    GroupManagedServiceAccount,
    PasswordNotPermittedError,
    find_account,
    read_key_version,
    read_managed_password,
    reader_of,
)
from credspec.directory.connection import Connection, Transport
from credspec.directory.controller_probe import answers
from credspec.directory.domain import DomainFacts, read_domain_facts, read_trusted_domain
from credspec.directory.locator import DomainController, Locator, valid_domain
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import (
    CredspecError,
    NotFoundError,
    NotPermittedError,
    Step,
    UnreachableError,
    during,
)
from credspec.kerberos.kdc_errors import KdcUnreachableError, PolicyRefusedError
from credspec.kerberos.keytab import account_keytab
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_ticket import realms_of_service
from credspec.kerberos.ticket_life import lasts
from credspec.kerberos.tickets import Ticket, ticket_from_managed_password
from credspec.session.host_identity import HOST_CACHE, HostIdentity
from credspec.session.keytab_principal import with_guess
from credspec.session.known_salts import KnownSalts

_T = TypeVar("_T")
_TICKET_IS_NEW: Final = timedelta(minutes=1)
# A controller ends the connections of logons that have expired.
_LOG_ON_BEFORE_END: Final = timedelta(minutes=1)
_NAME_SECONDS: Final = 600.0
_KERBEROS_PORT: Final = 88
_KEY_VERSION_ATTEMPTS: Final = 3
_SOONEST_KEYTAB: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What one acquisition brought: a ticket, and when the password is to be asked for again.

    The password itself is forgotten as soon as the ticket is there. `keytab` is the content of a
    keytab file, if one was wanted, and `keytab_due` when the domain will have the next password to
    make another one of, up to five minutes before services need it.
    """

    account_name: str
    ticket: Ticket
    password_due: datetime
    keytab: bytes | None = field(default=None, repr=False)
    keytab_due: datetime | None = None


class _LogonError(Exception):
    """No controller took the logon; `failure` says why the first did not.

    With `with_held_ticket` one refused a ticket that was not obtained for this logon.
    """

    def __init__(self, failure: CredspecError, *, with_held_ticket: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.with_held_ticket = with_held_ticket


class DomainSession:
    """Locates controllers, logs on, holds the connection and fails over.

    `krb5_conf` is what libkrb5 reads in this process; it learns the controllers that answered, so
    that the KDCs asked are the same.
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.domain = valid_domain(domain)
        self.controllers: Sequence[DomainController] = ()
        self.controller: DomainController | None = None
        self.latency: float | None = None
        self.reads = 0
        self._host_identity = host_identity
        self._locator = locator
        self._transport = transport
        self._ca_file = ca_file
        self._krb5_conf = krb5_conf
        self._now = now
        # A connection serves one search at a time.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._at_work_lock = threading.Lock()
        self._at_work = 0
        self._overwriting: Callable[[], None] | None = None
        # With what the connection was logged on, how often that was done, and what was held then.
        self._logon: Ticket | None = None
        self._logons = 0
        self._known_tickets: dict[str, Ticket] = {}
        self._facts: DomainFacts | None = None
        self._domains_named: dict[str, tuple[str, float]] = {}
        self._needs_armor = False
        self._salts = KnownSalts()

    def facts(self) -> DomainFacts:
        """Return the domain's facts.

        Raises:
            UnreachableError, NotPermittedError: as the locator, the host identity and the
                connection raise them.
        """
        return self._facts or self._with_connection(lambda _, facts: facts)

    @property
    def known_facts(self) -> DomainFacts | None:
        """The domain's facts if it was reached before; what a domain is hardly ever changes."""
        return self._facts

    def read_facts(self) -> DomainFacts:
        """Ask for the domain's facts again; raises as `facts`."""

        def read(connection: Connection, _: DomainFacts) -> DomainFacts:
            self._facts = read_domain_facts(connection, self.domain)
            return self._facts

        return self._with_connection(read)

    def find(self, account: str) -> GroupManagedServiceAccount:
        """Find an account of this domain; raises as `find_account`."""
        return self._with_connection(lambda c, facts: find_account(c, facts, account))

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

    def domain_named(self, name: str) -> str:
        """Return the DNS name in lower case of a domain that a spec of this one names.

        `name` is a DNS name, or the NetBIOS name of this domain or of one that it trusts. Of the
        latter the domain itself must say the same: see `check_netbios_name`.

        Raises:
            UsageError: `domain-name-invalid`.
            NotFoundError: `domain-not-trusted`.
            CredspecError: as `read_trusted_domain`.
        """
        if "." in name:
            return valid_domain(name)
        facts, wanted = self.facts(), name.lower()
        if wanted == facts.netbios_name.lower():
            return facts.dns_name
        known, asked = self._domains_named.get(wanted, (None, 0.0))
        if known is not None and time.monotonic() - asked < _NAME_SECONDS:
            return known
        try:
            found = self._with_connection(lambda c, facts: read_trusted_domain(c, facts, name))
        except UnreachableError:
            # Trusts hardly ever change, and leases of what is held need no answer.
            if known is None:
                raise
            return known
        if found is None:
            raise NotFoundError.of(
                "domain-not-trusted",
                f"{facts.dns_name} knows no trusted domain with the NetBIOS name {name[:80]!r}",
                where=f"domain {name[:80]}",
                remedy="give its DNS name, and check that a trust exists between the domains",
            )
        self._domains_named[wanted] = found, time.monotonic()
        return found

    def acquire(self, account: str) -> Acquisition:
        """Read an account's managed password and get its ticket.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        with self._overwriting_last_answer():
            logons = self._logons
            name, realm, password = self._read_password(account)
            due = self._now() + password.query_interval
            return Acquisition(name, self._ticket(name, realm, password, logons), due)

    def acquire_with_keytab(self, account: str) -> Acquisition:
        """Acquire an account, and make a keytab of the same password.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        with self._overwriting_last_answer():
            logons = self._logons
            entry, realm, password, version = self._permitted(
                lambda connection, facts: self._read_with_version(connection, facts, account)
            )
            now = self._now()
            name = entry.account_name
            acquired = Acquisition(
                name,
                self._ticket(name, realm, password, logons),
                now + password.query_interval,
            )
            salts = self._salts.of_versions(name, version)
            return replace(
                acquired,
                keytab=account_keytab(entry, realm, password, version, made=now, salts=salts),
                keytab_due=now + max(password.unchanged_interval, _SOONEST_KEYTAB),
            )

    def _ticket(self, name: str, realm: str, password: ManagedPassword, logons: int) -> Ticket:
        """Get an account's ticket; `logons` is `_logons` from before its password was read."""
        with during(Step.ACCOUNT):
            try:
                return self._armored_ticket(name, realm, password)
            except UnreachableError as error:
                if logons != self._logons:
                    # The controllers were located just now.
                    raise self._looked_at(error) from None
        # Those that were located when the held connection was made may have moved or gone.
        with self._lock:
            self._drop_connection()
            self._connected()
        with during(Step.ACCOUNT):
            try:
                return self._armored_ticket(name, realm, password)
            except UnreachableError as error:
                raise self._looked_at(error) from None

    def _looked_at(self, error: UnreachableError) -> UnreachableError:
        """Say whether the KDCs take connections: only then the network path is not at fault."""
        addresses = tuple(a for dc in self.controllers for a in dc.addresses)
        if not isinstance(error, KdcUnreachableError) or not addresses:
            return error
        taking = _answering(addresses)
        found = f"{len(taking)} of {len(addresses)} addresses take connections on port 88 now"
        remedy = (
            "the network path is open: look at the logs of the domain controllers"
            if taking
            else "check that the domain controllers run, and the network path to them (TCP 88)"
        )
        first, *others = error.problems
        return error.with_problems(
            (first._replace(found=f"{first.found}; {found}", remedy=remedy), *others)
        )

    def _armored_ticket(self, name: str, realm: str, password: ManagedPassword) -> Ticket:
        """Get an account's ticket, armoured with the host's TGT where there is one or must be."""
        identity = self._host_identity
        # The agent's process has its default cache by this variable, and so has a caller of kinit.
        cache = identity.cache or os.environ.get("KRB5CCNAME", HOST_CACHE)
        if self._needs_armor:
            self._log_host_on()
        is_armored = self._needs_armor or bool(getattr(identity, "has_tgt", False))
        try:
            return self._salted_ticket(name, realm, password, cache if is_armored else None)
        except PolicyRefusedError:
            if is_armored:
                raise
        # Policies may ask from which host a logon comes, which only armour shows.
        self._log_host_on()
        ticket = self._salted_ticket(name, realm, password, cache)
        self._needs_armor = True
        return ticket

    def _log_host_on(self) -> None:
        with during(Step.HOST_LOGON):
            self._host_identity.log_on()

    def _salted_ticket(
        self, name: str, realm: str, password: ManagedPassword, armor: str | None
    ) -> Ticket:
        """Get an account's ticket, with the salt that the KDC took last time if it is known."""
        known = self._salts.last(name)
        arguments = (name, realm, password) if known is None else (name, realm, password, known)
        ticket = ticket_from_managed_password(*arguments, armor=armor)
        if ticket.salt is not None:
            self._salts.took(name, ticket.salt)
        return ticket

    def _read_with_version(
        self, connection: Connection, facts: DomainFacts, account: str
    ) -> tuple[GroupManagedServiceAccount, str, ManagedPassword, int]:
        version = read_key_version(connection, find_account(connection, facts, account))
        for _ in range(_KEY_VERSION_ATTEMPTS):
            entry, password = self._read(connection, facts, account)
            # A rollover in between would give the old keys the new number.
            before, version = version, read_key_version(connection, entry)
            if before == version:
                return entry, facts.realm, password, version
        raise CredspecError.of(
            "key-version-unstable",
            "msDS-KeyVersionNumber is another one at each look",
            where=f"account {account}",
            remedy="the domain controller keeps changing the password: look at its log",
        )

    def _read(
        self, connection: Connection, facts: DomainFacts, account: str
    ) -> tuple[GroupManagedServiceAccount, ManagedPassword]:
        if self._overwriting is not None:
            self._overwriting()
            self._overwriting = None
        started = time.monotonic()
        found = read_managed_password(connection, facts, account, reader=self._reader)
        self.latency = time.monotonic() - started
        if self._at_work == 1:
            # The domain answers while the key is derived.
            self._overwriting = connection.overwrite_last_answer()
        return found

    def read_password(self, account: str) -> tuple[str, str, ManagedPassword]:
        """Read an account's managed password; return its name with ``$``, its realm, and that.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        with self._overwriting_last_answer():
            return self._read_password(account)

    def _read_password(self, account: str) -> tuple[str, str, ManagedPassword]:
        def read(connection: Connection, facts: DomainFacts) -> tuple[str, str, ManagedPassword]:
            entry, password = self._read(connection, facts, account)
            return entry.account_name, facts.realm, password

        return self._permitted(read)

    @contextmanager
    def _overwriting_last_answer(self) -> Iterator[None]:
        """Overwrite what libraries keep of the last password read, once nobody is at work on one.

        Each answer takes the place of the one before, so there is never more than one.
        """
        with self._at_work_lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._at_work_lock:
                self._at_work -= 1
                is_last = self._at_work == 0
            if is_last:
                self._overwrite_last_answer()

    def _overwrite_last_answer(self) -> None:
        with self._lock:
            if self._connection is None:
                return
            try:
                (self._overwriting or self._connection.overwrite_last_answer())()
                self._overwriting = None
            except CredspecError:
                # What is freed is overwritten, too.
                self._drop_connection()

    def _permitted(self, read: Callable[[Connection, DomainFacts], _T]) -> _T:
        """Read a password, if need be with a new logon of the host."""
        try:
            found = self._with_connection(read)
        except NotPermittedError as error:
            is_of_logon = isinstance(error, PasswordNotPermittedError)
            if not is_of_logon or not self._logged_on_long_ago():
                raise with_guess(error, self._guess) from None
            # A group membership made after the host's logon counts only with a new ticket.
            self._log_on_again()
            try:
                found = self._with_connection(read)
            except NotPermittedError as again:
                raise with_guess(again, self._guess) from None
        self.reads += 1
        return found

    @property
    def _guess(self) -> str:
        """Which principal was guessed to be the host, empty if that was no guess."""
        return str(getattr(self._host_identity, "guess", ""))

    @property
    def _reader(self) -> str:
        """Which principal is logged on, empty if it is the host's own."""
        principal = "" if self._logon is None else self._logon.principal
        return principal if reader_of(principal) or self._is_provided else ""

    @property
    def _is_provided(self) -> bool:
        return bool(getattr(self._host_identity, "is_provided", False))

    def _logged_on_long_ago(self) -> bool:
        # A clock that was set back makes the ticket one of the future, which is not new either.
        return self._logon is None or abs(self._now() - self._logon.start) > _TICKET_IS_NEW

    def _is_logged_on(self) -> bool:
        return self._logon is not None and lasts(
            self._logon.start, self._logon.end, self._now(), _LOG_ON_BEFORE_END
        )

    def _log_on_again(self) -> None:
        with self._lock:
            self._host_identity.forget()
            self._drop_connection()

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

    def _with_connection(self, use: Callable[[Connection, DomainFacts], _T]) -> _T:
        with self._lock:
            held = self._connection is not None and self._is_logged_on()
            try:
                return use(*self._connected())
            except CredspecError as error:
                if not (isinstance(error, UnreachableError) or type(error) is CredspecError):
                    raise  # the directory's own answer, whatever the connection's age
                self._drop_connection()
                if not held:
                    raise
            # A held connection may have died with its controller, or its logon may have expired:
            # once more, with a new one.
            return use(*self._connected())

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
                raise with_guess(error.failure, self._guess) from None
        try:
            return self._log_on()
        except _LogonError as error:
            self._host_identity.forget()
            raise with_guess(error.failure, self._guess) from None

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
            self._logons += 1
            return connection, self._facts
        assert failure is not None  # noqa: S101 - narrows for the type checker
        raise _LogonError(failure, with_held_ticket=with_held_ticket)

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
        self._connection = self.controller = self.latency = self._overwriting = None


def _answering(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return those of the addresses that take connections for Kerberos."""
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(addresses)))) as pool:
        taken = list(pool.map(lambda address: answers(address, _KERBEROS_PORT), addresses))
    return tuple(a for a, is_taken in zip(addresses, taken, strict=True) if is_taken)
