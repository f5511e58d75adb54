r"""The forms in which people name an account, as a filter that finds it.

What ``Get-ADServiceAccount -Identity`` takes (sAMAccountName, distinguished name, GUID, SID), and
the two forms of logon names: ``CONTOSO\WebApp01`` and ``WebApp01@contoso.com``.
"""

from __future__ import annotations

import re
import uuid
from enum import StrEnum
from typing import Final, NamedTuple

from credspec.directory.connection import escape
from credspec.errors import UsageError

_MAX_LENGTH: Final = 1024
# MS-ADTS 3.1.1.6.2 for the characters; bounded, since it goes into a filter and a principal.
_ACCOUNT_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\"/\\\[\]:;|=,+*?<>@\s]{1,63}")
_GUID: Final = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?")
_SID: Final = re.compile(r"S-1-\d{1,15}(?:-\d{1,10}){1,15}", re.IGNORECASE)
_DN: Final = re.compile(r"(?:CN|OU)=.+,DC=.+", re.IGNORECASE)
_DN_DOMAIN: Final = re.compile(r",DC=([A-Za-z0-9_-]{1,63})", re.IGNORECASE)
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class IdentityForm(StrEnum):
    """What a name is."""

    ACCOUNT_NAME = "sAMAccountName"
    DISTINGUISHED_NAME = "distinguished name"
    GUID = "GUID"
    SID = "SID"
    USER_PRINCIPAL_NAME = "user principal name"
    LOGON_NAME = "logon name"


class AccountIdentity(NamedTuple):
    r"""A name of an account.

    `value` is the name without what the form adds: a sAMAccountName without its trailing ``$``, a
    GUID in lower case without braces. `domain` is the domain that the form itself names (of
    ``DOMAIN\name``, ``name@domain`` or a distinguished name), else None.
    """

    form: IdentityForm
    value: str
    domain: str | None = None

    def filter_in(self, dns_name: str) -> str:
        """Return the LDAP filter (RFC 4515) that finds the account, of whatever class it is.

        `dns_name` names the domain that is searched.
        """
        match self.form:
            case IdentityForm.DISTINGUISHED_NAME:
                return f"(distinguishedName={escape(self.value)})"
            case IdentityForm.GUID:
                octets = uuid.UUID(self.value).bytes_le
                return f"(objectGUID={''.join(f'{chr(92)}{octet:02x}' for octet in octets)})"
            case IdentityForm.SID:
                return f"(objectSid={self.value.upper()})"
            case IdentityForm.USER_PRINCIPAL_NAME:
                explicit = f"(userPrincipalName={escape(f'{self.value}@{self.domain}')})"
                if (self.domain or "").lower() != dns_name.lower():
                    return explicit
                # Every account has this name too (MS-ADTS 5.1.1.1.1).
                return f"(|{explicit}(sAMAccountName={escape(self.value)}$))"
            case IdentityForm.ACCOUNT_NAME | IdentityForm.LOGON_NAME:
                return f"(sAMAccountName={escape(self.value)}$)"


def parse_account_identity(text: str) -> AccountIdentity:
    """Tell which form a name has.

    Raises:
        UsageError: `account-name-invalid`, before the name gets into a filter or a principal.
    """
    if not text or len(text) > _MAX_LENGTH or _UNPRINTABLE.search(text):
        raise _invalid(text)
    if guid := _GUID.fullmatch(text):
        return AccountIdentity(IdentityForm.GUID, guid[1].lower())
    if _SID.fullmatch(text):
        return AccountIdentity(IdentityForm.SID, text)
    if _DN.fullmatch(text):
        domain = ".".join(_DN_DOMAIN.findall(text)).lower()
        return AccountIdentity(IdentityForm.DISTINGUISHED_NAME, text, domain or None)
    domain, backslash, name = text.partition("\\")
    if backslash:
        return AccountIdentity(IdentityForm.LOGON_NAME, _bare(name, text), _domain(domain, text))
    name, at, domain = text.rpartition("@")
    if at:
        form = IdentityForm.USER_PRINCIPAL_NAME
        return AccountIdentity(form, _bare(name, text), _domain(domain, text))
    return AccountIdentity(IdentityForm.ACCOUNT_NAME, _bare(text, text))


def valid_account_name(name: str) -> str:
    """Return a sAMAccountName without its trailing ``$``.

    Raises:
        UsageError: `account-name-invalid`.
    """
    return _bare(name, name)


def _bare(name: str, whole: str) -> str:
    bare = name.rstrip("$")
    if not _ACCOUNT_NAME.fullmatch(bare) or not bare.strip("."):
        raise _invalid(whole)
    return bare


def _domain(domain: str, whole: str) -> str:
    if not _DOMAIN.fullmatch(domain) or ".." in domain:
        raise _invalid(whole)
    return domain


def _invalid(text: str) -> UsageError:
    return UsageError.of(
        "account-name-invalid",
        f"{text[:80]!r} is not an account name",
        where="account",
        expected="a sAMAccountName such as WebApp01, or a distinguished name, GUID, SID, "
        "DOMAIN\\name or name@domain",
    )
