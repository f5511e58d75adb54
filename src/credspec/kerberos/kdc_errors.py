"""Kerberos errors in words of an administrator: a stable code, what is wrong, and what to do.

Numbers are those of RFC 4120 7.5.9 and of MIT's table (krb5.h), relative to its base; the text of
the library is localised and is only quoted where nothing else is known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from credspec.errors import (
    ClockRefusalError,
    CredspecError,
    NotPermittedError,
    TransientRefusalError,
    UnreachableError,
)

if TYPE_CHECKING:
    import krb5

KRB5_BASE: Final = -1765328384
"""ERROR_TABLE_BASE_krb5: KDC error n is base + n."""

PREAUTH_FAILED: Final = 24
CLOCK_SKEW: Final = 37
POLICY: Final = 12
BAD_OPTION: Final = 13


class LogonRefusedError(NotPermittedError):
    """What an account logs on with is not accepted; another key, password or account might be."""


class KeyRefusedError(LogonRefusedError):
    """The key is not the account's: `kdc-key-refused`."""


class PrincipalRefusedError(LogonRefusedError):
    """The domain has no such account, or a disabled one."""


class ServiceUnknownError(NotPermittedError):
    """No account has the name of the service: `kdc-service-unknown`."""


class WrongRealmError(NotPermittedError):
    """The account is of another realm."""


class EnctypeUnsupportedError(NotPermittedError):
    """The domain takes no key of the encryption types offered: `kdc-enctype-unsupported`."""


class PolicyRefusedError(NotPermittedError):
    """A policy of the domain rejects the logon: `kdc-policy`."""


class OptionRefusedError(NotPermittedError):
    """The domain does not grant the kind of ticket: `kdc-option-refused`."""


class KdcUnreachableError(UnreachableError):
    """No KDC answered: `kdc-unreachable`."""


class Refusal(NamedTuple):
    """What an error number means: our code, what was found, what to do, and the error's class."""

    code: str
    found: str
    remedy: str
    error: type[NotPermittedError] = NotPermittedError


_DISABLED: Final = Refusal(
    "kdc-account-disabled",
    "the account is disabled or expired",
    "enable it, e.g. Enable-ADAccount or samba-tool user enable; look at its accountExpires and, "
    "for a user, at its lockout",
    PrincipalRefusedError,
)
_KEY_REFUSED: Final = Refusal(
    "kdc-key-refused",
    "the domain refused the account's key",
    "a keytab may be stale: renew it (e.g. adcli update, net ads keytab create)",
    KeyRefusedError,
)
_SKEW: Final = Refusal(
    "kdc-clock-skew",
    "this host's clock differs from the domain controller's by more than five minutes",
    "synchronise the clock with the domain (chrony, systemd-timesyncd)",
    ClockRefusalError,
)
_PREAUTH: Final = Refusal(
    "kdc-preauth-unsupported",
    "the domain asks for a proof of identity that is not supported here",
    "accounts must log on with a key: neither smart cards nor one-time passwords may be required "
    "of them (userAccountControl, SMARTCARD_REQUIRED)",
)
_SERVICE_KEY: Final = Refusal(
    "kdc-service-key",
    "the key of a service is not the one that its ticket was made with",
    "look for a service principal name at two accounts (setspn -X), and let the "
    "service's account or the domain controllers replicate",
)
_NO_KEY_TYPE: Final = Refusal(
    "krb5-enctype-disabled",
    "this host's libkrb5 does not allow the encryption type of the key or of the answer",
    "let the account have AES (msDS-SupportedEncryptionTypes), or look at permitted_enctypes in "
    "krb5.conf and at the system's crypto policy",
)
_TRUST: Final = Refusal(
    "kdc-trust-path",
    "the domains in between do not trust each other as needed",
    "check the trust, its direction and its transitivity (netdom trust /verify, samba-tool domain "
    "trust validate)",
)
_SERVICE_UNKNOWN: Final = Refusal(
    "kdc-service-unknown",
    "the domain does not know this service",
    "check the service principal name (setspn -Q), and that the service's host is of this domain "
    "or of a trusted one",
    ServiceUnknownError,
)
_TICKET_TIMES: Final = Refusal(
    "kdc-ticket-times",
    "a ticket is not valid now",
    "check the clocks of this host and of the domain controllers, and the domain's policy for the "
    "lifetime of tickets",
    ClockRefusalError,
)
_KRB5_CONF: Final = Refusal(
    "krb5-conf-unreadable",
    "libkrb5 cannot read its configuration",
    "check /etc/krb5.conf and the files that it includes",
)

