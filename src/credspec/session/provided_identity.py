"""A host identity whose account a provider gives, for hosts that are not joined."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar, Final

from credspec.config.host import Config
from credspec.errors import CredspecError
from credspec.kerberos.kdc_errors import LogonRefusedError
from credspec.kerberos.keys import AES_ENCTYPES
from credspec.kerberos.tickets import Ticket, ticket_from_keytab, ticket_from_password
from credspec.providers.kept_secrets import fingerprint
from credspec.providers.provider import HostAccount, HostSource, PluginSource
from credspec.providers.selection import Providers
from credspec.session.host_identity import MachineKeytab
from credspec.session.ticket_holder import TicketHolder, first_exchange
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID

# Each try of a wrong password counts towards the account's lockout.
_REFUSED_SECONDS: Final = 60.0

_numbers: Final = itertools.count()


def account_of_configuration(config: Config) -> PluginSource | None:
    """Return what a host without keytab logs on with where no spec says; None for a joined host."""
    if config.account is None or config.keytab.exists():
        return None
    return PluginSource(CREDSPEC_PLUGIN_GUID, config.account)


def domain_of(account: HostAccount, providers: Providers, where: str) -> str:
    """Return the DNS name of the domain that an account is of, in lower case.

    Raises:
        NotPermittedError: `host-account-other-domain`; and as `MachineKeytab.name`.
    """
    return providers.settings.domains.dns_name(_with_names(account), where)


def _with_names(account: HostAccount) -> HostAccount:
    """Return an account with its domain and user, which for some only their keytab tells."""
    if account.keytab is None:
        return account
    identity = MachineKeytab(account.keytab, account.user or None, any_account=True)
    name, _, realm = identity.name.rpartition("@")
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
        self._lock = threading.Lock()
        self._tickets = TicketHolder(self.cache, self._get, now=now)
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
            return self._tickets.get_tgt()

    def get_service_ticket(self, service: str) -> Ticket:
        """Put a service's ticket into the cache, unless the one at hand still lasts.

        Raises as `log_on`.
        """
        with self._lock:
            return self._tickets.get_service_ticket(service, self.domain)

    def check(self, account: HostAccount) -> None:
        """Refuse an account that cannot be of this identity's domain.

        Raises:
            NotPermittedError: `host-account-other-domain`; and as `MachineKeytab.name`.
        """
        self._principal_of(account)

    def forget(self) -> None:
        """Drop the tickets and what the provider said."""
        with self._lock:
            self._tickets.forget()
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

    def _get(self, service: str | None) -> Ticket:
        account, is_new = self._current_account()
        try:
            return self._ticket_of(account, service)
        except LogonRefusedError as error:
            self._remember_refusal(account, error)
            if is_new:
                raise
        # It was changed since the provider was asked, perhaps.
        account, _ = self._current_account()
        try:
            return self._ticket_of(account, service)
        except LogonRefusedError as error:
            self._remember_refusal(account, error)
            raise

    def _remember_refusal(self, account: HostAccount, error: CredspecError) -> None:
        """Remember that an account was refused, but not its password."""
        self._refused = _print_of(account), error.detached(), time.monotonic() + _REFUSED_SECONDS
        self._forget_account()

    def _ticket_of(self, account: HostAccount, service: str | None) -> Ticket:
        principal = self._principal_of(account)
        if principal != self._principal:
            self._tickets.forget()
            self._principal = principal
        with first_exchange(service, LogonRefusedError):
            return self._exchange(principal, account, service)

    def _exchange(self, principal: str, account: HostAccount, service: str | None) -> Ticket:
        add = service is not None and self._tickets.has_tickets
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


def _print_of(account: HostAccount) -> str:
    return fingerprint(f"{account.domain}\0{account.user}\0{account.password}")
