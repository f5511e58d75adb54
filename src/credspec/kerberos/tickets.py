"""Ticket-granting tickets from keys, by an AS exchange with a domain controller (RFC 4120 3.1).

Every call here blocks until the KDC answers or the library gives up, and releases the interpreter
lock meanwhile: callers run it in a worker thread with a deadline of their own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from credspec.directory.managed_password import ManagedPassword
from credspec.errors import CredspecError, NotPermittedError
from credspec.kerberos.as_exchange import ExchangeError, exchange_at_once
from credspec.kerberos.ccache import ccache_bytes
from credspec.kerberos.kdc_errors import (
    BAD_OPTION,
    KEY_REFUSED,
    KRB5_BASE,
    POLICY,
    REFUSALS,
    UNREACHABLE,
    EnctypeUnsupportedError,
    KeyRefusedError,
    LogonRefusedError,
    OptionRefusedError,
    PolicyRefusedError,
    error_of,
    kerberos_error,
)
from credspec.kerberos.kdc_errors import CLOCK_SKEW as CLOCK_SKEW_ERROR
from credspec.kerberos.keys import (
    AES_ENCTYPES,
    DEFAULT_ITERATIONS,
    Enctype,
    Key,
    computer_salt,
    derive_key,
    derive_keys,
    derive_user_key,
    enctype_name,
)
from credspec.kerberos.ticket_life import CLOCK_SKEW

if TYPE_CHECKING:
    import krb5

_FORWARDABLE: Final = 0x40000000  # TKT_FLG_FORWARDABLE of krb5.h
_MOST_ITERATIONS: Final = 1 << 20  # about a second
_S2KPARAMS_BYTES: Final = 4  # RFC 3962 section 4
_NO_AES: Final = {
    KRB5_BASE + 14,  # KDC_ERR_ETYPE_NOSUPP
    KRB5_BASE + 150,  # KRB5_PROG_ETYPE_NOSUPP
    KRB5_BASE + 237,  # KRB5_CONFIG_ETYPE_NOSUPP
}

_memory_names: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A TGT, ready to be given to containers.

    `principal` is the name with realm, `start` and `end` are UTC, `enctype` is that of the session
    key, `ccache` the content of a FILE cache that holds the ticket; it does not show in the repr.
    `forwardable` tells whether the KDC made it so, without which nothing can be delegated. `salt`
    is that of the key which the KDC took, for a ticket of a managed password.
    """

    principal: str
    start: datetime
    end: datetime
    enctype: int
    ccache: bytes = field(repr=False)
    forwardable: bool = False
    salt: str | None = None