_SERVICE_DISABLED: Final = Refusal(
    "kdc-service-disabled",
    "the account of the service is disabled",
    "enable the account that has the service principal name, and look at its accountExpires",
)
_USER_TO_USER: Final = Refusal(
    "kdc-service-without-key",
    "the account of the service takes tickets only user to user",
    "set the service principal name at the account that the service runs as",
)
_FAILED: Final = Refusal(
    "kdc-failed",
    "the domain controller could not handle the request",
    "look at its log (Windows: System, source KDC); another controller may do better",
    TransientRefusalError,
)
_TOO_BIG: Final = Refusal(
    "kdc-answer-too-big",
    "the answer does not fit into a datagram",
    "open TCP 88 to the domain controllers: tickets of members of many groups need it",
)
_OPTION: Final = Refusal(
    "kdc-option-refused",
    "the domain does not grant the kind of ticket that was asked for",
    "look at what the account may delegate (userAccountControl, msDS-AllowedToDelegateTo), at "
    "accounts that are sensitive and cannot be delegated, and at Protected Users",
    OptionRefusedError,
)
_KEYTAB: Final = Refusal(
    "keytab-malformed",
    "the file named as a keytab cannot be read as one",
    "make it again (adcli update, net ads keytab create, ktutil), and name it as a plain path",
)
_CACHE: Final = Refusal(
    "ccache-unusable",
    "the credential cache cannot be used",
    "log on again (kinit); look at KRB5CCNAME, and at who may read and write what it names",
)
_PRINCIPAL: Final = Refusal(
    "principal-malformed",
    "the name is not one of a principal",
    "write NAME@REALM, with the realm in upper case",
)
_REPLAY: Final = Refusal(
    "kdc-replay",
    "the domain controller has seen this request before",
    "try again; if it stays, look for hosts that are clones of each other, and at what repeats "
    "packets on the network",
)

