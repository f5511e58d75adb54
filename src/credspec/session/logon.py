"""How a command logs on to a directory, on any machine: a ticket, a keytab or a typed password.

The agent itself uses only its host identity; this is for commands that people run, such as
``credspec new``, whose process is as good as its own: the tickets stay in its memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from credspec.config.host import Config
from credspec.directory.locator import DnsResolver, Locator, valid_domain
from credspec.errors import NotPermittedError, UsageError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.tickets import ticket_from_password
from credspec.providers.selection import Providers
from credspec.session.host_identity import (
    HOST_CACHE,
    CallersTicket,
    HostIdentity,
    MachineKeytab,
)
from credspec.session.provided_identity import (
    ProvidedIdentity,
    account_of_configuration,
    domain_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logon:
    """The options by which a command logs on.

    With neither `user` nor `keytab`, the ticket in the caller's credential cache is used, or the
    machine keytab of a joined host. `ask_password` is called at most once, with the principal.
    """

    user: str | None = None
    keytab: Path | None = None
    ask_password: Callable[[str], str] | None = None


@contextmanager
def own_krb5_conf() -> Iterator[AgentKrb5Conf]:
    """Give this process a krb5.conf of its own, in front of the one it had.

    The domain controllers that are located get into it; it is gone at the end.
    """
    before = os.environ.get("KRB5_CONFIG")
    with tempfile.TemporaryDirectory(prefix="credspec-") as directory:
        own = Path(directory) / "krb5.conf"
        os.environ["KRB5_CONFIG"] = f"{own}:{before or '/etc/krb5.conf'}"
        try:
            yield AgentKrb5Conf(own)
        finally:
            if before is None:
                del os.environ["KRB5_CONFIG"]
            else:
                os.environ["KRB5_CONFIG"] = before


class NoCredentialsError(NotPermittedError):
    """There is nothing to log on with: no ticket, no readable keytab, no password."""


def log_on(config: Config, logon: Logon, krb5_conf: AgentKrb5Conf) -> HostIdentity:
    """Return the identity to use; with a password, its ticket is obtained here.

    Raises:
        NoCredentialsError: `no-credentials`.
        NotPermittedError: what the host identity and the KDC say.
        UsageError: `logon-user-invalid`.
        UnreachableError: no KDC answered.
    """
    if logon.keytab is not None:
        os.environ["KRB5CCNAME"] = HOST_CACHE
        return MachineKeytab(logon.keytab, logon.user, any_account=True)
    if logon.user is not None:
        return _with_password(config, logon, krb5_conf)
    callers = CallersTicket.of_default_cache(datetime.now(UTC))
    if callers is not None:
        return callers
    source = account_of_configuration(config)
    if source is not None:
        providers = Providers(config.providers)
        # Nothing else tells this host's domain.
        domain = domain_of(providers.account(source), providers, "host_identity.account")
        return ProvidedIdentity(source, domain, providers)
    if not os.access(config.keytab, os.R_OK):
        raise NoCredentialsError.of(
            "no-credentials",
            f"there is no Kerberos ticket, and no machine keytab at {config.keytab} that user "
            f"{os.geteuid()} may read",
            where="logon",
            remedy="run kinit USER@REALM first, or give --user USER@REALM or --keytab FILE",
        )
    os.environ["KRB5CCNAME"] = HOST_CACHE
    return MachineKeytab(config.keytab, config.principal)


def _with_password(config: Config, logon: Logon, krb5_conf: AgentKrb5Conf) -> HostIdentity:
    name, _, realm = (logon.user or "").rpartition("@")
    if not name or "\0" in name:
        raise UsageError.of(
            "logon-user-invalid",
            f"{(logon.user or '')[:80]!r} has no realm",
            where="logon",
            expected="USER@REALM, such as alice@CONTOSO.COM",
        )
    domain = valid_domain(realm)
    # libkrb5's own search for KDCs may fail where ours, with TCP and deadlines, does not.
    controllers = Locator(DnsResolver(), preferences=config.domains).locate(
        domain, port=config.transport.port
    )
    krb5_conf.set_kdcs(domain.upper(), [a for dc in controllers for a in dc.addresses])
    principal = f"{name}@{domain.upper()}"
    if logon.ask_password is None:
        raise NoCredentialsError.of("no-credentials", "no password was given", where="logon")
    os.environ["KRB5CCNAME"] = HOST_CACHE
    ticket = ticket_from_password(principal, logon.ask_password(principal), into_cache=HOST_CACHE)
    return CallersTicket(ticket)
