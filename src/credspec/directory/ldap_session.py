"""An LDAP session on a connected socket: bind by GSSAPI, search, wait with a deadline.

Every call into libldap lets other threads run, and none waits without a deadline. Names are only
what the session is given: the service to log on to (``ldap/HOST``) and the name in the certificate.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ctypes import byref, c_char_p, c_int, c_void_p
from pathlib import Path
from typing import Any, Final

from credspec.directory import libldap as api
from credspec.directory.libldap import BerValue, TimeValue, libldap, no_answers
from credspec.directory.name_lookups import without_name_servers

Entry = Mapping[str, Sequence[bytes]]
"""Attribute names in lower case, with their raw values; the DN under ``dn``."""

_ADDRESS_SECONDS: Final = 2.0
# Of a sealed piece that the server may send; libldap takes a buffer of that size for each
# connection, 16 MiB if nothing is said. Java's clients ask for as much.
_SASL_BYTES: Final = 65536
_SCOPES: Final = {False: 0, True: 2}


class LdapError(Exception):
    """What libldap or the server says: a result `code` of ldap.h or RFC 4511, and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (LDAP result {code})")
        self.code = code


def connect(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    """Connect to the first of these addresses, IPv4 or IPv6 in text form, that takes a connection.

    Raises:
        LdapError: `SERVER_DOWN`, or `TIMEOUT` if none answers within so many seconds.
    """
    end = time.monotonic() + seconds
    failure = LdapError(api.SERVER_DOWN, "it has no address")
    for number, address in enumerate(addresses):
        left = end - time.monotonic()
        is_last = number == len(addresses) - 1
        try:
            # Numeric, so that nothing is looked up.
            return socket.create_connection(
                (address, port),
                timeout=max(0.001, left if is_last else min(left, _ADDRESS_SECONDS)),
            )
        except TimeoutError:
            failure = LdapError(api.TIMEOUT, f"{address} does not take a connection")
        except OSError as error:
            failure = LdapError(api.SERVER_DOWN, f"{address}: {error.strerror or error}")
    raise failure


class LdapSession:
    """A session of libldap; use from one thread at a time.

    All methods but `close` raise `LdapError`.
    """

    def __init__(self, connected: socket.socket, host: str, scheme: str, port: int) -> None:
        """Take over a connected socket; `host` is the DNS name of the controller there."""
        self._library = libldap()
        self._ld = c_void_p()
        # What comes bit by bit must not block in the middle, where no deadline counts.
        connected.setblocking(False)
        descriptor = connected.detach()
        self._descriptor = descriptor
        with without_name_servers():
            code = self._library.ldap_init_fd(
                descriptor, api.PROTOCOL_TCP, f"{scheme}://{host}:{port}".encode(), byref(self._ld)
            )
        if code != api.SUCCESS:
            os.close(descriptor)
            raise self._error(code)
        self._set_number(api.OPT_PROTOCOL_VERSION, 3)
        self._set(api.OPT_REFERRALS, None)
        # The name is the one given, whatever DNS says of the address.
        self._set(api.OPT_SASL_NOCANON, c_void_p(api.ON))

    def start_tls(self, ca_file: Path, seconds: float) -> None:
        """Make the TLS handshake; the certificate must be of `host`, by an authority in a file.

        A logon in TLS is bound to it (RFC 5929, tls-server-end-point), and not sealed once more.
        """
        self._set_number(api.OPT_TLS_REQUIRE_CERT, api.TLS_DEMAND)
        self._set(api.OPT_TLS_CACERTFILE, c_char_p(os.fsencode(ca_file)))
        self._set_number(api.OPT_TLS_NEWCTX, 0)
        self._set_number(api.OPT_SASL_CBINDING, api.CBINDING_TLS_ENDPOINT)
        self._set(api.OPT_SASL_SECPROPS, c_char_p(b"maxssf=0"))
        with self._lost_after(seconds):
            self._check(self._library.ldap_install_tls(self._ld))

    def require_sealing(self, strength: int) -> None:
        """Let the logon agree on encryption of at least so many bits, or fail."""
        properties = f"minssf={strength},maxbufsize={_SASL_BYTES}"
        self._set(api.OPT_SASL_SECPROPS, c_char_p(properties.encode()))

    def bind(self, seconds: float) -> None:
        """Log on by GSSAPI with the tickets of this thread's credential cache."""
        end = time.monotonic() + seconds
        mechanism, number = c_char_p(), c_int()
        message: c_void_p | None = None
        while True:
            with without_name_servers():
                code = self._library.ldap_sasl_interactive_bind(
                    *(self._ld, None, b"GSSAPI", None, None, api.SASL_QUIET),
                    *(no_answers, None, message, byref(mechanism), byref(number)),
                )
            if message is not None:
                self._library.ldap_msgfree(message)
            if code != api.SASL_BIND_IN_PROGRESS:
                return self._check(code)
            message = self._message(number.value, end - time.monotonic())

    def send_search(
        self,
        base: str,
        filter_text: str,
        attributes: Sequence[str],
        *,
        subtree: bool,
        seconds: float,
        size_limit: int,
    ) -> int:
        """Send a search, and return its number."""
        number = c_int()
        names = (c_char_p * (len(attributes) + 1))(*(name.encode() for name in attributes), None)
        self._check(
            self._library.ldap_search_ext(
                *(
                    self._ld,
                    base.encode("utf-8", "replace"),
                    _SCOPES[subtree],
                    filter_text.encode(),
                    names,
                ),
                *(0, None, None, byref(TimeValue.of(seconds)), size_limit, byref(number)),
            )
        )
        return number.value

    def entries(self, number: int, seconds: float) -> list[Entry]:
        """Wait for what a search found; nothing if its base is not there.

        Referrals are left out. The server need not be asked further if the time is over.
        """
        try:
            message = self._message(number, seconds)
        except LdapError as error:
            if error.code == api.TIMEOUT:
                self._library.ldap_abandon_ext(self._ld, number, None, None)
            raise
        try:
            self._check_result(message)
            return list(self._entries(message))
        finally:
            self._library.ldap_msgfree(message)

    def close(self) -> None:
        """End the session and close its socket."""
        if self._ld.value:
            self._library.ldap_unbind_ext(self._ld, None, None)
            self._ld = c_void_p()

    @contextmanager
    def _lost_after(self, seconds: float) -> Iterator[None]:
        """End the connection after so many seconds of what libldap does without a deadline.

        With GnuTLS a handshake on a socket that does not block would keep a processor busy.
        """
        expired = threading.Event()
        with socket.socket(fileno=os.dup(self._descriptor)) as connected:

            def expire() -> None:
                expired.set()
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(max(0.0, seconds), expire)
            timer.daemon = True
            timer.start()
            os.set_blocking(self._descriptor, True)
            try:
                yield
            except LdapError:
                if expired.is_set():
                    raise LdapError(api.TIMEOUT, "no answer in time") from None
                raise
            finally:
                timer.cancel()
                timer.join()
                os.set_blocking(self._descriptor, False)

    def _message(self, number: int, seconds: float) -> c_void_p:
        # libldap measures time by the clock on the wall, which may be set meanwhile.
        end = time.monotonic() + seconds
        message = c_void_p()
        at_once = byref(TimeValue(0, 0))
        while True:
            kind = self._library.ldap_result(
                self._ld, number, api.ALL_MESSAGES, at_once, byref(message)
            )
            if kind > 0:
                return message
            if kind < 0:
                raise self._error(self._result_code())
            left = end - time.monotonic()
            if left <= 0:
                raise LdapError(api.TIMEOUT, "no answer in time")
            if not self._has_data():
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLIN)
                waiting.poll(left * 1000)

    def _has_data(self) -> bool:
        """Return whether what was read already holds more than what was looked at."""
        buffer = c_void_p()
        self._library.ldap_get_option(self._ld, api.OPT_SOCKBUF, byref(buffer))
        return bool(self._library.ber_sockbuf_ctrl(buffer, api.SOCKBUF_DATA_READY, None) > 0)

    def _check_result(self, message: c_void_p) -> None:
        code, matched, text = c_int(), c_void_p(), c_void_p()
        self._check(
            self._library.ldap_parse_result(
                self._ld, message, byref(code), byref(matched), byref(text), None, None, 0
            )
        )
        said = ctypes.string_at(text.value) if text.value else b""
        for allocated in (matched, text):
            self._library.ldap_memfree(allocated)
        if code.value not in {api.SUCCESS, api.REFERRAL, api.NO_SUCH_OBJECT}:
            raise self._error(code.value, said)

    def _entries(self, message: c_void_p) -> Iterator[Entry]:
        entry = self._library.ldap_first_entry(self._ld, message)
        while entry:
            yield self._entry(entry)
            entry = self._library.ldap_next_entry(self._ld, entry)

    def _entry(self, entry: int) -> Entry:
        library = self._library
        name = library.ldap_get_dn(self._ld, entry)
        if not name:
            raise self._error(self._result_code())
        found: dict[str, Sequence[bytes]] = {"dn": [ctypes.string_at(name)]}
        library.ldap_memfree(name)
        position = c_void_p()
        attribute = library.ldap_first_attribute(self._ld, entry, byref(position))
        while attribute:
            key = ctypes.string_at(attribute)
            library.ldap_memfree(attribute)
            found[key.decode("utf-8", "replace").lower()] = self._values(entry, key)
            attribute = library.ldap_next_attribute(self._ld, entry, position)
        library.ber_free(position, 0)
        return found

    def _values(self, entry: int, attribute: bytes) -> list[bytes]:
        values = self._library.ldap_get_values_len(self._ld, entry, attribute)
        if not values:
            return []
        try:
            return list(_copies(values))
        finally:
            self._library.ldap_value_free_len(values)

    def _set(self, option: int, value: Any) -> None:
        self._check(self._library.ldap_set_option(self._ld, option, value))

    def _set_number(self, option: int, value: int) -> None:
        self._set(option, byref(c_int(value)))

    def _check(self, code: int) -> None:
        if code != api.SUCCESS:
            raise self._error(code)

    def _result_code(self) -> int:
        code = c_int(api.SERVER_DOWN)
        self._library.ldap_get_option(self._ld, api.OPT_RESULT_CODE, byref(code))
        return code.value

    def _error(self, code: int, said: bytes = b"") -> LdapError:
        if not said and self._ld.value:
            text = c_void_p()
            self._library.ldap_get_option(self._ld, api.OPT_DIAGNOSTIC_MESSAGE, byref(text))
            if text.value:
                said = ctypes.string_at(text.value)
                self._library.ldap_memfree(text)
        parts = (self._library.ldap_err2string(code), said)
        words = ". ".join(part.decode("utf-8", "replace").strip(". \0") for part in parts if part)
        return LdapError(code, " ".join(words.split()))


def _copies(values: ctypes._Pointer[ctypes._Pointer[BerValue]]) -> Iterator[bytes]:
    number = 0
    while values[number]:
        value = values[number].contents
        yield ctypes.string_at(value.data, value.length)
        number += 1
