"""What libldap's errors become; those of a controller that cannot serve mean another connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from credspec.directory import connection, libldap
from credspec.directory.connection import Connection, _guarded
from credspec.directory.ldap_session import LdapError, LdapSession
from credspec.directory.locator import DomainController
from credspec.errors import CredspecError, NotPermittedError, UnreachableError


def failing(code: int, text: str = "") -> Callable[[], None]:
    def fail() -> None:
        raise LdapError(code, text)

    return fail


@pytest.mark.parametrize("code", [51, 52])
def test_a_controller_that_cannot_serve_is_as_one_that_does_not_answer(code: int) -> None:
    """52 is also its notice that a logon has expired (MS-ADTS 5.1.1.6)."""
    with pytest.raises(UnreachableError, match="ldap-unavailable"):
        _guarded("LDAP", failing(code, "Server is unavailable"))


@pytest.mark.parametrize(
    ("code", "text", "kind", "expected"),
    [
        (1, "Operations error", CredspecError, "ldap"),
        (-2, "Local error", CredspecError, "ldap"),
        (8, "Strong auth required: 0000202D", NotPermittedError, "ldap-not-encrypted"),
        (-6, "No worthy mechs found", NotPermittedError, "ldap-no-mechanism"),
    ],
)
def test_other_errors(code: int, text: str, kind: type[CredspecError], expected: str) -> None:
    with pytest.raises(CredspecError) as caught:
        _guarded("LDAP", failing(code, text))
    assert type(caught.value) is kind
    assert caught.value.code == expected


def test_a_port_that_takes_no_connection_may_be_a_firewalls_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(connection, "LDAP_PORT", port)
    with pytest.raises(UnreachableError, match=r"firewalls.*ldap-unreachable"):
        Connection.open(DomainController("dc", ("127.0.0.1",)))


def test_a_connection_that_was_taken_is_no_firewalls_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the logon is simulated, that of the search is the listener's."""

    def take(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                server.accept()[0].close()

    def bind(*_: object) -> None:
        raise LdapError(libldap.SERVER_DOWN, "Can't contact LDAP server")

    monkeypatch.setattr(LdapSession, "bind", bind)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=take, args=(server,), daemon=True).start()
        monkeypatch.setattr(connection, "LDAP_PORT", server.getsockname()[1])
        controller = DomainController("dc", ("127.0.0.1",))
        for anonymous, words in ((False, "ended it"), (True, "ended the connection")):
            with pytest.raises(UnreachableError) as caught:
                Connection.open(controller, anonymous=anonymous).search("", "(a=b)", ())
            assert caught.value.code == "ldap-unreachable"
            assert words in str(caught.value)
            assert "firewall" not in str(caught.value)
        server.shutdown(socket.SHUT_RDWR)
