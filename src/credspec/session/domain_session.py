"""One domain as this host talks to it: its facts, its accounts, and what is acquired for them.

Everything here blocks and is called from the domain's own worker threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from credspec.directory.accounts import GroupManagedServiceAccount, find_account
from credspec.directory.connection import Transport
from credspec.directory.domain import DomainFacts, read_trusted_domain
from credspec.directory.domain_names import valid_domain
from credspec.directory.locator import DomainController, Locator
from credspec.directory.service_owner import ServiceOwner, find_service_owner
from credspec.errors import NotFoundError, UnreachableError
from credspec.kerberos.keytab import account_keytab
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_credentials import ServiceTicket, get_service_ticket
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.tickets import Ticket
from credspec.session.account_tickets import AccountTickets
from credspec.session.domain_connection import DomainConnection
from credspec.session.host_identity import HostIdentity
from credspec.session.password_reader import PasswordReader

_NAME_SECONDS: Final = 600.0
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


class DomainSession:
    """What the agent and commands ask of a domain; see `DomainConnection` for the arguments."""

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
        self.connection = DomainConnection(
            domain,
            host_identity=host_identity,
            locator=locator,
            transport=transport,
            ca_file=ca_file,
            krb5_conf=krb5_conf,
            now=now,
        )
        self.domain = self.connection.domain
        self.passwords = PasswordReader(self.connection)
        self._tickets = AccountTickets(self.connection, host_identity)
        self._now = now
        self._domains_named: dict[str, tuple[str, float]] = {}

    @property
    def controllers(self) -> Sequence[DomainController]:
        """The controllers that were located last."""
        return self.connection.controllers

    @property
    def controller(self) -> DomainController | None:
        """The controller of the connection that is held."""
        return self.connection.controller

    @property
    def latency(self) -> float | None:
        """How many seconds the last password took on that connection."""
        return self.connection.latency

    def facts(self) -> DomainFacts:
        """Return the domain's facts.

        Raises:
            UnreachableError, NotPermittedError: as the locator, the host identity and the
                connection raise them.
        """
        return self.connection.facts()

    @property
    def known_facts(self) -> DomainFacts | None:
        """The domain's facts if it was reached before; what a domain is hardly ever changes."""
        return self.connection.known_facts

    def read_facts(self) -> DomainFacts:
        """Ask for the domain's facts again; raises as `facts`."""
        return self.connection.read_facts()

    def find(self, account: str) -> GroupManagedServiceAccount:
        """Find an account of this domain; raises as `find_account`."""
        return self.connection.use(lambda c, facts: find_account(c, facts, account))

    def follow_controllers(self) -> tuple[str, ...]:
        """Return the addresses of controllers for clients; see `DomainConnection`."""
        return self.connection.follow_controllers()

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
            found = self.connection.use(lambda c, facts: read_trusted_domain(c, facts, name))
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
        with self.passwords.overwriting():
            logons = self.connection.logons
            entry, realm, password = self.passwords.read(account)
            name, due = entry.account_name, self._now() + password.query_interval
            return Acquisition(name, self._tickets.get(name, realm, password, logons), due)

    def acquire_with_keytab(self, account: str) -> Acquisition:
        """Acquire an account, and make a keytab of the same password.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        with self.passwords.overwriting():
            logons = self.connection.logons
            entry, realm, password, version = self.passwords.read_with_version(account)
            now = self._now()
            name = entry.account_name
            acquired = Acquisition(
                name,
                self._tickets.get(name, realm, password, logons),
                now + password.query_interval,
            )
            salts = self._tickets.salts.of_versions(name, version)
            return replace(
                acquired,
                keytab=account_keytab(entry, realm, password, version, made=now, salts=salts),
                keytab_due=now + max(password.unchanged_interval, _SOONEST_KEYTAB),
            )

    def service_ticket(self, tgt: Ticket, service: ServiceName, life: timedelta) -> ServiceTicket:
        """Return a ticket of a service for the account of a TGT; see `get_service_ticket`.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        try:
            return get_service_ticket(tgt, service, life)
        except UnreachableError:
            # The controllers that were located may have moved or gone.
            self.connection.reconnect()
        return get_service_ticket(tgt, service, life)

    def service_owner(self, spn: str) -> ServiceOwner | None:
        """Find the account of this domain that has a service's name; see `find_service_owner`.

        Raises:
            CredspecError: as `DomainConnection.use`.
        """
        return self.connection.use(lambda c, facts: find_service_owner(c, facts, spn))

    def forget_logon(self) -> None:
        """Let the next call log on afresh: drop the connection, tickets, and what was given."""
        self.connection.forget_logon()

    def close(self) -> None:
        """Close the connection, if there is one and nobody waits for an answer on it."""
        self.connection.close()