REFUSALS: Final[dict[int, Refusal]] = {
    1: _DISABLED._replace(found="the account has expired"),
    2: _SERVICE_DISABLED._replace(found="the account of the service has expired"),
    4: _FAILED,
    5: _FAILED,
    6: Refusal(
        "kdc-principal-unknown",
        "the domain does not know this principal",
        "check the account name and the realm",
        PrincipalRefusedError,
    ),
    7: _SERVICE_UNKNOWN,
    8: Refusal(
        "kdc-principal-not-unique",
        "several accounts of the domain have this name",
        "search the domain for the name and for service principal names at two accounts (setspn -X)"
        ", and leave one",
    ),
    9: Refusal(
        "kdc-account-without-key",
        "the account has no key",
        "set the account's password again; the domain makes its keys of that",
    ),
    10: _TICKET_TIMES,
    11: _TICKET_TIMES,
    POLICY: Refusal(
        "kdc-policy",
        "a policy of the domain rejects the logon",
        "look at the account's authentication policy and silo (from which hosts it may log on, "
        "Get-ADAuthenticationPolicy, samba-tool domain auth policy), at its logon hours and "
        "workstations, at Protected Users, and at selective authentication of trusts",
        PolicyRefusedError,
    ),
    BAD_OPTION: _OPTION,
    14: Refusal(
        "kdc-enctype-unsupported",
        "the domain offers no encryption type that this account has keys for",
        "check msDS-SupportedEncryptionTypes of the account",
        EnctypeUnsupportedError,
    ),
    15: _PREAUTH,
    16: _PREAUTH,
    18: _DISABLED,
    17: _TRUST,
    19: _SERVICE_DISABLED,
    20: Refusal(
        "kdc-tgt-revoked",
        "the domain does not accept the ticket-granting ticket any more",
        "log on again; if that does not help, look at changes of the account and of krbtgt",
        TransientRefusalError,
    ),
    21: _DISABLED._replace(found="the account is not valid yet"),
    22: _SERVICE_DISABLED._replace(found="the account of the service is not valid yet"),
    23: Refusal(
        "kdc-key-expired",
        "the account's password has expired",
        "let the account change its password (host: adcli update)",
        LogonRefusedError,
    ),
    PREAUTH_FAILED: _KEY_REFUSED,
    25: _PREAUTH,
    26: _SERVICE_KEY,
    27: _USER_TO_USER,
    28: _TRUST,
    31: _SERVICE_KEY,
    32: _TICKET_TIMES,
    33: _TICKET_TIMES,
    34: _REPLAY,
    36: _SERVICE_KEY,
    CLOCK_SKEW: _SKEW,
    38: Refusal(
        "kdc-address-refused",
        "the ticket is for another address",
        "leave noaddresses in krb5.conf at its default, true",
    ),
    41: _SERVICE_KEY,
    44: _SERVICE_KEY,
    45: _SERVICE_KEY,
    43: _TRUST,
    48: _PREAUTH,
    51: _TRUST,
    52: _TOO_BIG,
    60: _FAILED,
    61: _TOO_BIG,
    69: _USER_TO_USER,
    90: _PREAUTH,
    91: _PREAUTH,
    93: _PREAUTH,
    68: Refusal(
        "kdc-wrong-realm",
        "the account is of another realm",
        "check the principal's realm: it is the DNS name of the account's own domain in upper case",
        WrongRealmError,
    ),
    # Smart cards and certificates (RFC 4556), where the host's krb5.conf brings them in.
    **dict.fromkeys((*range(62, 67), *range(70, 82)), _PREAUTH),
    133: _PRINCIPAL,
    134: _PRINCIPAL,
    135: _KRB5_CONF,
    136: _KRB5_CONF,
    139: _CACHE,
    140: _CACHE,
    147: Refusal(
        "kdc-answer-modified",
        "the answer does not belong to the question",
        "check the principal's realm and spelling (the domain may have answered for another name)",
    ),
    148: _SKEW,
    150: _NO_KEY_TYPE,
    151: _NO_KEY_TYPE,
    152: _NO_KEY_TYPE,
    153: _NO_KEY_TYPE,
    155: _SERVICE_UNKNOWN,
    **dict.fromkeys((179, 180, 213, 229, 235), _KEYTAB),
    185: _TRUST,
    188: _NO_KEY_TYPE,
    **dict.fromkeys((193, 194, 195, 197, 199, 212), _CACHE),
    200: _NO_KEY_TYPE,
    208: _PREAUTH,
    209: _PREAUTH,
    210: _KEY_REFUSED,  # what the library makes of a refusal
    221: _OPTION,
    224: _KRB5_CONF,
    236: _NO_KEY_TYPE,
    237: _NO_KEY_TYPE,
    248: _KRB5_CONF,
    252: Refusal(
        "kdc-armour-unsupported",
        "the domain does not support armoured logons (FAST) for this host",
        "raise the domain's functional level to 2012 or newer and let it support claims, compound "
        "authentication and Kerberos armoring",
    ),
}
_NO_KEY: Final = {KRB5_BASE + 181, KRB5_BASE + 230, 2, 13}  # not in the keytab; ENOENT and EACCES
KEY_REFUSED: Final = {KRB5_BASE + PREAUTH_FAILED, KRB5_BASE + 210}
_NO_ADDRESS: Final = (
    "neither DNS nor krb5.conf names a domain controller of the realm",
    "check the DNS records _kerberos._tcp of the realm, and the realm's spelling",
)
_UNREACHABLE: Final = {
    KRB5_BASE + 29: (  # KDC_ERR_SVC_UNAVAILABLE
        "a domain controller answers that it cannot serve now",
        "it is starting or stopping, or its log says why; it is asked again",
    ),
    KRB5_BASE + 154: _NO_ADDRESS,  # KRB5_REALM_UNKNOWN
    KRB5_BASE + 156: (  # KRB5_KDC_UNREACH
        "no domain controller of the realm answers on port 88",
        "check that they run, and the network path to them (TCP 88); credspec check tries both",
    ),
    KRB5_BASE + 220: _NO_ADDRESS,  # KRB5_REALM_CANT_RESOLVE
}
UNREACHABLE: Final = frozenset(_UNREACHABLE)


def kerberos_error(error: krb5.Krb5Error, principal: str) -> CredspecError:
    """Translate an error of libkrb5 into ours, by its number and never by its localised text."""
    return error_of(error.err_code, str(error).strip(), principal)


def error_of(number: int, text: str, principal: str) -> CredspecError:
    """Return the error for a number of libkrb5; `text` is what the library says."""
    where = f"ticket of {principal}"
    refusal = REFUSALS.get(number - KRB5_BASE)
    if refusal is not None:
        return refusal.error.of(refusal.code, refusal.found, where=where, remedy=refusal.remedy)
    if number in _UNREACHABLE:
        found, remedy = _UNREACHABLE[number]
        return KdcUnreachableError.of("kdc-unreachable", found, where=where, remedy=remedy)
    if number in _NO_KEY:
        return LogonRefusedError.of(
            "keytab-no-key",
            "the keytab holds no key of this principal",
            where=where,
            remedy="list it with klist -kt and name the principal in the configuration",
        )
    # The binding writes the number behind the text.
    words = re.sub(rf"\s*{number}\s*$", "", text) or "no text"
    return CredspecError.of(
        "kerberos",
        f"Kerberos error {number}: {words}",
        where=where,
        remedy="run the same with KRB5_TRACE=/dev/stderr, and look at the domain controller's log",
    )
