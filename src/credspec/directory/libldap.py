"""OpenLDAP's libldap by ctypes: other threads run during every call, unlike in its C bindings.

Only what `credspec.directory.connection` needs. The socket is connected before libldap gets it
(``ldap_init_fd`` of openldap.h), so that libldap resolves no name and connects to nobody.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from functools import cache
from typing import Final

from credspec.errors import PermanentFaultError

# OpenLDAP 2.6, 2.5, and 2.4 with its locks.
_LIBRARIES: Final = ("libldap.so.2", "libldap-2.5.so.0", "libldap_r-2.4.so.2")

PROTOCOL_TCP: Final = 1
SASL_QUIET: Final = 2
ALL_MESSAGES: Final = 1
ON: Final = 1

# Options (ldap.h).
OPT_REFERRALS: Final = 0x08
OPT_PROTOCOL_VERSION: Final = 0x11
OPT_RESULT_CODE: Final = 0x31
OPT_DIAGNOSTIC_MESSAGE: Final = 0x32
OPT_SOCKBUF: Final = 0x5008
OPT_TLS_CACERTFILE: Final = 0x6002
OPT_TLS_REQUIRE_CERT: Final = 0x6006
OPT_TLS_NEWCTX: Final = 0x600F
OPT_SASL_SECPROPS: Final = 0x6106
OPT_SASL_NOCANON: Final = 0x610B
OPT_SASL_CBINDING: Final = 0x610E
SOCKBUF_DATA_READY: Final = 8  # LBER_SB_OPT_DATA_READY of lber.h
TLS_DEMAND: Final = 2
CBINDING_TLS_ENDPOINT: Final = 2

# Result codes: those of libldap itself are negative (ldap.h), others RFC 4511 4.1.9.
SUCCESS: Final = 0
SASL_BIND_IN_PROGRESS: Final = 14
REFERRAL: Final = 10
NO_SUCH_OBJECT: Final = 32
INVALID_CREDENTIALS: Final = 49
BUSY: Final = 51
UNAVAILABLE: Final = 52
SERVER_DOWN: Final = -1
TIMEOUT: Final = -5
CONNECT_ERROR: Final = -11

_SASL_CALLBACKS_END: Final = 0


class TimeValue(ctypes.Structure):
    """``struct timeval`` of sys/time.h."""

    _fields_ = (("seconds", c_long), ("microseconds", c_long))

    @classmethod
    def of(cls, seconds: float) -> TimeValue:
        """Return a time of at least zero seconds."""
        whole = max(0, int(seconds * 1_000_000))
        return cls(whole // 1_000_000, whole % 1_000_000)


class BerValue(ctypes.Structure):
    """``struct berval`` of lber.h: bytes with their number."""

    _fields_ = (("length", c_ulong), ("data", c_void_p))


class _SaslPrompt(ctypes.Structure):
    """``sasl_interact_t`` of sasl.h."""

    _fields_ = (
        ("id", c_ulong),
        ("challenge", c_char_p),
        ("prompt", c_char_p),
        ("default", c_char_p),
        ("result", c_void_p),
        ("length", c_uint),
    )


_Interaction = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint, c_void_p, POINTER(_SaslPrompt))
_EMPTY: Final = ctypes.create_string_buffer(b"")


def _answer_nothing(
    _ld: int, _flags: int, _defaults: int, prompts: ctypes._Pointer[_SaslPrompt]
) -> int:
    """Answer every prompt of a SASL mechanism with nothing: GSSAPI asks only whom to act as."""
    number = 0
    while prompts[number].id != _SASL_CALLBACKS_END:
        prompts[number].result = ctypes.addressof(_EMPTY)
        prompts[number].length = 0
        number += 1
    return SUCCESS


no_answers: Final = _Interaction(_answer_nothing)
"""What ``ldap_sasl_interactive_bind`` asks."""


@cache
def libldap() -> ctypes.CDLL:
    """Load the library.

    Raises:
        CredspecError: `libldap-missing`.
    """
    library = _load()
    out = POINTER(c_void_p)
    ld, message, entry, text = c_void_p, c_void_p, c_void_p, c_char_p
    prototypes: dict[str, tuple[object, ...]] = {
        "ldap_init_fd": (c_int, c_int, text, out),
        "ldap_set_option": (ld, c_int, c_void_p),
        "ldap_get_option": (ld, c_int, c_void_p),
        "ldap_install_tls": (ld,),
        "ber_sockbuf_ctrl": (c_void_p, c_int, c_void_p),
        "ldap_unbind_ext": (ld, c_void_p, c_void_p),
        "ldap_abandon_ext": (ld, c_int, c_void_p, c_void_p),
        "ldap_sasl_interactive_bind": (
            *(ld, text, text, c_void_p, c_void_p, c_uint),
            *(_Interaction, c_void_p, message, POINTER(c_char_p), POINTER(c_int)),
        ),
        "ldap_search_ext": (
            *(ld, text, c_int, text, POINTER(c_char_p), c_int, c_void_p, c_void_p),
            *(POINTER(TimeValue), c_int, POINTER(c_int)),
        ),
        "ldap_result": (ld, c_int, c_int, POINTER(TimeValue), out),
        "ldap_parse_result": (
            *(ld, message, POINTER(c_int), out, out),
            *(c_void_p, c_void_p, c_int),
        ),
    }
    for name, types in prototypes.items():
        call = getattr(library, name)
        call.argtypes, call.restype = types, c_int
    pointers: dict[str, tuple[object, ...]] = {
        "ldap_first_entry": (ld, message),
        "ldap_next_entry": (ld, entry),
        "ldap_get_dn": (ld, entry),
        "ldap_first_attribute": (ld, entry, out),
        "ldap_next_attribute": (ld, entry, c_void_p),
    }
    for name, types in pointers.items():
        call = getattr(library, name)
        call.argtypes, call.restype = types, c_void_p
    library.ldap_get_values_len.argtypes = (ld, entry, text)
    library.ldap_get_values_len.restype = POINTER(POINTER(BerValue))
    library.ldap_value_free_len.argtypes = (POINTER(POINTER(BerValue)),)
    library.ldap_err2string.argtypes, library.ldap_err2string.restype = (c_int,), c_char_p
    for name in ("ldap_msgfree", "ldap_memfree"):
        getattr(library, name).argtypes = (c_void_p,)
    library.ber_free.argtypes = (c_void_p, c_int)
    for name in ("ldap_memfree", "ldap_value_free_len", "ber_free"):
        getattr(library, name).restype = None
    return library


def _load() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise PermanentFaultError.of(
        "libldap-missing",
        "none of " + ", ".join(_LIBRARIES) + " can be loaded",
        where="LDAP",
        remedy="install libldap (Debian: libldap2 or libldap-2.5-0; Fedora: openldap)",
    )
