"""LDAP connections to a domain controller, encrypted or not at all (MS-ADTS 5.1.2).

Two modes exist: port 389 with a sealing SASL layer, and port 636 with TLS and a channel binding.
Both log on by Kerberos with the tickets of a credential cache, by default the process's. The
controller is reached by the addresses that it was located at; its name is used only for the
service ``ldap/HOST`` and the certificate, and is never looked up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeVar

from credspec.directory import libldap as api
from credspec.directory.certificate_authorities import system_ca_file
from credspec.directory.ldap_session import Entry, LdapError, LdapSession, connect
from credspec.directory.locator import LDAP_PORT, LDAPS_PORT, DomainController
from credspec.directory.logon_cache import logon_cache
from credspec.directory.tls_certificates import certificate_problem
from credspec.errors import CredspecError, NoAnswerError, NotPermittedError, PermanentFaultError

__all__ = ["Connection", "Entry", "Transport", "escape"]

_CONNECT_SECONDS: Final = 10.0
_SEARCH_SECONDS: Final = 5.0
_MAX_ENTRIES: Final = 100
_SEAL_STRENGTH: Final = 128  # bits; anything less is not AES
_CONFIDENTIALITY_REQUIRED: Final = "0000202D"  # WERR_DS_CONFIDENTIALITY_REQUIRED
# RFC 4511 A.1: busy; unavailable, with which a controller also ends the connection of a logon that
# has expired (notice of disconnection, MS-ADTS 5.1.1.6).
_SERVER_CANNOT: Final = frozenset({api.BUSY, api.UNAVAILABLE})
_LOST: Final = frozenset({api.SERVER_DOWN, api.CONNECT_ERROR})

_NOT_CONNECTED: Final = (
    "no address of the controller took a connection: check the route and firewalls to it, and that "
    "it runs (Windows: error 1311, no logon servers)"
)
_ENDED: Final = (
    "the controller took the connection and ended it: look at its log, and whether it is LDAP that "
    "listens there"
)
_HELD_ENDED: Final = "the controller ended the connection; it is asked again over a new one"

_T = TypeVar("_T")


class Transport(StrEnum):
    """How the connection is encrypted: SASL sealing on port 389, or TLS on port 636."""

    LDAP = "ldap"
    LDAPS = "ldaps"

    @property
    def port(self) -> int:
        """The TCP port of this transport."""
        return LDAP_PORT if self is Transport.LDAP else LDAPS_PORT


class Connection:
    """A bound connection; use from one thread at a time.

    Opening blocks for at most ten seconds, a search for at most five, unless given other times.
    """

    def __init__(self, session: LdapSession) -> None:
        self._session = session

    @classmethod
    def open(
        cls,
        controller: DomainController,
        transport: Transport = Transport.LDAP,
        *,
        ca_file: Path | None = None,
        seconds: float = _CONNECT_SECONDS,
        anonymous: bool = False,
        ccache: str | None = None,
    ) -> Self:
        """Connect and bind; an `anonymous` connection may read only the rootDSE.

        `ca_file` holds the certificate authorities to trust, in PEM; only with LDAPS, default the
        system's. `ccache` names the credential cache to log on with, default the process's.

        Raises:
            NoAnswerError: `ldap-unreachable`, `ldap-timeout`.
            UnreachableError: as `certificate_problem` returns.
            NotPermittedError: `ldap-bind-refused`.
        """
        where = f"LDAP {controller.host}:{transport.port}"
        end = time.monotonic() + seconds
        # What may be blamed is what was seen: no connection, or one that the other side ended.
        seen = [_NOT_CONNECTED]

        def opened() -> LdapSession:
            connected = connect(controller.addresses, transport.port, seconds)
            seen[0] = _ENDED
            session = LdapSession(connected, controller.host, transport, transport.port)
            try:
                if transport is Transport.LDAPS:
                    _start_tls(session, controller, ca_file, end)
                elif not anonymous:
                    session.require_sealing(_SEAL_STRENGTH)
                if not anonymous:
                    session.bind(end - time.monotonic())
            except BaseException:
                session.close()
                raise
            return session

        with logon_cache(ccache):
            return cls(_guarded(where, opened, lambda: seen[0]))

    def search(
        self,
        base: str,
        filter_text: str,
        attributes: Sequence[str],
        *,
        subtree: bool = True,
        seconds: float = _SEARCH_SECONDS,
    ) -> list[Entry]:
        """Search and return at most 100 entries, values as raw bytes.

        Raises:
            NoAnswerError: `ldap-timeout`, `ldap-unreachable`, `ldap-unavailable`.
            NotPermittedError: `ldap-not-encrypted` and other refusals.
            CredspecError: `ldap-name-invalid`, `ldap`.
        """
        return self.send_search(base, filter_text, attributes, subtree=subtree, seconds=seconds)()

    def send_search(
        self,
        base: str,
        filter_text: str,
        attributes: Sequence[str],
        *,
        subtree: bool = True,
        seconds: float = _SEARCH_SECONDS,
    ) -> Callable[[], list[Entry]]:
        """Send a search, and return what waits for its answer, for so many seconds from then on.

        Other searches may be sent and waited for meanwhile. Both raise as `search`.
        """
        if "\0" in base or "\0" in filter_text:
            # A name that the controller itself gave; libldap would end it there.
            raise PermanentFaultError.of(
                "ldap-name-invalid", "a name with a NUL", where="LDAP search"
            )
        where = f"LDAP search below {base or 'the root'}"
        number = _guarded(
            where,
            lambda: self._session.send_search(
                base,
                filter_text,
                attributes,
                subtree=subtree,
                seconds=seconds,
                size_limit=_MAX_ENTRIES,
            ),
        )
        return lambda: _guarded(where, lambda: self._session.entries(number, seconds))

    def overwrite_last_answer(self) -> Callable[[], None]:
        """Ask for a longer answer, which takes the place of the last one in libraries' buffers.

        libldap and libsasl keep the plain text of the last answer as long as the connection is
        open. Returns what waits until it has come. Both raise as `search`.
        """
        answer = self.send_search("", "(objectClass=*)", ("*", "+"), subtree=False)

        def wait() -> None:
            answer()

        return wait

    def close(self) -> None:
        """Close the connection; never fails."""
        with suppress(Exception):  # a broken connection is closed already
            self._session.close()


def _start_tls(
    session: LdapSession, controller: DomainController, ca_file: Path | None, end: float
) -> None:
    """Make the TLS handshake; a failure says what is wrong with which certificate."""
    try:
        session.start_tls(ca_file or system_ca_file(), end - time.monotonic())
    except LdapError as error:
        if error.code == api.TIMEOUT:
            raise
        problem = certificate_problem(controller, ca_file)
        if problem is None:
            raise
        raise problem from None


def escape(value: str) -> str:
    """Return `value` for use in a filter (RFC 4515 section 3)."""
    return re.sub(r"[\x00-\x1f()*\\\x7f]|[^\x00-\x7f]", _escape_character, value)


def _escape_character(match: re.Match[str]) -> str:
    return "".join(f"\\{byte:02x}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _guarded(
    where: str, call: Callable[[], _T], remedy_if_lost: Callable[[], str] = lambda: _HELD_ENDED
) -> _T:
    """Run an LDAP call and translate its errors."""
    started = time.monotonic()
    try:
        return call()
    except LdapError as error:
        text = str(error)
        if error.code == api.TIMEOUT:
            raise NoAnswerError.of(
                "ldap-timeout",
                f"no answer within {time.monotonic() - started:.1f} s",
                where=where,
                remedy="the domain controller is overloaded, paused or cut off; another is tried "
                "next",
            ) from None
        if error.code in _LOST:
            raise NoAnswerError.of(
                "ldap-unreachable",
                f"the connection failed: {text}",
                where=where,
                remedy=remedy_if_lost(),
            ) from None
        if error.code == api.INVALID_CREDENTIALS:
            raise NotPermittedError.of(
                "ldap-bind-refused",
                f"the domain controller refused the logon: {text}",
                where=where,
                remedy="check the host identity (keytab, clock) and the controller's SPN ldap/HOST",
            ) from None
        if "No worthy mechs" in text:
            raise NotPermittedError.of(
                "ldap-no-mechanism",
                "no SASL mechanism of both sides seals with 128 bits or more",
                where=where,
                expected="GSSAPI with AES",
                remedy="install the package libsasl2-modules-gssapi-mit",
            ) from None
        if error.code in _SERVER_CANNOT:
            raise NoAnswerError.of(
                "ldap-unavailable",
                f"the domain controller does not serve: {text}",
                where=where,
                remedy="it is starting, stopping or overloaded, or ended an old logon; it is asked "
                "again with a new one",
            ) from None
        if _CONFIDENTIALITY_REQUIRED in text:
            raise NotPermittedError.of(
                "ldap-not-encrypted", "the connection is not sealed", where=where
            ) from None
        raise CredspecError.of("ldap", text, where=where) from None