def ticket_from_keytab(
    principal: str,
    keytab: Path,
    *,
    into_cache: str | None = None,
    add: bool = False,
    service: str | None = None,
    enctypes: Iterable[int] = (),
) -> Ticket:
    """Get a TGT with the keys of a keytab file, or the ticket of a `service` at once.

    `enctypes` are the only encryption types to use, by default all that the keytab has keys of.
    `into_cache` names a credential cache, such as ``MEMORY:host``, that receives the ticket too, in
    place of what was there, or with `add` next to it. `service` is a service principal of the same
    realm, such as ``ldap/dc1.example.test``.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`; `keytab-no-key`.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        keys = krb5.kt_resolve(context, f"FILE:{keytab}".encode())
        wanted = tuple(enctypes)
        _check_enctypes(keys, principal, wanted)
        return _as_exchange(
            *(context, principal, keys),
            enctypes=wanted,
            into_cache=into_cache,
            add=add,
            service=service,
        )
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None


def _check_enctypes(keytab: krb5.KeyTab, principal: str, wanted: tuple[int, ...]) -> None:
    """Refuse a keytab that has keys of a principal, but none that may be used."""
    found = {
        entry.key.enctype
        for entry in (keytab if wanted else ())
        if entry.principal.name == principal.encode()
    }
    if found and not found & set(wanted):
        raise LogonRefusedError.of(
            "keytab-no-key",
            f"the keytab holds only {', '.join(map(enctype_name, sorted(found)))} of this "
            "principal",
            where=f"ticket of {principal}",
            expected=" or ".join(map(enctype_name, wanted)),
            remedy="allow the account AES (msDS-SupportedEncryptionTypes 24), set its password "
            "once more, and make the keytab again",
        )


def ticket_from_password(
    principal: str,
    password: str,
    *,
    into_cache: str,
    add: bool = False,
    service: str | None = None,
) -> Ticket:
    """Get a TGT with a user's password, or the ticket of a `service` at once.

    Only with AES: what a controller says of salt and encryption type is not signed, and a
    timestamp encrypted with RC4, or with few iterations, is a password that is quickly guessed.
    `into_cache`, `add` and `service` are as with `ticket_from_keytab`.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`; `kdc-password-refused`;
            `kdc-enctype-weak`: it asks for something made of the password that AES does not give.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        key = _user_key(context, principal, name, password)
        keytab = _keytab_of(context, name, [key])
        return _as_exchange(
            *(context, principal, keytab),
            enctypes=AES_ENCTYPES,
            into_cache=into_cache,
            add=add,
            service=service,
        )
    except krb5.Krb5Error as error:
        raise _of_password(kerberos_error(error, principal), principal) from None
    except NotPermittedError as error:
        raise _of_password(error, principal) from None


def _user_key(context: krb5.Context, principal: str, name: krb5.Principal, password: str) -> Key:
    """Ask the KDC for salt and iterations, and derive the key that it takes."""
    import krb5

    options = krb5.get_init_creds_opt_alloc(context)
    krb5.get_init_creds_opt_set_etype_list(options, list(AES_ENCTYPES))
    try:
        info = krb5.get_etype_info(context, name, options)
    except krb5.Krb5Error as error:
        if error.err_code not in _NO_AES:
            raise
        raise _too_weak(principal, "it offers no encryption with AES") from None
    params = info.s2kparams or DEFAULT_ITERATIONS.to_bytes(_S2KPARAMS_BYTES, "big")
    iterations = int.from_bytes(params, "big")
    if info.etype not in AES_ENCTYPES:
        raise _too_weak(principal, f"it offers {enctype_name(info.etype)}")
    if len(params) != _S2KPARAMS_BYTES or not DEFAULT_ITERATIONS <= iterations <= _MOST_ITERATIONS:
        raise _too_weak(principal, f"it wants a key of {iterations} iterations")
    salt = principal.replace("@", "").encode() if info.salt is None else info.salt
    return derive_user_key(password, Enctype(info.etype), salt, iterations)


def _too_weak(principal: str, found: str) -> NotPermittedError:
    return LogonRefusedError.of(
        "kdc-enctype-weak",
        f"what answers as a domain controller asks for a weak logon: {found}",
        where=f"ticket of {principal}",
        expected=f"AES, with {DEFAULT_ITERATIONS} iterations or more",
        remedy="set msDS-SupportedEncryptionTypes of the account to AES (24) and its password once "
        "more; if it is set, look at who answers on port 88",
    )


def _of_password(error: CredspecError, principal: str) -> CredspecError:
    if not isinstance(error, KeyRefusedError):
        return error
    return LogonRefusedError.of(
        "kdc-password-refused",
        "the domain refused the password",
        where=f"ticket of {principal}",
        remedy="check the user's name and password",
    )


def ticket_from_keys(
    principal: str, keys: Iterable[Key], *, armor: str | None = None, forwardable: bool = False
) -> Ticket:
    """Get a TGT with keys in memory.

    `armor` names a credential cache with a TGT of the host, which armours the exchange (FAST, RFC
    6113): policies of the domain may ask for it, and for the host that it shows. A KDC or TGT with
    which that does not work is asked without. `forwardable` asks for a ticket that may be
    forwarded; a KDC that refuses to make such a one is asked for another.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`.
        UnreachableError: no KDC answered.
    """
    import krb5

    context = krb5.init_context()
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        given = list(keys)
        keytab = _keytab_of(context, name, given)
        enctypes = [key.enctype for key in given]
        return _as_exchange(
            *(context, principal, keytab),
            enctypes=enctypes,
            armor=armor,
            forwardable=forwardable,
        )
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None


def _keytab_of(context: krb5.Context, name: krb5.Principal, keys: Iterable[Key]) -> krb5.KeyTab:
    """Return a keytab in memory; it lives as long as its handle."""
    import krb5

    # The name must be unique within the process.
    keytab = krb5.kt_resolve(context, f"MEMORY:credspec-{next(_memory_names)}".encode())
    for key in keys:
        block = krb5.init_keyblock(context, key.enctype, key.value)
        krb5.kt_add_entry(context, keytab, name, 1, 0, block)
    return keytab


def ticket_from_managed_password(
    account: str,
    realm: str,
    password: ManagedPassword,
    salt: str | None = None,
    *,
    armor: str | None = None,
) -> Ticket:
    """Get a TGT of a gMSA that may be forwarded, with the password that is in force.

    `account` is the sAMAccountName with its ``$``. Within five minutes of a rollover that password
    is the previous one (MS-ADTS 2.2.19); if the KDC refuses it, the other is tried once, since
    clocks and rollovers are never exactly together. `salt` is what the KDC took last time, None to
    compute it of the name. If no key fits, the KDC is asked for its salt: that of an account that
    was renamed is of the name that it had when its password was set. `armor` is as with
    `ticket_from_keys`.

    Raises:
        NotPermittedError: the KDC refused, see `kerberos_error`.
        UnreachableError: no KDC answered.
    """
    principal = f"{account}@{realm}"
    guessed = salt or computer_salt(realm, account)
    in_force = password.valid_now or password.current
    other = password.current if in_force is password.previous else password.previous
    attempts = [value for value in (in_force, other) if value is not None]
    refusal: CredspecError | None = None

    def ask(keys: Iterable[Key], with_salt: str) -> Ticket:
        ticket = ticket_from_keys(principal, keys, armor=armor, forwardable=True)
        return replace(ticket, salt=with_salt)

    try:
        # Nearly every domain takes the AES256 key only, which saves a derivation.
        return ask([derive_key(in_force, Enctype.AES256_CTS_HMAC_SHA1_96, guessed)], guessed)
    except (KeyRefusedError, EnctypeUnsupportedError) as error:
        refusal = error
    salt = salt_of_kdc(principal) or computer_salt(realm, account)
    if salt == guessed and isinstance(refusal, KeyRefusedError):
        # Each refused key may count towards a lockout.
        attempts.remove(in_force)
    for value in attempts:
        try:
            return ask(derive_keys(value, salt), salt)
        except NotPermittedError as error:
            refusal = refusal if isinstance(refusal, KeyRefusedError) else error
    if isinstance(refusal, KeyRefusedError):
        raise _of_managed_password(principal)
    raise refusal


def _of_managed_password(principal: str) -> KeyRefusedError:
    return KeyRefusedError.of(
        "kdc-key-refused",
        "the domain refused the keys of the managed password that it gave",
        where=f"ticket of {principal}",
        remedy="the controllers may not have replicated the password or the account yet "
        "(repadmin /showrepl, samba-tool drs showrepl); it is tried again",
    )


def salt_of_kdc(principal: str) -> str | None:
    """Return the salt that a KDC tells for an account's keys (RFC 4120 5.2.7.5), unsigned.

    None if it tells none, or does not answer.
    """
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
    forwardable: bool = False,
) -> Ticket:
    import krb5

    name = krb5.parse_name_flags(context, principal.encode())
    request = _Request(principal, tuple(enctypes), service, armor, forwardable)
    credentials = None
    try:
        credentials = _credentials(context, name, keytab, request)
    except (krb5.Krb5Error, NotPermittedError) as error:
        if not forwardable or not _refuses_option(error):
            raise
    if credentials is None:
        # Some KDCs refuse the option rather than leave it out.
        request = request._replace(forwardable=False)
        credentials = _credentials(context, name, keytab, request)
    return _ticket(context, principal, name, credentials, into_cache, add=add)


def _refuses_option(error: krb5.Krb5Error | NotPermittedError) -> bool:
    if isinstance(error, NotPermittedError):
        return isinstance(error, PolicyRefusedError | OptionRefusedError)
    return error.err_code in {KRB5_BASE + POLICY, KRB5_BASE + BAD_OPTION}


class _Request(NamedTuple):
    """What a KDC is asked for; fields as in `exchange_at_once`."""

    principal: str
    enctypes: tuple[int, ...]
    service: str | None
    armor: str | None
    forwardable: bool


def _credentials(
    context: krb5.Context, name: krb5.Principal, keytab: krb5.KeyTab, request: _Request
) -> krb5.Creds:
    """Return what a KDC gives, in one round trip or in those that it wants."""
    import krb5

    for armored_by in (request.armor, None) if request.armor is not None else (None,):
        credentials = _credentials_at_once(context, keytab, request._replace(armor=armored_by))
        if credentials is not None:
            return credentials
    options = krb5.get_init_creds_opt_alloc(context)
    krb5.get_init_creds_opt_set_canonicalize(options, False)
    krb5.get_init_creds_opt_set_forwardable(options, request.forwardable)
    if request.enctypes:
        krb5.get_init_creds_opt_set_etype_list(options, list(request.enctypes))
    wanted = None if request.service is None else request.service.encode()
    return krb5.get_init_creds_keytab(context, name, options, keytab, 0, wanted)


def _credentials_at_once(
    context: krb5.Context, keytab: krb5.KeyTab, request: _Request
) -> krb5.Creds | None:
    """Return what one round trip brings, None if the KDC wants more of them."""
    import krb5

    try:
        cache_name = exchange_at_once(
            request.principal,
            str(keytab),
            enctypes=request.enctypes,
            service=request.service,
            armor=request.armor,
            forwardable=request.forwardable,
        )
    except ExchangeError as error:
        is_final = error.number in UNREACHABLE or error.number in KEY_REFUSED
        # With armour the policy was looked at with all that it may ask for.
        if is_final or (request.armor is not None and error.number == KRB5_BASE + POLICY):
            raise error_of(error.number, str(error), request.principal) from None
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
        forwardable=bool(credentials.ticket_flags_raw & _FORWARDABLE),
    )


def _check_clock(principal: str, issued: int) -> None:
    """Refuse a ticket that services will refuse: only the library corrects for a clock.

    `issued` is the KDC's time, in seconds since 1970.
    """
    ahead = issued - time.time()
    if abs(ahead) <= CLOCK_SKEW.total_seconds():
        return
    code, found, remedy, kind = REFUSALS[CLOCK_SKEW_ERROR]
    direction = "behind" if ahead > 0 else "ahead of"
    found = f"{found}: it is {abs(ahead):.0f} s {direction} it"
    raise kind.of(code, found, where=f"ticket of {principal}", remedy=remedy)
