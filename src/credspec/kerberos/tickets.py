"""Ticket-granting tickets from keys, by an AS exchange with a domain controller (RFC 4120 3.1).

Every call here blocks until the KDC answers or the library gives up, and releases the interpreter
lock meanwhile: callers run it in a worker thread with a deadline of their own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from credspec.directory.managed_password import ManagedPassword
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.as_exchange import ExchangeError, exchange_at_once
from credspec.kerberos.ccache import ccache_bytes
from credspec.kerberos.kdc_errors import (
    CLOCK_SKEW,
    KEY_REFUSED,
    KRB5_BASE,
    POLICY,
    REFUSALS,
    UNREACHABLE,
    error_of,
    kerberos_error,
)
from credspec.kerberos.keys import Enctype, Key, computer_salt, derive_key, derive_keys

if TYPE_CHECKING:
    import krb5

_SKEW_SECONDS: Final = 300  # RFC 4120 8.2: what services accept

_memory_names: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A TGT, ready to be given to containers.

    `principal` is the name with realm, `start` and `end` are UTC, `enctype` is that of the session
    key, `ccache` the content of a FILE cache that holds the ticket; it does not show in the repr.
    """

    principal: str
    start: datetime
    end: datetime
    enctype: int
    ccache: bytes = field(repr=False)


