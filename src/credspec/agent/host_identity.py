"""What the host itself logs on to the directory with.

An interface, since hosts that are not joined get it from elsewhere; the machine keytab is the one
that joined hosts have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final, Protocol

from credspec.agent.keytab_principal import (
    HostNames,
    KeytabPrincipal,
    computer_principals,
    guess_text,
    read_keytab,
    with_guess,
)
from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.kdc_errors import kerberos_error
from credspec.kerberos.service_ticket import get_service_ticket_by_tgt
from credspec.kerberos.ticket_life import lasts
from credspec.kerberos.tickets import Ticket, ticket_from_keytab

HOST_CACHE: Final = "MEMORY:credspec-host"
"""The credential cache of the host identity, and the default one of the agent's process."""

_RENEW_BEFORE_END: Final = timedelta(minutes=30)
# What a domain says to a principal that is not, or no longer, the host's.
_WRONG_GUESS: Final = frozenset(
    {"host-keytab-stale", "kdc-principal-unknown", "kdc-account-disabled", "kdc-wrong-realm"}
)


class HostIdentity(Protocol):
    """Something that can put a valid TGT of the host into a credential cache."""

    @property
    def cache(self) -> str | None:
        """The name of that cache; None for the process's default one."""

    @property
    def domain(self) -> str:
        """The DNS name of the identity's domain."""

    def log_on(self) -> Ticket:
        """Make sure the cache holds a ticket that lasts; may block on a KDC."""

    def get_service_ticket(self, service: str) -> Ticket:
        """Put into the cache what a logon at a service, such as ``ldap/HOST``, takes.

        That is the service's ticket, else a TGT; the one it is tells since when the host's group
        memberships count. May block on a KDC. A bind with a TGT gets the ticket as well, but
        libsasl stops the whole process while it waits.
        """

    def forget(self) -> None:
        """Drop the ticket, so that the next logon gets a new one, with new group memberships."""

    def close(self) -> None:
        """Forget all that no other session uses."""


