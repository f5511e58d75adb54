"""A host identity whose account a provider gives, for hosts that are not joined."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from credspec.agent.config import Config
from credspec.agent.host_identity import KeytabIdentity
from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.keys import AES_ENCTYPES
from credspec.kerberos.service_ticket import get_service_ticket_by_tgt
from credspec.kerberos.ticket_life import lasts
from credspec.kerberos.tickets import Ticket, ticket_from_keytab, ticket_from_password
from credspec.providers.host_account import HostAccount, HostSource, PluginSource
from credspec.providers.kept_secrets import fingerprint
from credspec.providers.selection import Providers
from credspec.spec.host_account import CREDSPEC_PLUGIN_GUID

_RENEW_BEFORE_END: Final = timedelta(minutes=30)
# Each try of a wrong password counts towards the account's lockout.
_REFUSED_SECONDS: Final = 60.0
_REFUSALS: Final = frozenset(
    {
        *("kdc-password-refused", "kdc-key-refused", "kdc-key-expired", "keytab-no-key"),
        *("kdc-principal-unknown", "kdc-account-disabled", "kdc-enctype-weak"),
    }
)

_numbers: Final = itertools.count()


def account_of_configuration(config: Config) -> PluginSource | None:
    """Return what a host without keytab logs on with where no spec says; None for a joined host."""
    if config.account is None or config.keytab.exists():
        return None
    return PluginSource(CREDSPEC_PLUGIN_GUID, config.account)


def domain_of(account: HostAccount, providers: Providers, where: str) -> str:
    """Return the DNS name of the domain that an account is of, in lower case.

    Raises:
        NotPermittedError: `host-account-other-domain`; and as `KeytabIdentity.name`.
    """
    return providers.settings.domains.dns_name(_with_names(account), where)


def _with_names(account: HostAccount) -> HostAccount:
    """Return an account with its domain and user, which for some only their keytab tells."""
    if account.keytab is None:
        return account
    name, _, realm = KeytabIdentity(account.keytab, account.user or None).name.rpartition("@")
    return HostAccount(realm, name, keytab=account.keytab)


class ProvidedIdentity:
    """Logs on with a provider's account, in a credential cache of its own.

    The account must be of the source's `home`, or where that says nothing of `domain`: see
    `credspec.providers.account_domains`. It is kept for as long as the configuration says, and
    asked for again once when the domain refuses it. Only AES is used.
    """

    is_provided: ClassVar[bool] = True
    """Refusals name the account, since it is not the host's own."""

    def __init__(
        self,
        source: HostSource,
        domain: str,
        providers: Providers,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.domain = source.home or domain
        self.cache = f"MEMORY:credspec-provided-{next(_numbers)}"
        self._source = source
        self._providers = providers
        self._now = now
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None
        self._service_tickets: dict[str, Ticket] = {}
        self._principal: str | None = None
        self._account: HostAccount | None = None
        self._forgetting: threading.Timer | None = None
        self._refused: tuple[str, CredspecError, float] | None = None

    def log_on(self) -> Ticket:
        """Get a TGT of the account, unless the one at hand still lasts.

        Raises:
            CredspecError: as `Providers.account`; `host-account-other-domain`.
            NotPermittedError: the KDC refused.
            UnreachableError: no KDC answered.
        """
        with self._lock:
            return self._log_on()

    def get_service_ticket(self, service: str) -> Ticket:
        """Put a service's ticket into the cache, unless the one at hand still lasts.

        Raises as `log_on`.
        """
        with self._lock:
            ticket = self._service_tickets.get(service)
            if ticket is None or not self._lasts(ticket):
                if ticket is not None:
                    # Next to an old ticket of the same service, a new one would not be found.
                    self._forget_tickets()
                if not service.lower().endswith(f".{self.domain}"):
                    return self._get_by_tgt(service)
                try:
                    ticket = self._get(service)
                except UnreachableError:
                    raise
                except CredspecError as error:
                    if error.code in _REFUSALS or error.code.startswith("host-"):
                        raise
                    # Some KDCs may give it only for a TGT.
                    return self._get_by_tgt(service)
                self._service_tickets[service] = ticket
            return ticket

    def check(self, account: HostAccount) -> None:
        """Refuse an account that cannot be of this identity's domain.

        Raises:
            NotPermittedError: `host-account-other-domain`; and as `KeytabIdentity.name`.
        """
        self._principal_of(account)

    def forget(self) -> None:
        """Drop the tickets and what the provider said."""
        with self._lock:
            self._forget_tickets()
            self._forget_account()

    def close(self) -> None:
        """Forget all, the cache too."""
        import krb5

        self.forget()
        context = krb5.init_context()
        try:
            krb5.cc_destroy(context, krb5.cc_resolve(context, self.cache.encode()))
        except krb5.Krb5Error:
            return  # never logged on

    def _log_on(self) -> Ticket:
        if self._ticket is None or not self._lasts(self._ticket):
            self._ticket = self._get(None)
        return self._ticket

    def _get_by_tgt(self, service: str) -> Ticket:
        ticket = self._log_on()
        get_service_ticket_by_tgt(self.cache, service)
        return ticket

    def _get(self, service: str | None) -> Ticket:
        account, is_new = self._current_account()
        try:
            return self._ticket_of(account, service)
        except CredspecError as error:
            if error.code not in _REFUSALS:
                raise
            self._remember_refusal(account, error)
            if is_new:
                raise
        # It was changed since the provider was asked, perhaps.
        account, _ = self._current_account()
        try:
            return self._ticket_of(account, service)
        except CredspecError as error:
            if error.code in _REFUSALS:
                self._remember_refusal(account, error)
            raise

    def _remember_refusal(self, account: HostAccount, error: CredspecError) -> None:
        """Remember that an account was refused, but not its password."""
        self._refused = _print_of(account), error.detached(), time.monotonic() + _REFUSED_SECONDS
        self._forget_account()

    def _ticket_of(self, account: HostAccount, service: str | None) -> Ticket:
        principal = self._principal_of(account)
        if principal != self._principal:
            self._forget_tickets()
            self._principal = principal
        add = self._ticket is not None or bool(self._service_tickets)
        if service is None:
            # They go with the cache's former content.
            self._service_tickets.clear()
            add = False
        if account.keytab is not None:
            return ticket_from_keytab(
                *(principal, account.keytab),
                into_cache=self.cache,
                add=add,
                service=service,
                enctypes=AES_ENCTYPES,
            )
        return ticket_from_password(
            principal, account.password, into_cache=self.cache, add=add, service=service
        )

    def _principal_of(self, account: HostAccount) -> str:
        account = _with_names(account)
        self._providers.settings.domains.check(account, self.domain, str(self._source))
        return f"{account.user}@{self.domain.upper()}"

    def _current_account(self) -> tuple[HostAccount, bool]:
        """Return the account, and whether the provider was asked just now."""
        if self._account is not None:
            return self._account, False
        account = self._providers.account(self._source)
        if self._refused is not None:
            refused, error, until = self._refused
            if refused == _print_of(account) and time.monotonic() < until:
                raise error.detached()
            self._refused = None
        seconds = self._providers.settings.secret_seconds
        # What the source keeps for its leases goes with them.
        if seconds and self._source.secret is None:
            self._account = account
            self._forgetting = threading.Timer(seconds, self._forget_in_time)
            self._forgetting.daemon = True
            self._forgetting.start()
        return account, True

    def _forget_in_time(self) -> None:
        with self._lock:
            if self._forgetting is threading.current_thread():
                self._account = self._forgetting = None

    def _forget_account(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._account = self._forgetting = None

    def _forget_tickets(self) -> None:
        self._ticket = None
        self._service_tickets.clear()

    def _lasts(self, ticket: Ticket) -> bool:
        return lasts(ticket.start, ticket.end, self._now(), _RENEW_BEFORE_END)


def _print_of(account: HostAccount) -> str:
    return fingerprint(f"{account.domain}\0{account.user}\0{account.password}")