def ticket_from_keytab(
    principal: str,
    keytab: Path,
    *,
    into_cache: str | None = None,
    add: bool = False,
    service: str | None = None,
) -> Ticket:
    """Get a TGT with the keys of a keytab file, or the ticket of a `service` at once.

    `into_cache` names a credential cache, such as ``MEMORY:host``, that receives the ticket too, in
    place of what was there, or with `add` besides it. `service` is a service principal of the same
    realm, such as ``ldap/dc1.example.test``.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        keys = krb5.kt_resolve(context, f"FILE:{keytab}".encode())
        return _as_exchange(
            context, principal, keys, into_cache=into_cache, add=add, service=service
        )
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None


def ticket_from_password(
    principal: str,
    password: str,
    *,
    into_cache: str,
    add: bool = False,
    service: str | None = None,
) -> Ticket:
    """Get a TGT with a user's password, or the ticket of a `service` at once.

    `into_cache`, `add` and `service` are as with `ticket_from_keytab`.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`; `kdc-password-refused`.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        options = krb5.get_init_creds_opt_alloc(context)
        credentials = krb5.get_init_creds_password(
            context,
            name,
            options,
            password.encode("utf-8", "surrogateescape"),
            in_tkt_service=None if service is None else service.encode(),
        )
        return _ticket(context, principal, name, credentials, into_cache, add=add)
    except krb5.Krb5Error as error:
        translated = kerberos_error(error, principal)
        if translated.code != "kdc-key-refused":
            raise translated from None
        raise NotPermittedError.of(
            "kdc-password-refused",
            "the domain refused the password",
            where=f"ticket of {principal}",
            remedy="check the user's name and password",
        ) from None


def ticket_from_keys(principal: str, keys: Iterable[Key], *, armor: str | None = None) -> Ticket:
    """Get a TGT with keys in memory.

    `armor` names a credential cache with a TGT of the host, which armours the exchange (FAST, RFC
    6113): policies of the domain may ask for it, and for the host that it shows. A KDC or TGT with
    which that does not work is asked without.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        # The keytab lives as long as this handle; its name must be unique within the process.
        keytab = krb5.kt_resolve(context, f"MEMORY:credspec-{next(_memory_names)}".encode())
        enctypes = []
        for key in keys:
            enctypes.append(key.enctype)
            block = krb5.init_keyblock(context, key.enctype, key.value)
            krb5.kt_add_entry(context, keytab, name, 1, 0, block)
        return _as_exchange(context, principal, keytab, enctypes=enctypes, armor=armor)
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None


def ticket_from_managed_password(
    account: str, realm: str, password: ManagedPassword, *, armor: str | None = None
) -> Ticket:
    """Get a TGT of a gMSA, with the password that is in force.

    `account` is the sAMAccountName with its ``$``. Within five minutes of a rollover that password
    is the previous one (MS-ADTS 2.2.19); if the KDC refuses it, the other is tried once, since
    clocks and rollovers are never exactly together. The salt is computed; if no key fits, the KDC
    is asked for its salt. `armor` is as with `ticket_from_keys`.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`.
        UnreachableError: no KDC answered.
    """
    principal = f"{account}@{realm}"
    salt = computer_salt(realm, account)
    in_force = password.valid_now or password.current
    other = password.current if in_force is password.previous else password.previous
    attempts = [value for value in (in_force, other) if value is not None]
    refusal: CredspecError | None = None
    for value in attempts:
        try:
            # The AES256 key alone is what nearly every domain takes, and a derivation saved.
            key = derive_key(value, Enctype.AES256_CTS_HMAC_SHA1_96, salt)
            return ticket_from_keys(principal, [key], armor=armor)
        except NotPermittedError as error:
            if error.code not in {"kdc-key-refused", "kdc-enctype-unsupported"}:
                raise
            refusal = refusal or error
    salt = _salt_of_kdc(principal) or salt
    for value in attempts:
        try:
            return ticket_from_keys(principal, derive_keys(value, salt), armor=armor)
        except NotPermittedError as error:
            refusal = refusal or error
    assert refusal is not None  # noqa: S101 - narrows for the type checker
    raise refusal


def _salt_of_kdc(principal: str) -> str | None:
    import krb5

    context = krb5.init_context()
    try:
        info = krb5.get_etype_info(context, krb5.parse_name_flags(context, principal.encode()))
    except krb5.Krb5Error:
        return None
    return info.salt.decode("utf-8", "replace") if info.salt else None


def _as_exchange(
    context: krb5.Context,
    principal: str,
    keytab: krb5.KeyTab,
    *,
    enctypes: Iterable[int] = (),
    into_cache: str | None = None,
    add: bool = False,
    service: str | None = None,
    armor: str | None = None,
) -> Ticket:
    import krb5

    name = krb5.parse_name_flags(context, principal.encode())
    credentials = None
    for armored_by in (armor, None) if armor is not None else (None,):
        credentials = credentials or _credentials_at_once(
            context, principal, keytab, enctypes=enctypes, service=service, armor=armored_by
        )
    if credentials is None:
        options = krb5.get_init_creds_opt_alloc(context)
        krb5.get_init_creds_opt_set_canonicalize(options, False)
        if enctypes:
            krb5.get_init_creds_opt_set_etype_list(options, list(enctypes))
        wanted = None if service is None else service.encode()
        credentials = krb5.get_init_creds_keytab(context, name, options, keytab, 0, wanted)
    return _ticket(context, principal, name, credentials, into_cache, add=add)


def _credentials_at_once(
    context: krb5.Context,
    principal: str,
    keytab: krb5.KeyTab,
    *,
    enctypes: Iterable[int],
    service: str | None,
    armor: str | None,
) -> krb5.Creds | None:
    """Return what one round trip brings, None if the KDC wants more of them."""
    import krb5

    try:
        cache_name = exchange_at_once(
            principal, str(keytab), enctypes=enctypes, service=service, armor=armor
        )
    except ExchangeError as error:
        is_final = error.number in UNREACHABLE or error.number in KEY_REFUSED
        # With armour the policy was looked at with all that it may ask for.
        if is_final or (armor is not None and error.number == KRB5_BASE + POLICY):
            raise error_of(error.number, str(error), principal) from None
        return None
    cache = krb5.cc_resolve(context, cache_name.encode())
    [credentials] = cache
    krb5.cc_destroy(context, cache)
    return credentials


def _ticket(
    context: krb5.Context,
    principal: str,
    name: krb5.Principal,
    credentials: krb5.Creds,
    into_cache: str | None,
    *,
    add: bool = False,
) -> Ticket:
    import krb5

    _check_clock(principal, credentials.times.authtime)
    if into_cache is not None:
        cache = krb5.cc_resolve(context, into_cache.encode())
        if not add:
            krb5.cc_initialize(context, cache, name)
        krb5.cc_store_cred(context, cache, credentials)
    times = credentials.times
    return Ticket(
        principal=principal,
        start=datetime.fromtimestamp(times.starttime or times.authtime, UTC),
        end=datetime.fromtimestamp(times.endtime, UTC),
        enctype=credentials.keyblock.enctype,
        ccache=ccache_bytes(principal, krb5.marshal_credentials(context, credentials)),
    )


def _check_clock(principal: str, issued: int) -> None:
    """Refuse a ticket that services will refuse: the library alone corrects for a clock.

    `issued` is the KDC's time, in seconds since 1970.
    """
    ahead = issued - time.time()
    if abs(ahead) <= _SKEW_SECONDS:
        return
    code, found, remedy = REFUSALS[CLOCK_SKEW]
    direction = "behind" if ahead > 0 else "ahead of"
    found = f"{found}: it is {abs(ahead):.0f} s {direction} it"
    raise NotPermittedError.of(code, found, where=f"ticket of {principal}", remedy=remedy)


def enctype_name(enctype: int) -> str:
    """Return the name of an encryption type as klist prints it; its number if it is unknown."""
    try:
        return Enctype(enctype).name.lower().replace("_", "-")
    except ValueError:
        return f"enctype {enctype}"


def keytab_versions(keytab: Path, principal: str) -> frozenset[int]:
    """Return the key version numbers that a keytab holds of a principal.

    Raises:
        CredspecError: see `kerberos_error`.
    """
    return frozenset(version for version, _ in _keys_of(keytab, principal))


def keytab_enctypes(keytab: Path, principal: str) -> frozenset[int]:
    """Return the types of a principal's keys in a keytab; raises as `keytab_versions`."""
    return frozenset(enctype for _, enctype in _keys_of(keytab, principal))


def _keys_of(keytab: Path, principal: str) -> list[tuple[int, int]]:
    """Return key version number and encryption type of each key of a principal."""
    import krb5

    context = krb5.init_context()
    try:
        table = krb5.kt_resolve(context, f"FILE:{keytab}".encode())
        return [
            (entry.kvno, entry.key.enctype)
            for entry in table
            if entry.principal.name == principal.encode()
        ]
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None