class MachineKeytab:
    """The host identity of a joined host: the machine keytab that adcli, net or SSSD keep.

    `principal` may be given without realm, or be None to choose among the keytab's computer
    accounts, see `computer_principals`; `domain` is the one whose account is wanted then, None for
    what this host is said to be in. `cache` names the credential cache to use, None for the
    process's default one.
    """

    _any_account: ClassVar[bool] = False

    def __init__(
        self,
        keytab: Path,
        principal: str | None = None,
        *,
        cache: str | None = None,
        domain: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.guess = ""
        self.keytab = keytab
        self.principal = principal
        self.cache = cache
        self._now = now
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None
        self._service_tickets: dict[str, Ticket] = {}
        self._name: str | None = None
        self._wanted_domain = domain
        self._others: list[KeytabPrincipal] = []

    def prefer_domain(self, domain: str) -> None:
        """Choose an account of this domain, if the keytab has one and none was chosen yet."""
        self._wanted_domain = domain

    @property
    def name(self) -> str:
        """The principal with its realm.

        Raises:
            NotPermittedError: `host-keytab-missing`, `host-keytab-unreadable`,
                `host-principal-missing`.
        """
        if self._name is None:
            self._name = self._find_principal()
        return self._name

    @property
    def domain(self) -> str:
        """The DNS name of the host's domain: its realm in lower case."""
        return self.name.rpartition("@")[2].lower()

    def log_on(self) -> Ticket:
        """Get a TGT of the host, unless the one at hand still lasts.

        Raises:
            NotPermittedError: as `name`; `host-keytab-stale`; and refusals of the KDC.
            UnreachableError: no KDC answered.
        """
        with self._lock:
            return self._log_on()

    def get_service_ticket(self, service: str) -> Ticket:
        """Put a service's ticket into the cache, unless the one at hand still lasts.

        It comes by an AS exchange, without a TGT; where the KDC refuses that, and in other domains,
        by a TGT.

        Raises:
            NotPermittedError, UnreachableError: as `log_on`.
        """
        with self._lock:
            ticket = self._service_tickets.get(service)
            if ticket is None or not self._lasts(ticket):
                # Next to an old ticket of the same service, a new one would not be found.
                if ticket is not None:
                    self._forget()
                add = self._ticket is not None or bool(self._service_tickets)
                if not service.lower().endswith(f".{self.domain}"):
                    return self._get_by_tgt(service)
                try:
                    ticket = ticket_from_keytab(
                        self.name, self.keytab, into_cache=self._cache, add=add, service=service
                    )
                except UnreachableError:
                    raise
                except CredspecError:
                    # Some KDCs may give it only for a TGT; if the key is wrong, this shows it.
                    return self._get_by_tgt(service)
                self._service_tickets[service] = ticket
            return ticket

    @property
    def has_tgt(self) -> bool:
        """Whether the cache holds a TGT that lasts."""
        return self._ticket is not None and self._lasts(self._ticket)

    def forget(self) -> None:
        """Drop the tickets."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Do nothing: all domains' sessions share it."""

    def _forget(self) -> None:
        self._ticket = None
        self._service_tickets.clear()

    @property
    def _cache(self) -> str:
        return self.cache or HOST_CACHE

    def _get_by_tgt(self, service: str) -> Ticket:
        ticket = self._log_on()
        get_service_ticket_by_tgt(self._cache, service)
        return ticket

    def _lasts(self, ticket: Ticket) -> bool:
        return lasts(ticket.start, ticket.end, self._now(), _RENEW_BEFORE_END)

    def _log_on(self) -> Ticket:
        if self._ticket is None or not self._lasts(self._ticket):
            self._ticket = self._get_tgt()
        return self._ticket

    def _get_tgt(self) -> Ticket:
        # They go with the cache's former content.
        self._service_tickets.clear()
        first = self.name
        try:
            return self._tgt_of(first)
        except CredspecError as error:
            failure = error
        # What was guessed may be left over from another name or domain: the next likely one.
        for other in self._others:
            is_elsewhere = other.realm != first.rpartition("@")[2].lower()
            if failure.code not in _WRONG_GUESS and not (
                is_elsewhere and isinstance(failure, UnreachableError)
            ):
                break
            with suppress(CredspecError):
                ticket = self._tgt_of(other.name)
                self._choose(other.name)
                return ticket
        raise with_guess(failure, self.guess)

    def _tgt_of(self, name: str) -> Ticket:
        try:
            return ticket_from_keytab(name, self.keytab, into_cache=self._cache)
        except NotPermittedError as error:
            if error.code != "kdc-key-refused":
                raise
            raise NotPermittedError.of(
                "host-keytab-stale",
                f"the domain refuses the key of {name}",
                where=f"host keytab {self.keytab}",
                expected="the key of the computer account's current password",
                remedy="renew the keytab (adcli update, net ads keytab create) or join again",
            ) from None

    def _choose(self, name: str) -> None:
        """Take a principal of the candidates, and remember that it was a choice."""
        candidates = [KeytabPrincipal(self._name)] if self._name else []
        candidates += self._others
        self.guess = guess_text(name, candidates, self.keytab)
        self._others = [entry for entry in candidates if entry.name != name]
        self._name = name

    def _find_principal(self) -> str:
        self._check_readable()
        entries = read_keytab(self.keytab)
        wanted = self.principal
        if wanted is not None:
            names = {wanted.lower()}
            found = [e for e in entries if {e.name.lower(), e.account.lower()} & names]
        elif self._any_account:
            found = entries[:1]
        else:
            found = computer_principals(entries, HostNames.of_system(self._wanted_domain))
        if found:
            if wanted is None:
                self._others = found
                self._choose(found[0].name)
            return found[0].name
        raise NotPermittedError.of(
            "host-principal-missing",
            f"the keytab holds {', '.join(e.name for e in entries) or 'no key'}",
            where=f"host keytab {self.keytab}",
            expected=wanted or "a computer account, NAME$@REALM",
            remedy="name it under [host_identity] in the configuration, or join the host",
        )

    def _check_readable(self) -> None:
        try:
            with self.keytab.open("rb"):
                return
        except FileNotFoundError:
            raise NotPermittedError.of(
                "host-keytab-missing",
                "no such file",
                where=f"host keytab {self.keytab}",
                expected="the machine keytab",
                remedy="join the host to the domain (realm join, adcli join), or name the keytab "
                "under [host_identity] in the configuration",
            ) from None
        except OSError as error:
            raise NotPermittedError.of(
                "host-keytab-unreadable",
                error.strerror or str(error),
                where=f"host keytab {self.keytab}",
                remedy="run it as root, or log on as yourself: kinit USER@REALM, or --keytab FILE",
            ) from None


class KeytabIdentity(MachineKeytab):
    """A principal that a keytab holds keys of; without `principal` its first entry."""

    _any_account = True


class CallersTicket:
    """The ticket in the default credential cache of the user who runs a command (kinit)."""

    cache: Final = None

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    @classmethod
    def of_default_cache(cls, now: datetime) -> CallersTicket | None:
        """Return the caller's ticket, or None if there is none that is still good at `now`."""
        import krb5

        context = krb5.init_context()
        try:
            cache = krb5.cc_default(context)
            principal = (krb5.cc_get_principal(context, cache).name or b"").decode()
            realm = principal.rpartition("@")[2]
            for credentials in cache:
                end = datetime.fromtimestamp(credentials.times.endtime, UTC)
                if credentials.server.name == f"krbtgt/{realm}@{realm}".encode() and end > now:
                    start = datetime.fromtimestamp(credentials.times.authtime, UTC)
                    enctype = credentials.keyblock.enctype
                    return cls(Ticket(principal, start, end, enctype, ccache=b""))
        except krb5.Krb5Error:
            return None
        return None

    @property
    def domain(self) -> str:
        """The DNS name of the caller's domain: the realm in lower case."""
        return self._ticket.principal.rpartition("@")[2].lower()

    def log_on(self) -> Ticket:
        """Return the caller's ticket, without its content."""
        return self._ticket

    def get_service_ticket(self, service: str) -> Ticket:
        """Get a service's ticket with the caller's, into the caller's cache, and return the latter.

        The bind would get it as well, but looks up no controllers of the domains in between.
        """
        import krb5

        context = krb5.init_context()
        try:
            name = (krb5.cc_default_name(context) or b"").decode("utf-8", "surrogateescape")
        except krb5.Krb5Error as error:
            raise kerberos_error(error, self._ticket.principal) from None
        get_service_ticket_by_tgt(name, service)
        return self._ticket

    def forget(self) -> None:
        """Do nothing: the ticket is the caller's own."""

    def close(self) -> None:
        """Do nothing: the ticket is the caller's own."""
