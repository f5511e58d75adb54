"""Tickets of accounts for their managed passwords, armoured where the domain asks for it."""

from __future__ import annotations

import os

from credspec.directory.managed_password import ManagedPassword
from credspec.errors import Step, UnreachableError, during
from credspec.kerberos.kdc_errors import KdcUnreachableError, PolicyRefusedError
from credspec.kerberos.tickets import Ticket, ticket_from_managed_password
from credspec.session.domain_connection import DomainConnection
from credspec.session.host_identity import HOST_CACHE, HostIdentity
from credspec.session.known_salts import KnownSalts


class AccountTickets:
    """Gets tickets of accounts from the KDCs of the controllers that a connection has located."""

    def __init__(self, connection: DomainConnection, host_identity: HostIdentity) -> None:
        self.salts = KnownSalts()
        self._connection = connection
        self._host_identity = host_identity
        self._needs_armor = False

    def get(self, name: str, realm: str, password: ManagedPassword, logons: int) -> Ticket:
        """Return an account's ticket for its password.

        `logons` is the connection's from before that was read.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """
        with during(Step.ACCOUNT):
            try:
                return self._armored_ticket(name, realm, password)
            except UnreachableError as error:
                if logons != self._connection.logons:
                    # The controllers were located just now.
                    raise self._looked_at(error) from None
        # Those that were located when the held connection was made may have moved or gone.
        self._connection.reconnect()
        with during(Step.ACCOUNT):
            try:
                return self._armored_ticket(name, realm, password)
            except UnreachableError as error:
                raise self._looked_at(error) from None

    def _looked_at(self, error: UnreachableError) -> UnreachableError:
        """Say whether the KDCs take connections: only then the network path is not at fault."""
        if not isinstance(error, KdcUnreachableError):
            return error
        addresses, taking = self._connection.taking_connections()
        if not addresses:
            return error
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
        known = self.salts.last(name)
        arguments = (name, realm, password) if known is None else (name, realm, password, known)
        ticket = ticket_from_managed_password(*arguments, armor=armor)
        if ticket.salt is not None:
            self.salts.took(name, ticket.salt)
        return ticket
