"""The interface of providers: plug-in input in; domain, user and password out.

As Windows' ``ICcgDomainAuthCredentials::GetPasswordCredentials``. The author of a provider needs
only this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final, Protocol

from credspec.errors import PermanentFaultError
from credspec.providers.kept_secrets import KeptSecret, fingerprint

# [MS-SAMR] 3.1.1.6: what a sAMAccountName may not hold; "@" would be taken for a realm.
_USER: Final = re.compile(r'[^\x00-\x1f\x7f-\x9f"/\\\[\]:;|=,+*?<>@\ud800-\udfff]{1,256}')
_DOMAIN: Final = re.compile(r"[^\W_](?:[\w-]{0,62}[^\W_])?(?:\.[^\W_](?:[\w-]{0,62}[^\W_])?){0,15}")
_MAX_PASSWORD: Final = 512  # characters; Active Directory takes 256


@dataclass(frozen=True, slots=True)
class HostAccount:
    """An account that may read managed passwords.

    `domain` is the DNS or the NetBIOS name of its domain, `user` its name without domain. It logs
    on with `password`, or with the keys of `keytab` if there is one; the password never shows.
    """

    domain: str
    user: str
    password: str = field(default="", repr=False)
    keytab: Path | None = None


class Provider(Protocol):
    """Something that knows host accounts."""

    def host_account(self, plugin_input: str) -> HostAccount:
        """Return the account that a plug-in input names.

        May block for as long as the configuration's `deadline_seconds`, and is called by several
        threads at once. An input that a spec holds as an object comes as compact JSON.

        Raises:
            CredspecError: there is none; never with the input's or the answer's content.
        """


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A spec's plug-in and its input, which may hold a secret.

    `home` is the DNS name of the spec's domain, which the account must be of: see
    `credspec.providers.account_domains`. Two leases share an identity only if all of it is the
    same. An input that may hold a secret is in `secret`, and `plugin_input` then empty.
    """

    guid: str
    plugin_input: str = field(repr=False)
    home: str = ""
    secret: KeptSecret | None = None

    @property
    def input(self) -> str:
        """The input, wherever it is kept.

        Raises:
            NotPermittedError: `host-account-forgotten`.
        """
        return self.plugin_input if self.secret is None else self.secret.reveal()

    def concealed(self, keep: Callable[[str], KeptSecret]) -> PluginSource:
        """Return the same source with its input kept by `keep`."""
        return replace(self, plugin_input="", secret=keep(self.plugin_input))

    def to_record(self) -> dict[str, str]:
        """Return what may be written down: without the input where that may hold a secret."""
        kept = {} if self.secret is not None else {"input": self.plugin_input}
        return {"guid": self.guid} | kept

    def __str__(self) -> str:
        return f"plug-in {self.guid}#{self.secret or fingerprint(self.plugin_input)[:8]}"


@dataclass(frozen=True, slots=True)
class GivenAccount:
    """An account that came with a request, kept only in memory; the rest as `PluginSource`.

    Where `secret` is given, it is the password, and that of `account` is empty.
    """

    account: HostAccount
    home: str = ""
    secret: KeptSecret | None = None

    def concealed(self, keep: Callable[[str], KeptSecret]) -> GivenAccount:
        """Return the same source with its password kept by `keep`."""
        password = self.account.password
        return replace(self, account=replace(self.account, password=""), secret=keep(password))

    def revealed(self) -> HostAccount:
        """Return the account with its password.

        Raises:
            NotPermittedError: `host-account-forgotten`.
        """
        if self.secret is None:
            return self.account
        return replace(self.account, password=self.secret.reveal())

    def to_record(self) -> dict[str, str]:
        """Return nothing, since nothing of it may be written down."""
        return {}

    def __str__(self) -> str:
        account = self.account
        tag = self.secret or fingerprint(account.password)[:8]
        return f"{account.domain}\\{account.user}#{tag}"


@dataclass(frozen=True, slots=True)
class LostSource:
    """The source of a lease of an earlier run whose secret went with that run."""

    lease_id: str
    home: ClassVar[str] = ""
    secret: ClassVar[None] = None

    def to_record(self) -> dict[str, str]:
        """Return nothing: nothing is known of it."""
        return {}

    def __str__(self) -> str:
        return f"lost#{self.lease_id[:8]}"


HostSource = PluginSource | GivenAccount | LostSource
"""Where a host identity comes from, other than from the machine keytab."""


def source_of_record(
    record: Mapping[str, str] | None, *, home: str, lease_id: str
) -> HostSource | None:
    """Return the source that a lease of an earlier run had, by what its `to_record` returned.

    `home` is the DNS name of the lease's domain; the machine keytab's record is None, and so is its
    source. One of which not all was written down is a `LostSource`.
    """
    if record is None:
        return None
    if "guid" in record and "input" in record:
        return PluginSource(record["guid"], record["input"], home)
    return LostSource(lease_id)


def is_source_record(value: object) -> bool:
    """Return whether a value read from a file may be the record of a source, or None."""
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )


def checked_account(domain: str, user: str, password: str, where: str) -> HostAccount:
    r"""Return an account whose names can be used, whatever a provider or a client said.

    `user` may be ``DOMAIN\\name`` or ``name@domain``, and `domain` then be empty.

    Raises:
        CredspecError: `host-account-invalid`.
    """
    if "\\" in user:
        own, _, user = user.partition("\\")
        domain = domain or own
    elif "@" in user:
        user, _, own = user.partition("@")
        domain = domain or own
    for what, is_good in (
        ("domain", len(domain) <= 255 and _DOMAIN.fullmatch(domain.removesuffix("."))),  # noqa: PLR2004 - RFC 1035
        ("user name", _USER.fullmatch(user)),
        ("password", 0 < len(password) <= _MAX_PASSWORD and not set(password) & {"\0", "\n"}),
    ):
        if not is_good:
            raise PermanentFaultError.of(
                "host-account-invalid",
                f"the {what} is missing, too long, or holds what it may not",
                where=where,
                expected="domain, user and password of an account of Active Directory",
            )
    return HostAccount(domain.removesuffix("."), user, password)
