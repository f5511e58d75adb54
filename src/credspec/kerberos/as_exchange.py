"""An AS exchange in one round trip (RFC 4120 3.1, 5.2.7.2).

libkrb5 asks first what preauthentication the KDC wants, and then once more with it. Who has a key
rather than a password needs no salt, and so can send the encrypted timestamp at once, which spares
the domain half of the work. The binding of libkrb5 has no call for it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable
from contextlib import ExitStack
from ctypes import byref, c_int32, c_void_p
from typing import Final

from credspec.kerberos.libkrb5 import CREDENTIALS_BYTES, libkrb5

_PA_ENC_TIMESTAMP: Final = 2  # RFC 4120 7.5.2
_PA_ENCRYPTED_CHALLENGE: Final = 138  # RFC 6113 5.4.6: what takes its place in armour
_FAST_REQUIRED: Final = 1  # KRB5_FAST_REQUIRED of krb5.h

_numbers: Final = itertools.count()


class ExchangeError(Exception):
    """The exchange failed; `number` is libkrb5's error code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Kerberos error {number}")
        self.number = number


def exchange_at_once(
    principal: str,
    keytab: str,
    *,
    enctypes: Iterable[int],
    service: str | None,
    armor: str | None = None,
    forwardable: bool = False,
) -> str:
    """Get a TGT, or the ticket of a `service` of the same realm, with the keys of a keytab.

    `keytab` is the keytab's name with its type, `enctypes` are the encryption types to ask for,
    none for all that it has keys of. `armor` names a credential cache with a TGT that armours the
    exchange (FAST, RFC 6113), which then takes one round trip as well. `forwardable` asks for a
    ticket that may be forwarded (RFC 4120 2.6), which the KDC may leave out. Returns the name of a
    new credential cache in memory, which holds nothing else and is the caller's to destroy. Blocks
    on KDCs while other threads run.

    Raises:
        ExchangeError: of any kind; a KDC that wants something else first is one.
    """
    library = libkrb5()
    context, client, keys = c_void_p(), c_void_p(), c_void_p()
    options, ccache = c_void_p(), c_void_p()
    credentials = ctypes.create_string_buffer(CREDENTIALS_BYTES)
    # The options point to these lists, and do not copy them.
    numbers = tuple(enctypes)
    types, first = (
        (c_int32 * len(numbers))(*numbers),
        (c_int32 * 1)(_PA_ENC_TIMESTAMP if armor is None else _PA_ENCRYPTED_CHALLENGE),
    )
    cache = f"MEMORY:credspec-as-{next(_numbers)}"

    def check(code: int) -> None:
        if code != 0:
            raise ExchangeError(code)

    with ExitStack() as stack:
        check(library.krb5_init_context(byref(context)))
        stack.callback(library.krb5_free_context, context)
        check(library.krb5_parse_name(context, principal.encode(), byref(client)))
        stack.callback(library.krb5_free_principal, context, client)
        check(library.krb5_kt_resolve(context, keytab.encode(), byref(keys)))
        stack.callback(library.krb5_kt_close, context, keys)
        check(library.krb5_get_init_creds_opt_alloc(context, byref(options)))
        stack.callback(library.krb5_get_init_creds_opt_free, context, options)
        library.krb5_get_init_creds_opt_set_canonicalize(options, 0)
        library.krb5_get_init_creds_opt_set_forwardable(options, int(forwardable))
        library.krb5_get_init_creds_opt_set_preauth_list(options, first, len(first))
        if len(types):
            library.krb5_get_init_creds_opt_set_etype_list(options, types, len(types))
        if armor is not None:
            check(
                library.krb5_get_init_creds_opt_set_fast_ccache_name(
                    context, options, armor.encode()
                )
            )
            # Else libkrb5 leaves it out unless the cache says that the KDC offers it.
            check(library.krb5_get_init_creds_opt_set_fast_flags(context, options, _FAST_REQUIRED))
        check(
            library.krb5_get_init_creds_keytab(
                *(context, credentials, client, keys),
                *(0, None if service is None else service.encode(), options),
            )
        )
        stack.callback(library.krb5_free_cred_contents, context, credentials)
        check(library.krb5_cc_resolve(context, cache.encode(), byref(ccache)))
        stack.callback(library.krb5_cc_close, context, ccache)
        check(library.krb5_cc_initialize(context, ccache, client))
        check(library.krb5_cc_store_cred(context, ccache, credentials))
    return cache
