"""What libkrb5 has and its Python binding lacks, by ctypes: other threads run meanwhile."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_int32, c_uint32, c_void_p
from functools import cache
from typing import Final

_LIBRARY: Final = "libkrb5.so.3"

CREDENTIALS_BYTES: Final = 1024
"""More than a ``krb5_creds`` of krb5.h takes on any machine."""


class Data(ctypes.Structure):
    """``krb5_data`` of krb5.h."""

    _fields_ = (("magic", c_int32), ("length", c_uint32), ("data", c_void_p))


class Keyblock(ctypes.Structure):
    """``krb5_keyblock`` of krb5.h."""

    _fields_ = (
        ("magic", c_int32),
        ("enctype", c_int32),
        ("length", c_uint32),
        ("contents", c_void_p),
    )


class Credentials(ctypes.Structure):
    """``krb5_creds`` of krb5.h; times are seconds since 1970, modulo 2**32."""

    _fields_ = (
        ("magic", c_int32),
        ("client", c_void_p),
        ("server", c_void_p),
        ("key", Keyblock),
        ("authtime", c_uint32),
        ("starttime", c_uint32),
        ("endtime", c_uint32),
        ("renew_till", c_uint32),
        ("is_skey", c_uint32),
        ("flags", c_uint32),
        ("addresses", c_void_p),
        ("ticket", Data),
        ("second_ticket", Data),
        ("authdata", c_void_p),
    )


class Principal(ctypes.Structure):
    """``krb5_principal_data`` of krb5.h, as far as it is read here."""

    _fields_ = (("magic", c_int32), ("realm", Data))


class TicketHead(ctypes.Structure):
    """The start of ``krb5_ticket`` of krb5.h: the service that it is for."""

    _fields_ = (("magic", c_int32), ("server", ctypes.POINTER(Principal)))


@cache
def libkrb5() -> ctypes.CDLL:
    """Load what the binding uses as well: caches and keytabs in memory are shared."""
    library = ctypes.CDLL(_LIBRARY)
    pointer, opaque = ctypes.POINTER, c_void_p
    made = pointer(c_void_p)
    prototypes: dict[str, tuple[object, ...]] = {
        "krb5_init_context": (made,),
        "krb5_free_context": (opaque,),
        "krb5_parse_name": (opaque, c_char_p, made),
        "krb5_free_principal": (opaque, opaque),
        "krb5_kt_resolve": (opaque, c_char_p, made),
        "krb5_kt_close": (opaque, opaque),
        "krb5_cc_resolve": (opaque, c_char_p, made),
        "krb5_cc_initialize": (opaque, opaque, opaque),
        "krb5_cc_store_cred": (opaque, opaque, opaque),
        "krb5_cc_close": (opaque, opaque),
        "krb5_free_cred_contents": (opaque, opaque),
        "krb5_get_init_creds_opt_alloc": (opaque, made),
        "krb5_get_init_creds_opt_free": (opaque, opaque),
        "krb5_get_init_creds_opt_set_canonicalize": (opaque, c_int),
        "krb5_get_init_creds_opt_set_forwardable": (opaque, c_int),
        "krb5_get_init_creds_opt_set_etype_list": (opaque, opaque, c_int),
        "krb5_get_init_creds_opt_set_preauth_list": (opaque, opaque, c_int),
        "krb5_get_init_creds_opt_set_fast_ccache_name": (opaque, opaque, c_char_p),
        "krb5_get_init_creds_opt_set_fast_flags": (opaque, opaque, c_int32),
        "krb5_get_init_creds_keytab": (
            *(opaque, opaque, opaque, opaque),
            *(c_int32, c_char_p, opaque),
        ),
        "krb5_mk_req": (
            *(opaque, made, c_int32, c_char_p, c_char_p),
            *(pointer(Data), opaque, pointer(Data)),
        ),
        "krb5_unmarshal_credentials": (opaque, pointer(Data), pointer(pointer(Credentials))),
        "krb5_get_credentials": (
            *(opaque, c_int32, opaque),
            *(pointer(Credentials), pointer(pointer(Credentials))),
        ),
        "krb5_free_creds": (opaque, pointer(Credentials)),
        "krb5_decode_ticket": (pointer(Data), pointer(pointer(TicketHead))),
        "krb5_free_ticket": (opaque, pointer(TicketHead)),
        "krb5_set_principal_realm": (opaque, opaque, c_char_p),
        "krb5_cc_destroy": (opaque, opaque),
        "krb5_free_data_contents": (opaque, pointer(Data)),
        "krb5_auth_con_free": (opaque, opaque),
    }
    for name, types in prototypes.items():
        call = getattr(library, name)
        call.argtypes = types
        # Setters of FAST have a context, and may fail.
        is_void = "_free" in name or ("_opt_set_" in name and "_fast_" not in name)
        call.restype = None if is_void else c_int32
    return library
